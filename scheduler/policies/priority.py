"""Keeps latency groups fast beside batch groups: demotes the contender, and gives its priority back. Pure: knows no knob's file.

The mechanism is what separates the two (measured: nice does nothing across autogroups or cgroups): the weight of the contender's
cgroup where the paths part; across sessions in the root cgroup with autogroup on, the nice of the contender's autogroup; else the
nice of each of its processes. A mechanism that twice had no effect on a group is dropped for it, and the next one is tried.

An autogroup or a cgroup is demoted as a whole, whatever else is in it; one that holds a latency process never is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from ...models.records import ProcId
from ..config import Config
from ..decision import Control, Decision, Group, Latency, Machine, Member, Restore, Set, Tick, Why
from .policy import Memory, Outlook, Result, figures

BUSY = 0.75
"""Share of the CPUs in use from which waiting is contention: below it, waits are wake-ups."""

WAIT_FLOOR = 0.005
"""Cores. 5 ms of waiting a second are noise, whatever share of the demand they are."""

LATENCY_DEMAND, BATCH_DEMAND = 0.01, 0.05
"""Cores of demand from which a class counts as there: less cannot suffer, or cannot be what it suffers from."""

SOON = 3
"""Foreseen is what the first so many horizons say (1, 3 and 6 ticks): a demotion acts at once, further ahead it buys nothing."""

EXCESS = 0.05
"""Cores by which the expected demand must pass the capacity: on a full machine without waits both are equal but for rounding."""

CALM = 0.9
"""Contention is over when the expected demand is below this share of the capacity: the band keeps it from flapping."""

STRIKES = 2
"""Times without effect after which a mechanism is dropped for a group."""

UNYIELDING = 0.1
"""Share of the machine that demoted groups may use beyond what the latency groups leave: four hogs at nice 19 keep about 0.06."""

DROPPED_SECONDS = 600.0
"""How long a dropped mechanism is not tried: what separates groups may change."""

WIDE = frozenset({Control.AUTOGROUP, Control.CPU_SHARES, Control.CPU_WEIGHT})
"""Controls of more than one process."""


class Held(Memory):
    """A demotion in force."""

    control: Control
    process: ProcId | None
    cgroup: str
    session: int  # for AUTOGROUP, else 0
    value: int
    group: str
    target: str


class Strike(Memory):
    """What a mechanism failed to do for a group."""

    count: int
    at: int


class PriorityMemory(Memory):
    """What the policy remembers."""

    engaged: bool = False
    calm_since: int | None = None
    held: dict[str, Held] = msgspec.field(default_factory=dict)
    strikes: dict[str, Strike] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class View:
    """Contention at a tick."""

    victim: Group  # the latency group that waits most for its demand
    share: float  # its wait per demand
    suffers: bool
    foreseen: bool
    calm: bool
    expected: float  # cores of demand of all classed groups soon
    capacity: float  # cores that are left to them


class Priority:
    """The policy."""

    name = "priority"

    def __init__(self, config: Config, memory: PriorityMemory) -> None:
        self._config = config.priority
        self._pools = frozenset(config.pools)
        self.memory = memory
        self._wished: dict[str, Held] = {}  # of this tick: what `admit` looks up
        self._keys: dict[tuple[str, Control], str] = {}

    def propose(self, tick: Tick) -> list[Decision]:
        """Demotions of what contends, and restores of what does not any more."""
        memory = self.memory
        protected = [group for group in tick.groups if group.latency is Latency.LATENCY and group.members]
        contenders = [group for group in tick.groups if group.latency is Latency.BATCH and group.members]
        view = self._view(tick, protected, contenders) if self._config.enabled and protected and contenders else None
        if view is not None and (view.suffers or view.foreseen):
            memory.engaged, memory.calm_since = True, None
        elif view is None or view.calm:
            if memory.calm_since is None:
                memory.calm_since = tick.at
            if tick.at - memory.calm_since >= self._config.release_after * 1e9:
                memory.engaged = False
        else:
            memory.calm_since = None
        for name in sorted(memory.strikes):
            if tick.at - memory.strikes[name].at > DROPPED_SECONDS * 1e9:
                del memory.strikes[name]
        wishes = self._wishes(tick, protected, contenders) if memory.engaged and contenders else {}
        if not wishes and not memory.held:
            return []
        decisions = self._returns(tick, contenders, wishes)
        fresh = {key: wish for key, wish in sorted(wishes.items()) if key not in memory.held}
        self._wished = fresh
        self._keys = {(wish.target, wish.control): key for key, wish in fresh.items()}
        return decisions + [self._demotion(tick, view, wish) for wish in fresh.values()]

    def skip(self) -> None:
        """After a hole nobody knows how long it has been calm."""
        self.memory.calm_since = None

    def admit(self, decision: Decision) -> None:
        """A demotion is in force from now on; a restore counts when its outcome is there."""
        if isinstance(decision.action, Set):
            key = self._keys[decision.target, decision.action.control]
            self.memory.held[key] = self._wished[key]

    def learn(self, result: Result) -> None:
        """Drops what is not, or not any more, in force. A wide control that was refused is a strike against it."""
        action = result.action
        if isinstance(action, Restore) and result.failed:
            return  # still in force: to be returned again, when the guard lets it
        if isinstance(action, Set) and result.done:
            return
        for key in [key for key, held in self.memory.held.items() if _concerns(held, result)]:
            held = self.memory.held.pop(key)
            if result.failed and held.control in WIDE:
                self._strike(held, result.at)

    def ineffective(self, target: str, control: Control, tick: Tick) -> None:
        """A demotion was measured, and the protected group waits as long as before.

        It is a strike only if the CPU split did not move either: a service that waits for itself is not helped by trying
        another mechanism, and would lose the one that works.
        """
        batch = sum(group.cpu for group in tick.groups if group.latency is Latency.BATCH)
        rest = sum(group.demand for group in tick.groups if group.latency is Latency.LATENCY)
        left = max(0.0, tick.machine.cpus - rest) + UNYIELDING * tick.machine.cpus
        for held in self.memory.held.values():
            if held.target == target and held.control == control and held.control in WIDE and batch > left:
                self._strike(held, tick.at)

    def _strike(self, held: Held, at: int) -> None:
        """The many processes of a group count as one: strikes closer than a measurement are the same."""
        name = f"{held.control} {held.group}"
        before = self.memory.strikes.get(name)
        if before is None:
            self.memory.strikes[name] = Strike(1, at)
        elif at - before.at >= self._config.effect_after * 0.5e9:
            self.memory.strikes[name] = Strike(before.count + 1, at)

    def _dropped(self, control: Control, group: str) -> bool:
        strike = self.memory.strikes.get(f"{control} {group}")
        return strike is not None and strike.count >= STRIKES

    def _view(self, tick: Tick, protected: list[Group], contenders: list[Group]) -> View:
        config, machine, outlook = self._config, tick.machine, Outlook(tick)

        def soon(group: Group) -> float:
            said = [outlook.value(group.name, "cpu", horizon, config.quantile) for horizon in range(SOON)]
            return max((value for value in said if value is not None), default=group.demand)

        latency_soon, batch_soon = sum(map(soon, protected)), sum(map(soon, contenders))
        latency_now, batch_now = sum(group.demand for group in protected), sum(group.demand for group in contenders)
        classed = sum(group.cpu for group in protected) + sum(group.cpu for group in contenders)
        capacity = machine.cpus - max(0.0, machine.busy - classed)
        expected = latency_soon + batch_soon
        both = max(latency_now, latency_soon) >= LATENCY_DEMAND and max(batch_now, batch_soon) >= BATCH_DEMAND
        crowded = machine.busy >= BUSY * machine.cpus and batch_now >= BATCH_DEMAND

        def waits(share: float) -> bool:
            return crowded and any(group.wait > WAIT_FLOOR and group.wait > share * group.demand for group in protected)

        victim = max(protected, key=lambda group: (wait_share(group), group.name))
        return View(
            victim=victim,
            share=wait_share(victim),
            suffers=waits(config.wait),
            foreseen=both and expected > capacity + EXCESS,
            calm=not waits(config.wait / 2) and not (both and expected >= CALM * capacity),
            expected=expected,
            capacity=capacity,
        )

    def _wishes(self, tick: Tick, protected: list[Group], contenders: list[Group]) -> dict[str, Held]:
        """Every demotion that should be in force, by key. Groups that were demoted stay so until all is over."""
        machine = tick.machine
        untouchable = frozenset(tick.protected)
        places = sorted({(member.cgroup, member.session) for group in protected for member in group.members})
        demoted = {held.group for held in self.memory.held.values()}
        wishes: dict[str, Held] = {}
        for group in contenders:
            if group.demand < BATCH_DEMAND and group.name not in demoted:
                continue
            by_place: dict[tuple[str, int], list[Member]] = {}
            for member in group.members:
                by_place.setdefault((member.cgroup, member.session), []).append(member)
            for place, members in sorted(by_place.items()):
                for control, path in sorted({self._route(group, place, other, places, machine) for other in places}):
                    if control is Control.NICE:
                        for member in members:
                            self._wish_nice(wishes, group, member)
                    elif control is Control.AUTOGROUP:
                        session = place[1]
                        handle = next((member.id for member in members if member.id not in untouchable), members[0].id)
                        target = f"group {group.name} session {session}"
                        value = self._nice(group)
                        _add(wishes, f"{control} {session}", Held(control, handle, "", session, value, group.name, target))
                    else:
                        value = self._weight(group, control)
                        _add(wishes, f"{control} {path}", Held(control, None, path, 0, value, group.name, f"cgroup {path}"))
        return wishes

    def _wish_nice(self, wishes: dict[str, Held], group: Group, member: Member) -> None:
        key, value = f"nice {member.id.pid}.{member.id.start_ticks}", self._nice(group)
        held = self.memory.held.get(key)
        if held is not None:
            wishes[key] = held
        elif member.nice < value:
            wishes[key] = Held(Control.NICE, member.id, "", 0, value, group.name, f"group {group.name} pid {member.id.pid}")

    def _route(
        self, group: Group, place: tuple[str, int], other: tuple[str, int], protected: list[tuple[str, int]], machine: Machine
    ) -> tuple[Control, str]:
        """The first mechanism that separates the two places, spares every protected one and was not dropped; nice at the last."""
        for control, path in routes(place, other, machine):
            if self._dropped(control, group.name):
                continue
            if control is Control.AUTOGROUP and any(session == place[1] for _, session in protected):
                continue
            if path and any(_under(cgroup, path) for cgroup, _ in protected):
                continue
            return control, path
        return Control.NICE, ""

    def _nice(self, group: Group) -> int:
        return min(self._config.nice, self._config.pool_nice) if group.name in self._pools else self._config.nice

    def _weight(self, group: Group, control: Control) -> int:
        """cgroup weight of a demoted group; for a pool the kernel's weight of `pool_nice`, 1.25 a step of nice."""
        whole = 100.0 if control is Control.CPU_WEIGHT else 1024.0
        configured = self._config.weight if control is Control.CPU_WEIGHT else max(2, 10 * self._config.weight)
        return max(configured, round(whole / 1.25**self._config.pool_nice)) if group.name in self._pools else configured

    def _returns(self, tick: Tick, contenders: list[Group], wishes: dict[str, Held]) -> list[Decision]:
        memory, decisions = self.memory, list[Decision]()
        stale = [key for key in sorted(memory.held) if key not in wishes]
        if not stale:
            return []
        batch = {group.name for group in contenders}
        members = [member for group in tick.groups for member in group.members]
        present = {member.id for member in members}
        for key in stale:
            held = memory.held[key]
            if held.control is Control.NICE and held.process not in present and held.group in batch:
                del memory.held[key]  # the process is gone, and its nice with it
                continue
            process = held.process
            if held.control is Control.AUTOGROUP and process not in present:
                process = min((member.id for member in members if member.session == held.session), default=process)
            decisions.append(self._return(held, process, held.group in batch))
        return decisions

    def _demotion(self, tick: Tick, view: View | None, wish: Held) -> Decision:
        config = self._config
        group = next(group for group in tick.groups if group.name == wish.group)
        if view is not None and view.suffers:
            rule = "contention now"
            text = (
                f"{view.victim.name} waits {view.share:.1%} of its demand for a CPU beside {group.name}: "
                f"{wish.control} of {wish.target} to {wish.value}."
            )
        elif view is not None and view.foreseen:
            rule = "contention foreseen"
            text = (
                f"{view.expected:.2f} cores of demand are to be expected for {view.capacity:.2f}, with {view.victim.name} "
                f"beside {group.name}: {wish.control} of {wish.target} to {wish.value}."
            )
        else:
            rule = "contention not over"
            text = f"{group.name} is demoted: {wish.control} of {wish.target} to {wish.value} as well."
        known = (
            {}
            if view is None
            else figures(
                protected=view.victim.name,
                protected_wait_cores=view.victim.wait,
                protected_demand_cores=view.victim.demand,
                protected_wait_share=view.share,
                expected_cores=view.expected,
                capacity_cores=view.capacity,
            )
        )
        action = Set(wish.control, wish.process, wish.cgroup, wish.value)
        return Decision(
            id="",
            policy=self.name,
            target=wish.target,
            action=action,
            why=Why(
                rule=rule,
                text=text,
                figures=known
                | figures(
                    wait_share_threshold=config.wait,
                    forecast_quantile=config.quantile,
                    contender=group.name,
                    contender_cpu_cores=group.cpu,
                    contender_wait_cores=group.wait,
                    contender_processes=group.processes,
                    value=wish.value,
                ),
                rejected=self._rejected(group, wish),
                flips=(
                    f"a wait below {config.wait:.0%} of the demand and an expected demand within the capacity",
                    f"less than {BATCH_DEMAND:g} cores of demand by {group.name}",
                ),
            ),
        )

    def _rejected(self, group: Group, wish: Held) -> tuple[str, ...]:
        said = [
            f"{control}: {STRIKES} times refused or without effect on {group.name}"
            for control in (Control.CPU_WEIGHT, Control.CPU_SHARES, Control.AUTOGROUP)
            if self._dropped(control, group.name)
        ]
        if wish.control is Control.AUTOGROUP:
            said.append("nice of each process: does nothing across sessions while autogroup is on")
        elif wish.control is not Control.NICE:
            said.append("nice of each process, or of its autogroup: does nothing across cgroups")
        if group.name in self._pools:
            said.append(f"more than nice {self._config.pool_nice} inside a pool: a demoted lock holder would starve its siblings")
        return tuple(said)

    def _return(self, held: Held, process: ProcId | None, there: bool) -> Decision:
        config, flips = self._config, tuple[str, ...]()
        if not self.memory.engaged:
            rule, reason = "contention over", f"Contention has been over for {config.release_after:g} s"
            flips = (f"an expected demand of at least {CALM:.0%} of the capacity would have kept it",)
        elif not there:
            rule, reason = "contender gone", f"{held.group} is gone, or no batch group any more"
        else:
            rule, reason = "mechanism changed", f"Something else separates {held.group} from what it is demoted for"
        why = Why(
            rule=rule,
            text=f"{reason}: {held.control} of {held.target} back to what it was.",
            figures=figures(group=held.group, value=held.value, release_after_seconds=config.release_after),
            rejected=(),
            flips=flips,
        )
        return Decision("", self.name, held.target, Restore(held.control, process, held.cgroup), why)


