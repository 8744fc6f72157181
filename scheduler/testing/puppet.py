"""A real process that a test controls: it starts and ends threads, forks, starts sessions. For tests that touch the kernel.

Must not know what is tested with it. The puppet's own program uses only the standard library, and starts in 20 ms.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from ...models.identity import ProcId
from ..interpreter import PYTHON

_PROGRAM = r"""
import os, signal, sys, threading
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
ends = []
def thread():
    end = threading.Event()
    ready = threading.Event()
    def run():
        ready.set()
        end.wait()
    threading.Thread(target=run, daemon=True).start()
    ready.wait()
    ends.append(end)
    return max(map(int, os.listdir("/proc/self/task")))
def fork(orphan, session):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        if orphan and os.fork():
            os._exit(0)
        if session:
            os.setsid()
        os.write(write, b"%d\n" % os.getpid())
        os.close(write)
        sys.stdin.close()
        signal.pause()
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        child = int(file.readline())
    if orphan:
        os.waitpid(pid, 0)
    return child
def churn(seconds):
    import time
    stop = time.monotonic() + seconds
    def run():
        while time.monotonic() < stop:
            one = threading.Thread(target=time.sleep, args=(0.002,))
            one.start()
            time.sleep(0.002)
    threading.Thread(target=run, daemon=True).start()
    return 0
print(os.getpid(), flush=True)
for line in sys.stdin:
    word, *rest = line.split()
    if word == "thread":
        print(thread(), flush=True)
    elif word == "fork":
        print(fork("orphan" in rest, "session" in rest), flush=True)
    elif word == "churn":
        print(churn(float(rest[0])), flush=True)
"""


class Puppet:
    """A process under control. Leaving the `with` block ends it and all that it forked, by pid and start time."""

    def __init__(self, *, session: bool = True) -> None:
        self._process = subprocess.Popen(
            [*PYTHON, "-I", "-S", "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=session,
        )
        self._children: list[ProcId] = []
        self.id = proc_id(self._answer())

    @property
    def pid(self) -> int:
        """Its pid."""
        return self.id.pid

    def thread(self) -> int:
        """Start a thread that waits; its tid."""
        return self._ask("thread")

    def fork(self, *, orphan: bool = False, session: bool = False) -> ProcId:
        """Fork a child that waits. `orphan`: its parent has ended; `session`: it has called setsid."""
        words = ["fork", *(["orphan"] if orphan else []), *(["session"] if session else [])]
        child = proc_id(self._ask(" ".join(words)))
        self._children.append(child)
        return child

    def churn(self, seconds: float) -> None:
        """Start and end threads, a few hundred a second, for `seconds`."""
        self._ask(f"churn {seconds}")

    def end(self) -> None:
        """Kill it and reap it; its forks live on until `close`."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def close(self) -> None:
        """End it and its forks. Idempotent."""
        for child in self._children:
            try:
                handle = os.pidfd_open(child.pid)
            except ProcessLookupError:
                continue
            if _start_ticks(child.pid) == child.start_ticks:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.close(handle)
        self._children.clear()
        self.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _ask(self, line: str) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


def proc_id(pid: int) -> ProcId:
    """The process that has this pid now. Raises OSError if none has."""
    ticks = _start_ticks(pid)
    if ticks is None:
        raise ProcessLookupError(pid)
    return ProcId(pid, ticks)


def _start_ticks(pid: int) -> int | None:
    try:
        raw = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return int(raw[raw.rindex(b")") + 2 :].split()[19])
