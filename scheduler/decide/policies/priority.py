"""Keeps latency groups fast beside batch groups: demotes contenders and restores them later. Pure: knows no knob's file.

Only a contender that can help is demoted: one whose CPU use is a good part of what the victim lacks (`supply.py`). After a relief,
or a demotion without effect, the pair of victim and contender is left alone for a while, longer each time (`pairs.py`). Where most
of the pressure comes from processes that nicety cannot see, nothing is demoted at all.

The mechanism is the one that separates the two (measured: nice does nothing across autogroups or cgroups): the weight of the
contender's cgroup where the paths part; across sessions in the root cgroup with autogroup on, the nice of the contender's
autogroup; else the nice of each of its processes. A mechanism that had no effect on a group twice is dropped for it, and the next
one is tried. What a child inherits is not set again. In a group of brief processes (a swarm) only those that last are demoted.
Inside one cgroup a swarm gets a child cgroup of its own with the least weight (a fence), where one may be made: the process that
started the swarm is moved there with all its children.

Demotion begins in full, because half measures can hurt (measured: nice 5 beside 60 % load gave a p99 of 29 ms, nice 19 one of
1.8 ms). It is eased step by step while the protected groups wait less than half of their target. Once weights separate the two,
the protected group's time slice is shortened (see `slices.py`).

An autogroup or a cgroup is demoted as a whole, whatever else is in it; one that holds a latency process or nicety never is. Values
that somebody else chose are never changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from ....models.records import Latency, ProcId
from ...config.sections import Config
from ...decision import Control, Decision, Group, Member, Note, Restore, Set, Status, Tick, Why
from ...fences import Limits
from ...observe.rivals import touches, who_touches
from ...places import CgroupPlace, DecisionPlace, ProcessPlace, SessionPlace
from ...scope import policy
from .mechanisms import DEFAULT, LEVELS, Descent, Ground, Place, place, value
from .pairs import ANYBODY, RELIEVED, Pairs
from .policy import Aim, Gone, Measured, Memory, Metric, Outlook, Proposal, Result, Standing, figures, knob, knob_on
from .slices import HARM, LONG_TICKS, Slices
from .supply import ALONE, LEAST_FREED, WAIT_FLOOR, apart, foreseen_use, helpers, lacks, others, throttled, unseen, wait_share

BUSY = 0.75
"""Waiting is contention when at least this share of the CPUs is in use; below it, waits are wake-ups."""

LATENCY_DEMAND, BATCH_DEMAND = 0.01, 0.05
"""Least demand in cores for a class to count as present: with less it cannot suffer, or cannot be what the other suffers from."""

VICTIMS = 4
"""Contenders are looked for in a tick for this many latency groups, the worst first: a demotion for one serves the others too."""

BRIEF = 0.5
"""If brief children use this share of a group's CPU, only its lasting members are demoted (chosen): the children inherit."""

SWARM, SWARM_SECONDS = 0.1, 60.0
"""A group is a swarm if brief children use this share of its CPU in a tick, and stays one for this long after (chosen: in `make
-j4` they use a fifth in many ticks, but compilers run for seconds at times, and a build that links is one process)."""

POOLS_SPARED = frozenset({Control.CPU_IDLE, Control.POLICY, Control.FENCE})
"""Not used inside a pool: they leave next to no CPU, which is too little where workers share locks."""

TOLD = (Control.CPU_WEIGHT, Control.CPU_SHARES, Control.CPU_IDLE, Control.AUTOGROUP, Control.FENCE, Control.NICE)
"""Controls that a decision lists when they were dropped for the group."""

NAMED = 5
"""A decision names this many rejected contenders, the busiest, and gives the number of the others."""

REMEMBERED_SECONDS = 120.0
"""A latency group counts as present for this long after it had work: a service may be idle and must not wake up unprotected."""

STOPPED_SECONDS = 60.0
"""How long a group that its own quota stopped is no victim of others (chosen: bursty requests are stopped in bursts)."""

SOON = 3
"""Contention is forecast from this many horizons (1, 3 and 6 ticks): a demotion acts at once, so looking further gains nothing."""

EXCESS = 0.05
"""Cores by which the expected demand must exceed the capacity: on a full machine without waits the two differ only by rounding."""

CALM = 0.9
"""Contention is over when the expected demand is below this share of the capacity: the gap prevents flapping."""

STRIKES = 2
"""A mechanism is dropped for a group after it had no effect this many times."""

UNYIELDING = 0.1
"""Share of the machine that demoted groups may use beyond what the latency groups leave: four hogs at nice 19 keep about 0.06."""

MIXED_SECONDS = 60.0
"""How long a swarm is not fenced in after it had a descendant that must not be demoted (chosen: it may start another)."""

DROPPED_SECONDS = 600.0
"""How long a dropped mechanism is not tried again: what separates groups may change."""

LONGEST_EASE = 3600.0
"""Longest time before the next easing, in seconds: it doubles each time that easing had to be taken back."""


class Held(Memory):
    """A change in force: a demotion, or the short slice of a protected process."""

    control: Control
    on: DecisionPlace
    value: int | tuple[int, ...]  # for FENCE `fences.Limits`
    group: str
    target: str
    victim: str  # the group it protects
    observed: list[str] = msgspec.field(default_factory=list)  # victims for which nothing was written; for others it may have to be
    inside: bool = False  # FENCE: the process was in a fence already, and has none of its own

    @property
    def key(self) -> str:
        """What is changed: the same for each change of it."""
        if isinstance(self.on, SessionPlace):
            return f"{self.control} {self.on.session}"
        return knob_on(self.control, self.on, self.target)

    @property
    def strength(self) -> int:
        """The value as one number; for a fence its weight."""
        return self.value if isinstance(self.value, int) else Limits(*self.value).weight


