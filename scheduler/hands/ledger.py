"""The ledger: a durable record of what every changed value was before, from which everything is undone.

Knows lines, files and locks. Must not know the kernel, the meaning of decisions, or when to restore.

A file of lines, to which lines are added. `intend` returns when its lines are on disk; only then may the change be made. Memory
holds what is open, and the file is its copy: a failed write is repeated with the next one. Every line has a checksum, and that of a
change has all that is needed to undo it: each line that can still be read in a damaged file is correct by itself.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType

from ...models.lean import TYPE_CHECKING, NamedTuple
from .book import Book
from .changes import OPEN, Entry, EntryStatus
from .lines import entry_line, entry_record, line_of, record_of, take
from .places import ThreadPlace
from .safe_files import (
    StoreError,
    UnsafeError,
    check_descriptor,
    is_there,
    private_descriptor,
    private_directory,
    sync_directory,
)
from .tally import Note

if TYPE_CHECKING:
    from typing import Self

NAME, NAME_OF_1 = "ledger.log", "ledger.db"
"""File of the ledger in a state directory, and that of version 1, which was a database."""

VERSION = 2
"""Version of the lines. A ledger of a later version is refused, not guessed at; one of version 1 is taken over."""

KEEP = 500
"""Number of newest changes that stay in the file for inspection. Open and foreign ones always stay. Chosen: it bounds the file."""

LINES = 4 * KEEP
"""Lines after which the file is written anew with what stays (chosen: a change takes two, and 300 bytes)."""

_SENTRY, _AGAIN = " sentry", 0.05  # what a sentry adds to its pid in the lock, and seconds between two tries to get it
_HEADER = "nicety ledger"
_BLOCK = 1 << 16  # bytes read at once
_LONGEST = 1 << 20  # bytes of a line: a fence of many parts has a few thousand


class LedgerError(Exception):
    """The ledger cannot be written or used; the text has the cause and what to do."""


class StateBusyError(LedgerError):
    """Another process works with this state directory. `sentry`: it is one that puts changes back."""

    def __init__(self, text: str, *, sentry: bool = False) -> None:
        self.sentry = sentry
        super().__init__(text)


class StateLock:
    """The right to use a state directory, held until `release` or the end of the process, however it ends.

    `patience`: seconds to wait while a sentry has it, which is putting values back. `sentry`: whether this is one. `daemon`: pid to
    tell others, if it is not that of this process.

    Raises StateBusyError naming the other process, and LedgerError if the file cannot be made, or if somebody else could have
    written to the directory or put the file there: nothing is written then.
    """

    def __init__(self, state_dir: str | os.PathLike[str], patience: float = 0.0, *, sentry: bool = False, daemon: int = 0) -> None:
        while True:
            try:
                self._take(state_dir, f"{daemon or os.getpid()}{_SENTRY if sentry else ''}")
            except StateBusyError as error:
                if not error.sentry or patience <= 0:
                    raise
                time.sleep(_AGAIN)
                patience -= _AGAIN
            else:
                return

    def _take(self, state_dir: str | os.PathLike[str], holder: str) -> None:
        try:
            self._fd = private_descriptor(os.path.join(private_directory(state_dir), "lock"))
        except UnsafeError as error:
            raise LedgerError(str(error)) from None
        except StoreError as error:
            raise LedgerError(f"{error}; or give a state directory that you may write (--state-dir)") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if not isinstance(error, BlockingIOError):
                os.close(self._fd)
                raise LedgerError(f"{state_dir} cannot be locked: {error.strerror}") from None
            other = os.pread(self._fd, 40, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise _busy(state_dir, other) from None
        try:  # the pid is for people: the lock holds even if the disk is full
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{holder}\n".encode(), 0)
        except OSError:
            pass

    def release(self) -> None:
        """Release the lock. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


def _busy(state_dir: str | os.PathLike[str], holder: str) -> StateBusyError:
    """`holder`: what the lock says of who has it."""
    pid = holder.removesuffix(_SENTRY)
    sentry = pid != holder
    who = f"the nicety process with pid {pid}; stop it, or give another --state-dir"
    if sentry:
        who = f"the sentry with pid {pid}, which is putting changes back; try again in a moment"
    return StateBusyError(f"{os.fspath(state_dir)} is in use by {who}", sentry=sentry)


