"""Looks at what a decision names, and compares it with what the decision says. Changes nothing; both actuators look alike.

Knows the kernel as a port. Must not know the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..changes import Chain, believed, name_of, shown
from ..decision import Control, Decision, Digest, Flag, Outcome, Set, Status
from ..fences import FENCED, Limits
from ..ports import Kernel, Knob, PoolAdapter, Trouble, Value


def knobs_of(kernel: Kernel, action: Set) -> tuple[Knob, ...] | Trouble:
    """The knobs that hold the values of this action."""
    if action.control in (Control.CPU_SHARES, Control.CPU_WEIGHT, Control.CPU_IDLE):
        return (Knob(action.control, None, None, action.cgroup),)
    if action.process is None or action.control is Control.POOL_SIZE:
        return Trouble(Status.FAILED, f"{action.control} cannot be set so: a bug in the policy that asked for it")
    if action.control is Control.AUTOGROUP:
        key = kernel.autogroup(action.process)
        return key if isinstance(key, Trouble) else (Knob(action.control, action.process, None, key),)
    if action.control is Control.FENCE:
        assert isinstance(action.value, tuple)
        key = kernel.fence(action.process, Limits(*action.value))
        return key if isinstance(key, Trouble) else (Knob(action.control, action.process, None, key),)
    threads = kernel.threads(action.process)
    if isinstance(threads, Trouble):
        return threads
    return tuple(Knob(action.control, action.process, thread, "") for thread in threads)


def name_for(action: Set, knobs: tuple[Knob, ...] | Trouble) -> str:
    """What is changed, for people."""
    planned = action.control is Control.FENCE and not isinstance(knobs, Trouble)
    return name_of(action.control, action.process, knobs[0].key if planned and not isinstance(knobs, Trouble) else action.cgroup)


def wanted(action: Set) -> Value:
    """The value the knob is to have: the limits of a fence are in its key."""
    return FENCED if action.control is Control.FENCE else action.value


class Seen(NamedTuple):
    """A knob, compared with what a decision says of it."""

    now: Value
    chosen: bool  # its value is not the one expected where nobody chose any
    so: bool  # it has the wanted value already, and not just what a cpuset makes of an affinity whose CPUs are all away


def seen(kernel: Kernel, action: Set, knob: Knob) -> Seen | Trouble:
    """Read a knob and compare it; or why that cannot be done."""
    now, aim = kernel.read(knob), wanted(action)
    visible = kernel.visible(knob, aim)
    expected = None if action.expected is None else kernel.visible(knob, action.expected)
    for each in (now, visible, expected):
        if isinstance(each, Trouble):
            return each
    assert not isinstance(now, Trouble)
    away = isinstance(now, tuple) and isinstance(aim, tuple) and set(now).isdisjoint(aim)
    return Seen(now, expected is not None and now != expected, not away and now == visible)


def is_ours(kernel: Kernel, chain: Chain, now: Value | Trouble) -> bool | Trouble:
    """Whether nobody but us changed the value, as far as can be seen; Trouble: this cannot be determined now."""
    knob = chain[-1].knob
    seen = [kernel.visible(knob, value) for value in believed(chain)]
    if isinstance(now, Trouble) or now in seen:
        return True
    return next((each for each in seen if isinstance(each, Trouble)), False)


def chosen(action: Set, now: Value) -> str:
    """Why a value is left alone that is not the one expected."""
    return f"somebody chose {action.control} {shown(now)}"


def reported(action: Flag | Digest) -> str:
    """What a report says."""
    if isinstance(action, Digest):
        return f"{action.incidents} incidents told of in one line"
    return f"reported that {action.kind} is over" if action.over else f"reported as {action.kind}"


def unknown_pool(pools: Mapping[str, PoolAdapter], decision: Decision, name: str) -> Outcome | None:
    """The outcome of a decision about a pool that is not configured; None if it is."""
    if name in pools:
        return None
    return Outcome(decision.id, Status.FAILED, decision.target, f"there is no pool {name}", 0)
