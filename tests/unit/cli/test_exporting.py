"""`nicety export`: which format it takes, which time, and how long work says how far it has come."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from nicety.scheduler.cli import shared, trying
from nicety.scheduler.cli.shared import Progress
from nicety.scheduler.store.decisions import DecisionReader, TickPlace
from nicety.scheduler.store.traces import count_rows
from nicety.scheduler.testing.clock import FakeClock
from nicety.scheduler.testing.past import SECOND, write_past, write_traces

TICKS = 50
NAMES = ["a", "b", "c"]

Invoke = Callable[..., Any]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A minute of traces and decisions that ends now."""
    end = time.time_ns()
    write_traces(tmp_path / "state", end=end, ticks=TICKS, names=NAMES)
    write_past(tmp_path / "state", end=end, ticks=TICKS, names=NAMES)
    return tmp_path / "state"


@pytest.mark.parametrize(
    ("name", "much", "head"),
    [
        ("x.csv", 0, b"session,"),
        ("x.jsonl", 0, b'{"sess'),
        ("x.parquet", 10**9, b"PAR1"),
        ("x", 10**9, b"session,"),
        ("x", 3 * TICKS - 1, b"PAR1"),
        ("x", 3 * TICKS, b"session,"),
    ],
)
def test_the_format_is_that_of_the_name_or_parquet_for_much(
    nicety: Invoke, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, much: int, head: bytes
) -> None:
    monkeypatch.setattr(trying, "MUCH", much)
    assert nicety("--state-dir", state, "export", "traces", "-o", tmp_path / name).code == 0
    assert (tmp_path / name).read_bytes().startswith(head)


def test_only_the_time_between_since_and_until_is_exported(nicety: Invoke, state: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.parquet"
    said = nicety("--state-dir", state, "export", "traces", "-o", out, "--since", "1h", "--until", "30m")
    assert (said.code, pyarrow.parquet.read_table(out).num_rows) == (0, 0)
    said = nicety("--state-dir", state, "export", "traces", "-o", out, "--since", "1h", "--until", "20s")
    assert 0 < pyarrow.parquet.read_table(out).num_rows <= 3 * (TICKS - 19)
    assert nicety("--state-dir", state, "export", "decisions", "-o", tmp_path / "d.csv", "--until", "1h").code == 0
    assert len((tmp_path / "d.csv").read_text().splitlines()) == 1


def test_rows_are_counted_without_reading_them(state: Path) -> None:
    end = time.time_ns()
    assert count_rows(state) == 3 * TICKS
    assert count_rows(state, since=end - 3600 * SECOND, until=end + SECOND) == 3 * TICKS
    assert count_rows(state, until=end - 3600 * SECOND) == 0


def test_many_rows_are_the_same_in_every_format(nicety: Invoke, tmp_path: Path) -> None:
    """More than one piece of each format is written."""
    names = [f"worker {number}" for number in range(2500)]
    write_traces(tmp_path / "state", end=time.time_ns(), ticks=60, names=names)
    for form in trying.Format:
        assert nicety("--state-dir", tmp_path / "state", "export", "traces", "-o", tmp_path / f"x.{form}").code == 0
    table = pyarrow.parquet.read_table(tmp_path / "x.parquet")
    assert table.num_rows == 60 * 2500
    assert table["comm"].to_pylist() == names * 60
    assert len((tmp_path / "x.csv").read_text().splitlines()) == len((tmp_path / "x.jsonl").read_text().splitlines()) + 1
    assert table["cpu_ns"].to_pylist()[::2500] == [at * SECOND for at in range(1, 61)]


def test_the_place_of_a_time_is_the_first_tick_since_it(state: Path) -> None:
    with DecisionReader(state) as reader:
        ticks = [it.tick.wall for it in reader.ticks() if it.tick is not None]

        def seq(place: TickPlace | None) -> int | None:
            return None if place is None else place.seq

        assert seq(reader.place_since(0)) == 0
        assert seq(reader.place_since(ticks[7])) == 7
        assert seq(reader.place_since(ticks[7] + 1)) == 8
        assert seq(reader.place_since(ticks[-1])) == TICKS - 1
        assert reader.place_since(ticks[-1] + 1) is None


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    monkeypatch.setattr(shared, "system_clock", lambda: clock)
    with Progress("ticks", 500) as progress:
        for done in range(1, 251):
            clock.advance(100_000_000)
            progress(done)
    assert [line.partition(" ")[2] for line in capsys.readouterr().err.splitlines()] == ["of 500 ticks"] * 2


def test_progress_is_one_line_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    monkeypatch.setattr(shared, "system_clock", lambda: clock)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Progress("ticks") as progress:
        for done in range(1, 4):
            clock.advance(250_000_000)
            progress(done)
    assert capsys.readouterr().err == "\r1 ticks\x1b[K\r2 ticks\x1b[K\r3 ticks\x1b[K\r\x1b[K"
