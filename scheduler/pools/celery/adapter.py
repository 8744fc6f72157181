"""A running Celery worker (prefork pool) as a pool: found by its main process, watched through the kernel, sized by remote control.

Must not know policies, Celery's modules or what the tasks do. An agent (`agent.py`) queries Celery and its broker, one request at
a time; the answer is taken in a later probe.
"""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....models.identity import ProcId
from ....models.records import PoolSample, WorkerSample
from ...config.sections import PoolConfig
from ...hands.faults import Status
from ...hands.kernel import Clock
from ...hands.wire import RefusedError
from ..sensing.acts import Acts
from ..sensing.busy import ChildList, Doing, foresee
from ..sensing.hands_off import QUIET, ForeignSize, HandsOff
from ..sensing.main_process import MainProcess
from ..sensing.pidfile import named
from ..sensing.signals import ProcessHandle, identify, read_stat
from ..sensing.tally import PoolTally
from .link import AgentLink, Answer
from .main import PoolProcess, bytes_read

log = logging.getLogger(__name__)

_SECOND = 1_000_000_000
STATS_NS = 5 * _SECOND
STATS_PACE_NS = _SECOND // 5
"""The node is asked for its processes every 5 s, and when they have changed, but at most once per STATS_PACE_NS. Chosen."""
LOAD_NS = _SECOND
"""How often waiting work is counted. Chosen."""
STALE = 5
"""A count older than this many intervals is dropped. Chosen."""
ACTIVE_NS = _SECOND
"""How often the node is asked which processes work on a task, and since when, while a resize depends on it."""
SETTLE_NS = 3 * _SECOND // 2
"""After this time the number of processes is taken as the size that Celery wants: a lost process is replaced sooner."""
GROWN_NS = 15 * _SECOND
"""A change without effect after this time was lost: Celery starts missing processes, and notices ended ones, every 5 s
(asynpool.py, `timers`)."""
STEP = 16
"""Processes held and ended at once, which takes about 20 ms plus 2 ms for each. Chosen."""
LONG_SECONDS = 10.0
"""A process that has worked on one task for this long may be skipped in the search for one to end. Another task would be lost only
if that process ended its task and began another within the same millisecond as the shrink."""
HAND_UP_NS = _SECOND
HAND_DOWN_NS = 8 * _SECOND
"""More, or fewer, processes than were asked for, for this long: somebody else resized the pool. Celery replaces a lost process at
once, or at its check every 5 s."""
LATE_NS = 60 * _SECOND
"""For this long, processes that did not appear may still come: on a busy machine a node answers late, and starts them late."""
RETRIES = 3
"""Grow requests without effect in a row before the node is reported as not reacting. Chosen."""
READY_NS = 10 * _SECOND
"""A process that was seen neither waiting for a task nor working on one counts as up after this time. Chosen."""
MAX_BACK_OFF_NS = 30 * _SECOND
"""Longest wait between two requests to a node that does not answer. Chosen."""


@dataclass(slots=True)
class _CeleryProcess:
    """A child of the main process; a worker of the pool once the node has listed it."""

    id: ProcId
    view: PoolProcess
    seen_at: int
    asked_at: int | None  # when the grow request that brought it was sent; None: it came by itself
    member: bool = False
    doing: Doing = Doing.UNKNOWN
    ready: bool = False
    idle_at: int = -1  # last time seen waiting for a task, ns
    probes: int = 0
    busy: int = 0
    known: int = 0


@dataclass(slots=True)
class _Main:
    handle: ProcessHandle
    link: AgentLink
    children: ChildList  # of its main thread: its event loop starts the pool's processes

    def close(self) -> None:
        self.link.close()
        self.handle.close()
        self.children.close()


