"""Turns traces into what models learn from: demand series, worker ticks, and the behaviour of groups with a configured class.
Knows traces and the observer, no model.

Values come from `scheduler.observe.measure.Measurer`, which the runtime uses too. A series is cut where its group went away and at
every gap, so no window reaches across a hole. Time is counted in ticks over all sessions, in the order they were recorded.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..models.artifact import DataRange
from ..models.forecast.demand import MIN_TICKS
from ..models.identity import ProcId
from ..models.records import HORIZONS, WINDOW, Class, Identity, Snapshot
from ..scheduler.config.sections import Config, Tenants
from ..scheduler.observe.measure import Measured, Measurer
from ..scheduler.observe.observer import BUSY_CORES
from ..scheduler.observe.tenancy import owner_name
from ..scheduler.store.traces import Recording
from .anomaly_cases import WorkerTick
from .anomaly_fit import WorkerTraces
from .behaviour_fit import Sighted, Sightings
from .quotas import SYSTEM, places, quota_of
from .stream import SeriesRun

MAX_VALUES = 40_000_000
"""Values of demand series kept, 160 MB; beyond it the oldest series of the owner with most are dropped. A day at 1 Hz of 40 groups
has 7 million (chosen)."""

MAX_WORKER_TICKS = 2_000_000
"""Worker-ticks kept, about 240 MB at 120 bytes; beyond it the oldest sessions are dropped. A day at 1 Hz of 20 workers has 1.7
million (chosen)."""

DRAWN, DRAWN_WINDOW = 4_000_000, 10_800
"""Values that the simple forecasters are run over, for the rows of a fit and of its judgement; and the ticks of a window, where
there are more. Chosen: so many give each of the origins that are drawn from them (`demand.ORIGINS`) sixty values of its own, and
three hours are thirty times as long as what most forecasters remember."""

MAX_RUN = 86_400
"""Ticks after which a series is cut, so that the oldest part of an endless one can be dropped (chosen)."""


class DatasetError(Exception):
    """The traces cannot be used as a data set. The message says why and what to do next."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """What was read. `runs` are sorted by start, target and metric."""

    interval: float  # seconds a tick
    ticks: int
    runs: tuple[SeriesRun, ...]
    workers: WorkerTraces
    data: DataRange
    skipped: tuple[str, ...]  # what was left out, a sentence each
    sighted: Sighted = field(default_factory=Sighted)  # of groups with a class in the configuration
    continues: bool = False  # the tick before the first one was seen too, so series that begin there may have begun before


@dataclass(frozen=True, slots=True)
class Span:
    """Ticks from `first` up to, not including, `last`: origins lie in it, and so do their targets."""

    first: int
    last: int


def split(ticks: int) -> tuple[Span, Span]:
    """The time to fit on and the held-out time to judge on: 80 and 20 %, but at least `LEAST_SPAN` ticks for the latter.

    No target of one lies in the other, so the gap between their origins is the longest horizon. Raises DatasetError if the time is
    too short for that.
    """
    if ticks < LEAST_TICKS:
        raise DatasetError(f"{ticks} ticks are too few to fit and test on; at least {LEAST_TICKS} are needed")
    cut = ticks - max(ticks // 5, LEAST_SPAN)
    return Span(0, cut), Span(cut, ticks)


LEAST_SPAN = max(HORIZONS) + 20
"""Fewest ticks to test on: 20 origins of the longest horizon (chosen)."""

LEAST_TICKS = LEAST_SPAN + MIN_TICKS + max(HORIZONS) + 60
"""Fewest ticks of traces: they also leave 60 origins of the longest horizon to fit on (chosen)."""


def build(traces: Iterable[tuple[Recording, Snapshot]], config: Config, since: int = 0) -> Dataset:
    """Read all traces. Memory is bounded by `MAX_VALUES` and `MAX_WORKER_TICKS`. Raises DatasetError if they hold nothing usable.

    Only sessions recorded at the configuration's interval are used: a model counts in ticks. Ticks before `since`, wall clock ns,
    are only what the first one is compared with.
    """
    interval = config.daemon.interval
    builder, workers, sightings, owners = _Runs(), _Workers(), Sightings(interval), _Owners(config.tenants)
    classes: dict[str, Class] = {}
    groups: tuple[str, ...] = ()  # those that `classes` is of
    others: dict[float, int] = {}
    session, measurer = "", Measurer(config, interval)
    first_wall = last_wall = processes = 0
    continues = False
    for recording, snapshot in traces:
        if recording.interval != interval:
            others[recording.interval] = others.get(recording.interval, 0) + 1
            continue
        if recording.id != session:
            session, measurer = recording.id, Measurer(config, interval)
            builder.cut()
            workers.cut()
            sightings.cut()
        measured = measurer.measure(snapshot)
        if snapshot.wall < since:
            continue
        continues |= not first_wall and measured is not None
        first_wall, last_wall = first_wall or snapshot.wall, snapshot.wall
        processes = max(processes, len(snapshot.table))
        if measured is None:
            builder.cut()
            workers.cut()
            continue
        pools = {pool.pool for pool in snapshot.pools}
        if measured.groups != groups:
            groups = measured.groups
            classes = {name: class_ for name in groups if (class_ := measurer.pinned(name)) is not None}
        sightings.add(builder.ticks, groups, measured.behaviour, classes)
        wanted = classes.keys() | pools.intersection(groups)
        builder.add(snapshot.wall / 1e9, measured.series, wanted, owners.of_groups(measured, snapshot))
        whose = owners.of_workers(measured, snapshot)
        workers.add(WorkerTick(measured.worker_keys, measured.worker_pools, measured.workers, whose))
    skipped = [
        f"{count} ticks of {every:g} s: the configuration has daemon.interval = {interval:g}"
        for every, count in sorted(others.items())
    ]
    if not builder.ticks:
        raise DatasetError(
            "; ".join(skipped) + f"; set daemon.interval to that, or record at {interval:g} s"
            if skipped
            else "the traces have no two consecutive snapshots; record some with `nicety record`"
        )
    runs, ready = builder.finish(), workers.finish()
    skipped += builder.skipped + workers.skipped
    digest = hashlib.sha256()
    for run in runs:
        digest.update(f"{run.target}\0{run.metric}\0{run.start}\0{len(run.values)}\0".encode())
        digest.update(run.values.tobytes())
    busy = len({run.target for run in runs})
    data = DataRange(first_wall, last_wall, builder.ticks, processes, busy, digest.hexdigest())
    return Dataset(interval, builder.ticks, runs, ready, data, tuple(skipped), sightings.finish(), continues)


def drawn(runs: Sequence[SeriesRun], interval: float) -> tuple[SeriesRun, ...]:
    """Series with at most `DRAWN` values in all: all if there are no more, else windows of them. A window's turn depends on its
    machine, group, metric and time alone, not on what else there is."""
    if sum(len(run.values) for run in runs) <= DRAWN:
        return tuple(runs)
    windows = []
    for number, run in enumerate(runs):
        for low in range(0, len(run.values), DRAWN_WINDOW):
            values, at = run.values[low : low + DRAWN_WINDOW], run.at + low * interval
            if len(values) > MIN_TICKS:
                turn = hashlib.sha256(f"{run.target}\0{run.metric}\0{at:.3f}".encode()).digest()
                windows.append((turn, number, low, replace(run, start=run.start + low, values=values, at=at)))
    left, kept = DRAWN, []
    for _, number, low, window in sorted(windows, key=lambda each: each[:3]):
        left -= len(window.values)
        if left < 0:
            break
        kept.append((number, low, window))
    return tuple(window for _, _, window in sorted(kept, key=lambda each: each[:2]))


def origins(runs: Sequence[SeriesRun], span: Span, most: int, seed: int) -> list[NDArray[np.int64]]:
    """At most `most` origins of the span, as places in each run; all if there are no more. No owner has more than its quota. An
    origin has seen `MIN_TICKS` ticks of its series, and the longest horizon lies in the span.

    They are drawn evenly, at the same places in all runs: what the experts say is then needed at few places.
    """
    bounds = np.array([_inside(run, span) for run in runs], dtype=np.int64).reshape(len(runs), 2)
    counts = bounds[:, 1] - bounds[:, 0]
    total = int(counts.sum())
    if total <= most:
        return [np.arange(*bound) for bound in bounds.tolist()]
    rng = np.random.default_rng(seed)
    rank = rng.permutation(int(bounds[:, 1].max()))  # of each place
    turn = rng.permutation(len(runs))  # of each run at a place
    chosen: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64) for _ in runs]
    for owner, count in sorted(places([run.owner for run in runs], counts.tolist(), most).items()):
        mine = [at for at, run in enumerate(runs) if run.owner == owner and counts[at]]
        order = np.concatenate([rank[slice(*bounds[at])] * len(runs) + turn[at] for at in mine]) if mine else np.empty(0)
        line = np.partition(order, count - 1)[count - 1] if count else -1
        for at in mine:
            low, high = bounds[at].tolist()
            chosen[at] = low + np.flatnonzero(rank[low:high] * len(runs) + turn[at] <= line)
    return chosen


def _inside(run: SeriesRun, span: Span) -> tuple[int, int]:
    first = max(MIN_TICKS - 1, span.first - run.start)
    return first, max(min(len(run.values) - 1, span.last - max(HORIZONS) - run.start), first)


class _Runs:
    """Collects series tick by tick."""

    def __init__(self) -> None:
        self.ticks = 0
        self.skipped: list[str] = []
        self._open: dict[tuple[str, str], tuple[int, float, array[float]]] = {}
        self._closed: list[SeriesRun] = []
        self._owners: dict[str, str] = {}  # by group, the last that is known
        self._held: dict[str, int] = {}  # values kept, by owner
        self._dropped = 0
        self._wanted: set[str] = set()  # groups with a class, and pools

    def add(self, at: float, series: dict[tuple[str, str], float], wanted: set[str], owners: Mapping[str, str]) -> None:
        """The values of the next tick, `at` seconds since 1970. `owners`: by group with processes."""
        self._wanted |= wanted
        self._owners.update(owners)
        for key in [key for key in self._open if key not in series]:
            self._close(key)
        for key, value in series.items():
            entry = self._open.get(key)
            if entry is None:
                entry = self._open[key] = (self.ticks, at, array("f"))
            entry[2].append(value)
            if len(entry[2]) >= MAX_RUN:
                self._close(key)
        self.ticks += 1

    def cut(self) -> None:
        """Close all series: the next tick does not follow the last."""
        for key in list(self._open):
            self._close(key)

    def finish(self) -> tuple[SeriesRun, ...]:
        """The kept series that the observer would forecast."""
        self.cut()
        busy = {
            (run.target, run.start)
            for run in self._closed
            if run.metric == "load" or run.target in self._wanted or (run.metric == "cpu" and _busy(run.values))
        }
        if self._dropped:
            self.skipped.append(f"{self._dropped} of the oldest series: more than {MAX_VALUES} values")
        return tuple(
            sorted(
                (run for run in self._closed if (run.target, run.start) in busy),
                key=lambda run: (run.start, run.target, run.metric),
            )
        )

    def _close(self, key: tuple[str, str]) -> None:
        start, at, values = self._open.pop(key)
        if len(values) <= MIN_TICKS:
            return
        owner = self._owners.get(key[0], SYSTEM)
        self._closed.append(SeriesRun(*key, start, np.frombuffer(values, dtype=np.float32), at, owner))
        self._held[owner] = self._held.get(owner, 0) + len(values)
        while sum(self._held.values()) > MAX_VALUES:
            most = max(sorted(self._held), key=lambda owner: self._held[owner])
            theirs = (at for at, run in enumerate(self._closed) if run.owner == most)
            oldest = min(theirs, key=lambda at: self._closed[at].start)
            self._held[most] -= len(self._closed.pop(oldest).values)
            self._dropped += 1


class _Owners:
    """Whose groups and workers are, found anew only when processes come, go, or change."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants
        self._identities: Mapping[ProcId, Identity] = {}
        self._members: tuple[str, ...] = ()
        self._keys: list[ProcId] = []
        self._groups: dict[str, str] = {}
        self._workers: list[str] = []

    def of_groups(self, measured: Measured, snapshot: Snapshot) -> dict[str, str]:
        """The owner of each group with processes, as in `quotas`: the user whose processes are in it besides the system's. Several
        users count as one."""
        if self._same(snapshot) and measured.members == self._members:
            return self._groups
        users: dict[str, set[str]] = {}
        for id_, row in measured.rows.items():
            users.setdefault(measured.members[row], set()).add(owner_name(snapshot.identities[id_], self._tenants))
        self._members = measured.members
        self._groups = {group: _single(found - {SYSTEM}) for group, found in users.items()}
        return self._groups

    def of_workers(self, measured: Measured, snapshot: Snapshot) -> list[str]:
        """The owner of each worker; the list may be the one of the tick before."""
        if not self._same(snapshot) or measured.worker_keys != self._keys:
            self._keys = measured.worker_keys
            self._workers = [owner_name(snapshot.identities[key], self._tenants) for key in self._keys]
        return self._workers

    def _same(self, snapshot: Snapshot) -> bool:
        """Whether all processes are as they were at the tick before."""
        if snapshot.identities is self._identities:  # so where nothing came, went, or changed, as the trace reader gives them
            return True
        self._identities, self._members, self._keys = snapshot.identities, (), []
        return False


