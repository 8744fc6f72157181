"""The result of a training as text for people and as plain data for JSON. Knows results, not how they were made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..models.records import HORIZONS, QUANTILES
from ..scheduler.explain.layout import paragraph, table
from .anomaly_fit import AnomalyRow
from .behaviour_fit import BehaviourTable
from .dataset import Dataset
from .evaluate import DemandRow, DemandTable

OUTCOMES = ("promoted", "would be promoted", "refused", "failed", "not trained")
"""Possible outcomes for a kind of model. "not trained": there was nothing to train it on, which is not a failure."""


@dataclass(frozen=True, slots=True)
class Rival:
    """A candidate for the demand model at one metric, on held-out time."""

    name: str
    metric: str
    score: float | None  # loss relative to that of the last value; lower is better. None: it has no forecasts
    covered90: float | None  # share of values at or below the 90 % quantile
    covered95: float | None
    milliseconds: float  # of CPU a tick for 1,000 series; measured, so it differs from run to run
    share: float  # of it in the new model
    remark: str  # that it was copied, or why it has no forecasts


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome for one kind of model."""

    kind: str
    outcome: str  # one of OUTCOMES
    reason: str  # one sentence
    digest: str  # of the artefact that went live; "" if none did
    demand: DemandTable | None = None
    contest: tuple[Rival, ...] = ()
    anomaly: tuple[AnomalyRow, ...] = ()
    behaviour: BehaviourTable | None = None


@dataclass(frozen=True, slots=True)
class Course:
    """How a training went. `lost`, `left_out` and `cut` have one sentence for each item."""

    machines: tuple[str, ...]  # machines whose traces were read
    lost: tuple[str, ...]  # traces that could not be read
    left_out: tuple[str, ...]  # traces that were not read or not kept, because of time or memory
    cut: tuple[str, ...]  # stages that ended early
    seconds: float
    peak_bytes: int  # peak of resident memory


def text(dataset: Dataset, course: Course, results: Sequence[Result], width: int | None = None) -> str:
    """The result for stdout. `width`: columns of the terminal; None: no limit."""
    data = dataset.data
    minutes = data.ticks * dataset.interval / 60
    read = f"{data.ticks} ticks of {dataset.interval:g} s ({minutes:.0f} min), up to {data.processes} processes"
    machines = f" of {len(course.machines)} machines" if len(course.machines) > 1 else ""
    lines = paragraph(f"{read}, {data.groups} busy groups and pools{machines}, {len(dataset.runs)} series", width)
    for result in results:
        lines += ["", f"{result.kind} model: {result.outcome}{f' as {result.digest[:8]}' if result.digest else ''}"]
        lines += paragraph(result.reason, width)
        if result.demand is not None:
            lines += ["", *_demand(result.demand, width)]
        if result.contest:
            lines += ["", *_contest(result.contest, width)]
        if result.anomaly:
            lines += ["", *_anomaly(result.anomaly, width)]
        if result.behaviour is not None:
            lines += ["", *_behaviour(result.behaviour, width)]
    return "\n".join(lines)


def plain(dataset: Dataset, course: Course, results: Sequence[Result], page: str) -> dict[str, Any]:
    """The result with all figures, as plain data for JSON. `page`: path of the report, "" if none was written."""
    return {
        "ticks": dataset.data.ticks,
        "interval_seconds": dataset.interval,
        "series": len(dataset.runs),
        "data": asdict(dataset.data),
        "skipped": list(dataset.skipped),
        "machines": list(course.machines),
        "lost": list(course.lost),
        "left_out": list(course.left_out),
        "cut": list(course.cut),
        "seconds": round(course.seconds, 3),
        "peak_bytes": course.peak_bytes,
        "report": page,
        "models": {
            result.kind: {
                "outcome": result.outcome,
                "reason": result.reason,
                "digest": result.digest,
                "scores": _scores(result),
                "rows": metrics(result),
                "contest": [asdict(rival) for rival in result.contest],
            }
            for result in results
        },
    }


def metrics(result: Result) -> tuple[dict[str, Any], ...]:
    """The rows of a result's table, for the card and JSON."""
    table = result.demand or result.behaviour
    return tuple(asdict(row) for row in (table.rows if table else result.anomaly))


