"""Whether nicety keeps an objective, and what that costs beside the best fixed size in hindsight.

    python -m benchmarks.pools.objective [--only LOAD,...] [--starts S,...] [--services S,...] [--json FILE]

Simulated pools of 2 to 32 workers with `objective = { p95 = ... }`: a quarter above the p95 of the service times. Loads repeat
every two minutes or never. Twenty periods go by before anything counts; then their recorded load is replayed, as the daemon does,
to choose the rules. As many periods count. Worker starts of 1 to 60 s, requests of 0.05 to 5 s.

- The objective must be kept within a tenth wherever an oracle keeps it that knows the load of the coming seconds.
- Worker-seconds may be a tenth more than those of the cheapest fixed size that keeps it, chosen in hindsight of the time that
  counts.

All 96 cells take an hour.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from types import MappingProxyType

import msgspec
import numpy as np

from nicety.models.queueing import Times
from nicety.scheduler.config.sections import Config, Models, Objective, PoolConfig
from nicety.scheduler.decision import Rules
from nicety.scheduler.simulation.arrivals import Floats, Load, Recorded, varying
from nicety.scheduler.simulation.contest import contest
from nicety.scheduler.simulation.ours import Nicety
from nicety.scheduler.simulation.queueing import SimulatedQueue
from nicety.scheduler.simulation.run import MAXIMUM, MINIMUM, first_size, make, simulate

from ..claims import Claims

PERIOD = 120
PERIODS = 20
"""Periods that go by before anything counts, and that count."""

SECONDS = 2.0 * PERIODS * PERIOD
STARTS, SERVICES = (1.0, 4.0, 20.0, 60.0), (0.05, 0.5, 5.0)
TAIL = 2.7
"""95 % quantile of the service times over their mean."""

ROOM = 1.25
"""The objective over that quantile. Chosen: waiting may take about as long as the mean service time."""

SLACK = 1.1
"""Most that the p95 may be above the objective, and worker-seconds above the best fixed size's, as a factor."""


def _flash(at: Floats) -> Floats:
    """4 Erlangs; once, in the time that counts, 20 for five minutes."""
    begin = SECONDS * 0.75
    return np.where((at >= begin) & (at < begin + 300), 20.0, 4.0)


def _weekend(at: Floats) -> Floats:
    """Seven days of a period each: five with a wave up to 16 Erlangs, two with 3."""
    day = at // PERIOD % 7
    return np.where(day < 5, 9.5 - 6.5 * np.cos(2 * np.pi * at / PERIOD), 3.0)


LOADS: Mapping[str, Callable[[Floats], Floats]] = MappingProxyType(
    {
        "steady": lambda at: np.full(len(at), 8.0),
        "steps": lambda at: np.where(at % PERIOD < 40, 12.0, 3.0),
        "spikes": lambda at: np.where(at % PERIOD < 12, 18.0, 3.0),
        "onoff": lambda at: np.where(at % PERIOD < 60, 10.0, 0.0),
        "flash": _flash,
        "ramp": lambda at: 2.0 + 14.0 * at / SECONDS,
        "two": lambda at: np.where(at % PERIOD < 40, 8.0, 2.0) + np.where(at % (5 * PERIOD) < 60, 6.0, 0.0),
        "weekend": _weekend,
    }
)
"""Erlangs of each second."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One pool under one load."""

    load: str
    start: float
    service: float
    objective: float
    rule: str  # chosen by the replay
    p95: float
    workers: float
    oracle_p95: float
    fixed: int | None  # cheapest fixed size that keeps the objective; None: none does
    plain_p95: float  # nicety without an objective
    plain_workers: float

    def __str__(self) -> str:
        fixed = "none keeps it" if self.fixed is None else str(self.fixed)
        return (
            f"{self.load:8} start {self.start:3g} s, requests {self.service:4g} s: p95 {self.p95 / self.objective:5.2f} of the "
            f"objective, {self.workers:4.1f} workers by {self.rule}; oracle {self.oracle_p95 / self.objective:5.2f}; "
            f"best fixed size {fixed}; "
            f"without an objective {self.plain_p95 / self.objective:5.2f}, {self.plain_workers:4.1f} workers"
        )


