"""The trace store: every snapshot, on disk within a byte budget, read back exactly. Must not know what snapshots are used for.

One file `traces/YYYY-MM-DD.db` per day (UTC, by the tick's wall clock) in the state directory, SQLite, one row per tick:

    ticks     id         session number << 32 | seq: the order of everything in a store, whatever the wall clock did
              at, wall   monotonic ns, wall ns
              rows       processes in the table
              crc        CRC32 of id, at, wall, rows, recording and data; continues the crc of the tick before unless keyframe
              recording  JSON of the session (id, boot_id, interval) in a keyframe, else null
              data       `codec.encode`: the changes since the tick before, or everything in a keyframe
    sessions  number, session, boot_id, interval; the seqs from first to last must be here (last is null while it is written)

Keyframes come at the start of a session and of a file, after every tick that could not be written, and every 600 ticks, so one
damaged row costs no more than the ticks up to the next keyframe. What exists only in the write-ahead log of a killed writer is
guarded by SQLite alone: damage there ends the recording at that place without a report.

A file of another schema, or a damaged one, is never written to: recording continues in `YYYY-MM-DD.1.db` and so on.
"""

from __future__ import annotations

import heapq
import os
import re
import sqlite3
import struct
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import msgspec

from ...models.records import PoolSample, Snapshot
from ..hands.safe_files import StoreError, UnsafeError, private_directory
from .codec import CodecError, decode, decode_pools, encode
from .database import (
    ERRORS,
    PAGE,
    UNREADABLE,
    Damaged,
    WrongFormat,
    discard,
    is_damage,
    open_reader,
    open_writer,
    seal,
    shrink,
    trouble,
    used_bytes,
    walk,
)
from .files import remove_with_companions, size_with_companions

APPLICATION = 0x6E637472  # "nctr" in PRAGMA application_id: by which `file` and any reader can recognize the files
SCHEMA = 8
"""Version of tables, codec and sample columns together: a change of any of them needs a new number."""

KEYFRAME_TICKS = 600
"""Chosen: ten minutes at 1 Hz. A keyframe of 500 processes takes about 20 KB, or 0.07 bytes per process-sample."""

LOOKS_KEPT = 64
"""Snapshots that a look back keeps (chosen): one of 500 processes takes 80 kB."""

FILE_NAME = re.compile(r"\d{4}-\d\d-\d\d(?:\.\d+)?\.db")
"""Names of the trace files of a store: their day, and a number if there is more than one."""

_HEAD = struct.Struct("<QqqI")
_SEQS = 1 << 32
_NO_END = (1 << 63) - 1
_DAY = 86_400_000_000_000  # ns
_EPOCH = date(1970, 1, 1).toordinal()
_TABLES = """
CREATE TABLE sessions(number INTEGER PRIMARY KEY, session TEXT NOT NULL, boot_id TEXT NOT NULL, interval REAL NOT NULL,
    first INTEGER NOT NULL, last INTEGER, crc INTEGER NOT NULL);
CREATE TABLE ticks(id INTEGER PRIMARY KEY, at INTEGER NOT NULL, wall INTEGER NOT NULL, rows INTEGER NOT NULL,
    crc INTEGER NOT NULL, recording TEXT, data BLOB NOT NULL);
"""


class TraceError(StoreError):
    """Traces that cannot be read at all. The message says the cause and what to do next."""


class Recording(msgspec.Struct, frozen=True):
    """The session that recorded a tick."""

    id: str  # of the session
    boot_id: str
    interval: float  # seconds between ticks, as configured


@dataclass(frozen=True, slots=True)
class TraceSession:
    """What a store has of a session."""

    id: str
    boot_id: str
    interval: float
    first_wall: int  # ns
    last_wall: int
    ticks: int
    processes: int  # most in one tick


@dataclass(frozen=True, slots=True)
class Lost:
    """Ticks that cannot be read."""

    path: Path
    session: str  # "" if unknown
    first: int | None  # seq
    last: int | None
    ticks: int | None  # at least this many, exactly this many if `last` is known; None: unknown
    reason: str


