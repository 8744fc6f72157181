"""Reads the processes of this machine: one row of raw counters each, and what each of them is. Must not know rates or policies.

An idle process costs one system call a tick. The kernel's CPU clock of a process (clock_getcpuclockid(3)) stands still exactly
while none of its threads runs, and a process that has not run has no new counters. The counters of its children are no exception:
they grow while it waits for a child, which takes CPU, and not at all where it ignores SIGCHLD. A process that ran is read in
full, from descriptors that stay open. They belong to the process, not to its pid, so a reused pid shows as ESRCH. What others may
change while a process sleeps (resident pages, nice, cgroup, terminal) is read every few ticks. `benchmarks/cost/collector.py`
measures the cost.

Whether a process serves is seen only in its descriptors, at 3 us each. They are read when it is first seen, after an exec, and when
it ran and their number has changed. The number is read each tick while the process is young, because that is when services begin to
listen, and later on its slow turns. A young process may also begin to listen with descriptors that it has, so its sockets are
compared each time. Whether its parent feeds it is read after an exec, and on its slow turns while it is fed.
"""

# ruff: noqa: PTH115, PTH116, PTH208 -- Path objects cost more than the system calls, a thousand times a tick

from __future__ import annotations

import errno
import os
import resource
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from enum import Enum, auto
from functools import lru_cache, partial
from itertools import islice, takewhile
from operator import attrgetter, ne
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from ...models.identity import ProcId
from ...models.records import SAMPLE, Identity, Known, PoolSample, SampleTable, Snapshot, Trait
from ..hands import reads
from ..hands.faults import Fault, fault_of
from . import door
from .host import USER_HZ, HostReader
from .identity import base_name, cgroup_and_unit, program, real_uid, says_more
from .quotas import Quotas
from .sockets import Listeners
from .stdin import Feeders, awaits_input
from .text import printable

T = TypeVar("T")

_PAGE = os.sysconf("SC_PAGE_SIZE")  # bytes; the unit of resident memory in stat
_TICK_NS = 1_000_000_000 // USER_HZ
_CODES = {"|u1": "B", "|i1": "b", "<u2": "H", "<u4": "I", "<u8": "Q"}  # types of numpy -> those of struct
_ROW = struct.Struct("<" + "".join(_CODES[SAMPLE[name].str] for name in SAMPLE.names or ()))
"""A row of the sample table as bytes: packing it is five times faster than assigning a tuple to a numpy row."""

_COUNTERS = struct.Struct("<QQQQI")  # those of io, and the number of descriptors: they stand side by side in a row
_COUNTERS_AT, _KNOWN_AT = (
    sum(SAMPLE[name].itemsize for name in takewhile(partial(ne, column), SAMPLE.names or ())) for column in ("read_chars", "known")
)
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD in field 9 of stat, include/linux/sched.h; "child of pid 2" is wrong in containers
_CPUCLOCK_SCHED = 2  # clock id of a whole process: ~pid << 3 | 2, include/linux/posix-timers.h
_IDENTITY_TURNS = 6  # slow turns between checks for what shows nowhere else: another cgroup, a replaced descriptor (chosen)
_YOUNG_TICKS = 30 * USER_HZ  # clock ticks (chosen): a Python or Java service has read its code and listens by then
_MOST_DESCRIPTORS = 1 << 15  # two a process, one per further thread (chosen): more costs more kernel memory than it saves time
_PIECE = 64  # processes that are read in a row, and asked of the hands in one request (chosen): a few milliseconds at most
_RESERVE = 256  # descriptors left to the rest of the daemon (chosen)
_STAT_BYTES = 2048  # 52 numbers of at most 20 digits, and a name
_NEVER = b""  # the text of a file that was not read yet
_USED = struct.Struct("<QQQ")  # run ns, wait ns, slices: as bytes they take a third of the memory of numbers
_UNUSED = bytes(_USED.size)
_UNKNOWN = b"0"  # what the kernel writes in place of addresses that are not ours to know
_WAIT, _IO, _FDS, _SOCKETS, _ASKED = map(int, Known)  # operators of IntFlag cost 1 us each
_SERVES, _SERVES_LOCALLY, _TERMINAL, _KEYS, _SHOWS, _FED, _ASKED_BY_PIPE = map(int, Trait)


