"""What the anomaly scorer finds, how soon, how often it errs, and what it costs, on seeded pools and (--real) on real workers.

    python -m benchmarks.anomaly.model --real --json anomaly.json

The seeded part gives the same on every machine, except for the cost. The real part starts a spool pool of Python workers, trains
on its healthy start, makes one worker leak and another hang, and reads them as the daemon does.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from nicety.models.anomaly.detectors import KINDS
from nicety.models.anomaly.evidence import CHANNELS
from nicety.models.anomaly.model import AnomalyModel, RobustZ, Scorer, alpha, score
from nicety.models.features import WorkerWindows
from nicety.models.identity import ProcId
from nicety.models.records import WINDOW, Anomaly, PoolSample, WorkerSample
from nicety.scheduler.config.sections import Quarantine, parse
from nicety.scheduler.demo import worker as demo_worker
from nicety.scheduler.observe.measure import Measurer
from nicety.scheduler.read.proc import ProcSource
from nicety.training.anomaly_cases import CHARACTERS, FAULTS, WorkerTick, faulty, healthy_pool, together
from nicety.training.anomaly_fit import WorkerTraces, fit_anomaly

from ..claims import Claims

LINE = alpha(Quarantine().false_alarms_per_day)
PATIENCE = Quarantine().patience
INTERVAL = 0.5
FAULTY_CHARACTERS = ("steady", "bursty", "sawtooth", "compute", "large")
QUEUED = CHANNELS.index("queued")


class Alarms:
    """Workers that were over the line throughout the patience, with the tick and kind of their first alarm."""

    def __init__(self, scorer: Scorer) -> None:
        self.first: dict[ProcId, tuple[int, Anomaly]] = {}
        self._scorer = scorer
        self._since: dict[tuple[ProcId, Anomaly], int] = {}

    def look(self, number: int, windows: WorkerWindows, tick: WorkerTick) -> None:
        """Judge one tick."""
        view, lengths = windows.view()
        found = score(self._scorer, tick.keys, tick.pools, view, lengths, INTERVAL)
        now = {(s.id, s.kind) for s in found if s.p < LINE}
        self._since = {key: self._since.get(key, number) for key in sorted(now)}
        for (worker, kind), began in self._since.items():
            if (number - began) * INTERVAL >= PATIENCE:
                self.first.setdefault(worker, (number, kind))


def replay(ticks: Sequence[WorkerTick], scorer: Scorer, start: int) -> dict[ProcId, tuple[int, Anomaly]]:
    windows, alarms = WorkerWindows(len(CHANNELS)), Alarms(scorer)
    for number, tick in enumerate(ticks):
        windows.push(tick.keys, tick.values)
        if number >= start and number % 2 == 0:
            alarms.look(number, windows, tick)
    return alarms.first


def cost(workers: int, per_pool: int, characters: Sequence[str], ticks: int) -> float:
    """ms of CPU to take in and score a tick of `workers` workers: the least of many, because other load only adds."""
    rng = np.random.default_rng(1)
    pools = [healthy_pool(name, 50, WINDOW, INTERVAL, rng) for name in characters]
    values = [np.concatenate([pool[number].values for pool in pools]) for number in range(WINDOW)]
    ids = [ProcId(100 + i, 1) for i in range(workers)]
    names = [f"pool {i // per_pool:06}" for i in range(workers)]
    windows, taken = WorkerWindows(len(CHANNELS)), []
    for number in range(WINDOW + ticks):
        now = np.resize(values[number % WINDOW], (workers, len(CHANNELS)))
        before = time.thread_time_ns()
        windows.push(ids, now)
        if number >= WINDOW:
            score(RobustZ(), ids, names, *windows.view(), INTERVAL)
            taken.append((time.thread_time_ns() - before) / 1e6)
    return min(taken)


def seeded(claims: Claims, trials: int, minutes: float) -> None:
    """Score healthy time of all characters and faults of all kinds, by the baseline and by a model trained on other healthy
    time."""
    rng = np.random.default_rng(2)
    length = int(minutes * 60 / INTERVAL)

    def healthy(ticks: int) -> list[WorkerTick]:
        sizes = [2 + i % 5 for i in range(len(CHARACTERS))]
        pools = [healthy_pool(name, sizes[i], ticks, INTERVAL, rng, name, 1000 * i) for i, name in enumerate(CHARACTERS)]
        alone = [healthy_pool(name, 1, ticks, INTERVAL, rng, f"one {name}", 50_000 + i) for i, name in enumerate(CHARACTERS)]
        return together([*pools, *alone])

    trained = fit_anomaly(WorkerTraces((healthy(max(length // 2, 400)),)), INTERVAL)
    scorers: dict[str, Scorer] = {"model": AnomalyModel.from_arrays(trained.arrays, "seeded", INTERVAL), "baseline": RobustZ()}
    quiet = healthy(length)
    onset, after = 2 * WINDOW, int(60 / INTERVAL)
    pools = []
    for number in range(trials * len(FAULTS)):
        kind, name = FAULTS[number % len(FAULTS)], FAULTY_CHARACTERS[number // len(FAULTS) % len(FAULTY_CHARACTERS)]
        pool = healthy_pool(name, 3 + number % 4, onset + after, INTERVAL, rng, f"{number}", 1000 * number)
        values = faulty(kind, np.array([tick.values[0] for tick in pool[onset:]]), INTERVAL)
        for tick, row in zip(pool[onset:], values, strict=True):
            tick.values[0] = row
            if kind is Anomaly.STUCK:
                tick.values[:, QUEUED] = np.maximum(tick.values[:, QUEUED], 0.3)
        pools.append(pool)
    broken = together(pools)
    hours = sum(len(tick.keys) for tick in quiet) * INTERVAL / 3600
    print(f"{trials} faults of each kind in pools of 3 to 6 workers, {hours:.1f} healthy worker-hours, ticks of {INTERVAL} s")
    print(f"{'scorer':<10}{'kind':<10}{'found':>7}{'named right':>13}{'median s':>10}{'worst s':>9}")
    for name, scorer in scorers.items():
        found = replay(broken, scorer, onset)
        for column, kind in enumerate(FAULTS):
            victims = [ProcId(1000 * number, 1) for number in range(column, trials * len(FAULTS), len(FAULTS))]
            hits = [found[victim] for victim in victims if victim in found]
            delays = [(number - onset) * INTERVAL for number, _ in hits] or [float("nan")]
            right = sum(named is kind for _, named in hits)
            print(f"{name:<10}{kind:<10}{len(hits):>4}/{trials:<3}{right:>12}{statistics.median(delays):>10.1f}{max(delays):>9.1f}")
            claims.at_least(f"{name}: {kind} named right within 60 s, share", right / trials, 0.95)
        bystanders = sum(worker.pid % 1000 != 0 for worker in found)
        alarms = len(replay(quiet, scorer, 0))
        print(f"{name:<10}{'healthy':<10}{alarms:>4} alarms, {bystanders} of siblings of the faulty")
        claims.at_most(f"{name}: false alarms in {hours:.1f} healthy worker-hours", alarms, 0)
        claims.at_most(f"{name}: siblings of faulty workers accused", bystanders, 0)


@contextmanager
def spool(workers: int) -> Iterator[tuple[Path, list[int]]]:
    """(a spool directory, the pids of its workers) within the block."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        for name in ("new", "work", "faults"):
            (directory / name).mkdir()
        command = [sys.executable, str(demo_worker.__file__), str(directory)]
        started = [subprocess.Popen(command, stdin=subprocess.DEVNULL) for _ in range(workers)]
        try:
            yield directory, [process.pid for process in started]
        finally:
            for process in started:
                process.kill()
            for process in started:
                process.wait()


