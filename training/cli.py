"""The command line of training: reads traces, fits, evaluates, promotes or refuses. Data goes to stdout, messages to stderr.

Exit codes: 0 trained and promoted; 1 failure; 2 wrong usage; 3 a model was refused, and the table says which model is better; 130
interrupted by Ctrl-C; 143 by SIGTERM."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import msgspec
import psutil
import typer

from .. import __version__
from ..models.artifact import FEATURES, ArtifactError, Card, load
from ..models.records import QUANTILES
from ..scheduler.config.paths import Loaded, PathError, Paths, load_config, state_paths
from ..scheduler.config.sections import ConfigError
from ..scheduler.explain.layout import columns
from ..scheduler.hands.owner import become, owner_of
from ..scheduler.hands.safe_files import StoreError
from ..scheduler.read.text import escape_unencodable, printable
from ..scheduler.store.files import NamedFile, replacing
from .crew import BASE_BYTES, Crew, processes
from .dataset import Dataset, DatasetError
from .gather import gather
from .kinds import Made, ModelKind, kept, packed, train_kind
from .progress import Stages, TrainingBudget, size
from .promote import go_live
from .regressors import made as made_regressor
from .report import Course, Result, metrics, plain, text
from .resume import Parts
from .sources import machines

FAILURE, REFUSED = 1, 3
"""Exit codes. typer exits with 2 for wrong usage."""

MEMORY = "2g"
"""Default limit for the memory of a training. Chosen: a small server can spare this for some minutes."""

LEARNING = 0.5
"""Share of the memory for learning; `gather` and `crew` have what they take of the rest (chosen)."""

LEAST_MEMORY = 64 << 20
"""Least bytes for learning, beside the program itself. Chosen: the values of an hour and the rows of some hundred moments."""

TIMES = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]})


def main() -> None:
    """Entry point of `python -m nicety.training`."""
    escape_unencodable(sys.stdout, sys.stderr)
    app(prog_name="nicety")


@app.callback()
def _group() -> None:
    """Train models from traces."""


def _seconds(value: str) -> float:
    """A time such as 90, 90s, 10m, 12h or 7d in seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", value.strip())
    if not found or not 0 < float(found[1]) < 1e9:
        raise typer.BadParameter(f"{value!r} is not a length of time; write e.g. 90s, 10m, 12h or 7d")
    return float(found[1]) * TIMES[found[2] or "s"]


