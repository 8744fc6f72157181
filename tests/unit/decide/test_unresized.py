"""The queue at the old size: beside a simulated pool that kept it, and by hand where service times are not known."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.decide.effects import Effects, EffectsMemory
from nicety.scheduler.decide.policies.policy import Aim, Metric
from nicety.scheduler.decide.unresized import Unresized
from nicety.scheduler.decision import Decision, Effect, Outcome, Pool, ResizePool, Service, Why, Worker
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.places import Control
from nicety.scheduler.simulation.queueing import SimulatedQueue
from nicety.scheduler.testing.ticks import a_pool, a_tick

SECOND = 1_000_000_000
SERVICE = Service(arrivals=20.0, mean=0.2, p95=0.54)


def seen(queue: SimulatedQueue, service: Service | None) -> Pool:
    """The pool as a tick has it."""
    look = queue.look()
    return a_pool(
        "web",
        look.ready,
        look.busy_mean + look.queued_mean,
        busy=look.busy_mean,
        queued=look.queued_mean,
        service=service,
    )


@pytest.mark.parametrize(
    ("load", "before", "after"), [(4.0, 3, 8), (4.0, 6, 8), (4.0, 8, 3), (7.6, 8, 10), (12.0, 2, 16), (3.0, 12, 4)]
)
@pytest.mark.parametrize("mean", [0.05, 0.2, 2.0])
def test_the_queue_is_that_of_a_pool_that_kept_its_size(load: float, before: int, after: int, mean: float) -> None:
    chance, n = np.random.default_rng(1), round(load / mean * 60)
    arrivals = np.sort(chance.uniform(0, 60, n))
    queue = SimulatedQueue(arrivals, chance.lognormal(np.log(mean) - 0.32, 0.8, n), 1.0, before)
    service = Service(load / mean, mean, 2.7 * mean)
    queue.advance(19.0)
    queue.look()
    queue.advance(20.0)
    pool, twin = seen(queue, service), queue.twin()
    queue.resize(after)
    here = pool.load or 0.0
    unresized = Unresized(before, before, after > before, 20 * SECOND, here, here, mean)
    for second in range(21, 41):
        queue.advance(float(second))
        unresized.step(second * SECOND, seen(queue, service), counts=second > 30)
    twin.advance(40.0)
    real, kept = queue.waited(30.0, 40.0), twin.waited(30.0, 40.0)
    found = unresized.bounds(10)
    assert found is not None
    assert found[0] == found[1] == pytest.approx(kept, rel=0.25, abs=1.0)
    assert (found[0] >= real - 0.2) if after > before else (found[0] <= real + 0.2)


def stepped(grown: bool, *loads: float, size: int = 4, **changes: object) -> Unresized:
    """A pool of four workers, and its load tick by tick after another size was asked for."""
    unresized = Unresized(size, size, grown, 0, 4.0, 4.0)
    for tick, load in enumerate(loads, 1):
        busy = min(load, 8.0 if grown else 2.0)
        values = {"busy": busy, "queued": load - busy, **changes}
        unresized.step(tick * SECOND, a_pool("web", 8 if grown else 2, load, **values), counts=True)  # type: ignore[arg-type]
    return unresized


def test_what_is_there_bounds_the_queue_of_a_pool_whose_service_times_are_not_known() -> None:
    assert stepped(True, 6.0, 7.0).bounds(2) == (2.5, None)
    assert stepped(True, 2.0, 2.5).bounds(2) == (0.0, 0.0)
    assert stepped(True, 2.0, 3.5).bounds(2) == (0.0, None)
    assert stepped(False, 6.0, 7.0).bounds(2) == (0.0, 2.5)


@pytest.mark.parametrize(("grown", "queued"), [(True, 3.0), (False, 0.0)])
def test_a_growth_never_makes_a_queue_longer_nor_a_shrink_shorter(grown: bool, queued: float) -> None:
    unresized = stepped(grown, 3.9, queued=queued, service=SERVICE)
    assert unresized.bounds(1) == (queued, queued)


def test_without_a_load_or_with_other_service_times_nothing_is_known() -> None:
    assert stepped(True, 6.0, 7.0, queued=None).bounds(2) is None
    gone = stepped(True, 6.0)
    gone.step(2 * SECOND, None, counts=True)
    assert gone.bounds(1) is None
    slower = Unresized(4, 4, True, 0, 4.0, 4.0, mean=0.1)
    slower.step(SECOND, a_pool("web", 8, 4.0, service=SERVICE), counts=True)
    assert slower.bounds(1) is None


def test_its_memory_goes_through_json() -> None:
    unresized = stepped(True, 6.0, 7.0)
    assert msgspec.json.decode(msgspec.json.encode(unresized), type=Unresized).bounds(2) == unresized.bounds(2)


def told(size: int, queued: float, *later: tuple[int, float]) -> Effect:
    """The effect of a resize from two workers in a pool with so much queued work, then (workers, load) tick by tick."""
    effects = Effects(EffectsMemory(), 3.0)
    pool = a_pool("web", 2, 2.0 + queued, busy=2.0, queued=queued, service=SERVICE)
    decision = Decision("s-0.0", "pool_size", "pool web", ResizePool("web", size), Why("rule", "text", {}, (), ()))
    aim = Aim(Metric.QUEUED, "web", queued, "web", Control.POOL_SIZE, back=False, size=2)
    effects.watch(a_tick(0, pools=[pool]), [(decision, aim)])
    effects.hear([Outcome("s-0.0", Status.APPLIED, "", "", 1)])
    found = []
    for seq, (workers, load) in enumerate(later, 1):
        busy = min(load, float(workers))
        now = a_pool("web", workers, load, busy=busy, queued=load - busy, service=SERVICE)
        found += effects.measure(a_tick(seq, pools=[now]))
        effects.validate()
    ((_, impact),) = found
    return impact.effect


def test_a_growth_under_a_rising_load_helped_though_more_waits_than_before() -> None:
    effect = told(6, 4.0, (6, 9.0), (6, 11.0), (6, 13.0))
    assert (effect.verdict, effect.before, effect.after) == ("helped", 4.0, 5.0)
    assert effect.unchanged is not None
    assert effect.unchanged[0] > 30.0  # 20 more are served each second, which would be there too


def test_a_growth_after_the_load_had_fallen_had_no_effect_though_the_queue_is_gone() -> None:
    assert told(6, 1.0, (6, 0.1), (6, 0.1), (6, 0.1)).verdict == "no effect"


def test_a_queue_that_a_shrink_left_hurt() -> None:
    effect = told(1, 0.0, (1, 2.0), (1, 2.5), (1, 3.0))
    assert effect.verdict == "hurt"
    assert effect.unchanged is not None
    assert effect.unchanged[0] < 0.5


def test_workers_that_start_are_not_counted_before_they_are_up() -> None:
    unresized = Unresized(4, 2, True, 0, 4.0, 4.0)
    starting = tuple(Worker(ProcId(pid, pid), pid < 3, 0.5, 0.1, 0.0, 1) for pid in range(1, 9))
    unresized.step(SECOND, a_pool("web", 8, 6.0, queued=4.0, workers=starting), counts=True)
    assert unresized.bounds(1) == (4.0, None)
