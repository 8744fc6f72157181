"""A swarm inside one cgroup: it is fenced in, or what lasts is niced; what it starts inherits, and undo leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from nicety.models.identity import ProcId
from nicety.models.records import Class
from nicety.scheduler.config.sections import Config
from nicety.scheduler.config.sections import Priority as Section
from nicety.scheduler.decide.policies.policy import Result
from nicety.scheduler.decide.policies.priority.memory import PriorityMemory
from nicety.scheduler.decide.policies.priority.priority import Priority
from nicety.scheduler.decision import Decision, Group, Member, Restore, Set, Tick
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.fences import name_for
from nicety.scheduler.hands.knobs.cgroup import find
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import ProcessPlace, process_of
from nicety.scheduler.testing.bench import Bench
from nicety.scheduler.testing.policies import admitted
from nicety.scheduler.testing.puppet import Puppet, proc_id
from nicety.scheduler.testing.ticks import a_group, a_machine, a_tick

DRIVER = r"""
echo $$ > "$1/cgroup.procs"
job='i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done'
while :; do
  sh -c "$job" & sh -c "$job"
  wait
done
"""
"""As make -j2: two jobs of some 5 ms at a time, for ever."""

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="lowering a nice again needs CAP_SYS_NICE; made for root"),
]


@pytest.fixture
def cgroup() -> Iterator[Path]:
    mount = find(Path("/proc/self/mountinfo").read_text()).shares
    if mount is None:
        pytest.skip("this machine has no cgroup v1 cpu hierarchy")
    made = Path(mount.point) / f"nicety-swarm-{os.getpid()}"
    made.mkdir()
    try:
        yield made
    finally:
        deadline = time.monotonic() + 10
        for each in (*(entry for entry in made.iterdir() if entry.is_dir()), made):  # a fence, where a test failed
            while (each / "cgroup.procs").read_text() and time.monotonic() < deadline:
                time.sleep(0.02)
            each.rmdir()


@pytest.fixture
def driver(cgroup: Path) -> Iterator[int]:
    """Pid of the driver, which leads a session of its own."""
    process = subprocess.Popen(["sh", "-c", DRIVER, "sh", str(cgroup)], start_new_session=True)
    try:
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def swarm(session: int, path: str) -> list[Member]:
    """All processes of the session, as /proc has them now."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            fields = (place / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(Member(ProcId(int(place.name), int(fields[19])), session, path, int(fields[16]), int(fields[1]), owner=0))
    return sorted(found, key=lambda member: member.id)


def jobs(session: int, seconds: float, least: int = 0, path: str = "/swarm") -> dict[ProcId, int]:
    """Nice of each job that was seen within so many seconds, as it was seen last. It takes longer until so many were seen, at most
    half a minute: the machine may be full."""
    seen, deadline = dict[ProcId, int](), time.monotonic() + seconds
    while time.monotonic() < deadline or (len(seen) < least and time.monotonic() < deadline + 30):
        seen |= {member.id: member.nice for member in swarm(session, path) if member.id.pid != session}
        time.sleep(0.005)
    return seen


def build(members: list[Member]) -> Group:
    return msgspec.structs.replace(a_group("build", Class.BATCH, members, cpu=1.5, wait=1.0), brief=1.4)


def test_children_inherit_the_demotion_of_what_lasts_and_undo_finds_them_all(tmp_path: Path, cgroup: Path, driver: int) -> None:
    path = f"/{cgroup.name}"
    demotes = Priority(Config(priority=Section(slice_ms=0.0)), PriorityMemory())
    with Bench(tmp_path / "state") as bench, Puppet() as puppet:
        (cgroup / "cgroup.procs").write_text(str(puppet.pid))
        service = a_group("service", Class.INTERACTIVE, [Member(puppet.id, puppet.pid, path, 0, owner=0)], cpu=0.3, wait=0.6)
        assert len(jobs(driver, 0.5, 3)) >= 3
        machine = a_machine(busy=2.0, cpu_cgroup="", autogroup=False)
        first = a_tick(0, machine=machine, groups=[service, build(swarm(driver, path))])
        decisions = admitted(demotes, first)
        assert [(d.action.control, d.action.value) for d in decisions if isinstance(d.action, Set)] == [(Control.NICE, 19)]
        assert [process.pid for d in decisions if isinstance(d.action, Set) and (process := process_of(d.action.on))] == [driver]
        assert [outcome.status for outcome in bench.actuator.apply(decisions)] == [Status.APPLIED]
        time.sleep(0.2)  # what was started before has ended
        seen = jobs(driver, 1.0, 5)
        assert len(seen) >= 5
        assert set(seen.values()) == {19}, "each has it from its parent"
        second = a_tick(1, machine=machine, groups=[service, build(swarm(driver, path))])
        assert demotes.propose(second) == [], "no decision for what inherited"
        assert {outcome.status for outcome in bench.actuator.undo()} <= {Status.APPLIED, Status.UNCHANGED}
        assert bench.ledger.outstanding() == ()
        time.sleep(0.1)
        assert {member.nice for member in swarm(driver, path)} == {0}
        assert set(jobs(driver, 0.5).values()) == {0}
        assert os.getpriority(os.PRIO_PROCESS, puppet.pid) == 0


