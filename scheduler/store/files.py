"""Safe files of the state directory: private, ours, no links; and atomic replacement of files that users ask for.

Knows nothing about what is stored. Everything here raises `StoreError` with cause and next step.
"""

from __future__ import annotations

import atexit
import errno
import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NoReturn

from ..hands.safe_files import StoreError, cannot, check, is_there, sync_directory

COMPANIONS = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database file. They belong to it: counted, moved and deleted with it."""


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
                check(Path(f"{path}{suffix}"), stat.S_ISREG, "a regular file")
        return path
    except OSError as error:
        raise cannot(f"cannot create {path}", error) from None
    os.close(descriptor)
    for suffix in COMPANIONS:  # an orphaned write-ahead log would be replayed into the new database
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    return path


def for_root(path: Path) -> None:
    """Let root read only files that nobody else could have written, companions included; others may read what they can.

    Raises UnsafeError. Call it before opening a database for reading: SQLite would follow a link.
    """
    if os.geteuid() != 0:
        return
    for suffix in ("", *COMPANIONS):
        if is_there(Path(f"{path}{suffix}")):
            check(Path(f"{path}{suffix}"), stat.S_ISREG, "a regular file")


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


class NamedFile:
    """A file that the caller of a command named, for a command that becomes another user: it is written with the caller's rights
    all the same. A child that stays the caller gives it its name, or removes it if it does not become whole."""

    def __init__(self, path: Path) -> None:
        """Raises StoreError as `replacing`. Call it before the process becomes another user, or has threads."""
        self._path = path
        temporary, self._descriptor = _begun(path)
        ordered, self._order = os.pipe()
        self._keeper: int | None = os.fork()
        if self._keeper == 0:
            _keep(ordered, temporary, path)
        os.close(ordered)
        atexit.register(self.close)

    def __str__(self) -> str:
        return str(self._path)

    @contextmanager
    def writing(self) -> Iterator[BinaryIO]:
        """As `replacing`; once."""
        try:
            with os.fdopen(self._descriptor, "w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.write(self._order, b".")
            code = self._ended()
            if code:
                raise OSError(code, os.strerror(code))
        except OSError as error:
            raise cannot(f"cannot write {self}", error) from None
        finally:
            self.close()

    def close(self) -> None:
        """The file is not there unless it became whole. Idempotent."""
        if self._keeper is not None:
            self._ended()

    def _ended(self) -> int:
        """The errno with which the child ended, 0 if the file is there."""
        assert self._keeper is not None
        os.close(self._order)
        code = os.waitstatus_to_exitcode(os.waitpid(self._keeper, 0)[1])
        self._keeper = None
        return code if code >= 0 else errno.EINTR


def _keep(ordered: int, temporary: Path, path: Path) -> NoReturn:
    """What the child of a NamedFile does: wait for the order to give the file its name."""
    code = errno.ECANCELED
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the end of the command is the end of the pipe
        os.closerange(3, ordered)
        os.closerange(ordered + 1, 1 << 20)
        if os.read(ordered, 1):
            temporary.rename(path)
            sync_directory(path.parent)
            code = 0
    except OSError as error:
        code = error.errno or errno.EIO
    finally:
        temporary.unlink(missing_ok=True)
        os._exit(code)


def _begun(path: Path) -> tuple[Path, int]:
    """(a new file beside `path`, its descriptor). Raises StoreError."""
    if path.is_dir() and not path.is_symlink():
        raise StoreError(f"{path} is a directory; give the name of a file in it")
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.part")
    try:
        return temporary, os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise cannot(f"cannot write {path}", error) from None


@contextmanager
def replacing(path: Path | NamedFile) -> Iterator[BinaryIO]:
    """Write a file that appears whole or not at all: temporary name in the same directory, fsync, rename, fsync of the directory.

    A link at `path` is replaced, never followed. Raises StoreError; then the temporary file is gone, and `path` is as it was.
    """
    if isinstance(path, NamedFile):
        with path.writing() as file:
            yield file
        return
    temporary, descriptor = _begun(path)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        sync_directory(path.parent)
    except OSError as error:
        raise cannot(f"cannot write {path}", error) from None
    finally:
        temporary.unlink(missing_ok=True)
