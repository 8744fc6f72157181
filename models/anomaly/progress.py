"""Workers that get nowhere: those that spin, those that are stuck, and those that are starved of CPU time. Pure."""

from __future__ import annotations

import math

import numpy as np

from ..features import Floats, Singles
from ..records import WINDOW
from .evidence import COMPARABLE, NEAR, PAST_SECONDS, SEEN_SHARE, Found, WindowView, highest, ratio, total
from .siblings import Flags

PROGRESS_CPU, PROGRESS_SLICES, PROGRESS_CHARS = 0.002, 3.0, 64.0
"""Most that a worker does which only keeps itself alive (chosen): cores, wake-ups a second, bytes a second. gunicorn's workers wake
once a second to touch a file; Celery's and uWSGI's timers are of that order; each wake-up costs about 0.1 ms."""

USUAL_CPU, USUAL_SLICES, USUAL_CHARS = 0.02, 0.1, 0.02
"""The same as shares of what is usual among siblings, where that is more (chosen)."""

HEARTBEATS = 2.0
"""Wake-ups in one tick that are no progress, however short the tick: one heartbeat in a short tick looks like many a second."""

BORDER_TICKS = 2
"""Ticks within which a worker must have taken a CPU to be running on: one tick below is no pause, because the clocks of the reader
and of the kernel differ on where a tick ends."""

GONE_ON, GONE_ON_TICKS = 2.0, 2
"""Seconds, and at least ticks, since its last progress within which a sibling is still going on (chosen)."""

QUEUED_FOR = 0.1
"""Cores waited for in the run queue from which a worker without progress is a victim, not stuck (chosen)."""

STUCK_SECONDS, STUCK_TIMES = 10.0, 20.0
"""Shortest standstill that matters: seconds, and times the usual pause (chosen: a slow database or a large upload takes seconds
too, and `model.LINE` has the same 20)."""

SPIN_CORES, SPIN_MORE, SPIN_RUNS = 0.8, 0.3, 0.03
"""Demand (run and wait) of a worker that never pauses; least that a worker with pauses takes beyond its siblings (both chosen);
least cores that it must actually run within `GONE_ON` seconds. Below the last it is a victim: on a full machine a spinner has 0.1
cores, a starved worker 0.01."""

SPIN_CHARS, SPIN_WORK = 256.0, 1024.0
"""Bytes a second that count as progress; bytes that siblings move, per second and per second of CPU, where work shows as bytes
(chosen). There a pause is no progress. Health checks alone are some hundreds a second."""

SPIN_SECONDS, SPIN_SECONDS_WEAK, SPIN_WEAK = 20.0, 30.0, 3.0
"""Shortest spin that matters; the same where siblings show no I/O to compare with; and by how much the score is then divided
(chosen). Without I/O a long computation looks like a spin, so it gets the longer time and the lower score."""

ALONE_SECONDS = 60.0
"""Shortest spin or standstill that matters for a worker without siblings (chosen): none shows that it could have been shorter."""

STARVED_SECONDS, STARVED_SHARE, STARVED_CORES, STARVED_ODDS, GREEDY = 24.0, 2 / 3, 0.3, 2.0, 4.0
"""Span of the starvation test, in seconds. Least share of its demand that a starved worker waits. Least cores it waits for. Least
times the siblings' odds of waiting against running: on a full machine all wait, and no worker is singled out. Times what siblings
run beyond which a worker is no victim: it waits because it never has enough. All chosen; `python -m benchmarks.anomaly.campaign`
finds 17 of 18 starved workers with them."""

STARVED_FLOOR = 0.02
"""Cores added to waiting and running before they are compared (chosen: less is noise, and nothing is divided by 0)."""


def spin(view: WindowView) -> Found:
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
    return view.closely(seen, near, _spin_closely)


def _lately(view: WindowView) -> slice:
    """The last half of the shortest spin that matters."""
    return slice(WINDOW - min(max(math.ceil(NEAR * SPIN_SECONDS / view.interval), 1), WINDOW), WINDOW)


def _hungry(view: WindowView) -> tuple[Flags, Floats]:
    """([n] whether it takes a CPU throughout, lately; [n] share of a CPU it takes, over the shortest spin that matters).
    False and 0 for a worker that does not run at all: it is a victim."""
    lately = _lately(view)
    running = highest(view.demand[lately] >= SPIN_CORES, BORDER_TICKS)
    if view.used is not None:
        running |= ~view.used[lately]
    ran = (view.values("cpu")[lately] >= SPIN_RUNS).any(axis=0)
    ticks = min(max(math.ceil(SPIN_SECONDS / view.interval), 1), WINDOW)
    return np.asarray(running.all(axis=0) & ran), np.where(ran, total(view.demand[WINDOW - ticks :]) / ticks, 0.0)


def _least_moved(view: WindowView) -> Singles:
    """[n] bytes a second that are progress."""
    return np.fmax(USUAL_CHARS * view.usual("chars"), SPIN_CHARS).astype(np.float32)


