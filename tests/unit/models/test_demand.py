"""The demand model's rows and answers, and the forecaster that decides who speaks and keeps quantiles right."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nicety.models.forecast import demand as module
from nicety.models.forecast.answers import answer
from nicety.models.forecast.demand import (
    DEMAND_FEATURES,
    FALLBACK,
    FEW,
    LOWERED,
    METRICS,
    MIN_TICKS,
    WATCHED,
    Forecaster,
    fallback,
    forecasts,
    rows,
)
from nicety.models.forecast.experts import Experts, Floats, Ints, Singles
from nicety.models.forecast.network import Network
from nicety.models.records import HORIZONS, QUANTILES

SHAPE = (len(HORIZONS), len(QUANTILES))
Said = list[tuple[tuple[tuple[float, ...], ...], str]]


def arrays(shift: float = 0.0) -> dict[str, NDArray[Any]]:
    """A network that adds `shift` spreads to what the fallback answers."""
    made: dict[str, NDArray[Any]] = {name: np.zeros(shape, dtype=np.float32) for name, shape in Network.SHAPES.items()}
    made["bias3"] = np.full(len(QUANTILES), shift, dtype=np.float32)
    made["speaks"] = np.ones(len(METRICS), dtype=np.bool_)
    return made


def network(shift: float = 0.0) -> Network:
    return Network(arrays(shift), "0123456789abcdef" * 4)


class Says:
    """A model that answers what a function makes of the fallback's answers [n, Q]."""

    name = "demand stub"

    def __init__(self, say: Callable[[Singles], Any]) -> None:
        self._say = say

    def answers(self, made: Singles, start: Singles, _metric: Ints) -> Singles:
        return np.asarray(self._say(start), dtype=np.float32)


def noise(series: int, ticks: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).gamma(4, 0.25, (series, ticks))


def step(forecaster: Forecaster, values: Floats, tick: int, ask: bool = True) -> Said:
    n = len(values)
    keys = [(f"group{i}", "cpu") for i in range(n)]
    return list(forecaster.step(keys, values[:, tick], 1e9 + tick, np.zeros(n, dtype=np.int64), np.full(n, ask)))


def run(forecaster: Forecaster, values: Floats) -> list[Said]:
    return [step(forecaster, values, tick) for tick in range(values.shape[1])]


# --- rows and the model -------------------------------------------------------------------------------------------------------


def shown(series: Floats) -> tuple[Experts, Any]:
    experts = Experts(len(series), 1.0)
    ticks = range(series.shape[1])
    seen = [experts.step(series[:, tick], np.full(len(series), float(tick)), np.full(len(series), tick == 0)) for tick in ticks]
    return experts, seen[-1]


@pytest.mark.parametrize("ticks", [1, 2, 5, MIN_TICKS, 150, 500])
def test_rows_have_a_name_a_column_and_are_finite_from_the_first_tick_on(ticks: int) -> None:
    assert len(set(DEMAND_FEATURES)) == len(DEMAND_FEATURES)
    for series in (noise(3, ticks), np.zeros((1, ticks)), np.full((1, ticks), 7.0)):
        made = rows(*shown(series))
        assert made.shape == (len(DEMAND_FEATURES), len(HORIZONS), len(series))
        assert np.isfinite(made).all()


def test_rows_know_no_scale() -> None:
    series = noise(3, 200)
    assert np.allclose(rows(*shown(series)), rows(*shown(series * 2.0**40)), rtol=1e-4, atol=1e-4)


def test_rows_tell_how_far_each_value_lies_from_the_common_point() -> None:
    experts, seen = shown(noise(2, 300))
    made = rows(experts, seen)
    column = made[DEMAND_FEATURES.index("last value"), 2]
    expected = (seen.points[2, 0] - seen.base[2]) / seen.spread[2]
    assert np.allclose(np.sign(column) * np.expm1(np.abs(column)), expected, rtol=1e-4)
    assert np.allclose(made[DEMAND_FEATURES.index("age")], np.log(300))


