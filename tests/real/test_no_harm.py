"""Whatever nicety does, nobody keeps its values and nobody loses his own: a storm of forks, and a hand that interferes at any time.

Real processes; every value is read back from the kernel without our code.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.act.undo import undo_from_ledger
from nicety.scheduler.decision import Action, Restore, Set
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.hands.faults import Status, Trouble
from nicety.scheduler.hands.knobs.cgroup import find
from nicety.scheduler.hands.knobs.control import LinuxKernel
from nicety.scheduler.hands.knobs.slices import Slices
from nicety.scheduler.hands.places import Control, Knob, Value
from nicety.scheduler.places import CgroupPlace, DecisionPlace, ProcessPlace
from nicety.scheduler.testing.bench import Bench
from nicety.scheduler.testing.places import place_of
from nicety.scheduler.testing.puppet import Puppet, proc_id

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="lowering a nice again needs CAP_SYS_NICE; made for root"),
]

EXPECTED: dict[Control, Value] = {
    Control.NICE: 0,
    Control.SLICE: 0,
    Control.AUTOGROUP: 0,
    Control.CPU_SHARES: 1024,
    Control.AFFINITY: tuple(range(os.cpu_count() or 1)),
}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Bench(tmp_path / "state") as made:
        yield made


# --- a storm of forks -----------------------------------------------------------------------------------------------------------

FORKS = 800
"""By the root itself; with what those fork in their turn it is more than 2,000 processes."""

STORM = r"""
import os, random, signal, sys, threading, time
count, mark = int(sys.argv[1]), sys.argv[2]
chance = random.Random(7)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody is waited for
def live(seconds, depth):
    if chance.random() < 0.1:
        threading.Thread(target=time.sleep, args=(seconds,), daemon=True).start()
    if depth and chance.random() < 0.4:
        if os.fork() == 0:
            chance.seed(os.getpid())
            live(seconds * 2, depth - 1)
        elif chance.random() < 0.3:
            os._exit(0)  # its child is an orphan
    time.sleep(seconds)
    os._exit(0)
def hop(times):
    chance.seed(times)
    for _ in range(times):
        time.sleep(chance.uniform(0.001, 0.03))
        if os.fork():
            os._exit(0)
    os._exit(0)
print("ready", flush=True)
sys.stdin.readline()
for number in range(8):
    if os.fork() == 0:
        hop(100 + number)
for number in range(count):
    if number == count * 19 // 20:
        print("most", flush=True)
    if os.fork() == 0:
        chance.seed(number)
        if number % 50 == 0:
            os.setsid()
        live(chance.choice((0.001, 0.005, 0.02, 0.2, 4.0)), 2 if number % 50 else 0)
    if number % 100 == 0:
        threading.Thread(target=time.sleep, args=(2,), daemon=True).start()
    time.sleep(0.0005)
