"""A brain that lies, floods, stammers and dies. Its hands are real, and so are the processes that it is after.

Each attack says what it asks for and what the hands must say. After each, every value of every process is as it was, except those
that were changed within the limits before. After the last, the brain dies, and within two seconds nothing of it is left.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.hands.changes import EntryStatus
from nicety.scheduler.hands.knobs.cgroup import find
from nicety.scheduler.hands.ledger import NAME, open_changes
from nicety.scheduler.hands.limits import OFTEN
from nicety.scheduler.hands.lines import record_of
from nicety.scheduler.hands.places import Control
from nicety.scheduler.hands.serve import ORDERS
from nicety.scheduler.hands.wire import LONGEST_REQUEST, VERSION, GoneError, pair
from nicety.scheduler.interpreter import isolated
from nicety.scheduler.testing.puppet import Puppet, proc_id
from nicety.scheduler.testing.sentries import hands_of, sentries_of
from nicety.scheduler.testing.waiting import within

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only CAP_SYS_NICE can lower a nice again"),
]

LIMIT = 2.0
"""Seconds within which nothing of a dead brain may be left: issue 24."""

NOBODY = 65534

NAMED = """
import os, threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
open("/proc/self/comm", "w").write("sshd-victim")
print(max(map(int, os.listdir("/proc/self/task"))), flush=True)
threading.Event().wait()
"""
"""A process with a protected name, and a thread with another name."""


PARENT = """
import os, signal
child = os.fork()
if child == 0:
    open("/proc/self/comm", "w").write("sshd-child")
    signal.pause()
