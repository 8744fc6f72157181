"""Counts the results of one decision, or of one subject that is put back, and sums them up in one sentence. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..changes import shown
from ..decision import Outcome, Status
from ..ports import Trouble, Value


@dataclass(slots=True)
class Tally:
    """The results of one decision, or of one subject of an undo: numbers of values, and what there is to say about them."""

    changed: int = 0
    same: int = 0
    gone: int = 0
    steps: list[tuple[Value, Value]] = field(default_factory=list)  # each (from, to) once
    foreign: list[str] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def step(self, before: Value, after: Value) -> None:
        """Record that one value was changed."""
        self.changed += 1
        if (before, after) not in self.steps:
            self.steps.append((before, after))

    def trouble(self, trouble: Trouble) -> None:
        """Record why one value was not changed."""
        if trouble.status is Status.VANISHED:
            self.gone += 1
        elif trouble.status is Status.FOREIGN:
            self.foreign.append(trouble.text)
        else:
            self.troubles.append(trouble)

    def status(self) -> Status:
        """All results as one status. A value that somebody else changed outweighs the rest, because it makes the target
        hands-off."""
        if self.foreign:
            return Status.FOREIGN
        if self.troubles:
            return Status.PARTIAL if self.changed or self.same else self.troubles[0].status
        if self.changed:
            return Status.APPLIED
        return Status.VANISHED if self.gone and not self.same else Status.UNCHANGED

    def outcome(self, decision: str, target: str, what: str) -> Outcome:
        """All results as a sentence about `what`."""
        parts = [f"{shown(before)} -> {shown(after)}" for before, after in self.steps]
        if self.changed:
            parts[0] = f"{what}: {parts[0]}"
        parts += [f"left: {text}" for text in dict.fromkeys(self.foreign)]
        parts += dict.fromkeys(trouble.text for trouble in self.troubles)
        if self.gone:
            parts.append(f"{what}: gone" if not parts else f"{self.gone} ended meanwhile")
        parts += self.notes
        text = f"{what} needs no change" if self.same else f"{what}: there is no change of ours to put back"
        return Outcome(decision, self.status(), target, "; ".join(parts) or text, self.changed)
