"""Reports the daemon's state to the service manager: sd_notify(3) without libsystemd. Knows nothing about the daemon.

Without $NOTIFY_SOCKET nothing is sent. The control loop sends WATCHDOG=1 after each finished stage of a tick; a timer never sends
it (F14).
"""

from __future__ import annotations

import socket
from collections.abc import Mapping


class Notifier:
    """Sends state changes to the address in $NOTIFY_SOCKET; "@name" is an abstract socket.

    >>> Notifier({}).ready("observing")
    False
    """

    def __init__(self, environment: Mapping[str, str], pid: int = 0) -> None:
        """`pid`: our own, compared with $WATCHDOG_PID; 0: not compared."""
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address if address.startswith("/") else ""
        meant = environment.get("WATCHDOG_PID", "")
        microseconds = environment.get("WATCHDOG_USEC", "")
        ours = not meant or not pid or meant == str(pid)
        self.watchdog_seconds = int(microseconds) / 1e6 if self._address and ours and microseconds.isdecimal() else None
        """The manager acts if it gets no message for so many seconds; None: no watchdog. Ticks must come at least twice as
        often."""

    def ready(self, status: str) -> bool:
        """Start-up or reload is finished."""
        return self._send(f"READY=1\nSTATUS={_line(status)}")

    def reloading(self, monotonic_ns: int) -> bool:
        """A reload begins; `ready` ends it."""
        return self._send(f"RELOADING=1\nMONOTONIC_USEC={monotonic_ns // 1000}")

    def stopping(self, status: str) -> bool:
        """The daemon is about to end."""
        return self._send(f"STOPPING=1\nSTATUS={_line(status)}")

    def status(self, status: str) -> bool:
        """One line for `systemctl status`."""
        return self._send(f"STATUS={_line(status)}")

    def watchdog(self) -> bool:
        """A tick, or a stage of one, was finished."""
        return self.watchdog_seconds is not None and self._send("WATCHDOG=1")

    def _send(self, message: str) -> bool:
        """True if the manager accepted it. A missing or busy manager must not stop the daemon, so failure is a return value."""
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.settimeout(0.5)
                channel.connect(self._address)
                channel.send(message.encode(errors="replace"))
        except OSError:
            return False
        return True


def _line(text: str) -> str:
    """`text` without line ends, which would start another assignment."""
    return " ".join(text.split())
