"""A running `uvicorn --workers` as a pool: found by its supervisor, watched through the kernel, resized by TTIN and TTOU.

Must not know policies or what the application does. The supervisor handles a signal when it is in its main loop. It leaves that
loop to start a worker, and to wait for one that leaves. So one signal is sent at a time, and the next one when its effect is seen.
"""

from __future__ import annotations

import logging
import signal
from dataclasses import dataclass
from pathlib import Path

from ....models.identity import ProcId
from ....models.records import PoolSample, WorkerSample
from ...config.sections import PoolConfig
from ...hands.faults import Status
from ...hands.kernel import Clock
from ..sensing.acts import Acts
from ..sensing.busy import CallView, ChildList
from ..sensing.hands_off import QUIET, HandsOff
from ..sensing.in_flight import InFlight
from ..sensing.listening import AcceptQueue
from ..sensing.main_process import MainProcess
from ..sensing.signals import ProcessHandle, age_seconds, read_stat
from ..sensing.tally import PoolTally
from .master import find, is_worker, rests, serves

log = logging.getLogger(__name__)

_SECOND = 1_000_000_000
CALM_NS = 3 * _SECOND // 2
CALM_LOOKS = 10
"""The number of workers counts as the one that the supervisor wants when it has not changed for CALM_NS, and the supervisor was in
its main loop at this many looks since. It goes round every 0.5 s (uvicorn/supervisors/multiprocess.py), and replaces a worker that
has ended."""
LOST_NS = 3 * _SECOND
LOST_LOOKS = 20
"""A signal without effect after this time, and this many looks at which the supervisor was in its main loop, was lost. Chosen."""
RETRIES = 3
"""Signals without effect in a row before the pool is reported as not reacting. Chosen."""
BLOCKED_NS = 60 * _SECOND
"""After this long outside of its main loop the supervisor is reported: a worker does not end its requests. Chosen."""
_REFRESH_NS = 5 * _SECOND
"""How often the listening socket is looked for again. Chosen: it shows when the first worker listens."""


@dataclass(slots=True)
class _UvicornWorker:
    id: ProcId
    newborn: bool  # appeared while we watched: its start time can be measured
    ready: bool = False


@dataclass(slots=True)
class _UvicornStep:
    """The one signal that is under way."""

    number: signal.Signals
    at: int
    workers: int  # seen when it was sent


@dataclass(slots=True)
class _Supervisor:
    handle: ProcessHandle
    view: CallView
    accept: AcceptQueue
    children: ChildList  # the supervisor starts workers in its main thread
    refresh_at: int

    def close(self) -> None:
        self.handle.close()
        self.view.close()
        self.accept.close()
        self.children.close()


