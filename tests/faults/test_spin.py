"""The protocol of ledger and undo as a model: Spin visits all its states, and finds what breaks without one of its rules."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

proof: Any = importlib.import_module("benchmarks.house.proof")
pytestmark = pytest.mark.skipif(bool(proof.missing()), reason=f"{proof.missing()} is not installed")


@pytest.mark.parametrize("size", proof.SIZES, ids=" ".join)
def test_every_state_of_the_protocol_keeps_its_properties(size: tuple[str, ...]) -> None:
    found = proof.search(size, cycles=False)
    assert (found.broken, found.complete) == ("", True)
    assert found.states > 1_000_000, "the model says less than it did"


def test_every_run_of_the_protocol_ends_with_nothing_open() -> None:
    found = proof.search(proof.ENDLESS, cycles=True)
    assert (found.broken, found.complete) == ("", True)
    assert found.states > 100_000, "the model says less than it did"


@pytest.mark.parametrize("mutant", proof.MUTANTS)
def test_no_rule_of_the_protocol_can_be_left_out(mutant: str) -> None:
    assert proof.without(mutant).broken == proof.MUTANTS[mutant]


def test_the_model_has_the_window_between_compare_and_write() -> None:
    macro, name = proof.HOLE
    assert proof.search((macro,), cycles=False).broken == name


def test_a_model_that_is_not_searched_whole_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "DEPTH", 50)
    assert not proof.search((), cycles=False).complete
