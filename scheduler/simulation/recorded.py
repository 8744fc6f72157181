"""Reads a pool that nicety recorded: the newest part of a trace store, on evenly spaced ticks, to make a load from."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np

from ...models.identity import ProcId
from ...models.queueing import Times
from ...models.records import PoolSample
from ..observe.loads import offered_load
from ..observe.requests import RequestHistory, Requests
from ..store.traces import PoolsTick, newest_pools
from .arrivals import LoadError, Recorded

HOLE = 60.0
"""Longest gap between ticks, in seconds, that is filled from the ticks around it; longer gaps are left out. Chosen."""


def read(traces: Path, name: str | None, seconds: float) -> Recorded:
    """The newest `seconds` of a pool, or as much as exists; `name` may be None if there is only one pool.

    `traces`: a trace file, or a state directory. Raises LoadError, and TraceError if it is neither.
    """
    if not traces.exists():
        raise LoadError(
            f"{traces}: nothing is recorded there; record with `nicety record` or `nicety run`, or give the path as TRACE"
        )
    pieces: list[list[PoolsTick]] = []
    names, found = set[str](), 0.0
    for piece in newest_pools(traces):
        names.update(sample.pool for tick in piece for sample in tick.pools)
        if name is None and len(names) == 1:
            (name,) = names
        pieces.append(piece)
        found += sum(tick.recording.interval for tick in piece if any(sample.pool == name for sample in tick.pools))
        if found >= seconds:
            break
    there = ", ".join(sorted(names))
    if not names:
        raise LoadError(f"{traces}: no pool was recorded; add your pools to the configuration ([pools.NAME]) and record again")
    if name is None:
        raise LoadError(f"{traces}: more than one pool was recorded; choose one with --pool: {there}")
    if name not in names:
        raise LoadError(f'{traces}: no pool "{name}" was recorded; there are: {there}')
    return _laid_out(list(chain.from_iterable(reversed(pieces))), name, seconds)


def _laid_out(ticks: Iterable[PoolsTick], name: str, seconds: float) -> Recorded:
    busy, queued, sizes, born = list[float](), list[float](), list[float](), list[float]()
    before: PoolsTick | None = None
    requests: RequestHistory | None = None
    known, start_seconds = set[ProcId](), None
    found: Requests | None = None
    step = position = holes = 0.0
    for tick in ticks:
        sample = next((sample for sample in tick.pools if sample.pool == name), None)
        if sample is None:
            continue
        step = step or tick.recording.interval
        requests = requests or RequestHistory(step)
        found = requests.step(sample)
        offered = offered_load(sample, found.capacity)
        if offered is None and not busy:
            continue
        passed = step if before is None else _passed(before, tick)
        if passed <= 0:
            continue
        watched = before is not None and passed <= HOLE
        if passed > HOLE:
            holes, passed = holes + passed - step, step
        before, position = tick, position + passed
        times = round(position / step) - len(busy)
        busy += [busy[-1] if offered is None else offered.busy] * times
        queued += [(sample.queued or 0.0) if offered is None else offered.waiting] * times
        sizes += [float(sample.size)] * times
        present = {worker.id for worker in sample.workers}
        born += [position] * (len(present - known) if watched else 0)
        known |= present
        start_seconds = _newer(sample, start_seconds)
    if not busy:
        raise LoadError(
            f"{name}: the recording does not show whether its workers were busy; see `nicety doctor`, then record again"
        )
    if max(busy) <= 0:
        raise LoadError(f"{name}: no worker was ever seen busy; record it while it has work to do")
    skipped = max(len(busy) - round(seconds / step), 0)
    begin = skipped * step
    return Recorded(
        name=name,
        step=step,
        busy=np.array(busy[skipped:]),
        queued=np.array(queued[skipped:]),
        sizes=np.array(sizes[skipped:]),
        born=np.array([at - begin for at in born if at > begin]),
        start_seconds=start_seconds,
        holes=holes,
        times=None if found is None or found.service is None else Times.fitted(found.service.mean, found.service.p95),
        capacity=1.0 if found is None else found.capacity,
    )


def _passed(before: PoolsTick, tick: PoolsTick) -> float:
    """Seconds between two ticks; by the wall clock if the machine was restarted between them."""
    if before.recording.boot_id == tick.recording.boot_id:
        return (tick.at - before.at) / 1e9
    return (tick.wall - before.wall) / 1e9


def _newer(sample: PoolSample, known: float | None) -> float | None:
    return known if sample.start_seconds is None else sample.start_seconds
