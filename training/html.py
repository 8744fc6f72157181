"""The report of a training as one page for a browser: for a reader who does not know the project. Knows results, not how they were
made.

One file without scripts and without anything from elsewhere. Names that come from traces are anybody's: all text passes `escape`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from html import escape
from types import MappingProxyType
from typing import Any

from ..models.artifact import Card
from ..models.records import HORIZONS, QUANTILES
from .anomaly_fit import AnomalyRow
from .behaviour_fit import BehaviourTable
from .dataset import Dataset
from .evaluate import DemandTable
from .evidence import STILL, Backtest, GroupRow, by_group, chosen, fan, moving
from .plots import ACTUAL, BANDS, FALLBACK, METRIC_WORDS, OWN, available, coverage_svg, fan_svg, leans_svg, losses_svg
from .progress import duration, size
from .report import Course, Result, covered

PICTURES = 4
"""Number of fans of good groups, and of bad ones."""

WORST = 12
"""Groups in the table of the worst (chosen)."""

KINDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "demand": ("Demand model", "predicts how much CPU time, memory and work each group of processes will want"),
        "anomaly": ("Anomaly model", "tells workers of a pool that leak, spin, hang or starve from healthy ones"),
        "behaviour": ("Behaviour model", "tells services that somebody waits for from batch work"),
    }
)

OUTCOME_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "promoted": "In use from now on.",
        "would be promoted": "Good enough to be used, but not taken into use, because this was a dry run.",
        "refused": "Not taken into use: it did not do better than what is there already, which stays in use.",
        "failed": "There is no new model; what was in use stays in use.",
        "not trained": "Not trained: there was nothing to learn it from, which is no fault.",
    }
)

FORECASTERS: Mapping[str, str] = MappingProxyType(
    {
        "new model": "what this training made",
        "experts": "what nicety says without a model: simple forecasters, each heard as it was right lately",
        "last value": "it stays as it is now: 1 by definition",
        "ewma": "the mean of the past, the latest counting most",
        "window quantile": "quantiles of the latest values, as autoscalers use them",
        "seasonal naive": "what it was one period ago",
    }
)

OTHERS: Mapping[str, str] = MappingProxyType({"running": "in use until now", "shipped": "what nicety comes with"})
"""By the beginning of their names."""

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: #1d1d1f; background: #fff; }
body { max-width: 64rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 .6rem; border-bottom: 1px solid #d8dce2; padding-bottom: .2rem; }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .4rem; }
p { margin: .5rem 0; }
.small, small { color: #4a4f57; font-size: .9rem; }
small { font-size: .82rem; display: block; font-weight: 400; }
table { border-collapse: collapse; margin: .7rem 0; font-size: .92rem; }
th, td { text-align: left; padding: .28rem .8rem .28rem 0; vertical-align: top; border-bottom: 1px solid #eceef1; }
th { color: #4a4f57; font-weight: 600; vertical-align: bottom; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.name { overflow-wrap: anywhere; min-width: 8rem; }
.notes td:first-child { min-width: 15rem; }
.own td { font-weight: 600; background: #f0f5fd; }
.wide { overflow-x: auto; }
.verdicts { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: .9rem; margin: 1.2rem 0; }
.verdict { border: 1px solid #d8dce2; border-left: 6px solid #8a8f98; border-radius: 6px; padding: .6rem .9rem; }
.verdict h3 { margin: 0; }
.promoted { border-left-color: #3d8b57; }
.refused { border-left-color: #d9822b; }
.failed { border-left-color: #b3362c; }
.fans { display: grid; grid-template-columns: repeat(auto-fit, minmax(25rem, 1fr)); gap: .2rem 1.6rem; }
figure { margin: .6rem 0; break-inside: avoid; }
figcaption { font-size: .9rem; overflow-wrap: anywhere; }
svg { width: 100%; height: auto; }
.narrow svg { max-width: 46rem; }
.key span { margin-right: 1.2rem; white-space: nowrap; }
.key i { display: inline-block; width: 1.5rem; height: .75rem; margin-right: .4rem; border-radius: 2px; }
.key i.line { height: .2rem; margin-bottom: .22rem; }
summary { cursor: pointer; margin: .8rem 0; }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .88em; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; font-size: .92rem; }
dt { color: #4a4f57; }
dd { margin: 0; overflow-wrap: anywhere; }
"""


@dataclass(frozen=True, slots=True)
class Story:
    """All that the page shows."""

    dataset: Dataset
    course: Course
    results: Sequence[Result]
    cards: Sequence[Card]  # of the models that were made
    evidence: Backtest | None  # None: no demand model, or nothing to show of it
    created: int  # wall clock ns
    version: str


