"""The daemon's own budget: what is reduced beyond it, in which order, and when it is given up again."""

from __future__ import annotations

import itertools

import pytest

from nicety.scheduler.service.own.budget import CALM_WINDOWS, LEVELS, WINDOW_NS, Budget, Change, Pace

SECOND = 10**9
LIMIT = 0.03


class Run:
    """A budget, and a daemon whose tick costs so much of a CPU at each level."""

    def __init__(self, shares: list[float]) -> None:
        self.budget, self.shares = Budget(LIMIT), shares
        self.at, self.cpu = 5 * SECOND, 7 * SECOND  # what it used before counts for nothing
        self.budget.used(self.at, self.cpu)

    def windows(self, number: int) -> list[Change]:
        found = []
        for _ in range(number * WINDOW_NS // SECOND):
            self.at += SECOND
            self.cpu += round(self.shares[self.budget.level] * SECOND)
            change = self.budget.used(self.at, self.cpu)
            if change is not None:
                found.append(change)
        return found


def test_within_its_budget_nothing_is_reduced() -> None:
    run = Run([LIMIT] * 5)
    assert run.windows(100) == []
    assert run.budget.pace == Pace()
    assert run.budget.reduced == ()
    assert run.budget.share == pytest.approx(LIMIT)


def test_beyond_it_one_thing_after_another_is_reduced_a_window_each_until_it_is_enough() -> None:
    run = Run([0.1, 0.06, 0.04, 0.02, 0.01])
    changes = run.windows(4)
    assert [(change.level, change.up) for change in changes] == [(1, True), (2, True), (3, True)]
    assert [change.share for change in changes] == pytest.approx([0.1, 0.06, 0.04])
    assert run.budget.pace == Pace(details=2, probes=4, deadlocks=4)
    assert run.budget.reduced == tuple(what for _, what in LEVELS[1:4])
    assert run.budget.trouble == ""


def test_the_last_thing_is_each_second_tick_and_that_it_is_not_enough_is_said() -> None:
    run = Run([0.5] * 5)
    run.windows(20)
    assert run.budget.level == len(LEVELS) - 1
    assert run.budget.pace.ticks == 2
    assert "the daemon uses more than 3.0% of a CPU although" in run.budget.trouble


def test_each_level_reduces_one_thing_more_and_none_of_those_before_less() -> None:
    for (before, _), (after, what) in itertools.pairwise(LEVELS):
        assert what
        assert sum(new != old for old, new in zip(before, after, strict=True)) == 1
        assert all(new >= old for old, new in zip(before, after, strict=True))
    assert LEVELS[0] == (Pace(), "")


def test_after_a_calm_while_things_are_as_usual_again_the_last_one_first() -> None:
    run = Run([0.1] * 4 + [0.04])
    run.windows(10)
    run.shares = [0.01] * 5
    changes = run.windows(4 * CALM_WINDOWS)
    assert [(change.level, change.up) for change in changes] == [(3, False), (2, False), (1, False), (0, False)]


@pytest.mark.parametrize("cost", [0.02, 0.031, 0.035, 0.05, 0.08, 0.1, 0.2])
def test_under_a_steady_cost_it_does_not_go_to_and_fro(cost: float) -> None:
    run = Run([cost, 0.8 * cost, 0.7 * cost, 0.7 * cost, 0.35 * cost])
    assert len(run.windows(200)) <= len(LEVELS) - 1


def test_what_is_between_half_and_all_of_it_is_no_reason_to_do_more() -> None:
    run = Run([0.1, 0.02, 0.0, 0.0, 0.0])
    assert [change.level for change in run.windows(100)] == [1]


def test_a_single_dear_tick_in_a_cheap_window_is_no_excess() -> None:
    run = Run([0.01] * 5)
    run.cpu += round(0.5 * SECOND)
    assert run.windows(1) == []
    assert run.budget.share == pytest.approx(0.01 + 0.5 / 30)
