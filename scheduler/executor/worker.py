"""The worker of an executor: takes tasks from its channel, runs them one after the other, sends the results.

Runs in a process of the user's program and imports only the standard library. Must not know pools or the board.

The channel is a pair of SOCK_SEQPACKET sockets. The kernel keeps packets whole: the side that receives a packet, worker or owner,
has all of that task and the other side nothing. That is how the owner takes back a task that the worker has not begun. A payload
too large for a packet goes into a memfd, whose descriptor comes with the packet: neither side ever waits for the other to read.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import socket
import struct
import time
import traceback
from collections.abc import Callable
from concurrent.futures import _base
from concurrent.futures.process import _ExceptionWithTraceback
from multiprocessing.reduction import ForkingPickler
from typing import Any

PACKET = 32 << 10
"""Limit of a packet in bytes. Chosen: a socket buffer holds several (208 KiB by default, net.core.wmem_default)."""

TASK = struct.Struct("<Q")
"""Head of a packet to the worker: the task's number. The pickled (function, args, kwargs) follows."""
ANSWER = struct.Struct("<BQQQ")
"""Head of a packet to the owner: kind, number, begin and end of the run in monotonic ns. The payload follows."""
_ROOM = socket.CMSG_SPACE(struct.calcsize("i"))

READY, VALUE, ERROR, UNREADABLE, FAILED = range(5)
"""Kinds of answers: the worker is up; a pickled result; a pickled exception; a task that cannot be unpickled, as text; the
initializer failed, as text."""

Body = memoryview | mmap.mmap
"""The payload after the head of a packet, or in the memfd that came with it."""


class Pickled:
    """A result that its task has pickled in a way of its own."""

    __slots__ = ("payload",)

    def __init__(self, payload: bytes) -> None:
        self.payload = payload


def dumps(value: Any) -> bytes:
    """Pickle the value, with multiprocessing's own ways of pickling sockets, connections and the like."""
    buffer = io.BytesIO()
    ForkingPickler(buffer, pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()


def send(channel: socket.socket, head: bytes, payload: bytes) -> None:
    """Send one packet. After an OSError nothing was sent."""
    if len(head) + len(payload) <= PACKET:
        channel.send(head + payload)
        return
    descriptor = os.memfd_create("nicety-task", os.MFD_CLOEXEC)
    try:
        view = memoryview(payload)
        while view:
            view = view[os.write(descriptor, view) :]
        socket.send_fds(channel, [head], [descriptor])
    finally:
        os.close(descriptor)


def receive(channel: socket.socket, head: struct.Struct, flags: int = 0) -> tuple[tuple[int, ...], Body] | None:
    """Head and body of a packet; None: the other side hung up. Raises BlockingIOError if none is there and it must not wait."""
    packet, extra, _, _ = channel.recvmsg(PACKET, _ROOM, flags | socket.MSG_CMSG_CLOEXEC)
    if not packet:
        return None
    if not extra:
        return head.unpack_from(packet), memoryview(packet)[head.size :]
    (descriptor,) = struct.unpack("i", extra[0][2])
    try:
        return head.unpack(packet), mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)


def serve(channel: socket.socket, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
    """Run tasks until the owner hangs up or is gone."""
    channel.settimeout(None)  # the program may have set a default timeout for all sockets
    try:
        if initializer is not None:
            try:
                initializer(*initargs)
            except BaseException:
                _base.LOGGER.critical("Exception in initializer:", exc_info=True)
                send(channel, ANSWER.pack(FAILED, 0, 0, 0), _traceback())
                return
        send(channel, ANSWER.pack(READY, 0, 0, 0), b"")
        while _serve_one(channel):
            pass
    except (ConnectionError, KeyboardInterrupt):
        return  # the owner is gone, or Ctrl-C between two tasks: end without a traceback on the terminal


def _serve_one(channel: socket.socket) -> bool:
    """Receive one task and run it; False if no more will come."""
    packet = receive(channel, TASK)
    if packet is None:
        return False
    (number,), body = packet
    began = time.monotonic_ns()
    try:
        function, args, kwargs = pickle.loads(body)  # noqa: S301 - from our owner
    except BaseException:
        send(channel, ANSWER.pack(UNREADABLE, number, began, time.monotonic_ns()), _traceback())
        return True
    del packet, body
    kind = VALUE
    try:
        answer = function(*args, **kwargs)
    except BaseException as error:
        kind, answer = ERROR, with_traceback(error)
    ended = time.monotonic_ns()
    try:
        payload = answer.payload if isinstance(answer, Pickled) else dumps(answer)
        send(channel, ANSWER.pack(kind, number, began, ended), payload)
    except ConnectionError:
        raise
    except BaseException as error:
        send(channel, ANSWER.pack(ERROR, number, began, ended), dumps(with_traceback(error)))
    return True


def with_traceback(error: BaseException) -> _ExceptionWithTraceback:
    """Wrap the error so that the other side rebuilds it, with the traceback as text in its cause."""
    assert error.__traceback__ is not None
    return _ExceptionWithTraceback(error, error.__traceback__)


def _traceback() -> bytes:
    """The traceback of the exception being handled, cut to fit into a packet."""
    return traceback.format_exc().encode("utf-8", "replace")[-PACKET // 2 :]
