"""The connections of a listening TCP socket, with what the kernel counts of each (`tcp_info`). Must not know what it means.

The kernel looks through its whole table of connections for those of one port: 1.0 ms for a table of 262,144 entries (the kernel's
log says how many), and 0.4 ms for each thousand connections that it finds (Linux 6.18, `benchmarks/pools/concurrency.py`).
`tcp_info` of other users' connections is shown to everybody. For a unix socket the kernel has neither counters nor times.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .sockets import Listener, SockDiag

CONNECTION = np.dtype(
    [
        ("cookie", "<u8"),  # unique among all sockets since boot
        ("accepted", "?"),  # else it is in the accept queue
        ("closing", "?"),  # the peer has sent all that it will send
        ("unread", "<u4"),  # bytes that the program has not read; one more when the peer closes
        ("sent_last", "?"),  # the peer has acknowledged something after its last data, or still has to: certain only if true
        ("full", "?"),  # the program cannot write more until the peer reads
        ("sent_ago", "<u4"),  # ms since data was last sent, in steps of a jiffy; since the connection was made if none was
        ("received_ago", "<u4"),  # ms since data was last received, likewise
        ("received", "<u8"),  # bytes
        ("written", "<u8"),  # bytes that the program has written, whether they are sent or not
        ("segments_in", "<u4"),  # segments with data
        ("segments_out", "<u4"),
    ]
)
"""A connection. A table of them is sorted by cookie."""

Connections = NDArray[np.void]

_INFO, _MEMORY = 2, 7  # INET_DIAG_INFO, INET_DIAG_SKMEMINFO: linux/inet_diag.h
_ESTABLISHED, _CLOSE_WAIT = 1, 8  # net/tcp_states.h
_MESSAGE = 72  # struct inet_diag_msg
_SHORTEST_INFO = 160  # a tcp_info with data_segs_out, since Linux 4.6


def connections(diag: SockDiag, listeners: Iterable[Listener]) -> Connections | None:
    """The connections of these listening sockets that are established, or half closed by the peer. None: they cannot be read."""
    tables = []
    for family, port, address in sorted(listeners):
        answers = diag.tcp_of_port(family, port, 1 << _ESTABLISHED | 1 << _CLOSE_WAIT, 1 << _INFO - 1 | 1 << _MEMORY - 1)
        if answers is None:
            return None
        for length in sorted(set(map(len, answers))):
            raws = [raw for raw in answers if len(raw) == length]
            layout = _layout(raws[0])
            if layout is None:
                return None
            rows = np.frombuffer(b"".join(raws), dtype=np.uint8).reshape(len(raws), length)
            if any(address):
                rows = rows[(rows[:, 8:24] == np.frombuffer(address, dtype=np.uint8)).all(axis=1)]
            tables.append(_table(rows, *layout))
    table = np.concatenate(tables) if tables else np.zeros(0, dtype=CONNECTION)
    _, first = np.unique(table["cookie"], return_index=True)
    return table[first]


def _layout(raw: bytes) -> tuple[int, int] | None:
    """Where `tcp_info` and the memory begin in an answer. All answers of one length are alike: the same is asked of all. None: the
    kernel does not show enough."""
    found, at = {}, _MESSAGE
    while at + 4 <= len(raw):
        length, kind = struct.unpack_from("=HH", raw, at)
        found[kind] = at + 4, length - 4
        at += max(4, (length + 3) & ~3)
    info, memory = found.get(_INFO), found.get(_MEMORY)
    if info is None or memory is None or info[1] < _SHORTEST_INFO:
        return None
    return info[0], memory[0]


def _table(rows: NDArray[np.uint8], info: int, memory: int) -> Connections:
    """Answers of one layout, each a row of bytes, as a table."""

    def column(offset: int, kind: str) -> NDArray[np.unsignedinteger[Any]]:
        size = np.dtype(kind).itemsize
        found: NDArray[np.unsignedinteger[Any]] = np.ascontiguousarray(rows[:, offset : offset + size]).view(kind)[:, 0]
        return found

    table = np.zeros(len(rows), dtype=CONNECTION)
    # struct inet_diag_msg: family, state, timer, retrans, then a socket id of 48 bytes with the cookie at its end, expires, receive
    # queue, send queue, uid, inode
    table["cookie"] = column(44, "=u8")
    table["closing"] = rows[:, 1] == _CLOSE_WAIT
    table["unread"] = column(56, "=u4")
    table["accepted"] = column(68, "=u4") > 0  # the program has a descriptor
    # struct tcp_info, linux/tcp.h; sk_meminfo, linux/sock_diag.h
    table["sent_ago"] = column(info + 44, "=u4")
    table["received_ago"] = column(info + 52, "=u4")
    table["sent_last"] = (column(60, "=u4") > 0) | (column(info + 56, "=u4") < column(info + 52, "=u4"))  # send queue, last ACK
    table["written"] = column(info + 120, "=u8") + column(60, "=u4")  # acknowledged, and in the send queue
    table["received"] = column(info + 128, "=u8")
    table["segments_in"] = column(info + 152, "=u4")
    table["segments_out"] = column(info + 156, "=u4")
    table["full"] = column(memory + 20, "=u4") >= column(memory + 12, "=u4")  # wmem_queued, sndbuf
    return table
