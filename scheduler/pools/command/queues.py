"""Counts of waiting work for a command pool: files in a spool, the output of a command, the length of a Redis list.

Must not know pools. `probe` never blocks: a count is requested in one probe and taken in a later one.
"""

from __future__ import annotations

import errno
import fnmatch
import logging
import os
import select
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from ...config.sections import Queue
from ...hands.kernel import Clock
from ...hands.wire import RefusedError
from ...redaction import redacted
from ..sensing.acts import Child

log = logging.getLogger(__name__)

_SECOND = 1_000_000_000
MAX_ENTRIES = 20_000
"""Most directory entries read in one count. Chosen: they take about 10 ms. A larger spool counts as what was read of it."""
COMMAND_TIMEOUT_NS = 10 * _SECOND
REDIS_TIMEOUT_NS = _SECOND
"""Time for a command or a Redis server to answer. Chosen."""
MAX_BACK_OFF_NS = 30 * _SECOND
"""Longest wait between two tries to count. Chosen."""
STALE = 3
"""A count older than this many intervals, plus COMMAND_TIMEOUT_NS, is dropped. Chosen."""
_MAX_OUTPUT = 4096


class Counter(Protocol):
    """A way to count."""

    def step(self, now: int) -> int | None:
        """Ask, or take the answer; None: no answer yet. Returns at once. Raises CountError with cause and next step."""
        ...

    def close(self) -> None:
        """Give up what is under way."""
        ...


class CountError(Exception):
    """The queue cannot be counted now."""


class WaitingWork:
    """A counter with its timing: the last count, its age and, if there is none, the reason."""

    def __init__(self, name: str, counter: Counter, every: float, clock: Clock) -> None:
        self._name = name
        self._counter = counter
        self._every = int(every * _SECOND)
        self._clock = clock
        self._asked = False
        self._next = 0
        self._failures = 0
        self._count: int | None = None
        self._counted_at = 0
        self.problem = ""
        """Why there is no count; "" if there is one."""

    def probe(self) -> None:
        """Ask for a count if it is time, or take one that has arrived. Never blocks, never raises."""
        now = self._clock.monotonic()
        if not self._asked and now < self._next:
            return
        if not self._asked:
            self._asked, self._next = True, now + self._every
        try:
            count = self._counter.step(now)
        except CountError as error:
            self._asked = False
            self._failures += 1
            self._next = now + max(self._every, min(MAX_BACK_OFF_NS, _SECOND << min(self._failures - 1, 5)))
            if str(error) != self.problem:
                log.warning("pool %s: its queue cannot be counted: %s", self._name, error)
            self.problem, self._count = str(error), None
            return
        if count is not None:
            if self.problem:
                log.info("pool %s: its queue is counted again", self._name)
            self._asked, self._failures, self.problem = False, 0, ""
            self._count, self._counted_at = count, now

    def waiting(self) -> int | None:
        """The last count; None if there is none, or it is too old."""
        if self._count is None or self._clock.monotonic() - self._counted_at > STALE * self._every + COMMAND_TIMEOUT_NS:
            return None
        return self._count

    def close(self) -> None:
        """Stop counting."""
        self._counter.close()
        self._next, self._asked = 1 << 63, False


class FileCounter:
    """Files that match a glob: `*`, `?`, `[...]` in any part of the path. Neither directories nor, as in a shell, hidden files."""

    def __init__(self, pattern: str, limit: int = MAX_ENTRIES) -> None:
        self._parts = Path(pattern).parts
        self._limit = limit

    def step(self, now: int) -> int:  # noqa: ARG002 - a count of files needs no time
        """The number of files now, as far as `limit` directory entries show it."""
        budget = self._limit
        folders = [Path(self._parts[0])] if Path(*self._parts).is_absolute() else [Path()]
        parts = self._parts[1:] if Path(*self._parts).is_absolute() else self._parts
        for part in parts[:-1]:
            if not _has_wildcard(part):
                folders = [folder / part for folder in folders]
                continue
            matches: list[Path] = []
            for folder in folders:
                found, budget = _matching(folder, part, budget, want_files=False, missing_ok=True)
                matches += [folder / name for name in found]
            folders = sorted(matches)
        count = 0
        for folder in folders:
            found, budget = _matching(folder, parts[-1], budget, want_files=True, missing_ok=len(folders) > 1)
            count += len(found)
        return count

    def close(self) -> None:
        """Nothing is held."""


