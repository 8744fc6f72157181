"""How long `train` takes on an hour of traces from 200 processes, how good the model is, and whether a bad one is refused.

    python -m benchmarks.cost.training [--ticks 3600] [--json FILE]

Writes a seeded trace through the real trace writer: 200 processes in 40 programs and 3 pools, with waves, repeated steps, bursts
and noise. Then runs `train` on it, and on a trace that is noise up to the held-out time and regular after that, where the model
must lose. `benchmarks/forecast/model.py` measures the accuracy and cost of forecasts.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nicety.models.forecast.baseline import BASELINES
from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, HostSample, Identity, Known, PoolSample, Snapshot, WorkerSample
from nicety.scheduler.store.traces import TraceWriter

from ..claims import Claims

GROUPS, POOLS, PROCESSES = 40, 3, 200
WORKERS = 10  # of each pool
BOUND_SECONDS = 60.0
MIB = 1 << 20
START = 1_700_000_000_000_000_000  # wall clock of the first tick


@dataclass(frozen=True, slots=True)
class Workload:
    """Demand and memory of each group, and offered load of each pool, at every tick."""

    demand: np.ndarray  # [ticks, GROUPS + POOLS] cores
    rss: np.ndarray  # [ticks, GROUPS + POOLS] bytes
    load: np.ndarray  # [ticks, POOLS] Erlangs


def workload(ticks: int, rng: np.random.Generator, regular_from: float) -> Workload:
    """A seeded machine. Up to the share `regular_from` of the time, every value is drawn independently."""
    t = np.arange(ticks)
    regular = t >= regular_from * ticks
    series = []
    for i in range(GROUPS + POOLS):
        level = 10 ** rng.uniform(-1.3, 0.2)
        noise = rng.gamma(4.0, 0.25, ticks)
        period = rng.integers(15, 61)
        phase = rng.integers(0, period)
        shape = [
            1 + 0.9 * np.sin(2 * np.pi * (t + phase) / period),  # wave
            np.where((t + phase) % period < period // 3, 2.0, 0.3),  # step that repeats
            np.where((t + phase) % period < 3, 5.0, 0.1),  # burst
            np.repeat(rng.gamma(2.0, 0.5, ticks // 40 + 1), 40)[:ticks],  # steps at random
            np.ones(ticks),  # noise
        ][i % 5]
        series.append(level * np.where(regular, shape * (1 + 0.15 * (noise - 1)), noise))
    demand = np.maximum(np.array(series).T, 0.0)
    growth = np.repeat(rng.normal(0, 1, (ticks // 20 + 1, GROUPS + POOLS)), 20, axis=0)[:ticks]
    rss = 200 * MIB + np.cumsum(np.maximum(growth, 0), axis=0) * 0.2 * MIB + demand * 20 * MIB
    return Workload(demand, rss, np.minimum(demand[:, GROUPS:] * 3, WORKERS))


def write(directory: Path, load: Workload, rng: np.random.Generator) -> None:
    """The trace of a workload, as the daemon would have recorded it at 1 Hz."""
    groups = np.concatenate([np.arange(PROCESSES - POOLS * WORKERS) % GROUPS, GROUPS + np.repeat(np.arange(POOLS), WORKERS)])
    share = rng.uniform(0.2, 1.0, PROCESSES)
    share /= np.bincount(groups, share)[groups]
    table = np.zeros(PROCESSES, SAMPLE)
    table["pid"], table["start_ticks"], table["ppid"] = 1000 + np.arange(PROCESSES), 100, 1
    table["state"], table["threads"], table["fds"] = ord("S"), 1, 20
    table["known"] = int(Known.WAIT | Known.IO | Known.FDS)
    ids = [ProcId(1000 + i, 100) for i in range(PROCESSES)]
    identities = {
        id_: Identity("worker", f"program{group}" if group < GROUPS else f"pool{group - GROUPS}", "/", "", 0)
        for id_, group in zip(ids, groups.tolist(), strict=True)
    }
    members = [[ids[i] for i in np.flatnonzero(groups == GROUPS + p)] for p in range(POOLS)]
    writer = TraceWriter(directory, boot_id="boot", session="5e551017", budget_bytes=1 << 30, interval=1.0)
    for tick in range(len(load.demand)):
        used = load.demand[tick][groups] * share * 1e9
        table["cpu_ns"] += (used * 0.9).astype(np.uint64)
        table["wait_ns"] += (used * 0.1).astype(np.uint64)
        table["timeslices"] += (used / 1e7).astype(np.uint64) + 1
        table["read_chars"] += (used / 1e3).astype(np.uint64)
        table["rss_bytes"] = (load.rss[tick][groups] * share).astype(np.uint64) // 4096 * 4096
        pools = tuple(
            PoolSample(
                pool=f"pool{p}",
                size=WORKERS,
                requested=WORKERS,
                queued=0.0,
                workers=tuple(WorkerSample(id_, float(load.load[tick, p]) / WORKERS, True) for id_ in members[p]),
                master=None,
                start_seconds=None,
                trouble="",
            )
            for p in range(POOLS)
        )
        at = 10**12 + tick * 10**9
        host = HostSample((at // 2, at // 2), 16 << 30, 8 << 30, None)
        writer.append(Snapshot(at, START + tick * 10**9, 100_000 + tick * 100, table, identities, host, pools))
    writer.close()
    assert not writer.dropped, writer.last_error


def train(directory: Path, *options: str) -> tuple[dict[str, Any], str, int, float, float]:
    """(report, messages, exit code, seconds, peak resident MiB) of a `train` in its own process."""
    command = [sys.executable, "-m", "nicety.training", "train", "--state-dir", str(directory), "--no-idle", "--json", *options]
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return json.loads(done.stdout) if done.stdout else {}, done.stderr, done.returncode, seconds, peak


def main() -> int:
    """Run everything and print the claims."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ticks", type=int, default=3600)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    claims = Claims()
    with tempfile.TemporaryDirectory() as folder:
        busy, changing = Path(folder, "busy"), Path(folder, "changing")
        write(busy, workload(given.ticks, np.random.default_rng(1), regular_from=0.0), np.random.default_rng(2))
        write(changing, workload(max(given.ticks // 3, 600), np.random.default_rng(3), regular_from=0.8), np.random.default_rng(4))
        report, messages, code, seconds, peak = train(busy)
        if not report:
            print(messages, file=sys.stderr)
            return 1
        demand = report["models"]["demand"]
        claims.at_most("seconds to train on an hour of 200 processes, reading included", seconds, BOUND_SECONDS)
        claims.at_most("its largest resident memory, MiB", peak, 1024)
        claims.add("demand model on predictable work", demand["outcome"], "promoted", demand["outcome"] == "promoted")
        scores = demand["scores"]
        best = min(scores[baseline.name] for baseline in BASELINES)
        claims.at_most("its loss relative to the best baseline's", scores["new model"] / best, 0.9)
        others = min(score for name, score in scores.items() if name != "new model")
        claims.add(
            "its loss relative to the best of all others, the model that nicety comes with too",
            scores["new model"] / others,
            "< 1",
            scores["new model"] < others,
        )
        again, _, code_again, _, _ = train(busy, "--only", "demand")
        refused = again["models"]["demand"]
        claims.add("exit code when trained again on the same", code_again, "== 3", code_again == 3)
        loser, _, code_changing, _, _ = train(changing, "--only", "demand")
        table = loser["models"]["demand"]
        claims.add("exit code for a model that loses to a baseline", code_changing, "== 3", code_changing == 3)
        claims.add("rows of the table that refuses it", len(table["rows"]), ">= 50", len(table["rows"]) >= 50)
        print(f"promoted: {demand['reason']}\nrefused: {refused['reason']}\nrefused: {table['reason']}\n")
    claims.close(given.json, report=report, loser=loser, exit_code=code)
    return 0 if all(row["holds"] for row in claims.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
