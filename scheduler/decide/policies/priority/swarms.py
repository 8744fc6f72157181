"""Groups of brief processes: which of their members last, and which may be fenced in with all that they started. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set

import msgspec

from .....models.identity import ProcId
from ....decision import Group, Member, Tick
from ....hands.places import Control
from ...tenants import Barred
from ..policy import Memory
from .held import Held, demotions, key_of
from .mechanisms import Descent

BRIEF = 0.5
"""If brief children use this share of a group's CPU, only its lasting members are demoted (chosen): their children inherit it."""

SWARM, SWARM_SECONDS = 0.1, 60.0
"""A group is a swarm if brief children use this share of its CPU in a tick, and stays one for this long after (chosen: in `make
-j4` they use a fifth in many ticks, but compilers run for seconds at times, and a build that links is one process)."""

MIXED_SECONDS = 60.0
"""Seconds for which a swarm is not fenced in after it had a descendant that must not be demoted (chosen: it may start another)."""


class Swarms(Memory):
    """What was seen of groups of brief processes."""

    seen: dict[str, int] = msgspec.field(default_factory=dict)  # group -> ns when it last had brief children
    mixed: dict[str, int] = msgspec.field(default_factory=dict)  # swarm -> ns when it last had a descendant that may not be demoted
    youngest: int = 0  # start of the youngest member a tick ago: a process that is no younger has lasted a tick

    def notice(self, tick: Tick) -> None:
        """Notes the brief groups of a tick. Call it first."""
        self.seen |= {group.name: tick.at for group in tick.groups if _is_brief(group, SWARM)}
        self.seen = {name: at for name, at in self.seen.items() if tick.at - at <= SWARM_SECONDS * 1e9}
        self.mixed = {name: at for name, at in self.mixed.items() if tick.at - at <= MIXED_SECONDS * 1e9}

    def age(self, contenders: list[Group]) -> None:
        """Notes the youngest member of these contenders. Call it last in a tick."""
        self.youngest = max((member.id.start_ticks for group in contenders for member in group.members), default=0)

    def lasting(self, group: Group) -> set[int]:
        """Pids of the members that are worth a change of their own. In a group of brief processes: those started from outside,
        those that started others, and those that were there a tick ago. What they start from now on inherits."""
        pids = {member.id.pid for member in group.members}
        if not _is_brief(group, BRIEF):
            return pids
        parents = {member.parent for member in group.members}
        return {
            member.id.pid
            for member in group.members
            if member.parent not in pids or member.id.pid in parents or member.id.start_ticks <= self.youngest
        }

    def to_fence(
        self, tick: Tick, contenders: list[Group], barred: Mapping[str, Barred], pools: Set[str], held: Mapping[str, Held]
    ) -> dict[str, list[Member]]:
        """The swarms that may be fenced in, and the members to fence. A swarm that is fenced in stays one.

        `barred`: by group that is to be demoted; `pools`: names of pools, which are not fenced in.

        A fence takes along all descendants of its process. So none is made where a descendant is protected, another user's, or in
        a group that is not demoted, nor for a while after that was seen.
        """
        lowered = barred.keys() - pools
        known_as = {each.group for each in demotions(held) if each.control is Control.FENCE} | self.seen.keys()
        swarms = [group for group in contenders if group.name in lowered and group.name in known_as]
        if not swarms or not tick.machine.cpu_cgroup:
            return {}
        apart = (*tick.sheltered, *((tick.home,) if tick.home is not None else ()))
        spared = {member.id for group in tick.groups if group.name not in lowered for member in group.members}
        spared |= {*tick.protected, *(member.id for member in apart)}
        known = {member.id: member for member in (*apart, *(member for group in tick.groups for member in group.members))}
        descent, found = Descent(known.values()), dict[str, list[Member]]()
        for group in swarms:
            roots = self._roots(group, descent, held.keys())
            others = any(f"{root.id.pid}.{root.id.start_ticks}" in barred[group.name] for root in roots)
            if others or any(each.id in spared for root in roots for each in (root, *descent.below(root.id))):
                self.mixed[group.name] = tick.at
            if group.name not in self.mixed:
                found[group.name] = roots
        return found

    def _roots(self, group: Group, descent: Descent, held: Collection[str]) -> list[Member]:
        """The lasting members of a swarm that were started from outside it, and those that are fenced in, the oldest first. A
        descendant of another root is in that one's fence, and left out unless it is held."""
        pids, parents = {member.id.pid for member in group.members}, {member.parent for member in group.members}
        roots, inside, youngest = list[Member](), set[ProcId](), self.youngest
        for member in sorted(group.members, key=lambda member: (member.id.start_ticks, member.id.pid)):
            lasts = member.id.pid in parents or not youngest or member.id.start_ticks <= youngest
            first = member.parent not in pids and lasts and member.id not in inside
            if first or key_of(Control.FENCE, member) in held:
                roots.append(member)
                inside |= {child.id for child in descent.below(member.id)}
        return roots


def _is_brief(group: Group, share: float) -> bool:
    """Whether brief children use at least this share of the group's CPU."""
    return group.brief >= share * group.cpu and group.brief > 0
