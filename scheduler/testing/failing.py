"""System calls of this process that fail on demand: the Nth call, with an errno. A failed call has no effect.

At the boundary between Python and the kernel: `os`, `open`, what `act/knobs/slices.py` calls itself, and what SQLite calls.
Python itself retries most calls after EINTR; here EINTR reaches the caller, which is harder. Reads of an open text
file and fsync(2) are not among them: the campaign (docs/campaign.md) fails all calls with strace.
"""

from __future__ import annotations

import builtins
import ctypes
import ctypes.util
import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..act.knobs import slices

CALLS = (
    *("open", "read", "pread", "write", "pwrite", "listdir", "stat", "readlink", "mkdir", "rmdir"),
    *("getpriority", "setpriority", "sched_getaffinity", "sched_setaffinity", "sched_getscheduler", "sched_setscheduler"),
)
"""Functions of `os` that raise OSError."""

IN_SQLITE = {
    "open": (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_int),
    "pread": (ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64),
    "pwrite": (ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64),
    "pread64": (ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64),
    "pwrite64": (ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64),
    "ftruncate": (ctypes.c_int, ctypes.c_int, ctypes.c_int64),
}
"""Calls that SQLite lets us replace (xSetSystemCall of its unix VFS), with their types, result first."""


class FailingCalls:
    """Counts calls and makes one of them fail. Leaving the `with` block restores the real calls. `sqlite`: SQLite's calls too."""

    def __init__(self, *, sqlite: bool = True) -> None:
        self.count = 0
        self.names: list[str] = []
        self._sqlite = sqlite
        self._fail, self._code = 0, 0
        self._counting = False
        self._kept: list[Any] = []  # callbacks that SQLite has
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> FailingCalls:
        for name in CALLS:
            self._replace(os, name)
        self._replace(io, "open")
        self._replace(builtins, "open")
        libc = slices._libc  # noqa: SLF001 - its system calls are part of the boundary
        self._set(slices, "_libc", _Libc(libc, self))
        if self._sqlite:
            self._enter_sqlite()
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

    def _enter_sqlite(self) -> None:
        """Replace SQLite's calls; a SQLite that is built into Python is left alone."""
        path = ctypes.util.find_library("sqlite3")
        if path is None:
            return
        library = ctypes.CDLL(path)
        library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
        vfs = library.sqlite3_vfs_find(None)
        for name, (result, *arguments) in IN_SQLITE.items():
            kind = ctypes.CFUNCTYPE(result, *arguments, use_errno=True)
            address = vfs.contents.get_system_call(vfs, name.encode())
            if address:
                failing = self._in_sqlite(name, kind(address))
                self._kept.append(kind(failing))
                vfs.contents.set_system_call(vfs, name.encode(), ctypes.cast(self._kept[-1], ctypes.c_void_p))
                self._undo.append(lambda n=name: vfs.contents.set_system_call(vfs, n.encode(), None))  # type: ignore[misc]

    def _in_sqlite(self, name: str, real: Callable[..., int]) -> Callable[..., int]:
        def call(*args: Any) -> int:
            code = self.due(f"sqlite {name}")
            if code:
                ctypes.set_errno(code)
                return -1
            return real(*args)

        return call


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


class _Vfs(ctypes.Structure):
    """sqlite3_vfs of version 3, https://www.sqlite.org/c3ref/vfs.html; what is not called is only an address."""


_Vfs._fields_ = [
    ("version", ctypes.c_int),
    ("file_size", ctypes.c_int),
    ("longest_path", ctypes.c_int),
    *((name, ctypes.c_void_p) for name in ("next", "name", "data", "open", "delete", "access", "full_path")),
    *((name, ctypes.c_void_p) for name in ("dl_open", "dl_error", "dl_sym", "dl_close", "randomness", "sleep", "time")),
    *((name, ctypes.c_void_p) for name in ("last_error", "time64")),
    ("set_system_call", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Vfs), ctypes.c_char_p, ctypes.c_void_p)),
    ("get_system_call", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_Vfs), ctypes.c_char_p)),
    ("next_system_call", ctypes.c_void_p),
]

EVERY = {name: getattr(errno, name) for name in ("EMFILE", "ENFILE", "ENOMEM", "EIO", "ENOSPC", "EACCES", "EINTR")}
"""The errors that every call is made to fail with."""
