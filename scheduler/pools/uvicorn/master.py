"""Decides which process is a uvicorn supervisor, which of its children are workers, and what both are doing.

Must not know sizes or time. In doubt a process is a stranger, and a stranger never gets a signal.
"""

from __future__ import annotations

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
from ..sensing.signals import ProcessHandle

_SPAWNED = "--multiprocessing-fork"
"""The last argument of a process that multiprocessing has spawned. Source: multiprocessing/spawn.py, get_command_line."""
_EPOLL = "anon_inode:[eventpoll]"


def find(proc_root: Path, config: PoolConfig, present: ProcId | None, acts: Acts) -> ProcessHandle | str | None:
    """A new supervisor to adopt, None if `present` still is the configured one, or a sentence on why there is none."""
    found = named(proc_root, config, present)
    if found is None or isinstance(found, str):
        return found
    handle, source = found
    objection = _objection(proc_root, handle, acts)
    if not objection:
        return handle
    handle.close()
    return f"{source} names pid {handle.id.pid}, {objection}"


def is_worker(proc_root: Path, pid: int) -> bool:
    """Whether a child of the supervisor is a worker: spawned by multiprocessing, unlike the tracker of its resources."""
    return arguments(proc_root, pid)[-1:] == [_SPAWNED]


def rests(view: CallView) -> bool | None:
    """Whether a supervisor is in its main loop, where it waits for half a second on a lock. Else it starts a worker, asks one
    whether it lives, or waits for one to end; it handles no signal meanwhile. None if that cannot be seen."""
    try:
        call = view.call()
    except ProcessLookupError:
        return False
    return None if call is None else call.name == "futex"


def serves(proc_root: Path, pid: int) -> bool | None:
    """Whether a worker accepts connections: its event loop watches a listening socket. None if that cannot be seen."""
    accept = AcceptQueue(proc_root, pid)
    accept.close()
    try:
        links = door.links(f"{proc_root}/{pid}", MOST_DESCRIPTORS).links
        view = CallView(proc_root, pid)
    except ProcessLookupError:
        return False
    except OSError:
        return None
    try:
        loops = [descriptor for descriptor, link, _ in links if link == _EPOLL]
        return any((view.epoll_targets(descriptor) or frozenset()) & accept.descriptors for descriptor in loops)
    finally:
        view.close()


def stranger(proc_root: Path, pid: int) -> str:
    """Why a process is no uvicorn supervisor; "" if it is one."""
    words = arguments(proc_root, pid)
    if program(words) != "uvicorn":
        runs = words[0] if words else "an unknown program"
        return f"which is no uvicorn (it runs {runs!r}): no signal is sent to it; correct the pid"
    if not any(is_worker(proc_root, child) for child in children(proc_root, pid)):
        return "which has no workers: start uvicorn with --workers 2"
    return ""


def _objection(proc_root: Path, handle: ProcessHandle, acts: Acts) -> str:
    """Why a process cannot be used as a uvicorn supervisor; "" if it can."""
    found = stranger(proc_root, handle.id.pid)
    if found:
        return found
    status, text = acts.send(handle.id, 0)
    return "" if status is Status.APPLIED else f"uvicorn's supervisor, but: {text}"
