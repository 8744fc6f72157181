"""Which sockets of a network namespace listen or lead to a display, and how long accept queues are. Must not know what that means.

The kernel's sock_diag (man 7 sock_diag) answers for sockets in one state only, so the cost does not grow with the connections of
the machine. Connected unix sockets are queried too, but only where a display or sound server listens. sock_diag covers only our own
network namespace. Another one, and a kernel or sandbox without sock_diag, is read from the tables in /proc/PID/net, where the
LISTEN rows of TCP come first.
"""

# ruff: noqa: PTH116 -- Path objects cost more than the system calls

from __future__ import annotations

import os
import re
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile

from ...models.identity import ProcId
from . import door

Listener = tuple[int, int, bytes]
"""Address family, port and address of a listening socket."""

_SOCK_DIAG_BY_FAMILY = 20  # linux/sock_diag.h
_REQUEST, _DUMP = 0x1, 0x300  # linux/netlink.h
_NLMSG_ERROR, _NLMSG_DONE = 2, 3  # linux/netlink.h
_ESTABLISHED = 1  # TCP_ESTABLISHED, for unix sockets too: net/tcp_states.h
_UNCONNECTED, _LISTEN = 7, 10  # TCP_CLOSE, which a bound UDP socket without a peer is in; TCP_LISTEN, for unix sockets too
_SHOW_NAME, _ATTR_NAME, _SHOW_PEER, _ATTR_PEER, _SHOW_RQLEN, _ATTR_RQLEN = 0x1, 0, 0x4, 2, 0x10, 4  # linux/unix_diag.h
_ACCEPTS = 1 << 16  # __SO_ACCEPTCON, in the flags of /proc/net/unix
_SHOWS = re.compile(rb"\0?/tmp/\.X11-unix/X\d+|/.+/(wayland-\d+|pulse/native|pipewire-\d+)", re.DOTALL).fullmatch
"""Names of the unix sockets of display and sound servers: X(7), wl_display_connect(3), pulse-daemon.conf(5), pipewire(1)."""


# --- sock_diag ----------------------------------------------------------------------------------------------------------------


