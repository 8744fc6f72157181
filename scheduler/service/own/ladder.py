"""How much of the CPU the daemon asks for: as little as keeps its ticks on time. Pure.

While something is demoted for a service, the daemon is at nice 19: it must not take the CPU time that the batch gave up. While a
service has work and nothing is demoted, it is at nice 10: on a machine with nothing else to do, an uninterrupted tick is what
delays the service. If its ticks are late because it waited for a CPU, it climbs, whatever is demoted, because protection that comes
late does not protect. After a calm time it goes down one rung at a time. If that was too early, it waits longer before the next
try."""

from __future__ import annotations

import math
from enum import IntEnum

NICES = (19, 10, 0, -5, -10, -15, -20)
"""The rungs, by nice. 19: next to nothing, like the batch. 10: a tenth of the usual weight, which is enough beside sessions that
are not demoted. From 0 on, each rung of five nice steps has about three times the weight of the one before (1.25 per step,
sched_prio_to_weight in kernel/sched/core.c)."""


class Rest(IntEnum):
    """The rung while ticks are on time."""

    BACK = 0  # something is demoted
    ASIDE = 1  # a service has work, and nothing is demoted
    USUAL = 2


RUNG = 3.0
"""Factor between the CPU shares of two neighbouring rungs, rounded: 1.25 ** 5."""

CALM_NS, MOST_CALM_NS = 30 * 10**9, 16 * 60 * 10**9
"""ns without a late tick before the daemon goes down a rung: at first, and at most after tries that were too early. Chosen: a burst
of load lasts less than half a minute; and others do not notice that the daemon is a rung too high for a quarter of an hour."""


class Ladder:
    """The daemon's rung. All times are monotonic ns."""

    def __init__(self) -> None:
        self._rung: int = Rest.USUAL
        self._failed = -1  # highest rung on which ticks were late, as far as is remembered
        self._patience = CALM_NS  # how long before that rung is tried again
        self._since = 0  # when a tick was last late, or the rung was last lowered
        self._lowered = False  # whether the rung was lowered since a tick was late
        self._restless = False  # ticks were late, and the daemon has not rested for a calm time since

    @property
    def nice(self) -> int:
        """The nice to ask for: one of `NICES`."""
        return NICES[self._rung]

    @property
    def highest(self) -> bool:
        """Whether it is on the highest rung."""
        return self._rung == len(NICES) - 1

    def follow(self, at: int, rest: Rest) -> None:
        """Call often with the rung where the daemon should rest. It always goes up to it at once, and down to it only if its ticks
        were on time."""
        self._rung = max(self._rung, rest)
        below = self._rung - 1 if self._rung > Rest.USUAL else rest
        if self._restless and at - self._since < (self._patience if below <= self._failed else CALM_NS):
            return
        if self._lowered and self._rung <= self._failed:  # that was not too early
            self._failed, self._patience = self._rung - 1, max(CALM_NS, self._patience // 2)
        if self._rung == rest:
            self._restless = False
        elif self._restless:
            self._lowered, self._since = True, at
        self._rung = below

    def ticked(self, at: int, waited: int, most: int) -> None:
        """Call after each tick with the ns that the daemon waited for a CPU. If they are more than `most`, it climbs as many rungs
        as make up for it."""
        if waited <= most:
            return
        if self._lowered and at - self._since < self._patience:
            self._patience = min(2 * self._patience, MOST_CALM_NS)
        self._failed, self._since, self._lowered, self._restless = self._rung, at, False, True
        self._rung = min(self._rung + math.ceil(math.log(waited / most, RUNG)), len(NICES) - 1)
