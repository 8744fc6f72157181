"""Drives the adapter of a pool as the daemon does, and waits for what is to be seen: for tests beside the real thing.

Must not know kinds of pools. Time is that of a clock, so the same test can be of a fake.
"""

from __future__ import annotations

from collections.abc import Callable

from ...models.records import PoolSample
from ..ports import Clock, PoolAdapter

_SECOND = 1_000_000_000


class PoolDriver:
    """A pool that is probed and read, each time until a condition holds or its time is up.

    `tick` seconds are between two reads, `interval` between two probes. `told` is what the framework has to say when something does
    not come: its log, say.
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
        """The sample of the seconds to come."""
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
        """All samples of the seconds to come, at least one."""
        end = self._clock.monotonic() + int(seconds * _SECOND)
        samples = [self.over(self._tick)]
        while self._clock.monotonic() < end:
            samples.append(self.over(self._tick))
        return samples

    def up(self, size: int) -> PoolSample:
        """The pool with so many workers, all up and nothing wrong."""
        return self.until(lambda s: s.size == s.requested == size and all(w.ready for w in s.workers) and not s.trouble)

    def settle(self, size: int) -> PoolSample:
        """The pool resized to so many workers, as soon as it can be."""
        self.until(lambda s: not s.trouble)
        self.pool.resize(size)
        return self.up(size)


def load(sample: PoolSample) -> tuple[float, float]:
    """(busy workers, queued work) of a sample in which both are known."""
    assert sample.queued is not None
    return sum(worker.busy or 0.0 for worker in sample.workers), sample.queued
