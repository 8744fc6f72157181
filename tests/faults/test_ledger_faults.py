"""Damage, full disks and lost files: the ledger never restores a wrong value, and nothing is changed that it could not record."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nicety.models.identity import ProcId
from nicety.scheduler.hands.changes import Entry, EntryStatus
from nicety.scheduler.hands.ledger import NAME, Ledger, LedgerError
from nicety.scheduler.hands.places import Control, Knob, ThreadId, ThreadPlace
from nicety.scheduler.testing.ledger_file import rows

BOOT = "00000000-0000-4000-8000-000000000001"


def entry(pid: int, new: int = 10) -> Entry:
    return Entry(
        id=0,
        boot_id=BOOT,
        decision="d.1",
        target=f"pid {pid}",
        wall=1,
        knob=Knob(Control.NICE, ThreadPlace(ProcId(pid, 7), ThreadId(pid, 7))),
        session=pid,
        group=pid,
        since=5,
        original=0,
        old=0,
        new=new,
        status=EntryStatus.INTENT,
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, Entry]]:
    """(a ledger as it is at any time between two writes, the entries that it has by id)."""
    folder = tmp_path_factory.mktemp("ledger")
    ledger = Ledger(folder / NAME, BOOT)
    ids = ledger.intend([entry(100 + index) for index in range(6)])
    ledger.settle(dict.fromkeys(ids[:4], EntryStatus.DONE))
    true = {each.id: each for each in ledger.outstanding()}
    ledger.close()
    return folder, true


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: hundreds of ledgers are opened and repaired, each with several disk flushes."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def survives(folder: Path, true: dict[int, Entry]) -> tuple[int, bool]:
    """(open entries, whether it said that it was damaged): each entry is a true one, or a true one at an earlier step."""
    ledger = Ledger(folder / NAME, BOOT)
    for each in ledger.outstanding():
        fact = true[each.id]
        assert each in (fact, fact._replace(status=EntryStatus.INTENT)), each
    damaged = bool(list(folder.glob(f"{NAME}.bad.*")))
    assert damaged == any(note.lost for note in ledger.notes)
    count = len(ledger.outstanding())
    (number,) = ledger.intend([entry(1)])  # it works, again if it was damaged
    assert number > max((each.id for each in ledger.outstanding()), default=0) - 1
    now = ledger.outstanding()
    ledger.close()
    again = Ledger(folder / NAME, BOOT)
    assert (again.notes, again.outstanding()) == ((), now), "what was written behind the damage can be read"
    again.close()
    return count, damaged


def damaged_copy(target: Path, data: bytes) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(mode=0o700)
    (target / NAME).write_bytes(data)
    (target / NAME).chmod(0o600)


def test_a_ledger_cut_short_anywhere_has_all_whole_lines(written: tuple[Path, dict[int, Entry]], scratch: Path) -> None:
    """A crash cuts the last write short. What it was about has not been changed yet, so nothing is lost and nothing is said."""
    folder, true = written
    whole = (folder / NAME).read_bytes()
    for size in range(len(whole) + 1):
        damaged_copy(scratch / "state", whole[:size])
        lines = [line for line in whole[:size].split(b"\n") if line in whole.split(b"\n") and b'"entry"' in line]
        assert survives(scratch / "state", true) == (len(lines), False), size


def test_zeros_behind_the_last_line_are_what_a_crash_leaves(written: tuple[Path, dict[int, Entry]], scratch: Path) -> None:
    folder, true = written
    whole = (folder / NAME).read_bytes()
    for size in (0, len(whole)):
        damaged_copy(scratch / "state", whole[:size] + bytes(5000))
        assert survives(scratch / "state", true) == (len(true) if size else 0, False)


def test_one_flipped_byte_anywhere_never_gives_a_wrong_value(written: tuple[Path, dict[int, Entry]], scratch: Path) -> None:
    folder, true = written
    whole = (folder / NAME).read_bytes()
    ends = [index for index, byte in enumerate(whole) if byte == ord("\n")]
    for index in range(len(whole)):
        flipped = bytearray(whole)
        flipped[index] ^= 0xFF
        damaged_copy(scratch / "state", bytes(flipped))
        count, damaged = survives(scratch / "state", true)
        assert damaged == (index != len(whole) - 1), "the end of the last line may not have been written"
        lost = 2 if index in ends[:-1] else 1  # two lines become one
        assert count >= len(true) - lost, index


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_damage_never_gives_a_wrong_value(
    written: tuple[Path, dict[int, Entry]], scratch: Path, data: st.DataObject
) -> None:
    folder, true = written
    image = bytearray((folder / NAME).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(image) - 1))
        junk = data.draw(st.one_of(st.binary(min_size=1, max_size=40), st.just(bytes(512))))
        image[start : start + len(junk)] = junk
    damaged_copy(scratch / "state", bytes(image))
    try:
        survives(scratch / "state", true)
    except LedgerError as error:  # nothing of ours is left
        assert "is no ledger of nicety" in str(error)  # noqa: PT017 - it may, and it need not


def test_a_damaged_ledger_is_kept_aside_under_the_next_free_name(written: tuple[Path, dict[int, Entry]], tmp_path: Path) -> None:
    whole = (written[0] / NAME).read_bytes()
    for number in (1, 2):
        (tmp_path / NAME).write_bytes(whole.replace(b"100", b"101"))
        (tmp_path / NAME).chmod(0o600)
        ledger = Ledger(tmp_path / NAME, BOOT)
        assert f"{NAME}.bad.{number}" in ledger.notes[0].text
        assert ledger.intend([entry(100)]) == (7,)
        ledger.close()
        (tmp_path / NAME).unlink()
    assert (tmp_path / f"{NAME}.bad.2").exists()


def test_what_is_no_ledger_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"2026-12-02 opening balance\n  assets:bank  100 EUR\n" * 20)
    (tmp_path / NAME).chmod(0o600)
    before = (tmp_path / NAME).read_bytes()
    with pytest.raises(LedgerError, match="is no ledger of nicety; give nicety's own --state-dir"):
        Ledger(tmp_path / NAME, BOOT)
    assert (tmp_path / NAME).read_bytes() == before


def test_lines_with_a_right_checksum_that_say_nothing_possible_are_damage(
    written: tuple[Path, dict[int, Entry]], scratch: Path
) -> None:
    folder, true = written
    whole = (folder / NAME).read_bytes()
    for record in (
        b"[]",
        b"{}",
        b"[1]",
        b'["is","a","done"]',
        b'["is",1,"melted"]',
        b'["entry",1]',
        b'["drop"]',
        b"nonsense",
        b"7",
    ):
        damaged_copy(scratch / "state", whole + b"%08x %s\n" % (zlib.crc32(record), record) + whole.splitlines(keepends=True)[-1])
        assert survives(scratch / "state", true) == (len(true), True), record


def test_a_removed_file_is_written_anew_with_all_that_is_open(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / NAME, BOOT)
    ids = ledger.intend([entry(100)])
    ledger.settle({ids[0]: EntryStatus.DONE})
    (tmp_path / NAME).unlink()
    ledger.intend([entry(101)])
    ledger.close()
    again = Ledger(tmp_path / NAME, BOOT)
    assert [each.process for each in again.outstanding()] == [ProcId(100, 7), ProcId(101, 7)]
    again.close()


FULL_DISK = """
import os, subprocess, sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from nicety.scheduler.hands.changes import EntryStatus
from nicety.scheduler.hands.ledger import Ledger, LedgerError
from test_ledger_faults import BOOT, entry
where = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", where], check=True)
path = where / "ledger.log"
ledger = Ledger(path, BOOT)
ids = ledger.intend([entry(100)])
ledger.settle({{ids[0]: EntryStatus.DONE}})
filler = os.open(where / "filler", os.O_WRONLY | os.O_CREAT)
try:
    while True:
        os.write(filler, bytes(1024))
