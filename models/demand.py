"""Forecasts demand: the rows that the model sees, the trained model, and the forecaster that speaks for it at run time. Pure.

The model corrects the last value by what tree ensembles say, in units of how much the series moves, so one model serves groups of
any size and any metric. `Forecaster` lets it speak only where there is evidence, and keeps quantiles right by how they came out.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .baseline import FALLBACK, LARGEST, Floats, Forecasts, History, Ints, finish, history, period, seasonal_points
from .records import HORIZONS, QUANTILES, WINDOW
from .trees import Arrays, Trees

Values = tuple[tuple[float, ...], ...]

METRICS: tuple[str, ...] = ("cpu", "rss", "load")
"""What is forecast, see `records.Forecast`: a model may be good at one and not at another."""

MIN_TICKS = 16
"""Ticks of history below which a model says what the baseline says: training has seen no shorter ones."""

_LAGS = (1, 2, 3, 4, 5, 7, 9, 11, 15, 23, 31, 47, 63)
_MEANS = (3, 6, 12, 24, 48, 128)
_EXTREMES = (6, 12, 48, 128)

_RELATIVE = (
    *(f"lag {k}" for k in _LAGS),
    *(f"mean {k}" for k in _MEANS),
    *(f"maximum {k}" for k in _EXTREMES),
    *(f"minimum {k}" for k in _EXTREMES),
    "median 48",
    "median 128",
    "quantile .9",
)
_SHAPE = ("last", "mean", "step", "moves 6", "moves 24", "scale", "of largest", "changes", "period", "ticks")
_AHEAD = ("last", "season", "season before", "season shift", "baseline .5", "baseline .9", "baseline .99")
_HORIZON = ("point scale", "seasonal", "horizon")

DEMAND_FEATURES: tuple[str, ...] = (*_RELATIVE, *_SHAPE, *(f"ahead {name}" for name in _AHEAD), *_HORIZON)
"""Columns of a demand row: values less the last one in units of how much the series moves; figures of its shape; values less the
point that is corrected ("ahead"), in units of that point's usual error; and what belongs to the horizon."""


@dataclass(frozen=True, slots=True)
class Design:
    """What a model is given of series, and how its answers become values."""

    past: History
    rows: Floats  # [n, len(HORIZONS), len(DEMAND_FEATURES)], finite where anything is known
    point: Floats  # [n, H] what is corrected, in units of `past`
    scale: Floats  # [n, H] its mean absolute error over the window, likewise; 0: it made none

    def values(self, answers: Floats) -> Floats:
        """Forecasts [n, H, Q] from quantiles of the error of the point in units of its scale."""
        return finish(self.past, self.point[:, :, None] + self.scale[:, :, None] * answers)

    def answers(self, values: Floats) -> Floats:
        """The inverse, for values [n, H] that came true; NaN where the scale is 0."""
        scale = np.where(self.scale > 0, self.scale, np.nan)
        return np.asarray((values / self.past.unit[:, None] - self.point) / scale)


