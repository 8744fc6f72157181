"""Asks a Redis server over one kept connection, without ever blocking. Must not know what keys mean: `frameworks.py` does.

A conversation is a generator: it yields commands, is sent their replies, and returns the count.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from ....redaction import redacted
from .line import Line
from .waiting import Count, CountError

_SECOND = 1_000_000_000
TIMEOUT_NS = _SECOND
"""Time for a Redis server to answer one count. Chosen."""
MAX_ANSWER = 1 << 20
"""Most bytes of the replies to one count. Chosen: the names of the 1,000 jobs that are asked for have 40 kB."""
_DEPTH = 8  # of arrays in arrays; XINFO has 2

Command = list[bytes]


class Complaint(NamedTuple):
    """A reply that is an error."""

    text: str


Reply = int | bytes | Complaint | list["Reply"] | None
Conversation = Generator[list[Command], list[Reply], Count]


class Place(NamedTuple):
    """What a URL says: where the server is, how to greet it, and what to ask about."""

    address: str | tuple[str, int]
    greeting: list[Command]  # AUTH and SELECT
    key: str  # percent-encoded
    options: dict[str, str]

    def key_bytes(self) -> bytes:
        """The key as Redis has it."""
        return unquote(self.key).encode()

    def names(self) -> list[str]:
        """The names of queues in the key, which commas part."""
        return [unquote(name) for name in self.key.split(",") if name]


class RedisCounter:
    """Counts by `conversation`, which is begun anew for each count with the time since 1970 in ns.

    `setting` is the key of the configuration that has `url`, for messages. `wall` is that time.
    """

    def __init__(
        self, url: str, setting: str, place: Place, conversation: Callable[[int], Conversation], wall: Callable[[], int]
    ) -> None:
        self._url = url
        self._setting = setting
        self._where = url.split("@")[-1].removeprefix("redis://").removeprefix("unix://")  # without the password
        self._greeting = place.greeting
        self._conversation = conversation
        self._wall = wall
        self._line = Line(place.address)
        self._talk: Conversation | None = None  # under way
        self._deadline = 0
        self._answers = b""
        self._greetings = 0  # replies to the greeting that are still to come
        self._expected = 0  # replies that are still to come, with those

    def step(self, now: int) -> Count | None:
        """Connect, ask, or take the answer, as far as possible without blocking."""
        try:
            return self._step(now)
        except OSError as error:
            self.close()
            reason = error.strerror or str(error)
            raise CountError(f"redis at {self._where}: {reason}; start it, or correct queue.{self._setting}") from None
        except CountError as error:
            self.close()
            raise CountError(f"redis at {self._where}: {error}; correct queue.{self._setting}") from None

    def close(self) -> None:
        """Hang up."""
        self._line.close()
        self._talk = None

    def _step(self, now: int) -> Count | None:
        if self._talk is None:
            self._talk, self._deadline = self._conversation(self._wall()), now + TIMEOUT_NS
            self._answers, self._greetings = b"", 0
            if not self._line.is_open():
                self._line.open()
                self._greetings = len(self._greeting)
            self._ask(next(self._talk))
        if now >= self._deadline:
            raise TimeoutError(errno.ETIMEDOUT, f"no answer within {TIMEOUT_NS // _SECOND} s")
        while True:
            self._answers += self._line.step(MAX_ANSWER)
            if len(self._answers) > MAX_ANSWER:
                raise CountError(f"its answer is longer than {MAX_ANSWER} bytes")
            replies = self._take()
            if replies is None:
                return None
            try:
                self._ask(self._talk.send(replies))
            except StopIteration as end:
                self._talk = None
                return Count(*end.value)

    def _ask(self, commands: list[Command]) -> None:
        greeting = self._greeting if self._greetings else []
        self._line.say(b"".join(map(encoded, [*greeting, *commands])))
        self._expected = len(greeting) + len(commands)

    def _take(self) -> list[Reply] | None:
        """The replies to what was asked, once all have arrived. Raises CountError if one is an error."""
        replies, at = list[Reply](), 0
        while len(replies) < self._expected:
            found = decoded(self._answers, at)
            if found is None:
                return None
            reply, at = found
            if isinstance(reply, Complaint):
                raise CountError(repr(redacted(reply.text, self._url)))  # an unknown command is quoted with its arguments
            replies.append(reply)
        self._answers = self._answers[at:]
        greetings, self._greetings = self._greetings, 0
        return replies[greetings:]


def number(reply: Reply, what: str) -> int:
    """A reply that is a number. Raises CountError."""
    if isinstance(reply, int) and reply >= 0:
        return reply
    raise CountError(f"it answered {str(reply)[:40]!r} to {what}")


def encoded(words: Sequence[bytes]) -> bytes:
    """A command in RESP, the protocol of Redis: an array of bulk strings."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def decoded(data: bytes, at: int, depth: int = 0) -> tuple[Reply, int] | None:
    """The reply that begins at `at`, and where the next one begins; None: it has not arrived whole. Raises CountError.

    >>> decoded(b"*2\\r\\n:7\\r\\n$2\\r\\nab\\r\\n", 0)
    ([7, b'ab'], 16)
    """
    end = data.find(b"\r\n", at)
    if end < 0:
        return None
    kind, text, at = data[at : at + 1], data[at + 1 : end], end + 2
    if kind == b"+":
        return text, at
    if kind == b"-":
        return Complaint(text.decode("utf-8", "replace")), at
    if kind not in (b":", b"$", b"*") or not text.removeprefix(b"-").isdigit() or len(text) > 18 or depth > _DEPTH:
        raise CountError(f"its answer {redacted((kind + text).decode('utf-8', 'replace'))[:40]!r} makes no sense")
    size = int(text)
    if kind == b":":
        return size, at
    if size < 0:
        return None, at
    if kind == b"$":
        return (data[at : at + size], at + size + 2) if len(data) >= at + size + 2 else None
    items = list[Reply]()
    for _ in range(size):
        found = decoded(data, at, depth + 1)
        if found is None:
            return None
        items.append(found[0])
        at = found[1]
    return items, at


