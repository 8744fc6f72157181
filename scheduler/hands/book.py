"""What is open, in memory: changes by value and by subject, and values that somebody else has changed.

The ledger keeps one and writes it to disk; a brain beside the hands keeps a copy, fed by the ledger's records. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .changes import OPEN, Chain, Entry, EntryStatus, original, subject_of
from .lines import entry_of, entry_record, knob_of, knob_record
from .places import Knob, Subject, Value


class Book:
    """The open changes."""

    def __init__(self) -> None:
        self._subjects: dict[Subject, dict[Knob, Chain]] = {}
        self._entries: dict[int, Entry] = {}  # the open ones
        self._foreign: set[Knob] = set()

    @property
    def held(self) -> int:
        """Number of open changes, and of values that somebody else has changed."""
        return len(self._entries) + len(self._foreign)

    def outstanding(self) -> tuple[Entry, ...]:
        """All open entries, oldest first."""
        return tuple(self._entries[number] for number in sorted(self._entries))

    def subjects(self) -> tuple[Subject, ...]:
        """Subjects that have open entries; the one with the newest entry first."""
        newest = {subject: max(chain[-1].id for chain in chains.values()) for subject, chains in self._subjects.items()}
        return tuple(sorted(newest, key=newest.__getitem__, reverse=True))

    def chains(self, subject: Subject) -> Mapping[Knob, Chain]:
        """The open entries of a subject, by knob."""
        return dict(self._subjects.get(subject, {}))

    def chain(self, knob: Knob) -> Chain | None:
        """The open entries of a knob; None if it is not changed."""
        return self._subjects.get(subject_of(knob), {}).get(knob)

    def original(self, knob: Knob) -> Value | None:
        """The value before our first change; None if it is not changed."""
        chain = self.chain(knob)
        return None if chain is None else original(chain)

    def is_foreign(self, knob: Knob) -> bool:
        """Whether somebody else changed this knob after us, in this boot."""
        return knob in self._foreign

    def records(self) -> list[object]:
        """All that it has, as records for `follow`."""
        foreign = [["foreign", *knob_record(knob)] for knob in self._foreign]
        return [*foreign, *map(entry_record, self.outstanding())]

    def follow(self, records: Iterable[object]) -> None:
        """Take over records of another book, in order: those of the ledger (`lines.py`), and "foreign" with a knob. Raises
        ValueError for anything else."""
        for record in records:
            match record:
                case ["entry", *fields] if (entry := entry_of(fields)) is not None:
                    self._remember(entry)
                case ["is", int() as number, str() as status]:
                    self._become(number, EntryStatus(status))
                case ["drop", int() as number]:
                    self._forget(number)
                case ["foreign", *fields] if len(fields) == 6:
                    self._foreign.add(knob_of(fields))
                case _:
                    raise ValueError("no record of a ledger")

    def _become(self, number: int, status: EntryStatus) -> Entry | None:
        """Note what became of an entry; returns it, None if it is not open."""
        entry = self._entries.get(number)
        if entry is None:
            return None
        entry = entry._replace(status=status)
        self._forget(number)
        if status in OPEN:
            self._remember(entry)
        elif status is EntryStatus.FOREIGN:
            self._foreign.add(entry.knob)
        return entry

    def _remember(self, entry: Entry) -> None:
        chains = self._subjects.setdefault(entry.subject, {})
        here = entry.knob
        rest = tuple(other for other in chains.get(here, ()) if other.id != entry.id)
        chains[here] = tuple(sorted((*rest, entry), key=lambda each: each.id))
        self._entries[entry.id] = entry
        self._foreign.discard(here)

    def _forget(self, number: int) -> None:
        entry = self._entries.pop(number, None)
        if entry is None:
            return
        chains = self._subjects[entry.subject]
        here = entry.knob
        rest = tuple(other for other in chains[here] if other.id != number)
        if rest:
            chains[here] = rest
            return
        del chains[here]
        if not chains:
            del self._subjects[entry.subject]
