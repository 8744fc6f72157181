"""Signals to the daemon. A signal only sets a flag, which the loop checks when it can."""

from __future__ import annotations

import signal
from types import FrameType


class Signals:
    """What signals have requested."""

    def __init__(self) -> None:
        self.stop = False
        """SIGTERM or SIGINT came."""
        self.reload = False
        """SIGHUP came. The reload that follows resets it."""

    def listen(self) -> None:
        """Handle these signals from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._reload)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stop = True

    def _reload(self, _number: int, _frame: FrameType | None) -> None:
        self.reload = True
