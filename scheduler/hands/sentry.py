"""The sentry: a small process that puts everything back when the daemon dies, however it dies.

It holds a pidfd of the daemon and waits. When the daemon has ended, it takes the lock of the state directory and undoes what the
ledger has open: nothing, if the daemon ended well. There are two of it, and each starts the other again, so that one that dies with
the daemon leaves one. The daemon dismisses them before it ends: it writes into the pipe that is their stdin, which neither reads.
Their stdout is a pipe to the daemon, which ends when none of them is left.

Standard library only. Everything that it needs then is loaded at the start: a machine on which daemons die may have no descriptor,
no memory and no disk left.
"""

from __future__ import annotations

import os
import select
import signal
import time

from .ledger import LedgerError, StateBusyError, StateLock
from .saying import say
from .undoing import AGAIN, TRIES, in_words, needs_no_more, undo_directory
from .urgent import be_called, hurry

PATIENCE = 10.0
"""Seconds to wait while the other sentry is at work (chosen)."""

NAME = "nicety-sentry"
"""What ps(1) and top(1) show."""


class Sentry:
    """One of the two. `daemon`: pidfd of the process to watch, the daemon or its hands; `orders`: the pipe from it; `state_dir`:
    where its ledger is; `watched`: what people call it."""

    def __init__(self, daemon: int, orders: int, state_dir: str, watched: str = "daemon") -> None:
        self._daemon = daemon
        self._watched = watched
        be_called(NAME)
        self._orders = orders
        self._state_dir = state_dir
        self._other = 0  # pid of the other sentry
        self._other_fd = -1
        self._poll = select.poll()
        self._poll.register(daemon, select.POLLIN)
        self._poll.register(orders, select.POLLIN)

    def run(self) -> None:
        """Watch until the daemon has ended, then put back what it left. Both sentries return."""
        self._start_other()
        while True:
            ready = dict(self._poll.poll())
            if ready.get(self._daemon):
                hurry()
                self.put_back()
                return
            orders = ready.get(self._orders, 0)
            if orders & select.POLLIN:
                return  # dismissed
            if orders:
                self._poll.unregister(self._orders)  # the daemon is about to end
            if ready.get(self._other_fd):
                self._forget_other()
                self._start_other()

    def put_back(self) -> None:
        """Put back what the daemon left changed, and say so in its log."""
        for number in range(TRIES):
            try:
                with StateLock(self._state_dir, PATIENCE, sentry=True):
                    undone = undo_directory(self._state_dir)
            except StateBusyError:
                return  # a new daemon, which has put everything back itself
            except (LedgerError, OSError) as error:
                say(3, f"the {self._watched} died, and a sentry could not put its changes back: {error}")
                return
            lost = [note.text for note in undone.notes if note.lost]
            if undone.done or lost:
                say(4, "; ".join((f"the {self._watched} died", in_words("a sentry", undone.done), *lost)))
            if undone.pools:
                say(4, f"the {self._watched} died; pools keep their size ({', '.join(undone.pools)}): `nicety undo` puts it back")
            if needs_no_more(undone.done):
                return
            if number < TRIES - 1:
                time.sleep(AGAIN)

    def _start_other(self) -> None:
        """Fork the other sentry, which watches the daemon and this one. Without another process, this one is alone."""
        first = os.getpid()
        try:
            child = os.fork()
        except OSError:
            return
        if child == 0:
            os.setsid()
        self._watch_other(child or first)

    def _watch_other(self, pid: int) -> None:
        try:
            self._other, self._other_fd = pid, os.pidfd_open(pid)
        except OSError:
            self._other, self._other_fd = 0, -1
            return
        self._poll.register(self._other_fd, select.POLLIN)

    def _forget_other(self) -> None:
        self._poll.unregister(self._other_fd)
        os.close(self._other_fd)
        self._other_fd = -1
        try:
            os.waitpid(self._other, os.WNOHANG)
        except ChildProcessError:
            pass  # it was the parent


def stay() -> None:
    """Ignore what is meant for the daemon. A service manager sends SIGTERM to all of a unit; who restores ends when the daemon
    has."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)


def main(arguments: list[str]) -> int:
    """`sentry DAEMON STATE_DIR`, started by the daemon itself, with the two pipes. Says `ready` when it watches."""
    daemon, state_dir = int(arguments[0]), arguments[1]
    stay()
    pidfd = os.pidfd_open(daemon)
    if os.getppid() != daemon:
        return 1  # it has ended already, and a new process may have its number
    os.setsid()
    os.chdir("/")
    sentry = Sentry(pidfd, 0, state_dir)
    os.write(1, b"ready\n")
    sentry.run()
    return 0
