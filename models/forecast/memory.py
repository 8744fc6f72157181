"""What series do over minutes, hours and days, and their forecasts a minute to an hour ahead. Pure.

`experts` remembers `PAST` ticks, three minutes at a tick a second, and profiles by the clock. `LongMemory` stands beside it and
takes the mean of every `STRIDE` ticks into slower means. These and the profiles forecast each series `LATER` ticks ahead. As there,
recent losses say which of them to trust, and a histogram has the errors of what they agree on.

All but a sum is done once in `STRIDE` ticks, so a tick costs microseconds. Arrays have the series last, in the unit that `Experts`
has for each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..records import HORIZONS, LATER, QUANTILES
from .experts import (
    BINS,
    CALENDAR,
    EDGES,
    ENDS,
    FIRST_BINS,
    PRIOR,
    REACH,
    WIDTHS,
    Experts,
    Floats,
    Ints,
    Singles,
    widened,
)
from .packed import packed, unpacked

STRIDE = 10
"""Ticks of which the mean is taken, and after which forecasts are made anew (chosen)."""

JUDGED = (10, 30, 60, 240)
"""Ticks between two forecasts that are kept until it is known how they came, by horizon. Chosen: 46 of them are kept. Every 10
ticks at 300 ticks ahead followed sooner, but remembered only ten minutes of errors, and covered 86 % with the 90 % quantile."""

SLOW = (1.0, 0.2, 0.02, 0.004)
"""Rates of the means, for each `STRIDE` ticks: they reach back 10 seconds to 40 minutes at a tick a second (chosen)."""

SHIFTS = (0.3, 0.03, 0.1, 0.1)
"""Rates at which the level above a profile is followed: of the day twice, of the week, of the hour (chosen)."""

SAYS: tuple[str, ...] = (
    "last value",
    *(f"mean {rate:g}" for rate in SLOW),
    "day",
    "day at the level of the last minutes",
    "day at the level of the last hours",
    "week",
    "hour",
)
"""The experts. On the public sets a regression on them as another one lost 7 % more at 300 ticks ahead, and a separate profile for
weekends gained nothing."""

POWER = 8
"""Experts are weighted by loss to the power of -POWER. Chosen: 12 lost 1 to 2 % more 300 ticks ahead."""

FORGET = 0.03
"""Rate at which losses and errors are forgotten, for each one seen (chosen)."""

SURE = 8
"""Losses and errors seen at a horizon from which only these count, instead of those at the next shorter one (chosen)."""

GROWTH = 1.3
"""Errors assumed at a horizon of which none was seen, beside those at the next shorter one (chosen)."""

NEAREST = 1.5
"""The same at the first horizon, beside the mean change within `STRIDE` ticks (chosen)."""

MOVES = 0.1
"""Rate of that mean. No error is taken to be larger than the changes until then together: a series that stands still is forecast to
stay, however far it moved before. Chosen: it gains 3 % on the public sets 300 ticks ahead."""

_L = np.asarray(LATER)
_ROOM = _L // np.asarray(JUDGED)  # forecasts kept at each horizon
_FIRST = np.cumsum(_ROOM) - _ROOM
_KEPT = int(_ROOM.sum())
_FLAT = 1 + len(SLOW)
_SHIFTS = np.array(SHIFTS, dtype=np.float32)[:, None]
_TINY = np.float32(1e-9)
_QUANTILES = np.asarray(QUANTILES, dtype=np.float32)[:, None]
_DOUBTS = np.array([1.0, 1.05, 1.1] + [1.2] * (len(SAYS) - 3), dtype=np.float32)[:, None]  # chosen: losses assumed at first
_STRIDES = (_L / STRIDE).astype(np.float32)
_NEAR = (max(HORIZONS) / _L).astype(np.float32)  # share of the nearer forecast
_MOST = np.float32(1e12)  # as `Experts.learn` takes of a value
_SHAPES: dict[str, tuple[tuple[int, ...], type]] = {
    "sum": ((), np.float32),
    "ticks": ((), np.float32),  # in the sum
    "strides": ((), np.float32),  # taken in
    "means": ((len(SLOW),), np.float32),
    "before": ((), np.float32),  # the value a stride ago
    "moves": ((), np.float32),  # mean change within a stride
    "shift": ((len(SHIFTS),), np.float32),
    "loss": ((len(LATER), len(SAYS)), np.float32),
    "spread": ((len(LATER),), np.float32),
    "seen": ((len(LATER),), np.float32),  # errors seen
    "tails": ((len(LATER), BINS), np.float32),
    "said": ((_KEPT, len(SAYS)), np.uint16),  # around `base`
    "base": ((_KEPT,), np.float32),  # NaN: none
    "next": ((len(LATER),), np.float32),  # the point on which the experts agree now
    "by": ((), np.uint8),  # place in `SOURCES`
}
_PASSING = ("sum", "ticks", "said", "base", "next", "by")  # of no use after a gap
KEPT: dict[str, tuple[tuple[int, ...], type]] = {name: shape for name, shape in _SHAPES.items() if name not in _PASSING}
"""Parts of the state that hold after a gap: shape and type for one series."""

SOURCES: tuple[str, ...] = (
    "values of the last minutes",
    "yesterday and the days before at this time",
    "earlier weeks at this hour",
    "earlier hours at this minute",
)
"""What a forecast mostly rests on, in words."""

_SAYS_OF = (slice(0, _FLAT), slice(_FLAT, _FLAT + 3), slice(_FLAT + 3, _FLAT + 4), slice(_FLAT + 4, None))  # the experts of each
_TELLS = 2  # horizon whose weights say what a forecast rests on: a quarter of an hour at a tick a second (chosen)


@dataclass(frozen=True, slots=True)
class LaterForecasts:
    """Forecasts of some series `LATER` ticks ahead."""

    values: Floats  # [n, LATER, QUANTILES] in the series' own values: at least 0, rising
    by: Ints  # [n] place in SOURCES


class LongMemory:
    """The state of many series, one for each slot of `Experts`."""

    def __init__(self, interval: float, phase: int) -> None:
        """`interval`: seconds per tick. `phase`: any number; different ones keep many from working at the same tick."""
        self._interval = interval
        self._tick = phase % STRIDE  # forecasts are judged by the tick they were made at, so they need one count
        self.state: dict[str, NDArray[Any]] = {name: np.zeros((*shape, 0), dtype) for name, (shape, dtype) in _SHAPES.items()}

    def grow(self, more: int) -> None:
        """Make room for this many more series."""
        self.state = {name: widened(array, more) for name, array in self.state.items()}

    def begin(self, slot: int) -> None:
        """Clear a slot for a new series."""
        for array in self.state.values():
            array[..., slot] = 0
        self.state["base"][:, slot] = np.nan
        self.state["tails"][..., slot] = PRIOR

    def taken(self, slots: Ints) -> dict[str, NDArray[Any]]:
        """`KEPT` of the series in `slots`, for `give`."""
        return {name: self.state[name][..., slots] for name in KEPT}

    def give(self, slots: Ints, kept: Mapping[str, NDArray[Any]], gone: int) -> None:
        """Have the series in `slots`, which have just begun, go on from `kept`. `gone`: ticks since that was taken. The longer, the
        less the means from before count."""
        for name in KEPT:
            self.state[name][..., slots] = kept[name]
        left = math.ceil(1 / (1 - (1 - SLOW[-1]) ** (gone / STRIDE + 1)))
        self.state["strides"][slots] = np.minimum(kept["strides"], left)

    def learn(self, experts: Experts, at: float) -> None:
        """Take in the value that the experts have just learned. `at`: its seconds since 1970."""
        state, value = self.state, experts.state["past"][experts.row]
        self._tick += 1
        state["sum"] += value
        state["ticks"] += 1
        if self._tick % STRIDE == 0:
            self._take(value, experts, at)

    def later(self, slots: Ints, experts: Experts, near: Floats) -> LaterForecasts:
        """Forecasts of the series in `slots`. `near` [n, QUANTILES]: those for the last of `HORIZONS`. Of two good forecasts the
        mean is better; the nearer one counts the less, the further ahead it is."""
        state = self.state
        said = state["next"][:, None, slots] + self._spread()[:, None, slots] * self._tails(slots)
        with np.errstate(over="ignore"):
            values = np.maximum(np.sort(said, axis=1), 0).transpose(2, 0, 1) * experts.unit[slots, None, None]
        values += _NEAR[:, None] * (near[:, None] - values)
        young = state["strides"][slots] == 0
        values[young] = near[young, None]
        return LaterForecasts(np.ascontiguousarray(values, dtype=np.float64), state["by"][slots].astype(np.int64))

    # --- once in STRIDE ticks -----------------------------------------------------------------------------------------------------

    def _take(self, value: Singles, experts: Experts, at: float) -> None:
        """Take in the mean of the last ticks, judge the forecasts that are due, and make new ones."""
        state = self.state
        mean = state["sum"] / np.maximum(state["ticks"], 1)
        state["sum"][:] = state["ticks"][:] = 0
        state["strides"] += 1
        fresh = 1 / state["strides"]
        first = state["strides"] == 1
        np.copyto(state["before"], value, where=first)
        state["moves"] += np.maximum(np.float32(MOVES), 1 / (state["strides"] + 1)) * (
            np.abs(value - state["before"]) - state["moves"]
        )
        state["before"][:] = value
        for slow, rate in zip(state["means"], SLOW, strict=True):
            slow += np.maximum(np.float32(rate), fresh) * (mean - slow)
        due = np.flatnonzero(self._tick % np.asarray(JUDGED) == 0)
        rows = (_FIRST + self._tick // np.asarray(JUDGED) % _ROOM)[due]
        self._judge(value, due, rows)
        said = self._say(value, mean, experts, at)
        base = self._agree(said)
        state["next"][:] = base
        state["base"][rows] = base[due]
        state["said"][rows] = packed(said[due], base[due, None])

    def _say(self, value: Singles, mean: Singles, experts: Experts, at: float) -> Singles:
        """[LATER, SAYS, slots] what the experts say."""
        state = self.state
        day, hour, week = by_the_clock(experts, at)
        now, shift = np.array([day, day, week, hour]), state["shift"]
        shift[:] = np.where(np.isnan(now), 0, shift + _SHIFTS * (mean - now - shift))
        said = np.empty((len(LATER), len(SAYS), len(value)), dtype=np.float32)
        said[:, 0] = value
        said[:, 1:_FLAT] = state["means"]
        for own, ahead in zip(said, LATER, strict=True):
            day, hour, week = by_the_clock(experts, at + ahead * self._interval)
            then = np.array([day, day + shift[0], day + shift[1], week + shift[2], hour + shift[3]])
            own[_FLAT:] = np.where(np.isnan(then), state["means"][1], then)
        return np.asarray(np.minimum(np.maximum(said, 0, out=said), _MOST, out=said))

    def _agree(self, said: Singles) -> Singles:
        """[LATER, slots] the experts' mean, weighted by loss. Notes what it mostly rests on."""
        loss, moves, seen = self.state["loss"], self.state["moves"], self.state["seen"]
        shorter = np.float32(NEAREST) * _DOUBTS * moves
        weights = np.empty_like(said)
        for own, lost, count in zip(weights, loss, seen, strict=True):
            shorter = shorter + np.minimum(count / SURE, 1) * (lost - shorter)
            own[:] = shorter
        weights += _TINY
        np.divide(np.minimum.reduce(weights, axis=1, keepdims=True), weights, out=weights)
        for _ in range(POWER.bit_length() - 1):
            weights *= weights
        weights /= np.add.reduce(weights, axis=1, keepdims=True)
        clock = np.array([np.add.reduce(weights[_TELLS][places], axis=0) for places in _SAYS_OF])
        self.state["by"][:] = np.argmax(clock, axis=0)
        near = said[:, :1]
        return np.asarray(near[:, 0] + np.add.reduce(weights * (said - near), axis=1), dtype=np.float32)

    # --- how they came ------------------------------------------------------------------------------------------------------------

    def _judge(self, value: Singles, due: Ints, rows: Ints) -> None:
        """Learn from the forecasts of this value, at the horizons that are due."""
        state, spread = self.state, self._spread()
        for which, row in zip(due.tolist(), rows.tolist(), strict=True):
            base = state["base"][row]
            known = ~np.isnan(base)
            if not known.any():
                continue
            seen, loss, tails = state["seen"][which], state["loss"][which], state["tails"][which]
            seen += known
            said = unpacked(state["said"][row], base)
            lost = np.abs(value - said)
            loss += np.where(known, np.maximum(FORGET, 1 / (seen + 1)) * (lost - loss), 0)
            error = np.where(known, value - base, 0)
            size = state["spread"][which]
            size += np.where(known, np.maximum(FORGET, 1 / np.maximum(seen, 1)) * (np.abs(error) - size), 0)
            z = np.minimum(np.maximum(error / np.maximum(spread[which], _TINY), -REACH), REACH)
            place = np.floor((np.arcsinh(z * 2) + ENDS) * (BINS / (2 * ENDS)))
            place = np.minimum(np.maximum(place, 0), BINS - 1).astype(np.int64)
            forget = np.where(known, np.maximum(FORGET, 1 / (seen + 12)), 0).astype(np.float32)
            tails *= 1 - forget
            tails[place, np.arange(len(value))] += forget

    def _spread(self) -> Singles:
        """[LATER, slots] expected size of errors: see `SURE`, `GROWTH`, `MOVES`."""
        moves = self.state["moves"]
        shorter = np.float32(NEAREST / GROWTH) * moves
        spread = np.empty_like(self.state["spread"])
        for own, seen, count, strides in zip(spread, self.state["spread"], self.state["seen"], _STRIDES, strict=True):
            shorter = np.float32(GROWTH) * shorter
            shorter = shorter + np.minimum(count / SURE, 1) * (seen - shorter)
            own[:] = np.minimum(shorter, moves * strides)
        return spread

    def _tails(self, slots: Ints) -> Singles:
        """[LATER, QUANTILES, n] quantiles in the histogram of errors."""
        mass = np.zeros((len(LATER), BINS + 1, len(slots)), dtype=np.float32)  # below each edge
        np.add.accumulate(self.state["tails"][..., slots], axis=1, out=mass[:, 1:])
        mass /= mass[:, -1:]
        bin_ = np.add.reduce(mass[:, 1:-1, None] < _QUANTILES, axis=1)  # [LATER, QUANTILES, n]
        low, high = (np.take_along_axis(mass, bin_ + more, axis=1) for more in (0, 1))
        inside = np.minimum(np.maximum((_QUANTILES - low) / np.maximum(high - low, 1e-6), 0.0), 1.0)
        return np.asarray(EDGES[bin_] + inside * WIDTHS[bin_], dtype=np.float32)


def by_the_clock(experts: Experts, at: float) -> tuple[Singles, Singles, Singles]:
    """[slots] what the profiles of the day, the hour and the week say of a time; NaN where unknown. The day is taken between the
    middles of two bins."""
    profile = experts.state["profile"]

    def bin_(which: int, number: int) -> Singles:
        return np.asarray(profile[FIRST_BINS[which, 0] + number % CALENDAR[which][1]])

    place = at / CALENDAR[0][0] - 0.5
    low = math.floor(place)
    below, above = bin_(0, low), bin_(0, low + 1)
    below, above = np.where(np.isnan(below), above, below), np.where(np.isnan(above), below, above)
    day = below + np.float32(place - low) * (above - below)
    return day, bin_(1, int(at // CALENDAR[1][0])), bin_(2, int(at // CALENDAR[2][0]))
