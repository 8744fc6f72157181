"""SQLite code that the stores share: opening, separating disk errors from bugs, reading past damage, releasing pages.

Knows nothing about what the rows mean. A store is one file in write-ahead mode with one writer and any number of readers: a commit
is a write without fsync, so after `kill -9` of the writer everything committed is there (after a power cut, all up to the last
checkpoint). Ticks wait in memory for a common transaction (`Together`): a commit writes every page that it touches, so twenty ticks
in one cost about as much as one. A file that was closed in order goes back to a plain rollback journal: it is then one file that
can be read from a read-only place, where the write-ahead log's shared memory could not be made.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from ..hands.safe_files import StoreError, UnsafeError
from .files import for_root, private_file

PAGE = 4096
"""Bytes of a page: SQLite's default (https://www.sqlite.org/pgszchng2016.html)."""

BUSY_SECONDS = 0.25
"""How long a writer waits for another one; then the tick is dropped and counted. Chosen: a quarter of a tick at 1 Hz."""

HOLD_NS = 20_000_000_000
"""ns for which ticks wait for a common transaction: what a crash can lose. Chosen: each transaction writes a dozen pages besides
those that its ticks fill, of the header, of trees, and half full ones. At 1 Hz and 500 processes that is a quarter of all writes in
20 s, and a half in 10 s."""

_DISK = {
    sqlite3.SQLITE_FULL: "the disk is full: free space, recording goes on by itself",
    sqlite3.SQLITE_IOERR: "the disk failed to read or write: check the disk (dmesg), and that it is not full",
    sqlite3.SQLITE_READONLY: "the file or its disk is read-only: make it writable, recording goes on by itself",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened: check the directory, its permissions and that the disk is not full",
    sqlite3.SQLITE_PERM: "no permission: check the owner and mode of the state directory",
    sqlite3.SQLITE_AUTH: "no permission: check the owner and mode of the state directory",
    sqlite3.SQLITE_BUSY: "another process writes to it: stop that one, or give each its own state directory",
    sqlite3.SQLITE_LOCKED: "another process writes to it: stop that one, or give each its own state directory",
    sqlite3.SQLITE_PROTOCOL: "locking does not work there: use a local file system",
    sqlite3.SQLITE_NOLFS: "the file is too large for its file system: use another disk",
    sqlite3.SQLITE_NOMEM: "out of memory",
}
ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What any use of a file may raise: messages about a damaged file quote it, and Python fails to decode the quotation."""

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}


class WrongFormat(Exception):  # noqa: N818 - it is a fact about a file, and each caller has its own next step
    """The file is a database, but not one of this program and schema version; the message says what it is."""

    def __init__(self, message: str, schema: int | None = None) -> None:
        self.schema = schema
        """The version it has, None if it is not ours at all."""
        super().__init__(message)


UNREADABLE = (*ERRORS, WrongFormat, UnsafeError)
"""What `open_reader` may raise."""


class Damaged(NamedTuple):
    """A stretch of a table that cannot be read: rows with an id above `after` (and below the next row that comes)."""

    after: int
    reason: str


def trouble(error: Exception) -> str:
    """What went wrong on the disk, for people. Any other error is a bug, and is raised again."""
    if is_damage(error):
        return f"the file is damaged ({error})"
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and code & 0xFF in _DISK:
            return _DISK[code & 0xFF]
        raise error
    if isinstance(error, OSError | StoreError):
        return str(error)
    raise error


def is_damage(error: Exception) -> bool:
    """Whether the file's content is at fault, so another try with the same file cannot help."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, UnicodeDecodeError) or (code is not None and code & 0xFF in _DAMAGED)


