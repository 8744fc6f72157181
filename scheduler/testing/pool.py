"""A pool that exists only in memory: seeded, driven by its clock, with the same contract as the real adapters.

Must not touch processes, files or the system's time. Behaves like gunicorn: workers come up after `start_seconds`, a shrinking pool
drains its oldest workers, a lost worker is replaced, and after a resize by hand the pool is left alone for a while.
"""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass

from ...models.identity import ProcId
from ...models.records import PoolSample, WorkerSample
from ..hands.faults import Status
from ..hands.kernel import Clock

_SECOND = 1_000_000_000
HANDS_OFF_SECONDS = 60.0
"""How long it refuses requests after `resize_by_hand`: the value of the gunicorn adapter (pools/sensing/hands_off.py)."""


@dataclass(slots=True)
class _FakeWorker:
    id: ProcId
    born: int
    ready_at: int
    measured: bool  # its start time has been counted, or it has none
    gone_at: int | None = None  # draining until then
    busy: float = 0.0


class FakePool:
    """A pool of simulated workers.

    `load` is the offered load in Erlangs: the ready workers take as much of it as they can, the rest is queued. Set it at any time.
    """

    def __init__(
        self,
        name: str,
        clock: Clock,
        *,
        minimum: int = 1,
        maximum: int = 8,
        size: int | None = None,
        start_seconds: float = 2.0,
        drain_seconds: float = 0.5,
        seed: int = 0,
        first_pid: int = 1_000_000,
    ) -> None:
        self.name = name
        self.minimum = minimum
        self.maximum = maximum
        self.load = 0.0
        self.requests: list[int] = []
        """Every size that was asked for and accepted."""
        self._clock = clock
        self._start_seconds = start_seconds
        self._drain_seconds = drain_seconds
        self._chance = random.Random(seed)  # noqa: S311 - a seeded simulation
        self._next_pid = first_pid
        self._master: ProcId | None = self._new_id()
        self._wanted = minimum if size is None else size
        self._workers = [self._spawn(ready=True) for _ in range(self._wanted)]
        self._starts: list[float] = []
        self._queued: list[float] = []
        self._probes = 0
        self._trouble = ""
        self._foreign_until = 0
        self._closed = False

    # --- the port -------------------------------------------------------------------------------------------------------------

    def probe(self) -> None:
        """Let simulated time pass: workers come up, leave, are replaced; the load is spread over the ready ones."""
        if self._closed:
            return
        now = self._clock.monotonic()
        if self._foreign_until and now >= self._foreign_until:
            self._foreign_until, self._trouble = 0, ""
        self._workers = [worker for worker in self._workers if worker.gone_at is None or worker.gone_at > now]
        if self._master is not None:
            while len(self._workers) < self._wanted:
                self._workers.append(self._spawn())
            staying = [worker for worker in self._workers if worker.gone_at is None]
            for worker in staying[: max(0, len(staying) - self._wanted)]:
                worker.gone_at = now + int(self._drain_seconds * self._chance.uniform(0.5, 1.5) * _SECOND)
        left = self.load
        for worker in self._workers:
            if worker.ready_at <= now:
                share = min(1.0, left)
                left -= share
                worker.busy += share
                if not worker.measured:
                    self._starts.append((worker.ready_at - worker.born) / _SECOND)
                    worker.measured = True
        self._queued.append(left)
        self._probes += 1

    def read(self) -> PoolSample:
        """What the probes since the last read saw."""
        if not self._probes:
            self.probe()
        now = self._clock.monotonic()
        workers = tuple(
            WorkerSample(worker.id, worker.busy / max(1, self._probes), worker.ready_at <= now)
            for worker in sorted(self._workers, key=lambda w: w.id)
        )
        sample = PoolSample(
            pool=self.name,
            size=len(workers),
            requested=self._wanted,
            queued=statistics.fmean(self._queued) if self._queued and self._master is not None else None,
            workers=workers,
            master=self._master,
            start_seconds=statistics.median(self._starts[-16:]) if self._starts else None,
            trouble=self._trouble,
        )
        self._queued.clear()
        self._probes = 0
        for worker in self._workers:
            worker.busy = 0.0
        return sample

    def resize(self, size: int) -> tuple[Status, str]:
        """Ask for a size within the limits."""
        if not self.minimum <= size <= self.maximum:
            return Status.REFUSED, f"{size} is outside of minimum = {self.minimum} and maximum = {self.maximum}"
        if self._trouble:
            return (Status.FOREIGN if self._foreign_until else Status.REFUSED), self._trouble
        if size == self._wanted:
            return Status.UNCHANGED, f"pool {self.name} has been asked for {size} already"
        before, self._wanted = self._wanted, size
        self.requests.append(size)
        return Status.APPLIED, f"asked for {size} workers, {before} before"

    def recycle(self, worker: ProcId) -> tuple[Status, str]:
        """Drain this worker; another takes its place."""
        now = self._clock.monotonic()
        for known in self._workers:
            if known.id == worker:
                known.gone_at = now + int(self._drain_seconds * self._chance.uniform(0.5, 1.5) * _SECOND)
                return Status.APPLIED, f"pid {worker.pid} drains"
        return Status.VANISHED, f"pid {worker.pid} is no worker of pool {self.name}"

    def close(self) -> None:
        """Leave the simulated pool as it is."""
        self._closed = True

    # --- what tests do to it --------------------------------------------------------------------------------------------------

    def kill(self, worker: ProcId) -> None:
        """End a worker at once, as a crash does."""
        self._workers = [known for known in self._workers if known.id != worker]

    def resize_by_hand(self, size: int) -> None:
        """Somebody else resizes the pool: requests are refused for HANDS_OFF_SECONDS."""
        self._foreign_until = self._clock.monotonic() + int(HANDS_OFF_SECONDS * _SECOND)
        self._trouble = f"resized by hand to {size} workers ({self._wanted} were asked for): hands off"
        self._wanted = size

    def end_master(self) -> None:
        """The master dies with its workers; the pool is in trouble until `start_master`."""
        self._master, self._workers = None, []
        self._trouble, self._foreign_until = "the master has ended: start it again", 0

    def start_master(self) -> None:
        """A new master, with the last wanted size."""
        self._master, self._trouble = self._new_id(), ""

    def _spawn(self, *, ready: bool = False) -> _FakeWorker:
        now = self._clock.monotonic()
        seconds = 0.0 if ready else self._start_seconds * self._chance.uniform(0.9, 1.1)
        return _FakeWorker(self._new_id(), now, now + int(seconds * _SECOND), measured=ready)

    def _new_id(self) -> ProcId:
        self._next_pid += 1
        return ProcId(self._next_pid, self._clock.monotonic() // 10_000_000)
