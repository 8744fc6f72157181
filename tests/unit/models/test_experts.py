"""The experts: each says what its textbook says, and a series is on its own whatever else goes on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nicety.models.forecast.experts import (
    CALENDAR,
    EXPERTS,
    FLAT,
    FORGET,
    LEVELS,
    PAST,
    PRIOR,
    REACH,
    SMOOTHING,
    TOLD,
    ExpertOutlook,
    Experts,
    Floats,
)
from nicety.models.records import HORIZONS

START = 1_700_000_000.0
"""A time as good as any."""


def run(series: Floats, interval: float = 1.0, at: float = START, slots: int | None = None) -> tuple[Experts, list[ExpertOutlook]]:
    """Outlooks after each value of series [n, ticks]."""
    n, ticks = series.shape
    experts = Experts(slots or n, interval)
    values = np.zeros((experts.slots, ticks))
    values[:n] = series
    seen = [
        experts.step(values[:, tick], np.full(experts.slots, at + tick * interval), np.full(experts.slots, tick == 0))
        for tick in range(ticks)
    ]
    return experts, seen


def said(seen: ExpertOutlook, expert: str, horizon: int, series: int = 0) -> float:
    """What an expert says, in the series' own values."""
    at = HORIZONS.index(horizon), EXPERTS.index(expert), series
    return float(seen.points[at] * seen.unit[series])


def noise(series: int, ticks: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).gamma(4, 0.25, (series, ticks))


def figures(seen: ExpertOutlook, series: int) -> list[Any]:
    return [array[..., series] for array in (seen.unit, seen.points, seen.base, seen.spread, seen.tails, seen.level)]


def size(experts: Experts) -> int:
    """Bytes of its arrays."""
    return sum(array.nbytes for array in experts.state.values())


@pytest.mark.parametrize("rate", SMOOTHING)
def test_a_mean_is_the_average_at_first_and_exponentially_weighted_later(rate: float) -> None:
    series = noise(1, 300)
    level = 0.0
    _, seen = run(series)
    for tick, value in enumerate(series[0]):
        level += max(rate, 1 / (tick + 1)) * (value - level)
        assert said(seen[tick], f"mean {rate:g}", 6) == pytest.approx(level, rel=1e-4)


@pytest.mark.parametrize("size", [9, 25])
def test_a_median_is_that_of_the_last_values(size: int) -> None:
    series = noise(1, 80)
    _, seen = run(series)
    for tick in range(size - 1, 80):
        assert said(seen[tick], f"median {size}", 1) == pytest.approx(np.median(series[0, tick + 1 - size : tick + 1]), rel=1e-5)


