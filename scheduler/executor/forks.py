"""What a forked child must not keep of its parent's executors, and what they finish before the interpreter ends.

Runs in the user's program. If a child kept our ends of the channels, its own among them, workers would not notice that their owner
is gone.
"""

from __future__ import annotations

import os
import socket
import threading
from typing import Protocol


class Owner(Protocol):
    """An object that has workers: to this module, a core."""

    thread: threading.Thread

    def forget(self) -> None:
        """In a forked child: close what belongs to the parent."""

    def close(self, why: str, *, cancel: bool) -> None:
        """Accept no more tasks, because of `why`."""


owners: dict[int, Owner] = {}
"""Executors of this process that have workers, by id."""
newborn: list[socket.socket] = []
"""Sockets of workers and forkers that are being started, not yet registered elsewhere; a forked child closes them."""
_lock = threading.RLock()
_exiting: list[bool] = []
"""Not empty: the interpreter is about to end."""


def no_forks() -> threading.RLock:
    """A lock to hold while descriptors are made or closed: no child is forked between creating a socket and registering it."""
    return _lock


def is_exiting() -> bool:
    """Whether the interpreter is about to end."""
    return bool(_exiting)


def _before_fork() -> None:
    _lock.acquire()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()
    for end in newborn:
        end.close()
    newborn.clear()
    for owner in owners.values():
        owner.forget()
    owners.clear()


def _after_fork_in_parent() -> None:
    _lock.release()


def _at_exit() -> None:
    """Finish the submitted tasks, as the original does, and at the same time: before the program's atexit handlers remove what
    tasks may need, and before its other threads are joined."""
    _exiting.append(True)
    present = list(owners.values())
    for owner in present:
        owner.close("cannot schedule new futures after interpreter shutdown", cancel=False)
    for owner in present:
        owner.thread.join()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]  # noqa: SLF001 - atexit would be too late, see there