def test_rows_tell_what_was_a_period_ago_and_beside_it() -> None:
    period = 7
    series = np.random.default_rng(2).permutation(period)[np.arange(210) % period][None].astype(np.float64) + 1.0
    experts, seen = shown(series)
    assert experts.period[0] == period
    made = rows(experts, seen)
    for at, horizon in enumerate(HORIZONS[:3]):
        assert horizon < period
        then = len(series[0]) - 1 + horizon - period  # of the value a period before the horizon
        for name, expected in (
            ("a period ago, later", series[0, then + 1]),
            ("a period ago, earlier", series[0, then - 1]),
            ("two periods ago", series[0, then - period]),
            ("largest near a period ago", series[0, then - 1 : then + 2].max()),
        ):
            column = made[DEMAND_FEATURES.index(name), at]
            value = np.sign(column) * np.expm1(np.abs(column)) * (seen.spread[at] if seen.spread[at] > 0 else 1) + seen.base[at]
            assert value * seen.unit == pytest.approx(expected, rel=1e-3), (name, horizon)


def test_answers_are_spreads_from_the_common_point() -> None:
    _, seen = shown(noise(2, 100))
    said = forecasts(seen, np.broadcast_to(np.array([0.0, 1, 2, 3], dtype=np.float32)[None, :, None], (*SHAPE, 2)))
    assert np.allclose(said[1, 3], (seen.base[3, 1] + seen.spread[3, 1] * np.arange(4)) * seen.unit[1])


def test_answers_of_a_model_rise_in_the_quantile() -> None:
    experts, seen = shown(noise(2, 100))
    said = answer(Says(lambda start: start[:, ::-1]), rows(experts, seen), fallback(seen), np.zeros(2, dtype=np.int64))
    assert (np.diff(said, axis=1) >= 0).all()


# --- who speaks ---------------------------------------------------------------------------------------------------------------


def test_the_model_speaks_where_it_is_asked_and_has_enough_history() -> None:
    forecaster, quiet, values = Forecaster(network(1.0), 1.0), Forecaster(None, 1.0), noise(2, MIN_TICKS)
    asked = np.array([True, False])
    said, plain = Said(), Said()
    for tick in range(MIN_TICKS):
        keys = ["a", "b"]
        metric = np.zeros(2, dtype=np.int64)
        said = list(forecaster.step(keys, values[:, tick], float(tick), metric, asked))
        plain = list(quiet.step(keys, values[:, tick], float(tick), metric, asked))
        assert said[1] == plain[1]
        assert said[0][1] == ("demand 01234567" if tick == MIN_TICKS - 1 else FALLBACK)
    assert said[0][0][0][0] > plain[0][0][0][0]  # a spread more
    assert forecaster.trouble == ""


def test_without_a_model_the_experts_speak() -> None:
    said = run(Forecaster(None, 1.0), noise(2, 40))
    assert {source for tick in said for _, source in tick} == {FALLBACK}


def test_no_forecast_is_above_what_a_series_cannot_exceed() -> None:
    forecaster, said = Forecaster(None, 1.0), Said()
    for tick in range(30):
        more = np.zeros(1, np.int64), np.ones(1, np.bool_), np.array([20.0])
        said = list(forecaster.step(["a"], np.array([float(tick)]), float(tick), *more))
    assert max(value for row in said[0][0] for value in row) == 20.0


@pytest.mark.parametrize("model", [None, network()])
def test_of_what_is_counted_in_ones_and_twos_a_whole_number_is_said(model: Network | None) -> None:
    counts = np.random.default_rng(1).poisson(0.7, (3, 120)).astype(np.float64)
    said = np.array([[rows_ for rows_, _ in step_] for step_ in run(Forecaster(model, 1.0), counts)[60:]])
    few = said < FEW
    assert few.mean() > 0.5
    assert (said[few] == np.rint(said[few])).all()
    assert said[..., -1].max() > said[..., 0].max() > 0


def test_fractions_are_said_where_one_was_seen_and_of_what_is_many() -> None:
    counts = np.random.default_rng(1).poisson(0.7, (1, 120)).astype(np.float64)
    once, many = counts.copy(), np.random.default_rng(1).poisson(100, (1, 120)).astype(np.float64)
    once[0, 3] = 0.5
    for values in (once, many):
        said = np.array([rows_ for ((rows_, _),) in run(Forecaster(None, 1.0), values)[60:]])
        assert (said != np.rint(said)).mean() > 0.5
    assert many.min() > FEW


