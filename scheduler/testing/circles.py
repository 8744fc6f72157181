"""Real processes that wait for each other in a circle, and others that only look like it. For tests and benchmarks of deadlocks.

    with Circles(("flock", 3), ("convoy", 2)) as circles:
        circles.scenes[0].workers

A supervisor makes the locks, pipes and sockets, forks the workers and waits for their end, as a program does that calls `join()`;
leaving the `with` block ends them all. Must not know how deadlocks are found.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import fcntl
import json
import mmap
import multiprocessing
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.synchronize import Lock, RLock
from types import TracebackType
from typing import NamedTuple, Self

from ...models.identity import ProcId
from ..executor.api import Executor
from ..interpreter import PYTHON
from .puppet import proc_id

CIRCLES = (
    *("flock", "open file lock", "fcntl", "pipe read", "pipe write", "unix read", "unix write", "unix datagram", "tcp", "poll"),
    *("mutex", "robust mutex", "mixed", "semaphore", "semaphore, lively master"),
    *("process lock", "process lock, busy parent", "process lock in a pool", "process lock in an executor"),
    *("flock, heartbeat", "open file lock, heartbeat", "process lock, heartbeat", "mutex, heartbeat"),
)
"""Ways to wait for each other. fcntl(2) refuses a circle of only its own locks (EDEADLK), so its last wait is for a flock. The
lively master checks its workers again and again, as that of a pool does, and maps their semaphores; so does a busy parent, and
nothing shows that it does not post them. A process lock is one of multiprocessing. With a heartbeat each worker has another thread
that wakes again and again."""

HEALTHY = (
    *("accept lock", "accept mutex", "idle pipe", "idle sockets", "convoy", "token ring", "request reply", "timed", "signal"),
    *("self-pipe", "event", "multiprocessing pool", "process pool executor", "thread pool", "remote", "listening helper"),
    *("pool, busy parent", "executor", "lock as a signal", "process lock convoy", "heartbeat convoy", "receiving threads"),
    *("lock of a waiting thread", "lock of a working thread"),
)
"""Healthy scenes that look alike: see the functions below."""

Step = Callable[[int], object]

_libc = ctypes.CDLL(None, use_errno=True)
_WAIT_FOREVER = -1


class Circle(NamedTuple):
    """A running scene: its workers have reached the place where they wait, or work."""

    kind: str
    supervisor: ProcId
    workers: tuple[ProcId, ...]


class Circles:
    """Scenes side by side, each named by kind and number of workers."""

    def __init__(self, *scenes: tuple[str, int]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="circle-")
        self._process = subprocess.Popen(
            [*PYTHON, "-m", __name__, json.dumps(scenes)],
            env={**os.environ, "TMPDIR": self._folder.name},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise ChildProcessError("the scenes have ended; see their output on stderr")
        started = zip(scenes, json.loads(line), strict=True)
        self.scenes = [Circle(kind, proc_id(pids[0]), tuple(map(proc_id, pids[1:]))) for (kind, _), pids in started]

    def close(self) -> None:
        """End them all. Idempotent."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(ProcessLookupError):  # workers of an executor outlive a killed owner
            os.killpg(self._process.pid, signal.SIGKILL)
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


# --- the program ----------------------------------------------------------------------------------------------------------------


def main(scenes: Sequence[tuple[str, int]]) -> None:
    """Run the scenes until stdin is closed; the pids of each supervisor and its workers go to stdout as JSON."""
    supervisors, told = [], []
    for kind, size in scenes:
        reading, writing = os.pipe()
        supervisor = os.fork()
        if supervisor == 0:
            try:
                _end_with_parent()
                os.close(0)
                os.close(reading)
                _run(kind, size, writing)
            finally:
                os._exit(1)
        os.close(writing)
        supervisors.append(supervisor)
        told.append(json.loads(os.read(reading, 65536)))
        os.close(reading)
    print(json.dumps(told), flush=True)
    sys.stdin.read()
    for supervisor in supervisors:
        os.kill(supervisor, signal.SIGKILL)


def _run(kind: str, size: int, told: int) -> None:
    def tell(pids: Sequence[int]) -> None:
        os.write(told, json.dumps([os.getpid(), *pids]).encode())
        os.close(told)

    (_healthy(kind) if kind in HEALTHY else _circle)(kind, size, tell)


