"""What fuzzing found, each with the few bytes that showed it: docs/fuzzing.md."""

from __future__ import annotations

import importlib
import json
import resource
import socket
import sqlite3
import threading
import time
import zlib
from collections import deque
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, HostSample, Quota, Snapshot
from nicety.scheduler.config.sections import ConfigError, parse
from nicety.scheduler.decision import Abilities, Decision, Outcome, ResizePool, Session, Verdict, Why
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.safe_files import StoreError
from nicety.scheduler.service.answers.control_socket import ControlError, ask
from nicety.scheduler.store import codec, decisions
from nicety.scheduler.store.codec import CodecError, decode, encode
from nicety.scheduler.store.decisions import DecisionLog, DecisionReader
from nicety.scheduler.store.export import export_decisions
from nicety.scheduler.store.traces import TraceWriter, newest_pools
from nicety.scheduler.testing.ticks import a_tick

bounds: Any = importlib.import_module("benchmarks.fuzz.bounds")

# --- the control socket -------------------------------------------------------------------------------------------------------

ANSWERS = (
    b"\n",
    b"[]\n",
    b"null\n",
    b"{}\n",
    b'{"ok": false}\n',
    b'{"ok": "yes"}\n',
    b"\xff\n",
    b"[" * 4000 + b"\n",
    b'{"ok": true}\n{"ok": true}\n',
)


@pytest.mark.parametrize("said", ANSWERS, ids=lambda said: said[:20])
def test_what_is_no_answer_of_a_daemon_is_an_error_that_says_so(tmp_path: Path, said: bytes) -> None:
    def serve() -> None:
        with listener.accept()[0] as channel:
            channel.recv(4096)
            channel.sendall(said)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        server = threading.Thread(target=serve)
        server.start()
        with pytest.raises(ControlError, match="does not answer as a nicety"):
            ask(tmp_path / "s", "status")
        server.join()


