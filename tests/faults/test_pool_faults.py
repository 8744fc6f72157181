"""Pools when things go wrong: strangers, other hands, deaf masters, stubborn workers, and a daemon that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nicety.models.records import PoolSample
from nicety.scheduler.config.sections import PoolConfig
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.pools.command.adapter import CommandPool
from nicety.scheduler.pools.gunicorn.adapter import RETRIES, GunicornPool
from nicety.scheduler.ports import PoolAdapter
from nicety.scheduler.testing.acts import own_acts
from nicety.scheduler.testing.clock import ShiftedClock
from nicety.scheduler.testing.driver import PoolDriver
from nicety.scheduler.testing.web import APPLICATION, free_port

SECOND = 1_000_000_000

CONFIG = """
import os
workers = int(open(os.path.join(os.path.dirname(__file__), "workers")).read())
"""


def real_clock() -> ShiftedClock:
    """The real one, until a test shifts it."""
    return ShiftedClock(SystemClock())


def watched(pool: PoolAdapter, condition: Callable[[PoolSample], bool]) -> PoolSample:
    return PoolDriver(pool, SystemClock(), tick=0.06).until(condition)


class Server:
    """A gunicorn with its size in a file, and its adapter."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder = folder
        self.clock = real_clock()
        self.pidfile = folder / "pid"
        (folder / "app.py").write_text(APPLICATION)
        (folder / "gunicorn.conf.py").write_text(CONFIG)
        (folder / "workers").write_text(str(workers))
        self.port = free_port()
        self.master = self.start()
        config = PoolConfig(kind="gunicorn", pidfile=str(self.pidfile), maximum=16)
        self.pool = GunicornPool("web", config, self.clock, own_acts("web", config, self.clock))

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{self.port}", "--pid", str(self.pidfile)]
        options = ["--chdir", str(self.folder), "-c", str(self.folder / "gunicorn.conf.py"), "app:application"]
        with (self.folder / "log").open("ab") as output:
            return subprocess.Popen([*command, *options], stdout=output, stderr=output)

    def up(self, size: int) -> PoolSample:
        """Wait for a size, and spare the wait until the adapter believes it."""
        sample = watched(self.pool, lambda s: s.size == size and all(w.ready for w in s.workers))
        self.clock.shift += 2 * SECOND
        self.pool.probe()
        return sample

    def signals(self, name: str) -> int:
        return (self.folder / "log").read_text().count(f"Handling signal: {name}")

    def close(self) -> None:
        self.pool.close()
        if self.master.poll() is None:
            self.master.send_signal(signal.SIGCONT)
            self.master.send_signal(signal.SIGQUIT)
        self.master.wait(20)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, 2)
    yield server
    server.close()


# --- gunicorn --------------------------------------------------------------------------------------------------------------------


def test_a_pid_file_that_points_to_a_stranger_is_trouble_and_the_stranger_gets_no_signal(tmp_path: Path) -> None:
    stranger = subprocess.Popen(["sleep", "1000"])
    try:
        while Path(f"/proc/{stranger.pid}/cmdline").read_bytes() != b"sleep\x001000\0":  # empty while it execs
            time.sleep(0.001)
        (tmp_path / "pid").write_text(str(stranger.pid))
        clock = real_clock()
        config = PoolConfig(kind="gunicorn", pidfile=str(tmp_path / "pid"))
        pool = GunicornPool("web", config, clock, own_acts("web", config, clock))
        sample = pool.read()
        assert (sample.size, sample.master) == (0, None)
        assert f"pid file {tmp_path}/pid names pid {stranger.pid}, which is no gunicorn (it runs 'sleep')" in sample.trouble
        assert pool.resize(3) == (Status.REFUSED, sample.trouble)
        for _ in range(20):
            clock.shift += SECOND
            pool.probe()
        status = dict(line.split(":", 1) for line in Path(f"/proc/{stranger.pid}/status").read_text().splitlines())
        assert status["State"].split()[0] not in "Tt", "TTIN would have stopped it"
        assert pool.read().workers == ()
        pool.close()
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("change", ["ttin", "ttou"])
def test_a_pool_resized_by_hand_is_left_alone_for_a_minute(server: Server, change: str) -> None:
    server.up(2)
    server.pool.resize(3)
    watched(server.pool, lambda s: s.size == 3)
    ttin, ttou = server.signals("ttin"), server.signals("ttou")
    size = {"ttin": 4, "ttou": 2}[change]
    server.master.send_signal({"ttin": signal.SIGTTIN, "ttou": signal.SIGTTOU}[change])
    watched(server.pool, lambda s: s.size == size)
    server.clock.shift += 4 * SECOND
    held = watched(server.pool, lambda s: s.trouble != "")
    assert held.trouble.startswith(f"resized by hand to {size} workers (3 were asked for): hands off"), held
    assert held.requested == size
    assert server.pool.resize(5) == (Status.FOREIGN, held.trouble)
    server.clock.shift += 30 * SECOND
    assert watched(server.pool, lambda s: True).size == size
    server.clock.shift += 35 * SECOND
    free = watched(server.pool, lambda s: s.trouble == "")
    assert (free.size, free.requested) == (size, size), "the operator's size stays"
    own = (change == "ttin", change == "ttou")
    assert (server.signals("ttin"), server.signals("ttou")) == (ttin + own[0], ttou + own[1]), "nicety sent nothing against it"
    assert server.pool.resize(size + 1)[0] is Status.APPLIED
    watched(server.pool, lambda s: s.size == size + 1)


