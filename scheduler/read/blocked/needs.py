"""Finds what a thread needs from the system call that it is in: a lock, a pipe, a connection, a child. In doubt, it says
nothing."""

from __future__ import annotations

from ....models.identity import ProcId
from ..calls import Call, int32
from ..holders import futex_wait
from .belongings import Belongings
from .channels import Channels
from .children import Children
from .file_locks import FileLocks
from .futexes import Futexes
from .polled import IN, OUT
from .records import START, Need, Query
from .signals import NOTICES, Signals

# System calls whose first argument is the descriptor that is read or written
_READS = frozenset({"read", "readv", "recvfrom", "recvmsg", "recvmmsg"})
_WRITES = frozenset({"write", "writev", "sendto", "sendmsg", "sendmmsg"})


class Needs:
    """Asks the part that knows the kind of call."""

    def __init__(self, proc: str, belongings: Belongings) -> None:
        self._query = START
        self._signals = Signals(proc)
        self._file_locks = FileLocks(proc)
        self._futexes = Futexes(proc, belongings, self._signals)
        self._channels = Channels(proc, belongings, self._signals)
        self._children = Children(proc)

    def begin(self, query: Query) -> None:
        """A new look."""
        self._query = query
        self._signals.begin()
        self._file_locks.begin()
        self._futexes.begin(query)
        self._channels.begin(query.number)
        self._children.begin(query.number)

    def need(self, process: ProcId, tid: int, call: Call, stack: int) -> Need | None:
        """What the thread needs that is in this call, with all six arguments. None: it proceeds by itself, or may do so."""
        name, args = call
        if name in ("flock", "fcntl"):
            return self._file_locks.need(process, name, args)
        if name in ("futex", "futex_wait"):
            wait = futex_wait(args, new=name == "futex_wait")
            return None if wait is None or wait.timed else self._futexes.need(process, tid, wait, stack)
        if name in _WRITES:
            return self._channels.one(process, int32(args[0]), OUT)
        if process not in self._query.workers and self._signals.handled(process) & NOTICES:
            return None  # a parent may be waiting for a signal
        if name in _READS and not (name == "recvmmsg" and args[4]):
            return self._channels.one(process, int32(args[0]), IN)
        if name in ("wait4", "waitid"):
            return self._children.need(process, name, args)
        return self._channels.many(process, tid, call)

    def rest(self) -> None:
        """Release what was kept for the next look."""
        self._futexes.rest()
        self._children.rest()

    def close(self) -> None:
        """Close all descriptors."""
        self._channels.close()
