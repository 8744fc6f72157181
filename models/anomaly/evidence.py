"""Recent measurements of pool workers, and their summaries: the `WindowView` that every test of a kind uses. Pure.

Knows channels, means and clocks. `detectors.py` and the tests that it lists say what is suspicious.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..features import Floats, Singles
from ..records import WINDOW
from .siblings import Flags, Ints, Siblings

_T = TypeVar("_T", bound=np.generic)

CHANNELS = ("cpu", "wait", "rss", "timeslices", "chars", "busy", "fds", "queued", "threads", "forks")
"""Per worker and tick: cores run, cores waited for in the run queue, resident bytes, times put on a CPU per second, bytes read and
written per second, busy share 0..1, open descriptors, the pool's queued work per worker, threads, processes started per second by
the worker and its descendants. NaN unknown."""

MIB = float(1 << 20)

WARM_UP, WARM_UP_TICKS = 10.0, 2
"""Seconds, and at least ticks, at the start of a worker's life in the window that are no evidence: imports, first requests,
connections (chosen: long enough for those, short enough to see what goes wrong soon after)."""

USUAL = 0.5
"""Usual pauses shorter than this count as this, in seconds: to a client all shorter tasks finish "at once" (chosen)."""

SEEN_SHARE = 0.75
"""Share of a span that must have been seen for a mean over it (chosen: a missed tick must not silence a test)."""

ENOUGH = 3
"""Workers from which a pool shows what is usual. With two, either may be the odd one, so the worker's own past is used too."""

PAST_SECONDS = 24.0
"""Least seconds of a worker's own past to compare it with (chosen: as long as the longest spans of the tests that use it)."""

STRETCH_TICKS = 4
"""Least ticks of one of three stretches (chosen: a mean of fewer is decided by a single one)."""

NEAR = 0.5
"""Share of what matters from which a worker is looked at closely: one about to get a named kind must not be called an outlier
(chosen; a lower one costs close looks at healthy pools)."""

AS_MUCH = 1 / 3
"""Share of a worker's work from which a sibling does as much (chosen). Work is bytes, or times put on a CPU where bytes are not
known."""

COMPARABLE, COMPARABLE_CHARS = 0.02, 4096.0
"""Cores of demand from which a sibling shows how many switches and new processes come with the work (chosen); bytes a second from
which it does so if it moves as many as others: those of some ten requests, more than heartbeats and health checks. The bytes came
after switch storms that `python -m benchmarks.anomaly.campaign` missed (docs/measurements/anomalies.md)."""

DEMAND_FLOOR = 0.05
"""Cores added to demand where something is counted per CPU second (chosen: less is timers and health checks, whose rates vary)."""


@dataclass(frozen=True, slots=True)
class Found:
    """Result of the test of one kind for each worker of a view."""

    score: Floats  # [n] nonconformity, 0 or more; NaN: no evidence
    size: Floats  # [n] share of what matters; 0 also where a further condition of the kind is not met
    at: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))  # workers that have figures, rising
    figures: dict[str, Floats] = field(default_factory=dict)  # name -> [len(at)]; NaN: not known

    @property
    def material(self) -> Flags:
        """[n] large enough to matter."""
        return self.size >= 1.0


def together(found: Sequence[Found]) -> Found:
    """What was found of several views as if it were of one, with their workers one after the other."""
    if len(found) == 1:
        return found[0]
    starts = np.cumsum([0, *(len(one.score) for one in found)])
    with_figures = [one for one in found if len(one.at)]
    return Found(
        np.concatenate([one.score for one in found]),
        np.concatenate([one.size for one in found]),
        np.concatenate([one.at + start for one, start in zip(found, starts.tolist(), strict=False)]),
        {
            name: np.concatenate([one.figures[name] for one in with_figures])
            for name in (with_figures[0].figures if with_figures else ())
        },
    )


