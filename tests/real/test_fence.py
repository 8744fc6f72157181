"""Fences on real cgroups: who is moved, what is left to them, and that nothing is left of it afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.act.observing import Observing
from nicety.scheduler.act.undo import undo_from_ledger
from nicety.scheduler.decision import Decision, Group, Member, Outcome, Restore, Set
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.hands.faults import Status, Trouble
from nicety.scheduler.hands.fences import Limits, Part, key_of, name_for, parts_of
from nicety.scheduler.hands.kernel import Scan
from nicety.scheduler.hands.knobs.cgroup import find
from nicety.scheduler.hands.knobs.control import LinuxKernel
from nicety.scheduler.hands.knobs.fence import Fences
from nicety.scheduler.hands.ledger import StateBusyError
from nicety.scheduler.hands.places import Control, FencePlace
from nicety.scheduler.places import ProcessPlace
from nicety.scheduler.read.identity import cgroup_and_unit
from nicety.scheduler.testing.bench import WHY, Bench
from nicety.scheduler.testing.puppet import Puppet, proc_id

FOUND = find(Path("/proc/self/mountinfo").read_text())
V1 = FOUND.shares is not None

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes cgroups; made for root")]


class Places:
    """A cgroup of the test's own in each hierarchy: /proc/PID/cgroup of whoever is in it has its path."""

    def __init__(self, name: str) -> None:
        self.path = f"/{name}"
        self.controllers = []
        self.directories = []
        for controller, mount in (("cpu", FOUND.shares), ("memory", FOUND.memory), ("pids", FOUND.pids)):
            if mount is not None and os.access(mount.point, os.W_OK):
                self.controllers.append(controller)
                self.directories.append(Path(mount.point) / name)
        if not self.controllers and FOUND.weight is not None:
            on = (Path(FOUND.weight.point) / "cgroup.subtree_control").read_text().split()
            self.controllers = [each for each in ("cpu", "pids") if each in on]
            self.directories = [Path(FOUND.weight.point) / name] if self.controllers else []
        for directory in self.directories:
            directory.mkdir()

    def admit(self, process: ProcId) -> None:
        for directory in self.directories:
            (directory / "cgroup.procs").write_text(str(process.pid))

    def members(self) -> list[set[int]]:
        return [set(map(int, (directory / "cgroup.procs").read_text().split())) for directory in self.directories]

    def fences(self) -> list[Path]:
        return [fence for directory in self.directories for fence in directory.iterdir() if fence.is_dir()]

    def close(self) -> None:
        for directory in self.directories:
            for fence in [entry for entry in directory.iterdir() if entry.is_dir()]:
                until(partial(removed, fence))
            until(partial(removed, directory))


def removed(directory: Path) -> bool:
    """Whoever is in it has ended, or ends in a moment."""
    with suppress(FileNotFoundError):
        try:
            directory.rmdir()
        except OSError:
            return False
    return True


def until(done: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "not within its time"
        time.sleep(0.02)


class Fencing(Bench):
    """Fences workers in, and lets all out at the end."""

    def fence(self, process: ProcId, limits: Limits) -> Outcome:
        (outcome,) = self.apply(Set(Control.FENCE, ProcessPlace(process), tuple(limits)))
        return outcome

    def free(self, process: ProcId) -> Outcome:
        (outcome,) = self.apply(Restore(Control.FENCE, ProcessPlace(process)))
        return outcome

    def close(self) -> None:
        self.actuator.undo()
        super().close()


@pytest.fixture
def places() -> Iterator[Places]:
    made = Places(f"nicety-test-{os.getpid()}")
    if "cpu" not in made.controllers:
        made.close()
        pytest.skip("no cgroup hierarchy hands the cpu controller out")
    yield made
    made.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Fencing]:
    with Fencing(tmp_path / "state") as made:
        yield made


