"""Plain values of the records in a tick, for tests to vary. Must not know machine or engine."""

from __future__ import annotations

from collections.abc import Iterable

from ...models.identity import ProcId
from ...models.records import HORIZONS, QUANTILES, Class, Forecast
from ..decision import Group, Machine, Member, Outcome, Pool, Tick, Worker

GIB = 1 << 30


def a_machine(**changes: object) -> Machine:
    """Two idle CPUs and 6 of 8 GiB free; autogroup on, cgroup v1, all rights."""
    values: dict[str, object] = {
        "cpus": 2,
        "busy": 0.1,
        "memory_total": 8 * GIB,
        "memory_available": 6 * GIB,
        "pressure": None,
        "autogroup": True,
        "cpu_cgroup": "v1",
        "may_renice": True,
    }
    return Machine(**{**values, **changes})  # type: ignore[arg-type]  # tests give what it takes


def a_member(pid: int, session: int = 0, cgroup: str = "/", nice: int = 0, owner: int | None = 0) -> Member:
    """A process of root; its session is its own unless given."""
    return Member(ProcId(pid, pid), session or pid, cgroup, nice, owner=owner)


def a_group(name: str, class_: Class, members: Iterable[Member] = (), cpu: float = 0.0, wait: float = 0.0) -> Group:
    """A group with these members."""
    found = tuple(members)
    return Group(name, class_, len(found), cpu, wait, cpu + wait, len(found) << 20, found)


def a_pool(name: str = "web", size: int = 4, load: float | None = 2.0, first_pid: int = 9000, **changes: object) -> Pool:
    """A pool with `size` ready workers and a load that has been steady for a while."""
    workers = tuple(Worker(ProcId(pid, pid), True, 0.5, 0.1, 0.0, 50 << 20) for pid in range(first_pid, first_pid + size))
    values: dict[str, object] = {
        "name": name,
        "size": size,
        "requested": size,
        "minimum": 1,
        "maximum": 16,
        "busy": load,
        "queued": 0.0 if load is not None else None,
        "load": load,
        "load_stable": load,
        "load_panic": load,
        "start_seconds": 2.0,
        "cpu_per_worker": 0.1,
        "rss_per_worker": 50 << 20,
        "workers": workers,
        "trouble": "",
    }
    return Pool(**{**values, **changes})  # type: ignore[arg-type]


def a_forecast(target: str, metric: str, value: float, source: str = "demand 0123456789ab") -> Forecast:
    """The same value at every horizon and quantile."""
    return Forecast(target, metric, ((value,) * len(QUANTILES),) * len(HORIZONS), source)


def a_tick(
    seq: int,
    *,
    machine: Machine | None = None,
    groups: Iterable[Group] = (),
    pools: Iterable[Pool] = (),
    forecasts: Iterable[Forecast] = (),
    outcomes: Iterable[Outcome] = (),
    interval: float = 1.0,
    **changes: object,
) -> Tick:
    """The tick with this number, `interval` seconds after the one before."""
    at = 1_000_000_000 + round(seq * interval * 1e9)
    values: dict[str, object] = {"gap": False, "paused": False, "protected": (), "scores": ()}
    return Tick(
        seq=seq,
        at=at,
        wall=at,
        machine=machine or a_machine(),
        groups=tuple(sorted(groups, key=lambda group: group.name)),
        pools=tuple(sorted(pools, key=lambda pool: pool.name)),
        forecasts=tuple(sorted(forecasts, key=lambda forecast: (forecast.target, forecast.metric))),
        outcomes=tuple(outcomes),
        **{**values, **changes},  # type: ignore[arg-type]
    )
