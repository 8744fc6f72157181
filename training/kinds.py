"""The kinds of models: how each is trained on a data set and judged. Knows data sets and the artefact store, not traces or
people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from ..models.artifact import Arrays, Artifact, ArtifactError, load_live, shipped
from ..models.behaviour import BehaviourModel
from .anomaly_fit import fit_anomaly
from .behaviour_fit import BehaviourTable, Programs, fit_behaviour, log_loss, unpacked, verdicts
from .crew import Crew
from .dataset import Dataset, drawn
from .demand import Trained, train_demand
from .evidence import Backtest
from .progress import StageProgress, TrainingBudget
from .promote import judge_behaviour
from .report import Result
from .resume import SavedPart

HELD_OUT = 0.2
"""Share of the time, the newest, that a behaviour model is judged on (chosen)."""

SEED = 20_240_229
"""Seed of every draw in a training, so that the same traces give the same model. Chosen: any number will do."""

_MODEL, _SHOWN = "model-", "shown-"


class ModelKind(StrEnum):
    """Kinds of models to train."""

    DEMAND = "demand"
    ANOMALY = "anomaly"
    BEHAVIOUR = "behaviour"


@dataclass(frozen=True, slots=True)
class Made:
    """The result of training one kind of model."""

    arrays: Arrays  # {} if there is no model
    result: Result
    evidence: Backtest | None = None
    remarks: tuple[str, ...] = ()  # notable events, one sentence each


def train_kind(
    kind: ModelKind,
    dataset: Dataset,
    models: Path,
    budget: TrainingBudget,
    progress: StageProgress,
    crew: Crew,
    regressors: Sequence[str] = (),
) -> Made:
    """Fit and judge one kind of model. Nothing is saved. `regressors`: the user's own, as in the configuration."""
    if kind is ModelKind.DEMAND:
        progress.step("experts", 0, 0)
        trained, remarks = train_demand(dataset, models, SEED, budget, progress, crew, regressors)
        return Made(trained.arrays, trained.result, _evidence(trained), tuple(remarks))
    progress.step(kind, 0, 0)
    return _anomaly(dataset, crew) if kind is ModelKind.ANOMALY else _behaviour(dataset, models)


def packed(made: Made, dataset: Dataset) -> tuple[Any, dict[str, Any]]:
    """The result of a training as plain data and arrays, to be kept."""
    shown = {} if made.evidence is None else made.evidence.arrays()
    plain = {
        "data": dataset.data.digest,
        "result": msgspec.to_builtins(made.result),
        "leans": None if made.evidence is None else dict(made.evidence.leans),
    }
    named = {_MODEL + name: array for name, array in made.arrays.items()} | {_SHOWN + name: array for name, array in shown.items()}
    return plain, named


def kept(part: SavedPart, dataset: Dataset) -> Made | None:
    """The packed result; None if it was made from another data set. Raises ValueError for anything else."""
    try:
        if part.plain["data"] != dataset.data.digest:
            return None
        result, found = msgspec.convert(part.plain["result"], Result), part.plain["leans"]
        arrays = {name.removeprefix(_MODEL): array for name, array in part.arrays.items() if name.startswith(_MODEL)}
        shown = {name.removeprefix(_SHOWN): array for name, array in part.arrays.items() if name.startswith(_SHOWN)}
        runs = drawn(dataset.runs, dataset.interval)
        evidence = None if found is None else Backtest.of(runs, msgspec.convert(found, dict[str, float]), shown)
    except (msgspec.ValidationError, KeyError, TypeError) as error:
        raise ValueError(f"it is no model and its result: {error}") from None
    return Made(arrays, result, evidence)


def _evidence(trained: Trained) -> Backtest | None:
    test, said, baseline = trained.test, trained.said, trained.baseline
    if test is None or said is None or baseline is None:
        return None
    return Backtest(trained.runs, test.run, test.origin, test.targets, said, baseline, trained.leans)


def _anomaly(dataset: Dataset, crew: Crew) -> Made:
    """Fit an anomaly model and judge it."""
    if not dataset.workers.sessions:
        return _not_made("anomaly", "not trained", "the traces have no pool with workers; configure pools and record")
    try:
        fitted = fit_anomaly(dataset.workers, dataset.interval, crew)
    except ValueError as error:
        return _not_made("anomaly", "not trained", str(error))
    outcome = "would be promoted" if fitted.beats else "refused"
    return Made(fitted.arrays, Result("anomaly", outcome, fitted.reason, "", anomaly=fitted.rows))


def _behaviour(dataset: Dataset, models: Path) -> Made:
    """Fit a behaviour model to the shipped programs and the groups with a class in the configuration, and judge it."""
    own = dataset.sighted.programs()
    if not own.names:
        missing = (
            "no active group has a class in the configuration, so there are no examples to learn from; give some groups a class: "
            '[groups.NAME] program = "..." class = "interactive" or "batch"'
        )
        return _not_made("behaviour", "not trained", missing)
    cut = round(dataset.ticks * (1 - HELD_OUT))
    earlier, later = (dataset.sighted.within(*span).programs() for span in ((0, cut), (cut, dataset.ticks + 1)))
    if not earlier.names or not later.names:
        missing = "the groups with a class were idle in the first 80 % or the last 20 % of the time; record longer, while they work"
        return _not_made("behaviour", "failed", missing)
    remarks: list[str] = []
    base, old = _known_programs(remarks.append), _running_behaviour(models, remarks.append)
    try:
        without = None if base is None else fit_behaviour(base).chances
        arrays = fit_behaviour(earlier if base is None else base + earlier).arrays
        whole = own if base is None else base + own
        fitted = fit_behaviour(whole)
    except ValueError as error:
        return _not_made("behaviour", "not trained", str(error), remarks)
    judged = [("new model", BehaviourModel.from_arrays(arrays, ""))]
    judged += [] if old is None else [(f"running {old.digest[:8]}", BehaviourModel.from_arrays(old.arrays, old.digest))]
    rows = [row for name, model in judged for row in verdicts(name, model.probabilities(later.rows), later)]
    unseen = fitted.loss(whole) if base is None else log_loss(fitted.chances[: len(base.rows)], base)
    table = BehaviourTable(tuple(rows), (unseen, unseen if base is None or without is None else log_loss(without, base)))
    judgement = judge_behaviour(table)
    outcome = "would be promoted" if judgement.beats else "refused"
    return Made(fitted.arrays, Result("behaviour", outcome, judgement.reason, "", behaviour=table), None, tuple(remarks))


def _known_programs(say: Callable[[str], None]) -> Programs | None:
    """The programs that the shipped model was trained on; None, with a remark, if they cannot be used."""
    try:
        artefact = shipped("behaviour")
        return None if artefact is None else unpacked(artefact.arrays)
    except (ArtifactError, ValueError) as error:
        say(f"the programs of the shipped model cannot be used, so only yours count: {error}")
        return None


def _running_behaviour(models: Path, say: Callable[[str], None]) -> Artifact | None:
    """The model that a daemon would use now: the user's, else the shipped one. Rates are per second, so it fits any interval."""
    try:
        live = load_live(models, "behaviour")
    except ArtifactError as error:
        say(f"the running behaviour model cannot be used, so the new one is not compared with it: {error}")
        live = None
    try:
        return live or shipped("behaviour")
    except ArtifactError:  # reported when its programs were read
        return None


def _not_made(kind: str, outcome: str, reason: str, remarks: list[str] | None = None) -> Made:
    return Made({}, Result(kind, outcome, reason, ""), None, tuple(remarks or ()))