def page(story: Story) -> str:
    """The whole page."""
    return "\n".join(
        (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            '<meta name="viewport" content="width=device-width, initial-scale=1"><title>nicety: training report</title>',
            f"<style>{STYLE}</style></head><body>",
            *_top(story),
            *_data(story),
            *(_demand(story) if any(result.demand is not None for result in story.results) else ()),
            *(line for result in story.results if result.anomaly for line in _anomaly(result.anomaly)),
            *(line for result in story.results if result.behaviour for line in _behaviour(result.behaviour)),
            *_left_out(story),
            *(line for card in story.cards for line in _card(card)),
            "</body></html>\n",
        )
    )


def _top(story: Story) -> Iterator[str]:
    yield "<h1>What nicety has learned</h1>"
    yield (
        f'<p class="small">Training report of {_when(story.created)}, nicety {escape(story.version)}; '
        f"took {duration(story.course.seconds)} and at most {size(story.course.peak_bytes)} of memory.</p>"
    )
    yield (
        "<p>nicety is a daemon that learns how the processes of a Linux machine use it, and acts ahead of them: it sizes pools of "
        "workers, keeps services fast beside batch work, and flags workers that misbehave. For that it trains models on what it "
        "has recorded. A new model is used only if it does better than the one in use, and than simple rules, on <b>held-out "
        "time</b>: the last part of the recording, which it was not shown.</p>"
    )
    yield '<div class="verdicts">'
    for result in story.results:
        name, purpose = KINDS[result.kind]
        look = {"would be promoted": "promoted", "not trained": "none"}.get(result.outcome, result.outcome)
        made = f" as <code>{escape(result.digest[:8])}</code>" if result.digest else ""
        yield f'<section class="verdict {look}"><h3>{name}: {escape(result.outcome)}{made}</h3>'
        yield f'<p class="small">It {purpose}.</p><p>{OUTCOME_WORDS[result.outcome]}</p>'
        scores = "Scores by metric, less is better: " if result.demand is not None else ""
        yield f'<p class="small">{scores}{escape(result.reason)}</p></section>'
    yield "</div>"


def _data(story: Story) -> Iterator[str]:
    dataset, data = story.dataset, story.dataset.data
    yield "<h2>What it learned from</h2>"
    yield _pairs(
        {
            "Recorded": f"from {_when(data.first_wall)} to {_when(data.last_wall)}",
            "Machines": f"{len(story.course.machines)}: {', '.join(story.course.machines)}",
            "Ticks": f"{data.ticks:,} of {dataset.interval:g} s, together {duration(data.ticks * dataset.interval)}: at each, "
            "every process was looked at once",
            "Processes": f"up to {data.processes:,} at a time",
            "Groups": f"{data.groups:,} that did something: a group is a program, a service, a container or a pool of workers",
            "Series": f"{len(dataset.runs):,} stretches of a group's CPU demand (what it ran, and waited for a CPU, in cores), "
            "memory, or offered load (workers that are busy, and work that waits)",
        }
    )


def _demand(story: Story) -> Iterator[str]:
    (result,) = (result for result in story.results if result.demand is not None)
    table, interval = result.demand, story.dataset.interval
    assert table is not None
    pictures, number = available(), 0
    ahead = ", ".join(f"{h * interval:g}" for h in HORIZONS)
    yield "<h2>Demand: how good the forecasts are</h2>"
    yield (
        f"<p>At every tick the model says of each group what it will want in {ahead} seconds: not one number but levels "
        f"(<b>quantiles</b>) that the value should stay at or below in {_listed(QUANTILES)} of all cases. The first is the middle; "
        "the upper ones are what nicety leaves room for.</p>"
    )
    yield (
        "<p>The <b>loss</b> of a forecast grows with its distance from what came, and more on the side that its level calls rare "
        "(quantile or pinball loss); 0 is perfect. The <b>score</b> is the loss relative to saying “it stays as it is now”, over "
        "all horizons and metrics: below 1 is better than that, .5 is half the loss.</p>"
    )
    yield from _scores(table)
    if not pictures:
        yield (
            "<p><b>There are no pictures here</b>, because matplotlib is not installed. To get them: "
            "<code>pip install 'nicety[report]'</code>, then train again.</p>"
        )
    if pictures:
        yield "<h3>Loss by metric and horizon</h3>"
        yield "<p>Lower is better; 1 is what the last value loses. What loses more than twice that is cut off.</p>"
        number += 1
        yield f"<figure>{losses_svg(table, interval, number)}</figure>"
    yield "<details><summary>Loss and coverage of every forecaster, in figures</summary>"
    yield from _losses(table)
    yield "</details>"
    if story.evidence is None:
        return
    yield "<h3>Do the levels keep what they promise?</h3>"
    yield (
        "<p>At or below the 90 % level should lie 90 % of the values that came. More means room is wasted, fewer means groups are "
        "squeezed. The running daemon corrects its levels by what comes; these are without that.</p>"
    )
    if pictures:
        number += 1
        yield _key({"new model": OWN, "without a model": FALLBACK, "as promised": "#3d8b57"}, lines=(OWN, FALLBACK, "#3d8b57"))
        yield f"<figure>{coverage_svg(story.evidence, interval, number)}</figure>"
    rows = by_group(story.evidence)
    lively = moving(rows)
    if pictures and lively:
        yield from _fans(story.evidence, lively, interval, number)
    if rows:
        yield from _worst(lively, len(rows))
    if story.evidence.leans:
        yield "<h3>What the model leans on</h3>"
        yield (
            "<p>What the loss on held-out time would grow by, in percent, if the model were given this information of other "
            "moments instead (permutation importance; added up over the figures that belong together).</p>"
        )
        yield _leans(story.evidence, number + 1 + 2 * PICTURES) if pictures else _leans_table(story.evidence)


