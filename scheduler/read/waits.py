"""What blocked workers wait for and which processes can unblock them: file locks, shared futexes, pipes, sockets, children.

Reads only /proc and sock_diag, starting from the workers and following what they wait for. Must not know what a deadlock is beyond
`models/anomaly/waitgraph.py`, nor what is done about it. In doubt a thread is left out, and what waits for it counts as able to
proceed. Left out is a thread that runs, sleeps or is stopped; that waits with a time limit, or for a client, a timer, a terminal,
a remote machine, a signal or the disk; or that is in a system call not known here. `syscall`, `fd`, `maps` and `mem` of a process
need ptrace rights.
"""

# ruff: noqa: PTH115, PTH116, PTH208 -- Path objects cost more than the system calls

from __future__ import annotations

import os
import re
import stat
import struct
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from ...models.anomaly.waitgraph import Halt, Thread, WaitSnapshot, in_vain
from ...models.records import ProcId
from .calls import NUMBERS, Call, is_timed, parse_call, stack_pointer
from .holders import (
    Area,
    FileLock,
    FutexWait,
    Place,
    file_locks,
    futex_wait,
    identify,
    lock_object,
    lock_objects_on,
    owner_tid,
    process_of,
    read,
    shared_areas,
    stat_fields,
    thread_ids,
    tid_of,
)
from .sockets import SockDiag, socket_inode
from .text import printable

THREADS = 64
"""A process with more threads is not looked into: with so many, one is assumed to proceed."""

FIRST = 100
"""Workers looked into per look, in turn, among those that were not stuck in the last one: 50 us each."""

MOST = 400
"""Most processes looked into per look, helpers included."""

NEAR = 512
"""Workers and masters that are asked first whether they can help."""

SWEPT, SWEEP, MOST_SWEPT = 100, 5, 400
"""While something seems stuck, all other processes are swept, at 0.2 ms each: SWEPT per look, or more so that a sweep takes at most
SWEEP looks, but never more than MOST_SWEPT."""

DESCRIPTORS = 4096
"""A process with more descriptors may have anything open."""

FRESH = 60
"""Looks for which the answers of a sweep are believed. Excuses (this process proceeds) last up to twice as long."""

PAIRS = 5
"""Looks between two queries for all TCP connections: the kernel walks its whole table, which takes 20 ms if that is large."""

POLLED = 256
"""Most descriptors of one poll(2) or epoll(7) that are examined."""

BEATS = 4
"""Looks after which a thread counts as ticking: each found it in the same timed wait, and it had run in between. Only the clock
wakes it."""

MISSED = 4
"""For every MISSED of those looks, at most one may find it running: a thread that works is found running more often."""

WORK_NS = 500_000
"""CPU per turn above which a thread works, whatever it waits for in between: a heartbeat in Python takes 0.05 to 0.2 ms."""

MAIN, OTHERS = 20, 1
"""Of the workers that hardly run, a look examines the first thread of MAIN (10 us each), all threads of OTHERS (30 us a thread)."""

IN, OUT = 0x1, 0x4
"""POLLIN and POLLOUT, the same in epoll(7)."""

_READS, _WRITES = {"read", "readv", "recvfrom", "recvmsg", "recvmmsg"}, {"write", "writev", "sendto", "sendmsg", "sendmmsg"}
_SELECTS, _EPOLLS = {"select", "pselect6"}, {"epoll_wait", "epoll_pwait", "epoll_pwait2"}
_FILE_LOCK = {7: "POSIX", 38: "OFDLCK"}  # F_SETLKW, F_OFD_SETLKW of a 64-bit machine
_T = TypeVar("_T")
_LOCK_WORDS = {"POSIX": "fcntl lock", "FLOCK": "flock", "OFDLCK": "open file lock"}


def _bits(*signals: int) -> int:
    return sum(1 << number - 1 for number in signals)


_TOLD = _bits(1, 3, 10, 12, 14, 15, 18, 26, 27, 29, *range(35, 65))
"""Signals that the outside uses to notify a program: HUP QUIT USR1 USR2 ALRM TERM CONT VTALRM PROF IO and the real-time ones. A
parent that reads and handles one of them may be waiting for it. INT is left out, because every Python program handles it."""

_INTERRUPT = _bits(2)


class Ask(NamedTuple):
    """A question about a process: can it help?"""

    kind: str  # "is", "fd", "lock", "maps"
    key: tuple[object, ...]


class _Need(NamedTuple):
    """What a thread is blocked on."""

    what: str
    asks: tuple[Ask, ...]  # a process that answers one of them can help
    owner: int | None = None  # as in `Halt`
    named: bool = True
    lock: bool = False


class _Seen:
    """A process as it was read in some look. `needs`: by tid; None for a thread that proceeds by itself."""

    __slots__ = ("look", "needs", "ticking")

    def __init__(self, look: int, needs: dict[int, _Need | None], ticking: frozenset[int] = frozenset()) -> None:
        self.look = look
        self.needs = needs
        self.ticking = ticking  # threads that only the clock wakes

    @property
    def lively(self) -> bool:
        """A thread of it proceeds by itself, or nothing is known of it."""
        return not self.needs or None in self.needs.values()

    @property
    def ticks(self) -> bool:
        """All its threads that proceed are woken only by the clock, and at least one other does not proceed."""
        return bool(self.ticking) and {tid for tid, need in self.needs.items() if need is None} == self.ticking < self.needs.keys()


