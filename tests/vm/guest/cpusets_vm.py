"""Affinities in real cpusets and on CPUs that come and go: what undo gives back, and what is still ours meanwhile."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from bench import HOG, affinity, bench, group, offline, until, work

from nicety.models.identity import ProcId
from nicety.scheduler.decision import Set
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.knobs.cgroup import find
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import ProcessPlace
from nicety.scheduler.read import topology
from nicety.scheduler.testing.puppet import Puppet

ALL = tuple(range(8))
ALLOCATES = "import time\nwhile True:\n    kept = bytearray(b'x') * (16 << 20)\n    time.sleep(0.2)"
HERE = find(Path("/proc/self/mountinfo").read_text())


def allowed(process: ProcId) -> frozenset[int] | None:
    return HERE.allowed(Path(f"/proc/{process.pid}/cgroup").read_text())


def test_the_cpus_of_a_cpuset_are_found_also_from_below_it() -> None:
    with group("set") as outer, Puppet() as puppet:
        assert allowed(puppet.id) == frozenset(ALL)
        inner = outer.child("inner")  # without the controller: the outer one's CPUs count
        inner.take(puppet.pid)
        outer.write("cpuset.cpus", "2-3,6")
        assert allowed(puppet.id) == frozenset((2, 3, 6))
        assert affinity(puppet.id) == (2, 3, 6)
        outer.write("cgroup.subtree_control", "+cpuset")
        inner.write("cpuset.cpus", "3")
        assert allowed(puppet.id) == frozenset((3,))
        puppet.end()


@pytest.mark.parametrize("undo_while_small", [True, False])
def test_an_affinity_comes_back_whole_though_the_cpuset_shrank_and_grew(tmp_path: Path, undo_while_small: bool) -> None:
    with group("set") as place, bench(tmp_path) as acting, Puppet() as puppet:
        place.take(puppet.pid)
        (outcome,) = acting.apply(Set(Control.AFFINITY, ProcessPlace(puppet.id), (1, 2)))
        assert outcome.status is Status.APPLIED, outcome
        assert affinity(puppet.id) == (1, 2)
        place.write("cpuset.cpus", "2-3")
        until(lambda: set(affinity(puppet.id)) <= {2, 3})
        if undo_while_small:
            acting.actuator.undo()
            assert affinity(puppet.id) == (2, 3)
        place.write("cpuset.cpus", "0-7")
        acting.actuator.undo()
        assert affinity(puppet.id) == ALL
        assert acting.ledger.outstanding() == ()
        puppet.end()


def test_an_affinity_set_in_a_small_cpuset_is_whole_after_undo_when_the_cpuset_grew(tmp_path: Path) -> None:
    with group("set") as place, bench(tmp_path) as acting, Puppet() as puppet:
        place.write("cpuset.cpus", "2-5")
        place.take(puppet.pid)
        assert affinity(puppet.id) == (2, 3, 4, 5)
        (outcome,) = acting.apply(Set(Control.AFFINITY, ProcessPlace(puppet.id), (4, 5)))
        assert outcome.status is Status.APPLIED, outcome
        acting.actuator.undo()
        assert affinity(puppet.id) == (2, 3, 4, 5)
        place.write("cpuset.cpus", "0-7")
        until(lambda: affinity(puppet.id) == ALL)
        puppet.end()


def test_batch_work_confined_to_the_other_node_stays_there(tmp_path: Path) -> None:
    node = topology.read().nodes[1]
    with bench(tmp_path) as acting, work(HOG, cpus=ALL, count=2) as hogs:
        outcomes = acting.apply(*(Set(Control.AFFINITY, ProcessPlace(hog), node) for hog in hogs))
        assert [outcome.status for outcome in outcomes] == [Status.APPLIED] * 2
        assert [affinity(hog) for hog in hogs] == [node] * 2
        for _ in range(20):
            time.sleep(0.05)  # on the way the kernel may balance them
            assert all(cpu_of(hog) in node for hog in hogs)
        assert all(outcome.status is Status.APPLIED for outcome in acting.actuator.undo())
        assert [affinity(hog) for hog in hogs] == [ALL] * 2


def cpu_of(process: ProcId) -> int:
    """The CPU that a process runs on or ran on last, proc(5)."""
    raw = Path(f"/proc/{process.pid}/stat").read_text()
    return int(raw[raw.rindex(")") + 2 :].split()[36])


def test_memory_of_a_confined_process_comes_from_its_node(tmp_path: Path) -> None:
    node = topology.read().nodes[1]
    with bench(tmp_path) as acting, work((sys.executable, "-I", "-S", "-c", ALLOCATES), cpus=ALL) as (process,):
        (outcome,) = acting.apply(Set(Control.AFFINITY, ProcessPlace(process), node))
        assert outcome.status is Status.APPLIED, outcome
        until(lambda: pages(process, 1) > 3000 > 1000 > pages(process, 0))


def pages(process: ProcId, node: int) -> int:
    """Pages of anonymous memory on a node."""
    text = Path(f"/proc/{process.pid}/numa_maps").read_text()
    lines = [line for line in text.splitlines() if "anon=" in line]
    return sum(int(field.removeprefix(f"N{node}=")) for line in lines for field in line.split() if field.startswith(f"N{node}="))


def test_one_cpu_of_a_confinement_is_unplugged_and_the_rest_is_still_ours(tmp_path: Path) -> None:
    with bench(tmp_path) as acting, Puppet() as puppet:
        acting.apply(Set(Control.AFFINITY, ProcessPlace(puppet.id), (4, 5, 6, 7)))
        with offline(5):
            until(lambda: affinity(puppet.id) == (4, 6, 7))
            assert acting.actuator.settle() == (), "taken for somebody else's change"
        until(lambda: 5 in affinity(puppet.id))
        assert acting.actuator.settle() == ()
        assert all(outcome.status is Status.APPLIED for outcome in acting.actuator.undo())
        assert affinity(puppet.id) == ALL


def test_undo_while_a_cpu_is_unplugged_gives_all_that_are_there(tmp_path: Path) -> None:
    with bench(tmp_path) as acting, Puppet() as puppet:
        acting.apply(Set(Control.AFFINITY, ProcessPlace(puppet.id), (4, 5)))
        with offline(5):
            assert affinity(puppet.id) == (4,)
            outcomes = acting.actuator.undo()
            assert all(outcome.status is Status.APPLIED for outcome in outcomes), outcomes
            assert affinity(puppet.id) == (0, 1, 2, 3, 4, 6, 7)
        assert acting.ledger.outstanding() == ()
        # Linux 6.1 lets an affinity that was set in the root cgroup meanwhile lack the CPU for good, whoever sets it
        assert set(affinity(puppet.id)) >= {0, 1, 2, 3, 4, 6, 7}


def test_in_a_cgroup_with_a_cpuset_all_cpus_are_there_again_after_undo_and_the_return_of_one(tmp_path: Path) -> None:
    """Linux 6.1 itself forgets every affinity in such a cgroup when a CPU goes: then there is nothing to be put back."""
    with group("set") as place, bench(tmp_path) as acting, Puppet() as puppet:
        place.take(puppet.pid)
        acting.apply(Set(Control.AFFINITY, ProcessPlace(puppet.id), (4, 5)))
        with offline(5):
            until(lambda: affinity(puppet.id) in ((4,), (0, 1, 2, 3, 4, 6, 7)))
            acting.actuator.undo()
        until(lambda: affinity(puppet.id) == ALL)
        assert acting.ledger.outstanding() == ()
        puppet.end()


def test_a_process_whose_only_cpu_is_unplugged_runs_on_and_ends_unconfined(tmp_path: Path) -> None:
    with bench(tmp_path) as acting, work(HOG, cpus=ALL) as (hog,):
        acting.apply(Set(Control.AFFINITY, ProcessPlace(hog), (5,)))
        with offline(5):
            until(lambda: cpu_of(hog) != 5)
            acting.actuator.settle()
        acting.actuator.undo()
        assert affinity(hog) == ALL
        assert acting.ledger.outstanding() == ()


def test_an_affinity_to_cpus_that_are_not_there_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with bench(tmp_path) as acting, Puppet() as puppet:
        with offline(6, 7):
            (outcome,) = acting.apply(Set(Control.AFFINITY, ProcessPlace(puppet.id), (6, 7)))
            assert outcome.status is Status.FAILED, outcome
            assert "none of these CPUs is online" in outcome.detail
        assert affinity(puppet.id) == ALL
        assert acting.ledger.outstanding() == ()


def test_this_process_may_use_all_cpus() -> None:
    assert os.sched_getaffinity(0) == set(ALL), "a test has left something behind"
