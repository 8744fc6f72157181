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
from ..sensing.busy import CallView, children
from ..sensing.listening import AcceptQueue
from ..sensing.pidfile import named
from ..sensing.programs import arguments, program
from ..sensing.signals import ProcessHandle, read_stat

_PROGRAM = re.compile(r"gunicorn[\d.]*(_paster)?")
_SLEEPS = frozenset({"nanosleep", "clock_nanosleep"})
_SELECT = frozenset({"select", "pselect6"})
_SIGNAL_WAITS = frozenset({"futex", "poll", "ppoll"})  # in which a main loop waits: for its queue of signals, or its pipe
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
    words = arguments(proc_root, pid)
    if words != arguments(proc_root, master) and not (words and words[0].startswith("gunicorn: worker")):
        return False
    return not _replaces(proc_root, pid, master)


def stranger(proc_root: Path, pid: int) -> str:
    """Why a process is no gunicorn master; "" if it is one."""
    if not _looks_like_gunicorn(proc_root, pid):
        runs = (arguments(proc_root, pid) or [_exe(proc_root, pid) or "an unknown program"])[0]
        return f"which is no gunicorn (it runs {runs!r}): no signal is sent to it; correct the pid"
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


def _exe(proc_root: Path, pid: int) -> str:
    """The program file; "" if it cannot be read."""
    try:
        return door.link(f"{proc_root}/{pid}", "exe")
    except OSError:
        return ""


def _looks_like_gunicorn(proc_root: Path, pid: int) -> bool:
    """Decide by the argument list: gunicorn's own title, its script run by Python, or `python -m gunicorn`.

    USR2 turns the latter into ".../gunicorn/__main__.py".
    """
    words = arguments(proc_root, pid)
    return bool(words) and (words[0].startswith("gunicorn: master") or bool(_PROGRAM.fullmatch(program(words))))


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


def heir_of(proc_root: Path, master: int) -> int | None:
    """The pid of the master that this one has executed as its successor (USR2); None if there is none."""
    return next((pid for pid in children(proc_root, master) if _replaces(proc_root, pid, master)), None)


def takes_signals(proc_root: Path, master: int) -> bool | None:
    """True if a master waits for signals, as its main loop does. False if it sleeps: it waits for the old workers of a reload, and
    takes no signals meanwhile. None if it does neither, or that cannot be seen."""
    try:
        view = CallView(proc_root, master)
    except ProcessLookupError:
        return None
    try:
        call = view.call()
    except ProcessLookupError:
        return None
    finally:
        view.close()
    if call is None or (call.name in _SELECT and not call.args):
        return None
    if call.name in _SELECT:
        return call.args[0] > 0  # before Python 3.11, a sleep is a select of nothing
    return call.name in _SIGNAL_WAITS or (None if call.name not in _SLEEPS else False)


def has_beaten(proc_root: Path, pid: int) -> bool:
    """Whether a worker has reached its serving loop. It recognizes a worker that was never idle because it came up under load."""
    return last_beat(proc_root, pid) is not None


def last_beat(proc_root: Path, pid: int) -> int | None:
    """When a worker was last in its serving loop, in ns since boot; None if it was not yet, or that cannot be seen.

    It stamps its heartbeat file at each turn, for a sync worker before each request. Source: gunicorn/workers/workertmp.py, since
    20.1.
    """
    process = f"{proc_root}/{pid}"
    try:
        beats = [descriptor for descriptor, link, _ in door.links(process, MOST_DESCRIPTORS).links if "/wgunicorn-" in link]
        changed = door.file(process, beats[0]).changed if len(beats) == 1 else _WALL_CLOCK_NS
    except OSError:
        return None
    return changed if changed < _WALL_CLOCK_NS else None
