"""Which CPUs each group should have: the objective, and a fast search for its minimum. Pure: knows no tick and no knob.

A *domain* is the usable CPUs that share a last-level cache within one memory node. A group is placed as a whole in a *place*: a
domain, a node, or the machine; the kernel is assumed to spread it evenly over the CPUs there. In each domain the first physical
cores, as many as the plan says, are *kept*: no batch group may use them. Interactive groups may use every CPU of their place.

The cost of a plan, in cores lost (`benchmarks/placement/oracle.py` has the same as a mixed integer program):

    for each domain, with latency demand L, batch demand B, k of its n cores kept (kept CPUs c, the rest b)
        SHARED  * max(0, L - k)                           latency work with a busy SMT sibling, or on a core with batch work
        CROWDED * max(0, L - c)                           latency work on a CPU with batch work
        max(0, B + max(0, L - c) - b)                     batch work that has no CPU
        MOVED_CORE * |k - cores kept now|                 batch groups that change their CPUs
    for each group with demand D in place p
        SPLIT * D * (1 - largest part of p in a domain)   work away from the cache that the group's data is in
        AWAY  * D * (part of p away from its memory)      work away from the node that its memory is in
        MOVED + MOVED_WORK * D, unless it is there now    caches to be filled again

One physical core is always kept, so that batch never takes all CPUs; a domain with batch work has a core for it.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from math import inf, isfinite
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ....decision import Topology

SHARED = 0.4
"""Part of a core that a thread loses if its sibling is busy: two threads on one core do the work of 1.2 to 1.3 cores, so 0.6 each
(Marr et al., Hyper-Threading Technology Architecture and Microarchitecture, 2002)."""

CROWDED = 0.2
"""Part that a thread loses if its CPU also has demoted batch work: with the right weight p99 is 1.0 to 1.4 of that alone,
docs/placement.md. A lost core of batch work counts 1, more than both together, so batch work is never given up for latency."""

SPLIT = 0.1
"""Part lost by work whose data is in another last-level cache of the node (chosen): a miss there costs two to three times a hit."""

AWAY = 0.25
"""Part lost by work whose memory is in another node (chosen): remote memory takes 1.4 to 2 times as long (distances 14 to 21 in
sysfs), but work does not only wait for memory."""

MOVED, MOVED_WORK, MOVED_CORE = 0.02, 0.02, 0.01
"""Cost in cores of moving a group, each core of its demand, and a kept core (chosen): a move costs some milliseconds of refilling
caches, and the costs are so high that noise in the demand moves nothing."""

HANDFULS = 24
"""Groups are inserted in this many handfuls of equal demand; up to this many groups one by one, keeping several ways."""

AT_ONCE, SHORT = 4, 4
"""Moves that may touch a domain in one step of a descent; steps of a descent that only shows what a start or a change is worth."""

MANY = 64
"""With more groups, none is placed from scratch while a placement is in force: the work is better spent on improving that one."""

EXCHANGED, REBUILT = 24, 8
"""The largest groups among which pairs are exchanged; and groups taken out at once and put back, which is nearly an exhaustive
search, and comes first if there are no more groups."""

BUDGET, CHECK = 75.0, 9.0
"""Work allowed for a plan, and for checking whether the placement in force can be improved. A unit is an evaluation of a few moves:
0.06 to 0.1 ms with its overhead.

