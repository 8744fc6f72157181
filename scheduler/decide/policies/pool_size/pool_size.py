"""Sizes pools: by the load's seasonal pattern, else by a reactive rule with a forecast as its floor, within limits and headroom.
Pure: knows no adapter and no model.

- Seasonal pattern, where the load has one that is trusted (`models/forecast/seasonality.py`): enough for what earlier periods did
  from now until 1.2 worker start times ahead, and for what is busy and queued now. If a fall was predicted and came, the workers
  that the reactive rule holds after a fall are not kept. As soon as the load deviates, the seasonal pattern is not trusted and the
  other two decide.
- Reactive rule: Knative's autoscaler, see `reaction.py`. KPA holds the peak of a panic for 60 s and starts in one; here
  `down_after` does that job. When the load fell to less than half for good, its mean starts again there: otherwise a spike
  that is over would cost workers for another minute.
- Forecast floor: the forecast 1.2 worker start times ahead, by default its median. Upper quantiles would always cost workers
  that a seasonal pattern or a panic adds when they are needed: see docs/decisions/0008.
- A pool with an objective has its own way from loads to workers, for all rules alike: see `objective.py`.
- Headroom bounds growth, and takes away what only a forecast asked for; it never takes workers that are needed now. The pool's
  scaling curve (`models/scaling.py`) does the same where it is certain: workers that would add nothing are not started. Nor are
  more started while those that start get no CPU, see `starts.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from ....config.sections import Config
from ....decision import Decision, Note, Pool, ResizePool, Tick
from ....hands.places import Control
from ....scope import policy
from ..policy import Aim, Gone, Impact, Memory, Metric, Outlook, Proposal, Result, Standing, figures, peak
from .need import MARGIN, Bound, Fallen, Need, Needs, PoolMemory, SizeRule, busy_share
from .objective import Sizing
from .reaction import PANIC_THRESHOLD
from .reasons import PoolReasons
from .starts import watch

STABLE = 60.0
"""Seconds of `Pool.load_stable`, the stable window of Knative's autoscaler."""

CALM, SMALL = 60.0, 4
"""A pool shrinks to this many workers or fewer only if no 6 s window within this many seconds would have been a panic there. Few
workers have no room: two requests at once are a panic of one. Without this hold, which is as long as Knative's for all sizes, a
pool with half an Erlang grew and shrank every 15 s."""

CLIFF = 0.75
"""A predicted fall to this share of the workers or less is followed as soon as it has come (chosen): `down_after` then looks ahead
instead of back. A smaller shrink waits while such a fall is near."""

FALL, PATIENCE = 0.5, 2.5
"""The load has fallen if its 6 s mean is below this share of its 60 s mean and stays so for this many worker start times (at least
`down_after`). Chosen: the longer workers take to start again, the longer they are kept. A pool whose patience is more than half of
STABLE waits until the mean itself has fallen."""

WARY = 600.0
"""Seconds for which no fall is followed at once after one that was regretted, which is a panic within STABLE of it (chosen)."""


class PoolSizeMemory(Memory):
    """What the policy remembers."""

    pools: dict[str, PoolMemory] = msgspec.field(default_factory=dict)


