"""The quarantine policy: reports what lasts, once, and acts only on request."""

from __future__ import annotations

import pytest

from nicety.models.anomaly import alpha
from nicety.models.records import Anomaly, ProcId, Score
from nicety.scheduler.config import Config
from nicety.scheduler.config import Quarantine as Section
from nicety.scheduler.decision import Control, Decision, Flag, Recycle, Restore, Set, Status, Tick
from nicety.scheduler.policies.policy import Result
from nicety.scheduler.policies.quarantine import Quarantine, QuarantineMemory
from nicety.scheduler.testing.ticks import a_pool, a_tick

SICK = ProcId(9001, 9001)


def policy(**changes: object) -> Quarantine:
    return Quarantine(Config(quarantine=Section(**changes)), QuarantineMemory())  # type: ignore[arg-type]


def scored(seq: int, p: float | None, kind: Anomaly = Anomaly.LEAK, size: int = 3) -> Tick:
    """A tick in which the second worker has this p, and the others are healthy."""
    pool = a_pool(size=size)
    scores = [
        Score(
            worker.id,
            "web",
            kind,
            9.0,
            p if p is not None and worker.id == SICK else 0.4,
            (("rss_growth_bytes_per_s", 1e6),),
            "anomaly 00",
        )
        for worker in pool.workers
        if worker.id != SICK or p is not None
    ]
    return a_tick(seq, pools=[pool], scores=tuple(scores))


def step(watches: Quarantine, tick: Tick, status: Status = Status.APPLIED) -> list[Decision]:
    decisions = watches.propose(tick)
    for decision in decisions:
        watches.admit(decision)
    for decision in decisions:
        watches.learn(Result(decision.action, decision.target, status, tick.at))
    return decisions


def actions(watches: Quarantine, ticks: list[Tick]) -> list[tuple[int, object]]:
    return [(tick.seq, decision.action) for tick in ticks for decision in step(watches, tick)]


def test_a_score_that_stays_significant_for_patience_is_flagged_once() -> None:
    assert actions(policy(patience=5.0), [scored(seq, 1e-12) for seq in range(100)]) == [(5, Flag("web", SICK, "leak"))]


def test_the_reason_names_kind_p_evidence_and_siblings() -> None:
    watches = policy(patience=1.0)
    step(watches, scored(0, 1e-12))
    (decision,) = step(watches, scored(1, 1e-12))
    assert decision.why.rule == "score of leak"
    assert decision.why.figures["p"] == 1e-12
    assert decision.why.figures["alpha"] == alpha(1.0)
    assert decision.why.figures["evidence_rss_growth_bytes_per_s"] == 1e6
    assert (decision.why.figures["siblings"], decision.why.figures["unusual_siblings"]) == (2, 0)


@pytest.mark.parametrize("between", [0.5, None], ids=["not significant", "no score"])
def test_one_ordinary_tick_ends_the_streak(between: float | None) -> None:
    ticks = [scored(seq, between if seq % 5 == 4 else 1e-12) for seq in range(100)]
    assert actions(policy(patience=4.0), ticks) == []


def test_the_threshold_is_the_users_false_alarms_a_day() -> None:
    p = alpha(2.0)
    assert actions(policy(patience=1.0, false_alarms_per_day=1.9), [scored(seq, p) for seq in range(10)]) == []
    assert len(actions(policy(patience=1.0, false_alarms_per_day=2.1), [scored(seq, p) for seq in range(10)])) == 1


def test_kinds_that_alternate_are_each_flagged_for_the_time_they_had() -> None:
    ticks = [scored(seq, 1e-12, Anomaly.LEAK if seq % 3 else Anomaly.OUTLIER) for seq in range(40)]
    found = actions(policy(patience=5.0), ticks)
    assert [action for _, action in found] == [Flag("web", SICK, "leak"), Flag("web", SICK, "outlier")]


def test_an_incident_is_reported_again_only_after_a_quiet_minute() -> None:
    ticks = [scored(seq, 0.5 if 20 <= seq < 70 else 1e-12) for seq in range(100)]
    assert len(actions(policy(), ticks)) == 1
    ticks = [scored(seq, 0.5 if 20 <= seq < 80 else 1e-12) for seq in range(100)]
    assert [seq for seq, _ in actions(policy(), ticks)] == [5, 85]


def test_a_gap_ends_the_streak() -> None:
    watches = policy(patience=5.0)
    for seq in range(5):
        assert step(watches, scored(seq, 1e-12)) == []
    watches.skip()
    assert actions(watches, [scored(seq, 1e-12) for seq in range(100, 110)]) == [(105, Flag("web", SICK, "leak"))]


def test_on_request_a_worker_is_demoted_and_returned_when_it_is_quiet() -> None:
    found = actions(policy(action="demote"), [scored(seq, 1e-12 if seq < 20 else 0.5) for seq in range(120)])
    assert found == [
        (5, Flag("web", SICK, "leak")),
        (5, Set(Control.NICE, SICK, "", 5)),
        (79, Restore(Control.NICE, SICK, "")),
    ]


def test_on_request_a_worker_is_recycled_and_forgotten_when_it_is_gone() -> None:
    watches = policy(action="recycle")
    found = actions(watches, [scored(seq, 1e-12) for seq in range(50)])
    assert found == [(5, Flag("web", SICK, "leak")), (5, Recycle("web", SICK))]
    step(watches, scored(50, None, size=1))
    assert watches.memory.workers == {}


def test_a_victim_is_reported_but_not_acted_on() -> None:
    found = actions(policy(action="recycle"), [scored(seq, 1e-12, Anomaly.STARVED) for seq in range(50)])
    assert found == [(5, Flag("web", SICK, "starved"))]


def test_what_the_pool_refused_is_proposed_again() -> None:
    watches = policy(action="recycle")
    for seq in range(6):
        step(watches, scored(seq, 1e-12), Status.REFUSED)
    assert [decision.action for decision in step(watches, scored(6, 1e-12))] == [Recycle("web", SICK)]


def test_a_flag_that_was_not_admitted_is_proposed_until_it_is() -> None:
    watches = policy()
    proposed = [[decision.action for decision in watches.propose(scored(seq, 1e-12))] for seq in range(8)]
    assert proposed == [[]] * 5 + [[Flag("web", SICK, "leak")]] * 3


def test_switched_off_it_flags_nothing() -> None:
    assert actions(policy(enabled=False), [scored(seq, 1e-12) for seq in range(50)]) == []


def test_a_demotion_that_somebody_else_changed_is_not_returned() -> None:
    watches = policy(action="demote")
    for seq in range(6):
        step(watches, scored(seq, 1e-12))
    watches.learn(Result(Set(Control.NICE, SICK, "", 5), "group web pid 9001", Status.FOREIGN, 0))
    assert actions(watches, [scored(seq, 0.5) for seq in range(6, 120)]) == []