def _end_with_parent() -> None:
    _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _fork(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            _end_with_parent()
            work()
        finally:
            os._exit(1)
    return pid


def _workers(size: int, first: Step, then: Step) -> list[int]:
    """Fork workers that all do the first step, and when all have done it, the second."""
    ready, go = os.pipe(), os.pipe()

    def work(number: int) -> None:
        first(number)
        os.write(ready[1], b".")
        os.close(ready[0])
        os.close(ready[1])
        os.close(go[1])
        os.read(go[0], 1)
        os.close(go[0])
        then(number)

    pids = [_fork(partial(work, number)) for number in range(size)]
    for _ in pids:
        os.read(ready[0], 1)
    os.write(go[1], b"." * size)
    for fd in (*ready, *go):
        os.close(fd)
    return pids


def _join() -> None:
    while True:
        with suppress(ChildProcessError):
            os.wait()


# --- circles --------------------------------------------------------------------------------------------------------------------


def _circle(kind: str, size: int, tell: Callable[[Sequence[int]], object]) -> None:
    """Worker N holds what worker N - 1 waits for; worker 0 waits for worker 1, the last one for worker 0."""
    makers = {
        "flock": _flock,
        "open file lock": _open_file_lock,
        "fcntl": _fcntl,
        "mutex": _mutex,
        "robust mutex": _robust_mutex,
        "semaphore": _semaphore,
        "process lock": _process_lock,
        "mixed": _mixed,
    }
    if kind.endswith(("in a pool", "in an executor")):
        _tasks(kind, size, tell)
        return
    plain, _, more = kind.partition(", ")
    first, then = makers[plain](size) if plain in makers else _channel(kind, size)

    def with_heartbeat(number: int) -> None:
        threading.Thread(target=_beat, daemon=True).start()
        first(number)

    tell(_workers(size, with_heartbeat if more == "heartbeat" else first, then))
    while more in ("lively master", "busy parent"):
        time.sleep(0.5)
    _join()


def _beat() -> None:
    while True:
        time.sleep(0.05)


def _files(size: int) -> list[str]:
    return [tempfile.mkstemp(prefix="circle-")[1] for _ in range(size)]


def _flock(size: int) -> tuple[Step, Step]:
    paths = _files(size)

    def take(number: int) -> None:
        fcntl.flock(os.open(paths[number % size], os.O_RDWR), fcntl.LOCK_EX)

    return take, lambda number: take(number + 1)


def _open_file_lock(size: int) -> tuple[Step, Step]:
    paths = _files(size)

    def take(number: int) -> None:
        whole = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        fcntl.fcntl(os.open(paths[number % size], os.O_RDWR), 38, whole)  # F_OFD_SETLKW

    return take, lambda number: take(number + 1)


def _fcntl(size: int) -> tuple[Step, Step]:
    paths = _files(size)

    def hold(number: int) -> None:
        file = os.open(paths[number], os.O_RDWR)
        fcntl.lockf(file, fcntl.LOCK_EX)
        if number == 0:
            fcntl.flock(file, fcntl.LOCK_EX)

    def want(number: int) -> None:
        file = os.open(paths[(number + 1) % size], os.O_RDWR)
        (fcntl.flock if number == size - 1 else fcntl.lockf)(file, fcntl.LOCK_EX)

    return hold, want


def _mutexes(size: int, *, robust: bool) -> Callable[[int], None]:
    memory = mmap.mmap(-1, 4096)
    mutexes = [(ctypes.c_char * 64).from_buffer(memory, 64 * number) for number in range(size)]
    attributes = (ctypes.c_char * 64)()
    assert _libc.pthread_mutexattr_init(attributes) == 0
    assert _libc.pthread_mutexattr_setpshared(attributes, 1) == 0
    assert _libc.pthread_mutexattr_setrobust(attributes, int(robust)) == 0
    for mutex in mutexes:
        assert _libc.pthread_mutex_init(mutex, attributes) == 0
    return lambda number: _libc.pthread_mutex_lock(mutexes[number % size])


def _mutex(size: int) -> tuple[Step, Step]:
    take = _mutexes(size, robust=False)
    return take, lambda number: take(number + 1)


def _robust_mutex(size: int) -> tuple[Step, Step]:
    take = _mutexes(size, robust=True)
    return take, lambda number: take(number + 1)


def _semaphore(size: int) -> tuple[Step, Step]:
    locks = [multiprocessing.get_context("fork").Semaphore(1) for _ in range(size)]
    return lambda number: locks[number].acquire(), lambda number: locks[(number + 1) % size].acquire()


def _process_lock(size: int) -> tuple[Step, Step]:
    context = multiprocessing.get_context("fork")
    locks: list[Lock | RLock] = [context.RLock() if number % 2 else context.Lock() for number in range(size)]
    return lambda number: locks[number].acquire(), lambda number: locks[(number + 1) % size].acquire()


_shared: list[tuple[list[Lock], mmap.mmap]] = []
"""For the tasks of a pool, which inherit it: locks, and the pids of the processes that hold them."""


def _task(number: int) -> None:
    ((locks, pids),) = _shared
    with locks[number]:
        struct.pack_into("i", pids, 4 * number, os.getpid())
        while not all(struct.unpack_from(f"{len(locks)}i", pids)):
            time.sleep(0.01)
        locks[(number + 1) % len(locks)].acquire()


def _tasks(kind: str, size: int, tell: Callable[[Sequence[int]], object]) -> None:
    """Tasks of a pool that also has idle workers, and a parent that goes on."""
    context = multiprocessing.get_context("fork")
    pids = mmap.mmap(-1, 4096)
    _shared.append(([context.Lock() for _ in range(size)], pids))
    pool: concurrent.futures.Executor = (
        Executor(size + 2, context, _end_with_parent)
        if kind.endswith("executor")
        else concurrent.futures.ProcessPoolExecutor(size + 2, context, _end_with_parent)
    )
    for number in range(size):
        pool.submit(_task, number)
    while not all(struct.unpack_from(f"{size}i", pids)):
        time.sleep(0.01)
    tell(struct.unpack_from(f"{size}i", pids))
    _beat()


def _mixed(size: int) -> tuple[Step, Step]:
    """The first waits for a flock, the last for a mutex, the others for data from a pipe."""
    mutex = _mutexes(1, robust=False)
    (path,) = _files(1)
    pipe = os.pipe()

    def hold(number: int) -> None:
        if number == 0:
            mutex(0)
        if number == 1:
            fcntl.flock(os.open(path, os.O_RDWR), fcntl.LOCK_EX)
            os.close(pipe[1])
        elif number != 2:
            os.close(pipe[1])

    def want(number: int) -> None:
        if number == 0:
            fcntl.flock(os.open(path, os.O_RDWR), fcntl.LOCK_EX)
        elif number == size - 1:
            mutex(0)
        else:
            os.read(pipe[0], 1)

    return hold, want


def _channel(kind: str, size: int) -> tuple[Step, Step]:
    """Connection N has its first end at worker N, its other end at worker N + 1."""
    ends: list[tuple[int, int]] = []
    for _ in range(size):
        if kind.startswith("pipe"):
            reading, writing = os.pipe()
            ends.append((reading, writing) if kind == "pipe read" else (writing, reading))
            continue
        if kind == "tcp":
            with socket.create_server(("127.0.0.1", 0)) as server:
                one = socket.create_connection(server.getsockname())
                other, _ = server.accept()
        else:
            one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM if "datagram" in kind else socket.SOCK_STREAM)
        ends.append((one.detach(), other.detach()))

    def hold(number: int) -> None:
        mine = {ends[number][0], ends[number - 1][1]}
        for fd in {fd for pair in ends for fd in pair} - mine:
            os.close(fd)

    def want(number: int) -> None:
        fd = ends[number][0]
        if kind.endswith("write"):
            os.write(fd, bytes(8 << 20))
        elif kind == "poll":
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.poll()
        else:
            os.read(fd, 1)

    return hold, want


