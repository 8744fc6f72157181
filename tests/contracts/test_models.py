"""Every forecaster keeps the promises of `models/checks.py`, and the checks notice those that do not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from nicety.models.artifact import shipped
from nicety.models.checks import CheckError, Streamed, check_forecaster, series_zoo
from nicety.models.forecast.baseline import BASELINES, Floats, Forecasts, Ints, LastValue
from nicety.models.forecast.network import Network
from nicety.models.records import WINDOW
from nicety.training.fit import fit_demand
from nicety.training.stream import SeriesRun, stream


@pytest.fixture(scope="module")
def trained() -> Network:
    rng = np.random.default_rng(1)
    t = np.arange(300)
    runs = [
        SeriesRun(f"g{i}", "cpu", 0, (2 + np.sin(t / (3 + i)) + rng.normal(0, 0.1, 300)).clip(0).astype(np.float32))
        for i in range(8)
    ]
    samples = stream(runs, [np.arange(8, 250) for _ in runs], 1.0)
    base = shipped("demand")
    assert base is not None
    return Network(fit_demand(samples, ["cpu"] * len(samples), 1, base.arrays), "ab" * 32)


@pytest.mark.parametrize("model", BASELINES, ids=lambda model: model.name)
def test_baselines_keep_all_promises(model: Forecasts) -> None:
    check_forecaster(model)


def test_the_experts_keep_all_promises() -> None:
    check_forecaster(Streamed(None))


def test_a_trained_model_keeps_all_promises(trained: Network) -> None:
    check_forecaster(Streamed(trained))


def test_the_model_that_nicety_comes_with_keeps_all_promises() -> None:
    found = shipped("demand")
    assert found is not None
    check_forecaster(Streamed(Network(found.arrays, found.digest)))


def test_the_series_that_a_forecaster_is_checked_with_rise_and_fall_at_their_last_tick() -> None:
    windows, lengths = series_zoo()
    steps = np.diff(windows[lengths == WINDOW], axis=1)
    assert {float(step[-1]) for step in steps if not step[:-1].any()} == {-1.0, 0.0, 1.0}


class Spoilt:
    """The last value, with one promise broken."""

    name = "spoilt"

    def __init__(self, spoil: Callable[[Floats, Floats, Ints], Floats]) -> None:
        self._spoil = spoil

    def predict(self, windows: Floats, lengths: Ints) -> Floats:
        return self._spoil(LastValue().predict(windows, lengths), windows, lengths)


def overwrite(said: Floats, windows: Floats, lengths: Ints) -> Floats:
    windows[:] = 0
    return said


calls = iter(range(10_000))


@pytest.mark.parametrize(
    ("spoil", "promise"),
    [
        (overwrite, "leaves its input alone"),
        (lambda said, w, n: said[:, :-1], "gives [n, horizons, quantiles]"),
        (lambda said, w, n: np.where(said == said.max(), np.nan, said), "finite"),
        (lambda said, w, n: said - 1e-3, "no negative demand"),
        (lambda said, w, n: said[:, :, ::-1], "rises in the quantile"),
        (lambda said, w, n: said * (1 + 1e-9 * next(calls)), "the same for the same"),
        (lambda said, w, n: said * (1 + 1e-9 * np.arange(len(said)))[:, None, None], "order of series"),
        (lambda said, w, n: said * (1 + 1e-12 * len(said)), "other series"),
        (lambda said, w, n: said + 1e-9 * np.nan_to_num(w[:, :1, None]).clip(0, 1e300) * (n < WINDOW)[:, None, None], "older"),
        (lambda said, w, n: said * 1.01, "constant"),
        (lambda said, w, n: np.where((n == 1)[:, None, None], said * 9, said), "only value known"),
        (lambda said, w, n: np.where((n == 1)[:, None, None], said[:, :1, :1], said), "not certain"),
        (
            lambda said, w, n: np.where(((n == WINDOW) & (np.ptp(w, axis=1) > 0))[:, None, None] & (said > 0), said + 0.5, said),
            "scales",
        ),
    ],
)
def test_the_checks_notice_a_broken_promise(spoil: Callable[[Floats, Floats, Ints], Floats], promise: str) -> None:
    with pytest.raises(CheckError) as caught:
        check_forecaster(Spoilt(spoil))
    assert promise in str(caught.value)
