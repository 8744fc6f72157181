"""Requests sizes of pools, and reports how the requests ended. Knows the adapters and their samples. Must not know the ledger."""

from __future__ import annotations

from collections.abc import Mapping

from ...models.records import PoolSample
from ..decision import Decision, Outcome, Recycle
from ..hands.faults import Status
from ..ports import PoolAdapter


class PoolSizes:
    """Pools on their way to a size. `samples`: the latest sample of each pool; the daemon keeps it up to date."""

    def __init__(self, pools: Mapping[str, PoolAdapter], samples: Mapping[str, PoolSample]) -> None:
        self._pools = pools
        self._samples = samples
        self._resizing: dict[str, tuple[Decision, int]] = {}
        self._requests: dict[str, tuple[PoolSample, int]] = {}  # (a sample of a pool, the size requested since then)

    def sample(self, name: str) -> PoolSample | None:
        """The latest sample; None: not read yet."""
        return self._samples.get(name)

    def requested(self, name: str) -> int | None:
        """The size currently requested of the pool, including a request that its latest sample does not show yet. None: the pool
        has not been read yet."""
        sample = self._samples.get(name)
        if sample is None:
            return None
        seen, size = self._requests.get(name, (None, 0))
        return size if seen is sample else sample.requested

    def resize(self, decision: Decision, name: str, size: int) -> Outcome:
        """Request a size."""
        status, text = self._pools[name].resize(size)
        if status is Status.APPLIED:
            self._resizing[name] = (decision, size)
            self._requests[name] = (self._samples[name], size)
        return Outcome(decision.id, status, decision.target, text, int(status is Status.APPLIED))

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
