"""The executor: a process pool for programs that nicety can resize. `from nicety.scheduler.executor import Executor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import Executor, UnreadableTask, WorkerLost

__all__ = ["Executor", "UnreadableTask", "WorkerLost"]


def __getattr__(name: str) -> Any:
    """Import the executor on first use: the daemon, which sees it through `board.py`, does not need it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import api

    return getattr(api, name)
