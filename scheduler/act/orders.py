"""Turns decisions about kernel values into orders for the hands, unless something forbids that by now: a relief since the decision,
or a process that waits for a lock of the one to be fenced.

Knows the hands, the kernel and the locks as ports. Must not know pools.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..decision import Decision, Outcome, Restore, Set
from ..hands.changes import subject_of
from ..hands.faults import Status, Trouble
from ..hands.kernel import Kernel
from ..hands.looks import Order, knobs_of, name_for
from ..hands.places import Control
from ..places import ProcessPlace
from ..ports import Hands, Locks
from .looks import ProgramOf, order_of, outcome
from .relieving import Relieving


class Orders:
    """Has the hands carry decisions out."""

    def __init__(self, hands: Hands, kernel: Kernel, locks: Locks, relieving: Relieving, program_of: ProgramOf) -> None:
        self._hands = hands
        self._kernel = kernel
        self._locks = locks
        self._relieving = relieving
        self._program_of = program_of

    def carry_out(self, decisions: Sequence[tuple[Decision, Set | Restore]]) -> list[Outcome]:
        """One outcome per decision, in order."""
        orders = [order_of(decision, action, self._program_of) for decision, action in decisions]
        objections = [
            self._objection(order, action) if isinstance(action, Set) else None
            for order, (_, action) in zip(orders, decisions, strict=True)
        ]
        asked = [order for order, objection in zip(orders, objections, strict=True) if objection is None]
        done = iter(self._hands.change(asked) if asked else ())
        return [objection or outcome(next(done)) for objection in objections]

    def _objection(self, order: Order, action: Set) -> Outcome | None:
        """The outcome of a decision that must not be carried out now."""
        wanted = self._wanted_by_others(action)
        if wanted is None and not self._relieving.has_relieved:
            return None
        knobs = knobs_of(self._kernel, order)
        if isinstance(knobs, Trouble):
            return None  # the hands say so
        what = name_for(order, knobs)
        if wanted is not None:
            return Outcome(order.decision, wanted.status, order.target, wanted.text, 0)
        relieved = self._relieving.why(subject_of(knobs[0]))
        if relieved is None:
            return None
        text = f"{what} is left alone, because it was restored after this was decided: {relieved}"  # the relief was not known then
        return Outcome(order.decision, Status.RELIEVED, order.target, text, 0)

    def _wanted_by_others(self, action: Set) -> Trouble | None:
        """Trouble if another process waits for a lock of the process to be fenced: the fence would delay all waiters. The
        starvation watchdog finds waits that this look misses, and those that begin later."""
        if action.control is not Control.FENCE or not isinstance(action.on, ProcessPlace):
            return None
        process = action.on.id
        for wait in self._locks.waits((process,), self._relieving.members):
            if wait.waiter != process and (wait.holder or wait.possible) in (process, (process,)):
                return Trouble(Status.REFUSED, f"not fenced now: pid {wait.waiter.pid} waits for the {wait.lock} that it holds")
        return None
