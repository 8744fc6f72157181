"""Keeps latency groups fast beside batch groups: demotes the contender, and gives its priority back. Pure: knows no knob's file.

The mechanism is what separates the two (measured: nice does nothing across autogroups or cgroups): the weight of the contender's
cgroup where the paths part; across sessions in the root cgroup with autogroup on, the nice of the contender's autogroup; else the
nice of each of its processes. A mechanism that twice had no effect on a group is dropped for it, and the next one is tried.

Demotion begins in full, for half measures can hurt (measured: nice 5 beside 60 % load gave a p99 of 29 ms, nice 19 of 1.8), and is
eased step by step while the protected groups wait less than their target. Once weights separate them, the protected group's time
slice is shortened (see `slices.py`).

An autogroup or a cgroup is demoted as a whole, whatever else is in it; one that holds a latency process or nicety never is. Values
that somebody else chose are never changed.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from ...models.records import Latency, ProcId
from ..config import Config
from ..decision import Control, Decision, Group, Machine, Member, Restore, Set, Status, Tick, Why
from ..rivals import touches, who_touches
from .mechanisms import DEFAULT, LEVELS, Place, place, routes, under, value
from .policy import Memory, Outlook, Result, figures
from .slices import HARM, LONG_TICKS, Slices

BUSY = 0.75
"""Share of the CPUs in use from which waiting is contention: below it, waits are wake-ups."""

WAIT_FLOOR = 0.005
"""Cores. 5 ms of waiting a second are noise, whatever share of the demand they are."""

LATENCY_DEMAND, BATCH_DEMAND = 0.01, 0.05
"""Cores of demand from which a class counts as there: less cannot suffer, or cannot be what it suffers from."""

REMEMBERED_SECONDS = 120.0
"""How long a latency group that had work counts as there: a service may be idle for a while and must not wake up unprotected."""

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

FIRST_RELIEF, LONGEST_RELIEF = 10.0, 3600.0
"""Seconds for which a target that had to be relieved is not demoted again: the first time, and at most; it doubles in between."""

LONGEST_EASE = 3600.0
"""Seconds without easing, at most: they double each time that easing had to be taken back."""


class Held(Memory):
    """A change in force: a demotion, or the short slice of a protected process."""

    control: Control
    process: ProcId | None
    cgroup: str
    session: int  # for AUTOGROUP, else 0
    value: int
    group: str
    target: str
    victim: str  # whom it protects


class Strike(Memory):
    """What a mechanism failed to do for a group."""

    count: int
    at: int


class Relieved(Memory):
    """A target that the actuator had to put back at once."""

    count: int
    until: int


class PriorityMemory(Memory):
    """What the policy remembers."""

    engaged: bool = False
    calm_since: int | None = None
    level: int = 0  # how far the demotion is eased, see `mechanisms.value`
    content_since: int | None = None  # since when all protected groups have waited less than half of their target
    ease_seconds: float = 0.0  # how long they must have, 0: as configured
    active: dict[str, int] = msgspec.field(default_factory=dict)  # latency group -> ns when it last had work
    held: dict[str, Held] = msgspec.field(default_factory=dict)
    strikes: dict[str, Strike] = msgspec.field(default_factory=dict)
    relieved: dict[str, Relieved] = msgspec.field(default_factory=dict)
    slices: Slices = msgspec.field(default_factory=Slices)


@dataclass(frozen=True, slots=True)
class View:
    """Contention at a tick."""

    victim: Group  # the latency group that waits most for its demand
    share: float  # its wait per demand
    crowded: bool  # the CPUs are in use, and batch work is there
    suffers: bool
    foreseen: bool
    calm: bool
    content: bool  # all protected groups wait less than half of their target
    expected: float  # cores of demand of all classed groups soon
    capacity: float  # cores that are left to them
    soon: dict[str, float]  # cores of demand expected of each classed group within `SOON`


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
        protected = self._protected(tick)
        contenders = [group for group in tick.groups if group.latency is Latency.BATCH and group.members]
        view = self._view(tick, protected, contenders) if self._config.enabled and protected and contenders else None
        self._engage(tick, view)
        self._ease(tick, view)
        self._forget(tick.at)
        wishes: dict[str, Held] = {}
        if memory.engaged and view is not None:
            wishes = self._demotions(tick, view, contenders)
        elif memory.engaged:  # nobody to protect for the moment: a service that is started anew must not find the batch released
            there = {group.name for group in contenders}
            wishes = {key: held for key, held in memory.held.items() if held.group in there}
        demoted = any(held.control is not Control.SLICE for held in memory.held.values()) and bool(wishes)
        if self._config.slice_ms and view is not None:
            wishes |= self._slices(memory.slices.wanted(tick, protected, demoted, view.crowded, self._config.wait / 2))
        if not wishes and not memory.held:
            return []
        decisions = self._returns(tick, {group.name for group in (*contenders, *protected)}, wishes)
        fresh = {}
        for key, wish in sorted(wishes.items()):
            held = memory.held.get(key)
            if held is None or held.value != wish.value:
                fresh[key] = wish
        self._wished = fresh
        self._keys = {(wish.target, wish.control): key for key, wish in fresh.items()}
        return decisions + [self._change(tick, view, wish) for wish in fresh.values()]

    def skip(self) -> None:
        """After a hole nobody knows how long it has been calm, or what a slice did."""
        self.memory.calm_since = self.memory.content_since = None
        self.memory.slices.again()

    def admit(self, decision: Decision) -> None:
        """A change is in force from now on; a restore counts when its outcome is there."""
        if isinstance(decision.action, Set):
            key = self._keys[decision.target, decision.action.control]
            self.memory.held[key] = self._wished[key]
            if decision.action.control is not Control.SLICE:
                self.memory.slices.again()

    def learn(self, result: Result) -> None:
        """Drops what is not, or not any more, in force. A control that was refused is a strike against it."""
        action = result.action
        if result.status is Status.RELIEVED:
            before = self.memory.relieved.get(result.target)
            count = 1 if before is None else before.count + (result.at >= before.until)  # it may be told twice
            seconds = min(FIRST_RELIEF * 2.0 ** min(count - 1, 20), LONGEST_RELIEF)
            self.memory.relieved[result.target] = Relieved(count, result.at + round(seconds * 1e9))
        elif isinstance(action, Restore) and result.failed:
            return  # still in force: to be returned again, when the guard lets it
        elif isinstance(action, Set) and result.done:
            return
        for key in [key for key, held in self.memory.held.items() if _concerns(held, result)]:
            held = self.memory.held.pop(key)
            if result.failed and held.control is Control.SLICE:
                self.memory.slices.refused(held.group, result.at)
            elif result.failed:
                self._strike(held, result.at)

    def ineffective(self, target: str, control: Control, tick: Tick) -> None:
        """A demotion was measured, and the protected group waits as long as before.

        It is a strike only if the CPU split did not move either: a service that waits for itself is not helped by trying
        another mechanism, and would lose the one that works.
        """
        batch = sum(group.cpu for group in tick.groups if group.latency is Latency.BATCH)
        rest = sum(group.cpu + group.wait for group in tick.groups if group.latency is Latency.LATENCY)
        left = max(0.0, tick.machine.cpus - rest) + UNYIELDING * tick.machine.cpus
        for held in self.memory.held.values():
            if held.target == target and held.control == control and control is not Control.SLICE and batch > left:
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

    def _forget(self, at: int) -> None:
        memory = self.memory
        memory.strikes = {name: strike for name, strike in memory.strikes.items() if at - strike.at <= DROPPED_SECONDS * 1e9}
        kept = LONGEST_RELIEF * 1e9
        memory.relieved = {target: entry for target, entry in memory.relieved.items() if at - entry.until <= kept}

    # --- is there contention? -------------------------------------------------------------------------------------------------

    def _protected(self, tick: Tick) -> list[Group]:
        """Latency groups that have work now, or had some a while ago."""
        memory, groups = self.memory, [group for group in tick.groups if group.latency is Latency.LATENCY and group.members]
        memory.active = {name: at for name, at in memory.active.items() if tick.at - at <= REMEMBERED_SECONDS * 1e9} | {
            group.name: tick.at for group in groups if group.demand >= LATENCY_DEMAND
        }
        return [group for group in groups if group.name in memory.active]

    def _view(self, tick: Tick, protected: list[Group], contenders: list[Group]) -> View:
        config, machine, outlook = self._config, tick.machine, Outlook(tick)

        def soon(group: Group) -> float:
            said = [outlook.value(group.name, "cpu", horizon, config.quantile) for horizon in range(SOON)]
            return max((value for value in said if value is not None), default=group.demand)

        expected = {group.name: soon(group) for group in (*protected, *contenders)}
        latency_soon = sum(expected[group.name] for group in protected)
        batch_soon = sum(expected[group.name] for group in contenders)
        latency_now, batch_now = sum(group.demand for group in protected), sum(group.demand for group in contenders)
        classed = sum(group.cpu for group in protected) + sum(group.cpu for group in contenders)
        capacity = machine.cpus - max(0.0, machine.busy - classed)
        both = max(latency_now, latency_soon) >= LATENCY_DEMAND and max(batch_now, batch_soon) >= BATCH_DEMAND
        crowded = machine.busy >= BUSY * machine.cpus and batch_now >= BATCH_DEMAND

        def waits(share: float) -> bool:
            return any(group.wait > WAIT_FLOOR and wait_share(group) > share for group in protected)

        victim = max(protected, key=lambda group: (wait_share(group), group.name))
        return View(
            victim=victim,
            share=wait_share(victim),
            crowded=crowded,
            suffers=crowded and waits(config.wait),
            foreseen=both and latency_soon + batch_soon > capacity + EXCESS,
            calm=not (crowded and waits(config.wait / 2)) and not (both and latency_soon + batch_soon >= CALM * capacity),
            content=not waits(config.wait / 2),
            expected=latency_soon + batch_soon,
            capacity=capacity,
            soon=expected,
        )

    def _engage(self, tick: Tick, view: View | None) -> None:
        memory = self.memory
        if view is not None and (view.suffers or view.foreseen):
            memory.engaged, memory.calm_since = True, None
        elif view is None or view.calm:
            if memory.calm_since is None:
                memory.calm_since = tick.at
            if tick.at - memory.calm_since >= self._config.release_after * 1e9:
                memory.engaged = False
        else:
            memory.calm_since = None

    def _ease(self, tick: Tick, view: View | None) -> None:
        """As much demotion as the target needs: a step weaker after a while without waits, all of it back on the first one."""
        memory = self.memory
        demoted = any(held.control is not Control.SLICE for held in memory.held.values())
        if not memory.engaged or view is None or not demoted:
            memory.level, memory.content_since = 0, None
        elif memory.level and view.suffers:
            memory.level, memory.content_since = 0, None
            memory.ease_seconds = min(2 * (memory.ease_seconds or self._config.ease_after), LONGEST_EASE)
        elif not view.content:
            memory.content_since = None
        elif memory.content_since is None:
            memory.content_since = tick.at
        elif tick.at - memory.content_since >= (memory.ease_seconds or self._config.ease_after) * 1e9:
            memory.level, memory.content_since = min(memory.level + 1, LEVELS - 1), tick.at

    # --- what should be in force ----------------------------------------------------------------------------------------------

    def _demotions(self, tick: Tick, view: View, contenders: list[Group]) -> dict[str, Held]:
        """Every demotion that should be in force, by key. Groups that were demoted stay so until all is over."""
        machine, untouchable = tick.machine, frozenset(tick.protected)
        places = self._places(tick)
        spared = places if tick.home is None else [*places, place(tick.home)]
        demoted = {held.group for held in self.memory.held.values()}
        victim = view.victim.name
        wishes: dict[str, Held] = {}
        for group in contenders:
            if max(group.demand, view.soon[group.name]) < BATCH_DEMAND and group.name not in demoted:
                continue
            by_place: dict[Place, list[Member]] = {}
            for member in group.members:
                by_place.setdefault(place(member), []).append(member)
            for own, members in sorted(by_place.items()):
                ways = {self._route(group, own, other, spared, machine) for other in places}
                for control, path in sorted(way for way in ways if way is not None):
                    strength = self._value(group, control)
                    if control is Control.AUTOGROUP:
                        handle = next((member.id for member in members if member.id not in untouchable), members[0].id)
                        target = f"group {group.name} session {own[1]}"
                        wish = Held(control, handle, "", own[1], strength, group.name, target, victim)
                        _add(wishes, f"{control} {own[1]}", wish)
                    elif path:
                        wish = Held(control, None, path, 0, strength, group.name, f"cgroup {path}", victim)
                        _add(wishes, f"{control} {path}", wish)
                    else:
                        self._each(wishes, control, group, members, strength, victim)
        return {key: wish for key, wish in wishes.items() if not self._is_relieved(wish.target, tick.at)}

    def _places(self, tick: Tick) -> list[Place]:
        """Places of latency groups: what is protected from the contenders, and never demoted as a whole.

        A group that was only learned counts while it has work: the shell from which somebody starts a build waits in its session.
        """
        groups = (group for group in tick.groups if group.latency is Latency.LATENCY)
        kept = (group for group in groups if group.behaviour is None or group.name in self.memory.active)
        return sorted({place(member) for group in kept for member in group.members})

    def _each(
        self, wishes: dict[str, Held], control: Control, group: Group, members: list[Member], strength: int, victim: str
    ) -> None:
        """A wish for each process. One whose nice somebody chose is left out; one that inherited ours, from whomever, is not."""
        ours = {held.value for held in self.memory.held.values() if held.control is control}
        for member in members:
            key = f"{control} {member.id.pid}.{member.id.start_ticks}"
            if key in self.memory.held or control is not Control.NICE or member.nice in (0, *ours):
                target = f"group {group.name} pid {member.id.pid}"
                wishes[key] = Held(control, member.id, "", 0, strength, group.name, target, victim)

    def _route(self, group: Group, own: Place, other: Place, spared: list[Place], machine: Machine) -> tuple[Control, str] | None:
        """The first mechanism that separates the two places, spares those that must be, and was not dropped or left to a rival."""
        theirs = touches(machine.rivals)
        for control, path in routes(own, other, machine):
            if self._dropped(control, group.name) or control in theirs:
                continue
            if control is Control.AUTOGROUP and any(session == own[1] for _, session in spared):
                continue
            if path and any(under(cgroup, path) for cgroup, _ in spared):
                continue
            if control in (Control.CPU_IDLE, Control.POLICY) and group.name in self._pools:
                continue  # next to nothing is too little where workers share locks
            return control, path
        return None

    def _value(self, group: Group, control: Control) -> int:
        config = self._config
        if group.name not in self._pools:
            return value(control, config.nice, config.weight, self.memory.level)
        nice = min(config.nice, config.pool_nice)
        weighed = value(control, nice, config.weight, self.memory.level)
        return weighed if control in (Control.NICE, Control.AUTOGROUP) else max(weighed, round(DEFAULT[control] / 1.25**nice))

    def _slices(self, groups: list[Group]) -> dict[str, Held]:
        wishes, length = {}, round(self._config.slice_ms * 1e6)
        for group in groups:
            for member in group.members:
                key = f"{Control.SLICE} {member.id.pid}.{member.id.start_ticks}"
                target = f"group {group.name} pid {member.id.pid}"
                wishes[key] = Held(Control.SLICE, member.id, "", 0, length, group.name, target, group.name)
        return wishes

    def _is_relieved(self, target: str, at: int) -> bool:
        entry = self.memory.relieved.get(target)
        return entry is not None and at < entry.until

    # --- decisions ------------------------------------------------------------------------------------------------------------

    def _returns(self, tick: Tick, classed: set[str], wishes: dict[str, Held]) -> list[Decision]:
        memory, decisions = self.memory, list[Decision]()
        stale = [key for key in sorted(memory.held) if key not in wishes]
        if not stale:
            return []
        members = [member for group in tick.groups for member in group.members]
        present = {member.id for member in members}
        for key in stale:
            held = memory.held[key]
            single = held.process is not None and held.control is not Control.AUTOGROUP
            if single and held.process not in present and held.group in classed:
                del memory.held[key]  # the process is gone, and its value with it
                continue
            process = held.process
            if held.control is Control.AUTOGROUP and process not in present:
                process = min((member.id for member in members if member.session == held.session), default=process)
            decisions.append(self._return(held, process, held.group in classed))
        return decisions

    def _change(self, tick: Tick, view: View | None, wish: Held) -> Decision:
        assert view is not None, "nothing is wished without contention"
        group = next(group for group in tick.groups if group.name == wish.group)
        rule, text = self._slice_reason(wish) if wish.control is Control.SLICE else self._reason(view, group, wish)
        trial = self.memory.slices.trials.get(wish.group)
        config = self._config
        return Decision(
            id="",
            policy=self.name,
            target=wish.target,
            action=Set(wish.control, wish.process, wish.cgroup, wish.value, DEFAULT[wish.control]),
            why=Why(
                rule=rule,
                text=text,
                figures=figures(
                    victim=wish.victim,
                    victim_wait_before=view.share,
                    wait_with_short_slices=None if trial is None or wish.control is not Control.SLICE else trial.short,
                    wait_without=None if trial is None or wish.control is not Control.SLICE else trial.long,
                    victim_wait_cores=view.victim.wait,
                    victim_demand_cores=view.victim.demand,
                    wait_target=config.wait,
                    expected_cores=view.expected,
                    capacity_cores=view.capacity,
                    forecast_quantile=config.quantile,
                    contender=None if wish.control is Control.SLICE else group.name,
                    contender_cpu_cores=None if wish.control is Control.SLICE else group.cpu,
                    contender_wait_cores=None if wish.control is Control.SLICE else group.wait,
                    contender_processes=None if wish.control is Control.SLICE else group.processes,
                    mechanism=str(wish.control),
                    level=self.memory.level,
                    value=wish.value,
                ),
                rejected=self._rejected(tick, group, wish),
                flips=self._flips(group, wish),
            ),
        )

    def _flips(self, group: Group, wish: Held) -> tuple[str, ...]:
        config = self._config
        most = f"{config.wait / 2:.1%} of its demand"
        calm = f"it is given back {config.release_after:g} s after {wish.victim} last waited more than {most}"
        if wish.control is Control.SLICE:
            return f"{calm} and the demotions are over", f"a comparison in which it waits {HARM:.0%} less without"
        return (
            f"{calm} and the expected demand fits the capacity",
            f"less than {BATCH_DEMAND:g} cores of demand by {group.name}",
        )

    def _reason(self, view: View, group: Group, wish: Held) -> tuple[str, str]:
        same = (held for held in self.memory.held.values() if held.target == wish.target and held.control == wish.control)
        held, victim = next(same, None), view.victim.name
        what = f"{wish.control} of {wish.target} to {wish.value}"
        if held is not None and self.memory.level:
            return "eased", f"{victim} waits for less than half of its target: {what}, a step gentler."
        if held is not None:
            return "not eased any more", f"{victim} waits {view.share:.1%} of its demand since then: {what} again."
        if view.suffers:
            return "contention now", f"{victim} waits {view.share:.1%} of its demand for a CPU beside {group.name}: {what}."
        if view.foreseen:
            expected = f"{view.expected:.2f} cores of demand are to be expected for {view.capacity:.2f}"
            return "contention foreseen", f"{expected}, with {victim} beside {group.name}: {what}."
        return "contention not over", f"{group.name} is demoted: {what} as well."

    def _slice_reason(self, wish: Held) -> tuple[str, str]:
        trial, what = self.memory.slices.trials.get(wish.group), f"time slices of {wish.value / 1e6:g} ms"
        if trial is not None and trial.phase == "kept" and trial.long is None:
            return "short slice", f"{wish.group} waits for {trial.short:.1%} of its demand with them: {wish.target} gets {what}."
        if trial is not None and trial.phase == "kept":
            return "short slice", f"{wish.group} does not wait less without: {wish.target} gets {what}."
        return "short slice, compared later", f"{wish.group} is protected: {wish.target} gets {what}, until it waits less without."

    def _rejected(self, tick: Tick, group: Group, wish: Held) -> tuple[str, ...]:
        if wish.control is Control.SLICE:
            return ("a short slice without demotion: alone it buys little",)
        theirs = touches(tick.machine.rivals)
        said = [
            f"{control}: {STRIKES} times refused or without effect on {group.name}"
            for control in (Control.CPU_WEIGHT, Control.CPU_SHARES, Control.CPU_IDLE, Control.AUTOGROUP, Control.NICE)
            if self._dropped(control, group.name)
        ]
        said += [f"{control}: left to {', '.join(who_touches(control, tick.machine.rivals))}" for control in sorted(theirs)]
        if wish.control is Control.AUTOGROUP:
            said.append("nice of each process: does nothing across sessions while autogroup is on")
        elif wish.cgroup:
            said.append("nice of each process, or of its autogroup: does nothing across cgroups")
        if group.name in self._pools:
            said.append(f"more than nice {self._config.pool_nice} inside a pool: a demoted lock holder would starve its siblings")
        return tuple(said)

    def _return(self, held: Held, process: ProcId | None, there: bool) -> Decision:
        config, flips = self._config, tuple[str, ...]()
        trial = self.memory.slices.trials.get(held.group)
        if not self.memory.engaged:
            rule, reason = "contention over", f"Contention has been over for {config.release_after:g} s"
            flips = (f"an expected demand of at least {CALM:.0%} of the capacity would have kept it",)
        elif not there:
            rule, reason = "contender gone", f"{held.group} is gone, or has another class now"
        elif held.control is Control.SLICE and trial is not None and trial.phase == "long":
            rule, reason = "slice compared", f"{held.group} runs {LONG_TICKS} ticks without shorter slices, to see what they bring"
        elif held.control is Control.SLICE and trial is not None and trial.phase == "dropped":
            rule, reason = "slice does harm", f"{held.group} waits less without shorter slices"
            flips = (f"less than {HARM:.0%} of its wait between the two",)
        elif held.control is Control.SLICE:
            rule, reason = "nothing demoted", f"Nothing is demoted beside {held.group} any more"
        else:
            rule, reason = "mechanism changed", f"Something else separates {held.group} from what it is demoted for"
        why = Why(
            rule=rule,
            text=f"{reason}: {held.control} of {held.target} back to what it was.",
            figures=figures(group=held.group, victim=held.victim, value=held.value, release_after_seconds=config.release_after),
            rejected=(),
            flips=flips,
        )
        return Decision("", self.name, held.target, Restore(held.control, process, held.cgroup), why)


def _concerns(held: Held, result: Result) -> bool:
    action = result.action
    if not isinstance(action, Set | Restore):
        return action is None and held.target == result.target
    single = held.process is not None and held.control is not Control.AUTOGROUP
    same = action.process == held.process if single else held.target == result.target
    return action.control == held.control and same


def wait_share(group: Group) -> float:
    """Share of the time in which a group wanted a CPU for which it waited for one; 0 for one that wants next to nothing."""
    wanted = group.cpu + group.wait
    return group.wait / wanted if wanted >= WAIT_FLOOR else 0.0


def _add(wishes: dict[str, Held], key: str, wish: Held) -> None:
    """Of two groups that share a session or cgroup the gentler value counts: one of them may be a pool."""
    before = wishes.get(key)
    gentler = before is None or (wish.value < before.value) == (wish.control is Control.AUTOGROUP)
    if gentler and (before is None or wish.value != before.value):
        wishes[key] = wish