def open_writer(path: Path, *, application: int, schema: int, ddl: str, wal_pages: int) -> sqlite3.Connection:
    """A connection that writes `path`; a new or empty file gets the tables `ddl`.

    `wal_pages`: the write-ahead log is copied into the file at this size. Raises StoreError (unsafe file), WrongFormat, and
    ERRORS, see `trouble`.
    """
    private_file(path)
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        known = _format(connection, application, schema)  # before anything is changed in somebody else's file
        connection.execute(f"PRAGMA page_size={PAGE}")
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # only takes effect in a new file, before its first table
        connection.execute("PRAGMA journal_mode=WAL").fetchone()
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint={wal_pages}")
        connection.execute(f"PRAGMA journal_size_limit={wal_pages * PAGE}")
        connection.execute("PRAGMA cache_size=-1024")
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA cell_size_check=ON")
        if not known:
            connection.executescript(
                f"BEGIN IMMEDIATE; PRAGMA application_id={application}; PRAGMA user_version={schema}; {ddl} COMMIT;"
            )
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(path: Path, *, application: int, schema: int) -> sqlite3.Connection | None:
    """A connection that only reads `path`, whether it is being written or not; None for a file without content.

    Raises UNREADABLE: UnsafeError if root would read what somebody else could have written.
    """
    for_root(path)
    uri = f"{path.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=1.0, isolation_level=None)
    try:
        try:
            known = _format(connection, application, schema)
        except sqlite3.OperationalError as error:
            # In write-ahead mode but without its log: the machine crashed, and the file is now in a place where nothing can be
            # written, so nobody else writes either, and it may be read as it is.
            if Path(f"{path}-wal").exists():
                raise sqlite3.OperationalError(
                    f"{error}: what a crash left needs a directory that can be written; copy all of it to one"
                ) from None
            connection.close()
            connection = sqlite3.connect(f"{uri}&immutable=1", uri=True, isolation_level=None)
            known = _format(connection, application, schema)
        for pragma in ("query_only=ON", "trusted_schema=OFF", "cell_size_check=ON", "cache_size=-1024"):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    if not known:
        connection.close()
        return None
    return connection


def _format(connection: sqlite3.Connection, application: int, schema: int) -> bool:
    """Whether it is ours; False for a file without tables."""
    try:
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except MemoryError:  # SQLite's answer to a schema that is damaged
        damage = sqlite3.DatabaseError("its schema is malformed")
        damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise damage from None
    (found_application,) = connection.execute("PRAGMA application_id").fetchone()
    (found_schema,) = connection.execute("PRAGMA user_version").fetchone()
    if (found_application, found_schema) == (application, schema):
        return True
    if found_application == application:
        raise WrongFormat(f"has schema version {found_schema}, and this nicety reads version {schema}", found_schema)
    if found_application or tables:
        raise WrongFormat("is a database of another program")
    return False


Statement = tuple[str, Sequence[tuple[Any, ...]]]
"""SQL, and the rows that it is run with one after another."""


class Together:
    """Ticks that wait to be written in one transaction: no longer than the writer has lasted, and than `HOLD_NS`."""

    def __init__(self, most_bytes: int) -> None:
        """`most_bytes`: as many do not wait."""
        self._most = most_bytes
        self._statements: list[Statement] = []
        self._bytes = 0
        self._began: int | None = None  # monotonic ns of the first tick
        self._first: int | None = None  # of the first that waits
        self._last: int | None = None  # of the newest tick, waiting or written; None: the next one does not wait
        self.ticks = 0
        """How many wait."""
        self.due = False
        """They must not wait longer."""

    def add(self, statements: Iterable[Statement], at: int, size: int) -> None:
        """Add a tick of the monotonic time `at` (ns) with `size` bytes."""
        self._statements += statements
        self._bytes += size
        self.ticks += 1
        first = at if self._first is None else self._first
        began = self._began = at if self._began is None else min(self._began, at)
        step = HOLD_NS if self._last is None else at - self._last
        self.due |= step < 0 or at + step - first >= min(HOLD_NS, first - began) or self._bytes >= self._most
        self._first, self._last = first, at

    def write(self, connection: sqlite3.Connection) -> None:
        """Commit what waits. Raises ERRORS; then it still waits, and nothing of it is written."""
        if not self.ticks:
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            for sql, rows in self._statements:
                connection.executemany(sql, rows)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self._clear()

    def forget(self) -> int:
        """Give up what waits; returns how many ticks that are. The next tick does not wait."""
        lost = self.ticks
        self._clear()
        self._last = None
        return lost

    def _clear(self) -> None:
        self._statements = []
        self._bytes = self.ticks = 0
        self._first = None
        self.due = False


