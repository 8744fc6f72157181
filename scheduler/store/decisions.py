"""The decision log: each tick, what was decided, refused and done, and whether it helped. Must not know why it was decided.

One SQLite file `decisions.db` in the state directory. `number` is a session's place in the file, a tick's id is number << 32 | seq.

    sessions   number, id, wall, record (zlib of JSON `decision.Session`), crc
    ends       number, seqs of the first and last tick that a session must have here, crc; written when it ends, and when ticks are
               dropped
    ticks      id, wall, crc of these and the data, keyframe, and the first and the number of its pieces. The crc continues that of
               the tick before unless it is a keyframe
    pieces     n, data: the tick, the verdict and its outcomes as `differences` writes them, cut into pieces that fill pages well
    memories   id, memory (zlib of JSON): the engine's memory before that tick; replay can begin there
    decisions  a row for each decision and refusal, for people and queries; pids beside it in `pids`
    outcomes, effects  each as it came, by the decision's id
    evidence   snapshots of the processes that a decision is about (JSON `read.evidence.Evidence`), taken before it was done

A tick is read from the keyframe before it, so a damaged one costs those up to the next keyframe. Ticks are written some seconds at
a time, and at once when something was decided or done: a crash loses ticks in which nothing was decided, of
`database.HOLD_NS` at most. When the budget is used up, the oldest ticks are dropped, up to a memory or to the next session, with
everything that belongs to them.

Reading needs no numpy: the types of `decision` are imported only where a record is decoded into one.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from ...models.records import Score
from ..hands.safe_files import StoreError, private_directory
from .database import (
    ERRORS,
    PAGE,
    Damaged,
    Statement,
    Together,
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
from .differences import MAX_BYTES, Cells, Encoder, RecordError
from .files import set_aside

if TYPE_CHECKING:
    from ..decision import Action, Decision, Effect, Outcome, Refusal, Session, Tick, Verdict
    from ..read.evidence import Evidence

APPLICATION = 0x6E636465  # "ncde" in PRAGMA application_id
SCHEMA = 8
"""Version of the tables and of every record in them: a change of a type in `decision` needs a new number."""

KEYFRAME_TICKS = 600
"""The engine's memory is stored this often: a replay of a log whose beginning was dropped skips at most this, 10 min at 1 Hz.
Chosen."""

WHOLE_TICKS = 300
"""A tick is a keyframe this often, and wherever the engine's memory is stored. Chosen: reading a tick takes 20 ms on average; a
keyframe of 40 groups takes 8 KB, or 27 bytes a tick."""

PIECE_BYTES = 440
"""Most bytes of a piece. Chosen: nine fill a page. A record of 2.1 KB in one row would leave half of its page empty."""

REFUSED_BY_GUARD = "refused by guard"
NO_OUTCOME = "no outcome"
"""Values of `LoggedDecision.status` besides those of `decision.Status`."""

_SEQS = 1 << 32
_NO_END = (1 << 63) - 1
_LAST = (1 << 31) - 1  # the greatest number of a session: ids of ticks are 63 bits
_TABLES = """
CREATE TABLE sessions(number INTEGER PRIMARY KEY, id TEXT NOT NULL, wall INTEGER NOT NULL, record BLOB NOT NULL,
    crc INTEGER NOT NULL);
