"""A state directory that somebody else could have written: refused with cause and next step, and nothing changes.

As root, where a link or a forged ledger would turn nicety into somebody's tool; the rest holds for every user.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nicety.scheduler.act.undo import undo_from_ledger
from nicety.scheduler.hands.changes import Entry, EntryStatus
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.hands.knobs.control import LinuxKernel
from nicety.scheduler.hands.ledger import Ledger, LedgerError, StateLock
from nicety.scheduler.hands.places import Control, Knob, ThreadId, ThreadPlace
from nicety.scheduler.testing.puppet import Puppet

NOBODY = 65534
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")

Command = Callable[..., Any]  # the `nicety` of conftest.py


def forge(state: Path, puppet: Puppet) -> None:
    """A ledger that says that this process had nice -20."""
    kernel = LinuxKernel()
    nice = os.getpriority(os.PRIO_PROCESS, puppet.id.pid)
    values = {"original": -20, "old": -20, "new": nice}
    ledger = Ledger(state / "ledger.log", kernel.boot_id())
    common = {"boot_id": kernel.boot_id(), "decision": "x-0.0", "target": "t", "wall": 1}
    where = {"knob": Knob(Control.NICE, ThreadPlace(puppet.id, ThreadId(*puppet.id))), "session": 1, "group": 1, "since": 1}
    (number,) = ledger.intend([Entry(id=0, status=EntryStatus.INTENT, **common, **where, **values)])  # type: ignore[arg-type]
    ledger.settle({number: EntryStatus.DONE})
    ledger.close()


def give(path: Path, uid: int = NOBODY) -> None:
    for each in (path, *path.rglob("*")):
        os.chown(each, uid, uid, follow_symlinks=False)


def contents(folder: Path) -> dict[str, tuple[int, int, bytes | str]]:
    """Every file below a folder: its mode, its owner, and what is in it."""
    found: dict[str, tuple[int, int, bytes | str]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        inside = str(path.readlink()) if path.is_symlink() else "" if path.is_dir() else path.read_bytes()
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_uid, inside)
    return found


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir(mode=0o700)
    return tmp_path / "state"


@pytest.fixture
def puppet() -> Iterator[Puppet]:
    with Puppet() as made:
        yield made


# --- as root, against another user ------------------------------------------------------------------------------------------------


@ROOT
@pytest.mark.parametrize("given", ["all of it", "the ledger alone"])
def test_a_forged_ledger_renices_nobody(nicety: Command, state: Path, puppet: Puppet, given: str) -> None:
    before = os.getpriority(os.PRIO_PROCESS, puppet.id.pid)
    forge(state, puppet)
    give(state if given == "all of it" else state / "ledger.log")
    there = contents(state)
    done = nicety("undo", "--state-dir", state)
    assert os.getpriority(os.PRIO_PROCESS, puppet.id.pid) == before
    assert done.code == 1
    assert f"belongs to user {NOBODY}" in done.err
    assert "chown" in done.err
    there |= {"lock": contents(state)["lock"]} if given != "all of it" else {}  # ours, in a directory of ours
    assert contents(state) == there


@ROOT
def test_a_ledger_of_ours_is_still_undone(nicety: Command, state: Path, puppet: Puppet) -> None:
    before = os.getpriority(os.PRIO_PROCESS, puppet.id.pid)
    forge(state, puppet)
    assert nicety("undo", "--state-dir", state).code == 0
    assert os.getpriority(os.PRIO_PROCESS, puppet.id.pid) == -20
    os.setpriority(os.PRIO_PROCESS, puppet.id.pid, before)


@ROOT
@pytest.mark.parametrize("command", [["undo"], ["status"], ["doctor"], ["run", "--duration", "1s"], ["record", "--duration", "1s"]])
def test_no_command_uses_a_directory_of_somebody_else(nicety: Command, state: Path, puppet: Puppet, command: list[str]) -> None:
    forge(state, puppet)
    give(state)
    there = contents(state)
    done = nicety(*command, "--state-dir", state)
    assert done.code == (3 if command == ["doctor"] else 1)
    assert f"belongs to user {NOBODY}" in done.out + done.err
    assert contents(state) == there


@ROOT
@pytest.mark.parametrize("command", [["replay"], ["decisions"], ["why", "s-0.0"], ["anomalies"]])
@pytest.mark.parametrize("how", ["theirs", "a link"])
def test_root_reads_no_log_that_somebody_else_could_have_written(
    nicety: Command, state: Path, command: list[str], how: str
) -> None:
    log = state / "decisions.db" if how == "theirs" else state.parent / "other.db"
    sqlite3.connect(log).close()
    log.touch(mode=0o600)
    if how == "theirs":
        give(log)
    else:
        (state / "decisions.db").symlink_to(log)
    there = contents(state.parent)
    done = nicety("--state-dir", state, *command)
    assert done.code == 1
    assert (f"belongs to user {NOBODY}" if how == "theirs" else "symbolic link") in done.err
    assert contents(state.parent) == there


# --- links and second names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["link", "hard link"])
@pytest.mark.parametrize("name", ["lock", "ledger.log", "ledger.db"])
def test_what_another_name_leads_to_is_not_written(nicety: Command, state: Path, puppet: Puppet, name: str, how: str) -> None:
    forge(state, puppet)
    victim = state.parent / "shadow"
    victim.write_text("root:secret\n")
    (state / name).unlink(missing_ok=True)
    if how == "link":
        (state / name).symlink_to(victim)
    else:
        (state / name).hardlink_to(victim)
    nice = os.getpriority(os.PRIO_PROCESS, puppet.id.pid)
    done = nicety("undo", "--state-dir", state)
    assert done.code == 1
    assert ("symbolic link" if how == "link" else "2 names") in done.err
    assert victim.read_text() == "root:secret\n"
    assert os.getpriority(os.PRIO_PROCESS, puppet.id.pid) == nice
    assert not list(state.glob("*.bad.*")), "nothing is moved aside either"


def test_a_directory_that_is_a_link_is_refused(nicety: Command, state: Path, puppet: Puppet) -> None:
    forge(state, puppet)
    (state.parent / "link").symlink_to(state)
    done = nicety("undo", "--state-dir", state.parent / "link")
    assert done.code == 1
    assert "symbolic link" in done.err
    assert (state / "ledger.log").exists()
    assert not (state / "lock").exists()


@pytest.mark.parametrize("name", ["", "lock", "ledger.log"])
def test_what_others_may_write_is_refused(nicety: Command, state: Path, puppet: Puppet, name: str) -> None:
    forge(state, puppet)
    (state / "lock").touch(mode=0o600)
    path = state / name if name else state
    path.chmod(path.stat().st_mode | 0o020)
    done = nicety("undo", "--state-dir", state)
    assert done.code == 1
    assert f"chmod go-w {path}" in done.err


@pytest.mark.parametrize("how", ["as the file", "through a link"])
def test_the_file_of_another_program_is_left_as_it_is(nicety: Command, state: Path, how: str) -> None:
    theirs = state / "ledger.log" if how == "as the file" else state.parent / "accounts"
    theirs.write_text("2026-12-02 wages\n  assets:bank  100 EUR\n")
    theirs.chmod(0o600)
    if how != "as the file":
        (state / "ledger.log").symlink_to(theirs)
    before = theirs.read_bytes()
    done = nicety("undo", "--state-dir", state)
    assert done.code == 1
    assert ("is no ledger of nicety" if how == "as the file" else "symbolic link") in done.err
    assert theirs.read_bytes() == before
    assert sorted(path.name for path in state.iterdir()) == ["ledger.log", "lock"]


def test_the_lock_is_no_pipe_and_no_directory(state: Path) -> None:
    os.mkfifo(state / "lock", 0o600)
    with pytest.raises(LedgerError, match="not a regular file; move it away"):
        StateLock(state)
    (state / "lock").unlink()
    (state / "lock").mkdir()
    with pytest.raises(LedgerError, match="not a regular file; move it away"):
        StateLock(state)


def test_a_ledger_that_is_exchanged_for_a_link_while_it_is_in_use_is_not_followed(state: Path, puppet: Puppet) -> None:
    kernel = LinuxKernel()
    forge(state, puppet)
    ledger = Ledger(state / "ledger.log", kernel.boot_id())
    theirs = state.parent / "theirs.db"
    shutil.copy(state / "ledger.log", theirs)
    before = theirs.read_bytes()
    (state / "ledger.log").unlink()
    (state / "ledger.log").symlink_to(theirs)
    with pytest.raises(LedgerError, match="nothing is changed without it"):
        ledger.intend([ledger.outstanding()[0]])
    ledger.close()
    assert theirs.read_bytes() == before


def test_undo_makes_no_directory_and_no_lock_where_there_is_no_ledger(tmp_path: Path, state: Path) -> None:
    assert undo_from_ledger(tmp_path / "none", SystemClock()) == ()
    assert undo_from_ledger(state, SystemClock()) == ()
    assert not (tmp_path / "none").exists()
    assert list(state.iterdir()) == []


@ROOT
def test_a_daemon_of_root_in_a_folder_of_somebody_else_starts_nothing(state: Path) -> None:
    give(state)
    command = [sys.executable, "-P", "-m", "nicety.scheduler", "run", "--act", "--state-dir", str(state), "--duration", "1s"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"belongs to user {NOBODY}" in done.stderr
    assert list(state.iterdir()) == []
