"""How others forecast and limit demand, on public series: the baselines of the protocol and the rules of known tools.

    python -m benchmarks.forecast.peers --data DIR [--json FILE]

DIR has `forecast/` and `arrivals/`; without --data it is taken from NICETY_DATA. Each peer is a class with one method, written
from the description or source that it names. A peer that forecasts a single value gives it for every quantile and horizon.

The columns: wQL relative to the anchor on all sets and on those of `PUBLISHED`, coverage, then the .95 quantile at one step used as
the limit of the next step: slack, breaches, breaches of a fixed limit of equal slack; then relative wQL on arrivals, and seconds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from scipy.signal import lfilter
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from .protocol import (
    HORIZONS,
    LEVELS,
    PUBLISHED,
    Floats,
    Ints,
    Losses,
    Panel,
    Series,
    as_limits,
    directory,
    limit_origins,
    load_arrivals,
    load_demand,
    losses,
    origins,
    panels,
    relative,
)

HOUR, DAY, WEEK = 3600.0, 86400.0, 7 * 86400.0

RECENT = 288
"""Samples whose errors count, and that boosting sees: a day in steps of five minutes."""


class Peer(Protocol):
    """Whatever forecasts."""

    @property
    def name(self) -> str:
        """The name in the table."""
        ...

    def forecast(self, panel: Panel, places: Ints, horizons: Sequence[int]) -> Floats:
        """[S, places, horizons, Q]: quantiles of each series at each horizon from each place, using values up to it only."""
        ...


def trailing(values: Floats, places: Ints, size: int) -> Floats:
    """[S, places, size] the last values up to each place, NaN before the start of a series."""
    index = places[:, None] + np.arange(1 - size, 1)
    return np.where(index >= 0, values[:, np.maximum(index, 0)], np.nan)


def quantiles(values: Floats, levels: Sequence[float] = LEVELS) -> Floats:
    """[..., levels] quantiles of the values in the last axis that are known, interpolated as numpy does by default."""
    ordered = np.sort(values, axis=-1)
    last = np.maximum(np.isfinite(values).sum(axis=-1)[..., None] - 1, 0)
    rank = np.asarray(levels) * last
    low = rank.astype(np.int64)
    below = np.take_along_axis(ordered, low, axis=-1)
    above = np.take_along_axis(ordered, np.minimum(low + 1, last), axis=-1)
    return np.asarray(below + (rank - low) * (above - below))


def around(points: Sequence[Floats], panel: Panel, places: Ints, horizons: Sequence[int]) -> Floats:
    """Points with the empirical quantiles of their own errors over the last `RECENT` samples.

    `points[h]` [S, n] is the forecast made at each time for the value `horizons[h]` later; NaN: none.
    """
    said = []
    for horizon, point in zip(horizons, points, strict=True):
        errors = np.full(panel.values.shape, np.nan)
        errors[:, horizon:] = panel.values[:, horizon:] - point[:, :-horizon]
        said.append(point[:, places, None] + quantiles(trailing(errors, places, RECENT)))
    return np.stack(said, axis=2)


def ahead(said: Floats, horizons: Sequence[int]) -> Floats:
    """The same quantiles [S, places, Q] for all horizons."""
    return np.repeat(said[:, :, None, :], len(horizons), axis=2)


def single(said: Floats, horizons: Sequence[int]) -> Floats:
    """The same value [S, places] for all horizons and quantiles."""
    return np.broadcast_to(said[:, :, None, None], (*said.shape, len(horizons), len(LEVELS)))


@dataclass(frozen=True, slots=True)
class LastValue:
    """The last value with the quantiles of its own errors: the anchor, 1.00 by definition."""

    name: str = "last value"

    def forecast(self, panel: Panel, places: Ints, horizons: Sequence[int]) -> Floats:
        """See `Peer`."""
        return around([panel.values] * len(horizons), panel, places, horizons)


@dataclass(frozen=True, slots=True)
class Persistence:
    """The last value, for every quantile."""

    name: str = "raw persistence"

    def forecast(self, panel: Panel, places: Ints, horizons: Sequence[int]) -> Floats:
        """See `Peer`."""
        return single(panel.values[:, places], horizons)


@dataclass(frozen=True, slots=True)
class Ewma:
    """Exponentially weighted mean, started at the first value, with the quantiles of its own errors."""

    alpha: float = 0.3
    name: str = "EWMA(.3)"

    def forecast(self, panel: Panel, places: Ints, horizons: Sequence[int]) -> Floats:
        """See `Peer`."""
        level, _ = holt(panel.values, self.alpha, 0.0, 0.0)
        return around([level] * len(horizons), panel, places, horizons)


@dataclass(frozen=True, slots=True)
class WindowQuantile:
    """Quantiles of the last values themselves."""

    size: int

    @property
    def name(self) -> str:
        """With the size."""
        return f"window quantile {self.size}"

    def forecast(self, panel: Panel, places: Ints, horizons: Sequence[int]) -> Floats:
        """See `Peer`."""
        return ahead(quantiles(trailing(panel.values, places, self.size)), horizons)


@dataclass(frozen=True, slots=True)
class MovingMax:
    """The largest of the last values: one value for every quantile."""

    size: int = 12

    @property
    def name(self) -> str:
        """With the size."""
        return f"moving max {self.size}"

    def forecast(self, panel: Panel, places: Ints, horizons: Sequence[int]) -> Floats:
        """See `Peer`."""
        return single(np.nanmax(trailing(panel.values, places, self.size), axis=2), horizons)


@dataclass(frozen=True, slots=True)
class SeasonalNaive:
    """The value a day before, with the quantiles of its own errors; the last value where the history is shorter than a day."""

    name: str = "seasonal naive"

    def forecast(self, panel: Panel, places: Ints, horizons: Sequence[int]) -> Floats:
        """See `Peer`."""
        values, season = panel.values, round(DAY / panel.step)
        points = []
        for horizon in horizons:
            back = -(-horizon // season) * season - horizon
            points.append(values)
            if back + horizon < panel.history:
                points[-1] = np.full(values.shape, np.nan)
                points[-1][:, back:] = values[:, : values.shape[1] - back]
        return around(points, panel, places, horizons)


def holt(values: Floats, alpha: float, beta: float, damping: float) -> tuple[Floats, Floats]:
    """([S, n] level, [S, n] trend) of Holt's method with a damped trend (Gardner and McKenzie 1985), started at the first value.

    With e the error of what was said one step before, level' = level + damping trend + alpha e and trend' = damping trend + alpha
    beta e: a linear filter of second order of the values, which is how it is computed.
    """
    first = values[:, :1]
    poles = [1.0, -(1 - alpha) - damping * (1 - alpha * beta), (1 - alpha) * damping]
    level = first + lfilter([alpha, alpha * damping * (beta - 1)], poles, values - first, axis=1)
    trend = lfilter([alpha * beta, -alpha * beta], poles, values - first, axis=1)
    return level, trend


@dataclass(frozen=True, slots=True)
class Holt:
    """Holt's linear trend (1957) with the quantiles of its own errors; smoothing as fits the last of the history best.

    Each series has the pair of rates, and if the trend is damped the damping, with the least squared error at one step.
    """

    damped: bool = False

    RATES = tuple((alpha, beta) for alpha in (0.1, 0.2, 0.4, 0.7, 0.95) for beta in (0.02, 0.1, 0.3))
    DAMPING = (0.8, 0.9, 0.98)

    @property
    def name(self) -> str:
        """Plain or damped."""
        return "Holt, damped" if self.damped else "Holt"

    def forecast(self, panel: Panel, places: Ints, horizons: Sequence[int]) -> Floats:
        """See `Peer`."""
        history = panel.values[:, max(0, panel.history - 2000) : panel.history]
        choices = [(*rates, phi) for rates in self.RATES for phi in (self.DAMPING if self.damped else (1.0,))]
        errors = []
        for alpha, beta, phi in choices:
            level, trend = holt(history, alpha, beta, phi)
            errors.append(((history[:, 1:] - level[:, :-1] - phi * trend[:, :-1]) ** 2).mean(axis=1))
        best = np.argmin(errors, axis=0)
        level, trend = np.empty_like(panel.values), np.empty_like(panel.values)
        reach = np.empty((len(horizons), len(best), 1))  # how many times the trend is gone at each horizon
        for choice in np.unique(best):
            alpha, beta, phi = choices[choice]
            mine = best == choice
            level[mine], trend[mine] = holt(panel.values[mine], alpha, beta, phi)
            for h, horizon in enumerate(horizons):
                reach[h, mine] = sum(phi**step for step in range(1, horizon + 1))
        return around([level + trend * times for times in reach], panel, places, horizons)


def decayed(bins: Ints, places: Ints, half_life: float, count: int) -> Floats:
    """[S, places, count] weight in each bin of the values up to each place; `bins` [S, n]. It halves every so many samples."""
    n = int(places[-1]) + 1
    weight = 2.0 ** ((np.arange(n) - n) / half_life)
    part = np.searchsorted(places, np.arange(n))  # the first place that sees a value
    cell = (np.arange(len(bins))[:, None] * len(places) + part) * count + bins[:, :n]
    sums = np.bincount(cell.ravel(), np.broadcast_to(weight, cell.shape).ravel(), len(bins) * len(places) * count)
    return np.asarray(sums.reshape(len(bins), len(places), count).cumsum(axis=1))


def percentiles(histogram: Floats, ends: Floats, levels: Sequence[float]) -> Floats:
    """[S, places, levels] the end of the bin in which a histogram [S, places, bins] reaches each share; `ends` [S, bins]."""
    mass = histogram.cumsum(axis=2)
    found = [np.argmax(mass >= level * mass[:, :, -1:] * (1 - 1e-12), axis=2) for level in levels]
    return np.take_along_axis(ends[:, None, :], np.stack(found, axis=2), axis=2)


def largest(panel: Panel) -> Floats:
    """[S, 1] largest value of each history, 1 where that is 0."""
    most = np.abs(panel.values[:, : panel.history]).max(axis=1, keepdims=True)
    return np.asarray(np.where(most > 0, most, 1.0))


def exponential(panel: Panel, places: Ints, levels: Sequence[float]) -> Floats:
    """[S, places, levels] percentiles of VPA's decaying histogram.

    Bins are each 5 % wider than the one before, weights halve in 24 hours, and a percentile is the end of its bin:
    recommender/util/histogram.go and model/aggregations_config.go of kubernetes/autoscaler. VPA's first bin is 0.01 of a core;
    here it is a thousandth of the largest value of the history, because series have all kinds of units.
    """
    growth, count = 1.05, 180
    first = largest(panel) / 1000
    bins = np.floor(np.log1p(np.maximum(panel.values, 0) / first * (growth - 1)) / np.log(growth)).astype(np.int64)
    ends = first * (growth ** np.arange(1, count + 1) - 1) / (growth - 1)
    return percentiles(decayed(np.minimum(bins, count - 1), places, DAY / panel.step, count), ends, levels)


@dataclass(frozen=True, slots=True)
class Vpa:
    """The decaying histogram of Kubernetes' Vertical Pod Autoscaler, its own percentiles as quantiles.

    Its rule for CPU. That for memory takes one peak a day, of which most of these series have only one.
    """

    name: str = "VPA histogram"

    def forecast(self, panel: Panel, places: Ints, horizons: Sequence[int]) -> Floats:
        """See `Peer`."""
        return ahead(exponential(panel, places, LEVELS), horizons)


@dataclass(frozen=True, slots=True)
class VpaTarget:
    """The request that VPA would set: the 90th percentile plus 15 %. One value for every quantile."""

    name: str = "VPA target"

    def forecast(self, panel: Panel, places: Ints, horizons: Sequence[int]) -> Floats:
        """See `Peer`."""
        return single(1.15 * exponential(panel, places, (0.9,))[:, :, 0], horizons)


def window_statistics(panel: Panel, places: Ints) -> Floats:
    """[S, places, Q] Autopilot's statistics of a moving window: weighted mean S_avg, and S_p90 and S_p95 of the load-adjusted
    histogram, whose weight in a bin is the use in it. Half-life 12 hours, 400 bins."""
    count = 400
    ends = 2 * largest(panel) * np.arange(1, count + 1) / count
    bins = np.clip(panel.values / ends[:, :1], 0, count - 1).astype(np.int64)
    histogram = decayed(bins, places, 12 * HOUR / panel.step, count)
    load = histogram * ends[:, None, :]
    mean = (histogram * (ends - ends[:, :1] / 2)[:, None, :]).sum(axis=2) / histogram.sum(axis=2)
    return np.concatenate([mean[..., None], percentiles(load, ends, LEVELS[1:])], axis=2)


@dataclass(frozen=True, slots=True)
class AutopilotWindow:
    """Google Autopilot's moving window recommender (Rzadca et al., EuroSys 2020, section 3.2.2): mean, 90th and 95th percentile."""

    name: str = "Autopilot window"

    def forecast(self, panel: Panel, places: Ints, horizons: Sequence[int]) -> Floats:
        """See `Peer`."""
        return ahead(window_statistics(panel, places), horizons)


