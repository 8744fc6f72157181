"""Finds who holds a lock, where the kernel or the lock itself says so: /proc/locks, shared mappings, the word of a mutex.

Each function reads one thing and remembers nothing. It raises OSError for what is gone or not ours to see, unless it says
otherwise. Must not know why it is called."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ...models.identity import ProcId

PRIVATE = 128
"""FUTEX_PRIVATE_FLAG, FUTEX2_PRIVATE: include/uapi/linux/futex.h."""

PI_WAITS, PLAIN_WAITS = {6, 11, 13}, {0, 9}
"""Commands of futex(2) that wait: LOCK_PI, WAIT_REQUEUE_PI, LOCK_PI2; WAIT, WAIT_BITSET (include/uapi/linux/futex.h)."""

HAS_WAITERS, TID_MASK = 0x8000_0000, 0x3FFF_FFFF
"""FUTEX_WAITERS, FUTEX_TID_MASK (include/uapi/linux/futex.h): the word of a robust or priority-inheriting mutex holds its owner's
tid below these bits."""

PROCESS_SHARED = 128
"""PTHREAD_MUTEX_PSHARED_BIT in the kind of a mutex: nptl/pthreadP.h."""

STACK = 4096
"""Bytes of a thread's stack that are searched for Python's object for the semaphore that it waits for (chosen): on 3.11 it is at
300 to
700."""

TID_IN_PTHREAD = {"x86_64": 0x2D0, "aarch64": 0xD0}
"""Offset of `tid` in glibc's struct pthread (nptl/descr.h): after a tcbhead_t padded to 704 bytes and two pointers of a list."""

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
    raw = read(f"{process}/maps")
    if b"w-s " not in raw and b"wxs " not in raw:  # usually; matching line by line takes longer than the kernel took
        return ()
    areas = []
    for match in _SHARED.finditer(raw.decode("utf-8", "replace")):
        start, end, offset, device, inode, path = match.groups()
        areas.append(Area(int(start, 16), int(end, 16), int(offset, 16), (device, int(inode)), path))
    return tuple(areas)


def owner_tid(process: str, address: int, *, inherits: bool) -> int:
    """Tid of the owner of a mutex; 0 for a semaphore, a condition variable, a lock not of glibc, and what cannot be read.

    A contended pthread_mutex_t has the word 2, the owner's tid at offset 8 and its kind at offset 16 (sysdeps/nptl/bits/
    struct_mutex.h). One that is robust or inherits priority has the tid in the word. The tid is of the owner's pid namespace.
    """
    try:
        fd = os.open(f"{process}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        raw = os.pread(fd, 20, address)
    except OSError:
        return 0
    finally:
        os.close(fd)
    word, owner, kind = (int.from_bytes(raw[at : at + 4], "little") for at in (0, 8, 16))
    if inherits or word & HAS_WAITERS:
        return word & TID_MASK
    return owner if word == 2 and kind & PROCESS_SHARED else 0


class Taken(NamedTuple):
    """A semaphore as seen by a CPython process that uses it as a lock."""

    address: int  # of the object that stands for it
    held: bool  # this process took it and has not released it
    thread: int  # pthread_t of the thread that took it


def lock_object(memory: int, semaphore: int, address: int) -> Taken | None:
    """What a CPython process knows of this semaphore, if the object at this address stands for it and is used as a lock: SemLock in
    Modules/_multiprocessing/semaphore.c, from its `handle` on, the same since 3.3. `memory`: its /proc/PID/mem, open."""
    try:
        raw = os.pread(memory, 28, address)
    except (OSError, OverflowError):
        return None
    if len(raw) < 28:
        return None
    handle, thread, count, most, kind = struct.unpack("=QQiii", raw)
    if handle != semaphore or most != 1 or kind not in (0, 1) or not -1000 < count < 1000:
        return None
    return Taken(address, count > 0, thread)


def lock_objects_on(memory: int, semaphore: int, stack: int) -> Taken | None:
    """As `lock_object`, for a thread that waits for the semaphore. The object's address is on the thread's stack, because the
    object is updated when the wait ends."""
    try:
        raw = os.pread(memory, STACK, stack)
    except (OSError, OverflowError):
        return None
    words = dict.fromkeys(struct.unpack(f"={len(raw) // 8}Q", raw[: len(raw) // 8 * 8]))
    for word in words:
        found = lock_object(memory, semaphore, word + 16) if 1 << 16 < word < 1 << 47 and word % 8 == 0 else None
        if found is not None:
            return found
    return None


def tid_of(memory: int, thread: int, machine: str) -> int:
    """Tid in glibc's descriptor of a thread; 0 if its place is unknown. The caller must check that such a thread exists."""
    try:
        return int.from_bytes(os.pread(memory, 4, thread + TID_IN_PTHREAD[machine]), "little") if machine in TID_IN_PTHREAD else 0
    except (OSError, OverflowError):
        return 0


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
