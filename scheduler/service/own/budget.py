"""Limits what the daemon itself costs: beyond its budget it does deferrable work less often, in a fixed order. Pure.

No value is guessed meanwhile: one that is read less often is the one that was read last, as always, and a tick that is left out
counts as a missed one. Relief, the control socket and the watchdog are never reduced. Nor is a part of a tick whose absence would
make a sick machine look sound, such as scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

WINDOW_NS = 30 * 10**9
"""ns over which the daemon's CPU time is summed up. Chosen: longer than the period of periodic work (slow reads, keyframes)."""

CALM = 0.5
"""Share of the budget below which a level is taken back. Chosen: the level that saves most halves the cost."""

CALM_WINDOWS = 4
"""Consecutive windows with less than `CALM` before a level is taken back. Chosen: two minutes."""


class Pace(NamedTuple):
    """By which factor each kind of work is done less often than usual."""

    details: int = 1  # io and descriptor counts of ordinary processes
    probes: int = 1  # looks at pools between two ticks
    deadlocks: int = 1  # looks for deadlocks
    ticks: int = 1  # everything; at most 2, because a gap of three intervals is a hole in the windows


LEVELS: tuple[tuple[Pace, str], ...] = (
    (Pace(), ""),
    (Pace(2), "io and descriptor counts of ordinary processes half as often"),
    (Pace(2, 4), "looks at pools between ticks a quarter as often"),
    (Pace(2, 4, 4), "looks for deadlocks every fourth tick"),
    (Pace(2, 4, 4, 2), "every second tick only"),
)
"""What is reduced on each level, in addition to the levels before it. io counts are not reduced further, because the class of a new
group, which is known after 24 ticks, depends on them too. Factors are chosen."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change of level, and why."""

    level: int
    share: float  # of one CPU, in the window that ended
    up: bool  # whether more is reduced than before


class Budget:
    """Follows what the daemon costs. Times are ns."""

    def __init__(self, limit: float) -> None:
        """`limit`: share of one CPU."""
        self.limit = limit
        self.share: float | None = None
        """Share of one CPU in the last whole window; None: no window is over yet."""
        self.level = 0
        self._began: tuple[int, int] | None = None  # start of the window, and the CPU time used until then
        self._calm = 0

    @property
    def pace(self) -> Pace:
        """How often to do each kind of work now."""
        return LEVELS[self.level][0]

    @property
    def reduced(self) -> tuple[str, ...]:
        """What is done less often now, in order."""
        return tuple(what for _, what in LEVELS[1 : self.level + 1])

    @property
    def trouble(self) -> str:
        """Says that all deferrable work is reduced and that this is not enough; "" if it is enough."""
        if self.level < len(LEVELS) - 1 or self.share is None or self.share <= self.limit:
            return ""
        cause = f"the daemon uses more than {self.limit:.1%} of a CPU although it does all deferrable work less often"
        return f"{cause}; raise daemon.interval or daemon.budget"

    def used(self, at: int, cpu: int) -> Change | None:
        """Call after each tick with the monotonic time and the CPU time used so far. Returns the change of level, if there is
        one."""
        if self._began is None:
            self._began = at, cpu
        elapsed = at - self._began[0]
        if elapsed < WINDOW_NS:
            return None
        self.share = (cpu - self._began[1]) / elapsed
        self._began = at, cpu
        self._calm = self._calm + 1 if self.share < CALM * self.limit else 0
        step = 1 if self.share > self.limit else -1 if self._calm >= CALM_WINDOWS else 0
        level = min(max(self.level + step, 0), len(LEVELS) - 1)
        if level == self.level:
            return None
        self.level, self._calm = level, 0
        return Change(level, self.share, step > 0)
