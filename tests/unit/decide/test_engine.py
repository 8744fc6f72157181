"""The engine in closed loop with a seeded fake machine, its memory, and what it says about effects."""

from __future__ import annotations

import inspect
import json
import math
import time

import msgspec
import pytest

from nicety.models.records import Anomaly, Class, Score
from nicety.scheduler.config.sections import Config, PoolConfig, Priority, Quarantine
from nicety.scheduler.decide import effects as effects_module
from nicety.scheduler.decide import engine as engine_module
from nicety.scheduler.decide import guard as guard_module
from nicety.scheduler.decide.engine import Engine
from nicety.scheduler.decide.policies.registry import Memories, policies
from nicety.scheduler.decision import (
    Effect,
    Flag,
    Outcome,
    Recycle,
    Refusal,
    ResizePool,
    Restore,
    Set,
    Tick,
    Topology,
    Verdict,
    encode,
)
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.places import Control
from nicety.scheduler.testing.clock import FakeClock
from nicety.scheduler.testing.machine import FakeHogs, FakeMachine, FakeService, FakeWorkers
from nicety.scheduler.testing.pace import pace
from nicety.scheduler.testing.ticks import a_forecast, a_group, a_machine, a_member, a_pool, a_tick

History = list[tuple[Tick, Verdict]]

PLAIN = Config(priority=Priority(slice_ms=0.0))
"""Without the trials of short slices, which have tests of their own."""


def control(machine: FakeMachine, ticks: int, config: Config | None = None) -> History:
    """Let an engine control the machine, checking its invariants after each step."""
    engine, history = Engine(config or PLAIN, "cafe0001"), []
    for _ in range(ticks):
        history += machine.run(engine, 1)
        engine.validate()
    return history


def sizes(history: History) -> list[tuple[int, int]]:
    return [(t.seq, d.action.size) for t, v in history for d in v.decisions if isinstance(d.action, ResizePool)]


def sets(history: History) -> list[tuple[int, Control, int | tuple[int, ...]]]:
    return [(t.seq, d.action.control, d.action.value) for t, v in history for d in v.decisions if isinstance(d.action, Set)]


def restores(history: History) -> list[tuple[int, Control]]:
    return [(t.seq, d.action.control) for t, v in history for d in v.decisions if isinstance(d.action, Restore)]


def effects(history: History) -> list[Effect]:
    return [effect for _, verdict in history for effect in verdict.effects]


def refusals(history: History) -> list[tuple[int, Refusal]]:
    return [(tick.seq, refusal) for tick, verdict in history for refusal in verdict.refusals]


def beside_hogs(
    *, act: bool = True, session: int = 200, cgroup: str = "/", seed: int | None = 3, may_renice: bool = True
) -> FakeMachine:
    return FakeMachine(
        seed=seed,
        act=act,
        service=FakeService(demand=lambda t: 0.4 if t < 60 else 0.0),
        hogs=FakeHogs(count=lambda t: 4 if t > 10 else 0, session=session, cgroup=cgroup),
        may_renice=may_renice,
    )


# --- the fakes ------------------------------------------------------------------------------------------------------------------


def waves(seed: int | None, *, act: bool = True) -> FakeMachine:
    pool = FakeWorkers("web", lambda t: 15 + 12 * math.sin(t / 60), class_=Class.INTERACTIVE, sick_from=100.0)
    return FakeMachine(seed=seed, act=act, pools=[pool], cpus=4, service=FakeService(), hogs=FakeHogs())


def log_of(machine: FakeMachine, ticks: int) -> list[bytes]:
    return [encode((tick, verdict)) for tick, verdict in control(machine, ticks)]


def test_the_same_seed_gives_the_same_log_and_without_a_seed_it_differs() -> None:
    first, second = log_of(waves(7), 150), log_of(waves(7), 150)
    assert first == second
    assert log_of(waves(8), 150) != first
    assert log_of(waves(None), 150) != log_of(waves(None), 150)


