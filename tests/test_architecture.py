"""The layout keeps its promises: import direction, purity, relative own imports, and a daemon without the training stack."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
structure: Any = importlib.import_module("benchmarks.house.structure")
LAYERS = {"models": set[str](), "scheduler": {"models"}, "training": {"models", "scheduler"}}
HEAVY = {"sklearn", "scipy", "pandas", "pyarrow", "joblib", "matplotlib", "threadpoolctl", "jinja2"}
PAGES = {"rich", "tomlkit"}  # for what a person reads: loaded when a page is made, never by the daemon
DRAWS = {("scheduler/simulation/plot.py", "matplotlib.figure")}  # where asked to, never in the daemon
IMPURE = {
    "time",
    "os",
    "io",
    "logging",
    "random",
    "subprocess",
    "socket",
    "pathlib",
    "threading",
    "psutil",
    "sqlite3",
    "datetime",
    "signal",
}
PURE_ROOMS = ("observe", "decide")
"""What is imported by a module of these, however far away, is pure too."""

PURE = [
    *(
        f"models/{name}.py"
        for name in ("records", "features", "behaviour", "checks", "scaling", "queueing", "capacity", "durations")
    ),
    *(str(path.relative_to(ROOT)) for room in ("models/forecast", "models/anomaly") for path in sorted((ROOT / room).glob("*.py"))),
    *(str(path.relative_to(ROOT)) for room in PURE_ROOMS for path in sorted((ROOT / "scheduler" / room).rglob("*.py"))),
    *(f"scheduler/{name}.py" for name in ("decision", "places", "ports", "scope", "cgroup_paths")),
    *(f"scheduler/hands/{name}.py" for name in ("places", "changes", "faults", "fences", "kernel", "lines", "tally")),
    "scheduler/pools/sensing/flights.py",
    *("scheduler/config/sections.py", "scheduler/act/starvation.py", "scheduler/explain/gathered.py", "scheduler/store/codec.py"),
    *(f"scheduler/service/{name}.py" for name in ("steps", "own/ladder", "own/budget")),
    *(f"scheduler/simulation/{name}.py" for name in ("arrivals", "queueing", "peers", "ours", "oracle")),
]


def sources() -> list[Path]:
    found = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
    assert len(found) > 30, "found nothing to check"
    return found


def imports(path: Path) -> Iterator[tuple[int, str, int]]:
    """(level, dotted name, line) of each import; level 0 is absolute."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield 0, alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            if node.module:
                yield node.level, node.module, node.lineno
            else:
                for alias in node.names:
                    yield node.level, alias.name, node.lineno


def layer_of(path: Path, level: int, name: str) -> str | None:
    """The layer that an import reaches, None for what is not ours."""
    if level == 0:
        return None
    package = path.relative_to(ROOT).parts[:-1]
    target = (*package[: len(package) - level + 1], *name.split("."))
    return target[0]


def test_imports_point_down_only() -> None:
    wrong = []
    for path in sources():
        own = path.relative_to(ROOT).parts[0]
        for level, name, line in imports(path):
            layer = layer_of(path, level, name)
            if layer is not None and layer != own and layer not in LAYERS[own] and name != "__version__":
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {own} must not import {layer}")
    assert not wrong, "\n".join(wrong)


def test_rooms_import_only_those_before_them() -> None:
    wrong = [
        f"{name} ({structure.room_of(name)}) imports {target} ({structure.room_of(target)})"
        for name, target in structure.against(structure.modules(ROOT))
    ]
    assert not wrong, "\n".join(wrong)


def test_every_folder_of_the_scheduler_is_a_room() -> None:
    folders = {path.name for path in (ROOT / "scheduler").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= {*structure.FLOORS, *structure.EDGES}


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert structure.cycle(structure.modules(ROOT)) == []


def test_the_picture_of_the_rooms_is_true() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    assert f"```\n{structure.diagram(structure.modules(ROOT))}\n```" in page, "python -m benchmarks.house.structure --diagram"


@pytest.mark.parametrize("room", [*PURE_ROOMS, "act.starvation"])
def test_what_a_pure_room_reaches_is_pure(room: str) -> None:
    known = structure.modules(ROOT)
    left, seen = [name for name in known if f"{name}.".startswith(f"scheduler.{room}.")], set[str]()
    assert left, "found nothing to check"
    while left:
        name = left.pop()
        if name not in seen:
            seen.add(name)
            left += structure.reached(name, known)
    wrong = [
        f"{name}:{line}: {module}"
        for name in sorted(seen)
        for level, module, line in imports(known[name])
        if level == 0 and module.split(".")[0] in IMPURE
    ]
    assert not wrong, "\n".join(wrong)


def test_own_code_is_imported_relatively() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: absolute import of {name}"
        for path in sources()
        for level, name, line in imports(path)
        if level == 0 and name.split(".")[0] in {"nicety", *LAYERS}
    ]
    assert not wrong, "\n".join(wrong)


def test_only_training_imports_the_training_stack() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sources()
        if path.relative_to(ROOT).parts[0] != "training" and path != ROOT / "scheduler/executor/joblib_backend.py"  # for programs
        for level, name, line in imports(path)
        if level == 0 and name.split(".")[0] in HEAVY - {"pyarrow"} and (str(path.relative_to(ROOT)), name) not in DRAWS
    ]
    assert not wrong, "\n".join(wrong)


