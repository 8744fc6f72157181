"""What the campaign complains of: benchmarks/faults/program.py and writing.py, on ends that were made by hand."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

program: Any = importlib.import_module("benchmarks.faults.program")
writing: Any = importlib.import_module("benchmarks.faults.writing")
strace: Any = importlib.import_module("benchmarks.faults.strace")

REASON = "nicety: cannot write it: No space left on device; free space on that disk\n"
FAILED = strace.Fault("ENOSPC", "write", 1)
KILLED = strace.Fault("kill", "write", 1)


def end(code: int | None = 1, err: str = REASON, fault: Any = FAILED, hit: str = "write(3</x>)", *, start: bool = False) -> Any:
    return program.End(code, "", err, fault, hit, start)


@pytest.fixture
def export(tmp_path: Path) -> Any:
    made = writing.Export(tmp_path, program.Settings(0.0, None))
    made.prepare()
    (tmp_path / "whole.csv").write_bytes(b"a\nb\nc\n")
    return made


def put(export: Any, data: bytes) -> None:
    (export.out / "samples.csv").write_bytes(data)


def test_an_end_with_a_reason_and_the_old_file_is_fine(export: Any) -> None:
    assert list(export.complaints(end())) == []


def test_the_new_file_is_fine(export: Any) -> None:
    put(export, b"a\nb\nc\n")
    assert list(export.complaints(end(0, "", hit=""))) == []


@pytest.mark.parametrize(
    ("data", "made", "said"),
    [
        (b"a\nb\n", end(), "neither the new one nor the old one"),
        (b"a\nb\n", end(-9, "", KILLED), "neither the new one nor the old one"),
        (b"", end(), "neither the new one nor the old one"),
        (b"a\nx\n", end(3, REASON + "nicety: not exported: x\n"), "neither the new one nor the old one"),
        (b"what was there\n", end(0, ""), "exit code 0, and the file is not the new one"),
        (b"what was there\n", end(1, "it failed\n"), "without a reason"),
        (b"what was there\n", end(7), "exit code 7"),
        (b"what was there\n", end(-11), "exit code -11"),
        (b"what was there\n", end(None), "it did not end"),
        (b"what was there\n", end(1, REASON + "Traceback (most recent call last):\nKeyError: 1\n"), "a traceback: KeyError: 1"),
        (b"what was there\n", end(1, hit=""), "nothing has failed"),
        (b"what was there\n", end(1, fault=strace.Fault("delay", "write", 1)), "nothing has failed"),
    ],
)
def test_what_is_not_as_it_must_be_is_said(export: Any, data: bytes, made: Any, said: str) -> None:
    put(export, data)
    (complaint,) = export.complaints(made)
    assert said in complaint


def test_what_was_not_read_may_be_missing_if_that_is_said(export: Any) -> None:
    put(export, b"a\nc\n")
    assert list(export.complaints(end(3, "nicety: not exported: x\n"))) == []


@pytest.mark.parametrize(
    "made", [end(127, "cannot open shared object file\n", start=True), end(120, "", hit="write(2</dev/pts/0>)")]
)
def test_no_reason_is_asked_for_before_it_has_begun_or_when_it_cannot_speak(export: Any, made: Any) -> None:
    assert list(export.complaints(made)) == []


@pytest.mark.parametrize("name", ["tmp/x", "out/.samples.csv.01234567.part", "state/traces/.x.part"])
def test_a_temporary_file_that_is_left_is_said(export: Any, name: str) -> None:
    (export.case / name).write_bytes(b"")
    assert list(export.complaints(end())) == [f"{name} is left"]


def test_a_kill_may_leave_what_is_documented_and_nothing_else(export: Any) -> None:
    (export.out / ".samples.csv.01234567.part").write_bytes(b"")
    assert list(export.complaints(end(-9, "", KILLED))) == []
    (export.tmp / "x").write_bytes(b"")
    assert list(export.complaints(end(-9, "", KILLED))) == ["tmp/x is left"]


def test_who_takes_himself_for_the_cause_is_said(export: Any) -> None:
    (export.tmp / "nicety-error-1.txt").write_text("Traceback\nKeyError: 'x'\n")
    assert list(export.complaints(end())) == ["it takes itself for the cause: KeyError: 'x'"]


def test_ticks_that_are_gone_and_a_record_that_says_too_much_are_said(tmp_path: Path) -> None:
    made = writing.Record(tmp_path, program.Settings(0.0, None))
    made.prepare()
    assert list(made.complaints(end(0, "recorded 0.5 s: 3 ticks, 4 processes\n", hit=""))) == [
        "it said 'recorded 0.5 s: 3 ticks', and 0 ticks are there"
    ]
    made.prepare()
    (day,) = (made.state / "traces").glob("*.db")
    day.unlink()
    assert "20 ticks of the earlier session are gone" in list(made.complaints(end(-9, "", KILLED)))
