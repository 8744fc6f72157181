"""Puts back all kernel values that are open in a ledger. Knows the ledger and how values are restored.

Must not know decisions or pools. `docs/decisions/0003-ledger-and-undo.md` has the rules.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from contextlib import closing

from ...models.lean import NamedTuple
from .book import Book
from .changes import name_of, newest
from .clock import SystemClock
from .faults import Status
from .heirs import Heirs
from .knobs.control import LinuxKernel
from .ledger import NAME, Ledger
from .places import PoolPlace, Subject
from .restoring import PATIENCE_NS, Restorer
from .tally import Done, Note

TRIES, AGAIN = 3, 0.5
"""How often to undo for a process that has died if not all could be put back, and the seconds between (chosen)."""

_ENDED = (Status.APPLIED, Status.UNCHANGED, Status.VANISHED)


class Undone(NamedTuple):
    """What an undo did."""

    notes: tuple[Note, ...]  # about the ledger
    done: tuple[Done, ...]
    pools: tuple[str, ...]  # names of pools with a size of ours: their adapters put it back


def undo_values(ledger: Ledger, restorer: Restorer, kept: Collection[Subject] = ()) -> tuple[Done, ...]:
    """Restore all kernel values that are open in the ledger except `kept`, newest first. What could not be restored stays open:
    call again to retry."""
    subjects = [subject for subject in ledger.subjects() if subject not in kept and not isinstance(subject.on, PoolPlace)]
    entries = {subject: newest(ledger.chains(subject)) for subject in subjects}
    return tuple(
        tally.done(entry.decision, entry.target, name_of(entry.control, entry.knob.on))
        for subject, tally in restorer.put_back(subjects, PATIENCE_NS).items()
        for entry in (entries[subject],)
    )


def pools_of(book: Book) -> tuple[str, ...]:
    """Names of the pools with a size of ours."""
    return tuple(sorted({entry.knob.on.name for entry in book.outstanding() if isinstance(entry.knob.on, PoolPlace)}))


def needs_no_more(done: Sequence[Done]) -> bool:
    """Whether another try would change nothing."""
    return all(each.status in (*_ENDED, Status.FOREIGN) for each in done)


def in_words(who: str, done: Sequence[Done]) -> str:
    """What was put back, in a sentence. `who`: put it back."""
    left = [each for each in done if each.status not in _ENDED]
    text = f"{who} put {sum(each.changed for each in done)} values back"
    return f"{text}, and left {len(left)}: " + "; ".join(each.detail for each in left[:3]) if left else text


def undo_directory(state_dir: str, proc_root: str = "/proc") -> Undone:
    """Restore all kernel values that the ledger in this directory has open. The caller must hold its lock.

    Raises LedgerError as `Ledger` does, and OSError if the boot id cannot be read; nothing is changed then.
    """
    kernel = LinuxKernel(proc_root)
    with closing(Ledger(os.path.join(state_dir, NAME), kernel.boot_id())) as ledger:
        restorer = Restorer(ledger, kernel, SystemClock(), Heirs(ledger, kernel))
        done = undo_values(ledger, restorer)
        return Undone(ledger.notes, done, pools_of(ledger))
