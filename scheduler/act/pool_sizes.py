"""Requests sizes of pools, and reports how the requests ended. Each request is in the ledger before it is made.

Knows the adapters and their samples, the hands and the kernel. Must not know why a pool is resized.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...models.records import PoolSample
from ..decision import Decision, Outcome, Recycle, ResizePool
from ..hands.changes import EntryStatus, believed, ids_of, original
from ..hands.faults import Status
from ..hands.kernel import Kernel
from ..hands.ledger import LedgerError
from ..hands.places import Control, Knob, PoolPlace, number
from ..ports import Hands, PoolAdapter


class PoolSizes:
    """Pools on their way to a size. `samples`: the latest sample of each pool; the daemon keeps it up to date."""

    def __init__(self, hands: Hands, kernel: Kernel, pools: Mapping[str, PoolAdapter], samples: Mapping[str, PoolSample]) -> None:
        self._hands = hands
        self._kernel = kernel
        self._pools = pools
        self._samples = samples
        self._resizing: dict[str, tuple[Decision, int]] = {}
        self._requests: dict[str, tuple[PoolSample, int]] = {}  # (a sample of a pool, the size requested since then)

    def requested(self, name: str) -> int | None:
        """The size currently requested of the pool, including a request that its latest sample does not show yet. None: the pool
        has not been read yet."""
        sample = self._samples.get(name)
        if sample is None:
            return None
        seen, size = self._requests.get(name, (None, 0))
        return size if seen is sample else sample.requested

    def resize(self, decision: Decision, action: ResizePool) -> Outcome:
        """Record that a pool is resized, and request the size."""
        name, size = action.pool, action.size
        sample, asked = self._samples.get(name), self.requested(name)
        if sample is None or asked is None:
            text = f"pool {name} has not been read yet, so the size that undo must restore is unknown"
            return Outcome(decision.id, Status.FAILED, decision.target, text, 0)
        if asked == size:
            return Outcome(decision.id, Status.UNCHANGED, decision.target, f"size of pool {name} needs no change", 0)
        place = PoolPlace(name, sample.master or self._kernel.itself())
        try:
            entry = self._hands.resize(decision.id, decision.target, place, self._first(place, asked), asked, size)
        except LedgerError as error:
            return Outcome(decision.id, Status.BLOCKED, decision.target, str(error), 0)
        status, text = self._pools[name].resize(size)
        taken = status in (Status.APPLIED, Status.UNCHANGED)
        self._hands.settle({entry: EntryStatus.DONE if taken else EntryStatus.FAILED})
        if status is Status.APPLIED:
            self._resizing[name] = (decision, size)
            self._requests[name] = (sample, size)
        return Outcome(decision.id, status, decision.target, text, int(status is Status.APPLIED))

    def _first(self, pool: PoolPlace, asked: int) -> int:
        """The size before our first change. `asked`: the size that is requested now."""
        chain = self._hands.book.chain(Knob(Control.POOL_SIZE, pool))
        if chain is None:
            return asked
        if chain[-1].process != pool.master:  # the pool was restarted, with its own size
            self._hands.settle(dict.fromkeys(ids_of(chain), EntryStatus.GONE))
            return asked
        if asked not in believed(chain):
            # the adapter decides how long to keep hands off; once it takes requests again, the size set by hand is the original
            self._hands.settle(dict.fromkeys(ids_of(chain), EntryStatus.FOREIGN))
            return asked
        return number(original(chain))

    def recycle(self, decision: Decision, action: Recycle) -> Outcome:
        """Request that one worker is drained and another started in its place."""
        status, text = self._pools[action.pool].recycle(action.worker)
        return Outcome(decision.id, status, decision.target, text, int(status is Status.APPLIED))

    def arrived(self) -> tuple[Outcome, ...]:
        """Outcomes of requests that have come to an end since the last call."""
        outcomes = list[Outcome]()
        for name in sorted(self._resizing):
            decision, size = self._resizing[name]
            sample = self._samples.get(name)
            if sample is None:
                continue
            if sample.trouble:
                status = Status.FAILED if sample.requested == size else Status.FOREIGN
                outcome = Outcome(decision.id, status, decision.target, f"pool {name}: {sample.trouble}", 0)
            elif sample.size == size == sample.requested:
                outcome = Outcome(decision.id, Status.APPLIED, decision.target, f"pool {name} has {size} workers", 0)
            else:
                continue
            outcomes.append(outcome)
            del self._resizing[name]
        return tuple(outcomes)

    def forget(self, name: str) -> None:
        """Stop waiting for this pool."""
        self._resizing.pop(name, None)

    def forget_all(self) -> None:
        """Stop waiting for all pools."""
        self._resizing.clear()

    def release(self, name: str) -> None:
        """The pool is no longer ours: forget what was requested of it."""
        self._requests.pop(name, None)