_shared = lru_cache(maxsize=1024)(Identity)
"""Processes that are the same have one identity: a crowd of workers costs the memory of one (size chosen)."""


class _Found(Enum):
    """How an attempt to read a process ended."""

    READ = auto()
    GONE = auto()  # it ended, or its pid is reused
    KERNEL = auto()  # a kernel thread
    CLOSED = auto()  # not ours to read, or in an unknown format
    UNKNOWN = auto()  # not now: no free descriptor or memory, or the read was interrupted or failed


_FOUND = {Fault.GONE: _Found.GONE, Fault.DENIED: _Found.CLOSED}  # all other faults: UNKNOWN


class _Thread:
    """Run-queue counters of one thread, as last read."""

    __slots__ = ("fd", "text")

    def __init__(self) -> None:
        self.fd = -1
        self.text = _NEVER  # smaller than the counters in it


class _Process(_Thread):
    """What is kept about one process between ticks. It is its own first thread. There are thousands of them, most with no other:
    what a row or a hash can hold has no field."""

    __slots__ = (
        *("clock", "cpu", "denied", "id", "identity", "links", "others", "pid", "port", "program_seen", "ran", "row", "run_clock"),
        *("schedstat", "serves", "sockets", "stat_fd", "stat_seen", "stdin", "unlooked", "used"),
    )

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.pid = pid
        self.id: ProcId | None = None
        self.identity: Identity | None = None
        self.program_seen: int | None = None  # hash of the name and of what moves with each exec
        self.clock = (~pid << 3) | _CPUCLOCK_SCHED
        self.run_clock = -1  # what `clock` showed at the last full read
        self.stat_fd = -1
        self.stat_seen: int | None = None  # hash of the text from which `row` was made; None: it is to be made anew
        self.schedstat = True  # this kernel has it, as far as known
        self.others: dict[int, _Thread] | None = None  # its further threads; None: it has had none
        self.used = _UNUSED  # by all threads that it has or had
        self.cpu = 0
        self.ran = True  # since its counters of io and descriptors were last read
        self.denied = 0  # bits of `Known`: what is not ours to read
        self.serves: int | None = None  # traits from its sockets
        self.stdin = 0  # traits from its standard input
        self.port = 0  # the lowest on which its sockets listen
        self.sockets: tuple[int, ...] = ()  # inodes of the sockets among its descriptors
        self.links = -1  # number of its descriptors when they were last read
        self.unlooked = True  # it ran since then
        self.row = b""  # also keeps the counters of io and descriptors


