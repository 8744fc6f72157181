"""The results of the newest tick, for the time until the next one. Pure data: the daemon's loop writes it, other parts read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...models.identity import ProcId
from ...models.records import Identity
from ..decision import Group, Note, Outcome, Tick


@dataclass(slots=True)
class Latest:
    """The newest tick and its results."""

    tick: Tick | None = None  # None: no tick yet
    notes: tuple[Note, ...] = ()  # the notes that hold now
    services: tuple[ProcId, ...] = ()  # processes of services that had work
    outcomes: tuple[Outcome, ...] = ()  # outcomes that no tick has reported yet
    ticks: int = 0  # ticks so far
    missed: int = 0  # ticks that could not be on time
    identities: Mapping[ProcId, Identity] = field(default_factory=dict)  # of the processes of the newest snapshot

    @property
    def groups(self) -> tuple[Group, ...]:
        """Groups of the newest tick."""
        return self.tick.groups if self.tick is not None else ()

    def program_of(self, process: ProcId) -> str | None:
        """The `comm` of a process of the newest snapshot; None if it is not known letter by letter."""
        identity = self.identities.get(process)
        plain = identity is not None and identity.comm.isascii() and identity.comm.isprintable()
        return identity.comm if identity is not None and plain else None