def test_the_fake_clock_moves_only_when_told() -> None:
    clock = FakeClock(monotonic=10)
    wall = clock.wall()
    clock.sleep_until(30)
    clock.sleep_until(20)
    assert (clock.monotonic(), clock.wall() - wall, clock.sleeps) == (30, 20, [30, 20])
    clock.set_wall(5)
    clock.advance(1)
    assert (clock.monotonic(), clock.wall()) == (31, 6)
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)


def test_a_sleep_of_the_fake_clock_can_be_woken_by_the_test() -> None:
    clock = FakeClock(monotonic=0, on_sleep=lambda at: clock.advance(5) if at == 10 else None)
    clock.sleep_until(10)
    assert clock.monotonic() == 15


# --- pools ----------------------------------------------------------------------------------------------------------------------


def test_a_pool_follows_a_wave_and_serves_it() -> None:
    machine = FakeMachine(seed=1, pools=[FakeWorkers("web", lambda t: 15 + 12 * math.sin(t / 60))], cpus=4)
    history = control(machine, 760)
    top = [tick.pools[0].size for tick, _ in history if 445 <= tick.seq <= 495]  # crests at 94, 471; troughs at 283, 660
    low = [tick.pools[0].size for tick, _ in history if 640 <= tick.seq <= 700]
    assert min(top) > max(low)
    waiting = [tick.pools[0].queued or 0.0 for tick, _ in history if tick.seq > 20]
    assert sum(waiting) / len(waiting) < 0.3
    assert machine.served("web") > 0.97 * 15 * 700


def test_a_forecast_has_the_workers_up_before_a_step_that_the_reactive_rule_meets_late() -> None:
    def queued(*, foresee: bool) -> float:
        pool = FakeWorkers("web", lambda t: 4.0 if t < 200 else 30.0, start_seconds=8.0, size=3)
        machine = FakeMachine(seed=5, pools=[pool], cpus=4, foresee=foresee)
        history = control(machine, 240)
        return max(tick.pools[0].queued or 0.0 for tick, _ in history if tick.seq > 190)

    assert queued(foresee=True) < 0.5 * queued(foresee=False)


def test_noisy_but_constant_load_changes_a_pool_by_one_and_rarely() -> None:
    machine = FakeMachine(seed=2, pools=[FakeWorkers("web", lambda _: 20.0, size=10)], cpus=4)
    changes = [size for seq, size in sizes(control(machine, 1000)) if seq > 100]
    assert max(changes) - min(changes) <= 3
    assert len(changes) <= 25


def test_both_modes_decide_alike_on_the_same_inputs() -> None:
    ticks = [tick for tick, _ in control(beside_hogs(), 120)]

    def decided(status: Status) -> list[bytes]:
        engine, said, outcomes = Engine(PLAIN, "s"), [], tuple[Outcome, ...]()
        for tick in ticks:
            verdict = engine.step(msgspec.structs.replace(tick, outcomes=outcomes))
            outcomes = tuple(Outcome(d.id, status, d.target, "", 0) for d in verdict.decisions)
            said.append(encode((verdict.decisions, verdict.refusals)))
        return said

    assert decided(Status.APPLIED) == decided(Status.OBSERVED)
    assert any(line != encode(((), ())) for line in decided(Status.OBSERVED))


def test_an_observing_engine_asks_once_for_what_it_would_do() -> None:
    history = control(beside_hogs(act=False), 200)
    assert [control for _, control, _ in sets(history)] == [Control.AUTOGROUP]
    assert [control for _, control in restores(history)] == [Control.AUTOGROUP]
    assert effects(history) == []  # nothing was changed, so nothing had an effect


