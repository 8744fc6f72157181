"""Forecasters that need no training: a trained demand model has to beat them. Pure.

All share one interface: `predict(windows, lengths)`, windows as from `features.Windows`, forecasts as in `records.Forecast`.
They work on values in units of each window's largest value, so no scale is special and nothing overflows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..records import HORIZONS, QUANTILES, WINDOW

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LARGEST = 1e300
"""Limit of a forecast, so that sums of a few stay finite (chosen)."""

DOUBT = np.interp(QUANTILES, (0.5, 0.9, 0.99), (0.0, 0.2, 0.4))
"""Spread of a series of which next to nothing is known, as a share of its level: modest, and unused after `ENOUGH` errors
(chosen)."""

ENOUGH = 8
"""Errors from which only their own quantiles are used; with fewer, those of the next shorter horizon are mixed in (chosen)."""


class Forecasts(Protocol):
    """What every forecaster is, trained or not."""

    @property
    def name(self) -> str:
        """Short, for people: goes into `Forecast.source`."""
        ...

    def predict(self, windows: Floats, lengths: Ints) -> Floats:
        """[n, len(HORIZONS), len(QUANTILES)]: finite, at least 0, rising in the quantile. Each series is independent of its
        neighbours and of its row. NaN only for a series with no known value."""
        ...


@dataclass(frozen=True, slots=True)
class History:
    """Windows made ready for arithmetic."""

    values: Floats  # [n, WINDOW] in units of `unit`, 0..1; unknown values inside repeat the last known one; NaN before the start
    counts: Ints  # [n] ticks since the first known value, 0: nothing is known
    unit: Floats  # [n] the largest value of the window; 1 where that is 0


def history(windows: Floats, lengths: Ints) -> History:
    """`windows` [n, WINDOW] as a History: values that are not finite or older than `lengths` are unknown, negative ones 0."""
    if windows.ndim != 2 or windows.shape[1] != WINDOW or len(lengths) != len(windows):
        raise ValueError(f"windows must be [n, {WINDOW}] with n lengths, not {windows.shape} with {len(lengths)}")
    column = np.arange(WINDOW)
    known = np.isfinite(windows) & (column >= WINDOW - np.asarray(lengths)[:, None])
    if known.all():  # the usual case, and three times faster
        values, counts = np.maximum(windows, 0.0), np.full(len(windows), WINDOW, dtype=np.int64)
        unit = values.max(axis=1, initial=0.0)
    else:
        source = np.maximum.accumulate(np.where(known, column, -1), axis=1)
        values = np.take_along_axis(windows, np.maximum(source, 0), axis=1)
        values = np.where(source >= 0, np.maximum(values, 0.0), np.nan)
        counts = np.count_nonzero(source >= 0, axis=1).astype(np.int64)
        unit = np.fmax.reduce(values, axis=1, initial=0.0)
    unit = np.where(unit > 0, unit, 1.0)
    return History(values / unit[:, None], counts, unit)


def finish(past: History, forecasts: Floats) -> Floats:
    """Forecasts converted from units of the series to its own: at least 0, rising, finite wherever anything is known."""
    with np.errstate(over="ignore"):
        result = np.clip(np.sort(forecasts, axis=2) * past.unit[:, None, None], 0.0, LARGEST)
    result[past.counts == 0] = np.nan
    return np.asarray(result)


def quantiles(ordered: Floats, counts: Ints) -> Floats:
    """[n, Q] quantiles at `QUANTILES` of rows [n, m] sorted with NaN last; the first `counts` [n] are known; NaN if none is.

    Rank q (m + 1), Weibull's: a new value stays below it with probability q. The usual q (m - 1) is too low for the upper
    quantiles of few values: a bare p95 of 12 samples covers 88 %.
    """
    top = np.maximum(counts - 1, 0)[:, None]
    rank = np.clip(np.asarray(QUANTILES) * (counts[:, None] + 1) - 1, 0, top)
    low = rank.astype(np.int64)
    rows = np.arange(len(ordered))[:, None]
    below = ordered[rows, low]
    return np.asarray(below + (rank - low) * (ordered[rows, np.minimum(low + 1, top)] - below))


def error_quantiles(errors: Iterable[tuple[Floats, Ints]], level: Floats) -> Floats:
    """[n, H, Q] quantiles of the errors at each horizon, given as ([n, m], NaN for none; [n] how many there are). Overwrites them.

    With few errors, those of the next shorter horizon are mixed in, and at the shortest horizon `DOUBT` times the level.
    """
    shorter = level[:, None] * DOUBT
    result = []
    for values, counts in errors:
        values.sort(axis=1)
        own = quantiles(values, counts)
        trust = np.minimum(counts / ENOUGH, 1.0)[:, None]
        shorter = np.where(trust > 0, shorter + trust * (own - shorter), shorter)
        result.append(shorter)
    return np.stack(result, axis=1)


def lagged(past: History, points: Floats) -> Iterator[tuple[Floats, Ints]]:
    """For each horizon, errors of `points` [n, WINDOW] as forecasts of the value that much later, for `error_quantiles`."""
    for h in HORIZONS:  # one at a time: 264 series of 128 ticks then stay in the cache
        yield past.values[:, h:] - points[:, :-h], np.maximum(past.counts - h, 0)


def ewma(values: Floats, alpha: float) -> Floats:
    """[n, WINDOW] exponentially weighted mean up to each tick, started at the first value; NaN before that."""
    levels = np.array(values.T, order="C")  # a copy, a tick a row: the loop below runs over contiguous memory
    started = not np.isnan(levels[0]).any()
    for level, now in pairwise(levels):
        if started:
            now -= level
            now *= alpha
            now += level
        else:
            now[:] = np.where(np.isnan(level), now, level + alpha * (now - level))
    return np.ascontiguousarray(levels.T)


def period(past: History) -> Ints:
    """[n] the period in ticks that explains the window best; 0: none.

    The highest local maximum of the autocorrelation of the values minus their mean, between 4 ticks and half of the window, if it
    reaches `SEASONAL`. Of those that nearly reach it the first, since multiples of a period are maxima too.
    """
    found = np.zeros(len(past.values), dtype=np.int64)
    there = np.isfinite(past.values)
    mean = np.where(there, past.values, 0.0).sum(axis=1) / np.maximum(past.counts, 1)
    centred = np.where(there, past.values - mean[:, None], 0.0)
    spectrum = np.fft.rfft(centred, 2 * WINDOW, axis=1)
    correlation = np.fft.irfft(spectrum.real**2 + spectrum.imag**2, axis=1)[:, : WINDOW // 2 + 2]
    overlap = np.maximum(past.counts[:, None] - np.arange(WINDOW // 2 + 2), 1)
    variance = correlation[:, :1] / np.maximum(past.counts[:, None], 1)
    flat = variance[:, 0] <= 1e-12  # in units of the largest value: the rounding error of a constant
    strength = correlation / overlap / np.where(flat[:, None], 1.0, variance)
    middle = strength[:, 1:-1]
    peak = (middle > strength[:, :-2]) & (middle >= strength[:, 2:])
    lags = np.arange(1, WINDOW // 2 + 1)
    peak &= (lags >= 4) & (2 * lags <= past.counts[:, None]) & ~flat[:, None]
    height = np.where(peak, middle, -1.0)
    best = height.max(axis=1)
    first = np.argmax(height >= 0.9 * best[:, None], axis=1)
    seasonal = best >= SEASONAL
    found[seasonal] = lags[first[seasonal]]
    return found


SEASONAL = 0.5
"""Least autocorrelation of a period. Of 20,000 windows of noise (gamma, exponential) 0.02 and 0.2 % reach it when full, 1 and 3 %
with 64 values, 8 and 11 % with 32; at 0.4 it would be 0.8 and 2.4 % of the full ones. Chosen between the two."""


def seasonal_points(past: History, periods: Ints) -> tuple[Floats, Ints]:
    """([n, H] the value a whole number of periods before each horizon, or the last value without a period; [n, H] how many ticks
    before the horizon it lies)."""
    ahead = np.asarray(HORIZONS)[None, :]
    step = np.maximum(periods[:, None], 1)
    back = np.where(periods[:, None] > 0, -(-ahead // step) * step, ahead)
    return np.take_along_axis(past.values, WINDOW - 1 + ahead - back, axis=1), np.asarray(back)


@dataclass(frozen=True, slots=True)
class LastValue:
    """The last value, with the quantiles of its own errors at each horizon over the window. The reference for all comparisons."""

    name: str = "last value"

    def predict(self, windows: Floats, lengths: Ints) -> Floats:
        """See `Forecasts`."""
        past = history(windows, lengths)
        last = past.values[:, -1]
        return finish(past, last[:, None, None] + error_quantiles(lagged(past, past.values), last))


@dataclass(frozen=True, slots=True)
class Ewma:
    """Exponentially weighted mean with the quantiles of its own errors at each horizon over the window."""

    alpha: float = 0.3
    name: str = "ewma"

    def predict(self, windows: Floats, lengths: Ints) -> Floats:
        """See `Forecasts`."""
        past = history(windows, lengths)
        levels = ewma(past.values, self.alpha)
        last = levels[:, -1]
        return finish(past, last[:, None, None] + error_quantiles(lagged(past, levels), last))


@dataclass(frozen=True, slots=True)
class WindowQuantile:
    """Quantiles of the last `size` values, the same for all horizons."""

    size: int = 48
    name: str = "window quantile"

    def predict(self, windows: Floats, lengths: Ints) -> Floats:
        """See `Forecasts`."""
        past = history(windows, lengths)
        recent = np.sort(past.values[:, -self.size :], axis=1)
        counts = np.minimum(past.counts, self.size)
        own = quantiles(recent, counts)
        doubt = np.clip(1 - (counts[:, None] - 1) / ENOUGH, 0.0, 1.0)
        own = own + doubt * own[:, :1] * DOUBT
        return finish(past, np.repeat(own[:, None, :], len(HORIZONS), axis=1))


@dataclass(frozen=True, slots=True)
class SeasonalNaive:
    """The value one period ago, with the quantiles of its own errors; without a period, the last value."""

    name: str = "seasonal naive"

    def predict(self, windows: Floats, lengths: Ints) -> Floats:
        """See `Forecasts`."""
        past = history(windows, lengths)
        points, back = seasonal_points(past, period(past))
        return finish(past, points[:, :, None] + error_quantiles(self._errors(past, back), points[:, 0]))

    @staticmethod
    def _errors(past: History, back: Ints) -> Iterator[tuple[Floats, Ints]]:
        for h in range(len(HORIZONS)):
            source = np.arange(WINDOW) - back[:, h, None]
            then = np.take_along_axis(past.values, np.maximum(source, 0), axis=1)
            yield np.where(source >= 0, past.values - then, np.nan), np.maximum(past.counts - back[:, h], 0)


BASELINES: tuple[Forecasts, ...] = (LastValue(), Ewma(), WindowQuantile(), SeasonalNaive())
"""All baselines, the reference first: a trained model has to beat them."""
