"""A running uWSGI as a pool: watched through its stats socket, resized by + and - on its master FIFO.

Must not know policies or what the application does. uWSGI must run with `cheaper-algo = manual`: its master then keeps the number
of workers that it was last asked for, and its stats show that number. Each request must show in the stats before the next one.
"""

from __future__ import annotations

import logging
import re
import signal
from dataclasses import dataclass
from pathlib import Path

from ....models.identity import ProcId
from ....models.records import PoolSample, WorkerSample
from ...config.sections import PoolConfig
from ...hands.faults import Status
from ...hands.kernel import Clock
from ..sensing.acts import Acts
from ..sensing.busy import CallView
from ..sensing.hands_off import QUIET, HandsOff
from ..sensing.listening import AcceptQueue
from ..sensing.main_process import MainProcess
from ..sensing.pidfile import named
from ..sensing.signals import ProcessHandle, age_seconds, identify, read_stat
from ..sensing.tally import PoolTally
from . import stats as facts
from .options import options, other_algorithm

log = logging.getLogger(__name__)

_SECOND = 1_000_000_000
STEP_NS = 5 * _SECOND
"""A command without effect in the stats after this time was lost. The master obeys once a second (core/master.c). A - waits there
until a worker is idle: it counts as lost only if a worker was idle all that time."""
STEP_ANSWERS = 20
"""This many answers must have arrived too: a master that does not answer does not obey either. Chosen."""
CANCEL_NS = 5 * _SECOND // 2
"""A cancelled - may have been obeyed just before. After two turns of the master that is certain."""
RETRIES = 3
"""Commands without effect in a row before the pool is reported as not reacting. Chosen."""
SILENT_NS = 5 * _SECOND
"""After this long without an answer, the processes themselves are checked and workers that have ended are dropped."""
OLDEST = (2, 0, 16)
"""From this version on, - takes an idle worker (uwsgi_calc_cheaper). Earlier versions took the oldest worker, even during a
request, and killed it if that took long."""
OLDEST_THREADED = (2, 0, 27)
"""From this version on, the threads of a leaving worker finish their requests. Earlier they were cancelled: 2.0.21 lost 6 of 497
requests in 8 shrinks, 2.0.30 none of 745 in 12."""
MOMENT_NS = _SECOND // 50
"""How long recycling waits for a moment at which the worker sleeps within a request. Chosen."""
_LOOK_NS = _SECOND // 4000
_REFRESH_NS = 5 * _SECOND
_OUTSIDE = frozenset({"running", "none", "epoll_wait", "epoll_pwait", "epoll_pwait2"})
"""Calls in which a worker runs or waits for a connection: all other calls are waits of the application."""


@dataclass(slots=True)
class _UwsgiWorker:
    id: ProcId
    place: facts.WorkerPlace  # as in the last answer
    newborn: bool  # appeared while we watched: its start can be measured
    ready: bool = False
    probes: int = 0
    busy: float = 0.0


@dataclass(slots=True)
class _FifoStep:
    """What was written to the FIFO and does not show in the stats yet."""

    commands: str
    before: int  # workers that the master wanted then
    expected: int
    since: int  # since then the master could have obeyed at any time, ns
    not_before: int = 0  # the step does not end before this time, ns
    answers: int = 0  # received since


@dataclass(slots=True)
class _UwsgiMaster:
    handle: ProcessHandle
    accept: AcceptQueue
    refresh_at: int
    room: int = 0  # `processes`; 0: no answer yet
    wanted: int = 0  # workers that the master wants, as of the last answer
    heard_at: int = 0
    version: str = ""
    cores: int = 0  # requests that a worker can serve at a time; 0: unknown
    unfit: str = ""  # why this one cannot be sized at all
    starts: tuple[int, ...] = ()  # how often a worker was started in each place, as of the last answer

    def close(self) -> None:
        self.handle.close()
        self.accept.close()


