"""Reads the file of a ledger as another program would, without the code that writes it; and writes one of version 1."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

SCHEMA_OF_1 = """
create table meta (version integer not null, crc integer not null);
create table entry (
    id integer primary key, boot_id text not null, decision text not null, target text not null, wall integer not null,
    control text not null, pid integer, start_ticks integer, tid integer, tid_start_ticks integer, key text not null,
    session integer, process_group integer, since integer not null, original text not null, old text not null, new text not null,
    status text not null, crc integer not null
);
"""
"""The tables of the database that version 1 was."""


class Row(NamedTuple):
    """What the file says of one change, in the order of its lines."""

    id: int
    boot_id: str
    decision: str
    target: str
    wall: int
    control: str
    pid: int | None
    start_ticks: int | None
    tid: int | None
    tid_start_ticks: int | None
    key: str
    session: int | None
    group: int | None
    since: int
    original: int | list[int]
    old: int | list[int]
    new: int | list[int]
    status: str


def rows(path: Path) -> list[Row]:
    """The changes in a sound file, by id."""
    found = dict[int, Row]()
    for line in path.read_text(encoding="utf-8").splitlines():
        kind, *fields = json.loads(line[9:])
        if kind == "entry":
            found[fields[0]] = Row(*fields)
        elif kind == "is":
            found[fields[0]] = found[fields[0]]._replace(status=fields[1])
        elif kind == "drop":
            del found[fields[0]]
    return [found[number] for number in sorted(found)]


def checksum_of_1(row: Sequence[object]) -> int:
    """The checksum of a row of version 1. Raises TypeError for one with bytes, which had none."""
    return zlib.crc32(json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode())


def write_version_1(path: Path, rows: Iterable[Sequence[object]], wrong: int = -1) -> None:
    """A ledger of version 1 with these rows. `wrong`: the number of one whose checksum does not hold."""
    path.touch(0o600)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(SCHEMA_OF_1)
        connection.execute("insert into meta values (1, ?)", (checksum_of_1((1,)),))
        for number, row in enumerate(rows):
            connection.execute(
                f"insert into entry values ({', '.join('?' * 19)})",  # noqa: S608 - question marks
                (*row, checksum_of_1(row) + (number == wrong)),
            )
