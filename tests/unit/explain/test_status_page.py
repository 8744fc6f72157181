"""The page of `nicety status`: a line a group, with units, whole ids, at 80 columns and at 200."""

from __future__ import annotations

from typing import Any

import pytest

from nicety.scheduler.explain.status_page import SHOWN, changes_in_words, status_page


def a_change(**values: Any) -> dict[str, Any]:
    change = {
        "group": "group hogs",
        "control": "nice",
        "original": "0",
        "now": "19",
        "processes": 4,
        "threads": 12,
        "sessions": 0,
        "cgroups": 0,
        "protects": "redis",
        "decision": "5e551017-3.0",
        "decisions": 1,
        "since_wall": 0,
        "since_seconds": 12.3,
    }
    return {**change, **values}


def a_row(name: str = "redis", **values: Any) -> dict[str, Any]:
    row = {"group": name, "class": "interactive", "processes": 2, "cpu": 0.314, "wait": 0.06, "memory_bytes": 12 << 20}
    return {**row, "p_interactive": 0.974, "p_batch": 0.01, **values}


ANSWER: dict[str, Any] = {
    "version": "0.1.0",
    "mode": "act",
    "paused": False,
    "running_seconds": 3725.0,
    "session": "5e551017",
    "ticks": 3720,
    "missed_ticks": 2,
    "trace_ticks_dropped": 0,
    "decision_ticks_dropped": 3,
    "demand_model": "0123456789ab",
    "behaviour_model": "none",
    "anomaly_model": "baseline",
    "retraining": "in 5 h 0 min",
    "replay": "in 55 min 0 s",
    "own_cpu_seconds": 37.25,
    "own_memory_bytes": 50 << 20,
    "budget": {"share": 0.012, "limit": 0.03, "reduced": []},
    "notes": [{"topic": "unseen", "text": "Most of the CPU goes to processes that nicety cannot see.", "figures": {}}],
    "pools": [
        {
            "pool": "web",
            "size": 4,
            "requested": 5,
            "busy": 2.25,
            "queued": "unknown",
            "load": "unknown",
            "objective": "p95 300ms",
            "rules": "all rules",
            "trouble": "pid file is gone",
        },
        {
            "pool": "api",
            "size": 8,
            "requested": 8,
            "busy": 6.0,
            "queued": 0.5,
            "load": 6.5,
            "rules": "a constant size of 8",
            "trouble": "",
        },
    ],
    "groups": [
        a_row(),
        a_row("hogs", **{"class": "batch", "cpu": 1.5, "wait": 4.5, "p_interactive": None, "p_batch": None}),
        a_row("program make", **{"class": "exempt", "p_batch": 0.61, "p_interactive": 0.02, "cpu": 0.1}),
        a_row("program gone", processes=0),
    ],
    "changes": [a_change()],
    "acted_on": ["web", "hogs"],
}


def test_it_is_the_page_that_a_person_reads() -> None:
    assert status_page(ANSWER, 80).splitlines() == [
        "nicety      0.1.0, acting, for 1 h 2 min, 3720 ticks (2 missed), session",
        "            5e551017",
        "own cost    37.2 s of CPU (1 % of one CPU), 50.0 MiB, 3 decision ticks lost",
        "budget      1.2 % used, of 3 % of one CPU",
        "models      demand 0123456789ab, behaviour none, anomaly baseline, retraining in",
        "            5 h 0 min, replay in 55 min 0 s",
        "",
        "Notes",
        "  Most of the CPU goes to processes that nicety cannot see.",
        "",
        "Changes in force",
        "  group hogs: nice 0 -> 19 for 4 processes (12 threads)",
        "    protects redis, decision 5e551017-3.0, since 12 s",
        "",
        "pool  workers  wanted  busy  queued  Erlangs  objective",
        "web         4       5   2.2       ?        ?  p95 300ms",
        "api         8       8   6.0     0.5      6.5",
        "  api: sized by a constant size of 8",
        "  web: pid file is gone",
        "",
        "group         class                  processes  cores  waits    memory",
        "hogs          batch, given                   2   1.50   75 %  12.0 MiB",
        "redis         interactive 97 %               2   0.31   16 %  12.0 MiB",
        "program make  undecided, batch 61 %          2   0.10   38 %  12.0 MiB",
        "",
        "acted on",
        "  web",
        "  hogs",
    ]


