"""Keeps batch groups off the CPUs that latency groups will need. Pure. Off by default: weight protects better where CPUs are few.

Measured on two CPUs, one CPU each halves the batch and protects less than the right weight does. So nothing is confined unless the
batch demand fits into what is left, and the confinement ends as soon as it does not.
"""

from __future__ import annotations

import math

import msgspec

from ...models.records import ProcId
from ..config import Config
from ..decision import Control, Decision, Group, Latency, Restore, Set, Tick, Why
from .policy import Figures, Memory, Outlook, Result, figures, horizon_for, peak

STICKY_SECONDS = 15.0
"""How long a smaller demand must last before it counts: moving processes costs caches."""

LEAST_DEMAND = 0.01
"""Cores of latency demand below which no CPU is kept for it."""


class Confined(Memory):
    """A process that is confined."""

    process: ProcId
    group: str
    cpus: tuple[int, ...]


class PlacementMemory(Memory):
    """What the policy remembers."""

    latency_peaks: list[tuple[int, int]] = msgspec.field(default_factory=list)  # whole CPUs needed, see `peak`
    batch_peaks: list[tuple[int, int]] = msgspec.field(default_factory=list)
    confined: dict[str, Confined] = msgspec.field(default_factory=dict)


class Placement:
    """The policy."""

    name = "placement"

    def __init__(self, config: Config, memory: PlacementMemory) -> None:
        self._config = config.placement
        self._quantile = config.priority.quantile
        self._interval = config.daemon.interval
        self.memory = memory
        self._wished: dict[str, Confined] = {}  # of this tick, by target

    def propose(self, tick: Tick) -> list[Decision]:
        """Affinities for batch processes, or their return."""
        memory, config = self.memory, self._config
        latency = [group for group in tick.groups if group.latency is Latency.LATENCY]
        batch = [group for group in tick.groups if group.latency is Latency.BATCH and group.members]
        outlook, cpus = Outlook(tick), tick.machine.cpus
        needed = self._expected(latency, outlook) * (1 + config.slack)
        wanted = self._expected(batch, outlook)
        keep = peak(memory.latency_peaks, tick.at, _cpus(needed) if needed >= LEAST_DEMAND else 0, STICKY_SECONDS)
        fits = keep + max(1, peak(memory.batch_peaks, tick.at, _cpus(wanted), STICKY_SECONDS)) <= cpus
        reserved = keep if config.enabled and cpus >= config.minimum_cpus and fits else 0
        wishes: dict[str, Confined] = {}
        if reserved:
            allowed = tuple(range(reserved, cpus))
            for group in batch:
                for member in group.members:
                    wishes[f"group {group.name} pid {member.id.pid}"] = Confined(member.id, group.name, allowed)
        self._wished = {target: wish for target, wish in wishes.items() if memory.confined.get(target) != wish}
        numbers = figures(
            latency_cores_with_slack=needed,
            batch_cores=wanted,
            cpus=cpus,
            reserved_cpus=reserved,
            forecast_quantile=self._quantile,
        )
        return self._returns(tick, wishes, numbers) + [_confine(target, wish, numbers) for target, wish in self._wished.items()]

    def skip(self) -> None:
        """Nothing: CPUs that are given back after a hole cost caches at most."""

    def admit(self, decision: Decision) -> None:
        """The confinement is in force from now on; a return counts when its outcome is there."""
        if isinstance(decision.action, Set):
            self.memory.confined[decision.target] = self._wished[decision.target]

    def learn(self, result: Result) -> None:
        """Drops what is not, or not any more, in force."""
        action = result.action
        if isinstance(action, Set | Restore) and action.control is not Control.AFFINITY:
            return
        if not (isinstance(action, Set) and result.done) and not (isinstance(action, Restore) and result.failed):
            self.memory.confined.pop(result.target, None)

    def _expected(self, groups: list[Group], outlook: Outlook) -> float:
        """Cores of demand that the groups together will have at most in the sticky time."""
        horizon = horizon_for(STICKY_SECONDS, self._interval)
        said = [(group, outlook.value(group.name, "cpu", horizon, self._quantile)) for group in groups]
        return sum(max(group.demand, value or 0.0) for group, value in said)

    def _returns(self, tick: Tick, wishes: dict[str, Confined], numbers: Figures) -> list[Decision]:
        memory = self.memory
        stale = [target for target in sorted(memory.confined) if target not in wishes]
        if not stale:
            return []
        batch = {group.name for group in tick.groups if group.latency is Latency.BATCH}
        present = {member.id for group in tick.groups for member in group.members}
        decisions = []
        for target in stale:
            confined = memory.confined[target]
            if confined.process not in present and confined.group in batch:
                del memory.confined[target]  # the process is gone
                continue
            why = Why(
                rule="placement over",
                text=f"Confining {target} does not pay any more: its CPUs back to what they were.",
                figures=numbers,
                rejected=("keeping it confined: batch throughput is not thrown away",),
                flips=(),
            )
            decisions.append(Decision("", self.name, target, Restore(Control.AFFINITY, confined.process, ""), why))
        return decisions


def _cpus(demand: float) -> int:
    """Whole CPUs for a demand in cores; absurd forecasts are as good as too many."""
    return math.ceil(min(demand, 1e6))


def _confine(target: str, wish: Confined, numbers: Figures) -> Decision:
    first, last = wish.cpus[0], wish.cpus[-1]
    why = Why(
        rule="room for latency",
        text=f"Latency groups will need CPUs 0 to {first - 1}: {target} runs on {first} to {last}, where all batch work fits.",
        figures=numbers,
        rejected=(),
        flips=(f"more than {len(wish.cpus)} cores of batch demand would end it",),
    )
    return Decision("", Placement.name, target, Set(Control.AFFINITY, wish.process, "", wish.cpus), why)
