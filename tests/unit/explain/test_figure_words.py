"""Figures of a decision have words and units; no page shows a raw name."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from nicety.models.anomaly.leaks import LEAKING
from nicety.models.anomaly.outliers import TRAITS
from nicety.models.anomaly.self_history import HELD
from nicety.scheduler.explain.figure_words import EVIDENCE, WORDS, in_words, words_of

ANOMALIES = Path(__file__).parents[3] / "models/anomaly"
EVIDENT = {"leaks", "progress", "storms", "slowness", "outliers", "self_history", "lifecycle", "evidence"}
RECORDS = {"Figures", "dict[str, float | int]"}
AROUND = (("growth_", ""), ("growth_", "_per_minute"), ("siblings_growth_", ""), ("now_", ""), ("siblings_", ""))
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
    assert in_words({"victim_wait_cores": 1.0}) == [("the protected group waited for a CPU", "1 core")]


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


@pytest.mark.parametrize(
    ("figures", "rows"),
    [
        (
            {"p": 2.5e-7, "alpha": 0.004},
            [("healthy worker-minutes that look like this", "1 in 4 million"), ("reported from", "1 in 250")],
        ),
        (
            {"horizon_seconds": 190.0, "start_seconds": 0.02},
            [("how far ahead", "3 min 10 s"), ("a worker takes to start", "0.02 s")],
        ),
        ({"workers_by_forecast": 1, "size": 8}, [("by the forecast", "1 worker"), ("workers there are", "8 workers")]),
        (
            {"load_now": 14.6234, "load_60s": 12345.6},
            [("work at hand now", "14.6 workers' worth"), ("work at hand, mean of 60 s", "12,346 workers' worth")],
        ),
        ({"load_now": float("nan")}, [("work at hand now", "unknown")]),
        (
            {"evidence_growth_mib": 41.72, "evidence_rss_times_siblings": 4.0},
            [("its memory grew by", "41.7 MiB"), ("memory, beside its siblings' median", "4 times")],
        ),
        ({"wait_2": "7 has waited 3 s for a lock, held by 8"}, [("waits", "7 has waited 3 s for a lock, held by 8")]),
    ],
)
def test_figures_have_the_units_that_people_use(figures: dict[str, float | int | str], rows: list[tuple[str, str]]) -> None:
    assert in_words(figures) == rows


def names_given(module: Path) -> set[str]:
    """The names that a module gives figures by: keywords of `figures`, and keys of the records that are passed on to it."""
    found = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "figures":
            found |= {keyword.arg for keyword in node.keywords if keyword.arg}
        if isinstance(node, ast.FunctionDef) and node.returns is not None and ast.unparse(node.returns) in RECORDS:
            keys = [key for each in ast.walk(node) if isinstance(each, ast.Dict) for key in each.keys]
            found |= {key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
    return found


def test_every_figure_that_a_policy_gives_by_name_has_words() -> None:
    given = {module: names_given(module) for module in POLICIES.rglob("*.py")}
    assert {module.stem for module, names in given.items() if names} >= {
        "contention",
        "reasons",
        "pool_size",
        "placement",
        "alarms",
    }
    every = set[str]().union(*given.values())
    assert {"season_right", "service_p95_seconds", "neighbour_nice", "incidents", "gain_cores", "unseen_cores"} <= every
    assert {name for name in every if words_of(name) is None} == set()


def test_all_the_evidence_of_a_score_has_words() -> None:
    """The names are the keys of what the tests for worker faults find; those that are made of a trait are made of every trait."""
    given = set[str]()
    for module in sorted(ANOMALIES.glob("*.py")):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Dict):
                keys = [key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]
                given |= {key for key in keys if module.stem in EVIDENT}
    given |= {f"{begin}{leak.name}{end}" for leak in LEAKING.values() for begin, end in AROUND}
    given |= {f"{trait}{end}" for trait, *_ in (*TRAITS, *HELD) for end in ("_times_siblings", "_times_own_past", "_deviations")}
    given |= {"siblings_cpu_cores", "siblings_slices_per_second", "siblings_bytes_per_second", "zombies"}
    assert len(given) > 60
    assert given - EVIDENCE.keys() - {trait for trait, *_ in HELD} == set()


def test_no_words_of_a_figure_are_its_raw_name() -> None:
    for name, (label, _) in {**WORDS, **EVIDENCE}.items():
        assert "_" not in label.replace("{victim}", "").replace("{contender}", ""), name
        assert label