class Ledger(Book):
    """The ledger in `path`. The caller must lock its directory (StateLock): there is one writer.

    A damaged file is moved to `.bad.N` and what can be read of it is taken over; `notes` says so. If the file cannot be written,
    `intend` raises, and undo has what could be read. If it cannot be read either, `intend` raises until it can be, and `notes` says
    that its content is unknown. Raises LedgerError for a ledger of a later version, for another program's file, and for a file that
    somebody else could have put there or could change; such a file is left as it is.
    """

    def __init__(self, path: str | os.PathLike[str], boot_id: str) -> None:
        super().__init__()
        self.notes: tuple[Note, ...] = ()
        self.trouble = ""  # why the last write failed, "" if it did not
        self._path = os.fspath(path)
        self._boot_id = boot_id
        self._fd = -1
        self._inode = 0
        self._length = 0  # bytes that are known to be good
        self._lines = 0
        self._torn = self._fresh = False  # something follows the good bytes; the directory entry may not be durable yet
        self._unread = False  # not all of the file could be read yet
        self._pending: list[bytes] = []  # lines to be written
        self._news: list[object] | None = None  # records since `news` was called; None: nobody follows
        self._next = 1
        try:
            self._load(self._open())
        except OSError as error:
            self._read_only(error)
        self._take_over_version_1()

    # --- what is asked of it ---------------------------------------------------------------------------------------------------

    def intend(self, entries: Sequence[Entry]) -> tuple[int, ...]:
        """Record these changes before they are made; returns their ids, in order. On return they are on disk.

        Raises LedgerError if they are not: then nothing may be changed, and nothing is recorded.
        """
        self._read_late()
        named = [entry._replace(id=self._next + index) for index, entry in enumerate(entries)]
        records = [entry_record(entry) for entry in named]
        lines = [line_of(record) for record in records]
        self._pending += lines
        try:
            self._flush()
        except OSError as error:
            self._pending = [line for line in self._pending if line not in lines]
            raise LedgerError(self._explain(error)) from None
        self._next += len(named)
        for entry in named:
            self._remember(entry)
        if self._news is not None:
            self._news += records
        return tuple(entry.id for entry in named)

    def settle(self, statuses: Mapping[int, EntryStatus]) -> None:
        """Record what became of entries, by id, in one write. Never raises: a failed write is repeated with the next one, and
        undo does not depend on it, because it compares."""
        for number, status in statuses.items():
            entry = self._become(number, status)
            if entry is None:
                continue
            self._note(["is", number, status])
            if status is EntryStatus.DONE:
                self._merge(entry)
        try:
            self._flush()
        except OSError as error:
            self._explain(error)

    def news(self) -> list[object]:
        """What a book needs that followed this one until the last call: all, at the first."""
        news, self._news = self.records() if self._news is None else self._news, []
        return news

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # --- memory ----------------------------------------------------------------------------------------------------------------

    def _note(self, record: list[object]) -> None:
        """Have a record written with the next lines, and told to who follows."""
        self._pending.append(line_of(record))
        if self._news is not None:
            self._news.append(record)

    def _merge(self, done: Entry) -> None:
        """Drop earlier changes that `done` covers, so that a value that oscillates for days keeps a short chain.

        For threads one entry per value stays, with the earliest `since`: children may have inherited any of them.
        """
        chain = self._subjects[done.subject][done.knob]
        merged = done
        for entry in chain:
            covered = entry.new == done.new or not isinstance(done.knob.on, ThreadPlace)
            if entry.id < done.id and entry.status is EntryStatus.DONE and covered:
                self._forget(entry.id)
                self._note(["drop", entry.id])
                merged = merged._replace(since=min(merged.since, entry.since))
        if merged is not done:
            self._remember(merged)
            self._note(entry_record(merged))

    # --- the file --------------------------------------------------------------------------------------------------------------

    def _open(self) -> int:
        """A descriptor of the file, made if there is none. Raises OSError, and LedgerError if it cannot be believed."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(self._path, flags, 0o600)
        except OSError as error:
            self._believe(error)
            raise
        try:
            found = check_descriptor(self._path, fd)
        except StoreError as error:
            os.close(fd)
            raise LedgerError(f"the ledger is not believed: {error}") from None
        self._fd, self._inode, self._length, self._fresh = fd, found.st_ino, found.st_size, found.st_size == 0
        return fd

    def _believe(self, error: OSError) -> None:
        """Raise LedgerError if the file could not be opened because of what it is: a link, a directory, somebody else's."""
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EACCES, errno.EPERM) and os.path.lexists(self._path):
            try:
                os.close(private_descriptor(self._path))
            except UnsafeError as unsafe:
                raise LedgerError(f"the ledger is not believed: {unsafe}") from None
            except StoreError:
                return

    def _load(self, fd: int) -> None:
        """Load the lines of the file. A last line that a crash cut short is dropped. A damaged file is moved aside, and a new one
        is begun with the sound lines. Raises OSError, and LedgerError for a file that is not ours; nothing is loaded then."""
        found = _read(fd, self._path)
        for line in self._pending:  # what was settled while it could not be read
            take(record_of(line[:-1]) or [], found.entries)
        if found.damaged:
            self._quarantine(found)
        else:
            self._torn, self._length, self._lines = found.good < self._length, found.good, found.lines
            self._pending = [*_missing(found), *self._pending]
        self._adopt(found.entries)

    def _read_late(self) -> None:
        """Load what could not be read when the ledger was opened: new lines must not take its numbers. Raises LedgerError."""
        if not self._unread:
            return
        try:
            self._load(self._open())
        except OSError as error:
            self.close()
            raise LedgerError(self._explain(error)) from None
        self._unread = False

    def _adopt(self, entries: Mapping[int, Entry]) -> None:
        """Take over what is open or foreign, and write what is to be written."""
        rebooted = 0
        for entry in entries.values():
            self._next = max(self._next, entry.id + 1)
            if entry.boot_id != self._boot_id:
                if entry.status in OPEN or entry.status is EntryStatus.FOREIGN:
                    rebooted += entry.status in OPEN
                    self._pending.append(line_of(["is", entry.id, EntryStatus.GONE]))
            elif entry.status in OPEN:
                self._remember(entry)
            elif entry.status is EntryStatus.FOREIGN:
                self._foreign.add(entry.knob)
        if self._news is not None:
            self._news += self.records()
        if rebooted:
            self.notes += (Note(f"the machine was rebooted since: {rebooted} changes are gone with it, nothing to undo", False),)
        try:
            self._flush()
        except OSError as error:
            self._explain(error)

    def _quarantine(self, found: _Found) -> None:
        """Move the damaged file aside. What could be read of it is to be written to a new one."""
        self.close()
        number = 1
        while os.path.lexists(bad := f"{self._path}.bad.{number}"):
            number += 1
        count = sum(entry.status in OPEN and entry.boot_id == self._boot_id for entry in found.entries.values())
        try:
            os.rename(self._path, bad)
        except OSError as error:
            self.trouble = f"{self._path} is damaged and cannot be moved aside ({error.strerror}); move it away by hand"
            self.notes += (Note(self.trouble, True),)
            self._unread = True
            return
        self._pending = [line_of([_HEADER, VERSION]), *map(entry_line, found.entries.values()), *self._pending]
        self._length = self._lines = self._inode = 0
        text = f"the ledger was damaged and is kept as {bad}; {count} open changes could be read of it"
        self.notes += (Note(f"{text}; others, if there were any, cannot be undone any more", True),)

    def _read_only(self, error: OSError) -> None:
        """The file cannot be opened for writing: load what can be read, so that undo works; changes are refused from now on."""
        self.close()
        self._explain(error)
        self._inode = self._length = 0
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                found = _read(fd, self._path)
                self._inode = os.fstat(fd).st_ino
            finally:
                os.close(fd)
        except FileNotFoundError:
            found = _Found({}, 0, 0, (), False)
        except OSError:
            found = _Found({}, 0, 0, (), True)
        self._unread, self._torn, self._length, self._lines = found.damaged, True, found.good, found.lines
        if not found.damaged:
            self._pending += _missing(found)
        if found.damaged:
            text = f"not all of the ledger {self._path} can be read ({error.strerror}): what is still changed is not known"
            self.notes += (Note(f"{text}; {_advice(error)}, then undo again", True),)
        else:
            self.notes += (Note(self.trouble, False),)
        if found.entries:
            self._adopt(found.entries)

    def _take_over_version_1(self) -> None:
        """Take over the open changes of a ledger of version 1, once."""
        path = f"{self._path.removesuffix(NAME)}{NAME_OF_1}"
        try:
            if not self._path.endswith(NAME) or not is_there(path):
                return
            from .ledger_of_version_1 import read, set_aside

            entries, lost = read(path)
        except UnsafeError as error:
            self.close()
            raise LedgerError(f"the ledger is not believed: {error}") from None
        except StoreError as error:
            self.notes += (Note(f"what an older nicety may have left changed is not known: {error}; then undo again", True),)
            return
        if lost:
            self.notes += (Note(f"not all of the older ledger {path} can be read; what is missing cannot be undone", True),)
        first = self._next
        entries = [entry._replace(id=first + index) for index, entry in enumerate(entries)]
        self._pending += map(entry_line, entries)
        self._adopt({entry.id: entry for entry in entries})
        if not self.trouble:
            set_aside(path)

    def _flush(self) -> None:
        """Write the pending lines, and return when they are on disk. Raises OSError; then everything is as before."""
        if not self._pending:
            return
        fd = self._writable()
        data = b"".join(self._pending)
        try:
            if self._torn:  # half of a line that did not fit, or that a crash cut short
                os.ftruncate(fd, self._length)
                self._torn = False
            _write(fd, data, self._length)
            os.fdatasync(fd)
            if self._fresh:
                sync_directory(os.path.dirname(self._path) or ".")
        except OSError:
            self._torn = True
            self.close()  # opened again next time: after an i/o error a descriptor cannot be trusted
            raise
        self._fresh = False
        self._length += len(data)
        self._lines += len(self._pending)
        self._pending.clear()
        self.trouble = ""
        if self._lines > LINES + 2 * len(self._entries):
            self._shorten()

    def _writable(self) -> int:
        """A descriptor of the file that is now at the path. If somebody removed or cut it, the next flush writes all that is open
        again. Raises OSError."""
        if self._unread:
            raise OSError(errno.EIO, "not all of it could be read")
        if self._fd >= 0:
            try:
                if os.stat(self._path).st_ino == self._inode:
                    return self._fd
            except OSError:
                pass
            self.close()
        inode, length = self._inode, self._length
        try:
            fd = self._open()
        except LedgerError as error:
            raise OSError(errno.EPERM, str(error)) from None
        if self._inode == inode and self._length >= length:
            self._torn, self._length = self._length > length, length
        else:
            self._begin_anew()
        return fd

    def _begin_anew(self) -> None:
        """The file is another one: it gets all that is open, and then the pending lines."""
        self._torn = self._length > 0
        self._length = self._lines = 0
        lines = [line_of([_HEADER, VERSION]), *(entry_line(self._entries[number]) for number in sorted(self._entries))]
        self._pending = [*lines, *(line for line in self._pending if line != lines[0])]

    def _shorten(self) -> None:
        """Write the file anew with what stays. If that fails, it stays long, and is tried again after as many lines."""
        new = f"{self._path}.new"
        try:
            found = _read(self._fd, self._path)
            numbers = sorted(found.entries)
            kept = set(numbers[-KEEP:])
            stays = [found.entries[n] for n in numbers if n in kept or n in self._entries or self._is_foreign(found.entries[n])]
            data = b"".join((line_of([_HEADER, VERSION]), *map(entry_line, stays)))
            if os.path.lexists(new):
                os.unlink(new)
            fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                _write(fd, data, 0)
                os.fsync(fd)
                os.rename(new, self._path)
            except BaseException:
                os.close(fd)
                raise
        except OSError:
            self._lines = 0
            return
        self.close()
        self._fd, self._inode, self._length, self._lines = fd, os.fstat(fd).st_ino, len(data), len(stays) + 1
        try:
            sync_directory(os.path.dirname(self._path) or ".")
        except OSError:
            pass  # the old file is sound too

    def _is_foreign(self, entry: Entry) -> bool:
        return entry.status is EntryStatus.FOREIGN and entry.boot_id == self._boot_id

    def _explain(self, error: OSError) -> str:
        cause = error.strerror or str(error)
        self.trouble = f"the ledger {self._path} cannot be written ({cause}): nothing is changed without it; {_advice(error)}"
        return self.trouble


