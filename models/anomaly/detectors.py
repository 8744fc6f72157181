"""One test for each kind of misbehaviour that a worker shows by itself: windows become scores, with figures. Pure.

A score says how unlike its siblings a worker is in one named way, or unlike its own past where siblings are few. `model.py` judges
how rare that is. Each test begins with a cheap bound that misses no trouble that would matter. Only workers beyond it, and their
pools, are looked at closely. The others score 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..features import Floats, Singles
from ..records import WINDOW, Anomaly
from .evidence import CHANNELS, PAST_SECONDS, SEEN_SHARE, Found, View, highest, ratio, total
from .siblings import Flags, Ints, Siblings

MIB = float(1 << 20)

NEAR = 0.5
"""Share of what matters from which a worker is looked at closely: one about to get a named kind must not be called an outlier."""

FEW = 1.0
"""False alarms a day per 100 workers (the default) up to which only what matters is reported."""

LEAST = 0.1
"""The same share for outliers where smaller things are asked for: no other kind comes in all sizes."""

SEGMENTS = 8
"""Segments of a span of the leak test. The seven steps between them must mostly rise."""

STEADY = 2.0
"""Steady growth: its largest step is at most this many times the average step. Crowds come at once, leaks with each request."""

LEAK_WHOLE_SECONDS = 60.0
"""Shortest window believed without a past to compare with: collectors and caches oscillate with periods of up to a minute."""


@dataclass(frozen=True, slots=True)
class _Leaking:
    """What can leak, and the least growth that matters."""

    channel: str
    name: str  # in figures
    unit: float
    least_compared: float  # absolute, for workers whose siblings do as much
    least: float  # for those whose siblings do less: an idle sibling does not show that growth is unnecessary
    least_alone: float  # for those without siblings
    share: float  # of the worker's own level
    seconds: float  # shortest span
    weight: float  # of steady growth where siblings do as much and stand still; higher for counts, which stand still exactly
    young: bool  # whether siblings that stand still are enough evidence against a worker that is no older than the span


LEAKING: Mapping[Anomaly, _Leaking] = {
    # Allocators round up to arenas of 1 MiB, and to 64 MiB heaps of which a few MiB are touched; a large worker moves by a few %.
    # Loading one large request or result takes seconds, and the memory is given back.
    Anomaly.LEAK: _Leaking("rss", "mib", MIB, 8 * MIB, 8 * MIB, 8 * MIB, 0.05, 12.0, 1.0, young=False),
    # Connections kept open come by dozens; crowds of clients come by hundreds within about ten seconds.
    Anomaly.FD_LEAK: _Leaking("fds", "fds", 1.0, 16.0, 32.0, 128.0, 0.2, 24.0, 2.0, young=True),
    # Thread executors fill up to some dozens (Python's default: at most 32), one by one, one worker's before another's.
    Anomaly.THREAD_LEAK: _Leaking("threads", "threads", 1.0, 10.0, 16.0, 64.0, 0.2, 24.0, 1.0, young=True),
}

AS_MUCH = 1 / 3
"""Share of a worker's work from which a sibling does as much. Work is bytes, or times put on a CPU where bytes are not known."""

PROGRESS_CPU, PROGRESS_SLICES, PROGRESS_CHARS = 0.002, 3.0, 64.0
"""Most that a worker does which only keeps itself alive: cores, wake-ups a second, bytes a second. gunicorn's workers wake once a
second to touch a file; Celery's and uWSGI's timers are of that order; each wake-up costs about 0.1 ms."""

GONE_ON = 2.0
"""Seconds since its last progress within which a sibling is still going on."""

QUEUED_FOR = 0.1
"""Cores waited for in the run queue from which a worker without progress is a victim, not stuck."""

STUCK_SECONDS, STUCK_TIMES = 10.0, 20.0
"""Shortest standstill that matters: seconds, and times the usual pause. A slow database or a large upload takes seconds too."""

SPIN_CORES, SPIN_MORE, SPIN_RUNS = 0.8, 0.3, 0.03
"""Demand (run and wait) of a worker that never pauses; least that a worker with pauses takes beyond its siblings; least cores that
it must actually run within `GONE_ON` seconds. Below the last it is a victim: on a full machine a spinner has 0.1 cores, a starved
worker 0.01."""

SPIN_CHARS, SPIN_WORK = 256.0, 1024.0
"""Bytes a second that count as progress; bytes that siblings move, per second and per second of CPU, where work shows as bytes.
There a pause is no progress. Health checks alone are some hundreds a second."""

SPIN_SECONDS, SPIN_SECONDS_WEAK, SPIN_WEAK = 20.0, 30.0, 3.0
"""Shortest spin that matters; the same where siblings show no I/O to compare with; and by how much the score is then divided.
Without I/O a long computation looks like a spin, hence the longer time and the lower score."""

ALONE_SECONDS = 60.0
"""Shortest spin or standstill that matters for a worker without siblings: none shows that it could have been shorter."""

STARVED_SECONDS, STARVED_SHARE, STARVED_CORES, STARVED_ODDS, GREEDY = 24.0, 2 / 3, 0.3, 2.0, 4.0
"""Span of the starvation test, in seconds. Least share of its demand that a starved worker waits. Least cores it waits for. Least
times the siblings' odds of waiting against running: on a full machine all wait, and no worker is singled out. Times what siblings
run beyond which a worker is no victim: it waits because it never has enough."""

SLOW_PIECE = 3.0
"""Seconds of a piece of the slowness test. Shorter pieces hold too few requests to compare. In longer ones one large request after
another looks as if all were slow."""

SLOW_TIMES = 3.0
"""Least factor that matters."""

SLOW_PIECE_TIMES = 2.0
"""Factor from which a piece counts as slow."""


