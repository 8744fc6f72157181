"""Nobody's process is demoted for another user's unless an administrator says so: scenes of two users, through the whole engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import pytest

from nicety.models.identity import ProcId
from nicety.models.records import Class
from nicety.scheduler.config.sections import parse
from nicety.scheduler.decide.engine import Engine
from nicety.scheduler.decide.policies.priority.contention import VICTIMS
from nicety.scheduler.decision import Decision, Group, Machine, Member, Note, Outcome, Restore, Set, Shared, Tick, Topology, Verdict
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import CgroupPlace, DecisionPlace, ProcessPlace, SessionPlace, cgroup_of, process_of
from nicety.scheduler.testing.ticks import a_group, a_machine, a_member, a_tick

ROOT, WEB, POSTGRES, ALICE, BOB, DYNAMIC = 0, 33, 110, 1000, 1001, 61500
UNKNOWN = None

Owner = int | None


def service(*owners: Owner, name: str = "service", pid: int = 10, cgroup: str = "/", **changes: object) -> Group:
    """A group that waits a third of the time that it wants a CPU; a process in a session of its own for each owner."""
    members = [a_member(pid + at, cgroup=cgroup, owner=owner) for at, owner in enumerate(owners)]
    return msgspec.structs.replace(a_group(name, Class.INTERACTIVE, members, cpu=0.4, wait=0.2), **changes)


def hogs(
    *owners: Owner, name: str = "hogs", pid: int = 20, cgroup: str = "/", cpu: float = 1.6, session: int = 0, **changes: object
) -> Group:
    """A group that takes most of the machine."""
    members = [a_member(pid + at, session=session or pid, cgroup=cgroup, owner=owner) for at, owner in enumerate(owners)]
    return msgspec.structs.replace(a_group(name, Class.BATCH, members, cpu=cpu, wait=2.0), **changes)


FULL = a_machine(busy=2.0)


class World:
    """An engine whose decisions are all carried out."""

    def __init__(self, text: str = "", topology: Topology = Topology()) -> None:  # noqa: B008  # a constant
        self.engine = Engine(
            parse(f"{text}\n[priority]\nslice_ms = 0\n" if "[priority]" not in text else text), "cafe0000", None, topology
        )
        self.outcomes: list[Outcome] = []
        self.notes: Sequence[Note] = ()
        self.seq = 0

    def step(self, *groups: Group, machine: Machine = FULL, shared: Sequence[Shared] = ()) -> list[Decision]:
        tick = a_tick(self.seq, machine=machine, groups=groups, outcomes=self.outcomes, shared=tuple(shared))
        return self.decide(tick)

    def decide(self, tick: Tick) -> list[Decision]:
        verdict: Verdict = self.engine.step(tick)
        self.engine.validate()
        self.outcomes = [Outcome(each.id, Status.APPLIED, each.target, "", 1) for each in verdict.decisions]
        self.notes = verdict.notes
        self.seq += 1
        return list(verdict.decisions)


def changed(decisions: Sequence[Decision]) -> list[tuple[Control, object]]:
    """What was set, and where: a cgroup's path or a pid."""
    found = list[tuple[Control, object]]()
    for each in decisions:
        if isinstance(each.action, Set):
            process = process_of(each.action.on)
            found.append((each.action.control, cgroup_of(each.action.on) if process is None else process.pid))
    return found


def of(on: DecisionPlace, *owners: Owner) -> Shared:
    return Shared(on, owners)


DEMOTED = [(Control.AUTOGROUP, 20)]
LEFT: list[tuple[Control, object]] = []


@dataclass
class Scene:
    """A service that waits beside hogs, and what may be done to the hogs."""

    service: Group
    hogs: Group
    done: Sequence[tuple[Control, object]]
    config: str = ""
    shared: list[Shared] = field(default_factory=list)
    machine: Machine = FULL


CGROUPS = a_machine(busy=2.0, cpu_cgroup="v2")

