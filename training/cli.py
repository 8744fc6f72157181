"""The command line of training: reads traces, fits, evaluates, promotes or refuses. Data to stdout, talk to stderr.

Exit: 0 trained and promoted, 1 failure, 2 usage, 3 a model was refused: the table says by whom it was beaten.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from .. import __version__
from ..models.artifact import FEATURES, Arrays, Artifact, ArtifactError, Card, load_live, shipped
from ..models.behaviour import BehaviourModel
from ..models.demand import METRICS, TreeDemand
from ..models.records import Snapshot
from ..scheduler.config import ConfigError
from ..scheduler.paths import PathError, load_config, state_paths
from ..scheduler.store.files import StoreError
from ..scheduler.store.traces import TraceRead, read_traces
from .anomaly_fit import fit_anomaly
from .behaviour_fit import BehaviourTable, Programs, fit_behaviour, log_loss, unpacked, verdicts
from .dataset import LEAST_TICKS, Dataset, DatasetError, build, sample, split
from .evaluate import evaluate
from .fit import ROWS, fit_demand
from .promote import go_live, judge, judge_behaviour, running
from .report import Result, metrics, plain, text

FAILURE, REFUSED = 1, 3  # and 2 for wrong usage, which typer gives

ORIGINS = ROWS // 3
"""Origins to fit on: most have rows at all five horizons, some stand still and give none."""

TEST_ORIGINS = 15_000
"""Origins to calibrate and to test on."""

HELD_OUT = 0.2
"""Share of the time that a behaviour model is judged on: the last of it."""

SEED = 20_240_229

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]})


class Kind(StrEnum):
    """Kinds of models to train."""

    DEMAND = "demand"
    ANOMALY = "anomaly"
    BEHAVIOUR = "behaviour"


def main() -> None:
    """Entry point of `python -m nicety.training`."""
    app(prog_name="nicety")


@app.callback()
def _group() -> None:
    """Train models from traces."""


def _seconds(value: str) -> float:
    """A time such as 90, 90s, 10m, 12h or 7d in seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", value.strip())
    if not found or not 0 < float(found[1]) < 1e9:
        raise typer.BadParameter(f"{value!r} is no time; say it like 90s, 10m, 12h or 7d")
    return float(found[1]) * UNITS[found[2] or "s"]


@app.command(epilog="Example: nicety train --since 7d")
def train(
    traces: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[TRACES]...", help="Trace files or folders with some; the state directory's.", show_default=False),
    ] = None,
    since: Annotated[
        float | None, typer.Option(parser=_seconds, metavar="TIME", help="Only of the last so much time, e.g. 7d.")
    ] = None,
    only: Annotated[Kind | None, typer.Option(help="Train only this kind of model.")] = None,
    models: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where models go; the state directory's models.", show_default=False)
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, max=256, metavar="N", help="Fits at a time; one a CPU.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Fit and compare, save and promote nothing.")] = False,
    idle: Annotated[bool, typer.Option("--idle/--no-idle", help="Take only CPU time that nobody else wants.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    config: Annotated[
        str | None, typer.Option("--config", metavar="FILE", help="Configuration file; $NICETY_CONFIG.", show_default=False)
    ] = None,
    state_dir: Annotated[
        str | None, typer.Option("--state-dir", metavar="DIR", help="State directory; $NICETY_STATE_DIR.", show_default=False)
    ] = None,
) -> None:
    """Train models from the traces; promote those that beat the running ones and the baselines on held-out time."""
    begin = time.monotonic()
    if idle:
        os.nice(19)
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    try:
        loaded = load_config(config, os.environ, os.geteuid())
        paths = state_paths(loaded.config, state_dir, os.environ, os.geteuid())
        if not traces and not paths.traces.exists():
            raise DatasetError(f"no traces in {paths.traces} yet; record some: nicety record")
        read = read_traces(traces or [paths.traces], since=None if since is None else time.time_ns() - round(since * 1e9))
        with _progress("reading traces") as shown:
            dataset = build(read, loaded.config, shown.snapshot)
        lost = _lost(read)
        for sentence in (*lost, *dataset.skipped):
            _say(f"left out: {sentence}")
        place = models or paths.models
        results = [
            _train(kind, dataset, place, jobs or len(os.sched_getaffinity(0)), dry_run) for kind in Kind if only in (None, kind)
        ]
    except (ConfigError, PathError, StoreError, DatasetError, ArtifactError) as error:
        for line in str(error).splitlines():
            _say(f"nicety: {line}")
        raise typer.Exit(FAILURE) from None
    if only is not None and results[0].outcome == "not trained":
        results = [replace(results[0], outcome="failed")]
    if as_json:
        print(json.dumps(plain(dataset, results, lost, time.monotonic() - begin), indent=1))
    else:
        print(text(dataset, results))
    outcomes = {result.outcome for result in results}
    if "failed" in outcomes:
        raise typer.Exit(FAILURE)
    if "refused" in outcomes:
        raise typer.Exit(REFUSED)


