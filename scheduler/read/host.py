"""Reads the machine as a whole: CPU time, memory, pressure, uptime. Must not know any process.

Files stay open and are read again from the start: that costs half of opening them each time.
"""

from __future__ import annotations

import os
from pathlib import Path

from ...models.records import HostSample

USER_HZ: int = os.sysconf("SC_CLK_TCK")
"""Clock ticks per second in everything that /proc prints (proc(5)); not the kernel's own HZ."""

_TICK_NS = 1_000_000_000 // USER_HZ
_RESOURCES = ("cpu", "memory", "io")


class MachineError(RuntimeError):
    """A file needed to sample the machine is missing or odd; says which, and what to do."""


class HostReader:
    """Reads `root`/stat, meminfo, pressure and uptime.

    Raises MachineError, here and in the reads, if stat, meminfo or uptime cannot be used.
    """

    def __init__(self, root: Path = Path("/proc")) -> None:
        self._root = root
        self._fds: dict[str, int] = {}
        self._size = {"stat": 4096}
        self._pressure = True
        try:
            self.read()
            self.uptime_ticks()
        except BaseException:
            self.close()
            raise

    def read(self) -> HostSample:
        """Counters of this instant. Busy is all but idle, iowait and steal (what the hypervisor gave to others)."""
        busy, forks, steal, interrupts = self._cpu()
        memory, pressure = self._memory(), self._pressures()
        return HostSample(busy, *memory, pressure_us=pressure, forks=forks, steal_ns=steal, kernel_ns=interrupts)

    def uptime_ticks(self) -> int:
        """Clock ticks since boot, the scale of start times in /proc/PID/stat."""
        text = self._required("uptime")
        try:
            seconds, _, fraction = text.split()[0].partition(b".")
            return int(seconds) * USER_HZ + int(fraction.ljust(9, b"0")[:9]) * USER_HZ // 1_000_000_000
        except (ValueError, IndexError):
            raise self._odd("uptime") from None

    def newest_pid(self) -> int | None:
        """The pid that was given out last in the reader's own namespace; None: not known. 2 us."""
        try:
            return int(self._pread("loadavg").rsplit(maxsplit=1)[1])
        except (OSError, ValueError, IndexError):
            return None

    def close(self) -> None:
        """Close all descriptors."""
        while self._fds:
            os.close(self._fds.popitem()[1])

    def _cpu(self) -> tuple[tuple[int, ...], int, int, int]:
        """Busy ns of each CPU, processes started since boot, and ns of all CPUs that were stolen and that interrupts used."""
        busy: dict[int, int] = {}
        stolen = interrupts = 0
        text = self._required("stat")
        started = text.find(b"\nprocesses ")
        try:
            forks = int(text[started + 11 : started + 32].split()[0]) if started >= 0 else 0
            for line in text.splitlines():
                if not line.startswith(b"cpu"):
                    break  # the cpu lines come first; the rest (interrupts) is long
                name, *ticks = line.split()
                if name != b"cpu":
                    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, ticks[:8])  # guest time is part of user
                    busy[int(name[3:])] = (user + nice + system + irq + softirq) * _TICK_NS
                    stolen += steal * _TICK_NS
                    interrupts += (irq + softirq) * _TICK_NS
        except (ValueError, IndexError):
            raise self._odd("stat") from None
        if not busy:
            raise self._odd("stat")
        return tuple(busy[cpu] for cpu in sorted(busy)), forks, stolen, interrupts

    def _memory(self) -> tuple[int, int]:
        """(total, available), bytes."""
        try:
            memory = {key: value for key, _, value in (line.partition(b":") for line in self._required("meminfo").splitlines())}
            total, available = (int(memory[key].split()[0]) * 1024 for key in (b"MemTotal", b"MemAvailable"))
        except (ValueError, KeyError, IndexError):
            raise self._odd("meminfo") from None
        return total, available

    def _pressures(self) -> tuple[int, int, int] | None:
        """Totals of "some" in µs; None from then on once one of them cannot be read (no PSI, or psi=0)."""
        if not self._pressure:
            return None
        try:
            cpu, memory, io = (int(self._pread(f"pressure/{name}").split(b"\n")[0].split(b"total=")[1]) for name in _RESOURCES)
        except (OSError, ValueError, IndexError):
            self._pressure = False
            return None
        return cpu, memory, io

    def _required(self, name: str) -> bytes:
        try:
            return self._pread(name)
        except OSError as error:
            raise MachineError(
                f"{self._root / name}: {error.strerror}; mount a whole procfs there (without subset=pid) or give another root"
            ) from error

    def _odd(self, name: str) -> MachineError:
        return MachineError(f"{self._root / name}: not in the form of proc(5); is {self._root} a procfs?")

    def _pread(self, name: str) -> bytes:
        """The whole file, from a descriptor that stays open. The buffer grows with the file (a line per CPU)."""
        fd = self._fds.get(name)
        if fd is None:
            fd = self._fds[name] = os.open(self._root / name, os.O_RDONLY | os.O_CLOEXEC)
        while True:
            size = self._size.get(name, 4096)
            text = os.pread(fd, size, 0)
            if len(text) < size or size > 1 << 24:
                return text
            self._size[name] = 2 * size
