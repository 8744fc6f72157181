"""Examines workers with several threads that run only a little: one thread may wait for a lock while the clock wakes another."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ....models.identity import ProcId
from .. import door
from ..calls import NUMBERS, is_timed, parse_call
from .budget import MAIN, OTHERS
from .records import Seen


class Restless:
    """Examines some of them in each look, in turn. Those with a thread that waits for a lock are examined in every look."""

    def __init__(self, proc: str, machine: str) -> None:
        self._proc = proc
        self._names = NUMBERS.get(machine, {})
        self._turns = [0, 0]  # where to go on: with those whose first thread is examined, with those whose threads all are
        self._locked: frozenset[ProcId] = frozenset()  # those with a thread that waits for a lock

    def locked(self, restless: Sequence[ProcId], see: Callable[[ProcId], Seen]) -> list[ProcId]:
        """Those known to have a thread that waits for a lock, sorted. `see` reads a process."""
        found = [process for process in restless if process in self._locked]
        rest = [process for process in restless if process not in self._locked]
        for rank, most in enumerate((MAIN, OTHERS)):
            for _ in range(min(most, len(rest))):
                process = rest[self._turns[rank] % len(rest)]
                self._turns[rank] += 1
                if rank == 0 and not self._may_wait(process):
                    continue
                if process not in found and see(process).locked:
                    found.append(process)
        self._locked = frozenset(process for process in found if see(process).locked)
        return sorted(self._locked)

    def rest(self) -> None:
        """Release what was kept for the next look."""
        self._locked = frozenset()

    def _may_wait(self, process: ProcId) -> bool:
        """Whether its first thread is in a call that may wait for a lock."""
        try:
            call = parse_call(door.call(f"{self._proc}/{process.pid}", process.pid), self._names)
        except OSError:
            return False
        return call.name in ("flock", "fcntl", "futex", "futex_wait") and not is_timed(call)
