"""What a dead daemon left changed, from its ledger. Must not know who asks."""

from __future__ import annotations

from ..config.paths import Paths
from ..hands.changes import Entry
from ..hands.ledger import Ledger, StateLock, left_behind
from ..hands.owner import as_owner


def outstanding(paths: Paths) -> tuple[Entry, ...]:
    """Changes that a dead daemon left in force, from its ledger. Raises StateBusyError while a daemon runs, and LedgerError."""
    with as_owner(paths.hands):
        if not left_behind(paths.hands):
            return ()
        from ..read.facts import probe  # brings what only a ledger needs

        with StateLock(paths.hands):
            ledger = Ledger(paths.ledger, probe().boot_id)
            try:
                return ledger.outstanding()
            finally:
                ledger.close()
