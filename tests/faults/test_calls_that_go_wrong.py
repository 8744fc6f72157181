"""A sample of the campaign (benchmarks/faults): calls that are killed at, fail or take long, in every program. docs/campaign.md."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SAMPLE = {"acting": 12, "undo": 8, "record": 4, "export": 6}
"""Faults of each program. Chosen: together they take as long as the single tests that they replace."""

TOO_SLOW = {"train", "daemon"}
"""Programs of which a case takes ten seconds and more: only `make campaign` has them."""

needs_strace = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("strace") is None, reason="needs root, and strace, which makes a system call go wrong"
)


def campaign(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """The row of the only program that was asked for."""
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks.faults.campaign", *arguments, "--json", str(report)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    if "may not trace here" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert report.exists(), done.stdout + done.stderr
    (row,) = json.loads(report.read_text())["programs"]
    assert done.returncode == bool(row["failures"]), done.stderr
    return dict(row)


@pytest.mark.root
@needs_strace
@pytest.mark.parametrize(("program", "number"), SAMPLE.items())
def test_whatever_call_goes_wrong_all_is_as_it_must_be(tmp_path: Path, program: str, number: int) -> None:
    row = campaign(tmp_path, "--program", program, "--sample", str(number))
    assert row["failures"] == []
    assert sum(row["cases"].values()) == number
    assert row["reached"] >= number // 2, "hardly anything went wrong"


def test_every_program_has_its_sample() -> None:
    assert set(SAMPLE) | TOO_SLOW == set(importlib.import_module("benchmarks.faults.programs").PROGRAMS)
