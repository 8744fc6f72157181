"""What the recording of programs for the behaviour model starts, and what it keeps of the machine."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from benchmarks.behaviour import programs
from benchmarks.behaviour.stage import Stage

from nicety.scheduler.read.proc import ProcSource


def test_what_a_stage_started_is_in_the_foreground_of_a_terminal_and_ends_with_it(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tmp_path, 1, lambda: None)
    process = stage.start("sleep", "60", terminal=True)
    try:
        deadline = time.monotonic() + 5
        fields: list[str] = []
        while (fields[5:6] or ["-1"]) == ["-1"] and time.monotonic() < deadline:  # until setsid(1) has made the terminal its own
            time.sleep(0.01)
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        assert fields[2] == fields[5] == str(process.pid), "its process group is the terminal's foreground"
    finally:
        stage.close()
    assert process.poll() is not None
    assert not Path(f"/proc/{process.pid}").exists()


def test_only_what_was_started_here_is_recorded() -> None:
    source = ProcSource()
    child = subprocess.Popen(["sleep", "60"])
    try:
        kept = programs.Ours().only(source.read(time.monotonic_ns(), time.time_ns(), ()))
    finally:
        child.kill()
        child.wait()
        source.close()
    assert {os.getpid(), child.pid} <= set(kept.table["pid"].tolist())
    assert os.getppid() not in kept.table["pid"].tolist()
    assert sorted(kept.identities) == list(map(tuple, kept.table[["pid", "start_ticks"]].tolist()))
