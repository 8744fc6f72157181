"""Resizes pools of task queues' own workers under load and counts jobs that were lost or begun twice. There must be none.

python -m benchmarks.pools.queues --queue rq --jobs 1000 [--json FILE]

A job computes (with arq: waits) for some milliseconds. Sizes are drawn with a fixed seed. A worker that leaves is drained.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.pools.command.adapter import CommandPool
from nicety.scheduler.testing.acts import own_acts

from ..claims import Claims
from . import task_queues

MAXIMUM = 3
SECONDS = 0.02
PATIENCE = 300.0


def run(key: str, count: int, every: float, claims: Claims) -> None:
    """All jobs of one framework."""
    with tempfile.TemporaryDirectory() as name, task_queues.jobs(key, Path(name)) as jobs:
        clock, chance = SystemClock(), random.Random(7)
        config = jobs.config(key, MAXIMUM)
        pool = CommandPool(key, config, clock, own_acts(key, config, clock, logs=Path(name), environ=jobs.environ), seed=1)
        jobs.enqueue(count, SECONDS)
        began = resized = time.monotonic()
        resizes, loads = 0, list[float]()
        try:
            pool.resize(2)
            while (ended := jobs.ended()) < count and time.monotonic() < began + PATIENCE:
                until = time.monotonic() + 0.5
                while time.monotonic() < until:
                    pool.probe()
                    time.sleep(0.05)
                sample = pool.read()
                busy = sum(worker.busy or 0.0 for worker in sample.workers if worker.ready)
                undone = count - (ended + jobs.ended()) / 2
                loads.append((sample.flights.held if sample.flights else busy) + (sample.queued or 0.0) - undone)
                if time.monotonic() - resized > every:
                    resized = time.monotonic()
                    resizes += (
                        pool.resize(chance.choice([n for n in range(1, MAXIMUM + 1) if n != sample.requested]))[0] == "applied"
                    )
        finally:
            pool.close()
        seconds = time.monotonic() - began
        claims.at_most(f"{key}: lost of {count} jobs in {resizes} resizes", count - jobs.ended(), 0)
        claims.at_most(f"{key}: begun twice", jobs.begun_twice(), 0)
        off = sorted(map(abs, loads))[len(loads) // 2] if loads else float("nan")
        name_of_lag = f"{key}: seconds of work that the load is off, median of {len(loads)} samples in {seconds:.0f} s"
        claims.at_most(name_of_lag, off * seconds / count, 0.25)


def main() -> None:
    """Run the frameworks that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queue", choices=task_queues.FRAMEWORKS, action="append", help="default: all")
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--every", type=float, default=1.5, help="seconds between resizes")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    claims = Claims()
    for key in arguments.queue or task_queues.FRAMEWORKS:
        run(key, arguments.jobs, arguments.every, claims)
    claims.close(arguments.json)


if __name__ == "__main__":
    main()