def left_behind(state_dir: str | os.PathLike[str]) -> bool:
    """Whether there is a ledger in this directory. Makes and opens nothing.

    Raises LedgerError if that cannot be determined, or if somebody else could have written to the directory: its content is not
    believed.
    """
    try:
        if not is_there(state_dir):
            return False
        private_directory(state_dir)
        return any(is_there(f"{os.fspath(state_dir)}/{name}") for name in (NAME, NAME_OF_1))
    except StoreError as error:
        raise LedgerError(str(error)) from None


def open_changes(state_dir: str) -> list[Entry]:
    """The changes that the ledger in this directory has open, whatever boot they are of. A look: nothing is written, and damage is
    passed over. Raises OSError if it cannot be read, and LedgerError if it is none."""
    found = _read_path(os.path.join(state_dir, NAME))
    return [entry for entry in found.entries.values() if entry.status in OPEN]


def _advice(error: OSError) -> str:
    """What to do about an error of a write."""
    return {
        errno.ENOSPC: "free some space",
        errno.EDQUOT: "free some space: the quota is used up",
        errno.EROFS: "make it writable",
        errno.EACCES: "make it writable",
        errno.ENOENT: "check that its directory exists and is writable",
        errno.EMFILE: "check that descriptors are left",
        errno.ENFILE: "check that descriptors are left",
        errno.EIO: "check the disk: full, over quota or failing",
    }.get(error.errno or 0, "check that it is writable and not damaged")


