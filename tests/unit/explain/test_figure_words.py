"""Figures of a decision have words and units; no page shows a raw name."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from nicety.scheduler.explain.figure_words import WORDS, in_words

POLICIES = Path(__file__).parents[3] / "scheduler/decide/policies"


def test_the_figures_of_a_demotion_are_read_aloud() -> None:
    figures: dict[str, float | int | str] = {
        "victim": "redis",
        "victim_wait_before": 0.8278,
        "victim_wait_cores": 0.31,
        "wait_target": 0.05,
        "contender": "hogs",
        "contender_cpu_cores": 1.75,
        "contender_processes": 4,
    }
    assert in_words(figures) == [
        ("protects", "redis"),
        ("redis waited for a CPU, of what it wanted", "83 %"),
        ("redis waited for a CPU", "0.31 cores"),
        ("it should wait at most", "5 %"),
        ("demoted group", "hogs"),
        ("hogs used", "1.75 cores"),
        ("hogs has", "4 processes"),
    ]


def test_whom_the_figures_do_not_name_is_called_something() -> None:
    assert in_words({"victim_wait_cores": 1.0}) == [("the protected group waited for a CPU", "1 cores")]


@pytest.mark.parametrize(
    ("name", "value", "row"),
    [
        ("odd_cores", 0.5, ("odd", "0.5 cores")),
        ("odd_thing_seconds", 3, ("odd thing", "3 s")),
        ("odd_share", 0.25, ("odd", "25 %")),
        ("odd_bytes", 3 << 20, ("odd", "3.0 MiB")),
        ("seconds", 3, ("seconds", "3")),
        ("odd_name", "text", ("odd name", "text")),
    ],
)
def test_a_name_without_words_keeps_its_unit(name: str, value: float | int | str, row: tuple[str, str]) -> None:
    assert in_words({name: value}) == [row]


@pytest.mark.parametrize("module", ["priority/contention", "priority/reasons", "pool_size/reasons", "placement/placement"])
def test_every_figure_that_a_policy_gives_by_name_has_words(module: str) -> None:
    tree = ast.parse((POLICIES / f"{module}.py").read_text())
    given = {
        keyword.arg
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "figures"
        for keyword in node.keywords
        if keyword.arg
    }
    assert given
    assert given <= WORDS.keys()
