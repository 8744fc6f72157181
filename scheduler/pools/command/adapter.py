"""A pool of copies of one command that nicety starts and supervises: started at once, drained by a signal, restarted with back-off.

Must not know policies or what the command does. The hands start the workers, and signal and wait for only those.
"""

from __future__ import annotations

import logging
import os
import random
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ....models.identity import ProcId
from ....models.records import PoolSample, WorkerSample
from ...config.sections import PoolConfig
from ...hands.faults import Status
from ...hands.kernel import Clock
from ...hands.wire import RefusedError
from ..sensing.acts import Acts, Child
from ..sensing.busy import Activity, Doing
from ..sensing.tally import PoolTally
from .queues.choose import counter
from .queues.waiting import WaitingWork

log = logging.getLogger(__name__)

_SECOND = 1_000_000_000
AT_ONCE_NS = _SECOND
"""A worker that lived shorter than this has failed to start, whatever its exit status. Chosen."""
HEALTHY_NS = 30 * _SECOND
"""After this time without a failure the back-off starts again from its shortest wait. Chosen."""
MAX_BACK_OFF = 60.0
"""Longest wait between two tries, in seconds. The back-offs of systemd and Kubernetes end at 60 s to 5 min."""
JITTER = 0.1
"""A wait varies by up to this share, so that pools that fail together do not retry together. Chosen."""
READY_NS = 10 * _SECOND
"""A worker that was never seen waiting for work counts as up after this time: it came up under load. Chosen."""
UNSETTLED_NS = 5 * _SECOND
"""A worker that was at no good moment to get its signal for this long gets it anyway. Chosen: RQ waits for its child, where the
signal is safe, for most of each job."""
STARTS_PER_PROBE = 4
"""Workers started in one probe at most; the rest wait for the next one. A start costs some milliseconds (fork and exec). Chosen."""


@dataclass(slots=True)
class _CommandWorker:
    number: int
    process: Child
    born: int
    activity: Activity
    ready: bool = False
    doing: Doing = Doing.UNKNOWN
    busy: int = 0
    known: int = 0
    replacement: _CommandWorker | None = None  # started in its place: this one drains when the other is ready
    leaving: int | None = None  # since when it is to leave; None: it stays
    drain_by: int | None = None  # when it gets SIGKILL; None: it did not get its signal yet
    killed: bool = False

    @property
    def id(self) -> ProcId:
        return self.process.id


