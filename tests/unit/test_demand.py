"""The demand model's rows and answers, and the forecaster that decides who speaks and keeps quantiles right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nicety.models.baseline import FALLBACK, Floats, Ints
from nicety.models.demand import DEMAND_FEATURES, MIN_TICKS, Forecaster, TreeDemand, demand_rows, design
from nicety.models.records import HORIZONS, QUANTILES, WINDOW

BASELINE = f"baseline {FALLBACK.name}"
SHAPE = (len(HORIZONS), len(QUANTILES))


def leaves(answers: Sequence[float]) -> dict[str, NDArray[Any]]:
    """Arrays of one leaf a quantile: the same answer for every row."""
    nodes = len(QUANTILES)
    index = np.arange(nodes, dtype=np.int32)
    return {
        "feature": np.zeros(nodes, np.int32),
        "threshold": np.zeros(nodes),
        "missing_left": np.zeros(nodes, np.bool_),
        "left": index,
        "right": index,
        "value": np.array(answers),
        "roots": index[:, None],
        "start": np.zeros(nodes),
        "offsets": np.zeros(SHAPE),
        "speaks": np.ones(3, dtype=np.bool_),
    }


def tree_demand(answers: Sequence[float] = (0.0, 1.0, 1.5, 2.0)) -> TreeDemand:
    return TreeDemand(leaves(answers), "0123456789abcdef" * 4)


class Says:
    """A model that says what a function makes of the windows."""

    name = "demand stub"

    def __init__(self, say: Callable[[Floats], Floats]) -> None:
        self._say = say

    def predict(self, windows: Floats, lengths: Ints, baseline: Floats | None = None) -> Floats:
        return self._say(windows)


def noise(series: int, ticks: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).gamma(4, 0.25, (series, ticks))


def windows_at(values: Floats, tick: int) -> tuple[Floats, Ints]:
    """What `features.Windows` would show at this tick of series [n, ticks]."""
    seen = values[:, max(0, tick + 1 - WINDOW) : tick + 1]
    windows = np.full((len(values), WINDOW), np.nan)
    windows[:, WINDOW - seen.shape[1] :] = seen
    return windows, np.full(len(values), seen.shape[1])


def run(forecaster: Forecaster, values: Floats, first: int = 0) -> list[list[tuple[tuple[tuple[float, ...], ...], str]]]:
    keys = [(f"group{i}", "cpu") for i in range(len(values))]
    ask = np.ones(len(values), dtype=np.bool_)
    return [forecaster.step(keys, *windows_at(values, tick), ask) for tick in range(first, values.shape[1])]


# --- rows and the model -------------------------------------------------------------------------------------------------------


def test_rows_have_a_name_a_column_and_are_finite_from_the_first_tick_on() -> None:
    assert len(set(DEMAND_FEATURES)) == len(DEMAND_FEATURES)
    for ticks in (1, 2, 5, MIN_TICKS, WINDOW):
        rows = demand_rows(*windows_at(noise(3, ticks), ticks - 1))
        assert rows.shape == (3, len(HORIZONS), len(DEMAND_FEATURES))
        assert np.isfinite(rows).all()


def test_rows_know_no_scale() -> None:
    windows, lengths = windows_at(noise(5, WINDOW), WINDOW - 1)
    assert demand_rows(windows * 4e9, lengths) == pytest.approx(demand_rows(windows, lengths), rel=1e-6, abs=1e-9)


def test_rows_tell_each_horizon_what_came_a_period_before_it() -> None:
    pattern = np.random.default_rng(1).gamma(2, 1, 40)
    endless = np.tile(pattern, 10)
    made = design(*windows_at(endless[None, :WINDOW], WINDOW - 1))
    ahead = endless[[WINDOW - 1 + h for h in HORIZONS]]
    assert made.point[0] * made.past.unit[0] == pytest.approx(ahead)
    assert (made.rows[0, :, DEMAND_FEATURES.index("seasonal")] == 1).all()


def test_answers_are_the_inverse_of_values() -> None:
    windows, lengths = windows_at(noise(6, WINDOW), WINDOW - 1)
    made = design(windows, lengths)
    came = np.random.default_rng(2).gamma(4, 0.25, (6, len(HORIZONS)))
    back = made.values(np.repeat(made.answers(came)[:, :, None], len(QUANTILES), axis=2))
    assert back == pytest.approx(np.repeat(came[:, :, None], len(QUANTILES), axis=2))


def test_the_model_corrects_a_point_in_units_of_its_usual_error() -> None:
    values = noise(4, WINDOW)
    windows, lengths = windows_at(values, WINDOW - 1)
    made = design(windows, lengths)
    assert not made.rows[:, :, DEMAND_FEATURES.index("seasonal")].any()
    said = tree_demand((0.0, 1.0, 1.5, 2.0)).predict(windows, lengths)
    step = np.array([np.abs(values[:, h:] - values[:, :-h]).mean(axis=1) for h in HORIZONS]).T
    assert said[:, :, 0] == pytest.approx(np.repeat(values[:, -1:], len(HORIZONS), axis=1))
    assert said[:, :, 1] - said[:, :, 0] == pytest.approx(step)


def test_a_model_of_other_dimensions_is_refused() -> None:
    assert tree_demand().name == "demand 01234567"
    arrays = leaves((0.0, 1.0, 1.5, 2.0))
    faults: list[dict[str, NDArray[Any]]] = [
        {"offsets": np.zeros((2, 2))},
        {"offsets": np.full(SHAPE, np.nan)},
        {"offsets": np.zeros(SHAPE, np.float32)},
        {"speaks": np.ones(2, dtype=np.bool_)},
        {"speaks": np.ones(3)},
        {"roots": np.arange(3, dtype=np.int32)[:, None], "start": np.zeros(3)},
        {"feature": np.full(4, len(DEMAND_FEATURES), np.int32)},
    ]
    for broken in faults:
        with pytest.raises(ValueError, match=r"offsets|ensembles|columns|speaks"):
            TreeDemand({**arrays, **broken}, "")


# --- who speaks ---------------------------------------------------------------------------------------------------------------


def test_the_model_speaks_where_it_is_asked_and_has_enough_history() -> None:
    forecaster = Forecaster(tree_demand())
    values = noise(3, MIN_TICKS)
    windows, lengths = windows_at(values, MIN_TICKS - 1)
    windows[2], lengths[2] = windows_at(values[2:, : MIN_TICKS - 1], MIN_TICKS - 2)[0][0], MIN_TICKS - 1
    said = forecaster.step(["a", "b", "c"], windows, lengths, np.array([True, False, True]))
    assert [source for _, source in said] == ["demand 01234567", BASELINE, BASELINE]
    expected = tree_demand().predict(windows, lengths)
    assert said[0][0] == tuple(map(tuple, expected[0].tolist()))
    assert said[1][0] == tuple(map(tuple, FALLBACK.predict(windows, lengths)[1].tolist()))
    assert forecaster.trouble == ""


def test_ticks_that_are_not_known_are_no_history() -> None:
    values = noise(1, WINDOW)
    values[0, : WINDOW - 5] = np.nan
    said = Forecaster(tree_demand()).step(["a"], values, np.array([WINDOW]), np.array([True]))
    assert said[0][1] == BASELINE


def test_without_a_model_the_baseline_speaks() -> None:
    values = noise(2, WINDOW)
    said = run(Forecaster(None), values, first=WINDOW - 1)[0]
    assert [source for _, source in said] == [BASELINE, BASELINE]


def raises(windows: Floats) -> Floats:
    raise IndexError("node 7 of 3")


def constant(value: float) -> Callable[[Floats], Floats]:
    return lambda windows: np.full((len(windows), *SHAPE), value)


@pytest.mark.parametrize(
    ("say", "trouble"),
    [
        (raises, "IndexError: node 7 of 3"),
        (constant(np.nan), "cannot be"),
        (constant(np.inf), "cannot be"),
        (constant(-1e-9), "cannot be"),
        (constant(1e300), "cannot be"),
        (lambda windows: np.full((len(windows), *SHAPE), [4.0, 3.0, 2.0, 1.0]), "cannot be"),
        (lambda windows: np.ones((len(windows), 2, 2)), "gave shape"),
    ],
)
def test_what_a_broken_model_says_never_comes_through(say: Callable[[Floats], Floats], trouble: str) -> None:
    values = noise(2, WINDOW)
    forecaster, quiet = Forecaster(Says(say)), Forecaster(None)
    said = run(forecaster, values, first=WINDOW - 1)
    assert said == run(quiet, values, first=WINDOW - 1)
    assert trouble in forecaster.trouble
    assert {source for _, source in said[0]} == {BASELINE}


def test_one_bad_forecast_does_not_silence_the_others() -> None:
    def say(windows: Floats) -> Floats:
        said = np.ones((len(windows), *SHAPE))
        said[1, 2, 3] = np.nan
        return said

    forecaster = Forecaster(Says(say))
    said = run(forecaster, noise(3, WINDOW), first=WINDOW - 1)[0]
    assert [source for _, source in said] == ["demand stub", BASELINE, "demand stub"]
    assert "1 of 3" in forecaster.trouble


def test_trouble_is_over_when_the_model_is_well_again() -> None:
    answers = [np.nan, 1.0]
    forecaster = Forecaster(Says(lambda windows: np.full((len(windows), *SHAPE), answers.pop(0))))
    run(forecaster, noise(1, WINDOW), first=WINDOW - 2)
    assert forecaster.trouble == ""


def test_a_series_of_which_nothing_is_known_is_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="no known value"):
        Forecaster(None).step(["a"], np.full((1, WINDOW), np.nan), np.array([WINDOW]), np.array([True]))


def test_no_series_is_no_forecast() -> None:
    assert Forecaster(tree_demand()).step([], np.empty((0, WINDOW)), np.empty(0, np.int64), np.empty(0, np.bool_)) == []


# --- the online correction ----------------------------------------------------------------------------------------------------


def coverage(said: list[list[tuple[tuple[tuple[float, ...], ...], str]]], values: Floats, first: int) -> Floats:
    """[H, Q] share of values at or below each quantile, from tick `first` on."""
    forecasts = np.array([[forecast for forecast, _ in tick] for tick in said])  # [ticks, n, H, Q]
    result = np.empty(SHAPE)
    for h, horizon in enumerate(HORIZONS):
        came = values[:, first + horizon :].T
        result[h] = (came[:, :, None] <= forecasts[first : len(forecasts) - horizon, :, h]).mean(axis=(0, 1))
    return result


def test_quantiles_that_are_too_low_are_raised_until_they_cover_what_they_say() -> None:
    values = noise(6, 900)
    too_low = Says(lambda windows: np.broadcast_to(np.array([0.8, 1.1, 1.3, 1.5]), (len(windows), *SHAPE)))
    said = run(Forecaster(too_low), values)
    assert said[-1][0][1] == "demand stub"
    found = coverage(said, values, first=500)
    assert (values[:, 500:] <= 1.1).mean() < 0.7  # what is said to be the 90 % quantile
    assert found[:, 1] == pytest.approx(np.full(len(HORIZONS), 0.9), abs=0.04)
    assert (values[:, 500:] <= 1.3).mean() < 0.85
    assert (found[:, 2] > 0.9).all()


def test_a_new_series_starts_with_what_was_learned_from_the_others() -> None:
    values = noise(6, 600)
    too_low = Says(lambda windows: np.broadcast_to(np.array([0.8, 1.1, 1.3, 1.5]), (len(windows), *SHAPE)))
    forecaster = Forecaster(too_low)
    run(forecaster, values)
    windows, lengths = windows_at(values, 599)
    said = forecaster.step(["new"], windows[:1], lengths[:1], np.array([True]))
    assert said[0][0][0][1] > 1.3


def test_a_series_that_stands_still_is_not_corrected() -> None:
    values = np.repeat([[3.0], [0.0]], 400, axis=1)
    for model in (None, tree_demand()):
        said = run(Forecaster(model), values)[-1]
        assert said[0][0] == ((3.0,) * len(QUANTILES),) * len(HORIZONS)
        assert said[1][0] == ((0.0,) * len(QUANTILES),) * len(HORIZONS)


def test_the_same_steps_give_the_same_forecasts() -> None:
    values = noise(4, 200)
    assert run(Forecaster(tree_demand()), values) == run(Forecaster(tree_demand()), values)


def test_the_order_of_series_changes_nothing() -> None:
    values = noise(5, 120)
    keys = [f"s{i}" for i in range(5)]
    order = [3, 0, 4, 1, 2]
    one, other = Forecaster(tree_demand()), Forecaster(tree_demand())
    ask = np.ones(5, dtype=np.bool_)
    for tick in range(120):
        windows, lengths = windows_at(values, tick)
        said = one.step(keys, windows, lengths, ask)
        shuffled = other.step([keys[i] for i in order], windows[order], lengths[order], ask)
        for place, i in enumerate(order):
            assert np.allclose(said[i][0], shuffled[place][0], rtol=1e-9)


def test_a_series_that_is_left_out_is_forgotten() -> None:
    values = noise(2, 300)
    forecaster = Forecaster(tree_demand())
    run(forecaster, values)
    slots = forecaster._slots
    windows, lengths = windows_at(values, 299)
    forecaster.step([("group0", "cpu")], windows[:1], lengths[:1], np.array([True]))
    assert list(slots) == [("group0", "cpu")]
    forecaster.step([("group0", "cpu"), ("again", "cpu")], windows, lengths, np.array([True, True]))
    again = slots["again", "cpu"]
    assert not forecaster._own[again].any()
    assert np.isfinite(forecaster._pending[again]).sum() == np.prod(SHAPE)  # of this tick alone


def test_state_does_not_grow_with_the_series_that_ever_were() -> None:
    forecaster = Forecaster(None)
    windows, lengths = windows_at(noise(20, 30), 29)
    for tick in range(200):
        forecaster.step([(tick, i) for i in range(20)], windows, lengths, np.zeros(20, dtype=np.bool_))
    assert len(forecaster._pending) <= 64


def test_a_model_tells_of_which_metrics_it_is_to_be_asked() -> None:
    arrays = {**leaves((0.0, 1.0, 1.5, 2.0)), "speaks": np.array([True, False, True])}
    assert TreeDemand(arrays, "").speaks == frozenset({"cpu", "load"})
