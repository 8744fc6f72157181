"""Deploys of a real gunicorn are no hands on its size: reload, upgrade, restart, another release. A real hand is still obeyed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nicety.models.records import PoolSample
from nicety.scheduler.config.sections import PoolConfig
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.pools.gunicorn.adapter import SETTLE_NS, GunicornPool
from nicety.scheduler.testing.acts import own_acts
from nicety.scheduler.testing.clock import ShiftedClock
from nicety.scheduler.testing.driver import PoolDriver
from nicety.scheduler.testing.web import APPLICATION, Clients, free_port


class Site(PoolDriver):
    """A pid file, the masters that write it, and the adapter."""

    def __init__(self, folder: Path) -> None:
        (folder / "app.py").write_text(APPLICATION, encoding="ascii")
        self.folder, self.pidfile, self.log = folder, folder / "pid", folder / "log"
        self.address = ("127.0.0.1", free_port())
        self.masters: list[subprocess.Popen[bytes]] = []
        self.pids: set[int] = set()  # of masters that are no children of ours
        clock = self._shifted = ShiftedClock(SystemClock())
        config = PoolConfig(kind="gunicorn", pidfile=str(self.pidfile), maximum=16)
        pool = GunicornPool("web", config, clock, own_acts("web", config, clock))
        super().__init__(pool, clock, told=self.log.read_text)

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{self.address[1]}", "--chdir", str(self.folder)]
        with self.log.open("ab") as output:
            command += ["--pid", str(self.pidfile), *options, "app:application"]
            self.masters.append(subprocess.Popen(command, stdout=output, stderr=output))
        return self.masters[-1]

    def settled(self, size: int) -> PoolSample:
        """The first sample with `size` workers that the adapter takes for the master's own."""
        self.up(size)
        self._shifted.shift += SETTLE_NS
        return self.up(size)

    def close(self) -> None:
        self.pool.close()
        for pid in self.pids:
            try:
                os.kill(pid, signal.SIGQUIT)
            except ProcessLookupError:
                pass
        for master in self.masters:
            if master.poll() is None:
                master.send_signal(signal.SIGQUIT)
            master.wait(20)


@pytest.fixture
def site(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Site]:
    caplog.set_level("INFO")
    site = Site(tmp_path)
    yield site
    site.close()


def workers(sample: PoolSample) -> set[int]:
    return {worker.id.pid for worker in sample.workers}


def test_a_reload_is_a_deploy_and_the_size_is_asked_for_again(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    master = site.start("-w", "2")
    site.settled(2)
    before = workers(site.settle(3))
    with Clients(site.address, 3, "/sleep/20") as asking:
        master.send_signal(signal.SIGHUP)
        after = site.until(lambda s: not workers(s) & before and s.size == s.requested == 3)
        assert after.trouble == ""
        assert "pool web: deployed: 3 workers replaced (HUP)" in caplog.text
    assert asking.failures == []
    with Clients(site.address, 1, "/sleep/2500", once=True) as asking:
        site.until(lambda s: any((w.busy or 0) > 0.5 for w in s.workers))
        master.send_signal(signal.SIGHUP)
        sample = site.until(lambda s: s.trouble)
        assert sample.trouble == "deploying: 2 of 3 workers are replaced, the others still end their requests"
        assert site.pool.resize(4) == (Status.REFUSED, sample.trouble)
        site.until(lambda s: not s.trouble and s.size == 3 and not workers(s) & workers(after))
        assert site.pool.resize(1)[0] is Status.APPLIED
        site.up(1)
    assert asking.failures == []
    assert "by hand" not in caplog.text


def test_a_hand_on_the_size_of_busy_workers_is_obeyed(site: Site) -> None:
    master = site.start("-w", "2")
    site.settled(2)
    with Clients(site.address, 6, "/cpu/30"):
        site.until(lambda s: (s.queued or 0) > 2)
        master.send_signal(signal.SIGTTIN)
        sample = site.until(lambda s: s.trouble.startswith("resized by hand"), 6)
    assert sample.size == sample.requested == 3
    assert site.pool.resize(1)[0] is Status.FOREIGN


def test_a_master_that_ends_is_no_hand_and_its_successor_is_sized(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    master = site.start("-w", "2")
    first = site.settled(2).master
    with Clients(site.address, 1, "/sleep/2000", once=True) as asking:
        site.until(lambda s: any((w.busy or 0) > 0.5 for w in s.workers))
        master.terminate()
        sample = site.until(lambda s: s.trouble)
        assert sample.trouble == f"deploying: gunicorn's master, pid {master.pid}, ends, and no other has taken over yet"
        assert site.until(lambda s: s.master is None).trouble
    assert asking.failures == []
    site.start("-w", "3")
    site.until(lambda s: s.master not in {None, first} and not s.trouble)
    assert site.pool.resize(2)[0] is Status.APPLIED
    site.up(2)
    assert "by hand" not in caplog.text


def test_an_upgrade_hands_over_step_by_step(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.start("-w", "2", "--daemon", "--error-logfile", str(site.log)).wait(20)
    old = site.up(2).master
    assert old is not None
    site.pids.add(old.pid)
    os.kill(old.pid, signal.SIGUSR2)
    heir = site.folder / "pid.2"
    assert {site.over(0.1).trouble for _ in iter(heir.exists, True)} <= {""}
    new = int(heir.read_text())
    site.pids.add(new)
    os.kill(old.pid, signal.SIGWINCH)
    expected = f"deploying: gunicorn's master, pid {old.pid}, hands over to pid {new} (USR2)"
    assert site.until(lambda s: s.size == 0 and s.trouble).trouble == expected
    os.kill(old.pid, signal.SIGQUIT)
    after = site.until(lambda s: s.master is not None and s.master.pid == new and s.size == 2 and not s.trouble)
    assert after.requested == 2
    assert f"pid {new}, has taken over from pid {old.pid}" in caplog.text
    assert "by hand" not in caplog.text
