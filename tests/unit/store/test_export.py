"""Exports: every figure that was read, unknown as nothing, whole or not at all, and harmless to open."""

from __future__ import annotations

import builtins
import csv
import json
import sqlite3
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, HostSample, Identity, Snapshot, Trait
from nicety.scheduler.decision import Abilities, Decision, Effect, Outcome, Refusal, ResizePool, Session, Verdict, Why
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.safe_files import StoreError
from nicety.scheduler.store.decisions import DecisionLog
from nicety.scheduler.store.export import COLUMNS, Format, export, export_decisions
from nicety.scheduler.store.traces import TraceError, TraceWriter
from nicety.scheduler.testing.ticks import a_tick

NOON = 1_760_011_200 * 10**9 + 123_456_789
ALL = 31

Row = dict[str, Any]


def snapshot(tick: int, names: Sequence[str] = ("sleep", "worker"), known: Sequence[int] = (ALL, 0)) -> Snapshot:
    table = np.zeros(len(names), dtype=SAMPLE)
    table["pid"], table["start_ticks"], table["ppid"], table["session"] = np.arange(10, 10 + len(names)), 2**63 + 1, 1, 4
    for name in ("cpu_ns", "wait_ns", "timeslices", "rss_bytes", "read_chars", "write_chars", "read_bytes", "write_bytes", "fds"):
        table[name] = 100 + tick
    table["nice"], table["state"], table["known"] = -5, ord("S"), known
    table["traits"] = Trait.SERVES | Trait.TERMINAL | Trait.READS_KEYSTROKES
    return Snapshot(
        at=10**13 + tick,
        wall=NOON + tick * 10**9,
        uptime_ticks=5,
        table=table,
        identities={
            ProcId(10 + at, 2**63 + 1): Identity(name, f"{name} -x", "/a", "u.service", 1000, 8001 if at == 0 else 0)
            for at, name in enumerate(names)
        },
        host=HostSample((1,), 1, 1, None),
        pools=(),
    )


def record(directory: Path, snapshots: Sequence[Snapshot]) -> Path:
    traces = TraceWriter(directory / "state", boot_id="boot-1", session="aaaa0001", budget_bytes=1 << 30, interval=1.0)
    for one in snapshots:
        traces.append(one)
    traces.close()
    return directory / "state"


def read(path: Path, kind: Format) -> list[Row]:
    """The rows of an export, csv cells as text."""
    if kind == "csv":
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    if kind == "jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    import pyarrow.parquet

    rows: list[Row] = pyarrow.parquet.read_table(path, page_checksum_verification=True).to_pylist()
    return rows


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_every_format_has_every_figure_and_nothing_for_what_was_not_read(tmp_path: Path, kind: Format) -> None:
    state = record(tmp_path, [snapshot(0), snapshot(1)])
    done = export(state, tmp_path / "out", kind)
    assert (done.rows, done.ticks, done.lost) == (4, 2, ())
    rows = read(tmp_path / "out", kind)
    assert list(rows[0]) == list(COLUMNS)
    who = {
        "pid": 11,
        "start_ticks": 2**63 + 1,
        "comm": "worker",
        "program": "worker -x",
        "cgroup": "/a",
        "unit": "u.service",
        "uid": 1000,
        "owner": 1000,
    }
    when = {"at_ns": 10**13 + 1, "wall": "2025-10-09T12:00:01.123456Z", "wall_ns": NOON + 10**9, "machine_cpus": 1}
    read_of_it = {
        "ppid": 1,
        "kernel_session": 4,
        "state": "S",
        "nice": -5,
        "cpu_ns": 101,
        "cpu_exact": False,
        "rss_bytes": 101,
        "terminal": True,
        "pipe_fed": False,
        "pipe_server": False,
    }
    zeros = dict.fromkeys(("policy", "threads", "last_cpu", "minor_faults", "major_faults", "child_faults", "child_cpu_ns"), 0)
    unknown = dict.fromkeys(
        (
            *("wait_ns", "timeslices", "read_chars", "write_chars", "read_bytes", "write_bytes", "fds"),
            *("port", "serves", "serves_locally", "reads_keystrokes", "has_window"),
        ),
        "" if kind == "csv" else None,
    )
    expected: Row = {"session": "aaaa0001", "boot_id": "boot-1", **who, **when, **read_of_it, **zeros, **unknown}
    if kind == "csv":
        expected = {name: str(value) for name, value in expected.items()}
    assert rows[3] == expected
    whole = rows[2]
    assert str(whole["port"]) == "8001"
    assert [str(whole[name]) for name in ("serves", "serves_locally", "terminal", "reads_keystrokes")] == [
        "True",
        "False",
        "True",
        "True",
    ]
    assert [str(whole[name]) for name in ("pid", "wait_ns", "timeslices", "read_chars", "fds", "cpu_exact")] == [
        "10",
        *["101"] * 4,
        "True",
    ]


