"""Reads which descriptors and events a thread in poll(2), select(2) or epoll_wait(2) waits for, from its memory and /proc."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence

from .. import door
from ..calls import Call, int32

IN, OUT = 0x1, 0x4
"""POLLIN and POLLOUT, the same in epoll(7): include/uapi/asm-generic/poll.h."""

POLLED = 256
"""Most descriptors of one poll(2) or epoll(7) that are examined. Chosen."""

_WATCHED = re.compile(rb"^tfd:\s*(\d+)\s+events:\s*([0-9a-f]+)", re.MULTILINE)  # proc_pid_fdinfo(5)


def wanted(process: str, tid: int, call: Call) -> list[tuple[int, int]]:
    """(descriptor, events) of each descriptor that the call of a thread polls. `process`: its directory in procfs. Empty: it is
    another call, or it cannot be read."""
    name, args = call
    if name in ("poll", "ppoll"):
        return _polled(process, tid, args[0], args[1])
    if name in ("select", "pselect6"):
        return _selected(process, tid, args)
    if name in ("epoll_wait", "epoll_pwait", "epoll_pwait2"):
        return _watched(process, args[0])
    return []


def _polled(process: str, tid: int, address: int, count: int) -> list[tuple[int, int]]:
    raw = _memory(process, tid, 0, address, 8 * count) if 0 < count <= POLLED else b""
    return [(fd, events) for fd, events, _ in struct.iter_unpack("=ihh", raw) if fd >= 0]


def _selected(process: str, tid: int, args: Sequence[int]) -> list[tuple[int, int]]:
    size = min((int32(args[0]) + 63) // 64 * 8, 128)
    found = []
    for number, event in ((1, IN), (2, OUT)):
        raw = _memory(process, tid, number, args[number], size) if args[number] and size > 0 else b""
        found += [(fd, event) for fd in range(8 * len(raw)) if raw[fd // 8] >> fd % 8 & 1]
    return found


def _watched(process: str, epoll: int) -> list[tuple[int, int]]:
    try:
        text = door.fdinfo(process, epoll)
    except OSError:
        return []
    return [(int(match[1]), int(match[2], 16)) for match in _WATCHED.finditer(text)][:POLLED]


def _memory(process: str, tid: int, argument: int, address: int, size: int) -> bytes:
    """`size` bytes of the memory of a process, where an argument of a thread's call points to; b"" if they cannot be read."""
    try:
        return door.words(process, tid, argument, address, size)
    except OSError:
        return b""
