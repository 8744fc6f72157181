"""The ledger: a durable record of what every changed value was before, from which everything is undone.

Knows rows, files and locks. Must not know the kernel, the meaning of decisions, or when to restore.

`intend` returns when the rows are on disk; only then may the change be made. Memory holds what is open, and the file is its copy:
a failed write is repeated with the next one. Every row carries the value before our first change and a checksum, so each row that
can still be read in a damaged file is correct by itself.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import msgspec

from ...models.records import ProcId
from ..changes import OPEN, Chain, Entry, EntryStatus, Subject, original, subject_of
from ..decision import PLACES, Control
from ..faults import is_gone
from ..places import AutogroupPlace, CgroupPlace, FencePlace, KnobPlace, PoolPlace, ThreadId, ThreadPlace
from ..ports import Knob, Value
from .files import StoreError, UnsafeError, is_there, private_descriptor, private_directory, private_file

VERSION = 1
"""Schema version. A ledger of another version is refused, not guessed at."""

KEEP = 1000
"""Number of newest rows that stay in the file for inspection. Open and foreign rows always stay. Chosen: it bounds the file."""

_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG}
"""Primary result codes that mean damage in the file; SQLITE_ERROR is a schema that lost its table or a column."""

_SCHEMA = (
    "create table meta (version integer not null, crc integer not null)",
    """create table entry (
    id integer primary key, boot_id text not null, decision text not null, target text not null, wall integer not null,
    control text not null, pid integer, start_ticks integer, tid integer, tid_start_ticks integer, key text not null,
    session integer, process_group integer, since integer not null, original text not null, old text not null, new text not null,
    status text not null, crc integer not null
)""",
)
_COLUMNS = (
    "id, boot_id, decision, target, wall, control, pid, start_ticks, tid, tid_start_ticks, key, "
    "session, process_group, since, original, old, new, status, crc"
)


class LedgerError(Exception):
    """The ledger cannot be written or used; the text has the cause and what to do."""


class StateBusyError(LedgerError):
    """Another process works with this state directory."""


class Note(NamedTuple):
    """A message for the caller that opened the ledger."""

    text: str
    lost: bool  # whether changes may remain that can no longer be undone


class StateLock:
    """The right to use a state directory, held until `release` or the end of the process, however it ends.

    Raises StateBusyError naming the other process, and LedgerError if the file cannot be made, or if somebody else could have
    written to the directory or put the file there: nothing is written then.
    """

    def __init__(self, state_dir: Path) -> None:
        try:
            self._fd = private_descriptor(private_directory(state_dir) / "lock")
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
            holder = os.pread(self._fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise StateBusyError(
                f"{state_dir} is in use by the nicety process with pid {holder}; stop it, or give another --state-dir"
            ) from None
        try:  # the pid is for people: the lock holds even if the disk is full
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
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


class Ledger:
    """The ledger in `path`. The caller must lock its directory (StateLock): there is one writer.

    A damaged file is moved to `.bad.N` and what can be read of it is taken over; `notes` says so. If the file cannot be written,
    `intend` raises, and undo has what could be read. If it cannot be read either, `intend` raises until it can be, and `notes` says
    that its content is unknown. Raises LedgerError for a ledger of another version, for another program's database, and for a file
    that somebody else could have put there or could change; such a file is left as it is.
    """

    def __init__(self, path: Path, boot_id: str) -> None:
        self.notes: tuple[Note, ...] = ()
        self.trouble = ""  # why the last write failed, "" if it did not
        self._path = path
        self._boot_id = boot_id
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._subjects: dict[Subject, dict[Knob, Chain]] = {}
        self._entries: dict[int, Entry] = {}  # the open ones
        self._foreign: set[Knob] = set()
        self._unread = False  # not all of the file could be read yet
        self._dirty: dict[int, Entry | None] = {}  # to be written; None: to be deleted
        self._next = 1
        self._pruned = 0
        try:
            self._load(self._open())
        except (_DamageError, UnicodeDecodeError):
            self._quarantine()
        except sqlite3.Error as error:
            if _is_damage(error):
                self._quarantine()
            else:
                self._read_only(error)

    # --- what is asked of it ---------------------------------------------------------------------------------------------------

    def intend(self, entries: Sequence[Entry]) -> tuple[int, ...]:
        """Record these changes before they are made; returns their ids, in order. On return they are on disk.

        Raises LedgerError if they are not: then nothing may be changed, and nothing is recorded.
        """
        self._read_late()
        named = [msgspec.structs.replace(entry, id=self._next + index) for index, entry in enumerate(entries)]
        for entry in named:
            self._dirty[entry.id] = entry
        try:
            self._flush()
        except sqlite3.Error as error:
            for entry in named:
                del self._dirty[entry.id]
            raise LedgerError(self._explain(error)) from None
        self._next += len(named)
        for entry in named:
            self._remember(entry)
        return tuple(entry.id for entry in named)

    def settle(self, statuses: Mapping[int, EntryStatus]) -> None:
        """Record what became of entries, by id, in one write. Never raises: a failed write is repeated with the next one, and
        undo does not depend on it, because it compares."""
        for number, status in statuses.items():
            entry = self._entries.get(number)
            if entry is None:
                continue
            entry = msgspec.structs.replace(entry, status=status)
            self._dirty[number] = entry
            self._forget(number)
            if status in OPEN:
                self._remember(entry)
            elif status is EntryStatus.FOREIGN:
                self._foreign.add(entry.knob)
            if status is EntryStatus.DONE:
                self._merge(entry)
        try:
            self._flush()
        except sqlite3.Error as error:
            self._explain(error)

    def outstanding(self) -> tuple[Entry, ...]:
        """All open entries, oldest first."""
        return tuple(self._entries[number] for number in sorted(self._entries))

    def subjects(self) -> tuple[Subject, ...]:
        """Subjects that have open entries; the one with the newest entry first."""
        newest = {subject: max(chain[-1].id for chain in chains.values()) for subject, chains in self._subjects.items()}
        return tuple(sorted(newest, key=newest.__getitem__, reverse=True))

    def chains(self, subject: Subject) -> Mapping[Knob, Chain]:
        """The open entries of a subject, by knob."""
        return dict(self._subjects.get(subject, {}))

    def chain(self, knob: Knob) -> Chain | None:
        """The open entries of a knob; None if it is not changed."""
        return self._subjects.get(subject_of(knob), {}).get(knob)

    def original(self, knob: Knob) -> Value | None:
        """The value before our first change; None if it is not changed."""
        chain = self.chain(knob)
        return None if chain is None else original(chain)

    def is_foreign(self, knob: Knob) -> bool:
        """Whether somebody else changed this knob after us, in this boot."""
        return knob in self._foreign

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # --- memory ----------------------------------------------------------------------------------------------------------------

    def _remember(self, entry: Entry) -> None:
        chains = self._subjects.setdefault(entry.subject, {})
        here = entry.knob
        rest = tuple(other for other in chains.get(here, ()) if other.id != entry.id)
        chains[here] = tuple(sorted((*rest, entry), key=lambda each: each.id))
        self._entries[entry.id] = entry
        self._foreign.discard(here)

    def _forget(self, number: int) -> None:
        entry = self._entries.pop(number)
        chains = self._subjects[entry.subject]
        here = entry.knob
        rest = tuple(other for other in chains[here] if other.id != number)
        if rest:
            chains[here] = rest
            return
        del chains[here]
        if not chains:
            del self._subjects[entry.subject]

    def _merge(self, done: Entry) -> None:
        """Drop earlier changes that `done` covers, so that a value that oscillates for days keeps a short chain.

        For threads one entry per value stays, with the earliest `since`: children may have inherited any of them.
        """
        chain = self._subjects[done.subject][done.knob]
        for entry in chain:
            covered = entry.new == done.new or not isinstance(done.knob.on, ThreadPlace)
            if entry.id < done.id and entry.status is EntryStatus.DONE and covered:
                self._forget(entry.id)
                self._dirty[entry.id] = None
                done = msgspec.structs.replace(done, since=min(done.since, entry.since))
        self._remember(done)
        self._dirty[done.id] = done

    # --- the file --------------------------------------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        """A connection to a ledger of our version, made if there is none. Write-ahead log, synced at each commit: one disk
        flush, and no reader of the file can delay a write. Raises sqlite3.Error, _DamageError, LedgerError."""
        try:
            private_file(self._path)
            self._inode = self._path.stat().st_ino
        except UnsafeError as error:
            raise LedgerError(f"the ledger is not believed: {error}") from None
        except (StoreError, OSError) as error:
            raise sqlite3.OperationalError(str(error)) from None
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=2.0)
        try:
            connection.text_factory = _text
            connection.execute("pragma trusted_schema = off")
            _check_ours(connection, self._path)  # before anything is changed in it
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma synchronous = full")
            connection.execute("pragma wal_autocheckpoint = 200")
            if connection.execute("select count(*) from sqlite_master").fetchone() == (0,):
                with _transaction(connection):
                    for statement in _SCHEMA:
                        connection.execute(statement)
                    connection.execute("insert into meta values (?, ?)", (VERSION, _crc((VERSION,))))
            _check(connection)
        except UnicodeDecodeError:  # sqlite3 quotes a damaged schema in its message, and Python cannot read the quote
            connection.close()
            raise _DamageError from None
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _load(self, connection: sqlite3.Connection) -> None:
        """Load the rows of the file. Raises _DamageError before anything is loaded if one row is wrong."""
        entries = []
        for (number,) in connection.execute("select id from entry order by id").fetchall():
            entry = _row(connection, number)
            if entry is None:
                raise _DamageError
            entries.append(entry)
        self._adopt(entry for entry in entries if entry.id not in self._dirty)

    def _read_late(self) -> None:
        """Load what could not be read when the ledger was opened: new rows must not take its numbers. Raises LedgerError."""
        if not self._unread:
            return
        try:
            self._load(self._open())
        except (sqlite3.Error, _DamageError, UnicodeDecodeError) as error:
            self.close()
            raise LedgerError(self._explain(error)) from None
        self._unread = False

    def _adopt(self, entries: Iterable[Entry]) -> None:
        rebooted = 0
        for entry in entries:
            self._next = max(self._next, entry.id + 1)
            if entry.boot_id != self._boot_id:
                if entry.status in OPEN or entry.status is EntryStatus.FOREIGN:
                    rebooted += entry.status in OPEN
                    self._dirty[entry.id] = msgspec.structs.replace(entry, status=EntryStatus.GONE)
            elif entry.status in OPEN:
                self._remember(entry)
            elif entry.status is EntryStatus.FOREIGN:
                self._foreign.add(entry.knob)
        if rebooted:
            self.notes += (Note(f"the machine was rebooted since: {rebooted} changes are gone with it, nothing to undo", False),)
        try:
            self._flush()
        except sqlite3.Error as error:
            self._explain(error)

    def _quarantine(self) -> None:
        """Move the damaged file aside and continue with a new one that has every row whose checksum holds."""
        self.close()
        number = 1
        while (bad := self._path.with_name(f"{self._path.name}.bad.{number}")).exists():
            number += 1
        try:
            self._path.rename(bad)
            for suffix in ("-wal", "-shm"):
                companion = self._path.with_name(self._path.name + suffix)
                if companion.exists():
                    companion.rename(bad.with_name(bad.name + suffix))
        except OSError as error:
            self._adopt(_salvage(self._path)[0])
            self.trouble = f"{self._path} is damaged and cannot be moved aside ({error.strerror}); move it away by hand"
            self.notes += (Note(self.trouble, True),)
            return
        rows, _ = _salvage(bad)
        self._dirty.update({row.id: row for row in rows if row.boot_id == self._boot_id})
        self._adopt(rows)
        text = f"the ledger was damaged and is kept as {bad}; {len(self._entries)} open changes could be read of it"
        self.notes += (Note(f"{text}; others, if there were any, cannot be undone any more", True),)

    def _read_only(self, error: sqlite3.Error) -> None:
        """The file cannot be opened for writing: load what can be read, so that undo works; changes are refused from now on."""
        self._explain(error)
        rows, whole = _salvage(self._path)
        self._unread = not whole
        if whole:
            self.notes += (Note(self.trouble, False),)
        else:
            text = f"not all of the ledger {self._path} can be read ({error}): what is still changed is not known; {_advice(error)}"
            self.notes += (Note(f"{text}, then undo again", True),)
        self._adopt(rows)

    def _flush(self) -> None:
        """Write what differs from the file in one durable transaction. Raises sqlite3.Error; then everything is as before."""
        if not self._dirty:
            return
        connection = self._writable()
        cut = self._next - KEEP
        prune = cut > self._pruned + KEEP // 4
        try:
            with _transaction(connection):
                for number, entry in sorted(self._dirty.items()):
                    if entry is None:
                        connection.execute("delete from entry where id = ?", (number,))
                    else:
                        connection.execute(
                            f"insert or replace into entry ({_COLUMNS}) values ({', '.join('?' * 19)})",  # noqa: S608 - constants
                            _columns(entry),
                        )
                if prune:
                    connection.execute("delete from entry where id < ? and status not in ('intent', 'done', 'foreign')", (cut,))
        except sqlite3.Error:
            self.close()  # reopened next time: after an i/o error a connection cannot be trusted
            raise
        self._dirty.clear()
        self.trouble = ""
        if prune:
            self._pruned = cut

    def _writable(self) -> sqlite3.Connection:
        """A connection to the file that is now at `path`. After a failure, or if somebody removed the file, the next flush writes
        all open entries again."""
        if self._connection is not None:
            try:
                if self._path.stat().st_ino == self._inode:
                    return self._connection
            except OSError:
                pass
            self.close()
        try:
            connection = self._open()
        except (_DamageError, LedgerError) as error:
            raise sqlite3.OperationalError(str(error)) from None
        self._dirty = {**self._entries, **self._dirty}
        return connection

    def _explain(self, error: Exception) -> str:
        self.trouble = f"the ledger {self._path} cannot be written ({error}): nothing is changed without it; {_advice(error)}"
        return self.trouble


def _advice(error: Exception) -> str:
    """What to do about an error of SQLite."""
    code = (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
    return {
        sqlite3.SQLITE_FULL: "free some space",
        sqlite3.SQLITE_READONLY: "make it writable",
        sqlite3.SQLITE_CANTOPEN: "check that its directory exists and is writable, and that descriptors are left",
        sqlite3.SQLITE_BUSY: "somebody holds it open for writing; close that program",
        sqlite3.SQLITE_IOERR: "check the disk: full, over quota or failing",
    }.get(code, "check that it is writable and not damaged")


class _DamageError(Exception):
    """The file is not what we wrote."""

    def __str__(self) -> str:
        return "the file is damaged"


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("begin immediate")
    try:
        yield
        connection.execute("commit")
    except BaseException:
        if connection.in_transaction:
            connection.execute("rollback")
        raise


def left_behind(state_dir: Path) -> bool:
    """Whether there is a ledger in this directory. Makes and opens nothing.

    Raises LedgerError if that cannot be determined, or if somebody else could have written to the directory: its content is not
    believed.
    """
    try:
        return is_there(state_dir) and is_there(private_directory(state_dir) / "ledger.db")
    except StoreError as error:
        raise LedgerError(str(error)) from None


def _check_ours(connection: sqlite3.Connection, path: Path) -> None:
    """Raise LedgerError for a sound database that has tables but none of ours: it is another program's."""
    tables = {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
    if tables and not tables & {"meta", "entry"} and connection.execute("pragma quick_check(1)").fetchone() == ("ok",):
        raise LedgerError(f"{path} is a database of another program; give nicety's own --state-dir, or move the file away")


def _check(connection: sqlite3.Connection) -> None:
    if connection.execute("pragma quick_check(1)").fetchone() != ("ok",):
        raise _DamageError
    rows = connection.execute("select version, crc from meta").fetchall()
    if len(rows) != 1 or rows[0][1] != _crc(rows[0][:1]):
        raise _DamageError
    if rows[0][0] != VERSION:
        raise LedgerError(
            f"the ledger was written by another nicety (its version {rows[0][0]}, ours {VERSION}); "
            "run `nicety undo` of that one first, or move the file away to give its changes up"
        )


def _columns(entry: Entry) -> tuple[object, ...]:
    pid, start_ticks = entry.process or (None, None)
    thread, key = _thread_and_key(entry.knob.on)
    tid, tid_start_ticks = thread or (None, None)
    values = (msgspec.json.encode(value).decode() for value in (entry.original, entry.old, entry.new))
    row = (
        *(entry.id, entry.boot_id, entry.decision, entry.target, entry.wall, entry.control.value, pid, start_ticks),
        *(tid, tid_start_ticks, key, entry.session, entry.group, entry.since, *values, entry.status.value),
    )
    return (*row, _crc(row))


def _crc(row: Sequence[object]) -> int:
    return zlib.crc32(msgspec.json.encode(row))


def _row(connection: sqlite3.Connection, number: int) -> Entry | None:
    """The entry with this id, None if its checksum does not hold or no such change exists. Raises sqlite3.Error if the file has a
    hole."""
    row = connection.execute(f"select {_COLUMNS} from entry where id = ?", (number,)).fetchone()  # noqa: S608 - constants
    if row is None or row[-1] != _crc(row[:-1]):
        return None
    (identity, boot_id, decision, target, wall, control, pid, start_ticks, tid, tid_start_ticks, key) = row[:11]
    session, group, since, first, old, new, status = row[11:18]
    process = None if pid is None else ProcId(pid, start_ticks)
    knob = _knob(Control(control), process, None if tid is None else ThreadId(tid, tid_start_ticks), key)
    if knob is None:
        return None
    return Entry(
        id=identity,
        boot_id=boot_id,
        decision=decision,
        target=target,
        wall=wall,
        knob=knob,
        session=session,
        group=group,
        since=since,
        original=_value(first),
        old=_value(old),
        new=_value(new),
        status=EntryStatus(status),
    )


def _thread_and_key(on: KnobPlace) -> tuple[ThreadId | None, str]:
    """What the columns of a thread and of a key have for this place."""
    match on:
        case ThreadPlace(thread=thread):
            return thread, ""
        case CgroupPlace(path=key) | AutogroupPlace(name=key) | PoolPlace(name=key) | FencePlace(key=key):
            return None, key


def _knob(control: Control, process: ProcId | None, thread: ThreadId | None, key: str) -> Knob | None:
    """The knob that these columns are of; None: there is none like that."""
    kind = PLACES[control].knob
    if kind is CgroupPlace:
        return Knob(control, CgroupPlace(key))
    if process is None:
        return None
    if kind is ThreadPlace:
        return None if thread is None or thread.tid <= 0 else Knob(control, ThreadPlace(process, thread))
    if kind is AutogroupPlace:
        return Knob(control, AutogroupPlace(key, process))
    return Knob(control, FencePlace(key, process) if kind is FencePlace else PoolPlace(key, process))


def _value(text: str) -> Value:
    value: Value = msgspec.json.decode(text, type=Value)
    return value


def _salvage(path: Path) -> tuple[list[Entry], bool]:
    """Every entry whose checksum holds in a file that may be damaged or unwritable; and whether that is all it had, as far as can
    be determined. Changes nothing."""
    entries: list[Entry] = []
    whole = False
    if not _has(path):
        return entries, True
    log = path.with_name(f"{path.name}-wal")  # an immutable reader ignores it
    # the write-ahead log belongs to it; if that cannot be used, the file alone
    for options in ("mode=ro", "mode=ro&immutable=1"):
        try:
            connection = sqlite3.connect(f"{path.absolute().as_uri()}?{options}", uri=True, isolation_level=None)
        except sqlite3.Error:
            continue
        try:
            connection.text_factory = _text
            numbers = connection.execute("select id from entry order by id").fetchall()
            for (number,) in numbers:
                try:
                    entry = _row(connection, number)
                except (sqlite3.Error, UnicodeDecodeError):
                    continue
                if entry is not None:
                    entries.append(entry)
            whole = len(entries) == len(numbers) and ("immutable" not in options or not _has(log))
        except (sqlite3.Error, UnicodeDecodeError):
            pass
        finally:
            connection.close()
        if entries or whole:
            break
    return entries, whole


def _has(path: Path) -> bool:
    """Whether this file may have content."""
    try:
        return path.stat().st_size > 0
    except OSError as error:
        return not is_gone(error)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _is_damage(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, sqlite3.DatabaseError) and code is not None and code & 0xFF in _CORRUPT
