"""Whatever happens, the engine is deterministic, resumable, bounded, and gives back what it took."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nicety.models.identity import ProcId
from nicety.models.records import HORIZONS, QUANTILES, Anomaly, Class, Forecast, Score
from nicety.scheduler.config.sections import Config, Guard, Placement, PoolConfig, Priority, Quarantine
from nicety.scheduler.decide.engine import Engine
from nicety.scheduler.decision import Group, Outcome, Recycle, ResizePool, Restore, Set, Tick, Verdict, encode
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import ProcessPlace, SessionPlace, process_of
from nicety.scheduler.testing.machine import FakeHogs, FakeMachine, FakeService, FakeWorkers
from nicety.scheduler.testing.ticks import a_group, a_machine, a_member, a_pool, a_tick

CONFIG = Config(
    pools={"web": PoolConfig(kind="command", command=["x"]), "jobs": PoolConfig(kind="command", command=["x"])},
    placement=Placement(enabled=True),
    priority=Priority(release_after=2.0, effect_after=1.0),
    quarantine=Quarantine(action="demote", patience=1.0),
    guard=Guard(changes_per_tick=4, cooldown=1.0),
)
VALUES = st.sampled_from([0.0, 0.3, 1.0, 3.0, 1e300, math.nan, math.inf, -1.0])
PROTECTED = (ProcId(1, 1), ProcId(23, 23), ProcId(31, 31), ProcId(9000, 9000))


@st.composite
def groups(draw: st.DrawFn) -> list[Group]:
    found = []
    for name, first in (("service", 10), ("hogs", 20), ("other", 30), ("web", 9000), ("jobs", 9100)):
        if draw(st.booleans()):
            pids = draw(st.sets(st.integers(first, first + 4), min_size=1, max_size=4))
            members = [
                msgspec.structs.replace(
                    a_member(pid, draw(st.sampled_from([5, 6, first])), draw(st.sampled_from(["/", "/a", "/a/b"]))),
                    parent=draw(st.sampled_from([0, 1, first, first + 1, 20, 30])),
                )
                for pid in sorted(pids)
            ]
            class_ = draw(st.sampled_from([Class.INTERACTIVE, Class.BATCH]))
            group = a_group(name, class_, members, cpu=draw(st.floats(0, 2)), wait=draw(st.sampled_from([0.0, 0.01, 1.0])))
            found.append(msgspec.structs.replace(group, brief=draw(st.sampled_from([0.0, group.cpu]))))
    return found


@st.composite
def ticks(draw: st.DrawFn, seq: int) -> Tick:
    pools = [
        a_pool(
            name,
            size=draw(st.integers(0, 5)),
            load=draw(st.sampled_from([None, 0.0, 1.0, 5.0, 40.0])),
            first_pid=9100 if name == "jobs" else 9000,
            queued=draw(st.sampled_from([None, 0.0, 3.0])),
            maximum=8,
            trouble=draw(st.sampled_from(["", "", "crash loop"])),
        )
        for name in ("jobs", "web")
        if draw(st.booleans())
    ]
    forecasts = [
        Forecast(target, metric, ((draw(VALUES),) * len(QUANTILES),) * len(HORIZONS), "x")
        for target, metric in (("web", "load"), ("jobs", "load"), ("hogs", "cpu"), ("service", "cpu"))
        if draw(st.booleans())
    ]
    workers = sorted({worker.id: pool.name for pool in pools for worker in pool.workers}.items())
    scores = tuple(
        Score(id_, pool, draw(st.sampled_from(Anomaly)), 1.0, draw(st.sampled_from([1e-15, 0.5])), (), "x") for id_, pool in workers
    )
    return a_tick(
        seq,
        machine=a_machine(
            cpus=draw(st.sampled_from([2, 8])),
            busy=draw(st.floats(0, 8)),
            cpu_cgroup=draw(st.sampled_from(["", "v1", "v2"])),
            may_renice=draw(st.booleans()),
        ),
        groups=draw(groups()),
        pools=pools,
        forecasts=forecasts,
        scores=scores,
        gap=draw(st.integers(0, 9)) == 0,
        paused=draw(st.integers(0, 9)) == 0,
        protected=PROTECTED,
    )


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[Tick, list[Status]]]:
    """Ticks, each with what will become of its decisions."""
    length = draw(st.integers(1, 14))
    return [(draw(ticks(seq)), draw(st.lists(st.sampled_from(Status), min_size=3, max_size=3))) for seq in range(length)]


def with_outcomes(tick: Tick, before: Verdict, statuses: list[Status]) -> Tick:
    outcomes = tuple(
        Outcome(decision.id, statuses[i % len(statuses)], decision.target, "", 1) for i, decision in enumerate(before.decisions)
    )
    return a_tick(
        tick.seq,
        machine=tick.machine,
        groups=tick.groups,
        pools=tick.pools,
        forecasts=tick.forecasts,
        outcomes=outcomes,
        scores=tick.scores,
        gap=tick.gap,
        paused=tick.paused,
        protected=tick.protected,
    )


def play(engine: Engine, history: list[tuple[Tick, list[Status]]]) -> tuple[list[Tick], list[Verdict]]:
    seen, verdicts, statuses = list[Tick](), [Verdict((), (), ())], [Status.APPLIED]
    for tick, following in history:
        whole = with_outcomes(tick, verdicts[-1], statuses)
        seen.append(whole)
        verdicts.append(engine.step(whole))
        engine.validate()
        statuses = following
    return seen, verdicts[1:]


def offspring(tick: Tick, pid: int) -> set[int]:
    """Pids of all that descends from a process, searched generation by generation."""
    parents = {member.id.pid: member.parent for group in tick.groups for member in group.members}
    found = {pid}
    for _ in parents:
        found |= {child for child, parent in parents.items() if parent in found}
    return found - {pid}


@settings(max_examples=60, deadline=None)
@given(histories())
def test_limits_budget_and_protection_hold_whatever_happens(history: list[tuple[Tick, list[Status]]]) -> None:
    seen, verdicts = play(Engine(CONFIG, "s"), history)
    for tick, verdict in zip(seen, verdicts, strict=True):
        changes = [d for d in verdict.decisions if isinstance(d.action, Set | ResizePool | Recycle)]
        assert len(changes) <= CONFIG.guard.changes_per_tick
        if tick.gap or tick.paused:
            assert verdict.decisions == ()
        keys = set()
        limits = {pool.name: pool for pool in tick.pools}
        sessions = {member.id: member.session for group in tick.groups for member in group.members}
        pooled = {worker.id for pool in tick.pools for worker in pool.workers}
        for decision in verdict.decisions:
            action = decision.action
            key = (getattr(action, "control", type(action)), decision.target, getattr(action, "kind", ""))
            assert key not in keys, "a control of a target turns once in a tick"
            keys.add(key)
            if isinstance(action, ResizePool):
                assert limits[action.pool].minimum <= action.size <= limits[action.pool].maximum
                assert not limits[action.pool].trouble
            if not isinstance(action, Set):
                continue
            if action.control in (Control.NICE, Control.AUTOGROUP):
                assert tick.machine.may_renice
                assert isinstance(action.value, int)
                assert 0 <= action.value <= (5 if process_of(action.on) in pooled else 19)
            if action.control in (Control.NICE, Control.AFFINITY, Control.FENCE):
                assert process_of(action.on) not in PROTECTED
            if action.control is Control.FENCE:
                assert tick.machine.cpu_cgroup
                assert isinstance(action.on, ProcessPlace)
                class_ = {m.id.pid for g in tick.groups if g.class_ is Class.INTERACTIVE for m in g.members}
                assert not offspring(tick, action.on.id.pid) & (class_ | {p.pid for p in (*PROTECTED, *pooled)})
            if action.control is Control.AUTOGROUP:
                assert isinstance(action.on, SessionPlace)
                apart = {m.id for g in tick.groups if g.name not in limits for m in g.members}
                assert not any(sessions[action.on.through] == sessions[p] for p in PROTECTED if p in apart)
            if action.control is Control.AFFINITY:
                assert isinstance(action.value, tuple)
                assert 0 < len(action.value) < tick.machine.cpus


@settings(max_examples=40, deadline=None)
@given(histories(), st.data())
def test_the_same_ticks_give_the_same_bytes_also_after_a_resume_at_any_tick(
    history: list[tuple[Tick, list[Status]]], data: st.DataObject
) -> None:
    seen, verdicts = play(Engine(CONFIG, "s"), history)
    expected = [encode(verdict) for verdict in verdicts]
    cut = data.draw(st.integers(0, len(seen)))
    first = Engine(CONFIG, "s")
    assert [encode(first.step(tick)) for tick in seen[:cut]] == expected[:cut]
    text = json.dumps(first.memory(), allow_nan=False, sort_keys=True)
    second = Engine.resume(CONFIG, "s", json.loads(text))
    assert [encode(second.step(tick)) for tick in seen[cut:]] == expected[cut:]
    assert json.dumps(second.memory(), sort_keys=True) == json.dumps(play_memory(seen), sort_keys=True)


def play_memory(seen: list[Tick]) -> dict[str, object]:
    engine = Engine(CONFIG, "s")
    for tick in seen:
        engine.step(tick)
    return engine.memory()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from([100, 200]),
    st.sampled_from(["/", "/batch"]),
    st.sampled_from(["", "v1", "v2"]),
    st.booleans(),
    st.lists(st.tuples(st.integers(2, 30), st.integers(0, 5), st.floats(0, 1.5)), min_size=1, max_size=6),
)
def test_everything_that_was_set_is_put_back_once_contention_is_over(
    seed: int, session: int, cgroup: str, version: str, autogroup: bool, phases: list[tuple[int, int, float]]
) -> None:
    starts = [sum(length for length, _, _ in phases[:i]) for i in range(len(phases))]
    end = sum(length for length, _, _ in phases)

    def phase(t: float) -> tuple[int, float]:
        found = [(count, demand) for start, (_, count, demand) in zip(starts, phases, strict=True) if start <= t]
        return (1, 0.0) if t >= end or not found else found[-1]

    machine = FakeMachine(
        seed=seed,
        service=FakeService(demand=lambda t: phase(t)[1]),
        hogs=FakeHogs(count=lambda t: phase(t)[0], session=session, cgroup=cgroup),
        autogroup=autogroup,
        cpu_cgroup=version,
    )
    engine = Engine(Config(), "s")
    machine.run(engine, end + 30 + 20)  # the fake's forecasts remember 30 ticks, release_after is 15 s
    engine.validate()
    assert machine.knobs == {}
    assert engine.memory()["policies"]["priority"]["held"] == {}


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 10_000), st.floats(1.0, 25.0))
@example(0, 2.0)  # 0.4 Erlang: two requests at once are too many for one worker
def test_a_closed_loop_with_constant_arrivals_drifts_nowhere(seed: int, rate: float) -> None:
    """Our own sizes change what is measured; the allocation must not walk to a limit because of that."""
    machine = FakeMachine(seed=seed, pools=[FakeWorkers("web", lambda _: rate, size=4)], cpus=8)
    history = machine.run(Engine(Config(), "s"), 2000)
    sizes = [tick.pools[0].size for tick, _ in history]
    early, late = sum(sizes[200:1000]) / 800, sum(sizes[1200:2000]) / 800
    assert abs(early - late) <= 1.5
    assert rate * 0.2 < late < rate * 0.2 * 3 + 4
    asked = [d.action.size for _, verdict in history for d in verdict.decisions if isinstance(d.action, ResizePool)]
    grown = [after > before for before, after in pairwise([4, *asked])]
    assert sum(before != after for before, after in pairwise(grown)) <= 50  # chance alone calls for a worker more now and then


def test_restores_are_never_refused_for_budget() -> None:
    plain = Priority(release_after=1.0, effect_after=100.0, slice_ms=0.0)
    config = Config(guard=Guard(changes_per_tick=1, cooldown=0.0), priority=plain)
    engine, outcomes, restored = Engine(config, "s"), tuple[Outcome, ...](), []
    members = [a_member(pid, session=10) for pid in range(20, 26)]
    for seq in range(20):
        loud = seq < 8
        groups = [
            a_group("service", Class.INTERACTIVE, [a_member(10, session=10)], cpu=0.4, wait=0.4 if loud else 0.0),
            a_group("hogs", Class.BATCH, members, cpu=1.6 if loud else 0.0, wait=4.0 if loud else 0.0),
        ]
        verdict = engine.step(a_tick(seq, machine=a_machine(busy=2.0 if loud else 0.4), groups=groups, outcomes=outcomes))
        outcomes = tuple(Outcome(d.id, Status.APPLIED, d.target, "", 1) for d in verdict.decisions)
        restored.append(sum(isinstance(d.action, Restore) for d in verdict.decisions))
    assert restored.count(6) == 1
    assert sum(restored) == 6
