"""Undoes everything that is open in the ledger: when an actuator ends, for `nicety undo`, and at the start of a daemon.

Knows the ledger, and how values and sizes are restored. Must not know decisions or where a change came from.
`docs/decisions/0003-ledger-and-undo.md` has the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from pathlib import Path

from ..decision import Outcome
from ..hands.faults import Status
from ..hands.heirs import Heirs
from ..hands.kernel import Clock
from ..hands.knobs.control import LinuxKernel
from ..hands.ledger import NAME, Ledger, StateLock, left_behind
from ..hands.places import PoolPlace, Subject
from ..hands.restoring import Restorer
from ..hands.undoing import undo_values
from ..ports import PoolAdapter
from .looks import outcome
from .pools_back import PATIENCE, PoolsBack

SENTRY_SECONDS = 5.0
"""Seconds to wait while a sentry puts changes back (chosen: it takes less than one)."""


def undo(ledger: Ledger, restorer: Restorer, pools: PoolsBack, kept: Collection[Subject] = ()) -> tuple[Outcome, ...]:
    """Restore everything open in the ledger except `kept`, newest first; one outcome for each thing that was changed.

    Waits for pools as long as `pools` has patience. What could not be restored stays open: call again to retry.
    """
    pooled = {it.on.name for it in ledger.subjects() if isinstance(it.on, PoolPlace) and it not in kept}
    restored = undo_values(ledger, restorer, kept)
    outcomes = [outcome(it.tally, it.entry.decision, it.entry.target, it.what) for it in restored]
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
    held = StateLock(state_dir, SENTRY_SECONDS) if lock is None else lock
    adapters: Mapping[str, PoolAdapter] = {}
    try:
        kernel = LinuxKernel(proc_root)
        with closing(Ledger(state_dir / NAME, kernel.boot_id())) as ledger:
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
