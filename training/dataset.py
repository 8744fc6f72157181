"""Traces become what models learn from: series of demand, ticks of workers, and what groups whose class the configuration says did.
Knows traces and the observer, no model.

Values come from `scheduler.observer.Measurer`, which the runtime uses too. A series is cut where its group went away and at every
gap, so no window reaches across a hole. Time is counted in ticks over all sessions, in the order they were recorded.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..models.artifact import DataRange
from ..models.demand import MIN_TICKS
from ..models.features import Floats
from ..models.records import HORIZONS, WINDOW, Snapshot
from ..scheduler.config import Config
from ..scheduler.observer import BUSY_CORES, Measurer
from ..scheduler.store.traces import Recording
from .anomaly_cases import WorkerTick
from .anomaly_fit import WorkerTraces
from .behaviour_fit import Sighted, Sightings

MAX_VALUES = 40_000_000
"""Values of demand series kept, 160 MB; beyond it the oldest series go. A day at 1 Hz of 40 groups has 7 million."""

MAX_WORKER_TICKS = 2_000_000
"""Worker-ticks kept, about 390 MB at the 193 bytes measured; beyond it the oldest sessions go. A day at 1 Hz of 20 workers has 1.7
million."""

MAX_RUN = 86_400
"""Ticks after which a series is cut, so that the oldest part of an endless one can go."""


class DatasetError(Exception):
    """The traces do not make a data set. The message says why and what to do next."""


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive values of one series."""

    target: str
    metric: str
    start: int  # tick of the first value
    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Dataset:
    """What was read. `runs` are sorted by start, target and metric."""

    interval: float  # seconds a tick
    ticks: int
    runs: tuple[Run, ...]
    workers: WorkerTraces
    data: DataRange
    skipped: tuple[str, ...]  # what was left out, a sentence each
    sighted: Sighted = field(default_factory=Sighted)  # of groups with a class in the configuration


@dataclass(frozen=True, slots=True)
class Samples:
    """Windows that end at some origins, and what came after."""

    windows: Floats  # [n, WINDOW]
    lengths: NDArray[np.int64]  # [n]
    targets: Floats  # [n, len(HORIZONS)]; NaN: the series had ended
    metrics: tuple[str, ...]  # [n]


@dataclass(frozen=True, slots=True)
class Span:
    """Ticks from `first` up to, not including, `last`: origins lie in it, and so does what they are compared with."""

    first: int
    last: int


