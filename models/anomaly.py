"""Scores workers of pools: how unlike its siblings and its own past is each, in named ways, and how rare is that. Pure.

`worker_rows` turns windows into one nonconformity score a kind; a scorer (`RobustZ` or the calibrated `AnomalyModel`) turns those
into p-values; `score` names the kind. It must not know what becomes of a score: thresholds, patience and actions are the policy's.

A p-value here answers: what share of healthy worker-blocks (a worker over `BLOCK_SECONDS`, or its life if shorter) has a highest
score as high as this? Block maxima take care of autocorrelation: neighbouring ticks share nearly all of their window, so counting
ticks would call every odd minute a hundred odd events.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from .features import Floats
from .records import WINDOW, Anomaly, ProcId, Score

_T = TypeVar("_T", bound=np.generic)
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

CHANNELS = ("cpu", "wait", "rss", "slices", "chars", "busy", "fds", "queued")
"""Per worker and tick: cores run, cores waited for in the run queue, resident bytes, times put on a CPU per second, bytes read and
written per second (NaN unknown), busy share 0..1 (NaN unknown), open descriptors (NaN unknown), the pool's queued work per worker
(NaN unknown)."""

KINDS: tuple[Anomaly, ...] = (Anomaly.LEAK, Anomaly.SPIN, Anomaly.STUCK, Anomaly.STARVED, Anomaly.OUTLIER)
"""Columns of `Rows.scores`. Named kinds first: at equal p the earlier one is reported."""

BLOCK_SECONDS = 60.0
"""Length of a block. Long against the reach of what workers do (requests, collections), short against an hour of traces."""

WARM_UP = 10.0
"""Seconds at the start of a worker's life in view that are no evidence: imports, first requests, connections."""

MIB = float(1 << 20)

SEGMENTS = 8
"""A span of the leak test is cut into so many segments; seven steps between them must mostly rise."""

LEAK_SECONDS, LEAK_WHOLE_SECONDS = 12.0, 60.0
"""Shortest span of the leak test: loading one large request or result takes seconds, and is given back. And the shortest window
that is believed without a past to compare with: collectors and caches swing with periods of up to a minute."""

LEAK_BYTES, LEAK_SHARE = 8 * MIB, 0.05
"""Least growth that matters, absolute and relative to the worker's level. Allocators round up to arenas of 1 MiB and to 64 MiB
heaps of which a few MiB are touched, and a large worker moves by some percent with what it serves."""

PROGRESS_CPU, PROGRESS_SLICES, PROGRESS_CHARS = 0.002, 3.0, 64.0
"""What a worker that only keeps itself alive does at most: cores, wake-ups a second, bytes a second. gunicorn's workers wake once a
second to touch a file, Celery's and uWSGI's timers are of that order; each wake-up costs about 0.1 ms."""

GONE_ON = 2.0
"""A sibling that made progress within so many seconds is going on."""

QUEUED_FOR = 0.1
"""Cores waited in the run queue from which a worker without progress is a victim, not stuck."""

STUCK_SECONDS, STUCK_TIMES = 10.0, 20.0
"""Least standstill that matters: seconds, and times the usual pause. A slow database or a large upload takes seconds too."""

SPIN_CORES, SPIN_RUNS, SPIN_CHARS = 0.8, 0.1, 256.0
"""Demand (run and wait) of a worker that never pauses, cores that it must really run (else it is a victim), and bytes a second that
count as progress."""

SPIN_SECONDS, SPIN_SECONDS_WEAK, SPIN_WEAK = 20.0, 30.0, 3.0
"""Least spin that matters, and the same where siblings show no I/O to compare with: then a long computation looks alike, so it
takes longer, and the score is divided by `SPIN_WEAK`."""

USUAL = 0.5
"""Seconds below which a usual pause is not told apart: tasks shorter than that are all "at once" to whoever waits."""

STARVED_SECONDS, STARVED_SHARE, STARVED_CORES = 24.0, 2 / 3, 0.3
"""Span of the starvation test; least share of its demand that a starved worker waits, and least cores that it waits for."""

OUTLIER_TICKS, OUTLIER_SECONDS, OUTLIER_TIMES = 30, 60.0, 4.0
"""Span of the outlier test, the longest of all so that kinds with a name come first; and least factor above the siblings'
median."""

SEEN_SHARE = 0.75
"""Share of a span that must have been seen for a mean over it."""

