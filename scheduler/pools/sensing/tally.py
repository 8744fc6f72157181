"""What the probes of a pool add up to until it is read: the work that waited, and how long its workers took to come up.

Must not know where the figures come from.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable

from ....models.records import PoolSample, ProcId, WorkerSample

STARTS = 16
"""Start times kept; their median is reported."""


class Tally:
    """The counts of one pool."""

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self._queued: list[int] = []
        self._starts: deque[float] = deque(maxlen=STARTS)

    def queue(self, waiting: int) -> None:
        """So much work waits, as of this probe."""
        self._queued.append(waiting)

    def start(self, seconds: float) -> None:
        """A worker has come up, and took so long."""
        self._starts.append(seconds)

    def is_empty(self) -> bool:
        """Whether no queue was counted since the last read."""
        return not self._queued

    def forget(self) -> None:
        """The queue was another pool's. Start times stay: the next one's workers will hardly take another time."""
        self._queued.clear()

    def sample(
        self,
        workers: Iterable[WorkerSample],
        *,
        requested: int,
        master: ProcId | None,
        trouble: str,
        start_seconds: float | None = None,
    ) -> PoolSample:
        """The pool since the last read; counting begins anew. `start_seconds` is for a framework that tells them itself."""
        there = tuple(sorted(workers, key=lambda worker: worker.id))
        queued = statistics.fmean(self._queued) if self._queued else None
        self._queued.clear()
        if self._starts:
            start_seconds = statistics.median(self._starts)
        return PoolSample(self._pool, len(there), requested, queued, there, master, start_seconds, trouble)
