"""What is behind an `Executor`: its tasks, its workers, and the manager thread that brings them together.

Runs in the user's program and imports nothing but the standard library, the board and the other parts of the executor.

    submit() -> waiting -> [manager thread] -> channel of a worker -> task runs -> channel -> [manager thread] -> future

Each worker has a channel of its own, and the manager gives it a task when it is idle; a worker that finishes within SHORT_NS is
given its next ones ahead, which the manager takes back when the worker ends or another one has nothing to do. So a worker that is
killed takes one task with it, and a worker that leaves takes none.

Only the manager thread touches workers. With the start method "fork" they are children of a forker (see there), which is forked by
the thread that submits the first task, before the manager exists.
"""

from __future__ import annotations

import itertools
import logging
import os
import pickle
import select
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from concurrent.futures.process import BrokenProcessPool, _RemoteTraceback
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from traceback import format_exception
from typing import Any

from .executor_board import CAPACITY, Board, Doing, Slot, State, Word
from .executor_forker import ForkedProcess, Forker
from .executor_worker import ANSWER, ERROR, FAILED, READY, TASK, UNREADABLE, VALUE, Body, dumps, receive, send, serve

log = logging.getLogger(__name__)

_SECOND = 1_000_000_000
LOOK_SECONDS = 0.5
"""The board is looked at when a task comes or ends, and at least so often."""
HANDS_OFF_NS = 60 * _SECOND
"""After the program's own resize() no request of nicety is followed for so long: who wrote the program knows better."""
SHORT_NS = 2_000_000
"""A worker whose last task took less is given tasks ahead: handing over costs about 0.03 ms, so beyond it nothing is won."""
AHEAD = 4
"""Tasks that such a worker has at most, the one that it runs included."""
AHEAD_BYTES = 8 << 10
"""Only tasks that are smaller are given ahead: AHEAD of them fit into a socket's buffer."""
STARTS_PER_TURN = 4
"""A fork costs some milliseconds; between so many the manager sees to its tasks."""
FAILED_STARTS = 3
"""Workers in a row that end before they are up, or within AT_ONCE_NS without a task, after which the executor is broken."""
AT_ONCE_NS = _SECOND
RETRY_START_NS = _SECOND
TOUCH_NS = 3600 * _SECOND
"""Files in /tmp are removed when they are 10 days old (tmpfiles.d), in runtime directories from 6 hours on (XDG specification)."""

_QUEUED, _FINISHED, _WAIT_NS, _SERVICE_NS = (int(word) for word in (Word.QUEUED, Word.FINISHED, Word.WAIT_NS, Word.SERVICE_NS))
_ASKED, _RECYCLE = int(Word.ASKED), int(Word.RECYCLE)
_SLOT_STATE, _SLOT_BUSY_NS, _SLOT_SINCE, _SLOT_TASKS = (int(word) for word in (Slot.STATE, Slot.BUSY_NS, Slot.SINCE, Slot.TASKS))
_STARTING, _IDLE, _BUSY, _DRAINING = (int(doing) for doing in (Doing.STARTING, Doing.IDLE, Doing.BUSY, Doing.DRAINING))


class WorkerLost(BrokenProcessPool):
    """The worker ended while it ran this task. Other tasks are not concerned, and the executor goes on."""


class UnreadableTask(BrokenProcessPool):
    """The task, or what it returned, could not be unpickled on the other side. Other tasks are not concerned."""


@dataclass(frozen=True, slots=True)
class Options:
    """What stays as it is for the life of an executor."""

    name: str
    context: BaseContext
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    max_tasks: int | None
    minimum: int
    retries: int


# --- what must not be inherited -----------------------------------------------------------------------------------------------

_cores: dict[int, Core] = {}
"""Executors of this process that have workers, by id."""
_fork_lock = threading.RLock()
"""Held while descriptors are made or closed, and by every fork: no child is born between a socket and its place in the books."""
_newborn: list[socket.socket] = []
"""Sockets that are in no books yet, of workers and forkers that are being started; a forked child closes them."""
_exiting: list[bool] = []
"""Not empty: the interpreter is about to end."""
_numbers = itertools.count(1)


