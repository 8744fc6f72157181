"""joblib on an `Executor`: `register()`, then `Parallel(n_jobs=4, backend="nicety")`.

Only programs import this module. The daemon never does, because joblib is heavy.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any

from joblib import register_parallel_backend, wrap_non_picklable_objects
from joblib._parallel_backends import AutoBatchingMixin, FallbackToBackend, ParallelBackendBase, SequentialBackend
from joblib.parallel import cpu_count

from .api import Executor

_NOT_OURS = ("max_nbytes", "temp_folder", "mmap_mode", "verbose", "context")
"""Options that joblib passes to every process backend, mostly on how to share large arrays. Here arrays are pickled."""


def register(make_default: bool = False) -> None:
    """Register the backend with joblib as "nicety".

    >>> import joblib
    >>> register()
    >>> joblib.Parallel(n_jobs=2, backend="nicety")(joblib.delayed(abs)(n) for n in (-1, 2))
    [1, 2]
    """
    register_parallel_backend("nicety", ExecutorBackend, make_default=make_default)


class ExecutorBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """Runs batches in its own executor for the time of a `Parallel`, or in the one given as `executor=...`.

    Other keywords are those of `Executor` (mp_context, name, retries, ...). Functions and arguments are pickled by cloudpickle, as
    in joblib's own default backend, so lambdas and functions of notebooks work.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._executor: Executor | None = None
        self._owned = False
        self._futures: set[Future[Any]] = set()

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
        executor: Executor | None = None,
        **options: Any,
    ) -> int:
        """Called by joblib at the start of a `Parallel`; returns the number of workers."""
        options = {**self.backend_kwargs, **options}
        for key in _NOT_OURS:
            options.pop(key, None)
        executor = options.pop("executor", executor) if executor is None else executor
        self.parallel = parallel
        if executor is not None:
            self._executor, self._owned = executor, False
            return executor.size
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        options.setdefault("name", "joblib")
        environment = self._prepare_worker_env(n_jobs=n_jobs)
        self._executor = Executor(n_jobs, initializer=_set_environment, initargs=(environment,), **options)
        self._owned = True
        return n_jobs

    def submit(self, func: Callable[[], Any], callback: Callable[[Future[Any]], object] | None = None) -> Future[Any]:
        """Run a batch."""
        assert self._executor is not None
        future = self._executor.submit(wrap_non_picklable_objects(func, keep_wrapper=False))
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    apply_async = submit  # its name before joblib 1.5

    def retrieve_result_callback(self, future: Future[Any]) -> Any:
        """The result of the batch; raises what the batch raised."""
        return future.result()

    def terminate(self) -> None:
        """End the `Parallel`."""
        if self._executor is not None and self._owned:
            self._executor.shutdown()
        self._executor = None
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """End the other batches after one has failed. Return when all have ended: joblib would take a late one for the next call's.

        In a given executor, running batches are waited for: its workers are not ours to kill.
        """
        futures = list(self._futures)
        for future in futures:
            future.cancel()
        executor = self._executor
        if executor is not None and self._owned:
            executor.shutdown(wait=False, cancel_futures=True)
            for process in executor._processes.values():  # noqa: SLF001 - ours
                process.kill()
            executor.shutdown()
            self._executor = None
        wait(futures)
        if executor is not None and self._owned and ensure_ready:
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel, **self.parallel._backend_kwargs)  # noqa: SLF001


def _set_environment(environment: dict[str, str]) -> None:
    """Limit the threads of numerical libraries that the worker loads later."""
    os.environ.update(environment)
