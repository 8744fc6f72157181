"""Decides which process is a gunicorn master, and which of its children are workers.

Must not know sizes or time. In doubt a process is a stranger, and a stranger never gets a signal.
"""

from __future__ import annotations

import re
from pathlib import Path

from ....models.identity import ProcId
from ...config.sections import PoolConfig
from ...hands.faults import Status
from ...hands.reads import MOST_DESCRIPTORS
from ...read import door
from ..sensing.acts import Acts
from ..sensing.busy import children
from ..sensing.listening import AcceptQueue
from ..sensing.pidfile import named
from ..sensing.signals import ProcessHandle, read_stat

_PROGRAM = re.compile(r"gunicorn[\d.]*(_paster)?")
_PYTHON = re.compile(r"(python|pypy)[\d.]*t?")
_WALL_CLOCK_NS = 1_000_000_000_000_000_000  # a heartbeat's time stamp counts from boot, a new file's from 1970


def find(proc_root: Path, config: PoolConfig, present: ProcId | None, acts: Acts) -> ProcessHandle | str | None:
    """A new master to adopt, None if `present` still is the configured one, or a sentence on why there is none."""
    found = named(proc_root, config, present)
    if found is None or isinstance(found, str):
        return found
    handle, source = found
    objection = _objection(proc_root, handle, acts)
    if not objection:
        return handle
    handle.close()
    return f"{source} names pid {handle.id.pid}, {objection}"


def is_worker(proc_root: Path, pid: int, master: int) -> bool:
    """Whether a child of the master is a worker: a fork of it, not another program, nor the next master (USR2)."""
    own, parents = _exe(proc_root, pid), _exe(proc_root, master)
    if own and parents and own != parents:
        return False
    arguments = _cmdline(proc_root, pid)
    if arguments != _cmdline(proc_root, master) and not (arguments and arguments[0].startswith("gunicorn: worker")):
        return False
    return not _replaces(proc_root, pid, master)


def stranger(proc_root: Path, pid: int) -> str:
    """Why a process is no gunicorn master; "" if it is one."""
    if not _looks_like_gunicorn(proc_root, pid):
        program = (_cmdline(proc_root, pid) or [_exe(proc_root, pid) or "an unknown program"])[0]
        return f"which is no gunicorn (it runs {program!r}): no signal is sent to it; correct the pid"
    stat = read_stat(proc_root, pid)
    if stat is None:
        return "which has ended"
    if _looks_like_gunicorn(proc_root, stat.ppid) and is_worker(proc_root, pid, stat.ppid):
        return f"which is a worker: give the pid of its master, {stat.ppid}"
    if not children(proc_root, pid) and not _listens(proc_root, pid):
        return "which has neither workers nor a listening socket: no signal is sent to it; correct the pid"
    return ""


def _objection(proc_root: Path, handle: ProcessHandle, acts: Acts) -> str:
    """Why a process cannot be used as a gunicorn master; "" if it can."""
    found = stranger(proc_root, handle.id.pid)
    if found:
        return found
    status, text = acts.send(handle.id, 0)
    return "" if status is Status.APPLIED else f"gunicorn's master, but: {text}"


def _cmdline(proc_root: Path, pid: int) -> list[str]:
    """The argument list; [] if the process is gone or hides it."""
    try:
        raw = (proc_root / str(pid) / "cmdline").read_bytes()
    except OSError:
        return []
    return raw.rstrip(b"\0").decode("utf-8", "backslashreplace").split("\0") if raw else []


def _exe(proc_root: Path, pid: int) -> str:
    """The program file; "" if it cannot be read."""
    try:
        return door.link(f"{proc_root}/{pid}", "exe")
    except OSError:
        return ""


def _looks_like_gunicorn(proc_root: Path, pid: int) -> bool:
    """Decide by the argument list: gunicorn's own title, its script run by Python, or `python -m gunicorn`.

    USR2 turns the latter into ".../gunicorn/__main__.py". A process that only mentions gunicorn (an editor, sudo, a shell) does
    not count.
    """
    arguments = _cmdline(proc_root, pid)
    if not arguments or _PROGRAM.fullmatch(Path(arguments[0]).name) or arguments[0].startswith("gunicorn: master"):
        return bool(arguments)
    if not _PYTHON.fullmatch(Path(arguments[0]).name):
        return False
    rest = iter(arguments[1:])
    for word in rest:
        if word == "-m":
            return next(rest, "").split(".")[0] == "gunicorn"
        if word in {"-X", "-W"}:
            next(rest, None)
        elif not word.startswith("-"):
            script = Path(word)
            return bool(_PROGRAM.fullmatch(script.parent.name if script.name == "__main__.py" else script.name))
    return False


def _listens(proc_root: Path, pid: int) -> bool:
    accept = AcceptQueue(proc_root, pid)
    accept.close()
    return bool(accept.descriptors)


def _replaces(proc_root: Path, pid: int, master: int) -> bool:
    """Whether the master executed this child as its successor (USR2): gunicorn marks it in the child's environment."""
    try:
        return door.succeeds(f"{proc_root}/{pid}", master)
    except OSError:
        return False


def has_beaten(proc_root: Path, pid: int) -> bool:
    """Whether a worker has reached its serving loop, where it stamps its heartbeat file with the seconds since boot at each turn.

    Source: gunicorn/workers/workertmp.py, since 20.1. It recognizes a worker that was never idle because it came up under load.
    """
    process = f"{proc_root}/{pid}"
    try:
        beats = [descriptor for descriptor, link, _ in door.links(process, MOST_DESCRIPTORS).links if "/wgunicorn-" in link]
        return len(beats) == 1 and door.file(process, beats[0]).changed < _WALL_CLOCK_NS
    except OSError:
        return False
