"""How much more a pool does with more workers at work: its scaling curve, fitted to observations. Pure.

Gunther's Universal Scalability Law, X(n) = L n / (1 + a (n - 1) + b n (n - 1)): n workers at work do X / L times as much as one.
a: what they queue for (a CPU quota, few CPUs, a lock). b: what they cost each other (caches, thrashing). a = b = 0 unless observed
otherwise. N. Gunther, Guerrilla Capacity Planning, 2007, chapters 4 to 6.

`Scaling` is given how many workers were busy in each tick and how much they did, and says how many are worth having. Must not know
what the answer is used for. Only a pool that computes has such a limit: what a worker does that waits for others (a database, a
disk) says nothing about the machine. Whether a pool computes is seen with few workers at work, which do not hinder each other.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WORTH = 0.05
"""Share of a single worker's output that one more worker must add to be worth having (chosen)."""

COMPUTES = 0.5
"""Least cores of a single worker at work: one that runs for less than half of its time waits for something else (chosen)."""

SIZES = 3
"""Least numbers of workers that must be known well: fewer do not show a curve with two bends (chosen)."""

ENOUGH = 12
"""Least ticks for each number: the median of twelve has a third of the error of a single tick (chosen)."""

SPAN = 2.0
"""Least ratio of the largest of these numbers to the smallest (chosen)."""

FITS = 0.15
"""Relative error (root mean square) of the fit beyond which the law does not explain the pool (chosen)."""

KEPT = 48
"""Newest ticks kept for each number of workers (chosen)."""

FORGET = 7200
"""Ticks after which observations no longer count: two hours at 1 Hz. The pool then grows and shows its curve again (chosen)."""

MEAN, APART = 5, 10
"""When two nearby times are compared: ticks in each mean, and ticks from the start of one mean to the start of the other
(chosen)."""

MOVED = 0.25
"""Share by which the number of workers at work must differ between them, and by one at least (chosen)."""

NEAR = 0.75
"""Share of the limit from which workers at work give evidence of it. With fewer, the law errs where the pool has a sharp bend
(chosen)."""

PAIRS = 6
"""Comparisons needed near the limit: without them, load that changes its kind as it grows looks like a limit (chosen)."""

LITTLE = 0.4
"""Most that each additional worker may add there, as a share of what each one before it did. Without a limit it is 1 (chosen)."""

BETTER = 1.15
"""Times the curve's value beyond which present output shows that the curve is out of date (chosen)."""

EVERY = 16
"""Ticks between two fits (chosen)."""

LARGEST = 1e6
"""Limit of values (chosen)."""

_PRIOR = 0.02  # chosen: weight of a = b = 0 beside the sizes: otherwise a few sizes look like endless growth
_FEW = 12  # chosen: up to this many workers each number is its own size


@dataclass(frozen=True, slots=True)
class Curve:
    """A fitted curve."""

    single: float  # L: output of one worker at work, in cores
    contention: float  # a
    coherency: float  # b
    sizes: int  # numbers of workers at work that it rests on
    largest: float  # the largest of them
    error: float  # of the fit, relative
    adds: float | None  # output added by each additional worker near the limit, in cores; None: not seen
    worth: int | None  # workers beyond which one more is not worth having; None: beyond what was seen
    certain: bool

    def done(self, workers: float) -> float:
        """X: output of this many workers at work, in cores."""
        return self.single * workers / (1 + self.contention * (workers - 1) + self.coherency * workers * (workers - 1))


