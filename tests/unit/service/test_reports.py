"""What the daemon says about itself."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from nicety.scheduler.explain.logstream import ERROR, NOTICE, WARNING
from nicety.scheduler.service.reports import Reports
from nicety.scheduler.service.steps import Fault
from nicety.scheduler.testing.clock import FakeClock

Said = list[tuple[int, str]]


@pytest.fixture
def said() -> Said:
    return []


@pytest.fixture
def reports(said: Said, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reports]:
    made = Reports({}, os.dup(2), FakeClock())
    monkeypatch.setattr(made.stream, "event", lambda _wall, priority, text, **_: said.append((priority, text)))
    yield made
    made.close()


def test_a_trouble_is_reported_when_it_begins_and_when_it_is_over(reports: Reports, said: Said) -> None:
    for error in ("", "no space left", "no space left", "read-only", "", ""):
        reports.troubles({"traces": error, "ledger": ""})
    assert said == [(WARNING, "traces: no space left"), (NOTICE, "traces: well again")]


def test_the_troubles_of_now_are_those_that_are_not_over(reports: Reports) -> None:
    assert reports.now() == []
    reports.troubles({"traces": "no space left", "ledger": ""})
    assert reports.now() == ["traces: no space left"]
    reports.troubles({"traces": "", "ledger": "read-only"})
    assert reports.now() == ["ledger: read-only"]


def test_a_fault_says_which_tick_it_is_and_how_often_it_came(reports: Reports, said: Said) -> None:
    reports.fault(Fault("read", "OSError: x", "proc.py:1", 1), "", 1, 3)
    reports.fault(Fault("read", "OSError: x", "proc.py:1", 10), "", 2, 3)
    assert said == [
        (ERROR, "read failed (failed tick 1 of at most 3 in a row): OSError: x"),
        (ERROR, "read failed (failed tick 2 of at most 3 in a row), 10 times so far: OSError: x"),
    ]
