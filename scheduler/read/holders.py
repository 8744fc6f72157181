"""Finds who holds a lock, where the kernel or the lock itself says so: /proc/locks, shared mappings, the word of a mutex.

Each function reads one thing and remembers nothing. It raises OSError for what is gone or not ours to see, unless it says
otherwise. Must not know why it is called."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ...models.identity import ProcId
from . import door

PRIVATE = 128
"""FUTEX_PRIVATE_FLAG, FUTEX2_PRIVATE: include/uapi/linux/futex.h."""

PI_WAITS, PLAIN_WAITS = {6, 11, 13}, {0, 9}
"""Commands of futex(2) that wait: LOCK_PI, WAIT_REQUEUE_PI, LOCK_PI2; WAIT, WAIT_BITSET (include/uapi/linux/futex.h)."""

HAS_WAITERS, TID_MASK = 0x8000_0000, 0x3FFF_FFFF
"""FUTEX_WAITERS, FUTEX_TID_MASK (include/uapi/linux/futex.h): the word of a robust or priority-inheriting mutex holds its owner's
tid below these bits."""

PROCESS_SHARED = 128
"""PTHREAD_MUTEX_PSHARED_BIT in the kind of a mutex: nptl/pthreadP.h."""

Place = tuple[str, int]
"""A file or shared memory object: (device as in /proc/PID/maps, inode)."""


class Area(NamedTuple):
    """A mapping that other processes can share."""

    start: int
    end: int
    offset: int
    place: Place
    path: str


class FutexWait(NamedTuple):
    """A wait in futex(2) or futex_wait(2), from its arguments."""

    address: int
    private: bool  # between threads of one process
    inherits: bool  # it inherits priority: the word is the owner's tid
    timed: bool  # it ends by itself


class FileLock(NamedTuple):
    """A line of /proc/locks: a lock that is held, or with `waits` a request that waits for one."""

    kind: str  # POSIX, FLOCK, OFDLCK
    pid: int  # the process that asked for it; -1: an open file description, or a process that we cannot see
    device: str
    inode: int
    span: tuple[str, str]  # first and last byte, as the kernel writes them
    waits: bool


# A shared writable mapping in /proc/PID/maps: start, end, offset, device, inode, path
_SHARED = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) .w.s ([0-9a-f]+) (\S+) (\d+) *(.*)$", re.MULTILINE)


def futex_wait(args: Sequence[int], *, new: bool) -> FutexWait | None:
    """The wait in these six arguments; `new`: of futex_wait(2). None: it waits for nothing."""
    if new:
        return FutexWait(args[0], bool(args[3] & PRIVATE), inherits=False, timed=args[4] != 0)
    command = args[1] & 0x7F
    if command not in PI_WAITS | PLAIN_WAITS:
        return None
    return FutexWait(args[0], bool(args[1] & PRIVATE), command in PI_WAITS, args[3] != 0)


def shared_areas(process: str) -> tuple[Area, ...]:
    """Shared writable mappings of the process with this directory in procfs."""
    raw = door.shared(process)
    if b"w-s " not in raw and b"wxs " not in raw:  # usually; matching line by line takes longer than the kernel took
        return ()
    areas = []
    for match in _SHARED.finditer(raw.decode("utf-8", "replace")):
        start, end, offset, device, inode, path = match.groups()
        areas.append(Area(int(start, 16), int(end, 16), int(offset, 16), (device, int(inode)), path))
    return tuple(areas)


def owner_tid(process: str, tid: int, address: int, *, inherits: bool) -> int:
    """Tid of the owner of a mutex that a thread waits for; 0 for a semaphore, a condition variable, a lock not of glibc, and what
    cannot be read.

    A contended pthread_mutex_t has the word 2, the owner's tid at offset 8 and its kind at offset 16 (sysdeps/nptl/bits/
    struct_mutex.h). One that is robust or inherits priority has the tid in the word. The tid is of the owner's pid namespace.
    """
    try:
        raw = door.words(process, tid, 0, address, 20)
    except OSError:
        return 0
    word, owner, kind = (int.from_bytes(raw[at : at + 4], "little") for at in (0, 8, 16))
    if inherits or word & HAS_WAITERS:
        return word & TID_MASK
    return owner if word == 2 and kind & PROCESS_SHARED else 0


def file_locks(proc: str) -> Iterator[tuple[FileLock, FileLock]]:
    """(lock that is held, request that waits for it), each waiter once: proc_locks(5). Requests that wait behind each other, below
    the lock with an arrow, all wait for the lock that is held."""
    text = read(f"{proc}/locks").decode("ascii", "replace")
    held: FileLock | None = None
    for line in text.splitlines() if "->" in text else ():
        fields = line.split()[1:]
        waits = fields[:1] == ["->"]
        kind, _, _, pid, where, *span = fields[1:] if waits else fields
        device, _, inode = where.rpartition(":")
        lock = FileLock(kind, int(pid), device, int(inode), (span[0], span[1]), waits)
        if not waits:
            held = lock
        elif held is not None:
            yield held, lock


def identify(proc: str, pid: int) -> ProcId | None:
    """The process with this pid; None if it does not exist."""
    if pid <= 0:
        return None
    try:
        return ProcId(pid, int(stat_fields(f"{proc}/{pid}/stat")[19]))
    except OSError:
        return None


def process_of(proc: str, tid: int) -> ProcId | None:
    """The process of a thread. /proc/TID exists for every thread, though it is not listed."""
    try:
        match = re.search(rb"^Tgid:\s*(\d+)$", read(f"{proc}/{tid}/status"), re.MULTILINE)
    except OSError:
        return None
    return identify(proc, int(match[1])) if match else None


def turns(thread: str) -> int:
    """How often a thread was given a CPU: while the count stays the same, it is in the same wait."""
    return int(read(f"{thread}/schedstat").split()[2])


def thread_ids(process: str) -> list[int]:
    """The threads of a process, sorted."""
    return sorted(map(int, os.listdir(f"{process}/task")))  # noqa: PTH208 - hot


def stat_fields(path: str) -> list[bytes]:
    """Fields of a stat file from the state (3) on."""
    raw = read(path)
    return raw[raw.rindex(b")") + 2 :].split()


def read(path: str) -> bytes:
    """The whole text of a file of /proc, which comes page by page."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = [os.read(fd, 65536)]
        while len(parts[-1]) >= 2048:  # maps and locks come in pieces of at most a page
            parts.append(os.read(fd, 65536))
        return b"".join(parts)
    finally:
        os.close(fd)
