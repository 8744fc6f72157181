"""The budget of series: never exceeded, spent on what matters, and without series that come and go."""

from __future__ import annotations

import random
from collections.abc import Mapping, Set

import pytest

from nicety.scheduler.views.exporter.budget import HALF_LIFE, KEPT, LEAD, SETTLED, Budget


def choose(budget: Budget, at: float, most: int, weights: Mapping[str, float], cost: int = 10) -> Set[str]:
    return budget.choose(at, most, dict.fromkeys(weights, cost), weights)


def test_the_first_look_takes_the_heaviest() -> None:
    budget = Budget()
    assert choose(budget, 0.0, 25, {"a": 0.1, "b": 0.3, "c": 0.2}) == {"b", "c"}
    assert budget.refused == 1


def test_a_new_group_has_series_after_a_minute_if_there_is_room() -> None:
    budget = Budget()
    choose(budget, 0.0, 100, {"a": 0.1})
    assert choose(budget, 1.0, 100, {"a": 0.1, "new": 9.0}) == {"a"}
    assert choose(budget, SETTLED, 100, {"a": 0.1, "new": 9.0}) == {"a"}
    assert choose(budget, 1.0 + SETTLED, 100, {"a": 0.1, "new": 9.0}) == {"a", "new"}
    assert budget.refused == 0


def test_a_little_more_weight_replaces_nobody_and_much_more_does() -> None:
    budget = Budget()
    choose(budget, 0.0, 10, {"a": 1.0, "b": 0.9})
    assert choose(budget, 100.0, 10, {"a": 1.0, "b": LEAD - 0.01}) == {"a"}
    assert choose(budget, 200.0, 10, {"a": 1.0, "b": LEAD + 0.01}) == {"b"}


def test_a_peak_counts_for_half_after_its_half_life() -> None:
    budget = Budget()
    choose(budget, 0.0, 10, {"a": 1.0, "b": 0.0})
    still = 0.5 * LEAD
    assert choose(budget, HALF_LIFE, 10, {"a": 0.0, "b": still - 0.01}) == {"a"}
    assert choose(budget, HALF_LIFE + 1, 10, {"a": 0.0, "b": still + 0.01}) == {"b"}


def test_a_group_that_is_gone_for_a_while_comes_back_to_its_place() -> None:
    budget = Budget()
    choose(budget, 0.0, 10, {"a": 1.0, "b": 0.9})
    assert choose(budget, 60.0, 10, {"b": 0.9}) == set()
    assert choose(budget, 90.0, 10, {"a": 1.0, "b": 0.9}) == {"a"}
    choose(budget, 91.0 + KEPT, 10, {"b": 0.9})
    assert choose(budget, 92.0 + KEPT, 10, {"b": 0.9}) == {"b"}


def test_the_peak_of_a_group_that_is_gone_decays_too() -> None:
    budget = Budget(half_life=60.0)
    choose(budget, 0.0, 10, {"a": 1.0, "b": 0.9})
    assert choose(budget, 60.0, 10, {"b": 0.5 * LEAD - 0.01}) == set()
    assert choose(budget, 61.0, 10, {"b": 0.5 * LEAD + 0.01}) == {"b"}


def test_new_groups_leave_a_part_free_and_those_that_were_chosen_may_use_it() -> None:
    budget = Budget(settled=0.0, spare=0.25)
    costs, weights = {"a": 40, "b": 30, "c": 30}, {"a": 3.0, "b": 2.0, "c": 1.0}
    assert budget.choose(0.0, 100, costs, weights) == {"a", "b"}
    assert budget.choose(1.0, 100, costs | {"b": 60}, weights) == {"a", "b"}
    assert budget.choose(2.0, 100, costs | {"b": 61}, weights) == {"a", "c"}


def test_how_long_a_new_group_must_be_there_can_be_chosen() -> None:
    budget = Budget(settled=5.0)
    choose(budget, 0.0, 100, {"a": 0.1})
    assert choose(budget, 1.0, 100, {"a": 0.1, "new": 9.0}) == {"a"}
    assert choose(budget, 6.0, 100, {"a": 0.1, "new": 9.0}) == {"a", "new"}


def test_a_group_keeps_room_for_the_most_series_that_it_ever_needed() -> None:
    """Else a forecast that comes and goes would throw another group out each time."""
    budget = Budget()
    assert budget.choose(0.0, 30, {"a": 20, "b": 10}, {"a": 2.0, "b": 1.0}) == {"a", "b"}
    assert budget.choose(1.0, 30, {"a": 10, "b": 10, "c": 10}, {"a": 2.0, "b": 1.0, "c": 0.1}) == {"a", "b"}
    assert budget.choose(1.0 + SETTLED, 30, {"a": 10, "b": 10, "c": 10}, {"a": 2.0, "b": 1.0, "c": 0.1}) == {"a", "b"}


@pytest.mark.parametrize("seed", range(3))
def test_the_budget_holds_and_few_series_come_and_go_however_groups_change(seed: int) -> None:
    chance, budget = random.Random(seed), Budget()
    steady = {f"service {n}": 0.2 + n / 100 for n in range(40)}
    before: Set[str] = set()
    changed = 0
    for scrape in range(240):
        short = {f"job {scrape}-{n}": chance.random() for n in range(30)}
        weights = {name: weight * chance.uniform(0.7, 1.3) for name, weight in steady.items()} | short
        costs = {name: chance.randrange(8, 20) for name in weights}
        chosen = budget.choose(scrape * 15.0, 400, costs, weights)
        assert sum(costs[name] for name in chosen) <= 400
        assert scrape == 0 or not chosen & short.keys()
        changed += len(chosen ^ before) if scrape > 20 else 0
        before = chosen
    assert len(before) >= 20
    assert changed <= 20
    assert len(budget._known) < 200
