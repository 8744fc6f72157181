"""The layout keeps its promises: import direction, purity, relative own imports, and a daemon without the training stack."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = {"models": set[str](), "scheduler": {"models"}, "training": {"models", "scheduler"}}
HEAVY = {"sklearn", "scipy", "pandas", "pyarrow", "joblib", "matplotlib"}
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
POLICIES = (
    *("pool_size", "reaction", "priority", "mechanisms", "supply", "pairs", "slices", "placement", "assignment", "quarantine"),
    *("incident_words", "threshold", "policy"),
)
MODELS = (
    *("records", "features", "baseline", "experts", "demand", "drift", "rhythm", "scaling", "behaviour", "checks"),
    *("siblings", "evidence", "detectors", "lives", "anomaly", "waitgraph", "novelty", "loners", "packed"),
)
PURE = [
    *(f"models/{name}.py" for name in MODELS),
    *(f"scheduler/{name}.py" for name in ("config", "decision", "observer", "crowding", "guard", "engine", "ports")),
    *(f"scheduler/{name}.py" for name in ("grouping", "families", "relief", "rivals", "deadlocks", "fences", "faults", "scope")),
    *(f"scheduler/{name}.py" for name in ("gathered", "unmatched", "steps", "ladder", "budget")),
    "scheduler/store/codec.py",
    *(f"scheduler/simulation/{name}.py" for name in ("arrivals", "queueing", "peers", "ours", "oracle")),
    *(f"scheduler/policies/{name}.py" for name in POLICIES),
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
        if path.relative_to(ROOT).parts[0] != "training" and path != ROOT / "scheduler/pools/joblib_backend.py"  # for programs
        for level, name, line in imports(path)
        if level == 0 and name.split(".")[0] in HEAVY - {"pyarrow"} and (str(path.relative_to(ROOT)), name) not in DRAWS
    ]
    assert not wrong, "\n".join(wrong)


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
    allowed = {"scheduler/daemon.py", "scheduler/cli.py"}
    allowed |= {f"scheduler/pools/executor_{name}.py" for name in ("core", "crew", "tasks", "worker")}  # in a user's program
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}: time.{node.attr}"
        for path in sources()
        if path.relative_to(ROOT).parts[0] != "training" and "demo" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time" and node.attr in readers
        if str(path.relative_to(ROOT)) not in allowed
    ]
    assert not wrong, "\n".join(wrong)


def test_the_daemon_loads_nothing_of_the_training_stack() -> None:
    code = "import sys, nicety.scheduler.daemon, nicety.scheduler.cli; print(*sorted(m.split('.')[0] for m in sys.modules))"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert "nicety" in loaded
    assert not loaded & HEAVY
    code = "import sys, nicety.scheduler.daemon, nicety.scheduler.cli; sys.exit('nicety.training' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
