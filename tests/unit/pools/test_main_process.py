"""Which process is the main one of a foreign pool: found, replaced, lost, and never mistaken for who has its pid next."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.config.sections import PoolConfig
from nicety.scheduler.pools.sensing.main_process import LOOK_NS, MainProcess
from nicety.scheduler.pools.sensing.pidfile import named
from nicety.scheduler.pools.sensing.signals import ProcessHandle

PROC = Path("/proc")


@dataclass
class Open:
    """What an adapter would have of its main process."""

    handle: ProcessHandle
    closed: bool = False

    def close(self) -> None:
        self.handle.close()
        self.closed = True


@dataclass
class Adapter:
    config: PoolConfig
    forgot: int = 0
    objection: str = ""
    opened: list[Open] = field(default_factory=list)
    now: int = 1000 * LOOK_NS

    def __post_init__(self) -> None:
        self.main = MainProcess("jobs", self.config, self.find, self.forget, title="the master", remedy="see its log")

    def find(self, present: ProcId | None) -> Open | str | None:
        found = named(PROC, self.config, present)
        if found is None or isinstance(found, str):
            return found
        if self.objection:
            found[0].close()
            return self.objection
        self.opened.append(Open(found[0]))
        return self.opened[-1]

    def forget(self) -> None:
        self.forgot += 1

    def look(self, seconds: int = 2) -> int | None:
        """The pid of the main process after so many seconds."""
        self.now += seconds * LOOK_NS
        self.main.look(self.now)
        return None if self.main.id is None else self.main.id.pid


@pytest.fixture
def sleeper() -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    sleepers: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        sleepers.append(subprocess.Popen(["sleep", "1000"]))
        return sleepers[-1]

    yield start
    for process in sleepers:
        process.kill()
        process.wait()


Sleepers = Callable[[], subprocess.Popen[bytes]]


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def test_one_that_ends_is_let_go_and_a_restarted_one_is_adopted(
    tmp_path: Path, sleeper: Sleepers, caplog: pytest.LogCaptureFixture
) -> None:
    first, pidfile = sleeper(), tmp_path / "pid"
    adapter = Adapter(PoolConfig(kind="gunicorn", pidfile=str(pidfile)))
    assert adapter.look() is None
    assert adapter.main.absence.startswith(f"pid file {pidfile} does not exist")
    pidfile.write_text(f"{first.pid}\n", encoding="ascii")
    assert adapter.look() == first.pid
    there = adapter.main.id
    assert there is not None
    assert there.pid == first.pid
    end(first)
    pidfile.unlink()
    forgot = adapter.forgot
    adapter.main.look(adapter.now + 1)  # seen at once, not at the next look for another
    assert adapter.main.present is None
    assert adapter.main.id is None
    assert (adapter.opened[0].closed, adapter.forgot) == (True, forgot + 1)
    assert f"the master, pid {first.pid}, has ended: see its log, and start it again" in caplog.text
    for _ in range(3):
        assert adapter.look() is None
    assert caplog.text.count("does not exist") == 2, "said once before, and once after; not at every look"
    second = sleeper()
    pidfile.write_text(f"{second.pid}\n", encoding="ascii")
    assert adapter.look() == second.pid
    adapter.main.let_go("closed")
    assert adapter.main.absence == "closed"
    assert all(opened.closed for opened in adapter.opened)


def test_another_that_takes_over_is_followed_while_the_old_one_still_runs(tmp_path: Path, sleeper: Sleepers) -> None:
    old, new, pidfile = sleeper(), sleeper(), tmp_path / "pid"
    pidfile.write_text(str(old.pid), encoding="ascii")
    adapter = Adapter(PoolConfig(kind="gunicorn", pidfile=str(pidfile)))
    assert adapter.look() == old.pid
    forgot = adapter.forgot
    assert adapter.look() == old.pid
    assert adapter.forgot == forgot, "the same one again: nothing is forgotten"
    pidfile.write_text(str(new.pid), encoding="ascii")
    assert adapter.look(0) == old.pid, "looked for once a second"
    assert adapter.look() == new.pid
    assert (adapter.opened[0].closed, adapter.forgot) == (True, forgot + 1)
    adapter.main.let_go("closed")


@pytest.mark.parametrize("content", ["", "4194304"])
def test_while_no_better_one_is_found_the_present_one_is_kept(tmp_path: Path, sleeper: Sleepers, content: str) -> None:
    """A pid file is written anew in steps: for a moment it is empty, or names somebody who is not there yet."""
    master, pidfile = sleeper(), tmp_path / "pid"
    pidfile.write_text(str(master.pid), encoding="ascii")
    adapter = Adapter(PoolConfig(kind="gunicorn", pidfile=str(pidfile)))
    assert adapter.look() == master.pid
    pidfile.write_text(content, encoding="ascii")
    assert adapter.look() == master.pid
    pidfile.write_text(str(sleeper().pid), encoding="ascii")
    adapter.objection = "which is a stranger"
    assert adapter.look() == master.pid
    assert len(adapter.opened) == 1
    adapter.main.let_go("closed")


def test_a_bare_pid_is_worth_one_process(sleeper: Sleepers) -> None:
    master = sleeper()
    adapter = Adapter(PoolConfig(kind="gunicorn", pid=master.pid))
    assert adapter.look() == master.pid
    end(master)
    assert adapter.look() is None
    adapter.config = PoolConfig(kind="gunicorn", pid=sleeper().pid)  # as if the number had gone to somebody else
    for _ in range(3):
        assert adapter.look() is None
    assert f"pid {master.pid}, has ended" in adapter.main.absence
