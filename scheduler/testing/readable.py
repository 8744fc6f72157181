"""Lets every user execute this Python and read this checkout, also where they are in a directory that only root may enter.

For tests that run nicety as another user. Only what is started this way sees the difference: it has a mount namespace of its own.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from ..interpreter import place


def readable_by_all() -> list[str]:
    """What to write before a command of root; nothing if all may be read already."""
    needed = {Path(each).resolve() for each in (sys.base_prefix, sys.prefix, place(), Path(place(), "nicety", "scheduler"))}
    hidden: dict[Path, set[Path]] = {}  # the outermost directory that others may not enter -> what is needed in it
    for path in needed:
        closed = [above for above in (path, *path.parents) if not above.stat().st_mode & 0o001]
        if closed:
            hidden.setdefault(closed[-1], set()).add(path)
    if not hidden:
        return []
    lines = ["set -e", "kept=$(mktemp -d)", "mount -t tmpfs -o mode=755 tmpfs $kept"]
    for directory, paths in sorted(hidden.items()):
        for number, path in enumerate(sorted(paths)):
            lines += [f"mkdir $kept/{number}", f"mount --bind {shlex.quote(os.fspath(path))} $kept/{number}"]
        lines.append(f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(os.fspath(directory))}")
        for number, path in enumerate(sorted(paths)):
            quoted = shlex.quote(os.fspath(path))
            lines += [f"mkdir -p {quoted}", f"mount --move $kept/{number} {quoted}", f"rmdir $kept/{number}"]
    lines += ["umount $kept", "rmdir $kept", 'exec "$@"']
    return ["unshare", "--mount", "sh", "-c", "\n".join(lines), "sh"]
