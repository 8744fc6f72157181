"""The pictures of the report as SVG text. Knows figures, not where they are shown.

Must not draw names from traces: the page has those in text.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from ..models.forecast.baseline import BASELINES
from ..models.records import HORIZONS, QUANTILES
from .evaluate import DemandTable
from .evidence import UPPER, Backtest, Fan, Floats, coverage, leans
from .svg import CHARACTER, Panel, Picture, round_figures

ACTUAL, OWN, FALLBACK, PROMISED, NEAR = "actual", "own", "fallback", "promised", "near"
"""Colours of the actual values, the model, the forecast without a model, the exact level, and what is near it: `report.html` has
them, for light and dark."""

METRIC_WORDS: Mapping[str, str] = MappingProxyType({"cpu": "CPU demand", "rss": "memory", "load": "load of pools"})

BANDS = ("inner", "middle", "outer")
"""Colours between the quantiles, from the inside out."""

ANCHOR = BASELINES[0].name
"""The forecaster that losses are shown relative to, as in `DemandTable.score`."""

OTHERS = 8
"""Colours of the other forecasters, "other0" and so on, in the order of the table; the ninth has the first again (chosen)."""

COLOURS = (ACTUAL, OWN, FALLBACK, PROMISED, NEAR, *BANDS, *(f"other{at}" for at in range(OTHERS)))
"""All of them."""

WIDTH = 920.0
"""Units of a picture as wide as the page. Chosen: letters of 12 units then have about the size of small text."""


def fan_svg(fan: Fan, interval: float, number: int) -> str:
    """A series with its forecasts and actual values. `number`: of the picture on the page."""
    scale, unit = _scale(fan)
    values = fan.values.astype(np.float64) / scale
    low, high = _reach(values, [forecast.said / scale for forecast in fan.forecasts])
    ticks = np.arange(len(values)) * interval
    end = float(ticks[-1]) + interval
    picture = Picture(
        number,
        460,
        210,
        f"Forecasts beside what came, {METRIC_WORDS.get(fan.row.metric, fan.row.metric)}",
        f"{len(fan.forecasts)} forecasts over {end:.0f} s; the values reach from {values.min():.3g} to {values.max():.3g} {unit}.",
    )
    panel = Panel(picture, 62, 10, 388, 155, (0, end), (low, high))
    panel.axes(round_figures(0, end, 6), round_figures(low, high, 5), "seconds", unit)
    with panel.inside():
        for forecast in fan.forecasts:
            at = [float(ticks[forecast.at] + h * interval) for h in (0, *HORIZONS)]
            said = np.vstack([np.full(len(QUANTILES), values[forecast.at]), forecast.said / scale]).tolist()
            for q, colour in enumerate(BANDS[: len(QUANTILES) - 1]):
                lower, upper = ([(x, row[level]) for x, row in zip(at, said, strict=True)] for level in (q, q + 1))
                panel.band(lower, upper, f"faint {colour}")
                for x, row in zip(at[1:], said[1:], strict=True):
                    panel.box((x - 0.7 * interval, x + 0.7 * interval), (row[q], row[q + 1]), colour)
        panel.line(zip(ticks.tolist(), values.tolist(), strict=True), ACTUAL)
        for forecast in fan.forecasts:
            at = [float(ticks[forecast.at] + h * interval) for h in HORIZONS]
            panel.strokes(zip(at, (forecast.baseline[:, UPPER] / scale).tolist(), strict=True), 3.5, FALLBACK)
            panel.strokes(zip(at, (forecast.said[:, 0] / scale).tolist(), strict=True), 3.5, f"{OWN} thick")
            panel.dots([(float(ticks[forecast.at]), float(values[forecast.at]))], 3.5, OWN)
    return picture.text


def coverage_svg(evidence: Backtest, interval: float, number: int) -> str:
    """How many values stayed at or below each level, by horizon, beside how many should."""
    own, base = (coverage(evidence.targets, said) * 100.0 for said in (evidence.said, evidence.baseline))
    means = ", ".join(f"{np.nanmean(own[:, q]):.1f} % at the {100 * level:g} % level" for q, level in enumerate(QUANTILES))
    picture = Picture(number, WIDTH, 240, "Values at or below each level, by horizon", f"New model, mean of the horizons: {means}.")
    every = (WIDTH - 50) / len(QUANTILES)
    for q, level in enumerate(QUANTILES):
        right, left = 100 * level, 50 + q * every
        found = [right - 4, right + 4, *own[:, q].tolist(), *base[:, q].tolist()]
        low, high = float(np.nanmin(found)) - 1, min(float(np.nanmax(found)) + 1, 100.6)
        panel = Panel(picture, left + 10, 30, every - 50, 160, (-0.4, len(HORIZONS) - 0.6), (low, high))
        with panel.inside():
            panel.box((-0.4, len(HORIZONS) - 0.6), (right - 2, min(right + 2, 100)), NEAR)
        panel.axes(_horizons(interval), round_figures(low, high, 6), "seconds ahead", "values at or below it, %" if q == 0 else "")
        picture.say(left + 10 + (every - 50) / 2, 18, f"{right:g} % level", "middle", "head")
        with panel.inside():
            panel.line([(-0.4, right), (len(HORIZONS) - 0.6, right)], PROMISED)
            panel.line(enumerate(base[:, q].tolist()), f"{FALLBACK} dashed")
            panel.dots(enumerate(base[:, q].tolist()), 2.5, FALLBACK)
            panel.line(enumerate(own[:, q].tolist()), f"{OWN} thick")
            panel.dots(enumerate(own[:, q].tolist()), 3.5, OWN)
    return picture.text


def losses_svg(table: DemandTable, interval: float, number: int) -> str:
    """The loss of every forecaster by metric and horizon, relative to the last value's."""
    names, metrics = table.forecasters(), table.metrics()
    loss = {(row.forecaster, row.metric, row.horizon): row.wql for row in table.rows}
    scores = ", ".join(f"{name} {table.score(name):.2f}" for name in sorted(names, key=table.score))
    height = max(300.0, 60 + 20.0 * len(names))
    summary = f"Score of each forecaster over all of them, lower is better: {scores}."
    picture = Picture(number, WIDTH, height, "Loss by metric and horizon", summary)
    legend = 40 + CHARACTER * max(map(len, names))
    every, top = (WIDTH - 50 - legend) / len(metrics), _top(loss)
    for place, metric in enumerate(metrics):
        left = 50 + place * every
        panel = Panel(picture, left + 10, 30, every - 40, height - 80, (-0.3, len(HORIZONS) - 0.7), (0, top))
        panel.axes(_horizons(interval), round_figures(0, top, 6), "seconds ahead", f"loss, {ANCHOR} = 1" if place == 0 else "")
        picture.say(left + 10 + (every - 40) / 2, 18, METRIC_WORDS.get(metric, metric), "middle", "head")
        with panel.inside():
            for at, name in reversed(list(enumerate(names))):  # the model last, above the others
                ratios = [_ratio(loss.get((name, metric, h)), loss.get((ANCHOR, metric, h))) for h in HORIZONS]
                panel.line(enumerate(ratios), _look(at, name))
                panel.dots(enumerate(ratios), 3.5 if at == 0 else 2.2, _look(at, name).partition(" ")[0])
    for at, name in enumerate(names):
        x, y = WIDTH - legend + 10, 40 + 20 * at
        picture.add(f'<line class="line {_look(at, name)}" x1="{x:.1f}" x2="{x + 22:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        picture.say(x + 28, y + 4, name)
    return picture.text


def leans_svg(found: Mapping[str, float], number: int) -> str:
    """What the model relies on, in groups of columns."""
    groups = [(name, 100 * share) for name, share in leans(found)]
    height = 26.0 * len(groups)
    said = f"{groups[0][0]} most: {groups[0][1]:.1f} % more loss without it." if groups else "Nothing."
    picture = Picture(number, WIDTH, height + 60, "What the model relies on", said)
    left = 20 + CHARACTER * max((len(name) for name, _ in groups), default=0)
    low, high = min(0.0, *(share for _, share in groups), 0.0), max(1.0, *(share for _, share in groups), 1.0)
    panel = Panel(picture, left, 10, WIDTH - left - 60, height, (low, high), (len(groups), 0))
    panel.axes(round_figures(low, high, 8), [], "more loss if this is shuffled, %")
    for at, (name, share) in enumerate(groups):
        y = 10 + 26.0 * (at + 0.5)
        begin, end = sorted((panel.x(0), panel.x(share)))
        picture.say(left - 8, y + 4, name, "end")
        picture.add(f'<rect class="fill {OWN}" x="{begin:.1f}" y="{y - 8:.1f}" width="{end - begin:.1f}" height="16"/>')
        picture.say(max(panel.x(0), panel.x(share)) + 6, y + 4, f"{share:.1f}")
    return picture.text


def _look(at: int, name: str) -> str:
    """The colour of a forecaster and how its line is drawn. `at`: its place in the table; the model is the first."""
    if at == 0:
        return f"{OWN} thick"
    if name.startswith("running"):
        return PROMISED
    return f"{FALLBACK} dashed" if name == "experts" else f"other{at % OTHERS}"


def _horizons(interval: float) -> list[tuple[float, str]]:
    """Evenly spread places of the horizons, with their seconds."""
    return [(float(place), f"{h * interval:g}") for place, h in enumerate(HORIZONS)]


def _scale(fan: Fan) -> tuple[float, str]:
    """(what a value is divided by, its unit)."""
    if fan.row.metric != "rss":
        return 1.0, "cores" if fan.row.metric == "cpu" else "busy workers"
    return (2.0**30, "GiB") if float(fan.values.max()) >= 2**30 else (2.0**20, "MiB")


def _reach(values: Floats, forecasts: list[Floats]) -> tuple[float, float]:
    """Ends of the axis of a series. It begins at 0 if values come near 0. A far 99 % level is cut off, or the rest would be a
    line."""
    likely = max([float(values.max()), *(float(said[:, UPPER].max()) for said in forecasts)])
    high = max([likely, *(min(float(said.max()), 1.4 * likely) for said in forecasts)])
    low = min([float(values.min()), *(float(said.min()) for said in forecasts)])
    low = 0.0 if low < 0.5 * high else low
    room = 0.06 * (high - low) or 1.0
    return (low - room if low else 0.0), high + room


def _ratio(loss: float | None, anchor: float | None) -> float:
    return float("nan") if loss is None or anchor is None else (loss + 1e-4) / (anchor + 1e-4)


def _top(loss: Mapping[tuple[str, str, int], float]) -> float:
    """Upper end of the axes: forecasters that lose far more are cut off, so that the others stay apart."""
    ratios = [_ratio(found, loss.get((ANCHOR, metric, horizon))) for (_, metric, horizon), found in loss.items()]
    return float(np.clip(np.nanmax([1.0, *ratios]) * 1.05, 1.1, 2.0))
