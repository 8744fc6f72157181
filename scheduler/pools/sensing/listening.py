"""The accept queues of a process's listening sockets: connections that wait for a worker. Must not know pools.

For a process in another network namespace its own /proc/PID/net is read; unix sockets there cannot be counted.
"""

from __future__ import annotations

import socket
from pathlib import Path

from ...hands.reads import MOST_DESCRIPTORS, socket_inode
from ...read import door
from ...read.sockets import Listener, SockDiag, accept_queues_of


class AcceptQueue:
    """Connections waiting at the listening sockets that a process holds."""

    def __init__(self, proc_root: Path, pid: int) -> None:
        self._process = proc_root / str(pid)
        self._proc_root = proc_root
        self._diag = SockDiag()
        self._inet: dict[int, frozenset[int]] = {}  # address family -> inodes
        self._unix: frozenset[int] = frozenset()
        self._elsewhere = False
        self.descriptors: frozenset[int] = frozenset()
        """Numbers of the listening descriptors in the process; forked workers have the same."""
        self.at: frozenset[Listener] = frozenset()
        """Where the TCP sockets listen; empty if they are in another network namespace."""
        self.refresh()

    def refresh(self) -> None:
        """Look for the listening sockets again (they change on reload)."""
        held = self._sockets()
        self._elsewhere = self._other_namespace()
        self._inet = {}
        at: list[Listener] = []
        for family in (socket.AF_INET, socket.AF_INET6):
            listening = self._inet_lengths(family)
            inodes = frozenset(listening or ()) & held.keys()
            if inodes:
                self._inet[family] = inodes
                places = {} if self._elsewhere else self._diag.listening_at(family) or {}
                at += [(family, *places[inode]) for inode in sorted(inodes & places.keys())]
        self._unix = frozenset((None if self._elsewhere else self._diag.unix_listening()) or ()) & held.keys()
        self.at = frozenset(at)
        inodes = frozenset().union(self._unix, *self._inet.values())
        self.descriptors = frozenset(fd for inode in sorted(inodes) for fd in held[inode])

    def waiting(self) -> int | None:
        """Connections that no worker has accepted yet; None: no listening socket, or the sockets cannot be read."""
        total, seen = 0, False
        for family, inodes in sorted(self._inet.items()):
            lengths = self._inet_lengths(family) or {}
            for inode in sorted(inodes & lengths.keys()):
                total, seen = total + lengths[inode], True
        for inode in sorted(self._unix):
            length = self._diag.unix_accept_queue(inode)
            if length is not None:
                total, seen = total + length, True
        return total if seen else None

    def close(self) -> None:
        """Close the netlink socket."""
        self._diag.close()

    def _sockets(self) -> dict[int, tuple[int, ...]]:
        """Descriptors of the process by socket inode; empty if it is gone or access is denied."""
        held: dict[int, tuple[int, ...]] = {}
        try:
            links = door.links(str(self._process), MOST_DESCRIPTORS).links
        except OSError:
            return held
        for descriptor, link, _ in links:
            inode = socket_inode(link)
            if inode is not None:
                held[inode] = (*held.get(inode, ()), descriptor)
        return held

    def _other_namespace(self) -> bool:
        try:
            return door.home(str(self._proc_root)) != door.namespace(str(self._process))
        except OSError:
            return False

    def _inet_lengths(self, family: int) -> dict[int, int] | None:
        """Accept queue by inode for every listening TCP socket in the process's namespace; None: cannot be read."""
        lengths = None if self._elsewhere else self._diag.accept_queues(family)
        return accept_queues_of(f"{self._process}/net", family) if lengths is None else lengths
