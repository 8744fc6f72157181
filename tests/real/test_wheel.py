"""The wheel, installed elsewhere and tried without the sources."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wheel")
    # from a copy: setuptools builds in the tree, and what an earlier build left there would get into the wheel
    leave = shutil.ignore_patterns(".git", ".venv", "build", "dist", "*.egg-info", ".*_cache", ".hypothesis", "__pycache__")
    shutil.copytree(ROOT, place / "tree", symlinks=True, ignore=leave)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(place), str(place / "tree")]
    subprocess.run(build, check=True, capture_output=True, text=True)
    (wheel,) = place.glob("nicety-*.whl")
    site = place / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True, text=True)
    return site


def run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=site.parent, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_installed_package_is_what_runs(installed: Path) -> None:
    shown = run(installed, "-c", "import nicety, nicety.scheduler.daemon, nicety.models; print(nicety.__file__)")
    assert shown.returncode == 0, shown.stderr
    assert Path(shown.stdout.strip()).is_relative_to(installed)


def test_the_command_line_works_without_the_sources(installed: Path) -> None:
    shown = run(installed, "-m", "nicety.scheduler", "--help")
    assert shown.returncode == 0, shown.stderr
    assert "doctor" in shown.stdout
    assert "replay" in shown.stdout


def test_training_works_without_the_sources(installed: Path) -> None:
    shown = run(installed, "-m", "nicety.training", "train", "--help")
    assert shown.returncode == 0, shown.stderr


def test_configs_and_typing_marker_are_in_the_wheel_and_tests_are_not(installed: Path) -> None:
    (wheel,) = installed.parent.glob("nicety-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"nicety/py.typed", "nicety/configs/default.toml", "nicety/configs/nicety.service"} <= names
    assert "nicety/training/report.html" in names
    assert {f"nicety/scheduler/views/web/{name}" for name in ("page.html", "page.js", "page.css", "icon.svg")} <= names
    assert any(name.startswith("nicety/configs/examples/") for name in names)
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names)


def test_the_shipped_behaviour_model_is_in_the_wheel_and_can_be_used(installed: Path) -> None:
    shown = run(installed, "-c", "from nicety.models.artifact import shipped; print(shipped('behaviour').card.kind)")
    assert (shown.returncode, shown.stdout) == (0, "behaviour\n"), shown.stderr
