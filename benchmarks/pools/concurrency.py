"""Requests in flight and their times, seen from outside, beside the application's own log.

    python -m benchmarks.pools.concurrency [--seconds 20] [--only gthread,node] [--json FILE]

Each server runs an application that sleeps, and logs when each request began and ended. Clients ask over TCP on loopback: some keep
their connection and pause, some never pause, some open a connection for each request. nicety's part looks ten times a second at
most, as the daemon does. `cost` has 1,000 connections that are kept alive, a tenth of which ask once a second; its figure is
the CPU time of looks and reads. A 95 % quantile of a few hundred requests scatters by a tenth itself.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import random
import resource
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.pools.sensing.in_flight import InFlight
from nicety.scheduler.read.connections import Listener

from ..claims import Claims
from .rigs import free_port, program

LOAD_ERROR, P95_ERROR, CPU = 0.10, 0.15, 0.01
"""Bounds of issue 25."""

SETTLE = 4
"""Reads that are left out at first: the distribution needs some requests. Chosen."""

CONNECTIONS = 1000

WSGI = """
import os, time
LOG = open(os.environ["APP_LOG"], "a", buffering=1)

def application(environ, start_response):
    began = time.monotonic()
    time.sleep(float(environ["PATH_INFO"].rsplit("/", 1)[1]) / 1000)
    start_response("200 OK", [("Content-Length", "2")])
    LOG.write(f"{began} {time.monotonic()}\\n")
    return [b"ok"]
"""

ASGI = """
import asyncio, os, time
LOG = open(os.environ["APP_LOG"], "a", buffering=1)

async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    began = time.monotonic()
    await asyncio.sleep(float(scope["path"].rsplit("/", 1)[1]) / 1000)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
    LOG.write(f"{began} {time.monotonic()}\\n")
"""

NODE = """
const log = require("fs").openSync(process.env.APP_LOG, "a"), now = () => Number(process.hrtime.bigint()) / 1e9
require("http").createServer((request, response) => {
  const began = now()
  setTimeout(() => {
    response.setHeader("Content-Length", 2)
    response.end("ok")
    require("fs").writeSync(log, `${began} ${now()}\\n`)
  }, Number(request.url.split("/").pop()))
}).listen(Number(process.argv[2]), "127.0.0.1")
"""

PYTHON = sys.executable
GUNICORN = (PYTHON, "-m", "gunicorn", "--bind", "127.0.0.1:{port}")
SERVERS: dict[str, tuple[str, Sequence[str]]] = {
    "sync": (WSGI, (*GUNICORN, "--workers", "12", "app:application")),
    "gthread": (WSGI, (*GUNICORN, "--workers", "2", "--worker-class", "gthread", "--threads", "12", "app:application")),
    "gevent": (WSGI, (*GUNICORN, "--workers", "2", "--worker-class", "gevent", "app:application")),
    "uvicorn's worker": (ASGI, (*GUNICORN, "--workers", "2", "--worker-class", "uvicorn_worker.UvicornWorker", "app:application")),
    "uvicorn": (ASGI, (PYTHON, "-m", "uvicorn", "--log-level", "error", "--port", "{port}", "app:application")),
    "hypercorn": (ASGI, (PYTHON, "-m", "hypercorn", "--bind", "127.0.0.1:{port}", "app:application")),
    "node": (NODE, ("node", "app.py", "{port}")),
}
Milliseconds = Callable[[random.Random], float]
LOADS: dict[str, tuple[float, Milliseconds, bool]] = {  # seconds of pause on average, time of a request, kept alive
    "kept alive": (0.2, lambda chance: chance.expovariate(1 / 100), True),
    "without a pause": (0.0, lambda chance: chance.expovariate(1 / 100), True),
    "50 ms": (0.1, lambda _chance: 50.0, True),
    "one each": (0.2, lambda chance: chance.lognormvariate(4.4, 0.6), False),
}
CLIENTS = 10


def main() -> None:
    """See the top."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20.0, help="for each server and load")
    parser.add_argument("--only", default=",".join([*SERVERS, "cost"]))
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    claims = Claims()
    for name in asked.only.split(","):
        if name == "cost":
            _cost(claims)
            continue
        for load in LOADS:
            _beside_the_log(claims, name, load, asked.seconds)
    claims.close(asked.json)


