"""Undoes everything that is open in the ledger: when an actuator ends, for `nicety undo`, and at the start of a daemon.

Knows the ledger, and how values and sizes are restored. Must not know decisions or where a change came from.
`docs/decisions/0003-ledger-and-undo.md` has the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from pathlib import Path

from ..changes import Subject, name_of, newest
from ..decision import Outcome, Status
from ..places import PoolPlace
from ..ports import Clock, PoolAdapter
from ..store.ledger import Ledger, StateLock, left_behind
from .heirs import Heirs
from .knobs.control import LinuxKernel
from .pools_back import PATIENCE, PoolsBack
from .restoring import PATIENCE_NS, Restorer


def undo(ledger: Ledger, restorer: Restorer, pools: PoolsBack, kept: Collection[Subject] = ()) -> tuple[Outcome, ...]:
    """Restore everything open in the ledger except `kept`, newest first; one outcome for each thing that was changed.

    Waits for pools as long as `pools` has patience. What could not be restored stays open: call again to retry.
    """
    subjects = [subject for subject in ledger.subjects() if subject not in kept]
    entries = {subject: newest(ledger.chains(subject)) for subject in subjects}
    pooled = {subject.on.name for subject in subjects if isinstance(subject.on, PoolPlace)}
    tallies = restorer.put_back([subject for subject in subjects if not isinstance(subject.on, PoolPlace)], PATIENCE_NS)
    outcomes = [
        tally.outcome(entries[subject].decision, entries[subject].target, name_of(subject.control, entries[subject].knob.on))
        for subject, tally in tallies.items()
    ]
    return (*outcomes, *pools.put_back(pooled))


def undo_from_ledger(
    state_dir: Path,
    clock: Clock,
    *,
    proc_root: Path = Path("/proc"),
    pools: Callable[[tuple[str, ...]], Mapping[str, PoolAdapter]] | None = None,
    lock: StateLock | None = None,
    patience: float = PATIENCE,
) -> tuple[Outcome, ...]:
    """Restore what a dead daemon left changed, from its ledger alone: for `nicety undo`, and at the start of a daemon.

    `pools` makes adapters for those of the named pools that are configured; they are closed afterwards. `lock`: the caller's lock,
    if it holds the state directory already. Raises StateBusyError while a daemon runs there, and LedgerError for a ledger of
    another version or one that somebody else could have written. Nothing is changed then.
    """
    if not left_behind(state_dir):
        return ()
    held = StateLock(state_dir) if lock is None else lock
    adapters: Mapping[str, PoolAdapter] = {}
    try:
        kernel = LinuxKernel(proc_root)
        with closing(Ledger(state_dir / "ledger.db", kernel.boot_id())) as ledger:
            notes = [Outcome("", Status.FAILED if note.lost else Status.UNCHANGED, "ledger", note.text, 0) for note in ledger.notes]
            names = tuple(sorted({it.knob.on.name for it in ledger.outstanding() if isinstance(it.knob.on, PoolPlace)}))
            if pools is not None and names:
                adapters = pools(names)
            restorer = Restorer(ledger, kernel, clock, Heirs(ledger, kernel))
            returning = PoolsBack(ledger, kernel, adapters, clock, lambda _: None, patience)
            return (*notes, *undo(ledger, restorer, returning))
    finally:
        for adapter in adapters.values():
            adapter.close()
        if lock is None:
            held.release()
