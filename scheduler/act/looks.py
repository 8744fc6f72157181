"""Reads what a decision names, and compares it with what the decision says. Changes nothing. Both actuators use it.

Knows the kernel as a port. Must not know the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..decision import Decision, Digest, Flag, Outcome, Set
from ..hands.changes import name_of, shown
from ..hands.faults import Status, Trouble
from ..hands.fences import FENCED, Limits
from ..hands.kernel import Kernel
from ..hands.places import AutogroupPlace, Cgroup, Control, FencePlace, Knob, ThreadPlace, Value
from ..hands.tally import Tally
from ..places import CgroupPlace, ProcessPlace, SessionPlace, place_in_kernel
from ..ports import PoolAdapter


def knobs_of(kernel: Kernel, action: Set) -> tuple[Knob, ...] | Trouble:
    """The knobs that hold the values of this action; at least one."""
    control = action.control
    match action.on:
        case CgroupPlace():
            return (Knob(control, Cgroup(action.on.path)),)
        case SessionPlace(through=process):
            name = kernel.autogroup(process)
            return name if isinstance(name, Trouble) else (Knob(control, AutogroupPlace(name, process)),)
        case ProcessPlace(id=process) if control is Control.FENCE:
            if not isinstance(action.value, tuple):
                return Trouble(Status.FAILED, f"{action.value} are not the limits of a fence: a bug in the policy that proposed it")
            key = kernel.fence(process, Limits(*action.value))
            return key if isinstance(key, Trouble) else (Knob(control, FencePlace(key, process)),)
        case ProcessPlace(id=process):
            threads = kernel.threads(process)
            if isinstance(threads, Trouble):
                return threads
            return tuple(Knob(control, ThreadPlace(process, thread)) for thread in threads)


def name_for(action: Set, knobs: tuple[Knob, ...] | Trouble) -> str:
    """The name of what is changed, for people. A fence that could be planned is named by its cgroup and limits."""
    planned = action.control is Control.FENCE and not isinstance(knobs, Trouble)
    return name_of(action.control, knobs[0].on if planned and not isinstance(knobs, Trouble) else place_in_kernel(action.on))


def wanted(action: Set) -> Value:
    """The value that the knob should have. The limits of a fence are in its key, so its value only says that it exists."""
    return FENCED if action.control is Control.FENCE else action.value


class Comparison(NamedTuple):
    """A knob, compared with what a decision says of it."""

    now: Value
    chosen: bool  # somebody chose the value: it is not the one that the decision expects
    so: bool  # it has the wanted value already; False if it only looks so, because a cpuset allows none of the wanted CPUs


def compare(kernel: Kernel, action: Set, knob: Knob) -> Comparison | Trouble:
    """Read a knob and compare it with the decision; or why that cannot be done."""
    now, aim = kernel.read(knob), wanted(action)
    visible = kernel.visible(knob, aim)
    expected = None if action.expected is None else kernel.visible(knob, action.expected)
    if isinstance(now, Trouble):
        return now
    if isinstance(visible, Trouble):
        return visible
    if isinstance(expected, Trouble):
        return expected
    away = isinstance(now, tuple) and isinstance(aim, tuple) and set(now).isdisjoint(aim)
    return Comparison(now, expected is not None and now != expected, not away and now == visible)


def outcome(tally: Tally, decision: str, target: str, what: str) -> Outcome:
    """A tally as the outcome of a decision. `what`: what it changed, for people."""
    return Outcome(decision, tally.status(), target, tally.detail(what), tally.changed)


def chosen(action: Set, now: Value) -> str:
    """Why a value that is not the expected one is left alone."""
    return f"somebody chose {action.control} {shown(now)}"


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
