"""Service times of a pool's requests, and how many arrive, over the last minutes. Pure.

Knows the times of answers only as buckets of a histogram that forgets, so it takes as much memory after a year as after a minute.
"""

from __future__ import annotations

import math

import numpy as np

from ...models.records import Flights
from ..decision import Service

SPAN, REQUESTS = 300.0, 500.0
"""Seconds over which the past is forgotten, or requests if so many take longer (chosen): a 95 % quantile needs hundreds."""

LEAST = 30.0
"""Requests from which their times count as known (chosen): one or two of them are above the quantile."""

SHORTEST, LONGEST, STEP = 1e-4, 1e5, 0.05
"""Bounds of the buckets in seconds, and their width as a logarithm (chosen): a quantile is then right to 2 or 3 per cent."""

BUCKETS = math.ceil(math.log(LONGEST / SHORTEST) / STEP)


class ServiceTimes:
    """Follows the answers of one pool. The same steps give the same values."""

    def __init__(self) -> None:
        self._counts = np.zeros(BUCKETS)
        self._sum = 0.0  # seconds of all requests in the buckets
        self._ended = self._seconds = 0.0  # requests and time, for their rate
        self._at: int | None = None  # monotonic ns of the last step

    def step(self, at: int, flights: Flights | None) -> Service | None:
        """Take the answers since the last step. Returns what is known; None if that is too little. `at`: monotonic ns."""
        elapsed = 0.0 if self._at is None else max((at - self._at) / 1e9, 0.0)
        self._at = at
        if flights is None:
            return self._known()
        kept = math.exp(-min(elapsed / SPAN, flights.ended / REQUESTS))
        self._counts *= kept
        self._sum *= kept
        passed = math.exp(-elapsed / SPAN)
        self._ended, self._seconds = self._ended * passed + flights.ended, self._seconds * passed + elapsed
        if flights.seconds:
            weight = max(flights.ended, len(flights.seconds)) / len(flights.seconds)
            for seconds in flights.seconds:
                self._counts[_bucket(seconds)] += weight
                self._sum += weight * seconds
        return self._known()

    def _known(self) -> Service | None:
        total = float(self._counts.sum())
        if total < LEAST or self._seconds <= 0:
            return None
        summed = np.cumsum(self._counts)
        place = int(np.searchsorted(summed, 0.95 * total))
        within = 1 - (float(summed[place]) - 0.95 * total) / float(self._counts[place])
        return Service(self._ended / self._seconds, self._sum / total, SHORTEST * math.exp((place + within) * STEP))


def _bucket(seconds: float) -> int:
    """The bucket that holds a time."""
    return min(max(int(math.log(max(seconds, SHORTEST) / SHORTEST) / STEP), 0), BUCKETS - 1)
