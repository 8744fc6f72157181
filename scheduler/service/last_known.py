"""What a tick is given beside the snapshot: deadlocks, and what users reported as no incident. If it cannot be read now, or may not
be because of the budget, it is as last seen."""

from __future__ import annotations

from pathlib import Path

from ...models.records import Deadlock, Snapshot
from ..decision import Feedback
from ..observe.deadlocks import Deadlocks
from ..ports import Waits
from ..store.feedback import FeedbackStore
from ..store.files import StoreError
from .settings import Settings

ALOOF = ("gunicorn", "uwsgi", "celery")
"""Kinds of pools whose masters map semaphores only because these were made before the fork, and never post them."""


class KnownDeadlocks:
    """Deadlocks among the workers of pools."""

    def __init__(self, waits: Waits, settings: Settings) -> None:
        self.watch = Deadlocks(waits)
        self._settings = settings
        self._seen: tuple[Deadlock, ...] = ()

    def look(self, snapshot: Snapshot, ticks: int, every: int) -> tuple[Deadlock, ...]:
        """The deadlocks at this snapshot, looked for if a policy would act on them. `ticks`: how many came before; only every
        `every`th of them has a look."""
        config = self._settings.config
        if not config.quarantine.enabled:
            return ()
        if ticks % every == 0:
            aloof = {name for name, pool in config.pools.items() if pool.kind in ALOOF}
            self._seen = self.watch.step(snapshot, aloof)
        return self._seen


class KnownFeedback:
    """What people said was no incident."""

    def __init__(self, directory: Path) -> None:
        self.file = FeedbackStore(directory)
        self.trouble = ""
        """Why the file cannot be read; "" if it can."""
        self._known: tuple[Feedback, ...] = ()

    def read(self) -> tuple[Feedback, ...]:
        """The feedback in force; as last read if the file cannot be read."""
        try:
            self._known, self.trouble = self.file.read(), ""
        except StoreError as error:
            self.trouble = str(error)
        return self._known
