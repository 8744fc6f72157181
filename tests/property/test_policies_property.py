"""Whatever the ticks say, pools stay in their limits, constant load changes nothing, and mechanisms spare the protected."""

from __future__ import annotations

import math
from itertools import pairwise

import msgspec
import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nicety.models.anomaly.model import alpha
from nicety.models.forecast.seasonality import Seasonality
from nicety.models.identity import ProcId
from nicety.models.records import HORIZONS, QUANTILES, Anomaly, Blocked, Class, Deadlock, Forecast, Score
from nicety.scheduler.config.sections import Config
from nicety.scheduler.config.sections import PoolSize as Section
from nicety.scheduler.config.sections import Quarantine as QuarantineSection
from nicety.scheduler.decide.policies.policy import Result
from nicety.scheduler.decide.policies.pool_size.pool_size import PoolSize, PoolSizeMemory
from nicety.scheduler.decide.policies.priority.mechanisms import Ground
from nicety.scheduler.decide.policies.priority.memory import PriorityMemory
from nicety.scheduler.decide.policies.priority.priority import Priority
from nicety.scheduler.decide.policies.quarantine.quarantine import Quarantine, QuarantineMemory
from nicety.scheduler.decision import Digest, Feedback, Flag, Pool, Predicted, Recycle, ResizePool, Restore, Scaled, Set, Tick
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import DecisionPlace, SessionPlace, cgroup_of, process_of
from nicety.scheduler.testing.policies import admitted
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


FORETOLD = st.one_of(
    st.none(),
    st.builds(
        Predicted,
        period=st.sampled_from([20.0, 300.0]),
        seen=st.integers(0, 9),
        right=st.floats(-1, 1),
        trusted=st.booleans(),
        abrupt=st.floats(0, 5),
        horizon=st.floats(0, 100),
        median=WILD,
        high=WILD,
        later=WILD,
        least=WILD,
        now=WILD,
    ),
)


SCALINGS = st.one_of(
    st.none(),
    st.builds(
        Scaled,
        single=WILD,
        contention=WILD,
        coherency=WILD,
        sizes=st.integers(0, 9),
        largest=WILD,
        adds=st.one_of(st.none(), WILD),
        worth=st.one_of(st.none(), st.integers(-1, 30)),
        certain=st.booleans(),
    ),
)


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
        maximum=draw(st.sampled_from([2, 3, 9])),
        start_seconds=draw(st.sampled_from([None, 0.1, 3.0, 1e6])),
        cpu_per_worker=draw(st.sampled_from([0.0, 1e-300, 0.3, 1.0, 64.0])),
        rss_per_worker=draw(st.sampled_from([0, 1, 50 << 20, 1 << 50])),
        predicted=draw(FORETOLD),
        scaling=draw(SCALINGS),
    )


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(pools(), st.lists(forecasts(), max_size=1), st.floats(0, 8)), min_size=1, max_size=25))
def test_whatever_is_forecast_limits_and_cooldowns_hold(world: list[tuple[Pool, list[Forecast], float]]) -> None:
    """Every tick has one direction."""
    policy = PoolSize(Config(pool_size=Section(down_after=2.0, cooldown_up=3.0, cooldown_down=4.0)), PoolSizeMemory())
    grown = changed = -100
    for seq, (pool, said, busy) in enumerate(world):
        decisions = admitted(policy, a_tick(seq, machine=a_machine(cpus=8, busy=busy), pools=[pool], forecasts=said))
        assert len(decisions) <= 1
        for decision in decisions:
            assert isinstance(decision.action, ResizePool)
            size, current = decision.action.size, int(decision.why.figures["current"])
            assert 2 <= size <= pool.maximum
            assert size != current
            assert all(math.isfinite(value) for value in decision.why.figures.values() if isinstance(value, float))
            if size > current:
                assert seq - grown >= 3
                grown = seq
            else:
                assert pool.size == pool.requested
                assert seq - changed >= 4
            changed = seq


NOT_A_NUMBER = Predicted(
    period=20.0, seen=2, right=0.9, trusted=True, abrupt=3.0, horizon=4.8, median=0.0, high=0.0, later=0.0, least=math.nan, now=0.0
)


@example(2, 0.0, [], NOT_A_NUMBER, 0)
@given(st.integers(2, 9), st.floats(0, 5), st.lists(forecasts(), max_size=1), FORETOLD, st.integers(0, 12))
def test_what_only_a_forecast_or_a_rhythm_asks_for_stays_in_the_memory_headroom(
    size: int, load: float, said: list[Forecast], predicted: Predicted | None, room: int
) -> None:
    """Whatever they say, also NaN and 1e300. `room`: workers for which there is memory."""
    machine = a_machine(cpus=64, memory_total=1000 << 20, memory_available=(100 << 20) + room * (50 << 20))
    pool = a_pool(size=size, load=load, busy=min(load, size), predicted=predicted, maximum=40)
    for decision in PoolSize(Config(), PoolSizeMemory()).propose(a_tick(1, machine=machine, pools=[pool], forecasts=said)):
        assert isinstance(decision.action, ResizePool)
        reactive = int(decision.why.figures["workers_by_reactive_rule"])
        assert decision.action.size <= max(reactive, size + room)


