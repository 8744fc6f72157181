"""Finds the group of a process by the configuration or its unit, and the class that the configuration gives to groups. Pure.

`observe/families.py` names the groups of all other processes.
"""

from __future__ import annotations

import re
from fnmatch import translate

from ...models.records import Class, Identity
from ..config.sections import Config, GroupRule
from .tenancy import slices_and_unit

_CACHED = 4096  # identities remembered (chosen); emptied when full, so that a storm of program names costs time, not memory

_LOGIN = re.compile(r"init\.scope|session-[^/]*\.scope|user@\d+\.service|.*-spawn-[^/]*\.scope")
"""Units that hold whatever a user starts in a login or a terminal (pam_systemd(8), systemd.special(7), VTE, tmux). They do not say
what belongs together, so programs in them are grouped by name."""


OF_USER = " of uid "
"""Before the user at the end of a group's name."""


class Grouping:
    """The group of a process, whatever its parents are: that of the first rule that matches, in file order, else its unit or
    container."""

    home: int | None = None
    """The user that the daemon runs as, whose groups need not be told from others' by name; None: not known."""

    def __init__(self, config: Config) -> None:
        self._tenants = config.tenants
        self._rules = [(name, Rule(rule)) for name, rule in config.groups.items()]
        given = [(name, rule.class_) for name, rule in config.groups.items()]
        given += [(name, pool.class_) for name, pool in config.pools.items()]
        self._pinned = {name: class_ for name, class_ in given if class_ is not None}
        self._cache: dict[Identity, str | None] = {}

    def given(self, identity: Identity) -> str | None:
        """Name of the group: that of a rule, "unit NAME" or "container ID"; None if only the family of the process can decide."""
        if identity in self._cache:
            return self._cache[identity]
        if len(self._cache) >= _CACHED:
            self._cache.clear()
        group = self._cache[identity] = self._by_identity(identity)
        return group

    def of_user(self, identity: Identity) -> str:
        """The end of the name of a group that must not hold two users' processes; "" for the system's and the daemon's own user."""
        tenants, owner = self._tenants, identity.owner
        return "" if not tenants.apart or owner == self.home or tenants.is_system(owner) else f"{OF_USER}{owner}"

    def pinned(self, group: str) -> Class | None:
        """The class that the configuration gives to a group; None if it gives none."""
        return self._pinned.get(group)

    def _by_identity(self, identity: Identity) -> str | None:
        for name, rule in self._rules:
            if rule.matches(identity):
                return name
        if not identity.unit or _LOGIN.fullmatch(identity.unit):
            return None
        if not identity.unit.endswith((".service", ".scope")):
            return f"container {identity.unit}"
        # a unit of a user's own manager may have the name of anybody's
        ours = identity.unit == slices_and_unit(identity.cgroup)[1]
        return f"unit {identity.unit}{'' if ours else self.of_user(identity)}"


class Rule:
    """A `GroupRule` with compiled globs (as in fnmatch.fnmatchcase: `*` also crosses "/"). Keys that are not given match
    everything."""

    def __init__(self, rule: GroupRule) -> None:
        self._program, self._unit, self._cgroup = (
            re.compile(translate(glob or "*")) for glob in (rule.program, rule.unit, rule.cgroup)
        )
        self._uid = rule.uid

    def matches(self, identity: Identity) -> bool:
        """Whether all keys that are given match a process."""
        return (
            self._program.match(identity.program) is not None
            and self._unit.match(identity.unit) is not None
            and self._cgroup.match(identity.cgroup) is not None
            and self._uid in (None, identity.uid)
        )
