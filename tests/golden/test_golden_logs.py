"""What is decided today is what was decided when the golden logs were written, to nine digits of each figure."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest

import pytest
from golden_runs import RUNS, golden, log

AGAIN = "if that is meant, write the log anew (tests/golden/golden_runs.py) and say why in the commit"


def first_difference(before: Iterable[str], now: Iterable[str]) -> str:
    """The first line that differs, for people; "" if none does."""
    for number, (old, new) in enumerate(zip_longest(before, now, fillvalue="nothing"), 1):
        if old != new:
            return f"line {number}\n  was  {old}\n  is   {new}"
    return ""


@pytest.mark.parametrize("name", sorted(RUNS))
def test_every_decision_is_as_it_was(name: str) -> None:
    found = first_difference(golden(name).read_text().splitlines(), log(RUNS[name]()))
    assert not found, f"{golden(name).name}: {found}\n{AGAIN}"


def test_the_logs_have_something_of_every_policy() -> None:
    found = {line.split(" ", 2)[1] for name in RUNS for line in golden(name).read_text().splitlines()}
    assert found >= {"priority", "pool_size", "placement", "quarantine", "guard", "effect"}


def test_a_figure_that_changes_is_named_with_its_line() -> None:
    before = golden("priority").read_text().splitlines()
    after = [line.replace("helped", "hurt") for line in before]
    place = next(number for number, line in enumerate(before, 1) if "helped" in line)
    assert first_difference(before, after).startswith(f"line {place}\n  was  {before[place - 1]}")
    assert first_difference(before, before[:-1]).endswith("is   nothing")
