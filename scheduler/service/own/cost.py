"""What the daemon itself costs, with its hands and eyes, and keeping to its budget. `Budget` decides; this measures and reports."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from pathlib import Path

from ...explain.logstream import NOTICE, WARNING
from ...hands.kernel import Clock
from ..reports import Reports
from .budget import LEVELS, WINDOW_NS, Budget

_CPUCLOCK_SCHED = 2  # clock id of a whole process: ~pid << 3 | 2, include/linux/posix-timers.h


class Helpers:
    """Processes that work for this one alone: its hands and eyes. What they did before does not count."""

    def __init__(self, pids: Sequence[int] = ()) -> None:
        self._began = {pid: _cpu_ns(pid) for pid in pids}
        self._used = dict(self._began)

    def cpu_ns(self) -> int:
        """CPU time that they used, ns. What one used that has ended still counts."""
        for pid, used in self._used.items():
            self._used[pid] = max(used, _cpu_ns(pid))
        return sum(self._used.values()) - sum(self._began.values())

    def resident_bytes(self) -> int:
        """Resident memory of those that are alive. Pages that they share count for each."""
        return sum(_resident_bytes(str(pid)) for pid in self._used)


def _cpu_ns(pid: int) -> int:
    try:
        return time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED)
    except OSError:  # it has ended
        return 0


def _resident_bytes(name: str) -> int:
    try:
        return int(Path(f"/proc/{name}/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:  # it has ended
        return 0


def keep_to_budget(budget: Budget, helpers: Helpers, clock: Clock, reports: Reports) -> None:
    """Do deferrable work less often if this daemon and its helpers exceed its budget, and as usual again when they cost much
    less."""
    change = budget.used(clock.monotonic(), own_cpu_ns() + helpers.cpu_ns())
    if change is None:
        return
    used = f"used {change.share:.1%} of a CPU in {WINDOW_NS / 1e9:g} s"
    limit = f"daemon.budget ({budget.limit:.1%})"
    if change.up:
        reports.event(WARNING, f"{used}, more than {limit}: from now on {LEVELS[change.level][1]}")
    else:
        reports.event(NOTICE, f"{used}, well within {limit}: no longer {LEVELS[change.level + 1][1]}")


def own_cpu_ns() -> int:
    """CPU time of this process so far, user and system, ns."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return round((usage.ru_utime + usage.ru_stime) * 1e9)


def resident_bytes() -> int:
    """Resident memory of this process."""
    return _resident_bytes("self")