def test_a_series_in_the_place_of_one_with_fractions_is_counted_again() -> None:
    forecaster, one = Forecaster(None, 1.0), np.zeros(1, dtype=np.int64)
    for tick in range(30):
        forecaster.step(["old"], np.array([0.5 + tick % 2]), float(tick), one, one > 0)
    counts = np.random.default_rng(1).poisson(0.7, 60).astype(np.float64)
    said = [forecaster.step(["new"], counts[tick : tick + 1], 30.0 + tick, one, one > 0)[0][0] for tick in range(60)]
    found = np.array(said[20:])
    few = found < FEW
    assert few.mean() > 0.5
    assert (found[few] == np.rint(found[few])).all()


def raises(start: Singles) -> Singles:
    raise IndexError("node 7 of 3")


@pytest.mark.parametrize(
    ("say", "trouble"),
    [
        (raises, "IndexError: node 7 of 3"),
        (lambda start: start * np.nan, "impossible values"),
        (lambda start: start + np.inf, "impossible values"),
        (lambda start: start - 1e30, "impossible values"),
        (lambda start: start + 1e30, "impossible values"),
        (lambda start: start[:, :2], "answers of shape"),
    ],
)
def test_what_a_broken_model_says_never_comes_through(say: Callable[[Singles], Singles], trouble: str) -> None:
    values = noise(2, 40)
    forecaster, quiet = Forecaster(Says(say), 1.0), Forecaster(None, 1.0)
    assert run(forecaster, values) == run(quiet, values)
    assert trouble in forecaster.trouble


def test_one_bad_forecast_does_not_silence_the_others() -> None:
    def say(start: Singles) -> Singles:
        said = np.array(start)
        said[1::3] = np.nan  # rows are horizon by horizon, three series in each
        return said

    forecaster = Forecaster(Says(say), 1.0)
    values = noise(3, MIN_TICKS)
    assert [source for _, source in run(forecaster, values)[-1]] == ["demand stub", FALLBACK, "demand stub"]
    assert "1 of 3" in forecaster.trouble


def test_trouble_is_over_when_the_model_is_well_again() -> None:
    factors = [np.nan, 1.0]
    forecaster = Forecaster(Says(lambda start: start * factors.pop(0)), 1.0)
    values = noise(1, MIN_TICKS + 1)
    run(forecaster, values[:, :-1])
    assert forecaster.trouble
    step(forecaster, values, MIN_TICKS)
    assert forecaster.trouble == ""


@pytest.mark.parametrize(
    "say", [lambda start: np.full_like(start, 20.0), lambda start: start * np.nan, lambda start: 10 * start + 10]
)
@pytest.mark.parametrize("series", [1, 20])
def test_a_model_that_has_become_worse_is_given_up_within_60_ticks(say: Callable[[Singles], Singles], series: int) -> None:
    forecaster, values, said = Forecaster(Says(say), 1.0), noise(series, 120), Said()
    for tick in range(120):
        said = step(forecaster, values, tick)
        if forecaster.changes:
            break
    (change,) = forecaster.changes
    assert (change.metric, change.heard) == ("cpu", False)
    assert tick <= MIN_TICKS + 60
    assert {source for _, source in said} == {FALLBACK}
    assert {source for _, source in step(forecaster, values, 119)} == {FALLBACK}


def test_a_good_model_is_not_given_up_by_chance() -> None:
    forecaster, values = Forecaster(network(0.02), 1.0), noise(3, 1200)
    for tick in range(1200):
        step(forecaster, values, tick)
        assert not forecaster.changes


def test_a_model_that_is_off_while_nothing_happens_and_right_in_bursts_is_kept() -> None:
    """What it loses in the quiet ticks is little beside what it gains in the bursts."""
    values = np.full((1, 900), 1.0) + 0.01 * noise(1, 900)
    bursts = np.arange(60, 900, 30)
    values[0, bursts] = 50.0

    def foresees(forecaster: Forecaster, tick: int) -> Callable[[Singles], Any]:
        def say(start: Singles) -> Singles:
            said = start + 1.0  # a spread too high
            coming = [h for h, horizon in enumerate(HORIZONS) if tick + horizon in bursts]
            said[coming] = start[coming] + 30.0
            return said

        return say

    model = Says(lambda start: start)
    forecaster = Forecaster(model, 1.0)
    for tick in range(900):
        model._say = foresees(forecaster, tick)
        step(forecaster, values, tick)
        assert not forecaster.changes


