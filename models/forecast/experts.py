"""Simple forecasts of many series, the size of their past errors, and the point on which they agree. Pure.

All series advance together, one value a step. Only a state of fixed size is kept of each, so the cost of a step does not grow.
Thirteen experts forecast each series at each horizon. Recent losses are the best hint at which expert to trust (aggregation of
experts by past loss: Vovk 1990; Cesa-Bianchi and Lugosi 2006). `ExpertOutlook` has the point on which they agree, the size of its
errors, and the material for the rows of a trained model.

Arrays have the series last: `[..., slots]`. Values are in units of a series' first value that is not 0, so no scale is special.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..records import HORIZONS
from .packed import packed, unpacked

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
_Width = TypeVar("_Width", np.float32, np.float64)

PAST = 192
"""Ticks of a series that are kept. The longest period searched for is one less. Chosen: 5.4 KB of state a series."""

SHORTEST = 3
"""Shortest period in ticks (chosen)."""

SMOOTHING = (0.5, 0.2, 0.07, 0.02)
"""Rates of the exponentially weighted means (chosen)."""

MEDIANS = (9, 25)
"""Ticks of the running medians: like means, but one outlier does not move them (chosen)."""

CALENDAR = ((600, 144), (60, 60), (3600, 168))
"""Profiles by the clock: (seconds of a bin, bins). The day in ten minutes, the hour in minutes, the week in hours, all in UTC: a
period in local time is one in UTC too, except on two days a year (chosen)."""

EXPERTS: tuple[str, ...] = (
    "last value",
    *(f"mean {rate:g}" for rate in SMOOTHING),
    *(f"median {size}" for size in MEDIANS),
    "period",
    "period shifted",
    "regression",
    "day",
    "hour",
    "week",
)
FLAT = 1 + len(SMOOTHING) + len(MEDIANS)
"""The first FLAT experts say the same for all horizons."""
TOLD = FLAT + 2
"""What the first TOLD experts said can be recomputed from the past; what the others said must be kept."""

FORGET = 0.03
"""Rate at which losses are forgotten: they cover the last 30 ticks or so (chosen)."""

LEVELS: tuple[float, ...] = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
"""Quantile levels kept of the common point's errors. Chosen: those of `QUANTILES`, and as many below."""

BINS, REACH = 20, 24.0
"""Bins of the histogram of those errors, and its reach, in units of their mean size. Bins are wider further out (chosen)."""

KEEP = 0.02
"""Rate at which the histogram forgets (chosen)."""

GAP = 60
"""Most ticks without a value after which a series goes on, as if its period or else its last value had been repeated (chosen)."""

GUESS, SURE = 0.1, 8
"""Size of errors assumed for a series of which nothing is known, as a share of its level; unused after so many errors were seen
(chosen)."""

_H = np.asarray(HORIZONS)
FIRST = np.concatenate([[0], np.cumsum(_H)[:-1]])  # first row of each horizon's ring: a ring has a row per tick of the horizon
RING = int(_H.sum())
LONGEST = max(HORIZONS)
ENDS = np.arcsinh(REACH * 2)
EDGES = np.sinh(np.linspace(-ENDS, ENDS, BINS + 1)) / 2
WIDTHS = np.diff(EDGES)
_TINY = np.float32(1e-9)


def _guess() -> Singles:
    """[BINS] distribution assumed before any error was seen: Laplace's, with heavier ends."""
    below = np.where(EDGES < 0, 0.5 * np.exp(np.minimum(EDGES, 0)), 1 - 0.5 * np.exp(-np.maximum(EDGES, 0)))
    mass = np.diff(below) + 0.002
    return np.asarray(mass / mass.sum(), dtype=np.float32)


PRIOR = _guess()


@dataclass(frozen=True, slots=True)
class ExpertOutlook:
    """What is known of each series after a step. In units of `unit` unless stated otherwise."""

    unit: Floats  # [S] unit of the series, in its own values
    points: Singles  # [H, E, S] what the experts say
    base: Singles  # [H, S] the point on which they agree
    spread: Singles  # [H, S] mean size of the errors of `base`; 0: it made none
    tails: Singles  # [H, LEVELS, S] quantiles of those errors, in units of `spread`
    level: Singles  # [S]


