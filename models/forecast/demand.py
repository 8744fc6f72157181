"""Forecasts demand: the rows that the model sees, the trained model, and the forecaster that speaks for it at run time. Pure.

`experts` says on what point simple forecasters agree and how far off that has been. The model, a small neural network, says how the
next values lie around that point, in units of those errors, so one model serves groups of any size and any metric, also such as it
never saw. `Forecaster` lets it speak only where there is evidence, and keeps quantiles right by how they came out.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..records import HORIZONS, QUANTILES
from .baseline import LARGEST
from .drift import Change, DriftWatch
from .experts import EXPERTS, LEVELS, LONGEST, PAST, RING, Bools, Experts, Floats, Ints, Outlook, Singles, widened
from .packed import packed, unpacked

Values = tuple[tuple[float, ...], ...]
Arrays = Mapping[str, NDArray[Any]]

METRICS: tuple[str, ...] = ("cpu", "rss", "load")
"""What is forecast, see `records.Forecast`: a model may be good at one and not at another."""

MIN_TICKS = 8
"""Ticks of history below which a model says what the experts say: training has seen no shorter ones."""

FALLBACK = "baseline experts"
"""What `Forecast.source` says where no model speaks."""

HIDDEN = 32
"""Units of each of the two hidden layers: what 1,000 groups in 20 ms allow."""

FARTHEST = 30.0
"""Answers beyond so many spreads count as that far."""

BLOCK = 320
"""Rows that are evaluated together: enough that BLAS does the work, few enough that what it works in stays in the cache."""

WIDTH = 256
"""Series that are stepped together: enough that numpy does the work, few enough that what it works in is little, and stays in the
cache."""

FEW = 4.0
"""Forecasts below so many are whole numbers where all values of a series were: requests a second, commands in work. What comes in
ones and twos is never 0.4, and a median of 0.4 costs a sixth more than one of 0 there. Above, a fraction matters little. Chosen on
the histories of the public arrivals, asked at thousands of origins: it gains 3 % of accuracy on counts of about one a tick, 2 % on
one that idles, and costs the others nothing. 8 gains no more, and takes the 90 % quantile of PlanetLab's whole per cents of CPU
from 91.1 to 91.8 % instead of 91.4 %."""

_LAGS = (1, 2, 3, 5, 8, 12, 18, 27)
_EXTREMES = (6, 24, 96)
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
"""Columns of a demand row: experts and values less the common point, in units of its spread; losses relative to its spread; the
quantiles of its errors; and figures of the series' shape. All but shares are logarithms that keep the sign."""


