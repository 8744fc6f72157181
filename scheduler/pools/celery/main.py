"""What the pool processes of a Celery worker do, as the kernel shows it. Must not know sizes, time or remote control."""

from __future__ import annotations

from pathlib import Path

from ...hands.reads import MOST_DESCRIPTORS
from ...read import door
from ..sensing.busy import CallView, Doing

_WAITS_IN_PIPE = frozenset({"pipe_read", "anon_pipe_read", "pipe_wait", "pipe_wait_readable"})
"""Names that /proc/PID/wchan shows for a read from an empty pipe: Linux up to 5.8, since 6.14, and the versions between."""


def bytes_read(proc_root: Path, pid: int) -> int | None:
    """What the process's main thread has read so far; None if it cannot be read."""
    try:
        return int(door.thread_io(f"{proc_root}/{pid}", pid).split()[1])
    except (OSError, IndexError, ValueError):
        return None


class PoolProcess:
    """Whether a pool process waits for a task, that is, blocks in a read from the pipe to which the main process writes tasks.

    Both ends of that pipe are open in the main process, which separates it from other pipes that a task may read from. Where the
    call cannot be seen (see `busy`), a read from any pipe counts.
    """

    def __init__(self, proc_root: Path, pid: int, main: int) -> None:
        self._proc_root = proc_root
        self._pid = pid
        self._main = main
        self.view = CallView(proc_root, pid)
        """Its system call."""
        self._inbox: int | None = None  # descriptor of its end of the pipe

    def look(self) -> Doing:
        """What it is doing now."""
        try:
            call = self.view.call()
        except ProcessLookupError:
            return Doing.GONE
        if call is None:
            return Doing.UNKNOWN
        if call.name == "none":
            return Doing.GONE if self.view.ended() else Doing.BUSY
        if not call.args:
            return Doing.IDLE if self._kernel_function() in _WAITS_IN_PIPE else Doing.BUSY
        if call.name != "read":
            return Doing.BUSY
        descriptor = call.args[0] & 0xFFFFFFFF
        if self._inbox is None and self._is_inbox(descriptor):
            self._inbox = descriptor
        return Doing.IDLE if descriptor == self._inbox else Doing.BUSY

    def close(self) -> None:
        """Close the descriptors."""
        self.view.close()

    def _is_inbox(self, descriptor: int) -> bool:
        pipe = self.view.link(descriptor)
        if not pipe.startswith("pipe:"):
            return False
        try:
            held = door.links(f"{self._proc_root}/{self._main}", MOST_DESCRIPTORS)
        except OSError:
            return True  # no permission: any pipe counts
        return any(link == pipe for _, link, _ in held.links)

    def _kernel_function(self) -> str:
        try:
            text = door.wchan(f"{self._proc_root}/{self._pid}", self._pid)
        except OSError:
            return ""
        return text.decode("ascii", "replace").strip().split(".")[0].removeprefix("__")