SCENES = {
    "a user's own batch work": Scene(service(ALICE), hogs(ALICE), DEMOTED),
    "another user's": Scene(service(ALICE), hogs(BOB), LEFT),
    "root's, for a user": Scene(service(ALICE), hogs(ROOT), LEFT),
    "a user's, for root": Scene(service(ROOT), hogs(ALICE), DEMOTED),
    "a user's, for a service of the system": Scene(service(WEB), hogs(ALICE), DEMOTED),
    "a user's, for a service with DynamicUser": Scene(service(DYNAMIC), hogs(ALICE), DEMOTED),
    "the system's, for a user": Scene(service(ALICE), hogs(POSTGRES), LEFT),
    "the system's, for another of the system": Scene(service(WEB), hogs(POSTGRES), DEMOTED),
    "of an unknown user, for a user": Scene(service(ALICE), hogs(UNKNOWN), LEFT),
    "of an unknown user, for another one": Scene(service(UNKNOWN), hogs(UNKNOWN), LEFT),
    "of two users, for one of them": Scene(service(ALICE), hogs(ALICE, BOB), LEFT),
    "of two users, for root": Scene(service(ROOT), hogs(ALICE, BOB), DEMOTED),
    "for a service of two users": Scene(service(ALICE, BOB), hogs(BOB), LEFT),
    "for a unit with a main process of root": Scene(service(ROOT, ALICE), hogs(ALICE), DEMOTED),
    "of a user and root, for the user": Scene(service(ALICE), hogs(ALICE, ROOT), LEFT),
    "one team": Scene(service(ALICE), hogs(BOB), DEMOTED, "[tenants]\napart = false\n"),
    "that may be demoted for anybody": Scene(service(ALICE), hogs(BOB, yields=True), DEMOTED),
    "for what may be helped at anybody's expense": Scene(service(ALICE, favoured=True), hogs(BOB), DEMOTED),
    "that may be demoted, of root": Scene(service(ALICE), hogs(ROOT, yields=True), DEMOTED),
    "where a user of the system is called a user's": Scene(service(WEB), hogs(ALICE), LEFT, "[tenants]\nsystem_uid_max = 0\n"),
    "in a cgroup with another user's process": Scene(
        service(ALICE, cgroup="/web"),
        hogs(ALICE, cgroup="/jobs"),
        [(Control.NICE, 20)],
        shared=[of(CgroupPlace("/jobs"), ALICE, BOB)],
        machine=CGROUPS,
    ),
    "in a cgroup with another user's process, for root": Scene(
        service(ROOT, cgroup="/web"),
        hogs(ALICE, cgroup="/jobs"),
        [(Control.CPU_WEIGHT, "/jobs")],
        shared=[of(CgroupPlace("/jobs"), ALICE, BOB)],
        machine=CGROUPS,
    ),
    "in a session with another user's process": Scene(
        service(ALICE), hogs(ALICE), [(Control.NICE, 20)], shared=[of(SessionPlace(20, ProcId(20, 20)), ALICE, BOB)]
    ),
    "that may be demoted, in a session with a process that may not": Scene(
        service(ALICE), hogs(BOB, yields=True), [(Control.NICE, 20)], shared=[of(SessionPlace(20, ProcId(20, 20)), ROOT)]
    ),
    "that may be demoted, in a session with a process of the one who waits": Scene(
        service(ALICE), hogs(BOB, yields=True), DEMOTED, shared=[of(SessionPlace(20, ProcId(20, 20)), ALICE)]
    ),
}


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES.keys())
def test_whose_batch_work_is_demoted_for_whom(scene: Scene) -> None:
    world, done = World(scene.config), list[tuple[Control, object]]()
    for _ in range(4):
        for found in changed(world.step(scene.service, scene.hogs, machine=scene.machine, shared=scene.shared)):
            done.append(found)
    assert done == scene.done


def test_there_are_at_least_twenty_scenes_of_both_kinds() -> None:
    left = sum(not scene.done for scene in SCENES.values())
    assert len(SCENES) >= 20
    assert left >= 8
    assert len(SCENES) - left >= 8


