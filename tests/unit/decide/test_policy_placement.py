"""The placement policy: off by default, never where CPUs share nothing, sticky, and never at the price of batch work."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from nicety.models.identity import ProcId
from nicety.models.records import Class
from nicety.scheduler.config.sections import Config
from nicety.scheduler.config.sections import Placement as Section
from nicety.scheduler.decide.policies.placement.placement import GIVEN_UP_SECONDS, Move, Placement, PlacementMemory
from nicety.scheduler.decide.policies.policy import Proposal, Result
from nicety.scheduler.decision import Decision, Restore, Set, Tick, Topology
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.places import ProcessPlace
from nicety.scheduler.testing.policies import admitted
from nicety.scheduler.testing.ticks import a_forecast, a_group, a_machine, a_member, a_tick


def a_topology(cores: int = 8, *, threads: int = 2, caches: int = 2, nodes: int = 1, isolated: tuple[int, ...] = ()) -> Topology:
    """CPUs numbered as on x86: first threads first."""
    core = [tuple(c + cores * thread for thread in range(threads)) for c in range(cores)]

    def joined(parts: int) -> tuple[tuple[int, ...], ...]:
        size = cores // parts
        return tuple(tuple(sorted(cpu for c in core[i : i + size] for cpu in c)) for i in range(0, cores, size))

    online = tuple(range(cores * threads))
    return Topology(online, online, isolated, tuple(core), joined(caches), joined(nodes))


BIG = a_topology(nodes=2)  # 16 CPUs: two nodes of four cores with siblings


def policy(topology: Topology = BIG, *, enabled: bool = True) -> Placement:
    return Placement(Config(placement=Section(enabled=enabled)), PlacementMemory(), topology)


def busy(
    seq: int,
    service: float = 3.0,
    batch: float = 7.0,
    *,
    cpus: int = 16,
    service_wait: float = 0.0,
    batch_wait: float = 0.0,
) -> Tick:
    groups = [
        a_group("service", Class.INTERACTIVE, [a_member(10)], cpu=service, wait=service_wait),
        a_group("batch", Class.BATCH, [a_member(20), a_member(21)], cpu=batch, wait=batch_wait),
    ]
    return a_tick(seq, machine=a_machine(cpus=cpus, busy=min(10.0, cpus)), groups=groups)


def step(places: Placement, tick: Tick) -> list[Decision]:
    decisions = admitted(places, tick)
    for decision in decisions:
        places.learn(Result(decision.action, decision.target, Status.APPLIED, tick.at))
    return decisions


def sets(decisions: Sequence[Decision | Proposal[Move]]) -> dict[int, tuple[int, ...]]:
    """CPUs by pid."""
    found = {}
    for decision in decisions:
        action = decision.action
        assert isinstance(action, Set)
        assert isinstance(action.value, tuple)
        assert isinstance(action.on, ProcessPlace)
        found[action.on.id.pid] = action.value
    return found


def test_it_is_off_by_default() -> None:
    assert Placement(Config(), PlacementMemory(), BIG).propose(busy(1)) == []


def test_latency_and_batch_share_no_core_and_each_stays_in_one_node() -> None:
    cpus = sets(step(policy(), busy(1)))
    assert cpus[20] == cpus[21]
    siblings = {cpu % 8 for cpu in cpus[20]}
    nodes = [{cpu % 8 // 4 for cpu in cpus[pid]} for pid in (10, 20)]
    assert len(cpus[20]) >= 7
    assert nodes == [{0}, {1}]
    assert not siblings & {cpu % 8 for cpu in cpus[10]}


def test_each_action_says_what_an_affinity_is_that_nobody_chose() -> None:
    decisions = policy(a_topology(isolated=(3, 11))).propose(busy(1))
    normal = tuple(cpu for cpu in range(16) if cpu not in (3, 11))
    assert decisions
    assert {action.expected for d in decisions if isinstance(action := d.action, Set)} == {normal}
    assert not any({3, 11} & set(cpus) for cpus in sets(decisions).values())


def test_the_reason_has_the_expected_gain_and_what_would_end_it() -> None:
    why = step(policy(), busy(1))[0].why
    assert float(why.figures["gain_cores"]) >= float(why.figures["worth_cores"]) > 0
    assert why.figures["batch_cores_lost"] == 0
    assert len(why.rejected) == 2
    assert len(why.flips) == 3


@pytest.mark.parametrize(
    "topology",
    [a_topology(1, threads=2, caches=1), a_topology(2, threads=1, caches=1), a_topology(16, threads=1, caches=1), Topology()],
    ids=["two siblings", "two CPUs", "sixteen CPUs that share only a cache", "not known"],
)
@pytest.mark.parametrize(("service", "batch"), [(0.2, 4.0), (0.5, 0.5), (1.0, 1.0), (5.0, 8.0)])
def test_where_weights_do_as_well_nothing_is_confined(topology: Topology, service: float, batch: float) -> None:
    assert policy(topology).propose(busy(1, service, batch, cpus=max(1, len(topology.online)))) == []


def test_two_caches_on_two_cpus_are_too_small_to_pay() -> None:
    assert policy(a_topology(2, threads=1, caches=2)).propose(busy(1, 0.5, 1.0, cpus=2)) == []


def test_batch_throughput_is_never_thrown_away() -> None:
    assert policy().propose(busy(1, batch=12.3)) == []
    assert policy().propose(busy(1, batch=16.0)) == []


def test_a_forecast_above_the_demand_now_is_believed() -> None:
    tick = busy(1)
    for value, confined in ((3.0, True), (9.0, False), (1e300, False), (float("inf"), True), (float("nan"), True)):
        told = a_tick(1, machine=tick.machine, groups=tick.groups, forecasts=[a_forecast("service", "cpu", value)])
        assert bool(policy().propose(told)) == confined


def test_it_is_sticky_and_does_not_follow_a_short_dip_or_noise() -> None:
    places = policy()
    assert step(places, busy(0))
    for seq in range(1, 60):
        service = 0.0 if seq % 10 else 3.0
        assert step(places, busy(seq, service, 7.0 - 0.2 * (seq % 3))) == []


def test_it_returns_the_affinity_at_once_when_the_batch_does_not_fit_any_more() -> None:
    places = policy()
    confined = sets(step(places, busy(0)))
    returned = step(places, busy(1, batch=14.0))
    assert {
        d.action.on.id.pid for d in returned if isinstance(d.action, Restore) and isinstance(d.action.on, ProcessPlace)
    } == confined.keys()
    assert "would cost batch work" in returned[0].why.text
    assert places.memory.kept is None
    assert [step(places, busy(seq)) for seq in range(2, 16)] == [[]] * 14
    assert sets(step(places, busy(17))) == confined


def test_it_returns_the_affinity_when_nobody_needs_the_cpus_for_a_while() -> None:
    places = policy()
    step(places, busy(0))
    quiet = [step(places, busy(seq, service=0.0)) for seq in range(1, 20)]
    assert [seq for seq, decisions in enumerate(quiet, 1) if decisions] == [16]
    assert places.memory.confined == {}


@pytest.mark.parametrize(("batch_wait", "service_wait"), [(1.0, 0.0), (0.0, 0.5)], ids=["batch beside idle CPUs", "service"])
def test_a_confinement_that_does_not_pay_is_undone_and_not_tried_again_for_ten_minutes(
    batch_wait: float, service_wait: float
) -> None:
    places = policy()
    for seq in range(5):
        step(places, busy(seq))
    assert places.memory.confined
    said = {seq: step(places, busy(seq, batch_wait=batch_wait, service_wait=service_wait)) for seq in range(5, 30)}
    undone = [seq for seq, decisions in said.items() if any(isinstance(d.action, Restore) for d in decisions)]
    assert len(undone) == 1
    assert undone[0] <= 12
    assert [step(places, busy(seq)) for seq in range(30, undone[0] + round(GIVEN_UP_SECONDS), 30)] == [[]] * 20
    assert step(places, busy(undone[0] + round(GIVEN_UP_SECONDS) + 1))


def test_waiting_that_was_there_before_is_not_held_against_it() -> None:
    places = policy()
    step(places, busy(0, service=0.0, batch_wait=1.0, service_wait=0.0))
    for seq in range(1, 30):
        step(places, busy(seq, batch_wait=1.0))
    assert places.memory.until == 0
    assert places.memory.confined


def test_a_new_process_of_a_group_gets_what_the_group_has() -> None:
    places = policy()
    before = sets(step(places, busy(0)))
    tick = busy(1)
    more = [group for group in tick.groups if group.name != "batch"]
    grown = a_group("batch", Class.BATCH, [a_member(20), a_member(21), a_member(22)], cpu=7.0)
    assert sets(step(places, a_tick(1, machine=tick.machine, groups=[*more, grown]))) == {22: before[20]}


def test_a_refused_affinity_is_not_held_and_vanished_processes_are_forgotten() -> None:
    places = policy()
    decisions = admitted(places, busy(0))
    places.learn(Result(decisions[0].action, decisions[0].target, Status.REFUSED, 0))
    assert set(places.memory.confined) == {decision.target for decision in decisions[1:]}
    tick = busy(1)
    alone = [group for group in tick.groups if group.name != "batch"]
    places.propose(a_tick(1, machine=tick.machine, groups=[*alone, a_group("batch", Class.BATCH, [a_member(20)], cpu=7.0)]))
    assert "group batch pid 21" not in places.memory.confined


def test_protected_processes_are_left_where_they_are() -> None:
    tick = busy(0)
    spared = a_tick(0, machine=tick.machine, groups=tick.groups, protected=(ProcId(20, 20),))
    assert sets(policy().propose(spared)).keys() == {10, 21}


def test_what_it_remembers_survives_the_log() -> None:
    first = policy()
    step(first, busy(0))
    memory = msgspec.json.decode(msgspec.json.encode(first.memory), type=PlacementMemory)
    again = Placement(Config(placement=Section(enabled=True)), memory, BIG)
    assert again.memory == first.memory
    assert first.propose(busy(1)) == again.propose(busy(1)) == []
    assert first.propose(busy(2, batch=14.0)) == again.propose(busy(2, batch=14.0)) != []