class ProcSource:
    """`ports.Source` of the real machine, or of a tree at `root` in the form of procfs.

    `slow_every`: ticks between reads of io counters and descriptor counts of processes in no pool; may be changed. Raises
    MachineError (host.py) if `root` is not a procfs. With many processes the soft descriptor limit is raised, at most to the hard
    one; `close` restores it."""

    def __init__(self, root: Path = Path("/proc"), *, slow_every: int = 10) -> None:
        self._root = str(root)
        self.slow_every = slow_every
        self._tick = 0
        self._processes: dict[str, _Process] = {}
        self._skipped: set[str] = set()  # closed processes; retried every `slow_every` ticks, because pids are reused
        self._kernel: dict[str, int] = {}  # kernel threads among them -> ns of their CPU clock
        self._kernel_ns = 0  # used by them while they were watched
        self._identities: Mapping[ProcId, Identity] = MappingProxyType({})
        self._changed = False
        self._open = 0
        self._limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._budget = _within(self._limits[0])
        self._host = HostReader(root)
        self._quotas = Quotas.of(root)
        self._cgroups = frozenset[str]()  # of all identities
        self._uptime_ticks = 0
        self._native = self._shows_our_pids()
        self._online = os.sysconf("SC_NPROCESSORS_ONLN")
        self._pid = os.getpid() if self._native else -1
        self._listeners = Listeners(self._root, ours=self._native)
        self._feeders = Feeders(self._listeners.peer)
        self._counts_fds = self._native and os.stat(f"{self._root}/self/fd").st_size > 0  # since Linux 6.2, needs no permission

    def read(self, at: int, wall: int, pools: tuple[PoolSample, ...], between: Callable[[], None] | None = None) -> Snapshot:
        """One sample of everything. Members of `pools` are read in full, other processes if they ran since the last call. `between`
        is called after every `_PIECE` processes."""
        uptime_ticks = self._host.uptime_ticks()  # first: a process that starts after it and is missed now must count as born later
        self._uptime_ticks = uptime_ticks
        self._listeners.forget()
        self._feeders.forget()
        watched = {str(worker.id.pid) for pool in pools for worker in pool.workers}
        watched.update(str(pool.master.pid) for pool in pools if pool.master is not None)
        found: list[_Process] = []
        living = self._living(watched)
        while piece := list(islice(living, _PIECE)):
            found += piece
            if between is not None:
                between()
        alive = sorted(found, key=attrgetter("pid"))
        if len(alive) < len(self._processes):
            kept = {process.pid for process in alive}
            for name in [name for name, process in self._processes.items() if process.pid not in kept]:
                self._forget(name)
        if self._changed:
            both = ((process.id, process.identity) for process in alive)
            self._identities = MappingProxyType(
                {id_: identity for id_, identity in both if id_ is not None and identity is not None}
            )
            self._cgroups = frozenset(identity.cgroup for identity in self._identities.values())
            self._changed = False
        self._tick += 1
        table: SampleTable = np.frombuffer(b"".join([process.row for process in alive]), dtype=SAMPLE)
        host = self._host.read()
        host = replace(host, kernel_ns=host.kernel_ns + self._kernel_ns)
        return Snapshot(at, wall, uptime_ticks, table, self._identities, host, pools, self._quotas.read(self._cgroups))

    def close(self) -> None:
        """Close all descriptors and restore the descriptor limit."""
        for name in list(self._processes):
            self._forget(name)
        self._host.close()
        self._listeners.close()
        if resource.getrlimit(resource.RLIMIT_NOFILE) != self._limits:
            resource.setrlimit(resource.RLIMIT_NOFILE, self._limits)

    # --- which processes there are --------------------------------------------------------------------------------------------

    def _living(self, watched: set[str]) -> Iterator[_Process]:
        """Every living process, its row up to date. This loop decides what a tick costs."""
        names = self._with_room(lambda: os.listdir(self._root))
        tick, slow_every, processes, skipped, native = self._tick, self.slow_every, self._processes, self._skipped, self._native
        clock, now, whole = time.clock_gettime_ns, -1, list[str]()
        for name in names:
            process = processes.get(name)
            if process is None:
                if name.isdecimal() and not (name in skipped and (tick + int(name)) % slow_every):
                    whole.append(name)
                continue
            due = not (tick + process.pid) % slow_every
            if native:
                try:
                    now = clock(process.clock)
                except OSError:
                    continue  # gone since it was listed
                # 0 proves nothing: every process starts at 0, also a later one with this pid
                if 0 < now == process.run_clock and not due and name not in watched:
                    yield process
                    continue
            # what has not run since it was last read in full needs only a look at its stat: nothing is asked of the hands for that
            calm = now == process.run_clock != -1 and not (process.ran or process.unlooked or (due and self._has_turn(process)))
            if name in watched or (not calm and (due or self._is_young(process))):
                whole.append(name)
                continue
            found = self._attempt(process, now, due)
            if found is _Found.UNKNOWN:
                process.stat_seen, process.run_clock = None, -1  # keeps its last row; what changed is read in the next tick
            elif found is not _Found.READ:
                self._forget(name)
                whole.append(name)  # its pid may be reused already
                continue
            yield process
        while whole:
            yield from self._read_whole(whole, watched)
        self._watch_kernel()
        if not tick % slow_every:
            skipped.intersection_update(names)

    def _watch_kernel(self) -> None:
        """Add up what kernel threads used. They have no row, but their work must not count as unseen. 0.3 us each."""
        clock, kernel, ended = time.clock_gettime_ns, self._kernel, list[str]()
        for name, before in kernel.items():
            try:
                now = clock((~int(name) << 3) | _CPUCLOCK_SCHED)
            except OSError:
                ended.append(name)
                continue
            self._kernel_ns += max(now - before, 0)
            kernel[name] = now
        for name in ended:
            del kernel[name]

    def _is_due(self, process: _Process) -> bool:
        """Whether what others may change while a process sleeps is read in this tick."""
        return not (self._tick + process.pid) % self.slow_every

    def _is_young(self, process: _Process) -> bool:
        """Whether it may begin to listen, or give up rights: most do that soon after their start."""
        return process.id is not None and self._uptime_ticks - process.id.start_ticks < _YOUNG_TICKS

    def _has_turn(self, process: _Process) -> bool:
        """Whether what shows nowhere else is read of a process that is due."""
        return not (self._tick + process.pid) % (self.slow_every * _IDENTITY_TURNS)

    def _read_whole(self, names: list[str], watched: set[str]) -> Iterator[_Process]:
        """Take up to `_PIECE` processes from the end of `names`: they are new, young, due or `watched`. The hands are asked in one
        request for what they must read of them, and after their stat: if a program is exchanged in between, the next tick sees its
        new name. A name is put back if its pid may be reused."""
        begun: list[tuple[str, _Process, int, bytes]] = []
        asked: dict[ProcId, int] = {}
        while names and len(begun) < _PIECE:
            name = names.pop()
            process = self._processes.get(name) or _Process(int(name))
            try:
                now = time.clock_gettime_ns(process.clock) if self._native else -1
            except OSError:
                continue  # gone since it was listed
            try:
                raw, process.stat_fd = self._pread(process.stat_fd, f"{self._root}/{name}/stat", _STAT_BYTES)
                asked.update(self._asked_about(process, now, raw, name in watched))
            except OSError as error:
                yield from self._settle(name, process, _FOUND.get(fault_of(error), _Found.UNKNOWN), names)
            else:
                begun.append((name, process, now, raw))
        door.foresee(asked)
        for name, process, now, raw in begun:
            due = process.id is None or self._is_due(process)
            slow = process.id is None or name in watched
            yield from self._settle(name, process, self._attempt(process, now, due, slow, raw), names)
        door.foresee({})

    def _asked_about(self, process: _Process, now: int, raw: bytes, watched: bool) -> dict[ProcId, int]:
        """What the hands are asked about a process with this stat, see `door.foresee`: nothing of a kernel thread."""
        new, due = process.id is None, self._is_due(process)
        ran = now < 0 or now != process.run_clock
        whole, slow = new or (due and self._has_turn(process)), new or watched or (due and (process.ran or ran))
        looked = (process.unlooked or ran) and not process.denied & _SOCKETS and process.pid != self._pid
        looked = looked and (whole or (ran and self._is_young(process)))
        more = looked and (
            whole or due or not self._counts_fds or os.stat(f"{self._root}/{process.pid}/fd").st_size != process.links
        )
        counted = slow and not process.denied & _IO
        bits = reads.EXE * whole | reads.SOCKETS * more | reads.COUNTERS * counted
        bits |= reads.COUNTED * (counted and not self._counts_fds) | reads.NAMESPACE * (
            looked and not more and bool(process.sockets)
        )
        if not bits:
            return {}
        try:
            fields = raw[raw.rindex(b")") + 1 :].split()
            bits |= reads.COUNTED * (counted and fields[0] == b"Z")  # the kernel counts none of a zombie for others
            return {} if int(fields[6]) & _KERNEL_THREAD else {ProcId(process.pid, int(fields[19])): bits}
        except (ValueError, IndexError):  # an unknown format of stat
            return {}

    def _settle(self, name: str, process: _Process, found: _Found, names: list[str]) -> Iterator[_Process]:
        """Keep or forget a process after an attempt to read everything of it. Yields it if it lives."""
        if name in self._processes:
            if found is _Found.UNKNOWN:
                process.stat_seen, process.run_clock = None, -1
            elif found is not _Found.READ:
                self._forget(name)
                names.append(name)
                return
            yield process
        elif found is _Found.READ:
            self._skipped.discard(name)
            self._kernel.pop(name, None)
            self._processes[name] = process
            self._changed = True
            yield process
        else:
            self._leave_out(name, process, found)

    def _leave_out(self, name: str, process: _Process, found: _Found) -> None:
        """A process that is gone, closed or a kernel thread has no row."""
        self._release(process)
        if found in (_Found.CLOSED, _Found.KERNEL):
            self._skipped.add(name)
        if found is not _Found.KERNEL:
            self._kernel.pop(name, None)
        elif self._native and name not in self._kernel:
            with suppress(OSError):
                self._kernel[name] = time.clock_gettime_ns(process.clock)

    def _attempt(self, process: _Process, now: int, due: bool = False, watched: bool = False, raw: bytes | None = None) -> _Found:
        """Read everything of a process that may have changed. `raw`: its stat, if it is read already. Failures to read become
        values here, and nowhere else."""
        try:
            return self._refresh(process, now, due, watched, raw)
        except OSError as error:
            return _FOUND.get(fault_of(error), _Found.UNKNOWN)
        except (ValueError, IndexError, struct.error):  # an unknown format of stat
            return _Found.CLOSED

    def _forget(self, name: str) -> None:
        self._release(self._processes.pop(name))
        self._changed = True

    # --- one process ----------------------------------------------------------------------------------------------------------

    def _refresh(self, process: _Process, now: int, due: bool, watched: bool, raw: bytes | None) -> _Found:
        """Read one process. `now`: its CPU clock read before this call, ns; -1 where `root` is not our own procfs."""
        path = f"{self._root}/{process.pid}"  # made anew in 0.2 us: kept, it would take 72 bytes a process
        if raw is None:
            raw, process.stat_fd = self._pread(process.stat_fd, f"{path}/stat", _STAT_BYTES)
        turn = due and self._has_turn(process)
        seen = _hash(raw)
        if seen == process.stat_seen and now == process.run_clock != -1 and not (watched or turn or process.ran):
            return _Found.READ
        comm = raw[raw.index(b"(") + 1 : raw.rindex(b")")]
        fields = raw[raw.rindex(b")") + 1 :].split()  # fields[0] is field 3 of proc_pid_stat(5)
        if int(fields[6]) & _KERNEL_THREAD:
            return _Found.KERNEL
        id_ = ProcId(process.pid, int(fields[19]))
        if process.id is None:
            process.id = id_
        elif process.id != id_:
            return _Found.GONE
        threads = int(fields[17])
        if process.schedstat:
            self._read_threads(process, path, threads)
        run, wait, timeslices = _USED.unpack(process.used)
        ticks = (int(fields[11]) + int(fields[12])) * _TICK_NS  # includes threads that came and went unseen; so does `now`
        process.cpu = max(process.cpu, now if now >= 0 else max(run, ticks))
        ran = now < 0 or now != process.run_clock
        process.ran |= ran
        process.unlooked |= ran
        process.run_clock = now
        slow = watched or (due and process.ran)
        io, fds = _io_of(process.row) if process.row else (None, None)
        if slow:
            io, fds = self._read_slow(process, path, io, fds)
        mark = fields[45] if len(fields) > 45 else _UNKNOWN  # where its arguments lie: moves with each exec
        ends = fields[20] == b"0"  # without memory it has no executable any more: it is a zombie or about to be one
        program_seen = _hash((comm, mark))
        executed = program_seen != process.program_seen
        watches = ran and (due or self._uptime_ticks - id_.start_ticks < _YOUNG_TICKS)  # most give up rights soon after their start
        if process.identity is None or executed or turn or (watches and os.stat(path).st_uid != process.identity.uid):
            self._identify(process, path, comm, program_seen, same_program=ends or not (executed or mark == _UNKNOWN))
        if process.unlooked and not process.denied & _SOCKETS:
            young = ran and self._uptime_ticks - id_.start_ticks < _YOUNG_TICKS
            thorough = executed or turn or (young and due)
            # our own descriptors are the hundreds kept here and cost 3 ms: they are read once
            if executed or ((thorough or young or due) and process.pid != self._pid):
                self._look(process, path, fds if slow else None, thorough, young)
                self._name_port(process)
        if executed or (due and ran and process.stdin):
            pipe_fed = self._feeders.feeds(f"{self._root}/{int(fields[1])}", path, id_)
            process.stdin = 0 if not pipe_fed else _FED if executed else process.stdin
        may_ask = due or self._uptime_ticks - id_.start_ticks < _YOUNG_TICKS
        if process.stdin == _FED and may_ask and awaits_input(path):
            process.stdin |= _ASKED_BY_PIPE  # as long as it is fed
        serves = process.serves
        in_terminal = fields[4] != b"0" and fields[2] == fields[5] != b"0"  # its group is in front; 0: of another pid namespace
        keys = False if not in_terminal else door.reads_keystrokes(path, int(fields[4])) if self._native else None
        read_chars, write_chars, read_bytes, write_bytes = io or (0, 0, 0, 0)
        process.row = _ROW.pack(
            process.pid,
            id_.start_ticks,
            int(fields[1]),
            int(fields[3]),
            process.cpu,
            wait,
            timeslices,
            int(fields[7]),
            int(fields[9]),
            int(fields[8]),
            (int(fields[13]) + int(fields[14])) * _TICK_NS,
            max(0, int(fields[21])) * _PAGE,
            read_chars,
            write_chars,
            read_bytes,
            write_bytes,
            fds or 0,
            threads,
            int(fields[36]),
            fields[0][0],
            int(fields[16]),
            int(fields[38]),
            _WAIT * process.schedstat
            | _IO * (io is not None)
            | _FDS * (fds is not None)
            | _SOCKETS * (serves is not None)
            | _ASKED * (keys is not None),
            (serves or 0) | process.stdin | _TERMINAL * in_terminal | _KEYS * (keys is True),
        )
        process.ran &= not slow
        process.stat_seen = seen
        return _Found.READ

    def _read_threads(self, process: _Process, path: str, count: int) -> None:
        """Read the run-queue counters of all threads. /proc/PID/schedstat has only the main thread's.

        The task directory is listed only for new threads: none exist if all known threads are alive and their number is `count`.
        """
        try:
            self._read_thread(process, process, f"{path}/schedstat")
        except FileNotFoundError:
            os.stat(path)  # raises if the process is gone; else this kernel has no schedstat
            process.schedstat = False
            return
        others = process.others
        if others is None:
            if count <= 1:
                return
            others = process.others = {}
        for tid in [tid for tid, thread in others.items() if not self._read_other(process, thread, path, tid)]:
            self._drop(others.pop(tid).fd)
        if len(others) != max(count - 1, 0):
            tids = set(map(int, os.listdir(f"{path}/task"))) - {process.pid} if count > 1 else set()
            for tid in others.keys() - tids:
                self._drop(others.pop(tid).fd)
            for tid in tids - others.keys():
                thread = _Thread()
                if self._read_other(process, thread, path, tid):
                    others[tid] = thread

    def _read_other(self, process: _Process, thread: _Thread, path: str, tid: int) -> bool:
        """Read a further thread of a process; False if it is gone."""
        try:
            self._read_thread(process, thread, f"{path}/task/{tid}/schedstat")
        except (FileNotFoundError, ProcessLookupError):
            return False
        return True

    def _read_thread(self, process: _Process, thread: _Thread, path: str) -> None:
        """Add to what a process used what a thread used since it was last read."""
        raw, thread.fd = self._pread(thread.fd, path, 128)
        if raw == thread.text:
            return
        run, wait, timeslices = map(int, raw.split())
        before = tuple(map(int, thread.text.split())) or (0, 0, 0)
        if run < before[0] or wait < before[1] or timeslices < before[2]:  # another thread with the same tid, read by path
            before = (0, 0, 0)
        used = _USED.unpack(process.used)
        process.used = _USED.pack(used[0] + run - before[0], used[1] + wait - before[1], used[2] + timeslices - before[2])
        thread.text = raw

    def _read_slow(
        self, process: _Process, path: str, io: tuple[int, ...] | None, fds: int | None
    ) -> tuple[tuple[int, ...] | None, int | None]:
        """The io counters and the number of descriptors, which were `io` and `fds`: expensive, and often not permitted."""
        counted = None
        if not process.denied & _IO and process.id is not None:
            try:
                io, counted = door.io(path, process.id, counted=not self._counts_fds)
            except (PermissionError, ValueError):
                io, process.denied = None, process.denied | _IO
            except FileNotFoundError:  # a kernel without CONFIG_TASK_IO_ACCOUNTING; a process that is gone shows at its next read
                io = None
        if counted is not None:
            fds = counted
        elif not process.denied & _FDS:
            try:
                fds = self._descriptors(process, path)
            except PermissionError:
                fds, process.denied = None, process.denied | _FDS
            except FileNotFoundError:
                fds = None
        return io, fds

    def _look(self, process: _Process, path: str, count: int | None, thorough: bool, young: bool) -> None:
        """Find out from the sockets of a process whether and where it listens, and whether it has a window.

        `count`: the number of its descriptors, if known.
        """
        try:
            count = self._descriptors(process, path) if count is None else count
            if thorough or count != process.links:
                process.links, process.sockets = door.sockets(path, count, process.id)
                process.unlooked = False
            elif not young:
                return
        except PermissionError:
            process.denied, process.serves, process.port = process.denied | _SOCKETS, None, 0
            return
        except FileNotFoundError:  # a process that is gone shows at its next read
            return
        if not process.sockets:
            process.serves = process.port = 0
            return
        listening = self._listeners.around(path, process.id)
        if listening is None:
            process.serves, process.port = None, 0
            return
        anybody, locally = (not inodes.isdisjoint(process.sockets) for inodes in (listening.inet, listening.unix))
        has_window = not listening.has_window.isdisjoint(process.sockets)
        process.port = min((listening.ports[inode] for inode in process.sockets if inode in listening.ports), default=0)
        process.serves = _SERVES * anybody | _SERVES_LOCALLY * locally | _SHOWS * has_window

    def _name_port(self, process: _Process) -> None:
        """Put the port on which a process listens into its identity."""
        identity = process.identity
        if identity is not None and identity.port != process.port:
            process.identity = replace(identity, port=process.port)
            self._changed = True

    def _descriptors(self, process: _Process, path: str) -> int:
        """The number of descriptors of a process."""
        counted = self._counts_fds and os.stat(f"{path}/fd").st_size
        return counted or door.links(path, 0, known=process.id).total

    def _identify(self, process: _Process, path: str, comm: bytes, program_seen: int, same_program: bool) -> None:
        """Find out what a process is. `same_program`: the program cannot have changed, only where the process is."""
        name = printable(comm)
        before = process.identity
        if same_program and before is not None:
            what = before.program
        else:
            try:
                exe = door.link(path, "exe", process.id)
            except OSError:  # a zombie, or another user's: comm must do
                exe = None
            what = program(exe, name, _whole(f"{path}/cmdline") if says_more(base_name(exe, name), name) else b"")
        try:
            cgroup, unit = cgroup_and_unit(_whole(f"{path}/cgroup"))
        except FileNotFoundError:
            os.stat(path)  # raises if the process is gone; else this kernel has no cgroups
            cgroup, unit = "/", ""
        uid = os.stat(path).st_uid  # of this directory the effective one, also of a process that may not be dumped
        real = real_uid(_whole(f"{path}/status"))
        cpus = self._allowed(process.pid)
        identity = _shared(name, what, cgroup, unit, uid, process.port, cpus, None if real == uid else real)
        if before is not None and program_seen != process.program_seen:
            process.denied = 0  # an exec may change what we may read
        if identity != before:
            process.identity = identity
            self._changed = True
        process.program_seen = program_seen

    def _allowed(self, pid: int) -> tuple[int, ...]:
        """CPUs that the first thread of a process may use; () if these are all, or another machine's tree is read. 2 us."""
        if not self._native:
            return ()
        try:
            cpus = os.sched_getaffinity(pid)
        except PermissionError:  # a security module may forbid it
            return ()
        return () if len(cpus) >= self._online else tuple(sorted(cpus))

    # --- descriptors ----------------------------------------------------------------------------------------------------------

    def _pread(self, fd: int, path: str, size: int) -> tuple[bytes, int]:
        """(text of a file, the descriptor to pass next time). -1 means no descriptor; beyond the budget it stays -1."""
        if fd >= 0:
            return os.pread(fd, size, 0), fd
        fd = self._with_room(lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        try:
            raw = os.pread(fd, size, 0)
        except OSError:
            os.close(fd)
            raise
        if self._open >= self._budget:
            self._raise_limit()
            if self._open >= self._budget:
                os.close(fd)
                return raw, -1
        self._open += 1
        return raw, fd

    def _drop(self, fd: int) -> None:
        if fd >= 0:
            os.close(fd)
            self._open -= 1

    def _release(self, process: _Process) -> None:
        """Close the descriptors of a process. It can still be read."""
        for thread in (process, *(process.others or {}).values()):
            self._drop(thread.fd)
            thread.fd = -1
        self._drop(process.stat_fd)
        process.stat_fd = -1

    def _with_room(self, call: Callable[[], T]) -> T:
        """The result of a call that needs a descriptor. If none is free, `_RESERVE` was too small for the rest of the daemon: keep
        fewer open."""
        try:
            return call()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
        self._budget = self._open // 2
        for process in self._processes.values():
            self._release(process)
        return call()

    def _raise_limit(self) -> None:
        """Raise the soft limit if that can help, at most to the hard one."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
        if _within(soft) == self._budget and soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            self._budget = _within(most)

    def _shows_our_pids(self) -> bool:
        """Whether `root` is the procfs of our own pid namespace, so that its pids name CPU clocks."""
        try:
            mine = os.readlink(f"{self._root}/self")
            return mine == str(os.getpid()) and time.clock_gettime_ns((~int(mine) << 3) | _CPUCLOCK_SCHED) > 0
        except (OSError, ValueError):
            return False


def _hash(seen: object) -> int:
    """A hash that takes as little memory as a number can that is not small."""
    return hash(seen) >> 4


def _io_of(row: bytes) -> tuple[tuple[int, ...] | None, int | None]:
    """(counters of io, number of descriptors) in the row of a process; None: not known."""
    *io, fds = _COUNTERS.unpack_from(row, _COUNTERS_AT)
    return tuple(io) if row[_KNOWN_AT] & _IO else None, fds if row[_KNOWN_AT] & _FDS else None


def _within(limit: int) -> int:
    """The number of descriptors that may be kept open under a soft limit."""
    return _MOST_DESCRIPTORS if limit == resource.RLIM_INFINITY else max(0, min(limit, _MOST_DESCRIPTORS) - _RESERVE)


def _whole(path: str) -> bytes:
    """The first 64 KiB of a file."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, 1 << 16, 0)
    finally:
        os.close(fd)