class CeleryPool:
    """Adapter for one Celery node and its prefork pool. Only idle processes of the pool get a signal, from the agent."""

    def __init__(
        self,
        name: str,
        config: PoolConfig,
        clock: Clock,
        acts: Acts,
        proc_root: Path = Path("/proc"),
    ) -> None:
        self.name = name
        self._config = config
        self._clock = clock
        self._acts = acts
        self._proc_root = proc_root
        self._node = (config.node or "celery@%h").replace("%h", socket.gethostname())
        self._main = MainProcess(
            name, config, self._find, self._forget, title="Celery's main process", remedy="see the worker's log for why"
        )
        self._closed = False
        self._processes: dict[int, _CeleryProcess] = {}
        self._held: list[ProcId] = []  # what the agent may be holding now
        self._foreign = ForeignSize(HAND_UP_NS, HAND_DOWN_NS)
        self._hands_off = HandsOff(name, "processes")
        self._tally = PoolTally(name)
        self._forget()

    def _forget(self) -> None:
        """Reset all that is known or believed about the pool. The agent, if there was one, has ended."""
        self._let_go()
        for process in self._processes.values():
            process.view.close()
        self._processes.clear()
        self._children: frozenset[int] = frozenset()
        self._named: frozenset[int] | None = None  # the children when the node was last asked
        self._order: list[int] = []  # pids as the node listed them: in this order Celery looks for one to end
        self._level: int | None = None  # processes that the node reported; None: no report yet
        self._level_at = 0
        self._settled_at = 0  # until then the level is taken as the size that Celery wants
        self._believed = 0  # the size that Celery wants, as far as we know
        self._target: int | None = None  # the size that we want; None: whatever is there
        self._growth: int | None = None  # when the processes that have not appeared yet were asked for
        self._grows = 0  # how many those are
        self._late, self._late_at = 0, 0  # processes asked for in vain, and when the last of them were given up
        self._shrunk_at: int | None = None  # when processes were ended that Celery has not missed yet
        self._recycling: set[ProcId] = set()
        self._ages: tuple[int, dict[int, float]] = (0, {})  # (when, seconds on the task by pid)
        self._stats_at = self._stats_asked_at = self._load_at = self._active_at = 0
        self._failures = 0  # of the node to answer, in a row
        self._retries = 0
        self._foreign.reset()
        self._hands_off.end()
        self._tally.forget()
        self._objection = f"the first answer of node {self._node} is awaited"
        self._count: tuple[int, int] | None = None  # (when, work that waits)
        self._queue_problem = ""

    # --- the port -------------------------------------------------------------------------------------------------------------

    def probe(self) -> None:
        """Look at the main process and the pool, take the agent's answer, send the next request."""
        if self._closed:
            return
        now = self._clock.monotonic()
        main = self._main.look(now)
        if main is None:
            return
        self._look(main, now)
        answer = main.link.step(now)
        if answer is not None:
            self._take(answer, main, now)
        self._steer(main, now)
        if self._count is not None and now - self._count[0] <= STALE * LOAD_NS:
            self._tally.queue(self._count[1])

    def read(self) -> PoolSample:
        """Shares and means over the probes since the last read."""
        if self._tally.is_empty() and all(process.probes == 0 for process in self._processes.values()):
            self.probe()
        sample = self._tally.sample(
            (
                WorkerSample(process.id, process.busy / process.known if process.known else None, process.ready)
                for process in self._processes.values()
                if process.member
            ),
            requested=self._requested(),
            master=self._main.id,
            trouble=self._trouble(),
        )
        for process in self._processes.values():
            process.probes = process.busy = process.known = 0
        return sample

    def resize(self, size: int) -> tuple[Status, str]:
        """Ask for `size` processes; the next probes send the requests. Shrinking waits for idle processes."""
        if size < 1:
            return Status.REFUSED, f"a Celery node needs at least one process, not {size}"
        trouble = self._trouble()
        if trouble:
            return self._hands_off.answer(trouble)
        before = self._requested()
        if size == before:
            return Status.UNCHANGED, f"pool {self.name} has been asked for {size} already"
        self._target, self._retries = size, 0
        return Status.APPLIED, f"asked for {size} processes, {before} before"

    def recycle(self, worker: ProcId) -> tuple[Status, str]:
        """End this process once it is idle; Celery starts a replacement."""
        known = self._processes.get(worker.pid)
        if known is None or known.id != worker or not known.member:
            return Status.VANISHED, f"pid {worker.pid} is no process of pool {self.name}"
        trouble = self._trouble()
        if trouble:
            return Status.REFUSED, trouble
        self._recycling.add(worker)
        return Status.APPLIED, f"pid {worker.pid} ends as soon as it waits for a task, and Celery starts another in its place"

    def close(self) -> None:
        """Release the node; it stays as it is."""
        self._main.let_go("closed")
        self._closed = True

    # --- the main process -----------------------------------------------------------------------------------------------------

    def _find(self, present: ProcId | None) -> _Main | str | None:
        found = named(self._proc_root, self._config, present)
        return self._open(found[0]) if isinstance(found, tuple) else found

    def _open(self, handle: ProcessHandle) -> _Main | str:
        """This process with an agent beside it, or a sentence on why there can be none."""
        pid = handle.id.pid
        link = AgentLink(self.name, self._acts.agent)
        try:
            link.start(self._clock.monotonic())
        except (OSError, RefusedError) as error:
            handle.close()
            return f"the Celery agent cannot be started: {error}" if isinstance(error, OSError) else str(error)
        log.info("pool %s: pid %d is spoken to as node %s", self.name, pid, self._node)
        return _Main(handle, link, ChildList(self._proc_root, pid))

    def _let_go(self) -> None:
        """The agent has ended and may have held processes: let them continue."""
        for held in self._held:
            self._acts.send(held, signal.SIGCONT)
        self._held = []

    # --- what is there --------------------------------------------------------------------------------------------------------

    def _look(self, main: _Main, now: int) -> None:
        self._children = frozenset(main.children.pids(now))
        for pid in self._processes.keys() - self._children:
            self._drop(pid)
        for pid in sorted(self._children - self._processes.keys()):
            self._admit(main, pid, now)
        foresee(process.view.view for process in self._processes.values())
        for process in list(self._processes.values()):
            doing = process.view.look()
            if doing is Doing.GONE:
                self._drop(process.id.pid)
                continue
            process.doing = doing
            process.probes += 1
            if doing in (Doing.IDLE, Doing.BUSY):
                process.known += 1
                process.busy += doing is Doing.BUSY
            if doing is Doing.IDLE:
                process.idle_at = now
                if not process.ready and process.asked_at is not None:
                    self._tally.start((now - process.asked_at) / _SECOND)
            process.ready = process.ready or doing is Doing.IDLE or now - process.seen_at >= READY_NS

    def _admit(self, main: _Main, pid: int, now: int) -> None:
        stat = read_stat(self._proc_root, pid)
        if stat is None or stat.state in "ZX" or stat.ppid != main.handle.id.pid:
            return
        try:
            view = PoolProcess(self._proc_root, pid, main.handle.id.pid)
        except ProcessLookupError:
            return
        self._processes[pid] = _CeleryProcess(ProcId(pid, stat.start_ticks), view, seen_at=now, asked_at=self._growth)

    def _drop(self, pid: int) -> None:
        self._processes.pop(pid).view.close()

    # --- answers --------------------------------------------------------------------------------------------------------------

    def _take(self, answer: Answer, main: _Main, now: int) -> None:
        held = self._held
        if answer.lost:
            self._let_go()
        self._held = []
        if answer.error:
            self._refused(answer, now)
            return
        self._failures = 0
        if answer.do == "stats":
            self._take_stats(answer.result, main, now)
        elif answer.do == "load":
            self._take_load(answer.result, now)
        elif answer.do == "active":
            self._ages = (now, {int(pid): age for pid, age in answer.result.items()})
            for pid in self._ages[1].keys() & self._processes.keys():
                self._processes[pid].ready = True
        else:
            self._stats_at = now
            if answer.do == "shrink":
                self._believed -= answer.result["ended"]
                self._shrunk_at = now if answer.result["ended"] else None
            elif answer.do == "recycle":
                self._recycling -= set(held[: answer.result["ended"]])
            if answer.result.get("obstacle") == "unseen":
                self._hold_for_what_is_unseen(now)

    def _refused(self, answer: Answer, now: int) -> None:
        """Node or broker refused or did not answer. Its effect shows later, so the level is determined again."""
        self._failures += 1
        self._stats_at = self._load_at = now + min(MAX_BACK_OFF_NS, _SECOND << min(self._failures - 1, 5))
        self._count = None
        if answer.do == "grow":
            self._give_up(self._grows, now)
        if answer.do in {"grow", "shrink", "recycle"}:
            self._target = self._growth = self._shrunk_at = None
            self._settled_at = now + GROWN_NS
        if answer.lost:
            return  # the link reports it
        text = f"node {self._node} cannot be asked: {answer.error}"
        if text != self._objection:
            log.warning("pool %s: %s", self.name, text)
        self._objection = text

    def _take_stats(self, stats: Mapping[str, Any], main: _Main, now: int) -> None:
        objection = _objection(stats, main.handle.id.pid, self._node)
        processes: list[int] = stats["processes"]
        if objection != self._objection:
            if objection:
                log.warning("pool %s: %s", self.name, objection)
            else:
                log.info("pool %s: node %s answers, with %d processes", self.name, self._node, len(processes))
        self._objection = objection
        self._order = [] if objection else processes
        named = set(self._order)
        for pid, process in self._processes.items():
            process.member = pid in named
        if objection:
            self._level = self._target = self._growth = self._shrunk_at = None
            self._recycling.clear()
            return
        if self._level is None:
            self._settled_at = max(self._settled_at, now + SETTLE_NS)
        if len(processes) != self._level:
            self._level, self._level_at = len(processes), now

    def _take_load(self, load: Mapping[str, Any], now: int) -> None:
        problem = load["problem"]
        self._count = None if problem else (now, load["waiting"] + load["reserved"])
        if problem and problem != self._queue_problem:
            log.warning("pool %s: its queue cannot be counted: %s", self.name, problem)
        self._queue_problem = problem

    # --- sizing ---------------------------------------------------------------------------------------------------------------

    def _steer(self, main: _Main, now: int) -> None:
        """Evaluate what is seen, then send the agent the most urgent request."""
        if self._level is not None and not self._objection:
            self._judge(self._level, now)
        if not main.link.ready():
            return
        if now >= self._stats_at or (self._children != self._named and now >= self._stats_asked_at + STATS_PACE_NS):
            self._named, self._stats_asked_at, self._stats_at = self._children, now, now + STATS_NS
            main.link.ask(now, "stats")
        elif not self._objection and (now >= self._load_at + LOAD_NS or not self._act(main, now)) and now >= self._load_at:
            self._load_at = now + LOAD_NS  # an overdue count comes before the next step of a resize
            main.link.ask(now, "load")

    def _judge(self, level: int, now: int) -> None:
        """Check whether the pool follows our requests, and whether somebody else resizes it."""
        if now < self._settled_at:
            self._believed = level
            return
        if self._hands_off.text:
            self._believed = level
            if self._hands_off.lasts(now, level, self._level_at):
                return
        if self._growth is not None and level >= self._believed:
            self._growth, self._retries = None, 0
        elif self._growth is not None and now - self._growth >= GROWN_NS:
            self._give_up(self._believed - level, now)
            self._believed, self._growth = level, None
            self._retries += 1
            if self._retries > RETRIES:
                text = f"node {self._node} said {self._retries} times that its pool grows, and it did not: see the worker's log"
                self._hold(text, Status.FAILED, now)
                return
        if self._shrunk_at is not None and (level <= self._believed or now - self._shrunk_at >= GROWN_NS):
            self._shrunk_at = None
        if now - self._late_at >= LATE_NS:
            self._late = 0
        if self._shrunk_at is None and 0 < level - self._believed <= self._late:  # they came after all
            self._late, self._believed = self._late - (level - self._believed), level
        above = level > self._believed and self._shrunk_at is None
        below = level < self._believed and self._growth is None
        if self._foreign.seen(now, above=above, below=below):
            text = f"resized by hand to {level} processes ({self._believed} were asked for): {QUIET}"
            self._hold(text, Status.FOREIGN, now)

    def _give_up(self, count: int, now: int) -> None:
        """Stop waiting for this many processes that were asked for."""
        self._late, self._late_at = self._late + max(count, 0), now

    def _act(self, main: _Main, now: int) -> bool:
        """Send the next request of a resize or a recycling; return whether there was one."""
        if self._hands_off.text or now < self._settled_at or self._growth is not None:
            return False
        missing = 0 if self._target is None else self._target - self._believed
        if missing > 0:
            self._growth, self._grows = now, missing
            self._believed += missing
            main.link.ask(now, "grow", n=missing)
            return True
        members = [process for process in self._processes.values() if process.member]
        self._recycling &= {process.id for process in members}
        do, victims = "shrink", self._next_to_end(-missing if self._shrunk_at is None else 0, now)
        if not victims:
            idle = ((p, self._bytes_read_by(p, now)) for p in members if p.id in self._recycling)
            do, victims = "recycle", [(process, read) for process, read in idle if read is not None][:STEP]
        if victims:
            self._held = [process.id for process, _ in victims]
            main.link.ask(
                now, do, victims=[{"pid": p.id.pid, "start_ticks": p.id.start_ticks, "rchar": read} for p, read in victims]
            )
            return True
        in_doubt = missing or any(not process.ready and now - process.seen_at >= _SECOND for process in members)
        if in_doubt and now >= self._active_at:
            self._active_at = now + ACTIVE_NS
            main.link.ask(now, "active", wall=self._clock.wall() / _SECOND)
            return True
        return False

    def _next_to_end(self, count: int, now: int) -> list[tuple[_CeleryProcess, int]]:
        """The idle processes that pool_shrink would take now, with what they have read.

        It takes the first ones in the pool's order for which Celery knows no task. Only processes long at work may precede them.
        """
        found: list[tuple[_CeleryProcess, int]] = []
        for pid in self._order:
            process = self._processes.get(pid)
            if len(found) >= min(count, STEP) or process is None:  # a missing process means that the order is outdated
                break
            read = self._bytes_read_by(process, now)
            if read is not None:
                found.append((process, read))
            elif not self._long_at_work(process, now):
                break
        return found

    def _bytes_read_by(self, process: _CeleryProcess, now: int) -> int | None:
        """What a process has read so far, if it certainly waits for a task; None: it does not.

        It must be seen waiting, and have read nothing between just before and just after. Then it works on a task later only if it
        has read more.
        """
        if self._hands_off.text:
            return None
        before = bytes_read(self._proc_root, process.id.pid)
        if process.view.look() is not Doing.IDLE:
            return None
        if before is None and identify(self._proc_root, process.id.pid) == process.id:
            self._hold_for_what_is_unseen(now)
            return None
        return before if before == bytes_read(self._proc_root, process.id.pid) else None

    def _long_at_work(self, process: _CeleryProcess, now: int) -> bool:
        at, ages = self._ages
        age = ages.get(process.id.pid)
        return age is not None and age >= LONG_SECONDS and now - at <= 2 * ACTIVE_NS and process.idle_at < at

    def _hold(self, text: str, status: Status, now: int) -> None:
        self._hands_off.begin(text, status, now)
        self._target = self._growth = self._shrunk_at = None
        self._foreign.reset()
        self._recycling.clear()
        self._retries = self._late = 0
        self._believed = self._level or 0

    def _hold_for_what_is_unseen(self, now: int) -> None:
        text = (
            "what the pool's processes have read cannot be seen, so none can be ended without risk to a task: start the worker as "
            "its user (systemd: User=) instead of by --uid, and nicety as that user or root"
        )
        self._hold(text, Status.REFUSED, now)

    def _requested(self) -> int:
        return self._believed if self._target is None else self._target

    def _trouble(self) -> str:
        main = self._main.present
        if main is None:
            return self._main.absence
        return main.link.problem or self._objection or self._hands_off.text


def _objection(stats: Mapping[str, Any], pid: int, node: str) -> str:
    """Why this node must not be resized; "" if it may."""
    if stats["pid"] != pid:
        return (
            f"node {node} answers as pid {stats['pid']}, not {pid}: correct node or pidfile (a worker in a container has pids of "
            "its own and cannot be sized from outside)"
        )
    if stats["autoscaler"]:
        return f"node {node} runs with --autoscale and sizes itself: start it without, and give minimum and maximum to nicety"
    kind = stats["implementation"].split(":")[0].rpartition(".")[2]
    if kind != "prefork":
        return f"the pool of node {node} is {kind or 'unknown'}, only prefork has processes to size: start it with --pool prefork"
    if not stats["event_loop"]:
        return (
            f"the pool of node {node} has no event loop, and would lose tasks at a resize: use a broker such as Redis or RabbitMQ"
        )
    return ""