All of these were chosen on seeds 0-49 and 100-149 of benchmarks/placement/optimum.py, MANY on 150-199 and 300-349 too. Results on
other seeds: docs/placement.md.
"""

ELEMENTS = 8000
"""Number of costs whose evaluation takes as long as starting one (chosen with the constants above)."""

FORBIDDEN = 1e9
"""Cores. Stands for infinity in the search, so that the difference of two is a number; more than any cost."""

TINY = 1e-9
"""Cores. Smaller differences are rounding."""

HALF = 0.5
"""A sum of ones above this is at least one, whatever the rounding."""

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Numbers = NDArray[np.intp]
Loads = tuple[Floats, Floats, Floats]


@dataclass(frozen=True, slots=True)
class Request:
    """A group to be placed."""

    name: str
    interactive: bool  # else batch
    demand: float  # cores, at the quantile that is planned for
    current: tuple[int, ...] = ()  # CPUs that it is confined to; (): not confined, it may use all
    memory: tuple[float, ...] = ()  # share of its memory in each node of the topology; (): unknown, assumed to be where it runs


@dataclass(frozen=True, slots=True)
class Domain:
    """CPUs with one cache and one node, as physical cores in the order in which they are kept."""

    node: int  # index in Topology.nodes
    cores: tuple[tuple[int, ...], ...]  # usable CPUs of each
    reserved: int  # cores always kept: 1 in the first domain with several, else 0

    @property
    def cpus(self) -> tuple[int, ...]:
        """All its CPUs, rising."""
        return tuple(sorted(cpu for core in self.cores for cpu in core))


@dataclass(frozen=True, slots=True)
class Plan:
    """An answer: the place of each request and the cores kept in each domain."""

    places: tuple[int, ...]  # index in Objective.places, in the order of Objective.requests
    kept: tuple[int, ...]


class Layout:
    """A machine's domains and places: what does not depend on the groups. Raises ValueError below two usable cores."""

    def __init__(self, topology: Topology) -> None:
        self.domains = domains(topology)
        if sum(len(domain.cores) for domain in self.domains) < 2:
            raise ValueError("less than two usable cores: there is nothing to keep apart")
        self.places = _places(self.domains)
        """Domains of each place, the machine last."""
        self.cpus = tuple(domain.cpus for domain in self.domains)
        self.kept_cpus = tuple(tuple(accumulate(map(len, domain.cores), initial=0)) for domain in self.domains)
        """CPUs in the kept cores, by domain and number of kept cores."""
        sizes = np.zeros((len(self.places), len(self.domains)))
        for place, members in enumerate(self.places):
            for member in members:
                sizes[place, member] = len(self.cpus[member])
        self.parts: Floats = sizes / sizes.sum(axis=1, keepdims=True)
        """Share of the place's CPUs that is in the domain, by place and domain."""
        self.members: Floats = (sizes > 0).astype(float)
        """1 if the domain is in the place, by place and domain."""
        none = np.zeros((len(self.domains), 1))
        self.padded = (np.hstack([self.parts.T, none]), np.hstack([self.members.T, none]))
        """`parts` and `members` by domain and place, with an added last place that is nowhere."""
        self.touched = tuple(tuple(frozenset((*one, *other)) for other in self.places) for one in self.places)
        """Domains of either of two places, by place and place."""
        self.nodes: Floats = np.zeros((len(self.places), len(topology.nodes)))
        """Share of the place's CPUs that is in the node, by place and node."""
        for number, domain in enumerate(self.domains):
            self.nodes[:, domain.node] += self.parts[:, number]
        count = len(self.domains)
        kinds = [0 if len(members) == 1 else 2 if len(members) == count else 1 for members in self.places]
        self.kinds: Numbers = np.unique(kinds, return_inverse=True)[1].astype(np.intp)
        """By place: 0 for a domain, then the kinds of wider places. Two places of one kind have no domain in common."""
        self.shares: Floats = np.zeros((count, 2 + int(self.kinds.max())))
        """By domain: 0, then its share of the place of each kind that it is in."""
        self.sums: Floats = np.zeros((len(self.places), count, 1 + int(self.kinds.max())))
        """1 if the domain is in the place and the place is of the kind, by place, domain and kind."""
        for place, members in enumerate(self.places):
            self.shares[list(members), 1 + self.kinds[place]] = self.parts[place, list(members)]
            self.sums[place, list(members), self.kinds[place]] = 1.0
        self.sums = self.sums.reshape(len(self.places), -1)
        self.closed = self._closed()
        self._domain_of = {cpu: number for number, cpus in enumerate(self.cpus) for cpu in cpus}

    def _closed(self) -> list[int]:
        """Places that batch may not have: nothing there is open to it, or nothing more than in a smaller place."""
        closed, seen = list[int](), set[tuple[int, ...]]([()])
        for place, members in sorted(enumerate(self.places), key=lambda entry: len(entry[1])):
            open_ = tuple(member for member in members if len(self.domains[member].cores) > self.domains[member].reserved)
            if open_ in seen:
                closed.append(place)
            seen.add(open_)
        return closed

    def place_of(self, cpus: tuple[int, ...]) -> int:
        """The smallest place that has all these CPUs; the machine if there are none."""
        used = {self._domain_of[cpu] for cpu in cpus if cpu in self._domain_of}
        found = [place for place, members in enumerate(self.places) if used and used <= set(members)]
        return min(found, key=lambda place: len(self.places[place])) if found else len(self.places) - 1

    def most_kept(self, domain: int, *, batch: bool) -> int:
        """Most cores that may be kept in a domain, with batch work there or without."""
        cores, reserved = len(self.domains[domain].cores), self.domains[domain].reserved
        return max(cores - 1, reserved) if batch else cores

    def cpus_of(self, kept: tuple[int, ...]) -> tuple[int, ...]:
        """CPUs of the kept cores, rising."""
        cores = (core for domain, count in zip(self.domains, kept, strict=True) for core in domain.cores[:count])
        return tuple(sorted(cpu for core in cores for cpu in core))