@dataclass(frozen=True, slots=True)
class AutopilotLimit:
    """The limit that Autopilot's window sets: 15 % over the largest S_p95 of the last hour. One value for every quantile."""

    name: str = "Autopilot window limit"

    def forecast(self, panel: Panel, places: Ints, horizons: Sequence[int]) -> Floats:
        """See `Peer`."""
        stride = max(1, round(300 / panel.step))  # it runs every 5 minutes
        looks = np.maximum(places[:, None] - stride * np.arange(max(1, round(HOUR / panel.step / stride))), 0)
        seen, which = np.unique(looks, return_inverse=True)
        upper = window_statistics(panel, seen)[:, :, -1]
        return single(1.15 * upper[:, which.reshape(looks.shape)].max(axis=2), horizons)


def stretches(values: Floats, places: Ints, memory: int) -> Iterator[tuple[slice, Floats, Ints]]:
    """(which places, [S, m] the values that they need, those places in them). Places farther apart than `memory` are handled
    separately, so that the cost of a series of millions of values depends only on the values that are used."""
    cuts = [0, *(np.flatnonzero(np.diff(places) > memory) + 1).tolist(), len(places)]
    for low, high in pairwise(cuts):
        start = max(0, int(places[low]) - memory)
        yield slice(low, high), values[:, start : int(places[high - 1]) + 1], places[low:high] - start


