"""Damage, full disks and lost files: the ledger never restores a wrong value, and nothing is changed that it could not record."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nicety.models.records import ProcId
from nicety.scheduler.changes import Entry, EntryStatus
from nicety.scheduler.decision import Control
from nicety.scheduler.places import ThreadId, ThreadPlace
from nicety.scheduler.ports import Knob
from nicety.scheduler.store.ledger import Ledger, LedgerError

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
def crashed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[int, Entry]]:
    """(a closed ledger, one with its write-ahead log as a crash leaves it, the entries that both have by id)."""
    folder = tmp_path_factory.mktemp("ledger")
    (folder / "closed").mkdir()
    (folder / "crashed").mkdir()
    ledger = Ledger(folder / "closed" / "ledger.db", BOOT)
    ids = ledger.intend([entry(100 + index) for index in range(6)])
    ledger.settle(dict.fromkeys(ids[:4], EntryStatus.DONE))
    true = {each.id: each for each in ledger.outstanding()}
    for file in (folder / "closed").iterdir():
        shutil.copy(file, folder / "crashed" / file.name)
    ledger.close()
    assert (folder / "crashed" / "ledger.db-wal").stat().st_size > 1000
    assert not (folder / "closed" / "ledger.db-wal").exists()
    return folder / "closed", folder / "crashed", true


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
    ledger = Ledger(folder / "ledger.db", BOOT)
    for each in ledger.outstanding():
        fact = true[each.id]
        assert each in (fact, msgspec.structs.replace(fact, status=EntryStatus.INTENT)), each
    damaged = bool(list(folder.glob("ledger.db.bad.*")))
    assert damaged == any(note.lost for note in ledger.notes)
    if damaged:
        (number,) = ledger.intend([entry(1)])  # it works again
        assert number > max((each.id for each in ledger.outstanding()), default=0) - 1
    count = len(ledger.outstanding()) - damaged
    ledger.close()
    return count, damaged


def damaged_copy(source: Path, target: Path, name: str, data: bytes) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    (target / name).write_bytes(data)


def test_a_ledger_cut_short_anywhere_is_salvaged_or_quarantined(
    crashed: tuple[Path, Path, dict[int, Entry]], scratch: Path
) -> None:
    closed, with_log, true = crashed
    found = []
    for source, name in ((closed, "ledger.db"), (with_log, "ledger.db"), (with_log, "ledger.db-wal")):
        whole = (source / name).read_bytes()
        for size in {*range(0, len(whole), 257), *range(96, 104), 1, len(whole) - 1}:
            damaged_copy(source, scratch / "state", name, whole[:size])
            found.append(survives(scratch / "state", true))
    assert any(damaged for _, damaged in found), "nothing was noticed"
    assert any(count == len(true) for count, _ in found), "nothing was salvaged"


def test_one_flipped_byte_anywhere_never_gives_a_wrong_value(crashed: tuple[Path, Path, dict[int, Entry]], scratch: Path) -> None:
    closed, with_log, true = crashed
    noticed = 0
    for source, name in ((closed, "ledger.db"), (with_log, "ledger.db-wal")):
        whole = (source / name).read_bytes()
        used = [index for index, byte in enumerate(whole) if byte]  # what SQLite wrote; the rest of a page is zero
        for index in {*used[:: max(1, len(used) // 400)], *range(100)}:
            flipped = bytearray(whole)
            flipped[index] ^= 0xFF
            damaged_copy(source, scratch / "state", name, bytes(flipped))
            noticed += survives(scratch / "state", true)[1]
    assert noticed > 200


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_damage_never_gives_a_wrong_value(
    crashed: tuple[Path, Path, dict[int, Entry]], scratch: Path, data: st.DataObject
) -> None:
    closed, with_log, true = crashed
    source, name = data.draw(st.sampled_from([(closed, "ledger.db"), (with_log, "ledger.db"), (with_log, "ledger.db-wal")]))
    image = bytearray((source / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(image) - 1))
        junk = data.draw(st.one_of(st.binary(min_size=1, max_size=40), st.just(bytes(512))))
        image[start : start + len(junk)] = junk
    damaged_copy(source, scratch / "state", name, bytes(image))
    survives(scratch / "state", true)


def test_garbage_in_place_of_a_ledger_is_kept_aside_under_the_next_free_name(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / "ledger.db").write_bytes(b"not a database, but long enough to look like a file of one " * 20)
        ledger = Ledger(tmp_path / "ledger.db", BOOT)
        assert f"ledger.db.bad.{number}" in ledger.notes[0].text
        assert ledger.intend([entry(100)]) == (1,)
        ledger.close()
        (tmp_path / "ledger.db").unlink()
    assert (tmp_path / "ledger.db.bad.2").exists()


def test_a_removed_file_is_written_anew_with_all_that_is_open(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db", BOOT)
    ids = ledger.intend([entry(100)])
    ledger.settle({ids[0]: EntryStatus.DONE})
    for file in tmp_path.glob("ledger.db*"):
        file.unlink()
    ledger.intend([entry(101)])
    ledger.close()
    again = Ledger(tmp_path / "ledger.db", BOOT)
    assert [each.process for each in again.outstanding()] == [ProcId(100, 7), ProcId(101, 7)]
    again.close()


def test_a_reader_that_stays_in_a_transaction_does_not_hold_up_an_intent(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db", BOOT)
    ledger.intend([entry(100)])
    reader = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    reader.execute("begin")
    assert reader.execute("select count(*) from entry").fetchone() == (1,)
    ledger.intend([entry(101)])
    reader.close()
    ledger.close()


FULL_DISK = """
import os, subprocess, sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from nicety.scheduler.changes import EntryStatus
from nicety.scheduler.store.ledger import Ledger, LedgerError
from test_ledger_faults import BOOT, entry
where = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", where], check=True)
path = where / "ledger.db"
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
    ledger = Ledger(tmp_path / "missing" / "ledger.db", BOOT)
    assert ledger.outstanding() == ()
    assert "No such file or directory" in ledger.notes[0].text
    with pytest.raises(LedgerError, match="nothing is changed without it"):
        ledger.intend([entry(100)])
    (tmp_path / "missing").mkdir()
    assert ledger.intend([entry(100)]) == (1,), "recovers without a restart"
    with contextlib.closing(sqlite3.connect(tmp_path / "missing" / "ledger.db")) as connection:
        assert connection.execute("select count(*) from entry").fetchone() == (1,)
    ledger.close()
