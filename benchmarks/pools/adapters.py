"""Resizes real pools under load and counts requests or tasks that were lost, failed, or begun twice. There must be none.

python -m benchmarks.pools.adapters --pool celery --resizes 1000 [--json FILE]

Each kind of pool has a function here, which starts the real pool and clients that never rest. Sizes are drawn with a fixed seed.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.pools.celery.adapter import CeleryPool
from nicety.scheduler.pools.gunicorn.adapter import GunicornPool
from nicety.scheduler.pools.uwsgi.adapter import UwsgiPool
from nicety.scheduler.ports import PoolAdapter
from nicety.scheduler.testing.acts import own_acts

from ..claims import Claims
from . import rigs

MAXIMUM = 5


@dataclass(frozen=True)
class Work:
    """How the clients' requests or tasks ended."""

    sent: int
    done: int
    failed: int
    twice: int | None  # begun more than once; None: not possible for this kind


@dataclass(frozen=True)
class Stage:
    """A running pool under load. `finish` ends the load, waits for unfinished work and counts."""

    pool: PoolAdapter
    finish: Callable[[], Work]


# --- gunicorn ------------------------------------------------------------------------------------------------------------------

WSGI = """
import time

def application(environ, start_response):
    time.sleep(0.01)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


class WebClients:
    """Threads that send a request as soon as they have the answer to the last one, each over a new connection."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._answers, self._failures = [0] * count, [0] * count
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(count)]

    def start(self) -> None:
        """Begin to send requests."""
        for thread in self._threads:
            thread.start()

    def finish(self) -> Work:
        """Stop, and count the requests."""
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        answers, failures = sum(self._answers), sum(self._failures)
        return Work(answers + failures, answers, failures, None)

    def _run(self, number: int) -> None:
        while not self._stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
            try:
                connection.request("GET", "/")
                good = connection.getresponse().read() == b"ok"
            except (OSError, http.client.HTTPException):
                good = False
            finally:
                connection.close()
            self._answers[number] += good
            self._failures[number] += not good


@contextlib.contextmanager
def gunicorn(folder: Path) -> Iterator[Stage]:
    """gunicorn with four clients; a request takes 10 ms."""
    (folder / "app.py").write_text(WSGI)
    port = rigs.free_port()
    with rigs.gunicorn(folder, port) as (config, _):
        yield from _stage(GunicornPool("web", config, SystemClock(), own_acts("web", config, SystemClock())), WebClients(port, 4))


def _stage(pool: PoolAdapter, clients: WebClients) -> Iterator[Stage]:
    try:
        rigs.reach(pool, 1)
        clients.start()
        yield Stage(pool, clients.finish)
    finally:
        clients.finish()
        pool.close()


# --- uWSGI ---------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def uwsgi(folder: Path) -> Iterator[Stage]:
    """uWSGI with two clients; a request takes 10 ms. The master changes its workers once a second, and removes only idle ones."""
    (folder / "app.py").write_text(WSGI)
    port = rigs.free_port()
    with rigs.uwsgi(folder, port, MAXIMUM) as (config, _):
        yield from _stage(UwsgiPool("web", config, SystemClock(), own_acts("web", config, SystemClock())), WebClients(port, 2))


# --- Celery --------------------------------------------------------------------------------------------------------------------

# Celery checks every 5 s whether processes are missing. A lower PACE (seconds, in the environment) only makes a run shorter.
TASKS = """
import os, time
from celery import Celery
from celery.concurrency.asynpool import AsynPool
from redis import Redis

app = Celery("tasks", broker=os.environ["BROKER"])
app.conf.task_ignore_result = True
store = Redis.from_url(os.environ["BROKER"])

if os.environ["PACE"]:
    AsynPool.timers = property(lambda pool: {pool.maintain_pool: float(os.environ["PACE"])})

@app.task(bind=True)
def work(task, seconds):
    store.hincrby("began", task.request.id, 1)
    time.sleep(seconds)
    store.hincrby("ended", task.request.id, 1)
"""

