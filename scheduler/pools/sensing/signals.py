"""Processes by identity: a pidfd with the start time that goes with it, so that a signal can never reach a stranger.

Must not know pools, time or policies.
"""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path
from typing import NamedTuple

from ....models.records import ProcId
from ...decision import Status

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
"""Unit of start times in /proc/PID/stat."""


class Stat(NamedTuple):
    """The fields of /proc/PID/stat that pools need."""

    state: str
    ppid: int
    threads: int
    start_ticks: int


def parse_stat(raw: bytes) -> Stat:
    """Fields of one /proc/PID/stat line. The name in it may hold blanks and parentheses: fields are counted after the last one."""
    fields = raw[raw.rindex(b")") + 2 :].split()
    return Stat(fields[0].decode("ascii"), int(fields[1]), int(fields[17]), int(fields[19]))


def read_stat(proc_root: Path, pid: int) -> Stat | None:
    """The process's stat, None when it is gone."""
    try:
        return parse_stat((proc_root / str(pid) / "stat").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return None


def identify(proc_root: Path, pid: int) -> ProcId | None:
    """Who has this pid now; None when nobody or only a zombie does."""
    stat = read_stat(proc_root, pid)
    return None if stat is None or stat.state in "ZX" else ProcId(pid, stat.start_ticks)


def age_seconds(proc_root: Path, process: ProcId) -> float:
    """How long a process has been there: 10 ms fine."""
    uptime = float((proc_root / "uptime").read_text(encoding="ascii").split()[0])
    return max(0.0, uptime - process.start_ticks / TICKS_PER_SECOND)


class ProcessHandle:
    """One process, held by its pidfd: the pid may be reused meanwhile, the handle still means the one that it was opened for."""

    def __init__(self, process: ProcId, pidfd: int) -> None:
        self.id = process
        self._pidfd = pidfd
        self._exit = select.poll()
        self._exit.register(pidfd, select.POLLIN)

    def exited(self) -> bool:
        """Whether it has ended (a zombie has)."""
        return bool(self._exit.poll(0))

    def send(self, number: signal.Signals) -> tuple[Status, str]:
        """Send a signal. APPLIED: the kernel took it; two of a kind that are pending together arrive as one."""
        return self._send(number, f"{number.name} to pid {self.id.pid}")

    def may_signal(self) -> tuple[Status, str]:
        """Whether signals would be taken: APPLIED, VANISHED or REFUSED, nothing is sent."""
        return self._send(0, f"signals to pid {self.id.pid}")

    def _send(self, number: int, what: str) -> tuple[Status, str]:
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return Status.VANISHED, f"pid {self.id.pid} is gone"
        except PermissionError:
            return Status.REFUSED, f"no permission for {what}: run nicety as the same user, or give it CAP_KILL"
        return Status.APPLIED, what

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._pidfd)


def open_process(proc_root: Path, pid: int, expected: ProcId | None = None) -> ProcessHandle | None:
    """A handle on the process that has this pid, None when it is gone or not the `expected` one.

    The pidfd comes first and the start time second: had the pid been reused in between, the pidfd would show an exited process.
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


def send_to(proc_root: Path, process: ProcId, number: signal.Signals) -> tuple[Status, str]:
    """Send one signal to this process, VANISHED when it is gone; see `ProcessHandle.send`."""
    handle = open_process(proc_root, process.pid, process)
    if handle is None:
        return Status.VANISHED, f"pid {process.pid} is gone"
    try:
        return handle.send(number)
    finally:
        handle.close()
