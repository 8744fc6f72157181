"""The repeating pattern of a series: a cron spike every five minutes, a step every quarter of an hour. Pure.

`Seasonality` remembers some hours of one series, finds the period with which it repeats, and reports what it did at the same phase
in earlier periods. The pattern is trusted only if it predicted the newest periods, and dropped within ticks when something else
comes. Must not know what its answers are used for.

How a period is found: changes that a mean of `TREND` ticks does not follow are compared with themselves some time earlier
(autocorrelation by FFT). The best lags are tried on the newest period, which the one before must predict. Chance is measured on the
same data: the earlier period, turned by some eighths of itself, must predict much less. So neither noise nor a slow wave counts.

Values are kept as logarithms of 1 + value, because a load of 2 that doubles matters as much as one of 20 that does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

MEMORY = 16384
"""Ticks remembered: 4.5 hours at 1 Hz, so that an hourly event is seen four times. 192 KiB a series (chosen)."""

SHORTEST = 20
"""Shortest period in ticks: shorter ones are over before a worker has started (chosen)."""

AHEAD = 128
"""Most ticks ahead that can be asked for (chosen)."""

TREND = 60
"""Ticks of the mean that a change must differ from to count in the search for periods: slower changes need no prediction
(chosen)."""

SMOOTH = 3
"""Ticks that values are averaged over: so short a mean does not blur a step much, and removes much of the chance in arrivals
(chosen)."""

CALM = 6
"""An answer is the median over this many ticks on both sides: less chance, the same edges. Anything this short is not predicted
(chosen)."""

LEVELS = (60, 30, 15)
"""Where little changes, an answer is the mean of this many ticks: the largest of these numbers within which little changes
(chosen)."""

PERIODS = 7
"""Newest periods that an answer rests on: with more, habits would be remembered longer than they last (chosen)."""

UPPER = 0.8
"""Quantile over the periods that `Ahead.high` is: the second highest of six, so one odd period does not decide (chosen)."""

SLACKS = (1, 3, 6)
"""Ticks that a rise or fall may come early or late. The least that explains the series is taken (chosen)."""

CALENDAR = (60, 120, 180, 240, 300, 600, 900, 1200, 1800, 3600, 5400)
"""Usual seconds between runs in crontabs. Such a period must be confirmed once, others twice. Decision 0008
has what one confirmation for all would cost."""

TRUST = 0.5
"""Least skill (see `Ahead.right`) to be trusted. In noise, a spike of a minute every hour has 0.66, one every five minutes 0.85.
The best of many lags of pure noise reaches 0.6 now and then, but rarely in two successive periods, and is not abrupt."""

LEAST_SWING = 0.25
"""Difference of the logarithms below which a seasonal pattern is not worth following: a load that moves by less than 28 %
(chosen)."""

SHORT, ABRUPT = 12, 1.0
"""Least sum of the sharpest rise and fall found alike in two periods (mean of SHORT ticks minus that of the TREND ticks before, in
logarithms). A wave that a mean of a minute follows needs no prediction (chosen)."""

WRONG = 0.25
"""Share of the swing that values may be off for some ticks; beyond it the seasonal pattern is wrong (chosen)."""

CLEAN = 0.3
"""Difference of the logarithms between a value's upper and lower limit below which it counts as known (chosen)."""

HOLE = 300
"""Ticks without a value after which everything is forgotten; in shorter gaps the last value is repeated (chosen)."""

LARGEST = 1e9
"""Limit of values (chosen)."""

BLOCK = 64
"""Ticks for which answers are computed together (chosen)."""

# Details of the search for periods, tuned together with the constants above; all are chosen.
_WINDOWS = ((1024, 16), (4096, 64), (MEMORY, 512))  # (newest ticks that are searched, ticks between two searches)
_TURNS = 8  # turns of the earlier period, the right one included
_WIDTH = 128  # least ticks that must be predicted, also by short periods
_LIKELY = 0.2  # autocorrelation from which a lag is tried
_TRIES = 4  # lags tried in one search
_SLACKER = 0.1  # by which more slack must be better
_OFF = 2  # ticks that a period with rises and falls may be off and still count as on time
_BETTER = 0.05  # by which a longer period must be better
_MUCH_BETTER = 0.2  # by which a period must be better than another that is trusted
_LITTLE_BETTER = 0.01  # the same for one close to the trusted one, or against one that was wrong lately
_KEPT = 0.8  # share of LEAST_SWING and ABRUPT that keeps a seasonal pattern: one at the limit would oscillate
_NEAR = 0.03  # share of a period within which another one is the same
_PIECE = 0.2  # as _PART, for calendar periods: they are few, so chance rarely puts two spikes so far apart
_PART = 0.8  # of a period that must be remembered beside the one before: the first one seen may be incomplete