CREATE TABLE ends(number INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE ticks(id INTEGER PRIMARY KEY, wall INTEGER NOT NULL, crc INTEGER NOT NULL, keyframe INTEGER NOT NULL,
    first INTEGER NOT NULL, count INTEGER NOT NULL);
CREATE TABLE pieces(n INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE memories(id INTEGER PRIMARY KEY, memory BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE decisions(n INTEGER PRIMARY KEY AUTOINCREMENT, tick INTEGER NOT NULL, id TEXT NOT NULL, session TEXT NOT NULL,
    seq INTEGER NOT NULL, wall INTEGER NOT NULL, policy TEXT NOT NULL, action TEXT NOT NULL, target TEXT NOT NULL,
    pids TEXT NOT NULL, status TEXT NOT NULL, decision TEXT NOT NULL, refusal TEXT, crc INTEGER NOT NULL);
CREATE INDEX decisions_tick ON decisions(tick);
CREATE INDEX decisions_id ON decisions(id);
CREATE INDEX decisions_wall ON decisions(wall);
CREATE INDEX decisions_policy ON decisions(policy, wall);
CREATE INDEX decisions_action ON decisions(action, wall);
CREATE TABLE pids(pid INTEGER NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (pid, n)) WITHOUT ROWID;
CREATE TABLE outcomes(n INTEGER PRIMARY KEY AUTOINCREMENT, tick INTEGER NOT NULL, wall INTEGER NOT NULL, decision TEXT NOT NULL,
    status TEXT NOT NULL, target TEXT NOT NULL, record TEXT NOT NULL);
CREATE INDEX outcomes_decision ON outcomes(decision);
CREATE TABLE effects(n INTEGER PRIMARY KEY AUTOINCREMENT, tick INTEGER NOT NULL, wall INTEGER NOT NULL, decision TEXT NOT NULL,
    record TEXT NOT NULL);
CREATE INDEX effects_decision ON effects(decision);
CREATE TABLE evidence(n INTEGER PRIMARY KEY AUTOINCREMENT, tick INTEGER NOT NULL, decision TEXT NOT NULL, record TEXT NOT NULL);
CREATE INDEX evidence_decision ON evidence(decision);
"""
_ROW = struct.Struct("<QqB")  # id, wall, keyframe
_COLUMNS = "id, session, seq, wall, policy, action, target, pids, status, decision, refusal, crc, tick"


@dataclass(frozen=True, slots=True)
class LoggedSession:
    """A session and what the log still has of it."""

    id: str
    wall: int  # ns, when it began
    session: Session | None  # None: damaged
    first: int | None  # seqs; None: no ticks
    last: int | None
    ticks: int
    damage: str  # "" if whole


@dataclass(frozen=True, slots=True)
class LoggedTick:
    """A tick of the log with all that came of it. Parts that cannot be read are None."""

    session: str
    seq: int
    data: bytes  # the tick's canonical JSON as stored
    tick: Tick | None
    verdict: Verdict | None
    outcomes: tuple[Outcome, ...] | None
    memory: dict[str, Any] | None  # the engine's before this tick, if it was kept
    damage: tuple[str, ...]  # what is wrong, e.g. "ticks 3 to 7: the checksum of tick 3 does not hold"; () if whole


@dataclass(frozen=True, slots=True)
class LoggedDecision:
    """A decision or refusal with what became of it, as JSON that was checked; typed by its properties."""

    n: int  # place in the log
    id: str
    session: str
    seq: int
    wall: int  # ns
    policy: str
    action: str  # tag: set, restore, resize, recycle, flag
    target: str
    pids: tuple[int, ...]  # processes it is about
    status: str  # a value of decision.Status, REFUSED_BY_GUARD or NO_OUTCOME
    decision_json: str
    refusal_json: str | None  # None: it was admitted
    outcome_json: tuple[str, ...]  # in the order they came
    effect_json: tuple[str, ...]
    intact: bool  # False: its checksum does not hold

    @property
    def decision(self) -> Decision:
        """The decision with its why."""
        from ..decision import Decision

        return msgspec.json.decode(self.decision_json, type=Decision)

    @property
    def refusal(self) -> Refusal | None:
        """The guard's refusal; None if it was admitted."""
        from ..decision import Refusal

        return None if self.refusal_json is None else msgspec.json.decode(self.refusal_json, type=Refusal)

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """What really happened; the last is the latest."""
        from ..decision import Outcome

        return tuple(msgspec.json.decode(text, type=Outcome) for text in self.outcome_json)

    @property
    def effects(self) -> tuple[Effect, ...]:
        """Whether it helped; () if it is not measured."""
        from ..decision import Effect

        return tuple(msgspec.json.decode(text, type=Effect) for text in self.effect_json)


@dataclass(frozen=True, slots=True)
class TickPlace:
    """Where a tick is in the log."""

    id: int
    session: str
    seq: int
    wall: int  # ns


class MachineFigures(msgspec.Struct, frozen=True):
    """Of a machine at a tick."""

    busy: float  # cores in use


class GroupFigures(msgspec.Struct, frozen=True):
    """Of a group at a tick."""

    name: str
    demand: float  # cores


class PoolFigures(msgspec.Struct, frozen=True):
    """Of a pool at a tick."""

    name: str
    load: float | None  # Erlangs


class TickFigures(msgspec.Struct, frozen=True):
    """A tick without all else."""

    seq: int
    gap: bool
    machine: MachineFigures
    groups: list[GroupFigures]
    pools: list[PoolFigures]


# --- writing ------------------------------------------------------------------------------------------------------------------


class DecisionLog:
    """Appends ticks to the decision log of a state directory.

    Disk trouble never raises after the constructor: the tick is dropped and counted, and logging resumes by itself. A log that is
    damaged, or of another schema, is set aside as `decisions.N.db`, not deleted.
    """

    def __init__(self, directory: Path, budget_bytes: int) -> None:
        """`directory`: the state directory. Raises StoreError if it is not safe or cannot be made."""
        self._path = private_directory(directory) / "decisions.db"
        self._db: sqlite3.Connection | None = None
        self._session: Session | None = None
        self._number: int | None = None
        self._waiting = Together(0)
        self.limit(budget_bytes)
        self._inode = 0
        self._last_seq = -1
        self._last_outcomes: frozenset[Outcome] = frozenset()
        self._encoder = Encoder()
        self._crc = 0  # of the last tick
        self._piece = 0  # number of the next piece
        self._ticks_since_keyframe = 0  # 0: the next one must be a keyframe
        self._ticks_since_memory = 0
        self._bytes_since_memory = 0
        self._broken = False  # a tick is missing before the next one, so replay needs a memory there
        self._full = False
        self._damaged = False
        self.dropped = 0
        """Ticks that could not be written."""
        self.last_error = ""
        """Why the last one could not be written, and what to do; "" if the last tick was written."""
        self.set_aside: Path | None = None
        """Where an unusable log was moved to, None if there was none or it has been reported."""

    def limit(self, budget_bytes: int) -> None:
        """Limit the log to this many bytes from now on. Reopens the file: the write-ahead log is part of it."""
        self.close()
        self._budget = budget_bytes
        self._waiting = Together(budget_bytes // 64)
        self._wal_pages = min(256, max(8, budget_bytes // (8 * PAGE)))

    @property
    def waiting(self) -> int:
        """Ticks that are not written yet."""
        return self._waiting.ticks

    @property
    def keyframe_due(self) -> bool:
        """Whether the next tick should come with the engine's memory: every `KEYFRAME_TICKS`, sooner in a small budget or after a
        drop."""
        return (
            self._broken
            or self._full
            or self._ticks_since_memory >= KEYFRAME_TICKS
            or self._bytes_since_memory >= self._budget // 8
        )

    def begin(self, session: Session) -> None:
        """All ticks from now on belong to `session`; it has the engine's memory before its first tick."""
        self._end()
        self._session = session
        self._number = None
        self._last_seq = -1
        self._last_outcomes = frozenset()
        self._ticks_since_keyframe = self._ticks_since_memory = self._bytes_since_memory = 0
        self._broken = False
        try:
            self._ready(session)
        except (*ERRORS, OSError, StoreError) as error:
            self._fail(error)  # tried again with the first tick

    def append(
        self,
        tick: Tick,
        verdict: Verdict,
        outcomes: Sequence[Outcome],
        memory: Mapping[str, Any] | None = None,
        evidence: Mapping[str, Sequence[Evidence]] | None = None,
    ) -> None:
        """Take a tick, the verdict on it, and the outcomes. If something was decided, refused or done, all is committed when this
        returns; else some seconds later at most.

        `memory`: the engine's before this tick, see `keyframe_due`. `evidence`: snapshots by decision. Raises ValueError if out of
        order or before `begin`.
        """
        if self._session is None:
            raise ValueError("begin a session before its ticks")
        if tick.seq <= self._last_seq:
            raise ValueError(f"tick {tick.seq} after tick {self._last_seq}: the ticks of a session must rise")
        if self._broken_by(tick.seq):
            self._broken = True
            self._ticks_since_keyframe = 0
        self._last_seq = tick.seq
        taken = False
        try:
            if self._full and memory is None:
                raise StoreError(
                    "the budget of the decision log is used up, and nothing may be dropped before the engine's memory comes; "
                    "give store.decision_bytes more if this lasts"
                )
            db = self._ready(self._session)
            self._take(tick, verdict, outcomes, memory, evidence or {})
            taken = True
            if self._waiting.due or verdict.decisions or verdict.refusals or outcomes or memory is not None:
                self._waiting.write(db)
                self.last_error = ""
        except (*ERRORS, OSError, StoreError) as error:
            self.dropped += 0 if taken else 1
            self._fail(error)
            return
        self._last_outcomes = frozenset(outcomes)
        self._ticks_since_memory += 1
        if memory is not None:
            self._ticks_since_memory = 1
            self._bytes_since_memory = 0
            self._broken = False
        if self._waiting.ticks:
            return
        try:
            self._keep_budget(db)
        except (*ERRORS, OSError, StoreError) as error:
            self.last_error = trouble(error)

    def close(self) -> None:
        """Leave a single plain file behind. May be called twice; like `append`, never raises for the disk."""
        self._end()
        if self._db is not None:
            db, self._db = self._db, None
            self.last_error = seal(db) or self.last_error

    def _end(self) -> None:
        """Write what waits, and which ticks the session must have."""
        self._ticks_since_keyframe = 0
        if self._db is None or self._number is None:
            return
        try:
            self._waiting.write(self._db)
            low = self._number * _SEQS
            query = "SELECT min(id), max(id) FROM ticks WHERE id BETWEEN ? AND ?"
            first, last = self._db.execute(query, (low, low + _SEQS - 1)).fetchone()
            if first is not None:
                _note(self._db, self._number, first - low, last - low)
        except (*ERRORS, OSError) as error:
            self._fail(error)

    def _broken_by(self, seq: int) -> bool:
        """Whether a tick with this seq leaves a gap, so that the engine's memory is not what the log would give."""
        return self._last_seq >= 0 and seq != self._last_seq + 1

    def _take(
        self,
        tick: Tick,
        verdict: Verdict,
        outcomes: Sequence[Outcome],
        memory: Mapping[str, Any] | None,
        evidence: Mapping[str, Sequence[Evidence]],
    ) -> None:
        """Encode a tick, to be written with others. Raises StoreError for one that cannot be encoded."""
        from ..decision import encode

        assert self._number is not None
        id_, wall = self._number * _SEQS + tick.seq, tick.wall
        before, self._ticks_since_keyframe = self._ticks_since_keyframe, 0  # if this fails, the next one builds on nothing
        keyframe = memory is not None or not 0 < before < WHOLE_TICKS
        try:
            data = self._encoder.encode(tick, verdict, outcomes, keyframe=keyframe)
        except RecordError as error:
            raise StoreError(str(error)) from None
        crc = _tick_crc(id_, wall, keyframe, data, self._crc)
        pieces = [data[at : at + PIECE_BYTES] for at in range(0, len(data), PIECE_BYTES)]
        statements: list[Statement] = [
            ("INSERT INTO ticks VALUES (?, ?, ?, ?, ?, ?)", [(id_, wall, crc, int(keyframe), self._piece, len(pieces))]),
            ("INSERT INTO pieces VALUES (?, ?)", list(enumerate(pieces, self._piece))),
        ]
        if memory is not None:
            remembered = encode(memory)
            row = (id_, _packed(remembered), _crc(id_, remembered))
            statements.append(("INSERT INTO memories VALUES (?, ?, ?)", [row]))
        for decision in verdict.decisions:
            statements += self._statements_of(id_, tick, decision, None)
        for refusal in verdict.refusals:
            statements += self._statements_of(id_, tick, refusal.decision, refusal)
        # The daemon passes outcomes on to the next tick, which may add its own.
        done = [*(it for it in tick.outcomes if it not in self._last_outcomes), *outcomes]
        statements += _statements_of_outcomes(id_, wall, done)
        looks = [(id_, of, encode(each).decode()) for of, found in sorted(evidence.items()) for each in found]
        effects = []
        for effect in verdict.effects:
            record = encode(msgspec.structs.replace(effect, others=())).decode()
            effects += [(id_, wall, decision, record) for decision in (effect.decision, *effect.others)]
        if looks:
            statements.append(("INSERT INTO evidence(tick, decision, record) VALUES (?, ?, ?)", looks))
        if effects:
            statements.append(("INSERT INTO effects(tick, wall, decision, record) VALUES (?, ?, ?, ?)", effects))
        self._crc = crc
        self._piece += len(pieces)
        self._ticks_since_keyframe = 1 if keyframe else before + 1
        self._bytes_since_memory += len(data)
        self._waiting.add(statements, tick.at, len(data))

    def _statements_of(self, id_: int, tick: Tick, decision: Decision, refusal: Refusal | None) -> list[Statement]:
        from ..decision import encode

        assert self._session is not None
        pids = _pids(decision.action, tick)
        text = encode(decision).decode()
        no = None if refusal is None else encode(refusal).decode()
        status = NO_OUTCOME if refusal is None else REFUSED_BY_GUARD
        tag = str(type(decision.action).__struct_config__.tag)
        values = (
            decision.id,
            self._session.id,
            tick.seq,
            tick.wall,
            decision.policy,
            tag,
            decision.target,
            msgspec.json.encode(pids).decode(),
        )
        insert = (
            "INSERT INTO decisions(id, session, seq, wall, policy, action, target, pids, tick, status, decision, refusal, crc) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        )
        row = (*values, id_, status, text, no, _row_crc(values, text, no))
        return [(insert, [row]), ("INSERT INTO pids VALUES (?, last_insert_rowid())", [(pid,) for pid in pids])]

    # --- the file -------------------------------------------------------------------------------------------------------------

    def _ready(self, session: Session) -> sqlite3.Connection:
        """The open log, with the session's row in it."""
        if self._db is not None and not self._still_there():
            self.dropped += self._waiting.forget()
            discard(self._db)
            self._db = None
            self._ticks_since_keyframe = 0
        if self._db is None:
            self._db = self._open()
            if self._number is not None:
                query = "SELECT count(*) FROM sessions WHERE number = ? AND id = ?"
                if self._db.execute(query, (self._number, session.id)).fetchone() == (0,):
                    self._number = None  # another file than the one it was in
        if self._number is None:
            self._number = _begin(self._db, session)
        return self._db

    def _still_there(self) -> bool:
        try:
            return self._path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def _open(self) -> sqlite3.Connection:
        private_directory(self._path.parent)
        for _ in range(2):
            if self._damaged:
                self.set_aside = set_aside(self._path)
                self._damaged = False
            try:
                db = open_writer(self._path, application=APPLICATION, schema=SCHEMA, ddl=_TABLES, wal_pages=self._wal_pages)
            except WrongFormat:
                self._damaged = True
                continue
            except ERRORS as error:
                self._damaged = is_damage(error)
                if not self._damaged:
                    raise
                continue
            self._inode = self._path.stat().st_ino
            (last,) = db.execute("SELECT max(n) FROM pieces").fetchone()
            self._piece = 1 + (last or 0)
            return db
        raise StoreError(f"{self._path} cannot be used and a new one cannot be made; look at the disk")

    def _fail(self, error: Exception) -> None:
        """Report it. If the disk is at fault, the ticks that wait are dropped."""
        self.last_error = trouble(error)
        self._broken = True
        self._ticks_since_keyframe = 0
        if isinstance(error, StoreError):
            return
        self.dropped += self._waiting.forget()
        self._damaged = is_damage(error)
        if self._db is not None:
            discard(self._db)
            self._db = None

    def _keep_budget(self, db: sqlite3.Connection) -> None:
        """Drop the oldest ticks while there is too much; one stretch per tick."""
        limit = self._budget - (self._wal_pages + 8) * PAGE - self._budget // 16
        used = used_bytes(db)
        self._full = used > limit and not self._drop_oldest(db)
        shrink(db, limit)

    def _drop_oldest(self, db: sqlite3.Connection) -> bool:
        """Drop ticks up to the next place where a replay can begin; False if there is no such place."""
        (first,) = db.execute("SELECT min(id) FROM ticks").fetchone()
        if first is None:
            return False
        (memory,) = db.execute("SELECT min(id) FROM memories WHERE id > ?", (first,)).fetchone()
        (number,) = db.execute("SELECT min(number) FROM sessions WHERE number > ?", (first // _SEQS,)).fetchone()
        places = [place for place in (memory, number * _SEQS if number is not None else None) if place is not None]
        if not places:
            return False
        upto = min(places)
        db.execute("BEGIN IMMEDIATE")
        try:
            (n,) = db.execute("SELECT min(n) FROM decisions WHERE tick >= ?", (upto,)).fetchone()
            db.execute("DELETE FROM pids WHERE n < ?", (2**63 - 1 if n is None else n,))
            (end,) = db.execute("SELECT max(first + count) FROM ticks WHERE id < ?", (upto,)).fetchone()
            db.execute("DELETE FROM pieces WHERE n < ?", (end,))
            for table in ("ticks", "memories"):
                db.execute(f"DELETE FROM {table} WHERE id < ?", (upto,))  # noqa: S608 - names from the line above
            for table in ("decisions", "outcomes", "effects", "evidence"):
                db.execute(f"DELETE FROM {table} WHERE tick < ?", (upto,))  # noqa: S608
            for table in ("sessions", "ends"):
                db.execute(f"DELETE FROM {table} WHERE number < ?", (upto // _SEQS,))  # noqa: S608
            ends = db.execute("SELECT last FROM ends WHERE number = ?", (upto // _SEQS,)).fetchone()
            if ends is not None:
                _note(db, upto // _SEQS, upto % _SEQS, ends[0])
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        return True


def _begin(db: sqlite3.Connection, session: Session) -> int:
    """Write the session's row; returns its number."""
    from ..decision import encode

    record = encode(session)
    db.execute("BEGIN IMMEDIATE")
    try:
        (last,) = db.execute(
            "SELECT max(n) FROM (SELECT max(number) AS n FROM sessions UNION ALL SELECT max(id) >> 32 FROM ticks)"
        ).fetchone()
        number = 1 + (last or 0)
        values = (number, session.id, session.wall, _packed(record), _crc(number, record))
        db.execute("INSERT INTO sessions VALUES (?, ?, ?, ?, ?)", values)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    return number


def _note(db: sqlite3.Connection, number: int, first: int, last: int) -> None:
    """Write which ticks of a session must be there."""
    values = (number, first, last)
    db.execute("INSERT OR REPLACE INTO ends VALUES (?, ?, ?, ?)", (*values, zlib.crc32(repr(values).encode())))


def _statements_of_outcomes(id_: int, wall: int, outcomes: Iterable[Outcome]) -> list[Statement]:
    from ..decision import encode

    statements: list[Statement] = []
    for it in outcomes:
        row = (id_, wall, it.decision, it.status.value, it.target, encode(it).decode())
        statements += [
            ("INSERT INTO outcomes(tick, wall, decision, status, target, record) VALUES (?, ?, ?, ?, ?, ?)", [row]),
            ("UPDATE decisions SET status = ? WHERE n = (SELECT max(n) FROM decisions WHERE id = ?)", [(row[3], it.decision)]),
        ]
    return statements


def _packed(record: bytes) -> bytes:
    """A record as the log has it. Raises StoreError for one that no reader would unpack."""
    if len(record) > MAX_BYTES:
        raise StoreError(f"a record of {len(record)} bytes is not logged: at most {MAX_BYTES} are read back")
    return zlib.compress(record, 1)


def _pids(action: Action, tick: Tick) -> list[int]:
    """The processes that an action is about: its own, and those of its cgroup, session or pool."""
    from ..decision import Flag, Recycle, ResizePool, Restore, Set
    from ..places import CgroupPlace, ProcessPlace, SessionPlace

    found: set[int] = set()
    match action:
        case ResizePool(pool=name):
            found = {worker.id.pid for pool in tick.pools if pool.name == name for worker in pool.workers}
        case Recycle(worker=worker):
            found = {worker.pid}
        case Flag(worker=worker, others=others):
            found = {id_.pid for id_ in (worker, *others)}
        case Set(on=ProcessPlace(id=process)) | Restore(on=ProcessPlace(id=process)):
            found = {process.pid}
        case Set(on=CgroupPlace(path=path)) | Restore(on=CgroupPlace(path=path)):
            found = {member.id.pid for group in tick.groups for member in group.members if member.cgroup == path}
        case Set(on=SessionPlace(through=process)) | Restore(on=SessionPlace(through=process)):
            members = [member for group in tick.groups for member in group.members]
            sessions = {member.session for member in members if member.id == process}
            found = {process.pid, *(member.id.pid for member in members if member.session in sessions)}
    return sorted(found)


# --- checksums ----------------------------------------------------------------------------------------------------------------


def _tick_crc(id_: int, wall: int, keyframe: bool, data: bytes, before: int) -> int:
    """`before`: the crc of the tick before, which a keyframe does not use. Raises struct.error for what a tick cannot have."""
    return zlib.crc32(data, zlib.crc32(_ROW.pack(id_, wall, keyframe), 0 if keyframe else before))


def _crc(id_: int, data: bytes) -> int:
    """CRC32 of a record and its id."""
    return zlib.crc32(data, zlib.crc32(struct.pack("<Q", id_)))


def _row_crc(values: tuple[Any, ...], decision: str, refusal: str | None) -> int:
    return zlib.crc32(repr((*values, decision, refusal)).encode())


# --- reading ------------------------------------------------------------------------------------------------------------------


class DecisionReader:
    """Reads a decision log, also while the daemon writes it. A context manager.

    Methods raise StoreError for a log that is damaged where they read; `ticks` and `all_decisions` go on after the damage.
    """

    def __init__(self, path: Path) -> None:
        """`path`: the log, or the state directory with it. Raises StoreError if there is none, or it is of another schema."""
        try:
            self.path = path / "decisions.db" if path.is_dir() else path
            there = self.path.exists()
        except OSError as error:
            raise StoreError(f"cannot look at {path}: {error.strerror}; run this as the user who runs nicety") from None
        if not there:
            raise StoreError(f"no decision log at {self.path}; `nicety run` writes one, --state-dir says where it is")
        if not os.access(self.path, os.R_OK):
            raise StoreError(f"no permission to read {self.path}; run this as the user who runs nicety")
        try:
            db = open_reader(self.path, application=APPLICATION, schema=SCHEMA)
        except WrongFormat as error:
            step = "read it with the nicety that wrote it" if error.schema is not None else "give the path of a decision log"
            raise StoreError(f"{self.path} {error}; {step}") from None
        except ERRORS as error:
            raise StoreError(
                f"the decision log {self.path} cannot be opened: {error}; `nicety run` puts it aside and begins a new one"
            ) from None
        if db is None:
            raise StoreError(f"{self.path} is empty; `nicety run` fills it")
        self._db = db
        self._kept: tuple[int, int, Cells] | None = None  # id and crc of the last tick that was read, and its cells

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def find(
        self,
        *,
        since: int | None = None,
        until: int | None = None,
        kind: str | None = None,
        target: str | None = None,
        pid: int | None = None,
        id: str | None = None,  # noqa: A002 - what everybody calls it
        status: str | None = None,
        session: str | None = None,
        limit: int | None = None,
        newest_first: bool = True,
    ) -> list[LoggedDecision]:
        """Decisions and refusals that match everything given.

        since <= wall < until (ns); `kind`: policy or action tag; `target`: a part of it; `pid`: a process it is about; `status`: as
        in LoggedDecision.
        """
        conditions: list[str] = []
        values: list[Any] = []
        for condition, given in (
            ("wall >= ?", since),
            ("wall < ?", until),
            ("instr(target, ?) > 0", target),
            ("n IN (SELECT n FROM pids WHERE pid = ?)", pid),
            ("id = ?", id),
            ("status = ?", status),
            ("session = ?", session),
        ):
            if given is not None:
                conditions.append(condition)
                values.append(given)
        if kind is not None:
            conditions.append("(policy = ? OR action = ?)")
            values += [kind, kind]
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        query = f"SELECT n, {_COLUMNS} FROM decisions {where} ORDER BY n {'DESC' if newest_first else ''} LIMIT ?"  # noqa: S608
        return self._rows(query, (*values, -1 if limit is None else limit))

    def evidence(self, decision: str) -> tuple[Evidence, ...]:
        """The snapshots that were taken before this decision was carried out."""
        from ..read.evidence import Evidence

        try:
            rows = self._db.execute("SELECT record FROM evidence WHERE decision = ? ORDER BY n", (decision,)).fetchall()
            return tuple(msgspec.json.decode(record, type=Evidence) for (record,) in rows)
        except (*ERRORS, *_UNDECODABLE, TypeError) as error:
            raise self._broken(error) from None

    def scores(self, session: str, first: int, last: int) -> Iterator[Score]:
        """Scores of the ticks `first` to `last` of a session, faster than reading whole ticks. Damaged ones are left out."""
        number = next((number for number, id_ in reversed(self._numbers()) if id_ == session), None)
        if number is None:
            return
        for _, _, data in self.texts(number * _SEQS + first, number * _SEQS + last):
            try:
                yield from msgspec.json.decode(data, type=_Scores).scores
            except _UNDECODABLE:
                continue

    def follow(self, wait: Callable[[], bool], after: int | None = None) -> Iterator[LoggedDecision]:
        """New decisions as they come. `wait` is called when there are none: it sleeps, and returns False to stop.

        `after`: the `n` of the last one seen; None: begin with the next one.
        """
        if after is None:
            after = max((it.n for it in self.find(limit=1)), default=0)
        while True:
            found = self._rows(f"SELECT n, {_COLUMNS} FROM decisions WHERE n > ? ORDER BY n LIMIT 256", (after,))  # noqa: S608
            for it in found:
                yield it
                after = it.n
            if not found and not wait():
                return

    def all_decisions(self) -> Iterator[LoggedDecision | str]:
        """Every decision and refusal, oldest first; for one that cannot be read, the reason."""
        for row in walk(self._db, "decisions", _COLUMNS, key="n", after=0):
            if isinstance(row, Damaged):
                yield f"decisions after number {row.after} cannot be read: {row.reason}"
                continue
            try:
                yield self._decision(row)
            except (*ERRORS, *_UNDECODABLE, TypeError) as error:
                yield f"decision number {row[0]} cannot be read: {error}"

    def sessions(self) -> list[LoggedSession]:
        """The sessions in the order they were begun."""
        from ..decision import Session

        found = []
        for row in walk(self._db, "sessions", "id, wall, record, crc", key="number", until=_LAST):
            if isinstance(row, Damaged):
                found.append(LoggedSession("", 0, None, None, None, 0, f"cannot be read: {row.reason}"))
                continue
            number, id_, wall, record, crc = row
            if not isinstance(wall, int):
                found.append(LoggedSession(str(id_), 0, None, None, None, 0, "its time cannot be read"))
                continue
            try:
                first, last, ticks = self._db.execute(
                    "SELECT min(id), max(id), count(*) FROM ticks WHERE id BETWEEN ? AND ?",
                    (number * _SEQS, number * _SEQS + _SEQS - 1),
                ).fetchone()
            except ERRORS:
                first = last = None
                ticks = 0
            session, damage = _unpacked(record, crc, number, Session)
            seqs = [None if tick is None else tick % _SEQS for tick in (first, last)]
            found.append(LoggedSession(str(id_), wall, session, seqs[0], seqs[1], ticks, damage))
        return found

    def memory_before(self, place: TickPlace) -> int:
        """The seq of the last tick of the session up to a place that has the engine's memory; 0 without one."""
        low = place.id // _SEQS * _SEQS
        try:
            row = self._db.execute("SELECT max(id) FROM memories WHERE id BETWEEN ? AND ?", (low, place.id)).fetchone()
        except ERRORS as error:
            raise self._broken(error) from None
        return row[0] % _SEQS if isinstance(row[0], int) else 0

    def ticks(self, session: str | None = None, first: int = 0) -> Iterator[LoggedTick]:
        """The ticks of a session, or of all, in order. Where ticks are missing, one LoggedTick says so. `first`: seq."""
        for number, id_ in self._numbers():
            if session is not None and id_ != session:
                continue
            low, high = number * _SEQS + first, number * _SEQS + _SEQS - 1
            begins, last = self._end_of(number)
            expected = None if begins is None else max(low, number * _SEQS + begins)
            lost: tuple[int, str] | None = None  # where the damage begins, and what it is
            for id_of, wall, cells, reason in self._read(low, high):
                if cells is None:
                    lost = lost or (id_of if expected is None else min(id_of, expected), reason)
                    continue
                if lost is not None:
                    yield _missing(id_, lost[0] % _SEQS, id_of % _SEQS - 1, lost[1])
                elif expected is not None and id_of > expected:
                    yield _missing(id_, expected % _SEQS, id_of % _SEQS - 1)
                expected, lost = id_of + 1, None
                yield self._tick(id_of, id_, wall, cells)
            end = number * _SEQS + last if last is not None else None if lost is None else self._newest(low, high)
            if lost is not None:
                yield _missing(id_, lost[0] % _SEQS, max(lost[0], end or 0) % _SEQS, lost[1])
            elif expected is not None and end is not None and expected <= end:
                yield _missing(id_, expected % _SEQS, end % _SEQS)

    def tick(self, session: str, seq: int) -> LoggedTick | None:
        """One tick; None if the log does not have it."""
        for number, id_ in reversed(self._numbers()):
            if id_ == session:
                return self._tick_by_id(number * _SEQS + seq, id_)
        return None

    def place_at(self, wall: int) -> TickPlace | None:
        """The newest tick at or before this time (ns), found without reading ticks; None if all are later. Where the clock was set
        back, it is one of those that show such a time."""
        for number, session in reversed(self._numbers()):
            low, high = self._beside(number * _SEQS), self._beside((number + 1) * _SEQS - 1, before=True)
            if low is None or high is None or low[0] // _SEQS != number or low[1] > wall:
                continue
            found, end = low, high[0]
            if high[1] <= wall:
                found, end = high, high[0]
            first = found[0] + 1
            while first <= end:
                middle = self._beside((first + end) // 2)
                if middle is None or middle[0] > end or middle[1] > wall:
                    end = (first + end) // 2 - 1
                else:
                    found, first = middle, middle[0] + 1
            return TickPlace(found[0], session, found[0] % _SEQS, found[1])
        return None

    def place_beside(self, place: TickPlace | None, ticks: int) -> TickPlace | None:
        """The tick so many ticks after this one in the log, before it if `ticks` is negative; the last or first one if there are
        fewer. `place`: None for before the first one. None if the log has no tick."""
        direction, sign = ("DESC", "<") if ticks < 0 else ("ASC", ">")
        query = f"SELECT id, wall FROM ticks WHERE id {sign} ? ORDER BY id {direction} LIMIT ?"  # noqa: S608 - words from above
        try:
            rows = self._db.execute(query, (-1 if place is None else place.id, abs(ticks))).fetchall()
        except ERRORS as error:
            raise self._broken(error) from None
        if not rows:
            return place
        id_, wall = rows[-1]
        return TickPlace(id_, dict(self._numbers()).get(id_ // _SEQS, ""), id_ % _SEQS, wall)

    def tick_of(self, place: TickPlace) -> LoggedTick | None:
        """The tick of a place; None if it was dropped meanwhile."""
        return self._tick_by_id(place.id, place.session)

    def session_called(self, session: str) -> Session | None:
        """The record of a session; None if the log does not have it, or it cannot be read."""
        from ..decision import Session

        try:
            row = self._db.execute("SELECT record, crc, number FROM sessions WHERE id = ?", (session,)).fetchone()
        except ERRORS as error:
            raise self._broken(error) from None
        found: Session | None = None if row is None else _unpacked(row[0], row[1], row[2], Session)[0]
        return found

    def figures_until(self, place: TickPlace, ticks: int) -> list[TickFigures]:
        """A few figures of at most so many ticks of a session up to a tick, oldest first, faster than reading whole ticks. Damaged
        ones are left out."""
        first = max(place.id - ticks + 1, place.id // _SEQS * _SEQS)
        found = []
        for _, _, data in self.texts(first, place.id):
            try:
                found.append(msgspec.json.decode(data, type=TickFigures))
            except _UNDECODABLE:
                continue
        return found

    def decisions_until(self, place: TickPlace, since: int, limit: int) -> list[LoggedDecision]:
        """The newest decisions and refusals since a time (ns) up to a tick, at most `limit`, oldest first, with what had become of
        them by that tick."""
        query = f"SELECT n, {_COLUMNS} FROM decisions WHERE wall >= ? AND tick <= ? ORDER BY n DESC LIMIT ?"  # noqa: S608
        return self._rows(query, (since, place.id, limit), place.id)[::-1]

    def flags_until(self, place: TickPlace, since: int, limit: int) -> list[LoggedDecision]:
        """As `decisions_until`, but only what reports incidents."""
        query = (
            f"SELECT n, {_COLUMNS} FROM decisions WHERE action = 'flag' AND wall >= ? AND tick <= ? "  # noqa: S608
            "ORDER BY n DESC LIMIT ?"
        )
        return self._rows(query, (since, place.id, limit), place.id)[::-1]

    def changes_until(self, place: TickPlace, since: int, limit: int) -> list[LoggedDecision]:
        """Of each value that was changed or restored since a time (ns), the newest such decision up to a tick, with what had become
        of it by that tick. At most `limit`, oldest first."""
        newest = (
            "SELECT max(n) FROM decisions WHERE action IN ('set', 'restore') AND refusal IS NULL AND wall >= ? AND tick <= ? "
            "GROUP BY target, json_extract(decision, '$.action.control') ORDER BY 1 DESC LIMIT ?"
        )
        query = f"SELECT n, {_COLUMNS} FROM decisions WHERE n IN ({newest}) ORDER BY n"  # noqa: S608
        return self._rows(query, (since, place.id, limit), place.id)

    def _beside(self, id_: int, before: bool = False) -> tuple[int, int] | None:
        """(id, wall) of the first tick from this id on, or of the last one up to it."""
        up, down = (
            "SELECT id, wall FROM ticks WHERE id >= ? ORDER BY id LIMIT 1",
            "SELECT id, wall FROM ticks WHERE id <= ? ORDER BY id DESC LIMIT 1",
        )
        try:
            row = self._db.execute(down if before else up, (id_,)).fetchone()
        except ERRORS as error:
            raise self._broken(error) from None
        return row if row is not None and isinstance(row[0], int) and isinstance(row[1], int) else None

    def place_since(self, wall: int) -> TickPlace | None:
        """The tick after the one that `place_at` has for the time just before `wall` (ns); None if there is none."""
        before = self.place_at(wall - 1)
        after = self.place_beside(before, 1)
        return None if after == before else after

    def texts(self, first: int, last: int = _NO_END) -> Iterator[tuple[int, int, bytes]]:
        """(id, wall, JSON) of the ticks from one id to another, for what reads many of them. Those that cannot be read are left
        out."""
        for id_, wall, cells, _ in self._read(first, last):
            if cells is not None:
                yield id_, wall, cells.json(id_ % _SEQS, wall)[0]

    def outline(self, since: int, until: int, limit: int) -> list[tuple[int, str, str, str, str]]:
        """(wall, id, action, target, status) of the newest `limit` decisions and refusals with since <= wall < until (ns), oldest
        first: what `find` has, without reading the records."""
        query = (
            "SELECT wall, id, action, target, status FROM decisions WHERE wall >= ? AND wall < ? AND refusal IS NULL "
            "ORDER BY wall DESC LIMIT ?"
        )
        try:
            return self._db.execute(query, (since, until, limit)).fetchall()[::-1]
        except ERRORS as error:
            raise self._broken(error) from None

    def latest(self) -> LoggedTick | None:
        """The last tick that was logged; None if there is none."""
        try:
            (last,) = self._db.execute("SELECT max(id) FROM ticks WHERE id >= 0").fetchone()
        except ERRORS as error:
            raise self._broken(error) from None
        return None if last is None else self._tick_by_id(last, dict(self._numbers()).get(last // _SEQS, ""))

    def _tick_by_id(self, id_: int, session: str) -> LoggedTick | None:
        try:
            there = self._db.execute("SELECT count(*) FROM ticks WHERE id = ?", (id_,)).fetchone() == (1,)
        except ERRORS as error:
            raise self._broken(error) from None
        if not there:
            return None
        for _, wall, cells, reason in self._read(id_, id_):
            return _missing(session, id_ % _SEQS, id_ % _SEQS, reason) if cells is None else self._tick(id_, session, wall, cells)
        return _missing(session, id_ % _SEQS, id_ % _SEQS, "cannot be read")

    def _read(self, first: int, last: int) -> Iterator[tuple[int, int, Cells | None, str]]:
        """(id, wall, cells, "") of the ticks from one id to another, read from the keyframe before; without cells, why they cannot
        be read. The cells hold until the next one. Goes on where the last reading ended, if that is nearer than the keyframe."""
        cells, before, crc, reason = Cells(), -1, 0, "the keyframe before it is lost"
        whole, begin = False, self._keyframe_before(first)
        kept, self._kept = self._kept, None  # a reading at the same time has cells of its own
        if kept is not None and begin <= kept[0] < first:
            before, crc, cells = kept
            whole, begin = True, before + 1
        pieces = "SELECT data FROM pieces WHERE n BETWEEN ? AND ? ORDER BY n"
        try:
            for row in walk(self._db, "ticks", "wall, crc, keyframe, first, count", after=begin - 1, until=last, chunk=32):
                if isinstance(row, Damaged):
                    whole, reason = False, row.reason
                    yield max(row.after + 1, first), 0, None, reason
                    continue
                id_, wall, own, keyframe, piece, count = row
                try:
                    data = b"".join(part for (part,) in self._db.execute(pieces, (piece, piece + count - 1)))
                    if not keyframe and (not whole or id_ != before + 1):
                        reason = reason if not whole else f"tick {(before + 1) % _SEQS} is missing"
                        whole = False
                    elif _tick_crc(id_, wall, bool(keyframe), data, crc) != own:
                        whole, reason = False, f"the checksum of tick {id_ % _SEQS} does not hold"
                    else:
                        cells.follow(data, keyframe=bool(keyframe))
                        whole, before, crc = True, id_, own
                except (*ERRORS, struct.error, TypeError, OverflowError, RecordError) as error:
                    whole, reason = False, f"tick {id_ % _SEQS} cannot be read: {error}"
                if id_ >= first:
                    yield (id_, wall, cells, "") if whole else (id_, 0, None, reason)
        finally:
            if whole:
                self._kept = before, crc, cells

    def _keyframe_before(self, id_: int) -> int:
        """The last keyframe of the session up to this id; the id itself if there is none, or it cannot be read."""
        query = "SELECT id FROM ticks WHERE id BETWEEN ? AND ? AND keyframe ORDER BY id DESC LIMIT 1"
        try:
            row = self._db.execute(query, (id_ // _SEQS * _SEQS, id_)).fetchone()
        except ERRORS:
            return id_
        return row[0] if row is not None and isinstance(row[0], int) and row[0] <= id_ else id_

    def _numbers(self) -> list[tuple[int, str]]:
        """(number, id) of the sessions; a session whose row cannot be read has no id."""
        rows = walk(self._db, "sessions", "id", key="number", until=_LAST)
        known = {row[0]: str(row[1]) for row in rows if not isinstance(row, Damaged)}
        number = -1
        while number < _LAST:  # one look-up per session, not a scan of the ticks
            try:
                row = self._db.execute("SELECT id FROM ticks WHERE id >= ? ORDER BY id LIMIT 1", ((number + 1) * _SEQS,)).fetchone()
            except ERRORS:
                break
            if row is None or not isinstance(row[0], int) or row[0] // _SEQS <= number:  # the last: a damaged tree leads back
                break
            number = row[0] // _SEQS
            known.setdefault(number, "")
        return sorted(known.items())

    def _end_of(self, number: int) -> tuple[int | None, int | None]:
        """Seqs of the first and last tick that a session must have; None where that is not known, or cannot be read."""
        try:
            row = self._db.execute("SELECT number, first, last, crc FROM ends WHERE number = ?", (number,)).fetchone()
        except ERRORS:
            return None, None
        if row is None or row[3] != zlib.crc32(repr(row[:3]).encode()):
            return None, None
        return row[1], row[2]

    def _newest(self, low: int, high: int) -> int | None:
        try:
            (last,) = self._db.execute("SELECT max(id) FROM ticks WHERE id BETWEEN ? AND ?", (low, high)).fetchone()
        except ERRORS:
            return None
        return last if isinstance(last, int) else None

    def _tick(self, id_: int, session: str, wall: int, cells: Cells) -> LoggedTick:
        from ..decision import Outcome, Tick, Verdict

        data, said, done = cells.json(id_ % _SEQS, wall)
        wrong: list[str] = []

        def decoded(text: bytes, kind: Any, what: str) -> Any:
            try:
                return msgspec.json.decode(text, type=kind)
            except _UNDECODABLE:
                wrong.append(what)

        tick: Tick | None = decoded(data, Tick, "tick")
        verdict: Verdict | None = decoded(said, Verdict, "verdict")
        outcomes: tuple[Outcome, ...] | None = decoded(done, tuple[Outcome, ...], "outcomes of the verdict")
        memory: dict[str, Any] | None = None
        try:
            kept = self._db.execute("SELECT memory, crc FROM memories WHERE id = ?", (id_,)).fetchone()
        except ERRORS:
            kept = None
            wrong.append("memory")
        if kept is not None:
            memory, damage = _unpacked(kept[0], kept[1], id_, dict[str, Any])
            wrong += ["memory"] if damage else []
        return LoggedTick(session, id_ % _SEQS, data, tick, verdict, outcomes, memory, tuple(wrong))

    def _rows(self, query: str, values: tuple[Any, ...], until: int = _NO_END) -> list[LoggedDecision]:
        try:
            return [self._decision(row, until) for row in self._db.execute(query, values).fetchall()]
        except (*ERRORS, *_UNDECODABLE, TypeError) as error:
            raise self._broken(error) from None

    def _decision(self, row: tuple[Any, ...], until: int = _NO_END) -> LoggedDecision:
        """The decision of a row, with what became of it up to this tick. Raises what `_UNDECODABLE` and `ERRORS` name, and
        TypeError, if it is none."""
        from ..decision import Decision, Effect, Outcome, Refusal

        n, *values, status, decision, refusal, crc, tick = row
        id_, session, seq, wall, policy, action, target, pids = values
        outcomes, effects = (
            tuple(
                str(record)
                for (record,) in self._db.execute(
                    f"SELECT record FROM {table} WHERE decision = ? AND tick BETWEEN ? AND ? ORDER BY n",  # noqa: S608 - from below
                    (id_, tick, until),
                )
            )
            for table in ("outcomes", "effects")
        )
        texts = (id_, session, policy, action, target, pids, status, decision, refusal or "")
        if not all(isinstance(text, str) for text in texts) or not (isinstance(seq, int) and isinstance(wall, int)):
            raise TypeError("a column has a wrong type")
        msgspec.json.decode(decision, type=Decision)
        if refusal is not None:
            msgspec.json.decode(refusal, type=Refusal)
        for text in outcomes:
            msgspec.json.decode(text, type=Outcome)
        for text in effects:
            msgspec.json.decode(text, type=Effect)
        intact = crc == _row_crc(tuple(values), decision, refusal)
        about = msgspec.json.decode(pids, type=tuple[int, ...])
        return LoggedDecision(
            n, id_, session, seq, wall, policy, action, target, about, status, decision, refusal, outcomes, effects, intact
        )

    def _broken(self, error: Exception) -> StoreError:
        return StoreError(
            f"the decision log {self.path} cannot be read there: {error}; `nicety replay` and `nicety export` read what is left of "
            "it; move it away and nicety begins a new one"
        )


_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec may raise for JSON that is damaged. It nests as deep as Python may call."""


class _Scores(msgspec.Struct):
    """The scores of a tick and nothing else."""

    scores: tuple[Score, ...]


def _missing(session: str, first: int, last: int, reason: str = "missing") -> LoggedTick:
    """What stands for ticks that cannot be read."""
    which = f"tick {first}" if first >= last else f"ticks {first} to {last}"
    said = f"{which} missing" if reason == "missing" else f"{which}: {reason}"
    return LoggedTick(session, first, b"", None, None, None, None, (said,))


def _unzipped(packed: Any) -> tuple[bytes, str]:
    """(what was compressed, "") or (b"", what is wrong)."""
    if not isinstance(packed, bytes):
        return b"", "not a blob"
    unzip = zlib.decompressobj()
    try:
        data = unzip.decompress(packed, MAX_BYTES)
    except zlib.error as error:
        return b"", str(error)
    return (data, "") if unzip.eof and not unzip.unused_data else (b"", "it does not end where it should")


def _unpacked(packed: Any, crc: Any, id_: int, kind: Any) -> tuple[Any, str]:
    """(record, "") or (None, what is wrong)."""
    data, damage = _unzipped(packed)
    if damage:
        return None, damage
    if _crc(id_, data) != crc:
        return None, "its checksum does not hold"
    try:
        return msgspec.json.decode(data, type=kind), ""
    except _UNDECODABLE as error:
        return None, f"not a record of this version: {error}"