def test_a_master_that_does_not_react_gets_a_few_signals_and_then_it_is_trouble(server: Server) -> None:
    server.up(2)
    server.master.send_signal(signal.SIGSTOP)
    server.pool.resize(4)
    sent = 0
    while not server.pool.read().trouble:
        server.clock.shift += 6 * SECOND
        server.pool.probe()
        sent += 1
        assert sent < 20
    text = server.pool.read().trouble
    assert text.startswith(f"gunicorn's master did not react to SIGTTIN, sent {RETRIES + 1} times")
    assert server.pool.resize(3)[0] is Status.FAILED
    server.master.send_signal(signal.SIGCONT)
    server.clock.shift += 61 * SECOND  # SIGCONT has thrown away what was pending, as it does with stop signals
    watched(server.pool, lambda s: s.trouble == "" and s.requested == s.size == 2)
    assert server.pool.resize(4)[0] is Status.APPLIED
    watched(server.pool, lambda s: s.size == 4)


def test_a_restarted_master_is_adopted_with_its_own_size(server: Server) -> None:
    before = server.up(2)
    server.pool.resize(3)
    watched(server.pool, lambda s: s.size == 3)
    server.master.terminate()
    server.master.wait(20)
    assert watched(server.pool, lambda s: s.trouble != "").size == 0
    server.master = server.start()
    server.clock.shift += 2 * SECOND
    again = watched(server.pool, lambda s: s.trouble == "" and s.size == 2 and s.requested == 2)
    assert again.master is not None
    assert again.master != before.master


