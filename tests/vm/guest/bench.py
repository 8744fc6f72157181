"""What the guest's tests share: cgroups, work in them, an actuator with a ledger. Must not know what is tested."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from nicety.models.identity import ProcId
from nicety.scheduler.testing.bench import Bench
from nicety.scheduler.testing.puppet import proc_id

UNIFIED = Path("/sys/fs/cgroup")
CPUS = Path("/sys/devices/system/cpu")

T = TypeVar("T")


def until(condition: Callable[[], T], seconds: float = 600.0) -> T:
    """The first true answer. Emulation is slow, and how slow says nothing: the deadline only ends what would never come."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)
    return value


class Group:
    """A cgroup."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = "/" + str(path.relative_to(UNIFIED))  # as /proc/PID/cgroup has it

    def read(self, file: str) -> str:
        return (self.path / file).read_text().strip()

    def write(self, file: str, text: str) -> None:
        (self.path / file).write_text(text)

    def take(self, pid: int) -> None:
        """Move a process here."""
        self.write("cgroup.procs", str(pid))

    def used(self) -> int:
        """µs of CPU that its processes have had."""
        return int(dict(line.split() for line in self.read("cpu.stat").splitlines())["usage_usec"])

    def child(self, name: str) -> Group:
        path = self.path / name
        path.mkdir()
        return Group(path)


@contextmanager
def group(name: str) -> Iterator[Group]:
    """A cgroup below the root; it and all in it ends with the block."""
    made = Group(UNIFIED / name)
    made.path.mkdir()
    try:
        yield made
    finally:
        made.write("cgroup.kill", "1")
        until(lambda: "populated 0" in made.read("cgroup.events"))
        for directory in sorted((path for path in made.path.rglob("*") if path.is_dir()), reverse=True):
            directory.rmdir()
        made.path.rmdir()


@contextmanager
def work(program: Sequence[str], where: Group | None = None, cpus: Sequence[int] = (), count: int = 1) -> Iterator[list[ProcId]]:
    """So many processes of a program, each in a session of its own, in a cgroup and on the given CPUs from their start."""

    def settle() -> None:
        if where is not None:
            where.take(os.getpid())
        if cpus:
            os.sched_setaffinity(0, cpus)

    started = [subprocess.Popen(program, preexec_fn=settle, start_new_session=True) for _ in range(count)]
    try:
        yield [proc_id(process.pid) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()


HOG = ("/bin/sh", "-c", "while :; do :; done")
SERVICE = (sys.executable, "-I", "-S", "-c", "import time\nwhile True:\n    sum(range(20000))\n    time.sleep(0.01)")


@contextmanager
def offline(*cpus: int) -> Iterator[None]:
    """Without these CPUs, which come back with the end of the block."""
    try:
        for cpu in cpus:
            (CPUS / f"cpu{cpu}/online").write_text("0")
        yield
    finally:
        for cpu in cpus:
            (CPUS / f"cpu{cpu}/online").write_text("1")


def affinity(process: ProcId) -> tuple[int, ...]:
    return tuple(sorted(os.sched_getaffinity(process.pid)))


def bench(directory: Path) -> Bench:
    """An actuator whose ledger is in a directory."""
    return Bench(directory / "state")