print(child, flush=True)
signal.pause()
"""
"""A process with a child that has a protected name."""


class Stage:
    """The processes that a brain is after, until `ends` is closed."""

    def __init__(self, folder: Path, ends: ExitStack) -> None:
        self.folder = folder
        self.shared: Brain | None = None
        self._ends = ends
        changed, thing, plain = (ends.enter_context(Puppet()) for _ in range(3))
        self.changed, self.thing, self.plain = changed.id, thing.id, plain.id
        os.sched_setaffinity(self.thing.pid, [0])
        self.thread = ProcId(*_thread(self.thing.pid, thing.thread()))
        sleep = folder / "set-uid"
        shutil.copy("/bin/sleep", sleep)
        sleep.chmod(0o4755)
        self.named, tid = self._start(sys.executable, "-I", "-S", "-c", NAMED)
        self.alias = ProcId(*_thread(self.named.pid, tid))
        self.parent, child = self._start(sys.executable, "-I", "-S", "-c", PARENT)
        self.child = proc_id(child)
        self.setuid, _ = self._start(str(sleep), "1000", user=NOBODY)
        self.stranger, _ = self._start("/bin/sleep", "1000", user=NOBODY)
        victims = (self.changed, self.thing, self.plain, self.named, self.parent, self.child, self.setuid, self.stranger)
        self.pids = [victim.pid for victim in victims]
        for pid in self.pids:
            os.setpriority(os.PRIO_PROCESS, pid, 0)
        os.setpriority(os.PRIO_PROCESS, self.thing.pid, 5)
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # a test before may have set the flag that resets on fork
        mounts = find(Path("/proc/self/mountinfo").read_text())
        self.weight = Control.CPU_WEIGHT if mounts.shares is None else Control.CPU_SHARES
        self.top = Path(str((mounts.shares or mounts.weight or pytest.fail("no cgroups")).point))
        self.cgroups = [self.top / f"nicety-hostile-{os.getpid()}-{name}" for name in ("mine", "kept")]
        for cgroup, pid in zip(self.cgroups, (self.thing.pid, self.named.pid), strict=True):
            cgroup.mkdir()
            ends.callback(_remove, cgroup)
            (cgroup / "cgroup.procs").write_text(str(pid))
        self.mine, self.kept = (f"/{cgroup.name}" for cgroup in self.cgroups)

    def _start(self, *command: str, user: int = 0) -> tuple[ProcId, int]:
        """A process in a session of its own, and the number that it says."""
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, user=user, start_new_session=True)
        self._ends.callback(_end, process)
        assert process.stdout is not None
        return proc_id(process.pid), int(process.stdout.readline()) if user == 0 else 0

    def values(self) -> dict[str, object]:
        """What the kernel has of all of them, and of those that must never be touched."""
        found: dict[str, object] = {}
        for pid in (1, 2, os.getpid(), os.getppid(), *self.pids):
            tids = [int(each.name) for each in Path(f"/proc/{pid}/task").iterdir()] if pid in self.pids else [pid]
            for tid in sorted(tids):
                scheduling = os.getpriority(os.PRIO_PROCESS, tid), os.sched_getscheduler(tid), os.sched_getaffinity(tid)
                found[f"{pid}/{tid}"] = *scheduling, _text(f"/proc/{pid}/task/{tid}/cgroup")
            found[f"session of {pid}"] = _text(f"/proc/{pid}/autogroup")
        for cgroup in self.cgroups:
            found[cgroup.name] = {file: _text(cgroup / file) for file in (self.weight, "cpu.idle")}
        return found


class Brain:
    """A connection to hands of its own that this process has started."""

    def __init__(self, stage: Stage, config: str = "") -> None:
        self.state = Path(subprocess.check_output(["mktemp", "-d", stage.folder / "state-XXXXXX"], text=True).strip())
        file = self.state / "nicety.toml"
        file.write_text(config)
        self.socket, theirs = pair()
        self.socket.settimeout(10.0)
        command = (*isolated("nicety.scheduler.hands.serve"), str(self.state), str(file))
        with theirs:
            self.process = subprocess.Popen(command, stdin=theirs.fileno(), stderr=subprocess.PIPE, env={}, cwd="/")
        self._rest = b""
        self.beside: list[socket.socket] = []

    def begin(self) -> Brain:
        """Have the hands ready to act."""
        assert self.ask("hello", VERSION) == [self.process.pid]
        assert "trouble" not in self.ask("open")
        return self

    def demote(self, stage: Stage) -> None:
        """Change what may be changed."""
        done = self.change([stage.changed, "nice", 7], [stage.changed, "affinity", [0]], [stage.mine, stage.weight, 50])
        assert [each[2] for each in done] == ["applied"] * 3

    def send(self, *requests: object) -> None:
        """Ask without waiting for a reply."""
        self.socket.sendall(b"".join(framed(request) for request in requests))

    def reply(self) -> Any:
        """The next reply. Raises GoneError if there is none."""
        while len(self._rest) < 4 or len(self._rest) < 4 + int.from_bytes(self._rest[:4], "big"):
            try:
                more = self.socket.recv(1 << 16)
            except ConnectionError:
                more = b""
            if not more:
                raise GoneError("the hands have ended")
            self._rest += more
        length = 4 + int.from_bytes(self._rest[:4], "big")
        said, self._rest = self._rest[4:length], self._rest[length:]
        return json.loads(said)

    def ask(self, operation: str, *arguments: object) -> Any:
        """The result of an operation that is carried out."""
        self.send([operation, list(arguments)])
        kind, result = self.reply()
        assert kind == "ok", result
        return result

    def change(self, *orders: list[Any]) -> list[list[Any]]:
        """The results of these: (place, control, value)."""
        done: list[list[Any]] = self.ask("change", [order(*each) for each in orders])["done"]
        return done

    def open(self) -> list[Any]:
        """What its ledger has open."""
        return [[entry.control, entry.knob.on, entry.new] for entry in open_changes(str(self.state))]

    def die(self, stage: Stage, before: dict[str, object]) -> None:
        """The connection ends; then nothing may be left of it."""
        self.socket.close()
        self.must_end(stage, before)

    def must_end(self, stage: Stage, before: dict[str, object]) -> None:
        """All is as before within two seconds, and hands and sentries have ended."""
        assert within(LIMIT, lambda: stage.values() == before), _differences(before, stage.values())
        assert within(LIMIT, lambda: self.process.poll() is not None), "the hands have not ended"
        assert within(LIMIT, lambda: not sentries_of(self.state)), "a sentry has not ended"
        assert open_changes(str(self.state)) == []
        for line in (self.state / NAME).read_bytes().splitlines():
            assert record_of(line) is not None, "every line of the ledger is the hands'"
        assert self.process.stderr is not None
        said = self.process.stderr.read().decode()
        assert "Traceback" not in said, said
        assert all(json.loads(line)["kind"] == "event" for line in said.splitlines()), said

    def close(self) -> None:
        """End what is left of it."""
        for each in (self.socket, *self.beside):
            each.close()
        for pid in (*sentries_of(self.state), *hands_of(self.state)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate()


def order(on: Any, control: str, value: object, *more: Any) -> list[object]:
    """An order on the wire. `on`: a process, or the path of a cgroup."""
    place = [None, None, on] if isinstance(on, str) else [*on, ""]
    return [*(more or ("s-0.1", "target")), control, *place, value, None, None]


def framed(request: object) -> bytes:
    """A frame. Bytes are sent as they are."""
    text = request if isinstance(request, bytes) else json.dumps(request).encode()
    return len(text).to_bytes(4, "big") + text


def _thread(pid: int, tid: int) -> tuple[int, int]:
    return tid, int(Path(f"/proc/{pid}/task/{tid}/stat").read_text().rpartition(")")[2].split()[19])


def _text(path: Path | str) -> str:
    try:
        return Path(path).read_text()
    except FileNotFoundError:
        return ""


def _end(process: subprocess.Popen[str]) -> None:
    """End a session that was started here."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _remove(cgroup: Path) -> None:
    """Remove a cgroup; what was in it goes up."""
    for pid in (cgroup / "cgroup.procs").read_text().split():
        (cgroup.parent / "cgroup.procs").write_text(pid)
    cgroup.rmdir()


