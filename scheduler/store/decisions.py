"""The decision log: each tick, what was decided, refused and done, and whether it helped. Must not know why it was decided.

One SQLite file `decisions.db` in the state directory. `number` is a session's place in the file, a tick's id is number << 32 | seq.

    sessions   number, id, wall, record (zlib of JSON `decision.Session`), crc
    ticks      id, wall, tick (zlib of canonical JSON)
    verdicts   id, digest of the tick's JSON, sums (a CRC32 for each component of it), verdict and outcomes (zlib of JSON), crcs
    memories   id, memory (zlib of JSON): the engine's memory before that tick; replay can begin there
    decisions  a row for each decision and refusal, for people and queries; pids beside it in `pids`
    outcomes, effects  each as it came, by the decision's id
    evidence   snapshots of the processes that a decision is about (JSON `read.evidence.Evidence`), taken before it was done

The proof of a tick is stored apart from the tick, so a changed figure is found and named. When the budget is used up, the oldest
ticks are dropped, up to a memory or to the next session, with everything that belongs to them.

Reading needs no numpy: the types of `decision` are imported only where a record is decoded into one.
"""

from __future__ import annotations

import hashlib
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
from .files import set_aside

if TYPE_CHECKING:
    from ..decision import Action, Decision, Effect, Outcome, Refusal, Session, Tick, Verdict
    from ..read.evidence import Evidence

APPLICATION = 0x6E636465  # "ncde" in PRAGMA application_id
SCHEMA = 7
"""Version of the tables and of every record in them: a change of a type in `decision` needs a new number."""

KEYFRAME_TICKS = 600
"""The engine's memory is stored this often: a replay of a log whose beginning was dropped skips at most this, 10 min at 1 Hz.
Chosen."""

MAX_BYTES = 1 << 24
"""A record that unpacks to more is damage, and none is written. Chosen: a tick with 10,000 processes takes about 1 MB; empty lists,
the worst that so many bytes can hold, take 400 MB in memory."""

REFUSED_BY_GUARD = "refused by guard"
NO_OUTCOME = "no outcome"
"""Values of `LoggedDecision.status` besides those of `decision.Status`."""

