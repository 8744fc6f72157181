"""What does not matter: how often it comes up is learned, and as much of it is reported as somebody asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

from nicety.models.anomaly.detectors import LEAST
from nicety.models.identity import ProcId
from nicety.models.records import Anomaly, Score
from nicety.scheduler.config.sections import Config
from nicety.scheduler.config.sections import Quarantine as Section
from nicety.scheduler.decide.policies.quarantine.quarantine import Quarantine, QuarantineMemory
from nicety.scheduler.decide.policies.quarantine.threshold import ENOUGH, Watched, chance, forget, reported_from, watch
from nicety.scheduler.decision import Flag, Set, Tick
from nicety.scheduler.testing.policies import admitted
from nicety.scheduler.testing.ticks import a_pool, a_tick

SECOND = 1_000_000_000
DAY = 86_400.0


def after(seconds: float, *episodes: tuple[float, float], reported: bool = False, workers: int = 100) -> Watched:
    """What is known after so long; each episode is of a worker of its own: (size, seconds that it lasted), all at the start."""
    memory = Watched()
    for second in range(200):
        sizes = {str(number): (size, reported) for number, (size, lasted) in enumerate(episodes) if second < lasted}
        watch(memory, second * SECOND, workers, sizes, 5.0, 0.8)
    watch(memory, round(seconds * SECOND), workers, {}, 5.0, 0.8)
    return memory


def test_without_history_nothing_is_reported_that_does_not_matter() -> None:
    assert reported_from(Watched(), 1000.0) == math.inf
    assert reported_from(after(200, (0.6, 10)), 10.0) == math.inf


def test_what_never_came_is_reported_once_one_would_have_been_accepted() -> None:
    """One a day per 100 workers: after more than a day of 100 workers."""
    assert reported_from(after(0.9 * DAY), 1.0) == math.inf
    assert reported_from(after(1.1 * DAY), 1.0) == LEAST


def test_what_came_too_often_is_not_reported_and_what_is_larger_is() -> None:
    memory = after(3.5 * DAY, (0.6, 10), (0.6, 10), (0.6, 10), (0.9, 10))
    assert 0.6 < reported_from(memory, 1.0) < 0.66
    assert reported_from(memory, 10.0) == LEAST


def test_what_does_not_last_does_not_count_nor_does_what_matters() -> None:
    assert after(200, (0.9, 5), (0.9, 10)).counts[0] == 1
    assert after(200, (0.9, 10), reported=True).counts[0] == 0


def test_the_least_size_counts_by_itself_and_what_is_smaller_does_not() -> None:
    assert after(200, (LEAST, 10)).counts[:2] == [1, 0]
    assert not any(after(200, (0.99 * LEAST, 10)).counts)


def test_what_is_not_over_counts_too() -> None:
    memory = after(200, (0.9, 1000))
    assert memory.counts[0] == 0
    assert chance(memory, 0.9) == 2 / (200 * 100 / 60)
    assert chance(memory, 1.1) == 1 / (200 * 100 / 60)


def test_the_rate_stays_when_what_was_counted_is_halved() -> None:
    memory = after(DAY, *[(0.7, 10)] * 40)
    assert chance(memory, 0.7) == pytest.approx(41 / (DAY * 100 / 60))
    forget(memory, ENOUGH - 1)
    assert memory.worker_seconds == DAY * 100
    forget(memory, ENOUGH)
    assert memory.worker_seconds == DAY * 50
    assert chance(memory, 0.7) == pytest.approx(21 / (DAY * 50 / 60))


# --- through the policy -------------------------------------------------------------------------------------------------------

SICK = ProcId(9001, 9001)


def ticks(count: int, size: float, p: float = 1.0) -> Iterator[Tick]:
    """A quiet day of 100 workers, and then one that stays so."""
    pool = a_pool(size=100)
    for seq in (0, 1, 86_400):
        yield a_tick(seq, pools=[pool])
    for seq in range(86_401, 86_401 + count):
        score = Score(SICK, "web", Anomaly.STUCK, 9.0, p, (("seconds_without_progress", 7.0),), "test", size)
        yield a_tick(seq, pools=[pool], scores=(score,))


def actions(policy: Quarantine, over: Iterator[Tick]) -> list[object]:
    found = list[object]()
    for tick in over:
        found += [decision.action for decision in admitted(policy, tick)]
    return found


def policy(**changes: object) -> Quarantine:
    return Quarantine(Config(quarantine=Section(**changes)), QuarantineMemory())  # type: ignore[arg-type]


def test_by_default_nothing_is_reported_that_does_not_matter() -> None:
    assert actions(policy(), ticks(100, 0.95)) == []


def test_who_accepts_more_gets_smaller_things_reported_and_nothing_done_about_them() -> None:
    assert actions(policy(false_alarms_per_day=10.0, action="fence"), ticks(30, 0.7)) == [Flag("web", SICK, "stuck")]
    assert actions(policy(false_alarms_per_day=10.0), ticks(30, 0.05)) == []
    mattering = actions(policy(false_alarms_per_day=10.0, action="recycle"), ticks(30, 1.0, 1e-12))
    assert len(mattering) == 2


def test_the_report_says_how_small_it_is_and_how_rare_here() -> None:
    watches = policy(false_alarms_per_day=10.0, action="demote")
    decisions = [decision for tick in ticks(10, 0.7) for decision in watches.propose(tick)]
    why = decisions[0].why
    assert "That is 70 % of what is reported by default. 1 in 72,000 healthy worker-minutes look like this" in why.text
    assert why.figures["p"] == pytest.approx(2 / 144_000, rel=0.01)
    assert why.figures["alpha"] == pytest.approx(10 / 144_000)
    assert "too small to matter" in why.rejected[0]
    assert not any(isinstance(decision.action, Set) for decision in decisions)


@pytest.mark.parametrize("accepted", [100.0, 300.0])
def test_as_many_come_as_were_accepted(accepted: float) -> None:
    """12 hours of 100 workers, in each of whose minutes something of a random size comes up with a chance of 2 %."""
    rng, pool, found = np.random.default_rng(1), a_pool(size=100), 0
    watches = policy(false_alarms_per_day=accepted, alarms_per_day=100_000)
    episodes: dict[ProcId, tuple[float, int]] = {}
    for number in range(12 * 720):
        for worker in rng.choice(100, rng.poisson(100 * 0.02 / 12), replace=False).tolist():
            id_ = pool.workers[worker].id
            episodes.setdefault(id_, (0.5 + float(rng.exponential(0.15)), number + int(rng.integers(2, 10))))
        episodes = {id_: it for id_, it in episodes.items() if it[1] >= number}
        scores = [Score(id_, "web", Anomaly.STUCK, 9.0, 1.0, (), "test", size) for id_, (size, _) in sorted(episodes.items())]
        tick = a_tick(number, pools=[pool], scores=tuple(scores), interval=5.0)
        for decision in admitted(watches, tick):
            found += isinstance(decision.action, Flag) and not decision.action.incident
    assert 0.5 * accepted / 2 <= found <= 2 * accepted / 2
