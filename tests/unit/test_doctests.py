"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = ("models", "scheduler", "training", "benchmarks")


def modules() -> list[str]:
    """Importable names of all modules with an example."""
    files = [file for layer in LAYERS for file in (ROOT / layer).rglob("*.py") if "\n    >>> " in file.read_text()]
    names = [file.relative_to(ROOT).with_suffix("").parts for file in sorted(files)]
    return [".".join(parts if parts[0] == "benchmarks" else ("nicety", *parts)) for parts in names]


@pytest.mark.parametrize("name", modules())
def test_the_examples_of_a_module_are_true(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted
    assert not found.failed


def test_there_are_examples() -> None:
    assert len(modules()) > 20
