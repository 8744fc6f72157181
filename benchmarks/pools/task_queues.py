"""Task queues for benchmarks and tests: an application for each framework, its servers, and the command of one worker.

Must not know loads or sizes. `python jobs.py N SECONDS LATER` enqueues N jobs that take so long, and LATER more that are due in an
hour. A job notes in Redis that it has begun and that it has ended. JOBS_LIBRARIES names a folder with other versions of the
frameworks.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nicety.scheduler.config.sections import Ends, PoolConfig, Queue

from . import rigs

_BEGINNING = """
import os, sys, time
import redis
notes = redis.Redis(port=int(os.environ["JOBS_PORT"]), db=1)

def work(number, seconds):
    notes.incr(f"begun:{number}")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    notes.sadd("ended", number)

def numbers():
    return range(int(sys.argv[1])), float(sys.argv[2]), range(int(sys.argv[3]))
"""

_RQ = """
from datetime import timedelta
from rq import Queue

if __name__ == "__main__":
    import jobs
    queue = Queue("default", connection=redis.Redis(port=int(os.environ["JOBS_PORT"])))
    now, seconds, later = numbers()
    for number in now:
        queue.enqueue(jobs.work, number, seconds)
    for number in later:
        queue.enqueue_in(timedelta(hours=1), jobs.work, -1, 0)
"""

_DRAMATIQ = """
import dramatiq

BROKER
dramatiq.set_broker(broker)

@dramatiq.actor(max_retries=0)
def job(number, seconds):
    work(number, seconds)

if __name__ == "__main__":
    now, seconds, later = numbers()
    for number in now:
        job.send(number, seconds)
    for number in later:
        job.send_with_options(args=(-1, 0), delay=3_600_000)
"""
_IN_REDIS = """
from dramatiq.brokers.redis import RedisBroker
broker = RedisBroker(port=int(os.environ["JOBS_PORT"]))
"""
_IN_RABBITMQ = """
from dramatiq.brokers.rabbitmq import RabbitmqBroker
broker = RabbitmqBroker(url=os.environ["JOBS_BROKER"])
"""

_ARQ = """
import asyncio
from datetime import timedelta
from arq import create_pool
from arq.connections import RedisSettings

async def job(_, number, seconds):
    notes.incr(f"begun:{number}")
    await asyncio.sleep(seconds)
    notes.sadd("ended", number)

class WorkerSettings:
    functions = [job]
    redis_settings = RedisSettings(port=int(os.environ["JOBS_PORT"]))
    max_jobs = 4
    poll_delay = 0.1
    job_completion_wait = 30

async def main():
    pool = await create_pool(WorkerSettings.redis_settings)
    now, seconds, later = numbers()
    for number in now:
        await pool.enqueue_job("job", number, seconds)
    for number in later:
        await pool.enqueue_job("job", -1, 0, _defer_by=timedelta(hours=1))

if __name__ == "__main__":
    asyncio.run(main())
"""

_HUEY = """
from huey import RedisHuey
app = RedisHuey("the-app", port=int(os.environ["JOBS_PORT"]))

@app.task()
def job(number, seconds):
    work(number, seconds)

if __name__ == "__main__":
    import jobs
    now, seconds, later = numbers()
    for number in now:
        jobs.job(number, seconds)
    for number in later:
        jobs.job.schedule((-1, 0), delay=3600)
"""

_PYTHON = (sys.executable, "-m")


@dataclass(frozen=True)
class Framework:
    """How one framework is used so that a worker of the pool is one unit of work, and loses none when it leaves."""

    application: str  # jobs.py, without its beginning
    worker: tuple[str, ...]
    queue: str  # the part of its queue's URL that follows the server's
    drain_signal: Ends = "SIGTERM"
    environ: Mapping[str, str] = field(default_factory=dict)
    broker: str = "redis"


FRAMEWORKS: Mapping[str, Framework] = {
    "rq": Framework(_RQ, (*_PYTHON, "rq.cli", "worker", "--url", "redis://127.0.0.1:PORT/0", "default"), "0/default"),
    "dramatiq": Framework(
        _DRAMATIQ.replace("BROKER", _IN_REDIS),
        (*_PYTHON, "dramatiq", "jobs", "--processes", "1", "--threads", "1"),
        "0/default",
        environ={"dramatiq_queue_prefetch": "1"},
    ),
    "arq": Framework(_ARQ, (*_PYTHON, "arq", "jobs.WorkerSettings"), "0/arq:queue"),
    "huey": Framework(
        _HUEY, (*_PYTHON, "huey.bin.huey_consumer", "jobs.app", "-w", "1", "-k", "thread"), "0/the-app", drain_signal="SIGINT"
    ),
    "rabbitmq": Framework(
        _DRAMATIQ.replace("BROKER", _IN_RABBITMQ),
        (*_PYTHON, "dramatiq", "jobs", "--processes", "1", "--threads", "1"),
        "%2F/default",
        environ={"dramatiq_queue_prefetch": "1"},
        broker="rabbitmq",
    ),
}
"""By the key of the queue's configuration."""


