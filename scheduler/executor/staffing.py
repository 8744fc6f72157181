"""When the workers of an executor are started, drained and buried, and when it gives up.

Runs in the user's program. Must not know how tasks travel.
"""

from __future__ import annotations

import logging
import time

from .backlog import Backlog
from .board import VALUE_MASK, Word
from .crew import Crew, CrewWorker, Options
from .dispatch import Dispatch
from .gate import Gate
from .inbox import Inbox
from .sizing import Sizing
from .tasks import fail

log = logging.getLogger(__name__)

_SECOND = 1_000_000_000
STARTS_PER_TURN = 4
"""Workers started before the manager looks after its tasks again; a fork costs some milliseconds. Chosen."""
FAILED_STARTS = 3
"""The executor is broken after this many workers in a row ended before they were up, or within AT_ONCE_NS without a task.
Chosen."""
AT_ONCE_NS = _SECOND
"""A worker that ends at this age without having had a task counts as one that failed to start. Chosen."""
RETRY_START_NS = _SECOND
"""Pause after a failed start. Chosen."""

_ASKED, _RECYCLE = int(Word.ASKED), int(Word.RECYCLE)


class Staffing:
    """Keeps as many workers as `Sizing` wants, replaces those that nicety asks to be replaced, and breaks the executor when workers
    cannot be started. Only the manager thread uses it.
    """

    def __init__(
        self,
        options: Options,
        gate: Gate,
        sizing: Sizing,
        crew: Crew,
        backlog: Backlog,
        dispatch: Dispatch,
        inbox: Inbox,
        words: memoryview,
    ) -> None:
        self._name = options.name
        self._idle_ns = None if options.idle_seconds is None else round(options.idle_seconds * _SECOND)
        self._gate = gate
        self._sizing = sizing
        self._crew = crew
        self._backlog = backlog
        self._dispatch = dispatch
        self._inbox = inbox
        self._words = words
        self._recycled = 0
        self._next_start = 0

    def look_after(self, now: int) -> bool:
        """Follow requests, start missing workers, drain excess workers and those that were idle for too long. `now` in monotonic
        ns. True: more workers must be started at once."""
        crew, sizing = self._crew, self._sizing
        words = self._words
        if words[_ASKED] != sizing.asked:
            sizing.follow(words[_ASKED], now)
        if words[_RECYCLE] != self._recycled:
            self._recycle(words[_RECYCLE])
        if self._gate.broken:
            return False
        if crew.staying > sizing.target:
            while (spare := crew.dispensable(sizing.target)) is not None:
                self._dispatch.drain(spare)
            return False
        if self._idle_ns is not None and not sizing.eager:
            while crew.idle and now - crew.idle[0].rested_at > self._idle_ns:
                self._dispatch.drain(crew.idle[0])
        missing = sizing.target - crew.staying
        if not sizing.eager or self._gate.is_ending:
            missing = min(missing, len(self._backlog.waiting) - len(crew.idle) - crew.starting)
        if missing <= 0 or now < self._next_start:
            return False
        for _ in range(min(missing, STARTS_PER_TURN)):
            try:
                crew.start()
            except OSError as error:
                self._start_failed(f"a worker cannot be started: {error}", error)
                return False
            except Exception as error:  # raised by the initializer and its arguments when they are pickled for spawn
                self.break_down(f"a worker cannot be started: {error!r}", error)
                return False
        return missing > STARTS_PER_TURN

    def bury(self, worker: CrewWorker) -> None:
        """A worker has ended: take over what it left. At most the task that it ran is lost."""
        while self._inbox.receive(worker):
            pass
        self._dispatch.take_back_all(worker)
        self._crew.strike_off(worker)
        lost = list(worker.tasks.values())
        worker.tasks.clear()
        self._backlog.running -= len(lost)
        if worker.failure:
            self.break_down("the initializer of a worker failed, the executor is not usable any more", worker.failure)
        elif (
            not worker.draining
            and worker.given == 0
            and (self._backlog.waiting or not self._gate.closing)
            and (not worker.ready or time.monotonic_ns() - worker.born < AT_ONCE_NS)
        ):
            self._start_failed(f"{worker.ending()} before its first task", None)
        for task in reversed(lost):
            self._inbox.lose(worker, task)

    def dismiss(self) -> bool:
        """Let all workers end, since no task will come any more. True when none is left."""
        for worker in self._crew.workers:
            if not worker.draining:
                self._dispatch.drain(worker)
        return not self._crew.workers

    def break_down(self, text: str, cause: BaseException | str | None) -> None:
        """Fail all tasks, now and later, as the original does when any worker dies."""
        if not self._gate.shut_broken(text, cause):
            return
        tasks = self._dispatch.take_all()
        for worker in self._crew.workers:
            worker.process.terminate()
        for task in tasks:
            if task.running or task.future.set_running_or_notify_cancel():
                fail(task.future, self._gate.broken_error())

    def _recycle(self, request: int) -> None:
        """Drain the worker whose pid is in the request; another one is started in its place."""
        self._recycled = request
        for worker in self._crew.workers:
            if worker.process.pid == request & VALUE_MASK and not worker.draining:
                self._dispatch.drain(worker)

    def _start_failed(self, text: str, error: BaseException | None) -> None:
        crew = self._crew
        crew.failed_starts += 1
        self._next_start = time.monotonic_ns() + RETRY_START_NS
        log.warning("executor %s: %s", self._name, text)
        if crew.failed_starts >= FAILED_STARTS and not any(worker.ready for worker in crew.workers):
            self.break_down(f"{text}; given up after {crew.failed_starts} tries", error)
