"""Places interactive and batch groups on CPUs by what CPUs share and by forecast demand, where that pays. Pure: knows no knob's
file.

On a machine whose CPUs share nothing but a cache, weights alone protect as well (measured on two CPUs: with one CPU each, batch is
halved and p99 is worse than with the right weight). So nothing is confined unless the machine has SMT siblings, several last-level
caches or several nodes, the demand of batch fits into the CPUs left to it, and the expected gain is large enough. A placement that
turns out to cost batch work is taken back. Which CPUs: `assignment.py`. Why it is off by default: docs/decisions/0006-placement.md.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import fmean

import msgspec

from .....models.identity import ProcId
from .....models.records import Class
from ....config.sections import Config
from ....decision import Decision, Group, Note, Restore, Set, Tick, Topology, Why
from ....hands.places import Control, cpu_list
from ....places import ProcessPlace
from ....scope import policy
from ...tenants import Tenants
from ..policy import Aim, Figures, Gone, Impact, Memory, Metric, Outlook, Proposal, Result, Standing, figures, horizon_for
from ..priority.supply import wait_share
from .assignment import AWAY, SHARED, SPLIT, Layout, Objective, Plan, Request, layout_of, solve

STICKY_SECONDS = 15.0
"""Seconds for which a smaller demand must last before it counts (chosen): moving processes costs cache contents."""

INTERACTIVE_DEMAND, BATCH_DEMAND = 0.01, 0.05
"""Cores of demand of an interactive and a batch group below which it is not placed (chosen): it disturbs no other group, and moving
it costs more than it could gain."""

WORTH, WORTH_SHARE = 0.1, 0.1
"""Least gain for confining groups, in cores and as a share of the interactive demand (chosen). Half of it keeps them confined."""

KERNEL_STAYS = 0.5
"""Share of the time for which the kernel itself keeps a group in one cache and node (chosen, so that less is confined: decision
0006)."""

LOSS, LOSS_SHARE = 0.05, 0.03
"""Placing did not pay if this much more batch work waits beside idle CPUs than before, in cores and as a share of batch demand
(chosen)."""

HURT = 1.25
"""Placing did not pay either if interactive groups wait this many times as long as before (chosen)."""

GIVEN_UP_SECONDS = 600.0
"""Seconds for which nothing is confined after placing did not pay (chosen)."""


class Confined(Memory):
    """A process that is confined."""

    process: ProcId
    group: str
    cpus: tuple[int, ...]


class Look(Memory):
    """What is watched at a tick to see whether confining pays."""

    at: int
    loss: float  # cores of batch work that waited although CPUs were idle
    wait: float  # run-queue wait of the interactive groups per demand


class PlacementMemory(Memory):
    """What the policy remembers."""

    peaks: dict[str, list[tuple[int, float]]] = msgspec.field(default_factory=dict)  # demand by group, values falling
    groups: dict[str, tuple[int, ...]] = msgspec.field(default_factory=dict)  # CPUs of the plan in force
    kept: tuple[int, ...] | None = None  # CPUs that the plan keeps from batch; None: no plan is in force
    changed: int = 0  # ns, when the plan last changed
    looks: list[Look] = msgspec.field(default_factory=list)  # of the last `priority.effect_after` seconds
    before: Look | None = None  # their mean before anything was confined
    until: int = 0  # ns until which nothing is confined, because it did not pay
    confined: dict[str, Confined] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The result of this tick's planning."""

    groups: dict[str, tuple[int, ...]]
    kept: tuple[int, ...] | None
    figures: Figures
    reason: str  # why there is no plan; "" if there is one


@dataclass(frozen=True, slots=True)
class Move:
    """What a proposal carries out: a part of a plan."""

    groups: dict[str, tuple[int, ...]]  # of the plan
    kept: tuple[int, ...] | None  # by the plan; None: there is none
    confined: Confined | None  # None: it lets a process out