def _differences(before: dict[str, object], after: dict[str, object]) -> dict[str, object]:
    return {key: (value, after.get(key)) for key, value in before.items() if after.get(key) != value}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("stage")
    for each in (folder, *list(folder.parents)[:2]):
        each.chmod(0o755)  # another user starts a program there
    with ExitStack() as ends:
        made = Stage(folder, ends)
        yield made
        if made.shared is not None:
            made.shared.close()


@pytest.fixture(scope="module")
def before(stage: Stage) -> dict[str, object]:
    """Every value while no brain has changed anything."""
    return stage.values()


@pytest.fixture
def brain(stage: Stage, before: dict[str, object]) -> Brain:
    """A brain with three changes in force, which all attacks that it survives share."""
    if stage.shared is None:
        assert stage.values() == before
        stage.shared = Brain(stage).begin()
        stage.shared.demote(stage)
    return stage.shared


@pytest.fixture
def alone(stage: Stage, before: dict[str, object]) -> None:
    """No other brain has hands."""
    if stage.shared is not None:
        stage.shared.close()
        stage.shared = None
    assert within(LIMIT, lambda: stage.values() == before)


@pytest.fixture
def fresh(stage: Stage, alone: None) -> Iterator[Brain]:
    """A brain of one attack, with three changes in force."""
    made = Brain(stage).begin()
    made.demote(stage)
    yield made
    made.close()


# --- orders ----------------------------------------------------------------------------------------------------------------------


class Attack(NamedTuple):
    """An order, and a part of what the hands must say."""

    name: str
    on: Callable[[Stage, Brain], Any]
    control: str
    value: object
    why: str


def thing(stage: Stage, _brain: Brain) -> ProcId:
    return stage.thing


def mine(stage: Stage, _brain: Brain) -> str:
    return stage.mine


def named(place: str) -> Callable[[Stage, Brain], Any]:
    return lambda stage, _: getattr(stage, place)


def path(text: str) -> Callable[[Stage, Brain], str]:
    return lambda stage, _: text.replace("MINE", stage.mine[1:])


def sentry(number: int) -> Callable[[Stage, Brain], ProcId]:
    return lambda _, brain: proc_id(sentries_of(brain.state)[number])


OWN, LIMITS, WEIGHT = "the machine's or nicety's own", "beyond the limits of the hands", "weight"

