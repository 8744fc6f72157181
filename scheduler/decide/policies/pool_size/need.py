"""What a pool needs at a tick, within limits and headroom: by its seasonal pattern, the reactive rule and the forecast, or by those
of them that a replay of its load chose. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from .....models.records import HORIZONS, LATER, QUANTILES, Class
from ....config.sections import Config, PoolSize
from ....decision import START_MARGIN, START_UNKNOWN, Chosen, Group, Pool, Predicted, Rules, Tick
from ..policy import Memory, Outlook, horizon_for, peak
from .objective import Sizing
from .reaction import EPSILON, PANIC_THRESHOLD, reaction, up
from .starts import Starts, are_starved

MARGIN = 1.05
"""A pool shrinks only to what would serve this multiple of the load: between load / MARGIN and load nothing changes, so load that
wobbles around a threshold causes no flapping. Measured: a tenth instead of a twentieth cost 3 % more workers than Knative's rule on
a constant load. A pool is not grown either if its seasonal pattern asks for less than this factor: the rest is chance."""

GRADUAL, SHARP = 2.0, 2.5
"""How sharply a load rises and falls (`Predicted.abrupt`): up to the first it is sized for `target`, from the second for
`predicted_target` (decision 0008). The reactive rule serves a gradual load well: with less room than that rule leaves, latency
would suffer."""

UNLIKE = 1.1
"""A constant size counts up to this multiple of the highest mean load of 60 s for which it was chosen (chosen), and up to
`PANIC_THRESHOLD` times as much over 6 s; above, the reactive rule does too."""

LASTING = 10.0
"""Longest time, in seconds, that more work than the seasonal pattern predicted must last before workers are started for it; a
worker start time if that is shorter. By then a seasonal pattern that is wrong is no longer trusted (chosen)."""


class SizeRule(StrEnum):
    """What decided a size."""

    SEASONALITY = "seasonality"
    PRESENT = "present load"  # more than the seasonal pattern predicted
    FORECAST = "forecast floor"
    REACTIVE = "reactive rule"
    PANIC = "panic"
    CONSTANT = "constant size"  # chosen by replay
    MINIMUM = "minimum"
    FEWER = "fewer sufficed"


class Bound(StrEnum):
    """A limit that a desired size met."""

    NONE = ""
    CPU = "CPU headroom"
    MEMORY = "memory headroom"
    SCALING = "scaling curve"  # the pool's own
    STARTS = "starts that wait for a CPU"
    MAXIMUM = "maximum"
    MINIMUM = "minimum"


class Fallen(Memory):
    """The load since it fell."""

    at: int  # ns of the tick at which the fall was seen
    total: float  # Erlangs, summed over the ticks since
    ticks: int

    @property
    def mean(self) -> float:
        """Erlangs."""
        return self.total / self.ticks


class PoolMemory(Memory):
    """What is remembered of one pool."""

    asked: int | None = None  # size last asked for; None: no request still stands
    seen: int | None = None  # `requested` at the last tick
    since: int | None = None  # ns since when needs are known without a gap
    peaks: list[tuple[int, int]] = msgspec.field(default_factory=list)  # (ns, workers), falling: maximum of the last `down_after`
    present: list[tuple[int, int]] = msgspec.field(default_factory=list)  # (ns, minus workers) needed in the last LASTING
    rushes: list[tuple[int, int]] = msgspec.field(default_factory=list)  # the same of what 6 s asked for, of the last CALM
    falling: Fallen | None = None  # since the load is low, which may be a lull
    fallen: Fallen | None = None  # since the load fell for good, within the last minute
    wary_until: int = 0  # ns before which no fall is followed, after one that was regretted
    unknown_since: int | None = None  # ns since when the objective is a time and service times are not known
    unkept: str = ""  # why the objective cannot be kept, for people; "": it can, or there is none
    grown_at: int | None = None
    changed_at: int | None = None
    starts: Starts = msgspec.field(default_factory=Starts)


@dataclass(frozen=True, slots=True)
class Need:
    """What a pool needs at a tick, and where each part comes from."""

    workers: int  # what to grow to
    sufficient: int  # what to shrink to at least: the need with MARGIN
    rule: SizeRule
    chosen: Chosen | None  # by replay, the rules that count; None: all
    forecast: float | None  # Erlangs at the configured quantile
    by_forecast: int | None
    by_reaction: int | None
    mean: float | None  # load that the reactive rule used, in Erlangs: of 60 s, or since it fell
    fallen: float | None  # seconds since it fell; None: the mean is of 60 s
    by_season: int | None  # None: no seasonal pattern is trusted
    ahead: int | None  # enough for the next `down_after` as the seasonal pattern predicts it, and for now
    expected: Expected
    by_cpu: int | None
    by_memory: int | None
    by_scaling: int | None  # None: no curve is certain
    by_starts: int | None  # None: no start starves
    change: int  # before limits
    bound: Bound  # which limit changed the size


@dataclass(frozen=True, slots=True)
class Expected:
    """The load of a pool when a worker that starts now is up, in Erlangs; None: not known."""

    seconds: float  # from now
    median: float | None
    upper: float | None  # at the configured quantile
    source: str  # "": not known


class Needs:
    """Computes the need of a pool."""

    def __init__(self, config: Config, sizing: Sizing) -> None:
        self._config = config.pool_size
        self._interval = config.daemon.interval
        self._sizing = sizing

    def need(self, tick: Tick, pool: Pool, memory: PoolMemory, outlook: Outlook, current: int, mean: float | None) -> Need | None:
        """What the pool needs in this tick; None if no rule that counts has what it needs: a seasonal pattern, a forecast, or a
        history of the load.

        `current`: the size last asked for. `mean`: load for the reactive rule, Erlangs.
        """
        config, fallen = self._config, memory.fallen
        chosen = next((each for each in tick.chosen if each.pool == pool.name and each.rules is not Rules.ALL), None)
        rules = Rules.ALL if chosen is None else chosen.rules
        horizon = horizon_for(None if pool.start_seconds is None else START_MARGIN * pool.start_seconds, self._interval)
        expected = self._expected(pool, horizon, outlook)
        forecast = expected.upper if rules in (Rules.ALL, Rules.FORECAST) else None
        by_forecast = None if forecast is None else self._sizing.workers_for(forecast, pool, config.predicted_target)
        reacts = reaction(
            pool, mean, lambda load: self._sizing.wanted(load, pool, config.target), MARGIN, fallen=fallen is not None
        )
        by_season = self._by_season(pool) if rules is Rules.ALL else None
        by_reaction = 0 if reacts is None else reacts.workers
        if by_season is not None:
            needed_now = kept = self._lasting(tick.at, pool, memory)
            if (pool.load or 0.0) < (pool.load_panic or 0.0) and not _gradual(pool):
                needed_now = min(needed_now, current)  # the load decreases: the present workers cope
            change, sufficient = max(by_season, needed_now), max(self._by_season(pool, MARGIN) or 0, kept)
            rule = SizeRule.SEASONALITY if by_season >= needed_now else SizeRule.PRESENT
        elif chosen is not None and rules is Rules.CONSTANT:
            unlike = (pool.load_stable, UNLIKE), (pool.load_panic, PANIC_THRESHOLD)
            beyond = any(load is not None and load > times * chosen.peak for load, times in unlike)
            needed_now, kept = (by_reaction, reacts.sufficient) if reacts is not None and beyond else (0, 0)
            change, sufficient = max(chosen.size, needed_now), max(chosen.size, kept)
            rule = SizeRule.REACTIVE if needed_now > chosen.size else SizeRule.CONSTANT
        elif reacts is None and by_forecast is None:
            return None
        else:
            needed_now, kept = by_reaction, 0 if reacts is None else reacts.sufficient
            change = max(by_forecast or 0, needed_now)
            sufficient = max(
                0 if forecast is None else self._sizing.workers_for(forecast * MARGIN, pool, config.predicted_target), kept
            )
            rule = SizeRule.FORECAST
            if reacts is not None and by_reaction >= (by_forecast or 0):
                rule = SizeRule.PANIC if reacts.panic else SizeRule.REACTIVE
        by_cpu, by_memory = self._cpu_bound(tick, pool, horizon, outlook), self._memory_bound(tick, pool)
        by_scaling = self._scaling_bound(pool)
        by_starts = current if are_starved(memory.starts, tick.at) else None
        rooms = (by_cpu, Bound.CPU), (by_memory, Bound.MEMORY), (by_scaling, Bound.SCALING), (by_starts, Bound.STARTS)
        workers, bound = _limited(change, pool, rooms, min(current, needed_now))
        sufficient, _ = _limited(sufficient, pool, rooms, min(current, kept))
        return Need(
            workers=workers,
            sufficient=max(workers, sufficient),
            rule=SizeRule.MINIMUM if bound is Bound.MINIMUM else rule,
            chosen=chosen,
            forecast=forecast,
            by_forecast=by_forecast,
            by_reaction=None if reacts is None else by_reaction,
            mean=mean,
            fallen=None if fallen is None else (tick.at - fallen.at) / 1e9,
            by_season=by_season,
            ahead=None if by_season is None else max(workers, sufficient, self._ahead(pool)),
            expected=expected,
            by_cpu=by_cpu,
            by_memory=by_memory,
            by_scaling=by_scaling,
            by_starts=by_starts,
            change=change,
            bound=bound,
        )

    def _expected(self, pool: Pool, horizon: int, outlook: Outlook) -> Expected:
        """The forecast at index `horizon` of HORIZONS, or a later one where workers take longer to start than that reaches."""
        if pool.later is not None:
            seconds = START_MARGIN * (pool.start_seconds or 0.0)
            ahead = next((i for i, ticks in enumerate(LATER) if ticks * self._interval >= seconds), len(LATER) - 1)
            values = pool.later.values[ahead]
            median, upper = (max(values[QUANTILES.index(level)], 0.0) for level in (0.5, self._config.quantile))
            if math.isfinite(median + upper):
                return Expected(LATER[ahead] * self._interval, median, upper, pool.later.source)
        median_, upper_ = (outlook.value(pool.name, "load", horizon, level) for level in (0.5, self._config.quantile))
        return Expected(HORIZONS[horizon] * self._interval, median_, upper_, outlook.source(pool.name, "load"))

    def _by_season(self, pool: Pool, margin: float = 1.0) -> int | None:
        """Workers for `margin` times the predicted load until a worker that starts now is up; None: no seasonal pattern is
        trusted."""
        predicted = pool.predicted
        if predicted is None or not predicted.trusted:
            return None
        if not math.isfinite(predicted.median + predicted.high + predicted.later + predicted.least):
            return None
        median, high = (min(max(load, 0.0), pool.maximum) * margin for load in (predicted.median, predicted.high))
        return max(self._sizing.workers_for(median, pool, busy_share(self._config, predicted)), min(round(high), pool.maximum))

    def _ahead(self, pool: Pool) -> int:
        """Enough for the next `down_after` as the seasonal pattern predicts it, and for the load now or of the last 6 s, the
        smaller."""
        low = min(pool.load or 0.0, pool.load_panic or 0.0)
        recent = self._sizing.wanted(low / PANIC_THRESHOLD, pool, self._config.target)
        predicted = pool.predicted
        later = (
            0
            if predicted is None
            else self._sizing.workers_for(max(predicted.later, 0.0), pool, busy_share(self._config, predicted))
        )
        return min(max(later, recent), pool.maximum)

    def _lasting(self, at: int, pool: Pool, memory: PoolMemory) -> int:
        """Workers that were needed for a whole worker start time: none need be started for work that is over by then."""
        lasting = 0.0 if _gradual(pool) else min(START_UNKNOWN if pool.start_seconds is None else pool.start_seconds, LASTING)
        return -peak(memory.present, at, -self._present(pool), lasting)

    def _present(self, pool: Pool) -> int:
        """Busy workers, or as many as keep waiting work below a panic of the reactive rule, whichever is more. Over some ticks: one
        alone may be chance."""
        load = pool.load or 0.0
        recent = load if pool.load_panic is None else min(load, pool.load_panic)
        busy = recent if pool.busy is None else min(pool.busy, recent)
        return max(up(busy), self._sizing.wanted(recent / PANIC_THRESHOLD, pool, self._config.target))

    def _cpu_bound(self, tick: Tick, pool: Pool, horizon: int, outlook: Outlook) -> int | None:
        """Workers that fill the pool's share of the CPU headroom, including the one that crosses the line: without it a pool of
        CPU-bound workers could never use the last part of the machine. None: workers take no CPU worth counting.

        The share is max-min fair, as the kernel deals it out: a group that wants less than an equal part gets what it wants, and
        the others divide the rest. So on a machine that others keep busy the pool may still grow into its part.

        Everything else = the median demand forecast of each other group (its demand now if there is no forecast), and what runs
        outside of the listed groups. Batch groups do not count unless they are pools: batch work stretches to whatever is left, so
        its demand says nothing about headroom, and the scheduler shares with it or demotes it.
        """
        if pool.cpu_per_worker <= 0:
            return None
        pools = {other.name for other in tick.pools}
        unlisted = max(0.0, tick.machine.busy - sum(group.cpu for group in tick.groups))
        others = [
            _demand(group, horizon, outlook)
            for group in tick.groups
            if group.name != pool.name and (group.class_ is not Class.BATCH or group.name in pools)
        ]
        share = fair_share(self._config.cpu_headroom * tick.machine.cpus - unlisted, others)
        return max(0, math.ceil(min(share / pool.cpu_per_worker, pool.maximum) - EPSILON))

    def _memory_bound(self, tick: Tick, pool: Pool) -> int | None:
        """Workers that fit under the memory headroom, the present ones included; None: their size is not known."""
        if pool.rss_per_worker <= 0:
            return None
        machine = tick.machine
        free = self._config.memory_headroom * machine.memory_total - (machine.memory_total - machine.memory_available)
        return max(0, pool.size + math.floor(free / pool.rss_per_worker))

    @staticmethod
    def _scaling_bound(pool: Pool) -> int | None:
        """Workers worth having by the pool's own scaling curve. It shows what headroom cannot see: a CPU quota of the cgroup, CPUs
        that the pool may not use, a lock that its workers share."""
        scaling = pool.scaling
        return None if scaling is None or not scaling.certain or scaling.worth is None else max(scaling.worth, 1)


def busy_share(config: PoolSize, predicted: Predicted) -> float:
    """Busy share of a worker to aim at with this seasonal pattern."""
    sharp = min(max((predicted.abrupt - GRADUAL) / (SHARP - GRADUAL), 0.0), 1.0)
    return config.target + sharp * (config.predicted_target - config.target)


def fair_share(capacity: float, others: Sequence[float]) -> float:
    """What is left of `capacity` for one more that wants all it can get, shared max-min fairly with these demands.

    >>> fair_share(2.0, [0.25, 0.25]), fair_share(2.0, [5.0, 0.5]), fair_share(-1.0, [])
    (1.5, 0.75, 0.0)
    """
    left, takers = max(capacity, 0.0), len(others) + 1
    for demand in sorted(others):
        if demand > left / takers:
            break
        left -= demand
        takers -= 1
    return left / takers


def _gradual(pool: Pool) -> bool:
    """Whether the predicted load changes so gradually that the reactive rule, with its room, would serve it well."""
    return pool.predicted is not None and pool.predicted.abrupt < SHARP


def _limited(change: int, pool: Pool, rooms: Sequence[tuple[int | None, Bound]], kept: int) -> tuple[int, Bound]:
    """(`change` within all limits, the limit that changed it). `rooms` stop at `kept`; configured limits always hold."""
    size, bound = change, Bound.NONE
    for room, name in rooms:
        if room is not None and size > max(room, kept):
            size, bound = max(room, kept), name
    if size > pool.maximum:
        size, bound = pool.maximum, Bound.MAXIMUM
    if size < pool.minimum:
        size, bound = pool.minimum, Bound.MINIMUM
    return size, bound


def _demand(group: Group, horizon: int, outlook: Outlook) -> float:
    expected = outlook.value(group.name, "cpu", horizon, 0.5)
    return group.demand if expected is None else expected