@lru_cache(maxsize=4)
def layout_of(topology: Topology) -> Layout:
    """The layout of a topology, cached: a machine has only one."""
    return Layout(topology)


class Objective:
    """A problem with its costs as tables. The search here and the exact solver of the tests read the same tables."""

    def __init__(self, layout: Layout, requests: tuple[Request, ...], kept_now: tuple[int, ...] | None = None) -> None:
        """`kept_now`: CPUs that are kept from batch now; None if nothing is confined.

        Raises ValueError if two requests have one name.
        """
        self.layout = layout
        self.requests = tuple(sorted(requests, key=attrgetter("name")))
        if len({request.name for request in requests}) < len(requests):
            raise ValueError("two requests have the same name; a group is placed once")
        demand: Floats = np.array([request.demand for request in self.requests], dtype=float)
        self.is_batch: Flags = np.array([not request.interactive for request in self.requests], dtype=bool)
        self.demands, self.batch_demands = demand, np.where(self.is_batch, demand, 0.0)
        self.latency_demands: Floats = demand - self.batch_demands
        self._columns: Numbers = 1 + self.is_batch * (1 + len(layout.places))
        """By request: offset from its place (-1: nowhere) to a row: nowhere and each place for latency, then the same for batch."""
        unknown = 1.0 - layout.nodes.max(axis=1)
        away = np.tile(unknown, (len(demand), 1))
        known = [i for i, request in enumerate(self.requests) if request.memory]
        if known:
            away[known] = 1.0 - np.array([self.requests[i].memory for i in known]) @ layout.nodes.T
        self.running: Floats = demand[:, None] * (SPLIT * (1.0 - layout.parts.max(axis=1))[None, :] + AWAY * away)
        """SPLIT and AWAY by request and place; infinite where the request may not be."""
        self.running[np.ix_(np.flatnonzero(self.is_batch), np.array(layout.closed, dtype=np.intp))] = inf
        found = {cpus: layout.place_of(cpus) for cpus in {request.current for request in self.requests}}
        now = None if kept_now is None else set(kept_now)
        kept = tuple(-1 if now is None else sum(now.issuperset(core) for core in domain.cores) for domain in layout.domains)
        self.moving: Floats = MOVED + MOVED_WORK * demand
        """What moving each request costs."""
        self._anchor(tuple(found[request.current] for request in self.requests), kept)

    def _anchor(self, places: tuple[int, ...], kept: tuple[int, ...]) -> None:
        layout = self.layout
        self.places_now, self.kept_now = places, kept
        """Where the requests are, and how many cores are kept in each domain; -1 if nothing is confined."""
        self.linear: Floats = self.running + self.moving[:, None]
        """What it costs whatever the others do, by request and place."""
        rows = np.arange(len(places))
        self.linear[rows, places] = self.running[rows, places]
        most = 1 + max(len(domain.cores) for domain in layout.domains)
        cpus, moved, barred = np.zeros((len(kept), most)), np.full((len(kept), most), inf), np.zeros((len(kept), most))
        for number, (domain, now) in enumerate(zip(layout.domains, kept, strict=True)):
            count = len(domain.cores)
            cpus[number, : count + 1] = layout.kept_cpus[number]
            moved[number, domain.reserved : count + 1] = 0.0
            if now >= 0:
                moved[number] += MOVED_CORE * np.abs(np.arange(most) - now)
            barred[number, layout.most_kept(number, batch=True) + 1 :] = FORBIDDEN
        every = np.array([[len(cpus)] for cpus in layout.cpus], dtype=float)
        shared = SHARED * np.arange(most) - moved
        by_kept = np.stack([shared, shared + CROWDED * cpus, moved, every - cpus - barred])
        self.tables = Tables(by_kept[..., None], every)
        """Cost of each domain."""

    def after(self, plan: Plan) -> Objective:
        """The same problem with this plan in force."""
        again = copy(self)
        again._anchor(plan.places, plan.kept)  # noqa: SLF001  # its own kind
        return again

    def without_moves(self) -> Objective:
        """The same problem with nothing in force, so that keeping cores costs nothing."""
        again = copy(self)
        again._anchor(self.places_now, (-1,) * len(self.kept_now))  # noqa: SLF001
        return again

    def domain_cost(self, domain: int, interactive: float, batch: float, kept: int) -> float:
        """Cost of a domain with these demands and this many kept cores."""
        cpus, now = self.layout.kept_cpus[domain], self.kept_now[domain]
        crowded = max(0.0, interactive - cpus[kept])
        lost = max(0.0, batch + crowded - (cpus[-1] - cpus[kept]))
        moved = MOVED_CORE * abs(kept - now) if now >= 0 else 0.0
        return SHARED * max(0.0, interactive - kept) + CROWDED * crowded + lost + moved

    def loads(self, places: tuple[int, ...]) -> list[tuple[float, float, int]]:
        """By domain: latency demand, batch demand, batch groups."""
        interactive, batch, groups = self.loads_of(np.array(places, dtype=np.intp))
        return list(zip(interactive[:, 0].tolist(), batch[:, 0].tolist(), groups[:, 0].round().astype(int).tolist(), strict=True))

    def loads_of(self, places: Numbers) -> Loads:
        """The same as columns; place -1 is nowhere."""
        layout, places = self.layout, places + self._columns
        size = 1 + len(layout.places)
        interactive, batch = np.bincount(places, self.demands, 2 * size).reshape(2, size)[:, 1:] @ layout.parts
        groups = np.bincount(places, minlength=2 * size)[1 + size :] @ layout.members
        return interactive[:, None], batch[:, None], groups[:, None]

    def cost(self, plan: Plan) -> float:
        """The cost to minimize. Infinite for a plan that is not allowed."""
        costs, places = self._by_kept(plan.places), list(plan.places)
        cost = self.linear[np.arange(len(places)), places].sum() + costs[np.arange(len(costs)), list(plan.kept)].sum()
        return float(cost) if cost < FORBIDDEN else inf

    def with_kept(self, places: tuple[int, ...]) -> Plan:
        """These places with the best number of kept cores for each domain; among equals the fewest."""
        return Plan(places, tuple(self._by_kept(places).argmin(axis=1).tolist()))

    def _by_kept(self, places: tuple[int, ...]) -> Floats:
        interactive, batch, groups = self.loads_of(np.array(places, dtype=np.intp))
        return costs_by_kept(self.tables, interactive, batch, groups > HALF)[:, :, 0]

    def cpu_sets(self, plan: Plan) -> dict[str, tuple[int, ...]]:
        """CPUs that the plan confines each group to, by name; () for an interactive group that may use all."""
        kept = set(self.layout.cpus_of(plan.kept))
        found = {}
        for request, place in zip(self.requests, plan.places, strict=True):
            members = self.layout.places[place]
            cpus = sorted(cpu for member in members for cpu in self.layout.cpus[member])
            if not request.interactive:
                found[request.name] = tuple(cpu for cpu in cpus if cpu not in kept)
            else:
                found[request.name] = () if len(members) == len(self.layout.domains) else tuple(cpus)
        return found


