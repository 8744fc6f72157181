"""What brain and hands send each other: frames of JSON over a stream socket, with descriptors if a reply has some.

A frame is a length of four bytes and a JSON value. A request is [operation, arguments]; a reply is ["ok", result],
["error", errno, text] or ["refused", text]. The brain asks, the hands answer, one at a time and in order. Knows sockets. Must not
know any operation.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
from array import array
from collections.abc import Callable, Mapping, Sequence

VERSION = 2
"""Version of the protocol, in the first request of a brain. The hands serve no other."""

LONGEST, LONGEST_REQUEST = 1 << 24, 1 << 20
"""Most bytes of a reply and of a request (chosen): the changes of 10,000 threads have 4 MB, the orders of a tick some 100 kB. A
longer frame ends the connection."""

MOST_DESCRIPTORS = 16
"""Most descriptors with a reply (chosen). With a request there are none: closing a descriptor of somebody else may block."""

_MOST_AT_ONCE = 253  # SCM_MAX_FD, include/net/scm.h: with less room the kernel itself would close the rest

Result = tuple[object, Sequence[int]]
"""What an operation returned: a value of JSON, and descriptors."""

Operation = Callable[[Sequence[object]], Result]
"""An operation of the hands. The descriptors that it returns are closed once they are sent. Raises OSError for what the kernel
refused, and RefusedError for what the hands do not do."""

_LENGTH = 4


class RefusedError(Exception):
    """The hands do not do this: a malformed request, or one beyond their limits."""


class GoneError(Exception):
    """The other side has ended, or does not speak this protocol."""


class Channel:
    """One end of the connection. Not for several threads. `longest`: most bytes of a frame that is received; `descriptors`: most
    descriptors with one."""

    def __init__(self, sock: socket.socket, longest: int = LONGEST, descriptors: int = MOST_DESCRIPTORS) -> None:
        self._socket = sock
        self._longest = longest
        self._most = descriptors
        self._rest = b""
        self._descriptors: list[int] = []
        self._peer = -1
        self._poll = select.poll()

    def fileno(self) -> int:
        """For poll(2): readable when a frame or the end has come."""
        return self._socket.fileno()

    def watch(self, peer: int) -> None:
        """End with this process too: another one may have its end of the socket. `peer`: its pidfd, closed with this end."""
        self._peer = peer
        self._poll.register(peer, select.POLLIN)

    def check(self) -> None:
        """Raises GoneError if the other side has ended."""
        if self._ready(select.POLLRDHUP, 0):
            raise GoneError("the other side has ended")

    def send(self, message: object, descriptors: Sequence[int] = ()) -> None:
        """Send a frame. Raises GoneError."""
        text = json.dumps(message, separators=(",", ":")).encode()
        data = memoryview(len(text).to_bytes(_LENGTH, "big") + text)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
        while data:
            self._ready(select.POLLOUT)
            try:
                data = data[self._socket.sendmsg([data], ancillary, socket.MSG_DONTWAIT) :]
                ancillary = []
            except BlockingIOError:
                pass
            except OSError as error:
                raise GoneError(f"the other side cannot be reached: {error.strerror}") from None

    def receive(self) -> tuple[object, list[int]]:
        """The next frame and its descriptors, which are the caller's to close. Raises GoneError."""
        length = int.from_bytes(self._take(_LENGTH), "big")
        if length > self._longest:
            raise GoneError(f"a frame of {length} bytes is too long")
        text = self._take(length)
        descriptors, self._descriptors = self._descriptors, []
        try:
            return json.loads(text), descriptors
        except (ValueError, RecursionError):
            close(descriptors)
            raise GoneError("a frame is not JSON") from None

    def close(self) -> None:
        """Close this end. Idempotent."""
        self._socket.close()
        close([*self._descriptors, *([self._peer] if self._peer >= 0 else [])])
        self._descriptors, self._peer = [], -1

    def _take(self, count: int) -> bytes:
        while len(self._rest) < count:
            self._ready(select.POLLIN)
            try:
                more, descriptors, flags, _ = socket.recv_fds(self._socket, 1 << 16, _MOST_AT_ONCE, socket.MSG_CMSG_CLOEXEC)
            except OSError as error:
                raise GoneError(f"the other side cannot be reached: {error.strerror}") from None
            self._descriptors += descriptors
            if not more or flags & socket.MSG_CTRUNC or len(self._descriptors) > self._most:
                raise GoneError("the other side has ended" if not more else "too many descriptors")
            self._rest += more
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    def _ready(self, event: int, patience: int | None = None) -> bool:
        """Wait until the socket is ready for this, at most `patience` ms. Raises GoneError if this end is closed, or the watched
        process has ended."""
        if self._socket.fileno() < 0:
            raise GoneError("this end is closed")
        self._poll.register(self._socket, event)
        ready = dict(self._poll.poll(patience))
        if self._peer in ready:
            raise GoneError("the other side has ended")
        return bool(ready)


class Asking:
    """The brain's side."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    def ask(self, operation: str, *arguments: object) -> tuple[object, list[int]]:
        """The result of an operation, and descriptors that are the caller's to close. Raises OSError as the operation did,
        RefusedError and GoneError."""
        self._channel.send([operation, list(arguments)])
        reply, descriptors = self._channel.receive()
        match reply:
            case ["ok", result]:
                return result, descriptors
            case ["refused", str() as text]:
                raise RefusedError(text)
            case ["error", int() as number, str() as text]:
                raise OSError(number, text)
            case _:
                close(descriptors)
                raise GoneError("the hands gave a reply that is none")


def answer(channel: Channel, operations: Mapping[str, Operation]) -> None:
    """The hands' side: wait for one request, carry it out and reply. Raises GoneError; everything else is a reply."""
    request, sent = channel.receive()
    close(sent)  # the hands want none
    try:
        match request:
            case [str() as name, list() as arguments] if name in operations:
                result, descriptors = operations[name](arguments)
            case _:
                raise RefusedError("no such operation")
    except RefusedError as refusal:
        channel.send(["refused", str(refusal)])
    except OSError as error:
        channel.send(["error", error.errno or errno.EIO, error.strerror or str(error)])
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        channel.send(["refused", f"not a request: {error}"])
    else:
        try:
            channel.send(["ok", result], descriptors)
        finally:
            close(descriptors)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def close(descriptors: Sequence[int]) -> None:
    """Close these. An error of one is its sender's matter."""
    for descriptor in descriptors:
        try:
            os.close(descriptor)
        except OSError:
            pass
