"""The pools in use: the adapter and the newest sample of each. Knows pools as a port only."""

from __future__ import annotations

from ...models.records import PoolSample
from ..ports import PoolAdapter


class Readings:
    """What was read of each pool, beside the adapter that read it.

    `adapters` and `samples` are shared with the actuator. Each `read` puts a new sample object in place of the one before: a sample
    that was there when the actuator made a request is therefore older than that request.
    """

    def __init__(self, adapters: dict[str, PoolAdapter]) -> None:
        self.adapters = adapters
        self.samples: dict[str, PoolSample] = {}

    def read(self) -> tuple[PoolSample, ...]:
        """Read all pools. If one fails, those before it by name have been read."""
        self.samples.update((name, adapter.read()) for name, adapter in sorted(self.adapters.items()))
        return tuple(self.samples.values())

    def drop(self, name: str) -> None:
        """Close the adapter of a pool and forget what it read."""
        self.adapters.pop(name).close()
        self.samples.pop(name, None)
