"""Open-loop load on real pools: work is sent at its planned time, whether or not earlier work is done.

    python load.py web|celery|executor SCHEDULE OUT TARGET...

SCHEDULE is a .npy file, [2, n]: the second at which each request or task is sent, and how long it takes. Every TARGET gets the same
work: a port (web), the URL of a broker (celery), or NAME:WORKERS:START_SECONDS of an executor that is made here (only one).

Prints "ready" on stdout, reads the begin in monotonic seconds from stdin, and writes OUT when everything is done, or nothing was
for `PATIENCE`. OUT is a .npy file, [3, targets, n]: seconds from the planned time to the end (nan: failed, infinite: lost),
seconds by which it was sent late, and how often it was begun (nan: not counted).
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
PATIENCE = 60.0
"""Seconds in which nothing finishes, after which unfinished work counts as lost. Chosen."""


def begin() -> float:
    """Wait for the begin of the schedule; when that is, in monotonic seconds."""
    print("ready", flush=True)
    return float(sys.stdin.readline())


# --- gunicorn -----------------------------------------------------------------------------------------------------------------


async def web(targets: list[str], planned: Floats, services: Floats, found: Floats) -> None:
    """Send requests to web servers, each over its own connection."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a backlog holds its connections
    ended, left = time.monotonic(), found[0].size

    async def ask(place: int, number: int, due: float) -> None:
        nonlocal ended, left
        found[1, place, number] = time.monotonic() - due
        good = False
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(targets[place]))
            writer.write(b"GET /?%.6f HTTP/1.0\r\n\r\n" % services[number])
            good = (await reader.read()).endswith(b"\r\n\r\nok")
            writer.close()
        except OSError:
            pass
        ended, left = time.monotonic(), left - 1
        found[0, place, number] = ended - due if good else np.nan

    at = begin()
    running = set[asyncio.Task[None]]()
    for number, due in enumerate((planned + at).tolist()):
        await asyncio.sleep(due - time.monotonic())
        for place in range(len(targets)):
            task = asyncio.create_task(ask(place, number, due))
            running.add(task)
            task.add_done_callback(running.discard)
    while left and time.monotonic() < ended + PATIENCE:
        await asyncio.sleep(0.1)


# --- Celery -------------------------------------------------------------------------------------------------------------------


def celery(targets: list[str], planned: Floats, services: Floats, found: Floats) -> None:
    """Send tasks to brokers. The tasks report when they begin and end, by the clock that all processes share."""
    from celery import Celery
    from redis import Redis

    apps = [Celery("load", broker=url) for url in targets]
    stores = [Redis.from_url(url) for url in targets]
    for app in apps:
        app.conf.task_ignore_result = True
    connections = [app.connection_for_write() for app in apps]
    at = begin()
    for number, due in enumerate((planned + at).tolist()):
        time.sleep(max(0.0, due - time.monotonic()))
        for place, app in enumerate(apps):
            found[1, place, number] = time.monotonic() - due
            app.send_task("tasks.work", (number, float(services[number])), connection=connections[place])
    ended, done = time.monotonic(), -1
    while time.monotonic() < ended + PATIENCE:
        now = sum(int(store.llen("ended")) for store in stores)  # type: ignore[arg-type]
        if now != done:
            ended, done = time.monotonic(), now
        if now >= len(targets) * len(planned):
            break
        time.sleep(0.2)
    found[2] = 0
    for place, store in enumerate(stores):
        for number in store.lrange("began", 0, -1):  # type: ignore[union-attr]
            found[2, place, int(number)] += 1
        for said in store.lrange("ended", 0, -1):  # type: ignore[union-attr]
            number, when = said.split()
            found[0, place, int(number)] = float(when) - at - planned[int(number)]


# --- Executor -----------------------------------------------------------------------------------------------------------------


def executor(targets: list[str], planned: Floats, services: Floats, found: Floats) -> None:
    """Submit tasks to an executor of this program."""
    from concurrent.futures import Future

    from nicety.scheduler.executor import Executor

    name, size, start = targets[0].split(":")
    pool = Executor(int(size), initializer=time.sleep, initargs=(float(start),), name=name)
    pool.submit(time.sleep, 0).result()
    at = begin()
    due = (planned + at).tolist()
    ended, left = time.monotonic(), len(due)

    def note(number: int, future: Future[None]) -> None:
        nonlocal ended, left
        ended, left = time.monotonic(), left - 1
        found[0, 0, number] = ended - due[number] if future.exception() is None else np.nan

    for number in range(len(due)):
        time.sleep(max(0.0, due[number] - time.monotonic()))
        found[1, 0, number] = time.monotonic() - due[number]
        pool.submit(time.sleep, float(services[number])).add_done_callback(lambda future, number=number: note(number, future))
    while left and time.monotonic() < ended + PATIENCE:
        time.sleep(0.1)
    pool.shutdown(wait=not left, cancel_futures=True)


def main() -> None:
    kind, schedule, out, *targets = sys.argv[1:]
    planned, services = np.load(schedule)
    found = np.full((3, len(targets), len(planned)), np.nan)
    found[0] = np.inf
    if kind == "web":
        asyncio.run(web(targets, planned, services, found))
    else:
        {"celery": celery, "executor": executor}[kind](targets, planned, services, found)
    np.save(out, found)
    print("done", flush=True)
    if not np.isfinite(found[0]).all():
        os._exit(0)  # unfinished work is given up


if __name__ == "__main__":
    main()
