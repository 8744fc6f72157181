"""Reads the processes of this machine: one row of raw counters each, and what each of them is. Must not know rates or policies.

An idle process costs one system call a tick, and its row stays where it is. The kernel's CPU clock of a process
(clock_getcpuclockid(3)) stands still exactly while none of its threads runs, and a process that has not run has no new counters.
The counters of its children are no exception: they grow while it waits for a child, which takes CPU, and not at all where it
ignores SIGCHLD. A process that ran is read in full, from descriptors that stay open while it runs now and then. They belong to the
process, not to its pid, so a reused pid shows as ESRCH; without them it shows by its start. `benchmarks/cost/collector.py` measures
the cost.

What others change of a process does not move its clock. While it sleeps, its resident pages, nice, cgroup and CPUs are read on
every sixth of its slow turns: with the defaults a change may be a minute old. Once it runs, stat is read in the same tick, and its
cgroup and CPUs on its next slow turn: within ten seconds. What has a terminal is read on each slow turn, and whose parent ended in
the next tick.

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
import threading
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from enum import Enum, auto
from functools import lru_cache, partial
from itertools import compress, count, islice, takewhile
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
from .arrivals import Arrivals
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
_GONE, _UNREAD = -2, -3  # in place of what a CPU clock shows: it has none any more; what it shows does not matter
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
        *(
            "cpu",
            "denied",
            "id",
            "identity",
            "known_at",
            "links",
            "others",
            "pid",
            "port",
            "program_seen",
            "ran",
            "row",
            "run_clock",
        ),
        *("schedstat", "serves", "sockets", "stat_fd", "stat_seen", "stdin", "terminal", "unlooked", "used"),
    )

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.pid = pid
        self.id: ProcId | None = None
        self.identity: Identity | None = None
        self.program_seen: int | None = None  # hash of the name and of what moves with each exec
        self.run_clock = -1  # what its CPU clock showed at the last full read
        self.known_at = -1  # and when it was last found out what it is
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
        self.terminal = False  # it has one
        self.row = b""  # also keeps the counters of io and descriptors

    @property
    def calm(self) -> bool:
        """Whether nothing of it has to be read before it runs again, as far as others do not change it."""
        return not (self.ran or (self.unlooked and not self.denied & _SOCKETS))


class ProcSource:
    """`ports.Source` of the real machine, or of a tree at `root` in the form of procfs.

    `slow_every`: ticks between reads of io counters and descriptor counts of processes in no pool; may be changed. Raises
    MachineError (host.py) if `root` is not a procfs. With many processes the soft descriptor limit is raised, at most to the hard
    one; `close` restores it."""

    def __init__(self, root: Path = Path("/proc"), *, slow_every: int = 10) -> None:
        self._root = str(root)
        self.slow_every = slow_every
        self._tick = 0
        self._processes: dict[int, _Process] = {}
        self._skipped: set[int] = set()  # closed processes; retried every `slow_every` ticks, because pids are reused
        self._kernel: dict[int, int] = {}  # kernel threads among them -> ns of their CPU clock
        self._kernel_ns = 0  # used by them while they were watched
        self._order: list[_Process] = []  # rising by pid; so are the following
        self._pids: list[int] = []
        self._numbers = np.zeros(0, dtype=np.int64)  # the same
        self._clocks = array("q")  # ids of their CPU clocks
        self._rested: list[int] = []  # what those showed when all was read that there is to read; `_UNREAD`: there is more
        self._rows: list[bytes] = []
        self._in_order = True  # these are all processes
        self._restless: set[int] = set()  # pids with more to read on their slow turns, also while they sleep
        self._ended: set[int] = set()  # pids whose children have another parent by now
        self._orphaned: set[int] = set()  # parents in the rows that are no processes here: they ended unseen, or are closed to us
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
        self._arrivals = Arrivals(self._listing, self._newest, self._lives)
        self._counts_fds = self._native and os.stat(f"{self._root}/self/fd").st_size > 0  # since Linux 6.2, needs no permission

    def read(self, at: int, wall: int, pools: tuple[PoolSample, ...], between: Callable[[], None] | None = None) -> Snapshot:
        """One sample of everything. Members of `pools` are read in full, other processes if they ran since the last call. `between`
        is called after every `_PIECE` processes."""
        uptime_ticks = self._host.uptime_ticks()  # first: a process that starts after it and is missed now must count as born later
        self._uptime_ticks = uptime_ticks
        self._listeners.forget()
        self._feeders.forget()
        watched = {worker.id.pid for pool in pools for worker in pool.workers}
        watched.update(pool.master.pid for pool in pools if pool.master is not None)
        found: list[_Process] = []
        reading = self._reading(watched, between or _nothing)
        while piece := list(islice(reading, _PIECE)):
            found += piece
            if between is not None:
                between()
        self._arrange(found)
        if self._changed:
            both = ((process.id, process.identity) for process in self._order)
            self._identities = MappingProxyType(
                {id_: identity for id_, identity in both if id_ is not None and identity is not None}
            )
            self._cgroups = frozenset(identity.cgroup for identity in self._identities.values())
            self._changed = False
        self._tick += 1
        table: SampleTable = np.frombuffer(b"".join(self._rows), dtype=SAMPLE)
        host = self._host.read()
        host = replace(host, kernel_ns=host.kernel_ns + self._kernel_ns)
        return Snapshot(at, wall, uptime_ticks, table, self._identities, host, pools, self._quotas.read(self._cgroups))

    def close(self) -> None:
        """Close all descriptors and restore the descriptor limit."""
        for pid in list(self._processes):
            self._forget(pid)
        self._host.close()
        self._listeners.close()
        if resource.getrlimit(resource.RLIMIT_NOFILE) != self._limits:
            resource.setrlimit(resource.RLIMIT_NOFILE, self._limits)

    # --- which processes there are --------------------------------------------------------------------------------------------

    def _reading(self, watched: set[int], between: Callable[[], None]) -> Iterator[_Process]:
        """Read what has to be read, and yield it. This loop decides what a tick costs. `between`: see `read`."""
        tick, slow_every = self._tick, self.slow_every
        turn = slow_every * _IDENTITY_TURNS
        kernel, retried = self._kernel, [pid for pid in self._skipped if not (tick + pid) % slow_every]
        whole = [pid for pid in retried if pid not in kernel or not self._native or not (tick + pid) % turn]
        arrived = self._arrivals.look(self._processes, self._skipped, slow_every)
        whole = list({*whole, *(pid for pid in arrived if pid not in self._processes)})
        if not self._in_order:  # the call before this one was ended by `between`
            self._arrange([])
        self._rouse(watched)
        for first in range(0, len(self._order), _PIECE):
            shown = self._shown(first)
            for place in compress(count(first), map(ne, shown, self._rested[first : first + _PIECE])):
                process, now = self._order[place], shown[place - first]
                if now == _GONE:
                    self._forget(process.pid)
                    continue
                due, has_turn = not (tick + process.pid) % slow_every, not (tick + process.pid) % turn
                # what has not run since it was last read in full needs only a look at its stat: nothing is asked of the hands
                calm = now == process.run_clock != -1 and process.calm and (now == process.known_at or not has_turn)
                if process.pid in watched or (not calm and (due or self._is_young(process))):
                    whole.append(process.pid)
                    continue
                found = self._attempt(process, now, due)
                if found is _Found.UNKNOWN:
                    process.stat_seen, process.run_clock = None, -1  # keeps its last row; what changed is read in the next tick
                elif found is not _Found.READ:
                    self._forget(process.pid)
                    whole.append(process.pid)  # its pid may be reused already
                    continue
                elif calm and has_turn:
                    self._release(process)  # it has not run for long
                yield process
            between()
        while whole:
            yield from self._read_whole(whole, watched)
        self._watch_kernel()

    def _rouse(self, watched: set[int]) -> None:
        """Have the processes read that need it whether they run or not."""
        places = [self._place(pid) for pid in watched if pid in self._processes]
        places += [self._place(pid) for pid in self._restless if not (self._tick + pid) % self.slow_every]
        places += np.flatnonzero((self._tick + self._numbers) % (self.slow_every * _IDENTITY_TURNS) == 0).tolist()
        if self._ended:
            parents = np.frombuffer(b"".join(self._rows), dtype=SAMPLE)["ppid"]
            places += np.flatnonzero(np.isin(parents, list(self._ended))).tolist()
            self._ended.clear()
        for place in places:
            self._rested[place] = _UNREAD

    def _shown(self, first: int) -> list[int]:
        """What the CPU clocks of the `_PIECE` processes from this one on show, ns; -1 where `root` is not our own procfs."""
        clocks = self._clocks[first : first + _PIECE]
        if not self._native:
            return [-1] * len(clocks)
        try:
            return list(map(time.clock_gettime_ns, clocks))
        except OSError:  # one of them is gone
            return list(map(_shown, clocks))

    def _place(self, pid: int) -> int:
        """The place of a process among all."""
        return bisect_left(self._pids, pid)

    def _arrange(self, found: list[_Process]) -> None:
        """Bring the rows up to date, of which these were read."""
        if not self._in_order:
            self._order = found = sorted(self._processes.values(), key=attrgetter("pid"))
            self._pids = [process.pid for process in found]
            self._numbers = np.array(self._pids, dtype=np.int64)
            self._clocks = array("q", [(~process.pid << 3) | _CPUCLOCK_SCHED for process in found])
            self._rested = [_rested(process) for process in found]
            self._rows = [process.row for process in found]
            self._restless = {process.pid for process in found if process.terminal or not process.calm}
            self._in_order = True
            parents = np.frombuffer(b"".join(self._rows), dtype=SAMPLE)["ppid"]
            orphaned = set(parents[~np.isin(parents, self._numbers) & (parents > 0)].tolist())
            self._ended |= orphaned - self._orphaned
            self._orphaned = orphaned
            return
        for process in found:
            place = self._place(process.pid)
            self._rested[place] = _rested(process)
            self._rows[place] = process.row
            if process.terminal or not process.calm:
                self._restless.add(process.pid)
            else:
                self._restless.discard(process.pid)

    def _listing(self) -> list[str]:
        return self._with_room(lambda: os.listdir(self._root))

    def _newest(self) -> int | None:
        return self._host.newest_pid() if self._native else None

    def _lives(self, pid: int) -> bool:
        """Whether a pid is that of a process. Of threads the kernel refuses this clock, except of the one that asks."""
        return _shown((~pid << 3) | _CPUCLOCK_SCHED) != _GONE and pid != threading.get_native_id()

    def _watch_kernel(self) -> None:
        """Add up what kernel threads used. They have no row, but their work must not count as unseen. 0.3 us each."""
        clock, kernel, ended = time.clock_gettime_ns, self._kernel, list[int]()
        for pid, before in kernel.items():
            try:
                now = clock((~pid << 3) | _CPUCLOCK_SCHED)
            except OSError:
                ended.append(pid)
                continue
            self._kernel_ns += max(now - before, 0)
            kernel[pid] = now
        for pid in ended:
            del kernel[pid]
            self._skipped.discard(pid)

    def _is_due(self, process: _Process) -> bool:
        """Whether what others may change while a process sleeps is read in this tick."""
        return not (self._tick + process.pid) % self.slow_every

    def _is_young(self, process: _Process) -> bool:
        """Whether it may begin to listen, or give up rights: most do that soon after their start."""
        return process.id is not None and self._uptime_ticks - process.id.start_ticks < _YOUNG_TICKS

    def _has_turn(self, process: _Process) -> bool:
        """Whether what shows nowhere else is read of a process that is due."""
        return not (self._tick + process.pid) % (self.slow_every * _IDENTITY_TURNS)

    def _read_whole(self, pids: list[int], watched: set[int]) -> Iterator[_Process]:
        """Take up to `_PIECE` processes from the end of `pids`: they are new, young, due or `watched`. The hands are asked in one
        request for what they must read of them, and after their stat: if a program is exchanged in between, the next tick sees its
        new name. A pid is put back if it may be reused."""
        begun: list[tuple[_Process, int, bytes]] = []
        asked: dict[ProcId, int] = {}
        while pids and len(begun) < _PIECE:
            pid = pids.pop()
            process = self._processes.get(pid) or _Process(pid)
            now = _shown((~pid << 3) | _CPUCLOCK_SCHED) if self._native else -1
            if now == _GONE:
                self._drop_out(pid)
                continue
            try:
                raw, process.stat_fd = self._pread(process.stat_fd, f"{self._root}/{pid}/stat", _STAT_BYTES)
                asked.update(self._asked_about(process, now, raw, pid in watched))
            except OSError as error:
                yield from self._settle(process, _FOUND.get(fault_of(error), _Found.UNKNOWN), pids, watched)
            else:
                begun.append((process, now, raw))
        door.foresee(asked)
        for process, now, raw in begun:
            due = process.id is None or self._is_due(process)
            slow = process.id is None or process.pid in watched
            yield from self._settle(process, self._attempt(process, now, due, slow, raw), pids, watched)
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

    def _settle(self, process: _Process, found: _Found, pids: list[int], watched: set[int]) -> Iterator[_Process]:
        """Keep or forget a process after an attempt to read everything of it. Yields it if it lives."""
        pid = process.pid
        if pid in self._processes:
            if found is _Found.UNKNOWN:
                process.stat_seen, process.run_clock = None, -1
            elif found is not _Found.READ:
                self._forget(pid)
                pids.append(pid)
                return
            yield process
        elif found is _Found.READ:
            self._skipped.discard(pid)
            self._kernel.pop(pid, None)
            self._processes[pid] = process
            self._changed, self._in_order = True, False
            if pid not in watched:
                self._release(process)  # most processes never run again
            yield process
        else:
            self._leave_out(process, found)

    def _leave_out(self, process: _Process, found: _Found) -> None:
        """A process that is gone, closed or a kernel thread has no row."""
        pid = process.pid
        self._release(process)
        if found is _Found.GONE:
            self._skipped.discard(pid)
        elif found in (_Found.CLOSED, _Found.KERNEL):
            self._skipped.add(pid)
        if found is not _Found.KERNEL:
            self._kernel.pop(pid, None)
        elif self._native and pid not in self._kernel:
            with suppress(OSError):
                self._kernel[pid] = time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED)

    def _drop_out(self, pid: int) -> None:
        """A pid is nobody's."""
        self._skipped.discard(pid)
        self._kernel.pop(pid, None)
        self._ended.add(pid)
        if pid in self._processes:
            self._forget(pid)

    def _attempt(self, process: _Process, now: int, due: bool = False, watched: bool = False, raw: bytes | None = None) -> _Found:
        """Read everything of a process that may have changed. `raw`: its stat, if it is read already. Failures to read become
        values here, and nowhere else."""
        try:
            return self._refresh(process, now, due, watched, raw)
        except OSError as error:
            return _FOUND.get(fault_of(error), _Found.UNKNOWN)
        except (ValueError, IndexError, struct.error):  # an unknown format of stat
            return _Found.CLOSED

    def _forget(self, pid: int) -> None:
        self._release(self._processes.pop(pid))
        self._ended.add(pid)
        self._changed, self._in_order = True, False

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
        end = raw.rindex(b")")
        comm = raw[raw.index(b"(") + 1 : end]
        fields = raw[end + 1 :].split()  # fields[0] is field 3 of proc_pid_stat(5)
        if int(fields[6]) & _KERNEL_THREAD:
            return _Found.KERNEL
        id_, start = process.id, int(fields[19])
        if id_ is None:
            id_ = process.id = ProcId(process.pid, start)
        elif id_.start_ticks != start:
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
        is_young = self._uptime_ticks - start < _YOUNG_TICKS
        watches = ran and (due or is_young)  # most give up rights soon after their start
        visits = due and slow
        moved = (watches or visits) and process.identity is not None and self._moved(process.identity, process.pid, path, visits)
        if process.identity is None or executed or turn or moved:
            still = now == process.known_at != -1  # what it is has changed only as far as others change it
            self._identify(process, path, comm, program_seen, ends or not (executed or mark == _UNKNOWN), still)
            process.known_at = now
        if process.unlooked and not process.denied & _SOCKETS:
            young = ran and is_young
            thorough = executed or turn or (young and due)
            # our own descriptors are the hundreds kept here and cost 3 ms: they are read once
            if executed or ((thorough or young or due) and process.pid != self._pid):
                self._look(process, path, fds if slow else None, thorough, young)
                self._name_port(process)
        if executed or (due and ran and process.stdin):
            pipe_fed = self._feeders.feeds(f"{self._root}/{int(fields[1])}", path, id_)
            process.stdin = 0 if not pipe_fed else _FED if executed else process.stdin
        if process.stdin == _FED and (due or is_young) and awaits_input(path):
            process.stdin |= _ASKED_BY_PIPE  # as long as it is fed
        serves = process.serves
        process.terminal = fields[4] != b"0"
        in_terminal = process.terminal and fields[2] == fields[5] != b"0"  # its group is in front; 0: of another pid namespace
        keys = False if not in_terminal else door.reads_keystrokes(path, int(fields[4])) if self._native else None
        read_chars, write_chars, read_bytes, write_bytes = io or (0, 0, 0, 0)
        process.row = _ROW.pack(
            process.pid,
            start,
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

    def _identify(self, process: _Process, path: str, comm: bytes, program_seen: int, same_program: bool, still: bool) -> None:
        """Find out what a process is. `same_program`: the program cannot have changed, only where the process is. `still`: nor
        can its users."""
        name = printable(comm)
        before = process.identity
        if (same_program or still) and before is not None:
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
        if still and before is not None:
            uid, real = before.uid, before.owner
        else:
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

    def _moved(self, identity: Identity, pid: int, path: str, place: bool) -> bool:
        """Whether a process has another user than this identity says, or if that is asked for another `place`: cgroup and CPUs."""
        if os.stat(path).st_uid != identity.uid:
            return True
        if not place:
            return False
        with suppress(FileNotFoundError):  # this kernel has no cgroups
            if cgroup_and_unit(_whole(f"{path}/cgroup"))[0] != identity.cgroup:
                return True
        return self._allowed(pid) != identity.cpus

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


def _nothing() -> None:
    """What is done between two pieces where nobody wants anything done."""


def _shown(clock: int) -> int:
    """What the CPU clock of a process shows, ns; `_GONE` if there is no such process."""
    try:
        return time.clock_gettime_ns(clock)
    except OSError:
        return _GONE


def _rested(process: _Process) -> int:
    """What its CPU clock shows as long as it has not run. 0 proves nothing: every process starts at 0, also a later one with this
    pid."""
    return process.run_clock if process.run_clock > 0 else _UNREAD


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
