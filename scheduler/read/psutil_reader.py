"""Reads the processes of a machine that is not Linux, with psutil: the same rows as `proc.py`, as far as psutil has them.

It works on Linux too, which is how it is held to the same tests. Imported only where it serves. Its public interface is all that is
used: a name that a platform lacks (io counters on macOS) is looked up once. What is not there is unknown, a cleared bit of `known`:
run-queue wait, timeslices, sockets and keystrokes everywhere. docs/readers.md lists the rest.

Each process is read again in each tick: nothing in psutil shows that a process has not run since. Must not know rates or policies.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any

import numpy as np
import psutil

from ...models.anomaly.lifecycle import USER_HZ
from ...models.identity import ProcId
from ...models.records import SAMPLE, HostSample, Identity, Known, PoolSample, SampleTable, Snapshot
from .identity import base_name, program, says_more
from .text import printable

PIECE = 32
"""Processes read in a row (chosen): about a millisecond or two."""

_COMM = 15  # bytes of a name, as in Linux: psutil makes longer ones of the command line
_IDENTITY_TURNS = 6  # slow turns between checks for an exec that kept its name (chosen, as in `proc.py`)
_STATES: Mapping[str, int] = {
    "running": ord("R"),
    "waking": ord("R"),
    "sleeping": ord("S"),
    "waiting": ord("S"),  # FreeBSD: for an interrupt
    "parked": ord("S"),
    "disk-sleep": ord("D"),
    "locked": ord("D"),  # FreeBSD: for a lock of the kernel
    "stopped": ord("T"),
    "suspended": ord("T"),
    "tracing-stop": ord("t"),
    "zombie": ord("Z"),
    "dead": ord("X"),
    "idle": ord("I"),
}
"""psutil's names of states -> those of records.SAMPLE."""

_ZOMBIE = _STATES["zombie"]
_IO, _FDS = int(Known.IO), int(Known.FDS)
_KERNEL = 0  # pid of the kernel itself on macOS and FreeBSD


class _Process:
    """What is kept of a process between two reads."""

    __slots__ = ("cpu", "fds", "handle", "id", "identity", "io", "known", "of_kernel", "parent", "row", "seen")

    def __init__(self, handle: Any, id_: ProcId) -> None:
        self.handle = handle  # psutil.Process: equal to another one if pid and start are
        self.id = id_
        self.of_kernel = False
        self.identity: Identity | None = None
        self.seen: object = None  # what its identity rests on
        self.row: tuple[int, ...] = ()
        self.parent = 0  # pid
        self.known = 0
        self.io = (0, 0, 0, 0)
        self.fds = 0
        self.cpu = 0  # ns


