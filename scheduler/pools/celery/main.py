"""The main process of a Celery worker as the kernel shows it: its identity, user and Python, and what its pool processes do.

Must not know sizes, time or remote control. A process counts as Celery's only when its node answers with its pid; until then
nothing is sent to it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ...hands.reads import MOST_DESCRIPTORS
from ...read import door
from ..sensing.busy import CallView, Doing

_PYTHON = re.compile(r"(python|pypy)[\d.]*[td]?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LIBRARY = re.compile(r" (/.*)/lib(?:64)?/(?:python|pypy)[\d.]+t?/site-packages/")
_WAITS_IN_PIPE = frozenset({"pipe_read", "anon_pipe_read", "pipe_wait", "pipe_wait_readable"})
"""Names that /proc/PID/wchan shows for a read from an empty pipe: Linux up to 5.8, since 6.14, and the versions between."""


class User(NamedTuple):
    """The user that a process runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def user_of(proc_root: Path, pid: int) -> User | str:
    """The user that the process runs as, or a sentence on why we cannot act as that user."""
    try:
        text = (proc_root / str(pid) / "status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "has ended"
    fields = {key: value.split() for key, _, value in (line.partition(":") for line in text.splitlines())}
    uids, gids = {int(word) for word in fields["Uid"]}, [int(word) for word in fields["Gid"]]
    if len(uids) != 1:
        return "runs as two users at once (set-user-ID): it cannot be a Celery worker, correct the pid"
    uid = uids.pop()
    if os.geteuid() not in {0, uid}:
        return f"runs as user {uid}: run nicety as that user, or as root"
    return User(uid, gids[0], tuple(int(word) for word in fields.get("Groups", [])))


def environment(proc_root: Path, pid: int) -> dict[str, str]:
    """The environment that the process was started with; {} if it cannot be read or a process title has overwritten it."""
    try:
        raw = (proc_root / str(pid) / "environ").read_bytes()
    except OSError:
        return {}
    pairs = (word.decode("utf-8", "surrogateescape").partition("=") for word in raw.split(b"\0"))
    return {name: value for name, sign, value in pairs if sign and _NAME.fullmatch(name)}


def interpreter(proc_root: Path, pid: int, environ: Mapping[str, str]) -> Path | str:
    """The Python that runs a process, by a path that leads to its virtual environment, or a sentence on why there is none.

    A path counts only if it is the very file that the process executes: its argument list may say anything.
    """
    process = proc_root / str(pid)
    try:
        executable = (process / "exe").readlink()
    except OSError as error:
        return f"whose program cannot be seen ({error.strerror}): run nicety as its user or as root"
    if not _PYTHON.fullmatch(executable.name.removesuffix(" (deleted)")):
        return f"which is no Python (it runs {str(executable)!r}): correct the pid"
    for candidate in (*_candidates(process, environ), executable):
        try:
            if _PYTHON.fullmatch(candidate.name) and candidate.samefile(process / "exe"):
                return candidate
        except OSError:
            continue
    return f"whose Python ({executable}) is not found here: restart the worker, or give python"


def _candidates(process: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    """Paths by which the interpreter may have been started, the likeliest first."""
    try:
        name = (process / "cmdline").read_bytes().split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
        if "/" in name:
            yield (process / "cwd").readlink() / name
        elif name:
            yield from (Path(folder) / name for folder in environ.get("PATH", "").split(":") if folder.startswith("/"))
        # a process title hides the argument list, but its extension module is loaded from the virtual environment
        maps = (process / "maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for prefix in dict.fromkeys(match[1] for match in map(_LIBRARY.search, maps.splitlines()) if match):
        yield from (Path(prefix) / "bin" / name for name in ("python3", "python"))


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