def test_what_was_left_alone_is_a_note_with_both_users_for_a_minute() -> None:
    world = World()
    world.step(service(ALICE), hogs(BOB))
    (note,) = world.notes
    assert note.topic == "tenants service"
    assert note.figures == {"victim": "service", "contender": "hogs", "contender_cpu_cores": 1.6}
    assert note.text.startswith("service of user 1000 waits for a CPU beside hogs of user 1001, which is left alone")
    calm = service(ALICE, wait=0.0)
    for _ in range(60):
        world.step(calm, hogs(BOB))
        assert [each.topic for each in world.notes] == ["tenants service"], "one that comes and goes is one note"
    world.step(calm, hogs(BOB))
    assert world.notes == ()


@pytest.mark.parametrize("idle", [0.2, 0.0])
def test_nothing_is_noted_of_another_users_work_that_could_not_help(idle: float) -> None:
    world = World()
    world.step(service(ALICE), hogs(ALICE), hogs(BOB, name="little", pid=40, cpu=idle / 10))
    assert world.notes == ()


def test_a_decision_says_which_contender_was_left_to_another_user() -> None:
    (decision,) = World().step(service(ALICE), hogs(ALICE, cpu=0.8), hogs(BOB, name="theirs", pid=30, cpu=0.8))
    assert decision.target == "group hogs session 20"
    assert "theirs: it belongs to user 1001, service to user 1000; [tenants] keeps them apart" in decision.why.rejected


def test_each_user_is_helped_by_what_is_their_own() -> None:
    groups = [
        service(ALICE, name="alice", pid=10),
        service(BOB, name="bob", pid=15),
        hogs(ALICE, name="of alice", pid=20, cpu=0.6),
        hogs(BOB, name="of bob", pid=30, cpu=0.6),
    ]
    decisions = World().step(*groups)
    assert [(each.why.figures["contender"], each.why.figures["victim"]) for each in decisions] == [
        ("of alice", "alice"),
        ("of bob", "bob"),
    ]


def test_all_users_together_supply_what_root_lacks() -> None:
    three = [hogs(user, name=f"of {user}", pid=user, cpu=0.5) for user in (ALICE, BOB, 1002)]
    starved = service(ROOT, cpu=0.1, wait=1.5)
    assert len(changed(World().step(starved, *three))) == 3, "each alone frees a third of what is lacking"


def test_one_user_who_still_waits_keeps_nobody_elses_work_demoted() -> None:
    def groups(mine: float) -> list[Group]:
        return [
            service(ALICE, name="alice", pid=10, wait=mine),
            service(BOB, name="bob", pid=15),
            hogs(ALICE, name="of alice", pid=20, cpu=0.6, demand=0.6),
            hogs(BOB, name="of bob", pid=30, cpu=0.6),
        ]

    world = World("[priority]\nslice_ms = 0\nrelease_after = 5\n[guard]\ncooldown = 0\n")
    assert len(changed(world.step(*groups(0.2)))) == 2
    given_back = list[str]()
    for _ in range(10):  # bob's service waits as before, alice's does not, and her batch work fits beside it
        decisions = world.step(*groups(0.0), machine=a_machine(cpus=4, busy=3.0))
        given_back += [each.target for each in decisions if isinstance(each.action, Restore)]
    assert "group of alice session 20" in given_back


def test_the_worst_victims_of_one_user_take_no_turn_from_anothers() -> None:
    many = [service(BOB, name=f"bob {at}", pid=100 + at, wait=2.0) for at in range(2 * VICTIMS)]
    decisions = World().step(*many, service(ALICE, name="alice"), hogs(ALICE))
    assert [each.why.figures["victim"] for each in decisions] == ["alice"]


def test_only_who_has_something_demoted_gets_short_slices() -> None:
    world = World("[priority]\nslice_ms = 0.1\n")
    groups = [service(ALICE, name="alice", pid=10), service(BOB, name="bob", pid=15), hogs(ALICE)]
    done = [found for _ in range(3) for found in changed(world.step(*groups))]
    assert (Control.SLICE, 10) in done
    assert (Control.SLICE, 15) not in done


