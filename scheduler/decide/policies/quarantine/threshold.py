"""The least size from which scores are reported, if the user accepts more false alarms than what matters gives. Pure: counts, knows
no kind and no word.

What matters (10 s of standstill, 16 descriptors) is far beyond what healthy workers do, so it almost never gives a false alarm,
whatever the p-value. A user who accepts more of them gets smaller things reported, as many as the configuration accepts: how often
each size occurs is learned from the workers of this machine. Outliers come in all sizes, other kinds from half of what matters.

For each step of a ladder of sizes it counts the reports that this step as the least reported size would have given. A report is due
when a worker has held the size for the patience and the consensus that a report needs, and the next one after `QUIET_SECONDS`
without it. Workers that were reported for what matters count as faulty and are left out."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from .....models.anomaly.detectors import LEAST
from ..policy import Memory

STEPS, STEP = 86, 2 ** (1 / 16)
"""Number of steps of the ladder, and the factor between two: they reach from `LEAST` to four times what matters, where the p-value
decides as usual."""

ENOUGH = 100.0
"""After this many accepted alarms the counts are halved (chosen): behaviour changes, and this many give a rate to within a tenth
(Poisson: 1 / sqrt(100))."""

CONSENSUS = 0.8
"""Share of its time for which a score must have been significant (chosen): one odd tick neither makes nor ends an incident."""

QUIET_SECONDS = 60.0
"""Seconds after which an incident is over if nothing of it was seen (chosen). What comes later is a new incident and is
reported."""


class Odd(Memory):
    """A worker whose scores come near to what matters."""

    seen: list[tuple[int, float]]  # (ns, size) of the ticks within the patience, 0 where there was nothing; the oldest first
    last: list[int] = msgspec.field(default_factory=list)  # ns, by step of the ladder, when it was last of this size
    held: list[bool] = msgspec.field(default_factory=list)  # by step: whether it would have been reported and is not over
    healthy: bool = True  # not reported for what matters


class Watched(Memory):
    """What was seen of workers that are healthy as far as known."""

    open: dict[str, Odd] = msgspec.field(default_factory=dict)  # by worker
    counts: list[int] = msgspec.field(default_factory=lambda: [0] * STEPS)  # reports that would be over, by step of the ladder
    worker_seconds: float = 0.0
    at: int | None = None  # ns of the tick before


def watch(
    memory: Watched, at: int, workers: int, sizes: Mapping[str, tuple[float, bool]], patience: float, consensus: float
) -> None:
    """Takes in a tick of `workers` workers.

    `sizes`: by worker its size, and whether that is reported as what matters. `patience`: seconds; `consensus`: share of them.
    """
    memory.worker_seconds += 0.0 if memory.at is None else workers * (at - memory.at) / 1e9
    memory.at = at
    now = {name: found for name, found in sizes.items() if found[0] >= LEAST}
    for name in sorted(now.keys() - memory.open.keys()):
        memory.open[name] = Odd([])
    for name in sorted(memory.open):
        odd, (size, reported) = memory.open[name], now.get(name, (0.0, False))
        _follow(odd, at, size, patience, consensus)
        odd.healthy = odd.healthy and not reported
        for step, last in enumerate(odd.last):
            if odd.held[step] and at - last >= QUIET_SECONDS * 1e9:
                odd.held[step] = False
                memory.counts[step] += odd.healthy
        if at - odd.last[0] >= QUIET_SECONDS * 1e9:
            del memory.open[name]


def forget(memory: Watched, accepted: float) -> None:
    """Halves the counts once there are enough. `accepted`: alarms a day per 100 workers."""
    if _due(memory, accepted) >= ENOUGH:
        memory.counts = [count // 2 for count in memory.counts]
        memory.worker_seconds /= 2


def reported_from(memory: Watched, accepted: float) -> float:
    """The least size such that, counting one more, it and every larger size came up at most `accepted` times a day per 100 workers;
    infinite if there is none."""
    due, result = _due(memory, accepted), math.inf
    for step, count in reversed(list(enumerate(_reports(memory)))):
        if count + 1 > due:
            break
        result = LEAST * STEP**step
    return result


def chance(memory: Watched, size: float) -> float:
    """The share of worker-minutes in which something of this size comes up, counting one more than did."""
    return min((_reports(memory)[_step(size)] + 1) / max(memory.worker_seconds / 60.0, 1.0), 1.0)


def _follow(odd: Odd, at: int, size: float, patience: float, consensus: float) -> None:
    """One more tick of a worker."""
    odd.seen.append((at, size))
    while len(odd.seen) > 1 and odd.seen[1][0] <= at - patience * 1e9:
        odd.seen.pop(0)
    if not size:
        return
    steps = _step(size) + 1
    odd.last[:steps] = [at] * steps
    odd.held += [False] * (len(odd.last) - len(odd.held))
    if at - odd.seen[0][0] >= patience * 1e9:
        ordered = sorted((each for _, each in odd.seen), reverse=True)
        lasted = ordered[math.ceil(consensus * len(ordered)) - 1]
        steps = min(steps, _step(lasted) + 1 if lasted >= LEAST else 0)
        odd.held[:steps] = [True] * steps


def _due(memory: Watched, accepted: float) -> float:
    return accepted * memory.worker_seconds / 86_400.0 / 100.0


def _reports(memory: Watched) -> list[int]:
    """Reports there would have been, by step of the ladder, including those that are not over."""
    many = list(memory.counts)
    for odd in memory.open.values():
        if odd.healthy:
            for step, held in enumerate(odd.held):
                many[step] += held
    return many


def _step(size: float) -> int:
    """The highest step of the ladder that is not above this size."""
    return min(int(math.log(size / LEAST, STEP) + 1e-9), STEPS - 1)