def _single(users: Set[str]) -> str:
    if len(users) > 1:
        return "several"
    return quota_of(int(next(iter(users)))) if users else SYSTEM


def _busy(demand: NDArray[np.float32]) -> bool:
    """Whether the observer would have reported the group: its mean demand over some window was large enough."""
    size = min(WINDOW, len(demand))
    sums = np.cumsum(np.concatenate([[0.0], demand.astype(np.float64)]))
    return bool(((sums[size:] - sums[:-size]).max() / size) >= BUSY_CORES)


class _Workers:
    """Collects workers tick by tick."""

    def __init__(self) -> None:
        self.skipped: list[str] = []
        self._sessions: list[list[WorkerTick]] = []
        self._counts: list[int] = []
        self._new = True
        self._dropped = 0
        self._last = WorkerTick([], [], np.empty((0, 0)))

    def add(self, tick: WorkerTick) -> None:
        """The workers of the next tick."""
        if tick.keys == self._last.keys and tick.pools == self._last.pools:  # the same lists, for the memory's sake
            tick = replace(tick, keys=self._last.keys, pools=self._last.pools)
        self._last = tick
        if self._new or len(self._sessions[-1]) >= MAX_RUN:
            self._sessions.append([])
            self._counts.append(0)
            self._new = False
        self._sessions[-1].append(tick)
        self._counts[-1] += len(tick.keys)
        while sum(self._counts) > MAX_WORKER_TICKS and len(self._counts) > 1:
            self._dropped += len(self._sessions.pop(0))
            self._counts.pop(0)

    def cut(self) -> None:
        """Begin a new session: the next tick does not follow the last."""
        self._new = True

    def finish(self) -> WorkerTraces:
        """The kept sessions that have workers."""
        if self._dropped:
            self.skipped.append(f"the workers of the oldest {self._dropped} ticks: more than {MAX_WORKER_TICKS} worker-ticks")
        sessions = tuple(session for session, count in zip(self._sessions, self._counts, strict=True) if count)
        begins = bool(self._counts and self._counts[0]) and not self._dropped
        return WorkerTraces(sessions, begins, not self._new and self._counts[-1] > 0)
