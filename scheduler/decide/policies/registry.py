"""All policies, and what each remembers: the only list of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from ...config.sections import Config
from ...decision import Topology
from .placement.placement import Placement, PlacementMemory
from .policy import Memory, Policy
from .pool_size.pool_size import PoolSize, PoolSizeMemory
from .priority.memory import PriorityMemory
from .priority.pairs import Pause, pairs_of
from .priority.priority import Priority
from .quarantine.quarantine import Quarantine, QuarantineMemory


class Memories(Memory):
    """What the policies remember, a field for each."""

    pool_size: PoolSizeMemory = msgspec.field(default_factory=PoolSizeMemory)
    priority: PriorityMemory = msgspec.field(default_factory=PriorityMemory)
    placement: PlacementMemory = msgspec.field(default_factory=PlacementMemory)
    quarantine: QuarantineMemory = msgspec.field(default_factory=QuarantineMemory)

    @classmethod
    def of(cls, pauses: Iterable[Pause]) -> Memories:
        """The memories of a new run that knows only these pauses of an earlier run."""
        return cls(priority=PriorityMemory(pairs=pairs_of(pauses)))

    @property
    def pauses(self) -> Mapping[str, Pause]:
        """The groups that are not demoted for certain victims for a while, to be kept for the next run. Read only."""
        return self.priority.pairs.pauses


def policies(config: Config, memories: Memories, topology: Topology) -> tuple[Policy[Any], ...]:
    """A policy of each kind, in the order in which they share the budget of changes."""
    return (
        Quarantine(config, memories.quarantine),
        PoolSize(config, memories.pool_size),
        Priority(config, memories.priority),
        Placement(config, memories.placement, topology),
    )
