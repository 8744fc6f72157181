"""When a mechanism is dropped for a group, and when it is tried again."""

from __future__ import annotations

from nicety.scheduler.decide.policies.priority.strikes import DROPPED_SECONDS, Strikes
from nicety.scheduler.hands.places import Control

SECOND = 10**9


def test_two_strikes_drop_a_mechanism_for_this_group_only() -> None:
    strikes = Strikes()
    strikes.strike(Control.NICE, "hogs", 0, apart=1.5)
    assert not strikes.dropped(Control.NICE, "hogs")
    strikes.strike(Control.NICE, "hogs", 2 * SECOND, apart=1.5)
    assert strikes.dropped(Control.NICE, "hogs")
    assert not strikes.dropped(Control.NICE, "make")
    assert strikes.all_dropped("hogs") == {Control.NICE}


def test_strikes_close_together_are_one() -> None:
    strikes = Strikes()
    for at in range(5):
        strikes.strike(Control.NICE, "hogs", at * SECOND // 4, apart=1.5)
    assert not strikes.dropped(Control.NICE, "hogs")


def test_several_at_once_drop_it_at_once_and_it_is_tried_again_after_a_while() -> None:
    strikes = Strikes()
    strikes.strike(Control.FENCE, "build", 0, apart=1.5, times=2)
    assert strikes.dropped(Control.FENCE, "build")
    strikes.forget(round(DROPPED_SECONDS) * SECOND)
    assert strikes.dropped(Control.FENCE, "build")
    strikes.forget(round(DROPPED_SECONDS) * SECOND + 1)
    assert strikes.all_dropped("build") == set()
