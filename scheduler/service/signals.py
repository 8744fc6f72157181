"""Signals to the daemon. A signal only sets a flag, which the loop checks when it can."""

from __future__ import annotations

import os
import signal
from types import FrameType

TERMINAL = "/dev/tty"
"""The controlling terminal of the process that opens it (tty(4))."""


class Signals:
    """What signals have requested."""

    def __init__(self) -> None:
        self.stop = False
        """SIGTERM or SIGINT came, or the terminal that the daemon was started in is closed."""
        self.reload = False
        """SIGHUP came, and `takes_reload` has not looked at it."""
        self._of_terminal = False

    def listen(self) -> None:
        """Handle these signals from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        before = signal.signal(signal.SIGHUP, self._reload)
        self._of_terminal = before != signal.SIG_IGN and has_terminal()  # ignored: started by nohup, to outlive its terminal

    def takes_reload(self) -> bool:
        """Whether the configuration is to be read again. SIGHUP also comes when a terminal is closed: then it means stop."""
        came, self.reload = self.reload, False
        if came and self._of_terminal and not has_terminal():
            self.stop = True
            return False
        return came

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stop = True

    def _reload(self, _number: int, _frame: FrameType | None) -> None:
        self.reload = True


def has_terminal(path: str = TERMINAL) -> bool:
    """Whether this process has a controlling terminal that is open."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:  # ENXIO: there is none; EIO: it is closed
        return False
    return True
