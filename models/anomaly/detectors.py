"""One test for each kind of misbehaviour of a single worker: windows become scores, with figures. Pure.

A score says how unlike its siblings a worker is in one named way, or unlike its own past where siblings are few. `model.py` judges
how rare that is. Each test begins with a cheap bound that misses no trouble that would matter. Only workers beyond it, and their
pools, are looked at closely. The others score 0. The tests are in `leaks.py`, `progress.py`, `slowness.py`, `storms.py` and
`outliers.py`, each with its constants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..features import Floats, Singles
from ..records import WINDOW, Anomaly
from .evidence import CHANNELS, NEAR, Found, WindowView
from .leaks import LEAKING, leak
from .outliers import outlier
from .progress import spin, starved, stuck
from .siblings import Flags, Ints, Siblings
from .slowness import slow
from .storms import fork_storm, switch_storm

FEW = 1.0
"""False alarms a day per 100 workers (the default) up to which only what matters is reported: decision 0010."""

LEAST = 0.1
"""As `evidence.NEAR`, for outliers where smaller things are asked for (chosen, decision 0010): no other kind comes in all sizes."""


@dataclass(frozen=True, slots=True)
class WorkerRows:
    """What the windows say about each worker."""

    scores: Floats  # [n, len(KINDS)] nonconformity, 0 or more; NaN: no evidence
    sizes: Floats  # [n, len(KINDS)] share of what matters; below 1 the p-value is 1
    found: Mapping[Anomaly, Found]  # the same by kind, with figures
    places: Ints  # [n] index of each worker in `found`
    alone: Found | None = None  # outliers against their own past, in the order of the workers

    @property
    def material(self) -> Flags:
        """[n, len(KINDS)] large enough to matter."""
        return self.sizes >= 1.0

    def joined(self, alone: Found) -> WorkerRows:
        """The same, with what `self_history.SelfHistory` says of workers that have too few siblings to be an outlier among them."""
        scores, sizes = self.scores.copy(), self.sizes.copy()
        column, theirs = KINDS.index(Anomaly.OUTLIER), ~np.isnan(alone.score)
        scores[theirs, column], sizes[theirs, column] = alone.score[theirs], alone.size[theirs]
        return replace(self, scores=scores, sizes=sizes, alone=alone)

    def figures(self, kind: Anomaly, worker: int) -> dict[str, float]:
        """The figures of a worker that was looked at closely; unknown ones are left out."""
        found, place = self.found[kind], self.places[worker]
        if kind is Anomaly.OUTLIER and self.alone is not None and not math.isnan(self.alone.score[worker]):
            found, place = self.alone, np.int64(worker)
        at = int(np.searchsorted(found.at, place))
        if at == len(found.at) or found.at[at] != place:
            return {}
        figures = ((name, float(values[at])) for name, values in found.figures.items())
        return {name: figure for name, figure in figures if math.isfinite(figure)}


def worker_rows(
    pools: Sequence[str],
    windows: Singles,
    lengths: Ints,
    interval: float,
    available: float | Floats | None = None,
    least: float = NEAR,
    ticks: Sequence[int] = (),
) -> WorkerRows:
    """Scores of workers by kind, from their windows.

    `pools` [n]: the pool of each worker. `windows` [len(CHANNELS), WINDOW, n] and `lengths` [n] as `features.WorkerWindows.view`
    gives them. `interval`: seconds per tick. `available`: bytes of memory left on the machine, for all or [n]; NaN: unknown.
    `least`: share of what matters from which outliers are reported. `ticks` [n]: the tick of each worker where there are those of
    several; a pool's workers of another tick are no siblings. The order of workers is irrelevant. NaN inside a window: a tick not
    known.
    """
    n = len(pools)
    if windows.shape != (len(CHANNELS), WINDOW, n) or np.shape(lengths) != (n,):
        raise ValueError(
            f"{n} workers need windows [{len(CHANNELS)}, {WINDOW}, {n}] and {n} lengths, not {windows.shape}, {np.shape(lengths)}"
        )
    if not 0 < interval < math.inf:
        raise ValueError(f"interval must be seconds above 0, not {interval}")
    if n == 0:
        raise ValueError("no workers, no rows")
    whose = list(zip(ticks or [0] * n, pools, strict=True))
    number = {name: i for i, name in enumerate(sorted(set(whose)))}
    index = np.fromiter((number[name] for name in whose), dtype=np.int64, count=n)
    left = None if available is None else np.broadcast_to(np.asarray(available, dtype=np.float64), n)
    places = np.arange(n)
    if (np.diff(index) < 0).any():  # never so from the observer
        order = np.argsort(index, kind="stable")
        windows, lengths, index, places = windows[:, :, order], lengths[order], index[order], np.argsort(order)
        left = None if left is None else left[order]
    view = WindowView(windows, lengths, Siblings(index), interval, left, least)
    found = {kind: test(view) for kind, test in TESTS.items()}
    scores = np.column_stack([found[kind].score for kind in KINDS])[places]
    sizes = np.column_stack([found[kind].size for kind in KINDS])[places]
    return WorkerRows(scores, np.where(np.isnan(scores), 0.0, sizes), found, places)


TESTS: Mapping[Anomaly, Callable[[WindowView], Found]] = {
    **{kind: partial(leak, what=what) for kind, what in LEAKING.items()},
    Anomaly.FORK_STORM: fork_storm,
    Anomaly.SWITCH_STORM: switch_storm,
    Anomaly.SPIN: spin,
    Anomaly.STUCK: stuck,
    Anomaly.STARVED: starved,
    Anomaly.SLOW: slow,
    Anomaly.OUTLIER: outlier,
}

KINDS: tuple[Anomaly, ...] = tuple(TESTS)
"""Columns of `WorkerRows.scores`. At equal p the earlier kind is reported."""