TRAITS: tuple[tuple[str, float, float], ...] = (
    ("rss", 16 * MIB, 0.2),
    ("fds", 16.0, 0.2),
    ("demand", 0.05, 0.5),
    ("chars_per_cpu", 65_536.0, 0.5),
    ("slices_per_cpu", 100.0, 0.5),
)
"""What the outlier test compares: name, unit below which differences vanish (values are log1p(x / unit)), and least spread in that
scale. Work is compared per CPU second, because balancers that prefer one worker (an epoll set wakes the last sleeper first) are
healthy."""

LINE: Mapping[Anomaly, float] = {
    Anomaly.LEAK: 20.0,  # growth beyond the siblings' 2.5 times what matters, each step rising
    Anomaly.SPIN: 20.0,  # times the usual stretch of work
    Anomaly.STUCK: 20.0,  # times the usual pause
    Anomaly.STARVED: 2.5,  # 12 times the siblings' ratio of wait to run
    Anomaly.OUTLIER: 12.0,  # robust standard deviations
}
"""The score that `RobustZ` calls one healthy worker-block in a million. Pauses of Poisson work are exponential, so 20 times the
usual is e^-20 for one pause; `PRIOR_SHAPE` makes it 1e-6 for a block because real pauses have heavier tails."""

PRIOR_RATE, PRIOR_SHAPE, MILLIONTH = 0.2, 0.1, 1e-6
"""The baseline's tail: share of blocks that score above 0, and the shape of the generalised Pareto distribution beyond. An
exponential tail is shape 0; 0.1 decays like a power of 10."""

LEAST_P = 1e-12
"""No p-value below this: no amount of traces says more."""

NOTED = 0.05
"""Evidence goes with p-values up to this: nobody asks why a healthy worker is healthy, and the figures of thousands each tick would
cost more than the scoring."""

NAMED = 1e-3
"""A worker with a named kind this rare is not called an outlier meanwhile."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What the windows say about each worker."""

    scores: Floats  # [n, len(KINDS)] nonconformity, 0 or more; NaN: no evidence
    material: Flags  # [n, len(KINDS)] large enough to matter to anybody; False: its p-value is 1
    evidence: Mapping[Anomaly, Mapping[str, Floats]]  # kind -> figure -> [n]; NaN: not known


def worker_rows(pools: Sequence[str], windows: Floats, lengths: Ints, interval: float) -> Rows:
    """Scores by kind of workers from their windows.

    `pools` [n]: the pool of each worker. `windows` [n, WINDOW, len(CHANNELS)] and `lengths` [n] as `features.Windows.view` gives
    them. `interval`: seconds a tick. The order of workers has no influence. NaN inside a window is a tick that is not known.
    """
    n = len(pools)
    if windows.shape != (n, WINDOW, len(CHANNELS)) or np.shape(lengths) != (n,):
        raise ValueError(
            f"{n} workers need windows [{n}, {WINDOW}, {len(CHANNELS)}] and {n} lengths, not {windows.shape}, {np.shape(lengths)}"
        )
    if not 0 < interval < math.inf:
        raise ValueError(f"interval must be seconds above 0, not {interval}")
    if n == 0:
        raise ValueError("no workers, no rows")
    number = {name: i for i, name in enumerate(sorted(set(pools)))}
    index = np.fromiter((number[name] for name in pools), dtype=np.int64, count=n)
    if (np.diff(index) >= 0).all():  # so they come from the observer
        return _by_pool(windows, np.asarray(lengths), _Siblings(index), interval)
    order = np.argsort(index, kind="stable")
    rows = _by_pool(windows[order], np.asarray(lengths)[order], _Siblings(index[order]), interval)
    back = np.argsort(order)
    return Rows(
        rows.scores[back],
        rows.material[back],
        {kind: {name: figure[back] for name, figure in figures.items()} for kind, figures in rows.evidence.items()},
    )


class Scorer(Protocol):
    """What turns scores into p-values, trained or not."""

    def tails(self, interval: float) -> tuple[str, Mapping[Anomaly, Tail]]:
        """(`Score.source`, healthy distribution by kind) for ticks of `interval` seconds."""
        ...


