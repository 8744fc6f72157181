"""The Nth call fails, for every N and each errno: what the ledger says is true, and undo afterwards brings everything back.

Real processes, the real kernel and a real ledger, over a whole cycle: look, apply, settle, relieve, undo. The processes are the
only ones in a procfs made of links, so that a cycle has some hundred calls and not thousands.
"""

from __future__ import annotations

import gc
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from nicety.models.identity import ProcId
from nicety.models.records import Class
from nicety.scheduler.act.actuate import Acting
from nicety.scheduler.act.undo import undo_from_ledger
from nicety.scheduler.decision import Action, Decision, Group, Member, Outcome, Restore, Set, Why
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.fences import Limits
from nicety.scheduler.hands.knobs.cgroup import find
from nicety.scheduler.hands.knobs.control import LinuxKernel
from nicety.scheduler.hands.knobs.slices import Slices
from nicety.scheduler.hands.ledger import NAME, Ledger, LedgerError
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import CgroupPlace, ProcessPlace, SessionPlace
from nicety.scheduler.read.locks import LinuxLocks
from nicety.scheduler.testing.clock import FakeClock
from nicety.scheduler.testing.failing import EVERY, FailingCalls
from nicety.scheduler.testing.hands import hands_with
from nicety.scheduler.testing.ledger_file import rows
from nicety.scheduler.testing.puppet import Puppet

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="lowering a nice again needs CAP_SYS_NICE; made for root"),
]

SLICES = Slices()
FOUND = find(Path("/proc/self/mountinfo").read_text())
WHY = Why("test", "because", {}, (), ())
BACK = {Status.APPLIED, Status.UNCHANGED}
"""Outcomes of an undo that say that all is well."""


class World:
    """A process with two threads, cgroups where they are wanted, and a procfs that has nobody else."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.proc = folder, folder / "proc"
        self.proc.mkdir()
        for name in ("self", "sys", "locks"):
            (self.proc / name).symlink_to(f"/proc/{name}")
        self.cgroups: list[Path] = []
        self.unwatched: set[str] = set()  # what a test does not change, and another program on this machine may
        self.puppet = Puppet()
        self.puppet.thread()
        self.id = self.puppet.id
        self.show(self.id)

    def show(self, process: ProcId) -> None:
        (self.proc / str(process.pid)).symlink_to(f"/proc/{process.pid}")

    def cgroup(self, controller: str) -> Path:
        """One of the test's own in the hierarchy with this controller."""
        mount = {"cpu": FOUND.shares, "pids": FOUND.pids}[controller]
        if mount is None or not os.access(mount.point, os.W_OK):
            pytest.skip(f"no cgroup v1 hierarchy has the {controller} controller, or it is not ours to write")
        made = Path(mount.point) / f"nicety-nth-{os.getpid()}"
        made.mkdir()
        self.cgroups.append(made)
        return made

    def child(self) -> ProcId:
        """Who inherits what the process has now."""
        heir = self.puppet.fork()
        self.show(heir)
        return heir

    def bury(self, heir: ProcId) -> None:
        (self.proc / str(heir.pid)).unlink()
        os.kill(heir.pid, 9)

    def values(self, *more: ProcId) -> dict[str, object]:
        """What the kernel has, asked without our code."""
        found: dict[str, object] = {}
        for process in (self.id, *more):
            for tid in sorted(int(entry.name) for entry in Path(f"/proc/{process.pid}/task").iterdir()):
                found[f"nice {tid}"] = os.getpriority(os.PRIO_PROCESS, tid)
                found[f"affinity {tid}"] = os.sched_getaffinity(tid)
                found[f"policy {tid}"] = os.sched_getscheduler(tid)
                with suppress(OSError):
                    found[f"slice {tid}"] = SLICES.read(tid)
            with suppress(OSError):
                found[f"autogroup {process.pid}"] = Path(f"/proc/{process.pid}/autogroup").read_text()
            found[f"cgroup {process.pid}"] = Path(f"/proc/{process.pid}/cgroup").read_text()
        for made in self.cgroups:
            found |= {f"{made}/{name}": (made / name).read_text() for name in ("cpu.shares",) if (made / name).exists()}
            found[f"{made} has"] = sorted(entry.name for entry in made.iterdir() if entry.is_dir())
        return {name: value for name, value in found.items() if name.split()[0] not in self.unwatched}


