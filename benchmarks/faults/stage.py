"""Real processes and cgroups that a program may change, others that it must not, and what the kernel has of all of them.

Asks the kernel without nicety's code. Must not know programs or faults.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from nicety.models.identity import ProcId
from nicety.scheduler.hands.knobs.cgroup import find
from nicety.scheduler.testing.puppet import Puppet, proc_id

Values = dict[str, object]
"""What the kernel has, by a name such as "12/13 nice"."""

BY_HAND = 4
"""The nice, of a process or an autogroup, that a hand sets while a program is at work. Never a value that nicety would set."""

_SCHED_GETATTR = 315  # its number on x86_64

_SERVICE = "import time\nwhile True:\n    sum(range(60000))\n    time.sleep(0.002)\n"
_HOG = "while True: pass\n"


class Stage:
    """Processes that a program may change, and a stranger that it must not. Leaving the `with` block ends them all."""

    def __init__(self) -> None:
        self.ids: list[ProcId] = []
        self.groups: list[Path] = []  # cgroups that may be changed
        self.stranger = Puppet()
        os.setpriority(os.PRIO_PROCESS, self.stranger.pid, 3)
        self.before: Values = {}
        self._interfered = False

    def values(self) -> Values:
        """What the kernel has now."""
        found: Values = {}
        for process in (*self.ids, self.stranger.id):
            found |= values_of(process.pid)
        for group in self.groups:
            found |= {f"{group.name} {name}": (group / name).read_text() for name in ("cpu.shares", "cpu.idle")}
        return found

    def expected(self) -> Values:
        """What the kernel must have when everything is undone: what a hand has set stays."""
        return {**self.before, self.hand: BY_HAND} if self._interfered else self.before

    def interfere(self) -> None:
        """Somebody else sets a value of the last process that is being changed."""
        self._interfered = True
        self._set(BY_HAND)

    def give_back(self) -> None:
        """Take `interfere` back, for the next case."""
        self._interfered = False
        self._set(0)

    @property
    def hand(self) -> str:
        """The name of the value that `interfere` sets."""
        raise NotImplementedError

    def _set(self, value: int) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """End them all."""
        self.stranger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Puppets(Stage):
    """Three processes that do nothing, two of them with threads; and two cgroups where there is cgroup v1."""

    def __init__(self) -> None:
        super().__init__()
        self._puppets = [Puppet() for _ in range(3)]
        for puppet, nice, threads in zip(self._puppets, (0, 2, 0), (1, 1, 0), strict=True):
            os.setpriority(os.PRIO_PROCESS, puppet.pid, nice)
            for _ in range(threads):
                puppet.thread()
        self.ids = [puppet.id for puppet in self._puppets]
        mount = find(Path("/proc/self/mountinfo").read_text()).shares
        if mount is not None and os.access(mount.point, os.W_OK) and (Path(mount.point) / "cpu.idle").exists():
            self.groups = [Path(mount.point) / f"nicety-faults-{os.urandom(4).hex()}-{number}" for number in range(2)]
            for group in self.groups:
                group.mkdir()
        self.before = self.values()

    @property
    def hand(self) -> str:
        """The nice of the last one."""
        return f"{self.ids[2].pid}/{self.ids[2].pid} nice"

    def _set(self, value: int) -> None:
        os.setpriority(os.PRIO_PROCESS, self.ids[2].pid, value)

    def close(self) -> None:
        """End them all, and remove the cgroups."""
        super().close()
        for puppet in self._puppets:
            puppet.close()
        for group in self.groups:
            group.rmdir()


class Load(Stage):
    """An interactive service and two batch hogs in sessions of their own. All on one CPU, so that they contend."""

    CONFIG = """
[daemon]
interval = 0.1
[models]
behaviour = false
[priority]
release_after = 0.5
[groups.service]
program = "python* service.py"
class = "interactive"
[groups.hogs]
program = "python* hog.py"
class = "batch"
"""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        cpu = max(os.sched_getaffinity(0))
        (folder / "service.py").write_text(_SERVICE)
        (folder / "hog.py").write_text(_HOG)
        self._running: list[subprocess.Popen[bytes]] = []
        for name in ("service.py", "hog.py", "hog.py"):
            started = subprocess.Popen([sys.executable, "-S", name], cwd=folder, start_new_session=True)
            os.sched_setaffinity(started.pid, {cpu})
            os.setpriority(os.PRIO_PROCESS, started.pid, 0)  # any other is somebody's choice, and stays
            self._running.append(started)
        self.ids = [proc_id(started.pid) for started in self._running]
        self._autogroup = Path(f"/proc/{self.ids[2].pid}/autogroup")
        self.before = self.values()

    @property
    def hand(self) -> str:
        """The nice of the last one's session; its own where there are no autogroups."""
        pid = self.ids[2].pid
        return f"{pid} autogroup" if self._autogroup.exists() else f"{pid}/{pid} nice"

    def _set(self, value: int) -> None:
        if self._autogroup.exists():
            self._autogroup.write_text(str(value))
        else:
            os.setpriority(os.PRIO_PROCESS, self.ids[2].pid, value)

    def close(self) -> None:
        """End them all."""
        super().close()
        for started in self._running:
            started.send_signal(signal.SIGKILL)
            started.wait()


def values_of(pid: int) -> Values:
    """Every control of a process."""
    found: Values = {}
    for tid in sorted(int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()):
        found[f"{pid}/{tid} nice"] = os.getpriority(os.PRIO_PROCESS, tid)
        found[f"{pid}/{tid} affinity"] = tuple(sorted(os.sched_getaffinity(tid)))
        found[f"{pid}/{tid} policy"] = os.sched_getscheduler(tid)
        found[f"{pid}/{tid} slice"] = _slice(tid)
    with suppress(FileNotFoundError):
        found[f"{pid} autogroup"] = int(Path(f"/proc/{pid}/autogroup").read_text().split()[2])
    found[f"{pid} cgroup"] = Path(f"/proc/{pid}/cgroup").read_text()
    return found


def changed(before: Values, now: Values) -> list[str]:
    """The differences, one line each."""
    return [f"{name} is {now.get(name)}, was {value}" for name, value in before.items() if now.get(name) != value]


def until(condition: Callable[[], object], seconds: float, pause: float = 0.01) -> bool:
    """Wait until it holds; False: it did not in this time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(pause)
    return True


def files_below(folder: Path, patterns: Iterable[str]) -> list[str]:
    """Files and folders below `folder` that match, relative to it."""
    return sorted({str(path.relative_to(folder)) for pattern in patterns for path in folder.rglob(pattern)})


def _slice(tid: int) -> int:
    """sched_attr.sched_runtime of a thread, ns; 0 where this kernel has no slices, or this file does not know how to ask."""
    attributes = ctypes.create_string_buffer(48)
    if platform.machine() != "x86_64" or ctypes.CDLL(None).syscall(_SCHED_GETATTR, tid, attributes, 48, 0):
        return 0
    return int.from_bytes(attributes.raw[24:32], sys.byteorder)
