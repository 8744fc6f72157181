"""What can be told of a pool from who is in it, who has ended, and who began: crash loops, zombies, and who starts processes. Pure.

It keeps what it has seen, so it wants the snapshots in order.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from ..records import Anomaly, PoolSample, ProcId, Snapshot

POOL_KINDS: tuple[Anomaly, ...] = (Anomaly.CRASH_LOOP, Anomaly.ZOMBIE)
"""Kinds that are said of a pool's master, or of a worker, beside what windows say."""

USER_HZ = 100.0
"""Clock ticks a second in /proc, whatever HZ is: include/asm-generic/param.h."""

SOON, SOON_SHARE = 20.0, 0.25
"""A worker that ends within so many seconds has hardly served; where workers usually live not much longer (one task each, a low
max_requests), within this share of what is usual."""

CRASH_WINDOW, CRASHES = 90.0, 3
"""Workers that end soon within so many seconds, each begun after the one before had ended, that make a loop. A deploy replaces each
worker once: those that end are old. A second deploy on its heels makes one such end, a third one two."""

LIVES = 50
"""Latest lives that say what is usual in a pool."""

ZOMBIE_SECONDS = 30.0
"""Seconds for which a process that has ended may wait to be asked for its exit status. Python asks for those of forgotten children
when it starts the next one."""

CHILD_FAULTS = 100.0
"""Minor page faults of a child that ends at once: 50 of /bin/true (Linux 6.18, x86-64), 220 of a forked Python that does nothing,
760 of a fresh one. They tell of children that came and went between two ticks."""

DEPTH = 16
"""Generations below a worker that are looked at."""


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something about a pool, before anybody says how rare it is."""

    id: ProcId
    pool: str
    kind: Anomaly
    value: float  # the score; its unit is the kind's
    figures: tuple[tuple[str, float], ...]


@dataclass(slots=True)
class _Pool:
    """What is remembered of one pool. Times are seconds since boot."""

    requested: int
    workers: dict[ProcId, bool] = field(default_factory=dict)  # those that have not ended, and whether they ever were ready
    ended: list[tuple[float, float]] = field(default_factory=list)  # (began, ended) of those that ended soon, in that order
    lives: deque[float] = field(default_factory=lambda: deque(maxlen=LIVES))  # seconds, of the other lives
    let_go: int = 0  # workers by which the pool was made smaller, and that have not ended yet


class Lives:
    """Follows the workers of pools and the processes below them."""

    def __init__(self) -> None:
        self._pools: dict[str, _Pool] = {}
        self._zombies: dict[ProcId, float] = {}  # since when, seconds since boot
        self._owners: dict[ProcId, ProcId] = {}  # processes that descend from a worker, and that worker
        self._uptime = 0  # clock ticks, of the snapshot before

    def step(self, snapshot: Snapshot, rows: Mapping[ProcId, int]) -> tuple[list[Noticed], dict[ProcId, int]]:
        """(what is noticed now, processes that workers and their descendants started since the step before, 0 left out).

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
        self._pools = {pool.pool: self._pools.get(pool.pool) or _Pool(pool.requested) for pool in snapshot.pools}
        for pool in snapshot.pools:
            memory = self._pools[pool.pool]
            _follow(pool, memory, {worker for worker in memory.workers if worker not in rows or worker in dead}, now)
            loop = _crash_loop(pool, memory, now)
            if loop is not None:
                noticed.append(loop)
        self._uptime = snapshot.uptime_ticks
        return noticed, started

    def _started(self, snapshot: Snapshot, rows: Mapping[ProcId, int]) -> dict[ProcId, int]:
        """How many processes that began since the step before descend from each worker. A process whose parent ended before it was
        ever seen has no worker."""
        table, owners = snapshot.table, {id_: owner for id_, owner in self._owners.items() if id_ in rows}
        workers = {worker.id for pool in snapshot.pools for worker in pool.workers}
        fresh = np.flatnonzero(table["start_ticks"] >= self._uptime)
        started: dict[ProcId, int] = {}
        if len(fresh) and workers:
            pids, starts, parents = (table[name].tolist() for name in ("pid", "start_ticks", "ppid"))
            row_of = {pid: row for row, pid in enumerate(pids)}
            for row in fresh.tolist():
                id_ = ProcId(pids[row], starts[row])
                if id_ in owners or id_ in workers:
                    continue
                above: int | None = row
                for _ in range(DEPTH):
                    above = row_of.get(parents[above])
                    if above is None:
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
        """Who leaves processes unreaped for long: a master, or a worker. Not where most of its siblings do so too: then it is how
        their program deals with children."""
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


def _follow(pool: PoolSample, memory: _Pool, gone: set[ProcId], now: float) -> None:
    """Who has ended, and how long it lived. Ends by which the pool was made smaller do not count."""
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


def _usual_life(pool: PoolSample, memory: _Pool, now: float) -> float:
    """Seconds, median of those that ended (but for those that ended soon) and of those that are there; 0 where there is none."""
    ages = [now - worker.id.start_ticks / USER_HZ for worker in pool.workers]
    return median([*memory.lives, *ages]) if memory.lives or ages else 0.0


def _crash_loop(pool: PoolSample, memory: _Pool, now: float) -> Noticed | None:
    """As many workers as ended soon, each begun after the one before had ended."""
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
