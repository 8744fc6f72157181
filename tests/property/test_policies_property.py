"""Whatever the ticks say, pools stay in their limits, constant load changes nothing, and mechanisms spare the protected."""

from __future__ import annotations

import math
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from nicety.models.records import HORIZONS, QUANTILES, Forecast, Latency
from nicety.scheduler.config import Config
from nicety.scheduler.config import PoolSize as Section
from nicety.scheduler.decision import Control, Pool, ResizePool, Set
from nicety.scheduler.policies.mechanisms import routes
from nicety.scheduler.policies.pool_size import PoolSize, PoolSizeMemory, load_served_by, workers_for
from nicety.scheduler.policies.priority import Priority, PriorityMemory
from nicety.scheduler.testing.ticks import a_group, a_machine, a_member, a_pool, a_tick

WILD = st.one_of(
    st.floats(0, 40),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e300, -1e300, -1.0, 0.0, 1e-300]),
)
LOADS = st.one_of(st.none(), st.floats(0, 60), st.just(1e9))


@st.composite
def forecasts(draw: st.DrawFn) -> Forecast:
    values = tuple(tuple(draw(WILD) for _ in QUANTILES) for _ in HORIZONS)
    return Forecast("web", "load", values, "demand 00")


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    size = draw(st.integers(0, 12))
    return a_pool(
        size=size,
        load=draw(LOADS),
        load_stable=draw(LOADS),
        load_panic=draw(LOADS),
        requested=draw(st.integers(0, 20)),
        minimum=2,
        maximum=9,
        start_seconds=draw(st.sampled_from([None, 0.1, 3.0, 1e6])),
        cpu_per_worker=draw(st.sampled_from([0.0, 1e-300, 0.3, 1.0, 64.0])),
        rss_per_worker=draw(st.sampled_from([0, 1, 50 << 20, 1 << 50])),
    )


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(pools(), st.lists(forecasts(), max_size=1), st.floats(0, 8)), min_size=1, max_size=25))
def test_sizes_stay_within_the_limits_and_every_tick_has_one_direction(world: list[tuple[Pool, list[Forecast], float]]) -> None:
    policy = PoolSize(Config(pool_size=Section(down_after=2.0, cooldown_down=1.0)), PoolSizeMemory())
    for seq, (pool, said, busy) in enumerate(world):
        decisions = policy.propose(a_tick(seq, machine=a_machine(cpus=8, busy=busy), pools=[pool], forecasts=said))
        assert len(decisions) <= 1
        for decision in decisions:
            assert isinstance(decision.action, ResizePool)
            assert 2 <= decision.action.size <= 9
            assert decision.action.size != decision.why.figures["current"]
            assert all(math.isfinite(value) for value in decision.why.figures.values() if isinstance(value, float))
            if pool.size != pool.requested:
                assert decision.action.size > int(decision.why.figures["current"])
            policy.admit(decision)


@settings(max_examples=12, deadline=None)
@given(st.floats(0, 12), st.floats(0.05, 1.0), st.sampled_from(QUANTILES), st.integers(1, 16), st.floats(0, 3))
def test_constant_load_drifts_nowhere_and_never_back(load: float, target: float, quantile: float, size: int, spread: float) -> None:
    """From a size that is too small one growth; from one that is too large a fall that halves at most, as in Knative's rule."""
    policy = PoolSize(Config(pool_size=Section(target=target, quantile=quantile)), PoolSizeMemory())
    values = (tuple(load + spread * i for i in range(len(QUANTILES))),) * len(HORIZONS)
    asked = [size]
    for seq in range(2000):
        pool = a_pool(size=asked[-1], load=load)
        tick = a_tick(seq, machine=a_machine(cpus=16), pools=[pool], forecasts=[Forecast("web", "load", values, "demand 00")])
        for decision in policy.propose(tick):
            assert isinstance(decision.action, ResizePool)
            policy.admit(decision)
            asked.append(decision.action.size)
            assert seq < 300
    changes = [after - before for before, after in pairwise(asked)]
    assert all(change > 0 for change in changes) or all(change < 0 for change in changes)
    assert sum(change > 0 for change in changes) <= 1
    assert sum(change < 0 for change in changes) <= 5  # 16 to 1 in halves, and one for the panic of a small pool


@given(st.floats(0, 50), st.floats(0, 50), st.floats(0, 1), st.integers(1, 60))
def test_more_load_never_needs_fewer_workers(first: float, second: float, probability: float, most: int) -> None:
    low, high = sorted((first, second))
    assert 0 <= workers_for(low, probability, most) <= workers_for(high, probability, most) <= most


@given(st.integers(0, 40), st.floats(0.001, 1.0))
def test_the_load_served_by_workers_needs_no_more_of_them(workers: int, probability: float) -> None:
    assert workers_for(load_served_by(workers, probability), probability, workers + 5) <= workers


PATHS = st.sampled_from(["/", "/a", "/a/b", "/a/b/c", "/a/x", "/ab", "/b", "/b/c"])
PLACES = st.tuples(PATHS, st.integers(1, 4))
MACHINES = st.builds(
    lambda autogroup, version: a_machine(busy=2.0, autogroup=autogroup, cpu_cgroup=version),
    st.booleans(),
    st.sampled_from(["", "v1", "v2"]),
)


@given(PLACES, PLACES, MACHINES)
def test_a_route_never_lowers_the_root_or_what_the_other_is_in(
    own: tuple[str, int], other: tuple[str, int], machine: object
) -> None:
    assert isinstance(machine, type(a_machine()))
    found = list(routes(own, other, machine))
    assert found[-2:] == [(Control.NICE, ""), (Control.POLICY, "")]
    for control, path in found[:-2]:
        if control is Control.AUTOGROUP:
            assert machine.autogroup
            continue
        assert machine.cpu_cgroup
        assert path != "/"
        assert (own[0] + "/").startswith(path + "/")
        assert not (other[0] + "/").startswith(path + "/")


@settings(max_examples=100, deadline=None)
@given(st.lists(PLACES, min_size=1, max_size=4), st.lists(PLACES, min_size=1, max_size=5), MACHINES)
def test_no_demotion_reaches_a_latency_process(
    protected: list[tuple[str, int]], contenders: list[tuple[str, int]], machine: object
) -> None:
    assert isinstance(machine, type(a_machine()))
    service = a_group("s", Latency.LATENCY, [a_member(10 + i, b, a) for i, (a, b) in enumerate(protected)], cpu=0.5, wait=0.5)
    batch = a_group("b", Latency.BATCH, [a_member(20 + i, b, a) for i, (a, b) in enumerate(contenders)], cpu=1.5, wait=2.0)
    decisions = Priority(Config(), PriorityMemory()).propose(a_tick(1, machine=machine, groups=[service, batch]))
    assert decisions
    sessions = {member.id: member.session for member in batch.members}
    for decision in decisions:
        action = decision.action
        assert isinstance(action, Set)
        if action.control is Control.NICE:
            assert action.process in sessions
        elif action.control is Control.AUTOGROUP:
            assert action.process is not None
            assert sessions[action.process] not in {member.session for member in service.members}
        else:
            assert not any((member.cgroup + "/").startswith(action.cgroup + "/") for member in service.members)