def _spin_closely(view: WindowView) -> Found:
    known, cpu = view.known("chars"), view.mean("cpu")
    moved = view.values("chars") >= _least_moved(view)
    if known is not None:
        moved &= known
    ran = highest(view.values("cpu"), int(max(GONE_ON / view.interval, GONE_ON_TICKS)) + 1)
    running = highest(view.demand >= SPIN_CORES, BORDER_TICKS)
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


def stuck(view: WindowView) -> Found:
    """No progress though there is work and siblings go on: seconds of that since the last progress, in units of the usual."""
    lately = slice(WINDOW - min(max(math.ceil(NEAR * STUCK_SECONDS / view.interval), 1), WINDOW), WINDOW)
    seen = view.ticks > 0
    near = seen & ~_progress(view, lately).any(axis=0)
    if near.any():
        wider = slice(max(lately.start - max(math.ceil(GONE_ON / view.interval), GONE_ON_TICKS), 0), WINDOW)
        work = ((view.values("busy")[wider] > 0) | (view.values("queued")[wider] > 0)).any(axis=0)
        untold = _untold(view, lately)
        near &= work if untold is None else work | (untold.any(axis=0) & ~view.alone)
    return view.closely(seen, near, _stuck_closely)


def _progress(view: WindowView, at: slice = slice(None)) -> Flags:
    """[ticks of `at`, n] whether a worker does more than keep itself alive, or is kept from doing so."""
    cpu = np.fmax(USUAL_CPU * view.usual("cpu"), PROGRESS_CPU).astype(np.float32)
    timeslices = np.fmax(USUAL_SLICES * view.usual("timeslices"), max(PROGRESS_SLICES, HEARTBEATS / view.interval)).astype(
        np.float32
    )
    chars = np.fmax(USUAL_CHARS * view.usual("chars"), PROGRESS_CHARS).astype(np.float32)
    progress = (view.values("cpu")[at] > cpu) | (view.values("wait")[at] > QUEUED_FOR)
    progress |= view.values("timeslices")[at] > timeslices
    progress |= view.values("chars")[at] > chars
    # Where it is not known to be busy, a worker that wakes at all is taken for idle (a heartbeat, a wait for work that times out):
    # the last worker of an uneven balancer may have no work for minutes.
    busy = view.known("busy")
    if busy is not None:
        progress |= ~busy[at] & (view.values("timeslices")[at] > 0)
    if view.used is not None:
        progress &= view.used[at]
    return progress


def _untold(view: WindowView, at: slice = slice(None)) -> Flags | None:
    """[ticks of `at`, n] where neither busy nor queued is known; None: nowhere."""
    busy, queued = view.known("busy"), view.known("queued")
    return None if busy is None or queued is None else ~(busy | queued)[at]


def _stuck_closely(view: WindowView) -> Found:
    """The clock stops while there is nothing to do: neither busy nor anything queued lately (a mean queue below one counts for its
    share). It also stops while most siblings stand still. Where neither busy nor queued is known, siblings that go on show that
    there is work; without siblings there is no evidence.
    """
    siblings, interval = view.siblings, view.interval
    progress = _progress(view)
    lately = int(max(GONE_ON / interval, GONE_ON_TICKS)) + 1
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
                for name, channel in (("cpu_cores", "cpu"), ("slices_per_second", "timeslices"), ("bytes_per_second", "chars"))
            },
            "queued_per_worker": np.where(view.now("queued"), view.values("queued")[-1], np.nan),
            **view.whom(everybody),
            "own_past_seconds": np.where(view.few, past, np.nan),
        },
    )


def starved(view: WindowView) -> Found:
    """Waits for a CPU far longer than it runs, and far more so than the siblings, throughout three stretches of time."""
    stretches, _ = view.stretches(STARVED_SECONDS)
    waits = np.array([view.mean("wait", at, SEEN_SHARE) for at in stretches])
    runs = np.array([view.mean("cpu", at, SEEN_SHARE) for at in stretches])
    seen = ~np.any(np.isnan(waits), axis=0)
    near = (waits >= NEAR * STARVED_SHARE * (waits + runs)).all(axis=0) & (
        waits.sum(axis=0) >= len(stretches) * NEAR * STARVED_CORES
    )
    return view.closely(seen, near, _starved_closely)


def _starved_closely(view: WindowView) -> Found:
    stretches, before = view.stretches(STARVED_SECONDS)
    waits, runs = (np.array([view.mean(name, at, SEEN_SHARE) for at in stretches]) for name in ("wait", "cpu"))
    ratios = np.log((waits + STARVED_FLOOR) / (runs + STARVED_FLOOR))
    wait, ran, share = waits.mean(axis=0), runs.mean(axis=0), ratio(waits, waits + runs).min(axis=0)
    *theirs, their_share = view.siblings.median(np.array([*ratios, share]))
    past = np.log((view.mean("wait", before) + STARVED_FLOOR) / (view.mean("cpu", before) + STARVED_FLOOR))
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