# --- priority -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("session", "cgroup", "control_used"),
    [(200, "/", Control.AUTOGROUP), (100, "/", Control.NICE), (200, "/batch", Control.CPU_SHARES)],
    ids=["own sessions", "one session", "own cgroups"],
)
def test_the_contender_is_demoted_by_what_separates_it_it_helps_and_is_put_back(
    session: int, cgroup: str, control_used: Control
) -> None:
    machine = beside_hogs(session=session, cgroup=cgroup)
    history = control(machine, 200)
    assert {control for _, control, _ in sets(history)} == {control_used}
    first = sets(history)[0][0]
    assert first <= 13  # two ticks after the hogs came
    measured = effects(history)
    assert measured[0].verdict == "helped"
    assert measured[0].metric == "wait of group service, cores per core of demand"
    assert measured[0].after < 0.2 * measured[0].before
    released = {seq for seq, _ in restores(history)}
    assert released
    assert min(released) > 60 + 15  # the service fell silent at 60
    assert machine.knobs == {}


def test_a_demotion_is_not_taken_back_because_it_works() -> None:
    machine = FakeMachine(seed=1, service=FakeService(), hogs=FakeHogs())
    history = control(machine, 1000)
    assert next(value for _, _, value in sets(history)) == 19
    assert restores(history) == [], "eased, but never given back while the hogs want the CPU"


def test_a_mechanism_that_the_kernel_refuses_gives_way_to_the_next() -> None:
    machine = beside_hogs()
    machine.refusing = {Control.AUTOGROUP}
    history = control(machine, 200)
    used = [control for _, control, _ in sets(history)]
    assert used[:2] == [Control.AUTOGROUP] * 2
    assert list(dict.fromkeys(used[2:])) == [Control.NICE, Control.POLICY]
    assert machine.knobs == {}


def test_a_mechanism_without_effect_is_measured_twice_then_replaced() -> None:
    service = a_group("service", Class.INTERACTIVE, [a_member(10)], cpu=0.4, wait=0.4)
    hogs = a_group("hogs", Class.BATCH, [a_member(20, session=20)], cpu=1.6, wait=0.4)
    engine, outcomes, used, verdicts = Engine(PLAIN, "s"), tuple[Outcome, ...](), [], []
    for seq in range(40):
        verdict = engine.step(a_tick(seq, machine=a_machine(busy=2.0), groups=[service, hogs], outcomes=outcomes))
        engine.validate()
        outcomes = tuple(Outcome(d.id, Status.APPLIED, d.target, "", 1) for d in verdict.decisions)
        acts = [d.action for d in verdict.decisions if isinstance(d.action, Set | Restore)]
        used += [(seq, act.control, type(act)) for act in acts]
        verdicts += [(seq, effect.verdict) for effect in verdict.effects]
    assert used == [
        *((0, Control.AUTOGROUP, Set), (6, Control.AUTOGROUP, Restore)),
        *((6, Control.NICE, Set), (12, Control.NICE, Restore)),
        *((12, Control.POLICY, Set), (18, Control.POLICY, Restore)),
    ]
    assert verdicts[:2] == [(3, "no effect"), (6, "no effect")]


@pytest.mark.parametrize(("before", "verdict"), [(0.6, "more contention"), (4.0, "hurt")], ids=["just begun", "in full"])
def test_a_longer_wait_is_not_blamed_on_a_demotion_that_came_before_the_contention_did(before: float, verdict: str) -> None:
    engine, outcomes, verdicts = Engine(PLAIN, "s"), tuple[Outcome, ...](), []
    for seq in range(5):
        wait, wanted = (0.1, before) if seq == 0 else (0.3, 4.0)
        service = a_group("service", Class.INTERACTIVE, [a_member(10)], cpu=0.4, wait=wait)
        hogs = a_group("hogs", Class.BATCH, [a_member(20, session=20)], cpu=wanted / 2, wait=wanted / 2)
        said = engine.step(a_tick(seq, machine=a_machine(busy=2.0), groups=[service, hogs], outcomes=outcomes))
        outcomes = tuple(Outcome(d.id, Status.APPLIED, d.target, "", 1) for d in said.decisions)
        verdicts += [effect.verdict for effect in said.effects]
    assert verdicts == [verdict]


