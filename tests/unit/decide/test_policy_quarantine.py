"""The quarantine policy: one report an incident, by its strongest kind; acts only on request, and never on victims."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import msgspec
import pytest

from nicety.models.anomaly.model import alpha
from nicety.models.anomaly.waitgraph import UNLESS
from nicety.models.identity import ProcId
from nicety.models.records import Anomaly, Blocked, Deadlock, Score
from nicety.scheduler.config.sections import Config
from nicety.scheduler.config.sections import Quarantine as Section
from nicety.scheduler.decide.policies.policy import Result
from nicety.scheduler.decide.policies.quarantine.incidents import Incident
from nicety.scheduler.decide.policies.quarantine.quarantine import Quarantine, QuarantineMemory
from nicety.scheduler.decision import Antagonist, Decision, Digest, Feedback, Flag, Recycle, Restore, Set, StarvedWorker, Tick
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import ProcessPlace
from nicety.scheduler.testing.policies import admitted
from nicety.scheduler.testing.ticks import a_member, a_pool, a_tick

SICK = ProcId(9001, 9001)
OTHER = ProcId(9002, 9002)
FLAG = Flag("web", SICK, "leak")


def over(flag: Flag, id_: str) -> Flag:
    return msgspec.structs.replace(flag, incident=id_, over=True)


def policy(**changes: object) -> Quarantine:
    return Quarantine(Config(quarantine=Section(**changes)), QuarantineMemory())  # type: ignore[arg-type]


def a_score(id_: ProcId, p: float, kind: Anomaly = Anomaly.LEAK, value: float = 9.0) -> Score:
    return Score(id_, "web", kind, value, p, (("growth_mib", 30.0), ("siblings_growth_mib", 0.5)), "anomaly 00")


def scored(seq: int, p: float | None, kind: Anomaly = Anomaly.LEAK, size: int = 3, **changes: object) -> Tick:
    """A tick in which the second worker has this p, and the others are healthy."""
    pool = a_pool(size=size)
    scores = [
        a_score(worker.id, p if p is not None and worker.id == SICK else 0.4, kind)
        for worker in pool.workers
        if worker.id != SICK or p is not None
    ]
    return a_tick(seq, **{"pools": [pool], "scores": tuple(scores), **changes})  # type: ignore[arg-type]


def step(watches: Quarantine, tick: Tick, status: Status = Status.APPLIED) -> list[Decision]:
    """What the engine does with a policy: it admits the proposals and reports what came of them."""
    decisions = admitted(watches, tick)
    for decision in decisions:
        watches.learn(Result(decision.action, decision.target, status, tick.at))
    return decisions


def actions(watches: Quarantine, ticks: Iterable[Tick]) -> list[tuple[int, object]]:
    return [(tick.seq, decision.action) for tick in ticks for decision in step(watches, tick)]


def circled(seq: int, since: int, waiters: tuple[ProcId, ...] = (SICK, OTHER), known: bool = True, **changes: object) -> Tick:
    """A tick in which these wait for each other since tick `since`."""
    waits = tuple(
        Blocked(
            waiter,
            waiter.pid,
            a_tick(since).at,
            f"flock on inode {number}",
            waiters[(number + 1) % len(waiters)] if known else None,
        )
        for number, waiter in enumerate(waiters)
    )
    return a_tick(seq, **{"pools": [a_pool(size=5)], "deadlocks": (Deadlock(waits),), **changes})  # type: ignore[arg-type]


# --- one report an incident ---------------------------------------------------------------------------------------------------


def test_a_score_that_stays_significant_for_patience_is_flagged_once() -> None:
    assert actions(policy(patience=5.0), [scored(seq, 1e-12) for seq in range(100)]) == [(5, FLAG)]


def test_the_reason_says_what_how_rare_and_compared_with_whom() -> None:
    watches = policy(patience=1.0)
    step(watches, scored(0, 1e-12))
    (decision,) = step(watches, scored(1, 1e-12))
    why = decision.why
    assert why.rule == "score of leak"
    assert (why.figures["p"], why.figures["alpha"]) == (1e-12, alpha(1.0))
    assert why.figures["evidence_growth_mib"] == 30.0
    assert (why.figures["siblings"], why.figures["unusual_siblings"]) == (2, 0)
    for part in ("Worker 9001 of web leaks memory", "grew by 30 MiB", "siblings' median grew by 0.5 MiB", "so do 0 of 2 siblings"):
        assert part in why.text
    assert "1 in 1,000 billion or fewer healthy worker-minutes" in why.text


@pytest.mark.parametrize("between", [0.5, None], ids=["not significant", "no score"])
def test_a_score_that_is_significant_three_times_in_four_is_no_incident(between: float | None) -> None:
    ticks = [scored(seq, between if seq % 4 == 3 else 1e-12) for seq in range(100)]
    assert actions(policy(patience=4.0), ticks) == []


def test_one_ordinary_tick_in_many_does_not_hide_an_incident() -> None:
    ticks = [scored(seq, 0.5 if seq == 5 else 1e-12) for seq in range(20)]
    assert actions(policy(patience=8.0), ticks) == [(8, FLAG)]


def test_the_threshold_is_the_users_false_alarms_a_day() -> None:
    p = alpha(2.0)
    assert actions(policy(patience=1.0, false_alarms_per_day=1.9), [scored(seq, p) for seq in range(10)]) == []
    assert len(actions(policy(patience=1.0, false_alarms_per_day=2.1), [scored(seq, p) for seq in range(10)])) == 1


def test_kinds_that_alternate_are_one_incident_named_by_the_strongest() -> None:
    ticks = [scored(seq, 1e-12 if seq % 3 else 1e-7, Anomaly.LEAK if seq % 3 else Anomaly.OUTLIER) for seq in range(40)]
    assert [action for _, action in actions(policy(patience=5.0), ticks)] == [FLAG]


def test_an_incident_is_taken_for_another_kind_once_where_the_evidence_is_of_that() -> None:
    kinds = [Anomaly.OUTLIER] * 10 + [Anomaly.SPIN] * 50 + [Anomaly.LEAK] * 100
    found = actions(policy(), [scored(seq, 1e-12, kind) for seq, kind in enumerate(kinds)])
    assert [action for _, action in found] == [Flag("web", SICK, "outlier"), Flag("web", SICK, "spin", (), "s-5.0")]
    assert 25 <= found[1][0] <= 30


def test_the_second_report_shows_the_figures_of_that_worker() -> None:
    watches = policy()
    kinds = [Anomaly.OUTLIER] * 10 + [Anomaly.SPIN] * 50
    found = [decision for seq, kind in enumerate(kinds) for decision in step(watches, scored(seq, 1e-12, kind))]
    assert [decision.why.figures["p"] for decision in found] == [1e-12, 1e-12]
    assert found[1].why.text.startswith("Worker 9001 of web spins, first reported as outlier: ")


def test_what_was_seen_before_a_break_names_only_an_incident_that_was_reported() -> None:
    unreported, reported = (Incident("web", [SICK], 0) for _ in range(2))
    reported.report("s-5.0", Anomaly.OUTLIER, 0)
    for incident in (unreported, reported):
        incident.significant(0, Anomaly.SPIN, 12.0)
        incident.interrupt()
        assert not incident.lasted(10**12, 5.0)
    assert (unreported.strongest, reported.strongest) == ("", Anomaly.SPIN)


def test_a_kind_with_a_name_is_never_taken_back_for_the_general_one() -> None:
    kinds = [Anomaly.SPIN] * 10 + [Anomaly.OUTLIER] * 100
    assert actions(policy(), [scored(seq, 1e-12, kind) for seq, kind in enumerate(kinds)]) == [(5, Flag("web", SICK, "spin"))]


def test_an_incident_is_over_after_a_quiet_minute_and_what_comes_then_is_another() -> None:
    ticks = [scored(seq, 0.5 if 20 <= seq < 70 else 1e-12) for seq in range(100)]
    assert len(actions(policy(), ticks)) == 1
    ticks = [scored(seq, 0.5 if 20 <= seq < 80 else 1e-12) for seq in range(100)]
    assert actions(policy(), ticks) == [(5, FLAG), (79, over(FLAG, "s-5.0")), (85, FLAG)]


def test_a_gap_ends_the_streak() -> None:
    watches = policy(patience=5.0)
    for seq in range(5):
        assert step(watches, scored(seq, 1e-12)) == []
    watches.skip()
    assert actions(watches, [scored(seq, 1e-12) for seq in range(100, 110)]) == [(105, FLAG)]


def test_a_flag_that_was_not_admitted_is_proposed_until_it_is() -> None:
    watches = policy()
    proposed = [[decision.action for decision in watches.propose(scored(seq, 1e-12))] for seq in range(8)]
    assert proposed == [[]] * 5 + [[FLAG]] * 3


def test_switched_off_it_flags_nothing() -> None:
    assert actions(policy(enabled=False), [scored(seq, 1e-12) for seq in range(50)]) == []


def test_what_is_said_of_a_master_is_reported_and_over_when_it_is_said_no_more() -> None:
    master = ProcId(500, 500)

    def tick(seq: int) -> Tick:
        scores = (a_score(master, 1e-12, Anomaly.CRASH_LOOP),) if seq < 30 else ()
        return a_tick(seq, pools=[a_pool()], scores=scores)

    flag = Flag("web", master, "crash-loop")
    assert actions(policy(action="recycle"), map(tick, range(120))) == [(5, flag), (89, over(flag, "s-5.0"))]


def test_a_crash_loop_is_told_beside_the_zombies_of_the_same_master() -> None:
    master = ProcId(500, 500)

    def tick(seq: int) -> Tick:
        zombie = (a_score(master, 1e-12, Anomaly.ZOMBIE),)
        crash = (a_score(master, 1e-8, Anomaly.CRASH_LOOP),) if 40 <= seq < 60 else ()
        return a_tick(seq, pools=[a_pool()], scores=(*crash, *zombie))

    crash = Flag("web", master, "crash-loop")
    found = actions(policy(), map(tick, range(150)))
    assert found == [(5, Flag("web", master, "zombie")), (45, crash), (119, over(crash, "s-45.0"))]


# --- circles ------------------------------------------------------------------------------------------------------------------


def test_a_circle_is_one_incident_of_all_its_workers_with_who_holds_what() -> None:
    watches = policy()
    decisions = [it for seq in range(2, 60) for it in step(watches, circled(seq, 0))]
    assert [it.action for it in decisions] == [Flag("web", SICK, "deadlock", (OTHER,))]
    text = decisions[0].why.text
    assert "Workers 9001, 9002 of web are deadlocked for" in text
    assert "9001 has waited 3 s for flock on inode 0, held by 9002" in text
    assert "9002 has waited 3 s for flock on inode 1, held by 9001" in text


def test_a_circle_that_gains_a_member_is_the_same_incident() -> None:
    wider = (SICK, OTHER, ProcId(9003, 9003))
    ticks = [circled(seq, 0, (SICK, OTHER) if seq < 20 else wider) for seq in range(2, 60)]
    assert len(actions(policy(), ticks)) == 1


def test_where_nobody_can_tell_who_holds_it_they_are_stuck_together_and_none_is_ended() -> None:
    watches = policy(action="recycle")
    decisions = [it for seq in range(2, 60) for it in step(watches, circled(seq, 0, known=False))]
    assert [it.action for it in decisions] == [Flag("web", SICK, "deadlock", (OTHER,))]
    assert "are stuck together" in decisions[0].why.text
    assert "nicety cannot tell which process holds" in decisions[0].why.rejected[0]


def test_workers_of_a_circle_are_not_reported_as_stuck_besides() -> None:
    stuck = (a_score(SICK, 1e-12, Anomaly.STUCK), a_score(OTHER, 1e-12, Anomaly.STUCK))
    found = actions(policy(), [circled(seq, 0, scores=stuck) for seq in range(2, 60)])
    assert [action for _, action in found] == [Flag("web", SICK, "deadlock", (OTHER,))]


def test_a_worker_reported_as_stuck_is_then_taken_for_deadlocked() -> None:
    stuck = (a_score(SICK, 1e-12, Anomaly.STUCK),)
    ticks = [
        a_tick(seq, pools=[a_pool(size=5)], scores=stuck) if seq < 20 else circled(seq, 19, scores=stuck) for seq in range(200)
    ]
    assert actions(policy(), ticks) == [
        (5, Flag("web", SICK, "stuck")),
        (21, Flag("web", SICK, "deadlock", (OTHER,), "s-5.0")),
    ]


def test_of_a_circle_the_one_that_came_last_is_recycled_and_the_end_is_told() -> None:
    def tick(seq: int) -> Tick:
        if seq >= 10:
            return a_tick(seq, pools=[a_pool(size=5)])
        late = Blocked(OTHER, 9002, a_tick(1).at, "flock on inode 1", SICK)
        early = Blocked(SICK, 9001, a_tick(0).at, "flock on inode 0", OTHER)
        return a_tick(seq, pools=[a_pool(size=5)], deadlocks=(Deadlock((early, late)),))

    flag = Flag("web", SICK, "deadlock", (OTHER,))
    assert actions(policy(action="recycle"), map(tick, range(2, 100))) == [
        (3, flag),
        (3, Recycle("web", OTHER)),
        (69, over(flag, "s-3.0")),
    ]


def test_who_joined_a_circle_after_its_report_is_not_recycled_for_it() -> None:
    """First nobody can tell who holds what, so nothing is done; then the one that came last is one that no report names."""
    joined = ProcId(9004, 9004)
    ticks = [
        circled(seq, 0, known=False) if seq < 20 else circled(seq, 0, (SICK, joined) if seq < 40 else (SICK, OTHER))
        for seq in range(2, 60)
    ]
    found = [action for _, action in actions(policy(action="recycle"), ticks)]
    assert [action for action in found if isinstance(action, Recycle)] == [Recycle("web", SICK)]
    assert all(joined not in (action.worker, *action.others) for action in found if isinstance(action, Flag))


# --- acting -------------------------------------------------------------------------------------------------------------------


def test_on_request_a_worker_is_demoted_and_returned_when_it_is_quiet() -> None:
    found = actions(policy(action="demote"), [scored(seq, 1e-12 if seq < 20 else 0.5) for seq in range(120)])
    assert found == [
        (5, FLAG),
        (5, Set(Control.NICE, ProcessPlace(SICK), 5)),
        (79, Restore(Control.NICE, ProcessPlace(SICK))),
        (79, over(FLAG, "s-5.0")),
    ]


def test_on_request_a_worker_is_recycled_and_forgotten_when_it_is_gone() -> None:
    watches = policy(action="recycle")
    assert actions(watches, [scored(seq, 1e-12) for seq in range(50)]) == [(5, FLAG), (5, Recycle("web", SICK))]
    assert [it.action for it in step(watches, scored(50, None, size=1))] == [over(FLAG, "s-5.0")]
    step(watches, scored(51, None, size=1))
    assert watches.memory.incidents == {}


@pytest.mark.parametrize("action", ["demote", "recycle"])
def test_a_victim_is_reported_but_not_acted_on(action: str) -> None:
    found = actions(policy(action=action), [scored(seq, 1e-12, Anomaly.STARVED) for seq in range(50)])
    assert found == [(5, Flag("web", SICK, "starved"))]


def test_a_circle_that_another_thread_may_end_is_acted_on_after_a_minute() -> None:
    def doubtful(seq: int) -> Tick:
        tick = circled(seq, 0)
        waits = tuple(replace(wait, what=f"{wait.what} ({UNLESS})") for wait in tick.deadlocks[0].waits)
        return msgspec.structs.replace(tick, deadlocks=(Deadlock(waits),))

    found = actions(policy(action="recycle"), map(doubtful, range(10, 70)))
    assert [(seq, type(action)) for seq, action in found] == [(11, Flag), (60, Recycle)]


def fenced(seq: int, p: float, kind: Anomaly, cpu: tuple[float, ...] = (0.2, 0.9, 0.3), **evidence: float) -> Tick:
    """A tick in which the second of three workers has this score; `cpu`: what each uses."""
    pool = a_pool(size=3)
    workers = tuple(
        msgspec.structs.replace(worker, cpu=cores, wait=0.0, rss=rss << 20)
        for worker, cores, rss in zip(pool.workers, cpu, (100, 900, 120), strict=True)
    )
    score = Score(SICK, "web", kind, 9.0, p, tuple(evidence.items()), "anomaly 00")
    return a_tick(seq, pools=[msgspec.structs.replace(pool, workers=workers)], scores=(score,))


@pytest.mark.parametrize(
    ("kind", "limits"),
    [
        (Anomaly.SPIN, (375, 0, 0, 0)),  # 1.5 times the median of its siblings
        (Anomaly.LEAK, (0, 110 << 20, 0, 0)),
        (Anomaly.FORK_STORM, (375, 0, 25, 0)),
    ],
)
def test_a_fence_leaves_a_worker_what_its_siblings_use(kind: Anomaly, limits: tuple[int, ...]) -> None:
    watches = policy(action="fence")
    found = actions(watches, [fenced(seq, 1e-12, kind, siblings_processes_started_per_second=2.5) for seq in range(10)])
    assert [action for _, action in found] == [Flag("web", SICK, kind), Set(Control.FENCE, ProcessPlace(SICK), limits)]


def test_a_fence_leaves_a_tenth_of_a_core_though_siblings_use_nothing() -> None:
    watches = policy(action="fence")
    found = actions(watches, [fenced(seq, 1e-12, Anomaly.SPIN, cpu=(0.0, 0.9, 0.0)) for seq in range(10)])
    assert found[-1][1] == Set(Control.FENCE, ProcessPlace(SICK), (100, 0, 0, 0))


@pytest.mark.parametrize("kind", [Anomaly.STUCK, Anomaly.FD_LEAK, Anomaly.SLOW, Anomaly.STARVED, Anomaly.OUTLIER])
def test_who_takes_nothing_from_others_is_not_fenced_in_and_the_report_says_so(kind: Anomaly) -> None:
    watches = policy(action="fence")
    found = [decision for seq in range(10) for decision in step(watches, fenced(seq, 1e-12, kind))]
    assert [decision.action for decision in found] == [Flag("web", SICK, kind)]
    assert found[0].why.rejected


def test_a_fence_that_would_keep_a_worker_from_nothing_is_not_made() -> None:
    watches = policy(action="fence")
    found = actions(watches, [fenced(seq, 1e-12, Anomaly.SPIN, cpu=(1.0, 0.9, 1.0)) for seq in range(10)])
    assert [action for _, action in found] == [Flag("web", SICK, Anomaly.SPIN)]


@pytest.mark.parametrize("busy", [(0.2, 0.25, 0.3), (0.5, 0.37, 0.4)])  # works like its siblings, or they have more to do by now
def test_a_worker_is_let_out_when_it_is_quiet_and_not_while_it_presses_against_its_fence(busy: tuple[float, ...]) -> None:
    watches = policy(action="fence")
    actions(watches, [fenced(seq, 1e-12, Anomaly.SPIN) for seq in range(10)])
    assert actions(watches, [fenced(seq, 0.5, Anomaly.SPIN, cpu=(0.2, 0.36, 0.3)) for seq in range(10, 200)]) == []
    found = actions(watches, [fenced(seq, 0.5, Anomaly.SPIN, cpu=busy) for seq in range(200, 270)])
    assert [type(action) for _, action in found] == [Restore, Flag]
    assert found[0][1] == Restore(Control.FENCE, ProcessPlace(SICK))


def test_what_a_fenced_worker_lacks_makes_no_victim_of_it() -> None:
    watches = policy(action="fence")
    actions(watches, [fenced(seq, 1e-12, Anomaly.SPIN) for seq in range(10)])
    assert actions(watches, [fenced(seq, 1e-15, Anomaly.STARVED) for seq in range(10, 90)]) == []


@pytest.mark.parametrize(("action", "given_back"), [("fence", "let out of its fence"), ("demote", "nice back to what it was")])
def test_the_reason_of_a_restore_says_what_is_given_back(action: str, given_back: str) -> None:
    watches = policy(action=action)
    ticks = [
        fenced(seq, 1e-12 if seq < 10 else 0.5, Anomaly.SPIN, cpu=(0.2, 0.2, 0.3) if seq >= 10 else (0.2, 0.9, 0.3))
        for seq in range(90)
    ]
    (restored,) = [it for tick in ticks for it in step(watches, tick) if isinstance(it.action, Restore)]
    assert restored.why.text == f"Worker 9001 of web: nothing unusual was seen for 60 s: {given_back}."


def test_a_worker_that_does_not_run_is_not_demoted() -> None:
    watches = policy(action="demote")
    decisions = [it for seq in range(50) for it in step(watches, scored(seq, 1e-12, Anomaly.STUCK))]
    assert [it.action for it in decisions] == [Flag("web", SICK, "stuck")]
    assert decisions[0].why.rejected == ("demoting it: a worker that is stuck does not use the CPU",)


def test_what_the_pool_refused_is_proposed_again() -> None:
    watches = policy(action="recycle")
    for seq in range(6):
        step(watches, scored(seq, 1e-12), Status.REFUSED)
    assert [decision.action for decision in step(watches, scored(6, 1e-12))] == [Recycle("web", SICK)]


def test_a_demotion_that_somebody_else_changed_is_not_returned() -> None:
    watches = policy(action="demote")
    for seq in range(6):
        step(watches, scored(seq, 1e-12))
    watches.learn(Result(Set(Control.NICE, ProcessPlace(SICK), 5), "group web pid 9001", Status.FOREIGN, 0))
    assert actions(watches, [scored(seq, 0.5) for seq in range(6, 120)]) == [(65, over(FLAG, "s-5.0"))]


# --- lessons ------------------------------------------------------------------------------------------------------------------


def a_feedback(value: float, kind: str = "leak", pool: str = "web", id_: str = "old-1.0") -> Feedback:
    return Feedback(id_, pool, kind, value, 0)


def test_what_was_called_wrong_is_reported_only_if_it_is_stronger() -> None:
    def found(*feedback: Feedback) -> int:
        return len(actions(policy(), [scored(seq, 1e-12, feedback=feedback) for seq in range(50)]))

    assert found(a_feedback(9.0)) == 0
    assert found(a_feedback(6.1)) == 0, "within the scatter of what was wrong"
    assert found(a_feedback(5.9)) == 1
    assert found(a_feedback(9.0, kind="spin"), a_feedback(9.0, pool="db")) == 1, "another pattern"


def test_what_is_called_wrong_while_it_lasts_is_over_at_once_and_given_back() -> None:
    watches = policy(action="demote")
    ticks = [scored(seq, 1e-12, feedback=(a_feedback(9.0, id_="s-5.0"),) if seq >= 10 else ()) for seq in range(50)]
    assert actions(watches, ticks) == [
        (5, FLAG),
        (5, Set(Control.NICE, ProcessPlace(SICK), 5)),
        (10, Restore(Control.NICE, ProcessPlace(SICK))),
        (10, over(FLAG, "s-5.0")),
    ]


def test_a_circle_that_was_called_wrong_must_last_longer() -> None:
    feedback = (a_feedback(20.0, "deadlock"),)
    found = actions(policy(), [circled(seq, 0, feedback=feedback) for seq in range(60)])
    assert found == [(32, Flag("web", SICK, "deadlock", (OTHER,)))]


# --- the budget ---------------------------------------------------------------------------------------------------------------


def test_beyond_the_budget_incidents_are_summed_up_once_an_hour_and_not_acted_on() -> None:
    watches = policy(action="recycle", alarms_per_day=2)
    pool = a_pool(size=8)
    found = list[tuple[int, Decision]]()
    for seq in range(3700):
        sick = [] if seq < 3 else pool.workers[: 4 if seq < 2000 else 6]
        scores = tuple(a_score(worker.id, 1e-12) for worker in sick)
        found += [(seq, it) for it in step(watches, a_tick(seq, pools=[pool], scores=scores))]
    flags = [it.action for _, it in found if isinstance(it.action, Flag)]
    assert flags == [Flag("web", worker.id, "leak") for worker in pool.workers[:2]]
    assert [it.action.worker for _, it in found if isinstance(it.action, Recycle)] == [it.id for it in pool.workers[:2]]
    assert [(seq, it.action) for seq, it in found if isinstance(it.action, Digest)] == [(8, Digest(2)), (3608, Digest(2))]
    assert "2 leak in web" in found[-1][1].why.text


def test_the_budget_is_there_again_after_a_day() -> None:
    watches = policy(alarms_per_day=1)
    assert actions(watches, [scored(seq, 1e-12) for seq in range(10)]) == [(5, FLAG)]
    assert actions(watches, [scored(70, 0.5)]) == [(70, over(FLAG, "s-5.0"))]
    assert actions(watches, [scored(86_390 + seq, 1e-12) for seq in range(20)]) == [(86_395, Digest(1))]
    assert actions(watches, [scored(86_500 + 100 * seq, 0.5) for seq in range(3)]) == []
    assert actions(watches, [scored(90_000 + seq, 1e-12) for seq in range(10)]) == [(90_005, FLAG)]


# --- the neighbour ------------------------------------------------------------------------------------------------------------


def test_a_starved_worker_names_its_neighbour_with_cores_and_nice() -> None:
    starved = StarvedWorker(
        a_member(9001, 300),
        (0,),
        20.0,
        (Antagonist("hogs", 0.93, 0, 200, "/"), Antagonist("cron", 0.02, 5, 1, "/")),
    )
    watches = policy(patience=1.0)
    step(watches, scored(0, 1e-12, Anomaly.STARVED, starved_workers=(starved,)))
    (decision,) = step(watches, scored(1, 1e-12, Anomaly.STARVED, starved_workers=(starved,)))
    assert "hogs runs there: 0.93 cores on CPU 0 where it waits, at nice 0 against its 0, in another session" in decision.why.text
    assert (decision.why.figures["neighbour"], decision.why.figures["neighbour_cores"]) == ("hogs", 0.93)
