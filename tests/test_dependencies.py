"""What the code imports is what the project declares: base dependencies anywhere, an extra only where it is named here."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

EXTRAS = {
    "train": ("training/behaviour_fit.py", "training/contest.py", "training/flatten.py", "training/html.py"),
    "report": ("training/plots.py", "scheduler/simulation/plot.py"),
    "parquet": ("training/sources.py", "scheduler/simulation/tracefile.py", "scheduler/store/export.py"),
    "tui": ("scheduler/views/top/app.py",),
    "joblib": ("scheduler/executor/joblib_backend.py",),
    "metrics": ("scheduler/views/exporter/text.py",),
    "otlp": ("scheduler/views/exporter/otlp.py",),
    "web": ("scheduler/views/web/app.py", "scheduler/views/web/guard.py", "scheduler/views/web/serve.py"),
}
"""The modules that may import what an extra installs."""

NOT_OURS = {"scheduler/pools/celery/agent.py": {"celery"}}
"""Run by the Python of somebody else's worker, which has it."""

PROGRAMS = {"gunicorn"}
"""Dependencies that are started, not imported."""

NOT_SHIPPED = {"dev", "mutants", "supply", "fuzz"}
"""Extras for working on nicety."""


def names(requirements: list[str]) -> set[str]:
    """The distributions of requirements, without our own extras."""
    found = {re.split(r"[^A-Za-z0-9._-]", each)[0].lower() for each in requirements}
    return found - {"nicety"}


def imported() -> Iterator[tuple[str, str, int]]:
    """(module, name of a package that is neither ours nor Python's, line) of every import, in functions too."""
    files = sorted(path for folder in ("models", "scheduler", "training") for path in (ROOT / folder).rglob("*.py"))
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found = [node.module or ""]
            else:
                continue
            for name in found:
                package = name.partition(".")[0]
                if package not in sys.stdlib_module_names:
                    yield str(path.relative_to(ROOT)), package, node.lineno


def allowed(module: str) -> set[str]:
    """The distributions that a module may import."""
    extras = PROJECT["optional-dependencies"]
    return names(PROJECT["dependencies"]).union(*(names(extras[extra]) for extra, modules in EXTRAS.items() if module in modules))


def test_what_is_imported_is_declared() -> None:
    owners = packages_distributions()
    found = list(imported())
    assert len({package for _, package, _ in found}) > 8, "found nothing to check"
    wrong = [
        f"{module}:{line}: {package} is not declared for it in pyproject.toml"
        for module, package, line in found
        if not set(map(canonicalize_name, owners.get(package, []))) & allowed(module) and package not in NOT_OURS.get(module, set())
    ]
    assert not wrong, "\n".join(wrong)


def test_what_is_declared_is_imported() -> None:
    owners = packages_distributions()
    used = {canonicalize_name(owner) for _, package, _ in imported() for owner in owners.get(package, [])}
    extras = {extra: names(needs) for extra, needs in PROJECT["optional-dependencies"].items() if extra not in NOT_SHIPPED}
    assert names(PROJECT["dependencies"]).union(*extras.values()) - used == PROGRAMS


def test_every_extra_is_installed_for_development() -> None:
    (own,) = (need for need in PROJECT["optional-dependencies"]["dev"] if need.startswith("nicety["))
    listed = set(own.removeprefix("nicety[").removesuffix("]").split(","))
    assert listed == set(PROJECT["optional-dependencies"]) - NOT_SHIPPED