@pytest.mark.parametrize(("gap", "effects"), [(False, 1), (True, 0)])
def test_what_a_gap_hides_is_not_measured(gap: bool, effects: int) -> None:
    """The machine slept right after the decision: the waits since then say nothing of it."""
    engine, outcomes, measured = Engine(PLAIN, "s"), tuple[Outcome, ...](), 0
    for seq in range(8):
        wait, wanted = (0.4, 4.0) if seq == 0 else (0.001, 1.0)
        service = a_group("service", Class.INTERACTIVE, [a_member(10)], cpu=0.4, wait=wait)
        hogs = a_group("hogs", Class.BATCH, [a_member(20, session=20)], cpu=1.0, wait=wanted - 1.0)
        tick = a_tick(seq, machine=a_machine(busy=1.5), groups=[service, hogs], outcomes=outcomes, gap=gap and seq == 1)
        said = engine.step(tick)
        outcomes = tuple(Outcome(d.id, Status.APPLIED, d.target, "", 1) for d in said.decisions)
        measured += sum(effect.decision == "s-0.0" for effect in said.effects)
    assert measured == effects


def test_an_outcome_that_does_not_come_is_not_waited_for_longer_than_ten_minutes() -> None:
    engine = Engine(PLAIN, "s")
    service = a_group("service", Class.INTERACTIVE, [a_member(10)], cpu=0.4, wait=0.4)
    hogs = a_group("hogs", Class.BATCH, [a_member(20, session=20)], cpu=1.6, wait=2.4)
    (decision, *_) = engine.step(a_tick(0, machine=a_machine(busy=2.0), groups=[service, hogs])).decisions
    engine.step(a_tick(599, groups=[service]))
    assert decision.id in engine.memory()["issued"]
    engine.step(a_tick(600, groups=[service]))
    assert decision.id not in engine.memory()["issued"]


def test_without_the_right_to_renice_nothing_is_proposed_in_vain_more_than_once() -> None:
    history = control(beside_hogs(may_renice=False), 60)
    assert sets(history) == []
    assert [refusal.rule for _, refusal in refusals(history)] == ["no undo"]


def test_what_somebody_else_changed_is_left_alone_from_then_on() -> None:
    machine = beside_hogs()
    engine = Engine(PLAIN, "s")
    before = machine.run(engine, 30)
    target = next(decision.target for _, verdict in before for decision in verdict.decisions)
    machine.change_by_hand(target)
    after = machine.run(engine, 100)
    engine.validate()
    assert (sets(after), restores(after)) == ([], [])
    assert [(refusal.rule, refusal.decision.target) for _, refusal in refusals(after)] == [("hands off", target)]


# --- quarantine -----------------------------------------------------------------------------------------------------------------


def test_a_sick_worker_is_flagged_and_on_request_recycled_and_no_healthy_one() -> None:
    pool = FakeWorkers("web", lambda _: 10.0, size=5, minimum=5, maximum=5, sick_from=50.0)
    machine = FakeMachine(seed=4, pools=[pool], cpus=4)
    sick = machine.tick().pools[0].workers[0].id
    history = control(machine, 200, Config(quarantine=Quarantine(action="recycle")))
    actions = [(d.action, t.seq) for t, v in history for d in v.decisions if isinstance(d.action, Flag | Recycle)]
    flag = Flag("web", sick, "leak")
    ended = Flag("web", sick, "leak", (), f"cafe0001-{actions[0][1]}.0", over=True)
    assert [action for action, _ in actions] == [flag, Recycle("web", sick), ended]
    assert 50 + 5 <= actions[0][1] <= 50 + 8
    assert machine.size("web") == 5
    assert sick not in {worker.id for worker in history[-1][0].pools[0].workers}


# --- ticks that decide nothing, memory, identity ----------------------------------------------------------------------------------


