"""Who waits for whom on this very kernel, and a demoted lock holder: its waiter must not notice much of the demotion."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from nicety.models.identity import ProcId
from nicety.models.records import Class
from nicety.scheduler.act.actuate import Acting
from nicety.scheduler.config.paths import Loaded, Paths
from nicety.scheduler.config.sections import parse
from nicety.scheduler.decision import Decision, Group, Member, Outcome, Set, Why
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.knobs.cgroup import find
from nicety.scheduler.hands.knobs.control import LinuxKernel
from nicety.scheduler.hands.ledger import Ledger, StateLock
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import CgroupPlace, ProcessPlace, SessionPlace
from nicety.scheduler.ports import Run, Wait
from nicety.scheduler.read.calls import FUTEX
from nicety.scheduler.read.holders import FileLock, file_locks
from nicety.scheduler.read.locks import AGAIN, ALIKE, LASTING, STRANGERS, LinuxLocks
from nicety.scheduler.testing.contention import KINDS, Scene, last_cpu
from nicety.scheduler.testing.hands import daemon_in_process, hands_with

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only CAP_SYS_NICE can lower a nice again")
AUTOGROUPS = Path("/proc/sys/kernel/sched_autogroup_enabled")


def seen(find_it: Callable[[], Wait | None], scene: Scene) -> Wait:
    """The wait that shows while the waiter is kept waiting for a second of the holder's CPU."""
    found: list[Wait] = []

    def look() -> float:
        wait = None if found else find_it()
        if wait is not None:
            found.append(wait)
        return 0.02

    scene.hold()
    scene.wait(0.3, look)
    assert found, "the wait was not seen"
    return found[0]


@pytest.mark.skipif(os.uname().machine not in FUTEX, reason="the number of futex(2) of this machine is not known")
@pytest.mark.parametrize("kind", KINDS)
def test_who_waits_for_a_lock_and_who_holds_it_is_seen(kind: str) -> None:
    with Scene(kind, None, hogs=0) as scene:
        locks = LinuxLocks()

        def look() -> Wait | None:
            waits = locks.waits((scene.holder,), (scene.waiter,))
            return next((wait for wait in waits if wait.waiter == scene.waiter), None)

        wait = seen(look, scene)
        assert wait.thread == scene.waiter.pid
        if kind in ("fcntl", "mutex"):
            assert (wait.holder, wait.possible) == (scene.holder, ())
        else:
            assert (wait.holder, wait.possible) == (None, (scene.holder,))
        run = locks.run(scene.holder)
        assert isinstance(run, Run)
        assert run.cpu > 0
        assert locks.run(scene.holder._replace(start_ticks=1)) is None


def test_a_process_that_has_ended_is_a_value() -> None:
    gone = ProcId(2**22 - 1, 77)
    locks = LinuxLocks()
    assert locks.run(gone) is None
    assert locks.cgroups(gone) == ()
    assert not [wait for wait in locks.waits((gone,), (gone,)) if wait.waiter == gone]


LOCKS = """\
1: OFDLCK ADVISORY  WRITE -1 00:1b:7 0 EOF
1: -> OFDLCK ADVISORY  WRITE -1 00:1b:7 0 EOF
2: POSIX  ADVISORY  WRITE 10 fe:00:42 0 EOF
2: -> POSIX  ADVISORY  WRITE 20 fe:00:42 0 9
2:  -> POSIX  ADVISORY  WRITE 21 fe:00:42 5 9
3: LEASE  ACTIVE    WRITE 10 fe:00:43 0 EOF
3: -> LEASE  BREAKING READ  20 fe:00:43 0 EOF
"""


def test_those_who_wait_behind_each_other_all_wait_for_the_holder(tmp_path: Path) -> None:
    (tmp_path / "locks").write_text(LOCKS)
    for pid in (10, 20, 21):
        task = tmp_path / str(pid) / "task" / str(pid)
        task.mkdir(parents=True)
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (a) b) S " + " ".join(["0"] * 18) + f" {pid} 0\n")
        (task / "schedstat").write_text(f"5 6 {pid * 100}\n")
    waits = LinuxLocks(tmp_path, "x86_64").waits((), ())
    assert [(wait.waiter, wait.turn, wait.holder) for wait in waits] == [
        (ProcId(20, 20), 2000, ProcId(10, 10)),
        (ProcId(21, 21), 2100, ProcId(10, 10)),
    ]
    assert {wait.lock for wait in waits} == {"fcntl lock on inode 42 of device fe:00"}