def _scores(table: DemandTable) -> Iterator[str]:
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
    yield _table(headers, rows, numbers=range(1, len(headers)), own=names.index(own), notes=[notes[name] for name in names])
    yield "<p class='small'>The last columns: the share of values at or below the level, which should be as large as its name.</p>"


def _losses(table: DemandTable) -> Iterator[str]:
    headers = ["metric", "forecaster", *(f"+{h}" for h in HORIZONS), *(f"≤ {_percent(level)}" for level in QUANTILES)]
    rows = []
    for metric in table.metrics():
        for name in table.forecasters():
            mine = {row.horizon: row for row in table.rows if (row.metric, row.forecaster) == (metric, name)}
            losses = [f"{mine[h].wql:.4f}" if h in mine else "" for h in HORIZONS]
            shares = [_percent(share, 1) for share in covered(list(mine.values()))]
            rows.append([METRIC_WORDS.get(metric, metric), name, *losses, *shares])
    yield "<p class='small'>Loss as a share of the values (wQL) so many ticks ahead; share of values at or below each level.</p>"
    yield _table(headers, rows, numbers=range(2, len(headers)))


def _fans(evidence: Backtest, rows: Sequence[GroupRow], interval: float, number: int) -> Iterator[str]:
    half = -(-len(rows) // 2)
    good = chosen(rows[:half], PICTURES, ("target", "metric"))
    bad = chosen(list(reversed(rows[half:])), PICTURES)
    yield "<h3>Forecasts beside what came</h3>"
    yield (
        "<p>The end of the held-out time of some series. At each dot the model was asked, knowing only what lies left of it; bars "
        "stand at the moments that it predicts, from the middle up to the 99 % level. What came should mostly pass through them, "
        "and rarely above. Axes do not begin at 0 where values stay far from it.</p>"
    )
    yield _key(
        {
            "what came": ACTUAL,
            "predicted: the middle": OWN,
            "up to the 90 % level": BANDS[0],
            "95 %": BANDS[1],
            "99 %": BANDS[2],
            "95 % level without a model": FALLBACK,
        },
        lines=(ACTUAL, OWN, FALLBACK),
    )
    for title, chosen_rows in (("Where it gains most", good), ("Where it gains least, or loses", bad)):
        if chosen_rows:
            yield f'<h3>{title}</h3><div class="fans">'
            for row in chosen_rows:
                number += 1
                yield (
                    f"<figure><figcaption><b>{escape(row.target)}</b>, {METRIC_WORDS.get(row.metric, escape(row.metric))}: "
                    f"{_against(row)}</figcaption>{fan_svg(fan(evidence, row), interval, number)}</figure>"
                )
            yield "</div>"


def _worst(rows: Sequence[GroupRow], of: int) -> Iterator[str]:
    yield "<h3>Groups that it does worst on</h3>"
    losers = sum(row.ratio > 1 for row in rows)
    yield (
        f"<p>Of {of:,} series with enough held-out forecasts {of - len(rows):,} stand still (even without a model less than "
        f"{_percent(STILL, 1)} is lost); of the others {len(rows) - losers:,} are forecast better than without a model, {losers:,} "
        "worse. Loss is a share of the values; relative loss below 1 is better than without a model.</p>"
    )
    headers = ("group", "what", "forecasts", "loss", "without a model", "relative", "≤ 95 % level")
    yield _table(
        headers,
        [
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
        ],
        numbers=range(2, 7),
    )


def _leans(evidence: Backtest, number: int) -> str:
    return f'<figure class="narrow">{leans_svg(evidence.leans, number)}</figure>'


def _leans_table(evidence: Backtest) -> str:
    from .evidence import leans

    return _table(("figures", "more loss"), [[name, _percent(share, 1)] for name, share in leans(evidence.leans)], numbers=(1,))


def _anomaly(rows: Sequence[AnomalyRow]) -> Iterator[str]:
    yield "<h2>Anomalies: faults that were put into healthy workers</h2>"
    yield (
        "<p>Into recorded workers of held-out time faults were put, of which it should find all, soon, and raise no alarm "
        "elsewhere. The baseline compares each worker with its siblings by a fixed rule.</p>"
    )
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
    yield _table(headers, cells, numbers=range(1, 9))


def _behaviour(found: BehaviourTable) -> Iterator[str]:
    yield "<h2>Behaviour: what groups are taken for</h2>"
    yield "<p>Groups whose class the configuration says, in held-out time. To take a service for batch work is the worst error.</p>"
    models = [[name, f"{found.loss(name):.3f}", f"{found.harm(name):,}"] for name in found.models()]
    yield _table(("model", "loss", "services taken for batch"), models, numbers=(1, 2))
    cells = [
        [row.model, row.program, str(row.latency), str(row.said), _percent(row.p_latency), _percent(row.p_batch), f"{row.loss:.3f}"]
        for row in found.rows
    ]
    yield _table(("model", "group", "is", "taken for", "probability: latency", "batch", "loss"), cells, numbers=(4, 5, 6))


def _left_out(story: Story) -> Iterator[str]:
    course = story.course
    said = [*course.left_out, *course.cut, *course.lost, *story.dataset.skipped]
    if said:
        yield "<h2>What is not in it</h2><ul>"
        yield from (f'<li class="name">{escape(it)}</li>' for it in said)
        yield "</ul>"


def _card(card: Card) -> Iterator[str]:
    yield f"<h2>Card of the {escape(card.kind)} model</h2>"
    yield (
        "<p>What is stored beside a model and checked before it is used; <code>card.json</code> in its folder has the same, and "
        "the table of held-out time.</p>"
    )
    plain = asdict(card)
    data = plain.pop("data")
    plain.pop("metrics")
    features = plain.pop("features")
    pairs: dict[str, Any] = {
        **{
            f"data: {name.replace('_', ' ')}": f"{value} ({_when(value)})" if name.endswith("wall") else value
            for name, value in data.items()
        },
        **{name.replace("_", " "): value for name, value in plain.items()},
        "created": _when(card.created),
        "features": f"{len(features)}: {', '.join(features)}",
    }
    yield _pairs({name: ", ".join(map(str, it)) if isinstance(it, tuple) else str(it) for name, it in pairs.items() if it != ""})


# --- parts of a page ----------------------------------------------------------------------------------------------------------


def _table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    numbers: Sequence[int] = (),
    own: int | None = None,
    notes: Sequence[str] = (),
) -> str:
    """A table; `numbers`: columns of figures, `own`: the row to highlight, `notes`: below the first cell of each row."""

    def cells(tag: str, row: Sequence[str], note: str = "") -> str:
        looks = ("n" if at in numbers else "name" for at in range(len(row)))
        texts = [escape(cell) for cell in row]
        texts[0] += f"<small>{escape(note)}</small>" if note else ""
        return "".join(f'<{tag} class="{look}">{text}</{tag}>' for look, text in zip(looks, texts, strict=True))

    body = "".join(
        f"<tr{' class=own' if at == own else ''}>{cells('td', row, notes[at] if notes else '')}</tr>" for at, row in enumerate(rows)
    )
    look = ' class="notes"' if notes else ""
    return f'<div class="wide"><table{look}><thead><tr>{cells("th", headers)}</tr></thead><tbody>{body}</tbody></table></div>'


def _pairs(pairs: Mapping[str, str]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs.items()) + "</dl>"


def _key(colours: Mapping[str, str], lines: Sequence[str] = ()) -> str:
    """What colours mean."""
    marks = ((what, it, ' class="line"' if it in lines else "") for what, it in colours.items())
    return (
        '<p class="key small">'
        + "".join(f'<span><i{look} style="background:{it}"></i>{what}</span>' for what, it, look in marks)
        + "</p>"
    )


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