def _before_fork() -> None:
    _fork_lock.acquire()


def _after_fork_in_child() -> None:
    """A child that kept our ends of the channels, its own among them, would keep workers from noticing that their owner is gone."""
    global _fork_lock
    _fork_lock = threading.RLock()
    for end in _newborn:
        end.close()
    _newborn.clear()
    for core in _cores.values():
        core.forget()
    _cores.clear()


def _after_fork_in_parent() -> None:
    _fork_lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


def _at_exit() -> None:
    """Finish what was submitted, as the original does, and when it does: before the program's atexit handlers take away what tasks
    may need, and before its other threads are waited for."""
    _exiting.append(True)
    cores = list(_cores.values())
    for core in cores:
        core.close("cannot schedule new futures after interpreter shutdown", cancel=False)
    for core in cores:
        core.thread.join()


def is_exiting() -> bool:
    """Whether the interpreter is about to end."""
    return bool(_exiting)


threading._register_atexit(_at_exit)  # type: ignore[attr-defined]  # noqa: SLF001 - atexit would be too late, see there


# --- tasks and workers --------------------------------------------------------------------------------------------------------


class _Task:
    __slots__ = ("call", "future", "payload", "running", "submitted", "tries")

    def __init__(self, future: Future[Any], call: tuple[Any, ...]) -> None:
        self.future = future
        self.call: tuple[Any, ...] | None = call  # function, args, kwargs; dropped when no longer needed
        self.payload: bytes | None = None  # the call, pickled
        self.submitted = time.monotonic_ns()
        self.running = False  # the future says so: it cannot be cancelled any more
        self.tries = 0  # workers that ended while they ran it


