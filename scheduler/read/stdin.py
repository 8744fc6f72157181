"""Finds out whether the parent of a process feeds its standard input, and whether the process waits for input. Must not know what
that means.

A helper that answers through a pipe (a spelling checker, a language server, a chess engine) is fed by its parent and waits for the
next question. A part of a shell pipeline is not fed by its parent. What a supervisor starts with a pipe never waits for input.
"""

# ruff: noqa: PTH115, PTH208 -- Path objects cost more than the system calls

from __future__ import annotations

import os
import platform
import stat
from collections.abc import Callable, Iterator

from .calls import NUMBERS, parse_call
from .sockets import socket_inode

_READS = ("read", "readv", "recvfrom", "recvmsg")  # system calls whose first argument is the descriptor that is read
_NAMES = NUMBERS.get(platform.machine(), {})
_MOST_LINKS = 4096  # descriptors of a parent that are read (chosen)


class Feeders:
    """Says which processes feed the standard input of others. Each is read at most once between two calls of `forget`.

    `peer`: inode of the other end of a unix socket, None if it has none.
    """

    def __init__(self, peer: Callable[[int], int | None]) -> None:
        self._peer = peer
        self._ends: dict[str, frozenset[str]] = {}

    def forget(self) -> None:
        """Descriptors may have come and gone."""
        self._ends.clear()

    def feeds(self, parent: str, path: str) -> bool:
        """Whether a process feeds another; both are directories like /proc/PID. False if that cannot be seen."""
        try:
            link = os.readlink(f"{path}/fd/0")
        except OSError:  # closed, gone, or not ours
            return False
        inode = socket_inode(link)
        if inode is not None:
            link = f"socket:[{self._peer(inode)}]"
        elif not link.startswith("pipe:["):
            return False
        if parent not in self._ends:
            self._ends[parent] = frozenset(_ends(parent))
        return link in self._ends[parent]


def _ends(path: str) -> Iterator[str]:
    """Links of the sockets that a process has, and of the pipes that it may write to."""
    try:
        names = os.listdir(f"{path}/fd")[:_MOST_LINKS]
    except OSError:
        return
    for name in names:
        try:
            link = os.readlink(f"{path}/fd/{name}")
            # both ends of a pipe are one inode; what the descriptor may do is the mode of its link, proc_pid_fd(5)
            if link.startswith("socket:[") or (link.startswith("pipe:[") and os.lstat(f"{path}/fd/{name}").st_mode & stat.S_IWUSR):
                yield link
        except OSError:  # closed meanwhile
            continue


def awaits_input(path: str) -> bool:
    """Whether the main thread of a process is in a call that reads its standard input. False without ptrace rights."""
    try:
        fd = os.open(f"{path}/syscall", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        call = parse_call(os.pread(fd, 256, 0), _NAMES)
    except OSError:
        return False
    finally:
        os.close(fd)
    return call.name in _READS and call.args[:1] == (0,)
