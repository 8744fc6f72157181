"""Queues of real frameworks and servers are counted as they count themselves, and a worker that leaves loses no job."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.pools import rigs, task_queues

from nicety.models.records import PoolSample
from nicety.scheduler.config.sections import PoolConfig, Queue
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.pools.command.adapter import CommandPool
from nicety.scheduler.pools.command.queues.choose import counter
from nicety.scheduler.pools.command.queues.waiting import Count, Counter, CountError
from nicety.scheduler.testing.acts import own_acts
from nicety.scheduler.testing.driver import PoolDriver

PYTHON = {"rq": "rq", "dramatiq": "dramatiq", "arq": "arq", "huey": "huey", "rabbitmq": "pika"}
"""What is imported for each queue."""


def counting(environ: dict[str, str] | None = None, **queue: Any) -> Counter:
    """A counter that may start programs."""
    section = Queue(**queue)
    config = PoolConfig(kind="command", command=["true"], queue=section)
    environ = dict(os.environ) if environ is None else environ
    return counter(section, own_acts("jobs", config, SystemClock(), environ=environ).count, SystemClock(), environ)


def answer(counts: Counter, seconds: float = 10.0) -> Count:
    """One count; no step may take long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        began = time.monotonic()
        found = counts.step(time.monotonic_ns())
        assert time.monotonic() - began < 0.5, "a step waited"
        if found is not None:
            return found
        time.sleep(0.002)
    raise AssertionError("no answer")


def once(environ: dict[str, str] | None = None, **queue: Any) -> Count:
    """One count of a queue."""
    with contextlib.closing(counting(environ, **queue)) as counts:
        return answer(counts)


def said(counts: Counter) -> str:
    """Why there is no count."""
    with contextlib.closing(counts), pytest.raises(CountError) as error:
        answer(counts)
    return str(error.value)


# --- the frameworks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", task_queues.FRAMEWORKS)
def test_jobs_are_counted_and_a_worker_that_leaves_finishes_its_own(key: str, tmp_path: Path) -> None:
    pytest.importorskip(PYTHON[key])
    if task_queues.missing(key):
        pytest.skip(f"no {task_queues.missing(key)} on this machine")
    with task_queues.jobs(key, tmp_path) as jobs:
        clock, config = SystemClock(), jobs.config(key, 2)
        pool = CommandPool(key, config, clock, own_acts(key, config, clock, logs=tmp_path, environ=jobs.environ), seed=1)
        jobs.enqueue(8, 0.3, later=0 if key == "huey" else 3)  # huey's consumers take such tasks out, and put them aside
        try:
            log = tmp_path / f"{key}.log"
            driver = PoolDriver(pool, clock, told=lambda: log.read_text(errors="replace") if log.exists() else "")
            sample = driver.over(0.5)
            assert (sample.queued, sample.size) == (8, 0), "none is taken, and what is due in an hour does not wait"
            assert pool.resize(1)[0] == "applied"
            driver.until(lambda sample: sample.queued is not None and 0 < sample.queued < 7 and in_work(sample))
            assert pool.resize(0)[0] == "applied"
            driver.until(lambda sample: not sample.size)
            left = driver.over(0.5).queued
            assert left is not None
            assert 0 < left < 8, "it left between two jobs"
            assert jobs.ended() == 8 - left, "what it had begun it has finished, and what it had not is back"
        finally:
            pool.close()


def in_work(sample: PoolSample) -> bool:
    """Whether a job is being done: by the queue's account, or as the worker is seen."""
    return sample.flights.held > 0.5 if sample.flights else any(worker.busy for worker in sample.workers)


# --- redis ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def redis() -> Iterator[task_queues.Jobs]:
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server on this machine")
    with tempfile.TemporaryDirectory() as folder, task_queues.jobs("huey", Path(folder)) as server:
        yield server


def test_of_a_sorted_set_all_is_counted_or_what_is_due(redis: task_queues.Jobs) -> None:
    now = time.time()
    redis.redis("ZADD", "timed", str(now - 5), "a", str(now + 600), "b")
    redis.redis("ZADD", "timed-ms", str(1000 * now - 5000), "a", str(1000 * now + 600_000), "b", "0", "c")
    where = f"redis://127.0.0.1:{redis.port}/1"
    assert once(redis_sorted_set=f"{where}/timed") == Count(2)
    assert once(redis_sorted_set=f"{where}/timed?due=s") == Count(1)
    assert once(redis_sorted_set=f"{where}/timed-ms?due=ms") == Count(2)
    assert once(redis_sorted_set=f"{where}/none?due=s") == Count(0)


def test_of_a_stream_a_group_has_entries_not_read_and_entries_not_acknowledged(redis: task_queues.Jobs) -> None:
    for number in range(5):
        redis.redis("XADD", "events", "*", "n", str(number))
    redis.redis("XGROUP", "CREATE", "events", "workers", "0")
    redis.redis("XREADGROUP", "GROUP", "workers", "me", "COUNT", "2", "STREAMS", "events", ">")
    where = f"redis://127.0.0.1:{redis.port}/1/events"
    assert once(redis_stream=where) == Count(5)
    assert once(redis_stream=f"{where}?group=workers") == Count(3, 2)
    assert "no group 'others'; correct queue.redis_stream" in said(counting(redis_stream=f"{where}?group=others"))


def test_several_queues_of_a_framework_count_together(redis: task_queues.Jobs) -> None:
    redis.redis("RPUSH", "rq:queue:high", "a")
    redis.redis("RPUSH", "rq:queue:low, too", "a", "b")
    redis.redis("ZADD", "huey.redis.myapp", "1", "task")
    where = f"redis://127.0.0.1:{redis.port}/1"
    assert once(rq=f"{where}/high,low%2C%20too,none") == Count(3)
    assert once(huey=f"{where}/my-app") == Count(1), "with priorities it is a sorted set"
    assert once({"WHERE": f"{where}/high"}, rq="$WHERE") == Count(1)