ATTACKS = (
    Attack("the highest priority", thing, "nice", -20, LIMITS),
    Attack("a nice beyond the kernel's", thing, "nice", 20, LIMITS),
    Attack("a nice of 4,000 digits", thing, "nice", 10**4000, LIMITS),
    Attack("more than it had", thing, "nice", 3, "more than the 5 that it had"),
    Attack("first come, first served", thing, "policy", 1, LIMITS),
    Attack("round robin", thing, "policy", 2, LIMITS),
    Attack("a deadline", thing, "policy", 6, LIMITS),
    Attack("a policy that resets on fork", thing, "policy", 1 << 30, LIMITS),
    Attack("a negative slice", thing, "slice", -1, LIMITS),
    Attack("a slice of an hour", thing, "slice", 3600 * 10**9, LIMITS),
    Attack("no CPU", thing, "affinity", [], LIMITS),
    Attack("CPU -1", thing, "affinity", [-1], LIMITS),
    Attack("a CPU far away", thing, "affinity", [0, 1 << 30], LIMITS),
    Attack("CPUs as the kernel never gives them back", named("plain"), "affinity", [1, 0, 0], LIMITS),
    Attack("more CPUs than it had", thing, "affinity", [0, 1], "would give it more than"),
    Attack("a session before all others", named("plain"), "autogroup", -20, LIMITS),
    Attack("a weight above the first one", mine, WEIGHT, 5000, "would give it more than"),
    Attack("a weight of nothing", mine, WEIGHT, 0, LIMITS),
    Attack("no limits of a fence", thing, "fence", [0, 0, 0, 0], LIMITS),
    Attack("a fence without air", thing, "fence", [1, 0, 0, 0], LIMITS),
    Attack("a fence without memory", thing, "fence", [0, 4096, 0, 0], LIMITS),
    Attack("a fence of negative limits", thing, "fence", [-1, 1 << 30, 0, 0], LIMITS),
    Attack("a fence that favours", thing, "fence", [0, 0, 0, 10_000], LIMITS),
    Attack("a fence without end", thing, "fence", [10**4000, 0, 0, 0], LIMITS),
    Attack("a fence of five", thing, "fence", [100, 0, 0, 0, 0], LIMITS),
    Attack("init", lambda *_: proc_id(1), "nice", 19, OWN),
    Attack("a thread of the kernel", lambda *_: proc_id(2), "nice", 19, "a thread of the kernel"),
    Attack("the hands", lambda _, brain: proc_id(brain.process.pid), "nice", 19, OWN),
    Attack("the brain", lambda *_: proc_id(os.getpid()), "affinity", [0], OWN),
    Attack("who started the brain", lambda *_: proc_id(os.getppid()), "fence", [10, 0, 0, 0], OWN),
    Attack("the first sentry", sentry(0), "policy", 5, OWN),
    Attack("the second sentry", sentry(1), "fence", [10, 0, 0, 0], OWN),
    Attack("who had the pid before", lambda stage, _: ProcId(stage.thing.pid, stage.thing.start_ticks - 1), "nice", 19, "gone"),
    Attack("a pid of 4,000 digits", lambda *_: ProcId(10**4000, 1), "nice", 19, "gone"),
    Attack("a protected program", named("named"), "nice", 19, "guard.protect names"),
    Attack("a protected program by its thread", named("alias"), "nice", 19, "gone"),
    Attack("a process by another name", named("thread"), "nice", 19, "gone"),
    Attack("a set-uid program", named("setuid"), "affinity", [0], "a set-uid program"),
    Attack("the session of a protected program", named("child"), "autogroup", 19, "guard.protect names"),
    Attack("the parent of a protected program", named("parent"), "autogroup", 19, "would take along a process"),
    Attack("a fence for the parent of a protected program", named("parent"), "fence", [500, 0, 0, 0], "would take along a process"),
    Attack("the cgroup of a protected program", named("kept"), WEIGHT, 10, "would take along a process"),
    Attack("the root cgroup", path("/"), WEIGHT, 10, "the root cgroup"),
    Attack("the root cgroup by another name", path("/."), WEIGHT, 10, LIMITS),
    Attack("a cgroup from above", path("/MINE/.."), WEIGHT, 10, LIMITS),
    Attack("a file elsewhere", path("/../../../../tmp"), WEIGHT, 10, LIMITS),
    Attack("a cgroup that is changed, by another name", path("//MINE"), WEIGHT, 10, LIMITS),
    Attack("the same with a slash behind", path("/MINE/"), WEIGHT, 10, LIMITS),
    Attack("a path that ends early", path("/MINE\0/x"), WEIGHT, 10, LIMITS),
    Attack("a path from nowhere", path("MINE"), WEIGHT, 10, LIMITS),
)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_order_beyond_the_limits_changes_nothing(attack: Attack, brain: Brain, stage: Stage) -> None:
    values, opened = stage.values(), brain.open()
    control = stage.weight if attack.control is WEIGHT else attack.control
    ((_, _, status, detail, changed),) = brain.change([attack.on(stage, brain), control, attack.value])
    assert (status in ("refused", "vanished", "failed"), changed, attack.why in detail) == (True, 0, True), (status, detail)
    assert stage.values() == values
    assert brain.open() == opened


