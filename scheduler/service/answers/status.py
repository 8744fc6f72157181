"""The answer to `status`: what the daemon is doing, for programs and for `nicety status`. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import msgspec

from .... import __version__
from ....models.records import Class
from ...act.scoped import ActedOn, Scoped, Spared
from ...decision import Chosen, Group, Note, Pool, Rules
from ...explain.in_force import InForce, OneChange, each, sum_up
from ...hands.changes import Entry
from ...hands.guarding import Watchers
from ...hands.kernel import Clock
from ...printed import Part, Printed, plain
from ...words import share
from ..latest import Latest
from ..own.budget import Budget
from ..own.cost import Helpers, own_cpu_ns, resident_bytes
from ..own.place import OwnPlace
from ..replays import Replays
from ..retraining import Retraining
from ..sessions import Sessions
from ..steps import Fault, Steps
from .acting_on import ActingOn
from .pause import Pause


class Spent(Part, frozen=True):
    """What the daemon may use of one CPU, and what it does less often to stay within that."""

    share: float | None  # of one CPU in the last 30 s; None: not measured yet
    limit: float  # of one CPU
    reduced: list[str]


class StatusPool(Part, frozen=True):
    """A pool of workers."""

    pool: str
    size: int  # workers that there are
    requested: int  # workers that were asked for
    busy: float | None  # workers; None: not known
    queued: float | None  # work that waits; None: not known
    load: float | None  # Erlangs: workers that its work would keep busy; None: not known
    objective: str  # what it is to keep, in words; "": the usual target
    rules: str  # which rules size it, in words
    trouble: str  # why it takes no requests now; "": it does


class StatusGroup(Part, frozen=True):
    """Processes that belong together. Rates are over the last tick."""

    group: str
    class_: Class
    processes: int
    cpu: float  # cores used
    wait: float  # cores waited for in the run queue
    memory_bytes: int
    p_interactive: float | None  # probability of that class; None: the class is configured, or nothing is known yet
    p_batch: float | None  # likewise


class InForceNow(InForce, frozen=True, kw_only=True):
    """What one group was changed to, and since when."""

    since_seconds: float


class Running(Printed, frozen=True, kw_only=True):
    """What a running daemon is doing."""

    running: Annotated[bool, msgspec.Meta(extra_json_schema={"const": True})] = True
    version: str  # of the daemon
    mode: str  # observe, or act if anything is acted on
    scope: str  # what is acted on, in words
    acting_on: list[ActedOn]
    spared: list[Spared]
    cannot: str  # which changes cannot be made here, and why; "": all can be made
    paused: bool
    running_seconds: float
    session: str  # 8 hex digits
    ticks: int
    missed_ticks: int  # that could not be on time
    budget: Spent
    sentry: int | None  # pid of the process that restores everything if the hands die; None: there is none
    own_nice: int  # that the daemon has by a change of its own; 0: none
    faults: list[Fault]  # what failed in the daemon
    trace_ticks_dropped: int  # that could not be written
    decision_ticks_dropped: int
    demand_model: str  # beginning of its digest, or "baseline"
    behaviour_model: str  # likewise, or "none"
    anomaly_model: str  # likewise, or "baseline"
    retraining: str  # "off", when it comes, or its pid
    replay: str  # of the load of pools, likewise
    own_cpu_seconds: float  # used so far, with the hands and eyes
    own_memory_bytes: int  # resident, with the hands and eyes
    users: str  # "kept apart" or "one team"
    notes: list[Note]  # what holds now and should be known
    pools: list[StatusPool]
    groups: list[StatusGroup]
    changes: list[InForceNow]
    changes_in_force: list[OneChange] | msgspec.UnsetType = msgspec.UNSET  # over the socket only if asked for in full


class NotRunning(Printed, frozen=True, kw_only=True):
    """What a dead daemon left changed. Exit 1."""

    running: Annotated[bool, msgspec.Meta(extra_json_schema={"const": False})] = False
    changes: list[InForce]
    changes_in_force: list[OneChange]


def not_running(left: Iterable[Entry]) -> NotRunning:
    """What is printed if no daemon runs: `left` is what the ledger has."""
    entries = list(left)
    changes, each_of = (InForce(**each) for each in sum_up(entries, {})), (OneChange(**change) for change in each(entries))
    return NotRunning(changes=list(changes), changes_in_force=list(each_of))


class StatusAnswer:
    """Collects the answer from the parts of the daemon."""

    def __init__(
        self,
        sessions: Sessions,
        acting_on: ActingOn,
        actuator: Scoped,
        sentries: Watchers,
        latest: Latest,
        pause: Pause,
        budget: Budget,
        helpers: Helpers,
        own_place: OwnPlace,
        retraining: Retraining,
        replays: Replays,
        steps: Steps,
        clock: Clock,
        started: int,
    ) -> None:
        """`started`: when the daemon started, monotonic ns."""
        self._sessions, self._acting_on, self._actuator, self._sentries, self._latest = (
            sessions,
            acting_on,
            actuator,
            sentries,
            latest,
        )
        self._pause, self._budget, self._helpers, self._own_place = pause, budget, helpers, own_place
        self._retraining, self._replays, self._steps, self._clock = retraining, replays, steps, clock
        self._started = started

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """What the daemon is doing. With `full` also each change of each thread, of which there may be thousands."""
        now, tick = self._clock.monotonic(), self._latest.tick
        answer = Running(
            version=__version__,
            **self._acting_on.record(),
            cannot=self._acting_on.cannot(),
            paused=self._pause.holds(now),
            running_seconds=(now - self._started) / 1e9,
            session=self._sessions.current.id,
            ticks=self._latest.ticks,
            missed_ticks=self._latest.missed,
            **self._own(now),
            users="kept apart" if self._sessions.current.config["tenants"]["apart"] else "one team",
            notes=list(self._latest.notes),
            pools=_pools(tick.pools, tick.chosen, self._sessions.current.config["pools"]) if tick else [],
            groups=_groups(self._latest.groups),
            **self._changes(full=bool(request.get("full"))),
        )
        return plain(answer)

    def _own(self, now: int) -> dict[str, Any]:
        """What the daemon costs, which models it uses, and what failed in it."""
        sessions, traces = self._sessions, self._sessions.traces
        artefacts = sessions.current.artefacts
        return {
            "budget": Spent(self._budget.share, self._budget.limit, list(self._budget.reduced)),
            "sentry": self._sentries.pid,
            "own_nice": self._own_place.priority.nice,
            "faults": list(self._steps.faults),
            "trace_ticks_dropped": traces.dropped if traces is not None else 0,
            "decision_ticks_dropped": sessions.log.dropped,
            "demand_model": artefacts["demand"][:12] or "baseline",
            "behaviour_model": artefacts["behaviour"][:12] or "none",
            "anomaly_model": artefacts["anomaly"][:12] or "baseline",
            "retraining": self._retraining.state(now),
            "replay": self._replays.state(now),
            "own_cpu_seconds": (own_cpu_ns() + self._helpers.cpu_ns()) / 1e9,
            "own_memory_bytes": resident_bytes() + self._helpers.resident_bytes(),
        }

    def _changes(self, *, full: bool) -> dict[str, Any]:
        """The changes in force."""
        wall, entries = self._clock.wall(), self._actuator.outstanding()
        changes = [
            InForceNow(**change, since_seconds=max(0.0, (wall - change["since_wall"]) / 1e9))
            for change in sum_up(entries, self._sessions.engine.made_for())
        ]
        return {"changes": changes, **({"changes_in_force": each(entries)} if full else {})}


def _pools(pools: Iterable[Pool], chosen: Iterable[Chosen], config: Mapping[str, Any]) -> list[StatusPool]:
    rules = {each.pool: each.rules.words(each.size) for each in chosen}
    return [
        StatusPool(
            pool=pool.name,
            size=pool.size,
            requested=pool.requested,
            busy=pool.busy,
            queued=pool.queued,
            load=pool.load,
            objective=_objective(config.get(pool.name, {}).get("objective") or {}),
            rules=rules.get(pool.name, Rules.ALL.words(0)),
            trouble=pool.trouble,
        )
        for pool in pools
    ]


def _objective(config: Mapping[str, Any]) -> str:
    """What a pool is to keep, from its section of the configuration; "" for a pool without an objective.

    >>> _objective({"p95": "300ms", "wait": "", "utilization": 0.0}), _objective({"p95": "", "wait": "", "utilization": 0.7})
    ('p95 300ms', 'utilization 70 %')
    """
    return " ".join(f"{key} {value if isinstance(value, str) else share(value)}" for key, value in config.items() if value)


def _groups(groups: Iterable[Group]) -> list[StatusGroup]:
    return [
        StatusGroup(
            group=group.name,
            class_=group.class_,
            processes=group.processes,
            cpu=group.cpu,
            wait=group.wait,
            memory_bytes=group.rss,
            p_interactive=group.behaviour.p_interactive if group.behaviour else None,
            p_batch=group.behaviour.p_batch if group.behaviour else None,
        )
        for group in groups
    ]
