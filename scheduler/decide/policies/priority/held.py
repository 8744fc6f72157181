"""Changes of the priority policy: demotions, and short slices of protected processes; desired or in force. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from ....decision import DECIDED, Member, Restore
from ....hands.fences import Limits
from ....hands.places import Control, check_place
from ....places import DecisionPlace, ProcessPlace, SessionPlace
from ..policy import Memory, knob_on


class Held(Memory):
    """A change: a demotion, or the short slice of a protected process. Raises ValueError as `decision.Set` does."""

    control: Control
    on: DecisionPlace
    value: int | tuple[int, ...]  # for FENCE `fences.Limits`
    group: str
    target: str
    victim: str  # the group it protects
    observed: list[str] = msgspec.field(default_factory=list)  # victims for which it was only observed, not written
    party: str = ""  # of the group, see `tenants.Tenants.party`; "" for a slice
    inside: bool = False  # FENCE: the process was in a fence already, and has none of its own

    def __post_init__(self) -> None:
        check_place(self.control, self.on, DECIDED[self.control])

    @property
    def key(self) -> str:
        """What is changed: the same for each change of it."""
        if isinstance(self.on, SessionPlace):
            return f"{self.control} {self.on.session}"
        return self.knob

    @property
    def knob(self) -> str:
        """As the guard names it, see `policy.knob`."""
        return knob_on(self.control, self.on, self.target)

    @property
    def undo(self) -> Restore:
        """What restores it."""
        return Restore(self.control, self.on)

    @property
    def strength(self) -> int:
        """The value as one number; for a fence its weight."""
        return self.value if isinstance(self.value, int) else Limits(*self.value).weight

    def differs(self, change: Held) -> bool:
        """Whether a desired change differs from this one, in force: in its value, or in a victim for which it was not even
        observed."""
        return self.value != change.value or (bool(self.observed) and change.victim not in self.observed)

    @property
    def order(self) -> tuple[int, int]:
        """Sessions, cgroups and swarms first, because one such change does most; then processes by age; short slices last."""
        if not isinstance(self.on, ProcessPlace) or self.control is Control.FENCE:
            return 0, 0
        return 1 + (self.control is Control.SLICE), self.on.id.start_ticks


def demotions(held: Mapping[str, Held]) -> Iterator[Held]:
    """The demotions among these changes: all that are not slices."""
    return (each for each in held.values() if each.control is not Control.SLICE)


def key_of(control: Control, member: Member) -> str:
    """Key of a change of one process."""
    return f"{control} {member.id.pid}.{member.id.start_ticks}"
