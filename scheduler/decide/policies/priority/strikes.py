"""How often each mechanism failed for a group, and which ones are dropped because of it. Pure."""

from __future__ import annotations

import msgspec

from ....hands.places import Control
from ..policy import Memory

STRIKES = 2
"""A mechanism is dropped for a group after it had no effect this many times (chosen: a single measurement may be chance)."""

DROPPED_SECONDS = 600.0
"""Seconds until a dropped mechanism is tried again (chosen): what separates groups may change."""


class Strike(Memory):
    """How often a mechanism failed for a group."""

    count: int
    at: int  # ns, the last time


class Strikes(Memory):
    """The strikes by mechanism and group."""

    strikes: dict[str, Strike] = msgspec.field(default_factory=dict)

    def strike(self, control: Control, group: str, at: int, apart: float, times: int = 1) -> None:
        """Counts one strike, or `times` at once. Strikes less than `apart` seconds apart count as one, because the processes of a
        group fail together."""
        name = _name(control, group)
        before = self.strikes.get(name)
        if before is None or before.count < times:
            self.strikes[name] = Strike(times, at)
        elif at - before.at >= apart * 1e9:
            self.strikes[name] = Strike(before.count + 1, at)

    def dropped(self, control: Control, group: str) -> bool:
        """Whether the mechanism is not used for the group."""
        strike = self.strikes.get(_name(control, group))
        return strike is not None and strike.count >= STRIKES

    def all_dropped(self, group: str) -> set[Control]:
        """The mechanisms that are not used for the group."""
        return {control for control in Control if self.dropped(control, group)} if self.strikes else set()

    def forget(self, at: int) -> None:
        """Drops strikes older than DROPPED_SECONDS."""
        self.strikes = {name: strike for name, strike in self.strikes.items() if at - strike.at <= DROPPED_SECONDS * 1e9}


def _name(control: Control, group: str) -> str:
    return f"{control} {group}"
