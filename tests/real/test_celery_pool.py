"""The Celery adapter beside a real Celery worker and a real Redis: exact sizes, honest figures, and no task lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nicety.scheduler.config.sections import PoolConfig
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.pools.celery.adapter import CeleryPool
from nicety.scheduler.testing.acts import own_acts
from nicety.scheduler.testing.driver import PoolDriver
from nicety.scheduler.testing.web import free_port

pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs redis-server (Debian: redis-server)")

# PACE: Celery looks each 5 s whether processes are missing; that it does so more often here only saves the tests' time.
TASKS = """
import os, time
from celery import Celery
from celery.concurrency.asynpool import AsynPool
from redis import Redis

app = Celery("tasks", broker=os.environ["BROKER"])
app.conf.task_ignore_result = True
store = Redis.from_url(os.environ["BROKER"])

if "PACE" in os.environ:
    AsynPool.timers = property(lambda pool: {pool.maintain_pool: float(os.environ["PACE"])})

@app.task(bind=True)
def work(task, seconds):
    store.hincrby("began", task.request.id, 1)
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(left)
    store.hincrby("ended", task.request.id, 1)
"""

# Sends tasks, `rate` a second until its input ends, or `count` at once; then waits for them and tells what became of them.
CLIENT = """
import json, select, sys, time
from tasks import app, store, work

count, rate, seconds = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
store.delete("began", "ended")
sent = 0
with app.connection_for_write() as connection:
    due = time.monotonic()
    while sent < count if count else not select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
        work.apply_async((seconds,), connection=connection)
        sent += 1
        due += 1 / rate if rate else 0
print("sent", flush=True)
last, quiet_until = -1, time.monotonic() + 10
while store.hlen("ended") < sent and time.monotonic() < quiet_until:
    if store.hlen("ended") != last:
        last, quiet_until = store.hlen("ended"), time.monotonic() + 10
    time.sleep(0.05)
ended = store.hgetall("ended")
began = store.hgetall("began")
print(json.dumps({"sent": sent, "ended": len(ended), "began_twice": sum(int(n) > 1 for n in began.values())}))
"""


class Redis:
    """A Redis of our own on a free port, without a disk."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        self.url = f"redis://:secret@127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        options = [
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--requirepass",
            "secret",
            "--dir",
            str(self.folder),
        ]
        self.process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        with socket.socket() as probe:
            while probe.connect_ex(("127.0.0.1", self.port)) != 0:
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


class Worker(PoolDriver):
    """A real Celery worker and its adapter."""

    def __init__(self, folder: Path, redis: Redis, *options: str, pace: float | None = 0.2) -> None:
        (folder / "tasks.py").write_text(TASKS, encoding="ascii")
        (folder / "client.py").write_text(CLIENT, encoding="ascii")
        self.folder = folder
        self.log = folder / "worker.log"
        self.pidfile = folder / "worker.pid"
        self.environ = {**os.environ, "BROKER": redis.url} | ({} if pace is None else {"PACE": str(pace)})
        self.options = options
        self.node = f"{folder.name}@here"
        self.start()
        config = PoolConfig(kind="celery", pidfile=str(self.pidfile), broker="$BROKER", node=self.node, maximum=16)
        clock = SystemClock()
        pool = CeleryPool("jobs", config, clock, own_acts("jobs", config, clock, environ={"BROKER": redis.url}))
        super().__init__(pool, clock, patience=30.0, told=self.log.read_text)

    def start(self) -> None:
        command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-n", self.node, "--pidfile", str(self.pidfile)]
        command += ["-l", "INFO", *self.options]
        already = len(self.log.read_text()) if self.log.exists() else 0
        with self.log.open("ab") as output:
            self.main = subprocess.Popen(
                command, cwd=self.folder, env=self.environ, stdout=output, stderr=output, start_new_session=True
            )
        deadline = time.monotonic() + 30
        while f"{self.node} ready." not in self.log.read_text()[already:]:
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def client(self, *, count: int = 0, rate: float = 0.0, seconds: float) -> subprocess.Popen[str]:
        command = [sys.executable, "client.py", str(count), str(rate), str(seconds)]
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def control(self, *command: str) -> None:
        """What an operator types."""
        subprocess.run(
            [sys.executable, "-m", "celery", "-A", "tasks", "control", "-d", self.node, *command],
            cwd=self.folder,
            env=self.environ,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def agent(self) -> int:
        """Pid of the agent that the adapter runs."""
        own = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        agents = [int(pid) for pid in own if "nicety-celery-agent" in Path(f"/proc/{pid}/cmdline").read_text()]
        assert len(agents) == 1
        return agents[0]

    def close(self) -> None:
        self.pool.close()
        if self.main.poll() is None:
            self.main.send_signal(signal.SIGQUIT)
            self.main.wait(20)


def outcome(client: subprocess.Popen[str]) -> dict[str, Any]:
    output, _ = client.communicate(timeout=60)
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def states(pids: list[int]) -> list[str]:
    return [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in pids]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    redis = Redis(tmp_path_factory.mktemp("redis"))
    yield redis
    redis.stop()


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory, redis: Redis) -> Iterator[Worker]:
    worker = Worker(tmp_path_factory.mktemp("jobs"), redis, "-c", "2")
    yield worker
    worker.close()


