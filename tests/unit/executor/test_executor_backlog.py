"""The queue of an executor: who is woken for a task, what is shown of it, and which tasks a shutdown cancels."""

from __future__ import annotations

import os

import pytest

from nicety.scheduler.executor.backlog import Backlog
from nicety.scheduler.executor.board import BOARD_BYTES, Word
from nicety.scheduler.executor.doorbell import Doorbell
from nicety.scheduler.executor.gate import Gate


class Bench:
    """A backlog with what it needs."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.bell = Doorbell()
        self.words = memoryview(bytearray(BOARD_BYTES)).cast("Q")
        self.backlog = Backlog(self.gate, self.bell, self.words)

    def rings(self) -> int:
        """How often the bell was rung since the last call."""
        try:
            return os.eventfd_read(self.bell.descriptor)
        except BlockingIOError:
            return 0


def test_the_first_of_several_tasks_wakes_a_manager_that_waits() -> None:
    bench = Bench()
    bench.backlog.submit(int, (), {})
    assert bench.rings() == 0
    bench.bell.awaited = True
    for _ in range(3):
        bench.backlog.submit(int, (), {})
    assert bench.rings() == 1
    assert bench.words[Word.QUEUED] == 4


def test_a_task_given_ahead_counts_as_queued() -> None:
    bench = Bench()
    bench.backlog.ahead = 2
    bench.backlog.submit(int, (), {})
    assert bench.words[Word.QUEUED] == 3


def test_a_closed_backlog_takes_no_task() -> None:
    bench = Bench()
    bench.gate.close("closed for today", cancel=False)
    with pytest.raises(RuntimeError, match="closed for today"):
        bench.backlog.submit(int, (), {})
    assert bench.backlog.is_finished()


def test_tasks_that_workers_still_coming_up_would_have_had_are_not_cancelled() -> None:
    bench = Bench()
    futures = [bench.backlog.submit(int, (), {}) for _ in range(6)]
    bench.backlog.running = 1
    bench.backlog.cancel(target=3)
    assert [future.cancelled() for future in futures] == [False, False, True, True, True, True]
    assert [task.future for task in bench.backlog.waiting] == futures[:2]
    assert not bench.backlog.is_finished()


def test_a_task_that_is_to_run_again_is_not_cancelled() -> None:
    bench = Bench()
    first, second = (bench.backlog.submit(int, (), {}) for _ in range(2))
    again = bench.backlog.waiting[1]
    again.running = second.set_running_or_notify_cancel()
    bench.backlog.cancel(target=0)
    assert first.cancelled()
    assert list(bench.backlog.waiting) == [again]
