"""Chooses the changes of a tick if more are desired than a tick allows: each gets its turn. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ..policy import Memory
from .held import Held


class Turns(Memory):
    """Which desired changes had their turn, and which wait."""

    tried: list[str] = msgspec.field(default_factory=list)  # keys that had their turn, while there are more than may change
    waiting: list[str] = msgspec.field(default_factory=list)  # knobs of the changes that were left for a later tick

    def take(self, held: Mapping[str, Held], desired: Mapping[str, Held], most: int) -> dict[str, Held]:
        """The desired changes that differ from what is held and have their turn now, by key: sessions and cgroups first, then the
        oldest processes. A refused one is proposed again after all others had their turn."""
        fresh = [key for key, change in desired.items() if key not in held or held[key].differs(change)]
        fresh.sort(key=lambda key: (desired[key].order, key))
        self.waiting = []
        if len(fresh) <= most:
            self.tried = []
            return {key: desired[key] for key in fresh}
        tried = set(self.tried)
        ordered = sorted(fresh, key=lambda key: key in tried)
        turn = set(ordered[:most])
        over = not tried.isdisjoint(turn)  # all had their turn: a new round begins
        self.tried = [key for key in fresh if key in turn or (not over and key in tried)]
        self.waiting = [desired[key].knob for key in ordered[most:]]
        return {key: desired[key] for key in fresh if key in turn}

    def admitted(self, key: str) -> None:
        """The change with this key was admitted."""
        if key in self.tried:
            self.tried.remove(key)