def test_weights_part_a_users_batch_from_that_users_services_only() -> None:
    groups = [
        service(ALICE, name="alice", pid=10, cgroup="/alice/web"),
        service(BOB, name="bob", pid=15, cgroup="/bob/web", wait=0.0),
        hogs(ALICE, cgroup="/alice/jobs"),
    ]
    assert changed(World().step(*groups, machine=CGROUPS)) == [(Control.CPU_WEIGHT, "/alice/jobs")], "and not each by nice too"


def test_a_swarm_with_a_descendant_of_another_user_is_not_fenced_in() -> None:
    members = [Member(ProcId(20 + at, 20 + at), 10, "/a", 0, 10 if at == 0 else 20, owner=ALICE) for at in range(4)]
    swarm = msgspec.structs.replace(a_group("make", Class.BATCH, members, cpu=1.6, wait=2.0), brief=1.0)
    theirs = service(ALICE, cgroup="/a")
    world = World()
    fenced = [found for _ in range(3) for found in changed(world.step(theirs, swarm, machine=CGROUPS))]
    assert (Control.FENCE, 20) in fenced
    world, beside = World(), [of(ProcessPlace(ProcId(20, 20)), ALICE, BOB)]
    found = [found for _ in range(3) for found in changed(world.step(theirs, swarm, machine=CGROUPS, shared=beside))]
    assert found
    assert {control for control, _ in found} == {Control.NICE}


def test_a_demotion_ends_when_a_process_of_another_user_joins() -> None:
    world = World()
    assert changed(world.step(service(ALICE), hogs(ALICE))) == DEMOTED
    joined = [world.step(service(ALICE), hogs(ALICE, BOB)) for _ in range(2)]
    assert [each.target for decisions in joined for each in decisions if isinstance(each.action, Restore)] == [
        "group hogs session 20"
    ]
    assert not [found for decisions in joined for found in changed(decisions)]


def test_a_demotion_ends_with_the_rule_that_allowed_it() -> None:
    before = World("[tenants]\napart = false\n")
    assert changed(before.step(service(ALICE), hogs(BOB))) == DEMOTED
    after = World()
    after.engine = Engine.resume(parse(""), "cafe0001", before.engine.memory())
    after.seq = before.seq
    restored = [
        each.target for _ in range(20) for each in after.step(service(ALICE), hogs(BOB)) if isinstance(each.action, Restore)
    ]
    assert restored == ["group hogs session 20"]


EIGHT = Topology(
    tuple(range(8)), tuple(range(8)), (), ((0, 1), (2, 3), (4, 5), (6, 7)), ((0, 1, 2, 3), (4, 5, 6, 7)), (tuple(range(8)),)
)


@pytest.mark.parametrize(("owner", "confined"), [(ALICE, True), (BOB, False)])
def test_nobody_is_confined_for_another_user(owner: int, confined: bool) -> None:
    world = World("[placement]\nenabled = true\n[priority]\nenabled = false\n", EIGHT)
    groups = [service(ALICE, cpu=2.0, wait=0.5, demand=2.5), hogs(owner, cpu=3.0, wait=0.0, demand=3.0)]
    done = [found for _ in range(5) for found in changed(world.step(*groups, machine=a_machine(cpus=8, busy=7.0)))]
    assert any(control is Control.AFFINITY for control, _ in done) == confined


def test_a_demotion_ends_when_a_process_of_another_user_joins_the_one_who_waits() -> None:
    world, four = World(), a_machine(cpus=4, busy=3.0)
    rest = hogs(ALICE, demand=1.6), service(ALICE, name="other", pid=50, wait=0.0)  # all fit: nothing is foreseen
    assert changed(world.step(service(ALICE), *rest, machine=four)) == DEMOTED
    joined = [world.step(service(ALICE, BOB), *rest, machine=four) for _ in range(2)]
    assert [each.target for decisions in joined for each in decisions if isinstance(each.action, Restore)] == [
        "group hogs session 20"
    ]