except OSError as error:
    print("filled:", error.strerror)
refused = 0
for turn in range(40):  # what was allocated before may take some more
    try:
        ledger.intend([entry(200 + turn * 10 + each) for each in range(10)])
    except LedgerError as error:
        refused += 1
        print("refused:", error) if refused == 1 else None
known = len(ledger.outstanding())
for _ in range(200):  # lines so short that they fit into the last page
    ledger.settle({{ids[0]: EntryStatus.DONE}})
ledger.settle({{ids[0]: EntryStatus.UNDONE}})  # must not raise
print("trouble:", ledger.trouble)
os.ftruncate(filler, 0)
os.close(filler)
ledger.intend([entry(900)])
print("recovered, trouble:", repr(ledger.trouble))
ledger.close()
again = Ledger(path, BOOT)
print("undone is written:", all(each.process.pid != 100 for each in again.outstanding()))
print("agrees:", len(again.outstanding()) == known)
again.close()
subprocess.run(["mount", "-o", "remount,ro", where], check=True)
frozen = Ledger(path, BOOT)
print("read-only:", len(frozen.outstanding()) == known, frozen.notes[0].text)
try:
    frozen.intend([entry(1)])
except LedgerError as error:
    print("read-only refused")
frozen.settle({{frozen.outstanding()[0].id: EntryStatus.UNDONE}})
print("read-only settled in memory:", len(frozen.outstanding()) == known - 1)
"""


@pytest.mark.root
@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="mounting a small file system needs root and unshare"
)
def test_a_full_or_read_only_disk_refuses_changes_keeps_undo_possible_and_recovers(tmp_path: Path) -> None:
    script = FULL_DISK.format(tests=str(Path(__file__).parent))
    result = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "filled: No space left on device" in lines
    assert any(line.startswith("refused: the ledger") and "free some space" in line for line in lines), lines
    assert any(line.startswith("trouble: the ledger") for line in lines), lines
    assert "recovered, trouble: ''" in lines, lines
    assert "undone is written: True" in lines, lines
    assert "agrees: True" in lines, lines
    assert any(line.startswith("read-only: True the ledger") for line in lines), lines
    assert "read-only refused" in lines
    assert "read-only settled in memory: True" in lines


def test_a_ledger_that_cannot_be_made_refuses_changes_and_says_why(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "missing" / NAME, BOOT)
    assert ledger.outstanding() == ()
    assert "No such file or directory" in ledger.notes[0].text
    with pytest.raises(LedgerError, match="nothing is changed without it"):
        ledger.intend([entry(100)])
    (tmp_path / "missing").mkdir()
    assert ledger.intend([entry(100)]) == (1,), "recovers without a restart"
    assert [row.id for row in rows(tmp_path / "missing" / NAME)] == [1]
    ledger.close()
