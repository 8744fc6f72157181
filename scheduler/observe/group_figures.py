"""The groups of a tick: what was measured of each, and the members of those that have a class. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ...models.identity import ProcId
from ...models.records import Behaviour, Class, Identity, Snapshot
from ..cgroup_paths import ancestors
from ..decision import Group, Member
from .measure import Measured
from .quotas import stopped
from .tenancy import Tenancy, owner_of

Classes = Mapping[str, tuple[Class, Behaviour | None]]
"""By group: its class, and the behaviour from which the class was inferred; None: it was not inferred."""


DECIMALS = 6
"""Of the cores in a tick: a microsecond of CPU in a second. Chosen: more of them are noise, and would take most of the decision
log."""


class Members:
    """The members of groups in the last tick: most are the same in the next one."""

    def __init__(self) -> None:
        self._known: dict[ProcId, tuple[Member, Identity]] = {}

    def step(self, measured: Measured, snapshot: Snapshot, groups: Iterable[str]) -> dict[str, list[Member]]:
        """Those of these groups now, in the order of the table."""
        members: dict[str, list[Member]] = {name: [] for name in groups}
        known, now, table = self._known, dict[ProcId, tuple[Member, Identity]](), snapshot.table
        columns = (table[name].tolist() for name in ("session", "nice", "ppid")) if members else ((), (), ())
        for id_, name, session, nice, parent in zip(measured.rows, measured.members, *columns, strict=bool(members)):
            group = members.get(name)
            if group is None:
                continue
            identity, kept = snapshot.identities[id_], known.get(id_)
            if (
                kept is None
                or kept[1] is not identity
                or (kept[0].session, kept[0].nice, kept[0].parent) != (session, nice, parent)
            ):
                kept = Member(id_, session, identity.cgroup, nice, parent, owner=owner_of(identity)), identity
            now[id_] = kept
            group.append(kept[0])
        self._known = now
        return members


def groups_of(
    measured: Measured,
    snapshot: Snapshot,
    before: Snapshot,
    reported: Sequence[str],
    classes: Classes,
    tenancy: Tenancy,
    members: Members,
) -> tuple[Group, ...]:
    """The groups that are reported, in this order. `before`: the previous snapshot. `members`: those in that one."""
    index = {name: i for i, name in enumerate(measured.groups)}
    found = members.step(measured, snapshot, (name for name in reported if classes[name][0] is not Class.EXEMPT))
    throttled = _throttled(measured, snapshot, before)
    cores = (measured.cpu, measured.wait, measured.demand, measured.brief)
    cpu, wait, demand, brief = (np.round(values, DECIMALS).tolist() for values in cores)
    processes, rss = measured.processes.tolist(), measured.rss.tolist()
    result = []
    for name in reported:
        i = index[name]
        own = tuple(found.get(name, ()))
        result.append(
            Group(
                name=name,
                class_=classes[name][0],
                processes=int(processes[i]),
                cpu=cpu[i],
                wait=wait[i],
                demand=demand[i],
                rss=int(rss[i]),
                members=own,
                behaviour=classes[name][1],
                brief=brief[i],
                throttled=throttled.get(name, 0.0),
                yields=bool(own) and tenancy.yields(snapshot.identities[member.id] for member in own),
                favoured=bool(own) and tenancy.favours(snapshot.identities[member.id] for member in own),
            )
        )
    return tuple(result)


def member_of(id_: ProcId, record: np.void, identity: Identity) -> Member:
    """A process as part of a group. `record`: its row of the table."""
    session, nice, parent = int(record["session"]), int(record["nice"]), int(record["ppid"])
    return Member(id_, session, identity.cgroup, nice, parent, identity.cpus, owner_of(identity))


def _throttled(measured: Measured, snapshot: Snapshot, before: Snapshot) -> dict[str, float]:
    """Group -> share of the tick for which a quota stopped one of its cgroups, the largest if there are several.

    The kernel adds up the CPUs, so a cgroup with threads on many CPUs may have been stopped for less. The share is at most 1.
    """
    shares = {cgroup: min(cores, 1.0) for cgroup, cores in stopped(before, snapshot).items()}
    if not shares:
        return {}
    found: dict[str, float] = {}
    homes = {(measured.members[row], snapshot.identities[id_].cgroup) for id_, row in measured.rows.items()}
    for name, cgroup in homes:
        share = max((shares.get(path, 0.0) for path in ancestors(cgroup)), default=0.0)
        found[name] = max(share, found.get(name, 0.0))
    return found