class Placement:
    """The policy."""

    name = "placement"

    def __init__(self, config: Config, memory: PlacementMemory, topology: Topology = Topology()) -> None:  # noqa: B008  # a constant
        self._config = config.placement
        self._tenants = Tenants(config)
        self._quantile = config.priority.quantile
        self._interval = config.daemon.interval
        self._window = round(config.priority.effect_after * 1e9)
        self._normal = tuple(cpu for cpu in topology.online if cpu not in topology.isolated)
        self._layout = _layout(config, topology)
        self.memory = memory

    def propose(self, tick: Tick) -> list[Proposal[Move]]:
        """Affinities for the groups that are placed, and restores."""
        memory = self.memory
        if self._layout is None and not memory.confined:
            return []
        self._look(tick)
        wanted = self._wanted(tick)
        protected = frozenset(tick.protected)
        desired: dict[str, Confined] = {}
        for group in tick.groups:
            cpus = wanted.groups.get(group.name)
            for member in group.members if cpus else ():
                if cpus and member.id not in protected:
                    desired[f"group {group.name} pid {member.id.pid}"] = Confined(member.id, group.name, cpus)
        fresh = {target: change for target, change in desired.items() if memory.confined.get(target) != change}
        if not desired:
            self._end()
        helped = max(
            (group for group in tick.groups if group.class_ is Class.INTERACTIVE),
            key=lambda group: (wait_share(group), group.name),
            default=None,
        )
        confining = [self._confine(target, change, wanted, helped) for target, change in fresh.items()]
        return self._returns(tick, desired, wanted, helped) + confining

    def waiting(self) -> Collection[str]:
        """None: every desired change is proposed at once."""
        return ()

    def notes(self, _tick: Tick, /) -> list[Note]:
        """None: the decisions say everything."""
        return []

    def skip(self) -> None:
        """Figures from before a gap say nothing about what comes after it."""
        self.memory.looks = []

    def admit(self, decision: Decision, kept: Move, at: int, /) -> None:
        """The confinement counts as in force from now on; a restore counts when its outcome is known."""
        memory = self.memory
        if kept.confined is not None:
            memory.confined[decision.target] = kept.confined
        if kept.kept is None:
            return
        if memory.kept is None and memory.looks:
            memory.before = _mean(memory.looks)
        if (memory.groups, memory.kept) != (kept.groups, kept.kept):
            memory.groups, memory.kept, memory.changed = kept.groups, kept.kept, at

    def learn(self, result: Result) -> None:
        """Drops what is not, or no longer, in force."""
        action = result.action
        if isinstance(action, Set | Restore) and action.control is not Control.AFFINITY:
            return
        if not (isinstance(action, Set) and result.done) and not (isinstance(action, Restore) and result.failed):
            self.memory.confined.pop(result.target, None)

    def measured(self, found: Sequence[Impact], tick: Tick, /) -> None:
        """Changes nothing: the policy itself measures whether confining pays."""

    def standing(self) -> list[Standing]:
        """Processes that are confined."""
        return [self._standing(target, confined) for target, confined in sorted(self.memory.confined.items())]

    def forget(self, gone: Gone) -> None:
        """They are confined again if the plan still says so."""
        memory = self.memory
        memory.confined = {target: it for target, it in memory.confined.items() if not gone(self._standing(target, it))}

    def validate(self, hands_off: Collection[str], /) -> None:
        """Raises AssertionError if a process is confined that is hands off."""
        for target in self.memory.confined:
            assert target not in hands_off, f"{target}: confined although hands off"

    def _standing(self, target: str, confined: Confined) -> Standing:
        about = frozenset({policy(self.name), confined.group})
        return Standing(about, Restore(Control.AFFINITY, ProcessPlace(confined.process)), target, confined.group)

    # --- does it pay -----------------------------------------------------------------------------------------------------------

    def _look(self, tick: Tick) -> None:
        """Notes what this tick shows, and gives up if confining turned out to cost too much."""
        memory, machine = self.memory, tick.machine
        interactive = [group for group in tick.groups if group.class_ is Class.INTERACTIVE]
        batch = [group for group in tick.groups if group.class_ is Class.BATCH]
        loss = min(sum(group.wait for group in batch), max(0.0, machine.cpus - machine.busy))
        wanted = sum(group.cpu + group.wait for group in interactive)
        memory.looks.append(
            Look(tick.at, loss, sum(group.wait for group in interactive) / wanted if wanted >= INTERACTIVE_DEMAND else 0.0)
        )
        while memory.looks[0].at <= tick.at - self._window:
            memory.looks.pop(0)
        if memory.kept is None or memory.before is None or tick.at - memory.changed < 2 * self._window:
            return
        now, before = _mean(memory.looks), memory.before
        allowed = max(LOSS, LOSS_SHARE * sum(group.demand for group in batch))
        if now.loss > before.loss + allowed or now.wait > HURT * before.wait + 0.01:
            memory.until = tick.at + round(GIVEN_UP_SECONDS * 1e9)

    def _end(self) -> None:
        memory = self.memory
        memory.groups, memory.kept, memory.before = {}, None, None

    # --- what is wanted --------------------------------------------------------------------------------------------------------

    def _wanted(self, tick: Tick) -> _Wanted:
        """The plan for the expected demand, or why there is none."""
        memory, layout = self.memory, self._layout
        if layout is None or not self._config.enabled:
            memory.peaks = {}
            return _Wanted({}, None, {}, "placement does not pay on this machine, or is disabled")
        demand = self._expected(tick)
        classes = {group.name: group.class_ is Class.INTERACTIVE for group in tick.groups}
        interactive = sum(value for name, value in demand.items() if classes[name]) * (1 + self._config.slack)
        batch = sum(value for name, value in demand.items() if not classes[name])
        cpus = sum(map(len, layout.cpus))
        known = figures(latency_cores_with_slack=interactive, batch_cores=batch, usable_cpus=cpus, forecast_quantile=self._quantile)
        self._tenants.begin()
        apart = self._apart([group for group in tick.groups if group.name in demand])
        if apart:
            return _Wanted({}, None, known, apart)
        if not interactive or not batch:
            return _Wanted({}, None, known, "interactive and batch groups do not both have work")
        if tick.at < memory.until:
            seconds = (memory.until - tick.at) / 1e9
            return _Wanted({}, None, known, f"confining did not pay; it is tried again in {seconds:.0f} s")
        if interactive + batch > cpus:
            reason = (
                f"{interactive + batch:.2f} cores are expected for {cpus} CPUs: confining would cost batch work, weights do not"
            )
            return _Wanted({}, None, known, reason)
        requests = tuple(self._request(layout, name, value, interactive=classes[name]) for name, value in sorted(demand.items()))
        objective, plan = solve(layout, requests, memory.kept)
        gain, lost = _gain(objective, plan), _lost(objective, plan)
        worth = max(WORTH, WORTH_SHARE * interactive) * (1.0 if memory.kept is None else 0.5)
        kept = layout.cpus_of(plan.kept)
        known |= figures(gain_cores=gain, worth_cores=worth, batch_cores_lost=lost, kept_cpus=len(kept))
        if lost > 0.01 * batch:
            return _Wanted({}, None, known, f"the plan would cost {lost:.2f} cores of batch work")
        if gain < worth:
            return _Wanted({}, None, known, f"the expected gain is {gain:.2f} cores, and at least {worth:.2f} are needed")
        return _Wanted({name: cpu_set for name, cpu_set in objective.cpu_sets(plan).items() if cpu_set}, kept, known, "")

    def _apart(self, groups: Sequence[Group]) -> str:
        """Why no plan is made for these groups: one would be confined for another user's; "" if none would be."""
        for victim in (group for group in groups if group.class_ is Class.INTERACTIVE):
            for group in groups:
                if group is not victim and not self._tenants.may(victim, group):
                    whose = self._tenants.whose
                    return f"{group.name} of {whose(group)} is not confined for {victim.name} of {whose(victim)} (docs/tenants.md)"
        return ""

    def _expected(self, tick: Tick) -> dict[str, float]:
        """Most cores that each group to be placed is expected to want within the sticky time."""
        memory, outlook = self.memory, Outlook(tick)
        horizon = horizon_for(STICKY_SECONDS, self._interval)
        demand: dict[str, float] = {}
        for group in tick.groups:
            if group.class_ is Class.EXEMPT or not group.members:
                continue
            value = max(group.demand, outlook.value(group.name, "cpu", horizon, self._quantile) or 0.0)
            peaks = memory.peaks.setdefault(group.name, [])
            while peaks and peaks[-1][1] <= value:
                peaks.pop()
            peaks.append((tick.at, min(value, 1e6)))
            while peaks[0][0] < tick.at - STICKY_SECONDS * 1e9:
                peaks.pop(0)
            if peaks[0][1] >= (INTERACTIVE_DEMAND if group.class_ is Class.INTERACTIVE else BATCH_DEMAND):
                demand[group.name] = peaks[0][1]
        for name in memory.peaks.keys() - {group.name for group in tick.groups}:
            del memory.peaks[name]
        return demand

    def _request(self, layout: Layout, name: str, demand: float, *, interactive: bool) -> Request:
        """The request of a group. Its memory is assumed to be where the group was confined before; otherwise it is unknown."""
        cpus = self.memory.groups.get(name, ())
        nodes = layout.nodes[layout.place_of(cpus)] if cpus else None
        memory = tuple(nodes.tolist()) if nodes is not None and nodes.max() == 1.0 else ()
        return Request(name, interactive, demand * (1 + self._config.slack) if interactive else demand, cpus, memory)

    # --- decisions -------------------------------------------------------------------------------------------------------------

    def _returns(self, tick: Tick, desired: dict[str, Confined], wanted: _Wanted, helped: Group | None) -> list[Proposal[Move]]:
        memory = self.memory
        stale = [target for target in sorted(memory.confined) if target not in desired]
        if not stale:
            return []
        classed = {group.name for group in tick.groups if group.class_ is not Class.EXEMPT}
        present = {member.id for group in tick.groups for member in group.members}
        proposals = []
        for target in stale:
            confined = memory.confined[target]
            if confined.process not in present and confined.group in classed:
                del memory.confined[target]  # the process is gone
                continue
            why = Why(
                rule="placement over",
                text=f"{target} may use all its CPUs again: {wanted.reason or 'the plan leaves its group free'}.",
                figures=wanted.figures,
                rejected=("keeping it confined: a placement stays only while it pays",),
                flips=(),
            )
            action, move = Restore(Control.AFFINITY, ProcessPlace(confined.process)), Move(wanted.groups, wanted.kept, None)
            proposals.append(Proposal(self.name, target, action, why, move, _aim(helped, target, back=True)))
        return proposals

    def _confine(self, target: str, change: Confined, wanted: _Wanted, helped: Group | None) -> Proposal[Move]:
        gain, lost = wanted.figures["gain_cores"], wanted.figures["batch_cores_lost"]
        why = Why(
            rule="placement pays",
            text=(
                f"{target} runs on CPUs {cpu_list(change.cpus)}: this placement is expected to gain {gain:.2f} cores that are "
                f"lost to busy siblings, other caches and remote memory, and to cost batch work {lost:.2f}."
            ),
            figures=wanted.figures | {"group": change.group},
            rejected=(
                "leaving placement to the kernel: it would lose the gain",
                "weights alone: SMT siblings and caches ignore them",
            ),
            flips=(
                f"a gain below {float(wanted.figures['worth_cores']):.2f} cores",
                f"more than {wanted.figures['usable_cpus']} cores of demand in all",
                "batch work that waits beside idle CPUs",
            ),
        )
        action, move = (
            Set(Control.AFFINITY, ProcessPlace(change.process), change.cpus, self._normal or None),
            Move(wanted.groups, wanted.kept, change),
        )
        return Proposal(self.name, target, action, why, move, _aim(helped, change.group, back=False))


