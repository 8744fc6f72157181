"""The general score and simple baselines on five labelled public sets, by VUS-PR on their test parts.

    python -m benchmarks.anomaly.public_sets --data DIR [--only SET,...] [--json FILE]

DIR has `anomaly/*.parquet` (or set NICETY_DATA). Each method is fitted on the train part of a series and scores its test part,
without labels. In a set without train parts it is fitted on the test part, except for "general score, cold", which is never fitted
before. A set's figure is the mean over its series that have an anomaly.

The longest buffer of the volume is 100 ticks for every set, the default of the authors' code; a second column has 10. The volume
is the mean over nine buffer lengths, evenly spaced from 0 to the longest, because the area changes smoothly with the length.

Every baseline gives one score a tick from standardised features; an unknown value is replaced by the last known one:

    PCA             squared error of a reconstruction by the components that explain 90 %; one feature: of windows of 10 or 32 ticks
    PCA, weighted   squared distance by all components, each by its variance (windows alike)
    EWMA residual   mean absolute difference from the exponentially weighted mean, rates .05 to .3
    ECOD            Li et al. 2022, "ECOD: unsupervised outlier detection using empirical cumulative distribution functions"
    IsolationForest scikit-learn, 100 trees, seed 1
    robust z        mean absolute distance from the median, in 1.4826 median absolute deviations
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from nicety.models.anomaly.novelty import Novelty

from ..claims import Claims
from .vus import Bools, Floats, area

VARIABLE = "NICETY_DATA"
SETS: dict[str, tuple[str, float]] = {
    "smd": ("PCA", 0.524),
    "asd": ("EWMA residual", 0.202),
    "nab": ("ECOD", 0.278),
    "ms_cloud_monitoring": ("PCA", 0.813),
    "nezha_pods": ("EWMA residual", 0.849),
}
"""For each set, the best simple baseline and its VUS-PR, as published with the data. Not all details of that measurement are
known."""

LONGEST, SHORT = 100, 10
"""Longest buffer in ticks: for the claims (the default of the authors' code), and for the second column (chosen)."""

OURS, COLD = "general score", "general score, cold"
WINDOWS = (10, 32)
RATES = (0.05, 0.1, 0.2, 0.3)


@dataclass(frozen=True, slots=True)
class Labelled:
    """One series: [ticks, features] of both parts, and the labels of the test part."""

    name: str
    train: Floats
    test: Floats
    labels: Bools


def load(path: Path) -> list[Labelled]:
    """The series of a file that have an anomaly in their test part, in the order of the file."""
    table = pq.read_table(path)
    names, parts = np.array(table["series_id"].to_pylist()), np.array(table["part"].to_pylist())
    features = [name for name in table.column_names if name not in {"series_id", "part", "t", "label"}]
    values = np.column_stack([table[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in features])
    labels = table["label"].to_numpy(zero_copy_only=False) == 1
    every = (
        (name, (names == name) & (parts == "train"), (names == name) & (parts == "test")) for name in dict.fromkeys(names.tolist())
    )
    return [Labelled(name, values[train], values[test], labels[test]) for name, train, test in every if labels[test].any()]


def general(series: Labelled, cold: bool = False) -> Floats:
    """The general score of the test part, online: each tick is scored, and then learned."""
    watch = Novelty(1, series.test.shape[1])
    past = series.train if len(series.train) else series.test[: 0 if cold else None]
    for row in past:
        watch.step(row[None])
    return np.array([watch.step(row[None])[0] for row in series.test])


def baselines(series: Labelled) -> Iterator[tuple[str, Floats]]:
    """(name, scores of the test part) of every baseline."""
    test = filled(series.test)
    train = filled(series.train) if len(series.train) else test
    mean, spread = train.mean(axis=0), positive(train.std(axis=0))
    seen, past = (test - mean) / spread, (train - mean) / spread
    if test.shape[1] > 1:
        yield from pca("", past, seen)
    else:
        for width in WINDOWS:
            yield from pca(f", window {width}", windows(past, width), windows(seen, width))
    for rate in RATES:
        yield (
            f"EWMA residual {rate}",
            np.abs(seen - weighted_means(seen, rate, past[-1] if len(series.train) else seen[0])).mean(axis=1),
        )
    yield "ECOD", ecod(train, test)
    yield "IsolationForest", forest(past, seen)
    middle = np.median(train, axis=0)
    typical = 1.4826 * np.median(np.abs(train - middle), axis=0)
    yield "robust z", (np.abs(test - middle) / np.where(typical > 1e-9, typical, spread)).mean(axis=1)


def filled(values: Floats) -> Floats:
    """Unknown values replaced by the last known one, 0 before the first."""
    at = np.where(np.isfinite(values), np.arange(len(values))[:, None], -1)
    last = np.maximum.accumulate(at, axis=0)
    return np.where(last >= 0, np.take_along_axis(values, np.maximum(last, 0), axis=0), 0.0)


def positive(spread: Floats) -> Floats:
    """The spreads as divisors: 1 for a feature that never changed."""
    return np.where(spread > 1e-9, spread, 1.0)


def windows(values: Floats, width: int) -> Floats:
    """[n, width] the last `width` values at each tick, filled up with the first value at the start."""
    padded = np.concatenate([np.full(width - 1, values[0, 0]), values[:, 0]])
    return np.lib.stride_tricks.sliding_window_view(padded, width)


def pca(suffix: str, past: Floats, seen: Floats) -> Iterator[tuple[str, Floats]]:
    """Both scores by principal components of the past."""
    middle = past.mean(axis=0)
    variances, axes = np.linalg.eigh(np.cov(past.T))
    variances, axes = variances[::-1], axes[:, ::-1]
    enough = int(np.searchsorted(np.cumsum(variances) / variances.sum(), 0.9)) + 1
    along = (seen - middle) @ axes
    yield f"PCA{suffix}", (along[:, min(enough, len(variances) - 1) :] ** 2).sum(axis=1)
    yield f"PCA, weighted{suffix}", (along**2 / np.maximum(variances, 1e-6)).sum(axis=1)


def weighted_means(values: Floats, rate: float, before: Floats) -> Floats:
    """Exponentially weighted means before each tick."""
    means, mean = np.empty_like(values), before
    for tick, row in enumerate(values):
        means[tick] = mean
        mean = mean + rate * (row - mean)
    return means


def ecod(train: Floats, test: Floats) -> Floats:
    """Sums of -log of each feature's empirical tail probabilities: the greatest of the left tails, the right tails, and the tails
    to which the features are skewed."""
    n, features = train.shape
    ordered = np.sort(train, axis=0)
    left = np.column_stack([np.searchsorted(ordered[:, j], test[:, j], side="right") for j in range(features)]) / n
    right = 1.0 - np.column_stack([np.searchsorted(ordered[:, j], test[:, j], side="left") for j in range(features)]) / n
    low, high = -np.log(np.maximum(left, 1 / (n + 1))), -np.log(np.maximum(right, 1 / (n + 1)))
    skewed_left = ((train - train.mean(axis=0)) ** 3).mean(axis=0) < 0
    sums = [part.sum(axis=1) for part in (low, high, np.where(skewed_left, low, high))]
    return np.asarray(np.max(sums, axis=0))


def forest(train: Floats, test: Floats) -> Floats:
    """scikit-learn's IsolationForest."""
    from sklearn.ensemble import IsolationForest

    return np.asarray(-IsolationForest(random_state=1, n_jobs=1).fit(train).score_samples(test))


def volume(series: Labelled, scores: Floats, longest: int) -> float:
    """VUS-PR at nine buffer lengths."""
    lengths = np.unique(np.linspace(0, longest, 9).round().astype(int)).tolist()
    return float(np.mean([area(series.labels, scores, length) for length in lengths]))


def measure(path: Path) -> dict[str, tuple[float, float]]:
    """Method -> (VUS-PR with the longest buffer, with the short one), means over the series of a set."""
    figures: dict[str, list[tuple[float, float]]] = {}
    for series in load(path):
        rows = [(OURS, general(series)), *baselines(series)]
        if not len(series.train):
            rows.append((COLD, general(series, cold=True)))
        for row, scores in rows:
            figures.setdefault(row, []).append((volume(series, scores, LONGEST), volume(series, scores, SHORT)))
    return {
        row: (float(np.mean([long for long, _ in all_])), float(np.mean([short for _, short in all_])))
        for row, all_ in figures.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="The general score and simple baselines on public sets, by VUS-PR.")
    parser.add_argument(
        "--data", type=Path, default=os.environ.get(VARIABLE), help=f"directory with anomaly/*.parquet; or set {VARIABLE}"
    )
    parser.add_argument("--only", default=",".join(SETS), help="sets, separated by commas")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    chosen = given.only.split(",")
    if unknown := sorted(set(chosen) - set(SETS)):
        raise SystemExit(f"no set is called {', '.join(unknown)}; there are {', '.join(SETS)}")
    if given.data is None:
        raise SystemExit(f"where is the data? Give --data DIR or set {VARIABLE} to the directory with anomaly/ in it")
    paths = {name: Path(given.data) / "anomaly" / f"{name}.parquet" for name in chosen}
    if missing := [str(path) for path in paths.values() if not path.is_file()]:
        raise SystemExit(f"not there: {', '.join(missing)}; give the directory that has anomaly/ in it")
    claims, tables = Claims(), {}
    for name, path in paths.items():
        rows = tables[name] = measure(path)
        print(f"{name}: VUS-PR with buffers up to {LONGEST} ticks, up to {SHORT}")
        for row, (long, short) in rows.items():
            print(f"  {row:<26} {long:.3f}  {short:.3f}", flush=True)
        published, figure = SETS[name]
        own, best = max((long, row) for row, (long, _) in rows.items() if row not in {OURS, COLD})
        claims.at_least(f"{name}: VUS-PR, beside {published} as published with the data", round(rows[OURS][0], 3), figure)
        claims.at_least(
            f"{name}: VUS-PR, beside {best}, the best baseline as measured here", round(rows[OURS][0], 3), round(own, 3)
        )
    claims.close(given.json, tables=tables)


if __name__ == "__main__":
    main()
