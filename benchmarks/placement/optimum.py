"""How close placement is to the exact optimum, how long it takes, and whether it is stable, on 50 random machines with up to 200
groups.

    python -m benchmarks.placement.optimum --json placement.json

The oracle solves the same objective as a mixed integer programme (`oracle.py`). If it does not finish within --seconds, the cost
is compared with its lower bound, so the true gap is smaller. Times are CPU time of the thread for a whole `solve` as the policy
calls it: the best of ten. They are measured in rounds over all problems, because a virtual CPU sometimes runs at half its speed
for some tenths of a second, which would slow ten calls in a row. The search is tuned on the first 50 seeds; `--first-seed 100` has
others.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from nicety.scheduler.decide.policies.placement.assignment import Layout, Objective, Request, solve

from ..claims import Claims
from .oracle import a_problem, a_topology, optimum

NOTHING = 1e-6
"""Cores below which two costs are equal: the oracle's own tolerance."""

ROUNDS = 10
"""Rounds, in each of which every problem is solved and timed once. Chosen."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=50)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=30.0, help="limit of the oracle for a problem")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    problems = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.problems):
        rng = np.random.default_rng(seed)
        topology = a_topology(rng)
        problems.append((topology, Layout(topology), *a_problem(rng, topology)))
    times = np.array([[_seconds(*problem[1:]) for problem in problems] for _ in range(ROUNDS)])
    rows = []
    for number, (topology, layout, requests, kept) in enumerate(problems):
        seed = arguments.first_seed + number
        objective, plan = solve(layout, requests, kept)
        cost = objective.cost(plan)
        best = optimum(Objective(layout, requests, kept), arguments.seconds)
        sets = objective.cpu_sets(plan)
        now = tuple(replace(request, current=sets[request.name]) for request in requests)
        row = {
            "seed": seed,
            "cpus": len(topology.online),
            "threads": max(map(len, topology.cores)),
            "caches": len(topology.caches),
            "nodes": len(topology.nodes),
            "groups": len(requests),
            "in_force": kept is not None,
            "milliseconds": 1e3 * float(times[:, number].min()),
            "cost": cost,
            "oracle": best.cost,
            "bound": best.bound,
            "proved": best.proved,
            "over_bound": _over(cost, best.bound),
            "over_oracle": _over(cost, best.cost),
            "rests": solve(layout, now, layout.cpus_of(plan.kept))[1] == plan,
        }
        rows.append(row)
        print(
            f"{seed:3} {row['cpus']:3} CPUs x{row['threads']} {row['caches']} caches {row['nodes']} nodes {row['groups']:4} groups "
            f"{row['milliseconds']:6.1f} ms  cost {cost:8.4f}  oracle {best.cost:8.4f}  bound {best.bound:8.4f} "
            f"{'' if best.proved else '(not finished)'} {100 * row['over_bound']:5.1f} %",
            flush=True,
        )
    claims = Claims()
    proved = [row for row in rows if row["proved"]]
    claims.at_least("problems", len(rows), 50)
    claims.at_least("of them with a proved optimum", len(proved), 40)
    claims.at_most("worst cost over the proved optimum", max(row["over_bound"] for row in proved), 0.05)
    claims.at_most("worst cost over the best plan of the oracle", max(row["over_oracle"] for row in rows), 0.05)
    claims.at_most("worst cost over the oracle's bound", max(row["over_bound"] for row in rows), 0.05)
    claims.at_most("mean cost over the oracle's bound", float(np.mean([row["over_bound"] for row in rows])), 0.05)
    claims.at_most("slowest, ms of CPU time", max(row["milliseconds"] for row in rows), 10)
    claims.add(
        "slowest of a round, median of the rounds, ms of CPU time",
        1e3 * float(np.median(times.max(axis=1))),
        "for comparison",
        True,
    )
    claims.add("solving again changes nothing", sum(row["rests"] for row in rows), "all", all(row["rests"] for row in rows))
    claims.close(arguments.json, problems=rows)


def _seconds(layout: Layout, requests: tuple[Request, ...], kept: tuple[int, ...] | None) -> float:
    """CPU seconds of one call."""
    begin = time.thread_time()
    solve(layout, requests, kept)
    return time.thread_time() - begin


def _over(cost: float, least: float) -> float:
    """Share by which a cost exceeds the least; 0 if the oracle cannot distinguish them."""
    return 0.0 if cost <= least + NOTHING else (cost - least) / max(least, NOTHING)


if __name__ == "__main__":
    main()