def domains(topology: Topology) -> tuple[Domain, ...]:
    """The usable CPUs (allowed and not isolated) by cache and node, in the order of their lowest CPU."""
    usable = set(topology.allowed) - set(topology.isolated)
    found = []
    for node, members in enumerate(topology.nodes):
        for cache in topology.caches:
            here = usable.intersection(members, cache)
            cores = [tuple(cpu for cpu in core if cpu in here) for core in topology.cores]
            cores = sorted((core for core in cores if core), key=lambda core: (len(core), core))
            if cores:
                found.append((min(here), node, tuple(cores)))
    found.sort()
    first = next((i for i, (_, _, cores) in enumerate(found) if len(cores) > 1), 0)
    return tuple(Domain(node, cores, int(i == first)) for i, (_, node, cores) in enumerate(found))


def _places(found: tuple[Domain, ...]) -> tuple[tuple[int, ...], ...]:
    """Domains of each place: single ones, then nodes with several, then the machine, each set once."""
    alone = [(i,) for i in range(len(found))]
    nodes = [
        tuple(i for i, domain in enumerate(found) if domain.node == node) for node in sorted({domain.node for domain in found})
    ]
    return tuple(dict.fromkeys((*alone, *nodes, tuple(range(len(found))))))


class Tables(NamedTuple):
    """What domains cost."""

    by_kept: Floats
    """Four tables by domain and number of kept cores, with a last axis of one: SHARED for each kept core, less the third table; the
    same plus CROWDED for each CPU of the kept cores; MOVED_CORE, infinite where that many may not be kept; the CPUs left to batch,
    minus FORBIDDEN where batch needs the last core."""
    cpus: Floats
    """CPUs by domain, with an axis of one."""

    def of(self, domains: Numbers) -> Tables:
        """The tables of these domains, one entry each time a domain is named."""
        return Tables(self.by_kept[:, domains], self.cpus[domains])