def _scores(result: Result) -> dict[str, float]:
    """The figure by which the models of a table are compared; lower is better."""
    if result.demand is not None:
        return {name: result.demand.score(name) for name in result.demand.forecasters()}
    if result.behaviour is not None:
        return {name: result.behaviour.loss(name) for name in result.behaviour.models()}
    return {}


def _demand(found: DemandTable, width: int | None) -> list[str]:
    """A line for each metric and forecaster: loss by horizon, coverage by quantile over all horizons."""
    metrics_ = sorted({row.metric for row in found.rows})
    headers = ["metric", "forecaster", *(f"wQL +{h}" for h in HORIZONS), *(f"≤ q{level:g}" for level in QUANTILES)]
    rows = []
    for metric in metrics_:
        for name in found.forecasters():
            mine = {row.horizon: row for row in found.rows if row.metric == metric and row.forecaster == name}
            losses = [f"{mine[h].wql:.4f}" if h in mine else "" for h in HORIZONS]
            rows.append([metric, name, *losses, *(f"{share:.1%}" for share in covered(list(mine.values())))])
    scores = [[name, f"{found.score(name):.3f}"] for name in sorted(found.forecasters(), key=found.score)]
    return [*table(headers, rows, width), "", *table(("forecaster", "score"), scores, width)]


CONTEST = ("candidate", "metric", "score", "≤ q0.9", "≤ q0.95", "ms a tick", "share", "")


def contest_cells(rivals: Sequence[Rival]) -> list[list[str]]:
    """The table of the contest, below CONTEST."""

    def cell(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    return [
        [
            it.name,
            it.metric,
            cell(it.score, ".3f"),
            cell(it.covered90, ".1%"),
            cell(it.covered95, ".1%"),
            f"{it.milliseconds:.1f}",
            f"{it.share:.0%}",
            it.remark or ("" if it.share else "adds too little to take part"),
        ]
        for it in rivals
    ]


def _contest(rivals: Sequence[Rival], width: int | None) -> list[str]:
    """A line for each candidate and metric; then a line for each that was copied or failed."""
    remarks = {it.name: it.remark for it in rivals if it.remark}
    rows = [cells[:-1] for cells in contest_cells(rivals)]
    lines = [line for name, remark in remarks.items() for line in paragraph(f"{name}: {remark}", width)]
    return [*table(CONTEST[:-1], rows, width), *([""] if lines else []), *lines]


def covered(rows: Sequence[DemandRow]) -> list[float]:
    """Share of the values of some rows that lie at or below each of `QUANTILES`."""
    total = sum(row.values for row in rows)
    return [sum(row.coverage[q] * row.values for row in rows) / total for q in range(len(QUANTILES))]


def _anomaly(rows: Sequence[AnomalyRow], width: int | None) -> list[str]:
    def seconds(delay: float | None) -> str:
        return "" if delay is None else f"{delay:.0f} s"

    headers = ("kind", "healthy blocks", "injected", "found", "after", "baseline found", "after", "false alarms", "baseline's")
    return table(
        headers,
        [
            [
                str(row.kind),
                str(row.blocks),
                str(row.injected),
                str(row.found),
                seconds(row.delay),
                str(row.baseline_found),
                seconds(row.baseline_delay),
                str(row.false_alarms),
                str(row.baseline_false_alarms),
            ]
            for row in rows
        ],
        width,
    )


def _behaviour(found: BehaviourTable, width: int | None) -> list[str]:
    """A line for each group and model; then the models."""
    headers = ("model", "group", "class", "predicted", "p interactive", "p batch", "loss")
    rows = [
        [row.model, row.program, row.class_, row.said, f"{row.p_interactive:.0%}", f"{row.p_batch:.0%}", f"{row.loss:.3f}"]
        for row in found.rows
    ]
    models = [[name, f"{found.loss(name):.3f}", str(found.harm(name))] for name in found.models()]
    return [*table(headers, rows, width), "", *table(("model", "loss", "interactive taken for batch"), models, width)]
