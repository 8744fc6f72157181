"""What a worker is doing, as the kernel sees it: the system call in which it blocks. The worker itself is not changed.

Must not know pools or time keeping. /proc/PID/syscall and /proc/PID/mem need permission to trace the process (same user, or
CAP_SYS_PTRACE; under Yama only descendants), or hands that have it. Without it, /proc/PID/wchan gives the same more coarsely.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from types import MappingProxyType

from ....models.identity import ProcId
from ...hands.faults import is_gone
from ...read import door
from ...read.calls import NUMBERS, Call, parse_call
from .signals import parse_stat, read_stat


class Doing(Enum):
    """What a worker is doing at one instant."""

    IDLE = "waits for work"
    BUSY = "works, or waits for something that its work needs"
    LOOP = "waits in an event loop: may hold any number of unfinished requests"
    UNKNOWN = "no right to see"
    GONE = "has ended"


# Kernel functions that /proc/PID/wchan names, without the compiler's suffixes. "0" is a thread that is not blocked.
_WCHAN: Mapping[str, str] = MappingProxyType(
    {
        "0": "running",
        "do_select": "select",
        "do_poll": "poll",
        "do_sys_poll": "poll",
        "poll_schedule_timeout": "poll",
        "ep_poll": "epoll_wait",
        "do_epoll_wait": "epoll_wait",
        "inet_csk_accept": "accept",
        "hrtimer_nanosleep": "clock_nanosleep",
        "do_nanosleep": "clock_nanosleep",
        "futex_wait_queue": "futex",
        "futex_wait_queue_me": "futex",
        "futex_do_wait": "futex",
        "do_wait": "wait4",
        "sigsuspend": "rt_sigsuspend",
        "do_sigtimedwait": "rt_sigtimedwait",
        "do_sys_pause": "pause",
        "inotify_read": "rt_sigsuspend",  # a read that only waits for notifications
    }
)

_SELECT = frozenset({"select", "pselect6"})
_POLL = frozenset({"poll", "ppoll"})
_EPOLL = frozenset({"epoll_wait", "epoll_pwait", "epoll_pwait2"})
_ACCEPT = frozenset({"accept", "accept4"})
_WAIT = frozenset({"wait4", "waitid"})
_READ = frozenset({"read", "recvfrom", "recvmsg"})
_IDLE = (
    _SELECT
    | _POLL
    | _EPOLL
    | _ACCEPT
    | {"pause", "nanosleep", "clock_nanosleep", "rt_sigtimedwait", "rt_sigsuspend", "futex", "restart_syscall"}
    | {"semop", "semtimedop", "msgrcv", "mq_timedreceive", "io_getevents", "io_uring_enter"}
)
_NOTICES = re.compile(r"anon_inode:(\[?inotify|\[?eventfd|\[?timerfd|\[?signalfd|inotify)")
_QUIET_READ_NS = 1_000_000_000  # a read from a pipe or socket that has lasted this long waits for work, not for an answer (chosen)
_MAX_THREADS = 64  # most threads looked at per process and probe (chosen)
_MAX_DEPTH = 3  # most generations of children that a worker waits for (chosen)


class CallView:
    """Open descriptors on one thread's system call, or the hands' view of it. Opened for one process, it never shows another that
    got the same pid."""

    def __init__(self, proc_root: Path, pid: int, tid: int | None = None, machine: str | None = None) -> None:
        self._process = proc_root / str(pid)
        self._thread = self._process if tid is None else self._process / "task" / str(tid)
        self._tid = tid or pid
        self._names = NUMBERS.get(machine or os.uname().machine)
        self._syscall = -1 if self._names is None or door.closed("syscall") else _open(self._thread / "syscall")
        self.asked: tuple[ProcId, int] | None = None
        """The thread that the hands are asked about, if they are."""
        self.foreseen: bytes | OSError | None = None
        """What they have said of it, for the next `call`."""
        self._wchan = -1
        self._mem: int | None = None  # opened at first need
        if self._syscall < 0:
            self._ask()

    def call(self) -> Call | None:
        """The thread's current call; None: no permission. Raises ProcessLookupError if the thread has ended."""
        if self._syscall >= 0 and self._names is not None:
            try:
                return parse_call(os.pread(self._syscall, 256, 0), self._names)
            except PermissionError:
                os.close(self._syscall)
                self._syscall = -1
                self._ask()
        if self.asked is not None and self._names is not None:
            line, self.foreseen = self.foreseen, None
            if line is None:
                (line,) = door.calls([self.asked])
            if isinstance(line, bytes):
                return parse_call(line, self._names)
            if is_gone(line):
                raise ProcessLookupError(str(self._thread))
        return self._coarse_call()

    def memory(self, call: Call, argument: int, size: int) -> bytes | None:
        """`size` bytes of the process's memory where an argument of its call points to; None: no permission, or not mapped."""
        address = call.args[argument]
        try:
            if self.asked is not None:
                return door.words(str(self._process), self._tid, argument, address, size) or None
            if self._mem is None:
                self._mem = _open(self._process / "mem")
            if self._mem < 0 or not 0 < address < 1 << 63:
                return None
            raw = os.pread(self._mem, size, address)
        except OSError:  # EIO where nothing is mapped, EPERM, ESRCH
            return None
        return raw if len(raw) == size else None

    def epoll_targets(self, fd: int) -> frozenset[int] | None:
        """Descriptors that an epoll descriptor watches; None: no permission."""
        try:
            text = door.fdinfo(str(self._process), fd).decode("ascii", "replace")
        except OSError:
            return None
        return frozenset(int(line.split()[1]) for line in text.splitlines() if line.startswith("tfd:"))

    def link(self, fd: int) -> str:
        """What a descriptor is, as /proc/PID/fd names it; "" if it cannot be read."""
        try:
            return door.link(str(self._process), f"fd/{fd}")
        except OSError:
            return ""

    def ended(self) -> bool:
        """Whether it is a zombie or gone. A zombie shows no system call, and neither does a page fault."""
        return self._state() in "ZX"

    def close(self) -> None:
        """Close the descriptors."""
        for fd in (self._syscall, self._wchan, -1 if self._mem is None else self._mem):
            if fd >= 0:
                os.close(fd)
        self._syscall = self._wchan = -1
        self._mem = -1

    def _ask(self) -> None:
        """Have the hands read the call from now on, if there are any."""
        if self._names is None or not door.denied("syscall"):
            return
        pid = int(self._process.name)
        stat = read_stat(self._process.parent, pid)
        if stat is None:
            raise ProcessLookupError(str(self._process))
        self.asked = ProcId(pid, stat.start_ticks), self._tid

    def _coarse_call(self) -> Call | None:
        if self._wchan < 0:
            self._wchan = _open(self._thread / "wchan")
        if self._wchan < 0:
            return None
        try:
            symbol = os.pread(self._wchan, 128, 0).decode("ascii", "replace").strip()
        except PermissionError:
            return None
        name = _WCHAN.get(symbol.split(".")[0].removeprefix("__"))
        if name == "running":
            state = self._state()
            if state == "S":
                return None  # the kernel does not reveal its function names
            if state in "ZX":
                return Call("none", ())
        return Call(name or "other", ())

    def _state(self) -> str:
        try:
            return parse_stat((self._thread / "stat").read_bytes()).state
        except (FileNotFoundError, ProcessLookupError):
            return "X"


