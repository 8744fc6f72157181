"""Trains the demand model on a data set: picks origins and the starting model, fits, holds the contest, and measures on held-out
time. Knows data sets and the artefact store, not traces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..models.artifact import Arrays, Artifact, ArtifactError, shipped
from ..models.forecast.answers import TrainedModel
from ..models.forecast.demand import DEMAND_FEATURES, METRICS
from ..models.forecast.experts import Floats, Ints
from ..models.forecast.mixture import member, mixed, trained
from ..models.forecast.network import Network
from .contest import BOOSTING, LINEAR, NETWORK, SHIPPED, Candidate, fit_all, milliseconds, shares
from .crew import Crew
from .dataset import LEAST_TICKS, Dataset, DatasetError, drawn, origins, split
from .evaluate import DemandTable, evaluate, losses
from .fit import NEAR, ROWS, TRIED_ROWS, explore, fit_demand, predict, training_rows
from .progress import SHARES, StageProgress, TrainingBudget
from .promote import judge, running
from .report import Result, Rival, covered
from .stream import Samples, SeriesRun, stream

ORIGINS = ROWS // 5
"""Maximum origins to fit on: each has five horizons."""

TEST_ORIGINS = 15_000
"""Maximum origins to test on (chosen)."""

BYTES = 6400
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


@dataclass(frozen=True, slots=True)
class Fitted:
    """A demand model before it is judged, and the candidates that it was chosen from."""

    network: Arrays
    candidates: Sequence[Candidate]  # without the network
    weights: NDArray[np.float32]  # [1 + candidates, METRICS]

    def arrays(self, speaks: Sequence[bool]) -> Arrays:
        """The artefact's."""
        own = {name: array for name, array in self.network.items() if name != "speaks"}
        members = [("network", own), *((each.kind, each.arrays) for each in self.candidates)]
        return mixed(members, self.weights, speaks)

    def alone(self) -> dict[str, TrainedModel]:
        """Each candidate as if it were the model."""
        found: dict[str, TrainedModel] = {}
        for place, each in enumerate(self.candidates, 1):
            weights = np.zeros_like(self.weights)
            weights[place], weights[0] = 1, not each.alone
            if each.kind:
                found[each.name] = trained(Fitted(self.network, self.candidates, weights).arrays([True] * len(METRICS)), "")
        return {NETWORK: trained(self.network, ""), **found}


def train_demand(
    dataset: Dataset,
    models: Path,
    seed: int,
    budget: TrainingBudget,
    progress: StageProgress,
    crew: Crew | None = None,
    regressors: Sequence[str] = (),
) -> tuple[Trained, list[str]]:
    """(a demand model, notable events in one sentence each). The model is judged on the newest time of the data set, which is held
    out. `regressors`: the user's own, as in the configuration."""
    said: list[str] = []
    crew = crew or Crew(1)
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
        inside = [(tick >= span.first) & (tick < span.last) for span in spans]
        fit, test = (every.part(part) for part in inside)
        if len(every) < sum(map(len, places)) and not len(test):
            raise DatasetError(
                "the time was used up before held-out time was reached; give more with --time-budget, or read less with --since"
            )
        if not len(test):
            raise DatasetError("no busy group or pool lasted into the held-out time; record longer")
        base = _base(said)
        owners = [runs[which].owner for which in fit.run.tolist()]
        when, start = tick[inside[0]], None if base is None else base.arrays
        fitted = fit_model(fit, metrics(runs, fit), when, seed, start, progress, owners, crew, regressors)
    except DatasetError as error:
        minutes = LEAST_TICKS * dataset.interval / 60
        reason = f"{error} (with ticks of {dataset.interval:g} s, at least {minutes:.1f} min are needed)"
        return Trained({}, Result("demand", "failed", reason, "")), said
    model = trained(fitted.arrays([True] * len(METRICS)), "")
    made = {"new model": predict(model, test)}
    heard = {}
    live, trouble = running(models, "demand", dataset.interval)
    if trouble:
        said.append(trouble)
    for name, artefact in ((f"running {live.digest[:8]}", live),) if live else ((SHIPPED, base),) if base else ():
        other = trained(artefact.arrays, artefact.digest)
        made[name], heard[name] = predict(other, test), other.speaks
    made["experts"] = test.values(test.start.astype(np.float64))
    if fitted.candidates:
        rivals = {name: each for name, each in fitted.alone().items() if name not in made}
        made |= {name: predict(each, test) for name, each in rivals.items()}
        heard |= dict.fromkeys(rivals, frozenset())  # shown, not compared with
    progress.step("judging", 0, 2)
    table = evaluate(made, test, runs)
    progress.step("judging", 1, 2)
    judgement = judge(table, "new model", heard)
    arrays = fitted.arrays([metric in judgement.speaks for metric in METRICS])
    leans = lean_on(model, test, seed)
    progress.step("judging", 2, 2)
    outcome = "would be promoted" if judgement.beats else "refused"
    result = Result("demand", outcome, judgement.reason, "", demand=table, contest=_rivals(fitted, table, test))
    return Trained(arrays, result, runs, test, made["new model"], made["experts"], leans), said


