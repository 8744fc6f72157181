"""Whatever the series and whatever a model says, forecasts are fit for use."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nicety.models.forecast.baseline import BASELINES, LARGEST, Ints
from nicety.models.forecast.demand import Forecaster, rows
from nicety.models.forecast.experts import Experts, Floats, Singles
from nicety.models.records import QUANTILES, WINDOW

values = st.one_of(
    st.floats(width=64),  # NaN, infinities, negative, denormal and huge ones too
    st.floats(0, 100),
    st.sampled_from([0.0, 1.0, 1e-300, 1e300, 4096.0]),
)


@st.composite
def windows(draw: st.DrawFn) -> tuple[Floats, Ints]:
    n = draw(st.integers(1, 4))
    made = draw(hnp.arrays(np.float64, (n, WINDOW), elements=values, fill=values))
    lengths = draw(hnp.arrays(np.int64, n, elements=st.integers(1, WINDOW)))
    made[:, -1] = draw(hnp.arrays(np.float64, n, elements=st.floats(0, 1e300)))
    return made, lengths


@st.composite
def series(draw: st.DrawFn) -> Floats:
    """[n, ticks], the first value of each known."""
    n, ticks = draw(st.integers(1, 4)), draw(st.integers(1, 60))
    made = draw(hnp.arrays(np.float64, (n, ticks), elements=values, fill=values))
    made[:, 0] = draw(hnp.arrays(np.float64, n, elements=st.floats(0, 1e300)))
    return made


def fit_for_use(said: Floats) -> bool:
    return bool(np.isfinite(said).all() and (said >= 0).all() and (said <= LARGEST).all() and (np.diff(said, axis=-1) >= 0).all())


@settings(max_examples=60, deadline=None)
@given(windows())
def test_baselines_bear_any_window(given_: tuple[Floats, Ints]) -> None:
    for baseline in BASELINES:
        assert fit_for_use(baseline.predict(*given_)), baseline.name


@settings(max_examples=60, deadline=None)
@given(series())
def test_rows_bear_any_series(shown: Floats) -> None:
    experts = Experts(len(shown), 1.0)
    for tick in range(shown.shape[1]):
        seen = experts.step(shown[:, tick], np.full(len(shown), float(tick)), np.full(len(shown), tick == 0))
        assert np.isfinite(rows(experts, seen)).all()


class Hostile:
    """A model that says what it is told to."""

    name = "demand hostile"

    def __init__(self, said: Singles) -> None:
        self._said = said

    def answers(self, made: Singles, start: Singles, _metric: Ints) -> Singles:
        return self._said[np.arange(len(start)) % len(self._said)]


@settings(max_examples=60, deadline=None)
@given(series(), hnp.arrays(np.float32, (7, len(QUANTILES)), elements=st.floats(width=32), fill=st.floats(width=32)))
def test_nothing_that_a_model_says_makes_a_forecast_unfit(shown: Floats, said: Singles) -> None:
    forecaster = Forecaster(Hostile(said), 1.0)
    n = len(shown)
    for tick in range(shown.shape[1]):
        now = shown[:, tick]
        found = forecaster.step(
            range(n), np.where(np.isfinite(now), now, np.nan), float(tick), np.zeros(n, np.int64), np.ones(n, np.bool_)
        )
        assert fit_for_use(np.array([forecast for forecast, _ in found]))


@settings(max_examples=40, deadline=None)
@given(windows(), st.integers(-200, 200))
def test_baselines_scale_with_their_series(given_: tuple[Floats, Ints], power: int) -> None:
    made, lengths = given_
    made = np.where(np.isfinite(made) & (made >= 0), np.clip(made, 2.0**-100, 2.0**100), 0.0)
    factor = 2.0**power  # exact, so the forecasts must be equal to the last bit
    for baseline in BASELINES:
        assert np.array_equal(baseline.predict(made * factor, lengths), baseline.predict(made, lengths) * factor), baseline.name


@settings(max_examples=40, deadline=None)
@given(series(), st.integers(-200, 200))
def test_forecasts_scale_with_their_series(shown: Floats, power: int) -> None:
    """But for small counts, which are whole numbers on one scale only: the first value is never a whole number here."""
    shown = np.where(np.isfinite(shown) & (shown >= 0), np.clip(shown, 2.0**-100, 2.0**100), 0.0)
    shown[:, 0] = 1 / 3
    n, factor = len(shown), 2.0**power
    one, other = Forecaster(None, 1.0), Forecaster(None, 1.0)
    for tick in range(shown.shape[1]):
        more = (float(tick), np.zeros(n, np.int64), np.ones(n, np.bool_))
        usual, scaled = one.step(range(n), shown[:, tick], *more), other.step(range(n), shown[:, tick] * factor, *more)
        for (a, _), (b, _) in zip(usual, scaled, strict=True):
            assert np.array_equal(np.array(a) * factor, np.array(b))
