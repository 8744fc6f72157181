"""Sizes pools: a forecast floor beside a reactive rule, within limits and headroom. Pure: knows no adapter and no model.

- Forecast floor, 1.2 worker start times ahead: a worker for each piece of the wished quantile of the offered load, and as many as
  Erlang C wants for its median. The quantile of what is busy and queued has chance in it already: with Erlang C on top it would
  count twice.
- Reactive rule: Knative's autoscaler (KPA): mean load of 60 s over a target utilisation, never less than half of the ready workers,
  and in a panic, when a 6 s window asks for twice the ready workers, what that window asks for. KPA holds the most of a panic for
  60 s and starts in one; here `down_after` does that job.
- Headroom bounds growth, and takes away what only the forecast asked for; it never takes workers that the reactive rule needs now.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from ...models.records import HORIZONS, Latency
from ..config import Config
from ..decision import Decision, Group, Pool, ResizePool, Tick, Why
from .policy import Memory, Outlook, Result, figures, horizon_for, peak

MARGIN = 1.1
"""A pool shrinks only to what would serve this multiple of the load: between load / MARGIN and load nothing changes, so load that
wobbles around a threshold causes no flapping. A tenth, as the tolerance of the Kubernetes HPA."""

START_MARGIN = 1.2
"""Worker start times to look ahead: the start was measured as a median, half of all starts take longer."""

PANIC_THRESHOLD = 2.0
"""Knative: panic when the short window asks for this multiple of the ready workers."""

MAX_SCALE_UP, MAX_SCALE_DOWN = 1000.0, 2.0
"""Knative: most that the reactive rule may ask for in one step, as a multiple and a divisor of the ready workers."""

EPSILON = 1e-9
"""Taken off before rounding up, so that 2.8 / 0.7 asks for 4 workers on every machine."""


class PoolMemory(Memory):
    """What is remembered of one pool."""

    asked: int | None = None  # size last asked for; None: nothing that still stands
    seen: int | None = None  # `requested` at the last tick
    since: int | None = None  # ns since when needs are known without a hole
    peaks: list[tuple[int, int]] = msgspec.field(default_factory=list)  # (ns, workers), falling: maximum of the last `down_after`
    grown_at: int | None = None
    changed_at: int | None = None


class PoolSizeMemory(Memory):
    """What the policy remembers."""

    pools: dict[str, PoolMemory] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Need:
    """What a pool needs at a tick, and where each part comes from."""

    workers: int  # what to grow to
    sufficient: int  # what to shrink to at most: the need with MARGIN
    rule: str
    forecast: float | None  # Erlangs at the wished quantile
    by_forecast: int | None
    by_reaction: int | None
    panic: bool
    horizon: int
    by_cpu: int | None
    by_memory: int | None
    bound: str  # which limit changed the wish, "" if none


def workers_for(load: float, wait_probability: float, most: int) -> int:
    """Fewest workers, up to `most`, with which at most `wait_probability` of the work has to wait (Erlang C).

    `load` is in Erlangs. With Poisson arrivals and B the Erlang B blocking of n workers, C = n B / (n - load (1 - B)).
    """
    if load <= 0:
        return 0
    if load >= most:
        return most
    blocked = 1.0
    for workers in range(1, most + 1):
        blocked = load * blocked / (workers + load * blocked)
        if workers > load and workers * blocked <= wait_probability * (workers - load * (1 - blocked)):
            return workers
    return most


def load_served_by(workers: int, wait_probability: float) -> float:
    """Largest load in Erlangs that so many workers serve with at most that probability of waiting."""
    low, high = 0.0, float(workers)
    for _ in range(40):
        middle = (low + high) / 2
        if workers_for(middle, wait_probability, workers + 1) <= workers:
            low = middle
        else:
            high = middle
    return low


def fair_share(capacity: float, others: Sequence[float]) -> float:
    """What is left of `capacity` for one more who wants as much as he can get, dealt out max-min fairly beside these demands.

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
        self._at = 0  # ns of the present tick

    def propose(self, tick: Tick) -> list[Decision]:
        """At most one size a pool."""
        self._at = tick.at
        outlook = Outlook(tick)
        there = {pool.name for pool in tick.pools}
        for gone in sorted(self.memory.pools.keys() - there):
            del self.memory.pools[gone]
        if not self._config.enabled:
            return []
        return [decision for pool in tick.pools if (decision := self._pool(tick, pool, outlook)) is not None]

    def skip(self) -> None:
        """After a hole nobody knows what had sufficed meanwhile."""
        for memory in self.memory.pools.values():
            memory.since, memory.peaks = None, []

    def admit(self, decision: Decision) -> None:
        """The size counts as asked for from now on."""
        if isinstance(decision.action, ResizePool):
            memory = self.memory.pools[decision.action.pool]
            current = memory.asked if memory.asked is not None else memory.seen
            if current is None or decision.action.size > current:
                memory.grown_at = self._at
            memory.changed_at = self._at
            memory.asked = decision.action.size

    def learn(self, result: Result) -> None:
        """A size that was not taken is not asked for any more: what the pool itself says counts again."""
        memory = self.memory.pools.get(result.target.removeprefix("pool "))
        if memory is not None and not result.done and (result.action is None or isinstance(result.action, ResizePool)):
            memory.asked = None

    def _pool(self, tick: Tick, pool: Pool, outlook: Outlook) -> Decision | None:
        memory = self.memory.pools.setdefault(pool.name, PoolMemory())
        if memory.seen is not None and pool.requested not in (memory.seen, memory.asked):
            memory.asked = None  # the pool restarted or somebody resized it
        memory.seen = pool.requested
        current = memory.asked if memory.asked is not None else pool.requested
        need = None if pool.load is None else self._need(tick, pool, outlook, current)
        if need is None:
            memory.since, memory.peaks = None, []
            return None
        enough = self._remember(tick.at, need.sufficient, memory)
        if need.workers > current:
            if _passed(tick.at, memory.grown_at, self._config.cooldown_up, self._interval):
                return self._decision(pool, need, need.workers, current, outlook)
        elif (
            enough is not None
            and enough < current
            and pool.size == pool.requested
            and _passed(tick.at, memory.changed_at, self._config.cooldown_down, self._interval)
        ):
            return self._decision(pool, need, enough, current, outlook)
        return None

    def _remember(self, at: int, sufficient: int, memory: PoolMemory) -> int | None:
        """Largest need of the last `down_after` seconds; None while it has not been watched for so long."""
        if memory.since is None:
            memory.since = at
        most = peak(memory.peaks, at, sufficient, self._config.down_after)
        return most if at - memory.since >= self._config.down_after * 1e9 else None

    def _need(self, tick: Tick, pool: Pool, outlook: Outlook, current: int) -> Need | None:
        """None: neither a forecast nor a history of the load."""
        config = self._config
        start = None if pool.start_seconds is None else START_MARGIN * pool.start_seconds
        horizon = horizon_for(start, self._interval)
        forecast = outlook.value(pool.name, "load", horizon, config.quantile)
        by_forecast, with_margin = None, 0
        if forecast is not None:
            median = outlook.value(pool.name, "load", horizon, 0.5)
            usual = forecast if median is None else median
            by_forecast = self._by_forecast(forecast, usual, pool.maximum)
            with_margin = self._by_forecast(forecast * MARGIN, usual * MARGIN, pool.maximum)
        by_reaction, reaction_margin, panic = self._reaction(pool)
        if by_forecast is None and by_reaction is None:
            return None
        wish, rule = max(by_forecast or 0, by_reaction or 0), "forecast floor"
        if by_reaction is not None and by_reaction >= (by_forecast or 0):
            rule = "panic" if panic else "reactive rule"
        by_cpu, by_memory = self._cpu_bound(tick, pool, horizon, outlook), self._memory_bound(tick, pool)
        workers, bound = _limited(wish, pool, by_cpu, by_memory, min(current, by_reaction or 0))
        sufficient, _ = _limited(max(with_margin, reaction_margin), pool, by_cpu, by_memory, min(current, reaction_margin))
        return Need(
            workers,
            max(workers, sufficient),
            "minimum" if bound == "minimum" else rule,
            forecast,
            by_forecast,
            by_reaction,
            panic,
            horizon,
            by_cpu,
            by_memory,
            bound,
        )

    def _by_forecast(self, load: float, median: float, most: int) -> int:
        """Workers for a forecast: see the head of this file."""
        return max(min(math.ceil(load - EPSILON), most), workers_for(median, self._config.wait_probability, most))

    def _reaction(self, pool: Pool) -> tuple[int | None, int, bool]:
        """(what Knative's rule asks for, the same with MARGIN, is it in panic); (None, 0, …) without a load history."""
        if pool.load_stable is None:
            return None, 0, False
        ready = max(1, sum(worker.ready for worker in pool.workers))
        target = self._config.target
        low, high = math.floor(ready / MAX_SCALE_DOWN), math.ceil(MAX_SCALE_UP * ready)

        def asked(load: float) -> int:
            return min(max(math.ceil(load / target - EPSILON), low), high)

        short = pool.load_panic if pool.load_panic is not None else pool.load_stable
        wish, margin = asked(pool.load_stable), asked(pool.load_stable * MARGIN)
        if math.ceil(short / target - EPSILON) / ready < PANIC_THRESHOLD:
            return wish, margin, False
        return max(wish, asked(short)), max(margin, asked(short * MARGIN)), True

    def _cpu_bound(self, tick: Tick, pool: Pool, horizon: int, outlook: Outlook) -> int | None:
        """Workers that fill the pool's share of the CPU headroom, the one that crosses the line included: without it a pool of
        CPU-bound workers could never use the last part of the machine. None: workers take no CPU worth counting.

        The share is max-min fair, as the kernel deals it out: whoever wants less than an equal part has what he wants, and the
        others divide the rest. So on a machine that others keep busy the pool may still grow into its part.

        Everything else = the median demand forecast of each other group, where there is none its demand now, and what runs outside
        of the listed groups. Batch groups do not count unless they are pools: batch work stretches to whatever is left, so its
        demand says nothing about headroom, and the scheduler shares with it or demotes it.
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
        """Workers that fit under the memory headroom, those that are there included; None: their size is not known."""
        if pool.rss_per_worker <= 0:
            return None
        machine = tick.machine
        free = self._config.memory_headroom * machine.memory_total - (machine.memory_total - machine.memory_available)
        return max(0, pool.size + math.floor(free / pool.rss_per_worker))

    def _decision(self, pool: Pool, need: Need, size: int, current: int, outlook: Outlook) -> Decision:
        config = self._config
        grows = size > current
        seconds = HORIZONS[need.horizon] * self._interval
        source = outlook.source(pool.name, "load")
        median = outlook.value(pool.name, "load", need.horizon, 0.5)
        if not grows:
            rule = "fewer sufficed"
            text = f"{pool.name}: {current} to {size} workers: no more than {size} were needed in the last {config.down_after:g} s."
        elif need.rule == "forecast floor":
            rule = need.rule
            text = (
                f"{pool.name}: {current} to {size} workers: up to {need.forecast:.3g} Erlang of load are expected in {seconds:g} s."
            )
        elif need.rule == "minimum":
            rule = need.rule
            text = f"{pool.name}: {current} to {size} workers: the configured minimum."
        else:
            rule = need.rule
            load = pool.load_panic if need.panic and pool.load_panic is not None else pool.load_stable
            text = (
                f"{pool.name}: {current} to {size} workers: the load has been {load:.3g} Erlang, a worker takes {config.target:g}."
            )
        return Decision(
            id="",
            policy=self.name,
            target=f"pool {pool.name}",
            action=ResizePool(pool.name, size),
            why=Why(
                rule=rule,
                text=text,
                figures=figures(
                    load_now=pool.load,
                    load_60s=pool.load_stable,
                    load_6s=pool.load_panic,
                    queued=pool.queued,
                    forecast_median=median,
                    forecast_used=need.forecast,
                    forecast_quantile=config.quantile,
                    horizon_seconds=seconds,
                    start_seconds=pool.start_seconds,
                    forecast_source=source or "none",
                    workers_by_forecast=need.by_forecast,
                    workers_by_reactive_rule=need.by_reaction,
                    workers_by_cpu_headroom=need.by_cpu,
                    workers_by_memory_headroom=need.by_memory,
                    minimum=pool.minimum,
                    maximum=pool.maximum,
                    limit_that_bound=need.bound or "none",
                    size=pool.size,
                    current=current,
                ),
                rejected=self._rejected(need, source),
                flips=self._flips(need, size, current),
            ),
        )

    def _rejected(self, need: Need, source: str) -> tuple[str, ...]:
        said = []
        if source and need.forecast is None:
            said.append(f"the load forecast of {source}: not a finite number, ignored")
        if need.by_reaction is not None and need.by_forecast is not None and need.by_reaction != need.by_forecast:
            less = min((need.by_reaction, "the reactive rule"), (need.by_forecast, "the forecast"))
            said.append(f"{less[0]} workers, which {less[1]} alone asks for: the larger of both counts")
        if need.bound:
            wish = max(need.by_forecast or 0, need.by_reaction or 0)
            said.append(f"{wish} workers, which the load asks for: bound by {need.bound}")
        return tuple(said)

    def _flips(self, need: Need, size: int, current: int) -> tuple[str, ...]:
        config = self._config
        if size < current:
            served = load_served_by(current - 1, config.wait_probability) / MARGIN if current > 1 else 0.0
            most = (current - 1) / MARGIN
            text = f"a {config.quantile:.0%} quantile of the load forecast above {most:.3g} Erlang, or a median above {served:.3g},"
            return (f"in the last {config.down_after:g} s {text} would have kept {current}",)
        said = []
        if need.by_forecast is not None and need.by_forecast > current:
            served = load_served_by(current, config.wait_probability)
            said.append(
                f"a {config.quantile:.0%} quantile of the load forecast below {current} Erlang with a median below {served:.3g}"
            )
        if need.by_reaction is not None and need.by_reaction > current:
            said.append(f"a mean load below {current * config.target:.3g} Erlang")
        return (" and ".join(said) + f" would keep {current}",) if said else ()


def _limited(wish: int, pool: Pool, by_cpu: int | None, by_memory: int | None, kept: int) -> tuple[int, str]:
    """(`wish` within all limits, the limit that changed it). Headroom stops at `kept`; configured limits always hold."""
    size, bound = wish, ""
    for room, name in ((by_cpu, "CPU headroom"), (by_memory, "memory headroom")):
        if room is not None and size > max(room, kept):
            size, bound = max(room, kept), name
    if size > pool.maximum:
        size, bound = pool.maximum, "maximum"
    if size < pool.minimum:
        size, bound = pool.minimum, "minimum"
    return size, bound


def _demand(group: Group, horizon: int, outlook: Outlook) -> float:
    expected = outlook.value(group.name, "cpu", horizon, 0.5)
    return group.demand if expected is None else expected


def _passed(at: int, since: int | None, seconds: float, interval: float) -> bool:
    """Have `seconds` passed? A tenth of an interval early counts: ticks jitter, and a cool-down of one tick must not take two."""
    return since is None or at - since >= (seconds - 0.1 * interval) * 1e9