# --- requests --------------------------------------------------------------------------------------------------------------------

FORGED = json.dumps([["cpu", "/", {"cpu.shares": "2"}, [], False]])


def _orders(*orders: list[object]) -> list[object]:
    return ["change", [list(orders)]]


def _of(*more: object) -> Callable[[Stage], object]:
    """A request to lower a process, with one field after another replaced."""
    at, value = more
    return lambda stage: _orders([value if n == at else each for n, each in enumerate(order(stage.thing, "nice", 19))])


REQUESTS: dict[str, Callable[[Stage], object]] = {
    "pid 0, which is the hands to the kernel": lambda stage: _orders(order((0, stage.thing.start_ticks), "nice", 19)),
    "pid -1": lambda stage: _orders(order((-1, stage.thing.start_ticks), "nice", 19)),
    "a pid that is true": lambda stage: _orders(order((True, stage.thing.start_ticks), "nice", 19)),
    "a pid with a point": lambda stage: _orders(order((float(stage.thing.pid), stage.thing.start_ticks), "nice", 19)),
    "a pid without a start time": lambda stage: _orders(order((stage.thing.pid, None), "nice", 19)),
    "not a number": _of(6, float("nan")),
    "infinity": _of(6, float("inf")),
    "a value that is true": _of(6, True),
    "a value that is a text": _of(6, "19"),
    "values within values": _of(6, [[19]]),
    "a control that there is not": _of(2, "oom_score_adj"),
    "the size of a pool as an order": _of(2, "pool.size"),
    "a weight of a process": _of(2, "cpu.weight"),
    "a decision of a megabyte": _of(0, "x" * (LONGEST_REQUEST - 1000)),
    "a decision of many lines": _of(0, 'x\n["is",1,"undone"]\n'),
    "a decision that is no text": _of(0, {"a": 1}),
    "half a character": _of(0, "\ud800"),
    "an order too short": lambda stage: _orders(order(stage.thing, "nice", 19)[:8]),
    "more orders than there may be": lambda stage: ["change", [[order(stage.thing, "nice", 19)] * (ORDERS + 1)]],
    "a path of 5,000 letters": lambda _: _orders(order("/" + "x" * 5000, "cpu.weight", 1)),
    "a nice of a cgroup": lambda stage: _orders(order(stage.mine, "nice", 19)),
    "no arguments": lambda _: ["change", []],
    "too many arguments": lambda _: ["undo", [[], []]],
    "an operation that there is not": lambda _: ["exec", ["/bin/sh"]],
    "an operation of Python's": lambda _: ["__class__", []],
    "an operation of the hands' own": lambda _: ["_put_all_back", []],
    "an operation that is a list": lambda _: [["undo"], []],
    "a request that is a text": lambda _: "undo",
    "a request that is nothing": lambda _: None,
    "another version": lambda _: ["hello", [VERSION + 1]],
    "a hello of many": lambda _: ["hello", [VERSION, VERSION]],
    "the nice of a brain beyond the kernel's": lambda _: ["own nice", [-21, False]],
    "the nice of a brain that is true": lambda _: ["own nice", [True, False]],
    "the nice of all that a brain starts": lambda _: ["own nice", [-20, False]],
    "an idle pid 1": lambda _: ["idle", [1, 0]],
    "an idle stranger": lambda stage: ["idle", [*stage.stranger]],
    "an idle child of another": lambda stage: ["idle", [*stage.child]],
    "an idle thing of another start": lambda stage: ["idle", [stage.thing.pid, 1]],
    "an idle text": lambda _: ["idle", ["1", 0]],
    "the size of a thing that is no pool": lambda stage: ["resize", ["s", "t", ["nice", *stage.thing, ""], 1, 1, 2]],
    "a size that is true": lambda stage: ["resize", ["s", "t", ["pool.size", *stage.thing, "web"], 1, 1, True]],
    "a size that is negative": lambda stage: ["resize", ["s", "t", ["pool.size", *stage.thing, "web"], 1, 1, -2]],
    "a size without end": lambda stage: ["resize", ["s", "t", ["pool.size", *stage.thing, "web"], 1, 1, 10**300]],
    "a pool that paints the terminal": lambda stage: ["resize", ["s", "t", ["pool.size", *stage.thing, "\x1b]0;x\7"], 1, 1, 2]],
    "a pool of a long name": lambda stage: ["resize", ["s", "t", ["pool.size", *stage.thing, "x" * 5000], 1, 1, 2]],
    "a fence that is none, put back": lambda stage: ["put back", [[["fence", *stage.thing]]]],
    "an undo that keeps what is none": lambda _: ["undo", [{"all": True}]],
    "an end that is none": lambda _: ["settle", [[[1, "over"]]]],
    "an end of an entry that is a text": lambda _: ["settle", [[["1", "done"]]]],
}


