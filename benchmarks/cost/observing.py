"""What a tick costs once the machine is read: observed one by one as in the daemon, or together as in a replay; and its forecasts.

    python -m benchmarks.cost.observing [--ticks 480] [--rounds 5] [--json FILE]

A simulated machine of 500 processes with a pool of 8 workers, about 25 of them at work, with the shipped models. Both ways of
observing take turns in one run, each with an observer of its own, and must give the same ticks. Bounds are ratios of CPU time
measured in the same run, so another machine or other load changes them little. The least of the rounds counts, because other load
only adds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nicety.models.artifact import shipped
from nicety.models.forecast.demand import METRICS, Forecaster
from nicety.models.forecast.network import Network
from nicety.models.identity import ProcId
from nicety.scheduler.config.sections import parse
from nicety.scheduler.decision import Abilities, Tick, encode
from nicety.scheduler.observe.observer import Observer, TickInputs
from nicety.scheduler.replay import BATCH
from nicety.scheduler.service.live_models import SessionModels

from ..claims import Claims
from .store import simulated

PROCESSES, MOVING = 500, 25
CONFIG = "[pools.web]\nkind = 'gunicorn'\npidfile = '/run/web.pid'\nmaximum = 16\n"
FEW, SOME, MANY = 4, 84, 400  # series: of a quiet machine, of this one, of a full one

TOGETHER = 0.7
"""Most CPU time of a tick observed together, as a share of one by itself (chosen: 0.55 was measured)."""

FIXED = 0.21
"""Most CPU time of a step with FEW series, as a share of one with MANY (chosen: 0.19 was measured, 0.22 before)."""


def observers() -> tuple[Observer, Observer]:
    """Two of the same kind."""
    models = SessionModels(shipped("demand"), None, shipped("behaviour"))
    one, other = (models.observer(parse(CONFIG), Abilities(True, "v2", may_renice=True), ProcId(1, 1)) for _ in range(2))
    return one, other


def observed(ticks: int) -> tuple[float, float]:
    """(CPU ms of a tick observed by itself, and of one observed with others): the least of all batches once windows are full."""
    snapshots, (one, other) = list(simulated(PROCESSES, MOVING, ticks)), observers()
    alone, together = list[float](), list[float]()
    for first in range(0, len(snapshots) - BATCH + 1, BATCH):
        batch = snapshots[first : first + BATCH]
        start = time.process_time()
        each = [one.tick(snapshot, (), paused=False) for snapshot in batch]
        middle = time.process_time()
        same = other.ticks([(snapshot, TickInputs((), paused=False)) for snapshot in batch])
        together.append((time.process_time() - middle) / BATCH * 1e3)
        alone.append((middle - start) / BATCH * 1e3)
        assert _bytes(each) == _bytes(same), "observed together they differ"
    full = len(alone) // 3
    return min(alone[full:]), min(together[full:])


def _bytes(ticks: Sequence[Tick]) -> list[bytes]:
    return [encode(tick) for tick in ticks]


def step_ms(series: int, ticks: int = 200) -> float:
    """CPU ms of a forecast step with so many series: the tenth least."""
    demand = shipped("demand")
    assert demand is not None
    forecaster, rng = Forecaster(Network(demand.arrays, demand.digest), 1.0), np.random.default_rng(1)
    keys = [f"group{number}" for number in range(series)]
    metric, ask, level = np.arange(series) % 2, np.ones(series, dtype=np.bool_), rng.gamma(1.0, 1.0, series)
    assert len(METRICS) >= 2
    costs = list[float]()
    for tick in range(ticks):
        values = level * (1 + 0.5 * np.sin(tick / 7 + np.arange(series))) * rng.gamma(5.0, 0.2, series)
        start = time.process_time()
        forecaster.step(keys, values, 1.7e9 + tick, metric, ask)
        costs.append((time.process_time() - start) * 1e3)
    return float(np.quantile(costs[ticks // 3 :], 0.1))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=480)
    parser.add_argument("--rounds", type=int, default=5, help="of the forecasts")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    alone, together = observed(options.ticks)
    steps = {series: min(step_ms(series) for _ in range(options.rounds)) for series in (FEW, SOME, MANY)}
    claims = Claims()
    claims.at_most("a tick observed with others, as a share of one by itself", together / alone, TOGETHER)
    claims.at_most(f"a forecast step with {FEW} series, as a share of one with {MANY}", steps[FEW] / steps[MANY], FIXED)
    print(f"a tick: {alone:.2f} ms by itself, {together:.2f} ms with others")
    print("a forecast step: " + ", ".join(f"{cost:.2f} ms with {series} series" for series, cost in steps.items()))
    figures = {"alone_ms": alone, "together_ms": together, "step_ms": {str(series): cost for series, cost in steps.items()}}
    claims.close(options.json, processes=PROCESSES, figures=figures)
    return 0 if all(row["holds"] for row in claims.rows) else 3


if __name__ == "__main__":
    sys.exit(main())
