"""Whether the workers that a pool starts get the CPU to come up. Pure.

On a machine without a free CPU, each further worker makes all of them slower. Frameworks give up a worker that takes too long
(Celery after 4 s), start it again, and so take CPU from those that work. So no more workers are started while some starve.
"""

from __future__ import annotations

import msgspec

from .....models.identity import ProcId
from ....decision import START_UNKNOWN, Machine, Pool
from ..policy import Memory

LATE = 2.0
"""A worker is late after this many median start times (chosen): the median is that of calmer times."""

WAITED = 1.0
"""Seconds that a starting worker must have waited for a CPU at least: less is no cause of a late start worth naming (chosen)."""

HOLD = 60.0
"""Seconds for which a pool is not grown after a start that starved, unless the machine has had a free CPU since (chosen). After
that growth is tried again: what fills the machine may be batch work, which gives way."""


class Start(Memory):
    """A worker that is not up yet."""

    id: ProcId
    since: int  # ns of the tick that first had it
    ran: float = 0.0  # seconds of CPU since
    waited: float = 0.0  # seconds in the run queue since


class Starts(Memory):
    """What is remembered of a pool's starts."""

    under_way: list[Start] = msgspec.field(default_factory=list)
    starved_at: int | None = None  # ns at which one was last seen to starve; None: not since the machine had a free CPU
    holds: bool = False  # growth that the load asks for is held at this tick


def watch(starts: Starts, at: int, pool: Pool, machine: Machine, headroom: float, interval: float) -> None:
    """Take note of this tick's starting workers. `headroom`: the share of the CPUs in use from which the machine is full.
    `interval`: seconds between ticks.

    A start starves if the machine is full, the worker has waited for a CPU for longer than it ran, and it is late or was given up.
    """
    full = machine.busy + machine.steal >= headroom * machine.cpus
    late = LATE * (START_UNKNOWN if pool.start_seconds is None else pool.start_seconds)
    known = {start.id: start for start in starts.under_way}
    there = {worker.id for worker in pool.workers}
    starving = any(start.id not in there and _waits(start) for start in starts.under_way)
    starts.under_way = []
    for worker in pool.workers:
        if worker.ready:
            continue
        start = known.get(worker.id) or Start(worker.id, at)
        start.ran += worker.cpu * interval
        start.waited += worker.wait * interval
        starts.under_way.append(start)
        starving |= _waits(start) and at - start.since >= late * 1e9
    if not full:
        starts.starved_at = None
    elif starving:
        starts.starved_at = at


def are_starved(starts: Starts, at: int) -> bool:
    """Whether no more workers are to be started now."""
    return starts.starved_at is not None and at - starts.starved_at < HOLD * 1e9


def _waits(start: Start) -> bool:
    return start.waited >= WAITED and start.waited > start.ran
