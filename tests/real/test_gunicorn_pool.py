"""The gunicorn adapter beside a real gunicorn: exact figures, exact sizes, and no request lost."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nicety.models.records import PoolSample
from nicety.scheduler.config import PoolConfig
from nicety.scheduler.decision import Status
from nicety.scheduler.pools.gunicorn import GunicornPool

SECOND = 1_000_000_000

APP = """
import os, socket, time

if "SLOW_START" in os.environ:
    time.sleep(float(os.environ["SLOW_START"]))

def application(environ, start_response):
    _, kind, milliseconds = environ["PATH_INFO"].split("/")
    seconds = int(milliseconds) / 1000
    if kind == "cpu":
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass
    elif kind == "sleep":
        time.sleep(seconds)
    elif kind == "database":
        ours, theirs = socket.socketpair()
        ours.settimeout(seconds)
        try:
            ours.recv(1)
        except TimeoutError:
            pass
        ours.close()
        theirs.close()
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


class RealClock:
    def monotonic(self) -> int:
        return time.monotonic_ns()

    def wall(self) -> int:
        return time.time_ns()

    def sleep_until(self, at: int) -> None:
        time.sleep(max(0.0, (at - time.monotonic_ns()) / SECOND))


class Server:
    """A real gunicorn and its adapter."""

    def __init__(self, folder: Path, *options: str, environ: dict[str, str] | None = None) -> None:
        (folder / "app.py").write_text(APP, encoding="ascii")
        self.log = folder / "gunicorn.log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.pidfile = folder / "pid"
        command = [
            sys.executable,
            "-m",
            "gunicorn",
            "-b",
            f"127.0.0.1:{self.port}",
            "--pid",
            str(self.pidfile),
            "--chdir",
            str(folder),
        ]
        with self.log.open("wb") as output:
            self.master = subprocess.Popen([*command, *options, "app:application"], stdout=output, stderr=output, env=environ)
        self.pool = GunicornPool("web", PoolConfig(kind="gunicorn", pidfile=str(self.pidfile), maximum=16), RealClock())

    def until(self, condition: Callable[[PoolSample], bool], seconds: float = 20.0) -> PoolSample:
        deadline = time.monotonic() + seconds
        while True:
            sample = self.over(0.1)
            if condition(sample):
                return sample
            assert time.monotonic() < deadline, (sample, self.log.read_text()[-2000:])

    def over(self, seconds: float, interval: float = 0.01) -> PoolSample:
        """The sample of the seconds to come."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.pool.probe()
            time.sleep(interval)
        return self.pool.read()

    def up(self, size: int) -> PoolSample:
        return self.until(lambda s: s.size == s.requested == size and all(w.ready for w in s.workers) and not s.trouble)

    def get(self, path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            assert response.read() == b"ok"
            return response.status
        finally:
            connection.close()

    def signals(self, name: str) -> int:
        """How many signals of a kind the master has handled, by its own log."""
        return self.log.read_text().count(f"Handling signal: {name}")

    def close(self) -> None:
        self.pool.close()
        if self.master.poll() is None:
            self.master.send_signal(signal.SIGQUIT)
        self.master.wait(20)


class Clients:
    """Closed-loop clients: each asks again as soon as it has its answer."""

    def __init__(self, server: Server, count: int, path: str) -> None:
        self.answers: list[int] = []
        self.failures: list[Exception] = []
        self._server, self._path = server, path
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.answers.append(self._server.get(self._path))
            except (OSError, http.client.HTTPException, AssertionError) as error:
                self.failures.append(error)

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("web"), "-w", "3")
    yield server
    server.close()


def load(sample: PoolSample) -> tuple[float, float]:
    """(busy workers, queued connections)."""
    assert sample.queued is not None
    return sum(worker.busy or 0.0 for worker in sample.workers), sample.queued


@pytest.mark.parametrize("path", ["/cpu/40", "/sleep/40", "/database/40"])
def test_busy_and_queued_are_exact_without_touching_the_app(server: Server, path: str) -> None:
    server.pool.resize(3)
    server.up(3)
    # A client needs a moment between two requests, the longer the busier the machine: the lower bounds leave room for that.
    for clients, busy, queued in ((1, (0.5, 1.1), (0.0, 0.2)), (2, (1.2, 2.1), (0.0, 0.4)), (8, (2.8, 3.0), (3.8, 5.2))):
        with Clients(server, clients, path) as asking:
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
    server.pool.resize(3)
    server.up(3)
    ttin, ttou = server.signals("ttin"), server.signals("ttou")
    server.pool.resize(8)
    server.up(8)
    assert {server.over(0.1).size for _ in range(10)} == {8}
    assert server.signals("ttin") == ttin + 5
    server.pool.resize(3)
    server.up(3)
    assert {server.over(0.1).size for _ in range(10)} == {3}
    assert (server.signals("ttin"), server.signals("ttou")) == (ttin + 5, ttou + 5)


@pytest.mark.parametrize("path", ["/cpu/5", "/sleep/30"])
def test_no_request_is_lost_while_the_pool_is_resized(server: Server, path: str) -> None:
    with Clients(server, 4, path) as asking:
        for size in (1, 4, 1, 4, 1):
            server.pool.resize(size)
            server.until(lambda s, size=size: s.size == size)  # type: ignore[misc]
    assert asking.failures == []
    assert len(asking.answers) > 20


def test_a_shrink_waits_for_a_long_request_and_takes_no_more_than_was_asked(server: Server) -> None:
    server.pool.resize(3)
    server.up(3)
    ttou = server.signals("ttou")
    with Clients(server, 3, "/sleep/800") as asking:
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
        with Clients(server, 8, "/sleep/50") as asking:
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
        assert server.get("/sleep/1") == 200
    finally:
        server.close()
        if heir is not None:
            with socket.socket() as probe:
                subprocess.run(["kill", str(heir)], check=False)
                deadline = time.monotonic() + 10
                while probe.connect_ex(("127.0.0.1", server.port)) == 0 and time.monotonic() < deadline:
                    time.sleep(0.05)


def test_threaded_workers_have_a_queue_and_a_size_but_no_busy_share(tmp_path: Path) -> None:
    server = Server(tmp_path, "-w", "1", "--threads", "4")
    try:
        server.up(1)
        with Clients(server, 2, "/sleep/50"):
            sample = server.over(0.5)
        assert [worker.busy for worker in sample.workers] == [None]
        assert sample.queued == pytest.approx(0.0, abs=0.5)
        server.pool.resize(2)
        server.up(2)
        server.pool.resize(1)
        server.up(1)
    finally:
        server.close()


def test_a_probe_of_eight_workers_is_cheap(server: Server) -> None:
    server.pool.resize(8)
    server.up(8)
    costs = []
    for _ in range(5):
        began = time.thread_time()
        for _ in range(40):
            server.pool.probe()
        costs.append((time.thread_time() - began) / 40)
        server.pool.read()
    assert min(costs) < 0.0006, f"{min(costs) * 1e3:.3f} ms of CPU a probe; 0.12 ms was measured"
