"""The actuator that acts: each decision goes to the hands (`orders.py`) or to a pool (`pool_sizes.py`), and has an outcome.

Knows the hands, the kernel, the locks, the pools and the clock only as ports. Must not know policies, configuration or the decision
log. `docs/decisions/0003-ledger-and-undo.md` has the rules: what is durable when, what is restored, and what was inherited.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from ...models.records import PoolSample
from ..decision import Decision, Digest, Flag, Group, Outcome, Recycle, ResizePool, Restore, Set
from ..hands.faults import Status
from ..hands.kernel import Clock, Kernel
from ..hands.places import AutogroupPlace, Cgroup, Control, PoolPlace, Subject
from ..places import place_in_kernel
from ..ports import Hands, Locks, PoolAdapter
from .looks import ProgramOf, outcome, reported, unknown_pool, unknown_program
from .orders import Orders
from .pool_sizes import PoolSizes
from .pools_back import PoolsBack
from .relieving import Relieving
from .undo import undo


class Acting:
    """The actuator that acts. `hands`: with an open ledger. `samples`: the latest sample of each pool; the daemon keeps it up
    to date."""

    mode = "act"

    def __init__(
        self,
        hands: Hands,
        kernel: Kernel,
        locks: Locks,
        pools: Mapping[str, PoolAdapter],
        samples: Mapping[str, PoolSample],
        clock: Clock,
        program_of: ProgramOf = unknown_program,
    ) -> None:
        self._hands = hands
        self._kernel = kernel
        self._pools = pools
        self._sizes = PoolSizes(hands, kernel, pools, samples)
        self._pools_back = PoolsBack(hands, kernel, pools, clock, self._sizes.requested)
        self._relieving = Relieving(hands, kernel, locks, clock)
        self._orders = Orders(hands, kernel, locks, self._relieving, program_of)

    def apply(self, decisions: Sequence[Decision]) -> tuple[Outcome, ...]:
        """One outcome per decision, in order. The hands are asked once for all that they are to change."""
        self._relieving.changed()
        orders = [(it, it.action) for it in decisions if isinstance(it.action, Set | Restore)]
        done = iter(self._orders.carry_out(orders))
        outcomes = tuple(next(done) if isinstance(it.action, Set | Restore) else self._apply(it, it.action) for it in decisions)
        self._relieving.decided()
        return outcomes

    def settle(self) -> tuple[Outcome, ...]:
        """Reliefs since the last call, pools that have reached their size or failed, and values that somebody else was found to
        have changed."""
        return (*self._relieving.reported(), *self._sizes.arrived(), *map(outcome, self._hands.sweep()))

    def undo(self) -> tuple[Outcome, ...]:
        """Restore everything that is in force, newest first; one outcome for each thing that was changed.

        Waits for pools. What could not be restored stays open: call again to retry.
        """
        self._sizes.forget_all()
        self._relieving.changed()
        self._relieving.decided()
        return (*self._relieving.reported(), *undo(self._hands, self._pools_back))

    def keep(self, held: Iterable[Restore | ResizePool]) -> tuple[Outcome, ...]:
        """Restore everything except `held`: what its Restores name, and the sizes of its pools. Waits as `undo` does; one outcome
        for each thing that was restored."""
        kept = {subject for action in held for subject in self._subjects(action)}
        for subject in self._hands.book.subjects():
            if isinstance(subject.on, PoolPlace) and subject not in kept:
                self._sizes.forget(subject.on.name)
        self._relieving.changed()
        return (*self._relieving.reported(), *undo(self._hands, self._pools_back, kept))

    def release(self, pools: Collection[str]) -> tuple[Outcome, ...]:
        """See `ports.Actuator`. Waits for the pools as `undo` does; one outcome for each pool whose size was changed."""
        for name in pools:
            self._sizes.forget(name)
        outcomes = self._pools_back.put_back(pools)
        for name in pools:
            self._sizes.release(name)
        return outcomes

    def limit(self, starve_seconds: float, floor: float) -> None:
        """See `ports.Actuator`."""
        self._relieving.limit(starve_seconds, floor)

    def relieve(self, groups: Sequence[Group]) -> float | None:
        """See `ports.Actuator`. A session or cgroup is restored as a whole, a process with all its threads and heirs."""
        return self._relieving.relieve(groups)

    def _apply(self, decision: Decision, action: object) -> Outcome:
        """Carry out a decision that is not about a value in the kernel."""
        match action:
            case Flag() | Digest():
                return Outcome(decision.id, Status.APPLIED, decision.target, reported(action), 0)
            case ResizePool(pool=name) | Recycle(pool=name):
                unknown = unknown_pool(self._pools, decision, name)
                if unknown is not None:
                    return unknown
                if isinstance(action, Recycle):
                    return self._sizes.recycle(decision, action)
                return self._sizes.resize(decision, action)
            case _:
                raise TypeError(f"{action!r} is no action")

    def _subjects(self, action: Restore | ResizePool) -> list[Subject]:
        """What is in force of this."""
        mine = self._hands.book.subjects()
        if isinstance(action, ResizePool):
            return [it for it in mine if isinstance(it.on, PoolPlace) and it.on.name == action.pool]
        on = place_in_kernel(action.on)
        if isinstance(on, Cgroup):
            return [Subject(action.control, on)]
        if action.control is Control.AUTOGROUP:
            name = self._kernel.autogroup(on)
            if isinstance(name, str):
                return [Subject(action.control, AutogroupPlace(name, on))]
        elif action.control is not Control.FENCE:
            return [Subject(action.control, on)]
        return [it.subject for it in self._hands.book.outstanding() if it.control is action.control and it.process == on]
