"""The long memory: forecasts a minute to an hour ahead, and the state that series go on from after a pause or a restart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nicety.models.forecast.demand import Forecaster
from nicety.models.forecast.experts import GAP, Floats
from nicety.models.forecast.kept import SHAPES, Kept
from nicety.models.forecast.memory import SOURCES
from nicety.models.records import LATER, QUANTILES

DAY = 86_400
MINUTE = 60.0
"""Seconds of a tick in most tests: a day then has 1,440 ticks."""
AT_NIGHT, AT_NOON = 1.0, 9.0


def daily(days: float, series: int, seed: int = 1) -> Floats:
    """[series, ticks] a load that is high from 10 to 14 o'clock, at a tick a minute, with noise."""
    tick = np.arange(round(days * DAY / MINUTE))
    hour = tick * MINUTE / 3600 % 24
    level = np.where((hour >= 10) & (hour < 14), AT_NOON, AT_NIGHT)
    return np.asarray(level * np.random.default_rng(seed).gamma(100, 0.01, (series, len(tick))))


def fed(
    values: Floats, first: int = 0, interval: float = MINUTE, forecaster: Forecaster | None = None, names: str = "g"
) -> Forecaster:
    """A forecaster that has seen the values [series, ticks], the first of them at tick `first` since 1970."""
    forecaster = Forecaster(None, interval) if forecaster is None else forecaster
    for tick in range(values.shape[1]):
        step(forecaster, values[:, tick], (first + tick) * interval, names)
    return forecaster


def step(forecaster: Forecaster, values: Floats, at: float, names: str = "g") -> list[Any]:
    keys, n = [f"{names}{which}" for which in range(len(values))], len(values)
    return list(forecaster.step(keys, values, at, np.zeros(n, np.int64), np.zeros(n, np.bool_)))


def test_on_the_third_day_the_morning_is_expected_an_hour_before() -> None:
    values = daily(2 + 9.5 / 24, 2)
    said = fed(values).later(np.arange(2))
    hour = LATER.index(60)
    assert (said.values[:, hour, QUANTILES.index(0.5)] > 0.5 * AT_NOON).all()
    assert [SOURCES[by] for by in said.by] == ["yesterday and the days before at this time"] * 2
    repeated = step(fed(values[:, :-1]), values[:, -1], values.shape[1] * MINUTE)[0][0][-1]
    assert repeated[QUANTILES.index(0.5)] < 3 * AT_NIGHT  # 30 ticks ahead it is still night


def test_without_a_shape_the_last_minutes_speak() -> None:
    values = np.random.default_rng(2).gamma(4, 0.25, (4, 3000))
    said = fed(values, interval=1.0).later(np.arange(4))
    assert {SOURCES[by] for by in said.by} == {"values of the last minutes"}
    assert np.allclose(said.values[..., 0], 1, atol=0.3)
    assert (np.diff(said.values, axis=2) >= 0).all()


@pytest.mark.parametrize(("horizon", "ticks"), [(0, 3000), (1, 5000)])
def test_quantiles_cover_what_they_promise(horizon: int, ticks: int) -> None:
    """Noise around a level that wanders: 40 series, all of the second half."""
    rng = np.random.default_rng(3)
    level = 5 + np.cumsum(rng.normal(0, 0.01, (40, ticks)), axis=1)
    values = np.maximum(level + rng.normal(0, 0.5, level.shape), 0)
    forecaster, hits = Forecaster(None, 1.0), []
    for tick in range(ticks - LATER[horizon]):
        step(forecaster, values[:, tick], float(tick))
        if tick > ticks // 2 and tick % 37 == 0:
            said = forecaster.later(np.arange(40)).values[:, horizon]
            hits.append(values[:, tick + LATER[horizon], None] <= said)
    shares = np.mean(hits, axis=(0, 1))
    for level_ in (0.9, 0.95):
        assert shares[QUANTILES.index(level_)] == pytest.approx(level_, abs=0.025)


def test_a_series_that_stands_still_is_forecast_to_stay() -> None:
    values = np.concatenate((np.random.default_rng(4).gamma(4, 100, (2, 400)), np.full((2, 1500), 300.0)), axis=1)
    said = fed(values, interval=1.0).later(np.arange(2)).values
    assert np.allclose(said, 300, rtol=0.02)


