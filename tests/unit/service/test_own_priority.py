"""What the daemon says when it cannot have the share that it needs."""

from __future__ import annotations

import os

import pytest

from nicety.scheduler.service.own import priority as own_priority
from nicety.scheduler.service.own.ladder import NICES, Rest
from nicety.scheduler.service.own.priority import ANOTHERS, AT_THE_TOP, CALM, OwnPriority

SECOND = 10**9


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """ns that this thread has waited so far. Nothing of this process is changed."""
    waited = [7]
    monkeypatch.setattr(own_priority, "_waited", lambda: waited[0])
    monkeypatch.setattr(os, "getpriority", lambda _which, _who: 1)  # started at a nice above 0: its own
    return waited


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, waits: list[int]) -> OwnPriority:
    monkeypatch.setattr(os, "getsid", lambda _pid: -1)
    assert waits
    return OwnPriority()


def test_it_says_that_its_ticks_are_late_only_once_there_is_nothing_more_to_ask_for(own: OwnPriority, waits: list[int]) -> None:
    said = []
    for turn in range(len(NICES)):
        waits[0] += SECOND
        own.ticked(turn * SECOND, SECOND, SECOND // 4)
        said.append(own.trouble)
    assert said == ["", "", *[AT_THE_TOP + ANOTHERS] * 5]


def test_one_tick_on_time_is_not_the_end_of_it(own: OwnPriority, waits: list[int]) -> None:
    for turn in range(len(NICES)):
        waits[0] += SECOND
        own.ticked(turn * SECOND, SECOND, SECOND // 4)
    said = []
    for turn in range(2 * CALM):
        waits[0] += SECOND if turn == 10 else 0
        own.ticked((10 + turn) * SECOND, SECOND, SECOND // 4)
        said.append(own.trouble != "")
    assert said.index(False) == 10 + CALM
    assert not any(said[10 + CALM :])


def test_what_it_waited_for_before_the_loop_began_is_no_reason(own: OwnPriority, waits: list[int]) -> None:
    waits[0] += 60 * SECOND
    own.begin()
    own.ticked(SECOND, SECOND, SECOND // 4)
    assert own._ladder.nice == 0
    assert own.nice == 0


def test_in_the_middle_of_a_slow_tick_it_climbs_at_once_and_only_once_for_what_it_waited(
    own: OwnPriority, waits: list[int]
) -> None:
    seen = []
    for waited in (0, SECOND // 4, 1, SECOND // 8, SECOND // 4):
        waits[0] += waited
        own.follow(SECOND, Rest.USUAL, most=SECOND // 4)
        seen.append(own._ladder.nice)
    assert seen == [0, 0, -5, -5, -10]
    own.ticked(SECOND, SECOND, SECOND // 4)
    assert own._ladder.nice == -10