@dataclass(frozen=True, slots=True)
class _Slowness:
    """How long to watch workers that take this much."""

    pieces: int  # length of the span
    share: float  # of the pieces in which the worker did anything, that must be slow: large requests are healthy, and fill some
    cpu: float  # least cores
    busy: float  # least share of the time that it is busy without waiting for a CPU

    @property
    def takes(self) -> Floats:
        """[2, 1] least that a slow worker takes."""
        return np.array([[self.cpu], [self.busy]])


SLOWNESS = (
    _Slowness(10, 0.8, 0.1, 0.5),
    # A worker that takes 1 % of a core for what siblings do in 0.2 % will take all of it when the load comes. How long requests
    # last is known from some ten probes a second, so a twentieth of the span is some 20 sightings.
    _Slowness(16, 0.7, 0.01, 0.05),
)
"""Lower limits need a longer time: they rest on fewer requests, and requests differ."""

SLOW_SHOWN = 0.6
"""Share of all pieces of the span that must be slow, counting those in which the worker did nothing."""

SLOW_FLOOR = 0.25
"""Siblings are taken to use at least this share of what a slow worker uses at least: smaller amounts are timers, health checks and
rounding."""

SLOW_SPREAD = 0.25
"""Least scatter of a piece, as a share of what siblings take in one: requests differ."""

WHOLE = 1e5
"""Resolution of what pieces took, as whole numbers: sums of squares over thousands of workers fit into 53 bits."""

SLOW_CHARS, SLOW_SLICES = 128.0, 10.0
"""Work a second below which its cost says nothing: bytes, or times put on a CPU where bytes are not known."""

SWITCH_SECONDS, SWITCH_RATE, SWITCH_TIMES = 24.0, 1000.0, 4.0
"""Span of the switch storm test, in seconds; least rate a second that matters (at about 5 us each, half a percent of a CPU); least
factor for the same CPU time and for the same bytes."""

FORK_SECONDS, FORK_RATE, FORK_RATE_ALONE = 18.0, 5.0, 20.0
"""Span of the fork storm test, in seconds; least processes a second beyond what siblings or the past explain, with and without
siblings. Those that came and went between two ticks are known only by their page faults: see `lives.CHILD_FAULTS`."""

COMPARABLE, COMPARABLE_CHARS = 0.02, 4096.0
"""Cores of demand from which a sibling shows how many switches and new processes come with the work; bytes a second from which it
does so if it moves as many as others: those of some ten requests, more than heartbeats and health checks."""

OUTLIER_TICKS, OUTLIER_SECONDS, OUTLIER_TIMES = 30, 60.0, 4.0
"""Span of the outlier test, in ticks and in seconds: the longest of all, so that named kinds come first. And the least factor above
the siblings' median."""

TRAITS: tuple[tuple[str, float, float], ...] = (
    ("rss", 16 * MIB, 0.2),
    ("fds", 16.0, 0.2),
    ("threads", 8.0, 0.2),
    ("demand", 0.05, 0.5),
    ("chars_per_cpu", 65_536.0, 0.5),
    ("slices_per_cpu", 100.0, 0.5),
)
"""What the outlier test compares: name, unit below which differences vanish (values are log1p(x / unit)), least spread on that
scale. Work is compared per CPU second: balancers that prefer one worker are healthy (an epoll set wakes the last sleeper first)."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What the windows say about each worker."""

    scores: Floats  # [n, len(KINDS)] nonconformity, 0 or more; NaN: no evidence
    sizes: Floats  # [n, len(KINDS)] share of what matters; below 1 the p-value is 1
    found: Mapping[Anomaly, Found]  # the same by kind, with figures
    places: Ints  # [n] index of each worker in `found`
    alone: Found | None = None  # outliers against their own past, in the order of the workers

    @property
    def material(self) -> Flags:
        """[n, len(KINDS)] large enough to matter."""
        return self.sizes >= 1.0

    def joined(self, alone: Found) -> Rows:
        """The same, with what `loners.Loners` says of workers that have too few siblings to be an outlier among them."""
        scores, sizes = self.scores.copy(), self.sizes.copy()
        column, theirs = KINDS.index(Anomaly.OUTLIER), ~np.isnan(alone.score)
        scores[theirs, column], sizes[theirs, column] = alone.score[theirs], alone.size[theirs]
        return replace(self, scores=scores, sizes=sizes, alone=alone)

    def figures(self, kind: Anomaly, worker: int) -> dict[str, float]:
        """The figures of a worker that was looked at closely; unknown ones are left out."""
        found, place = self.found[kind], self.places[worker]
        if kind is Anomaly.OUTLIER and self.alone is not None and not math.isnan(self.alone.score[worker]):
            found, place = self.alone, np.int64(worker)
        at = int(np.searchsorted(found.at, place))
        if at == len(found.at) or found.at[at] != place:
            return {}
        figures = ((name, float(values[at])) for name, values in found.figures.items())
        return {name: figure for name, figure in figures if math.isfinite(figure)}


def worker_rows(
    pools: Sequence[str], windows: Singles, lengths: Ints, interval: float, available: float | None = None, least: float = NEAR
) -> Rows:
    """Scores of workers by kind, from their windows.

    `pools` [n]: the pool of each worker. `windows` [len(CHANNELS), WINDOW, n] and `lengths` [n] as `features.WorkerWindows.view`
    gives them. `interval`: seconds per tick. `available`: bytes of memory left on the machine; None: unknown. `least`: share of
    what matters from which outliers are reported. The order of workers is irrelevant. NaN inside a window: a tick not known.
    """
    n = len(pools)
    if windows.shape != (len(CHANNELS), WINDOW, n) or np.shape(lengths) != (n,):
        raise ValueError(
            f"{n} workers need windows [{len(CHANNELS)}, {WINDOW}, {n}] and {n} lengths, not {windows.shape}, {np.shape(lengths)}"
        )
    if not 0 < interval < math.inf:
        raise ValueError(f"interval must be seconds above 0, not {interval}")
    if n == 0:
        raise ValueError("no workers, no rows")
    number = {name: i for i, name in enumerate(sorted(set(pools)))}
    index = np.fromiter((number[name] for name in pools), dtype=np.int64, count=n)
    places = np.arange(n)
    if (np.diff(index) < 0).any():  # never so from the observer
        order = np.argsort(index, kind="stable")
        windows, lengths, index, places = windows[:, :, order], lengths[order], index[order], np.argsort(order)
    view = View(windows, lengths, Siblings(index), interval, available, least)
    found = {kind: test(view) for kind, test in TESTS.items()}
    scores = np.column_stack([found[kind].score for kind in KINDS])[places]
    sizes = np.column_stack([found[kind].size for kind in KINDS])[places]
    return Rows(scores, np.where(np.isnan(scores), 0.0, sizes), found, places)


