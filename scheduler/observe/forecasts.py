"""Forecasts of the groups and pools of each tick. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Container, Sequence

import numpy as np

from ...models.forecast.answers import TrainedModel
from ...models.forecast.demand import METRICS, Forecaster
from ...models.forecast.kept import Kept
from ...models.forecast.memory import SOURCES
from ...models.forecast.rounding import rounded
from ...models.records import Forecast, Snapshot
from ..decision import Later
from .measure import Measured, cpus_of


class _Series:
    """The series that are forecast, as long as groups, pools and the machine are the same."""

    def __init__(
        self,
        names: tuple[tuple[str, str], ...],
        reported: Sequence[str],
        spoken: Container[str],
        memory: float,
        cpus: float,
        keys: Sequence[tuple[str, str]] = (),
    ) -> None:
        """`names`: all that are measured. `reported`: groups of the tick. `spoken`: metrics that the model forecasts. `memory`,
        `cpus`: of the machine, the limits of the forecasts. `keys`: those of `names` that are followed, sorted."""
        self.names, self.reported, self.memory, self.cpus, self.keys = names, reported, memory, cpus, keys
        limits, wanted = {"rss": memory, "cpu": cpus}, set(reported)
        self.metrics = np.array([METRICS.index(metric) for _, metric in keys], dtype=np.int64)
        self.loads = self.metrics == METRICS.index("load")
        self.ask = np.array([metric in spoken for _, metric in keys], dtype=np.bool_)
        self.most = np.array([limits.get(metric, math.inf) for _, metric in keys])
        places = [which for which, (target, metric) in enumerate(keys) if target in wanted or metric == "load"]
        self.places = np.array(places, dtype=np.int64)
        self.shown = [keys[which] for which in places]


class Forecasts:
    """Follows the series of groups from their first report on, so that they have a history when they are reported again."""

    def __init__(self, demand: TrainedModel | None, interval: float) -> None:
        """`demand`: None leaves all forecasts to the baseline."""
        self._demand = demand
        self._forecaster = Forecaster(demand, interval)
        self._followed = set[str]()  # groups that were reported once and still exist
        self._series = _Series((), (), frozenset(), 0.0, 0.0)
        self._spoken = frozenset[str]() if demand is None else demand.speaks

    @property
    def trouble(self) -> str:
        """Why the demand model could not be used at the last step, so that the baseline forecast; "" if it could."""
        return self._forecaster.trouble

    @property
    def changes(self) -> tuple[str, ...]:
        """What the demand model is no longer used for since the last step, or used for again: one sentence each."""
        return tuple(change.reason for change in self._forecaster.changes)

    def step(self, measured: Measured, reported: Sequence[str], snapshot: Snapshot) -> tuple[Forecast, ...]:
        """Take the values of a tick. Returns forecasts of the groups that the tick reports, and of the loads of pools."""
        names, memory, cpus = tuple(measured.series), float(snapshot.host.memory_total), cpus_of(snapshot)
        series = self._series
        if names != series.names or reported != series.reported or (memory, cpus) != (series.memory, series.cpus):
            wanted = set(reported)
            self._followed = {name for name in self._followed | wanted if (name, "cpu") in measured.series}
            keys = sorted(key for key in names if key[0] in self._followed or key[1] == "load")
            series = self._series = _Series(names, reported, self._spoken, memory, cpus, keys)
        values = np.array([measured.series[key] for key in series.keys])
        exact = self._forecaster.step(series.keys, values, snapshot.wall / 1e9, series.metrics, series.ask, series.most)
        said = exact.rounded(series.loads, series.most)
        return tuple(
            Forecast(target, metric, values, source)
            for (target, metric), (values, source) in zip(series.shown, said.some(series.places), strict=True)
        )

    def later(self, pools: Sequence[str]) -> dict[str, Later]:
        """The loads of these pools further ahead, after the last step; those that are known."""
        places = {target: place for place, (target, metric) in enumerate(self._series.keys) if metric == "load" and target in pools}
        if not places:
            return {}
        made = self._forecaster.later(np.array(list(places.values())))
        values = rounded(made.values, np.ones(len(places), dtype=np.bool_)).tolist()
        return {
            pool: Later(tuple(map(tuple, own)), SOURCES[by]) for pool, own, by in zip(places, values, made.by.tolist(), strict=True)
        }

    def kept(self) -> Kept:
        """What was learned of all series, for `remember`."""
        return self._forecaster.kept()

    def remember(self, kept: Kept) -> None:
        """Have groups and pools go on from `kept` when they are first reported."""
        self._forecaster.remember(kept)

    def follow(self, before: Forecasts, names: Collection[str]) -> None:
        """Take over the state of another one with the same interval, except for these groups and pools. What is known of a model is
        kept only if the model is the same."""
        ours, theirs = self._demand, before._demand
        if (ours is None) != (theirs is None):
            return
        self._followed, self._series = before._followed - set(names), _Series((), (), frozenset(), 0.0, 0.0)
        self._forecaster = before._forecaster
        self._forecaster.forget(keys_of(names))
        if ours is not None and theirs is not None and ours.digest != theirs.digest:
            self._forecaster.hear(ours)


def keys_of(names: Collection[str]) -> list[tuple[str, str]]:
    """The keys of the series of groups and pools with these names."""
    return [(name, metric) for name in sorted(names) for metric in METRICS]