@dataclass(frozen=True, slots=True)
class AutopilotModels:
    """Google Autopilot's bank of models (Rzadca et al., EuroSys 2020, section 3.2.3), once for each quantile.

    A model has a decay and a margin. It takes the limit with the least decayed cost of overrun and underrun, and adds its margin.
    The model with the least recent cost is followed. Costs are amounts over and under the limit, weighted q : 1 - q. The paper
    counts samples instead, so that any limit above the peak costs the same, and does not publish its weights, decays or margins.
    The costs of changing a limit or model are left out, because they only keep limits constant. A sample is a window.
    """

    name: str = "Autopilot models"

    HALF_LIVES = (2.0, 8.0, 48.0, 288.0)
    MARGINS = (0.0, 0.05, 0.15)
    COST_HALF_LIFE = 48.0
    LIMITS = 64
    MEMORY = 2048

    def forecast(self, panel: Panel, places: Ints, horizons: Sequence[int]) -> Floats:
        """See `Peer`."""
        said = np.empty((len(panel.values), len(places), len(LEVELS)))
        for which, values, inside in stretches(panel.values, places, self.MEMORY):
            known = values[:, : inside[0] + 1]
            low, high = known.min(axis=1, keepdims=True), known.max(axis=1, keepdims=True)
            room = 0.5 * np.where(high > low, high - low, np.maximum(np.abs(high), 1e-9))
            least = np.maximum(low - room, np.minimum(low, 0))
            limits = least + (high + room - least) * np.linspace(0, 1, self.LIMITS)
            chosen = [self._follow(values, limits, level)[:, inside] for level in LEVELS]
            said[:, which] = np.sort(np.stack(chosen, axis=2), axis=2)
        return ahead(said, horizons)

    def _follow(self, values: Floats, limits: Floats, level: float) -> Floats:
        """[S, n] the limit of the best model at each time."""
        over = np.maximum(values[:, :, None] - limits[:, None, :], 0.0)
        under = over + limits[:, None, :] - values[:, :, None]
        cost = level * over + (1 - level) * under
        best, paid = None, None
        for half_life in self.HALF_LIVES:
            kept = 0.5 ** (1 / half_life)
            found = np.argmin(lfilter([1 - kept], [1, -kept], cost, axis=1), axis=2)
            plain = np.take_along_axis(limits, found, axis=1)
            for margin in self.MARGINS:
                limit = plain * (1 + margin)
                error = values[:, 1:] - limit[:, :-1]
                lost = np.maximum(level * error, (level - 1) * error)
                kept_cost = 0.5 ** (1 / self.COST_HALF_LIFE)
                spent = np.pad(lfilter([1 - kept_cost], [1, -kept_cost], lost, axis=1), ((0, 0), (1, 0)))
                if best is None or paid is None:
                    best, paid = limit, spent
                else:
                    best, paid = np.where(spent < paid, limit, best), np.minimum(spent, paid)
        assert best is not None
        return np.asarray(best)


