"""Finds which threads wait for which processes: for file locks, and for futexes in shared memory.

The kernel or the lock itself may name the holder. Reads /proc only. Must not know demotions, decisions or the ledger. A lock
between threads of one process (a private futex) is left out: its threads all have the same priority. What needs ptrace rights
(`syscall`, `maps`, `mem`) is left out where they are missing."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ...models.identity import ProcId
from ..hands.faults import Fault, Trouble, fault_of, is_gone, status_of
from ..ports import Run, Wait
from . import door
from .calls import FILE_LOCKS, FUTEX, FUTEX_WAIT
from .holders import (
    Area,
    Place,
    file_locks,
    futex_wait,
    identify,
    owner_tid,
    process_of,
    read,
    shared_areas,
    stat_fields,
    thread_ids,
    turns,
)
from .text import printable

READS, FAR = 32, 6
"""Threads whose system call is read per look, 4 to 8 us each: READS of those that may share memory with a demoted process, FAR of
the others, which can only wait for a file (chosen: 50 of the others are covered in two thirds of a second)."""

ALIKE = 4
"""Looks between two reads of the same demoted process (chosen): a wait among equally demoted processes is not urgent to the
millisecond (`PEERS` in `act/starvation.py`)."""

KEPT = 256
"""Most threads whose descriptor stays open between two looks (chosen): opening it each time takes three times as long."""

QUEUE = 3
"""Most waiters that are followed per lock, of the demoted ones and of the others (chosen): one is enough to have it freed."""

THREADS = 32
"""Most threads of a process that are read one by one (chosen)."""

FRESH = 12
"""Looks for which a list of threads, and what a possible holder maps or has open, stay valid: reading them takes 80 us and more
(chosen: one second at the usual pace)."""

SETTLED = 250
"""Looks for which the maps of a process that waits for nothing stay valid (chosen): they only decide which processes are read
sooner."""

MAPS = 2
"""Processes whose maps are read per look, in turn, to learn which share memory (chosen): 100 within 4 s. A process whose maps were
not read yet counts as sharing memory."""

AGAIN, STRANGERS, LASTING = 3, 12, 125
"""Looks between two reads of /proc/locks (chosen). AGAIN: while the same threads wait for files, or while it cannot be seen which
do. STRANGERS: while none does, for processes in no group. While one wait lasts, the pause doubles each time that nothing has
changed, up to LASTING. To write that file, the kernel stops all locking for a grace period of RCU: 7 to 14 ms here."""

DESCRIPTORS = 256
"""Most descriptors of a process that are compared with a locked file (chosen)."""


MAPPED, OPENED = 64, 4096
"""Most processes, beyond two for each known one, whose maps are kept, and most answers kept to whether a process has a file open
(chosen: they bound the memory)."""


class _Futex(NamedTuple):
    """A thread that waits on a futex that is not private."""

    process: ProcId
    tid: int
    address: int
    inherits: bool  # it inherits priority: the word is the owner's tid


class _Lock(NamedTuple):
    """A lock in shared memory, in this look."""

    name: str
    holder: ProcId | None
    thread: int
    possible: tuple[ProcId, ...]
    queues: list[int]  # waiters so far, not demoted and demoted


class _Call(NamedTuple):
    """A thread that is blocked in a system call."""

    process: ProcId
    tid: int
    number: int
    arguments: tuple[int, ...]


class _Threads:
    """Threads that are blocked in some system calls, read through descriptors that stay open: a descriptor belongs to its thread,
    even if the tid is reused. Those that are not ours to open (-1) are read by the hands, if there are any. `numbers`: of the
    calls."""

    def __init__(self, proc: str, numbers: Iterable[int]) -> None:
        self._proc = proc
        self._numbers = frozenset(str(number).encode() for number in numbers)
        self._open: dict[ProcId, tuple[int, dict[int, int]]] = {}  # (look of the list, descriptor by tid)
        self._count = 0
        self.denied = False  # ptrace rights were missing, since this was last reset

    def threads(self, process: ProcId, look: int) -> dict[int, int]:
        """Descriptor by tid of the threads that are read of a process."""
        listed, opened = self._open.get(process, (-FRESH, {}))
        if look - listed >= FRESH or (len(opened) > 1 and _thread_count(f"{self._proc}/{process.pid}") != len(opened)):
            opened = self._list(process, look)
        return opened

    def calls(self, chosen: Iterable[tuple[ProcId, dict[int, int]]], look: int) -> Iterable[_Call]:
        """Those of these threads that are blocked in one of the calls."""
        asked: list[tuple[ProcId, int]] = []
        for process, opened in chosen:
            for tid, fd in opened.items():
                if fd < 0:
                    asked.append((process, tid))
                    continue
                try:
                    yield from self._call(process, tid, os.pread(fd, 256, 0))
                except OSError as error:
                    if fault_of(error) is Fault.DENIED and door.denied("syscall"):
                        asked.append((process, tid))
                        self._open[process] = (look - FRESH, opened)
                    else:
                        self._failed(process, look, error)
            if self._count > KEPT:
                self._close(process)
        for (process, tid), found in zip(asked, door.calls(asked), strict=True):
            if isinstance(found, OSError):
                self._failed(process, look, found)
            else:
                yield from self._call(process, tid, found)

    def keep(self, processes: Collection[ProcId]) -> None:
        """Close the descriptors of all other processes."""
        for process in [process for process in self._open if process not in processes]:
            self._close(process)

    def _call(self, process: ProcId, tid: int, line: bytes) -> Iterable[_Call]:
        words = line.split()
        if words and words[0] in self._numbers and len(words) >= 7:
            yield _Call(process, tid, int(words[0]), tuple(int(word, 16) for word in words[1:7]))

    def _failed(self, process: ProcId, look: int, error: OSError) -> None:
        if fault_of(error) is Fault.DENIED:
            self.denied = True
        elif is_gone(error) and process in self._open:
            self._open[process] = (look - FRESH, self._open[process][1])

    def _list(self, process: ProcId, look: int) -> dict[int, int]:
        _, before = self._open.pop(process, (0, {}))
        self._count -= _open(before)
        opened: dict[int, int] = {}
        base = f"{self._proc}/{process.pid}"
        try:
            kept = {} if door.closed("syscall") else before
            for tid in thread_ids(base)[:THREADS]:
                opened[tid] = kept[tid] if tid in kept else self._opened(f"{base}/task/{tid}/syscall")
            if opened.keys() != before.keys() and int(stat_fields(f"{base}/stat")[19]) != process.start_ticks:
                raise ProcessLookupError(process.pid)
        except OSError as error:
            self.denied = self.denied or fault_of(error) is Fault.DENIED
            _close({*opened.values(), *before.values()})
            opened = before = {}
        _close({*before.values()} - {*opened.values()})
        self._open[process] = (look, opened)
        self._count += _open(opened)
        return opened

    def _opened(self, path: str) -> int:
        """A descriptor; -1 if the hands are to read it."""
        if door.closed("syscall"):
            return -1
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except PermissionError:
            if door.denied("syscall"):
                return -1
            raise

    def _close(self, process: ProcId) -> None:
        _, opened = self._open.pop(process, (0, {}))
        self._count -= _open(opened)
        _close(opened.values())


class LinuxLocks:
    """`ports.Locks` of this machine."""

    def __init__(self, proc_root: Path = Path("/proc"), machine: str = os.uname().machine) -> None:
        self._proc = str(proc_root)
        self._futex = FUTEX.get(machine, set())
        self._file_locks = FILE_LOCKS.get(machine, set())
        self._look = 0
        self._threads = _Threads(self._proc, {*self._futex, FUTEX_WAIT, *self._file_locks})
        self._turns = [0, 0]  # next turns, among those that may share memory with a demoted process and among the rest
        self._ranks: tuple[list[ProcId], list[ProcId]] | None = None  # see `_row`
        self._filers: frozenset[tuple[ProcId, int]] = frozenset()  # threads in a call that locks a file, in the last look
        self._for_files: tuple[Wait, ...] = ()  # what the last look at /proc/locks found
        self._files_at = -STRANGERS  # the look in which it was read
        self._files_pause = 0  # looks until it is read again, if longer than usual
        self._areas: dict[ProcId, tuple[int, tuple[Area, ...]]] = {}  # with the look in which they were read
        self._open: dict[tuple[ProcId, int], tuple[int, bool]] = {}  # whether this inode is open there
        self._waited: frozenset[ProcId] = frozenset()
        self._mapping = 0  # next turn to read maps
        self._demoted: Collection[ProcId] | None = None
        self._slowed: frozenset[ProcId] = frozenset()  # `_demoted` as a set
        self._looked_at: dict[ProcId, int] = {}  # demoted process -> the look in which it was last read
        self._others: Sequence[ProcId] | None = None
        self._everybody: list[ProcId] = []  # `_demoted` and `_others`, sorted

    def waits(self, demoted: Collection[ProcId], others: Sequence[ProcId]) -> tuple[Wait, ...]:
        """See `ports.Locks`: all file locks, and the futexes of as many processes as one look may cost, in turn. Processes that
        share memory with a demoted one come first."""
        self._look += 1
        locks: dict[tuple[Place, int], _Lock] = {}
        waited, filers, found = set(), set(), []
        for call in self._calls(demoted, others):
            if call.number in self._file_locks:
                filers.add((call.process, call.tid))
                waited.add(call.process)
                continue
            futex = self._futex_of(call)
            wait = None if futex is None else self._resolve(futex, self._slowed, locks)
            if wait is not None:
                waited.add(call.process)
                found.append(wait)
        self._waited = frozenset(waited)
        self._look_at_files(demoted, frozenset(filers))
        self._forget()
        return (*self._for_files, *found)

    def rest(self) -> None:
        """See `ports.Locks`."""
        self._threads.keep(())
        self._for_files, self._filers, self._waited = (), frozenset(), frozenset()
        self._files_at, self._files_pause = self._look - STRANGERS, 0

    def run(self, process: ProcId, thread: int = 0) -> Run | Trouble | None:
        """See `ports.Locks`. With more threads than are read one by one, CPU is counted in ticks of 10 ms."""
        base = f"{self._proc}/{process.pid}"
        try:
            stat = stat_fields(f"{base}/stat")
            if int(stat[19]) != process.start_ticks:
                return None
            if stat[17] == b"1" and thread in (0, process.pid):
                return Run(stat[0] == b"R", int(read(f"{base}/schedstat").split()[0]))
            tids = [thread] if thread else thread_ids(base)
        except OSError as error:
            return None if is_gone(error) else _unseen(process, error)
        runnable, cpu = False, 0
        for tid in tids[:THREADS]:
            try:
                runnable = runnable or stat_fields(f"{base}/task/{tid}/stat")[0] == b"R"
                cpu += int(read(f"{base}/task/{tid}/schedstat").split()[0])
            except OSError as error:
                if not is_gone(error):
                    return _unseen(process, error)
        if len(tids) > THREADS:
            cpu = (int(stat[11]) + int(stat[12])) * 10_000_000
        return Run(runnable, cpu)

    def cgroups(self, process: ProcId) -> tuple[str, ...] | Trouble:
        """See `ports.Locks`."""
        try:
            lines = read(f"{self._proc}/{process.pid}/cgroup").decode("utf-8", "replace").splitlines()
        except OSError as error:
            return () if is_gone(error) else _unseen(process, error)
        return tuple(sorted({line.split(":", 2)[2] for line in lines}))

    # --- file locks ------------------------------------------------------------------------------------------------------------

    def _look_at_files(self, demoted: Collection[ProcId], filers: frozenset[tuple[ProcId, int]]) -> None:
        """Read /proc/locks if it may say something new."""
        age = self._look - self._files_at
        blind = self._threads.denied or not self._file_locks
        pause = max(AGAIN if self._for_files or filers or blind else STRANGERS, self._files_pause)
        changed = filers != self._filers or any(not self._still_waits(wait) for wait in self._for_files)
        self._filers, self._threads.denied = filers, False
        if age >= pause or changed:
            found = tuple(self._file_waits(demoted))
            same = bool(found) and found == self._for_files and not changed and not blind
            self._files_pause = min(2 * pause, LASTING) if same else 0
            self._files_at, self._for_files = self._look, found

    def _still_waits(self, wait: Wait) -> bool:
        """Whether this is still the same wait."""
        try:
            return not wait.thread or turns(f"{self._proc}/{wait.waiter.pid}/task/{wait.thread}") == wait.turn
        except OSError:
            return False

    def _file_waits(self, demoted: Collection[ProcId]) -> Iterable[Wait]:
        """Waits in /proc/locks: a lock, and below it, with an arrow, each process that waits for it: proc(5).

        flock(2) names the process that called it, and others may have inherited the descriptor since (`flock FILE COMMAND`). An
        open file description lock names none. Then any demoted process that has the file open may hold it.
        """
        try:
            pairs = list(file_locks(self._proc))
        except OSError:
            return
        for held, waits in pairs:
            waiter = identify(self._proc, waits.pid)
            if waiter is None or waits.kind not in ("POSIX", "FLOCK", "OFDLCK"):
                continue
            certain = identify(self._proc, held.pid) if waits.kind == "POSIX" else None
            possible: list[ProcId] = []
            if certain is None:
                possible = [process for process in sorted(demoted) if process != waiter and self._has_open(process, waits.inode)]
                owner = identify(self._proc, held.pid)
                if owner is not None and owner not in possible:
                    possible.append(owner)
            thread, turn = self._blocked_thread(waiter)
            name = {"POSIX": "fcntl lock", "FLOCK": "flock", "OFDLCK": "open file lock"}[waits.kind]
            lock = f"{name} on inode {waits.inode} of device {waits.device}"
            yield Wait(waiter, thread, turn, lock, certain, 0, tuple(possible))

    def _blocked_thread(self, process: ProcId) -> tuple[int, int]:
        """(thread that waits for a file lock, how often it was given a CPU); (0, 0) if that is not known."""
        base = f"{self._proc}/{process.pid}"
        try:
            tids = thread_ids(base)[:THREADS]
            if len(tids) > 1:
                tids = [tid for tid in tids if _system_call(door.call(base, tid))[0] in self._file_locks]
            return (tids[0], turns(f"{base}/task/{tids[0]}")) if tids else (0, 0)
        except OSError:
            return 0, 0

    def _has_open(self, process: ProcId, inode: int) -> bool:
        """Compares by inode alone: the device in /proc/locks is not that of stat(2) on overlay and btrfs."""
        age, known = self._open.get((process, inode), (-2 * FRESH, False))
        if self._look - age < FRESH + process.pid % FRESH:
            return known
        try:
            known = door.has_open(f"{self._proc}/{process.pid}", inode, DESCRIPTORS)
        except OSError:
            known = False  # not permitted: /proc/locks itself still names a holder
        self._open[process, inode] = (self._look, known)
        return known

    # --- futexes ---------------------------------------------------------------------------------------------------------------

    def _calls(self, demoted: Collection[ProcId], others: Sequence[ProcId]) -> Iterable[_Call]:
        """Blocked threads: those that waited in the last look, then in turn the next few of the processes that share memory with a
        demoted one, or may, and of the rest. Demoted processes are not read each time."""
        if not (self._futex or self._file_locks):
            return
        if demoted is not self._demoted or others is not self._others:
            self._demoted, self._others, self._everybody = demoted, others, sorted({*demoted, *others})
            self._slowed = frozenset(demoted)
            self._looked_at = {process: look for process, look in self._looked_at.items() if process in self._slowed}
            self._threads.keep(set(self._everybody))
            self._ranks = None
        self._refresh()
        chosen = {process: self._threads.threads(process, self._look) for process in self._everybody if process in self._waited}
        for rank, most in enumerate((READS, FAR)):
            row = self._row(rank)
            for _ in row:
                if most <= 0:
                    break
                process = row[self._turns[rank] % len(row)]
                self._turns[rank] += 1
                if process not in self._waited and not self._was_looked_at(process):
                    chosen[process] = self._threads.threads(process, self._look)
                    most -= max(1, len(chosen[process]))
        yield from self._threads.calls(chosen.items(), self._look)

    def _was_looked_at(self, process: ProcId) -> bool:
        """Whether it is demoted and was read a moment ago. If it was not, it counts as read now."""
        if process not in self._slowed:
            return False
        if self._look - self._looked_at.get(process, -ALIKE) < ALIKE:
            return True
        self._looked_at[process] = self._look
        return False

    def _row(self, rank: int) -> list[ProcId]:
        """Processes that share memory with a demoted one, or may (rank 0), and the rest (rank 1): they are read in turn."""
        if self._ranks is None:
            theirs = {area.place for process in self._demoted or () for area in self._known(process) or ()}
            near = {process for process in self._everybody if self._may_share(process, theirs)}
            self._ranks = sorted(near), sorted(set(self._everybody) - near)
        return self._ranks[rank]

    def _refresh(self) -> None:
        """Read the maps of the next few processes, if those that are kept are old."""
        count = len(self._everybody)
        for step in range(min(MAPS, count)):
            process = self._everybody[(self._mapping + step) % count]
            if self._look - self._areas.get(process, (-SETTLED, ()))[0] >= SETTLED:
                self._map(process)
        self._mapping += MAPS

    def _known(self, process: ProcId) -> tuple[Area, ...] | None:
        known = self._areas.get(process)
        return None if known is None else known[1]

    def _may_share(self, process: ProcId, theirs: Collection[Place]) -> bool:
        areas = self._known(process)
        return areas is None or any(area.place in theirs for area in areas)

    def _futex_of(self, call: _Call) -> _Futex | None:
        """The futex that is waited for, if it is not private."""
        if call.number not in self._futex and call.number != FUTEX_WAIT:
            return None
        wait = futex_wait(call.arguments, new=call.number == FUTEX_WAIT)
        return None if wait is None or wait.private else _Futex(call.process, call.tid, wait.address, wait.inherits)

    def _resolve(self, futex: _Futex, demoted: frozenset[ProcId], locks: dict[tuple[Place, int], _Lock]) -> Wait | None:
        """What the futex is, and which process holds it or may hold it. None: no demoted process can hold it, it is not known, or
        `QUEUE` others wait for it. `locks`: those found in this look."""
        area = self._area(futex.process, futex.address)
        if area is None:
            return None
        at = futex.address - area.start + area.offset
        lock = locks.get((area.place, at))
        if lock is None:
            owner, thread = self._owner(futex, area)
            possible = () if owner else tuple(each for each in sorted(demoted) if self._shares(each, area.place))
            name = f"{'mutex' if owner else 'futex'} {at:#x} in {printable(area.path) or 'shared memory'} (inode {area.place[1]})"
            lock = locks[area.place, at] = _Lock(name, owner, thread, possible, [0, 0])
        queue = int(futex.process in demoted)
        if lock.queues[queue] >= QUEUE or (lock.holder is None and not set(lock.possible) - {futex.process}):
            return None
        lock.queues[queue] += 1
        try:
            turn = turns(f"{self._proc}/{futex.process.pid}/task/{futex.tid}")
        except OSError:
            return None
        possible = tuple(each for each in lock.possible if each != futex.process)
        return Wait(futex.process, futex.tid, turn, lock.name, lock.holder, lock.thread, possible)

    def _owner(self, futex: _Futex, area: Area) -> tuple[ProcId | None, int]:
        """(process, tid) of the owner of a mutex. (None, 0) for a semaphore, a condition variable, and a lock not of glibc.

        A tid counts only if its process maps the same object: another pid namespace numbers differently, and a word that is not
        a mutex may hold any number.
        """
        tid = owner_tid(f"{self._proc}/{futex.process.pid}", futex.tid, futex.address, inherits=futex.inherits)
        process = process_of(self._proc, tid) if tid else None
        if process is None or not (self._shares(process, area.place) or any(a.place == area.place for a in self._map(process))):
            return None, 0
        return process, tid

    def _shares(self, process: ProcId, place: Place) -> bool:
        age, areas = self._areas.get(process, (-2 * FRESH, ()))
        if self._look - age >= FRESH + process.pid % FRESH:  # not all of them in the same look
            areas = self._map(process)
        return any(area.place == place for area in areas)

    def _area(self, process: ProcId, address: int) -> Area | None:
        """The shared mapping that contains an address."""
        for again in (False, True):
            areas = self._map(process) if again else self._areas.get(process, (0, ()))[1]
            for area in areas:
                if area.start <= address < area.end:
                    return area
        return None

    def _map(self, process: ProcId) -> tuple[Area, ...]:
        """Read the shared writable mappings from /proc/PID/maps."""
        try:
            areas = shared_areas(f"{self._proc}/{process.pid}")
        except OSError:
            areas = ()
        if self._known(process) != areas:
            self._ranks = None
        self._areas[process] = (self._look, areas)
        return areas

    # --- below -----------------------------------------------------------------------------------------------------------------

    def _forget(self) -> None:
        if len(self._areas) > 2 * len(self._everybody) + MAPPED:
            self._areas = {process: self._areas[process] for process in self._everybody if process in self._areas}
        if len(self._open) > OPENED:
            self._open.clear()


def _unseen(process: ProcId, error: OSError) -> Trouble:
    return Trouble(status_of(error), f"pid {process.pid} cannot be read: {error.strerror}")


def _system_call(line: bytes) -> tuple[int, tuple[int, ...]]:
    """(number, six arguments) of the call that a thread is blocked in; (-1, ()) if it runs or is in no call: proc(5)."""
    words = line.split()
    if len(words) < 7:
        return -1, ()
    return int(words[0]), tuple(int(word, 16) for word in words[1:7])


def _open(opened: Mapping[int, int]) -> int:
    """How many of these descriptors are open."""
    return sum(fd >= 0 for fd in opened.values())


def _close(descriptors: Iterable[int]) -> None:
    for fd in descriptors:
        if fd >= 0:
            os.close(fd)


def _thread_count(process: str) -> int:
    """The number of threads; -1 if it is gone. /proc/PID/task has a link for each thread, and two of its own."""
    try:
        return os.stat(f"{process}/task").st_nlink - 2  # noqa: PTH116 - hot
    except OSError:
        return -1
