"""The results of the newest tick, for the time until the next one. Pure data: the daemon's loop writes it, other parts read it."""

from __future__ import annotations

from dataclasses import dataclass

from ...models.identity import ProcId
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

    @property
    def groups(self) -> tuple[Group, ...]:
        """Groups of the newest tick."""
        return self.tick.groups if self.tick is not None else ()
