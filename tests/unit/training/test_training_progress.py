"""Stages of a training: when each must end, and what people see of it."""

from __future__ import annotations

import io
import math

import pytest

from nicety.training.progress import SHARES, Stages, TrainingBudget, duration, size


class Clock:
    """Stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def stages(seconds: float = math.inf, out: io.StringIO | None = None) -> tuple[Stages, Clock, io.StringIO]:
    clock, out = Clock(), out or io.StringIO()
    return Stages(TrainingBudget(seconds, 1, clock), out), clock, out


def interrupt(shown: Stages) -> None:
    """A stage that Ctrl-C ends half way."""

    def stage() -> None:
        with shown.shown():
            shown.step("reading", 50, 100)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage()


def test_without_a_budget_there_is_always_time() -> None:
    shown, clock, _ = stages()
    clock.now = 1e9
    assert shown.step("reading", 1, 10)
    assert TrainingBudget(math.inf, 1, clock).left() == math.inf
    assert shown.cut == []


def test_a_stage_ends_when_it_has_had_its_share_and_the_next_has_what_is_left() -> None:
    shown, clock, _ = stages(100.0)
    assert shown.step("reading", 0, 10)
    clock.now = 100 * SHARES["reading"] - 1
    assert shown.step("reading", 4, 10)
    clock.now = 100 * SHARES["reading"]
    assert not shown.step("reading", 5, 10)
    assert not shown.step("reading", 6, 10)
    left = 100 - clock.now
    assert shown.step("fitting", 0, 3)
    assert shown.cut == ["reading traces ended early, at 6 of 10 ticks: its time was used up; give more with --time-budget"]
    clock.now += left * SHARES["fitting"] - 1
    assert shown.step("fitting", 1, 3)
    clock.now += 1
    assert not shown.step("fitting", 2, 3)


def test_a_stage_that_was_late_but_came_to_its_end_was_not_cut() -> None:
    shown, clock, _ = stages(10.0)
    with shown.shown():
        shown.step("fitting", 1, 3)
        clock.now = 9.0
        shown.step("fitting", 3, 3)
    assert shown.cut == []


def test_nothing_is_left_after_the_end() -> None:
    clock = Clock()
    budget = TrainingBudget(10.0, 1, clock)
    clock.now = 25.0
    assert budget.left() == 0.0


def test_a_stage_that_is_over_is_one_line() -> None:
    shown, clock, out = stages()
    with shown.shown():
        for done in range(3):
            shown.step("reading", done * 5000, 10_000)
        clock.now = 12.3
        shown.step("experts", 1, 7)
        clock.now = 80.0
    assert out.getvalue().splitlines() == [
        "reading traces: 10,000 ticks, 12.3 s",
        "running the simple forecasters: 1 of 7 values, 1 min 7 s",
    ]


def test_the_same_stage_again_is_another_one() -> None:
    shown, _, out = stages()
    with shown.shown():
        shown.step("experts", 9, 9)
        shown.step("experts", 2, 2)
    assert len(out.getvalue().splitlines()) == 2


def test_a_stage_that_is_interrupted_is_not_told_to_be_over() -> None:
    shown, _, out = stages()
    interrupt(shown)
    assert out.getvalue() == ""


def test_a_terminal_gets_a_bar_with_the_time_left_and_is_left_as_it_was() -> None:
    out = Terminal()
    shown, _, _ = stages(out=out)
    interrupt(shown)
    text = out.getvalue()
    assert "reading traces" in text
    assert "50 of 100 ticks" in text
    assert "left:" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") > 0  # the cursor is hidden, and shown again


def test_a_stage_of_another_name_is_shown_by_its_name() -> None:
    shown, _, out = stages()
    with shown.shown(), shown.stage("pickling"):
        pass
    assert out.getvalue() == "pickling: 0.0 s\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (12.34, "12.3 s"), (750, "12 min 30 s"), (9000, "2 h 30 min"), (200_000, "2 d 7 h")]
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(900, "900 B"), (1536, "1.5 KiB"), (3 << 20, "3.0 MiB"), (3 << 29, "1.5 GiB")])
def test_sizes_are_for_people(count: int, text: str) -> None:
    assert size(count) == text
