"""Finds threads that only the clock wakes: look after look finds them in the same timed wait, and they have run in between.

Such a thread woke often and did not release the lock that its process holds. Must not know which lock that is.
"""

from __future__ import annotations

from typing import NamedTuple

from ....models.anomaly.waitgraph import Thread
from ..holders import read
from .standing import turn_of

# Tuned together on the scenes with a heartbeat or a working thread in testing/circles.py: tests/real/test_deadlocks.py

BEATS = 4
"""Looks after which a thread counts as ticking: each found it in the same timed wait, and it had run in between. Chosen: a circle
is found within 15 s."""

MISSED = 4
"""For every MISSED of those looks, at most one may find it running: a thread that works is found running more often. Chosen."""

WORK_NS = 500_000
"""CPU per turn above which a thread works, whatever it waits for in between. Chosen: a heartbeat in Python takes 0.05 to 0.2 ms."""


class _Beat(NamedTuple):
    """A thread that is found repeatedly in the same timed wait."""

    where: tuple[str, int]  # call, stack pointer
    look: int  # the latest
    turn: int  # at that look
    rounds: int  # looks that found that it had run since the look before
    missed: int  # looks that found it running, or waiting for a CPU
    first: tuple[int, int]  # (turn, ns of CPU) when it was first found there


class Heartbeats:
    """Remembers from look to look where threads were found."""

    def __init__(self, proc: str) -> None:
        self._proc = proc
        self._number = 0  # of the look
        self._beats: dict[Thread, _Beat] = {}

    def begin(self, number: int) -> None:
        """A new look, the one with this number. A thread that the last look did not find starts again."""
        self._beats = {thread: beat for thread, beat in self._beats.items() if beat.look == self._number}
        self._number = number

    def ticks(self, thread: Thread, where: tuple[str, int] | None) -> bool:
        """Whether enough looks found the thread there, or running, and it has run in between. `where`: its call and stack pointer;
        None while it runs."""
        turn = None if where is None else turn_of(self._proc, thread)
        before = self._beats.get(thread)
        if before is None or before.look != self._number - 1 or (where is not None and before.where != where):
            before = None
        if turn is not None and where is not None:
            cpu = self._cpu(thread)
            if before is None or cpu - before.first[1] > WORK_NS * (turn - before.first[0] + 1):
                beat = _Beat(where, self._number, turn, 0, 0, (turn, cpu))
            else:
                beat = _Beat(where, self._number, turn, before.rounds + (turn != before.turn), before.missed, before.first)
        elif before is not None:
            beat = before._replace(look=self._number, missed=before.missed + 1)
        else:
            return False
        self._beats[thread] = beat
        return beat.rounds >= BEATS and beat.missed * MISSED <= beat.rounds

    def rest(self) -> None:
        """Release what was kept for the next look."""
        self._beats.clear()

    def _cpu(self, thread: Thread) -> int:
        """ns of CPU that the thread has used; 0 if that cannot be read."""
        try:
            return int(read(f"{self._proc}/{thread.process.pid}/task/{thread.tid}/schedstat").split()[0])
        except OSError:
            return 0
