"""The capacity of a worker: found where requests become slower, and not before."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicety.models.capacity import Capacity


def learned(held: Callable[[int], float], seconds: Callable[[float], float], ticks: int, seed: int = 0) -> Capacity:
    capacity, rng = Capacity(1.0), np.random.default_rng(seed)
    for tick in range(ticks):
        now = held(tick) * math.exp(0.1 * rng.standard_normal())
        capacity.step(now, seconds(now) * math.exp(0.1 * rng.standard_normal()), 20)
    return capacity


def wave(tick: int) -> float:
    return 4.0 + 2.0 * math.sin(tick / 30)


def burst(tick: int) -> float:
    return wave(tick) + (14.0 if 200 <= tick < 240 else 0.0)


@pytest.mark.parametrize("threads", [4, 8, 12])
def test_the_number_of_threads_is_found_once_more_requests_than_that_were_held(threads: int) -> None:
    known = learned(burst, lambda held: 0.1 * max(1.0, held / threads), 400).known()
    assert known == pytest.approx(threads, rel=0.2)


def test_a_worker_that_computes_serves_one_at_a_time() -> None:
    known = learned(burst, lambda held: 0.02 * (1.0 + held), 400).known()
    assert known is not None
    assert known < 3.0


def test_nothing_is_known_as_long_as_requests_take_the_same_time_but_what_went_well_counts() -> None:
    capacity = learned(burst, lambda held: 0.1, 400)
    assert capacity.known() is None
    assert 12.0 < capacity.least() < 24.0
    assert learned(wave, lambda held: 0.1, 400).least() < 8.5


def test_before_anything_is_known_what_is_held_counts_as_what_can_be_held() -> None:
    capacity = Capacity(1.0)
    assert capacity.least() == 1.0
    capacity.step(16.0, 0.1, 10)
    assert capacity.least() == 16.0
    assert capacity.known() is None


def test_a_slow_backend_is_no_lack_of_capacity_for_long() -> None:
    """It triples all times; the pool grows, and each worker holds few requests that are as slow."""
    capacity = learned(wave, lambda held: 0.1, 200)
    for _ in range(30):
        capacity.step(12.0, 0.3, 20)
    assert capacity.known() is not None
    for tick in range(240):
        capacity.step(wave(tick), 0.3, 20)
    assert capacity.known() is None


@given(st.lists(st.tuples(st.floats(0.0, 1e5), st.none() | st.floats(0.0, 1e4), st.integers(0, 1000)), max_size=60))
def test_whatever_is_seen_a_worker_serves_one_request_and_the_same_steps_give_the_same(
    steps: list[tuple[float, float | None, int]],
) -> None:
    one, other = Capacity(1.0), Capacity(1.0)
    for step in steps:
        one.step(*step)
        other.step(*step)
    assert one.least() >= 1.0
    assert (one.known() or 1.0) >= 1.0
    assert (one.known(), one.least()) == (other.known(), other.least())
