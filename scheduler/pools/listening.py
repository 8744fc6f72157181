"""The accept queues of a process's listening sockets: connections that wait for a worker.

Must not know pools. The kernel's sock_diag answers for LISTEN sockets alone, so the cost does not grow with the connections of the
machine; a process in another network namespace is read through its own /proc/PID/net, where the LISTEN rows come first.
"""

from __future__ import annotations

import re
import socket
import struct
from pathlib import Path

_SOCK_DIAG_BY_FAMILY = 20  # linux/sock_diag.h
_NETLINK_SOCK_DIAG = 4
_REQUEST, _DUMP = 0x1, 0x300  # linux/netlink.h
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_LISTEN = 10  # TCP_LISTEN, for unix sockets too
_SHOW_RQLEN, _ATTR_RQLEN = 0x10, 4  # linux/unix_diag.h
_SOCKET = re.compile(r"socket:\[(\d+)\]")


class AcceptQueue:
    """Connections waiting at the listening sockets that a process holds."""

    def __init__(self, proc_root: Path, pid: int) -> None:
        self._process = proc_root / str(pid)
        self._self_net = proc_root / "self" / "ns" / "net"
        self._netlink: socket.socket | None = None
        self._inet: dict[int, frozenset[int]] = {}  # address family -> inodes
        self._unix: frozenset[int] = frozenset()
        self._elsewhere = False
        self.descriptors: frozenset[int] = frozenset()
        """Numbers of the listening descriptors in the process; forked workers have the same."""
        self.refresh()

    def refresh(self) -> None:
        """Look for the listening sockets again (they change on reload)."""
        held = self._sockets()
        self._elsewhere = self._other_namespace()
        if not self._elsewhere and self._netlink is None:
            try:
                self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
            except OSError:  # a kernel or a sandbox without sock_diag
                self._netlink = None
        self._inet = {}
        for family in (socket.AF_INET, socket.AF_INET6):
            listening = self._inet_lengths(family)
            inodes = frozenset(listening or ()) & held.keys()
            if inodes:
                self._inet[family] = inodes
        self._unix = self._unix_listening() & held.keys()
        inodes = frozenset().union(self._unix, *self._inet.values())
        self.descriptors = frozenset(fd for inode in sorted(inodes) for fd in held[inode])

    def waiting(self) -> int | None:
        """Connections that no worker has accepted yet; None: no listening socket, or it cannot be seen."""
        total, seen = 0, False
        for family, inodes in sorted(self._inet.items()):
            lengths = self._inet_lengths(family) or {}
            for inode in sorted(inodes & lengths.keys()):
                total, seen = total + lengths[inode], True
        for inode in sorted(self._unix):
            length = self._unix_length(inode)
            if length is not None:
                total, seen = total + length, True
        return total if seen else None

    def close(self) -> None:
        """Give the netlink socket back."""
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None

    def _sockets(self) -> dict[int, tuple[int, ...]]:
        """Descriptors of the process by socket inode; empty when it is gone or may not be looked at."""
        held: dict[int, tuple[int, ...]] = {}
        try:
            paths = list((self._process / "fd").iterdir())
        except OSError:
            return held
        for path in paths:
            try:
                match = _SOCKET.fullmatch(str(path.readlink()))
            except OSError:  # closed meanwhile
                continue
            if match:
                held[int(match[1])] = (*held.get(int(match[1]), ()), int(path.name))
        return held

    def _other_namespace(self) -> bool:
        try:
            return self._self_net.stat().st_ino != (self._process / "ns" / "net").stat().st_ino
        except OSError:
            return False

    def _inet_lengths(self, family: int) -> dict[int, int] | None:
        """Accept queue by inode of every listening TCP socket; None: cannot be seen."""
        if self._netlink is None or self._elsewhere:
            return self._table_lengths("tcp" if family == socket.AF_INET else "tcp6")
        # struct inet_diag_req_v2: family, protocol, extensions, pad, states, then an empty socket id of 48 bytes
        payloads = self._ask(struct.pack("=BBBBI48x", family, socket.IPPROTO_TCP, 0, 0, 1 << _LISTEN), _DUMP)
        if payloads is None:
            return self._table_lengths("tcp" if family == socket.AF_INET else "tcp6")
        # struct inet_diag_msg: 4 bytes, socket id of 48, expires, rqueue at 56, wqueue, uid, inode at 68
        return {struct.unpack_from("=I", raw, 68)[0]: struct.unpack_from("=I", raw, 56)[0] for raw in payloads}

    def _unix_listening(self) -> frozenset[int]:
        """Inodes of listening unix sockets."""
        if self._netlink is not None and not self._elsewhere:
            payloads = self._ask(struct.pack("=BBHIII8x", socket.AF_UNIX, 0, 0, 1 << _LISTEN, 0, 0), _DUMP)
            if payloads is not None:
                return frozenset(struct.unpack_from("=I", raw, 4)[0] for raw in payloads)
        return frozenset()

    def _unix_length(self, inode: int) -> int | None:
        request = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, 1 << _LISTEN, inode, _SHOW_RQLEN, 0xFFFFFFFF, 0xFFFFFFFF)
        for raw in self._ask(request, 0) or ():
            at = 16  # struct unix_diag_msg, then attributes: length, type, value, padded to 4
            while at + 4 <= len(raw):
                length, kind = struct.unpack_from("=HH", raw, at)
                if kind == _ATTR_RQLEN:
                    return int(struct.unpack_from("=I", raw, at + 4)[0])
                at += max(4, (length + 3) & ~3)
        return None

    def _ask(self, request: bytes, flags: int) -> list[bytes] | None:
        """The answers of sock_diag to one request; None when it refuses. The kernel answers at once."""
        if self._netlink is None:
            return None
        header = struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _REQUEST | flags, 0, 0)
        answers: list[bytes] = []
        try:
            self._netlink.send(header + request, socket.MSG_DONTWAIT)
            while True:
                block, at = self._netlink.recv(1 << 16, socket.MSG_DONTWAIT), 0
                while at + 16 <= len(block):
                    length, kind = struct.unpack_from("=IH", block, at)
                    if kind == _NLMSG_DONE:
                        return answers
                    if kind == _NLMSG_ERROR:
                        return None
                    answers.append(block[at + 16 : at + length])
                    at += (length + 3) & ~3
                if not flags:
                    return answers
        except OSError:  # half an answer may be left in it: the next `refresh` opens another
            self.close()
            return None

    def _table_lengths(self, table: str) -> dict[int, int] | None:
        """The same from /proc/PID/net. LISTEN rows come first, so reading stops at the first row of another state."""
        lengths: dict[int, int] = {}
        try:
            with (self._process / "net" / table).open(encoding="ascii") as rows:
                next(rows, None)  # the heading
                for row in rows:
                    fields = row.split()
                    if fields[3] != "0A":
                        break
                    lengths[int(fields[9])] = int(fields[4].split(":")[1], 16)
        except OSError:
            return None
        return lengths
