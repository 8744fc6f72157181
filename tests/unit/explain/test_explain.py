"""What `why`, `decisions` and `undo` say is what was logged, in words, and never obeyed by a terminal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nicety.models.identity import ProcId
from nicety.models.records import Anomaly, Class, Score
from nicety.scheduler.config.paths import Paths
from nicety.scheduler.config.sections import Config, to_builtins
from nicety.scheduler.decision import (
    Abilities,
    Action,
    Decision,
    Digest,
    Effect,
    Flag,
    Outcome,
    Recycle,
    Refusal,
    ResizePool,
    Restore,
    Session,
    Set,
    Tick,
    Verdict,
    Why,
    encode,
)
from nicety.scheduler.explain import decision_page as explain
from nicety.scheduler.explain import sentences
from nicety.scheduler.explain.gathered import describe
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import CgroupPlace, ProcessPlace, SessionPlace
from nicety.scheduler.store.decisions import DecisionLog, DecisionReader
from nicety.scheduler.testing.ticks import a_forecast, a_group, a_member, a_pool, a_tick

WORKER = ProcId(9001, 9001)
HOG = ProcId(4711, 4711)


def a_session() -> Session:
    own = ProcId(100, 1)
    abilities = Abilities(autogroup=True, cpu_cgroup="v1", may_renice=True)
    return Session("5e551017", "boot", 0, "0.1.0", "act", own, abilities, to_builtins(Config()), {"demand": "", "anomaly": ""}, {})


def a_decision(id_: str, target: str, action: Action, policy: str = "pool_size") -> Decision:
    figures: dict[str, float | int | str] = {"load_now": 3.14159265, "current": 4, "forecast_source": "demand 0123456789ab"}
    rejected = ("3 workers, which the reactive rule alone asks for",)
    flips = ("a load forecast below 2.1 Erlang would keep 4",)
    return Decision(
        id_, policy, target, action, Why("forecast floor", "a load of 4 Erlang is to be expected.", figures, rejected, flips)
    )


def a_full_tick(seq: int, **changes: object) -> Tick:
    groups = [
        a_group("web", Class.INTERACTIVE, [a_member(9000 + i) for i in range(4)], cpu=1.2, wait=0.3),
        a_group("hogs", Class.BATCH, [a_member(4711, cgroup="/batch"), a_member(4712, cgroup="/batch")], cpu=1.5),
        a_group("editor", Class.EXEMPT, [a_member(77)]),
    ]
    scores = (Score(WORKER, "web", Anomaly.LEAK, 3.5, 0.004, (("growth_mib_per_minute", 12.5),), "robust z"),)
    values: dict[str, object] = {
        "groups": groups,
        "pools": [a_pool("web")],
        "forecasts": [
            a_forecast("web", "load", 4.25),
            a_forecast("web", "cpu", 1.5),
            a_forecast("hogs", "rss", 3 << 20),
            a_forecast("hogs", "cpu", 1.9),
        ],
        "protected": (ProcId(1, 2),),
        "scores": scores,
    }
    return a_tick(seq, **{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """A log with a resize that helped, a refusal, a demotion that somebody undid by hand, and a flag."""
    paths = Paths(tmp_path / "state", tmp_path / "state" / "control.sock")
    log = DecisionLog(paths.root, 1 << 20)
    log.begin(a_session())
    resize = a_decision("s-1.0", "pool web", ResizePool("web", 6))
    shrink = a_decision("s-1.1", "pool web", ResizePool("web", 1))
    demote = a_decision("s-2.0", "group hogs pid 4711", Set(Control.AUTOGROUP, SessionPlace(HOG.pid, HOG), 19), "priority")
    flag = a_decision("s-3.0", "pool web", Flag("web", WORKER, "leak"), "quarantine")
    log.append(
        a_full_tick(1),
        Verdict((resize,), (Refusal(shrink, "limits", "fewer than the minimum of 2"),), ()),
        (Outcome("s-1.0", Status.APPLIED, "pool web", "4 -> 6", 1),),
    )
    log.append(a_full_tick(2), Verdict((demote,), (), ()), (Outcome("s-2.0", Status.APPLIED, "group hogs pid 4711", "", 1),))
    effect = Effect("s-1.0", "wait of group web, cores", 0.8, 0.1, 3, "helped")
    foreign = Outcome("s-2.0", Status.FOREIGN, "group hogs pid 4711", "the autogroup has 5, not 19", 0)
    log.append(a_full_tick(3), Verdict((flag,), (), (effect,)), (Outcome("s-3.0", Status.APPLIED, "pool web", "", 0), foreign))
    log.close()
    return paths


def test_the_page_of_a_decision_answers_what_a_person_would_ask(paths: Paths) -> None:
    page = explain.page(paths, "s-1.0")
    for part in (
        "nicety asked pool web for 6 workers instead of 4.",
        "decision s-1.0 of policy pool_size, rule forecast floor, ",
        "tick 1, act mode",
        "Why: a load of 4 Erlang is to be expected.",
        "Done, and read back; it helped: wait of group web, cores: 0.8 before, 0.1 after 3 ticks.",
        "work at hand now          3.14 workers' worth",
        "Forecast of web load, Erlangs",
        "4.25",
        "3 workers, which the reactive rule alone asks for",
        "a load forecast below 2.1 Erlang would keep 4",
        "pool web: done, and read back (1 written): 4 -> 6",
        "it helped: wait of group web, cores: 0.8 before, 0.1 after 3 ticks",
    ):
        assert part in page, f"{part!r} is not in\n{page}"


def test_the_page_of_a_refusal_names_the_rule_of_the_guard(paths: Paths) -> None:
    page = explain.page(paths, "s-1.1")
    assert page.splitlines()[:3] == [
        "nicety wanted to ask pool web for 1 worker instead of 4, but its guard refused.",
        "Why: a load of 4 Erlang is to be expected.",
        "Nothing was changed, by the guard's rule limits: fewer than the minimum of 2",
    ]
    assert "Did it help" not in page


def test_what_was_changed_by_hand_is_told_with_the_outcome_before(paths: Paths) -> None:
    page = explain.page(paths, "s-2.0")
    assert "done, and read back" in page
    assert "somebody else had changed it: left alone from now on: the autogroup has 5, not 19" in " ".join(page.split())
    assert "Forecast of hogs cpu, cores" in page
    assert "rss" not in page
    assert "not measured (yet)" in page


def test_a_flag_is_explained_by_its_score(paths: Paths) -> None:
    page = explain.page(paths, "s-3.0")
    assert "leak: score 3.5, as 1 in 250 healthy worker-minutes, by robust z" in page
    assert "its memory grows now by, a minute: 12.5 MiB" in page
    assert "Forecast" not in page


def test_an_unknown_decision_is_an_error_with_a_next_step(paths: Paths) -> None:
    with pytest.raises(explain.ExplainError, match="`nicety decisions` lists them"):
        explain.page(paths, "nonsense")


def test_a_row_has_outcome_effect_and_reason(paths: Paths) -> None:
    with DecisionReader(paths.decisions) as reader:
        rows = {logged.id: explain.decision_row([logged], day=True) for logged in reader.find()}
    assert rows["s-1.0"][2:] == ("pool web: size 6", "applied, helped", "a load of 4 Erlang is to be expected.")
    assert rows["s-1.1"][2:] == ("pool web: size 1", "refused by guard", "limits: fewer than the minimum of 2")
    assert rows["s-2.0"][3] == "foreign"


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (ResizePool("web", 5), "size 5"),
        (Recycle("web", WORKER), "recycle worker 9001"),
        (Flag("web", WORKER, "spin"), "flag spin"),
        (Flag("web", WORKER, "spin", (), "s-1.0"), "now reported as spin"),
        (Flag("web", WORKER, "spin", (), "s-1.0", over=True), "spin is over"),
        (Digest(7), "7 more incidents"),
        (Restore(Control.NICE, ProcessPlace(HOG)), "nice back to what it was"),
        (Set(Control.AFFINITY, ProcessPlace(HOG), (0, 1, 2, 5, 7, 8)), "CPUs 0-2,5,7-8"),
        (Set(Control.CPU_SHARES, CgroupPlace("/batch"), 10), "cpu.shares 10"),
        (Set(Control.SLICE, ProcessPlace(HOG), 100_000), "slice 0.1 ms"),
        (Set(Control.SLICE, ProcessPlace(HOG), 0), "the kernel's own slice"),
        (Set(Control.POLICY, ProcessPlace(HOG), 3), "policy batch"),
    ],
)
def test_an_action_in_words(action: Action, words: str) -> None:
    assert describe(action) == words


def test_every_outcome_has_a_meaning() -> None:
    assert set(sentences.MEANING) == set(Status)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_page_is_as_wide_as_the_screen(paths: Paths, width: int) -> None:
    long = "a sentence of many words that no line of a screen can hold, whatever it is that somebody looks at it with " * 3
    with DecisionReader(paths.decisions) as reader:
        logged, tick, session = explain.look_up(reader, "s-2.0")
    figures: dict[str, float | int | str] = {"victim": "redis", "victim_wait_cores": 0.31, "odd_name_seconds": 3, "source": long}
    wordy = Decision("s-2.0", "priority", "group hogs pid 4711", logged.decision.action, Why("x", long, figures, (long,), (long,)))
    page = explain.decision_page(replace(logged, decision_json=encode(wordy).decode()), tick, session, width)
    assert 0.8 * width < max(map(len, page.splitlines())) <= width
    assert "redis waited for a CPU  0.31 cores" in page
    assert "odd name                3 s" in page


def test_decisions_are_a_table_where_there_is_room_for_reasons_and_else_some_lines_each(paths: Paths) -> None:
    with DecisionReader(paths.decisions) as reader:
        found = reader.find()
    wide, narrow = (explain.decision_table(found, True, width).splitlines() for width in (140, 60))
    assert wide[0].split() == ["time", "id", "what", "outcome", "reason"]
    assert max(map(len, wide)) <= 140
    assert max(map(len, narrow)) <= 60
    at = [number for number, line in enumerate(narrow) if not line.startswith(" ")]
    parts = [narrow[begin:end] for begin, end in zip(at, [*at[1:], None], strict=True)]
    for logged, (head, *texts) in zip(found, parts, strict=True):
        assert head.split()[2] == logged.id
        assert " ".join(" ".join(texts).split()) == " ".join(explain.decision_row([logged], day=True)[i] for i in (3, 2, 4)).strip()


def test_in_a_pipe_each_decision_is_a_line_and_columns_stay_where_they_are(paths: Paths) -> None:
    with DecisionReader(paths.decisions) as reader:
        found = reader.find()
    lines = explain.decision_table(found, True, None).splitlines()
    assert len(lines) == 1 + len(found)
    assert lines[1] == explain.decision_table(found[:1], True, None).splitlines()[1]
    assert {line.index(word) for line, word in zip(lines[1:], (logged.id for logged in found), strict=True)} == {
        lines[0].index("id")
    }


@pytest.fixture
def swarm(tmp_path: Path) -> Paths:
    """A log of three ticks, in each of which a group is demoted process by process."""
    paths = Paths(tmp_path / "swarm", tmp_path / "swarm" / "control.sock")
    log = DecisionLog(paths.root, 1 << 20)
    log.begin(a_session())
    for seq in range(3):
        each = []
        for n in range(4):
            target = f"group hogs pid {4711 + n}"
            why = Why("contention now", f"redis waits: nice of {target} to 19.", {"victim": "redis", "contender": "hogs"}, (), ())
            each.append(Decision(f"s-{seq}.{n}", "priority", target, Set(Control.NICE, ProcessPlace(ProcId(4711 + n, 1)), 19), why))
        outcomes = tuple(
            Outcome(it.id, Status.VANISHED if n == 3 else Status.APPLIED, it.target, "", 1) for n, it in enumerate(each)
        )
        effects = tuple(Effect(f"s-{seq - 1}.{n}", "wait", 0.4, 0.1, 3, "helped") for n in range(3)) if seq else ()
        log.append(a_full_tick(seq), Verdict(tuple(each), (), effects), outcomes)
    log.close()
    return paths


def test_decisions_about_a_group_are_one_line(swarm: Paths) -> None:
    with DecisionReader(swarm.decisions) as reader:
        found = reader.find()[::-1]
    assert len(found) == 12
    text = "redis waits: nice of 4 processes of group hogs to 19."
    rows = [explain.decision_row(alike, day=True)[1:] for alike in explain.gathered(found)]
    assert rows == [
        ("s-0.0", "group hogs: nice 19 for 4 processes", "3 applied, 1 vanished, helped", text),
        ("s-1.0", "group hogs: nice 19 for 4 processes", "3 applied, 1 vanished, helped", text),
        ("s-2.0", "group hogs: nice 19 for 4 processes", "3 applied, 1 vanished", text),
    ]
    assert len(explain.decision_table(found, True, None, most=2).splitlines()) == 3
    assert len(explain.decision_lines(explain.gathered(found), None)) == 3


def test_nothing_that_is_shown_is_obeyed_by_a_terminal(paths: Paths) -> None:
    hostile = "\x1b]0;owned\x07\n\u202e"
    with DecisionReader(paths.decisions) as reader:
        logged, tick, session = explain.look_up(reader, "s-1.0")
    evil = Decision(
        "s-9.0", "p", hostile, ResizePool(hostile, 1), Why(hostile, hostile, {hostile: hostile}, (hostile,), (hostile,))
    )
    forged = replace(logged, target=hostile, decision_json=encode(evil).decode())
    outcome = Outcome("x", Status.FAILED, hostile, hostile, 0)
    shown = [
        explain.decision_page(forged, tick, session),
        *explain.decision_lines([[forged]], None),
        *explain.decision_lines([[forged]], 200),
        explain.decision_table([forged], True, None),
        explain.decision_table([forged], True, 80),
        explain.outcome_table([outcome], None),
    ]
    for text in shown:
        assert all(line.isprintable() for line in text.split("\n")), text
        assert "\x1b" not in text