@pytest.mark.parametrize("period", [3, 7, 30, 61, 120])
def test_a_period_is_found_and_predicted(period: int) -> None:
    shape = noise(1, period, seed=period)[0] * 3
    series = np.tile(shape, 600 // period + 2)[None, :600]
    experts, seen = run(series)
    assert experts.period[0] == period
    for horizon in HORIZONS:
        expected = series[0, (599 + horizon) % period]
        assert said(seen[-1], "period", horizon) == pytest.approx(expected, rel=1e-5)
        assert seen[-1].base[HORIZONS.index(horizon), 0] * seen[-1].unit[0] == pytest.approx(expected, rel=0.02)


def test_a_regression_on_the_last_value_is_learned() -> None:
    rng = np.random.default_rng(5)
    series = np.zeros(800)
    for tick in range(1, 800):  # alternates: no mean and no last value can say so
        series[tick] = -0.8 * series[tick - 1] + rng.normal(0, 0.3)
    series += 10
    _, seen = run(series[None])
    errors = {
        name: np.mean([abs(said(seen[tick], name, 1) - series[tick + 1]) for tick in range(400, 799)])
        for name in ("regression", "last value", "mean 0.07")
    }
    assert errors["regression"] < 0.7 * errors["mean 0.07"] < 0.7 * errors["last value"]


@pytest.mark.parametrize(("name", "seconds", "bins"), [("day", 600, 144), ("hour", 60, 60), ("week", 3600, 168)])
def test_a_profile_by_the_clock_predicts_what_comes_each_time(name: str, seconds: int, bins: int) -> None:
    """One value a bin, and a burst at one of them that comes too rarely to be seen among the last values."""
    ticks = bins * 3 + bins // 2
    start = START - START % (seconds * bins)  # the first bin begins
    ahead = np.arange(ticks) % bins
    burst = (ticks - 1 + 3) % bins
    _, seen = run(np.where(ahead == burst, 9.0, 1.0)[None], interval=seconds, at=start)
    assert said(seen[-1], name, 3) == pytest.approx(9.0, abs=0.6)
    assert said(seen[-1], name, 6) == pytest.approx(1.0, abs=0.6)
    assert said(seen[-1], "last value", 3) == 1.0


def test_a_profile_knows_what_comes_also_at_a_time_that_it_never_saw() -> None:
    """Begun at half past, it meets the first half of an hour for the first time, and knows what came at half past."""
    start = START - START % 3600 + 1800
    _, seen = run(np.where(np.arange(60) == 0, 9.0, 1.0)[None], interval=60, at=start)
    assert said(seen[-1], "hour", 1) == pytest.approx(9.0)
    assert said(seen[-1], "hour", 3) == pytest.approx(1.0)


def test_the_common_point_follows_whoever_was_right_lately() -> None:
    steady = 5 + np.tile([1.0, -1.0], 200)  # the mean is right, the last value never is
    walk = np.cumsum(np.random.default_rng(3).normal(0, 1, 400)) + 100
    _, seen = run(np.stack([steady, walk]))
    assert seen[-1].base[2, 0] * seen[-1].unit[0] == pytest.approx(steady[(399 + 6) % 2], abs=0.1)
    errors = [abs(seen[t].base[0, 1] * seen[t].unit[1] - walk[t + 1]) for t in range(200, 399)]
    last = [abs(walk[t] - walk[t + 1]) for t in range(200, 399)]
    assert np.mean(errors) < 1.1 * np.mean(last)


def test_the_spread_is_the_mean_size_of_the_errors() -> None:
    series = noise(1, 1500)
    _, seen = run(series)
    for h, horizon in enumerate(HORIZONS):
        missed = [abs(seen[t].base[h, 0] * seen[t].unit[0] - series[0, t + horizon]) for t in range(600, 1400)]
        expected = [seen[t].spread[h, 0] * seen[t].unit[0] for t in range(600, 1400)]
        assert np.mean(expected) == pytest.approx(np.mean(missed), rel=0.05)


def test_the_tails_are_met_as_often_as_their_level_says() -> None:
    series = noise(20, 700)
    _, seen = run(series)
    for h, horizon in enumerate(HORIZONS):
        below = np.array(
            [
                series[None, :, t + horizon] <= (seen[t].base[h] + seen[t].spread[h] * seen[t].tails[h]) * seen[t].unit
                for t in range(300, 660)
            ]
        )
        assert np.allclose(below.mean(axis=(0, 2)), LEVELS, atol=0.03)


def test_rare_errors_are_known_up_to_24_times_the_mean_size() -> None:
    """Some jumps, at random, of a series that else stands still."""
    jumps = np.random.default_rng(2).random(600) < 1 / 60
    jumps[-3] = True
    _, seen = run(np.where(jumps, 50.0, 1.0)[None])
    highest = seen[-1].tails[0, LEVELS.index(0.99), 0]
    assert 12 < highest <= REACH == 24


def test_an_expert_weighs_by_the_twelfth_power_of_what_it_lost() -> None:
    experts, seen = run(jumpy(3, 200))
    weight = experts.state["loss"].astype(np.float64) ** -12
    agreed = (weight * seen[-1].points).sum(axis=1) / weight.sum(axis=1)
    assert np.allclose(seen[-1].base, agreed, rtol=1e-4)


def jumpy(series: int, ticks: int) -> Floats:
    """Series whose period changes, with bursts, so that no expert is right for long."""
    values = noise(series, ticks, seed=4)
    for which in range(series):
        values[which, (np.arange(ticks) % (5 + 11 * which + (np.arange(ticks) > ticks // 2) * 40)) < 3] += 4
    return values


def test_losses_are_those_of_what_the_experts_said_then() -> None:
    """Most of what they said is not kept but worked out again when it comes true."""
    series = jumpy(6, 420)
    experts = Experts(6, 60.0)
    losses, told, biggest = (
        np.zeros((len(HORIZONS), len(EXPERTS), 6)),
        list[ExpertOutlook](),
        np.zeros((len(HORIZONS), len(EXPERTS), 6)),
    )
    for tick in range(420):
        told.append(experts.step(series[:, tick], np.full(6, START + 60 * tick), np.full(6, tick == 0)))
        y = series[:, tick] / told[0].unit
        if tick == 0:
            losses[:] = experts.state["loss"]  # what is believed before any error was seen
        for h, horizon in enumerate(HORIZONS):
            if tick >= horizon:
                then = told[tick - horizon]
                rate = max(FORGET, 1 / (tick - horizon + 3))
                losses[h] += rate * (np.abs(y - then.points[h]) - losses[h])
                biggest[h] += rate * (np.abs(then.points[h] - then.base[h]) - biggest[h])
    found = experts.state["loss"]
    assert np.allclose(found[:, :TOLD], losses[:, :TOLD], rtol=1e-4)
    assert (np.abs(found - losses)[:, TOLD:] <= biggest[:, TOLD:] / 256).all()  # kept in two bytes
    assert (biggest[:, TOLD:] > 0.01).all()


def test_the_regression_is_the_least_squares_of_what_was_known_then() -> None:
    series = jumpy(4, 300)
    experts = Experts(4, 1.0)
    weights, covariance = np.zeros((len(HORIZONS), 4, 3)), np.tile(np.eye(3) * 3.0, (len(HORIZONS), 4, 1, 1))
    known: list[tuple[Floats, Floats]] = []  # centre and inputs [H, 4, 3] at each tick
    scale, off = np.full(4, 1e-9), list[Floats]()
    for tick in range(300):
        seen = experts.step(series[:, tick], np.full(4, START + tick), np.full(4, tick == 0))
        y = series[:, tick] / seen.unit
        for h, horizon in enumerate(HORIZONS):
            for which in range(4 if tick >= horizon else 0):
                then, p = known[tick - horizon], covariance[h, which]
                centre, x = then[0][which], then[1][h, which]
                gain = p @ x / (0.99 + x @ p @ x)
                error = np.clip((y[which] - centre) / scale[which], -8, 8) - weights[h, which] @ x
                weights[h, which] = np.clip(weights[h, which] + gain * error, -2, 2)
                covariance[h, which] = np.clip((p - np.outer(gain, p @ x)) / 0.99, -30, 30)
        mean, centre = (seen.points[0, EXPERTS.index(f"mean {rate:g}")].astype(float) for rate in (0.2, 0.07))
        scale = np.maximum(experts.state["deviation"].astype(float), 1e-9)
        season = seen.points[:, FLAT].astype(float)
        inputs = np.stack([np.broadcast_to(y, season.shape), np.broadcast_to(mean, season.shape), season], axis=2)
        known.append((centre, np.clip((inputs - centre[:, None]) / scale[:, None], -8, 8)))
        expected = centre + scale * np.clip((weights * known[-1][1]).sum(axis=2), -8, 8)
        off.append(np.abs(seen.points[:, EXPERTS.index("regression")] - np.maximum(expected, 0)))
    assert np.quantile(off, 0.5) < 2e-4  # of values around 1; singles lose digits where inputs are nearly alike
    assert np.quantile(off, 0.99) < 0.01


def test_a_constant_has_no_spread_and_no_other_forecast() -> None:
    _, seen = run(np.full((2, 60), [[0.0], [7.0]]))
    assert np.array_equal(seen[-1].points * seen[-1].unit, np.broadcast_to([0.0, 7.0], seen[-1].points.shape))
    assert not seen[-1].spread[: HORIZONS.index(30)].any()
    assert seen[0].spread[:, 1].min() > 0  # after one value nobody knows that it will stay


def test_errors_of_a_new_series_are_assumed_to_be_laplaces_with_heavier_ends() -> None:
    edges = np.sinh(np.linspace(-np.arcsinh(2 * REACH), np.arcsinh(2 * REACH), len(PRIOR) + 1)) / 2
    assert PRIOR.min() > 0.001
    assert PRIOR.sum() == pytest.approx(1, abs=1e-6)
    assert np.allclose(PRIOR, PRIOR[::-1], atol=1e-6)
    within = np.array([PRIOR[number:-number].sum() for number in range(1, len(PRIOR) // 2)])
    assert within == pytest.approx(1 - np.exp(edges[1 : len(within) + 1]), abs=0.04)


def test_an_unknown_value_is_taken_for_the_last_one() -> None:
    series = noise(1, 100)
    held = series.copy()
    held[0, 50:53] = held[0, 49]
    series[0, 50:53] = np.nan
    assert all(np.array_equal(a, b) for a, b in zip(figures(run(series)[1][-1], 0), figures(run(held)[1][-1], 0), strict=True))


def test_a_series_does_not_depend_on_its_slot_nor_on_others() -> None:
    series = noise(12, 150)
    _, together = run(series)
    for slots, place in ((9, 3), (40, 31)):
        experts = Experts(slots, 1.0)
        others = noise(slots, 150, seed=9) * 1e6
        seen = together[0]
        for tick in range(150):
            values = others[:, tick].copy()
            values[place] = series[4, tick]
            seen = experts.step(values, np.full(slots, START + tick), np.full(slots, tick == 0))
        assert all(np.array_equal(a, b) for a, b in zip(figures(seen, place), figures(together[-1], 4), strict=True))


def test_the_common_point_is_the_mean_of_the_experts_weighted_by_the_twelfth_power_of_their_losses() -> None:
    series = noise(3, 200)
    experts, seen = run(series)
    last = seen[-1]
    weight = (experts.state["loss"].astype(np.float64) + 1e-9) ** -12
    expected = (weight * last.points).sum(axis=1) / weight.sum(axis=1)
    assert np.allclose(last.base, expected, rtol=1e-4)
    assert not np.allclose(last.base, last.points.mean(axis=1), rtol=0.01)


def test_errors_far_beyond_their_mean_size_are_told_as_large_as_they_are() -> None:
    """Rare jumps by a hundred: by far more than ten mean errors, which some quantile must say."""
    series = np.where(np.random.default_rng(1).random((1, 200)) < 0.03, 100.0, 1.0)
    _, seen = run(series)
    assert 10 < max(float(np.abs(each.tails).max()) for each in seen) <= 24


def test_in_the_second_hour_the_hour_says_what_the_first_one_was() -> None:
    series = np.tile(noise(1, 60), 2)[:, :100]
    _, seen = run(series, interval=60.0, at=START // 3600 * 3600)
    for tick in range(61, 98):
        assert said(seen[tick], "hour", 1) == pytest.approx(series[0, tick + 1], rel=1e-4)


def test_a_slot_that_begins_again_knows_nothing_of_before() -> None:
    old, new = noise(8, 90) * 1e3, noise(8, 90, seed=2)
    experts, _ = run(old)
    _, fresh = run(new)
    seen = fresh[0]
    for tick in range(90):  # the clock of the state is not at 0: that may not matter
        seen = experts.step(new[:, tick], np.full(8, START + tick), np.full(8, tick == 0))
    for series in range(8):
        assert all(
            np.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(figures(seen, series), figures(fresh[-1], series), strict=True)
        )


def test_room_is_made_without_touching_those_who_are_there() -> None:
    series = noise(8, 120)
    _, expected = run(series)
    experts, _ = run(series[:, :60])
    experts.grow(20)
    experts.grow(4)
    assert experts.slots == 20
    seen = expected[0]
    for tick in range(60, 120):
        values = np.zeros(20)
        values[:8] = series[:, tick]
        fresh = np.zeros(20, dtype=np.bool_)
        fresh[8:] = tick == 60
        seen = experts.step(values, np.full(20, START + tick), fresh)
    for series_ in range(8):
        assert all(np.array_equal(a, b) for a, b in zip(figures(seen, series_), figures(expected[-1], series_), strict=True))


@pytest.mark.parametrize("factor", [2.0**-30, 1e-6, 3e5, 2.0**40])
def test_no_scale_is_special(factor: float) -> None:
    series = noise(8, 200)
    _, usual = run(series)
    _, scaled = run(series * factor)
    assert np.allclose(scaled[-1].base * scaled[-1].unit, usual[-1].base * usual[-1].unit * factor, rtol=1e-5)
    assert np.allclose(scaled[-1].tails, usual[-1].tails, rtol=1e-4, atol=1e-4)


def test_the_state_of_a_series_is_small_and_does_not_grow() -> None:
    experts, _ = run(noise(10, 20))
    before = size(experts)
    for tick in range(2 * PAST):
        experts.step(np.ones(10), np.full(10, START + 20 + tick), np.zeros(10, dtype=np.bool_))
    after = size(experts)
    assert before == after <= 5600 * 10
    assert sum(bins for _, bins in CALENDAR) * 4 * 10 < after


def test_to_pass_over_a_tick_leaves_the_same_state_as_to_look() -> None:
    values = noise(5, 300)
    looked, passed = Experts(5, 1.0), Experts(5, 1.0)
    for tick in range(300):
        now = values[:, tick], START + tick + np.zeros(5), np.full(5, tick == 0)
        seen = looked.step(*now)
        if tick % 7:
            passed.pass_over(*now)
        else:
            told = passed.step(*now)
            np.testing.assert_array_equal(told.points, seen.points)
            np.testing.assert_array_equal(told.tails, seen.tails)
    for name, array in looked.state.items():
        np.testing.assert_array_equal(array, passed.state[name], name)
