"""A demand model's forecasts of held-out time for the report: by group, by horizon, and as fans over the series; and what the model
relies on. Plain figures; must not know pictures or the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.forecast.experts import EXPERTS
from ..models.records import HORIZONS, QUANTILES
from .stream import SeriesRun

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SHOWN_TICKS = 180
"""Ticks of a series in a picture, not counting the longest horizon after the last fan (chosen)."""

FANS = 3
"""Forecasts drawn into a picture; they do not overlap (chosen)."""

LEAST_FORECASTS = 20
"""Held-out forecasts that a group needs to be ranked. Chosen: as many as the shortest held-out time has."""

STILL = 0.002
"""A group stands still if its fallback loses less than this share of its values. Chosen: there is nothing to improve or to see."""

UPPER = QUANTILES.index(0.95)

LEANS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("which simple forecaster has been right lately", ("loss of ",)),
    (
        "the period found in the series",
        (
            "a period ago",
            "two periods",
            "largest near a period",
            "length of the period",
            "horizon in periods",
            "loss at the period",
        ),
    ),
    ("how wrong the forecasts have been", ("error", "last error", "mean error", "size of errors")),
    ("the latest values", ("value ",)),
    ("highest and lowest values lately", ("largest of", "least of")),
    ("level and shape of the series", ("point of", "level of", "share of")),
    ("how far ahead the forecast is", ("horizon",)),
    ("how long the series has been seen", ("age",)),
)
"""Columns of a demand row, in groups that people can tell apart: (name of the group, beginnings of the columns' names). The first
match counts."""


@dataclass(frozen=True, slots=True)
class Backtest:
    """Forecasts of held-out time and what followed. In the series' own values."""

    runs: tuple[SeriesRun, ...]
    run: Ints  # [n] place in `runs`
    origin: Ints  # [n] place in the run after whose value the forecast was made
    targets: Floats  # [n, H]; NaN: unknown
    said: Floats  # [n, H, Q] by the new model
    baseline: Floats  # [n, H, Q] by the experts without a model
    leans: Mapping[str, float]  # column -> share by which the loss grows when it is shuffled

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All but the runs and `leans`."""
        return {name: getattr(self, name) for name in ("run", "origin", "targets", "said", "baseline")}

    @classmethod
    def of(cls, runs: tuple[SeriesRun, ...], leans: Mapping[str, float], arrays: Mapping[str, NDArray[Any]]) -> Backtest:
        """The inverse of `arrays`. Raises ValueError or KeyError where they do not fit."""
        it = cls(runs, arrays["run"], arrays["origin"], arrays["targets"], arrays["said"], arrays["baseline"], leans)
        n, h, q = len(it.run), len(HORIZONS), len(QUANTILES)
        shapes = (it.origin.shape, it.targets.shape, it.said.shape, it.baseline.shape)
        if shapes != ((n,), (n, h), (n, h, q), (n, h, q)) or not all(0 <= which < len(runs) for which in it.run.tolist()):
            raise ValueError("forecasts that do not fit the series")
        return it


@dataclass(frozen=True, slots=True)
class GroupRow:
    """How the forecasts of one series of a group did."""

    target: str
    metric: str
    forecasts: int  # origins
    loss: float  # loss as a share of the values
    baseline: float  # loss of the fallback as a share of the values
    covered: float  # share of values at or below the 95 % quantile

    @property
    def ratio(self) -> float:
        """Loss relative to the fallback's; below 1 is better."""
        return (self.loss + 1e-9) / (self.baseline + 1e-9)


@dataclass(frozen=True, slots=True)
class DrawnForecast:
    """One forecast in a picture."""

    at: int  # tick of the picture, after whose value it was made
    said: Floats  # [H, Q]
    baseline: Floats  # [H, Q]


@dataclass(frozen=True, slots=True)
class Fan:
    """A stretch of a series with what was forecast in it."""

    row: GroupRow
    values: NDArray[np.float32]
    forecasts: tuple[DrawnForecast, ...]


def by_group(evidence: Backtest) -> list[GroupRow]:
    """Every series of every group with enough forecasts, best first relative to the fallback."""
    names = [(run.target, run.metric) for run in evidence.runs]
    keys = sorted({names[which] for which in np.unique(evidence.run).tolist()})
    index = {key: at for at, key in enumerate(keys)}
    at = np.array([index.get(name, -1) for name in names], dtype=np.int64)[evidence.run]
    known = np.isfinite(evidence.targets)
    size = np.bincount(at, np.where(known, np.abs(evidence.targets), 0).sum(axis=1), len(keys))
    count = np.bincount(at, minlength=len(keys))
    answers = np.bincount(at, known.sum(axis=1), len(keys))
    own, base = (np.bincount(at, _pinball(evidence.targets, said), len(keys)) for said in (evidence.said, evidence.baseline))
    below = np.where(known, evidence.targets <= evidence.said[:, :, UPPER], False).sum(axis=1)
    covered = np.bincount(at, below, len(keys)) / np.maximum(answers, 1)
    rows = [
        GroupRow(key[0], key[1], int(count[i]), float(own[i] / size[i]), float(base[i] / size[i]), float(covered[i]))
        for key, i in index.items()
        if count[i] >= LEAST_FORECASTS and size[i] > 0
    ]
    return sorted(rows, key=lambda row: (row.ratio, row.target, row.metric))


def moving(rows: Sequence[GroupRow]) -> list[GroupRow]:
    """The rows of series that do not stand still."""
    return [row for row in rows if row.baseline >= STILL]


def chosen(rows: Sequence[GroupRow], most: int, first: Sequence[str] = ("target",)) -> list[GroupRow]:
    """The first `most` rows, no group twice while others remain. `first`: attributes in which the first rows must all differ."""
    taken: list[GroupRow] = []
    for apart in (first, ("target",), ()):
        for row in rows:
            new = all(getattr(row, name) != getattr(it, name) for it in taken for name in apart)
            if len(taken) < most and row not in taken and new:
                taken.append(row)
    return [row for row in rows if row in taken]


def fan(evidence: Backtest, row: GroupRow) -> Fan:
    """The end of a series' held-out time, from its run with the most forecasts."""
    counts = np.bincount(evidence.run, minlength=len(evidence.runs))
    mine = [at for at, run in enumerate(evidence.runs) if (run.target, run.metric) == (row.target, row.metric)]
    which = max(mine, key=lambda at: int(counts[at]))
    found = np.flatnonzero(evidence.run == which)
    found = found[np.argsort(evidence.origin[found])]
    origins = evidence.origin[found]
    values = evidence.runs[which].values
    first = max(int(origins[-1]) - SHOWN_TICKS, 0)
    last = min(int(origins[-1]) + max(HORIZONS) + 1, len(values))
    apart = max((int(origins[-1]) - first) // FANS, max(HORIZONS))
    places = [len(origins) - 1]
    while len(places) < FANS:
        before = int(np.searchsorted(origins, origins[places[-1]] - apart, side="right")) - 1
        if before < 0 or origins[before] <= first + max(HORIZONS) // 2:
            break
        places.append(before)
    forecasts = tuple(
        DrawnForecast(int(origins[at]) - first, evidence.said[found[at]], evidence.baseline[found[at]]) for at in reversed(places)
    )
    return Fan(row, values[first:last], forecasts)


def coverage(targets: Floats, said: Floats) -> Floats:
    """[H, Q] share of values at or below each quantile at each horizon; NaN where none is known."""
    known = np.isfinite(targets)
    count = known.sum(axis=0)[:, None]
    below = (known[:, :, None] & (np.nan_to_num(targets)[:, :, None] <= said)).sum(axis=0)
    return np.asarray(np.where(count > 0, below / np.maximum(count, 1), np.nan))


def leans(found: Mapping[str, float]) -> list[tuple[str, float]]:
    """(group of columns, share of the loss that they save), the largest first, without those at 0."""
    total: dict[str, float] = {}
    for name, share in found.items():
        group = (
            "what the simple forecasters predict"
            if name in EXPERTS
            else next((group for group, begins in LEANS if name.startswith(begins)), "other")
        )
        total[group] = total.get(group, 0.0) + share
    return sorted(((group, share) for group, share in total.items() if share), key=lambda entry: (-entry[1], entry[0]))


def _pinball(targets: Floats, said: Floats) -> Floats:
    """[n] twice the pinball loss: mean over the quantiles, sum over the known horizons."""
    levels = np.asarray(QUANTILES)
    error = targets[:, :, None] - said
    loss = 2 * np.maximum(levels * error, (levels - 1) * error).mean(axis=2)
    return np.asarray(np.where(np.isfinite(targets), loss, 0.0).sum(axis=1))