class SockDiag:
    """Queries to sock_diag about our own network namespace. The answer is None if the kernel gives none.

    The first query opens the netlink socket, and so does the next one after a failure.
    """

    def __init__(self) -> None:
        self._netlink: socket.socket | None = None

    def accept_queues(self, family: int) -> dict[int, int] | None:
        """Waiting connections by inode of every listening TCP socket of an address family."""
        answers = self._inet_raw(family, socket.IPPROTO_TCP, _LISTEN)
        return None if answers is None else {_inode(raw): struct.unpack_from("=I", raw, 56)[0] for raw in answers}

    def ports(self, family: int) -> dict[int, int] | None:
        """The port by inode of every listening TCP socket of an address family."""
        answers = self._inet_raw(family, socket.IPPROTO_TCP, _LISTEN)
        return None if answers is None else {_inode(raw): struct.unpack_from("!H", raw, 4)[0] for raw in answers}

    def listening_at(self, family: int) -> dict[int, tuple[int, bytes]] | None:
        """(port, address of 16 bytes, zeros for any) by inode of every listening TCP socket of an address family."""
        answers = self._inet_raw(family, socket.IPPROTO_TCP, _LISTEN)
        return None if answers is None else {_inode(raw): (struct.unpack_from("!H", raw, 4)[0], raw[8:24]) for raw in answers}

    def tcp_of_port(self, family: int, port: int, states: int, extensions: int) -> list[bytes] | None:
        """A struct inet_diag_msg and its attributes of every TCP socket with this local port in one of some states. `extensions`:
        which attributes, as bits."""
        request = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, extensions, 0, states) + struct.pack("!H46x", port)
        return self._ask(request, _DUMP)

    def unconnected_udp(self, family: int) -> frozenset[int] | None:
        """Inodes of UDP sockets that are bound and have no peer."""
        answers = self._inet_raw(family, socket.IPPROTO_UDP, _UNCONNECTED)
        return None if answers is None else frozenset(map(_inode, answers))

    def unix_listening(self) -> dict[int, bytes] | None:
        """Name by inode of every listening unix socket: its path, or a zero byte and what follows it."""
        answers = self._unix(1 << _LISTEN, _SHOW_NAME)
        return None if answers is None else {inode: _name(attributes) for inode, attributes in answers}

    def unix_connected_to(self, wanted: Callable[[bytes], object]) -> frozenset[int]:
        """Inodes of the sockets from which a unix socket with a wanted name has accepted a connection."""
        # the accepted end bears the name of the listening socket, and knows its peer
        answers = self._unix(1 << _ESTABLISHED, _SHOW_NAME | _SHOW_PEER) or ()
        peers = (attributes.get(_ATTR_PEER) for _, attributes in answers if wanted(_name(attributes)))
        return frozenset(int.from_bytes(peer[:4], sys.byteorder) for peer in peers if peer)

    def unix_accept_queue(self, inode: int) -> int | None:
        """Connections that wait at one listening unix socket."""
        return self._unix_attribute(inode, 1 << _LISTEN, _SHOW_RQLEN, _ATTR_RQLEN)

    def unix_peer(self, inode: int) -> int | None:
        """Inode of the unix socket that this one is connected to, 0 if it is not accepted yet; None: it has no peer."""
        return self._unix_attribute(inode, 0xFFFFFFFF, _SHOW_PEER, _ATTR_PEER)

    def tcp_pairs(self) -> dict[int, int]:
        """The other end, by inode, of each established TCP connection that has both ends here."""
        ends: dict[bytes, int] = {}  # address and port of an end, then of its peer -> inode
        for family in (socket.AF_INET, socket.AF_INET6):
            for raw in self._inet_raw(family, socket.IPPROTO_TCP, _ESTABLISHED) or ():
                # struct inet_diag_sockid at 4: ports of both, address of it (16 bytes), address of the peer
                here, there = _address(raw[8:24]), _address(raw[24:40])
                ends[raw[4:6] + here + raw[6:8] + there] = _inode(raw)
        found = {}
        for key, inode in ends.items():
            other = ends.get(key[18:] + key[:18])
            if inode and other:
                found[inode] = other
        return found

    def close(self) -> None:
        """Close the netlink socket."""
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None

    def _inet_raw(self, family: int, protocol: int, state: int) -> list[bytes] | None:
        """A struct inet_diag_msg of every socket in one state: 4 bytes, a socket id of 48 bytes that begins with its port, expires,
        receive queue at 56, send queue, uid, inode at 68."""
        # struct inet_diag_req_v2: family, protocol, extensions, pad, states, then an empty socket id of 48 bytes
        return self._ask(struct.pack("=BBBBI48x", family, protocol, 0, 0, 1 << state), _DUMP)

    def _unix(self, states: int, show: int) -> list[tuple[int, dict[int, bytes]]] | None:
        """(inode, attributes) of every unix socket in one of some states."""
        answers = self._ask(struct.pack("=BBHIII8x", socket.AF_UNIX, 0, 0, states, 0, show), _DUMP)
        return None if answers is None else [(struct.unpack_from("=I", raw, 4)[0], _attributes(raw)) for raw in answers]

    def _unix_attribute(self, inode: int, states: int, show: int, wanted: int) -> int | None:
        """A 32-bit attribute of one unix socket in one of some states."""
        request = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, states, inode, show, 0xFFFFFFFF, 0xFFFFFFFF)
        for raw in self._ask(request, 0) or ():
            value = _attributes(raw).get(wanted)
            if value is not None:
                return int.from_bytes(value[:4], sys.byteorder)
        return None

    def _ask(self, request: bytes, flags: int) -> list[bytes] | None:
        """The answers to one request; None if it is refused. The kernel answers at once."""
        header = struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _REQUEST | flags, 0, 0)
        answers: list[bytes] = []
        try:
            if self._netlink is None:
                self._netlink = door.diagnosis()
            self._drain()
            self._netlink.send(header + request, socket.MSG_DONTWAIT)
            while True:
                block, at = self._netlink.recv(1 << 16, socket.MSG_DONTWAIT), 0
                while at + 16 <= len(block):
                    length, kind = struct.unpack_from("=IH", block, at)
                    if kind == _NLMSG_DONE:  # with an errno: a kernel without udp_diag ends an empty dump with ENOENT
                        return None if length >= 20 and struct.unpack_from("=i", block, at + 16)[0] < 0 else answers
                    if kind == _NLMSG_ERROR:
                        return None
                    answers.append(block[at + 16 : at + length])
                    at += (length + 3) & ~3
                if not flags:
                    return answers
        except OSError:  # no sock_diag here
            self.close()
            return None

    def _drain(self) -> None:
        """Drop what is left of an answer: hands may have one socket for all of us. Raises OSError."""
        assert self._netlink is not None
        try:
            while self._netlink.recv(1 << 16, socket.MSG_DONTWAIT):
                pass
        except BlockingIOError:
            pass


def _inode(raw: bytes) -> int:
    """The inode in a struct inet_diag_msg."""
    return int(struct.unpack_from("=I", raw, 68)[0])


def _attributes(raw: bytes) -> dict[int, bytes]:
    """Attributes of a unix socket by type: struct unix_diag_msg of 16 bytes, then length, type, value, each padded to 4."""
    found, at = {}, 16
    while at + 4 <= len(raw):
        length, kind = struct.unpack_from("=HH", raw, at)
        found[kind] = raw[at + 4 : at + length]
        at += max(4, (length + 3) & ~3)
    return found


def _name(attributes: Mapping[int, bytes]) -> bytes:
    """The name of a unix socket: a path without the zero byte that ends it, or one that begins with a zero byte (unix(7))."""
    return attributes.get(_ATTR_NAME, b"").rstrip(b"\0")


def _address(raw: bytes) -> bytes:
    """An address of 16 bytes: IPv4 in the form used for IPv4 sockets, also if an IPv6 socket is connected to one."""
    return raw[12:] + bytes(12) if raw.startswith(bytes(10) + b"\xff\xff") else raw


# --- tables -------------------------------------------------------------------------------------------------------------------


