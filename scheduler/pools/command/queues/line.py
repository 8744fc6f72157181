"""A kept connection to a server that counts: nothing here waits for it. Must not know what is said over it."""

from __future__ import annotations

import errno
import os
import select
import socket

_BLOCK = 1 << 16


class Line:
    """One connection at a time to a port or the path of a unix socket.

    A host name is looked up at each connect, and the lookup may block: give an address.
    """

    def __init__(self, address: str | tuple[str, int]) -> None:
        self._address = address
        self._socket: socket.socket | None = None
        self._to_send = b""

    def is_open(self) -> bool:
        """Whether it is connected, or about to be."""
        return self._socket is not None

    def open(self) -> None:
        """Begin to connect. Raises OSError."""
        family: int = socket.AF_UNIX
        target: object = self._address
        if not isinstance(self._address, str):
            family, _, _, _, target = socket.getaddrinfo(*self._address, type=socket.SOCK_STREAM)[0]
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        failure = self._socket.connect_ex(target)  # type: ignore[arg-type]
        if failure not in {0, errno.EINPROGRESS}:
            raise OSError(failure, os.strerror(failure))

    def say(self, data: bytes) -> None:
        """Send this as soon as it can be sent, by `step`."""
        self._to_send += data

    def step(self, most: int) -> bytes:
        """Send what can be sent; return what has arrived, up to about `most` bytes. Raises OSError, also when the other end has
        hung up."""
        assert self._socket is not None
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT if self._to_send else select.POLLIN)
        found = b""
        while len(found) <= most and poll.poll(0):
            if self._to_send:
                failure = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if failure:
                    raise OSError(failure, os.strerror(failure))
                self._to_send = self._to_send[self._socket.send(self._to_send) :]
                if not self._to_send:
                    poll.modify(self._socket, select.POLLIN)
                continue
            block = self._socket.recv(_BLOCK)
            if not block:
                raise ConnectionResetError(errno.ECONNRESET, "it hung up")
            found += block
        return found

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._to_send = b""
