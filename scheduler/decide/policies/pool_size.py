"""Sizes pools: by the load's rhythm, else by a reactive rule with a forecast as its floor, within limits and headroom.
Pure: knows no adapter and no model.

- Rhythm, where the load has one that is trusted (`models/forecast/rhythm.py`): enough for what earlier periods did from now until
  1.2 worker start times ahead, and for what is busy and queued now. If a fall was predicted and came, nothing is kept of what the
  reactive rule holds after a fall. As soon as the load deviates, the rhythm is not trusted and the other two decide.
- Reactive rule: Knative's autoscaler, see `reaction.py`. KPA holds the peak of a panic for 60 s and starts in one; here
  `down_after` does that job. When the load fell to less than half for good, its mean begins anew there: else a spike that is over
  would be paid for a minute longer.
- Forecast floor: the forecast 1.2 worker start times ahead, by default its median. Upper quantiles would always cost workers for
  what a rhythm or a panic supplies when it is needed: see docs/decisions/0008.
- Headroom bounds growth, and takes away what only a forecast asked for; it never takes workers that are needed now. The pool's
  scaling curve (`models/scaling.py`) does the same where it is certain: workers that would add nothing are not started.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from ....models.records import HORIZONS, Latency
from ....models.scaling import WORTH
from ...config.sections import Config
from ...decision import (
    START_MARGIN,
    START_UNKNOWN,
    Control,
    Decision,
    Group,
    Note,
    Pool,
    Predicted,
    ResizePool,
    Scaled,
    Tick,
    Why,
)
from ...scope import policy
from .policy import Aim, Gone, Impact, Memory, Metric, Outlook, Proposal, Result, Standing, figures, horizon_for, peak
from .reaction import EPSILON, PANIC_THRESHOLD, reaction, up

MARGIN = 1.05
"""A pool shrinks only to what would serve this multiple of the load: between load / MARGIN and load nothing changes, so load that
wobbles around a threshold causes no flapping. A twentieth: a tenth cost 3 % more workers than Knative's rule on a constant load. A
rhythm that asks for less than that more does not grow a pool either: so little is chance in the prediction."""

GRADUAL, SHARP = 2.0, 2.5
"""How sharply a load rises and falls (`Predicted.abrupt`): up to the first it is sized for `target`, from the second for
`predicted_target`. The reactive rule serves a gradual load well: with less room than that rule leaves, latency would suffer."""

STABLE = 60.0
"""Seconds of `Pool.load_stable`."""

CALM, SMALL = 60.0, 4
"""A pool shrinks to this many workers or fewer only if no 6 s window within this many seconds would have been a panic there. Few
workers have no room: two requests at once are a panic of one. Without this hold, which is as long as Knative's for all sizes, a
pool with half an Erlang grew and shrank every 15 s."""

CLIFF = 0.75
"""A predicted fall to this share of the workers or less is followed as soon as it has come: `down_after` then looks ahead instead
of back. A smaller shrink waits while such a fall is near."""

LASTING = 10.0
"""Longest time, in seconds, that more work than the rhythm predicted must last before workers are started for it; a worker start
time if that is shorter. By then the rhythm, if it is wrong, is not trusted any more."""

FALL, PATIENCE = 0.5, 2.5
"""The load has fallen if its 6 s mean is below this share of its 60 s mean and stays so for this many worker start times (at least
`down_after`). The longer workers take to come back, the longer they are kept; a pool whose patience is more than half of STABLE
waits until the mean itself has fallen."""

WARY = 600.0
"""For this many seconds after a fall that was regretted, none is followed at once: regretted means a panic within STABLE of it."""


class SizeRule(StrEnum):
    """What decided a size."""

    RHYTHM = "rhythm"
    PRESENT = "present load"  # more than the rhythm predicted
    FORECAST = "forecast floor"
    REACTIVE = "reactive rule"
    PANIC = "panic"
    MINIMUM = "minimum"
    FEWER = "fewer sufficed"


class Bound(StrEnum):
    """A limit that a wish met."""

    NONE = ""
    CPU = "CPU headroom"
    MEMORY = "memory headroom"
    SCALING = "scaling curve"  # the pool's own
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
    grown_at: int | None = None
    changed_at: int | None = None


class PoolSizeMemory(Memory):
    """What the policy remembers."""

    pools: dict[str, PoolMemory] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Need:
    """What a pool needs at a tick, and where each part comes from."""

    workers: int  # what to grow to
    sufficient: int  # what to shrink to at least: the need with MARGIN
    rule: SizeRule
    forecast: float | None  # Erlangs at the configured quantile
    by_forecast: int | None
    by_reaction: int | None
    mean: float | None  # load that the reactive rule used, in Erlangs: of 60 s, or since it fell
    fallen: float | None  # seconds since it fell; None: the mean is of 60 s
    by_rhythm: int | None  # None: no rhythm is trusted
    ahead: int | None  # enough for the next `down_after` as the rhythm predicts it, and for now
    horizon: int
    by_cpu: int | None
    by_memory: int | None
    by_scaling: int | None  # None: no curve is certain
    wish: int  # before limits
    bound: Bound  # which limit changed the wish


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


class PoolSize:
    """The policy. Growth is proposed at once, a shrink only when fewer workers sufficed for `down_after` seconds."""

    name = "pool_size"

    def __init__(self, config: Config, memory: PoolSizeMemory) -> None:
        self._config = config.pool_size
        self._interval = config.daemon.interval
        self.memory = memory

    def propose(self, tick: Tick) -> list[Proposal[int]]:
        """At most one size per pool. With each the size is kept from which it was changed."""
        outlook = Outlook(tick)
        there = {pool.name for pool in tick.pools}
        for gone in sorted(self.memory.pools.keys() - there):
            del self.memory.pools[gone]
        if not self._config.enabled:
            return []
        return [proposal for pool in tick.pools if (proposal := self._pool(tick, pool, outlook)) is not None]

    def waiting(self) -> Collection[str]:
        """None: every wish is proposed at once."""
        return ()

    def notes(self, _tick: Tick, /) -> list[Note]:
        """Nothing: everything is said in the decisions."""
        return []

    def skip(self) -> None:
        """After a gap it is unknown what had sufficed meanwhile."""
        for memory in self.memory.pools.values():
            memory.since, memory.peaks = None, []
            memory.falling = memory.fallen = None

    def admit(self, decision: Decision, kept: int, at: int, /) -> None:
        """The size counts as asked for from now on."""
        if isinstance(decision.action, ResizePool):
            memory = self.memory.pools[decision.action.pool]
            if decision.action.size > kept:
                memory.grown_at = at
            memory.changed_at = at
            memory.asked = decision.action.size

    def learn(self, result: Result) -> None:
        """A size that was not taken is not asked for any more: the pool's own size counts again."""
        memory = self.memory.pools.get(result.target.removeprefix("pool "))
        if memory is not None and not result.done and (result.action is None or isinstance(result.action, ResizePool)):
            memory.asked = None

    def measured(self, found: Sequence[Impact], tick: Tick, /) -> None:
        """Changes nothing: the load decides."""

    def standing(self) -> list[Standing]:
        """The sizes that were asked for."""
        asked = [(name, memory.asked) for name, memory in sorted(self.memory.pools.items())]
        return [self._standing(name, size) for name, size in asked if size is not None]

    def forget(self, gone: Gone) -> None:
        """The pool's own size counts again."""
        for name, memory in sorted(self.memory.pools.items()):
            if memory.asked is not None and gone(self._standing(name, memory.asked)):
                memory.asked = None

    def validate(self, _hands_off: Collection[str], /) -> None:
        """Raises AssertionError if the memory contradicts itself."""
        for name, pool in self.memory.pools.items():
            values = [value for _, value in pool.peaks]
            assert values == sorted(values, reverse=True), f"{name}: peaks must fall"
            assert [at for at, _ in pool.peaks] == sorted(at for at, _ in pool.peaks), f"{name}: peaks must be in order of time"
            assert not (pool.since is None and pool.peaks), f"{name}: peaks without a watch"

    def _standing(self, pool: str, size: int) -> Standing:
        return Standing(frozenset({policy(self.name), pool}), ResizePool(pool, size), f"pool {pool}")

    def _pool(self, tick: Tick, pool: Pool, outlook: Outlook) -> Proposal[int] | None:
        memory = self.memory.pools.setdefault(pool.name, PoolMemory())
        if memory.seen is not None and pool.requested not in (memory.seen, memory.asked):
            memory.asked = None  # the pool restarted or somebody resized it
        memory.seen = pool.requested
        current = memory.asked if memory.asked is not None else pool.requested
        mean = self._mean(tick.at, pool, memory)
        need = None if pool.load is None else self._need(tick, pool, outlook, current, mean)
        if need is None:
            memory.since, memory.peaks = None, []
            return None
        enough = self._remember(tick.at, need.sufficient, memory)
        if need.ahead is not None and need.ahead <= CLIFF * current:
            enough = need.ahead
        elif need.ahead is not None and enough is not None:
            enough = max(enough, need.ahead)
        rush = peak(memory.rushes, tick.at, up((pool.load_panic or 0.0) / self._config.target), CALM)
        if enough is not None and need.by_rhythm is None:
            enough = min(max(enough, min(int(rush / PANIC_THRESHOLD), SMALL) + 1), pool.maximum)
        if need.workers > current * (MARGIN if need.rule is SizeRule.RHYTHM else 1.0):
            if need.rule is SizeRule.PANIC and memory.fallen is not None:
                memory.wary_until = tick.at + round(WARY * 1e9)
            if _passed(tick.at, memory.grown_at, self._config.cooldown_up, self._interval):
                return self._proposal(pool, need, need.workers, current, outlook)
        elif (
            enough is not None
            and enough < current
            and pool.size == pool.requested
            and not self._falls_further(enough, pool, need, memory)
            and _passed(tick.at, memory.changed_at, self._config.cooldown_down, self._interval)
        ):
            if need.by_rhythm is not None and enough <= CLIFF * current and pool.load is not None:
                memory.fallen = Fallen(tick.at, pool.load, 1)  # if the rhythm is given up now, the past load must not count
            return self._proposal(pool, need, enough, current, outlook)
        return None

    def _falls_further(self, enough: int, pool: Pool, need: Need, memory: PoolMemory) -> bool:
        """Is a much larger shrink near, which a small one now would only delay by `cooldown_down`?"""
        predicted, falling = pool.predicted, memory.falling
        if need.by_rhythm is None or predicted is None:
            return falling is not None and self._workers(falling.mean, pool, self._config.target) <= CLIFF * enough
        share = self._share(predicted)
        least = max(self._workers(max(predicted.least, 0.0), pool, share), pool.minimum)
        return least <= CLIFF * min(enough, self._workers(predicted.median, pool, share))

    def _mean(self, at: int, pool: Pool, memory: PoolMemory) -> float | None:
        """Mean load for the reactive rule: over 60 s, or since the load fell, if it has stayed low for long enough."""
        if pool.load is None or pool.load_stable is None or pool.load_panic is None or pool.start_seconds is None:
            memory.falling = memory.fallen = None
            return pool.load_stable
        if memory.fallen is not None and at - memory.fallen.at >= STABLE * 1e9:
            memory.fallen = None
        for since in (memory.falling, memory.fallen):
            if since is not None:
                since.total, since.ticks = since.total + pool.load, since.ticks + 1
        mean = pool.load_stable if memory.fallen is None else min(memory.fallen.mean, pool.load_stable)
        patience = max(PATIENCE * pool.start_seconds, self._config.down_after)
        if pool.load_panic >= FALL * mean or at < memory.wary_until or patience > STABLE / 2:
            memory.falling = None
        elif memory.falling is None:
            memory.falling = Fallen(at, pool.load, 1)
        elif at - memory.falling.at >= patience * 1e9:
            memory.fallen, memory.falling, memory.peaks = memory.falling, None, []
            mean = memory.fallen.mean
        return mean

    def _remember(self, at: int, sufficient: int, memory: PoolMemory) -> int | None:
        """Largest need of the last `down_after` seconds; None while it has not been watched for that long."""
        if memory.since is None:
            memory.since = at
        most = peak(memory.peaks, at, sufficient, self._config.down_after)
        return most if at - memory.since >= self._config.down_after * 1e9 else None

    # --- what is needed ----------------------------------------------------------------------------------------------------------

    def _need(self, tick: Tick, pool: Pool, outlook: Outlook, current: int, mean: float | None) -> Need | None:
        """None if there is no rhythm, no forecast and no history of the load."""
        config, fallen = self._config, self.memory.pools[pool.name].fallen
        horizon = horizon_for(None if pool.start_seconds is None else START_MARGIN * pool.start_seconds, self._interval)
        forecast = outlook.value(pool.name, "load", horizon, config.quantile)
        by_forecast = None if forecast is None else self._workers(forecast, pool, config.predicted_target)
        reacts = reaction(pool, mean, config.target, MARGIN, fallen=fallen is not None)
        by_rhythm = self._by_rhythm(pool)
        by_reaction = 0 if reacts is None else reacts.workers
        if by_rhythm is not None:
            needed_now = kept = self._lasting(tick.at, pool)
            if (pool.load or 0.0) < (pool.load_panic or 0.0) and not _gradual(pool):
                needed_now = min(needed_now, current)  # the load decreases: the present workers cope
            wish, sufficient = max(by_rhythm, needed_now), max(self._by_rhythm(pool, MARGIN) or 0, kept)
            rule = SizeRule.RHYTHM if by_rhythm >= needed_now else SizeRule.PRESENT
        elif reacts is None and by_forecast is None:
            return None
        else:
            needed_now, kept = by_reaction, 0 if reacts is None else reacts.sufficient
            wish = max(by_forecast or 0, needed_now)
            sufficient = max(0 if forecast is None else self._workers(forecast * MARGIN, pool, config.predicted_target), kept)
            rule = SizeRule.FORECAST
            if reacts is not None and by_reaction >= (by_forecast or 0):
                rule = SizeRule.PANIC if reacts.panic else SizeRule.REACTIVE
        by_cpu, by_memory = self._cpu_bound(tick, pool, horizon, outlook), self._memory_bound(tick, pool)
        by_scaling = self._scaling_bound(pool)
        rooms = (by_cpu, Bound.CPU), (by_memory, Bound.MEMORY), (by_scaling, Bound.SCALING)
        workers, bound = _limited(wish, pool, rooms, min(current, needed_now))
        sufficient, _ = _limited(sufficient, pool, rooms, min(current, kept))
        return Need(
            workers=workers,
            sufficient=max(workers, sufficient),
            rule=SizeRule.MINIMUM if bound is Bound.MINIMUM else rule,
            forecast=forecast,
            by_forecast=by_forecast,
            by_reaction=None if reacts is None else by_reaction,
            mean=mean,
            fallen=None if fallen is None else (tick.at - fallen.at) / 1e9,
            by_rhythm=by_rhythm,
            ahead=None if by_rhythm is None else max(workers, sufficient, self._ahead(pool)),
            horizon=horizon,
            by_cpu=by_cpu,
            by_memory=by_memory,
            by_scaling=by_scaling,
            wish=wish,
            bound=bound,
        )

    @staticmethod
    def _workers(load: float, pool: Pool, share: float) -> int:
        """Workers for an expected load, each busy for that share."""
        return min(up(min(load, pool.maximum) / share), pool.maximum)

    def _share(self, predicted: Predicted) -> float:
        """Busy share of a worker to aim at with this rhythm."""
        sharp = min(max((predicted.abrupt - GRADUAL) / (SHARP - GRADUAL), 0.0), 1.0)
        return self._config.target + sharp * (self._config.predicted_target - self._config.target)

    def _by_rhythm(self, pool: Pool, margin: float = 1.0) -> int | None:
        """Workers for `margin` times the predicted load until a worker that starts now is up; None: no rhythm is trusted."""
        predicted = pool.predicted
        if predicted is None or not predicted.trusted:
            return None
        if not math.isfinite(predicted.median + predicted.high + predicted.later + predicted.least):
            return None
        median, high = (min(max(load, 0.0), pool.maximum) * margin for load in (predicted.median, predicted.high))
        return max(self._workers(median, pool, self._share(predicted)), min(round(high), pool.maximum))

    def _ahead(self, pool: Pool) -> int:
        """Enough for the next `down_after` as the rhythm predicts it, and for the load now or of the last 6 s, the smaller."""
        recent = up(min(pool.load or 0.0, pool.load_panic or 0.0) / (PANIC_THRESHOLD * self._config.target))
        predicted = pool.predicted
        later = 0 if predicted is None else self._workers(max(predicted.later, 0.0), pool, self._share(predicted))
        return min(max(later, recent), pool.maximum)

    def _lasting(self, at: int, pool: Pool) -> int:
        """Workers that were needed for a whole worker start time: for work that is over by then none need be started."""
        lasting = 0.0 if _gradual(pool) else min(START_UNKNOWN if pool.start_seconds is None else pool.start_seconds, LASTING)
        return -peak(self.memory.pools[pool.name].present, at, -_present(pool, self._config.target), lasting)

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
            if group.name != pool.name and (group.latency is not Latency.BATCH or group.name in pools)
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

    # --- why ---------------------------------------------------------------------------------------------------------------------

    def _proposal(self, pool: Pool, need: Need, size: int, current: int, outlook: Outlook) -> Proposal[int]:
        config = self._config
        seconds = HORIZONS[need.horizon] * self._interval
        source = outlook.source(pool.name, "load")
        predicted = pool.predicted
        rule = SizeRule.FEWER if size < current else need.rule
        return Proposal(
            policy=self.name,
            target=f"pool {pool.name}",
            action=ResizePool(pool.name, size),
            why=Why(
                rule=rule.value,
                text=f"{pool.name}: {current} to {size} workers: {self._text(pool, need, rule, seconds)}",
                figures=figures(
                    load_now=pool.load,
                    load_60s=pool.load_stable,
                    load_6s=pool.load_panic,
                    load_since_fall=None if need.fallen is None else need.mean,
                    fallen_seconds=need.fallen,
                    queued=pool.queued,
                    forecast_median=outlook.value(pool.name, "load", need.horizon, 0.5),
                    forecast_used=need.forecast,
                    forecast_quantile=config.quantile,
                    horizon_seconds=seconds,
                    start_seconds=pool.start_seconds,
                    forecast_source=source or "none",
                    rhythm=_standing(predicted),
                    **({} if predicted is None else _figures(predicted)),
                    workers_by_rhythm=need.by_rhythm,
                    workers_by_forecast=need.by_forecast,
                    workers_by_reactive_rule=need.by_reaction,
                    workers_by_cpu_headroom=need.by_cpu,
                    workers_by_memory_headroom=need.by_memory,
                    workers_by_scaling_curve=need.by_scaling,
                    **({} if pool.scaling is None or need.by_scaling is None else _curve(pool.scaling)),
                    minimum=pool.minimum,
                    maximum=pool.maximum,
                    limit_that_bound=need.bound.value or "none",
                    size=pool.size,
                    current=current,
                ),
                rejected=self._rejected(pool, need, source),
                flips=self._flips(pool, need, size, current),
            ),
            kept=current,
            aim=_aim(pool, size),
        )

    def _text(self, pool: Pool, need: Need, rule: SizeRule, seconds: float) -> str:
        """Why, in a sentence."""
        config, predicted = self._config, pool.predicted
        if predicted is not None and need.by_rhythm is not None:
            period = _period(predicted)
            if rule is SizeRule.RHYTHM:
                return (
                    f"{period} predicts {predicted.median:.3g} Erlang of load, at most {predicted.high:.3g}, "
                    f"within {predicted.horizon:.3g} s."
                )
            if rule is SizeRule.PRESENT:
                return f"{pool.load:.3g} Erlang are busy and queued, {period} had predicted {predicted.now:.3g}."
            if rule is SizeRule.FEWER:
                soon = f"no more will be needed in the next {config.down_after:g} s"
                return f"the load has fallen as {period} had predicted, and {soon}."
        if rule is SizeRule.FEWER and need.fallen is not None:
            return f"the load fell {need.fallen:.3g} s ago and has been {need.mean:.3g} Erlang since."
        if rule is SizeRule.FEWER:
            return f"no more were needed in the last {config.down_after:g} s."
        if rule is SizeRule.FORECAST:
            return f"up to {need.forecast:.3g} Erlang of load are expected in {seconds:g} s."
        if rule is SizeRule.MINIMUM:
            return "the configured minimum."
        load = pool.load_panic if rule is SizeRule.PANIC and pool.load_panic is not None else need.mean
        return f"the load has been {load:.3g} Erlang, a worker takes {config.target:g}."

    def _rejected(self, pool: Pool, need: Need, source: str) -> tuple[str, ...]:
        said, predicted = [], pool.predicted
        if source and need.forecast is None:
            said.append(f"the load forecast of {source}: not a finite number, ignored")
        if need.by_rhythm is not None:
            for workers, whose in ((need.by_reaction, "the reactive rule"), (need.by_forecast, "the forecast")):
                if workers is not None and workers != need.wish:
                    said.append(f"{workers} workers, which {whose} asks for: the load comes as its rhythm predicted")
        else:
            if predicted is not None:
                said.append(f"what {_period(predicted)} predicts: not trusted, {_share(predicted)} of its newest period came so")
            if need.by_reaction is not None and need.by_forecast is not None and need.by_reaction != need.by_forecast:
                less = min((need.by_reaction, "the reactive rule"), (need.by_forecast, "the forecast"))
                said.append(f"{less[0]} workers, which {less[1]} alone asks for: the larger of both counts")
        if need.bound:
            because = _little(pool.scaling) if need.bound is Bound.SCALING and pool.scaling is not None else ""
            said.append(f"{need.wish} workers, which the load asks for: bound by {need.bound}{because}")
        return tuple(said)

    def _flips(self, pool: Pool, need: Need, size: int, current: int) -> tuple[str, ...]:
        if need.bound is Bound.SCALING and size > current and pool.scaling is not None:
            least = WORTH * pool.scaling.single
            lift = f"more than {least:.2g} cores used by each worker beyond {need.by_scaling} would lift the limit"
            return (*self._flips_of_load(pool, need, size, current), lift)
        return self._flips_of_load(pool, need, size, current)

    def _flips_of_load(self, pool: Pool, need: Need, size: int, current: int) -> tuple[str, ...]:
        config = self._config
        quantile = "median" if config.quantile == 0.5 else f"{config.quantile:.0%} quantile"
        forecast = f"a {quantile} of the load forecast"
        if need.by_rhythm is not None and pool.predicted is not None:
            unlike, share = "load unlike what was predicted would bring back the reactive rule", self._share(pool.predicted)
            if size < current:
                enough = f"{(current - 1) * share:.3g} Erlang or more"
                return f"{enough} predicted for the next {config.down_after:g} s would have kept {current}", unlike
            return f"at most {current * share:.3g} Erlang predicted, and no more at present, would keep {current}", unlike
        if size < current:
            most, mean = (current - 1) * config.predicted_target / MARGIN, (current - 1) * config.target / MARGIN
            text = f"in the last {config.down_after:g} s {forecast} above {most:.3g} Erlang, or a mean load above {mean:.3g},"
            return (f"{text} would have kept {current}",)
        said = []
        if need.by_forecast is not None and need.by_forecast > current:
            said.append(f"{forecast} below {current * config.predicted_target:.3g} Erlang")
        if need.by_reaction is not None and need.by_reaction > current:
            said.append(f"a mean load below {current * config.target:.3g} Erlang")
        return (" and ".join(said) + f" would keep {current}",) if said else ()