# --- reading ---------------------------------------------------------------------------------------------------------------------


class _Found(NamedTuple):
    """What a file has."""

    entries: dict[int, Entry]  # by id, as of the last line about each
    lines: int
    good: int  # bytes up to the end of the last whole line
    again: tuple[bytes, ...]  # a last line of which only the end is missing: to be written again
    damaged: bool  # lines are missing or wrong, beyond a last one that was cut short


def _missing(found: _Found) -> tuple[bytes, ...]:
    """The lines that a sound file must get before others: its last one if that has no end, the first one if it has none."""
    return found.again if found.lines or found.again else (line_of([_HEADER, VERSION]),)


def _read_path(path: str) -> _Found:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return _read(fd, path)
    finally:
        os.close(fd)


def _read(fd: int, path: str) -> _Found:
    """What the file has. Raises OSError, and LedgerError for a file of another version or of another program."""
    entries = dict[int, Entry]()
    lines, good, at, wrong, begun = 0, 0, 0, 0, False
    again: tuple[bytes, ...] = ()
    for line, whole in _split(fd):
        at += len(line) + whole
        record = record_of(line)
        if record is None and not whole:  # what a crash leaves; but if only the end of the line is wrong, it is all there
            record = record_of(line[:-1])
        if record is None:
            wrong += whole
            continue
        if record[0] == _HEADER:
            _check_version(record)
            begun = True
        elif not take(record, entries):
            wrong += 1
            continue
        if whole:
            lines, good = lines + 1, at
        else:
            again = (line_of(record),)
    if wrong and not lines and not again:
        raise LedgerError(f"{path} is no ledger of nicety; give nicety's own --state-dir, or move the file away")
    return _Found(entries, lines, good, again, bool(wrong) or (lines > 0 and not begun))


def _check_version(record: list[object]) -> None:
    version = record[1] if len(record) > 1 else "unknown"
    if version != VERSION:
        raise LedgerError(
            f"the ledger was written by another nicety (its version {version}, ours {VERSION}); "
            "run `nicety undo` of that one first, or move the file away to give its changes up"
        )


def _split(fd: int) -> Iterator[tuple[bytes, bool]]:
    """Each line without its end, and whether it has one. Zeros at the end, as after a crash, are no line."""
    rest, at = b"", 0
    while block := os.pread(fd, _BLOCK, at):
        at += len(block)
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            yield line, True
        if len(rest) > _LONGEST:
            yield rest, True
            rest = b""
    if rest.strip(b"\0"):
        yield rest, False


def _write(fd: int, data: bytes, at: int) -> None:
    """Write all of it. Raises OSError."""
    while data:
        written = os.pwrite(fd, data, at)
        data, at = data[written:], at + written
