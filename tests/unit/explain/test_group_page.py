"""`nicety why GROUP` and `why POOL`: what was done about it, why, what came of it; as wide as it is asked to be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from nicety.models.identity import ProcId
from nicety.models.records import Class
from nicety.scheduler.config.sections import Config, to_builtins
from nicety.scheduler.decision import Abilities, Action, Decision, Effect, Flag, Outcome, ResizePool, Session, Set, Verdict, Why
from nicety.scheduler.explain.account import Account, group_account
from nicety.scheduler.explain.decision_page import ExplainError
from nicety.scheduler.explain.process_page import as_record, process_page
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import ProcessPlace, SessionPlace
from nicety.scheduler.printed import plain
from nicety.scheduler.store.decisions import DecisionLog, DecisionReader
from nicety.scheduler.testing.ticks import a_group, a_member, a_pool, a_tick

HOG, WORKER = ProcId(4711, 4711), ProcId(9001, 9001)
LONG = "5e551017-123456.12"
"""As long as ids get in a year of ticks."""


def a_decision(id_: str, policy: str, target: str, action: Action, text: str, **figures: float | int | str) -> Decision:
    return Decision(id_, policy, target, action, Why("contention now", text, dict(figures), ("another",), ("given back soon",)))


DEMOTED = a_decision(
    LONG,
    "priority",
    "group program make session 4711",
    Set(Control.AUTOGROUP, SessionPlace(4711, HOG), 19),
    "redis waits 31 % of its demand for a CPU beside program make.",
    victim="redis",
    contender="program make",
    victim_wait_before=0.31,
)
RESIZED = a_decision("s-2.0", "pool_size", "pool web", ResizePool("web", 6), "web: 4 to 6 workers: the load grows.", current=4)
FLAGGED = a_decision("s-2.1", "quarantine", "pool web worker 9001", Flag("web", WORKER, "leak"), "Worker 9001 of web leaks memory.")
HELPED = Effect(LONG, "wait of group redis, cores per core of demand", 0.31, 0.02, 3, "helped")


def write(directory: Path, *ticks: tuple[Sequence[Decision], Sequence[Effect]], status: Status = Status.APPLIED) -> Path:
    log = DecisionLog(directory, 1 << 22)
    own = Abilities(autogroup=True, cpu_cgroup="v1", may_renice=True)
    log.begin(Session("5e551017", "boot", 0, "0.1.0", "act", ProcId(100, 1), own, to_builtins(Config()), {}, {}))
    values: dict[str, Any] = {
        "groups": [
            a_group("redis", Class.INTERACTIVE, [a_member(9000)], cpu=0.2, wait=0.004),
            a_group("program make", Class.BATCH, [a_member(4711), a_member(4712)], cpu=1.7),
            a_group("unit cron", Class.EXEMPT, [a_member(77)]),
        ],
        "pools": [a_pool("web")],
    }
    for seq, (decisions, effects) in enumerate(ticks, 1):
        outcomes = [Outcome(it.id, status, it.target, "", 1) for it in decisions]
        log.append(a_tick(seq, **values), Verdict(tuple(decisions), (), tuple(effects)), outcomes)
    log.close()
    return directory / "decisions.db"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write(tmp_path, ([DEMOTED], []), ([RESIZED, FLAGGED], []), ([], [HELPED]))


def about(log: Path, name: str) -> Account:
    with DecisionReader(log) as reader:
        return group_account(reader, name)


def sentences(log: Path, name: str) -> list[str]:
    return process_page(about(log, name)).partition("\n\n")[0].splitlines()


def test_a_demoted_group_in_three_sentences(log: Path) -> None:
    assert sentences(log, "program make") == [
        "group program make: demoted for redis, in force since 00:00:02 (2 s).",
        "Why: redis waits 31 % of its demand for a CPU beside program make.",
        "Done, and read back; it helped: redis waited for a CPU 31 % of its demand before, 2 % after 3 ticks.",
    ]


def test_a_protected_group_in_three_sentences(log: Path) -> None:
    assert sentences(log, "redis") == [
        "group redis: protected from program make, in force since 00:00:02 (2 s).",
        "Why: redis waits 31 % of its demand for a CPU beside program make.",
        "Done, and read back; it helped: redis waited for a CPU 31 % of its demand before, 2 % after 3 ticks.",
    ]


def test_a_pool_in_three_sentences(log: Path) -> None:
    assert sentences(log, "web") == [
        "pool web: 4 workers, 4 asked for; 1 s ago nicety asked pool web for 6 workers instead of 4.",
        "Why: web: 4 to 6 workers: the load grows.",
        "Done, and read back.",
    ]
    page = process_page(about(log, "web"))
    assert "4 workers, 4 asked for, 1 to 16 allowed; load" in page
    assert "nicety why s-2.1" in page, "a worker's incident"


def test_a_group_about_which_nothing_was_done_in_three_sentences(log: Path) -> None:
    first, second, third = sentences(log, "unit cron")
    assert first == "group unit cron: left alone."
    assert second.startswith("Why: its class: not known")
    assert third == "So it runs as it would without nicety."


def test_an_interactive_group_that_nobody_delays_in_three_sentences(tmp_path: Path) -> None:
    assert sentences(write(tmp_path, ([], [])), "redis") == [
        "group redis: interactive, and nothing is demoted for it now.",
        "Why: it waits 2 % of its demand for a CPU; contention begins above 5 %.",
        "So nothing came of it.",
    ]


def test_equal_changes_of_its_processes_are_one_line_and_no_protection_from_itself(tmp_path: Path) -> None:
    decisions = [
        a_decision(
            f"s-1.{n}",
            "priority",
            f"group redis pid {n}",
            Set(Control.SLICE, ProcessPlace(ProcId(n, n)), 100_000),
            "x",
            victim="redis",
        )
        for n in range(8000, 8009)
    ]
    page = process_page(about(write(tmp_path, (decisions, [])), "redis"), 100)
    assert page.startswith("group redis: interactive, and nothing is demoted for it now.")
    assert page.count("slice 0.1 ms of every thread before it is asked to yield (9 times), in force since") == 2, (
        "about it, and below"
    )


def test_observing_is_told_as_what_would_be(tmp_path: Path) -> None:
    log = write(tmp_path, ([DEMOTED], []), status=Status.OBSERVED)
    first, _, third = sentences(log, "program make")
    assert first.startswith("group program make: would be demoted for redis (observe mode), ")
    assert third == "Observed only: nothing was written."


def test_the_last_words_of_a_name_are_enough_where_only_one_has_them(log: Path) -> None:
    assert about(log, "make").name == "program make"
    assert about(log, "cron").name == "unit cron"


def test_a_name_that_nothing_has_is_an_error_with_the_nearest_one(log: Path) -> None:
    with pytest.raises(ExplainError, match=r'no decision, group or pool is called "programm mak" .* did you mean "program make"'):
        about(log, "programm mak")


def test_the_processes_of_a_group_are_listed(log: Path) -> None:
    assert "Processes; nicety why PID\n  4711, 4712" in process_page(about(log, "program make"))


def test_the_record_of_a_group_has_what_its_page_says(log: Path) -> None:
    record = plain(as_record(about(log, "program make")))
    assert (record["about"], record["pid"]) == ("group", None)
    assert record["name"] == "program make"
    assert [(change["victim"], change["verdict"], change["in_force"]) for change in record["changes"]] == [
        ("redis", "helped", True)
    ]


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("name", ["program make", "redis", "web", "unit cron"])
def test_no_line_is_wider_than_the_screen_and_ids_are_whole(log: Path, name: str, width: int) -> None:
    it = about(log, name)
    page = process_page(it, width)
    assert max(map(len, page.splitlines())) <= width
    for logged in it.decisions:
        assert logged.id in page