def _aim(pool: Pool, size: int) -> Aim | None:
    """Queued work is to shrink, from when the new workers can be up. None: it is not known."""
    if pool.queued is None:
        return None
    delay = (pool.start_seconds or 0.0) if size > pool.size else 0.0
    return Aim(Metric.QUEUED, pool.name, pool.queued, pool.name, Control.POOL_SIZE, back=False, delay=delay)


def _present(pool: Pool, target: float) -> int:
    """Busy workers, or as many as keep waiting work below a panic of the reactive rule, whichever is more. Over some ticks: one
    alone may be chance."""
    load = pool.load or 0.0
    recent = load if pool.load_panic is None else min(load, pool.load_panic)
    busy = recent if pool.busy is None else min(pool.busy, recent)
    return max(up(busy), up(recent / (PANIC_THRESHOLD * target)))


def _gradual(pool: Pool) -> bool:
    """Does the predicted load change so gradually that the reactive rule would serve it well, with its room?"""
    return pool.predicted is not None and pool.predicted.abrupt < SHARP


def _period(predicted: Predicted) -> str:
    return f"a rhythm of {predicted.period:.4g} s, seen {predicted.seen} times,"


def _share(predicted: Predicted) -> str:
    return f"{max(predicted.right, 0.0):.0%}"


