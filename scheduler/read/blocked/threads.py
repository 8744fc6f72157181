"""Reads a process: what each of its threads needs, and which of them only the clock wakes."""

from __future__ import annotations

from ....models.anomaly.waitgraph import Thread
from ....models.identity import ProcId
from .. import door
from ..calls import NUMBERS, is_timed, parse_call, stack_pointer
from ..holders import stat_fields, thread_ids
from .belongings import Belongings
from .heartbeats import Heartbeats
from .needs import Needs
from .records import START, Need, Query, Seen

THREADS = 64
"""Most threads of a process that is examined. Chosen: of more threads, one is assumed to proceed."""


class Threads:
    """Reads the threads of processes. Needs ptrace rights on them, and notes where those are missing."""

    def __init__(self, proc: str, machine: str, belongings: Belongings) -> None:
        self._proc = proc
        self._names = NUMBERS.get(machine)
        self._belongings = belongings
        self._needs = Needs(proc, belongings)
        self._heartbeats = Heartbeats(proc)
        self._query = START
        self._hidden: set[ProcId] = set()  # workers that we may not read

    @property
    def trouble(self) -> str:
        """See `ports.Waits`."""
        if self._names is None:
            return "deadlocks are not looked for: the system calls of this kind of machine are not known to nicety"
        if self._hidden:
            return "deadlocks are not looked for among workers whose system calls may not be read; it takes CAP_SYS_PTRACE"
        return ""

    def begin(self, query: Query) -> None:
        """A new look."""
        self._query = query
        self._hidden.intersection_update(query.still)
        self._needs.begin(query)
        self._heartbeats.begin(query.number)

    def see(self, process: ProcId) -> Seen:
        """The process as it is now. It has no threads if it is gone, stopped, too large or not ours to see."""
        return Seen(self._query.number, *self._read(process))

    def rest(self) -> None:
        """Release what was kept for the next look."""
        self._hidden.clear()
        self._needs.rest()
        self._heartbeats.rest()

    def close(self) -> None:
        """Close all descriptors."""
        self._needs.close()

    def _read(self, process: ProcId) -> tuple[dict[int, Need | None], frozenset[int]]:
        """The need of each thread, and the threads that only the clock wakes."""
        if self._names is None:
            return {}, frozenset()
        base = f"{self._proc}/{process.pid}"
        timed: dict[int, tuple[str, int] | None] = {}
        try:
            fields = stat_fields(f"{base}/stat")
            if int(fields[19]) != process.start_ticks or fields[0] in (b"Z", b"X", b"T", b"t") or int(fields[17]) > THREADS:
                return {}, frozenset()
            self._belongings.has_child(int(fields[1]))
            needs = {}
            for tid in thread_ids(base):
                line = door.call(base, tid)
                call = parse_call(line, self._names)
                needs[tid] = self._needs.need(process, tid, call, stack_pointer(line)) if len(call.args) == 6 else None
                if needs[tid] is None and (call.name == "running" or is_timed(call)):
                    timed[tid] = None if call.name == "running" else (call.name, stack_pointer(line))
        except PermissionError:
            if process in self._query.still:
                self._hidden.add(process)
            return {}, frozenset()
        except OSError:
            return {}, frozenset()
        self._hidden.discard(process)
        if not timed or not any(need is not None and need.lock for need in needs.values()):
            return needs, frozenset()
        return needs, frozenset(tid for tid, where in timed.items() if self._heartbeats.ticks(Thread(process, tid), where))