def _aim(helped: Group | None, group: str, *, back: bool) -> Aim | None:
    """The wait of the interactive group that waits most, which the change is to shorten; None: there is no such group."""
    if helped is None:
        return None
    return Aim(Metric.WAIT, helped.name, wait_share(helped), group, Control.AFFINITY, back)


def _layout(config: Config, topology: Topology) -> Layout | None:
    """None if the CPUs are few or unknown, or share nothing that placing could relieve."""
    try:
        layout = layout_of(topology)
    except ValueError:
        return None
    siblings = any(len(core) > 1 for domain in layout.domains for core in domain.cores)
    many = sum(map(len, layout.cpus)) >= config.placement.minimum_cpus
    return layout if many and (siblings or len(layout.domains) > 1) else None


def _gain(objective: Objective, plan: Plan) -> float:
    """Cores that the plan is expected to gain over the kernel's own placement: the kernel uses idle cores before siblings."""
    layout, requests = objective.layout, objective.requests
    interactive = sum(request.demand for request in requests if request.interactive)
    whole = sum(request.demand for request in requests)
    cores = sum(len(domain.cores) for domain in layout.domains)
    machine = len(layout.places) - 1
    kernel = SHARED * interactive * min(1.0, max(0.0, whole - cores) / cores)
    planned = -_lost(objective, plan)
    for i, place in enumerate(plan.places):
        kernel += (1 - KERNEL_STAYS) * _running(objective, i, machine)
        planned += _running(objective, i, place)
    loads = objective.loads(plan.places)
    free = objective.without_moves()
    planned += sum(free.domain_cost(d, loads[d][0], loads[d][1], kept) for d, kept in enumerate(plan.kept))
    return kernel - planned


def _running(objective: Objective, request: int, place: int) -> float:
    """Cores that a group in this place loses to other caches and nodes, also if the plan may not put it there."""
    layout, demand = objective.layout, objective.requests[request].demand
    memory = objective.requests[request].memory
    nodes = layout.nodes[place]
    away = 1.0 - (float(nodes @ memory) if memory else float(nodes.max()))
    return demand * (SPLIT * (1.0 - float(layout.parts[place].max())) + AWAY * away)


def _lost(objective: Objective, plan: Plan) -> float:
    """Cores of batch work that have no CPU under the plan."""
    lost = 0.0
    for domain, (interactive, batch, _) in enumerate(objective.loads(plan.places)):
        cpus = objective.layout.kept_cpus[domain]
        taken = cpus[plan.kept[domain]]
        lost += max(0.0, batch + max(0.0, interactive - taken) - (cpus[-1] - taken))
    return lost


def _mean(looks: list[Look]) -> Look:
    return Look(looks[-1].at, fmean(look.loss for look in looks), fmean(look.wait for look in looks))
