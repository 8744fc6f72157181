"""The short time slice of a protected group: set with the demotion, evaluated later, and dropped where it does harm. Pure.

A short slice alone gains little (EEVDF uses it only to pick what to run next). On top of weight it is the best control for most
services, and makes some others wait longer (decision 0005). The waits of three ticks scatter more than a slice gains, so the slice
need not prove itself first: after `SHORT_TICKS` with it the group runs `LONG_TICKS` without it, and the slice is dropped only if
those were clearly better. All these ticks are from one stretch of contention: between two bursts of batch work nothing waits,
whatever the slice. A group that waits little with the slice keeps it: it is not made to wait longer for the comparison.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from ....decision import Group, Tick
from ..policy import Memory

SETTLE_TICKS = 1
"""Ticks after a change that are not counted, because they cover both states."""

SHORT_TICKS = 60
"""Ticks with the short slice that are measured (chosen). Contention that has lasted this long may last as long again, and then the
ticks without the slice are a twelfth of it. A shorter one is over before a comparison could gain anything."""

LONG_TICKS = 5
"""Ticks without the slice that are measured (chosen): few, because most groups wait longer in them."""

HARM = 0.1
"""The slice is dropped if the group waits less without it by this share (chosen): smaller differences are within the scatter of
LONG_TICKS ticks."""

AGAIN_SECONDS = 600.0
"""Seconds for which the result of a comparison is valid (chosen)."""

LEAST_DEMAND = 0.02
"""Least demand in cores of a group whose waits are compared (chosen): with less it has no work that a slice could speed up."""

MOST_PROCESSES = 64
"""A group with more processes gets no short slices (chosen): it is not a service that wakes for each request."""


class Phase(StrEnum):
    """Stage of a comparison."""

    SHORT = "short"  # measuring with the short slice
    LONG = "long"  # measuring without it
    KEPT = "kept"  # result: it does no harm
    DROPPED = "dropped"  # result: the group waits less without it, or the kernel refuses it


class Trial(Memory):
    """State of the comparison for a group."""

    phase: Phase = Phase.SHORT
    ticks: int = -SETTLE_TICKS  # of this phase; below 0: not counted yet
    wait: float = 0.0  # cores, summed over the ticks counted
    demand: float = 0.0  # cores run and waited for
    short: float | None = None  # wait per demand with the short slice, once measured
    long: float | None = None  # and without
    until: int = 0  # ns until which the result is valid


class Slices(Memory):
    """Trials by group."""

    trials: dict[str, Trial] = msgspec.field(default_factory=dict)

    def wanted(self, tick: Tick, protected: list[Group], demoted: bool, crowded: bool, little: float) -> list[Group]:
        """Groups that should have the short slice in this tick. Call it once a tick. `demoted`: demotions are in force. `crowded`:
        batch work wants the CPUs now. `little`: wait as a share of the demand below which a slice cannot gain anything."""
        if not demoted:
            self.trials = {name: trial for name, trial in self.trials.items() if trial.until > tick.at}
            return []
        chosen = []
        for group in protected:
            if group.processes > MOST_PROCESSES:
                continue
            trial = self.trials.get(group.name)
            if trial is None and group.demand < LEAST_DEMAND:
                continue
            if trial is None or 0 < trial.until <= tick.at:
                trial = self.trials[group.name] = Trial()
            if not crowded and not trial.until:
                trial = self.trials[group.name] = Trial()
            elif crowded:
                self._count(trial, group, tick.at, little)
            if trial.phase in (Phase.SHORT, Phase.KEPT):
                chosen.append(group)
        return chosen

    def again(self) -> None:
        """The demotion was changed: measurements from before are no longer valid."""
        for name, trial in self.trials.items():
            if not trial.until:
                self.trials[name] = Trial()

    def refused(self, group: str, at: int) -> None:
        """The kernel refuses the slice."""
        self.trials[group] = Trial(phase=Phase.DROPPED, until=at + round(AGAIN_SECONDS * 1e9))

    def _count(self, trial: Trial, group: Group, at: int, little: float) -> None:
        if trial.until or group.demand < LEAST_DEMAND:
            return
        trial.ticks += 1
        if trial.ticks <= 0:
            return
        trial.wait += group.wait
        trial.demand += group.cpu + group.wait
        if trial.ticks < (SHORT_TICKS if trial.phase is Phase.SHORT else LONG_TICKS):
            return
        share = trial.wait / trial.demand
        if trial.phase is Phase.LONG:
            trial.long = share
            harmful = trial.short is not None and share < (1 - HARM) * trial.short
            trial.phase = Phase.DROPPED if harmful else Phase.KEPT
        else:
            trial.short = share
            trial.phase = Phase.KEPT if share < little else Phase.LONG
        if trial.phase is not Phase.LONG:
            trial.until = at + round(AGAIN_SECONDS * 1e9)
        trial.ticks, trial.wait, trial.demand = -SETTLE_TICKS, 0.0, 0.0