@dataclass(frozen=True, slots=True)
class Tail:
    """The healthy distribution of a kind's block maxima: conformal rank among those seen, beyond them a generalised Pareto tail.

    Peaks over a threshold tend to that distribution (Pickands 1975, Balkema and de Haan 1974; Coles 2001, chapter 4).
    """

    seen: Floats  # block maxima of healthy workers, rising; may be empty
    threshold: float
    rate: float  # share of blocks above the threshold
    shape: float  # above 0: heavier than exponential
    scale: float

    def p(self, scores: Floats) -> Floats:
        """Share of healthy worker-blocks that reach these scores; NaN for NaN. In (0, 1]."""
        n = len(self.seen)
        rank = (1.0 + n - np.searchsorted(self.seen, scores, side="left")) / (n + 1.0)
        over = np.maximum(scores - self.threshold, 0.0)
        beyond = self.rate * (1.0 + self.shape * over / self.scale) ** (-1.0 / self.shape)
        p = np.where(scores <= self.threshold, np.maximum(rank, self.rate), beyond)
        return np.where(np.isnan(scores), np.nan, np.clip(p, 1e-300, 1.0))


def prior(kind: Anomaly) -> Tail:
    """The baseline's tail of a kind, through (`LINE`, 1e-6); also what calibration starts from."""
    scale = LINE[kind] * PRIOR_SHAPE / ((PRIOR_RATE / MILLIONTH) ** PRIOR_SHAPE - 1.0)
    return Tail(np.zeros(0), 0.0, PRIOR_RATE, PRIOR_SHAPE, scale)


class RobustZ:
    """The scorer without training: fixed, conservative tails. Finds what is blatant, says nothing about what is merely odd."""

    source = "baseline robust z"

    def __init__(self) -> None:
        self._tails = {kind: prior(kind) for kind in KINDS}

    def tails(self, interval: float) -> tuple[str, Mapping[Anomaly, Tail]]:
        """The same at every interval."""
        del interval
        return self.source, self._tails


class AnomalyModel:
    """The scorer with tails calibrated on traces of healthy workers."""

    def __init__(self, tails: Mapping[Anomaly, Tail], digest: str, interval: float) -> None:
        self.source = f"anomaly {digest[:12]}"
        self.interval = interval
        self._tails = dict(tails)
        self._baseline = RobustZ()

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]], digest: str, interval: float) -> AnomalyModel:
        """The model from an artefact's arrays: KIND_seen (block maxima, rising) and KIND_tail (threshold, rate, shape, scale).

        `interval`: seconds a tick of the traces it was calibrated on. Raises ValueError for arrays that no calibration makes.
        """
        tails = {}
        for kind in KINDS:
            missing = [name for name in (f"{kind}_seen", f"{kind}_tail") if name not in arrays]
            if missing:
                raise ValueError(f"anomaly model lacks {', '.join(missing)}; train again")
            seen = np.asarray(arrays[f"{kind}_seen"], dtype=np.float64)
            tail = np.asarray(arrays[f"{kind}_tail"], dtype=np.float64)
            if seen.ndim != 1 or tail.shape != (4,) or not (np.isfinite(seen).all() and np.isfinite(tail).all()):
                raise ValueError(f"anomaly model: {kind} must have finite block maxima [n] and a tail of 4 figures; train again")
            threshold, rate, shape, scale = tail.tolist()
            if (np.diff(seen) < 0).any() or not (0 < rate <= 1 and shape > 0 and scale > 0 and threshold >= 0):
                raise ValueError(f"anomaly model: {kind} has no sensible distribution; train again")
            tails[kind] = Tail(seen, threshold, rate, shape, scale)
        if not 0 < interval < math.inf:
            raise ValueError(f"anomaly model: interval must be seconds above 0, not {interval}; train again")
        return cls(tails, digest, interval)

    def tails(self, interval: float) -> tuple[str, Mapping[Anomaly, Tail]]:
        """The calibrated tails; the baseline's for ticks more than twice as long or short as those of the calibration."""
        if not 0.5 <= interval / self.interval <= 2.0:
            return self._baseline.tails(interval)
        return self.source, self._tails


def alpha(false_alarms_per_day_per_100_workers: float, kinds: int = len(KINDS)) -> float:
    """The p-value below which to alarm, so that 100 healthy workers give so many false alarms a day.

    Bonferroni over the blocks of a day, the workers and the kinds: all are tried, each may err.
    """
    if not (false_alarms_per_day_per_100_workers > 0 and kinds > 0):
        raise ValueError(f"false alarms and kinds must be above 0, not {false_alarms_per_day_per_100_workers} and {kinds}")
    return min(false_alarms_per_day_per_100_workers / (86_400.0 / BLOCK_SECONDS * 100.0 * kinds), 1.0)