@dataclass(frozen=True, slots=True)
class Ahead:
    """What earlier periods predict for the coming ticks."""

    period: float  # ticks
    seen: int  # periods in which it was seen
    right: float  # skill in the newest period: share of the errors by chance that were avoided; 1: no error, 0: as by chance
    trusted: bool  # it predicted the newest periods, and nothing else has come since
    abrupt: float  # sharpest rise and fall together, beyond what a mean of TREND ticks follows, in logarithms of 1 + value
    now: float  # the upper quantile at the present tick
    median: float  # largest median in the time asked for; the mean where they differ little
    high: float  # the same for upper quantiles
    most: float  # the largest median, chance included
    least: float  # the smallest median


@dataclass(frozen=True, slots=True)
class _FoundPeriod:
    period: float
    slack: int  # ticks within which a value is as predicted
    jitter: int  # ticks by which rises and falls came early or late in the newest PERIODS
    jittered: int  # tick at which that was last seen
    right: float
    checked: int  # newest successive periods that the period before predicted; at most 2
    needed: int  # how many of these make it trusted
    swing: float  # of the newest period, in logarithms
    abrupt: float  # see `_abruptness`
    since: int  # tick from which it was seen
    verified: int  # tick of the last verification
    shifts: tuple[float, ...]  # how far the newest period lies above each of the PERIODS before it, in logarithms

    @property
    def score(self) -> float:
        """Of two periods that predict nearly as well, the calendar one is the better guess."""
        return self.right + (0.1 if self.needed == 1 else 0.0)


@dataclass(frozen=True, slots=True)
class _PeriodAnswers:
    """Answers for each tick from `at` on. `median` and `high` are values. `floor` and `ceiling` are logarithms: a value between
    them is no surprise."""

    at: int
    median: Singles
    high: Singles
    floor: Singles
    ceiling: Singles


