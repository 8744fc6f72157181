"""Other detectors on the anomaly campaign's traces: monit's thresholds, IsolationForest, ECOD and Netdata's scheme.

All get the same figures of each worker, second by second, and the same healthy part to learn from. None of them compares siblings,
but limits and models are made for each pool, as a careful owner would. An alarm must last as long as ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .truth import SECOND, Alarm, Process

Floats = NDArray[np.float64]

FIGURES = ("cpu", "wait", "rss", "timeslices", "chars", "fds", "threads")
"""Cores run, cores waited for, bytes, times put on a CPU a second, bytes read and written a second, descriptors, threads."""

SPAN = 30
"""Ticks over which IsolationForest and ECOD see means. Chosen."""

TRAINING_ROWS = 20_000
"""Most rows that they are fitted on, evenly spaced. Chosen."""

PATIENCE = 5
"""Looks in a row that an alarm must last, at a look a second, and the seconds between two looks of the slow detectors. Our
default."""

QUIET = 60
"""Ticks after which the same alarm of the same worker is another incident, as in our policy."""


@dataclass(frozen=True, slots=True)
class Life:
    """The figures of one worker, tick by tick."""

    worker: Process
    pool: str
    at: NDArray[np.int64]  # [ticks] monotonic ns
    figures: Floats  # [ticks, len(FIGURES)]; NaN unknown


Peer = Callable[[list[Life], int], list[Alarm]]
"""(lives, monotonic ns until which all workers were healthy) -> alarms."""


def monit(lives: list[Life], trained: int) -> list[Alarm]:
    """Thresholds as in monit's manual: cpu > 90 % for 5 cycles; memory, descriptors and threads more than half above their largest
    healthy value, for 5 cycles. A cycle is 5 s, shorter than monit's usual 30 s."""
    most: dict[str, Floats] = {}
    for life in lives:
        seen = life.figures[life.at <= trained]
        if len(seen):
            most[life.pool] = np.fmax(most.get(life.pool, np.zeros(len(FIGURES))), np.nan_to_num(seen).max(axis=0))
    alarms = []
    for life in lives:
        limits = 1.5 * most.get(life.pool, np.full(len(FIGURES), np.inf))
        for name, kind in (("cpu", "spin"), ("rss", "leak"), ("fds", "fd-leak"), ("threads", "thread-leak")):
            column = FIGURES.index(name)
            values = np.nan_to_num(_means(life.figures[:, [column]], 5)[:, 0]) if name == "cpu" else life.figures[:, column]
            over = values > (0.9 if name == "cpu" else max(limits[column], 8.0))
            cycles = over[::5]
            alarms += _alarms(life, np.repeat(_lasting(cycles, 5), 5)[: len(over)], kind)
    return alarms


def isolation_forest(lives: list[Life], trained: int) -> list[Alarm]:
    """scikit-learn's IsolationForest with its defaults. The line is the highest score of the healthy part."""
    from sklearn.ensemble import IsolationForest

    rows = _training(lives, trained)
    forest = IsolationForest(random_state=0, n_jobs=1).fit(rows)
    return _by_score(lives, trained, lambda values: -np.asarray(forest.score_samples(values)))


def ecod(lives: list[Life], trained: int) -> list[Alarm]:
    """ECOD (Li et al. 2022), from its paper: the sum of the logarithms of each figure's empirical tail probabilities."""
    rows = np.sort(_training(lives, trained), axis=0)
    n = len(rows)
    centred = rows - rows.mean(axis=0)
    skewness = (centred**3).mean(axis=0) / np.maximum((centred**2).mean(axis=0) ** 1.5, 1e-12)

    def score(values: Floats) -> Floats:
        """The largest of three sums: all left tails, all right tails, and for each figure the tail on its longer side."""
        left, right = np.empty_like(values), np.empty_like(values)
        for column in range(values.shape[1]):
            # a value beyond all that was seen counts as one more seen
            left[:, column] = -np.log((np.searchsorted(rows[:, column], values[:, column], "right") + 1) / (n + 1))
            right[:, column] = -np.log((n - np.searchsorted(rows[:, column], values[:, column], "left") + 1) / (n + 1))
        longer = np.where(skewness < 0, left, right)
        return np.asarray(np.max([left.sum(axis=1), right.sum(axis=1), longer.sum(axis=1)], axis=0))

    return _by_score(lives, trained, score)


