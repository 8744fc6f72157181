"""When to look for demotions that do harm. The actuator looks and restores; it also says when the next look is due."""

from __future__ import annotations

import math

from ..ports import Actuator, Clock
from .latest import Latest

AGAIN_NS = 100_000_000
"""How long to wait before retrying a step that failed between two ticks. Chosen: a fault must not become a busy loop."""

NOT_IN_THIS_TURN = math.inf
"""Due time of something that need not be looked at before the next tick."""


class HarmWatch:
    """Looks as often as the actuator asks for it. Times are monotonic ns."""

    def __init__(self, actuator: Actuator, latest: Latest, clock: Clock) -> None:
        self._actuator, self._latest, self._clock = actuator, latest, clock
        self.due: float = clock.monotonic()
        self.demoted = False
        """Whether something was demoted at the last look."""

    def look(self, now: int) -> None:
        """Look, and restore what does harm."""
        self.due = now + AGAIN_NS  # if it fails
        pause = self._actuator.relieve(self._latest.groups)
        self.demoted = pause is not None
        self.due = NOT_IN_THIS_TURN if pause is None else self._clock.monotonic() + round(pause * 1e9)
