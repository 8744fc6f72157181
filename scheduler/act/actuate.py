"""The actuator that acts: each decision is planned (`plans.py`), carried out (`carrying.py`) and reported as an outcome.

The ledger records every change before it is made. Knows the kernel, the locks, the pools and the clock only as ports. Must not know
policies, configuration or the decision log. `docs/decisions/0003-ledger-and-undo.md` has the rules: what is durable when, what is
restored, and what was inherited.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from ...models.records import PoolSample
from ..decision import Decision, Group, Outcome, ResizePool, Restore
from ..hands.closing import Closing
from ..hands.faults import Status
from ..hands.heirs import Heirs
from ..hands.kernel import Clock, Kernel
from ..hands.ledger import Ledger
from ..hands.places import PoolPlace, Subject
from ..hands.restoring import Restorer
from ..hands.sweep import Sweep
from ..ports import Locks, PoolAdapter
from .carrying import Carrier
from .plans import ActionPlan, Planner
from .pool_sizes import PoolSizes
from .pools_back import PoolsBack
from .relieving import Relieving
from .undo import undo


class Acting:
    """The actuator that acts. `samples`: the latest sample of each pool; the daemon keeps it up to date."""

    mode = "act"

    def __init__(
        self,
        ledger: Ledger,
        kernel: Kernel,
        locks: Locks,
        pools: Mapping[str, PoolAdapter],
        samples: Mapping[str, PoolSample],
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        heirs = Heirs(ledger, kernel)
        self._restorer = Restorer(ledger, kernel, clock, heirs)
        self._sizes = PoolSizes(pools, samples)
        self._pools_back = PoolsBack(ledger, kernel, pools, clock, self._sizes.requested)
        self._relieving = Relieving(ledger, kernel, locks, clock, self._restorer)
        self._planner = Planner(ledger, kernel, locks, pools, self._sizes, heirs, self._relieving)
        closing = Closing(ledger, kernel, heirs, self._restorer)
        self._carrier = Carrier(ledger, kernel, clock, self._planner, self._sizes, self._restorer, closing)
        self._sweep = Sweep(ledger, kernel, closing)

    def apply(self, decisions: Sequence[Decision]) -> tuple[Outcome, ...]:
        """One outcome per decision, in order. All intents of the call go to the ledger in one write. But if two decisions have the
        same subject, the second is planned after the first is carried out."""
        self._relieving.changed()
        outcomes: list[Outcome] = []
        while len(outcomes) < len(decisions):
            plans: list[ActionPlan] = []
            taken: set[Subject] = set()
            for decision in decisions[len(outcomes) :]:
                plan = self._planner.plan(decision)
                if plan.subject in taken:
                    break
                if plan.subject is not None:
                    taken.add(plan.subject)
                plans.append(plan)
            self._carrier.carry_out(plans)
            outcomes.extend(plan.done() for plan in plans)
        self._relieving.decided()
        return tuple(outcomes)

    def settle(self) -> tuple[Outcome, ...]:
        """Reliefs since the last call, pools that have reached their size or failed, and values that somebody else was found to
        have changed."""
        overwritten = [Outcome(e.decision, Status.FOREIGN, e.target, text, 0) for e, text in self._sweep.step()]
        return (*self._relieving.reported(), *self._sizes.arrived(), *overwritten)

    def undo(self) -> tuple[Outcome, ...]:
        """Restore everything open in the ledger, newest first; one outcome for each thing that was changed.

        Waits for pools. What could not be restored stays open: call again to retry.
        """
        self._sizes.forget_all()
        self._sweep.forget()
        self._relieving.changed()
        self._relieving.decided()
        return (*self._relieving.reported(), *undo(self._ledger, self._restorer, self._pools_back))

    def keep(self, held: Iterable[Restore | ResizePool]) -> tuple[Outcome, ...]:
        """Restore everything except `held`: what its Restores name, and the sizes of its pools. Waits as `undo` does; one outcome
        for each thing that was restored."""
        kept = set[Subject]()
        for action in held:
            subject = self._planner.subject(action)
            if isinstance(subject, Subject):
                kept.add(subject)
        for subject in self._ledger.subjects():
            if isinstance(subject.on, PoolPlace) and subject not in kept:
                self._sizes.forget(subject.on.name)
        self._relieving.changed()
        return (*self._relieving.reported(), *undo(self._ledger, self._restorer, self._pools_back, kept))

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
