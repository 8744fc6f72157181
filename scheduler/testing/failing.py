"""System calls of this process that fail on demand: the Nth call, with an errno. A failed call has no effect.

At the boundary between Python and the kernel: `os`, `open`, and what `hands/knobs/slices.py` calls itself. Python itself retries
most calls after EINTR; here EINTR reaches the caller, which is harder. Reads of an open text file are not among them:
the campaign (docs/campaign.md) fails all calls with strace.
"""

from __future__ import annotations

import builtins
import ctypes
import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..hands.knobs import slices

CALLS = (
    *("open", "read", "pread", "write", "pwrite", "listdir", "scandir", "stat", "lstat", "fstat", "readlink", "mkdir", "rmdir"),
    *("fsync", "fdatasync", "ftruncate", "rename", "unlink"),
    *("getpriority", "setpriority", "sched_getaffinity", "sched_setaffinity", "sched_getscheduler", "sched_setscheduler"),
)
"""Functions of `os` that raise OSError."""


class FailingCalls:
    """Counts calls and makes one of them fail. Leaving the `with` block restores the real calls."""

    def __init__(self) -> None:
        self.count = 0
        self.names: list[str] = []
        self._fail, self._code = 0, 0
        self._counting = False
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> FailingCalls:
        for name in CALLS:
            self._replace(os, name)
        self._replace(io, "open")
        self._replace(builtins, "open")
        self._set(slices, "_libc", _Libc(ctypes.CDLL(None, use_errno=True), self))  # its system calls are part of the boundary
        return self

    def __exit__(self, *_: object) -> None:
        while self._undo:
            self._undo.pop()()

    @contextmanager
    def failing(self, number: int, code: int) -> Iterator[None]:
        """Within the block, call `number` (counted from 1) fails with errno `code`. 0: calls are only counted."""
        self.count, self.names = 0, []
        self._fail, self._code, self._counting = number, code, True
        try:
            yield
        finally:
            self._counting = False

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within the block, calls are neither counted nor made to fail."""
        before, self._counting = self._counting, False
        try:
            yield
        finally:
            self._counting = before

    @property
    def reached(self) -> bool:
        """Whether the call that was to fail has been made."""
        return self.count >= self._fail

    def due(self, name: str) -> int:
        """The errno that this call must fail with, 0 for none."""
        if not self._counting:
            return 0
        self.count += 1
        self.names.append(name)
        return self._code if self.count == self._fail else 0

    # --- below -----------------------------------------------------------------------------------------------------------------

    def _set(self, module: Any, name: str, value: object) -> None:
        before = getattr(module, name)
        setattr(module, name, value)
        self._undo.append(lambda: setattr(module, name, before))

    def _replace(self, module: Any, name: str) -> None:
        real = getattr(module, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            code = self.due(name)
            if code:
                raise OSError(code, os.strerror(code), args[0] if args and isinstance(args[0], str) else None)
            return real(*args, **kwargs)

        self._set(module, name, call)


class _Libc:
    """libc, whose `syscall` can fail."""

    def __init__(self, real: ctypes.CDLL, calls: FailingCalls) -> None:
        self._real, self._calls = real, calls

    def syscall(self, *args: Any) -> int:
        code = self._calls.due("syscall")
        if code:
            ctypes.set_errno(code)
            return -1
        result: int = self._real.syscall(*args)
        return result


EVERY = {name: getattr(errno, name) for name in ("EMFILE", "ENFILE", "ENOMEM", "EIO", "ENOSPC", "EACCES", "EINTR")}
"""The errors that every call is made to fail with."""
