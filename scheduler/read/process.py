"""Reads one process once, for commands; the daemon reads all of them with `proc.py`. Must not know groups or classes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...models.identity import ProcId
from ...models.records import Identity
from ..hands.faults import is_gone
from . import door
from .identity import cgroup_and_unit, program, real_uid
from .text import printable


@dataclass(frozen=True, slots=True)
class Seen:
    """What runs as a pid now."""

    id: ProcId
    session: int
    parent: int  # pid
    identity: Identity


def see(pid: int, proc: Path = Path("/proc")) -> Seen | None:
    """The process that has this pid; None if there is none. A program whose executable may not be read is named by its comm.

    Raises OSError if the process may exist but cannot be read: another user's with `hidepid`, or no descriptor is free.
    """
    directory = proc / str(pid)
    try:
        comm = printable((directory / "comm").read_bytes().rstrip(b"\n").decode("utf-8", "backslashreplace"))
        fields = (directory / "stat").read_bytes().rpartition(b")")[2].split()  # from field 3 on (proc_pid_stat(5))
        cmdline = (directory / "cmdline").read_bytes()
        cgroup, unit = cgroup_and_unit((directory / "cgroup").read_bytes())
        uid = directory.stat().st_uid
        real = real_uid((directory / "status").read_bytes())
    except OSError as error:
        if is_gone(error):
            return None
        raise
    if len(fields) <= 19:
        return None  # it ended while it was read
    try:
        exe = door.link(str(directory), "exe")
    except OSError:
        exe = None
    identity = Identity(comm, program(exe, comm, cmdline), cgroup, unit, uid, real_uid=None if real == uid else real)
    return Seen(ProcId(pid, int(fields[19])), int(fields[3]), int(fields[1]), identity)


def ancestors(seen: Seen, proc: Path = Path("/proc")) -> Iterator[Seen]:
    """The ancestors of a process, nearest first, as far as they still exist and may be seen."""
    while seen.parent:
        above = None
        with suppress(PermissionError):
            above = see(seen.parent, proc)
        if above is None or above.id.start_ticks > seen.id.start_ticks:  # its pid is reused
            return
        yield above
        seen = above


def see_all(proc: Path = Path("/proc")) -> Iterator[Seen]:
    """All processes that may be seen, by pid. A process that ends meanwhile is left out."""
    for pid in sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdigit()):
        with suppress(PermissionError):
            seen = see(pid, proc)
            if seen is not None:
                yield seen
