"""Which groups are demoted, for which victim, and how many cores that can free. Pure: knows no mechanism."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ....decision import Group, Tick
from ...tenants import Tenants
from .contention import Lack, Party, View
from .held import demotions
from .memory import PriorityMemory
from .supply import apart, foreseen_use, helpers, lacks


@dataclass(frozen=True, slots=True)
class Case:
    """Why a group is to be or to stay demoted."""

    victim: str  # the group it is demoted for
    lacks: float  # cores that the victim lacks
    frees: float  # cores that demoting the group can free
    together: float  # cores that all demotions for this victim can free


class Cases:
    """Chooses the groups to demote."""

    def __init__(self, tenants: Tenants, memory: PriorityMemory) -> None:
        self._tenants = tenants
        self._memory = memory

    def choose(self, tick: Tick, party: Party, view: View, parties: Sequence[Party]) -> dict[str, Case]:
        """The groups of a party that should be demoted: demoted ones until contention is over, others if they can help a victim.

        `parties`: all; contenders that may be demoted for a victim count together.
        """
        suffering = {group.name for group in view.suffering}
        mine, groups = {group.name for group in party.contenders}, {group.name: group for group in tick.groups}
        cases = self._kept(tick, party, {group.name: group.cpu for group in party.contenders})
        observed = {held.group: set(held.observed) for held in demotions(self._memory.held) if held.observed}
        for lack in self._lacks(tick, party, view):
            victim = groups.get(lack.victim)
            if not self._may(party, lack.victim, victim):
                continue
            free = {
                group.name: foreseen_use(group, view.soon[group.name], tick.machine) if lack.foreseen else group.cpu
                for each in parties
                if each is party or lack.victim in each.victims
                for group in each.contenders
                if self._memory.pairs.pause(lack.victim, group.name, tick.at) is None
                and (victim is None or not apart(victim, group))
            }
            able, together = helpers(free, lack.cores)
            for name in able & mine:
                again = lack.victim in suffering and name in observed and lack.victim not in observed[name]
                if again or name not in cases:  # only observed, and not for this victim
                    cases[name] = Case(lack.victim, lack.cores, free[name], together)
                    observed.pop(name, None)
        return cases

    def paused(self, at: int) -> set[str]:
        """Demoted groups whose pair with their victim is paused."""
        pairs = self._memory.pairs
        return {held.group for held in demotions(self._memory.held) if pairs.pause(held.victim, held.group, at) is not None}

    def _kept(self, tick: Tick, party: Party, now: Mapping[str, float]) -> dict[str, Case]:
        """The groups that are demoted already, each with its victim."""
        groups, kept = {group.name: group for group in tick.groups}, dict[str, Case]()
        for held in demotions(self._memory.held):
            if held.group not in now or held.group in kept:
                continue
            if self._memory.pairs.pause(held.victim, held.group, tick.at) is None:
                victim = groups.get(held.victim)
                if not self._may(party, held.victim, victim):
                    continue  # a process of another user has joined one of the two
                lacking = 0.0 if victim is None else lacks(victim, tick.machine.cpus)
                kept[held.group] = Case(held.victim, lacking, now[held.group], 0.0)
        return kept

    def _may(self, party: Party, name: str, victim: Group | None) -> bool:
        """Whether the party may be demoted for a victim of this name. `victim`: None if it is not in this tick."""
        return name in party.victims or victim is None or self._tenants.may(victim, party.contenders[0])

    def _lacks(self, tick: Tick, party: Party, view: View) -> list[Lack]:
        """What each victim lacks, the worst first; if none suffers now, what the last one lacked."""
        memory, cpus = party.engagement, tick.machine.cpus
        found = [Lack(group.name, lacks(group, cpus), False) for group in view.suffering]
        if view.foreseen:
            cores = min(max(view.beyond, lacks(view.victim, cpus)), float(cpus))
            found.append(Lack(view.victim.name, cores, True))
        if found:
            memory.lack = found[0]
        return found or ([memory.lack] if memory.lack is not None else [])