def foresee(views: Iterable[CallView]) -> None:
    """Have the hands read, in one request, what the next `call` of each of these views needs of them."""
    asked = [view for view in views if view.asked is not None]
    found = door.calls([view.asked for view in asked if view.asked is not None])
    for view, line in zip(asked, found, strict=True):
        view.foreseen = line


def _open(path: Path) -> int:
    """A descriptor, or -1 without permission. Raises ProcessLookupError if the process has ended."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        return -1
    except FileNotFoundError:
        if path.parent.is_dir():  # a kernel without this file
            return -1
        raise ProcessLookupError(str(path)) from None


def serving(view: CallView, listeners: frozenset[int]) -> Doing:
    """What a worker is doing that serves connections from the listening descriptors `listeners`.

    It is idle only while it waits for one of the listeners. A worker that waits for its database in poll(), or sleeps in select()
    without descriptors, is busy. If memory or the listeners cannot be read, every wait for descriptors counts as idle.
    """
    try:
        call = view.call()
    except ProcessLookupError:
        return Doing.GONE
    if call is None:
        return Doing.UNKNOWN
    if call.name == "none" and view.ended():
        return Doing.GONE
    if call.name in _ACCEPT:
        return Doing.IDLE
    if call.name in _SELECT:
        return Doing.IDLE if _select_waits_for(view, call, listeners) else Doing.BUSY
    if call.name in _POLL:
        return Doing.IDLE if _poll_waits_for(view, call, listeners) else Doing.BUSY
    if call.name in _EPOLL:
        targets = view.epoll_targets(call.args[0]) if call.args else None
        return Doing.LOOP if targets is None or not listeners or targets & listeners else Doing.BUSY
    return Doing.BUSY


def _select_waits_for(view: CallView, call: Call, listeners: frozenset[int]) -> bool:
    if not call.args:
        return True
    count, address = call.args[0] & 0xFFFFFFFF, call.args[1]
    if not count or not address:  # a sleep, or a wait until something can be written
        return False
    raw = view.memory(call, 1, min(count + 7, 8192) // 8)
    if raw is None or not listeners:
        return True
    return any(fd // 8 < len(raw) and raw[fd // 8] >> fd % 8 & 1 for fd in listeners)


def _poll_waits_for(view: CallView, call: Call, listeners: frozenset[int]) -> bool:
    if not call.args:
        return True
    count = min(call.args[1] & 0xFFFFFFFF, 256)
    if not count:
        return False
    raw = view.memory(call, 0, 8 * count)
    if raw is None or not listeners:
        return True
    return any(fd in listeners for fd, _events in struct.iter_unpack("=ii", raw))


class Activity:
    """What a process of any program is doing, from the waits of all its threads and of its children.

    Busy: a thread runs, waits for the disk, or blocks in a call that is no wait for work. Idle: all threads sleep, or wait for
    descriptors, locks, signals or notifications, and all children are idle. A read from a pipe or socket is busy for its first
    second (it waits for an answer) and idle after that (it waits for work). A worker whose work is sleeping, or one long wait for
    others, looks idle.
    """

    def __init__(self, proc_root: Path, pid: int, depth: int = 0, *, forks: bool = False) -> None:
        """`forks`: it starts a child for each piece of work and waits for its end, so that it is busy while it waits for one."""
        self._proc_root = proc_root
        self._pid = pid
        self._depth = depth
        self._forks = forks
        self._listing: ChildList | None = None
        self._there: dict[int, Activity] = {}  # its children
        self._stat = -1
        self._view: CallView | None = None
        self._reading: tuple[bytes, int] | None = None  # (times scheduled, since ns) of the current read
        self._settled = b""  # times scheduled when `settled` was asked last

    def look(self, now: int) -> Doing:
        """What it is doing at `now` (ns, any steady clock)."""
        try:
            return self._look(now)
        except (ProcessLookupError, FileNotFoundError):
            return Doing.GONE

    def settled(self) -> bool:
        """Whether its main thread waits for a child, or has been in one wait since this was last asked; True too if that may not be
        seen, or if it is gone."""
        try:
            scheduled = self._scheduled()
            same, self._settled = scheduled == self._settled, scheduled
            if self._view is None:
                self._view = CallView(self._proc_root, self._pid)
            call = self._view.call()
        except (ProcessLookupError, FileNotFoundError):
            return True
        return call is None or call.name in _WAIT or (same and call.name in _IDLE | _READ)

    def close(self) -> None:
        """Close the descriptors."""
        if self._stat >= 0:
            os.close(self._stat)
            self._stat = -1
        if self._view is not None:
            self._view.close()
            self._view = None
        if self._listing is not None:
            self._listing.close()
            self._listing = None
        for child in self._there.values():
            child.close()
        self._there.clear()

    def _look(self, now: int) -> Doing:
        if self._stat < 0:
            self._stat = os.open(self._proc_root / str(self._pid) / "stat", os.O_RDONLY | os.O_CLOEXEC)
        stat = parse_stat(os.pread(self._stat, 4096, 0))
        if stat.state in "ZX":
            return Doing.GONE
        if stat.state in "Tt":  # stopped: it does nothing
            return Doing.IDLE
        if stat.state in "RD":
            return Doing.BUSY
        if self._view is None:
            self._view = CallView(self._proc_root, self._pid)
        doing = self._thread(self._view, now)
        if doing is Doing.IDLE and stat.threads > 1:
            doing = self._other_threads()
        return self._children(now) if doing is Doing.IDLE else doing

    def _thread(self, view: CallView, now: int) -> Doing:
        call = view.call()
        if call is None:
            return Doing.UNKNOWN
        if call.name in _WAIT:
            return Doing.BUSY if self._forks or self._depth >= _MAX_DEPTH else Doing.IDLE  # as its children are
        if call.name in _READ and call.args:
            return self._read(view, call.args[0], now)
        self._reading = None
        return Doing.IDLE if call.name in _IDLE else Doing.BUSY

    def _read(self, view: CallView, fd: int, now: int) -> Doing:
        link = view.link(fd & 0xFFFFFFFF)
        if _NOTICES.match(link):
            return Doing.IDLE
        if not link.startswith(("socket:", "pipe:", "/dev/")) and "fifo" not in link:
            return Doing.BUSY  # a file: the disk answers
        scheduled = self._scheduled()
        if self._reading is None or self._reading[0] != scheduled:
            self._reading = (scheduled, now)
        return Doing.IDLE if now - self._reading[1] >= _QUIET_READ_NS else Doing.BUSY

    def _scheduled(self) -> bytes:
        """How often its main thread was put on a CPU."""
        return (self._proc_root / str(self._pid) / "schedstat").read_bytes().split()[-1]

    def _other_threads(self) -> Doing:
        threads = sorted(int(name) for name in _names(self._proc_root / str(self._pid) / "task"))
        for tid in threads[:_MAX_THREADS]:
            if tid == self._pid:
                continue
            try:
                view = CallView(self._proc_root, self._pid, tid)
            except ProcessLookupError:
                continue
            try:
                call = view.call()
            except ProcessLookupError:
                continue
            finally:
                view.close()
            if call is not None and call.name not in _IDLE | _READ:
                return Doing.BUSY
        return Doing.IDLE

    def _children(self, now: int) -> Doing:
        """An idle process does what its children do: a shell script is busy while its command is busy, a supervisor while one of
        its processes is."""
        if self._depth >= _MAX_DEPTH:
            return Doing.IDLE
        if self._listing is None:
            self._listing = ChildList(self._proc_root, self._pid)
        pids = self._listing.pids(now)[:_MAX_THREADS]
        for gone in self._there.keys() - set(pids):
            self._there.pop(gone).close()
        doing = Doing.IDLE
        for pid in pids:
            child = self._there.get(pid)
            if child is None:
                child = self._there[pid] = Activity(self._proc_root, pid, self._depth + 1)
            found = child.look(now)
            if found is Doing.GONE:  # another process may get its pid
                self._there.pop(pid).close()
            elif found is Doing.BUSY:
                doing = Doing.BUSY
        return doing


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def children(proc_root: Path, pid: int) -> list[int]:
    """Pids of the children that the process's main thread has started, sorted; by a scan if the kernel keeps no list."""
    try:
        return sorted(int(word) for word in (proc_root / str(pid) / "task" / str(pid) / "children").read_bytes().split())
    except ProcessLookupError:
        return []
    except FileNotFoundError:
        if not (proc_root / str(pid)).is_dir():
            return []
    pids = (int(name) for name in _names(proc_root) if name.isdigit())
    return sorted(child for child in pids if (stat := read_stat(proc_root, child)) is not None and stat.ppid == pid)


