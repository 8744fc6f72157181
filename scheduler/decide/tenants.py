"""Whose processes may be demoted for whose. Pure: knows owners and `[tenants]`, no policy and no control.

A process may be demoted for its own user's, for the system's, and for those that `[tenants]` names; so may any process that
`[tenants]` lets be demoted. The policies ask before they propose: that one user's process suffers from another's is no fault of a
proposal, so the guard has nothing to refuse in every tick, and a note says what was left alone.
"""

from __future__ import annotations

from ..config.sections import Config
from ..decision import Group, Shared, Tick
from ..places import CgroupPlace, ProcessPlace, SessionPlace

Owners = frozenset[int | None]

ANYBODY, SYSTEM = "anybody", "system"
"""The parties of contenders that may be demoted for anybody, and of those that may be for the system's only. Every other party is a
user's, called by the uid."""

Barred = frozenset[str | int]
"""Cgroups by path, sessions by number and processes as "PID.START", where a change would take along another user's process."""


class Tenants:
    """The rule. The same groups give the same answers."""

    def __init__(self, config: Config) -> None:
        self._config = config.tenants
        self._known: dict[str, tuple[Group, Owners]] = {}  # owners of the groups of a tick, as far as asked

    def begin(self) -> None:
        """A new tick: what was found of the groups of the last one is dropped."""
        self._known = {}

    def owners(self, group: Group) -> Owners:
        """The users of a group's processes. A group without members has none."""
        known = self._known.get(group.name)
        if known is None or known[0] is not group:
            known = self._known[group.name] = group, frozenset(member.owner for member in group.members)
        return known[1]

    def may(self, victim: Group, contender: Group) -> bool:
        """Whether the contender may be demoted for the victim."""
        return contender.yields or self._may(victim, self.owners(contender))

    def party(self, contender: Group) -> str:
        """The party of a contender. Contenders of one party may be demoted for the same victims."""
        theirs = self.owners(contender)
        if not self._config.apart or contender.yields:
            return ANYBODY
        single = next(iter(theirs)) if len(theirs) == 1 else None
        return SYSTEM if single is None or self._config.is_system(single) else str(single)

    def barred(self, tick: Tick, victim: Group | None) -> Barred:
        """Where nothing may be changed as a whole for a victim. None: it is not in this tick, so nothing shared may be."""
        shared = (it for it in tick.shared if victim is None or not self._may(victim, frozenset(it.owners)))
        return frozenset(map(_name, shared)) if self._config.apart else frozenset()

    def whose(self, group: Group) -> str:
        """Who owns a group, in words: "root", "user 1000", "user 33 of the system", "users 1000 and 1001"."""
        found = sorted(owner for owner in self.owners(group) if owner is not None)
        if None in self.owners(group) or not found:
            return "a user who is not known"
        if found == [0]:
            return "root"
        named = " and ".join(map(str, found))
        of_system = " of the system" if all(map(self._config.is_system, found)) else ""
        return f"user{'s' if len(found) > 1 else ''} {named}{of_system}"

    def _may(self, victim: Group, theirs: Owners) -> bool:
        """`theirs`: the owners of what would be demoted."""
        if not self._config.apart or victim.favoured:
            return True
        every = self.owners(victim)
        if every == theirs and len(every) == 1 and None not in every:
            return True
        ours = frozenset(owner for owner in every if not self._config.is_system(owner))
        if every and not ours:
            return True
        return len(ours) == 1 and None not in ours and theirs == ours


def _name(shared: Shared) -> str | int:
    match shared.on:
        case CgroupPlace(path=path):
            return path
        case SessionPlace(session=session):
            return session
        case ProcessPlace(id=process):
            return f"{process.pid}.{process.start_ticks}"