class Strike(Memory):
    """How often a mechanism failed for a group."""

    count: int
    at: int


class Need(Memory):
    """What was lacking in the last contention: a group that appears before it is over is measured by it."""

    victim: str
    cores: float
    foreseen: bool


class PriorityMemory(Memory):
    """What the policy remembers."""

    engaged: bool = False
    calm_since: int | None = None
    level: int = 0  # how far the demotion is eased, see `mechanisms.value`
    content_since: int | None = None  # since when all protected groups have waited less than half of their target
    ease_seconds: float = 0.0  # how long they must have done so; 0: as configured
    active: dict[str, int] = msgspec.field(default_factory=dict)  # latency group -> ns when it last had work
    held: dict[str, Held] = msgspec.field(default_factory=dict)
    strikes: dict[str, Strike] = msgspec.field(default_factory=dict)
    pairs: Pairs = msgspec.field(default_factory=Pairs)
    need: Need | None = None
    unseen: bool = False  # most of the pressure comes from processes that nicety cannot see
    stopped: dict[str, int] = msgspec.field(default_factory=dict)  # latency group -> ns when its own quota last explained its wait
    swarms: dict[str, int] = msgspec.field(default_factory=dict)  # group -> ns when it last had brief children
    mixed: dict[str, int] = msgspec.field(default_factory=dict)  # swarm -> ns when it last had a descendant that may not be demoted
    youngest: int = 0  # start of the youngest member a tick ago: a process that is no younger has lasted a tick
    tried: list[str] = msgspec.field(default_factory=list)  # wishes that had their turn, while there are more than may change
    waiting: list[str] = msgspec.field(default_factory=list)  # knobs of the wishes that were left for a later tick
    slices: Slices = msgspec.field(default_factory=Slices)


@dataclass(frozen=True, slots=True)
class View:
    """Contention at a tick."""

    victim: Group  # the latency group that waits most per demand, except those that their own quota stops
    share: float  # its wait per demand
    suffering: tuple[Group, ...]  # those that wait too much, the worst first, at most `VICTIMS`
    crowded: bool  # the CPUs are in use, and batch work is there
    suffers: bool
    foreseen: bool
    calm: bool
    content: bool  # all protected groups wait less than half of their target
    expected: float  # demand in cores expected soon of all classed groups, at most the CPUs
    capacity: float  # cores left to classed groups
    beyond: float  # cores by which the sum of their demands is expected to exceed the capacity
    soon: dict[str, float]  # cores of demand expected of each classed group within `SOON`


@dataclass(frozen=True, slots=True)
class Case:
    """Why a group is to be or to stay demoted."""

    victim: str  # the group it is demoted for
    lacks: float  # cores that the victim lacks
    frees: float  # cores that demoting the group can free
    together: float  # cores that all demotions for this victim can free