@pytest.mark.parametrize("name", REQUESTS)
def test_what_is_no_request_is_refused(name: str, brain: Brain, stage: Stage) -> None:
    values, opened = stage.values(), brain.open()
    brain.send(REQUESTS[name](stage))
    kind, text = brain.reply()
    assert kind == "refused", text
    assert stage.values() == values
    assert brain.open() == opened


LIES: dict[str, Callable[[Stage], object]] = {
    "a second hello": lambda _: ["hello", [VERSION]],
    "a second open": lambda _: ["open", []],
    "entries that are no pool's are settled": lambda _: ["settle", [[[number, "undone"] for number in range(1, 50)]]],
    "entries that are none are settled": lambda _: ["settle", [[[10**300, "done"], [-1, "gone"]]]],
    "entries are settled as open": lambda _: ["settle", [[[number, "intent"] for number in range(1, 50)]]],
    "a fence of somebody else is put back": lambda stage: ["put back", [[["fence", *stage.thing, FORGED]]]],
    "the fence of another cgroup is put back": lambda stage: [
        "put back",
        [[["fence", *stage.thing, FORGED.replace('"/"', f'"{stage.kept}"')]]],
    ],
    "a session that is not changed is put back": lambda stage: ["put back", [[["autogroup", *stage.thing, "autogroup-1"]]]],
    "a cgroup that is not changed is put back": lambda stage: ["put back", [[[stage.weight, None, None, stage.kept]]]],
    "somebody else's value is put back": lambda stage: _orders(order(stage.stranger, "nice", None)),
    "a fence that is not there is put back": lambda stage: _orders(order(stage.thing, "fence", None)),
}


@pytest.mark.parametrize("name", LIES)
def test_a_request_that_lies_changes_nothing(name: str, brain: Brain, stage: Stage) -> None:
    values, opened = stage.values(), brain.open()
    brain.send(LIES[name](stage))
    assert brain.reply()[0] == "ok"
    assert stage.values() == values
    assert brain.open() == opened


def test_what_a_decision_says_is_written_as_one_line_that_no_terminal_obeys(brain: Brain, stage: Stage) -> None:
    said = 'a\n["drop",1]\r\x1b[2J\0\u202e' + "x" * 100_000
    ((_, target, status, *_),) = brain.change([stage.changed, "slice", 5_000_000, "s-0.7", said])
    if status == "refused":
        pytest.skip("this kernel has no slices of threads")
    assert (status, target) == ("applied", 'a?["drop",1]??[2J??' + "x" * 237)
    assert {entry.target for entry in open_changes(str(brain.state)) if entry.decision == "s-0.7"} == {target}
    assert brain.change([stage.changed, "slice", None])[0][2] == "applied"


