"""Pool adapters, one a file, behind the `PoolAdapter` protocol of `scheduler/ports.py`; and for programs `Executor`, a process pool
that nicety can size: `from nicety.scheduler.pools import Executor`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .executor import Executor, UnreadableTask, WorkerLost

__all__ = ["Executor", "UnreadableTask", "WorkerLost"]


def __getattr__(name: str) -> Any:
    """The executor, when it is asked for: the daemon, which imports the adapters, has no use for it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import executor

    return getattr(executor, name)