class Seasonality:
    """One series. The same steps give the same answers, and the cost of a step does not grow."""

    def __init__(self, interval: float = 1.0, stagger: int = 0) -> None:
        """`interval`: seconds per tick. `stagger`: any number; different ones keep many series from searching at the same tick."""
        self._interval = interval
        self._stagger = stagger
        self._levels = np.zeros((2, MEMORY + MEMORY // 2), dtype=np.float32)  # logarithms of each value's lower and upper limit
        self._forget()

    def _forget(self) -> None:
        self._end = 0  # one after the newest value
        self._count = 0  # values remembered
        self._tick: int | None = None
        self._last: list[tuple[float, float]] = []  # newest values
        self._found: _FoundPeriod | None = None
        self._block: _PeriodAnswers | None = None
        self._off = 0.0  # mean error of the newest values against the prediction, in logarithms
        self._wrong_until = -1  # tick until which it is not trusted

    def step(self, tick: int, value: float | None, least: float | None = None) -> None:
        """Take the value of a tick; ticks rise. None or no finite number: unknown.

        `least`: lower limit of the value, where `value` is only its upper limit. Example: work that waits because there were too
        few workers counts in full only in `value`. Answers rest on well-known values where some period has them.
        """
        if self._tick is not None:
            missed = tick - self._tick
            if missed <= 0:
                return
            if missed > HOLE:
                self._forget()
            for _ in range(missed - 1 if self._last else 0):
                self._append(*self._last[-1])
        self._tick = tick
        known = value is not None and math.isfinite(value)
        if known and value is not None:
            most = min(max(value, 0.0), LARGEST)
            low = most if least is None or not math.isfinite(least) else min(max(least, 0.0), most)
            self._append(low, most)
        elif self._last:
            self._append(*self._last[-1])
        else:
            return
        if known:
            self._judge(tick)
        self._search(tick)
        if self._found is not None and (self._block is None or tick - self._block.at >= BLOCK):
            self._block = self._predict(tick, self._found)

    def settle(self, ticks: int, mean: float) -> None:
        """Replace the newest values by their `mean`, now that it is known: single ones were uncertain."""
        count = min(ticks, self._count)
        if count > 0 and math.isfinite(mean):
            self._newest(count)[:] = math.log1p(min(max(mean, 0.0), LARGEST))

    def ahead(self, ticks: int) -> Ahead | None:
        """The prediction for the present tick and the next `ticks`, at most AHEAD; None: nothing repeats."""
        found, block = self._found, self._block
        if found is None or block is None or self._tick is None:
            return None
        first = self._tick - block.at
        last = first + min(max(ticks, 0), AHEAD)
        return Ahead(
            period=found.period,
            seen=int((self._tick - found.since) / found.period),
            right=found.right,
            trusted=self._trusted(found, self._tick),
            abrupt=found.abrupt,
            now=float(block.high[first]),
            median=_largest(block.median[first:], last + 1 - first),
            high=_largest(block.high[first:], last + 1 - first),
            most=float(block.median[first : last + 1].max()),
            least=float(block.median[first : last + 1].min()),
        )

    @property
    def nbytes(self) -> int:
        """Bytes used for the remembered series."""
        return self._levels.nbytes

    def levels(self, ticks: int) -> Singles:
        """Logarithms of 1 + the newest values as remembered: the upper limit, where only limits are known."""
        return np.array(self._newest(min(ticks, self._count))[1])

    def _trusted(self, found: _FoundPeriod, tick: int) -> bool:
        return found.right >= TRUST and found.checked >= found.needed and tick >= self._wrong_until

    def _calendar(self, period: float) -> float | None:
        """The calendar period that this one matches within a tick or half a per cent; None if none matches."""
        for seconds in CALENDAR:
            exact = seconds / self._interval
            if abs(period - exact) <= max(1.0, 0.005 * exact):
                return exact
        return None

    # --- memory ------------------------------------------------------------------------------------------------------------------

    def _append(self, least: float, most: float) -> None:
        if self._end == self._levels.shape[1]:
            self._levels[:, :MEMORY] = self._levels[:, -MEMORY:].copy()
            self._end = MEMORY
        self._last = [*self._last[1 - SMOOTH :], (least, most)]
        for row in (0, 1):
            self._levels[row, self._end] = math.log1p(sum(value[row] for value in self._last) / len(self._last))
        self._end += 1
        self._count = min(self._count + 1, MEMORY)

    def _newest(self, count: int) -> Singles:
        """[2, count] logarithms of the newest values, oldest first."""
        return self._levels[:, self._end - count : self._end]

    # --- is it still right? ------------------------------------------------------------------------------------------------------

    def _judge(self, tick: int) -> None:
        """Compare the newest value with its prediction. A seasonal pattern that is off for some ticks is not trusted for a
        period."""
        if self._found is None or self._block is None:
            self._off = 0.0
            return
        at = tick - self._block.at
        if at >= len(self._block.floor):
            return
        least, most = self._newest(1)[:, 0].tolist()
        floor, ceiling = float(self._block.floor[at]), float(self._block.ceiling[at])
        error = least - ceiling if least > ceiling else min(most - floor, 0.0)
        self._off += 0.25 * (error - self._off)
        if abs(self._off) > WRONG * self._found.swing:
            self._wrong_until = tick + math.ceil(self._found.period)

    # --- the period --------------------------------------------------------------------------------------------------------------

    def _search(self, tick: int) -> None:
        """Search for a period, and verify the one that was found, each at intervals."""
        found = self._found
        now = tick + self._stagger
        held = found is not None and self._trusted(found, tick)
        if found is not None and now % 16 == 0 and tick - found.verified >= found.period / 8:
            found = self._verify(found.period, tick, found)
            if found is not None and found.right < TRUST / 2:
                found = None
        for place, (size, every) in enumerate(_WINDOWS):
            due = now % (4 * every if held else every) == 0
            if due and self._count > (_WINDOWS[place - 1][0] if place else 2 * SHORTEST):
                found = self._best(tick, min(size, self._count), found)
        if found is not self._found:
            if found is None or self._found is None or found.period != self._found.period:
                self._off = 0.0
                self._block = None
                if found is not None:
                    refined = self._found is not None and _near(found.period, self._found.period)
                    self._wrong_until = min(self._wrong_until, -1 if refined else tick + math.ceil(found.period))
            self._found = found

    def _best(self, tick: int, count: int, held: _FoundPeriod | None) -> _FoundPeriod | None:
        """The best of the held period and of the lags at which the newest `count` values are alike."""
        best = held
        trusted = held is not None and self._trusted(held, tick)
        for period in self._candidates(self._newest(count)[1]):
            near = held is not None and _near(period, held.period)
            if held is not None and abs(period - held.period) < 0.5:
                continue
            tried = self._verify(period, tick, held if near else None)
            if tried is None or tried.right < TRUST:
                continue
            better = _MUCH_BETTER if best is held and trusted and not near else _LITTLE_BETTER if best is held else _BETTER
            if best is None or best.right < TRUST or tried.score > best.score + better:
                best = tried
        return best

    def _candidates(self, level: Singles) -> list[float]:
        """Lags in ticks at which the series is most like itself, shortest first."""
        n = len(level)
        if float(level.max() - level.min()) < LEAST_SWING:
            return []
        sums = np.concatenate([[0.0], np.cumsum(level, dtype=np.float64)])
        at = np.arange(n)
        start = np.maximum(at - TREND, 0)
        change = level - (sums[at] - sums[start]) / np.maximum(at - start, 1)
        change[0] = 0
        change -= change.mean()
        longest = int(n / (1 + _PIECE))
        size = 1 << (2 * n - 1).bit_length()
        spectrum = np.fft.rfft(change, size)
        alike = np.fft.irfft(spectrum.real**2 + spectrum.imag**2, size)[: longest + 1]
        energy = np.concatenate([[0.0], np.cumsum(change * change)])
        lag = np.arange(longest + 1)
        alike = alike / np.sqrt(np.maximum(energy[n - lag] * (energy[n] - energy[lag]), 1e-12))
        middle = alike[SHORTEST:-1]
        peaks = (
            np.flatnonzero((middle >= alike[SHORTEST - 1 : -2]) & (middle >= alike[SHORTEST + 1 :]) & (middle >= _LIKELY))
            + SHORTEST
        )
        peaks = peaks[np.argsort(-alike[peaks], kind="stable")]
        known = [lag for lag in peaks.tolist() if lag * (1 + _PART) <= n or self._calendar(lag) is not None]
        return sorted({self._refined(lag, alike) for lag in known[:_TRIES]})

    def _refined(self, lag: int, alike: NDArray[np.float64]) -> float:
        """The period to a fraction of a tick, from the lags of several periods; a calendar period where one is near."""
        times = min((len(alike) - 1) // lag, 4)
        period = float(lag)
        if times > 1:
            low = max(times * lag - times, 0)
            period = (low + int(np.argmax(alike[low : times * lag + times + 1]))) / times
        return self._calendar(period) or period

    def _verify(self, period: float, tick: int, before: _FoundPeriod | None) -> _FoundPeriod | None:
        """Assess a period, given the assessment before; None where too little is remembered or nothing moves."""
        whole = round(period)
        slacks = [slack for slack in SLACKS if slack == 1 or slack <= whole // 8]
        width = min(max(whole, _WIDTH), self._count - whole - max(slacks))
        calendar = period >= _WIDTH and self._calendar(period) is not None
        if width < (_PIECE if calendar else _PART) * max(whole, _WIDTH):
            return None
        levels = self._newest(min(self._count, 2 * width + whole + max(slacks)))
        swing = float(np.ptp(levels[1, -width:]))
        abrupt = _abruptness(self._newest(min(self._count, 2 * whole + TREND))[1], whole)
        share = 1.0 if before is None else _KEPT
        if swing < share * LEAST_SWING or abrupt < share * ABRUPT:
            return None
        tried = [(slack, *self._skill(levels, whole, slack, width)) for slack in (0, *slacks)]
        most, least = max(right for _, right, _ in tried[1:]), min(off for _, _, off in tried)
        slack, right, _ = next(each for each in tried[1:] if each[1] >= most - _SLACKER)
        jitter = next(slack for slack, _, off in tried if off <= least + _OFF * max(width / whole, 1.0))
        jittered = tick
        if before is not None and before.jitter > jitter and tick - before.jittered < PERIODS * period:
            jitter, jittered = before.jitter, before.jittered
        checked = int(right >= TRUST)
        enough = levels.shape[1] >= 2 * width + whole + slack
        if checked and enough and self._skill(levels[:, :-width], whole, slack, width)[0] >= TRUST:
            checked = 2
        since = tick - whole - checked * min(width, whole) if before is None or not checked else before.since
        needed = 1 if calendar else 2
        shifts = self._shifts(period)
        return _FoundPeriod(period, slack, min(jitter, slack), jittered, right, checked, needed, swing, abrupt, since, tick, shifts)

    @staticmethod
    def _skill(levels: Singles, period: int, slack: int, width: int) -> tuple[float, float]:
        """(share of the errors by chance that the period before avoids for the newest `width` of the values [2, n]; ticks that
        are off by most of the swing, i.e. a rise or fall at another time).

        Differences in level between the periods do not count: their median is subtracted. Nor do errors between a well-known
        value and one of which only limits are known, as long as it is within them.
        """
        earlier = levels[:, levels.shape[1] - width - period - slack :]
        low, high = _spread(earlier, slack, np.minimum), _spread(earlier, slack, np.maximum)
        centre = earlier[:, slack : earlier.shape[1] - slack]
        clean = centre[1] - centre[0] < CLEAN
        turns = np.rint(period * np.arange(_TURNS) / _TURNS).astype(np.int64)
        rows = np.minimum(turns, centre.shape[1] - width)[:, None] + np.arange(width)
        least, most = levels[:, -width:]
        shift = _medians(most - centre[1][rows])[:, None]
        below, above = low[:, rows] + shift, most - (high[1][rows] + shift)
        errors = np.maximum(np.maximum(below[1] - most, above), 0)
        other = clean[rows] != (most - least < CLEAN)
        if other.any():
            errors[other & (below[0] <= most) & (least - most + above <= 0)] = 0
        sums = errors.sum(axis=1, dtype=np.float64)
        chance = float(sums[1:].mean())
        return 1 - float(sums[0]) / chance if chance > 0 else 0.0, float((errors[0] > np.ptp(most) / 2).sum())

    def _shifts(self, period: float) -> tuple[float, ...]:
        """How far the newest period lies above the first, second... before it, in logarithms."""
        most = self._newest(self._count)[1]
        whole, shifts = round(period), []
        for times in range(1, PERIODS + 1):
            back = round(times * period)
            width = min(whole, self._count - back)
            shifts.append(
                float(_medians((most[-width:] - most[-width - back : -back])[None])[0]) if width >= _PART * whole else 0.0
            )
        return tuple(shifts)

    # --- what comes --------------------------------------------------------------------------------------------------------------

    def _predict(self, tick: int, found: _FoundPeriod) -> _PeriodAnswers:
        """Answers for this tick and those after it, from the values a whole number of periods earlier."""
        slack = found.slack
        least, most = self._newest(self._count)
        ahead = np.arange(-slack - CALM, AHEAD + BLOCK + 1 + slack + CALM)
        times = np.maximum(np.ceil(ahead / found.period), 1) + np.arange(PERIODS)[:, None]
        at = self._count - 1 + ahead - np.rint(times * found.period).astype(np.int64)  # [PERIODS, ticks]
        shift = np.asarray(found.shifts, dtype=np.float32)[:, None]
        there = at >= 0
        at = np.maximum(at, 0)
        most, least = _calmed(most[at] + shift), _calmed(least[at] + shift)
        there = there[:, CALM:-CALM]
        clean = most - least < CLEAN
        inner = slice(slack, -slack)
        known, there_ = (there & clean)[:, inner], there[:, inner]
        any_known = known.any(axis=0)
        use = np.where(any_known, known, there_)
        jitter = found.jitter
        near = slice(slack - jitter, most.shape[1] - slack + jitter)
        sure_of = np.where(clean, most, least)
        highest = np.where(any_known, _widened(sure_of[:, near], jitter), _widened(most[:, near], jitter))
        sure = _widened(least[:1, near], jitter)
        high = np.maximum(_quantile(highest, use, UPPER), np.where(there_[0], sure[0], 0))
        usual = _quantile(most[:, inner], use, 0.5)
        median = _widened(np.pad(usual, jitter, mode="edge")[None], jitter)[0]
        floor = _quantile(_spread(least, slack, np.minimum), use, 0.5)
        widest = np.where(any_known, _widened(sure_of, slack), _widened(most, slack))
        ceiling = np.maximum(_quantile(widest, there_, UPPER), high)
        return _PeriodAnswers(tick, _back(median), _back(high), floor, ceiling)


def _abruptness(level: Singles, period: int) -> float:
    """The sharpest rise and fall together, in logarithms, beyond what a mean of TREND values follows, that the newest period and
    the one before share. Where the period before is not remembered, a rise counts at most as much as the fall that came in both,
    and a fall as the rise."""
    sums = np.concatenate([[0.0], np.cumsum(level, dtype=np.float64)])
    at = np.arange(SHORT, len(level) - SHORT + 1)
    start = np.maximum(at - TREND, 0)
    change = (sums[at + SHORT] - sums[at]) / SHORT - (sums[at] - sums[start]) / (at - start)
    newest, earlier = change[-period:], change[:-period][-period:]
    if not len(earlier):
        return 0.0
    once, twice = newest[: len(newest) - len(earlier)], newest[len(newest) - len(earlier) :]
    rise, fall = float(np.minimum(twice, earlier).max()), -float(np.maximum(twice, earlier).min())
    rise_once, fall_once = float(once.max(initial=0.0)), -float(once.min(initial=0.0))
    return max(rise, min(rise_once, fall)) + max(fall, min(fall_once, rise))


def _back(level: Singles) -> Singles:
    """Values from logarithms of 1 + value."""
    return np.minimum(np.expm1(np.maximum(level, 0)), np.float32(LARGEST))


def _near(period: float, other: float) -> bool:
    """Whether they are the same period, up to a better guess of its length."""
    return abs(period - other) <= _NEAR * other


def _largest(values: Singles, ticks: int) -> float:
    """The largest of the next `ticks`, or their mean where it is little less: the largest of many is chance. Where little changes
    for longer, the mean of that time."""
    for count in LEVELS:
        if count > ticks and math.log1p(float(values[:count].max())) - math.log1p(float(values[:count].min())) <= LEAST_SWING:
            return _mean(values[:count])
    largest, mean = float(values[:ticks].max()), _mean(values[:ticks])
    return largest if math.log1p(largest) - math.log1p(mean) > LEAST_SWING / 2 else mean


def _mean(values: Singles) -> float:
    """Their mean, which a sum of so few digits can put above the largest of them."""
    return float(min(values.mean(), values.max()))


def _medians(values: Singles) -> Singles:
    """Upper median of each row."""
    return np.asarray(np.partition(values, values.shape[1] // 2, axis=1)[:, values.shape[1] // 2])


def _spread(values: Singles, slack: int, extreme: np.ufunc) -> Singles:
    """[rows, n - 2 slack] extreme of the values [rows, n] within `slack` of each one that has enough neighbours."""
    n = values.shape[1] - 2 * slack
    result = values[:, :n].copy()
    for shift in range(1, 2 * slack + 1):
        extreme(result, values[:, shift : shift + n], out=result)
    return result


def _widened(values: Singles, slack: int) -> Singles:
    """[rows, n - 2 slack] the values [rows, n], replaced by a much higher one within `slack`: a rise may come early, a fall late. A
    slightly higher one is chance."""
    wide, own = _spread(values, slack, np.maximum), values[:, slack : values.shape[1] - slack]
    return np.asarray(np.where(wide - own > LEAST_SWING, wide, own))


def _calmed(values: Singles) -> Singles:
    """[rows, n - 2 CALM] running medians of the values [rows, n]."""
    windows = np.lib.stride_tricks.sliding_window_view(values, 2 * CALM + 1, axis=1)
    return np.asarray(np.partition(windows, CALM, axis=2)[:, :, CALM])


def _quantile(values: Singles, use: Bools, level: float) -> Singles:
    """Interpolated quantile over the first axis of the values in `use`; 0 where there are none."""
    count = use.sum(axis=0)
    ordered = np.sort(np.where(use, values, np.float32(np.inf)), axis=0)
    place = level * np.maximum(count - 1, 0)
    low = place.astype(np.int64)
    column = np.arange(values.shape[1])
    below = np.where(count > 0, ordered[low, column], np.float32(0))
    above = np.where(low + 1 < count, ordered[np.minimum(low + 1, len(values) - 1), column], below)
    return np.asarray(below + (place - low) * (above - below), dtype=np.float32)
