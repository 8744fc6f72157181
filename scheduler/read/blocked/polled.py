"""Reads which descriptors and events a thread in poll(2), select(2) or epoll_wait(2) waits for, from its memory and /proc."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Sequence

from ..calls import Call, int32
from ..holders import read

IN, OUT = 0x1, 0x4
"""POLLIN and POLLOUT, the same in epoll(7): include/uapi/asm-generic/poll.h."""

POLLED = 256
"""Most descriptors of one poll(2) or epoll(7) that are examined. Chosen."""

_WATCHED = re.compile(rb"^tfd:\s*(\d+)\s+events:\s*([0-9a-f]+)", re.MULTILINE)  # proc_pid_fdinfo(5)


def wanted(process: str, call: Call) -> list[tuple[int, int]]:
    """(descriptor, events) of each descriptor that the call polls. `process`: its directory in procfs. Empty: it is another call,
    or it cannot be read."""
    name, args = call
    if name in ("poll", "ppoll"):
        return _polled(process, args[0], args[1])
    if name in ("select", "pselect6"):
        return _selected(process, args)
    if name in ("epoll_wait", "epoll_pwait", "epoll_pwait2"):
        return _watched(process, args[0])
    return []


def _polled(process: str, address: int, count: int) -> list[tuple[int, int]]:
    raw = _memory(process, address, 8 * count) if count <= POLLED else b""
    return [(fd, events) for fd, events, _ in struct.iter_unpack("=ihh", raw) if fd >= 0]


def _selected(process: str, args: Sequence[int]) -> list[tuple[int, int]]:
    size = min((int32(args[0]) + 63) // 64 * 8, 128)
    found = []
    for address, event in ((args[1], IN), (args[2], OUT)):
        raw = _memory(process, address, size) if address and size > 0 else b""
        found += [(fd, event) for fd in range(8 * len(raw)) if raw[fd // 8] >> fd % 8 & 1]
    return found


def _watched(process: str, epoll: int) -> list[tuple[int, int]]:
    try:
        text = read(f"{process}/fdinfo/{epoll}")
    except OSError:
        return []
    return [(int(match[1]), int(match[2], 16)) for match in _WATCHED.finditer(text)][:POLLED]


def _memory(process: str, address: int, size: int) -> bytes:
    """`size` bytes of the memory of a process; b"" if not all of them can be read."""
    try:
        fd = os.open(f"{process}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        raw = os.pread(fd, size, address) if 0 < address < 1 << 63 else b""
    except OSError:
        raw = b""
    finally:
        os.close(fd)
    return raw if len(raw) == size else b""
