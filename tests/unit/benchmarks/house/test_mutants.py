"""Which places are mutated, and what the tests cost that are asked: benchmarks/house/mutants_rules.py, mutants_plugin.py."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

SOURCE = dedent("""\
    from typing import override

    LEAST: int = 3
    Found = int | None


    @dataclass(frozen=True)
    class Rule:
        share: float = 2.0

        @override
        def step(self, past=4):
            assert past > 1
            if (past and
                past > 5):
                raise ValueError(f"é {past + 6}", past - 7)
            return "é" + (past + 8)

    @lru_cache(maxsize=9)
    def table():
        return 10
    """)


@pytest.fixture(scope="module")
def module() -> Any:
    return importlib.import_module("benchmarks.house.mutants_rules").Module(SOURCE)


def place(text: str) -> tuple[int, int]:
    """Where a text stands that is in the source once."""
    assert SOURCE.count(text) == 1
    before = SOURCE[: SOURCE.index(text)]
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1)


@pytest.mark.parametrize("text", ["int = 3", "int | None", "True", "float", "@override", "1\n", "6}", "9)"])
def test_what_no_test_can_see_is_left_out(module: Any, text: str) -> None:
    assert not module.matters(place(text))


@pytest.mark.parametrize("text", ["3\n", "@dataclass", "2.0", "4)", "5)", "- 7", "8)", "10\n"])
def test_all_else_is_mutated(module: Any, text: str) -> None:
    assert module.matters(place(text))


@pytest.mark.parametrize(
    ("text", "name", "lines", "at_import"),
    [
        ("3\n", "", range(3, 4), True),
        ("2.0", "Rule", range(9, 10), True),
        ("@override", "Rule.step", range(11, 13), True),
        ("4)", "Rule.step", range(11, 13), True),
        ("> 5", "Rule.step", range(14, 16), False),
        ("- 7", "Rule.step", range(16, 17), False),
        ("8)", "Rule.step", range(17, 18), False),
        ("10\n", "table", range(21, 22), True),
    ],
)
def test_a_place_has_its_statement_and_says_when_it_runs(module: Any, text: str, name: str, lines: range, at_import: bool) -> None:
    where = module.where(place(text))
    assert (where.name, where.lines, where.at_import) == (name, lines, at_import)


# --- the plugin -------------------------------------------------------------------------------------------------------------------

MADE = dedent("""\
    import os
    import time

    import pytest

    def used():
        return sum(os.times()[:4])

    def measured():
        return time.process_time()

    @pytest.fixture(scope="module")
    def shared():
        begin = used()
        while used() - begin < 0.1:
            pass

    def test_first(shared):
        pass

    def test_second(shared):
        pass

    def test_alone():
        pass

    def test_clock():
        assert measured() > 0
    """)


def test_a_fixture_of_several_tests_counts_for_each_of_them_and_who_reads_a_clock_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "test_made.py").write_text(MADE)
    task, answer = tmp_path / "task", tmp_path / "answer"
    task.write_text(json.dumps({"measure": True, "include": [f"{tmp_path}/*"], "answer": str(answer)}))
    plugins = ("-p", "no:cacheprovider", "-p", "benchmarks.house.mutants_plugin")
    command = [sys.executable, "-m", "pytest", "-q", *plugins, "test_made.py"]
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "NICETY_MUTANTS": str(task), "PYTHONPATH": paths}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=60)
    found = json.loads(answer.read_text())
    first, second, alone = (f"test_made.py::test_{name}" for name in ("first", "second", "alone"))
    assert sorted(found["seconds"]) == sorted([first, second, alone])
    assert found["seconds"][second] < 0.1 <= found["seconds"][first]
    assert sorted(found["shared"]) == sorted([first, second])
    assert min(found["shared"].values()) >= 0.1
