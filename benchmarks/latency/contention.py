"""A scene to measure in: redis-server under open-loop load, and four hogs that use every CPU. They are separated in one of three
ways:

session    service and hogs share a session, and so an autogroup
sessions   each has its own session
cgroups    each has its own cgroup in the cpu hierarchy (v1 or v2), which is made and removed here; needs root
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

HOGS = 4
"""CPU hogs. Chosen: twice as many as the CPUs of the measured machine."""

SEPARATIONS = ("session", "sessions", "cgroups")

LAUNCH = """
import os, sys
for line in sys.stdin:  # a command a line; the children share this session
    words = line.rstrip("\\n").split("\\t")
    pid = os.fork()
    if pid == 0:
        os.execvp(words[0], words)
    print(pid, flush=True)
"""
"""Starts the programs that it reads from stdin, in its own session, and prints their pids."""

HOG = """
import mmap, os, sys, time
slot, work, rest = int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
counters = memoryview(mmap.mmap(os.open(sys.argv[1], os.O_RDWR), 0)).cast("Q")  # at once, where struct writes byte by byte
count, end = 0, time.monotonic() + work
while True:
    total = 0
    for number in range(2000):
        total += number
    count += 1
    counters[slot] = count
    if rest and time.monotonic() >= end:
        time.sleep(rest)
        end = time.monotonic() + work
"""


def free_port() -> int:
    """A free port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_hierarchy() -> Path | None:
    """The directory in which cgroups with a cpu weight can be made; None if there is none that may be written."""
    for place, sign in ((Path("/sys/fs/cgroup/cpu"), "cpu.shares"), (Path("/sys/fs/cgroup"), "cgroup.subtree_control")):
        if (place / sign).exists() and os.access(place, os.W_OK):
            return place
    return None


@dataclass
class Scene:
    """The running programs: `service` is the pid of redis-server, `hogs` are the pids of the hogs."""

    separation: str
    folder: Path
    port: int
    service: int = 0
    hogs: list[int] = field(default_factory=list)
    cgroups: list[Path] = field(default_factory=list)
    _shells: list[subprocess.Popen[str]] = field(default_factory=list)
    _counters: memoryview | None = None

    def start_hogs(self, work: float = 0.0, rest: float = 0.0) -> float:
        """Start the hogs; returns when that was (monotonic seconds). `work`, `rest`: seconds of a period; `rest` 0: none."""
        shell = self._shells[0] if self.separation == "session" else self._shell(self._cgroup("batch"))
        began = time.monotonic()
        for slot in range(HOGS):
            words = [str(self.folder / "hog.py"), str(self.folder / "counters"), str(slot), str(work), str(rest)]
            self.hogs.append(_started(shell, [sys.executable, *words]))
        return began

    def rounds(self) -> int:
        """Work done by all hogs so far."""
        assert self._counters is not None
        return sum(self._counters)

    def stop_hogs(self) -> None:
        """End the hogs and wait for them."""
        for pid in self.hogs:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while any(_alive(pid) for pid in self.hogs) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.hogs = []

    def _shell(self, cgroup: Path | None) -> subprocess.Popen[str]:
        shell = subprocess.Popen(
            [sys.executable, "-c", LAUNCH], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        if cgroup is not None:
            (cgroup / "cgroup.procs").write_text(str(shell.pid))
        self._shells.append(shell)
        return shell

    def _cgroup(self, name: str) -> Path | None:
        if self.separation != "cgroups":
            return None
        top = cpu_hierarchy()
        if top is None:
            raise SystemExit("no writable cpu cgroup hierarchy: run as root, or leave out the separation cgroups")
        place = top / f"nicety-bench-{os.getpid()}-{name}"
        if not place.exists():
            place.mkdir()
            self.cgroups.append(place)
        return place

    def close(self) -> None:
        """End everything, remove the cgroups."""
        self.stop_hogs()
        for shell in self._shells:
            assert shell.stdin is not None
            assert shell.stdout is not None
            os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
            shell.stdin.close()
            shell.stdout.close()
        if self._counters is not None:
            self._counters.release()
        deadline = time.monotonic() + 10
        for place in self.cgroups:
            while time.monotonic() < deadline:
                try:
                    place.rmdir()
                    break
                except OSError:  # its processes are still exiting
                    time.sleep(0.02)


@contextlib.contextmanager
def scene(separation: str) -> Iterator[Scene]:
    """Run redis-server within the block, entered once it answers. Hogs run after `start_hogs`."""
    redis = shutil.which("redis-server")
    if redis is None:
        raise SystemExit("redis-server is not installed: apt-get install redis-server (its service need not run)")
    with tempfile.TemporaryDirectory() as folder:
        made = Scene(separation, Path(folder), free_port())
        (made.folder / "hog.py").write_text(HOG)
        (made.folder / "counters").write_bytes(bytes(8 * HOGS))
        with (made.folder / "counters").open("r+b") as file:
            made._counters = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")  # noqa: SLF001
        try:
            shell = made._shell(made._cgroup("service"))  # noqa: SLF001
            words = ["--port", str(made.port), "--save", "", "--appendonly", "no", "--dir", folder, "--logfile", f"{folder}/log"]
            made.service = _started(shell, [redis, *words])
            deadline = time.monotonic() + 10
            while True:
                try:
                    socket.create_connection(("127.0.0.1", made.port), 1).close()
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise SystemExit("redis-server did not answer within 10 s; try: redis-server --port 0") from None
                    time.sleep(0.02)
            yield made
        finally:
            made.close()


def calibrate(made: Scene, seconds: float) -> tuple[int, float]:
    """(turns of the script's loop that take about `seconds` of the server's CPU, CPU seconds of such a request), under light
    load."""
    turns = 10_000
    for _ in range(2):
        turns = max(10, round(turns * seconds / _cost(made, turns, 2.0)))
    return turns, _cost(made, turns, 6.0)


def _cost(made: Scene, turns: int, length: float, rate: float = 600.0) -> float:
    """CPU seconds of a request."""
    before = cpu_seconds(made.service)
    start_load(made, rate, length, turns, 1).wait()
    return (cpu_seconds(made.service) - before) / len(np.load(made.folder / "latency.npy")[0])


def start_load(made: Scene, rate: float, seconds: float, turns: int, seed: int) -> subprocess.Popen[bytes]:
    """Start open-loop load in the background; it begins after about 0.3 s. When it ends, it writes `folder / "latency.npy"`: the
    rows of `openloop.py`."""
    generator = str(Path(__file__).with_name("openloop.py"))
    asked = ["--port", made.port, "--rate", rate, "--seconds", seconds, "--work", turns, "--seed", seed]
    out = str(made.folder / "latency.npy")
    return subprocess.Popen([sys.executable, generator, *map(str, asked), "--out", out], start_new_session=True)


# --- the hand-picked controls ---------------------------------------------------------------------------------------------------


SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}


