"""Finds whose processes are whose: owners, what `[tenants]` says of them, and where users share a session or cgroup. Pure.

Only what an administrator makes counts as a unit or slice: the first parts of a cgroup path. What comes below the unit of a user's
own manager has any name that the user likes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

from ...models.identity import ProcId
from ...models.records import Identity, Snapshot
from ..cgroup_paths import ROOT, ancestors
from ..config.sections import Tenants
from ..decision import Member, Shared
from ..places import CgroupPlace, DecisionPlace, ProcessPlace, SessionPlace

NOBODY = 65534
"""The uid that the kernel shows for every user whom a user namespace does not map (the default of /proc/sys/fs/overflowuid).
Unrelated services run as it too, so two of its processes are never taken for one user's."""

Owners = dict[int, int | None]
"""By pid: the owner. A process that may be demoted for anybody has no entry."""


def owner_of(identity: Identity) -> int | None:
    """The user whom a process counts as; None: not known."""
    return None if identity.owner == NOBODY else identity.owner


def owner_name(identity: Identity, tenants: Tenants) -> str:
    """The user on whose processes alone their limits rest: the uid, or "" for the system and where owners do not matter."""
    return "" if not tenants.apart or tenants.is_system(identity.owner) else str(identity.owner)


def slices_and_unit(cgroup: str) -> tuple[tuple[str, ...], str]:
    """(the slices that a path begins with, the system's unit in the last of them or ""). A user cannot choose either.

    >>> slices_and_unit("/batch.slice/batch-night.slice/backup.service/mine.slice")
    (('batch.slice', 'batch-night.slice'), 'backup.service')
    """
    slices = list[str]()
    for part in cgroup.split("/")[1:]:
        if part.endswith(".slice"):
            slices.append(part)
            continue
        return tuple(slices), part if part.endswith((".service", ".scope")) else ""
    return tuple(slices), ""


class _List:
    """One list of `[tenants]`."""

    def __init__(self, entries: Sequence[str]) -> None:
        self._users = frozenset(int(entry.removeprefix("user ")) for entry in entries if entry.startswith("user "))
        self._units = [entry.removeprefix("unit ") for entry in entries if entry.startswith("unit ")]
        self._slices = [entry.removeprefix("slice ") for entry in entries if entry.startswith("slice ")]
        self._listed = lru_cache(maxsize=4096)(self._placed)

    def __bool__(self) -> bool:
        return bool(self._users or self._units or self._slices)

    def has(self, identity: Identity) -> bool:
        """Whether an entry names the user, the unit or a slice of a process."""
        return identity.owner in self._users or self._listed(identity.cgroup)

    def _placed(self, cgroup: str) -> bool:
        slices, unit = slices_and_unit(cgroup)
        in_unit = bool(unit) and any(fnmatchcase(unit, glob) for glob in self._units)
        return in_unit or any(fnmatchcase(part, glob) for part in slices for glob in self._slices)


