"""The core of an `Executor`: the manager thread, which brings tasks (tasks.py) and workers (crew.py) together.

Runs in the user's program and imports only the standard library, the board and the other parts of the executor.

    submit() -> waiting -> [manager thread] -> channel of a worker -> task runs -> channel -> [manager thread] -> future

Each worker has its own channel, and the manager gives it a task when it is idle. A worker that finishes a task within SHORT_NS gets
its next ones ahead; the manager takes them back when that worker ends or another one is idle. So a killed worker takes one task
with it, and a leaving worker none.

Only the manager thread touches workers. With the start method "fork" they are children of a forker (see forker.py). The thread that
submits the first task, or resizes before it, forks the forker before the manager exists.
"""

from __future__ import annotations

import itertools
import logging
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from traceback import format_exception
from typing import Any

from .board import CAPACITY, Board, Doing, Slot, State, Word
from .crew import SHORT_NS, Crew, Options, Worker
from .forker import ForkedProcess
from .forks import no_forks, owners
from .tasks import Done, Task, WorkerLost, fail, remote, resolve
from .worker import ANSWER, ERROR, FAILED, READY, TASK, Body, dumps, receive, send

log = logging.getLogger(__name__)

_SECOND = 1_000_000_000
LOOK_SECONDS = 0.5
"""The board is read when a task comes or ends, and at least this often."""
HANDS_OFF_NS = 60 * _SECOND
"""For this long after the program's own resize(), requests of nicety are ignored: the program's author knows better."""
AHEAD = 4
"""Limit of the tasks that a quick worker has at once, including the running one."""
AHEAD_BYTES = 8 << 10
"""Only smaller tasks are given ahead: AHEAD of them fit into a socket's buffer."""
STARTS_PER_TURN = 4
"""Workers started before the manager looks after its tasks again; a fork costs some milliseconds."""
FAILED_STARTS = 3
"""The executor is broken after this many workers in a row ended before they were up, or within AT_ONCE_NS without a task."""
AT_ONCE_NS = _SECOND
RETRY_START_NS = _SECOND
TOUCH_NS = 3600 * _SECOND
"""How often the board's file is touched. Old files are removed: in /tmp after 10 days (tmpfiles.d), in runtime directories from
6 hours on (XDG specification)."""

_QUEUED, _FINISHED, _WAIT_NS, _SERVICE_NS = (int(word) for word in (Word.QUEUED, Word.FINISHED, Word.WAIT_NS, Word.SERVICE_NS))
_ASKED, _RECYCLE = int(Word.ASKED), int(Word.RECYCLE)
_SLOT_STATE, _SLOT_BUSY_NS, _SLOT_SINCE, _SLOT_TASKS = (int(word) for word in (Slot.STATE, Slot.BUSY_NS, Slot.SINCE, Slot.TASKS))
_BUSY = int(Doing.BUSY)
_numbers = itertools.count(1)


