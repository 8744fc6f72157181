"""The tasks of an executor that have no worker yet, and how many have one.

Runs in the user's program. Must not know workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from .board import Word
from .doorbell import Doorbell
from .gate import Gate
from .tasks import Task

_QUEUED = int(Word.QUEUED)


class Backlog:
    """Waiting tasks in the order in which they will run, and the counts of those that workers have.

    Any thread may call `submit`, which appends under the lock of the gate. Everything else is for the manager thread alone. It
    takes tasks out and puts them back without the lock: each such step of a deque is atomic.
    """

    def __init__(self, gate: Gate, bell: Doorbell, words: memoryview) -> None:
        self.waiting: deque[Task] = deque()
        self.running = 0
        """Tasks that workers have."""
        self.ahead = 0
        """Of these, given ahead: their worker has not begun them. On the board they count as queued."""
        self._gate = gate
        self._bell = bell
        self._words = words

    def submit(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[Any]:
        """A future for the call. Raises RuntimeError after shutdown, BrokenProcessPool if broken."""
        future: Future[Any] = Future()
        task = Task(future, (fn, args, kwargs))
        gate = self._gate
        with gate.lock:
            if gate.broken or gate.closing:
                raise gate.refusal(gate.closing)
            self.waiting.append(task)
        self._words[_QUEUED] = len(self.waiting) + self.ahead
        bell = self._bell
        if bell.awaited:
            bell.awaited = False
            bell.ring()
        return future

    def show(self) -> None:
        """Show on the board how many tasks wait."""
        self._words[_QUEUED] = len(self.waiting) + self.ahead

    def is_finished(self) -> bool:
        """Whether no task is left, and none can come: ask it when the gate is ending."""
        with self._gate.lock:  # a submit() that saw the gate open has appended its task by now
            return not (self.waiting or self.running)

    def cancel(self, target: int) -> None:
        """Cancel all waiting tasks but those that the original would have given to workers that are still coming up. `target`: the
        number of workers that there should be."""
        kept: list[Task] = []
        free = max(0, target - self.running)
        while self.waiting:
            task = self.waiting.popleft()
            if len(kept) < free or task.running or not task.future.cancel():
                kept.append(task)
            else:
                task.future.set_running_or_notify_cancel()  # notifies those that wait for it
        self.waiting.extend(kept)
