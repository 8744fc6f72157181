"""The process that a pool's configuration names, by pid or pid file. Must not know what kind of program it is."""

from __future__ import annotations

from pathlib import Path

from ....models.identity import ProcId
from ...config.sections import PoolConfig
from .signals import ProcessHandle, open_process

_MOST = 1 << 31  # a pid is a positive int


STARTED = {
    "gunicorn": ("gunicorn", "--pid "),
    "uvicorn": ("uvicorn", "its pid in "),
    "uwsgi": ("uWSGI", "pidfile = "),
    "celery": ("the worker", "--pidfile "),
}
"""For each kind of pool named by a pid: what to start, and the option by which it writes a pid file. uvicorn has none."""


def named(proc_root: Path, config: PoolConfig, present: ProcId | None) -> tuple[ProcessHandle, str] | str | None:
    """(the process, what names it), None if it still is `present`, or a sentence on why there is none.

    The pool's kind must be in `STARTED`.
    """
    program, option = STARTED[config.kind]
    pid = config.pid
    source = f"pid = {pid}"
    if config.pidfile:
        path = Path(config.pidfile)
        source = f"pid file {path}"
        try:
            with path.open(encoding="ascii", errors="replace") as file:
                text = file.read(64).strip()
        except FileNotFoundError:
            return f"{source} does not exist: start {program} with {option}{path}, or correct pidfile"
        except OSError as error:
            return f"{source} cannot be read ({error.strerror}): run nicety as a user who may, or correct pidfile"
        if not text.isdecimal() or not 1 < int(text) < _MOST:
            return f"{source} holds {text!r}, which is no pid: correct pidfile"
        pid = int(text)
    assert pid is not None, "config.parse asks for pid or pidfile"
    if present is not None and present.pid == pid:
        return None
    handle = open_process(proc_root, pid)
    if handle is None:
        return f"{source} names pid {pid}, which does not run: it is stale; start {program}, or correct it"
    return handle, source