# --- what is well -----------------------------------------------------------------------------------------------------------------


def _healthy(kind: str) -> Callable[[str, int, Callable[[Sequence[int]], object]], None]:
    scenes = {
        "accept lock": _accept_lock,
        "accept mutex": _accept_lock,
        "idle pipe": _idle_channel,
        "idle sockets": _idle_channel,
        "convoy": _convoy,
        "token ring": _token_ring,
        "request reply": _request_reply,
        "timed": _timed,
        "signal": _told_by_signal,
        "event": _told_by_signal,
        "self-pipe": _self_pipe,
        "multiprocessing pool": _multiprocessing_pool,
        "process pool executor": _process_pool_executor,
        "thread pool": _thread_pool,
        "remote": _remote,
        "listening helper": _listening_helper,
        "pool, busy parent": _multiprocessing_pool,
        "executor": _executor,
        "lock as a signal": _lock_as_a_signal,
        "process lock convoy": _process_lock_convoy,
        "heartbeat convoy": _convoy,
        "receiving threads": _receiving_threads,
        "lock of a waiting thread": _lock_of_a_thread,
        "lock of a working thread": _lock_of_a_thread,
    }
    return scenes[kind]


def _accept_lock(kind: str, size: int, tell: Callable[[Sequence[int]], object]) -> None:
    """Prefork siblings: one waits for a client, the others for the lock that it holds."""
    if kind == "accept lock":
        take, _ = _flock(1)
    else:
        take = _mutexes(1, robust=False)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve(_: int) -> None:
            take(0)
            server.accept()

        tell(_workers(size, lambda _: None, serve))
        _join()


