"""What a decision costs: CPU time of one step of the engine with equally many interactive and batch groups.

    python -m benchmarks.cost.priority [--json FILE]

Every interactive group waits and every batch group contends. Their processes each have a session, or a cgroup and a session, or
all share one session. "first" is the tick in which contention begins, "steady" a tick in which all batch groups are demoted. The
best of several runs counts, because other load only adds. The straight line goes from zero through the figure of the largest size.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from nicety.models.records import Class
from nicety.scheduler.config.sections import Config
from nicety.scheduler.decide.engine import Engine
from nicety.scheduler.decision import Group, Outcome, Tick
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.testing.ticks import a_forecast, a_group, a_machine, a_member, a_tick

from ..claims import Claims

SIZES = (50, 100, 200, 400, 800)
AIM_PLACES, AIM_SECONDS = 400, 0.010
"""The claim: a step with this many interactive and this many batch places takes at most this much CPU. Chosen: 1 % of a CPU at 1
Hz."""

RUNS = 5
STEADY_STEPS = 5
SETTLE_TICKS = 54
"""Ticks after which all batch groups are demoted: 800 demotions and as many short slices, 32 in a tick. Easing begins later."""

ABOVE_THE_LINE = 1.5
"""Times the straight line that a figure may be (chosen): fixed costs weigh more where places are few."""


def places(count: int, separation: str, wait: float) -> list[Group]:
    """`count` interactive groups that each wait for `wait` cores, and `count` batch groups, all of one process."""
    groups = []
    for number in range(count):
        cgroups = (f"/web-{number}", f"/job-{number}") if separation == "cgroups" else ("/", "/")
        session = 1 if separation == "one session" else 0
        latency = a_member(10_000 + number, session, cgroups[0])
        batch = a_member(50_000 + number, session, cgroups[1])
        groups.append(a_group(f"service {number:04}", Class.INTERACTIVE, [latency], cpu=0.03, wait=wait))
        groups.append(a_group(f"batch {number:04}", Class.BATCH, [batch], cpu=0.06, wait=0.06))
    return groups


def scene(count: int, separation: str, seq: int, outcomes: tuple[Outcome, ...] = ()) -> Tick:
    """A tick of a full machine with a CPU for every ten groups. The services wait less once the first groups are demoted."""
    groups = places(count, separation, 0.03 if seq == 0 else 0.001)
    cpus = max(2, count // 10)
    machine = a_machine(cpus=cpus, busy=float(cpus))
    forecasts = [a_forecast(group.name, "cpu", group.demand) for group in groups]
    return a_tick(seq, machine=machine, groups=groups, forecasts=forecasts, outcomes=outcomes)


def timed(engine: Engine, tick: Tick) -> tuple[float, tuple[Outcome, ...]]:
    """(CPU seconds of the step, the outcomes of what it decided)."""
    begin = time.process_time()
    verdict = engine.step(tick)
    took = time.process_time() - begin
    return took, tuple(Outcome(each.id, Status.APPLIED, each.target, "", 1) for each in verdict.decisions)


def measured(count: int, separation: str) -> tuple[float, float]:
    """CPU seconds of (the tick in which contention begins, a tick in which all are demoted), best of several runs."""
    first = min(timed(Engine(Config(), "s"), scene(count, separation, 0))[0] for _ in range(RUNS))
    engine, outcomes = Engine(Config(), "s"), tuple[Outcome, ...]()
    for seq in range(SETTLE_TICKS):
        _, outcomes = timed(engine, scene(count, separation, seq, outcomes))
    steady = []
    for seq in range(SETTLE_TICKS, SETTLE_TICKS + STEADY_STEPS):
        took, outcomes = timed(engine, scene(count, separation, seq, outcomes))
        steady.append(took)
    return first, min(steady)


def main() -> None:
    """Measure and print the claims."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the claims and all figures to this file")
    arguments = parser.parse_args()
    claims, rows = Claims(), []
    print("places  separation   tick    CPU ms  straight line")
    for separation in ("sessions", "cgroups", "one session"):
        found = {count: measured(count, separation) for count in SIZES}
        for index, tick in enumerate(("first", "steady")):
            slope = found[SIZES[-1]][index] / SIZES[-1]
            for count in SIZES:
                seconds, line = found[count][index], slope * count
                print(f"{count:>6}  {separation:<11}  {tick:<6}  {1e3 * seconds:6.2f}  {1e3 * line:6.2f}")
                rows.append({"places": count, "separation": separation, "tick": tick, "seconds": seconds, "line": line})
            name = f"{AIM_PLACES} interactive and {AIM_PLACES} batch places in {separation}, {tick} tick, ms of CPU"
            claims.at_most(name, 1e3 * found[AIM_PLACES][index], 1e3 * AIM_SECONDS)
            growth = found[SIZES[-1]][index] / found[SIZES[1]][index] / (SIZES[-1] / SIZES[1])
            claims.at_most(f"{SIZES[-1]} places beside {SIZES[1]}, {separation}, {tick} tick, times linear", growth, ABOVE_THE_LINE)
    claims.close(arguments.json, places=rows)


if __name__ == "__main__":
    main()
