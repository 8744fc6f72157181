"""The priority policy: which mechanism, whom it spares, and when it gives the priority back."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from nicety.models.identity import ProcId
from nicety.models.records import Behaviour, Class
from nicety.scheduler.config.sections import Config, PoolConfig
from nicety.scheduler.config.sections import Priority as Section
from nicety.scheduler.decide.policies.policy import Aim, Impact, Metric, Proposal, Result
from nicety.scheduler.decide.policies.priority.held import Held
from nicety.scheduler.decide.policies.priority.mechanisms import Ground, Place
from nicety.scheduler.decide.policies.priority.memory import PriorityMemory
from nicety.scheduler.decide.policies.priority.pairs import ANYBODY
from nicety.scheduler.decide.policies.priority.priority import Priority
from nicety.scheduler.decide.policies.priority.slices import LONG_TICKS, SHORT_TICKS
from nicety.scheduler.decision import Decision, Effect, Group, Machine, Member, Restore, Set, Tick
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import SessionPlace, cgroup_of, process_of
from nicety.scheduler.testing.policies import admitted
from nicety.scheduler.testing.ticks import a_forecast, a_group, a_machine, a_member, a_tick

BUSY = a_machine(busy=2.0)
SERVICE = a_member(10, session=10)


def policy(pools: Sequence[str] = (), **changes: object) -> Priority:
    changes = {"slice_ms": 0.0, **changes}
    named = {name: PoolConfig(kind="command", command=["x"]) for name in pools}
    return Priority(Config(priority=Section(**changes), pools=named), PriorityMemory())  # type: ignore[arg-type]


def service(member: Member = SERVICE, cpu: float = 0.4, wait: float = 0.2) -> Group:
    return a_group("service", Class.INTERACTIVE, [member], cpu=cpu, wait=wait)


def hogs(*members: Member, cpu: float = 1.6, wait: float = 2.4, name: str = "hogs") -> Group:
    return a_group(name, Class.BATCH, members or (a_member(20, session=20), a_member(21, session=20)), cpu=cpu, wait=wait)


def contention(seq: int, *groups: Group, machine: Machine = BUSY) -> Tick:
    return a_tick(seq, machine=machine, groups=groups or (service(), hogs()))


def calm(seq: int, *groups: Group) -> Tick:
    return a_tick(seq, machine=a_machine(busy=sum(group.cpu for group in groups)), groups=groups)


def step(demotes: Priority, tick: Tick) -> list[Decision]:
    """Propose, admit everything, and tell that it was done."""
    decisions = admitted(demotes, tick)
    for decision in decisions:
        demotes.learn(Result(decision.action, decision.target, Status.APPLIED, tick.at))
    return decisions


def failed(group: str, control: Control, *, final: bool) -> Impact:
    """A demotion of the group after which the service waits as long as before."""
    aim = Aim(Metric.WAIT, "service", 0.3, group, control, back=False, goal=0.05)
    return Impact(aim, Effect("s-0.0", "wait", 0.3, 0.3, 3, "no effect"), failed=True, final=final)


def sets(decisions: Sequence[Decision | Proposal[Held]]) -> list[tuple[Control, object, object]]:
    return [
        (d.action.control, process_of(d.action.on) or cgroup_of(d.action.on), d.action.value)
        for d in decisions
        if isinstance(d.action, Set)
    ]


def restores(decisions: Sequence[Decision | Proposal[Held]]) -> list[tuple[Control, object]]:
    return [
        (d.action.control, process_of(d.action.on) or cgroup_of(d.action.on)) for d in decisions if isinstance(d.action, Restore)
    ]


def test_across_sessions_with_autogroup_the_session_is_demoted_once() -> None:
    (decision,) = policy().propose(contention(1))
    assert sets([decision]) == [(Control.AUTOGROUP, ProcId(20, 20), 19)]
    assert decision.target == "group hogs session 20"
    assert decision.why.rule == "contention now"
    figures = decision.why.figures
    assert (figures["victim"], figures["contender"], figures["mechanism"]) == ("service", "hogs", "autogroup")
    assert figures["victim_wait_before"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("machine", "members"),
    [
        (a_machine(busy=2.0, autogroup=False), (a_member(20, session=20), a_member(21, session=20))),
        (BUSY, (a_member(20, session=10), a_member(21, session=10))),
    ],
    ids=["autogroup off", "same session"],
)
def test_where_no_autogroup_separates_them_each_process_is_niced(machine: Machine, members: tuple[Member, ...]) -> None:
    decisions = policy().propose(contention(1, service(), hogs(*members), machine=machine))
    assert sets(decisions) == [(Control.NICE, ProcId(20, 20), 19), (Control.NICE, ProcId(21, 21), 19)]


@pytest.mark.parametrize(("version", "control", "value"), [("v1", Control.CPU_SHARES, 2), ("v2", Control.CPU_WEIGHT, 1)])
def test_across_cgroups_the_weight_is_lowered_where_the_paths_part(version: str, control: Control, value: int) -> None:
    own = service(a_member(10, cgroup="/system/web/app"))
    batch = hogs(a_member(20, cgroup="/system/jobs/a"), a_member(21, cgroup="/system/jobs/b"))
    decisions = policy().propose(contention(1, own, batch, machine=a_machine(busy=2.0, cpu_cgroup=version)))
    assert sets(decisions) == [(control, "/system/jobs", value)]


def place(cgroup: str, session: int) -> tuple[str, int]:
    return cgroup, session


EACH = [(Control.NICE, ""), (Control.POLICY, "")]
WITHIN = [(Control.FENCE, ""), *EACH]
SESSION = [(Control.AUTOGROUP, ""), *WITHIN]
CGROUP = [(Control.CPU_SHARES, "/batch"), (Control.CPU_IDLE, "/batch"), *EACH]


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [
        (("/batch", 2), ("/", 1), CGROUP),
        (("/", 2), ("/web", 1), SESSION),
        (("/a", 2), ("/a/web", 1), WITHIN),  # its ancestor: never lowered
        (("/a", 2), ("/a", 1), WITHIN),  # autogroups are in the root only
        (("/", 2), ("/", 1), SESSION),
        (("/", 1), ("/", 1), WITHIN),
    ],
)
def test_routes_follow_what_separates_the_contenders(own: Place, other: Place, expected: list[tuple[Control, str]]) -> None:
    assert Ground([other], [other], BUSY).routes(own) == [expected]


def test_without_a_cpu_controller_cgroups_do_not_separate() -> None:
    other = ("/web", 1)
    assert Ground([other], [other], a_machine(cpu_cgroup="")).routes(("/batch", 2)) == [[(Control.AUTOGROUP, ""), *EACH]]


def test_a_session_or_cgroup_with_a_latency_process_in_it_is_never_demoted_as_a_whole() -> None:
    other = a_group("other", Class.INTERACTIVE, [a_member(30, session=20)])
    decisions = policy().propose(contention(1, service(), other, hogs()))
    assert {control for control, _, _ in sets(decisions)} == {Control.NICE}
    inside = a_group("other", Class.INTERACTIVE, [a_member(30, session=30, cgroup="/batch/inner")])
    batch = hogs(a_member(20, session=20, cgroup="/batch/jobs"))
    decisions = policy().propose(contention(1, service(), inside, batch))
    assert (Control.CPU_SHARES, "/batch", 2) not in sets(decisions)
    assert (Control.CPU_SHARES, "/batch/jobs", 2) in sets(decisions)


def test_inside_a_pool_workers_are_demoted_by_at_most_pool_nice() -> None:
    niced = policy(pools=["hogs"]).propose(contention(1, service(), hogs(a_member(20, session=10))))
    assert sets(niced) == [(Control.NICE, ProcId(20, 20), 5)]
    assert "more than nice 5 inside a pool: a demoted lock holder would starve its siblings" in niced[0].why.rejected
    grouped = policy(pools=["hogs"]).propose(contention(1))
    assert sets(grouped) == [(Control.AUTOGROUP, ProcId(20, 20), 5)]
    weighed = policy(pools=["hogs"]).propose(contention(1, service(), hogs(a_member(20, cgroup="/pool"))))
    assert sets(weighed) == [(Control.CPU_SHARES, "/pool", 336)]  # the kernel's weight of nice 5 is 335


def test_a_session_shared_by_a_pool_and_others_gets_the_gentler_value() -> None:
    decisions = policy(pools=["pool"]).propose(contention(1, service(), hogs(), hogs(a_member(22, session=20), name="pool")))
    assert [value for _, _, value in sets(decisions)] == [5]


def test_what_somebody_niced_is_left_alone_and_what_inherited_our_value_is_not() -> None:
    demotes = policy()
    first, somebodys = a_member(20, session=10), a_member(21, session=10, nice=4)
    assert sets(step(demotes, contention(1, service(), hogs(first, somebodys)))) == [(Control.NICE, ProcId(20, 20), 19)]
    child = a_member(22, session=10, nice=19)
    assert sets(step(demotes, contention(2, service(), hogs(first, somebodys, child)))) == [(Control.NICE, ProcId(22, 22), 19)]


def test_every_change_says_what_the_value_must_be_if_it_is_nobodys_choice() -> None:
    (session,) = policy().propose(contention(1))
    (process,) = policy().propose(contention(1, service(), hogs(a_member(20, session=10))))
    (cgroup,) = policy().propose(contention(1, service(), hogs(a_member(20, cgroup="/batch"))))
    assert [decision.action.expected for decision in (session, process, cgroup) if isinstance(decision.action, Set)] == [0, 0, 1024]


@pytest.mark.parametrize(
    "groups",
    [
        (service(wait=0.01), hogs(cpu=0.9, wait=0.0)),  # waits little, and all fits
        (service(cpu=0.001, wait=0.003), hogs(cpu=0.9, wait=0.0)),  # idle noise
        (service(), hogs(cpu=0.01, wait=0.0)),  # nobody to blame
        (service(),),
        (hogs(),),
    ],
    ids=["little", "noise", "tiny batch", "no batch", "no service"],
)
def test_nothing_is_demoted_without_contention(groups: tuple[Group, ...]) -> None:
    assert policy().propose(a_tick(1, machine=BUSY, groups=groups)) == []


def test_waits_on_a_machine_that_is_not_busy_are_wake_ups() -> None:
    assert policy().propose(a_tick(1, machine=a_machine(busy=0.8), groups=[service(), hogs(cpu=0.4, wait=0.0)])) == []


def test_expected_demand_beyond_the_capacity_demotes_before_anybody_waits() -> None:
    groups = [service(wait=0.0), hogs(cpu=0.1, wait=0.0)]
    calm = a_tick(1, machine=a_machine(busy=0.5), groups=groups, forecasts=[a_forecast("hogs", "cpu", 1.5)])
    assert policy().propose(calm) == []
    storm = a_tick(1, machine=a_machine(busy=0.5), groups=groups, forecasts=[a_forecast("hogs", "cpu", 1.7)])
    (decision,) = policy().propose(storm)
    assert decision.why.rule == "contention foreseen"
    figures = decision.why.figures
    assert figures["expected_cores"] == 2.0, "within the machine"
    assert figures["victim_lacks_cores"] == pytest.approx(0.1)
    assert figures["contender_frees_cores"] == pytest.approx(1.6)  # what it has and what is idle


def test_what_others_use_is_no_capacity() -> None:
    groups = [service(wait=0.0), hogs(cpu=1.0, wait=0.2)]
    assert policy().propose(a_tick(1, machine=a_machine(busy=1.4), groups=groups)) == []
    assert policy().propose(a_tick(1, machine=a_machine(busy=2.0), groups=groups)) != []


def test_new_members_of_a_demoted_group_are_demoted_too_and_nobody_twice() -> None:
    demotes = policy()
    first, second, third = (a_member(pid, session=10) for pid in (20, 21, 22))
    assert len(step(demotes, contention(1, service(), hogs(first, second)))) == 2
    quiet = service(wait=0.0)
    assert step(demotes, contention(2, quiet, hogs(first, second))) == []
    assert sets(step(demotes, contention(3, quiet, hogs(first, second, third)))) == [(Control.NICE, ProcId(22, 22), 19)]


def test_a_demotion_that_works_is_kept_while_the_contender_still_wants_the_cpu() -> None:
    demotes = policy(release_after=5.0)
    step(demotes, contention(0))
    healed = [step(demotes, contention(seq, service(wait=0.015), hogs())) for seq in range(1, 100)]
    assert [restores(decisions) for decisions in healed] == [[]] * 99
    assert [held.value for held in demotes.memory.held.values()] == [19]


def test_priority_is_returned_when_contention_has_been_over_for_release_after() -> None:
    demotes = policy(release_after=5.0)
    step(demotes, contention(0))
    over = [step(demotes, calm(seq, service(cpu=0.1, wait=0.0), hogs(cpu=0.5, wait=0.0))) for seq in range(1, 10)]
    assert [len(decisions) for decisions in over] == [0, 0, 0, 0, 0, 1, 0, 0, 0]
    assert restores(over[5]) == [(Control.AUTOGROUP, ProcId(20, 20))]
    assert over[5][0].why.rule == "contention over"
    assert demotes.memory.held == {}


def test_demand_just_below_the_capacity_demotes_nobody_and_returns_nothing() -> None:
    band = [service(cpu=0.4, wait=0.0), hogs(cpu=1.5, wait=0.0)]
    assert [step(policy(), calm(seq, *band)) for seq in range(30)] == [[]] * 30
    demotes = policy(release_after=5.0)
    step(demotes, contention(0))
    assert [step(demotes, calm(seq, *band)) for seq in range(1, 30)] == [[]] * 29
    assert demotes.memory.held


def test_a_gap_does_not_count_as_calm() -> None:
    demotes = policy(release_after=5.0)
    step(demotes, contention(0))
    quiet = [service(wait=0.0), hogs(cpu=0.5, wait=0.0)]
    step(demotes, calm(1, *quiet))
    demotes.skip()
    assert step(demotes, calm(60, *quiet)) == []
    assert [len(step(demotes, calm(seq, *quiet))) for seq in range(61, 66)] == [0, 0, 0, 0, 1]


def test_a_failed_restore_is_tried_again_and_a_failed_demotion_is_not_held() -> None:
    demotes = policy(release_after=1.0)
    admitted(demotes, contention(0))
    assert demotes.propose(contention(1)) == []
    quiet = [service(wait=0.0), hogs(cpu=0.1, wait=0.0)]
    demotes.propose(calm(2, *quiet))
    (returned,) = demotes.propose(calm(4, *quiet))
    demotes.learn(Result(returned.action, returned.target, Status.FAILED, 0))
    assert restores(demotes.propose(calm(5, *quiet))) == restores([returned])
    again = policy()
    (decision,) = admitted(again, contention(0))
    again.learn(Result(decision.action, decision.target, Status.REFUSED, 0))
    assert again.memory.held == {}


def test_what_somebody_else_changed_is_not_ours_any_more() -> None:
    demotes = policy()
    step(demotes, contention(0))
    assert demotes.memory.held
    demotes.learn(Result(None, "group hogs session 20", Status.FOREIGN, 0))
    assert demotes.memory.held == {}


def test_vanished_processes_are_forgotten_and_a_vanished_group_is_returned() -> None:
    demotes = policy()
    first, second = a_member(20, session=10), a_member(21, session=10)
    step(demotes, contention(0, service(), hogs(first, second)))
    assert step(demotes, contention(1, service(), hogs(first))) == []
    assert list(demotes.memory.held) == ["nice 20.20"]
    (returned,) = step(demotes, contention(2, service()))
    assert (restores([returned]), returned.why.rule) == ([(Control.NICE, ProcId(20, 20))], "contender gone")
    assert step(demotes, contention(3, service())) == []


def test_a_session_is_returned_through_a_member_that_lives() -> None:
    demotes = policy(release_after=1.0)
    step(demotes, contention(0))
    rest = hogs(a_member(21, session=20), cpu=0.1, wait=0.0)
    step(demotes, calm(1, service(wait=0.0), rest))
    assert restores(step(demotes, calm(3, service(wait=0.0), rest))) == [(Control.AUTOGROUP, ProcId(21, 21))]


def test_a_mechanism_that_twice_had_no_effect_is_dropped_for_the_next_one() -> None:
    demotes = policy()
    step(demotes, contention(0))
    demotes.measured([failed("hogs", Control.AUTOGROUP, final=False)], contention(3))
    assert step(demotes, contention(4)) == []
    demotes.measured([failed("hogs", Control.AUTOGROUP, final=True)], contention(6))
    decisions = step(demotes, contention(7))
    assert restores(decisions) == [(Control.AUTOGROUP, ProcId(20, 20))]
    assert sets(decisions) == [(Control.NICE, ProcId(20, 20), 19), (Control.NICE, ProcId(21, 21), 19)]
    assert "autogroup: 2 times refused or without effect on hogs" in decisions[-1].why.rejected


def test_when_all_that_separates_them_had_no_effect_the_group_is_left_alone_for_a_while() -> None:
    demotes, machine = policy(), a_machine(busy=2.0, autogroup=False)
    for seq, control in ((0, Control.NICE), (10, Control.POLICY)):
        assert {each for each, _, _ in sets(step(demotes, contention(seq, machine=machine)))} == {control}
        assert demotes.memory.pairs.pause("service", "hogs", a_tick(seq + 6).at) is None
        for later, final in ((3, False), (6, True)):
            demotes.measured([failed("hogs", control, final=final)], contention(seq + later, machine=machine))
    decisions = step(demotes, contention(20, machine=machine))
    assert {control for control, _ in restores(decisions)} == {Control.POLICY}
    assert sets(decisions) == []
    pause = demotes.memory.pairs.pause("service", "hogs", a_tick(21).at)
    assert pause is not None
    assert pause.victim == ANYBODY


def test_a_service_that_waits_for_itself_does_not_drop_the_mechanism_that_works_but_the_pair_backs_off() -> None:
    demotes = policy()
    step(demotes, contention(0))
    overloaded = contention(3, service(cpu=1.9, wait=3.0), hogs(cpu=0.1, wait=3.9))
    for number in range(5):
        demotes.measured([failed("hogs", Control.AUTOGROUP, final=number == 4)], overloaded)
    assert demotes.memory.strikes.strikes == {}
    (returned,) = step(demotes, contention(4))
    assert (restores([returned]), returned.why.rule) == ([(Control.AUTOGROUP, ProcId(20, 20))], "no effect")


def test_switched_off_it_gives_back_what_it_holds() -> None:
    demotes = policy()
    step(demotes, contention(0))
    off = Priority(Config(priority=Section(enabled=False, release_after=2.0)), demotes.memory)
    assert [restores(step(off, contention(seq))) for seq in range(1, 4)] == [[], [], [(Control.AUTOGROUP, ProcId(20, 20))]]


LEARNED = Behaviour(Class.INTERACTIVE, 0.95, 0.01, (), "behaviour 01234567")


def test_a_shell_that_was_learned_to_be_interactive_does_not_shield_the_build_it_waits_for() -> None:
    shell = msgspec.structs.replace(a_group("shell", Class.INTERACTIVE, [a_member(30, session=20)]), behaviour=LEARNED)
    assert sets(policy().propose(contention(1, service(), shell, hogs()))) == [(Control.AUTOGROUP, ProcId(20, 20), 19)]
    typing = msgspec.structs.replace(shell, cpu=0.1, demand=0.1)
    assert {control for control, _, _ in sets(policy().propose(contention(1, service(), typing, hogs())))} == {Control.NICE}


def test_the_session_and_the_cgroup_of_nicety_itself_are_never_demoted() -> None:
    at_home = msgspec.structs.replace(contention(1), home=a_member(5, session=20))
    assert {control for control, _, _ in sets(policy().propose(at_home))} == {Control.NICE}
    batch = hogs(a_member(20, cgroup="/batch"))
    inside = msgspec.structs.replace(contention(1, service(), batch), home=a_member(5, cgroup="/batch/tools"))
    assert {control for control, _, _ in sets(policy().propose(inside))} == {Control.NICE}


def test_a_demotion_is_eased_while_nobody_waits_and_all_of_it_is_back_on_the_first_wait() -> None:
    demotes = policy(ease_after=10.0)
    step(demotes, contention(0))
    values = []
    for seq in range(1, 40):
        values += [value for _, _, value in sets(step(demotes, contention(seq, service(wait=0.001), hogs())))]
    assert values == [14, 9, 4]
    (again,) = step(demotes, contention(40))
    assert sets([again]) == [(Control.AUTOGROUP, ProcId(20, 20), 19)]
    assert again.why.rule == "not eased any more"
    later = [sets(step(demotes, contention(seq, service(wait=0.001), hogs()))) for seq in range(41, 70)]
    assert [seq for seq, found in enumerate(later, 41) if found] == [61], "it waits twice as long after an easing that failed"


def test_a_group_that_was_relieved_is_left_alone_for_an_hour_and_longer_each_time() -> None:
    demotes = policy()
    quiet = []
    seq = 0
    for _ in range(2):
        while not step(demotes, contention(seq)):
            seq += 1
        demotes.learn(Result(None, "group hogs session 20", Status.RELIEVED, contention(seq).at))
        assert demotes.memory.held == {}
        since = seq
        while not sets(demotes.propose(contention(seq + 1))):
            seq += 1
        quiet.append(seq + 1 - since)
    assert quiet == [3600, 7200]


def test_what_a_rival_tunes_is_left_to_it() -> None:
    busy = a_machine(busy=2.0, rivals=("ananicy-cpp",))
    same = policy().propose(contention(1, service(), hogs(a_member(20, session=10)), machine=busy))
    assert Control.NICE not in {control for control, _, _ in sets(same)}
    across = policy().propose(contention(1, machine=busy))
    assert Control.NICE not in {control for control, _, _ in sets(across)}


def test_a_foreseen_burst_of_a_resting_batch_demotes_what_is_there_of_it() -> None:
    groups = [service(wait=0.0), hogs(a_member(20, session=10), cpu=0.0, wait=0.0)]
    storm = a_tick(1, machine=a_machine(busy=0.4), groups=groups, forecasts=[a_forecast("hogs", "cpu", 4.0)])
    (decision,) = policy().propose(storm)
    assert (decision.why.rule, sets([decision])) == ("contention foreseen", [(Control.NICE, ProcId(20, 20), 19)])


def test_a_batch_is_not_released_while_the_service_is_started_anew() -> None:
    demotes = policy(release_after=5.0)
    step(demotes, contention(0))
    assert [step(demotes, contention(seq, hogs())) for seq in range(1, 5)] == [[]] * 4
    assert step(demotes, contention(5)) == []
    assert demotes.memory.held


def trial(waits: Sequence[float]) -> tuple[Priority, list[list[Decision]]]:
    """A policy with short slices, and what it decides while the service waits so much beside demoted hogs."""
    demotes = policy(slice_ms=0.1)
    return demotes, [step(demotes, contention(seq, service(wait=wait), hogs())) for seq, wait in enumerate(waits)]


def of_slices(decisions: Sequence[Decision]) -> list[Decision]:
    return [d for d in decisions if isinstance(d.action, Set | Restore) and d.action.control is Control.SLICE]


SHORT, LONG = SHORT_TICKS + 1, LONG_TICKS + 1
"""The tick in which the look with short slices ends (the first demotion is tick 0), and ticks of the look without."""


def test_a_short_slice_comes_with_the_demotion_and_is_kept_where_the_service_waits_longer_without() -> None:
    demotes, decided = trial([0.1] * (SHORT + 1) + [0.2] * LONG + [0.1] * 20)
    slices = [of_slices(decisions) for decisions in decided]
    assert [seq for seq, decisions in enumerate(slices) if decisions] == [1, SHORT, SHORT + LONG]
    first, compared, again = [decision for decisions in slices for decision in decisions]
    assert isinstance(first.action, Set)
    assert isinstance(compared.action, Restore)
    assert (process_of(first.action.on), first.action.value, first.action.expected) == (ProcId(10, 10), 100_000, 0)
    assert [decision.why.rule for decision in (first, compared, again)] == [
        "short slice, compared later",
        "slice compared",
        "short slice",
    ]
    waits = [again.why.figures[name] for name in ("wait_with_short_slices", "wait_without")]
    assert waits == [pytest.approx(0.2), pytest.approx(1 / 3)]
    after = range(len(decided), len(decided) + 30)
    over = [step(demotes, calm(seq, service(cpu=0.1, wait=0.0), hogs(cpu=0.1, wait=0.0))) for seq in after]
    assert (Control.SLICE, ProcId(10, 10)) in restores([decision for decisions in over for decision in decisions])


def test_a_short_slice_is_kept_when_nothing_can_be_told() -> None:
    demotes, decided = trial([0.2] * 200)
    flat = of_slices([decision for decisions in decided for decision in decisions])
    assert [type(decision.action) for decision in flat] == [Set, Restore, Set]
    assert demotes.memory.slices.trials["service"].phase == "kept"


def test_a_service_that_waits_little_keeps_its_short_slice_and_is_not_made_to_wait_longer() -> None:
    demotes, decided = trial([0.2, 0.2] + [0.002] * 100)
    assert [decision.why.rule for decision in of_slices([each for some in decided for each in some])] == [
        "short slice, compared later"
    ]
    assert demotes.memory.slices.trials["service"].phase == "kept"
    more = a_group("service", Class.INTERACTIVE, [a_member(10, session=10), a_member(11, session=10)], cpu=0.4, wait=0.002)
    (decision,) = of_slices(step(demotes, contention(102, more, hogs())))
    assert "waits only 0.5% of its demand with short slices" in decision.why.text


def test_a_short_slice_that_does_harm_is_dropped_for_a_while_and_then_compared_anew() -> None:
    demotes, decided = trial([0.2] * (SHORT + 1) + [0.1] * 700)
    slices = [of_slices(decisions) for decisions in decided]
    seqs = [seq for seq, decisions in enumerate(slices) if decisions]
    assert seqs[:2] == [1, SHORT]
    assert SHORT + LONG + 600 <= seqs[2] <= SHORT + LONG + 602
    assert demotes.memory.slices.trials["service"].phase in ("short", "long", "kept")


def test_what_is_waited_between_bursts_is_not_compared_with_what_is_waited_in_them() -> None:
    """A batch that works 8 of each 30 ticks and is demoted all the time, for its next burst is expected."""
    demotes = policy(slice_ms=0.1, release_after=60.0)
    ticks = [
        contention(seq, service(), hogs()) if seq % 30 < 8 else calm(seq, service(wait=0.0), hogs(cpu=0.0, wait=0.0))
        for seq in range(300)
    ]
    decided = of_slices([decision for tick in ticks for decision in step(demotes, tick)])
    assert [decision.why.rule for decision in decided] == ["short slice, compared later"]


def test_a_comparison_that_a_pause_of_the_batch_broke_off_begins_anew_with_short_slices() -> None:
    demotes, decided = trial([0.2] * (SHORT + 3))
    decided += [step(demotes, calm(SHORT + 3, service(wait=0.0), hogs(cpu=0.0, wait=0.0)))]
    decided += [step(demotes, contention(seq, service(), hogs())) for seq in range(SHORT + 4, SHORT + 10)]
    slices = [(seq, type(each.action)) for seq, decisions in enumerate(decided) for each in of_slices(decisions)]
    assert slices == [(1, Set), (SHORT, Restore), (SHORT + 3, Set)]


def test_a_service_without_work_gets_no_short_slice_until_it_has_some() -> None:
    demotes, shell = policy(slice_ms=0.1), a_group("shell", Class.INTERACTIVE, [a_member(30, session=30)])
    typing = msgspec.structs.replace(shell, cpu=0.05, demand=0.05)
    groups = [shell] * 3 + [typing] + [shell]
    decided = [of_slices(step(demotes, contention(seq, service(), group, hogs()))) for seq, group in enumerate(groups)]
    assert [[decision.target for decision in decisions] for decisions in decided] == [
        [],
        ["group service pid 10"],
        [],
        ["group shell pid 30"],
        [],
    ]


def test_short_slices_go_back_at_once_when_it_is_switched_off_while_something_is_demoted() -> None:
    demotes, _ = trial([0.2] * 3)
    off = Priority(Config(priority=Section(enabled=False)), demotes.memory)
    (decision,) = of_slices(step(off, contention(3)))
    assert (restores([decision]), decision.why.rule) == ([(Control.SLICE, ProcId(10, 10))], "nothing demoted")


def test_a_kernel_without_slices_is_asked_once() -> None:
    demotes = policy(slice_ms=0.1)
    asked = 0
    for seq in range(60):
        for decision in admitted(demotes, contention(seq)):
            short = isinstance(decision.action, Set) and decision.action.control is Control.SLICE
            asked += short
            demotes.learn(Result(decision.action, decision.target, Status.REFUSED if short else Status.APPLIED, contention(seq).at))
    assert asked == 1
    assert demotes.memory.strikes.strikes == {}


# --- what is acted on -------------------------------------------------------------------------------------------------------------


def observed(demotes: Priority, tick: Tick) -> list[Decision]:
    """Propose, admit everything, and tell that it was only observed."""
    decisions = admitted(demotes, tick)
    for decision in decisions:
        demotes.learn(Result(decision.action, decision.target, Status.OBSERVED, tick.at))
    return decisions


def test_what_was_only_observed_for_one_is_proposed_again_for_another() -> None:
    """One of the two may be acted on, and the other not."""
    demotes = policy()
    other = a_group("other", Class.INTERACTIVE, [a_member(11, session=11)], cpu=0.4, wait=0.0)
    (first,) = observed(demotes, contention(1, service(), other, hogs()))
    assert first.why.figures["victim"] == "service"
    assert observed(demotes, contention(2, service(), other, hogs())) == []
    worse = a_group("other", Class.INTERACTIVE, [a_member(11, session=11)], cpu=0.4, wait=0.4)
    (second,) = observed(demotes, contention(3, service(), worse, hogs()))
    assert (second.action, second.why.figures["victim"]) == (first.action, "other")
    assert second.why.rule == "contention now"
    assert [observed(demotes, contention(seq, service(), worse, hogs())) for seq in range(4, 8)] == [[]] * 4, "once for each"
    demotes.forget(lambda _: True)
    assert len(step(demotes, contention(9, service(), worse, hogs()))) == 1
    assert step(demotes, contention(10, service(), other, hogs())) == [], "what is in force protects both"


def test_what_is_in_force_for_one_is_not_proposed_again_for_another() -> None:
    demotes = policy()
    step(demotes, contention(1))
    worse = a_group("other", Class.INTERACTIVE, [a_member(11, session=11)], cpu=0.4, wait=0.4)
    assert step(demotes, contention(2, service(), worse, hogs())) == []


def test_what_is_forgotten_is_proposed_again_in_full_and_nothing_else() -> None:
    demotes = policy()
    make = hogs(a_member(30, session=30), name="make")
    assert len(observed(demotes, contention(1, service(), hogs(), make))) == 2
    standing = demotes.standing()
    assert [each.about for each in standing] == [
        frozenset({"policy priority", "hogs", "service"}),
        frozenset({"policy priority", "make", "service"}),
    ]
    assert standing[0].undone_by == Restore(Control.AUTOGROUP, SessionPlace(20, ProcId(20, 20)))
    demotes.memory.contention.parties["system"].level = 2
    demotes.forget(lambda each: "make" in each.about)
    (again,) = observed(demotes, contention(2, service(), hogs(), make))
    assert (again.target, sets([again])) == ("group make session 30", [(Control.AUTOGROUP, ProcId(30, 30), 19)])


def test_what_is_bound_to_other_cpus_than_the_victim_is_not_demoted_and_why_says_so() -> None:
    pinned = msgspec.structs.replace(SERVICE, cpus=(0,))
    away = hogs(msgspec.structs.replace(a_member(30, session=30), cpus=(1,)), cpu=1.0, name="away")
    near = hogs(msgspec.structs.replace(a_member(20, session=20), cpus=(0, 1)), cpu=1.0)
    (decision,) = policy().propose(contention(1, service(pinned), near, away))
    assert decision.why.figures["contender"] == "hogs"
    assert "away: it and service are bound to different CPUs" in decision.why.rejected
    assert policy().propose(contention(1, service(pinned), away)) == []


def test_a_contender_that_does_nothing_is_not_named_as_left_out() -> None:
    idle, little = (hogs(a_member(pid, session=pid), cpu=cpu, wait=0.0, name=f"cpu {cpu}") for pid, cpu in ((40, 0.0), (50, 0.001)))
    why = policy().propose(contention(1, service(), hogs(), idle, little))[0].why
    assert not any(said.startswith("cpu 0.0:") for said in why.rejected)
    assert "cpu 0.001" in " ".join(why.rejected)
    assert "cpu 0.0 " not in " ".join(why.rejected)


def test_processes_of_a_group_that_are_refused_together_are_one_strike() -> None:
    demotes, beside = policy(), hogs(*(a_member(pid, session=SERVICE.session) for pid in (20, 21, 22)))
    for seq, strikes in ((1, 1), (4, 2)):
        tick = contention(seq, service(), beside)
        decisions = admitted(demotes, tick)
        assert len(decisions) == 3
        for decision in decisions:
            demotes.learn(Result(decision.action, decision.target, Status.REFUSED, tick.at))
        assert {name: strike.count for name, strike in demotes.memory.strikes.strikes.items()} == {"nice hogs": strikes}


@pytest.mark.parametrize("slice_ms", [0.0, 0.1])
def test_a_full_disk_is_no_strike_against_a_mechanism(slice_ms: float) -> None:
    demotes = policy(slice_ms=slice_ms)
    asked: list[Control] = []
    for seq in range(1, 60):
        tick = contention(seq)
        decisions = admitted(demotes, tick)
        asked += [decision.action.control for decision in decisions if isinstance(decision.action, Set)]
        for decision in decisions:
            demotes.learn(Result(decision.action, decision.target, Status.BLOCKED, tick.at))
    assert set(asked) == {asked[0]}, "nothing was done, so nothing was shown to be without effect"
    assert demotes.memory.strikes.strikes == {}
    assert demotes.memory.held == {}


def test_a_restore_that_the_disk_held_up_is_asked_for_again() -> None:
    demotes = policy()
    step(demotes, contention(1))
    (key,) = demotes.memory.held
    held = demotes.memory.held[key]
    demotes.learn(Result(Restore(held.control, held.on), held.target, Status.BLOCKED, contention(2).at))
    assert key in demotes.memory.held
