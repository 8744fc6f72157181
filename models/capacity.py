"""How many requests a worker serves at once before each takes longer: its capacity, learned from what was seen. Pure.

A worker with threads serves as many as it has threads; beyond that, requests wait for one, and each takes longer in proportion. One
with an event loop serves as many as fit until its CPU is full. In both cases the time of a request is level up to the capacity and
rises in proportion to the number in flight beyond it: s(n) = s0 max(1, n / capacity), the asymptotic bounds of a closed queue
(Lazowska et al., Quantitative System Performance, 1984, ch. 5). `Capacity` fits this to the ticks that it is given.

Until a rise was seen, only a least value is known: the most in flight with which requests were not slower than with fewer. A pool
that is sized by that holds no more per worker than what was seen to go well. More comes by itself: in a burst that is faster than
the start of workers, or at the pool's maximum. If requests are no slower then, the least value rises.
A dependency that becomes slow looks like a rise at first. The pool then grows, its workers hold fewer each, and their requests are
as slow as before: what was learned is replaced, and the capacity rises again.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SLOWER = 1.4
"""A request is slower if it takes this many times as long as with few in flight (chosen: mixtures of requests change by less from
minute to minute, and threads that are all taken twice over make it 2)."""

TICKS = 3.0
"""A number in flight counts once it was seen for so many ticks (chosen)."""

ENOUGH = 10
"""A tick with fewer answers counts for less than one, in proportion (chosen)."""

KEPT = 0.999
"""Share of the past that each tick keeps: at 1 Hz half of it fades in 12 minutes (chosen)."""

MOST_TICKS = 10.0
"""Ticks for each number in flight that count: a tick moves what is known of its number by a tenth at least (chosen), so that a new
release or a new backend is learned within a few minutes."""

LAG = 64
"""Most ticks over which the number in flight is averaged while requests that last long are served (chosen)."""

_STEPS = 4  # bins for each doubling of the number in flight
_BINS = 12 * _STEPS  # up to 4096 in flight


class Capacity:
    """Learns the capacity of the workers of one pool. The same steps give the same answers; its memory is bounded."""

    def __init__(self, interval: float) -> None:
        """`interval`: seconds between steps."""
        self._interval = interval
        self._held = deque[float](maxlen=LAG)
        self._ticks = np.zeros(_BINS)  # by number in flight: how many count
        self._times = np.zeros(_BINS)  # mean logarithm of seconds

    def step(self, held: float, seconds: float | None, ended: int) -> None:
        """Take a tick: requests in flight for each worker, and the median time of the `ended` ones; None: none ended.

        The median, because a few long requests raise both the number in flight and the mean time, although none became slower.
        """
        self._held.append(held)
        self._ticks *= KEPT
        if seconds is None or seconds <= 0.0 or not ended:
            return
        # those that ended were served for as long as they took: what was in flight then counts
        lasted = min(max(math.ceil(seconds / self._interval), 1), len(self._held))
        among = sum(list(self._held)[-lasted:]) / lasted
        at = min(int(_STEPS * math.log2(max(among, 1.0))), _BINS - 1)
        counts = min(ended / ENOUGH, 1.0)
        self._ticks[at] = min(self._ticks[at] + counts, MOST_TICKS)
        self._times[at] += (math.log(seconds) - self._times[at]) * counts / self._ticks[at]

    def known(self) -> float | None:
        """The capacity, at least 1; None until requests were seen to become slower with more in flight."""
        numbers, times, ticks = self._seen()
        if len(numbers) < 2 or times[-1] - _level(times, ticks) < math.log(SLOWER):
            return None
        bends = np.linspace(0.0, numbers[-1], _STEPS * _BINS)
        left = times - np.maximum(numbers - bends[:, None], 0.0)  # for each bend; what is left should be one number
        misfit = (left - (left @ ticks / ticks.sum())[:, None]) ** 2 @ ticks
        bend = float(bends[misfit.argmin()])
        return math.exp(bend) if numbers[-1] - bend >= math.log(SLOWER) else None

    def least(self) -> float:
        """The most requests in flight, at least 1, with which they were seen to be no slower than with fewer; until something was
        seen long enough, the most in flight at all."""
        numbers, times, ticks = self._seen()
        if not len(numbers):
            return float(max(1.0, *self._held)) if self._held else 1.0
        return math.exp(float(numbers[times - _level(times, ticks) < math.log(SLOWER)][-1]))

    def _seen(self) -> tuple[Floats, Floats, Floats]:
        """What counts, by rising number in flight: its logarithm, the mean logarithm of seconds, and the ticks it rests on."""
        known = np.flatnonzero(self._ticks >= TICKS)
        numbers = np.where(known == 0, 0.0, (known + 0.5) / _STEPS * math.log(2.0))
        return numbers, self._times[known], self._ticks[known]


def _level(times: Floats, ticks: Floats) -> float:
    """Logarithm of the seconds with few in flight: the least mean of two neighbours, because one alone may be chance."""
    pairs = (times[:-1] * ticks[:-1] + times[1:] * ticks[1:]) / (ticks[:-1] + ticks[1:])
    return float(min(times[0], pairs.min(initial=math.inf)))