@pytest.mark.parametrize(
    ("queue", "cause"),
    [
        ({"rq": "$NOWHERE"}, "queue.rq: nicety has no environment variable NOWHERE"),
        ({"redis_stream": "redis://h/0/s?grup=g"}, "queue.redis_stream: after . come group"),
        ({"rq": "redis://h/0/q?group=g"}, "queue.rq: nothing follows the key"),
        ({"rabbitmq": "amqps://h/%2F/q"}, "queue.rabbitmq: give .*TLS"),
        ({"rabbitmq": "amqp://:s3cret/%2F/q"}, "queue.rabbitmq: its host or port"),
        ({"rabbitmq": "amqp://h/q"}, "queue.rabbitmq: give "),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(queue: dict[str, str], cause: str) -> None:
    with pytest.raises(ValueError, match=cause) as error:
        counting({}, **queue)
    assert "s3cret" not in str(error.value)


# --- rabbitmq ------------------------------------------------------------------------------------------------------------------


def test_rabbitmq_says_what_is_wrong_without_the_password(tmp_path: Path) -> None:
    pytest.importorskip("pika")
    if task_queues.missing("rabbitmq"):
        pytest.skip("no rabbitmq-server on this machine")
    with task_queues.rabbitmq(tmp_path / "broker") as url:
        assert "NOT_FOUND - no queue 'none' in vhost '/'; correct queue.rabbitmq" in said(counting(rabbitmq=f"{url}/%2F/none"))
        assert "NOT_ALLOWED" in said(counting(rabbitmq=f"{url}/elsewhere/q"))
        wrong = said(counting(rabbitmq=f"{url.replace('guest@', 's3cret@')}/%2F/q"))
        assert "ACCESS_REFUSED" in wrong
        assert "s3cret" not in wrong


def test_what_is_no_rabbitmq_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        counts = counting(rabbitmq=f"amqp://127.0.0.1:{server.getsockname()[1]}/%2F/q")
        assert counts.step(time.monotonic_ns()) is None
        with server.accept()[0] as connection:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            assert "it does not speak AMQP" in said(counts)


# --- sql -----------------------------------------------------------------------------------------------------------------------


def test_rows_of_sqlite_are_counted_again_and_again_and_never_written(tmp_path: Path) -> None:
    base = sqlite3.connect(tmp_path / "jobs 100%?.db", isolation_level=None)
    base.execute("create table jobs (state text)")
    base.executemany("insert into jobs values (?)", [("new",), ("new",), ("done",)])
    url = f"sqlite:///{tmp_path}/jobs%20100%25%3F.db"
    counts = counting(sql=url, sql_query="select count(*) from jobs where state = 'new'", every=0.05)
    assert answer(counts) == Count(2)
    base.execute("insert into jobs values ('new')")
    assert answer(counts) <= answer(counts) == Count(3), "one program asks on"
    counts.close()
    assert "readonly database" in said(counting(sql=url, sql_query="insert into jobs values ('x') returning 1"))
    assert "no such table: job; correct queue.sql" in said(counting(sql=url, sql_query="select count(*) from job"))
    assert "must find one whole number, and found ('new',)" in said(counting(sql=url, sql_query="select state from jobs"))
    assert "unable to open database file" in said(counting(sql=f"sqlite:///{tmp_path}/none.db", sql_query="select 1"))
    base.close()


def test_a_missing_driver_is_said_and_the_password_shows_nowhere(tmp_path: Path) -> None:
    (tmp_path / "psycopg.py").write_text("raise ImportError\n")
    (tmp_path / "psycopg2.py").write_text("raise ImportError\n")
    environ = {**os.environ, "JOBS_DB": "postgresql://me:s3cret@127.0.0.1:1/jobs", "PYTHONPATH": str(tmp_path)}
    words = said(counting(environ, sql="$JOBS_DB", sql_query="select 1"))
    assert f"postgresql://me:**@127.0.0.1:1/jobs: {sys.executable} has no psycopg or psycopg2: install it" in words


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """A PostgreSQL of its own: the URL of a database with three jobs."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs or os.geteuid() != 0:
        pytest.skip("no PostgreSQL on this machine, or no right to start it as its user")
    pytest.importorskip("psycopg", reason="no driver for PostgreSQL")
    with tempfile.TemporaryDirectory() as name:
        folder, port, user = (
            Path(name),
            rigs.free_port(),
            ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"],
        )
        folder.chmod(0o755)
        shutil.chown(folder, "postgres")
        data = folder / "data"
        subprocess.run([*user, programs[-1] / "initdb", "-N", "-A", "trust", "-D", data], check=True, capture_output=True, cwd="/")
        server = [*user, str(programs[-1] / "postgres"), "-D", str(data), "-p", str(port), "-k", name, "-c", "fsync=off"]
        psql = ["psql", "-h", name, "-p", str(port), "-U", "postgres", "-c"]
        with rigs.program(server, folder / "log", folder=folder):
            deadline = time.monotonic() + 30
            script = "create table jobs (id int); insert into jobs values (1), (2), (3)"
            while subprocess.run([*psql, script], capture_output=True, check=False).returncode:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield f"postgresql://postgres:any@127.0.0.1:{port}/postgres"


def test_rows_of_postgresql_are_counted_and_never_written(postgres: str) -> None:
    counts = counting(sql=postgres, sql_query="select count(*) from jobs")
    assert answer(counts) == Count(3)
    counts.close()
    assert "read-only transaction" in said(counting(sql=postgres, sql_query="insert into jobs values (4) returning 1"))