def test_a_time_and_a_session_can_be_chosen_and_progress_is_told(tmp_path: Path) -> None:
    state = record(tmp_path, [snapshot(tick) for tick in range(10)])
    told: list[int] = []
    done = export(state, tmp_path / "out", "jsonl", since=NOON + 3 * 10**9, until=NOON + 6 * 10**9, progress=told.append)
    assert (done.ticks, done.rows, told) == (3, 6, [1, 2, 3])
    assert export(state, tmp_path / "out", "jsonl", session="absent").rows == 0
    assert (tmp_path / "out").read_bytes() == b""


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_an_empty_export_is_a_valid_file(tmp_path: Path, kind: Format) -> None:
    state = record(tmp_path, [snapshot(0)])
    assert export(state, tmp_path / "out", kind, since=NOON * 2).rows == 0
    assert read(tmp_path / "out", kind) == []


def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    names = ["=1+1", "+cmd", "-cmd", "@SUM(A1)", 'say "hi", all', "plain"]
    state = record(tmp_path, [snapshot(0, names, [ALL] * len(names))])
    export(state, tmp_path / "out.csv", "csv")
    rows = read(tmp_path / "out.csv", "csv")
    assert [row["comm"] for row in rows] == ["'=1+1", "'+cmd", "'-cmd", "'@SUM(A1)", 'say "hi", all', "plain"]
    assert {row["nice"] for row in rows} == {"-5"}
    export(state, tmp_path / "out.jsonl", "jsonl")
    assert [row["comm"] for row in read(tmp_path / "out.jsonl", "jsonl")] == names


def test_damage_is_told_and_the_rest_is_exported(tmp_path: Path) -> None:
    state = record(tmp_path, [snapshot(tick) for tick in range(10)])
    db = sqlite3.connect(state / "traces" / "2025-10-09.db", isolation_level=None)
    db.execute("UPDATE ticks SET crc = crc + 1 WHERE id & 0xffffffff = 6")
    db.close()
    done = export(state, tmp_path / "out", "csv")
    assert done.ticks == 6
    assert done.lost == ("2025-10-09.db, session aaaa0001, ticks 6 to 9: the checksum does not hold",)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    state = record(tmp_path, [snapshot(tick) for tick in range(5)])
    out = tmp_path / "exports" / "out"
    out.parent.mkdir()
    out.write_text("what was there before")

    class StopError(Exception):
        pass

    def stop(tick: int) -> None:
        if tick == 3:
            raise StopError

    for kind in ("csv", "jsonl", "parquet"):
        with pytest.raises(StopError):
            export(state, out, kind, progress=stop)
        assert out.read_text() == "what was there before"
        assert list(out.parent.iterdir()) == [out]
    export(state, out, "csv")
    assert list(out.parent.iterdir()) == [out]
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_a_link_at_the_output_is_replaced_and_not_followed(tmp_path: Path) -> None:
    state = record(tmp_path, [snapshot(0)])
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "out").symlink_to(victim)
    export(state, tmp_path / "out", "csv")
    assert victim.read_text() == "precious"
    assert not (tmp_path / "out").is_symlink()


