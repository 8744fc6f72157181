"""A running gunicorn as a pool: found by its master, watched through the kernel, resized by TTIN and TTOU.

Must not know policies or what the application does. gunicorn gets only these two signals, one at a time. The next one follows only
when the last one has shown its effect, because two pending signals of a kind arrive as one.
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
from ..sensing.busy import CallView, ChildList, Doing, foresee, serving
from ..sensing.deploys import Turn, Turnover
from ..sensing.hands_off import QUIET, ForeignSize, HandsOff
from ..sensing.in_flight import InFlight
from ..sensing.listening import AcceptQueue
from ..sensing.main_process import MainProcess
from ..sensing.signals import ProcessHandle, age_seconds, read_stat
from ..sensing.tally import PoolTally
from .master import find, has_beaten, heir_of, is_worker, last_beat, takes_signals

log = logging.getLogger(__name__)

_SECOND = 1_000_000_000
SETTLE_NS = 3 * _SECOND // 2
"""The number of workers must be constant for this long before it is taken as the size that the master wants: a starting master
spawns at most one worker every 0.1 s (gunicorn/arbiter.py, spawn_workers)."""
STEP_NS = 5 * _SECOND
"""A TTIN that has brought no worker after this time was lost. The master handles a signal within milliseconds. Chosen."""
PACE_NS = _SECOND
"""The next signal may follow after this time if the effect cannot be seen (a draining worker still serves its last request)."""
HAND_DOWN_NS = 3 * _SECOND
"""Fewer workers than the master should have, for this long: somebody else resized it. A crashed worker is replaced sooner (the
master wakes up on SIGCHLD, and every second)."""
DRAIN_NS = 60 * _SECOND
"""A shrink without visible effect after this time was lost; twice gunicorn's default graceful_timeout."""
RETRIES = 3
"""Signals without effect in a row before the pool is reported as not reacting. Chosen."""
LEAVING_NS = _SECOND
"""How often a master with too few workers is asked whether it leaves. Chosen: it costs a look at all its descriptors."""
_REFRESH_NS = 5 * _SECOND
"""How often the listening sockets are looked for again. Chosen: they change only on a reload."""


@dataclass(slots=True)
class _GunicornWorker:
    id: ProcId
    view: CallView
    newborn: bool  # not ready when first seen: its start time can be measured
    ready: bool = False
    probes: int = 0
    busy: int = 0
    known: int = 0
    idle_at: int = -1  # last time seen waiting for work, ns


@dataclass(slots=True)
class _SignalStep:
    """The one signal that is under way."""

    number: signal.Signals
    at: int
    workers: int  # seen when it was sent


@dataclass(slots=True)
class _GunicornMaster:
    handle: ProcessHandle
    accept: AcceptQueue
    children: ChildList  # the arbiter forks in its main thread, the only one that gets Python's signals
    refresh_at: int
    listened: bool = False  # it has had listening sockets: one without them ends

    def close(self) -> None:
        self.handle.close()
        self.accept.close()
        self.children.close()


