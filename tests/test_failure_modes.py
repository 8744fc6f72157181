"""The table of failure modes: it has all of them, its tests exist, and its page and its command tell the truth of it."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
modes: Any = importlib.import_module("benchmarks.trust.modes")
PARTS = modes.read()
MODES = [mode for part in PARTS for mode in part.mode]


def test_the_55_modes_are_there_in_order_each_id_once_and_what_is_more_is_called_n() -> None:
    ids = [mode.id for mode in MODES]
    assert ids[:55] == [f"F{number:02}" for number in range(1, 56)]
    assert ids[55:] == [f"N{number:02}" for number in range(1, len(ids) - 54)]


def test_every_test_that_is_named_exists() -> None:
    assert sum(len(mode.tests) for mode in MODES) > 200, "found nothing to check"
    assert [(mode.id, said) for mode in MODES for said in modes.wrong(mode) if said.endswith("is gone")] == []


def test_no_row_is_empty_and_each_names_a_heading_of_the_changelog() -> None:
    headings = set(re.findall(r"^### (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE))
    assert [mode.id for mode in MODES if mode.since not in headings] == []
    assert [mode.id for mode in MODES if not (mode.name and mode.happens.endswith(".")) or mode.name.endswith(".")] == []
    assert [mode.id for mode in MODES if list(mode.tests) != sorted(set(mode.tests))] == [], "sorted, each once"


def test_the_page_is_what_the_table_makes() -> None:
    assert modes.PAGE.read_text() == modes.page(PARTS), "out of date; run `python -m benchmarks.trust.modes --write`"


TESTS = """
import pytest
def test_passes(): pass
def test_fails(): assert False
@pytest.mark.skip
def test_is_skipped(): pass
@pytest.mark.parametrize("case", [1, 2, 3])
def test_fails_once(case): assert case != 2
"""
HEAD = '[[part]]\nname = "Part"\n[[part.mode]]\nid = "F01"\nname = "It"\nhappens = "That."\nsince = "Then"\n'


def table(place: Path, row: str) -> Path:
    """A table of one row."""
    (place / "table.toml").write_text(HEAD + row)
    return place / "table.toml"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tests, which have run but for those of the emulated machine; and with the XML of that run."""
    made = tmp_path_factory.mktemp("modes")
    for file in ("tests/test_x.py", "tests/vm/guest/x_vm.py"):
        (made / file).parent.mkdir(parents=True, exist_ok=True)
        (made / file).write_text(TESTS)
    (made / "pytest.ini").write_text("[pytest]\n")
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "--import-mode=importlib"]
    for xml, file in (("run.xml", "tests/test_x.py"), ("vm.xml", "tests/vm/guest/x_vm.py")):
        subprocess.run([*run, f"--junit-xml={xml}", file], cwd=made, capture_output=True, check=False)
    return made


@pytest.mark.parametrize(
    ("row", "ran", "fault"),
    [
        ('tests = ["tests/test_x.py::test_passes"]', None, ""),
        ('tests = ["tests/test_x.py::test_passes"]', "run.xml", ""),
        ('tests = ["tests/test_x.py::test_is_skipped"]', None, ""),
        ('tests = ["tests/test_x.py::test_is_skipped"]', "run.xml", "tests/test_x.py::test_is_skipped was skipped"),
        ('tests = ["tests/test_x.py::test_fails"]', "run.xml", "tests/test_x.py::test_fails failed"),
        ('tests = ["tests/test_x.py::test_fails_once"]', "run.xml", "tests/test_x.py::test_fails_once failed"),
        ('tests = ["tests/test_x.py::test_passes"]', "vm.xml", "tests/test_x.py::test_passes did not run"),
        ('tests = ["tests/test_x.py::test_other"]', None, "tests/test_x.py::test_other is gone"),
        ('tests = ["tests/test_y.py::test_passes"]', None, "tests/test_y.py::test_passes is gone"),
        ('tests = ["tests/vm/guest/x_vm.py::test_fails"]', "run.xml", ""),
        ('tests = ["tests/vm/guest/x_vm.py::test_fails"]', "vm.xml", "tests/vm/guest/x_vm.py::test_fails failed"),
        ('tests = ["tests/test_x.py::test_passes"]\nlacks = "more"', "run.xml", "not tested yet: more"),
        ("", None, "no test"),
    ],
)
def test_a_row_is_green_only_if_its_tests_are_there_and_passed(place: Path, row: str, ran: str | None, fault: str) -> None:
    ((mode,),) = (part.mode for part in modes.read(table(place, row)))
    found = list(modes.wrong(mode, None if ran is None else modes.results([place / ran]), place))
    assert found == ([fault] if fault else [])


@pytest.mark.parametrize(("test", "code", "last"), [("passes", 0, "1 of 1 rows green"), ("is_skipped", 3, "0 of 1 rows green")])
def test_the_command_says_how_many_rows_are_green_and_its_exit_code_whether_all_are(
    place: Path, test: str, code: int, last: str
) -> None:
    table(place, f'tests = ["tests/test_x.py::test_{test}"]')
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src")))}
    command = [sys.executable, "-m", "benchmarks.trust.modes", "--table", "table.toml", "--junit", "run.xml", "vm.xml"]
    told = subprocess.run(
        [*command, "--json", "claims.json"], cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    assert (told.returncode, told.stderr) == (code, "")
    assert told.stdout.splitlines()[-1] == last
    written = json.loads((place / "claims.json").read_text())
    assert written["claims"][0]["holds"] is (code == 0)
    assert list(written["not_green"]) == (["F01"] if code else [])


def test_the_page_says_what_is_not_tested_yet(place: Path) -> None:
    page = modes.page(modes.read(table(place, 'tests = ["tests/test_x.py::test_fails"]\nlacks = "more"')))
    assert page.endswith("*Since: Then.*\n\n- `tests/test_x.py`: `test_fails`\n- Not tested yet: more\n")