def test_what_cannot_be_written_or_read_says_why_and_what_to_do(tmp_path: Path) -> None:
    state = record(tmp_path, [snapshot(0)])
    with pytest.raises(StoreError, match="is a directory; give the name of a file"):
        export(state, tmp_path, "csv")
    with pytest.raises(StoreError, match="the directory is not there: create it"):
        export(state, tmp_path / "absent" / "out", "csv")
    with pytest.raises(StoreError, match="choose csv, jsonl or parquet"):
        export(state, tmp_path / "out", "xlsx")  # type: ignore[arg-type]
    (tmp_path / "empty").mkdir()
    with pytest.raises(TraceError, match="nicety record"):
        export(tmp_path / "empty", tmp_path / "out", "csv")
    assert not (tmp_path / "out").exists()


def test_without_pyarrow_the_error_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = record(tmp_path, [snapshot(0)])
    whole = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return whole(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(StoreError, match=r"pip install '\.\[parquet\]'"):
        export(state, tmp_path / "out", "parquet")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A decision that helped and a refusal."""
    why = Why("=floor", "because", {"load": 1.5}, (), ())
    done = Decision("1-0.0", "pool_size", "pool web", ResizePool("web", 3), why)
    refused = Decision("1-0.1", "pool_size", "pool api", ResizePool("api", 9), why)
    writer = DecisionLog(tmp_path, 1 << 30)
    own = ProcId(9, 9)
    writer.begin(Session("00000001", "boot", 1, "0", "act", own, Abilities(True, "v2", True), {}, {}, {}))
    outcome = Outcome("1-0.0", Status.APPLIED, "pool web", "asked for 3", 1)
    writer.append(a_tick(0), Verdict((done,), (Refusal(refused, "limits", "at most 8"),), ()), (outcome,))
    writer.append(a_tick(1), Verdict((), (), (Effect("1-0.0", "wait", 0.5, 0.25, 3, "helped"),)), ())
    writer.close()
    return tmp_path / "decisions.db"


def test_decisions_are_exported_with_what_became_of_them(tmp_path: Path, log: Path) -> None:
    done = export_decisions(log, tmp_path / "out.jsonl", "jsonl")
    assert (done.rows, done.lost) == (2, ())
    first, second = read(tmp_path / "out.jsonl", "jsonl")
    assert (first["id"], first["status"], first["outcomes"][0]["detail"]) == ("1-0.0", "applied", "asked for 3")
    assert (first["effects"][0]["verdict"], first["wall"]) == ("helped", "1970-01-01T00:00:01.000000Z")
    assert (second["status"], second["refusal"]["rule"]) == ("refused by guard", "limits")
    export_decisions(log, tmp_path / "out.csv", "csv")
    first, second = read(tmp_path / "out.csv", "csv")
    assert [first[name] for name in ("rule", "figures", "outcome", "effect", "before", "after", "refused_by")] == [
        *("'=floor", '{"load":1.5}', "asked for 3", "helped", "0.5", "0.25", ""),
    ]
    assert [second[name] for name in ("outcome", "refused_by", "refused_because")] == ["", "limits", "at most 8"]


def test_a_damaged_decision_is_told_and_left_out(tmp_path: Path, log: Path) -> None:
    db = sqlite3.connect(log, isolation_level=None)
    db.execute("UPDATE decisions SET decision = replace(decision, '\"size\":3', '\"size\":4')")
    db.close()
    done = export_decisions(log, tmp_path / "out", "jsonl")
    assert done.lost == ("decision 1-0.0 (number 1): its checksum does not hold",)
    assert [row["id"] for row in read(tmp_path / "out", "jsonl")] == ["1-0.1"]
