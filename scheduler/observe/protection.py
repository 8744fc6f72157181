"""Finds the processes that are never touched, and those that `guard.protect` names. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from operator import attrgetter

import numpy as np

from ...models.identity import ProcId
from ...models.records import Identity, Snapshot
from ..config.sections import Config
from ..decision import Member
from .group_figures import member_of
from .measure import Measured

PROGRAMS = 4096
"""Most program names that are remembered (chosen)."""

_PROGRAM = attrgetter("program")


class Protection:
    """Finds protected processes in each snapshot. Remembers only which program names the configuration names."""

    def __init__(self, config: Config, own: ProcId) -> None:
        """`own`: the daemon."""
        self._patterns = config.guard.protect
        self._own = own
        self._named: dict[str, bool] = {}  # whether `guard.protect` names a program
        self._who: tuple[Mapping[ProcId, Identity] | None, list[ProcId]] = (None, [])  # (identities, those of them that it names)

    def protected(self, measured: Measured, snapshot: Snapshot, sheltered: Sequence[Member]) -> tuple[ProcId, ...]:
        """Processes that are never touched: nicety and its ancestors, pid 1, masters, and what `guard.protect` names."""
        table, rows = snapshot.table, measured.rows
        ids, pids = list(rows), table["pid"]

        def by_pid(pid: int) -> ProcId | None:
            """The last with this pid."""
            at = int(np.searchsorted(pids, pid, side="right")) - 1
            return ids[at] if at >= 0 and ids[at].pid == pid else None

        found = {self._own}
        parent = by_pid(self._own.pid)
        while parent is not None:
            found.add(parent)
            up = by_pid(int(table[rows[parent]]["ppid"]))
            parent = up if up not in found else None
        first = by_pid(1)
        if first is not None:
            found.add(first)
        found.update(pool.master for pool in snapshot.pools if pool.master is not None)
        found.update(member.id for member in sheltered)
        return tuple(sorted(found))

    def sheltered(self, measured: Measured, snapshot: Snapshot) -> tuple[Member, ...]:
        """Processes that `guard.protect` names, in any group: the session or cgroup of such a process is not demoted."""
        if self._who[0] is not snapshot.identities:
            identities = snapshot.identities
            named = {program for program in set(map(_PROGRAM, identities.values())) if self._is_named(program)}
            who = sorted(id_ for id_, identity in identities.items() if identity.program in named) if named else []
            self._who = identities, who
        table, identities, rows = snapshot.table, snapshot.identities, measured.rows
        return tuple(member_of(id_, table[rows[id_]], identities[id_]) for id_ in self._who[1] if id_ in rows)

    def _is_named(self, program: str) -> bool:
        named = self._named.get(program)
        if named is None:
            if len(self._named) >= PROGRAMS:
                self._named.clear()
            named = self._named[program] = any(fnmatchcase(program, pattern) for pattern in self._patterns)
        return named
