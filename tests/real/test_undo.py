"""Acting and undoing on real processes: who inherits, who comes and goes, who may not, and pools of real servers."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.act.undo import undo_from_ledger
from nicety.scheduler.config.sections import PoolConfig
from nicety.scheduler.decision import ResizePool, Restore, Set
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.knobs.cgroup import find
from nicety.scheduler.hands.knobs.control import LinuxKernel
from nicety.scheduler.hands.knobs.slices import Slices
from nicety.scheduler.hands.ledger import StateBusyError
from nicety.scheduler.hands.places import Control, ThreadId
from nicety.scheduler.hands.restoring import PAST_FORK_NS
from nicety.scheduler.places import CgroupPlace, ProcessPlace, SessionPlace
from nicety.scheduler.pools.gunicorn.adapter import GunicornPool
from nicety.scheduler.ports import PoolAdapter
from nicety.scheduler.testing.acts import own_acts
from nicety.scheduler.testing.bench import Bench
from nicety.scheduler.testing.puppet import Puppet

root = pytest.mark.skipif(os.geteuid() != 0, reason="lowering a nice again needs CAP_SYS_NICE; made for root")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Bench(tmp_path / "state") as made:
        yield made


def nice(tid: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, tid)


def test_user_time_of_who_runs_grows() -> None:
    kernel, begin = LinuxKernel(), time.process_time()
    process = kernel.itself()
    before = kernel.user_time(process, ThreadId(*process))
    assert isinstance(before, int)
    while time.process_time() - begin < 0.1:
        sum(range(1000))
    after = kernel.user_time(process, ThreadId(*process))
    assert isinstance(after, int)
    assert after - before >= PAST_FORK_NS
    assert kernel.user_time(process, ThreadId(process.pid, process.start_ticks + 1)) is None, "another thread of this number"


@pytest.mark.root
@root
def test_children_orphans_and_threads_that_inherited_go_back_and_others_keep_what_they_have(bench: Bench) -> None:
    with Puppet() as puppet, Puppet() as stranger:
        before = puppet.fork()
        (outcome,) = bench.apply(Set(Control.NICE, ProcessPlace(puppet.id), 10))
        assert outcome.status is Status.APPLIED
        thread = puppet.thread()
        child = puppet.fork()
        session = puppet.fork(session=True)
        orphan = puppet.fork(orphan=True)
        os.setpriority(os.PRIO_PROCESS, stranger.pid, 10)
        by_hand = puppet.fork()
        os.setpriority(os.PRIO_PROCESS, by_hand.pid, 4)
        assert [nice(pid) for pid in (thread, child.pid, session.pid, orphan.pid, before.pid)] == [10, 10, 10, 10, 0]
        (outcome,) = bench.apply(Restore(Control.NICE, ProcessPlace(puppet.id)))
        assert (outcome.status, outcome.changed) == (Status.APPLIED, 5)
        assert [nice(pid) for pid in (puppet.pid, thread, child.pid, session.pid, orphan.pid, before.pid)] == [0] * 6
        assert (nice(stranger.pid), nice(by_hand.pid)) == (10, 4)


@pytest.mark.root
@root
def test_orphans_of_a_process_that_ended_go_back_from_the_ledger_alone(bench: Bench) -> None:
    with Puppet() as puppet:
        bench.apply(
            Set(Control.AFFINITY, ProcessPlace(puppet.id), (0,)),
            Set(Control.POLICY, ProcessPlace(puppet.id), 3),
            Set(Control.NICE, ProcessPlace(puppet.id), 6),
        )
        whole = os.sched_getaffinity(0)
        child, orphan = puppet.fork(), puppet.fork(orphan=True)
        puppet.end()
        bench.close()
        undo_from_ledger(bench.state, SystemClock())
        for each in (child, orphan):
            assert (nice(each.pid), os.sched_getscheduler(each.pid), os.sched_getaffinity(each.pid)) == (0, 0, whole)


@pytest.mark.root
@root
def test_threads_that_come_and_go_during_apply_all_end_up_with_the_value(bench: Bench) -> None:
    with Puppet() as puppet:
        steady = [puppet.thread() for _ in range(20)]
        puppet.churn(1.5)
        for value in (5, 10, 3):
            (outcome,) = bench.apply(Set(Control.NICE, ProcessPlace(puppet.id), value))
            assert outcome.status in (Status.APPLIED, Status.PARTIAL), outcome
            threads = {int(path.name) for path in Path(f"/proc/{puppet.pid}/task").iterdir()}
            found = {}
            for tid in threads:
                try:
                    found[tid] = nice(tid)
                except ProcessLookupError:
                    continue
            assert set(found.values()) == {value}, outcome
        bench.actuator.undo()
        assert {nice(tid) for tid in (puppet.pid, *steady)} == {0}
        threads = {int(path.name) for path in Path(f"/proc/{puppet.pid}/task").iterdir()}
        values = set()
        for tid in threads:
            try:
                values.add(nice(tid))
            except ProcessLookupError:
                continue
        assert values == {0}


@pytest.mark.root
@root
def test_an_autogroup_goes_back_through_another_member_when_the_first_has_ended(bench: Bench) -> None:
    with Puppet() as puppet:
        autogroup = Path(f"/proc/{puppet.pid}/autogroup")
        if not autogroup.exists() or not autogroup.read_text().strip():
            pytest.skip("this kernel has no autogroups")
        child = puppet.fork()
        (outcome,) = bench.apply(Set(Control.AUTOGROUP, SessionPlace(puppet.id.pid, puppet.id), 19))
        assert outcome.status is Status.APPLIED
        assert autogroup.read_text().endswith("nice 19\n")
        puppet.end()
        (outcome,) = bench.actuator.undo()
        assert outcome.status is Status.APPLIED
        assert Path(f"/proc/{child.pid}/autogroup").read_text().endswith("nice 0\n")


@pytest.mark.root
@root
def test_shares_of_a_real_cgroup_go_back_and_a_removed_one_is_gone(bench: Bench) -> None:
    mount = find(Path("/proc/self/mountinfo").read_text()).shares
    if mount is None:
        pytest.skip("this machine has no cgroup v1 cpu hierarchy")
    groups = [Path(mount.point) / f"nicety-undo-{os.getpid()}-{number}" for number in range(3)]
    for group in groups:
        group.mkdir()
    try:
        (groups[0] / "cpu.shares").write_text("512")
        outcomes = bench.apply(*(Set(Control.CPU_SHARES, CgroupPlace(f"/{group.name}"), 2) for group in groups))
        assert {outcome.status for outcome in outcomes} == {Status.APPLIED}
        (groups[1] / "cpu.shares").write_text("77")
        groups[2].rmdir()
        outcomes = bench.actuator.undo()
        assert [outcome.status for outcome in outcomes] == [Status.VANISHED, Status.FOREIGN, Status.APPLIED]
        assert outcomes[1].detail.endswith("from 2 to 77")
        assert [(group / "cpu.shares").read_text() for group in groups[:2]] == ["512\n", "77\n"]
    finally:
        for group in groups:
            if group.exists():
                group.rmdir()


@pytest.mark.root
@root
def test_a_slice_that_somebody_had_set_goes_back_to_it_and_a_default_to_the_default(bench: Bench) -> None:
    slices = Slices()
    with Puppet() as puppet, Puppet() as other:
        try:
            slices.write(puppet.pid, 20_000_000)
        except OSError as error:
            pytest.skip(f"this kernel has no slices: {error.strerror}")
        (chosen,) = bench.apply(Set(Control.SLICE, ProcessPlace(puppet.id), 100_000, 0))
        assert (chosen.status, chosen.detail) == (Status.FOREIGN, "left: somebody chose slice 20000000")
        outcomes = bench.apply(*(Set(Control.SLICE, ProcessPlace(each.id), 100_000) for each in (puppet, other)))
        assert {outcome.status for outcome in outcomes} == {Status.APPLIED}
        assert {slices.read(each.pid) for each in (puppet, other, puppet.fork(), other.fork())} == {100_000}
        outcomes = bench.actuator.undo()
        assert [(outcome.status, outcome.changed) for outcome in outcomes] == [(Status.APPLIED, 2)] * 2
        assert (slices.read(puppet.pid), slices.read(other.pid)) == (20_000_000, 0)


@pytest.mark.root
@root
def test_an_idle_cgroup_goes_back_with_its_weight(bench: Bench) -> None:
    mount = find(Path("/proc/self/mountinfo").read_text()).shares
    if mount is None or not (Path(mount.point) / "cpu.idle").exists():
        pytest.skip("this machine has no cgroup v1 cpu hierarchy with cpu.idle")
    groups = [Path(mount.point) / f"nicety-idle-{os.getpid()}-{number}" for number in range(3)]
    for group in groups:
        group.mkdir()
    try:
        (groups[1] / "cpu.shares").write_text("512")
        (groups[2] / "cpu.idle").write_text("1")
        outcomes = bench.apply(*(Set(Control.CPU_IDLE, CgroupPlace(f"/{group.name}"), 1, 0) for group in groups))
        assert [outcome.status for outcome in outcomes] == [Status.APPLIED, Status.REFUSED, Status.FOREIGN]
        (weighed,) = bench.apply(Set(Control.CPU_SHARES, CgroupPlace(f"/{groups[2].name}"), 2, 1024))
        assert (weighed.status, weighed.changed) == (Status.REFUSED, 0)
        (outcome,) = bench.actuator.undo()
        assert outcome.status is Status.APPLIED
        values = [[int((group / name).read_text()) for name in ("cpu.idle", "cpu.shares")] for group in groups]
        assert values[:2] == [[0, 1024], [0, 512]]
        assert values[2][0] == 1
    finally:
        for group in groups:
            group.rmdir()


ACT_AND_UNDO = """
import os, sys, time
from pathlib import Path
from nicety.models.identity import ProcId
from nicety.scheduler.act.actuate import Acting
from nicety.scheduler.testing.hands import hands_with
from nicety.scheduler.decision import Decision, Set, Why
from nicety.scheduler.hands.places import Control
from nicety.scheduler.testing.places import place_of
from nicety.scheduler.hands.knobs.control import LinuxKernel
from nicety.scheduler.read.locks import LinuxLocks
from nicety.scheduler.hands.ledger import Ledger
class Clock:
    monotonic = staticmethod(time.monotonic_ns)
    wall = staticmethod(time.time_ns)
    def sleep_until(self, at):
        time.sleep(max(0, at - time.monotonic_ns()) / 1e9)