@dataclass(frozen=True, slots=True)
class _Then:
    """The state at the tick each horizon ago: [H, ...]. Meaningless before a series began."""

    values: Singles  # [H, S]
    means: Singles  # [H, SMOOTHING, S]
    medians: Singles  # [H, MEDIANS, S]
    season: Singles  # [H, S] what the period predicted for now
    slips: Singles  # [H, S] the shift that would have been added to it
    scales: Singles  # [H, S] the size of a deviation that the regressions used


class Experts:
    """The state of many series. A slot not in use may be stepped along; its results mean nothing."""

    def __init__(self, slots: int, interval: float) -> None:
        """`interval`: seconds per step."""
        self._interval = interval
        self.tick = -1  # of the last step
        self.slots = 0
        self.state: dict[str, NDArray[Any]] = {name: np.zeros((*shape, 0), dtype=dtype) for name, (shape, dtype) in _SHAPES.items()}
        self.unit = np.ones(0)  # [slots] see `ExpertOutlook`
        self._last = np.zeros(0)
        self.age: Ints = np.zeros(0, dtype=np.int64)  # values seen of each series
        self.period: Ints = np.zeros(0, dtype=np.int64)
        """[slots] the lag in ticks at which values were nearest; of two equally good ones the shorter."""
        self._known: Bools = np.zeros((len(_H), 0), dtype=np.bool_)  # [H, slots] where a forecast was due at this tick
        self.grow(slots)

    def grow(self, slots: int) -> None:
        """Make room for this many series; existing ones keep their slots."""
        more = slots - self.slots
        if more <= 0:
            return
        for name, array in self.state.items():
            self.state[name] = widened(array, more)
        self.unit, self._last = widened(self.unit, more), widened(self._last, more)
        self.age, self.period = widened(self.age, more), widened(self.period, more)
        self.slots = slots
        self._start(np.arange(slots) >= slots - more)

    def shrink(self, slots: int) -> None:
        """Keep only the first `slots` series."""
        self.state = {name: np.ascontiguousarray(array[..., :slots]) for name, array in self.state.items()}
        self.unit, self._last = self.unit[:slots].copy(), self._last[:slots].copy()
        self.age, self.period = self.age[:slots].copy(), self.period[:slots].copy()
        self.slots = slots

    def taken(self, slots: Ints) -> dict[str, NDArray[Any]]:
        """`KEPT` of the series in `slots`, for `give`. The past is in its order, oldest first."""
        own = {"unit": self.unit, "last": self._last, "age": self.age, "period": self.period, **self.state}
        taken = {name: own[name][..., slots] for name in KEPT}
        taken["past"] = np.roll(taken["past"], -(self.row + 1), axis=0)
        return taken

    def give(self, slots: Ints, kept: Mapping[str, NDArray[Any]], gone: int) -> None:
        """Have the series in `slots` go on from `kept`. `gone`: ticks since that was taken. After more than `GAP` only what was
        learned by the clock holds."""
        self._start(np.isin(np.arange(self.slots), slots))
        if gone > GAP:
            self.unit[slots] = kept["unit"]
            for name in ("scaled", "profile"):
                self.state[name][..., slots] = kept[name]
            return
        self.unit[slots], self._last[slots] = kept["unit"], kept["last"]
        self.age[slots], self.period[slots] = kept["age"], kept["period"]
        for name in KEPT.keys() & self.state.keys():
            self.state[name][..., slots] = kept[name]
        repeats = kept["loss"][_BRIDGED, FLAT] < kept["loss"][_BRIDGED, 0]
        back, column = np.where(repeats, kept["period"], 1), np.arange(len(slots))
        past = np.concatenate((kept["past"], np.empty((gone, len(slots)), dtype=np.float32)))
        for row in range(PAST, PAST + gone):
            past[row] = past[row - back, column]
        self.state["past"][:, slots] = np.roll(past[gone:], self.row + 1, axis=0)

    def step(self, values: Floats, at: Floats, fresh: Bools) -> ExpertOutlook:
        """Advance all by one value: `learn`, then `look`."""
        self.learn(values, at, fresh)
        return self.look(at)

    def pass_over(self, values: Floats, at: Floats, fresh: Bools) -> None:
        """As `step`, where nobody asks for the outlook."""
        self.learn(values, at, fresh)
        self._foresee(at)

    def learn(self, values: Floats, at: Floats, fresh: Bools) -> None:
        """Take in one value of each series.

        `values` [slots], at least 0; NaN where unknown: the last one is repeated. `at` [slots]: seconds since 1970. `fresh`
        [slots]: where another series begins.
        """
        self.tick += 1
        self._start(fresh)
        values = np.where(np.isfinite(values), np.maximum(values, 0.0), self._last)
        self._last = values
        scaleless = (self.unit == 1.0) & (values > 0) & ~self._scaled()
        if scaleless.any():
            self.unit[scaleless] = values[scaleless]
            self.state["scaled"][scaleless] = 1
        self.age += 1
        with np.errstate(over="ignore"):
            y = np.minimum(values / self.unit, 1e12).astype(np.float32)
        first = self.age == 1
        if first.any():
            self._begin(first, y)
        then = self._then()
        self._judge(y, then)
        self._remember(y)
        self._profile(y, at)
        self._regress(y, then)

    @property
    def row(self) -> int:
        """Row of `state["past"]` that holds the newest value; older ones lie before it, modulo `PAST`."""
        return self.tick % PAST

    @property
    def due(self) -> Ints:
        """[H] rows of a ring of `RING` that hold the forecasts for this tick at each horizon, and receive the next forecasts."""
        return np.asarray(FIRST + self.tick % _H)

    # --- the state ---------------------------------------------------------------------------------------------------------------

    def _scaled(self) -> Bools:
        return self.state["scaled"] > 0

    def _start(self, fresh: Bools) -> None:
        """Clear the `fresh` slots."""
        at = np.flatnonzero(fresh)
        if not len(at):
            return
        for array in self.state.values():
            array[..., at] = 0
        self.state["profile"][..., at] = np.nan
        self.state["bin"][..., at] = -1
        self.state["lags"][..., at] = SHORTEST
        self.state["scales"][..., at] = 1
        self.state["pending"][..., at] = np.nan
        self.state["tails"][..., at] = PRIOR[:, None]
        self.state["covariance"][..., at] = (np.eye(_P) * 3.0)[None, :, :, None]
        self.unit[at], self._last[at], self.age[at], self.period[at] = 1.0, 0.0, 0, SHORTEST

    def _begin(self, first: Bools, y: Singles) -> None:
        """Assume that before its start a series stood at its first value."""
        at = np.flatnonzero(first)
        state = self.state
        state["past"][:, at] = y[at]
        state["means"][:, at] = y[at]
        state["largest"][at] = y[at]
        state["loss"][:, :, at] = GUESS * y[at] * _DOUBTS[:, None]

    # --- the errors of earlier forecasts ------------------------------------------------------------------------------------------

    def _then(self) -> _Then:
        """Rebuild from the past: a period's or median's forecast is one of its values, so its position is enough."""
        state, past, column = self.state, self.state["past"], np.arange(self.slots)
        ring = (self.tick - _H) % LONGEST
        lag = state["lags"][ring].astype(np.int64)
        back = -(-_H[:, None] // lag) * lag  # 1..PAST - 1: still within the past
        return _Then(
            past[(self.tick - _H) % PAST],
            state["recent_means"][ring],
            past[state["median_rows"][ring], column],
            past[(self.tick - back) % PAST, column],
            state["slips"][ring],
            state["scales"][ring],
        )

    def _judge(self, y: Singles, then: _Then) -> None:
        """Learn from the forecasts of this value."""
        state, n = self.state, self.age
        seen = n[None, :] - _H[:, None]  # [H, S] errors known at each horizon, this one included
        base = state["pending"][self.due]
        known = self._known = (seen >= 1) & ~np.isnan(base)  # after a gap nothing is pending
        if not known.any():
            return
        rate = np.where(known, np.maximum(FORGET, 1.0 / (np.maximum(seen, 0) + 2.0)), 0.0).astype(np.float32)
        told = unpacked(state["told"][self.due], base[:, None])
        loss = state["loss"]
        said_then = (
            then.values[:, None],
            then.means,
            then.medians,
            then.season[:, None],
            np.maximum(then.season + then.slips, 0)[:, None],
            told,
        )
        missed = np.empty_like(loss)
        for block, said in zip(_BLOCKS, said_then, strict=True):
            np.subtract(y, said, out=missed[:, block])
        np.abs(missed, out=missed)
        missed -= loss
        missed *= rate[:, None]
        if not known.all():
            np.copyto(missed, 0.0, where=~known[:, None])
        loss += missed
        error = y - base  # [H, S]
        error = np.where(known, error, 0.0).astype(np.float32)
        size = np.abs(error)
        spreads = state["spread"]
        fresh = 1.0 / np.maximum(seen, 1)
        z = error / np.maximum(self._spread(), _TINY)
        spreads += np.where(known, np.maximum(_SPREADS, fresh), 0.0).astype(np.float32) * (size - spreads)
        bias = state["bias"]
        bias[2] = bias[1]
        bias[1] = np.where(known, error, bias[1])
        bias[0] += np.where(known, np.float32(0.1), np.float32(0)) * (error - bias[0])
        place = np.floor((np.arcsinh(_within(z, REACH) * 2) + ENDS) * (BINS / (2 * ENDS)))
        place = np.minimum(np.maximum(place, 0), BINS - 1).astype(np.int64)
        forget = np.where(known, np.maximum(KEEP, 1.0 / (np.maximum(seen, 0) + 12.0)), 0.0).astype(np.float32)
        tails = state["tails"]
        tails *= (1 - forget)[:, None, :]
        tails[_ROWS, place, np.arange(self.slots)] += forget

    def _remember(self, y: Singles) -> None:
        """Take the value into past, means, trend and period."""
        state = self.state
        past = state["past"]
        where = self.row
        fresh = 1.0 / np.maximum(self.age, 1)
        decay = np.maximum(0.01, fresh).astype(np.float32)
        cycle = state["cycle"]  # [lag - SHORTEST]
        for lags, rows in self._back(where):
            d = past[rows][::-1] - y
            np.abs(d, out=d)
            d -= cycle[lags]
            d *= decay
            cycle[lags] += d
        slip = y - past[(where - self.period) % PAST, np.arange(self.slots)]
        state["slip"] += np.float32(0.3) * (slip - state["slip"])
        last = past[(where - 1) % PAST]
        state["cycle1"] += decay * (np.abs(last - y) - state["cycle1"])
        still = state["still"]
        still += FORGET * (np.stack((y == last, y <= _TINY)) - still)
        past[where] = y
        self.period = SHORTEST + np.argmin(cycle * _LONGER, axis=0)
        means = state["means"]
        means += np.maximum(_SMOOTHING, fresh).astype(np.float32) * (y - means)
        np.maximum(state["largest"], y, out=state["largest"])

    @property
    def level(self) -> Singles:
        """[slots] slow mean of each series, in its unit."""
        return np.asarray(self.state["means"][3])

    @staticmethod
    def _back(where: int) -> Iterator[tuple[slice, slice]]:
        """(lags, rows of the past that far back, to be reversed) in two pieces, for a value that will go to row `where`."""
        # Row of lag L is where - L: lags SHORTEST..where go to rows 0..where - SHORTEST, longer ones wrap around
        near = where - SHORTEST + 1
        if near > 0:
            yield slice(0, near), slice(0, near)
        start = max(near, 0)
        if start < _LAGS:
            top = where - SHORTEST - start + PAST  # row of the first of them
            yield slice(start, _LAGS), slice(top - (_LAGS - start) + 1, top + 1)

    def _profile(self, y: Singles, at: Floats) -> None:
        """Take the value into the profiles by the clock. A bin takes its mean when the clock leaves it."""
        state = self.state
        profile, within, shift = state["profile"], state["within"], state["shift"]
        now = (at // _SECONDS).astype(np.int64) % _SLICES  # [CALENDAR, S]
        held = state["bin"].astype(np.int64)
        changed = held != now
        if changed.any():
            which, left = np.nonzero(changed & (held >= 0))
            row = FIRST_BINS[which, 0] + held[which, left]
            old, mean = profile[row, left], within[which, 0, left]
            profile[row, left] = np.where(np.isnan(old), mean, old + np.float32(0.4) * (mean - old))
            within[changed.nonzero()[0], :, changed.nonzero()[1]] = 0.0
            state["bin"][:] = now
        mean, count = within[:, 0], within[:, 1]
        count += 1
        mean += (y - mean) / count
        known = profile[FIRST_BINS + now, np.arange(self.slots)]
        shift[:] = np.where(np.isnan(known), 0.0, shift + np.float32(0.2) * (y - known - shift))

    def _regress(self, y: Singles, then: _Then) -> None:
        """Recursive least squares (Ljung and Söderström 1983), one per horizon: learn from the inputs of that many ticks ago."""
        state = self.state
        w, p = state["weights"], state["covariance"]  # [H, P, S], [H, P, P, S]
        scale = np.maximum(state["deviation"], _TINY)
        known = self._known
        x = self._inputs(then.values, then.means[:, 1], then.season, then.means[:, _CENTRE], then.scales)
        x *= known[:, None]
        target = _within((y - then.means[:, _CENTRE]) / scale, 8)
        px = np.add.reduce(p * x[:, None], axis=2)
        gain = px / (_MEMORY + np.add.reduce(x * px, axis=1))[:, None]
        gain = np.where(known[:, None], gain, 0).astype(np.float32)
        w += gain * (target - np.add.reduce(w * x, axis=1)).astype(np.float32)[:, None]
        _within(w, 2, w)
        p -= gain[:, :, None] * px[:, None]
        p /= _MEMORY
        _within(p, 30, p)
        state["deviation"] += FORGET * (np.abs(y - state["means"][2]) - state["deviation"])

    def _predict(self, y: Singles, season: Singles) -> Singles:
        """[H, S] the regressions' forecasts. `season` [H, S]: the values a whole number of periods before each horizon."""
        state = self.state
        centre, scale = state["means"][_CENTRE], np.maximum(state["deviation"], _TINY)
        state["scales"][self.tick % LONGEST] = scale
        x = self._inputs(y, state["means"][1], season, centre, scale)
        return np.asarray(centre + scale * _within(np.add.reduce(state["weights"] * x, axis=1), 8))

    @staticmethod
    def _inputs(y: Singles, mean: Singles, season: Singles, centre: Singles, scale: Singles) -> Singles:
        """[H, P, S] inputs of the regressions. Each argument is [H, S], or [S] if the same for all horizons."""
        x = np.empty((len(_H), _P, season.shape[-1]), dtype=np.float32)
        x[:, 0], x[:, 1], x[:, 2] = y, mean, season
        x -= centre[..., None, :]
        x /= scale[..., None, :]
        return _within(x, 8, x)

    # --- looking ahead -----------------------------------------------------------------------------------------------------------

    def look(self, at: Floats) -> ExpertOutlook:
        """Forecast from what was learned; call once per step."""
        points, base = self._foresee(at)
        return ExpertOutlook(self.unit.copy(), points, base, self._spread(), self._tails(), self.level.copy())

    def _foresee(self, at: Floats) -> tuple[Singles, Singles]:
        """(what the experts say, the point on which they agree), kept until it is known how it came."""
        state = self.state
        points = np.empty((len(_H), len(EXPERTS), self.slots), dtype=np.float32)
        where = self.row
        y = state["past"][where]
        ring = self.tick % LONGEST
        state["recent_means"][ring] = state["means"]
        points[:, 0] = y
        points[:, 1 : 1 + len(SMOOTHING)] = state["means"]
        recent = state["past"][_BACK[where]]
        for place, size in enumerate(MEDIANS):
            median = np.partition(recent[:size], size // 2, axis=0)[size // 2]
            ago = ((recent[:size] == median) * _AGES[:size]).max(axis=0)
            state["median_rows"][ring, place] = (where - ago.astype(np.int64)) % PAST
            points[:, 1 + len(SMOOTHING) + place] = median
        column = np.arange(self.slots)
        lag = self.period
        back = -(-_H[:, None] // lag) * lag - _H[:, None]  # [H, S] ticks before now
        season = state["past"][(where - back) % PAST, column]
        points[:, FLAT] = season
        points[:, FLAT + 1] = season + state["slip"]
        points[:, FLAT + 2] = self._predict(y, season)
        then = ((at + _H[:, None] * self._interval)[:, None] // _SECONDS).astype(np.int64) % _SLICES  # [H, CALENDAR, S]
        known = state["profile"][FIRST_BINS + then, column]
        points[:, FLAT + 3 :] = np.where(np.isnan(known), state["means"][1], known + state["shift"])
        np.maximum(points, 0, out=points)
        base = self._agree(points, y)
        due = self.due
        state["lags"][ring], state["slips"][ring] = lag, state["slip"]
        state["told"][due] = packed(points[:, TOLD:], base[:, None])
        state["pending"][due] = base
        return points, base

    def _agree(self, points: Singles, y: Singles) -> Singles:
        """[H, S] the experts' mean, weighted by 1 / loss ** 12: nearly the best one alone, or the mean of those that are equally
        good. Chosen: docs/decisions/0007-streaming-experts-and-a-network.md."""
        loss = self.state["loss"] + _TINY
        ratio = np.minimum.reduce(loss, axis=1, keepdims=True) / loss
        ratio *= ratio
        ratio *= ratio
        weight = ratio * ratio * ratio
        off = np.add.reduce(weight * (points - y), axis=1)
        return np.asarray(y + off / np.add.reduce(weight, axis=1), dtype=np.float32)

    def _spread(self) -> Singles:
        """[H, S] expected size of errors: the observed one, and while errors are few partly that of the shorter horizon."""
        level = self.state["means"][1]
        seen = np.maximum(self.age[None, :] - _H[:, None], 0)
        trust = np.minimum(seen / SURE, 1.0).astype(np.float32)
        spread = np.empty((len(_H), self.slots), dtype=np.float32)
        shorter = np.float32(GUESS) * level
        for own, seen_, known in zip(spread, self.state["spread"][1], trust, strict=True):
            np.subtract(seen_, shorter, out=own)
            own *= known
            own += shorter
            shorter = own
        return spread

    def _tails(self) -> Singles:
        """[H, LEVELS, S] quantiles in the histogram of errors."""
        mass = np.zeros((len(_H), BINS + 1, self.slots), dtype=np.float32)  # below each edge
        np.add.accumulate(self.state["tails"], axis=1, out=mass[:, 1:])
        mass /= mass[:, -1:]
        lower = mass[:, 1:-1, None] < _LEVELS  # [H, BINS - 1, LEVELS, S]: the last bin reaches to 1
        bin_ = np.add.reduce(lower.view(np.uint8), axis=1).astype(np.int64)  # [H, LEVELS, S]
        place = (_ROWS[:, None] * (BINS + 1) + bin_) * self.slots + np.arange(self.slots)
        flat = mass.ravel()
        low, high = flat.take(place), flat.take(place + self.slots)
        inside = np.minimum(np.maximum((_LEVELS - low) / np.maximum(high - low, 1e-6), 0.0), 1.0)
        return np.asarray(EDGES.take(bin_) + inside * WIDTHS.take(bin_), dtype=np.float32)


_BRIDGED = HORIZONS.index(12)  # horizon whose losses say whether a gap is filled by the period (chosen)
_P = 3  # inputs of a regression: last value, a mean, the period
_LAGS = PAST - SHORTEST
# Chosen: a longer lag must fit better, per mille a tick; what each expert's first losses are taken to be, beside the last value's;
# how fast regressions forget; rates of the means of errors.
_LONGER = (1 + 0.001 * np.arange(SHORTEST, PAST, dtype=np.float32))[:, None]
_DOUBTS = np.array([1, 0.9, 0.9, 1, 1.2, 1, 1.1, 1.5, 1.4, 1.3, 1.3, 1.3, 1.3], dtype=np.float32)
_MEMORY = np.float32(0.99)
_SPREADS = np.array([0.2, FORGET, 0.005])[:, None, None]
_SMOOTHING = np.array(SMOOTHING, dtype=np.float32).astype(np.float64)[:, None]
_LEVELS = np.array(LEVELS, dtype=np.float32)[:, None]
_SECONDS, _SLICES = np.array(CALENDAR)[:, :, None].transpose(1, 0, 2)  # [CALENDAR, 1] seconds of a bin, bins
FIRST_BINS = np.cumsum(_SLICES, axis=0) - _SLICES  # [CALENDAR, 1] first row of each profile
_ROWS = np.arange(len(_H))[:, None]
_BACK = (np.arange(PAST)[:, None] - np.arange(max(MEDIANS))) % PAST  # rows of the newest values, by the row of the last
_AGES = np.arange(max(MEDIANS), dtype=np.uint8)[:, None]
_CENTRE = 2  # the mean that the regressions are centred on
_MEANS = 1 + len(SMOOTHING)
_BLOCKS = (slice(0, 1), slice(1, _MEANS), slice(_MEANS, FLAT), slice(FLAT, FLAT + 1), slice(FLAT + 1, TOLD), slice(TOLD, None))
_SINGLES: dict[str, tuple[int, ...]] = {
    "scaled": (),
    "past": (PAST,),
    "cycle": (_LAGS,),
    "profile": (sum(bins for _, bins in CALENDAR),),
    "cycle1": (),
    "still": (2,),
    "largest": (),
    "means": (len(SMOOTHING),),
    "within": (len(CALENDAR), 2),
    "bin": (len(CALENDAR),),
    "shift": (len(CALENDAR),),
    "deviation": (),
    "slip": (),
    "weights": (len(_H), _P),
    "covariance": (len(_H), _P, _P),
    "loss": (len(_H), len(EXPERTS)),
    "recent_means": (LONGEST, len(SMOOTHING)),  # rings: one row for each of the last ticks
    "scales": (LONGEST,),
    "slips": (LONGEST,),
    "pending": (RING,),
    "spread": (len(_SPREADS), len(_H)),
    "bias": (3, len(_H)),
    "tails": (len(_H), BINS),
}
_PASSING = {"within", "bin", "recent_means", "scales", "slips", "pending"}  # of no use after a gap
KEPT: dict[str, tuple[tuple[int, ...], type]] = {
    **{name: (shape, np.float32) for name, shape in _SINGLES.items() if name not in _PASSING},
    "unit": ((), np.float64),
    "last": ((), np.float64),
    "age": ((), np.int64),
    "period": ((), np.int64),
}
"""What is kept of a series over a gap: shape and type for one series."""
_SHAPES: dict[str, tuple[tuple[int, ...], type]] = {
    **{name: (shape, np.float32) for name, shape in _SINGLES.items()},
    "lags": ((LONGEST,), np.uint8),
    "median_rows": ((LONGEST, len(MEDIANS)), np.uint8),  # the rows of the past that hold the medians
    "told": ((RING, len(EXPERTS) - TOLD), np.uint16),  # packed around `pending`
}


def _within(values: NDArray[_Width], limit: float, out: NDArray[_Width] | None = None) -> NDArray[_Width]:
    """The values within -limit..limit; what is unknown stays so."""
    return np.asarray(np.minimum(np.maximum(values, -limit, out=out), limit, out=out))


def widened(array: NDArray[Any], more: int) -> NDArray[Any]:
    """The array with `more` more entries along the last axis, all 0."""
    return np.concatenate([array, np.zeros((*array.shape[:-1], more), dtype=array.dtype)], axis=-1)
