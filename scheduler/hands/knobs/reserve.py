"""Keeps spare file descriptors, so that undo works when all others are taken. Must not know what they are used for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

SPARE = 6
"""Descriptors that an undo has open at once: three files of the ledger and its directory, two of /proc."""

_OPEN = getattr(os, "O_PATH", os.O_RDONLY)  # only Linux has it


class Reserve:
    """A number of unused descriptors. They are taken when it is made; if too few are free, it begins with fewer."""

    def __init__(self, count: int = SPARE) -> None:
        self._count = count
        self._held: list[int] = []
        self._lent = 0
        self._take()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """A context in which the descriptors are free. They are taken again when the outermost one ends."""
        self._lent += 1
        self.close()
        try:
            yield
        finally:
            self._lent -= 1
            if not self._lent:
                self._take()

    def close(self) -> None:
        """Release them. Idempotent."""
        while self._held:
            os.close(self._held.pop())

    def __del__(self) -> None:
        self.close()

    def _take(self) -> None:
        try:
            while len(self._held) < self._count:
                self._held.append(os.open("/", _OPEN | os.O_CLOEXEC))
        except OSError:
            return  # it tries again after the next loan
