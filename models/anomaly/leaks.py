"""What leaks: memory, descriptors and threads that keep growing beyond what the siblings hold. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..features import Floats, Singles
from ..records import WINDOW, Anomaly
from .evidence import AS_MUCH, MIB, NEAR, Found, WindowView, ratio
from .siblings import Flags

SEGMENTS = 8
"""Segments of a span of the leak test. The seven steps between them must mostly rise (chosen)."""

RISE, RISING, LEVELLING = 4, 0.7, 3
"""Lasting growth (chosen): a step rises if it is more than a RISE-th of the average step; at least RISING of the steps rise, so two
may stand still; and the later half has at least a LEVELLING-th of the growth, because a warm-up levels off."""

RISING_POWER = 4
"""Power of the share of rising steps in the score (chosen): a single step that does not rise costs nearly half of it."""

STEADY = 2.0
"""Steady growth: its largest step is at most this many times the average step (chosen). Crowds come at once, leaks with each
request."""

LEAK_WHOLE_SECONDS = 60.0
"""Shortest window believed without a past to compare with (chosen): collectors and caches oscillate with periods of up to a
minute."""


@dataclass(frozen=True, slots=True)
class Leaking:
    """What can leak, and the least growth that matters."""

    channel: str
    name: str  # in figures
    unit: float
    least_compared: float  # absolute, for workers whose siblings do as much
    least: float  # for those whose siblings do less: an idle sibling does not show that growth is unnecessary
    least_alone: float  # for those without siblings
    share: float  # of the worker's own level
    seconds: float  # shortest span
    weight: float  # of steady growth where siblings do as much and stand still; higher for counts, which stand still exactly
    young: bool  # whether siblings that stand still are enough evidence against a worker that is no older than the span


LEAKING: Mapping[Anomaly, Leaking] = {
    # The amounts are chosen: beyond what the comments below name, and reached before a machine is in trouble.
    # Allocators round up to arenas of 1 MiB, and to 64 MiB heaps of which a few MiB are touched; a large worker moves by a few %.
    # Loading one large request or result takes seconds, and the memory is given back.
    Anomaly.LEAK: Leaking("rss", "mib", MIB, 8 * MIB, 8 * MIB, 8 * MIB, 0.05, 12.0, 1.0, young=False),
    # Connections kept open come by dozens; crowds of clients come by hundreds within about ten seconds.
    Anomaly.FD_LEAK: Leaking("fds", "fds", 1.0, 16.0, 32.0, 128.0, 0.2, 24.0, 2.0, young=True),
    # Thread executors fill up to some dozens (Python's default: at most 32), one by one, one worker's before another's.
    Anomaly.THREAD_LEAK: Leaking("threads", "threads", 1.0, 10.0, 16.0, 64.0, 0.2, 24.0, 1.0, young=True),
}


def leak(view: WindowView, what: Leaking) -> Found:
    """A value that keeps reaching new heights, beyond what the siblings hold or gained.

    On trailing spans of several lengths: the lowest value of the last eighth, above the highest of the lowest values of all eighths
    before. Lowest values ignore what is held for a short time. A sawtooth (garbage collection, caches with expiry) returns to old
    heights. A span needs a past of its own length to compare with. Two exceptions need none: the whole window if it is long, and
    kinds with `young` among enough siblings. Without siblings only the whole window counts.
    """
    ticks, interval = view.ticks, view.interval
    seen = np.zeros(view.n, dtype=np.bool_)
    near = np.zeros(view.n, dtype=np.bool_)
    enough = _enough(view, what)
    unknown = view.seen(what.channel) is not None
    for length, least in _segments(view, what):
        whole = length * SEGMENTS == WINDOW and WINDOW * interval >= LEAK_WHOLE_SECONDS
        seen |= (ticks > WINDOW - length) if whole else _old_enough(view, what, length)
        if unknown:
            least = np.where(least < np.inf, least, np.float32(0.0))
        before = least[: 1 - SEGMENTS].max(axis=0)
        near |= least[-1] - before >= NEAR * np.maximum(enough, what.share * before)
    seen &= view.now(what.channel)
    return view.closely(seen, near, lambda part: _leak_closely(part, what))


def _old_enough(view: WindowView, what: Leaking, length: int) -> Flags:
    """[n] whether a span of this many ticks a segment can be compared: with a past of its own length, or with enough siblings."""
    span = length * SEGMENTS
    return ~view.alone & (view.ticks >= np.where(view.few | (not what.young), 2 * span, span))


def _witnessed(view: WindowView) -> Flags:
    """[n] whether it has two or more siblings that do as much."""
    bytes_, timeslices = (view.usual(name) >= AS_MUCH * view.mean(name) for name in ("chars", "timeslices"))
    return ~view.few & np.where(np.isnan(view.mean("chars")), timeslices, bytes_)


def _enough(view: WindowView, what: Leaking) -> Floats:
    """[n] least growth that matters, at any level."""
    return np.where(view.alone, what.least_alone, np.where(_witnessed(view), what.least_compared, what.least))


def _segments(view: WindowView, what: Leaking) -> list[tuple[int, Singles]]:
    """The spans of the leak test: (ticks per segment, lowest values [segments, n], infinite where none is known).

    Each span is a third or a half longer than the one before: what has just begun fills a short span before a long one."""
    seen, least = view.seen(what.channel), view.values(what.channel)
    if seen is not None:
        least = np.where(seen, least, np.float32(np.inf))
    segments = []
    for length, low in ((2, _joined(least, 2)), (3, _joined(least, 3))):
        while length * SEGMENTS <= WINDOW:
            if length * SEGMENTS * view.interval >= what.seconds:
                segments.append((length, low))
            length, low = 2 * length, _joined(low, 2)
    return segments


def _joined(values: Singles, many: int) -> Singles:
    """Lowest of every `many` neighbours, [len // many, n]. What is left over is at the start."""
    values = values[len(values) % many :]
    return np.asarray(np.minimum.reduce([values[first::many] for first in range(many)]))


def _leak_closely(view: WindowView, what: Leaking) -> Found:
    """Most steps must rise. The later half must not level off, as a warm-up does. What siblings hold too is no leak. Where siblings
    oscillate by much, much growth is needed."""
    siblings, interval, n = view.siblings, view.interval, view.n
    best, size, span = np.full(n, np.nan), np.zeros(n), np.zeros(n, dtype=np.int64)
    enough, witnessed = _enough(view, what), _witnessed(view)
    spans: list[Floats] = []
    for length, least in _segments(view, what):
        last = least[-SEGMENTS:]
        whole = length * SEGMENTS == WINDOW and WINDOW * interval >= LEAK_WHOLE_SECONDS
        fits = np.isfinite(last).all(axis=0) & (whole | _old_enough(view, what, length))
        last = np.where(fits, last, np.float32(0.0))
        earlier = least[: 1 - SEGMENTS]
        before = np.where(np.isfinite(earlier), earlier, np.float32(0.0)).max(axis=0)
        now, growth = last[-1], last[-1] - before
        swing = before - np.where(fits, least.min(axis=0), np.float32(0.0))
        # where all siblings are too young for the span, as after a deploy, what they gained since they began counts
        there = np.isfinite(least[-1])
        first = np.take_along_axis(least[-SEGMENTS:], np.isfinite(least[-SEGMENTS:]).argmax(axis=0)[None], axis=0)[0]
        young = np.where(there, [least[-1] - np.where(there, first, 0.0), least[-1]], np.nan)
        old, young = siblings.median(np.where(fits, [growth, now, np.maximum(swing, growth)], np.nan)), siblings.median(young)
        theirs, level = np.where(np.isnan(old[:2]), young, old[:2])
        swing = old[2]
        fits &= view.alone | (siblings.total(there) - there >= siblings.size // 2)  # else none shows that it could stand still
        theirs = np.fmax(theirs, 0.0)
        excess = np.fmin(growth - np.nan_to_num(theirs), now - level)
        matters = np.fmax(np.maximum(enough, what.share * before), swing)
        steps, even = np.diff(last, axis=0), np.maximum(growth, 0.0) / (SEGMENTS - 1)
        rising = np.count_nonzero(steps > even / RISE, axis=0) / (SEGMENTS - 1)
        lasting = (rising >= RISING) & (steps.min(axis=0) >= -even) & (now - last[SEGMENTS // 2] >= growth / LEVELLING)
        weight = np.where(witnessed & (steps.max(axis=0) <= STEADY * even), what.weight, 1.0)
        value = np.where(lasting, weight * np.maximum(excess, 0.0) / matters * SEGMENTS * rising**RISING_POWER, 0.0)
        better = fits & ~(value <= best)
        best = np.where(better, value, best)
        size = np.where(better, np.where(lasting, np.maximum(excess, 0.0) / matters, 0.0), size)
        span = np.where(better, len(spans), span)
        seconds, half = (SEGMENTS - 1) * length * interval, SEGMENTS // 2
        speed = (now - last[-1 - half]) / (half * length * interval)  # lately: it may have begun within the span
        spans.append(np.array([growth, speed, theirs, np.full(n, seconds), rising, now, level]))
    at = np.flatnonzero(size >= NEAR)
    if not len(at):
        return Found(best, size)
    growth, speed, theirs, seconds_, rising, now, level = np.array(spans)[span[at], :, at].T
    left = np.full(len(at), np.nan) if what.channel != "rss" or view.available is None else view.available[at]
    figures = {
        f"growth_{what.name}": growth / what.unit,
        f"growth_{what.name}_per_minute": speed * 60 / what.unit,
        f"siblings_growth_{what.name}": theirs / what.unit,
        "seconds": seconds_,
        "steps_rising": rising,
        f"now_{what.name}": now / what.unit,
        f"siblings_{what.name}": level / what.unit,
        "hits_limit_seconds": ratio(left, speed),
    }
    return Found(best, size, at, {**figures, **view.whom(at, slice(0, WINDOW // 2))})
