"""The ledger keeps what it was told, says what a value was first, and has one writer."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.hands import ledger as module
from nicety.scheduler.hands.changes import Entry, EntryStatus, believed
from nicety.scheduler.hands.ledger import Ledger, LedgerError, StateBusyError, StateLock
from nicety.scheduler.hands.places import AutogroupPlace, Cgroup, Control, Knob, Subject, ThreadId, ThreadPlace, Value
from nicety.scheduler.testing.ledger_file import rows

BOOT = "00000000-0000-4000-8000-000000000001"


def nice_entry(pid: int = 100, *, original: Value = 0, old: Value = 0, new: Value = 10, boot: str = BOOT, since: int = 5) -> Entry:
    return Entry(
        id=0,
        boot_id=boot,
        decision="d.1",
        target=f"pid {pid}",
        wall=1,
        knob=nice_knob(pid),
        session=pid,
        group=pid,
        since=since,
        original=original,
        old=old,
        new=new,
        status=EntryStatus.INTENT,
    )


def autogroup_entry(pid: int) -> Entry:
    return nice_entry(pid)._replace(knob=Knob(Control.AUTOGROUP, AutogroupPlace("autogroup-9", ProcId(pid, 7))))


def nice_knob(pid: int = 100) -> Knob:
    return Knob(Control.NICE, ThreadPlace(ProcId(pid, 7), ThreadId(pid, 7)))


def statuses(path: Path) -> list[tuple[int, str]]:
    return [(row.id, row.status) for row in rows(path)]


def test_an_intent_can_be_read_by_another_program_when_intend_returns(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.log", BOOT)
    assert ledger.intend([nice_entry(100), nice_entry(101)]) == (1, 2)
    assert statuses(tmp_path / "ledger.log") == [(1, "intent"), (2, "intent")]
    ledger.close()


def test_everything_of_an_entry_comes_back_from_the_file(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.log", BOOT)
    mask = nice_entry(3)._replace(knob=Knob(Control.AFFINITY, nice_knob(3).on), original=(0, 1), old=(0, 1), new=(1,), session=None)
    cgroup = nice_entry()._replace(knob=Knob(Control.CPU_WEIGHT, Cgroup("/a b\n'\"/ü")), new=3)
    ids = ledger.intend([nice_entry(), mask, autogroup_entry(4), cgroup])
    ledger.settle(dict.fromkeys(ids[:2], EntryStatus.DONE))
    before = ledger.outstanding()
    ledger.close()
    again = Ledger(tmp_path / "ledger.log", BOOT)
    assert again.notes == ()
    assert again.outstanding() == before
    assert [entry.status for entry in before] == ["done", "done", "intent", "intent"]
    assert [entry.new for entry in before] == [10, (1,), 10, 3]
    again.close()


def test_the_original_is_the_value_before_the_first_of_many_changes(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.log", BOOT)
    for old, new in ((0, 5), (5, 10), (10, 15)):
        (number,) = ledger.intend([nice_entry(original=0, old=old, new=new)])
        ledger.settle({number: EntryStatus.DONE})
    ledger.close()
    again = Ledger(tmp_path / "ledger.log", BOOT)
    chain = again.chain(nice_knob())
    assert chain is not None
    assert again.original(nice_knob()) == 0
    assert believed(chain) == (15,)
    assert [entry.new for entry in chain] == [5, 10, 15]
    again.close()


def test_only_what_a_crash_left_open_is_believed_besides_the_last_done_change(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.log", BOOT)
    (first,) = ledger.intend([nice_entry(new=5)])
    chain = ledger.chain(nice_knob())
    assert chain is not None
    assert believed(chain) == (5, 0), "not known to be done: it may still be as it was"
    ledger.settle({first: EntryStatus.DONE})
    ledger.intend([nice_entry(old=5, new=10)])
    chain = ledger.chain(nice_knob())
    assert chain is not None
    assert believed(chain) == (10, 5)
    ledger.close()


def test_a_value_that_goes_to_and_fro_keeps_a_short_chain_that_knows_the_earliest_change(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.log", BOOT)
    for turn in range(50):
        (number,) = ledger.intend([nice_entry(old=5 + 5 * (turn % 2), new=10 - 5 * (turn % 2), since=turn)])
        ledger.settle({number: EntryStatus.DONE})
    chain = ledger.chain(nice_knob())
    assert chain is not None
    assert {entry.new: entry.since for entry in chain} == {10: 0, 5: 1}
    assert len(rows(tmp_path / "ledger.log")) == 2
    ledger.close()


def test_settled_entries_are_not_outstanding_and_foreign_ones_are_remembered(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.log", BOOT)
    ids = ledger.intend([nice_entry(100 + index) for index in range(5)])
    statuses = [EntryStatus.UNDONE, EntryStatus.FOREIGN, EntryStatus.GONE, EntryStatus.FAILED, EntryStatus.DONE]
    ledger.settle(dict(zip(ids, statuses, strict=True)))
    ledger.close()
    again = Ledger(tmp_path / "ledger.log", BOOT)
    assert [entry.process for entry in again.outstanding()] == [ProcId(104, 7)]
    assert [again.is_foreign(nice_knob(100 + index)) for index in range(5)] == [False, True, False, False, False]
    again.close()


def test_an_autogroup_is_one_subject_through_whichever_process_it_was_set(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.log", BOOT)
    ledger.intend([autogroup_entry(4)])
    ledger.intend([autogroup_entry(5)])
    subject = Subject(Control.AUTOGROUP, AutogroupPlace("autogroup-9", ProcId(4, 7)))
    assert ledger.subjects() == (subject,)
    assert [len(chain) for chain in ledger.chains(subject).values()] == [2]
    ledger.close()


def test_after_a_reboot_nothing_is_outstanding_and_the_ledger_says_so(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.log", BOOT)
    ids = ledger.intend([nice_entry(100), nice_entry(101)])
    ledger.settle({ids[0]: EntryStatus.DONE, ids[1]: EntryStatus.FOREIGN})
    ledger.close()
    again = Ledger(tmp_path / "ledger.log", "another-boot")
    assert again.outstanding() == ()
    assert not again.is_foreign(nice_knob(101))
    (note,) = again.notes
    assert "rebooted" in note.text
    assert not note.lost
    again.close()
    assert statuses(tmp_path / "ledger.log") == [(1, "gone"), (2, "gone")]
    third = Ledger(tmp_path / "ledger.log", "another-boot")
    assert third.notes == (), "said once"
    third.close()


def test_closed_rows_are_pruned_and_open_and_hands_off_ones_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEEP", 20)
    monkeypatch.setattr(module, "LINES", 80)
    ledger = Ledger(tmp_path / "ledger.log", BOOT)
    (kept, foreign) = ledger.intend([nice_entry(1), nice_entry(2)])
    ledger.settle({kept: EntryStatus.DONE, foreign: EntryStatus.FOREIGN})
    for index in range(10):
        ids = ledger.intend([nice_entry(100 + index * 10 + offset) for offset in range(10)])
        ledger.settle(dict.fromkeys(ids, EntryStatus.GONE))
    ledger.close()
    left = statuses(tmp_path / "ledger.log")
    assert left[:2] == [(kept, "done"), (foreign, "foreign")]
    assert 20 <= len(left) <= 2 + 20 + 40


def test_a_ledger_of_another_version_is_refused_and_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.log"
    monkeypatch.setattr(module, "VERSION", 3)
    ledger = Ledger(path, BOOT)
    ledger.intend([nice_entry()])
    ledger.close()
    before = path.read_bytes()
    monkeypatch.undo()
    with pytest.raises(LedgerError, match=r"version 3, ours 2.*nicety undo"):
        Ledger(path, BOOT)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*.bad.*"))


def test_the_file_is_private_even_with_a_lax_umask(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        ledger = Ledger(tmp_path / "ledger.log", BOOT)
        ledger.intend([nice_entry()])
        assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("ledger.log*")} == {0o600}
        ledger.close()
    finally:
        os.umask(mask)


HOLD = "import sys, pathlib; from nicety.scheduler.hands.ledger import StateLock; "
HOLD += "lock = StateLock(pathlib.Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"


def lock_within(seconds: float, state: Path) -> StateLock:
    """A killed process is gone a moment after its parent has reaped it."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return StateLock(state)
        except StateBusyError:
            assert time.monotonic() < deadline