def netdata(lives: list[Life], trained: int) -> list[Alarm]:
    """Netdata's scheme. For each figure: differences, means of 3, vectors of six in a row, two clusters. An alarm: more than 1 %
    of a worker's figures over 5 minutes are beyond nearly all learned distances. With less than 3 hours of data, a figure has one
    model."""
    from sklearn.cluster import KMeans

    models: dict[tuple[str, int], tuple[Floats, float, float]] = {}
    vectors: dict[tuple[str, int], list[Floats]] = {}
    for life in lives:
        healthy = life.figures[life.at <= trained]
        for column in range(len(FIGURES)):
            rows = _lagged(healthy[:, column])
            if len(rows):
                vectors.setdefault((life.pool, column), []).append(rows)
    for key, parts in vectors.items():
        rows = np.concatenate(parts)
        rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), 1440)).astype(int)]
        if len(np.unique(rows, axis=0)) < 2:
            centres = rows[:1]
        else:
            centres = KMeans(2, n_init=1, max_iter=1000, random_state=0).fit(rows).cluster_centers_
        distance = _distance(rows, centres)
        models[key] = centres, float(distance.min()), float(distance.max())
    alarms = []
    for life in lives:
        bits = np.zeros((len(life.at), len(FIGURES)))
        for column in range(len(FIGURES)):
            model = models.get((life.pool, column))
            rows = _lagged(life.figures[:, column])
            if model is None or not len(rows):
                continue
            centres, least, most = model
            distance = _distance(rows, centres)
            score = np.where(most > least, 100 * np.abs(distance - least) / max(most - least, 1e-12), 100.0 * (distance > most))
            bits[len(life.at) - len(rows) :, column] = np.minimum(score, 100.0) >= 99.0
        share = np.convolve(bits.mean(axis=1), np.ones(300) / 300)[: len(life.at)]
        alarms += _alarms(life, share > 0.01, "")
    return alarms


PEERS: Mapping[str, Peer] = {"monit": monit, "IsolationForest": isolation_forest, "ECOD": ecod, "Netdata": netdata}


# --- shared -------------------------------------------------------------------------------------------------------------------


def features(life: Life) -> Floats:
    """Rows [ticks, features] of a worker: logarithms of means over `SPAN` ticks and what memory, descriptors and threads gained."""
    means = _means(life.figures, SPAN)
    units = np.array([0.01, 0.01, 1 << 20, 10.0, 1024.0, 1.0, 1.0])
    level = np.log1p(np.nan_to_num(means) / units)
    held = level[:, [FIGURES.index(name) for name in ("rss", "fds", "threads")]]
    before = np.concatenate([np.repeat(held[:1], min(SPAN, len(held)), axis=0), held[:-SPAN]])
    return np.concatenate([level, held - before], axis=1)


def _means(values: Floats, span: int) -> Floats:
    """Means over the last `span` rows, or as many as there are."""
    total = np.cumsum(np.nan_to_num(values), axis=0)
    total[span:] -= total[:-span].copy()
    return np.asarray(total / np.minimum(np.arange(1, len(values) + 1), span)[:, None])


def _training(lives: list[Life], trained: int) -> Floats:
    rows = np.concatenate([features(life)[life.at <= trained] for life in lives])
    return np.asarray(rows[np.linspace(0, len(rows) - 1, min(len(rows), TRAINING_ROWS)).astype(int)])


def _by_score(lives: list[Life], trained: int, score: Callable[[Floats], Floats]) -> list[Alarm]:
    """Alarms for workers that score above all of the healthy part, in several looks in a row."""
    looks = [slice(PATIENCE - 1, None, PATIENCE)] * len(lives)
    rows = [features(life)[look] for life, look in zip(lives, looks, strict=True)]
    scores = np.split(score(np.concatenate(rows)), np.cumsum([len(part) for part in rows])[:-1])
    healthy = [part[life.at[look] <= trained] for life, look, part in zip(lives, looks, scores, strict=True)]
    line = max(float(part.max()) for part in healthy if len(part))
    alarms = []
    for life, part in zip(lives, scores, strict=True):
        over = np.zeros(len(life.at), dtype=np.bool_)
        over[PATIENCE - 1 :: PATIENCE] = _lasting(part > line, 2)
        alarms += _alarms(life, over, "")
    return alarms


def _lasting(over: NDArray[np.bool_], times: int) -> NDArray[np.bool_]:
    """True where `over` was true for `times` looks in a row."""
    if not len(over):
        return over
    counts = np.convolve(over, np.ones(times, dtype=int))[: len(over)]
    return np.asarray(counts >= times)


def _alarms(life: Life, over: NDArray[np.bool_], kind: str) -> list[Alarm]:
    """One alarm an incident, when it begins. An incident is over after `QUIET` seconds."""
    alarms: list[Alarm] = []
    last = -QUIET * SECOND
    for place in np.flatnonzero(over).tolist():
        at = int(life.at[place])
        if at - last >= QUIET * SECOND or not alarms:
            alarms.append(Alarm(at, life.pool, life.worker, kind))
        last = at
    return alarms


def _lagged(values: Floats) -> Floats:
    """Vectors [ticks, 6] of smoothed differences."""
    if len(values) < 9:
        return np.zeros((0, 6))
    smooth = np.convolve(np.diff(np.nan_to_num(values)), np.ones(3) / 3, "valid")
    return np.asarray(np.lib.stride_tricks.sliding_window_view(smooth, 6))


def _distance(rows: Floats, centres: Floats) -> Floats:
    """Mean distance to the centres."""
    return np.asarray(np.mean([np.linalg.norm(rows - centre, axis=1) for centre in centres], axis=0))
