"""Fences in the unified hierarchy: threaded beside siblings that stay where they are, whole below the root, or refused."""

from __future__ import annotations

from pathlib import Path

from bench import HOG, UNIFIED, group, until, work
from bench import bench as acting_in

from nicety.scheduler.decision import Restore, Set
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.fences import name_for
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import ProcessPlace
from nicety.scheduler.testing.puppet import Puppet


def cgroup(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::")


def test_a_worker_is_fenced_in_beside_its_siblings_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    (UNIFIED / "cgroup.subtree_control").write_text("+pids")
    with group("service") as service, acting_in(tmp_path) as acting, Puppet() as puppet, Puppet() as sibling:
        for each in (puppet, sibling):
            service.take(each.pid)
        child = puppet.fork()
        (outcome,) = acting.apply(Set(Control.FENCE, ProcessPlace(puppet.id), (300, 64 << 20, 8)))
        assert outcome.status is Status.APPLIED, outcome
        assert service.read("cgroup.type") == "domain threaded"
        later, thread = puppet.fork(), puppet.thread()
        fence = f"/service/{name_for(puppet.id)}"
        assert {cgroup(pid) for pid in (puppet.pid, child.pid, later.pid, thread)} == {fence}
        assert cgroup(sibling.pid) == "/service"
        assert str(puppet.pid) in service.read("cgroup.procs").split()
        assert (UNIFIED / fence[1:] / "cpu.max").read_text().strip() == "30000 100000"
        assert (UNIFIED / fence[1:] / "pids.max").read_text().strip() == "10"
        (second,) = acting.apply(Set(Control.FENCE, ProcessPlace(sibling.id), (300, 0, 0)))
        assert second.status is Status.REFUSED
        assert "one at a time" in second.detail
        (outcome,) = acting.apply(Restore(Control.FENCE, ProcessPlace(puppet.id)))
        assert outcome.status is Status.APPLIED, outcome
        assert {cgroup(pid) for pid in (puppet.pid, child.pid, later.pid, thread)} == {"/service"}
        assert (service.read("cgroup.type"), service.read("cgroup.subtree_control")) == ("domain", "")
        assert [entry for entry in service.path.iterdir() if entry.is_dir()] == []


def test_a_spinner_is_throttled(tmp_path: Path) -> None:
    with group("service") as service, acting_in(tmp_path) as acting, work(HOG, service) as (hog,):
        (outcome,) = acting.apply(Set(Control.FENCE, ProcessPlace(hog), (100, 0, 0)))
        assert outcome.status is Status.APPLIED, outcome
        stat = service.path / name_for(hog) / "cpu.stat"
        until(lambda: "nr_throttled 0\n" not in stat.read_text())
        assert [outcome.status for outcome in acting.actuator.undo()] == [Status.APPLIED]
        assert cgroup(hog.pid) == "/service"


def test_memory_is_fenced_in_below_the_root_and_refused_beside_siblings(tmp_path: Path) -> None:
    with group("service") as service, acting_in(tmp_path) as acting, Puppet() as puppet:
        service.take(puppet.pid)
        (outcome,) = acting.apply(Set(Control.FENCE, ProcessPlace(puppet.id), (0, 64 << 20, 0)))
        assert outcome.status is Status.REFUSED
        assert "memory" in outcome.detail
        (UNIFIED / "cgroup.procs").write_text(str(puppet.pid))
        before = (UNIFIED / "cgroup.subtree_control").read_text()
        (outcome,) = acting.apply(Set(Control.FENCE, ProcessPlace(puppet.id), (0, 64 << 20, 0)))
        assert outcome.status is Status.APPLIED, outcome
        assert (UNIFIED / name_for(puppet.id) / "memory.high").read_text().strip() == str(64 << 20)
        assert [outcome.status for outcome in acting.actuator.undo()] == [Status.APPLIED]
        assert cgroup(puppet.pid) == "/"
        assert not (UNIFIED / name_for(puppet.id)).exists()
        now = (UNIFIED / "cgroup.subtree_control").read_text()
    assert set(now.split()) - set(before.split()) <= {"memory"}, "the service was still there, and may need it"
