"""Forecasts demand: the rows that the model sees, and the forecaster that applies the model at run time. Pure.

`experts` gives the point on which simple forecasters agree, and how large its errors have been. The model (`network`) says how the
next values lie around that point, in units of those errors. So one model serves groups of any size and any metric, also metrics it
never saw. `Forecaster` uses the model only where there is evidence, and corrects quantiles by how earlier ones came out.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..records import HORIZONS, LATER, QUANTILES
from .answers import DemandModel, answer
from .baseline import LARGEST
from .drift import DriftWatch, ModelSwitch
from .experts import EXPERTS, GAP, LEVELS, LONGEST, PAST, RING, Bools, ExpertOutlook, Experts, Floats, Ints, Singles, widened
from .kept import EXPERTS as OF_EXPERTS
from .kept import MEMORY as OF_MEMORY
from .kept import OF_SERIES, SERIES, Kept
from .memory import LaterForecasts, LongMemory
from .packed import packed, unpacked
from .rounding import rounded

Values = tuple[tuple[float, ...], ...]

METRICS: tuple[str, ...] = ("cpu", "rss", "load")
"""Metrics that are forecast, see `records.Forecast`: a model may be good at one and not at another."""

MIN_TICKS = 8
"""Ticks of history below which the experts' answer is used: training has seen no shorter ones (chosen)."""

FALLBACK = "baseline experts"
"""`Forecast.source` where no model is used."""

ROOM = 10_000
"""Figures of a row that are made at a time: 40 kB, to keep the working memory small (chosen)."""

ABSENT = 1024
"""Most series whose state is kept while they are gone, the newest. Chosen: 6 MiB."""

FORGOTTEN = 14 * 86_400.0
"""Seconds after which the state of a series that is gone is not used any more (chosen)."""

WIDTH = 256
"""Series that are stepped together: enough that numpy does the work, few enough that its working memory is small and stays in the
cache. Chosen; docs/measurements/forecasts.md has the memory that it saves."""

FEW = 4.0
"""Forecasts below this are whole numbers where all values of a series were: requests a second, commands in work. What comes in ones
and twos is never 0.4, and a median of 0.4 costs a sixth more there than one of 0. Above, a fraction matters little. Chosen on the
histories of the public arrivals, asked at thousands of origins: it gains 3 % of accuracy on counts of about one a tick, 2 % on one
that idles, and costs the others nothing. 8 gains no more, and takes the 90 % quantile of PlanetLab's whole per cents of CPU from
91.1 to 91.8 % instead of 91.4 %."""

# Chosen: lags and spans of the features, closer together where values are newer.
_LAGS = (1, 2, 3, 5, 8, 12, 18, 27)
_EXTREMES = (6, 24, 96)
_LAG_ROWS = (np.arange(PAST)[:, None] - np.array(_LAGS)) % PAST  # by the row of the newest value
_RECENT = (np.arange(PAST)[:, None] - np.arange(max(_EXTREMES))) % PAST
_HORIZON = np.asarray(HORIZONS)[:, None]
_LOG_HORIZON = np.log(_HORIZON)
_AROUND = np.array([-1, 1])[:, None, None]
_FALLBACK = tuple(LEVELS.index(level) for level in QUANTILES)

DEMAND_FEATURES: tuple[str, ...] = (
    *EXPERTS,
    *(f"loss of {name}" for name in EXPERTS),
    *(f"value {lag} ago" for lag in _LAGS),
    *(f"largest of {size}" for size in _EXTREMES),
    *(f"least of {size}" for size in _EXTREMES),
    "a period ago, later",
    "a period ago, earlier",
    "two periods ago",
    "largest near a period ago",
    *(f"error quantile {level:g}" for level in LEVELS),
    "last error",
    "error before",
    "mean error",
    "error at one tick",
    "size of errors lately",
    "size of errors long ago",
    "size of errors at one tick",
    "errors of the level",
    "point of the largest",
    "level of the largest",
    "share of standing still",
    "share of zeros",
    "horizon",
    "length of the period",
    "horizon in periods",
    "loss at the period",
    "age",
)
"""Columns of a demand row: experts and values minus the common point, in units of its spread; losses relative to its spread; the
quantiles of its errors; and figures of the series' shape. All but shares are logarithms that keep the sign."""


