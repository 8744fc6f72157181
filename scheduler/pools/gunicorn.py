"""A running gunicorn as a pool: found by its master, watched through the kernel, sized by TTIN and TTOU.

Must not know policies or what the application does. Nothing is asked of gunicorn but the two signals: one at a time, the next only
when the effect of the last one is seen, since two that are pending together arrive as one.
"""

from __future__ import annotations

import logging
import os
import signal
import statistics
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ...models.records import PoolSample, ProcId, WorkerSample
from ..config import PoolConfig
from ..decision import Status
from ..ports import Clock
from .busy import CallView, Doing, children, serving
from .listening import AcceptQueue
from .master import find, has_beaten, is_worker
from .signals import TICKS_PER_SECOND, ProcessHandle, open_process, read_stat, uptime_seconds

log = logging.getLogger(__name__)

_SECOND = 1_000_000_000
SETTLE_NS = 3 * _SECOND // 2
"""The number of workers must stand still for so long before it is believed to be the size that the master wants: a starting master
spawns one worker each 0.1 s at most (gunicorn/arbiter.py, spawn_workers)."""
STEP_NS = 5 * _SECOND
"""A TTIN that has shown no worker after so long was lost. The master handles a signal within milliseconds."""
PACE_NS = _SECOND
"""The next signal may follow an effect that cannot be seen (a drained worker still at its last request) after so long."""
HAND_UP_NS = _SECOND
HAND_DOWN_NS = 3 * _SECOND
"""More, or fewer, workers than the master should have, for so long: somebody else resized it. A crashed worker is replaced in less
(the master wakes up on SIGCHLD, and each second)."""
DRAIN_NS = 60 * _SECOND
"""A shrink of which nothing is seen for so long was lost; twice gunicorn's default graceful_timeout."""
HANDS_OFF_NS = 60 * _SECOND
"""How long a pool that somebody else resized is left alone after the last foreign change."""
RETRIES = 3
"""Signals without effect in a row before the pool is reported as not reacting."""
STARTS = 16
"""Start times kept; their median is reported."""
_LOOK_FOR_MASTER_NS = _SECOND
_REFRESH_NS = 5 * _SECOND


@dataclass(slots=True)
class _Worker:
    id: ProcId
    view: CallView
    newborn: bool  # not ready when first seen: its start time can be measured
    over: bool  # came when the master should have spawned none
    ready: bool = False
    probes: int = 0
    busy: int = 0
    known: int = 0
    idle_at: int = -1  # last time seen waiting for work, ns


@dataclass(slots=True)
class _Step:
    """The one signal that is under way."""

    number: signal.Signals
    at: int
    workers: int  # seen when it was sent


@dataclass(slots=True)
class _Pause:
    """Why nothing is sent now, and until when."""

    text: str
    status: Status
    until: int


@dataclass(slots=True)
class _Master:
    handle: ProcessHandle
    accept: AcceptQueue
    children: int  # descriptor of its list of children, -1 where the kernel keeps none
    refresh_at: int
    scan_at: int = 0
    scanned: list[int] = field(default_factory=list)


