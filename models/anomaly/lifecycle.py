"""What a pool's members, ends and starts reveal: crash loops, zombies, and which workers start processes. Pure.

Keeps state between snapshots, so they must come in order.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from ..identity import ProcId
from ..records import Anomaly, PoolSample, Snapshot

POOL_KINDS: tuple[Anomaly, ...] = (Anomaly.CRASH_LOOP, Anomaly.ZOMBIE)
"""Kinds reported of a pool's master, or of a worker, beside those from windows."""

USER_HZ = 100.0
"""Clock ticks a second in /proc, whatever HZ is: include/asm-generic/param.h."""

SOON, SOON_SHARE = 20.0, 0.25
"""A worker ends soon if it ends within SOON seconds, or, where workers usually live not much longer (one task each, a low
max_requests), within SOON_SHARE of the usual life (chosen)."""

CRASH_WINDOW, CRASHES = 90.0, 3
"""A crash loop: within CRASH_WINDOW seconds CRASHES workers end soon, each begun after the one before had ended. A deploy replaces
each worker once, and those that end are old. A second deploy soon after makes one such end, a third makes two. Chosen: `python -m
benchmarks.anomaly.campaign` finds 18 of 18."""

LIVES = 50
"""Newest lives from which the usual life in a pool is computed (chosen)."""

ZOMBIE_SECONDS = 30.0
"""Seconds for which a process that has ended may wait until its exit status is collected. Python collects forgotten children when
it starts the next one. Chosen: `python -m benchmarks.anomaly.campaign` finds 18 of 18."""

CHILD_FAULTS = 100.0
"""Minor page faults of a child that ends at once: 50 for /bin/true (Linux 6.18, x86-64), 220 for a forked Python that does nothing,
760 for a fresh one. They reveal children that came and went between two ticks."""

