"""Forecasts demand: the rows that the model sees, the trained model, and the forecaster that speaks for it at run time. Pure.

`experts` says on what point simple forecasters agree and how far off that has been. The model, a small neural network, says how the
next values lie around that point, in units of those errors, so one model serves groups of any size and any metric, also such as it
never saw. `Forecaster` lets it speak only where there is evidence, and keeps quantiles right by how they came out.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .baseline import LARGEST
from .drift import Change, DriftWatch
from .experts import EXPERTS, FIRST, LEVELS, PAST, RING, Bools, Experts, Floats, Ints, Outlook, Singles
from .records import HORIZONS, QUANTILES

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

BLOCK = 640
"""Rows that are evaluated together, filled up with zeros: matrices of one shape give the same bits wherever a row stands."""

TOGETHER = 256
"""Slots whose rows are made together: they then stay in the cache, and little memory is needed."""

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


def rows(experts: Experts, seen: Outlook, slots: slice = slice(None)) -> Singles:
    """[len(DEMAND_FEATURES), H, S]: what the model is given of each series, or those in `slots`, at each horizon after a step. Free
    of scale."""
    state = {name: array[..., slots] for name, array in experts.state.items()}
    seen = seen.part(slots)
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
    lag_ = experts.period[slots]
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
    for part in (slice(0, losses.start), slice(losses.stop, at)):
        sign = np.sign(made[part])
        np.abs(made[part], out=made[part])
        np.log1p(made[part], out=made[part])
        made[part] *= sign
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
    made[at + 4] = np.log(np.minimum(experts.age[slots], 1000))
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
    return np.asarray(x / (1 + np.exp(-np.maximum(x, np.float32(-60)))))


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
        self.speaks = frozenset(metric for metric, good in zip(METRICS, arrays["speaks"].tolist(), strict=True) if good)
        self.digest = digest

    @property
    def name(self) -> str:
        """What `Forecast.source` says."""
        return f"demand {self.digest[:8]}"

    def answers(self, made: Singles, start: Singles) -> Singles:
        """See `DemandModel`."""
        a = self._arrays
        said = np.empty((len(made), len(QUANTILES)), dtype=np.float32)
        block = np.zeros((BLOCK, len(DEMAND_FEATURES)), dtype=np.float32)
        for first in range(0, len(made), BLOCK):
            part = made[first : first + BLOCK]
            block[: len(part)] = part
            block[len(part) :] = 0
            deep = silu(silu(block @ a["hidden1"] + a["bias1"]) @ a["hidden2"] + a["bias2"])
            out = deep @ a["out"] + block @ a["straight"] + a["bias3"]
            said[first : first + BLOCK] = out[: len(part)]
        return np.asarray(np.clip(said + start, -FARTHEST, FARTHEST))


def answer(model: DemandModel, made: Singles, start: Singles) -> Singles:
    """[H, Q, S] answers of a model, rising, to rows [F, H, S] and the fallback's answers [H, Q, S]. Raises ValueError if it gives
    something else."""
    features, horizons, n = made.shape
    first = np.ascontiguousarray(start.transpose(0, 2, 1)).reshape(horizons * n, len(QUANTILES))
    said = model.answers(np.ascontiguousarray(made.reshape(features, -1).T), first)
    if said.shape != (horizons * n, len(QUANTILES)):
        raise ValueError(f"answers of shape {said.shape} instead of {(horizons * n, len(QUANTILES))}")
    return np.asarray(np.sort(said.reshape(horizons, n, len(QUANTILES)).transpose(0, 2, 1), axis=1), dtype=np.float32)


COMMON_RATE, OWN_RATE = 0.005, 0.002
"""Steps of the online correction for all series together and for one, in widths of the forecast. It is an insurance for series
unlike those of the training: on the public traces, where quantiles were right already, twice these steps cost 1 % of accuracy."""

MOST_UP = 3.0
"""Most of a correction, in widths of the forecast. There is none downwards: what a calm hour would take from the upper quantiles is
missing when it ends. On the public traces it took coverage of the 90 % quantile from 86 to 83 % where load grows."""

ABSURD = 100.0
"""A forecast above so many times the largest value of its series is refused: no row that the model learned from says so much."""


LATELY = 1 / 32
"""Rate of the losses that decide on the model's share in a series' forecast."""

PATIENCE, STEEP = (1.25, 1.4), 8
"""The model's share in a quantile is 1 / (1 + (its loss / (PATIENCE x the fallback's)) ** STEEP), of losses lately: six sevenths or
more where both lose the same, a half where it loses PATIENCE times as much, next to nothing at twice that. The second patience is
for quantiles that the model has above the fallback's: lowering them is what may leave a group without room. It is for series whose
load has just changed its habits, from which the experts recover sooner than a model that never saw the like. On public traces it
gains up to 1 % of accuracy and costs the upper quantiles of a set whose load grows (Nezha) half a point to one of coverage."""

USUAL = 0.001
"""Slowest rate of what the fallback usually loses on a series: a quarter of an hour at a tick a second, so what is little in a
quiet minute counts for little."""

JUMP = 100.0
"""A loss above so many usual ones counts as so many there."""

WORST = np.float32(1e30)
"""A loss above that counts as that, and so does no number."""

WATCHED = (1, 6)
"""Horizons at which the model is judged beside the fallback while it runs: near enough to know soon."""

_WATCHED = np.asarray(WATCHED)
_AT = np.array([HORIZONS.index(horizon) for horizon in WATCHED])
_WATCHED_FIRST = np.concatenate([[0], np.cumsum(_WATCHED)[:-1]])
_LEVELS = np.asarray(QUANTILES, dtype=np.float32)[:, None]
_LITTLE = np.float32(1e-9)  # of a series in units of its first value: no loss at all


class Forecaster:
    """Forecasts many series tick by tick: the model where it may and can speak, the experts' own errors elsewhere.

    The quantiles of both are corrected by how earlier ones came out: adaptive conformal inference, in the form of quantile tracking
    (Angelopoulos, Candès, Tibshirani 2023, "Conformal PID control for time series prediction"). Each upper quantile of each horizon
    moves up by rate x level when the value was above it, back by rate x (1 - level) when below. A correction is common to all
    series of the same source, plus the series' own. Where the model has become worse than the fallback, it is not heard (`drift`).
    State is bounded by the most series of a step; the same steps give the same forecasts.
    """

    def __init__(self, model: DemandModel | None, interval: float) -> None:
        """`interval`: seconds a tick."""
        self._model = model
        self.trouble = ""  # why the model could not speak where it was asked, at the last step; "" for nothing
        self.changes: tuple[Change, ...] = ()  # of what the model was given up, or heard again, at the last step
        self._experts = Experts(0, interval)
        self._watch = DriftWatch(METRICS)
        self._slots: dict[Hashable, int] = {}
        self._free: list[int] = []
        self._tick = -1
        self._common = np.zeros((2, len(HORIZONS), len(QUANTILES)), dtype=np.float32)  # of the fallback, of the model
        rows_ = int(_WATCHED.sum()) if model is not None else 0
        self._state: dict[str, NDArray[Any]] = {
            "own": np.zeros((len(HORIZONS), len(QUANTILES), 0), dtype=np.float32),  # the series' own correction
            "due": np.zeros((RING, len(QUANTILES), 0), dtype=np.float32),  # forecasts, in units of the series; NaN: none
            "by_model": np.zeros((RING, 0), dtype=np.bool_),
            "both": np.zeros((rows_, 2, len(QUANTILES), 0), dtype=np.float32),  # what fallback and model said, likewise
            "lately": np.zeros((2, len(QUANTILES), 0), dtype=np.float32),  # what fallback and model lost lately a forecast
            "usual": np.zeros(0, dtype=np.float32),  # what the fallback loses in all quantiles together; 0: nothing judged yet
        }
        self._metric = np.zeros(0, dtype=np.int64)  # of each slot

    def step(
        self, keys: Sequence[Hashable], values: Floats, at: float, metric: Ints, ask: Bools, most: Floats | None = None
    ) -> list[tuple[Values, str]]:
        """(values as in `records.Forecast`, source) for each series, after its value of this tick [n], NaN where that is unknown.

        To be called once a tick; a series that is left out is forgotten. `at`: seconds since 1970. `metric` [n]: place in `METRICS`
        of what a series is of. `ask` [n]: where the model should speak if it can. `most` [n]: what a series cannot be above, such
        as the memory of the machine. Raises ValueError for a series of which no value is known: leave it out.
        """
        self._tick += 1
        fresh, slots = self._assign(keys)
        n = self._experts.slots
        now = np.full(n, np.nan)
        now[slots] = values
        if np.isnan(now[fresh]).any():
            raise ValueError("a series begins with an unknown value: there is nothing to forecast it from")
        self._metric[slots] = metric
        seen = self._experts.step(now, np.full(n, at), fresh)
        self.trouble, self.changes = "", ()
        if not len(keys):
            return []
        with np.errstate(over="ignore", invalid="ignore"):
            came = (now / seen.unit).astype(np.float32)
        self._learn(came)
        if self._model is not None:
            self._judge(came)
        answers = fallback(seen).copy()
        spoke = self._ask(seen, slots[ask & (self._experts.age[slots] >= MIN_TICKS)], answers)
        correction = self._common[spoke.astype(np.int64)].transpose(1, 2, 0) + self._state["own"]
        answers += correction * (answers[:, -1] - answers[:, 0])[:, None]
        said = forecasts(seen, answers)
        due = FIRST + self._tick % np.asarray(HORIZONS)
        with np.errstate(over="ignore"):
            self._state["due"][due] = (said / seen.unit[:, None, None]).transpose(1, 2, 0)
        self._state["by_model"][due] = spoke
        said = said[slots]
        if most is not None:
            said = np.minimum(said, most[:, None, None])
        sources = (FALLBACK, self._model.name if self._model is not None else "")
        return [(tuple(map(tuple, row)), sources[by]) for row, by in zip(said.tolist(), spoke[slots].tolist(), strict=True)]

    def _ask(self, seen: Outlook, asked: Ints, answers: Singles) -> Bools:
        """Overwrite `answers` with the model's in the slots asked, where it makes sense and is heard; says where."""
        spoke = np.zeros(self._experts.slots, dtype=np.bool_)
        if self._model is None:
            return spoke
        said, good = np.full((len(HORIZONS), len(QUANTILES), len(asked)), np.nan, dtype=np.float32), np.zeros(len(asked), np.bool_)
        if len(asked):
            try:
                for first in range(0, self._experts.slots, TOGETHER):
                    mine = np.flatnonzero((asked >= first) & (asked < first + TOGETHER))
                    if len(mine):
                        made = rows(self._experts, seen, slice(first, first + TOGETHER))[:, :, asked[mine] - first]
                        said[:, :, mine] = answer(self._model, made, answers[:, :, asked[mine]])
            except Exception as error:  # a model is data from outside: whatever it breaks, the experts speak
                self.trouble = f"{self._model.name} failed: {type(error).__name__}: {error}"
            else:
                with np.errstate(over="ignore", invalid="ignore"):
                    values = seen.base[:, None, asked] + seen.spread[:, None, asked] * said
                    sane = np.abs(values) <= ABSURD * self._experts.state["largest"][asked]
                good = np.asarray(sane.all(axis=(0, 1)))
                if not good.all():
                    self.trouble = f"{self._model.name} gave {np.count_nonzero(~good)} of {len(good)} forecasts that cannot be"
        self._keep(seen, asked, answers, said)
        heard = good & self._watch.heard[self._metric[asked]]
        slots = asked[heard]
        more = said[:, :, heard] - answers[:, :, slots]
        lower, higher = (self._share(patience)[:, slots] for patience in PATIENCE)
        answers[:, :, slots] += np.where(more > 0, higher, lower) * more
        spoke[asked[heard]] = True
        return spoke

    def _keep(self, seen: Outlook, asked: Ints, fallback_: Singles, model: Singles) -> None:
        """What fallback and model said of the slots asked, to be judged when it comes true. Of others nothing is."""
        place = _WATCHED_FIRST + self._tick % _WATCHED
        both = np.full((len(WATCHED), 2, len(QUANTILES), self._experts.slots), np.nan, dtype=np.float32)
        base, spread = seen.base[_AT][:, None, asked], seen.spread[_AT][:, None, asked]
        with np.errstate(over="ignore", invalid="ignore"):
            both[:, 0, :, asked] = np.moveaxis(np.maximum(base + spread * fallback_[_AT][:, :, asked], 0), 2, 0)
            both[:, 1, :, asked] = np.moveaxis(np.maximum(base + spread * model[_AT], 0), 2, 0)
        self._state["both"][place] = both
        usual = self._state["usual"]
        fresh = asked[usual[asked] == 0]
        usual[fresh] = seen.spread[_AT[0], fresh]  # about what a forecast of Laplace's distribution loses
        self._state["lately"][..., fresh] = usual[fresh] / len(QUANTILES)

    def _share(self, patience: float) -> Singles:
        """[Q, slots] the model's share in what is said: less where it lost more than the fallback lately."""
        fallback_, model = self._state["lately"]
        ratio = (model + _LITTLE) / (patience * (fallback_ + _LITTLE))
        return np.asarray(1 / (1 + np.minimum(ratio, 100) ** STEEP), dtype=np.float32)

    def _judge(self, came: Singles) -> None:
        """Tell the watch what came of what fallback and model said; `came` [slots], NaN where unknown."""
        place = _WATCHED_FIRST + self._tick % _WATCHED
        both = self._state["both"][place]  # [W, 2, Q, S]
        due = ~np.isnan(both[:, 0, 0]) & ~np.isnan(came)
        series = np.flatnonzero(due.any(axis=0))
        if not len(series):
            return
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
        rate = np.maximum(USUAL, 1 / (10.0 + self._experts.age[series])).astype(np.float32)
        usual[series] += rate * (lost - usual[series])
        unit = np.maximum(np.maximum(usual[series], lately[0][:, series].sum(axis=0)), self._experts.level[series] / 100)
        moves = unit > 0
        below = np.where(value < both, np.float32(1), np.where(value == both, _LEVELS, np.float32(0)))
        covered = np.where(due[:, None, None], below, 0).sum(axis=0)[..., moves].astype(np.float64)
        sums = (loss * counts)[..., moves] / unit[moves].astype(np.float64)
        self.changes = self._watch.step(
            self._metric[series[moves]], sums[1].T, sums[0].T, covered[1].T, covered[0].T, counts[moves].astype(np.float64)
        )

    def _learn(self, came: Singles) -> None:
        """Move the corrections by the forecasts that come true at this tick; `came` [slots], NaN where unknown: nothing does."""
        place = FIRST + self._tick % np.asarray(HORIZONS)
        due, by_model = self._state["due"][place], self._state["by_model"][place]  # [H, Q, S], [H, S]
        # An equal value is evidence of neither: else the quantiles of a series that stands still would wander
        error = np.where(came > due, _LEVELS, np.where(came < due, _LEVELS - 1, np.float32(0)))
        error[:, 0] = 0  # the median is no limit of anything
        own = self._state["own"]
        own += np.float32(OWN_RATE) * error
        np.clip(own, 0, MOST_UP, out=own)
        known = ~np.isnan(due[:, 0]) & ~np.isnan(came)
        for source in (0, 1):
            from_it = (by_model == bool(source)) & known
            mean = np.where(from_it[:, None], error, 0).sum(axis=2) / np.maximum(from_it.sum(axis=1), 1)[:, None]
            self._common[source] = np.clip(self._common[source] + COMMON_RATE * mean, 0, MOST_UP)

    def _assign(self, keys: Sequence[Hashable]) -> tuple[Bools, Ints]:
        """(where a series begins [slots], the slot of each series); slots of those that are not named any more are free."""
        wanted = dict.fromkeys(keys)
        for gone in [key for key in self._slots if key not in wanted]:
            slot = self._slots.pop(gone)
            self._empty(slot)  # so that nothing more is learned of it
            self._free.append(slot)
        new = [key for key in wanted if key not in self._slots]
        lack = len(new) - len(self._free)
        if lack > 0:
            size = self._experts.slots
            more = max(lack, size // 4, 8)
            self._experts.grow(size + more)
            for name, array in self._state.items():
                self._state[name] = np.concatenate([array, np.zeros((*array.shape[:-1], more), dtype=array.dtype)], axis=-1)
            self._metric = np.concatenate([self._metric, np.zeros(more, dtype=np.int64)])
            self._free.extend(range(size + more - 1, size - 1, -1))
            for slot in range(size, size + more):
                self._empty(slot)
        fresh = np.zeros(self._experts.slots, dtype=np.bool_)
        for key in new:
            slot = self._slots[key] = self._free.pop()
            fresh[slot] = True
            self._empty(slot)
        return fresh, np.fromiter((self._slots[key] for key in keys), dtype=np.int64, count=len(keys))

    def _empty(self, slot: int) -> None:
        self._state["own"][..., slot] = 0
        self._state["due"][..., slot] = np.nan
        self._state["both"][..., slot] = np.nan
        self._state["lately"][..., slot] = 0
        self._state["usual"][slot] = 0
