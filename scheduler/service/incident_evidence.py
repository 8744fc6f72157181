"""Snapshots of the processes that an incident is about, taken before they are changed."""

from __future__ import annotations

from collections.abc import Sequence

from ...models.identity import ProcId
from ..decision import Decision, Flag, Recycle, Set
from ..places import ProcessPlace
from ..read import evidence

MOST_LOOKS = 8
"""Maximum processes of which a snapshot is taken in a tick. Chosen: each takes some milliseconds."""


def looks(decisions: Sequence[Decision]) -> dict[str, tuple[evidence.Evidence, ...]]:
    """Snapshots by id of the decision, one per process. Decisions that are not about an incident are absent."""
    taken: dict[ProcId, evidence.Evidence | None] = {}
    found: dict[str, tuple[evidence.Evidence, ...]] = {}
    for decision in decisions:
        about = _processes(decision)
        for process in about:
            if process not in taken and len(taken) < MOST_LOOKS:
                taken[process] = evidence.look(process)
        of_these = tuple(look for process in about if (look := taken.get(process)) is not None)
        if of_these:
            found[decision.id] = of_these
    return found


def _processes(decision: Decision) -> tuple[ProcId, ...]:
    """The processes of the incident that a decision is about."""
    action = decision.action
    if isinstance(action, Flag):
        return () if action.over else (action.worker, *action.others)
    if decision.policy == "quarantine" and isinstance(action, Recycle):
        return (action.worker,)
    if decision.policy == "quarantine" and isinstance(action, Set) and isinstance(action.on, ProcessPlace):
        return (action.on.id,)
    return ()
