"""The log: one line for what happened, none for what did not, and nothing in it that a terminal or a parser would obey."""

from __future__ import annotations

import json
import logging
import os
import pty
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nicety.models.identity import ProcId
from nicety.models.records import Behaviour, Class, Spared
from nicety.scheduler.decision import (
    Action,
    Decision,
    Digest,
    Effect,
    Flag,
    Group,
    Note,
    Outcome,
    Recycle,
    Refusal,
    ResizePool,
    Restore,
    Set,
    Tick,
    Verdict,
    Why,
)
from nicety.scheduler.explain.logstream import (
    BUFFER_LIMIT,
    ERROR,
    INFO,
    NOTICE,
    OVER_NS,
    QUIET_NS,
    REMEMBERED,
    WARNING,
    Entry,
    Forward,
    JournalSink,
    LogStream,
    StreamSink,
    ascii_json,
    json_line,
    open_log,
    terminal_line,
)
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import CgroupPlace, ProcessPlace, SessionPlace
from nicety.scheduler.testing.ticks import a_group, a_machine, a_member, a_tick

HOSTILE = 'w\n\x1b]0;owned\x07\r\x9b31m\u202eR\u2028"}\x7f\x00, "kind": "forged"'


class Kept:
    """A sink that keeps entries."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.dropped = 0

    def write(self, entry: Entry) -> None:
        self.entries.append(entry)

    def flush(self) -> None:
        pass

    def taken(self) -> list[tuple[str, str, str]]:
        taken = [(entry.kind, entry.what, entry.status) for entry in self.entries]
        self.entries.clear()
        return taken


def a_decision(id_: str = "s-1.0", target: str = "pool web", action: Action | None = None, policy: str = "pool_size") -> Decision:
    why = Why("forecast floor", "a load of 4 Erlang is to be expected.", {"load": 4.0, "source": "demand 3f"}, (), ())
    return Decision(id_, policy, target, action or ResizePool("web", 5), why)


def an_outcome(status: Status, id_: str = "s-1.0", detail: str = "") -> Outcome:
    return Outcome(id_, status, "pool web", detail, 1)


def tell(stream: LogStream, tick: Tick, verdict: Verdict, *outcomes: Outcome) -> None:
    stream.tick("5e551017", "act", tick, verdict, outcomes)


def decided(*decisions: Decision) -> Verdict:
    return Verdict(decisions, (), ())


def test_a_decision_and_its_outcome_are_one_line() -> None:
    sink = Kept()
    tell(LogStream(sink), a_tick(1), decided(a_decision()), an_outcome(Status.APPLIED))
    (entry,) = sink.entries
    assert (entry.kind, entry.id, entry.what, entry.status) == ("decision", "s-1.0", "pool web: size 5", "applied")
    assert entry.priority == NOTICE
    assert "a load of 4 Erlang" in entry.text
    assert entry.fields["figures"] == {"load": 4.0, "source": "demand 3f"}


def test_a_tick_without_decisions_says_nothing() -> None:
    sink = Kept()
    tell(LogStream(sink), a_tick(1), decided())
    assert sink.entries == []


def test_late_outcomes_and_effects_have_their_own_lines() -> None:
    sink = Kept()
    effect = Effect("s-1.0", "wait of group web, cores", 0.8, 0.1, 3, "helped")
    tell(LogStream(sink), a_tick(4), Verdict((), (), (effect,)), an_outcome(Status.FOREIGN, detail="nice is 3, not 19"))
    assert sink.taken() == [("outcome", "pool web", "foreign"), ("effect", "wait of group web, cores", "helped")]


def test_trouble_is_a_warning_with_its_detail() -> None:
    sink = Kept()
    tell(LogStream(sink), a_tick(1), decided(a_decision()), an_outcome(Status.REFUSED, detail="EPERM: needs CAP_KILL"))
    assert sink.entries[0].priority == WARNING
    assert "needs CAP_KILL" in sink.entries[0].text


def test_the_same_refusal_is_told_once_until_it_was_away_for_a_while() -> None:
    sink = Kept()
    stream = LogStream(sink)
    refused = Verdict((), (Refusal(a_decision(), "cool-down", "changed 1 s ago"),), ())
    seconds = QUIET_NS // 10**9
    for seq in range(2 * seconds):  # longer than QUIET_NS, but never away for so long
        tell(stream, a_tick(seq), refused)
    assert sink.taken() == [("refusal", "pool web: size 5", "refused")]
    for seq in range(2 * seconds, 3 * seconds + 1):
        tell(stream, a_tick(seq), decided())
    tell(stream, a_tick(3 * seconds + 2), refused)
    assert len(sink.taken()) == 1


def test_another_rule_is_news_and_the_same_refusal_of_another_size_or_process_is_not() -> None:
    sink = Kept()
    stream = LogStream(sink)
    for seq, (size, rule) in enumerate([(5, "cool-down"), (5, "budget"), (6, "budget"), (5, "cool-down"), (6, "budget")]):
        decision = a_decision(action=ResizePool("web", size))
        tell(stream, a_tick(seq), Verdict((), (Refusal(decision, rule, "."),), ()))
    assert [entry.fields["refused_by"] for entry in sink.entries] == ["cool-down", "budget"]
    sink.taken()
    for seq, pid in enumerate((7, 8, 9), 5):
        master = demotion(f"s-{seq}.0", pid, group="gunicorn")
        tell(stream, a_tick(seq), Verdict((), (Refusal(master, "never touch", f"Process {pid} is protected."),), ()))
    assert sink.taken() == [("refusal", "group gunicorn pid 7: nice 19", "refused")]


def test_what_is_decided_again_is_counted_and_summed_up() -> None:
    sink = Kept()
    stream = LogStream(sink)
    minutes = QUIET_NS // 60_000_000_000
    for seq in range(60 * minutes):
        status = Status.APPLIED if seq % 4 else Status.UNCHANGED
        tell(stream, a_tick(seq), decided(a_decision(f"s-{seq}.0")), an_outcome(status, f"s-{seq}.0"))
    assert sink.taken() == [("decision", "pool web: size 5", "unchanged")]
    tell(stream, a_tick(60 * minutes), decided())
    (again,) = sink.entries
    assert (again.what, again.status) == ("pool web: size 5", "450 applied, 149 unchanged")
    assert again.text.startswith(f"599 times more in {minutes} min; the latest: forecast floor: ")
    assert (again.fields["count"], again.fields["statuses"]) == (599, {"applied": 450, "unchanged": 149})
    assert again.id == "s-599.0"
    sink.taken()
    for seq in range(60 * minutes, 60 * minutes * 3 + 1):
        tell(stream, a_tick(seq), decided(a_decision()), an_outcome(Status.APPLIED))
    assert [text for _, _, text in sink.taken()] == ["applied"], "the next sum comes after twice the time"


def demotion(id_: str, pid: int, group: str = "hogs", rule: str = "contention now", nice: int = 19) -> Decision:
    target = f"group {group} pid {pid}"
    why = Why(rule, f"redis waits: nice of {target} to {nice}.", {"victim": "redis", "contender": group}, (), ())
    return Decision(id_, "priority", target, Set(Control.NICE, ProcessPlace(ProcId(pid, pid)), nice), why)


def came(status: Status, decision: Decision, detail: str = "") -> Outcome:
    return Outcome(decision.id, status, decision.target, detail, 3)


def test_a_decision_about_a_group_is_one_line_however_many_processes_it_takes() -> None:
    sink = Kept()
    four = [demotion(f"s-1.{n}", 40 + n) for n in range(4)]
    outcomes = [
        came(Status.APPLIED, four[0]),
        came(Status.VANISHED, four[1], "gone"),
        *(came(Status.APPLIED, it) for it in four[2:]),
    ]
    tell(LogStream(sink), a_tick(1), decided(*four), *outcomes)
    (entry,) = sink.entries
    assert (entry.id, entry.what, entry.status) == ("s-1.0", "group hogs: nice 19 for 4 processes", "3 applied, 1 vanished")
    assert entry.text == "contention now: redis waits: nice of 4 processes of group hogs to 19."
    assert entry.priority == NOTICE
    record = json.loads(json_line(entry))
    assert (record["count"], record["changed"]) == (4, 12)
    assert record["decisions"] == ["s-1.0", "s-1.1", "s-1.2", "s-1.3"]
    assert record["targets"][3] == "group hogs pid 43"
    assert record["statuses"] == {"applied": 3, "vanished": 1}


def test_other_groups_values_and_rules_are_decisions_of_their_own() -> None:
    sink = Kept()
    apart = [
        demotion("s-1.0", 1),
        demotion("s-1.1", 2, group="make"),
        demotion("s-1.2", 3, nice=5),
        demotion("s-1.3", 4, rule="eased"),
    ]
    tell(LogStream(sink), a_tick(1), decided(*apart), *(came(Status.APPLIED, it) for it in apart))
    assert [entry.id for entry in sink.entries] == ["s-1.0", "s-1.1", "s-1.2"], "hogs get nice 19 by another rule, which is no news"


def test_a_child_that_joins_is_no_new_line_but_trouble_with_it_is() -> None:
    sink = Kept()
    stream = LogStream(sink)
    for seq in range(50):
        child = demotion(f"s-{seq}.0", 100 + seq, rule="contention now" if seq == 0 else "contention not over")
        tell(stream, a_tick(seq), decided(child), came(Status.APPLIED, child))
    assert sink.taken() == [("decision", "group hogs pid 100: nice 19", "applied")]
    child = demotion("s-50.0", 150)
    tell(stream, a_tick(50), decided(child), came(Status.REFUSED, child, "EPERM"))
    (entry,) = sink.entries
    assert (entry.status, entry.priority) == ("refused", WARNING)
    assert "[EPERM]" in entry.text


def test_cgroups_of_a_group_are_one_decision() -> None:
    sink = Kept()
    apart = []
    for n in range(3):
        why = Why("contention now", "Somebody waits.", {"contender": "hogs", "victim": "redis"}, (), ())
        apart.append(Decision(f"s-1.{n}", "priority", f"cgroup /h{n}", Set(Control.CPU_SHARES, CgroupPlace(f"/h{n}"), 2), why))
    tell(LogStream(sink), a_tick(1), decided(*apart), *(came(Status.APPLIED, it) for it in apart))
    assert sink.taken() == [("decision", "group hogs: cpu.shares 2 for 3 cgroups", "applied")]


def test_the_effects_of_a_decision_about_a_group_are_one_line_with_the_victims_figure() -> None:
    sink = Kept()
    stream = LogStream(sink)
    four = [demotion(f"s-1.{n}", 40 + n) for n in range(4)]
    tell(stream, a_tick(1), decided(*four), *(came(Status.APPLIED, it) for it in four))
    sink.taken()
    metric = "wait of group redis, cores per core of demand"
    effects = tuple(Effect(it.id, metric, 0.31, 0.02, 3, "helped") for it in four)
    tell(stream, a_tick(4), Verdict((), (), effects))
    (entry,) = sink.entries
    assert (entry.what, entry.status) == ("group hogs: nice 19", "helped")
    assert entry.text == "redis waited for a CPU 31 % of its demand before, 2 % after 3 ticks"
    assert entry.fields["decisions"] == ["s-1.0", "s-1.1", "s-1.2", "s-1.3"]
    sink.taken()
    tell(stream, a_tick(5), Verdict((), (), effects[:1]))
    assert sink.taken() == []
    tell(stream, a_tick(6), Verdict((), (), (Effect("s-1.0", metric, 0.02, 0.4, 3, "hurt"),)))
    assert sink.taken() == [("effect", "group hogs: nice 19", "hurt")]


def test_that_putting_back_changed_nothing_is_not_told() -> None:
    sink = Kept()
    stream = LogStream(sink)
    back = a_decision("s-1.0", "group hogs pid 4", Restore(Control.NICE, ProcessPlace(ProcId(4, 4))), "priority")
    tell(stream, a_tick(1), decided(back), came(Status.APPLIED, back))
    sink.taken()
    metric = "wait of group redis, cores per core of demand"
    tell(stream, a_tick(4), Verdict((), (), (Effect("s-1.0", metric, 0.01, 0.01, 3, "no effect"),)))
    assert sink.taken() == []
    tell(stream, a_tick(5), Verdict((), (), (Effect("s-1.0", metric, 0.01, 0.5, 3, "hurt"),)))
    assert sink.taken() == [("effect", "group hogs: nice back to what it was", "hurt")]


def test_an_undo_is_a_line_a_group_and_ending() -> None:
    sink = Kept()
    outcomes = [Outcome(f"s-1.{n}", Status.APPLIED, f"group hogs pid {n}", "nice 19 -> 0", 2) for n in range(9)]
    outcomes.append(Outcome("s-1.9", Status.FOREIGN, "group hogs pid 9", "nice is 3, not 19", 0))
    LogStream(sink).undone(1, "5e551017", outcomes)
    assert sink.taken() == [("outcome", "group hogs, 9 of them", "applied"), ("outcome", "group hogs pid 9", "foreign")]


def test_a_note_is_said_when_it_appears_and_when_it_is_over() -> None:
    sink = Kept()
    stream = LogStream(sink)
    seconds = OVER_NS // 10**9
    there = Verdict((), (), (), (Note("unseen", "Most of the CPU goes to what nicety cannot see.", {"unseen_cores": 1.8}),))
    for seq in range(101):
        tell(stream, a_tick(seq), there if seq % 3 else decided())  # also while it comes and goes
    (entry,) = sink.entries
    assert (entry.kind, entry.text, entry.priority) == ("note", "Most of the CPU goes to what nicety cannot see.", NOTICE)
    assert json.loads(json_line(entry))["topic"] == "unseen"
    assert terminal_line(entry).endswith("note      Most of the CPU goes to what nicety cannot see.")
    sink.taken()
    for seq in range(101, 100 + seconds):
        tell(stream, a_tick(seq), decided())
    assert sink.entries == []
    tell(stream, a_tick(100 + seconds), decided())
    assert [entry.text for entry in sink.entries] == ["over: Most of the CPU goes to what nicety cannot see."]
    tell(stream, a_tick(101 + seconds), there)
    assert len(sink.entries) == 2


def test_a_class_that_keeps_changing_is_told_when_it_has_stayed_for_a_while() -> None:
    sink = Kept()
    stream = LogStream(sink)
    for seq in range(QUIET_NS // 10**9):
        tell(stream, a_tick(seq), Verdict((), (), ()))
        tell(stream, a_tick(seq, groups=[taken_for((Class.BATCH, Class.EXEMPT)[seq % 2])]), decided())
    assert len(sink.entries) == 2
    for seq in range(QUIET_NS // 10**9, QUIET_NS // 10**9 + 3):
        tell(stream, a_tick(seq, groups=[taken_for(Class.BATCH)]), decided())
    assert len(sink.entries) == 3
    assert sink.entries[2].text.startswith("program make is classed as batch")


def test_what_is_remembered_has_a_limit() -> None:
    stream = LogStream(Kept())
    for seq in range(3):
        storm = [demotion(f"s-{seq}.{n}", n, group=f"{seq}-{n}") for n in range(REMEMBERED // 2)]
        tell(stream, a_tick(seq), decided(*storm), *(came(Status.APPLIED, it) for it in storm))
    assert len(stream._logged) == len(stream._made) == REMEMBERED


def test_what_was_told_long_ago_is_forgotten() -> None:
    stream = LogStream(Kept())
    for seq in range(300):
        decision = a_decision(action=Flag("web", ProcId(seq, 1), "leak"))
        tell(stream, a_tick(seq), Verdict((), (Refusal(decision, "budget", "."),), ()))
    assert len(stream._refused) == 300
    tell(stream, a_tick(302 + QUIET_NS // 10**9), decided())
    assert not stream._refused


def test_what_is_logged_elsewhere_is_an_event() -> None:
    sink = Kept()
    handler, logger = Forward(LogStream(sink)), logging.getLogger("nicety.scheduler.pools.sensing.main_process")
    logging.getLogger("nicety").addHandler(handler)
    try:
        logger.info("pool %s: adopted", "web")
        logger.warning("pool %s: %s", "web", "pid file /run/web.pid does not exist")
        try:
            raise ValueError("odd")
        except ValueError:
            logger.exception("tick failed")
    finally:
        logging.getLogger("nicety").removeHandler(handler)
    absent, failed = sink.entries
    assert (absent.kind, absent.priority, absent.text) == ("event", WARNING, "pool web: pid file /run/web.pid does not exist")
    assert abs(absent.wall - time.time_ns()) < 60 * 10**9
    assert (failed.priority, failed.text) == (ERROR, "tick failed")
    assert json.loads(json_line(failed))["traceback"].endswith("ValueError: odd\n")


# --- sinks --------------------------------------------------------------------------------------------------------------------


def hostile_entry() -> Entry:
    sink = Kept()
    decision = a_decision(
        target=f"group {HOSTILE}", action=Set(Control.CPU_SHARES, CgroupPlace(f"/{HOSTILE}"), 19), policy="priority"
    )
    tell(LogStream(sink), a_tick(1), decided(decision), an_outcome(Status.FAILED, detail=HOSTILE))
    (entry,) = sink.entries
    return entry


def is_clean(line: str) -> bool:
    return line.isprintable()


def test_no_hostile_name_gets_through_to_a_terminal() -> None:
    line = terminal_line(hostile_entry())
    assert is_clean(line)
    assert "\\x1b" in line


def test_no_hostile_name_gets_through_to_a_file_and_json_keeps_it() -> None:
    line = json_line(hostile_entry())
    assert is_clean(line)
    assert line.isascii()
    record = json.loads(line)
    assert record["target"] == f"group {HOSTILE}"
    assert record["kind"] == "decision"


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=st.characters(), max_size=30))
def test_any_name_is_one_clean_line_on_every_sink(name: str) -> None:
    entry = Entry(1_700_000_000 * 10**9, "decision", 5, name, name, name, name, {"target": name, "figures": {name: name}})
    assert is_clean(terminal_line(entry))
    assert json.loads(json_line(entry))["target"] == name
    assert is_clean(json_line(entry))
    event = Entry(0, "event", 5, "", "", "", name, {"error": name})
    assert is_clean(terminal_line(event))
    assert is_clean(json_line(event))


def test_numbers_that_json_has_no_word_for_become_null() -> None:
    assert json.loads(ascii_json({"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": (1, None, True)}})) == {
        "a": None,
        "b": [None, 1.5],
        "c": {"d": [1, None, True]},
    }


def test_a_line_of_json_tells_when_what_and_why() -> None:
    sink = Kept()
    tell(LogStream(sink), a_tick(1), decided(a_decision()), an_outcome(Status.APPLIED))
    record = json.loads(json_line(sink.entries[0]))
    assert record["at"].startswith("1970-01-01T00:00:02.000")
    assert record["session"] == "5e551017"
    assert record["tick"] == 1
    assert record["mode"] == "act"
    assert record["action"] == {"type": "resize", "pool": "web", "size": 5}
    assert record["rule"] == "forecast floor"


def an_entry(text: str = "x") -> Entry:
    return Entry(0, "event", 6, "", "", "", text)


@pytest.fixture
def no_wait() -> Iterator[None]:
    """A call that waits for ever fails."""

    def waited(_number: int, _frame: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, waited)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", [os.pipe, os.openpty])
def test_a_reader_who_does_not_read_costs_lines_and_no_time(kind: Callable[[], tuple[int, int]], no_wait: None) -> None:
    reading, writing = kind()
    sink = StreamSink(writing, json_line)
    try:
        for _ in range(2 * BUFFER_LIMIT // 1000):
            sink.write(an_entry("y" * 1000))
            sink.flush()
        assert sink.dropped > 0
        received = bytearray()
        while chunk := drain(reading):
            received += chunk
            sink.flush()
        lines = received.decode().splitlines()
        assert len(lines) + sink.dropped == 2 * BUFFER_LIMIT // 1000
        assert all(json.loads(line)["text"] == "y" * 1000 for line in lines)
        assert os.get_blocking(writing), "a shell and others write to it too"
    finally:
        os.close(reading)
        os.close(writing)


def drain(descriptor: int) -> bytes:
    os.set_blocking(descriptor, False)
    try:
        return os.read(descriptor, 1 << 20)
    except BlockingIOError:
        return b""


def test_a_reader_who_left_is_counted_and_not_an_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    sink = StreamSink(writing, json_line)
    sink.write(an_entry())
    sink.write(an_entry())
    sink.flush()
    os.close(writing)
    assert sink.dropped == 2


def test_a_full_disk_is_counted_and_not_an_error() -> None:
    with Path("/dev/full").open("wb") as full:
        sink = StreamSink(full.fileno(), json_line)
        sink.write(an_entry())
        sink.flush()
    assert sink.dropped == 1


class Journal:
    """A socket where the journal's would be."""

    def __init__(self, path: Path) -> None:
        self.channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.channel.bind(str(path))
        self.channel.settimeout(5)

    def receive(self) -> dict[str, str]:
        data, files, _flags, _address = socket.recv_fds(self.channel, 1 << 20, 1)
        if files:
            with os.fdopen(files[0], "rb") as memory:
                memory.seek(0)
                data = memory.read()
        return fields_of(data)