def accept_queues_of(net: str, family: int) -> dict[int, int] | None:
    """`SockDiag.accept_queues` from the tables in a directory like /proc/PID/net. None if they may not be read."""
    rows = _listening_tcp(net, family)
    return None if rows is None else {int(fields[9]): int(fields[4].split(":")[1], 16) for fields in rows}


def _ports_of(net: str, family: int) -> dict[int, int] | None:
    rows = _listening_tcp(net, family)
    return None if rows is None else {int(fields[9]): int(fields[1].split(":")[1], 16) for fields in rows}


def _listening_tcp(net: str, family: int) -> list[list[str]] | None:
    try:
        rows = _rows(f"{net}/{'tcp' if family == socket.AF_INET else 'tcp6'}")
        return list(takewhile(lambda fields: int(fields[3], 16) == _LISTEN, rows))  # they come first
    except OSError:
        return None


def _unconnected_udp_of(net: str, family: int) -> frozenset[int] | None:
    try:
        rows = _rows(f"{net}/{'udp' if family == socket.AF_INET else 'udp6'}")
        return frozenset(int(fields[9]) for fields in rows if int(fields[3], 16) == _UNCONNECTED)
    except OSError:
        return None


def _unix_listening_of(net: str) -> frozenset[int] | None:
    try:
        return frozenset(int(fields[6]) for fields in _rows(f"{net}/unix") if int(fields[3], 16) & _ACCEPTS)
    except OSError:
        return None


def _rows(path: str) -> Iterator[list[str]]:
    """The rows of a table, split at blanks; none if this kernel has no such sockets (IPv6 switched off)."""
    try:
        table = open(path, encoding="utf-8", errors="replace")  # noqa: PTH123, SIM115 - as above; closed below. Unix paths are any bytes
    except FileNotFoundError:
        os.stat(os.path.dirname(path))  # noqa: PTH120 - raises if it is the process that is gone
        return
    with table:
        next(table, None)  # the heading
        for row in table:
            yield row.split()


# --- both ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listening:
    """Inodes of the sockets of one network namespace that anybody may contact."""

    inet: frozenset[int]  # TCP sockets that listen, UDP sockets that are bound and have no peer; IPv4 and IPv6
    ports: Mapping[int, int]  # of those that listen, by inode
    unix: frozenset[int]  # unix sockets that listen
    has_window: frozenset[int]  # the clients' ends of connections to a display or sound server; only sock_diag knows them


class Listeners:
    """What listens in the network namespace of a process, looked up at most once between two calls of `forget`.

    `proc_root` is a procfs; `ours`: it shows the processes of this kernel, so that sock_diag reports the same sockets.
    """

    def __init__(self, proc_root: str, *, ours: bool) -> None:
        self._diag = SockDiag()
        try:
            self._own = door.home(proc_root)
            self._ours = ours
        except OSError:  # a sandbox hides it: all namespaces are read from their tables
            self._own, self._ours = (0, 0), False
        self._known: dict[tuple[int, int] | str, Listening | None] = {}

    def forget(self) -> None:
        """Sockets may have come and gone: query them again."""
        self._known.clear()

    def around(self, process: str, known: ProcId | None = None) -> Listening | None:
        """What listens in the network namespace of the process with this procfs directory; None: it cannot be seen."""
        try:
            namespace = _namespace(process, known)
        except OSError:  # gone, or not ours to look at
            return None
        key = process if namespace is None else namespace
        if key not in self._known:
            net = f"{process}/net"
            self._known[key] = self._read(net, self._diag if self._ours and namespace == self._own else None)
        return self._known[key]

    def peer(self, inode: int) -> int | None:
        """Inode of the unix socket that one of our own namespace is connected to, None if it has no peer."""
        return (self._diag.unix_peer(inode) or None) if self._ours else None

    def close(self) -> None:
        """Close the netlink socket."""
        self._diag.close()

    def _read(self, net: str, diag: SockDiag | None) -> Listening | None:
        inet: set[int] = set()
        ports: dict[int, int] = {}
        for family in (socket.AF_INET, socket.AF_INET6):
            tcp = diag.ports(family) if diag is not None else None
            tcp = _ports_of(net, family) if tcp is None else tcp
            udp = diag.unconnected_udp(family) if diag is not None else None
            udp = _unconnected_udp_of(net, family) if udp is None else udp
            if tcp is None or udp is None:
                return None
            inet.update(tcp, udp)
            ports.update(tcp)
        named = diag.unix_listening() if diag is not None else None
        unix = _unix_listening_of(net) if named is None else frozenset(named)
        if unix is None:
            return None
        has_window = frozenset[int]()
        if diag is not None and named is not None and any(map(_SHOWS, named.values())):
            has_window = diag.unix_connected_to(_SHOWS)
        return Listening(frozenset(inet), ports, unix, has_window)


def _namespace(process: str, known: ProcId | None = None) -> tuple[int, int] | None:
    """The identity of the network namespace of a process; None on a kernel that has only one."""
    try:
        return door.namespace(process, known)
    except FileNotFoundError:
        os.stat(process)  # raises if it is the process that is gone
        return None
