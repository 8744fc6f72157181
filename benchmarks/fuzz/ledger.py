"""Targets: the ledger. Damaged files, with and without a write-ahead log, and rows of any content whose checksums hold."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence, Set
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from nicety.models.records import ProcId
from nicety.scheduler.changes import Entry, EntryStatus, believed, original
from nicety.scheduler.decision import Control
from nicety.scheduler.places import AutogroupPlace, CgroupPlace, FencePlace, PoolPlace, ThreadId, ThreadPlace
from nicety.scheduler.ports import Knob
from nicety.scheduler.store.ledger import _COLUMNS, Ledger, LedgerError, _columns, _crc

from .configuration import QUIET, of_bytes, random_bytes
from .target import DAMAGE, BrokenError, Case, Edits, Target, workplace, write

BOOT = "00000000-0000-4000-8000-000000000001"
_WHO = ProcId(100, 7)
_KNOBS = (
    Knob(Control.NICE, ThreadPlace(_WHO, ThreadId(101, 8))),
    Knob(Control.AFFINITY, ThreadPlace(_WHO, ThreadId(*_WHO))),
    Knob(Control.AUTOGROUP, AutogroupPlace("autogroup-9", _WHO)),
    Knob(Control.CPU_WEIGHT, CgroupPlace("/a/b")),
    Knob(Control.FENCE, FencePlace("cpu.max=1", _WHO)),
    Knob(Control.POOL_SIZE, PoolPlace("web", _WHO)),
)


def _entry(knob: Knob, new: int = 10) -> Entry:
    values: Any = ((0, 1), (0, 1), (1,)) if knob.control is Control.AFFINITY else (0, 0, new)
    return Entry(0, BOOT, "d.1", "group hogs pid 100", 1, knob, 100, None, 5, *values, EntryStatus.INTENT)


NEW = _entry(Knob(Control.NICE, ThreadPlace(ProcId(9, 9), ThreadId(9, 9))))


@dataclass(frozen=True, slots=True)
class _Template:
    """A ledger as it lies on the disk."""

    in_use: tuple[bytes, bytes]  # the file and its write-ahead log, which has all rows
    closed: tuple[bytes, bytes]  # all rows are in the file
    known: frozenset[Entry]  # every state that its entries ever had


def _template() -> _Template:
    with workplace() as place:
        path, log = place / "ledger.db", place / "ledger.db-wal"
        ledger = Ledger(path, BOOT)
        known = set[Entry]()
        for knob in _KNOBS:
            (number,) = ledger.intend([_entry(knob)])
            known.update(ledger.outstanding())
            ledger.settle({number: EntryStatus.FOREIGN if knob.control is Control.FENCE else EntryStatus.DONE})
            known.update(ledger.outstanding())
        in_use = path.read_bytes(), log.read_bytes()
        ledger.close()
        return _Template(in_use, (path.read_bytes(), b""), frozenset(known))


def _examine(place: Path, known: Set[Entry] | None) -> None:
    """Open, read, write and reopen a ledger. `known`: entries that it may have; None: any."""
    path = place / "ledger.db"
    try:
        ledger = Ledger(path, BOOT)
    except LedgerError:
        return
    with closing(ledger):
        strange = [] if known is None else [entry for entry in ledger.outstanding() if entry not in known]
        if strange and not _forged(strange):
            raise BrokenError(f"was never written: {strange}")
        for subject in ledger.subjects():
            for knob, chain in ledger.chains(subject).items():
                original(chain), believed(chain), ledger.original(knob), ledger.is_foreign(knob)
        try:
            (number,) = ledger.intend([NEW])
        except LedgerError:
            return
        ledger.settle({number: EntryStatus.DONE})
        failed, before = ledger.trouble, ledger.outstanding()
    again = Ledger(path, BOOT)
    with closing(again):
        if not failed and again.outstanding() != before:
            raise BrokenError(f"{again.outstanding()} came back of {before}")


def _forged(strange: Sequence[Entry]) -> bool:
    """Whether an engine that watches comparisons has found a checksum of rows of its own: the file has one that is not ours."""
    genuine = {_columns(entry)[-1] for entry in _template().known}
    return all(_columns(entry)[-1] not in genuine for entry in strange)


def _clean(place: Path) -> None:
    """Remove what the case before left."""
    for path in place.iterdir():
        path.unlink()


def _file_seeds() -> Sequence[bytes]:
    edits = Edits(_template().closed[0])
    changed = [b"\0" + edits.of(text, b"#") for text in (b"group hogs", b"nice", b"affinity", b"done", BOOT.encode())]
    return [*(bytes([which]) + damage for which in (0, 1) for damage in DAMAGE), *changed]


def _prepare_file(place: Path) -> Case:
    template = _template()
    states = [(file, Edits(file + log)) for file, log in (template.closed, template.in_use)]

    def run(case: bytes) -> None:
        _clean(place)
        file, edits = states[case[0] % 2 if case else 0]
        data = edits(case[1:])
        write(place / "ledger.db", data[: len(file)])
        if data[len(file) :]:
            write(place / "ledger.db-wal", data[len(file) :])
        _examine(place, template.known)

    return run


# --- rows ---------------------------------------------------------------------------------------------------------------------

_TEXT = st.sampled_from(("", BOOT, "x", "0", "[0,1]", "null", '"a"', "{", "-20", "1e400", "[1e30]", "9" * 30)) | st.text(max_size=6)
_NUMBER = st.sampled_from((0, 1, -1, 100, 2**31, 2**32, 2**63 - 1, -(2**63))) | st.integers(-(2**63), 2**63 - 1)
_ANYTHING = _NUMBER | _TEXT | st.binary(max_size=6) | st.floats(allow_nan=False)
_MAYBE = st.none() | _NUMBER
_VALUE = st.sampled_from(("0", "19", "-5", "[0,1]", "[]", "[0,[1]]", "true", "1.5")) | _TEXT
_CONTROL = st.sampled_from([each.value for each in Control]) | _TEXT
_ROW = st.tuples(
    *(st.just(BOOT) | _TEXT, _TEXT, _TEXT, _NUMBER, _CONTROL, _MAYBE, _MAYBE, _MAYBE),
    *(_MAYBE, _TEXT | st.sampled_from(("autogroup-9", "/a", "cpu.max=1")), _MAYBE, _MAYBE, _NUMBER, _VALUE, _VALUE, _VALUE),
    st.sampled_from([each.value for each in EntryStatus]) | _TEXT,
)
_PATCH = st.none() | st.tuples(st.integers(0, 16), _ANYTHING)


def _prepare_rows(place: Path) -> Case:
    with workplace() as other:
        Ledger(other / "ledger.db", BOOT).close()
        empty = (other / "ledger.db").read_bytes()
    names = _COLUMNS.split(", ")

    @QUIET
    @given(st.lists(st.tuples(_ROW, _PATCH), min_size=1, max_size=3))
    def check(rows: list[tuple[tuple[Any, ...], tuple[int, Any] | None]]) -> None:
        _clean(place)
        write(place / "ledger.db", empty)
        with closing(sqlite3.connect(place / "ledger.db", isolation_level=None)) as db:
            db.execute("pragma synchronous = off")
            for number, (row, patch) in enumerate(rows, 1):
                values = list(row)
                if patch is not None:
                    values[patch[0]] = patch[1]
                db.execute(f"insert into entry ({_COLUMNS}) values ({', '.join('?' * 19)})", (number, *values, 0))
                stored = db.execute(f"select {', '.join(names[:-1])} from entry where id = ?", (number,)).fetchone()
                db.execute("update entry set crc = ? where id = ?", (_crc(stored), number))
        _examine(place, None)

    return of_bytes(check)


FILE = Target("ledger file", _file_seeds, _prepare_file, (b"intent", b"done", b"foreign", b"entry", b"meta", BOOT.encode()))
ROWS = Target("ledger rows", random_bytes, _prepare_rows)
