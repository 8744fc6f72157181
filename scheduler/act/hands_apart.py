"""The hands as another process, as the daemon sees them: `ports.Hands` over a socket (`hands/wire.py`, `hands/serve.py`).

The daemon keeps a copy of the ledger's book, which each reply brings up to date. Must not know decisions.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...models.identity import ProcId
from ..hands.book import Book
from ..hands.changes import EntryStatus
from ..hands.ledger import LedgerError, StateBusyError
from ..hands.looks import Order
from ..hands.messages import done_of, note_of, order_record, subject_of, subject_record
from ..hands.places import Control, PoolPlace, Subject
from ..hands.serve import ENVIRONMENT
from ..hands.tally import Done, Note
from ..hands.wire import VERSION, Asking, Channel, GoneError, RefusedError, pair
from ..interpreter import isolated

END_SECONDS = 10.0
"""Seconds to wait until the hands have ended after a farewell (chosen: an undo waits up to five for threads that fork)."""

_COMMAND = isolated("nicety.scheduler.hands.serve")


class TheirSentries:
    """The sentries of the hands, which the hands keep: `hands.guarding.Watchers`."""

    def __init__(self) -> None:
        self.pid: int | None = None
        self.trouble = ""

    def keep(self, now: int) -> None:
        """The hands do."""

    def dismiss(self) -> None:
        """The hands do."""


class HandsApart:
    """`ports.Hands` at the other end of a connection. Raises StateBusyError if another nicety has the state directory, LedgerError
    if the hands cannot work, GoneError if they end.

    `process`: the hands, if this process has started them.
    """

    def __init__(self, channel: Channel, process: subprocess.Popen[bytes] | None = None) -> None:
        self.book = Book()
        self.trouble = ""
        self.is_open = False
        self.sentries = TheirSentries()
        self.gone = ""
        """Why the hands cannot be asked any more, "" while they can be."""
        self._channel = channel
        self._asking = Asking(channel)
        self._process = process
        self._forbidden: dict[Control, str] = {}
        match self._ask("hello", VERSION):
            case ["busy", str() as text]:
                raise StateBusyError(text)
            case ["trouble", str() as text]:
                raise LedgerError(text)
            case [int() as pid]:
                self.pid = pid
                self.processes = [pid]
                """The hands, and their eyes if these were asked for: pids."""
            case _:
                raise self._none()

    def recover(self) -> tuple[tuple[Note, ...], tuple[Done, ...]]:
        """See `ports.Hands`."""
        said = self._say("recover")
        self.is_open = self.is_open or bool(said["done"] or said["notes"])
        return tuple(map(note_of, said["notes"])), tuple(map(done_of, said["done"]))

    def open(self) -> tuple[Note, ...]:
        """See `ports.Hands`."""
        said = self._say("open")
        self.is_open = True
        return tuple(map(note_of, said["notes"]))

    def forbidden(self, control: Control) -> str:
        """See `ports.Hands`."""
        if control not in self._forbidden:
            said = self._ask("forbidden", control)
            if not isinstance(said, str):
                raise self._none()
            self._forbidden[control] = said
        return self._forbidden[control]

    def change(self, orders: Sequence[Order]) -> tuple[Done, ...]:
        """See `ports.Hands`."""
        return tuple(map(done_of, self._say("change", [order_record(order) for order in orders])["done"]))

    def put_back(self, subjects: Sequence[Subject]) -> dict[Subject, Done]:
        """See `ports.Hands`."""
        said = self._say("put back", [subject_record(subject) for subject in subjects])["done"]
        return {subject_of(subject): done_of(done) for subject, done in said}

    def sweep(self) -> tuple[Done, ...]:
        """See `ports.Hands`."""
        return tuple(map(done_of, self._say("sweep")["done"]))

    def undo(self, kept: Collection[Subject]) -> tuple[Done, ...]:
        """See `ports.Hands`."""
        return tuple(map(done_of, self._say("undo", [subject_record(subject) for subject in kept])["done"]))

    def resize(self, decision: str, target: str, pool: PoolPlace, first: int, old: int, new: int) -> int:
        """See `ports.Hands`."""
        place = subject_record(Subject(Control.POOL_SIZE, pool))
        return int(self._say("resize", decision, target, place, first, old, new)["number"])

    def settle(self, statuses: Mapping[int, EntryStatus]) -> None:
        """See `ports.Hands`."""
        self._say("settle", list(statuses.items()))

    def eyes(self) -> Asking:
        """A process that reads of others what this one may not (`hands/eyes.py`)."""
        pid, (descriptor,) = self.ask("eyes")
        if not isinstance(pid, int):
            raise self._none()
        self.processes.append(pid)
        return Asking(Channel(socket.socket(fileno=descriptor)))

    def own_nice(self, nice: int, *, session: bool) -> None:
        """Set the nice of this process's session, which it leads, or of its one thread. Raises OSError as the kernel does."""
        self._ask("own nice", nice, session)

    def idle(self, process: ProcId) -> None:
        """Have a child of this process, which leads a session, run only where nothing else wants a CPU. Raises OSError."""
        try:
            self._ask("idle", *process)
        except RefusedError as refusal:
            raise PermissionError(errno.EPERM, str(refusal)) from None

    def close(self) -> None:
        """End the hands, if they are still there. Idempotent."""
        if not self.gone:
            try:
                self._ask("farewell")
            except GoneError:
                pass
            self.gone = "they were sent away"
        self._channel.close()
        if self._process is not None:
            try:
                self._process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()  # its sentries put everything back
                self._process.wait()

    def ask(self, operation: str, *arguments: object) -> tuple[object, list[int]]:
        """See `wire.Asking`: operations of others."""
        try:
            return self._asking.ask(operation, *arguments)
        except GoneError as error:
            self.gone = self.gone or str(error)
            raise

    def _ask(self, operation: str, *arguments: object) -> object:
        result, descriptors = self.ask(operation, *arguments)
        for descriptor in descriptors:
            os.close(descriptor)
        return result

    def _say(self, operation: str, *arguments: object) -> dict[str, Any]:
        """Ask, and follow the ledger. Raises LedgerError with the trouble of the reply."""
        said = self._ask(operation, *arguments)
        try:
            assert isinstance(said, dict)
            self.book.follow(said["news"])
            self.trouble = str(said["ledger"])
            self.sentries.pid, self.sentries.trouble = said["sentries"]
            trouble = said.get("trouble")
        except (AssertionError, ValueError, KeyError, TypeError):
            raise self._none() from None
        if trouble is not None:
            raise LedgerError(str(trouble))
        return said

    def _none(self) -> GoneError:
        self.gone = "the hands gave a reply that is none"
        return GoneError(self.gone)


def start_hands(state_dir: Path, config: Path | None) -> HandsApart:
    """Start hands for this process, which keep to this configuration. Errors as `HandsApart`, and OSError."""
    ours, theirs = pair()
    configured = "" if config is None else os.fspath(config.absolute())
    command = (*_COMMAND, os.fspath(state_dir), configured)
    environ = {ENVIRONMENT: json.dumps(dict(os.environ))}  # none of its variables counts for the hands themselves
    with theirs:
        process = subprocess.Popen(
            command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env=environ
        )  # workers of pools begin where we are
    try:
        return HandsApart(Channel(ours), process)
    except BaseException:
        ours.close()
        process.wait()
        raise


def reach_hands(path: str) -> HandsApart:
    """The hands that listen at this socket. Errors as `HandsApart`."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except OSError as error:
        sock.close()
        raise LedgerError(f"the hands at {path} cannot be reached ({error.strerror}); is nicety-hands running?") from None
    return HandsApart(Channel(sock))