class PoolSize:
    """The policy. Growth is proposed at once, a shrink only when fewer workers sufficed for `down_after` seconds."""

    name = "pool_size"

    def __init__(self, config: Config, memory: PoolSizeMemory) -> None:
        self._config = config.pool_size
        self._interval = config.daemon.interval
        self._sizing = Sizing(config)
        self._needs = Needs(config, self._sizing)
        self._reasons = PoolReasons(config, self._sizing)
        self.memory = memory

    def propose(self, tick: Tick) -> list[Proposal[int]]:
        """At most one size per pool. Each proposal keeps the size that it changes from."""
        outlook = Outlook(tick)
        there = {pool.name for pool in tick.pools}
        for gone in sorted(self.memory.pools.keys() - there):
            del self.memory.pools[gone]
        if not self._config.enabled:
            return []
        return [proposal for pool in tick.pools if (proposal := self._pool(tick, pool, outlook)) is not None]

    def waiting(self) -> Collection[str]:
        """None: every desired change is proposed at once."""
        return ()

    def notes(self, tick: Tick, /) -> list[Note]:
        """The objectives that cannot be kept, and growth that is held because the workers that start get no CPU: no decision says
        so."""
        found = []
        for pool in tick.pools:
            memory, objective = self.memory.pools.get(pool.name), self._sizing.objective(pool)
            if memory is not None and memory.unkept and objective is not None:
                said = figures(objective=str(objective), load_now=pool.load, size=pool.size, maximum=pool.maximum)
                found.append(Note(f"objective {pool.name}", f"{pool.name}: {memory.unkept}", said))
            if memory is not None and memory.starts.holds:
                found.append(self._reasons.held(tick, pool))
        return found

    def skip(self) -> None:
        """After a gap it is unknown which size was sufficient meanwhile."""
        for memory in self.memory.pools.values():
            memory.since, memory.peaks = None, []
            memory.falling = memory.fallen = None
            memory.starts.under_way = []

    def admit(self, decision: Decision, kept: int, at: int, /) -> None:
        """The size counts as asked for from now on."""
        if isinstance(decision.action, ResizePool):
            memory = self.memory.pools[decision.action.pool]
            if decision.action.size > kept:
                memory.grown_at = at
            memory.changed_at = at
            memory.asked = decision.action.size

    def learn(self, result: Result) -> None:
        """Stops asking for a size that the pool did not take: the pool's own size counts again."""
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
        watch(memory.starts, tick.at, pool, tick.machine, self._config.cpu_headroom, self._interval)
        mean = self._mean(tick.at, pool, memory)
        need = None if pool.load is None else self._needs.need(tick, pool, memory, outlook, current, mean)
        memory.starts.holds = need is not None and need.bound is Bound.STARTS
        if need is None:
            memory.since, memory.peaks, memory.unkept = None, [], ""
            return None
        memory.unkept = self._unkept(tick.at, pool, need, memory)
        enough = self._remember(tick.at, need.sufficient, memory)
        if need.ahead is not None and need.ahead <= CLIFF * current:
            enough = need.ahead
        elif need.ahead is not None and enough is not None:
            enough = max(enough, need.ahead)
        rush = peak(memory.rushes, tick.at, self._sizing.wanted(pool.load_panic or 0.0, pool, self._config.target), CALM)
        if enough is not None and need.by_season is None:
            enough = min(max(enough, min(int(rush / PANIC_THRESHOLD), SMALL) + 1), pool.maximum)
        if need.workers > current * (MARGIN if need.rule is SizeRule.SEASONALITY else 1.0):
            if need.rule is SizeRule.PANIC and memory.fallen is not None:
                memory.wary_until = tick.at + round(WARY * 1e9)
            if _passed(tick.at, memory.grown_at, self._config.cooldown_up, self._interval):
                return self._proposal(pool, need, need.workers, current)
        elif (
            enough is not None
            and enough < current
            and pool.size == pool.requested
            and not self._falls_further(enough, pool, need, memory)
            and _passed(tick.at, memory.changed_at, self._config.cooldown_down, self._interval)
        ):
            if need.by_season is not None and enough <= CLIFF * current and pool.load is not None:
                memory.fallen = Fallen(
                    tick.at, pool.load, 1
                )  # if the seasonal pattern is given up now, the past load must not count
            return self._proposal(pool, need, enough, current)
        return None

    def _unkept(self, at: int, pool: Pool, need: Need, memory: PoolMemory) -> str:
        """Why the objective cannot be kept. That service times are not known counts once they had time to become known."""
        said = self._reasons.unkept(pool, need)
        if not said or pool.service is not None:
            memory.unknown_since = None
            return said
        memory.unknown_since = at if memory.unknown_since is None else memory.unknown_since
        return said if at - memory.unknown_since >= STABLE * 1e9 else ""

    def _falls_further(self, enough: int, pool: Pool, need: Need, memory: PoolMemory) -> bool:
        """Whether a much larger shrink is near, which a small one now would only delay by `cooldown_down`."""
        predicted, falling = pool.predicted, memory.falling
        if need.by_season is None or predicted is None:
            return falling is not None and self._sizing.workers_for(falling.mean, pool, self._config.target) <= CLIFF * enough
        share = busy_share(self._config, predicted)
        least = max(self._sizing.workers_for(max(predicted.least, 0.0), pool, share), pool.minimum)
        return least <= CLIFF * min(enough, self._sizing.workers_for(predicted.median, pool, share))

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

    def _proposal(self, pool: Pool, need: Need, size: int, current: int) -> Proposal[int]:
        why = self._reasons.why(pool, need, size, current)
        return Proposal(self.name, f"pool {pool.name}", ResizePool(pool.name, size), why, current, _aim(pool, size, current))


def _aim(pool: Pool, size: int, current: int) -> Aim | None:
    """The queued work, which the change is to shrink once the new workers can be up. None: the queue is unknown."""
    if pool.queued is None:
        return None
    delay = (pool.start_seconds or 0.0) if size > pool.size else 0.0
    return Aim(Metric.QUEUED, pool.name, pool.queued, pool.name, Control.POOL_SIZE, back=False, delay=delay, size=current)


def _passed(at: int, since: int | None, seconds: float, interval: float) -> bool:
    """Whether `seconds` have passed. A tenth of an interval early counts: ticks jitter, and a cool-down of one tick must not take
    two."""
    return since is None or at - since >= (seconds - 0.1 * interval) * 1e9