def _bytes(value: str) -> int:
    """A size such as 500m or 1.5g in bytes."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kmg]?)(?:i?b)?", value.strip().lower())
    if not found or not 0 < float(found[1]) < 1e15:
        raise typer.BadParameter(f"{value!r} is not a size; write e.g. 500m or 2g")
    return round(float(found[1]) * SIZES[found[2]])


@app.command(
    epilog="Examples: `nicety train --since 7d` learns from the last week of this machine; `nicety train fleet/ --time-budget 30m "
    "--memory 4g --report fleet.html` learns from the traces of many machines, a folder each, in half an hour and 4 GiB. To resume "
    "an interrupted training, start it again with the same arguments."
)
def train(
    traces: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="TRACES",
            help="State directories, folders with those of many machines, trace files or Parquet exports (default: the state "
            "directory's traces).",
            show_default=False,
        ),
    ] = None,
    since: Annotated[float | None, typer.Option(parser=_seconds, metavar="TIME", help="How far to look back, e.g. 7d.")] = None,
    only: Annotated[
        ModelKind | None, typer.Option(metavar="KIND", help=f"Train only this kind of model: {', '.join(ModelKind)}.")
    ] = None,
    models: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Directory for models (default: in the state directory).", show_default=False)
    ] = None,
    time_budget: Annotated[
        float | None,
        typer.Option(parser=_seconds, metavar="TIME", help="Finish in about this time with what is learned by then, e.g. 10m."),
    ] = None,
    memory: Annotated[
        int, typer.Option(parser=_bytes, metavar="SIZE", help="Use at most so much memory; if need be, learn from less.")
    ] = MEMORY,  # type: ignore[assignment]  # typer parses the default as if it were typed
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="How many processes work at the same time (default: one for each CPU, if the memory is enough). The models are "
            "the same.",
            show_default=False,
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="File for the report (default: beside the new model).", show_default=False),
    ] = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no report.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Fit and compare, but save and promote nothing.")] = False,
    idle: Annotated[bool, typer.Option("--idle/--no-idle", help="Use only CPU time that nothing else wants.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    config: Annotated[
        str | None,
        typer.Option("--config", metavar="FILE", help="Configuration file, instead of $NICETY_CONFIG.", show_default=False),
    ] = None,
    state_dir: Annotated[
        str | None,
        typer.Option("--state-dir", metavar="DIR", help="State directory, instead of $NICETY_STATE_DIR.", show_default=False),
    ] = None,
) -> None:
    """Train models from the traces; promote those that beat the running ones and the baselines on held-out time.

    Writes a report for a browser: which traces were used, how good the forecasts are, and which models were promoted. Exit 3 if a
    model was refused.
    """
    begin = time.monotonic()
    if report is not None and (report.is_dir() or not report.parent.is_dir()):
        raise typer.BadParameter(
            f"{report} cannot be written: give the name of a file in a folder that exists", param_hint="--report"
        )
    room = memory - psutil.Process().memory_info().rss
    if room < LEAST_MEMORY:
        least = size(memory - room + LEAST_MEMORY)
        raise typer.BadParameter(f"{size(memory)} is too little: the program and a little data take {least}", param_hint="--memory")
    if idle:
        with suppress(PermissionError):  # in the unit, where the daemon has lowered its session instead
            os.nice(19)
            if hasattr(os, "sched_setscheduler"):
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    parts: Parts | None = None
    try:
        with _interruptible():
            loaded = load_config(config, os.environ, os.geteuid())
            paths = state_paths(loaded.config, state_dir, os.environ, os.geteuid())
            owner = owner_of(paths.stores)
            place: Path | NamedFile | None = report
            if owner is not None:
                place = None if report is None else NamedFile(report)
                become(owner)
            if not traces and not paths.traces.exists():
                raise DatasetError(f"no traces in {paths.traces} yet; record some with `nicety record`")
            asked = {
                "version": __version__,
                "traces": [str(path.absolute()) for path in traces or [paths.traces]],
                "models": str((models or paths.models).absolute()),
                "since": since,
                "time budget": time_budget,
                "memory": memory,
                "config": msgspec.to_builtins(loaded.config),
            }
            found = machines(traces or [paths.traces])
            parts = Parts(paths.stores, asked, room, _say)
            crew = Crew(processes(jobs, memory))
            training = _Training(begin, memory, time_budget, paths, models or paths.models, dry_run, parts, crew)
            done = training.run(loaded, found, since, only)
            page = None if no_report else training.page(done, place)
            parts.clear()
    except (ConfigError, PathError, StoreError, DatasetError, ArtifactError) as error:
        for line in str(error).splitlines():
            _say(f"nicety: {line}")
        raise typer.Exit(FAILURE) from None
    except _Interrupted as interrupted:
        _say("interrupted; start it again to resume" if parts is not None and parts.kept else "interrupted")
        raise typer.Exit(128 + interrupted.signal) from None
    finally:
        if parts is not None:
            parts.close()
    results = done.results
    if only is not None and results[0].outcome == "not trained":
        results = [replace(results[0], outcome="failed")]
    if as_json:
        print(json.dumps(plain(done.dataset, done.course, results, "" if page is None else str(page)), indent=1))
    else:
        print(text(done.dataset, done.course, results, columns()))
        if page is not None:
            print(f"\nreport: {printable(str(page))}")
    outcomes = {result.outcome for result in results}
    if "failed" in outcomes:
        raise typer.Exit(FAILURE)
    if "refused" in outcomes:
        raise typer.Exit(REFUSED)


@dataclass(frozen=True, slots=True)
class _Done:
    """The results of a training."""

    dataset: Dataset
    course: Course
    made: list[Made]  # of each kind, in order
    cards: list[Card]  # of the models that were made

    @property
    def results(self) -> list[Result]:
        return [it.result for it in self.made]


class _Training:
    """One call of the command, stage by stage."""

    def __init__(
        self,
        begin: float,
        memory: int,
        seconds: float | None,
        paths: Paths,
        models: Path,
        dry_run: bool,
        parts: Parts,
        crew: Crew,
    ) -> None:
        ends = float("inf") if seconds is None else begin + seconds
        self._begin = begin
        # not what is left now: the same traces within the same memory must give the same models
        self._budget = TrainingBudget(ends, max(memory - BASE_BYTES, LEAST_MEMORY))
        self._crew = crew
        self._paths = paths
        self._models = models
        self._dry_run = dry_run
        self._parts = parts
        self._stages = Stages(self._budget, sys.stderr)
        self._regressors: Sequence[str] = ()

    def run(self, loaded: Loaded, found: Any, since: float | None, only: ModelKind | None) -> _Done:
        """Read, train every kind, and promote what is good enough. Raises what reading and the store raise."""
        self._regressors = loaded.config.training.regressors
        if only in (None, ModelKind.DEMAND):
            for reference in self._regressors:
                made_regressor(reference, QUANTILES[0])  # an error in the user's own code shows before an hour of reading
        now = time.time_ns()
        begin = None if since is None else now - round(since * 1e9)
        with self._stages.shown():
            gathered = gather(found, loaded.config, begin, now, self._budget, self._stages, self._parts, _say, self._crew)
            self._stages.end()
            dataset = gathered.dataset
            for sentence in (*gathered.lost, *gathered.left_out, *dataset.skipped):
                _say(f"left out: {sentence}")
            made: list[Made] = []
            cards: list[Card] = []
            for kind in ModelKind:
                if only in (None, kind):
                    one, card = self._kind(kind, dataset)
                    made.append(one)
                    cards += [] if card is None else [card]
        for sentence in self._stages.cut:
            _say(sentence)
        names = tuple(machine.name for machine in found)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        seconds = time.monotonic() - self._begin
        return _Done(dataset, Course(names, gathered.lost, gathered.left_out, tuple(self._stages.cut), seconds, peak), made, cards)

    def page(self, done: _Done, asked: Path | NamedFile | None) -> Path | NamedFile | None:
        """Write the report and return its path. None: a dry run without `asked`, or it could not be written. Raises StoreError if
        it was asked for and cannot be written."""
        from .html import Story, page

        place = asked
        if place is None:
            if self._dry_run:
                return None
            new = next((result for result in done.results if result.outcome == "promoted"), None)
            folder = self._paths.stores if new is None else self._models / new.kind / new.digest
            place = folder / "report.html"
        evidence = next((it.evidence for it in done.made if it.evidence is not None), None)
        with self._stages.shown(), self._stages.stage("report"):
            story = Story(done.dataset, done.course, done.results, done.cards, evidence, time.time_ns(), __version__)
            try:
                with replacing(place) as file:
                    file.write(page(story).encode())
            except StoreError as error:
                if asked is not None:
                    raise
                _say(f"no report: {error}")
                return None
        return place

    def _kind(self, kind: ModelKind, dataset: Dataset) -> tuple[Made, Card | None]:
        """Train a kind of model, or take the model of an interrupted training. Make it live if it is good enough."""
        made = self._taken_up(kind, dataset)
        if made is None:
            if self._budget.left() <= 0:
                reason = "no time was left for it; give more with --time-budget, or train it with --only"
                return Made({}, Result(kind, "not trained", reason, "")), None
            left = replace(self._budget, memory=round(self._budget.memory * LEARNING))
            made = train_kind(kind, dataset, self._models, left, self._stages, self._crew, self._regressors)
            self._stages.end()
            for remark in made.remarks:
                _say(remark)
            self._parts.save(kind, *packed(made, dataset))
        if not made.arrays:
            return made, None
        result = made.result
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
        if result.outcome == "would be promoted" and not self._dry_run:
            made = replace(made, result=replace(result, outcome="promoted", digest=go_live(self._models, card, made.arrays)))
            self._parts.save(kind, *packed(made, dataset))
        if made.result.digest:
            card = load(self._models, kind, made.result.digest).card
        return made, card

    def _taken_up(self, kind: ModelKind, dataset: Dataset) -> Made | None:
        """The model that an interrupted training made from the same data; None if there is none."""
        part = self._parts.load(kind)
        if part is None:
            return None
        try:
            made = kept(part, dataset)
            if made is not None and made.result.digest:
                load(self._models, kind, made.result.digest)
        except (ValueError, ArtifactError) as error:
            _say(f"the {kind} model of the interrupted training cannot be used, so it is trained again: {error}")
            return None
        if made is not None:
            _say(f"the {kind} model of the interrupted training is used")
        return made


class _Interrupted(BaseException):
    """Ctrl-C or SIGTERM. Not an ordinary error, so that no handler on the way takes it for one."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM raise `_Interrupted`, unless the parent set them to be ignored."""

    def interrupt(number: int, _: FrameType | None) -> NoReturn:
        raise _Interrupted(number)

    taken = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    before = [signal.signal(number, interrupt) for number in taken]
    try:
        yield
    finally:
        for number, handler in zip(taken, before, strict=True):
            signal.signal(number, handler)


def _say(sentence: str) -> None:
    """Print a message, as opposed to data."""
    print(printable(sentence), file=sys.stderr, flush=True)
