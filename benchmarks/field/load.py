"""Open-loop load on services of any protocol: each request is sent at its planned time, whether or not the one before was answered.

    python -m benchmarks.field.load --out PREFIX --target PORT RATE REQUEST_FILE [--target ...] [--seed N]

Runs until SIGTERM. As in `latency/openloop.py` there is a real-time process on each CPU, and a random one of them sends each
request. Unlike there, a connection carries one request at a time, because not every HTTP server takes several. A connection that
the server closes is opened again and its request repeated, because a server that is redeployed closes its connections. An answer
is complete when it contains `MARKER`.

Each process appends to `PREFIX.CPU` as answers come: three doubles a request, its planned time (monotonic seconds), its latency,
and how late the process began with it. A request without an answer `DRAIN` seconds after SIGTERM has an infinite latency.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import select
import signal
import socket
import sys
import time
from array import array
from collections import deque
from pathlib import Path
from typing import NamedTuple

MARKER = b"~answered~"
"""Ends every answer."""

CONNECTIONS = 24
"""Most connections of a process to a service. Chosen. A request that comes while all are busy waits here, and its latency
counts."""

DRAIN, FLUSH, RETRY = 3.0, 0.2, 0.05
"""Seconds to wait for answers after SIGTERM, between two writes of the file, and after a refused connection. Chosen."""


class Request(NamedTuple):
    """A request that waits or was sent."""

    due: float  # monotonic seconds
    late: float  # seconds from `due` until this process saw it, without the wait for a connection


class Link:
    """A connection and the request that it carries."""

    def __init__(self, peer: socket.socket) -> None:
        self.peer, self.tail = peer, b""
        self.request: Request | None = None


class Service:
    """A service under load: its port, its request and the connections to it."""

    def __init__(self, port: int, rate: float, request: bytes) -> None:
        self.port, self.rate, self.request = port, rate, request
        self.idle, self.busy = list[Link](), dict[int, Link]()
        self.waiting = deque[Request]()
        self.retry = 0.0  # monotonic seconds before which it does not connect

    def send(self, now: float) -> None:
        """Send waiting requests, as far as there are free connections."""
        while self.waiting and now >= self.retry:
            link = self.idle.pop() if self.idle else self._connect(now)
            if link is None:
                return
            link.request = self.waiting.popleft()
            self.busy[link.peer.fileno()] = link
            try:
                link.peer.send(self.request)
            except OSError:
                self._lose(link)

    def receive(self, fd: int) -> Request | None:
        """Read from this connection; the request if its answer is complete, else None."""
        link = self.busy[fd]
        try:
            data = link.peer.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            self._lose(link)
            return None
        whole = link.tail + data
        link.tail = whole[-len(MARKER) :]
        if MARKER not in whole:
            return None
        request, link.request, link.tail = link.request, None, b""
        del self.busy[fd]
        self.idle.append(link)
        return request

    def left(self) -> list[Request]:
        """Requests without an answer."""
        return [*self.waiting, *(link.request for link in self.busy.values() if link.request is not None)]

    def _connect(self, now: float) -> Link | None:
        if len(self.busy) >= CONNECTIONS:
            return None
        try:
            peer = socket.create_connection(("127.0.0.1", self.port), RETRY)
        except OSError:
            self.retry = now + RETRY
            return None
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.setblocking(False)
        return Link(peer)

    def _lose(self, link: Link) -> None:
        """The service closed the connection: queue its request again."""
        del self.busy[link.peer.fileno()]
        link.peer.close()
        if link.request is not None:
            self.waiting.appendleft(link.request)


class Stop:
    """Whether SIGTERM came."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, *_: object) -> None:
        self.asked = True


def drive(services: list[Service], out: Path, seed: int, processes: int) -> None:
    """Send and receive until SIGTERM; this process sends its share of the requests."""
    chance, stop, rows = random.Random(seed), Stop(), array("d")
    weights = [service.rate for service in services]
    rate = sum(weights) / processes
    due = time.monotonic() + 0.1 + chance.expovariate(rate)
    flush = due
    with out.open("ab", buffering=0) as file:
        end = None
        while end is None or (time.monotonic() < end and any(service.left() for service in services)):
            now = time.monotonic()
            if end is None and stop.asked:
                end, due = now + DRAIN, float("inf")
            while due <= now:
                chance.choices(services, weights)[0].waiting.append(Request(due, now - due))
                due += chance.expovariate(rate)
            for service in services:
                service.send(now)
            pause = min(due - time.monotonic(), FLUSH, RETRY if any(service.waiting for service in services) else FLUSH)
            by_fd = {fd: service for service in services for fd in service.busy}
            ready: list[int] = []
            with contextlib.suppress(InterruptedError):
                ready = select.select(by_fd, (), (), max(0.0, pause))[0]  # epoll's time-outs are whole milliseconds
            for fd in ready:
                request = by_fd[fd].receive(fd)
                if request is not None:
                    rows.extend((request.due, time.monotonic() - request.due, request.late))
            if now >= flush:
                file.write(rows.tobytes())
                del rows[:]
                flush = now + FLUSH
        for service in services:
            for request in service.left():
                rows.extend((request.due, float("inf"), request.late))
        file.write(rows.tobytes())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--target",
        nargs=3,
        action="append",
        required=True,
        metavar=("PORT", "RATE", "REQUEST_FILE"),
        help="a service, requests a second, and a file with the bytes of a request",
    )
    parser.add_argument("--out", type=Path, required=True, help="prefix of the files to write")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random times (default %(default)s)")
    asked = parser.parse_args()
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        print("no permission for the real-time class: latencies include waits of the generator itself", file=sys.stderr)
    stop, children, parent = Stop(), list[int](), os.getppid()
    cpus = sorted(os.sched_getaffinity(0))
    for cpu in cpus:
        child = os.fork()
        if child == 0:
            os.sched_setaffinity(0, {cpu})
            services = [Service(int(port), float(rate), Path(file).read_bytes()) for port, rate, file in asked.target]
            drive(services, asked.out.with_name(f"{asked.out.name}.{cpu}"), asked.seed * 1000 + cpu, len(cpus))
            os._exit(0)
        children.append(child)
    while not stop.asked and os.getppid() == parent and all(os.waitpid(child, os.WNOHANG) == (0, 0) for child in children):
        time.sleep(0.1)
    early = not stop.asked
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGTERM)
    for child in children:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)
    return int(early)


if __name__ == "__main__":
    sys.exit(main())