class TraceWriter:
    """Appends snapshots to the store in a state directory.

    Disk trouble never raises after the constructor: the tick is dropped and counted, and recording resumes by itself with a
    keyframe when the disk works again. The budget holds for all files together: the oldest day that is not being written is deleted
    first, then the oldest ticks of the current file.
    """

    def __init__(self, directory: Path, *, boot_id: str, session: str, budget_bytes: int, interval: float) -> None:
        """`directory`: the state directory. `interval`: seconds. Raises StoreError if it is not safe or cannot be made."""
        self._directory = private_directory(private_directory(directory) / "traces")
        self._recording = Recording(session, boot_id, float(interval))
        self._header = msgspec.json.encode(self._recording).decode()
        self._budget = budget_bytes
        # The log is small against the budget, so that dropping ticks soon frees space; 1 MiB is a minute or more of ticks.
        self._wal_pages = min(256, max(8, budget_bytes // (8 * PAGE)))
        self._db: sqlite3.Connection | None = None
        self._path: Path | None = None
        self._inode = 0
        self._day = -1
        self._number: int | None = None
        self._seq = 0
        self._before: Snapshot | None = None
        self._crc = 0
        self._ticks_since_key = 0
        self._bytes_since_key = 0
        self._bytes_since_check = 0
        self._over = False
        self._unusable: set[Path] = set()
        self.dropped = 0
        """Ticks that could not be written."""
        self.last_error = ""
        """Why the last one could not, and what to do; "" if the last tick was written."""

    def append(self, snapshot: Snapshot) -> None:
        """Write one snapshot; it is committed when this returns. The table may be reused by the caller afterwards."""
        seq = self._seq
        self._seq += 1
        try:
            db = self._file_of(snapshot.wall, seq)
            self._write(db, seq, snapshot)
        except (*ERRORS, OSError, StoreError) as error:
            self._drop(error)
            return
        self.last_error = ""
        try:
            if self._over or self._bytes_since_check >= self._budget // 64:
                self._keep_budget(db)
        except (*ERRORS, OSError, StoreError) as error:
            self.last_error = trouble(error)  # the tick is written; the budget is tried again at the next one

    def close(self) -> None:
        """End the session in order. May be called twice; like `append`, never raises for the disk."""
        if self._db is not None:
            self._leave(self._db)

    # --- writing --------------------------------------------------------------------------------------------------------------

    def _write(self, db: sqlite3.Connection, seq: int, snapshot: Snapshot) -> None:
        key = (
            self._before is None
            or self._ticks_since_key >= KEYFRAME_TICKS
            or self._bytes_since_key >= self._budget // 8  # so that a small budget has a place to cut, too
        )
        try:
            data = encode(snapshot, None if key else self._before)
        except CodecError as error:
            raise StoreError(f"the tick is not recorded: {error}") from None
        assert self._number is not None
        tick = self._number * _SEQS + seq
        recording = self._header if key else None
        crc = _crc(tick, snapshot.at, snapshot.wall, len(snapshot.table), recording, data, self._crc)
        db.execute(
            "INSERT INTO ticks VALUES (?, ?, ?, ?, ?, ?, ?)",
            (tick, snapshot.at, snapshot.wall, len(snapshot.table), crc, recording, data),
        )
        self._before = replace(snapshot, table=snapshot.table.copy(), identities=dict(snapshot.identities))
        self._crc = crc
        self._ticks_since_key = 1 if key else self._ticks_since_key + 1
        self._bytes_since_key = len(data) if key else self._bytes_since_key + len(data)
        self._bytes_since_check += len(data)

    def _drop(self, error: Exception) -> None:
        """Count a tick that was not written, and begin with a keyframe at the next."""
        self.last_error = trouble(error)
        self.dropped += 1
        if self._path is not None and is_damage(error):
            self._unusable.add(self._path)
        self._before = None
        if self._db is not None:
            discard(self._db)
            self._db = None

    def _file_of(self, wall: int, seq: int) -> sqlite3.Connection:
        """The open file of that day."""
        day = wall // _DAY
        if self._db is not None and (day != self._day or not self._still_there()):
            self._leave(self._db)
        if self._db is None:
            self._db = self._open(day, seq)
            self._day = day
        return self._db

    def _still_there(self) -> bool:
        """Whether the open file has not been deleted or replaced under us: what is written to a deleted file is lost."""
        assert self._path is not None
        try:
            return self._path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def _open(self, day: int, seq: int) -> sqlite3.Connection:
        self._before = None
        private_directory(self._directory)
        name = date.fromordinal(min(max(day + _EPOCH, 1), date.max.toordinal())).isoformat()
        for number in range(1000):
            path = self._directory / (f"{name}.{number}.db" if number else f"{name}.db")
            if path in self._unusable:
                continue
            try:
                db = open_writer(path, application=APPLICATION, schema=SCHEMA, ddl=_TABLES, wal_pages=self._wal_pages)
            except WrongFormat:
                self._unusable.add(path)
                continue
            except ERRORS as error:
                if is_damage(error):
                    self._unusable.add(path)
                    continue
                raise
            try:
                self._path = path
                self._inode = path.stat().st_ino
                self._begin(db, seq)
            except BaseException:
                discard(db)
                raise
            return db
        raise StoreError(f"{self._directory} has a thousand files of {name} that cannot be used; move them away")

    def _begin(self, db: sqlite3.Connection, seq: int) -> None:
        """Record in the file that it has this session's ticks from `seq` on."""
        recording = self._recording
        if self._number is None:
            self._number = 1 + max([0, *(_last_id(path) // _SEQS for path in _files_of(self._directory))])
        db.execute("BEGIN IMMEDIATE")
        try:
            row = db.execute("SELECT session, boot_id, first FROM sessions WHERE number = ?", (self._number,)).fetchone()
            if row is not None and row[:2] != (recording.id, recording.boot_id):  # another writer took the number meanwhile
                (most,) = db.execute("SELECT max(number) FROM sessions").fetchone()
                self._number, row = most + 1, None
            first = seq if row is None else row[2]
            _note(db, self._number, recording, first, None)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _leave(self, db: sqlite3.Connection) -> None:
        """Finish the open file: record what must be in it, and make it a single plain file."""
        self._db = None
        self._before = None
        try:
            if self._number is not None:
                low, high = self._number * _SEQS, self._number * _SEQS + _SEQS - 1
                row = db.execute("SELECT first FROM sessions WHERE number = ?", (self._number,)).fetchone()
                (last,) = db.execute("SELECT max(id) FROM ticks WHERE id BETWEEN ? AND ?", (low, high)).fetchone()
                if row is not None and last is not None:
                    _note(db, self._number, self._recording, row[0], last - low)
        except ERRORS as error:
            self.last_error = trouble(error)
            discard(db)
            return
        said = seal(db)
        if said:
            self.last_error = said

    # --- budget ---------------------------------------------------------------------------------------------------------------

    def _keep_budget(self, db: sqlite3.Connection) -> None:
        """Drop the oldest data while there is too much; bounded work per call, the rest at the next ticks."""
        self._bytes_since_check = 0
        sizes = {path: size_with_companions(path) for path in _files_of(self._directory) if path != self._path}
        # What the open file may hold: the budget without the others, the write-ahead log and its index, and growth until next time.
        limit = self._budget - sum(sizes.values()) - (self._wal_pages + 8) * PAGE - self._budget // 16
        used = used_bytes(db)
        if used > limit and sizes:
            for path in sorted(sizes, key=lambda path: (_last_id(path), path.name)):
                remove_with_companions(path)
                limit += sizes[path]
                if used <= limit:
                    break
        self._over = used > limit and self._drop_oldest(db)
        shrink(db, limit)

    def _drop_oldest(self, db: sqlite3.Connection) -> bool:
        """Drop the file's oldest ticks up to the next keyframe; False if there is no such keyframe."""
        row = db.execute(
            "SELECT id FROM ticks WHERE recording IS NOT NULL AND id > (SELECT min(id) FROM ticks) ORDER BY id LIMIT 1"
        ).fetchone()
        if row is None:
            return False
        number, seq = divmod(row[0], _SEQS)
        db.execute("BEGIN IMMEDIATE")
        try:
            db.execute("DELETE FROM ticks WHERE id < ?", row)
            db.execute("DELETE FROM sessions WHERE number < ?", (number,))
            head = db.execute("SELECT session, boot_id, interval, last FROM sessions WHERE number = ?", (number,)).fetchone()
            if head is not None:
                _note(db, number, Recording(*head[:3]), seq, head[3])
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        return True


def _note(db: sqlite3.Connection, number: int, recording: Recording, first: int, last: int | None) -> None:
    values = (number, recording.id, recording.boot_id, recording.interval, first, last)
    db.execute("INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?)", (*values, zlib.crc32(repr(values).encode())))


def _crc(tick: int, at: int, wall: int, rows: int, recording: str | None, data: bytes, before: int) -> int:
    """`before`: the crc of the tick before, which a keyframe does not use."""
    head = zlib.crc32(_HEAD.pack(tick, at, wall, rows), before if recording is None else 0)
    return zlib.crc32(data, zlib.crc32((recording or "").encode(), head))


def _files_of(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if FILE_NAME.fullmatch(path.name))


def _last_id(path: Path) -> int:
    """Newest tick of a file, -1 if unreadable. Files are ordered by it, not by their names, which follow the wall clock."""
    try:
        db = open_reader(path, application=APPLICATION, schema=SCHEMA)
        if db is None:
            return -1
        with closing(db):
            (last,) = db.execute("SELECT max(id) FROM ticks").fetchone()
    except UNREADABLE:
        return -1
    return last if isinstance(last, int) else -1


# --- reading ------------------------------------------------------------------------------------------------------------------


def read_traces(
    paths: Path | Iterable[Path], *, since: int | None = None, until: int | None = None, session: str | None = None
) -> TraceRead:
    """The snapshots with since <= wall < until (ns) of all sessions, or of one, in the order they were recorded.

    `paths`: trace files, state directories, or folders with those of many machines below them. Raises TraceError if there are no
    traces, and for a file of another schema version; damage is reported in `lost` and does not stop the reading.
    """
    return TraceRead(_stores(paths), since, until, session)


def count_rows(paths: Path | Iterable[Path], *, since: int | None = None, until: int | None = None) -> int:
    """About how many process-samples `read_traces` has: as many as the ticks say, unread. Raises TraceError like it."""
    total = 0
    query = "SELECT total(rows) FROM ticks WHERE wall >= ? AND wall < ?"
    for file in (file for files in _stores(paths).values() for file in files):
        try:
            db = open_reader(file.path, application=APPLICATION, schema=SCHEMA)
            if db is None:
                continue
            with closing(db):
                (rows,) = db.execute(query, (0 if since is None else since, _NO_END if until is None else until)).fetchone()
            total += round(rows)
        except UNREADABLE:
            continue  # reported when its ticks are read
    return total


def sessions(paths: Path | Iterable[Path]) -> list[TraceSession]:
    """The sessions, oldest first within a store. Raises TraceError like `read_traces`."""
    found: dict[tuple[Path, Recording], TraceSession] = {}
    for store, recording, tick in TraceRead(_stores(paths), None, None, None).ticks():
        old = found.get((store, recording))
        found[store, recording] = TraceSession(
            id=recording.id,
            boot_id=recording.boot_id,
            interval=recording.interval,
            first_wall=old.first_wall if old else tick.wall,
            last_wall=tick.wall,
            ticks=1 + (old.ticks if old else 0),
            processes=max(tick.rows, old.processes if old else 0),
        )
    return list(found.values())


@dataclass(frozen=True, slots=True)
class PoolsTick:
    """The pools of a tick, without its processes."""

    recording: Recording
    at: int  # monotonic ns of that boot
    wall: int
    pools: tuple[PoolSample, ...]


def newest_pools(paths: Path | Iterable[Path], *, before: str | None = None) -> Iterator[list[PoolsTick]]:
    """The pools of a store's ticks, in pieces from keyframe to keyframe: newest piece first, oldest tick first within it.

    For callers that need the newest hours only, and soon: take pieces until it is enough. `before`: only what was recorded before
    that session; nothing if it is not there. Damaged ticks are left out. Raises TraceError like `read_traces`, if `paths` are of
    more than one machine, and if nothing of them can be read.
    """
    stores = _stores(paths)
    if len(stores) > 1:
        raise TraceError(f"traces of more than one machine: {', '.join(map(str, sorted(stores)))}; give one of them")
    (files,) = stores.values()
    end = _NO_END if before is None else _first_of(files, before)
    unreadable, anything = "", False
    for file in sorted(files, key=lambda file: (file.first, file.path.name), reverse=True):
        try:
            db = open_reader(file.path, application=APPLICATION, schema=SCHEMA)
        except UNREADABLE as error:
            unreadable = f"{file.path} cannot be read: {error}; give a trace file, or the state directory"
            continue
        if db is None:
            continue
        with closing(db):
            while (key := _keyframe_before(db, end)) is not None:
                piece = _pools_from(db, key, end)
                if piece:
                    anything = True
                    yield piece
                end = key
    if unreadable and not anything:
        raise TraceError(unreadable)


def snapshots_at(paths: Path | Iterable[Path], wall: int) -> tuple[Recording, Snapshot, Snapshot] | None:
    """The last snapshot at `wall` (ns) or before, after the one before it in its session; None if no two such can be read.

    Decodes what lies between the keyframe and it, so it takes at most some tenths of a second. Of a snapshot that is a keyframe the
    next one is taken, which has one before it. Raises TraceError like `read_traces`.
    """
    for file in sorted((file for files in _stores(paths).values() for file in files), key=lambda file: file.first, reverse=True):
        try:
            db = open_reader(file.path, application=APPLICATION, schema=SCHEMA)
        except UNREADABLE:
            continue
        if db is None:
            continue
        with closing(db):
            found = _last_until(db, wall)
            key = None if found is None else _keyframe_before(db, found + 1)
            if found is not None and key is not None:
                return _two(db, key, max(found, key + 1))
    return None


def _last_until(db: sqlite3.Connection, wall: int) -> int | None:
    """The greatest id of a tick at `wall` or before, as long as the clock was not set back; None if there is none."""
    try:
        low, high = db.execute("SELECT min(id), max(id) FROM ticks").fetchone()
        if low is None:
            return None
        found = None
        while low <= high:
            middle = (low + high) // 2
            row = db.execute("SELECT id, wall FROM ticks WHERE id <= ? ORDER BY id DESC LIMIT 1", (middle,)).fetchone()
            if row is not None and row[1] > wall:
                high = row[0] - 1
            else:
                found, low = (found if row is None else row[0]), middle + 1
    except (*ERRORS, TypeError):
        return None
    return found


def _two(db: sqlite3.Connection, key: int, last: int) -> tuple[Recording, Snapshot, Snapshot] | None:
    """The last two whole snapshots from a keyframe to `last`."""
    recording, crc, before, now = Recording("", "", 0.0), 0, None, None
    for row in walk(db, "ticks", "at, wall, rows, crc, recording, data", after=key - 1, until=last):
        if isinstance(row, Damaged):
            break
        tick, at, wall, rows, own, header, data = row
        try:
            crc = _crc(tick, at, wall, rows, header, data, crc)
            if crc != own:
                break
            if header is not None:
                recording = msgspec.json.decode(header, type=Recording)
            before, now = now, decode(data, None if header is not None else now, at=at, wall=wall)
        except (struct.error, TypeError, AttributeError, msgspec.MsgspecError, CodecError):
            break
    return None if before is None or now is None else (recording, before, now)


def _first_of(files: list[_File], session: str) -> int:
    """The least id that a tick of this session can have; 0 if it is not there."""
    for file in files:
        try:
            db = open_reader(file.path, application=APPLICATION, schema=SCHEMA)
            if db is None:
                continue
            with closing(db):
                row = db.execute("SELECT min(number) FROM sessions WHERE session = ?", (session,)).fetchone()
        except UNREADABLE:
            continue
        if isinstance(row[0], int) and 0 <= row[0] < _NO_END // _SEQS:
            return row[0] * _SEQS
    return 0


def _keyframe_before(db: sqlite3.Connection, end: int) -> int | None:
    """The greatest id of a keyframe below `end`; None if there is no such keyframe, or it cannot be read."""
    try:
        row = db.execute("SELECT id FROM ticks WHERE id < ? AND recording IS NOT NULL ORDER BY id DESC LIMIT 1", (end,)).fetchone()
    except ERRORS:
        return None
    if row is None or not isinstance(row[0], int) or row[0] >= end:  # a damaged index may lead anywhere, and back again
        return None
    return row[0]


def _pools_from(db: sqlite3.Connection, key: int, end: int) -> list[PoolsTick]:
    """The whole ticks from a keyframe on, up to the first damaged one."""
    found: list[PoolsTick] = []
    recording, crc = Recording("", "", 0.0), 0
    for row in walk(db, "ticks", "at, wall, rows, crc, recording, data", after=key - 1, until=end - 1):
        if isinstance(row, Damaged):
            break
        tick, at, wall, rows, own, header, data = row
        try:
            crc = _crc(tick, at, wall, rows, header, data, crc)
            if crc != own:
                break
            if header is not None:
                recording = msgspec.json.decode(header, type=Recording)
            pools = decode_pools(data, found[-1].pools if header is None else ())
        except (struct.error, TypeError, AttributeError, msgspec.MsgspecError, CodecError):
            break
        found.append(PoolsTick(recording, at, wall, pools))
    return found


class TraceLooks:
    """Single ticks of a store, for who looks back: read from the keyframe before, and kept for the next look nearby."""

    def __init__(self, directory: Path) -> None:
        """`directory`: the folder of the trace files; it need not exist."""
        self._directory = directory
        self._kept: OrderedDict[int, tuple[Snapshot, int]] = OrderedDict()  # tick id -> snapshot and crc

    def look(self, session: str, seq: int, wall: int) -> Snapshot | None:
        """The snapshot of a tick; None if it was not recorded, was dropped, or cannot be read. Its table is read-only.

        `wall`: about when it was (ns), which says where to look first.
        """
        for path, number in self._places(session, wall // _DAY):
            wanted = number * _SEQS + seq
            if wanted in self._kept:
                self._kept.move_to_end(wanted)
                return self._kept[wanted][0]
            try:
                db = open_reader(path, application=APPLICATION, schema=SCHEMA)
            except UNREADABLE:
                continue
            if db is None:
                continue
            with closing(db):
                found = self._read(db, wanted)
            if found is not None:
                return found
        return None

    def _places(self, session: str, day: int) -> Iterator[tuple[Path, int]]:
        """Files with ticks of this session and its number there, that of the day first."""
        try:
            files = _files_of(self._directory)
        except OSError:
            return
        name = date.fromordinal(min(max(day + _EPOCH, 1), date.max.toordinal())).isoformat()
        for path in sorted(files, key=lambda path: (not path.name.startswith(name), path.name)):
            try:
                db = open_reader(path, application=APPLICATION, schema=SCHEMA)
                if db is None:
                    continue
                with closing(db):
                    row = db.execute("SELECT max(number) FROM sessions WHERE session = ?", (session,)).fetchone()
            except UNREADABLE:
                continue
            if isinstance(row[0], int) and 0 <= row[0] < _NO_END // _SEQS:
                yield path, row[0]

    def _read(self, db: sqlite3.Connection, wanted: int) -> Snapshot | None:
        """Decode up to a tick, from a kept one before it or from the keyframe before it."""
        key = _keyframe_before(db, wanted + 1)
        if key is None:
            return None
        near = max((id_ for id_ in self._kept if key <= id_ < wanted), default=None)
        before, crc = (None, 0) if near is None else self._kept[near]
        for row in walk(db, "ticks", "at, wall, rows, crc, recording, data", after=key - 1 if near is None else near, until=wanted):
            if isinstance(row, Damaged):
                return None
            tick, at, wall, rows, own, header, data = row
            try:
                crc = _crc(tick, at, wall, rows, header, data, crc)
                if crc != own:
                    return None
                before = decode(data, None if header is not None else before, at=at, wall=wall)
            except (struct.error, TypeError, AttributeError, CodecError):
                return None
            self._kept[tick] = before, crc
            while len(self._kept) > LOOKS_KEPT:
                self._kept.popitem(last=False)
        return self._kept[wanted][0] if wanted in self._kept else None


class TraceRead:
    """Iterate for (recording, snapshot); afterwards `lost` has what could not be read. Each iteration reads afresh.

    Tables are read-only, because the next snapshot builds on them; identities may be shared between snapshots.
    """

    def __init__(self, stores: dict[Path, list[_File]], since: int | None, until: int | None, session: str | None) -> None:
        self._stores = stores
        self._since = since
        self._until = until
        self._session = session
        self.lost: list[Lost] = []

    def __iter__(self) -> Iterator[tuple[Recording, Snapshot]]:
        before: Snapshot | None = None
        waiting: list[_Row] = []  # since the last decoded one, from a keyframe on: only decoded if something later is wanted
        for _, recording, tick in self.ticks():
            if tick.recording is not None:
                before, waiting = None, []
            elif before is None and not waiting:
                continue  # after a tick that could not be decoded
            waiting.append(tick)
            if (
                (self._session is not None and recording.id != self._session)
                or (self._since is not None and tick.wall < self._since)
                or (self._until is not None and tick.wall >= self._until)
            ):
                continue
            try:
                for row in waiting:
                    before = decode(row.data, before, at=row.at, wall=row.wall)
                    if len(before.table) != row.rows:
                        raise CodecError(f"{len(before.table)} rows instead of {row.rows}")
            except CodecError as error:
                seq = tick.id % _SEQS
                self.lost.append(Lost(tick.path, recording.id, seq, None, None, f"{error}: not written by this nicety"))
                before, waiting = None, []
                continue
            waiting = []
            assert before is not None
            yield recording, before

    def ticks(self) -> Iterator[tuple[Path, Recording, _Row]]:
        """(store, recording, row) of each whole tick: its checksum holds, and so do those of all it builds on."""
        self.lost = []
        for store, files in self._stores.items():
            for recording, row in _Chain(self.lost, files).whole():
                yield store, recording, row


@dataclass(frozen=True, slots=True)
class _File:
    """A trace file and its least tick id, -1 if that cannot be read."""

    path: Path
    first: int


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of `ticks`: columns of the right types, not checked further."""

    id: int
    path: Path
    at: int
    wall: int
    rows: int
    crc: int
    recording: str | None
    data: bytes


@dataclass(frozen=True, slots=True)
class _Accident:
    """Something unreadable in a file, between the rows before and after it."""

    path: Path
    reason: str


class _Chain:
    """Separates whole ticks of a store from lost ones. Only a row whose checksum holds is believed, even about its id."""

    def __init__(self, lost: list[Lost], files: list[_File]) -> None:
        self._lost = lost
        self._files = files
        self._expected: dict[int, tuple[str, int, int | None]] = {}  # number: session, first and last seq that must be here
        self._number = -1
        self._next = 0  # id that follows the last whole tick
        self._crc = 0  # of that tick
        self._recording = Recording("", "", 0.0)
        self._accident: _Accident | None = None  # the first one since the last whole tick
        self._rejected = 0  # rows since then that cannot be believed

    def whole(self) -> Iterator[tuple[Recording, _Row]]:
        """Yields the whole ticks; the others are added to `lost`."""
        accidents = self._expect()
        for row in _merged(self._files):
            if isinstance(row, _Accident):
                self._accident = self._accident or row
                continue
            if row.id == self._next - 1 and row.crc == self._crc:
                continue  # the same tick again, from a copy of the file
            reason = self._flaw(row)
            if reason:
                self._accident = self._accident or _Accident(row.path, reason)
                self._rejected += 1
                continue
            number, seq = divmod(row.id, _SEQS)
            if number != self._number:
                self._finish(number)
                self._number = number
                _, first, last = self._expected.get(number, ("", seq, None))
                self._expected[number] = (self._recording.id, first, last)
                self._next = number * _SEQS + min(first, seq)
            if row.id > self._next:
                self._lose(row.path, number, self._next % _SEQS, seq - 1)
            self._flush()
            self._next, self._crc = row.id + 1, row.crc
            yield self._recording, row
        self._finish(None)
        for accident in accidents:
            self._lost.append(Lost(accident.path, "", None, None, None, accident.reason))

    def _flaw(self, row: _Row) -> str:
        """Why this row cannot be believed, "" if it can."""
        if row.recording is None and row.id != self._next:
            return "builds on a tick that is lost"
        try:
            crc = _crc(row.id, row.at, row.wall, row.rows, row.recording, row.data, self._crc)
        except struct.error:
            return "a column is out of range"
        if row.crc != crc:
            return "the checksum does not hold"
        if row.id < self._next:
            return "comes after later ticks"
        if row.recording is not None:
            try:
                self._recording = msgspec.json.decode(row.recording, type=Recording)
            except msgspec.MsgspecError as error:
                return f"the session's header: {error}"
        return ""

    def _expect(self) -> list[_Accident]:
        """Read which ticks must be there; returns what of that cannot be read."""
        accidents = []
        for file in self._files:
            try:
                db = open_reader(file.path, application=APPLICATION, schema=SCHEMA)
            except UNREADABLE:
                continue  # reported when its ticks are read
            if db is None:
                continue
            with closing(db):
                for row in walk(db, "sessions", "session, boot_id, interval, first, last, crc", key="number"):
                    if isinstance(row, Damaged) or row[6] != zlib.crc32(repr(row[:6]).encode()):
                        reason = row.reason if isinstance(row, Damaged) else "its checksum does not hold"
                        accidents.append(_Accident(file.path, f"what sessions say of their length cannot be read: {reason}"))
                        continue
                    number, session, _, _, first, last, _ = row
                    _, old_first, old_last = self._expected.get(number, (session, first, last))
                    lasts = [seq for seq in (last, old_last) if seq is not None]
                    self._expected[number] = (session, min(first, old_first), max(lasts, default=None))
        return accidents

    def _finish(self, upto: int | None) -> None:
        """No rows are left of the sessions before `upto` (None: of any): what was expected of them and did not come is lost."""
        path = self._accident.path if self._accident else self._files[-1].path
        for number, (_, first, last) in sorted(self._expected.items()):
            if number < self._number or (upto is not None and number >= upto):
                continue
            start = self._next % _SEQS if number == self._number else first
            if last is not None and start <= last and self._next <= number * _SEQS + last:
                self._lose(path, number, start, last)
        self._flush()

    def _lose(self, path: Path, number: int, first: int, last: int) -> None:
        """Report ticks first..last of a session as lost, by the accident if there was one."""
        session = self._expected.get(number, (self._recording.id, 0, None))[0]
        at = self._accident or _Accident(path, "not there: not written for want of disk, or dropped, or the file is damaged")
        self._lost.append(Lost(at.path, session, first, last, last - first + 1, at.reason))
        self._accident, self._rejected = None, 0

    def _flush(self) -> None:
        """Report an accident whose extent no row shows."""
        if self._accident is not None:
            session = self._expected.get(self._number, ("", 0, None))[0]
            first = self._next % _SEQS if session else None
            self._lost.append(Lost(self._accident.path, session, first, None, self._rejected or None, self._accident.reason))
        self._accident, self._rejected = None, 0


def _merged(files: list[_File]) -> Iterator[_Row | _Accident]:
    """Rows of all files of a store by rising id. Each file is opened when its turn comes: most do not overlap."""
    waiting = sorted(files, key=lambda file: file.first, reverse=True)
    heap: list[tuple[int, int, _Row | _Accident, Iterator[tuple[int, _Row | _Accident]]]] = []

    def push(number: int, rows: Iterator[tuple[int, _Row | _Accident]]) -> None:
        for place, row in rows:
            heapq.heappush(heap, (place, number, row, rows))
            break

    while waiting or heap:
        while waiting and (not heap or waiting[-1].first <= heap[0][0]):
            push(len(waiting), _rows(waiting.pop().path))
        if heap:
            _, number, row, rows = heapq.heappop(heap)
            yield row
            push(number, rows)


def _rows(path: Path) -> Iterator[tuple[int, _Row | _Accident]]:
    """Rows of a file and accidents between them, each with its place in the order."""
    try:
        db = open_reader(path, application=APPLICATION, schema=SCHEMA)
    except UNREADABLE as error:
        yield -1, _Accident(path, f"the file cannot be read: {error}")
        return
    if db is None:
        yield -1, _Accident(path, "the file is empty: cut off, or just begun")
        return
    with closing(db):
        for row in walk(db, "ticks", "at, wall, rows, crc, recording, data"):
            if isinstance(row, Damaged):
                yield row.after, _Accident(path, f"cannot be read: {row.reason}")
                continue
            tick, at, wall, rows, crc, recording, data = row
            numbers = isinstance(at, int) and isinstance(wall, int) and isinstance(rows, int) and isinstance(crc, int)
            if numbers and isinstance(data, bytes) and (recording is None or isinstance(recording, str)):
                yield tick, _Row(tick, path, at, wall, rows, crc, recording, data)
            else:
                yield tick, _Accident(path, "cannot be read: a column has a wrong type")


def _stores(paths: Path | Iterable[Path]) -> dict[Path, list[_File]]:
    """The trace files behind `paths`, by store (the directory they are in)."""
    given = [paths] if isinstance(paths, Path) else list(paths)
    stores: dict[Path, list[_File]] = {}
    for path in sorted({file for one in given for file in _trace_files(one)}):
        explicit = path in given
        try:
            first = _first_id(path)
        except WrongFormat as error:
            if error.schema is not None:
                raise TraceError(
                    f"{path} {error}; read it with the nicety that wrote it (its export to parquet or csv can be read by all), "
                    "or move it away"
                ) from None
            if explicit:
                raise TraceError(f"{path} {error}, not a trace; give a trace file, or the state directory") from None
            first = -1
        stores.setdefault(path.parent, []).append(_File(path, first))
    if not stores:
        raise TraceError(f"no traces in {', '.join(map(str, given)) or 'nothing'}; record some: nicety record")
    return stores


def _trace_files(path: Path) -> list[Path]:
    try:
        if path.is_dir():
            next(path.iterdir(), None)  # rglob skips what it may not read
            return [found for found in path.rglob("*.db") if FILE_NAME.fullmatch(found.name)]
        path.stat()
    except OSError as error:
        raise TraceError(f"cannot read {path}: {os.strerror(error.errno or 0)}; check the path and its permissions") from None
    if not os.access(path, os.R_OK):  # opening it would do to a writer in this process what `private_file` describes
        raise TraceError(f"no permission to read {path}; run this as the user who recorded it")
    return [path]


def _first_id(path: Path) -> int:
    """Least tick id of a file, -1 if it cannot be read or has none."""
    try:
        db = open_reader(path, application=APPLICATION, schema=SCHEMA)
        if db is None:
            return -1
        with closing(db):
            (first,) = db.execute("SELECT min(id) FROM ticks").fetchone()
    except (*ERRORS, UnsafeError):
        return -1
    return first if isinstance(first, int) else -1
