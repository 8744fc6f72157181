"""What is decided today is what was decided when the golden logs were written, to nine digits of each figure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import zip_longest

import pytest
from golden_runs import RUNS, golden, log

from nicety.scheduler.decision import Tick, Verdict
from nicety.scheduler.explain.figure_words import words_of

AGAIN = "if that is meant, write the log anew (tests/golden/golden_runs.py) and say why in the commit"

FAKED = {"evidence_rss_bytes_per_second"}
"""Figures of the scripted scores of the runs, which no real score has."""


def first_difference(before: Iterable[str], now: Iterable[str]) -> str:
    """The first line that differs, for people; "" if none does."""
    for number, (old, new) in enumerate(zip_longest(before, now, fillvalue="nothing"), 1):
        if old != new:
            return f"line {number}\n  was  {old}\n  is   {new}"
    return ""


@pytest.mark.parametrize("name", sorted(RUNS))
def test_every_decision_is_as_it_was(name: str) -> None:
    figures = set[str]()
    found = first_difference(golden(name).read_text().splitlines(), log(noting(RUNS[name](), figures)))
    assert not found, f"{golden(name).name}: {found}\n{AGAIN}"
    assert figures
    assert {figure for figure in figures if words_of(figure) is None} <= FAKED, "give it words (explain/figure_words.py)"


def noting(verdicts: Iterable[tuple[Tick, Verdict]], figures: set[str]) -> Iterator[tuple[Tick, Verdict]]:
    """The same verdicts; `figures` gets the names of all figures that they have."""
    for tick, verdict in verdicts:
        for decision in (*verdict.decisions, *(refusal.decision for refusal in verdict.refusals)):
            figures.update(decision.why.figures)
        figures.update(name for note in verdict.notes for name in note.figures)
        yield tick, verdict


def test_the_logs_have_something_of_every_policy() -> None:
    found = {line.split(" ", 2)[1] for name in RUNS for line in golden(name).read_text().splitlines()}
    assert found >= {"priority", "pool_size", "placement", "quarantine", "guard", "effect"}


def test_a_figure_that_changes_is_named_with_its_line() -> None:
    before = golden("priority").read_text().splitlines()
    after = [line.replace("helped", "hurt") for line in before]
    place = next(number for number, line in enumerate(before, 1) if "helped" in line)
    assert first_difference(before, after).startswith(f"line {place}\n  was  {before[place - 1]}")
    assert first_difference(before, before[:-1]).endswith("is   nothing")
