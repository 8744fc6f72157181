"""Keeps the daemon off the CPU of a service that has work, if it may use another. Must not know decisions, or why something is
demoted.

The scheduler leaves a waking thread on its last CPU as long as no CPU is idle, so it is chance whether the daemon shares the
service's CPU. If it does, requests that arrive during a tick wait longer, even at nice 19. So the daemon moves away. Right after
that it allows itself every CPU again, because the processes that it starts must not inherit an affinity.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Sequence

from ....models.identity import ProcId
from ...read.holders import stat_fields

MOST = 4
"""Maximum processes that are looked at. Chosen: each takes 25 us."""

PROCESSOR = 36
"""Field 39 of proc_pid_stat(5), counted after the name: the CPU that the first thread ran on last."""

_libc = ctypes.CDLL(None)


def stand_aside(services: Sequence[ProcId]) -> None:
    """Move this thread off the CPUs on which the first `MOST` of these services ran last, if it may use another. Never raises."""
    if not hasattr(os, "sched_setaffinity"):  # macOS, FreeBSD
        return
    theirs = {_last_cpu(process) for process in services[:MOST]}
    if _libc.sched_getcpu() not in theirs:
        return
    ours = os.sched_getaffinity(0)
    if ours <= theirs:
        return
    with contextlib.suppress(OSError):  # the allowed CPUs have changed meanwhile
        os.sched_setaffinity(0, ours - theirs)
        os.sched_setaffinity(0, ours)


def _last_cpu(process: ProcId) -> int:
    """The CPU that a process ran on last; -1: it is gone."""
    try:
        return int(stat_fields(f"/proc/{process.pid}/stat")[PROCESSOR])
    except (OSError, ValueError):
        return -1
