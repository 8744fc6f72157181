"""Workers far above their siblings in a way that has no name. Pure."""

from __future__ import annotations

import math

import numpy as np

from ..features import Floats
from ..records import WINDOW
from .evidence import DEMAND_FLOOR, ENOUGH, MIB, SEEN_SHARE, Found, WindowView

OUTLIER_TICKS, OUTLIER_SECONDS, OUTLIER_TIMES = 30, 60.0, 4.0
"""Span of the outlier test, in ticks and in seconds: the longest of all, so that named kinds come first. And the least factor above
the siblings' median. Chosen; a lower factor gives alarms for what does not matter (docs/decisions/0010-what-does-not-matter.md)."""

MAD_TO_DEVIATION = 1.4826
"""Standard deviation of a normal distribution in median absolute deviations: 1 / 0.6745, its 75 % quantile."""

TRAITS: tuple[tuple[str, float, float], ...] = (
    ("rss", 16 * MIB, 0.2),
    ("fds", 16.0, 0.2),
    ("threads", 8.0, 0.2),
    ("demand", 0.05, 0.5),
    ("chars_per_cpu", 65_536.0, 0.5),
    ("slices_per_cpu", 100.0, 0.5),
)
"""What the outlier test compares: name, unit below which differences vanish (values are log1p(x / unit)), least spread on that
scale (units and spreads are chosen: what healthy workers of one pool differ by). Work is compared per CPU second: balancers that
prefer one worker are healthy (an epoll set wakes the last sleeper first)."""


def outlier(view: WindowView) -> Found:
    """Far above the siblings in a trait, in both halves of a long span: robust z (median, MAD) of logarithms. Needs 3 workers.

    Only upwards: a worker that does less than the others has less to do, or is stuck, which is a kind of its own.
    """
    half = min(max(OUTLIER_TICKS, math.ceil(OUTLIER_SECONDS / view.interval)), WINDOW) // 2
    value = _traits(view, slice(WINDOW - half, WINDOW))
    enough = view.siblings.total(np.isfinite(value[0])) >= ENOUGH
    seen = enough & np.isfinite(value).any(axis=0)
    if not seen.any():
        return view.quiet(seen)
    apart = value - view.siblings.pool_median(value)
    near = (apart >= view.least * math.log(OUTLIER_TIMES)).any(axis=0) & seen
    if near.any():
        older = _traits(view, slice(WINDOW - 2 * half, WINDOW - half))
        older -= view.siblings.pool_median(older)
        near &= (np.minimum(older, apart) >= view.least * math.log(OUTLIER_TIMES)).any(axis=0)
    return view.closely(seen, near, lambda part: _outlier_closely(part, half))


def _traits(view: WindowView, at: slice) -> Floats:
    """[len(TRAITS), n] on the scale on which they are compared."""
    rss, fds, threads, cpu, wait, chars, timeslices = (
        view.mean(name, at, SEEN_SHARE) for name in ("rss", "fds", "threads", "cpu", "wait", "chars", "timeslices")
    )
    per_cpu = cpu + wait + DEMAND_FLOOR
    traits = np.array([rss, fds, threads, cpu + wait, chars / per_cpu, timeslices / per_cpu])
    return np.asarray(np.log1p(traits / np.array([unit for _, unit, _ in TRAITS])[:, None]))


def _outlier_closely(view: WindowView, half: int) -> Found:
    siblings = view.siblings
    spreads = np.array([spread for _, _, spread in TRAITS])[:, None]
    lowest = times = np.full((len(TRAITS), view.n), np.inf)
    for at in (slice(WINDOW - 2 * half, WINDOW - half), slice(WINDOW - half, WINDOW)):
        value = _traits(view, at)
        apart = value - siblings.pool_median(value)
        lowest = np.minimum(lowest, apart / np.maximum(MAD_TO_DEVIATION * siblings.pool_median(np.abs(apart)), spreads))
        times = np.minimum(times, apart)
    enough = siblings.total(np.isfinite(lowest[0])) >= ENOUGH
    best = np.fmax.reduce(lowest, axis=0)
    size = np.where(np.nan_to_num(lowest, nan=-1.0) >= best, np.nan_to_num(times) / math.log(OUTLIER_TIMES), 0.0)
    everybody = np.arange(view.n)
    return Found(
        np.where(enough & np.isfinite(best), np.maximum(best, 0.0), np.nan),
        np.where(enough, size.max(axis=0), 0.0),
        everybody,
        {
            **{f"{name}_times_siblings": np.where(enough, np.exp(times[row]), np.nan) for row, (name, _, _) in enumerate(TRAITS)},
            **view.whom(everybody),
        },
    )
