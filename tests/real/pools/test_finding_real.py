"""Real servers and workers are found with their masters, also by a user without rights, and what is adopted can be sized."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nicety.scheduler.config.paths import read_config
from nicety.scheduler.config.sections import Config
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.pools.build import build
from nicety.scheduler.pools.finding.found import Found
from nicety.scheduler.pools.finding.search import everything, machine
from nicety.scheduler.read.proc import ProcSource
from nicety.scheduler.read.process import see
from nicety.scheduler.service import doctor
from nicety.scheduler.service.pool_watch import EVERY_NS, PoolWatch
from nicety.scheduler.testing.readable import readable_by_all
from nicety.scheduler.testing.web import APPLICATION, free_port

NICETY = [sys.executable, "-m", "nicety.scheduler"]
ASGI = "async def app(scope, receive, send):\n    pass\n"
JOBS = "import dramatiq\nfrom dramatiq.brokers.stub import StubBroker\ndramatiq.set_broker(StubBroker())\n"
NEEDS = ("uvicorn", "dramatiq")


@dataclass(frozen=True)
class Running:
    """Pools that the tests have started, by kind the pid of the main process."""

    folder: Path
    pids: dict[str, int]

    def found(self, config: Config | None = None) -> dict[str, Found]:
        """What was found of them, by kind. Other pools may run on the machine."""
        there = everything(machine(), config or Config(), os.environ)
        return {each.kind: each for each in there if each.pid in self.pids.values()}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("stack")
    (folder / "shop.py").write_text(APPLICATION)
    (folder / "api.py").write_text(ASGI)
    (folder / "mail.py").write_text(JOBS)
    commands = {
        "gunicorn": ["-w", "2", "-b", f"127.0.0.1:{free_port()}", "--pid", f"{folder}/pid", "shop:application"],
        "uvicorn": ["api:app", "--workers", "2", "--port", str(free_port())],
        "dramatiq": ["mail", "--processes", "2", "--threads", "1"],
    }
    started = {
        kind: subprocess.Popen(
            [sys.executable, "-m", kind, *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for kind, arguments in commands.items()
    }
    try:
        place = Running(folder, {kind: process.pid for kind, process in started.items()})
        deadline = time.monotonic() + 30
        while {kind: len(each.workers) for kind, each in place.found().items()} != dict.fromkeys(started, 2):
            assert time.monotonic() < deadline, place.found()
            time.sleep(0.1)
        yield place
    finally:
        for process in started.values():
            process.terminate()
        for process in started.values():
            process.wait(20)


def test_each_is_found_with_its_master_and_what_can_be_done(running: Running) -> None:
    found = running.found()
    assert {kind: each.pid for kind, each in found.items()} == running.pids
    assert {kind: (each.name, bool(each.unsized)) for kind, each in found.items()} == {
        "gunicorn": ("shop", False),
        "uvicorn": ("api", False),
        "dramatiq": ("mail", False),
    }
    workers = [pid for each in found.values() for pid in each.workers]
    parents = {seen.parent for pid in workers if (seen := see(pid)) is not None}
    assert parents == set(running.pids.values())


def test_what_is_adopted_can_be_sized_and_is_not_found_again(running: Running) -> None:
    file = running.folder / "nicety.toml"
    file.write_text("# mine\n")
    name = running.found()["gunicorn"].name
    adopted = subprocess.run([*NICETY, "--config", file, "pools", "adopt", name], capture_output=True, text=True, check=False)
    assert (adopted.returncode, adopted.stdout) == (0, "")
    assert f"next: look at the block, then nicety reload; nicety act {name}" in adopted.stderr
    config = read_config(file, os.geteuid())
    pool = build(config, SystemClock(), state_dir=running.folder)[name]
    try:
        pool.probe()
        sample = pool.read()
    finally:
        pool.close()
    assert (sample.trouble, len(sample.workers)) == ("", 2)
    assert {kind: each.configured for kind, each in running.found(config).items()} == {
        "gunicorn": True,
        "uvicorn": False,
        "dramatiq": False,
    }
    again = subprocess.run([*NICETY, "--config", file, "pools", "adopt", name], capture_output=True, text=True, check=False)
    assert (again.returncode, "has [pools.shop] already" in again.stderr) == (1, True)


def test_doctor_says_what_to_type_for_each(running: Running) -> None:
    said = [finding.what for finding in doctor.examine("/dev/null", str(running.folder), os.environ, os.geteuid())]
    names = {kind: each.name for kind, each in running.found().items()}
    for kind in running.pids:
        assert f"a {kind} of 2 workers (pid {running.pids[kind]}), not sized: nicety pools adopt {names[kind]}" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_a_user_without_rights_finds_them_too(running: Running) -> None:
    command = [*readable_by_all(), "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *NICETY]
    environ = {**os.environ, "HOME": "/nonexistent", "NICETY_CONFIG": "/dev/null"}
    listed = subprocess.run([*command, "pools", "--json"], capture_output=True, text=True, check=True, env=environ, cwd="/")
    seen = {each["kind"]: each for each in json.loads(listed.stdout)["pools"] if each["master"] in running.pids.values()}
    assert {kind: len(each["workers"]) for kind, each in seen.items()} == dict.fromkeys(running.pids, 2)
    assert "seen only by root" in listed.stderr


def test_the_daemon_notes_each_after_its_second_search(running: Running) -> None:
    source, watch = ProcSource(), PoolWatch(Config())
    try:
        first = source.read(0, 0, ())
        assert watch.notes(first) == ()
        second = source.read(EVERY_NS, EVERY_NS, ())
        texts = {note.text for note in watch.notes(second)}
    finally:
        source.close()
    wanted = {f"found a {kind} of 2 workers (pid {pid}): nicety pools" for kind, pid in running.pids.items()}
    assert wanted <= texts
