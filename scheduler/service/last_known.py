"""What a tick gets besides the snapshot: deadlocks, and feedback of users. What cannot be read now, or is not read to keep the
budget, is as last read."""

from __future__ import annotations

from pathlib import Path

from ...models.records import Deadlock, Snapshot
from ..decision import Feedback
from ..hands.safe_files import StoreError
from ..observe.deadlocks import Deadlocks
from ..ports import Waits
from ..store.feedback import FeedbackStore
from .settings import Settings

ALOOF = ("gunicorn", "uwsgi", "celery")
"""Kinds of pools whose masters map semaphores only because these were created before the fork. They never post them."""


class KnownDeadlocks:
    """Deadlocks among the workers of pools."""

    def __init__(self, waits: Waits, settings: Settings) -> None:
        self.watch = Deadlocks(waits)
        self._settings = settings
        self._seen: tuple[Deadlock, ...] = ()

    def look(self, snapshot: Snapshot, ticks: int, every: int) -> tuple[Deadlock, ...]:
        """The deadlocks at this snapshot; none if no policy would act on them. `ticks`: the ticks so far. Deadlocks are looked for
        in one of `every` ticks."""
        config = self._settings.config
        if not config.quarantine.enabled:
            return ()
        if ticks % every == 0:
            aloof = {name for name, pool in config.pools.items() if pool.kind in ALOOF}
            self._seen = self.watch.step(snapshot, aloof)
        return self._seen


class KnownFeedback:
    """Which incidents users reported as wrong."""

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