def periodic(values: Floats, lag: int, step: float, rng: np.random.Generator) -> bool:
    """Whether crane finds this period. Its frequency must have more power than the 99th of the maxima of 100 shuffled series. The
    autocorrelation must have a peak at the lag: a line through the values before it rises, and one through those after it falls."""
    whole = values[len(values) % lag :]
    shuffled = rng.permuted(np.broadcast_to(whole, (100, len(whole))), axis=1)
    chance = np.sort(np.abs(np.fft.rfft(shuffled, axis=1)[:, 1 : len(whole) // 2]).max(axis=1))[98]
    if np.abs(np.fft.rfft(whole))[len(whole) // lag] <= chance:
        return False
    centred = whole - whole.mean()
    spectrum = np.abs(np.fft.rfft(centred, 2 * len(whole))) ** 2
    correlation = np.fft.irfft(spectrum)[: len(whole)]
    reach = max(1, min(int(4 * HOUR / step), lag // 2))
    before, after = correlation[lag - reach : lag + 1], correlation[lag : lag + reach + 1]
    rising, falling = (np.polynomial.polynomial.polyfit(np.arange(len(side)), side, 1)[1] for side in (before, after))
    return bool(rising > 0 > falling)


@dataclass(frozen=True, slots=True)
class Crane:
    """crane's DSP (gocrane/crane, pkg/prediction/dsp): the last period less its noise, and a margin. One value for every quantile.

    Looks for a period of an hour, a day and a week in the history. If there is one, it chooses in each period the best of eight
    estimators (spectra cut at two amplitudes, margins of 1, 10, 15 and 20 %): the one that would have forecast the last period
    best, where too little counts more. If there is none, crane uses a decaying histogram, and so does this. Amplitudes are in
    percent of the largest value, as for a CPU.
    """

    name: str = "crane DSP"
    seed: int = 1

    CUTS = ((3, 1.0), (50, 0.05))  # (items of the spectrum kept at least, amplitude kept at least)
    MOST = 100
    MARGINS = (0.01, 0.10, 0.15, 0.20)

    def forecast(self, panel: Panel, places: Ints, horizons: Sequence[int]) -> Floats:
        """See `Peer`."""
        rng = np.random.default_rng(self.seed)
        said = ahead(exponential(panel, places, LEVELS), horizons)
        for row, values in enumerate(panel.values):
            history = values[max(0, panel.history - round(WEEK / panel.step)) : panel.history]
            for period in (HOUR, DAY, WEEK):
                lag = round(period / panel.step)
                if lag >= 4 and len(history) >= 2 * lag and periodic(history, lag, panel.step, rng):
                    unit = float(largest(panel)[row, 0]) / 100
                    said[row] = self._repeat(values / unit, panel, places, horizons, lag)[:, :, None] * unit
                    break
        return said

    def _repeat(self, values: Floats, panel: Panel, places: Ints, horizons: Sequence[int], lag: int) -> Floats:
        """[places, horizons] from the period before, estimated at the end of the history and again after every period."""
        said = np.empty((len(places), len(horizons)))
        renewed = panel.history - 1 + (places - panel.history + 1) // lag * lag
        for at in np.unique(renewed):
            past = values[max(0, at + 1 - round(WEEK / panel.step)) : at + 1]
            past = past[len(past) % lag :]
            cut, margin = self._best(past, lag, panel.step)
            cycle = self._cycle(past, cut, lag, panel.step) * (1 + margin)
            mine = renewed == at
            said[mine] = cycle[(places[mine, None] - at - 1 + np.asarray(horizons)) % lag]
        return said

    def _best(self, past: Floats, lag: int, step: float) -> tuple[tuple[int, float], float]:
        came = past[-lag:]
        least, chosen = np.inf, (self.CUTS[0], self.MARGINS[0])
        if len(past) < 2 * lag:
            return chosen
        for cut in self.CUTS:
            cycle = self._cycle(past[:-lag], cut, lag, step)
            for margin in self.MARGINS:
                error = cycle * (1 + margin) - came
                if came.min() < 1e-3:  # too near 0 for relative errors
                    cost = float(np.abs(error).mean())
                else:
                    share = np.minimum(np.abs(error) / came, np.where(error < 0, 1 - 1e-9, np.inf))
                    cost = float(np.where(error < 0, -np.log1p(-np.where(error < 0, share, 0)) / np.log(1.25), share).mean())
                if cost < least:
                    least, chosen = cost, (cut, margin)
        return chosen

    def _cycle(self, past: Floats, cut: tuple[int, float], lag: int, step: float) -> Floats:
        """[lag] the last period of `past`, without components that are both faster than an hour and weak."""
        items, floor = cut
        spectrum = np.fft.rfft(past)
        amplitude = np.abs(spectrum) / len(past)
        ordered = np.sort(amplitude[1 : len(past) // 2])[::-1]
        least = max(floor, float(ordered[min(self.MOST, len(ordered)) - 1]))
        if len(ordered) >= items:
            least = min(least, float(ordered[items - 1]))
        spectrum[(amplitude < least) & (np.fft.rfftfreq(len(past), step) > 1 / HOUR)] = 0
        return np.asarray(np.maximum(np.fft.irfft(spectrum, len(past))[-lag:], 0.01))


LAGS = (1, 2, 3, 4, 5, 6, 8, 11, 17, 23, 35, 47)
MEANS = (3, 6, 12, 24, 48, 96, 288)
EXTREMES = (6, 12, 24, 48, 288)
SPREADS = (12, 48)
ROWS = 50_000
"""Origins that boosting is fitted on: of the own set, or of all other sets together. Chosen."""


def boosting_rows(panel: Panel, places: Ints, horizon: int) -> tuple[Floats, Floats, Floats]:
    """([S, places, features], [S, places] last value, [S, places] level: the unit of features, and of the target less the last)."""
    past = trailing(panel.values, places, RECENT)
    last = past[:, :, -1]
    level = np.nanmean(np.abs(past[:, :, -48:]), axis=2)
    longer = np.nanmean(np.abs(past), axis=2)
    level = np.where(level > 0, level, np.where(longer > 0, longer, 1.0))
    columns = [past[:, :, -1 - lag] for lag in LAGS]
    for reduce, sizes in ((np.nanmean, MEANS), (np.nanmax, EXTREMES), (np.nanmin, EXTREMES)):
        columns += [reduce(past[:, :, -size:], axis=2) for size in sizes]
    for period in (HOUR, DAY):
        lag = round(period / panel.step)
        index = places + horizon - max(1, -(-horizon // max(lag, 1))) * lag
        columns.append(np.where((index >= 0) & (lag >= 4), panel.values[:, np.maximum(index, 0)], last))
    columns = [column - last for column in columns]
    columns += [last, *(np.nanstd(past[:, :, -size:], axis=2) for size in SPREADS)]
    return np.stack(columns, axis=2) / level[:, :, None], last, level


@dataclass(frozen=True, slots=True)
class Boosting:
    """Gradient boosting with lags: scikit-learn's histogram trees with quantile loss, one model for each horizon and quantile.

    The features are lags, rolling means, maxima and minima, and the values an hour and a day before the target. The trees forecast
    the difference of the target to the last value. Everything is in units of the level. Settings and features were tuned until the
    published .858 and .661 were reached, and not further.
    """

    name: str
    models: Mapping[str, Sequence[Sequence[HistGradientBoostingRegressor]]]  # by set; at HORIZONS and LEVELS
    metrics: Mapping[str, Sequence[str]]  # by set: metrics that its models distinguish; none for models of other sets

    def forecast(self, panel: Panel, places: Ints, horizons: Sequence[int]) -> Floats:
        """See `Peer`."""
        said = []
        for horizon in horizons:
            rows, last, level = boosting_rows(panel, places, horizon)
            flat = _with_metric(rows.reshape(-1, rows.shape[2]), panel.metric, self.metrics[panel.dataset])
            models = self.models[panel.dataset][HORIZONS.index(horizon)]
            moved = np.stack([model.predict(flat) for model in models], axis=1).reshape(*level.shape, len(LEVELS))
            said.append(last[:, :, None] + np.sort(moved, axis=2) * level[:, :, None])
        return np.stack(said, axis=2)


def fit_boosting(others: bool, series: Sequence[Series], seed: int = 1) -> Boosting:
    """Fit models for each set on the histories of its own series, or with `others` only on those of all other sets."""
    sets = sorted({one.dataset for one in series})
    members = {name: [one for one in series if one.dataset == name] for name in sets}
    metrics = {name: [] if others else sorted({one.metric for one in members[name]}) for name in sets}
    share = ROWS // (len(sets) - 1) if others else ROWS
    examples = {name: [_example(members[name], horizon, share, metrics[name]) for horizon in HORIZONS] for name in sets}
    models = {}
    for name in sets:
        used = [other for other in sets if (other != name) == others]
        models[name] = [
            [_tree([examples[other][h] for other in used], level, seed) for level in LEVELS] for h in range(len(HORIZONS))
        ]
    return Boosting("boosting, other sets" if others else "boosting, own set", models, metrics)


def _with_metric(rows: Floats, metric: str, metrics: Sequence[str]) -> Floats:
    return np.column_stack([rows, np.full(len(rows), float(metrics.index(metric)))]) if len(metrics) > 1 else rows


def _example(series: Sequence[Series], horizon: int, most: int, metrics: Sequence[str]) -> tuple[Floats, Floats]:
    """(rows, targets) from about `most` origins, equally many of each metric, evenly spaced in the histories.

    wQL counts the size of an error, so rows are repeated or left out in proportion to their level. Weights would do the same, but
    scikit-learn 1.9 spends more time on binning by weighted percentiles than on everything else.
    """
    found: list[tuple[Floats, Floats]] = []
    names = sorted({one.metric for one in series})
    for name in names:
        own = [one for one in series if one.metric == name]
        each = max(1, most // (len(names) * len(own)))
        parts = []
        for _, panel in panels(own):
            last = panel.history - 1 - horizon
            places = np.unique(np.linspace(min(24, last), last, each).astype(np.int64))
            rows, now, level = boosting_rows(panel, places, horizon)
            moved = (panel.values[:, places + horizon] - now) / level
            flat = _with_metric(rows.reshape(moved.size, -1), name, metrics)
            parts.append((flat, moved.ravel(), level.ravel()))
        rows, moved, level = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        share = np.cumsum(level) / level.sum()
        chosen = np.searchsorted(share, (np.arange(len(level)) + 0.5) / len(level))
        found.append((rows[chosen], moved[chosen]))
    rows, moved = (np.concatenate(columns) for columns in zip(*found, strict=True))
    return rows, moved


def _tree(examples: Sequence[tuple[Floats, Floats]], level: float, seed: int) -> HistGradientBoostingRegressor:
    rows, moved = (np.concatenate(columns) for columns in zip(*examples, strict=True))
    model = HistGradientBoostingRegressor(
        loss="quantile", quantile=level, max_iter=100, max_leaf_nodes=15, min_samples_leaf=30, max_bins=128, random_state=seed
    )
    with threadpool_limits(1):
        return model.fit(rows, moved)


PEERS: tuple[Peer, ...] = (
    LastValue(),
    Ewma(),
    WindowQuantile(12),
    WindowQuantile(48),
    WindowQuantile(288),
    MovingMax(),
    SeasonalNaive(),
    Persistence(),
    Holt(),
    Holt(damped=True),
    Vpa(),
    VpaTarget(),
    AutopilotWindow(),
    AutopilotLimit(),
    AutopilotModels(),
    Crane(),
)
"""All peers that need no fitting, the anchor first."""


def forecasts(peer: Peer, series: Sequence[Series]) -> list[Floats]:
    """For `losses`: [origins, H, Q] of each series."""
    return _each(series, lambda panel: peer.forecast(panel, origins(panel), HORIZONS))


def limits(peer: Peer, series: Sequence[Series], hold: int = 1) -> list[Floats]:
    """For `as_limits`: the .95 quantile at one step, [n] of each series."""
    return _each(series, lambda panel: peer.forecast(panel, limit_origins(panel, hold), (1,))[:, :, 0, -1])


def _each(series: Sequence[Series], ask: Callable[[Panel], Floats]) -> list[Floats]:
    said: dict[int, Floats] = {}
    for places, panel in panels(series):
        said.update(zip(places.tolist(), ask(panel), strict=True))
    return [said[place] for place in range(len(series))]


def row(found: Losses, anchor: Losses) -> dict[str, Any]:
    """A forecaster's row of the table and the JSON."""
    ratios = found.wql() / anchor.wql()
    return {
        "relative_wql": relative(found, anchor),
        "by_group": dict(zip(found.groups, ratios.tolist(), strict=True)),
        "coverage": found.coverage().tolist(),
        "coverage_by_set": {name: shares.tolist() for name, shares in found.coverage_by_set().items()},
    }


COLUMNS = ("wQL", "7 sets", "cover .9", "cover .95", "slack", "breaches", "of fixed", "arrivals", "seconds")


def main() -> int:
    """Measure every peer and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    data = directory(given.data)
    tracks = {"demand": load_demand(data), "arrivals": load_arrivals(data)}
    anchors = {track: losses(series, forecasts(PEERS[0], series)) for track, series in tracks.items()}
    report: dict[str, dict[str, Any]] = {}
    print(f"{'':<24}", *(f"{column:>9}" for column in COLUMNS))
    makers: list[Callable[[Sequence[Series]], Peer]] = [partial(_as_it_is, peer) for peer in PEERS]
    makers += [partial(fit_boosting, others) for others in (False, True)]
    for make in makers:
        begin = time.perf_counter()
        found: dict[str, Any] = {}
        made = {track: make(series) for track, series in tracks.items()}
        for track, series in tracks.items():
            peer = made[track]
            lost = losses(series, forecasts(peer, series))
            found[track] = row(lost, anchors[track])
            if track == "demand":
                found[track]["relative_wql_published_sets"] = relative(lost, anchors[track], PUBLISHED)
                found["limits"] = as_limits(series, limits(peer, series)).row()
        found["seconds"] = time.perf_counter() - begin
        name = made["demand"].name
        report[name] = found
        demand, limit = found["demand"], found["limits"]
        ratios = (demand["relative_wql"], demand["relative_wql_published_sets"])
        shares = (*demand["coverage"][1:], limit["slack"], limit["breaches"], limit["fixed"])
        cells = [*(f"{ratio:.3f}" for ratio in ratios), *(f"{share:.1%}" for share in shares)]
        cells += [f"{found['arrivals']['relative_wql']:.3f}", f"{found['seconds']:.0f}"]
        print(f"{name:<24}", *(f"{cell:>9}" for cell in cells), flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def _as_it_is(peer: Peer, _: Sequence[Series]) -> Peer:
    return peer


if __name__ == "__main__":
    raise SystemExit(main())