def test_without_an_objective_there_is_no_column_for_one() -> None:
    pools = [{**pool, "objective": ""} for pool in ANSWER["pools"]]
    page = status_page({**ANSWER, "pools": pools}, 80)
    assert "objective" not in page
    assert "pool  workers  wanted  busy  queued  Erlangs\n" in page


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_no_line_is_wider_than_the_screen_and_no_id_is_cut(columns: int) -> None:
    long = "group program python3 a_script_with_a_name_that_is_far_too_long_for_any_line_of_a_terminal.py"
    changes = [a_change(group=long, decision=f"5e551017-{n}.{n}", decisions=31, protects="x" * 60) for n in range(1000, 1010)]
    groups = [a_row(f"begin {n} {'ÿ' * 120} end {n}.", cpu=n / 10) for n in range(30)]
    page = status_page({**ANSWER, "changes": changes, "groups": groups}, columns)
    assert max(map(len, page.splitlines())) <= columns
    for n in range(1000, 1010):
        assert f"5e551017-{n}.{n}" in page
    for n in range(30 - SHOWN, 30):
        lines = [line for line in page.splitlines() if f"end {n}." in line]
        assert len(lines) == 1, "a line a group"
        assert "begin" in lines[0], "names that are too long lose their middle only"
    assert ("ÿ" * 120 in page) == (columns == 200)
    assert "and 10 groups more with 4.50 cores; --json has them" in page


def test_a_wide_screen_takes_a_change_in_a_line() -> None:
    assert changes_in_words([a_change(decisions=3)], 200) == [
        "Changes in force",
        "  group hogs: nice 0 -> 19 for 4 processes (12 threads), protects redis, decision 5e551017-3.0 and 2 more, since 12 s",
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (a_change(processes=1, threads=1), "group hogs: nice 0 -> 19 for 1 process, protects redis"),
        (
            a_change(control="autogroup", processes=0, threads=0, sessions=2),
            "group hogs: nice of the session 0 -> 19 for 2 sessions, protects redis",
        ),
        (
            a_change(control="cpu.shares", original="1024", now="2", processes=0, threads=0, cgroups=1),
            "cpu.shares 1024 -> 2 for 1 cgroup",
        ),
        (a_change(control="slice", original="0", now="100000"), "slice the kernel's -> 0.1 ms for 4 processes (12 threads)"),
        (
            a_change(control="pool.size", group="pool web", original="4", now="6", processes=0, threads=0, protects=""),
            "pool web: size 4 workers -> 6 workers, decision 5e551017-3.0, since 12 s",
        ),
    ],
)
def test_each_control_has_its_unit(change: dict[str, Any], words: str) -> None:
    assert words in changes_in_words([change], 200)[1]


def test_when_nothing_is_changed_that_is_said() -> None:
    assert "Nothing is changed" in status_page({"mode": "observe", "changes": []}, None)
    assert "observing: nothing is changed" in status_page({"mode": "observe", "paused": True}, None)


def test_names_are_never_obeyed_by_a_terminal() -> None:
    hostile = "\x1b]0;owned\x07\n\u202e"
    answer = {**ANSWER, "mode": hostile, "groups": [a_row(hostile)], hostile: 1, "changes": [a_change(group=hostile)]}
    page = status_page({**answer, "notes": [{"text": hostile}], "odd": [hostile]}, 80)
    assert all(line.isprintable() for line in page.split("\n")), page


def test_the_budget_says_what_is_done_less_often() -> None:
    before = status_page({"version": "0.1.0", "budget": {"share": None, "limit": 0.03, "reduced": []}}, 80)
    assert "budget      not measured yet, of 3 % of one CPU" in before.splitlines()
    over = status_page({"version": "0.1.0", "budget": {"share": 0.05, "limit": 0.03, "reduced": ["a", "b"]}}, 80)
    assert "budget      5 % used, of 3 % of one CPU; less often: a; b" in over.splitlines()
