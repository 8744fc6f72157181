"""The knobs of the real kernel: nice, affinity, policy and slice of threads, nice of autogroups, weight and idleness of cgroups,
fences. `kernel.Kernel`.

Knows system calls and /proc. Must not know decisions, policies or the ledger. A pid or tid is never trusted alone: its start time
is compared immediately before and after each change, and the value with what is expected.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from ....models.identity import ProcId
from ..faults import UNKNOWN, Fault, Status, Trouble, fault_of, is_gone, status_of
from ..fences import Limits
from ..kernel import Kin, Reach, Scan, Who
from ..pids import Pids
from ..places import (
    AutogroupPlace,
    Cgroup,
    Control,
    FencePlace,
    Knob,
    KnobPlace,
    PoolPlace,
    ThreadId,
    ThreadPlace,
    Value,
    number,
)
from .cgroup import Cgroups, find
from .fence import Fences
from .reserve import Reserve
from .slices import LONGEST, SHORTEST, Slices
from .weights import foreign, write_weight

PASSES = 8
"""Most scans of a process whose threads come and go while they are listed (chosen)."""

FAIR_POLICIES = {0, 3, 5}
"""Policies that nicety sets: SCHED_OTHER, SCHED_BATCH and SCHED_IDLE, which Python names on Linux only. Real-time ones starve
everything else, and restoring one would need its priority too."""

_LOOK = os.O_RDONLY | os.O_CLOEXEC
_TICKS = os.sysconf("SC_CLK_TCK")  # clock ticks a second: the unit of times in /proc/PID/stat
_ENDED = (b"Z", b"X")  # states in /proc/PID/stat of a thread that has ended
_CAP_SYS_NICE = 1 << 23  # include/uapi/linux/capability.h
_PF_KTHREAD = 0x200000  # include/linux/sched.h
_STATUS = re.compile(r"^Tgid:\s+(\d+)$.*?^Uid:\s+(\d+)\s+(\d+)", re.MULTILINE | re.DOTALL)  # of /proc/PID/status
_ALL_IDS = ["0", "0", "4294967295"]  # /proc/self/uid_map of the first user namespace
_NO_KNOB = Trouble(Status.FAILED, "a pool is resized by its adapter, not by the kernel")
_NEEDS = {
    Control.NICE: "needs CAP_SYS_NICE: run as root, or give the service AmbientCapabilities=CAP_SYS_NICE",
    Control.AFFINITY: "another user's process needs CAP_SYS_NICE: run as root, or AmbientCapabilities=CAP_SYS_NICE",
    Control.POLICY: "needs CAP_SYS_NICE: run as root, or give the service AmbientCapabilities=CAP_SYS_NICE",
    Control.SLICE: "another user's process needs CAP_SYS_NICE: run as root, or AmbientCapabilities=CAP_SYS_NICE",
    Control.AUTOGROUP: "another user's session needs root, or AmbientCapabilities=CAP_SYS_NICE CAP_DAC_OVERRIDE",
}


class LinuxKernel:
    """`kernel.Kernel` of this machine. `cgroups`: where the hierarchies are; None reads the mount table."""

    def __init__(self, proc_root: str | os.PathLike[str] = "/proc", cgroups: Cgroups | None = None) -> None:
        self._proc = os.fspath(proc_root)
        self._cgroups = find(_text(f"{self._proc}/self/mountinfo")) if cgroups is None else cgroups
        self._fences = Fences(self._proc, self._cgroups, partial(_scan, self._proc))
        self._slices = Slices()
        self._reserve = Reserve()
        self._boot_id = ""
        self._may_renice = _may_renice(self._proc)
        self._readers: dict[Control, Callable[[int], Value]] = {**_READ, Control.SLICE: self._slices.read}
        self._writers: dict[Control, Callable[[int, Value], None]] = {**_WRITE, Control.SLICE: partial(_set_slice, self._slices)}

    # --- the machine -----------------------------------------------------------------------------------------------------------

    def boot_id(self) -> str:
        """/proc/sys/kernel/random/boot_id, read once. Raises OSError."""
        self._boot_id = self._boot_id or _text(f"{self._proc}/sys/kernel/random/boot_id").strip()
        return self._boot_id

    def uptime_ticks(self) -> int:
        """Now, on the clock of process start times and in the same unit: clock ticks, rounded down."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) * _TICKS // 1_000_000_000

    def itself(self) -> ProcId:
        """The calling process. Raises OSError."""
        raw = _raw_stat(f"{self._proc}/self/stat")
        return ProcId(int(raw.partition(b" ")[0]), int(raw[raw.rindex(b")") + 2 :].split()[19]))

    def forbidden(self, control: Control) -> str:
        """Without CAP_SYS_NICE a nice can be raised but never lowered again, and SCHED_IDLE cannot be left. Every user may set and
        restore affinity and slice of their own processes."""
        if control not in (Control.NICE, Control.POLICY, Control.AUTOGROUP) or self._may_renice:
            return ""
        return (
            f"{control} is left alone: without CAP_SYS_NICE it could not be put back; "
            "run as root, or give the service AmbientCapabilities=CAP_SYS_NICE"
        )

    # --- processes -------------------------------------------------------------------------------------------------------------

    def kin(self, known: Pids | None = None, reach: Reach | None = None) -> Scan:
        """See `kernel.Kernel`. Leaves out processes that vanish meanwhile, and those denied twice: under hidepid they are
        another user's, and we could not change them either."""
        return _scan(self._proc, known, reach)

    def kin_of(self, process: ProcId) -> Kin | Trouble:
        """Parent, session and process group, from /proc/PID/stat."""
        try:
            kin = _kin(process.pid, _stat(f"{self._proc}/{process.pid}/stat"))
        except OSError as error:
            return _unseen(error, process.pid)
        return kin if kin.id == process else _vanished(process)

    def who(self, process: ProcId) -> Who | Trouble:
        """From /proc/PID/stat and status. The start time is read after both: they are this process's. /proc has the threads of a
        process too, where their numbers are tried: such a number names no process."""
        pid = process.pid
        try:
            found = _STATUS.search(_text(f"{self._proc}/{pid}/status"))
            raw = _raw_stat(f"{self._proc}/{pid}/stat")
        except OSError as error:
            return _unseen(error, pid)
        last = raw.rindex(b")")
        stat = raw[last + 2 :].split()
        if found is None or int(found[1]) != pid or int(stat[19]) != process.start_ticks:
            return _vanished(process)
        program = raw[raw.index(b"(") + 1 : last].decode(errors="replace")
        return Who(program, int(found[2]), int(found[3]), bool(int(stat[6]) & _PF_KTHREAD))

    def inside(self, cgroup: Cgroup) -> tuple[ProcId, ...] | Trouble:
        """From cgroup.procs of the cgroup's directory and all below it."""
        found: list[ProcId] = []
        for mount in (self._cgroups.shares, self._cgroups.weight):
            directory = None if mount is None else mount.directory(cgroup.path)
            if directory is None:
                continue
            for path, _, files in os.walk(directory):
                try:
                    pids = _text(f"{path}/cgroup.procs").split() if "cgroup.procs" in files else []
                except OSError as error:
                    if is_gone(error, cgroup=True):
                        continue
                    return Trouble(status_of(error, cgroup=True), f"{path} cannot be read: {error.strerror}")
                for pid in map(int, pids):
                    try:
                        found.append(ProcId(pid, int(_stat(f"{self._proc}/{pid}/stat")[19])))
                    except OSError as error:
                        if not is_gone(error):
                            return _unseen(error, pid)
        return tuple(found)

    def threads(self, process: ProcId) -> tuple[ThreadId, ...] | Trouble:
        """The living threads. /proc/PID/task is read until two scans agree, at most PASSES times; if there is only one, the count
        in /proc/PID/stat says so.

        A directory that changes while it is read may omit entries. The caller must find those that start after the last scan.
        """
        seen: tuple[ThreadId, ...] | None = None
        for _ in range(PASSES):
            try:
                stat = _stat(f"{self._proc}/{process.pid}/stat")
                if int(stat[19]) != process.start_ticks:
                    return _vanished(process)
                if stat[17] == b"1":
                    return (ThreadId(*process),) if stat[0] not in _ENDED else _vanished(process)
                tids = sorted(map(int, os.listdir(f"{self._proc}/{process.pid}/task")))
            except OSError as error:
                return _unseen(error, process.pid)
            threads = []
            for tid in tids:
                try:
                    stat = _stat(f"{self._proc}/{process.pid}/task/{tid}/stat")
                except OSError as error:
                    if is_gone(error):
                        continue
                    return _unseen(error, process.pid)
                if stat[0] not in _ENDED:  # a leader that called pthread_exit before its threads stays as a zombie
                    threads.append(ThreadId(tid, int(stat[19])))
            if tuple(threads) == seen:
                break
            seen = tuple(threads)
        return seen or _vanished(process)

    def user_time(self, process: ProcId, thread: ThreadId) -> int | Trouble | None:
        """From /proc/PID/task/TID/stat, in steps of a clock tick."""
        try:
            stat = _stat(f"{self._proc}/{process.pid}/task/{thread.tid}/stat")
        except OSError as error:
            return None if is_gone(error) else _unseen(error, process.pid)
        awake = stat[0] in (b"R", b"D") and int(stat[19]) == thread.start_ticks
        return int(stat[11]) * 1_000_000_000 // _TICKS if awake else None

    def autogroup(self, process: ProcId) -> str | Trouble:
        """ "autogroup-N" of /proc/PID/autogroup; the number counts up from boot and is never reused."""
        found = self._autogroup(process)
        if found is None:
            return Trouble(Status.REFUSED, self._no_autogroup(process))
        return found if isinstance(found, Trouble) else found[0]

    def fence(self, process: ProcId, limits: Limits) -> str | Trouble:
        """See `fence.Fences.plan`."""
        return self._fences.plan(process, limits)

    # --- knobs -----------------------------------------------------------------------------------------------------------------

    def read(self, knob: Knob) -> Value | Trouble:
        """The value now; VANISHED if the thread, autogroup or cgroup no longer exists."""
        match knob.on:
            case ThreadPlace(process=process, thread=thread):
                doubt = self._doubt(process, thread)
                if doubt is not None:
                    return doubt
                try:
                    value = self._readers[knob.control](thread.tid)
                except OSError as error:
                    return self._error(error, knob)
                return self._doubt(process, thread) or value
            case AutogroupPlace():
                member = self._member(knob.on)
                return member if isinstance(member, Trouble) else member[1]
            case Cgroup(path=path):
                return self._cgroups.read(knob.control, path)
            case FencePlace(key=key):
                return self._fences.read(key)
            case PoolPlace():
                return _NO_KNOB

    def write(self, knob: Knob, expected: Value, value: Value) -> Trouble | None:
        """Set the value if the knob still has the expected one. A value that nicety never sets is refused."""
        wrong = _malformed(knob.control, value)
        if wrong:
            return Trouble(Status.FAILED, wrong)
        match knob.on:
            case ThreadPlace(process=process, thread=thread):
                return self._write_thread(knob, process, thread, expected, value)
            case AutogroupPlace():
                return self._write_autogroup(knob, knob.on, expected, number(value))
            case Cgroup(path=path):
                return write_weight(self._cgroups, knob.control, path, number(expected), number(value))
            case FencePlace():
                return self._write_fence(knob.on, expected, value)
            case PoolPlace():
                return _NO_KNOB

    def visible(self, knob: Knob, value: Value) -> Value | Trouble:
        """What `read` returns once this value is set. An affinity is cut to the present cpuset, or is the whole cpuset if they
        share no CPU (cpuset(7)). A slice of the default length is 0. Every other value stays the same."""
        if knob.control is Control.SLICE and value:
            try:
                return self._slices.visible(number(value))
            except OSError as error:
                return value if fault_of(error) is Fault.DENIED else self._error(error, knob)  # no slices here: reading one says so
        if knob.control is not Control.AFFINITY or isinstance(value, int):
            return value
        allowed = self._allowed(knob)
        if allowed is None or isinstance(allowed, Trouble):
            return value if allowed is None else allowed
        return tuple(sorted(allowed.intersection(value) or allowed))

    def lasting(self, knob: Knob, value: Value) -> Value | Trouble:
        """See `kernel.Kernel`: since 6.2 the kernel keeps the requested mask, and applies it to a cpuset that grows."""
        if knob.control is not Control.AFFINITY or isinstance(value, int):
            return value
        allowed = self._allowed(knob)
        if isinstance(allowed, Trouble) or allowed != frozenset(value):
            return allowed if isinstance(allowed, Trouble) else value
        return tuple(range(max(os.sysconf("SC_NPROCESSORS_CONF"), value[-1] + 1)))

    def reserve(self) -> AbstractContextManager[None]:
        """See `kernel.Kernel`."""
        return self._reserve.lent()

    # --- below -----------------------------------------------------------------------------------------------------------------

    def _write_thread(self, knob: Knob, process: ProcId, thread: ThreadId, expected: Value, value: Value) -> Trouble | None:
        """Check the thread, compare the value, set it, and check the thread again.

        If the thread ends between the first check and the write, and another thread gets its number, that thread gets its old value
        back.
        """
        doubt = self._doubt(process, thread)
        if doubt is not None:
            return doubt
        read, write = self._readers[knob.control], self._writers[knob.control]
        try:
            before = read(thread.tid)
            if before != expected:
                return self._doubt(process, thread) or foreign(expected, before)
            if knob.control is Control.POLICY and before not in FAIR_POLICIES:
                return Trouble(Status.REFUSED, f"thread {thread.tid} has a real-time policy and is left alone")
            write(thread.tid, value)
        except OSError as error:
            return self._error(error, knob)
        doubt = self._doubt(process, thread)
        if doubt is None or doubt.status is not Status.VANISHED:
            return None  # it was set, even if it cannot be read just now
        try:
            if read(thread.tid) == value:
                write(thread.tid, before)
        except OSError:
            pass  # no thread has the number now
        return doubt

    def _doubt(self, process: ProcId, thread: ThreadId) -> Trouble | None:
        """Why this thread is gone or cannot be checked; None if it exists. A thread with a reused number has another start time, or
        is in another process."""
        try:
            there = int(_stat(f"{self._proc}/{process.pid}/task/{thread.tid}/stat")[19]) == thread.start_ticks
        except OSError as error:
            return _vanished(process, thread) if is_gone(error) else _unseen(error, process.pid)
        return None if there else _vanished(process, thread)

    def _allowed(self, knob: Knob) -> frozenset[int] | Trouble | None:
        """CPUs that the cpuset of the knob's process allows; None if there are no cpusets, or the process is gone."""
        if not isinstance(knob.on, ThreadPlace):
            return None
        pid = knob.on.process.pid
        try:
            return self._cgroups.allowed(_text(f"{self._proc}/{pid}/cgroup"))
        except OSError as error:
            return None if is_gone(error) else _unseen(error, pid)

    def _autogroup(self, process: ProcId) -> tuple[str, int] | Trouble | None:
        """(name, nice) of the autogroup of a process: sched(7). None: it is in no autogroup."""
        kin = self.kin_of(process)
        if isinstance(kin, Trouble):
            return kin
        try:
            text = _text(f"{self._proc}/{process.pid}/autogroup")
        except OSError as error:
            gone = self.kin_of(process) if is_gone(error) else _unseen(error, process.pid)
            return gone if isinstance(gone, Trouble) else None  # this kernel has no autogroups
        match = re.fullmatch(r"/(autogroup-\d+) nice (-?\d+)\s*", text)
        kin = self.kin_of(process)  # read before and after: what was read between is this process's
        if isinstance(kin, Trouble):
            return kin
        return None if match is None else (match[1], int(match[2]))

    def _no_autogroup(self, process: ProcId) -> str:
        """Why a process is in no autogroup."""
        if os.path.exists(f"{self._proc}/{process.pid}/autogroup"):
            return f"pid {process.pid} is in no autogroup: neither it nor an ancestor has started a session since boot"
        return "this kernel has no autogroups"

    def _member(self, on: AutogroupPlace) -> tuple[ProcId, int] | Trouble:
        """(a living process of the autogroup, its nice): the process that it was set through, if that still exists, else any.
        VANISHED only if all processes could be read."""
        found = self._autogroup(on.through)
        if not isinstance(found, Trouble) and found is not None and found[0] == on.name:
            return on.through, found[1]
        scan = self.kin()
        unread = scan.unread
        for kin in scan.kin:
            found = self._autogroup(kin.id)
            if isinstance(found, Trouble) and found.status is Status.REFUSED:  # denied twice: see `kin`
                found = self._autogroup(kin.id)
            if isinstance(found, Trouble):
                unread = unread or (found if found.status in UNKNOWN else None)
            elif found is not None and found[0] == on.name:
                return kin.id, found[1]
        return unread or Trouble(Status.VANISHED, f"{on.name} is gone")

    def _write_autogroup(self, knob: Knob, on: AutogroupPlace, expected: Value, value: int) -> Trouble | None:
        member = self._member(on)
        if isinstance(member, Trouble):
            return member
        process, before = member
        if before != expected:
            return foreign(expected, before)
        try:
            fd = os.open(f"{self._proc}/{process.pid}/autogroup", os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            return self._error(error, knob)
        try:
            # an open file of /proc/PID belongs to the process, not to the number: checked now, the write cannot hit another one
            found = self._autogroup(process)
            if isinstance(found, Trouble) and found.status is not Status.VANISHED:
                return found
            if isinstance(found, Trouble) or found is None or found[0] != on.name:
                return Trouble(Status.LATER, f"pid {process.pid} has left {on.name}")  # others may be in it
            last = int(os.pread(fd, 64, 0).split()[-1])  # "/autogroup-N nice M", read again: the check above took 60 us
            if last != expected:
                return foreign(expected, last)
            os.write(fd, b"%d" % value)
        except OSError as error:
            return self._error(error, knob)
        finally:
            os.close(fd)
        return None

    def _write_fence(self, on: FencePlace, expected: Value, value: Value) -> Trouble | None:
        now = self._fences.read(on.key)
        if isinstance(now, Trouble) or now != expected:
            return now if isinstance(now, Trouble) else foreign(expected, now)
        if not value:
            return self._fences.remove(on.key)
        return self._fences.build(on.process, on.key)

    def _error(self, error: OSError, knob: Knob) -> Trouble:
        """Trouble from a system call on a knob."""
        fault = fault_of(error)
        if fault is Fault.GONE:
            return Trouble(Status.VANISHED, f"{_name(knob.on)} is gone")
        if error.errno == errno.ENOSYS and knob.control is Control.SLICE:
            return Trouble(Status.REFUSED, "this kernel has no slices of threads: they need Linux 6.12 or newer")
        if error.errno == errno.EOPNOTSUPP and knob.control is Control.SLICE:
            return Trouble(Status.REFUSED, f"{_name(knob.on)} is left alone: only SCHED_OTHER and SCHED_BATCH have slices")
        if error.errno == errno.EAGAIN and knob.control is Control.AUTOGROUP:
            return Trouble(Status.LATER, "without CAP_SYS_ADMIN the kernel accepts one autogroup change in 0.1 s: try again later")
        if fault is Fault.DENIED:
            return Trouble(Status.REFUSED, f"not permitted: {_NEEDS[knob.control]}")
        if error.errno == errno.EINVAL and knob.control is Control.AFFINITY:
            return Trouble(Status.FAILED, "none of these CPUs is online and in the cpuset of the process")
        return Trouble(status_of(error), f"{knob.control} of {_name(knob.on)}: {error.strerror}")


def _unseen(error: OSError, pid: int) -> Trouble:
    """Why a process could not be read, or that it is gone."""
    if is_gone(error):
        return Trouble(Status.VANISHED, f"pid {pid} is gone")
    advice = "; run as root" if fault_of(error) is Fault.DENIED else ""
    return Trouble(status_of(error), f"pid {pid} cannot be read: {error.strerror}{advice}")


def _may_renice(proc: str) -> bool:
    """Whether we have CAP_SYS_NICE in the initial user namespace, where the kernel requires it (capable(), can_nice()). False if
    the procfs has no such files. Raises OSError if they cannot be read."""
    try:
        status, ids = _text(f"{proc}/self/status"), _text(f"{proc}/self/uid_map")
    except FileNotFoundError:
        return False
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return effective is not None and bool(int(effective[1], 16) & _CAP_SYS_NICE) and ids.split() == _ALL_IDS


def _scan(proc: str, known: Pids | None = None, reach: Reach | None = None) -> Scan:
    """See `LinuxKernel.kin`: the processes below `proc`. Of one that is left out it keeps nothing but a bit."""
    found, unread = dict[int, Kin](), None
    known = Pids() if known is None else known
    since = 0 if reach is None else reach.since
    try:
        with os.scandir(proc) as places:
            for place in places:
                if not place.name.isdigit():
                    continue
                line, pid = [], int(place.name)
                while pid not in known:  # pids begin anew at the highest: a parent may come later than its children
                    stat = _stat_or_trouble(proc, pid)
                    if isinstance(stat, Trouble):
                        unread = unread or (stat if stat.status in UNKNOWN else None)
                        break
                    known.add(pid)
                    if int(stat[19]) < since:
                        break
                    line.append((pid, stat))
                    pid = int(stat[1])
                while line:
                    pid, stat = line.pop()
                    if reach is None or reach.has(pid, int(stat[1]), int(stat[3]), int(stat[2]), known):
                        found[pid] = _kin(pid, stat)
    except OSError as error:
        unread = Trouble(status_of(error), f"{proc} cannot be read: {error.strerror}")
    for pid in {kin.parent for kin in found.values()}.difference(found) if reach else ():
        stat = _stat_or_trouble(proc, pid)
        if not isinstance(stat, Trouble):
            found[pid] = _kin(pid, stat)
        elif stat.status in UNKNOWN:
            unread = unread or stat
    return Scan(tuple(found[pid] for pid in sorted(found)), unread)


def _stat_or_trouble(proc: str, pid: int) -> list[bytes] | Trouble:
    """The stat of a process, or why it cannot be read. It is denied only if it is so twice."""
    try:
        return _stat(f"{proc}/{pid}/stat")
    except OSError as error:
        trouble = _unseen(error, pid)
    if trouble.status is Status.REFUSED:
        try:
            return _stat(f"{proc}/{pid}/stat")
        except OSError as error:
            trouble = _unseen(error, pid)
    return trouble


def _kin(pid: int, stat: list[bytes]) -> Kin:
    return Kin(ProcId(pid, int(stat[19])), int(stat[1]), int(stat[3]), int(stat[2]))


def _set_slice(slices: Slices, tid: int, value: Value) -> None:
    slices.write(tid, number(value))


def _affinity(tid: int) -> Value:
    return tuple(sorted(os.sched_getaffinity(tid)))


def _nice(tid: int) -> Value:
    return os.getpriority(os.PRIO_PROCESS, tid)


def _policy(tid: int) -> Value:
    return os.sched_getscheduler(tid) & ~os.SCHED_RESET_ON_FORK


def _set_affinity(tid: int, value: Value) -> None:
    os.sched_setaffinity(tid, value if isinstance(value, tuple) else (value,))


def _set_nice(tid: int, value: Value) -> None:
    os.setpriority(os.PRIO_PROCESS, tid, number(value))


def _set_policy(tid: int, value: Value) -> None:
    # the flag is the program's own choice and stays; the kernel keeps nice and slice
    kept = os.sched_getscheduler(tid) & os.SCHED_RESET_ON_FORK
    os.sched_setscheduler(tid, number(value) | kept, os.sched_param(0))


_READ: dict[Control, Callable[[int], Value]] = {Control.NICE: _nice, Control.AFFINITY: _affinity, Control.POLICY: _policy}
_WRITE: dict[Control, Callable[[int, Value], None]] = {
    Control.NICE: _set_nice,
    Control.AFFINITY: _set_affinity,
    Control.POLICY: _set_policy,
}


def _malformed(control: Control, value: Value) -> str:
    """Why this value must never be written, "" if it may be. The kernel silently clamps a nice, and gives a real-time policy to a
    process that may have one."""
    if control is Control.AFFINITY:
        return "" if isinstance(value, tuple) and value and min(value) >= 0 else f"an affinity is a list of CPUs, not {value!r}"
    if isinstance(value, tuple):
        return f"{control} is a number, not {value!r}"
    if control in (Control.NICE, Control.AUTOGROUP) and not -20 <= value <= 19:
        return f"nice {value} is not within -20..19"
    if control is Control.SLICE and value and not SHORTEST <= value <= LONGEST:
        return f"slice {value} is neither 0 nor within {SHORTEST}..{LONGEST} ns"
    if control is Control.POLICY and value not in FAIR_POLICIES:
        return f"policy {value} is not one of {sorted(FAIR_POLICIES)}: real-time policies are never set"
    return ""


def _name(on: KnobPlace) -> str:
    match on:
        case ThreadPlace(thread=thread):
            return f"thread {thread.tid}"
        case Cgroup(path=name) | AutogroupPlace(name=name) | FencePlace(key=name) | PoolPlace(name=name):
            return name


def _vanished(process: ProcId, thread: ThreadId | None = None) -> Trouble:
    what = f"pid {process.pid}" if thread is None or thread.tid == process.pid else f"thread {thread.tid} of pid {process.pid}"
    return Trouble(Status.VANISHED, f"{what} is gone")


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _raw_stat(path: str) -> bytes:
    fd = os.open(path, _LOOK)
    try:
        return os.read(fd, 2048)
    finally:
        os.close(fd)


def _stat(path: str) -> list[bytes]:
    """Fields of a stat file from the state (3) to the start time (22), and the rest in one. The name before may hold anything: it
    ends at the last parenthesis."""
    raw = _raw_stat(path)
    return raw[raw.rindex(b")") + 2 :].split(b" ", 20)
