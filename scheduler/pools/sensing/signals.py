"""Processes by identity: a pidfd with the matching start time, which never means another process.

Must not know pools, time or policies.
"""

from __future__ import annotations

import os
import select
from pathlib import Path
from typing import NamedTuple

from ....models.identity import ProcId

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
"""Unit of start times in /proc/PID/stat."""


class Stat(NamedTuple):
    """The fields of /proc/PID/stat that pools need."""

    state: str
    ppid: int
    threads: int
    start_ticks: int


def parse_stat(raw: bytes) -> Stat:
    """Fields of one /proc/PID/stat line. The name may hold blanks and parentheses: fields are counted after the last ")"."""
    fields = raw[raw.rindex(b")") + 2 :].split()
    return Stat(fields[0].decode("ascii"), int(fields[1]), int(fields[17]), int(fields[19]))


def read_stat(proc_root: Path, pid: int) -> Stat | None:
    """The process's stat; None if it is gone."""
    try:
        return parse_stat((proc_root / str(pid) / "stat").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return None


def identify(proc_root: Path, pid: int) -> ProcId | None:
    """The process with this pid now; None if there is none, or only a zombie."""
    stat = read_stat(proc_root, pid)
    return None if stat is None or stat.state in "ZX" else ProcId(pid, stat.start_ticks)


def age_seconds(proc_root: Path, process: ProcId) -> float:
    """How long a process has existed, to 10 ms."""
    uptime = float((proc_root / "uptime").read_text(encoding="ascii").split()[0])
    return max(0.0, uptime - process.start_ticks / TICKS_PER_SECOND)


class ProcessHandle:
    """One process, held by its pidfd. If the pid is reused, the handle still means the process that it was opened for."""

    def __init__(self, process: ProcId, pidfd: int) -> None:
        self.id = process
        self._pidfd = pidfd
        self._exit = select.poll()
        self._exit.register(pidfd, select.POLLIN)

    def exited(self) -> bool:
        """Whether it has ended (a zombie has)."""
        return bool(self._exit.poll(0))

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._pidfd)


def open_process(proc_root: Path, pid: int, expected: ProcId | None = None) -> ProcessHandle | None:
    """A handle on the process with this pid; None if it is gone or not the `expected` one.

    The pidfd is opened before the start time is read: if the pid was reused in between, the pidfd shows an exited process.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except (ProcessLookupError, OverflowError):
        return None
    found = identify(proc_root, pid)
    if found is None or (expected is not None and found != expected):
        os.close(pidfd)
        return None
    handle = ProcessHandle(found, pidfd)
    if handle.exited():
        handle.close()
        return None
    return handle
