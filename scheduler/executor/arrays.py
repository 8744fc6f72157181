"""Large arrays of tasks: written once into memory that the workers map, instead of being pickled into every task.

Each array is a file without a name, in memory or in a folder. Workers open it through the owner's /proc/PID/fd. So the kernel frees
it with the last process that has it open, however the program ends. A file is closed when no unfinished task uses it and the array
is gone, at the latest at the end of the call.

Runs in the user's program and its workers. Must not know tasks or joblib.
"""

from __future__ import annotations

import mmap
import os
import pickle
import tempfile
import threading
import weakref
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any, cast

import numpy as np

MEMORY_SHARE = 4
"""An array goes into memory if it is at most this part of what is available, else into a folder for temporary files. Chosen."""

MOST_FILES = 256
"""Files that a call has open at a time; further arrays are pickled. Chosen: a quarter of the usual limit of a process (1,024)."""

Array = np.ndarray[Any, Any]
Reduced = tuple[Any, ...]
"""How a pickler is to build an object: see `object.__reduce__`."""


class SharedArray:
    """An array in a file that workers can open."""

    __slots__ = ("alive", "file", "key", "uses")

    def __init__(self, file: FileIO, key: int) -> None:
        self.file = file
        self.key = key
        self.uses = 0  # unfinished tasks
        self.alive: weakref.ref[Array] | None = None  # the array that it is a copy of, which more tasks may use


class Arrays:
    """The arrays of one call. Any thread may call its methods."""

    def __init__(self, max_nbytes: int | None, mode: str | None, folder: str | None) -> None:
        """Arrays of more than `max_nbytes` bytes are shared; None: none is. `mode`: in which workers map them, as for numpy.memmap,
        None: none is shared. `folder` for the files; None: memory."""
        self._max_nbytes = None if mode is None or not _others_may_open() else max_nbytes
        self._mode = "r+" if mode == "w+" else mode  # w+ would empty the file
        self._folder = folder
        self._shared: dict[int, SharedArray] = {}  # those with an open file, by id of the array
        self._lock = threading.RLock()  # an array can be collected while this thread holds it

    def reducers(self, used: list[SharedArray]) -> dict[type, Callable[[Any], Reduced]]:
        """For the dispatch table of a pickler. What the pickled task needs is added to `used`, for `release`."""

        def reduce(array: Array) -> Reduced:
            return self._reduced(array, used)

        return {np.ndarray: reduce, np.memmap: reduce}

    def release(self, used: list[SharedArray]) -> None:
        """A task is done. Closes the files that nothing needs any more."""
        with self._lock:
            for shared in used:
                shared.uses -= 1
                if shared.alive is None:
                    self._close_unused(shared)
            used.clear()

    def close(self) -> None:
        """The end of the call: close all files."""
        with self._lock:
            for shared in self._shared.values():
                shared.file.close()
            self._shared.clear()

    def _reduced(self, array: Array, used: list[SharedArray]) -> Reduced:
        backed = of_a_file(array)
        if backed is not None:
            return backed
        if self._max_nbytes is None or array.nbytes <= self._max_nbytes or array.dtype.hasobject:
            return plain(array)
        with self._lock:
            shared = self._shared.get(id(array))
            if shared is None or shared.alive is None or shared.alive() is not array:
                if not self._has_room():
                    return plain(array)
                shared = self._share(array)
            shared.uses += 1
            used.append(shared)
        descriptor = shared.file.fileno()
        path = f"/proc/{os.getpid()}/fd/{descriptor}"
        return mapped, (path, _identity(descriptor), array.dtype, self._mode, 0, _order(array), array.shape)

    def _share(self, array: Array) -> SharedArray:
        file = self._new_file(array.nbytes)
        try:
            flat = np.ascontiguousarray(array.T if _order(array) == "F" else array).reshape(-1).view(np.uint8)
            rest = flat.data
            while rest:
                rest = rest[file.write(rest) :]
        except BaseException:
            file.close()
            raise
        shared = SharedArray(file, id(array))

        def gone(_: weakref.ref[Array]) -> None:
            with self._lock:
                shared.alive = None
                self._close_unused(shared)

        shared.alive = weakref.ref(array, gone)
        self._shared[shared.key] = shared
        return shared

    def _has_room(self) -> bool:
        """Whether one more file may be opened. Closes the oldest that no task uses, if there are too many."""
        if len(self._shared) >= MOST_FILES:
            for shared in list(self._shared.values()):
                if not shared.uses:
                    self._close_unused(shared)
                    break
        return len(self._shared) < MOST_FILES

    def _new_file(self, size: int) -> FileIO:
        folder = self._folder or os.environ.get("JOBLIB_TEMP_FOLDER")
        if folder is None and size <= _available() / MEMORY_SHARE:
            return os.fdopen(os.memfd_create("nicety-array", os.MFD_CLOEXEC), "r+b", buffering=0)
        return tempfile.TemporaryFile(dir=folder, buffering=0)

    def _close_unused(self, shared: SharedArray) -> None:
        if not shared.uses:
            shared.file.close()
            if self._shared.get(shared.key) is shared:
                del self._shared[shared.key]


