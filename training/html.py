"""The contents of a training's report, for a reader who does not know the project. `report.html` beside this file has the words and
the layout. Knows results, not how they were made.

The report is one file without scripts, and loads nothing. Names in traces can be anything, so Jinja2 escapes all text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..models.artifact import Card
from ..models.records import HORIZONS, QUANTILES
from .anomaly_fit import AnomalyRow
from .behaviour_fit import BehaviourTable
from .dataset import Dataset
from .evaluate import DemandTable
from .evidence import STILL, Backtest, GroupRow, by_group, chosen, fan, leans, moving
from .plots import ACTUAL, BANDS, COLOURS, FALLBACK, METRIC_WORDS, OWN, PROMISED, coverage_svg, fan_svg, leans_svg, losses_svg
from .progress import duration, size
from .report import CONTEST, Course, Result, Rival, contest_cells, covered

PICTURES = 4
"""Fans of good groups, and as many of bad ones (chosen)."""

WORST = 12
"""Groups in the table of the worst forecasts (chosen)."""

KINDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "demand": ("Demand model", "predicts how much CPU time, memory and work each group of processes will want"),
        "anomaly": ("Anomaly model", "tells workers of a pool that leak, spin, hang or starve from healthy ones"),
        "behaviour": ("Behaviour model", "tells interactive services from batch work"),
    }
)

OUTCOME_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "promoted": "In use from now on.",
        "would be promoted": "Good enough to be used, but not taken into use, because this was a dry run.",
        "refused": "Not taken into use: it did not do better than the models that exist already. The model in use stays in use.",
        "failed": "There is no new model. The model in use stays in use.",
        "not trained": "Not trained, because there was nothing to learn from. This is not an error.",
    }
)

FORECASTERS: Mapping[str, str] = MappingProxyType(
    {
        "new model": "the model of this training",
        "experts": "nicety without a model: simple forecasters, weighted by their latest accuracy",
        "last value": "the value stays as it is now; its score is 1 by definition",
        "ewma": "the mean of the past, in which the latest values count most",
        "network": "a candidate: the small network of nicety alone",
        "boosting": "a candidate: the network, corrected by boosted trees of scikit-learn",
        "linear quantiles": "a candidate: a linear model for each quantile",
        "window quantile": "quantiles of the latest values, as autoscalers use them",
        "seasonal naive": "the value one period ago",
    }
)

OTHERS: Mapping[str, str] = MappingProxyType({"running": "in use until now", "shipped": "installed with nicety"})
"""Further forecasters, by the beginning of their names."""


@dataclass(frozen=True, slots=True)
class Story:
    """Everything that the page shows."""

    dataset: Dataset
    course: Course
    results: Sequence[Result]
    cards: Sequence[Card]  # of the models that were made
    evidence: Backtest | None  # None: no demand model, or nothing to show of it
    created: int  # wall clock ns
    version: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the page."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[int] = ()  # columns of figures
    own: int | None = None  # the row to highlight
    notes: Sequence[str] = ()  # below the first cell of each row


def page(story: Story) -> str:
    """The whole page."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True, loader=FileSystemLoader(Path(__file__).parent)
    )
    environment.filters |= {"when": _when, "duration": duration, "size": size}
    demand = next((result.demand for result in story.results if result.demand is not None), None)
    course = story.course
    return environment.get_template("report.html").render(
        created=story.created,
        version=story.version,
        course=course,
        verdicts=[_verdict(result) for result in story.results],
        data=_data(story),
        demand=None if demand is None else _demand(demand, story.dataset.interval),
        evidence=None if demand is None or story.evidence is None else _evidence(story.evidence, story.dataset.interval),
        contest=next((_contest(result.contest) for result in story.results if result.contest), None),
        anomaly=[_anomaly(result.anomaly) for result in story.results if result.anomaly],
        behaviour=[_behaviour(result.behaviour) for result in story.results if result.behaviour],
        left_out=[*course.left_out, *course.cut, *course.lost, *story.dataset.skipped],
        colours=COLOURS,
        cards=[{"kind": card.kind, "pairs": _card(card), "features": card.features} for card in story.cards],
    )


def _verdict(result: Result) -> dict[str, Any]:
    name, purpose = KINDS[result.kind]
    return {
        "name": name,
        "purpose": purpose,
        "outcome": result.outcome,
        "look": {"would be promoted": "promoted", "not trained": "none"}.get(result.outcome, result.outcome),
        "digest": result.digest[:8],
        "meaning": OUTCOME_WORDS[result.outcome],
        "scored": result.demand is not None,
        "reason": result.reason,
    }


