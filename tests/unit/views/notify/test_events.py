"""What is news, and how much of it is let through."""

from __future__ import annotations

from typing import Any

import msgspec

from nicety.scheduler.frame import Frame, Incident
from nicety.scheduler.testing.frames import a_frame, a_shown_pool
from nicety.scheduler.views.notify.events import AGAIN, HOUR, LASTING, MOST, Event, Limits, Watch

LEAK = Incident("s-1.0", "web", [7], "leak", 5.0, "its memory grows")


def calm(**changes: Any) -> Frame:
    return a_frame(**{"incidents": [], **changes})


def harmed(frame: Frame, *ids: str) -> Frame:
    one = frame.decisions[0]
    return msgspec.structs.replace(frame, decisions=[msgspec.structs.replace(one, id=id_, effect="hurt") for id_ in ids])


def kinds(events: list[Event]) -> list[tuple[str, str, str]]:
    return [(event.kind, event.subject, event.id) for event in events]


def test_an_incident_is_news_once() -> None:
    watch = Watch()
    assert watch.look(calm(), False, 0, 0) == []
    (event,) = watch.look(calm(incidents=[LEAK]), False, 1, 0)
    assert event == Event("incident", "web", "leak: its memory grows", "s-1.0", 5.0, "box")
    assert watch.look(calm(incidents=[LEAK]), False, 2, 0) == []
    assert watch.look(calm(), False, 3, 0) == []
    again = msgspec.structs.replace(LEAK, id="s-9.0")
    assert kinds(watch.look(calm(incidents=[again]), False, 4, 0)) == [("incident", "web", "s-9.0")]


def test_what_was_so_before_is_no_news() -> None:
    watch = Watch()
    sick = harmed(calm(incidents=[LEAK], pools=[a_shown_pool(trouble="gone")]), "s-2.0")
    assert watch.look(sick, False, 0, 0) == []
    assert watch.look(sick, False, 2 * LASTING, 0) == []


def test_a_change_that_did_harm_is_news_the_oldest_first() -> None:
    watch = Watch()
    watch.look(harmed(calm(), "s-1.0"), False, 0, 0)
    assert kinds(watch.look(harmed(calm(), "s-3.0", "s-2.0", "s-1.0"), False, 1, 0)) == [
        ("harm", "group ffmpeg", "s-2.0"),
        ("harm", "group ffmpeg", "s-3.0"),
    ]


def test_a_pool_in_trouble_is_news_when_it_lasts() -> None:
    watch, sick = Watch(), calm(pools=[a_shown_pool(trouble="its pid file is gone")])
    watch.look(calm(), False, 0, 0)
    assert watch.look(sick, False, 1, 0) == []
    assert watch.look(calm(), False, 30, 0) == []
    assert watch.look(sick, False, 31, 0) == []
    assert watch.look(sick, False, 30 + LASTING, 0) == []
    (event,) = watch.look(sick, False, 31 + LASTING, 0)
    assert (event.kind, event.subject, event.text) == ("pool", "web", "it cannot be resized: its pid file is gone")
    assert watch.look(sick, False, 500, 0) == []


def test_a_daemon_that_is_gone_is_news_once_and_a_restart_is_none() -> None:
    watch = Watch()
    assert watch.look(None, False, 0, 0) == []
    assert watch.look(None, False, 1000, 0) == []
    watch.look(calm(), False, 1001, 0)
    assert watch.look(None, False, 1002, 0) == []
    watch.look(calm(), False, 1010, 0)
    assert watch.look(calm(), True, 1020, 0) == []
    (event,) = watch.look(calm(), True, 1020 + LASTING, 9.0)
    assert (event.kind, event.subject, event.wall) == ("gone", "box", 9.0)
    assert watch.look(None, False, 2000, 0) == []
    watch.look(calm(), False, 3000, 0)
    assert watch.look(None, False, 3001, 0) == []
    assert kinds(watch.look(None, False, 3001 + LASTING, 0)) == [("gone", "box", "")]


def test_the_same_thing_is_let_through_again_after_a_while_and_says_what_was_left_out() -> None:
    limits, event = Limits(), Event("incident", "web", "", "", 0.0, "box")
    assert limits.admit(event, 0.0) == 0
    assert limits.admit(event, 1.0) is None
    assert limits.admit(event, AGAIN - 1) is None
    assert limits.admit(Event("pool", "web", "", "", 0.0, "box"), AGAIN - 1) == 2
    assert limits.admit(event, AGAIN) == 0


def test_no_more_than_so_many_an_hour() -> None:
    limits = Limits()
    admitted = [limits.admit(Event("harm", f"g{n}", "", "", 0.0, "box"), float(n)) for n in range(MOST + 5)]
    assert admitted == [0] * MOST + [None] * 5
    assert limits.admit(Event("harm", "x", "", "", 0.0, "box"), HOUR) == 5
