"""The table of programs that behaviour models are trained and tested on: benchmarks/behaviour/programs.py."""

from __future__ import annotations

import importlib
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType

import pytest

from nicety.models.records import Class
from nicety.scheduler.config.sections import parse

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