class _Beat(NamedTuple):
    """A thread that is found repeatedly in the same timed wait."""

    where: tuple[str, int]  # call, stack pointer
    look: int  # the latest
    turn: int  # at that look
    rounds: int  # looks that found that it had run since the look before
    missed: int  # looks that found it running, or waiting for a CPU
    first: tuple[int, int]  # (turn, ns of CPU) when it was first found there


class _Excuse(NamedTuple):
    """Why a worker is not stuck."""

    since: int  # valid until it runs again
    made: int  # the look in which it was made
    by: tuple[ProcId, ...]  # these proceed; empty: the worker proceeds by itself


class LinuxWaits:
    """`ports.Waits` of this machine."""

    def __init__(self, proc_root: Path = Path("/proc"), machine: str = os.uname().machine) -> None:
        self._proc = str(proc_root)
        self._names = NUMBERS.get(machine)
        self._machine = machine
        self._number = 0  # of the look
        self._beats: dict[Thread, _Beat] = {}
        self._busy_turns = [0, 0]  # next turns among the workers that hardly run
        self._beating: frozenset[ProcId] = frozenset()  # those of them with a thread that waits for a lock
        self._diag = SockDiag()
        self._pairs: dict[int, int | None] = {}  # peers of TCP sockets, as of the last query
        self._pairs_at = -PAIRS
        self._still: Mapping[ProcId, int] = {}
        self._near: Sequence[ProcId] = ()
        self._enough: set[ProcId] = set()  # they proceed by themselves, so they excuse others: no matter what else they wait for
        self._workers: Collection[ProcId] = frozenset()
        self._aloof: Collection[ProcId] = frozenset()
        self._seen: dict[ProcId, _Seen] = {}
        self._expanded: set[ProcId] = set()  # those of `_seen` whose helpers are in it too
        self._nearby: dict[Ask, list[ProcId]] = {}  # of this look
        self._held_by: dict[ProcId, frozenset[FileLock]] = {}
        self._parents: set[int] = set()  # pids of the parents of those in `_seen`
        self._hidden: set[ProcId] = set()  # workers that we may not look into
        self._locks: list[tuple[FileLock, FileLock]] | None = None  # of this look, once queried
        self._caught: dict[ProcId, int] = {}  # of this look
        self._takers: dict[tuple[Place, int], list[tuple[ProcId, int | None]]] = {}  # of this look: holders of a semaphore
        self._links: dict[ProcId, tuple[int, dict[str, list[int]] | None]] = {}  # descriptors by what they are; None: too many
        self._maps: dict[ProcId, tuple[int, tuple[Area, ...]]] = {}
        self._objects: dict[ProcId, tuple[int, int, int, int]] = {}  # (still since, semaphore, stack, Python's object for it or 0)
        self._excuses: dict[ProcId, _Excuse] = {}
        self._suspects: set[ProcId] = set()  # those that were stuck in the last look
        self._turn = 0  # next turn among the workers to look into
        self._offspring: dict[ProcId, list[int]] = {}
        self._sweep: deque[int] = deque()  # pids that are still to be asked
        self._asking: dict[Ask, set[ProcId]] = {}  # in this sweep
        self._listed: set[int] = set()  # pids that this sweep knows
        self._pace = SWEPT  # processes a look
        self._told: dict[Ask, tuple[int, frozenset[ProcId]]] = {}  # look in which the sweep ended, and processes that can help
        self._kept: dict[ProcId, tuple[_Seen, list[Halt]]] = {}  # see `_sure`
        self._stands: dict[ProcId, dict[int, tuple[int, int]]] = {}  # stuck threads: (turn, look since which it is so)

    @property
    def trouble(self) -> str:
        """See `ports.Waits`."""
        if self._names is None:
            return "deadlocks are not looked for: the system calls of this kind of machine are not known to nicety"
        if self._hidden:
            return "deadlocks are not looked for among workers whose system calls may not be read; it takes CAP_SYS_PTRACE"
        return ""

    def look(
        self,
        still: Mapping[ProcId, int],
        workers: Sequence[ProcId],
        masters: Sequence[ProcId],
        aloof: Collection[ProcId],
        restless: Sequence[ProcId] = (),
    ) -> WaitSnapshot:
        """See `ports.Waits`."""
        self._begin(still, workers, masters, aloof)
        roots = self._roots()
        beating = self._look_at_restless(restless)
        excusers = self._excusers()
        self._enough = {
            process for process in set(excusers) - set(roots) if self._see(process).lively and not self._see(process).ticks
        }
        self._expand([*roots, *beating, *excusers])
        while self._expand(self._known_further()):
            pass
        stuck = self._stuck()
        halts = self._dated(stuck)
        self._remember(roots, halts)
        halts = self._sure(halts)
        self._sweep_on(halts)
        self._beats = {thread: beat for thread, beat in self._beats.items() if beat.look == self._number}
        return WaitSnapshot(tuple(halts.values()), self._whole(halts), frozenset((*still, *beating)), self._ticking(halts))

    def rest(self) -> None:
        """See `ports.Waits`."""
        self._excuses.clear()
        self._suspects.clear()
        self._told.clear()
        self._asking.clear()
        self._sweep.clear()
        self._stands.clear()
        self._kept.clear()
        self._links.clear()
        self._maps.clear()
        self._objects.clear()
        self._offspring.clear()
        self._hidden.clear()
        self._beats.clear()
        self._beating = frozenset()

    def close(self) -> None:
        """See `ports.Waits`."""
        self._diag.close()

    # --- a look ----------------------------------------------------------------------------------------------------------------

    def _begin(
        self, still: Mapping[ProcId, int], workers: Sequence[ProcId], masters: Sequence[ProcId], aloof: Collection[ProcId]
    ) -> None:
        self._number += 1
        self._still, self._aloof = still, aloof
        self._near = [*masters, *workers][:NEAR]
        self._workers = frozenset(workers)
        self._expanded = set()
        self._seen, self._nearby, self._locks, self._caught, self._held_by, self._parents = {}, {}, None, {}, {}, set()
        self._takers = {}
        self._hidden.intersection_update(still)
        for kept in (self._links, self._maps, self._objects):
            for process in [process for process in kept if process not in still]:
                del kept[process]
        if self._number - self._pairs_at >= FRESH:
            self._pairs.clear()
        if self._number % FRESH == 0:
            self._offspring.clear()

    def _roots(self) -> list[ProcId]:
        """Workers to look into: those that were stuck in the last look, and in turn some of those that nothing excuses."""
        again = [process for process in self._still if process in self._suspects]
        others = [process for process in self._still if process not in self._suspects and not self._excused(process)]
        if len(others) > FIRST:
            start = self._turn % len(others)
            self._turn += FIRST
            others = [*others[start:], *others[:start]][:FIRST]
        return [*again, *others]

    def _look_at_restless(self, restless: Sequence[ProcId]) -> list[ProcId]:
        """Workers that hardly run and have a thread that waits for a lock."""
        found = [process for process in restless if process in self._beating]
        rest = [process for process in restless if process not in self._beating]
        for rank, most in enumerate((MAIN, OTHERS)):
            for _ in range(min(most, len(rest))):
                process = rest[self._busy_turns[rank] % len(rest)]
                self._busy_turns[rank] += 1
                if rank == 0 and not self._may_wait(process):
                    continue
                if process not in found and any(need is not None and need.lock for need in self._see(process).needs.values()):
                    found.append(process)
        self._beating = frozenset(
            process for process in found if any(need is not None and need.lock for need in self._see(process).needs.values())
        )
        return sorted(self._beating)

    def _may_wait(self, process: ProcId) -> bool:
        """Whether its first thread is in a call that may wait for a lock."""
        try:
            call = parse_call(read(f"{self._proc}/{process.pid}/task/{process.pid}/syscall"), self._names or {})
        except OSError:
            return False
        return call.name in ("flock", "fcntl", "futex", "futex_wait") and not is_timed(call)

    def _excused(self, process: ProcId) -> bool:
        excuse = self._excuses.get(process)
        return (
            excuse is not None and excuse.since == self._still[process] and self._number - excuse.made < FRESH + process.pid % FRESH
        )

    def _excusers(self) -> list[ProcId]:
        """Processes that excuse others: they must proceed in this look too."""
        return sorted({process for worker in self._still if self._excused(worker) for process in self._excuses[worker].by})

    def _expand(self, processes: Iterable[ProcId]) -> bool:
        """Look into these, and into the near processes that could help them. False: nothing new was seen."""
        queue, news = deque(processes), False
        while queue and len(self._seen) < MOST:
            process = queue.popleft()
            if process in self._expanded:
                continue
            self._expanded.add(process)
            news = True
            seen = self._see(process)
            if process in self._kept:
                queue.extend(helper for halt in self._kept[process][1] for helper in halt.helpers)
                continue
            if process in self._enough:
                continue
            for need in seen.needs.values():
                if need is not None:
                    queue.extend(self._nearest(need))
        return news

    def _nearest(self, need: _Need) -> list[ProcId]:
        """Near processes that could help."""
        return [process for ask in need.asks for process in self._found_near(ask)]

    def _found_near(self, ask: Ask) -> list[ProcId]:
        """Near processes that could help in this way, up to the first that proceeds by itself: that one is enough."""
        if ask.kind == "is":
            return [process for process in ask.key if isinstance(process, ProcId)]
        found = self._nearby.get(ask)
        if found is None:
            found = self._nearby[ask] = [process for process in sorted(self._further(ask)) if self._frees(process, ask)][:1]
            for process in self._near if not found else ():
                if self._answers(process, ask):
                    found.append(process)
                    if self._frees(process, ask):
                        break
        return found

    def _see(self, process: ProcId) -> _Seen:
        seen = self._seen.get(process)
        if seen is None:
            kept = self._kept.get(process)
            seen = kept[0] if kept is not None else _Seen(self._number, *self._needs(process))
            self._seen[process] = seen
        return seen

    def _stuck(self) -> dict[Thread, Halt]:
        """Threads that no process seen can help. A need is left out if no helper was found and not all processes have been asked:
        what it waits for cannot be seen from here."""
        halts: dict[Thread, Halt] = {}
        for process in sorted(self._expanded - self._enough):
            kept = self._kept.get(process)
            if kept is not None:
                halts.update((halt.thread, halt) for halt in kept[1])
                continue
            for tid, need in self._seen[process].needs.items():
                if need is None:
                    continue
                helpers = self._helpers(need)
                if helpers or not all(ask.kind == "is" or ask in self._told for ask in need.asks):
                    thread = Thread(process, tid)
                    halts[thread] = Halt(thread, 0, need.what, helpers, need.owner, need.named, sure=False, lock=need.lock)
        ticking = {process for process in self._expanded if self._seen[process].ticks}
        return in_vain(halts, {process for process in self._expanded if not self._seen[process].lively}, ticking)

    def _frees(self, process: ProcId, ask: Ask) -> bool:
        """Whether it proceeds by itself and could do what is asked. A process whose other threads only tick frees no lock."""
        seen = self._see(process)
        return seen.lively and not (ask.kind == "lock" and seen.ticks)

    def _helpers(self, need: _Need) -> tuple[ProcId, ...]:
        found: set[ProcId] = set()
        for ask in need.asks:
            found.update(self._found_near(ask))
            found.update(self._further(ask))
        return tuple(sorted(found))

    def _dated(self, stuck: Mapping[Thread, Halt]) -> dict[Thread, Halt]:
        """With their turns. Dropped, because it proceeds: a thread that does not sleep, is gone, or ran since it was kept."""
        dated = {}
        for thread, halt in stuck.items():
            turn = self._turns(thread)
            if turn is not None and (thread.process not in self._kept or turn == halt.turn):
                dated[thread] = replace(halt, turn=turn)
        while True:
            left = in_vain(dated, self._whole(dated), self._ticking(dated))
            if len(left) == len(dated):
                return dated
            dated = left

    def _whole(self, halts: Collection[Thread]) -> frozenset[ProcId]:
        """Processes all of whose threads are among these."""
        processes = {thread.process for thread in halts}
        return frozenset(each for each in processes if all(Thread(each, tid) in halts for tid in self._seen[each].needs))

    def _ticking(self, halts: Collection[Thread]) -> frozenset[ProcId]:
        """Processes all of whose threads are among these, except those that only the clock wakes."""
        processes = {thread.process for thread in halts}
        return frozenset(
            each
            for each in processes
            if self._seen[each].ticks
            and all(Thread(each, tid) in halts for tid, need in self._seen[each].needs.items() if need is not None)
        )

    def _turns(self, thread: Thread) -> int | None:
        """How often it gave up the CPU or lost it, which every kernel counts. None if it does not sleep or is gone."""
        try:
            text = read(f"{self._proc}/{thread.process.pid}/task/{thread.tid}/status")
        except OSError:
            return None
        found = re.search(rb"^State:\t(\w)", text, re.MULTILINE)
        counts = re.findall(rb"ctxt_switches:\t(\d+)$", text, re.MULTILINE)
        return sum(map(int, counts)) if found is not None and found[1] == b"S" and counts else None

    def _remember(self, roots: Iterable[ProcId], halts: Mapping[Thread, Halt]) -> None:
        """Note which workers are stuck, and why the others are not."""
        stuck = {thread.process for thread in halts}
        whole = {process for process in stuck if all(Thread(process, tid) in halts for tid in self._seen[process].needs)}
        self._suspects = stuck.intersection(self._still)
        self._excuses = {
            process: excuse
            for process, excuse in self._excuses.items()
            if process in self._still and not whole.intersection(excuse.by)
        }
        for process in roots:
            seen = self._seen.get(process)
            if seen is None or process in stuck:
                continue
            needs = [need for need in seen.needs.values() if need is not None]
            if any(need.owner is not None and not self._is_single(need) for need in needs):
                continue
            by = {self._first_on(need, whole) for need in needs} - {None, process}
            self._excuses[process] = _Excuse(self._still[process], self._number, tuple(sorted(each for each in by if each)))

    def _is_single(self, need: _Need) -> bool:
        """Whether the thread that can help is the only one of its process."""
        process = need.asks[0].key[0]
        return isinstance(process, ProcId) and process in self._seen and len(self._seen[process].needs) == 1

    def _first_on(self, need: _Need, whole: Collection[ProcId]) -> ProcId | None:
        """The first process that can help and proceeds; None: it cannot be seen from here."""
        return next((process for process in self._helpers(need) if process not in whole and process in self._seen), None)

    # --- who else could help ---------------------------------------------------------------------------------------------------

    def _known_further(self) -> list[ProcId]:
        """Processes that a sweep found able to help one that was looked into."""
        needs = (need for seen in self._seen.values() for need in seen.needs.values() if need is not None)
        told = {process for need in needs for ask in need.asks for process in self._further(ask)}
        return sorted(told - self._expanded)

    def _further(self, ask: Ask) -> frozenset[ProcId] | set[ProcId]:
        """Processes found able to help in this way by the last sweep, or so far by this one."""
        return self._asking[ask] if ask in self._asking else self._told.get(ask, (0, frozenset[ProcId]()))[1]

    def _sweep_on(self, halts: Mapping[Thread, Halt]) -> None:
        """Ask the next of all processes the questions of the threads that seem stuck. A sweep answers the questions that existed
        when it began. It ends once the processes born meanwhile have been asked too."""
        wanted = self._questions(halts)
        self._told = {ask: told for ask, told in self._told.items() if ask in wanted or self._number - told[0] < FRESH}
        self._asking = {ask: found for ask, found in self._asking.items() if ask in wanted}
        if not self._asking:
            unknown = {ask for ask, since in wanted.items() if ask not in self._told or self._told[ask][0] < since}
            if not unknown:
                return
            self._asking = {ask: set() for ask in unknown}
            first = min(halts).process.pid
            self._listed = {process.pid for process in self._near}
            self._sweep = deque(sorted(self._unlisted(), key=lambda pid: abs(pid - first)))  # pids of a family are close
            self._pace = min(max(SWEPT, -(-len(self._sweep) // SWEEP)), MOST_SWEPT)
        for _ in range(min(self._pace, len(self._sweep))):
            self._ask(identify(self._proc, self._sweep.popleft()))
            if not self._asking:
                return
        if not self._sweep:
            for pid in self._unlisted():  # born since it began
                self._ask(identify(self._proc, pid))
            self._told.update((ask, (self._number, frozenset(found))) for ask, found in self._asking.items())
            self._asking = {}

    def _unlisted(self) -> list[int]:
        """Pids that exist now and are not yet listed in this sweep."""
        pids = [pid for pid in _pids(self._proc) if pid not in self._listed]
        self._listed.update(pids)
        return pids

    def _ask(self, process: ProcId | None) -> None:
        """Put all questions of this sweep to it. A process that can help and proceeds by itself ends its question."""
        if process is None:
            return
        for ask in [ask for ask in self._asking if self._answers(process, ask)]:
            self._asking[ask].add(process)
            seen = self._see(process)
            if self._frees(process, ask):
                self._told[ask] = self._number, frozenset(self._asking.pop(ask))
            else:
                turns = ((tid, self._turns(Thread(process, tid))) for tid in seen.needs)
                self._stands[process] = {tid: self._standing(process, tid, turn) for tid, turn in turns if turn is not None}
        if process not in self._still:  # it may have something else open at the next look
            self._links.pop(process, None)
            self._maps.pop(process, None)

    def _questions(self, halts: Mapping[Thread, Halt]) -> dict[Ask, int]:
        """The questions to ask, each with the first look whose answer counts: before it, a process could still become a helper."""
        wanted: dict[Ask, int] = {}
        for thread, halt in halts.items():
            if thread.process in self._kept:
                continue
            need = self._seen[thread.process].needs[thread.tid]
            for ask in need.asks if need is not None else ():
                if ask.kind != "is":
                    wanted[ask] = max(wanted.get(ask, 0), self._settled(halt))
        return wanted

    def _settled(self, halt: Halt) -> int:
        """The look since which a thread and its possible helpers stand still: none of them can have passed anything on since."""
        everybody = (halt.thread.process, *halt.helpers)
        return max((look for process in everybody for _, look in self._stands.get(process, {}).values()), default=0)

    def _standing(self, process: ProcId, tid: int, turn: int) -> tuple[int, int]:
        """(turn, look since which the thread stands still in it)"""
        before, look = self._stands.get(process, {}).get(tid, (-1, 0))
        return turn, look if before == turn else self._number

    def _sure(self, halts: Mapping[Thread, Halt]) -> dict[Thread, Halt]:
        """Mark as sure: all processes that can help were asked, and what they wait for was read, after all of them stood still.

        A process with all of its threads sure is kept: as long as none of them runs, nothing about them can change.
        """
        stands: dict[ProcId, dict[int, tuple[int, int]]] = {}
        for (process, tid), halt in halts.items():
            stands.setdefault(process, {})[tid] = self._standing(process, tid, halt.turn)
        self._stands = stands
        sure: dict[Thread, Halt] = {}
        for thread, halt in halts.items():
            seen, since = self._seen[thread.process], self._settled(halt)
            need = seen.needs[thread.tid]
            asks = need.asks if need is not None else ()
            asked = (ask.kind == "is" or (ask in self._told and self._told[ask][0] >= since) for ask in asks)
            sure[thread] = replace(halt, sure=seen.look > since and (thread.process in self._kept or all(asked)))
        self._kept = {}
        for process in stands:
            own = [sure[Thread(process, tid)] for tid in stands[process]]
            if len(own) == len(self._seen[process].needs) and all(halt.sure for halt in own):
                self._kept[process] = self._seen[process], own
        return sure

    def _answers(self, process: ProcId, ask: Ask) -> bool:
        """Whether it can help in this way. A process that may not be looked into counts only if it is a parent: it may have what
        its children have."""
        if ask.kind == "is":
            return process in ask.key
        if ask.kind == "maps":
            return process not in self._aloof and any(area.place == ask.key for area in self._areas(process))
        links = self._descriptors(process)
        if links is None:
            return True
        base = f"{self._proc}/{process.pid}"
        if ask.kind == "fd":
            link, mode = ask.key
            return any(_mode(f"{base}/fd/{fd}") & _int(mode) == mode for fd in links.get(str(link), ()))
        return ask.key[0] in self._held(process, links)

    def _held(self, process: ProcId, links: Mapping[str, Sequence[int]]) -> frozenset[FileLock]:
        """Locks on the files that it has open."""
        held = self._held_by.get(process)
        if held is None:
            base = f"{self._proc}/{process.pid}/fdinfo"
            files = (fd for link, fds in links.items() if link.startswith("/") and not link.startswith("/dev/") for fd in fds)
            held = self._held_by[process] = frozenset(lock for fd in files for lock in _locks_of(f"{base}/{fd}"))
        return held

    def _descriptors(self, process: ProcId) -> dict[str, list[int]] | None:
        """Descriptors by the text of their links; None: it may have anything open. Fixed while it stands still."""
        since = self._still.get(process, -self._number)
        known = self._links.get(process)
        if known is not None and known[0] == since:
            return known[1]
        folder = f"{self._proc}/{process.pid}/fd"
        links: dict[str, list[int]] | None = {}
        try:
            names = os.listdir(folder)
            if len(names) > DESCRIPTORS:
                links, names = None, []
            for name in names:
                try:
                    link = os.readlink(f"{folder}/{name}")
                except FileNotFoundError:  # closed meanwhile
                    continue
                if links is not None:
                    links.setdefault(link, []).append(int(name))
        except PermissionError:
            links = None if process.pid in self._parents else {}
        except OSError:
            links = {}
        self._links[process] = since, links
        return links

    def _areas(self, process: ProcId) -> tuple[Area, ...]:
        since = self._still.get(process, -self._number)
        known = self._maps.get(process)
        if known is not None and known[0] == since:
            return known[1]
        try:
            areas = shared_areas(f"{self._proc}/{process.pid}")
        except OSError:
            areas = ()
        self._maps[process] = since, areas
        return areas

    # --- what a thread waits for -----------------------------------------------------------------------------------------------

    def _needs(self, process: ProcId) -> tuple[dict[int, _Need | None], frozenset[int]]:
        """The need of each thread, and the threads that only the clock wakes; empty if it is gone, stopped or not ours to see."""
        base = f"{self._proc}/{process.pid}"
        if self._names is None:
            return {}, frozenset()
        timed: dict[int, tuple[str, int] | None] = {}
        try:
            fields = stat_fields(f"{base}/stat")
            if int(fields[19]) != process.start_ticks or fields[0] in (b"Z", b"X", b"T", b"t") or int(fields[17]) > THREADS:
                return {}, frozenset()
            self._parents.update({int(fields[1])} - {1})  # init passes on nothing that its children share
            needs = {}
            for tid in thread_ids(base):
                line = read(f"{base}/task/{tid}/syscall")
                call = parse_call(line, self._names)
                needs[tid] = self._need(process, tid, call, stack_pointer(line)) if len(call.args) == 6 else None
                if needs[tid] is None and (call.name == "running" or is_timed(call)):
                    timed[tid] = None if call.name == "running" else (call.name, stack_pointer(line))
        except PermissionError:
            if process in self._still:
                self._hidden.add(process)
            return {}, frozenset()
        except OSError:
            return {}, frozenset()
        self._hidden.discard(process)
        if not timed or not any(need is not None and need.lock for need in needs.values()):
            return needs, frozenset()
        return needs, frozenset(tid for tid, where in timed.items() if self._ticks(Thread(process, tid), where))

    def _ticks(self, thread: Thread, where: tuple[str, int] | None) -> bool:
        """Whether it was found there, or running, again and again, and had run in between. `where`: None while it runs."""
        turn = None if where is None else self._turns(thread)
        before = self._beats.get(thread)
        if before is None or before.look != self._number - 1 or (where is not None and before.where != where):
            before = None
        if turn is not None and where is not None:
            cpu = self._cpu(thread)
            if before is None or cpu - before.first[1] > WORK_NS * (turn - before.first[0] + 1):
                beat = _Beat(where, self._number, turn, 0, 0, (turn, cpu))
            else:
                beat = _Beat(where, self._number, turn, before.rounds + (turn != before.turn), before.missed, before.first)
        elif before is not None:
            beat = before._replace(look=self._number, missed=before.missed + 1)
        else:
            return False
        self._beats[thread] = beat
        return beat.rounds >= BEATS and beat.missed * MISSED <= beat.rounds

    def _cpu(self, thread: Thread) -> int:
        """ns that it has used; 0 if that cannot be read."""
        try:
            return int(read(f"{self._proc}/{thread.process.pid}/task/{thread.tid}/schedstat").split()[0])
        except OSError:
            return 0

    def _need(self, process: ProcId, tid: int, call: Call, stack: int) -> _Need | None:
        name, args = call
        if name in ("flock", "fcntl"):
            return self._file_lock(process, name, args)
        if name in ("futex", "futex_wait"):
            wait = futex_wait(args, new=name == "futex_wait")
            return None if wait is None or wait.timed else self._futex(process, tid, wait, stack)
        if name in _WRITES:
            return self._one(process, _int32(args[0]), OUT)
        if process not in self._workers and self._handles(process) & _TOLD:
            return None
        if name in _READS and not (name == "recvmmsg" and args[4]):
            return self._one(process, _int32(args[0]), IN)
        if name in ("wait4", "waitid"):
            return self._child(process, name, args)
        return self._many(process, name, args)

    def _file_lock(self, process: ProcId, name: str, args: Sequence[int]) -> _Need | None:
        kind = "FLOCK" if name == "flock" else _FILE_LOCK.get(args[1])
        if kind is None:
            return None
        base = f"{self._proc}/{process.pid}"
        try:
            info = re.search(rb"^ino:\t(\d+)$", read(f"{base}/fdinfo/{args[0]}"), re.MULTILINE)
            inode = int(info[1]) if info else os.stat(f"{base}/fd/{args[0]}").st_ino  # before 5.14
            link = os.readlink(f"{base}/fd/{args[0]}")
        except OSError:
            return None
        asks = []
        for held, waits in self._file_locks():
            if (waits.inode, waits.kind) != (inode, kind) or (kind != "OFDLCK" and waits.pid != process.pid):
                continue
            holder = identify(self._proc, held.pid) if held.kind == "POSIX" else None
            if held.kind == "POSIX" and holder is None:
                return None
            asks.append(Ask("lock", (held,)) if holder is None else Ask("is", (holder,)))
        return _Need(f"{_LOCK_WORDS[kind]} on {printable(link)} (inode {inode})", tuple(asks), lock=True) if asks else None

    def _file_locks(self) -> list[tuple[FileLock, FileLock]]:
        if self._locks is None:
            try:
                self._locks = list(file_locks(self._proc))
            except OSError:
                self._locks = []
        return self._locks

    def _futex(self, process: ProcId, tid: int, wait: FutexWait, stack: int) -> _Need | None:
        area = None
        if not wait.private:
            areas = self._areas(process)
            area = next((area for area in areas if area.start <= wait.address < area.end), None)
        if area is None:  # also a thread that joins another
            if tid == process.pid and (process not in self._workers or self._handles(process) & (_TOLD | _INTERRUPT)):
                return None  # only the program knows what its first thread waits for; it may be a signal
            return _Need("another thread of its own", (Ask("is", (process,)),))
        at = wait.address - area.start + area.offset
        where = f"{at:#x} in {printable(area.path) or 'shared memory'} (inode {area.place[1]})"
        base = f"{self._proc}/{process.pid}"
        owner = owner_tid(base, wait.address, inherits=wait.inherits)
        holder = process_of(self._proc, owner) if owner else None
        if holder is not None and any(theirs.place == area.place for theirs in self._areas(holder)):
            return _Need(f"mutex {where}", (Ask("is", (holder,)),), owner, lock=True)
        if "/sem." in area.path:
            taken = self._taken(process, wait.address, area, stack)
            if taken is not None:
                return _Need(f"lock {where}", (Ask("is", (taken[0],)),), taken[1], lock=True)
        word = "semaphore" if "/sem." in area.path else "futex"
        return _Need(f"{word} {where}", (Ask("maps", area.place),), named=False)

    def _taken(self, process: ProcId, semaphore: int, area: Area, stack: int) -> tuple[ProcId, int | None] | None:
        """Which process took a semaphore that Python programs use as a lock (multiprocessing.Lock, RLock), and in which thread.

        Each process counts for itself whether it took it, in an object that has the same address in all processes forked from the
        one that made it. None: no such lock, or not exactly one near process holds it.
        """
        since = self._still.get(process, -self._number)
        known = self._objects.get(process)
        if known is None or known[:3] != (since, semaphore, stack):
            mine = self._in_memory(process, lambda memory: lock_objects_on(memory, semaphore, stack))
            known = self._objects[process] = since, semaphore, stack, 0 if mine is None else mine.address
        address = known[3]
        if not address:
            return None
        key = (area.place, address)
        if key not in self._takers:
            holders = []
            for other in dict.fromkeys((*self._near, *self._parent(process))):
                found = self._in_memory(other, lambda memory: lock_object(memory, semaphore, address))
                if found is not None and found.held and any(each.place == area.place for each in self._areas(other)):
                    tid = self._in_memory(other, partial(tid_of, thread=found.thread, machine=self._machine))
                    holders.append((other, tid))
            self._takers[key] = holders
        others = self._takers[key]
        if len(others) != 1 or others[0][0] == process:
            return None
        holder, tid = others[0]
        try:
            return holder, tid if tid in thread_ids(f"{self._proc}/{holder.pid}") else None
        except OSError:
            return None

    def _in_memory(self, process: ProcId, look: Callable[[int], _T]) -> _T | None:
        try:
            memory = os.open(f"{self._proc}/{process.pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return look(memory)
        finally:
            os.close(memory)

    def _parent(self, process: ProcId) -> list[ProcId]:
        try:
            parent = identify(self._proc, int(stat_fields(f"{self._proc}/{process.pid}/stat")[1]))
        except OSError:
            parent = None
        return [] if parent is None else [parent]

    def _child(self, process: ProcId, name: str, args: Sequence[int]) -> _Need | None:
        """wait4(pid, ...), waitid(type, id, ...); P_ALL is 0, P_PID 1."""
        first = _int32(args[0])
        wanted = {0: -1, 1: _int32(args[1])}.get(first, 0) if name == "waitid" else first
        if wanted > 0:
            pids = [wanted]
        elif wanted == -1:
            pids = self._children(process)
        else:
            return None
        children = [child for child in (identify(self._proc, pid) for pid in pids) if child is not None]
        what = f"the end of child {pids[0]}" if len(pids) == 1 else "the end of a child"
        return _Need(what, (Ask("is", tuple(children)),)) if children else None

    def _children(self, process: ProcId) -> list[int]:
        """Pids, searched in all processes where the kernel keeps no list. A process that waits for children starts no more."""
        base = f"{self._proc}/{process.pid}"
        try:
            return sorted(int(word) for tid in thread_ids(base) for word in read(f"{base}/task/{tid}/children").split())
        except OSError:
            pass
        if process not in self._offspring:
            parents: dict[int, list[int]] = {}
            for pid in _pids(self._proc):
                try:
                    parents.setdefault(int(stat_fields(f"{self._proc}/{pid}/stat")[1]), []).append(pid)
                except OSError:
                    continue
            self._offspring[process] = parents.get(process.pid, [])
        return self._offspring[process]

    def _many(self, process: ProcId, name: str, args: Sequence[int]) -> _Need | None:
        """One of many descriptors, without a time limit."""
        if name == "poll" or name == "ppoll":
            timed = _int32(args[2]) >= 0 if name == "poll" else args[2] != 0
            wanted = [] if timed else self._polled(process, args[0], args[1])
        elif name in _SELECTS:
            wanted = [] if args[4] else self._selected(process, args)
        elif name in _EPOLLS:
            timed = args[3] != 0 if name == "epoll_pwait2" else _int32(args[3]) >= 0
            wanted = [] if timed else self._watched(process, args[0])
        else:
            return None
        asks: list[Ask] = []
        whats = []
        for fd, events in wanted:
            for event in (IN, OUT):
                if events & event:
                    need = self._one(process, fd, event)
                    if need is None:
                        return None
                    asks += need.asks
                    whats.append(need.what)
        if not asks:
            return None
        more = f" or {len(whats) - 1} more" if len(whats) > 1 else ""
        return _Need(f"{whats[0]}{more}", tuple(dict.fromkeys(asks)))

    def _polled(self, process: ProcId, address: int, count: int) -> list[tuple[int, int]]:
        raw = self._memory(process, address, 8 * count) if count <= POLLED else b""
        return [(fd, events) for fd, events, _ in struct.iter_unpack("=ihh", raw) if fd >= 0]

    def _selected(self, process: ProcId, args: Sequence[int]) -> list[tuple[int, int]]:
        size = min((_int32(args[0]) + 63) // 64 * 8, 128)
        found = []
        for address, event in ((args[1], IN), (args[2], OUT)):
            raw = self._memory(process, address, size) if address and size > 0 else b""
            found += [(fd, event) for fd in range(8 * len(raw)) if raw[fd // 8] >> fd % 8 & 1]
        return found

    def _watched(self, process: ProcId, epoll: int) -> list[tuple[int, int]]:
        try:
            text = read(f"{self._proc}/{process.pid}/fdinfo/{epoll}")
        except OSError:
            return []
        pattern = re.compile(rb"^tfd:\s*(\d+)\s+events:\s*([0-9a-f]+)", re.MULTILINE)
        return [(int(match[1]), int(match[2], 16)) for match in pattern.finditer(text)][:POLLED]

    def _memory(self, process: ProcId, address: int, size: int) -> bytes:
        try:
            fd = os.open(f"{self._proc}/{process.pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            raw = os.pread(fd, size, address) if 0 < address < 1 << 63 else b""
        except OSError:
            raw = b""
        finally:
            os.close(fd)
        return raw if len(raw) == size else b""

    def _one(self, process: ProcId, fd: int, event: int) -> _Need | None:
        """A pipe or a connection whose other end is in another process; None: anything else, which the outside drives."""
        base = f"{self._proc}/{process.pid}/fd/{fd}"
        try:
            link = os.readlink(base)
            fifo = link.startswith("/") and not link.startswith("/dev/") and self._is_fifo(process, base)
        except OSError:
            return None
        doing = "reading" if event == IN else "writing"
        if link.startswith("pipe:[") or fifo:
            name = f"pipe {printable(link)}" if fifo else f"pipe {link[6:-1]}"
            ask = Ask("fd", (link, stat.S_IWUSR if event == IN else stat.S_IRUSR))
        else:
            inode = socket_inode(link)
            if inode is None:
                return None
            peer, kind = self._diag.unix_peer(inode), "unix"
            if peer is None:
                peer, kind = self._tcp_peer(inode), "TCP"
            if not peer:
                return None
            name = f"{kind} socket {inode} (peer {peer})"
            ask = Ask("fd", (f"socket:[{peer}]", 0))
        if event == IN and self._handles(process) & _TOLD and self._answers(process, ask):
            return None  # a signal handler writes to it: the self-pipe trick
        return _Need(f"{doing} {name}", (ask,))

    def _is_fifo(self, process: ProcId, path: str) -> bool:
        """Stats a file only if its reader sleeps: a stat on a dead network disk would hang."""
        return stat_fields(f"{self._proc}/{process.pid}/stat")[0] == b"S" and stat.S_ISFIFO(os.stat(path).st_mode)

    def _tcp_peer(self, inode: int) -> int | None:
        if inode not in self._pairs and self._number - self._pairs_at >= PAIRS:
            self._pairs, self._pairs_at = {**self._diag.tcp_pairs()}, self._number
            self._pairs.setdefault(inode, None)
        return self._pairs.get(inode)

    def _handles(self, process: ProcId) -> int:
        """Mask of the signals that it has handlers for."""
        if process not in self._caught:
            try:
                match = re.search(rb"^SigCgt:\t(\w+)$", read(f"{self._proc}/{process.pid}/status"), re.MULTILINE)
            except OSError:
                match = None
            self._caught[process] = int(match[1], 16) if match else _TOLD
        return self._caught[process]


def _int32(word: int) -> int:
    """A 32-bit argument of a system call, signed."""
    return (word & 0xFFFFFFFF) - ((word & 0x80000000) << 1)


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value


def _mode(path: str) -> int:
    """How a descriptor was opened: the owner's bits of its link, proc_pid_fd(5). 0 (unreadable) matches only a socket's mode."""
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0


def _locks_of(path: str) -> Iterator[FileLock]:
    """Locks that an open file description holds: proc_pid_fdinfo(5)."""
    try:
        text = read(path).decode("ascii", "replace")
    except OSError:
        return
    for line in text.splitlines():
        if line.startswith("lock:"):
            kind, _, _, pid, where, *span = line.split()[2:]
            device, _, inode = where.rpartition(":")
            yield FileLock(kind, int(pid), device, int(inode), (span[0], span[1]), waits=False)


def _pids(proc: str) -> list[int]:
    return sorted(int(name) for name in os.listdir(proc) if name.isdecimal())
