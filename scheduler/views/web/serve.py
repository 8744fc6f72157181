"""The process of the page: where it listens, and how it ends. Runs until a signal."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import uvicorn

from ...hands.safe_files import StoreError
from .guard import Guard
from .live import Live

PORT = 8787
"""Where the page is by default (chosen: free on most machines, and easy to type)."""

MOST_CONNECTIONS = 256
"""At once (chosen: the pages of `live.MOST_PAGES`, and what they ask)."""

LONGEST_HEAD = 16384
"""Bytes of a request's head (chosen)."""


class ListenError(Exception):
    """The page cannot be served there. The message says the cause and what to do."""


def loopback(address: str) -> str:
    """An address if only this machine reaches it. Raises ListenError.

    >>> loopback("localhost")
    '127.0.0.1'
    """
    plain = "127.0.0.1" if address == "localhost" else address
    try:
        local = ipaddress.ip_address(plain).is_loopback
    except ValueError:
        raise ListenError(f'"{address}" is not an address of this machine; write 127.0.0.1 or ::1') from None
    if not local:
        raise ListenError(
            f"{address} can be reached from other machines, and the page shows what runs here; listen on 127.0.0.1 and use "
            "`ssh -L 8787:127.0.0.1:8787 HOST`, or a reverse proxy that asks for a password before --socket"
        )
    return plain


def listen(address: str, port: int) -> socket.socket:
    """A socket for browsers on this machine. Raises ListenError."""
    plain = loopback(address)
    listening = socket.socket(socket.AF_INET6 if ":" in plain else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((plain, port))
    except OSError as error:
        listening.close()
        raise ListenError(f"cannot listen on {plain}:{port}: {error.strerror}; choose another with --port") from None
    listening.listen(128)
    return listening


def listen_on(path: Path) -> socket.socket:
    """A unix socket that only this user may connect to. One that a dead server left is replaced. Raises ListenError."""
    listening = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        _clear(path)
        listening.bind(str(path))
    except (OSError, ListenError) as error:
        listening.close()
        if isinstance(error, ListenError):
            raise
        raise ListenError(f"cannot listen on {path}: {error.strerror or error}; choose another with --socket") from None
    finally:
        os.umask(before)
    listening.listen(128)
    return listening


def _clear(path: Path) -> None:
    """Remove a socket that nobody listens on."""
    if not path.is_socket():
        return  # what else is there makes `bind` fail
    with socket.socket(socket.AF_UNIX) as asking:
        try:
            asking.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise ListenError(f"a page is served on {path} already; use it, or choose another with --socket")


def address_of(listening: socket.socket, token: str) -> str:
    """What to open in a browser."""
    name = listening.getsockname()
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"http://{host}:{name[1]}/?token={token}"


class _Server(uvicorn.Server):
    """Ends the pages first: uvicorn waits for open connections."""

    def __init__(self, config: uvicorn.Config, live: Live) -> None:
        super().__init__(config)
        self._live = live

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal to end."""
        asyncio.get_running_loop().call_soon_threadsafe(self._live.close)
        super().handle_exit(sig, frame)


def serve(app: Guard, live: Live, listening: Sequence[socket.socket]) -> None:
    """Serve the page on these sockets until SIGTERM or SIGINT."""
    log = logging.getLogger("uvicorn.error")
    log.setLevel(logging.WARNING)
    log.addFilter(lambda record: "without completing response" not in record.getMessage())  # pages that were dropped
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        loop="asyncio",
        log_config=None,
        access_log=False,  # the first address has the token
        server_header=False,
        date_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
        h11_max_incomplete_event_size=LONGEST_HEAD,
        timeout_graceful_shutdown=2,
    )
    try:
        _Server(config, live).run(list(listening))
    except (OSError, RuntimeError) as error:
        raise StoreError(f"the page cannot be served: {error}; try another place with --port or --socket") from None