# 40 tasks a second of 5 to 35 ms, at random times, until its input ends. Then it waits until all are done, or none was for 20 s.
CLIENT = """
import json, random, select, sys, time
from tasks import app, store, work

chance = random.Random(1)
sent = 0
with app.connection_for_write() as connection:
    due = time.monotonic()
    while not select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
        work.apply_async((chance.uniform(0.005, 0.035),), connection=connection)
        sent += 1
        due = max(due, time.monotonic() - 1) + chance.expovariate(40)
last, until = -1, time.monotonic() + 20
while store.hlen("ended") < sent and time.monotonic() < until:
    if store.hlen("ended") != last:
        last, until = store.hlen("ended"), time.monotonic() + 20
    time.sleep(0.1)
began = store.hgetall("began")
print(json.dumps({"sent": sent, "done": store.hlen("ended"), "twice": sum(int(n) > 1 for n in began.values())}))
"""


@contextlib.contextmanager
def celery(folder: Path) -> Iterator[Stage]:
    """A Celery node with its own Redis. A task is done when it has reported so itself; failed tasks are counted in the node's
    log."""
    (folder / "tasks.py").write_text(TASKS)
    (folder / "client.py").write_text(CLIENT)
    environ = {"PACE": os.environ.get("PACE", "")}
    with contextlib.ExitStack() as at_the_end:
        broker = at_the_end.enter_context(rigs.redis(folder)) + "/0"
        config, _ = at_the_end.enter_context(rigs.celery(folder, "bench", broker, ["-c", "1"], environ))
        environ = {**os.environ, **environ, "BROKER": broker}
        pool = CeleryPool("jobs", config, SystemClock(), own_acts("jobs", config, SystemClock()))
        at_the_end.callback(pool.close)
        rigs.reach(pool, 1)
        client = subprocess.Popen(
            [sys.executable, "client.py"], cwd=folder, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        at_the_end.callback(client.kill)

        def finish() -> Work:
            told = json.loads(client.communicate()[0])
            return Work(
                told["sent"],
                told["done"],
                len(re.findall(r"raised (?:unexpected|error)", (folder / "bench.log").read_text())),
                told["twice"],
            )

        yield Stage(pool, finish)


# --- the run -------------------------------------------------------------------------------------------------------------------

POOLS: dict[str, Callable[[Path], AbstractContextManager[Stage]]] = {"celery": celery, "gunicorn": gunicorn, "uwsgi": uwsgi}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", choices=sorted(POOLS), required=True)
    parser.add_argument("--resizes", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that everything that was started is ended
    chance = random.Random(5)
    ups: list[float] = []
    downs: list[float] = []
    with tempfile.TemporaryDirectory() as place, POOLS[options.pool](Path(place)) as stage:
        began = time.monotonic()
        size = 1
        while len(ups) + len(downs) < options.resizes:
            wanted = chance.choice([other for other in range(1, MAXIMUM + 1) if other != size])
            seconds = rigs.reach(stage.pool, wanted)
            (ups if wanted > size else downs).append(seconds)
            size = wanted
            if (len(ups) + len(downs)) % 50 == 0:
                print(f"{len(ups) + len(downs):>5} resizes in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        elapsed = time.monotonic() - began
        work = stage.finish()
    claims = Claims()
    claims.at_least("resizes under load", len(ups) + len(downs), options.resizes)
    claims.at_least("requests or tasks a second", work.sent / elapsed, 10)
    claims.at_most("lost", work.sent - work.done - work.failed, 0)
    claims.at_most("failed", work.failed, 0)
    if work.twice is not None:
        claims.at_most("begun twice", work.twice, 0)
    claims.close(
        options.json,
        pool=options.pool,
        seconds=elapsed,
        sent=work.sent,
        done=work.done,
        growing_seconds={"median": statistics.median(ups), "most": max(ups)},
        shrinking_seconds={"median": statistics.median(downs), "most": max(downs)},
    )


if __name__ == "__main__":
    main()
