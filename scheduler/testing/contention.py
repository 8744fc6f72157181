"""Real processes around one lock: a holder that burns CPU in its critical section, a waiter that wants it, hogs beside them.

For tests and benchmarks of what a demotion does to waiters. Must not know what is demoted or how. The processes are forks of one
program of the standard library, so that they can share any kind of lock; leaving the `with` block ends them all.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from ...models.identity import ProcId
from ..interpreter import PYTHON
from .puppet import proc_id

KINDS = ("flock", "fcntl", "mutex", "semaphore")
"""flock(2), fcntl(2), a process-shared pthread mutex, and multiprocessing.Lock, which is a semaphore."""

_PROGRAM = r"""
import ctypes, fcntl, json, mmap, os, signal, sys, tempfile, time
kind, cpu, hogs, layout, peer = json.loads(sys.argv[1])
if kind in ("flock", "fcntl"):
    path = tempfile.mkstemp()[1]
    def make():
        # opened by each process: a descriptor that was inherited would share the flock
        file = os.open(path, os.O_RDWR)
        take = fcntl.flock if kind == "flock" else fcntl.lockf
        return lambda: take(file, fcntl.LOCK_EX), lambda: take(file, fcntl.LOCK_UN)
elif kind == "mutex":
    libc = ctypes.CDLL(None, use_errno=True)
    memory = mmap.mmap(-1, 4096)
    mutex = (ctypes.c_char * 64).from_buffer(memory)
    attributes = (ctypes.c_char * 64)()
    assert libc.pthread_mutexattr_init(attributes) == 0 and libc.pthread_mutexattr_setpshared(attributes, 1) == 0
    assert libc.pthread_mutex_init(mutex, attributes) == 0
    def make():
        return lambda: libc.pthread_mutex_lock(mutex), lambda: libc.pthread_mutex_unlock(mutex)
else:
    import multiprocessing
    lock = multiprocessing.get_context("fork").Lock()
    def make():
        return lock.acquire, lock.release
def pin():
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
def child(work, session):
    down, up = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)
            os.close(down[1]); os.close(up[0]); os.close(0)
            if session:
                os.setsid()
            work(os.fdopen(down[0], "rb", 0), os.fdopen(up[1], "wb", 0))
        finally:
            os._exit(1)
    os.close(down[0]); os.close(up[1])
    return pid, os.fdopen(down[1], "wb", 0), os.fdopen(up[0], "rb", 0)
def holder(asked, said):
    pin()
    take, give = make()
    said.write(b"ready\n")
    for line in iter(asked.readline, b""):
        take()
        said.write(b"held\n")
        seconds = float(asked.readline())
        burn(seconds)
        give()
        said.write(b"done\n")
def waiter(asked, said):
    take, give = make()
    said.write(b"ready\n")
    for line in iter(asked.readline, b""):
        start = time.monotonic()
        take()
        blocked = time.monotonic() - start
        give()
        said.write(b"%r\n" % blocked)
def short(asked, said):
    # work with short sections, in which a peer does the same: what a healthy pool looks like
    pin()
    take, give = make()
    said.write(b"ready\n")
    for line in iter(asked.readline, b""):
        section, outside, seconds = map(float, line.split())
        end, rounds, longest = time.monotonic() + seconds, 0, 0.0
        while time.monotonic() < end:
            start = time.monotonic()
            take()
            longest = max(longest, time.monotonic() - start)
            burn(section)
            give()
            burn(outside)
            rounds += 1
        said.write(b"%d %r\n" % (rounds, longest))
def hog(asked, said):
    pin()
    said.write(b"ready\n")
    asked.readline()
    while True:
        pass
first = short if peer else holder
second = short if peer else waiter
people = [child(first, layout == "sessions"), child(second, layout == "sessions" or layout == "apart")]
people += [child(hog, layout == "sessions") for _ in range(hogs)]
for pid, asked, said in people:
    assert said.readline() == b"ready\n"
print(json.dumps([pid for pid, _, _ in people]), flush=True)
for line in sys.stdin:
    word, *rest = line.split()
    if word == "start":
        for _, asked, _ in people[2:]:
            asked.write(b"\n")
        print("{}", flush=True)
    elif word == "hold":
        people[0][1].write(b"\n")
        people[0][2].readline()
        print("{}", flush=True)
    elif word == "wait":
        people[1][1].write(b"\n")
        people[0][1].write(rest[0].encode() + b"\n")
        blocked = float(people[1][2].readline())
        people[0][2].readline()
        print(json.dumps(blocked), flush=True)
    elif word == "work":
        for _, asked, _ in people[:2]:
            asked.write(" ".join(rest).encode() + b"\n")
        print(json.dumps([list(map(float, said.readline().split())) for _, _, said in people[:2]]), flush=True)
if kind in ("flock", "fcntl"):
    os.unlink(path)
"""


class Scene:
    """A holder, a waiter and hogs. `cpu`: the CPU for holder and hogs; None: any.

    `layout`: "one" session for all, "apart": the waiter has its own, "sessions": one each. `peer`: holder and waiter are peers
    that both work with short sections (`work`), instead of one waiting for the other (`hold`, `wait`).
    """

    def __init__(self, kind: str, cpu: int | None, hogs: int = 3, layout: str = "apart", *, peer: bool = False) -> None:
        self._process = subprocess.Popen(
            [*PYTHON, "-I", "-S", "-c", _PROGRAM, json.dumps([kind, cpu, hogs, layout, peer])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            pids = [proc_id(pid) for pid in self._answer()]
        except ChildProcessError:
            self.close()
            raise
        self.holder: ProcId = pids[0]
        self.waiter: ProcId = pids[1]
        self.hogs: tuple[ProcId, ...] = tuple(pids[2:])

    def start(self) -> None:
        """Start the hogs."""
        self._ask("start")
        self._answer()

    def hold(self) -> None:
        """The holder takes the lock, and waits for `wait`."""
        self._ask("hold")
        self._answer()

    def wait(self, section: float, meanwhile: Callable[[], float | None]) -> float:
        """Let the waiter ask for the lock while the holder burns `section` seconds of CPU in it. Returns the seconds that it was
        blocked.

        `meanwhile` is called repeatedly until then. It returns the seconds until its next call, or None for no further call.
        """
        self._ask(f"wait {section!r}")
        return float(self._until(meanwhile))

    def work(
        self, section: float, outside: float, seconds: float, meanwhile: Callable[[], float | None]
    ) -> tuple[tuple[float, float], tuple[float, float]]:
        """Both peers work for `seconds`: sections of `section` seconds of CPU, `outside` between. (rounds, longest wait) each."""
        self._ask(f"work {section!r} {outside!r} {seconds!r}")
        first, second = self._until(meanwhile)
        return (first[0], first[1]), (second[0], second[1])

    def close(self) -> None:
        """End all processes. Idempotent."""
        if self._process.poll() is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(timeout=2)  # the children end with it
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _ask(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ChildProcessError("the scene has ended; see its output on stderr")
        return json.loads(line)

    def _until(self, meanwhile: Callable[[], float | None]) -> Any:
        assert self._process.stdout is not None
        while True:
            pause = meanwhile()
            ready, _, _ = select.select([self._process.stdout], [], [], pause)
            if ready:
                return self._answer()


def last_cpu() -> int:
    """The CPU to pin to: the last one that we may use, because the first has the most interrupts."""
    return max(os.sched_getaffinity(0))
