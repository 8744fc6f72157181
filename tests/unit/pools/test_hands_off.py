"""Somebody else's size: told from a crash, left alone for a minute of quiet, said twice."""

from __future__ import annotations

import pytest

from nicety.scheduler.hands.faults import Status
from nicety.scheduler.pools.sensing.hands_off import HANDS_OFF_NS, ForeignSize, HandsOff

SECOND = 1_000_000_000
T = 5 * SECOND  # the machine has just booted


def test_a_pool_is_left_alone_until_a_minute_after_the_last_change(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    hands_off = HandsOff("web")
    assert not hands_off.lasts(T, 3)
    hands_off.begin("resized by hand", Status.FOREIGN, T)
    assert hands_off.answer("resized by hand") == (Status.FOREIGN, "resized by hand")
    assert hands_off.lasts(T + 50 * SECOND, 3, changed_at=T + 40 * SECOND)
    assert hands_off.lasts(T + HANDS_OFF_NS + 40 * SECOND - 1, 4), "the change is not forgotten"
    assert not hands_off.lasts(T + HANDS_OFF_NS + 40 * SECOND, 4)
    assert hands_off.text == ""
    assert [record.message for record in caplog.records] == [
        "pool web: resized by hand",
        "pool web: sized by nicety again, from 4 workers",
    ]


def test_the_same_reason_again_is_said_once_and_lasts_longer(caplog: pytest.LogCaptureFixture) -> None:
    hands_off = HandsOff("web")
    for second in range(3):
        hands_off.begin("paused", Status.FOREIGN, T + second * SECOND)
    assert caplog.text.count("paused") == 1
    assert hands_off.lasts(T + HANDS_OFF_NS + SECOND, 1)
    assert not hands_off.lasts(T + HANDS_OFF_NS + 2 * SECOND, 1)
    hands_off.begin("paused", Status.FOREIGN, T + 100 * SECOND)
    assert caplog.text.count("paused") == 2


def test_a_request_is_answered_by_what_is_wrong() -> None:
    hands_off = HandsOff("web")
    assert hands_off.answer("the master has ended") == (Status.REFUSED, "the master has ended")
    hands_off.begin("did not react", Status.FAILED, T)
    assert hands_off.answer("did not react")[0] is Status.FAILED
    assert hands_off.answer("does not answer")[0] is Status.REFUSED
    hands_off.end()
    assert not hands_off.lasts(T + SECOND, 1)


@pytest.mark.parametrize(("above", "below", "seconds"), [(True, False, 1), (False, True, 3)])
def test_a_size_is_somebodys_when_it_stays_longer_than_a_crash_lasts(above: bool, below: bool, seconds: int) -> None:
    foreign = ForeignSize(up_ns=SECOND, down_ns=3 * SECOND)
    assert not foreign.seen(T, above=above, below=below)
    assert not foreign.seen(T + seconds * SECOND - 1, above=above, below=below)
    assert foreign.seen(T + seconds * SECOND, above=above, below=below)
    foreign.seen(T + 9 * SECOND, above=False, below=False)
    assert not foreign.seen(T + 10 * SECOND, above=above, below=below), "it begins anew"
    foreign.reset()
    assert not foreign.seen(T + 20 * SECOND, above=above, below=below)