class Jobs:
    """An application in a folder, with its servers."""

    def __init__(self, key: str, folder: Path, port: int, broker: str) -> None:
        self.framework = FRAMEWORKS[key]
        self._folder = folder
        (folder / "jobs.py").write_text(_BEGINNING + self.framework.application)
        self.environ = {
            **os.environ,
            **self.framework.environ,
            "JOBS_PORT": str(port),
            "JOBS_BROKER": broker,
            "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("JOBS_LIBRARIES")])]),
        }
        server = f"{broker}/" if key == "rabbitmq" else f"redis://127.0.0.1:{port}/"
        self.url = server + self.framework.queue
        self.port = port
        self.command = [word.replace("PORT", str(port)) for word in self.framework.worker]

    def config(self, key: str, maximum: int) -> PoolConfig:
        """A pool of its workers; `key` of the queue's configuration."""
        return PoolConfig(
            kind="command",
            command=self.command,
            directory=str(self._folder),
            minimum=0,
            maximum=maximum,
            drain_signal=self.framework.drain_signal,
            queue=Queue(every=0.1, **{key: self.url}),  # type: ignore[arg-type]
        )

    def enqueue(self, count: int, seconds: float, later: int = 0) -> None:
        """Have the framework enqueue jobs."""
        words = [sys.executable, "jobs.py", str(count), str(seconds), str(later)]
        subprocess.run(words, cwd=self._folder, env=self.environ, check=True)

    def redis(self, *words: str) -> list[str]:
        """Ask Redis by redis-cli, in the database of the notes."""
        command = ["redis-cli", "-p", str(self.port), "-n", "1", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    def ended(self) -> int:
        """Jobs that have ended."""
        return int(self.redis("SCARD", "ended")[0])

    def begun_twice(self) -> int:
        """Jobs that have begun more than once."""
        keys = self.redis("KEYS", "begun:*")
        return sum(int(count) > 1 for count in self.redis("MGET", *keys)) if keys else 0


@contextlib.contextmanager
def jobs(key: str, folder: Path) -> Iterator[Jobs]:
    """The application of a framework in `folder`, with its servers."""
    port = rigs.free_port()
    command = ["redis-server", "--port", str(port), "--save", "", "--dir", str(folder)]
    with rigs.program(command, folder / "redis.log"), contextlib.ExitStack() as servers:
        broker = servers.enter_context(rabbitmq(folder / "rabbitmq")) if FRAMEWORKS[key].broker == "rabbitmq" else ""
        found = Jobs(key, folder, port, broker)
        _until(lambda: subprocess.run(["redis-cli", "-p", str(port), "ping"], capture_output=True, check=False).stdout == b"PONG\n")
        yield found


@contextlib.contextmanager
def rabbitmq(folder: Path) -> Iterator[str]:
    """A RabbitMQ of its own, on loopback: its URL without a vhost."""
    folder.mkdir()
    port, peers, names = rigs.free_port(), rigs.free_port(), rigs.free_port()
    environ = {
        **{key: value for key, value in os.environ.items() if not key.startswith("RABBITMQ_")},
        "HOME": str(folder),
        "RABBITMQ_NODENAME": f"nicety-{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(peers),
        "RABBITMQ_MNESIA_BASE": str(folder),
        "RABBITMQ_LOG_BASE": str(folder),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
        "ERL_EPMD_PORT": str(names),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}",
    }
    (folder / "plugins").write_text("[].\n")
    (folder / "rabbitmq.conf").write_text("log.console = true\n")
    binary = next(Path("/usr/lib/rabbitmq/lib").glob("*/sbin/rabbitmq-server"))
    try:
        with rigs.program([str(binary)], folder / "log", environ=environ):
            _until(lambda: "Server startup complete" in (folder / "log").read_text(errors="replace"))
            yield f"amqp://guest:guest@127.0.0.1:{port}"
    finally:  # Erlang's name server stays otherwise
        subprocess.run(["epmd", "-port", str(names), "-kill"], stdout=subprocess.DEVNULL, check=False)


def missing(key: str) -> str:
    """The server that a framework needs and that is not installed; "" if none is missing."""
    if shutil.which("redis-server") is None:
        return "redis-server"
    return "rabbitmq-server" if key == "rabbitmq" and not list(Path("/usr/lib/rabbitmq/lib").glob("*/sbin/rabbitmq-server")) else ""


def _until(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + rigs.PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the server does not start"
        time.sleep(0.05)
