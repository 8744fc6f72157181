"""How long `train` takes on an hour of traces from 200 processes, how good the model is, and whether a bad one is refused. Then
what 10^6, 10^7 and 10^8 process-samples take within 1 GiB, and whether one process and several give the same model.

    python -m benchmarks.cost.training [--ticks 3600] [--samples 1e6,1e7,1e8] [--json FILE]

Writes a seeded trace through the real trace writer: 200 processes in 40 programs and 3 pools, with waves, repeated steps, bursts
and noise. Then runs `train` on it, and on a trace that is noise up to the held-out time and regular after that, where the model
must lose. `benchmarks/forecast/model.py` measures the accuracy and cost of forecasts.

More samples are those of a fleet: machines of 200 processes, 5,000 or 10,000 ticks each. Four recordings are made. The other
machines have copies, of which `train` reads each: 2 GB for 10^8 samples. With `--samples ""` that part is left out. CPU time is
claimed, not what a clock says, because others may work on the machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from nicety.models.forecast.baseline import BASELINES
from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, HostSample, Identity, Known, PoolSample, Snapshot, WorkerSample
from nicety.scheduler.store.traces import TraceWriter

from ..claims import Claims

GROUPS, POOLS, PROCESSES = 40, 3, 200
WORKERS = 10  # of each pool
BOUND_SECONDS = 60.0
MIB = 1 << 20
SIZES = {1e6: 10.0, 1e7: 45.0, 1e8: 480.0}
"""Samples: seconds within which two CPUs must be done with them."""
CPUS, MEMORY = 2, "1g"
RECORDINGS = 4  # that differ
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


@dataclass(frozen=True, slots=True)
class Trained:
    """What became of a `train` in a process of its own."""

    report: dict[str, Any]
    messages: str
    code: int
    seconds: float
    cpu: float  # seconds of all its processes
    peak: float  # MiB, proportional set sizes of all its processes together


def train(directory: Path, *options: str) -> Trained:
    """Run `train` and watch what it takes."""
    command = [sys.executable, "-m", "nicety.training", "train", "--state-dir", str(directory), "--no-idle", "--json", *options]
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as talk:
        process, peak = subprocess.Popen(command, stdout=out, stderr=talk), 0.0
        while process.poll() is None:
            peak = max(peak, _resident(process.pid))
            time.sleep(0.1)
        seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
        out.seek(0), talk.seek(0)
        said, messages = out.read(), talk.read().decode()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Trained(json.loads(said) if said else {}, messages, process.returncode, seconds, cpu, peak)


def _resident(pid: int) -> float:
    """MiB of a process and those below it; pages that they share count once."""
    total = 0
    try:
        top = psutil.Process(pid)
        for process in (top, *top.children(recursive=True)):
            total += process.memory_full_info().pss
    except psutil.Error:
        pass  # it ended meanwhile
    return total / MIB


def fleet(folder: Path, samples: float, recordings: Path) -> Path:
    """State directories of machines with so many samples in all."""
    ticks = 5000 if samples <= 1e6 else 10_000
    for number in range(round(samples / PROCESSES / ticks)):
        source = recordings / f"{ticks}-{number % RECORDINGS}"
        if not source.exists():
            seed = 10 * (number + 1)
            write(source, workload(ticks, np.random.default_rng(seed), regular_from=0.0), np.random.default_rng(seed + 1))
        traces = folder / f"machine{number:03}" / "traces"
        traces.mkdir(parents=True, mode=0o700)
        for file in sorted((source / "traces").iterdir()):
            shutil.copy2(file, traces)
    return folder


def large(claims: Claims, sizes: Sequence[float], scratch: Path) -> dict[str, Any]:
    """What fleets take; their figures."""
    figures: dict[str, Any] = {}
    for samples in sizes:
        found = fleet(scratch / f"fleet-{samples:g}", samples, scratch / "recordings")
        digests = []
        for jobs in (1, CPUS) if samples < 1e8 else (CPUS,):
            state = scratch / f"state-{samples:g}-{jobs}"
            done = train(state, "--memory", MEMORY, "--jobs", str(jobs), "--no-report", str(found))
            models = sorted(state.glob("models/*/*/model.npz"))
            digests.append([hashlib.sha256(path.read_bytes()).hexdigest() for path in models])
            took = {"seconds": done.seconds, "cpu": done.cpu, "peak_mib": done.peak, "messages": done.messages.splitlines()}
            figures[f"{samples:g} samples, {jobs} processes"] = took
            print(f"{samples:g} samples, {jobs} processes: {done.seconds:.0f} s, {done.cpu:.0f} s of CPU, {done.peak:.0f} MiB")
            if jobs == CPUS:
                claims.at_most(f"{samples:g} samples: CPU seconds for each of {CPUS} CPUs", done.cpu / CPUS, SIZES[samples])
                claims.at_most(f"{samples:g} samples: MiB of all processes", done.peak, 1024)
        if len(digests) > 1:
            same = bool(digests[0]) and digests[0] == digests[1]
            claims.add(f"{samples:g} samples: one process and {CPUS} give the same models", same, "== True", same)
    return figures


def main() -> int:
    """Run everything and print the claims."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ticks", type=int, default=3600)
    parser.add_argument("--samples", default="1e6,1e7,1e8", help="Sizes of fleets, from 1e6, 1e7 and 1e8.")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    sizes = [float(size) for size in given.samples.split(",") if size]
    if set(sizes) - SIZES.keys():
        parser.error("--samples: 1e6, 1e7 and 1e8 have bounds")
    claims = Claims()
    with tempfile.TemporaryDirectory() as folder:
        busy, changing = Path(folder, "busy"), Path(folder, "changing")
        write(busy, workload(given.ticks, np.random.default_rng(1), regular_from=0.0), np.random.default_rng(2))
        write(changing, workload(max(given.ticks // 3, 600), np.random.default_rng(3), regular_from=0.8), np.random.default_rng(4))
        first = train(busy)
        if not first.report:
            print(first.messages, file=sys.stderr)
            return 1
        demand = first.report["models"]["demand"]
        claims.at_most("seconds to train on an hour of 200 processes, reading included", first.seconds, BOUND_SECONDS)
        claims.at_most("its largest memory, MiB", first.peak, 1024)
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
        again = train(busy, "--only", "demand")
        refused = again.report["models"]["demand"]
        claims.add("exit code when trained again on the same", again.code, "== 3", again.code == 3)
        loser = train(changing, "--only", "demand")
        table = loser.report["models"]["demand"]
        claims.add("exit code for a model that loses to a baseline", loser.code, "== 3", loser.code == 3)
        claims.add("rows of the table that refuses it", len(table["rows"]), ">= 50", len(table["rows"]) >= 50)
        print(f"promoted: {demand['reason']}\nrefused: {refused['reason']}\nrefused: {table['reason']}\n")
        figures = large(claims, sizes, Path(folder))
    claims.close(given.json, report=first.report, loser=loser.report, exit_code=first.code, large=figures)
    return 0 if all(row["holds"] for row in claims.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
