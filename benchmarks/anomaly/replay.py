"""Replays a recorded campaign through the real observer and engine, in the time of the traces.

Snapshots go in, `Flag` decisions come out. The same snapshots give the figures for the peers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nicety.models.anomaly.model import AnomalyModel, alpha
from nicety.models.identity import ProcId
from nicety.models.records import Score, Snapshot
from nicety.scheduler.config.sections import Config, parse
from nicety.scheduler.decide.engine import Engine
from nicety.scheduler.decision import Abilities, Flag
from nicety.scheduler.observe.measure import GAP_INTERVALS, Measurer
from nicety.scheduler.observe.observer import Observer
from nicety.scheduler.store.traces import read_traces
from nicety.training.anomaly_cases import WorkerTick
from nicety.training.anomaly_fit import AnomalyFit, WorkerTraces, fit_anomaly

from .peers import FIGURES, Life
from .pools import CampaignError
from .record import read_deadlocks
from .truth import SECOND, Alarm, Process, Truth

OWN_POOLS = """
[daemon]
interval = {interval}
[pool_size]
enabled = false
[priority]
enabled = false
[quarantine]
false_alarms_per_day = {rate}
alarms_per_day = 100000
"""


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to run nicety on the traces."""

    model: str  # "trained" or "baseline"
    rate: float  # false_alarms_per_day


def configuration(truth: Truth, rate: float) -> Config:
    """The configuration, as a user would write it, with this rate of false alarms. Only the quarantine policy is enabled, with no
    limit on alarms, because the campaign has two hundred faults in an hour. The pools count as gunicorn, whose workers show
    whether they are busy."""
    pools = "".join(
        f'[pools."{name}"]\nkind = "gunicorn"\npidfile = "/run/{name}.pid"\nminimum = 1\nmaximum = {workers}\n'
        for name, workers in sorted(truth.header.pools.items())
    )
    return parse(OWN_POOLS.format(interval=truth.header.interval, rate=rate) + pools)


def snapshots(folder: Path) -> Iterator[Snapshot]:
    """The recorded snapshots, in order. Raises CampaignError if some are lost."""
    traces = read_traces(folder)
    for _, snapshot in traces:
        yield snapshot
    if traces.lost:
        first = traces.lost[0]
        raise CampaignError(f"{first.path}: {len(traces.lost)} pieces of the traces are lost ({first.reason}); record again")


def measured(folder: Path, truth: Truth) -> tuple[list[WorkerTick], list[Life], list[tuple[int, int]]]:
    """(ticks of the healthy first part, for training; the figures of each worker, for the peers; holes in the recording)."""
    measurer = Measurer(configuration(truth, 1.0))
    ticks: list[WorkerTick] = []
    lives: dict[Process, tuple[str, list[int], list[tuple[float, ...]]]] = {}
    holes: list[tuple[int, int]] = []
    last = truth.header.begin
    for snapshot in snapshots(folder):
        values = measurer.measure(snapshot)
        if snapshot.at - last > GAP_INTERVALS * truth.header.interval * SECOND:
            holes.append((last, snapshot.at))
        last = snapshot.at
        if values is None:
            continue
        if snapshot.at <= truth.header.trained:
            ticks.append(WorkerTick(values.worker_keys, values.worker_pools, values.workers))
        rates, rows, table = values.rates, values.rows, snapshot.table
        for worker, pool in zip(values.worker_keys, values.worker_pools, strict=True):
            row = rows[worker]
            record = table[row]
            figures = {
                "cpu": float(rates.cpu[row]),
                "wait": float(rates.wait[row]),
                "rss": float(record["rss_bytes"]),
                "timeslices": float(rates.timeslices[row]),
                "chars": float(rates.chars[row]),
                "fds": float(record["fds"]),
                "threads": float(record["threads"]),
            }
            _, at, seen = lives.setdefault((worker.pid, worker.start_ticks), (pool, [], []))
            at.append(snapshot.at)
            seen.append(tuple(figures[name] for name in FIGURES))
    found = [Life(worker, pool, np.array(at, dtype=np.int64), np.array(seen)) for worker, (pool, at, seen) in sorted(lives.items())]
    return ticks, found, holes


def fit(ticks: Sequence[WorkerTick], truth: Truth) -> AnomalyFit:
    """The scorer trained on the healthy first part, as `nicety train` does it."""
    return fit_anomaly(WorkerTraces((ticks,)), truth.header.interval)


@dataclass(frozen=True, slots=True)
class Reported:
    """nicety's alarms on a recording."""

    flags: Mapping[Setting, list[Alarm]]
    stepped_up: Mapping[Setting, list[Alarm]]  # those that Benjamini and Hochberg's rule would add, tick by tick, without patience


def replay(folder: Path, truth: Truth, fitted: AnomalyFit, settings: Sequence[Setting]) -> Reported:
    """nicety's alarms under each setting. All engines of a model share one observer, configured for the highest rate: it also
    scores things that do not matter, which the settings with low rates ignore."""
    found: dict[Setting, list[Alarm]] = {setting: [] for setting in settings}
    stepped_up: dict[Setting, list[Alarm]] = {setting: [] for setting in settings}
    deadlocks = read_deadlocks(folder)
    for model in sorted({setting.model for setting in settings}):
        anomaly = AnomalyModel.from_arrays(fitted.arrays, "campaign", truth.header.interval) if model == "trained" else None
        config = configuration(truth, max(setting.rate for setting in settings))
        observer = Observer(config, Abilities(False, "", False), ProcId(0, 0), None, anomaly, None)
        engines = {
            setting: Engine(configuration(truth, setting.rate), "campaign") for setting in settings if setting.model == model
        }
        for snapshot in snapshots(folder):
            tick = observer.tick(snapshot, (), False, deadlocks.get(snapshot.at, ()))
            for setting, engine in engines.items():
                stepped_up[setting] += [
                    Alarm(tick.at, score.pool, (score.id.pid, score.id.start_ticks), score.kind)
                    for score in step_up(tick.scores, alpha(setting.rate))
                ]
                for decision in engine.step(tick).decisions:
                    action = decision.action
                    if isinstance(action, Flag):
                        text = " ".join(
                            [decision.why.text, *(f"{name}={value}" for name, value in sorted(decision.why.figures.items()))]
                        )
                        found[setting].append(
                            Alarm(
                                tick.at,
                                action.pool,
                                (action.worker.pid, action.worker.start_ticks),
                                action.kind,
                                text,
                                action.incident != "",
                                action.over,
                            )
                        )
    return Reported(found, stepped_up)


def step_up(scores: Sequence[Score], line: float) -> list[Score]:
    """Scores above `line` that a step-up over the workers of a tick would reject too: each rejection raises the line for the next
    (Benjamini and Hochberg 1995)."""
    ranked = sorted(scores, key=lambda score: score.p)
    last = max((rank for rank, score in enumerate(ranked, 1) if score.p <= rank * line), default=0)
    return [score for score in ranked[:last] if score.p > line]