Scenario = Callable[[World], tuple[list[Action], list[Action]]]
"""What is decided, and what is decided after it. Small steps: who is demoted in earnest is slow to fork on a busy machine."""


def nices(world: World) -> tuple[list[Action], list[Action]]:
    return [Set(Control.NICE, ProcessPlace(world.id), 1, expected=0)], [Set(Control.NICE, ProcessPlace(world.id), 2)]


def affinities(world: World) -> tuple[list[Action], list[Action]]:
    return [Set(Control.AFFINITY, ProcessPlace(world.id), (0,))], [Restore(Control.AFFINITY, ProcessPlace(world.id))]


def slices(world: World) -> tuple[list[Action], list[Action]]:
    return [Set(Control.SLICE, ProcessPlace(world.id), 500_000), Set(Control.POLICY, ProcessPlace(world.id), 3)], []


def autogroups(world: World) -> tuple[list[Action], list[Action]]:
    return [Set(Control.AUTOGROUP, SessionPlace(world.id.pid, world.id), 1, expected=0)], [
        Restore(Control.AUTOGROUP, SessionPlace(world.id.pid, world.id))
    ]


def weights(world: World) -> tuple[list[Action], list[Action]]:
    name = f"/{world.cgroup('cpu').name}"
    return [Set(Control.CPU_SHARES, CgroupPlace(name), 2, expected=1024)], [Set(Control.CPU_SHARES, CgroupPlace(name), 512)]


def fences(world: World) -> tuple[list[Action], list[Action]]:
    for controller in ("cpu", "pids"):
        (world.cgroup(controller) / "cgroup.procs").write_text(str(world.id.pid))
    return [Set(Control.FENCE, ProcessPlace(world.id), tuple(Limits(300, 0, 8)))], []


SCENARIOS = [nices, affinities, slices, autogroups, weights, fences]


@pytest.fixture
def world() -> Iterator[World]:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        made = World(Path(folder))
        yield made
        made.puppet.close()
        gc.collect()  # the descriptors that each of hundreds of kernels keeps back
        for cgroup in made.cgroups:
            for _ in range(1000):
                with suppress(OSError):
                    cgroup.rmdir()
                    break
                os.sched_yield()


def decided(actions: list[Action], turn: int) -> list[Decision]:
    return [Decision(f"s-{turn}.{number}", "p", "t", action, WHY) for number, action in enumerate(actions)]


def groups_of(world: World) -> tuple[Group, ...]:
    member = Member(world.id, world.id.pid, "/", 0)
    return (Group("batch", Class.BATCH, 1, 1.0, 1.0, 2.0, 0, (member,)),)


class Cycle:
    """One run of everything that the acting half of the daemon does with these decisions."""

    def __init__(self, world: World, actions: tuple[list[Action], list[Action]], calls: FailingCalls) -> None:
        self.world, self.calls = world, calls
        self.state = world.folder / "state"
        self.heir: ProcId | None = None
        self.undone: tuple[Outcome, ...] = ()
        self._actions = actions
        self._kernel = LinuxKernel(world.proc)
        self._kernel.boot_id()

    def run(self) -> None:
        """Nothing of it may raise."""
        clock, groups, locks = FakeClock(), groups_of(self.world), LinuxLocks(self.world.proc)
        with closing(Ledger(self.state / NAME, self._kernel.boot_id())) as ledger:
            acting = Acting(hands_with(ledger, self._kernel, clock), self._kernel, locks, {}, {}, clock)
            acting.apply(decided(self._actions[0], 0))
            with self.calls.paused():
                self.heir = self.world.child()
            acting.settle()
            acting.relieve(groups)
            if self._actions[1]:
                acting.apply(decided(self._actions[1], 1))
                acting.settle()
            self.undone = acting.undo()
        locks.rest()

    def rows(self) -> list[tuple[str, str, str]]:
        """What the file says: (control, status, decision)."""
        return [(row.control, row.status, row.decision) for row in rows(self.state / NAME)]


def check(cycle: Cycle, original: dict[str, object]) -> None:
    """The claims, after a cycle in which one call has failed."""
    world, heir = cycle.world, cycle.heir
    assert heir is not None
    expected = original | heirloom(world, original, heir)
    now = world.values(heir)
    changed = {name.split()[0] for name in now if now[name] != expected[name]}
    found = cycle.rows()
    assert not {status for _, status, _ in found} & {"foreign", "gone"}, "nobody else has changed anything, and nobody has ended"
    told = bool({outcome.status for outcome in cycle.undone} - BACK)
    if changed:
        assert told, f"{changed} is not back, and undo says that all is well"
        assert any(status in ("intent", "done") for _, status, _ in found), f"{changed} is not back, and nothing of it is recorded"
    outcomes = undo_from_ledger(cycle.state, FakeClock(), proc_root=world.proc)
    assert {outcome.status for outcome in outcomes} <= BACK, [outcome.detail for outcome in outcomes]
    assert world.values(heir) == expected
    assert not [row for row in cycle.rows() if row[1] in ("intent", "done")]