def _beside_the_log(claims: Claims, name: str, load: str, seconds: float) -> None:
    text, command = SERVERS[name]
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        folder, log = Path(directory), Path(directory) / "app.log"
        (folder / "app.py").write_text(text, encoding="ascii")
        log.touch()
        filled = [word.format(port=port) for word in command]
        with program(filled, folder / "log", folder=folder, environ={"APP_LOG": str(log)}):
            _wait_for(port)
            with _clients(port, load):
                time.sleep(1.0)
                held, times, began, ended = _watch(port, seconds)
        rows = np.array([line.split() for line in log.read_text().splitlines()], dtype=float)
    inside = np.clip(np.minimum(rows[:, 1], ended) - np.maximum(rows[:, 0], began), 0.0, None)
    own = float(inside.sum()) / (ended - began)
    took = (rows[:, 1] - rows[:, 0])[(rows[:, 1] > began) & (rows[:, 1] < ended)]
    own_p95 = float(np.quantile(took, 0.95))
    claims.at_most(f"{name}, {load}: error of the load ({own:.2f} in flight)", abs(held / own - 1.0), LOAD_ERROR)
    seen_p95 = float(np.quantile(times, 0.95))
    claims.at_most(f"{name}, {load}: error of p95 ({own_p95 * 1000:.0f} ms)", abs(seen_p95 / own_p95 - 1.0), P95_ERROR)


def _watch(port: int, seconds: float) -> tuple[float, list[float], float, float]:
    """(mean in flight, times, when it began, when it ended), looking as the daemon does."""
    clock, listeners = SystemClock(), _listeners(port)
    sensor = InFlight("bench", clock)
    held, times, began = list[float](), list[float](), time.monotonic()
    ticks = max(int(seconds), SETTLE + 1)
    for tick in range(ticks):
        for _ in range(10):
            sensor.look(clock.monotonic(), listeners)
            time.sleep(0.1)
        flights = sensor.read()
        assert flights is not None, "this kernel does not show its connections"
        held.append(flights.held)
        times += flights.seconds if tick >= SETTLE else ()
    sensor.close()
    return float(np.mean(held)), times, began, time.monotonic()


def _cost(claims: Claims) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS))
        address = listener.getsockname()
        ends = []
        for _ in range(CONNECTIONS):
            client = stack.enter_context(socket.create_connection(address))
            ends.append((client, stack.enter_context(listener.accept()[0])))
        clock, chance = SystemClock(), random.Random(1)
        sensor, listeners, spent = InFlight("bench", clock), _listeners(address[1]), 0.0
        stack.callback(sensor.close)
        began = time.monotonic()
        for probe in range(200):
            for client, server in chance.sample(ends, CONNECTIONS // 100):
                client.send(b"GET / HTTP/1.1\r\n\r\n")
                server.recv(100)
                server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            before = time.thread_time()
            sensor.look(clock.monotonic(), listeners)
            if probe % 10 == 9:
                sensor.read()
            spent += time.thread_time() - before
            time.sleep(0.1)
        claims.at_most(f"share of a CPU at {CONNECTIONS} connections", spent / (time.monotonic() - began), CPU)


def _listeners(port: int) -> frozenset[Listener]:
    return frozenset({(int(socket.AF_INET), port, socket.inet_aton("127.0.0.1") + bytes(12))})


@contextlib.contextmanager
def _clients(port: int, load: str) -> Iterator[None]:
    """Clients that ask within the block, and finish what they have begun."""
    stop = threading.Event()
    threads = [
        threading.Thread(target=_ask, args=(port, load, random.Random(number), stop), daemon=True) for number in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


def _ask(port: int, load: str, chance: random.Random, stop: threading.Event) -> None:
    pause, milliseconds, keep = LOADS[load]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    while not stop.is_set():
        if pause:
            time.sleep(chance.expovariate(1 / pause))
        try:
            connection.request("GET", f"/sleep/{milliseconds(chance):.0f}", headers={} if keep else {"Connection": "close"})
            connection.getresponse().read()
            if not keep:
                connection.close()
        except (OSError, http.client.HTTPException):  # the server closed a connection that rested: the next request opens one
            connection.close()
    connection.close()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


if __name__ == "__main__":
    main()
