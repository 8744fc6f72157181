"""Waiting work of a pool: what a count says, and when to count. A count that cannot be made is unknown, never 0.

Must not know pools or how anything is counted. `probe` never blocks: a count is requested in one probe and taken in a later one.
"""

from __future__ import annotations

import logging
import statistics
from typing import NamedTuple, Protocol

from .....models.records import Flights
from ....hands.kernel import Clock

log = logging.getLogger(__name__)

_SECOND = 1_000_000_000
LATE_NS = 10 * _SECOND
"""Time for a program that counts to answer. Chosen."""
MAX_BACK_OFF_NS = 30 * _SECOND
"""Longest wait between two tries to count. Chosen."""
STALE = 3
"""A count older than this many intervals, plus LATE_NS, is dropped. Chosen."""


class Count(NamedTuple):
    """What a queue holds at one instant."""

    waiting: int  # work that no worker has taken, and that is due
    held: int | None = None  # work that workers have taken and not finished; None: the queue does not tell


class Counter(Protocol):
    """A way to count."""

    def step(self, now: int) -> Count | None:
        """Ask, or take the answer; None: no answer yet. Returns at once. Raises CountError with cause and next step."""
        ...

    def close(self) -> None:
        """Give up what is under way."""
        ...


class CountError(Exception):
    """The queue cannot be counted now."""


class WaitingWork:
    """A counter with its timing: the last count, its age and, if there is none, the reason."""

    def __init__(self, name: str, counter: Counter, every: float, clock: Clock) -> None:
        self._name = name
        self._counter = counter
        self._every = int(every * _SECOND)
        self._clock = clock
        self._asked = False
        self._next = 0
        self._failures = 0
        self._count: Count | None = None
        self._counted_at = 0
        self._held: list[int] = []  # at each probe since `flights` was asked
        self.problem = ""
        """Why there is no count; "" if there is one."""

    def probe(self) -> None:
        """Ask for a count if it is time, or take one that has arrived. Never blocks, never raises."""
        now = self._clock.monotonic()
        if self._asked or now >= self._next:
            self._step(now)
        count = self.count()
        if count is not None and count.held is not None:
            self._held.append(count.held)

    def _step(self, now: int) -> None:
        if not self._asked:
            self._asked, self._next = True, now + self._every
        try:
            count = self._counter.step(now)
        except CountError as error:
            self._asked = False
            self._failures += 1
            self._next = now + max(self._every, min(MAX_BACK_OFF_NS, _SECOND << min(self._failures - 1, 5)))
            if str(error) != self.problem:
                log.warning("pool %s: its queue cannot be counted: %s", self._name, error)
            self.problem, self._count = str(error), None
            return
        if count is not None:
            if self.problem:
                log.info("pool %s: its queue is counted again", self._name)
            self._asked, self._failures, self.problem = False, 0, ""
            self._count, self._counted_at = count, now

    def count(self) -> Count | None:
        """The last count; None if there is none, or it is too old."""
        if self._count is None or self._clock.monotonic() - self._counted_at > STALE * self._every + LATE_NS:
            return None
        return self._count

    def flights(self) -> Flights | None:
        """What workers held over the probes since this was last asked; None: the queue does not tell. No answer is seen to end."""
        held = self._held.copy()
        self._held.clear()
        return Flights(statistics.fmean(held), 0, ()) if held else None

    def close(self) -> None:
        """Stop counting."""
        self._counter.close()
        self._next, self._asked = 1 << 63, False