def _data(story: Story) -> dict[str, str]:
    dataset, data = story.dataset, story.dataset.data
    return {
        "Recorded": f"from {_when(data.first_wall)} to {_when(data.last_wall)}",
        "Machines": f"{len(story.course.machines)}: {', '.join(story.course.machines)}",
        "Ticks": f"{data.ticks:,} of {dataset.interval:g} s, together {duration(data.ticks * dataset.interval)}; each has one "
        "reading of every process",
        "Processes": f"up to {data.processes:,} at a time",
        "Groups": f"{data.groups:,} that were active; a group is a program, a service, a container or a pool of workers",
        "Series": f"{len(dataset.runs):,} stretches of a group's CPU demand (CPU time used and waited for, in cores), memory, or "
        "offered load (busy workers and waiting work)",
    }


# --- demand -------------------------------------------------------------------------------------------------------------------

_LOSSES, _COVERAGE, _FANS, _LEANS = 1, 2, 3, 3 + 2 * PICTURES
"""Numbers of the pictures, which keep their ids apart; for the fans, the first number."""


def _demand(table: DemandTable, interval: float) -> dict[str, Any]:
    return {
        "ahead": ", ".join(f"{h * interval:g}" for h in HORIZONS),
        "levels": _listed(QUANTILES),
        "scores": _scores(table),
        "losses": _losses(table),
        "losses_picture": losses_svg(table, interval, _LOSSES),
    }


def _scores(table: DemandTable) -> Table:
    metrics = table.metrics()
    names = sorted(table.forecasters(), key=table.score)
    own = table.forecasters()[0]
    headers = ["forecaster", "score", *(METRIC_WORDS.get(metric, metric) for metric in metrics)]
    headers += [f"≤ {_percent(level)} level" for level in QUANTILES[1:]]
    rows = []
    for name in names:
        shares = covered([row for row in table.rows if row.forecaster == name])
        scores = [f"{table.score(name):.3f}", *(f"{table.score(name, metric):.3f}" for metric in metrics)]
        rows.append([name, *scores, *(_percent(share, 1) for share in shares[1:])])
    notes = {name: FORECASTERS.get(name, next((it for of, it in OTHERS.items() if name.startswith(of)), "")) for name in names}
    return Table(headers, rows, range(1, len(headers)), names.index(own), [notes[name] for name in names])


def _losses(table: DemandTable) -> Table:
    headers = ["metric", "forecaster", *(f"+{h}" for h in HORIZONS), *(f"≤ {_percent(level)}" for level in QUANTILES)]
    rows = []
    for metric in table.metrics():
        for name in table.forecasters():
            mine = {row.horizon: row for row in table.rows if (row.metric, row.forecaster) == (metric, name)}
            losses = [f"{mine[h].wql:.4f}" if h in mine else "" for h in HORIZONS]
            shares = [_percent(share, 1) for share in covered(list(mine.values()))]
            rows.append([METRIC_WORDS.get(metric, metric), name, *losses, *shares])
    return Table(headers, rows, range(2, len(headers)))


def _contest(rivals: Sequence[Rival]) -> Table:
    """The candidates, those with the largest share first."""
    cells = [[row[0], METRIC_WORDS.get(row[1], row[1]), *row[2:]] for row in contest_cells(rivals)]
    order = sorted(range(len(cells)), key=lambda place: (rivals[place].metric, -rivals[place].share))
    return Table(CONTEST, [cells[place] for place in order], range(2, 7))


def _evidence(evidence: Backtest, interval: float) -> dict[str, Any]:
    rows = by_group(evidence)
    lively = moving(rows)
    losers = sum(row.ratio > 1 for row in lively)
    return {
        "coverage_key": _key({"new model": OWN, "without a model": FALLBACK, "exactly right": PROMISED}, (OWN, FALLBACK, PROMISED)),
        "coverage_picture": coverage_svg(evidence, interval, _COVERAGE),
        "fans_key": _key(
            {
                "actual": ACTUAL,
                "predicted: the middle": OWN,
                "up to the 90 % level": BANDS[0],
                "95 %": BANDS[1],
                "99 %": BANDS[2],
                "95 % level without a model": FALLBACK,
            },
            (ACTUAL, OWN, FALLBACK),
        ),
        "fans": _fans(evidence, lively, interval) if lively else {},
        "series": f"{len(rows):,}",
        "still": f"{len(rows) - len(lively):,}",
        "still_below": _percent(STILL, 1),
        "better": f"{len(lively) - losers:,}",
        "losers": f"{losers:,}",
        "worst": _worst(lively) if rows else None,
        "leans_picture": leans_svg(evidence.leans, _LEANS) if leans(evidence.leans) else None,
    }