@given(st.integers(2, 9), st.floats(0, 40), st.lists(forecasts(), max_size=1), FORETOLD, SCALINGS)
def test_a_pool_is_grown_past_its_scaling_curve_by_nothing(
    size: int, load: float, said: list[Forecast], predicted: Predicted | None, scaling: Scaled | None
) -> None:
    """Whatever load, forecast and seasonal pattern say; and one that is not certain changes nothing."""
    pool = a_pool(size=size, load=load, busy=min(load, size), predicted=predicted, maximum=40, scaling=scaling)
    tick = a_tick(1, machine=a_machine(cpus=64), pools=[pool], forecasts=said)
    sizes = [each.action.size for each in PoolSize(Config(), PoolSizeMemory()).propose(tick) if isinstance(each.action, ResizePool)]
    if scaling is not None and scaling.certain and scaling.worth is not None:
        assert all(asked <= max(scaling.worth, size) for asked in sizes)
    else:
        without = a_tick(1, machine=a_machine(cpus=64), pools=[msgspec.structs.replace(pool, scaling=None)], forecasts=said)
        assert PoolSize(Config(), PoolSizeMemory()).propose(tick) == PoolSize(Config(), PoolSizeMemory()).propose(without)


@settings(max_examples=5, deadline=None)
@given(st.floats(0, 12), st.floats(0.05, 1.0), st.sampled_from(QUANTILES), st.integers(1, 16), st.floats(0, 3))
def test_constant_load_drifts_nowhere_and_never_back(load: float, target: float, quantile: float, size: int, spread: float) -> None:
    """From a size that is too small one growth; from one that is too large a fall that halves at most, as in Knative's rule."""
    policy = PoolSize(Config(pool_size=Section(target=target, quantile=quantile)), PoolSizeMemory())
    values = (tuple(load + spread * i for i in range(len(QUANTILES))),) * len(HORIZONS)
    asked = [size]
    for seq in range(10_000):
        pool = a_pool(size=asked[-1], load=load)
        tick = a_tick(seq, machine=a_machine(cpus=16), pools=[pool], forecasts=[Forecast("web", "load", values, "demand 00")])
        for decision in admitted(policy, tick):
            assert isinstance(decision.action, ResizePool)
            asked.append(decision.action.size)
            assert seq < 300
    changes = [after - before for before, after in pairwise(asked)]
    assert all(change > 0 for change in changes) or all(change < 0 for change in changes)
    assert sum(change > 0 for change in changes) <= 1
    assert sum(change < 0 for change in changes) <= 5  # 16 to 1 in halves, and one for the panic of a small pool


def repeating(shape: str, period: int, wide: float) -> NDArray[np.float64]:
    """[period] a load that rises once and falls once a period, between 0 and 1. It is high, or rises, for the share `wide`."""
    at = np.arange(period) / period
    if shape == "steps":
        return ((at >= 0.2) & (at < 0.2 + wide)).astype(np.float64)
    if shape == "wave":
        return np.asarray((1 - np.cos(2 * np.pi * at)) / 2)
    if shape == "ramp":
        return np.minimum(at / wide, (1 - at) / (1 - wide))
    return np.clip(np.minimum(at - 0.2, 0.3 + wide - at) / 0.1, 0, 1)  # as steps, but for a tenth of the period on the way


