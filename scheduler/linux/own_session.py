"""The daemon's own session, which steps back while something is demoted for a service: what the batch no longer takes from it,
the daemon must not take instead. Knows /proc/self/autogroup. Must not know decisions, the ledger, or why something is demoted.

A tick is some ten milliseconds of CPU in one piece. Beside a session at nice 0 it has half of a CPU until it is done, at nice 19
next to nothing. That alone is not enough: what a session waited for a CPU the kernel owes it (EEVDF, the lag), and a tick that is
owed some milliseconds runs them before a service that wakes up beside it. So a tick of a daemon that stands back asks for the
longest slice, which puts its deadline behind everybody's, and for the shortest before it sleeps, which bounds what it is owed to
4 ms (entity_lag in kernel/sched/fair.c). And it runs on another CPU if there is one: `own_cpu.py`.

Only a session that the daemon itself leads is changed: nobody else is in it, and its nice ends with it.
"""

from __future__ import annotations

import os
from pathlib import Path

NICES = (19, 10, 0)
"""What is tried, in this order, until ticks are in time: least, as the batch has it; a tenth of a session's usual weight, enough
beside sessions that nobody demoted; all of it."""


class OwnSession:
    """Steps back and forth; lets go for good of a nice that somebody else chose."""

    def __init__(self) -> None:
        self._path = Path("/proc/self/autogroup")
        self._ours = os.getsid(0) == os.getpid()
        self._steps = 0  # into NICES
        self._waited = _waited()
        self.nice = 0  # what we gave it

    def step_back(self, demoted: bool) -> None:
        """To be told often whether something is demoted: at one of `NICES` while it is, back at 0 when it is not. Never raises."""
        self._steps = self._steps if demoted else 0
        wanted = NICES[self._steps] if demoted else 0
        if wanted == self.nice or not self._ours:
            return
        try:
            self._ours = int(self._path.read_text().split()[-1]) == self.nice
            if self._ours:
                self._path.write_text(str(wanted))
                self.nice = wanted
        except BlockingIOError:
            pass  # without CAP_SYS_ADMIN one change in a tenth of a second: the next look makes it
        except (OSError, ValueError, IndexError):
            self._ours = False  # this kernel has no autogroups

    def ticked(self, took: int, most: int) -> None:
        """To be told after each tick how many ns it was from when it was due to its end. A step forward, until nothing is demoted
        any more, where more than `most` of that went by in waiting for a CPU: a protection that comes late is none. A daemon that
        was stopped, a machine that slept, or a slow disk is no reason."""
        before, self._waited = self._waited, _waited()
        if before is not None and self._waited is not None:
            took = min(took, self._waited - before)
        if self.nice and took > most:
            self._steps = min(self._steps + 1, len(NICES) - 1)


def _waited() -> int | None:
    """ns for which this thread was ready to run and had no CPU, so far; None where the kernel does not count that."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) or None  # "0 0 0" where it is compiled in, but off
    except (OSError, ValueError, IndexError):
        return None
