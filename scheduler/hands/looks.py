"""Looks at the target of an order before anything is changed: which knobs it has, what they hold now, and what people call it.

Knows the kernel as a port. Must not know the ledger.
"""

from __future__ import annotations

from ...models.identity import ProcId
from ...models.lean import NamedTuple
from .changes import name_of, shown
from .faults import Status, Trouble
from .fences import FENCED, Limits
from .kernel import Kernel
from .places import AutogroupPlace, Cgroup, Control, FencePlace, Knob, ThreadPlace, Value


class Order(NamedTuple):
    """A change that is asked of the hands."""

    decision: str  # its id
    target: str  # of the decision, for people
    control: Control
    on: ProcId | Cgroup  # a process stands for its threads, for the autogroup it is in, or for the fence to be made for it
    value: Value | None  # None: put it back
    expected: Value | None = None  # its value before our changes: another one is somebody's choice; None: any
    program: str | None = None  # the `comm` of the process when this was decided; None: whatever it runs


def knobs_of(kernel: Kernel, order: Order) -> tuple[Knob, ...] | Trouble:
    """The knobs that hold the values of this order; at least one."""
    control, on = order.control, order.on
    if isinstance(on, Cgroup):
        return (Knob(control, on),)
    if control is Control.AUTOGROUP:
        name = kernel.autogroup(on)
        return name if isinstance(name, Trouble) else (Knob(control, AutogroupPlace(name, on)),)
    if control is Control.FENCE:
        if not isinstance(order.value, tuple) or len(order.value) not in (3, 4):
            return Trouble(Status.FAILED, f"{order.value} are not the limits of a fence: a bug in the policy that proposed it")
        key = kernel.fence(on, Limits(*order.value))
        return key if isinstance(key, Trouble) else (Knob(control, FencePlace(key, on)),)
    threads = kernel.threads(on)
    if isinstance(threads, Trouble):
        return threads
    return tuple(Knob(control, ThreadPlace(on, thread)) for thread in threads)


def name_for(order: Order, knobs: tuple[Knob, ...] | Trouble) -> str:
    """The name of what is changed, for people. A fence that could be planned is named by its cgroup and limits."""
    planned = order.control is Control.FENCE and not isinstance(knobs, Trouble)
    return name_of(order.control, knobs[0].on if planned and not isinstance(knobs, Trouble) else order.on)


def wanted(order: Order) -> Value:
    """The value that the knob should have. The limits of a fence are in its key, so its value only says that it exists."""
    return FENCED if order.control is Control.FENCE or order.value is None else order.value


class Comparison(NamedTuple):
    """A knob, compared with what an order says of it."""

    now: Value
    chosen: bool  # somebody chose the value: it is not the one that the order expects
    so: bool  # it has the wanted value already; False if it only looks so, because a cpuset allows none of the wanted CPUs


def compare(kernel: Kernel, order: Order, knob: Knob) -> Comparison | Trouble:
    """Read a knob and compare it with the order; or why that cannot be done."""
    now, aim = kernel.read(knob), wanted(order)
    visible = kernel.visible(knob, aim)
    expected = None if order.expected is None else kernel.visible(knob, order.expected)
    if isinstance(now, Trouble):
        return now
    if isinstance(visible, Trouble):
        return visible
    if isinstance(expected, Trouble):
        return expected
    away = isinstance(now, tuple) and isinstance(aim, tuple) and set(now).isdisjoint(aim)
    return Comparison(now, expected is not None and now != expected, not away and now == visible)


def chosen(control: Control, now: Value) -> str:
    """Why a value that is not the expected one is left alone."""
    return f"somebody chose {control} {shown(now)}"