class Scaling:
    """The curve of one pool. The same steps give the same answers."""

    def __init__(self) -> None:
        self._tick = 0
        self._seen: dict[int, deque[tuple[int, float, float]]] = {}  # by size: (tick, busy, done)
        self._newest: deque[tuple[float, float]] = deque(maxlen=APART + MEAN)
        self._pairs: deque[tuple[int, float, float]] = deque(maxlen=256)  # (tick, workers midway, output per added worker)
        self._curve: Curve | None = None
        self._fitted = -EVERY

    def step(self, busy: float | None, done: float | None) -> None:
        """Take a tick: mean number of workers at work, and their total output in cores. Unknown or invalid values are skipped."""
        self._tick += 1
        if busy is None or done is None or not math.isfinite(busy) or not math.isfinite(done) or busy < 0 or done < 0:
            self._newest.clear()
            return
        busy, done = min(busy, LARGEST), min(done, LARGEST)
        self._newest.append((busy, done))
        if busy < 0.5:
            return
        self._seen.setdefault(_size(busy), deque(maxlen=KEPT)).append((self._tick, busy, done))
        self._compare()

    def curve(self) -> Curve | None:
        """The present curve; None while too few sizes were seen."""
        if self._tick - self._fitted >= EVERY:
            self._fitted = self._tick
            self._curve = self._fit()
        return self._curve

    def _compare(self) -> None:
        """Compare nearby times: did more workers do more? Within seconds the kind of work changes little."""
        if len(self._newest) < APART + MEAN:
            return
        values = list(self._newest)
        (busy_then, done_then), (busy, done) = _mean(values[:MEAN]), _mean(values[-MEAN:])
        moved = busy - busy_then
        if abs(moved) >= max(1.0, MOVED * max(busy, busy_then)):
            self._pairs.append((self._tick, (busy + busy_then) / 2, (done - done_then) / moved))

    def _fit(self) -> Curve | None:
        oldest = self._tick - FORGET
        while self._pairs and self._pairs[0][0] < oldest:
            self._pairs.popleft()
        points = []
        for size in sorted(self._seen):
            ticks = self._seen[size]
            while ticks and ticks[0][0] < oldest:
                ticks.popleft()
            if not ticks:
                del self._seen[size]
            elif len(ticks) >= ENOUGH:
                busy = float(np.median([busy for _, busy, _ in ticks]))
                each = float(np.median([done / busy for _, busy, done in ticks]))
                if each > 1e-6:
                    points.append((busy, each))
        if len(points) < SIZES or points[-1][0] < SPAN * points[0][0]:
            return None
        sizes, each = np.array(points).T
        single, contention, coherency = _law(sizes, each)
        said = single / (1 + contention * (sizes - 1) + coherency * sizes * (sizes - 1))
        error = float(np.sqrt(np.mean((said / each - 1) ** 2)))
        curve = Curve(single, contention, coherency, len(points), float(sizes[-1]), error, None, None, certain=False)
        worth = _worth(curve)
        if worth is None:
            return curve
        adds = [adds for _, workers, adds in self._pairs if workers >= NEAR * worth]
        added = float(np.median(adds)) if len(adds) >= PAIRS else None
        sure = (
            single >= COMPUTES
            and error <= FITS
            and added is not None
            and added <= LITTLE * curve.done(worth) / worth
            and self._agrees(curve, NEAR * worth)
        )
        return Curve(single, contention, coherency, len(points), float(sizes[-1]), error, added, worth, sure)

    def _agrees(self, curve: Curve, near: float) -> bool:
        """Whether present output is not much more than the curve says; True with fewer than `near` workers at work."""
        busy, done = _mean(list(self._newest)) if self._newest else (0.0, 0.0)
        return busy < near or done <= BETTER * curve.done(busy)


def _size(busy: float) -> int:
    """The class of a number of workers: each its own up to `_FEW`, then eight classes per doubling."""
    return round(busy) if busy < _FEW else _FEW + round(8 * math.log2(busy / _FEW))


def _mean(values: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return math.fsum(busy for busy, _ in values) / len(values), math.fsum(done for _, done in values) / len(values)


def _law(sizes: Floats, each: Floats) -> tuple[float, float, float]:
    """(L, a, b), none negative, that best fit what each worker did at these numbers of workers.

    1 / each is linear in 1 / L, a / L and b / L. Weighted by `each`, errors are relative. With three unknowns, all choices of those
    that are zero can be tried.
    """
    columns = np.stack([each, each * (sizes - 1), each * sizes * (sizes - 1)], axis=1)
    prior = _PRIOR * np.diag([0.0, 1.0, 1.0])
    laws: list[tuple[float, Floats]] = []  # L alone always is one
    for free in (chosen for count in range(3) for chosen in combinations((1, 2), count)):
        used = [0, *free]
        rows = np.concatenate([columns[:, used], prior[:, used]])
        wanted = np.concatenate([np.ones(len(sizes)), np.zeros(3)])
        found = np.linalg.lstsq(rows, wanted, rcond=None)[0]
        if found[0] > 0 and (found >= 0).all():
            law = np.zeros(3)
            law[used] = found
            laws.append((float(np.sum((rows @ found - wanted) ** 2)), law))
    _, best = min(laws, key=itemgetter(0))
    return 1 / float(best[0]), float(best[1] / best[0]), float(best[2] / best[0])


def _worth(curve: Curve) -> int | None:
    """Workers beyond which one more does less than WORTH of a single one; None if that is beyond what was seen."""
    low, high = 1, math.floor(curve.largest)
    if curve.done(high + 1) - curve.done(high) >= WORTH * curve.single:
        return None
    while low < high:  # what one more adds only falls up to the peak, and is negative beyond
        middle = (low + high) // 2
        if curve.done(middle + 1) - curve.done(middle) < WORTH * curve.single:
            high = middle
        else:
            low = middle + 1
    return high
