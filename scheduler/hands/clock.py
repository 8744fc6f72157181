"""The clock of this machine."""

from __future__ import annotations

import time


class SystemClock:
    """`Clock` of this machine."""

    def monotonic(self) -> int:
        """Monotonic time, ns."""
        return time.monotonic_ns()

    def wall(self) -> int:
        """Wall time, ns since 1970."""
        return time.time_ns()

    def sleep_until(self, at: int) -> None:
        """Sleep until `monotonic()` is at least `at`."""
        left = at - time.monotonic_ns()
        if left > 0:
            time.sleep(left / 1e9)
