"""The ports: what the daemon needs of the world, as protocols. Each has a real implementation and a fake in `testing.py`.

Pure: only types. Contract suites in `tests/contracts` run on fake and real alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from ..models.records import PoolSample, ProcId, Snapshot
from .decision import Decision, Outcome, Status


class Source(Protocol):
    """Reads the machine."""

    def read(self, at: int, wall: int, pools: tuple[PoolSample, ...]) -> Snapshot:
        """Everything at this instant. Processes that vanish while being read are left out; never raises for one process."""
        ...

    def close(self) -> None:
        """Give all descriptors back."""
        ...


class Actuator(Protocol):
    """Carries decisions out. The observing actuator is another implementation, not a flag."""

    mode: str  # "observe" or "act"

    def apply(self, decisions: Sequence[Decision]) -> tuple[Outcome, ...]:
        """One outcome a decision, in order. Never raises for a target that is gone or refuses."""
        ...

    def settle(self) -> tuple[Outcome, ...]:
        """Outcomes of earlier decisions that were still under way (pool sizes), and of foreign changes seen meanwhile."""
        ...

    def undo(self) -> tuple[Outcome, ...]:
        """Put everything back, newest change first; leave what somebody else changed. Idempotent."""
        ...


class PoolAdapter(Protocol):
    """A resizable set of workers. Requests return at once; what came of them is observed in later samples."""

    name: str

    def probe(self) -> None:
        """Cheap look at busy workers and queue; called several times a tick, its means go into the next `read`.
        Also the adapter's turn to do its upkeep (start, reap, next paced signal). Never blocks, never raises."""
        ...

    def read(self) -> PoolSample:
        """What the probes since the last read saw."""
        ...

    def resize(self, size: int) -> tuple[Status, str]:
        """Request a size. Status APPLIED means the request was taken, not that the workers are there. Shrinking drains."""
        ...

    def recycle(self, worker: ProcId) -> tuple[Status, str]:
        """Drain this worker and start another in its place."""
        ...

    def watch(self) -> Iterable[int]:
        """Pids of master and workers, for the collector to read at full pace."""
        ...

    def close(self) -> None:
        """Give the pool back: a pool that nicety started is drained and stopped, a foreign one is left as it is."""
        ...


class Clock(Protocol):
    """Time as an object: `daemon.py` gets the real one, tests a fake that jumps."""

    def monotonic(self) -> int:
        """ns"""
        ...

    def wall(self) -> int:
        """ns since 1970"""
        ...

    def sleep_until(self, at: int) -> None:
        """Return when `monotonic()` has reached `at`, or earlier on a signal."""
        ...
