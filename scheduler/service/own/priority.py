"""The daemon's own priority: applies what `Ladder` chooses. Knows /proc/self/autogroup and setpriority(2). Must not know
decisions, the ledger, or why something is demoted.

A tick is an uninterrupted run of some ten milliseconds of CPU. Beside a session at nice 0 the daemon gets half of a CPU for it; at
nice 19 next to nothing; beside a hundred busy sessions a hundredth. A nice alone does not make the daemon stand back. The kernel
owes a session the time that it waited for a CPU (EEVDF, the lag), and a tick that is owed some milliseconds runs them before a
service that wakes up beside it. So a daemon that stands back requests the longest slice for a tick, which puts its deadline behind
all others. Before it sleeps it requests the shortest slice, which limits the debt to 4 ms (entity_lag in kernel/sched/fair.c). And
it runs on another CPU if it may: `cpu.py`.

It sets two values. Which of them counts depends on where the daemon was started, and the other does no harm. The nice of its
session counts beside other sessions in the root cgroup. It is changed only if the daemon leads the session: then nothing else is in
the session, and its nice ends with it. The nice of its one thread counts within a session or a cgroup. It is only set below what it
was at the start, never above, and with the flag SCHED_RESET_ON_FORK, so that processes that the daemon starts have nice 0. A start
at a nice above 0 means that the daemon should stand back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from .ladder import Ladder, Rest

NO_RIGHT = "ticks wait for a CPU, and the daemon may not raise its priority; give it CAP_SYS_NICE"
AT_THE_TOP = "ticks wait for a CPU although the daemon has the highest priority that it asks for"
CALM = 30
"""Ticks on time, one after the other, after which its ticks are no longer told to be late (chosen): on a full machine every third
one may be."""

ANOTHERS = ", because this counts only within the session that started it: start it with setsid, or as a service"


class SetsOwnNice(Protocol):
    """Hands that set the nice of the daemon itself."""

    def own_nice(self, nice: int, *, session: bool) -> None:
        """Set the nice of the daemon's session, which it leads, or of its one thread. Raises OSError as the kernel does."""


class OwnPriority:
    """Follows a ladder. Never touches a value again that somebody else has changed. `hands`: those with the rights that it takes;
    None: this process tries itself."""

    def __init__(self, ladder: Ladder | None = None, hands: SetsOwnNice | None = None) -> None:
        self._ladder = Ladder() if ladder is None else ladder
        self._hands = hands
        self._path = Path("/proc/self/autogroup")
        self._leads = os.getsid(0) == os.getpid()
        self._waited = _waited()
        self._session: int | None = 0 if self._leads else None  # nice that we gave the session; None: not ours
        self._base = os.getpriority(os.PRIO_PROCESS, 0)
        self._own: int | None = self._base if self._base <= 0 and _resets_on_fork() else None
        self._may_rise = True
        self._on_time = self._on_time_at_the_top = CALM  # ticks since the last late one, and since the last late one up there

    @property
    def nice(self) -> int:
        """The nice of its session if we changed it, else of its thread; 0 if neither is ours."""
        return self._session or self._own or 0

    @property
    def trouble(self) -> str:
        """Why its ticks will stay late; "" if they are on time, or may be soon."""
        if self._on_time >= CALM:
            return ""
        if not self._may_rise:
            return NO_RIGHT
        return AT_THE_TOP + ("" if self._leads else ANOTHERS) if self._on_time_at_the_top < CALM else ""

    def begin(self) -> None:
        """Call when the loop begins. What this thread waited before does not count."""
        self._waited = _waited()

    def follow(self, at: int, rest: Rest, most: int) -> None:
        """Call often, also during a slow tick, with the rung where the daemon should rest. `at` is monotonic ns. If this thread has
        waited for a CPU for more than `most` ns since the last tick, the daemon climbs at once. Never raises."""
        now = _waited()
        if now is not None and self._waited is not None and now - self._waited > most:
            self.ticked(at, 0, most)
        self._ladder.follow(at, rest)
        self._give(self._ladder.nice)

    def ticked(self, at: int, took: int, most: int) -> None:
        """Call after each tick with the ns from when it was due to its end. If the kernel reports how long this thread waited for a
        CPU since the last call, that is what counts: a stopped daemon, a machine that slept, or a slow disk is no reason to
        climb."""
        before, self._waited = self._waited, _waited()
        waited = took if before is None or self._waited is None else self._waited - before
        late = waited > most
        self._on_time = 0 if late else self._on_time + 1
        self._on_time_at_the_top = 0 if late and self._ladder.highest else self._on_time_at_the_top + 1
        self._ladder.ticked(at, waited, most)

    def give_back(self) -> None:
        """Restore the values that the daemon was started with. Never raises."""
        self._give(0)

    def _give(self, wanted: int) -> None:
        if self._session is not None:
            self._give_session(wanted if self._may_rise else max(wanted, 0))
        if self._own is not None:
            self._give_thread(min(self._base, wanted) if self._may_rise else self._base)

    def _give_session(self, wanted: int) -> None:
        if wanted == self._session:
            return
        try:
            if int(self._path.read_text().split()[-1]) != self._session:
                self._session = None
                return
            if self._hands is None:
                self._path.write_text(str(wanted))
            else:
                self._hands.own_nice(wanted, session=True)
            self._session = wanted
        except BlockingIOError:
            pass  # without CAP_SYS_ADMIN only one change per 0.1 s is allowed: the next call makes it
        except PermissionError:
            self._refused(wanted)
        except (OSError, ValueError, IndexError):
            self._session = None  # this kernel has no autogroups

    def _give_thread(self, wanted: int) -> None:
        if wanted == self._own:
            return
        try:
            if os.getpriority(os.PRIO_PROCESS, 0) != self._own:
                self._own = None
                return
            if self._hands is None:
                os.setpriority(os.PRIO_PROCESS, 0, wanted)
            else:
                self._hands.own_nice(wanted, session=False)
            self._own = wanted
        except PermissionError:
            self._refused(wanted)

    def _refused(self, wanted: int) -> None:
        """Note that the kernel refused. A refused rise means missing rights; any other refusal, rules that somebody set."""
        if wanted < 0:
            self._may_rise = False
        else:
            self._session = self._own = None


def _resets_on_fork() -> bool:
    """Make sure that processes of this thread do not inherit a nice below 0. False: they would."""
    try:
        policy = os.sched_getscheduler(0)
        if not policy & os.SCHED_RESET_ON_FORK:
            os.sched_setscheduler(0, policy | os.SCHED_RESET_ON_FORK, os.sched_getparam(0))
    except OSError:
        return False
    return True


def _waited() -> int | None:
    """ns that this thread has waited in the run queue so far; None if the kernel does not count that."""
    try:
        file = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)  # Path.read_text costs more than the system calls
        try:
            return int(os.read(file, 128).split()[1]) or None  # "0 0 0" if compiled in, but switched off
        finally:
            os.close(file)
    except (OSError, ValueError, IndexError):
        return None