def _has_wildcard(part: str) -> bool:
    return any(sign in part for sign in "*?[")


def _matching(folder: Path, pattern: str, budget: int, *, want_files: bool, missing_ok: bool) -> tuple[list[str], int]:
    found: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if budget <= 0:
                    break
                budget -= 1
                if entry.name.startswith(".") and not pattern.startswith("."):
                    continue
                if fnmatch.fnmatchcase(entry.name, pattern) and (entry.is_file() if want_files else entry.is_dir()):
                    found.append(entry.name)
    except OSError as error:
        if not (missing_ok and error.errno in {errno.ENOENT, errno.ENOTDIR}):
            raise CountError(f"folder {folder}: {error.strerror}; create it, or correct queue.files") from None
    return found, budget


class CommandCounter:
    """The output of a command: one whole number on stdout. It runs beside the daemon, in a session of its own."""

    def __init__(self, command: list[str], start: Callable[[], Child]) -> None:
        self._command = command
        self._start = start
        self._process: Child | None = None
        self._output = b""
        self._deadline = 0

    def step(self, now: int) -> int | None:
        """Start the command, or take its answer when it has ended."""
        if self._process is None:
            try:
                self._process = self._start()
            except (OSError, RefusedError) as error:
                raise CountError(f"{self._command[0]} cannot be started: {error}; correct queue.command") from None
            os.set_blocking(self._process.pipes[0], False)
            self._output, self._deadline = b"", now + COMMAND_TIMEOUT_NS
        self._drain()
        status = self._process.poll()
        if status is None:
            if now < self._deadline and len(self._output) <= _MAX_OUTPUT:
                return None
            self.close()
            limit = f"{COMMAND_TIMEOUT_NS // _SECOND} s" if len(self._output) <= _MAX_OUTPUT else f"{_MAX_OUTPUT} bytes"
            raise CountError(f"{self._command[0]} did not answer within {limit} and was killed: make it print one number")
        self._drain()
        self._end()
        if status != 0:
            raise CountError(f"{self._command[0]} ended with status {status}: try it by hand, or correct queue.command")
        text = self._output.decode("ascii", "replace").strip()
        if not text.isdecimal() or len(text) > 18:
            raise CountError(f"{self._command[0]} printed {redacted(text)[:40]!r}: it must print one whole number")
        return int(text)

    def close(self) -> None:
        """Kill a command that still runs, with all that it started."""
        self._end()

    def _drain(self) -> None:
        assert self._process is not None
        while len(self._output) <= _MAX_OUTPUT:
            try:
                block = os.read(self._process.pipes[0], _MAX_OUTPUT)
            except BlockingIOError:
                return
            if not block:
                return
            self._output += block

    def _end(self) -> None:
        if self._process is not None:
            self._process.end()
            self._process = None


