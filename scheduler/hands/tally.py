"""Counts the results of one decision, or of one subject that is put back, and sums them up in one sentence. Pure."""

from __future__ import annotations

from ...models.lean import NamedTuple
from .changes import shown
from .faults import Status, Trouble
from .places import Value


class Note(NamedTuple):
    """A message for the caller that opened the ledger."""

    text: str
    lost: bool  # whether changes may remain that can no longer be undone


class Done(NamedTuple):
    """What became of something that was asked of the hands, or that they undid."""

    decision: str  # its id; "": none
    target: str  # of the decision, for people
    status: Status
    detail: str  # for people
    changed: int  # number of values


class Tally:
    """The results of one decision, or of one subject of an undo: numbers of values, and what there is to say about them."""

    __slots__ = ("changed", "foreign", "gone", "notes", "same", "steps", "troubles")

    def __init__(self) -> None:
        self.changed = self.same = self.gone = 0
        self.steps: list[tuple[Value, Value]] = []  # each (from, to) once
        self.foreign: list[str] = []
        self.troubles: list[Trouble] = []
        self.notes: list[str] = []

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

    def detail(self, what: str) -> str:
        """All results as a sentence about `what`."""
        parts = [f"{shown(before)} -> {shown(after)}" for before, after in self.steps]
        if self.changed:
            parts[0] = f"{what}: {parts[0]}"
        parts += [f"left: {text}" for text in dict.fromkeys(self.foreign)]
        parts += dict.fromkeys(trouble.text for trouble in self.troubles)
        if self.gone:
            parts.append(f"{what}: gone" if not parts else f"{self.gone} ended meanwhile")
        parts += self.notes
        return "; ".join(parts) or (f"{what} needs no change" if self.same else f"{what}: there is no change of ours to put back")

    def done(self, decision: str, target: str, what: str) -> Done:
        """All results as what became of a decision. `what`: what it changed, for people."""
        return Done(decision, target, self.status(), self.detail(what), self.changed)
