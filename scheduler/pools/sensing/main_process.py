"""The main process of a pool that somebody else runs: found, adopted, and released when it ends or another replaces it.

Must not know what kind of program it is, sizes or workers. An adapter supplies how to find it, and forgets its pool on request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from ....models.identity import ProcId
from ...config.sections import PoolConfig
from .signals import ProcessHandle

log = logging.getLogger(__name__)

LOOK_NS = 1_000_000_000
"""How often a main process is looked for, to find one that was restarted or that another has handed over to. Chosen."""


class Opened(Protocol):
    """What an adapter has open on a main process."""

    handle: ProcessHandle

    def close(self) -> None:
        """Close all descriptors."""


T = TypeVar("T", bound=Opened)


class MainProcess(Generic[T]):
    """The present main process, if any.

    `find` is called with the id of the present one. It returns a new one (opened), None if the present one is still the configured
    one, or a sentence on why there is none. `forget` is called when one is released, and before a new one counts.
    `title` and `remedy` are for people: "gunicorn's master", "see its error log for why".
    """

    def __init__(
        self,
        pool: str,
        config: PoolConfig,
        find: Callable[[ProcId | None], T | str | None],
        forget: Callable[[], None],
        *,
        title: str,
        remedy: str,
    ) -> None:
        self.present: T | None = None
        self.absence = "not looked for yet"
        """Why there is none; without meaning while there is one."""
        self._pool = pool
        # A configured pid means one process: the next process with this pid is a stranger
        self._once = config.pid is not None and not config.pidfile
        self._find = find
        self._forget = forget
        self._title, self._remedy = title, remedy
        self._found = False  # there has been one
        self._before: int | None = None  # its pid
        self._look_at = 0

    @property
    def id(self) -> ProcId | None:
        """Its identity; None if there is none."""
        return None if self.present is None else self.present.handle.id

    def look(self, now: int) -> T | None:
        """The present one, adopted again if it was restarted or replaced; None if there is none, see `absence`."""
        if self.present is not None and self.present.handle.exited():
            pid = self.present.handle.id.pid
            self.let_go(f"{self._title}, pid {pid}, has ended: {self._remedy}, and start it again")
            log.warning("pool %s: %s", self._pool, self.absence)
            self._look_at = now
        if now < self._look_at or (self._once and self._found):
            return self.present
        self._look_at = now + LOOK_NS
        found = self._find(self.id)
        if isinstance(found, str):
            if self.present is None and found != self.absence:
                self.absence = found
                log.warning("pool %s: %s", self._pool, found)
        elif found is not None:
            self.let_go("")
            pid, before = found.handle.id.pid, self._before
            if before is None:
                log.info("pool %s: adopted %s, pid %d", self._pool, self._title, pid)
            else:
                log.info("pool %s: deployed: %s, pid %d, has taken over from pid %d", self._pool, self._title, pid, before)
            self.present, self._found, self._before = found, True, pid
        return self.present

    def let_go(self, absence: str) -> None:
        """Release it and forget its pool, because of `absence`."""
        if self.present is not None:
            self.present.close()
            self.present = None
        self.absence = absence
        self._forget()