def design(windows: Floats, lengths: Ints, baseline: Floats | None = None) -> Design:
    """Demand rows of series, one for each horizon, and their scaling. Before its start a series stands at its first value.

    `baseline`: what `FALLBACK` predicts of them, if the caller knows already.
    """
    past = history(windows, lengths)
    n = len(past.values)
    start = np.clip(WINDOW - past.counts, 0, WINDOW - 1)
    first = past.values[np.arange(n), start]
    values = np.where(np.isnan(past.values), first[:, None], past.values)
    last = values[:, -1]
    moves = np.abs(np.diff(values, axis=1))
    mean = values.mean(axis=1)
    scale = 0.25 * moves[:, -32:].mean(axis=1) + 0.25 * moves.mean(axis=1) + 0.5 * np.abs(values - mean[:, None]).mean(axis=1)
    scale = np.where(scale > 1e-12, scale, 0.0)  # in units of the largest value: what rounding leaves of a constant
    unit = np.where(scale > 0, scale, 1.0)[:, None]
    ordered, recent = np.sort(values, axis=1), np.sort(values[:, -48:], axis=1)
    statistics = [
        *(values[:, -k:].mean(axis=1) for k in _MEANS),
        *(values[:, -k:].max(axis=1) for k in _EXTREMES),
        *(values[:, -k:].min(axis=1) for k in _EXTREMES),
        recent[:, 24],
        ordered[:, WINDOW // 2],
        ordered[:, int(0.9 * WINDOW)],
    ]
    lagged = values[:, [-1 - k for k in _LAGS]]
    relative = (np.concatenate([lagged, np.stack(statistics, axis=1)], axis=1) - last[:, None]) / unit
    periods = period(past)
    in_scale = np.stack(
        [last, mean, values[:, -1] - values[:, -2], moves[:, -6:].mean(axis=1), moves[:, -24:].mean(axis=1)], axis=1
    )
    shape = np.stack([scale, last, (moves > 0).mean(axis=1), periods / WINDOW, past.counts / WINDOW], axis=1)
    common = np.concatenate([relative, in_scale / unit, shape], axis=1)
    ahead = _ahead(past, values, periods)
    base = (FALLBACK.predict(windows, lengths) if baseline is None else baseline) / past.unit[:, None, None]
    near = np.stack(
        [np.broadcast_to(last[:, None], ahead.season.shape), ahead.season, ahead.before, ahead.point + ahead.shift], axis=2
    )
    near = np.concatenate([near, base[:, :, [0, 1, 3]]], axis=2)
    point_unit = np.where(ahead.scale > 0, ahead.scale, 1.0)
    rows = np.empty((n, len(HORIZONS), len(DEMAND_FEATURES)))
    at = common.shape[1]
    rows[:, :, :at] = common[:, None, :]
    rows[:, :, at : at + len(_AHEAD)] = (near - ahead.point[:, :, None]) / point_unit[:, :, None]
    rows[:, :, -3] = ahead.scale / unit
    rows[:, :, -2] = ahead.seasonal
    rows[:, :, -1] = HORIZONS
    return Design(past, rows, ahead.point, ahead.scale)


@dataclass(frozen=True, slots=True)
class _Ahead:
    """Points to correct, one for each series and horizon, all [n, H]."""

    point: Floats  # the seasonal value where that has been better over the window, else the last value
    scale: Floats  # its mean absolute error
    seasonal: NDArray[np.bool_]
    season: Floats  # the value a whole number of periods before; the last value where there is no period
    before: Floats  # the same one period earlier, where the window reaches so far
    shift: Floats  # how the last value differs from that one period ago; 0 where there is no period


def _ahead(past: History, values: Floats, periods: Ints) -> _Ahead:
    season, back = seasonal_points(past, periods)
    last = values[:, -1:]
    rows = np.arange(len(values))[:, None]
    earlier = WINDOW - 1 + np.asarray(HORIZONS) - back - periods[:, None]
    before = np.where(earlier >= 0, values[rows, np.maximum(earlier, 0)], season)
    shift = np.where(periods > 0, last[:, 0] - values[rows[:, 0], WINDOW - 1 - periods], 0.0)
    error, seasonal_error = np.empty_like(season), np.full_like(season, np.inf)
    for h, horizon in enumerate(HORIZONS):
        known = np.maximum(past.counts - horizon, 1)
        error[:, h] = np.abs(values[:, horizon:] - values[:, :-horizon]).sum(axis=1) / known
    has = np.flatnonzero(periods > 0)
    if len(has):  # the error over one period serves for several: where a period lasts, they are alike
        source = np.arange(WINDOW) - periods[has, None]
        known = source >= WINDOW - past.counts[has, None]
        missed = np.abs(values[has] - values[has[:, None], np.maximum(source, 0)])
        seasonal_error[has] = (np.where(known, missed, 0.0).sum(axis=1) / np.count_nonzero(known, axis=1))[:, None]
    seasonal = seasonal_error < error
    scale = np.where(seasonal, seasonal_error, error)
    scale = np.where(scale > 1e-12, scale, 0.0)  # in units of the largest value: what rounding leaves of a constant
    return _Ahead(
        np.where(seasonal, season, last), scale, seasonal, season, before, np.repeat(shift[:, None], len(HORIZONS), axis=1)
    )


def demand_rows(windows: Floats, lengths: Ints) -> Floats:
    """[n, len(HORIZONS), len(DEMAND_FEATURES)]: what the model sees of each series at each horizon. Free of scale."""
    return design(windows, lengths).rows


class DemandModel(Forecasts, Protocol):
    """A forecaster that `Forecaster` can ask: `TreeDemand`, or what takes its place."""

    def predict(self, windows: Floats, lengths: Ints, baseline: Floats | None = None) -> Floats:
        """See `baseline.Forecasts`; `baseline`: what `FALLBACK` predicts of the same series, if the caller knows already."""
        ...


class TreeDemand:
    """The trained model: one tree ensemble a quantile, and an offset for each horizon and quantile that calibration found.

    `speaks`: the metrics at which it beat the baselines when it was promoted; of the others it is not to be asked.
    """

    def __init__(self, arrays: Arrays, digest: str) -> None:
        """`arrays`: those of `trees`, `offsets` [H, Q], `speaks` [len(METRICS)]. Raises ValueError for arrays of no such model."""
        own = ("offsets", "speaks")
        self._trees = Trees({name: array for name, array in arrays.items() if name not in own}, len(DEMAND_FEATURES))
        if len(arrays["roots"]) != len(QUANTILES):
            raise ValueError(f"{len(arrays['roots'])} ensembles for {len(QUANTILES)} quantiles")
        offsets = arrays.get("offsets")
        if offsets is None or offsets.shape != (len(HORIZONS), len(QUANTILES)) or offsets.dtype != np.float64:
            raise ValueError(f"offsets must be float64 {(len(HORIZONS), len(QUANTILES))}")
        if not (np.abs(offsets) <= 1e6).all():
            raise ValueError("offsets are not finite, or absurdly large")
        speaks = arrays.get("speaks")
        if speaks is None or speaks.shape != (len(METRICS),) or speaks.dtype != np.bool_:
            raise ValueError(f"speaks must be bool ({len(METRICS)},)")
        self._offsets = offsets
        self.speaks = frozenset(metric for metric, good in zip(METRICS, speaks.tolist(), strict=True) if good)
        self.digest = digest

    @property
    def name(self) -> str:
        """What `Forecast.source` says."""
        return f"demand {self.digest[:8]}"

    def predict(self, windows: Floats, lengths: Ints, baseline: Floats | None = None) -> Floats:
        """See `DemandModel`."""
        if baseline is None:
            baseline = FALLBACK.predict(windows, lengths)
        made = design(windows, lengths, baseline)
        said = made.values(self.answers(made) + self._offsets)
        return np.asarray(np.where((made.past.counts >= MIN_TICKS)[:, None, None], said, baseline))

    def answers(self, made: Design) -> Floats:
        """[n, H, Q] what the trees say, without the offsets: what calibration starts from."""
        n, horizons, features = made.rows.shape
        answers = self._trees.predict(made.rows.reshape(n * horizons, features))
        return np.sort(answers.reshape(n, horizons, len(QUANTILES)), axis=2)


COMMON_RATE, OWN_RATE = 0.01, 0.005
"""Steps of the online correction for all series together and for one, in widths of the forecast. It is an insurance: on the public
traces, where quantiles were right already, it costs 1.6 % of accuracy (arrivals 3.3 %), twice these rates 4.5 % (6.7 %); on series
unlike any of the training it brings a coverage of 86 % at .9 to 90 % (benchmarks/training.py)."""

MOST_DOWN, MOST_UP = -0.5, 3.0
"""Bounds of a correction, in widths of the forecast."""

ABSURD = 100.0
"""A forecast above so many times the largest value of its window is refused: no row that the model learned from says so much."""


class Forecaster:
    """Forecasts many series tick by tick: the model where it may and can speak, the baseline elsewhere.

    The quantiles of both are corrected by how earlier ones came out: adaptive conformal inference, in the form of quantile tracking
    (Angelopoulos, Candès, Tibshirani 2023, "Conformal PID control for time series prediction"). Each quantile of each horizon moves
    up by rate x level when the value was above it, down by rate x (1 - level) when below. A correction is common to all series of
    the same source, plus the series' own. State is bounded by the most series of a step; the same steps give the same forecasts.
    """

    def __init__(self, model: DemandModel | None) -> None:
        self._model = model
        self.trouble = ""  # why the model could not speak where it was asked, at the last step; "" for nothing
        self._slots: dict[Hashable, int] = {}
        self._free: list[int] = []
        shape = (len(HORIZONS), len(QUANTILES))
        self._common = np.zeros((2, *shape))  # of the baseline, of the model
        self._own = np.zeros((0, *shape))
        self._by_model = np.zeros((0, max(HORIZONS)), dtype=np.int64)
        self._pending = np.zeros((0, max(HORIZONS), *shape))  # [slot, tick modulo max(HORIZONS)]; NaN: none was made
        self._tick = -1

    def step(self, keys: Sequence[Hashable], windows: Floats, lengths: Ints, ask: NDArray[np.bool_]) -> list[tuple[Values, str]]:
        """(values as in `records.Forecast`, source) for each series, from its window up to now.

        To be called once a tick; a series that is left out is forgotten. `ask`: where the model should speak if it can. Raises
        ValueError for a series of which no value is known: leave it out.
        """
        self._tick += 1
        slots = self._assign(keys)
        if not len(keys):
            return []
        forecasts = FALLBACK.predict(windows, lengths)
        if np.isnan(forecasts).any():
            raise ValueError("a series has no known value in its window: there is nothing to forecast it from")
        by_model = self._ask(windows, lengths, ask, forecasts)
        self._learn(slots, windows[:, -1])
        correction = self._common[by_model.astype(np.int64)] + self._own[slots]
        width = forecasts[:, :, -1:] - forecasts[:, :, :1]
        forecasts = np.clip(np.sort(forecasts + correction * width, axis=2), 0.0, LARGEST)
        now = self._tick % max(HORIZONS)
        self._pending[slots, now] = forecasts
        self._by_model[slots, now] = by_model
        sources = (f"baseline {FALLBACK.name}", self._model.name if self._model is not None else "")
        return [
            (tuple(map(tuple, values)), sources[spoke]) for values, spoke in zip(forecasts.tolist(), by_model.tolist(), strict=True)
        ]

    def _ask(self, windows: Floats, lengths: Ints, ask: NDArray[np.bool_], forecasts: Floats) -> NDArray[np.bool_]:
        """Overwrite `forecasts` with the model's where it is asked, has enough to go by and makes sense; says where."""
        self.trouble = ""
        spoke = np.zeros(len(windows), dtype=np.bool_)
        known = np.isfinite(windows)
        asked = np.flatnonzero(ask & (np.minimum(np.count_nonzero(known, axis=1), lengths) >= MIN_TICKS))
        if self._model is None or not len(asked):
            return spoke
        try:
            said = np.asarray(self._model.predict(windows[asked], lengths[asked], forecasts[asked]), dtype=np.float64)
        except Exception as error:  # a model is data from outside: whatever it breaks, the baseline speaks
            self.trouble = f"{self._model.name} failed: {type(error).__name__}: {error}"
            return spoke
        if said.shape != forecasts[asked].shape:
            self.trouble = f"{self._model.name} gave shape {said.shape} instead of {forecasts[asked].shape}"
            return spoke
        largest = np.max(windows[asked], axis=1, initial=0.0, where=known[asked])
        with np.errstate(over="ignore", invalid="ignore"):
            sane = (said >= 0) & (said <= ABSURD * largest[:, None, None])
            sane[:, :, 1:] &= said[:, :, 1:] >= said[:, :, :-1]
        good = sane.all(axis=(1, 2))
        if not good.all():
            self.trouble = f"{self._model.name} gave {np.count_nonzero(~good)} of {len(good)} forecasts that cannot be"
        forecasts[asked[good]] = said[good]
        spoke[asked[good]] = True
        return spoke

    def _learn(self, slots: Ints, values: Floats) -> None:
        """Move the corrections by the forecasts that came true at this tick."""
        horizon = np.arange(len(HORIZONS))
        made = (self._tick - np.asarray(HORIZONS)) % max(HORIZONS)
        due = self._pending[slots[:, None], made, horizon]  # [n, H, Q]
        by_model = self._by_model[slots[:, None], made]  # [n, H]
        value = values[:, None, None]
        # An equal value is evidence of neither: else the quantiles of a series that stands still would wander
        error = np.where(value > due, QUANTILES, np.where(value < due, np.asarray(QUANTILES) - 1, 0.0))
        self._own[slots] = np.clip(self._own[slots] + OWN_RATE * error, MOST_DOWN, MOST_UP)
        for source in (0, 1):
            from_it = (by_model == source) & ~np.isnan(due[:, :, 0])
            count = from_it.sum(axis=0)
            mean = np.where(from_it[:, :, None], error, 0.0).sum(axis=0) / np.maximum(count, 1)[:, None]
            self._common[source] = np.clip(self._common[source] + COMMON_RATE * mean, MOST_DOWN, MOST_UP)

    def _assign(self, keys: Sequence[Hashable]) -> Ints:
        """The slot of each series; those that are not named any more are given back, new ones are empty."""
        wanted = dict.fromkeys(keys)
        for gone in [key for key in self._slots if key not in wanted]:
            self._free.append(self._slots.pop(gone))
        new = [key for key in wanted if key not in self._slots]
        lack = len(new) - len(self._free)
        if lack > 0:
            size, more = len(self._own), max(lack, len(self._own) // 2, 16)
            self._own = np.concatenate([self._own, np.zeros((more, *self._own.shape[1:]))])
            self._by_model = np.concatenate([self._by_model, np.zeros((more, self._by_model.shape[1]), dtype=np.int64)])
            self._pending = np.concatenate([self._pending, np.zeros((more, *self._pending.shape[1:]))])
            self._free.extend(range(size + more - 1, size - 1, -1))
        for key in new:
            slot = self._slots[key] = self._free.pop()
            self._own[slot] = 0.0
            self._pending[slot] = np.nan
        return np.fromiter((self._slots[key] for key in keys), dtype=np.int64, count=len(keys))
