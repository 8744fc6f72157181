"""Puts back all kernel values that are open in a ledger. Knows the ledger and how values are restored.

Must not know decisions or pools. `docs/decisions/0003-ledger-and-undo.md` has the rules.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import closing

from ...models.lean import NamedTuple
from .changes import Entry, name_of, newest
from .clock import SystemClock
from .heirs import Heirs
from .knobs.control import LinuxKernel
from .ledger import NAME, Ledger
from .places import PoolPlace, Subject
from .restoring import PATIENCE_NS, Restorer
from .tally import Note, Tally


class Restored(NamedTuple):
    """One thing that was to be put back."""

    entry: Entry  # our newest change of it
    tally: Tally

    @property
    def what(self) -> str:
        """What it is, for people."""
        return name_of(self.entry.control, self.entry.knob.on)


class Undone(NamedTuple):
    """What an undo did."""

    notes: tuple[Note, ...]  # about the ledger
    restored: list[Restored]
    pools: tuple[str, ...]  # names of pools with a size of ours: their adapters put it back


def undo_values(ledger: Ledger, restorer: Restorer, kept: Collection[Subject] = ()) -> list[Restored]:
    """Restore all kernel values that are open in the ledger except `kept`, newest first. What could not be restored stays open:
    call again to retry."""
    subjects = [subject for subject in ledger.subjects() if subject not in kept and not isinstance(subject.on, PoolPlace)]
    entries = {subject: newest(ledger.chains(subject)) for subject in subjects}
    return [Restored(entries[subject], tally) for subject, tally in restorer.put_back(subjects, PATIENCE_NS).items()]


def undo_directory(state_dir: str, proc_root: str = "/proc") -> Undone:
    """Restore all kernel values that the ledger in this directory has open. The caller must hold its lock.

    Raises LedgerError as `Ledger` does, and OSError if the boot id cannot be read; nothing is changed then.
    """
    kernel = LinuxKernel(proc_root)
    with closing(Ledger(os.path.join(state_dir, NAME), kernel.boot_id())) as ledger:
        restorer = Restorer(ledger, kernel, SystemClock(), Heirs(ledger, kernel))
        restored = undo_values(ledger, restorer)
        pools = {entry.knob.on.name for entry in ledger.outstanding() if isinstance(entry.knob.on, PoolPlace)}
        return Undone(ledger.notes, restored, tuple(sorted(pools)))
