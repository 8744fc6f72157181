"""Waits for a futex: mutexes, semaphores and other locks in shared memory, and other threads of the same process."""

from __future__ import annotations

from ....models.identity import ProcId
from ...hands.memory import Taken
from .. import door
from ..holders import (
    Area,
    FutexWait,
    Place,
    identify,
    owner_tid,
    process_of,
    stat_fields,
    thread_ids,
)
from ..text import printable
from .belongings import Belongings
from .records import START, Is, Maps, Need, Query
from .signals import INTERRUPT, NOTICES, Signals

_SEMAPHORES = "/sem."  # in the names of POSIX semaphores, below /dev/shm: sem_overview(7)


class Futexes:
    """Finds what a thread needs that waits for a futex."""

    def __init__(self, proc: str, belongings: Belongings, signals: Signals) -> None:
        self._proc = proc
        self._belongings = belongings
        self._signals = signals
        self._python = _PythonLocks(proc, belongings)
        self._query = START

    def begin(self, query: Query) -> None:
        """A new look."""
        self._query = query
        self._python.begin(query)

    def need(self, process: ProcId, tid: int, wait: FutexWait, stack: int) -> Need | None:
        """What the thread needs. None: it may wait for anything."""
        area = None
        if not wait.private:
            areas = self._belongings.areas(process)
            area = next((area for area in areas if area.start <= wait.address < area.end), None)
        if area is None:  # also a thread that joins another
            return self._need_of_its_own(process, tid)
        at = wait.address - area.start + area.offset
        where = f"{at:#x} in {printable(area.path) or 'shared memory'} (inode {area.place[1]})"
        owner = owner_tid(f"{self._proc}/{process.pid}", tid, wait.address, inherits=wait.inherits)
        holder = process_of(self._proc, owner) if owner else None
        if holder is not None and any(theirs.place == area.place for theirs in self._belongings.areas(holder)):
            return Need(f"mutex {where}", (Is((holder,)),), owner, lock=True)
        if _SEMAPHORES in area.path:
            taken = self._python.taken(process, tid, wait.address, area, stack)
            if taken is not None:
                return Need(f"lock {where}", (Is((taken[0],)),), taken[1], lock=True)
        word = "semaphore" if _SEMAPHORES in area.path else "futex"
        return Need(f"{word} {where}", (Maps(area.place),), named=False)

    def rest(self) -> None:
        """Release what was kept for the next look."""
        self._python.rest()

    def _need_of_its_own(self, process: ProcId, tid: int) -> Need | None:
        """What a thread needs that waits for another thread of its process. None for a first thread that may be waiting for a
        signal: only the program knows."""
        if tid == process.pid and (process not in self._query.workers or self._signals.handled(process) & (NOTICES | INTERRUPT)):
            return None
        return Need("another thread of its process", (Is((process,)),))


class _PythonLocks:
    """Semaphores that Python programs use as locks: multiprocessing.Lock, RLock.

    Each process counts for itself whether it took such a lock, in an object that has the same address in all processes forked from
    the one that made it.
    """

    def __init__(self, proc: str, belongings: Belongings) -> None:
        self._proc = proc
        self._belongings = belongings
        self._query = START
        self._objects: dict[ProcId, tuple[int, int, int, int]] = {}  # (version, semaphore, stack, Python's object for it or 0)
        self._takers: dict[tuple[Place, int], list[tuple[ProcId, int]]] = {}  # of this look: near processes that hold it

    def begin(self, query: Query) -> None:
        """A new look."""
        self._query = query
        self._takers.clear()
        for process in [process for process in self._objects if process not in query.still]:
            del self._objects[process]

    def taken(self, process: ProcId, tid: int, semaphore: int, area: Area, stack: int) -> tuple[ProcId, int | None] | None:
        """(the process that took the lock a thread waits for, the thread that took it, or None if that has ended). None: the
        semaphore is not such a lock, or not exactly one near process holds it."""
        address = self._object(process, tid, semaphore, stack)
        if not address:
            return None
        key = (area.place, address)
        if key not in self._takers:
            holders = []
            for other in dict.fromkeys((*self._query.near, *self._parent(process))):
                found = self._taken(other, semaphore, address)
                if found is not None and found.held and any(each.place == area.place for each in self._belongings.areas(other)):
                    holders.append((other, found.tid))
            self._takers[key] = holders
        others = self._takers[key]
        if len(others) != 1 or others[0][0] == process:
            return None
        holder, taker = others[0]
        try:
            return holder, taker if taker in thread_ids(f"{self._proc}/{holder.pid}") else None
        except OSError:
            return None

    def rest(self) -> None:
        """Release what was kept for the next look."""
        self._objects.clear()

    def _object(self, process: ProcId, tid: int, semaphore: int, stack: int) -> int:
        """Address of Python's object for the semaphore that a thread with this stack waits for; 0 if there is none."""
        version = self._query.version(process)
        known = self._objects.get(process)
        if known is None or known[:3] != (version, semaphore, stack):
            try:
                mine = door.lock(f"{self._proc}/{process.pid}", tid, semaphore, stack)
            except OSError:
                mine = 0
            known = self._objects[process] = version, semaphore, stack, mine
        return known[3]

    def _parent(self, process: ProcId) -> list[ProcId]:
        try:
            parent = identify(self._proc, int(stat_fields(f"{self._proc}/{process.pid}/stat")[1]))
        except OSError:
            parent = None
        return [] if parent is None else [parent]

    def _taken(self, process: ProcId, semaphore: int, address: int) -> Taken | None:
        """What the process knows of the semaphore; None if that may not be read."""
        try:
            return door.taken(f"{self._proc}/{process.pid}", semaphore, address)
        except OSError:
            return None