def _standing(predicted: Predicted | None) -> str:
    return "none" if predicted is None else "trusted" if predicted.trusted else "not trusted"


def _figures(predicted: Predicted) -> dict[str, float | int]:
    return {
        "rhythm_period_seconds": predicted.period,
        "rhythm_seen": predicted.seen,
        "rhythm_right": predicted.right,
        "rhythm_abrupt": predicted.abrupt,
        "rhythm_horizon_seconds": predicted.horizon,
        "predicted_now": predicted.now,
        "predicted_median": predicted.median,
        "predicted_high": predicted.high,
    }


def _curve(scaling: Scaled) -> dict[str, float | int]:
    return {
        "scaling_single_cores": scaling.single,
        "scaling_contention": scaling.contention,
        "scaling_coherency": scaling.coherency,
        "scaling_sizes_seen": scaling.sizes,
        "scaling_largest_seen": scaling.largest,
    }


def _little(scaling: Scaled) -> str:
    added = "" if scaling.adds is None else f" ({scaling.adds:.2g} cores when it was seen)"
    return (
        f", seen at {scaling.sizes} sizes up to {scaling.largest:.3g}: one more would do less than {WORTH:.0%} of a worker{added}"
    )


def _limited(wish: int, pool: Pool, rooms: Sequence[tuple[int | None, Bound]], kept: int) -> tuple[int, Bound]:
    """(`wish` within all limits, the limit that changed it). `rooms` stop at `kept`; configured limits always hold."""
    size, bound = wish, Bound.NONE
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


def _passed(at: int, since: int | None, seconds: float, interval: float) -> bool:
    """Have `seconds` passed? A tenth of an interval early counts: ticks jitter, and a cool-down of one tick must not take two."""
    return since is None or at - since >= (seconds - 0.1 * interval) * 1e9
