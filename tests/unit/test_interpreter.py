"""No interpreter that nicety starts takes modules from the working directory."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nicety.scheduler.hands.pool_children import SAFE_PATH
from nicety.scheduler.interpreter import PYTHON

ROOT = Path(__file__).parents[2]

STARTS = {
    "subprocess": {"Popen", "run", "call", "check_call", "check_output"},
    "asyncio": {"create_subprocess_exec", "create_subprocess_shell"},
    "os": {"system", "popen", "posix_spawn", "posix_spawnp"}
    | {f"{kind}{how}" for kind in ("exec", "spawn") for how in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")},
}

STARTERS = {
    "scheduler/act/sentries.py",
    "scheduler/act/hands_apart.py",
    "scheduler/cli/running.py",
    "scheduler/service/background.py",
    "scheduler/demo/run.py",
    "scheduler/executor/clean.py",  # the program's own interpreter, with -P
    "scheduler/demo/workload.py",
    "scheduler/testing/contention.py",
    "scheduler/testing/puppet.py",
    "scheduler/testing/circles.py",
    "scheduler/testing/browser.py",
    "scheduler/testing/prometheus.py",
    "scheduler/views/notify/hook.py",  # what the user named
    "scheduler/views/top/alone.py",
    "scheduler/views/top/asking.py",
    "scheduler/hands/pool_children.py",  # what the configuration names; an agent's interpreter, which may be older: SAFE_PATH
}
"""Files that start processes. Whoever adds one sees to it that an interpreter gets PYTHON or SAFE_PATH."""


def sources() -> dict[str, ast.Module]:
    paths = sorted(path for layer in ("models", "scheduler", "training") for path in (ROOT / layer).rglob("*.py"))
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in paths}


def test_this_interpreter_is_named_in_one_place_only() -> None:
    named = {
        name
        for name, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.executable"
    }
    said = {"scheduler/pools/celery/agent.py", "scheduler/hands/sql.py"}  # in a message, of the interpreter that runs it
    alone = {"scheduler/hands/pool_children.py"}  # of the hands, which import nothing of ours; with SAFE_PATH
    assert named - said - alone == {"scheduler/interpreter.py"}


def test_processes_are_started_in_known_places_only() -> None:
    starters = {
        name
        for name, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in STARTS.get(ast.unparse(node.value), ())
    }
    taken = {
        name
        for name, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in STARTS and node.level == 0
    }
    assert not taken, "under their full names they are found"
    typed = {"scheduler/pools/celery/link.py", "scheduler/pools/command/queues/programs.py"}  # as a type only
    assert starters - typed == STARTERS


def test_the_words_that_start_it_leave_the_working_directory_out(tmp_path: Path) -> None:
    code = "import sys; print(sys.flags.safe_path, '' in sys.path)"
    for command, environment in (([*PYTHON, "-c", code], {}), ([sys.executable, "-c", code], SAFE_PATH)):
        done = subprocess.run(command, cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["True", "False"], command


@pytest.mark.parametrize("name", ["json", "typer", "numpy", "msgspec"])
def test_a_module_in_the_working_directory_is_not_run_by_train(tmp_path: Path, name: str) -> None:
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / f"{name}.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w').close()\nraise SystemExit('trapped')\n")
    command = [sys.executable, "-P", "-m", "nicety.scheduler", "--state-dir", str(tmp_path / "state"), "train"]
    done = subprocess.run(command, cwd=trap, capture_output=True, text=True, timeout=120, check=False)
    assert not (tmp_path / "sprung").exists(), done.stderr
    assert "trapped" not in done.stderr
    assert done.returncode == 1, "there are no traces to train on"
    assert "record" in done.stderr, done.stderr
