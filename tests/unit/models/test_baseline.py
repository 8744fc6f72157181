"""Baselines say what their names promise, from the first sample on."""

from __future__ import annotations

import numpy as np
import pytest

from nicety.models.forecast.baseline import (
    BASELINES,
    DOUBT,
    Ewma,
    Floats,
    Ints,
    LastValue,
    SeasonalNaive,
    WindowQuantile,
    error_quantiles,
    ewma,
    history,
    period,
    quantiles,
)
from nicety.models.records import HORIZONS, QUANTILES, WINDOW

FULL = np.array([WINDOW])


def window(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(windows, lengths) of one series that may be shorter than the window."""
    result = np.full((1, WINDOW), np.nan)
    result[0, WINDOW - len(values) :] = values
    return result, np.array([len(values)])


def test_last_value_adds_the_quantiles_of_its_own_errors() -> None:
    rng = np.random.default_rng(1)
    values = 10 + rng.normal(0, 1, WINDOW)
    said = LastValue().predict(values[None, :], FULL)[0]
    for h, horizon in enumerate(HORIZONS):
        errors = values[horizon:] - values[:-horizon]
        expected = values[-1] + np.quantile(errors, QUANTILES, method="weibull")
        assert said[h] == pytest.approx(expected, rel=1e-12)


def test_ewma_is_the_recursion_with_the_quantiles_of_its_own_errors() -> None:
    rng = np.random.default_rng(2)
    values = 10 + rng.normal(0, 1, WINDOW)
    levels = [values[0]]
    for value in values[1:]:
        levels.append(levels[-1] + 0.3 * (value - levels[-1]))
    said = Ewma(0.3).predict(values[None, :], FULL)[0]
    for h, horizon in enumerate(HORIZONS):
        errors = values[horizon:] - np.array(levels)[:-horizon]
        assert said[h] == pytest.approx(levels[-1] + np.quantile(errors, QUANTILES, method="weibull"), rel=1e-12)


def test_ewma_leaves_its_input_alone_and_starts_at_the_first_known_value() -> None:
    values = np.array([[np.nan, np.nan, 4.0, 8.0]])
    kept = values.copy()
    assert ewma(values, 0.5)[0, 2:].tolist() == [4.0, 6.0]
    assert np.array_equal(values, kept, equal_nan=True)
    one = np.array([[1.0, 2.0]])
    ewma(one, 0.5)
    assert one.tolist() == [[1.0, 2.0]]


def test_window_quantile_looks_at_the_last_48_values_only() -> None:
    values = np.concatenate([np.full(WINDOW - 48, 1e6), np.arange(48.0)])
    said = WindowQuantile().predict(values[None, :], FULL)[0]
    assert said == pytest.approx(np.tile(np.quantile(np.arange(48.0), QUANTILES, method="weibull"), (len(HORIZONS), 1)))


@pytest.mark.parametrize("length", [7, 17, 31, 50])
def test_seasonal_naive_repeats_a_period_that_it_finds(length: int) -> None:
    pattern = np.random.default_rng(length).gamma(2, 1, length)
    endless = np.tile(pattern, 100)
    values = endless[:WINDOW][None, :]
    assert period(history(values, FULL)).tolist() == [length]
    said = SeasonalNaive().predict(values, FULL)[0]
    for h, horizon in enumerate(HORIZONS):
        assert said[h] == pytest.approx(endless[WINDOW - 1 + horizon], rel=1e-9)


def test_noise_and_straight_lines_have_no_period() -> None:
    noise = np.random.default_rng(3).gamma(4, 1, (200, WINDOW))
    assert np.count_nonzero(period(history(noise, np.full(200, WINDOW)))) <= 2
    lines = np.array([np.full(WINDOW, 5.0), np.zeros(WINDOW), np.arange(WINDOW, dtype=float)])
    assert period(history(lines, np.full(3, WINDOW))).tolist() == [0, 0, 0]


def test_one_sample_gives_its_value_with_a_modest_spread() -> None:
    for model in BASELINES:
        said = model.predict(*window(np.array([4.0])))[0]
        assert said == pytest.approx(np.tile(4.0 * (1 + DOUBT), (len(HORIZONS), 1))), model.name


def test_doubt_fades_with_each_error_and_is_gone_after_eight() -> None:
    said = LastValue().predict(*window(np.full(8, 4.0)))[0, 0]  # seven errors one tick ahead
    assert said == pytest.approx(4.0 * (1 + DOUBT / 8))
    assert LastValue().predict(*window(np.full(9, 4.0)))[0, 0] == pytest.approx(4.0)


def test_doubt_is_gone_once_there_are_enough_errors_of_its_own() -> None:
    for model in BASELINES:
        said = model.predict(*window(np.full(60, 4.0)))[0]
        assert said == pytest.approx(4.0), model.name


def test_a_tick_that_is_not_known_counts_as_the_one_before_it() -> None:
    values = np.arange(1.0, WINDOW + 1)
    holed, filled = values.copy(), values.copy()
    holed[50:53] = [np.nan, np.inf, -np.inf]
    filled[50:53] = filled[49]
    for model in BASELINES:
        assert np.array_equal(model.predict(holed[None, :], FULL), model.predict(filled[None, :], FULL)), model.name


def test_nothing_known_is_nan_and_not_a_forecast_of_zero() -> None:
    for model in BASELINES:
        assert np.isnan(model.predict(np.full((1, WINDOW), np.nan), np.array([WINDOW]))).all(), model.name
        assert np.isnan(model.predict(np.ones((1, WINDOW)), np.array([0]))).all(), model.name


def test_upper_quantiles_of_few_values_cover_as_often_as_they_say() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(0, 1, (20_000, 20))
    past = np.sort(values[:, :19], axis=1)
    said = quantiles(past, np.full(20_000, 19))[:, QUANTILES.index(0.95)]
    assert (values[:, 19] <= said).mean() == pytest.approx(0.95, abs=0.01)
    assert (values[:, 19] <= np.quantile(past, 0.95, axis=1)).mean() < 0.93  # the usual rank is too low


def test_windows_of_a_wrong_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="windows must be"):
        LastValue().predict(np.ones((2, WINDOW - 1)), np.array([3, 3]))
    with pytest.raises(ValueError, match="windows must be"):
        LastValue().predict(np.ones((2, WINDOW)), np.array([3]))


@pytest.mark.parametrize(("errors", "own"), [(0, 0.0), (2, 0.25), (6, 0.75), (8, 1.0), (40, 1.0)])
def test_up_to_eight_errors_count_for_a_part_beside_those_of_the_shorter_horizon(errors: int, own: float) -> None:
    def seen(value: float, many: int) -> tuple[Floats, Ints]:
        return np.concatenate([np.full((1, many), value), np.full((1, 1), np.nan)], axis=1), np.array([many])

    found = error_quantiles([seen(1.0, 30), seen(5.0, errors)], np.zeros(1))
    assert np.allclose(found[0], [[1.0] * len(QUANTILES), [1.0 + own * 4.0] * len(QUANTILES)])
