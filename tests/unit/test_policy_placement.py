"""The placement policy: off by default, sticky, and never at the price of batch work."""

from __future__ import annotations

from nicety.models.records import ProcId
from nicety.scheduler.config import Config
from nicety.scheduler.config import Placement as Section
from nicety.scheduler.decision import Control, Decision, Group, Latency, Restore, Set, Status, Tick
from nicety.scheduler.policies.placement import Placement, PlacementMemory
from nicety.scheduler.policies.policy import Result
from nicety.scheduler.testing.ticks import a_forecast, a_group, a_machine, a_member, a_tick


def policy(*, enabled: bool = True) -> Placement:
    return Placement(Config(placement=Section(enabled=enabled)), PlacementMemory())


def busy(seq: int, service: float = 1.0, batch: float = 4.0, cpus: int = 8, *more: Group) -> Tick:
    groups = [
        a_group("service", Latency.LATENCY, [a_member(10)], cpu=service),
        a_group("batch", Latency.BATCH, [a_member(20), a_member(21)], cpu=batch),
    ]
    return a_tick(seq, machine=a_machine(cpus=cpus), groups=[*groups, *more])


def step(places: Placement, tick: Tick) -> list[Decision]:
    decisions = places.propose(tick)
    for decision in decisions:
        places.admit(decision)
        places.learn(Result(decision.action, decision.target, Status.APPLIED, tick.at))
    return decisions


def test_it_is_off_by_default() -> None:
    assert Placement(Config(), PlacementMemory()).propose(busy(1)) == []


def test_batch_processes_get_what_the_latency_demand_and_its_slack_leave() -> None:
    decisions = step(policy(), busy(1))
    assert [d.action for d in decisions] == [Set(Control.AFFINITY, ProcId(pid, pid), "", (2, 3, 4, 5, 6, 7)) for pid in (20, 21)]
    assert decisions[0].why.figures["latency_cores_with_slack"] == 1.25


def test_it_believes_a_forecast_that_is_above_the_demand_now() -> None:
    tick = busy(1)
    higher = a_tick(1, machine=tick.machine, groups=tick.groups, forecasts=[a_forecast("service", "cpu", 2.4)])
    assert {d.action.value for d in step(policy(), higher) if isinstance(d.action, Set)} == {(3, 4, 5, 6, 7)}


def test_batch_throughput_is_never_thrown_away() -> None:
    assert policy().propose(busy(1, batch=6.5)) == []
    assert policy().propose(busy(1, batch=6.0)) != []


def test_small_machines_are_left_alone() -> None:
    assert policy().propose(busy(1, service=0.5, batch=1.0, cpus=2)) == []
    assert policy().propose(busy(1, service=0.5, batch=1.0, cpus=4)) != []


def test_it_is_sticky_and_does_not_follow_a_short_dip() -> None:
    places = policy()
    step(places, busy(0))
    assert [step(places, busy(seq, service=0.0 if seq % 10 else 1.0)) for seq in range(1, 100)] == [[]] * 99


def test_it_returns_the_affinity_at_once_when_the_batch_does_not_fit_any_more() -> None:
    places = policy()
    step(places, busy(0))
    returned = step(places, busy(1, batch=7.5))
    assert [d.action for d in returned] == [Restore(Control.AFFINITY, ProcId(pid, pid), "") for pid in (20, 21)]
    assert [step(places, busy(seq)) for seq in range(2, 16)] == [[]] * 14
    assert len(step(places, busy(17))) == 2


def test_it_returns_the_affinity_when_nobody_needs_the_cpus_for_a_while() -> None:
    places = policy()
    step(places, busy(0))
    quiet = [step(places, busy(seq, service=0.0)) for seq in range(1, 20)]
    assert [seq for seq, decisions in enumerate(quiet, 1) if decisions] == [16]
    assert places.memory.confined == {}


def test_a_refused_affinity_is_not_held_and_vanished_processes_are_forgotten() -> None:
    places = policy()
    first, second = places.propose(busy(1))
    places.admit(first)
    places.admit(second)
    places.learn(Result(first.action, first.target, Status.REFUSED, 0))
    assert list(places.memory.confined) == [second.target]
    alone = a_tick(
        2,
        machine=a_machine(cpus=8),
        groups=[
            a_group("service", Latency.LATENCY, [a_member(10)], cpu=1.0),
            a_group("batch", Latency.BATCH, [a_member(20)], cpu=4.0),
        ],
    )
    places.propose(alone)
    assert places.memory.confined == {}


def test_absurd_forecasts_confine_nothing() -> None:
    tick = busy(1)
    for value in (1e300, float("inf"), float("nan")):
        mad = a_tick(1, machine=tick.machine, groups=tick.groups, forecasts=[a_forecast("service", "cpu", value)])
        sized = [d.action.value for d in policy().propose(mad) if isinstance(d.action, Set)]
        assert sized == ([] if value == 1e300 else [(2, 3, 4, 5, 6, 7)] * 2)
