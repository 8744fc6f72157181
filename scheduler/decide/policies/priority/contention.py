"""Whether interactive groups wait for what batch groups use, or soon will, and how far a demotion is eased. Pure: demotes
nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import msgspec

from .....models.records import Class
from ....config.sections import Priority as Section
from ....decision import Group, Note, Tick
from ...tenants import Tenants
from ..policy import Memory, Outlook, figures
from .mechanisms import LEVELS
from .supply import WAIT_FLOOR, helpers, lacks, others, throttled, unseen, wait_share

BUSY = 0.75
"""Share of the CPUs in use from which waiting is contention (chosen): with less in use, a wait only lasts until a thread is woken
on an idle CPU."""

INTERACTIVE_DEMAND, BATCH_DEMAND = 0.01, 0.05
"""Least demand in cores for interactive and for batch groups to count as present (chosen): with less, the first cannot suffer and
the second cannot make them suffer."""

VICTIMS = 4
"""Number of interactive groups for which contenders are sought in a tick, the worst first (chosen): a demotion for one of them
helps the others too."""

REMEMBERED_SECONDS = 120.0
"""Seconds for which an interactive group counts as present after it had work (chosen): an idle service must not wake up
unprotected."""

STOPPED_SECONDS = 60.0
"""Seconds after its own quota stopped a group in which the group is not a victim of others (chosen: bursty requests are stopped in
bursts)."""

SOON = 3
"""Number of horizons that contention is forecast from: 1, 3 and 6 ticks (chosen). A demotion acts at once, so longer horizons gain
nothing."""

EXCESS = 0.05
"""Cores by which the expected demand must exceed the capacity (chosen): on a full machine without waits the two differ only by
rounding."""

CALM = 0.9
"""Contention is over when the expected demand is below this share of the capacity (chosen): the gap prevents flapping."""

LONGEST_EASE = 3600.0
"""Longest time until a demotion is eased again, in seconds (chosen). The time doubles whenever an easing had to be revoked."""


LEFT_SECONDS = 60.0
"""Seconds for which a note says that somebody's contender was left alone (chosen: a wait that comes and goes is one)."""

MOST_PARTIES = 256
"""Most parties that are remembered (chosen): a container may run processes of tens of thousands of users. Of more, those without
contention are forgotten."""


class Lack(Memory):
    """What a victim lacked in the present contention: a batch group that appears before it is over is compared with that."""

    victim: str
    cores: float
    foreseen: bool


class Engagement(Memory):
    """What is remembered of the contention for the contenders of one party."""

    engaged: bool = False  # contention is there or not over for long enough
    calm_since: int | None = None
    level: int = 0  # number of steps by which the demotion is eased, see `mechanisms.value`
    content_since: int | None = None  # since when all protected groups have waited less than half of their target
    ease_seconds: float = 0.0  # how long they must have done so; 0: as configured
    lack: Lack | None = None  # of the contention that is not over


class LeftAlone(Memory):
    """A victim that suffers from another user's process."""

    contender: str  # group: the one that could help most
    whose: str  # users in words
    victims: str  # likewise
    cores: float  # used by that contender
    at: int  # ns of the last tick in which it did


class ContentionMemory(Memory):
    """What `Contention` remembers between ticks."""

    parties: dict[str, Engagement] = msgspec.field(default_factory=dict)  # see `tenants.Tenants.party`
    left: dict[str, LeftAlone] = msgspec.field(default_factory=dict)  # by victim
    active: dict[str, int] = msgspec.field(default_factory=dict)  # interactive group -> ns when it last had work
    unseen: bool = False  # most of the pressure comes from processes that nicety cannot see
    stopped: dict[str, int] = msgspec.field(
        default_factory=dict
    )  # interactive group -> ns when its own quota last explained its wait

    def engaged(self, party: str) -> bool:
        """Whether contention of a party, or of any if it is "", is there or not over for long enough."""
        if not party:
            return any(each.engaged for each in self.parties.values())
        return party in self.parties and self.parties[party].engaged

    def level(self, party: str) -> int:
        """Number of steps by which the demotions of a party are eased; "": the most of any."""
        if not party:
            return max((each.level for each in self.parties.values()), default=0)
        return self.parties[party].level if party in self.parties else 0


@dataclass(frozen=True, slots=True)
class View:
    """Contention of a party at a tick."""

    victim: Group  # the interactive group that waits most per demand, except those that their own quota stops
    share: float  # its wait per demand
    suffering: tuple[Group, ...]  # interactive groups that wait too long, the worst first, at most `VICTIMS`
    crowded: bool  # the CPUs are in use, and batch work is there
    suffers: bool
    foreseen: bool
    calm: bool
    content: bool  # all protected groups wait less than half of their target
    expected: float  # demand in cores expected soon of all classed groups, at most the CPUs
    capacity: float  # cores left to classed groups
    beyond: float  # cores by which the sum of their demands is expected to exceed the capacity
    soon: Mapping[str, float]  # cores of demand expected of each classed group, of any party, within `SOON`


