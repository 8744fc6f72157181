"""Distributions from observations that only bound a duration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nicety.models.durations import Durations, Histogram, quantiles


def test_what_is_seen_exactly_comes_back() -> None:
    durations, rng = Durations(), np.random.default_rng(1)
    times = rng.lognormal(-2.0, 0.7, 400)
    durations.step(times, times)
    for level in (0.5, 0.95):
        assert durations.quantile(level) == pytest.approx(np.quantile(times, level), rel=0.06)


def test_bounds_as_wide_as_the_gap_still_give_one_length() -> None:
    """All take 0.1 s, and end somewhere in the 0.2 s after they were seen in flight."""
    durations, rng = Durations(), np.random.default_rng(2)
    for _ in range(40):
        age = rng.uniform(0.0, 0.1, 20)
        durations.step(age, age + 0.2, gap=0.2, followed=0.0)
    assert durations.quantile(0.5) == pytest.approx(0.1, rel=0.1)
    assert durations.quantile(0.95) == pytest.approx(0.1, rel=0.15)


def test_short_ones_that_no_look_saw_are_counted_with_those_that_one_did() -> None:
    durations, rng = Durations(), np.random.default_rng(3)
    times = rng.exponential(0.1, 4000)
    seen = times[rng.random(4000) < np.minimum(times / 0.2, 1.0)]
    durations.step(seen[:500], seen[:500], gap=0.2, followed=0.0)
    for _ in range(10):
        durations.step(seen[:500], seen[:500], gap=0.2, followed=0.0)
    assert durations.quantile(0.5) == pytest.approx(np.quantile(times, 0.5), rel=0.15)
    assert np.quantile(seen, 0.5) > 1.5 * np.quantile(times, 0.5), "what is seen alone is longer"


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.floats(-1.0, 2e3), st.floats(-1.0, 2e3)), min_size=1, max_size=40),
    st.floats(0.0, 2.0),
    st.floats(0.0, 1.0),
)
def test_any_bounds_give_rising_quantiles_within_the_bins(bounds: list[tuple[float, float]], gap: float, followed: float) -> None:
    durations = Durations()
    low, high = np.array(bounds).T
    added = durations.step(low, high, gap=gap, followed=followed)
    found = quantiles(added, np.linspace(0.01, 0.99, 20))
    assert np.isfinite(found).all()
    assert (np.diff(found) >= 0.0).all()
    assert added.sum() >= len(bounds) * 0.99


def test_a_histogram_forgets_and_says_nothing_when_it_is_empty() -> None:
    histogram = Histogram()
    assert (histogram.mean(), histogram.quantile(0.5)) == (None, None)
    histogram.add(np.array([0.1, 0.1, 0.2]), 2.0)
    assert histogram.weight == 6.0
    assert histogram.mean() == pytest.approx(0.4 / 3, rel=0.05)
    histogram.fade(0.0)
    assert histogram.mean() is None
