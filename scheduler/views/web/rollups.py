"""Keeps buckets of figures in a file of the user's cache, so that a page need not read days of ticks again. Can be deleted at any
time: it is made anew of what the stores still have.

One SQLite file:

    names    id, kind, name of a target
    buckets  width, start, busiest, worst, data: zlib of ids (u32) and figures (f32 [KEPT, targets])
    pieces   start: read to the end
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ...explain.history import KEPT, PIECE, WIDTHS, Bucket, Target
from ...store.database import ERRORS

APPLICATION = 0x6E637775  # "ncwu" in PRAGMA application_id
SCHEMA = 1

KEPT_SECONDS = {10: 26 * 3600, 60: 8 * 86400, 600: 8 * 86400}
"""How long buckets of each width are kept (chosen: a day and a week, and some more to scroll)."""

_TABLES = """
CREATE TABLE names(id INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (kind, name));
CREATE TABLE buckets(width INTEGER NOT NULL, start INTEGER NOT NULL, busiest REAL NOT NULL, worst REAL NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (width, start)) WITHOUT ROWID;
CREATE TABLE pieces(start INTEGER PRIMARY KEY);
"""


class Rollups:
    """Buckets of whole pieces. Trouble with the disk loses them, never more: they are then kept in a file that goes with us."""

    def __init__(self, path: Path | None) -> None:
        """`path`: of the file, None: nowhere can one be kept. Its directory must be private."""
        self.trouble = ""
        """Why nothing is kept for the next start; "" if it is."""
        self._names: dict[Target, int] = {}
        self._targets: dict[int, Target] = {}
        try:
            self._db = self._opened("" if path is None else str(path))
        except (*ERRORS, OSError) as error:
            self.trouble = f"history is not kept for the next start: {path}: {error}"
            self._db = self._opened("")  # SQLite's name of a temporary file
        for id_, kind, name in self._db.execute("SELECT id, kind, name FROM names"):
            self._known(id_, (kind, name))

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def has(self, piece: int) -> bool:
        """Whether a piece was read to its end."""
        return self._db.execute("SELECT 1 FROM pieces WHERE start = ?", (piece,)).fetchone() is not None

    def add(self, piece: int, buckets: Iterable[Bucket], now: float) -> None:
        """Keep the buckets of a whole piece, and forget what is too old at `now` (seconds since 1970)."""
        try:
            self._db.execute("BEGIN")
            for bucket in buckets:
                if bucket.start >= now - KEPT_SECONDS[bucket.width]:
                    self._put(bucket)
            self._db.execute("INSERT OR REPLACE INTO pieces VALUES (?)", (piece,))
            for width in WIDTHS:
                self._db.execute("DELETE FROM buckets WHERE width = ? AND start < ?", (width, int(now - KEPT_SECONDS[width])))
            self._db.execute("DELETE FROM pieces WHERE start < ?", (int(now - KEPT_SECONDS[PIECE]) - PIECE,))
            self._db.execute("COMMIT")
        except ERRORS as error:
            self.trouble = f"history is not kept for the next start: {error}"
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def between(self, width: int, since: float, until: float) -> Iterator[Bucket]:
        """Kept buckets with since <= start < until, in order. A damaged one is left out."""
        rows = self._db.execute(
            "SELECT start, busiest, worst, data FROM buckets WHERE width = ? AND start >= ? AND start < ? ORDER BY start",
            (width, since, until),
        )
        for start, busiest, worst, data in rows:
            try:
                raw = zlib.decompress(data)
                count = len(raw) // (4 + 4 * KEPT)
                ids = np.frombuffer(raw, dtype="<u4", count=count)
                figures = np.frombuffer(raw, dtype="<f4", offset=4 * count).reshape(KEPT, count)
                targets = tuple(self._targets[id_] for id_ in ids.tolist())
            except (zlib.error, ValueError, KeyError):
                continue
            yield Bucket(width, float(start), busiest, worst, targets, figures)

    def _put(self, bucket: Bucket) -> None:
        ids = np.array([self._id(target) for target in bucket.targets], dtype="<u4")
        data = zlib.compress(ids.tobytes() + np.ascontiguousarray(bucket.figures, dtype="<f4").tobytes(), 1)
        row = (bucket.width, int(bucket.start), bucket.busiest, bucket.worst, data)
        self._db.execute("INSERT OR REPLACE INTO buckets VALUES (?, ?, ?, ?, ?)", row)

    def _id(self, target: Target) -> int:
        id_ = self._names.get(target)
        if id_ is None:
            id_ = len(self._names) + 1
            self._db.execute("INSERT OR REPLACE INTO names VALUES (?, ?, ?)", (id_, *target))
            self._known(id_, target)
        return id_

    def _known(self, id_: int, target: Target) -> None:
        self._names[target] = id_
        self._targets[id_] = target

    @staticmethod
    def _opened(path: str) -> sqlite3.Connection:
        """The file, made anew if it is of another schema or damaged."""
        for attempt in (0, 1):
            db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1.0)
            try:
                db.execute("PRAGMA cache_size=-2048")
                db.execute("PRAGMA synchronous=OFF")  # what a crash of the machine loses is read again
                (application,) = db.execute("PRAGMA application_id").fetchone()
                (schema,) = db.execute("PRAGMA user_version").fetchone()
                (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
                if (application, schema) == (APPLICATION, SCHEMA):
                    return db
                if not tables:
                    db.executescript(
                        f"PRAGMA application_id={APPLICATION}; PRAGMA user_version={SCHEMA}; PRAGMA journal_mode=WAL; {_TABLES}"
                    )
                    return db
            except ERRORS:
                if attempt:
                    db.close()
                    raise
            db.close()
            for suffix in ("-wal", "-shm", ""):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
        raise sqlite3.OperationalError("another program keeps making it")
