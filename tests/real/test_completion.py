"""The shells complete commands, options and real names, in a fraction of a second."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nicety.scheduler.cli.system_files import SHELLS, completion

CONFIG = """
[groups.backups]
program = "rsync"
[pools.web]
kind = "gunicorn"
pidfile = "/run/web.pid"
minimum = 1
maximum = 4
"""

BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_nicety_completion nicety
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    program = tmp_path / "nicety"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m nicety.scheduler "$@"\n')
    program.chmod(0o755)
    (tmp_path / "nicety.toml").write_text(CONFIG)
    for shell, file in SHELLS.items():
        (tmp_path / file).write_text(completion(shell))
    found = os.pathsep.join(map(str, (Path(path).resolve() for path in sys.path if path)))
    return {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": found,
        "NICETY_CONFIG": str(tmp_path / "nicety.toml"),
    }


def bash(environ: dict[str, str], place: Path, *words: str) -> list[str]:
    command = ["bash", "-c", BASH, "bash", str(place / "nicety.bash"), "nicety", *words]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("stat",), ["status"]),
        (("act", "w"), ["web"]),
        (("why", "b"), ["backups"]),
        (("--config", "/nowhere.toml", "act", "p"), ["placement", "pool_size", "priority"]),
        (("decisions", "--status", "ap"), ["applied"]),
        (("schema", "mod"), ["models"]),
    ],
)
def test_bash_completes(environ: dict[str, str], tmp_path: Path, words: tuple[str, ...], found: list[str]) -> None:
    assert bash(environ, tmp_path, *words) == found


def test_it_is_there_at_once(environ: dict[str, str], tmp_path: Path) -> None:
    """0.2 s on an idle CPU; the bound leaves room for a busy one."""
    took = []
    for _ in range(3):
        begin = time.perf_counter()
        bash(environ, tmp_path, "act", "w")
        took.append(time.perf_counter() - begin)
    assert min(took) < 0.6


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
def test_fish_completes(environ: dict[str, str], tmp_path: Path) -> None:
    said = subprocess.run(
        ["fish", "--no-config", "-c", f"source {tmp_path}/nicety.fish; complete -C 'nicety act w'"],
        env={**environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.split("\t")[0] for line in said.stdout.splitlines()] == ["web"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_loads_the_file(environ: dict[str, str], tmp_path: Path) -> None:
    script = f"fpath=({tmp_path} $fpath); autoload -Uz compinit; compinit -u -d {tmp_path}/dump; print $_comps[nicety]"
    environ["HOME"] = str(tmp_path)
    said = subprocess.run(["zsh", "-f", "-c", script], env=environ, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "_nicety"
