"""Whatever the machine and the groups: sets of CPUs that may be used, never all for batch, the same for any order, and at rest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nicety.models.records import Class
from nicety.scheduler.config.sections import Config
from nicety.scheduler.config.sections import Placement as Section
from nicety.scheduler.decide.policies.placement.assignment import FORBIDDEN, Layout, Request, costs_by_kept, solve
from nicety.scheduler.decide.policies.placement.placement import Placement, PlacementMemory
from nicety.scheduler.decision import Set, Topology
from nicety.scheduler.testing.policies import admitted
from nicety.scheduler.testing.ticks import a_group, a_machine, a_member, a_tick

DEMAND = st.one_of(st.floats(0.0, 3.0), st.floats(0.0, 40.0), st.sampled_from([0.0, 1.0, 2.0, 1e-9, 1e6]))


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Any machine of 4 to 48 CPUs, some of them isolated or forbidden; at least two cores may be used."""
    threads, caches, cores = draw(st.integers(1, 2)), draw(st.integers(1, 4)), draw(st.integers(1, 6))
    total = caches * cores
    if total < 2:
        cores = total = 2
    nodes = draw(st.sampled_from([n for n in (1, 2, 4) if caches % n == 0]))
    online = tuple(range(total * threads))
    core = [tuple(c + total * thread for thread in range(threads)) for c in range(total)]

    def joined(size: int) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(sorted(cpu for c in core[i : i + size] for cpu in c)) for i in range(0, total, size))

    odd = draw(st.sets(st.sampled_from(online[2:] or online), max_size=len(online) // 3))
    isolated = tuple(sorted(cpu for cpu in odd if cpu % 2 and cpu not in (0, 1)))
    allowed = tuple(cpu for cpu in online if cpu not in odd or cpu in isolated or cpu < 2)
    return Topology(online, allowed, isolated, tuple(core), joined(total // caches), joined(total // nodes))


@st.composite
def problems(draw: st.DrawFn) -> tuple[Layout, Topology, tuple[Request, ...], tuple[int, ...] | None]:
    topology = draw(topologies())
    layout = Layout(topology)
    names = [f"g{i}" for i in range(draw(st.integers(1, 12)))]
    usable = sorted(cpu for cpus in layout.cpus for cpu in cpus)
    some = st.lists(st.sampled_from(usable), unique=True, max_size=6).map(lambda cpus: tuple(sorted(cpus)))
    requests = []
    for name in names:
        memory: tuple[float, ...] = ()
        if draw(st.booleans()):
            memory = tuple(float(i == draw(st.integers(0, len(topology.nodes) - 1))) for i in range(len(topology.nodes)))
        requests.append(Request(name, draw(st.booleans()), draw(DEMAND), draw(some), memory))
    return layout, topology, tuple(requests), draw(st.one_of(st.none(), some))


@settings(max_examples=150, deadline=None)
@given(problems())
def test_every_set_may_be_used_and_batch_never_has_all(
    problem: tuple[Layout, Topology, tuple[Request, ...], tuple[int, ...] | None],
) -> None:
    layout, topology, requests, kept_now = problem
    objective, plan = solve(layout, requests, kept_now)
    usable = set(topology.allowed) - set(topology.isolated)
    sets = objective.cpu_sets(plan)
    assert sets.keys() == {request.name for request in requests}
    for request in requests:
        cpus = set(sets[request.name])
        assert cpus <= usable
        assert request.interactive or cpus
    batch = {cpu for request in requests if not request.interactive for cpu in sets[request.name]}
    assert batch < usable
    assert not batch & set(layout.cpus_of(plan.kept))


@settings(max_examples=100, deadline=None)
@given(problems(), st.randoms(use_true_random=False))
def test_the_order_of_the_groups_does_not_matter(
    problem: tuple[Layout, Topology, tuple[Request, ...], tuple[int, ...] | None], random: object
) -> None:
    layout, _, requests, kept_now = problem
    shuffled = list(requests)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    objective, plan = solve(layout, requests, kept_now)
    again, other = solve(layout, tuple(shuffled), kept_now)
    assert objective.cpu_sets(plan) == again.cpu_sets(other)


@settings(max_examples=150, deadline=None)
@given(problems())
def test_solving_again_from_the_result_changes_nothing(
    problem: tuple[Layout, Topology, tuple[Request, ...], tuple[int, ...] | None],
) -> None:
    layout, _, requests, kept_now = problem
    objective, plan = solve(layout, requests, kept_now)
    sets = objective.cpu_sets(plan)
    now = tuple(replace(request, current=sets[request.name]) for request in requests)
    again, rests = solve(layout, now, layout.cpus_of(plan.kept))
    assert again.cpu_sets(rests) == sets
    assert rests.kept == plan.kept


@settings(max_examples=300, deadline=None)
@given(problems(), st.integers(0, 7), DEMAND, DEMAND, st.booleans())
def test_a_table_has_the_cost_of_every_number_of_kept_cores_that_is_allowed(
    problem: tuple[Layout, Topology, tuple[Request, ...], tuple[int, ...] | None],
    which: int,
    interactive: float,
    batch: float,
    any_: bool,
) -> None:
    layout, _, requests, kept_now = problem
    objective, _ = solve(layout, requests[:1], kept_now)
    domain = which % len(layout.domains)
    batch = batch if any_ else 0.0
    possible = range(layout.domains[domain].reserved, layout.most_kept(domain, batch=any_) + 1)
    costs = {kept: objective.domain_cost(domain, interactive, batch, kept) for kept in possible}
    found = costs_by_kept(
        objective.tables.of(np.array([domain])), np.array([[interactive]]), np.array([[batch]]), np.array([[any_]])
    )
    scale = max(1.0, interactive + batch)
    for kept, cost in enumerate(found[0, :, 0].tolist()):
        assert abs(cost - costs[kept]) <= 1e-7 * scale if kept in possible else cost >= FORBIDDEN


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 64), st.lists(st.tuples(st.booleans(), DEMAND), min_size=1, max_size=6))
def test_machines_whose_cpus_share_only_a_cache_are_left_alone(cpus: int, groups: list[tuple[bool, float]]) -> None:
    every = tuple(range(cpus))
    topology = Topology(every, every, (), tuple((cpu,) for cpu in every), (every,), (every,))
    policy = Placement(Config(placement=Section(enabled=True)), PlacementMemory(), topology)
    for seq in range(3):
        there = [
            a_group(f"g{i}", Class.INTERACTIVE if interactive else Class.BATCH, [a_member(10 + i)], cpu=demand)
            for i, (interactive, demand) in enumerate(groups)
        ]
        assert policy.propose(a_tick(seq, machine=a_machine(cpus=cpus, busy=1.0), groups=there)) == []


@settings(max_examples=60, deadline=None)
@given(
    topologies(), st.lists(st.lists(st.tuples(st.booleans(), st.floats(0.0, 8.0)), min_size=2, max_size=6), min_size=1, max_size=5)
)
def test_the_policy_confines_only_within_what_may_be_used(topology: Topology, ticks: list[list[tuple[bool, float]]]) -> None:
    policy = Placement(Config(placement=Section(enabled=True)), PlacementMemory(), topology)
    usable = set(topology.allowed) - set(topology.isolated)
    for seq, groups in enumerate(ticks):
        there = [
            a_group(f"g{i}", Class.INTERACTIVE if interactive else Class.BATCH, [a_member(10 + i)], cpu=demand)
            for i, (interactive, demand) in enumerate(groups)
        ]
        for decision in admitted(policy, a_tick(20 * seq, machine=a_machine(cpus=len(topology.online), busy=1.0), groups=there)):
            if isinstance(decision.action, Set):
                assert isinstance(decision.action.value, tuple)
                assert decision.action.value
                assert set(decision.action.value) < usable or set(topology.online) > usable
                assert set(decision.action.value) <= usable
