"""What a running daemon offers to others: a unix socket for its own user, files for itself alone, and nothing else.

An audit hook of Python sees every object unpickled, every socket bound and every program started in it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nicety.scheduler.interpreter import PYTHON
from nicety.scheduler.service.answers.control_socket import ControlError, ask

AUDITED = """
import json, sys
log = open(sys.argv[1], "w", buffering=1)
def hook(event, arguments):
    if event in ("pickle.find_class", "socket.bind", "socket.connect", "os.system", "os.exec", "os.posix_spawn",
                 "subprocess.Popen", "ctypes.dlopen"):
        log.write(json.dumps([event, repr(arguments[-1] if event.startswith("socket") else arguments)]) + "\\n")
sys.addaudithook(hook)
from nicety.scheduler.running import Wanted, main, words
sys.exit(main(words(Wanted(*sys.argv[2:], act=None, duration=None, things=[], act_seconds=None))))
"""
"""The program that `nicety run` becomes."""


class Running:
    """A daemon that observes, with what its audit hook saw."""

    def __init__(self, place: Path) -> None:
        self.state, self.seen, self.log = place / "state", place / "seen", place / "log"
        config = place / "nicety.toml"
        config.write_text("[daemon]\ninterval = 0.1\n")
        command = [*PYTHON, "-c", AUDITED, str(self.seen), str(config), str(self.state)]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, umask=0)

    def ticks(self) -> int:
        try:
            return int(ask(self.state / "control.sock", "status")["ticks"])
        except ControlError:
            assert self.process.poll() is None, self.log.read_text()
            return 0

    def events(self) -> list[tuple[str, str]]:
        return [(event, text) for event, text in map(json.loads, self.seen.read_text().splitlines())]

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("exposed"))
    try:
        deadline = time.monotonic() + 60
        while running.ticks() < 5:
            assert time.monotonic() < deadline, running.log.read_text()
            time.sleep(0.05)
        yield running
    finally:
        running.close()


def leads_to(fd: Path) -> str:
    try:
        return str(fd.readlink())
    except FileNotFoundError:  # closed meanwhile
        return ""


def test_a_daemon_has_no_socket_of_a_network(daemon: Running) -> None:
    here = Path(f"/proc/{daemon.process.pid}")
    own = {target[8:-1] for fd in (here / "fd").iterdir() if (target := leads_to(fd)).startswith("socket:[")}
    assert own, "its control socket is one: found nothing to check"
    tables = [here / "net" / name for name in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6", "packet")]
    networks = {word for table in tables if table.exists() for line in table.read_text().splitlines()[1:] for word in line.split()}
    assert own & networks == set()


def test_a_daemon_binds_its_control_socket_alone_and_starts_no_program_but_its_hands(daemon: Running) -> None:
    events = daemon.events()
    bound = [text for event, text in events if event == "socket.bind"]
    assert len([text for text in bound if "control.sock" in text]) == 1
    assert [text for text in bound if "control.sock" not in text and not text.startswith("(")] == []
    started = [text for event, text in events if event.startswith(("os.", "subprocess."))]
    assert len(started) == (os.geteuid() == 0)
    assert all("'-I', '-S', '-c'" in text and "nicety.scheduler.hands.serve" in text for text in started)


def test_a_daemon_unpickles_nothing(daemon: Running) -> None:
    assert [pair for pair in daemon.events() if pair[0] == "pickle.find_class"] == []


def test_an_audit_hook_sees_an_object_unpickled(tmp_path: Path) -> None:
    code = AUDITED.partition("from nicety")[0] + "import pickle; pickle.loads(pickle.dumps(json.JSONDecoder))"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "seen")], check=True, timeout=60)
    assert "pickle.find_class" in (tmp_path / "seen").read_text()


def test_what_a_daemon_writes_is_for_its_own_user_whatever_its_umask(daemon: Running) -> None:
    modes = {path.relative_to(daemon.state): path.lstat().st_mode & 0o077 for path in (daemon.state, *daemon.state.rglob("*"))}
    assert {"control.sock", "decisions.db", "lock"} <= {str(path) for path in modes}
    assert {path: oct(mode) for path, mode in modes.items() if mode} == {}
