"""Whether a shorter time slice helps a protected group: tried, measured, and kept only where it does. Pure.

A short slice alone buys little (EEVDF only picks whom to run next by it), on top of weight it may take a part off the p99, and with
some bursts it makes things worse (`benchmarks/latency_beside_batch.py`). So it is tried when demotions are in force, for
`TRIAL_TICKS` beside as many before.
"""

from __future__ import annotations

import msgspec

from ..decision import Group, Tick
from .policy import Memory

SETTLE_TICKS = 1
"""Ticks after a change that are not counted: they saw both."""

TRIAL_TICKS = 3
"""Ticks whose waits are compared, before and after."""

GAIN = 0.05
"""Share of its wait that a group must win for its slice to be kept: less is within the scatter of three ticks."""

AGAIN_SECONDS = 600.0
"""How long after a trial without gain the next one may be."""

LEAST_DEMAND = 0.02
"""Cores of demand of a group below which its waits are too few to compare."""

MOST_PROCESSES = 64
"""A group of more processes is no service that wakes for each request; its threads are left alone."""


class Trial(Memory):
    """How far the trial of a group is."""

    phase: str = "before"  # before, trying, kept, dropped
    ticks: int = -SETTLE_TICKS  # of this phase; below 0: not counted yet
    wait: float = 0.0  # cores, summed over the ticks counted
    demand: float = 0.0
    before: float | None = None  # wait per demand of the phase "before"
    until: int = 0  # ns, of phase "dropped"


class Slices(Memory):
    """Trials by group."""

    trials: dict[str, Trial] = msgspec.field(default_factory=dict)

    def wanted(self, tick: Tick, protected: list[Group], demoted: bool) -> list[Group]:
        """Groups that should have the short slice in this tick. To be called once a tick; `demoted`: weights are in force."""
        if not demoted:
            self.trials = {name: trial for name, trial in self.trials.items() if trial.phase == "dropped" and trial.until > tick.at}
            return []
        chosen = []
        for group in protected:
            if group.processes > MOST_PROCESSES:
                continue
            trial = self.trials.get(group.name)
            if trial is None or (trial.phase == "dropped" and trial.until <= tick.at):
                trial = self.trials[group.name] = Trial()
            self._count(trial, group, tick.at)
            if trial.phase in ("trying", "kept"):
                chosen.append(group)
        return chosen

    def again(self) -> None:
        """The demotion was changed: what was measured before it is no measure any more."""
        for trial in self.trials.values():
            if trial.phase in ("before", "trying"):
                trial.ticks, trial.wait, trial.demand = -SETTLE_TICKS, 0.0, 0.0

    def refused(self, group: str, at: int) -> None:
        """The kernel does not do it."""
        self.trials[group] = Trial(phase="dropped", until=at + round(AGAIN_SECONDS * 1e9))

    def _count(self, trial: Trial, group: Group, at: int) -> None:
        if trial.phase not in ("before", "trying") or group.demand < LEAST_DEMAND:
            return
        trial.ticks += 1
        if trial.ticks <= 0:
            return
        trial.wait += group.wait
        trial.demand += group.demand
        if trial.ticks < TRIAL_TICKS:
            return
        share = trial.wait / trial.demand
        if trial.phase == "before":
            trial.phase, trial.before = "trying", share
        elif trial.before is not None and share <= (1 - GAIN) * trial.before:
            trial.phase = "kept"
        else:
            trial.phase, trial.until = "dropped", at + round(AGAIN_SECONDS * 1e9)
        trial.ticks, trial.wait, trial.demand = -SETTLE_TICKS, 0.0, 0.0
