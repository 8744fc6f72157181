"""Steps that fail: they are told once, counted, and end nothing but themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from nicety.scheduler.service.steps import KNOWN, Fault, Steps


@pytest.fixture
def told() -> list[tuple[Fault, str]]:
    return []


@pytest.fixture
def steps(told: list[tuple[Fault, str]]) -> Steps:
    return Steps(lambda fault, traceback: told.append((fault, traceback)))


def broken(text: str = "no reading") -> Callable[[], None]:
    def step() -> None:
        raise RuntimeError(text)

    return step


def test_a_fault_is_told_with_its_step_place_and_traceback(steps: Steps, told: list[tuple[Fault, str]]) -> None:
    assert steps.run("relief", broken()) is False
    ((fault, traceback),) = told
    assert (fault.step, fault.error, fault.times) == ("relief", "RuntimeError: no reading", 1)
    assert fault.place.startswith("test_steps.py:")
    assert "RuntimeError: no reading" in traceback
    assert steps.run("relief", lambda: None) is True
    assert len(told) == 1


def test_the_same_fault_is_told_when_it_comes_first_and_at_powers_of_ten(steps: Steps, told: list[tuple[Fault, str]]) -> None:
    for number in range(1000):
        steps.run("relief", broken(f"reading {number}"))
    assert [fault.times for fault, _ in told] == [1, 10, 100, 1000]
    assert [(fault.error, fault.times) for fault in steps.faults] == [("RuntimeError: reading 999", 1000)]


def test_another_step_type_or_place_is_another_fault(steps: Steps, told: list[tuple[Fault, str]]) -> None:
    def other() -> None:
        raise ValueError

    for name, step in (("relief", broken()), ("socket", broken()), ("relief", other)):
        steps.run(name, step)
    assert [fault.error for fault, _ in told] == ["RuntimeError: no reading", "RuntimeError: no reading", "ValueError"]


def test_no_more_than_some_faults_are_kept(steps: Steps) -> None:
    for number in range(KNOWN + 3):
        steps.run(f"pool {number}", broken())
    assert [fault.step for fault in steps.faults][:2] == ["pool 3", "pool 4"]
    assert len(steps.faults) == KNOWN


def test_turns_count_in_a_row_however_often_something_failed_in_one(steps: Steps) -> None:
    rows = []
    for fails in (2, 1, 0, 1, 5, 1):
        for _ in range(fails):
            steps.run("relief", broken())
        rows.append(steps.end_tick())
    assert rows == [1, 2, 0, 1, 2, 3]


def test_a_failed_stage_is_named_and_ends_its_turn_only(steps: Steps) -> None:
    seen: list[str] = []

    def turn() -> Iterator[str]:
        yield "read"
        seen.append("read")
        yield "decide"
        broken()()
        yield "act"
        seen.append("act")

    assert steps.stages(turn(), lambda: seen.append("between")) is False
    assert seen == ["between", "read", "between"]
    assert [fault.step for fault in steps.faults] == ["decide"]
    assert steps.stages(iter(("read", "act")), lambda: None) is True


def test_being_told_to_end_is_no_fault(steps: Steps) -> None:
    def ends() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        steps.run("socket", ends)
    assert steps.faults == ()