class GunicornPool:
    """Adapter for one gunicorn master and its workers. Only the master gets signals, except for `recycle`."""

    def __init__(self, name: str, config: PoolConfig, clock: Clock, acts: Acts, proc_root: Path = Path("/proc")) -> None:
        self.name = name
        self._config = config
        self._clock = clock
        self._acts = acts
        self._proc_root = proc_root
        self._master = MainProcess(
            name, config, self._find, self._forget, title="gunicorn's master", remedy="see its error log for why"
        )
        self._workers: dict[int, _GunicornWorker] = {}
        self._changed_at = 0  # when the set of workers last changed
        self._settled = False
        self._believed = 0  # the size that the master wants, as far as we know
        self._target: int | None = None  # the size that we want; None: whatever is there
        self._step: _SignalStep | None = None
        self._shrunk_at: int | None = None  # last TTOU, while the workers that it should drain are still there
        self._retries = 0
        self._foreign = ForeignSize(0, HAND_DOWN_NS)
        self._turnover = Turnover()
        self._deploying = ""  # what a deploy does that keeps us from sizing; "" if there is none
        self._leaving_at = 0  # when the master is asked again whether it leaves
        self._hands_off = HandsOff(name)
        self._tally = PoolTally(name)
        self._loop = False  # workers with event loops or threads: busy cannot be determined, requests in flight can
        self._in_flight = InFlight(name, clock)
        self._closed = False

    # --- the port -------------------------------------------------------------------------------------------------------------

    def probe(self) -> None:
        """Look at master, workers and accept queue; send the next signal if it is due."""
        if self._closed:
            return
        now = self._clock.monotonic()
        master = self._master.look(now)
        if master is not None:
            self._look(master, now)
            self._steer(master, now)

    def read(self) -> PoolSample:
        """Shares and means over the probes since the last read. `workers` includes draining workers until they have ended."""
        if self._tally.is_empty() and all(worker.probes == 0 for worker in self._workers.values()):
            self.probe()
        sample = self._tally.sample(
            (
                WorkerSample(worker.id, None if self._loop or not worker.known else worker.busy / worker.known, worker.ready)
                for worker in self._workers.values()
            ),
            requested=self._requested(),
            master=self._master.id,
            trouble=self._trouble(),
            flights=self._in_flight.read() if self._loop else None,
        )
        for worker in self._workers.values():
            worker.probes = worker.busy = worker.known = 0
        return sample

    def resize(self, size: int) -> tuple[Status, str]:
        """Ask for `size` workers; the next probes send the signals. gunicorn itself cannot go below one worker."""
        if size < 1:
            return Status.REFUSED, f"gunicorn keeps at least one worker, so {size} is not possible"
        trouble = self._trouble()
        if trouble:
            return self._hands_off.answer(trouble)
        before = self._requested()
        if size == before:
            return Status.UNCHANGED, f"pool {self.name} has been asked for {size} already"
        self._target, self._retries = size, 0
        if self._master.present is not None:
            self._steer(self._master.present, self._clock.monotonic())
        return Status.APPLIED, f"asked for {size} workers, {before} before"

    def recycle(self, worker: ProcId) -> tuple[Status, str]:
        """Let this worker finish its request and end (SIGTERM); the master starts a replacement."""
        known = self._workers.get(worker.pid)
        if known is None or known.id != worker:
            return Status.VANISHED, f"pid {worker.pid} is no worker of pool {self.name}"
        return self._acts.send(worker, signal.SIGTERM)

    def close(self) -> None:
        """Release the pool; it stays as it is."""
        self._master.let_go("closed")
        self._in_flight.close()
        self._closed = True

    # --- the master -----------------------------------------------------------------------------------------------------------

    def _find(self, present: ProcId | None) -> _GunicornMaster | str | None:
        found = find(self._proc_root, self._config, present, self._acts)
        if found is None or isinstance(found, str):
            return found
        accept, children = AcceptQueue(self._proc_root, found.id.pid), ChildList(self._proc_root, found.id.pid)
        return _GunicornMaster(found, accept, children, refresh_at=self._clock.monotonic() + _REFRESH_NS)

    def _forget(self) -> None:
        """Reset all that is known or believed about the workers."""
        for worker in self._workers.values():
            worker.view.close()
        self._workers.clear()
        self._settled = self._loop = False
        self._believed, self._target, self._step, self._shrunk_at = 0, None, None, None
        self._foreign.reset()
        self._turnover.forget()
        self._deploying, self._leaving_at = "", 0
        self._hands_off.end()
        self._in_flight.forget()
        self._tally.forget()

    # --- what is there --------------------------------------------------------------------------------------------------------

    def _look(self, master: _GunicornMaster, now: int) -> None:
        if now >= master.refresh_at:
            master.refresh_at = now + _REFRESH_NS
            master.accept.refresh()
        present = master.children.pids(now)
        for pid in self._workers.keys() - set(present):
            self._drop(pid, now)
        for pid in present:
            if pid not in self._workers:
                self._admit(master, pid, now)
        foresee(worker.view for worker in self._workers.values())
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
                log.info("pool %s: workers with event loops or threads, their requests are counted by connections", self.name)
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
                    self._tally.start(age_seconds(self._proc_root, worker.id))
                worker.newborn = worker.newborn or not worker.ready
        waiting = master.accept.waiting()
        if waiting is not None:
            self._tally.queue(waiting)
        if self._loop:
            self._in_flight.look(now, master.accept.at)

    def _admit(self, master: _GunicornMaster, pid: int, now: int) -> None:
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
        worker = _GunicornWorker(ProcId(pid, stat.start_ticks), view, newborn=self._settled)
        if self._settled and len(self._workers) >= self._believed and not self._hands_off.text:
            self._turnover.born(worker.id, (other.id for other in self._workers.values()), now)
        self._workers[pid] = worker
        self._changed_at = now

    def _drop(self, pid: int, now: int) -> None:
        worker = self._workers.pop(pid)
        worker.view.close()
        self._turnover.gone(worker.id)
        self._changed_at = now

    # --- sizing ---------------------------------------------------------------------------------------------------------------

    def _steer(self, master: _GunicornMaster, now: int) -> None:
        """Send at most one signal, and only when the effect of the last one is known."""
        seen = len(self._workers)
        if not self._settled:
            self._believed = seen
            self._settled = (
                seen > 0
                and now - self._changed_at >= SETTLE_NS
                and takes_signals(self._proc_root, master.handle.id.pid) is not False
            )
            if not self._settled:
                self._leaves(master, seen == 0, now)
                return
        if self._hands_off.text:
            self._believed = seen
            if self._hands_off.lasts(now, seen, self._changed_at):
                return
        if self._turns_over(master, seen, now) or self._leaves(master, seen < self._believed, now):
            return
        if self._step is not None and not self._step_is_over(self._step, seen, now):
            return
        self._watch_for_hands(seen, now)
        if self._shrink_was_lost(seen, now):
            self._believed, self._shrunk_at = seen, None
            self._retry(signal.SIGTTOU, now)
        if self._hands_off.text or self._target is None or self._target == self._believed:
            return
        number, change = (signal.SIGTTIN, 1) if self._target > self._believed else (signal.SIGTTOU, -1)
        status, text = self._acts.send(master.handle.id, number)
        if status is not Status.APPLIED:
            self._hold(text, Status.REFUSED, now)
            return
        self._step = _SignalStep(number, now, seen)
        self._believed += change
        if number is signal.SIGTTOU:
            self._shrunk_at = now

    def _step_is_over(self, step: _SignalStep, seen: int, now: int) -> bool:
        """Whether the next signal may be sent: the effect is seen, or enough time has passed where it cannot be seen."""
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
        """Whether the workers in excess do not drain: all idle HAND_DOWN_NS after TTOU, or there for DRAIN_NS without a change."""
        excess = seen - self._believed
        if excess <= 0:
            self._shrunk_at = None
        if self._shrunk_at is None:
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

    def _turns_over(self, master: _GunicornMaster, seen: int, now: int) -> bool:
        """Whether workers came that nobody asked for, and it is not known yet what for.

        A reload (HUP) leaves as many workers as gunicorn is configured for. What we want stays, and is asked for again.
        """
        turnover = self._turnover
        if not turnover.open:
            return False
        pid, certain = master.handle.id.pid, turnover.certain(now)
        for worker in self._workers.values():
            turnover.at_work(worker.id, worker.idle_at)
            if certain and not self._loop and worker.id in turnover.old:  # never seen idle, but between two requests it may beat
                turnover.at_work(worker.id, last_beat(self._proc_root, worker.id.pid) or 0)
        if self._changed_at == now:  # workers come or go at this look, so the list of them may have gaps
            return True
        turn = turnover.turn(now, listens=certain and takes_signals(self._proc_root, pid) is True)
        if turn is Turn.OPEN:
            self._deploying = turnover.text() if certain else ""
            return True
        self._deploying = ""
        if turn is Turn.REPLACED:
            log.info("pool %s: deployed: %d workers replaced (HUP)", self.name, turnover.replaced)
            # Whether a signal that is under way came before the reload or after it shows where the size settles
            self._settled, self._changed_at = self._step is None, now
            self._accept(seen - len(turnover.old))
        elif seen != self._believed:
            self._found_resized(seen, now)
        return not self._settled

    def _leaves(self, master: _GunicornMaster, missing: bool, now: int) -> bool:
        """Whether workers are `missing` because the master ends (TERM, QUIT), or lets another take over (USR2, then WINCH)."""
        before, pid = self._deploying, master.handle.id.pid
        if not missing:
            self._deploying = ""
        elif now >= self._leaving_at:
            self._leaving_at = now + LEAVING_NS
            master.listened = master.listened or bool(master.accept.descriptors)
            master.accept.refresh()
            heir = heir_of(self._proc_root, pid)
            self._deploying = ""
            if heir is not None:
                self._deploying = f"deploying: gunicorn's master, pid {pid}, hands over to pid {heir} (USR2)"
            elif master.listened and not master.accept.descriptors:
                self._deploying = f"deploying: gunicorn's master, pid {pid}, ends, and no other has taken over yet"
            if self._deploying and not before:
                log.info("pool %s: %s", self.name, self._deploying)
            elif before and not self._deploying:
                self._settled, self._changed_at = False, now
        return bool(self._deploying)

    def _watch_for_hands(self, seen: int, now: int) -> None:
        """Report a shrink by hand: the master replaces a lost worker at once."""
        if self._foreign.seen(now, above=False, below=seen < self._believed):
            self._found_resized(seen, now)

    def _found_resized(self, seen: int, now: int) -> None:
        self._hold(f"resized by hand to {seen} workers ({self._believed} were asked for): {QUIET}", Status.FOREIGN, now)

    def _hold(self, text: str, status: Status, now: int) -> None:
        self._hands_off.begin(text, status, now)
        self._target = None
        self._accept(len(self._workers))

    def _accept(self, size: int) -> None:
        """Take this for the size that the master wants now."""
        self._believed = size
        self._step = self._shrunk_at = None
        self._foreign.reset()
        self._turnover.forget()
        self._retries = 0

    def _requested(self) -> int:
        return self._believed if self._target is None else self._target

    def _trouble(self) -> str:
        return self._master.absence if self._master.present is None else self._hands_off.text or self._deploying