def test_later_forecasts_stay_where_the_series_is_asked_for() -> None:
    values = np.array([[1.0], [50.0], [2000.0]]) * np.ones((3, 700))
    said = fed(values, interval=1.0).later(np.array([2, 0])).values
    assert np.allclose(said[:, 0, 0], [2000, 1], rtol=0.05)


def test_a_new_series_has_the_nearer_forecast() -> None:
    forecaster = Forecaster(None, 1.0)
    near = step(forecaster, np.array([7.0]), 0.0)[0][0][-1]
    assert forecaster.later(np.arange(1)).values[0].tolist() == [list(near)] * len(LATER)


def test_many_series_are_the_same_as_one() -> None:
    values = np.random.default_rng(5).gamma(4, 0.25, (300, 130))
    together, alone = fed(values, interval=1.0), fed(values[:1], interval=1.0)
    one, other = (forecaster.later(np.arange(1)).values for forecaster in (together, alone))
    assert np.allclose(one, other, rtol=0.01)  # the online correction is common to all


# --- pauses and restarts ------------------------------------------------------------------------------------------------------


def restarted(forecaster: Forecaster, interval: float) -> Forecaster:
    """Another one with what the first had kept, by way of bytes."""
    kept = forecaster.kept()
    again = Forecaster(None, interval)
    again.remember(Kept.from_bytes(kept.keys, kept.at.tolist(), kept.to_bytes()))
    return again


@pytest.mark.parametrize("gap", [0, 20])
def test_a_restart_costs_next_to_nothing(gap: int) -> None:
    """The loss of the hundred ticks after it, beside that without it and that of a start from nothing."""
    rng, before, after = np.random.default_rng(6), 900, 100
    tick = np.arange(before + gap + after)
    values = np.maximum(3 + 2 * np.sin(2 * np.pi * tick / 25) + rng.normal(0, 0.3, (60, len(tick))), 0)
    steady = fed(values[:, : before + gap], interval=1.0)
    again = restarted(fed(values[:, :before], interval=1.0), 1.0)
    lost = {}
    for name, forecaster in (("steady", steady), ("again", again), ("anew", Forecaster(None, 1.0))):
        losses = []
        for now in range(before + gap, len(tick) - 6):
            said = np.array([rows[2] for rows, _ in step(forecaster, values[:, now], float(now))])  # 6 ticks ahead
            error = values[:, now + 6, None] - said
            losses.append(np.maximum(np.array(QUANTILES) * error, (np.array(QUANTILES) - 1) * error).mean())
        lost[name] = float(np.mean(losses))
    assert lost["again"] < (1.06 if gap else 1.03) * lost["steady"]
    assert lost["anew"] > 1.3 * lost["steady"]


def test_without_a_gap_a_restart_changes_no_forecast_once_what_was_pending_is_over() -> None:
    """Only the errors of the forecasts that were pending are missing: the point is the same at once."""
    values = np.random.default_rng(7).gamma(4, 0.25, (5, 400))
    steady, again = fed(values, interval=1.0), restarted(fed(values, interval=1.0), 1.0)
    now = np.ones(5)
    one, other = (np.array([rows for rows, _ in step(each, now, 400.0)]) for each in (steady, again))
    assert np.allclose(one[:, :, 0], other[:, :, 0], rtol=0.1)


def test_after_a_night_off_a_group_is_known_by_the_clock_only() -> None:
    values = daily(2, 2)
    forecaster = fed(values)
    empty = np.zeros(0)
    for tick in range(9 * 60):
        step(forecaster, empty, 2 * DAY + tick * MINUTE)
    fed(np.full((2, 30), AT_NIGHT), 2 * 1440 + 9 * 60, forecaster=forecaster)
    said = forecaster.later(np.arange(2)).values[:, LATER.index(60), QUANTILES.index(0.5)]
    assert (said > 0.4 * AT_NOON).all()
    unknown = fed(np.full((2, 30), AT_NIGHT), 2 * 1440 + 9 * 60).later(np.arange(2)).values[:, LATER.index(60), 0]
    assert (unknown < 2 * AT_NIGHT).all()


