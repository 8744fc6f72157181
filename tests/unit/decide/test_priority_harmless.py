"""The priority policy on machines that nobody prepared: bystanders, what cannot be seen, quotas, swarms, and many places."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import msgspec
import pytest

from nicety.models.identity import ProcId
from nicety.models.records import Class
from nicety.scheduler.config.sections import Config
from nicety.scheduler.config.sections import Guard as GuardSection
from nicety.scheduler.config.sections import Priority as Section
from nicety.scheduler.decide.engine import Engine
from nicety.scheduler.decide.policies.policy import Result
from nicety.scheduler.decide.policies.priority.memory import PriorityMemory
from nicety.scheduler.decide.policies.priority.priority import Priority
from nicety.scheduler.decision import Decision, Group, Machine, Member, Outcome, Restore, Set, Tick, Verdict
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import process_of
from nicety.scheduler.testing.policies import admitted
from nicety.scheduler.testing.ticks import a_forecast, a_group, a_machine, a_member, a_tick

FULL = a_machine(busy=2.0)
UNGROUPED = a_machine(busy=2.0, cpu_cgroup="")


def policy(most: int = 32, **changes: object) -> Priority:
    section = Section(**{"slice_ms": 0.0, **changes})  # type: ignore[arg-type]
    return Priority(Config(priority=section, guard=GuardSection(changes_per_tick=most)), PriorityMemory())


def service(cpu: float = 0.1, wait: float = 0.5, name: str = "service", pid: int = 10, **changes: float) -> Group:
    return msgspec.structs.replace(a_group(name, Class.INTERACTIVE, [a_member(pid)], cpu=cpu, wait=wait), **changes)


def batch(name: str = "hogs", cpu: float = 1.6, wait: float = 2.0, pid: int = 20) -> Group:
    return a_group(name, Class.BATCH, [a_member(pid)], cpu=cpu, wait=wait)


def a_child(pid: int, parent: int, nice: int = 0, session: int = 10) -> Member:
    return msgspec.structs.replace(a_member(pid, session=session, nice=nice), parent=parent)


def step(demotes: Priority, tick: Tick, status: Status = Status.APPLIED) -> list[Decision]:
    """Propose, admit everything, and tell that it was done."""
    decisions = admitted(demotes, tick)
    for decision in decisions:
        demotes.learn(Result(decision.action, decision.target, status, tick.at))
    return decisions


def tick(seq: int, *groups: Group, machine: Machine = FULL, **changes: object) -> Tick:
    return a_tick(seq, machine=machine, groups=groups, **changes)  # type: ignore[arg-type]


def demoted(decisions: Sequence[Decision]) -> list[object]:
    return [d.why.figures["contender"] for d in decisions if isinstance(d.action, Set)]


def processes(decisions: Sequence[Decision]) -> list[int]:
    return [process.pid for d in decisions if isinstance(d.action, Set) and (process := process_of(d.action.on)) is not None]


def returned(decisions: Sequence[Decision]) -> list[str]:
    return [d.why.rule for d in decisions if isinstance(d.action, Restore)]


# --- only what can help ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [0.3, 1.0, 6.03])
def test_a_bystander_that_could_not_supply_what_is_missing_is_never_demoted(wait: float) -> None:
    """Of 0.054 cores, with waits that read as 1.73 cores of demand, on a machine whose CPUs somebody else uses up."""
    demotes = policy()
    bystander = batch("client", cpu=0.054, wait=1.68)
    said = [a_forecast("client", "cpu", 1.73), a_forecast("service", "cpu", 6.1)]
    for seq in range(120):
        busy = a_machine(busy=2.0 - 0.2 * (seq % 3))
        assert step(demotes, tick(seq, service(wait=wait), bystander, machine=busy, forecasts=said)) == []


def test_beside_a_hog_that_can_help_the_bystander_is_named_as_rejected() -> None:
    (decision,) = step(policy(), tick(0, service(wait=1.2), batch(), batch("client", 0.054, 1.7, pid=30)))
    assert demoted([decision]) == ["hogs"]
    figures = decision.why.figures
    assert [figures[name] for name in ("victim_lacks_cores", "contender_frees_cores", "all_free_cores")] == [1.2, 1.6, 1.6]
    assert "client: it uses 0.05 cores, too few to help service" in decision.why.rejected


@pytest.mark.parametrize(
    ("victim", "contenders"),
    [
        (service(0.2, 0.25), [batch(cpu=1.7)]),  # redis at 20 % in one session with four hogs
        (service(0.6, 1.2), [batch(cpu=1.3)]),  # and at 60 %
        (service(0.4, 0.05), [batch(cpu=1.0, wait=0.1)]),
        (service(0.0, 0.9), [batch(f"batch {number:02}", 0.1, 0.1, pid=20 + number) for number in range(20)]),
        (service(0.1, 2.0), [batch("xz", 1.9, 2.0)]),
    ],
    ids=["20 %", "60 %", "one hog", "twenty", "xz"],
)
def test_what_can_help_is_demoted(victim: Group, contenders: list[Group]) -> None:
    assert sorted(map(str, demoted(step(policy(), tick(0, victim, *contenders))))) == [group.name for group in contenders]


def test_what_comes_while_contention_is_not_over_is_measured_by_what_was_lacking() -> None:
    demotes = policy()
    step(demotes, tick(0, service(wait=1.0), batch()))
    calm = service(cpu=0.4, wait=0.001)  # nobody waits, and nobody is expected to
    assert step(demotes, tick(1, calm, batch(cpu=1.5, wait=0.0), batch("client", 0.054, 0.0, pid=30))) == []
    (decision,) = step(demotes, tick(2, calm, batch(cpu=1.0, wait=0.0), batch("build", 0.5, 0.0, pid=30)))
    assert (demoted([decision]), decision.why.rule) == (["build"], "contention not over")


def test_of_two_that_suffer_on_cpus_of_their_own_each_is_helped() -> None:
    def bound(group: Group, cpu: int) -> Group:
        members = tuple(msgspec.structs.replace(member, cpus=(cpu,)) for member in group.members)
        return msgspec.structs.replace(group, members=members)

    first, second = bound(service(), 0), bound(service(name="database", pid=11, wait=0.4), 1)
    decided = step(policy(), tick(0, first, second, bound(batch(cpu=0.9), 0), bound(batch("build", 0.9, pid=30), 1)))
    assert [(d.why.figures["contender"], d.why.figures["victim"]) for d in decided] == [("hogs", "service"), ("build", "database")]


def test_what_is_demoted_stays_so_though_it_uses_little_since() -> None:
    demotes = policy()
    step(demotes, tick(0, service(wait=1.0), batch()))
    assert [step(demotes, tick(seq, service(cpu=1.6, wait=0.2), batch(cpu=0.04))) for seq in range(1, 30)] == [[]] * 29


# --- pairs back off --------------------------------------------------------------------------------------------------------------


def relieve(demotes: Priority, at: int, target: str = "group hogs session 20") -> None:
    demotes.learn(Result(None, target, Status.RELIEVED, at))


def test_at_most_one_relief_of_a_pair_an_hour_and_fewer_later() -> None:
    demotes, reliefs = policy(), list[int]()
    for seq in range(4 * 3600):
        now = tick(seq, service(), batch())
        if demoted(step(demotes, now)):
            relieve(demotes, now.at)
            reliefs.append(seq)
    assert reliefs == [0, 3600, 10800]


def test_what_was_relieved_is_given_back_as_a_whole_and_for_nobody_demoted_again() -> None:
    demotes = policy()
    first, second = a_member(20, session=10), a_member(21, session=10)
    hogs = a_group("hogs", Class.BATCH, [first, second], cpu=1.6, wait=2.0)
    now = tick(0, service(), hogs)
    assert len(step(demotes, now)) == 2
    relieve(demotes, now.at, "group hogs pid 20")
    given = step(demotes, tick(1, service(), hogs))
    assert (returned(given), demotes.memory.held) == (["relieved"], {})
    assert step(demotes, tick(2, service(), service(wait=0.9, name="database", pid=11), hogs)) == []


@pytest.mark.parametrize(
    ("relieved", "said"),
    [
        (False, "hogs: its demotion for service had no effect, so it pauses for 60 s"),
        (True, "hogs: its demotion had to be put back, so it pauses for 3600 s"),
    ],
    ids=["for one", "for all"],
)
def test_what_is_left_alone_for_a_while_is_named_with_the_victim_if_it_is_only_for_that(relieved: bool, said: str) -> None:
    demotes, now = policy(), tick(0, service(), batch(), batch("build", 1.0, pid=30))
    if relieved:
        demotes.memory.pairs.relieved("hogs", now.at)
    else:
        demotes.memory.pairs.without_effect("service", "hogs", now.at)
    (decision,) = step(demotes, now)
    assert demoted([decision]) == ["build"]
    assert said in decision.why.rejected


PLAIN = Config(priority=Section(slice_ms=0.0))


def effects_of(engine: Engine, ticks: Iterable[Tick]) -> list[tuple[int, Verdict]]:
    """What an engine says whose decisions are all carried out."""
    history, outcomes = list[tuple[int, Verdict]](), tuple[Outcome, ...]()
    for each in ticks:
        verdict = engine.step(msgspec.structs.replace(each, outcomes=outcomes))
        engine.validate()
        outcomes = tuple(Outcome(d.id, Status.APPLIED, d.target, "", 1) for d in verdict.decisions)
        history.append((each.seq, verdict))
    return history


def in_vain(engine: Engine, first: int, last: int) -> Iterator[Tick]:
    """A service that waits for itself: demoted, the hogs use what is left, and it waits as long as before."""
    for seq in range(first, last):
        held = bool(engine.memory()["policies"]["priority"]["held"])
        yield tick(seq, service(cpu=1.4, wait=0.5), batch(cpu=0.15 if held else 0.6))


def test_a_demotion_that_moved_the_cpu_and_helped_nobody_is_given_back_and_tried_later_and_later() -> None:
    engine = Engine(PLAIN, "s")
    history = effects_of(engine, in_vain(engine, 0, 600))
    acts = [(seq, type(d.action), d.why.rule) for seq, verdict in history for d in verdict.decisions]
    assert [kind for _, kind, _ in acts[:6]] == [Set, Restore] * 3
    assert [rule for _, _, rule in acts[1:6:2]] == ["no effect"] * 3
    begins = [seq for seq, kind, _ in acts if kind is Set]
    assert [later - earlier for earlier, later in pairwise(begins)][:3] == [66, 126, 246]


def test_the_pause_is_remembered_by_a_resumed_engine() -> None:
    first = Engine(PLAIN, "s")
    effects_of(first, in_vain(first, 0, 20))
    assert len(first.pauses) == 1
    resumed = Engine.resume(PLAIN, "t", first.memory())
    history = effects_of(resumed, in_vain(resumed, 20, 90))
    assert [seq for seq, verdict in history for d in verdict.decisions if isinstance(d.action, Set)] == [66]


def test_the_effect_is_measured_on_the_victim_that_the_decision_names() -> None:
    """`quiet` waits a larger share of the little that it wants in the tick after, and is not what the demotion was for."""
    before = [service(cpu=0.4, wait=0.6), service(cpu=0.1, wait=0.0, name="quiet", pid=11), batch(cpu=1.5)]
    after = [service(cpu=0.8, wait=0.01), service(cpu=0.01, wait=0.1, name="quiet", pid=11), batch(cpu=1.1)]
    history = effects_of(Engine(PLAIN, "s"), [tick(seq, *(before if seq == 0 else after)) for seq in range(4)])
    (decision,), (effect,) = history[0][1].decisions, history[3][1].effects
    assert decision.why.figures["victim"] == "service"
    assert (effect.metric, effect.verdict) == ("wait of group service, cores per core of demand", "helped")


def test_a_further_member_whose_demotion_shows_no_effect_does_not_undo_what_works() -> None:
    """What is left of the wait has other causes: that says nothing of the demotions before."""
    engine = Engine(PLAIN, "s")
    ticks = []
    for seq in range(30):
        members = [a_member(20, session=10), *([a_member(21, session=10)] if seq >= 10 else [])]
        hogs = a_group("hogs", Class.BATCH, members, cpu=1.6 if seq == 0 else 1.0, wait=2.0)
        own = a_group("service", Class.INTERACTIVE, [a_member(10, session=10)], cpu=1.0, wait=1.0 if seq == 0 else 0.08)
        ticks.append(tick(seq, own, hogs))
    history = effects_of(engine, ticks)
    acts = [(seq, type(d.action)) for seq, verdict in history for d in verdict.decisions]
    assert acts == [(0, Set), (10, Set)]
    assert [effect.verdict for _, verdict in history for effect in verdict.effects] == ["helped", "no effect", "no effect"]
    assert engine.pauses == {}


def test_the_effect_of_a_restore_is_measured_on_the_victim_that_it_was_for() -> None:
    """Though another group waits a larger share of the little that it wants when the priority is given back."""
    over = [service(cpu=0.2, wait=0.0), service(cpu=0.01, wait=0.004, name="quiet", pid=11), batch(cpu=0.1, wait=0.0)]
    config = Config(priority=Section(slice_ms=0.0, release_after=2.0))
    ticks = [tick(0, service(wait=1.0), batch()), *(tick(seq, *over, machine=a_machine(busy=0.3)) for seq in range(1, 8))]
    history = effects_of(Engine(config, "s"), ticks)
    (given,) = [d for _, verdict in history for d in verdict.decisions if isinstance(d.action, Restore)]
    (metric,) = [effect.metric for _, verdict in history for effect in verdict.effects if effect.decision == given.id]
    assert metric == "wait of group service, cores per core of demand"


def test_many_decisions_about_a_group_have_one_effect() -> None:
    members = [a_member(pid, session=10) for pid in range(20, 40)]
    hogs = a_group("hogs", Class.BATCH, members, cpu=1.5, wait=2.0)
    own = a_group("service", Class.INTERACTIVE, [a_member(10, session=10)], cpu=0.4, wait=0.6)
    history = effects_of(Engine(PLAIN, "s"), [tick(seq, own, hogs) for seq in range(4)])
    assert len(history[0][1].decisions) == 20
    (effect,) = history[3][1].effects
    assert (effect.decision, effect.decisions, effect.verdict) == ("s-0.0", 20, "no effect")
    assert effect.others == tuple(f"s-0.{number}" for number in range(1, 20))


# --- what cannot be seen ---------------------------------------------------------------------------------------------------------


def hidden(unseen: float = 1.3) -> Machine:
    """Full, and so many cores of it are used by nobody visible."""
    return a_machine(busy=2.0, unseen=unseen)


def test_beside_unseen_hogs_nothing_is_demoted_and_that_is_noted() -> None:
    demotes, now = policy(), tick(0, service(wait=1.0), batch(cpu=0.6), machine=hidden())
    assert step(demotes, now) == []
    (note,) = demotes.notes(now)
    assert note.topic == "unseen"
    assert note.text.startswith("most of the pressure comes from processes that nicety cannot see")
    assert note.figures["unseen_cores"] == 1.3


def test_what_is_held_is_given_back_when_the_pressure_turns_out_to_be_unseen() -> None:
    demotes = policy()
    step(demotes, tick(0, service(wait=1.0), batch(cpu=0.6)))
    assert demotes.memory.held
    given = step(demotes, tick(1, service(wait=1.0), batch(cpu=0.6), machine=hidden()))
    assert (returned(given), demotes.memory.held) == (["unseen"], {})
    assert step(demotes, tick(2, service(wait=1.0), batch(cpu=0.6), machine=hidden(1.0))) == []
    assert demoted(step(demotes, tick(3, service(wait=1.0), batch(cpu=1.6)))) == ["hogs"]


def test_a_verdict_has_the_notes() -> None:
    verdict = Engine(PLAIN, "s").step(tick(0, service(wait=1.0), batch(cpu=0.6), machine=hidden()))
    assert ([note.topic for note in verdict.notes], verdict.decisions) == (["unseen"], ())


def test_nothing_is_demoted_for_a_group_that_its_own_quota_stops() -> None:
    own = service(cpu=0.5, wait=0.5, throttled=0.5)
    demotes, now = policy(), tick(0, own, batch(cpu=1.4))
    assert step(demotes, now) == []
    assert [note.topic for note in demotes.notes(now)] == ["quota service"]
    both = tick(1, own, service(cpu=0.1, wait=0.3, name="web", pid=11), batch(cpu=1.4))
    (decision,) = step(demotes, both)
    assert decision.why.figures["victim"] == "web"


def test_a_quota_that_stops_a_group_now_and_then_is_believed_for_a_minute() -> None:
    demotes = policy()
    assert step(demotes, tick(0, service(cpu=0.08, wait=0.1, throttled=0.1), batch(cpu=1.4))) == []
    now = tick(59, service(cpu=0.08, wait=0.1), batch(cpu=1.4))
    assert step(demotes, now) == []
    assert [note.topic for note in demotes.notes(now)] == ["quota service"]
    assert demoted(step(demotes, tick(61, service(cpu=0.08, wait=0.1), batch(cpu=1.4)))) == ["hogs"]


def test_expected_demand_stays_within_the_machine() -> None:
    said = [a_forecast("hogs", "cpu", 106.6), a_forecast("service", "cpu", 50.0)]
    (decision,) = step(policy(), tick(0, service(), batch(), forecasts=said))
    assert decision.why.figures["expected_cores"] == 2.0


# --- swarms ----------------------------------------------------------------------------------------------------------------------


def swarm(*members: Member, brief: float = 1.2, cpu: float = 1.5) -> Group:
    return msgspec.structs.replace(a_group("build", Class.BATCH, members, cpu=cpu, wait=1.0), brief=brief)


OWN = a_group("service", Class.INTERACTIVE, [a_member(10, session=10)], cpu=0.3, wait=0.6)


def test_of_a_swarm_those_are_demoted_that_last_and_not_each_child() -> None:
    make, shell = a_child(100, parent=1), a_child(101, parent=100)
    demotes = policy()
    first = tick(0, OWN, swarm(make, shell, a_child(102, 101), a_child(103, 100)), machine=UNGROUPED)
    assert processes(step(demotes, first)) == [100, 101]
    later = swarm(make, shell, a_child(104, 101, nice=19), a_child(105, 100, nice=19))
    decided = step(demotes, tick(1, OWN, later, machine=UNGROUPED))
    assert processes(decided) == [], "they inherited it"
    assert returned(decided) == []


def test_a_child_that_was_there_a_tick_ago_lasts_and_is_demoted_too() -> None:
    make, old = a_child(100, parent=1), a_child(103, parent=100)
    demotes = policy()
    assert processes(step(demotes, tick(0, OWN, swarm(make, old), machine=UNGROUPED))) == [100]
    assert processes(step(demotes, tick(1, OWN, swarm(make, old), machine=UNGROUPED))) == [103]


def test_a_group_of_lasting_processes_is_demoted_one_by_one() -> None:
    members = [a_child(100, parent=1), *(a_child(pid, parent=100) for pid in range(101, 105))]
    assert processes(step(policy(), tick(0, OWN, swarm(*members, brief=0.1)))) == [100, 101, 102, 103, 104]


def test_what_inherited_needs_no_decision_of_its_own_and_what_somebody_chose_is_left_alone() -> None:
    demotes, master = policy(), a_child(100, parent=1)
    step(demotes, tick(0, OWN, swarm(master, brief=0.0)))
    heir, chosen, grandchild = a_child(101, 100, nice=19), a_child(102, 100, nice=3), a_child(103, 101, nice=19)
    assert processes(step(demotes, tick(1, OWN, swarm(master, heir, chosen, grandchild, brief=0.0)))) == []


def test_an_heir_is_eased_with_its_parent() -> None:
    demotes, master, heir = policy(ease_after=5.0), a_child(100, parent=1), a_child(101, 100, nice=19)
    step(demotes, tick(0, OWN, swarm(master, brief=0.0)))
    calm = a_group("service", Class.INTERACTIVE, [a_member(10, session=10)], cpu=0.6, wait=0.001)
    eased = [
        (process.pid, d.action.value)
        for seq in range(1, 9)
        for d in step(demotes, tick(seq, calm, swarm(master, heir, brief=0.0)))
        if isinstance(d.action, Set) and (process := process_of(d.action.on)) is not None
    ]
    assert eased == [(100, 14), (101, 14)]


# --- many places -----------------------------------------------------------------------------------------------------------------


def test_no_more_is_proposed_than_may_change_sessions_first_and_the_last_says_how_many_follow() -> None:
    alone = [a_member(pid, session=10) for pid in range(30, 50)]
    hogs = a_group("hogs", Class.BATCH, [*alone, a_member(20, session=20)], cpu=1.5, wait=2.0)
    demotes = policy(most=8)
    decided = [step(demotes, tick(seq, OWN, hogs)) for seq in range(3)]
    assert [len(decisions) for decisions in decided] == [8, 8, 5]
    assert [isinstance(d.action, Set) and d.action.control for d in decided[0]] == [Control.AUTOGROUP, *[Control.NICE] * 7]
    assert [d.why.text.endswith("13 more changes follow.") for d in decided[0]] == [*[False] * 7, True]
    assert sorted(pid for decisions in decided for pid in processes(decisions)) == [20, *range(30, 50)]


def test_what_is_refused_does_not_keep_the_others_waiting_and_is_said_once() -> None:
    members = [a_member(pid, session=10) for pid in range(20, 60)]
    hogs = a_group("hogs", Class.BATCH, members, cpu=1.5, wait=2.0)
    never = tuple(ProcId(pid, pid) for pid in range(20, 40))
    engine = Engine(Config(priority=Section(slice_ms=0.0), guard=GuardSection(changes_per_tick=4)), "s")
    ticks = [tick(seq, OWN, hogs, protected=never) for seq in range(30)]
    history = effects_of(engine, ticks)
    set_ = [pid for _, verdict in history for pid in processes(verdict.decisions)]
    assert sorted(set(set_)) == list(range(40, 60))
    refused = [refusal.decision for _, verdict in history for refusal in verdict.refusals]
    niced = [d.target for d in refused if isinstance(d.action, Set) and d.action.control is Control.NICE]
    assert sorted(niced) == [f"group hogs pid {pid}" for pid in range(20, 40)], "each once"


def places(count: int, separation: str) -> Tick:
    groups = list[Group]()
    for number in range(count):
        own, other = (f"/web-{number}", f"/job-{number}") if separation == "cgroups" else ("/", "/")
        session = 1 if separation == "one session" else 0
        class_, contender = a_member(1000 + number, session, own), a_member(5000 + number, session, other)
        groups.append(a_group(f"service {number}", Class.INTERACTIVE, [class_], cpu=0.03, wait=0.03))
        groups.append(a_group(f"batch {number}", Class.BATCH, [contender], cpu=0.06, wait=0.06))
    cpus = max(2, count // 10)
    return a_tick(0, machine=a_machine(cpus=cpus, busy=float(cpus)), groups=groups)


def seconds_of_a_step(count: int, separation: str) -> float:
    taken = []
    for _ in range(3):
        engine, now = Engine(Config(), "s"), places(count, separation)
        begin = time.process_time()
        verdict = engine.step(now)
        taken.append(time.process_time() - begin)
        assert len(verdict.decisions) == Config().guard.changes_per_tick
    return min(taken)


@pytest.mark.parametrize("separation", ["sessions", "cgroups", "one session"])
def test_the_cost_of_a_step_grows_with_the_places_and_not_with_their_product(separation: str) -> None:
    """Four times as many cost four times as much; as each with each it would be sixteen times, with the spared ones 64."""
    assert seconds_of_a_step(400, separation) < 8 * seconds_of_a_step(100, separation)
