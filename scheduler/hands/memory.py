"""Words in the memory of other processes, as far as they say who holds a lock and which descriptors a thread waits for.

The memory of a process has its secrets. So `Word` reads only where a thread has pointed the kernel to, in a call that waits; and of
a lock of Python only who holds it is said, at an address that looks like one. Must not know who asks.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from ...models.lean import NamedTuple

_FUTEX, _POLL, _SELECT = {0: 20}, {0: 2048}, {1: 1024, 2: 1024}
_OTHERS = {98: _FUTEX, 455: _FUTEX}
POINTERS = {
    "x86_64": {202: _FUTEX, 455: _FUTEX, 7: _POLL, 271: _POLL, 23: _SELECT, 270: _SELECT},
    "aarch64": {**_OTHERS, 73: _POLL, 72: _SELECT},
    "riscv64": _OTHERS,
    "loongarch64": _OTHERS,
    "s390x": {238: _FUTEX, 455: _FUTEX},
    "ppc64le": {221: _FUTEX, 455: _FUTEX},
    "ppc64": {221: _FUTEX, 455: _FUTEX},
}
"""Calls that wait, by machine and number (`read/calls.py` has the sources): the arguments that point to what is waited for, and the
most bytes there. A futex: glibc's mutex up to its kind. poll(2): 256 descriptors. select(2): 8,192 bits."""

STACK = 4096
"""Bytes of a thread's stack that are searched for Python's object for the semaphore that it waits for (chosen): on 3.11 it is at
300 to
700."""

TID_IN_PTHREAD = {"x86_64": 0x2D0, "aarch64": 0xD0}
"""Offset of `tid` in glibc's struct pthread (nptl/descr.h): after a tcbhead_t padded to 704 bytes and two pointers of a list."""

MAPS = 8 << 20
"""Most bytes of /proc/PID/maps that are read: more than the 65,530 mappings that a process may have."""

_SEMAPHORE = b"/sem."  # in the names of POSIX semaphores, below /dev/shm: sem_overview(7)


class Call(NamedTuple):
    """The system call that a thread is blocked in."""

    number: int
    arguments: tuple[int, ...]  # six
    stack: int  # its stack pointer


class Taken(NamedTuple):
    """A semaphore as seen by a CPython process that uses it as a lock."""

    held: bool  # this process took it and has not released it
    tid: int  # thread that took it; 0 if its place is unknown. The caller must check that such a thread exists


def words(process: str, address: int, size: int) -> bytes:
    """`size` bytes of the memory of the process with this directory in procfs; b"" if not all of them are mapped. Raises OSError if
    it may not be read or is gone."""
    memory = os.open(f"{process}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _at(memory, address, size)
    finally:
        os.close(memory)


def pointed(process: str, tid: int, argument: int, address: int, size: int) -> bytes:
    """As `words`, where an argument of the call that a thread waits in points to; b"" if it waits for something else by now."""
    call = call_of(process, tid)
    most = 0 if call is None or call.arguments[argument] != address else _pointers(call.number).get(argument, 0)
    return words(process, address, size) if 0 < size <= most else b""


def lock_on_stack(process: str, semaphore: int, stack: int) -> int:
    """Address of the object by which a CPython process knows a semaphore that it uses as a lock: the object is on the stack of a
    thread that waits for it, because it is updated when the wait ends. 0 if there is none. Raises OSError."""
    memory = os.open(f"{process}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        raw = _up_to(memory, stack, STACK)
        for word in dict.fromkeys(struct.unpack(f"={len(raw) // 8}Q", raw[: len(raw) // 8 * 8])):
            if 1 << 16 < word < 1 << 47 and word % 8 == 0 and _lock(memory, semaphore, word + 16) is not None:
                return int(word) + 16
        return 0
    finally:
        os.close(memory)


def lock_waited_for(process: str, tid: int, semaphore: int) -> int:
    """As `lock_on_stack`, for the stack of a thread that waits for this semaphore; 0 if it does not."""
    call = call_of(process, tid)
    if call is None or _pointers(call.number) is not _FUTEX or call.arguments[0] != semaphore:
        return 0
    return lock_on_stack(process, semaphore, call.stack) if is_semaphore(process, semaphore) else 0


def taken(process: str, semaphore: int, address: int) -> Taken | None:
    """What a CPython process knows of this semaphore, if the object at this address stands for it and is used as a lock. Raises
    OSError."""
    memory = os.open(f"{process}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = _lock(memory, semaphore, address)
        if found is None:
            return None
        held, thread = found
        offset = TID_IN_PTHREAD.get(os.uname().machine)
        return Taken(held, 0 if offset is None else int.from_bytes(_at(memory, thread + offset, 4), "little"))
    finally:
        os.close(memory)


def is_semaphore(process: str, address: int) -> bool:
    """Whether a POSIX semaphore is mapped there. Raises OSError."""
    for line in shared_lines(text(f"{process}/maps", MAPS)):
        start, _, end = line.split(b" ", 1)[0].partition(b"-")
        if _SEMAPHORE in line and int(start, 16) <= address < int(end, 16):
            return True
    return False


def shared_lines(maps: bytes) -> Iterator[bytes]:
    """Lines of /proc/PID/maps with mappings that other processes can share and write to."""
    if b"w-s " not in maps and b"wxs " not in maps:  # usually; looking line by line takes longer than the kernel took
        return
    for line in maps.splitlines():
        rights = line.partition(b" ")[2][:4]
        if rights[1:2] == b"w" and rights[3:] == b"s":
            yield line


def call_of(process: str, tid: int) -> Call | None:
    """The system call that a thread is blocked in; None if it runs, or waits outside of one. Raises OSError."""
    fields = text(f"{process}/task/{tid}/syscall", 512).split()
    if len(fields) < 9:
        return None
    return Call(int(fields[0]), tuple(int(field, 16) for field in fields[1:7]), int(fields[7], 16))


def text(path: str, most: int, below: int | None = None) -> bytes:
    """At most `most` bytes of a file of /proc, which comes page by page. `below`: an open directory. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=below)
    try:
        parts, left = [], most
        while left > 0:
            parts.append(os.read(fd, min(1 << 16, left)))
            left -= len(parts[-1])
            if len(parts[-1]) < 2048:  # maps and locks come in pieces of at most a page
                break
        return b"".join(parts)
    finally:
        os.close(fd)


def _pointers(number: int) -> dict[int, int]:
    return POINTERS.get(os.uname().machine, {}).get(number, {})


def _lock(memory: int, semaphore: int, address: int) -> tuple[bool, int] | None:
    """(held, pthread_t of the thread that took it) if SemLock of Modules/_multiprocessing/semaphore.c is there, from its `handle`
    on, the same since 3.3."""
    raw = _at(memory, address, 28)
    if not raw:
        return None
    handle, thread, count, most, sort = struct.unpack("=QQiii", raw)
    if handle != semaphore or most != 1 or sort not in (0, 1) or not -1000 < count < 1000:
        return None
    return count > 0, thread


def _at(memory: int, address: int, size: int) -> bytes:
    raw = _up_to(memory, address, size)
    return raw if len(raw) == size else b""


def _up_to(memory: int, address: int, size: int) -> bytes:
    if not 0 < address < 1 << 63:
        return b""
    try:
        return os.pread(memory, size, address)
    except OSError:  # EIO where nothing is mapped; no longer ours, or gone
        return b""
