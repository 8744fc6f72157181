"""A pause that a user asked for: the daemon goes on reading, and decides nothing new."""

from __future__ import annotations

import math

from ...explain.logstream import NOTICE
from ...ports import Clock
from ..reports import Reports


class Pause:
    """Holds until it is over or ended."""

    def __init__(self, clock: Clock, reports: Reports) -> None:
        self._clock, self._reports = clock, reports
        self._until: float | None = None  # monotonic ns; infinity: until it is ended; None: there is none

    def begin(self, seconds: float | None) -> None:
        """Pause for so long, or until `end` if that is None."""
        self._until = math.inf if seconds is None else self._clock.monotonic() + seconds * 1e9

    def end(self) -> None:
        """Go on."""
        self._until = None

    def holds(self, now: int) -> bool:
        """Whether it holds at this monotonic time, ns. Reports once that it is over."""
        if self._until is not None and now >= self._until:
            self._until = None
            self._reports.event(NOTICE, "the pause is over")
        return self._until is not None
