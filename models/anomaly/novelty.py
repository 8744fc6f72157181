"""Scores how unlike its own past a series of several features is, for what has no name and no siblings. Pure.

Works for any features: counts, bytes, shares, seconds, 1 to about 40 of them, in any unit. Must not know what they mean, nor what
becomes of a score: calibration (`model.Tail`), thresholds and patience are elsewhere.

Each feature is compared with its exponentially weighted means at three time scales. The three deviations of all features together,
in standard deviations of their own past, have the squared Mahalanobis distance

    d = w' ((1 - SHRINKAGE) C + SHRINKAGE I)^-1 w / dimensions

with the correlations C of the past (Mahalanobis 1936; shrinkage as Ledoit and Wolf 2004, with a fixed weight). A distance of the
order of 1 is normal. A jump, a ramp, a burst and a lull are all deviations; so is a new combination of values that are each usual.
The score is the mean of d over the last few ticks: what lasts counts more. A tick is scored before it is learnt, so a score knows
nothing later than its tick. All that was seen is learnt, faults too: what stays becomes normal in the end.

State is fixed: about two matrices of (3 x features)^2 per series, whatever its length. For every choice, with what others would
give on five public sets: docs/anomaly-sets.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

RATES: tuple[float, ...] = (0.3, 0.1, 0.03)
"""Rates of the means that values are compared with: about the last 3, 10 and 33 ticks. Chosen on five public sets, as SHRINKAGE,
MOST and LASTING: docs/anomaly-sets.md, `python -m benchmarks.anomaly.public_sets`."""

SHRINKAGE = 0.3
"""Weight of "no correlation" against the observed correlations. Without it, features that moved together by chance, or always,
would score very high on any tick on which they do not. See RATES."""

MOST = 30.0
"""Limit of one deviation, in standard deviations. A feature that never moved has none: its first move counts as this. See RATES."""

LASTING = 0.18
"""Rate of the mean over distances: 1 - e^(-1/5), so about the last five ticks. See RATES."""

WARM_UP = 30
"""Ticks without a score: the first differences are all the past there is (chosen)."""

MEMORY = 50_000
"""Ticks remembered, by weight: most of a day at 1 to 2 s a tick (chosen)."""

RENEWED = 20
"""Correlations and standard deviations are recomputed when the past has grown by 1 / RENEWED: their own error is larger. Computing
them at every tick lowers the figures of docs/anomaly-sets.md."""

STILL = 1e-6
"""Standard deviations below this share of a feature's usual size are rounding (chosen)."""

LEAST = 1e-150
"""Least standard deviation, so that nothing is divided by 0 (chosen)."""

LARGEST = 1e100
"""Limit of values, in times the first one, so that their squares stay finite (chosen)."""