def test_a_short_absence_goes_on_and_a_long_one_begins_again() -> None:
    values = np.random.default_rng(8).gamma(4, 0.25, (1, 300))
    for gone, ages in ((GAP, 301), (GAP + 1, 1)):
        forecaster = fed(values, interval=1.0)
        for tick in range(gone):
            step(forecaster, np.zeros(0), 300.0 + tick)
        step(forecaster, np.ones(1), 300.0 + gone)
        assert forecaster.kept().parts["experts.age"].tolist() == [ages]


def test_what_is_forgotten_does_not_come_back() -> None:
    forecaster = fed(np.full((1, 200), 5.0), interval=1.0)
    forecaster.forget(["g0"])
    step(forecaster, np.ones(1), 200.0)
    assert forecaster.kept().parts["experts.age"].tolist() == [1]


def test_too_many_that_are_gone_are_dropped_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nicety.models.forecast.demand.ABSENT", 3)
    forecaster = Forecaster(None, 1.0)
    for tick, name in enumerate("abcde"):
        step(forecaster, np.ones(1), float(tick), name)
    assert sorted(map(str, forecaster.kept().keys)) == ["b0", "c0", "d0", "e0"]


def test_what_is_too_old_is_not_used() -> None:
    kept = fed(np.full((1, 200), 5.0), interval=1.0).kept()
    forecaster = Forecaster(None, 1.0)
    forecaster.remember(kept)
    step(forecaster, np.ones(1), 15.0 * DAY)
    assert forecaster.kept().parts["experts.unit"].tolist() == [1.0]
    assert forecaster.kept().parts["experts.age"].tolist() == [1]


def test_a_clock_that_was_set_back_begins_again() -> None:
    kept = fed(np.full((1, 200), 5.0), 10_000, interval=1.0).kept()
    forecaster = Forecaster(None, 1.0)
    forecaster.remember(kept)
    step(forecaster, np.ones(1), 50.0)
    assert forecaster.kept().parts["experts.age"].tolist() == [1]


# --- what comes from a file -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_absurd_content_is_refused(name: str) -> None:
    kept = fed(np.random.default_rng(9).gamma(4, 0.25, (2, 60)), interval=1.0).kept()
    sound = kept.to_bytes()
    assert Kept.from_bytes(kept.keys, kept.at.tolist(), sound).to_bytes() == sound
    dtype = np.dtype(SHAPES[name][1])
    if dtype != np.bool_:
        absurd: Any = np.array(kept.parts[name], dtype=dtype)
        absurd[..., 0] = -1 if dtype == np.int64 else np.inf
        with pytest.raises(ValueError, match="values that no series gives"):
            Kept.from_bytes(kept.keys, kept.at.tolist(), {**sound, name: absurd.tobytes()})
    with pytest.raises(ValueError, match="does not fit 2 series"):
        Kept.from_bytes(kept.keys, kept.at.tolist(), {**sound, name: sound[name][:-1]})
    with pytest.raises(ValueError, match="other parts"):
        Kept.from_bytes(kept.keys, kept.at.tolist(), {key: value for key, value in sound.items() if key != name})


def test_wrong_keys_are_refused() -> None:
    kept = fed(np.ones((2, 20)), interval=1.0).kept()
    for keys, at in ((["g0", "g0"], [1.0, 1.0]), (["g0", "g1"], [1.0]), (["g0", "g1"], [1.0, float("nan")])):
        with pytest.raises(ValueError, match="series"):
            Kept.from_bytes(keys, at, kept.to_bytes())


def test_random_bytes_never_break_a_forecaster() -> None:
    """Either they are refused, or forecasts are finite."""
    rng = np.random.default_rng(10)
    kept = fed(rng.gamma(4, 0.25, (2, 250)), interval=1.0).kept()
    used = 0
    for _ in range(150):
        parts = {name: bytearray(data) for name, data in kept.to_bytes().items()}
        part = parts[str(rng.choice(sorted(parts)))]
        part[int(rng.integers(len(part)))] = int(rng.integers(256))
        try:
            found = Kept.from_bytes(kept.keys, kept.at.tolist(), {name: bytes(data) for name, data in parts.items()})
        except ValueError:
            continue
        used += 1
        forecaster = Forecaster(None, 1.0)
        forecaster.remember(found)
        for tick in range(250, 263):
            assert np.isfinite(np.array([rows for rows, _ in step(forecaster, np.ones(2), float(tick))])).all()
        assert np.isfinite(forecaster.later(np.arange(2)).values).all()
    assert 20 < used < 150
