"""Which program a process runs, by its argument list. Must not know pools."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_PYTHON = re.compile(r"(python|pypy)[\d.]*t?")


def arguments(proc_root: Path, pid: int) -> list[str]:
    """The argument list; [] if the process is gone or hides it."""
    try:
        raw = (proc_root / str(pid) / "cmdline").read_bytes()
    except OSError:
        return []
    return raw.rstrip(b"\0").decode("utf-8", "backslashreplace").split("\0") if raw else []


def program(words: Sequence[str]) -> str:
    """The name of the program, for Python that of its script or package (`python -m package.module`, `package/__main__.py`).

    "" for Python without one, and for no arguments. A process that only mentions a program (an editor, sudo, a shell) has its own
    name.

    >>> program(["/usr/bin/python3.11", "-X", "dev", "-m", "gunicorn", "-w", "3"])
    'gunicorn'
    >>> program(["python3", "/usr/lib/python3/gunicorn/__main__.py"])
    'gunicorn'
    >>> program(["vi", "gunicorn.conf.py"])
    'vi'
    """
    if not words:
        return ""
    name = Path(words[0]).name
    if not _PYTHON.fullmatch(name):
        return name
    rest = iter(words[1:])
    for word in rest:
        if word == "-m":
            return next(rest, "").split(".")[0]
        if word == "-c":
            return ""
        if word in {"-X", "-W"}:
            next(rest, None)
        elif not word.startswith("-"):
            script = Path(word)
            return script.parent.name if script.name == "__main__.py" else script.name
    return ""