def heirloom(world: World, original: dict[str, object], heir: ProcId) -> dict[str, object]:
    """What a child has whose parent has what it had."""
    mother = world.id.pid
    names = ("nice", "affinity", "policy", "slice", "autogroup", "cgroup")
    return {f"{name} {heir.pid}": original[f"{name} {mother}"] for name in names if f"{name} {mother}" in original}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_whichever_call_fails_the_ledger_tells_the_truth_and_undo_brings_everything_back(
    world: World, scenario: Scenario, name: str
) -> None:
    actions, number = scenario(world), 0
    changed = {str(action.control) for part in actions for action in part if isinstance(action, Set | Restore)}
    world.unwatched = {"nice", "affinity", "policy", "slice", "autogroup"} - changed
    original = world.values()
    with FailingCalls() as calls:
        while True:
            shutil.rmtree(world.folder / "state", ignore_errors=True)
            (world.folder / "state").mkdir()
            number += 1
            cycle = Cycle(world, actions, calls)
            with calls.failing(number, EVERY[name]):
                cycle.run()
            failed = calls.names[number - 1] if calls.reached else ""
            try:
                check(cycle, original)
            except AssertionError as error:
                raise AssertionError(f"call {number}, {failed}: {error}") from error
            assert cycle.heir is not None
            world.bury(cycle.heir)
            if not calls.reached:
                break
    assert number > 50, "hardly anything was failed"


# --- descriptors that are really used up ----------------------------------------------------------------------------------------


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Within it this process has no descriptor left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(int(entry.name) for entry in Path("/proc/self/fd").iterdir()) + 2, hard))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)


def test_without_descriptors_nobody_counts_as_gone_and_undo_still_works(world: World) -> None:
    """Finding A5: six threads kept a slice of 0.1 ms, nothing was in force in the ledger, and undo said that all was well."""
    original, state = world.values(), world.folder / "state"
    state.mkdir()
    kernel = LinuxKernel(world.proc)
    with closing(Ledger(state / NAME, kernel.boot_id())) as ledger:
        acting = Acting(hands_with(ledger, kernel, FakeClock()), kernel, LinuxLocks(world.proc), {}, {}, FakeClock())
        acting.apply(
            decided(
                [Set(Control.NICE, ProcessPlace(world.id), 1), Set(Control.AUTOGROUP, SessionPlace(world.id.pid, world.id), 1)], 0
            )
        )
        entries = ledger.outstanding()
        assert len(entries) == 3
        with no_descriptors():
            for _ in range(40):
                acting.settle()
            assert ledger.outstanding() == entries, "somebody was taken for gone"
            assert {outcome.status for outcome in acting.undo()} == {Status.APPLIED}
        assert ledger.outstanding() == ()
    assert world.values() == original


def test_an_undo_without_descriptors_says_that_it_knows_nothing(world: World) -> None:
    state = world.folder / "state"
    state.mkdir()
    kernel = LinuxKernel(world.proc)
    with closing(Ledger(state / NAME, kernel.boot_id())) as ledger:
        Acting(hands_with(ledger, kernel, FakeClock()), kernel, LinuxLocks(), {}, {}, FakeClock()).apply(
            decided([Set(Control.NICE, ProcessPlace(world.id), 1)], 0)
        )
    with no_descriptors(), pytest.raises((OSError, LedgerError)):
        undo_from_ledger(state, FakeClock(), proc_root=world.proc)
    with no_descriptors():
        blind = Ledger(state / NAME, kernel.boot_id())
        assert [note.lost for note in blind.notes] == [True]
        with pytest.raises(LedgerError):
            blind.intend([])
    with closing(blind):
        blind.intend([])
        assert [entry.new for entry in blind.outstanding()] == [1, 1], "it was read as soon as that was possible"
    undo_from_ledger(state, FakeClock(), proc_root=world.proc)
    assert os.getpriority(os.PRIO_PROCESS, world.id.pid) == 0