def test_a_model_has_less_say_in_a_series_where_it_lost_more_lately() -> None:
    """One series keeps its habits, the model knows nothing of the other: that one is forecast as without it."""

    def say(start: Singles) -> Singles:
        said = np.array(start)
        said[1::6] += 4.0  # rows are horizon by horizon, six series in each
        return said

    values = noise(6, 150)
    blind, quiet = (run(Forecaster(model, 1.0), values) for model in (Says(say), None))
    first, last = MIN_TICKS, 140
    off = [blind[at][1][0][0][1] - quiet[at][1][0][0][1] for at in (first, last)]
    assert off[0] > 10 * abs(off[1])
    assert off[0] > 1
    assert np.array(blind[last][0][0]) == pytest.approx(np.array(quiet[last][0][0]), rel=0.05)


def test_a_model_that_lost_more_of_next_to_nothing_keeps_its_say() -> None:
    """It has been too high while a series stood still, when errors are a ten thousandth of the level."""
    values = np.ones((1, 520))
    values[:, :40] = noise(1, 40)
    tops = []
    for since in (420, 519, 520):
        model = Says(lambda start: start)
        forecaster = Forecaster(model, 1.0)
        for tick in range(519):
            if tick == since:
                model._say = lambda start: start + 3.0
            step(forecaster, values, tick)
        if since < 520:
            model._say = lambda start: start + 3.0
        ((said, source),) = step(forecaster, values, 519)
        assert source == "demand stub"
        tops.append(said[0][-1])
    long, now, never = tops
    assert long - never > 0.8 * (now - never) > 0


def test_a_series_that_begins_unknown_is_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="begins with an unknown value"):
        step(Forecaster(None, 1.0), np.full((1, 1), np.nan), 0)


def test_no_series_is_no_forecast() -> None:
    assert step(Forecaster(network(), 1.0), np.empty((0, 1)), 0) == []


# --- the online correction ----------------------------------------------------------------------------------------------------


def coverage(said: list[Said], values: Floats, first: int) -> Floats:
    """[H, Q] share of values at or below each quantile, from tick `first` on."""
    made = np.array([[forecast for forecast, _ in tick] for tick in said])  # [ticks, n, H, Q]
    result = np.empty(SHAPE)
    for h, horizon in enumerate(HORIZONS):
        came = values[:, first + horizon :].T
        result[h] = (came[:, :, None] <= made[first : len(made) - horizon, :, h]).mean(axis=(0, 1))
    return result


def too_low(start: Singles) -> Singles:
    """Upper quantiles that are not far enough from the median."""
    return np.asarray(start[:, :1] + (start - start[:, :1]) * 0.6)


def test_quantiles_that_are_too_low_are_raised_until_they_cover_what_they_say() -> None:
    values = noise(6, 1100)
    found = coverage(run(Forecaster(Says(too_low), 1.0), values), values, first=600)
    assert found[:, 1] == pytest.approx(np.full(len(HORIZONS), 0.9), abs=0.04)
    assert (found[:, 2] > 0.92).all()


def test_a_new_series_starts_with_what_was_learned_from_the_others() -> None:
    values = noise(6, 700)
    forecaster, fresh = Forecaster(Says(too_low), 1.0), Forecaster(Says(too_low), 1.0)
    run(forecaster, values)
    new = noise(1, MIN_TICKS, seed=5)
    taught, untaught = Said(), Said()
    for tick in range(MIN_TICKS):
        keys, metric, ask = ["new"], np.zeros(1, np.int64), np.ones(1, np.bool_)
        taught = list(forecaster.step(keys, new[:, tick], float(tick), metric, ask))
        untaught = list(fresh.step(keys, new[:, tick], float(tick), metric, ask))
    assert taught[0][0][0][1] > untaught[0][0][0][1]


def moved(say: Callable[[int], Callable[[Singles], Any]], spans: Sequence[range], patch: pytest.MonkeyPatch) -> list[float]:
    """How far the 90 % quantile of the next value is corrected in these spans: in widths, a mean of 16 series. `say`: by what the
    model answers at a tick."""
    values, model = noise(16, 600), Says(lambda start: start)

    def tops() -> list[Floats]:
        forecaster, found = Forecaster(model, 1.0), []
        for tick in range(values.shape[1]):
            model._say = say(tick)
            found.append(np.array([rows[0] for rows, _ in step(forecaster, values, tick)]))
        return found

    with patch.context() as never:
        never.setattr(module, "GAIN", 0.0)
        never.setattr(module, "COMMON_RATE", 0.0)
        plain = np.array(tops())
    up = (np.array(tops()) - plain)[:, :, 1] / (plain[:, :, -1] - plain[:, :, 0])
    return [float(up[span.start : span.stop].mean()) for span in spans]