def test_busy_and_queued_are_what_celery_has(worker: Worker) -> None:
    worker.settle(2)
    client = worker.client(count=30, seconds=0.25)
    assert client.stdout is not None
    assert client.stdout.readline() == "sent\n"
    worker.over(1.2)
    # Of 30 tasks each process does 4 a second; the count of what waits is at most 1 s old.
    seen = worker.over(0.5, interval=0.01)
    assert [worker.busy for worker in seen.workers] == pytest.approx([1.0, 1.0], abs=0.15)
    assert seen.queued is not None
    assert 8 <= seen.queued <= 24
    assert outcome(client)["ended"] == 30
    worker.until(lambda s: s.queued == 0.0 and all(w.busy == 0.0 for w in s.workers))


def test_no_task_is_lost_failed_or_done_twice_while_the_pool_is_resized_under_load(worker: Worker) -> None:
    worker.settle(3)
    # Short tasks make the moment frequent in which Celery takes a process that has just begun for an idle one.
    client = worker.client(rate=60, seconds=0.02)
    resizes = 0
    end = time.monotonic() + 12
    while time.monotonic() < end:
        for size in (4, 1, 3, 2, 5, 1):
            worker.pool.resize(size)
            worker.until(lambda s, size=size: s.size == size)  # type: ignore[misc]
            resizes += 1
    assert client.stdin is not None
    client.stdin.close()
    client.stdin = None
    result = outcome(client)
    assert resizes >= 12
    assert result["sent"] > 300
    assert result == {"sent": result["sent"], "ended": result["sent"], "began_twice": 0}
    assert "WorkerLostError" not in worker.log.read_text()


def test_a_shrink_waits_for_an_idle_process_and_kills_no_task(worker: Worker) -> None:
    worker.settle(2)
    client = worker.client(count=2, seconds=2.5)
    worker.until(lambda s: all((w.busy or 0) == 1.0 for w in s.workers))
    worker.pool.resize(1)
    assert worker.over(1.0).size == 2, "both are at a task"
    worker.until(lambda s: s.size == 1)
    assert outcome(client) == {"sent": 2, "ended": 2, "began_twice": 0}
    assert worker.over(0.5).size == 1


def test_a_killed_process_is_replaced_and_that_is_nobodys_hand(worker: Worker) -> None:
    before = worker.settle(2)
    victim = before.workers[0].id
    os.kill(victim.pid, signal.SIGKILL)
    worker.until(lambda s: s.size == 2 and victim not in {w.id for w in s.workers})
    assert {(s.trouble, s.requested) for s in (worker.over(0.5) for _ in range(6))} == {("", 2)}


