"""Closes changes that are no longer ours to undo: somebody else changed the value, or its thread has ended.

Knows the ledger, the kernel and the heirs. Must not know decisions.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...models.identity import ProcId
from .changes import Chain, Entry, EntryStatus, ids_of, original, subject_of
from .faults import Trouble
from .heirs import Family, Heir, Heirs, Leader
from .kernel import Kernel, Kin
from .ledger import Ledger, LedgerError
from .places import Knob, Subject, Value, leads
from .restoring import Restorer
from .tally import Tally


class Closing:
    """Closes entries. Threads that inherited from them get their own entries first."""

    def __init__(self, ledger: Ledger, kernel: Kernel, heirs: Heirs, restorer: Restorer) -> None:
        self._ledger = ledger
        self._kernel = kernel
        self._heirs = heirs
        self._restorer = restorer

    def give_way(self, foreign: Mapping[Knob, Chain], subject: Subject | None = None) -> Tally | None:
        """Close these entries as FOREIGN, and restore our changes to the other threads of the process. Returns the result of that;
        None if the subject is not a process."""
        self.close(foreign, EntryStatus.FOREIGN)
        subject = subject or subject_of(next(iter(foreign)))
        return self._restorer.put_back([subject])[subject] if isinstance(subject.on, ProcId) else None

    def close(self, chains: Mapping[Knob, Chain], status: EntryStatus) -> None:
        """Close the entries of knobs that are no longer ours to restore. Threads that inherited from them first get their own
        entries: nothing is changed now, and undo will find them. If not all of them can be examined or recorded, the entries stay
        open and are examined again."""
        if not chains:
            return
        adopted: list[Entry] = []
        leaders = [Leader(process, chain) for knob, chain in chains.items() if (process := leads(knob)) is not None]
        if leaders:
            scan = self._kernel.kin()
            if scan.unread is not None:
                return
            family = Family(scan.kin)
            for leader in leaders:
                heirs = self._heirs.of(leader, family)
                if isinstance(heirs, Trouble):
                    return
                adopted += [_adoption(heir, original(leader.chain), family.of(heir.on.process)) for heir in heirs]
        if adopted:
            try:
                self._ledger.intend(adopted)
            except LedgerError:
                return
        self._ledger.settle({number: status for chain in chains.values() for number in ids_of(chain)})


def _adoption(heir: Heir, first: Value, kin: Kin | None) -> Entry:
    """The entry of a thread that inherited. `first`: the value before our first change; `kin`: the thread's process."""
    return heir.entry._replace(
        id=0,
        knob=heir.knob,
        session=None if kin is None else kin.session,
        group=None if kin is None else kin.group,
        original=first,
        old=heir.now,
        status=EntryStatus.DONE,
    )
