"""Reads which signals a process handles: it may be waiting for one of them, whatever else it waits for."""

from __future__ import annotations

import re

from ....models.identity import ProcId
from ..holders import read


def _bits(*signals: int) -> int:
    return sum(1 << number - 1 for number in signals)


NOTICES = _bits(1, 3, 10, 12, 14, 15, 18, 26, 27, 29, *range(35, 65))
"""Signals that the outside uses to notify a program: HUP QUIT USR1 USR2 ALRM TERM CONT VTALRM PROF IO and the real-time ones:
signal(7). INT is left out, because every Python program handles it."""

INTERRUPT = _bits(2)
"""SIGINT."""


class Signals:
    """Reads each process at most once a look."""

    def __init__(self, proc: str) -> None:
        self._proc = proc
        self._caught: dict[ProcId, int] = {}  # of this look

    def begin(self) -> None:
        """A new look."""
        self._caught.clear()

    def handled(self, process: ProcId) -> int:
        """Mask of the signals that it has handlers for; `NOTICES` if that cannot be read."""
        if process not in self._caught:
            try:
                match = re.search(rb"^SigCgt:\t(\w+)$", read(f"{self._proc}/{process.pid}/status"), re.MULTILINE)
            except OSError:
                match = None
            self._caught[process] = int(match[1], 16) if match else NOTICES
        return self._caught[process]
