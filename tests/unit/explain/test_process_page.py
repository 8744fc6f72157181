"""`nicety why PID` answers before its evidence what was done, for whom, what that changed and what gives it back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nicety.models.behaviour import BEHAVIOUR_FEATURES
from nicety.models.identity import ProcId
from nicety.models.records import Anomaly, Behaviour, Class, Identity, Ruled, Score, Spared
from nicety.scheduler.config.sections import Config, to_builtins
from nicety.scheduler.decision import (
    Abilities,
    Action,
    Decision,
    Delay,
    Effect,
    Flag,
    Group,
    Note,
    Outcome,
    Refusal,
    Restore,
    Session,
    Set,
    Tick,
    Verdict,
    Why,
)
from nicety.scheduler.explain.account import Account, account, changes, locate
from nicety.scheduler.explain.class_words import PHRASES, class_of, evidence
from nicety.scheduler.explain.decision_page import ExplainError
from nicety.scheduler.explain.process_page import as_record, process_page, reasons
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import CgroupPlace, ProcessPlace, SessionPlace
from nicety.scheduler.printed import plain
from nicety.scheduler.read.process import Seen
from nicety.scheduler.store.decisions import DecisionLog, DecisionReader
from nicety.scheduler.testing.ticks import a_group, a_machine, a_member, a_pool, a_tick

WIDTH = 100
"""Columns of the terminal on which pages are looked at."""

DAEMON = ProcId(100, 1)
HOG, CHILD, REDIS, MYSTERY = ProcId(4711, 4711), ProcId(4790, 9999), ProcId(9000, 9000), ProcId(777, 777)
SET = Set(Control.AUTOGROUP, SessionPlace(HOG.pid, HOG), 19)
TARGET = "group program stress-ng session 4711"
BATCH = Behaviour(
    Class.BATCH,
    0.004,
    0.974,
    (("busy_per_thread", 0.99, 2.1), ("burst_ms", 3.91, 1.2), ("listens", 0.0, 0.6), ("in_terminal", 1.0, -0.4)),
    "behaviour 3f9a1c2d",
)
SERVICE = Behaviour(Class.INTERACTIVE, 0.9991, 0.0002, (("listens", 1.0, 3.0), ("burst_ms", 0.04, 2.0)), "behaviour 3f9a1c2d")
UNSURE = Behaviour(Class.EXEMPT, 0.55, 0.3, (), "behaviour 3f9a1c2d")


def a_session(id_: str = "5e551017", mode: str = "act", own: ProcId = DAEMON, **sections: Any) -> Session:
    abilities = Abilities(autogroup=True, cpu_cgroup="v1", may_renice=True)
    return Session(id_, "boot", 0, "0.1.0", mode, own, abilities, {**to_builtins(Config()), **sections}, {}, {})


def a_seen(id_: ProcId, program: str, session: int = 0, cgroup: str = "/") -> Seen:
    return Seen(id_, session or id_.pid, 1, Identity(program, program, cgroup, "", 0))


def groups(wait: float = 0.001) -> list[Group]:
    batch = a_group("program stress-ng", Class.BATCH, [a_member(4711), a_member(4712, session=4711)], cpu=1.75, wait=0.2)
    redis = a_group("program redis-server", Class.INTERACTIVE, [a_member(9000)], cpu=0.25, wait=wait)
    mystery = a_group("program mystery", Class.EXEMPT, [], cpu=0.9)
    return [
        Group(**{**{name: getattr(group, name) for name in group.__struct_fields__}, "behaviour": behaviour})
        for group, behaviour in ((batch, BATCH), (redis, SERVICE), (mystery, UNSURE))
    ]


def demotion(id_: str, action: Action = SET, target: str = TARGET, level: int = 1, **figures: float | int | str) -> Decision:
    known: dict[str, float | int | str] = {
        "victim": "program redis-server",
        "victim_wait_before": 0.312,
        "wait_target": 0.05,
        "contender": "program stress-ng",
        "mechanism": "autogroup",
        "level": level,
        "value": 19,
    }
    why = Why(
        "contention now",
        "program redis-server waits 31.2 % of its demand for a CPU beside program stress-ng: autogroup to 19.",
        {**known, **figures},
        ("nice of each process: does nothing across sessions while autogroup is on", "cpu.shares: both are in the root cgroup"),
        (
            "it is given back 15 s after program redis-server last waited more than 2.5% of its demand and all is calm",
            "less than 0.05 cores of demand by program stress-ng",
        ),
    )
    return Decision(id_, "priority", target, action, why)


def give_back(id_: str, action: Restore, target: str = TARGET) -> Decision:
    return Decision(id_, "priority", target, action, Why("contention over", "Contention has been over for 15 s.", {}, (), ()))


RESTORE = Restore(Control.AUTOGROUP, SessionPlace(4712, ProcId(4712, 4712)))


class Log:
    """A decision log in the making: what happened, tick by tick."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "state"
        self._log = DecisionLog(self.directory, 1 << 22)
        self._seq = 0
        self._log.begin(a_session())

    def session(self, session: Session) -> None:
        self._log.begin(session)
        self._seq = 0

    def tick(self, *decisions: Decision, outcomes: Sequence[Outcome] = (), effects: Sequence[Effect] = (), **changes: Any) -> None:
        self._seq += 1
        values: dict[str, Any] = {"groups": groups(), **changes}
        self._log.append(a_tick(self._seq, **values), Verdict(decisions, (), tuple(effects)), outcomes)

    def about(self, pid: int, seen: Seen | None, above: Sequence[Seen] = ()) -> Account:
        self._log.close()
        with DecisionReader(self.directory / "decisions.db") as reader:
            return account(reader, pid, seen, above)

    def page(self, pid: int, seen: Seen | None, above: Sequence[Seen] = ()) -> str:
        return process_page(self.about(pid, seen, above), WIDTH)


