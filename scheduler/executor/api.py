"""`Executor`: a ProcessPoolExecutor whose number of workers can be changed at any time, by its program and by nicety.

Runs in the user's program, on machines with or without a daemon. `core.py` shows how its parts work together.
"""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, _base
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from .core import ExecutorCore
from .crew import Options
from .forker import ForkedProcess
from .forks import is_exiting
from .tasks import UnreadableTask, WorkerLost

__all__ = ["Executor", "UnreadableTask", "WorkerLost"]

P = ParamSpec("P")
T = TypeVar("T")


class Executor(_base.Executor):
    """ProcessPoolExecutor with `resize`; arguments and behaviour are the original's unless stated otherwise here.

    `max_workers` is the initial size and the most that nicety may ask for; `minimum` is the least. `name` identifies the executor
    in nicety's configuration; the default is the program's name. A task whose worker ends is run again up to `retries` times;
    after that the task alone fails, with `WorkerLost`. A worker that had no task for `idle_seconds` ends, unless the program or
    nicety has set the size; one that is needed again is started.

    >>> with Executor(2, name="squares") as executor:
    ...     executor.resize(1)
    ...     list(executor.map(abs, [-1, 2]))
    [1, 2]
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        name: str | None = None,
        minimum: int = 1,
        retries: int = 0,
        idle_seconds: float | None = None,
    ) -> None:
        if max_workers is None:
            max_workers = max(os.cpu_count() or 1, minimum)
        elif max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if not 1 <= minimum <= max_workers:
            raise ValueError(f"minimum must be from 1 to max_workers = {max_workers}, not {minimum}")
        if retries < 0:
            raise ValueError("retries must not be negative")
        if idle_seconds is not None and not idle_seconds > 0:
            raise ValueError("idle_seconds must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if mp_context is None:
            mp_context = multiprocessing.get_context("spawn" if max_tasks_per_child is not None else None)
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError("max_tasks_per_child must be an integer")
            if max_tasks_per_child <= 0:
                raise ValueError("max_tasks_per_child must be >= 1")
            if mp_context.get_start_method(allow_none=False) == "fork":
                raise ValueError("max_tasks_per_child is incompatible with the 'fork' start method; supply a different mp_context")
        self.name = Path(sys.argv[0] if sys.argv else "").name or "python" if name is None else name
        self._options = Options(self.name, mp_context, initializer, initargs, max_tasks_per_child, minimum, retries, idle_seconds)
        self._maximum = max_workers
        self._begin_lock = threading.Lock()
        self._closed = False
        self._core: ExecutorCore | None = None

    @property
    def size(self) -> int:
        """The number of workers allowed: what was last asked for, by the program or by nicety."""
        return self._maximum if self._core is None else self._core.target

    @property
    def _is_open(self) -> bool:
        """Whether it takes tasks: neither shut down nor broken, and of this process."""
        return not self._closed and (self._core is None or self._core.is_open)

    @property
    def _max_workers(self) -> int:
        """Other libraries (such as dask) read the size of a ProcessPoolExecutor here."""
        return self.size

    @property
    def _processes(self) -> dict[int, BaseProcess | ForkedProcess]:
        """Workers by pid. Programs that kill the workers of a ProcessPoolExecutor look here."""
        return {} if self._core is None else dict(self._core.processes)

    def resize(self, size: int) -> None:
        """Have `size` workers from now on. Returns at once: new workers are started, superfluous ones end between two tasks.

        Before the first task it also starts the workers, so that they are up when the task comes; with the start method "fork" they
        see the program as it is now. For a minute afterwards, nicety does not resize this executor. Raises ValueError for a size
        below 1, RuntimeError after shutdown, BrokenProcessPool if the executor is broken.
        """
        if size < 1:
            raise ValueError(f"an executor has at least one worker, {size} is none; to end it, call shutdown()")
        core = self._core or self._begin(size, "cannot resize")
        core.resize(size)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn(*args, **kwargs)` in a worker."""
        core = self._core or self._begin(self._maximum, "cannot schedule new futures")
        return core.submit(fn, args, kwargs)

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1, **more: Any
    ) -> Iterator[T]:
        """As `map(fn, *iterables)`, with `chunksize` calls per task. `more`: further arguments of newer Pythons (buffersize)."""
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        chunks = _chunks(zip(*iterables, strict=False), chunksize)
        return _flattened(super().map(functools.partial(_run_chunk, fn), chunks, timeout=timeout, **more))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more tasks, and end the workers when all submitted tasks are done."""
        with self._begin_lock:
            self._closed = True
        if self._core is not None:
            self._core.close("cannot schedule new futures after shutdown", cancel=cancel_futures)
            if wait:
                self._core.thread.join()

    def _begin(self, size: int, refusal: str) -> ExecutorCore:
        """The core, created now for `size` workers if it did not exist."""
        with self._begin_lock:
            if self._core is not None:
                return self._core
            if self._closed:
                raise RuntimeError(f"{refusal} after shutdown")
            if is_exiting():
                raise RuntimeError(f"{refusal} after interpreter shutdown")
            core = ExecutorCore(self._options, size, self._maximum)
            weakref.finalize(self, core.abandon).atexit = False
            self._core = core
            return core


def _chunks(calls: Iterator[tuple[Any, ...]], size: int) -> Iterator[tuple[tuple[Any, ...], ...]]:
    while chunk := tuple(itertools.islice(calls, size)):
        yield chunk


def _run_chunk(fn: Callable[..., T], chunk: tuple[tuple[Any, ...], ...]) -> list[T]:
    return [fn(*arguments) for arguments in chunk]


def _flattened(lists: Iterable[list[T]]) -> Iterator[T]:
    """The elements of the lists; keeps no reference to an element that it has yielded."""
    for elements in lists:
        elements.reverse()
        while elements:
            yield elements.pop()
