"""Safe files of the state directory: private, ours, no links; and atomic replacement of files that users ask for.

Knows nothing about what is stored. Everything here raises `StoreError` with cause and next step.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..faults import is_gone

COMPANIONS = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database file. They belong to it: counted, moved and deleted with it."""


class StoreError(Exception):
    """A store cannot be used. The message says the cause and what to do next."""


class UnsafeError(StoreError):
    """Somebody else could have put it there, or could change it."""


def private_directory(path: Path) -> Path:
    """The directory `path`, made with mode 0700 (parents too) if it is not there.

    Raises UnsafeError if it is a link, not a directory, somebody else's, or writable by others: anyone who can write here could
    make root follow a link. Raises StoreError if it cannot be made or looked at.
    """
    try:
        path.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        pass
    except OSError as error:
        raise _cannot(f"cannot create the directory {path}", error) from None
    _check(path, stat.S_ISDIR, "a directory")
    return path


def private_file(path: Path) -> Path:
    """The regular file `path`, made with mode 0600 if it is not there. Its directory must have passed `private_directory`.

    An existing file is checked without opening it: closing any descriptor of a file releases all POSIX locks that this process
    holds on it, so SQLite connections of the same process would lose theirs. What SQLite keeps beside it is checked too. Raises
    like `private_directory`, and for a file with a second name (hard link).
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        for suffix in ("", *COMPANIONS):
            if not suffix or is_there(Path(f"{path}{suffix}")):
                _check(Path(f"{path}{suffix}"), stat.S_ISREG, "a regular file")
        return path
    except OSError as error:
        raise _cannot(f"cannot create {path}", error) from None
    os.close(descriptor)
    for suffix in COMPANIONS:  # an orphaned write-ahead log would be replayed into the new database
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    return path


def private_descriptor(path: Path) -> int:
    """A descriptor to read and write the regular file `path`, made with mode 0600 if it is not there; the caller closes it.

    No link is followed, and nothing is written. Its directory must have passed `private_directory`. Raises like `private_file`.
    Not for databases: see `private_file`.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        if os.path.lexists(path):
            _check(path, stat.S_ISREG, "a regular file")  # says more about a link or a directory than the errno does
        raise _cannot(f"cannot open {path}", error) from None
    try:
        _judge(path, os.fstat(descriptor), stat.S_ISREG, "a regular file")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def for_root(path: Path) -> None:
    """Let root read only files that nobody else could have written, companions included; others may read what they can.

    Raises UnsafeError. Call it before opening a database for reading: SQLite would follow a link.
    """
    if os.geteuid() != 0:
        return
    for suffix in ("", *COMPANIONS):
        if is_there(Path(f"{path}{suffix}")):
            _check(Path(f"{path}{suffix}"), stat.S_ISREG, "a regular file")


def is_there(path: Path) -> bool:
    """Whether there is anything at `path`, a link that leads nowhere included. Raises StoreError if that cannot be determined."""
    try:
        path.lstat()
    except OSError as error:
        if is_gone(error):
            return False
        raise _cannot(f"cannot look at {path}", error) from None
    return True


def size_with_companions(path: Path) -> int:
    """Bytes of a database file and of what SQLite keeps beside it; 0 for what is not there."""
    total = 0
    for suffix in ("", *COMPANIONS):
        try:
            total += Path(f"{path}{suffix}").stat().st_size
        except FileNotFoundError:
            continue
    return total


def remove_with_companions(path: Path) -> None:
    """Delete a database: companions first, so that a crash in between leaves no log to be replayed into a new file."""
    for suffix in (*COMPANIONS, ""):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Rename a database that cannot be used to the first free NAME.N.db, so that nothing is lost; returns the new path."""
    number = 1
    while os.path.lexists(aside := path.with_name(f"{path.stem}.{number}{path.suffix}")):
        number += 1
    for suffix in (*COMPANIONS, ""):
        if os.path.lexists(f"{path}{suffix}"):
            Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
    return aside


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file that appears whole or not at all: temporary name in the same directory, fsync, rename, fsync of the directory.

    A link at `path` is replaced, never followed. Raises StoreError; then the temporary file is gone, and `path` is as it was.
    """
    if path.is_dir() and not path.is_symlink():
        raise StoreError(f"{path} is a directory; give the name of a file in it")
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.part")
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _cannot(f"cannot write {path}", error) from None
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        sync_directory(path.parent)
    except OSError as error:
        raise _cannot(f"cannot write {path}", error) from None
    finally:
        temporary.unlink(missing_ok=True)


def sync_directory(path: Path) -> None:
    """Make a rename in `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check(path: Path, right: Callable[[int], bool], what: str) -> None:
    """Raise StoreError unless `path` itself (no link followed) is what it should be and nobody else can change it."""
    try:
        found = path.lstat()
    except OSError as error:
        raise _cannot(f"cannot look at {path}", error) from None
    _judge(path, found, right, what)


def _judge(path: Path, found: os.stat_result, right: Callable[[int], bool], what: str) -> None:
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


def _cannot(what: str, error: OSError) -> StoreError:
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