class Core:
    """Workers, tasks and the manager thread. Holds no reference to the Executor, so that the Executor can be collected."""

    def __init__(self, options: Options, size: int, maximum: int) -> None:
        """Fork, if that is the start method, and start the manager."""
        self._options = options
        self._board = Board(options.name, os.environ, next(_numbers))
        self._words = self._board.words
        self.target = size
        self.broken = ""
        self._cause: str | None = None
        self._closing = ""
        self._cancel = False
        self._abandoned = False
        self._lock = threading.Lock()  # orders submit() and the end: nothing is submitted after the last look
        self._waiting: deque[Task] = deque()
        self._answered: list[Worker] = []  # finished a task in this turn and can take more
        self._running = 0  # tasks that workers have
        self._ahead = 0  # of these, given ahead
        self._number = 0
        self._failed_starts = 0
        self._next_start = 0
        self._own_resize_at: int | None = None
        self._touch_at = time.monotonic_ns() + TOUCH_NS
        self._hungry = False  # the manager could use a task, and sleeps or is about to
        self._asked = self._recycled = 0
        self._words[Word.MINIMUM] = options.minimum
        self._words[Word.MAXIMUM] = min(maximum, CAPACITY)
        self._words[Word.TARGET] = self.target
        with no_forks():
            self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._crew = Crew(options, self._board)
            self._crew.epoll.register(self._wake, select.EPOLLIN)
            owners[id(self)] = self
        self._eager = self._crew.forks  # workers are started before they are needed
        self.thread = threading.Thread(target=self._manage, name=f"Executor {options.name}", daemon=True)
        try:
            self._crew.begin()
            if self._board.path is None:
                log.warning("nicety cannot see executor %s: %s", options.name, self._board.reason)
            self._board.publish()
            self.thread.start()
        except BaseException:
            self._end()
            raise

    @property
    def processes(self) -> dict[int, BaseProcess | ForkedProcess]:
        """Workers by pid."""
        return self._crew.processes

    # --- called by any thread -------------------------------------------------------------------------------------------------

    def submit(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[Any]:
        """A future for the call. Raises RuntimeError after shutdown, BrokenProcessPool if broken."""
        future: Future[Any] = Future()
        task = Task(future, (fn, args, kwargs))
        with self._lock:
            if self.broken:
                raise self._broken_error()
            if self._closing:
                raise RuntimeError(self._closing)
            self._waiting.append(task)
        self._words[_QUEUED] = len(self._waiting) + self._ahead
        if self._hungry:
            self._hungry = False
            os.eventfd_write(self._wake, 1)
        return future

    def resize(self, size: int) -> None:
        """Set the size for the program itself."""
        with self._lock:
            if self.broken:
                raise self._broken_error()
            if self._closing:
                raise RuntimeError("cannot resize after shutdown")
            self._own_resize_at = time.monotonic_ns()
            self.target = size
            self._eager = True
            words = self._words
            words[Word.TARGET] = size
            words[Word.MAXIMUM] = min(max(words[Word.MAXIMUM], size), CAPACITY)
            words[Word.OWN_RESIZES] += 1
        self._rouse()

    def close(self, why: str, *, cancel: bool) -> None:
        """Accept no more tasks, because of `why`."""
        with self._lock:
            self._closing = self._closing or why
            self._cancel = self._cancel or cancel
        self._rouse()

    def abandon(self) -> None:
        """The Executor was collected. Any thread may call this at any point, so it takes no lock."""
        self._abandoned = True
        self._rouse()

    def forget(self) -> None:
        """In a forked child: close what belongs to the parent."""
        self.broken = "this executor belongs to the process that made it; a forked child needs one of its own"
        self._lock = threading.Lock()  # a thread that does not exist in this process may have held it
        self._hungry = False
        self._crew.forget()
        os.close(self._wake)
        self._wake = -1

    def __del__(self) -> None:
        """Close the wake descriptor only now, when nothing can rouse the manager: its number could be reused by another file."""
        if getattr(self, "_wake", -1) >= 0:
            os.close(self._wake)

    def _rouse(self) -> None:
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    # --- the manager thread ---------------------------------------------------------------------------------------------------

    def _manage(self) -> None:
        try:
            while not self._turn():
                pass
        except BaseException as error:
            self._break(f"the executor's manager failed: {error!r}", error)
            raise
        finally:
            self._end()

    def _turn(self) -> bool:
        """Do everything that is due, then sleep until something happens. True when the executor is finished."""
        crew = self._crew
        self._hungry = True  # set before the look at the queue: a later task rouses us
        more_starts = self._look_after()
        self._dispatch()
        if self._is_over():
            return True
        if not (crew.idle or (not self._eager and crew.staying < self.target)):
            self._hungry = False
        events = crew.epoll.poll(0 if more_starts else LOOK_SECONDS)
        self._hungry = False
        done: list[Done] = []
        dead: list[Worker] = []
        for descriptor, _ in events:
            worker = crew.by_channel.get(descriptor)
            if worker is not None:
                self._receive(worker, done)
            elif descriptor in crew.by_exit:
                dead.append(crew.by_exit[descriptor])
            elif descriptor == self._wake:
                os.eventfd_read(self._wake)
        for worker in dead:
            self._bury(worker, done)
        if done:
            if self._waiting:
                self._look_after()
                self._dispatch()  # workers continue while futures are resolved
            while done:
                resolve(*done.pop(0))
        return False

    def _is_over(self) -> bool:
        """Whether nothing is left to do, for good. Ends the workers when only they are left."""
        if not (self._closing or self._abandoned or self.broken):
            return False
        self._words[Word.STATE] = State.BROKEN if self.broken else State.CLOSING
        if self._cancel:
            self._cancel_waiting()
        with self._lock:  # a submit() that saw it open has appended its task by now
            if self._waiting or self._running:
                return False
        for worker in self._crew.workers:
            if not worker.draining:
                self._drain(worker)
        return not self._crew.workers

    def _cancel_waiting(self) -> None:
        """Cancel all tasks but those that the original would have given to workers that are still coming up."""
        self._cancel = False
        kept: list[Task] = []
        free = max(0, self.target - self._running)
        while self._waiting:
            task = self._waiting.popleft()
            if len(kept) < free or task.running or not task.future.cancel():
                kept.append(task)
            else:
                task.future.set_running_or_notify_cancel()  # notifies those that wait for it
        self._waiting.extend(kept)

    # --- tasks ----------------------------------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Give waiting tasks to idle workers, and ahead to quick workers."""
        waiting, idle = self._waiting, self._crew.idle
        while waiting and idle:
            self._give(idle[-1])
        if waiting and self._crew.staying <= self.target:
            for worker in self._answered:
                while waiting and worker.tasks and self._has_room(worker) and self._give(worker):
                    pass
        self._answered.clear()
        if self._ahead and idle and not waiting:
            self._share()
        self._words[_QUEUED] = len(waiting) + self._ahead

    def _has_room(self, worker: Worker) -> bool:
        return (
            worker.service_ns < SHORT_NS and len(worker.tasks) < AHEAD and self._options.max_tasks is None and not worker.draining
        )

    def _give(self, worker: Worker) -> bool:
        """Give the next waiting task to this worker. False if it cannot be given ahead."""
        task = self._waiting.popleft()
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
            self._waiting.appendleft(task)
            return False
        self._number += 1
        number = self._number
        try:
            send(worker.channel, TASK.pack(number), payload)
        except OSError as error:
            if worker.tasks:  # its channel is full
                task.payload = payload
                self._waiting.appendleft(task)
                return False
            fail(task.future, error)
            return True
        if self._options.retries <= task.tries:
            task.call = None
        task.payload = None
        if worker.tasks:
            self._ahead += 1
        else:
            self._crew.idle.remove(worker)
            if worker.slot:
                self._words[worker.slot + _SLOT_SINCE] = time.monotonic_ns()
                self._words[worker.slot + _SLOT_STATE] = _BUSY
        worker.tasks[number] = task
        worker.given += 1
        self._running += 1
        if worker.given == self._options.max_tasks:
            self._drain(worker)
        return True

    def _receive(self, worker: Worker, done: list[Done]) -> bool:
        """Receive one answer of this worker; False if there is none."""
        try:
            packet = receive(worker.channel, ANSWER)
        except BlockingIOError:
            return False
        if packet is None:
            return False
        self._take(worker, *packet, done)
        return True

    def _take(self, worker: Worker, head: tuple[int, ...], body: Body, done: list[Done]) -> None:
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
        self._running -= 1
        self._failed_starts = 0
        service = ended - began
        worker.service_ns = service
        words[_FINISHED] += 1
        words[_SERVICE_NS] += service
        words[_WAIT_NS] += max(0, began - task.submitted)
        if worker.tasks:
            self._ahead -= 1
        if slot:
            words[slot + _SLOT_TASKS] += 1
            words[slot + _SLOT_BUSY_NS] += service
            words[slot + _SLOT_SINCE] = ended if worker.tasks else 0
        if not worker.draining:
            if not worker.tasks:
                self._crew.rest(worker)
            self._answered.append(worker)
        done.append((task.future, kind, body))

    def _take_back(self, worker: Worker) -> bool:
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
        self._running -= 1
        self._waiting.appendleft(task)
        return True

    def _share(self) -> None:
        """Move tasks not yet begun from busy workers to idle ones."""
        idle = self._crew.idle
        for worker in self._crew.workers:
            while len(worker.tasks) > 1 and idle:
                if not self._take_back(worker):
                    break
                self._ahead -= 1
                self._give(idle[-1])

    # --- workers --------------------------------------------------------------------------------------------------------------

    def _look_after(self) -> bool:
        """Follow requests, start missing workers, drain excess workers. True: more workers must be started at once."""
        words, crew = self._words, self._crew
        now = time.monotonic_ns()
        if now >= self._touch_at:
            self._touch_at = now + TOUCH_NS
            self._board.touch()
        if words[_ASKED] != self._asked:
            self._follow(words[_ASKED], now)
        if words[_RECYCLE] != self._recycled:
            self._recycled = words[_RECYCLE]
            for worker in crew.workers:
                if worker.process.pid == self._recycled & 0xFFFF_FFFF and not worker.draining:
                    self._drain(worker)
        if self.broken:
            return False
        if crew.staying > self.target:
            while (spare := crew.dispensable(self.target)) is not None:
                self._drain(spare)
            return False
        closing = self._closing or self._abandoned
        missing = self.target - crew.staying
        if not self._eager or closing:
            missing = min(missing, len(self._waiting) - len(crew.idle) - crew.starting)
        if missing <= 0 or now < self._next_start:
            return False
        for _ in range(min(missing, STARTS_PER_TURN)):
            try:
                crew.start()
            except OSError as error:
                self._start_failed(f"a worker cannot be started: {error}", error)
                return False
            except Exception as error:  # raised by the initializer and its arguments when they are pickled for spawn
                self._break(f"a worker cannot be started: {error!r}", error)
                return False
        return missing > STARTS_PER_TURN

    def _follow(self, request: int, now: int) -> None:
        """Follow nicety's request for a size, unless the program's own resize is recent or the size is outside its limits."""
        words = self._words
        with self._lock:
            self._asked = request
            size = request & 0xFFFF_FFFF
            own = self._own_resize_at
            hands_off = own is not None and now - own < HANDS_OFF_NS
            if not hands_off and words[Word.MINIMUM] <= size <= words[Word.MAXIMUM]:
                self.target = size
                self._eager = True
                words[Word.TARGET] = size
            words[Word.ANSWERED] = request

    def _start_failed(self, text: str, error: BaseException | None) -> None:
        self._failed_starts += 1
        self._next_start = time.monotonic_ns() + RETRY_START_NS
        log.warning("executor %s: %s", self._options.name, text)
        if self._failed_starts >= FAILED_STARTS and not any(worker.ready for worker in self._crew.workers):
            self._break(f"{text}; given up after {self._failed_starts} tries", error)

    def _drain(self, worker: Worker) -> None:
        """Let this worker end after its running task; tasks that it got ahead go back to the queue."""
        while len(worker.tasks) > 1 and self._take_back(worker):
            self._ahead -= 1
        self._crew.let_go(worker)

    def _bury(self, worker: Worker, done: list[Done]) -> None:
        """A worker has ended: take over what it left. At most the task that it ran is lost."""
        while self._receive(worker, done):
            pass
        self._ahead -= max(0, len(worker.tasks) - 1)
        while self._take_back(worker):
            pass
        self._crew.strike_off(worker)
        lost = list(worker.tasks.values())
        worker.tasks.clear()
        self._running -= len(lost)
        if worker.failure:
            self._break("the initializer of a worker failed, the executor is not usable any more", worker.failure)
        elif (
            not worker.draining
            and worker.given == 0
            and (self._waiting or not self._closing)
            and (not worker.ready or time.monotonic_ns() - worker.born < AT_ONCE_NS)
        ):
            self._start_failed(f"{worker.ending()} before its first task", None)
        for task in reversed(lost):
            self._lose(worker, task, done)

    def _lose(self, worker: Worker, task: Task, done: list[Done]) -> None:
        task.tries += 1
        if self.broken:
            done.append((task.future, ERROR, self._broken_error()))
        elif task.call is not None:
            self._words[Word.RETRIED] += 1
            self._waiting.appendleft(task)
        else:
            self._words[Word.LOST] += 1
            text = f"{worker.ending()} while it ran this task"
            text += f", for the {task.tries}th time" if task.tries > 1 else "; Executor(retries=...) runs such tasks again"
            done.append((task.future, ERROR, WorkerLost(text)))

    # --- the end --------------------------------------------------------------------------------------------------------------

    def _break(self, text: str, cause: BaseException | str | None) -> None:
        """Fail all tasks, now and later, as the original does when any worker dies."""
        if self.broken:
            return
        if isinstance(cause, BaseException):
            cause = "".join(format_exception(cause))
        self._cause = cause
        with self._lock:
            self.broken = text
        tasks = list(self._waiting)
        self._waiting.clear()
        for worker in self._crew.workers:
            tasks.extend(worker.tasks.values())
            self._running -= len(worker.tasks)
            worker.tasks.clear()
            worker.process.terminate()
        self._ahead = 0
        for task in tasks:
            if task.running or task.future.set_running_or_notify_cancel():
                fail(task.future, self._broken_error())

    def _broken_error(self) -> BrokenProcessPool:
        error = BrokenProcessPool(self.broken)
        if self._cause:
            error.__cause__ = remote(self._cause)
        return error

    def _end(self) -> None:
        """Release everything: the manager's last action."""
        self._board.remove()
        with no_forks():
            owners.pop(id(self), None)
            self._crew.disband()
        self._crew.end()
