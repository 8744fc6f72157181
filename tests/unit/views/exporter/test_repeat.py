"""Again and again: at a steady pace, and with one line for a fault that lasts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nicety.scheduler.testing.clock import FakeClock
from nicety.scheduler.views.exporter.errors import ExportError
from nicety.scheduler.views.exporter.repeat import repeat


class EnoughError(Exception):
    pass


def tried(*results: Exception | None, took: float = 0.0) -> tuple[list[str], list[float]]:
    """What was said, and the seconds at which the work began."""
    clock, said, left, at = FakeClock(monotonic=0), list[str](), list(results), list[float]()

    def work() -> None:
        if not left:
            raise EnoughError
        at.append(clock.monotonic() / 1e9)
        clock.advance(round(took * 1e9))
        found = left.pop(0)
        if found is not None:
            raise found

    run: Callable[[], object] = lambda: repeat(work, 10.0, clock, said.append)  # noqa: E731
    with pytest.raises(EnoughError):
        run()
    return said, at


def test_a_fault_that_lasts_is_said_once_and_its_end_once() -> None:
    said, _ = tried(None, OSError(28, "No space left on device"), ExportError("x"), ExportError("y"), None, None)
    assert said == ["[Errno 28] No space left on device; trying again every 10 s", "well again"]


def test_the_pace_is_steady_and_work_that_takes_long_is_not_made_up_for() -> None:
    assert tried(None, None, None, took=3.0)[1] == [0, 10, 20]
    assert tried(None, None, None, took=25.0)[1] == [0, 25, 50]


def test_a_fault_of_nicety_ends_it() -> None:
    with pytest.raises(ZeroDivisionError):
        tried(ZeroDivisionError())
