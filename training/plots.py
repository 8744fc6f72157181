"""The pictures of the report as SVG text, drawn by matplotlib (extra `report`). Knows figures, not where they are shown.

Must not draw names from traces. The page shows those, because it escapes them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..models.forecast.baseline import BASELINES
from ..models.records import HORIZONS, QUANTILES
from .evaluate import DemandTable
from .evidence import UPPER, Backtest, Fan, Floats, coverage, leans

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACTUAL, OWN, FALLBACK, PROMISED, GRID = "#1d1d1f", "#1f5fbf", "#d9822b", "#3d8b57", "#d8dce2"
"""Colours of the actual values, the model, the forecast without a model, the exact level, and the grid. Chosen: the colour-blind
can tell them apart too."""

METRIC_WORDS: Mapping[str, str] = MappingProxyType({"cpu": "CPU demand", "rss": "memory", "load": "load of pools"})

BANDS = ("#7ea6e0", "#aec8ee", "#dbe7f8")
"""Colours between the quantiles, from the inside out (chosen)."""

ANCHOR = BASELINES[0].name
"""The forecaster that losses are shown relative to, as in `DemandTable.score`."""

OTHERS = ("#8c8c8c", "#6b9080", "#b08ea2", "#a4a86a", "#7d8ca3", "#c2a68c", "#5f5f5f", "#9cc4c4")
"""Colours of the other forecasters, in the order of the table (chosen)."""

_STYLE = {
    "svg.fonttype": "none",  # text stays text: smaller, and readable by a screen reader
    "svg.hashsalt": "nicety",  # the same figures give the same bytes
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial", "sans-serif"],
    "font.size": 10,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8f98",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": "#4a4f57",
    "ytick.color": "#4a4f57",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def available() -> bool:
    """Whether matplotlib is installed."""
    try:
        import matplotlib.figure  # noqa: F401 - to see whether it is there
    except ImportError:
        return False
    return True


def fan_svg(fan: Fan, interval: float, number: int) -> str:
    """A series with its forecasts and actual values. `number`: of the picture on the page."""
    with _figure(5.6, 2.5, number) as (figure, done):
        axes = figure.subplots()
        scale, unit = _scale(fan)
        values = fan.values.astype(np.float64) / scale
        ticks = np.arange(len(values)) * interval
        axes.plot(ticks, values, color=ACTUAL, linewidth=1.2, zorder=4)
        for forecast in fan.forecasts:
            at = np.array([0, *HORIZONS]) * interval + ticks[forecast.at]
            now = values[forecast.at]
            said = np.vstack([np.full(len(QUANTILES), now), forecast.said / scale])
            for q, colour in enumerate(BANDS[: len(QUANTILES) - 1]):
                axes.fill_between(at, said[:, q], said[:, q + 1], color=colour, linewidth=0, alpha=0.4, zorder=2)
                axes.bar(at[1:], said[1:, q + 1] - said[1:, q], 1.4 * interval, said[1:, q], color=colour, zorder=3)
            axes.plot(at[1:], said[1:, 0], color=OWN, linewidth=0, marker="_", markersize=6, markeredgewidth=2, zorder=5)
            base = forecast.baseline[:, UPPER] / scale
            axes.plot(at[1:], base, color=FALLBACK, linewidth=0, marker="_", markersize=6, markeredgewidth=1.5, zorder=5)
            axes.plot(at[:1], [now], marker="o", markersize=5, color=OWN, zorder=6)
        axes.set_ylim(*_reach(values, [forecast.said / scale for forecast in fan.forecasts]))
        axes.set_xlim(0, ticks[-1] + interval)
        axes.locator_params(axis="y", nbins=5)  # otherwise ticks and the size of the axes depend on each other
        axes.set_xlabel("seconds")
        axes.set_ylabel(unit)
    return done[0]


def coverage_svg(evidence: Backtest, interval: float, number: int) -> str:
    """How many values stayed at or below each level, by horizon, beside how many should."""
    own, base = coverage(evidence.targets, evidence.said), coverage(evidence.targets, evidence.baseline)
    with _figure(9.2, 2.7, number) as (figure, done):
        panels = figure.subplots(1, len(QUANTILES))
        for q, (axes, level) in enumerate(zip(panels, QUANTILES, strict=True)):
            axes.axhspan(100 * level - 2, min(100 * level + 2, 100), color="#e4efe6", linewidth=0, zorder=0)
            axes.axhline(100 * level, color=PROMISED, linewidth=1.2, zorder=2)
            axes.plot(_horizons(axes, interval), 100 * base[:, q], color=FALLBACK, linestyle=(0, (4, 2)), marker="o", markersize=3)
            axes.plot(_horizons(axes, interval), 100 * own[:, q], color=OWN, linewidth=1.8, marker="o", markersize=4)
            found = [100 * level - 4, 100 * level + 4, *(100 * own[:, q]), *(100 * base[:, q])]
            axes.set_ylim(np.nanmin(found) - 1, min(np.nanmax(found) + 1, 100.6))
            axes.set_title(f"{100 * level:g} % level", fontsize=10)
            axes.set_xlabel("seconds ahead")
        panels[0].set_ylabel("values at or below it, %")
    return done[0]


def losses_svg(table: DemandTable, interval: float, number: int) -> str:
    """The loss of every forecaster by metric and horizon, relative to the last value's."""
    names, metrics = table.forecasters(), table.metrics()
    loss = {(row.forecaster, row.metric, row.horizon): row.wql for row in table.rows}
    with _figure(9.2, 3.1, number) as (figure, done):
        panels = np.atleast_1d(figure.subplots(1, len(metrics), sharey=True))
        for axes, metric in zip(panels, metrics, strict=True):
            for place, name in enumerate(names):
                y = [_ratio(loss.get((name, metric, h)), loss.get((ANCHOR, metric, h))) for h in HORIZONS]
                style: dict[str, Any] = {"color": OTHERS[place % len(OTHERS)], "linewidth": 1.1, "marker": "o", "markersize": 2.5}
                if place == 0:
                    style = {"color": OWN, "linewidth": 2.4, "marker": "o", "markersize": 4, "zorder": 5}
                elif name.startswith("running"):
                    style |= {"color": "#3d8b57", "linewidth": 1.8}
                elif name == "experts":
                    style |= {"color": FALLBACK, "linewidth": 1.8, "linestyle": (0, (4, 2))}
                axes.plot(_horizons(axes, interval), y, label=name, **style)
            axes.set_title(METRIC_WORDS.get(metric, metric), fontsize=10)
            axes.set_xlabel("seconds ahead")
        panels[0].set_ylim(0, _top(loss))
        panels[0].set_ylabel(f"loss, {ANCHOR} = 1")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=9)
    return done[0]