def score(
    scorer: Scorer, ids: Sequence[ProcId], pools: Sequence[str], windows: Floats, lengths: Ints, interval: float
) -> list[Score]:
    """The most unusual kind of each worker, sorted by id. Workers of which nothing can be said yet have no score, and those that
    are not unusual no evidence.

    Arguments as of `worker_rows`. What is rare but too small to matter has p = 1.
    """
    return judge(scorer, ids, pools, worker_rows(pools, windows, lengths, interval), interval) if ids else []


def judge(scorer: Scorer, ids: Sequence[ProcId], pools: Sequence[str], rows: Rows, interval: float) -> list[Score]:
    """`score` from rows that are there already: several scorers can judge the same."""
    source, tails = scorer.tails(interval)
    raw = np.column_stack([tails[kind].p(rows.scores[:, column]) for column, kind in enumerate(KINDS)])
    raw = np.where(np.isnan(raw), np.inf, raw)
    p = np.where(rows.material, np.clip(raw, LEAST_P, 1.0), 1.0)
    last = KINDS.index(Anomaly.OUTLIER)
    p[raw[:, :last].min(axis=1) < NAMED, last] = 1.0
    # the least p; among equals the least raw one, then the first kind; never a kind without evidence
    chosen = np.lexsort((raw, np.where(np.isinf(raw), np.inf, p)), axis=1)[:, 0]
    every = np.arange(len(ids))
    columns = (chosen, rows.scores[every, chosen], p[every, chosen], np.isfinite(raw[every, chosen]))
    told = zip(every.tolist(), ids, pools, *(column.tolist() for column in columns), strict=True)
    scores = [
        Score(id_, pool, KINDS[kind], value, chance, () if chance > NOTED else _figures(rows, KINDS[kind], i), source)
        for i, id_, pool, kind, value, chance, known in told
        if known
    ]
    return sorted(scores, key=attrgetter("id"))


def _figures(rows: Rows, kind: Anomaly, worker: int) -> tuple[tuple[str, float], ...]:
    """The evidence for people, without what is not known."""
    figures = ((name, float(figure[worker])) for name, figure in rows.evidence[kind].items())
    return tuple((name, round(figure, 6)) for name, figure in figures if math.isfinite(figure))


# --- windows to evidence ------------------------------------------------------------------------------------------------------


class _Siblings:
    """Who is in a pool with whom. Workers are ordered by pool."""

    def __init__(self, index: Ints) -> None:
        _, starts, inverse, counts = np.unique(index, return_index=True, return_inverse=True, return_counts=True)
        self.index: Ints = inverse.astype(np.int64)  # [n] pool of each worker, rising from 0
        self.starts: Ints = starts.astype(np.int64)  # [pools] first worker
        self.first: Ints = self.starts[self.index]  # [n] first worker of the worker's pool
        self.size: Ints = counts[self.index].astype(np.int64)  # [n] workers in the worker's pool
        self._end = self.first + self.size - 1
        self._base = self.index << 32
        self._unknown = self._base + _LAST

    def median(self, values: Floats) -> Floats:
        """Medians over the siblings of each worker, itself left out, along the last axis; NaN where none has a value."""
        keys, ordered, valid = self._ordered(values)
        known = keys != self._unknown
        others = valid - known
        low, high = self.first + np.maximum(others - 1, 0) // 2, self.first + others // 2
        # the worker's own value takes a place at or before that of the median, so all after it move up by one
        low = low + (known & (keys <= _at(ordered, low)))
        high = high + (known & (keys <= _at(ordered, np.minimum(high, self._end))))
        return self._middle(ordered, low, high, others > 0, values.shape)

    def pool_median(self, values: Floats) -> Floats:
        """Medians over the pool of each worker, itself included, along the last axis; NaN where none has a value."""
        _, ordered, valid = self._ordered(values)
        low, high = self.first + np.maximum(valid - 1, 0) // 2, self.first + valid // 2
        return self._middle(ordered, low, high, valid > 0, values.shape)

    def total(self, counts: NDArray[np.integer]) -> Ints:
        """Sums over the pool of each worker along the first axis."""
        return np.asarray(np.add.reduceat(counts, self.starts, axis=0, dtype=np.int32)[self.index])

    def _ordered(self, values: Floats) -> tuple[Ints, Ints, Ints]:
        """(a key for each value that sorts by pool, then by value; those in order; known values of the pool). All [rows, n].

        Keys are integers, pool above and the value in single precision below: an order of magnitude faster than sorting by two
        keys."""
        rows = values.reshape(-1, values.shape[-1])
        with np.errstate(over="ignore"):
            single = rows.astype(np.float32) + np.float32(0.0)  # no minus zero
        known = np.isfinite(single)
        keys = self._base + np.where(known, _flip(single.view(np.int32)), _LAST)
        valid = np.broadcast_to(self.size, known.shape) if known.all() else self.total(known.view(np.int8).T).T
        return keys, np.sort(keys, axis=-1), valid

    def _middle(self, ordered: Ints, low: Ints, high: Ints, there: Flags, shape: tuple[int, ...]) -> Floats:
        """Mean of the values at two places, NaN unless `there`."""
        keys = (_at(ordered, np.minimum(place, self._end)) - self._base for place in (low, high))
        lower, upper = (_flip(key.astype(np.int32)).view(np.float32).astype(np.float64) for key in keys)
        return np.where(there, (lower + upper) / 2, np.nan).reshape(shape)


