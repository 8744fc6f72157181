"""An upgrade undoes what the version before had changed: its ledger was a database."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from nicety.models.identity import ProcId
from nicety.scheduler.hands.changes import EntryStatus
from nicety.scheduler.hands.ledger import NAME, NAME_OF_1, Ledger, left_behind
from nicety.scheduler.hands.places import AutogroupPlace, Cgroup, Control, Knob, ThreadId, ThreadPlace
from nicety.scheduler.testing.ledger_file import write_version_1

BOOT = "00000000-0000-4000-8000-000000000001"
NICE = (1, BOOT, "s-1.0", "group hogs pid 100 (ü)", 7, "nice", 100, 9, 101, 11, "", 100, 100, 5, "0", "0", "19", "done")
MASK = (2, BOOT, "s-1.1", "pid 100", 7, "affinity", 100, 9, 100, 9, "", 100, 100, 5, "[0,1]", "[0,1]", "[1]", "intent")
GROUP = (3, BOOT, "s-1.2", "session 7", 7, "autogroup", 7, 7, None, None, "autogroup-3", 7, 7, 5, "0", "0", "19", "done")
WEIGHT = (
    4,
    BOOT,
    "s-1.3",
    "cgroup /a",
    7,
    "cpu.shares",
    None,
    None,
    None,
    None,
    "/a",
    None,
    None,
    5,
    "1024",
    "1024",
    "2",
    "foreign",
)
BACK = (5, BOOT, "s-1.4", "pid 100", 7, "nice", 100, 9, 100, 9, "", 100, 100, 5, "0", "0", "19", "undone")


def write(folder: Path, *rows: tuple[object, ...], wrong: int = -1) -> None:
    write_version_1(folder / NAME_OF_1, rows, wrong)


def test_what_was_open_is_open_and_what_was_hands_off_stays_so(tmp_path: Path) -> None:
    write(tmp_path, NICE, MASK, GROUP, WEIGHT, BACK)
    assert left_behind(tmp_path)
    with closing(Ledger(tmp_path / NAME, BOOT)) as ledger:
        found = ledger.outstanding()
        assert ledger.notes == ()
        assert [(entry.knob, entry.original, entry.new, entry.status) for entry in found] == [
            (Knob(Control.NICE, ThreadPlace(ProcId(100, 9), ThreadId(101, 11))), 0, 19, EntryStatus.DONE),
            (Knob(Control.AFFINITY, ThreadPlace(ProcId(100, 9), ThreadId(100, 9))), (0, 1), (1,), EntryStatus.INTENT),
            (Knob(Control.AUTOGROUP, AutogroupPlace("autogroup-3", ProcId(7, 7))), 0, 19, EntryStatus.DONE),
        ]
        assert found[0].target == "group hogs pid 100 (ü)"
        assert ledger.is_foreign(Knob(Control.CPU_SHARES, Cgroup("/a")))
    with closing(Ledger(tmp_path / NAME, BOOT)) as again:
        assert again.outstanding() == found, "it was taken over once"
    assert not (tmp_path / NAME_OF_1).exists()
    assert (tmp_path / f"{NAME_OF_1}.1").exists(), "nothing is lost"


def test_what_cannot_be_read_of_it_is_told(tmp_path: Path) -> None:
    write(tmp_path, NICE, MASK, wrong=0)
    with closing(Ledger(tmp_path / NAME, BOOT)) as ledger:
        assert [entry.decision for entry in ledger.outstanding()] == ["s-1.1"]
        assert [note.lost for note in ledger.notes] == [True]
    (tmp_path / f"{NAME_OF_1}.1").rename(tmp_path / NAME_OF_1)
    (tmp_path / NAME_OF_1).write_bytes(b"not a database, but long enough to look like a file of one " * 20)
    with closing(Ledger(tmp_path / NAME, BOOT)) as ledger:
        assert [note.lost for note in ledger.notes] == [True]


def test_after_a_reboot_it_has_nothing_to_undo(tmp_path: Path) -> None:
    write(tmp_path, NICE, GROUP)
    with closing(Ledger(tmp_path / NAME, "another-boot")) as ledger:
        assert ledger.outstanding() == ()
        assert "rebooted since: 2 changes" in ledger.notes[0].text


def test_a_row_of_impossible_types_is_told_and_takes_nothing_else_with_it(tmp_path: Path) -> None:
    deep = (*NICE[:14], "[" * 3000, *NICE[15:])
    text_for_group = (2, *NICE[1:12], "not a number", *NICE[13:])
    write(tmp_path, deep, text_for_group, (3, *MASK[1:]))
    with closing(Ledger(tmp_path / NAME, BOOT)) as ledger:
        assert [entry.decision for entry in ledger.outstanding()] == ["s-1.1"]
        assert [note.lost for note in ledger.notes] == [True]
    with closing(Ledger(tmp_path / NAME, BOOT)) as again:
        assert again.notes == (), "nothing was taken over that cannot be read"
