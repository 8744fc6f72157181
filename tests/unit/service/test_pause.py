"""A pause that a user asked for."""

from __future__ import annotations

import os

import pytest

from nicety.scheduler.service.answers.pause import Pause
from nicety.scheduler.service.reports import Reports
from nicety.scheduler.testing.clock import FakeClock

SECOND = 10**9


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def pause(clock: FakeClock, said: list[str], monkeypatch: pytest.MonkeyPatch) -> Pause:
    reports = Reports({}, os.dup(2), clock)
    reports.close()
    monkeypatch.setattr(reports.stream, "event", lambda _wall, _priority, text: said.append(text))
    return Pause(clock, reports)


def test_a_pause_ends_at_its_time_and_that_is_reported_once(pause: Pause, clock: FakeClock, said: list[str]) -> None:
    now = clock.monotonic()
    assert not pause.holds(now)
    pause.begin(2.0)
    assert pause.holds(now + 2 * SECOND - 1)
    assert said == []
    assert [pause.holds(now + 2 * SECOND), pause.holds(now + 3 * SECOND)] == [False, False]
    assert said == ["the pause is over"]


def test_without_a_length_it_holds_until_it_is_ended(pause: Pause, clock: FakeClock, said: list[str]) -> None:
    pause.begin(None)
    assert pause.holds(clock.monotonic() + 10**6 * SECOND)
    pause.end()
    assert not pause.holds(clock.monotonic())
    assert said == []