def split(ticks: int) -> tuple[Span, Span, Span]:
    """Time to fit on, to calibrate on, and held out: 60, 20 and 20 %, but at least `LEAST_SPAN` ticks for the latter two.

    No target of one lies in the next, so the longest horizon is the gap between the origins of two. Raises DatasetError if the time
    is too short for that.
    """
    part = max(ticks // 5, LEAST_SPAN)
    if ticks < LEAST_TICKS:
        raise DatasetError(f"{ticks} ticks are too few to fit, calibrate and test on; at least {LEAST_TICKS} are needed")
    first, second = ticks - 2 * part, ticks - part
    return Span(0, first), Span(first, second), Span(second, ticks)


LEAST_SPAN = max(HORIZONS) + 20
"""Least ticks to calibrate and to test on: 20 origins of the longest horizon."""

LEAST_TICKS = 2 * LEAST_SPAN + MIN_TICKS + max(HORIZONS) + 40
"""Least ticks of traces: besides, 40 origins of the longest horizon to fit on."""


def build(
    traces: Iterable[tuple[Recording, Snapshot]], config: Config, progress: Callable[[Snapshot], None] = lambda _: None
) -> Dataset:
    """Read all traces. Memory is bounded by `MAX_VALUES` and `MAX_WORKER_TICKS`. Raises DatasetError if they hold nothing usable.

    Only sessions recorded at the configuration's interval are used: a model counts in ticks. `progress` is told every snapshot.
    """
    interval = config.daemon.interval
    builder, workers, sightings = _Runs(), _Workers(), Sightings(interval)
    others: dict[float, int] = {}
    session, measurer = "", Measurer(config, interval)
    first_wall = last_wall = processes = 0
    for recording, snapshot in traces:
        progress(snapshot)
        if recording.interval != interval:
            others[recording.interval] = others.get(recording.interval, 0) + 1
            continue
        if recording.id != session:
            session, measurer = recording.id, Measurer(config, interval)
            builder.cut()
            workers.cut()
            sightings.cut()
        first_wall, last_wall = first_wall or snapshot.wall, snapshot.wall
        processes = max(processes, len(snapshot.table))
        measured = measurer.measure(snapshot)
        if measured is None:
            builder.cut()
            workers.cut()
            continue
        pools = {pool.pool for pool in snapshot.pools}
        classed = {name: latency for name in measured.groups if (latency := measurer.pinned(name)) is not None}
        sightings.add(builder.ticks, measured.groups, measured.behaviour, classed)
        builder.add(measured.series, {name for name in measured.groups if name in pools or name in classed})
        workers.add(WorkerTick(measured.worker_keys, measured.worker_pools, measured.workers))
    skipped = [
        f"{count} ticks recorded at {every:g} s a tick: the configuration has daemon.interval = {interval:g}"
        for every, count in sorted(others.items())
    ]
    if not builder.ticks:
        raise DatasetError(
            "; ".join(skipped) + f"; set daemon.interval to that, or record at {interval:g} s"
            if skipped
            else "the traces hold no two consecutive snapshots; record some: nicety record"
        )
    runs, ready = builder.finish(), workers.finish()
    skipped += builder.skipped + workers.skipped
    digest = hashlib.sha256()
    for run in runs:
        digest.update(f"{run.target}\0{run.metric}\0{run.start}\0{len(run.values)}\0".encode())
        digest.update(run.values.tobytes())
    groups = len({run.target for run in runs})
    data = DataRange(first_wall, last_wall, builder.ticks, processes, groups, digest.hexdigest())
    return Dataset(interval, builder.ticks, runs, ready, data, tuple(skipped), sightings.finish())


def sample(dataset: Dataset, span: Span, most: int, seed: int) -> Samples:
    """At most `most` origins of the span, drawn evenly from all series and ticks in it; all of them where there are no more."""
    origins = [(run, np.arange(*_origins(run, span))) for run in dataset.runs]
    origins = [(run, inside) for run, inside in origins if len(inside)]
    total = sum(len(inside) for _, inside in origins)
    chosen = np.arange(total)
    if total > most:
        chosen = np.sort(np.random.default_rng(seed).choice(total, most, replace=False))
    windows, lengths, targets = [np.empty((0, WINDOW))], [np.empty(0, dtype=np.int64)], [np.empty((0, len(HORIZONS)))]
    metrics: list[str] = []
    offset = 0
    for run, inside in origins:
        low, high = np.searchsorted(chosen, (offset, offset + len(inside)))
        mine = inside[chosen[low:high] - offset]
        offset += len(inside)
        if len(mine):
            windows.append(_windows(run.values, mine))
            lengths.append(np.minimum(mine + 1, WINDOW))
            targets.append(_targets(run, mine, span))
            metrics += [run.metric] * len(mine)
    return Samples(np.concatenate(windows), np.concatenate(lengths), np.concatenate(targets), tuple(metrics))


def _origins(run: Run, span: Span) -> tuple[int, int]:
    """Places in the run, from and up to, whose window is long enough and whose targets lie in the span."""
    first = max(MIN_TICKS - 1, span.first - run.start)
    return first, max(min(len(run.values) - 1, span.last - max(HORIZONS) - run.start), first)


def _windows(values: NDArray[np.float32], origins: NDArray[np.int64]) -> Floats:
    places = origins[:, None] - np.arange(WINDOW - 1, -1, -1)
    return np.asarray(np.where(places >= 0, values[np.maximum(places, 0)].astype(np.float64), np.nan))


def _targets(run: Run, origins: NDArray[np.int64], span: Span) -> Floats:
    places = origins[:, None] + np.asarray(HORIZONS)
    end = min(len(run.values), span.last - run.start)
    return np.asarray(np.where(places < end, run.values[np.minimum(places, end - 1)].astype(np.float64), np.nan))


class _Runs:
    """Collects series tick by tick."""

    def __init__(self) -> None:
        self.ticks = 0
        self.skipped: list[str] = []
        self._open: dict[tuple[str, str], tuple[int, array[float]]] = {}
        self._closed: list[Run] = []
        self._kept = 0
        self._dropped = 0
        self._wanted: set[str] = set()  # groups with a class, and pools

    def add(self, series: dict[tuple[str, str], float], wanted: set[str]) -> None:
        """The values of the next tick."""
        self._wanted |= wanted
        for key in [key for key in self._open if key not in series]:
            self._close(key)
        for key, value in series.items():
            entry = self._open.get(key)
            if entry is None:
                entry = self._open[key] = (self.ticks, array("f"))
            entry[1].append(value)
            if len(entry[1]) >= MAX_RUN:
                self._close(key)
        self.ticks += 1

    def cut(self) -> None:
        """What comes next does not follow what was before."""
        for key in list(self._open):
            self._close(key)

    def finish(self) -> tuple[Run, ...]:
        """All that was kept: the series that the observer would forecast."""
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
        start, values = self._open.pop(key)
        if len(values) <= MIN_TICKS:
            return
        self._closed.append(Run(*key, start, np.frombuffer(values, dtype=np.float32)))
        self._kept += len(values)
        while self._kept > MAX_VALUES:
            oldest = min(range(len(self._closed)), key=lambda i: self._closed[i].start)
            self._kept -= len(self._closed.pop(oldest).values)
            self._dropped += 1


def _busy(demand: NDArray[np.float32]) -> bool:
    """The observer would have reported the group: its mean demand over a window was large enough."""
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

    def add(self, tick: WorkerTick) -> None:
        """The workers of the next tick."""
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
        """What comes next does not follow what was before."""
        self._new = True

    def finish(self) -> WorkerTraces:
        """All that was kept and has workers."""
        if self._dropped:
            self.skipped.append(f"the workers of the oldest {self._dropped} ticks: more than {MAX_WORKER_TICKS} worker-ticks")
        return WorkerTraces(tuple(session for session, count in zip(self._sessions, self._counts, strict=True) if count))


def blocks(n: int, size: int = 4096) -> Iterator[slice]:
    """Slices that cover n rows, so that rows made from windows never need all their memory at once."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
