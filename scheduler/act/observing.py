"""The actuator of observe mode: reads the same targets as the one that acts, and says what that one would change. Writes nothing.

Knows the kernel and the pools as ports. Must not know the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from ...models.records import PoolSample
from ..decision import Decision, Digest, Flag, Group, Outcome, Recycle, Restore, Set
from ..hands.changes import name_of, shown
from ..hands.faults import Status, Trouble
from ..hands.kernel import Kernel
from ..hands.looks import chosen, compare, knobs_of, name_for, wanted
from ..hands.places import Control
from ..hands.tally import Tally
from ..places import place_in_kernel
from ..ports import PoolAdapter
from .looks import order_of, outcome, reported, unknown_pool


class Observing:
    """The actuator of observe mode.

    `samples`: the latest sample of each pool; the daemon keeps it up to date. `forbidden`: see `hands.kernel.Kernel`.
    """

    mode = "observe"

    def __init__(
        self,
        kernel: Kernel,
        pools: Mapping[str, PoolAdapter],
        samples: Mapping[str, PoolSample],
        forbidden: Callable[[Control], str],
    ) -> None:
        self._kernel = kernel
        self._forbidden = forbidden
        self._pools = pools
        self._samples = samples

    def apply(self, decisions: Sequence[Decision]) -> tuple[Outcome, ...]:
        """One outcome per decision: OBSERVED, UNCHANGED if there is nothing to change, or why its target could not be read."""
        return tuple(self._look(decision) for decision in decisions)

    def settle(self) -> tuple[Outcome, ...]:
        """Nothing is ever under way."""
        return ()

    def undo(self) -> tuple[Outcome, ...]:
        """Nothing was ever changed."""
        return ()

    def release(self, pools: Collection[str]) -> tuple[Outcome, ...]:  # noqa: ARG002 - the port's
        """Nothing was ever changed."""
        return ()

    def limit(self, starve_seconds: float, floor: float) -> None:
        """Nothing is ever demoted."""

    def relieve(self, groups: Sequence[Group]) -> float | None:  # noqa: ARG002 - the port's
        """Nothing is ever demoted."""
        return None

    def _look(self, decision: Decision) -> Outcome:
        action = decision.action
        if isinstance(action, Set):
            return self._look_at_set(decision, action)
        if isinstance(action, Restore):
            text = f"observe mode changes nothing, so {name_of(action.control, place_in_kernel(action.on))} needs no restore"
            return Outcome(decision.id, Status.UNCHANGED, decision.target, text, 0)
        if isinstance(action, Flag | Digest):
            return Outcome(decision.id, Status.OBSERVED, decision.target, reported(action), 0)
        unknown = unknown_pool(self._pools, decision, action.pool)
        if unknown is not None:
            return unknown
        if isinstance(action, Recycle):
            text = f"would drain pid {action.worker.pid} of pool {action.pool} and start another"
            return Outcome(decision.id, Status.OBSERVED, decision.target, text, 0)
        sample = self._samples.get(action.pool)
        asked = "?" if sample is None else sample.requested
        if asked == action.size:
            return Outcome(decision.id, Status.UNCHANGED, decision.target, f"pool {action.pool} is already asked for {asked}", 0)
        text = f"would ask pool {action.pool} for {action.size} workers, {asked} now"
        return Outcome(decision.id, Status.OBSERVED, decision.target, text, 0)

    def _look_at_set(self, decision: Decision, action: Set) -> Outcome:
        order = order_of(decision, action)
        tally, would, aim = Tally(), Tally(), wanted(order)
        knobs = knobs_of(self._kernel, order)
        what = name_for(order, knobs)
        for knob in () if isinstance(knobs, Trouble) else knobs:
            found = compare(self._kernel, order, knob)
            if isinstance(found, Trouble):
                tally.trouble(found)
            elif found.chosen:
                tally.foreign.append(chosen(action.control, found.now))
            elif found.so:
                tally.same += 1
            else:
                would.step(found.now, aim)
        if isinstance(knobs, Trouble):
            tally.trouble(knobs)
        if tally.foreign or not would.changed:
            return outcome(tally.done(decision.id, decision.target, what))
        forbidden = self._forbidden(action.control)
        steps = ", ".join(f"{shown(before)} -> {shown(after)}" for before, after in would.steps)
        text = f"would change {what}: {steps}" + (f"; in act mode it would be refused: {forbidden}" if forbidden else "")
        return Outcome(decision.id, Status.OBSERVED, decision.target, text, 0)