# --- the configuration --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '[groups."x\\nnicety: all is well"]\nprogram = "x"\n',
        '[daemon]\nact_on = ["\\u001b[2J\\n"]\n',
    ],
)
def test_a_text_of_the_configuration_forges_no_line_of_an_error(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert [problem.isprintable() for problem in caught.value.problems] == [True]


@pytest.mark.parametrize("line", ['"x",\n', '["]"], # [\n'])
def test_the_place_of_an_error_below_a_list_of_many_lines_is_found_in_time(line: str) -> None:
    began = time.process_time()
    with pytest.raises(ConfigError) as caught:
        parse("[daemon]\nwhat = [\n" + line * 4000 + "]\nact = 1\n", "n.toml")
    assert any(problem.startswith("n.toml:4004: daemon.act: ") for problem in caught.value.problems)
    assert time.process_time() - began < 1, "quadratic: nine seconds"


def test_a_key_of_thousands_of_names_is_an_unknown_key() -> None:
    with pytest.raises(ConfigError, match="1: x: unknown key"):
        parse("x" + ".a" * 1200 + " = 1\n", "n.toml")


# --- traces -------------------------------------------------------------------------------------------------------------------


def record(rows: int, written: int, marks: bytes, rest: bytes) -> bytes:
    """A record by hand: only the plane of marks for new processes is not zero."""
    header = b"".join(number.to_bytes(4, "little") for number in (rows, written, 0, len(rest)))
    planes = bytes([0b1000 if marks else 0]) + b"\0" * ((5 + SAMPLE.itemsize + 7) // 8 - 1)
    return zlib.compress(header + planes + marks + b"\0" + rest)


def rest(place: int, number: int, each: bytes) -> bytes:
    """The rest of a record, with a list of so many equal elements at one place."""
    values: list[Any] = [0, [], [], [1], 0, 0, None, 0, 0, 0, [], None, []]
    parts = [msgspec.msgpack.encode(value) for value in values]
    parts[place] = b"\xdd" + number.to_bytes(4, "big") + each * number
    return b"\x9d" + b"".join(parts)


MANY = 1 << 21
WORKERS = b"\x98\xa0\0\0\xc0\xdd" + (100_000).to_bytes(4, "big") + b"\x94\0\0\xc0\xc3" * 100_000 + b"\xc0\xc0\xa0"
BOMBS = {
    "new rows": record(MANY, MANY, b"\1" * MANY, b""),
    "rows that are nowhere": record(MANY, 0, b"", b""),
    "zeros": zlib.compress(b"\0" * (1 << 28)),
    "cpus": record(0, 0, b"", rest(3, MANY, b"\0")),
    "identities": record(0, 0, b"", rest(1, MANY // 4, b"\x99\0\0\xa0\xa0\xa0\xa0\0\0\x90")),
    "pools": record(0, 0, b"", rest(10, MANY // 4, b"\x98\xa0\0\0\xc0\x90\xc0\xc0\xa0")),
    "workers": record(0, 0, b"", rest(10, 16, WORKERS)),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_record_of_some_kilobytes_takes_neither_a_second_nor_half_a_gigabyte(bomb: str) -> None:
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(CodecError):
        decode(BOMBS[bomb], None, at=0, wall=0)
    assert time.process_time() - began < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 << 10


def a_snapshot(processes: int, *, names: str = "") -> Snapshot:
    table = np.zeros(processes, dtype=SAMPLE)
    table["pid"] = np.arange(1, processes + 1)
    return Snapshot(1, 10**18, 3, table, {}, HostSample((1,), 1, 1, None), (), ((Quota(names, 1),) if names else ()))


@pytest.mark.parametrize("most", ["MAX_ROWS", "MAX_REST"])
def test_what_no_reader_would_believe_is_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: str) -> None:
    monkeypatch.setattr(codec, most, 200)
    for number, fits in ((200, True), (201, False)):
        if most == "MAX_ROWS":
            now = a_snapshot(number)
        else:
            now = a_snapshot(
                1, names="x" * (number - len(codec._PACK.encode(codec._rest(a_snapshot(1, names="x" * 100), None, set()))) + 100)
            )
        writer = TraceWriter(tmp_path / f"{number}", boot_id="b", session="s", budget_bytes=1 << 30, interval=1.0)
        writer.append(now)
        writer.close()
        assert (writer.dropped == 0) is fits
        if fits:
            assert decode(encode(now, None), None, at=1, wall=2).quotas == now.quotas
        else:
            assert "can be recorded" in writer.last_error


def test_a_session_with_an_impossible_number_does_not_stop_the_search_for_pools(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path, boot_id="b", session="s", budget_bytes=1 << 30, interval=1.0)
    writer.append(a_snapshot(2))
    writer.close()
    (path,) = (tmp_path / "traces").iterdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE sessions SET number = ?", (2**62,))
    assert list(newest_pools(path, before="s")) == []


def test_a_damaged_index_does_not_lead_round_in_a_circle(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path, boot_id="b", session="s", budget_bytes=1 << 30, interval=1.0)
    for _ in range(4):
        writer.append(a_snapshot(4))
    writer.close()
    (path,) = (tmp_path / "traces").iterdir()
    with closing(sqlite3.connect(path)) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'ticks'").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096 + 10)  # where the second row is
        file.write(b"\0")
    with bounds.Bounded(lambda _: deque(newest_pools(path), 0), memory=None) as bounded:
        assert bounded.run(b"") is None


# --- the decision log ---------------------------------------------------------------------------------------------------------


def test_a_damaged_tree_of_ticks_does_not_lead_round_in_a_circle(tmp_path: Path) -> None:
    writer = DecisionLog(tmp_path, 1 << 30)
    writer.begin(Session("s", "b", 1, "0", "act", ProcId(9, 9), Abilities(True, "v2", True), {}, {}, {"n": 0}))
    for seq in range(3):
        writer.append(a_tick(seq), Verdict((), (), ()), ())
    writer.close()
    path = tmp_path / "decisions.db"
    with closing(sqlite3.connect(path)) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'ticks'").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096 + 8)  # where the first row is
        file.write((1000).to_bytes(2, "big"))
        file.seek((page - 1) * 4096 + 1000)
        file.write(
            b"\xa5" * 3 + b"\xff" * 20 + b".5"
        )  # SQLite takes this id for 53 when it looks for it, and for -1 when it reads it
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT id FROM ticks WHERE id >= 0 ORDER BY id LIMIT 1").fetchall() == [(-1,)]
    with DecisionReader(path) as reader, bounds.Bounded(lambda _: reader.tick("another", 1), memory=None) as bounded:
        assert bounded.run(b"") is None


def test_a_schema_that_is_malformed_is_damage(log: Path) -> None:
    raw = log.read_bytes()
    at = raw.index(b"tableevidenceevidence")  # the lengths of its fields stand before it
    log.write_bytes(raw[: at - 12] + b"\xff" * 11 + b"\xfb\x27\x97" + raw[at + 2 :])
    with closing(sqlite3.connect(log)) as db, pytest.raises(MemoryError):
        db.execute("SELECT count(*) FROM sqlite_master")
    with pytest.raises(StoreError, match="cannot be opened: its schema is malformed"):
        DecisionReader(log)
    writer = DecisionLog(log.parent, 1 << 30)
    writer.begin(Session("s", "b", 1, "0", "act", ProcId(9, 9), Abilities(True, "v2", True), {}, {}, {"n": 0}))
    assert writer.set_aside is not None, "a daemon begins a new one"
    assert writer.set_aside.exists()
    writer.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of two ticks with a decision each; the first has an outcome."""
    writer = DecisionLog(tmp_path, 1 << 30)
    writer.begin(Session("s", "b", 1, "0", "act", ProcId(9, 9), Abilities(True, "v2", True), {}, {}, {"n": 0}))
    why = Why("floor", "because", {}, (), ())
    for seq, name in enumerate(("1-0.0", "1-1.0")):
        decision = Decision(name, "pool_size", "pool web", ResizePool("web", 3), why)
        writer.append(a_tick(seq), Verdict((decision,), (), ()), [Outcome("1-0.0", Status.APPLIED, "pool web", "done", 1)][seq:])
    writer.close()
    return tmp_path / "decisions.db"


DAMAGE = {
    "a decision that is no JSON": "UPDATE decisions SET decision = '{' WHERE n = 1",
    "a decision of another shape": "UPDATE decisions SET decision = 'null' WHERE n = 1",
    "a decision that nests without end": f"UPDATE decisions SET decision = '{'[' * 2000}' WHERE n = 1",
    "a refusal that is empty": "UPDATE decisions SET refusal = '' WHERE n = 1",
    "an outcome that is no JSON": "UPDATE outcomes SET record = '{'",
    "an outcome of another shape": "UPDATE outcomes SET record = 'null'",
    "a time that is a text": "UPDATE decisions SET wall = 'x' WHERE n = 1",
    "a target that is a blob": "UPDATE decisions SET target = x'00' WHERE n = 1",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_decision_is_an_error_where_it_stands_and_the_others_are_read(log: Path, damage: str) -> None:
    with closing(sqlite3.connect(log, isolation_level=None)) as db:
        db.execute(DAMAGE[damage])
    with DecisionReader(log) as reader:
        with pytest.raises(StoreError, match="cannot be read there"):
            reader.find()
        lost, whole = reader.all_decisions()
        assert isinstance(lost, str)
        assert lost.startswith("decision number 1 cannot be read")
        assert not isinstance(whole, str)
        assert (whole.id, whole.decision.action) == ("1-1.0", ResizePool("web", 3))
    exported = export_decisions(log, log.with_name("out"), "csv")
    assert (exported.rows, exported.lost) == (1, (lost,))


def test_damaged_sessions_and_ticks_are_reported_and_no_error_of_another_kind(log: Path) -> None:
    with closing(sqlite3.connect(log, isolation_level=None)) as db:
        db.execute("INSERT INTO sessions SELECT ?, id, 'x', record, crc FROM sessions", (7,))
        db.execute("INSERT INTO sessions SELECT ?, id, wall, record, crc FROM sessions WHERE number = 1", (2**62,))
        db.execute("UPDATE ticks SET id = -5 WHERE id & 1")
    with DecisionReader(log) as reader:
        assert [(each.wall, each.damage) for each in reader.sessions()] == [(1, ""), (0, "its time cannot be read")]
        assert [(it.seq, it.damage) for it in reader.ticks()] == [(0, ()), (1, ("tick 1 missing",))]
        latest = reader.latest()
        assert latest is not None
        assert latest.seq == 0


@pytest.mark.parametrize("record", [None, "{", "{}", "[" * 2000])
def test_a_damaged_snapshot_of_a_process_is_an_error_of_the_log(log: Path, record: str | None) -> None:
    with closing(sqlite3.connect(log, isolation_level=None)) as db:  # damage does not know of NOT NULL
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_master SET sql = replace(sql, 'record TEXT NOT NULL', 'record TEXT') WHERE name = 'evidence'")
    with closing(sqlite3.connect(log, isolation_level=None)) as db:
        db.execute("INSERT INTO evidence(tick, decision, record) VALUES (1, '1-0.0', ?)", (record,))
    with DecisionReader(log) as reader, pytest.raises(StoreError, match="cannot be read there"):
        reader.evidence("1-0.0")


def test_a_log_whose_ticks_all_have_impossible_numbers_has_no_latest_one(log: Path) -> None:
    with closing(sqlite3.connect(log, isolation_level=None)) as db:
        db.execute("UPDATE ticks SET id = -5 - id")
    with DecisionReader(log) as reader:
        assert reader.latest() is None


def test_a_record_that_nests_without_end_is_damage(log: Path) -> None:
    with closing(sqlite3.connect(log, isolation_level=None)) as db:
        (record, crc) = db.execute("SELECT record, crc FROM sessions").fetchone()
        deep = json.loads(zlib.decompress(record))
        data = json.dumps(deep).replace('"config": {}', '"config": {"a": ' + "[" * 2000 + "]" * 2000 + "}").encode()
        db.execute("UPDATE sessions SET record = ?, crc = ?", (zlib.compress(data), decisions._crc(1, data)))
    assert crc != decisions._crc(1, data)
    with DecisionReader(log) as reader:
        (session,) = reader.sessions()
    assert session.session is None
    assert "not a record of this version" in session.damage


def test_what_no_reader_would_unpack_is_not_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "MAX_BYTES", 2000)
    writer = DecisionLog(tmp_path, 1 << 30)
    writer.begin(Session("s", "b", 1, "0", "act", ProcId(9, 9), Abilities(True, "v2", True), {}, {}, {"n": 0}))
    writer.append(a_tick(0), Verdict((), (), ()), ())
    writer.append(a_tick(1), Verdict((), (), ()), (), {"n": "x" * 2000})
    said = writer.last_error
    writer.append(a_tick(2), Verdict((), (), ()), (), {"n": 0})
    writer.close()
    assert (writer.dropped, said) == (1, "a record of 2008 bytes is not logged: at most 2000 are read back")
    with DecisionReader(tmp_path) as reader:
        assert [it.seq for it in reader.ticks() if not it.damage] == [0, 2]
