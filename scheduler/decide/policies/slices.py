"""The short time slice of a protected group: given with the demotion, looked at later, and taken back where it does harm. Pure.

A short slice alone buys little (EEVDF only picks whom to run next by it); on top of weight it is the best control that a person
could pick for most services, and makes some others wait longer (decision 0005). What three ticks wait scatters more than what a
slice wins, so it is not asked to prove itself first: after `SHORT_TICKS` with it the group runs `LONG_TICKS` without, and
it is dropped only if those were clearly better. All of them are of one stretch of contention: between two bursts of a batch nobody
waits, whatever the slice. A group that waits little with it is not made to wait longer to learn that: it keeps it.
"""

from __future__ import annotations

import msgspec

from ...decision import Group, Tick
from .policy import Memory

SETTLE_TICKS = 1
"""Ticks after a change that are not counted: they saw both."""

SHORT_TICKS = 60
"""Ticks with the short slice whose waits are the measure. Contention that has lasted for so long may last as long again, and the
look without is then a twelfth of it; one that is shorter is over before anything could be won by knowing better."""

LONG_TICKS = 5
"""Ticks without it that are compared with them: few, for most groups wait longer in them."""

HARM = 0.1
"""Share of its wait that a group must be without for its slice to be dropped: less is within the scatter of five ticks."""

AGAIN_SECONDS = 600.0
"""How long what was found is believed."""

LEAST_DEMAND = 0.02
"""Cores of demand from which a group has work that a slice could speed up, and whose waits can be compared."""

MOST_PROCESSES = 64
"""A group of more processes is no service that wakes for each request; its threads are left alone."""


class Trial(Memory):
    """How far the comparison of a group is."""

    phase: str = "short"  # short, long: measured with and without; kept, dropped: found
    ticks: int = -SETTLE_TICKS  # of this phase; below 0: not counted yet
    wait: float = 0.0  # cores, summed over the ticks counted
    demand: float = 0.0  # cores run and waited for
    short: float | None = None  # wait per demand with the short slice, once measured
    long: float | None = None  # and without
    until: int = 0  # ns, of what was found


class Slices(Memory):
    """Trials by group."""

    trials: dict[str, Trial] = msgspec.field(default_factory=dict)

    def wanted(self, tick: Tick, protected: list[Group], demoted: bool, crowded: bool, little: float) -> list[Group]:
        """Groups that should have the short slice in this tick. To be called once a tick; `demoted`: weights are in force,
        `crowded`: batch work wants the CPUs now, `little`: wait as a share of demand, below which there is nothing to be won."""
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
            if trial.phase in ("short", "kept"):
                chosen.append(group)
        return chosen

    def again(self) -> None:
        """The demotion was changed: what was measured before it is no measure any more."""
        for name, trial in self.trials.items():
            if not trial.until:
                self.trials[name] = Trial()

    def refused(self, group: str, at: int) -> None:
        """The kernel does not do it."""
        self.trials[group] = Trial(phase="dropped", until=at + round(AGAIN_SECONDS * 1e9))

    def _count(self, trial: Trial, group: Group, at: int, little: float) -> None:
        if trial.until or group.demand < LEAST_DEMAND:
            return
        trial.ticks += 1
        if trial.ticks <= 0:
            return
        trial.wait += group.wait
        trial.demand += group.cpu + group.wait
        if trial.ticks < (SHORT_TICKS if trial.phase == "short" else LONG_TICKS):
            return
        share = trial.wait / trial.demand
        if trial.phase == "long":
            trial.long = share
            trial.phase = "dropped" if trial.short is not None and share < (1 - HARM) * trial.short else "kept"
        else:
            trial.short = share
            trial.phase = "kept" if share < little else "long"
        if trial.phase != "long":
            trial.until = at + round(AGAIN_SECONDS * 1e9)
        trial.ticks, trial.wait, trial.demand = -SETTLE_TICKS, 0.0, 0.0
