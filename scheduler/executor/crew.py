"""The workers of an executor as their owner has them: started, counted, let go and struck off.

Runs in the user's program. Must not know what they are given to do; that is the core's.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from .board import Board, Doing, Slot
from .forker import ForkedProcess, Forker
from .forks import newborn, no_forks
from .tasks import Task
from .worker import serve

SHORT_NS = 2_000_000
"""A worker whose last task took less is given tasks ahead: handing over costs about 0.03 ms, so beyond it nothing is won."""

_STATE = int(Slot.STATE)
_IDLE, _DRAINING = int(Doing.IDLE), int(Doing.DRAINING)


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


class Worker:
    """One worker: its process, its channel, and the tasks that it has."""

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
        self.tasks: dict[int, Task] = {}  # by number, in the order they were given; it runs the first
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


class Crew:
    """All workers that there are, and who of them is idle, on its way up, or to stay. Only the manager thread touches them."""

    def __init__(self, options: Options, board: Board) -> None:
        self._options = options
        self._context: Any = options.context  # typeshed has no Process in the base of the contexts
        self._board = board
        self._forker: Forker | None = None
        self.forks = options.context.get_start_method() == "fork"
        self.processes: dict[int, BaseProcess | ForkedProcess] = {}
        self.workers: list[Worker] = []
        self.by_channel: dict[int, Worker] = {}
        self.by_exit: dict[int, Worker] = {}
        self.idle: list[Worker] = []  # the last one was at work last
        self.staying = 0  # workers that are not draining
        self.starting = 0  # of these, not up yet
        self.epoll = select.epoll()

    def begin(self) -> None:
        """Fork the forker, if that is how workers are made. Called by the thread that begins it."""
        if self.forks:
            with no_forks():
                self._forker = Forker(self._context, self._options.initializer, self._options.initargs, newborn)

    def start(self) -> None:
        """One more worker. Raises OSError, and what pickling the initializer raises."""
        with no_forks():
            channel, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            newborn.extend((channel, far))
        worker: Worker | None = None
        try:
            channel.setblocking(False)
            far.setblocking(True)  # a default timeout of the program's sockets is not meant for it
            process = self._new_process(far)
            worker = Worker(process, channel, far)
        finally:
            with no_forks():
                newborn.remove(channel)
                newborn.remove(far)
                if worker is None:
                    channel.close()
                    far.close()
                else:
                    self.workers.append(worker)
        worker.slot = self._board.take_slot(process.pid or 0)
        self.epoll.register(channel, select.EPOLLIN)
        self.epoll.register(worker.exit_fd, select.EPOLLIN)
        self.by_channel[channel.fileno()] = worker
        self.by_exit[worker.exit_fd] = worker
        self.processes[process.pid or 0] = process
        self.staying += 1
        self.starting += 1

    def _new_process(self, far: socket.socket) -> BaseProcess | ForkedProcess:
        if self._forker is not None:
            return self._forker.start(far)
        process: BaseProcess = self._context.Process(target=serve, args=(far, self._options.initializer, self._options.initargs))
        process.start()
        return process

    def is_up(self, worker: Worker) -> None:
        """This worker has come up, and waits for its first task."""
        worker.ready = True
        self._board.started(time.monotonic_ns() - worker.born)
        if not worker.draining:
            self.starting -= 1
            self.rest(worker)

    def rest(self, worker: Worker) -> None:
        """This worker has nothing to do."""
        self.idle.append(worker)
        if worker.slot:
            self._board.words[worker.slot + _STATE] = _IDLE

    def let_go(self, worker: Worker) -> None:
        """Have this worker end when it has done what it has."""
        worker.draining = True
        self.staying -= 1
        if not worker.ready:
            self.starting -= 1
        elif not worker.tasks:
            self.idle.remove(worker)
        if worker.slot:
            self._board.words[worker.slot + _STATE] = _DRAINING
        try:
            worker.channel.shutdown(socket.SHUT_WR)
        except OSError:  # it has ended meanwhile
            pass

    def dispensable(self, target: int) -> Worker | None:
        """The next worker to let go of when more than `target` are to stay and one has nothing to do: one that is not up yet, the
        youngest first, then the largest."""
        if self.staying <= target:
            return None
        for worker in reversed(self.workers):
            if not worker.ready and not worker.draining:
                return worker
        return max(self.idle, key=_resident_pages, default=None)

    def strike_off(self, worker: Worker) -> None:
        """This worker has ended."""
        if isinstance(worker.process, ForkedProcess):
            worker.process.reap()
        else:
            worker.process.join()
        if not worker.draining:
            self.staying -= 1
            if not worker.ready:
                self.starting -= 1
            elif worker in self.idle:
                self.idle.remove(worker)
        with no_forks():
            self.workers.remove(worker)
            self.epoll.unregister(worker.channel)
            self.epoll.unregister(worker.exit_fd)
            del self.by_channel[worker.channel.fileno()]
            del self.by_exit[worker.exit_fd]
            worker.close()
        self.processes.pop(worker.process.pid or 0, None)
        self._board.give_slot(worker.slot)

    def forget(self) -> None:
        """In a forked child: close what is the parent's."""
        for worker in self.workers:
            worker.close()
        if self._forker is not None:
            self._forker.forget()
        self.epoll.close()

    def disband(self) -> None:
        """Give all descriptors of workers back."""
        for worker in self.workers:
            worker.close()
        self.workers.clear()
        self.epoll.close()

    def end(self) -> None:
        """Let the forker end."""
        if self._forker is not None:
            self._forker.close()


def _resident_pages(worker: Worker) -> int:
    """Resident memory of a worker; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{worker.process.pid}/statm").read_bytes().split()[1])
    except (OSError, IndexError):
        return 0