def rows(experts: Experts, seen: Outlook) -> Singles:
    """[len(DEMAND_FEATURES), H, S]: what the model is given of each series at each horizon after a step. Free of scale."""
    state = experts.state
    where, column = experts.row, np.arange(len(seen.unit))
    past = state["past"]
    size = np.where(seen.spread > 0, seen.spread, np.float32(1))
    made = np.empty((len(DEMAND_FEATURES), len(HORIZONS), len(column)), dtype=np.float32)
    at = 0

    def relative(values: Singles) -> None:
        nonlocal at
        made[at] = (values - seen.base) / size
        at += 1

    for expert in range(len(EXPERTS)):
        relative(seen.points[:, expert])
    tiny = np.float32(1e-9)
    known = seen.spread + tiny
    for expert in range(len(EXPERTS)):
        made[at] = (state["loss"][:, expert] + tiny) / known
        at += 1
    losses = slice(at - len(EXPERTS), at)
    for lag in _LAGS:
        relative(past[(where - lag) % PAST])
    recent = past[(where - np.arange(max(_EXTREMES))) % PAST]
    for most in (np.max, np.min):
        for size_ in _EXTREMES:
            relative(most(recent[:size_], axis=0))
    lag_ = experts.period
    horizon = np.asarray(HORIZONS)[:, None]
    back = -(-horizon // lag_) * lag_ - horizon
    near = [past[(where - np.clip(back + shift, 0, PAST - 1)) % PAST, column] for shift in (-1, 1)]
    for values in near:
        relative(values)
    relative(past[(where - np.where(back + lag_ < PAST, back + lag_, back)) % PAST, column])
    relative(np.maximum(np.maximum(near[0], near[1]), past[(where - back) % PAST, column]))
    for level in range(len(LEVELS)):
        made[at] = seen.tails[:, level]
        at += 1
    bias = state["bias"]
    for which in (1, 2, 0):
        made[at] = bias[which] / size
        at += 1
    made[at] = bias[1, 0] / size
    at += 1
    np.clip(made[:at], -1e6, 1e6, out=made[:at])
    np.log(made[losses] + np.float32(0.01), out=made[losses])
    for begin, end in ((0, losses.start), (losses.stop, at)):
        for first in range(begin, end, 8):  # a few at a time: less to work in
            part = made[first : min(first + 8, end)]
            sign = np.sign(part)
            np.abs(part, out=part)
            np.log1p(part, out=part)
            part *= sign
    spreads, largest = state["spread"], state["largest"] + tiny
    for share in (
        (spreads[0] + tiny) / known,
        (spreads[2] + tiny) / known,
        (seen.spread[:1] + tiny) / known,
        known / (seen.level + tiny),
        (seen.base + tiny) / largest,
        (seen.level + tiny) / largest,
    ):
        made[at] = np.log(np.clip(share, 1e-4, 1e4))
        at += 1
    for values in state["still"]:
        made[at] = values
        at += 1
    made[at] = np.log(horizon)
    made[at + 1] = np.log(lag_)
    made[at + 2] = np.log(horizon / lag_)
    cycle = state["cycle"][lag_ - (PAST - len(state["cycle"])), column]
    made[at + 3] = np.log(np.clip((cycle + tiny) / (state["cycle1"] + tiny), 1e-4, 1e4))
    made[at + 4] = np.log(np.minimum(experts.age, 1000))
    return made


def fallback(seen: Outlook) -> Singles:
    """[H, Q, S] what the common point's own errors say, in units of its spread: what speaks without a model."""
    return seen.tails[:, _FALLBACK]


def forecasts(seen: Outlook, answers: Singles) -> Floats:
    """[S, H, Q] forecasts in the series' own values, at least 0 and rising, from quantiles [H, Q, S] of the errors of the common
    point in units of its spread."""
    said = seen.base[:, None, :].astype(np.float64) + seen.spread[:, None, :] * np.sort(answers, axis=1)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(np.clip(said * seen.unit, 0.0, LARGEST).transpose(2, 0, 1))


def counted(said: Floats, whole: Bools) -> Floats:
    """Forecasts in the series' own values, those below FEW as whole numbers where `whole` says so; it broadcasts."""
    return np.where(whole & (said < FEW), np.rint(said), said)


class DemandModel(Protocol):
    """What `Forecaster` can ask: `Network`, or what takes its place."""

    @property
    def name(self) -> str:
        """Short, for people: goes into `Forecast.source`."""
        ...

    def answers(self, made: Singles, start: Singles) -> Singles:
        """[n, Q] quantiles of errors in units of their spread, from rows [n, len(DEMAND_FEATURES)] and what the fallback answers
        [n, Q]. Each row is on its own."""
        ...


def silu(x: Singles) -> Singles:
    """x times its logistic: Elfwing, Uchibe, Doya 2017."""
    made = np.maximum(x, np.float32(-60))
    np.negative(made, out=made)
    np.exp(made, out=made)
    made += 1
    return np.asarray(np.divide(x, made, out=made))


class Network:
    """The trained model: two hidden layers and a straight way past them, added to what the fallback answers.

    `speaks`: the metrics at which it beat the baselines when it was promoted; of the others it is not to be asked.
    """

    SHAPES: Mapping[str, tuple[int, ...]] = {
        "hidden1": (len(DEMAND_FEATURES), HIDDEN),
        "bias1": (HIDDEN,),
        "hidden2": (HIDDEN, HIDDEN),
        "bias2": (HIDDEN,),
        "out": (HIDDEN, len(QUANTILES)),
        "straight": (len(DEMAND_FEATURES), len(QUANTILES)),
        "bias3": (len(QUANTILES),),
    }

    def __init__(self, arrays: Arrays, digest: str) -> None:
        """`arrays`: float32 of `SHAPES`, `speaks` bool [len(METRICS)]. Raises ValueError for others."""
        wanted: dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
        wanted = {name: (shape, np.dtype(np.float32)) for name, shape in self.SHAPES.items()}
        wanted["speaks"] = (len(METRICS),), np.dtype(np.bool_)
        if set(arrays) != set(wanted):
            raise ValueError(f"it has arrays {', '.join(sorted(arrays))} instead of {', '.join(sorted(wanted))}")
        for name, (shape, dtype) in wanted.items():
            array = arrays[name]
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(f"{name} must be {dtype} {shape}, not {array.dtype} {array.shape}")
            if not (np.abs(array) <= 1e6).all():
                raise ValueError(f"{name} is not finite, or absurdly large")
        self._arrays = {name: arrays[name] for name in self.SHAPES}
        self._weights = {name: array.astype(np.float64) for name, array in self._arrays.items() if array.ndim == 2}
        self.speaks = frozenset(metric for metric, good in zip(METRICS, arrays["speaks"].tolist(), strict=True) if good)
        self.digest = digest

    @property
    def name(self) -> str:
        """What `Forecast.source` says."""
        return f"demand {self.digest[:8]}"

    def answers(self, made: Singles, start: Singles) -> Singles:
        """See `DemandModel`."""
        said = np.empty((len(made), len(QUANTILES)), dtype=np.float32)
        for first in range(0, len(made), BLOCK):
            part = made[first : first + BLOCK].astype(np.float64)
            hidden = silu(self._times(part, "hidden1") + self._arrays["bias1"])
            deep = silu(self._times(hidden.astype(np.float64), "hidden2") + self._arrays["bias2"])
            straight = self._times(part, "straight") + self._arrays["bias3"]
            said[first : first + BLOCK] = self._times(deep.astype(np.float64), "out") + straight
        return np.asarray(np.clip(said + start, -FARTHEST, FARTHEST))

    def _times(self, rows: Floats, name: str) -> Singles:
        """A product in double precision, rounded to single: BLAS adds up in an order that depends on its kernel and on where a row
        stands, and single precision would show that in the last bits."""
        return (rows @ self._weights[name]).astype(np.float32)


def answer(model: DemandModel, made: Singles, start: Singles) -> Singles:
    """[H, Q, S] answers of a model, rising, to rows [F, H, S] and the fallback's answers [H, Q, S]. Raises ValueError if it gives
    something else."""
    features, horizons, n = made.shape
    first = np.ascontiguousarray(start.transpose(0, 2, 1)).reshape(horizons * n, len(QUANTILES))
    said = model.answers(made.reshape(features, -1).T, first)
    if said.shape != (horizons * n, len(QUANTILES)):
        raise ValueError(f"answers of shape {said.shape} instead of {(horizons * n, len(QUANTILES))}")
    return np.asarray(np.sort(said.reshape(horizons, n, len(QUANTILES)).transpose(0, 2, 1), axis=1), dtype=np.float32)


COMMON_RATE, MOST_UP = 0.002, 3.0
"""Step of the online correction for all series together, and most of it, in widths of the forecast. It is an insurance for series
unlike those of the training, and forgets nothing; there is none downwards."""

GAIN, LATE, LOWERED = 1.5, 50, 0.05
"""Of that for one series: a quantile is moved by GAIN x the share of passes beyond what it promises, in widths; a pass counts 1/e
after LATE ticks, for most come of a load that changed its habits, and say nothing any more when that is over. LOWERED is the most
of it downwards: what a calm hour takes from the upper quantiles is missing when it ends. Twice as much took coverage of the 90 %
quantile where load grows (Nezha) below 85 %; with none a load that falls to a tenth is covered 3.4 points too much."""

ABSURD = 100.0
"""A forecast above so many times the largest value of its series is refused: no row that the model learned from says so much."""


LATELY = 1 / 32
"""Rate of the losses that decide on the model's share in a series' forecast."""

PATIENCE, STEEP = (1.25, 1.4), 8
"""The model's share in a quantile is 1 / (1 + (its loss / (PATIENCE x the fallback's)) ** STEEP), of losses lately: six sevenths or
more where both lose the same, a half where it loses PATIENCE times as much, next to nothing at twice that. The second patience is
for quantiles that the model has above the fallback's: lowering them is what may leave a group without room. It is for series whose
load has just changed its habits, from which the experts recover sooner than a model that never saw the like. On public traces it
gains up to 1 % of accuracy."""

NOTHING = 2.5e-4
"""Losses much below such a share of a series' level are nothing, whatever their ratio: where a series stands still both lose next
to nothing, the fallback less, and the model must not be without a say when it moves again. Four and ten times as much came to the
same in coverage where load grows (Nezha: 86 and 91 %, without it 85 and 89 %), but is noticed when a load falls to a tenth."""

USUAL = 0.001
"""Slowest rate of what the fallback usually loses on a series: a quarter of an hour at a tick a second, so what is little in a
quiet minute counts for little."""

JUMP = 100.0
"""A loss above so many usual ones counts as so many there."""

WORST = np.float32(1e30)
"""A loss above that counts as that, and so does no number."""

WATCHED = (1, 6)
"""Horizons at which the model is judged beside the fallback while it runs: near enough to know soon."""

_H = np.asarray(HORIZONS)
_WATCHED = np.asarray(WATCHED)
_AT = np.array([HORIZONS.index(horizon) for horizon in WATCHED])
_WATCHED_FIRST = np.concatenate([[0], np.cumsum(_WATCHED)[:-1]])
_LEVELS = np.asarray(QUANTILES, dtype=np.float32)[:, None]
_NOTHING = packed(np.full(1, np.nan, dtype=np.float32), np.zeros(1, dtype=np.float32))
_LITTLE = np.float32(1e-9)  # of a series in units of its first value: no loss at all


@dataclass(frozen=True, slots=True)
class _Judged:
    """What came true of forecasts of the model, for `DriftWatch.step`: n series."""

    metric: Ints
    model_loss: Floats
    fallback_loss: Floats
    model_covered: Floats
    fallback_covered: Floats
    counts: Floats


class _Block:
    """Up to `WIDTH` series that are stepped together, with the state of each. A slot is free or has a series."""

    def __init__(self, interval: float, judged: bool) -> None:
        """`judged`: whether there is a model, of which is kept what it said."""
        self.experts = Experts(0, interval)
        self.free: list[int] = []
        self._fresh: Bools = np.zeros(0, dtype=np.bool_)  # where a series begins at the next step
        shapes: dict[str, tuple[tuple[int, ...], type]] = {
            "metric": ((), np.int8),
            "own": ((len(HORIZONS), len(QUANTILES)), np.float32),  # the series' own correction, in widths
            "by_model": ((LONGEST,), np.bool_),  # who spoke at each of the last ticks
            # What was said, in units of the series, packed around the common point (`pending` of the experts); NaN: nothing
            "due": ((RING, len(QUANTILES)), np.uint16),
            "both": ((int(_WATCHED.sum()) if judged else 0, 2, len(QUANTILES)), np.uint16),  # by fallback and by model
            "whole": ((), np.bool_),  # all values of the series were whole numbers
            "lately": ((2, len(QUANTILES)), np.float32),  # what fallback and model lost lately a forecast
            "usual": ((), np.float32),  # what the fallback loses in all quantiles together; 0: nothing judged yet
        }
        self._state: dict[str, NDArray[Any]] = {name: np.zeros((*shape, 0), dtype) for name, (shape, dtype) in shapes.items()}

    @property
    def empty(self) -> bool:
        """Whether no slot has a series."""
        return len(self.free) == self.experts.slots

    def widen(self, lack: int) -> int:
        """Make room for so many more series, if they are not too many; says how many slots there are more."""
        size = self.experts.slots
        more = min(max(lack, size // 4, 8), WIDTH - size)
        if more > 0:
            self.experts.grow(size + more)
            self._state = {name: widened(array, more) for name, array in self._state.items()}
            self._fresh = widened(self._fresh, more)
            self.free.extend(range(size + more - 1, size - 1, -1))
        return more

    def begin(self) -> int:
        """A slot for a series that begins."""
        slot = self.free.pop()
        self._fresh[slot] = True
        self._state["own"][..., slot] = 0
        self._state["due"][..., slot] = self._state["both"][..., slot] = _NOTHING
        self._state["lately"][..., slot] = 0
        self._state["usual"][slot] = 0
        self._state["whole"][slot] = True
        return slot

    def unsay(self) -> None:
        """Nothing that was said counts any more."""
        for name in ("due", "both"):
            self._state[name][:] = _NOTHING
        self._state["by_model"][:] = False
        self._state["lately"][:] = 0
        self._state["usual"][:] = 0

    def learn(self, slots: Ints, values: Floats, at: float, metric: Ints) -> Singles:
        """[S] what came, in units of each series, NaN where unknown, of `values` [n] of the series in `slots`."""
        now = np.full(self.experts.slots, np.nan)
        now[slots] = values
        self._state["metric"][slots] = metric
        self._state["whole"] &= np.isnan(now) | (now == np.rint(now))
        self.experts.learn(now, np.full(self.experts.slots, at), self._fresh)
        self._fresh[:] = False
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(now / self.experts.unit, dtype=np.float32)

    def correct(self, came: Singles) -> tuple[Floats, Ints]:
        """Move the series' own corrections by the forecasts that come true at this tick; `came` as `learn` gives it: where it is
        NaN nothing moves. Returns errors [2, H, Q] and forecasts [2, H] that came true, of the fallback and of the model."""
        base = self.experts.state["pending"][self.experts.due][:, None]
        due = self._counted(unpacked(self._state["due"][self.experts.due], base))  # [H, Q, S]
        by_model = self._state["by_model"][(self.experts.tick - _H) % LONGEST]  # [H, S]
        # An equal value is evidence of neither: else the quantiles of a series that stands still would wander
        error = np.where(came > due, _LEVELS, np.where(came < due, _LEVELS - 1, np.float32(0)))
        error[:, 0] = 0  # the median is no limit of anything
        own = self._state["own"]
        own += (np.float32(GAIN) * error - own) / np.float32(LATE)
        np.maximum(own, -LOWERED, out=own)
        known = ~np.isnan(due[:, 0]) & ~np.isnan(came)
        sources = [known & ~by_model, known & by_model]
        sums = np.stack([np.where(source[:, None], error, 0).sum(axis=2, dtype=np.float64) for source in sources])
        return sums, np.stack([source.sum(axis=1) for source in sources])

    def judge(self, came: Singles) -> _Judged | None:
        """What came of what fallback and model said; `came` as `learn` gives it."""
        place = _WATCHED_FIRST + self.experts.tick % _WATCHED
        base = self.experts.state["pending"][self.experts.due[_AT]]
        both = self._counted(unpacked(self._state["both"][place], base[:, None, None]))  # [W, 2, Q, S]
        due = ~np.isnan(both[:, 0, 0]) & ~np.isnan(came)
        series = np.flatnonzero(due.any(axis=0))
        if not len(series):
            return None
        both, due, value = both[..., series], due[:, series], came[series]
        counts = due.sum(axis=0).astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            error = value - both
            loss = np.where(due[:, None, None], np.maximum(_LEVELS * error, (_LEVELS - 1) * error), 0).sum(axis=0) / counts
        loss[1] = np.where(np.isnan(loss[1]), WORST, loss[1])
        np.minimum(loss, WORST, out=loss)  # [2, Q, n] a forecast, in units of the series
        lately, usual = self._state["lately"], self._state["usual"]
        lately[..., series] += np.float32(LATELY) * (loss - lately[..., series])
        lost = np.minimum(loss[0].sum(axis=0), JUMP * usual[series])
        rate = np.maximum(USUAL, 1 / (10.0 + self.experts.age[series])).astype(np.float32)
        usual[series] += rate * (lost - usual[series])
        unit = np.maximum(np.maximum(usual[series], lately[0][:, series].sum(axis=0)), self.experts.level[series] / 100)
        moves = unit > 0
        below = np.where(value < both, np.float32(1), np.where(value == both, _LEVELS, np.float32(0)))
        covered = np.where(due[:, None, None], below, 0).sum(axis=0)[..., moves].astype(np.float64)
        sums = (loss * counts)[..., moves] / unit[moves].astype(np.float64)
        metric = self._state["metric"][series[moves]].astype(np.int64)
        return _Judged(metric, sums[1].T, sums[0].T, covered[1].T, covered[0].T, counts[moves].astype(np.float64))

    def _counted(self, said: Singles) -> Singles:
        """[..., S] forecasts in units of the series, that were packed, as they were said where that was in whole numbers."""
        whole = self._state["whole"]
        if not whole.any():
            return said
        with np.errstate(over="ignore"):
            values = said * self.experts.unit
        return np.where(whole, counted(values, whole) / self.experts.unit, said).astype(np.float32)

    def forecast(self, at: float, slots: Ints, ask: Bools, model: DemandModel | None, heard: Bools, common: Singles) -> _Said:
        """Of the series in `slots`, after `learn` and `correct`; `ask` [n]: where the model should speak if it can, of `heard`
        metrics, see `DriftWatch`. `common` [2, H, Q]: corrections of what the fallback says, and the model."""
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

    def _ask(self, seen: Outlook, asked: Ints, model: DemandModel, heard: Bools, answers: Singles) -> tuple[Bools, int, str]:
        """Overwrite `answers` with the model's in the slots asked, where it makes sense and is heard. Returns where, how many of
        its forecasts cannot be, and why it gave none; "" if it did."""
        spoke = np.zeros(self.experts.slots, dtype=np.bool_)
        said = np.full((len(HORIZONS), len(QUANTILES), len(asked)), np.nan, dtype=np.float32)
        good, refused, failure = np.zeros(len(asked), dtype=np.bool_), 0, ""
        if len(asked):
            try:
                made = rows(self.experts, seen)
                said[:] = answer(model, made if len(asked) == made.shape[2] else made[:, :, asked], answers[:, :, asked])
            except Exception as error:  # a model is data from outside: whatever it breaks, the experts speak
                failure = f"{model.name} failed: {type(error).__name__}: {error}"
            else:
                with np.errstate(over="ignore", invalid="ignore"):
                    values = seen.base[:, None, asked] + seen.spread[:, None, asked] * said
                    sane = np.abs(values) <= ABSURD * self.experts.state["largest"][asked]
                good = np.asarray(sane.all(axis=(0, 1)))
                refused = int(np.count_nonzero(~good))
        self._keep(seen, asked, answers, said)
        speaks = good & heard[self._state["metric"][asked]]
        slots = asked[speaks]
        more = said[:, :, speaks] - answers[:, :, slots]
        lower, higher = (self._share(patience)[:, slots] for patience in PATIENCE)
        answers[:, :, slots] += np.where(more > 0, higher, lower) * more
        spoke[slots] = True
        return spoke, refused, failure

    def _keep(self, seen: Outlook, asked: Ints, fallback_: Singles, model: Singles) -> None:
        """What fallback and model said of the slots asked, to be judged when it comes true. Of others nothing is."""
        place = _WATCHED_FIRST + self.experts.tick % _WATCHED
        both = np.full((len(WATCHED), 2, len(QUANTILES), self.experts.slots), np.nan, dtype=np.float32)
        base, spread = seen.base[_AT][:, None, asked], seen.spread[_AT][:, None, asked]
        with np.errstate(over="ignore", invalid="ignore"):
            both[:, 0, :, asked] = np.moveaxis(np.maximum(base + spread * fallback_[_AT][:, :, asked], 0), 2, 0)
            both[:, 1, :, asked] = np.moveaxis(np.maximum(base + spread * model[_AT], 0), 2, 0)
            self._state["both"][place] = packed(both, seen.base[_AT][:, None, None])
        usual = self._state["usual"]
        fresh = asked[usual[asked] == 0]
        usual[fresh] = seen.spread[_AT[0], fresh]  # about what a forecast of Laplace's distribution loses
        self._state["lately"][..., fresh] = usual[fresh] / len(QUANTILES)

    def _share(self, patience: float) -> Singles:
        """[Q, slots] the model's share in what is said: less where it lost more than the fallback lately."""
        fallback_, model = self._state["lately"]
        little = _LITTLE + np.float32(NOTHING) * self.experts.level
        ratio = (model + little) / (patience * (fallback_ + little))
        return np.asarray(1 / (1 + np.minimum(ratio, 100) ** STEEP), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class _Said:
    """Forecasts of a block."""

    values: Floats  # [n, H, Q] in the series' own values
    by_model: Bools  # [n]
    asked: int  # forecasts that the model was asked for
    refused: int  # of those, how many cannot be
    failure: str  # why the model could not speak at all; "" for nothing


class Answers:
    """The forecasts of a step: (values as in `records.Forecast`, source) of each series. Kept as arrays, an eighth of what tuples
    take, and made into those where it is looked at: the daemon follows more groups than it tells about."""

    def __init__(self, values: Floats, sources: Sequence[str], by: Bools) -> None:
        """`values` [n, H, Q]; `by` [n]: which of the two sources."""
        self._values, self._sources, self._by = values, sources, by

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, which: int) -> tuple[Values, str]:
        return tuple(map(tuple, self._values[which].tolist())), self._sources[int(self._by[which])]

    def __iter__(self) -> Iterator[tuple[Values, str]]:
        return map(self.__getitem__, range(len(self)))


class Forecaster:
    """Forecasts many series tick by tick: the model where it may and can speak, the experts' own errors elsewhere.

    The quantiles of both are corrected by how earlier ones came out: adaptive conformal inference, in the form of quantile tracking
    (Angelopoulos, Candès, Tibshirani 2023, "Conformal PID control for time series prediction"). Each upper quantile of each horizon
    moves up by a step x level when the value was above it, down by the step x (1 - level) when below. One correction is common to
    all series of the same source and adds up, the integral; that of a series fades, and is in proportion to how often it was passed
    lately. Where the model has become worse than the fallback, it is not heard (`drift`).
    State is bounded by the most series of a step; the same steps give the same forecasts.
    """

    def __init__(self, model: DemandModel | None, interval: float) -> None:
        """`interval`: seconds a tick."""
        self._model = model
        self.trouble = ""  # why the model could not speak where it was asked, at the last step; "" for nothing
        self.changes: tuple[Change, ...] = ()  # of what the model was given up, or heard again, at the last step
        self._interval = interval
        self._watch = DriftWatch(METRICS)
        self._blocks: list[_Block] = []
        self._places: dict[Hashable, int] = {}  # block x WIDTH + slot of each series
        self._common = np.zeros((2, len(HORIZONS), len(QUANTILES)), dtype=np.float32)  # of the fallback, of the model

    @property
    def slots(self) -> int:
        """Series that there is room for."""
        return sum(block.experts.slots for block in self._blocks)

    def step(
        self, keys: Sequence[Hashable], values: Floats, at: float, metric: Ints, ask: Bools, most: Floats | None = None
    ) -> Answers:
        """Forecasts of each series, after its value of this tick [n], NaN where that is unknown.

        To be called once a tick; a series that is left out is forgotten. `at`: seconds since 1970. `metric` [n]: place in `METRICS`
        of what a series is of. `ask` [n]: where the model should speak if it can. `most` [n]: what a series cannot be above, such
        as the memory of the machine. Raises ValueError for a series of which no value is known: leave it out.
        """
        if any(value != value and key not in self._places for key, value in zip(keys, values.tolist(), strict=True)):
            raise ValueError("a series begins with an unknown value: there is nothing to forecast it from")
        places = self._assign(keys)
        chosen = [np.flatnonzero(places // WIDTH == number) for number in range(len(self._blocks))]
        parts = [(block, mine, places[mine] % WIDTH) for block, mine in zip(self._blocks, chosen, strict=True) if len(mine)]
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
        name = self._model.name if self._model is not None else ""
        if refused and not self.trouble:
            self.trouble = f"{name} gave {refused} of {asked} forecasts that cannot be"
        return Answers(said, (FALLBACK, name), by_model)

    def forget(self, keys: Iterable[Hashable]) -> None:
        """These series begin anew with their next value; unknown ones are left out."""
        for key in keys:
            place = self._places.pop(key, None)
            if place is not None:
                number, slot = divmod(place, WIDTH)
                self._blocks[number].free.append(slot)

    def hear(self, model: DemandModel) -> None:
        """Go on with another model in the place of the one that there was: what is known of the series stays, what was said and
        learned of the model before goes. Raises ValueError if there was none."""
        if self._model is None:
            raise ValueError("there was no model, so nothing was kept to judge one by: make another forecaster")
        self._model = model
        self._watch = DriftWatch(METRICS)
        self._common[1] = 0
        for block in self._blocks:
            block.unsay()

    def _learn(self, parts: Sequence[tuple[_Block, Ints, Ints]], values: Floats, at: float, metric: Ints) -> None:
        """Take in what came, and learn from what was said of it. All of it before anything is said: corrections are common."""
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
            self.changes = self._watch.step(
                *(np.concatenate([getattr(one, name) for one in judged]) for name in _Judged.__dataclass_fields__)
            )

    def _assign(self, keys: Sequence[Hashable]) -> Ints:
        """The place of each series; of those that are not named any more it is free."""
        wanted = dict.fromkeys(keys)
        for gone in [key for key in self._places if key not in wanted]:
            number, slot = divmod(self._places.pop(gone), WIDTH)
            self._blocks[number].free.append(slot)
        new = [key for key in wanted if key not in self._places]
        lack = len(new) - sum(len(block.free) for block in self._blocks)
        for block in self._blocks:
            if lack > 0:
                lack -= block.widen(lack)
        while lack > 0:
            self._blocks.append(_Block(self._interval, self._model is not None))
            lack -= self._blocks[-1].widen(lack)
        new.reverse()
        for number, block in enumerate(self._blocks):
            while new and block.free:
                self._places[new.pop()] = number * WIDTH + block.begin()
        while self._blocks and self._blocks[-1].empty:  # gives its memory back
            self._blocks.pop()
        return np.fromiter((self._places[key] for key in keys), dtype=np.int64, count=len(keys))
