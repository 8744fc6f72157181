"""The gunicorn adapter beside a real gunicorn: exact figures, exact sizes, and no request lost."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nicety.scheduler.config.sections import PoolConfig
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.pools.gunicorn.adapter import GunicornPool
from nicety.scheduler.testing.acts import own_acts
from nicety.scheduler.testing.driver import PoolDriver, load
from nicety.scheduler.testing.web import APPLICATION, Clients, free_port, get


class Server(PoolDriver):
    """A real gunicorn and its adapter."""

    def __init__(self, folder: Path, *options: str, environ: dict[str, str] | None = None) -> None:
        (folder / "app.py").write_text(APPLICATION, encoding="ascii")
        self.log = folder / "gunicorn.log"
        self.address = ("127.0.0.1", free_port())
        self.pidfile = folder / "pid"
        command = [sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{self.address[1]}", "--chdir", str(folder)]
        command += ["--pid", str(self.pidfile), *options, "app:application"]
        with self.log.open("wb") as output:
            self.master = subprocess.Popen(command, stdout=output, stderr=output, env=environ)
        clock = SystemClock()
        config = PoolConfig(kind="gunicorn", pidfile=str(self.pidfile), maximum=16)
        pool = GunicornPool("web", config, clock, own_acts("web", config, clock))
        super().__init__(pool, clock, interval=0.01, told=self.log.read_text)

    def clients(self, count: int, path: str) -> Clients:
        return Clients(self.address, count, path)

    def signals(self, name: str) -> int:
        """How many signals of a kind the master has handled, by its own log."""
        return self.log.read_text().count(f"Handling signal: {name}")

    def close(self) -> None:
        self.pool.close()
        if self.master.poll() is None:
            self.master.send_signal(signal.SIGQUIT)
        self.master.wait(20)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("web"), "-w", "3")
    yield server
    server.close()


@pytest.mark.parametrize("path", ["/cpu/40", "/sleep/40", "/database/40"])
def test_busy_and_queued_are_exact_without_touching_the_app(server: Server, path: str) -> None:
    server.settle(3)
    # The busier the machine, the longer a client needs between two requests, and a worker after its answer, when the client already
    # waits again: the bounds leave room for that.
    for clients, busy, queued in ((1, (0.5, 1.3), (0.0, 0.2)), (2, (1.2, 2.4), (0.0, 0.4)), (8, (2.8, 3.0), (3.8, 6.0))):
        with server.clients(clients, path) as asking:
            deadline = time.monotonic() + 10
            while len(asking.answers) < clients:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            server.pool.read()
            seen = load(server.over(0.6, interval=0.007))
        assert asking.failures == []
        assert busy[0] <= seen[0] <= busy[1], (path, clients, seen)
        assert queued[0] <= seen[1] <= queued[1], (path, clients, seen)
    server.until(lambda s: load(s) == (0.0, 0.0))


def test_growing_by_five_takes_five_signals_and_shrinking_too(server: Server) -> None:
    server.settle(3)
    ttin, ttou = server.signals("ttin"), server.signals("ttou")
    server.settle(8)
    assert {server.over(0.1).size for _ in range(10)} == {8}
    assert server.signals("ttin") == ttin + 5
    server.settle(3)
    assert {server.over(0.1).size for _ in range(10)} == {3}
    assert (server.signals("ttin"), server.signals("ttou")) == (ttin + 5, ttou + 5)


@pytest.mark.parametrize("path", ["/cpu/5", "/sleep/30"])
def test_no_request_is_lost_while_the_pool_is_resized(server: Server, path: str) -> None:
    with server.clients(4, path) as asking:
        for size in (1, 4, 1, 4, 1):
            server.pool.resize(size)
            server.until(lambda s, size=size: s.size == size)  # type: ignore[misc]
    assert asking.failures == []
    assert len(asking.answers) > 20


def test_a_shrink_waits_for_a_long_request_and_takes_no_more_than_was_asked(server: Server) -> None:
    server.settle(3)
    ttou = server.signals("ttou")
    with server.clients(3, "/sleep/800") as asking:
        server.until(lambda s: load(s)[0] > 2.9)
        server.pool.resize(2)
        assert server.over(0.05).size == 3, "all workers are at a request"
        server.until(lambda s: s.size == 2)
    assert asking.failures == []
    assert server.over(0.5).size == 2
    assert server.signals("ttou") == ttou + 1


def test_the_start_time_is_measured_also_under_load(tmp_path: Path) -> None:
    server = Server(tmp_path, environ={"SLOW_START": "1.0", "PATH": ""})
    try:
        server.up(1)
        with server.clients(8, "/sleep/50") as asking:
            server.until(lambda s: (s.queued or 0) > 3)
            server.pool.resize(3)
            booting = server.until(lambda s: s.size == 3)
            assert not all(worker.ready for worker in booting.workers), "a second of start has not passed yet"
            up = server.until(lambda s: all(w.ready for w in s.workers))
            assert up.start_seconds is not None
            assert 1.0 <= up.start_seconds < 4.0
            assert (up.queued or 0) > 0, "they were never idle"
        assert asking.failures == []
    finally:
        server.close()


def test_an_upgraded_master_is_no_worker_and_is_adopted_when_it_takes_over(tmp_path: Path) -> None:
    server = Server(tmp_path, "-w", "2")
    heir = None
    try:
        old = server.up(2).master
        server.master.send_signal(signal.SIGUSR2)
        after = Path(f"{server.pidfile}.2")
        deadline = time.monotonic() + 10
        while not after.exists():
            assert server.over(0.1).size == 2
            assert time.monotonic() < deadline
        heir = int(after.read_text())
        assert server.over(1.0).size == 2
        server.master.terminate()
        server.master.wait(20)
        new = server.until(lambda s: s.master is not None and s.master != old and s.size == 2)
        assert new.master is not None
        assert new.master.pid == heir
        server.up(2)
        assert server.pool.resize(3)[0] is Status.APPLIED
        server.up(3)
        assert get(server.address, "/sleep/1") == 200
    finally:
        server.close()
        if heir is not None:
            with socket.socket() as probe:
                subprocess.run(["kill", str(heir)], check=False)
                deadline = time.monotonic() + 10
                while probe.connect_ex(server.address) == 0 and time.monotonic() < deadline:
                    time.sleep(0.05)


def test_threaded_workers_have_a_queue_and_a_size_but_no_busy_share(tmp_path: Path) -> None:
    server = Server(tmp_path, "-w", "1", "--threads", "4")
    try:
        server.up(1)
        with server.clients(2, "/sleep/50"):
            sample = server.over(0.5)
        assert [worker.busy for worker in sample.workers] == [None]
        assert sample.queued == pytest.approx(0.0, abs=0.5)
        server.settle(2)
        server.settle(1)
    finally:
        server.close()


def test_a_probe_of_eight_workers_is_cheap(server: Server) -> None:
    server.settle(8)
    costs = []
    for _ in range(5):
        began = time.thread_time()
        for _ in range(40):
            server.pool.probe()
        costs.append((time.thread_time() - began) / 40)
        server.pool.read()
    assert min(costs) < 0.0006, f"{min(costs) * 1e3:.3f} ms of CPU a probe; 0.12 ms was measured"