class UvicornPool:
    """Adapter for one uvicorn supervisor and its workers. Only the supervisor gets signals, except for `recycle`."""

    def __init__(self, name: str, config: PoolConfig, clock: Clock, acts: Acts, proc_root: Path = Path("/proc")) -> None:
        self.name = name
        self._config = config
        self._clock = clock
        self._acts = acts
        self._proc_root = proc_root
        self._master = MainProcess(
            name, config, self._find, self._forget, title="uvicorn's supervisor", remedy="see its log for why"
        )
        self._workers: dict[int, _UvicornWorker] = {}
        self._looked = False  # since the last read
        self._changed_at = 0  # when the set of workers last changed, or a signal was sent
        self._rested = 0  # looks since then at which the supervisor was in its main loop
        self._rested_at = 0  # the last of them
        self._elders: frozenset[ProcId] = frozenset()  # the workers when nothing was under way; none before that was seen
        self._believed = 0  # the size that the supervisor wants, as far as we know
        self._target: int | None = None  # the size that we want; None: whatever is there
        self._step: _UvicornStep | None = None
        self._retries = 0
        self._hands_off = HandsOff(name)
        self._tally = PoolTally(name)
        self._in_flight = InFlight(name, clock)
        self._closed = False

    # --- the port -------------------------------------------------------------------------------------------------------------

    def probe(self) -> None:
        """Look at supervisor, workers and accept queue; send the next signal if it is due."""
        if self._closed:
            return
        now = self._clock.monotonic()
        master = self._master.look(now)
        if master is not None:
            self._look(master, now)
            self._steer(master, now)

    def read(self) -> PoolSample:
        """The workers, and means over the probes since the last read. A worker may hold any number of requests, so its busy is
        unknown, and those in flight are counted. `workers` includes draining workers until they have ended."""
        if not self._looked:
            self.probe()
        self._looked = False
        return self._tally.sample(
            (WorkerSample(worker.id, None, worker.ready) for worker in self._workers.values()),
            requested=self._requested(),
            master=self._master.id,
            trouble=self._trouble(),
            flights=self._in_flight.read(),
        )

    def resize(self, size: int) -> tuple[Status, str]:
        """Ask for `size` workers; the next probes send the signals. uvicorn itself cannot go below one worker."""
        if size < 1:
            return Status.REFUSED, f"uvicorn keeps at least one worker, so {size} is not possible"
        trouble = self._trouble()
        if trouble:
            return self._hands_off.answer(trouble)
        before = self._requested()
        if size == before:
            return Status.UNCHANGED, f"pool {self.name} has been asked for {size} already"
        self._target, self._retries = size, 0
        return Status.APPLIED, f"asked for {size} workers, {before} before"

    def recycle(self, worker: ProcId) -> tuple[Status, str]:
        """Let this worker finish its requests and end (SIGTERM); the supervisor starts a replacement."""
        known = self._workers.get(worker.pid)
        if known is None or known.id != worker:
            return Status.VANISHED, f"pid {worker.pid} is no worker of pool {self.name}"
        return self._acts.send(worker, signal.SIGTERM)

    def close(self) -> None:
        """Release the pool; it stays as it is."""
        self._master.let_go("closed")
        self._in_flight.close()
        self._closed = True

    # --- the supervisor -------------------------------------------------------------------------------------------------------

    def _find(self, present: ProcId | None) -> _Supervisor | str | None:
        found = find(self._proc_root, self._config, present, self._acts)
        if found is None or isinstance(found, str):
            return found
        pid, now = found.id.pid, self._clock.monotonic()
        try:
            view = CallView(self._proc_root, pid)
        except ProcessLookupError:
            found.close()
            return f"uvicorn's supervisor, pid {pid}, has just ended: see its log for why, and start it again"
        self._changed_at = self._rested_at = now
        accept, children = AcceptQueue(self._proc_root, pid), ChildList(self._proc_root, pid)
        return _Supervisor(found, view, accept, children, refresh_at=now + _REFRESH_NS)

    def _forget(self) -> None:
        """Reset all that is known or believed about the workers."""
        self._workers.clear()
        self._elders = frozenset()
        self._believed, self._target, self._step, self._retries, self._rested = 0, None, None, 0, 0
        self._hands_off.end()
        self._tally.forget()
        self._in_flight.forget()

    # --- what is there --------------------------------------------------------------------------------------------------------

    def _look(self, master: _Supervisor, now: int) -> None:
        self._looked = True
        present = master.children.pids(now)
        for pid in self._workers.keys() - set(present):
            self._change(now)
            del self._workers[pid]
        for pid in present:
            if pid not in self._workers:
                self._admit(master, pid, now)
        for worker in self._workers.values():
            if not worker.ready:
                serving = serves(self._proc_root, worker.id.pid)
                worker.ready = serving is not False
                if serving and worker.newborn:
                    self._tally.start(age_seconds(self._proc_root, worker.id))
                worker.newborn = worker.newborn or not worker.ready
        if now >= master.refresh_at or (not master.accept.descriptors and any(worker.ready for worker in self._workers.values())):
            master.refresh_at = now + _REFRESH_NS
            master.accept.refresh()
        waiting = master.accept.waiting()
        if waiting is not None:
            self._tally.queue(waiting)
        self._in_flight.look(now, master.accept.at)
        if rests(master.view) is not False:
            self._rested, self._rested_at = self._rested + 1, now

    def _admit(self, master: _Supervisor, pid: int, now: int) -> None:
        stat = read_stat(self._proc_root, pid)
        if stat is None or stat.state in "ZX" or stat.ppid != master.handle.id.pid or not is_worker(self._proc_root, pid):
            return
        self._workers[pid] = _UvicornWorker(ProcId(pid, stat.start_ticks), newborn=bool(self._elders))
        self._change(now)

    def _change(self, now: int) -> None:
        self._changed_at, self._rested = now, 0

    # --- sizing ---------------------------------------------------------------------------------------------------------------

    def _steer(self, master: _Supervisor, now: int) -> None:
        """Send at most one signal, and only when the effect of the last one is known."""
        seen = len(self._workers)
        calm = seen > 0 and now - self._changed_at >= CALM_NS and self._rested >= CALM_LOOKS
        if not self._elders and not calm:
            self._believed = seen
            return
        if self._hands_off.text:
            self._believed = seen
            if self._hands_off.lasts(now, seen, self._changed_at):
                return
        if self._step is not None and not self._step_is_over(self._step, seen, now):
            return
        if calm:
            self._settle(seen, now)
        if self._hands_off.text or self._target is None or self._target == self._believed or seen != self._believed:
            return
        number, change = (signal.SIGTTIN, 1) if self._target > self._believed else (signal.SIGTTOU, -1)
        status, text = self._acts.send(master.handle.id, number)
        if status is not Status.APPLIED:
            self._hold(text, Status.REFUSED, now)
            return
        self._step = _UvicornStep(number, now, seen)
        self._believed += change
        self._change(now)

    def _step_is_over(self, step: _UvicornStep, seen: int, now: int) -> bool:
        """Whether the next signal may be sent: the effect is seen, or the supervisor has come round without one."""
        if seen > step.workers if step.number is signal.SIGTTIN else seen < step.workers:
            self._step, self._retries = None, 0
        elif now - step.at >= LOST_NS and self._rested >= LOST_LOOKS:
            self._step, self._believed = None, seen
            self._retries += 1
            if self._retries > RETRIES:
                text = f"uvicorn's supervisor did not react to {step.number.name}, sent {self._retries} times: see its log"
                self._hold(text, Status.FAILED, now)
        return self._step is None

    def _settle(self, seen: int, now: int) -> None:
        """Nothing is under way: tell a deploy from a hand by what has become of the workers.

        The supervisor replaces them one by one on HUP, and keeps their number. A restart needs no care: it ends the supervisor.
        """
        there = frozenset(worker.id for worker in self._workers.values())
        if self._elders and seen != self._believed:
            text = f"resized by hand to {seen} workers ({self._believed} were asked for): {QUIET}"
            self._hold(text, Status.FOREIGN, now)
        elif self._elders and not self._elders & there:
            log.info("pool %s: deployed: %d workers replaced (HUP)", self.name, len(self._elders))
        self._elders = there

    def _hold(self, text: str, status: Status, now: int) -> None:
        self._hands_off.begin(text, status, now)
        self._step = self._target = None
        self._retries = 0
        self._believed = len(self._workers)

    def _requested(self) -> int:
        return self._believed if self._target is None else self._target

    def _trouble(self) -> str:
        if self._master.present is None:
            return self._master.absence
        if self._clock.monotonic() - self._rested_at >= BLOCKED_NS:
            return (
                f"uvicorn's supervisor, pid {self._master.present.handle.id.pid}, has waited for a worker for "
                f"{BLOCKED_NS // _SECOND} s and takes no signals: set --timeout-graceful-shutdown, or see its log"
            )
        return self._hands_off.text