def fields_of(data: bytes) -> dict[str, str]:
    """A reader of the native protocol, after its description."""
    found = {}
    while data:
        name, _, rest = data.partition(b"\n")
        if b"=" in name:
            key, _, value = name.partition(b"=")
            data = rest
        else:
            key = name
            (length,) = struct.unpack("<Q", rest[:8])
            value, data = rest[8 : 8 + length], rest[9 + length :]
        assert key.decode() not in found, "a forged field"
        found[key.decode()] = value.decode()
    return found


def test_the_journal_gets_fields_to_search_by(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "socket")
    stream = LogStream(JournalSink(str(tmp_path / "socket")))
    tell(stream, a_tick(1), decided(a_decision()), an_outcome(Status.APPLIED))
    fields = journal.receive()
    assert fields["NICETY_DECISION"] == "s-1.0"
    assert fields["NICETY_POLICY"] == "pool_size"
    assert fields["NICETY_STATUS"] == "applied"
    assert fields["NICETY_TICK"] == "1"
    assert json.loads(fields["NICETY_FIGURES"])["load"] == 4.0
    assert fields["PRIORITY"] == "5"
    assert fields["SYSLOG_IDENTIFIER"] == "nicety"
    assert fields["MESSAGE"].startswith("pool web: size 5: applied: forecast floor: ")
    journal.channel.close()