DEPTH = 16
"""Generations below a worker that are searched. Chosen: trees of processes are seldom as deep."""


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something noticed about a pool, before its rarity is judged."""

    id: ProcId
    pool: str
    kind: Anomaly
    value: float  # the score; its unit is the kind's
    figures: tuple[tuple[str, float], ...]


@dataclass(slots=True)
class _PoolLives:
    """State of one pool. Times are seconds since boot."""

    requested: int
    workers: dict[ProcId, bool] = field(default_factory=dict)  # those that have not ended, and whether they were ever ready
    ended: list[tuple[float, float]] = field(default_factory=list)  # (began, ended) of those that ended soon, in that order
    lives: deque[float] = field(default_factory=lambda: deque(maxlen=LIVES))  # seconds, of the other lives
    let_go: int = 0  # workers by which the pool was made smaller, and that have not ended yet


class Lifecycle:
    """Follows the workers of pools and the processes below them."""

    def __init__(self) -> None:
        self._pools: dict[str, _PoolLives] = {}
        self._zombies: dict[ProcId, float] = {}  # since when, seconds since boot
        self._owners: dict[ProcId, ProcId] = {}  # from processes that descend from a worker to that worker
        self._uptime = 0  # clock ticks, of the previous snapshot

    def step(self, snapshot: Snapshot, rows: Mapping[ProcId, int]) -> tuple[list[Noticed], dict[ProcId, int]]:
        """(what is noticed now, number of processes that each worker and its descendants started since the last step, 0 left out).

        `rows`: the row of each process in the snapshot's table.
        """
        if not snapshot.pools:
            self._pools, self._zombies, self._owners, self._uptime = {}, {}, {}, snapshot.uptime_ticks
            return [], {}
        now = snapshot.uptime_ticks / USER_HZ
        started = self._started(snapshot, rows)
        at = np.flatnonzero(snapshot.table["state"] == ord("Z"))
        table = snapshot.table[at]
        dead = dict(zip(map(ProcId, table["pid"].tolist(), table["start_ticks"].tolist()), table["ppid"].tolist(), strict=True))
        noticed = self._unreaped(snapshot.pools, dead, now)
        self._pools = {pool.pool: self._pools.get(pool.pool) or _PoolLives(pool.requested) for pool in snapshot.pools}
        for pool in snapshot.pools:
            memory = self._pools[pool.pool]
            _follow(pool, memory, {worker for worker in memory.workers if worker not in rows or worker in dead}, now)
            loop = _crash_loop(pool, memory, now)
            if loop is not None:
                noticed.append(loop)
        self._uptime = snapshot.uptime_ticks
        return noticed, started

    def _started(self, snapshot: Snapshot, rows: Mapping[ProcId, int]) -> dict[ProcId, int]:
        """How many processes that began since the last step descend from each worker. A process whose parent ended before the
        process was first seen has no worker."""
        table, owners = snapshot.table, {id_: owner for id_, owner in self._owners.items() if id_ in rows}
        workers = {worker.id for pool in snapshot.pools for worker in pool.workers}
        fresh = np.flatnonzero(table["start_ticks"] >= self._uptime)
        started: dict[ProcId, int] = {}
        if len(fresh) and workers:
            pids, starts, parents = (table[name].tolist() for name in ("pid", "start_ticks", "ppid"))
            for row in fresh.tolist():
                id_ = ProcId(pids[row], starts[row])
                if id_ in owners or id_ in workers:
                    continue
                above = row
                for _ in range(DEPTH):
                    pid = parents[above]
                    above = bisect_right(pids, pid) - 1
                    if above < 0 or pids[above] != pid:
                        break
                    parent = ProcId(pids[above], starts[above])
                    owner = parent if parent in workers else owners.get(parent)
                    if owner is not None:
                        owners[id_] = owner
                        started[owner] = started.get(owner, 0) + 1
                        break
        self._owners = owners
        return started

    def _unreaped(self, pools: Sequence[PoolSample], dead: Mapping[ProcId, int], now: float) -> list[Noticed]:
        """Masters and workers that leave processes unreaped for long. Not a worker if most of its siblings do so too: then it is
        how their program treats children."""
        self._zombies = {id_: self._zombies.get(id_, now) for id_ in dead}
        noticed = []
        for pool in pools if dead else ():
            owners = {worker.id.pid: worker.id for worker in pool.workers}
            if pool.master is not None:
                owners[pool.master.pid] = pool.master
            found: dict[ProcId, list[float]] = {}
            for id_, parent in dead.items():
                owner = owners.get(parent, id_ if owners.get(id_.pid) == id_ else None)
                if owner is not None and now - self._zombies[id_] >= ZOMBIE_SECONDS:
                    found.setdefault(owner, []).append(now - self._zombies[id_])
            others = [worker.id for worker in pool.workers if worker.id in found and worker.id not in dead]
            usual = len(others) > 1 and 2 * len(others) >= len(pool.workers)
            for owner, ages in sorted(found.items()):
                if not (usual and owner in others):
                    figures = (("zombies", float(len(ages))), ("seconds", max(ages)), ("siblings", float(len(pool.workers) - 1)))
                    noticed.append(Noticed(owner, pool.pool, Anomaly.ZOMBIE, max(ages), figures))
        return noticed


def _follow(pool: PoolSample, memory: _PoolLives, gone: set[ProcId], now: float) -> None:
    """Record which workers ended, and how long they lived. Ends by which the pool was made smaller do not count."""
    fewer = memory.requested - pool.requested
    memory.let_go = max(memory.let_go + fewer, 0) if fewer > 0 else memory.let_go if fewer == 0 else 0
    memory.requested = pool.requested
    memory.ended = [life for life in memory.ended if now - life[1] <= CRASH_WINDOW]
    usual = _usual_life(pool, memory, now)
    for id_ in sorted(gone):
        ready = memory.workers.pop(id_)
        began = id_.start_ticks / USER_HZ
        life = now - began
        if memory.let_go:
            memory.let_go -= 1
        elif life <= (min(SOON, SOON_SHARE * usual) if ready else SOON):
            memory.ended.append((began, now))
        else:
            memory.lives.append(life)
    for worker in pool.workers:
        if worker.id not in gone:
            memory.workers[worker.id] = memory.workers.get(worker.id, False) or worker.ready


def _usual_life(pool: PoolSample, memory: _PoolLives, now: float) -> float:
    """Median seconds of the lives that ended (except those that ended soon) and of existing workers; 0 if there are none."""
    ages = [now - worker.id.start_ticks / USER_HZ for worker in pool.workers]
    return median([*memory.lives, *ages]) if memory.lives or ages else 0.0


def _crash_loop(pool: PoolSample, memory: _PoolLives, now: float) -> Noticed | None:
    """A crash loop, scored by how many workers ended soon, each begun after the one before had ended; None: no loop."""
    chain, last = 0, -math.inf
    for began, ended in memory.ended:
        if began >= last - 1.0:  # the end was noticed a tick late
            chain, last = chain + 1, ended
    if chain < CRASHES:
        return None
    there = [worker.id for worker in pool.workers]
    id_ = pool.master or max(there, key=lambda id_: (id_.start_ticks, id_.pid), default=None)
    if id_ is None:
        return None
    figures = {
        "ended_soon": float(len(memory.ended)),
        "one_after_the_other": float(chain),
        "median_life_seconds": median(ended - began for began, ended in memory.ended),
        "usual_life_seconds": _usual_life(pool, memory, now),
        "seconds": now - memory.ended[0][0],
        "workers": float(len(there)),
    }
    return Noticed(id_, pool.pool, Anomaly.CRASH_LOOP, float(chain), tuple(figures.items()))
