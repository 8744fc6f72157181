"""Closes changes that are not ours to undo any more: somebody else changed the value, or its thread has ended.

Knows the ledger, the kernel and who inherited. Must not know decisions.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..changes import INHERITED, Chain, Entry, EntryStatus, Subject, ids_of, leads, original, subject_of
from ..ports import Kernel, Kin, Knob, Trouble, Value
from ..store.ledger import Ledger, LedgerError
from .heirs import Family, Heirs
from .restoring import Restorer
from .tally import Tally


class Closing:
    """Closes entries, after what was inherited from them has entries of its own."""

    def __init__(self, ledger: Ledger, kernel: Kernel, heirs: Heirs, restorer: Restorer) -> None:
        self._ledger = ledger
        self._kernel = kernel
        self._heirs = heirs
        self._restorer = restorer

    def give_way(self, foreign: Mapping[Knob, Chain], subject: Subject | None = None) -> Tally | None:
        """Close these as somebody else's, and restore what we changed of the other threads of the process."""
        self.close(foreign, EntryStatus.FOREIGN)
        subject = subject or subject_of(next(iter(foreign)))
        return self._restorer.put_back([subject])[subject] if subject.control in INHERITED else None

    def close(self, chains: Mapping[Knob, Chain], status: EntryStatus) -> None:
        """Close the entries of knobs that are no longer ours to restore. Threads that inherited from them first get their own
        entries: nothing is changed now, and undo will find them. If not all of them can be examined or recorded, the entries stay
        open and are examined again."""
        if not chains:
            return
        adopted: list[Entry] = []
        if any(leads(knob) for knob in chains):
            scan = self._kernel.kin()
            if scan.unread is not None:
                return
            family = Family(scan.kin)
            for knob, chain in chains.items():
                heirs = self._heirs.of(subject_of(knob), chain, family) if leads(knob) else []
                if isinstance(heirs, Trouble):
                    return
                for heir, now, entry in heirs:
                    adopted.append(_adoption(entry, heir, now, original(chain), family.of(heir.process)))
        if adopted:
            try:
                self._ledger.intend(adopted)
            except LedgerError:
                return
        self._ledger.settle({number: status for chain in chains.values() for number in ids_of(chain)})


def _adoption(entry: Entry, heir: Knob, now: Value, first: Value, kin: Kin | None) -> Entry:
    """An entry for a thread that inherited the value of `entry`."""
    return Entry(
        id=0,
        boot_id=entry.boot_id,
        decision=entry.decision,
        target=entry.target,
        wall=entry.wall,
        control=entry.control,
        process=heir.process,
        thread=heir.thread,
        key="",
        session=None if kin is None else kin.session,
        group=None if kin is None else kin.group,
        since=entry.since,
        original=first,
        old=now,
        new=entry.new,
        status=EntryStatus.DONE,
    )