def paths(session: int) -> set[str]:
    """The cpu cgroups of all processes of the session that are there now. Who is about to end is in the root already."""
    found = set()
    for member in swarm(session, ""):
        try:
            lines = Path(f"/proc/{member.id.pid}/cgroup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found |= {path for _, controllers, path in (line.split(":", 2) for line in lines) if "cpu" in controllers.split(",")}
    return found - {"/"}


class Deciding:
    """The policy and the actuator, tick after tick, with outcomes told."""

    def __init__(self, bench: Bench) -> None:
        self.policy = Priority(Config(priority=Section(slice_ms=0.0)), PriorityMemory())
        self.bench = bench

    def step(self, tick: Tick) -> list[Decision]:
        decisions = admitted(self.policy, tick)
        outcomes = self.bench.actuator.apply(decisions)
        for decision, outcome in zip(decisions, outcomes, strict=True):
            self.policy.learn(Result(decision.action, decision.target, outcome.status, tick.at))
        assert {outcome.status for outcome in outcomes} <= {Status.APPLIED}, outcomes
        return decisions


@pytest.mark.parametrize("how", ["undo", "restore", "root gone"])
def test_a_swarm_is_moved_into_a_cgroup_of_the_least_weight_and_out_again(
    tmp_path: Path, cgroup: Path, driver: int, how: str
) -> None:
    path = f"/{cgroup.name}"
    with Bench(tmp_path / "state") as bench, Puppet() as puppet:
        deciding = Deciding(bench)
        (cgroup / "cgroup.procs").write_text(str(puppet.pid))
        service = a_group("service", Class.INTERACTIVE, [Member(puppet.id, puppet.pid, path, 0, owner=0)], cpu=0.3, wait=0.6)

        def tick(seq: int) -> Tick:
            return a_tick(seq, machine=a_machine(busy=2.0), groups=[service, build(swarm(driver, path))])

        assert len(jobs(driver, 0.5, 3)) >= 3
        root = next(member.id for member in swarm(driver, path) if member.id.pid == driver)
        (decision,) = deciding.step(tick(0))
        assert decision.action == Set(Control.FENCE, ProcessPlace(root), (0, 0, 0, 1), 0)
        fence = cgroup / name_for(root)
        assert (fence / "cpu.shares").read_text().strip() == "2"
        assert (cgroup / "cpu.shares").read_text().strip() == "1024"
        assert paths(driver) == {f"{path}/{fence.name}"}, "all that descends from it"
        seen = jobs(driver, 1.0, 5)
        assert len(seen) >= 5
        assert set(seen.values()) == {0}, "nothing is niced"
        assert paths(driver) == {f"{path}/{fence.name}"}, "and what it started since"
        assert (cgroup / "cgroup.procs").read_text().split() == [str(puppet.pid)]
        assert deciding.step(tick(1)) == []
        if how == "undo":
            assert [outcome.status for outcome in bench.actuator.undo()] == [Status.APPLIED]
        elif how == "restore":
            decisions = deciding.step(a_tick(2, machine=a_machine(busy=2.0), groups=[service]))
            assert [it.action for it in decisions] == [Restore(Control.FENCE, ProcessPlace(root))]
        else:
            os.kill(driver, signal.SIGKILL)
            os.waitid(os.P_PID, driver, os.WEXITED | os.WNOWAIT)
            orphan = subprocess.Popen(["sleep", "30"], start_new_session=True)  # as if it had been born there
            try:
                (fence / "cgroup.procs").write_text(str(orphan.pid))
                left = Member(proc_id(orphan.pid), orphan.pid, path, 0, 1, owner=0)
                decisions = deciding.step(a_tick(2, machine=a_machine(busy=2.0), groups=[service, build([left])]))
                assert [it.action for it in decisions] == [Restore(Control.FENCE, ProcessPlace(root))]
                assert f"{path}\n" in Path(f"/proc/{orphan.pid}/cgroup").read_text()
            finally:
                orphan.kill()
                orphan.wait()
        assert not fence.exists()
        assert paths(driver) <= {path}
        assert bench.ledger.outstanding() == ()
        assert [entry.name for entry in cgroup.iterdir() if entry.is_dir()] == []
