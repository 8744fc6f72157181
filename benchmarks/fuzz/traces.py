"""Targets: the trace store. Damaged files, and records of any content whose checksums hold."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, HostSample, Identity, PoolSample, Quota, Snapshot, WorkerSample
from nicety.scheduler.store.codec import encode
from nicety.scheduler.store.export import export
from nicety.scheduler.store.traces import TraceError, TraceRead, TraceWriter, _crc, newest_pools, read_traces, sessions

from .target import DAMAGE, BrokenError, Case, Edits, Target, workplace, write

SECOND = 10**9
NOON = 1_760_011_200 * SECOND
DAY = "2025-10-09.db"
_ID = 1 << 32


def machine() -> Iterator[Snapshot]:
    """Four ticks of a small machine: a process moves, one is replaced, pools and quotas change."""
    table = np.zeros(4, dtype=SAMPLE)
    table["pid"], table["start_ticks"], table["state"] = np.arange(10, 14), 5, ord("S")
    for tick in range(4):
        table = table.copy()
        table["cpu_ns"][tick] += 10**6 * tick
        table["start_ticks"][3] = 5 + tick // 2
        ids = [ProcId(*key) for key in zip(table["pid"].tolist(), table["start_ticks"].tolist(), strict=True)]
        workers = (WorkerSample(ids[0], 0.5, True), WorkerSample(ids[1], None, False))
        yield Snapshot(
            at=10**13 + tick * SECOND,
            wall=NOON + tick * SECOND,
            uptime_ticks=10**6 + tick * 100,
            table=table,
            identities={id_: Identity("sleep", "sleep", "/", "", 0, 80, (0, 1)) for id_ in ids},
            host=HostSample((tick, 2 * tick), 1 << 30, 1 << 29, (1, 2, 3 + tick), 7, 8, 9),
            pools=(PoolSample("web", 2, 2, 0.5 * (tick // 2), workers, ids[2], 1.5, ""),),
            quotas=(Quota("/a", 100 + tick),),
        )


def _bits(snapshot: Snapshot) -> tuple[str, bytes]:
    """All of a snapshot, to be compared."""
    return repr(replace(snapshot, table=np.zeros(0, dtype=SAMPLE))), snapshot.table.tobytes()


def _template() -> bytes:
    """The file of `machine`, closed in order."""
    with workplace() as place:
        writer = TraceWriter(place, boot_id="boot-1", session="aaaa0001", budget_bytes=1 << 30, interval=1.0)
        for snapshot in machine():
            writer.append(snapshot)
        writer.close()
        return (place / "traces" / DAY).read_bytes()


def _read(path: Path) -> tuple[list[Snapshot], TraceRead] | None:
    """What a trace file has, by every reader of the store; None if it is refused as documented."""
    try:
        read = read_traces(path)
        found = [snapshot for _, snapshot in read]
        sessions(path)
    except TraceError:
        return None
    try:
        for pieces in newest_pools(path, before="aaaa0001"), newest_pools(path):
            for _ in pieces:
                pass
    except TraceError:
        pass
    return found, read


# --- files --------------------------------------------------------------------------------------------------------------------


def _prepare_file(place: Path) -> Case:
    path = place / DAY
    edits = Edits(_template())
    written = {_bits(snapshot) for snapshot in machine()}

    def run(case: bytes) -> None:
        for left in place.iterdir():
            left.unlink()
        write(path, edits(case))
        result = _read(path)
        if result is None:
            return
        found, read = result
        strange = [snapshot for snapshot in found if _bits(snapshot) not in written]
        if strange and not _forged(path):
            raise BrokenError(f"was never written: {strange}")
        if not case and (len(found) != len(written) or read.lost):
            raise BrokenError(f"{len(found)} of {len(written)} ticks came back, and lost are {read.lost}")

    return run


def _forged(path: Path) -> bool:
    """Whether an engine that watches comparisons has found a checksum of rows of its own: the file has one that is not ours."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.deserialize(_template())
        genuine = {crc for (crc,) in db.execute("SELECT crc FROM ticks")}
    with closing(sqlite3.connect(path)) as db:
        return any(crc not in genuine for (crc,) in db.execute("SELECT crc FROM ticks"))


# --- records ------------------------------------------------------------------------------------------------------------------

RAW = 0x80
"""Bit of the first byte: the records of a case are as they are, and not still to be compressed."""


def _records(before: Snapshot | None, now: Snapshot) -> bytes:
    return zlib.decompress(encode(now, before))


def bomb(rows: int, written: int) -> bytes:
    """A record of few bytes that claims many new rows."""
    header = b"".join(number.to_bytes(4, "little") for number in (rows, written, 0, 0))
    only_the_fifth = bytes([0b00001000]) + b"\0" * ((5 + SAMPLE.itemsize + 7) // 8 - 1)
    return zlib.compress(header + only_the_fifth + b"\1" * written + b"\0")


def _record_seeds() -> Sequence[bytes]:
    ticks = list(machine())
    pairs = [(_records(None, a), _records(a, b)) for a, b in pairwise(ticks)]
    packed = [zlib.compress(key) for key, _ in pairs]
    bombs = [bomb(1 << 21, 1 << 21), bomb(1 << 21, 0), bomb(1 << 20, 1 << 20), zlib.compress(b"\0" * (1 << 22))]
    return [*(_case(b"\0", *pair) for pair in pairs), *(_case(bytes([RAW]), key, b"") for key in packed + bombs)]


def _case(first: bytes, key: bytes, delta: bytes) -> bytes:
    return first + len(key).to_bytes(2, "big") + NOON.to_bytes(8, "big") + key + delta


def _prepare_records(place: Path) -> Case:
    path = place / DAY
    template = _template()
    header = '{"id":"aaaa0001","boot_id":"boot-1","interval":1.0}'

    def run(case: bytes) -> None:
        size, wall = int.from_bytes(case[1:3], "big"), int.from_bytes(case[3:11], "big", signed=True)
        records = [case[11 : 11 + size], case[11 + size :]]
        rows, crc = [], 0
        for seq, record in enumerate(records):
            data = record if case[0] & RAW else zlib.compress(record, 1)
            n = int.from_bytes(_peek(data), "little")
            keyframe = header if seq == 0 else None
            crc = _crc(_ID + seq, seq, wall, n, keyframe, data, crc)
            rows.append((_ID + seq, seq, wall, n, crc, keyframe, data))
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
            db.deserialize(template)
            db.execute("DELETE FROM ticks")
            db.executemany("INSERT INTO ticks VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            write(path, db.serialize())
        if _read(path) is None:
            raise BrokenError("a whole file is refused")
        export(path, place / "export", "jsonl")

    return lambda case: run(case) if case else None


def _peek(data: bytes) -> bytes:
    """The number of rows that a record announces, as far as it can be read."""
    try:
        return zlib.decompressobj().decompress(data, 4)
    except zlib.error:
        return b""


FILE = Target("trace file", lambda: DAMAGE, _prepare_file, (b"ticks", b"sessions", b"aaaa0001", b'{"id":"', b"\x78\x01"))
RECORDS = Target("trace records", _record_seeds, _prepare_records, (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xcf", b"\xd3", b"\xdd"))
