"""The groups of a tick: what was measured of each, and the members of those that have a class. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


def groups_of(
    measured: Measured,
    snapshot: Snapshot,
    before: Snapshot,
    reported: Sequence[str],
    classes: Classes,
    tenancy: Tenancy,
) -> tuple[Group, ...]:
    """The groups that are reported, in this order. `before`: the previous snapshot."""
    index = {name: i for i, name in enumerate(measured.groups)}
    members: dict[str, list[Member]] = {name: [] for name in reported if classes[name][0] is not Class.EXEMPT}
    table = snapshot.table
    if members:
        sessions, nices, parents = table["session"].tolist(), table["nice"].tolist(), table["ppid"].tolist()
        for id_, row in measured.rows.items():
            group = members.get(measured.members[row])
            if group is not None:
                identity = snapshot.identities[id_]
                group.append(Member(id_, sessions[row], identity.cgroup, nices[row], parents[row], owner=owner_of(identity)))
    throttled = _throttled(measured, snapshot, before)
    cpu, wait, demand, brief = (
        np.round(cores, DECIMALS).tolist() for cores in (measured.cpu, measured.wait, measured.demand, measured.brief)
    )
    result = []
    for name in reported:
        i = index[name]
        own = tuple(sorted(members.get(name, ()), key=lambda member: member.id))
        identities = [snapshot.identities[member.id] for member in own]
        result.append(
            Group(
                name=name,
                class_=classes[name][0],
                processes=int(measured.processes[i]),
                cpu=cpu[i],
                wait=wait[i],
                demand=demand[i],
                rss=int(measured.rss[i]),
                members=own,
                behaviour=classes[name][1],
                brief=brief[i],
                throttled=throttled.get(name, 0.0),
                yields=bool(own) and tenancy.yields(identities),
                favoured=bool(own) and tenancy.favours(identities),
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