def seal(connection: sqlite3.Connection) -> str:
    """Close a writer's connection and leave a single plain file if no reader holds it; returns "" or the disk error."""
    said = ""
    try:
        with closing(connection):
            connection.execute("PRAGMA journal_mode=DELETE").fetchone()
    except ERRORS as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            said = trouble(error)
    return said


def discard(connection: sqlite3.Connection) -> None:
    """Close a connection after an error; another error adds nothing."""
    try:
        connection.close()
    except ERRORS:
        pass


def used_bytes(connection: sqlite3.Connection) -> int:
    """Bytes of the file that are in use: new rows first go where old ones were dropped."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    return int(pages - free) * PAGE


def shrink(connection: sqlite3.Connection, limit: int, at_most: int = 256) -> None:
    """Release free pages to the disk while the file is larger than `limit` bytes, `at_most` pages per call."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    excess = min(int(pages) - limit // PAGE, int(free), at_most)
    if excess > 0:
        # `execute` stops after the pragma's first step, which is one page; a script is run to its end
        connection.executescript(f"PRAGMA incremental_vacuum({excess})")


def walk(
    connection: sqlite3.Connection,
    table: str,
    columns: str,
    *,
    key: str = "id",
    after: int = -1,
    until: int = 2**63 - 1,
    chunk: int = 256,
) -> Iterator[tuple[Any, ...] | Damaged]:
    """All rows with after < key <= until in rising order of the integer primary key, which comes first in each row.

    Continues after what cannot be read, with a `Damaged` in its place. Rows are fetched in chunks, so that no read
    transaction stays open while the caller works: the writer's log could not be emptied meanwhile. Names are the caller's own.
    """
    query = f"SELECT {key}, {columns} FROM {table} WHERE {key} >= ? AND {key} <= ? ORDER BY {key} LIMIT ?"  # noqa: S608

    def fetch(first: int, count: int) -> tuple[list[tuple[Any, ...]], str]:
        """Rows from `first` on as far as they can be read, and why they end early."""
        rows: list[tuple[Any, ...]] = []
        try:
            for row in connection.execute(query, (first, until, count)):
                if not isinstance(row[0], int) or row[0] < first or (rows and row[0] <= rows[-1][0]):
                    return rows, "rows are out of order"
                rows.append(row)
        except ERRORS as error:
            return rows, str(error)
        except (OverflowError, MemoryError) as error:
            return rows, f"a row cannot be ({type(error).__name__})"
        return rows, ""

    first = after + 1
    count = chunk
    while first <= until:
        rows, reason = fetch(first, count)
        yield from rows
        if rows:
            first = rows[-1][0] + 1
        if not reason:
            if len(rows) < count:
                return
        elif count > 1:
            count = 1  # sqlite3 steps ahead: a row before one that fails is returned only if it is requested alone
        else:
            yield Damaged(first - 1, reason)
            found = _behind(lambda key: not fetch(key, 1)[1], first, until)
            if found is None:
                return
            first, count = found, chunk


def _behind(readable: Callable[[int], bool], first: int, until: int) -> int | None:
    """A key above `first` from which rows can be read again, about the lowest one; None if there is none. Doubles, then bisects."""
    step = 1
    while not readable(first + step):
        step *= 2
        if first + step > until:
            return None
    bad, good = first + step // 2, first + step
    while good - bad > 1:
        middle = (bad + good) // 2
        if readable(middle):
            good = middle
        else:
            bad = middle
    return good
