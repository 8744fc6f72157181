"""Workers that are put on a CPU, or start processes, far too often for the work that they do. Pure."""

from __future__ import annotations

import math

import numpy as np

from ..features import Floats
from ..records import WINDOW
from .evidence import DEMAND_FLOOR, NEAR, SEEN_SHARE, Found, WindowView, works
from .progress import SPIN_CORES

SWITCH_SECONDS, SWITCH_RATE, SWITCH_TIMES = 24.0, 1000.0, 4.0
"""Span of the switch storm test, in seconds; least rate a second that matters (at about 5 us each, half a percent of a CPU); least
factor for the same CPU time and for the same bytes. Chosen; `python -m benchmarks.anomaly.campaign` finds 18 of 18 with them."""

SWITCH_FLOOR, CHARS_FLOOR = 10, 1
"""Times put on a CPU a second, and KiB a second, added before rates are compared (chosen: a worker that does nothing has no
rate)."""

FORK_SECONDS, FORK_RATE, FORK_RATE_ALONE = 18.0, 5.0, 20.0
"""Span of the fork storm test, in seconds; least processes a second beyond what siblings or the past explain, with and without
siblings. Chosen; `python -m benchmarks.anomaly.campaign` finds 18 of 18 with them. Those that came and went between two ticks are
known only by their page faults: see `lifecycle.CHILD_FAULTS`."""

FORK_FLOOR = 1
"""Processes a second added before rates are compared (chosen: twice nothing is still nothing)."""


def switch_storm(view: WindowView) -> Found:
    """Put on a CPU far more often than the siblings, for the same CPU time and, where bytes are known, for the same bytes,
    throughout three stretches of time."""
    stretches, _ = view.stretches(SWITCH_SECONDS)
    timeslices = np.array([view.mean("timeslices", at, SEEN_SHARE) for at in stretches])
    seen = ~np.any(np.isnan(timeslices), axis=0)
    near = np.all(timeslices >= NEAR * SWITCH_RATE, axis=0)
    return view.closely(seen, near, _switch_storm_closely)


def _switch_storm_closely(view: WindowView) -> Found:
    stretches, before = view.stretches(SWITCH_SECONDS)

    def rates(at: slice) -> list[Floats]:
        """[3, n] times put on a CPU: a second; then logarithms, for a CPU second and for a KiB."""
        timeslices, chars = view.mean("timeslices", at), view.mean("chars", at)
        per_cpu = (timeslices + SWITCH_FLOOR) / (view.mean("cpu", at) + view.mean("wait", at) + DEMAND_FLOOR)
        return [timeslices, np.log(per_cpu), np.log((timeslices + SWITCH_FLOOR) / (chars / 1024 + CHARS_FLOOR))]

    past, theirs = rates(before), list[Floats]()
    lowest = times = np.full(view.n, np.inf)
    for at in reversed(stretches):
        now = rates(at)
        theirs = list(view.siblings.median(np.where(works(view, at), now, np.nan)))
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
            "switches_per_second": view.mean("timeslices", stretches[0]),
            "siblings_switches_per_second": theirs[0],
            "times_for_the_same_work": np.exp(lowest),
            "seconds": np.full(view.n, sum(at.stop - at.start for at in stretches) * view.interval),
            **view.whom(everybody, before, theirs[0]),
        },
    )


def fork_storm(view: WindowView) -> Found:
    """The worker and its descendants start processes far faster than the siblings do, per second and per CPU second, throughout
    three stretches of time."""
    stretches, _ = view.stretches(FORK_SECONDS)
    forks = np.array([view.mean("forks", at, SEEN_SHARE) for at in stretches])
    seen = ~np.any(np.isnan(forks), axis=0)
    near = np.all(forks >= NEAR * FORK_RATE, axis=0)
    return view.closely(seen, near, _fork_storm_closely)


def _fork_storm_closely(view: WindowView) -> Found:
    stretches, before = view.stretches(FORK_SECONDS)

    def rates(at: slice) -> list[Floats]:
        """[2, n] processes started, per second and per CPU second."""
        forks = view.mean("forks", at)
        return [forks, forks / (view.mean("cpu", at) + view.mean("wait", at) + DEMAND_FLOOR)]

    past, theirs = rates(before), list[Floats]()
    lowest = beyond = np.full(view.n, np.inf)
    for at in reversed(stretches):
        now = rates(at)
        theirs = list(view.siblings.median(np.where(works(view, at), now, np.nan)))
        usual, per_cpu = (view.compared(median, own, before) for median, own in zip(theirs, past, strict=True))
        usual = np.maximum(usual, per_cpu * now[0] / np.where(now[1] > 0, now[1], 1.0))
        lowest = np.minimum(lowest, np.log((now[0] + FORK_FLOOR) / (usual + FORK_FLOOR)))
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
