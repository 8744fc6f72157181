"""Drives the adapter of a pool as the daemon does, and waits for expected samples: for tests with real pools.

Must not know kinds of pools. Time comes from a clock, so the same test works with a fake.
"""

from __future__ import annotations

from collections.abc import Callable

from ...models.records import PoolSample
from ..hands.kernel import Clock
from ..ports import PoolAdapter

_SECOND = 1_000_000_000


class PoolDriver:
    """A pool that is probed and read until a condition holds or the time is up.

    `tick`: seconds between two reads; `interval`: between two probes. `told` returns what the framework reports when something does
    not come, such as its log.
    """

    def __init__(
        self,
        pool: PoolAdapter,
        clock: Clock,
        *,
        tick: float = 0.1,
        interval: float = 0.02,
        patience: float = 20.0,
        told: Callable[[], str] = str,
    ) -> None:
        self.pool = pool
        self._clock = clock
        self._tick, self._interval, self._patience = tick, interval, patience
        self._told = told

    def over(self, seconds: float, interval: float | None = None) -> PoolSample:
        """The sample of the coming seconds."""
        pause = int((self._interval if interval is None else interval) * _SECOND)
        end = self._clock.monotonic() + int(seconds * _SECOND)
        while True:
            self.pool.probe()
            self._clock.sleep_until(self._clock.monotonic() + pause)
            if self._clock.monotonic() >= end:
                return self.pool.read()

    def until(self, condition: Callable[[PoolSample], object], seconds: float | None = None) -> PoolSample:
        """The first sample that meets the condition. Raises AssertionError when none does in time."""
        seconds = self._patience if seconds is None else seconds
        deadline = self._clock.monotonic() + int(seconds * _SECOND)
        while not condition(sample := self.over(self._tick)):
            if self._clock.monotonic() >= deadline:
                raise AssertionError(f"not within {seconds:g} s: {sample}\n{self._told()[-2000:]}")
        return sample

    def samples(self, seconds: float) -> list[PoolSample]:
        """All samples of the coming seconds, at least one."""
        end = self._clock.monotonic() + int(seconds * _SECOND)
        samples = [self.over(self._tick)]
        while self._clock.monotonic() < end:
            samples.append(self.over(self._tick))
        return samples

    def up(self, size: int) -> PoolSample:
        """The first sample with `size` workers, all ready, and no trouble."""
        return self.until(lambda s: s.size == s.requested == size and all(w.ready for w in s.workers) and not s.trouble)

    def settle(self, size: int) -> PoolSample:
        """Resize the pool to `size` workers once it has no trouble; the first sample with them all ready."""
        self.until(lambda s: not s.trouble)
        self.pool.resize(size)
        return self.up(size)


def load(sample: PoolSample) -> tuple[float, float]:
    """(busy workers, queued work) of a sample in which both are known."""
    assert sample.queued is not None
    return sum(worker.busy or 0.0 for worker in sample.workers), sample.queued