def _key(colours: Mapping[str, str], lines: Sequence[str]) -> list[tuple[str, str, bool]]:
    """The legend of a picture: (meaning, colour, whether it is drawn as a line)."""
    return [(what, it, it in lines) for what, it in colours.items()]


def _fans(evidence: Backtest, rows: Sequence[GroupRow], interval: float) -> dict[str, list[dict[str, Any]]]:
    """The fans under their titles."""
    half = -(-len(rows) // 2)
    good = chosen(rows[:half], PICTURES, ("target", "metric"))
    bad = chosen(list(reversed(rows[half:])), PICTURES)
    numbers: Iterator[int] = count(_FANS)
    return {
        title: [
            {
                "target": row.target,
                "metric": METRIC_WORDS.get(row.metric, row.metric),
                "against": _against(row),
                "picture": fan_svg(fan(evidence, row), interval, next(numbers)),
            }
            for row in shown
        ]
        for title, shown in (("Where the model gains most", good), ("Where it gains least, or loses", bad))
    }


def _worst(rows: Sequence[GroupRow]) -> Table:
    headers = ("group", "what", "forecasts", "loss", "without a model", "relative", "≤ 95 % level")
    cells = [
        [
            row.target,
            METRIC_WORDS.get(row.metric, row.metric),
            f"{row.forecasts:,}",
            _percent(row.loss, 2),
            _percent(row.baseline, 2),
            f"{row.ratio:.2f}",
            _percent(row.covered, 1),
        ]
        for row in list(reversed(rows))[:WORST]
    ]
    return Table(headers, cells, range(2, 7))


# --- the other kinds ----------------------------------------------------------------------------------------------------------


def _anomaly(rows: Sequence[AnomalyRow]) -> Table:
    headers = ("kind", "healthy blocks", "injected", "found", "after", "baseline found", "after", "false alarms", "baseline's")
    cells = [
        [
            str(row.kind),
            *(f"{count:,}" for count in (row.blocks, row.injected, row.found)),
            _seconds(row.delay),
            f"{row.baseline_found:,}",
            _seconds(row.baseline_delay),
            f"{row.false_alarms:,}",
            f"{row.baseline_false_alarms:,}",
        ]
        for row in rows
    ]
    return Table(headers, cells, range(1, 9))


def _behaviour(found: BehaviourTable) -> dict[str, Table]:
    models = [[name, f"{found.loss(name):.3f}", f"{found.harm(name):,}"] for name in found.models()]
    groups = [
        [
            row.model,
            row.program,
            str(row.class_),
            str(row.said),
            _percent(row.p_interactive),
            _percent(row.p_batch),
            f"{row.loss:.3f}",
        ]
        for row in found.rows
    ]
    headers = ("model", "group", "class", "predicted", "probability: interactive", "batch", "loss")
    return {
        "models": Table(("model", "loss", "services taken for batch"), models, (1, 2)),
        "groups": Table(headers, groups, (4, 5, 6)),
    }


def _card(card: Card) -> dict[str, str]:
    """The entries of a card but its features, which are a list of its own: there may be many."""
    plain = asdict(card)
    data = plain.pop("data")
    plain.pop("metrics")
    plain.pop("features")
    pairs: dict[str, Any] = {
        **{
            f"data: {name.replace('_', ' ')}": f"{value} ({_when(value)})" if name.endswith("wall") else value
            for name, value in data.items()
        },
        **{name.replace("_", " "): value for name, value in plain.items()},
        "created": _when(card.created),
    }
    return {name: ", ".join(map(str, it)) if isinstance(it, tuple) else str(it) for name, it in pairs.items() if it != ""}


# --- figures ------------------------------------------------------------------------------------------------------------------


def _percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f}\u00a0%"


def _listed(levels: Sequence[float]) -> str:
    shares = [f"{100 * level:g}" for level in levels]
    return f"{', '.join(shares[:-1])} and {shares[-1]} %"


def _against(row: GroupRow) -> str:
    less = "less" if row.ratio < 1 else "more"
    beside = f"{_percent(row.covered)} of the values at or below the 95 % level"
    return f"{_percent(abs(1 - row.ratio))} {less} loss than without a model; {beside}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} s"


def _when(wall: int) -> str:
    try:
        return f"{datetime.fromtimestamp(wall / 1e9, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        return "a time that no calendar has"