class PsutilSource:
    """`ports.Source` on psutil.

    `slow_every`: ticks between reads of io counters and descriptor counts of processes in no pool; may be changed.
    """

    def __init__(self, *, slow_every: int = 10) -> None:
        self.slow_every = slow_every
        self._tick = 0
        self._processes: dict[int, _Process] = {}
        self._pids = frozenset[int]()
        self._kernel_ns = 0  # used by threads of the kernel while they were watched
        self._identities: Mapping[ProcId, Identity] = MappingProxyType({})
        self._counts_io = hasattr(psutil.Process, "io_counters")
        self._tells_cpu = hasattr(psutil.Process, "cpu_num")
        self._tells_cpus = hasattr(psutil.Process, "cpu_affinity")

    def read(self, at: int, wall: int, pools: tuple[PoolSample, ...], between: Callable[[], None] | None = None) -> Snapshot:
        """One sample of everything. Io counters and descriptors are read of members of `pools`, and of others in turn. `between` is
        called after every `PIECE` processes."""
        began = uptime_ticks(wall)  # first: a process that starts after it and is missed now must count as born later
        watched = {worker.id.pid for pool in pools for worker in pool.workers}
        watched.update(pool.master.pid for pool in pools if pool.master is not None)
        living: dict[int, _Process] = {}
        self._pids = frozenset(psutil.pids())
        for number, pid in enumerate(sorted(self._pids)):
            if between is not None and number % PIECE == 0:
                between()
            process = None if pid == _KERNEL else self._attempt(pid, pid in watched)
            if process is not None:
                living[pid] = process
        self._processes = living
        self._tick += 1
        shown = [process for process in living.values() if not process.of_kernel]
        identities = {process.id: process.identity for process in shown if process.identity is not None}
        if identities != self._identities:
            self._identities = MappingProxyType(identities)
        table: SampleTable = np.array([process.row for process in shown], dtype=SAMPLE)
        return Snapshot(at, wall, began, table, self._identities, self._host(), pools)

    def close(self) -> None:
        """Forget all processes. psutil keeps nothing open."""
        self._processes = {}

    def _attempt(self, pid: int, watched: bool) -> _Process | None:
        """The process with this pid, up to date; None if it is gone, or not ours to read."""
        process = self._processes.get(pid)
        try:
            handle = psutil.Process(pid)
            if process is None or process.handle != handle:
                process = _Process(handle, _named(handle))
            with handle.oneshot():
                self._read(handle, process, watched)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return None
        except (OSError, RuntimeError, ValueError):  # no descriptor is free, or a text that psutil does not know
            return process if process is not None and process.row else None  # as it was
        return process

    def _read(self, handle: Any, process: _Process, watched: bool) -> None:
        """Bring a process up to date. Raises what psutil raises."""
        if process.of_kernel:
            used = _used(handle.cpu_times())
            self._kernel_ns += max(used - process.cpu, 0)
            process.cpu = used
            return
        new, state, pid = not process.row, _STATES.get(handle.status(), 0), process.id.pid
        try:
            times, memory, threads = handle.cpu_times(), handle.memory_info(), handle.num_threads()
        except psutil.ZombieProcess:  # macOS has no counters of one that has ended
            process.row = self._ended(handle, process)
            return
        process.cpu = max(process.cpu, _used(times))
        if new and memory.vms == 0 and state != _ZOMBIE:
            process.of_kernel, process.row = True, (pid,)
            return
        self._identify(handle, process, ended=memory.vms == 0)
        due = new or not (self._tick + pid) % self.slow_every
        if due or watched:
            self._read_slow(handle, process)
        if due or process.parent not in self._pids:  # psutil looks twice for it, and it has another one only when the first is gone
            process.parent = handle.ppid()
        faults, major = getattr(memory, "pfaults", 0), getattr(memory, "pageins", 0)
        process.row = (
            *(*process.id, process.parent, _session(pid)),
            *(process.cpu, 0, 0),
            *(max(faults - major, 0), major, 0),
            _ns(getattr(times, "children_user", 0.0)) + _ns(getattr(times, "children_system", 0.0)),
            memory.rss,
            *process.io,
            *(process.fds, threads, max(handle.cpu_num(), 0) if self._tells_cpu else 0),
            *(state, handle.nice(), 0, process.known, 0),
        )

    def _ended(self, handle: Any, process: _Process) -> tuple[int, ...]:
        """The row of a process that has ended and that its parent has not waited for: the last one, without memory."""
        self._identify(handle, process, ended=True)
        names = SAMPLE.names or ()
        row = dict.fromkeys(names, 0) | dict(zip(names, process.row, strict=False))
        row |= {"pid": process.id.pid, "start_ticks": process.id.start_ticks, "ppid": handle.ppid()}
        row |= {"rss_bytes": 0, "threads": 1, "state": _ZOMBIE}
        return tuple(row.values())

    def _read_slow(self, handle: Any, process: _Process) -> None:
        """The io counters and the number of descriptors: expensive, and often not permitted."""
        process.known, process.io, process.fds = 0, (0, 0, 0, 0), 0
        if self._counts_io:
            with suppress(psutil.AccessDenied):
                io = handle.io_counters()
                if hasattr(io, "read_chars"):  # FreeBSD counts blocks, not bytes
                    process.io = (io.read_chars, io.write_chars, io.read_bytes, io.write_bytes)
                    process.known |= _IO
        with suppress(psutil.AccessDenied):
            process.fds = handle.num_fds()
            process.known |= _FDS

    def _identify(self, handle: Any, process: _Process, ended: bool) -> None:
        """Find out what a process is, if it is new, has another name or other rights, or it is its turn. One that has `ended` has
        no executable any more: it stays what it was."""
        name, uids, before = handle.name(), handle.uids(), process.identity
        turn = not (self._tick + process.id.pid) % (self.slow_every * _IDENTITY_TURNS)
        if before is not None and not turn and process.seen == (name, uids):
            return
        process.seen = (name, uids)
        comm = printable(os.fsencode(name)[:_COMM])
        if ended and before is not None:
            what = before.program
        else:
            exe = _exe(handle)
            what = program(exe, comm, _arguments(handle) if says_more(base_name(exe, comm), comm) else b"")
        real = None if uids.real == uids.effective else uids.real
        identity = Identity(comm, what, "/", "", uids.effective, cpus=self._allowed(handle), real_uid=real)
        if identity != before:
            process.identity = identity

    def _allowed(self, handle: Any) -> tuple[int, ...]:
        """CPUs that a process may use; () if these are all, or not known."""
        if not self._tells_cpus:
            return ()
        try:
            cpus = tuple(sorted(handle.cpu_affinity()))
        except psutil.AccessDenied:
            return ()
        return () if len(cpus) >= (psutil.cpu_count() or 0) else cpus

    def _host(self) -> HostSample:
        """Counters of the whole machine."""
        cpus, memory = psutil.cpu_times(percpu=True), psutil.virtual_memory()
        interrupts = _total(cpus, ("irq", "softirq"))
        return HostSample(
            cpu_busy_ns=tuple(_total([cpu], ("user", "nice", "system", "irq", "softirq")) for cpu in cpus),
            memory_total=memory.total,
            memory_available=memory.available,
            pressure_us=None,
            steal_ns=_total(cpus, ("steal",)),
            kernel_ns=interrupts + self._kernel_ns,
        )


