"""Waiting work that a program counts: a command of the user, or the one that asks a database. It runs beside the daemon.

Must not know what it counts. The hands start it, in a session of its own, as the pool's user.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from ....hands.wire import RefusedError
from ....redaction import redacted
from ...sensing.acts import Child
from .waiting import LATE_NS, Count, CountError

_SECOND = 1_000_000_000
_MAX_OUTPUT = 4096


class _Program:
    """A program that was started, and what it has written."""

    def __init__(self, process: Child) -> None:
        os.set_blocking(process.pipes[0], False)
        self._process = process
        self.output = b""

    def status(self) -> int | None:
        """How it ended; None while it runs. Reads what it has written."""
        status = self._process.poll()  # checked first, so that what it wrote before its end is still read
        while len(self.output) <= _MAX_OUTPUT:
            try:
                block = os.read(self._process.pipes[0], _MAX_OUTPUT)
            except BlockingIOError:
                break
            if not block:
                break
            self.output += block
        return status

    def end(self) -> None:
        """Kill it, if it still runs, with all that it started."""
        self._process.end()


def _started(start: Callable[[], Child], what: str, setting: str) -> _Program:
    """Raises CountError."""
    try:
        return _Program(start())
    except (OSError, RefusedError) as error:
        raise CountError(f"{what} cannot be started: {error}; correct queue.{setting}") from None


def _late(what: str, output: bytes, setting: str) -> CountError:
    limit = f"{LATE_NS // _SECOND} s" if len(output) <= _MAX_OUTPUT else f"{_MAX_OUTPUT} bytes"
    return CountError(f"{what} did not answer within {limit} and was killed: {setting}")


class CommandCounter:
    """The output of a command: one whole number on stdout."""

    def __init__(self, command: list[str], start: Callable[[], Child]) -> None:
        self._name = command[0]
        self._start = start
        self._program: _Program | None = None
        self._deadline = 0

    def step(self, now: int) -> Count | None:
        """Start the command, or take its answer when it has ended."""
        if self._program is None:
            self._program, self._deadline = _started(self._start, self._name, "command"), now + LATE_NS
        status, output = self._program.status(), self._program.output
        if status is None:
            if now < self._deadline and len(output) <= _MAX_OUTPUT:
                return None
            self.close()
            raise _late(self._name, output, "make it print one number")
        self.close()
        if status != 0:
            raise CountError(f"{self._name} ended with status {status}: try it by hand, or correct queue.command")
        text = output.decode("ascii", "replace").strip()
        if not text.isdecimal() or len(text) > 18:
            raise CountError(f"{self._name} printed {redacted(text)[:40]!r}: it must print one whole number")
        return Count(int(text))

    def close(self) -> None:
        """Kill a command that still runs, with all that it started."""
        if self._program is not None:
            self._program.end()
            self._program = None


class SqlCounter:
    """The rows that a query counts. `hands/sql.py` asks it again and again over one connection, and prints a line each time."""

    def __init__(self, url: str, start: Callable[[], Child]) -> None:
        """`url`: for what must not be shown of it."""
        self._url = url
        self._start = start
        self._program: _Program | None = None
        self._deadline: int | None = None

    def step(self, now: int) -> Count | None:
        """Start the program if it does not run, or take its newest line."""
        if self._program is None:
            self._program = _started(self._start, "the program that asks the database", "sql_python")
        if self._deadline is None:
            self._deadline = now + LATE_NS
        status = self._program.status()
        whole, newline, self._program.output = self._program.output.rpartition(b"\n")
        line = whole.rpartition(b"\n")[2].decode("utf-8", "replace")
        if newline and line.isdecimal() and len(line) <= 18:
            self._deadline = None
            return Count(int(line))
        if newline or status is not None:
            self.close()
            cause = redacted(line, self._url)[:300] if line else f"ended with status {status}"
            raise CountError(f"the database at {redacted(self._url, self._url)}: {cause}; correct queue.sql or queue.sql_query")
        if now >= self._deadline or len(self._program.output) > _MAX_OUTPUT:
            output = self._program.output
            self.close()
            raise _late("the database", output, "make queue.sql_query faster, or see what it waits for")
        return None

    def close(self) -> None:
        """Kill the program."""
        if self._program is not None:
            self._program.end()
            self._program = None
        self._deadline = None
