"""What the priority policy wants to be in force: for each group by the mechanism that separates it. Pure: knows no knob's file."""

from __future__ import annotations

from collections.abc import Mapping

from .....models.records import Class
from ....config.sections import Config
from ....decision import Group, Member, Tick
from ....hands.fences import Limits
from ....hands.places import Control
from ....observe.rivals import touches
from ....places import CgroupPlace, ProcessPlace, SessionPlace
from ...tenants import Tenants
from .cases import Case
from .contention import Party
from .held import Held, demotions, key_of
from .mechanisms import DEFAULT, LEVELS, Ground, Place, place, value
from .memory import PriorityMemory
from .pairs import ANYBODY

POOLS_SPARED = frozenset({Control.CPU_IDLE, Control.POLICY, Control.FENCE})
"""Controls that are not used inside a pool: they leave almost no CPU, which is too little where workers share locks."""


class Desired:
    """Lists the changes that should be in force."""

    def __init__(self, config: Config, tenants: Tenants, memory: PriorityMemory) -> None:
        self._config = config.priority
        self._tenants = tenants
        self._pools = frozenset(config.pools)
        self._memory = memory

    def demotions(self, tick: Tick, party: Party, cases: Mapping[str, Case], desired: dict[str, Held]) -> None:
        """Add every demotion of a party that should be in force to those of others, by key."""
        memory, untouchable = self._memory, frozenset(tick.protected)
        every = self._places(tick)
        against = {it.name for it in tick.groups if it.class_ is Class.INTERACTIVE and self._tenants.may(it, party.contenders[0])}
        places = {own for name in against & every.keys() for own in every[name]}
        spared = {own for there in every.values() for own in there}
        spared |= set() if tick.home is None else {place(tick.home)}
        ground, theirs = Ground(places, spared, tick.machine), touches(tick.machine.rivals)
        ours = {(held.control, held.strength) for held in demotions(memory.held)}
        groups = {group.name: group for group in tick.groups}
        barred = {name: self._tenants.barred(tick, groups.get(case.victim)) for name, case in cases.items()}
        fencing = memory.swarms.to_fence(tick, party.contenders, barred, self._pools, memory.held)
        for group in party.contenders:
            case = cases.get(group.name)
            if case is None:
                continue
            name, victim = group.name, case.victim
            closed = theirs | (POOLS_SPARED if name in self._pools else frozenset())
            closed |= frozenset() if name in fencing else {Control.FENCE}
            tried = memory.strikes.all_dropped(name) - closed
            by_place: dict[Place, list[Member]] = {}
            for member in group.members:
                by_place.setdefault(place(member), []).append(member)
            single: dict[Control, list[Member]] = {}
            found = False
            for own, members in sorted(by_place.items()):
                ways = ground.ways(own, closed | tried, barred[name])
                found |= bool(ways)
                for control, path in sorted(ways):
                    strength = self._value(group, control, party.engagement.level)
                    if control is Control.FENCE:
                        single.setdefault(control, []).extend(members)
                    elif control is Control.AUTOGROUP:
                        handle = next((member.id for member in members if member.id not in untouchable), members[0].id)
                        target = f"group {name} session {own[1]}"
                        change = Held(control, SessionPlace(own[1], handle), strength, name, target, victim, party=party.name)
                        _add(desired, f"{control} {own[1]}", change)
                    elif path:
                        change = Held(control, CgroupPlace(path), strength, name, f"cgroup {path}", victim, party=party.name)
                        _add(desired, f"{control} {path}", change)
                    else:
                        single.setdefault(control, []).extend(members)
            for control, members in single.items():
                if control is Control.FENCE:
                    desired |= self._fences(party, group, members, fencing[name], victim, ours)
                else:
                    self._each(desired, party, control, group, members, victim, ours)
            if tried and not found:
                memory.pairs.without_effect(ANYBODY, name, tick.at)  # every mechanism that separates the two was tried

    def slices(self, groups: list[Group]) -> dict[str, Held]:
        """The short slices of all processes of these groups, by key."""
        desired, length = {}, round(self._config.slice_ms * 1e6)
        for group in groups:
            for member in group.members:
                key = key_of(Control.SLICE, member)
                target = f"group {group.name} pid {member.id.pid}"
                desired[key] = Held(Control.SLICE, ProcessPlace(member.id), length, group.name, target, group.name)
        return desired

    def _places(self, tick: Tick) -> dict[str, set[Place]]:
        """Places of interactive groups by name: protected from the contenders, and never demoted as a whole.

        A group whose class was only learned counts while it has work: the shell that started a build waits in the build's session.
        """
        groups = (group for group in tick.groups if group.class_ is Class.INTERACTIVE)
        kept = (group for group in groups if group.behaviour is None or group.name in self._memory.contention.active)
        return {group.name: set(map(place, group.members)) for group in kept}

    def _each(
        self,
        desired: dict[str, Held],
        party: Party,
        control: Control,
        group: Group,
        members: list[Member],
        victim: str,
        ours: set[tuple[Control, int]],
    ) -> None:
        """Add a desired demotion of each process, parents first. A process whose nice somebody chose is left out; one that
        inherited our nice is not. One that inherited exactly this value from a demoted parent needs none of its own."""
        held, nice = self._memory.held, control is Control.NICE
        strength = self._value(group, control, party.engagement.level)
        most = min(self._config.nice, self._config.pool_nice) if group.name in self._pools else self._config.nice
        steps = {value(Control.NICE, most, self._config.weight, level) for level in range(LEVELS)}
        lasting, lowered = self._memory.swarms.lasting(group), set[int]()
        for member in sorted(members, key=lambda member: (member.id.start_ticks, member.id.pid)):
            key = key_of(control, member)
            heir = nice and member.parent in lowered and member.nice in steps
            if key not in held and heir and member.nice == strength:
                lowered.add(member.id.pid)
                continue
            chosen = nice and member.nice != 0 and not heir and (control, member.nice) not in ours
            if key not in held and (chosen or member.id.pid not in lasting):
                continue
            lowered.add(member.id.pid)
            target = f"group {group.name} pid {member.id.pid}"
            desired[key] = Held(control, ProcessPlace(member.id), strength, group.name, target, victim, party=party.name)

    def _fences(
        self, party: Party, group: Group, members: list[Member], roots: list[Member], victim: str, ours: set[tuple[Control, int]]
    ) -> dict[str, Held]:
        """A desired fence for each root of a swarm among these members. A root whose nice somebody chose is left out with its
        descendants. While a fence of the swarm is being removed, none is made: its processes come out first."""
        held, there, desired = self._memory.held, {member.id for member in members}, dict[str, Held]()
        limits = tuple(Limits(0, 0, 0, self._value(group, Control.FENCE, party.engagement.level)))
        for root in roots:
            key = key_of(Control.FENCE, root)
            chosen = root.nice != 0 and (Control.NICE, root.nice) not in ours
            if root.id in there and (key in held or not chosen):
                target = f"group {group.name} pid {root.id.pid}"
                on = ProcessPlace(root.id)
                desired[key] = Held(Control.FENCE, on, limits, group.name, target, victim, party=party.name)
        made = {key for key, it in held.items() if it.control is Control.FENCE and it.group == group.name and not it.inside}
        return desired if made <= desired.keys() else {key: change for key, change in desired.items() if key in held}

    def _value(self, group: Group, control: Control, level: int) -> int:
        """The value of a demotion that is eased by `level` steps."""
        config = self._config
        if group.name not in self._pools:
            return value(control, config.nice, config.weight, level)
        nice = min(config.nice, config.pool_nice)
        weighed = value(control, nice, config.weight, level)
        return weighed if control in (Control.NICE, Control.AUTOGROUP) else max(weighed, round(DEFAULT[control] / 1.25**nice))


def _add(desired: dict[str, Held], key: str, change: Held) -> None:
    """Add a desired change. Of two groups that share a session or cgroup the gentler value counts: one of them may be a pool."""
    before = desired.get(key)
    gentler = before is None or (change.strength < before.strength) == (change.control is Control.AUTOGROUP)
    if gentler and (before is None or change.value != before.value):
        desired[key] = change
