"""Trains the demand model on a data set: picks origins and the starting model, fits, and measures on held-out time. Knows data sets
and the artefact store, not traces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..models.artifact import Arrays, Artifact, ArtifactError, shipped
from ..models.forecast.demand import DEMAND_FEATURES, METRICS
from ..models.forecast.experts import Floats
from ..models.forecast.network import Network
from .crew import Crew
from .dataset import LEAST_TICKS, Dataset, DatasetError, drawn, origins, split
from .evaluate import evaluate, losses
from .fit import ROWS, fit_demand, predict
from .progress import SHARES, StageProgress, TrainingBudget
from .promote import judge, running
from .report import Result
from .stream import Samples, SeriesRun, stream

ORIGINS = ROWS // 5
"""Maximum origins to fit on: each has five horizons."""

TEST_ORIGINS = 15_000
"""Maximum origins to test on (chosen)."""

BYTES = 5200
"""Maximum bytes of memory for an origin in training: its rows, the rows drawn from them, and its forecasts. Chosen above the peak
that `python -m benchmarks.forecast.model --only training` reports."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A demand model, how it did, and what the report shows of it."""

    arrays: Arrays  # {} if it failed
    result: Result
    runs: tuple[SeriesRun, ...] = ()  # what `test` refers to
    test: Samples | None = None  # held-out origins
    said: Floats | None = None  # [n, H, Q] the model's forecasts of them
    baseline: Floats | None = None  # [n, H, Q] those of the experts alone
    leans: Mapping[str, float] = field(default_factory=dict)  # feature -> share by which the loss grows if it is shuffled


def train_demand(
    dataset: Dataset, models: Path, seed: int, budget: TrainingBudget, progress: StageProgress, crew: Crew | None = None
) -> tuple[Trained, list[str]]:
    """(a demand model, notable events in one sentence each). The model is judged on the newest time of the data set, which is held
    out."""
    said: list[str] = []
    try:
        spans = split(dataset.ticks)
        room = max(budget.memory // BYTES, 500)
        most = (min(ORIGINS, room * 3 // 4), min(TEST_ORIGINS, room // 4))
        runs = drawn(dataset.runs, dataset.interval)
        chosen = [origins(runs, span, count, seed) for span, count in zip(spans, most, strict=True)]
        places = [np.concatenate(parts) for parts in zip(*chosen, strict=True)]
        total = sum(int(part[-1]) + 1 for part in places if len(part))
        ends = budget.clock() + budget.left() * SHARES["experts"]
        every = stream(runs, places, dataset.interval, lambda done: progress.step("experts", done, total), crew, ends)
        starts = np.array([run.start for run in runs])
        tick = every.origin + starts[every.run]
        fit, test = (every.part((tick >= span.first) & (tick < span.last)) for span in spans)
        if len(every) < sum(map(len, places)) and not len(test):
            raise DatasetError(
                "the time was used up before held-out time was reached; give more with --time-budget, or read less with --since"
            )
        if not len(test):
            raise DatasetError("no busy group or pool lasted into the held-out time; record longer")
        base = _base(said)
        arrays = fit_demand(
            fit,
            metrics(runs, fit),
            seed,
            None if base is None else base.arrays,
            lambda done, steps: progress.step("fitting", done, steps),
            [runs[which].owner for which in fit.run.tolist()],
        )
    except DatasetError as error:
        minutes = LEAST_TICKS * dataset.interval / 60
        reason = f"{error} (with ticks of {dataset.interval:g} s, at least {minutes:.1f} min are needed)"
        return Trained({}, Result("demand", "failed", reason, "")), said
    model = Network(arrays, "")
    made = {"new model": predict(model, test)}
    heard = {}
    live, trouble = running(models, "demand", dataset.interval)
    if trouble:
        said.append(trouble)
    for name, artefact in (
        ((f"running {live.digest[:8]}", live),) if live else ((f"shipped {base.digest[:8]}", base),) if base else ()
    ):
        other = Network(artefact.arrays, artefact.digest)
        made[name], heard[name] = predict(other, test), other.speaks
    made["experts"] = test.values(test.start.astype(np.float64))
    progress.step("judging", 0, 2)
    table = evaluate(made, test, runs)
    progress.step("judging", 1, 2)
    judgement = judge(table, "new model", heard)
    arrays = {**arrays, "speaks": np.array([metric in judgement.speaks for metric in METRICS])}
    leans = lean_on(model, test, seed)
    progress.step("judging", 2, 2)
    outcome = "would be promoted" if judgement.beats else "refused"
    result = Result("demand", outcome, judgement.reason, "", demand=table)
    return Trained(arrays, result, runs, test, made["new model"], made["experts"], leans), said


def metrics(runs: tuple[SeriesRun, ...], samples: Samples) -> list[str]:
    """The metric of each origin."""
    return [runs[which].metric for which in samples.run.tolist()]


def _base(said: list[str]) -> Artifact | None:
    """The model to start from: the shipped one; None if it cannot be used."""
    try:
        return shipped("demand")
    except ArtifactError as error:
        said.append(f"the shipped demand model cannot be used, so training starts from nothing: {error}")
        return None


SHOWN = 2000
"""Origins from which it is measured what a model relies on. Chosen: enough to rank the groups of columns."""


def lean_on(model: Network, samples: Samples, seed: int) -> dict[str, float]:
    """Share by which the loss grows when a feature is shuffled among the origins: permutation importance (Breiman 2001)."""
    rng = np.random.default_rng(seed)
    some = samples.part(np.sort(rng.permutation(len(samples))[:SHOWN]))
    known = np.isfinite(some.targets)

    def loss() -> float:
        return losses(some.targets[known], predict(model, some)[known])[0]

    whole, found = loss(), {}
    for column, name in enumerate(DEMAND_FEATURES):
        kept = some.rows[:, :, column].copy()
        some.rows[:, :, column] = kept[rng.permutation(len(kept))]
        found[name] = loss() / whole - 1 if whole > 0 else 0.0
        some.rows[:, :, column] = kept
    return found
