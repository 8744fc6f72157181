"""What the requests of a pool are like, and how many a worker serves at once, from those seen in flight. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

import numpy as np

from ...models.capacity import Capacity
from ...models.durations import Histogram
from ...models.records import PoolSample
from ..decision import Service
from .loads import reports_busy

HALF_SECONDS = 120.0
"""Time after which requests count half: `Service` is of the last minutes (chosen)."""

LEAST_ENDED = 20.0
"""Requests from which on `Service` is known (chosen): of fewer the 95 % quantile is the longest."""


class Requests(NamedTuple):
    """What is known of a pool's requests."""

    capacity: float  # requests that a worker serves at once
    certain: bool  # requests were seen to become slower with more in flight; else more may do
    service: Service | None


class PoolRequests:
    """The requests of all pools."""

    def __init__(self, interval: float) -> None:
        """`interval`: seconds between ticks."""
        self._interval = interval
        self._histories: dict[str, RequestHistory] = {}

    def step(self, pools: Iterable[PoolSample]) -> dict[str, Requests]:
        """Take a tick. Returns what is known of each pool's requests, by name."""
        return {pool.pool: self._histories.setdefault(pool.pool, RequestHistory(self._interval)).step(pool) for pool in pools}

    def forget(self, pools: Collection[str]) -> None:
        """Forget these pools, because others have their names."""
        for name in pools:
            self._histories.pop(name, None)


class RequestHistory:
    """The requests of one pool. The same steps give the same answers."""

    def __init__(self, interval: float) -> None:
        """`interval`: seconds between ticks."""
        self._kept = 0.5 ** (interval / HALF_SECONDS)
        self._capacity = Capacity(interval)
        self._served = Histogram()  # seconds without waiting
        self._took = Histogram()  # seconds
        self._held, self._ticks = 0.0, 0.0

    def step(self, pool: PoolSample) -> Requests:
        """Take a tick."""
        flights, ready = pool.flights, sum(worker.ready for worker in pool.workers)
        if flights is None or not ready:
            return Requests(*self._now(), self._service())
        held, (capacity, certain) = flights.held / ready, (1.0, True)
        if not reports_busy(pool):
            median = flights.seconds[len(flights.seconds) // 2] if flights.seconds else None
            self._capacity.step(held, median, flights.ended)
            capacity, certain = self._now()
        for histogram in (self._took, self._served):
            histogram.fade(self._kept)
        self._held, self._ticks = self._held * self._kept + flights.held, self._ticks * self._kept + 1.0
        if flights.seconds:
            seconds, weight = np.array(flights.seconds), flights.ended / len(flights.seconds)
            self._took.add(seconds, weight)
            self._served.add(seconds * min(1.0, capacity / max(held, 1.0)), weight)
        return Requests(capacity, certain, self._service())

    def _now(self) -> tuple[float, bool]:
        known = self._capacity.known()
        return (self._capacity.least(), False) if known is None else (known, True)

    def _service(self) -> Service | None:
        mean, p95, took = self._served.mean(), self._served.quantile(0.95), self._took.mean()
        if mean is None or p95 is None or not took or self._served.weight < LEAST_ENDED:
            return None
        # by Little's law, because not every answer is seen
        return Service(arrivals=self._held / self._ticks / took, mean=mean, p95=p95)
