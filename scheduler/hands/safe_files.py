"""Files that nobody else can have written or can change: private, ours, no links. Knows nothing about what is stored.

Everything here raises `StoreError` with cause and next step. Paths are strings or `Path`s; `pathlib` itself is not needed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from ...models.lean import TYPE_CHECKING
from .faults import is_gone

if TYPE_CHECKING:
    from typing import TypeVar

    AnyPath = TypeVar("AnyPath", bound="str | os.PathLike[str]")


class StoreError(Exception):
    """A store cannot be used. The message says the cause and what to do next."""


class UnsafeError(StoreError):
    """Somebody else could have put it there, or could change it."""


def private_directory(path: AnyPath) -> AnyPath:
    """The directory `path`, made with mode 0700 if it is not there (parents too, with the usual mode).

    Raises UnsafeError if it is a link, not a directory, somebody else's, or writable by others: anyone who can write here could
    make root follow a link. Raises StoreError if it cannot be made or looked at.
    """
    try:
        os.makedirs(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise cannot(f"cannot create the directory {path}", error) from None
    check(path, stat.S_ISDIR, "a directory")
    return path


def private_descriptor(path: str | os.PathLike[str]) -> int:
    """A descriptor to read and write the regular file `path`, made with mode 0600 if it is not there; the caller closes it.

    No link is followed, and nothing is written. Its directory must have passed `private_directory`. Raises as that does, and for a
    file with a second name (hard link). Not for databases of SQLite: see `store.files.private_file`.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        if os.path.lexists(path):
            check(path, stat.S_ISREG, "a regular file")  # says more about a link or a directory than the errno does
        raise cannot(f"cannot open {path}", error) from None
    try:
        check_descriptor(path, descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_descriptor(path: str | os.PathLike[str], descriptor: int) -> os.stat_result:
    """What is open there, if it is a regular file with one name that nobody else can change. Raises as `private_descriptor`."""
    found = os.fstat(descriptor)
    _judge(path, found, stat.S_ISREG, "a regular file")
    return found


def is_there(path: str | os.PathLike[str]) -> bool:
    """Whether there is anything at `path`, a link that leads nowhere included. Raises StoreError if that cannot be determined."""
    try:
        os.lstat(path)
    except OSError as error:
        if is_gone(error):
            return False
        raise cannot(f"cannot look at {path}", error) from None
    return True


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Make a rename in `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check(path: str | os.PathLike[str], right: Callable[[int], bool], what: str) -> None:
    """Raise StoreError unless `path` itself (no link followed) is what it should be and nobody else can change it."""
    try:
        found = os.lstat(path)
    except OSError as error:
        raise cannot(f"cannot look at {path}", error) from None
    _judge(path, found, right, what)


def _judge(path: str | os.PathLike[str], found: os.stat_result, right: Callable[[int], bool], what: str) -> None:
    """Raise UnsafeError unless what was found at `path` is what it should be and nobody else can change it."""
    if stat.S_ISLNK(found.st_mode):
        raise UnsafeError(f"{path} is a symbolic link, which is not followed; give the path it leads to: {os.path.realpath(path)}")
    if not right(found.st_mode):
        kind = StoreError if stat.S_ISDIR(found.st_mode) else UnsafeError  # nothing can be read through a directory
        raise kind(f"{path} is not {what}; move it away or choose another state directory")
    if found.st_uid != os.geteuid():
        raise UnsafeError(
            f"{path} belongs to user {found.st_uid}, and this runs as user {os.geteuid()}; choose another state directory, "
            f"or: chown -R {os.geteuid()} {path}"
        )
    if found.st_mode & 0o022:
        raise UnsafeError(f"others may write to {path} (mode {stat.S_IMODE(found.st_mode):o}); run: chmod go-w {path}")
    if stat.S_ISREG(found.st_mode) and found.st_nlink != 1:
        raise UnsafeError(f"{path} has {found.st_nlink} names (hard links), so it could be changed through another; move it away")


def cannot(what: str, error: OSError) -> StoreError:
    """A StoreError with what can be done about this errno."""
    steps = {
        errno.ENOSPC: "free space on that disk",
        errno.EDQUOT: "free space: the quota is used up",
        errno.EROFS: "the file system is read-only: choose another directory",
        errno.EACCES: "choose a directory that this user may write to, or run as its owner",
        errno.EPERM: "choose a directory that this user may write to, or run as its owner",
        errno.ENOENT: "the directory is not there: create it, or check the path",
        errno.ENOTDIR: "a part of the path is not a directory: check the path",
        errno.EEXIST: "it is there already: move it away",
    }
    cause = os.strerror(error.errno) if error.errno else str(error)
    return StoreError(f"{what}: {cause}; {steps.get(error.errno or 0, 'check the disk and the path')}")