class UwsgiPool:
    """Adapter for one uWSGI master and its workers. Only `recycle` sends a signal, to a worker."""

    def __init__(self, name: str, config: PoolConfig, clock: Clock, acts: Acts, proc_root: Path = Path("/proc")) -> None:
        """Raises ValueError for an invalid stats address."""
        self.name = name
        self._config = config
        self._clock = clock
        self._acts = acts
        self._proc_root = proc_root
        self._stats = facts.StatsSocket(config.stats, acts)
        self._master = MainProcess(name, config, self._find, self._forget, title="uWSGI's master", remedy="see its log for why")
        self._silence = ""  # why there is no answer
        self._workers: dict[int, _UwsgiWorker] = {}
        self._believed = 0  # workers that the master should want, as far as we know
        self._target: int | None = None  # the size that we want; None: whatever is there
        self._step: _FifoStep | None = None
        self._retries = 0
        self._hands_off = HandsOff(name)
        self._tally = PoolTally(name)
        self._closed = False

    # --- the port -------------------------------------------------------------------------------------------------------------

    def probe(self) -> None:
        """Take the answer to the last probe's question, count the accept queue, send what is due, and ask again."""
        if self._closed:
            return
        now = self._clock.monotonic()
        before, master = self._master.present, self._master.look(now)
        if master is None:
            return
        if master is not before:
            self._check_fitness(master)
        try:
            answer = self._stats.take(now)
            if answer is not None:
                self._hear(master, answer, now)
            if not self._stats.asked():  # otherwise our own connection may be among those that wait
                self._count(master, now)
            self._stats.ask(now)
        except facts.StatsError as error:
            self._fall_silent(str(error))
        if now - master.heard_at >= SILENT_NS:
            for pid in [pid for pid, worker in self._workers.items() if identify(self._proc_root, pid) != worker.id]:
                del self._workers[pid]

    def read(self) -> PoolSample:
        """Shares and means over the probes since the last read. `workers` includes draining workers until they have ended."""
        if self._tally.is_empty() and all(worker.probes == 0 for worker in self._workers.values()):
            self.probe()
        sample = self._tally.sample(
            (
                WorkerSample(worker.id, worker.busy / worker.probes if worker.probes else None, worker.ready)
                for worker in self._workers.values()
            ),
            requested=self._requested(),
            master=self._master.id,
            trouble=self._trouble(),
        )
        for worker in self._workers.values():
            worker.probes, worker.busy = 0, 0.0
        return sample

    def resize(self, size: int) -> tuple[Status, str]:
        """Ask for `size` workers; the next probes send the commands. At least 1, at most uWSGI's `processes`."""
        if size < 1:
            return Status.REFUSED, f"nobody would serve with {size} workers: at least one is kept"
        trouble = self._trouble()
        if trouble:
            return self._hands_off.answer(trouble)
        assert self._master.present is not None
        room = self._master.present.room
        if size > room:
            return Status.REFUSED, f"uWSGI has room for {room} workers, not {size}: raise `processes` in its configuration"
        before = self._requested()
        if size == before:
            return Status.UNCHANGED, f"pool {self.name} has been asked for {size} already"
        self._target, self._retries = size, 0
        return Status.APPLIED, f"asked for {size} workers, {before} before"

    def recycle(self, worker: ProcId) -> tuple[Status, str]:
        """Let this worker finish its request and end (SIGHUP, as in uWSGI's own reload); the master starts a replacement."""
        known = self._workers.get(worker.pid)
        if known is None or known.id != worker:
            return Status.VANISHED, f"pid {worker.pid} is no worker of pool {self.name}"
        if not known.place.wanted:
            return Status.UNCHANGED, f"worker {known.place.id} (pid {worker.pid}) is leaving already"
        master = self._master.present
        if len(known.place.cores) != 1 and master is not None and master.unfit:
            return Status.REFUSED, master.unfit
        if self._loops(known):
            return Status.REFUSED, "a worker with an event loop (async, gevent) would drop its requests on SIGHUP: reload uWSGI"
        self._await_request(worker.pid)
        return self._acts.send(worker, signal.SIGHUP)

    def close(self) -> None:
        """Release the pool; it stays as it is."""
        self._master.let_go("closed")
        self._stats.close()
        self._closed = True

    # --- the master -----------------------------------------------------------------------------------------------------------

    def _find(self, present: ProcId | None) -> _UwsgiMaster | str | None:
        # No check that it is a uWSGI: it is used only if it answers on the stats socket with its pid, and reads the FIFO
        found = named(self._proc_root, self._config, present)
        if found is None or isinstance(found, str):
            return found
        handle, now = found[0], self._clock.monotonic()
        return _UwsgiMaster(handle, AcceptQueue(self._proc_root, handle.id.pid), refresh_at=now + _REFRESH_NS, heard_at=now)

    def _forget(self) -> None:
        """Reset all that is known or believed about the master and its workers."""
        self._workers.clear()
        self._believed, self._target, self._step, self._retries = 0, None, None, 0
        self._hands_off.end()
        self._tally.forget()
        self._stats.again()
        self._silence = f"uWSGI's stats socket {self._stats.where} has not answered yet"

    def _check_fitness(self, master: _UwsgiMaster) -> None:
        """Check whether uWSGI sizes itself, as far as its arguments and .ini files show, or loses requests when it shrinks."""
        algorithm = other_algorithm(options(self._proc_root, master.handle.id.pid))
        found = re.match(r"(\d+)\.(\d+)\.(\d+)", master.version)
        version = (9,) if found is None else tuple(map(int, found.groups()))
        unfit = ""
        if algorithm:
            unfit = f"uWSGI sizes itself (cheaper-algo = {algorithm}); {self._remedy()}"
        elif version < OLDEST:
            unfit = f"uWSGI {master.version} takes away workers that are at a request: nicety sizes 2.0.16 and later"
        elif version < OLDEST_THREADED and master.cores != 1:
            unfit = f"uWSGI {master.version} loses requests of workers with threads when they go: use threads = 1, or 2.0.27"
        elif any(worker.ready and self._loops(worker) for worker in self._workers.values()):
            unfit = "workers with an event loop (async, gevent) may lose requests when they go: nicety does not size them"
        if unfit and not master.unfit:
            log.warning("pool %s: %s", self.name, unfit)
        master.unfit = unfit

    def _loops(self, worker: _UwsgiWorker) -> bool:
        """Whether a worker serves more requests at a time than it has threads."""
        found = read_stat(self._proc_root, worker.id.pid)
        return found is not None and found.threads < len(worker.place.cores)

    def _await_request(self, pid: int) -> None:
        """Return when the worker sleeps within a request, or after MOMENT_NS: it may have no request, or compute all the time.

        SIGHUP ends a worker at once if it has accepted a connection but not marked it yet (gracefully_kill in core/uwsgi.c).
        """
        until = self._clock.monotonic() + MOMENT_NS
        try:
            view = CallView(self._proc_root, pid)
        except ProcessLookupError:
            return
        try:
            while (call := view.call()) is not None and call.name in _OUTSIDE and self._clock.monotonic() < until:
                self._clock.sleep_until(self._clock.monotonic() + _LOOK_NS)
        except ProcessLookupError:
            return
        finally:
            view.close()

    # --- what is there --------------------------------------------------------------------------------------------------------

    def _hear(self, master: _UwsgiMaster, answer: facts.Stats, now: int) -> None:
        """Take in an answer and act on it."""
        pid = master.handle.id.pid
        if answer.pid != pid:
            where = f"uWSGI's stats socket {self._stats.where}"
            self._fall_silent(f"{where} answers for pid {answer.pid}, not for {pid}: correct stats, pidfile or pid")
            return
        first = master.room == 0
        if self._silence and not first:
            log.info("pool %s: uWSGI's stats socket %s answers again", self.name, self._stats.where)
        self._silence = ""
        master.heard_at, master.room, master.version = now, len(answer.workers), answer.version
        master.cores = max(len(place.cores) for place in answer.workers)
        master.wanted = sum(place.wanted for place in answer.workers)
        before, master.starts = master.starts, tuple(place.respawn_count for place in answer.workers)
        if any(count < earlier for count, earlier in zip(master.starts, before, strict=False)):
            self._reloaded(master.wanted)
        there = {place.pid: place for place in answer.workers if place.pid}
        for gone in self._workers.keys() - there.keys():
            del self._workers[gone]
        for place in there.values():
            worker = self._known(master, place, newborn=not (first and place.accepting))
            if worker is None:
                continue
            worker.probes += 1
            worker.busy += place.busy
            if not worker.ready and place.accepting:
                worker.ready = True
                if worker.newborn:
                    self._tally.start(age_seconds(self._proc_root, worker.id))
        if first:
            self._believed = master.wanted
            self._check_fitness(master)
        self._steer(master, answer, now)

    def _known(self, master: _UwsgiMaster, place: facts.WorkerPlace, newborn: bool) -> _UwsgiWorker | None:
        """The worker in a place, admitted if new; None if it has ended, or is no child of the master that we can see."""
        worker = self._workers.get(place.pid)
        if worker is not None and worker.place.respawn_count == place.respawn_count and worker.place.id == place.id:
            worker.place = place
            return worker
        self._workers.pop(place.pid, None)
        found = read_stat(self._proc_root, place.pid)
        if found is None or found.state in "ZX" or found.ppid != master.handle.id.pid:
            return None
        worker = _UwsgiWorker(ProcId(place.pid, found.start_ticks), place, newborn)
        self._workers[place.pid] = worker
        return worker

    def _count(self, master: _UwsgiMaster, now: int) -> None:
        """Count the accept queue from the kernel: uWSGI's own figure is a second old, and always 0 for unix sockets."""
        if now >= master.refresh_at:
            master.refresh_at = now + _REFRESH_NS
            master.accept.refresh()
            self._check_fitness(master)  # a reload keeps the pid, and may bring another configuration
        waiting = master.accept.waiting()
        if waiting is not None:
            self._tally.queue(waiting)

    def _fall_silent(self, text: str) -> None:
        if text != self._silence:
            log.warning("pool %s: %s", self.name, text)
        self._silence = text

    # --- sizing ---------------------------------------------------------------------------------------------------------------

    def _steer(self, master: _UwsgiMaster, answer: facts.Stats, now: int) -> None:
        """Compare what the master wants with what it was asked for; send the next command once the last one shows its effect."""
        wanted = master.wanted
        if any(place.status == "pause" for place in answer.workers):
            self._hold("paused by hand (p on the master FIFO, or SIGTSTP): p again resumes it", Status.FOREIGN, now)
            return
        if self._hands_off.text:
            changed_at = 0 if wanted == self._believed else now
            self._believed = wanted
            if self._hands_off.lasts(now, wanted, changed_at):
                return
        if self._step is not None:
            self._follow(self._step, wanted, _somebody_idle(answer), now)
        elif wanted != self._believed:
            self._resized_by_hand(wanted, now)
        if self._target is not None and not master.unfit and not self._hands_off.text:
            self._command(master, answer, self._target, now)

    def _follow(self, step: _FifoStep, wanted: int, idle: bool, now: int) -> None:
        """Check what became of the commands under way."""
        step.answers += 1
        if step.commands == "-" and not idle:
            step.since, step.answers = now, 0
        if wanted == step.expected and now >= step.not_before:
            self._step, self._believed, self._retries = None, wanted, 0
        elif not min(step.before, step.expected) <= wanted <= max(step.before, step.expected):
            self._resized_by_hand(wanted, now)
        elif now - step.since >= STEP_NS and step.answers >= STEP_ANSWERS:
            self._step, self._believed = None, wanted
            self._retry(f"uWSGI's master does not obey {step.commands!r} on its FIFO; {self._remedy()}", now)

    def _command(self, master: _UwsgiMaster, answer: facts.Stats, target: int, now: int) -> None:
        """Send the commands that bring the pool closer to its target, if possible now.

        Missing workers are requested all at once: the master starts one for each + that it finds at its next turn. Excess workers
        go one at a time, and only while a worker is idle, so that few commands are pending at the master when the target changes.
        A + cancels a pending -: the master adds up what it finds.
        """
        wanted, step = master.wanted, self._step
        waiting = step is not None and step.commands == "-"
        if step is not None and not waiting:
            return
        coming = wanted if step is None else step.expected
        if target > coming:
            free = sum(place.pid == 0 and not place.wanted for place in answer.workers)  # a draining worker keeps its place
            change = min(target, wanted + free) - coming
            commands = "+" * change
        elif target < coming and not waiting and _somebody_idle(answer):
            change, commands = -1, "-"
        else:
            return
        if change == 0:
            return
        problem = self._acts.fifo(commands)
        if problem:
            self._retry(problem, now)
            return
        self._step = _FifoStep(commands, coming, coming + change, since=now, not_before=now + CANCEL_NS if waiting else 0)

    def _reloaded(self, wanted: int) -> None:
        """uWSGI has executed itself anew, and wants as many workers as after its start. Nobody has asked it for a size, so ours is
        asked for again."""
        self._believed, self._step, self._retries = wanted, None, 0
        again = "" if self._target is None else f"; {self._target} workers are asked for again"
        log.info("pool %s: uWSGI was reloaded%s", self.name, again)

    def _retry(self, problem: str, now: int) -> None:
        self._retries += 1
        if self._retries > RETRIES:
            self._hold(problem, Status.FAILED, now)

    def _resized_by_hand(self, wanted: int, now: int) -> None:
        asked = self._believed if self._step is None else self._step.expected
        text = (
            f"resized to {wanted} workers by somebody else ({asked} were asked for): {QUIET}; "
            "a cheaper-algo other than manual does that too"
        )
        self._hold(text, Status.FOREIGN, now)

    def _hold(self, text: str, status: Status, now: int) -> None:
        self._hands_off.begin(text, status, now)
        self._step = self._target = None
        self._retries = 0
        if self._master.present is not None:
            self._believed = self._master.present.wanted

    def _remedy(self) -> str:
        return (
            "put into its configuration and restart it: master = true, processes = N, cheaper = 1, cheaper-algo = manual, "
            f"master-fifo = {self._config.fifo}"
        )

    def _requested(self) -> int:
        return self._believed if self._target is None else self._target

    def _trouble(self) -> str:
        master = self._master.present
        if master is None:
            return self._master.absence
        return master.unfit or self._silence or self._hands_off.text


def _somebody_idle(answer: facts.Stats) -> bool:
    """Whether a - could take a worker now: one without any request."""
    return any(place.wanted and place.pid and not place.busy for place in answer.workers)