print("over", flush=True)
sys.stdin.readline()
"""


class Storm:
    """A process that forks FORKS children, which fork in their turn, live from 1 ms to seconds, and are orphaned at times.
    Eight of them fork a successor every few milliseconds and end: those slip through a single scan in one of four undos.

    Who has begun a session of his own forks no more: of such orphans nobody can say whose they were (docs/decisions/0003).
    """

    def __init__(self) -> None:
        self.mark = f"nicety-storm-{os.getpid()}-{time.monotonic_ns()}"
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", STORM, str(FORKS), self.mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._line("ready")
        self.id = proc_id(self._process.pid)

    def begin(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def wait(self, word: str) -> None:
        """Until all but a twentieth are forked ("most"), or all ("over")."""
        self._line(word)

    def _line(self, word: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == f"{word}\n"

    def pids(self) -> list[int]:
        """All that live of it, found by a word on their command line."""
        found = []
        for path in Path("/proc").iterdir():
            try:
                if path.name.isdigit() and self.mark.encode() in (path / "cmdline").read_bytes():
                    found.append(int(path.name))
            except OSError:
                continue
        return found

    def values(self) -> dict[int, tuple[int, int, int]]:
        """Nice, slice and nice of the autogroup by thread of whoever lives of it."""
        slices, found = Slices(), {}
        for pid in self.pids():
            try:
                autogroup = int(Path(f"/proc/{pid}/autogroup").read_text().split()[2])
                for path in Path(f"/proc/{pid}/task").iterdir():
                    tid = int(path.name)
                    found[tid] = (os.getpriority(os.PRIO_PROCESS, tid), slices.read(tid), autogroup)
            except (OSError, IndexError):
                continue
        return found

    def close(self) -> None:
        deadline = time.monotonic() + 10
        while pids := self.pids():
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            assert time.monotonic() < deadline
        self._process.communicate()


@pytest.fixture
def storm() -> Iterator[Storm]:
    made = Storm()
    yield made
    made.close()


OURS = {Control.NICE: 7, Control.SLICE: 300_000, Control.AUTOGROUP: 11}


def demotions(process: ProcId) -> list[Action]:
    kernel = LinuxKernel()
    controls = [Control.NICE, Control.SLICE, Control.AUTOGROUP]
    if isinstance(kernel.autogroup(process), Trouble):
        controls.remove(Control.AUTOGROUP)
    try:
        Slices().read(process.pid)
    except OSError:
        controls.remove(Control.SLICE)
    return [Set(control, place_of(control, process), OURS[control], EXPECTED[control]) for control in controls]


def test_after_a_fork_storm_nobody_keeps_our_value(bench: Bench, storm: Storm) -> None:
    actions = demotions(storm.id)
    storm.begin()
    seen = []
    for _ in range(2):
        for action in actions:
            (outcome,) = bench.apply(action)
            assert outcome.status in (Status.APPLIED, Status.PARTIAL), outcome
            time.sleep(0.1)  # that some are born with our value
        seen.append(sum(value != (0, 0, 0) for value in storm.values().values()))
        bench.actuator.undo()
        left = {tid: value for tid, value in storm.values().items() if value != (0, 0, 0)}
        assert not left, f"{left} after undo in the middle"
        assert bench.ledger.outstanding() == ()
    storm.wait("most")  # a demoted storm takes its time
    bench.apply(*actions)
    storm.wait("over")
    seen.append(sum(value != (0, 0, 0) for value in storm.values().values()))
    bench.actuator.undo()
    values = storm.values()
    assert set(values.values()) == {(0, 0, 0)}
    assert min(seen) >= 5, f"threads with our value before each undo: {seen}"
    assert bench.ledger.outstanding() == ()


ACTOR = """
import sys, time
from pathlib import Path
from nicety.models.identity import ProcId
from nicety.scheduler.act.actuate import Acting
from nicety.scheduler.testing.hands import hands_with
from nicety.scheduler.decision import Decision, Set, Why
from nicety.scheduler.hands.places import Control
from nicety.scheduler.testing.places import place_of
from nicety.scheduler.hands.knobs.control import LinuxKernel
from nicety.scheduler.read.locks import LinuxLocks
from nicety.scheduler.hands.ledger import Ledger, StateLock
class Clock:
    monotonic = staticmethod(time.monotonic_ns)
    wall = staticmethod(time.time_ns)
    def sleep_until(self, at):
        time.sleep(max(0, at - time.monotonic_ns()) / 1e9)
state, pid, ticks, *rest = sys.argv[1:]
target = ProcId(int(pid), int(ticks))
lock = StateLock(Path(state))
kernel = LinuxKernel()
hands = hands_with(Ledger(Path(state) / "ledger.log", kernel.boot_id()), kernel, Clock())
actuator = Acting(hands, kernel, LinuxLocks(), {}, {}, Clock())
why = Why("test", "because", {}, (), ())
for turn in range(1000):
    for word in rest:
        control, value = word.split("=")
        action = Set(Control(control), place_of(Control(control), target), int(value) + turn % 3, 0)
        actuator.apply([Decision(f"t-{turn}.0", "p", "t", action, why)])
        if turn == 0:
            time.sleep(0.1)
    actuator.settle()
    print(turn, flush=True)
    time.sleep(0.02)
