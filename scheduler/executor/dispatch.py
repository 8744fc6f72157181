"""How tasks reach the workers of an executor, and how those that a worker has not begun come back.

Runs in the user's program. Must not know what workers answer, nor when they are started.

A worker that finishes a task within SHORT_NS gets its next ones ahead. They are taken back when that worker ends or another one is
idle. So a killed worker takes one task with it, and a leaving worker none.
"""

from __future__ import annotations

import socket
import time
from traceback import format_exception

from .backlog import Backlog
from .board import Slot, WorkerState
from .crew import SHORT_NS, Crew, CrewWorker
from .tasks import Task, fail, remote
from .worker import TASK, dumps, receive, send

AHEAD = 4
"""Limit of the tasks that a quick worker has at once, including the running one. Chosen: a few handovers less to wait for, and
still few to take back."""
AHEAD_BYTES = 8 << 10
"""Only smaller tasks are given ahead: AHEAD of them fit into a socket's buffer (208 KiB by default, net.core.wmem_default).
Chosen."""

_STATE, _SINCE = int(Slot.STATE), int(Slot.SINCE)
_BUSY = int(WorkerState.BUSY)


class Dispatch:
    """Gives waiting tasks to workers and takes them back. Only the manager thread uses it."""

    def __init__(self, crew: Crew, backlog: Backlog, words: memoryview, *, max_tasks: int | None, retries: int) -> None:
        self._crew = crew
        self._backlog = backlog
        self._words = words
        self._max_tasks = max_tasks
        self._retries = retries
        self._number = 0

    def give_out(self, target: int) -> None:
        """Give waiting tasks to idle workers, and ahead to quick workers. `target`: the number of workers that there should be;
        while there are more, nothing is given ahead."""
        backlog, idle = self._backlog, self._crew.idle
        waiting = backlog.waiting
        while waiting and idle:
            self._give(idle[-1])
        if waiting and self._crew.staying <= target:
            for worker in self._crew.answered:
                while waiting and worker.tasks and self._has_room(worker) and self._give(worker):
                    pass
        self._crew.answered.clear()
        if backlog.ahead and idle and not waiting:
            self._share()
        backlog.show()

    def drain(self, worker: CrewWorker) -> None:
        """Let this worker end after its running task; tasks that it got ahead go back to the queue."""
        while len(worker.tasks) > 1 and self._take_back(worker):
            self._backlog.ahead -= 1
        self._crew.let_go(worker)

    def take_back_all(self, worker: CrewWorker) -> None:
        """Take back what this worker, which has ended, has not begun. What it had begun stays in `worker.tasks`."""
        self._backlog.ahead -= max(0, len(worker.tasks) - 1)
        while self._take_back(worker):
            pass

    def take_all(self) -> list[Task]:
        """Take all tasks out of the queue and from all workers, begun or not."""
        backlog = self._backlog
        tasks = list(backlog.waiting)
        backlog.waiting.clear()
        for worker in self._crew.workers:
            tasks.extend(worker.tasks.values())
            backlog.running -= len(worker.tasks)
            worker.tasks.clear()
        backlog.ahead = 0
        return tasks

    def _has_room(self, worker: CrewWorker) -> bool:
        return worker.service_ns < SHORT_NS and len(worker.tasks) < AHEAD and self._max_tasks is None and not worker.draining

    def _give(self, worker: CrewWorker) -> bool:
        """Give the next waiting task to this worker. False if it cannot be given ahead."""
        backlog = self._backlog
        task = backlog.waiting.popleft()
        if not task.running:
            if not task.future.set_running_or_notify_cancel():
                return True
            task.running = True
        payload = task.payload
        if payload is None:
            try:
                payload = dumps(task.call)
            except BaseException as error:
                error.__cause__ = remote("".join(format_exception(error)))
                fail(task.future, error)
                return True
        if worker.tasks and len(payload) > AHEAD_BYTES:
            task.payload = payload
            backlog.waiting.appendleft(task)
            return False
        self._number += 1
        number = self._number
        try:
            send(worker.channel, TASK.pack(number), payload)
        except OSError as error:
            if worker.tasks:  # its channel is full
                task.payload = payload
                backlog.waiting.appendleft(task)
                return False
            fail(task.future, error)
            return True
        if self._retries <= task.tries:
            task.call = None
        task.payload = None
        if worker.tasks:
            backlog.ahead += 1
        else:
            self._crew.idle.remove(worker)
            if worker.slot:
                self._words[worker.slot + _SINCE] = time.monotonic_ns()
                self._words[worker.slot + _STATE] = _BUSY
        worker.tasks[number] = task
        worker.given += 1
        backlog.running += 1
        if worker.given == self._max_tasks:
            self.drain(worker)
        return True

    def _take_back(self, worker: CrewWorker) -> bool:
        """Take back one task that the worker got ahead, to the front of the queue; False if it has begun all of them."""
        try:
            packet = receive(worker.far, TASK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        if packet is None:  # we have hung up, and it has received everything
            return False
        (number,), body = packet
        task = worker.tasks.pop(number)
        task.payload = bytes(body)
        worker.given -= 1
        self._backlog.running -= 1
        self._backlog.waiting.appendleft(task)
        return True

    def _share(self) -> None:
        """Move tasks not yet begun from busy workers to idle ones."""
        idle = self._crew.idle
        for worker in self._crew.workers:
            while len(worker.tasks) > 1 and idle:
                if not self._take_back(worker):
                    break
                self._backlog.ahead -= 1
                self._give(idle[-1])
