"""Where live frames come from: the daemon's, or where there is none those of a process that reads the machine for this view."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from ...frame import Frame
from ..source import FrameSource
from .head import When

DEAD_SECONDS = 10.0
"""Seconds by which a daemon that still runs must be late until this view reads the machine by itself (chosen): it may be stopped,
or the machine overloaded."""


class Reader(Protocol):
    """See `alone.Alone`."""

    path: Path

    @property
    def trouble(self) -> str:
        """Why it has ended; "": it runs."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class Following:
    """The newest frame that there is, of the daemon or of such a process."""

    def __init__(self, places: Sequence[Path], start_alone: Callable[[], Reader], runs: Callable[[int], bool]) -> None:
        """`places`: where the daemon's frame may be. `start_alone`: starts a process that reads. `runs`: whether there is a process
        with this pid."""
        self._daemon = FrameSource(places)
        self._start_alone, self._runs = start_alone, runs
        self._alone: Reader | None = None
        self._own: FrameSource | None = None
        self._failed = ""
        self.frame: Frame | None = None
        """The newest frame; None: none is there yet."""

    def look(self, wall: float) -> bool:
        """Look for a new frame. `wall`: now, seconds since 1970. Returns whether there is one, or anything changed about it."""
        changed = self._daemon.look()
        if self._daemon.frame is not None and not self._is_dead(wall):
            self._leave_alone()
            before, self.frame = self.frame, self._daemon.frame
            return changed or before is not self.frame
        if self._own is None:
            self._begin_alone()
        if self._own is not None:
            changed = self._own.look() or changed
            self.frame = self._own.frame or self.frame
        return changed

    def when(self, wall: float) -> When:
        """What is to be said of the frame."""
        if self._own is None and not self._failed:
            return When(late=self._daemon.late(wall))
        last = self._daemon.frame
        gone = "" if last is None else f"the daemon's last frame is {wall - last.wall:.0f} s old"
        return When(alone=True, said=self.failed or self._daemon.trouble or gone)

    @property
    def failed(self) -> str:
        """Why the machine cannot be read here; "": it can."""
        return self._failed or ("" if self._alone is None else self._alone.trouble)

    def close(self) -> None:
        """End what was started."""
        self._leave_alone()

    def _is_dead(self, wall: float) -> bool:
        frame = self._daemon.frame
        assert frame is not None
        late = self._daemon.late(wall)
        return late > 0 and (late > max(DEAD_SECONDS, 10 * frame.own.interval) or not self._runs(frame.own.pid))

    def _begin_alone(self) -> None:
        if self._failed:
            return
        try:
            self._alone = self._start_alone()
        except OSError as error:
            self._failed = f"what reads the machine cannot be started: {error.strerror or error}"
            return
        self._own = FrameSource([self._alone.path])

    def _leave_alone(self) -> None:
        if self._alone is not None:
            self._alone.close()
        self._alone = self._own = None


def runs(pid: int) -> bool:
    """Whether there is a process with this pid."""
    return os.path.exists(f"/proc/{pid}")  # noqa: PTH110 - no Path for one look
