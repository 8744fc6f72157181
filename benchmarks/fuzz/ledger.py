"""Targets: the ledger. Damaged files, lines of any content whose checksums hold, and the database of version 1."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Sequence, Set
from contextlib import closing
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from nicety.models.identity import ProcId
from nicety.scheduler.hands.changes import Entry, EntryStatus, believed, name_of, original
from nicety.scheduler.hands.ledger import NAME, NAME_OF_1, Ledger, LedgerError, open_changes
from nicety.scheduler.hands.lines import entry_line, line_of
from nicety.scheduler.hands.places import AutogroupPlace, Cgroup, Control, FencePlace, Knob, PoolPlace, ThreadId, ThreadPlace
from nicety.scheduler.testing.ledger_file import SCHEMA_OF_1, checksum_of_1

from .configuration import QUIET, of_bytes, random_bytes
from .target import WHOLE, BrokenError, Case, Edits, Target, overwrite, workplace, write

BOOT = "00000000-0000-4000-8000-000000000001"
_WHO = ProcId(100, 7)
_FENCE = '[["cpu","/a",{"cpu.max":"1 2"},["cpu"],false]]'
_KNOBS = (
    Knob(Control.NICE, ThreadPlace(_WHO, ThreadId(101, 8))),
    Knob(Control.AFFINITY, ThreadPlace(_WHO, ThreadId(*_WHO))),
    Knob(Control.AUTOGROUP, AutogroupPlace("autogroup-9", _WHO)),
    Knob(Control.CPU_WEIGHT, Cgroup("/a/b")),
    Knob(Control.FENCE, FencePlace(_FENCE, _WHO)),
    Knob(Control.POOL_SIZE, PoolPlace("web", _WHO)),
)


def _entry(knob: Knob, new: int = 10, number: int = 0) -> Entry:
    values: Any = ((0, 1), (0, 1), (1,)) if knob.control is Control.AFFINITY else (0, 0, new)
    return Entry(number, BOOT, "d.1", "group hogs pid 100", 1, knob, 100, None, 5, *values, EntryStatus.INTENT)


NEW = _entry(Knob(Control.NICE, ThreadPlace(ProcId(9, 9), ThreadId(9, 9))))


def _template() -> tuple[bytes, frozenset[Entry]]:
    """The file of a ledger in use, and every state that its changes ever had."""
    with workplace() as place:
        ledger = Ledger(place / NAME, BOOT)
        known = set[Entry]()
        for knob, new in (*((knob, 10) for knob in _KNOBS), (_KNOBS[3], 20), (_KNOBS[0], 10)):
            (number,) = ledger.intend([_entry(knob, new)])
            known.update(ledger.outstanding())
            ledger.settle({number: EntryStatus.FOREIGN if knob.control is Control.FENCE else EntryStatus.DONE})
            known.update(ledger.outstanding())
        ledger.close()
        return (place / NAME).read_bytes(), frozenset(known)


def _examine(place: Path, known: Set[Entry] | None) -> None:
    """Open, read, write and reopen a ledger. `known`: changes that it may have; None: any."""
    for look in (lambda: open_changes(str(place)), lambda: Ledger(place / NAME, BOOT)):
        try:
            found = look()
        except (LedgerError, FileNotFoundError):
            continue
        if isinstance(found, Ledger):
            with closing(found):
                _use(found, place, known)


def _use(ledger: Ledger, place: Path, known: Set[Entry] | None) -> None:
    strange = [] if known is None else [entry for entry in ledger.outstanding() if entry not in known]
    if strange:
        raise BrokenError(f"was never written: {strange}")
    for subject in ledger.subjects():
        for knob, chain in ledger.chains(subject).items():
            original(chain), believed(chain), ledger.original(knob), ledger.is_foreign(knob)
            name_of(knob.control, knob.on)
    try:
        (number,) = ledger.intend([NEW])
    except LedgerError:
        return
    ledger.settle({number: EntryStatus.DONE})
    failed, before = ledger.trouble, ledger.outstanding()
    with closing(Ledger(place / NAME, BOOT)) as again:
        if not failed and again.outstanding() != before:
            raise BrokenError(f"{again.outstanding()} came back of {before}")


def _clean(place: Path) -> None:
    """Remove what the case before left."""
    for path in place.iterdir():
        path.unlink()


# --- the file -----------------------------------------------------------------------------------------------------------------


def _file_seeds() -> Sequence[bytes]:
    file, _ = _template()
    edits = Edits(file)
    changed = [edits.of(text, b"#") for text in (b"group hogs", b'"nice"', b'"affinity"', b'"done"', BOOT.encode(), b'["is"')]
    cut = [place.to_bytes(3, "big") + bytes([1 << 6]) for place in (0, 5, 30, 300, len(file) - 1, len(file) - 9)]
    return [b"", *changed, *cut, overwrite(40, b"\n"), overwrite(200, b"\0" * 60), bytes([WHOLE]), bytes([WHOLE]) + b"not ours\n"]


def _prepare_file(place: Path) -> Case:
    file, known = _template()
    edits = Edits(file)

    def run(case: bytes) -> None:
        _clean(place)
        write(place / NAME, edits(case))
        _examine(place, None if case[:1] == bytes([WHOLE]) else known)

    return run


# --- lines --------------------------------------------------------------------------------------------------------------------


def _line_seeds() -> Sequence[bytes]:
    lines = [entry_line(_entry(knob, number=number))[9:] for number, knob in enumerate(_KNOBS, 1)]
    others: tuple[list[Any], ...] = (["is", 1, "done"], ["is", 1, "foreign"], ["drop", 1], ["is", 77, "done"], ["nicety ledger", 3])
    texts = [json.dumps(each).encode() + b"\n" for each in others]
    return [*lines, b"".join(lines), *(lines[0] + text for text in texts), b"[" * 3000, lines[0].replace(b"100", b"9" * 40)]


def _prepare_lines(place: Path) -> Case:
    def run(case: bytes) -> None:
        _clean(place)
        lines = (b"%08x %s\n" % (zlib.crc32(line), line) for line in case.split(b"\n") if line)
        write(place / NAME, line_of(["nicety ledger", 2]) + b"".join(lines))
        _examine(place, None)

    return run


# --- the database of version 1 ------------------------------------------------------------------------------------------------

_TEXT = st.sampled_from(("", BOOT, "x", "0", "[0,1]", "null", '"a"', "{", "-20", "1e400", "[1e30]", "9" * 30)) | st.text(max_size=6)
_NUMBER = st.sampled_from((0, 1, -1, 100, 2**31, 2**32, 2**63 - 1, -(2**63))) | st.integers(-(2**63), 2**63 - 1)
_ANYTHING = _NUMBER | _TEXT | st.binary(max_size=6) | st.floats(allow_nan=False)
_MAYBE = st.none() | _NUMBER
_VALUE = st.sampled_from(("0", "19", "-5", "[0,1]", "[]", "[0,[1]]", "true", "1.5", "[" * 3000)) | _TEXT
_CONTROL = st.sampled_from([each.value for each in Control]) | _TEXT
_ROW = st.tuples(
    *(st.just(BOOT) | _TEXT, _TEXT, _TEXT, _NUMBER, _CONTROL, _MAYBE, _MAYBE, _MAYBE),
    *(_MAYBE, _TEXT | st.sampled_from(("autogroup-9", "/a", _FENCE)), _MAYBE, _MAYBE, _NUMBER, _VALUE, _VALUE, _VALUE),
    st.sampled_from([each.value for each in EntryStatus]) | _TEXT,
)
_PATCH = st.none() | st.tuples(st.integers(0, 16), _ANYTHING)


def _crc(row: Sequence[object]) -> int:
    """The checksum of a row; 0 for one that had none, because it has bytes."""
    try:
        return checksum_of_1(row)
    except TypeError:
        return 0


def _prepare_version_1(place: Path) -> Case:
    @QUIET
    @given(
        st.lists(st.tuples(_ROW, _PATCH), min_size=1, max_size=3),
        st.none() | st.tuples(st.integers(0, 8191), st.binary(max_size=4)),
    )
    def check(rows: list[tuple[tuple[Any, ...], tuple[int, Any] | None]], damage: tuple[int, bytes] | None) -> None:
        _clean(place)
        path = place / NAME_OF_1
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
            db.executescript(SCHEMA_OF_1)
            for number, (row, patch) in enumerate(rows, 1):
                values = list(row)
                if patch is not None:
                    values[patch[0]] = patch[1]
                db.execute(f"insert into entry values ({', '.join('?' * 19)})", (number, *values, 0))
                *stored, _ = db.execute("select * from entry where id = ?", (number,)).fetchone()
                db.execute("update entry set crc = ? where id = ?", (_crc(stored), number))
            file = bytearray(db.serialize())
        if damage is not None:
            file[damage[0] : damage[0] + len(damage[1])] = damage[1]
        write(path, bytes(file))
        _examine(place, None)
        if path.exists() and (place / NAME).exists():
            raise BrokenError("the ledger of version 1 was taken over and is still there")

    return of_bytes(check)


_WORDS = (b'["entry",', b'["is",', b'["drop",', b'"done"', b'"intent"', b'"foreign"', b"null", b"[0,1]", b"true", b"1e5", b"\n")

FILE = Target("ledger file", _file_seeds, _prepare_file, (b"entry", b"is", b"drop", b"\n", b"\0\0\0\0", BOOT.encode()))
LINES = Target("ledger lines", _line_seeds, _prepare_lines, _WORDS)
VERSION_1 = Target("ledger of version 1", random_bytes, _prepare_version_1)
