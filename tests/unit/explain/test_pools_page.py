"""The page of `nicety pools`: a row for each, and what to type; on a terminal no line is longer than it is wide."""

from __future__ import annotations

from nicety.models.identity import ProcId
from nicety.scheduler.explain.pools_page import pools_page
from nicety.scheduler.pools.finding.found import Found
from nicety.scheduler.printed import plain

FOUND = [
    Found("gunicorn", "web", ProcId(40, 1), (41, 42), 0, "signals to its master", configured=True, missing=("a pid file",)),
    Found("celery", "jobs", ProcId(50, 1), (51,), 0, "its remote control", missing=("if the application names its broker " * 3,)),
    Found("granian", "api", ProcId(60, 1), (61, 62, 63), 0, "it serves", unsized="its workers are counted once, at its start"),
]


def test_each_pool_has_a_row_and_the_next_step() -> None:
    lines = pools_page([plain(each.record()) for each in FOUND], None).splitlines()
    assert [line.split()[:4] for line in lines[1:4]] == [
        ["web", "gunicorn", "2", "40"],
        ["jobs", "celery", "1", "50"],
        ["api", "granian", "3", "60"],
    ]
    assert [line.rpartition("  ")[2] for line in lines[1:4]] == ["configured", "can be adopted", "not sized"]
    assert [line.split()[-1] for line in lines if "nicety pools adopt" in line] == ["jobs"]
    assert "a pid file" not in "\n".join(lines)
    assert "  not sized   its workers are counted once, at its start" in lines


def test_no_line_is_longer_than_the_terminal() -> None:
    lines = pools_page([plain(each.record()) for each in FOUND], 60).splitlines()
    assert max(map(len, lines)) <= 60
    assert "nicety pools adopt jobs" in "\n".join(lines)