@settings(max_examples=20, deadline=None)
@given(
    shape=st.sampled_from(["steps", "wave", "ramp", "trapezoid"]),
    period=st.sampled_from([120, 180, 300]),
    wide=st.floats(0.1, 0.6),
    low=st.floats(0.5, 4),
    times=st.floats(1.2, 6),
    start=st.sampled_from([1.0, 4.0, 20.0]),
    seed=st.integers(0, 99),
)
@example(shape="trapezoid", period=300, wide=0.11, low=3.26, times=2.96, start=20.0, seed=1)  # a shrink just before the peak
@example(
    shape="wave", period=120, wide=0.5, low=0.93, times=4.15, start=1.0, seed=91
)  # a seasonal pattern given up in the middle of a fall
def test_each_rise_of_a_load_that_repeats_turns_the_pool_to_growing_at_most_once(
    shape: str, period: int, wide: float, low: float, times: float, start: float, seed: int
) -> None:
    """And each fall to shrinking, since these turns alternate. Whether the seasonal pattern is known, trusted, given up or none; a
    little noise changes nothing in it.

    A turn belongs to a rise if it comes while that lasts, or at most a minute before or after it: so far the rules look ahead (a
    mean of what is predicted) and back (a mean of what was). No two belong to the same, or lie within a quarter of a period.
    """
    chance, base = np.random.default_rng(seed), repeating(shape, period, wide)
    policy, seasonality = PoolSize(Config(), PoolSizeMemory()), Seasonality()
    size, loads, moves = 4, list[float](), list[tuple[int, bool]]()
    for seq in range(8 * period):
        load = low * (1 + (times - 1) * float(base[seq % period])) + 0.02 * float(chance.uniform(-1, 1))
        loads.append(load)
        seasonality.step(seq, loads[-1])
        ahead, later = seasonality.ahead(math.ceil(1.2 * start) + 1), seasonality.ahead(max(math.ceil(1.2 * start), 10) + 1)
        soon, predicted = seasonality.ahead(5), None
        if ahead is not None and later is not None and soon is not None:
            predicted = Predicted(
                period=ahead.period,
                seen=ahead.seen,
                right=ahead.right,
                trusted=ahead.trusted,
                abrupt=ahead.abrupt,
                horizon=1.2 * start,
                median=ahead.median,
                high=ahead.high,
                later=later.most,
                least=soon.least,
                now=ahead.now,
            )
        pool = a_pool(
            size=size,
            load=loads[-1],
            busy=min(loads[-1], size),
            load_stable=sum(loads[-60:]) / len(loads[-60:]),
            load_panic=sum(loads[-6:]) / len(loads[-6:]),
            start_seconds=start,
            maximum=40,
            predicted=predicted,
        )
        for decision in admitted(policy, a_tick(seq, machine=a_machine(cpus=64), pools=[pool])):
            assert isinstance(decision.action, ResizePool)
            moves.append((seq, decision.action.size > size))
            size = decision.action.size
    turns = [seq for (_, grew), (seq, grows) in pairwise(moves) if grows and not grew]
    high = np.flatnonzero(base == base.max())
    low_before = np.flatnonzero(base[: high[0]] == base.min())
    begins, ends = int(low_before[-1]), int(high[-1])
    rises = iter([(number * period + begins - 60, number * period + ends + 60) for number in range(9)])
    for turn in turns:
        assert any(since <= turn <= until for since, until in rises), "each of its own"
    assert all(after - before >= period / 4 for before, after in pairwise(turns))


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
    (found,) = Ground([other], [other], machine).routes(own)
    assert found[-2:] == [(Control.NICE, ""), (Control.POLICY, "")]
    for control, path in found[:-2]:
        if control is Control.AUTOGROUP:
            assert machine.autogroup
            continue
        assert machine.cpu_cgroup
        if control is Control.FENCE:
            assert not path, "of a process"
            continue
        assert path != "/"
        assert (own[0] + "/").startswith(path + "/")
        assert not (other[0] + "/").startswith(path + "/")


@settings(max_examples=100, deadline=None)
@given(st.lists(PLACES, min_size=1, max_size=4), st.lists(PLACES, min_size=1, max_size=5), MACHINES)
def test_no_demotion_reaches_a_latency_process(
    protected: list[tuple[str, int]], contenders: list[tuple[str, int]], machine: object
) -> None:
    assert isinstance(machine, type(a_machine()))
    service = a_group("s", Class.INTERACTIVE, [a_member(10 + i, b, a) for i, (a, b) in enumerate(protected)], cpu=0.5, wait=0.5)
    batch = a_group("b", Class.BATCH, [a_member(20 + i, b, a) for i, (a, b) in enumerate(contenders)], cpu=1.5, wait=2.0)
    decisions = Priority(Config(), PriorityMemory()).propose(a_tick(1, machine=machine, groups=[service, batch]))
    assert decisions
    sessions = {member.id: member.session for member in batch.members}
    for decision in decisions:
        action = decision.action
        assert isinstance(action, Set)
        if action.control is Control.NICE:
            assert process_of(action.on) in sessions
        elif isinstance(action.on, SessionPlace):
            assert sessions[action.on.through] == action.on.session
            assert action.on.session not in {member.session for member in service.members}
        else:
            path = cgroup_of(action.on)
            assert path is not None
            assert not any((member.cgroup + "/").startswith(path + "/") for member in service.members)


# --- quarantine -----------------------------------------------------------------------------------------------------------------

WORKERS = tuple(ProcId(9000 + number, 9000 + number) for number in range(4))
MASTER = ProcId(500, 500)
SCORES = st.builds(
    Score,
    id=st.sampled_from((*WORKERS, *WORKERS, MASTER)),
    pool=st.just("web"),
    kind=st.sampled_from(Anomaly),
    value=st.sampled_from([1.0, 10.0, 100.0]),
    p=st.sampled_from([0.5, 1e-12, 1e-12, 1e-12]),
    evidence=st.just((("seconds", 12.0),)),
    source=st.just("x"),
)