state, user, controls, value, *numbers = sys.argv[1:]
numbers = list(map(int, numbers))
if int(user):
    os.setgroups([])
    os.setgid(int(user))
    os.setuid(int(user))
kernel = LinuxKernel()
ledger = Ledger(Path(state) / "ledger.log", kernel.boot_id())
acting = Acting(hands_with(ledger, kernel, Clock()), kernel, LinuxLocks(), {}, {}, Clock())
decisions = []
for process in [ProcId(*pair) for pair in zip(numbers[::2], numbers[1::2])]:
    for control in controls.split(","):
        wanted = (0,) if control == "affinity" else 3 if control == "policy" else int(value)
        action = Set(Control(control), place_of(Control(control), process), wanted)
        decisions.append(Decision(f"s-0.{len(decisions)}", "p", "t", action, Why("t", "t", {}, (), ())))
for outcome in acting.apply(decisions):
    print("apply", outcome.status.value, outcome.detail)
print("open", len(ledger.outstanding()))
for outcome in acting.undo():
    print("undo", outcome.status.value, outcome.detail)
print("open", len(ledger.outstanding()))
"""


def act_as(user: int, wrapper: list[str], controls: str, *processes: ProcId) -> list[str]:
    """What acting and undoing prints when it is done by this user, in a state directory of theirs."""
    with tempfile.TemporaryDirectory() as state:
        os.chown(state, user, user)
        numbers = [str(number) for process in processes for number in process]
        command = [*wrapper, sys.executable, "-c", ACT_AND_UNDO, state, str(user), controls, "9", *numbers]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@pytest.mark.root
@root
def test_without_root_nothing_is_reniced_and_the_outcome_says_what_it_takes() -> None:
    with Puppet() as puppet:
        lines = act_as(65534, [], "nice,policy,autogroup,affinity", puppet.id)
        assert [line.split()[:2] for line in lines[:4]] == [["apply", "refused"]] * 4
        assert all("CAP_SYS_NICE" in line for line in lines[:4]), lines
        assert lines[4:] == ["open 0", "open 0"]
        assert (nice(puppet.pid), os.sched_getscheduler(puppet.pid)) == (0, 0)
        assert os.sched_getaffinity(puppet.pid) == os.sched_getaffinity(0)


@pytest.mark.root
@root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv (util-linux)")
def test_the_rate_limit_of_autogroups_delays_undo_and_does_not_break_it() -> None:
    with Puppet() as one, Puppet() as two:
        if not Path(f"/proc/{one.pid}/autogroup").exists():
            pytest.skip("this kernel has no autogroups")
        lines = act_as(0, ["setpriv", "--bounding-set", "-sys_admin"], "autogroup,nice", one.id, two.id)
        applied = [line for line in lines if line.startswith("apply applied")]
        later = [line for line in lines if line.startswith("apply later")]
        assert len(applied) + len(later) == 4
        assert later, lines
        assert all("0.1 s" in line for line in later)
        undone = [line for line in lines if line.startswith("undo")]
        assert len(undone) == len(applied)
        assert all(line.startswith("undo applied") for line in undone), undone
        assert lines[-1] == "open 0"
        for puppet in (one, two):
            assert Path(f"/proc/{puppet.pid}/autogroup").read_text().endswith("nice 0\n")
            assert nice(puppet.pid) == 0


def test_undo_is_refused_while_a_daemon_works_there_and_names_it(bench: Bench) -> None:
    with pytest.raises(StateBusyError, match=f"pid {os.getpid()}"):
        undo_from_ledger(bench.state, SystemClock())


def test_undo_of_a_state_directory_without_a_ledger_is_nothing(tmp_path: Path) -> None:
    assert undo_from_ledger(tmp_path / "none", SystemClock()) == ()
    assert not (tmp_path / "none").exists()


IMPOSTOR = """
import os, sys, time
from pathlib import Path
from nicety.models.identity import ProcId
from nicety.scheduler.act.actuate import Acting
from nicety.scheduler.testing.hands import hands_with
from nicety.scheduler.act.undo import undo_from_ledger
from nicety.scheduler.decision import Decision, Set, Why
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import ProcessPlace
from nicety.scheduler.hands.knobs.control import LinuxKernel
from nicety.scheduler.read.locks import LinuxLocks
from nicety.scheduler.hands.ledger import Ledger
class Clock:
    monotonic = staticmethod(time.monotonic_ns)
    wall = staticmethod(time.time_ns)
    def sleep_until(self, at):
        time.sleep(max(0, at - time.monotonic_ns()) / 1e9)
