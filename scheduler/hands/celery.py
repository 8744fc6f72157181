"""As whom and with which Python Celery's agent is started: as those of the worker that it asks about. Knows /proc only."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

from ...models.lean import NamedTuple
from .wire import RefusedError

_PYTHON = re.compile(r"(python|pypy)[\d.]*[td]?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LIBRARY = re.compile(r" (/.*)/lib(?:64)?/(?:python|pypy)[\d.]+t?/site-packages/")


class User(NamedTuple):
    """The user that a process runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def user_of(proc_root: str, pid: int) -> User:
    """The user that the process runs as. Raises RefusedError: why we cannot act as that user."""
    try:
        with open(f"{proc_root}/{pid}/status", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        raise RefusedError(f"pid {pid} has ended") from None
    fields = {key: value.split() for key, _, value in (line.partition(":") for line in text.splitlines())}
    uids, gids = {int(word) for word in fields["Uid"]}, [int(word) for word in fields["Gid"]]
    if len(uids) != 1:
        raise RefusedError(f"pid {pid} runs as two users at once (set-user-ID): it cannot be a Celery worker, correct the pid")
    uid = uids.pop()
    if os.geteuid() not in {0, uid}:
        raise RefusedError(f"pid {pid} runs as user {uid}: run nicety as that user, or as root")
    return User(uid, gids[0], tuple(int(word) for word in fields.get("Groups", [])))


def environment(proc_root: str, pid: int) -> dict[str, str]:
    """The environment that the process was started with; {} if it cannot be read or a process title has overwritten it."""
    try:
        with open(f"{proc_root}/{pid}/environ", "rb") as file:
            raw = file.read()
    except OSError:
        return {}
    pairs = (word.decode("utf-8", "surrogateescape").partition("=") for word in raw.split(b"\0"))
    return {name: value for name, sign, value in pairs if sign and _NAME.fullmatch(name)}


def interpreter(proc_root: str, pid: int, environ: Mapping[str, str]) -> str:
    """The Python that runs a process, by a path that leads to its virtual environment. Raises RefusedError: why there is none.

    A path counts only if it is the very file that the process executes: its argument list may say anything.
    """
    process = f"{proc_root}/{pid}"
    stranger = f"Celery's main process should be pid {pid}, "
    try:
        executable = os.readlink(f"{process}/exe")
    except OSError as error:
        raise RefusedError(
            f"{stranger}whose program cannot be seen ({error.strerror}): run nicety as its user or as root"
        ) from None
    if not _is_python(executable.removesuffix(" (deleted)")):
        raise RefusedError(f"{stranger}which is no Python (it runs {executable!r}): correct the pid")
    for candidate in (*_candidates(process, environ), executable):
        try:
            if _is_python(candidate) and os.path.samefile(candidate, f"{process}/exe"):
                return candidate
        except OSError:
            continue
    raise RefusedError(f"{stranger}whose Python ({executable}) is not found here: restart the worker, or give python")


def _is_python(path: str) -> bool:
    return _PYTHON.fullmatch(os.path.basename(path)) is not None


def _candidates(process: str, environ: Mapping[str, str]) -> Iterator[str]:
    """Paths by which the interpreter may have been started, the likeliest first."""
    try:
        with open(f"{process}/cmdline", "rb") as file:
            name = file.read().split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
        if "/" in name:
            yield os.path.join(os.readlink(f"{process}/cwd"), name)
        elif name:
            yield from (os.path.join(folder, name) for folder in environ.get("PATH", "").split(":") if folder.startswith("/"))
        # a process title hides the argument list, but its extension module is loaded from the virtual environment
        with open(f"{process}/maps", encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for prefix in dict.fromkeys(match[1] for match in map(_LIBRARY.search, lines) if match):
        yield from (os.path.join(prefix, "bin", name) for name in ("python3", "python"))