def _idle_channel(kind: str, size: int, tell: Callable[[Sequence[int]], object]) -> None:
    """Workers that wait for work from a parent that waits for clients and for their answers."""
    workers = []
    with socket.create_server(("127.0.0.1", 0)) as server, select.epoll() as epoll:
        epoll.register(server.fileno(), select.EPOLLIN)
        for _ in range(size):
            if kind == "idle pipe":
                (reading, _writing), (answers, _answering) = os.pipe(), os.pipe()
            else:
                reading, answers = (end.detach() for end in socket.socketpair())
            workers.append(_fork(partial(os.read, reading, 1)))
            epoll.register(answers, select.EPOLLIN)
        tell(workers)
        epoll.poll(_WAIT_FOREVER)


def _convoy(kind: str, size: int, tell: Callable[[Sequence[int]], object]) -> None:
    """Workers that take two locks in the same order, and sleep while they hold both."""
    paths = _files(2)

    def work(_: int) -> None:
        files = [os.open(path, os.O_RDWR) for path in paths]
        if kind == "heartbeat convoy":
            threading.Thread(target=_beat, daemon=True).start()
        while True:
            for file in files:
                fcntl.flock(file, fcntl.LOCK_EX)
            time.sleep(0.4)
            for file in reversed(files):
                fcntl.flock(file, fcntl.LOCK_UN)
            time.sleep(0.05)

    tell(_workers(size, lambda _: None, work))
    _join()


def _token_ring(_: str, size: int, tell: Callable[[Sequence[int]], object]) -> None:
    """All but one read from a ring of pipes; that one sleeps before it passes the token on."""
    pipes = [os.pipe() for _ in range(size)]

    def work(number: int) -> None:
        while True:
            os.read(pipes[number][0], 1)
            time.sleep(0.6)
            os.write(pipes[(number + 1) % size][1], b".")

    os.write(pipes[0][1], b".")
    tell(_workers(size, lambda _: None, work))
    _join()


def _request_reply(_: str, size: int, tell: Callable[[Sequence[int]], object]) -> None:
    """Clients of a server that works, sleeps and answers one after the other: somebody always waits for somebody."""
    pairs = [socket.socketpair() for _ in range(size)]

    def client(number: int) -> None:
        while True:
            pairs[number][0].send(b"?")
            pairs[number][0].recv(1)

    def server() -> None:
        while True:
            for _, mine in pairs:
                mine.recv(1)
                time.sleep(0.2)
                mine.send(b"!")

    serving = _fork(server)
    tell([*_workers(size, lambda _: None, client), serving])
    _join()


def _timed(_: str, size: int, tell: Callable[[Sequence[int]], object]) -> None:
    """A circle that ends by itself: lock waits with a time limit."""
    locks = [multiprocessing.get_context("fork").Lock() for _ in range(size)]

    def want(number: int) -> None:
        locks[(number + 1) % size].acquire(timeout=3600)

    tell(_workers(size, lambda number: locks[number].acquire(), want))
    _join()


def _told_by_signal(kind: str, size: int, tell: Callable[[Sequence[int]], object]) -> None:
    """Workers that wait for work from a parent that gets signals: in a read from them, or waiting for an event."""
    work, answers = os.pipe(), os.pipe()
    workers = [_fork(lambda: os.read(work[0], 1)) for _ in range(size)]
    signal.signal(signal.SIGUSR1, lambda *_: os.write(work[1], b"."))
    tell(workers)
    if kind == "signal":
        os.read(answers[0], 1)
    else:
        threading.Event().wait()


def _self_pipe(_: str, size: int, tell: Callable[[Sequence[int]], object]) -> None:
    """Workers that get signals and read a pipe that their handler writes to; all inherited both ends of it."""
    pipe = os.pipe()
    signal.signal(signal.SIGUSR1, lambda *_: os.write(pipe[1], b"."))
    tell(_workers(size, lambda _: None, lambda _: os.read(pipe[0], 1)))
    _join()


