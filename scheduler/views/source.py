"""Follows the frames of one daemon. Knows where they may be, not what is in them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..frame import Frame, FrameError, read_frame

STALE_TICKS = 3.0
"""Intervals without a new frame after which a daemon counts as stuck (chosen): it misses a tick now and then."""

STALE_SECONDS = 3.0
"""Least seconds of the same (chosen), for short intervals."""


class FrameSource:
    """The frame file of one daemon, at the first of the `places` where there is one."""

    def __init__(self, places: Sequence[Path]) -> None:
        self.places = tuple(places)
        self._seen: tuple[int, int, int] | None = None  # device, inode and time of change of the file that was read last
        self.frame: Frame | None = None
        """The newest frame; None: no daemon runs, or it may not be read."""
        self.trouble = ""
        """Why there is a file but no frame; "" if there is none."""

    def look(self) -> bool:
        """Read the frame if it is a new one. Returns whether anything changed; a look that finds nothing new takes 3 us."""
        for path in self.places:
            try:
                found = path.stat()
            except OSError:
                continue  # none there, or not ours to look at, which `_hidden` finds
            mark = found.st_dev, found.st_ino, found.st_mtime_ns
            if mark == self._seen:
                return False
            self._seen = mark
            return self._read(path)
        before = self._seen, self.trouble
        self._seen, self.frame, self.trouble = None, None, self._hidden()
        return before != (None, self.trouble)

    def late(self, wall: float) -> float:
        """Seconds by which the next frame is late at `wall` (seconds since 1970), 0.0 if it is not or there is none."""
        if self.frame is None:
            return 0.0
        age = wall - self.frame.wall
        return age if age > max(STALE_SECONDS, STALE_TICKS * self.frame.own.interval) else 0.0

    def _read(self, path: Path) -> bool:
        try:
            self.frame, self.trouble = read_frame(path), ""
        except FrameError as error:
            self.frame, self.trouble = None, str(error)
        return True

    def _hidden(self) -> str:
        """Why a place cannot be looked at; "" if nothing hides it."""
        for path in self.places:
            if path.parent.is_dir() and not os.access(path.parent, os.X_OK):
                return f"{path.parent}: permission denied; read it as the daemon's own user, or see daemon.control_group"
        return ""
