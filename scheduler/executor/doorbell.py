"""What wakes an executor's manager thread when there is something to do that its epoll does not show.

Runs in the user's program. Must not know tasks or workers.
"""

from __future__ import annotations

import os


class Doorbell:
    """An eventfd in the manager's epoll.

    Any thread may ring, at any point: ringing takes no lock. Only the manager thread sets `awaited` to True and answers. It sets it
    before it looks at the queue, and a thread that adds a task looks at `awaited` after it has added it. So either the manager
    sees the task, or it is woken.

    Create it under `no_forks()`. Only a forked child, in which nothing else runs yet, calls `forget`.
    """

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.awaited = False
        """The manager could use a task, and sleeps or is about to. The thread that brings one sets this to False and rings."""

    def __del__(self) -> None:
        """Close the descriptor only now, when nothing can ring any more: its number could be reused by another file."""
        if getattr(self, "descriptor", -1) >= 0:
            os.close(self.descriptor)

    def ring(self) -> None:
        """Wake the manager: a task, a size or a request to end has come."""
        if self.descriptor >= 0:
            os.eventfd_write(self.descriptor, 1)

    def answer(self) -> None:
        """Take note of the rings so far."""
        os.eventfd_read(self.descriptor)

    def forget(self) -> None:
        """In a forked child: close the parent's descriptor."""
        self.awaited = False
        os.close(self.descriptor)
        self.descriptor = -1
