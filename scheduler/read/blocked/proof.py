"""Proves that threads wait in vain: after all of them stood still, what they wait for was read and all that could help were asked.

A look takes time: threads that stand still now may have helped each other a moment ago. Must not know how helpers are found.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from ....models.anomaly.waitgraph import Halt, Thread, in_vain
from ....models.identity import ProcId
from .records import Ask, Is, Seen
from .standing import Standing, turn_of
from .sweep import Sweep


class Proof:
    """Keeps what was proved. While no thread of a process runs, nothing about the process changes, so it is not read again."""

    def __init__(self, proc: str, standing: Standing) -> None:
        self._proc = proc
        self._standing = standing
        self._kept: dict[ProcId, tuple[Seen, list[Halt]]] = {}  # processes with all of their threads sure

    def kept(self, process: ProcId) -> tuple[Seen, list[Halt]] | None:
        """What was proved of all threads of this process. It still holds, unless one of them has run. None: nothing was proved."""
        return self._kept.get(process)

    def dated(self, stuck: Mapping[Thread, Halt], seen: Mapping[ProcId, Seen]) -> dict[Thread, Halt]:
        """The same with their turns, without threads that proceed: those that do not sleep, are gone, or ran since they were
        kept."""
        dated = {}
        for thread, halt in stuck.items():
            turn = turn_of(self._proc, thread)
            if turn is not None and (thread.process not in self._kept or turn == halt.turn):
                dated[thread] = replace(halt, turn=turn)
        while True:
            left = in_vain(dated, whole(dated, seen), ticking(dated, seen))
            if len(left) == len(dated):
                return dated
            dated = left

    def sure(self, halts: Mapping[Thread, Halt], seen: Mapping[ProcId, Seen], sweep: Sweep) -> dict[Thread, Halt]:
        """The same, marked as sure where that is proved."""
        self._standing.keep(halts)
        sure: dict[Thread, Halt] = {}
        processes: dict[ProcId, list[Halt]] = {}
        for thread, halt in halts.items():
            process, since = seen[thread.process], self._standing.since(halt)
            need = process.needs[thread.tid]
            asked = (isinstance(ask, Is) or sweep.answered(ask, since) for ask in (need.asks if need is not None else ()))
            sure[thread] = replace(halt, sure=process.look > since and (thread.process in self._kept or all(asked)))
            processes.setdefault(thread.process, []).append(sure[thread])
        self._kept = {
            process: (seen[process], own)
            for process, own in processes.items()
            if len(own) == len(seen[process].needs) and all(halt.sure for halt in own)
        }
        return sure

    def questions(self, halts: Mapping[Thread, Halt], seen: Mapping[ProcId, Seen]) -> dict[Ask, int]:
        """The questions that all processes must still answer, each with the first look whose answer counts. Before that look a
        process could still become a helper."""
        wanted: dict[Ask, int] = {}
        for thread, halt in halts.items():
            if thread.process in self._kept:
                continue
            need = seen[thread.process].needs[thread.tid]
            for ask in need.asks if need is not None else ():
                if not isinstance(ask, Is):
                    wanted[ask] = max(wanted.get(ask, 0), self._standing.since(halt))
        return wanted

    def rest(self) -> None:
        """Release what was kept for the next look."""
        self._kept.clear()


def whole(halts: Collection[Thread], seen: Mapping[ProcId, Seen]) -> frozenset[ProcId]:
    """The processes all of whose threads are among these."""
    processes = {thread.process for thread in halts}
    return frozenset(each for each in processes if all(Thread(each, tid) in halts for tid in seen[each].needs))


def ticking(halts: Collection[Thread], seen: Mapping[ProcId, Seen]) -> frozenset[ProcId]:
    """The processes all of whose threads are among these, except for threads that only the clock wakes."""
    processes = {thread.process for thread in halts}
    return frozenset(
        each
        for each in processes
        if seen[each].ticks and all(Thread(each, tid) in halts for tid, need in seen[each].needs.items() if need is not None)
    )
