"""Serves the metrics over HTTP, at a TCP address or a unix socket. Knows no metric.

One request a connection, few at once, and each in a bounded time: it is for a Prometheus beside it, not for strangers.
"""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from .collector import Answer
from .errors import ExportError

MOST = 8
"""Requests that are answered at once (chosen): two servers of Prometheus and some people."""

TIMEOUT = 10.0
"""Seconds for which a connection may be silent (Prometheus' default scrape_timeout)."""

PAGE = b"""<!doctype html><html lang="en"><title>nicety exporter</title>
<p><a href="/metrics">Metrics</a></p></html>
"""


class Server(ThreadingHTTPServer):
    """The server. `serve_forever` until `close`."""

    daemon_threads = True
    request_queue_size = 16

    def __init__(self, listen: str, answer: Callable[[str], Answer]) -> None:
        """`listen`: "HOST:PORT" or "unix:/PATH". `answer`: gives the metrics for an Accept header. Raises ExportError."""
        self.answer = answer
        self._free = threading.BoundedSemaphore(MOST)
        self._path = Path(listen.removeprefix("unix:")) if listen.startswith("unix:") else None
        address: Any
        if self._path is not None:
            self.address_family, address = socket.AF_UNIX, str(self._path)
            self.names: frozenset[str] | None = None
        else:
            self.address_family, address, self.names = _parsed(listen)
        try:
            if self._path is not None:
                _remove_stale(self._path)
            super().__init__(address, _Handler)
        except OSError as error:
            raise ExportError(f"cannot listen at {listen}: {error.strerror}; give another one with --listen") from None

    def server_bind(self) -> None:
        """Bind. A unix socket is for its user and group."""
        if self._path is None:
            super().server_bind()
            return
        before = os.umask(0o117)
        try:
            self.socket.bind(self.server_address)
        finally:
            os.umask(before)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, unless too many are being answered."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """As above."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that goes away in the middle of an answer is no fault."""

    def close(self) -> None:
        """Stop listening, and remove a unix socket."""
        self.server_close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _parsed(listen: str) -> tuple[socket.AddressFamily, tuple[str, int], frozenset[str] | None]:
    """(family, address, names by which a reader may call it). The last is None if others than this machine may read.

    >>> _parsed("[::1]:29753")[1]
    ('::1', 29753)
    """
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    try:
        address = ip_address("127.0.0.1" if host == "localhost" else host)
        number = int(port)
        if not 0 <= number < 1 << 16:
            raise ValueError
    except ValueError:
        raise ExportError(f'"{listen}" is no address; write e.g. 127.0.0.1:29753, [::1]:29753 or unix:/run/nicety.sock') from None
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    # A page in a browser on this machine must not read the metrics by a name of its own that leads to 127.0.0.1.
    return family, (str(address), number), frozenset({"localhost", str(address)}) if address.is_loopback else None


def _remove_stale(path: Path) -> None:
    """Remove the socket of an exporter that was killed. Another file, or a socket at which one listens, stays, and bind fails."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as asking:
        try:
            asking.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    server_version = "nicety"
    sys_version = ""
    timeout = TIMEOUT

    def do_GET(self) -> None:
        """Answer with the metrics, or with a page that leads there."""
        self._answer(send_body=True)

    def do_HEAD(self) -> None:
        """As GET, without the text."""
        self._answer(send_body=False)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
        """Requests are not logged."""

    def _answer(self, send_body: bool) -> None:
        path = self.path.partition("?")[0]
        names = self.server.names
        host = self.headers.get("Host", "")
        if names is not None and host and _host(host) not in names:
            self.send_error(403, "ask for this machine by its address")
            return
        if path == "/metrics":
            body, content_type = self.server.answer(self.headers.get("Accept", ""))
        elif path == "/":
            body, content_type = PAGE, "text/html; charset=utf-8"
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if send_body:
            self.wfile.write(body)


def _host(header: str) -> str:
    """The host of a Host header, without port.

    >>> _host("127.0.0.1:29753"), _host("[::1]:29753"), _host("localhost")
    ('127.0.0.1', '::1', 'localhost')
    """
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower()
