"""Pool sizes in simulation: nicety, peers' rules, fixed sizes and oracles on synthetic loads and on recorded arrivals.

    python -m benchmarks.pools.simulated [--data DIR] [--only LOAD,...] [--rules NAME,...] [--json FILE] [--table FILE]

Runs `nicety simulate`: 1 h, requests of 0.2 s, 2 to 32 workers, starts of 4 s and 20 s, three seeds; the first 120 s do not count.
Steps and spikes also run with three hours before the time that counts, as for a daemon that has run for a while. DIR has recorded
arrivals (`arrivals/*.parquet`; or set NICETY_DATA), which `scheduler.simulation.arrivals.fitted` scales to the pool; without DIR
only synthetic loads are run. `--table` writes the rows for the docs.

The claims compare nicety with Knative's rule (kpa), the best reactive one. The speed claims are for one CPU, at the load that they
name.

`real.py` does the same on real pools.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from nicety.scheduler.printed import plain
from nicety.scheduler.simulation import run
from nicety.scheduler.simulation.arrivals import SHAPES, Load, Trace, steady
from nicety.scheduler.simulation.tracefile import read

from ..claims import Claims

STARTS = (4.0, 20.0)
SEEDS = (1, 2, 3)
SECONDS, SERVICE = 3600.0, 0.2
ABRUPT = ("steps", "spikes")
"""Loads on which a forecast helps; on all others it must do no harm."""

KNOWN = 3 * 3600.0
"""Seconds that the abrupt loads run before they count as known. Chosen."""

COMPARED = ("nicety", "kpa", "oracle-80", "oracle-70")
"""Rules that are run on known loads; the others learn nothing from the hours before."""

FAST = 0.002
"""Seconds of a request in the measurement of speed. Chosen: 11,200 of them a second keep 22.4 of 32 workers busy."""


@dataclass(frozen=True, slots=True)
class Case:
    """A load to run on."""

    name: str
    source: str | Trace
    warmup: float = run.WARMUP

    def load(self, seed: int) -> Load:
        """The load with this seed."""
        seconds = SECONDS if self.warmup == run.WARMUP else SECONDS + self.warmup
        made = run.prepare(self.source, seed, seconds=seconds, maximum=run.MAXIMUM, service=SERVICE)
        return replace(made, name=self.name)


def cases(data: Path | None) -> dict[str, Case]:
    """All loads by name; `data`: the folder with recorded arrivals."""
    found = [Case(shape, shape) for shape in SHAPES]
    found += [Case(f"{shape}-known", shape, KNOWN) for shape in ABRUPT]
    for path in sorted(data.glob("arrivals/*.parquet")) if data is not None else ():
        trace = read(path)
        found.append(Case(trace.name, trace))
    return {case.name: case for case in found}


def judge(claims: Claims, means: Mapping[tuple[str, float, str], run.Mean]) -> None:
    """Add the claims: nicety beside Knative's rule."""
    for load, start in sorted({(load, start) for load, start, _ in means}):
        ours, theirs = means.get((load, start, "nicety")), means.get((load, start, "kpa"))
        if ours is None or theirs is None:
            continue
        name = f"{load}, start {start:g} s"
        latency, spent = ours.p95 / theirs.p95, ours.worker_seconds / theirs.worker_seconds
        abrupt = load.removesuffix("-known") in ABRUPT
        if abrupt and start == min(STARTS):
            claims.at_most(f"{name}: p95 beside kpa's", latency, 1.0)
            claims.at_most(f"{name}: worker-seconds beside kpa's", spent, 0.7)
        elif abrupt:
            claims.at_least(f"{name}: kpa's p95 beside ours", 1 / latency, 5.0)
            claims.at_most(f"{name}: worker-seconds beside kpa's", spent, 1.0)
        else:
            claims.at_most(f"{name}: p95 beside kpa's", latency, 1.05)
            claims.at_most(f"{name}: worker-seconds beside kpa's", spent, 1.05)


def speed(claims: Claims) -> dict[str, float]:
    """Add the claims about speed: requests that are simulated in a second of CPU."""
    load = steady(0.7 * run.MAXIMUM, 300.0, FAST, 1)
    found = {}
    for rule in ("fixed-32", "kpa", "nicety"):
        begin = time.process_time()
        run.simulate(rule, load, 4.0, 1)
        found[rule] = len(load.arrivals) / (time.process_time() - begin)
        rate = len(load.arrivals) / load.seconds
        claims.at_least(f"requests simulated a second of CPU, {rule}, {rate:,.0f} arriving a second", found[rule], 200_000)
    return found


def table(means: Sequence[run.Mean]) -> str:
    """Markdown: rules by loads, p95 in seconds / mean workers / workers started an hour. Synthetic and recorded loads are
    separate."""
    at, lines = run.by_rule(means), []
    loads, rules = (list(dict.fromkeys(getattr(mean, name) for mean in means)) for name in ("load", "rule"))
    made_up = [load for load in loads if load.removesuffix("-known") in SHAPES]
    for start in sorted({mean.start_seconds for mean in means}):
        for columns in (made_up, [load for load in loads if load not in made_up]):
            if not columns:
                continue
            lines += [f"\nStart {start:g} s:\n", f"| rule | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
            for rule in rules:
                found = [at.get((load, start, rule)) for load in columns]
                if any(found):
                    lines.append(f"| {rule} | {' | '.join('' if mean is None else _cell(mean) for mean in found)} |")
    return "\n".join(lines) + "\n"


def _cell(mean: run.Mean) -> str:
    return f"{mean.p95:.3g} / {mean.workers:.1f} / {mean.spawns_per_hour:.0f}"


def main() -> int:
    """Run the loads and rules asked for and print the claims."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", help="loads, separated by commas")
    parser.add_argument("--rules", default=",".join(run.ALL), help="rules, separated by commas")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path)
    given = parser.parse_args()
    named = os.environ.get("NICETY_DATA")
    there = cases(given.data or (Path(named) if named else None))
    wanted = given.only.split(",") if given.only else list(there)
    if not set(wanted) <= set(there):
        parser.error(f"--only takes {', '.join(there)}")
    rules = given.rules.split(",")
    run.check(rules)
    found, scaled = list[run.Figures](), {}
    for name in wanted:
        case, begin = there[name], time.perf_counter()
        scaled[name] = case.load(SEEDS[0]).scaled
        chosen = [rule for rule in rules if rule in COMPARED or case.warmup == run.WARMUP]
        found += run.run(chosen, [case.load], STARTS, SEEDS, warmup=case.warmup)
        print(f"{name}: {time.perf_counter() - begin:.0f} s; {scaled[name]}", file=sys.stderr, flush=True)
    means = run.means(found)
    claims = Claims()
    judge(claims, run.by_rule(means))
    figures = speed(claims)
    if given.table is not None:
        given.table.write_text(table(means))
    claims.close(
        given.json,
        speed=figures,
        scaled=scaled,
        means=[asdict(mean) for mean in means],
        runs=[plain(it.as_record()) for it in found],
    )
    return 0 if all(row["holds"] for row in claims.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
