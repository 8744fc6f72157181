"""The answer to `status`: what the daemon is doing, for programs and for `nicety status`. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from .... import __version__
from ...act.scoped import Scoped
from ...decision import Chosen, Group, Pool, Rules
from ...explain.in_force import each, sum_up
from ...hands.guarding import Watchers
from ...hands.kernel import Clock
from ...words import share
from ..latest import Latest
from ..own.budget import Budget
from ..own.cost import Helpers, own_cpu_ns, resident_bytes
from ..own.place import OwnPlace
from ..replays import Replays
from ..retraining import Retraining
from ..sessions import Sessions
from ..steps import Steps
from .acting_on import ActingOn
from .pause import Pause


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
        return {
            "version": __version__,
            **self._acting_on.record(),
            "cannot": self._acting_on.cannot(),
            "paused": self._pause.holds(now),
            "running_seconds": (now - self._started) / 1e9,
            "session": self._sessions.current.id,
            "ticks": self._latest.ticks,
            "missed_ticks": self._latest.missed,
            **self._own(now),
            "users": "kept apart" if self._sessions.current.config["tenants"]["apart"] else "one team",
            "notes": msgspec.to_builtins(self._latest.notes),
            "pools": _pools(tick.pools, tick.chosen, self._sessions.current.config["pools"]) if tick else [],
            "groups": _groups(self._latest.groups),
            **self._changes(full=bool(request.get("full"))),
        }

    def _own(self, now: int) -> dict[str, Any]:
        """What the daemon costs, which models it uses, and what failed in it."""
        sessions, traces = self._sessions, self._sessions.traces
        artefacts = sessions.current.artefacts
        return {
            "budget": {"share": self._budget.share, "limit": self._budget.limit, "reduced": self._budget.reduced},
            "sentry": self._sentries.pid,
            "own_nice": self._own_place.priority.nice,
            "faults": [msgspec.to_builtins(fault) for fault in self._steps.faults],
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
            {**change, "since_seconds": max(0.0, (wall - change["since_wall"]) / 1e9)}
            for change in sum_up(entries, self._sessions.engine.made_for())
        ]
        return {"changes": changes, **({"changes_in_force": each(entries)} if full else {})}


def _pools(pools: Iterable[Pool], chosen: Iterable[Chosen], config: Mapping[str, Any]) -> list[dict[str, Any]]:
    rules = {each.pool: each.rules.words(each.size) for each in chosen}
    return [
        {
            "pool": pool.name,
            "size": pool.size,
            "requested": pool.requested,
            "busy": pool.busy if pool.busy is not None else "unknown",
            "queued": pool.queued if pool.queued is not None else "unknown",
            "load": pool.load if pool.load is not None else "unknown",
            "objective": _objective(config.get(pool.name, {}).get("objective") or {}),
            "rules": rules.get(pool.name, Rules.ALL.words(0)),
            "trouble": pool.trouble,
        }
        for pool in pools
    ]


def _objective(config: Mapping[str, Any]) -> str:
    """What a pool is to keep, from its section of the configuration; "" for a pool without an objective.

    >>> _objective({"p95": "300ms", "wait": "", "utilization": 0.0}), _objective({"p95": "", "wait": "", "utilization": 0.7})
    ('p95 300ms', 'utilization 70 %')
    """
    return " ".join(f"{key} {value if isinstance(value, str) else share(value)}" for key, value in config.items() if value)


def _groups(groups: Iterable[Group]) -> list[dict[str, Any]]:
    return [
        {
            "group": group.name,
            "class": str(group.class_),
            "processes": group.processes,
            "cpu": group.cpu,
            "wait": group.wait,
            "memory_bytes": group.rss,
            "p_interactive": group.behaviour.p_interactive if group.behaviour else None,
            "p_batch": group.behaviour.p_batch if group.behaviour else None,
        }
        for group in groups
    ]