def test_no_hostile_name_forges_a_field_of_the_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "socket")
    sink = JournalSink(str(tmp_path / "socket"))
    sink.write(hostile_entry())
    fields = journal.receive()
    assert all(is_clean(value) for value in fields.values())
    assert fields["NICETY_KIND"] == "decision"
    journal.channel.close()


def test_an_entry_too_long_for_a_datagram_still_arrives_whole(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "socket")
    sink = JournalSink(str(tmp_path / "socket"))
    sink.write(an_entry("z" * 1_000_000))
    assert journal.receive()["MESSAGE"] == "z" * 1_000_000
    assert sink.dropped == 0
    journal.channel.close()


def test_a_journal_that_is_gone_or_full_costs_lines_and_no_error(tmp_path: Path) -> None:
    sink = JournalSink(str(tmp_path / "nothing"))
    sink.write(an_entry())
    assert sink.dropped == 1
    journal = Journal(tmp_path / "socket")
    sink = JournalSink(str(tmp_path / "socket"))
    for _ in range(2000):
        sink.write(an_entry())
    assert sink.dropped > 0
    journal.channel.close()


def sink_of(stream: LogStream) -> Any:
    return stream._sink


def test_the_form_of_the_log_is_that_of_its_output(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        assert sink_of(open_log({}, file.fileno()))._line is json_line
        status = os.fstat(file.fileno())
        matching = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert isinstance(sink_of(open_log(matching, file.fileno())), JournalSink)
        assert isinstance(sink_of(open_log({"JOURNAL_STREAM": "1:2"}, file.fileno())), StreamSink)
    ours, terminal = pty.openpty()
    try:
        assert sink_of(open_log({}, terminal))._line is terminal_line
    finally:
        os.close(ours)
        os.close(terminal)


@pytest.mark.parametrize("line", [json_line, terminal_line])
def test_every_kind_of_action_can_be_told(line: Callable[[Entry], str]) -> None:
    worker = ProcId(4711, 99)
    actions: list[Action] = [
        Set(Control.NICE, ProcessPlace(worker), 19),
        Set(Control.AFFINITY, ProcessPlace(worker), (0, 1, 3)),
        Set(Control.CPU_WEIGHT, CgroupPlace("/batch"), 1),
        Restore(Control.AUTOGROUP, SessionPlace(worker.pid, worker)),
        ResizePool("web", 5),
        Recycle("web", worker),
        Flag("web", worker, "leak"),
        Digest(3),
    ]
    assert {type(action) for action in actions} == set(get_args(Action))
    for action in actions:
        sink = Kept()
        tell(LogStream(sink), a_tick(1), decided(a_decision(action=action)), an_outcome(Status.APPLIED))
        assert is_clean(line(sink.entries[0]))


# --- classes and rivals -------------------------------------------------------------------------------------------------------


def taken_for(class_: Class, p: float = 0.974, name: str = "program make") -> Group:
    evidence = (("busy_per_thread", 0.99, 2.0), ("listens", 0.0, 0.5)) if class_ is not Class.EXEMPT else ()
    chances = (p, 0.0) if class_ is Class.INTERACTIVE else (0.01, p)
    group = a_group(name, class_, [a_member(1)])
    values = {field: getattr(group, field) for field in group.__struct_fields__}
    return Group(**{**values, "behaviour": Behaviour(class_, *chances, evidence, "behaviour 3f9a1c2d")})


def test_a_class_is_told_once_when_it_is_decided_and_when_it_changes() -> None:
    sink = Kept()
    stream = LogStream(sink)
    batch, unsure = taken_for(Class.BATCH), taken_for(Class.EXEMPT, 0.61)
    for seq, group in enumerate(
        [unsure, batch, taken_for(Class.BATCH, 0.99), None, batch, unsure, unsure, taken_for(Class.INTERACTIVE)]
    ):
        tell(stream, a_tick(seq, groups=[] if group is None else [group]), decided())
    signs = "never sleeps (each thread wants a CPU 99 % of the time), has no listening network socket"
    assert [entry.text for entry in sink.entries] == [
        f"program make is classed as batch (97 %): {signs}",
        "program make is no longer classed as batch (interactive 1 %, batch 61 %): left alone",
        f"program make is classed as interactive (97 %): {signs}",
    ]
    assert {(entry.kind, entry.priority) for entry in sink.entries} == {("class", INFO)}


def test_why_a_class_is_taken_back_is_told() -> None:
    sink = Kept()
    stream = LogStream(sink)
    group = taken_for(Class.EXEMPT)
    values = {field: getattr(group, field) for field in group.__struct_fields__}
    spared = Group(**{**values, "behaviour": replace(values["behaviour"], spared=Spared.SERVER)})
    for seq, now in enumerate([taken_for(Class.BATCH), spared]):
        tell(stream, a_tick(seq, groups=[now]), decided())
    _, taken_back = sink.entries
    assert taken_back.text == (
        "program make is no longer classed as batch (interactive 1 %, batch 97 %), but it works for a server: left alone"
    )
    assert json.loads(json_line(taken_back))["spared"] == "server"


def test_a_pinned_class_is_not_told() -> None:
    sink = Kept()
    tell(LogStream(sink), a_tick(1, groups=[a_group("hogs", Class.BATCH, [a_member(1)])]), decided())
    assert sink.entries == []


def test_a_storm_of_programs_costs_no_memory() -> None:
    stream = LogStream(Kept())
    for seq in range(3):
        tell(
            stream,
            a_tick(seq, groups=[taken_for(Class.BATCH, name=f"program {seq}-{i}") for i in range(REMEMBERED // 2)]),
            decided(),
        )
    assert len(stream._classes) == REMEMBERED


def test_a_class_is_one_line_of_json_with_its_figures() -> None:
    sink = Kept()
    tell(LogStream(sink), a_tick(1, groups=[taken_for(Class.BATCH)]), decided())
    record = json.loads(json_line(sink.entries[0]))
    assert (record["kind"], record["group"], record["class"], record["p_batch"]) == ("class", "program make", "batch", 0.974)
    assert record["evidence"][0] == ["busy_per_thread", 0.99, 2.0]
    assert terminal_line(sink.entries[0]).partition("  ")[2].startswith("class     program make is classed as batch")


def test_a_rival_is_told_when_it_comes_and_when_it_ends() -> None:
    sink = Kept()
    stream = LogStream(sink)
    for seq, rivals in enumerate([(), ("irqbalance",), ("ananicy-cpp", "irqbalance"), ("ananicy-cpp",), ()]):
        tell(stream, a_tick(seq, machine=a_machine(rivals=rivals)), decided())
    came, ended = sink.entries
    assert came.text.startswith("ananicy-cpp runs, which renices by a list of program names")
    assert came.text.endswith("nicety leaves these to it while it runs: nice, policy")
    assert ended.text == "ananicy-cpp ended: nicety uses these again: nice, policy"
    assert came.priority == NOTICE


def test_a_demotion_names_its_victim_and_mechanism() -> None:
    figures: dict[str, float | int | str] = {"victim": "program redis-server", "mechanism": "autogroup", "level": 1.0}
    why = Why("contention now", "Somebody waits.", figures, (), ())
    action = Set(Control.AUTOGROUP, SessionPlace(4711, ProcId(4711, 4711)), 19)
    sink = Kept()
    tell(LogStream(sink), a_tick(1), decided(Decision("s-1.0", "priority", "group x session 4711", action, why)))
    (entry,) = sink.entries
    assert entry.text == "contention now: Somebody waits. [victim program redis-server, mechanism autogroup]"
    assert (entry.fields["victim"], entry.fields["mechanism"]) == ("program redis-server", "autogroup")
