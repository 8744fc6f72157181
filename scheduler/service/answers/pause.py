"""A pause that a user requested: the daemon keeps reading, and decides nothing new."""

from __future__ import annotations

import math

from ...explain.logstream import NOTICE
from ...hands.kernel import Clock
from ..reports import Reports


class Pause:
    """Lasts until its time is over or a user ends it."""

    def __init__(self, clock: Clock, reports: Reports) -> None:
        self._clock, self._reports = clock, reports
        self._until: float | None = None  # monotonic ns; infinity: until a user ends it; None: no pause

    def begin(self, seconds: float | None) -> None:
        """Pause for `seconds`, or until `end` if None."""
        self._until = math.inf if seconds is None else self._clock.monotonic() + seconds * 1e9

    def end(self) -> None:
        """End the pause."""
        self._until = None

    def holds(self, now: int) -> bool:
        """Whether the daemon is paused at `now`, monotonic ns. Reports once that the pause is over."""
        if self._until is not None and now >= self._until:
            self._until = None
            self._reports.event(NOTICE, "the pause is over")
        return self._until is not None
