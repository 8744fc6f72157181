"""The file of the frame: written anew each tick beside the old one, and renamed over it. A failure costs only the views."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

MODE = 0o600
"""Who may read the frame: as who may use the control socket."""

MODE_OF_GROUP = 0o640

NEW = "frame.new"
"""Name of a frame that is being written."""


class FrameFile:
    """Where the daemon writes. Its directory is made with the first frame."""

    def __init__(self, path: Path | None, group: int | None, trouble: str = "") -> None:
        """`path`: None if there is no place for it; `trouble` says why. `group`: a group that may read it; None: nobody else."""
        self.path, self._group = path, group
        self.trouble = trouble
        """Why the last frame was not written; "": it was."""

    def write(self, data: bytes) -> None:
        """Replace the frame."""
        if self.path is None:
            return
        new = self.path.with_name(NEW)
        try:
            descriptor = self._open(new)
            try:
                if self._group is not None:
                    if os.fstat(descriptor).st_gid != self._group:  # in its unit the daemon may not call chown
                        os.fchown(descriptor, -1, self._group)
                    os.fchmod(descriptor, MODE_OF_GROUP)
                with os.fdopen(descriptor, "wb", closefd=False) as file:
                    file.write(data)
            finally:
                os.close(descriptor)
            new.rename(self.path)
        except OSError as error:
            self.trouble = (
                f"views see no new frame: {error.filename or self.path}: {error.strerror}; set daemon.frame to another file"
            )
            return
        self.trouble = ""

    def remove(self) -> None:
        """Remove the file and its directory, so that views see that the daemon has ended. What is gone already is no fault."""
        if self.path is None:
            return
        for file in (self.path, self.path.with_name(NEW)):
            try:
                file.unlink()
            except OSError:
                pass  # never written, or removed by somebody who cleaned up
        try:
            self.path.parent.rmdir()
        except OSError:
            pass  # made by systemd, or other files are in it

    def _open(self, new: Path) -> int:
        """A new file at `new`, and its directory if that is not there. Raises OSError also for a directory that is not ours."""
        assert self.path is not None
        place = self.path.parent
        try:
            self._check(place)
        except FileNotFoundError:
            place.mkdir(0o755, parents=True)
            place.chmod(0o755)  # whatever the umask is: the file itself says who may read it
            self._check(place)
        new.unlink(missing_ok=True)  # of a daemon that was killed
        return os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)

    def _check(self, place: Path) -> None:
        """Refuse a directory that others could have made: they would see, or replace, what is written."""
        found = place.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (0, os.geteuid()) or found.st_mode & stat.S_IWOTH:
            raise PermissionError(errno.EACCES, "not a directory of this user's alone", str(place))