def test_what_was_learned_of_a_series_fades_when_its_forecasts_are_right_again(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = (range(250, 300), range(370, 400), range(530, 600))
    before, much, after = moved(lambda tick: too_low if 300 <= tick < 400 else lambda start: start, spans, monkeypatch)
    assert abs(before) < 0.03
    assert much > 0.05
    assert after < 0.3 * much


def test_quantiles_that_cover_too_much_are_lowered_a_little(monkeypatch: pytest.MonkeyPatch) -> None:
    (lowered,) = moved(lambda _: lambda start: start[:, :1] + (start - start[:, :1]) * 1.5, [range(200, 600)], monkeypatch)
    assert -LOWERED <= lowered < -0.5 * LOWERED


def test_a_series_that_stands_still_is_not_corrected() -> None:
    values = np.repeat([[3.0], [0.0]], 300, axis=1)
    for model in (None, network(1.0)):
        said = run(Forecaster(model, 1.0), values)[-1]
        assert said[0][0] == ((3.0,) * len(QUANTILES),) * len(HORIZONS)
        assert said[1][0] == ((0.0,) * len(QUANTILES),) * len(HORIZONS)


def test_the_same_steps_give_the_same_forecasts() -> None:
    values = noise(4, 200)
    assert run(Forecaster(network(0.3), 1.0), values) == run(Forecaster(network(0.3), 1.0), values)


def test_the_order_of_series_changes_nothing() -> None:
    values = noise(5, 120)
    keys, order = [f"s{i}" for i in range(5)], [3, 0, 4, 1, 2]
    one, other = Forecaster(network(0.3), 1.0), Forecaster(network(0.3), 1.0)
    metric, ask = np.zeros(5, dtype=np.int64), np.ones(5, dtype=np.bool_)
    for tick in range(120):
        said = one.step(keys, values[:, tick], float(tick), metric, ask)
        shuffled = other.step([keys[i] for i in order], values[order, tick], float(tick), metric, ask)
        for place, i in enumerate(order):
            assert np.allclose(said[i][0], shuffled[place][0], rtol=1e-5)


@pytest.mark.parametrize("width", [3, 16])
def test_how_many_series_are_stepped_together_changes_nothing(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = noise(20, 150)
    whole = run(Forecaster(network(0.3), 1.0), values)
    monkeypatch.setattr(module, "WIDTH", width)
    for said, expected in zip(run(Forecaster(network(0.3), 1.0), values), whole, strict=True):
        assert [source for _, source in said] == [source for _, source in expected]
        assert np.allclose([one for one, _ in said], [one for one, _ in expected], rtol=1e-5)  # a common mean is added up in parts


def test_series_that_come_and_go_do_not_touch_those_that_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WIDTH", 8)
    values, others = noise(6, 150), noise(30, 150, seed=3) * 1e6
    alone, beside = Forecaster(None, 1.0), Forecaster(None, 1.0)
    for tick in range(150):
        guests = range(tick // 5 % 7 * 4)
        keys, now = [*(f"guest{i}" for i in guests), *range(6)], [*others[: len(guests), tick], *values[:, tick]]
        more = np.zeros(len(keys), np.int64), np.zeros(len(keys), np.bool_)
        found = list(beside.step(keys, np.array(now), float(tick), *more))[len(guests) :]
        expected = list(alone.step(range(6), values[:, tick], float(tick), more[0][-6:], more[1][-6:]))
        medians = [[row[0] for row in said] for said, _ in found], [[row[0] for row in said] for said, _ in expected]
        assert np.allclose(*medians, rtol=1e-6)  # other quantiles share the correction that all series have in common


def test_a_slot_hands_nothing_on() -> None:
    """Two series that are alike, one in a slot whose series before needed much correction."""
    values = noise(1, 400)[0]
    forecaster, ask = Forecaster(Says(too_low), 1.0), np.ones(8, dtype=np.bool_)
    for tick in range(300):
        forecaster.step(["old", *range(6)], np.array([values[tick], *np.ones(6)]), float(tick), np.zeros(7, np.int64), ask[1:])
    for tick in range(300, 400):
        now = np.array([values[tick], *np.ones(6), values[tick]])
        said = forecaster.step(["first", *range(6), "second"], now, float(tick), np.zeros(8, np.int64), ask)
        assert said[0] == said[7]
    assert forecaster.slots == 8  # one of the two has the old one's slot


def test_room_for_series_that_have_gone_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WIDTH", 8)
    forecaster = Forecaster(network(), 1.0)
    for tick, count in enumerate([3, 50, 50, 9]):
        forecaster.step(range(count), np.ones(count), float(tick), np.zeros(count, np.int64), np.ones(count, np.bool_))
        assert count <= forecaster.slots < count + 8


def test_a_thousand_series_take_little_memory() -> None:
    """8.3 MB of state, and less than 1.5 MB to work in; what numpy allocates is traced."""
    forecaster, values = Forecaster(network(0.3), 1.0), noise(1000, 14)
    keys, metric, ask = [f"g{i}" for i in range(1000)], np.zeros(1000, np.int64), np.ones(1000, np.bool_)
    tracemalloc.start()
    try:
        for tick in range(14):
            forecaster.step(keys, values[:, tick], 1e9 + tick, metric, ask)
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 7e6 < now < 8.5e6
    assert peak < 10e6


def test_a_series_that_is_left_out_is_forgotten() -> None:
    values = noise(2, 300)
    forecaster = Forecaster(network(0.3), 1.0)
    run(forecaster, values)
    one, more = np.zeros(1, dtype=np.int64), np.ones(2, dtype=np.bool_)
    forecaster.step([("group0", "cpu")], values[:1, 0], 1e9, one, more[:1])
    again = forecaster.step([("group0", "cpu"), ("group1", "cpu")], np.array([1.0, 5.0]), 1e9, np.zeros(2, np.int64), more)
    fresh = Forecaster(None, 1.0).step(["x"], np.array([5.0]), 1e9, one, more[:1])
    assert again[1][1] == FALLBACK
    assert again[1][0][0][0] == fresh[0][0][0][0] == 5.0


def test_state_does_not_grow_with_the_series_that_ever_were() -> None:
    forecaster = Forecaster(None, 1.0)
    for tick in range(200):
        forecaster.step([(tick, i) for i in range(20)], np.ones(20), float(tick), np.zeros(20, np.int64), np.zeros(20, np.bool_))
    assert forecaster.slots <= 40


def test_rows_show_the_values_beside_the_one_a_period_ago() -> None:
    """What will have been a period ago, one tick later and one earlier."""
    period = 10
    series = np.tile(noise(1, period), (1, 30))
    experts, seen = shown(series + np.random.default_rng(1).normal(0, 0.01, series.shape))
    assert experts.period.tolist() == [period]
    made = rows(experts, seen)
    past = experts.state["past"][:, 0]
    for h, horizon in enumerate(HORIZONS):
        back = -(-horizon // period) * period - horizon
        for name, ago in (("a period ago, later", max(back - 1, 0)), ("a period ago, earlier", back + 1)):
            column = made[DEMAND_FEATURES.index(name), h, 0]
            expected = (past[(experts.row - ago) % len(past)] - seen.base[h, 0]) / seen.spread[h, 0]
            assert np.sign(column) * np.expm1(np.abs(column)) == pytest.approx(expected, rel=1e-3, abs=1e-4), (name, horizon)


@pytest.mark.parametrize("pause", [6, 7])
def test_each_answer_is_judged_once_at_each_watched_horizon(pause: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the ticks lie in which it was asked for."""
    values, forecaster, judged = noise(1, 100), Forecaster(network(), 1.0), list[float]()

    def noted(*rows: Floats) -> tuple[()]:
        judged.append(float(rows[-1].sum()))
        return ()

    monkeypatch.setattr(forecaster._watch, "step", noted)
    asked = [tick for tick in range(MIN_TICKS, 90) if tick % pause == pause - 1]
    for tick in range(100):
        step(forecaster, values, tick, ask=tick in asked)
    assert sum(judged) == len(WATCHED) * len(asked)
