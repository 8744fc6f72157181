"""A state directory whose parts belong to two users, as with the units: what root types works, and root reads it as the owner.

The hands' part has a ledger that dead hands left, the brain's part has what a daemon recorded.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from nicety.scheduler.act.hands_apart import reach_hands
from nicety.scheduler.hands.looks import Order
from nicety.scheduler.hands.places import Control
from nicety.scheduler.testing.puppet import Puppet
from nicety.scheduler.testing.readable import readable_by_all
from nicety.scheduler.testing.sentries import kill_with_sentries

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="starts processes of other users: needs root"),
]

HANDS, BRAIN = 61001, 61002
"""Uids and gids of the two. They need no entry in the database of users."""

AS = """
import os, sys
from nicety.scheduler.hands.owner import ALL, Owner, become
become(Owner(int(sys.argv[1]), int(sys.argv[1])), ALL if sys.argv[2] == "able" else 0)
os.environ["LISTEN_PID"] = str(os.getpid())
from nicety.scheduler.__main__ import main
sys.argv[1:] = sys.argv[3:]
main()
"""
"""`nicety` as one of the two: arguments are the uid, "able" or "unable", and those of nicety."""

LISTENS = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_FDS'] = '1'; os.execv(sys.argv[2], sys.argv[2:])"


def nicety(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """What root types."""
    command = [*readable_by_all(), sys.executable, "-m", "nicety.scheduler", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def nicety_of(uid: int, able: str, *arguments: str | Path) -> list[str]:
    return [*readable_by_all(), sys.executable, "-c", AS, str(uid), able, *map(str, arguments)]


@pytest.fixture(scope="module")
def recorded() -> Iterator[Path]:
    """A state directory with two parts, and stores in the brain's."""
    folder = Path(tempfile.mkdtemp(prefix="nicety-"))
    folder.chmod(0o755)
    state = folder / "state"
    state.mkdir(mode=0o755)
    for name, uid in (("hands", HANDS), ("brain", BRAIN)):
        (state / name).mkdir(mode=0o700)
        os.chown(state / name, uid, uid)
    own = state / "brain"
    config = folder / "nicety.toml"
    config.write_text("[daemon]\ninterval = 0.2\n")
    arguments = ("run", "--observe", "--duration", "2", "--state-dir", own, "--config", config)
    done = subprocess.run(nicety_of(BRAIN, "unable", *arguments), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    for name in ("lock", "ledger"):
        (own / name).unlink(missing_ok=True)
    yield state
    shutil.rmtree(folder)


@pytest.fixture
def private() -> Iterator[Path]:
    """A directory that only root may enter."""
    folder = Path(tempfile.mkdtemp(prefix="nicety-"))
    yield folder
    shutil.rmtree(folder)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def owners(directory: Path) -> set[int]:
    return {path.lstat().st_uid for path in (directory, *directory.rglob("*"))}


def ticks_in(traces: Path) -> int:
    with closing(sqlite3.connect(traces)) as db:
        return int(db.execute("SELECT count(*) FROM ticks").fetchone()[0])


def test_what_root_types_reads_and_writes_the_stores_as_their_owner(recorded: Path, private: Path) -> None:
    where = ("--state-dir", recorded)
    listed = nicety("decisions", "--json", *where)
    assert (listed.returncode, "belongs to" in listed.stderr) == (0, False), listed.stderr
    replayed = nicety("replay", "--json", *where)
    assert replayed.returncode == 0, replayed.stderr
    found = json.loads(replayed.stdout)
    assert (found["sessions"], found["observed"] > 0, found["identical"]) == (1, True, True)
    (traces,) = (recorded / "brain" / "traces").glob("*.db")
    before = ticks_in(traces)
    more = nicety("record", "--duration", "1", *where)
    assert (more.returncode, "recorded" in more.stderr) == (0, True), more.stderr
    assert ticks_in(traces) > before
    unknown = nicety("anomalies", "wrong", "none", *where)
    assert (unknown.returncode, "none" in unknown.stderr) == (1, True)
    for fine in (("models", "list", *where), ("anomalies", *where)):
        assert nicety(*fine).returncode == 0
    assert owners(recorded / "brain") == {BRAIN}
    out = private / "traces.csv"
    for kind in ("traces", "decisions"):
        done = nicety("export", kind, "-o", out, *where)
        assert done.returncode == 0, done.stderr
        assert (out.stat().st_uid, stat.S_IMODE(out.stat().st_mode), names(private)) == (0, 0o600, [out.name])
        assert b"," in out.read_bytes()
        out.unlink()


def test_an_export_that_fails_leaves_nothing_where_root_wanted_it(recorded: Path, private: Path) -> None:
    out = private / "decisions.csv"
    done = nicety("export", "decisions", "--format", "parquet", "-o", out, "--state-dir", recorded)
    assert (done.returncode, names(private)) == (2, [])
    missing = nicety("export", "decisions", "-o", private / "none" / "out.csv", "--state-dir", recorded)
    assert (missing.returncode, "cannot write" in missing.stderr, names(private)) == (1, True, [])


def test_a_training_of_root_leaves_models_of_the_owner_and_the_report_of_root(recorded: Path, private: Path) -> None:
    page = private / "report.html"
    options = ("--only", "demand", "--dry-run", "--report", page, "--state-dir", recorded)
    done = nicety("train", *options)
    assert done.returncode in (0, 1, 3), done.stderr
    assert "Traceback" not in done.stderr
    assert (page.exists(), names(private)) == (True, [page.name]), done.stderr
    assert page.stat().st_uid == 0
    assert owners(recorded / "brain") == {BRAIN}


def test_a_part_that_root_did_not_give_is_not_trusted(recorded: Path) -> None:
    """Whoever owns a directory can make a part in it, with anything in there."""
    theirs = recorded.parent / "theirs"
    theirs.mkdir(mode=0o755)
    shutil.copytree(recorded / "brain", theirs / "brain")
    for path in (theirs / "brain", *(theirs / "brain").rglob("*")):
        os.chown(path, BRAIN, BRAIN)
    assert nicety("decisions", "--state-dir", theirs).returncode == 0, "of root's own directory they are"
    os.chown(theirs, BRAIN, BRAIN)
    done = nicety("decisions", "--state-dir", theirs)
    assert (done.returncode, f"belongs to user {BRAIN}" in done.stderr) == (1, True), done.stderr
    os.chown(theirs, 0, 0)
    theirs.chmod(0o777)
    assert nicety("decisions", "--state-dir", theirs).returncode == 1


def test_root_undoes_what_hands_of_another_user_left(recorded: Path) -> None:
    path, where = recorded.parent / "hands.sock", ("--state-dir", recorded)
    with Puppet() as puppet, socket.socket(socket.AF_UNIX) as listener:
        first = os.getpriority(os.PRIO_PROCESS, puppet.id.pid)
        listener.bind(os.fspath(path))
        listener.listen()
        served = nicety_of(HANDS, "able", "hands", *where)
        command = [sys.executable, "-c", LISTENS, str(listener.fileno()), *served]
        command[4:5] = [shutil.which(command[4]) or command[4]]
        process = subprocess.Popen(command, pass_fds=[listener.fileno()])
        hands = reach_hands(os.fspath(path))
        try:
            assert f"Uid:\t{HANDS}\t" in Path(f"/proc/{hands.pid}/status").read_text()
            hands.open()
            (done,) = hands.change([Order("s-0.1", "t", Control.NICE, puppet.id, 12)])
            assert (done.status, os.getpriority(os.PRIO_PROCESS, puppet.id.pid)) == ("applied", 12)
            kill_with_sentries(hands.pid, recorded)
        finally:
            hands._channel.close()
            process.wait(10)
        assert os.getpriority(os.PRIO_PROCESS, puppet.id.pid) == 12
        left = nicety("status", "--json", *where)
        assert (left.returncode, len(json.loads(left.stdout)["changes_in_force"])) == (1, 1), left.stderr
        findings = {one["name"]: one for one in json.loads(nicety("doctor", "--json", *where).stdout)["findings"]}
        assert findings["state directory"]["what"] == f"{recorded / 'hands'} and {recorded / 'brain'}"
        assert "1 of its changes" in findings["daemon"]["what"]
        undone = nicety("undo", "--json", *where)
        assert (undone.returncode, [one["changed"] for one in json.loads(undone.stdout)["outcomes"]]) == (0, [1]), undone.stderr
        assert os.getpriority(os.PRIO_PROCESS, puppet.id.pid) == first
    assert owners(recorded / "hands") == {HANDS}
