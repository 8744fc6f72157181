"""What the actuators say of decisions: orders for the hands, and outcomes from them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...models.identity import ProcId
from ..decision import Decision, Digest, Flag, Outcome, Restore, Set
from ..hands.faults import Status
from ..hands.looks import Order
from ..hands.tally import Done
from ..places import place_in_kernel
from ..ports import PoolAdapter

ProgramOf = Callable[[ProcId], str | None]
"""Gives the `comm` of a process when the last decisions were made; None: not known."""


def unknown_program(_: ProcId) -> None:
    """A `ProgramOf` that knows none."""


def order_of(decision: Decision, action: Set | Restore, program_of: ProgramOf = unknown_program) -> Order:
    """A decision as the hands are asked for it."""
    on = place_in_kernel(action.on)
    if isinstance(action, Restore):
        return Order(decision.id, decision.target, action.control, on, None)
    program = program_of(on) if isinstance(on, ProcId) else None
    return Order(decision.id, decision.target, action.control, on, action.value, action.expected, program)


def outcome(done: Done) -> Outcome:
    """What the hands did, as the outcome of a decision."""
    return Outcome(done.decision, done.status, done.target, done.detail, done.changed)


def reported(action: Flag | Digest) -> str:
    """The detail of the outcome of a report."""
    if isinstance(action, Digest):
        return f"{action.incidents} incidents reported in one line"
    return f"reported that {action.kind} is over" if action.over else f"reported as {action.kind}"


def unknown_pool(pools: Mapping[str, PoolAdapter], decision: Decision, name: str) -> Outcome | None:
    """The outcome of a decision about a pool that is not configured; None if the pool is configured."""
    if name in pools:
        return None
    return Outcome(decision.id, Status.FAILED, decision.target, f"pool {name} is not configured", 0)