def done(id_: str, status: Status = Status.APPLIED, detail: str = "", target: str = TARGET) -> Outcome:
    return Outcome(id_, status, target, detail, 1)


def helped(id_: str) -> Effect:
    return Effect(id_, "wait of group program redis-server, cores per core of demand", 0.312, 0.004, 3, "helped")


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Redis suffers beside stress-ng, whose session is demoted in two steps; that helps."""
    log = Log(tmp_path)
    log.tick(demotion("s-1.0", level=0), outcomes=[done("s-1.0")], groups=groups(wait=0.1))
    log.tick(demotion("s-2.0", victim_wait_before=0.1), outcomes=[done("s-2.0")])
    log.tick(effects=[helped("s-2.0")])
    return log


def first_lines(page: str) -> str:
    assert max(map(len, page.splitlines())) <= WIDTH, page
    sentences, rows, _ = page.split("\n\n", 2)
    assert len([*sentences.splitlines(), *rows.splitlines()]) <= 24, page
    return " ".join(f"{sentences} {rows}".split())


def test_the_page_of_a_demoted_process_answers_before_its_evidence(log: Log) -> None:
    page = log.page(HOG.pid, a_seen(HOG, "stress-ng"))
    told = first_lines(page)
    for part in (
        "process 4711 (stress-ng): demoted for program redis-server, in force since",
        "one of 2 of group program stress-ng: uses 1.75 cores, waits for 0.20; nice 0, session 4711, cgroup /",
        "batch (97 % sure, by behaviour 3f9a1c2d)",
        "never sleeps (each thread wants a CPU 99 % of the time), runs 3.91 ms at a time",
        "program redis-server: waited 31 % of its demand for a CPU before, 0.4 % 3 ticks later (helped), 0.4 % now",
        "wanted: at most 5 %",
        "nice 19 of its session 4711 as a whole (autogroup); eased by 1; set 2 times since then",
        "given back 15 s after program redis-server last waited more than 2.5% of its demand",
    ):
        assert part in told, f"{part!r} is not before the evidence of\n{page}"
    rest = " ".join(page.split())
    assert "has no listening network socket" in rest
    assert "against it: is in the foreground of a terminal" in rest
    assert "nice of each process: does nothing across sessions while autogroup is on" in rest
    assert "less than 0.05 cores of demand by program stress-ng" in rest
    assert "s-2.0" in rest
    assert "s-1.0" in rest
    assert "Why nothing is done" not in rest


def test_the_page_says_for_whom_a_group_waits_and_programs_get_it_by_name(tmp_path: Path) -> None:
    log = Log(tmp_path)
    delay = Delay("program redis-server", 0.8, (("program stress-ng", 0.7),), 0.0, 0.1, 0.0, 0.0, 0.0)
    log.tick(groups=groups(wait=0.8), delays=(delay,))
    about = log.about(REDIS.pid, a_seen(REDIS, "redis-server"))
    said = "Who delays it program redis-server waits 0.8 cores: 0.7 for program stress-ng, 0.1 for its own threads"
    assert said in " ".join(process_page(about, WIDTH).split())
    (record,) = plain(as_record(about))["delays"]
    assert (record["group"], record["by"], record["own"]) == ("program redis-server", (("program stress-ng", 0.7),), 0.1)
    other = log.about(HOG.pid, a_seen(HOG, "stress-ng"))
    assert as_record(other).delays == []
    assert "Who delays it" not in process_page(other, WIDTH)


def test_a_process_that_joined_the_session_later_is_demoted_with_it(log: Log) -> None:
    told = first_lines(log.page(CHILD.pid, a_seen(CHILD, "stress-ng", session=4711)))
    assert "process 4790 (stress-ng): demoted for program redis-server" in told
    assert "batch (97 % sure" in told


def test_a_process_of_another_session_is_not(log: Log) -> None:
    told = first_lines(log.page(CHILD.pid, a_seen(CHILD, "stress-ng", session=471)))
    assert "left alone" in told
    assert "demoted for" not in told


def test_a_reused_pid_is_not_told_of_what_its_forerunner_got(log: Log) -> None:
    about = log.about(HOG.pid, a_seen(ProcId(HOG.pid, 5), "bash", session=12))
    assert about.changes == ()
    assert about.decisions == ()


@pytest.mark.parametrize(("cgroup", "demoted"), [("/batch", True), ("/batch/deep", True), ("/batches", False), ("/", False)])
def test_a_cgroup_is_demoted_with_all_below_it(tmp_path: Path, cgroup: str, demoted: bool) -> None:
    log = Log(tmp_path)
    action = Set(Control.CPU_SHARES, CgroupPlace("/batch"), 10)
    log.tick(demotion("s-1.0", action, "cgroup /batch"), outcomes=[done("s-1.0", target="cgroup /batch")])
    page = log.page(CHILD.pid, a_seen(CHILD, "stress-ng", cgroup=cgroup))
    assert ("10 shares instead of 1024 for cgroup /batch, which it is in" in " ".join(page.split())) is demoted


@pytest.mark.parametrize("who", [HOG, CHILD])
def test_a_swarm_in_a_cgroup_of_its_own_is_told_of_its_root_and_of_what_it_started(tmp_path: Path, who: ProcId) -> None:
    log, root = Log(tmp_path), a_seen(HOG, "make")
    fence, niced = Set(Control.FENCE, ProcessPlace(HOG), (0, 0, 0, 1)), Set(Control.NICE, ProcessPlace(HOG), 19)
    target = "group program stress-ng pid 4711"
    decisions = demotion("5e551017-1.0", fence, target, level=0, value=1), demotion("5e551017-1.1", niced, target)
    log.tick(*decisions, outcomes=[done("5e551017-1.0", target=target), done("5e551017-1.1", target=target)])
    page = log.page(who.pid, *((root,) if who == HOG else (a_seen(CHILD, "cc1", HOG.pid), [root])))
    assert "a cgroup of process 4711 and its descendants: weight 1 instead of 100" in page
    assert ("nice 19 of every thread" in page) is (who == HOG), "only of a fence is said that a child is in it"


def test_the_page_of_a_protected_process_names_from_whom_and_by_what(log: Log) -> None:
    page = log.page(REDIS.pid, a_seen(REDIS, "redis-server"))
    told = first_lines(page)
    for part in (
        "process 9000 (redis-server): protected from program stress-ng, in force since",
        "interactive (over 99 % sure, by behaviour 3f9a1c2d)",
        "listens on a network socket, runs 0.04 ms at a time",
        "waited 31 % of its demand for a CPU before, 0.4 % 3 ticks later (helped), 0.4 % now",
        "program stress-ng: nice 19 of a session as a whole (autogroup); eased by 1; set 2 times since then (s-2.0)",
        "about itself nothing is changed",
    ):
        assert part in told, f"{part!r} is not before the evidence of\n{page}"


def test_the_page_of_an_unsure_program_says_how_unsure(log: Log) -> None:
    page = log.page(MYSTERY.pid, a_seen(MYSTERY, "mystery"))
    told = first_lines(page)
    assert "process 777 (mystery): left alone" in told
    assert "not sure: 55 % interactive, 30 % batch; at least 90 % is needed: left alone" in told


def test_how_sure_it_must_be_is_told_where_the_configuration_has_it() -> None:
    group = groups()[2]
    session = a_session(models={"certainty": 0.8})
    assert "55 % interactive, 30 % batch; at least 80 % is needed: left alone" in class_of(group, session)
    almost = Behaviour(Class.EXEMPT, 0.12, 0.85, (), "behaviour x")
    assert "85 % batch; batch also needs at most 10 % interactive" in class_of(with_behaviour(group, almost), session)
    neither = Behaviour(Class.EXEMPT, 0.02, 0.03, (), "behaviour x")
    assert class_of(with_behaviour(group, neither), session).startswith("neither interactive nor batch (95 % sure")


def test_why_what_looks_like_batch_is_not_called_so_is_told() -> None:
    told = {
        reason: class_of(with_behaviour(groups()[2], Behaviour(Class.EXEMPT, 0.01, 0.92, (), "behaviour x", reason)), a_session())
        for reason in Spared
    }
    for line in told.values():
        assert re.fullmatch(r"not called batch: looks like batch \(92 % sure, by behaviour x\), but .+: left alone", line)
    assert "but it reads single keystrokes, so somebody may be typing:" in told[Spared.READS_KEYSTROKES]
    assert "but it has a window or plays sound:" in told[Spared.HAS_WINDOW]
    assert "but it works for a server:" in told[Spared.SERVER]
    assert "but its parent sends it requests through a pipe:" in told[Spared.PIPE_SERVER]
    assert "but in its first 10 s somebody may be waiting for it to load:" in told[Spared.LOADING]
    assert "but it wants too little CPU for a demotion to gain anything:" in told[Spared.LITTLE]
    assert "but its sockets cannot be seen, so it may serve somebody:" in told[Spared.UNSEEN]
    assert "but it has just started, and may still be loading its code:" in told[Spared.YOUNG]


def test_a_class_that_a_rule_gave_says_so() -> None:
    swarm = Behaviour(Class.BATCH, 0.3, 0.4, (("brief_cores", 1.5, 0.0),), "behaviour x", None, Ruled.SWARM)
    assert class_of(with_behaviour(groups()[2], swarm, Class.BATCH), a_session()).startswith(
        "batch, by the rule for swarms: its work is done by"
    )
    assert evidence(swarm) == (["its children that come and go use 1.5 CPUs"], [])
    new = Behaviour(Class.INTERACTIVE, 0.0, 0.99, (), "behaviour x", None, Ruled.SUCCEEDS)
    told = class_of(with_behaviour(groups()[2], new, Class.INTERACTIVE), a_session())
    assert told == "interactive, as what it has just taken the place of was"


def with_behaviour(group: Group, behaviour: Behaviour | None, class_: Class | None = None) -> Group:
    values = {name: getattr(group, name) for name in group.__struct_fields__}
    return Group(**{**values, "behaviour": behaviour, "class_": class_ or group.class_})


def test_a_pinned_class_is_the_configurations() -> None:
    pinned = with_behaviour(groups()[0], None)
    assert class_of(pinned, a_session()) == "batch, by the configuration"
    hands_off = with_behaviour(groups()[2], None)
    named = a_session(groups={"program mystery": {"class": "exempt"}})
    assert class_of(hands_off, named) == "none, by the configuration: left alone"
    assert class_of(hands_off, a_session()).startswith("not known")


def test_every_feature_of_the_model_has_words() -> None:
    """All but the last, which is how much was seen and never evidence; and the figure of the rule for swarms."""
    assert set(PHRASES) == {*BEHAVIOUR_FEATURES[:-1], "brief_cores"}
    for name, phrase in PHRASES.items():
        for value in (0.0, 0.02, 0.5, 1.0, 1234.5):
            assert phrase(value).isprintable(), name


ENDS: dict[str, tuple[Sequence[Decision], Sequence[Outcome], str]] = {
    "given back": ([give_back("s-4.0", RESTORE)], [done("s-4.0")], "Contention has been over for 15 s."),
    "given back, as the session had ended": (
        [give_back("s-4.0", RESTORE)],
        [done("s-4.0", Status.VANISHED)],
        "Contention has been",
    ),
    "somebody's renice": ([], [done("s-2.0", Status.FOREIGN)], "somebody else changed it: left alone since"),
    "undone": ([], [done("s-2.0")], "restored by an undo"),
    "relieved": (
        [],
        [done("s-2.0", Status.RELIEVED, "pid 4711 holds a lock")],
        "waited for a lock that it holds: pid 4711 holds a lock",
    ),
    "relieved before it was set again": (
        [demotion("s-4.0")],
        [done("s-4.0", Status.RELIEVED, "pid 4711 holds a lock")],
        "waited for a lock that it holds: pid 4711 holds a lock",
    ),
}


@pytest.mark.parametrize("case", ENDS)
def test_what_has_ended_is_told_as_ended(log: Log, case: str) -> None:
    decisions, outcomes, said = ENDS[case]
    log.tick(*decisions, outcomes=outcomes)
    told = first_lines(log.page(HOG.pid, a_seen(HOG, "stress-ng")))
    assert "process 4711 (stress-ng): not demoted now; it was for program redis-server from" in told
    assert said in told
    assert "Why nothing is done" not in told


@pytest.mark.parametrize("status", [Status.REFUSED, Status.FAILED])
def test_a_restore_that_failed_leaves_it_in_force(log: Log, status: Status) -> None:
    log.tick(give_back("s-4.0", RESTORE), outcomes=[done("s-4.0", status)])
    assert "demoted for program redis-server, in force since" in log.page(HOG.pid, a_seen(HOG, "stress-ng"))


def test_a_demotion_that_was_refused_is_none(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.tick(demotion("s-1.0"), outcomes=[done("s-1.0", Status.REFUSED)])
    about = log.about(HOG.pid, a_seen(HOG, "stress-ng"))
    assert about.changes == ()
    assert "left alone" in process_page(about)


def test_what_a_dead_daemon_did_is_not_in_force(log: Log) -> None:
    log.session(a_session("00000002", own=ProcId(200, 2)))
    log.tick()
    told = first_lines(log.page(HOG.pid, a_seen(HOG, "stress-ng")))
    assert "not demoted now" in told
    assert "its daemon ended" in told


def test_a_reload_changes_nothing_about_what_is_in_force(log: Log) -> None:
    log.session(a_session("00000002"))
    log.tick()
    assert "demoted for program redis-server" in first_lines(log.page(HOG.pid, a_seen(HOG, "stress-ng")))


def test_observe_mode_says_that_nothing_was_written(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.tick(demotion("s-1.0"), outcomes=[done("s-1.0", Status.OBSERVED)])
    assert "would be demoted for program redis-server" in first_lines(log.page(HOG.pid, a_seen(HOG, "stress-ng")))
    assert "would be protected from program stress-ng" in first_lines(log.page(REDIS.pid, a_seen(REDIS, "redis-server")))


def test_a_slice_of_its_own_is_told_with_the_protected_one(log: Log) -> None:
    mine = Set(Control.SLICE, ProcessPlace(REDIS), 100_000)
    target = "group program redis-server pid 9000"
    log.tick(demotion("s-4.0", mine, target), outcomes=[done("s-4.0", target=target)])
    told = first_lines(log.page(REDIS.pid, a_seen(REDIS, "redis-server")))
    assert "protected from program stress-ng" in told
    assert "slice 0.1 ms of every thread before it is asked to yield" in told


def test_a_process_that_ended_is_still_explained(log: Log) -> None:
    log.tick(groups=groups()[1:])
    page = log.page(HOG.pid, None)
    assert "process 4711 (not running any more): demoted for program redis-server" in page


def test_a_placement_is_no_demotion(tmp_path: Path) -> None:
    log = Log(tmp_path)
    why = Why("keep off", "CPUs are kept for others.", {}, (), ())
    target = "group program stress-ng pid 4711"
    action = Set(Control.AFFINITY, ProcessPlace(HOG), (1, 2))
    log.tick(Decision("s-1.0", "placement", target, action, why), outcomes=[done("s-1.0", target=target)])
    page = log.page(HOG.pid, a_seen(HOG, "stress-ng"))
    assert "demoted" not in page
    assert "Also in force\n  only CPUs 1-2, in force since" in page


def test_after_the_end_the_last_measured_tick_is_told(log: Log) -> None:
    """The undo at the end is logged with a tick in which nothing was measured, and which is paused."""
    log.tick(outcomes=[done("s-2.0", detail="autogroup of pid 4711: 19 -> 0")], gap=True, paused=True, groups=[])
    page = log.page(HOG.pid, a_seen(HOG, "stress-ng"))
    assert "batch (97 % sure" in first_lines(page)
    assert "restored by an undo: autogroup of pid 4711: 19 -> 0" in " ".join(page.split())
    assert "paused" not in page


def test_an_empty_log_is_an_error_with_a_next_step(tmp_path: Path) -> None:
    with pytest.raises(ExplainError, match="`nicety run` adds some"):
        Log(tmp_path).about(1, None)


def test_the_record_has_what_the_page_says(log: Log) -> None:
    record = plain(as_record(log.about(HOG.pid, a_seen(HOG, "stress-ng"))))
    (change,) = record["changes"]
    assert (change["victim"], change["contender"]) == ("program redis-server", "program stress-ng")
    assert (change["victim_wait_before"], change["victim_wait_after"], change["verdict"]) == (0.312, 0.004, "helped")
    assert change["in_force"] is True
    assert record["class"] == "batch (97 % sure, by behaviour 3f9a1c2d)"


# --- why nothing was done, workers --------------------------------------------------------------------------------------------


WORKER = ProcId(9001, 9001)


def a_full_tick(**changes: Any) -> Tick:
    known = [
        a_group("web", Class.INTERACTIVE, [a_member(9000 + i) for i in range(4)], cpu=1.2, wait=0.3),
        a_group("hogs", Class.BATCH, [a_member(4711, cgroup="/batch"), a_member(4712, cgroup="/batch")], cpu=1.5),
        a_group("editor", Class.EXEMPT, [a_member(77)]),
    ]
    scores = (Score(WORKER, "web", Anomaly.LEAK, 3.5, 0.004, (("growth_mib_per_minute", 12.5),), "robust z"),)
    values: dict[str, Any] = {"groups": known, "pools": [a_pool("web")], "protected": (ProcId(1, 2),), "scores": scores}
    return a_tick(4, **{**values, **changes})


HOGS = a_group("hogs", Class.BATCH, [a_member(4711, cgroup="/batch"), a_member(4712, cgroup="/batch")], cpu=1.5)
FLASK = a_group("flask", Class.INTERACTIVE, [a_member(9000)], cpu=0.06, wait=1.94)
FULL = a_machine(busy=1.98)

REASONS: dict[str, tuple[int, dict[str, Any], str]] = {
    "protected": (1, {}, "it is protected: nicety never touches"),
    "paused": (4712, {"paused": True}, "nicety is paused"),
    "too small to be told about": (31337, {}, "a [groups.NAME] section"),
    "no class": (77, {}, "its class: not known"),
    "calm": (
        4712,
        {"groups": [a_group("web", Class.INTERACTIVE, [a_member(9000)], cpu=1.2, wait=0.02), HOGS]},
        (
            "no interactive group waits for long: web waits 1.6 % of its demand for a CPU, more than any other; "
            "contention begins above 5 %"
        ),
    ),
    "wake-ups": (
        4712,
        {},
        (
            "web waits 20 % of its demand for a CPU now (0.30 cores), and it is left alone: "
            "0.10 of 2 CPUs are in use, so these waits are wake-ups, not contention"
        ),
    ),
    "nothing to gain": (
        4712,
        {"machine": FULL, "groups": [FLASK, a_group("hogs", Class.BATCH, [a_member(4712)], cpu=0.054)]},
        (
            "flask waits 97 % of its demand for a CPU now (1.94 cores), and it is left alone: "
            "there is nothing to gain: it uses 0.05 cores, and flask lacks 1.94"
        ),
    ),
    "no known reason": (4712, {"machine": FULL}, "and it is left alone: no control that nicety may change separates them"),
    "no rights": (4712, {"machine": a_machine(may_renice=False)}, "without CAP_SYS_NICE"),
    "a rival": (
        4712,
        {"machine": a_machine(rivals=("ananicy",))},
        "left to ananicy while it runs: cpu.shares, fence, nice and",
    ),
    "nobody to protect": (
        4712,
        {"groups": [a_group("hogs", Class.BATCH, [a_member(4712)])]},
        "there is no interactive group to protect",
    ),
    "everybody who waits is another user": (
        4712,
        {
            "groups": [
                a_group("web", Class.INTERACTIVE, [a_member(9001, owner=1001)], cpu=0.2, wait=0.6),
                a_group("hogs", Class.BATCH, [a_member(4712, owner=1000)], cpu=1.8),
            ]
        },
        "it belongs to user 1000, and all that may wait to user 1001; [tenants] keeps them apart",
    ),
    "who waits most is another user": (
        4712,
        {
            "machine": a_machine(busy=2.0),
            "groups": [
                a_group("web", Class.INTERACTIVE, [a_member(9001, owner=1001)], cpu=0.2, wait=0.6),
                a_group("mine", Class.INTERACTIVE, [a_member(9005, owner=1000)], cpu=0.2, wait=0.0),
                a_group("hogs", Class.BATCH, [a_member(4712, owner=1000)], cpu=1.8),
            ],
        },
        "and it is left alone: it belongs to user 1000, web to user 1001; [tenants] keeps them apart",
    ),
    "it is the one to protect": (9002, {}, "it is protected from batch groups"),
    "not unusual": (9001, {}, "not unusual enough to report: p = 0.004 (leak)"),
    "pool in trouble": (9002, {"pools": [a_pool("web", trouble="crash loop")]}, "its pool cannot be resized now: crash loop"),
}


def an_account(pid: int, tick: Tick) -> Account:
    return Account(pid, a_seen(ProcId(pid, pid), "x"), a_session(), tick, locate(pid, tick), (), (), ())


@pytest.mark.parametrize("case", REASONS)
def test_why_nothing_was_done(case: str) -> None:
    pid, changed, said = REASONS[case]
    assert said in " ".join(process_page(an_account(pid, a_full_tick(**changed))).split())


def test_there_is_always_a_reason_for_doing_nothing() -> None:
    tick = a_full_tick(scores=())
    for pid in (*range(9000, 9004), 77, 4711, 1, 31337):
        assert reasons(an_account(pid, tick))


def test_what_waits_and_why_nothing_is_done_is_said_and_never_that_there_is_no_contention() -> None:
    """Somebody waits 97 % of his demand: a note says why nothing is done about it, or the guard's no does."""
    tick = a_full_tick(machine=FULL, groups=[FLASK, HOGS])
    note = Note("unseen", "Most of the CPU goes to processes that nicety cannot see: nothing is demoted for that.", {})
    of_a_pool = Note("starts web", "web: no worker is started.", {})
    about = replace(an_account(4712, tick), notes=(of_a_pool, note))
    page = " ".join(process_page(about, 80).split())
    waits = "flask waits 97 % of its demand for a CPU now (1.94 cores), and it is left alone: "
    assert waits + note.text in page
    assert of_a_pool.text not in page
    assert "not contention" not in page