"""


@pytest.mark.parametrize("turns", [1, 3, 5])
def test_after_kill_nine_within_a_fork_storm_nobody_keeps_our_value(tmp_path: Path, storm: Storm, turns: int) -> None:
    state = tmp_path / "state"
    words = [f"{action.control}={action.value}" for action in demotions(storm.id) if isinstance(action, Set)]
    actor = subprocess.Popen(
        [sys.executable, "-c", ACTOR, str(state), *map(str, storm.id), *words], stdout=subprocess.PIPE, text=True
    )
    assert actor.stdout is not None
    actor.stdout.readline()
    storm.begin()
    for _ in range(turns):
        actor.stdout.readline()
    deadline = time.monotonic() + 60  # a demoted storm takes its time
    while sum(value != (0, 0, 0) for value in storm.values().values()) <= 20:
        assert time.monotonic() < deadline
    actor.kill()
    actor.communicate()
    outcomes = undo_from_ledger(state, SystemClock())
    left = {tid: value for tid, value in storm.values().items() if value != (0, 0, 0)}
    assert not left, outcomes
    assert undo_from_ledger(state, SystemClock()) == ()


BIG = """
import mmap, os, sys, time
memory = mmap.mmap(-1, 256 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
for at in range(0, len(memory), 4096):
    memory[at] = 1
print("ready", flush=True)
while sys.stdin.readline():
    print("now", flush=True)
    child = os.fork()
    if child == 0:
        time.sleep(60)
    print(child, flush=True)
"""
"""A fork takes it some 5 ms, for as long as which nobody sees the child."""


def test_a_child_that_is_being_forked_while_its_parent_is_put_back_does_not_keep_our_value(bench: Bench) -> None:
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", BIG], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as big:
        assert big.stdin is not None
        assert big.stdout is not None
        try:
            assert big.stdout.readline() == "ready\n"
            parent, values = proc_id(big.pid), []
            for _ in range(10):
                bench.apply(Set(Control.NICE, ProcessPlace(parent), 7, 0))
                big.stdin.write("\n")
                big.stdin.flush()
                assert big.stdout.readline() == "now\n"
                bench.actuator.undo()
                child = int(big.stdout.readline())
                values.append(os.getpriority(os.PRIO_PROCESS, child))
                os.kill(child, signal.SIGKILL)
            assert values == [0] * 10
        finally:
            big.kill()


# --- a hand that interferes -----------------------------------------------------------------------------------------------------


class Interfered(LinuxKernel):
    """The kernel, with `hand` called before each look at a knob and each change of one."""

    def __init__(self) -> None:
        super().__init__()
        self.hand: Callable[[], None] = lambda: None

    def read(self, knob: Knob) -> Value | Trouble:
        self.hand()
        return super().read(knob)

    def write(self, knob: Knob, expected: Value, value: Value) -> Trouble | None:
        self.hand()
        return super().write(knob, expected, value)


@dataclass
class Hand:
    """A person who sets one value, when it is the `left`th time that something happens."""

    scene: Scene
    control: Control
    tid: int
    value: Value
    left: int
    phase: str = "before"
    done_in: str = ""

    def turn(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.scene.set(self.control, self.tid, self.value)
            self.done_in = self.phase

    def now(self, phase: str) -> None:
        """If it has not happened yet."""
        if self.left > 0:
            self.left, self.phase = 1, phase
            self.turn()


class Scene:
    """A process with two threads, a cgroup of its own where there is v1, and a person who sets one value at some moment."""

    def __init__(self) -> None:
        self.puppet = Puppet()
        self.tids = [self.puppet.pid, self.puppet.thread(), self.puppet.thread()]
        mount = find(Path("/proc/self/mountinfo").read_text()).shares
        self.group = None if mount is None else Path(mount.point) / f"nicety-hand-{os.getpid()}"
        if self.group is not None:
            self.group.mkdir(exist_ok=True)
        self.autogroup = Path(f"/proc/{self.puppet.pid}/autogroup")

    def controls(self) -> list[Control]:
        found = [Control.NICE]
        if not isinstance(LinuxKernel().autogroup(self.puppet.id), Trouble):
            found.append(Control.AUTOGROUP)
        if self.group is not None:
            found.append(Control.CPU_SHARES)
        if (os.cpu_count() or 1) > 1:
            found.append(Control.AFFINITY)
        return found

    def get(self, control: Control, tid: int) -> Value:
        if control is Control.NICE:
            return os.getpriority(os.PRIO_PROCESS, tid)
        if control is Control.AFFINITY:
            return tuple(sorted(os.sched_getaffinity(tid)))
        if control is Control.AUTOGROUP:
            return int(self.autogroup.read_text().split()[2])
        assert self.group is not None
        return int((self.group / "cpu.shares").read_text())

    def set(self, control: Control, tid: int, value: Value) -> None:
        if isinstance(value, tuple):
            os.sched_setaffinity(tid, value)
        elif control is Control.NICE:
            os.setpriority(os.PRIO_PROCESS, tid, value)
        elif control is Control.AUTOGROUP:
            self.autogroup.write_text(str(value))
        else:
            assert self.group is not None
            (self.group / "cpu.shares").write_text(str(value))

    def restore(self) -> None:
        for control in self.controls():
            for tid in self.tids:
                self.set(control, tid, EXPECTED[control])

    def close(self) -> None:
        self.puppet.close()
        if self.group is not None:
            self.group.rmdir()


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.close()


WANTED: dict[Control, tuple[Value, Value]] = {
    Control.NICE: (10, 15),
    Control.AUTOGROUP: (19, 8),
    Control.CPU_SHARES: (2, 64),
    Control.AFFINITY: ((0,), (0,)),
}
THEIRS: dict[Control, list[Value]] = {  # besides ours and what was there: a value that equals ours cannot be told from it
    Control.NICE: [-3, 1, 5, 19],
    Control.AUTOGROUP: [-5, 3, 12],
    Control.CPU_SHARES: [3, 512, 4096],
    Control.AFFINITY: [(1,)],
}


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory whose ledgers need no disk, where there is one: this is not about what is durable."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as name:
        yield Path(name)


def test_what_somebody_sets_by_hand_is_kept_whenever_he_does_it(memory: Path, scene: Scene) -> None:
    """200 times: one value of one thread is set by hand at a random moment of apply, again apply, settle, restore and undo."""
    chance = random.Random(11)
    moments: Counter[str] = Counter()
    for turn in range(200):
        control = chance.choice(scene.controls())
        tid, value = chance.choice(scene.tids), chance.choice(THEIRS[control])
        kernel = Interfered()
        bench = Bench(memory / f"state-{turn}", kernel)
        hand = Hand(scene, control, tid, value, chance.randrange(1, 32))
        if hand.left < 3:
            hand.now("before")
        kernel.hand = hand.turn
        on: DecisionPlace = place_of(control, scene.puppet.id)
        if scene.group is not None and control is Control.CPU_SHARES:
            on = CgroupPlace(f"/{scene.group.name}")
        for value_of_ours in WANTED[control]:
            hand.phase = "apply"
            bench.apply(Set(control, on, value_of_ours, EXPECTED[control]))
        hand.phase = "settle"
        bench.actuator.settle()
        if turn % 2:
            hand.phase = "restore"
            bench.apply(Restore(control, on))
        hand.phase = "undo"
        bench.actuator.undo()
        hand.now("after")
        bench.actuator.undo()
        moments[hand.done_in] += 1
        said = f"turn {turn}: {control} by hand, {hand.done_in}"
        assert scene.get(control, tid) == value, said
        if control in (Control.NICE, Control.AFFINITY):
            others = {scene.get(control, other) for other in scene.tids if other != tid}
            assert others == {EXPECTED[control]}, said
        assert bench.ledger.outstanding() == (), said
        bench.close()
        scene.restore()
    assert min(moments[phase] for phase in ("before", "apply", "settle", "restore", "undo", "after")) >= 3, moments


def test_a_process_that_somebody_reniced_is_never_written_to(bench: Bench, scene: Scene) -> None:
    """Not even for a moment: what is at work for him is at work throughout."""
    scene.set(Control.NICE, scene.tids[1], 5)
    written: list[Knob] = []
    plain = bench.kernel.write

    def write(knob: Knob, expected: Value, value: Value) -> Trouble | None:
        written.append(knob)
        return plain(knob, expected, value)

    bench.kernel.write = write  # type: ignore[method-assign] # to witness
    (outcome,) = bench.apply(Set(Control.NICE, ProcessPlace(scene.puppet.id), 10, 0))
    assert (outcome.status, outcome.detail) == (Status.FOREIGN, "left: somebody chose nice 5")
    assert written == []
    assert [scene.get(Control.NICE, tid) for tid in scene.tids] == [0, 5, 0]


@pytest.mark.parametrize("theirs", [0, 5])
def test_a_program_that_sets_its_own_value_again_and_again_is_yielded_to_at_once(bench: Bench, scene: Scene, theirs: int) -> None:
    """It sets what was there before, or something else, after each change of ours. Ours would be 20 changes a thread."""
    written: Counter[Knob] = Counter()
    plain = bench.kernel.write

    def write(knob: Knob, expected: Value, value: Value) -> Trouble | None:
        written[knob] += value == 10
        return plain(knob, expected, value)

    bench.kernel.write = write  # type: ignore[method-assign] # to witness
    statuses = []
    for _ in range(20):
        (outcome,) = bench.apply(Set(Control.NICE, ProcessPlace(scene.puppet.id), 10, 0))
        statuses.append(outcome.status)
        for tid in scene.tids:
            scene.set(Control.NICE, tid, theirs)
        bench.actuator.settle()
    assert statuses == [Status.APPLIED, *[Status.FOREIGN] * 19]
    assert list(written.values()) == [1] * len(scene.tids)
    bench.actuator.undo()
    assert [scene.get(Control.NICE, tid) for tid in scene.tids] == [theirs] * len(scene.tids)
