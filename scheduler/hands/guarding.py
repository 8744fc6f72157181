"""The hands' own sentries: forked from the hands, so that they share their memory. Knows processes and pipes.

A daemon without hands of its own starts its sentries anew: `act/sentries.py`.
"""

from __future__ import annotations

import os
import select
import signal

from .sentry import Sentry

START_SECONDS = 5.0
"""Seconds to wait until a sentry watches (chosen: it takes some milliseconds). Nothing is changed before."""


class Guarding:
    """The sentries of this process, none until `keep`."""

    def __init__(self, state_dir: str) -> None:
        self._state_dir = state_dir
        self._orders = self._alive = -1  # ends of the pipes to and from the sentries
        self.pid: int | None = None
        """Pid of the first sentry; None: there is none."""
        self.trouble = ""
        """Why there are none; "" if there are, or none are wanted."""

    def keep(self) -> None:
        """Have sentries; returns when they watch. Never raises: see `trouble`."""
        if self._alive >= 0 and self._is_left():
            return
        self._let_go()
        try:
            self._start()
            self.trouble = ""
        except OSError as error:
            self._let_go()
            self.trouble = f"no sentry could be started ({error.strerror or error}): if the hands are killed, changes stay"

    def dismiss(self) -> None:
        """End them: nothing is in force, or it is meant to stay. Idempotent."""
        if self._orders >= 0:
            try:
                os.write(self._orders, b".")
            except OSError:
                pass  # none is left
        first = self.pid
        self._let_go()
        if first is not None:
            _reap(first, 0)

    def _start(self) -> None:
        """Raises OSError."""
        theirs_in, self._orders = os.pipe()
        self._alive, theirs_out = os.pipe()
        own = os.pidfd_open(os.getpid())
        child = os.fork()
        if child == 0:
            _watch(own, theirs_in, theirs_out, self._state_dir)
        for fd in (theirs_in, theirs_out, own):
            os.close(fd)
        self.pid = child
        os.set_blocking(self._alive, False)
        poll = select.poll()
        poll.register(self._alive, select.POLLIN)
        if not poll.poll(START_SECONDS * 1000) or os.read(self._alive, 16) != b"ready\n":
            raise ChildProcessError("it did not begin to watch")

    def _is_left(self) -> bool:
        if self.pid is not None and _reap(self.pid, os.WNOHANG):
            self.pid = None  # the other one has started another, which is not our child
        try:
            return os.read(self._alive, 16) != b""
        except BlockingIOError:
            return True

    def _let_go(self) -> None:
        for fd in (self._orders, self._alive):
            if fd >= 0:
                os.close(fd)
        self._orders = self._alive = -1
        if self.pid is not None and _reap(self.pid, os.WNOHANG):
            self.pid = None


def _watch(hands: int, orders: int, alive: int, state_dir: str) -> None:
    """What the child does, and ends."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        keep_only(hands, orders, alive)
        os.setsid()
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


def _reap(pid: int, how: int) -> bool:
    """Whether this child has ended and is not there any more."""
    try:
        return os.waitpid(pid, how)[0] == pid
    except ChildProcessError:
        return True
