"""A web application and its clients, for tests of pools that serve HTTP. Must not know pools or servers."""

from __future__ import annotations

import http.client
import socket
import threading
from types import TracebackType

APPLICATION = """
import os, socket, time

if "SLOW_START" in os.environ:
    time.sleep(float(os.environ["SLOW_START"]))

def application(environ, start_response):
    _, kind, milliseconds = environ["PATH_INFO"].split("/")
    seconds = int(milliseconds) / 1000
    if kind == "cpu":
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass
    elif kind == "sleep":
        time.sleep(seconds)
    elif kind == "database":
        ours, theirs = socket.socketpair()
        ours.settimeout(seconds)
        try:
            ours.recv(1)
        except TimeoutError:
            pass
        ours.close()
        theirs.close()
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
"""A WSGI module. `/cpu/40` computes for 40 ms, `/sleep/40` sleeps, `/database/40` waits at a socket; loads for $SLOW_START s."""

Address = str | tuple[str, int]
"""A unix socket's path, or host and port."""


def free_port() -> int:
    """A free port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def get(address: Address, path: str) -> int:
    """The status of one request over its own connection. Raises OSError, HTTPException, ValueError for a wrong answer."""
    connection = http.client.HTTPConnection("127.0.0.1", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    connection.sock.settimeout(30)
    try:
        connection.sock.connect(address)
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        if body != b"ok":
            raise ValueError(f"answered {body!r}")
        return response.status
    finally:
        connection.close()


class Clients:
    """Closed-loop clients, each a thread that asks again as soon as it has its answer; `once`: they ask only once.

    They ask between entering and leaving the context. Leaving waits for outstanding answers.
    """

    def __init__(self, address: Address, count: int, path: str, *, once: bool = False) -> None:
        self.answers: list[int] = []
        """HTTP status of each answer."""
        self.failures: list[Exception] = []
        """The errors of requests without a right answer."""
        self._address, self._path, self._once = address, path, once
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.answers.append(get(self._address, self._path))
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failures.append(error)
            if self._once:
                return

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
