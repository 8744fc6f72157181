"""The table of programs that behaviour models are trained and tested on: benchmarks/behaviour/programs.py."""

from __future__ import annotations

import importlib
import os
import subprocess
import time
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType

import pytest

from nicety.models.records import Class
from nicety.scheduler.config.sections import parse
from nicety.scheduler.read.proc import ProcSource

DOCS = Path(__file__).parents[4] / "docs"


@pytest.fixture(scope="module")
def table() -> ModuleType:
    return importlib.import_module("benchmarks.behaviour.programs")


def test_each_program_is_in_the_table_once_and_names_one_group(table: ModuleType) -> None:
    programs = table.PROGRAMS
    assert len(programs) >= 75
    assert max(Counter(program.name for program in programs).values()) == 1
    for program in programs:
        claimed = [other.name for other in programs if fnmatchcase(program.program, other.program)]
        assert claimed == [program.name], "a process must be in one group only"
        assert program.use
        assert program.packages


def test_each_class_is_in_training_and_held_out(table: ModuleType) -> None:
    parts = Counter((program.class_, program.held_out) for program in table.PROGRAMS)
    assert parts[Class.INTERACTIVE, True] >= 12
    assert parts[Class.BATCH, True] >= 12
    assert parts[Class.EXEMPT, True] >= 5
    for class_ in Class:
        assert parts[class_, False] > parts[class_, True] * 0.5


def test_no_family_of_programs_is_in_training_and_held_out(table: ModuleType) -> None:
    families = {program.family for program in table.PROGRAMS if program.family}
    assert families
    for family in families:
        assert len({program.held_out for program in table.PROGRAMS if program.family == family}) == 1, family


def test_the_labels_are_a_configuration_with_a_group_and_class_for_each_program(table: ModuleType) -> None:
    groups = parse(table.labels(table.PROGRAMS)).groups
    assert {name: (rule.program, rule.class_) for name, rule in groups.items()} == {
        program.name: (program.program, program.class_) for program in table.PROGRAMS
    }


def test_a_plan_lets_everybody_perform_alone_and_in_a_crowd(table: ModuleType) -> None:
    sessions = table.plan(table.PROGRAMS, 36, 1)
    assert sessions == table.plan(table.PROGRAMS, 36, 1)
    assert {program.name for session in sessions for program in session} == {program.name for program in table.PROGRAMS}
    crowds = [sum(program.class_ is Class.BATCH for program in session) for session in sessions]
    assert min(crowds) == 0
    assert max(crowds) >= 4
    assert all(len(set(session)) == len(session) for session in sessions)


def test_the_documentation_has_the_table(table: ModuleType) -> None:
    assert table.table() in (DOCS / "behaviour-programs.md").read_text()


def test_what_a_stage_started_is_in_the_foreground_of_a_terminal_and_ends_with_it(table: ModuleType, tmp_path: Path) -> None:
    stage = table.Stage(tmp_path, tmp_path, 1, lambda: None)
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


def test_only_what_was_started_here_is_recorded(table: ModuleType) -> None:
    source = ProcSource()
    child = subprocess.Popen(["sleep", "60"])
    try:
        kept = table.Ours().only(source.read(time.monotonic_ns(), time.time_ns(), ()))
    finally:
        child.kill()
        child.wait()
        source.close()
    assert {os.getpid(), child.pid} <= set(kept.table["pid"].tolist())
    assert os.getppid() not in kept.table["pid"].tolist()
    assert sorted(kept.identities) == list(map(tuple, kept.table[["pid", "start_ticks"]].tolist()))
