"""How a process is named. Pure, standard library only: the hands read it too."""

from __future__ import annotations

from .lean import NamedTuple


class ProcId(NamedTuple):
    """A process: pid and start time in clock ticks since boot (field 22 of /proc/PID/stat). A bare pid is never an identity."""

    pid: int
    start_ticks: int
