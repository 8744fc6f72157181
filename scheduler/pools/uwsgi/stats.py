"""A uWSGI's own report: its stats socket, read without ever blocking.

Must not know sizes, processes or policies. uWSGI writes one JSON object to each client that connects, and hangs up
(core/master_utils.c, uwsgi_master_generate_stats). The master itself writes it, and an answer that nobody reads would block it. So
the answer is read at the next probe, and a silent socket is asked less and less often.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from typing import Annotated

import msgspec
from msgspec import Meta

from ...hands.pools import address
from ...hands.wire import RefusedError
from ..sensing.acts import Acts

_SECOND = 1_000_000_000
MAX_BYTES = 8 << 20
"""Most bytes of an answer. Chosen: it has about 1 kB per worker, and a few kB more for the variables of each running request."""
TIMEOUT_NS = 2 * _SECOND
"""The master answers within milliseconds, but sleeps for a second after it has killed a worker (core/master.c)."""
EVERY_NS = _SECOND // 20
"""Shortest time between two questions, however often it is probed: each answer is work for the master. Chosen."""
MAX_BACK_OFF_NS = 30 * _SECOND
"""Longest wait between two questions to a socket that does not answer. Chosen."""

Natural = Annotated[int, Meta(ge=0)]


class Core(msgspec.Struct, frozen=True):
    """A thread (or coroutine) of a worker that serves one request at a time."""

    in_request: Natural


class WorkerPlace(msgspec.Struct, frozen=True):
    """A place for a worker process; their number is uWSGI's `processes`."""

    id: Natural  # its number, from 1, after its first start
    pid: Natural  # 0: no process
    status: str  # "cheap" (not wanted; with a pid: draining), "pause", "idle", "busy" or "sigN" (runs a signal's handler)
    respawn_count: Natural
    accepting: Natural  # 1: its application is loaded and it waits for requests
    cores: list[Core] = msgspec.field(default_factory=list)  # empty with uWSGI's `stats-no-cores`

    @property
    def wanted(self) -> bool:
        """Whether the master wants a process here: it is running, starting, or about to be started again."""
        return self.status != "cheap"

    @property
    def busy(self) -> float:
        """Share of its threads that serve a request, 0..1."""
        if self.cores:
            return sum(core.in_request > 0 for core in self.cores) / len(self.cores)
        return float(self.status == "busy" or self.status.startswith("sig"))


class Stats(msgspec.Struct, frozen=True):
    """The part of an answer that a pool needs."""

    version: str
    pid: Annotated[int, Meta(ge=1)]  # of the master
    workers: Annotated[list[WorkerPlace], Meta(min_length=1, max_length=10_000)]  # by number


class StatsError(Exception):
    """There is no answer, or no valid one: cause and next step."""


_DECODER = msgspec.json.Decoder(Stats)


def parse(raw: bytes) -> Stats:
    """Parse a whole answer. Raises StatsError with the cause.

    uWSGI does not escape everything that it puts into strings, so bytes that are not UTF-8 are accepted.
    """
    if not raw:
        raise StatsError("hangs up without an answer: it must be uWSGI's `stats` socket, without `stats-http`")
    if raw.startswith(b"HTTP/"):
        raise StatsError("answers in HTTP: take `stats-http` out of uWSGI's configuration")
    try:
        stats = _DECODER.decode(raw.decode("utf-8", "replace"))
    except (msgspec.DecodeError, RecursionError) as error:
        start = raw[:30].decode("utf-8", "replace")
        raise StatsError(f"answers what makes no sense ({error}; it begins with {start!r}): it must be uWSGI's `stats`") from None
    pids = [worker.pid for worker in stats.workers if worker.pid]
    if len(set(pids)) < len(pids):
        raise StatsError("answers what makes no sense (two workers are one): it must be uWSGI's `stats`")
    return stats


class StatsSocket:
    """Asks in one probe and takes the answer in the next; each question has its own connection to `where`, which `acts` make.
    Raises ValueError if `where` is no address."""

    def __init__(self, where: str, acts: Acts) -> None:
        address(where)
        self.where = where
        self._acts = acts
        self._socket: socket.socket | None = None
        self._answer = bytearray()
        self._deadline = 0
        self._next = 0
        self._failures = 0

    def asked(self) -> bool:
        """Whether an answer is pending."""
        return self._socket is not None

    def ask(self, now: int) -> None:
        """Connect, if it is time and no answer is pending. Returns at once. Raises StatsError."""
        if self._socket is not None or now < self._next:
            return
        self._next, self._deadline = now + EVERY_NS, now + TIMEOUT_NS
        self._answer.clear()
        try:
            self._socket = self._acts.stats()
        except RefusedError as refusal:
            raise self._failed(now, str(refusal)) from None
        except OSError as error:
            raise self._failed(now, self._reason(error.errno or 0)) from None

    def take(self, now: int) -> Stats | None:
        """The answer, None while it is incomplete. Returns at once. Raises StatsError."""
        if self._socket is None:
            return None
        try:
            whole = self._receive()
        except OSError as error:
            raise self._failed(now, self._reason(error.errno or 0)) from None
        if len(self._answer) > MAX_BYTES:
            raise self._failed(now, f"answers more than {MAX_BYTES >> 20} MiB: set `stats-no-cores` in uWSGI's configuration")
        if not whole:
            if now >= self._deadline:
                raise self._failed(
                    now, f"does not answer within {TIMEOUT_NS // _SECOND} s: see uWSGI's log; it must be without `stats-http`"
                )
            return None
        try:
            stats = parse(bytes(self._answer))
        except StatsError as error:
            raise self._failed(now, str(error)) from None
        self._hang_up()
        self._failures = 0
        return stats

    def again(self) -> None:
        """Ask at the next opportunity, whatever happened before: another uWSGI may be there now."""
        self._hang_up()
        self._next = self._failures = 0

    def close(self) -> None:
        """Hang up for good."""
        self._hang_up()
        self._next = 1 << 63

    def _receive(self) -> bool:
        """Read what is there; return whether that was the end of the answer."""
        assert self._socket is not None
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while len(self._answer) <= MAX_BYTES and poll.poll(0):
            block = self._socket.recv(1 << 18)
            if not block:
                return True
            self._answer += block
        return False

    def _failed(self, now: int, reason: str) -> StatsError:
        self._hang_up()
        self._failures += 1
        self._next = now + min(MAX_BACK_OFF_NS, _SECOND << min(self._failures - 1, 5))
        return StatsError(f"uWSGI's stats socket {self.where} {reason}")

    def _reason(self, number: int) -> str:
        if number in {errno.ENOENT, errno.ECONNREFUSED}:
            what = "does not exist" if number == errno.ENOENT else "takes no connection"
            return f"{what}: start uWSGI with stats = {self.where}, or correct stats"
        if number in {errno.EACCES, errno.EPERM}:
            return "may not be used by this user: run nicety as uWSGI's user"
        return f"cannot be read ({os.strerror(number)}): see uWSGI's log, or correct stats"

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._acts.hang_up()
