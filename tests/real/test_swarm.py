"""A swarm inside one cgroup: what lasts is demoted, what it starts inherits, and undo leaves nothing of it behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from nicety.models.records import Latency, ProcId
from nicety.scheduler.config import Config
from nicety.scheduler.config import Priority as Section
from nicety.scheduler.decision import Control, Group, Member, Set, Status
from nicety.scheduler.linux.cgroup import find
from nicety.scheduler.policies.priority import Priority, PriorityMemory
from nicety.scheduler.testing.bench import Bench
from nicety.scheduler.testing.puppet import Puppet
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
    made = mount.point / f"nicety-swarm-{os.getpid()}"
    made.mkdir()
    try:
        yield made
    finally:
        deadline = time.monotonic() + 10
        while (made / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.02)
        made.rmdir()


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
            found.append(Member(ProcId(int(place.name), int(fields[19])), session, path, int(fields[16]), int(fields[1])))
    return sorted(found, key=lambda member: member.id)


def jobs(session: int, seconds: float, path: str = "/swarm") -> dict[ProcId, int]:
    """Nice of each job that was seen within so many seconds, as it was seen last."""
    seen, deadline = dict[ProcId, int](), time.monotonic() + seconds
    while time.monotonic() < deadline:
        seen |= {member.id: member.nice for member in swarm(session, path) if member.id.pid != session}
        time.sleep(0.005)
    return seen


def build(members: list[Member]) -> Group:
    return msgspec.structs.replace(a_group("build", Latency.BATCH, members, cpu=1.5, wait=1.0), brief=1.4)


def test_children_inherit_the_demotion_of_what_lasts_and_undo_finds_them_all(tmp_path: Path, cgroup: Path, driver: int) -> None:
    path = f"/{cgroup.name}"
    demotes = Priority(Config(priority=Section(slice_ms=0.0)), PriorityMemory())
    with Bench(tmp_path / "state") as bench, Puppet() as puppet:
        (cgroup / "cgroup.procs").write_text(str(puppet.pid))
        service = a_group("service", Latency.LATENCY, [Member(puppet.id, puppet.pid, path, 0)], cpu=0.3, wait=0.6)
        assert len(jobs(driver, 0.5)) >= 3
        first = a_tick(0, machine=a_machine(busy=2.0), groups=[service, build(swarm(driver, path))])
        decisions = demotes.propose(first)
        for decision in decisions:
            demotes.admit(decision)
        assert [(d.action.control, d.action.value) for d in decisions if isinstance(d.action, Set)] == [(Control.NICE, 19)]
        assert [d.action.process.pid for d in decisions if isinstance(d.action, Set) and d.action.process] == [driver]
        named = [msgspec.structs.replace(decision, id=f"s-0.{number}") for number, decision in enumerate(decisions)]
        assert [outcome.status for outcome in bench.actuator.apply(named)] == [Status.APPLIED]
        time.sleep(0.2)  # what was started before has ended
        seen = jobs(driver, 1.0)
        assert len(seen) >= 5
        assert set(seen.values()) == {19}, "each has it from its parent"
        second = a_tick(1, machine=a_machine(busy=2.0), groups=[service, build(swarm(driver, path))])
        assert demotes.propose(second) == [], "no decision for what inherited"
        assert {outcome.status for outcome in bench.actuator.undo()} <= {Status.APPLIED, Status.UNCHANGED}
        assert bench.ledger.outstanding() == ()
        time.sleep(0.1)
        assert {member.nice for member in swarm(driver, path)} == {0}
        assert set(jobs(driver, 0.5).values()) == {0}
        assert os.getpriority(os.PRIO_PROCESS, puppet.pid) == 0
