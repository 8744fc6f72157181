"""Counts the messages of RabbitMQ queues over one kept connection: as much of AMQP 0-9-1 as that needs, without ever blocking.

Each count is a passive Queue.Declare for each queue, whose answer has the messages that wait for a consumer. Those that consumers
have taken and not acknowledged are not among them, and AMQP does not tell their number.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Generator
from urllib.parse import unquote, urlsplit

from ....redaction import redacted
from .line import Line
from .waiting import Count, CountError

_SECOND = 1_000_000_000
TIMEOUT_NS = 3 * _SECOND
"""Time for a count, with the connection before the first one. Chosen: a broker refuses a password only after a second."""
MAX_ANSWER = 1 << 18
"""Most bytes that have not made a frame. Chosen: RabbitMQ's default for a frame is 131,072."""

# AMQP 0-9-1, the specification's class and method numbers
_START, _START_OK, _TUNE, _TUNE_OK, _OPEN, _OPEN_OK, _CLOSE = (10 << 16 | n for n in (10, 11, 30, 31, 40, 41, 50))
_CHANNEL_OPEN, _CHANNEL_OPEN_OK, _CHANNEL_CLOSE = (20 << 16 | n for n in (10, 11, 40))
_DECLARE, _DECLARE_OK = (50 << 16 | n for n in (10, 11))
_METHOD, _HEARTBEAT, _FRAME_END = 1, 8, b"\xce"
_PASSIVE = 1
_ABILITIES = b"\x0ccapabilitiesF\0\0\0\x1f\x1cauthentication_failure_closet\x01"
"""With this in its greeting, RabbitMQ says that a password is wrong, instead of hanging up."""

Method = tuple[int, bytes]
"""Number of class and method, and the arguments."""


class RabbitCounter:
    """Counts the queues of "amqp://[USER:PASSWORD@]HOST[:PORT]/VHOST/QUEUE,QUEUE", parts percent-encoded: "%2F" is the usual vhost.

    Raises ValueError with the cause for another URL. A host name is looked up at each connect, and the lookup may block.
    """

    def __init__(self, url: str) -> None:
        address, self._user, self._password, self._vhost, self._queues = _parts(url)
        self._url = url
        self._where = f"rabbitmq at {address[0]}:{address[1]}"
        self._line = Line(address)
        self._talk: Generator[None, Method, Count] | None = None  # under way
        self._data = b""
        self._deadline = 0

    def step(self, now: int) -> Count | None:
        """Connect, ask, or take the answer, as far as possible without blocking."""
        try:
            return self._step(now)
        except OSError as error:
            self.close()
            raise CountError(f"{self._where}: {error.strerror or error}; start it, or correct queue.rabbitmq") from None
        except CountError as error:
            self.close()
            raise CountError(f"{self._where}: {redacted(str(error), self._url)}; correct queue.rabbitmq") from None

    def close(self) -> None:
        """Hang up."""
        self._line.close()
        self._talk, self._data = None, b""

    def _step(self, now: int) -> Count | None:
        if self._talk is None:
            self._talk, self._deadline = self._conversation(), now + TIMEOUT_NS
            next(self._talk)
        if now >= self._deadline:
            raise TimeoutError(errno.ETIMEDOUT, f"no answer within {TIMEOUT_NS // _SECOND} s")
        while True:
            self._data += self._line.step(MAX_ANSWER)
            method = self._take()
            if method is None:
                return None
            if method[0] in (_CLOSE, _CHANNEL_CLOSE):
                text, _ = _short(method[1], 2)
                raise CountError(text.decode("utf-8", "replace"))
            try:
                self._talk.send(method)
            except StopIteration as end:
                self._talk = None
                return Count(*end.value)

    def _conversation(self) -> Generator[None, Method, Count]:
        """Say what is to be said; each `yield` takes the broker's next method."""
        if not self._line.is_open():
            self._line.open()
            self._line.say(b"AMQP\0\0\x09\x01")
            _expect((yield), _START)
            login = b"\0" + self._user + b"\0" + self._password
            self._say(0, _START_OK, _long(_ABILITIES) + b"\x05PLAIN" + _long(login) + b"\x05en_US")
            tune = _expect((yield), _TUNE)
            self._say(0, _TUNE_OK, tune[:6] + b"\0\0")  # no heartbeats
            self._say(0, _OPEN, _shorten(self._vhost) + b"\0\0")
            _expect((yield), _OPEN_OK)
            self._say(1, _CHANNEL_OPEN, b"\0")
            _expect((yield), _CHANNEL_OPEN_OK)
        for queue in self._queues:
            self._say(1, _DECLARE, b"\0\0" + _shorten(queue) + bytes([_PASSIVE]) + _long(b""))
        waiting = 0
        for _ in self._queues:
            answer = _expect((yield), _DECLARE_OK)
            waiting += struct.unpack_from(">I", answer, _short(answer, 0)[1])[0]
        return Count(waiting)

    def _say(self, channel: int, method: int, arguments: bytes) -> None:
        payload = struct.pack(">I", method) + arguments
        self._line.say(struct.pack(">BHI", _METHOD, channel, len(payload)) + payload + _FRAME_END)

    def _take(self) -> Method | None:
        """The next method; None: it has not arrived whole. Raises CountError for what is no AMQP."""
        while len(self._data) >= 8:
            kind, _, size = struct.unpack_from(">BHI", self._data)
            if self._data.startswith(b"AMQP") or kind not in (_METHOD, _HEARTBEAT) or size > MAX_ANSWER:
                raise CountError("it does not speak AMQP 0-9-1")
            if len(self._data) < size + 8:
                return None
            payload, self._data = self._data[7 : 7 + size], self._data[size + 8 :]
            if kind == _METHOD and size >= 4:
                return struct.unpack_from(">I", payload)[0], payload[4:]
        return None