def test_what_a_person_reads_is_laid_out_in_one_place() -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in sources()
        for level, name, _ in imports(path)
        if level == 0 and name.split(".")[0] in PAGES | {"textwrap"}
    }
    others = {"training/progress.py", "scheduler/config/reference.py", "scheduler/views/top/palette.py"}  # bars; a file; cells
    assert users == {"scheduler/explain/layout.py"} | others


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_know_no_clock_file_process_or_chance(name: str) -> None:
    path = ROOT / name
    wrong = [f"{name}:{line}: {module}" for level, module, line in imports(path) if level == 0 and module.split(".")[0] in IMPURE]
    calls = [
        f"{name}:{node.lineno}: open()"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"open", "print", "input"}
    ]
    chance = [
        f"{name}:{node.lineno}: np.random.{node.attr}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == "random"
        and node.attr not in {"Generator", "default_rng"}
    ]
    assert not wrong + calls + chance, "\n".join(wrong + calls + chance)


def test_the_time_is_read_in_one_place_of_the_runtime() -> None:
    readers = {"monotonic", "monotonic_ns", "time", "time_ns", "perf_counter"}
    allowed = {"scheduler/hands/clock.py", "scheduler/cli/looking_back.py", "scheduler/cli/trying.py"}
    allowed |= {
        f"scheduler/executor/{name}.py" for name in ("crew", "dispatch", "loop", "sizing", "staffing", "tasks", "worker")
    }  # in a user's program
    allowed |= {"scheduler/testing/browser.py", "scheduler/testing/prometheus.py"}  # wait for a real one
    allowed.add("scheduler/pools/celery/agent.py")  # a process of its own, with the worker's Python
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}: time.{node.attr}"
        for path in sources()
        if path.relative_to(ROOT).parts[0] != "training" and "demo" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time" and node.attr in readers
        if str(path.relative_to(ROOT)) not in allowed
    ]
    assert not wrong, "\n".join(wrong)


def test_the_hands_load_the_standard_library_only() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import nicety.scheduler.hands.sentry, nicety.scheduler.hands.command"
    code += "; print(*sorted({name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names), 'typing' in sys.modules)"
    run = [sys.executable, "-I", "-S", "-c", code, str(ROOT / "src")]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.split() == ["__main__", "nicety", "False"]
    known = structure.modules(ROOT)
    below = {target for name in known if structure.room_of(name) == "hands" for target in structure.reached(name, known)}
    others = {target for target in below if structure.room_of(target) != "hands"}
    assert others <= {"models", "models.identity", "models.lean"}


@pytest.mark.parametrize(
    ("module", "flags", "absent"),
    [
        ("running, nicety.scheduler.daemon", (), {"typer", "click", "pydantic", "rich"}),
        ("hands.serve", ("-I", "-S"), {"typing", "tomllib", "datetime", "ctypes", "subprocess"}),
    ],
)
def test_what_runs_for_long_loads_only_what_it_needs(module: str, flags: tuple[str, ...], absent: set[str]) -> None:
    """A library that reads command lines takes 12 MiB, a parser for the hands 1.3 MiB twice."""
    code = f"import sys; sys.path.insert(0, sys.argv[1]); import nicety.scheduler.{module}; print(*sys.modules)"
    run = [sys.executable, *flags, "-c", code, str(ROOT / "src")]
    loaded = set(subprocess.run(run, capture_output=True, text=True, check=True).stdout.split())
    assert "nicety" in loaded
    assert not loaded & absent


def test_the_daemon_loads_nothing_of_the_training_stack() -> None:
    code = "import sys, nicety.scheduler.daemon, nicety.scheduler.cli; print(*sorted(m.split('.')[0] for m in sys.modules))"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert "nicety" in loaded
    assert not loaded & (HEAVY | PAGES)
    code = "import sys, nicety.scheduler.daemon, nicety.scheduler.cli; sys.exit('nicety.training' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_walk_has_at_most_twelve_stops_each_a_file_and_none_twice() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    walk = re.findall(r"^\| \d+ \| `([^`]+)`", page, re.MULTILINE)
    assert 8 <= len(walk) <= 12
    assert len(set(walk)) == len(walk)
    questions = re.findall(r"^\| [^|`]+\? \| `([^`]+)`", page, re.MULTILINE)
    assert len(questions) >= 12
    assert [path for path in (*walk, *questions) if not (ROOT / path).is_file()] == []


def test_pages_name_files_that_exist() -> None:
    named = {
        (page.name, path)
        for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
        for path in re.findall(r"`((?:scheduler|models|training|benchmarks|tests|configs)/[a-z0-9_./-]+\.\w+)`", page.read_text())
    }
    assert len(named) > 40, "found nothing to check"
    assert sorted(pair for pair in named if not (ROOT / pair[1]).exists()) == []


def test_the_readme_has_at_most_120_lines() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_unit_tests_do_not_sleep() -> None:
    found = sorted((ROOT / "tests" / "unit").rglob("test_*.py"))
    assert len(found) > 60, "found nothing to check"
    assert [str(path.relative_to(ROOT)) for path in found if re.search(r"\btime\.sleep\b|import sleep\b", path.read_text())] == []
