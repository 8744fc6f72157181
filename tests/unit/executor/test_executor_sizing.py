"""Who decides how many workers an executor has: its program for a minute, nicety within the limits otherwise."""

from __future__ import annotations

import time
from concurrent.futures.process import BrokenProcessPool

import pytest

from nicety.scheduler.executor.board import BOARD_BYTES, CAPACITY, Word
from nicety.scheduler.executor.gate import Gate
from nicety.scheduler.executor.sizing import HANDS_OFF_NS, Sizing

REQUEST = 1 << 32
"""The first request; the size is added."""


def words() -> memoryview:
    return memoryview(bytearray(BOARD_BYTES)).cast("Q")


def sizing(board: memoryview, gate: Gate | None = None) -> Sizing:
    return Sizing(gate or Gate(), board, target=4, minimum=2, maximum=6, eager=False)


def test_limits_and_size_are_shown_from_the_beginning() -> None:
    board = words()
    sizing(board)
    assert (board[Word.MINIMUM], board[Word.MAXIMUM], board[Word.TARGET]) == (2, 6, 4)


@pytest.mark.parametrize(("size", "then"), [(2, 2), (6, 6), (1, 4), (7, 4)])
def test_a_request_within_the_limits_is_followed_and_each_is_answered(size: int, then: int) -> None:
    board = words()
    own = sizing(board)
    own.follow(REQUEST | size, now=0)
    assert own.target == board[Word.TARGET] == then
    assert own.eager is (then == size)
    assert own.asked == board[Word.ANSWERED] == REQUEST | size


def test_for_a_minute_after_the_programs_own_resize_no_request_is_followed() -> None:
    board = words()
    own = sizing(board)
    before = time.monotonic_ns()
    own.resize(5)
    after = time.monotonic_ns()
    own.follow(REQUEST | 3, before + HANDS_OFF_NS - 1)
    assert own.target == board[Word.TARGET] == 5
    assert board[Word.ANSWERED] == REQUEST | 3
    own.follow(2 * REQUEST | 3, after + HANDS_OFF_NS)
    assert own.target == board[Word.TARGET] == 3


def test_the_programs_own_size_may_exceed_the_limit_and_raises_it_as_far_as_the_board_goes() -> None:
    board = words()
    own = sizing(board)
    own.resize(9)
    assert (own.target, board[Word.MAXIMUM], board[Word.OWN_RESIZES]) == (9, 9, 1)
    own.resize(CAPACITY + 5)
    assert (own.target, board[Word.MAXIMUM], board[Word.OWN_RESIZES]) == (CAPACITY + 5, CAPACITY, 2)


def test_a_closed_or_broken_executor_is_not_resized() -> None:
    board, gate = words(), Gate()
    own = sizing(board, gate)
    gate.close("closed", cancel=False)
    with pytest.raises(RuntimeError, match="cannot resize after shutdown"):
        own.resize(3)
    gate.shut_broken("no more", None)
    with pytest.raises(BrokenProcessPool, match="no more"):
        own.resize(3)
    assert (own.target, board[Word.TARGET], board[Word.OWN_RESIZES]) == (4, 4, 0)