def cgroups(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text()


def inside(pid: int, process: ProcId) -> bool:
    return name_for(process) in cgroups(pid)


def test_a_worker_and_its_children_are_fenced_in_and_nothing_is_left_of_it(places: Places, bench: Fencing) -> None:
    with Puppet() as puppet, Puppet() as sibling:
        for each in (puppet, sibling):
            places.admit(each.id)
        before = {pid: cgroups(pid) for pid in (puppet.pid, sibling.pid)}
        child = puppet.fork()
        outcome = bench.fence(puppet.id, Limits(300, 64 << 20, 8))
        assert outcome.status is Status.APPLIED, outcome
        assert "30000" in outcome.detail
        later, orphan, thread = puppet.fork(), puppet.fork(orphan=True, session=True), puppet.thread()
        assert all(inside(pid, puppet.id) for pid in (puppet.pid, child.pid, later.pid, orphan.pid, thread))
        assert cgroups(sibling.pid) == before[sibling.pid]
        made = bench.ledger.outstanding()[0].knob.on
        assert isinstance(made, FencePlace)
        limits = {name: value for part in parts_of(made.key) for name, value in part.files.items()}
        assert limits["cpu.cfs_quota_us" if V1 else "cpu.max"].split()[0] == "30000"
        if "pids" in places.controllers:
            assert limits["pids.max"] == str(2 + 8)
        for fence in places.fences():
            for name, value in limits.items():
                if (fence / name).exists() and (fence / name).parent.name == name_for(puppet.id):
                    assert (fence / name).read_text().strip() in (value, "max", "-1")
        assert cgroup_and_unit(cgroups(puppet.pid).encode()) == cgroup_and_unit(before[puppet.pid].encode()), (
            "policies see no fence"
        )
        outcome = bench.free(puppet.id)
        assert outcome.status is Status.APPLIED, outcome
        assert all(cgroups(pid) == before[puppet.pid] for pid in (puppet.pid, child.pid, later.pid, orphan.pid, thread))
        assert places.fences() == []
        assert bench.ledger.outstanding() == ()


def test_a_spinner_gets_what_its_fence_leaves_it(places: Places, bench: Fencing) -> None:
    program = "while True: pass"
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", program]) as spinner:
        try:
            process = proc_id(spinner.pid)
            places.admit(process)
            assert bench.fence(process, Limits(100, 0, 0)).status is Status.APPLIED
            (fence,) = places.fences()
            until(lambda: "nr_throttled 0\n" not in (fence / "cpu.stat").read_text())
            assert bench.free(process).status is Status.APPLIED
        finally:
            spinner.kill()


@pytest.mark.skipif(not V1, reason="a quota of cgroup v2 may be beyond that of the cgroup above")
def test_a_fence_in_a_cgroup_with_a_quota_takes_no_more_than_that(places: Places, bench: Fencing) -> None:
    (directory,) = [each for each in places.directories if (each / "cpu.cfs_quota_us").exists()]
    (directory / "cpu.cfs_period_us").write_text("50000")
    (directory / "cpu.cfs_quota_us").write_text("10000")
    with Puppet() as puppet:
        places.admit(puppet.id)
        outcome = bench.fence(puppet.id, Limits(300, 0, 0))
        assert outcome.status is Status.APPLIED, outcome
        (fence,) = places.fences()
        assert (fence / "cpu.cfs_quota_us").read_text().strip() == "20000"
        assert bench.free(puppet.id).status is Status.APPLIED
        assert (directory / "cpu.cfs_quota_us").read_text().strip() == "10000"


def test_a_weight_is_a_file_of_the_same_fence_as_a_quota(places: Places, bench: Fencing) -> None:
    with Puppet() as puppet:
        places.admit(puppet.id)
        assert bench.fence(puppet.id, Limits(300, 0, 0, 7)).status is Status.APPLIED
        (fence,) = places.fences()
        names = ("cpu.cfs_quota_us", "cpu.shares") if V1 else ("cpu.max", "cpu.weight")
        assert [(fence / name).read_text().split()[0] for name in names] == ["30000", "14" if V1 else "7"]
        (fence / names[1]).write_text("50")
        assert bench.free(puppet.id).status is Status.FOREIGN, "somebody changed the weight"
        (fence / names[1]).write_text("14" if V1 else "7")


STORM = """
import os, sys
print("on", flush=True)
while True:
    try:
        pid = os.fork()
    except BlockingIOError:
        continue
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
"""


def test_a_fork_storm_is_fenced_in_and_let_out(places: Places, bench: Fencing) -> None:
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", STORM], stdout=subprocess.PIPE) as storm:
        try:
            assert storm.stdout is not None
            storm.stdout.readline()
            process = proc_id(storm.pid)
            places.admit(process)
            outcome = bench.fence(process, Limits(200, 0, 8))
            assert outcome.status is Status.APPLIED, outcome
            assert inside(storm.pid, process)
            (outcome,) = bench.actuator.undo()
            assert outcome.status is Status.APPLIED, outcome
            assert not inside(storm.pid, process)
            assert places.fences() == []
        finally:
            storm.kill()


ACTOR = """
import os, signal, sys, time
from pathlib import Path
from nicety.models.identity import ProcId
from nicety.scheduler.act.actuate import Acting
from nicety.scheduler.testing.hands import hands_with
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.decision import Decision, Set, Why
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import ProcessPlace
from nicety.scheduler.hands.knobs.control import LinuxKernel
from nicety.scheduler.read.locks import LinuxLocks
from nicety.scheduler.hands.ledger import Ledger, StateLock
state, pid, start = sys.argv[1:4]
lock = StateLock(Path(state))
kernel = LinuxKernel()
ledger = Ledger(Path(state) / "ledger.log", kernel.boot_id())
action = Set(Control.FENCE, ProcessPlace(ProcId(int(pid), int(start))), (300, 64 << 20, 8))
if len(sys.argv) > 4:  # killed at the n-th write to a cgroup
    from nicety.scheduler.hands.knobs import fence
    write, left = fence._write, [int(sys.argv[4])]
    def dying(file, text):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        write(file, text)
    fence._write = dying
hands = hands_with(ledger, kernel, SystemClock())
Acting(hands, kernel, LinuxLocks(), {}, {}, SystemClock()).apply([Decision("s-0.0", "p", "t", action, Why("", "", {}, (), ()))])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("writes", [None, 0, 1, 2, 4])
def test_kill_9_at_any_moment_leaves_nothing_that_undo_does_not_take_away(
    places: Places, tmp_path: Path, writes: int | None
) -> None:
    with Puppet() as puppet:
        places.admit(puppet.id)
        before, child = cgroups(puppet.pid), puppet.fork()
        words = [str(tmp_path), *map(str, puppet.id), *([] if writes is None else [str(writes)])]
        done = subprocess.run([sys.executable, "-c", ACTOR, *words], check=False)
        assert done.returncode == -9
        assert places.fences() != []
        if writes is None:
            assert inside(child.pid, puppet.id)

        def undo() -> tuple[Outcome, ...]:
            with suppress(StateBusyError):
                return undo_from_ledger(tmp_path, SystemClock())
            return ()

        outcomes = undo()
        assert [outcome.status for outcome in outcomes] == [Status.APPLIED], outcomes
        assert cgroups(puppet.pid) == cgroups(child.pid) == before
        assert places.fences() == []
        assert undo_from_ledger(tmp_path, SystemClock()) == ()


def test_children_of_a_worker_that_ended_are_let_out(places: Places, bench: Fencing) -> None:
    with Puppet() as puppet:
        places.admit(puppet.id)
        before = cgroups(puppet.pid)
        assert bench.fence(puppet.id, Limits(300, 0, 0)).status is Status.APPLIED
        child = puppet.fork()
        puppet.end()
        assert inside(child.pid, puppet.id)
        assert bench.free(puppet.id).status is Status.APPLIED
        assert cgroups(child.pid) == before
        assert places.fences() == []


def test_whom_somebody_moved_out_stays_there_and_whose_limits_somebody_changed_are_left(places: Places, bench: Fencing) -> None:
    with Puppet() as puppet, Puppet() as other:
        for each in (puppet, other):
            places.admit(each.id)
            assert bench.fence(each.id, Limits(300, 0, 0)).status is Status.APPLIED or not V1
        roots = [directory.parent for directory in places.directories]
        for directory in roots:
            (directory / "cgroup.procs").write_text(str(puppet.pid))
        moved = cgroups(puppet.pid)
        assert bench.free(puppet.id).status is Status.APPLIED
        assert cgroups(puppet.pid) == moved
        for fence in places.fences():
            (fence / ("cpu.cfs_quota_us" if V1 else "cpu.max")).write_text("50000")
            outcome = bench.free(other.id)
            assert outcome.status is Status.FOREIGN, outcome
            assert inside(other.pid, other.id)


LOCKING = """
import fcntl, sys
f = open(sys.argv[1], "w")
fcntl.flock(f, fcntl.LOCK_EX)
print(1, flush=True)
if sys.argv[2] == "rests": sys.stdin.read()
while True: pass
"""


@contextmanager
def locking(path: Path, then: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that takes the lock of this file, or waits for it, and then "rests" or "runs"."""
    command = [sys.executable, "-c", LOCKING, str(path), then]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def has_it(process: subprocess.Popen[bytes]) -> ProcId:
    """Who it is, once it has the lock."""
    assert process.stdout is not None
    assert process.stdout.readline() == b"1\n"
    return proc_id(process.pid)


def test_who_holds_a_lock_that_a_sibling_waits_for_is_not_fenced_in(places: Places, bench: Fencing, tmp_path: Path) -> None:
    with locking(tmp_path / "lock", "rests") as holder:
        process = has_it(holder)
        with locking(tmp_path / "lock", "rests") as waiter:
            until(lambda: " -> " in (text := Path("/proc/locks").read_text()) and f" {waiter.pid} " in text)
            places.admit(process)
            bench.actuator.relieve([group(process, proc_id(waiter.pid))])
            outcome = bench.fence(process, Limits(300, 0, 0))
            assert outcome.status is Status.REFUSED, outcome
            assert f"pid {waiter.pid} waits for" in outcome.detail
            assert places.fences() == []


def test_a_fence_that_holds_up_a_sibling_is_taken_away_at_once(places: Places, bench: Fencing, tmp_path: Path) -> None:
    with locking(tmp_path / "lock", "runs") as holder:
        process = has_it(holder)
        places.admit(process)
        assert bench.fence(process, Limits(100, 0, 0)).status is Status.APPLIED
        with locking(tmp_path / "lock", "runs") as waiter:
            groups = [group(process, proc_id(waiter.pid))]

            def relieved() -> bool:
                bench.actuator.relieve(groups)
                return not inside(holder.pid, process)

            until(relieved)
            (outcome,) = bench.actuator.settle()
            assert outcome.status is Status.RELIEVED, outcome
            assert f"pid {waiter.pid} has waited" in outcome.detail
            assert places.fences() == []


@pytest.mark.parametrize(("flags", "status"), [(0x400000, Status.REFUSED), (0x400004, Status.VANISHED)])
def test_a_process_that_ends_is_gone_for_it_is_in_the_root_by_then(tmp_path: Path, flags: int, status: Status) -> None:
    task = tmp_path / "20" / "task" / "20"
    task.mkdir(parents=True)
    for folder in (tmp_path / "20", task):
        (folder / "cgroup").write_text("0::/nowhere\n")
    (tmp_path / "20" / "stat").write_text(f"20 (a) R 1 20 20 0 -1 {flags} " + " ".join(["0"] * 12) + " 7\n")
    answer = Fences(str(tmp_path), FOUND, lambda: Scan((), None)).plan(ProcId(20, 7), Limits(300, 0, 0))
    assert isinstance(answer, Trouble)
    assert answer.status is status


def group(*processes: ProcId) -> Group:
    members = tuple(Member(process, process.pid, "/", 0, owner=0) for process in processes)
    return Group("pool", "neutral", len(members), 0.0, 0.0, 0.0, 0, members)  # type: ignore[arg-type]


def test_a_fence_that_is_in_use_is_left_for_the_next_undo(places: Places, bench: Fencing) -> None:
    """Somebody has made a cgroup below it: rmdir(2) says EBUSY until that is gone."""
    with Puppet() as puppet:
        places.admit(puppet.id)
        before = cgroups(puppet.pid)
        assert bench.fence(puppet.id, Limits(300, 0, 0)).status is Status.APPLIED
        (fence,) = places.fences()
        (fence / "somebodys").mkdir()
        (outcome,) = bench.actuator.undo()
        assert outcome.status is Status.FAILED, outcome
        assert f"somebody made cgroup somebodys in the fence {fence}: remove it, then undo again" in outcome.detail
        assert cgroups(puppet.pid) == before, "it is let out all the same"
        assert len(bench.ledger.outstanding()) == 1
        (fence / "somebodys").rmdir()
        (outcome,) = bench.actuator.undo()
        assert outcome.status is Status.APPLIED, outcome
        assert places.fences() == []
        assert bench.ledger.outstanding() == ()


def test_observe_mode_says_what_it_would_do_and_makes_nothing(places: Places) -> None:
    with Puppet() as puppet:
        places.admit(puppet.id)
        observing = Observing(LinuxKernel(), {}, {}, lambda _: "")
        action = Set(Control.FENCE, ProcessPlace(puppet.id), tuple(Limits(300, 0, 0)))
        (outcome,) = observing.apply([Decision("s-0.0", "p", "t", action, WHY)])
        assert outcome.status is Status.OBSERVED
        assert "30000" in outcome.detail
        assert places.fences() == []


@pytest.mark.skipif(FOUND.weight is None, reason="no cgroup v2 hierarchy is mounted")
def test_a_cgroup_of_systemd_is_ours_only_where_it_was_given_away(places: Places, tmp_path: Path) -> None:
    assert FOUND.weight is not None
    unit = Path(FOUND.weight.point) / f"nicety-test-{os.getpid()}.service"
    unit.mkdir()
    try:
        with Puppet() as puppet:
            places.admit(puppet.id)
            (unit / "cgroup.procs").write_text(str(puppet.pid))
            fences = Fences("/proc", FOUND._replace(manager=None), lambda: Scan((), None), systemd=str(tmp_path))
            answer = fences.plan(puppet.id, Limits(300, 0, 0))
            assert isinstance(answer, Trouble)
            assert "Delegate=" in answer.text
            os.setxattr(unit, "user.delegate", b"1")
            answer = fences.plan(puppet.id, Limits(300, 0, 0))
            assert isinstance(answer, str) or "Delegate=" not in answer.text
    finally:
        until(partial(removed, unit))


@pytest.mark.skipif(FOUND.weight is None, reason="no cgroup v2 hierarchy is mounted")
def test_a_threaded_fence_of_cgroup_v2_needs_no_sibling_to_be_moved() -> None:
    assert FOUND.weight is not None
    above = Path(FOUND.weight.point) / f"nicety-test-{os.getpid()}"
    above.mkdir()
    fences = Fences("/proc", FOUND, LinuxKernel().kin)
    try:
        with Puppet() as puppet, Puppet() as sibling:
            for each in (puppet, sibling):
                (above / "cgroup.procs").write_text(str(each.pid))
            before, child = cgroups(puppet.pid), puppet.fork()
            key = key_of((Part("", f"/{above.name}/{name_for(puppet.id)}", {}, (), threaded=True),))
            assert fences.build(puppet.id, key) is None
            later, thread = puppet.fork(), puppet.thread()
            assert all(inside(pid, puppet.id) for pid in (puppet.pid, child.pid, later.pid, thread))
            assert cgroups(sibling.pid) == before
            assert (above / "cgroup.type").read_text().strip() == "domain threaded"
            assert str(puppet.pid) in (above / "cgroup.procs").read_text().split(), "whoever manages the cgroup sees it as before"
            assert fences.remove(key) is None
            assert all(cgroups(pid) == before for pid in (puppet.pid, child.pid, later.pid, thread))
            assert (above / "cgroup.type").read_text().strip() == "domain"
    finally:
        until(partial(removed, above))


def test_a_key_is_plain_json() -> None:
    part = Part("cpu", "/a/nicety-fence-1-2", {"cpu.cfs_quota_us": "30000"})
    assert parts_of(key_of((part,))) == (part,)
    assert json.loads(key_of((part,)))[0][1] == "/a/nicety-fence-1-2"