class Priority:
    """The policy."""

    name = "priority"

    def __init__(self, config: Config, memory: PriorityMemory) -> None:
        self._config = config.priority
        self._pools = frozenset(config.pools)
        self._most = config.guard.changes_per_tick
        self.memory = memory

    def propose(self, tick: Tick) -> list[Proposal[Held]]:
        """Demotes what contends and restores what no longer does."""
        memory = self.memory
        memory.pairs.forget(tick.at)
        memory.swarms |= {group.name: tick.at for group in tick.groups if _is_brief(group, SWARM)}
        before = frozenset((held.group, held.control) for held in self._demoted())
        protected = self._protected(tick)
        self._note_stopped(tick, protected)
        contenders = [group for group in tick.groups if group.latency is Latency.BATCH and group.members]
        memory.unseen = bool(self._config.enabled and protected) and unseen(tick.machine, protected, memory.unseen)
        view = self._view(tick, protected, contenders) if self._config.enabled and protected and contenders else None
        self._engage(tick, view)
        self._ease(tick, view)
        self._forget(tick.at)
        wishes: dict[str, Held] = {}
        self._cases = {}
        if memory.engaged and view is not None:
            self._cases = self._helpful(tick, view, contenders)
            wishes = self._demotions(tick, contenders)
        elif memory.engaged:  # nothing to protect at the moment: a service that restarts must not find the batch restored
            there = {group.name for group in contenders} - self._paused(tick.at)
            wishes = {key: held for key, held in memory.held.items() if held.group in there}
        demoted = any(held.control is not Control.SLICE for held in memory.held.values()) and bool(wishes)
        if self._config.slice_ms and view is not None:
            wishes |= self._slices(memory.slices.wanted(tick, protected, demoted, view.crowded, self._config.wait / 2))
        memory.youngest = max((member.id.start_ticks for group in contenders for member in group.members), default=0)
        memory.waiting = []
        if not wishes and not memory.held:
            memory.tried = []
            return []
        returns = self._returns(tick, {group.name for group in (*contenders, *protected)}, wishes, before)
        turn, left = self._turn(wishes)
        memory.waiting = [_knob(wishes[key]) for key in left]
        if view is None or not turn:  # without contention nothing is wished
            return returns
        return returns + self._changes(tick, view, contenders, turn, len(left), before)

    def waiting(self) -> Collection[str]:
        """The knobs of wishes that must wait for their turn."""
        return self.memory.waiting

    def notes(self, tick: Tick, /) -> list[Note]:
        """What keeps the policy from demoting. To be called after `propose`."""
        memory, machine = self.memory, tick.machine
        if not self._config.enabled:
            return []
        protected = [group for group in tick.groups if group.latency is Latency.LATENCY and group.name in memory.active]
        notes = [
            Note(
                topic=f"quota {group.name}",
                text=f"{group.name} is stopped by the CPU quota of its own cgroup: nothing is demoted for what it waits.",
                figures=figures(throttled_share=group.throttled, wait_cores=group.wait, cpu_cores=group.cpu),
            )
            for group in protected
            if group.name in memory.stopped
        ]
        if memory.unseen:
            text = (
                "most of the pressure comes from processes that nicety cannot see: another container or guest, or whatever runs "
                "outside of this namespace; nothing is demoted for it."
            )
            known = figures(
                unseen_cores=machine.unseen,
                stolen_cores=machine.steal,
                cores_of_others=others(machine, protected),
                busy_cores=machine.busy,
            )
            notes.append(Note("unseen", text, known))
        return notes

    def skip(self) -> None:
        """After a gap it is unknown how long it has been calm, or what a slice did."""
        self.memory.calm_since = self.memory.content_since = None
        self.memory.slices.again()

    def admit(self, decision: Decision, kept: Held, _at: int, /) -> None:
        """A change counts as in force from now on; a restore counts when its outcome is known."""
        if isinstance(decision.action, Set):
            memory, key = self.memory, kept.key
            observed = memory.held[key].observed if key in memory.held else []
            memory.held[key] = msgspec.structs.replace(kept, observed=observed)
            if key in memory.tried:
                memory.tried.remove(key)
            if kept.control is not Control.SLICE:
                memory.slices.again()

    def learn(self, result: Result) -> None:
        """Drops what is not, or no longer, in force. A refusal is a strike against the control."""
        action = result.action
        if isinstance(action, Restore) and result.failed:
            return  # still in force: to be restored again, when the guard admits it
        if isinstance(action, Set) and result.done:
            for key in self._concerned(result):
                held = self.memory.held[key]
                held.observed = [*held.observed, held.victim] if result.status is Status.OBSERVED else []
                held.inside = held.control is Control.FENCE and result.status is Status.UNCHANGED
            return
        for key in self._concerned(result):
            held = self.memory.held.pop(key)
            if held.control is Control.FENCE:  # other processes in it are out, or are judged anew
                inside = [key for key, each in self.memory.held.items() if each.inside and each.group == held.group]
                for each in inside:
                    del self.memory.held[each]
            if result.status is Status.RELIEVED:
                self.memory.pairs.relieved(held.group, result.at)
            elif result.telling and held.control is Control.SLICE:
                self.memory.slices.refused(held.group, result.at)
            elif result.telling:
                # without the right to make a cgroup, another try tells nothing new, and meanwhile nothing would be demoted
                final = held.control is Control.FENCE and result.status is Status.REFUSED
                self._strike(held.control, held.group, result.at, STRIKES if final else 1)

    def _concerned(self, result: Result) -> list[str]:
        """Keys of the held changes that the outcome is about."""
        action, held = result.action, self.memory.held
        if not isinstance(action, Set | Restore):
            return [key for key in held if action is None and held[key].target == result.target]
        if action.control is Control.AUTOGROUP:
            key = f"{action.control} {result.target.rpartition(' ')[2]}"
            return [key] if key in held and held[key].target == result.target else []
        key = knob(action, result.target)
        return [key] if key in held else []

    def standing(self) -> list[Standing]:
        """Demotions and short slices."""
        return [self._standing(held) for _, held in sorted(self.memory.held.items())]

    def forget(self, gone: Gone) -> None:
        """What was forgotten is proposed again while contention lasts: demotions in full, slices with a new comparison."""
        memory = self.memory
        left = {key: held for key, held in memory.held.items() if not gone(self._standing(held))}
        for key in memory.held.keys() - left.keys():
            memory.slices.trials.pop(memory.held[key].group, None)
            memory.level, memory.content_since = 0, None
        memory.held = left

    def _standing(self, held: Held) -> Standing:
        about = frozenset({policy(self.name), held.group, held.victim})
        return Standing(about, Restore(held.control, held.on), held.target, held.group, held.victim)

    def validate(self, hands_off: Collection[str], /) -> None:
        """Raises AssertionError if the memory contradicts itself, or something is held that is hands off."""
        spared = frozenset(hands_off)
        for key, held in self.memory.held.items():
            assert key == held.key, f"{key}: under another key than its own"
            assert spared.isdisjoint((key, held.target)), f"{key}: held although hands off"
            pooled = held.control is Control.NICE and held.group in self._pools
            assert not pooled or held.strength <= 5, f"{key}: workers share locks"

    def measured(self, found: Sequence[Measured], tick: Tick, /) -> None:
        """Takes in demotions after which the victims wait as long as before.

        If the CPU split did not move either, the mechanism gets a strike; after STRIKES of them the next one is tried. If it moved,
        the contender is not what the victim waits for: another mechanism would not help. Once the whole demotion was measured, the
        pair is left alone for a while.
        """
        batch = sum(group.cpu for group in tick.groups if group.latency is Latency.BATCH)
        rest = sum(group.cpu + group.wait for group in tick.groups if group.latency is Latency.LATENCY)
        left = max(0.0, tick.machine.cpus - rest) + UNYIELDING * tick.machine.cpus
        held = {(held.group, held.control) for held in self._demoted()}
        for each in found:
            aim = each.aim
            if not each.failed or (aim.group, aim.control) not in held:
                continue
            if batch > left:
                self._strike(aim.control, aim.group, tick.at)
            elif each.final and aim.whole:
                self.memory.pairs.without_effect(aim.of, aim.group, tick.at)

    def _demoted(self) -> Iterable[Held]:
        return (held for held in self.memory.held.values() if held.control is not Control.SLICE)

    def _strike(self, control: Control, group: str, at: int, times: int = 1) -> None:
        """Counts the many processes of a group as one: strikes closer together than half a measurement are one strike."""
        name = f"{control} {group}"
        before = self.memory.strikes.get(name)
        if before is None or before.count < times:
            self.memory.strikes[name] = Strike(times, at)
        elif at - before.at >= self._config.effect_after * 0.5e9:
            self.memory.strikes[name] = Strike(before.count + 1, at)

    def _dropped(self, control: Control, group: str) -> bool:
        strike = self.memory.strikes.get(f"{control} {group}")
        return strike is not None and strike.count >= STRIKES

    def _forget(self, at: int) -> None:
        memory = self.memory
        memory.strikes = {name: strike for name, strike in memory.strikes.items() if at - strike.at <= DROPPED_SECONDS * 1e9}
        memory.swarms = {name: seen for name, seen in memory.swarms.items() if at - seen <= SWARM_SECONDS * 1e9}
        memory.mixed = {name: seen for name, seen in memory.mixed.items() if at - seen <= MIXED_SECONDS * 1e9}

    # --- is there contention? -------------------------------------------------------------------------------------------------

    def _protected(self, tick: Tick) -> list[Group]:
        """Latency groups that have work now, or had some within REMEMBERED_SECONDS."""
        memory, groups = self.memory, [group for group in tick.groups if group.latency is Latency.LATENCY and group.members]
        memory.active = {name: at for name, at in memory.active.items() if tick.at - at <= REMEMBERED_SECONDS * 1e9} | {
            group.name: tick.at for group in groups if group.demand >= LATENCY_DEMAND
        }
        return [group for group in groups if group.name in memory.active]

    def _note_stopped(self, tick: Tick, protected: list[Group]) -> None:
        """A group that its own quota stops is no victim until STOPPED_SECONDS after the last time: quotas bite now and then."""
        memory = self.memory
        memory.stopped = {name: at for name, at in memory.stopped.items() if tick.at - at <= STOPPED_SECONDS * 1e9} | {
            group.name: tick.at for group in protected if throttled(group)
        }

    def _view(self, tick: Tick, protected: list[Group], contenders: list[Group]) -> View:
        config, machine, outlook = self._config, tick.machine, Outlook(tick)

        def soon(group: Group) -> float:
            said = outlook.highest(group.name, "cpu", SOON, config.quantile)
            return group.demand if said is None else said

        most = float(machine.cpus)
        expected = {group.name: min(soon(group), most) for group in (*protected, *contenders)}
        expected |= {group.name: min(expected[group.name], group.cpu) for group in protected if group.name in self.memory.stopped}
        latency_soon = sum(expected[group.name] for group in protected)
        batch_soon = sum(expected[group.name] for group in contenders)
        latency_now, batch_now = sum(group.demand for group in protected), sum(group.demand for group in contenders)
        classed = sum(group.cpu for group in protected) + sum(group.cpu for group in contenders)
        capacity = machine.cpus - max(0.0, machine.busy - classed)
        both = max(latency_now, latency_soon) >= LATENCY_DEMAND and max(batch_now, batch_soon) >= BATCH_DEMAND
        crowded = machine.busy >= BUSY * machine.cpus and batch_now >= BATCH_DEMAND
        victims = [group for group in protected if group.name not in self.memory.stopped]

        def waiting(share: float) -> list[Group]:
            return [group for group in victims if group.wait > WAIT_FLOOR and wait_share(group) > share]

        worst = sorted(waiting(config.wait), key=lambda group: (wait_share(group), group.name), reverse=True)[:VICTIMS]
        content = not waiting(config.wait / 2)
        victim = max(victims or protected, key=lambda group: (wait_share(group), group.name))
        return View(
            victim=victim,
            share=wait_share(victim),
            suffering=tuple(worst) if crowded else (),
            crowded=crowded,
            suffers=crowded and bool(worst),
            foreseen=both and bool(victims) and latency_soon + batch_soon > capacity + EXCESS,
            calm=not (crowded and not content) and not (both and latency_soon + batch_soon >= CALM * capacity),
            content=content,
            expected=min(latency_soon + batch_soon, most),
            capacity=capacity,
            beyond=latency_soon + batch_soon - capacity,
            soon=expected,
        )

    def _engage(self, tick: Tick, view: View | None) -> None:
        memory = self.memory
        if memory.unseen:
            memory.engaged, memory.calm_since = False, None
        elif view is not None and (view.suffers or view.foreseen):
            memory.engaged, memory.calm_since = True, None
        elif view is None or view.calm:
            if memory.calm_since is None:
                memory.calm_since = tick.at
            if tick.at - memory.calm_since >= self._config.release_after * 1e9:
                memory.engaged, memory.need = False, None
        else:
            memory.calm_since = None

    def _ease(self, tick: Tick, view: View | None) -> None:
        """Demotes as much as the target needs: a step weaker after a while without waits, in full again on the first wait."""
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

    def _helpful(self, tick: Tick, view: View, contenders: list[Group]) -> dict[str, Case]:
        """The groups that should be demoted: demoted ones until contention is over, others if they can help a victim."""
        pairs, suffering = self.memory.pairs, {group.name for group in view.suffering}
        now, groups = {group.name: group.cpu for group in contenders}, {group.name: group for group in tick.groups}
        cases = self._kept(tick, now)
        observed = {held.group: set(held.observed) for held in self._demoted() if held.observed}
        for need in self._needs(tick, view):
            frees = now
            if need.foreseen:
                frees = {group.name: foreseen_use(group, view.soon[group.name], tick.machine) for group in contenders}
            victim = groups.get(need.victim)
            free = {
                name: cores
                for name, cores in frees.items()
                if pairs.pause(need.victim, name, tick.at) is None and (victim is None or not apart(victim, groups[name]))
            }
            able, together = helpers(free, need.cores)
            for name in able:
                again = need.victim in suffering and name in observed and need.victim not in observed[name]
                if again or name not in cases:  # only observed, and not for this victim
                    cases[name] = Case(need.victim, need.cores, free[name], together)
                    observed.pop(name, None)
        return cases

    def _kept(self, tick: Tick, now: Mapping[str, float]) -> dict[str, Case]:
        """The groups that are demoted already, each with its victim."""
        groups, kept = {group.name: group for group in tick.groups}, dict[str, Case]()
        for held in self._demoted():
            if held.group not in now or held.group in kept:
                continue
            if self.memory.pairs.pause(held.victim, held.group, tick.at) is None:
                victim = groups.get(held.victim)
                lacking = 0.0 if victim is None else lacks(victim, tick.machine.cpus)
                kept[held.group] = Case(held.victim, lacking, now[held.group], 0.0)
        return kept

    def _needs(self, tick: Tick, view: View) -> list[Need]:
        """What each victim lacks, the worst first; if none suffers at the moment, what was lacking last."""
        memory, cpus = self.memory, tick.machine.cpus
        needs = [Need(group.name, lacks(group, cpus), False) for group in view.suffering]
        if view.foreseen:
            cores = min(max(view.beyond, lacks(view.victim, cpus)), float(cpus))
            needs.append(Need(view.victim.name, cores, True))
        if needs:
            memory.need = needs[0]
        return needs or ([memory.need] if memory.need is not None else [])

    def _paused(self, at: int) -> set[str]:
        """Demoted groups whose pair with their victim is paused."""
        pairs = self.memory.pairs
        return {held.group for held in self._demoted() if pairs.pause(held.victim, held.group, at) is not None}

    def _demotions(self, tick: Tick, contenders: list[Group]) -> dict[str, Held]:
        """Every demotion that should be in force, by key."""
        places, untouchable = self._places(tick), frozenset(tick.protected)
        spared = places if tick.home is None else {*places, place(tick.home)}
        ground, theirs = Ground(places, spared, tick.machine), touches(tick.machine.rivals)
        dropped = {name for name, strike in self.memory.strikes.items() if strike.count >= STRIKES}
        ours = {(held.control, held.strength) for held in self._demoted()}
        wishes: dict[str, Held] = {}
        fencing = self._fencing(tick, contenders)
        for group in contenders:
            case = self._cases.get(group.name)
            if case is None:
                continue
            name, victim = group.name, case.victim
            closed = theirs | (POOLS_SPARED if name in self._pools else frozenset())
            closed |= frozenset() if name in fencing else {Control.FENCE}
            tried = {control for control in DEFAULT if dropped and f"{control} {name}" in dropped} - closed
            by_place: dict[Place, list[Member]] = {}
            for member in group.members:
                by_place.setdefault(place(member), []).append(member)
            single: dict[Control, list[Member]] = {}
            found = False
            for own, members in sorted(by_place.items()):
                ways = ground.ways(own, closed | tried)
                found |= bool(ways)
                for control, path in sorted(ways):
                    strength = self._value(group, control)
                    if control is Control.FENCE:
                        single.setdefault(control, []).extend(members)
                    elif control is Control.AUTOGROUP:
                        handle = next((member.id for member in members if member.id not in untouchable), members[0].id)
                        wish = Held(control, SessionPlace(own[1], handle), strength, name, f"group {name} session {own[1]}", victim)
                        _add(wishes, f"{control} {own[1]}", wish)
                    elif path:
                        wish = Held(control, CgroupPlace(path), strength, name, f"cgroup {path}", victim)
                        _add(wishes, f"{control} {path}", wish)
                    else:
                        single.setdefault(control, []).extend(members)
            for control, members in single.items():
                if control is Control.FENCE:
                    wishes |= self._fences(group, members, fencing[name], victim, ours)
                else:
                    self._each(wishes, control, group, members, victim, ours)
            if tried and not found:
                self.memory.pairs.without_effect(ANYBODY, name, tick.at)  # every mechanism that separates the two was tried
        return wishes

    def _places(self, tick: Tick) -> set[Place]:
        """Places of latency groups: protected from the contenders, and never demoted as a whole.

        A group whose class was only learned counts while it has work: the shell that started a build waits in the build's session.
        """
        groups = (group for group in tick.groups if group.latency is Latency.LATENCY)
        kept = (group for group in groups if group.behaviour is None or group.name in self.memory.active)
        return {place(member) for group in kept for member in group.members}

    def _each(
        self,
        wishes: dict[str, Held],
        control: Control,
        group: Group,
        members: list[Member],
        victim: str,
        ours: set[tuple[Control, int]],
    ) -> None:
        """Adds a wish for each process, parents first. A process whose nice somebody chose is left out; one that inherited our
        nice is not. One that inherited exactly this value from a demoted parent needs no wish of its own."""
        held, strength, nice = self.memory.held, self._value(group, control), control is Control.NICE
        most = min(self._config.nice, self._config.pool_nice) if group.name in self._pools else self._config.nice
        steps = {value(Control.NICE, most, self._config.weight, level) for level in range(LEVELS)}
        lasting, lowered = self._lasting(group), set[int]()
        for member in sorted(members, key=lambda member: (member.id.start_ticks, member.id.pid)):
            key = _key(control, member)
            heir = nice and member.parent in lowered and member.nice in steps
            if key not in held and heir and member.nice == strength:
                lowered.add(member.id.pid)
                continue
            chosen = nice and member.nice != 0 and not heir and (control, member.nice) not in ours
            if key not in held and (chosen or member.id.pid not in lasting):
                continue
            lowered.add(member.id.pid)
            target = f"group {group.name} pid {member.id.pid}"
            wishes[key] = Held(control, ProcessPlace(member.id), strength, group.name, target, victim)

    def _fencing(self, tick: Tick, contenders: list[Group]) -> dict[str, list[Member]]:
        """The swarms that may be fenced in, and the members to fence. A swarm that is fenced in stays a swarm.

        A fence takes along all descendants of its process. So none is made where a descendant is protected or in a group that is
        not demoted, nor for a while after that was seen.
        """
        memory = self.memory
        lowered = self._cases.keys() - self._pools
        fenced = {held.group for held in self._demoted() if held.control is Control.FENCE}
        known_as = fenced | memory.swarms.keys()
        swarms = [group for group in contenders if group.name in lowered and group.name in known_as]
        if not swarms or not tick.machine.cpu_cgroup:
            return {}
        apart = (*tick.sheltered, *((tick.home,) if tick.home is not None else ()))
        spared = {member.id for group in tick.groups if group.name not in lowered for member in group.members}
        spared |= {*tick.protected, *(member.id for member in apart)}
        known = {member.id: member for member in (*apart, *(member for group in tick.groups for member in group.members))}
        descent, found = Descent(known.values()), dict[str, list[Member]]()
        for group in swarms:
            roots = self._roots(group, descent)
            if any(each.id in spared for root in roots for each in (root, *descent.below(root.id))):
                memory.mixed[group.name] = tick.at
            if group.name not in memory.mixed:
                found[group.name] = roots
        return found

    def _roots(self, group: Group, descent: Descent) -> list[Member]:
        """The lasting members of a swarm that were started from outside it, and those that are fenced in, the oldest first. A
        descendant of another root is in that one's fence, and left out unless it is held."""
        pids, parents = {member.id.pid for member in group.members}, {member.parent for member in group.members}
        roots, inside, youngest = list[Member](), set[ProcId](), self.memory.youngest
        for member in sorted(group.members, key=lambda member: (member.id.start_ticks, member.id.pid)):
            lasts = member.id.pid in parents or not youngest or member.id.start_ticks <= youngest
            first = member.parent not in pids and lasts and member.id not in inside
            if first or _key(Control.FENCE, member) in self.memory.held:
                roots.append(member)
                inside |= {child.id for child in descent.below(member.id)}
        return roots

    def _fences(
        self, group: Group, members: list[Member], roots: list[Member], victim: str, ours: set[tuple[Control, int]]
    ) -> dict[str, Held]:
        """A wish for each root of a swarm among these members. A root whose nice somebody chose is left out with its descendants.
        While a fence of the swarm is being removed, none is made: its processes come out first."""
        held, there, wishes = self.memory.held, {member.id for member in members}, dict[str, Held]()
        limits = tuple(Limits(0, 0, 0, self._value(group, Control.FENCE)))
        for root in roots:
            key = _key(Control.FENCE, root)
            chosen = root.nice != 0 and (Control.NICE, root.nice) not in ours
            if root.id in there and (key in held or not chosen):
                target = f"group {group.name} pid {root.id.pid}"
                wishes[key] = Held(Control.FENCE, ProcessPlace(root.id), limits, group.name, target, victim)
        made = {key for key, it in held.items() if it.control is Control.FENCE and it.group == group.name and not it.inside}
        return wishes if made <= wishes.keys() else {key: wish for key, wish in wishes.items() if key in held}

    def _lasting(self, group: Group) -> set[int]:
        """Pids of the members that are worth a change of their own. In a group of brief processes: those started from outside,
        those that started others, and those that were there a tick ago. What they start from now on inherits."""
        pids = {member.id.pid for member in group.members}
        if not _is_brief(group, BRIEF):
            return pids
        parents = {member.parent for member in group.members}
        return {
            member.id.pid
            for member in group.members
            if member.parent not in pids or member.id.pid in parents or member.id.start_ticks <= self.memory.youngest
        }

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
                key = _key(Control.SLICE, member)
                target = f"group {group.name} pid {member.id.pid}"
                wishes[key] = Held(Control.SLICE, ProcessPlace(member.id), length, group.name, target, group.name)
        return wishes

    # --- decisions ------------------------------------------------------------------------------------------------------------

    def _turn(self, wishes: Mapping[str, Held]) -> tuple[dict[str, Held], list[str]]:
        """(new wishes that have their turn now, keys of those that must wait). At most as many as may change in a tick: sessions
        and cgroups first, then the oldest processes. A refused wish comes again after all the others had their turn."""
        held, memory = self.memory.held, self.memory
        fresh = [key for key, wish in wishes.items() if key not in held or _differs(held[key], wish)]
        fresh.sort(key=lambda key: (_order(wishes[key]), key))
        if len(fresh) <= self._most:
            memory.tried = []
            return {key: wishes[key] for key in fresh}, []
        tried = set(memory.tried)
        ordered = sorted(fresh, key=lambda key: key in tried)
        turn, left = set(ordered[: self._most]), ordered[self._most :]
        over = not tried.isdisjoint(turn)  # all had their turn: a new round begins
        memory.tried = [key for key in fresh if key in turn or (not over and key in tried)]
        return {key: wishes[key] for key in fresh if key in turn}, left

    def _returns(
        self, tick: Tick, classed: set[str], wishes: Mapping[str, Held], before: frozenset[tuple[str, Control]]
    ) -> list[Proposal[Held]]:
        """Restores of what is not wished any more. `before`: groups and controls of demotions in force before this tick."""
        memory, proposals = self.memory, list[Proposal[Held]]()
        stale = [key for key in sorted(memory.held) if key not in wishes]
        if not stale:
            return []
        groups = {group.name: group for group in tick.groups}
        present, first = set[ProcId](), dict[int, ProcId]()
        for group in tick.groups:
            for member in group.members:
                present.add(member.id)
                first[member.session] = min(first.get(member.session, member.id), member.id)
        for key in stale:
            held = memory.held[key]
            on = held.on
            away = isinstance(on, ProcessPlace) and on.id not in present
            if held.inside or (away and held.control is not Control.FENCE and held.group in classed):
                del memory.held[key]  # the process is gone with its value; or nothing was made for it
                continue
            if isinstance(on, SessionPlace) and on.through not in present:
                on = SessionPlace(on.session, first.get(on.session, on.through))
            alive = held.control is not Control.FENCE or not away
            action = Restore(held.control, on)
            why = self._why_back(tick, held, held.group in classed, alive)
            proposals.append(Proposal(self.name, held.target, action, why, held, self._aim(action, held, groups, before)))
        return proposals

    def _changes(
        self,
        tick: Tick,
        view: View,
        contenders: list[Group],
        turn: Mapping[str, Held],
        left: int,
        before: frozenset[tuple[str, Control]],
    ) -> list[Proposal[Held]]:
        """The changes that have their turn; the last one says how many wishes wait. `before`: as in `_returns`."""
        groups = {group.name: group for group in tick.groups}
        rejected, proposals = self._refused(tick, contenders), list[Proposal[Held]]()
        for number, (key, wish) in enumerate(turn.items(), 1):
            action = Set(wish.control, wish.on, wish.value, DEFAULT[wish.control])
            why = self._why(tick, view, groups, key, wish, rejected, left if number == len(turn) else 0)
            proposals.append(Proposal(self.name, wish.target, action, why, wish, self._aim(action, wish, groups, before)))
        return proposals

    def _aim(
        self, action: Set | Restore, held: Held, groups: Mapping[str, Group], before: frozenset[tuple[str, Control]]
    ) -> Aim | None:
        """The victim is to wait less. None: it is not there."""
        victim = groups.get(held.victim)
        if victim is None:
            return None
        share, change = wait_share(victim), isinstance(action, Set)
        group = held.target if change and held.control is Control.SLICE else held.group  # each process of a service by itself
        return Aim(
            Metric.WAIT,
            victim.name,
            share,
            group,
            held.control,
            back=not change,
            whole=(group, held.control) not in before,
            goal=self._config.wait if change else None,
            again=STRIKES - 1 if change and share >= self._config.wait else 0,
        )

    def _why(
        self, tick: Tick, view: View, groups: Mapping[str, Group], key: str, wish: Held, rejected: Sequence[str], follow: int
    ) -> Why:
        group = groups[wish.group]
        short = wish.control is Control.SLICE
        rule, text = self._slice_reason(wish) if short else self._reason(view, group, key, wish)
        trial = self.memory.slices.trials.get(wish.group)
        config = self._config
        case = None if short else self._cases.get(wish.group)
        victim = groups.get(wish.victim, view.victim)
        return Why(
            rule=rule,
            text=text if not follow else f"{text} {follow} more follow.",
            figures=figures(
                victim=wish.victim,
                victim_wait_before=wait_share(victim),
                wait_with_short_slices=None if trial is None or not short else trial.short,
                wait_without=None if trial is None or not short else trial.long,
                victim_wait_cores=victim.wait,
                victim_demand_cores=victim.demand,
                victim_lacks_cores=None if case is None else case.lacks,
                wait_target=config.wait,
                expected_cores=view.expected,
                capacity_cores=view.capacity,
                forecast_quantile=config.quantile,
                contender=None if short else group.name,
                contender_cpu_cores=None if short else group.cpu,
                contender_wait_cores=None if short else group.wait,
                contender_processes=None if short else group.processes,
                contender_frees_cores=None if case is None else case.frees,
                all_free_cores=None if case is None or not case.together else case.together,
                mechanism=str(wish.control),
                level=0 if wish.control is Control.FENCE else self.memory.level,  # a fence is not eased
                value=wish.strength,
            ),
            rejected=(*self._rejected(tick, group, wish), *(() if short else rejected)),
            flips=self._flips(group, wish),
        )

    def _refused(self, tick: Tick, contenders: list[Group]) -> tuple[str, ...]:
        """Busy contenders that are not demoted, and why."""
        left = [group for group in contenders if group.name not in self._cases and group.cpu > 0]
        left.sort(key=lambda group: (-group.cpu, group.name))
        case = max(self._cases.values(), key=lambda case: case.lacks, default=None)
        groups = {group.name: group for group in tick.groups}
        said = []
        for group in left[:NAMED]:
            pause = None if case is None else self.memory.pairs.pause(case.victim, group.name, tick.at)
            if pause is not None:
                whom = f" for {pause.victim}" if pause.victim != ANYBODY else ""
                said.append(f"{group.name}: its demotion{whom} {pause.why}: not again for {(pause.until - tick.at) / 1e9:.0f} s")
            elif case is not None and case.victim in groups and apart(groups[case.victim], group):
                said.append(f"{group.name}: it is bound to other CPUs than {case.victim}")
            elif case is not None:
                said.append(f"{group.name}: its {group.cpu:.2f} cores are too little of what {case.victim} lacks")
        if len(left) > NAMED and case is not None:
            said.append(f"{len(left) - NAMED} more groups that use less")
        return tuple(said)

    def _flips(self, group: Group, wish: Held) -> tuple[str, ...]:
        config = self._config
        most = f"{config.wait / 2:.1%} of its demand"
        calm = f"it is given back {config.release_after:g} s after {wish.victim} last waited more than {most}"
        if wish.control is Control.SLICE:
            return f"{calm} and the demotions are over", f"a comparison in which it waits {HARM:.0%} less without"
        return (
            f"{calm} and the expected demand fits the capacity",
            f"less than {LEAST_FREED:g} cores used by {group.name}, or less than {ALONE:.0%} of what {wish.victim} lacks",
        )

    def _reason(self, view: View, group: Group, key: str, wish: Held) -> tuple[str, str]:
        held, victim = self.memory.held.get(key), wish.victim
        if held is not None and held.value == wish.value:
            held = None  # only observed, for another victim
        what = f"{wish.control} of {wish.target} to {wish.value}"
        if wish.control is Control.FENCE:
            what = f"{wish.target}, with all that it started, into a cgroup of its own with weight {wish.strength} instead of 100"
        share = next((wait_share(each) for each in view.suffering if each.name == victim), None)
        if held is not None and self.memory.level:
            return "eased", f"{victim} waits for less than half of its target: {what}, a step gentler."
        if held is not None:
            return "not eased any more", f"{view.victim.name} waits {view.share:.1%} of its demand since then: {what} again."
        if share is not None:
            return "contention now", f"{victim} waits {share:.1%} of its demand for a CPU beside {group.name}: {what}."
        if view.foreseen:
            beyond = f"{view.beyond:.2f} cores more are expected to be wanted than the {view.capacity:.2f} that are left"
            return "contention foreseen", f"{beyond}, with {victim} beside {group.name}: {what}."
        return "contention not over", f"{group.name} is demoted: {what} as well."

    def _slice_reason(self, wish: Held) -> tuple[str, str]:
        trial, what = self.memory.slices.trials.get(wish.group), f"time slices of {wish.strength / 1e6:g} ms"
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
            for control in TOLD
            if self._dropped(control, group.name)
        ]
        said += [f"{control}: left to {', '.join(who_touches(control, tick.machine.rivals))}" for control in sorted(theirs)]
        if wish.control is Control.AUTOGROUP:
            said.append("nice of each process: does nothing across sessions while autogroup is on")
        elif isinstance(wish.on, CgroupPlace):
            said.append("nice of each process, or of its autogroup: does nothing across cgroups")
        elif wish.control is Control.FENCE:
            said.append("nice of each process: takes less from a swarm than a weight of its own")
        elif group.name in self.memory.mixed:
            said.append("a cgroup of its own: something that is not to be demoted descends from it, or did a moment ago")
        if group.name in self._pools:
            said.append(f"more than nice {self._config.pool_nice} inside a pool: a demoted lock holder would starve its siblings")
        return tuple(said)

    def _why_back(self, tick: Tick, held: Held, there: bool, alive: bool) -> Why:
        """`there`: its group still has its class; `alive`: the process that a fence was made for still runs."""
        config, flips = self._config, tuple[str, ...]()
        trial = self.memory.slices.trials.get(held.group)
        pause = None if held.control is Control.SLICE else self.memory.pairs.pause(held.victim, held.group, tick.at)
        if self.memory.unseen:
            rule, reason = "unseen", "Most of the pressure comes from processes that nicety cannot see"
        elif pause is not None:
            seconds = (pause.until - tick.at) / 1e9
            rule = "relieved" if pause.why == RELIEVED else "no effect"
            reason = f"The demotion of {held.group} for {held.victim} {pause.why}: not again for {seconds:.0f} s"
        elif not self.memory.engaged:
            rule, reason = "contention over", f"Contention has been over for {config.release_after:g} s"
            flips = (f"an expected demand of at least {CALM:.0%} of the capacity would have kept it",)
        elif not there:
            rule, reason = "contender gone", f"{held.group} is gone, or has another class now"
        elif not alive:
            rule, reason = "root gone", f"The process of {held.group} that was fenced in has ended"
        elif held.control is Control.SLICE and trial is not None and trial.phase == "long":
            rule, reason = "slice compared", f"{held.group} runs {LONG_TICKS} ticks without shorter slices, to see what they bring"
        elif held.control is Control.SLICE and trial is not None and trial.phase == "dropped":
            rule, reason = "slice does harm", f"{held.group} waits less without shorter slices"
            flips = (f"less than {HARM:.0%} of its wait between the two",)
        elif held.control is Control.SLICE:
            rule, reason = "nothing demoted", f"Nothing is demoted beside {held.group} any more"
        else:
            rule, reason = "mechanism changed", f"Something else separates {held.group} from what it is demoted for"
        what = f"{held.control} of {held.target} back to what it was"
        if held.control is Control.FENCE:
            what = f"{held.target} and all that it started are let out of their cgroup"
        return Why(
            rule=rule,
            text=f"{reason}: {what}.",
            figures=figures(group=held.group, victim=held.victim, value=held.strength, release_after_seconds=config.release_after),
            rejected=(),
            flips=flips,
        )


