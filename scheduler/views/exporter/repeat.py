"""Does one thing again and again, and says once when it fails and once when it is well again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Never

from ...hands.kernel import Clock
from .errors import ExportError


def repeat(work: Callable[[], None], every: float, clock: Clock, say: Callable[[str], None]) -> Never:
    """Do `work` every `every` seconds, until a signal. What may fail is an OSError or an ExportError."""
    due, trouble = clock.monotonic(), ""
    while True:
        try:
            work()
            found = ""
        except (OSError, ExportError) as error:
            found = str(error)
        if found and not trouble:
            say(f"{found}; trying again every {every:g} s")
        elif trouble and not found:
            say("well again")
        trouble = found
        due = max(due + round(every * 1e9), clock.monotonic())
        clock.sleep_until(due)
