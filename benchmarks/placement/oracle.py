"""The exact optimum of a placement problem by mixed integer programming (HiGHS in scipy), and random problems to compare on.

For `optimum.py` and the tests. The programme is written from the formula in `scheduler/decide/policies/placement/assignment.py`,
with a variable for each group in each place, and one for each number of cores kept in each domain."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import lil_matrix

from nicety.scheduler.decide.policies.placement.assignment import CROWDED, MOVED_CORE, SHARED, Layout, Objective, Request
from nicety.scheduler.decision import Topology


class Optimum(NamedTuple):
    """The solver's result."""

    cost: float  # of the best plan that it found
    bound: float  # no plan costs less
    proved: bool  # both are the same


def optimum(objective: Objective, seconds: float | None = None) -> Optimum:
    """The least cost of any plan. With a limit of `seconds`: the best cost found, and the lower bound."""
    groups, places, count = len(objective.requests), len(objective.layout.places), len(objective.layout.domains)
    choices = [
        (domain, kept)
        for domain in range(count)
        for kept in range(objective.layout.domains[domain].reserved, len(objective.layout.domains[domain].cores) + 1)
    ]
    first_choice = groups * places
    first_domain = first_choice + len(choices)  # then shared, crowded, lost of each domain
    size = first_domain + 3 * count
    cost = np.zeros(size)
    upper = np.ones(size)
    cost[:first_choice] = np.where(np.isfinite(objective.linear), objective.linear, 0.0).ravel()
    upper[:first_choice] = np.isfinite(objective.linear).ravel()
    for i, (domain, kept) in enumerate(choices):
        now = objective.kept_now[domain]
        cost[first_choice + i] = 0.0 if now < 0 else MOVED_CORE * abs(kept - now)
    for domain in range(count):
        cost[first_domain + 3 * domain : first_domain + 3 * domain + 3] = SHARED, CROWDED, 1.0
    upper[first_domain:] = np.inf

    rows: list[tuple[dict[int, float], float, float]] = []  # coefficients, lower, upper
    rows += [({group * places + place: 1.0 for place in range(places)}, 1.0, 1.0) for group in range(groups)]
    for domain in range(count):
        own = {first_choice + i: kept for i, (of, kept) in enumerate(choices) if of == domain}
        rows.append((dict.fromkeys(own, 1.0), 1.0, 1.0))
        shared, crowded, lost = (first_domain + 3 * domain + i for i in range(3))
        load: dict[bool, dict[int, float]] = {True: {}, False: {}}
        there: dict[int, float] = {}
        for group, request in enumerate(objective.requests):
            for place in range(places):
                part = objective.layout.parts[place, domain]
                if part:
                    load[request.interactive][group * places + place] = request.demand * part
                    if not request.interactive:
                        there[group * places + place] = 1.0
        kept_cpus = {column: float(objective.layout.kept_cpus[domain][kept]) for column, kept in own.items()}
        rows.append((load[True] | {column: -float(kept) for column, kept in own.items()} | {shared: -1.0}, -math.inf, 0.0))
        rows.append((load[True] | {column: -cpus for column, cpus in kept_cpus.items()} | {crowded: -1.0}, -math.inf, 0.0))
        rows.append((load[False] | {crowded: 1.0, lost: -1.0} | kept_cpus, -math.inf, float(len(objective.layout.cpus[domain]))))
        too_many = [column for column, kept in own.items() if kept > objective.layout.most_kept(domain, batch=True)]
        if too_many and there:
            batch = float(len({column // places for column in there}))
            rows.append((there | dict.fromkeys(too_many, batch), -math.inf, batch))
    matrix = lil_matrix((len(rows), size))
    for i, (coefficients, _, _) in enumerate(rows):
        for column, value in coefficients.items():
            matrix[i, column] = value
    integrality = np.concatenate([np.ones(first_domain), np.zeros(3 * count)])
    options = {"mip_rel_gap": 1e-6} | ({} if seconds is None else {"time_limit": seconds})
    for presolve in (True, False):  # HiGHS fails with it on one problem in some hundreds
        found = milp(
            cost,
            constraints=LinearConstraint(matrix.tocsr(), [row[1] for row in rows], [row[2] for row in rows]),
            bounds=Bounds(np.zeros(size), upper),
            integrality=integrality,
            options=options | {"presolve": presolve},
        )
        if found.x is not None or found.mip_dual_bound is not None:
            break
    else:
        raise RuntimeError(f"the solver found neither a plan nor a bound: {found.message}")
    best = math.inf if found.x is None else float(found.fun)
    return Optimum(best, float(found.mip_dual_bound), found.status == 0)


def a_topology(rng: np.random.Generator, most_cpus: int = 64) -> Topology:
    """1 to 4 nodes of 1 to 8 caches in all, SMT of 1 or 2, at least 4 CPUs; one machine in four has isolated or forbidden CPUs.

    CPUs are numbered as on x86: first threads first, their siblings after all of them.
    """
    while True:
        threads = int(rng.integers(1, 3))
        caches = int(rng.integers(1, 9))
        nodes = int(rng.choice([n for n in (1, 2, 3, 4) if caches % n == 0]))
        cores = int(rng.integers(2, 17))
        total = caches * cores
        if 4 <= total * threads <= most_cpus:
            break
    online = tuple(range(total * threads))
    core = [tuple(c + thread * total for thread in range(threads)) for c in range(total)]

    def joined(size: int) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(sorted(cpu for c in core[i : i + size] for cpu in c)) for i in range(0, total, size))

    isolated, allowed = tuple[int, ...](), online
    if rng.random() < 0.25 and len(online) >= 8:
        odd = sorted(rng.choice(len(online), size=int(rng.integers(1, len(online) // 4 + 1)), replace=False).tolist())
        half = len(odd) // 2
        isolated, allowed = tuple(odd[:half]), tuple(cpu for cpu in online if cpu not in odd[half:])
    return Topology(online, allowed, isolated, tuple(core), joined(cores), joined(total // nodes))


def a_problem(
    rng: np.random.Generator, topology: Topology, most_groups: int = 200
) -> tuple[tuple[Request, ...], tuple[int, ...] | None]:
    """1 to `most_groups` groups that together want 0.2 to 1.5 times the machine, and the CPUs that are kept.

    In half of the problems nothing is confined yet. In the others a `first_fit` is in force, for a demand that has since drifted
    (by a third, typically), and some groups came after it.
    """
    count = int(np.exp(rng.uniform(0, np.log(most_groups + 1))))
    usable = len(set(topology.allowed) - set(topology.isolated))
    weights = rng.lognormal(0, rng.uniform(0.3, 1.8), size=count)
    demand = weights / weights.sum() * usable * rng.uniform(0.2, 1.5)
    demand = np.minimum(demand, rng.uniform(0.3, 1.0) * usable)
    batch = rng.random(count) < rng.uniform(0.1, 0.9)
    requests = []
    for i in range(count):
        memory = tuple(rng.dirichlet([0.3] * len(topology.nodes)).tolist()) if rng.random() < 0.6 else ()
        requests.append(Request(f"g{i}", not batch[i], float(demand[i]), (), memory))
    if rng.random() < 0.5:
        return tuple(requests), None
    drift = rng.lognormal(0, 0.3, size=count)
    old = [replace(request, demand=request.demand * float(drift[i])) for i, request in enumerate(requests) if rng.random() < 0.8]
    confined, kept = first_fit(Layout(topology), tuple(old))
    return tuple(replace(request, current=confined.get(request.name, ())) for request in requests), kept


def first_fit(layout: Layout, requests: tuple[Request, ...]) -> tuple[dict[str, tuple[int, ...]], tuple[int, ...]]:
    """A placement as a person would make it: the CPUs of each group by name, and the CPUs kept from batch work.

    It is independent of the search that is measured. Groups go, the largest first, to the first cache with room for them, on the
    node with most of their memory if a cache there has room. Interactive groups search from the first cache on, batch groups from
    the last. A group that fits nowhere gets the whole machine. Then each cache keeps the cores that its interactive groups fill,
    as far as its batch groups leave them."""
    room = [float(len(cpus)) for cpus in layout.cpus]
    load = {True: [0.0] * len(room), False: [0.0] * len(room)}
    machine = tuple(range(len(room)))
    chosen: dict[str, tuple[int, ...]] = {}
    for request in sorted(requests, key=lambda request: (-request.demand, request.name)):
        open_ = [d for d in machine if request.interactive or len(layout.domains[d].cores) > layout.domains[d].reserved]
        fits = [d for d in open_ if request.demand <= room[d]]
        fits = fits if request.interactive else fits[::-1]
        near = max(fits, key=lambda d: request.memory[layout.domains[d].node] if request.memory else 0.0, default=None)
        chosen[request.name] = machine if near is None else (near,)
        for domain in chosen[request.name]:
            part = len(layout.cpus[domain]) / sum(len(layout.cpus[d]) for d in chosen[request.name])
            load[request.interactive][domain] += request.demand * part
            room[domain] -= request.demand * part
    batch = {d for request in requests if not request.interactive for d in chosen[request.name]}
    kept = []
    for d, domain in enumerate(layout.domains):
        spare = [k for k, cpus in enumerate(layout.kept_cpus[d]) if len(layout.cpus[d]) - cpus >= load[False][d]]
        wanted = min(math.ceil(load[True][d]), max(spare, default=0), layout.most_kept(d, batch=d in batch))
        kept.append(max(wanted, domain.reserved))
    away = set(layout.cpus_of(tuple(kept)))
    sets = {}
    for request in requests:
        cpus = sorted(cpu for d in chosen[request.name] for cpu in layout.cpus[d])
        everywhere = request.interactive and chosen[request.name] == machine
        sets[request.name] = () if everywhere else tuple(cpu for cpu in cpus if request.interactive or cpu not in away)
    return sets, tuple(sorted(away))