def _concerns(held: Held, result: Result) -> bool:
    action = result.action
    if not isinstance(action, Set | Restore):
        return action is None and held.target == result.target
    same = action.process == held.process if held.control is Control.NICE else held.target == result.target
    return action.control == held.control and same


def wait_share(group: Group) -> float:
    """Run-queue wait of a group per core of its demand, 0 for one that wants next to nothing."""
    return group.wait / group.demand if group.demand >= WAIT_FLOOR else 0.0


def routes(place: tuple[str, int], other: tuple[str, int], machine: Machine) -> Iterable[tuple[Control, str]]:
    """Mechanisms that may lower processes at `place` against those at `other`, both (cgroup, session), the best first.

    Autogroups exist in the root cgroup only; a process in an ancestor of the other's cgroup has no weight of its own there.
    """
    weighs = Control.CPU_WEIGHT if machine.cpu_cgroup == "v2" else Control.CPU_SHARES
    (cgroup, session), (other_cgroup, other_session) = place, other
    if not machine.cpu_cgroup:
        cgroup = other_cgroup = "/"
    parting = _parting(cgroup, other_cgroup)
    if parting is not None:
        yield weighs, parting
    elif cgroup == "/" and machine.autogroup and (session != other_session or other_cgroup != "/"):
        yield Control.AUTOGROUP, ""
    yield Control.NICE, ""


def _parting(cgroup: str, other: str) -> str | None:
    """The ancestor of `cgroup` (or itself) just below where its path parts from `other`; None if `other` is it or below it."""
    own, theirs = [part for part in cgroup.split("/") if part], [part for part in other.split("/") if part]
    for depth, part in enumerate(own):
        if depth >= len(theirs) or theirs[depth] != part:
            return "/" + "/".join(own[: depth + 1])
    return None


def _under(cgroup: str, path: str) -> bool:
    return cgroup == path or cgroup.startswith(path + "/")


def _add(wishes: dict[str, Held], key: str, wish: Held) -> None:
    """Of two groups that share a session or cgroup the gentler value counts: one of them may be a pool."""
    before = wishes.get(key)
    gentler = before is None or (wish.value < before.value) == (wish.control is Control.AUTOGROUP)
    if gentler and (before is None or wish.value != before.value):
        wishes[key] = wish
