"""What the newest tick left for the time until the next one. Pure data: the daemon's loop writes it, other parts read it."""

from __future__ import annotations

from dataclasses import dataclass

from ...models.records import ProcId
from ..decision import Group, Note, Outcome, Tick


@dataclass(slots=True)
class Latest:
    """The newest tick and what came of it."""

    tick: Tick | None = None  # None: there was none yet
    notes: tuple[Note, ...] = ()  # those that hold now
    services: tuple[ProcId, ...] = ()  # processes of services that had work
    outcomes: tuple[Outcome, ...] = ()  # that no tick has reported yet
    ticks: int = 0  # so far
    missed: int = 0  # ticks that could not be on time

    @property
    def groups(self) -> tuple[Group, ...]:
        """Groups of the newest tick."""
        return self.tick.groups if self.tick is not None else ()
