"""Several processes that work side by side: joblib on nicety's own executor. Knows no work.

What is asked for is cut into tasks in the same way however many processes there are, and results come in the order of the tasks. So
the result of a training does not depend on their number."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

Result = TypeVar("Result")

BASE_BYTES = 100 << 20
"""Memory of a process before it has any data: Python, numpy and the modules of a training (measured)."""

SHARE = 0.25
"""Share of the memory for the processes besides the first (chosen)."""


def processes(wanted: int | None, memory: int) -> int:
    """How many processes work at the same time: as many as are wanted, or as there are CPUs, but only what this memory is enough
    for. The result does not depend on it. 1 where nicety's executor does not run: on another system than Linux."""
    if not hasattr(os, "sched_getaffinity"):
        return 1
    return min(wanted or len(os.sched_getaffinity(0)), max(int(memory * SHARE / BASE_BYTES), 1))


def _deaf() -> None:
    """Leave Ctrl-C, which all processes of a terminal get, to the first process: it ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Crew:
    """So many processes, which the first task starts."""

    def __init__(self, jobs: int) -> None:
        """`jobs`: processes that work at the same time; with 1 all is done in this one."""
        self.jobs = jobs

    def each(self, function: Callable[..., Result], tasks: Iterable[tuple[Any, ...]]) -> Iterator[Result]:
        """The result of the function for the arguments of each task, in order. Few results wait to be taken. If the caller stops,
        tasks that are under way are given up. A single task is done in this process."""
        tasks = iter(tasks)
        first = list(itertools.islice(tasks, 2))
        if self.jobs == 1 or len(first) < 2:
            return itertools.starmap(function, itertools.chain(first, tasks))
        from ..scheduler.executor.joblib_backend import in_order  # joblib takes .2 s to load

        return in_order(function, itertools.chain(first, tasks), self.jobs, initializer=_deaf, max_nbytes=None)


@dataclass(frozen=True, slots=True)
class Until:
    """Whether there is time, by the monotonic clock, which all processes share."""

    ends: float

    def __call__(self, *_: int) -> bool:
        """False when time is up."""
        return time.monotonic() < self.ends