def _used(times: Any) -> int:
    """ns that a process used itself."""
    return _ns(times.user) + _ns(times.system)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _total(cpus: Iterable[Any], names: Iterable[str]) -> int:
    """ns of these kinds of time, of all CPUs. A platform has no time of a kind that it does not name."""
    return sum(_ns(getattr(cpu, name, 0.0)) for name in names for cpu in cpus)


def itself() -> ProcId:
    """The calling process."""
    return _named(psutil.Process())


def _named(handle: Any) -> ProcId:
    """Pid and start of a process. Raises what psutil raises."""
    return ProcId(handle.pid, max(round((handle.create_time() - psutil.boot_time()) * USER_HZ), 0))


def uptime_ticks(wall: int) -> int:
    """Clock ticks since boot, on the scale on which processes start. `wall`: now, ns.

    On Linux they start at a time since boot, elsewhere at one of the wall clock.
    """
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    seconds = wall / 1e9 - psutil.boot_time() if clock is None else time.clock_gettime(clock)
    return int(seconds * USER_HZ)


def _session(pid: int) -> int:
    """The session of a process; 0 if it may not be known. Raises psutil.NoSuchProcess."""
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        raise psutil.NoSuchProcess(pid) from None
    except PermissionError:
        return 0


def _exe(handle: Any) -> str | None:
    """Path of the executable; None if it cannot be known."""
    try:
        return handle.exe() or None
    except (psutil.AccessDenied, psutil.ZombieProcess):
        return None


def _arguments(handle: Any) -> bytes:
    """The command line as /proc has it, empty if it cannot be known."""
    try:
        return b"".join(os.fsencode(argument) + b"\0" for argument in handle.cmdline())
    except (psutil.AccessDenied, psutil.ZombieProcess):
        return b""
