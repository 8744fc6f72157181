"""Finds which groups run on the CPUs on which a starved worker waits. Pure. Knows snapshots and rates; must not know what is done
about them.

A waiting worker is in the queue of the CPU that it ran on last, and stays there while no other CPU is idle. So the groups are
ranked by what they used of that CPU, tick by tick, as far back as is remembered.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...models.anomaly.model import NOTED
from ...models.identity import ProcId
from ...models.records import Anomaly, Score, Snapshot
from ..decision import Antagonist, Member, StarvedWorker
from .occupancy import LEAST_CORES, Occupancy

LOOK_BACK_SECONDS = 24.0
"""Seconds to look back: as far as the starvation test of `models` does."""

NEIGHBOURS = 4
"""Most groups that are reported for one worker (chosen)."""

MOST_TICKS = 256
"""Most ticks to look back, whatever the interval is (chosen: it bounds the memory)."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What ran and what waited in one tick."""

    at: int  # ns, its end
    seconds: float
    used: Mapping[int, Sequence[tuple[str, ProcId, float]]]  # CPU -> (group, process, cores on it) of what ran
    waited: Mapping[ProcId, int]  # worker -> the CPU that it ran on last


class Antagonists:
    """Remembers for a while which process ran where."""

    def __init__(self) -> None:
        self._looks: deque[_Look] = deque(maxlen=MOST_TICKS)

    def push(
        self,
        snapshot: Snapshot,
        ran: Occupancy,
        groups: Sequence[str],
        rows: Mapping[ProcId, int],
        workers: Sequence[ProcId],
        seconds: float,
    ) -> None:
        """Add a tick. `groups` [n]: the group of each row of the table, `rows`: the row of each process, in their order. Without
        workers, nothing is kept."""
        while self._looks and self._looks[0].at < snapshot.at - LOOK_BACK_SECONDS * 1e9:
            self._looks.popleft()
        if not workers:
            self._looks.clear()
            return
        last = snapshot.table["last_cpu"]
        waited = {id_: int(last[rows[id_]]) for id_ in workers}
        where, users, ids = set(waited.values()), ran.rows.tolist(), list(rows)
        used = {}
        for column, cpu in enumerate(ran.cpus.tolist()):
            if cpu in where:
                cores = ran.on[:, column]
                there = np.flatnonzero(cores >= LEAST_CORES).tolist()
                used[cpu] = [(groups[users[user]], ids[users[user]], float(cores[user])) for user in there]
        self._looks.append(_Look(snapshot.at, seconds, used, waited))

    def of(self, scores: Sequence[Score], snapshot: Snapshot) -> tuple[StarvedWorker, ...]:
        """The neighbours of each worker that is scored as starved, sorted by worker."""
        starved = sorted(score.id for score in scores if score.kind is Anomaly.STARVED and score.p <= NOTED)
        if not starved:
            return ()
        index = {
            ProcId(pid, start): row
            for row, (pid, start) in enumerate(
                zip(snapshot.table["pid"].tolist(), snapshot.table["start_ticks"].tolist(), strict=True)
            )
        }
        return tuple(self._starved(id_, snapshot, index) for id_ in starved)

    def _starved(self, worker: ProcId, snapshot: Snapshot, index: Mapping[ProcId, int]) -> StarvedWorker:
        total, by_process = defaultdict[str, float](float), defaultdict[tuple[str, ProcId], float](float)
        seconds, where = 0.0, set[int]()
        for look in self._looks:
            at = look.waited.get(worker)
            if at is None:
                continue
            seconds += look.seconds
            where.add(at)
            for group, id_, cores in look.used.get(at, ()):
                if id_ != worker:
                    total[group] += cores * look.seconds
                    by_process[group, id_] += cores * look.seconds
        antagonists = list[Antagonist]()
        for group in sorted(total, key=lambda name: (-total[name], name))[:NEIGHBOURS]:
            most = max((id_ for name, id_ in by_process if name == group), key=lambda id_: (by_process[group, id_], id_))
            who = _member(most, snapshot, index)
            antagonists.append(Antagonist(group, total[group] / seconds, who.nice, who.session, who.cgroup))
        return StarvedWorker(_member(worker, snapshot, index), tuple(sorted(where)), seconds, tuple(antagonists))


def _member(id_: ProcId, snapshot: Snapshot, index: Mapping[ProcId, int]) -> Member:
    """The process as it is now; without session and cgroup if it has ended."""
    row = index.get(id_)
    if row is None:
        return Member(id_, 0, "", 0)
    record = snapshot.table[row]
    return Member(id_, int(record["session"]), snapshot.identities[id_].cgroup, int(record["nice"]), int(record["ppid"]))
