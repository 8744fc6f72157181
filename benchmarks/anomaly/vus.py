"""VUS-PR: how well scores rank the anomalies of a labelled series, without a threshold and with tolerance for their borders.

Knows labels and scores, not where they come from. Written from the definition in Paparrizos, Boniol, Palpanas, Tsay, Elmore and
Franklin 2022, "Volume under the surface: a new accuracy evaluation measure for time-series anomaly detection", PVLDB 15 (11).

For a buffer of length l the labels are extended on both sides of each anomaly: a tick at distance d up to l / 2 has the label
sqrt(1 - d / l), overlapping ones are added up to 1. At a threshold let N be the ticks that score at least that much, and

    true positives = sum of the extended labels of these N
    precision      = true positives / N
    positives      = (ticks labelled + (ticks labelled + extended labels of the N outside of them)) / 2
    recall         = min(true positives / positives, 1) x share of the extended anomalies that have one of the N in them

The area is the sum over all different scores, from the highest, of precision x gain in recall; nothing is interpolated. The volume
is the mean area of l = 0, 1, ... L. A perfect score has 1, a random one about the share of ticks that is labelled, and any
increasing transform of the scores leaves it as it is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def vus_pr(labels: Bools, scores: Floats, most: int) -> float:
    """The volume for buffers of 0 to `most` ticks. `labels` [n] True for an anomaly, `scores` [n] larger for what is stranger.

    NaN where nothing is labelled, or everything. A score of NaN is below every other.
    """
    if most < 0:
        raise ValueError(f"the longest buffer must be 0 or more ticks, not {most}")
    return float(np.mean([area(labels, scores, length) for length in range(most + 1)]))


def area(labels: Bools, scores: Floats, length: int) -> float:
    """The area for one buffer length; arguments as of `vus_pr`."""
    labels = np.asarray(labels, dtype=np.bool_)
    scores = np.asarray(scores, dtype=np.float64)
    if labels.shape != scores.shape or labels.ndim != 1:
        raise ValueError(f"labels and scores must have one value a tick, not {labels.shape} and {scores.shape}")
    if labels.all() or not labels.any():
        return float("nan")
    ranks = np.unique(np.where(np.isnan(scores), -np.inf, scores), return_inverse=True)[1].reshape(-1)  # 0 is the lowest score
    return _area(labels, ranks, extend(labels, length))


def extend(labels: Bools, length: int) -> Floats:
    """[n] labels with a buffer of `length` ticks around each anomaly, half of it on either side."""
    n = len(labels)
    extended = labels.astype(np.float64)
    edges = np.diff(np.concatenate([[0], labels.astype(np.int8), [0]]))
    first, last = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
    for distance in range(1, length // 2 + 1):
        weight = np.sqrt(1.0 - distance / length)
        for at in (first - distance, last + distance):
            inside = at[(at >= 0) & (at < n)]
            np.add.at(extended, inside, weight)
    return np.where(labels, 1.0, np.minimum(extended, 1.0))


def _area(labels: Bools, ranks: NDArray[np.int64], extended: Floats) -> float:
    """Area under precision and recall; `ranks` [n] of the scores, equal ones having the same."""
    levels = int(ranks.max()) + 1

    def from_above(weights: Floats) -> Floats:
        """[levels] sums over the ticks that score at least so much, from the highest score."""
        return np.asarray(np.cumsum(np.bincount(ranks, weights, levels)[::-1]))

    taken = from_above(np.ones(len(ranks)))
    true = from_above(extended)
    labelled = float(labels.sum())
    positives = labelled + from_above(np.where(labels, 0.0, extended)) / 2
    inside = extended > 0
    event = np.cumsum(np.diff(np.concatenate([[False], inside]).astype(np.int8)) == 1)[inside] - 1
    highest = np.zeros(int(event[-1]) + 1, dtype=np.int64)
    np.maximum.at(highest, event, ranks[inside])
    found = np.cumsum(np.bincount(highest, minlength=levels)[::-1]) / len(highest)
    recall = np.minimum(true / positives, 1.0) * found
    return float(np.sum(np.diff(recall, prepend=0.0) * true / taken))