IDLE, IN_FCNTL = "232 0x5 0x7f00 0x1 0x3e8 0x0 0x8 0x7ffe 0x7fa1\n", "72 0x3 0x7 0x7ffd 0x0 0x0 0x0 0x7ffe 0x7fa1\n"
"""/proc/TID/syscall of a thread in epoll_wait, and of one in fcntl."""


def a_process(root: Path, pid: int, call: str) -> ProcId:
    """A folder of /proc, as far as it is read here."""
    task = root / str(pid) / "task" / str(pid)
    task.mkdir(parents=True)
    (root / str(pid) / "stat").write_text(f"{pid} (a) S " + " ".join(["0"] * 18) + f" {pid} 0\n")
    (root / str(pid) / "maps").write_text("")
    (task / "schedstat").write_text("5 6 7\n")
    (task / "syscall").write_text(call)
    return ProcId(pid, pid)


def test_the_table_of_locks_is_read_at_once_when_somebody_is_seen_to_wait_and_rarely_else(tmp_path: Path) -> None:
    (tmp_path / "locks").write_text("")
    holder, waiter = a_process(tmp_path, 10, IDLE), a_process(tmp_path, 20, IDLE)
    locks, demoted, others = LinuxLocks(tmp_path, "x86_64"), (holder,), (waiter,)
    assert locks.waits(demoted, others) == ()
    (tmp_path / "locks").write_text("\n".join(LOCKS.splitlines()[2:4]))
    assert [locks.waits(demoted, others) for _ in range(10)] == [()] * 10  # it says so, but nobody known is in such a call
    (tmp_path / "20/task/20/syscall").write_text(IN_FCNTL)
    (wait,) = locks.waits(demoted, others)
    assert (wait.waiter, wait.holder) == (waiter, holder)


def test_a_stranger_that_waits_for_a_file_is_seen_within_a_second(tmp_path: Path) -> None:
    (tmp_path / "locks").write_text("")
    holder, stranger = a_process(tmp_path, 10, IDLE), a_process(tmp_path, 20, IN_FCNTL)
    locks, demoted, others = LinuxLocks(tmp_path, "x86_64"), (holder,), ()
    locks.waits(demoted, others)
    (tmp_path / "locks").write_text("\n".join(LOCKS.splitlines()[2:4]))
    looks = [locks.waits(demoted, others) for _ in range(STRANGERS)]
    assert [wait.waiter for wait in looks[-1]] == [stranger]


