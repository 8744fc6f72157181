"""Keeps the sentries of the daemon: starts them, notices when none is left, and dismisses them. Knows processes and pipes.

Must not know the ledger or what the sentries do: that is `hands/sentry.py`.
"""

from __future__ import annotations

import os
import select
import subprocess
from pathlib import Path
from typing import Protocol

from ..interpreter import isolated

START_SECONDS = 5.0
"""Seconds to wait until a sentry watches (chosen: it takes 0.1). Nothing is changed before."""

END_SECONDS = 2.0
"""Seconds to wait for a dismissed sentry to end (chosen: it takes some milliseconds)."""

AGAIN_NS = 10_000_000_000
"""ns before sentries are started again if they could not be, or if all of them have ended (chosen)."""

_COMMAND = isolated("nicety.scheduler.hands.sentry")


class Watchers(Protocol):
    """Sentries: those of this process, or of its hands."""

    @property
    def pid(self) -> int | None:
        """Pid of the first sentry; None: there are none, or it has ended."""
        ...

    @property
    def trouble(self) -> str:
        """Why there are none; "" if there are, or none are wanted."""
        ...

    def keep(self, now: int) -> None:
        """Call it once a tick, before anything is changed. `now`: monotonic ns. Never raises."""
        ...

    def dismiss(self) -> None:
        """End them. Idempotent."""
        ...


class Sentries:
    """The sentries of this process, none until `keep`."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._first: subprocess.Popen[bytes] | None = None
        self._orders = self._alive = -1  # ends of the pipes to and from the sentries
        self._next = 0  # monotonic ns before which none are started
        self.trouble = ""
        """Why there are none; "" if there are, or none are wanted."""

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
            self.trouble = ""
        except OSError as error:
            self._let_go()
            cause = error.strerror or str(error)
            self.trouble = f"no sentry could be started ({cause}): after kill -9 changes stay until `nicety undo`"

    def dismiss(self) -> None:
        """End the sentries: this process ends well, or does not act any more. Idempotent."""
        if self._orders >= 0:
            try:
                os.write(self._orders, b".")
            except OSError:
                pass  # none is left
        first = self._first
        self._let_go()
        if first is not None:
            try:
                first.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                first.kill()
                first.wait()

    @property
    def pid(self) -> int | None:
        """Pid of the first sentry, as long as there are any; None: there are none."""
        return self._first.pid if self._first is not None and self._alive >= 0 else None

    def _start(self) -> None:
        """Raises OSError."""
        theirs_in, self._orders = os.pipe()
        try:
            self._alive, theirs_out = os.pipe()
            os.set_blocking(self._alive, False)
            try:
                command = [*_COMMAND, str(os.getpid()), str(self._state_dir)]
                self._first = subprocess.Popen(command, stdin=theirs_in, stdout=theirs_out, env={}, cwd="/")
            finally:
                os.close(theirs_out)
        finally:
            os.close(theirs_in)
        self._await_ready()

    def _await_ready(self) -> None:
        """Raises OSError if the sentry does not watch in time."""
        poll = select.poll()  # not select(2): descriptors of a daemon go beyond 1023
        poll.register(self._alive, select.POLLIN)
        if not poll.poll(START_SECONDS * 1000):
            raise TimeoutError(f"it was not ready within {START_SECONDS:g} s")
        if os.read(self._alive, 16) != b"ready\n":
            raise ChildProcessError("it ended at once")

    def _is_left(self) -> bool:
        if self._first is not None:
            self._first.poll()  # so that it does not stay as a zombie
        try:
            return os.read(self._alive, 16) != b""
        except BlockingIOError:
            return True

    def _let_go(self) -> None:
        for fd in (self._orders, self._alive):
            if fd >= 0:
                os.close(fd)
        self._orders = self._alive = -1
        if self._first is not None and self._first.poll() is not None:
            self._first = None
