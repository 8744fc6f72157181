"""Waits for the end of a child: wait4(2), waitid(2)."""

# ruff: noqa: PTH208 -- Path objects cost more than the system calls

from __future__ import annotations

import os
from collections.abc import Sequence

from ....models.identity import ProcId
from ..calls import int32
from ..holders import identify, read, stat_fields, thread_ids
from .budget import FRESH
from .records import Is, Need


class Children:
    """Finds what a thread needs that waits for children."""

    def __init__(self, proc: str) -> None:
        self._proc = proc
        self._offspring: dict[ProcId, list[int]] = {}  # only where the kernel keeps no list

    def begin(self, number: int) -> None:
        """A new look, the one with this number."""
        if number % FRESH == 0:
            self._offspring.clear()

    def need(self, process: ProcId, name: str, args: Sequence[int]) -> Need | None:
        """What a thread needs in wait4(pid, ...) or waitid(type, id, ...). None: it waits for a group, or has no child."""
        first = int32(args[0])
        wanted = {0: -1, 1: int32(args[1])}.get(first, 0) if name == "waitid" else first  # P_ALL is 0, P_PID 1
        if wanted > 0:
            pids = [wanted]
        elif wanted == -1:
            pids = self._children(process)
        else:
            return None
        children = [child for child in (identify(self._proc, pid) for pid in pids) if child is not None]
        what = f"the end of child {pids[0]}" if len(pids) == 1 else "the end of a child"
        return Need(what, (Is(tuple(children)),)) if children else None

    def rest(self) -> None:
        """Release what was kept for the next look."""
        self._offspring.clear()

    def _children(self, process: ProcId) -> list[int]:
        """Pids of the children, found among all processes where the kernel keeps no list. The result is kept, because a process
        that waits for children starts no more."""
        base = f"{self._proc}/{process.pid}"
        try:
            return sorted(int(word) for tid in thread_ids(base) for word in read(f"{base}/task/{tid}/children").split())
        except OSError:
            pass
        if process not in self._offspring:
            parents: dict[int, list[int]] = {}
            for pid in all_pids(self._proc):
                try:
                    parents.setdefault(int(stat_fields(f"{self._proc}/{pid}/stat")[1]), []).append(pid)
                except OSError:
                    continue
            self._offspring[process] = parents.get(process.pid, [])
        return self._offspring[process]


def all_pids(proc: str) -> list[int]:
    """All processes that exist now, sorted."""
    return sorted(int(name) for name in os.listdir(proc) if name.isdecimal())
