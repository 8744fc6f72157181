"""The workers of an executor on its owner's side: started, counted, drained and removed.

Runs in the user's program. Must not know what the workers are given to do; the core does.
"""

from __future__ import annotations

import functools
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

from .board import Board, Slot, WorkerState
from .clean import start_interpreter
from .forker import Begin, ForkedProcess, Forker, fork_program
from .forks import newborn, no_forks
from .tasks import Task
from .worker import serve

SHORT_NS = 2_000_000
"""A worker whose last task took less is given tasks ahead. Chosen: a handover costs about 0.03 ms, so longer tasks gain nothing
from it."""

_STATE = int(Slot.STATE)
_IDLE, _DRAINING = int(WorkerState.IDLE), int(WorkerState.DRAINING)


@dataclass(frozen=True, slots=True)
class Options:
    """Settings that stay the same for the life of an executor."""

    name: str
    context: BaseContext
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    max_tasks: int | None
    minimum: int
    retries: int
    idle_seconds: float | None  # after which a worker without a task ends; None: never


class CrewWorker:
    """One worker: its process, its channel and its tasks."""

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
        "rested_at",
        "service_ns",
        "slot",
        "tasks",
    )

    def __init__(self, process: BaseProcess | ForkedProcess, channel: socket.socket, far: socket.socket) -> None:
        self.process = process
        self.channel = channel
        self.far = far  # the worker's end, where tasks that it has not received can be taken back
        self.slot = 0  # on the board; 0: not shown
        self.born = time.monotonic_ns()
        self.tasks: dict[int, Task] = {}  # by number, in the order they were given; it runs the first
        self.given = 0
        self.ready = False
        self.rested_at = 0  # monotonic ns since when it is idle
        self.draining = False
        self.failure = ""  # traceback of its initializer
        self.service_ns = SHORT_NS  # of its last task
        try:
            self.exit_fd = os.pidfd_open(process.pid or 0)
            self.owns_exit_fd = True
        except OSError:  # an ended child of the forkserver, or a kernel or container without pidfds
            if isinstance(process, ForkedProcess):
                process.kill()
                raise
            self.exit_fd = process.sentinel
            self.owns_exit_fd = False

    def close(self) -> None:
        """Close the descriptors."""
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
    """All workers, and which of them are idle, starting or staying.

    Only the manager thread touches them, with three exceptions. The thread that creates the core calls `begin`, before the manager
    exists. Any thread may copy `processes`. A forked child, in which nothing else runs yet, calls `forget`: so `workers` and
    descriptors change only under `no_forks()`.
    """

    def __init__(self, options: Options, board: Board) -> None:
        self._options = options
        self._context: Any = options.context  # typeshed has no Process in the base of the contexts
        self._board = board
        self._forker: Forker | None = None
        self.forks = options.context.get_start_method() == "fork"
        self.processes: dict[int, BaseProcess | ForkedProcess] = {}
        self.workers: list[CrewWorker] = []
        self.by_channel: dict[int, CrewWorker] = {}
        self.by_exit: dict[int, CrewWorker] = {}
        self.idle: list[CrewWorker] = []  # the last one worked most recently
        self.staying = 0  # workers that are not draining
        self.starting = 0  # of these, not up yet
        self.failed_starts = 0  # in a row; a finished task ends the row
        self.answered: list[CrewWorker] = []  # finished a task since tasks were last given out, and can take more
        self.epoll = select.epoll()

    def begin(self) -> None:
        """Start the forker, if workers are forked from one. Called by the thread that creates the core."""
        options = self._options
        begin: Begin
        if self.forks:
            begin = functools.partial(fork_program, self._context, options.initializer, options.initargs)
        elif options.context.get_start_method() == "clean":
            begin = functools.partial(start_interpreter, options.initializer, options.initargs)
        else:
            return
        with no_forks():
            self._forker = Forker(begin, newborn)

    def start(self) -> None:
        """Start one more worker. Raises OSError, and what pickling the initializer raises."""
        with no_forks():
            channel, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            newborn.extend((channel, far))
        worker: CrewWorker | None = None
        try:
            channel.setblocking(False)
            far.setblocking(True)  # the program's default socket timeout must not apply to it
            process = self._new_process(far)
            worker = CrewWorker(process, channel, far)
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

    def is_up(self, worker: CrewWorker) -> None:
        """This worker has come up and waits for its first task."""
        worker.ready = True
        self._board.started(time.monotonic_ns() - worker.born)
        if not worker.draining:
            self.starting -= 1
            self.rest(worker)

    def rest(self, worker: CrewWorker) -> None:
        """Mark this worker as idle."""
        worker.rested_at = time.monotonic_ns()
        self.idle.append(worker)
        if worker.slot:
            self._board.words[worker.slot + _STATE] = _IDLE

    def let_go(self, worker: CrewWorker) -> None:
        """Drain this worker: it ends when it has done its tasks."""
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

    def dispensable(self, target: int) -> CrewWorker | None:
        """The next worker to drain while more than `target` stay and one has nothing to do: first workers that are not up yet, the
        youngest first, then the idle worker with the most memory."""
        if self.staying <= target:
            return None
        for worker in reversed(self.workers):
            if not worker.ready and not worker.draining:
                return worker
        return max(self.idle, key=_resident_pages, default=None)

    def strike_off(self, worker: CrewWorker) -> None:
        """Remove this worker: it has ended."""
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
        """In a forked child: close what belongs to the parent."""
        for worker in self.workers:
            worker.close()
        if self._forker is not None:
            self._forker.forget()
        self.epoll.close()

    def disband(self) -> None:
        """Close all descriptors of workers."""
        for worker in self.workers:
            worker.close()
        self.workers.clear()
        self.epoll.close()

    def end(self) -> None:
        """End the forker."""
        if self._forker is not None:
            self._forker.close()


def _resident_pages(worker: CrewWorker) -> int:
    """Resident pages of a worker; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{worker.process.pid}/statm").read_bytes().split()[1])
    except (OSError, IndexError):
        return 0