class GunicornPool:
    """Adapter for one gunicorn master and its workers. Signals go to the master alone, except for `recycle`."""

    def __init__(self, name: str, config: PoolConfig, clock: Clock, proc_root: Path = Path("/proc")) -> None:
        self.name = name
        self._config = config
        self._clock = clock
        self._proc_root = proc_root
        self._master: _Master | None = None
        self._lost: ProcId | None = None
        self._absence = "not looked for yet"
        self._look_at = 0
        self._workers: dict[int, _Worker] = {}
        self._changed_at = 0  # when the set of workers last changed
        self._settled = False
        self._believed = 0  # the size that the master wants, as we know it
        self._target: int | None = None  # the size that we want; None: whatever is there
        self._step: _Step | None = None
        self._shrunk_at: int | None = None  # last TTOU, while workers that it should drain are still there
        self._retries = 0
        self._below_since: int | None = None
        self._above_since: int | None = None
        self._pause: _Pause | None = None
        self._loop = False  # workers with event loops or threads: busy cannot be told
        self._starts: deque[float] = deque(maxlen=STARTS)
        self._queued: list[int] = []
        self._closed = False

    # --- the port -------------------------------------------------------------------------------------------------------------

    def probe(self) -> None:
        """Look at master, workers and accept queue; send the next signal when its turn has come."""
        if self._closed:
            return
        now = self._clock.monotonic()
        master = self._attached(now)
        if master is not None:
            self._look(master, now)
            self._steer(master, now)

    def read(self) -> PoolSample:
        """Shares and means over the probes since the last read. Workers that drain are among `workers` until they have ended."""
        if not self._queued and all(worker.probes == 0 for worker in self._workers.values()):
            self.probe()
        workers = tuple(
            WorkerSample(worker.id, None if self._loop or not worker.known else worker.busy / worker.known, worker.ready)
            for worker in sorted(self._workers.values(), key=lambda w: w.id)
        )
        sample = PoolSample(
            pool=self.name,
            size=len(workers),
            requested=self._requested(),
            queued=statistics.fmean(self._queued) if self._queued else None,
            workers=workers,
            master=None if self._master is None else self._master.handle.id,
            start_seconds=statistics.median(self._starts) if self._starts else None,
            trouble=self._trouble(),
        )
        self._queued.clear()
        for worker in self._workers.values():
            worker.probes = worker.busy = worker.known = 0
        return sample

    def resize(self, size: int) -> tuple[Status, str]:
        """Ask for `size` workers; the signals follow in the probes to come. gunicorn itself cannot go below one worker."""
        if size < 1:
            return Status.REFUSED, f"gunicorn keeps at least one worker, {size} cannot be asked of it"
        trouble = self._trouble()
        if trouble:
            return (self._pause.status if self._pause is not None else Status.REFUSED), trouble
        before = self._requested()
        if size == before:
            return Status.UNCHANGED, f"pool {self.name} has been asked for {size} already"
        self._target, self._retries = size, 0
        if self._master is not None:
            self._steer(self._master, self._clock.monotonic())
        return Status.APPLIED, f"asked for {size} workers, {before} before"

    def recycle(self, worker: ProcId) -> tuple[Status, str]:
        """Let this worker finish its request and end (SIGTERM); the master starts another in its place."""
        known = self._workers.get(worker.pid)
        if known is None or known.id != worker:
            return Status.VANISHED, f"pid {worker.pid} is no worker of pool {self.name}"
        handle = open_process(self._proc_root, worker.pid, worker)
        if handle is None:
            return Status.VANISHED, f"pid {worker.pid} is gone"
        try:
            return handle.send(signal.SIGTERM)
        finally:
            handle.close()

    def watch(self) -> Iterable[int]:
        """Pids of master and workers, sorted."""
        master = [] if self._master is None else [self._master.handle.id.pid]
        return sorted([*master, *self._workers])

    def close(self) -> None:
        """Let go of the pool; it stays as it is."""
        self._detach("closed")
        self._closed = True

    # --- the master -----------------------------------------------------------------------------------------------------------

    def _attached(self, now: int) -> _Master | None:
        """The master, adopted anew when it was restarted or replaced; None with `_absence` set when there is none."""
        if self._master is not None and self._master.handle.exited():
            gone = self._master.handle.id
            self._detach(f"gunicorn's master, pid {gone.pid}, has ended: see its error log for why, and start it again")
            self._lost = gone
            log.warning("pool %s: %s", self.name, self._absence)
            self._look_at = now
        if now < self._look_at:
            return self._master
        self._look_at = now + _LOOK_FOR_MASTER_NS
        if self._config.pid is not None and not self._config.pidfile and (self._master is not None or self._lost is not None):
            return self._master  # a bare pid is worth one process: whoever has it next is a stranger
        found = find(self._proc_root, self._config, None if self._master is None else self._master.handle.id)
        if isinstance(found, str):
            if self._master is None and found != self._absence:
                self._absence = found
                log.warning("pool %s: %s", self.name, found)
            return self._master
        if found is not None:
            self._adopt(found, now)
        return self._master

    def _adopt(self, handle: ProcessHandle, now: int) -> None:
        self._detach("")
        pid = handle.id.pid
        accept = AcceptQueue(self._proc_root, pid)
        try:
            listing = os.open(self._proc_root / str(pid) / "task" / str(pid) / "children", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            listing = -1
        self._master = _Master(handle, accept, listing, refresh_at=now + _REFRESH_NS)
        self._lost = None
        self._changed_at = now
        log.info("pool %s: adopted gunicorn's master, pid %d", self.name, pid)

    def _detach(self, absence: str) -> None:
        """Forget master and workers and all that was believed of them."""
        if self._master is not None:
            self._master.handle.close()
            self._master.accept.close()
            if self._master.children >= 0:
                os.close(self._master.children)
            self._master = None
        for worker in self._workers.values():
            worker.view.close()
        self._workers.clear()
        self._absence = absence
        self._settled = self._loop = False
        self._believed, self._target, self._step, self._pause = 0, None, None, None
        self._below_since = self._above_since = self._shrunk_at = None
        self._queued.clear()

    # --- what is there --------------------------------------------------------------------------------------------------------

    def _look(self, master: _Master, now: int) -> None:
        if now >= master.refresh_at:
            master.refresh_at = now + _REFRESH_NS
            master.accept.refresh()
        present = self._children(master, now)
        for pid in self._workers.keys() - set(present):
            self._drop(pid, now)
        for pid in present:
            if pid not in self._workers:
                self._admit(master, pid, now)
        uptime: float | None = None
        for worker in list(self._workers.values()):
            doing = serving(worker.view, master.accept.descriptors)
            if doing is Doing.GONE:
                self._drop(worker.id.pid, now)
                continue
            worker.probes += 1
            if doing in (Doing.IDLE, Doing.BUSY):
                worker.known += 1
                worker.busy += doing is Doing.BUSY
            if doing is Doing.LOOP and not self._loop:
                self._loop = True
                log.info("pool %s: workers with event loops or threads, how many requests they have is not known", self.name)
            if doing in (Doing.IDLE, Doing.LOOP):
                worker.idle_at = now
            if not worker.ready:
                if not is_worker(
                    self._proc_root, worker.id.pid, master.handle.id.pid
                ):  # it has become another program since the fork
                    self._drop(worker.id.pid, now)
                    continue
                worker.ready = doing in (Doing.IDLE, Doing.LOOP) or has_beaten(self._proc_root, worker.id.pid)
                if worker.ready and worker.newborn:
                    uptime = uptime_seconds(self._proc_root) if uptime is None else uptime
                    self._starts.append(max(0.0, uptime - worker.id.start_ticks / TICKS_PER_SECOND))
                worker.newborn = worker.newborn or not worker.ready
        waiting = master.accept.waiting()
        if waiting is not None:
            self._queued.append(waiting)

    def _children(self, master: _Master, now: int) -> list[int]:
        """Pids of the master's children. The arbiter forks in its main thread (only that one gets Python's signals)."""
        if master.children >= 0:
            try:
                return sorted(int(word) for word in os.pread(master.children, 1 << 17, 0).split())
            except ProcessLookupError:
                return []
        if now >= master.scan_at:
            master.scan_at = now + _SECOND
            master.scanned = children(self._proc_root, master.handle.id.pid)
        return master.scanned

    def _admit(self, master: _Master, pid: int, now: int) -> None:
        stat = read_stat(self._proc_root, pid)
        if (
            stat is None
            or stat.state in "ZX"
            or stat.ppid != master.handle.id.pid
            or not is_worker(self._proc_root, pid, master.handle.id.pid)
        ):
            return
        try:
            view = CallView(self._proc_root, pid)
        except ProcessLookupError:
            return
        over = self._settled and len(self._workers) >= self._believed
        self._workers[pid] = _Worker(ProcId(pid, stat.start_ticks), view, newborn=self._settled, over=over)
        self._changed_at = now

    def _drop(self, pid: int, now: int) -> None:
        self._workers.pop(pid).view.close()
        self._changed_at = now

    # --- sizing ---------------------------------------------------------------------------------------------------------------

    def _steer(self, master: _Master, now: int) -> None:
        """At most one signal, and only when the effect of the last one is known."""
        seen = len(self._workers)
        if not self._settled:
            self._believed = seen
            self._settled = seen > 0 and now - self._changed_at >= SETTLE_NS
            if not self._settled:
                return
        if self._pause is not None:
            self._believed = seen
            self._pause.until = max(self._pause.until, self._changed_at + HANDS_OFF_NS)
            if now < self._pause.until:
                return
            self._pause = self._step = self._target = None
            log.info("pool %s: sized by nicety again, from %d workers", self.name, seen)
        if self._step is not None and not self._step_is_over(self._step, seen, now):
            return
        self._watch_for_hands(seen, now)
        if self._shrink_was_lost(seen, now):
            self._believed, self._shrunk_at = seen, None
            self._retry(signal.SIGTTOU, now)
        if self._held() or self._target is None or self._target == self._believed:
            return
        number, change = (signal.SIGTTIN, 1) if self._target > self._believed else (signal.SIGTTOU, -1)
        status, text = master.handle.send(number)
        if status is not Status.APPLIED:
            self._hold(text, Status.REFUSED, now)
            return
        self._step = _Step(number, now, seen)
        self._believed += change
        if number is signal.SIGTTOU:
            self._shrunk_at = now

    def _step_is_over(self, step: _Step, seen: int, now: int) -> bool:
        """Whether the next signal may be sent: the effect is seen, or surely past though it cannot be seen."""
        if step.number is signal.SIGTTIN:
            shown = seen >= self._believed and (seen > step.workers or now - step.at >= PACE_NS)
            lost = seen < self._believed and now - step.at >= STEP_NS
        else:
            shown, lost = seen < step.workers or now - step.at >= PACE_NS, False
        if shown:
            self._step = None
            self._retries = 0 if seen != step.workers else self._retries
        elif lost:
            self._step = None
            self._believed = seen
            self._retry(step.number, now)
        return self._step is None

    def _shrink_was_lost(self, seen: int, now: int) -> bool:
        """Whether the workers beyond the size that the master should want do not drain: idle long after TTOU, or there for ever."""
        excess = seen - self._believed
        if excess <= 0:
            self._shrunk_at = None
        if self._shrunk_at is None or self._above_since is not None:
            return False
        since = self._shrunk_at
        oldest = sorted(self._workers.values(), key=lambda w: (w.id.start_ticks, w.id.pid))[:excess]
        if not self._loop and all(worker.idle_at >= since + HAND_DOWN_NS for worker in oldest):
            return True
        return now - max(since, self._changed_at) >= DRAIN_NS

    def _retry(self, number: signal.Signals, now: int) -> None:
        self._retries += 1
        if self._retries > RETRIES:
            text = f"gunicorn's master did not react to {number.name}, sent {self._retries} times: see its error log"
            self._hold(text, Status.FAILED, now)

    def _watch_for_hands(self, seen: int, now: int) -> None:
        """The master spawns only while it has fewer workers than it wants, and replaces a lost one at once; else it was resized."""
        over = seen > self._believed and any(worker.over for worker in self._workers.values())
        self._above_since = (self._above_since or now) if over else None
        self._below_since = (self._below_since or now) if seen < self._believed else None
        grown = self._above_since is not None and now - self._above_since >= HAND_UP_NS
        fallen = self._below_since is not None and now - self._below_since >= HAND_DOWN_NS
        if grown or fallen:
            asked = self._believed
            text = (
                f"resized by hand to {seen} workers ({asked} were asked for): hands off until {HANDS_OFF_NS // _SECOND} s of quiet"
            )
            self._hold(text, Status.FOREIGN, now)
        elif not over:
            for worker in self._workers.values():
                worker.over = False

    def _hold(self, text: str, status: Status, now: int) -> None:
        log.warning("pool %s: %s", self.name, text)
        self._pause = _Pause(text, status, now + HANDS_OFF_NS)
        self._step = self._target = None
        self._above_since = self._below_since = self._shrunk_at = None
        self._retries = 0
        self._believed = len(self._workers)
        for worker in self._workers.values():
            worker.over = False

    def _held(self) -> bool:
        return self._pause is not None

    def _requested(self) -> int:
        return self._believed if self._target is None else self._target

    def _trouble(self) -> str:
        if self._master is None:
            return self._absence
        return "" if self._pause is None else self._pause.text
