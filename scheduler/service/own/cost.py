"""What the daemon itself costs, and keeping to its budget. `Budget` decides; this measures and reports."""

from __future__ import annotations

import resource
from pathlib import Path

from ...explain.logstream import NOTICE, WARNING
from ...hands.kernel import Clock
from ..reports import Reports
from .budget import LEVELS, WINDOW_NS, Budget


def keep_to_budget(budget: Budget, clock: Clock, reports: Reports) -> None:
    """Do deferrable work less often if this daemon exceeds its budget, and as usual again when it costs much less."""
    change = budget.used(clock.monotonic(), own_cpu_ns())
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
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
