"""joblib on an `Executor`: `register()`, then `Parallel(n_jobs=4, backend="nicety")`.

As in joblib's own default backend, workers know nothing of the program's state: they are forked from a fresh interpreter
(clean.py), and functions and results are pickled by cloudpickle. Large arrays are mapped (arrays.py), and workers stay for the next
call (shelf.py).

Programs import this module, and training does. The daemon never does, because joblib is heavy.
"""

from __future__ import annotations

import io
import multiprocessing
import pickle
import warnings
from collections import ChainMap
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, wait
from typing import Any

import cloudpickle
from joblib import Parallel, delayed, register_parallel_backend
from joblib._parallel_backends import AutoBatchingMixin, FallbackToBackend, ParallelBackendBase, SequentialBackend
from joblib.parallel import cpu_count

from . import shelf
from .api import Executor, UnreadableTask
from .arrays import RETURNED, Arrays, Reduced, SharedArray
from .clean import CleanContext
from .environment import begin
from .worker import Pickled, with_traceback

IDLE_SECONDS = 300.0
"""Workers without a task end after this time. As in joblib's default backend, and `idle_worker_timeout` changes it there too."""

_NOT_OURS = ("verbose", "context")
"""Options that joblib passes to every process backend, without a meaning here."""


def register(make_default: bool = False) -> None:
    """Register the backend with joblib as "nicety".

    >>> import joblib
    >>> register()
    >>> joblib.Parallel(n_jobs=2, backend="nicety")(joblib.delayed(abs)(n) for n in (-1, 2))
    [1, 2]
    """
    register_parallel_backend("nicety", ExecutorBackend, make_default=make_default)


def in_order(function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]], n_jobs: int, **options: Any) -> Iterator[Any]:
    """The result of the function for the arguments of each task, in their order, as joblib's generator gives them. Few tasks are
    begun before their results are wanted; if the caller stops, those that were begun are given up. `options`: of the backend.

    >>> list(in_order(pow, [(2, 3), (3, 2)], n_jobs=2))
    [8, 9]
    """
    backend = ExecutorBackend(inner_max_num_threads=1)
    parallel = Parallel(n_jobs=n_jobs, backend=backend, return_as="generator", batch_size=1, pre_dispatch=n_jobs + 1, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "[0-9]+ tasks", UserWarning)  # those that were given up
        yield from parallel(delayed(function)(*task) for task in tasks)


class ExecutorBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """Runs batches in an executor that is kept for the next `Parallel` like it, or in the one given as `executor=...`.

    Other keywords are those of `Executor` (mp_context, name, retries, ...) and of joblib's default backend: `idle_worker_timeout`,
    `max_nbytes`, `mmap_mode`, `temp_folder`. Lambdas and functions of notebooks work.
    """

    supports_retrieve_callback = True
    supports_return_generator = True
    supports_inner_max_num_threads = True

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._executor: Executor | None = None
        self._key: Hashable = None  # what the executor is kept for; None: it was given
        self._futures: set[Future[Any]] = set()
        self._arrays = Arrays(None, None, None)

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """The number of workers for `n_jobs`; a negative value counts from the number of CPUs, as everywhere in joblib."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None or multiprocessing.current_process().daemon:  # a daemonic process may have no children
            return 1
        return n_jobs if n_jobs > 0 else max(cpu_count() + 1 + n_jobs, 1)

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        prefer: str | None = None,  # noqa: ARG002 - joblib's signature
        require: str | None = None,  # noqa: ARG002
        **options: Any,
    ) -> int:
        """Called by joblib at the start of a `Parallel`; returns the number of workers."""
        options = {**self.backend_kwargs, **options}
        for key in _NOT_OURS:
            options.pop(key, None)
        arrays = Arrays(options.pop("max_nbytes", None), options.pop("mmap_mode", None), options.pop("temp_folder", None))
        executor: Executor | None = options.pop("executor", None)
        self.parallel = parallel
        if executor is not None:
            self._executor, self._key, self._arrays = executor, None, arrays
            return executor.size
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        options.setdefault("name", "joblib")
        options["idle_seconds"] = options.pop("idle_worker_timeout", None) or IDLE_SECONDS
        initializer, initargs = options.pop("initializer", None), options.pop("initargs", ())
        packed = None if initializer is None else cloudpickle.dumps((initializer, initargs))
        environment = tuple(sorted(self._prepare_worker_env(n_jobs=n_jobs).items()))
        self._key = (n_jobs, environment, packed, tuple(sorted(options.items())))
        options.setdefault("mp_context", CleanContext())
        self._executor = shelf.take(
            self._key, lambda: Executor(n_jobs, initializer=begin, initargs=(dict(environment), packed), **options)
        )
        self._arrays = arrays
        return n_jobs

    def submit(self, func: Callable[[], Any], callback: Callable[[Future[Any]], object] | None = None) -> Future[Any]:
        """Run a batch. One that cannot be pickled fails."""
        assert self._executor is not None
        arrays, used = self._arrays, list[SharedArray]()
        future: Future[Any]
        try:
            future = self._executor.submit(_run, _dumps(func, arrays.reducers(used)))
        except BaseException as error:
            arrays.release(used)
            if not self._executor._is_open:  # noqa: SLF001 - ours
                raise
            future = Future()
            future.set_exception(error)
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        future.add_done_callback(lambda _: arrays.release(used))
        if callback is not None:
            future.add_done_callback(callback)
        return future

    apply_async = submit  # its name before joblib 1.5

    def retrieve_result_callback(self, future: Future[Any]) -> Any:
        """The result of the batch; raises what the batch raised."""
        good, value = future.result()
        if not good:
            raise value
        return value

    def terminate(self) -> None:
        """End the `Parallel`; its workers stay for the next one."""
        executor, key = self._executor, self._key
        self._executor = self._key = None
        self._arrays.close()
        self.reset_batch_stats()
        if executor is not None and key is not None:
            shelf.put_back(key, executor)

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """End the other batches after one has failed. Return when all have ended: joblib would take a late one for the next call's.

        In a given executor, running batches are waited for: its workers are not ours to kill.
        """
        futures = list(self._futures)
        for future in futures:
            future.cancel()
        executor, owned = self._executor, self._key is not None
        if executor is not None and owned:
            executor.shutdown(wait=False, cancel_futures=True)
            for process in executor._processes.values():  # noqa: SLF001 - ours
                process.kill()
            executor.shutdown()
            self._executor = self._key = None
        wait(futures)
        if executor is not None and owned and ensure_ready:
            self._arrays.close()
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel, **self.parallel._backend_kwargs)  # noqa: SLF001


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # no types
    """cloudpickle, with ways of our own to pickle some types."""

    def __init__(self, file: io.BytesIO, reducers: dict[type, Callable[[Any], Reduced]]) -> None:
        self.dispatch_table = ChainMap(reducers, cloudpickle.Pickler.dispatch_table)  # before the pickler looks for it
        super().__init__(file, pickle.HIGHEST_PROTOCOL)


def _dumps(value: Any, reducers: dict[type, Callable[[Any], Reduced]]) -> bytes:
    file = io.BytesIO()
    _Pickler(file, reducers).dump(value)
    return file.getvalue()


def _run(payload: bytes) -> Pickled:
    """In a worker: run a batch and return (whether it succeeded, what it returned or raised)."""
    try:
        batch = pickle.loads(payload)  # noqa: S301 - from our owner
    except BaseException as error:
        raise UnreadableTask("the worker could not unpickle the batch") from error
    try:
        answer = True, batch()
    except BaseException as error:
        return Pickled(_dumps((False, with_traceback(error)), RETURNED))
    return Pickled(_dumps(answer, RETURNED))
