"""Links and second names that somebody planted where a command is about to write: what they lead to is not touched."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nicety.scheduler.config.paths import Paths
from nicety.scheduler.config.sections import Config
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.service.recording import record

PRECIOUS = b"root:precious\n"
RUN = [sys.executable, "-P", "-m", "nicety.scheduler", "run", "--duration", "0.3s", "--config"]

Command = Callable[..., Any]  # the `nicety` of conftest.py


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file that must stay as it is: what is in it, who owns it, who may read it."""
    path = tmp_path / "victim"
    path.write_bytes(PRECIOUS)
    path.chmod(0o640)
    before = path.stat()
    yield path
    after = path.stat()
    assert path.read_bytes() == PRECIOUS
    assert (after.st_mode, after.st_uid, after.st_gid, after.st_ino) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
        before.st_ino,
    )


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory with a trace."""
    root = tmp_path_factory.mktemp("recorded") / "state"
    record(Config(), Paths(root, root / "control.sock"), SystemClock(), 0.05, 0.2, lambda _: None)
    return root


def plant(how: str, at: Path, victim: Path) -> None:
    at.parent.mkdir(parents=True, exist_ok=True)
    if how == "link":
        at.symlink_to(victim)
    elif how == "dangling":
        at.symlink_to(victim.with_name("new"))
    else:
        at.hardlink_to(victim)


@pytest.mark.parametrize("how", ["link", "dangling", "second name"])
@pytest.mark.parametrize(
    "words",
    [
        ["export", "traces", "-o"],
        ["simulate", "--seconds", "60", "--warmup", "10", "--seeds", "1", "--rule", "kpa", "--json"],
        ["simulate", "--seconds", "60", "--warmup", "10", "--seeds", "1", "--rule", "kpa", "--plot"],
    ],
    ids=["export", "figures", "plot"],
)
def test_an_output_replaces_what_was_planted(
    nicety: Command, state: Path, tmp_path: Path, victim: Path, words: list[str], how: str
) -> None:
    if "--plot" in words:
        pytest.importorskip("matplotlib")
    out = tmp_path / "public" / "out.csv"
    plant(how, out, victim)
    done = nicety("--state-dir", state, *words, out)
    assert done.code == 0, done.err
    assert not out.is_symlink()
    assert (out.stat().st_mode & 0o777, out.stat().st_nlink) == (0o600, 1)
    assert out.read_bytes() != PRECIOUS
    assert not victim.with_name("new").exists()
    assert [path.name for path in out.parent.iterdir()] == ["out.csv"]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A pool whose workers write to their log at once."""
    path = tmp_path / "nicety.toml"
    path.write_text('[daemon]\ninterval = 0.1\n[pools.w]\nkind = "command"\ncommand = ["/bin/echo", "written"]\nminimum = 1\n')
    path.chmod(0o600)
    return path


def run(config: Path, root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RUN, str(config), "--state-dir", str(root)], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("how", ["link", "dangling", "second name"])
def test_a_daemon_writes_to_nothing_that_was_planted_in_its_directory(tmp_path: Path, victim: Path, config: Path, how: str) -> None:
    """The lock, the ledger and the socket: tests/faults/test_foreign_state.py, tests/real/service/test_control_socket.py."""
    root = tmp_path / "state"
    root.mkdir(mode=0o700)
    for name in ("decisions.db", "pauses.json", "feedback.json", "forecasts.bin", "pools/w.log"):
        plant(how, root / name, victim)
    done = run(config, root)
    assert done.returncode == 0, done.stderr
    assert "cannot be started" in done.stderr, "the log of the pool was refused"
    assert not victim.with_name("new").exists()


def test_a_daemon_writes_into_no_folder_that_a_link_leads_to(tmp_path: Path, config: Path) -> None:
    root, elsewhere = tmp_path / "state", tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    root.symlink_to(elsewhere)
    assert "symbolic link" in run(config, root).stderr
    assert list(elsewhere.iterdir()) == []
    root.unlink()
    root.mkdir(mode=0o700)
    for name in ("traces", "models"):
        (root / name).symlink_to(elsewhere)
    done = run(config, root)
    assert done.returncode == 1
    assert f"{root}/traces is a symbolic link" in done.stderr
    assert f"{root}/models is a link" in done.stderr
    assert list(elsewhere.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give the folder away")
def test_a_recording_of_root_makes_nothing_in_a_folder_of_somebody_else(nicety: Command, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    os.chown(tmp_path / "state", 65534, 65534)
    done = nicety("--state-dir", tmp_path / "state", "record", "--duration", "0.1s", "--interval", "0.1")
    assert done.code == 1
    assert "belongs to user 65534" in done.err
    assert list((tmp_path / "state").iterdir()) == []
