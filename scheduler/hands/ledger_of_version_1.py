"""Reads the ledger of version 1, a database of SQLite, so that an upgrade can undo what the version before had changed.

Knows that file only. Only `ledger.py` uses it, and only if such a file is there: SQLite takes 2 MiB.
"""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import zlib
from contextlib import closing

from .changes import OPEN, Entry, EntryStatus
from .lines import entry_of
from .safe_files import check, is_there

_COLUMNS = (
    "id, boot_id, decision, target, wall, control, pid, start_ticks, tid, tid_start_ticks, key, "
    "session, process_group, since, original, old, new, status, crc"
)
_COMPANIONS = ("-wal", "-shm", "-journal", "")


def read(path: str) -> tuple[list[Entry], bool]:
    """The open and foreign changes, oldest first; and whether some could not be read. Raises StoreError if somebody else could have
    written the file."""
    for suffix in _COMPANIONS:
        if is_there(f"{path}{suffix}"):
            check(f"{path}{suffix}", stat.S_ISREG, "a regular file")
    entries, lost = list[Entry](), False
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            numbers = [number for (number,) in connection.execute("select id from entry order by id")]
            for number in numbers:
                entry = _entry(connection, number)
                lost = lost or entry is None
                if entry is not None and (entry.status in OPEN or entry.status is EntryStatus.FOREIGN):
                    entries.append(entry)
    except (sqlite3.Error, UnicodeDecodeError):
        lost = True
    return entries, lost


def set_aside(path: str) -> None:
    """Rename the database, so that it is not read again; nothing is lost. Raises no error: it is then read again."""
    try:
        for suffix in _COMPANIONS:
            if os.path.lexists(f"{path}{suffix}"):
                os.rename(f"{path}{suffix}", f"{path}.1{suffix}")
    except OSError:
        pass


def _entry(connection: sqlite3.Connection, number: int) -> Entry | None:
    """The entry with this id; None if its checksum does not hold, or no such change exists."""
    try:
        row = connection.execute(f"select {_COLUMNS} from entry where id = ?", (number,)).fetchone()  # noqa: S608 - constants
        *fields, crc = row
        if crc != zlib.crc32(json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()):
            return None
        *rest, first, old, new, status = fields
        return entry_of([*rest, *(json.loads(text) for text in (first, old, new)), status])
    except (sqlite3.Error, ValueError, TypeError, RecursionError):
        return None
