"""What an executor answers when it takes no more tasks, and that nobody waits for its lock in vain."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool

import pytest

from nicety.scheduler.executor.gate import Gate


def test_a_new_gate_is_open() -> None:
    assert not Gate().is_ending


@pytest.mark.parametrize(
    "end", [lambda gate: gate.close("closed", cancel=False), Gate.abandon, lambda gate: gate.shut_broken("broken", None)]
)
def test_each_way_to_end_is_seen(end: Callable[[Gate], object]) -> None:
    gate = Gate()
    end(gate)
    assert gate.is_ending


def test_the_first_reason_to_close_stays_and_a_wish_to_cancel_is_not_forgotten() -> None:
    gate = Gate()
    gate.close("first", cancel=True)
    gate.close("second", cancel=False)
    assert (gate.closing, gate.cancel) == ("first", True)


def test_the_first_cause_of_a_break_is_what_every_task_is_given() -> None:
    gate = Gate()
    assert gate.shut_broken("no memory", OSError("cannot fork"))
    assert not gate.shut_broken("other", None)
    gate.close("closed", cancel=False)
    error = gate.refusal(gate.closing)
    assert isinstance(error, BrokenProcessPool)
    assert str(error) == "no memory"
    assert "OSError: cannot fork" in str(error.__cause__)
    assert gate.broken_error() is not error, "an exception that is raised twice would collect tracebacks"


def test_an_executor_may_be_collected_while_its_lock_is_held() -> None:
    gate = Gate()
    with gate.lock:
        gate.abandon()
    assert gate.abandoned


def test_a_forked_child_refuses_tasks_although_the_lock_was_held_at_the_fork() -> None:
    gate = Gate()
    gate.lock.acquire()
    gate.forget()
    assert gate.lock.acquire(blocking=False)
    assert "belongs to the process that made it" in str(gate.refusal(""))
