"""The load offered to a pool: busy workers and waiting work, and what is known of it while work is queued. Pure."""

from __future__ import annotations

from typing import NamedTuple

from ...models.forecast.seasonality import HOLE, Seasonality
from ...models.records import PoolSample

BACKLOG = 0.5
"""Waiting work per busy worker above which the pool is too small for its load, so that busy workers no longer show the load
(chosen)."""


WORKED_OFF = 3
"""Ticks with little waiting after which a backlog is over (chosen): the rest of it is worked off by then too."""


class Offered(NamedTuple):
    """The load offered to a pool now, in Erlangs of workers."""

    busy: float  # workers that serve
    load: float  # with what waits: in the accept queue, or in workers that hold more than their capacity

    @property
    def waiting(self) -> float:
        """What waits, in Erlangs of workers."""
        return self.load - self.busy


def reports_busy(pool: PoolSample) -> bool:
    """Whether its workers say that they are busy, each with one request at a time."""
    return any(worker.busy is not None for worker in pool.workers)


def offered_load(pool: PoolSample, capacity: float = 1.0) -> Offered | None:
    """Offered load of a pool now. None if neither a worker reports whether it is busy, nor the requests in flight are seen.

    `capacity`: requests that a worker serves at once. A starting worker does something too, but serves no request. If it counted,
    the workers of one resize would ask for the next.
    """
    ready = [worker for worker in pool.workers if worker.ready]
    queued = pool.queued or 0.0
    if pool.flights is not None and not reports_busy(pool):
        held = pool.flights.held / capacity
        return Offered(min(held, len(ready)), held + queued / capacity)
    reported = [worker.busy for worker in ready or pool.workers if worker.busy is not None]
    if not reported and pool.workers:
        return None
    busy = sum(reported) if ready else 0.0
    return Offered(busy, busy + queued)


class OfferedLoad:
    """The load offered to a pool, in Erlangs, as far as it is known while work waits; it feeds the seasonal pattern."""

    def __init__(self, seasonality: Seasonality) -> None:
        self.seasonality = seasonality
        self._queued = 0.0  # of the previous tick
        self._since: int | None = None  # tick since which much has waited
        self._busy = 0.0  # sum since then
        self._calm = 0  # how many of the latest ticks had little waiting

    def step(self, tick: int, offered: Offered | None, maximum: float) -> None:
        """Update the seasonal pattern with what is known of this tick. Load above `maximum` is not worth remembering.

        While little waits, the load is what is busy. While much waits, and no less than before, more arrives than is served: the
        load is at least what is busy, and at most busy and waiting work together. While a backlog is worked off, less arrives than
        is busy. Once it is worked off, as much was served as had arrived: the mean load was the mean of what was busy. A backlog of
        minutes is not used in this way, because nobody knows when its work arrived.
        """
        if offered is None:
            self._since, self._queued = None, 0.0
            self.seasonality.step(tick, None)
            return
        busy, load, queued = offered.busy, offered.load, offered.waiting
        before, self._queued = self._queued, queued
        waits = queued > busy * BACKLOG
        if waits and self._since is None:
            self._since, self._busy = tick, 0.0
        if self._since is not None:
            self._busy += busy
            self._calm = 0 if waits else self._calm + 1
        if waits:
            least, most = (busy, load) if queued >= before else (0.0, busy)
        else:
            least = most = busy
        self.seasonality.step(tick, min(most, maximum), least)
        if self._since is not None and self._calm == WORKED_OFF:
            ticks = tick - self._since + 1
            if ticks <= HOLE:
                self.seasonality.settle(ticks, min(self._busy / ticks, maximum))
            self._since = None
