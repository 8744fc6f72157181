"""Signals to the daemon. A signal only sets a flag: the loop looks at it when it can."""

from __future__ import annotations

import signal
from types import FrameType


class Signals:
    """What signals asked for."""

    def __init__(self) -> None:
        self.stop = False
        """SIGTERM or SIGINT came."""
        self.reload = False
        """SIGHUP came. The reload that follows resets it."""

    def listen(self) -> None:
        """Take these signals from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._reload)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stop = True

    def _reload(self, _number: int, _frame: FrameType | None) -> None:
        self.reload = True