def _train(kind: Kind, dataset: Dataset, models: Path, jobs: int, dry_run: bool) -> Result:
    """Fit one kind of model, compare it, and let it go live if it may."""
    with _progress(f"training the {kind} model"):
        if kind is Kind.DEMAND:
            arrays, result = _demand(dataset, models, jobs)
        else:
            arrays, result = _anomaly(dataset) if kind is Kind.ANOMALY else _behaviour(dataset, models)
    if result.outcome != "would be promoted" or dry_run:
        return result
    card = Card(
        kind=kind,
        interval=dataset.interval,
        data=dataset.data,
        metrics=metrics(result),
        version=__version__,
        created=time.time_ns(),
        cpus=os.cpu_count() or 1,
        features=FEATURES[kind],
    )
    return replace(result, outcome="promoted", digest=go_live(models, card, arrays))


def _demand(dataset: Dataset, models: Path, jobs: int) -> tuple[Arrays, Result]:
    """A demand model and how it did."""
    try:
        fit, calibrate, test = split(dataset.ticks)
        arrays = fit_demand(
            sample(dataset, fit, ORIGINS, SEED), sample(dataset, calibrate, TEST_ORIGINS, SEED), seed=SEED, jobs=jobs
        )
        held_out = sample(dataset, test, TEST_ORIGINS, SEED)
        if not len(held_out.lengths):
            raise DatasetError("no busy group or pool lasted into the held-out time; record longer")
    except DatasetError as error:
        minutes = LEAST_TICKS * dataset.interval / 60
        return {}, Result("demand", "failed", f"{error} (at {dataset.interval:g} s a tick {minutes:.1f} min are the least)", "")
    live, trouble = running(models, "demand", dataset.interval)
    if trouble:
        _say(trouble)
    old = [] if live is None else [(f"running {live.digest[:8]}", TreeDemand(live.arrays, live.digest))]
    table = evaluate([("new model", TreeDemand(arrays, "")), *old], held_out)
    judgement = judge(table, "new model", {name: model.speaks for name, model in old})
    arrays = {**arrays, "speaks": np.array([metric in judgement.speaks for metric in METRICS])}
    outcome = "would be promoted" if judgement.beats else "refused"
    return arrays, Result("demand", outcome, judgement.reason, "", demand=table)


def _anomaly(dataset: Dataset) -> tuple[Arrays, Result]:
    """An anomaly model and how it did."""
    if not dataset.workers.sessions:
        return {}, Result("anomaly", "not trained", "the traces have no pool with workers; configure pools and record", "")
    try:
        fitted = fit_anomaly(dataset.workers, dataset.interval)
    except ValueError as error:
        return {}, Result("anomaly", "not trained", str(error), "")
    outcome = "would be promoted" if fitted.beats else "refused"
    return fitted.arrays, Result("anomaly", outcome, fitted.reason, "", anomaly=fitted.rows)


