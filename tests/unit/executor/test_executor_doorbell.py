"""The bell of an executor: it touches its descriptor neither after a fork nor longer than it exists."""

from __future__ import annotations

import os

import pytest

from nicety.scheduler.executor.doorbell import Doorbell


def test_a_bell_that_is_collected_closes_its_descriptor() -> None:
    bell = Doorbell()
    number = bell.descriptor
    del bell
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_in_a_forked_child_a_later_file_of_the_same_number_is_neither_written_nor_closed() -> None:
    bell = Doorbell()
    number = bell.descriptor
    other = os.dup(number)
    bell.forget()
    os.dup2(other, number)
    bell.ring()
    with pytest.raises(BlockingIOError):
        os.eventfd_read(number)
    del bell
    os.fstat(number)
    os.close(number)
    os.close(other)
