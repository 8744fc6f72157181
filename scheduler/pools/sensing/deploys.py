"""Tells a deploy from a hand on the size: whether workers are replaced, or only added. Pure.

A reload starts workers that nobody asked for, and then ends those that were there. A hand on the size starts them too, and those
that were there go on. So the old workers decide: gone, or at new work. Must not know kinds of pools, signals or the clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from ....models.identity import ProcId

_SECOND = 1_000_000_000
GRACE_NS = _SECOND
"""An old worker that takes new work this long after the last birth was not told to leave. Chosen: a master sends its SIGTERMs
within milliseconds of the births, and a worker that waits leaves within 0.2 s."""
UNDECIDED_NS = 60 * _SECOND
"""After this long without a sign, workers count as added. Only where an old worker's one request lasts as long, or where nothing
can be seen of what workers do. Chosen: twice gunicorn's default graceful_timeout."""


class Turn(Enum):
    """What has become of workers that nobody asked for."""

    NONE = "there are none"
    OPEN = "it cannot be told yet"
    REPLACED = "the old ones have gone: a deploy"
    ADDED = "the old ones go on: a hand on the size"


class Turnover:
    """The births that nobody asked for, and the workers that were there at the first of them. `REPLACED` and `ADDED` end it."""

    def __init__(self) -> None:
        self._old: set[ProcId] = set()
        self._young: set[ProcId] = set()
        self._were = 0
        self._last = 0  # the last birth, ns
        self._goes_on = False
        self.open = False
        """Whether there were such births, and no verdict yet."""

    def born(self, worker: ProcId, others: Iterable[ProcId], now: int) -> None:
        """A worker came that nobody asked for. The first one opens the turn-over. `others`: the workers that were there before."""
        if not self.open:
            self.forget()
            self._old, self.open = set(others), True
            self._were = len(self._old)
        self._young.add(worker)
        self._last = now

    def gone(self, worker: ProcId) -> None:
        """A worker has ended. Without any new one there is no turn-over: a fork that became another program was none."""
        self._old.discard(worker)
        self._young.discard(worker)
        self.open = self.open and bool(self._young)

    def at_work(self, worker: ProcId, at: int) -> None:
        """A worker took new work, or waited for it, at this time (ns)."""
        self._goes_on = self._goes_on or (worker in self._old and at >= self._last + GRACE_NS)

    def turn(self, now: int, *, listens: bool) -> Turn:
        """What it is. `listens`: the master takes signals again, so it is done even if an old worker still ends its request."""
        if not self.open:
            return Turn.NONE
        left = len(self._old)
        if not left or (listens and 2 * left < self._were and not self._goes_on and now >= self._last + GRACE_NS):
            self.open = False
            return Turn.REPLACED
        if self._goes_on or now >= self._last + UNDECIDED_NS:
            self.open = False
            return Turn.ADDED
        return Turn.OPEN

    @property
    def old(self) -> frozenset[ProcId]:
        """Of the workers that were there, those that still are."""
        return frozenset(self._old)

    @property
    def replaced(self) -> int:
        """How many have gone."""
        return self._were - len(self._old)

    def certain(self, now: int) -> bool:
        """Whether a hand would be told by now, if the old workers could be seen: the size is really not known."""
        return now >= self._last + GRACE_NS

    def forget(self) -> None:
        """Drop all that is known."""
        self._old, self._young, self._were, self._last = set(), set(), 0, 0
        self._goes_on = self.open = False

    def text(self) -> str:
        """What is under way, for people."""
        if self.replaced:
            return f"deploying: {self.replaced} of {self._were} workers are replaced, the others still end their requests"
        return "workers came that nicety did not ask for, and the old ones are at long requests: a deploy, or a hand on the size"