@dataclass(frozen=True, slots=True)
class Party:
    """Contenders that may be demoted for the same victims: without several users all of them."""

    name: str  # see `tenants.Tenants.party`
    protected: list[Group]  # that its contenders may be demoted for
    contenders: list[Group]
    victims: frozenset[str]  # names of `protected`
    view: View | None  # None: one of the two is missing, or the policy is disabled
    engagement: Engagement


@dataclass(frozen=True, slots=True)
class Sight:
    """The groups of a tick."""

    protected: list[Group]
    contenders: list[Group]
    parties: list[Party]  # by name

    @property
    def views(self) -> dict[str, View]:
        """The view of each party that has one, by name."""
        return {party.name: party.view for party in self.parties if party.view is not None}


class Contention:
    """Follows contention from tick to tick, for each party by itself: what one user's processes suffer keeps no other user's
    demoted."""

    def __init__(self, config: Section, tenants: Tenants, memory: ContentionMemory) -> None:
        self._config = config
        self._tenants = tenants
        self.memory = memory

    def look(self, tick: Tick, *, demoted: Collection[str]) -> Sight:
        """The groups of this tick and their contention. Call it once a tick. `demoted`: parties of which something is demoted."""
        memory = self.memory
        self._tenants.begin()
        protected = self._protected(tick)
        self._note_stopped(tick, protected)
        contenders = [group for group in tick.groups if group.class_ is Class.BATCH and group.members]
        memory.unseen = bool(self._config.enabled and protected) and unseen(tick.machine, protected, memory.unseen)
        soon = self._soon(tick, protected, contenders)
        members: dict[str, list[Group]] = {name: [] for name in memory.parties}
        for group in contenders:
            members.setdefault(self._tenants.party(group), []).append(group)
        parties = [self._party(tick, name, theirs, protected, soon, demoted) for name, theirs in sorted(members.items())]
        self._note_left(tick, protected, parties)
        self._forget()
        return Sight(protected, contenders, parties)

    def skip(self) -> None:
        """After a gap it is unknown how long it has been calm."""
        for each in self.memory.parties.values():
            each.calm_since = each.content_since = None

    def in_full(self) -> None:
        """No demotion is eased any more."""
        for each in self.memory.parties.values():
            _in_full(each)

    def notes(self, tick: Tick) -> list[Note]:
        """What keeps the policy from demoting. Call it after `look`."""
        memory, machine = self.memory, tick.machine
        if not self._config.enabled:
            return []
        protected = [group for group in tick.groups if group.class_ is Class.INTERACTIVE and group.name in memory.active]
        notes = [
            Note(
                topic=f"quota {group.name}",
                text=f"{group.name} waits for its own cgroup's CPU quota: only a larger quota helps, so nothing is demoted.",
                figures=figures(throttled_share=group.throttled, wait_cores=group.wait, cpu_cores=group.cpu),
            )
            for group in protected
            if group.name in memory.stopped
        ]
        if memory.unseen:
            text = (
                "most of the pressure comes from processes that nicety cannot see: in another container or guest, or outside this "
                "PID namespace. Nothing is demoted, because that would not help."
            )
            known = figures(
                unseen_cores=machine.unseen,
                stolen_cores=machine.steal,
                cores_of_others=others(machine, protected),
                busy_cores=machine.busy,
            )
            notes.append(Note("unseen", text, known))
        return notes + [_left_alone(victim, left) for victim, left in sorted(memory.left.items())]

    def _protected(self, tick: Tick) -> list[Group]:
        """Interactive groups that have work now, or had some within REMEMBERED_SECONDS."""
        memory, groups = self.memory, [group for group in tick.groups if group.class_ is Class.INTERACTIVE and group.members]
        memory.active = {name: at for name, at in memory.active.items() if tick.at - at <= REMEMBERED_SECONDS * 1e9} | {
            group.name: tick.at for group in groups if group.demand >= INTERACTIVE_DEMAND
        }
        return [group for group in groups if group.name in memory.active]

    def _note_stopped(self, tick: Tick, protected: list[Group]) -> None:
        """Remembers groups that their own quota stops: until STOPPED_SECONDS later they are not victims, because quotas bite from
        time to time."""
        memory = self.memory
        memory.stopped = {name: at for name, at in memory.stopped.items() if tick.at - at <= STOPPED_SECONDS * 1e9} | {
            group.name: tick.at for group in protected if throttled(group)
        }

    def _soon(self, tick: Tick, protected: list[Group], contenders: list[Group]) -> dict[str, float]:
        """Cores of demand expected of each group within `SOON`."""
        config, outlook, most = self._config, Outlook(tick), float(tick.machine.cpus)

        def soon(group: Group) -> float:
            said = outlook.highest(group.name, "cpu", SOON, config.quantile)
            return group.demand if said is None else said

        expected = {group.name: min(soon(group), most) for group in (*protected, *contenders)}
        return expected | {
            group.name: min(expected[group.name], group.cpu) for group in protected if group.name in self.memory.stopped
        }

    def _party(
        self,
        tick: Tick,
        name: str,
        contenders: list[Group],
        protected: list[Group],
        soon: Mapping[str, float],
        demoted: Collection[str],
    ) -> Party:
        """A party at this tick."""
        if contenders:
            protected = [group for group in protected if self._tenants.may(group, contenders[0])]
        engagement = self.memory.parties.setdefault(name, Engagement())
        there = self._config.enabled and bool(protected) and bool(contenders)
        view = self._view(tick, protected, contenders, soon) if there else None
        self._engage(tick, view, engagement)
        self._ease(tick, view, engagement, demoted=name in demoted)
        return Party(name, protected, contenders, frozenset(group.name for group in protected), view, engagement)

    def _forget(self) -> None:
        """Drop the parties that are one too many."""
        parties = self.memory.parties
        if len(parties) > MOST_PARTIES:
            idle = [name for name, each in sorted(parties.items()) if not each.engaged]
            for name in idle[: len(parties) - MOST_PARTIES]:
                del parties[name]

    def _note_left(self, tick: Tick, protected: list[Group], parties: list[Party]) -> None:
        """Remembers which victims suffer from contenders that may not be demoted for them."""
        memory, machine = self.memory, tick.machine
        memory.left = {name: left for name, left in memory.left.items() if tick.at - left.at <= LEFT_SECONDS * 1e9}
        if not self._config.enabled or machine.busy < BUSY * machine.cpus:
            return
        for victim in protected:
            others = [group for party in parties if victim.name not in party.victims for group in party.contenders]
            if not others or victim.name in memory.stopped or victim.wait <= WAIT_FLOOR or wait_share(victim) <= self._config.wait:
                continue
            every = {group.name: group.cpu for party in parties for group in party.contenders}
            able, _ = helpers(every, lacks(victim, machine.cpus))
            left = [group for group in others if group.name in able]
            if left:
                first, whose = max(left, key=lambda group: (group.cpu, group.name)), self._tenants.whose
                memory.left[victim.name] = LeftAlone(first.name, whose(first), whose(victim), first.cpu, tick.at)

    def _view(self, tick: Tick, protected: list[Group], contenders: list[Group], expected: Mapping[str, float]) -> View:
        config, machine = self._config, tick.machine
        most = float(machine.cpus)
        latency_soon = sum(expected[group.name] for group in protected)
        batch_soon = sum(expected[group.name] for group in contenders)
        latency_now, batch_now = sum(group.demand for group in protected), sum(group.demand for group in contenders)
        classed = sum(group.cpu for group in protected) + sum(group.cpu for group in contenders)
        capacity = machine.cpus - max(0.0, machine.busy - classed)
        both = max(latency_now, latency_soon) >= INTERACTIVE_DEMAND and max(batch_now, batch_soon) >= BATCH_DEMAND
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

    def _engage(self, tick: Tick, view: View | None, memory: Engagement) -> None:
        if self.memory.unseen:
            memory.engaged, memory.calm_since = False, None
        elif view is not None and (view.suffers or view.foreseen):
            memory.engaged, memory.calm_since = True, None
        elif view is None or view.calm:
            if memory.calm_since is None:
                memory.calm_since = tick.at
            if tick.at - memory.calm_since >= self._config.release_after * 1e9:
                memory.engaged = False
        else:
            memory.calm_since = None

    def _ease(self, tick: Tick, view: View | None, memory: Engagement, *, demoted: bool) -> None:
        """Adapts the demotion to the target: one step weaker after a while without waits, in full again on the first wait."""
        if not memory.engaged or view is None or not demoted:
            _in_full(memory)
        elif memory.level and view.suffers:
            _in_full(memory)
            memory.ease_seconds = min(2 * (memory.ease_seconds or self._config.ease_after), LONGEST_EASE)
        elif not view.content:
            memory.content_since = None
        elif memory.content_since is None:
            memory.content_since = tick.at
        elif tick.at - memory.content_since >= (memory.ease_seconds or self._config.ease_after) * 1e9:
            memory.level, memory.content_since = min(memory.level + 1, LEVELS - 1), tick.at


def _in_full(engagement: Engagement) -> None:
    """The demotions of a party are not eased any more."""
    engagement.level, engagement.content_since = 0, None


def _left_alone(victim: str, left: LeftAlone) -> Note:
    text = (
        f"{victim} of {left.victims} waits for a CPU beside {left.contender} of {left.whose}, which is left alone: no process is "
        "demoted for another user's. An administrator may allow it (docs/tenants.md)."
    )
    return Note(f"tenants {victim}", text, figures(victim=victim, contender=left.contender, contender_cpu_cores=left.cores))