class Novelty:
    """Follows `series` series of `features` features each. Series do not influence each other. The order and the unit of features
    do not matter. The same values give the same scores.

    >>> watch = Novelty(1, 2)
    >>> quiet = [float(watch.step(np.array([[t % 3, 5 - t % 3]]))[0]) for t in range(300)][-1]
    >>> odd = float(watch.step(np.array([[2.0, 5.0]]))[0])  # either has been seen, but never together
    >>> 3 * quiet < odd
    True
    """

    def __init__(self, series: int, features: int, least: Sequence[float] | None = None) -> None:
        """`least` [features]: standard deviations below which differences do not matter, in the features' units."""
        if series < 1 or features < 1:
            raise ValueError(f"series and features must be 1 or more, not {series} and {features}")
        if least is not None and len(least) != features:
            raise ValueError(f"least must be one figure for each of {features} features, not {len(least)}")
        n, p = series, features * len(RATES)
        self._features = features
        self._least = np.zeros(features) if least is None else np.array(least, dtype=np.float64)
        self.ages: NDArray[np.int64] = np.zeros(n, dtype=np.int64)
        """[series] ticks with a known value. Not to be written to."""
        self._renew_at = np.zeros(n, dtype=np.int64)
        self._unit = np.zeros((n, features))  # size of the first value that is not 0; 0: none yet
        self._known = np.zeros((n, features))  # ticks on which the feature was known
        self._size = np.zeros((n, features))  # mean of |value|
        self._means = np.zeros((n, len(RATES), features))
        self._power = np.zeros((n, len(RATES), features))  # mean square of deviations, over ticks on which the feature was known
        self._products = np.zeros((n, p, p))  # mean products of deviations
        self._deviation = np.ones((n, len(RATES), features))  # standard deviations as last computed
        self._inverse = np.zeros((n, p, p))
        self._lately = np.zeros(n)  # the score
        self._last = np.zeros((n, len(RATES), features))  # of the last tick: deviations in standard deviations
        self._parts = np.zeros((n, len(RATES), features))  # of the last tick: what each adds to the distance

    def step(self, values: Floats, fresh: Bools | None = None) -> Floats:
        """[series] scores of this tick, which is then learnt. NaN: too little past, or no feature is known.

        `values` [series, features]; NaN and infinity are unknown. `fresh` [series]: a row that is another series from now on.
        """
        n = len(self.ages)
        if values.shape != (n, self._features):
            raise ValueError(f"values must be [{n}, {self._features}], a row a series, not {list(values.shape)}")
        if fresh is not None and fresh.any():
            self._forget(fresh)
        known = np.isfinite(values)
        x = self._in_units(values, known)
        v = np.where((known & (self._known > 0))[:, None], x[:, None] - self._means, 0.0)
        scores = self._score(v, np.asarray(known.any(axis=1)))
        self._learn(x, v, known)
        due = np.flatnonzero(self.ages >= self._renew_at)
        if len(due):
            self._renew(due)
        return scores

    def deviations(self) -> Floats:
        """[series, features] how far each feature was from its own past at the last tick, in standard deviations, above or below,
        at the time scale where it was farthest."""
        farthest = np.abs(self._last).argmax(axis=1)
        return np.asarray(np.take_along_axis(self._last, farthest[:, None], axis=1)[:, 0])

    def shares(self) -> Floats:
        """[series, features] share of the last tick's distance that each feature added, 0..1; all 0 if the distance was 0."""
        parts = np.maximum(self._parts.sum(axis=1), 0.0)
        total = parts.sum(axis=1, keepdims=True)
        return np.asarray(parts / np.where(total > 0, total, 1.0))

    def _forget(self, rows: Bools) -> None:
        self.ages[rows] = self._renew_at[rows] = 0
        for state in (self._unit, self._known, self._size, self._means, self._power, self._products, self._inverse, self._lately):
            state[rows] = 0
        for parts in (self._last, self._parts):
            parts[rows] = 0

    def _in_units(self, values: Floats, known: Bools) -> Floats:
        """Values relative to their first size, 0 for unknown ones: no unit is special, and nothing overflows."""
        x = np.where(known, values, 0.0)
        first = (self._unit == 0) & (x != 0)
        if first.any():
            self._unit[first] = np.abs(x[first])
        with np.errstate(over="ignore"):
            return np.clip(x / np.where(self._unit > 0, self._unit, 1.0), -LARGEST, LARGEST)

    def _score(self, v: Floats, seen: Bools) -> Floats:
        n, p = len(v), self._features * len(RATES)
        w = np.clip((v / self._deviation).reshape(n, p), -MOST, MOST)
        parts = w * np.matmul(self._inverse, w[:, :, None])[:, :, 0]
        self._last, self._parts = np.asarray(w.reshape(v.shape)), np.asarray(parts.reshape(v.shape))
        ready = seen & (self.ages >= WARM_UP)
        distance = parts.sum(axis=1) / p
        begins = ready & (self._lately == 0)
        rate = np.where(ready, np.where(begins, 1.0, LASTING), 0.0)
        self._lately += rate * (distance - self._lately)
        return np.where(ready, self._lately, np.nan)

    def _learn(self, x: Floats, v: Floats, known: Bools) -> None:
        n, p = len(v), self._features * len(RATES)
        self._known += known
        self.ages += known.any(axis=1)
        each = np.where(known, 1.0 / np.clip(self._known, 1.0, MEMORY), 0.0)
        self._size += each * (np.abs(x) - self._size)
        self._power += each[:, None] * (v * v - self._power)
        rates = np.where(known[:, None], np.maximum(np.array(RATES)[:, None], 1.0 / np.maximum(self._known, 1.0)[:, None]), 0.0)
        self._means += rates * (x[:, None] - self._means)
        flat = v.reshape(n, p)
        weight = np.where(known.any(axis=1), 1.0 / np.clip(self.ages, 1, MEMORY), 0.0)[:, None, None]
        self._products *= 1.0 - weight
        self._products += (weight[:, 0] * flat)[:, :, None] * flat[:, None, :]

    def _renew(self, due: NDArray[np.int64]) -> None:
        """Recompute standard deviations and the inverse correlations of these series from what was learnt."""
        unit = np.where(self._unit[due] > 0, self._unit[due], 1.0)
        floor = np.maximum(np.maximum(STILL * self._size[due], LEAST), self._least / unit)[:, None]
        self._deviation[due] = np.maximum(np.sqrt(self._power[due]), floor)
        products = self._products[due]
        root = np.sqrt(np.einsum("nii->ni", products))
        moved = root > np.tile(floor[:, 0], (1, len(RATES)))
        size = np.where(moved, root, 1.0)
        correlation = np.where(moved[:, :, None] & moved[:, None], products / size[:, :, None] / size[:, None], 0.0)
        shrunk = (1.0 - SHRINKAGE) * correlation
        every = np.arange(shrunk.shape[1])
        shrunk[:, every, every] = 1.0
        self._inverse[due] = np.linalg.inv(shrunk)
        self._renew_at[due] = self.ages[due] + np.maximum(1, np.minimum(self.ages[due], MEMORY) // RENEWED)