def _at(rows: Ints, places: Ints) -> Ints:
    """`rows` [rows, n] at `places` [rows, n] of the same row."""
    return np.asarray(rows.ravel().take(places + (np.arange(len(rows)) * rows.shape[1])[:, None]))


_LAST = (1 << 31) - 1
"""Sorts after the key of every finite value."""


def _flip(bits: NDArray[np.int32]) -> NDArray[np.int32]:
    """Bits of single precision to integers in the same order, and back."""
    return np.asarray(bits ^ ((bits >> 31) & np.int32(_LAST)))


def _by_pool(windows: Floats, lengths: Ints, siblings: _Siblings, interval: float) -> Rows:
    """`worker_rows` of workers ordered by pool."""
    with np.errstate(over="ignore"):  # what single precision cannot hold is not known
        values = np.ascontiguousarray(windows.transpose(2, 0, 1), dtype=np.float32)
    age = WINDOW - np.clip(lengths, 0, WINDOW)[:, None]
    known = np.isfinite(values)
    known &= values >= 0
    used = known[0]
    if age.any():
        known &= np.arange(WINDOW) >= age
        warm = max(math.ceil(WARM_UP / interval), 2)
        # A full window does not tell when the worker was born: then all of it counts, and the tests ask for lasting evidence.
        used = known[0] & (np.arange(WINDOW) >= np.where(age > 0, age + warm, 0))
    if not known.all():
        values = np.where(known, values, np.float32(0.0))
    view = _View(dict(zip(CHANNELS, values, strict=True)), dict(zip(CHANNELS, known, strict=True)), used, siblings, interval)
    found = {
        Anomaly.LEAK: _leak(view),
        Anomaly.SPIN: _spin(view),
        Anomaly.STUCK: _stuck(view),
        Anomaly.STARVED: _starved(view),
        Anomaly.OUTLIER: _outlier(view),
    }
    scores = np.column_stack([found[kind].score for kind in KINDS])
    return Rows(
        scores=scores,
        material=np.column_stack([found[kind].material for kind in KINDS]) & ~np.isnan(scores),
        evidence={kind: found[kind].evidence for kind in KINDS},
    )


