"""What comes back from the workers of an executor: answers, and what a worker leaves behind that ended during a task.

Runs in the user's program. Must not know how tasks are given out.
"""

from __future__ import annotations

from .backlog import Backlog
from .board import Slot, Word
from .crew import Crew, CrewWorker
from .gate import Gate
from .tasks import Done, Task, WorkerLost, resolve
from .worker import ANSWER, ERROR, FAILED, READY, Body, receive

_FINISHED, _WAIT_NS, _SERVICE_NS = int(Word.FINISHED), int(Word.WAIT_NS), int(Word.SERVICE_NS)
_BUSY_NS, _SINCE, _TASKS = int(Slot.BUSY_NS), int(Slot.SINCE), int(Slot.TASKS)


class Inbox:
    """Answers from their channels to their futures, and the sums on the board. Only the manager thread uses it.

    `receive` and `lose` collect outcomes in `done`; `resolve` hands them to the futures. In between the manager gives out more
    tasks, so that workers continue while the program's callbacks run.
    """

    def __init__(self, crew: Crew, backlog: Backlog, gate: Gate, words: memoryview) -> None:
        self.done: list[Done] = []
        self._crew = crew
        self._backlog = backlog
        self._gate = gate
        self._words = words

    def receive(self, worker: CrewWorker) -> bool:
        """Receive one answer of this worker; False if there is none."""
        try:
            packet = receive(worker.channel, ANSWER)
        except BlockingIOError:
            return False
        if packet is None:
            return False
        self._take(worker, *packet)
        return True

    def lose(self, worker: CrewWorker, task: Task) -> None:
        """This worker has ended while it ran the task: run it again, or fail it."""
        task.tries += 1
        if self._gate.broken:
            self.done.append((task.future, ERROR, self._gate.broken_error()))
        elif task.call is not None:
            self._words[Word.RETRIED] += 1
            self._backlog.waiting.appendleft(task)
        else:
            self._words[Word.LOST] += 1
            text = f"{worker.ending()} while it ran this task"
            text += f", for the {task.tries}th time" if task.tries > 1 else "; Executor(retries=...) runs such tasks again"
            self.done.append((task.future, ERROR, WorkerLost(text)))

    def resolve(self) -> None:
        """Give the futures their answers, in the order in which these came. The program's callbacks run here."""
        done = self.done
        while done:
            resolve(*done.pop(0))  # popped: nothing here keeps a result alive

    def _take(self, worker: CrewWorker, head: tuple[int, ...], body: Body) -> None:
        """Process an answer."""
        kind, number, began, ended = head
        words, slot = self._words, worker.slot
        if kind == READY:
            self._crew.is_up(worker)
            return
        if kind == FAILED:
            worker.failure = bytes(body).decode("utf-8", "replace")
            return
        task = worker.tasks.pop(number, None)
        if task is None:  # it has failed already, when the executor broke
            return
        backlog = self._backlog
        backlog.running -= 1
        self._crew.failed_starts = 0
        service = ended - began
        worker.service_ns = service
        words[_FINISHED] += 1
        words[_SERVICE_NS] += service
        words[_WAIT_NS] += max(0, began - task.submitted)
        if worker.tasks:
            backlog.ahead -= 1
        if slot:
            words[slot + _TASKS] += 1
            words[slot + _BUSY_NS] += service
            words[slot + _SINCE] = ended if worker.tasks else 0
        if not worker.draining:
            if not worker.tasks:
                self._crew.rest(worker)
            self._crew.answered.append(worker)
        self.done.append((task.future, kind, body))
