"""What is done about a worker that misbehaves, if the user asked for it: demote, fence in, recycle; and what is spared. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from statistics import median

from .....models.anomaly.waitgraph import UNLESS
from .....models.identity import ProcId
from .....models.records import Anomaly, Deadlock, Score
from ....config.sections import Config
from ....decision import Recycle, Set, Tick
from ....hands.fences import Limits
from ....hands.places import Control
from ....places import ProcessPlace
from .incidents import Incident
from .significance import Significance
from .words import WHAT

VICTIMS = frozenset({Anomaly.STARVED})
"""Kinds that happen to a worker instead of being done by it: reported, never acted on."""

IDLE = frozenset({Anomaly.STUCK, Anomaly.DEADLOCK})
"""Kinds of a worker that does not run: less CPU for it changes nothing."""

OF_OTHERS = frozenset({Anomaly.CRASH_LOOP, Anomaly.ZOMBIE})
"""Kinds that no running worker causes: there is nothing to demote or recycle."""

FENCED_IN: Mapping[str, frozenset[str]] = {
    Anomaly.LEAK: frozenset({"memory"}),
    Anomaly.SPIN: frozenset({"cpu"}),
    Anomaly.SWITCH_STORM: frozenset({"cpu"}),
    Anomaly.FORK_STORM: frozenset({"cpu", "tasks"}),
}
"""Limits of a fence that keep a worker of this kind from harming others. The other kinds take nothing from other processes."""

DOUBTFUL_SECONDS = 60.0
"""Seconds after which a circle is acted on in which another thread could release a lock (chosen): a slow answer has come by
then."""

LEAST_CORES, LEAST_MEMORY, LEAST_TASKS = 0.1, 64 << 20, 8
"""Cores, bytes and processes that every fence leaves (chosen): a lock is released within another 90 ms, a request has room, and a
shell can start a pipeline."""

ROOM = 1.5
"""A fence leaves this many times the median of the siblings' cores (chosen). The extra room distinguishes a worker that works like
its siblings again from one that takes all it gets."""

PRESSING = 0.8
"""Share of the CPU left by its fence from which a worker counts as wanting more (chosen)."""

FORK_SECONDS = 10.0
"""Seconds: a fence has room for the processes that siblings start in this time, as if each lived that long (chosen)."""


class Wanted(StrEnum):
    """What the user asked for besides the report: `quarantine.action`."""

    FLAG = "flag"  # nothing
    DEMOTE = "demote"
    FENCE = "fence"
    RECYCLE = "recycle"


class Treatment:
    """Chooses what is done about an incident."""

    def __init__(self, config: Config, odd: Significance) -> None:
        self._wanted = Wanted(config.quarantine.action)
        self._nice = min(config.priority.pool_nice, config.priority.nice)
        self._odd = odd

    def action(self, tick: Tick, incident: Incident, seen: Score | Deadlock, present: set[ProcId]) -> Set | Recycle | None:
        """What to do about an incident of which this was seen; None: nothing, or nothing more. `present`: the workers there are."""
        if self._wanted is Wanted.FLAG or incident.treated or self.spared(seen):
            return None
        worker = _last_to_come(tick, incident, seen) if isinstance(seen, Deadlock) else incident.ids[0]
        if worker is None or worker not in present:
            return None
        if self._wanted is Wanted.RECYCLE:
            return Recycle(incident.pool, worker)
        if self._wanted is Wanted.FENCE:
            limits = None if isinstance(seen, Deadlock) else _limits(tick, seen)
            return None if limits is None else Set(Control.FENCE, ProcessPlace(worker), tuple(limits))
        nice = next((member.nice for group in tick.groups for member in group.members if member.id == worker), 0)
        return None if nice >= self._nice else Set(Control.NICE, ProcessPlace(worker), self._nice)  # or it is demoted already

    def rejected(self, seen: Score | Deadlock) -> tuple[str, ...]:
        """For the reasons of a report: why it is not acted on, if the user asked for it."""
        reason = "" if self._wanted is Wanted.FLAG else self.spared(seen)
        return (reason,) if reason else ()

    def spared(self, seen: Score | Deadlock) -> str:
        """Why this is not acted on; "" if it is."""
        if isinstance(seen, Deadlock):
            if any(wait.holder is None for wait in seen.waits):
                return "acting on it: nicety cannot tell which process holds what they wait for; ending a waiting one frees nothing"
            kind: str = Anomaly.DEADLOCK
        else:
            kind = seen.kind
            if self._odd.is_lesser(seen):
                return (
                    "acting on it: it is too small to matter, and reported only because the configuration accepts more false alarms"
                )
        if kind in VICTIMS:
            return f"acting on it: a worker that is {kind} does not cause it"
        if kind in OF_OTHERS:
            return "acting on it: no running worker causes this"
        if kind in IDLE and self._wanted is Wanted.DEMOTE:
            return f"demoting it: a worker that {WHAT[kind]} does not use the CPU"
        if self._wanted is Wanted.FENCE and kind not in FENCED_IN:
            return f"fencing it in: a worker that {WHAT[kind]} takes no CPU, memory or processes from others"
        return ""


def presses(tick: Tick, incident: Incident) -> bool:
    """Whether a worker uses all the CPU that its fence leaves, and more than its siblings use now."""
    demoted = incident.demoted
    if demoted is None or not demoted.left:
        return False
    workers = next((pool.workers for pool in tick.pools if pool.name == incident.pool), ())
    own = next((1000 * worker.cpu for worker in workers if worker.id == demoted.process), 0.0)
    siblings = [1000 * worker.cpu for worker in workers if worker.id != demoted.process]
    return own >= PRESSING * demoted.left and not (siblings and median(siblings) >= own)


def _last_to_come(tick: Tick, incident: Incident, seen: Deadlock) -> ProcId | None:
    """The worker of a circle that has the least to lose; None: none of those that were reported, or it may yet resolve."""
    named = [wait for wait in seen.waits if wait.waiter in (incident.named or incident.ids)]
    doubtful = any(UNLESS in wait.what for wait in seen.waits)
    if not named or (doubtful and tick.at - max(wait.since for wait in seen.waits) < DOUBTFUL_SECONDS * 1e9):
        return None
    return max(named, key=lambda wait: (wait.since, wait.waiter)).waiter


def _limits(tick: Tick, score: Score) -> Limits | None:
    """What a fence leaves to this worker: what its siblings use. None if those limits would keep it from nothing."""
    pool = next((pool for pool in tick.pools if pool.name == score.pool), None)
    own = None if pool is None else next((worker for worker in pool.workers if worker.id == score.id), None)
    if pool is None or own is None:
        return None
    siblings = [worker for worker in pool.workers if worker.id != score.id]
    by, evidence = FENCED_IN[score.kind], dict(score.evidence)
    cores = max(LEAST_CORES, ROOM * median(it.cpu for it in siblings) if siblings else own.cpu / 2)
    memory = max(LEAST_MEMORY, int(median(it.rss for it in siblings)) if siblings else own.rss)
    started = evidence.get("siblings_processes_started_per_second", 0.0)
    limits = Limits(
        cpu=math.ceil(1000 * cores) if "cpu" in by and cores < own.cpu + own.wait else 0,
        memory=(memory + (1 << 20) - 1 >> 20) << 20 if "memory" in by else 0,
        tasks=max(LEAST_TASKS, math.ceil(FORK_SECONDS * started)) if "tasks" in by else 0,
    )
    return limits if any(limits) else None
