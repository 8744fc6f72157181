"""Weight of real cgroups of the unified hierarchy: it moves the CPU split, comes back, and is refused with the right words."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import HOG, UNIFIED, Group, bench, group, until, work

from nicety.scheduler.decision import Restore, Set
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import CgroupPlace, ProcessPlace
from nicety.scheduler.read.facts import probe
from nicety.scheduler.testing.puppet import Puppet

NOBODY = 65534


def split(one: Group, other: Group, enough: int = 1_500_000) -> float:
    """How many times as much CPU `one` got as `other`, over so many µs of both from now on."""
    before, behind = one.used(), other.used()
    until(lambda: one.used() - before + other.used() - behind >= enough)
    return (one.used() - before) / max(1, other.used() - behind)


def test_a_weight_moves_the_cpu_split_and_undo_gives_the_old_one_back(tmp_path: Path) -> None:
    with group("service") as service, group("batch") as batch, bench(tmp_path) as acting:
        batch.write("cpu.weight", "300")
        service.write("cpu.weight", "300")
        with work(HOG, service, [1]), work(HOG, batch, [1], count=2):
            fair = split(service, batch)
            (outcome,) = acting.apply(Set(Control.CPU_WEIGHT, CgroupPlace(batch.name), 1))
            assert outcome.status is Status.APPLIED, outcome
            assert batch.read("cpu.weight") == "1"
            demoted = split(service, batch, 4_000_000)
            outcomes = acting.actuator.undo()
            assert [outcome.status for outcome in outcomes] == [Status.APPLIED]
            assert batch.read("cpu.weight") == "300"
            # Linux 6.1 lets the batch wait first for what it ran at the small weight: 1.5 s and more without any CPU
            until(lambda: 0.5 < split(service, batch) < 2)
    print(f"split before {fair:.2f}, demoted {demoted:.1f}")
    assert 0.5 < fair < 2
    assert demoted > 20


def test_a_weight_that_somebody_else_changed_stays(tmp_path: Path) -> None:
    with group("batch") as batch, bench(tmp_path) as acting:
        acting.apply(Set(Control.CPU_WEIGHT, CgroupPlace(batch.name), 1))
        batch.write("cpu.weight", "42")
        outcomes = acting.actuator.undo()
        assert [outcome.status for outcome in outcomes] == [Status.FOREIGN], outcomes
        assert batch.read("cpu.weight") == "42"


def test_a_cgroup_without_the_cpu_controller_is_refused_and_told_how_to_get_it(tmp_path: Path) -> None:
    with group("batch") as batch, bench(tmp_path) as acting:
        job = batch.child("job")
        (outcome,) = acting.apply(Set(Control.CPU_WEIGHT, CgroupPlace(job.name), 1))
        assert outcome.status is Status.REFUSED
        assert "write +cpu to cgroup.subtree_control of its parents" in outcome.detail
        batch.write("cgroup.subtree_control", "+cpu")
        (outcome,) = acting.apply(Set(Control.CPU_WEIGHT, CgroupPlace(job.name), 1))
        assert outcome.status is Status.APPLIED, "what was told did not help"
        assert job.read("cpu.weight") == "1"
        assert all(outcome.status is Status.APPLIED for outcome in acting.actuator.undo())
        assert job.read("cpu.weight") == "100"


def test_the_root_has_no_weight_and_is_refused(tmp_path: Path) -> None:
    with bench(tmp_path) as acting:
        (outcome,) = acting.apply(Set(Control.CPU_WEIGHT, CgroupPlace("/"), 1))
        assert outcome.status is Status.REFUSED, outcome


def test_a_removed_cgroup_is_a_value_also_for_undo(tmp_path: Path) -> None:
    with bench(tmp_path) as acting:
        with group("batch") as batch:
            acting.apply(Set(Control.CPU_WEIGHT, CgroupPlace(batch.name), 1))
        assert not batch.path.exists()
        (outcome,) = acting.apply(Set(Control.CPU_WEIGHT, CgroupPlace(batch.name), 1))
        assert outcome.status is Status.VANISHED
        acting.actuator.undo()
        assert acting.ledger.outstanding() == ()


def test_a_cgroup_that_was_made_anew_under_the_same_name_is_not_touched_by_undo(tmp_path: Path) -> None:
    with bench(tmp_path) as acting:
        with group("batch") as batch:
            acting.apply(Set(Control.CPU_WEIGHT, CgroupPlace(batch.name), 1))
        with group("batch") as batch:
            batch.write("cpu.weight", "250")
            acting.actuator.undo()
            assert batch.read("cpu.weight") == "250"
            assert acting.ledger.outstanding() == ()


def test_a_threaded_cgroup_has_a_weight_of_its_own_that_is_set_and_comes_back(tmp_path: Path) -> None:
    with group("domain") as domain, bench(tmp_path) as acting, Puppet() as puppet:
        part = domain.child("part")
        part.write("cgroup.type", "threaded")
        domain.write("cgroup.subtree_control", "+cpu")
        domain.take(puppet.pid)
        part.write("cgroup.threads", str(puppet.thread()))
        assert domain.read("cgroup.type") == "domain threaded"
        (outcome,) = acting.apply(Set(Control.CPU_WEIGHT, CgroupPlace(part.name), 7))
        assert outcome.status is Status.APPLIED, outcome
        assert (part.read("cpu.weight"), domain.read("cpu.weight")) == ("7", "100")
        (outcome,) = acting.apply(Set(Control.NICE, ProcessPlace(puppet.id), 5))  # reaches threads in both cgroups
        assert (outcome.status, outcome.changed) == (Status.APPLIED, 2)
        assert all(outcome.status is Status.APPLIED for outcome in acting.actuator.undo())
        assert part.read("cpu.weight") == "100"
        puppet.end()


def test_idle_of_a_cgroup_moves_the_cpu_split_and_undo_ends_it(tmp_path: Path) -> None:
    with group("service") as service, group("batch") as batch, bench(tmp_path) as acting:
        with work(HOG, service, [1]), work(HOG, batch, [1], count=2):
            (outcome,) = acting.apply(Set(Control.CPU_IDLE, CgroupPlace(batch.name), 1))
            assert outcome.status is Status.APPLIED, outcome
            assert batch.read("cpu.idle") == "1"
            idle = split(service, batch, 4_000_000)
            (outcome,) = acting.apply(Restore(Control.CPU_IDLE, CgroupPlace(batch.name)))
            assert outcome.status is Status.APPLIED, outcome
        assert (batch.read("cpu.idle"), batch.read("cpu.weight")) == ("0", "100")
        assert acting.ledger.outstanding() == ()
    print(f"split with the batch idle {idle:.1f}")
    assert idle > 20


def test_a_weight_that_the_kernel_would_forget_while_idle_is_kept_by_refusing_idle(tmp_path: Path) -> None:
    with group("batch") as batch, bench(tmp_path) as acting:
        batch.write("cpu.weight", "40")
        (outcome,) = acting.apply(Set(Control.CPU_IDLE, CgroupPlace(batch.name), 1))
        assert outcome.status is Status.REFUSED, outcome
        assert "40" in outcome.detail
        assert (batch.read("cpu.idle"), batch.read("cpu.weight")) == ("0", "40")
        assert acting.ledger.outstanding() == ()
        batch.write("cpu.idle", "1")
        batch.write("cpu.idle", "0")
        assert batch.read("cpu.weight") == "100", "this kernel keeps it: the refusal is not needed any more"


def test_the_weight_of_a_cgroup_that_somebody_made_idle_is_left_alone(tmp_path: Path) -> None:
    with group("batch") as batch, bench(tmp_path) as acting:
        batch.write("cpu.idle", "1")
        (outcome,) = acting.apply(Set(Control.CPU_WEIGHT, CgroupPlace(batch.name), 1))
        assert outcome.status is Status.REFUSED, outcome
        assert "cpu.idle" in outcome.detail
        assert batch.read("cpu.idle") == "1"


def as_user(uid: int, what: Callable[[Path], Any]) -> Any:
    """What a function gives that another user runs, in a directory of his own."""
    directory = Path(tempfile.mkdtemp())
    os.chown(directory, uid, uid)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            told = {"answer": what(directory)}
        except BaseException:
            told = {"error": traceback.format_exc()}
        os.write(write, json.dumps(told).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        told = json.load(file)
    os.waitpid(pid, 0)
    shutil.rmtree(directory)
    assert "error" not in told, told["error"]
    return told["answer"]


def test_a_user_sets_weights_in_the_part_delegated_to_him_and_is_told_why_not_above_it() -> None:
    with group("delegated") as delegated:
        for path in (delegated.path, *(delegated.path / f"cgroup.{name}" for name in ("procs", "threads", "subtree_control"))):
            os.chown(path, NOBODY, NOBODY)  # Documentation/admin-guide/cgroup-v2.rst, "Model of Delegation"
        home = delegated.child("home")
        os.chown(home.path / "cgroup.procs", NOBODY, NOBODY)
        os.chown(home.path, NOBODY, NOBODY)

        def attempt(directory: Path) -> dict[str, Any]:
            delegated.write("cgroup.subtree_control", "+cpu")
            job = delegated.child("job")
            with bench(directory) as acting:
                (own,) = acting.apply(Set(Control.CPU_WEIGHT, CgroupPlace(job.name), 3))
                inside = job.read("cpu.weight")
                (above,) = acting.apply(Set(Control.CPU_WEIGHT, CgroupPlace(delegated.name), 3))
                undone = [outcome.status for outcome in acting.actuator.undo()]
            facts = probe().cpu_cgroup
            return {
                "own": own.status,
                "inside": inside,
                "above": above.status,
                "words": above.detail,
                "undone": undone,
                "after": job.read("cpu.weight"),
                "place": [facts.version, facts.mount, facts.writable],
            }

        told = as_user(NOBODY, attempt)
        assert (told["own"], told["inside"]) == (Status.APPLIED, "3")
        assert told["above"] == Status.REFUSED
        assert "run as root, or have the cgroup delegated to this user" in told["words"]
        assert (told["undone"], told["after"]) == ([Status.APPLIED], "100")
        assert told["place"] == ["v2", str(UNIFIED), False], "not in the delegated part himself"
        assert delegated.read("cpu.weight") == "100"


def test_a_user_who_is_in_the_delegated_part_can_write_there() -> None:
    with group("delegated") as delegated:
        os.chown(delegated.path, NOBODY, NOBODY)

        def found(_: Path) -> list[Any]:
            facts = probe().cpu_cgroup
            return [facts.version, facts.mount, facts.writable]

        own = Path("/proc/self/cgroup").read_text().strip().removeprefix("0::")
        delegated.take(os.getpid())
        try:
            assert as_user(NOBODY, found) == ["v2", str(UNIFIED), True]
        finally:
            Group(UNIFIED / own.lstrip("/")).take(os.getpid())


def test_a_slice_that_this_kernel_does_not_have_is_said_and_leaves_nothing_behind(tmp_path: Path) -> None:
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    with Puppet() as puppet, bench(tmp_path) as acting:
        (outcome,) = acting.apply(Set(Control.SLICE, ProcessPlace(puppet.id), 100_000))
        if release >= (6, 12):
            assert outcome.status is Status.APPLIED, outcome
            assert all(outcome.status is Status.APPLIED for outcome in acting.actuator.undo())
        else:
            assert outcome.status is Status.REFUSED, outcome
            assert "they need Linux 6.12 or newer" in outcome.detail
        assert acting.ledger.outstanding() == ()
        assert os.sched_getscheduler(puppet.pid) == os.SCHED_OTHER
        assert os.getpriority(os.PRIO_PROCESS, puppet.pid) == 0
