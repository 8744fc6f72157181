"""What training sees of a series at an origin is what the runtime sees there, whatever runs beside it."""

from __future__ import annotations

import numpy as np
import pytest

from nicety.models.forecast.demand import fallback, forecasts, rows
from nicety.models.forecast.experts import Experts, Floats, Ints, Singles
from nicety.models.records import HORIZONS
from nicety.training import stream as module
from nicety.training.stream import SeriesRun, stream

START = 1_700_000_000.0


def runs(lengths: tuple[int, ...] = (700, 40, 900, 120)) -> list[SeriesRun]:
    rng = np.random.default_rng(2)
    return [SeriesRun(f"g{i}", "cpu", 0, rng.gamma(4, 0.25, n).astype(np.float32), START + 7200 * i) for i, n in enumerate(lengths)]


def places(every: list[SeriesRun], step: int = 13) -> list[Ints]:
    return [np.arange(8, len(run.values), step) for run in every]


def alone(run: SeriesRun, origin: int) -> tuple[Singles, Floats]:
    """(rows [H, F], forecasts [H, Q]) as the runtime makes them of one series, in a slot of several."""
    experts = Experts(8, 1.0)
    seen = None
    for tick in range(origin + 1):
        values = np.zeros(8)
        values[3] = run.values[tick]
        seen = experts.step(values, np.full(8, run.at + tick), np.full(8, tick == 0))
    assert seen is not None
    return rows(experts, seen)[:, :, 3].T, forecasts(seen, fallback(seen))[3]


@pytest.mark.parametrize("together", [1024, 2])
def test_rows_and_points_are_those_of_the_runtime(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOGETHER", together)
    every = runs()
    made = stream(every, places(every), 1.0)
    assert len(made) == sum(map(len, places(every)))
    for which, origin in ((0, 8), (0, 541), (1, 34), (2, 892), (3, 112)):
        (at,) = np.flatnonzero((made.run == which) & (made.origin == origin))
        expected, said = alone(every[which], origin)
        assert np.allclose(made.rows[at], expected, rtol=1e-4, atol=1e-5)
        assert np.allclose(made.values(made.start.astype(float))[at], said, rtol=1e-4)


def test_targets_are_what_came_and_unknown_after_the_end() -> None:
    every = runs((60,))
    made = stream(every, [np.array([10, 50])], 1.0)
    assert np.array_equal(made.targets[0], every[0].values[10 + np.array(HORIZONS)])
    assert np.isfinite(made.targets[1]).tolist() == [50 + h < 60 for h in HORIZONS]


def test_answers_are_the_inverse_of_values() -> None:
    every = runs((200,))
    made = stream(every, [np.arange(20, 160)], 1.0)
    right = made.answers()
    assert np.allclose(made.values(np.repeat(right[:, :, None], 4, axis=2))[:, :, 0], made.targets, rtol=1e-5)


def test_it_ends_early_with_the_origins_that_were_reached() -> None:
    every = runs((1500, 1200))
    told: list[int] = []

    def progress(done: int) -> bool:
        told.append(done)
        return len(told) < 2

    made = stream(every, places(every), 1.0, progress)
    assert told == [2 * module.CHUNK, 4 * module.CHUNK]
    assert made.origin.max() < 2 * module.CHUNK
    assert set(made.run.tolist()) == {0, 1}
    whole = stream(every, places(every), 1.0)
    assert np.array_equal(made.rows[0], whole.rows[0])


def test_progress_ends_at_all_values() -> None:
    every, told = runs(), list[int]()
    chosen = places(every)

    def progress(done: int) -> bool:
        told.append(done)
        return True

    stream(every, chosen, 1.0, progress)
    assert told == sorted(told)
    assert told[-1] == sum(int(part[-1]) + 1 for part in chosen)
