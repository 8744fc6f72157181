"""Draws size against load with matplotlib (extra `report`). Must not know how the figures were made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..store.files import NamedFile, replacing
from .arrivals import LoadError
from .run import Figures

LOAD, WORKERS = "#d8dce2", "#1f5fbf"


def figure(**options: Any) -> Any:
    """An empty picture. Raises LoadError if matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise LoadError(
            "a plot needs matplotlib, which is not installed; in nicety's checkout, run: pip install '.[report]'"
        ) from None
    return Figure(**options)


def plot(path: Path | NamedFile, figures: Sequence[Figures]) -> None:
    """Draw size against load of each rule for the first seed, as PNG. Raises LoadError if matplotlib is missing, and StoreError if
    the file cannot be written."""
    figure()  # raises if it is missing
    import matplotlib.figure

    with matplotlib.rc_context(), replacing(path) as file:
        matplotlib.rcdefaults()  # a matplotlibrc in the working directory can have LaTeX run
        _drawn(figures).savefig(file, format="png", dpi=110)


def _drawn(figures: Sequence[Figures]) -> Any:
    """The picture."""
    shown = [each for each in figures if (each.seed, each.start_seconds) == (figures[0].seed, figures[0].start_seconds)]
    picture = figure(figsize=(11, 1.6 * len(shown) + 0.8), layout="constrained")
    for place, each in enumerate(shown):
        axes = picture.add_subplot(len(shown), 1, place + 1)
        minutes = np.arange(1, len(each.track.workers) + 1) / 60
        axes.fill_between(minutes, each.track.erlangs, color=LOAD, step="pre", linewidth=0)
        axes.plot(minutes, each.track.workers, color=WORKERS, linewidth=1.1, drawstyle="steps-pre")
        text = f"{each.rule} on {each.load}, start {each.start_seconds:g} s: p95 {each.p95:.3g} s, {each.workers:.1f} workers"
        axes.set_title(text, fontsize=9, loc="left", parse_math=False)
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, minutes[-1])
        axes.spines[["top", "right"]].set_visible(False)
        if place == len(shown) - 1:
            axes.set_xlabel("minutes; blue: workers, grey: offered load in Erlangs", fontsize=9)
    return picture