def test_the_hands_are_nobody_s_to_flood(brain: Brain, stage: Stage) -> None:
    """The same value again and again: it is changed `OFTEN` times in a minute. Pools that are made up: the same."""
    values = stage.values()
    done = [brain.change([stage.plain, "nice", 5 + turn % 10])[0] for turn in range(OFTEN + 5)]
    assert [status for _, _, status, *_ in done] == ["applied"] * OFTEN + ["later"] * 5
    assert brain.change([stage.plain, "nice", None])[0][2] == "applied"
    place = ["pool.size", *stage.thing, "web"]
    said = [brain.ask("resize", "s", "t", place, 1, 1, 2) for _ in range(OFTEN + 5)]
    assert ["trouble" in each for each in said] == [False] * OFTEN + [True] * 5
    brain.ask("settle", [[each["number"], EntryStatus.UNDONE] for each in said[:OFTEN]])
    assert stage.values() == values


def test_what_a_brain_makes_up_takes_no_memory(brain: Brain) -> None:
    """100,000 processes that do not exist: nothing of them is kept. The memory of a reply comes and goes in turns of eight."""
    taken = []
    for first in range(1 << 24, (1 << 24) + 24 * ORDERS, ORDERS):
        made_up = [order((pid, 1), "nice", 19) for pid in range(first, first + ORDERS)]
        assert {each[2] for each in brain.ask("change", made_up)["done"]} == {"vanished"}
        taken.append(int(re.findall(r"VmRSS:\s+(\d+)", _text(f"/proc/{brain.process.pid}/status"))[0]))
    assert min(taken[-8:]) <= max(taken[:8]), taken  # were 100 bytes of each kept, it would be 6 MB more


def test_when_it_dies_after_all_that_nothing_of_it_is_left(brain: Brain, stage: Stage, before: dict[str, object]) -> None:
    assert stage.values() != before
    brain.die(stage, before)


@pytest.mark.usefixtures("alone")
def test_users_and_rates_are_those_of_the_configuration(stage: Stage, before: dict[str, object]) -> None:
    brain = Brain(stage, f"[guard]\nusers = [{NOBODY}]\nvalues_per_minute = 2\n").begin()
    try:
        done = brain.change([stage.thing, "nice", 19], [stage.setuid, "nice", 19], [stage.mine, stage.weight, 10])
        assert [status for _, _, status, *_ in done] == ["refused"] * 3
        assert [why in each[3] for why, each in zip(("guard.users", "set-uid", "guard.users"), done, strict=True)] == [True] * 3
        assert stage.values() == before
        orders: list[list[Any]] = [[stage.stranger, "nice", 19], [stage.stranger, "affinity", [0]], [stage.stranger, "policy", 3]]
        assert [brain.change(each)[0][2] for each in orders] == ["applied", "applied", "later"]
        brain.die(stage, before)
    finally:
        brain.close()


# --- ends ------------------------------------------------------------------------------------------------------------------------


def _giant(brain: Brain) -> None:
    brain.socket.sendall((LONGEST_REQUEST + 1).to_bytes(4, "big"))


def _half(brain: Brain) -> None:
    brain.socket.sendall(framed(["undo", [[]]])[:-3])
    brain.socket.shutdown(socket.SHUT_WR)


def _quarter(brain: Brain) -> None:
    brain.socket.sendall(b"\0\0")
    brain.socket.close()


def _descriptors(brain: Brain) -> None:
    """A socket that takes hours to close, because its last bytes have nowhere to go. Whoever has it last must wait."""
    os.kill(brain.process.pid, signal.SIGSTOP)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as lingering:
        brain.beside.append(listener.accept()[0])
        lingering.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 1 << 15))
        lingering.setblocking(False)
        while True:
            try:
                lingering.send(b"x" * (1 << 20))
            except BlockingIOError:
                break
        socket.send_fds(brain.socket, [framed(["undo", [[]]])], [lingering.fileno()] * 3)
    os.kill(brain.process.pid, signal.SIGCONT)