@st.composite
def circles(draw: st.DrawFn) -> Deadlock:
    ids = draw(st.permutations(WORKERS))[: draw(st.integers(2, 4))]
    known = draw(st.booleans())
    return Deadlock(
        tuple(Blocked(id_, id_.pid, 0, "flock", ids[(i + 1) % len(ids)] if known else None) for i, id_ in enumerate(sorted(ids)))
    )


FEEDBACK = st.builds(
    Feedback,
    id=st.integers(0, 60).map(lambda number: f"s-{number}.0"),
    pool=st.just("web"),
    kind=st.sampled_from(Anomaly),
    value=st.just(10.0),
    wall=st.just(0),
)
STRETCHES = st.tuples(
    st.sampled_from([1, 3, 10, 30, 70]),  # ticks that it lasts
    st.lists(SCORES, max_size=4),
    st.lists(circles(), max_size=1),
    st.lists(FEEDBACK, max_size=2),
    st.sampled_from([4, 4, 4, 2]),  # size of the pool
    st.lists(st.sampled_from([Status.APPLIED, Status.APPLIED, *Status]), min_size=1, max_size=3),  # outcomes, in turn
)
Stretch = tuple[int, list[Score], list[Deadlock], list[Feedback], int, list[Status]]


def expanded(stretches: list[Stretch]) -> list[tuple[Tick, list[Status]]]:
    """Ticks with what will become of their decisions; the last minute is quiet, and then everything works."""
    ticks = list[tuple[Tick, list[Status]]]()
    for length, scores, deadlocks, feedback, size, statuses in [*stretches, (70, [], [], [], 4, [Status.APPLIED])]:
        for _ in range(length):
            ordered = tuple(sorted(scores, key=lambda score: score.id))
            pool = a_pool(size=size)
            tick = a_tick(len(ticks), pools=[pool], scores=ordered, deadlocks=tuple(deadlocks), feedback=tuple(feedback))
            ticks.append((tick, statuses))
    return ticks


@settings(max_examples=40, deadline=None)
@given(st.lists(STRETCHES, min_size=1, max_size=6), st.sampled_from(["flag", "demote", "recycle"]), st.integers(0, 5))
def test_incidents_are_told_once_within_the_budget_and_no_victim_is_touched(
    stretches: list[Stretch], action: str, budget: int
) -> None:
    section = QuarantineSection(action=action, patience=2.0, alarms_per_day=budget)  # type: ignore[arg-type]
    policy = Quarantine(Config(quarantine=section), QuarantineMemory())
    begun, renamed, ended, digests = dict[str, Flag](), list[str](), list[str](), list[int]()
    demoted, reported = set[DecisionPlace](), set[ProcId]()
    for tick, statuses in expanded(stretches):
        scores = {score.id: [it for it in tick.scores if it.id == score.id] for score in tick.scores}
        present = {worker.id for pool in tick.pools for worker in pool.workers}
        decisions = admitted(policy, tick)
        for decision in decisions:
            done = decision.action
            if isinstance(done, Flag) and not done.over:  # a circle that takes over a report names its workers too
                reported |= {done.worker, *done.others}
            if isinstance(done, Flag) and not done.incident:
                begun[decision.id] = done
            elif isinstance(done, Flag):
                assert done.incident in begun
                (ended if done.over else renamed).append(done.incident)
                assert done.over or done.incident not in ended
            elif isinstance(done, Digest):
                digests.append(tick.seq)
            elif isinstance(done, Set | Recycle):
                worker = done.worker if isinstance(done, Recycle) else process_of(done.on)
                assert action == ("recycle" if isinstance(done, Recycle) else "demote")
                assert worker in present
                told = {it.kind for it in scores.get(worker, ()) if it.p <= alpha(1.0)}
                circled = {wait.waiter for it in tick.deadlocks for wait in it.waits if all(wait.holder for wait in it.waits)}
                assert worker in circled or told - {Anomaly.STARVED, Anomaly.CRASH_LOOP, Anomaly.ZOMBIE}
                assert worker in reported, "never without a report"
                if isinstance(done, Set):
                    assert (done.control, done.value) == (Control.NICE, 5)
                    demoted.add(done.on)
            elif isinstance(done, Restore):
                assert done.on in demoted
        for number, decision in enumerate(decisions):
            policy.learn(Result(decision.action, decision.target, statuses[number % len(statuses)], tick.at))
    assert len(begun) <= budget
    assert len(set(renamed)) == len(renamed)
    assert len(set(ended)) == len(ended)
    assert all(later - earlier >= 3600 for earlier, later in pairwise(digests))
    assert policy.memory.incidents == {}, "all is over and given back after a quiet minute"
