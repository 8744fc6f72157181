"""The budget of a training and its progress, for people on stderr and for stages that must end in time. Knows stages only by name.

A stage calls `StageProgress.step` as it goes. When that returns false, the stage ends early with what it has. On a terminal a bar
shows the time left. A line is printed at the end of each stage.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

SHARES: Mapping[str, float] = MappingProxyType({"reading": 0.5, "experts": 0.5, "ways": 0.4, "fitting": 0.6, "contest": 0.7})
"""Share of the time left at its start that a stage may take; other stages may take all of it. The rest is for the other kinds of
models and the report (chosen)."""

WORDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "reading": ("reading traces", "ticks"),
        "experts": ("running the simple forecasters", "values"),
        "ways": ("finding how far to go from the shipped model", "steps"),
        "fitting": ("fitting the demand model", "steps"),
        "contest": ("fitting the other candidates", "times"),
        "judging": ("judging on held-out time", "parts"),
        "anomaly": ("fitting the anomaly model", ""),
        "behaviour": ("fitting the behaviour model", ""),
        "report": ("writing the report", ""),
    }
)
"""Name of each stage and of its steps, for people."""


@dataclass(frozen=True, slots=True)
class TrainingBudget:
    """How much time and memory a training may take."""

    ends: float  # time of `clock`; inf: never
    memory: int  # bytes beyond those that the process already has
    clock: Callable[[], float] = time.monotonic

    def left(self) -> float:
        """Seconds left; inf without a limit."""
        return max(self.ends - self.clock(), 0.0) if math.isfinite(self.ends) else math.inf


class StageProgress(Protocol):
    """Receives the progress of a stage."""

    def step(self, name: str, done: int, total: int) -> bool:
        """Stage `name` has done `done` of `total` (0: unknown). True: go on. False: the time is used up, so end early with what
        there is. The first call with another name, or with less done than before, begins a stage."""
        ...


class Stages:
    """A `StageProgress` that reports to people."""

    def __init__(self, budget: TrainingBudget, out: TextIO) -> None:
        """`out`: stderr."""
        self._budget = budget
        self._out = out
        self._stage: _Stage | None = None
        self._bars: Bars | None = None
        self.cut: list[str] = []
        """Stages that ended early, a sentence each."""

    def step(self, name: str, done: int, total: int) -> bool:
        """As `StageProgress.step`."""
        stage = self._stage
        if stage is None or stage.name != name or done < stage.done:
            self.end()
            stage = self._stage = self._begin(name)
        stage.done, stage.total = done, total
        if self._bars is not None:
            left = "left:" if total else ""
            self._bars.update(self._bars.task_ids[0], completed=done, total=total or None, count=_count(stage), left=left)
        stage.late = self._budget.clock() >= stage.ends
        return not stage.late

    def end(self) -> None:
        """End the stage."""
        stage, self._stage = self._stage, None
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
        if stage is not None:
            seconds = self._budget.clock() - stage.began
            what, count = WORDS.get(stage.name, (stage.name, ""))[0], _count(stage)
            print(f"{what}: {count + ', ' if count else ''}{duration(seconds)}", file=self._out, flush=True)
            if stage.late and stage.done < stage.total:
                self.cut.append(f"{what} ended early, at {count}: its time was used up; give more with --time-budget")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A stage without steps."""
        self.step(name, 0, 0)
        yield
        self.end()

    @contextmanager
    def shown(self) -> Iterator[Stages]:
        """Leaves the terminal as it was, however training ends. An interrupted stage is not reported as over."""
        try:
            yield self
            self.end()
        finally:
            if self._bars is not None:
                self._bars.stop()

    def _begin(self, name: str) -> _Stage:
        now, left = self._budget.clock(), self._budget.left()
        if self._out.isatty():
            self._bars = _bars(WORDS.get(name, (name, ""))[0], self._out)
            self._bars.start()
        return _Stage(name, now, now + left * SHARES.get(name, 1.0))


@dataclass(slots=True)
class _Stage:
    name: str
    began: float
    ends: float
    done: int = 0
    total: int = 0
    late: bool = False


def _count(stage: _Stage) -> str:
    unit = WORDS.get(stage.name, ("", "steps"))[1]
    if not unit or not stage.total:
        return ""
    return f"{stage.done:,} {unit}" if stage.done >= stage.total else f"{stage.done:,} of {stage.total:,} {unit}"


def _bars(what: str, out: TextIO) -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    bars = Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[count]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        TimeRemainingColumn(),
        console=Console(file=out),
        transient=True,
    )
    bars.add_task(what, total=None, count="", left="")
    return bars


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> [duration(value) for value in (0.04, 12.3, 750, 9000, 200_000)]
    ['0.0 s', '12.3 s', '12 min 30 s', '2 h 30 min', '2 d 7 h']
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    if seconds < 86_400:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
    return f"{int(seconds // 86_400)} d {int(seconds % 86_400 // 3600)} h"


def size(count: float) -> str:
    """Bytes for people.

    >>> [size(value) for value in (900, 3 << 20, 1.5 * (1 << 30))]
    ['900 B', '3.0 MiB', '1.5 GiB']
    """
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} B"
