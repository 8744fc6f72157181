"""Finds deadlocks among the workers of pools: examines workers that stand still, and reports what lasts. Pure, except for its port.

A healthy machine costs nothing: only workers that have not run for `SETTLED_NS` are examined. `models/anomaly/waitgraph.py`
decides.
"""

from __future__ import annotations

from collections.abc import Collection

from ...models.anomaly.waitgraph import DeadlockWatch, WaitSnapshot
from ...models.identity import ProcId
from ...models.records import Deadlock, Snapshot
from ..ports import Waits

SETTLED_NS = 3_000_000_000
"""ns without running after which a worker is examined (chosen). With the patience of `DeadlockWatch` a deadlock is reported after 8
to 10 s."""

RESTLESS_CORES = 0.02
"""Most cores that a worker with several threads may use, over `SETTLED_NS`, to be examined although it runs (chosen)."""

ASLEEP = frozenset(map(ord, "SD"))
"""States of a process that waits. No others: a stopped process waits for what stopped it, a runnable one for a CPU."""


class Deadlocks:
    """Examines workers once a tick, through `waits`."""

    def __init__(self, waits: Waits) -> None:
        self._waits = waits
        self._watch = DeadlockWatch()
        self._since: dict[ProcId, tuple[int, int, int]] = {}  # (run time, slices, when that was first seen)
        self._paces: dict[ProcId, tuple[int, int, bool]] = {}  # (run time, when it was read, whether the worker used little before)
        self._restless: list[ProcId] = []
        self._resting = True

    @property
    def trouble(self) -> str:
        """Why what some workers wait for cannot be read; "" if all of it can."""
        return self._waits.trouble

    def step(self, snapshot: Snapshot, aloof: Collection[str] = ()) -> tuple[Deadlock, ...]:
        """The deadlocks at this snapshot. `aloof`: pools whose masters take no part in what their workers wait for."""
        still = self._still(snapshot)
        if still or self._restless:
            workers = sorted(worker.id for pool in snapshot.pools for worker in pool.workers)
            masters = sorted(pool.master for pool in snapshot.pools if pool.master is not None)
            apart = {pool.master for pool in snapshot.pools if pool.pool in aloof and pool.master is not None}
            look = self._waits.look(still, workers, masters, apart, self._restless)
        else:
            look = WaitSnapshot((), frozenset(), frozenset())
            if not self._resting:
                self._waits.rest()
        self._resting = not (still or self._restless)
        return self._watch.step(snapshot.at, look)

    def close(self) -> None:
        """Release what the port holds."""
        self._waits.close()

    def _still(self, snapshot: Snapshot) -> dict[ProcId, int]:
        """Workers that sleep and have not run for `SETTLED_NS`, each with the time of the first snapshot since then, in order of
        pid."""
        workers = sorted(worker.id for pool in snapshot.pools for worker in pool.workers)
        table = snapshot.table
        pids = table["pid"]
        rows = pids.searchsorted([worker.pid for worker in workers]).tolist() if workers else []
        since: dict[ProcId, tuple[int, int, int]] = {}
        still: dict[ProcId, int] = {}
        paces, self._restless = self._paces, []
        self._paces = {}
        for worker, row in zip(workers, rows, strict=True):
            if row >= len(table):
                continue
            record = table[row]
            if (int(record["pid"]), int(record["start_ticks"])) != worker or int(record["state"]) not in ASLEEP:
                continue
            run, timeslices = int(record["cpu_ns"]), int(record["timeslices"])
            before = self._since.get(worker)
            at = before[2] if before is not None and before[:2] == (run, timeslices) else snapshot.at
            since[worker] = run, timeslices, at
            if snapshot.at - at >= SETTLED_NS:
                still[worker] = at
            if int(record["threads"]) > 1:
                pace = paces.get(worker, (run, snapshot.at, False))
                if snapshot.at - pace[1] >= SETTLED_NS:
                    pace = run, snapshot.at, run - pace[0] <= RESTLESS_CORES * (snapshot.at - pace[1])
                self._paces[worker] = pace
                if pace[2] and worker not in still:
                    self._restless.append(worker)
        self._since = since
        return still