class _Attributes(ctypes.Structure):
    """struct sched_attr, include/uapi/linux/sched/types.h"""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def set_slice(pid: int, seconds: float) -> None:
    """Set the time slice of every thread (EEVDF, Linux 6.12); 0: the default."""
    for tid in _threads(pid):
        nice = os.getpriority(os.PRIO_PROCESS, tid)
        attributes = _Attributes(size=ctypes.sizeof(_Attributes), nice=nice, runtime=round(seconds * 1e9))
        if ctypes.CDLL(None, use_errno=True).syscall(SCHED_SETATTR[platform.machine()], tid, ctypes.byref(attributes), 0):
            raise OSError(ctypes.get_errno(), "sched_setattr")


class Weights(NamedTuple):
    """The values that decide how much CPU the batch gets beside the service."""

    nices: tuple[int, ...]  # of the hogs
    autogroup: int  # nice of the hogs' autogroup
    cgroup: int | None  # cpu.shares or cpu.weight of the batch's cgroup; None: it has no own cgroup


def weights(made: Scene) -> Weights:
    """The values now."""
    file = _weight_file(made)
    nices = tuple(os.getpriority(os.PRIO_PROCESS, pid) for pid in made.hogs)
    group = int(Path(f"/proc/{made.hogs[0]}/autogroup").read_text().split()[-1])
    return Weights(nices, group, None if file is None else int(file.read_text()))


def set_weights(made: Scene, wanted: Weights) -> None:
    """Set the values that differ from those in force."""
    now, file = weights(made), _weight_file(made)
    for pid, nice, before in zip(made.hogs, wanted.nices, now.nices, strict=True):
        if nice != before:
            os.setpriority(os.PRIO_PROCESS, pid, nice)
    if wanted.autogroup != now.autogroup:
        Path(f"/proc/{made.hogs[0]}/autogroup").write_text(str(wanted.autogroup))
    if file is not None and wanted.cgroup != now.cgroup:
        file.write_text(str(wanted.cgroup))


def plain(made: Scene) -> Weights:
    """The kernel's defaults."""
    file = _weight_file(made)
    return Weights((0,) * len(made.hogs), 0, None if file is None else 1024 if file.name == "cpu.shares" else 100)


def weigh_down(made: Scene) -> None:
    """Give the batch the least weight, through nice, autogroup or cgroup, depending on what separates it from the service."""
    at = plain(made)
    if made.separation == "session":
        at = at._replace(nices=(19,) * len(made.hogs))
    elif made.separation == "sessions":
        at = at._replace(autogroup=19)
    else:
        at = at._replace(cgroup=2 if at.cgroup == 1024 else 1)
    set_weights(made, at)


def _weight_file(made: Scene) -> Path | None:
    places = [place / name for place in made.cgroups for name in ("cpu.shares", "cpu.weight") if place.name.endswith("batch")]
    return next((place for place in places if place.exists()), None)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far."""
    return sum(int(Path(f"/proc/{pid}/task/{tid}/schedstat").read_text().split()[0]) for tid in _threads(pid)) / 1e9


def _threads(pid: int) -> list[int]:
    return sorted(int(path.name) for path in Path(f"/proc/{pid}/task").iterdir())


def _started(shell: subprocess.Popen[str], words: list[str]) -> int:
    assert shell.stdin is not None
    assert shell.stdout is not None
    shell.stdin.write("\t".join(words) + "\n")
    shell.stdin.flush()
    return int(shell.stdout.readline())


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
