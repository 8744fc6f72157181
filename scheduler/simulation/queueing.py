"""One queue, first come first served, and workers that take time to start and finish their request before they leave. Pure.

Knows arrivals and how long each request takes. Must not know how the number of workers is decided. A rule gets `PoolSeen` and
nothing else, so it can use only what it could see of a real pool.
"""

from __future__ import annotations

import bisect
import heapq
import math
from collections import deque
from copy import copy
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class WorkerSeen(NamedTuple):
    """One worker at one instant."""

    id: int  # counts up in the order of starts
    born: float  # seconds at which it was started
    ready: bool
    busy: bool
    leaving: bool  # asked to go, finishes its request
    idle_seconds: float  # since it was last busy or came up; 0 while busy or starting
    finished_seconds: float  # service time of all finished requests, as a worker reports that counts at the end of each


@dataclass(frozen=True, slots=True)
class PoolSeen:
    """A pool at one instant, as its operator could see it."""

    at: float  # seconds since the start
    size: int  # workers wanted: starting ones count, leaving ones do not
    ready: int  # those of `size` that are up
    idle: int  # those of `ready` without work
    busy: int  # at work, leaving ones too
    queued: int  # requests that wait
    arrived: int  # requests so far
    busy_mean: float  # workers at work, exact mean since the last look
    queued_mean: float  # requests waiting, exact mean since the last look
    service_seconds: float | None  # mean over the finished requests; None: none is finished
    start_seconds: float | None  # from start to ready, as measured; None: no worker has come up yet
    workers: tuple[WorkerSeen, ...]  # by id, leaving ones too; empty unless the rule asks for them
    ended: tuple[float, ...] = ()  # service times of the requests that ended since the last look, likewise

    @property
    def load(self) -> float:
        """Requests in the pool, mean since the last look: offered load in Erlangs as long as nothing waits."""
        return self.busy_mean + self.queued_mean


class SizeRule(Protocol):
    """Decides the size of a pool."""

    name: str
    period: float  # seconds between two looks
    wants_workers: bool  # fill in `PoolSeen.workers`, which takes time

    def size(self, seen: PoolSeen) -> int:
        """Workers wanted from now on. The caller cuts it to the limits."""
        ...