def costs_by_kept(tables: Tables, interactive: Floats, batch: Floats, any_batch: Flags) -> Floats:
    """Cost by domain, number of kept cores and load, for loads by domain. One call for very many: this is where the time goes.

    The latency terms of the objective (see above) are convex in latency, so they are the largest of three lines. Batch loses the
    larger of what it lacks itself and, whatever is kept, of what both lack. FORBIDDEN or more is not allowed.
    """
    shared, crowded, moved, room = tables.by_kept
    wanted = np.where(any_batch, batch, -2 * FORBIDDEN)  # no batch group: nothing is barred
    total: Floats = wanted[:, None] - room
    np.maximum(total, np.maximum(interactive + batch - tables.cpus, 0.0)[:, None], out=total)
    served = (SHARED * interactive)[:, None] - shared
    np.maximum(served, ((SHARED + CROWDED) * interactive)[:, None] - crowded, out=served)
    np.maximum(served, moved, out=served)
    total += served
    return total


def solve(layout: Layout, requests: tuple[Request, ...], kept_now: tuple[int, ...] | None = None) -> tuple[Objective, Plan]:
    """A plan of nearly the least cost, and its objective. The order of requests does not matter.

    Solving again from the plan gives the plan: each round starts with the groups where the round before put them, and only a lower
    cost replaces that. Moves that were free then cost something, so what is better in a later round is better in the first.
    """
    objective = Objective(layout, requests, kept_now)
    if not requests:
        return objective, objective.with_kept(())
    search = _Search(objective)
    if search.in_force and search.improved(hasty=True) is None:
        return objective, search.now
    plan = search.found()
    while True:
        again = _Search(objective.after(plan)).improved()
        if again is None:
            return objective, plan
        plan = again


