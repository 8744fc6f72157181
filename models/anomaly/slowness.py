"""Workers that need far more CPU or time than their siblings for the same work. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..features import Floats
from ..records import WINDOW
from .evidence import ENOUGH, NEAR, SEEN_SHARE, Found, WindowView, ratio
from .siblings import Ints

SLOW_PIECE = 3.0
"""Seconds of a piece of the slowness test. Shorter pieces hold too few requests to compare. In longer ones one large request after
another looks as if all were slow. Chosen, as the constants below, which belong together: `python -m benchmarks.anomaly.campaign`
finds 4 of 4 workers slow by CPU, 5 of 9 below a tenth of a core, and 1 of 5 slow by a backend. They balance those against large
requests."""

SLOW_TIMES = 3.0
"""Least factor that matters (chosen; docs/decisions/0010-what-does-not-matter.md says why there is one)."""

SLOW_PIECE_TIMES = 2.0
"""Factor from which a piece counts as slow (chosen: below SLOW_TIMES, because pieces scatter around the mean)."""


@dataclass(frozen=True, slots=True)
class _Slowness:
    """How long to watch workers that take this much."""

    pieces: int  # length of the span
    share: float  # of the pieces in which the worker did anything, that must be slow: large requests are healthy, and fill some
    cpu: float  # least cores
    busy: float  # least share of the time that it is busy without waiting for a CPU

    @property
    def takes(self) -> Floats:
        """[2, 1] least that a slow worker takes."""
        return np.array([[self.cpu], [self.busy]])


SLOWNESS = (
    _Slowness(10, 0.8, 0.1, 0.5),
    # A worker that takes 1 % of a core for what siblings do in 0.2 % will take all of it when the load comes. How long requests
    # last is known from some ten probes a second, so a twentieth of the span is some 20 sightings.
    _Slowness(16, 0.7, 0.01, 0.05),
)
"""Lower limits need a longer time: they rest on fewer requests, and requests differ (chosen)."""

SLOW_SHOWN = 0.6
"""Share of all pieces of the span that must be slow, counting those in which the worker did nothing (chosen)."""

SLOW_FLOOR = 0.25
"""Siblings are taken to use at least this share of what a slow worker uses at least: smaller amounts are timers, health checks and
rounding (chosen)."""

SLOW_SPREAD = 0.25
"""Least scatter of a piece, as a share of what siblings take in one: requests differ (chosen)."""

SLOW_CHARS, SLOW_SLICES = 128.0, 10.0
"""Work a second below which its cost says nothing: bytes, or times put on a CPU where bytes are not known (chosen)."""

WHOLE = 1e5
"""Resolution of what pieces took, as whole numbers: sums of squares over thousands of workers fit into 53 bits."""


def slow(view: WindowView) -> Found:
    """Takes much more CPU, or is busy for much longer, than siblings for the same work, nearly throughout a span, and beyond the
    scatter of the siblings' own pieces. Needs three workers: nothing says how long a single one's work should take."""
    seen, near = np.zeros(view.n, dtype=np.bool_), np.zeros(view.n, dtype=np.bool_)
    for how in SLOWNESS:
        costs, usual, takes, _ = _costs(view, how)
        seen |= ~view.few & np.isfinite(costs).any(axis=0)
        near |= ((takes >= how.takes) & (costs >= NEAR * SLOW_TIMES * usual)).any(axis=0)
    return view.closely(seen, near, _slow_closely)


def _slow_span(view: WindowView, how: _Slowness) -> tuple[int, slice]:
    """(ticks of a piece, the whole span)."""
    ticks = min(max(math.ceil(SLOW_PIECE / view.interval), 1), WINDOW // max(how.pieces for how in SLOWNESS))
    return ticks, slice(WINDOW - how.pieces * ticks, WINDOW)


def _takes(cpu: Floats, busy: Floats, wait: Floats) -> Floats:
    """[..., 2, n] cores run, and share of the time busy without waiting for a CPU."""
    return np.stack([cpu, busy - np.minimum(wait, busy)], axis=-2)


def _costs(view: WindowView, how: _Slowness) -> tuple[Floats, Floats, Floats, Floats]:
    """CPU and busy time for the work, as four arrays; NaN where too little is done to say.

    [2, n] CPU seconds for a unit of work, and seconds busy without waiting for a CPU, at least the floor; [2, n] what is usual
    among siblings; [2, n] what is taken; [n] units of work a second.

    Work is bytes moved where those are known of all siblings, else times put on a CPU.
    """
    _, span = _slow_span(view, how)
    cpu, busy, wait, chars, timeslices = (
        view.mean(name, span, SEEN_SHARE) for name in ("cpu", "busy", "wait", "chars", "timeslices")
    )
    by_bytes = ~view.siblings.anywhere(np.isnan(chars))
    work = np.where(by_bytes, chars, timeslices)
    work = np.where(work >= np.where(by_bytes, SLOW_CHARS, SLOW_SLICES), work, np.nan)
    takes, least = _takes(cpu, busy, wait), SLOW_FLOOR * how.takes
    # an almost idle worker waits most when it is woken, before it is busy: so what siblings waited is not subtracted
    usual = view.siblings.median(np.maximum(_takes(cpu, busy, np.zeros(view.n)), least) / work)
    return np.maximum(takes, least) / work, usual, takes, work


def _slow_closely(view: WindowView) -> Found:
    said = [_slow_over(view, how) for how in SLOWNESS]
    scores, sizes, figures = (np.array(part) for part in zip(*said, strict=True))
    which, everybody = np.nan_to_num(scores, nan=-1.0).argmax(axis=0), np.arange(view.n)
    cpu, busy, cores, share, work, seconds = figures[which, :, everybody].T
    return Found(
        scores[which, everybody],
        sizes[which, everybody],
        everybody,
        {
            "cpu_for_the_same_work_times_siblings": cpu,
            "busy_for_the_same_work_times_siblings": busy,
            "cpu_cores": cores,
            "busy_share": share,
            "work_per_second": work,
            "seconds": seconds,
            **view.whom(everybody),
        },
    )


def _slow_over(view: WindowView, how: _Slowness) -> tuple[Floats, Floats, Floats]:
    """([n] scores, [n] sizes, [6, n] figures) for one span. A score is what a worker took beyond what its siblings would have, in
    standard deviations of the same for siblings."""
    siblings, (ticks, span) = view.siblings, _slow_span(view, how)
    costs, usual, takes, work = _costs(view, how)
    times, least = costs / usual, SLOW_FLOOR * how.takes
    cpu, busy, wait, chars, timeslices = (
        view.pieces(name, ticks, SEEN_SHARE) for name in ("cpu", "busy", "wait", "chars", "timeslices")
    )
    taken = _takes(cpu, busy, wait)  # [pieces, 2, n]
    done = np.where(siblings.anywhere(np.isnan(view.mean("chars", span, SEEN_SHARE))), timeslices, chars)[:, None]
    fair = usual * done
    known = np.isfinite(taken) & np.isfinite(done)

    lately = slice(-how.pieces, None)
    worked = (known & ((done > 0) | (taken >= least)))[lately]
    longer = worked & (taken >= SLOW_PIECE_TIMES * np.maximum(fair, least))[lately]
    shown = np.count_nonzero(longer, axis=0)
    throughout = (shown >= how.share * np.count_nonzero(worked, axis=0)) & (shown >= SLOW_SHOWN * how.pieces)
    lasting = throughout & (takes >= how.takes)

    # squares of what siblings took beyond what they would have by the worker's `usual`; whole numbers: the same in any order
    most, highest_work = (siblings.highest(np.where(known, each, 0.0).max(axis=0)) for each in (taken, done))
    a, w = (_whole(np.where(known, each, 0.0), top) for each, top in ((taken, most), (done, highest_work)))
    pieces, aa, aw, ww = (siblings.sums(each.sum(axis=0)) for each in (known.astype(np.int64), a * a, a * w, w * w))
    slope = usual * ratio(highest_work, most)
    scatter = most / WHOLE * np.sqrt(ratio(np.maximum(aa - 2 * slope * aw + slope**2 * ww, 0.0), pieces))
    scatter = np.maximum(scatter, SLOW_SPREAD * np.maximum(usual * work, least))
    others = siblings.total(np.isfinite(costs)) - np.isfinite(costs)
    enough = ~view.few & (others >= ENOUGH - 1) & (pieces >= how.pieces)
    over = np.where(known, taken - fair, 0.0)[lately].sum(axis=0)
    beyond = over / (scatter * np.sqrt(np.maximum(np.count_nonzero(known[lately], axis=0), 1)))
    score = np.where(enough & np.isfinite(beyond), np.where(lasting, np.maximum(beyond, 0.0), 0.0), np.nan)
    size = np.where(lasting & (np.nan_to_num(score) > 0), np.nan_to_num(times) / SLOW_TIMES, 0.0)
    seconds = np.full(view.n, (span.stop - span.start) * view.interval)
    return np.fmax.reduce(score, axis=0), size.max(axis=0), np.array([*times, *takes, work, seconds])


def _whole(values: Floats, top: Floats) -> Ints:
    """Shares of `top` as whole numbers up to `WHOLE`."""
    return np.asarray(np.rint(WHOLE * values / np.where(top > 0, top, 1.0)), dtype=np.int64)
