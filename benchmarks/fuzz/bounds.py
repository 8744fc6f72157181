"""The limits of one case, and what is reported when it breaks one. Knows no engine.

A case may use `SECONDS` of CPU and `MEMORY` bytes more than there were before it. CPU time and not wall time, because other load
must not look like a fault. The interpreter can only be interrupted between two of its instructions: a case that hangs inside a
library needs an engine that ends the process.
"""

from __future__ import annotations

import resource
import signal
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from .target import BrokenError, Case

SECONDS = 1.0
"""Most CPU seconds of a case: issue 24."""

MEMORY = 512 << 20
"""Most bytes of memory of a case: issue 24."""

ROOT = Path(__file__).resolve().parents[2]


class HangError(BaseException):
    """A case has used up its time. Not an Exception: code under test must not catch it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What a case showed. Two faults are one if `kind` and `where` are equal."""

    kind: str  # "error", "promise", "hang", "memory", "crash"
    where: str  # name of the error and the innermost line of nicety, such as "ValueError in scheduler/store/ledger.py:449 _row"
    text: str  # traceback or log
    case: bytes


class Bounded:
    """Runs cases within the limits. A context manager: the limits hold for the whole process meanwhile."""

    def __init__(self, case: Case, memory: int | None = MEMORY, seconds: float = SECONDS) -> None:
        """`memory`: None where the process has other work too, such as the tests."""
        self._case = case
        self._memory = memory
        self._seconds = seconds

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGPROF, _end)
        if self._memory is not None:
            self._limits = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (_address_space() + self._memory, self._limits[1]))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, self._before)
        if self._memory is not None:
            resource.setrlimit(resource.RLIMIT_AS, self._limits)

    def run(self, data: bytes) -> Fault | None:
        """The fault that a case shows, None if it shows none."""
        signal.setitimer(signal.ITIMER_PROF, self._seconds)
        try:
            self._case(data)
        except (Exception, HangError) as error:
            signal.setitimer(signal.ITIMER_PROF, 0)
            text = "".join(traceback.format_exception(error))
            return Fault(_kind(error), f"{type(error).__name__} in {_where(error.__traceback__)}", text, data)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        return None


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise HangError("the CPU time of a case is used up")


def _kind(error: BaseException) -> str:
    kinds = ((HangError, "hang"), (MemoryError, "memory"), (BrokenError, "promise"))
    return next((kind for cls, kind in kinds if isinstance(error, cls)), "error")


def _where(trace: TracebackType | None) -> str:
    """The innermost place in nicety; the innermost in the target if there is none."""
    places = [(Path(frame.filename).resolve(), frame) for frame in traceback.extract_tb(trace)]
    within = [(path.relative_to(ROOT), frame) for path, frame in places if path.is_relative_to(ROOT)]
    ours = [(path, frame) for path, frame in within if path.parts[0] != "benchmarks"] or within
    path, frame = ours[-1]
    return f"{path}:{frame.lineno} {frame.name}"


def _address_space() -> int:
    """Bytes of address space of this process."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