class _Search:
    """Local search that evaluates all moves of a kind at once, in arrays.

    From a start it descends: at every step it knows each group's best move, and makes the best of these. It gathers batch work in
    few domains. Then it exchanges pairs, tries each domain with one kept core more and one less, and takes groups out, the largest
    first, and puts them back in the best way. It counts its evaluations and stops at a budget: the work is bounded, and the same on
    every machine.
    """

    def __init__(self, objective: Objective) -> None:
        layout = objective.layout
        self._objective, self._layout = objective, layout
        self._linear: Floats = np.ascontiguousarray(np.minimum(objective.linear.T, FORBIDDEN))  # by place and group
        self._parts, self._members = layout.padded
        self._count = len(layout.domains)
        self._groups: Numbers = np.arange(len(objective.requests))
        self._order: Numbers = np.argsort(-objective.demands, kind="stable")
        self._work, self._budget = 0.0, BUDGET

    @property
    def in_force(self) -> bool:
        """Whether there is a placement already that is allowed."""
        return min(self._objective.kept_now) >= 0 and isfinite(self._cost_now)

    @cached_property
    def _cost_now(self) -> float:
        return self._objective.cost(self.now)

    @property
    def now(self) -> Plan:
        """Where the groups are."""
        return Plan(self._objective.places_now, self._objective.kept_now)

    def improved(self, *, hasty: bool = False) -> Plan | None:
        """The improved placement in force; None if nothing better is found. `hasty`: stop at the first improvement."""
        objective = self._objective
        if not self.in_force:
            return None
        self._budget = CHECK
        plan = self._plan(self._polished(np.array(objective.places_now), hasty=hasty))
        return plan if objective.cost(plan) < self._cost_now - TINY else None

    def found(self) -> Plan:
        """The better of a placement from scratch, if the groups are few, and the improved one in force, if there is one."""
        self._budget = BUDGET
        starts = [] if self.in_force and len(self._groups) > MANY else [self._built()]
        if min(self._objective.kept_now) >= 0:
            starts.append(np.array(self._objective.places_now))
        found = [self._gathered(self._descended(start, steps=SHORT)) for start in starts]
        return self._plan(self._polished(min(found, key=self._total)))

    def _plan(self, places: Numbers) -> Plan:
        return self._objective.with_kept(tuple(places.tolist()))

    def _total(self, places: Numbers, loads: Loads | None = None) -> float:
        """Cost of places with the best kept cores; `loads`: those of the places, if known."""
        interactive, batch, groups = self._objective.loads_of(places) if loads is None else loads
        return float(self._least(interactive, batch, groups > HALF).sum() + self._linear[places, self._groups].sum())

    def _least(self, interactive: Floats, batch: Floats, any_batch: Flags, tables: Tables | None = None) -> Floats:
        """Cost of domains with the best kept cores; the first axis is the domains."""
        tables = self._objective.tables if tables is None else tables
        shape, flat = interactive.shape, (len(interactive), -1)
        self._work += 1 + interactive.size * tables.by_kept.shape[2] / ELEMENTS
        costs = costs_by_kept(tables, interactive.reshape(flat), batch.reshape(flat), any_batch.reshape(flat))
        least: Floats = np.minimum.reduce(costs, axis=1).reshape(shape)
        return least

    def _built(self) -> Numbers:
        """Places for all groups from scratch, first those that lose most if they do not get the best place."""
        best = np.sort(self._linear, axis=0)
        keen = self._order[np.argsort((best[0] - best[min(1, len(best) - 1)])[self._order], kind="stable")]
        nowhere: Numbers = np.full(len(keen), -1)
        return self._inserted(nowhere, keen) if len(keen) <= HANDFULS else self._put(nowhere, keen)

    def _gathered(self, places: Numbers) -> Numbers:
        """All batch work in the fewest domains that have room for it, those with most of it now, if that costs less.

        Each domain with batch work loses the rest of its last core, and no single move empties a domain of batch work.
        """
        batch = self._objective.loads_of(places)[1][:, 0]
        order = np.argsort(-batch, kind="stable")
        domains = zip(self._layout.domains, self._layout.kept_cpus, strict=True)
        room = np.array([cpus[-1] - cpus[domain.reserved] for domain, cpus in domains])
        enough = int(np.searchsorted(np.cumsum(room[order]), batch.sum() - TINY)) + 1
        return min(places, self._emptied(places, order[enough:]), key=self._total)

    def _emptied(self, places: Numbers, closed: Numbers) -> Numbers:
        """Moves all batch work out of these domains, if it can go elsewhere."""
        barred: Flags = np.any(self._members[closed] > HALF, axis=0)
        out: Flags = self._objective.is_batch & barred[places]
        if not out.any() or barred[:-1].all():
            return places
        other = self._put(places, self._order[out[self._order]], np.flatnonzero(barred[:-1]))
        return self._descended(other, steps=SHORT)

    def _put(self, places: Numbers, groups: Numbers, barred: Numbers | None = None) -> Numbers:
        """Takes groups out and puts them back by the handful, each group where it adds least; `barred`: places for none."""
        demands = self._objective.demands
        before = np.cumsum(demands[groups]) - demands[groups]
        handful = (before * (HANDFULS / max(demands.sum(), TINY))).astype(int)
        places = places.copy()
        places[groups] = -1
        for together in np.split(groups, np.flatnonzero(np.diff(handful)) + 1):
            values = self._values(places, together)
            if barred is not None:
                values[barred] = inf
            places[together] = values.argmin(axis=0)
        return places

    def _values(self, places: Numbers, groups: Numbers) -> Floats:
        """What each unplaced group alone adds to the cost, by place and group."""
        objective = self._objective
        interactive, batch, there = objective.loads_of(places)
        shares = self._layout.shares[:, :, None]
        more_latency = interactive[:, None] + shares * objective.latency_demands[groups]
        more_batch = batch[:, None] + shares * objective.batch_demands[groups]
        any_batch = np.empty(more_batch.shape, dtype=bool)
        any_batch[:, 0] = there > HALF
        any_batch[:, 1:] = (any_batch[:, 0] | objective.is_batch[groups])[:, None]
        costs = self._least(more_latency, more_batch, any_batch)
        return self._linear[:, groups] + self._added(costs)

    def _added(self, costs: Floats) -> Floats:
        """What the group adds in the place, by place and group, from costs by domain, 0 or kind of place, and group."""
        added: Floats = self._layout.sums @ (costs[:, 1:] - costs[:, :1]).reshape(-1, costs.shape[2])
        return added

    def _inserted(self, places: Numbers, groups: Numbers) -> Numbers:
        """Takes groups out and puts them back one by one, keeping as many ways after each as cost little more than one."""
        objective, kinds, sums = self._objective, self._layout.kinds, self._layout.sums
        places = places.copy()
        places[groups] = -1
        interactive, batch, there = objective.loads_of(places)  # from here on by domain and way
        costs = self._least(interactive, batch, there > HALF)
        totals = np.zeros(1)
        shares = self._layout.shares[:, 1:, None]
        steps = list[tuple[Numbers, Numbers]]()
        width = max(1, ELEMENTS // (shares.size * objective.tables.by_kept.shape[2]))
        for group in groups.tolist():
            demand, is_batch = objective.demands[group], objective.is_batch[group]
            shape = (self._count, shares.shape[1], len(totals))
            if is_batch:
                then = self._least(
                    np.broadcast_to(interactive[:, None], shape), batch[:, None] + shares * demand, np.ones(shape, dtype=bool)
                )
            else:
                any_batch = np.broadcast_to((there > HALF)[:, None], shape)
                then = self._least(interactive[:, None] + shares * demand, np.broadcast_to(batch[:, None], shape), any_batch)
            values = sums @ (then - costs[:, None]).reshape(-1, len(totals))
            values += self._linear[:, group, None]
            values += totals
            ranked = values.ravel()
            best = np.argsort(ranked, kind="stable")[:width]
            best = best[ranked[best] < FORBIDDEN]
            place, way = np.divmod(best, len(totals))
            steps.append((place, way))
            totals = ranked[best]
            load, inside = self._parts[:, place] * demand, self._members[:, place]
            interactive, batch, there = interactive[:, way], batch[:, way], there[:, way]
            if is_batch:
                batch, there = batch + load, there + inside
            else:
                interactive = interactive + load
            costs = np.where(inside > 0, then[:, kinds[place], way], costs[:, way])
        at = int(totals.argmin())
        for group, (place, way) in zip(groups[::-1].tolist(), reversed(steps), strict=True):
            places[group] = place[at]
            at = int(way[at])
        return places

    def _polished(self, places: Numbers, *, hasty: bool = False) -> Numbers:
        """Improves places within the budget; `hasty`: only the first improvement."""
        start = places
        places = self._descended(places, steps=1 if hasty else inf)
        if hasty and (places != start).any():
            return places
        total = self._total(places)
        improved = True
        while improved:
            improved = False
            while self._work < self._budget and (exchanged := self._exchanged(places)) is not None:
                if hasty:
                    return exchanged
                places = self._descended(exchanged)
                total = self._total(places)
            costs = self._domain_costs(places)
            kept, cheapest = costs.argmin(axis=1), np.argsort(costs.min(axis=1), kind="stable").tolist()
            shapes = [(domain, more) for more in (1, -1) for domain in cheapest]
            sets = [self._order[first : first + REBUILT] for first in range(0, len(places), REBUILT)]
            changes: list[tuple[int, int] | Numbers] = [*shapes, *sets] if len(sets) > 1 else [*sets, *shapes]
            for change in changes:
                if self._work >= self._budget:
                    return places
                other = self._reshaped(places, kept, *change) if isinstance(change, tuple) else self._inserted(places, change)
                if other is not places and self._total(other) < total - TINY:
                    if hasty:
                        return other
                    places, improved = self._descended(other), True
                    total, kept = self._total(places), self._domain_costs(places).argmin(axis=1)
        return places

    def _domain_costs(self, places: Numbers) -> Floats:
        """Costs by domain and number of kept cores."""
        interactive, batch, groups = self._objective.loads_of(places)
        self._work += 1
        return costs_by_kept(self._objective.tables, interactive, batch, groups > HALF)[:, :, 0]

    def _reshaped(self, places: Numbers, kept: Numbers, domain: int, change: int) -> Numbers:
        """Lets a domain keep one core more or less, and moves groups with all kept cores fixed. If all are kept, batch leaves."""
        layout, tables = self._layout, self._objective.tables
        kept = kept.copy()
        kept[domain] += change
        cores, reserved = len(layout.domains[domain].cores), layout.domains[domain].reserved
        if not reserved <= kept[domain] <= cores:
            return places
        if change > 0 and kept[domain] == cores:
            return self._emptied(places, np.array([domain]))
        fixed = Tables(tables.by_kept[:, np.arange(self._count), kept][:, :, None], tables.cpus)
        return self._descended(places, fixed, steps=SHORT)

    def _descended(self, places: Numbers, fixed: Tables | None = None, *, steps: float = inf) -> Numbers:
        """Makes the best moves of single groups, step by step, until none improves. `fixed`: tables with the kept cores given."""
        objective, groups, is_batch = self._objective, self._groups, self._objective.is_batch
        tables = objective.tables if fixed is None else fixed
        shares = self._layout.shares[:, :, None]
        costs = np.empty((self._count, shares.shape[1], len(groups)))  # without the group, and with it in a place of each kind
        changed: Numbers = np.arange(self._count)
        at_once = AT_ONCE if fixed is None else 1
        total: float | None = None
        loads: Loads | None = None
        while steps > 0 and self._work < self._budget:
            steps -= 1
            interactive, batch, there = loads = objective.loads_of(places) if loads is None else loads
            own = self._parts[changed[:, None], places]
            other_latency = (interactive[changed] - own * objective.latency_demands)[:, None]
            other_batch = (batch[changed] - own * objective.batch_demands)[:, None]
            any_batch = np.empty((len(changed), *costs.shape[1:]), dtype=bool)
            any_batch[:, 0] = there[changed] - HALF > (own > 0.0) & is_batch  # others
            any_batch[:, 1:] = (any_batch[:, 0] | is_batch)[:, None]
            costs[changed] = self._least(
                other_latency + shares[changed] * objective.latency_demands,
                other_batch + shares[changed] * objective.batch_demands,
                any_batch,
                tables.of(changed),
            )
            values = self._linear + self._added(costs)
            best = values.argmin(axis=0)
            gains = values[places, groups] - values[best, groups]
            better = (gains > TINY).nonzero()[0]
            if not len(better):
                break
            better = better[(-gains[better]).argsort(kind="stable")]
            if at_once > 1:
                moved, touched = self._moved(places, best, better, at_once)
                before = self._total(places, loads) if total is None else total
                loads = objective.loads_of(moved)
                total = self._total(moved, loads)
                if total > before - HALF * gains[moved != places].sum():
                    at_once = 1  # the moves conflict
                else:
                    places, changed = moved, touched
            if at_once == 1:
                (places, changed), loads = self._moved(places, best, better, 1), None
        return places

    def _moved(self, places: Numbers, best: Numbers, groups: Numbers, at_once: int) -> tuple[Numbers, Numbers]:
        """(places after moves to the best ones, while no domain is touched by more than `at_once`; domains touched)."""
        times, full = [0] * self._count, set[int]()
        ways = zip(groups.tolist(), places[groups].tolist(), best[groups].tolist(), strict=True)
        places = places.copy()
        for group, now, then in ways:
            here = self._layout.touched[now][then]
            if full.isdisjoint(here):
                for domain in here:
                    times[domain] += 1
                    if times[domain] == at_once:
                        full.add(domain)
                places[group] = then
                if len(full) == self._count:
                    break
        return places, np.flatnonzero(times)

    def _exchanged(self, places: Numbers) -> Numbers | None:
        """The best exchange of two of the largest groups between two domains; None if none improves."""
        objective, linear = self._objective, self._linear
        largest = self._order[:EXCHANGED]
        largest = largest[places[largest] < self._count]
        here = places[largest]
        if not len(here):
            return None
        owns = objective.latency_demands, objective.batch_demands, objective.is_batch.astype(float)
        interactive, batch, there = (
            load[here] - own[largest, None] + own[largest] for load, own in zip(objective.loads_of(places), owns, strict=True)
        )  # of each group's domain, if it leaves and another comes
        then = self._least(interactive, batch, there > HALF, objective.tables.of(here))
        gains = self._domain_costs(places).min(axis=1)[here, None] - then
        gains += linear[here, largest][:, None] - linear[here, largest[:, None]]
        gains += gains.T
        gains[here[:, None] == here] = 0.0
        one, two = np.unravel_index(gains.argmax(), gains.shape)
        if gains[one, two] <= TINY:
            return None
        places = places.copy()
        places[largest[[one, two]]] = here[[two, one]]
        return places
