"""What recording costs: bytes of a process-sample on a machine of mostly idle processes, and CPU time of an append.

    python -m benchmarks.cost.store [--json FILE] [--sleepers 500] [--seconds 60] [--interval 0.5] [--minutes 20]

Then what a daemon keeps and what it writes for it: both stores, at 500 and 1,000 processes of which 5 % are at work, and on a calm
machine. The disk writes are `write_bytes` of /proc/self/io; as the kernel does by itself, what was written is flushed every five
seconds of the simulated time, so that a page that is written again counts again.

Measured on a simulated machine (seeded, the same everywhere), and on this one with some hundred sleeping processes more. The bytes
are those of all files of the closed store, including SQLite's pages, keyframes, identities and host counters. A short recording is
a hard case, because its first keyframe counts for few ticks.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, Class, HostSample, Identity, PoolSample, Snapshot, WorkerSample
from nicety.scheduler.config.sections import Config, from_builtins, to_builtins
from nicety.scheduler.decide.engine import Engine
from nicety.scheduler.decision import Abilities, Decision, Outcome, ResizePool, Session, Verdict, Why
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.read.proc import ProcSource
from nicety.scheduler.service.live_models import models_in_use
from nicety.scheduler.store.decisions import DecisionLog, DecisionReader
from nicety.scheduler.store.traces import TraceWriter, read_traces
from nicety.scheduler.testing.ticks import a_forecast, a_group, a_member, a_pool, a_tick

from ..claims import Claims

BYTES = 8.0
"""Most bytes of a process-sample. Chosen."""

APPEND_MS = 1.5
"""Most CPU ms of a trace append. Chosen, of the 20 ms that the whole daemon may use in a tick with 500 processes."""

LOG_MS = 2.0
"""Most CPU ms of an append to the decision log with 20 groups. Chosen."""

LOG_RATIO, WRITES, DAYS, BUDGET = 1.5, 3.0, 3.0, 256 << 20
"""Bounds of issue 27: bytes of the decision log over those of the traces of a busy day; bytes written over bytes kept; days that
the default budget holds."""

FLUSH_TICKS = 5
"""Ticks at 1 Hz between two flushes: dirty_writeback_centisecs is 500 by default (kernel, admin-guide/sysctl/vm)."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recording."""

    samples: int
    ticks: int
    bytes: int
    append_ms: tuple[float, ...]  # CPU
    read_ms: float  # CPU a tick

    @property
    def per_sample(self) -> float:
        """Bytes a process-sample."""
        return self.bytes / self.samples

    @property
    def mean_ms(self) -> float:
        """CPU time of an append."""
        return statistics.fmean(self.append_ms)


def simulated(processes: int = 500, moving: int = 30, ticks: int = 3600) -> Iterator[Snapshot]:
    """An hour at 1 Hz: a pool of 8 workers, 22 other active processes at any time, and two short processes every second."""
    rng = np.random.default_rng(1)
    table = np.zeros(processes, dtype=SAMPLE)
    table["pid"] = np.sort(rng.choice(32_768, processes, replace=False) + 2)
    table["start_ticks"] = np.sort(rng.integers(0, 10**7, processes))
    table["session"], table["threads"], table["state"], table["known"] = table["pid"], 1, ord("S"), 7
    table["fds"] = rng.integers(3, 60, processes)
    table["rss_bytes"] = rng.integers(500, 50_000, processes) * 4096
    for name in ("cpu_ns", "wait_ns", "timeslices", "minor_faults", "read_chars", "write_chars", "read_bytes", "write_bytes"):
        table[name] = rng.integers(0, 10**9, processes)
    identities = {
        ProcId(pid, start): Identity(
            "server", f"python3 server{at % 40}.py", f"/system.slice/s{at % 40}.service", f"s{at % 40}.service", 0
        )
        for at, (pid, start) in enumerate(zip(table["pid"].tolist(), table["start_ticks"].tolist(), strict=True))
    }
    workers = list(identities)[:8]
    busy = np.zeros(8, dtype=np.int64)
    for tick in range(ticks):
        table = table.copy()
        moved = np.concatenate((np.arange(8), 8 + rng.choice(processes - 8, moving - 8, replace=False)))
        used = rng.integers(10**5, 4 * 10**8, moving).astype(np.uint64)
        table["cpu_ns"][moved] += used
        for name, most in (
            *(("wait_ns", 5 * 10**7), ("timeslices", 800), ("minor_faults", 400), ("read_chars", 200_000), ("write_chars", 90_000)),
        ):
            table[name][moved] += rng.integers(0, most, moving).astype(np.uint64)
        table["rss_bytes"][moved[::3]] += (rng.integers(0, 64, len(moved[::3])) * 4096).astype(np.uint64)
        table["last_cpu"][moved] = rng.integers(0, 8, moving)
        identities = dict(identities)
        for at in 8 + rng.choice(processes - 8, 2, replace=False):
            identities.pop(ProcId(int(table["pid"][at]), int(table["start_ticks"][at])))
            table["start_ticks"][at] = 10**7 + tick * 100
            identities[ProcId(int(table["pid"][at]), 10**7 + tick * 100)] = Identity("sh", "sh", "/", "", 0)
        busy += rng.integers(0, 10**9, 8)
        shares = rng.integers(0, 11, 8) / 10
        pool = PoolSample(
            pool="web",
            size=8,
            requested=8,
            queued=float(rng.integers(0, 20)) / 10,
            workers=tuple(WorkerSample(id_, float(share), True) for id_, share in zip(workers, shares, strict=True)),
            master=workers[0],
            start_seconds=1.25,
            trouble="",
        )
        yield Snapshot(
            at=10**15 + tick * 10**9 + int(rng.integers(10**6)),
            wall=1_760_000_000 * 10**9 + tick * 10**9 + int(rng.integers(10**6)),
            uptime_ticks=10**7 + tick * 100,
            table=table,
            identities=identities,
            host=HostSample(tuple(busy.tolist()), 16 << 30, int(rng.integers(8 << 30)), (tick * 100, tick * 7, tick)),
            pools=(pool,),
        )


