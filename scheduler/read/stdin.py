"""Finds out whether the parent of a process feeds its standard input, and whether the process waits for input. Must not know what
that means.

A helper that answers through a pipe (a spelling checker, a language server, a chess engine) is fed by its parent and waits for the
next question. A part of a shell pipeline is not fed by its parent. What a supervisor starts with a pipe never waits for input.
"""

from __future__ import annotations

import platform
import stat
from collections.abc import Callable, Iterator

from ...models.identity import ProcId
from ..hands.reads import socket_inode
from . import door
from .calls import NUMBERS, parse_call

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

    def feeds(self, parent: str, path: str, known: ProcId | None = None) -> bool:
        """Whether a process feeds another, `known`; both are directories like /proc/PID. False if that cannot be seen."""
        try:
            link = door.link(path, "fd/0", known)
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
        found = door.links(path, _MOST_LINKS, modes=True)
    except OSError:
        return
    for _, link, mode in found.links:
        # both ends of a pipe are one inode; what the descriptor may do is the mode of its link, proc_pid_fd(5)
        if link.startswith("socket:[") or (link.startswith("pipe:[") and mode & stat.S_IWUSR):
            yield link


def awaits_input(path: str) -> bool:
    """Whether the main thread of a process is in a call that reads its standard input. False without ptrace rights."""
    try:
        call = parse_call(door.call(path, int(path[path.rindex("/") + 1 :])), _NAMES)
    except OSError:
        return False
    return call.name in _READS and call.args[:1] == (0,)
