"""Which reader serves: /proc on Linux, psutil elsewhere. Must not know what is done with what they read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from ..ports import Source

Reader = Literal["proc", "psutil"]
"""`proc.py` or `psutil_reader.py`."""

LINUX = "linux"
"""`sys.platform` where /proc is that of proc(5)."""

UNREAD = (
    "psutil reads the processes: it reports neither how long they wait for a CPU, nor their sockets, nor their cgroups, so no "
    "class is learned, and no process is demoted, placed or fenced in"
)
"""What is not done where psutil serves, and why."""


def on_linux() -> bool:
    """Whether there are Linux's /proc, cgroups, and controls of single threads."""
    return sys.platform == LINUX


def serving(wanted: str) -> Reader:
    """The reader for `daemon.reader` of the configuration."""
    return "psutil" if wanted == "psutil" or (wanted == "auto" and not on_linux()) else "proc"


def open_source(wanted: str, *, slow_every: int, proc: Path = Path("/proc")) -> Source:
    """The source that serves. Only its own module is imported: psutil takes memory that a daemon on Linux can do without.

    Raises MachineError if /proc is wanted and `proc` is none.
    """
    if serving(wanted) == "psutil":
        from .psutil_reader import PsutilSource

        return PsutilSource(slow_every=slow_every)
    from .proc import ProcSource

    return ProcSource(proc, slow_every=slow_every)