def _behaviour(dataset: Dataset, models: Path) -> tuple[Arrays, Result]:
    """A behaviour model of the programs that nicety comes with and the groups with a class in the configuration, and how it did."""
    own = dataset.sighted.programs()
    if not own.names:
        missing = (
            "no group that did something has a class in the configuration, and without examples nothing is learned; say what "
            'some are: [groups.NAME] program = "..." latency = "latency" or "batch"'
        )
        return {}, Result("behaviour", "not trained", missing, "")
    cut = round(dataset.ticks * (1 - HELD_OUT))
    earlier, later = (dataset.sighted.within(*span).programs() for span in ((0, cut), (cut, dataset.ticks + 1)))
    if not earlier.names or not later.names:
        missing = (
            "the groups with a class did nothing in the first 80 or in the last 20 % of the time; record longer, while they work"
        )
        return {}, Result("behaviour", "failed", missing, "")
    base, old = _known_programs(), _running_behaviour(models)
    try:
        without = None if base is None else fit_behaviour(base).chances
        arrays = fit_behaviour(earlier if base is None else base + earlier).arrays
        whole = own if base is None else base + own
        fitted = fit_behaviour(whole)
    except ValueError as error:
        return {}, Result("behaviour", "not trained", str(error), "")
    judged = [("new model", BehaviourModel.from_arrays(arrays, ""))]
    judged += [] if old is None else [(f"running {old.digest[:8]}", BehaviourModel.from_arrays(old.arrays, old.digest))]
    rows = [row for name, model in judged for row in verdicts(name, model.probabilities(later.rows), later)]
    unseen = fitted.loss(whole) if base is None else log_loss(fitted.chances[: len(base.rows)], base)
    table = BehaviourTable(tuple(rows), (unseen, unseen if base is None or without is None else log_loss(without, base)))
    judgement = judge_behaviour(table)
    outcome = "would be promoted" if judgement.beats else "refused"
    return fitted.arrays, Result("behaviour", outcome, judgement.reason, "", behaviour=table)


def _known_programs() -> Programs | None:
    """The programs that the shipped model was trained on; None, and said, if they cannot be had."""
    try:
        artefact = shipped("behaviour")
        return None if artefact is None else unpacked(artefact.arrays)
    except (ArtifactError, ValueError) as error:
        _say(f"the programs that nicety comes with cannot be used, so only yours count: {error}")
        return None


def _running_behaviour(models: Path) -> Artifact | None:
    """What a daemon would use now: the user's model, else the shipped one. Rates are per second, so it fits any interval."""
    try:
        live = load_live(models, "behaviour")
    except ArtifactError as error:
        _say(f"the running behaviour model cannot be used, so it does not count: {error}")
        live = None
    try:
        return live or shipped("behaviour")
    except ArtifactError:  # told when its programs were asked for
        return None


def _lost(read: TraceRead) -> list[str]:
    """What could not be read, a sentence each."""
    return [f"{lost.path}: {lost.ticks if lost.ticks is not None else 'some'} ticks: {lost.reason}" for lost in read.lost]


class _Shown:
    """The progress of one step on a terminal; says nothing elsewhere."""

    def __init__(self, what: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(what, total=None, count="")
        self._ticks = 0

    def start(self) -> None:
        self._bar.start()

    def stop(self) -> None:
        self._bar.stop()

    def snapshot(self, _: Snapshot) -> None:
        """One more tick was read."""
        self._ticks += 1
        if self._ticks % 50 == 0:
            self._bar.update(self._task, count=f"{self._ticks} ticks")


@contextmanager
def _progress(what: str) -> Iterator[_Shown]:
    """Show that a step is under way, on stderr, until it ends."""
    shown = _Shown(what)
    shown.start()
    try:
        yield shown
    finally:
        shown.stop()


def _say(sentence: str) -> None:
    """Talk, as opposed to data."""
    print(sentence, file=sys.stderr, flush=True)
