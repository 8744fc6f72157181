"""The core of an `Executor`: its parts, put together, and the thread that runs them.

Runs in the user's program and imports only the standard library, the board and the other parts of the executor.

    any thread       Executor -> ExecutorCore: submit, resize, close, abandon
                                  |
                                  | Gate     still open? The one lock
                                  | Sizing   how many workers
                                  | Backlog  tasks that wait
                                  | Doorbell wakes the manager
                                  v
    manager thread   Loop -> Staffing   starts, drains and buries workers
                          -> Dispatch   tasks -> channels of workers -> tasks run
                          -> Inbox      answers -> futures
                             Crew       the workers
    forked child     forks.py -> ExecutorCore.forget

Each worker has its own channel, and gets a task when it is idle. Only the manager thread touches workers. With the start methods
"fork" and "clean" they are children of a forker (see forker.py and clean.py). The thread that submits the first task, or resizes
before it, starts the forker before the manager exists.
"""

from __future__ import annotations

import itertools
import logging
import os
import select
import threading
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing.process import BaseProcess
from typing import Any

from .backlog import Backlog
from .board import Board
from .crew import Crew, Options
from .dispatch import Dispatch
from .doorbell import Doorbell
from .forker import ForkedProcess
from .forks import no_forks, owners
from .gate import Gate
from .inbox import Inbox
from .loop import Loop
from .sizing import Sizing
from .staffing import Staffing

log = logging.getLogger(__name__)

_numbers = itertools.count(1)


class ExecutorCore:
    """What other threads may do with an executor that runs. Holds no reference to the Executor, so that the Executor can be
    collected.

    Any thread may call every public method but `forget`. `abandon` takes no lock, so the collector may call it at any point. Only a
    forked child, in which nothing else runs yet, calls `forget`. What begins with an underscore belongs to the manager thread.
    """

    def __init__(self, options: Options, size: int, maximum: int) -> None:
        """Start the forker, if the start method has one, and the manager."""
        self._options = options
        self._board = Board(options.name, os.environ, next(_numbers))
        self._gate = Gate()
        with no_forks():
            self._bell = Doorbell()
            self._crew = Crew(options, self._board)
            self._crew.epoll.register(self._bell.descriptor, select.EPOLLIN)
            owners[id(self)] = self
        words, crew, gate = self._board.words, self._crew, self._gate
        self._sizing = Sizing(gate, words, size, options.minimum, maximum, eager=crew.forks)
        self._backlog = Backlog(gate, self._bell, words)
        dispatch = Dispatch(crew, self._backlog, words, max_tasks=options.max_tasks, retries=options.retries)
        inbox = Inbox(crew, self._backlog, gate, words)
        staffing = Staffing(options, gate, self._sizing, crew, self._backlog, dispatch, inbox, words)
        self._loop = Loop(gate, self._bell, self._sizing, crew, self._backlog, dispatch, inbox, staffing, self._board)
        self.thread = threading.Thread(target=self._manage, name=f"Executor {options.name}", daemon=True)
        try:
            crew.begin()
            if self._board.path is None:
                log.warning("nicety cannot see executor %s: %s", options.name, self._board.reason)
            self._board.publish()
            self.thread.start()
        except BaseException:
            self._end()
            raise

    @property
    def target(self) -> int:
        """The number of workers allowed."""
        return self._sizing.target

    @property
    def is_open(self) -> bool:
        """Whether it takes tasks."""
        return not self._gate.is_ending

    @property
    def processes(self) -> dict[int, BaseProcess | ForkedProcess]:
        """Workers by pid. The manager changes it at any time: copy it."""
        return self._crew.processes

    def submit(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[Any]:
        """A future for the call. Raises RuntimeError after shutdown, BrokenProcessPool if broken."""
        return self._backlog.submit(fn, args, kwargs)

    def resize(self, size: int) -> None:
        """Set the size for the program itself. Raises RuntimeError after shutdown, BrokenProcessPool if broken."""
        self._sizing.resize(size)
        self._bell.ring()

    def close(self, why: str, *, cancel: bool) -> None:
        """Accept no more tasks, because of `why`; `cancel` those that wait."""
        self._gate.close(why, cancel=cancel)
        self._bell.ring()

    def abandon(self) -> None:
        """The Executor was collected: end when the submitted tasks are done."""
        self._gate.abandon()
        self._bell.ring()

    def forget(self) -> None:
        """In a forked child: close what belongs to the parent."""
        self._gate.forget()
        self._crew.forget()
        self._bell.forget()

    def _manage(self) -> None:
        try:
            self._loop.run()
        finally:
            self._end()

    def _end(self) -> None:
        """Release everything: the manager's last action."""
        self._board.remove()
        with no_forks():
            owners.pop(id(self), None)
            self._crew.disband()
        self._crew.end()