class RedisCounter:
    """The length of a Redis list: AUTH, SELECT and LLEN over one kept connection, without ever blocking.

    "redis://[[USER]:PASSWORD@]HOST[:PORT]/DB/KEY" or "unix://[[USER]:PASSWORD@]/PATH/DB/KEY", parts percent-encoded. A host name
    is looked up at each connect, and the lookup may block: give an address. Raises ValueError with the cause for another URL.
    """

    def __init__(self, url: str) -> None:
        self._address, self._greeting, self._query = _redis_parts(url)
        self._url = url
        self._where = url.split("@")[-1].removeprefix("redis://").removeprefix("unix://")  # without the password
        self._socket: socket.socket | None = None
        self._to_send = b""
        self._answers = b""
        self._expected = 0
        self._deadline: int | None = None

    def step(self, now: int) -> int | None:
        """Connect, ask, or take the answer, as far as possible without blocking."""
        try:
            return self._step(now)
        except OSError as error:
            self.close()
            reason = error.strerror or str(error)
            raise CountError(f"redis at {self._where}: {reason}; start it, or correct queue.redis_list") from None
        except CountError:
            self.close()
            raise

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._deadline = None

    def _step(self, now: int) -> int | None:
        if self._deadline is None:
            self._deadline = now + REDIS_TIMEOUT_NS
            self._ask()
        assert self._socket is not None
        if now >= self._deadline:
            raise TimeoutError(errno.ETIMEDOUT, f"no answer within {REDIS_TIMEOUT_NS // _SECOND} s")
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT if self._to_send else select.POLLIN)
        while poll.poll(0):
            if self._to_send:
                failure = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if failure:
                    raise OSError(failure, os.strerror(failure))
                self._to_send = self._to_send[self._socket.send(self._to_send) :]
                if not self._to_send:
                    poll.modify(self._socket, select.POLLIN)
                continue
            block = self._socket.recv(_MAX_OUTPUT)
            if not block:
                raise ConnectionResetError(errno.ECONNRESET, "it hung up")
            self._answers += block
            if len(self._answers) > _MAX_OUTPUT:
                raise CountError(f"redis at {self._where}: its answer makes no sense; correct queue.redis_list")
            count = self._take()
            if count is not None:
                self._deadline = None
                return count
        return None

    def _ask(self) -> None:
        self._answers, commands = b"", [self._query]
        if self._socket is None:
            if isinstance(self._address, str):
                family, target = socket.AF_UNIX, self._address
                self._socket = socket.socket(family, socket.SOCK_STREAM)
                self._socket.setblocking(False)
                failure = self._socket.connect_ex(target)
            else:
                family, _, _, _, found = socket.getaddrinfo(*self._address, type=socket.SOCK_STREAM)[0]
                self._socket = socket.socket(family, socket.SOCK_STREAM)
                self._socket.setblocking(False)
                failure = self._socket.connect_ex(found)
            if failure not in {0, errno.EINPROGRESS}:
                raise OSError(failure, os.strerror(failure))
            commands = [*self._greeting, self._query]
        self._to_send = b"".join(map(_encode, commands))
        self._expected = len(commands)

    def _take(self) -> int | None:
        """The count once all answers have arrived. Raises CountError for an answer that is an error."""
        lines = self._answers.split(b"\r\n")
        if len(lines) <= self._expected:  # the last piece follows the last line end
            return None
        for line in lines[: self._expected]:
            if line.startswith(b"-"):
                text = redacted(line[1:].decode("utf-8", "replace"), self._url)  # an unknown command is quoted with its arguments
                raise CountError(f"redis at {self._where}: {text!r}; correct queue.redis_list")
        last = lines[self._expected - 1]
        if not last.startswith(b":") or not last[1:].isdigit():
            text = redacted(last.decode("utf-8", "replace"), self._url)[:40]
            raise CountError(f"redis at {self._where}: it answered {text!r} to LLEN; correct queue.redis_list")
        return int(last[1:])


def _encode(words: list[bytes]) -> bytes:
    """A command in RESP, the protocol of Redis: an array of bulk strings."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def _redis_parts(url: str) -> tuple[str | tuple[str, int], list[list[bytes]], list[bytes]]:
    """(address, AUTH and SELECT, LLEN) of a URL. Raises ValueError with a text that quotes nothing of it."""
    try:
        parts = urlsplit(url)
        port = parts.port or 6379
    except ValueError:  # whose text quotes what it took for the host or the port
        raise ValueError(
            "its host or port cannot be read; write /, ?, #, @ and [ of a password as %2F, %3F, %23, %40, %5B"
        ) from None
    path, _, key = parts.path.rpartition("/")
    path, _, database = path.rpartition("/")
    if parts.scheme not in {"redis", "unix"} or not key or not database.isdecimal():
        raise ValueError('give "redis://HOST:PORT/DB/KEY" or "unix:///PATH/DB/KEY", with DB a number')
    greeting = []
    if parts.password is not None:
        user = [unquote(parts.username).encode()] if parts.username else []
        greeting.append([b"AUTH", *user, unquote(parts.password).encode()])
    greeting.append([b"SELECT", database.encode()])
    query = [b"LLEN", unquote(key).encode()]
    if parts.scheme == "unix":
        if not path or parts.hostname:
            raise ValueError('a unix socket is given as "unix:///PATH/DB/KEY"')
        return unquote(path), greeting, query
    if path:
        raise ValueError("a slash in the key must be written %2F")
    return (parts.hostname or "127.0.0.1", port), greeting, query


def counter(queue: Queue, start: Callable[[], Child]) -> Counter:
    """The counter for a `[pools.NAME.queue]` section; `start` runs its command. Raises ValueError for a bad Redis URL."""
    if queue.files:
        return FileCounter(queue.files)
    if queue.command:
        return CommandCounter(queue.command, start)
    return RedisCounter(queue.redis_list)