def test_the_page_has_the_notes_of_its_tick_and_the_guards_no(tmp_path: Path) -> None:
    log = Log(tmp_path)
    action = Set(Control.NICE, ProcessPlace(ProcId(4712, 4712)), 19)
    no = Refusal(Decision("s-0.0", "priority", "group hogs pid 4712", action, Why("x", "y", {}, (), ())), "budget", "too many.")
    verdict = Verdict((), (no,), (), (Note("unseen", "Most of it is unseen.", {}),))
    log._log.append(a_full_tick(machine=FULL, groups=[FLASK, HOGS]), verdict, ())
    page = " ".join(log.page(4712, a_seen(ProcId(4712, 4712), "x")).split())
    assert "and it is left alone: Most of it is unseen." in page
    assert "the guard refused: budget: too many." in page


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_page_is_as_wide_as_the_screen(log: Log, width: int) -> None:
    page = process_page(log.about(HOG.pid, a_seen(HOG, "stress-ng")), width)
    assert 0.7 * width < max(map(len, page.splitlines())) <= width


def test_the_page_of_a_worker_tells_its_pool_and_its_score(tmp_path: Path) -> None:
    log = Log(tmp_path)
    flag = Decision("s-1.0", "quarantine", "pool web", Flag("web", WORKER, "leak"), Why("leak", "It leaks.", {}, (), ()))
    values = a_full_tick()
    log.tick(flag, outcomes=[done("s-1.0")], groups=values.groups, pools=values.pools, scores=values.scores)
    page = " ".join(log.page(WORKER.pid, a_seen(WORKER, "gunicorn")).split())
    assert "worker of pool web (4 workers), ready, busy 50 % of the time" in page
    assert "leak: score 3.5, as 1 in 250 healthy worker-minutes, by robust z" in page
    assert "its memory grows now by, a minute: 12.5 MiB" in page
    assert "flag leak" in page


