"""Turns two snapshots into what each group and worker did between them: rates, groups, features. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...models.anomaly.evidence import CHANNELS
from ...models.anomaly.lifecycle import CHILD_FAULTS, USER_HZ, Lifecycle, Noticed
from ...models.behaviour import BEHAVIOUR_CHANNELS, SETTLED_SECONDS, YOUNG_SECONDS
from ...models.features import Floats, Rates, rates
from ...models.identity import ProcId
from ...models.records import WINDOW, Class, Known, Snapshot, Trait
from ..config.sections import Config
from .families import Families
from .grouping import Grouping
from .loads import offered_load
from .requests import PoolRequests, Requests

MAX_GROUPS = 1000
"""Most groups remembered at a time (chosen): thousands of short programs a minute must not cost memory. Those gone longest are
forgotten first."""


GAP_INTERVALS = 3.0
"""Intervals without a snapshot (suspend, SIGSTOP, overload) above which rates are meaningless (chosen): the next tick only sets a
new baseline."""


@dataclass(frozen=True, slots=True)
class Measured:
    """All values of one tick, before any model."""

    seconds: float  # since the previous snapshot
    groups: tuple[str, ...]  # sorted; those of the array fields below
    processes: Floats
    cpu: Floats  # cores
    brief: Floats  # part of `cpu`: used by children that came and went
    wait: Floats  # cores
    demand: Floats  # cores that it would have used alone on this machine
    rss: Floats  # bytes
    behaviour: Floats  # [len(groups), len(BEHAVIOUR_CHANNELS)]
    series: dict[tuple[str, str], float]  # (group or pool, metric) -> value: what demand models learn and forecast
    worker_keys: list[ProcId]  # of ready workers, sorted within their pool
    worker_pools: list[str]
    workers: Floats  # [len(worker_keys), len(CHANNELS)]
    noticed: tuple[Noticed, ...]  # of whole pools
    requests: dict[str, Requests]  # of each pool
    rates: Rates  # aligned with the snapshot's table
    rows: dict[ProcId, int]  # row of each process in the table
    members: tuple[str, ...]  # group of each row of the table
    places: NDArray[np.int64]  # place of each row's group in `groups`


def group_names(config: Config, snapshot: Snapshot, home: int) -> set[str]:
    """The groups of one snapshot alone. Processes whose parents had ended before may have other names in a longer run.

    `home`: the user that the daemon runs as.
    """
    table, ids = snapshot.table, _ids(snapshot)
    grouping = Grouping(config)
    grouping.home = home
    families = Families(grouping)
    return set(families.step(ids, table["ppid"].tolist(), table["session"].tolist(), snapshot.identities, _pool_members(snapshot)))


class Measurer:
    """Turns consecutive snapshots into measured values."""

    def __init__(self, config: Config, interval: float | None = None, own: ProcId | None = None) -> None:
        """`own`: the daemon; None: not known, as in training."""
        self._config = config
        self._own = own
        self._interval = interval or config.daemon.interval
        self._grouping = Grouping(config)
        self._families = Families(self._grouping)
        self._before: Snapshot | None = None
        self._owed: Floats | None = None  # `Rates.owed` of the previous snapshot
        self._present: set[str] = set()
        self._absent: dict[str, int] = {}  # group -> ticks since it last had a process
        self._lifecycle = Lifecycle()
        self.requests = PoolRequests(self._interval)

    def measure(self, snapshot: Snapshot) -> Measured | None:
        """Values since the previous snapshot; None for the first one and after a gap."""
        before, self._before = self._before, snapshot
        table, ids = snapshot.table, _ids(snapshot)
        rows = {id_: row for row, id_ in enumerate(ids)}
        noticed, started = self._lifecycle.step(snapshot, rows)
        requests = self.requests.step(snapshot.pools)
        if self._own in rows:
            self._grouping.home = snapshot.identities[self._own].owner
        self._families.step(ids, table["ppid"].tolist(), table["session"].tolist(), snapshot.identities, _pool_members(snapshot))
        if before is None or not 0 < snapshot.at - before.at <= GAP_INTERVALS * self._interval * 1e9:
            self._owed = None
            return None
        seconds = (snapshot.at - before.at) / 1e9
        cpus = cpus_of(snapshot)
        rate = rates(before.table, table, before.at, snapshot.at, before.uptime_ticks, cpus=cpus, owed=self._owed)
        self._owed = rate.owed
        members = self._families.swarms(table, rate.brief, seconds)
        names = self._remember(members)
        index = {name: i for i, name in enumerate(names)}
        at = np.fromiter((index[name] for name in members), dtype=np.int64, count=len(members))

        def total(values: Floats | None) -> Floats:
            return np.bincount(at, weights=values, minlength=len(names)).astype(np.float64)

        brief = total(rate.brief)
        cpu, wait = total(rate.cpu) + brief, total(rate.wait)
        rss = total(table["rss_bytes"].astype(np.float64))
        demand = np.minimum(total(rate.demand) + brief, cpus)
        series: dict[tuple[str, str], float] = {}
        for name, d, r in zip(names, demand.tolist(), rss.tolist(), strict=True):
            series[name, "cpu"] = d
            series[name, "rss"] = r
        for pool in snapshot.pools:
            offered = offered_load(pool, requests[pool.pool].capacity)
            if offered is not None:
                series[pool.pool, "load"] = offered.load
        forks = {id_: count / seconds for id_, count in started.items()}
        most = max(snapshot.host.forks - before.host.forks, 0) / seconds
        keys, pools, workers = self._workers(snapshot, rate, rows, forks, most)

        processes = total(None)
        channels = {"processes": np.ones(len(table)), **_behaviour(snapshot, ids, rate)}
        behaviour = _known_totals(np.stack([channels[name] for name in BEHAVIOUR_CHANNELS], axis=1), at, len(names))
        return Measured(
            seconds=seconds,
            groups=tuple(names),
            processes=processes,
            cpu=cpu,
            brief=brief,
            wait=wait,
            demand=demand,
            rss=rss,
            behaviour=behaviour,
            series=series,
            worker_keys=keys,
            worker_pools=pools,
            workers=workers,
            noticed=tuple(noticed),
            requests=requests,
            rates=rate,
            rows=rows,
            members=tuple(members),
            places=at,
        )

    def follow(self, before: Measurer, redefined: Collection[str], *, regroup: bool) -> None:
        """Continue from the last snapshot of another measurer. `redefined`: pools whose requests are another's from now on.
        `regroup`: groups or pools have changed, so find all groups again."""
        own = {"_config", "_interval", "_grouping", *(("_families",) if regroup else ())}
        vars(self).update((name, known) for name, known in vars(before).items() if name not in own)
        self.requests.forget(redefined)

    def pinned(self, group: str) -> Class | None:
        """The class that the configuration gives to a group; None if it gives none."""
        return self._grouping.pinned(group)

    def _remember(self, members: Sequence[str]) -> list[str]:
        """Sorted names of the groups of this tick: those with processes, and those that had some within the window."""
        present = set(members)
        gone = {name: ticks + 1 for name, ticks in self._absent.items() if name not in present and ticks < WINDOW}
        for name in sorted(self._present - present):
            gone[name] = 1
        excess = len(present) + len(gone) - MAX_GROUPS
        if excess > 0:
            for name in sorted(gone, key=lambda name: (-gone[name], name))[:excess]:
                del gone[name]
        self._absent = gone
        self._present = present
        return sorted(present | gone.keys())

    def _workers(
        self, snapshot: Snapshot, rate: Rates, rows: Mapping[ProcId, int], forks: Mapping[ProcId, float], most_forks: float
    ) -> tuple[list[ProcId], list[str], Floats]:
        """(workers, their pools, values of `CHANNELS`). `forks`: processes that each worker started per second and that still
        exist; `most_forks`: processes started per second on the whole machine. Without that limit, one busy child would count as
        many."""
        keys, pools, values = list[ProcId](), list[str](), list[tuple[float, ...]]()
        table = snapshot.table
        for pool in snapshot.pools:
            queued = math.nan if pool.queued is None else pool.queued / max(pool.size, 1)
            limits = self._config.pools.get(pool.pool)
            guessed = limits is not None and limits.kind == "command"  # from what it does: an idle one may have no work or be stuck
            for worker in pool.workers:
                row = rows.get(worker.id)
                if row is None or not worker.ready or table[row]["state"] == ord("Z"):
                    continue  # `Lifecycle` reports workers that have ended
                record = table[row]
                keys.append(worker.id)
                pools.append(pool.pool)
                channels = {
                    "cpu": float(rate.cpu[row]),
                    "wait": float(rate.wait[row]),
                    "rss": float(record["rss_bytes"]),
                    "timeslices": float(rate.timeslices[row]),
                    "chars": float(rate.chars[row]),
                    "busy": math.nan if worker.busy is None or (worker.busy == 0 and guessed) else worker.busy,
                    "fds": float(record["fds"]) if record["known"] & Known.FDS else math.nan,
                    "queued": queued,
                    "threads": float(record["threads"]),
                    "forks": max(forks.get(worker.id, 0.0), min(float(rate.child_faults[row]) / CHILD_FAULTS, most_forks)),
                }
                values.append(tuple(channels[name] for name in CHANNELS))
        return keys, pools, np.array(values, dtype=np.float64).reshape(len(keys), len(CHANNELS))


def _ids(snapshot: Snapshot) -> list[ProcId]:
    """Which process each row of the table is. They are those of the identities where these are in the same order: equal ones beside
    them would cost 130 bytes a process."""
    pairs = list(zip(snapshot.table["pid"].tolist(), snapshot.table["start_ticks"].tolist(), strict=True))
    known = list(snapshot.identities)
    return known if known == pairs else list(map(ProcId._make, pairs))


def _pool_members(snapshot: Snapshot) -> dict[ProcId, str]:
    """Pool names by worker and master."""
    return {
        worker: pool.pool
        for pool in snapshot.pools
        for worker in (*(w.id for w in pool.workers), *((pool.master,) if pool.master else ()))
    }


def _known_totals(values: Floats, at: NDArray[np.int64], groups: int) -> Floats:
    """[groups, channels] sums of [n, channels] over the processes of each group whose value is known; NaN where none is known.
    `at`: group of each process."""
    channels = values.shape[1]
    where, known = (at[:, None] * channels + np.arange(channels)).ravel(), ~np.isnan(values).ravel()
    counts = np.bincount(where, weights=known, minlength=groups * channels)
    totals = np.bincount(where, weights=np.where(known, values.ravel(), 0.0), minlength=groups * channels)
    return np.asarray(np.where(counts > 0, totals, np.nan).reshape(groups, channels))


def _behaviour(snapshot: Snapshot, ids: Sequence[ProcId], rate: Rates) -> dict[str, Floats]:
    """Each of `BEHAVIOUR_CHANNELS` but the first, by process; NaN where it is unknown."""
    table = snapshot.table
    traits, known = table["traits"], table["known"]

    def has(trait: Trait) -> Floats:
        return np.asarray(((traits & int(trait)) != 0).astype(np.float64))

    sockets, keys = (known & int(Known.SOCKETS)) != 0, (known & int(Known.KEYS)) != 0
    serves = has(Trait.SERVES)
    age = snapshot.uptime_ticks - table["start_ticks"].astype(np.float64)  # in clock ticks
    return {
        "threads": table["threads"].astype(np.float64),
        "young": (age < YOUNG_SECONDS * USER_HZ).astype(np.float64),
        "settled": (age > SETTLED_SECONDS * USER_HZ).astype(np.float64),
        "cpu": rate.cpu,
        "brief": rate.brief,
        "wait": rate.wait,
        "demand": rate.demand + rate.brief,
        "timeslices": rate.timeslices,
        "chars": rate.chars,
        "faults": np.where(table["minor_faults"] > 0, rate.faults, np.nan),
        "serves": np.where(sockets, serves, np.nan),
        "serves_locally": np.where(sockets, has(Trait.SERVES_LOCALLY), np.nan),
        "served_for": _served_for(snapshot, ids, sockets, serves > 0),
        "terminal": np.where(keys | (has(Trait.TERMINAL) > 0), has(Trait.TERMINAL), np.nan),
        "keys": np.where(keys, has(Trait.READS_KEYSTROKES), np.nan),
        "has_window": np.where(sockets, has(Trait.HAS_WINDOW), np.nan),
        "pipe_fed": has(Trait.PIPE_FED),
        "pipe_server": has(Trait.PIPE_SERVER),
    }


def _served_for(snapshot: Snapshot, ids: Sequence[ProcId], looked: NDArray[np.bool_], serves: NDArray[np.bool_]) -> Floats:
    """[n] 1 where the parent serves and is in the same unit, NaN where the parent's sockets were not read.

    A parent in another unit has only started it: systemd listens for services until they run, and a container manager may too.
    """
    known = set(snapshot.table["pid"][looked].tolist())
    units = {ids[row].pid: snapshot.identities[ids[row]].unit for row in np.flatnonzero(looked & serves).tolist()}
    found = []
    for row, parent in enumerate(snapshot.table["ppid"].tolist()):  # np.isin sorts: it takes five times as long for some hundreds
        unit = units.get(parent)
        if unit is None:
            found.append(0.0 if parent in known else math.nan)
        else:
            found.append(float(snapshot.identities[ids[row]].unit == unit))
    return np.array(found)


def cpus_of(snapshot: Snapshot) -> float:
    """CPUs of the machine; infinite if that was not recorded."""
    return float(len(snapshot.host.cpu_busy_ns)) or math.inf
