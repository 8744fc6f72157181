"""The pools in use: the adapter and the newest sample of each. Knows pools only as a port."""

from __future__ import annotations

from ...models.records import PoolSample
from ..ports import PoolAdapter


class Readings:
    """The adapter of each pool, and the sample that it read last.

    `adapters` and `samples` are shared with the actuator. Each `read` replaces the sample objects. So a sample that was there when
    the actuator made a request is older than that request.
    """

    def __init__(self, adapters: dict[str, PoolAdapter]) -> None:
        self.adapters = adapters
        self.samples: dict[str, PoolSample] = {}

    def read(self) -> tuple[PoolSample, ...]:
        """Read all pools, in order of their names. If one fails, those before it have been read."""
        self.samples.update((name, adapter.read()) for name, adapter in sorted(self.adapters.items()))
        return tuple(self.samples.values())

    def drop(self, name: str) -> None:
        """Close the adapter of a pool and forget what it read."""
        self.adapters.pop(name).close()
        self.samples.pop(name, None)
