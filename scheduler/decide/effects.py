"""Whether decisions helped: the figure that each was to improve, before it and some time after. Pure: knows no policy.

The mean of the figure over `priority.effect_after` seconds is compared with its value at the decision. It is measured from the next
tick on, the first that covers the whole change, or from when the change can show. The queue of a pool is compared with the one that
it would have had meanwhile at its old size (`unresized.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec

from ...models.records import Class
from ..decision import Decision, Effect, Outcome, Pool, ResizePool, Tick
from ..hands.faults import Status
from ..hands.places import Control
from .policies.policy import Aim, Impact, Memory, Metric
from .policies.priority.supply import wait_share
from .unresized import Unresized

CHANGE = 0.25
"""A figure counts as better or worse if it changed by this share of the value before (chosen): means over a short time scatter by a
tenth."""

LEAST_CHANGE = {Metric.WAIT: 0.01, Metric.QUEUED: 0.5}
"""Least change that counts, whatever share it is (chosen): cores of wait per core of demand; pieces of work."""

MORE_BATCH = 1.5
"""A longer wait says nothing about the decision if batch groups now want this many times as much (chosen): they came afterwards."""

WORDS = {Metric.WAIT: "wait of group {}, cores per core of demand", Metric.QUEUED: "queued work of pool {}"}
"""What is measured, for people."""


class Judged(StrEnum):
    """What a figure says about a decision."""

    HELPED = "helped"
    NO_EFFECT = "no effect"
    HURT = "hurt"
    MORE_CONTENTION = "more contention"  # worse, but batch work wants far more than at the decision
    CANNOT_TELL = "cannot tell"  # what the figure would have been is not known well enough


class Watch(Memory):
    """A decision whose effect is being measured."""

    decision: str  # of several that are measured as one, the first
    policy: str
    aim: Aim
    batch: float  # cores that batch groups wanted when it was decided
    since: int  # ns from which the figure after the change is averaged
    due: int
    again: int  # measurements still to make if this one finds that it failed
    ticks: int = 0  # since the decision
    total: float = 0.0
    batch_total: float = 0.0  # of `batch` since then, summed like `total`
    count: int = 0
    applied: bool = False  # the outcome says that something was changed
    others: list[str] = msgspec.field(default_factory=list)  # the other decisions of the same tick that are measured with it
    unresized: Unresized | None = None  # None: the aim is not the queue of a pool


class EffectsMemory(Memory):
    """What is being measured."""

    watches: list[Watch] = msgspec.field(default_factory=list)


class Effects:
    """Measures the effects of decisions. Call `hear` and `measure` before the decisions of a tick, and `watch` after them."""

    def __init__(self, memory: EffectsMemory, seconds: float) -> None:
        """`seconds`: over which a figure is averaged."""
        self.memory = memory
        self._window = round(seconds * 1e9)

    def skip(self) -> None:
        """A gap: the figures to compare were not measured."""
        self.memory.watches = []

    def hear(self, outcomes: Iterable[Outcome]) -> None:
        """Drops decisions whose outcome says that they changed nothing."""
        changed = {outcome.decision: outcome.status in (Status.APPLIED, Status.PARTIAL) for outcome in outcomes}
        if changed:
            self.memory.watches = [watch for watch in self.memory.watches if _hears(watch, changed)]

    def watch(self, tick: Tick, decisions: Iterable[tuple[Decision, Aim]]) -> None:
        """Starts to measure these. Several decisions of a tick that change one group for one victim are measured as one."""
        batch, made = _batch_demand(tick), dict[tuple[str, str, Control, bool, str], Watch]()
        pools = {pool.name: pool for pool in tick.pools}
        for decision, aim in decisions:
            key = (decision.policy, aim.group, aim.control, aim.back, aim.of)
            if key in made:
                made[key].others.append(decision.id)
                continue
            since = tick.at + 1 + round(aim.delay * 1e9)
            made[key] = Watch(decision.id, decision.policy, aim, batch, since, since - 1 + self._window, aim.again)
            if isinstance(decision.action, ResizePool) and aim.metric is Metric.QUEUED:
                made[key].unresized = _unresized(tick.at, pools[aim.of], decision.action.size, aim)
        self.memory.watches += made.values()

    def measure(self, tick: Tick) -> list[tuple[str, Impact]]:
        """(policy, effect of one of its decisions) for each measurement that ends in this tick. Those that failed may go on."""
        if not self.memory.watches:
            return []
        now: dict[tuple[Metric, str], float | None] = {(Metric.QUEUED, pool.name): pool.queued for pool in tick.pools}
        pools = {pool.name: pool for pool in tick.pools}
        now.update({(Metric.WAIT, group.name): wait_share(group) for group in tick.groups})
        batch = _batch_demand(tick)
        found, going = list[tuple[str, Impact]](), list[Watch]()
        for watch in self.memory.watches:
            watch.ticks += 1
            if watch.unresized is not None:
                watch.unresized.step(tick.at, pools.get(watch.aim.of), tick.at >= watch.since)
            value = now.get((watch.aim.metric, watch.aim.of))
            if value is not None and tick.at >= watch.since:
                watch.total += value
                watch.batch_total += batch
                watch.count += 1
            if tick.at < watch.due:
                going.append(watch)
            elif watch.applied and watch.count:
                measured = _measured(watch)
                found.append((watch.policy, measured))
                if measured.failed and watch.again:
                    going.append(self._once_more(watch, tick.at))
        self.memory.watches = going
        return found

    def validate(self) -> None:
        """Raises AssertionError if the memory contradicts itself. For tests."""
        for watch in self.memory.watches:
            assert watch.count <= watch.ticks, f"{watch.decision}: more values than ticks"
            assert watch.since <= watch.due, f"{watch.decision}: measured before it begins"

    def _once_more(self, watch: Watch, at: int) -> Watch:
        """A measurement of the same figure over the next window."""
        return msgspec.structs.replace(
            watch, since=at + 1, due=at + self._window, total=0.0, batch_total=0.0, count=0, again=watch.again - 1
        )


def _measured(watch: Watch) -> Impact:
    """The effect at the end of a measurement."""
    aim, after, unchanged = watch.aim, watch.total / watch.count, None
    judged = judge(aim.metric, aim.before, after)
    if watch.unresized is not None:
        unchanged = watch.unresized.bounds(watch.count)
        judged = Judged.CANNOT_TELL if unchanged is None else judge_beside(aim.metric, unchanged, after)
    wait = aim.metric is Metric.WAIT
    if judged is Judged.HURT and wait and watch.batch_total / watch.count > MORE_BATCH * watch.batch:
        judged = Judged.MORE_CONTENTION
    failed = aim.goal is not None and min(aim.before, after) >= aim.goal and judged is not Judged.HELPED
    effect = Effect(
        decision=watch.decision,
        metric=WORDS[aim.metric].format(aim.of),
        before=aim.before,
        after=after,
        ticks=watch.ticks,
        verdict=judged.value,
        others=tuple(watch.others),
        unchanged=unchanged,
    )
    return Impact(aim, effect, failed, final=not watch.again and judged is not Judged.MORE_CONTENTION)


def judge(metric: Metric, before: float, after: float) -> Judged:
    """Whether a figure became better.

    A wait is better if its victim waits a quarter less *for each second of CPU that it gets*: that is what its requests feel. As a
    share of its demand, a wait of 97 % has almost no room to get better: beside a hundred hogs 90 % is a third of it.

    >>> [judge(Metric.WAIT, before, after).value for before, after in [(0.97, 0.9), (0.97, 0.965), (0.1, 0.07), (0.1, 0.14)]]
    ['helped', 'no effect', 'helped', 'hurt']
    """
    least = LEAST_CHANGE[metric]
    change = max(CHANGE * before, least)
    if metric is Metric.WAIT and before - after >= least and _per_cpu(after) <= (1 - CHANGE) * _per_cpu(before):
        return Judged.HELPED
    return Judged.HELPED if after <= before - change else Judged.HURT if after >= before + change else Judged.NO_EFFECT


def judge_beside(metric: Metric, unchanged: tuple[float, float | None], after: float) -> Judged:
    """Whether a figure is better than it would have been. `unchanged`: the least and the most that it would have been; None: no
    bound.

    >>> [judge_beside(Metric.QUEUED, bounds, 1.0).value for bounds in [(4.0, None), (1.0, 1.2), (0.0, 9.0), (0.0, 0.0)]]
    ['helped', 'no effect', 'cannot tell', 'hurt']
    """
    least, most = unchanged
    low = judge(metric, least, after)
    high = Judged.HELPED if most is None else judge(metric, most, after)
    return low if low is high else Judged.CANNOT_TELL


def _unresized(at: int, pool: Pool, size: int, aim: Aim) -> Unresized:
    """The pool as it was when it was decided to give it another size."""
    before, here = pool.requested if aim.size is None else aim.size, (pool.load or 0.0) * pool.capacity
    return Unresized(
        size=before,
        ready=sum(worker.ready for worker in pool.workers),
        grown=size > before,
        at=at,
        real=here,
        here=here,
        mean=None if pool.service is None else pool.service.mean,
        lost=pool.load is None,
    )


def _per_cpu(share: float) -> float:
    """Seconds of waiting for each second of CPU, from the wait as a share of the demand."""
    return share / max(1.0 - share, 1e-9)


def _batch_demand(tick: Tick) -> float:
    """Cores that batch groups want."""
    return sum((group.demand for group in tick.groups if group.class_ is Class.BATCH), 0.0)


def _hears(watch: Watch, changed: Mapping[str, bool]) -> bool:
    """Notes which decisions changed something. Returns whether there is still something to measure."""
    heard = [changed[id_] for id_ in (watch.decision, *watch.others) if id_ in changed]
    watch.applied |= any(heard)
    return not heard or any(heard)
