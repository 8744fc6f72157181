"""When to check for demotions that do harm. The actuator checks and restores, and says when the next check is due."""

from __future__ import annotations

import math

from ..hands.kernel import Clock
from ..ports import Actuator
from .latest import Latest

AGAIN_NS = 100_000_000
"""ns until a step that failed between two ticks is tried again. Chosen: a fault must not become a busy loop."""

NOT_BEFORE_THE_NEXT_TICK = math.inf
"""Due time of a check that is not needed before the next tick."""


class HarmWatch:
    """Checks as often as the actuator asks for it. Times are monotonic ns."""

    def __init__(self, actuator: Actuator, latest: Latest, clock: Clock) -> None:
        self._actuator, self._latest, self._clock = actuator, latest, clock
        self.due: float = clock.monotonic()
        self.demoted = False
        """Whether something was demoted at the last check."""

    def look(self, now: int) -> None:
        """Restore demotions that do harm."""
        self.due = now + AGAIN_NS  # if the check fails
        pause = self._actuator.relieve(self._latest.groups)
        self.demoted = pause is not None
        self.due = NOT_BEFORE_THE_NEXT_TICK if pause is None else self._clock.monotonic() + round(pause * 1e9)