def _quiet(view: View, seen: Flags) -> Found:
    """No worker is in trouble; NaN for those not `seen`."""
    return Found(np.where(seen, 0.0, np.nan), np.zeros(view.n))


def _close(view: View, seen: Flags, near: Flags, look: Callable[[View], Found]) -> Found:
    """What a close look finds in the pools of workers that are `near` trouble. Other pools are not looked at."""
    near = near & seen
    if not near.any():
        return _quiet(view, seen)
    at, part = view.part(near)
    found = look(part)
    if part is view:
        return found
    score, size = np.where(seen, 0.0, np.nan), np.zeros(view.n)
    score[at], size[at] = found.score, found.size
    return Found(score, size, at[found.at], found.figures)


def _leak(view: View, what: _Leaking) -> Found:
    """A value that keeps reaching new heights, beyond what the siblings hold or gained.

    On trailing spans of several lengths: the lowest value of the last eighth, above the highest of the lowest values of all eighths
    before. Lowest values ignore what is held for a short time. A sawtooth (garbage collection, caches with expiry) returns to old
    heights. A span needs a past of its own length to compare with. Two exceptions need none: the whole window if it is long, and
    kinds with `young` among enough siblings. Without siblings only the whole window counts.
    """
    ticks, interval = view.ticks, view.interval
    seen = np.zeros(view.n, dtype=np.bool_)
    near = np.zeros(view.n, dtype=np.bool_)
    enough = _enough(view, what)
    unknown = view.seen(what.channel) is not None
    for length, least in _segments(view, what):
        whole = length * SEGMENTS == WINDOW and WINDOW * interval >= LEAK_WHOLE_SECONDS
        seen |= (ticks > WINDOW - length) if whole else _old_enough(view, what, length)
        if unknown:
            least = np.where(least < np.inf, least, np.float32(0.0))
        before = least[: 1 - SEGMENTS].max(axis=0)
        near |= least[-1] - before >= NEAR * np.maximum(enough, what.share * before)
    seen &= view.now(what.channel)
    return _close(view, seen, near, lambda part: _leak_closely(part, what))


def _old_enough(view: View, what: _Leaking, length: int) -> Flags:
    """[n] whether a span of this many ticks a segment can be compared: with a past of its own length, or with enough siblings."""
    span = length * SEGMENTS
    return ~view.alone & (view.ticks >= np.where(view.few | (not what.young), 2 * span, span))


def _witnessed(view: View) -> Flags:
    """[n] whether it has two or more siblings that do as much."""
    bytes_, slices = (view.usual(name) >= AS_MUCH * view.mean(name) for name in ("chars", "slices"))
    return ~view.few & np.where(np.isnan(view.mean("chars")), slices, bytes_)


def _enough(view: View, what: _Leaking) -> Floats:
    """[n] least growth that matters, at any level."""
    return np.where(view.alone, what.least_alone, np.where(_witnessed(view), what.least_compared, what.least))


def _segments(view: View, what: _Leaking) -> list[tuple[int, Singles]]:
    """The spans of the leak test: (ticks per segment, lowest values [segments, n], infinite where none is known).

    Each span is a third or a half longer than the one before: what has just begun fills a short span before a long one."""
    seen, least = view.seen(what.channel), view.values(what.channel)
    if seen is not None:
        least = np.where(seen, least, np.float32(np.inf))
    segments = []
    for length, low in ((2, _joined(least, 2)), (3, _joined(least, 3))):
        while length * SEGMENTS <= WINDOW:
            if length * SEGMENTS * view.interval >= what.seconds:
                segments.append((length, low))
            length, low = 2 * length, _joined(low, 2)
    return segments


def _joined(values: Singles, many: int) -> Singles:
    """Lowest of every `many` neighbours, [len // many, n]. What is left over is at the start."""
    values = values[len(values) % many :]
    return np.asarray(np.minimum.reduce([values[first::many] for first in range(many)]))