def test_decision_ids_name_session_tick_and_number() -> None:
    pools = [a_pool("a", size=1, load=3.0), a_pool("b", size=1, load=3.0)]
    verdict = Engine(PLAIN, "cafe0001").step(a_tick(41, machine=a_machine(cpus=16), pools=pools))
    assert [decision.id for decision in verdict.decisions] == ["cafe0001-41.0", "cafe0001-41.1"]


def test_a_gap_decides_nothing_and_is_no_evidence() -> None:
    engine = Engine(PLAIN, "s")
    loud = {"machine": a_machine(cpus=16), "pools": [a_pool(size=1, load=5.0)]}
    assert engine.step(a_tick(0, gap=True, **loud)) == Verdict((), (), ())  # type: ignore[arg-type]
    assert len(engine.step(a_tick(1, **loud)).decisions) == 1  # type: ignore[arg-type]


def test_a_pause_refuses_once_and_resuming_goes_on() -> None:
    engine = Engine(PLAIN, "s")
    loud = {"machine": a_machine(cpus=16), "pools": [a_pool(size=1, load=5.0)]}
    verdicts = [engine.step(a_tick(seq, paused=seq < 5, **loud)) for seq in range(7)]  # type: ignore[arg-type]
    assert [len(verdict.decisions) for verdict in verdicts] == [0, 0, 0, 0, 0, 1, 0]
    assert [[refusal.rule for refusal in verdict.refusals] for verdict in verdicts] == [["paused"], [], [], [], [], [], []]


@pytest.mark.parametrize("at", [0, 1, 12, 15, 40, 77])
def test_a_resumed_engine_gives_the_same_verdicts(at: int) -> None:
    history = control(waves(7), 120)
    engine = Engine(PLAIN, "cafe0001")
    for tick, verdict in history[:at]:
        assert engine.step(tick) == verdict
    remembered = json.loads(json.dumps(engine.memory()))
    again = Engine.resume(PLAIN, "cafe0001", remembered)
    assert [encode(again.step(tick)) for tick, _ in history[at:]] == [encode(verdict) for _, verdict in history[at:]]


def test_neither_engine_nor_guard_nor_effects_names_a_policy() -> None:
    found = policies(Config(), Memories(), Topology())
    assert len(found) == 4
    for module in (engine_module, guard_module, effects_module):
        source = inspect.getsource(module)
        for policy in found:
            assert type(policy).__name__ not in source
            assert f'"{policy.name}"' not in source


def test_memory_is_a_copy() -> None:
    engine = Engine(PLAIN, "s")
    before = engine.memory()
    kept = json.dumps(before)
    engine.step(a_tick(1, machine=a_machine(cpus=16), pools=[a_pool(size=1, load=5.0)]))
    assert json.dumps(before) == kept
    assert json.dumps(engine.memory()) != kept


def test_foreign_memory_is_refused_with_the_next_step() -> None:
    with pytest.raises(ValueError, match="start with an empty one"):
        Engine.resume(PLAIN, "s", {"nonsense": 1})
    assert Engine.resume(PLAIN, "s", {}).memory() == Engine(PLAIN, "s").memory()


def test_a_new_session_frees_what_was_hands_off() -> None:
    engine = Engine(PLAIN, "one")
    engine.step(a_tick(1, outcomes=[Outcome("", Status.FOREIGN, "pid 20", "by hand", 0)]))
    assert Engine.resume(PLAIN, "one", engine.memory()).memory()["guard"]["hands_off"] == ["pid 20"]
    assert Engine.resume(PLAIN, "two", engine.memory()).memory()["guard"]["hands_off"] == []