class SimulatedQueue:
    """The pool. `advance` moves time and serves what arrives; `look` and `resize` take no time.

    A request is given to a worker only at the instant its service begins, so workers that come or go before can change who serves
    it. Idle workers are taken in the order in which they became idle.
    """

    def __init__(self, arrivals: Floats, services: Floats, start_seconds: float, size: int) -> None:
        """`arrivals`: seconds, rising. `services`: how long each takes. `size`: workers that are ready at 0."""
        if size < 1:
            raise ValueError(f"a simulated pool needs at least one worker, not {size}")
        if len(arrivals) != len(services):
            raise ValueError(f"{len(arrivals)} arrivals but {len(services)} service times")
        self.now = 0.0
        self._start_seconds = start_seconds
        self._arrivals: list[float] = arrivals.tolist()
        self._services: list[float] = services.tolist()
        self._arrival_sums: list[float] = np.concatenate([[0.0], np.cumsum(arrivals)]).tolist()
        self._service_sums: list[float] = np.concatenate([[0.0], np.cumsum(services)]).tolist()
        self._begun: list[float] = []  # when the service of each request began
        self._by: list[int] = []  # and by which worker
        self._begun_sum = 0.0
        self._arrived = 0
        self._free = [(0.0, worker) for worker in range(size)]  # heap of (when free, worker), without leaving ones
        self._born = dict.fromkeys(range(size), 0.0)
        self._starting: deque[tuple[float, int]] = deque()  # (when ready, worker), in this order
        self._leaving: list[tuple[float, int]] = []  # (when gone, worker)
        self._gone: list[tuple[float, float]] = []  # (born, gone) of those that have left or will
        self._came_up = False
        self.started: list[float] = []
        """Start time of each worker that did not exist at 0."""
        self._next = size
        self._looked = (0.0, 0.0, 0.0)  # (when, seconds worked, seconds waited) at the last look
        self._credited = 0
        self._given: dict[int, float] = {}  # service time of all that a worker was given
        self._last: dict[int, float] = {}  # and of its last request
        self._ending: list[tuple[float, float]] = []  # heap of (when it ends, service time), of the begun ones

    def advance(self, until: float) -> None:
        """Let time pass: every request that can begin before `until` begins."""
        arrivals, services, free = self._arrivals, self._services, self._free
        begun, by = self._begun, self._by
        first = at = len(begun)
        replace, note, note_worker, last = heapq.heapreplace, begun.append, by.append, len(arrivals)
        while at < last:
            when, worker = free[0]
            come = arrivals[at]
            if come > when:
                when = come
            if when >= until:
                break
            replace(free, (when + services[at], worker))
            note(when)
            note_worker(worker)
            at += 1
        self._begun_sum += sum(begun[first:])
        self.now = until

    def resize(self, size: int) -> None:
        """Start workers, or let some go: first those that have not come up, which end at once; then idle ones, the longest idle
        first; then busy ones, the oldest first, which finish their request."""
        excess = len(self._free) - max(size, 1)
        if excess < 0:
            for _ in range(-excess):
                ready = self.now + self._start_seconds
                heapq.heappush(self._free, (ready, self._next))
                self._starting.append((ready, self._next))
                self._born[self._next] = self.now
                self.started.append(self.now)
                self._next += 1
        elif excess > 0:
            self._come_up()
            starting = {worker for _, worker in self._starting}

            def order(entry: tuple[float, int]) -> tuple[int, float]:
                when, worker = entry
                if worker in starting:
                    return 0, -when
                return (1, when) if when <= self.now else (2, worker)

            ranked = sorted(self._free, key=order)
            for when, worker in ranked[:excess]:
                gone = self.now if worker in starting else max(when, self.now)
                self._gone.append((self._born[worker], gone))
                if gone > self.now:
                    self._leaving.append((gone, worker))
            let_go = {worker for _, worker in ranked[:excess]}
            self._starting = deque(entry for entry in self._starting if entry[1] not in let_go)
            self._free = ranked[excess:]
            heapq.heapify(self._free)

    def look(self, workers: bool = False) -> PoolSeen:
        """What an operator could see now."""
        now, arrivals = self.now, self._arrivals
        self._come_up()
        self._arrived = bisect.bisect_left(arrivals, now, self._arrived)
        self._leaving = [entry for entry in self._leaving if entry[0] > now]
        starting = {worker for _, worker in self._starting}
        working = [when for when, worker in self._free if when > now and worker not in starting]
        ready = len(self._free) - len(starting)
        idle = ready - len(working)
        working += [when for when, _ in self._leaving]
        begun, busy = len(self._begun), len(working)
        worked = self._service_sums[begun] - (sum(working) - busy * now)
        waiting = self._arrived - begun
        waited = self._begun_sum + waiting * now - self._arrival_sums[self._arrived]
        before, worked_before, waited_before = self._looked
        self._looked = now, worked, waited
        elapsed = now - before
        return PoolSeen(
            at=now,
            size=len(self._free),
            ready=ready,
            idle=idle,
            busy=busy,
            queued=waiting,
            arrived=self._arrived,
            busy_mean=max((worked - worked_before) / elapsed, 0.0) if elapsed > 0 else float(busy),
            queued_mean=max((waited - waited_before) / elapsed, 0.0) if elapsed > 0 else float(waiting),
            service_seconds=worked / (begun - busy) if begun > busy else None,
            start_seconds=self._start_seconds if self._came_up else None,
            workers=self._workers(starting) if workers else (),
            ended=self._ended() if workers else (),
        )

    def _come_up(self) -> None:
        while self._starting and self._starting[0][0] <= self.now:
            self._starting.popleft()
            self._came_up = True

    def _workers(self, starting: set[int]) -> tuple[WorkerSeen, ...]:
        given, last = self._given, self._last
        for place in range(self._credited, len(self._by)):
            worker, service = self._by[place], self._services[place]
            given[worker] = given.get(worker, 0.0) + service
            last[worker] = service
            heapq.heappush(self._ending, (self._begun[place] + service, service))
        self._credited = len(self._by)
        seen, now = [], self.now
        for entries, leaving in ((self._free, False), (self._leaving, True)):
            for when, worker in entries:
                up = worker not in starting
                busy = up and when > now
                done = given.get(worker, 0.0) - (last.get(worker, 0.0) if busy else 0.0)
                seen.append(WorkerSeen(worker, self._born[worker], up, busy, leaving, max(now - when, 0.0), done))
        seen.sort()
        return tuple(seen)

    def twin(self) -> SimulatedQueue:
        """A pool that is the same now and goes its own way."""
        twin = copy(self)
        for name, value in vars(self).items():
            if isinstance(value, list | dict | deque):
                setattr(twin, name, value.copy())
        return twin

    def _ended(self) -> tuple[float, ...]:
        """Service times of those that ended since the last look; call it after `_workers`."""
        ended = []
        while self._ending and self._ending[0][0] <= self.now:
            ended.append(heapq.heappop(self._ending)[1])
        return tuple(ended)

    # --- afterwards -----------------------------------------------------------------------------------------------------------

    def latencies(self, since: float) -> Floats:
        """Seconds from arrival to end of each request that arrived from `since` on and was begun."""
        done = len(self._begun)
        arrivals = np.array(self._arrivals[:done])
        latencies = np.array(self._begun) - arrivals + np.array(self._services[:done])
        return np.asarray(latencies[arrivals >= since])

    def waits(self, since: float) -> Floats:
        """Seconds from arrival to the begin of the service of the same requests."""
        done = len(self._begun)
        arrivals = np.array(self._arrivals[:done])
        return np.asarray((np.array(self._begun) - arrivals)[arrivals >= since])

    def waited(self, begin: float, end: float) -> float:
        """Mean number of waiting requests between two times that are past."""
        begun = np.full(len(self._arrivals), math.inf)
        begun[: len(self._begun)] = self._begun
        waits = np.minimum(begun, end) - np.maximum(np.array(self._arrivals), begin)
        return float(np.maximum(waits, 0.0).sum()) / (end - begin)

    def lives(self, until: float) -> tuple[Floats, Floats]:
        """(when each worker was started, when it left), in no order; workers still there leave at `until`."""
        lives = self._gone + [(self._born[worker], until) for _, worker in self._free]
        born, gone = np.array(lives).T
        return born, np.minimum(gone, until)


def worker_seconds(born: Floats, gone: Floats, since: float, until: float) -> float:
    """Worker-seconds in a span, those of starting and leaving workers too."""
    return float(np.maximum(np.minimum(gone, until) - np.maximum(born, since), 0.0).sum())


def play(queue: SimulatedQueue, rule: SizeRule, minimum: int, maximum: int, seconds: float) -> None:
    """Let a rule size a pool for `seconds`; the workers left at the end finish the remaining requests.

    The rule decides once a period, from the end of the first period on, because at 0 there is nothing to see. Its sizes are cut to
    the limits.
    """
    turn = 1
    while (at := turn * rule.period) <= seconds:
        queue.advance(at)
        size = rule.size(queue.look(rule.wants_workers))
        queue.resize(min(max(size, minimum), maximum))
        turn += 1
    queue.advance(seconds)
    queue.look()
