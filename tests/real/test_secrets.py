"""Passwords in arguments, environments, titles and URLs of real processes and pools: nicety writes and says none of them.

Each secret has a name of its own, so a failure says which way it took.
"""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.read.evidence import look
from nicety.scheduler.read.process import see
from nicety.scheduler.service.answers.control_socket import ControlError, ask
from nicety.scheduler.store.decisions import DecisionReader

MARK = "s3cret"
"""All secrets have it in them."""

APP = "import time\nwhile True:\n    time.sleep(0.05)\n"

CONFIG = """
[daemon]
interval = 0.2
probe_interval = 0.1
[pools.jobs]
kind = "command"
command = ["{python}", "{app}", "--password=s3cret-of-a-worker"]
minimum = 2
maximum = 2
queue.redis_list = "redis://:s3cret-of-the-queue@127.0.0.1:{port}/0/jobs"
queue.every = 0.1
[pools.counted]
kind = "command"
command = ["{python}", "-c", "import time; time.sleep(1000)", "s3cret-of-an-argument"]
minimum = 1
maximum = 1
queue.command = ["sh", "-c", "echo cannot reach redis://:s3cret-of-a-command@127.0.0.1"]
queue.every = 0.1
[pools.ended]
kind = "command"
command = ["/nowhere/app", "-p", "s3cret-of-no-worker"]
minimum = 1
[pools.celery]
kind = "celery"
pid = {pid}
python = "{python}"
broker = "redis://:s3cret-of-the-broker@127.0.0.1:{port}/0"
"""

Command = Callable[..., Any]  # the `nicety` of conftest.py


def texts(path: Path) -> Iterator[tuple[str, bytes]]:
    """(where, what) of a file: its bytes and, of a database, every value of every row, unpacked."""
    yield path.name, path.read_bytes()
    if path.suffix != ".db":
        return
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
        for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in db.execute(f'SELECT * FROM "{table}"'):
                for value in row:
                    data = value if isinstance(value, bytes) else str(value).encode()
                    try:
                        yield f"{path.name}, {table}", zlib.decompress(data)
                    except zlib.error:
                        yield f"{path.name}, {table}", data
    db.close()


def leaks(*paths: Path) -> list[str]:
    """Where a secret stands, with what is around it."""
    found = []
    for path in (each for top in paths for each in ([top] if top.is_file() else sorted(top.rglob("*"))) if each.is_file()):
        for where, text in texts(path):
            at = text.find(MARK.encode())
            if at >= 0:
                found.append(f"{where}: {text[max(0, at - 60) : at + 40]!r}")
    return found


@pytest.fixture
def app(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program with a password in its arguments and another in its environment."""
    (tmp_path / "app.py").write_text(APP)
    command = [sys.executable, str(tmp_path / "app.py"), "--password=s3cret-of-the-app", "-u", "s3cret-user"]
    process = subprocess.Popen(command, env={**os.environ, "TOKEN": "s3cret-of-the-environment"}, start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_a_program_is_named_without_its_arguments_and_environment(app: subprocess.Popen[bytes]) -> None:
    titled = subprocess.Popen(["s3cret-title --password=s3cret", "1000"], executable="/bin/sleep", start_new_session=True)
    try:
        for process in (app, titled):
            deadline = time.monotonic() + 20
            while (seen := see(process.pid)) is None or seen.identity.program in ("", "python3"):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert MARK not in repr(seen)
            assert MARK not in repr(look(ProcId(process.pid, seen.id.start_ticks)))
        assert b"s3cret" in Path(f"/proc/{app.pid}/cmdline").read_bytes(), "the test shows nothing"
    finally:
        titled.kill()
        titled.wait()


def test_no_secret_is_recorded_logged_or_shown(nicety: Command, app: subprocess.Popen[bytes], tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    state, config, log = (tmp_path / name for name in ("state", "nicety.toml", "log"))
    config.write_text(CONFIG.format(python=sys.executable, app=tmp_path / "app.py", port=port, pid=app.pid))
    where = ["--config", str(config), "--state-dir", str(state)]
    command = [sys.executable, "-P", "-m", "nicety.scheduler", "run", *where]
    with log.open("wb") as out:
        daemon = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, "TOKEN": "s3cret-of-the-daemon"})
    said = tmp_path / "said"
    said.mkdir()
    try:
        troubles: dict[str, str] = {}
        deadline = time.monotonic() + 120
        while not all(troubles.get(name) for name in ("ended", "celery")):
            assert time.monotonic() < deadline, (troubles, log.read_text())
            assert daemon.poll() is None, log.read_text()
            time.sleep(0.1)
            try:
                troubles = {pool["pool"]: pool["trouble"] for pool in ask(state / "control.sock", "status", full=True)["pools"]}
            except ControlError:
                continue
        for number, words in enumerate((["status"], ["status", "--json"], ["doctor"], ["why", str(app.pid)])):
            done = nicety(*words, *where)
            (said / f"{number}-{words[0]}").write_text(done.out + done.err)
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(60)
    commands = (
        ["decisions", "--json"],
        ["anomalies", "--json"],
        ["replay"],
        ["export", "traces", "-o", str(said / "traces.csv")],
        ["export", "decisions", "-o", str(said / "decisions.jsonl")],
        ["record", "--duration", "0.3s", "--interval", "0.1"],
    )
    for number, words in enumerate(commands):
        done = nicety(*words, *where)
        assert done.code in (0, 3), done.err
        (said / f"after-{number}").write_text(done.out + done.err)
    text = log.read_text()
    for cause in (
        "its queue cannot be counted",
        "cannot be started",
        "Celery agent" if "Celery agent" in text else "cannot be asked",
    ):
        assert cause in text, "nothing went wrong that could have quoted a secret"
    with DecisionReader(state / "decisions.db") as reader:
        session = reader.sessions()[0].session
    assert session is not None
    assert session.config["pools"]["celery"]["broker"] == f"redis://:**@127.0.0.1:{port}/0"
    assert "app.py" in (said / "traces.csv").read_text()
    assert leaks(state, said, log) == []


def test_a_leak_would_be_found(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "x.db")
    db.execute("CREATE TABLE t (a)")
    db.execute("INSERT INTO t VALUES (?)", (zlib.compress(b"redis://:s3cret-x@h"),))
    db.commit()
    db.close()
    (tmp_path / "log").write_text("password s3cret")
    assert len(leaks(tmp_path)) == 2
