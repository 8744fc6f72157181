"""What the daemon logs about itself: events, faults, and troubles that begin and end. Knows the log stream, not what goes wrong."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ..explain.logstream import ERROR, NOTICE, WARNING, Forward, open_log
from ..hands.kernel import Clock
from .steps import Fault

log = logging.getLogger("nicety")


class Reports:
    """Writes to the log for people and machines, and forwards to it what modules of nicety log."""

    def __init__(self, environment: Mapping[str, str], descriptor: int, clock: Clock) -> None:
        """`descriptor`: where the lines go, unless `environment` names systemd's journal."""
        self.stream = open_log(environment, descriptor)
        self._clock = clock
        self._forward = Forward(self.stream)
        self._troubles: Mapping[str, str] = {}
        log.addHandler(self._forward)

    def event(self, priority: int, text: str, **fields: Any) -> None:
        """Log a line. `priority`: as in syslog(3)."""
        self.stream.event(self._clock.wall(), priority, text, **fields)

    def fault(self, fault: Fault, traceback: str, failures: int, most: int) -> None:
        """Report an exception of a step. It is in the `failures`th failed tick in a row; at most `most` are allowed."""
        often = "" if fault.times == 1 else f", {fault.times} times so far"
        row = f"failed tick {failures} of at most {most} in a row"
        self.event(ERROR, f"{fault.step} failed ({row}){often}: {fault.error}", place=fault.place, traceback=traceback)

    def troubles(self, troubles: Mapping[str, str]) -> None:
        """Report each trouble once when it begins and once when it is over. `troubles`: the cause by name; "" means all is well."""
        for name, error in troubles.items():
            if error and not self._troubles.get(name):
                self.event(WARNING, f"{name}: {error}")
            elif not error and self._troubles.get(name):
                self.event(NOTICE, f"{name}: well again")
        self._troubles = troubles

    def now(self) -> list[str]:
        """The troubles that were reported and are not over, in words."""
        return [f"{name}: {error}" for name, error in self._troubles.items() if error]

    def close(self) -> None:
        """Stop forwarding."""
        log.removeHandler(self._forward)