def leans_svg(found: Mapping[str, float], number: int) -> str:
    """What the model relies on, in groups of columns."""
    groups = leans(found)[::-1]
    with _figure(7.2, 0.5 + 0.32 * len(groups), number) as (figure, done):
        axes = figure.subplots()
        shares = [100 * share for _, share in groups]
        axes.barh(range(len(groups)), shares, color=OWN, height=0.62)
        axes.set_yticks(range(len(groups)), [name for name, _ in groups])
        for at, share in enumerate(shares):
            axes.text(max(share, 0), at, f"  {share:.1f}", va="center", fontsize=9, color="#4a4f57")
        axes.set_xlim(min(0, *shares), max(1, *shares) * 1.12)
        axes.set_xlabel("more loss if this is shuffled, %")
        axes.grid(visible=False, axis="y")
    return done[0]


@contextmanager
def _figure(width: float, height: float, number: int) -> Iterator[tuple[Figure, list[str]]]:
    """(a figure of so many inches, the list that gets its SVG at the end)."""
    import matplotlib
    from matplotlib.figure import Figure

    done: list[str] = []
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a matplotlibrc in the working directory can have LaTeX run
        matplotlib.rcParams.update(_STYLE)  # type: ignore[arg-type]  # its keys are a literal type there
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, done
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        done.append(_inline(file.getvalue(), number))


def _inline(svg: str, number: int) -> str:
    """The SVG to be put into a page: without the XML head, and with ids that are unique on the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\bid="([^"]+)"', rf'id="p{number}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#p{number}-\1)", svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#p{number}-\1"', svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'role="img"', svg, count=1).strip()


def _horizons(axes: Axes, interval: float) -> range:
    """Evenly spread places of the horizons, with their seconds as ticks."""
    places = range(len(HORIZONS))
    axes.set_xticks(places, [f"{h * interval:g}" for h in HORIZONS])
    return places


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
