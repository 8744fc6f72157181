"""From blocked threads to deadlocks: finds threads that wait for each other and that nothing can free. Pure.

A blocked thread waits for one thing. Any of some processes can do that thing, or only the thread that owns a mutex. So a thread
gets on if one of them gets on. A thread that runs, waits with a time limit or waits for the outside world gets on by itself. The
rest waits forever. This is the communication model of Chandy, Misra and Haas (1983), solved by its least fixed point: with locks,
where only one process can help, it finds the cycles; with a pipe that has many writers, it finds that all of them are stuck, and
reports none that could still write.

A lock is released by the process that took it, usually by the same thread, but the kernel reports only the process. So for a thread
that waits for a lock, those threads of the holder do not count as help that only wake by the clock, such as a heartbeat: they woke
again and again and did not release it. For a pipe they do, because another thread may be the one that writes to it.

A look at a machine is not of one instant: a request and its answer may cross while it is read, and look like a circle. So only
threads count that have not run for `patience` between looks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..identity import ProcId
from ..records import Blocked, Deadlock

PATIENCE_NS = 5_000_000_000
"""How long all threads of a circle must have stood still before it is called a deadlock (chosen; docs/deadlocks.md has what
`python -m benchmarks.anomaly.deadlocks` finds with it)."""

UNLESS = "unless another thread of its holder frees it: all of them only wake by the clock"
"""Reservation where the kernel cannot say which thread took a lock."""


class Thread(NamedTuple):
    """A thread of a process."""

    process: ProcId
    tid: int


@dataclass(frozen=True, slots=True)
class Halt:
    """A blocked thread, and the processes that could unblock it."""

    thread: Thread
    turn: int  # how often it was put on a CPU: unchanged as long as it is the same wait
    what: str  # for people, without control characters
    helpers: tuple[ProcId, ...]  # any thread of any of these processes can help; empty: none found yet
    owner: int | None  # only this thread of the first of `helpers` can help; None: any thread
    named: bool  # whether the kernel or the lock names them; False: a semaphore, which any process that maps it can post
    sure: bool  # whether all possible helpers were examined; until then nothing is reported
    lock: bool = False  # whether it waits for a lock that one of `helpers` has taken


@dataclass(frozen=True, slots=True)
class WaitSnapshot:
    """What was seen in one look. A thread that is not in it gets on."""

    halts: tuple[Halt, ...]
    whole: frozenset[ProcId]  # processes all of whose threads are in `halts`
    roots: frozenset[ProcId]  # the workers that the look is about
    ticking: frozenset[ProcId] = frozenset()  # processes all of whose other threads only wake by the clock, again and again


def in_vain(
    halts: Mapping[Thread, Halt], whole: Collection[ProcId], ticking: Collection[ProcId] = frozenset()
) -> dict[Thread, Halt]:
    """Those of `halts` that nothing can help: the complement of the least set of threads that get on."""
    waiting: dict[Thread | ProcId, list[Thread]] = {}  # threads that hope for a thread, or for any thread of a process
    free: deque[Thread] = deque()
    for thread, halt in halts.items():
        hopes: list[Thread | ProcId] = [*halt.helpers]
        if halt.owner is not None:
            hopes = [Thread(halt.helpers[0], halt.owner)]
        for hope in hopes:
            waiting.setdefault(hope, []).append(thread)
            if hope not in halts if isinstance(hope, Thread) else not (hope in whole or (halt.lock and hope in ticking)):
                free.append(thread)
                break
    stuck = dict(halts)
    while free:
        thread = free.popleft()
        if stuck.pop(thread, None) is not None:
            free.extend(waiting.get(thread, ()))
            free.extend(waiting.get(thread.process, ()))
    return stuck


class DeadlockWatch:
    """Successive looks: remembers since when each thread has waited without help."""

    def __init__(self, patience: int = PATIENCE_NS) -> None:
        self._patience = patience
        self._since: dict[Thread, tuple[int, str, int]] = {}  # (turn, what, at)

    def step(self, at: int, look: WaitSnapshot) -> tuple[Deadlock, ...]:
        """The deadlocks of this look at `at` (monotonic ns), sorted by their first waiter."""
        halts = {halt.thread: halt for halt in look.halts}
        since: dict[Thread, tuple[int, str, int]] = {}
        for thread, halt in in_vain(halts, look.whole, look.ticking).items():
            before = self._since.get(thread)
            same = before is not None and before[:2] == (halt.turn, halt.what)
            since[thread] = before if before is not None and same else (halt.turn, halt.what, at)
        self._since = since
        still = {
            thread: halts[thread] for thread, (_, _, began) in since.items() if at - began >= self._patience and halts[thread].sure
        }
        stuck = in_vain(still, look.whole, look.ticking)
        found = (_deadlock(part, stuck, since, look) for part in _knots(stuck))
        return tuple(sorted((each for each in found if each is not None), key=lambda each: each.waits[0].waiter))


def _deadlock(
    knot: Sequence[Thread],
    stuck: Mapping[Thread, Halt],
    since: Mapping[Thread, tuple[int, str, int]],
    look: WaitSnapshot,
) -> Deadlock | None:
    """The deadlock to report of threads that all wait for each other; None: only one process is involved."""

    roots = look.roots

    def blocked(thread: Thread, holder: ProcId | None) -> Blocked:
        halt = stuck[thread]
        doubt = f" ({UNLESS})" if halt.owner is None and look.ticking.intersection(halt.helpers) else ""
        return Blocked(thread.process, thread.tid, since[thread][2], f"{halt.what}{doubt}", holder)

    circle = _circle([thread for thread in knot if thread.process in roots], stuck) or _circle(knot, stuck)
    if circle:
        first = min(range(len(circle)), key=circle.__getitem__)
        circle = [*circle[first:], *circle[:first]]
        return Deadlock(
            tuple(blocked(thread, after.process) for thread, after in zip(circle, [*circle[1:], circle[0]], strict=True))
        )
    if all(stuck[thread].named for thread in knot):
        return None
    together = [thread for thread in knot if thread.process in roots and stuck[thread].helpers != (thread.process,)]
    processes = {thread.process for thread in together}
    if len(processes) < 2:
        return None

    def holder(thread: Thread) -> ProcId | None:
        others = (process for process in stuck[thread].helpers if process in processes and process != thread.process)
        return min(others, default=None) if stuck[thread].named else None

    return Deadlock(tuple(blocked(thread, holder(thread)) for thread in sorted(together)))


def _circle(knot: Sequence[Thread], stuck: Mapping[Thread, Halt]) -> list[Thread]:
    """The shortest circle through more than one process in which every holder is named; empty if there is none."""
    inside = _by_process(knot)
    best: list[Thread] = []
    for start in sorted(knot):
        before: dict[Thread, Thread] = {}
        queue = deque([start])
        while queue and start not in before:
            thread = queue.popleft()
            for after in _next(thread, stuck, inside) if stuck[thread].named else ():
                if after not in before and not (thread == start and after.process == start.process):
                    before[after] = thread
                    queue.append(after)
        if start in before:
            path = [before[start]]
            while path[-1] != start:
                path.append(before[path[-1]])
            if not best or len(path) < len(best):
                best = path[::-1]
            if len(best) == 2:  # no circle is shorter
                break
    return best


def _next(thread: Thread, stuck: Mapping[Thread, Halt], inside: Mapping[ProcId, Sequence[Thread]]) -> Iterator[Thread]:
    """Threads that could help this one, of those `inside`."""
    halt = stuck[thread]
    if halt.owner is not None:
        wanted = Thread(halt.helpers[0], halt.owner)
        yield from (each for each in inside.get(wanted.process, ()) if each == wanted)
        return
    for process in halt.helpers:
        yield from (each for each in inside.get(process, ()) if each != thread)


def _by_process(threads: Iterable[Thread]) -> dict[ProcId, list[Thread]]:
    found: dict[ProcId, list[Thread]] = {}
    for thread in sorted(threads):
        found.setdefault(thread.process, []).append(thread)
    return found


def _knots(stuck: Mapping[Thread, Halt]) -> Iterator[list[Thread]]:
    """Sets of two or more threads each of which waits for every other one, directly or through others: the strongly connected
    components, by Tarjan's algorithm without recursion."""
    inside = _by_process(stuck)
    number: dict[Thread, int] = {}
    low: dict[Thread, int] = {}
    path: list[Thread] = []
    on_path: set[Thread] = set()
    for root in sorted(stuck):
        if root in number:
            continue
        work: list[tuple[Thread, Iterator[Thread]]] = []

        def enter(thread: Thread, work: list[tuple[Thread, Iterator[Thread]]] = work) -> None:
            number[thread] = low[thread] = len(number)
            path.append(thread)
            on_path.add(thread)
            work.append((thread, _next(thread, stuck, inside)))

        enter(root)
        while work:
            thread, edges = work[-1]
            for after in edges:
                if after not in number:
                    enter(after)
                    break
                if after in on_path:
                    low[thread] = min(low[thread], number[after])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[thread])
                if low[thread] == number[thread]:
                    knot: list[Thread] = []
                    while not knot or knot[-1] != thread:
                        knot.append(path.pop())
                        on_path.discard(knot[-1])
                    if len(knot) > 1:
                        yield knot