class ChildList:
    """The children of one process, as `children` returns them, for ten looks a second: it keeps a descriptor open.

    The kernel's list may leave out a child that lives, when another one ends during the read (proc(5)). So one that was there and
    is missing is looked at itself.
    """

    def __init__(self, proc_root: Path, pid: int) -> None:
        self._proc_root, self._pid = proc_root, pid
        try:
            self._listing = os.open(proc_root / str(pid) / "task" / str(pid) / "children", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._listing = -1  # the kernel keeps no list
        self._last: set[int] = set()
        self._scan_at = 0
        self._scanned: list[int] = []

    def pids(self, now: int) -> list[int]:
        """Their pids, sorted; [] if the process is gone. Up to a second old where all of /proc must be searched."""
        if self._listing >= 0:
            try:
                listed = {int(word) for word in os.pread(self._listing, 1 << 17, 0).split()}
            except ProcessLookupError:
                return []
            for pid in self._last - listed:
                stat = read_stat(self._proc_root, pid)
                if stat is not None and stat.ppid == self._pid:
                    listed.add(pid)
            self._last = listed
            return sorted(listed)
        if now >= self._scan_at:
            self._scan_at = now + 1_000_000_000
            self._scanned = children(self._proc_root, self._pid)
        return self._scanned

    def close(self) -> None:
        """Close the descriptor."""
        if self._listing >= 0:
            os.close(self._listing)
            self._listing = -1
