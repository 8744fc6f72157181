"""A task of an executor from its submission to its future: what is kept of it, and how an answer or a failure reaches the future.

Runs in the user's program. Must not know workers or the board.
"""

from __future__ import annotations

import pickle
import time
from concurrent.futures import Future, InvalidStateError
from concurrent.futures.process import BrokenProcessPool, _RemoteTraceback
from traceback import format_exception
from typing import Any

from .worker import UNREADABLE, VALUE, Body


class WorkerLost(BrokenProcessPool):
    """The worker ended while it ran this task. Other tasks are not affected, and the executor continues."""


class UnreadableTask(BrokenProcessPool):
    """The task, or its result, could not be unpickled on the other side. Other tasks are not affected."""


class Task:
    """One call and its state."""

    __slots__ = ("call", "future", "payload", "running", "submitted", "tries")

    def __init__(self, future: Future[Any], call: tuple[Any, ...]) -> None:
        self.future = future
        self.call: tuple[Any, ...] | None = call  # function, args, kwargs; dropped when no longer needed
        self.payload: bytes | None = None  # the call, pickled
        self.submitted = time.monotonic_ns()
        self.running = False  # as in the future: it cannot be cancelled any more
        self.tries = 0  # workers that ended while running it


Done = tuple[Future[Any], int, Body | BaseException]
"""A future with the kind of its answer and the payload; an exception for an ERROR that arose on our side."""


def resolve(future: Future[Any], kind: int, body: Body | BaseException) -> None:
    """Give a future its worker's answer. Callbacks of the program run here."""
    if isinstance(body, BaseException):
        fail(future, body)
        return
    if kind == UNREADABLE:
        error = UnreadableTask("the worker could not unpickle the task; the cause follows")
        error.__cause__ = remote(bytes(body).decode("utf-8", "replace"))
        fail(future, error)
        return
    try:
        value = pickle.loads(body)  # noqa: S301 - from our own child
    except BaseException as problem:
        error = UnreadableTask("what the task returned or raised could not be unpickled; the cause follows")
        error.__cause__ = remote("".join(format_exception(problem)))
        fail(future, error)
        return
    if kind == VALUE:
        try:
            future.set_result(value)
        except InvalidStateError:  # the program resolved it itself
            pass
    else:
        fail(future, value)


def fail(future: Future[Any], error: BaseException) -> None:
    """Give a future this exception."""
    try:
        future.set_exception(error)
    except InvalidStateError:  # the program resolved it itself
        pass


def remote(text: str) -> BaseException:
    """A traceback from elsewhere, as the cause of an error, as the original raises it."""
    return _RemoteTraceback(f'\n"""\n{text}"""')  # type: ignore[arg-type]  # typeshed wants a traceback here