def child(wanted=None):
    if wanted is not None:
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(wanted - 1))
    pid = os.fork()
    if pid == 0:
        os.setsid()
        time.sleep(60)
        os._exit(0)
    return pid
kernel = LinuxKernel()
state = Path(sys.argv[1])
ledger = Ledger(state / "ledger.log", kernel.boot_id())
acting = Acting(hands_with(ledger, kernel, Clock()), kernel, LinuxLocks(), {}, {}, Clock())
pid = child()
identity = next(kin.id for kin in kernel.kin().kin if kin.id.pid == pid)
why = Why("t", "t", {}, (), ())
print(acting.apply([Decision("s-0.0", "p", "t", Set(Control.NICE, ProcessPlace(identity), 10), why)])[0].status.value)
while kernel.uptime_ticks() <= identity.start_ticks:
    time.sleep(0.001)
os.kill(pid, 9)
os.waitpid(pid, 0)
impostor = child(pid)
assert impostor == pid
while os.getsid(impostor) != impostor:
    time.sleep(0.001)
os.setpriority(os.PRIO_PROCESS, impostor, 10)  # by hand, the very value that we gave the one before
ledger.close()
print(*(outcome.status.value for outcome in undo_from_ledger(state, Clock())), os.getpriority(os.PRIO_PROCESS, impostor))
os.kill(impostor, 9)
"""


@pytest.mark.root
@root
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare for a pid namespace of its own")
def test_undo_does_not_touch_whoever_has_the_pid_now(tmp_path: Path) -> None:
    result = subprocess.run(
        ["unshare", "-pf", "--mount-proc", sys.executable, "-c", IMPOSTOR, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["applied", "vanished", "10"]


# --- pools -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def gunicorn(tmp_path: Path) -> Iterator[Path]:
    """The pid file of a gunicorn with two workers."""
    (tmp_path / "app.py").write_text("def application(e, start):\n    start('200 OK', [])\n    return [b'ok']\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pidfile = tmp_path / "gunicorn.pid"
    command = [sys.executable, "-m", "gunicorn", "-w", "2", "-b", f"127.0.0.1:{port}", "--pid", str(pidfile), "app:application"]
    server = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_for(lambda: pidfile.exists() and len(workers(server.pid)) == 2, 20)
        yield pidfile
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def workers(master: int) -> list[str]:
    return Path(f"/proc/{master}/task/{master}/children").read_text().split()


def wait_for(condition: object, seconds: float) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_gunicorn_goes_back_to_its_size_after_the_daemon_has_died(bench: Bench, gunicorn: Path) -> None:
    config = PoolConfig(kind="gunicorn", pidfile=str(gunicorn))
    master = int(gunicorn.read_text())
    pool = GunicornPool("web", config, SystemClock(), own_acts("web", config, SystemClock()))
    bench.pools["web"] = pool

    def turn() -> None:
        pool.probe()
        bench.samples["web"] = pool.read()

    def ready() -> bool:
        turn()
        return bench.samples["web"].size == 2 and not bench.samples["web"].trouble

    wait_for(ready, 10)
    (outcome,) = bench.apply(ResizePool("web", 4))
    assert outcome.status is Status.APPLIED, outcome

    def grown() -> bool:
        turn()
        return len(workers(master)) == 4

    wait_for(grown, 15)
    pool.close()
    bench.close()  # the daemon is dead; nobody told gunicorn
    (outcome,) = undo_from_ledger(bench.state, SystemClock())
    assert outcome.status is Status.FAILED
    assert "[pools.web]" in outcome.detail
    asked: list[tuple[str, ...]] = []

    def adapters(names: tuple[str, ...]) -> dict[str, PoolAdapter]:
        asked.append(names)
        return {"web": GunicornPool("web", config, SystemClock(), own_acts("web", config, SystemClock()))}

    (outcome,) = undo_from_ledger(bench.state, SystemClock(), pools=adapters, patience=20)
    assert (outcome.status, outcome.detail) == (Status.APPLIED, "size of pool web: 4 -> 2")
    assert asked == [("web",)]
    assert len(workers(master)) == 2
    assert undo_from_ledger(bench.state, SystemClock(), pools=adapters) == ()