class WindowView:
    """Windows of workers ordered by pool, and what the tests share of them, computed on first use."""

    def __init__(
        self,
        windows: Singles,
        lengths: Ints,
        siblings: Siblings,
        interval: float,
        available: Floats | None,
        least: float,
        places: Ints | None = None,
    ) -> None:
        """`windows` [len(CHANNELS), WINDOW, all] as from `features.WorkerWindows.view`. `places` [n]: columns of the workers in
        them, None for all. `lengths` [n]. `interval`: seconds per tick. `available` [n]: bytes of memory left, None if unknown.
        `least`: share of what matters from which outliers are reported."""
        self.siblings, self.interval, self.available, self.least = siblings, interval, available, least
        self.lengths, self.n = lengths, len(lengths)
        self.alone, self.few = siblings.size < 2, siblings.size < ENOUGH
        self._windows, self._places = windows, places
        self._values: dict[str, Singles] = {}
        self._known: dict[str, Flags | None] = {}
        self._means: dict[tuple[str, int, int], Floats] = {}
        self._counts: dict[tuple[int, int], Ints] = {}
        self._usual: dict[str, Floats] = {}
        self._demand: Singles | None = None
        used, age = self.known("cpu"), WINDOW - np.clip(lengths, 0, WINDOW)
        if age.any():
            # A full window does not show when the worker began: then all of it counts, and the tests ask for lasting evidence.
            grown = np.arange(WINDOW)[:, None] >= np.where(age > 0, age + max(math.ceil(WARM_UP / interval), WARM_UP_TICKS), 0)
            used = grown if used is None else used & grown
        self.used = used  # [WINDOW, n] known and after the warm-up; None: all
        self.ticks = self.count(slice(None))  # [n] how many of those

    def part(self, workers: Flags) -> tuple[Ints, WindowView]:
        """(places in this view, view) of these workers and all their siblings."""
        at = np.flatnonzero(self.siblings.anywhere(workers))
        if len(at) == self.n:
            return at, self
        places = at if self._places is None else self._places[at]
        own, available = Siblings(self.siblings.index[at]), None if self.available is None else self.available[at]
        return at, WindowView(self._windows, self.lengths[at], own, self.interval, available, self.least, places)

    def values(self, channel: str) -> Singles:
        """[WINDOW, n], 0 where not known. Not to be written to."""
        self._read(channel)
        return self._values[channel]

    def known(self, channel: str) -> Flags | None:
        """[WINDOW, n] whether the value is known; None: always."""
        self._read(channel)
        return self._known[channel]

    def now(self, channel: str) -> Flags:
        """[n] whether the latest value is known."""
        known = self.known(channel)
        return np.ones(self.n, dtype=np.bool_) if known is None else known[-1]

    @property
    def demand(self) -> Singles:
        """[WINDOW, n] cores run and waited for."""
        if self._demand is None:
            self._demand = self.values("cpu") + self.values("wait")
        return self._demand

    def seen(self, channel: str, at: slice = slice(None)) -> Flags | None:
        """[ticks of `at`, n] known and after the warm-up; None: all."""
        known = self.known(channel)
        flags = self.used if known is None else known if self.used is None else known & self.used
        return None if flags is None else flags[at]

    def count(self, at: slice) -> Ints:
        """[n] ticks of `at` that are known and after the warm-up."""
        start, stop, _ = at.indices(WINDOW)
        if (start, stop) not in self._counts:
            full = np.full(self.n, stop - start)
            self._counts[start, stop] = full if self.used is None else np.count_nonzero(self.used[at], axis=0)
        return self._counts[start, stop]

    def mean(self, channel: str, at: slice = slice(None), share: float = 0.0) -> Floats:
        """[n] mean over the ticks `at` that are known and after the warm-up; NaN if there are none, or fewer than `share`."""
        start, stop, _ = at.indices(WINDOW)
        if (channel, start, stop) not in self._means:
            seen = self.seen(channel, at)
            values = self.values(channel)[at]
            sums = total(values if seen is None else np.where(seen, values, np.float32(0.0)))
            count = np.full(self.n, stop - start) if seen is None else np.count_nonzero(seen, axis=0)
            self._means[channel, start, stop] = ratio(sums, count)
        mean = self._means[channel, start, stop]
        return np.where(self.count(at) >= share * (stop - start), mean, np.nan) if share else mean

    def pieces(self, channel: str, ticks: int, share: float) -> Floats:
        """[WINDOW // ticks, n] means over pieces of `ticks`, the oldest first; NaN where less than `share` is known and after the
        warm-up."""
        many = WINDOW // ticks
        at = slice(WINDOW - many * ticks, WINDOW)
        values, seen = self.values(channel)[at], self.seen(channel, at)
        shape = (many, ticks, self.n)
        if seen is None:
            return np.asarray(np.add.reduce(values.reshape(shape), axis=1, dtype=np.float64) / ticks)
        sums = np.add.reduce(np.where(seen, values, np.float32(0.0)).reshape(shape), axis=1, dtype=np.float64)
        count = np.count_nonzero(seen.reshape(shape), axis=1)
        return np.where(count >= share * ticks, ratio(sums, count), np.nan)

    def usual(self, channel: str) -> Floats:
        """[n] the siblings' median of means over the window; the worker's own mean where it is alone."""
        if channel not in self._usual:
            means = self.mean(channel)
            self._usual[channel] = np.where(self.alone, means, self.siblings.median(means))
        return self._usual[channel]

    def stretches(self, seconds: float) -> tuple[list[slice], slice]:
        """(three stretches that end now, each a third of `seconds`, the latest first; everything before them)."""
        ticks = min(max(math.ceil(seconds / 3 / self.interval), STRETCH_TICKS), WINDOW // 3)
        return [slice(WINDOW - (back + 1) * ticks, WINDOW - back * ticks) for back in range(3)], slice(0, WINDOW - 3 * ticks)

    def compared(self, theirs: Floats, past: Floats, before: slice) -> Floats:
        """[n] what is usual: `theirs`, the siblings' median. Where siblings are few or say nothing: the higher of that and of the
        worker's own `past`, the mean over `before`; NaN where that is too short."""
        long_enough = self.count(before) * self.interval >= PAST_SECONDS
        own = np.where(long_enough, np.fmax(theirs, past), np.nan)
        return np.asarray(np.where(self.few | np.isnan(theirs), own, theirs))

    def whom(self, at: Ints, before: slice | None = None, theirs: Floats | None = None) -> dict[str, Floats]:
        """Figures that say what workers `at` were compared with: number of siblings, and seconds of own past where siblings are
        few or say nothing (`theirs` is NaN)."""
        past = np.full(len(at), np.nan) if before is None else self.count(before)[at] * self.interval
        asked = self.few if theirs is None else self.few | np.isnan(theirs)
        return {"siblings": self.siblings.size[at] - 1.0, "own_past_seconds": np.where(asked[at], past, np.nan)}

    def clock(self, advance: Floats | Singles, reset: Flags) -> tuple[Floats, Floats, Floats]:
        """(seconds on the clock now, its usual reading, seconds of the worker's own past) of a clock that advances by `advance` a
        tick and is set to 0 by `reset`, both [WINDOW, n].

        The usual reading is that at a random instant: the siblings' median, or that of the worker's own time before the current
        stretch, whichever is longer. A random instant falls into long stretches more often, and so does a client that waits.
        """
        clock = np.array(advance, dtype=np.float32)
        if self.used is not None:
            reset = reset & self.used
            clock *= self.used
        keep = (~reset).astype(np.float32)
        now = np.zeros(self.n, dtype=np.float32)
        for at, kept in zip(clock, keep, strict=True):
            np.add(at, now, out=at)
            now = np.multiply(at, kept, out=at)
        last = np.where(reset.any(axis=0), WINDOW - np.argmax(reset[::-1], axis=0), 0)  # ticks up to the last reset
        before = np.arange(WINDOW)[:, None] < last
        theirs = self.siblings.median(ratio(total(clock), self.ticks))
        past = np.count_nonzero(before if self.used is None else self.used & before, axis=0)
        own = ratio(total(clock * before), past)
        usual = np.fmax(np.fmax(theirs, own), max(USUAL, self.interval / 2))
        return now.astype(np.float64), usual, past * self.interval

    def quiet(self, seen: Flags) -> Found:
        """No worker is in trouble; NaN for those not `seen`."""
        return Found(np.where(seen, 0.0, np.nan), np.zeros(self.n))

    def closely(self, seen: Flags, near: Flags, look: Callable[[WindowView], Found]) -> Found:
        """What a close look finds in the pools of workers that are `near` trouble. Other pools are not looked at."""
        near = near & seen
        if not near.any():
            return self.quiet(seen)
        at, part = self.part(near)
        found = look(part)
        if part is self:
            return found
        score, size = np.where(seen, 0.0, np.nan), np.zeros(self.n)
        score[at], size[at] = found.score, found.size
        return Found(score, size, at[found.at], found.figures)

    def _read(self, channel: str) -> None:
        if channel in self._values:
            return
        raw = self._windows[CHANNELS.index(channel)]
        # ticks first in memory too: sums over ticks depend on the layout
        raw = np.ascontiguousarray(raw) if self._places is None else raw.take(self._places, axis=1)
        unknown = np.isnan(raw)
        if unknown.any():
            self._values[channel] = np.where(unknown, np.float32(0.0), raw)
            known = ~unknown
            start = WINDOW - np.clip(self.lengths, 0, WINDOW)
            self._known[channel] = known if not start.any() else known & (np.arange(WINDOW)[:, None] >= start)
        else:
            self._values[channel], self._known[channel] = raw, None


def works(view: WindowView, at: slice) -> Flags:
    """[n] whether a worker wants enough CPU to be compared with, or moves enough bytes, `AS_MUCH` of its pool's most. Small work,
    too, shows how many switches come with it. Balancers that prefer one worker leave others idle."""
    chars = view.mean("chars", at)
    moves = (chars >= COMPARABLE_CHARS) & (chars >= AS_MUCH * view.siblings.highest(np.nan_to_num(chars)))
    return np.asarray(moves | (view.mean("cpu", at) + view.mean("wait", at) >= COMPARABLE))


def ratio(above: Floats | Singles, below: Floats | Ints) -> Floats:
    """above / below; NaN where `below` is 0."""
    there = below > 0
    return np.where(there, above / np.where(there, below, 1), np.nan)


def total(values: Singles) -> Floats:
    """Sums [n] over the first axis, the same to the bit with any neighbours: numpy adds row by row, but not a single column."""
    if values.shape[1] == 1:
        return total(np.repeat(values, 2, axis=1))[:1]
    return np.asarray(np.add.reduce(values, axis=0), dtype=np.float64)


def highest(flags: NDArray[_T], ticks: int) -> NDArray[_T]:
    """Highest value within the last `ticks`, at each tick (first axis). The reach doubles in each step."""
    result, reach = flags.copy(), 1
    while reach < min(ticks, WINDOW):
        step = min(reach, ticks - reach)
        result[step:] = np.maximum(result[step:], result[:-step])
        reach += step
    return result