_SEQS = 1 << 32
_NO_END = (1 << 63) - 1
_LAST = (1 << 31) - 1  # the greatest number of a session: ids of ticks are 63 bits
_TABLES = """
CREATE TABLE sessions(number INTEGER PRIMARY KEY, id TEXT NOT NULL, wall INTEGER NOT NULL, record BLOB NOT NULL,
    crc INTEGER NOT NULL);
CREATE TABLE ticks(id INTEGER PRIMARY KEY, wall INTEGER NOT NULL, tick BLOB NOT NULL);
CREATE TABLE verdicts(id INTEGER PRIMARY KEY, digest BLOB NOT NULL, sums BLOB NOT NULL, verdict BLOB NOT NULL,
    verdict_crc INTEGER NOT NULL, outcomes BLOB NOT NULL, outcomes_crc INTEGER NOT NULL);
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
    damage: tuple[str, ...]  # components whose checksum does not hold, e.g. "pools[web]"; () if whole


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
        self.limit(budget_bytes)
        self._inode = 0
        self._session: Session | None = None
        self._number: int | None = None
        self._last_seq = -1
        self._last_outcomes: frozenset[Outcome] = frozenset()
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
        self._wal_pages = min(256, max(8, budget_bytes // (8 * PAGE)))

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
        self._session = session
        self._number = None
        self._last_seq = -1
        self._last_outcomes = frozenset()
        self._ticks_since_memory = self._bytes_since_memory = 0
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
        """Write a tick, the verdict on it, and the outcomes; it is committed when this returns.

        `memory`: the engine's before this tick, see `keyframe_due`. `evidence`: snapshots by decision. Raises ValueError if out of
        order or before `begin`.
        """
        if self._session is None:
            raise ValueError("begin a session before its ticks")
        if tick.seq <= self._last_seq:
            raise ValueError(f"tick {tick.seq} after tick {self._last_seq}: the ticks of a session must rise")
        if self._broken_by(tick.seq):
            self._broken = True
        self._last_seq = tick.seq
        try:
            if self._full and memory is None:
                raise StoreError(
                    "the budget of the decision log is used up, and nothing may be dropped before the engine's memory comes; "
                    "give store.decision_bytes more if this lasts"
                )
            db = self._ready(self._session)
            assert self._number is not None
            self._write(db, self._number * _SEQS + tick.seq, tick, verdict, outcomes, memory, evidence or {})
        except (*ERRORS, OSError, StoreError) as error:
            self._fail(error)
            self.dropped += 1
            self._broken = True
            return
        self.last_error = ""
        self._last_outcomes = frozenset(outcomes)
        self._ticks_since_memory += 1
        if memory is not None:
            self._ticks_since_memory = 1
            self._bytes_since_memory = 0
            self._broken = False
        try:
            self._keep_budget(db)
        except (*ERRORS, OSError, StoreError) as error:
            self.last_error = trouble(error)

    def close(self) -> None:
        """Leave a single plain file behind. May be called twice; like `append`, never raises for the disk."""
        if self._db is not None:
            db, self._db = self._db, None
            self.last_error = seal(db) or self.last_error

    def _broken_by(self, seq: int) -> bool:
        """Whether a tick with this seq leaves a gap, so that the engine's memory is not what the log would give."""
        return self._last_seq >= 0 and seq != self._last_seq + 1

    def _write(
        self,
        db: sqlite3.Connection,
        id_: int,
        tick: Tick,
        verdict: Verdict,
        outcomes: Sequence[Outcome],
        memory: Mapping[str, Any] | None,
        evidence: Mapping[str, Sequence[Evidence]],
    ) -> None:
        from ..decision import encode

        data, said, done = encode(tick), encode(verdict), encode(tuple(outcomes))
        packed, packed_said, packed_done = _packed(data), _packed(said), _packed(done)
        db.execute("BEGIN IMMEDIATE")
        try:
            db.execute("INSERT INTO ticks VALUES (?, ?, ?)", (id_, tick.wall, packed))
            db.execute(
                "INSERT INTO verdicts VALUES (?, ?, ?, ?, ?, ?, ?)",
                (id_, _digest(data), _sums(tick), packed_said, _crc(id_, said), packed_done, _crc(id_, done)),
            )
            if memory is not None:
                remembered = encode(memory)
                db.execute("INSERT INTO memories VALUES (?, ?, ?)", (id_, _packed(remembered), _crc(id_, remembered)))
            for decision in verdict.decisions:
                self._write_decision(db, id_, tick, decision, None)
            for refusal in verdict.refusals:
                self._write_decision(db, id_, tick, refusal.decision, refusal)
            # The daemon passes outcomes on to the next tick, which may add its own.
            self._write_outcomes(db, id_, tick.wall, [it for it in tick.outcomes if it not in self._last_outcomes])
            self._write_outcomes(db, id_, tick.wall, outcomes)
            db.executemany(
                "INSERT INTO evidence(tick, decision, record) VALUES (?, ?, ?)",
                [(id_, decision, encode(each).decode()) for decision, looks in sorted(evidence.items()) for each in looks],
            )
            for effect in verdict.effects:
                record = encode(msgspec.structs.replace(effect, others=())).decode()
                db.executemany(
                    "INSERT INTO effects(tick, wall, decision, record) VALUES (?, ?, ?, ?)",
                    [(id_, tick.wall, decision, record) for decision in (effect.decision, *effect.others)],
                )
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self._bytes_since_memory += len(packed) + len(packed_said) + len(packed_done)

    def _write_decision(self, db: sqlite3.Connection, id_: int, tick: Tick, decision: Decision, refusal: Refusal | None) -> None:
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
        cursor = db.execute(
            "INSERT INTO decisions(id, session, seq, wall, policy, action, target, pids, tick, status, decision, refusal, crc) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*values, id_, status, text, no, _row_crc(values, text, no)),
        )
        db.executemany("INSERT INTO pids VALUES (?, ?)", [(pid, cursor.lastrowid) for pid in pids])

    def _write_outcomes(self, db: sqlite3.Connection, id_: int, wall: int, outcomes: Iterable[Outcome]) -> None:
        from ..decision import encode

        for outcome in outcomes:
            record = encode(outcome).decode()
            db.execute(
                "INSERT INTO outcomes(tick, wall, decision, status, target, record) VALUES (?, ?, ?, ?, ?, ?)",
                (id_, wall, outcome.decision, outcome.status.value, outcome.target, record),
            )
            db.execute(
                "UPDATE decisions SET status = ? WHERE n = (SELECT max(n) FROM decisions WHERE id = ?)",
                (outcome.status.value, outcome.decision),
            )

    # --- the file -------------------------------------------------------------------------------------------------------------

    def _ready(self, session: Session) -> sqlite3.Connection:
        """The open log, with the session's row in it."""
        if self._db is not None and not self._still_there():
            discard(self._db)
            self._db = None
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
            return db
        raise StoreError(f"{self._path} cannot be used and a new one cannot be made; look at the disk")

    def _fail(self, error: Exception) -> None:
        self.last_error = trouble(error)
        if isinstance(error, StoreError):
            return
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
            for table in ("ticks", "verdicts", "memories"):
                db.execute(f"DELETE FROM {table} WHERE id < ?", (upto,))  # noqa: S608 - names from the line above
            for table in ("decisions", "outcomes", "effects", "evidence"):
                db.execute(f"DELETE FROM {table} WHERE tick < ?", (upto,))  # noqa: S608
            db.execute("DELETE FROM sessions WHERE number < ?", (upto // _SEQS,))
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


# --- proof --------------------------------------------------------------------------------------------------------------------


_NAMES: dict[str, Callable[[Any], str]] = {
    "groups": lambda group: group.name,
    "pools": lambda pool: pool.name,
    "forecasts": lambda forecast: f"{forecast.target} {forecast.metric}",
    "scores": lambda score: f"{score.id.pid} {score.kind}",
}
"""The parts of a tick that have a checksum for each of their elements, and the name of an element."""


def _components(tick: Tick) -> list[tuple[str, list[tuple[str, bytes]]]]:
    """(part, [(component, its canonical JSON)]) of a tick: every field of it is in exactly one."""
    from ..decision import encode

    parts: list[tuple[str, list[tuple[str, bytes]]]] = []
    scalars = {}
    for field in tick.__struct_fields__:
        value = getattr(tick, field)
        if field in _NAMES:
            parts.append((field, [(f"{field}[{_NAMES[field](one)}]", encode(one)) for one in value]))
        elif isinstance(value, bool | int | float | str | None):
            scalars[field] = value
        else:
            parts.append((field, [(field, encode(value))]))
    return [*parts, ("scalars", [("scalars", encode(scalars))])]


def _sums(tick: Tick) -> bytes:
    """The number of components of each part, then the CRC32 of each component; all u4, little-endian."""
    parts = _components(tick)
    counts = [len(components) for _, components in parts]
    crcs = [zlib.crc32(data) for _, components in parts for _, data in components]
    return struct.pack(f"<{len(counts) + len(crcs)}I", *counts, *crcs)


def _differing(tick: Tick, sums: bytes) -> tuple[str, ...]:
    """The components of a tick that differ from what `_sums` had."""
    parts = _components(tick)
    numbers = struct.unpack(f"<{len(sums) // 4}I", sums[: len(sums) // 4 * 4])
    counts, crcs = numbers[: len(parts)], iter(numbers[len(parts) :])
    if len(counts) != len(parts) or len(numbers) != len(parts) + sum(counts):
        return ("sums",)
    wrong = []
    for count, (part, components) in zip(counts, parts, strict=True):
        then = [next(crcs) for _ in range(count)]
        if count != len(components):
            wrong.append(f"{part}: {len(components)} of {count}")
        else:
            wrong += [name for crc, (name, data) in zip(then, components, strict=True) if zlib.crc32(data) != crc]
    return tuple(wrong)


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


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
        for row in walk(self._db, "ticks", "tick", after=number * _SEQS + first - 1, until=number * _SEQS + last, chunk=64):
            if isinstance(row, Damaged):
                continue
            data, damage = _unzipped(row[1])
            if not damage:
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
            expected, last = self._proven(low, high)
            for row in walk(self._db, "ticks", "tick", after=low - 1, until=high, chunk=64):
                if isinstance(row, Damaged):
                    continue  # shows as ticks missing
                if expected is not None and row[0] > expected:
                    yield _missing(id_, expected % _SEQS, row[0] % _SEQS - 1)
                expected = row[0] + 1
                yield self._tick(row[0], id_, row[1])
            if expected is not None and last is not None and expected <= last:
                yield _missing(id_, expected % _SEQS, last % _SEQS)

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
        first = max(place.id - ticks, place.id // _SEQS * _SEQS - 1)
        found = []
        for row in walk(self._db, "ticks", "tick", after=first, until=place.id, chunk=64):
            if isinstance(row, Damaged):
                continue
            data, damage = _unzipped(row[1])
            if not damage:
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

    def texts(self, first: int) -> Iterator[tuple[int, int, bytes]]:
        """(id, wall, JSON) of the ticks from the id `first` on, for what reads many of them: nothing is proven, and damaged ones
        are left out."""
        for row in walk(self._db, "ticks", "wall, tick", after=first - 1, chunk=16):
            if not isinstance(row, Damaged) and isinstance(row[1], int):
                data, damage = _unzipped(row[2])
                if not damage:
                    yield row[0], row[1], data

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
            row = self._db.execute("SELECT tick FROM ticks WHERE id = ?", (id_,)).fetchone()
        except ERRORS as error:
            raise self._broken(error) from None
        return None if row is None else self._tick(id_, session, row[0])

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

    def _proven(self, low: int, high: int) -> tuple[int | None, int | None]:
        """First and last tick of a session that has a verdict; None if that cannot be read."""
        try:
            first, last = self._db.execute("SELECT min(id), max(id) FROM verdicts WHERE id BETWEEN ? AND ?", (low, high)).fetchone()
        except ERRORS:
            return None, None
        return first, last

    def _tick(self, id_: int, session: str, packed: Any) -> LoggedTick:
        from ..decision import Outcome, Tick, Verdict

        data, damage = _unzipped(packed)
        wrong = ["tick"] if damage else []
        tick = None
        if not damage:
            try:
                tick = msgspec.json.decode(data, type=Tick)
            except _UNDECODABLE:
                wrong.append("tick")
        try:
            proof = self._db.execute(
                "SELECT digest, sums, verdict, verdict_crc, outcomes, outcomes_crc FROM verdicts WHERE id = ?", (id_,)
            ).fetchone()
            kept = self._db.execute("SELECT memory, crc FROM memories WHERE id = ?", (id_,)).fetchone()
        except ERRORS:
            proof, kept = None, None
            wrong.append("memory")
        verdict: Verdict | None = None
        outcomes: tuple[Outcome, ...] | None = None
        if proof is None:
            wrong += ["verdict", "outcomes of the verdict"]
        else:
            digest, sums, said, said_crc, done, done_crc = proof
            if tick is not None:
                found = _differing(tick, bytes(sums)) if isinstance(sums, bytes) else ("sums",)
                wrong += found
                if not found and _digest(data) != digest:
                    wrong.append("tick")
                if tick.seq != id_ % _SEQS:
                    wrong.append("seq")
            verdict, damage = _unpacked(said, said_crc, id_, Verdict)
            wrong += ["verdict"] if damage else []
            outcomes, damage = _unpacked(done, done_crc, id_, tuple[Outcome, ...])
            wrong += ["outcomes of the verdict"] if damage else []
        memory: dict[str, Any] | None = None
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


def _missing(session: str, first: int, last: int) -> LoggedTick:
    which = f"tick {first}" if first == last else f"ticks {first} to {last}"
    return LoggedTick(session, first, b"", None, None, None, None, (f"{which} missing",))


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