class _View:
    """What the tests share."""

    def __init__(
        self, values: dict[str, Floats], known: dict[str, Flags], used: Flags, siblings: _Siblings, interval: float
    ) -> None:
        self.values = values  # channel -> [n, ticks]; unknown is 0
        self.known = known
        self.used = used  # [n, ticks] known and after the warm-up
        self.ticks = np.count_nonzero(used, axis=1)
        self._seen: dict[tuple[int, int], Ints] = {}
        self._all_known = {name: bool(flags.all()) for name, flags in known.items()}
        self.siblings = siblings
        self.alone = siblings.size < 2
        self.interval = interval
        self.demand = values["cpu"] + values["wait"]
        self.means = {name: self.mean(name) for name in ("cpu", "slices", "chars")}
        self.usual = dict(zip(self.means, siblings.median(np.array(list(self.means.values()))), strict=True))

    def mean(self, channel: str, at: slice = slice(None), share: float = 0.0) -> Floats:
        """Mean [n] over the known ticks `at` after the warm-up; NaN where there is none, or less than `share` of all are seen."""
        start, stop, _ = at.indices(WINDOW)
        if (start, stop) not in self._seen:
            self._seen[start, stop] = np.count_nonzero(self.used[:, at], axis=1)
        seen = count = self._seen[start, stop]
        there = self.used[:, at]
        if not self._all_known[channel]:
            there = there & self.known[channel][:, at]
            count = np.count_nonzero(there, axis=1)
        enough = seen >= share * (stop - start)
        return _ratio(np.einsum("ij,ij->i", self.values[channel][:, at], there), np.where(enough, count, 0))

    def clock(self, advance: Floats, reset: Flags) -> tuple[Floats, Floats]:
        """(seconds on the clock now, its usual reading) of a clock that advances by `advance` a tick and is set to 0 by `reset`.

        The usual reading is that at a random instant: of the siblings (their median), or of the worker's own time before the
        current stretch, whichever is longer. A random instant falls into long stretches more often, as whoever waits does.
        """
        reset = reset & self.used
        # ticks first, so that each step below runs over all workers at once; three times faster than cumsum along each worker
        clock = np.ascontiguousarray((advance * self.used).T)
        keep = np.ascontiguousarray((~reset).T).astype(np.float32)
        now = np.zeros(len(reset), dtype=np.float32)
        for at, kept in zip(clock, keep, strict=True):
            np.add(at, now, out=at)
            now = np.multiply(at, kept, out=at)
        stretch = np.where(reset.any(axis=1), np.argmax(reset[:, ::-1], axis=1), WINDOW)  # ticks since the last reset
        before = np.arange(WINDOW) < (WINDOW - stretch)[:, None]
        theirs = self.siblings.median(_ratio(clock.sum(axis=0), self.ticks))
        own = _ratio(np.einsum("ji,ij->i", clock, before), np.count_nonzero(self.used & before, axis=1))
        return now.astype(np.float64), np.fmax(np.fmax(theirs, own), max(USUAL, self.interval / 2))


@dataclass(frozen=True, slots=True)
class _Found:
    """One kind's share of `Rows`."""

    score: Floats
    material: Flags
    evidence: dict[str, Floats]