def test_a_recycled_process_leaves_when_it_is_idle_and_another_comes(worker: Worker) -> None:
    before = worker.settle(2)
    client = worker.client(rate=40, seconds=0.02)
    for old in [w.id for w in before.workers]:
        assert worker.pool.recycle(old)[0] is Status.APPLIED
    worker.until(lambda s: s.size == 2 and not {w.id for w in s.workers} & {w.id for w in before.workers})
    assert client.stdin is not None
    client.stdin.close()
    client.stdin = None
    result = outcome(client)
    assert result == {"sent": result["sent"], "ended": result["sent"], "began_twice": 0}
    assert worker.pool.recycle(before.workers[0].id)[0] is Status.VANISHED


def test_an_agent_that_is_killed_comes_back_and_leaves_nothing_stopped(worker: Worker) -> None:
    worker.settle(2)
    before = worker.agent()
    os.kill(before, signal.SIGKILL)
    sample = worker.until(lambda s: "agent does not run" in s.trouble)
    assert sample.size == 2, "the processes are still seen"
    assert worker.pool.resize(3)[0] is Status.REFUSED
    worker.until(lambda s: not s.trouble)
    assert worker.agent() != before
    assert "T" not in states([w.id.pid for w in sample.workers])
    worker.settle(3)


def test_an_operator_who_resizes_the_pool_is_yielded_to(worker: Worker) -> None:
    worker.settle(2)
    worker.over(0.5)
    worker.control("pool_grow", "2")
    sample = worker.until(lambda s: bool(s.trouble))
    assert sample.trouble.startswith("resized by hand to 4 processes (2 were asked for)")
    assert sample.requested == 4
    status, text = worker.pool.resize(1)
    assert (status, text) == (Status.FOREIGN, sample.trouble)
    assert worker.over(1.0).size == 4


def test_growing_at_celerys_own_pace_and_a_worker_that_dies_and_comes_back(tmp_path: Path, redis: Redis) -> None:
    worker = Worker(tmp_path, redis, "-c", "1", pace=None)
    try:
        first = worker.up(1)
        assert first.start_seconds is None
        assert worker.pool.resize(4)[0] is Status.APPLIED
        assert worker.pool.read().requested == 4
        grown = worker.up(4)
        assert grown.start_seconds is not None
        assert 0.0 < grown.start_seconds < 7.0
        worker.pool.resize(2)
        shrunk = worker.up(2)
        assert {w.id for w in shrunk.workers} < {w.id for w in grown.workers}
        worker.main.kill()
        worker.main.wait()
        sample = worker.until(lambda s: s.master is None)
        assert (sample.size, sample.workers, sample.queued) == (0, (), None)
        assert "start the worker" in sample.trouble
        assert worker.pool.resize(3)[0] is Status.REFUSED
        os.killpg(worker.main.pid, signal.SIGKILL)  # pool processes outlive a main process that is killed
        worker.pidfile.unlink()
        worker.start()
        again = worker.up(1)
        assert again.master is not None
        assert again.master.pid == worker.main.pid
    finally:
        worker.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--autoscale", "3,1"), "--autoscale"),
        (("--pool", "threads", "-c", "1"), "start it with --pool prefork"),
    ],
)
def test_what_cannot_be_sized_is_refused_with_cause_and_next_step(
    tmp_path: Path, redis: Redis, options: tuple[str, ...], words: str
) -> None:
    worker = Worker(tmp_path, redis, *options)
    try:
        sample = worker.until(lambda s: words in s.trouble)
        assert sample.size == 0
        assert worker.pool.resize(2) == (Status.REFUSED, sample.trouble)
    finally:
        worker.close()


def test_a_broker_that_is_gone_is_trouble_without_its_password_until_it_is_back(tmp_path: Path) -> None:
    redis = Redis(tmp_path)
    worker = Worker(tmp_path, redis, "-c", "1")
    try:
        worker.up(1)
        redis.stop()
        sample = worker.until(lambda s: bool(s.trouble))
        assert "cannot be asked" in sample.trouble
        assert "secret" not in sample.trouble
        assert sample.size == 1
        redis.start()
        worker.settle(2)
    finally:
        worker.close()
        redis.stop()
