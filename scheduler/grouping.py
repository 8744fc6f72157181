"""Which group a process belongs to, and what that group's users care about. Pure: from identity and configuration alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import translate

from ..models.records import Identity, Latency, ProcId
from .config import Config, GroupRule

_CACHED = 4096  # identities remembered; emptied when full, so that a storm of program names costs time, not memory

_LOGIN = re.compile(r"init\.scope|session-[^/]*\.scope|user@\d+\.service|.*-spawn-[^/]*\.scope")
"""Units that hold whatever somebody starts in a login or a terminal (pam_systemd(8), systemd.special(7), VTE, tmux). They say
nothing about what belongs together, so programs in them are grouped by name."""


class Grouping:
    """Names the group of a process.

    The first of these that fits: its pool (the master too), the first rule of the configuration in file order, its systemd unit or
    container, its program.
    """

    def __init__(self, config: Config) -> None:
        self._rules = [(name, _Rule(rule)) for name, rule in config.groups.items()]
        given = [(name, rule.latency) for name, rule in config.groups.items()]
        given += [(name, pool.latency) for name, pool in config.pools.items()]
        self._pinned = {name: latency for name, latency in given if latency is not None}
        self._cache: dict[Identity, str] = {}

    def group_of(self, identity: Identity, pid: ProcId, pool_members: Mapping[ProcId, str]) -> str:
        """Name of the group. `pool_members`: pool names by worker and master. Pools and rules name their groups; others are
        called "unit NAME", "container ID" or "program NAME", which no pool or rule can be (names have no spaces).
        """
        pool = pool_members.get(pid)
        if pool is not None:
            return pool
        group = self._cache.get(identity)
        if group is None:
            if len(self._cache) >= _CACHED:
                self._cache.clear()
            group = self._cache[identity] = self._by_identity(identity)
        return group

    def pinned(self, group: str) -> Latency | None:
        """The class that the configuration gives to a group; None where it says nothing."""
        return self._pinned.get(group)

    def _by_identity(self, identity: Identity) -> str:
        for name, rule in self._rules:
            if rule.matches(identity):
                return name
        if not identity.unit or _LOGIN.fullmatch(identity.unit):
            return f"program {identity.program}"
        return f"unit {identity.unit}" if identity.unit.endswith((".service", ".scope")) else f"container {identity.unit}"


class _Rule:
    """A `GroupRule` with its globs compiled (as fnmatch.fnmatchcase does: `*` also crosses "/"). Keys that are not given match."""

    def __init__(self, rule: GroupRule) -> None:
        self._program, self._unit, self._cgroup = (
            re.compile(translate(glob or "*")) for glob in (rule.program, rule.unit, rule.cgroup)
        )
        self._uid = rule.uid

    def matches(self, identity: Identity) -> bool:
        return (
            self._program.match(identity.program) is not None
            and self._unit.match(identity.unit) is not None
            and self._cgroup.match(identity.cgroup) is not None
            and self._uid in (None, identity.uid)
        )