def place(url: str, options: Sequence[str] = ()) -> Place:
    """What a URL says: "redis://[[USER]:PASSWORD@]HOST[:PORT]/DB/KEY" or "unix://[[USER]:PASSWORD@]/PATH/DB/KEY", parts
    percent-encoded, with "?NAME=VALUE" for those of `options`. Raises ValueError with a text that quotes nothing of it."""
    try:
        parts = urlsplit(url)
        port = parts.port or 6379
    except ValueError:  # whose text quotes what it took for the host or the port
        raise ValueError(
            "its host or port cannot be read; write /, ?, #, @ and [ of a password as %2F, %3F, %23, %40, %5B"
        ) from None
    path, _, key = parts.path.rpartition("/")
    path, _, database = path.rpartition("/")
    if parts.scheme not in {"redis", "unix"} or not key.strip(",") or not database.isdecimal():
        raise ValueError('give "redis://HOST:PORT/DB/KEY" or "unix:///PATH/DB/KEY", with DB a number')
    greeting = []
    if parts.password is not None:
        user = [unquote(parts.username).encode()] if parts.username else []
        greeting.append([b"AUTH", *user, unquote(parts.password).encode()])
    greeting.append([b"SELECT", database.encode()])
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.fragment or (parts.query and not given) or not given.keys() <= set(options):
        known = f"after ? come {', '.join(options)}" if options else "nothing follows the key"
        raise ValueError(f"{known}; write ? and # of the key as %3F and %23")
    if parts.scheme == "unix":
        if not path or parts.hostname:
            raise ValueError('a unix socket is given as "unix:///PATH/DB/KEY"')
        return Place(unquote(path), greeting, key, given)
    if path:
        raise ValueError("a slash in the key must be written %2F")
    return Place((parts.hostname or "127.0.0.1", port), greeting, key, given)