class _Worker:
    __slots__ = (
        "born",
        "channel",
        "draining",
        "exit_fd",
        "failure",
        "far",
        "given",
        "owns_exit_fd",
        "process",
        "ready",
        "service_ns",
        "slot",
        "tasks",
    )

    def __init__(self, process: BaseProcess | ForkedProcess, channel: socket.socket, far: socket.socket) -> None:
        self.process = process
        self.channel = channel
        self.far = far  # the worker's end: what it has not received can be taken back there
        self.slot = 0  # on the board; 0: it is not shown
        self.born = time.monotonic_ns()
        self.tasks: dict[int, _Task] = {}  # by number, in the order they were given; it runs the first
        self.given = 0
        self.ready = False
        self.draining = False
        self.failure = ""  # traceback of its initializer
        self.service_ns = SHORT_NS  # of its last task
        try:
            self.exit_fd = os.pidfd_open(process.pid or 0)
            self.owns_exit_fd = True
        except OSError:  # a child of the forkserver that has ended already, or a kernel or container without pidfds
            if isinstance(process, ForkedProcess):
                process.kill()
                raise
            self.exit_fd = process.sentinel
            self.owns_exit_fd = False

    def close(self) -> None:
        """Give the descriptors back."""
        self.channel.close()
        self.far.close()
        if self.owns_exit_fd:
            os.close(self.exit_fd)
            self.owns_exit_fd = False

    def ending(self) -> str:
        """How it ended, for people."""
        code = self.process.exitcode
        who = f"worker pid {self.process.pid}"
        if code is None:
            return f"{who} ended, somebody else has taken its exit status"
        if code >= 0:
            return f"{who} ended with exit status {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"{who} was killed by {name}" + (" (out of memory? the kernel's log tells)" if code == -signal.SIGKILL else "")


_Done = tuple[Future[Any], int, Body | BaseException]
"""A future with the kind of its answer and what it brings; an exception for ERROR that came up on our side."""


class Core:
    """Workers, tasks and the manager thread. Holds no reference to the Executor, so that this one can be collected."""

    def __init__(self, options: Options, size: int, maximum: int, *, eager: bool) -> None:
        """Forks, if forking is the start method, and starts the manager. `eager`: workers are started before they are needed."""
        self._options = options
        self._context: Any = options.context  # typeshed has no Process in the base of the contexts
        forks = options.context.get_start_method() == "fork"
        self._eager = eager or forks
        self._forker: Forker | None = None
        self.target = size
        self.processes: dict[int, BaseProcess | ForkedProcess] = {}
        self.broken = ""
        self._cause: str | None = None
        self._closing = ""
        self._cancel = False
        self._abandoned = False
        self._lock = threading.Lock()  # orders submit() against the end: nothing is submitted after the last look
        self._waiting: deque[_Task] = deque()
        self._workers: list[_Worker] = []
        self._by_channel: dict[int, _Worker] = {}
        self._by_exit: dict[int, _Worker] = {}
        self._idle: list[_Worker] = []  # the last one was at work last
        self._answered: list[_Worker] = []  # finished a task in this turn, and may be given more
        self._staying = 0  # workers that are not draining
        self._starting = 0  # of these, not up yet
        self._running = 0  # tasks that workers have
        self._ahead = 0  # of these, given ahead
        self._number = 0
        self._failed_starts = 0
        self._next_start = 0
        self._own_resize_at: int | None = time.monotonic_ns() if eager else None
        self._touch_at = time.monotonic_ns() + TOUCH_NS
        self._hungry = False  # the manager could do something with a task, and is, or will be, asleep
        self._board = Board(options.name, os.environ, next(_numbers))
        self._words = self._board.words
        self._asked = self._recycled = 0
        self._words[Word.MINIMUM] = options.minimum
        self._words[Word.MAXIMUM] = min(maximum, CAPACITY)
        self._words[Word.TARGET] = self.target
        with _fork_lock:
            self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._epoll = select.epoll()
            self._epoll.register(self._wake, select.EPOLLIN)
            _cores[id(self)] = self
        self.thread = threading.Thread(target=self._manage, name=f"Executor {options.name}", daemon=True)
        try:
            if forks:
                with _fork_lock:
                    self._forker = Forker(self._context, options.initializer, options.initargs, _newborn)
            if self._board.path is None:
                log.warning("nicety cannot see executor %s: %s", options.name, self._board.reason)
            self._board.publish()
            self.thread.start()
        except BaseException:
            self._end()
            raise

    # --- called by any thread -------------------------------------------------------------------------------------------------

    def submit(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[Any]:
        """A future for the call. Raises RuntimeError after shutdown, BrokenProcessPool when broken."""
        future: Future[Any] = Future()
        task = _Task(future, (fn, args, kwargs))
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
        """The program's own wish."""
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
        """Take no more tasks, because of `why`."""
        with self._lock:
            self._closing = self._closing or why
            self._cancel = self._cancel or cancel
        self._rouse()

    def abandon(self) -> None:
        """The Executor was collected. May be called in the middle of anything, by any thread, so it takes no lock."""
        self._abandoned = True
        self._rouse()

    def forget(self) -> None:
        """In a forked child: close what is the parent's."""
        self.broken = "this executor belongs to the process that made it; a forked child needs one of its own"
        self._lock = threading.Lock()  # a thread that is not in this process may have held it
        self._hungry = False
        for worker in self._workers:
            worker.close()
        if self._forker is not None:
            self._forker.forget()
        self._epoll.close()
        os.close(self._wake)
        self._wake = -1

    def __del__(self) -> None:
        """Only now can nobody rouse the manager any more: a number that was closed earlier could mean another file by then."""
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
        """See to everything that is due, then sleep until something happens. True when all is over."""
        self._hungry = True  # before looking at the queue: a task that comes after the look rouses us
        more_starts = self._look_after()
        self._dispatch()
        if self._is_over():
            return True
        if not (self._idle or (not self._eager and self._staying < self.target)):
            self._hungry = False
        events = self._epoll.poll(0 if more_starts else LOOK_SECONDS)
        self._hungry = False
        done: list[_Done] = []
        dead: list[_Worker] = []
        for descriptor, _ in events:
            worker = self._by_channel.get(descriptor)
            if worker is not None:
                self._receive(worker, done)
            elif descriptor in self._by_exit:
                dead.append(self._by_exit[descriptor])
            elif descriptor == self._wake:
                os.eventfd_read(self._wake)
        for worker in dead:
            self._bury(worker, done)
        if done:
            if self._waiting:
                self._look_after()
                self._dispatch()  # workers go on while futures are resolved
            while done:
                _resolve(*done.pop(0))
        return False

    def _is_over(self) -> bool:
        """Whether there is nothing left to do, ever. Ends the workers when only they are left."""
        if not (self._closing or self._abandoned or self.broken):
            return False
        self._words[Word.STATE] = State.BROKEN if self.broken else State.CLOSING
        if self._cancel:
            self._cancel_waiting()
        with self._lock:  # a submit() that saw it open has appended its task by now
            if self._waiting or self._running:
                return False
        for worker in self._workers:
            if not worker.draining:
                self._drain(worker)
        return not self._workers

    def _cancel_waiting(self) -> None:
        """All but those that workers which are just coming up would have been given already by the original."""
        self._cancel = False
        kept: list[_Task] = []
        free = max(0, self.target - self._running)
        while self._waiting:
            task = self._waiting.popleft()
            if len(kept) < free or task.running or not task.future.cancel():
                kept.append(task)
            else:
                task.future.set_running_or_notify_cancel()  # tells those who wait for it
        self._waiting.extend(kept)

    # --- tasks ----------------------------------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Give waiting tasks to idle workers, and ahead to quick ones."""
        waiting, idle = self._waiting, self._idle
        while waiting and idle:
            self._give(idle[-1])
        if waiting and self._staying <= self.target:
            for worker in self._answered:
                while waiting and worker.tasks and self._has_room(worker) and self._give(worker):
                    pass
        self._answered.clear()
        if self._ahead and idle and not waiting:
            self._share()
        self._words[_QUEUED] = len(waiting) + self._ahead

    def _has_room(self, worker: _Worker) -> bool:
        return (
            worker.service_ns < SHORT_NS and len(worker.tasks) < AHEAD and self._options.max_tasks is None and not worker.draining
        )

    def _give(self, worker: _Worker) -> bool:
        """Hand the next waiting task to this worker. False when it cannot be given ahead."""
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
                error.__cause__ = _remote("".join(format_exception(error)))
                _fail(task.future, error)
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
            _fail(task.future, error)
            return True
        if self._options.retries <= task.tries:
            task.call = None
        task.payload = None
        if worker.tasks:
            self._ahead += 1
        else:
            self._idle.remove(worker)
            if worker.slot:
                self._words[worker.slot + _SLOT_SINCE] = time.monotonic_ns()
                self._words[worker.slot + _SLOT_STATE] = _BUSY
        worker.tasks[number] = task
        worker.given += 1
        self._running += 1
        if worker.given == self._options.max_tasks:
            self._drain(worker)
        return True

    def _receive(self, worker: _Worker, done: list[_Done]) -> bool:
        """One answer of this worker; False when there is none."""
        try:
            packet = receive(worker.channel, ANSWER)
        except BlockingIOError:
            return False
        if packet is None:
            return False
        self._take(worker, *packet, done)
        return True

    def _take(self, worker: _Worker, head: tuple[int, ...], body: Body, done: list[_Done]) -> None:
        """What an answer means."""
        kind, number, began, ended = head
        words, slot = self._words, worker.slot
        if kind == READY:
            worker.ready = True
            self._board.started(time.monotonic_ns() - worker.born)
            if not worker.draining:
                self._starting -= 1
                self._idle.append(worker)
                if slot:
                    words[slot + _SLOT_STATE] = _IDLE
            return
        if kind == FAILED:
            worker.failure = bytes(body).decode("utf-8", "replace")
            return
        task = worker.tasks.pop(number, None)
        if task is None:  # it was failed when the executor broke
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
                self._idle.append(worker)
                if slot:
                    words[slot + _SLOT_STATE] = _IDLE
            self._answered.append(worker)
        done.append((task.future, kind, body))

    def _take_back(self, worker: _Worker) -> bool:
        """Put one task that the worker was given ahead back to the front of the queue; False when it has begun all of them."""
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
        """Some workers have nothing to do while others have tasks that they have not begun."""
        for worker in self._workers:
            while len(worker.tasks) > 1 and self._idle:
                if not self._take_back(worker):
                    break
                self._ahead -= 1
                self._give(self._idle[-1])

    # --- workers --------------------------------------------------------------------------------------------------------------

    def _look_after(self) -> bool:
        """Follow requests, start missing workers, drain those that are too many. True: more are to be started at once."""
        words = self._words
        now = time.monotonic_ns()
        if now >= self._touch_at:
            self._touch_at = now + TOUCH_NS
            self._board.touch()
        if words[_ASKED] != self._asked:
            self._follow(words[_ASKED], now)
        if words[_RECYCLE] != self._recycled:
            self._recycled = words[_RECYCLE]
            for worker in self._workers:
                if worker.process.pid == self._recycled & 0xFFFF_FFFF and not worker.draining:
                    self._drain(worker)
        if self.broken:
            return False
        if self._staying > self.target:
            self._shrink()
            return False
        closing = self._closing or self._abandoned
        missing = self.target - self._staying
        if not self._eager or closing:
            missing = min(missing, len(self._waiting) - len(self._idle) - self._starting)
        if missing <= 0 or now < self._next_start:
            return False
        for _ in range(min(missing, STARTS_PER_TURN)):
            try:
                self._start()
            except OSError as error:
                self._start_failed(f"a worker cannot be started: {error}", error)
                return False
            except Exception as error:  # what the initializer and its arguments do when they are pickled for spawn
                self._break(f"a worker cannot be started: {error!r}", error)
                return False
        return missing > STARTS_PER_TURN

    def _follow(self, request: int, now: int) -> None:
        """nicety asks for a size. Not followed while the program's own wish is fresh, or outside of what the program allows."""
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

    def _shrink(self) -> None:
        """Let go of workers that have nothing to do: first those that are not up yet, then the largest."""
        for worker in [worker for worker in reversed(self._workers) if not worker.ready and not worker.draining]:
            if self._staying <= self.target:
                return
            self._drain(worker)
        while self._idle and self._staying > self.target:
            self._drain(max(self._idle, key=_resident_pages))

    def _start(self) -> None:
        """One more worker. Raises OSError, and what pickling the initializer raises."""
        with _fork_lock:
            channel, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            _newborn.extend((channel, far))
        worker: _Worker | None = None
        try:
            channel.setblocking(False)
            far.setblocking(True)  # a default timeout of the program's sockets is not meant for it
            process = self._new_process(far)
            worker = _Worker(process, channel, far)
        finally:
            with _fork_lock:
                _newborn.remove(channel)
                _newborn.remove(far)
                if worker is None:
                    channel.close()
                    far.close()
                else:
                    self._workers.append(worker)
        worker.slot = self._board.take_slot(process.pid or 0)
        self._epoll.register(channel, select.EPOLLIN)
        self._epoll.register(worker.exit_fd, select.EPOLLIN)
        self._by_channel[channel.fileno()] = worker
        self._by_exit[worker.exit_fd] = worker
        self.processes[process.pid or 0] = process
        self._staying += 1
        self._starting += 1

    def _new_process(self, far: socket.socket) -> BaseProcess | ForkedProcess:
        if self._forker is not None:
            return self._forker.start(far)
        process: BaseProcess = self._context.Process(target=serve, args=(far, self._options.initializer, self._options.initargs))
        process.start()
        return process

    def _start_failed(self, text: str, error: BaseException | None) -> None:
        self._failed_starts += 1
        self._next_start = time.monotonic_ns() + RETRY_START_NS
        log.warning("executor %s: %s", self._options.name, text)
        if self._failed_starts >= FAILED_STARTS and not any(worker.ready for worker in self._workers):
            self._break(f"{text}; given up after {self._failed_starts} tries", error)

    def _drain(self, worker: _Worker) -> None:
        """Let this worker end when it has done the task that it runs; what it was given ahead goes back to the queue."""
        while len(worker.tasks) > 1 and self._take_back(worker):
            self._ahead -= 1
        worker.draining = True
        self._staying -= 1
        if not worker.ready:
            self._starting -= 1
        elif not worker.tasks:
            self._idle.remove(worker)
        if worker.slot:
            self._words[worker.slot + _SLOT_STATE] = _DRAINING
        try:
            worker.channel.shutdown(socket.SHUT_WR)
        except OSError:  # it has ended meanwhile
            pass

    def _bury(self, worker: _Worker, done: list[_Done]) -> None:
        """A worker has ended: take what it left behind. At most the task that it ran is lost."""
        while self._receive(worker, done):
            pass
        self._ahead -= max(0, len(worker.tasks) - 1)
        while self._take_back(worker):
            pass
        if isinstance(worker.process, ForkedProcess):
            worker.process.reap()
        else:
            worker.process.join()
        self._forget_worker(worker)
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

    def _lose(self, worker: _Worker, task: _Task, done: list[_Done]) -> None:
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

    def _forget_worker(self, worker: _Worker) -> None:
        if not worker.draining:
            self._staying -= 1
            if not worker.ready:
                self._starting -= 1
            elif worker in self._idle:
                self._idle.remove(worker)
        with _fork_lock:
            self._workers.remove(worker)
            self._epoll.unregister(worker.channel)
            self._epoll.unregister(worker.exit_fd)
            del self._by_channel[worker.channel.fileno()]
            del self._by_exit[worker.exit_fd]
            worker.close()
        self.processes.pop(worker.process.pid or 0, None)
        self._board.give_slot(worker.slot)

    # --- the end --------------------------------------------------------------------------------------------------------------

    def _break(self, text: str, cause: BaseException | str | None) -> None:
        """Fail everything, now and later, as the original does when any of its workers dies."""
        if self.broken:
            return
        if isinstance(cause, BaseException):
            cause = "".join(format_exception(cause))
        self._cause = cause
        with self._lock:
            self.broken = text
        tasks = list(self._waiting)
        self._waiting.clear()
        for worker in self._workers:
            tasks.extend(worker.tasks.values())
            self._running -= len(worker.tasks)
            worker.tasks.clear()
            worker.process.terminate()
        self._ahead = 0
        for task in tasks:
            if task.running or task.future.set_running_or_notify_cancel():
                _fail(task.future, self._broken_error())

    def _broken_error(self) -> BrokenProcessPool:
        error = BrokenProcessPool(self.broken)
        if self._cause:
            error.__cause__ = _remote(self._cause)
        return error

    def _end(self) -> None:
        """Give everything back. The manager's last act."""
        self._board.remove()
        with _fork_lock:
            _cores.pop(id(self), None)
            for worker in self._workers:
                worker.close()
            self._workers.clear()
            self._epoll.close()
        if self._forker is not None:
            self._forker.close()


def _resolve(future: Future[Any], kind: int, body: Body | BaseException) -> None:
    """Give a future what its worker answered. Callbacks of the program run here."""
    if isinstance(body, BaseException):
        _fail(future, body)
        return
    if kind == UNREADABLE:
        error = UnreadableTask("the worker could not unpickle the task; the cause follows")
        error.__cause__ = _remote(bytes(body).decode("utf-8", "replace"))
        _fail(future, error)
        return
    try:
        value = pickle.loads(body)  # noqa: S301 - from our own child
    except BaseException as problem:
        error = UnreadableTask("what the task returned or raised could not be unpickled; the cause follows")
        error.__cause__ = _remote("".join(format_exception(problem)))
        _fail(future, error)
        return
    if kind == VALUE:
        try:
            future.set_result(value)
        except InvalidStateError:  # the program resolved it itself
            pass
    else:
        _fail(future, value)


def _fail(future: Future[Any], error: BaseException) -> None:
    try:
        future.set_exception(error)
    except InvalidStateError:  # the program resolved it itself
        pass


def _resident_pages(worker: _Worker) -> int:
    """Resident memory of a worker; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{worker.process.pid}/statm").read_bytes().split()[1])
    except (OSError, IndexError):
        return 0


def _remote(text: str) -> BaseException:
    """A traceback from elsewhere, as the cause of an error: what the original raises, too."""
    return _RemoteTraceback(f'\n"""\n{text}"""')  # type: ignore[arg-type]  # typeshed wants a traceback here
