"""Whatever the windows and whatever a model says, forecasts are fit for use."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nicety.models.baseline import BASELINES, LARGEST, Floats, Ints
from nicety.models.demand import Forecaster, demand_rows
from nicety.models.records import HORIZONS, QUANTILES, WINDOW

SHAPE = (len(HORIZONS), len(QUANTILES))

values = st.one_of(
    st.floats(width=64),  # NaN, infinities, negative, denormal and huge ones too
    st.floats(0, 100),
    st.sampled_from([0.0, 1.0, 1e-300, 1e300, 4096.0]),
)


@st.composite
def series(draw: st.DrawFn) -> tuple[Floats, Ints]:
    n = draw(st.integers(1, 4))
    windows = draw(hnp.arrays(np.float64, (n, WINDOW), elements=values, fill=values))
    lengths = draw(hnp.arrays(np.int64, n, elements=st.integers(1, WINDOW)))
    windows[:, -1] = draw(hnp.arrays(np.float64, n, elements=st.floats(0, 1e300)))
    return windows, lengths


def fit_for_use(said: Floats) -> bool:
    return bool(np.isfinite(said).all() and (said >= 0).all() and (said <= LARGEST).all() and (np.diff(said, axis=-1) >= 0).all())


@settings(max_examples=60, deadline=None)
@given(series())
def test_baselines_and_rows_bear_any_window(given_: tuple[Floats, Ints]) -> None:
    windows, lengths = given_
    for baseline in BASELINES:
        assert fit_for_use(baseline.predict(windows, lengths)), baseline.name
    assert np.isfinite(demand_rows(windows, lengths)).all()


class Hostile:
    """A model that says what it is told to."""

    name = "demand hostile"

    def __init__(self, said: Floats) -> None:
        self.said = said

    def predict(self, windows: Floats, lengths: Ints, baseline: Floats | None = None) -> Floats:
        return self.said[: len(windows)]


@settings(max_examples=60, deadline=None)
@given(series(), hnp.arrays(np.float64, (4, *SHAPE), elements=st.floats(width=64), fill=st.floats(width=64)), st.integers(1, 40))
def test_nothing_that_a_model_says_makes_a_forecast_unfit(given_: tuple[Floats, Ints], said: Floats, ticks: int) -> None:
    windows, lengths = given_
    forecaster = Forecaster(Hostile(said))
    for tick in range(ticks):
        now = np.roll(windows, tick, axis=1)
        now[:, -1] = windows[:, -1]
        found = forecaster.step(range(len(now)), now, lengths, np.ones(len(now), dtype=np.bool_))
        assert fit_for_use(np.array([forecast for forecast, _ in found]))


@settings(max_examples=40, deadline=None)
@given(series(), st.integers(-200, 200))
def test_forecasts_scale_with_their_series(given_: tuple[Floats, Ints], power: int) -> None:
    windows, lengths = given_
    windows = np.where(np.isfinite(windows) & (windows >= 0), np.clip(windows, 2.0**-100, 2.0**100), 0.0)
    factor = 2.0**power  # exact, so the forecasts must be equal to the last bit
    for baseline in BASELINES:
        assert np.array_equal(baseline.predict(windows * factor, lengths), baseline.predict(windows, lengths) * factor), (
            baseline.name
        )