def real(claims: Claims, workers: int, healthy_seconds: float, faulty_seconds: float) -> None:
    """Score real workers: first healthy, then one leaks, then another hangs."""
    source, measurer = ProcSource(), Measurer(parse(""), INTERVAL)
    ticks: list[WorkerTick] = []
    windows, alarms = WorkerWindows(len(CHANNELS)), None
    onsets: dict[str, int] = {}
    with spool(workers) as (directory, pids):
        given, start = 0, time.monotonic()
        known: tuple[WorkerSample, ...] = ()
        total = healthy_seconds + faulty_seconds
        fault_at = {"leak": healthy_seconds + 1, "stuck": healthy_seconds + 15}
        while (elapsed := time.monotonic() - start) < total:
            waiting = len(list((directory / "new").iterdir()))
            for _ in range(max(12 * workers - waiting, 0)):  # keep work waiting
                given += 1
                (directory / "new" / f"{given:08}").touch()
            for name, at in fault_at.items():
                if elapsed >= at and name not in onsets:
                    (directory / "faults" / name).touch()
                    onsets[name] = len(ticks)
            pool = PoolSample("spool", workers, workers, float(waiting), known, None, None, "")
            snapshot = source.read(time.monotonic_ns(), time.time_ns(), (pool,))
            if not known:
                ids = [ProcId(int(row["pid"]), int(row["start_ticks"])) for row in snapshot.table if int(row["pid"]) in pids]
                known = tuple(WorkerSample(id_, None, True) for id_ in ids)
            measured = measurer.measure(snapshot)
            if measured is not None and measured.worker_keys:
                tick = WorkerTick(measured.worker_keys, measured.worker_pools, measured.workers)
                ticks.append(tick)
                windows.push(tick.keys, tick.values)
                if elapsed >= healthy_seconds:
                    if alarms is None:
                        trained = fit_anomaly(WorkerTraces((ticks,)), INTERVAL)
                        print(f"trained on {len(ticks)} ticks: {trained.reason}")
                        alarms = Alarms(AnomalyModel.from_arrays(trained.arrays, "real", INTERVAL))
                    alarms.look(len(ticks), windows, tick)
            time.sleep(max((len(ticks) + 1) * INTERVAL - (time.monotonic() - start), 0.05))
        victims = {name: {int(path.name.split("-")[1]) for path in (directory / "faults").glob(f"{name}-*")} for name in fault_at}
    source.close()
    found = alarms.first if alarms is not None else {}
    for name, kind in (("leak", Anomaly.LEAK), ("stuck", Anomaly.STUCK)):
        hits = [number for worker, (number, named) in found.items() if worker.pid in victims[name] and named is kind]
        delay = (hits[0] - onsets[name]) * INTERVAL if hits else float("inf")
        claims.at_most(f"real {name}: named right, seconds after it began", delay, 30)
    wrong = sum(worker.pid not in victims["leak"] | victims["stuck"] for worker in found)
    claims.at_most("real: healthy workers accused", wrong, 0)


def main() -> int:
    parser = argparse.ArgumentParser(description="What the anomaly scorer finds, how soon, how often it errs, and what it costs.")
    parser.add_argument("--trials", type=int, default=20, help="seeded faults of each kind (default 20)")
    parser.add_argument("--minutes", type=float, default=20, help="healthy minutes of 39 seeded workers (default 20)")
    parser.add_argument("--real", action="store_true", help="also start a real pool (2 minutes)")
    parser.add_argument("--workers", type=int, default=4, help="workers of the real pool (default 4)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the claims as JSON")
    options = parser.parse_args()
    claims = Claims()
    for name, characters in (("steady", ("steady",)), ("mixed", [name for name in CHARACTERS if name != "deploy"])):
        for per_pool in (5, 50, 2000):
            claim = f"scoring 2000 {name} workers in pools of {per_pool}, ms of CPU a tick"
            claims.at_most(claim, cost(2000, per_pool, characters, 40), 20)
    seeded(claims, options.trials, options.minutes)
    if options.real:
        real(claims, options.workers, 75, 55)
    claims.close(options.json, kinds=[str(kind) for kind in KINDS])
    return 0 if all(row["holds"] for row in claims.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
