"""What a pool needs by its load so far: Knative's autoscaler (KPA), without the hold after a panic. Pure.

Mean load of 60 s (or since it fell) over a target utilisation, but at least half of the ready workers; in a panic, when a 6 s
window asks for twice the ready workers, at least what that window asks for. Must not know any forecast.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ....decision import Pool

PANIC_THRESHOLD = 2.0
"""Knative: panic when the short window asks for this multiple of the ready workers."""

MAX_SCALE_UP, MAX_SCALE_DOWN = 1000.0, 2.0
"""Knative: most that may be asked for in one step, as a multiple and a divisor of the ready workers."""

EPSILON = 1e-9
"""Subtracted before rounding up, so that 2.8 / 0.7 asks for 4 workers on every machine: rounding errors are far smaller."""


@dataclass(frozen=True, slots=True)
class Reaction:
    """What the rule asks for."""

    workers: int
    sufficient: int  # the same with a margin: what may be shrunk to
    panic: bool


def up(workers: float) -> int:
    """Whole workers for a fraction."""
    return math.ceil(workers - EPSILON)


def reaction(
    pool: Pool, mean: float | None, wanted: Callable[[float], int], margin: float, *, fallen: bool = False
) -> Reaction | None:
    """Knative's rule for this mean load; None without a history of the load. `wanted`: workers for a load, in Knative's rule the
    load over the target utilisation.

    After a panic the mean of 60 s still climbs, and asks for too little. So a pool is not shrunk below what the last 6 s ask for;
    Knative has its hold for that. `fallen`: the mean is that since the load fell, so the pool need not shrink by halves.
    """
    if mean is None:
        return None
    ready = max(1, sum(worker.ready for worker in pool.workers))
    low, high = 0 if fallen else math.floor(ready / MAX_SCALE_DOWN), math.ceil(MAX_SCALE_UP * ready)

    def asked(load: float) -> int:
        return min(max(wanted(load), low), high)

    short = pool.load_panic if pool.load_panic is not None else mean
    change, sufficient = asked(mean), asked(max(mean, short) * margin)
    if wanted(short) / ready < PANIC_THRESHOLD:
        return Reaction(change, sufficient, False)
    return Reaction(max(change, asked(short)), sufficient, True)
