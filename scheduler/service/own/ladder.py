"""How much of the CPU the daemon asks for: as little as keeps its ticks on time. Pure.

While something is demoted for a service, it stands back at nice 19, because the daemon must not take what the batch no longer
takes. While a service has work and nothing is demoted, it is at nice 10: a tick in one piece is what delays a service on a
machine that has nothing else to do. If its ticks are late because it waited for a CPU, it climbs, whatever is demoted, acting or
not: late protection is none. After a calm time it goes down again, one rung at a time; if that was too early, the next try comes
later.
"""

from __future__ import annotations

import math
from enum import IntEnum

NICES = (19, 10, 0, -5, -10, -15, -20)
"""The rungs. 19: next to nothing, like the batch; 10: a tenth of the usual weight, enough beside sessions that are not demoted;
then every five steps of nice are about three times the weight (1.25 per step, sched_prio_to_weight in kernel/sched/core.c)."""


class Rest(IntEnum):
    """The rung that it is on while its ticks are on time."""

    BACK = 0  # something is demoted
    ASIDE = 1  # a service has work, and nothing is demoted
    USUAL = 2


RUNG = 3.0
"""How many times as much of a CPU a rung gives beside others, roughly: 1.25 ** 5."""

CALM_NS, MOST_CALM_NS = 30 * 10**9, 16 * 60 * 10**9
"""How long no tick must be late before it goes down a rung: at first, and at most after tries that were too early. Chosen: a burst
of load is over after half a minute, or it is none; and a rung too high for a quarter of an hour costs others nothing that they
feel."""


class Ladder:
    """The daemon's rung. All times are monotonic ns."""

    def __init__(self) -> None:
        self._rung: int = Rest.USUAL
        self._failed = -1  # highest rung on which ticks were late, as far as it remembers
        self._patience = CALM_NS  # before it tries that rung again
        self._since = 0  # when a tick was late, or it went down, last
        self._lowered = False  # it went down since a tick was late
        self._restless = False  # ticks were late, and since then it has not been at its rest for a while

    @property
    def nice(self) -> int:
        """What it asks for: one of `NICES`."""
        return NICES[self._rung]

    @property
    def highest(self) -> bool:
        """Whether there is nothing more to ask for."""
        return self._rung == len(NICES) - 1

    def follow(self, at: int, rest: Rest) -> None:
        """Call often with the rung where it should rest. It goes down at once if its ticks were on time, up in any case."""
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
        """Call after each tick with the ns that it waited for a CPU: more than `most` is too much. It climbs as many rungs as
        make up for it."""
        if waited <= most:
            return
        if self._lowered and at - self._since < self._patience:
            self._patience = min(2 * self._patience, MOST_CALM_NS)
        self._failed, self._since, self._lowered, self._restless = self._rung, at, False, True
        self._rung = min(self._rung + math.ceil(math.log(waited / most, RUNG)), len(NICES) - 1)
