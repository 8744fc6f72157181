"""Waits for a pipe or a connection whose other end is in another process of this machine."""

from __future__ import annotations

import stat

from ....models.identity import ProcId
from ...hands.reads import socket_inode
from .. import door
from ..calls import Call, is_timed
from ..holders import stat_fields
from ..sockets import SockDiag
from ..text import printable
from .belongings import Belongings
from .budget import FRESH, PAIRS
from .polled import IN, OUT, wanted
from .records import Ask, Need, Opens
from .signals import NOTICES, Signals


class Channels:
    """Finds what a thread needs that reads, writes or polls."""

    def __init__(self, proc: str, belongings: Belongings, signals: Signals) -> None:
        self._proc = proc
        self._belongings = belongings
        self._signals = signals
        self._peers = _Peers()

    def begin(self, number: int) -> None:
        """A new look, the one with this number."""
        self._peers.begin(number)

    def one(self, process: ProcId, fd: int, event: int) -> Need | None:
        """What the process needs to read (`IN`) or write (`OUT`) this descriptor. None: it is not a pipe or a connection to a
        process of this machine, so the outside may end the wait."""
        base = f"{self._proc}/{process.pid}"
        try:
            link = door.link(base, f"fd/{fd}")
            fifo = link.startswith("/") and not link.startswith("/dev/") and self._is_fifo(base, fd)
        except OSError:
            return None
        doing = "reading" if event == IN else "writing"
        if link.startswith("pipe:[") or fifo:
            name = f"pipe {printable(link)}" if fifo else f"pipe {link[6:-1]}"
            ask = Opens(link, stat.S_IWUSR if event == IN else stat.S_IRUSR)
        else:
            inode = socket_inode(link)
            if inode is None:
                return None
            peer, kind = self._peers.of(inode)
            if not peer:
                return None
            name = f"{kind} socket {inode} (peer {peer})"
            ask = Opens(f"socket:[{peer}]", 0)
        if event == IN and self._signals.handled(process) & NOTICES and self._belongings.answers(process, ask):
            return None  # a signal handler writes to it: the self-pipe trick
        return Need(f"{doing} {name}", (ask,))

    def many(self, process: ProcId, tid: int, call: Call) -> Need | None:
        """What the process needs for this call to return, which polls many descriptors. None: it is another call, it ends by the
        clock, or the outside may end the wait."""
        if is_timed(call):
            return None
        asks: list[Ask] = []
        whats = []
        for fd, events in wanted(f"{self._proc}/{process.pid}", tid, call):
            for event in (IN, OUT):
                if events & event:
                    need = self.one(process, fd, event)
                    if need is None:
                        return None
                    asks += need.asks
                    whats.append(need.what)
        if not asks:
            return None
        more = f" or {len(whats) - 1} more" if len(whats) > 1 else ""
        return Need(f"{whats[0]}{more}", tuple(dict.fromkeys(asks)))

    def close(self) -> None:
        """Close the netlink socket."""
        self._peers.close()

    def _is_fifo(self, process: str, fd: int) -> bool:
        """Whether a file is a FIFO. Stats it only if its reader sleeps, because a stat on a dead network disk would hang."""
        return stat_fields(f"{process}/stat")[0] == b"S" and stat.S_ISFIFO(door.file(process, fd).mode)


class _Peers:
    """Finds the other ends of connections."""

    def __init__(self) -> None:
        self._diag = SockDiag()
        self._number = 0  # of the look
        self._tcp: dict[int, int | None] = {}  # as of the last query
        self._tcp_at = -PAIRS  # the look of that query

    def begin(self, number: int) -> None:
        """A new look, the one with this number."""
        self._number = number
        if number - self._tcp_at >= FRESH:
            self._tcp.clear()

    def of(self, inode: int) -> tuple[int | None, str]:
        """(inode of the other end, its kind); None or 0: it has none, or none that can be seen."""
        peer = self._diag.unix_peer(inode)
        if peer is not None:
            return peer, "unix"
        if inode not in self._tcp and self._number - self._tcp_at >= PAIRS:
            self._tcp, self._tcp_at = {**self._diag.tcp_pairs()}, self._number
            self._tcp.setdefault(inode, None)
        return self._tcp.get(inode), "TCP"

    def close(self) -> None:
        """Close the netlink socket."""
        self._diag.close()