class Tenancy:
    """What `[tenants]` says of processes. Remembers where the users of the latest processes are."""

    def __init__(self, config: Tenants) -> None:
        self._apart = config.apart
        self._yield, self._favoured = _List(config.may_be_demoted), _List(config.may_be_helped)
        self._identities: Mapping[ProcId, Identity] | None = None
        self._owners: Owners = {}
        self._by_cgroup: dict[str, set[int | None]] = {}  # owners in each cgroup and below it
        self._parents: dict[int, int] = {}  # by pid
        self._strangers: list[tuple[int, int | None]] = []  # processes whose parent has another owner: parent, own owner

    def yields(self, identities: Iterable[Identity]) -> bool:
        """Whether each of these may be demoted for anybody."""
        return bool(self._yield) and all(map(self._yield.has, identities))

    def favours(self, identities: Iterable[Identity]) -> bool:
        """Whether each of these may be helped at anybody's expense."""
        return bool(self._favoured) and all(map(self._favoured.has, identities))

    def shared(self, snapshot: Snapshot, batch: Sequence[Member]) -> tuple[Shared, ...]:
        """The sessions and cgroups of these members that hold processes of other users, and the members from which processes of
        other users descend. Sessions first, then cgroups, then members."""
        if not self._apart or not batch:
            return ()
        if self._identities is not snapshot.identities:
            self._learn(snapshot)
        if len(set(self._owners.values())) < 2 and len(self._owners) == len(snapshot.identities):
            return ()
        by_session = self._by_session(snapshot, {member.session for member in batch})
        below = self._descending({member.id.pid for member in batch})
        found: dict[tuple[int, str], tuple[DecisionPlace, set[int | None]]] = {}
        for member in sorted(batch, key=lambda member: member.id):
            own = {self._owners[member.id.pid]} if member.id.pid in self._owners else set[int | None]()
            places: list[tuple[str, DecisionPlace, set[int | None]]] = [
                (f"0 {member.session}", SessionPlace(member.session, member.id), by_session[member.session]),
                *((f"1 {path}", CgroupPlace(path), self._by_cgroup.get(path, set())) for path in ancestors(member.cgroup)[1:]),
                (f"2 {member.id.pid}", ProcessPlace(member.id), below.get(member.id.pid, set()) | own),
            ]
            for key, place, users in places:
                if users - own:
                    found.setdefault((len(key), key), (place, users))
        ordered = sorted(found.items(), key=lambda item: (item[0][1][0], item[0]))
        return tuple(Shared(place, tuple(sorted(users, key=_rising))) for _, (place, users) in ordered)

    def _learn(self, snapshot: Snapshot) -> None:
        """Find the owners of all processes, and where they are."""
        self._identities = snapshot.identities
        free = self._yield
        taken = [(id_.pid, it) for id_, it in snapshot.identities.items() if not (free and free.has(it))]
        self._owners = {pid: owner_of(it) for pid, it in taken}
        self._by_cgroup = {}
        for cgroup, owner in {(it.cgroup, owner_of(it)) for _, it in taken}:
            for path in ancestors(cgroup):
                if path != ROOT:
                    self._by_cgroup.setdefault(path, set()).add(owner)
        self._parents = dict(zip(snapshot.table["pid"].tolist(), snapshot.table["ppid"].tolist(), strict=True))
        unlike = (
            (pid, owner) for pid, owner in self._owners.items() if self._owners.get(self._parents.get(pid, 0), _NONE) != owner
        )
        self._strangers = [(self._parents.get(pid, 0), owner) for pid, owner in unlike]

    def _by_session(self, snapshot: Snapshot, sessions: set[int]) -> dict[int, set[int | None]]:
        """The owners in each of these sessions."""
        found: dict[int, set[int | None]] = {session: set() for session in sessions}
        table = snapshot.table
        import numpy as np  # here, because pages about groups need no numpy

        rows = table[np.isin(table["session"], sorted(sessions))]
        for pid, session in zip(rows["pid"].tolist(), rows["session"].tolist(), strict=True):
            if pid in self._owners:
                found[session].add(self._owners[pid])
        return found

    def _descending(self, pids: set[int]) -> dict[int, set[int | None]]:
        """The owners of processes that descend from each of these and whose parent has another owner."""
        found: dict[int, set[int | None]] = {}
        for parent, owner in self._strangers:
            for pid in self._line(parent):
                if pid in pids:
                    found.setdefault(pid, set()).add(owner)
        return found

    def _line(self, pid: int) -> Iterator[int]:
        """A process and its ancestors."""
        seen = set[int]()
        while pid and pid not in seen:
            seen.add(pid)  # a pid that was reused between two reads may look like its own ancestor
            yield pid
            pid = self._parents.get(pid, 0)


_NONE = -1
"""The owner of no process."""


def _rising(owner: int | None) -> int:
    """The order of owners: the unknown one first."""
    return _NONE if owner is None else owner