def test_nothing_on_the_page_is_obeyed_by_a_terminal(log: Log) -> None:
    hostile = "\x1b]0;owned\x07\n\u202e"
    about = log.about(HOG.pid, a_seen(HOG, hostile))
    evil = demotion("s-9.0", target=hostile, victim=hostile, contender=hostile)
    why = Why(hostile, hostile, evil.why.figures, (hostile,), (hostile,))
    step = replace(about.changes[0].steps[0], decision=Decision("s-9.0", hostile, hostile, SET, why))
    name = with_behaviour(groups()[0], Behaviour(Class.BATCH, 0.0, 1.0, ((hostile, 1.0, 1.0),), hostile))
    forged = replace(
        about, changes=(replace(about.changes[0], steps=(step,)),), place=replace(about.place, group=name), protection=()
    )
    for text in (process_page(forged), process_page(replace(forged, changes=()))):
        assert all(line.isprintable() for line in text.split("\n")), text


def test_changes_are_told_latest_first(log: Log) -> None:
    log.tick(give_back("s-4.0", RESTORE), outcomes=[done("s-4.0")])
    log.tick(demotion("s-5.0"), outcomes=[done("s-5.0")])
    about = log.about(HOG.pid, a_seen(HOG, "stress-ng"))
    assert [(change.last.logged.id, bool(change.ended)) for change in about.changes] == [("s-5.0", False), ("s-2.0", True)]
    assert [change.ended for change in changes(about.decisions, lambda _: False)] != [""]