def _leak(view: _View) -> _Found:
    """Memory that keeps entering new territory, beyond what the siblings hold or gained.

    On trailing spans of several lengths: the least value of the last eighth, above the highest least value of all eighths before.
    Least values see through short-lived memory, and a sawtooth (garbage collection, caches with expiry) comes back to old heights.
    Most steps must rise, the later half must not level off (a warm-up does), what siblings hold as well is no leak, and where
    siblings swing by much, much is needed. A span needs a past of its own length to be compared with; only the whole
    window, if it is long, goes without. Without siblings only the whole window counts.
    """
    siblings, interval, n = view.siblings, view.interval, len(view.used)
    # ticks first: reductions over a few ticks run over all workers at once
    least = np.ascontiguousarray(np.where(view.used & view.known["rss"], view.values["rss"], np.float32(np.inf)).T)
    best, material = np.full(n, np.nan), np.zeros(n, dtype=np.bool_)
    evidence = {
        name: np.full(n, np.nan)
        for name in (
            "growth_mib",
            "growth_mib_per_minute",
            "siblings_growth_mib",
            "seconds",
            "steps_rising",
            "rss_mib",
            "siblings_rss_mib",
        )
    }
    length = 1
    while length * SEGMENTS < WINDOW:
        length *= 2
        least = np.minimum(least[0::2], least[1::2])
        if length * SEGMENTS * interval < LEAK_SECONDS:
            continue
        last = least[-SEGMENTS:]
        whole = length * SEGMENTS == WINDOW and WINDOW * interval >= LEAK_WHOLE_SECONDS
        fits = np.isfinite(last).all(axis=0) & (whole | (~view.alone & (view.ticks >= 2 * length * SEGMENTS)))
        if not fits.any():
            continue
        last = np.where(fits, last, np.float32(0.0))
        earlier = least[: 1 - SEGMENTS]
        before = np.where(np.isfinite(earlier), earlier, np.float32(0.0)).max(axis=0)
        now, growth = last[-1], last[-1] - before
        swing = before - least.min(axis=0)
        theirs, level, swing = siblings.median(np.where(fits, [growth, now, np.maximum(swing, growth)], np.nan))
        theirs = np.fmax(theirs, 0.0)
        excess = np.fmin(growth - np.nan_to_num(theirs), now - level)
        matters = np.fmax(np.maximum(LEAK_BYTES, LEAK_SHARE * before), swing)
        steps, even = np.diff(last, axis=0), np.maximum(growth, 0.0) / (SEGMENTS - 1)
        rising = np.count_nonzero(steps > even / 4, axis=0) / (SEGMENTS - 1)
        lasting = (rising >= 0.7) & (steps.min(axis=0) >= -even) & (now - last[SEGMENTS // 2] >= growth / 3)
        value = np.where(lasting, np.maximum(excess, 0.0) / matters * SEGMENTS * rising**2, 0.0)
        better = fits & ~(value <= best)
        best = np.where(better, value, best)
        material = np.where(better, lasting & (excess >= matters), material)
        seconds = (SEGMENTS - 1) * length * interval
        for name, figure in {
            "growth_mib": growth / MIB,
            "growth_mib_per_minute": (now - last[0]) / MIB / seconds * 60,
            "siblings_growth_mib": theirs / MIB,
            "seconds": np.full(n, seconds),
            "steps_rising": rising,
            "rss_mib": now / MIB,
            "siblings_rss_mib": level / MIB,
        }.items():
            evidence[name] = np.where(better, figure, evidence[name])
    return _Found(best, material, evidence)


def _spin(view: _View) -> _Found:
    """CPU without progress: seconds on a CPU, or in line for one, since the last I/O or pause; in units of the usual."""
    values, siblings = view.values, view.siblings
    least = np.fmax(0.02 * view.usual["chars"], SPIN_CHARS)
    moved = view.known["chars"] & (values["chars"] >= least[:, None].astype(np.float32))
    running = (view.demand >= SPIN_CORES) & (values["cpu"] >= SPIN_RUNS)
    seconds, usual = view.clock(view.interval * np.minimum(view.demand, 1.0), ~running | moved)
    per_cpu = _ratio(view.means["chars"], view.means["cpu"])
    theirs = siblings.median(np.where(view.means["cpu"] >= 0.01, per_cpu, np.nan))
    comparable = view.known["chars"][:, -1] & (theirs >= 4 * SPIN_CHARS) & (view.usual["cpu"] >= 0.02)
    value = seconds / usual / np.where(comparable, 1.0, SPIN_WEAK)
    seen = ~view.alone & (view.ticks > 0)
    return _Found(
        np.where(seen, value, np.nan),
        seen & (seconds >= np.where(comparable, SPIN_SECONDS, SPIN_SECONDS_WEAK)),
        {
            "seconds_without_io_or_pause": seconds,
            "usual_seconds": usual,
            "cpu_cores": view.means["cpu"],
            "bytes_per_cpu_second": per_cpu,
            "siblings_bytes_per_cpu_second": theirs,
        },
    )


def _stuck(view: _View) -> _Found:
    """No progress though there is work and siblings go on: such seconds since the last progress, in units of the usual.

    The clock stands while there is nothing to do (neither busy nor anything queued lately; a queue that is there for a moment
    counts for its share) and while most siblings stand still too. Where neither busy nor queued is known, going siblings are
    taken for work.
    """
    values, known, siblings, interval = view.values, view.known, view.siblings, view.interval
    cpu = np.fmax(0.02 * view.usual["cpu"], PROGRESS_CPU)
    # a heartbeat that falls into a short tick looks like many a second
    slices = np.fmax(0.1 * view.usual["slices"], max(PROGRESS_SLICES, 2 / interval))
    chars = np.fmax(0.02 * view.usual["chars"], PROGRESS_CHARS)
    progress = view.used & (
        (values["cpu"] > cpu[:, None].astype(np.float32))
        | (values["wait"] > QUEUED_FOR)
        | (values["slices"] > slices[:, None].astype(np.float32))
        | (values["chars"] > chars[:, None].astype(np.float32))
    )
    lately = int(max(GONE_ON / interval, 2.0)) + 1
    going = _highest(progress, lately)
    everywhere = view.used.all()
    others = (siblings.size - 1)[:, None] if everywhere else siblings.total(view.used.view(np.int8)) - view.used
    go_on = (others > 0) & (siblings.total(going.view(np.int8)) - going >= (others + 1) // 2)
    queue = np.minimum(values["queued"] * siblings.size[:, None].astype(np.float32), np.float32(1.0))
    queue = _highest(queue, lately)
    work = np.maximum(np.minimum(values["busy"], np.float32(1.0)), queue)
    untold = ~(known["busy"] | known["queued"])
    if untold.any():
        work = np.maximum(work, untold)
    seconds, usual = view.clock(work * (go_on * np.float32(interval)), progress)
    seen = ~view.alone & (view.ticks > 0)
    return _Found(
        np.where(seen, seconds / usual, np.nan),
        seen & (seconds >= np.maximum(STUCK_SECONDS, STUCK_TIMES * usual)),
        {
            "seconds_without_progress": seconds,
            "usual_seconds": usual,
            "siblings_cpu_cores": view.usual["cpu"],
            "siblings_slices_per_second": view.usual["slices"],
            "siblings_bytes_per_second": view.usual["chars"],
            "queued_per_worker": np.where(known["queued"][:, -1], values["queued"][:, -1], np.nan),
        },
    )


def _starved(view: _View) -> _Found:
    """In line for a CPU far longer than on one, and far more so than the siblings, throughout three stretches of time."""
    stretch = min(max(math.ceil(STARVED_SECONDS / 3 / view.interval), 4), WINDOW // 3)
    ratios, waits, shares = [], [], []
    for back in range(3):
        at = slice(WINDOW - (back + 1) * stretch, WINDOW - back * stretch)
        wait, cpu = view.mean("wait", at, SEEN_SHARE), view.mean("cpu", at, SEEN_SHARE)
        ratios.append(np.log((wait + 0.02) / (cpu + 0.02)))
        waits.append(wait)
        shares.append(_ratio(wait, wait + cpu))
    wait, share = np.mean(waits, axis=0), np.min(shares, axis=0)
    *theirs, their_share = view.siblings.median(np.array([*ratios, share]))
    return _Found(
        np.maximum(np.min(np.array(ratios) - np.array(theirs), axis=0), 0.0),
        (share >= STARVED_SHARE) & (wait >= STARVED_CORES),
        {
            "wait_cores": wait,
            "wait_share": share,
            "siblings_wait_share": their_share,
            "seconds": np.full(len(share), 3 * stretch * view.interval),
        },
    )


def _outlier(view: _View) -> _Found:
    """Far above the siblings in some trait, in both halves of a long span: robust z (median, MAD) of logarithms. Three workers or
    more.

    Only upwards: who does less than the others has less to do, or is stuck, which has a name.
    """
    siblings, n = view.siblings, len(view.used)
    half = min(max(OUTLIER_TICKS, math.ceil(OUTLIER_SECONDS / view.interval)), WINDOW) // 2
    units, spreads = np.array([(unit, spread) for _, unit, spread in TRAITS]).T[:, :, None]
    lowest = times = np.full((len(TRAITS), n), np.inf)
    for at in (slice(WINDOW - 2 * half, WINDOW - half), slice(WINDOW - half, WINDOW)):
        rss, fds, cpu, wait, chars, slices = (
            view.mean(name, at, SEEN_SHARE) for name in ("rss", "fds", "cpu", "wait", "chars", "slices")
        )
        per_cpu = cpu + wait + 0.05
        traits = np.array([rss, fds, cpu + wait, chars / per_cpu, slices / per_cpu])
        value = np.log1p(traits / units)
        apart = value - siblings.pool_median(value)
        lowest = np.minimum(lowest, apart / np.maximum(1.4826 * siblings.pool_median(np.abs(apart)), spreads))
        times = np.minimum(times, np.exp(apart))
    enough = siblings.total(np.isfinite(lowest[0]).view(np.int8)) >= 3
    best = np.fmax.reduce(lowest, axis=0)
    matters = (np.nan_to_num(times, nan=1.0) >= OUTLIER_TIMES) & (np.nan_to_num(lowest, nan=-1.0) >= best)
    return _Found(
        np.where(enough & np.isfinite(best), np.maximum(best, 0.0), np.nan),
        enough & matters.any(axis=0),
        {f"{name}_times_siblings": np.where(enough, times[row], np.nan) for row, (name, _, _) in enumerate(TRAITS)},
    )


def _ratio(above: Floats, below: Floats | Ints) -> Floats:
    """above / below, NaN where there is nothing below."""
    safe = np.where(below > 0, below, 1)
    return np.where(below > 0, above / safe, np.nan)


def _highest(values: NDArray[_T], ticks: int) -> NDArray[_T]:
    """Highest value within the last `ticks`, at each tick. In steps that double, for windows are short."""
    result, reach = values.copy(), 1
    while reach < min(ticks, WINDOW):
        step = min(reach, ticks - reach)
        result[:, step:] = np.maximum(result[:, step:], result[:, :-step])
        reach += step
    return result
