"""Where the frame is: a place that does not outlive the machine's memory. Looks at mounts and directories, creates nothing."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from .paths import PathError

FRAME = "frame"
"""Name of the file."""

SYSTEM_STATE = Path("/var/lib/nicety")
"""State directory of the system's own daemon, whose frame has a name that everybody knows."""

IN_MEMORY = frozenset({"tmpfs", "ramfs"})

TMPFS = "set daemon.frame to a file on a tmpfs"


def frame_to_write(named: str, root: Path, environment: Mapping[str, str], mounts: str) -> Path:
    """The file for the daemon of the state directory `root`. `named`: the configuration's; "" for the first place that is in memory
    and that this process may write to. `mounts`: text of /proc/self/mountinfo. Raises PathError if there is none."""
    if named:
        return Path(named).expanduser().absolute()
    own = environment.get("RUNTIME_DIRECTORY", "").split(":")[0]  # of a unit, systemd.exec(5)
    places = [Path(own)] if own else list(_places(root, environment))
    for place in places:
        if _in_memory(place, mounts) and os.access(place if place.is_dir() else place.parent, os.W_OK):
            return place / FRAME
    tried = ", ".join(map(str, places))
    raise PathError(f"no view can follow this daemon: none of {tried} is on a tmpfs that this user may write to; {TMPFS}")


def frames_to_read(named: str, root: Path, environment: Mapping[str, str]) -> list[Path]:
    """Where the frame of the daemon of `root` may be, the likeliest first. `named`: as above."""
    return [Path(named).expanduser().absolute()] if named else [place / FRAME for place in _places(root, environment)]


def _places(root: Path, environment: Mapping[str, str]) -> Iterator[Path]:
    """Directories of a frame, which is the only thing in them."""
    name = "nicety" if root == SYSTEM_STATE else f"nicety-{zlib.crc32(os.fsencode(root)):08x}"
    yield Path("/run") / name
    if environment.get("XDG_RUNTIME_DIR"):
        yield Path(environment["XDG_RUNTIME_DIR"]) / name
    yield Path("/dev/shm") / name  # noqa: S108 - the directory is made private, and refused if it is somebody else's


def _in_memory(place: Path, mounts: str) -> bool:
    """Whether files there never reach a disk.

    The line of a mount is: id, parent, device, root, mount point, options, any fields, "-", type, ...: proc_pid_mountinfo(5).
    """
    where = str(place.resolve())
    kinds: dict[str, str] = {}
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) > 4 and right:
            point = fields[4].replace("\\040", " ").rstrip("/")
            if where == point or where.startswith(f"{point}/"):
                kinds[point] = right.split(" ")[0]  # a later mount covers an earlier one
    return bool(kinds) and kinds[max(kinds, key=len)] in IN_MEMORY
