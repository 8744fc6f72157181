"""Keeps the sentries of a process that changes values: starts them, notices when none is left, and dismisses them.

The hands fork theirs, which then share their memory; a daemon without hands of its own starts them anew (`act/sentries.py`). Knows
processes and pipes. Must not know the ledger or what the sentries do: that is `sentry.py`.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable

from ...models.lean import Protocol
from .sentry import Sentry, stay

START_SECONDS = 5.0
"""Seconds to wait until a sentry watches (chosen: it takes 0.1 at most). Nothing is changed before."""

END_SECONDS = 2.0
"""Seconds to wait for a dismissed sentry to end (chosen: it takes some milliseconds)."""

AGAIN_NS = 10_000_000_000
"""ns before sentries are started again if they could not be (chosen)."""

LOST_NS = 1_000_000_000
"""ns from one start to the next if all sentries have ended (chosen: two are there again within 2 s, and those that something kills
again and again cost little)."""

Start = Callable[[int, int], int]
"""Starts the first sentry, which reads its orders from one pipe and shows by the other that it lives; returns its pid. Raises
OSError."""


class Watchers(Protocol):
    """Sentries: those of this process, or of its hands."""

    @property
    def pid(self) -> int | None:
        """Pid of the first sentry; None: there are none, or it has ended."""

    @property
    def trouble(self) -> str:
        """Why there are none; "" if there are, or none are wanted."""

    def keep(self, now: int) -> None:
        """Call it once a tick, before anything is changed. `now`: monotonic ns. Never raises."""

    def dismiss(self) -> None:
        """End them. Idempotent."""


class Guarding:
    """The sentries of this process, none until `keep`. `start`: how the first is started; `lost`: what it means to have none."""

    def __init__(self, start: Start, lost: str) -> None:
        self._start_first = start
        self._lost = lost
        self._first = 0  # pid of the first sentry; 0: none
        self._orders = self._alive = -1  # ends of the pipes to and from the sentries
        self._next = 0  # monotonic ns before which none are started
        self.trouble = ""
        """Why there are none; "" if there are, or none are wanted."""

    @property
    def pid(self) -> int | None:
        """Pid of the first sentry; None: there is none, or only the second is left."""
        return self._first or None

    def keep(self, now: int) -> None:
        """Start sentries if none is there; returns when they watch. Call it once a tick, before anything is changed. `now`:
        monotonic ns. Never raises: see `trouble`."""
        if self._alive >= 0:
            if self._is_left():
                return
            self._let_go()
            self.trouble = "all sentries have ended"
        if now < self._next:
            return
        self._next = now + AGAIN_NS
        try:
            self._start()
            self._next, self.trouble = now + LOST_NS, ""
        except OSError as error:
            self._let_go()
            self.trouble = f"no sentry could be started ({error.strerror or error}): {self._lost}"

    def dismiss(self) -> None:
        """End the sentries: nothing is in force, or it is meant to stay. Idempotent."""
        if self._orders >= 0:
            try:
                os.write(self._orders, b".")
            except OSError:
                pass  # none is left
        first = self._first
        self._let_go()
        if self._first:  # it has not ended yet
            if not _ends(first):
                os.kill(first, signal.SIGKILL)
            self._reap(0)
        self._next = 0

    def _start(self) -> None:
        """Raises OSError."""
        theirs_in, self._orders = os.pipe()
        try:
            self._alive, theirs_out = os.pipe()
            os.set_blocking(self._alive, False)
            try:
                self._first = self._start_first(theirs_in, theirs_out)
            finally:
                os.close(theirs_out)
        finally:
            os.close(theirs_in)
        poll = select.poll()  # not select(2): descriptors of a daemon go beyond 1023
        poll.register(self._alive, select.POLLIN)
        if not poll.poll(START_SECONDS * 1000):
            raise TimeoutError(f"it was not ready within {START_SECONDS:g} s")
        if os.read(self._alive, 16) != b"ready\n":
            raise ChildProcessError("it ended at once")

    def _is_left(self) -> bool:
        self._reap()
        try:
            return os.read(self._alive, 16) != b""
        except BlockingIOError:
            return True

    def _let_go(self) -> None:
        for fd in (self._orders, self._alive):
            if fd >= 0:
                os.close(fd)
        self._orders = self._alive = -1
        self._reap()

    def _reap(self, how: int = os.WNOHANG) -> None:
        """So that the first sentry does not stay as a zombie."""
        try:
            if self._first and os.waitpid(self._first, how)[0]:
                self._first = 0
        except ChildProcessError:  # SIGCHLD is ignored here, and nobody stays
            self._first = 0


def by_fork(state_dir: str) -> Start:
    """Starts a sentry of this process by a fork, which shares what is loaded."""

    def start(orders: int, alive: int) -> int:
        own = os.pidfd_open(os.getpid())
        try:
            child = os.fork()
            if child == 0:
                _watch(own, orders, alive, state_dir)
        finally:
            os.close(own)
        return child

    return start


def _watch(hands: int, orders: int, alive: int, state_dir: str) -> None:
    """What the child does, and ends."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        stay()
        keep_only(hands, orders, alive)
        os.setsid()
        os.chdir("/")
        sentry = Sentry(hands, orders, state_dir, "hands")
        os.write(alive, b"ready\n")
        sentry.run()
        code = 0
    finally:
        os._exit(code)


def keep_only(*kept: int) -> None:
    """Close everything but these and the log: the hands' socket, lock and ledger must end with the hands."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            try:
                os.close(int(name))
            except OSError:
                pass  # the listing's own


def _ends(pid: int) -> bool:
    """Whether this child ends within `END_SECONDS`."""
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(END_SECONDS * 1000))
    finally:
        os.close(pidfd)
