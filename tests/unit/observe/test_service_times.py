"""Service times from the answers of the last minutes."""

from __future__ import annotations

import numpy as np
import pytest

from nicety.models.records import Flights
from nicety.scheduler.observe.service_times import ServiceTimes

SECOND = 1_000_000_000


def followed(times: ServiceTimes, begin: int, seconds: int, rate: int, mean: float, seed: int = 1) -> list[float]:
    """Every service time of so many seconds, in which `rate` answers end each second. Log-normal."""
    chance, drawn = np.random.default_rng(seed), list[float]()
    for second in range(begin, begin + seconds):
        took = sorted(chance.lognormal(np.log(mean) - 0.32, 0.8, rate).tolist())
        drawn += took
        sample = took if rate <= 64 else [took[int((at + 0.5) * rate / 64)] for at in range(64)]
        times.step(second * SECOND, Flights(1.0, rate, tuple(sample)))
    return drawn


@pytest.mark.parametrize(("rate", "mean"), [(5, 0.2), (40, 0.05), (500, 0.01), (1, 5.0)])
def test_mean_quantile_and_rate_are_those_of_the_answers(rate: int, mean: float) -> None:
    times = ServiceTimes()
    drawn = followed(times, 0, 300, rate, mean)
    found = times.step(300 * SECOND, Flights(0.0, 0, ()))
    assert found is not None
    assert found.mean == pytest.approx(np.mean(drawn), rel=0.1)
    assert found.p95 == pytest.approx(np.quantile(drawn, 0.95), rel=0.15)
    assert found.arrivals == pytest.approx(rate, rel=0.05)


def test_nothing_is_known_of_a_few_answers_or_of_none() -> None:
    times = ServiceTimes()
    followed(times, 0, 5, 5, 0.2)
    assert times.step(5 * SECOND, None) is None
    assert times.step(6 * SECOND, Flights(1.0, 6, (0.1,))) is not None


def test_times_of_another_day_are_forgotten() -> None:
    times = ServiceTimes()
    followed(times, 0, 300, 20, 0.2)
    followed(times, 300, 1500, 20, 0.02)
    found = times.step(1800 * SECOND, None)
    assert found is not None
    assert found.mean == pytest.approx(0.02, rel=0.1)


def test_the_same_answers_give_the_same_values() -> None:
    one, other = ServiceTimes(), ServiceTimes()
    followed(one, 0, 60, 9, 0.3)
    followed(other, 0, 60, 9, 0.3)
    assert one.step(60 * SECOND, None) == other.step(60 * SECOND, None)