def test_a_pool_given_by_pid_is_not_looked_for_again(server: Server) -> None:
    server.up(2)
    config = PoolConfig(kind="gunicorn", pid=server.master.pid)
    pool = GunicornPool("web", config, server.clock, own_acts("web", config, server.clock))
    assert watched(pool, lambda s: s.size == 2).trouble == ""
    server.master.terminate()
    server.master.wait(20)
    for _ in range(3):
        server.clock.shift += 2 * SECOND
        pool.probe()
    assert pool.read().trouble.startswith(f"gunicorn's master, pid {server.master.pid}, has ended")
    pool.close()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_without_permission_to_signal_the_master_the_next_step_is_said(server: Server) -> None:
    server.up(2)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # another user, with all that is needed already loaded
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            config = PoolConfig(kind="gunicorn", pid=server.master.pid)
            pool = GunicornPool("web", config, server.clock, own_acts("web", config, server.clock))
            os.write(writer, f"{pool.read().trouble}\n{' '.join(pool.resize(3))}".encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    trouble, answer = os.read(reader, 4096).decode().splitlines()
    os.close(reader)
    assert trouble.endswith(
        "gunicorn's master, but: no permission for signals to pid "
        f"{server.master.pid}: run nicety as the same user, or give it CAP_KILL"
    )
    assert answer == f"refused {trouble}"


# --- command ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Callable[..., CommandPool]]:
    pools: list[CommandPool] = []

    def make(command: list[str], clock: ShiftedClock, **keys: object) -> CommandPool:
        config = PoolConfig(kind="command", command=command, **keys)  # type: ignore[arg-type]
        pools.append(CommandPool("jobs", config, clock, own_acts("jobs", config, clock, logs=tmp_path), seed=3))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def process_group(leader: int) -> set[int]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == leader and fields[0] not in "ZX":
            found.add(int(path.parent.name))
    return found


def test_a_worker_that_ignores_term_is_killed_with_its_children_when_its_time_is_up(
    commands: Callable[..., CommandPool], caplog: pytest.LogCaptureFixture
) -> None:
    clock = real_clock()
    pool = commands(["sh", "-c", "trap '' TERM; sleep 1000 & sleep 1000"], clock, minimum=0, drain_timeout=20)
    pool.resize(1)
    worker = watched(pool, lambda s: s.size == 1).workers[0].id
    watched(pool, lambda s: len(process_group(worker.pid)) == 3)
    pool.resize(0)
    assert watched(pool, lambda s: True).size == 1
    clock.shift += 21 * SECOND
    watched(pool, lambda s: s.size == 0)
    assert process_group(worker.pid) == set()
    assert f"worker pid {worker.pid} did not end within 20 s of SIGTERM: killed" in caplog.text
    assert pool.read().trouble == ""


def test_closing_waits_for_the_drain_and_kills_the_rest(commands: Callable[..., CommandPool]) -> None:
    clock = real_clock()
    pool = commands(["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"], clock, minimum=2, drain_timeout=0.5)
    workers = [w.id.pid for w in watched(pool, lambda s: s.size == 2).workers]
    began = time.monotonic()
    pool.close()
    assert 0.4 < time.monotonic() - began < 5
    assert not any(process_group(pid) for pid in workers)


def test_a_command_that_fails_at_once_costs_next_to_nothing(commands: Callable[..., CommandPool]) -> None:
    clock = real_clock()
    pool = commands(["false"], clock, minimum=4, maximum=8)
    began, used = clock.monotonic(), time.process_time()
    for _ in range(600):  # a minute of probes, ten a second
        pool.probe()
        pids = [worker.id.pid for worker in pool.read().workers]
        while any(map(process_group, pids)):
            time.sleep(0.001)
        clock.shift += SECOND // 10
    assert clock.monotonic() - began >= 60 * SECOND
    assert time.process_time() - used < 0.02 * 60
    assert pool.read().trouble.startswith("worker exits at once (status 1)")


DAEMON = """
import sys, time
from pathlib import Path
from nicety.scheduler.config.sections import PoolConfig
from nicety.scheduler.pools.command.adapter import CommandPool
from nicety.scheduler.testing.acts import own_acts

class Clock:
    def monotonic(self): return time.monotonic_ns()
    def wall(self): return time.time_ns()
    def sleep_until(self, at): pass

config = PoolConfig(kind="command", command=["sleep", "1000"], minimum=2, USER)
pool = CommandPool("jobs", config, Clock(), own_acts("jobs", config, Clock(), logs=Path(sys.argv[1])), seed=1)
pool.probe()
print(*(worker.id.pid for worker in pool.read().workers), flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("user", ["", pytest.param("nobody", marks=pytest.mark.root)])
def test_workers_of_a_killed_daemon_are_told_to_drain(tmp_path: Path, user: str) -> None:
    if user and os.geteuid() != 0:
        pytest.skip("changing user needs root")
    code = DAEMON.replace("USER", f"user={user!r}")
    daemon = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True)
    assert daemon.stdout is not None
    workers = [int(word) for word in daemon.stdout.readline().split()]
    assert len(workers) == 2
    daemon.kill()
    daemon.communicate()
    deadline = time.monotonic() + 10
    while any(process_group(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_other_children_of_the_daemon_are_not_reaped_by_a_pool(commands: Callable[..., CommandPool]) -> None:
    clock = real_clock()
    other = subprocess.Popen(["sh", "-c", "exit 7"])
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    pool = commands(["sh", "-c", "exit 0"], clock)
    for _ in range(20):
        clock.shift += SECOND
        pool.probe()
    pool.close()
    assert other.wait() == 7