@contextmanager
def sleepers(count: int) -> Iterator[None]:
    """`count` idle processes within the block."""
    started = [subprocess.Popen(["sleep", "3600"], stdin=subprocess.DEVNULL) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()


def this_machine(seconds: float, interval: float) -> Iterator[Snapshot]:
    """Snapshots of the real processes."""
    source = ProcSource()
    try:
        start = time.monotonic()
        for tick in range(round(seconds / interval)):
            time.sleep(max(0.0, start + tick * interval - time.monotonic()))
            yield source.read(time.monotonic_ns(), time.time_ns(), ())
    finally:
        source.close()


def record(snapshots: Iterable[Snapshot]) -> Recorded:
    """Record the snapshots and read them back."""
    with tempfile.TemporaryDirectory() as name:
        state = Path(name)
        traces = TraceWriter(state, boot_id="0" * 36, session="00000001", budget_bytes=1 << 30, interval=1.0)
        samples = ticks = 0
        costs = []
        for one in snapshots:
            before = time.process_time()
            traces.append(one)
            costs.append((time.process_time() - before) * 1e3)
            samples += len(one.table)
            ticks += 1
        traces.close()
        assert traces.dropped == 0, traces.last_error
        size = sum(path.stat().st_size for path in (state / "traces").iterdir())
        before = time.process_time()
        read = read_traces(state)
        found = sum(1 for _ in read)
        cost = (time.process_time() - before) * 1e3 / ticks
        assert (found, read.lost) == (ticks, [])
    return Recorded(samples, ticks, size, tuple(costs), cost)


def decision_log(ticks: int = 600) -> tuple[float, float, float]:
    """(CPU ms of an append, bytes of a tick, CPU ms to read a tick): 20 groups of 5, 40 forecasts, a decision in every tenth
    tick."""
    rng = np.random.default_rng(2)
    turns = []
    for seq in range(ticks):
        load = rng.random(20).tolist()
        groups = [
            a_group(f"group{at}", Class.BATCH, [a_member(100 + 10 * at + n) for n in range(5)], cpu=load[at]) for at in range(20)
        ]
        forecasts = [a_forecast(f"group{at}", metric, load[at]) for at in range(20) for metric in ("cpu", "rss")]
        tick = a_tick(seq, groups=groups, pools=[a_pool("web", load=load[0])], forecasts=forecasts)
        why = Why("forecast floor", "the forecast needs more workers", {"load": load[0]}, (), ())
        decisions = (Decision(f"1-{seq}.0", "pool_size", "pool web", ResizePool("web", seq % 7), why),) if seq % 10 == 0 else ()
        turns.append(
            (tick, Verdict(decisions, (), ()), tuple(Outcome(d.id, Status.APPLIED, d.target, "done", 1) for d in decisions))
        )
    with tempfile.TemporaryDirectory() as name:
        log = DecisionLog(Path(name), 256 << 20)
        log.begin(Session("00000001", "boot", 1, "0", "act", ProcId(9, 9), Abilities(True, "v2", True), {}, {}, {}))
        before = time.process_time()
        for turn in turns:
            log.append(*turn)
        append = (time.process_time() - before) * 1e3 / ticks
        log.close()
        size = (Path(name) / "decisions.db").stat().st_size / ticks
        with DecisionReader(Path(name)) as reader:
            before = time.process_time()
            assert sum(not it.damage for it in reader.ticks()) == ticks
            return append, size, (time.process_time() - before) * 1e3 / ticks


@dataclass(frozen=True, slots=True)
class Kept:
    """What both stores keep of a machine, and what was written for it."""

    trace_bytes: float  # a tick
    log_bytes: float  # a tick
    written: float  # bytes a tick, to both
    log_ms: float  # CPU, of an append to the decision log

    @property
    def ratio(self) -> float:
        """Bytes written over bytes kept."""
        return self.written / (self.trace_bytes + self.log_bytes)


def stores_of(snapshots: Iterable[Snapshot]) -> Kept:
    """Have the real observer, engine and writers see these snapshots."""
    config = from_builtins(
        {**to_builtins(Config()), "pools": {"web": {"kind": "gunicorn", "pidfile": "/run/web.pid", "maximum": 16}}}
    )
    abilities, own = Abilities(autogroup=True, cpu_cgroup="v2", may_renice=True), ProcId(1, 1)
    with tempfile.TemporaryDirectory(prefix="nicety-stores-") as name:
        state = Path(name)
        models = models_in_use(config, state / "models", lambda _, text: print(text, file=sys.stderr))
        observer, engine = models.observer(config, abilities, own), Engine(config, "00000001")
        session = Session("00000001", "boot", 1, "0", "observe", own, abilities, to_builtins(config), {}, engine.memory())
        before = _written()
        log = DecisionLog(state, BUDGET)
        log.begin(session)
        traces = TraceWriter(state, boot_id="boot", session="00000001", budget_bytes=BUDGET, interval=1.0)
        outcomes: tuple[Outcome, ...] = ()
        descriptors: list[int] = []
        ticks, spent = 0, 0.0
        for snapshot in snapshots:
            traces.append(snapshot)
            tick = observer.tick(snapshot, outcomes, False, (), (), ())
            memory = engine.memory() if log.keyframe_due else None
            verdict = engine.step(tick)
            outcomes = tuple(Outcome(it.id, Status.OBSERVED, it.target, "only observed", 0) for it in verdict.decisions)
            began = time.process_time()
            log.append(tick, verdict, outcomes, memory)
            spent += time.process_time() - began
            if verdict.decisions:
                traces.flush()
            ticks += 1
            if not descriptors:  # closed after the writers: closing any descriptor of a database gives its locks away
                descriptors = [os.open(path, os.O_RDONLY) for path in sorted(state.rglob("*.db*")) if "-shm" not in path.name]
            if ticks % FLUSH_TICKS == 0:
                for descriptor in descriptors:
                    os.fdatasync(descriptor)
        traces.close()
        log.close()
        written = _written() - before
        for descriptor in descriptors:
            os.close(descriptor)
        assert (traces.dropped, log.dropped) == (0, 0), (traces.last_error, log.last_error)
        of_traces = sum(path.stat().st_size for path in (state / "traces").iterdir())
        of_log = (state / "decisions.db").stat().st_size
    return Kept(of_traces / ticks, of_log / ticks, written / ticks, spent * 1e3 / ticks)


def _written() -> int:
    """Bytes that this process has had written to disks."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes:"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the claims here")
    parser.add_argument("--sleepers", type=int, default=500, help="idle processes to start")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to record this machine; 0: do not")
    parser.add_argument("--interval", type=float, default=0.5, help="seconds between ticks of this machine")
    parser.add_argument("--minutes", type=int, default=20, help="simulated time for which both stores are written")
    options = parser.parse_args()
    machines = {"simulated": record(simulated())}
    if options.seconds:
        with sleepers(options.sleepers):
            machines["this machine"] = record(this_machine(options.seconds, options.interval))
    claims = Claims()
    figures = {}
    for name, it in machines.items():
        who = f"{name} ({it.samples / it.ticks:.0f} processes)"
        claims.at_most(f"trace bytes a process-sample, {who}", it.per_sample, BYTES)
        claims.at_most(f"trace append CPU ms, {who}", it.mean_ms, APPEND_MS)
        figures[name] = {
            "ticks": it.ticks,
            "bytes_a_tick": it.bytes / it.ticks,
            "append_ms_p99": float(np.quantile(it.append_ms, 0.99)),
            "read_ms_a_tick": it.read_ms,
        }
    append, size, read = decision_log()
    claims.at_most("decision log append CPU ms, 20 groups", append, LOG_MS)
    figures["decision log"] = {"bytes_a_tick": size, "read_ms_a_tick": read}
    for what, snapshots in {
        "500 processes, 25 at work": simulated(500, 25, options.minutes * 60),
        "1,000 processes, 50 at work": simulated(1000, 50, options.minutes * 60),
        "500 processes, 12 at work": simulated(500, 12, options.minutes * 60),
    }.items():
        kept = stores_of(snapshots)
        claims.at_most(f"decision log over traces, {what}", kept.log_bytes / kept.trace_bytes, LOG_RATIO)
        claims.at_most(f"bytes written over bytes kept, {what}", kept.ratio, WRITES)
        claims.at_least(f"days that the budget of the decision log holds, {what}", BUDGET / kept.log_bytes / 86400, DAYS)
        claims.at_most(f"decision log append CPU ms, {what}", kept.log_ms, LOG_MS)
        figures[what] = {name: getattr(kept, name) for name in ("trace_bytes", "log_bytes", "written", "log_ms")}
    claims.close(options.json, figures=figures)
    return 0 if all(row["holds"] for row in claims.rows) else 3


if __name__ == "__main__":
    sys.exit(main())