def test_the_table_of_locks_is_read_ever_more_rarely_while_one_wait_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read stops all file locking of the machine for some ms, and somebody waits for a lock for good on many machines."""
    (tmp_path / "locks").write_text("\n".join(LOCKS.splitlines()[2:4]))
    holder, waiter = a_process(tmp_path, 10, IDLE), a_process(tmp_path, 20, IN_FCNTL)
    locks, demoted, others = LinuxLocks(tmp_path, "x86_64"), (holder,), (waiter,)
    reads: list[str] = []

    def counted(proc: str) -> Iterator[tuple[FileLock, FileLock]]:
        reads.append(proc)
        return file_locks(proc)

    monkeypatch.setattr("nicety.scheduler.read.locks.file_locks", counted)
    read_at: list[int] = []
    for look in range(2000):
        before = len(reads)
        assert len(locks.waits(demoted, others)) == 1
        read_at += [look] * (len(reads) - before)
    between = [later - earlier for earlier, later in itertools.pairwise(read_at)]
    assert between[:7] == [AGAIN, 6, 12, 24, 48, 96, LASTING]
    assert set(between[7:]) == {LASTING}
    (tmp_path / "20/task/20/schedstat").write_text("5 6 8\n")  # it got that lock, and waits for another
    before = len(reads)
    locks.waits(demoted, others)
    assert len(reads) == before + 1


def test_somebody_demoted_is_looked_at_each_few_looks_until_it_waits_and_anybody_else_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "locks").write_text("")
    demoted, others = (a_process(tmp_path, 10, IDLE),), (a_process(tmp_path, 20, IDLE),)
    locks, read, reads = LinuxLocks(tmp_path, "x86_64"), os.pread, list[str]()

    def counted(descriptor: int, size: int, offset: int) -> bytes:
        reads.append(Path(f"/proc/self/fd/{descriptor}").readlink().parent.name)
        return read(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", counted)
    for _ in range(3 * ALIKE):
        locks.waits(demoted, others)
    assert (reads.count("10"), reads.count("20")) == (3, 3 * ALIKE)
    (tmp_path / "10/task/10/syscall").write_text(IN_FCNTL)
    for _ in range(ALIKE):
        locks.waits(demoted, others)
    reads.clear()
    for _ in range(ALIKE):
        locks.waits(demoted, others)
    assert reads.count("10") == ALIKE


def test_a_wait_that_has_begun_anew_is_another_one(tmp_path: Path) -> None:
    (tmp_path / "locks").write_text("\n".join(LOCKS.splitlines()[2:4]))
    holder, waiter = a_process(tmp_path, 10, IDLE), a_process(tmp_path, 20, IN_FCNTL)
    locks, demoted, others = LinuxLocks(tmp_path, "x86_64"), (holder,), (waiter,)
    (before,) = locks.waits(demoted, others)
    (tmp_path / "20/task/20/schedstat").write_text("5 6 8\n")
    (after,) = locks.waits(demoted, others)
    assert (before.turn, after.turn) == (7, 8)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_what_is_kept_open_for_the_next_look_is_closed_when_nothing_is_demoted(tmp_path: Path) -> None:
    (tmp_path / "locks").write_text("")
    everybody = [a_process(tmp_path, pid, IDLE) for pid in range(10, 14)]
    before, locks = descriptors(), LinuxLocks(tmp_path, "x86_64")
    locks.waits(tuple(everybody[:1]), tuple(everybody[1:]))
    assert descriptors() == before + len(everybody)
    locks.waits(tuple(everybody[:1]), tuple(everybody[1:2]))
    assert descriptors() == before + 2  # those that are no longer asked for
    locks.rest()
    assert descriptors() == before


def test_a_number_that_somebody_else_has_by_now_is_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / "locks").write_text("\n".join(LOCKS.splitlines()[2:4]))
    holder = a_process(tmp_path, 10, IDLE)
    a_process(tmp_path, 20, IN_FCNTL)
    before, locks = descriptors(), LinuxLocks(tmp_path, "x86_64")
    locks.waits((holder,), (ProcId(20, 19),))
    assert descriptors() == before + 1


@pytest.mark.root
@needs_root
@pytest.mark.parametrize(("kind", "expected"), [("fcntl", 1), ("semaphore", 0)])
def test_without_rights_file_locks_are_still_seen_and_nothing_fails(kind: str, expected: int) -> None:
    answers: list[int] = []
    with Scene(kind, None, hogs=0) as scene:

        def look() -> float:
            pid = os.fork()
            if pid == 0:
                code = 99
                try:
                    os.setgroups([])
                    os.setgid(65534)
                    os.setuid(65534)
                    locks = LinuxLocks()
                    waits = locks.waits((scene.holder,), (scene.waiter,))
                    code = sum(wait.waiter == scene.waiter for wait in waits) if locks.run(scene.holder) is not None else 98
                finally:
                    os._exit(code)
            answers.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            return 0.02

        scene.hold()
        scene.wait(0.3, look)
    assert max(answers) == expected


# --- the waiter's time --------------------------------------------------------------------------------------------------------


@pytest.fixture
def actuator(tmp_path: Path) -> Iterator[Acting]:
    kernel = LinuxKernel()
    ledger = Ledger(tmp_path / "ledger.log", kernel.boot_id())
    made = Acting(hands_with(ledger, kernel, SystemClock()), kernel, LinuxLocks(), {}, {}, SystemClock())
    yield made
    made.undo()
    ledger.close()


@pytest.fixture
def shares() -> Iterator[list[Path]]:
    """Four cgroups of v1, removed when the processes in them have ended."""
    mount = find(Path("/proc/self/mountinfo").read_text()).shares
    if mount is None or not os.access(mount.point, os.W_OK):
        pytest.skip("no cgroup v1 cpu hierarchy that can be written")
    paths = [Path(mount.point) / f"nicety-locks-{os.getpid()}-{name}" for name in range(4)]
    for path in paths:
        path.mkdir()
    yield paths
    deadline = time.monotonic() + 5
    while paths:
        try:
            paths[-1].rmdir()
            paths.pop()
        except OSError:
            assert time.monotonic() < deadline, f"{paths[-1]} is still in use"


def member(process: ProcId) -> Member:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return Member(process, int(fields[3]), "/", int(fields[16]), owner=0)


def ratio(actuator: Acting, scene: Scene, action: Set, rounds: int = 3) -> tuple[float, list[Outcome]]:
    """(time blocked when demoted and watched by that of the same round undemoted, reliefs).

    The least of some rounds: other load on the machine can lengthen any of them. Without relief each is 40 and more;
    `benchmarks/latency/lock_holder.py` has the medians.
    """
    groups = tuple(
        Group(name, class_, 1, 0.0, 0.0, 0.0, 0, (member(process),))
        for name, class_, process in (("batch", Class.BATCH, scene.holder), ("web", Class.INTERACTIVE, scene.waiter))
    )
    plain, watched = [], []
    reliefs: list[Outcome] = []
    for number in range(rounds):
        scene.hold()
        plain.append(scene.wait(0.05, lambda: None))
        scene.hold()
        (done,) = actuator.apply([Decision(f"s-{number}.1", "priority", "batch", action, Why("test", "because", {}, (), ()))])
        assert done.status is Status.APPLIED, done.detail
        actuator.relieve(groups)  # as the daemon does at the end of its turn
        watched.append(scene.wait(0.05, lambda: actuator.relieve(groups)))
        reliefs += actuator.settle()
        actuator.undo()
    return min(after / before for before, after in zip(plain, watched, strict=True)), reliefs


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("kind", KINDS)
def test_a_waiter_is_blocked_at_most_twice_as_long_when_the_holder_is_niced(actuator: Acting, kind: str) -> None:
    with Scene(kind, last_cpu()) as scene:
        scene.start()
        times, reliefs = ratio(actuator, scene, Set(Control.NICE, ProcessPlace(scene.holder), 19))
    assert times <= 2
    assert {outcome.status for outcome in reliefs} == {Status.RELIEVED}
    assert f"pid {scene.waiter.pid} has waited" in reliefs[0].detail


@pytest.mark.root
@needs_root
@pytest.mark.skipif(not AUTOGROUPS.exists() or AUTOGROUPS.read_text() != "1\n", reason="autogroups are off")
def test_a_waiter_is_blocked_at_most_twice_as_long_when_the_holders_session_is_demoted(actuator: Acting) -> None:
    with Scene("mutex", last_cpu(), layout="sessions") as scene:
        scene.start()
        times, reliefs = ratio(actuator, scene, Set(Control.AUTOGROUP, SessionPlace(scene.holder.pid, scene.holder), 19))
    assert times <= 2
    assert {outcome.status for outcome in reliefs} == {Status.RELIEVED}


@pytest.mark.root
@needs_root
def test_a_waiter_is_blocked_at_most_twice_as_long_when_the_holders_cgroup_is_demoted(
    actuator: Acting, shares: Sequence[Path]
) -> None:
    with Scene("semaphore", last_cpu()) as scene:
        for path, process in zip(shares, (scene.holder, *scene.hogs), strict=True):
            (path / "tasks").write_text(f"{process.pid}\n")
        scene.start()
        times, reliefs = ratio(actuator, scene, Set(Control.CPU_SHARES, CgroupPlace(f"/{shares[0].name}"), 2))
    assert times <= 2
    assert {outcome.status for outcome in reliefs} == {Status.RELIEVED}


# --- the daemon's part --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pause", "least", "most"), [(0.02, 20, 90), (None, 3, 12)])
def test_the_daemon_looks_as_often_as_is_asked_for_and_else_once_a_tick(
    pause: float | None, least: int, most: int, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    with StateLock(state):
        config = parse("[daemon]\ninterval = 0.3\nprobe_interval = 10.0\n")
        daemon = daemon_in_process(Loaded(config, None), Paths(state, state / "control.sock"), SystemClock(), act=False)
        looks: list[Sequence[Group]] = []

        def relieve(groups: Sequence[Group]) -> float | None:
            looks.append(groups)
            return pause

        daemon._actuator.relieve = relieve  # type: ignore[method-assign]
        assert daemon.run(duration=1.5) == 0
        daemon.close()
    assert least <= len(looks) <= most
