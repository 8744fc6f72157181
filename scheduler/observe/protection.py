"""Finds the processes that are never touched, and those that `guard.protect` names. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from ...models.identity import ProcId
from ...models.records import Snapshot
from ..config.sections import Config
from ..decision import Member
from .group_figures import member_of
from .measure import Measured

PROGRAMS = 4096
"""Most program names that are remembered (chosen)."""


class Protection:
    """Finds protected processes in each snapshot. Remembers only which program names the configuration names."""

    def __init__(self, config: Config, own: ProcId) -> None:
        """`own`: the daemon."""
        self._patterns = config.guard.protect
        self._own = own
        self._named: dict[str, bool] = {}  # whether `guard.protect` names a program

    def protected(self, measured: Measured, snapshot: Snapshot, sheltered: Sequence[Member]) -> tuple[ProcId, ...]:
        """Processes that are never touched: nicety and its ancestors, pid 1, masters, and what `guard.protect` names."""
        table, rows = snapshot.table, measured.rows
        by_pid = {id_.pid: id_ for id_ in rows}
        found = {self._own}
        parent = by_pid.get(self._own.pid)
        while parent is not None:
            found.add(parent)
            up = by_pid.get(int(table[rows[parent]]["ppid"]))
            parent = up if up not in found else None
        if 1 in by_pid:
            found.add(by_pid[1])
        found.update(pool.master for pool in snapshot.pools if pool.master is not None)
        found.update(member.id for member in sheltered)
        return tuple(sorted(found))

    def sheltered(self, measured: Measured, snapshot: Snapshot) -> tuple[Member, ...]:
        """Processes that `guard.protect` names, in any group: the session or cgroup of such a process is not demoted."""
        table, found = snapshot.table, list[Member]()
        for id_, row in measured.rows.items():
            identity = snapshot.identities[id_]
            named = self._named.get(identity.program)
            if named is None:
                if len(self._named) >= PROGRAMS:
                    self._named.clear()
                named = self._named[identity.program] = any(fnmatchcase(identity.program, pattern) for pattern in self._patterns)
            if named:
                found.append(member_of(id_, table[row], identity))
        return tuple(sorted(found, key=lambda member: member.id))