def mapped(
    path: str, identity: tuple[int, int], dtype: np.dtype[Any], mode: Any, offset: int, order: Any, shape: tuple[int, ...]
) -> Array:
    """In a worker: the array in this file. Raises OSError if the file is gone."""
    with Path(path).open("r+b" if mode == "r+" else "rb", buffering=0) as file:
        if _identity(file.fileno()) != identity:
            raise FileNotFoundError(f"{path} is another file by now: the array's owner has closed it")
        return np.memmap(file, dtype=dtype, mode=mode, offset=offset, order=order, shape=shape)


def of_a_file(array: Array) -> Reduced | None:
    """An array that the program itself mapped from a file, by that file; None if it is none, or not whole in it."""
    mapping = _mapping(array)
    if mapping is None or mapping.filename is None or mapping.mode == "c":  # changes in a copy on write are in no file
        return None
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        return None
    path = Path(mapping.filename)
    try:
        found = path.stat()
    except OSError:  # removed, but still mapped
        return None
    start, base = (each.__array_interface__["data"][0] for each in (array, mapping))
    mode = "r" if mapping.mode == "r" else "r+"
    where = (str(path), (found.st_dev, found.st_ino))
    return mapped, (*where, array.dtype, mode, mapping.offset + start - base, _order(array), array.shape)


def plain(array: Array) -> Reduced:
    """An array with its data."""
    return cast(Reduced, np.asarray(array).__reduce_ex__(pickle.HIGHEST_PROTOCOL))


def returned(array: Array) -> Reduced:
    """An array in a worker's answer: with its data, unless it is in a file of the program's own."""
    mapping = _mapping(array)
    is_shared = mapping is not None and str(mapping.filename).startswith("/proc/")
    return plain(array) if is_shared else of_a_file(array) or plain(array)


RETURNED: dict[type, Callable[[Any], Reduced]] = {np.ndarray: returned, np.memmap: returned}
"""For the dispatch table of the pickler of answers."""


def _mapping(array: Array) -> np.memmap[Any, Any] | None:
    """The mapping of a file that this array is a view of."""
    base: Any = array
    while not isinstance(getattr(base, "base", None), mmap.mmap):
        if not isinstance(base, np.ndarray):
            return None
        base = base.base
    return base if isinstance(base, np.memmap) else None


def _order(array: Array) -> str:
    return "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def _others_may_open() -> bool:
    """Whether our own workers may open our descriptors through /proc. They may not after a change of user, as of a service that
    has dropped its rights."""
    return Path("/proc/self/fd").stat().st_uid == os.geteuid()


def _available() -> int:
    """Bytes of memory that can be had without swapping."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024