def test_a_second_process_is_told_who_holds_the_state_directory_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    state = tmp_path / "state"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(state)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StateBusyError, match=rf"pid {holder.pid};"):
            StateLock(state)
    finally:
        holder.kill()
        holder.communicate()
    with lock_within(5, state), pytest.raises(StateBusyError, match=rf"pid {os.getpid()};"):
        StateLock(state)
    StateLock(state).release()
    assert state.stat().st_mode & 0o777 == 0o700


def test_who_waits_for_a_sentry_gets_the_lock_and_who_does_not_is_told_to_try_again(tmp_path: Path) -> None:
    held = [StateLock(tmp_path / "state", sentry=True)]
    with pytest.raises(StateBusyError, match=rf"the sentry with pid {os.getpid()}, which is putting changes back; try again in a"):
        StateLock(tmp_path / "state")
    with pytest.raises(StateBusyError, match="try again"):
        StateLock(tmp_path / "state", 0.1)
    threading.Timer(0.1, lambda: held.pop().release()).start()
    with StateLock(tmp_path / "state", 5.0), pytest.raises(StateBusyError, match="stop it"):
        StateLock(tmp_path / "state", 5.0)  # a daemon is not waited for


def test_a_state_directory_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="--state-dir"):
        StateLock(tmp_path / "file" / "state")