def measured(name: str, start: float, service: float) -> Cell:
    """Run one pool under all rules."""
    objective = ROOM * TAIL * service
    load = varying(name, LOADS[name](np.arange(SECONDS)), SECONDS, service, 1)
    config, half = msgspec.structs.replace(Config(), models=Models(demand=False)), SECONDS / 2
    kept = Objective(p95=f"{1000 * objective:.0f}ms")
    rule = _chosen(load, start, service, config, kept)
    ours = simulate(rule, load, start, 1, warmup=half)
    plain = simulate("nicety", load, start, 1, warmup=half, config=config)
    oracle = simulate("oracle-70", load, start, 1, warmup=half)
    return Cell(
        load=name,
        start=start,
        service=service,
        objective=objective,
        rule=rule.name,
        p95=ours.p95,
        workers=ours.workers,
        oracle_p95=oracle.p95,
        fixed=_cheapest(load, start, half, objective),
        plain_p95=plain.p95,
        plain_workers=plain.workers,
    )


def _chosen(load: Load, start: float, service: float, config: Config, objective: Objective) -> Nicety:
    """nicety with the rules that a replay of the first half chooses, from what it records of it."""
    rule = make("nicety", load, start, MINIMUM, MAXIMUM, config, None, objective)
    queue = SimulatedQueue(load.arrivals, load.services, start, first_size(MINIMUM, MAXIMUM))
    probes, looks = round(1 / rule.period), list[tuple[float, float, float]]()
    for turn in range(1, round(SECONDS / 2) * probes + 1):
        queue.advance(turn * rule.period)
        seen = queue.look(rule.wants_workers)
        looks.append((seen.busy_mean, seen.queued_mean, seen.size))
        queue.resize(min(max(rule.size(seen), MINIMUM), MAXIMUM))
    busy, queued, sizes = np.array(looks).reshape(-1, probes, 3).mean(axis=1).T
    times = Times.fitted(service, TAIL * service)
    recorded = Recorded("pool", 1.0, busy, queued, sizes, np.zeros(0), start, 0.0, times)
    pool = PoolConfig(kind="command", command=["worker"], minimum=MINIMUM, maximum=MAXIMUM, objective=objective)
    replay = contest(recorded, msgspec.structs.replace(config, pools={"pool": pool}), objective, (Rules.ALL, 0), 1)
    rules = replay.chosen
    assert rules is not None
    return Nicety(config, MINIMUM, MAXIMUM, None, rules=rules.rules, size=rules.size, peak=rules.peak, objective=objective)


def _cheapest(load: Load, start: float, half: float, objective: float) -> int | None:
    """The smallest fixed size that keeps the objective."""
    low, high = MINIMUM - 1, MAXIMUM + 1
    while high - low > 1:
        middle = (low + high) // 2
        keeps = simulate(f"fixed-{middle}", load, start, 1, warmup=half).p95 <= objective
        low, high = (low, middle) if keeps else (middle, high)
    return high if high <= MAXIMUM else None


def judge(claims: Claims, cell: Cell) -> None:
    """Add the claims about a cell."""
    name = f"{cell.load}, start {cell.start:g} s, requests of {cell.service:g} s"
    if cell.oracle_p95 <= cell.objective:
        claims.at_most(f"{name}: p95 over the objective", cell.p95 / cell.objective, SLACK)
    if cell.fixed is not None:
        claims.at_most(f"{name}: workers beside the best fixed size", cell.workers / cell.fixed, SLACK)


def main() -> int:
    """Run the cells asked for and print the claims."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(LOADS), help="loads, separated by commas")
    parser.add_argument("--starts", default=",".join(map(str, STARTS)), help="seconds, separated by commas")
    parser.add_argument("--services", default=",".join(map(str, SERVICES)), help="seconds, separated by commas")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    names = given.only.split(",")
    if not set(names) <= set(LOADS):
        parser.error(f"--only takes {', '.join(LOADS)}")
    claims, cells = Claims(), list[Cell]()
    starts, services = (tuple(map(float, text.split(","))) for text in (given.starts, given.services))
    for name, start, service in product(names, starts, services):
        cells.append(measured(name, start, service))
        print(cells[-1], file=sys.stderr, flush=True)
        judge(claims, cells[-1])
    claims.close(given.json, cells=[asdict(cell) for cell in cells])
    return 0 if all(row["holds"] for row in claims.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