def test_a_pool_that_was_resized_by_hand_is_sized_again_when_its_adapter_takes_requests_again() -> None:
    engine = Engine(PLAIN, "s")
    asks = {"machine": a_machine(cpus=16), "pools": [a_pool(size=1, load=5.0)]}
    (first,) = engine.step(a_tick(1, **asks)).decisions  # type: ignore[arg-type]
    held = {"machine": a_machine(cpus=16), "pools": [a_pool(size=1, load=5.0, trouble="resized by hand to 1 workers")]}
    foreign = Outcome(first.id, Status.FOREIGN, first.target, "by hand", 0)
    assert engine.step(a_tick(2, outcomes=[foreign], **held)).decisions == ()  # type: ignore[arg-type]
    assert all(engine.step(a_tick(at, **held)).decisions == () for at in range(3, 60))  # type: ignore[arg-type]
    assert [decision.target for at in range(60, 64) for decision in engine.step(a_tick(at, **asks)).decisions] == [first.target]  # type: ignore[arg-type]


def test_an_effect_is_only_measured_of_what_was_really_changed() -> None:
    def measured(status: Status | None) -> list[Effect]:
        engine = Engine(Config(priority=Priority(effect_after=3.0)), "s")
        found: list[Effect] = []
        outcomes = tuple[Outcome, ...]()
        for seq in range(20):
            pool = a_pool(size=2 if seq < 4 else 8, load=5.0, queued=4.0 if seq < 4 else 0.0)
            verdict = engine.step(a_tick(seq, machine=a_machine(cpus=16), pools=[pool], outcomes=outcomes))
            outcomes = tuple(Outcome(d.id, status, d.target, "", 1) for d in verdict.decisions if status is not None)
            found += verdict.effects
        return found

    (effect,) = measured(Status.APPLIED)
    assert (effect.decision, effect.metric, effect.before, effect.verdict) == ("s-0.0", "queued work of pool web", 4.0, "helped")
    assert effect.ticks == 5  # 2 s of start and 3 s of measuring
    assert measured(Status.OBSERVED) == measured(Status.UNCHANGED) == measured(None) == []


def test_policies_that_are_switched_off_decide_nothing() -> None:
    config = Config(
        pool_size=msgspec.structs.replace(Config().pool_size, enabled=False),
        priority=Priority(enabled=False),
        quarantine=Quarantine(enabled=False),
    )
    assert [verdict for _, verdict in control(waves(7), 150, config) if verdict != Verdict((), (), ())] == []


def test_a_step_on_a_large_machine_takes_about_a_millisecond() -> None:
    """10 pools, 30 groups, 200 members. The bound has room for a machine that does other things; the median here is 0.7 ms."""
    groups = [
        a_group(
            f"g{i:02}",
            Class.INTERACTIVE if i < 5 else Class.BATCH,
            [a_member(1000 + 10 * i + j, session=100 + i) for j in range(7 if i < 25 else 5)],
            cpu=0.2,
            wait=0.1,
        )
        for i in range(30)
    ]
    pools = [a_pool(f"p{i}", size=8, load=3.0, maximum=64, first_pid=9000 + 8 * i) for i in range(10)]
    forecasts = [a_forecast(group.name, "cpu", 0.4) for group in groups] + [a_forecast(pool.name, "load", 3.9) for pool in pools]
    scores = tuple(Score(worker.id, pool.name, Anomaly.LEAK, 1.0, 0.3, (), "x") for pool in pools for worker in pool.workers)
    config = Config(pools={f"p{i}": PoolConfig(kind="command", command=["x"]) for i in range(10)})
    engine, taken, outcomes = Engine(config, "s"), [], tuple[Outcome, ...]()
    assert sum(len(group.members) for group in groups) == 200
    for seq in range(200):
        machine = a_machine(cpus=8, busy=7.5, cpu_cgroup="", autogroup=False)
        tick = a_tick(seq, machine=machine, groups=groups, pools=pools, forecasts=forecasts, scores=scores, outcomes=outcomes)
        start = time.thread_time()
        verdict = engine.step(tick)
        taken.append(time.thread_time() - start)
        outcomes = tuple(Outcome(d.id, Status.APPLIED, d.target, "", 1) for d in verdict.decisions)
    assert len(engine.memory()["policies"]["priority"]["held"]) == 200  # 165 of batch demoted, 35 of services with short slices
    assert sorted(taken)[50] < 2e-3 * pace()
