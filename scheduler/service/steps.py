"""Keeps the loop going: runs its steps, and turns an exception into a fault that is counted and reported. Knows no step. Pure.

A fault ends the step that raised it and no other. This is the only `except Exception` of the daemon.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

KNOWN = 64
"""Maximum distinct faults that are kept; the one unseen for longest goes first. Chosen: a daemon with more has given up long
ago."""


@dataclass(frozen=True, slots=True)
class Fault:
    """An exception of a step. Exceptions with the same step, type and place are one fault."""

    step: str
    error: str  # type and text of the latest exception
    place: str  # "file.py:line" that raised it
    times: int


class Steps:
    """Runs the steps of tick after tick."""

    def __init__(self, tell: Callable[[Fault, str], None]) -> None:
        """`tell` is called with a fault and its traceback when it happens for the first, 10th, 100th, 1000th time, and so on."""
        self._tell = tell
        self._faults: dict[tuple[str, str, str], Fault] = {}
        self._sound = True  # nothing has failed in this tick
        self.failures = 0
        """Ticks in a row in which a step failed."""

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What failed so far, the newest last."""
        return tuple(self._faults.values())

    def run(self, name: str, step: Callable[[], object]) -> bool:
        """Run a step. False: it failed."""
        try:
            step()
        except Exception as error:
            self._failed(name, error)
            return False
        return True

    def stages(self, stages: Iterator[str], between: Callable[[], None]) -> bool:
        """Run a step that is cut into stages: an iterator that yields the name of each before it begins. `between` is called before
        each. False: a stage failed, and those after it were not begun."""
        name = ""
        try:
            for stage in stages:
                name = stage
                between()
        except Exception as error:
            self._failed(name, error)
            return False
        return True

    def end_tick(self) -> int:
        """End a tick. Returns `failures`, including this tick."""
        self.failures = 0 if self._sound else self.failures + 1
        self._sound = True
        return self.failures

    def _failed(self, name: str, error: Exception) -> None:
        self._sound = False
        at = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{at.filename.rpartition('/')[2]}:{at.lineno}"
        key = name, type(error).__name__, place
        before = self._faults.pop(key, None)
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        fault = self._faults[key] = Fault(name, text, place, 1 if before is None else before.times + 1)
        if len(self._faults) > KNOWN:
            del self._faults[next(iter(self._faults))]
        if str(fault.times).strip("0") == "1":
            self._tell(fault, "".join(traceback.format_exception(error)))
