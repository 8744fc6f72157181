"""Sums over a pool's probes until it is read: the waiting work, and how long its workers took to come up.

Must not know where the figures come from.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable

from ....models.identity import ProcId
from ....models.records import Flights, PoolSample, WorkerSample

STARTS = 16
"""Start times kept; their median is reported. Chosen."""


class PoolTally:
    """The counts of one pool."""

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self._queued: list[int] = []
        self._starts: deque[float] = deque(maxlen=STARTS)

    def queue(self, waiting: int) -> None:
        """Count the work that waits at this probe."""
        self._queued.append(waiting)

    def start(self, seconds: float) -> None:
        """Record a worker that took this long to come up."""
        self._starts.append(seconds)

    def is_empty(self) -> bool:
        """Whether no queue was counted since the last read."""
        return not self._queued

    def forget(self) -> None:
        """Forget the queue: it was another pool's. Start times stay, because the next pool's workers will take about as long."""
        self._queued.clear()

    def sample(
        self,
        workers: Iterable[WorkerSample],
        *,
        requested: int,
        master: ProcId | None,
        trouble: str,
        start_seconds: float | None = None,
        flights: Flights | None = None,
    ) -> PoolSample:
        """The pool since the last read; counting restarts. `start_seconds`: from a framework that measures it itself."""
        there = tuple(sorted(workers, key=lambda worker: worker.id))
        queued = statistics.fmean(self._queued) if self._queued else None
        self._queued.clear()
        if self._starts:
            start_seconds = statistics.median(self._starts)
        return PoolSample(self._pool, len(there), requested, queued, there, master, start_seconds, trouble, flights)
