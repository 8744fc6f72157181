"""Waits for something that another process does."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..hands.clock import SystemClock


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether it holds at some moment within this time; looks every 10 ms."""
    clock = SystemClock()
    deadline = clock.monotonic() + seconds * 1e9
    while not condition():
        if clock.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
