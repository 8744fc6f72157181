"""Open-loop load on services of any protocol: requests go out at their time, whether or not those before were answered.

    python -m benchmarks.field.load --out PREFIX --target PORT RATE REQUEST_FILE [--target ...] [--seed N]

Runs until SIGTERM. As in `latency/openloop.py` there is a real-time process on each CPU, and each request goes out from one of
them by chance. Unlike there a connection carries one request at a time, because not every HTTP server takes several. A connection
that the server closes is opened again and its request repeated: a server that is redeployed closes them. An answer is whole when it
has `MARKER`.

Each process writes `PREFIX.CPU`: three doubles a request (the moment for which it was planned, in monotonic seconds, its latency,
and how late the process came to it), as answers come. What was not answered `DRAIN` seconds after SIGTERM has an infinite latency.
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
"""To each service, of each process, at most: what comes while all are busy waits here, and its latency counts."""

DRAIN, FLUSH, RETRY = 3.0, 0.2, 0.05
"""Seconds: for answers after the end, between two writes, and after a connection was refused."""


class Request(NamedTuple):
    """One that waits or is under way."""

    due: float
    late: float  # seconds until this process came to it: not what it waits for a connection


class Link:
    """A connection and the request that it carries."""

    def __init__(self, peer: socket.socket) -> None:
        self.peer, self.tail = peer, b""
        self.request: Request | None = None


class Service:
    """What is asked: its port, its request, its connections."""

    def __init__(self, port: int, rate: float, request: bytes) -> None:
        self.port, self.rate, self.request = port, rate, request
        self.idle, self.busy = list[Link](), dict[int, Link]()
        self.waiting = deque[Request]()
        self.retry = 0.0  # not to connect before

    def send(self, now: float) -> None:
        """Send what waits, as far as there are connections."""
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
        """What came on this connection; the request that it answered."""
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
        """What was not answered."""
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
        """The service closed it: what it carried goes out again."""
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
    parser.add_argument("--target", nargs=3, action="append", required=True, metavar=("PORT", "RATE", "REQUEST_FILE"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        print("not permitted to be real-time: waits of the generator itself are measured too", file=sys.stderr)
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
