"""How the benchmark shows series to the forecaster: benchmarks/forecast/model.py."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return importlib.import_module("benchmarks.forecast.model")


def test_a_series_shown_in_pieces_is_scored_at_the_origins_that_were_asked(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "LONG", 100)
    monkeypatch.setattr(benchmark, "SEEN", 40)
    steps = np.repeat(np.arange(1.0, 41.0), 50)  # a level of its own wherever it is asked
    series = benchmark.Series("set", "count", "one", "one", 0.0, 1.0, steps)
    origins = benchmark.origins(series)
    (said,) = benchmark.speak(None, [series])
    assert len({len(run.values) for run, _ in benchmark.pieces(series, origins)}) > 1, "the last piece is a shorter one"
    assert said.quantiles.shape[0] == len(origins)
    assert np.corrcoef(said.quantiles[:, 0, 0], steps[origins])[0, 1] > 0.99
