"""The forker of an executor: a process without threads that forks the workers and does nothing else.

Forking a program with running threads copies the locks that they hold at that moment, and nothing in the child ever releases them.
For example, a child forked while another thread reads a line from standard input hangs when multiprocessing closes its copy. There
are two ways to a process without threads:

- the start method "fork": a copy of the program as it was at the first task (or a resize before it), forked by the thread that
  submits that task, as the original executor forks all its workers. What libraries keep beside threads is copied too: OpenMP hangs
  in a copy of a program that has used it;
- "clean" (see clean.py): a fresh interpreter, which knows nothing of the program's state.

Must not know tasks or the board.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from .worker import serve

_NUMBER = struct.Struct("<q")
"""A message to or from the forker. A request with a descriptor asks for a worker on that channel; the answer is its pid, or minus
an errno. A request with a pid asks for the exit code of that child, which has ended."""
_UNKNOWN = 1 << 32
"""Exit code of a child whose status another caller has taken."""
ANSWER_SECONDS = 10.0
"""A fork of a large program takes some 10 ms. A forker that does not answer within this time was stopped, and is given up.
Chosen."""
FIRST_ANSWER_SECONDS = 60.0
"""The same for the first answer, which may have to wait for an interpreter to start on a crowded machine. Chosen."""

_Handler = Callable[[int, FrameType | None], Any] | int | None

Begin = Callable[[socket.socket], Callable[[], object]]
"""Starts the process of a forker on this end of its control channel; returns how to wait for its end."""


class ForkedProcess:
    """A worker that the forker has started, with the parts of multiprocessing's Process that programs use."""

    def __init__(self, forker: Forker, pid: int) -> None:
        self._forker = forker
        self._ended = threading.Event()
        self.pid = pid
        self.exitcode: int | None = None

    def is_alive(self) -> bool:
        """True until its executor has seen it end."""
        return not self._ended.is_set()

    def join(self, timeout: float | None = None) -> None:
        """Wait until its executor has seen it end."""
        self._ended.wait(timeout)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._send(signal.SIGKILL)

    def reap(self) -> None:
        """Fetch the exit code after its end. The pid stays reserved until then."""
        self.exitcode = self._forker.exit_code(self.pid)
        self._ended.set()

    def _send(self, number: signal.Signals) -> None:
        if not self._ended.is_set():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass


class Forker:
    """The owner's side. Used by one thread at a time."""

    def __init__(self, begin: Begin, in_child: list[socket.socket]) -> None:
        """Start the process. A forked child closes the sockets in the list `in_child`, in which our end is during the start."""
        self._control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        in_child.append(self._control)
        try:
            self._control.settimeout(FIRST_ANSWER_SECONDS)
            other.settimeout(None)
            self._join = begin(other)
        except BaseException:
            self._control.close()
            raise
        finally:
            if self._control in in_child:
                in_child.remove(self._control)
            other.close()

    def start(self, channel: socket.socket) -> ForkedProcess:
        """Start a worker on this end of a channel. Raises OSError."""
        pid = self._ask(lambda: socket.send_fds(self._control, [_NUMBER.pack(0)], [channel.fileno()]))
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        return ForkedProcess(self, pid)

    def exit_code(self, pid: int) -> int | None:
        """The exit code of this child; None if it is unknown."""
        try:
            code = self._ask(lambda: self._control.send(_NUMBER.pack(pid)))
        except OSError:
            return None
        return None if code == _UNKNOWN else code

    def close(self) -> None:
        """End the forker and wait for it. Its workers have ended, or are about to end."""
        self._control.close()
        self._join()

    def forget(self) -> None:
        """In a forked child of the owner: close our end."""
        self._control.close()

    def _ask(self, send: Callable[[], object]) -> int:
        try:
            send()
            answer = self._control.recv(_NUMBER.size)
        except OSError as error:
            self._control.close()  # a late answer must not be taken for the next one
            raise OSError(error.errno, "the process that forks the workers does not answer any more") from error
        if not answer:
            self._control.close()
            raise ConnectionResetError("the process that forks the workers has ended")
        self._control.settimeout(ANSWER_SECONDS)
        number: int = _NUMBER.unpack(answer)[0]
        return number


def fork_program(
    context: Any,  # multiprocessing's fork context
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    control: socket.socket,
) -> Callable[[], object]:
    """The start method "fork": see `Begin`."""
    process = context.Process(target=breed, args=(context, control, initializer, initargs), name="ExecutorForker")
    process.start()
    join: Callable[[], object] = process.join
    return join


def breed(context: Any, control: socket.socket, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
    """The forker's loop: serve one request after the other until the owner hangs up or is gone."""
    on_interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program and its tasks
    children: dict[int, BaseProcess] = {}
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, _NUMBER.size, 1)
        if not request:
            return
        if descriptors:
            with socket.socket(fileno=descriptors[0]) as channel:
                child: BaseProcess = context.Process(target=_work, args=(control, channel, on_interrupt, initializer, initargs))
                try:
                    child.start()
                except OSError as error:
                    control.send(_NUMBER.pack(-(error.errno or 1)))
                    continue
            assert child.pid is not None
            children[child.pid] = child
            control.send(_NUMBER.pack(child.pid))
        else:
            child = children.pop(_NUMBER.unpack(request)[0])
            child.join()
            control.send(_NUMBER.pack(_UNKNOWN if child.exitcode is None else child.exitcode))


def _work(
    control: socket.socket,
    channel: socket.socket,
    on_interrupt: _Handler,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
) -> None:
    """Run one worker in a forked child."""
    control.close()
    signal.signal(signal.SIGINT, signal.default_int_handler if on_interrupt is None else on_interrupt)
    serve(channel, initializer, initargs)