def _add(wishes: dict[str, Held], key: str, wish: Held) -> None:
    """Adds a wish. Of two groups that share a session or cgroup the gentler value counts: one of them may be a pool."""
    before = wishes.get(key)
    gentler = before is None or (wish.strength < before.strength) == (wish.control is Control.AUTOGROUP)
    if gentler and (before is None or wish.value != before.value):
        wishes[key] = wish


def _is_brief(group: Group, share: float) -> bool:
    """Whether brief children use at least this share of the group's CPU."""
    return group.brief >= share * group.cpu and group.brief > 0


def _key(control: Control, member: Member) -> str:
    """Key of a wish for one process."""
    return f"{control} {member.id.pid}.{member.id.start_ticks}"


def _differs(held: Held, wish: Held) -> bool:
    """Whether a wish differs from what is held: in its value, or in a victim for which the change was not even observed."""
    return held.value != wish.value or (bool(held.observed) and wish.victim not in held.observed)


def _order(wish: Held) -> tuple[int, int]:
    """Sessions, cgroups and swarms first, because one such change does most; then processes by age; short slices last."""
    if not isinstance(wish.on, ProcessPlace) or wish.control is Control.FENCE:
        return 0, 0
    return 1 + (wish.control is Control.SLICE), wish.on.id.start_ticks


def _knob(wish: Held) -> str:
    return knob_on(wish.control, wish.on, wish.target)
