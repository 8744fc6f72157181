"""Reads the file of a ledger as another program would: without the code that writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple


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
