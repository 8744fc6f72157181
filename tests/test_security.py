"""What the code never has: a shell, pickle outside of the executor, a network server, SQL made of text.

SECURITY.md names these tests; `tests/real/test_exposure.py` shows the same of a running daemon.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SHELLS = {
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "asyncio.create_subprocess_shell",
    "pty.spawn",
}
NAMES_A_SHELL = {"typers.get_completion_script"}
"""Where `shell` is the name of one: it returns the file that completes commands there."""

UNPICKLERS = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "pandas", "torch", "yaml"}
"""Modules whose loaders run code of what they load."""

SERVERS = {"http.server", "socketserver", "xmlrpc", "wsgiref", "asyncio", "flask", "prometheus_client", "uvicorn", "aiohttp"}
"""Modules that listen on a network."""

NOT_THE_SERVICE = ("scheduler/executor/", "scheduler/demo/", "scheduler/testing/")
"""The pool that a program imports (it and its workers are one program), and what only trials and tests start."""

VIEWS = "scheduler/views/"
"""Processes of their own, without any right, that a person starts to have metrics or a page served. Their tests see where they
listen: `tests/real/views/`."""


def sources() -> dict[str, ast.Module]:
    """Every module that is shipped."""
    folders = sorted(
        folder.name for folder in (ROOT / "src" / "nicety").iterdir() if folder.is_dir() and folder.name != "__pycache__"
    )
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(paths) > 200, "found nothing to check"
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in paths}


SOURCES = sources()


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """(dotted name of what is called, the call)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def shells(tree: ast.AST) -> list[str]:
    """Calls that have a shell read a text."""
    found = [f"{name} in line {call.lineno}" for name, call in calls(tree) if name in SHELLS]
    for name, call in calls(tree):
        given = [word for word in call.keywords if word.arg == "shell"]
        if given and name not in NAMES_A_SHELL and not (isinstance(given[0].value, ast.Constant) and given[0].value.value is False):
            found.append(f"{name}(shell=...) in line {call.lineno}")
    return found


def test_no_text_is_given_to_a_shell() -> None:
    assert {name: found for name, tree in SOURCES.items() if (found := shells(tree))} == {}


@pytest.mark.parametrize("code", ["os.system('x')", "subprocess.run('x', shell=True)", "subprocess.Popen(x, shell=y)"])
def test_a_shell_would_be_found(code: str) -> None:
    assert len(shells(ast.parse(code))) == 1


def test_nothing_is_unpickled_outside_of_the_executor() -> None:
    users = {name for name, tree in SOURCES.items() for module in imported(tree) if module.partition(".")[0] in UNPICKLERS}
    assert {name for name in users if not name.startswith("scheduler/executor/")} == set()
    assert users, "the executor unpickles: found nothing to check"
    trusting = {
        f"{name}:{call.lineno}"
        for name, tree in SOURCES.items()
        for _, call in calls(tree)
        for word in call.keywords
        if word.arg == "allow_pickle" and not (isinstance(word.value, ast.Constant) and word.value.value is False)
    }
    loaded = {f"{name}:{call.lineno}" for name, tree in SOURCES.items() for called, call in calls(tree) if called == "np.load"}
    assert trusting | loaded == set()


def test_no_text_becomes_code() -> None:
    """The agent in Celery's interpreter is text of ours; it comes from `link.py`, and runs as the worker's user."""
    found = {
        name
        for name, tree in SOURCES.items()
        for called, _ in calls(tree)
        if called in {"eval", "exec", "compile", "__import__"} and not name.startswith(NOT_THE_SERVICE)
    }
    assert found == set()


def test_nothing_listens_on_a_network() -> None:
    listening = {
        name
        for name, tree in SOURCES.items()
        if not name.startswith(NOT_THE_SERVICE)
        if any(called.endswith((".bind", ".create_server", "start_server")) for called, _ in calls(tree))
        or SERVERS & set(imported(tree))
    }
    assert {name for name in listening if not name.startswith(VIEWS)} == {"scheduler/service/answers/control_socket.py"}
    (bound,) = (
        node
        for node in ast.walk(SOURCES["scheduler/service/answers/control_socket.py"])
        if isinstance(node, ast.FunctionDef) and node.name == "_listen"
    )
    families = set(re.findall(r"AF_\w+", ast.unparse(bound)))
    assert families == {"AF_UNIX"}


def test_sql_is_made_of_constants_only() -> None:
    """Values are given apart from the text; what stands in braces is a number or a name of this code."""
    allowed = {"_COLUMNS", "PAGE", "wal_pages", "wal_pages * PAGE", "pragma", "excess", "table", "ddl", "schema", "application"}
    allowed |= {"PATIENCE * 1000", "APPLICATION", "SCHEMA", "_TABLES"}
    allowed |= {"'?' * 19", "', '.join('?' * 19)"}
    found = set()
    for name, tree in SOURCES.items():
        for called, call in calls(tree):
            if called.rpartition(".")[2] not in {"execute", "executemany", "executescript"} or not call.args:
                continue
            for part in ast.walk(call.args[0]):
                if isinstance(part, ast.FormattedValue):
                    found |= {(name, ast.unparse(part.value))}
                elif isinstance(part, ast.BinOp | ast.Call):
                    found |= {(name, ast.unparse(part))}
    assert {part for part in found if part[1] not in allowed} == set()
    assert found, "found nothing to check"


def test_every_test_that_the_threat_model_names_exists() -> None:
    named = re.findall(r"`([a-z_/]*)(test_\w+\.py)?(?:::(test_\w+))?`", (ROOT / "SECURITY.md").read_text())
    found, file = 0, Path()
    for folder, name, function in named:
        if name:
            file = ROOT / "tests" / folder / name
            assert file.is_file(), file
        if function:
            assert f"def {function}(" in file.read_text(), (file, function)
        found += bool(name)
    assert found > 20, "found nothing to check"
