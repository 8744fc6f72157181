"""The uWSGI adapter beside a real uWSGI: exact figures, exact sizes, and no request lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nicety.models.records import PoolSample
from nicety.scheduler.config.sections import PoolConfig
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.pools.uwsgi import adapter as uwsgi
from nicety.scheduler.pools.uwsgi.adapter import UwsgiPool
from nicety.scheduler.testing.acts import own_acts
from nicety.scheduler.testing.driver import PoolDriver, load
from nicety.scheduler.testing.web import APPLICATION, Address, Clients, free_port, get

SECOND = 1_000_000_000
PYTHON = Path("/usr/lib/uwsgi/plugins/python3_plugin.so")
ROOM = 6

pytestmark = pytest.mark.skipif(
    shutil.which("uwsgi") is None or not PYTHON.exists(), reason="no uwsgi with its python3 plugin (Debian: uwsgi-plugin-python3)"
)


class Server(PoolDriver):
    """A real uWSGI and its adapter."""

    def __init__(self, folder: Path, *options: str, manual: bool = True, unix: bool = False, environ: dict[str, str] | None = None):
        (folder / "app.py").write_text(APPLICATION, encoding="ascii")
        self.log = folder / "uwsgi.log"
        self.address: Address = str(folder / "web.sock") if unix else ("127.0.0.1", free_port())
        where = self.address if isinstance(self.address, str) else f"127.0.0.1:{self.address[1]}"
        self.fifo = folder / "fifo"
        self.pidfile = folder / "pid"
        self._environ = {"PATH": os.environ["PATH"], **(environ or {})}
        self._command = ["uwsgi", "--plugin", "python3", "--http-socket", where, "--wsgi-file", str(folder / "app.py")]
        self._command += ["--master", "--need-app", "--processes", str(ROOM), "--disable-logging", "--pidfile", str(self.pidfile)]
        self._command += ["--stats", str(folder / "stats"), "--master-fifo", str(self.fifo)]
        self._command += ["--cheaper", "1", "--cheaper-algo", "manual"] if manual else []
        self._command += options
        self.master = self.start()
        config = PoolConfig(kind="uwsgi", stats=str(folder / "stats"), fifo=str(self.fifo), pidfile=str(self.pidfile), maximum=ROOM)
        clock = SystemClock()
        super().__init__(UwsgiPool("web", config, clock, own_acts("web", config, clock)), clock, told=self.log.read_text)

    def start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            self.master = subprocess.Popen(self._command, stdout=output, stderr=output, env=self._environ)
        return self.master

    def clients(self, count: int, path: str, *, once: bool = False) -> Clients:
        return Clients(self.address, count, path, once=once)

    def by_hand(self, commands: str) -> None:
        """What an operator would write to the FIFO."""
        self.fifo.write_text(commands, encoding="ascii")

    def close(self) -> None:
        self.pool.close()
        if self.master.poll() is None:
            self.master.send_signal(signal.SIGINT)
        self.master.wait(20)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("web"))
    yield server
    server.close()


@pytest.mark.parametrize("path", ["/cpu/40", "/sleep/40"])
def test_busy_and_queued_are_exact_without_touching_the_app(server: Server, path: str) -> None:
    server.settle(3)
    # The busier the machine, the longer a client needs between two requests, and a worker after its answer, when the client already
    # waits again: the bounds leave room for that.
    for clients, busy, queued in ((1, (0.5, 1.3), (0.0, 0.2)), (2, (1.2, 2.4), (0.0, 0.4)), (8, (2.7, 3.0), (3.8, 6.0))):
        with server.clients(clients, path) as asking:
            deadline = time.monotonic() + 10
            while len(asking.answers) < clients:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            server.over(0.2)
            seen = load(server.over(1.0, interval=0.013))
        assert asking.failures == []
        assert busy[0] <= seen[0] <= busy[1], (path, clients, seen)
        assert queued[0] <= seen[1] <= queued[1], (path, clients, seen)
    server.until(lambda s: load(s) == (0.0, 0.0))


def test_it_grows_within_two_seconds_and_shrinks_by_one_a_second(server: Server) -> None:
    server.settle(1)
    began = time.monotonic()
    sample = server.settle(ROOM)
    assert time.monotonic() - began < 4.0, "two seconds, and room for a busy machine"
    assert sample.start_seconds is not None
    assert 0.0 < sample.start_seconds < 2.0
    assert server.pool.resize(ROOM + 1)[0] is Status.REFUSED
    server.pool.resize(ROOM - 3)
    sizes: list[int] = []
    while not sizes or sizes[-1] > ROOM - 3:
        sizes.append(server.over(0.1).size)
        assert len(sizes) < 150, server.log.read_text()[-2000:]
    assert sizes == sorted(sizes, reverse=True)
    assert {ROOM - 1, ROOM - 2} <= set(sizes), "one after the other"
    assert {server.over(0.1).size for _ in range(20)} == {ROOM - 3}


def test_no_request_is_lost_while_the_pool_is_resized(server: Server) -> None:
    server.settle(1)
    with server.clients(2, "/sleep/15") as asking:
        for size in (4, 2, ROOM, 3):
            server.settle(size)
    assert asking.failures == []
    assert len(asking.answers) > 100


def test_a_shrink_takes_idle_workers_and_waits_when_there_are_none(tmp_path: Path) -> None:
    """A worker that is told to go while it is at a request is killed after `worker-reload-mercy`."""
    server = Server(tmp_path, "--worker-reload-mercy", "1")
    try:
        first = server.up(1).workers[0].id
        with server.clients(1, "/sleep/6000", once=True) as asking:  # only the first worker is there to take it
            server.until(lambda s: load(s)[0] > 0.9)
            server.settle(2)
            server.pool.resize(1)
            sample = server.until(lambda s: s.size == 1)
            assert sample.workers[0].id == first, "the oldest is the one to go, but it is at work"
            began = time.monotonic()
            server.settle(2)
            with server.clients(1, "/sleep/2500", once=True) as second:
                server.until(lambda s: load(s)[0] > 1.9)
                server.pool.resize(1)
                while not second.answers:
                    assert server.over(0.05).size == 2
            assert time.monotonic() - began > 2.5
            server.up(1)
        assert (asking.answers, asking.failures) == ([200], [])
        assert (second.answers, second.failures) == ([200], [])
    finally:
        server.close()


def test_a_slow_start_is_measured(tmp_path: Path) -> None:
    server = Server(tmp_path, "--lazy-apps", environ={"SLOW_START": "1.0"})
    try:
        server.up(1)
        server.pool.resize(3)
        booting = server.until(lambda s: s.size == 3)
        assert not all(worker.ready for worker in booting.workers), "a second of start has not passed yet"
        sample = server.up(3)
        assert sample.start_seconds is not None
        assert 1.0 <= sample.start_seconds < 4.0
    finally:
        server.close()


def test_a_pool_resized_by_hand_is_left_alone(tmp_path: Path) -> None:
    server = Server(tmp_path)
    try:
        server.up(1)
        server.by_hand("++")
        sample = server.until(lambda s: bool(s.trouble))
        assert "resized to 3 workers by somebody else (1 were asked for)" in sample.trouble
        assert server.pool.resize(5) == (Status.FOREIGN, sample.trouble)
        assert {server.over(0.1).size for _ in range(15)} == {3}
    finally:
        server.close()


def test_a_master_that_ends_is_said_and_its_successor_adopted(tmp_path: Path) -> None:
    server = Server(tmp_path, "--no-orphans")
    try:
        server.settle(3)
        old = server.master
        old.kill()
        old.wait(20)
        sample = server.until(lambda s: s.master is None)
        assert (sample.size, sample.queued) == (0, None)
        assert f"uWSGI's master, pid {old.pid}, has ended" in sample.trouble or "stale" in sample.trouble
        deadline = time.monotonic() + 10
        while True:  # until the orphans have let the port go
            with socket.socket() as probe:
                if probe.connect_ex(server.address) != 0:
                    break
            assert time.monotonic() < deadline
            time.sleep(0.05)
        server.start()
        sample = server.up(1)
        assert sample.master is not None
        assert sample.master.pid == server.master.pid
        server.settle(2)
        assert get(server.address, "/sleep/1") == 200
    finally:
        server.close()


@pytest.mark.parametrize("how", ["HUP", "r", "c"])
def test_a_reload_is_no_hand_and_the_size_is_there_again(tmp_path: Path, how: str) -> None:
    server = Server(tmp_path)
    try:
        before = server.settle(3)
        with server.clients(2, "/sleep/40") as clients:
            server.over(0.2)
            if how == "HUP":
                server.master.send_signal(signal.SIGHUP)
            else:
                server.by_hand(how)
            old, troubles = {w.id for w in before.workers}, set[str]()

            def renewed(sample: PoolSample) -> bool:
                troubles.add(sample.trouble)
                return sample.size == 3 and not {w.id for w in sample.workers} & old and all(w.ready for w in sample.workers)

            sample = server.until(renewed)
        assert (sample.master, sample.requested) == (before.master, 3), "it executes itself anew"
        assert not any("by somebody else" in trouble for trouble in troubles)
        assert (clients.failures, len(clients.answers) > 4) == ([], True)
        server.by_hand("-")
        server.until(lambda s: "resized to 2 workers by somebody else (3 were asked for)" in s.trouble)
    finally:
        server.close()


def test_after_a_reload_a_pool_that_nobody_sized_stays_as_uwsgi_wants_it(tmp_path: Path) -> None:
    server = Server(tmp_path)
    try:
        first = server.until(lambda s: s.size == 1)
        server.by_hand("r")
        sample = server.until(lambda s: s.size == 1 and s.workers[0].id != first.workers[0].id and not s.trouble)
        assert (sample.requested, sample.master) == (1, first.master)
    finally:
        server.close()


def test_recycling_under_load_loses_nothing(server: Server) -> None:
    server.settle(3)
    recycled = 0
    with server.clients(4, "/sleep/5") as asking:
        for _ in range(10):
            sample = server.up(3)
            worker = sample.workers[recycled % 3].id
            assert server.pool.recycle(worker)[0] is Status.APPLIED
            server.until(lambda s, worker=worker: worker not in {w.id for w in s.workers})  # type: ignore[misc]
            recycled += 1
        sample = server.up(3)
    assert (sample.trouble, sample.requested) == ("", 3)
    assert asking.failures == []
    assert len(asking.answers) > 100


def test_connections_that_wait_at_a_unix_socket_are_counted_and_threads_are_shares_of_a_worker(tmp_path: Path) -> None:
    server = Server(tmp_path, "--threads", "4", unix=True)
    try:
        server.until(lambda s: s.size == 1 and s.workers[0].ready)
        with server.clients(2, "/sleep/200"):
            server.over(0.3)
            half = load(server.over(1.0))
        with server.clients(10, "/sleep/200"):
            server.over(0.5)
            full = load(server.over(1.0))
        assert half == pytest.approx((0.5, 0.0), abs=0.15)
        assert full[0] == pytest.approx(1.0, abs=0.1)
        assert full[1] == pytest.approx(6.0, abs=1.0)
    finally:
        server.close()


def test_workers_with_threads_are_sized_only_by_a_version_that_lets_them_finish(tmp_path: Path) -> None:
    version = subprocess.run(["uwsgi", "--version"], capture_output=True, text=True, check=True).stdout
    server = Server(tmp_path, "--threads", "4")
    try:
        sample = server.until(lambda s: s.size == 1 and s.workers[0].ready)
        if tuple(map(int, re.findall(r"\d+", version)[:3])) < uwsgi.OLDEST_THREADED:
            assert "loses requests of workers with threads when they go" in sample.trouble
            assert server.pool.resize(2) == (Status.REFUSED, sample.trouble)
            assert server.pool.recycle(sample.workers[0].id) == (Status.REFUSED, sample.trouble)
            return
        with server.clients(1, "/sleep/20") as asking:
            for size in (4, 1, 4, 1):
                server.settle(size)
        assert asking.failures == []
    finally:
        server.close()


def test_a_uwsgi_that_sizes_itself_is_refused_with_the_lines_to_configure(tmp_path: Path) -> None:
    server = Server(tmp_path, "--cheaper", "1", "--cheaper-algo", "spare", manual=False)
    try:
        sample = server.until(lambda s: s.size > 0)
        assert "uWSGI sizes itself (cheaper-algo = spare); put into its configuration" in sample.trouble
        assert "cheaper-algo = manual" in sample.trouble
        assert server.pool.resize(2) == (Status.REFUSED, sample.trouble)
    finally:
        server.close()


def test_a_uwsgi_without_cheaper_is_reported_with_the_lines_to_configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uwsgi, "STEP_NS", 2 * SECOND)
    server = Server(tmp_path, manual=False)
    try:
        server.until(lambda s: s.size == ROOM and not s.trouble)
        server.pool.resize(2)
        sample = server.until(lambda s: bool(s.trouble), seconds=30)
        assert "does not obey '-' on its FIFO; put into its configuration" in sample.trouble
        assert "cheaper-algo = manual" in sample.trouble
        assert sample.size == ROOM
    finally:
        server.close()


def test_a_probe_of_six_workers_is_cheap(server: Server) -> None:
    """Beside what any reader of these stats has to pay: a connection, the answer taken in and decoded. Taken in turns."""
    server.settle(ROOM)
    spent, least = [], []
    for _ in range(60):
        began = time.thread_time()
        server.pool.probe()
        spent.append(time.thread_time() - began)
        time.sleep(0.06)  # long enough that each probe takes an answer and asks anew
        began = time.thread_time()
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(server.fifo.with_name("stats")))
            between = time.thread_time()
            time.sleep(0.06)
            resumed = time.thread_time()
            found = json.loads(b"".join(iter(lambda: asking.recv(1 << 18), b"")))
        least.append(time.thread_time() - resumed + between - began)
        assert len(found["workers"]) == ROOM
    server.pool.read()
    assert statistics.median(spent) < 1.5 * statistics.median(least), "0.7 times was measured"