class CommandPool:
    """Adapter for `[pools.NAME] kind = "command"`.

    Nothing runs before the first probe. Where the hands are this process, call `probe`, `resize` and `recycle` from a thread that
    lives as long as the pool: the kernel asks workers to end when the thread that started them ends. So workers drain when the
    daemon is killed. `environ` has what "$NAME" of a queue's URL stands for. Raises ValueError for a URL that cannot be used.
    """

    def __init__(
        self,
        name: str,
        config: PoolConfig,
        clock: Clock,
        acts: Acts,
        proc_root: Path = Path("/proc"),
        *,
        seed: int,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.name = name
        self._config = config
        self._clock = clock
        self._proc_root = proc_root
        self._acts = acts
        self._chance = random.Random(seed)  # noqa: S311 - spreads retries, protects nothing
        self._target = config.minimum if config.initial is None else config.initial
        self._workers: list[_CommandWorker] = []
        self._tally = PoolTally(name)
        self._probes = 0
        self._failures = 0  # in a row
        self._failed_at = 0
        self._next_start = 0
        self._cause = ""  # of the last failure
        self._at_once = False  # the last failure was a failure to start
        self._closed = False
        self._waiting: WaitingWork | None = None
        self._forks = config.queue is not None and bool(config.queue.rq)  # a worker has a child for each job
        if config.queue is not None:
            counting = counter(config.queue, acts.count, clock, environ)
            self._waiting = WaitingWork(name, counting, config.queue.every, clock)

    # --- the port -------------------------------------------------------------------------------------------------------------

    def probe(self) -> None:
        """Reap, look at workers and queue, start and drain what is due."""
        if self._closed:
            return
        now = self._clock.monotonic()
        self._reap(now)
        self._look(now)
        if self._waiting is not None:
            self._waiting.probe()
            count = self._waiting.count()
            if count is not None:
                self._tally.queue(count.waiting)
        self._supervise(now)
        self._probes += 1

    def read(self) -> PoolSample:
        """Shares and means over the probes since the last read. `workers` includes draining workers until they have ended."""
        if self._probes == 0:
            self.probe()
        sample = self._tally.sample(
            (
                WorkerSample(worker.id, worker.busy / worker.known if worker.known else None, worker.ready)
                for worker in self._workers
            ),
            requested=self._target,
            master=None,
            trouble=self._trouble(self._clock.monotonic()),
            flights=self._waiting.flights() if self._waiting is not None else None,
        )
        self._probes = 0
        for worker in self._workers:
            worker.busy = worker.known = 0
        return sample

    def resize(self, size: int) -> tuple[Status, str]:
        """Ask for `size` workers. Growing is refused while the command fails to start; shrinking drains idle workers first."""
        if not self._config.minimum <= size <= self._config.maximum:
            return Status.REFUSED, f"{size} is outside of minimum = {self._config.minimum} and maximum = {self._config.maximum}"
        before = self._target
        if size == before:
            return Status.UNCHANGED, f"pool {self.name} has been asked for {size} already"
        now = self._clock.monotonic()
        trouble = self._trouble(now)
        if trouble and size > before:
            return Status.REFUSED, trouble
        self._target = size
        self._supervise(now)
        return Status.APPLIED, f"asked for {size} workers, {before} before"

    def recycle(self, worker: ProcId) -> tuple[Status, str]:
        """Start another worker, and drain this one when the new one is up."""
        now = self._clock.monotonic()
        old = next((w for w in self._workers if w.id == worker), None)
        if old is None:
            return Status.VANISHED, f"pid {worker.pid} is no worker of pool {self.name}"
        if old.leaving is not None or old.replacement is not None:
            return Status.UNCHANGED, f"worker {old.number} (pid {worker.pid}) is leaving already"
        if now < self._next_start or self._trouble(now):
            return Status.REFUSED, self._trouble(now) or f"{self._cause}; a new worker may start in a moment"
        new = self._start(now)
        if new is None:
            return Status.FAILED, self._trouble(now)
        old.replacement = new
        return Status.APPLIED, f"worker {old.number} (pid {worker.pid}) drains when worker {new.number} (pid {new.id.pid}) is up"

    def close(self) -> None:
        """Drain and end all workers; return when they have ended, after `drain_timeout` at the latest."""
        self._closed = True
        if self._waiting is not None:
            self._waiting.close()
        now = self._clock.monotonic()
        for worker in self._workers:
            self._drain(worker, now)
        while self._workers:
            now = self._clock.monotonic()
            self._reap(now)
            self._end(now)
            if self._workers:
                self._clock.sleep_until(now + _SECOND // 50)

    # --- what is there --------------------------------------------------------------------------------------------------------

    def _reap(self, now: int) -> None:
        for worker in list(self._workers):
            status = worker.process.poll()
            if status is None:
                continue
            if worker.killed or worker.leaving is not None:
                log.info("pool %s: worker %d (pid %d) has left, %s", self.name, worker.number, worker.id.pid, _status(status))
            worker.activity.close()
            worker.process.close()
            self._workers.remove(worker)
            for other in self._workers:
                if other.replacement is worker:
                    other.replacement = None
            if worker.leaving is None and (status != 0 or now - worker.born < AT_ONCE_NS):
                self._failed(worker.born, now - worker.born < AT_ONCE_NS, _status(status), now)

    def _look(self, now: int) -> None:
        for worker in self._workers:
            doing = worker.activity.look(now)
            worker.doing = doing
            if doing in (Doing.IDLE, Doing.BUSY):
                worker.known += 1
                worker.busy += doing is Doing.BUSY
            if not worker.ready:
                if doing is Doing.IDLE:
                    self._tally.start((now - worker.born) / _SECOND)
                worker.ready = doing is Doing.IDLE or now - worker.born >= READY_NS
        steady_since = max([self._failed_at, *(worker.born for worker in self._workers)])
        if self._failures and now - steady_since >= HEALTHY_NS and len(self._staying()) >= self._target:
            self._failures = 0

    # --- supervision ----------------------------------------------------------------------------------------------------------

    def _supervise(self, now: int) -> None:
        if self._closed:
            return
        self._end(now)
        for worker in self._workers:
            if worker.replacement is not None and worker.replacement.ready and worker.leaving is None:
                self._drain(worker, now)
        staying = self._staying()
        for worker in sorted(staying, key=lambda w: (w.doing is not Doing.IDLE, -w.born, -w.number))[
            : max(0, len(staying) - self._target)
        ]:
            self._drain(worker, now)
        if now < self._next_start:
            return
        missing = min(self._target - len(staying), STARTS_PER_PROBE)
        if self._failures > 1:  # one at a time, until one has survived its start
            missing = min(missing, int(all(now - worker.born >= AT_ONCE_NS for worker in self._workers)))
        for _ in range(missing):
            if self._start(now) is None:
                break

    def _staying(self) -> list[_CommandWorker]:
        return [worker for worker in self._workers if worker.leaving is None and worker.replacement is None]

    def _start(self, now: int) -> _CommandWorker | None:
        """A new worker; None if it could not be started."""
        taken = {worker.number for worker in self._workers}
        number = next(n for n in range(1, len(taken) + 2) if n not in taken)
        try:
            process = self._acts.start(number)
        except (OSError, RefusedError) as error:
            self._failed(now, True, f"cannot be started: {error}", now)
            return None
        ended = process.poll()
        if ended is not None:
            process.close()
            self._failed(now, True, _status(ended), now)
            return None
        worker = _CommandWorker(number, process, now, Activity(self._proc_root, process.id.pid, forks=self._forks))
        self._workers.append(worker)
        return worker

    def _drain(self, worker: _CommandWorker, now: int) -> None:
        if worker.leaving is None:
            worker.leaving = now
            self._ask_to_end(worker, now)

    def _ask_to_end(self, worker: _CommandWorker, now: int) -> None:
        """Send the signal, if the moment is good. RQ loses a job that it has taken from its queue, and has not yet given to a
        child, when the signal comes."""
        assert worker.leaving is not None
        settled = not self._forks or worker.activity.settled()
        if not settled and now - worker.leaving < UNSETTLED_NS:
            return
        worker.drain_by = now + int(self._config.drain_timeout * _SECOND)
        if worker.process.poll() is None:
            worker.process.drain(signal.Signals[self._config.drain_signal])

    def _end(self, now: int) -> None:
        """Carry on with workers that leave."""
        for worker in self._workers:
            if worker.leaving is not None and worker.drain_by is None:
                self._ask_to_end(worker, now)
            if worker.drain_by is not None and now >= worker.drain_by and not worker.killed:
                worker.killed = worker.process.kill()
                if worker.killed:
                    limit = f"{self._config.drain_timeout:g} s"
                    asked = self._config.drain_signal
                    log.warning(
                        "pool %s: worker pid %d did not end within %s of %s: killed", self.name, worker.id.pid, limit, asked
                    )

    def _failed(self, born: int, at_once: bool, cause: str, now: int) -> None:
        """Record that a worker ended as it should not. Workers born before the last failure that fail with it count once."""
        if not self._failures or born >= self._failed_at:
            self._failures += 1
            delay = min(MAX_BACK_OFF, 2.0 ** min(self._failures - 1, 10)) * self._chance.uniform(1 - JITTER, 1 + JITTER)
            self._next_start = now + int(delay * _SECOND)
            self._failed_at = now
        self._at_once = at_once
        self._cause = f"worker exits at once ({cause})" if at_once else f"worker ended ({cause})"
        log.warning("pool %s: %s, failure %d in a row; see %s", self.name, self._cause, self._failures, self._acts.log_file)

    def _trouble(self, now: int) -> str:
        """What keeps the pool from being resized: a command that fails to start, or fails again and again."""
        if not self._failures or not (self._at_once or self._failures > 1):
            return ""
        if now < self._next_start:
            seconds = (self._next_start - now) / _SECOND
            return f"{self._cause}, next try in {seconds:.0f} s; see {self._acts.log_file}"
        tried = [worker.born for worker in self._workers if worker.born >= self._failed_at]
        if (tried and now - min(tried) >= AT_ONCE_NS) or (not tried and len(self._staying()) >= self._target):
            return ""
        return f"{self._cause}, trying again; see {self._acts.log_file}"


def _status(code: int) -> str:
    """An exit status for people."""
    if code >= 0:
        return f"status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
