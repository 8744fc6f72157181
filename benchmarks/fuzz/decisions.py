"""Targets: the decision log. Damaged files, and records of any content whose checksums hold."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from nicety.models.identity import ProcId
from nicety.models.records import Anomaly, Class, Score
from nicety.scheduler.decision import (
    Abilities,
    Decision,
    Effect,
    Flag,
    Outcome,
    Refusal,
    ResizePool,
    Session,
    Set,
    Tick,
    Verdict,
    Why,
    encode,
)
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.places import Control
from nicety.scheduler.hands.safe_files import StoreError
from nicety.scheduler.places import ProcessPlace
from nicety.scheduler.printed import plain
from nicety.scheduler.read.evidence import Evidence
from nicety.scheduler.store.decisions import DecisionLog, DecisionReader, LoggedDecision, _crc, _digest, _row_crc
from nicety.scheduler.store.export import export_decisions
from nicety.scheduler.store.records import record_of
from nicety.scheduler.testing.ticks import a_forecast, a_group, a_member, a_pool, a_tick

from .target import DAMAGE, BrokenError, Case, Edits, Target, workplace, write

_SESSION = Session(
    *("00000001", "boot", 10**9, "0", "act", ProcId(9, 9), Abilities(True, "v2", True), {"daemon": {"act": True}}),
    artefacts={"demand": "3f9a"},
    engine={"n": 0},
)
_WHY = Why("floor", "because", {"load": 1.5}, ("3 workers: too few",), ())
_RESIZE = Decision("1-0.0", "pool_size", "pool web", ResizePool("web", 3), _WHY)
_NICE = Decision("1-1.0", "priority", "group hogs pid 51", Set(Control.NICE, ProcessPlace(ProcId(51, 51)), 19), _WHY)
_FLAG = Decision("1-2.0", "quarantine", "pool web pid 9001", Flag("web", ProcId(9001, 9001), "leak"), _WHY)
_DONE = Outcome(_RESIZE.id, Status.APPLIED, _RESIZE.target, "it is applied", 1)
_LOOK = Evidence(ProcId(9001, 9001), "python3", "S", "ep_poll", "", (), 1.5, 2, (), (), 3, (), (), 1024, (), ())


def _tick(seq: int) -> Tick:
    return a_tick(
        seq,
        groups=[a_group("hogs", Class.BATCH, [a_member(51, session=50)], cpu=0.5 + seq), a_group("web", Class.INTERACTIVE)],
        pools=[a_pool("web", size=1)],
        forecasts=[a_forecast("web", "load", 0.1 + seq)],
        scores=(Score(ProcId(9000, 9000), "web", Anomaly.LEAK, 1.5, 0.25, (("slope_mib", 2.0),), "baseline"),),
    )


def _template() -> bytes:
    """A log of three ticks: a decision, a refusal, an incident with its snapshot and an effect."""
    with workplace() as place:
        log = DecisionLog(place, 1 << 30)
        log.begin(_SESSION)
        log.append(_tick(0), Verdict((_RESIZE,), (), ()), [_DONE], {"n": 0})
        log.append(_tick(1), Verdict((), (Refusal(_NICE, "cool-down", "too soon"),), ()), ())
        helped = Effect(_RESIZE.id, "wait of web, cores", 0.5, 0.25, 3, "helped")
        log.append(_tick(2), Verdict((_FLAG,), (), (helped,)), (), None, {_FLAG.id: (_LOOK,)})
        log.close()
        return (place / "decisions.db").read_bytes()


def _documented(read: Callable[[], Any]) -> Any:
    """What a reader returns; None if it refuses as documented."""
    try:
        return read()
    except StoreError:
        return None


def _look(it: LoggedDecision) -> None:
    """All that pages and exports take from a decision."""
    for part in ("decision", "refusal", "outcomes", "effects"):
        _documented(lambda part=part: getattr(it, part))
    _documented(lambda: plain(record_of(it)))


def _read(path: Path) -> tuple[list[LoggedDecision], list[Any]] | None:
    """Decisions and ticks of a log, by every reader; None if it is refused as documented."""
    try:
        reader = DecisionReader(path)
    except StoreError:
        return None
    with reader:
        found = [it for it in reader.all_decisions() if not isinstance(it, str)]
        ticks = list(reader.ticks())
        _documented(reader.sessions)
        _documented(reader.latest)
        _documented(lambda: reader.tick("00000001", 1))
        _documented(lambda: list(reader.scores("00000001", 0, 5)))
        _documented(lambda: reader.evidence(_FLAG.id))
        for query in ({}, {"pid": 51}, {"id": _RESIZE.id}, {"target": "web", "limit": 1}):
            found += _documented(lambda query=query: reader.find(**query)) or []
        for it in found:
            _look(it)
    for format_ in ("csv", "jsonl"):
        _documented(lambda format_=format_: export_decisions(path, path.with_name("export"), format_))
    return found, ticks


# --- files --------------------------------------------------------------------------------------------------------------------


def _prepare_file(place: Path) -> Case:
    path = place / "decisions.db"
    template = _template()
    edits = Edits(template)
    texts = {encode(each).decode() for each in (_RESIZE, _NICE, _FLAG)}
    data = {encode(_tick(seq)) for seq in range(3)}

    def run(case: bytes) -> None:
        for left in place.iterdir():
            left.unlink()
        write(path, edits(case))
        result = _read(path)
        if result is None:
            return
        found, ticks = result
        strange = [it for it in found if it.intact and it.decision_json not in texts]
        strange += [it for it in ticks if it.tick is not None and not it.damage and it.data not in data]
        if strange and not _forged(path, template):
            raise BrokenError(f"was never written: {strange}")
        if not case and (len(found) != 9 or len(ticks) != 3 or any(it.damage for it in ticks)):
            raise BrokenError(f"not all came back: {len(found)} decisions, {[it.damage for it in ticks]}")

    return run


def _forged(path: Path, template: bytes) -> bool:
    """Whether an engine that watches comparisons has found a checksum of rows of its own: the file has one that is not ours."""

    def sums(db: sqlite3.Connection) -> set[Any]:
        return {*db.execute("SELECT crc FROM decisions"), *db.execute("SELECT digest, sums FROM verdicts")}

    with closing(sqlite3.connect(":memory:")) as genuine, closing(sqlite3.connect(path)) as db:
        genuine.deserialize(template)
        return not sums(db) <= sums(genuine)


# --- records ------------------------------------------------------------------------------------------------------------------

_LOOKS_LIKE: tuple[tuple[str, Any], ...] = (
    ("session", _SESSION),
    ("tick", _tick(1)),
    ("verdict", Verdict((_RESIZE,), (Refusal(_NICE, "a", "b"),), ())),
    ("outcomes", (_DONE,)),
    ("memory", {"n": 0}),
    ("decision", _RESIZE),
    ("refusal", Refusal(_NICE, "cool-down", "too soon")),
    ("pids", (51, 52)),
    ("outcome", _DONE),
    ("effect", Effect("1-0.0", "wait", 0.5, 0.25, 3, "helped")),
    ("evidence", _LOOK),
)
"""The first byte of a case says which record is replaced by the rest of it."""


def _record_seeds() -> Sequence[bytes]:
    seeds = [bytes([kind]) + encode(record) for kind, (_, record) in enumerate(_LOOKS_LIKE)]
    seeds += [*(bytes([kind]) + data for kind in range(len(_LOOKS_LIKE)) for data in (b"null", b"\xff", b"[" * 1500))]
    deep = b"[" * 1500 + b"]" * 1500
    return [*seeds, b"\0" + encode(_SESSION).replace(b"true}}", deep + b"}}"), b"\4" + b'{"n":' + deep + b"}"]


def _replace(db: sqlite3.Connection, name: str, data: bytes) -> None:
    """Put a record into the valid log, with the checksums that it would have."""
    id_ = (1 << 32) + 1
    packed, text = zlib.compress(data, 1), data.decode("utf-8", "replace")
    match name:
        case "session":
            db.execute("UPDATE sessions SET record = ?, crc = ?", (packed, _crc(1, data)))
        case "tick":
            db.execute("UPDATE ticks SET tick = ? WHERE id = ?", (packed, id_))
            db.execute("UPDATE verdicts SET digest = ? WHERE id = ?", (_digest(data), id_))
        case "verdict" | "outcomes":
            db.execute(f"UPDATE verdicts SET {name} = ?, {name}_crc = ? WHERE id = ?", (packed, _crc(id_, data), id_))
        case "memory":
            db.execute("UPDATE memories SET memory = ?, crc = ?", (packed, _crc(id_ - 1, data)))
        case "decision" | "refusal" | "pids":
            db.execute(f"UPDATE decisions SET {name} = ? WHERE n = 2", (text,))
            columns = "id, session, seq, wall, policy, action, target, pids, decision, refusal"
            *values, decision, refusal = db.execute(f"SELECT {columns} FROM decisions WHERE n = 2").fetchone()
            db.execute("UPDATE decisions SET crc = ? WHERE n = 2", (_row_crc(tuple(values), decision, refusal),))
        case _:
            db.execute(f"UPDATE {name if name == 'evidence' else name + 's'} SET record = ?", (text,))


def _prepare_records(place: Path) -> Case:
    path = place / "decisions.db"
    template = _template()

    def run(case: bytes) -> None:
        name, _ = _LOOKS_LIKE[case[0] % len(_LOOKS_LIKE)]
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
            db.deserialize(template)
            _replace(db, name, case[1:])
            write(path, db.serialize())
        if _read(path) is None:
            raise BrokenError("a whole log is refused")

    return lambda case: run(case) if case else None


def _words() -> Iterator[bytes]:
    """Names of fields, and values that JSON has and records have not."""
    yield from (b"null", b"true", b"1e999", b"-1", b"9223372036854775808", b"\\ud800", b"[", b"]", b"{", b"}", b'{"type":"set"')
    yield from (f'"{name}":'.encode() for name in ("id", "action", "why", "figures", "groups", "members", "scores", "decision"))


def _file_seeds() -> Sequence[bytes]:
    edits = Edits(_template())
    return [*DAMAGE, *(edits.of(text, b"#") for text in (b"pool web", b"because", b"too soon", b"it is applied", b"ep_poll"))]


FILE = Target("decision file", _file_seeds, _prepare_file, (b"ticks", b"decisions", b"1-0.0", b"00000001", b"\x78\x01"))
RECORDS = Target("decision records", _record_seeds, _prepare_records, tuple(_words()))
