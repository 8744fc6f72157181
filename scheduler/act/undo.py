"""Undoes everything that is in force: when an actuator ends, for `nicety undo`, and at the start of a daemon.

Knows the hands, and how sizes of pools are restored. Must not know decisions or where a change came from.
`docs/decisions/0003-ledger-and-undo.md` has the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from ..decision import Outcome
from ..hands.faults import Status
from ..hands.kernel import Clock, Kernel
from ..hands.knobs.control import LinuxKernel
from ..hands.ledger import StateLock, left_behind
from ..hands.own import OwnHands
from ..hands.places import PoolPlace, Subject
from ..hands.tally import Note
from ..ports import Hands, PoolAdapter
from ..printed import Printed
from .looks import outcome
from .pools_back import PATIENCE, PoolsBack

SENTRY_SECONDS = 5.0
"""Seconds to wait while a sentry puts changes back (chosen: it takes less than one)."""

Adapters = Callable[[tuple[str, ...]], Mapping[str, PoolAdapter]]
"""Makes adapters for those of the named pools that are configured."""


class Undone(Printed, frozen=True, kw_only=True):
    """What was put back. Exit 3 if something was left alone or put back only in part, 1 if something failed."""

    outcomes: list[Outcome]  # of each thing that was changed


def undo(hands: Hands, pools: PoolsBack, kept: Collection[Subject] = ()) -> tuple[Outcome, ...]:
    """Restore everything in force except `kept`, newest first; one outcome for each thing that was changed.

    Waits for pools as long as `pools` has patience. What could not be restored stays open: call again to retry.
    """
    pooled = {it.on.name for it in hands.book.subjects() if isinstance(it.on, PoolPlace) and it not in kept}
    return (*map(outcome, hands.undo(kept)), *pools.put_back(pooled))


def recover(
    hands: Hands, kernel: Kernel, clock: Clock, pools: Adapters | None = None, patience: float = PATIENCE
) -> tuple[Outcome, ...]:
    """Restore what a dead daemon left changed, from its ledger alone. `pools`: the adapters are closed afterwards. Raises
    LedgerError."""
    notes, done = hands.recover()
    adapters: Mapping[str, PoolAdapter] = {}
    try:
        names = tuple(sorted({it.knob.on.name for it in hands.book.outstanding() if isinstance(it.knob.on, PoolPlace)}))
        if pools is not None and names:
            adapters = pools(names)
        returning = PoolsBack(hands, kernel, adapters, clock, lambda _: None, patience)
        return (*map(_noted, notes), *map(outcome, done), *returning.put_back(names))
    finally:
        for adapter in adapters.values():
            adapter.close()


def undo_from_ledger(
    state_dir: Path,
    clock: Clock,
    *,
    proc_root: Path = Path("/proc"),
    pools: Adapters | None = None,
    patience: float = PATIENCE,
) -> tuple[Outcome, ...]:
    """Restore what a dead daemon left changed: for `nicety undo`.

    As `recover`. Raises StateBusyError while a daemon
    runs there, and LedgerError for a ledger of another version or one that somebody else could have written. Nothing is changed
    then.
    """
    if not left_behind(state_dir):
        return ()
    with StateLock(state_dir, SENTRY_SECONDS):
        kernel = LinuxKernel(proc_root)
        hands = OwnHands(state_dir, kernel, clock)
        try:
            return recover(hands, kernel, clock, pools, patience)
        finally:
            hands.close()


def _noted(note: Note) -> Outcome:
    return Outcome("", Status.FAILED if note.lost else Status.UNCHANGED, "ledger", note.text, 0)
