"""What the search reads of a process beyond the table: its arguments and its directory. Must not know kinds of pools."""

from __future__ import annotations

from pathlib import Path

from ...read import door

MOST_ARGUMENTS = 1 << 16
"""Most bytes of an argument list that are read (chosen): a longer one is not that of a server."""


def arguments_of(proc_root: Path, pid: int) -> tuple[str, ...]:
    """The argument list of a process; () if it is gone or hides it."""
    try:
        with (proc_root / str(pid) / "cmdline").open("rb") as file:
            raw = file.read(MOST_ARGUMENTS)
    except OSError:
        return ()
    text = raw.rstrip(b"\0").decode("utf-8", "surrogateescape")
    return tuple(text.split("\0")) if text else ()


def directory_of(proc_root: Path, pid: int) -> str:
    """The working directory of a process; "" if it is gone or hides it."""
    try:
        found = door.link(f"{proc_root}/{pid}", "cwd")
    except OSError:
        return ""
    return found if found.startswith("/") else ""