def fit_model(
    fit: Samples,
    sets: Sequence[str],
    when: Ints,
    seed: int,
    base: Arrays | None,
    progress: StageProgress | None = None,
    owners: Sequence[str] = (),
    crew: Crew | None = None,
    regressors: Sequence[str] = (),
) -> Fitted:
    """The network, and the candidates beside it. Where there is too little past for a contest, or no time, the network is alone.

    `sets`, `when`, `owners`: of each origin, as for `explore`. `base`: the model to start from. Raises DatasetError.
    """
    crew, step = crew or Crew(1), _unlimited if progress is None else progress.step
    trial = None
    if base is not None:
        trial = explore(fit, sets, when, seed, base, lambda *steps: step("ways", *steps), owners, crew)
    way = NEAR if trial is None else trial.way
    network = fit_demand(fit, sets, seed, base, lambda *steps: step("fitting", *steps), owners, way)
    alone = Fitted(network, (), np.ones((1, len(METRICS)), dtype=np.float32))
    if base is None or trial is None or not step("contest", 0, 2):
        return alone
    names = (BOOSTING, LINEAR, *regressors)
    start = Candidate(SHIPPED, "network", {name: base[name] for name in Network.SHAPES})
    tried = [*fit_all(names, trial.earlier, seed, trial.network, crew), start]
    weights = shares(tried, trial.network, trial.later)
    if not step("contest", 1, 2):
        return alone
    found = [*fit_all(names, training_rows(fit, sets, seed, owners, TRIED_ROWS), seed, network, crew), start]
    step("contest", 2, 2)
    for place, each in enumerate(found, 1):
        if not each.kind and weights[place].any():  # it can be fitted to a part of the past, but not to all of it
            weights[0], weights[1:] = 1, 0
    return Fitted(network, found, weights)


def _unlimited(_name: str, _done: int, _total: int) -> bool:
    """Progress that nobody watches."""
    return True


def _rivals(fitted: Fitted, table: DemandTable, test: Samples) -> tuple[Rival, ...]:
    """The table of the contest; () if there was none."""
    if not fitted.candidates:
        return ()
    rows = test.rows.reshape(-1, len(DEMAND_FEATURES))
    network = member("network", {name: array for name, array in fitted.network.items() if name != "speaks"})
    found = []
    for place, (name, each) in enumerate([(NETWORK, None), *((each.name, each) for each in fitted.candidates)]):
        spent = 0.0
        if each is None or each.kind:
            members = [] if each is None else [member(each.kind, each.arrays)]
            spent = milliseconds([*members, *([network] if each is None or not each.alone else [])], rows)
        for metric in table.metrics():
            mine = [row for row in table.rows if (row.forecaster, row.metric) == (name, metric)]
            high, higher = covered(mine)[1:3] if mine else (None, None)
            score = table.score(name, metric) if mine else None
            share = float(fitted.weights[place, METRICS.index(metric)])
            found.append(Rival(name, metric, score, high, higher, spent, share, "" if each is None else each.remark))
    return tuple(found)


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


def lean_on(model: TrainedModel, samples: Samples, seed: int) -> dict[str, float]:
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
