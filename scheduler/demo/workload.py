"""The demo's real workload: gunicorn under open-loop load, four CPU hogs in their own session, files for a spool pool.

Starts and ends real processes, and reads their kernel settings. Knows nothing about what nicety does to them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path

from ..interpreter import PYTHON

HOGS = 4
"""CPU hogs. Chosen: twice as many as the CPUs of a small machine."""

SERVICE_WORKERS = 3
"""Workers that the service starts with. Chosen: enough for the waves of the load, not for its steps."""

SPOOL_LOW, SPOOL_HIGH, SPOOL_PERIOD = 10.0, 24.0, 25.0
"""Files a second in the trough and on the crest of a wave, and seconds of a wave. Chosen with the worker's time for a file."""


class DemoError(Exception):
    """The demo could not run. The message says why and what to do."""


@dataclass(frozen=True, slots=True, order=True)
class Values:
    """The settings of one thread that nicety could have changed."""

    nice: int
    policy: int
    affinity: tuple[int, ...]
    autogroup: str
    cgroup: str


class Feeder(threading.Thread):
    """Puts files into the spool at a rate that follows a wave, and measures how long each takes to be finished."""

    def __init__(self, directory: Path) -> None:
        super().__init__(daemon=True)
        self.new = directory / "new"
        self.work = directory / "work"
        for path in (self.new, self.work, directory / "faults"):
            path.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.finished: list[tuple[float, float]] = []  # (made at, seconds until done), by time.monotonic
        self._open: dict[str, float] = {}
        self._ending = threading.Event()

    def run(self) -> None:
        """Feed until `end`."""
        start = time.monotonic()
        owed, before, number = 0.0, start, 0
        while not self._ending.wait(0.05):
            now = time.monotonic()
            wave = 0.5 * (1 - cos(2 * pi * (now - start) / SPOOL_PERIOD))
            owed += (SPOOL_LOW + (SPOOL_HIGH - SPOOL_LOW) * wave) * (now - before)
            before = now
            while owed >= 1:
                owed -= 1
                name = f"{number:08d}"
                number += 1
                (self.new / name).touch()
                self._open[name] = now
            self._collect(now)

    def _collect(self, now: float) -> None:
        there = {path.name for path in self.new.iterdir()}
        there |= {path.name.rpartition("-")[2] for path in self.work.iterdir()}
        for name in [name for name in self._open if name not in there]:
            made = self._open.pop(name)
            self.finished.append((made, now - made))

    def unfinished(self) -> int:
        """Number of files that are not finished."""
        return len(self._open)

    def end(self) -> None:
        """Stop feeding and remove all files."""
        self._ending.set()
        self.join()
        for path in (*self.new.iterdir(), *self.work.iterdir()):
            path.unlink(missing_ok=True)

    def break_a_worker(self, fault: str) -> None:
        """Make the next worker that looks for files faulty: "leak" or "stuck"."""
        (self.directory / "faults" / fault).touch()

    def broken(self, fault: str) -> int | None:
        """Pid of the worker that claimed the fault, None if none has."""
        for path in (self.directory / "faults").glob(f"{fault}-*"):
            return int(path.name.rpartition("-")[2])
        return None


class Workload:
    """The processes of the demo."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = _free_port()
        self.pidfile = directory / "gunicorn.pid"
        self._hog_file = directory / "hogs"
        self._hog_file.write_bytes(bytes(8 * HOGS))
        service = [*PYTHON, "-m", "gunicorn", "-w", str(SERVICE_WORKERS), "-b", f"127.0.0.1:{self.port}"]
        service += ["--pid", str(self.pidfile), "--log-level", "error", "nicety.scheduler.demo.app:application"]
        self._service = subprocess.Popen(service, start_new_session=True, cwd=directory)
        hogs = [*PYTHON, "-m", "nicety.scheduler.demo.hog", str(self._hog_file), str(HOGS)]
        self._hogs = subprocess.Popen(hogs, start_new_session=True)

    def wait_until_up(self, seconds: float = 30.0) -> None:
        """Return when the service answers and has all its workers. Raises DemoError after `seconds`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._service.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as client:
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                if client.recv(64) and len(self.service_workers()) == SERVICE_WORKERS:
                    return
            time.sleep(0.1)
        raise DemoError(f"gunicorn did not come up on port {self.port}; is it installed? pip install '.[demo]'")

    def rounds(self) -> int:
        """Rounds of batch work done so far by all hogs."""
        return sum(struct.unpack(f"<{HOGS}Q", self._hog_file.read_bytes()))

    def service_workers(self) -> list[int]:
        """Pids of the service's workers."""
        return _children(self._service.pid)

    def values(self) -> dict[str, tuple[Values, ...]]:
        """The distinct settings of the threads of each process of service and batch.

        The keys are names that stay the same when a worker is replaced. Threads are not named, because they come and go.
        """
        found: dict[str, tuple[Values, ...]] = {}
        processes = [("service master", self._service.pid)]
        processes += [(f"service worker {number}", pid) for number, pid in enumerate(self.service_workers())]
        processes += [(f"batch {number}", pid) for number, pid in enumerate([self._hogs.pid, *_children(self._hogs.pid)])]
        for name, pid in processes:
            tasks = [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
            found[name] = tuple(sorted({_values(pid, task) for task in tasks}))
        return found

    def end(self) -> None:
        """End all processes that were started here."""
        for process in (self._service, self._hogs):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)  # each leads a group of its own
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _values(pid: int, tid: int) -> Values:
    group = Path(f"/proc/{pid}/autogroup")
    autogroup = group.read_text().rpartition("nice")[2].strip() if group.exists() else ""
    cgroup = Path(f"/proc/{pid}/cgroup").read_text()
    return Values(
        nice=os.getpriority(os.PRIO_PROCESS, tid),
        policy=os.sched_getscheduler(tid),
        affinity=tuple(sorted(os.sched_getaffinity(tid))),
        autogroup=autogroup,
        cgroup=cgroup,
    )


def _children(pid: int) -> list[int]:
    return sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(directory: Path) -> Iterator[Workload]:
    """Run the workload within the block, entered once it answers. It is ended on leaving, even after an error."""
    workload = Workload(directory)
    try:
        workload.wait_until_up()
        yield workload
    finally:
        workload.end()
