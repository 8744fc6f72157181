"""Remembers since which look threads stand still: a thread that did not run cannot have released or sent anything."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ....models.anomaly.waitgraph import Halt, Thread
from ....models.identity import ProcId
from ..holders import read


def turn_of(proc: str, thread: Thread) -> int | None:
    """How often a thread gave up the CPU or lost it, which every kernel counts. None if it does not sleep or is gone."""
    try:
        text = read(f"{proc}/{thread.process.pid}/task/{thread.tid}/status")
    except OSError:
        return None
    found = re.search(rb"^State:\t(\w)", text, re.MULTILINE)
    counts = re.findall(rb"ctxt_switches:\t(\d+)$", text, re.MULTILINE)
    return sum(map(int, counts)) if found is not None and found[1] == b"S" and counts else None


class Standing:
    """Threads that are stuck, and those of the processes that could help them."""

    def __init__(self, proc: str) -> None:
        self._proc = proc
        self._number = 0  # of the look
        self._stands: dict[ProcId, dict[int, tuple[int, int]]] = {}  # by tid: (turn, look since which it is so)

    def begin(self, number: int) -> None:
        """A new look, the one with this number."""
        self._number = number

    def keep(self, halts: Mapping[Thread, Halt]) -> None:
        """These threads are stuck, in these turns. What was noted of others is forgotten."""
        stands: dict[ProcId, dict[int, tuple[int, int]]] = {}
        for (process, tid), halt in halts.items():
            stands.setdefault(process, {})[tid] = self._since(process, tid, halt.turn)
        self._stands = stands

    def note(self, process: ProcId, tids: Iterable[int]) -> None:
        """Read the turns of these threads, which could help another, until the next look has decided whether they are stuck."""
        turns = ((tid, turn_of(self._proc, Thread(process, tid))) for tid in tids)
        self._stands[process] = {tid: self._since(process, tid, turn) for tid, turn in turns if turn is not None}

    def since(self, halt: Halt) -> int:
        """The look since which a thread and its possible helpers all stand still. 0: nothing was noted of them."""
        processes = (halt.thread.process, *halt.helpers)
        return max((look for process in processes for _, look in self._stands.get(process, {}).values()), default=0)

    def rest(self) -> None:
        """Release what was kept for the next look."""
        self._stands.clear()

    def _since(self, process: ProcId, tid: int, turn: int) -> tuple[int, int]:
        """(turn, look since which the thread stands still in it)"""
        before, look = self._stands.get(process, {}).get(tid, (-1, 0))
        return turn, look if before == turn else self._number