def rows(experts: Experts, seen: ExpertOutlook) -> Singles:
    """[len(DEMAND_FEATURES), H, S] the model's input for each series at each horizon after a step. Free of scale."""
    state = experts.state
    where, column = experts.row, np.arange(len(seen.unit))
    past, bias = state["past"], state["bias"]
    size = np.where(seen.spread > 0, seen.spread, np.float32(1))
    made = np.empty((len(DEMAND_FEATURES), len(HORIZONS), len(column)), dtype=np.float32)
    at = 0

    def take(values: Singles) -> Singles:
        """Make these the next features."""
        nonlocal at
        part = made[at : at + len(values)]
        part[:] = values
        at += len(values)
        return part

    def relative(values: Singles) -> None:
        part = take(values)
        part -= seen.base
        part /= size

    relative(seen.points.transpose(1, 0, 2))
    tiny = np.float32(1e-9)
    known = seen.spread + tiny
    losses = take((state["loss"].transpose(1, 0, 2) + tiny) / known)
    relative(past[_LAG_ROWS[where], None])
    recent = past[_RECENT[where]]
    extremes = [most.reduce(recent[:size_], axis=0) for most in (np.maximum, np.minimum) for size_ in _EXTREMES]
    relative(np.array(extremes)[:, None])
    lag_ = experts.period
    back = -(-_HORIZON // lag_) * lag_ - _HORIZON
    shifted = np.minimum(np.maximum(back + _AROUND, 0), PAST - 1)  # a tick later and earlier
    again = np.where(back + lag_ < PAST, back + lag_, back)
    later, earlier, twice, now = past[(where - np.array([*shifted, again, back])) % PAST, column]
    relative(np.array([later, earlier, twice, np.maximum(np.maximum(later, earlier), now)]))
    take(seen.tails.transpose(1, 0, 2))
    lately = take(np.array([bias[1], bias[2], bias[0], np.broadcast_to(bias[1, 0], bias[1].shape)]))
    lately /= size
    np.minimum(np.maximum(made[:at], -1e6, out=made[:at]), 1e6, out=made[:at])
    losses += np.float32(0.01)
    np.log(losses, out=losses)
    step = max(8, ROOM // size.size)  # features at a time, to keep the working memory small
    for begin, end in ((0, len(EXPERTS)), (2 * len(EXPERTS), at)):
        for first in range(begin, end, step):
            part = made[first : min(first + step, end)]
            sign = np.sign(part)
            np.abs(part, out=part)
            np.log1p(part, out=part)
            part *= sign
    spreads, largest = state["spread"], state["largest"] + tiny
    shares = take(made[at : at + 6])
    np.divide(spreads[0] + tiny, known, out=shares[0])
    np.divide(spreads[2] + tiny, known, out=shares[1])
    np.divide(seen.spread[:1] + tiny, known, out=shares[2])
    np.divide(known, seen.level + tiny, out=shares[3])
    np.divide(seen.base + tiny, largest, out=shares[4])
    shares[5] = (seen.level + tiny) / largest
    np.log(np.minimum(np.maximum(shares, 1e-4, out=shares), 1e4, out=shares), out=shares)
    take(state["still"][:, None])
    made[at], made[at + 1], made[at + 2] = _LOG_HORIZON, np.log(lag_), np.log(_HORIZON / lag_)
    cycle = state["cycle"][lag_ - (PAST - len(state["cycle"])), column]
    made[at + 3] = np.log(np.minimum(np.maximum((cycle + tiny) / (state["cycle1"] + tiny), 1e-4), 1e4))
    made[at + 4] = np.log(np.minimum(experts.age, 1000))
    return made


def fallback(seen: ExpertOutlook) -> Singles:
    """[H, Q, S] quantiles of the common point's own errors, in units of its spread: the answer without a model."""
    return seen.tails[:, _FALLBACK]


def forecasts(seen: ExpertOutlook, answers: Singles) -> Floats:
    """[S, H, Q] forecasts in the series' own values, at least 0 and rising. `answers` [H, Q, S]: quantiles of the common point's
    errors, in units of its spread."""
    said = seen.base[:, None, :].astype(np.float64) + seen.spread[:, None, :] * np.sort(answers, axis=1)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(np.clip(said * seen.unit, 0.0, LARGEST).transpose(2, 0, 1))


def counted(said: Floats, whole: Bools) -> Floats:
    """Forecasts in the series' own values; those below FEW become whole numbers where `whole` is set. `whole` broadcasts."""
    return np.where(whole & (said < FEW), np.rint(said), said)


COMMON_RATE, MOST_UP = 0.002, 3.0
"""Step and limit of the online correction common to all series, in widths of the forecast. It is an insurance for series unlike
those in training. It forgets nothing, and never goes downwards. Adaptive conformal inference
(docs/decisions/0007-streaming-experts-and-a-network.md); the figures are chosen."""

GAIN, LATE, LOWERED = 1.5, 50, 0.05
"""The same for one series: a quantile is moved by GAIN x the share of passes beyond what it promises, in widths. A pass counts 1/e
after LATE ticks, because most come from a load that changed its habits, and say nothing once that is over. LOWERED is the limit
downwards: what a calm hour takes from the upper quantiles is missing when it ends. Twice as much took coverage of the 90 % quantile
where load grows (Nezha) below 85 %; with none, a load that falls to a tenth is covered 3.4 points too much. `python -m
benchmarks.forecast.model --only change` measures both sides."""

ABSURD = 100.0
"""A forecast above this many times the largest value of its series is refused: no row in training says so much (chosen)."""


LATELY = 1 / 32
"""Rate of the recent losses that decide the model's share in a series' forecast. Chosen: about 32 ticks."""

PATIENCE, STEEP = (1.25, 1.4), 8
"""The model's share in a quantile is 1 / (1 + (its loss / (PATIENCE x the fallback's)) ** STEEP), of recent losses: six sevenths
or more where both lose the same, a half where it loses PATIENCE times as much, next to nothing at twice that. The second patience
is for quantiles that the model puts above the fallback's: lowering them is what may leave a group without room. This is for
series whose load has just changed its habits: the experts recover sooner than a model that never saw such a change. On public
traces it gains up to 1 % of accuracy. Chosen on these: `python -m benchmarks.forecast.model --only demand,change`."""

NOTHING = 2.5e-4
"""Losses much below this share of a series' level count as nothing, whatever their ratio. Where a series stands still both lose
next to nothing, the fallback less, and the model must keep its share for when the series moves again. Four and ten times as much
gave the same coverage where load grows (Nezha: 86 and 91 %, without it 85 and 89 %), but shows when a load falls to a tenth."""

USUAL = 0.001
"""Slowest rate of the fallback's usual loss on a series: a quarter of an hour at a tick a second, so a small loss in a quiet minute
counts for little (chosen)."""

JUMP = 100.0
"""Limit of a loss in that average, in usual losses (chosen)."""

WORST = np.float32(1e30)
"""Limit of a loss. NaN counts as this (chosen)."""

WATCHED = (1, 6)
"""Horizons at which the running model is compared with the fallback: near enough to know soon (chosen)."""

_H = np.asarray(HORIZONS)
_WATCHED = np.asarray(WATCHED)
_AT = np.array([HORIZONS.index(horizon) for horizon in WATCHED])
_WATCHED_FIRST = np.concatenate([[0], np.cumsum(_WATCHED)[:-1]])
_LEVELS = np.asarray(QUANTILES, dtype=np.float32)[:, None]
_NOTHING = packed(np.full(1, np.nan, dtype=np.float32), np.zeros(1, dtype=np.float32))
_ALL = slice(None)
_PATIENCE = np.array(PATIENCE, dtype=np.float32)[:, None, None]
_LITTLE = np.float32(1e-9)  # chosen: of a series in units of its first value: counts as no loss


@dataclass(frozen=True, slots=True)
class _Judged:
    """Outcomes of the model's and the fallback's forecasts, for `DriftWatch.step`: n series."""

    metric: Ints
    model_loss: Floats
    fallback_loss: Floats
    model_covered: Floats
    fallback_covered: Floats
    counts: Floats


class _Block:
    """Up to `WIDTH` series that are stepped together, and their state. A slot is free or holds a series."""

    def __init__(self, interval: float, judged: bool, number: int) -> None:
        """`judged`: there is a model, so its forecasts are kept to be judged. `number`: of the blocks before it."""
        self.experts = Experts(0, interval)
        self.memory = LongMemory(interval, number)
        self.free: list[int] = []
        self._fresh: Bools = np.zeros(0, dtype=np.bool_)  # slots whose series begins at the next step
        shapes: dict[str, tuple[tuple[int, ...], type]] = {
            "metric": ((), np.int8),
            "own": ((len(HORIZONS), len(QUANTILES)), np.float32),  # the series' own correction, in widths
            "by_model": ((LONGEST,), np.bool_),  # whether the model's forecast was used, at each of the last ticks
            # Forecasts in units of the series, packed around the common point (`pending` of the experts); NaN: none
            "due": ((RING, len(QUANTILES)), np.uint16),
            "both": ((int(_WATCHED.sum()) if judged else 0, 2, len(QUANTILES)), np.uint16),  # of fallback and model
            "whole": ((), np.bool_),  # all values of the series were whole numbers
            "lately": ((2, len(QUANTILES)), np.float32),  # recent loss per forecast, of fallback and model
            "usual": ((), np.float32),  # the fallback's usual loss, over all quantiles; 0: nothing judged yet
        }
        self._state: dict[str, NDArray[Any]] = {name: np.zeros((*shape, 0), dtype) for name, (shape, dtype) in shapes.items()}

    @property
    def empty(self) -> bool:
        """Whether no slot holds a series."""
        return len(self.free) == self.experts.slots

    def widen(self, lack: int) -> int:
        """Add up to `lack` slots, within WIDTH. Returns how many were added."""
        size = self.experts.slots
        more = min(max(lack, size // 4, 8), WIDTH - size)
        if more > 0:
            self.experts.grow(size + more)
            self.memory.grow(more)
            self._state = {name: widened(array, more) for name, array in self._state.items()}
            self._fresh = widened(self._fresh, more)
            self.free.extend(range(size + more - 1, size - 1, -1))
        return more

    def begin(self) -> int:
        """A slot for a new series."""
        slot = self.free.pop()
        self._fresh[slot] = True
        self.memory.begin(slot)
        self._state["own"][..., slot] = 0
        self._state["due"][..., slot] = self._state["both"][..., slot] = _NOTHING
        self._state["lately"][..., slot] = 0
        self._state["usual"][slot] = 0
        self._state["whole"][slot] = True
        return slot

    def taken(self, slots: Ints, keys: Sequence[Hashable], at: float) -> Kept:
        """The state of the series in `slots`. `at`: seconds since 1970 of their last value."""
        parts = {OF_EXPERTS + name: part for name, part in self.experts.taken(slots).items()}
        parts |= {OF_MEMORY + name: part for name, part in self.memory.taken(slots).items()}
        parts |= {SERIES + name: self._state[name][..., slots] for name in OF_SERIES}
        return Kept(keys, np.full(len(slots), at), parts)

    def give(self, slots: Ints, kept: Kept, gone: int) -> None:
        """Have the series in `slots`, which have just begun, go on from `kept`. `gone`: ticks since their last value."""
        self._fresh[slots] = False
        self.experts.give(slots, kept.of(OF_EXPERTS), gone)
        self.memory.give(slots, kept.of(OF_MEMORY), gone)
        own = kept.of(SERIES)
        for name in OF_SERIES if gone <= GAP else ("whole",):
            self._state[name][..., slots] = own[name]

    def unsay(self) -> None:
        """Drop all forecasts that are still to be judged."""
        for name in ("due", "both"):
            self._state[name][:] = _NOTHING
        self._state["by_model"][:] = False
        self._state["lately"][:] = 0
        self._state["usual"][:] = 0

    def learn(self, slots: Ints, values: Floats, at: float, metric: Ints) -> Singles:
        """[S] new values in units of each series, NaN where unknown, from `values` [n] of the series in `slots`."""
        now = np.full(self.experts.slots, np.nan)
        now[slots] = values
        self._state["metric"][slots] = metric
        self._state["whole"] &= np.isnan(now) | (now == np.rint(now))
        self.experts.learn(now, np.full(self.experts.slots, at), self._fresh)
        self._fresh[:] = False
        self.memory.learn(self.experts, at)
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(now / self.experts.unit, dtype=np.float32)

    def correct(self, came: Singles) -> tuple[Floats, Ints]:
        """Move the series' own corrections by the forecasts due at this tick. `came` as from `learn`; where it is NaN nothing
        moves. Returns errors [2, H, Q] and counts [2, H] of the forecasts that were due, of the fallback and of the model."""
        base = self.experts.state["pending"][self.experts.due][:, None]
        due = self._counted(unpacked(self._state["due"][self.experts.due], base))  # [H, Q, S]
        by_model = self._state["by_model"][(self.experts.tick - _H) % LONGEST]  # [H, S]
        # An equal value is evidence of neither; otherwise the quantiles of a series that stands still would drift
        error = np.where(came > due, _LEVELS, np.where(came < due, _LEVELS - 1, np.float32(0)))
        error[:, 0] = 0  # the median is no limit
        own = self._state["own"]
        own += (np.float32(GAIN) * error - own) / np.float32(LATE)
        np.maximum(own, -LOWERED, out=own)
        known = ~np.isnan(due[:, 0]) & ~np.isnan(came)
        sources = [known & ~by_model, known & by_model]
        sums = np.stack([np.where(source[:, None], error, 0).sum(axis=2, dtype=np.float64) for source in sources])
        return sums, np.stack([source.sum(axis=1) for source in sources])

    def judge(self, came: Singles) -> _Judged | None:
        """Compare due forecasts of fallback and model with the values; `came` as from `learn`. None if none is due."""
        place = _WATCHED_FIRST + self.experts.tick % _WATCHED
        base = self.experts.state["pending"][self.experts.due[_AT]]
        both = self._counted(unpacked(self._state["both"][place], base[:, None, None]))  # [W, 2, Q, S]
        due = ~np.isnan(both[:, 0, 0]) & ~np.isnan(came)
        series = np.flatnonzero(due.any(axis=0))
        if not len(series):
            return None
        mine: Ints | slice = _ALL if len(series) == len(came) else series
        both, due, value = both[..., mine], due[:, mine], came[mine]
        counts = due.sum(axis=0).astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            error = value - both
            loss = np.where(due[:, None, None], np.maximum(_LEVELS * error, (_LEVELS - 1) * error), 0).sum(axis=0) / counts
        loss[1] = np.where(np.isnan(loss[1]), WORST, loss[1])
        np.minimum(loss, WORST, out=loss)  # [2, Q, n] per forecast, in units of the series
        lately, usual = self._state["lately"], self._state["usual"]
        lately[..., mine] += np.float32(LATELY) * (loss - lately[..., mine])
        lost = np.minimum(loss[0].sum(axis=0), JUMP * usual[mine])
        rate = np.maximum(USUAL, 1 / (10.0 + self.experts.age[mine])).astype(np.float32)
        usual[mine] += rate * (lost - usual[mine])
        unit = np.maximum(np.maximum(usual[mine], lately[0][:, mine].sum(axis=0)), self.experts.level[mine] / 100)
        moves = unit > 0
        below = np.where(value < both, np.float32(1), np.where(value == both, _LEVELS, np.float32(0)))
        covered, sums = np.where(due[:, None, None], below, 0).sum(axis=0), loss * counts
        metric = self._state["metric"][mine]
        if not moves.all():
            covered, sums, unit, metric, counts = covered[..., moves], sums[..., moves], unit[moves], metric[moves], counts[moves]
        covered, sums = covered.astype(np.float64), sums / unit.astype(np.float64)
        return _Judged(metric.astype(np.int64), sums[1].T, sums[0].T, covered[1].T, covered[0].T, counts.astype(np.float64))

    def _counted(self, said: Singles) -> Singles:
        """[..., S] unpacked forecasts in units of the series, rounded again where they were given as whole numbers."""
        whole = self._state["whole"]
        if not whole.any():
            return said
        with np.errstate(over="ignore"):
            values = said * self.experts.unit
        return np.where(whole, counted(values, whole) / self.experts.unit, said).astype(np.float32)

    def forecast(self, at: float, slots: Ints, ask: Bools, model: DemandModel | None, heard: Bools, common: Singles) -> _Said:
        """Forecasts of the series in `slots`, after `learn` and `correct`. `ask` [n]: where to use the model if possible. `heard`:
        metrics for which it is used, see `DriftWatch`. `common` [2, H, Q]: corrections of the fallback's and the model's
        forecasts."""
        seen = self.experts.look(np.full(self.experts.slots, at))
        answers = fallback(seen)
        asked = np.sort(slots[ask & (self.experts.age[slots] >= MIN_TICKS)])
        spoke, refused, failure = np.zeros(self.experts.slots, dtype=np.bool_), 0, ""
        if model is not None:
            spoke, refused, failure = self._ask(seen, asked, model, heard, answers)
        correction = common[spoke.astype(np.int64)].transpose(1, 2, 0) + self._state["own"]
        answers += correction * (answers[:, -1] - answers[:, 0])[:, None]
        said = counted(forecasts(seen, answers), self._state["whole"][:, None, None])
        with np.errstate(over="ignore"):
            plain = (said / seen.unit[:, None, None]).astype(np.float32).transpose(1, 2, 0)
        self._state["due"][self.experts.due] = packed(plain, seen.base[:, None])
        self._state["by_model"][self.experts.tick % LONGEST] = spoke
        return _Said(said[slots], spoke[slots], len(asked), refused, failure)

    def _ask(self, seen: ExpertOutlook, asked: Ints, model: DemandModel, heard: Bools, answers: Singles) -> tuple[Bools, int, str]:
        """Overwrite `answers` with the model's in the slots asked, where these are plausible and the model is heard. Returns
        where, how many of its forecasts are impossible, and why it gave none; "" if it did."""
        spoke = np.zeros(self.experts.slots, dtype=np.bool_)
        said = np.full((len(HORIZONS), len(QUANTILES), len(asked)), np.nan, dtype=np.float32)
        good, refused, failure = np.zeros(len(asked), dtype=np.bool_), 0, ""
        if len(asked):
            every = _ALL if len(asked) == self.experts.slots else asked
            try:
                said[:] = answer(model, rows(self.experts, seen)[:, :, every], answers[:, :, every], self._state["metric"][every])
            except Exception as error:  # a model is data from outside: whatever fails in it, the experts' answer is used
                failure = f"{model.name} failed: {type(error).__name__}: {error}"
            else:
                with np.errstate(over="ignore", invalid="ignore"):
                    values = seen.base[:, None, every] + seen.spread[:, None, every] * said
                    sane = np.abs(values) <= ABSURD * self.experts.state["largest"][every]
                good = np.asarray(sane.all(axis=(0, 1)))
                refused = int(np.count_nonzero(~good))
        self._keep(seen, asked, answers, said)
        speaks = good & heard[self._state["metric"][asked]]
        slots = asked[speaks]
        more = said[:, :, speaks] - answers[:, :, slots]
        lower, higher = self._shares()[:, :, slots]
        answers[:, :, slots] += np.where(more > 0, higher, lower) * more
        spoke[slots] = True
        return spoke, refused, failure

    def _keep(self, seen: ExpertOutlook, asked: Ints, fallback_: Singles, model: Singles) -> None:
        """Keep the forecasts of fallback and model for the slots asked, to be judged when they fall due. Others get NaN."""
        place = _WATCHED_FIRST + self.experts.tick % _WATCHED
        both = np.full((len(WATCHED), 2, len(QUANTILES), self.experts.slots), np.nan, dtype=np.float32)
        base, spread = seen.base[_AT][:, None, asked], seen.spread[_AT][:, None, asked]
        with np.errstate(over="ignore", invalid="ignore"):
            both[:, 0][..., asked] = np.maximum(base + spread * fallback_[_AT][:, :, asked], 0)
            both[:, 1][..., asked] = np.maximum(base + spread * model[_AT], 0)
            self._state["both"][place] = packed(both, seen.base[_AT][:, None, None])
        usual = self._state["usual"]
        fresh = asked[usual[asked] == 0]
        usual[fresh] = seen.spread[_AT[0], fresh]  # about the loss of a forecast from Laplace's distribution
        self._state["lately"][..., fresh] = usual[fresh] / len(QUANTILES)

    def _shares(self) -> Singles:
        """[PATIENCE, Q, slots] the model's share in the forecast: less where it recently lost more than the fallback."""
        fallback_, model = self._state["lately"]
        little = _LITTLE + np.float32(NOTHING) * self.experts.level
        ratio = (model + little) / (_PATIENCE * (fallback_ + little))
        return np.asarray(1 / (1 + np.minimum(ratio, 100) ** STEEP), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class _Said:
    """Forecasts of a block."""

    values: Floats  # [n, H, Q] in the series' own values
    by_model: Bools  # [n]
    asked: int  # forecasts that the model was asked for
    refused: int  # those of them that are impossible
    failure: str  # why the model could not answer at all; "" if it could


class Answers:
    """The forecasts of a step: (values as in `records.Forecast`, source) for each series. Kept as arrays, an eighth the size of
    tuples. Tuples are made on access: the daemon follows more groups than it reports."""

    def __init__(self, values: Floats, sources: Sequence[str], by: Bools) -> None:
        """`values` [n, H, Q]; `by` [n]: index into the two `sources`."""
        self._values, self._sources, self._by = values, sources, by

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, which: int) -> tuple[Values, str]:
        return tuple(map(tuple, self._values[which].tolist())), self._sources[int(self._by[which])]

    def __iter__(self) -> Iterator[tuple[Values, str]]:
        return self.some(np.arange(len(self)))

    def some(self, which: Ints) -> Iterator[tuple[Values, str]]:
        """Those of some series."""
        for values, by in zip(self._values[which].tolist(), self._by[which].tolist(), strict=True):
            yield tuple(map(tuple, values)), self._sources[by]

    def rounded(self, fine: Bools, most: Floats) -> Answers:
        """As they are recorded: see `rounding`. `fine` [n]: loads of pools. `most` [n]: upper limits that hold all the same."""
        values = np.minimum(rounded(self._values, fine), most[:, None, None])
        return Answers(values, self._sources, self._by)


class Forecaster:
    """Forecasts many series tick by tick: by the model where it is allowed and able, else by the experts' own errors.

    The quantiles of both are corrected by how earlier ones came out: adaptive conformal inference, in the form of quantile
    tracking (Angelopoulos, Candès, Tibshirani 2023, "Conformal PID control for time series prediction"). Each upper quantile of
    each horizon moves up by a step x level when the value was above it, down by the step x (1 - level) when below. One correction
    is common to all series of the same source and accumulates: the integral. That of a series fades, and is proportional to how
    often it was passed recently. Where the model has become worse than the fallback, it is not used (`drift`).
    Memory is bounded by the most series in a step. The same steps give the same forecasts.
    """

    def __init__(self, model: DemandModel | None, interval: float) -> None:
        """`interval`: seconds per tick."""
        self._model = model
        self.trouble = ""  # why the model could not answer where it was asked, at the last step; "" if it could
        self.changes: tuple[ModelSwitch, ...] = ()  # metrics for which the model was dropped, or used again, at the last step
        self._interval = interval
        self._watch = DriftWatch(METRICS)
        self._blocks: list[_Block] = []
        self._places: dict[Hashable, int] = {}  # block x WIDTH + slot of each series
        self._keys: Sequence[Hashable] = ()  # of the last step
        self._parts: list[tuple[_Block, Ints, Ints]] = []  # for each block: which of these are in it, and their slots
        self._said: Floats = np.zeros((0, len(HORIZONS), len(QUANTILES)))  # at the last step
        self._common = np.zeros((2, len(HORIZONS), len(QUANTILES)), dtype=np.float32)  # of the fallback, of the model
        self._at = 0.0  # of the last step
        self._gone: dict[Hashable, tuple[Kept, int]] = {}  # the state of series that may come back, and their places in it

    @property
    def slots(self) -> int:
        """Series that there are slots for."""
        return sum(block.experts.slots for block in self._blocks)

    def step(
        self, keys: Sequence[Hashable], values: Floats, at: float, metric: Ints, ask: Bools, most: Floats | None = None
    ) -> Answers:
        """Forecasts of each series after its value of this tick [n], NaN where unknown.

        Call once per tick. The state of a series that is left out is kept, for when it comes back. `at`: seconds since 1970.
        `metric` [n]: index into `METRICS`.
        `ask` [n]: where to use the model if possible. `most` [n]: upper limit of a series, such as the memory of the machine.
        Raises ValueError for a series with no known value: leave it out.
        """
        unknown = np.flatnonzero(np.isnan(values)).tolist()
        if any(keys[which] not in self._places for which in unknown):
            raise ValueError("a series begins with an unknown value: there is nothing to forecast it from")
        if keys != self._keys or len(self._places) != len(keys):
            places = self._assign(keys, at)
            chosen = [np.flatnonzero(places // WIDTH == number) for number in range(len(self._blocks))]
            pairs = zip(self._blocks, chosen, strict=True)
            self._keys, self._parts = list(keys), [(block, mine, places[mine] % WIDTH) for block, mine in pairs if len(mine)]
        parts, self._at = self._parts, at
        self._learn(parts, values, at, metric)
        said, by_model = np.empty((len(keys), len(HORIZONS), len(QUANTILES))), np.zeros(len(keys), dtype=np.bool_)
        asked = refused = 0
        self.trouble = ""
        for block, mine, slots in parts:
            made = block.forecast(at, slots, ask[mine], self._model, self._watch.heard, self._common)
            said[mine], by_model[mine] = made.values, made.by_model
            asked, refused, self.trouble = asked + made.asked, refused + made.refused, self.trouble or made.failure
        if most is not None:
            np.minimum(said, most[:, None, None], out=said)
        self._said = said
        name = self._model.name if self._model is not None else ""
        if refused and not self.trouble:
            self.trouble = f"{name} gave {refused} of {asked} forecasts with impossible values"
        return Answers(said, (FALLBACK, name), by_model)

    def kept(self) -> Kept:
        """The state of all series, and of those that are gone and may come back. For `remember` of another one."""
        pairs = ((block, slots, [self._keys[which] for which in mine.tolist()]) for block, mine, slots in self._parts)
        return Kept.joined([*(block.taken(slots, keys, self._at) for block, slots, keys in pairs), *self._absent()])

    def remember(self, kept: Kept) -> None:
        """Have series go on from `kept` when they begin."""
        self._gone.update({key: (kept, place) for place, key in enumerate(kept.keys)})

    def _absent(self) -> list[Kept]:
        """The state of series that are gone, without what is no longer needed."""
        tables: dict[int, tuple[Kept, list[int]]] = {}
        for kept, place in self._gone.values():
            tables.setdefault(id(kept), (kept, []))[1].append(place)
        return [kept.some(np.array(places)) for kept, places in tables.values()]

    def later(self, which: Ints) -> LaterForecasts:
        """Forecasts further ahead than those of the last step, of some of its series."""
        values, by = np.empty((len(which), len(LATER), len(QUANTILES))), np.zeros(len(which), dtype=np.int64)
        row = np.full(len(self._keys), -1)
        row[which] = np.arange(len(which))
        for block, mine, slots in self._parts:
            wanted = row[mine] >= 0
            rows_, near = row[mine[wanted]], self._said[mine[wanted], -1]
            made = block.memory.later(slots[wanted], block.experts, near)
            values[rows_], by[rows_] = made.values, made.by
        return LaterForecasts(values, by)

    def forget(self, keys: Iterable[Hashable]) -> None:
        """Forget the past of these series, which begin again at their next value; unknown keys are skipped."""
        for key in keys:
            self._gone.pop(key, None)
            place = self._places.pop(key, None)
            if place is not None:
                number, slot = divmod(place, WIDTH)
                self._blocks[number].free.append(slot)

    def hear(self, model: DemandModel) -> None:
        """Continue with another model in place of the present one. What is known of the series stays; forecasts and corrections
        of the old model are dropped. Raises ValueError if there was no model."""
        if self._model is None:
            raise ValueError("there was no model, so nothing was kept to judge one by: make another forecaster")
        self._model = model
        self._watch = DriftWatch(METRICS)
        self._common[1] = 0
        for block in self._blocks:
            block.unsay()

    def _learn(self, parts: Sequence[tuple[_Block, Ints, Ints]], values: Floats, at: float, metric: Ints) -> None:
        """Take in the new values, and learn from the forecasts due. All before any forecast is made: corrections are common."""
        errors, counts = np.zeros_like(self._common, dtype=np.float64), np.zeros((2, len(HORIZONS)), dtype=np.int64)
        judged: list[_Judged] = []
        for block, mine, slots in parts:
            came = block.learn(slots, values[mine], at, metric[mine])
            more, of = block.correct(came)
            errors += more
            counts += of
            found = block.judge(came) if self._model is not None else None
            if found is not None:
                judged.append(found)
        mean = errors / np.maximum(counts, 1)[:, :, None]
        self._common = np.clip(self._common + COMMON_RATE * mean, 0, MOST_UP).astype(np.float32)
        self.changes = ()
        if judged:
            columns = ([getattr(one, name) for one in judged] for name in _Judged.__dataclass_fields__)
            self.changes = self._watch.step(*(one[0] if len(one) == 1 else np.concatenate(one) for one in columns))

    def _assign(self, keys: Sequence[Hashable], at: float) -> Ints:
        """The place of each series. The state of series no longer named is kept, and their places are freed."""
        wanted = dict.fromkeys(keys)
        gone: dict[int, list[Hashable]] = {}
        for key in [key for key in self._places if key not in wanted]:
            gone.setdefault(self._places[key] // WIDTH, []).append(key)
        for number, left in gone.items():
            slots = [self._places.pop(key) % WIDTH for key in left]
            self.remember(self._blocks[number].taken(np.array(slots), left, self._at))
            self._blocks[number].free.extend(slots)
        new = [key for key in wanted if key not in self._places]
        lack = len(new) - sum(len(block.free) for block in self._blocks)
        for block in self._blocks:
            if lack > 0:
                lack -= block.widen(lack)
        while lack > 0:
            self._blocks.append(_Block(self._interval, self._model is not None, len(self._blocks)))
            lack -= self._blocks[-1].widen(lack)
        back = [key for key in new if key in self._gone]
        new.reverse()
        for number, block in enumerate(self._blocks):
            while new and block.free:
                self._places[new.pop()] = number * WIDTH + block.begin()
        self._resume(back, at)
        if gone or back:
            absent = Kept.joined(self._absent()).newest(ABSENT)
            self._gone.clear()
            self.remember(absent)
        while self._blocks and self._blocks[-1].empty:  # releases its memory
            self._blocks.pop()
        return np.fromiter((self._places[key] for key in keys), dtype=np.int64, count=len(keys))

    def _resume(self, back: Sequence[Hashable], at: float) -> None:
        """Have series that have just begun go on from what is kept of them, unless it is too old."""
        alike: dict[tuple[int, int, int], tuple[Kept, list[int], list[int]]] = {}  # by state, block and ticks gone
        for key in back:
            kept, place = self._gone.pop(key)
            gone = round((at - float(kept.at[place])) / self._interval) - 1
            if 0 <= gone * self._interval <= FORGOTTEN:
                number, slot = divmod(self._places[key], WIDTH)
                _, places, slots = alike.setdefault((id(kept), number, gone), (kept, [], []))
                places.append(place)
                slots.append(slot)
        for (_, number, gone), (kept, places, slots) in alike.items():
            self._blocks[number].give(np.array(slots), kept.some(np.array(places)), gone)