def _multiprocessing_pool(kind: str, size: int, tell: Callable[[Sequence[int]], object]) -> None:
    """One worker reads from the queue and holds its lock, the others wait for that; the parent waits for an event, no signal."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a program that a shell has started in the background
    with multiprocessing.get_context("fork").Pool(size, _end_with_parent) as pool:
        pool.map(abs, range(10 * size))
        tell(sorted(child.pid for child in multiprocessing.active_children() if child.pid is not None))
        if kind == "pool, busy parent":
            _beat()
        threading.Event().wait()


def _executor(_: str, size: int, tell: Callable[[Sequence[int]], object]) -> None:
    """Idle workers of an owner that goes on."""
    with Executor(size, multiprocessing.get_context("fork"), _end_with_parent) as pool:
        list(pool.map(time.sleep, [0.2] * size))
        tell(sorted(pool._processes))  # noqa: SLF001 - as programs do with a ProcessPoolExecutor
        _beat()


def _lock_as_a_signal(_: str, size: int, tell: Callable[[Sequence[int]], object]) -> None:
    """Workers that wait until the parent releases a lock, which it took, as a signal to begin; each holds its own lock, and the
    parent waits for none."""
    first, _then = _process_lock(size)
    start, _again = _process_lock(1)
    start(0)
    tell(_workers(size, first, lambda _: start(0)))
    _beat()


def _process_lock_convoy(_: str, size: int, tell: Callable[[Sequence[int]], object]) -> None:
    """Workers that take two locks in the same order and sleep while they hold both; the parent goes on."""
    locks = [multiprocessing.get_context("fork").Lock() for _ in range(2)]

    def work(_: int) -> None:
        while True:
            with locks[0], locks[1]:
                time.sleep(0.4)
            time.sleep(0.05)

    tell(_workers(size, lambda _: None, work))
    _beat()


def _receiving_threads(_: str, size: int, tell: Callable[[Sequence[int]], object]) -> None:
    """Peers: one thread reads what the next peer may send; another, which wakes again and again, may send something."""
    first, then = _channel("unix read", size)

    def hold(number: int) -> None:
        threading.Thread(target=_beat, daemon=True).start()
        first(number)

    tell(_workers(size, hold, then))
    _join()


def _lock_of_a_thread(kind: str, size: int, tell: Callable[[Sequence[int]], object]) -> None:
    """Each worker has a thread that holds a lock for its own long work, and one that waits for the next worker's lock: no circle,
    because no holder waits. The work is a wait for a slow answer, or now and then some CPU."""
    first, then = _flock(size)

    def work() -> None:
        idle, _writing = os.pipe()
        while kind.endswith("waiting thread"):
            select.select([idle], [], [], 3600)
        while True:
            time.sleep(0.05)
            begun = time.thread_time()
            while time.thread_time() - begun < 0.003:
                pass
            select.select([idle], [], [], 0.05)

    def hold(number: int) -> None:
        first(number)
        threading.Thread(target=work, daemon=True).start()

    tell(_workers(size, hold, then))
    _join()


def _process_pool_executor(_: str, size: int, tell: Callable[[Sequence[int]], object]) -> None:
    """The same as `_multiprocessing_pool`, of another make; the parent waits for a client."""
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(size, mp_context=context, initializer=_end_with_parent) as pool:
        list(pool.map(time.sleep, [0.2] * size))
        tell(sorted(child.pid for child in multiprocessing.active_children() if child.pid is not None))
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.accept()


def _thread_pool(_: str, size: int, tell: Callable[[Sequence[int]], object]) -> None:
    """Workers with idle threads: one thread waits for clients while another holds a lock that a sibling waits for."""
    take, _then = _flock(1)

    def work(_: int) -> None:
        pool = concurrent.futures.ThreadPoolExecutor(3)
        list(pool.map(time.sleep, [0.1] * 3))
        take(0)
        with socket.create_server(("127.0.0.1", 0)) as server:
            pool.submit(server.accept).result()

    tell(_workers(size, lambda _: None, work))
    _join()


def _remote(_: str, size: int, tell: Callable[[Sequence[int]], object]) -> None:
    """Workers that wait for a peer that is none of them: the supervisor has the other end of the connection, and pauses."""
    take, _then = _flock(1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()

        def work(_: int) -> None:
            take(0)
            with socket.create_connection(address) as connection:
                connection.recv(1)

        workers = _workers(size, lambda _: None, work)
        connection, _address = server.accept()
        tell(workers)
        with connection:
            signal.pause()


def _listening_helper(_: str, size: int, tell: Callable[[Sequence[int]], object]) -> None:
    """A helper outside the pool keeps the writing end of the pipe open, and waits for a client."""
    pipe = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as server:
        _fork(server.accept)

        def work(_: int) -> None:
            os.close(pipe[1])
            os.read(pipe[0], 1)

        workers = _workers(size, lambda _: None, work)
        os.close(pipe[1])
        tell(workers)
        _join()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
