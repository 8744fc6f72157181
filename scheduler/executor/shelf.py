"""Executors that are kept for the next call that wants one like them.

Runs in the user's program. Must not know what they are used for.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable

from .api import Executor

MOST = 2
"""Unused executors that are kept. Chosen: a program that alternates between two sizes starts no workers."""

_kept: list[tuple[Hashable, Executor]] = []
"""Unused executors with what they were made for; the last one was used most recently."""
_lock = threading.Lock()


def take(key: Hashable, make: Callable[[], Executor]) -> Executor:
    """A kept executor that was made for `key`, or a new one. Nobody else gets it until it is put back."""
    with _lock:
        for index in reversed(range(len(_kept))):
            if _kept[index][0] == key:
                executor = _kept.pop(index)[1]
                if executor._is_open:  # noqa: SLF001 - not shut down, broken or of a parent process
                    return executor
    return make()


def put_back(key: Hashable, executor: Executor) -> None:
    """Keep an executor whose tasks are done. One that is too many is shut down."""
    surplus = []
    with _lock:
        _kept.append((key, executor))
        while len(_kept) > MOST:
            surplus.append(_kept.pop(0)[1])
    for each in surplus:
        each.shutdown(wait=False)


def _after_fork_in_child() -> None:
    """The executors belong to the parent."""
    global _lock
    _lock = threading.Lock()
    _kept.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