def _expect(method: Method, wanted: int) -> bytes:
    """The arguments of a method. Raises CountError for another one."""
    if method[0] != wanted:
        raise CountError(f"it answered by method {method[0] >> 16}.{method[0] & 0xFFFF}, not {wanted >> 16}.{wanted & 0xFFFF}")
    return method[1]


def _short(data: bytes, at: int) -> tuple[bytes, int]:
    """A short string, and where the rest begins. Raises CountError if it is cut off."""
    end = at + 1 + (data[at] if at < len(data) else 0)
    if end + 4 > len(data):  # what follows each that is read here has at least as much
        raise CountError("its answer is cut off")
    return data[at + 1 : end], end


def _shorten(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def _long(text: bytes) -> bytes:
    """A long string, or an empty table."""
    return struct.pack(">I", len(text)) + text


def _parts(url: str) -> tuple[tuple[str, int], bytes, bytes, bytes, list[bytes]]:
    """(address, user, password, vhost, queues). Raises ValueError with a text that quotes nothing of the URL."""
    try:
        parts = urlsplit(url)
        port = parts.port or 5672
    except ValueError:  # whose text quotes what it took for the host or the port
        raise ValueError("its host or port cannot be read; write /, ?, #, @ and [ of a password percent-encoded") from None
    vhost, _, names = parts.path[1:].rpartition("/")
    queues = [unquote(name).encode() for name in names.split(",") if name]
    if parts.scheme != "amqp" or not vhost or "/" in vhost or not queues or parts.query or parts.fragment:
        raise ValueError(
            'give "amqp://USER:PASSWORD@HOST:PORT/VHOST/QUEUE"; the vhost "/" is written %2F; TLS (amqps) is not known'
        )
    if any(len(text) > 255 for text in (unquote(vhost).encode(), *queues)):
        raise ValueError("vhost and queues have at most 255 bytes")
    user, password = unquote(parts.username or "guest").encode(), unquote(parts.password or "guest").encode()
    return (parts.hostname or "127.0.0.1", port), user, password, unquote(vhost).encode(), queues
