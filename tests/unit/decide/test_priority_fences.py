"""Swarms inside one cgroup: who gets a cgroup of its own, who does not, and when it is taken away again."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec
import pytest

from nicety.models.identity import ProcId
from nicety.models.records import Class
from nicety.scheduler.config.sections import Config, PoolConfig
from nicety.scheduler.config.sections import Priority as Section
from nicety.scheduler.decide.engine import Engine
from nicety.scheduler.decide.policies.policy import Aim, Impact, Metric, Proposal, Result
from nicety.scheduler.decide.policies.priority.held import Held
from nicety.scheduler.decide.policies.priority.memory import PriorityMemory
from nicety.scheduler.decide.policies.priority.priority import Priority
from nicety.scheduler.decide.policies.priority.swarms import MIXED_SECONDS, SWARM_SECONDS
from nicety.scheduler.decision import Decision, Effect, Group, Machine, Member, Restore, Set, Tick
from nicety.scheduler.explain.gathered import describe
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import CgroupPlace, ProcessPlace, process_of
from nicety.scheduler.testing.machine import FakeHogs, FakeMachine, FakeService
from nicety.scheduler.testing.policies import admitted
from nicety.scheduler.testing.ticks import a_group, a_machine, a_member, a_pool, a_tick

FULL = a_machine(busy=2.0)
WEIGHT = (0, 0, 0, 1)
OWN = a_group("service", Class.INTERACTIVE, [a_member(10, session=10)], cpu=0.3, wait=0.6)


def policy(pools: Sequence[str] = (), **changes: object) -> Priority:
    section = Section(**{"slice_ms": 0.0, **changes})  # type: ignore[arg-type]
    named = {name: PoolConfig(kind="command", command=["x"]) for name in pools}
    return Priority(Config(priority=section, pools=named), PriorityMemory())


def child(pid: int, parent: int, nice: int = 0) -> Member:
    return Member(ProcId(pid, pid), 10, "/", nice, parent, owner=0)


MAKE, SHELL = child(100, 1), child(101, 100)


def swarm(*members: Member, brief: float = 1.2, cpu: float = 1.5, name: str = "build") -> Group:
    return msgspec.structs.replace(a_group(name, Class.BATCH, members, cpu=cpu, wait=1.0), brief=brief)


def tick(seq: int, *groups: Group, machine: Machine = FULL, **changes: object) -> Tick:
    return a_tick(seq, machine=machine, groups=groups, **changes)  # type: ignore[arg-type]


def step(demotes: Priority, now: Tick, status: Status = Status.APPLIED, inside: Sequence[int] = ()) -> list[Decision]:
    """Propose, admit everything, and tell that it was done. `inside`: pids of those that are in a fence already."""
    decisions = admitted(demotes, now)
    for decision in decisions:
        action = decision.action
        fenced = isinstance(action, Set) and (process := process_of(action.on)) is not None and process.pid in inside
        demotes.learn(Result(action, decision.target, Status.UNCHANGED if fenced else status, now.at))
    return decisions


def sets(decisions: Sequence[Decision | Proposal[Held]]) -> list[tuple[Control, int, object]]:
    return [
        (d.action.control, process.pid, d.action.value)
        for d in decisions
        if isinstance(d.action, Set) and (process := process_of(d.action.on)) is not None
    ]


def returned(decisions: Sequence[Decision]) -> list[tuple[Control, int, str]]:
    return [
        (d.action.control, process.pid, d.why.rule)
        for d in decisions
        if isinstance(d.action, Restore) and (process := process_of(d.action.on)) is not None
    ]


def test_the_root_of_a_swarm_gets_a_cgroup_of_its_own_and_its_children_no_decision() -> None:
    (decision,) = policy().propose(tick(0, OWN, swarm(MAKE, SHELL, child(102, 101), child(103, 100))))
    assert decision.action == Set(Control.FENCE, ProcessPlace(ProcId(100, 100)), WEIGHT, 0)
    assert describe(decision.action) == "fence in: weight 1 instead of 100"
    assert decision.why.text.endswith(
        "group build pid 100 and its descendants into a cgroup of their own with weight 1 instead of 100."
    )
    figures = decision.why.figures
    assert (figures["mechanism"], figures["value"], figures["level"]) == ("fence", 1, 0)
    assert "nice of each process: it slows a swarm less than the weight of a cgroup does" in decision.why.rejected


def test_the_weight_is_as_configured() -> None:
    assert sets(policy(weight=7).propose(tick(0, OWN, swarm(MAKE)))) == [(Control.FENCE, 100, (0, 0, 0, 7))]


@pytest.mark.parametrize(
    ("group", "machine", "pools"),
    [
        (swarm(MAKE, SHELL, brief=0.1), FULL, ()),
        (swarm(MAKE, SHELL, brief=0.0, cpu=1.5), FULL, ()),
        (swarm(MAKE, SHELL), a_machine(busy=2.0, cpu_cgroup=""), ()),
        (swarm(MAKE, SHELL), FULL, ("build",)),
    ],
    ids=["most of it lasts", "nothing comes and goes", "no hierarchy to write", "a pool"],
)
def test_else_each_process_is_niced(group: Group, machine: Machine, pools: tuple[str, ...]) -> None:
    found = sets(policy(pools).propose(tick(0, OWN, group, machine=machine)))
    assert {control for control, _, _ in found} == {Control.NICE}
    assert 100 in {pid for _, pid, _ in found}


def test_across_cgroups_or_sessions_the_weight_or_nice_of_those_comes_first() -> None:
    apart = msgspec.structs.replace(MAKE, cgroup="/jobs")
    (decision,) = policy().propose(tick(0, OWN, swarm(apart)))
    assert decision.action == Set(Control.CPU_SHARES, CgroupPlace("/jobs"), 2, 1024)
    other = msgspec.structs.replace(MAKE, session=100)
    assert sets(policy().propose(tick(0, OWN, swarm(other)))) == [(Control.AUTOGROUP, 100, 19)]


def test_who_was_niced_by_somebody_is_left_alone_with_all_that_it_started() -> None:
    chosen = child(200, 1, nice=5)
    found = policy().propose(tick(0, OWN, swarm(MAKE, SHELL, chosen, child(201, 200, nice=5))))
    assert sets(found) == [(Control.FENCE, 100, WEIGHT)]


@pytest.mark.parametrize(
    ("others", "changes"),
    [
        ([a_group("db", Class.INTERACTIVE, [child(300, 102)])], {}),
        ([a_group("small", Class.BATCH, [child(300, 102)], cpu=0.001)], {}),
        ([a_group("web", Class.EXEMPT, [child(300, 102)])], {"pools": [a_pool("web", 1, first_pid=300)]}),
        ([], {"protected": (ProcId(102, 102),)}),
        ([], {"protected": (ProcId(100, 100),)}),
        ([], {"home": child(300, 102)}),
        ([], {"sheltered": (child(300, 102),)}),
    ],
    ids=["interactive", "batch that is not demoted", "neither", "protected", "protected itself", "nicety", "guard.protect"],
)
def test_a_swarm_that_would_take_others_along_is_niced_at_once_and_says_why(
    others: list[Group], changes: dict[str, object]
) -> None:
    demotes = policy()
    groups = (OWN, swarm(MAKE, SHELL, child(102, 101)), *others)
    decided = step(demotes, a_tick(0, machine=FULL, groups=groups, **changes))  # type: ignore[arg-type]
    assert {control for control, _, _ in sets(decided)} == {Control.NICE}
    assert any("a process that must not be demoted descends from it" in text for text in decided[0].why.rejected)


def test_who_descends_through_nobody_that_is_known_is_not_taken_along() -> None:
    other = a_group("db", Class.INTERACTIVE, [child(300, 299)])
    assert sets(policy().propose(tick(0, OWN, other, swarm(MAKE)))) == [(Control.FENCE, 100, WEIGHT)]


def test_a_fenced_swarm_that_starts_a_service_is_let_out_at_once_and_not_fenced_in_again_for_a_while() -> None:
    demotes, build = policy(), swarm(MAKE, SHELL)
    assert sets(step(demotes, tick(0, OWN, build))) == [(Control.FENCE, 100, WEIGHT)]
    decided = step(demotes, tick(1, OWN, build, a_group("db", Class.INTERACTIVE, [child(300, 101)])))
    assert returned(decided) == [(Control.FENCE, 100, "mechanism changed")]
    assert [(control, pid) for control, pid, _ in sets(decided)] == [(Control.NICE, 100), (Control.NICE, 101)]
    assert "group build pid 100 and its descendants leave their fence" in decided[0].why.text
    quiet = [step(demotes, tick(seq, OWN, build)) for seq in range(2, 2 + int(MIXED_SECONDS))]
    assert [decisions for decisions in quiet if decisions] == []
    assert (Control.FENCE, 100, WEIGHT) in sets(step(demotes, tick(2 + int(MIXED_SECONDS), OWN, build)))


def test_a_swarm_stays_fenced_in_while_it_links_and_is_not_eased() -> None:
    demotes = policy(ease_after=5.0)
    step(demotes, tick(0, OWN, swarm(MAKE)))
    calm = a_group("service", Class.INTERACTIVE, [a_member(10, session=10)], cpu=0.6, wait=0.001)
    assert [step(demotes, tick(seq, calm, swarm(MAKE, SHELL, brief=0.0))) for seq in range(1, 40)] == [[]] * 39
    assert demotes.memory.contention.level("") > 0
    assert [held.value for held in demotes.memory.held.values()] == [WEIGHT]


def test_who_came_a_moment_ago_and_has_started_nothing_gets_no_cgroup() -> None:
    demotes = policy()
    assert len(step(demotes, tick(0, OWN, swarm(MAKE)))) == 1
    young = child(150, 1)
    assert step(demotes, tick(1, OWN, swarm(MAKE, young))) == []
    assert sets(step(demotes, tick(2, OWN, swarm(MAKE, young)))) == [(Control.FENCE, 150, WEIGHT)], "it lasts"


def test_a_fence_is_taken_away_when_its_root_has_ended_and_the_survivors_get_their_own_a_tick_later() -> None:
    demotes, left = policy(), child(101, 1)
    step(demotes, tick(0, OWN, swarm(MAKE, SHELL)))
    decided = step(demotes, tick(1, OWN, swarm(left)))
    assert (returned(decided), sets(decided)) == ([(Control.FENCE, 100, "root gone")], [])
    assert sets(step(demotes, tick(2, OWN, swarm(left)))) == [(Control.FENCE, 101, WEIGHT)]
    decided = step(demotes, tick(3, OWN))
    assert returned(decided) == [(Control.FENCE, 101, "contender gone")]
    assert demotes.memory.held == {}


def test_a_fence_whose_restore_failed_is_asked_for_again() -> None:
    demotes = policy()
    step(demotes, tick(0, OWN, swarm(MAKE, SHELL)))
    for seq in (1, 2):
        decided = step(demotes, tick(seq, OWN, swarm(child(101, 1))), status=Status.BLOCKED)
        assert (returned(decided), sets(decided)) == ([(Control.FENCE, 100, "root gone")], [])


def test_an_orphan_that_is_in_the_fence_already_has_nothing_to_give_back_and_is_looked_at_anew_when_that_is_gone() -> None:
    demotes, orphan = policy(), child(101, 1)
    step(demotes, tick(0, OWN, swarm(MAKE, SHELL)))
    decided = step(demotes, tick(1, OWN, swarm(MAKE, orphan)), inside=[101])
    assert sets(decided) == [(Control.FENCE, 101, WEIGHT)]
    assert step(demotes, tick(2, OWN, swarm(MAKE, orphan))) == []
    assert demotes.memory.strikes.strikes == {}
    assert returned(step(demotes, tick(3, OWN, swarm(orphan)))) == [(Control.FENCE, 100, "root gone")]
    assert sets(step(demotes, tick(4, OWN, swarm(orphan)))) == [(Control.FENCE, 101, WEIGHT)], "it came out with the others"
    other = policy()
    step(other, tick(0, OWN, swarm(MAKE, SHELL)))
    step(other, tick(1, OWN, swarm(MAKE, orphan)), inside=[101])
    assert returned(step(other, tick(2, OWN))) == [(Control.FENCE, 100, "contender gone")], "one fence"
    assert other.memory.held == {}


def test_where_no_cgroup_may_be_made_each_process_is_niced_in_the_next_tick() -> None:
    demotes, build = policy(effect_after=3.0), swarm(MAKE, SHELL)
    asked = [{control for control, _, _ in sets(step(demotes, tick(seq, OWN, build), Status.REFUSED))} for seq in range(2)]
    assert asked == [{Control.FENCE}, {Control.NICE}]


def test_a_swarm_is_one_for_a_while_after_its_children_were_brief() -> None:
    demotes = policy()
    none = msgspec.structs.replace(swarm(MAKE, SHELL), class_=Class.EXEMPT, members=())
    step(demotes, tick(0, OWN, none))  # not known as batch work yet
    compiles = swarm(MAKE, SHELL, brief=0.1)  # each for longer than a tick
    assert sets(step(demotes, tick(1, OWN, compiles))) == [(Control.FENCE, 100, WEIGHT)]
    later = policy()
    step(later, tick(0, OWN, none))
    decided = sets(step(later, tick(round(SWARM_SECONDS) + 1, OWN, compiles)))
    assert {control for control, _, _ in decided} == {Control.NICE}


def test_a_fence_without_effect_twice_gives_way_to_nice() -> None:
    build = swarm(MAKE, SHELL)
    demotes = policy()
    step(demotes, tick(0, OWN, build))
    for seq in (3, 6):
        aim = Aim(Metric.WAIT, "service", 0.6, "build", Control.FENCE, back=False, goal=0.05)
        effect = Effect("s-0.0", "wait", 0.6, 0.6, 3, "no effect")
        demotes.measured([Impact(aim, effect, failed=True, final=False)], tick(seq, OWN, build))
    decided = step(demotes, tick(7, OWN, build))
    assert returned(decided) == [(Control.FENCE, 100, "mechanism changed")]
    assert {control for control, _, _ in sets(decided)} == {Control.NICE}
    assert "fence: 2 times refused or without effect on build" in decided[-1].why.rejected


def test_what_is_remembered_survives_json() -> None:
    demotes = policy()
    step(demotes, tick(0, OWN, swarm(MAKE)))
    again = msgspec.convert(json.loads(json.dumps(msgspec.to_builtins(demotes.memory))), PriorityMemory)
    assert again == demotes.memory
    assert step(Priority(Config(priority=Section(slice_ms=0.0)), again), tick(1, OWN, swarm(MAKE))) == []


def test_on_a_machine_the_swarm_is_fenced_in_it_helps_and_nothing_is_left_of_it() -> None:
    """The root is gone with all the others before contention is over. Each step is made once more from what was logged."""
    service, hogs = FakeService(session=10), FakeHogs(count=lambda t: 4 if t < 20 else 0, session=10, brief=0.9)
    machine = FakeMachine(seed=3, service=service, hogs=hogs)
    config = Config(priority=Section(slice_ms=0.0))
    engine, history = Engine(config, "cafe0001"), []
    for _ in range(60):
        memory = json.loads(json.dumps(engine.memory()))
        now = machine.tick()
        verdict = engine.step(now)
        assert Engine.resume(config, "cafe0001", memory).step(now) == verdict
        engine.validate()
        machine.apply(verdict.decisions)
        history.append((now, verdict))
    decisions = [decision for _, verdict in history for decision in verdict.decisions]
    assert sets(decisions) == [(Control.FENCE, 600, WEIGHT)]
    assert [(control, pid) for control, pid, _ in returned(decisions)] == [(Control.FENCE, 600)]
    (effect, *_) = [effect for _, verdict in history for effect in verdict.effects]
    assert (effect.decision, effect.verdict) == (decisions[0].id, "helped")
    assert machine.knobs == {}