def _leak_closely(view: View, what: _Leaking) -> Found:
    """Most steps must rise. The later half must not level off, as a warm-up does. What siblings hold too is no leak. Where siblings
    oscillate by much, much growth is needed."""
    siblings, interval, n = view.siblings, view.interval, view.n
    best, size, span = np.full(n, np.nan), np.zeros(n), np.zeros(n, dtype=np.int64)
    enough, witnessed = _enough(view, what), _witnessed(view)
    spans: list[Floats] = []
    for length, least in _segments(view, what):
        last = least[-SEGMENTS:]
        whole = length * SEGMENTS == WINDOW and WINDOW * interval >= LEAK_WHOLE_SECONDS
        fits = np.isfinite(last).all(axis=0) & (whole | _old_enough(view, what, length))
        last = np.where(fits, last, np.float32(0.0))
        earlier = least[: 1 - SEGMENTS]
        before = np.where(np.isfinite(earlier), earlier, np.float32(0.0)).max(axis=0)
        now, growth = last[-1], last[-1] - before
        swing = before - np.where(fits, least.min(axis=0), np.float32(0.0))
        # where all siblings are too young for the span, as after a deploy, what they gained since they began counts
        there = np.isfinite(least[-1])
        first = np.take_along_axis(least[-SEGMENTS:], np.isfinite(least[-SEGMENTS:]).argmax(axis=0)[None], axis=0)[0]
        young = np.where(there, [least[-1] - np.where(there, first, 0.0), least[-1]], np.nan)
        old, young = siblings.median(np.where(fits, [growth, now, np.maximum(swing, growth)], np.nan)), siblings.median(young)
        theirs, level = np.where(np.isnan(old[:2]), young, old[:2])
        swing = old[2]
        fits &= view.alone | (siblings.total(there) - there >= siblings.size // 2)  # else none shows that it could stand still
        theirs = np.fmax(theirs, 0.0)
        excess = np.fmin(growth - np.nan_to_num(theirs), now - level)
        matters = np.fmax(np.maximum(enough, what.share * before), swing)
        steps, even = np.diff(last, axis=0), np.maximum(growth, 0.0) / (SEGMENTS - 1)
        rising = np.count_nonzero(steps > even / 4, axis=0) / (SEGMENTS - 1)
        lasting = (rising >= 0.7) & (steps.min(axis=0) >= -even) & (now - last[SEGMENTS // 2] >= growth / 3)
        weight = np.where(witnessed & (steps.max(axis=0) <= STEADY * even), what.weight, 1.0)
        value = np.where(lasting, weight * np.maximum(excess, 0.0) / matters * SEGMENTS * rising**4, 0.0)
        better = fits & ~(value <= best)
        best = np.where(better, value, best)
        size = np.where(better, np.where(lasting, np.maximum(excess, 0.0) / matters, 0.0), size)
        span = np.where(better, len(spans), span)
        seconds, half = (SEGMENTS - 1) * length * interval, SEGMENTS // 2
        speed = (now - last[-1 - half]) / (half * length * interval)  # lately: it may have begun within the span
        spans.append(np.array([growth, speed, theirs, np.full(n, seconds), rising, now, level]))
    at = np.flatnonzero(size >= NEAR)
    if not len(at):
        return Found(best, size)
    growth, speed, theirs, seconds_, rising, now, level = np.array(spans)[span[at], :, at].T
    left = math.nan if what.channel != "rss" or view.available is None else view.available
    figures = {
        f"growth_{what.name}": growth / what.unit,
        f"growth_{what.name}_per_minute": speed * 60 / what.unit,
        f"siblings_growth_{what.name}": theirs / what.unit,
        "seconds": seconds_,
        "steps_rising": rising,
        f"now_{what.name}": now / what.unit,
        f"siblings_{what.name}": level / what.unit,
        "hits_limit_seconds": ratio(np.full(len(at), left), speed),
    }
    return Found(best, size, at, {**figures, **view.whom(at, slice(0, WINDOW // 2))})


def _spin(view: View) -> Found:
    """CPU without progress: seconds on a CPU, or waiting for one, since the last I/O, in units of the usual. Where no sibling shows
    that work needs I/O: since the last I/O or pause."""
    throughout, part = _hungry(view)
    lately = _lately(view)
    seen = view.ticks > 0
    near = (throughout | (part >= SPIN_MORE)) & seen
    if near.any():
        moved = view.values("chars")[lately] >= _least_moved(view)
        if view.used is not None:
            moved &= view.used[lately]
        near &= ~moved.any(axis=0)
    return _close(view, seen, near, _spin_closely)


def _lately(view: View) -> slice:
    """The last half of the shortest spin that matters."""
    return slice(WINDOW - min(max(math.ceil(NEAR * SPIN_SECONDS / view.interval), 1), WINDOW), WINDOW)


def _hungry(view: View) -> tuple[Flags, Floats]:
    """([n] whether it takes a CPU throughout, lately; [n] share of a CPU it takes, over the shortest spin that matters).
    False and 0 for a worker that does not run at all: it is a victim."""
    lately = _lately(view)
    running = highest(view.demand[lately] >= SPIN_CORES, 2)
    if view.used is not None:
        running |= ~view.used[lately]
    ran = (view.values("cpu")[lately] >= SPIN_RUNS).any(axis=0)
    ticks = min(max(math.ceil(SPIN_SECONDS / view.interval), 1), WINDOW)
    return np.asarray(running.all(axis=0) & ran), np.where(ran, total(view.demand[WINDOW - ticks :]) / ticks, 0.0)


def _least_moved(view: View) -> Singles:
    """[n] bytes a second that are progress."""
    return np.fmax(0.02 * view.usual("chars"), SPIN_CHARS).astype(np.float32)


def _spin_closely(view: View) -> Found:
    known, cpu = view.known("chars"), view.mean("cpu")
    moved = view.values("chars") >= _least_moved(view)
    if known is not None:
        moved &= known
    ran = highest(view.values("cpu"), int(max(GONE_ON / view.interval, 2.0)) + 1)
    # a single tick below is no pause: the clocks of reader and kernel differ on where a tick ends
    running = highest(view.demand >= SPIN_CORES, 2)
    per_cpu = ratio(view.mean("chars"), cpu)
    theirs = np.where(view.alone, per_cpu, view.siblings.median(np.where(cpu >= PROGRESS_CPU, per_cpu, np.nan)))
    comparable = view.now("chars") & (theirs >= SPIN_WORK) & (view.usual("chars") >= SPIN_WORK)
    told = comparable & ~view.alone
    # waiting for a CPU is no pause either: it only shows nothing
    shown = view.interval * np.minimum(view.demand, np.float32(1.0)) * (ran >= SPIN_RUNS)
    seconds, usual, past = view.clock(shown, moved | ~(running | told))
    long = np.where(view.alone, ALONE_SECONDS, np.where(comparable, SPIN_SECONDS, SPIN_SECONDS_WEAK))
    throughout, part = _hungry(view)
    hungry = throughout | (part >= np.fmin(view.usual("cpu") + view.usual("wait") + SPIN_MORE, SPIN_CORES))
    # a worker without siblings must have shown by itself that its work makes progress
    seen = (view.ticks > 0) & (~view.alone | (comparable & (past >= PAST_SECONDS)))
    everybody = np.arange(view.n)
    return Found(
        np.where(view.ticks > 0, np.where(seen, seconds / usual / np.where(told, 1.0, SPIN_WEAK), 0.0), np.nan),
        np.where(seen & hungry, seconds / long, 0.0),
        everybody,
        {
            "seconds_without_io_or_pause": np.where(told, np.nan, seconds),
            "seconds_without_io": np.where(told, seconds, np.nan),
            "usual_seconds": usual,
            "cpu_cores": cpu,
            "bytes_per_cpu_second": per_cpu,
            "siblings_bytes_per_cpu_second": np.where(view.alone, np.nan, theirs),
            **view.whom(everybody),
            "own_past_seconds": np.where(view.few, past, np.nan),
        },
    )


def _progress(view: View, at: slice = slice(None)) -> Flags:
    """[ticks of `at`, n] whether a worker does more than keep itself alive, or is kept from doing so."""
    cpu = np.fmax(0.02 * view.usual("cpu"), PROGRESS_CPU).astype(np.float32)
    # one heartbeat in a short tick looks like many a second
    slices = np.fmax(0.1 * view.usual("slices"), max(PROGRESS_SLICES, 2 / view.interval)).astype(np.float32)
    chars = np.fmax(0.02 * view.usual("chars"), PROGRESS_CHARS).astype(np.float32)
    progress = (view.values("cpu")[at] > cpu) | (view.values("wait")[at] > QUEUED_FOR)
    progress |= view.values("slices")[at] > slices
    progress |= view.values("chars")[at] > chars
    # Where it is not known to be busy, a worker that wakes at all is taken for idle (a heartbeat, a wait for work that times out):
    # the last worker of an uneven balancer may have no work for minutes.
    busy = view.known("busy")
    if busy is not None:
        progress |= ~busy[at] & (view.values("slices")[at] > 0)
    if view.used is not None:
        progress &= view.used[at]
    return progress


def _untold(view: View, at: slice = slice(None)) -> Flags | None:
    """[ticks of `at`, n] where neither busy nor queued is known; None: nowhere."""
    busy, queued = view.known("busy"), view.known("queued")
    return None if busy is None or queued is None else ~(busy | queued)[at]


def _stuck(view: View) -> Found:
    """No progress though there is work and siblings go on: seconds of that since the last progress, in units of the usual."""
    lately = slice(WINDOW - min(max(math.ceil(NEAR * STUCK_SECONDS / view.interval), 1), WINDOW), WINDOW)
    seen = view.ticks > 0
    near = seen & ~_progress(view, lately).any(axis=0)
    if near.any():
        wider = slice(max(lately.start - max(math.ceil(GONE_ON / view.interval), 2), 0), WINDOW)
        work = ((view.values("busy")[wider] > 0) | (view.values("queued")[wider] > 0)).any(axis=0)
        untold = _untold(view, lately)
        near &= work if untold is None else work | (untold.any(axis=0) & ~view.alone)
    return _close(view, seen, near, _stuck_closely)


def _stuck_closely(view: View) -> Found:
    """The clock stops while there is nothing to do: neither busy nor anything queued lately (a mean queue below one counts for its
    share). It also stops while most siblings stand still. Where neither busy nor queued is known, siblings that go on show that
    there is work; without siblings there is no evidence.
    """
    siblings, interval = view.siblings, view.interval
    progress = _progress(view)
    lately = int(max(GONE_ON / interval, 2.0)) + 1
    going = highest(progress, lately)
    others = siblings.size - 1 if view.used is None else siblings.total(view.used) - view.used
    go_on = (siblings.total(going) - going >= (others + 1) // 2) & (others > 0)
    queue = np.minimum(view.values("queued") * siblings.size.astype(np.float32), np.float32(1.0))
    busy = view.known("busy")
    told = np.minimum(view.values("busy"), np.float32(1.0))  # a worker that waits for work is not stuck, whatever others queue
    work = told if busy is None else np.where(busy, told, highest(queue, lately))
    untold = _untold(view)
    if untold is not None:
        work = np.maximum(work, untold & ~view.alone)
    seconds, usual, past = view.clock(work * ((go_on | view.alone) * np.float32(interval)), progress)
    long = np.where(view.alone, ALONE_SECONDS, STUCK_SECONDS)
    everybody = np.arange(view.n)
    return Found(
        np.where(view.ticks > 0, seconds / usual, np.nan),
        np.where((view.ticks > 0) & (~view.alone | (past >= PAST_SECONDS)), seconds / np.maximum(long, STUCK_TIMES * usual), 0.0),
        everybody,
        {
            "seconds_without_progress": seconds,
            "usual_seconds": usual,
            **{
                f"siblings_{name}": np.where(view.alone, np.nan, view.usual(channel))
                for name, channel in (("cpu_cores", "cpu"), ("slices_per_second", "slices"), ("bytes_per_second", "chars"))
            },
            "queued_per_worker": np.where(view.now("queued"), view.values("queued")[-1], np.nan),
            **view.whom(everybody),
            "own_past_seconds": np.where(view.few, past, np.nan),
        },
    )


def _starved(view: View) -> Found:
    """Waits for a CPU far longer than it runs, and far more so than the siblings, throughout three stretches of time."""
    stretches, _ = view.stretches(STARVED_SECONDS)
    waits = np.array([view.mean("wait", at, SEEN_SHARE) for at in stretches])
    runs = np.array([view.mean("cpu", at, SEEN_SHARE) for at in stretches])
    seen = ~np.any(np.isnan(waits), axis=0)
    near = (waits >= NEAR * STARVED_SHARE * (waits + runs)).all(axis=0) & (waits.sum(axis=0) >= 3 * NEAR * STARVED_CORES)
    return _close(view, seen, near, _starved_closely)


def _starved_closely(view: View) -> Found:
    stretches, before = view.stretches(STARVED_SECONDS)
    waits, runs = (np.array([view.mean(name, at, SEEN_SHARE) for at in stretches]) for name in ("wait", "cpu"))
    ratios = np.log((waits + 0.02) / (runs + 0.02))
    wait, ran, share = waits.mean(axis=0), runs.mean(axis=0), ratio(waits, waits + runs).min(axis=0)
    *theirs, their_share = view.siblings.median(np.array([*ratios, share]))
    past = np.log((view.mean("wait", before) + 0.02) / (view.mean("cpu", before) + 0.02))
    usual = np.array([view.compared(median, past, before) for median in theirs])
    everybody = np.arange(view.n)
    moved = np.array([view.mean("chars", at) for at in stretches])
    idles = (ran >= SPIN_RUNS) & (moved < _least_moved(view)).all(axis=0)  # it spins away the CPU time that it gets
    odds = ratio(share * (1.0 - their_share), their_share * (1.0 - share))  # NaN: siblings want nothing, or it ran nothing
    greedy = (ran > GREEDY * view.siblings.median(ran) + COMPARABLE) | idles
    return Found(
        np.maximum((ratios - usual).min(axis=0), 0.0),
        np.where(greedy | (odds < STARVED_ODDS), 0.0, np.nan_to_num(np.minimum(share / STARVED_SHARE, wait / STARVED_CORES))),
        everybody,
        {
            "wait_cores": wait,
            "wait_share": share,
            "siblings_wait_share": their_share,
            "seconds": np.full(view.n, sum(at.stop - at.start for at in stretches) * view.interval),
            **view.whom(everybody, before),
        },
    )


def _slow_span(view: View, how: _Slowness) -> tuple[int, slice]:
    """(ticks of a piece, the whole span)."""
    ticks = min(max(math.ceil(SLOW_PIECE / view.interval), 1), WINDOW // max(how.pieces for how in SLOWNESS))
    return ticks, slice(WINDOW - how.pieces * ticks, WINDOW)


def _takes(cpu: Floats, busy: Floats, wait: Floats) -> Floats:
    """[..., 2, n] cores run, and share of the time busy without waiting for a CPU."""
    return np.stack([cpu, busy - np.minimum(wait, busy)], axis=-2)


def _costs(view: View, how: _Slowness) -> tuple[Floats, Floats, Floats, Floats]:
    """CPU and busy time for the work, as four arrays; NaN where too little is done to say.

    [2, n] CPU seconds for a unit of work, and seconds busy without waiting for a CPU, at least the floor; [2, n] what is usual
    among siblings; [2, n] what is taken; [n] units of work a second.

    Work is bytes moved where those are known of all siblings, else times put on a CPU.
    """
    _, span = _slow_span(view, how)
    cpu, busy, wait, chars, slices = (view.mean(name, span, SEEN_SHARE) for name in ("cpu", "busy", "wait", "chars", "slices"))
    by_bytes = ~view.siblings.anywhere(np.isnan(chars))
    work = np.where(by_bytes, chars, slices)
    work = np.where(work >= np.where(by_bytes, SLOW_CHARS, SLOW_SLICES), work, np.nan)
    takes, least = _takes(cpu, busy, wait), SLOW_FLOOR * how.takes
    # an almost idle worker waits most when it is woken, before it is busy: so what siblings waited is not subtracted
    usual = view.siblings.median(np.maximum(_takes(cpu, busy, np.zeros(view.n)), least) / work)
    return np.maximum(takes, least) / work, usual, takes, work


def _slow(view: View) -> Found:
    """Takes much more CPU, or is busy for much longer, than siblings for the same work, nearly throughout a span, and beyond the
    scatter of the siblings' own pieces. Needs three workers: nothing says how long a single one's work should take."""
    seen, near = np.zeros(view.n, dtype=np.bool_), np.zeros(view.n, dtype=np.bool_)
    for how in SLOWNESS:
        costs, usual, takes, _ = _costs(view, how)
        seen |= ~view.few & np.isfinite(costs).any(axis=0)
        near |= ((takes >= how.takes) & (costs >= NEAR * SLOW_TIMES * usual)).any(axis=0)
    return _close(view, seen, near, _slow_closely)


def _slow_closely(view: View) -> Found:
    said = [_slow_over(view, how) for how in SLOWNESS]
    scores, sizes, figures = (np.array(part) for part in zip(*said, strict=True))
    which, everybody = np.nan_to_num(scores, nan=-1.0).argmax(axis=0), np.arange(view.n)
    cpu, busy, cores, share, work, seconds = figures[which, :, everybody].T
    return Found(
        scores[which, everybody],
        sizes[which, everybody],
        everybody,
        {
            "cpu_for_the_same_work_times_siblings": cpu,
            "busy_for_the_same_work_times_siblings": busy,
            "cpu_cores": cores,
            "busy_share": share,
            "work_per_second": work,
            "seconds": seconds,
            **view.whom(everybody),
        },
    )


def _slow_over(view: View, how: _Slowness) -> tuple[Floats, Floats, Floats]:
    """([n] scores, [n] sizes, [6, n] figures) for one span. A score is what a worker took beyond what its siblings would have, in
    standard deviations of the same for siblings."""
    siblings, (ticks, span) = view.siblings, _slow_span(view, how)
    costs, usual, takes, work = _costs(view, how)
    times, least = costs / usual, SLOW_FLOOR * how.takes
    cpu, busy, wait, chars, slices = (view.pieces(name, ticks, SEEN_SHARE) for name in ("cpu", "busy", "wait", "chars", "slices"))
    taken = _takes(cpu, busy, wait)  # [pieces, 2, n]
    done = np.where(siblings.anywhere(np.isnan(view.mean("chars", span, SEEN_SHARE))), slices, chars)[:, None]
    fair = usual * done
    known = np.isfinite(taken) & np.isfinite(done)

    lately = slice(-how.pieces, None)
    worked = (known & ((done > 0) | (taken >= least)))[lately]
    longer = worked & (taken >= SLOW_PIECE_TIMES * np.maximum(fair, least))[lately]
    shown = np.count_nonzero(longer, axis=0)
    throughout = (shown >= how.share * np.count_nonzero(worked, axis=0)) & (shown >= SLOW_SHOWN * how.pieces)
    lasting = throughout & (takes >= how.takes)

    # squares of what siblings took beyond what they would have by the worker's `usual`; whole numbers: the same in any order
    most, highest_work = (siblings.highest(np.where(known, each, 0.0).max(axis=0)) for each in (taken, done))
    a, w = (_whole(np.where(known, each, 0.0), top) for each, top in ((taken, most), (done, highest_work)))
    pieces, aa, aw, ww = (siblings.sums(each.sum(axis=0)) for each in (known.astype(np.int64), a * a, a * w, w * w))
    slope = usual * ratio(highest_work, most)
    scatter = most / WHOLE * np.sqrt(ratio(np.maximum(aa - 2 * slope * aw + slope**2 * ww, 0.0), pieces))
    scatter = np.maximum(scatter, SLOW_SPREAD * np.maximum(usual * work, least))
    others = siblings.total(np.isfinite(costs)) - np.isfinite(costs)
    enough = ~view.few & (others >= 2) & (pieces >= how.pieces)
    over = np.where(known, taken - fair, 0.0)[lately].sum(axis=0)
    beyond = over / (scatter * np.sqrt(np.maximum(np.count_nonzero(known[lately], axis=0), 1)))
    score = np.where(enough & np.isfinite(beyond), np.where(lasting, np.maximum(beyond, 0.0), 0.0), np.nan)
    size = np.where(lasting & (np.nan_to_num(score) > 0), np.nan_to_num(times) / SLOW_TIMES, 0.0)
    seconds = np.full(view.n, (span.stop - span.start) * view.interval)
    return np.fmax.reduce(score, axis=0), size.max(axis=0), np.array([*times, *takes, work, seconds])


def _whole(values: Floats, top: Floats) -> Ints:
    """Shares of `top` as whole numbers up to `WHOLE`."""
    return np.asarray(np.rint(WHOLE * values / np.where(top > 0, top, 1.0)), dtype=np.int64)


def _switch_storm(view: View) -> Found:
    """Put on a CPU far more often than the siblings, for the same CPU time and, where bytes are known, for the same bytes,
    throughout three stretches of time."""
    stretches, _ = view.stretches(SWITCH_SECONDS)
    slices = np.array([view.mean("slices", at, SEEN_SHARE) for at in stretches])
    seen = ~np.any(np.isnan(slices), axis=0)
    near = np.all(slices >= NEAR * SWITCH_RATE, axis=0)
    return _close(view, seen, near, _switch_storm_closely)


def _switch_storm_closely(view: View) -> Found:
    stretches, before = view.stretches(SWITCH_SECONDS)

    def rates(at: slice) -> list[Floats]:
        """[3, n] times put on a CPU: a second; then logarithms, for a CPU second and for a KiB."""
        slices, chars = view.mean("slices", at), view.mean("chars", at)
        per_cpu = (slices + 10) / (view.mean("cpu", at) + view.mean("wait", at) + 0.05)
        return [slices, np.log(per_cpu), np.log((slices + 10) / (chars / 1024 + 1))]

    past, theirs = rates(before), list[Floats]()
    lowest = times = np.full(view.n, np.inf)
    for at in reversed(stretches):
        now = rates(at)
        theirs = list(view.siblings.median(np.where(_works(view, at), now, np.nan)))
        usual = np.array([view.compared(median, own, before) for median, own in zip(theirs, past, strict=True)])
        apart = np.where(np.isnan(now[0]), np.nan, np.fmin(now[1] - usual[1], now[2] - usual[2]))
        lowest, times = np.minimum(lowest, apart), np.minimum(times, now[0] - usual[0])
    # a single thread that never pauses is put on a CPU again only because others preempt it
    pushed = np.all([view.mean("cpu", at) + view.mean("wait", at) >= SPIN_CORES for at in stretches], axis=0)
    pushed &= view.mean("threads", slice(stretches[-1].start, WINDOW)) <= 1
    lowest = np.where(pushed, 0.0, lowest)
    everybody = np.arange(view.n)
    return Found(
        np.maximum(lowest, 0.0),
        np.maximum(np.nan_to_num(np.minimum(lowest / math.log(SWITCH_TIMES), times / SWITCH_RATE)), 0.0),
        everybody,
        {
            "switches_per_second": view.mean("slices", stretches[0]),
            "siblings_switches_per_second": theirs[0],
            "times_for_the_same_work": np.exp(lowest),
            "seconds": np.full(view.n, sum(at.stop - at.start for at in stretches) * view.interval),
            **view.whom(everybody, before, theirs[0]),
        },
    )


def _works(view: View, at: slice) -> Flags:
    """[n] whether a worker wants enough CPU to be compared with, or moves enough bytes, `AS_MUCH` of its pool's most. Small work,
    too, shows how many switches come with it. Balancers that prefer one worker leave others idle."""
    chars = view.mean("chars", at)
    moves = (chars >= COMPARABLE_CHARS) & (chars >= AS_MUCH * view.siblings.highest(np.nan_to_num(chars)))
    return np.asarray(moves | (view.mean("cpu", at) + view.mean("wait", at) >= COMPARABLE))


def _fork_storm(view: View) -> Found:
    """The worker and its descendants start processes far faster than the siblings do, per second and per CPU second, throughout
    three stretches of time."""
    stretches, _ = view.stretches(FORK_SECONDS)
    forks = np.array([view.mean("forks", at, SEEN_SHARE) for at in stretches])
    seen = ~np.any(np.isnan(forks), axis=0)
    near = np.all(forks >= NEAR * FORK_RATE, axis=0)
    return _close(view, seen, near, _fork_storm_closely)


def _fork_storm_closely(view: View) -> Found:
    stretches, before = view.stretches(FORK_SECONDS)

    def rates(at: slice) -> list[Floats]:
        """[2, n] processes started, per second and per CPU second."""
        forks = view.mean("forks", at)
        return [forks, forks / (view.mean("cpu", at) + view.mean("wait", at) + 0.05)]

    past, theirs = rates(before), list[Floats]()
    lowest = beyond = np.full(view.n, np.inf)
    for at in reversed(stretches):
        now = rates(at)
        theirs = list(view.siblings.median(np.where(_works(view, at), now, np.nan)))
        usual, per_cpu = (view.compared(median, own, before) for median, own in zip(theirs, past, strict=True))
        usual = np.maximum(usual, per_cpu * now[0] / np.where(now[1] > 0, now[1], 1.0))
        lowest = np.minimum(lowest, np.log((now[0] + 1) / (usual + 1)))
        beyond = np.minimum(beyond, now[0] - usual)
    everybody = np.arange(view.n)
    return Found(
        np.maximum(lowest, 0.0),
        np.maximum(np.nan_to_num(beyond / np.where(view.alone, FORK_RATE_ALONE, FORK_RATE)), 0.0),
        everybody,
        {
            "processes_started_per_second": view.mean("forks", stretches[0]),
            "siblings_processes_started_per_second": theirs[0],
            "seconds": np.full(view.n, sum(at.stop - at.start for at in stretches) * view.interval),
            **view.whom(everybody, before, theirs[0]),
        },
    )


def _outlier(view: View) -> Found:
    """Far above the siblings in a trait, in both halves of a long span: robust z (median, MAD) of logarithms. Needs 3 workers.

    Only upwards: a worker that does less than the others has less to do, or is stuck, which is a kind of its own.
    """
    half = min(max(OUTLIER_TICKS, math.ceil(OUTLIER_SECONDS / view.interval)), WINDOW) // 2
    value = _traits(view, slice(WINDOW - half, WINDOW))
    enough = view.siblings.total(np.isfinite(value[0])) >= 3
    seen = enough & np.isfinite(value).any(axis=0)
    if not seen.any():
        return _quiet(view, seen)
    apart = value - view.siblings.pool_median(value)
    near = (apart >= view.least * math.log(OUTLIER_TIMES)).any(axis=0) & seen
    if near.any():
        older = _traits(view, slice(WINDOW - 2 * half, WINDOW - half))
        older -= view.siblings.pool_median(older)
        near &= (np.minimum(older, apart) >= view.least * math.log(OUTLIER_TIMES)).any(axis=0)
    return _close(view, seen, near, lambda part: _outlier_closely(part, half))


def _traits(view: View, at: slice) -> Floats:
    """[len(TRAITS), n] on the scale on which they are compared."""
    rss, fds, threads, cpu, wait, chars, slices = (
        view.mean(name, at, SEEN_SHARE) for name in ("rss", "fds", "threads", "cpu", "wait", "chars", "slices")
    )
    per_cpu = cpu + wait + 0.05
    traits = np.array([rss, fds, threads, cpu + wait, chars / per_cpu, slices / per_cpu])
    return np.asarray(np.log1p(traits / np.array([unit for _, unit, _ in TRAITS])[:, None]))


def _outlier_closely(view: View, half: int) -> Found:
    siblings = view.siblings
    spreads = np.array([spread for _, _, spread in TRAITS])[:, None]
    lowest = times = np.full((len(TRAITS), view.n), np.inf)
    for at in (slice(WINDOW - 2 * half, WINDOW - half), slice(WINDOW - half, WINDOW)):
        value = _traits(view, at)
        apart = value - siblings.pool_median(value)
        lowest = np.minimum(lowest, apart / np.maximum(1.4826 * siblings.pool_median(np.abs(apart)), spreads))
        times = np.minimum(times, apart)
    enough = siblings.total(np.isfinite(lowest[0])) >= 3
    best = np.fmax.reduce(lowest, axis=0)
    size = np.where(np.nan_to_num(lowest, nan=-1.0) >= best, np.nan_to_num(times) / math.log(OUTLIER_TIMES), 0.0)
    everybody = np.arange(view.n)
    return Found(
        np.where(enough & np.isfinite(best), np.maximum(best, 0.0), np.nan),
        np.where(enough, size.max(axis=0), 0.0),
        everybody,
        {
            **{f"{name}_times_siblings": np.where(enough, np.exp(times[row]), np.nan) for row, (name, _, _) in enumerate(TRAITS)},
            **view.whom(everybody),
        },
    )


TESTS: Mapping[Anomaly, Callable[[View], Found]] = {
    **{kind: partial(_leak, what=what) for kind, what in LEAKING.items()},
    Anomaly.FORK_STORM: _fork_storm,
    Anomaly.SWITCH_STORM: _switch_storm,
    Anomaly.SPIN: _spin,
    Anomaly.STUCK: _stuck,
    Anomaly.STARVED: _starved,
    Anomaly.SLOW: _slow,
    Anomaly.OUTLIER: _outlier,
}

KINDS: tuple[Anomaly, ...] = tuple(TESTS)
"""Columns of `Rows.scores`. At equal p the earlier kind is reported."""
