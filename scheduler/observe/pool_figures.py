"""The pools of each tick: what their workers did, what their load was, and what is predicted of it. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from ...models.forecast.seasonality import AHEAD, Seasonality
from ...models.records import PoolSample, Snapshot
from ..config.sections import Config
from ..decision import START_MARGIN, START_UNKNOWN, Later, Pool, Predicted, Worker
from .group_figures import DECIMALS
from .loads import Offered, offered_load, reports_busy
from .measure import Measured, cpus_of
from .pool_history import PoolHistory
from .requests import PoolRequests, Requests


class PoolFigures:
    """Keeps a history of each pool."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._histories: dict[str, PoolHistory] = {}

    def step(self, snapshot: Snapshot, measured: Measured, later: Mapping[str, Later]) -> tuple[Pool, ...]:
        """Take a tick. Returns its pools, by name. `later`: loads further ahead, of those that need them."""
        pools = sorted(snapshot.pools, key=lambda pool: pool.pool)
        return tuple(self._step_pool(pool, snapshot, measured, later.get(pool.pool)) for pool in pools)

    def step_gap(self) -> None:
        """Take a tick after a gap, of which nothing is known."""
        for history in self._histories.values():
            history.step_gap()

    def start_warm(self, past: Sequence[tuple[int, tuple[PoolSample, ...]]], requests: PoolRequests) -> None:
        """Replay past loads, (monotonic ns, pools), oldest first, before the first tick. `requests` learns from them too."""
        for at, pools in past:
            known = requests.step(pools)
            for pool in pools:
                if pool.pool in self._config.pools:
                    self._step_seasonality(pool, offered_load(pool, known[pool.pool].capacity), at)

    def follow(self, before: PoolFigures, redefined: Collection[str]) -> None:
        """Take over the state of another one with the same interval, except for the pools that are redefined."""
        self._histories = before._histories
        for name in redefined:
            self._histories.pop(name, None)

    def _step_pool(self, pool: PoolSample, snapshot: Snapshot, measured: Measured, later: Later | None) -> Pool:
        limits, history = self._config.pools[pool.pool], self._history(pool.pool)
        requests = measured.requests[pool.pool]
        offered = offered_load(pool, requests.capacity)
        load = None if offered is None else offered.load
        workers, sums = _workers(pool, snapshot, measured)
        busy = sums.busy if pool.flights is None or offered is None else offered.busy
        stable, panic = history.step_load(snapshot.at, load)
        return Pool(
            name=pool.pool,
            size=pool.size,
            requested=pool.requested,
            minimum=limits.minimum,
            maximum=limits.maximum,
            busy=busy if load is not None else None,
            queued=_queued(pool, requests),
            load=load,
            load_stable=stable,
            load_panic=panic,
            start_seconds=pool.start_seconds,
            cpu_per_worker=history.step_cores(sums.ran, sums.waited, busy, cpus_of(snapshot)),
            rss_per_worker=max((worker.rss for worker in workers), default=0),
            workers=workers,
            trouble=pool.trouble,
            predicted=self._predicted(pool, self._step_seasonality(pool, offered, snapshot.at)),
            scaling=history.step_scaling(sums.at_work, None if load is None or not reports_busy(pool) else sums.done),
            service=requests.service,
            capacity=requests.capacity,
            later=later,
        )

    def _history(self, name: str) -> PoolHistory:
        known = self._histories.get(name)
        if known is None:
            known = self._histories[name] = PoolHistory(self._config.daemon.interval, len(self._histories))
        return known

    def _step_seasonality(self, pool: PoolSample, offered: Offered | None, at: int) -> Seasonality:
        """Update the seasonal pattern of a pool's load with its present value."""
        return self._history(pool.pool).step_seasonality(at, offered, self._config.pools[pool.pool].maximum)

    def _predicted(self, pool: PoolSample, seasonality: Seasonality) -> Predicted | None:
        """What the seasonal pattern of the load forecasts for the coming start time."""
        interval, sizing = self._config.daemon.interval, self._config.pool_size
        horizon = START_MARGIN * (START_UNKNOWN if pool.start_seconds is None else pool.start_seconds)
        ahead = seasonality.ahead(math.ceil(min(horizon / interval, AHEAD)) + 1)
        later = seasonality.ahead(math.ceil(min(max(horizon, sizing.down_after) / interval, AHEAD)) + 1)
        soon = seasonality.ahead(math.ceil(min(sizing.cooldown_down / interval, AHEAD)))
        if ahead is None or later is None or soon is None:
            return None
        return Predicted(
            period=ahead.period * interval,
            seen=ahead.seen,
            right=ahead.right,
            trusted=ahead.trusted,
            abrupt=ahead.abrupt,
            horizon=horizon,
            median=ahead.median,
            high=ahead.high,
            later=later.most,
            least=soon.least,
            now=ahead.now,
        )


def _queued(pool: PoolSample, requests: Requests) -> float | None:
    """Work that waits: in the accept queue, and in workers that certainly hold more than they serve at once."""
    if pool.flights is None or not requests.certain:
        return pool.queued
    served = requests.capacity * sum(worker.ready for worker in pool.workers)
    return (pool.queued or 0.0) + max(pool.flights.held - served, 0.0)


class _Sums(NamedTuple):
    """Sums over the workers of a pool that are ready."""

    ran: float  # cores
    waited: float  # cores' worth of waiting for a CPU
    busy: float  # workers
    at_work: float  # workers, of those that report whether they are busy
    done: float  # cores, of the same


def _workers(pool: PoolSample, snapshot: Snapshot, measured: Measured) -> tuple[tuple[Worker, ...], _Sums]:
    """The workers that were measured, and what they did together."""
    workers, ran, waited, busy, at_work, done = [], 0.0, 0.0, 0.0, 0.0, 0.0
    for worker in pool.workers:
        row = measured.rows.get(worker.id)
        if row is None:
            continue
        cpu, wait = float(measured.rates.cpu[row]), float(measured.rates.wait[row])
        rss = int(snapshot.table[row]["rss_bytes"])
        workers.append(Worker(worker.id, worker.ready, worker.busy, round(cpu, DECIMALS), round(wait, DECIMALS), rss))
        if worker.ready:
            ran, waited, busy = ran + cpu, waited + wait, busy + (worker.busy or 0.0)
            if worker.busy is not None:
                at_work, done = at_work + worker.busy, done + cpu
    return tuple(workers), _Sums(ran, waited, busy, at_work, done)
