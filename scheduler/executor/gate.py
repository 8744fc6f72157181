"""Whether an executor still takes tasks, and if not, why.

Runs in the user's program. Must not know tasks, workers or the board.
"""

from __future__ import annotations

import threading
from concurrent.futures.process import BrokenProcessPool
from traceback import format_exception

from .tasks import remote


class Gate:
    """The executor's state between open and ended, and the one lock that threads share.

    Any thread may call `close` and `abandon`, and `refusal` while it holds `lock`. Only the manager thread calls `shut_broken`. A
    thread that adds a task or sets a size holds `lock` while it checks the gate and does it. The manager holds it for its last
    look at the queue, so nothing is added after that look. Nobody calls the program's code under it, nor waits for anything else.

    Only a forked child, in which nothing else runs yet, calls `forget`. It replaces `lock`: take it from here each time.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.broken = ""
        """Why all tasks fail, now and later; "" if they do not."""
        self.closing = ""
        """Why no more tasks are accepted; "" if they are."""
        self.cancel = False
        """Whether waiting tasks are to be cancelled. The manager resets it when it has begun to."""
        self.abandoned = False
        """The Executor was collected, so nobody can submit any more."""
        self.is_ending = False
        """Whether any of these holds: no task will come any more."""
        self._cause: str | None = None

    def close(self, why: str, *, cancel: bool) -> None:
        """Accept no more tasks, because of `why`. The first reason stays."""
        with self.lock:
            self.closing = self.closing or why
            self.cancel = self.cancel or cancel
            self.is_ending = True

    def abandon(self) -> None:
        """The Executor was collected. The collector may call this while its thread holds `lock`, so it takes no lock."""
        self.abandoned = self.is_ending = True

    def shut_broken(self, text: str, cause: BaseException | str | None) -> bool:
        """Fail all tasks from now on, because of `text`; False if it was broken already. `cause`: an error, or its traceback."""
        if self.broken:
            return False
        if isinstance(cause, BaseException):
            cause = "".join(format_exception(cause))
        self._cause = cause
        with self.lock:
            self.broken = text
            self.is_ending = True
        return True

    def refusal(self, text: str) -> BaseException:
        """What to raise when the gate is broken or closing; `text` is for the latter."""
        return self.broken_error() if self.broken else RuntimeError(text)

    def broken_error(self) -> BrokenProcessPool:
        """A new error for a task of a broken executor."""
        error = BrokenProcessPool(self.broken)
        if self._cause:
            error.__cause__ = remote(self._cause)
        return error

    def forget(self) -> None:
        """In a forked child: refuse all tasks."""
        self.is_ending = True
        self.broken = "this executor belongs to the process that made it; a forked child needs one of its own"
        self.lock = threading.Lock()  # a thread that does not exist in this process may have held it