def _farewell_and_more(brain: Brain) -> None:
    brain.send(["farewell", []], ["change", [[]]], ["open", []], ["hello", [VERSION]])


def _never_reads(brain: Brain) -> None:
    """Asks until the hands cannot reply any more, and ends."""
    brain.socket.setblocking(False)
    text = framed(["exec" * 50_000, []])
    for _ in range(200):
        try:
            brain.socket.send(text)
        except BlockingIOError:
            break
    brain.socket.close()


def _asks_and_dies(brain: Brain) -> None:
    brain.send(["sweep", []])
    brain.socket.close()


ENDS: dict[str, Callable[[Brain], None]] = {
    "a giant frame": _giant,
    "a frame that is not JSON": lambda brain: brain.send(b"{"),
    "bytes that are no text": lambda brain: brain.send(b'["undo", ["\xff\xfe"]]'),
    "lists within lists": lambda brain: brain.send(b"[" * (LONGEST_REQUEST - 1)),
    "a number of a million digits": lambda brain: brain.send(b"1" * (LONGEST_REQUEST - 1)),
    "an empty frame": lambda brain: brain.send(b""),
    "half a frame, and silence": _half,
    "half a length, and death": _quarter,
    "descriptors that take long to close": _descriptors,
    "a farewell, and more": _farewell_and_more,
    "replies that nobody reads": _never_reads,
    "a request, and death before the reply": _asks_and_dies,
}


@pytest.mark.parametrize("name", ENDS)
def test_however_a_brain_ends_its_changes_end_with_it(name: str, fresh: Brain, stage: Stage, before: dict[str, object]) -> None:
    assert stage.values() != before
    ENDS[name](fresh)
    assert within(LIMIT, lambda: stage.values() == before), _differences(before, stage.values())
    for each in fresh.beside:
        each.close()
    fresh.must_end(stage, before)
    while fresh.socket.fileno() >= 0:
        try:
            fresh.reply()
        except GoneError:
            break


@pytest.mark.usefixtures("alone")
def test_before_a_hello_nothing_is_done(stage: Stage, before: dict[str, object]) -> None:
    brain = Brain(stage)
    try:
        brain.send(["open", []], _orders(order(stage.thing, "nice", 19)), ["hello", [VERSION + 1]], ["undo", [[]]])
        assert [brain.reply()[0] for _ in range(4)] == ["refused"] * 4
        assert stage.values() == before
        assert not (brain.state / NAME).exists()
        brain.socket.close()
        assert within(LIMIT, lambda: brain.process.poll() is not None)
    finally:
        brain.close()


BRAIN = """
import os, subprocess, sys, time
from pathlib import Path
from nicety.models.identity import ProcId
from nicety.scheduler.act.hands_apart import start_hands
from nicety.scheduler.hands.looks import Order
from nicety.scheduler.hands.places import Control
state, pid, start = sys.argv[1:]
hands = start_hands(Path(state), None)
hands.open()
hands.change([Order("s-0.1", "t", Control.NICE, ProcId(int(pid), int(start)), 19)])
if os.fork() == 0:
    time.sleep(1000)
print("changed", flush=True)
time.sleep(1000)
"""


@pytest.mark.usefixtures("alone")
def test_a_child_of_a_dead_brain_that_has_its_socket_too_keeps_nothing_in_force(stage: Stage, before: dict[str, object]) -> None:
    state = stage.folder / "forked"
    command = [sys.executable, "-c", BRAIN, str(state), *map(str, stage.changed)]
    brain = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True)
    assert brain.stdout is not None
    try:
        assert brain.stdout.readline() == "changed\n"
        assert stage.values() != before
        brain.kill()
        brain.wait()
        assert within(LIMIT, lambda: stage.values() == before)
        assert within(LIMIT, lambda: not hands_of(state) and not sentries_of(state))
        assert open_changes(str(state)) == []
    finally:
        os.killpg(brain.pid, signal.SIGKILL)
        brain.stdout.close()
