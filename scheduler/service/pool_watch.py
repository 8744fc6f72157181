"""Notes about pools that run here and that the configuration does not have. The daemon says so once; nothing is sized for it.

A search costs a comparison of the processes that exist with those of the search before. The arguments are read only of what has
come since, has the name of a server or a queue's worker, and was there in the search before: by then it has its workers.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path

import numpy as np

from ...models.identity import ProcId
from ...models.records import Identity, Snapshot
from ..config.sections import Config
from ..decision import Note
from ..pools.finding.found import Process, Table
from ..pools.finding.invocation import may_be
from ..pools.finding.reading import arguments_of
from ..pools.finding.search import quickly

EVERY_NS = 10 * 10**9
"""ns between two searches (chosen): a server has its workers after that time, and nobody waits for the note."""

MOST_ENDED = 1000
"""Most programs that are remembered beyond the number of processes (chosen): about 100 kB."""


class PoolWatch:
    """Searches now and then, and gives a note for each pool while its main process lives."""

    def __init__(self, config: Config, proc_root: Path = Path("/proc")) -> None:
        self._config, self._proc_root = config, proc_root
        self._at: int | None = None  # monotonic ns of the next search
        self._known: Set[ProcId] = frozenset()  # processes of the last search
        self._new: set[ProcId] = set()  # those of them that came since the one before, and may be a pool
        self._likely: dict[str, bool] = {}  # whether a program may be a pool's
        self._judged: set[ProcId] = set()  # main processes of pools that were found
        self._notes: dict[ProcId, Note] = {}  # by main process

    def notes(self, snapshot: Snapshot) -> tuple[Note, ...]:
        """Notes at a tick."""
        if self._at is None or snapshot.at >= self._at:
            self._at = snapshot.at + EVERY_NS
            self._search(snapshot)
        return tuple(note for id_, note in self._notes.items() if id_ in snapshot.identities)

    def _search(self, snapshot: Snapshot) -> None:
        identities = snapshot.identities
        there = identities.keys()
        self._judged &= there
        self._notes = {id_: note for id_, note in self._notes.items() if id_ in there}
        settled = self._new & there
        if settled:
            self._examine(settled, snapshot)
        self._new = {id_ for id_ in there - self._known if self._may_be(identities[id_].program)}
        self._known = frozenset(there)
        if len(self._likely) > len(there) + MOST_ENDED:
            self._likely.clear()

    def _may_be(self, program: str) -> bool:
        known = self._likely.get(program)
        if known is None:
            known = self._likely[program] = may_be(program)
        return known

    def _examine(self, settled: Set[ProcId], snapshot: Snapshot) -> None:
        """Find the pools that these processes are part of."""
        near = self._around(settled, snapshot)
        if not near:
            return
        table = Table(near, lambda pid: arguments_of(self._proc_root, pid))
        by_pid = {process.id.pid: process.id for process in near}
        sized = {worker.id for pool in snapshot.pools for worker in pool.workers} | {pool.master for pool in snapshot.pools}
        for pool in quickly(table, self._config, self._proc_root):
            main = by_pid[pool.pid]
            self._judged.add(main)
            ours = pool.configured or main in sized or not sized.isdisjoint(map(by_pid.get, pool.workers))
            if pool.worth_a_line and not ours:
                figures: dict[str, float | int | str] = {"kind": pool.kind, "pid": pool.pid, "workers": len(pool.workers)}
                self._notes[main] = Note(f"found {pool.kind} {pool.name}", f"found {pool.title}: nicety pools", figures)

    def _around(self, settled: Set[ProcId], snapshot: Snapshot) -> list[Process]:
        """These processes without new workers of pools that were found, their parents where these may be pools, and the children of
        both."""
        pids, parents = snapshot.table["pid"], snapshot.table["ppid"]
        own = np.isin(pids, [id_.pid for id_ in settled]) & ~np.isin(parents, [id_.pid for id_ in self._judged])
        if not own.any():
            return []
        above = [row for row in snapshot.table[np.isin(pids, parents[own])] if self._may_be(snapshot.identities[_id(row)].program)]
        heads = own | np.isin(pids, [int(row["pid"]) for row in above])
        return [_process(row, snapshot.identities) for row in snapshot.table[heads | np.isin(parents, pids[heads])]]


def _id(row: np.void) -> ProcId:
    return ProcId(int(row["pid"]), int(row["start_ticks"]))


def _process(row: np.void, identities: Mapping[ProcId, Identity]) -> Process:
    id_ = _id(row)
    identity = identities[id_]
    return Process(id_, int(row["ppid"]), identity.uid, identity.unit, identity.program)
