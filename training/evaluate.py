"""How forecasters did on held-out time: accuracy and coverage by metric and horizon. Knows forecasts, not how they were made.

wQL is the weighted quantile loss: twice the pinball loss over the sum of values, mean over the quantiles; 0 is perfect. Across
metrics, a forecaster's `score` is the geometric mean of its wQL relative to that of the last value; below 1 is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..models.features import Floats
from ..models.forecast.baseline import BASELINES, Forecasts
from ..models.records import HORIZONS, QUANTILES, WINDOW
from .quotas import factors
from .stream import Samples, SeriesRun

BLOCK = 4096
"""Origins that a baseline gets at a time. Chosen: bounds the memory of their windows."""

NEGLIGIBLE = 1e-4
"""A loss of 0.01 % of the values counts as none. It is added to both sides of a ratio, so that series that stand still do not
decide (chosen)."""


@dataclass(frozen=True, slots=True)
class DemandRow:
    """One forecaster at one metric and horizon on held-out time."""

    forecaster: str
    metric: str
    horizon: int  # ticks
    wql: float
    coverage: tuple[float, ...]  # share of values at or below each of QUANTILES
    values: int


@dataclass(frozen=True, slots=True)
class DemandTable:
    """All forecasters on the same held-out values."""

    rows: tuple[DemandRow, ...]

    def score(self, forecaster: str, metric: str | None = None) -> float:
        """Geometric mean over horizons, and metrics if none is given, of the wQL relative to the anchor's; lower is better."""
        anchor = {(row.metric, row.horizon): row.wql for row in self.rows if row.forecaster == BASELINES[0].name}
        ratios = [
            np.log((row.wql + NEGLIGIBLE) / (anchor[row.metric, row.horizon] + NEGLIGIBLE))
            for row in self.rows
            if row.forecaster == forecaster and metric in (None, row.metric)
        ]
        return float(np.exp(np.mean(ratios)))

    def metrics(self) -> list[str]:
        """The metrics, sorted."""
        return sorted({row.metric for row in self.rows})

    def forecasters(self) -> list[str]:
        """Their names, in the order they were given."""
        return list(dict.fromkeys(row.forecaster for row in self.rows))


def evaluate(forecasts: Mapping[str, Floats], test: Samples, runs: Sequence[SeriesRun]) -> DemandTable:
    """Every baseline and each of `forecasts` (name to show: [n, H, Q]) on the same samples of runs. The values of an owner count no
    more than its quota."""
    metrics = np.array([runs[which].metric for which in test.run.tolist()])
    owners = np.array([runs[which].owner for which in test.run.tolist()])
    several = len(set(owners.tolist())) > 1
    known = np.isfinite(test.targets)
    rows = []
    for name, said in [*forecasts.items(), *((baseline.name, _predict(baseline, test, runs)) for baseline in BASELINES)]:
        for metric in sorted(set(metrics.tolist())):
            for h, horizon in enumerate(HORIZONS):
                here = (metrics == metric) & known[:, h]
                if here.any():
                    values = test.targets[here, h]
                    weights = factors(owners[here].tolist(), np.abs(values)) if several else None
                    loss, coverage = losses(values, said[here, h], weights)
                    rows.append(DemandRow(name, metric, horizon, loss, coverage, int(here.sum())))
    return DemandTable(tuple(rows))


def _predict(baseline: Forecasts, test: Samples, runs: Sequence[SeriesRun]) -> Floats:
    """[n, H, Q] forecasts of a baseline at the origins of samples."""
    said = np.empty((len(test), len(HORIZONS), len(QUANTILES)))
    for first in range(0, len(test), BLOCK):
        part = slice(first, min(first + BLOCK, len(test)))
        windows = np.full((part.stop - first, WINDOW), np.nan)
        for row, (which, origin) in enumerate(zip(test.run[part].tolist(), test.origin[part].tolist(), strict=True)):
            recent = runs[which].values[max(origin + 1 - WINDOW, 0) : origin + 1]
            windows[row, WINDOW - len(recent) :] = recent
        said[part] = baseline.predict(windows, np.minimum(test.origin[part] + 1, WINDOW))
    return said


def losses(values: Floats, said: Floats, weights: Floats | None = None) -> tuple[float, tuple[float, ...]]:
    """(wQL, coverage of each quantile) of forecasts [n, Q] of `values` [n]. If all values are 0, the loss per value instead.
    `weights` [n]: what each value counts; None: the same."""
    levels = np.asarray(QUANTILES)
    weights = np.ones(len(values)) if weights is None else weights
    error = values[:, None] - said
    pinball = (weights[:, None] * np.maximum(levels * error, (levels - 1) * error)).sum(axis=0)
    total = (weights * np.abs(values)).sum()
    wql = float(np.mean(2 * pinball) / (total if total > 0 else weights.sum()))
    return wql, tuple(np.average(values[:, None] <= said, axis=0, weights=weights).tolist())
