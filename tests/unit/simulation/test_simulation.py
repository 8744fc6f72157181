"""The simulated pool against closed forms, peers' rules by hand, nicety against its own engine, and loads."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nicety.scheduler.config.sections import Config
from nicety.scheduler.decide.engine import Engine
from nicety.scheduler.decision import ResizePool, Rules, Tick, Verdict
from nicety.scheduler.simulation import peers, run
from nicety.scheduler.simulation.arrivals import PEAK, SHAPES, Load, LoadError, Trace, fitted, made_up, steady
from nicety.scheduler.simulation.oracle import Oracle
from nicety.scheduler.simulation.ours import Nicety, configured
from nicety.scheduler.simulation.queueing import Floats, PoolSeen, SimulatedQueue, WorkerSeen, play, worker_seconds
from nicety.scheduler.simulation.tracefile import read


def served(arrivals: list[float], services: list[float], workers: int) -> Floats:
    """Latencies with a fixed number of workers."""
    queue = SimulatedQueue(np.array(arrivals), np.array(services), 1.0, workers)
    queue.advance(math.inf)
    return queue.latencies(0.0)


# --- the queue ----------------------------------------------------------------------------------------------------------------


def test_one_worker_serves_as_lindleys_recursion_says() -> None:
    chance = np.random.default_rng(1)
    arrivals, services = np.cumsum(chance.exponential(1.0, 2000)), chance.lognormal(-0.4, 0.8, 2000)
    wait, expected = 0.0, []
    for place in range(2000):
        if place:
            wait = max(wait + services[place - 1] - (arrivals[place] - arrivals[place - 1]), 0.0)
        expected.append(wait + services[place])
    assert served(arrivals.tolist(), services.tolist(), 1) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("workers", "load"), [(1, 0.7), (4, 3.0), (12, 9.6)])
def test_exponential_requests_wait_as_erlang_c_says(workers: int, load: float) -> None:
    chance, n = np.random.default_rng(2), 300_000
    arrivals, services = np.cumsum(chance.exponential(1 / load, n)), chance.exponential(1.0, n)
    waits = served(arrivals.tolist(), services.tolist(), workers) - services
    terms = [load**k / math.factorial(k) for k in range(workers)]
    last = load**workers / math.factorial(workers) * workers / (workers - load)
    probability = last / (sum(terms) + last)
    assert (waits > 1e-9).mean() == pytest.approx(probability, rel=0.05)
    assert waits.mean() == pytest.approx(probability / (workers - load), rel=0.1)


def test_a_worker_serves_when_it_has_come_up_and_not_before() -> None:
    queue = SimulatedQueue(np.array([1.0, 1.1]), np.array([10.0, 10.0]), 4.0, 1)
    queue.advance(2.0)
    queue.resize(2)
    seen = queue.look()
    assert (seen.size, seen.ready, seen.busy, seen.queued, seen.start_seconds) == (2, 1, 1, 1, None)
    queue.advance(7.0)
    seen = queue.look()
    assert (seen.size, seen.ready, seen.busy, seen.queued, seen.start_seconds) == (2, 2, 2, 0, 4.0)
    queue.advance(math.inf)
    assert queue.latencies(0.0) == pytest.approx([10.0, 6.0 - 1.1 + 10.0])


def test_a_busy_worker_that_is_let_go_finishes_its_request_and_counts_until_then() -> None:
    queue = SimulatedQueue(np.array([0.0, 0.0, 0.5]), np.array([3.0, 8.0, 1.0]), 1.0, 2)
    queue.advance(1.0)
    queue.resize(1)
    seen = queue.look(workers=True)
    assert (seen.size, seen.busy, seen.queued) == (1, 2, 1)
    assert [worker.leaving for worker in seen.workers] == [True, False]
    queue.advance(20.0)
    assert queue.latencies(0.0) == pytest.approx([3.0, 8.0, 8.0 - 0.5 + 1.0])
    born, gone = queue.lives(20.0)
    assert worker_seconds(born, gone, 0.0, 20.0) == pytest.approx(3.0 + 20.0)


def test_starting_workers_go_first_and_then_idle_ones() -> None:
    queue = SimulatedQueue(np.array([0.0]), np.array([9.0]), 5.0, 2)
    queue.advance(1.0)
    queue.resize(4)
    queue.advance(2.0)
    queue.resize(2)
    assert (queue.look().ready, queue.look().idle) == (2, 1)
    queue.resize(1)
    seen = queue.look()
    assert (seen.size, seen.ready, seen.idle, seen.busy) == (1, 1, 0, 1)
    born, gone = queue.lives(10.0)
    assert worker_seconds(born, gone, 0.0, 10.0) == pytest.approx(2 * 1.0 + 2.0 + 10.0)


def test_what_is_seen_of_a_span_is_exact() -> None:
    queue = SimulatedQueue(np.array([0.5, 0.5, 1.0]), np.array([1.0, 2.0, 1.0]), 1.0, 1)
    queue.advance(2.0)
    seen = queue.look()
    assert seen.busy_mean == pytest.approx(1.5 / 2)
    assert seen.queued_mean == pytest.approx((1.0 + 1.0) / 2)  # the second waits from 0.5 to 1.5, the third from 1.0 on
    queue.advance(4.0)
    seen = queue.look()
    assert (seen.busy_mean, seen.queued_mean) == pytest.approx((1.0, 1.5 / 2))
    assert seen.load == pytest.approx(1.75)


def test_means_seen_add_up_to_all_that_was_served() -> None:
    load = made_up("spikes", 600, 32, 0.2, 1)
    queue, rule = SimulatedQueue(load.arrivals, load.services, 4.0, 8), peers.Celery(2, 32)
    busy = 0.0
    for tick in range(1, 6001):
        queue.advance(tick / 10)
        seen = queue.look()
        busy += seen.busy_mean / 10
        queue.resize(rule.size(seen))
    begun = queue.latencies(0.0)
    left = sum(max(0.0, a + latency - 600.0) for a, latency in zip(load.arrivals.tolist(), begun.tolist(), strict=False))
    assert busy == pytest.approx(load.services[: len(begun)].sum() - left, rel=1e-6)


def test_what_a_worker_has_finished_counts_at_the_end_of_a_request() -> None:
    queue = SimulatedQueue(np.array([0.0, 0.0]), np.array([1.0, 5.0]), 1.0, 1)
    queue.advance(3.0)
    (worker,) = queue.look(workers=True).workers
    assert (worker.busy, worker.finished_seconds) == (True, 1.0)
    queue.advance(8.0)
    (worker,) = queue.look(workers=True).workers
    assert (worker.busy, worker.finished_seconds, worker.idle_seconds) == (False, 6.0, 2.0)


# --- peers --------------------------------------------------------------------------------------------------------------------


def a_look(
    at: float = 0.0, size: int = 4, busy: float = 0, queued: float = 0, ready: int | None = None, **more: object
) -> PoolSeen:
    """A pool whose workers are all up unless told otherwise."""
    up = size if ready is None else ready
    values: dict[str, object] = {
        "at": at,
        "size": size,
        "ready": up,
        "idle": up - math.ceil(busy),
        "busy": math.ceil(busy),
        "queued": round(queued),
        "arrived": 0,
        "busy_mean": float(busy),
        "queued_mean": float(queued),
        "service_seconds": 0.5,
        "start_seconds": 4.0,
        "workers": (),
    }
    return PoolSeen(**{**values, **more})  # type: ignore[arg-type]  # tests give what it takes


def test_uwsgi_spare_grows_after_three_busy_seconds_and_shrinks_each_third() -> None:
    rule = peers.UwsgiSpare(2, 8)
    assert [rule.size(a_look(busy=4)) for _ in range(4)] == [4, 4, 5, 4]
    rule = peers.UwsgiSpare(2, 8)
    assert [rule.size(a_look(busy=3)) for _ in range(9)] == [4] * 9
    assert [rule.size(a_look(busy=1)) for _ in range(6)] == [4, 4, 3, 4, 4, 3]
    assert [peers.UwsgiSpare(2, 8).size(a_look(size=5, ready=4, busy=4)) for _ in range(9)] == [5] * 9  # a starting one is spare


def test_uwsgi_spare2_keeps_the_wanted_spares() -> None:
    rule = peers.UwsgiSpare2(2, 8)
    assert rule.size(a_look(busy=4)) == 5
    assert rule.size(a_look(busy=2)) == 4
    assert [rule.size(a_look(busy=1)) for _ in range(10)] == [4] * 9 + [3]


def test_uwsgi_backlog_goes_by_the_accept_queue() -> None:
    rule = peers.UwsgiBacklog(2, 8)
    assert [rule.size(a_look(busy=3, queued=queued)) for queued in (4, 3, 2)] == [5, 4, 3]
    assert rule.size(a_look(busy=4, queued=2)) == 4  # a busy one is not stopped


def busyness(rule: peers.UwsgiBusyness, seconds: int, share: float, size: int, queued: int = 0, since: int = 0) -> list[int]:
    sizes = []
    for second in range(since + 1, since + seconds + 1):
        workers = tuple(WorkerSeen(i, 0.0, True, False, False, 0.0, share * second) for i in range(size))
        sizes.append(rule.size(a_look(at=second, size=size, queued=queued, workers=workers)))
    return sizes


def test_uwsgi_busyness_looks_each_three_seconds() -> None:
    assert busyness(peers.UwsgiBusyness(2, 8), 6, 0.6, 4) == [4, 4, 5, 4, 4, 5]
    assert set(busyness(peers.UwsgiBusyness(2, 8), 60, 0.3, 4)) == {4}
    idle = busyness(peers.UwsgiBusyness(2, 8), 90, 0.1, 4)
    assert [second for second, size in enumerate(idle, 1) if size < 4] == [30, 60, 90]
    assert busyness(peers.UwsgiBusyness(2, 8), 2, 0.1, 4, queued=34) == [5, 5]
    waiting = busyness(peers.UwsgiBusyness(2, 8), 70, 0.3, 4, queued=1)
    assert [second for second, size in enumerate(waiting, 1) if size > 4] == [61]


def test_celery_never_shrinks_before_it_grew_and_then_after_30_s() -> None:
    rule = peers.Celery(2, 8)
    assert rule.size(a_look(at=100, size=6, busy=1)) == 6
    assert rule.size(a_look(at=101, size=6, busy=6, queued=1)) == 7
    assert rule.size(a_look(at=102, size=7, busy=7, queued=100)) == 8
    assert rule.size(a_look(at=132, size=8, busy=3)) == 8
    assert rule.size(a_look(at=132.1, size=8, busy=3)) == 3


def test_php_keeps_one_to_three_spare_children() -> None:
    rule = peers.PhpDynamic(2, 6)
    assert [rule.size(a_look(size=4, busy=busy)) for busy in (4, 3, 1, 0)] == [5, 4, 4, 3]
    assert rule.size(a_look(size=6, busy=6)) == 6
    rule2 = peers.PhpOndemand(2, 6)
    assert rule2.size(a_look(size=4, busy=4, queued=3, arrived=3)) == 6
    assert rule2.size(a_look(size=6, ready=4, busy=4, queued=3, arrived=3)) == 6  # no connection came since
    idle = tuple(WorkerSeen(i, 0.0, True, False, False, 11.0, 0.0) for i in range(6))
    assert [rule2.size(a_look(size=6, arrived=3, workers=idle)) for _ in range(8)] == [6] * 7 + [5]


def test_dask_clears_the_queue_in_five_seconds_and_waits_three_to_close() -> None:
    rule = peers.Dask(1, 16)
    assert rule.size(a_look(size=4, busy=4, queued=56)) == 6  # 60 tasks of 0.5 s are 30 s of work
    workers = tuple(WorkerSeen(i, 0.0, True, i == 0, False, 0.0, 0.0) for i in range(4))
    assert [rule.size(a_look(size=4, busy=1, workers=workers)) for _ in range(3)] == [4, 4, 1]


def test_horizon_moves_by_one() -> None:
    rule = peers.Horizon(2, 8)
    assert [rule.size(a_look(size=size, queued=queued)) for size, queued in ((4, 1), (4, 0), (8, 9), (2, 0))] == [5, 3, 8, 2]


def test_hpa_by_cpu() -> None:
    def size(size: int, busy: float, ready: int | None = None) -> int:
        return peers.Hpa(2, 32).size(a_look(at=15, size=size, busy=busy, ready=ready))

    assert size(10, 10) == 13  # 100 % of 80 %
    assert size(10, 8.7) == 10  # within a tenth
    assert size(10, 4) == 5
    assert size(13, 10, ready=10) == 13  # those that start count as idle: 96 %
    rule = peers.Hpa(2, 32)
    assert rule.size(a_look(at=15, size=10, busy=10)) == 13
    assert [rule.size(a_look(at=at, size=13, busy=4)) for at in (30, 300, 314)] == [13, 13, 13]
    assert rule.size(a_look(at=315, size=13, busy=4)) == 5  # the wish for 13 is five minutes old


def test_keda_by_the_length_of_a_list() -> None:
    assert peers.Keda(2, 32).size(a_look(size=8, queued=50)) == 10
    assert peers.Keda(2, 32).size(a_look(size=2, queued=100)) == 6  # 4 pods or as many again in a period
    assert peers.Keda(2, 32).size(a_look(size=10, queued=52)) == 10
    assert peers.Keda(2, 32).size(a_look(size=10, queued=0)) == 2


def kpa(rule: peers.Kpa, since: float, until: float, load: float, size: int) -> list[int]:
    sizes = []
    while since < until:
        since += 2
        size = rule.size(a_look(at=since, size=size, busy=load))
        sizes.append(size)
    return sizes


def test_kpa_is_in_panic_at_first_and_then_goes_by_60_s() -> None:
    rule = peers.Kpa(2, 32)
    sizes = kpa(rule, 0, 70, 3.5, 12)
    assert sizes[:31] == [12] * 31  # a panic at 2 s that lasts until more than 60 s later
    assert sizes[31:] == [6, 5, 5, 5]  # never less than half of the ready ones
    up = kpa(rule, 70, 80, 21.0, 5)
    # after 2 s: 6 s have (3.5 + 3.5 + 21) / 3 = 9.33 -> 14 >= 2 x 5: a panic with 14; then (3.5 + 42) / 3 -> 22 and 21 / .7 = 30
    assert up == [14, 22, 30, 30, 30]
    down = kpa(rule, 80, 160, 3.5, 30)
    assert down[:26] == [30] * 26  # the panic of 72 s is over after 132 s
    assert down[26:] == [15, 7, 6, *[5] * 11]


def test_ray_serve_waits_30_s_to_grow_and_600_s_to_shrink() -> None:
    rule = peers.RayServe(1, 32)
    up = [rule.size(a_look(size=4, busy=4, queued=4)) for _ in range(301)]
    assert up == [4] * 300 + [8]
    rule = peers.RayServe(1, 32)
    down = [rule.size(a_look(size=8, busy=2)) for _ in range(6001)]
    assert down == [8] * 6000 + [2]


def test_holt_grows_by_one_a_decision_and_only_on_a_trend() -> None:
    rule = peers.Holt(2, 32)
    assert {rule.size(a_look(at=at, size=6, busy=4)) for at in range(1, 100)} == {6}
    rule = peers.Holt(2, 32)
    sizes = [rule.size(a_look(at=at, size=6, busy=min(4 + max(at - 20, 0) / 10, 6))) for at in range(1, 61)]
    assert [at for at, size in enumerate(sizes, 1) if size != 6] == [30, 40, 50, 60]
    assert set(sizes) == {6, 7}


@pytest.mark.parametrize("name", [*peers.PEERS, "nicety", "nicety-reactive"])
def test_no_rule_knows_the_future(name: str) -> None:
    calm = made_up("noise", 300, 32, 0.2, 1)
    early = calm.arrivals < 100
    late = np.sort(np.random.default_rng(1).uniform(100, 200, 9000))
    storm = replace(
        calm,
        arrivals=np.concatenate([calm.arrivals[early], late]),
        services=np.concatenate([calm.services[early], np.full(9000, 0.3)]),
    )
    sizes = []
    for load in (calm, storm):
        queue, seen = SimulatedQueue(load.arrivals, load.services, 4.0, 6), []
        rule = run.make(name, load, 4.0, 2, 32, None, None)
        for turn in range(1, int(100 / rule.period) + 1):
            queue.advance(turn * rule.period)
            size = min(max(rule.size(queue.look(rule.wants_workers)), 2), 32)
            queue.resize(size)
            seen.append(size)
        sizes.append(seen)
    assert sizes[0] == sizes[1]


def test_the_oracle_knows_it_one_start_time_ahead() -> None:
    erlangs = np.where(np.arange(100) < 50, 4.0, 16.0)
    rule = Oracle(0.8, erlangs, 20.0)
    assert [rule.size(a_look(at=at)) for at in (1, 28, 29, 60, 99)] == [5, 5, 20, 20, 20]
    assert Oracle(0.8, erlangs, 4.0).size(a_look(at=44)) == 5


# --- nicety -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", Rules)
def test_what_is_simulated_is_what_the_engine_decides(rules: Rules) -> None:
    load = made_up("noise", 120, 32, 0.2, 1)
    rule = Nicety(Config(), 2, 32, run.shipped_demand(), rules=rules, size=14 if rules is Rules.CONSTANT else 0)
    queue = SimulatedQueue(load.arrivals, load.services, 4.0, 12)
    logged: list[tuple[Tick, Verdict, int]] = []
    for turn in range(1, 1201):
        queue.advance(turn * rule.period)
        size = rule.size(queue.look(rule.wants_workers))
        queue.resize(size)
        if turn % 10 == 0:
            assert rule.last is not None
            logged.append((*rule.last, size))
    engine, wanted, resizes = Engine(configured(Config(), 2, 32), "simulate"), 12, 0
    awaited: list[str] = []
    for tick, verdict, size in logged:
        assert [outcome.decision for outcome in tick.outcomes] == awaited
        awaited = [decision.id for decision in verdict.decisions]
        assert engine.step(tick) == verdict
        engine.validate()
        for decision in verdict.decisions:
            assert isinstance(decision.action, ResizePool)
            wanted, resizes = decision.action.size, resizes + 1
        assert size == wanted
    assert resizes > (0 if rules is Rules.CONSTANT else 1)
    assert {chosen.rules for tick, _, _ in logged for chosen in tick.chosen} == {rules} - {Rules.ALL}
    (pool,) = logged[-1][0].pools
    assert (pool.minimum, pool.maximum, pool.start_seconds, pool.trouble) == (2, 32, 4.0, "")


def test_the_policy_sees_the_load_that_there_is() -> None:
    load = steady(6.0, 100, 0.2, 1)
    rule = Nicety(Config(), 2, 32, None)
    play(SimulatedQueue(load.arrivals, load.services, 4.0, 12), rule, 2, 32, 100)
    assert rule.last is not None
    (pool,) = rule.last[0].pools
    assert pool.load_stable == pytest.approx(6.0, rel=0.15)
    assert pool.cpu_per_worker == pytest.approx(1.0, rel=0.05)
    assert rule.last[0].machine.busy == pytest.approx(pool.busy or 0.0, abs=1.0)


def test_a_steady_load_settles_near_what_it_needs() -> None:
    load = steady(7.0, 200, 0.2, 1)
    figures = run.simulate("nicety", load, 4.0, 1, warmup=60, initial=30)
    assert 8 <= figures.track.workers[-1] <= 18
    assert figures.p95 < 0.7


# --- runs ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["kpa", "nicety"])
def test_a_seed_gives_the_same_figures_again_and_another_does_not(rule: str) -> None:
    once, again, other = (run.simulate(rule, "noise", 4.0, seed, seconds=90, warmup=20) for seed in (1, 1, 2))
    assert once == again
    assert (once.track.workers == again.track.workers).all()
    assert (once.p95, once.workers) != (other.p95, other.workers)


def test_figures_of_a_fixed_pool() -> None:
    figures = run.simulate("fixed-32", "steps", 4.0, 1, seconds=1800)
    assert figures.workers == pytest.approx(32, rel=0.01)  # of which 20 are started at the first look
    assert figures.worker_seconds == pytest.approx(figures.workers * 1680)
    assert figures.spawns_per_hour == 0
    assert figures.p95 == pytest.approx(0.2 * math.exp(1.645 * 0.8 - 0.32), rel=0.03)  # of the service time alone
    assert (figures.track.workers[10:] == 32).all()


def test_requests_that_are_never_reached_in_time_count() -> None:
    figures = run.simulate("fixed-2", "noise", 4.0, 1, seconds=300)
    load = made_up("noise", 300, 32, 0.2, 1)
    assert figures.requests == (load.arrivals >= 120).sum()
    assert figures.p99 > 300  # the last is begun long after the end


def test_slow_starts_cost_a_reactive_rule_and_not_the_oracle() -> None:
    found = run.by_rule(
        run.means(run.run(["kpa", "oracle-70"], [lambda seed: made_up("spikes", 1800, 32, 0.2, seed)], [4.0, 20.0], [1, 2]))
    )
    assert found["spikes", 20.0, "kpa"].p95 > 3 * found["spikes", 4.0, "kpa"].p95
    assert found["spikes", 20.0, "oracle-70"].p95 == pytest.approx(found["spikes", 4.0, "oracle-70"].p95, rel=0.1)
    assert found["spikes", 4.0, "oracle-70"].workers < 0.8 * found["spikes", 4.0, "kpa"].workers
    assert found["spikes", 4.0, "kpa"].seeds == 2


@pytest.mark.parametrize(
    ("rule", "said"),
    [("zzz", "choose all, nicety,"), ("kpaa", 'did you mean "kpa"?'), ("fixed-0", "fixed-"), ("oracle-101", "oracle-")],
)
def test_an_unknown_rule_is_told_what_there_is(rule: str, said: str) -> None:
    with pytest.raises(LoadError, match="there is no rule") as caught:
        run.check([rule])
    assert said in str(caught.value)


def test_every_rule_is_known() -> None:
    run.check([*run.ALL, *run.USUAL, "fixed-5", "oracle-60"])


# --- loads --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_a_made_up_load_offers_what_it_says(shape: str) -> None:
    load = made_up(shape, 3600, 32, 0.2, 1)
    assert (np.diff(load.arrivals) >= 0).all()
    assert 0 <= load.arrivals[0] <= load.arrivals[-1] < 3600
    assert load.services.sum() / 3600 == pytest.approx(load.erlangs.mean(), rel=0.03)
    assert load.erlangs.max() <= 32
    half = made_up(shape, 3600, 16, 0.2, 1)
    assert half.erlangs == pytest.approx(load.erlangs / 2)


def test_spikes_come_by_the_clock() -> None:
    counts = np.bincount(made_up("spikes", 1500, 32, 0.2, 3).arrivals.astype(int), minlength=1500)
    for begin in (600, 1200):
        assert counts[begin : begin + 60].mean() > 4 * counts[begin - 60 : begin].mean()


def test_too_many_requests_are_refused_before_memory_is_gone() -> None:
    with pytest.raises(LoadError, match="simulate a shorter time"):
        made_up("steps", 604_800, 10_000, 1e-4, 1)


def test_a_trace_of_requests_is_played_faster_until_it_fills_the_pool() -> None:
    times = np.sort(np.random.default_rng(1).uniform(0, 1_000_000, 1_000_000))  # one a second
    load = fitted(Trace("quiet", times, None, None, 0.0), 3600, 32, 0.2, 1)
    assert load.seconds == 3600
    assert load.services.mean() == pytest.approx(0.2, rel=0.02)
    assert load.services.sum() / 3600 == pytest.approx(PEAK * 32, rel=0.1)
    assert "times as fast" in load.scaled
    assert len(load.erlangs) == 3600
    assert load.erlangs.mean() == pytest.approx(load.services.sum() / 3600, rel=0.02)


def test_a_short_trace_keeps_its_length_and_its_requests_take_longer() -> None:
    times = np.sort(np.random.default_rng(1).uniform(0, 3000, 3000))
    load = fitted(Trace("short", times, None, None, 0.0), 3000, 32, 0.2, 1)
    assert load.seconds == pytest.approx(3000, rel=0.01)
    assert len(load.arrivals) == pytest.approx(3000, abs=2)
    assert load.services.mean() > 10


def test_recorded_service_times_keep_their_proportions() -> None:
    times = np.arange(0.0, 100_000.0, 10.0)
    services = np.where(np.arange(len(times)) % 2, 30.0, 10.0)
    load = fitted(Trace("jobs", times, None, services, 0.0), 60, 32, 0.2, 1)
    assert sorted(set(np.round(load.services / load.services.min(), 6))) == [1.0, 3.0]
    assert load.services.mean() == pytest.approx(0.2, rel=0.01)


def test_counts_of_millions_are_thinned_out() -> None:
    counts = 1e6 * (1.5 + np.sin(np.arange(2000) / 4))
    load = fitted(Trace("wiki", np.arange(2000.0), counts, None, 1.0), 3600, 32, 0.2, 1)
    assert load.seconds == 3600
    assert load.services.sum() / 3600 < PEAK * 32
    rows = np.histogram(load.arrivals, 360, (0, 3600))[0]
    assert rows.max() > 3 * rows.min()  # the wave is still there, a row in 10 s


def test_a_trace_without_time_or_work_is_refused() -> None:
    for trace in (
        Trace("none", np.zeros(5), None, None, 0.0),
        Trace("none", np.arange(5.0), np.zeros(5), None, 1.0),
    ):
        with pytest.raises(LoadError, match="nothing arrives"):
            fitted(trace, 600, 32, 0.2, 1)


def test_a_csv_of_requests_and_one_of_counts(tmp_path: Path) -> None:
    (tmp_path / "jobs.csv").write_text("id,t_submit,service_s\na,5,2\nb,1,3\n")
    jobs = read(tmp_path / "jobs.csv")
    assert (jobs.name, jobs.times.tolist(), jobs.counts, jobs.step) == ("jobs", [1.0, 5.0], None, 0.0)
    assert jobs.services is not None
    assert jobs.services.tolist() == [3.0, 2.0]
    (tmp_path / "counts.csv").write_text("t,count\n0,5\n60,0\n120,7\n")
    counts = read(tmp_path / "counts.csv")
    assert counts.counts is not None
    assert (counts.step, counts.counts.tolist()) == (60.0, [5.0, 0.0, 7.0])
    (tmp_path / "seconds.csv").write_text("count\n5\n6\n")
    assert read(tmp_path / "seconds.csv").step == 1.0


def test_a_parquet_file_says_the_same_as_the_csv(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"t_submit": [1, 2, 4], "service_s": [0.5, 0.25, 1.0]}), tmp_path / "jobs.parquet")
    (tmp_path / "jobs.csv").write_text("t_submit,service_s\n1,0.5\n2,0.25\n4,1\n")
    one, other = read(tmp_path / "jobs.parquet"), read(tmp_path / "jobs.csv")
    assert one.times.tolist() == other.times.tolist()
    assert one.services is not None
    assert other.services is not None
    assert one.services.tolist() == other.services.tolist()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n3,4\n", "no column t_submit, t, count"),
        ("t,count\n0,1\n", "1 rows are too few"),
        ("t_submit\n1\nx\n", ':3: t_submit is "x", not a number'),
        ("count\n1\n-3\n", "row 2: count is -3"),
        ("count\n1\nnan\n", "row 2: count is nan"),
        ("t,count\n0,1\n0,2\n1,2\n", "not in order of time"),
        ("t,count\n5,1\n3,2\n1,2\n", "not in order of time"),
        ("", "no column"),
    ],
)
def test_a_file_that_is_no_trace_says_why(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(LoadError) as caught:
        read(tmp_path / "x.csv")
    assert said in str(caught.value)


def test_a_load_that_is_over_before_it_counts_is_refused() -> None:
    load = Load("short", 100.0, np.array([1.0]), np.array([1.0]), np.ones(100), "")
    with pytest.raises(LoadError, match="no request arrives after the first 120 s"):
        run.simulate("kpa", load, 4.0, 1)
