"""What the hands read of other users' processes for the brain, which has no right to. Takes CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH.

A process is named by pid and start time. Its directory in procfs is opened first, and its start time compared there: the directory
never shows another process, even if the pid is reused. Nothing is written, and no file system of a user is asked for a file. But
memory, mappings and environment are read under a lock of the process's own, which it can make last (userfaultfd(2), FUSE): these
operations belong into a process that does nothing else.

What may be read is what stands in `operations`, as much as a feature needs of it. Of memory, environment and terminals the answer
is a fact, not their content. Those of pid 1 and of the hands are not looked at.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence

from ...models.identity import ProcId
from . import memory, open_files
from .wire import Operation, RefusedError, Result

MOST_PROCESSES = 1024
"""Most processes or threads in one request (chosen): 10 ms of reading."""

MOST_DESCRIPTORS = 4096
"""Most descriptors of a process whose links are read (`blocked/belongings.py`)."""

MOST_SOCKETS = 256
"""Most descriptors of a process among which `read.about` looks for sockets (chosen): services open what they listen on before they
have clients."""

MOST_BYTES = 1 << 20
"""Most bytes of text in one reply (chosen): six times as many are the longest frame, if each must be escaped."""

CALL, SMALL, ENVIRONMENT, MAPS = 256, 4096, 1 << 18, 1 << 18
"""Most bytes read of syscall, of wchan and io, of the environment, and of maps for the sizes of its mappings (chosen)."""

SIZES = 16
"""Most names of mappings in a reply (chosen)."""

RESERVE = 256
"""Descriptors left to the rest of the hands (chosen)."""

KEPT = 1024
"""Most directories of processes that stay open (chosen): opening one again takes three calls, and 10 us. A process with more than
`belongings.DESCRIPTORS` open is not looked through: another nicety could not tell any more that nobody frees a file lock."""

FDINFO = (b"ino:", b"lock:", b"mnt_id:", b"tfd:")
"""Lines of /proc/PID/fdinfo that are passed on: inode, locks held, mount, and what an epoll descriptor watches."""

EXE, SOCKETS, COUNTERS, COUNTED, NAMESPACE = 1, 2, 4, 8, 16
"""Bits of what is wanted in `read.about`: the program file; sockets, standard input and network namespace; the counters `IO`; with
these the number of descriptors; the network namespace alone."""

IO = ("rchar", "wchar", "read_bytes", "write_bytes")
"""Counters of /proc/PID/io that are passed on: proc_pid_io(5)."""

_LINES = [b"rchar:", b"wchar:", b"syscr:", b"syscw:", b"read_bytes:", b"write_bytes:", b"cancelled_write_bytes:"]
_NETLINK_SOCK_DIAG = 4  # linux/netlink.h
_INT, _LONG = 1 << 31, 1 << 64
_PTRACE_ONLY = "not of pid 1, nor of the hands"


def operations(proc_root: str, diagnosis: int = -1) -> dict[str, Operation]:
    """By name, what may be asked about the processes below `proc_root`. `diagnosis`: a socket of sock_diag in the network namespace
    of pid 1, if ours is another. Each with the feature that fails without it:

    `read.about`: names of programs, which processes serve, have a window or are fed, io counters in traces and features, of many
    processes in one request. `read.calls`: busy and idle workers, deadlocks, locks of demoted processes,
    programs that answer through a pipe. `read.text`: where a thread waits (evidence), and what a Celery process has read.
    `read.link`: names of programs; the file or pipe that a thread waits for. `read.links`: which processes serve or have a
    window, accept queues, who holds the other end of a pipe. `read.fdinfo`: who holds a file lock, what epoll watches.
    `read.file`: gunicorn's heartbeat, named pipes. `read.namespace`: services in containers. `read.maps`: shared memory in which
    a lock is; the largest mappings (evidence). `read.pointed`: owners of mutexes, workers in poll and select.
    `read.lock` and `read.taken`: locks of multiprocessing. `read.successor`: gunicorn's new master after USR2.
    `read.keystrokes`: editors and shells in terminals. `read.sockets`: all of sock_diag, for a brain in a network namespace of its
    own: the descriptor is one that any user may open here. `read.rights`: what `doctor` says.
    """
    return Reads(proc_root, diagnosis).operations()


class Reads:
    """The operations, and the open directories of the processes that were asked for last. Each operation begins with pid and start
    time unless it says otherwise."""

    def __init__(self, proc: str, diagnosis: int = -1) -> None:
        self._proc = proc
        self._diagnosis = diagnosis
        self._open: OrderedDict[ProcId, int] = OrderedDict()  # descriptors, the longest unused first

    def operations(self) -> dict[str, Operation]:
        """See the function of this name."""
        return {
            "read.about": self.about,
            "read.calls": self.calls,
            "read.text": self.text,
            "read.link": self.link,
            "read.links": self.links,
            "read.fdinfo": self.fdinfo,
            "read.file": self.file,
            "read.namespace": self.namespace,
            "read.maps": self.maps,
            "read.pointed": self.pointed,
            "read.lock": self.lock,
            "read.taken": self.taken,
            "read.successor": self.successor,
            "read.keystrokes": self.keystrokes,
            "read.sockets": self.sockets,
            "read.rights": self.rights,
        }

    def close(self) -> None:
        """Close the directories."""
        while self._open:
            os.close(self._open.popitem()[1])

    def about(self, arguments: Sequence[object]) -> Result:
        """[[pid, start, bits], ...] -> for each null if it no longer fits, an errno, or [what `exe` leads to; the number of
        descriptors, and inodes of the sockets among the first `MOST_SOCKETS`; what descriptor 0 leads to; device and inode of the
        network namespace, if there is a socket; the counters `IO`, and the number of descriptors if wanted]: of these each an errno
        if it could not be read, and null if it is not wanted."""
        left = MOST_BYTES

        def read(each: object) -> object:
            nonlocal left
            found = self._about(*_expected(each, 3)) if left > 0 else None
            left -= len(str(found))
            return found if left > 0 else None

        return [_or_errno(read, each) for each in _list(_expected(arguments, 1)[0], MOST_PROCESSES)], ()

    def _about(self, pid: object, start: object, wanted: object) -> list[object]:
        bits = _integer(wanted, 1, 2 * NAMESPACE)
        held = self._held(pid, start)
        exe = _or_errno(_link, "exe", held) if bits & EXE else None
        sockets = stdin = namespace = None
        if bits & SOCKETS:
            sockets, stdin = _or_errno(_sockets, held), _or_errno(_link, "fd/0", held)
        if bits & NAMESPACE or (isinstance(sockets, list) and len(sockets) > 1):
            namespace = _or_errno(_namespace, f"/proc/self/fd/{held}")
        counters = _or_errno(_counters, held, bits & COUNTED) if bits & COUNTERS else None
        return [exe, sockets, stdin, namespace, counters]

    def calls(self, arguments: Sequence[object]) -> Result:
        """[[pid, start, thread], ...] -> for each its line of syscall or an errno."""
        return [_or_errno(self._call, each) for each in _list(_expected(arguments, 1)[0], MOST_PROCESSES)], ()

    def _call(self, wanted: object) -> str:
        pid, start, tid = _expected(wanted, 3)
        return memory.text(f"{self._path(pid, start)}/task/{_integer(tid, 1)}/syscall", CALL).decode("ascii", "replace")

    def text(self, arguments: Sequence[object]) -> Result:
        """..., thread, "wchan" or "io" -> text"""
        pid, start, tid, name = _expected(arguments, 4)
        if name not in ("wchan", "io"):
            raise RefusedError("no such text")
        return memory.text(f"{self._path(pid, start)}/task/{_integer(tid, 1)}/{name}", SMALL).decode("ascii", "replace"), ()

    def link(self, arguments: Sequence[object]) -> Result:
        """..., "exe", "cwd" or a descriptor -> [what it leads to, mode of the link]"""
        pid, start, name = _expected(arguments, 3)
        path = f"{self._path(pid, start)}/{name if name in ('exe', 'cwd') else f'fd/{_integer(name)}'}"
        return [os.readlink(path), os.lstat(path).st_mode], ()

    def links(self, arguments: Sequence[object]) -> Result:
        """..., most, whether modes of pipes are wanted, whether none if there are more -> [number of descriptors, whether some were
        left out, [[descriptor, link, mode], ...]]"""
        pid, start, wanted, modes, whole = _expected(arguments, 5)
        most = _integer(wanted, 0, MOST_DESCRIPTORS + 1)
        folder = f"{self._path(pid, start)}/fd"
        names = os.listdir(folder)
        found: list[list[object]] = []
        left = MOST_BYTES
        for name in () if whole and len(names) > most else names[:most]:
            try:
                link = os.readlink(f"{folder}/{name}")
                mode = os.lstat(f"{folder}/{name}").st_mode if modes and link.startswith("pipe:[") else 0
            except FileNotFoundError:  # closed meanwhile
                continue
            left -= len(os.fsencode(link))
            if left < 0:
                return [len(names), True, found], ()
            found.append([int(name), link, mode])
        return [len(names), len(names) > most, found], ()

    def fdinfo(self, arguments: Sequence[object]) -> Result:
        """..., descriptors or their greatest number -> for each its lines of `FDINFO` or an errno"""
        pid, start, wanted = _expected(arguments, 3)
        folder = f"{self._path(pid, start)}/fdinfo"
        if not isinstance(wanted, list):
            wanted = list(map(int, os.listdir(folder)))[: _integer(wanted, 0, MOST_PROCESSES)]
        left = MOST_BYTES

        def info(descriptor: object) -> str:
            nonlocal left
            lines = memory.text(f"{folder}/{_integer(descriptor)}", min(left, 1 << 16)).splitlines(keepends=True)
            lines = [line for line in lines if line.startswith(FDINFO)]
            left -= sum(map(len, lines))
            return b"".join(lines).decode("ascii", "replace")

        return [_or_errno(info, each) for each in _list(wanted, MOST_PROCESSES)], ()

    def file(self, arguments: Sequence[object]) -> Result:
        """..., descriptor -> mode, device, inode and ns of the last change of the file that it leads to"""
        pid, start, descriptor = _expected(arguments, 3)
        found = open_files.status(self._path(pid, start), f"fd/{_integer(descriptor)}")
        return [found.st_mode, found.st_dev, found.st_ino, found.st_mtime_ns], ()

    def namespace(self, arguments: Sequence[object]) -> Result:
        """... -> device and inode of its network namespace"""
        return _namespace(self._path(*_expected(arguments, 2))), ()

    def maps(self, arguments: Sequence[object]) -> Result:
        """..., "shared" -> lines of what it shares and writes to; "sizes" -> the largest mappings: [bytes, name]"""
        pid, start, sort = _expected(arguments, 3)
        if sort not in ("shared", "sizes"):
            raise RefusedError("no such list of mappings")
        raw = memory.text(f"{self._traced(pid, start)}/maps", memory.MAPS if sort == "shared" else MAPS)
        if sort == "sizes":
            return [[size, name.decode("utf-8", "surrogateescape")] for name, size in sizes(raw)[:SIZES]], ()
        text = b"\n".join(memory.shared_lines(raw))
        if len(text) > MOST_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return text.decode("utf-8", "surrogateescape"), ()

    def pointed(self, arguments: Sequence[object]) -> Result:
        """..., thread, number of an argument, the address that it has, bytes -> these as hexadecimal digits, see
        `memory.pointed`"""
        pid, start, tid, argument, address, size = _expected(arguments, 6)
        place = self._traced(pid, start)
        words = memory.pointed(
            place, _integer(tid, 1), _integer(argument, 0, 5), _integer(address, 0, _LONG), _integer(size, 1, 2048)
        )
        return words.hex(), ()

    def lock(self, arguments: Sequence[object]) -> Result:
        """..., thread, address of a semaphore -> see `memory.lock_waited_for`"""
        pid, start, tid, semaphore = _expected(arguments, 4)
        return memory.lock_waited_for(self._traced(pid, start), _integer(tid, 1), _integer(semaphore, 1, _LONG)), ()

    def taken(self, arguments: Sequence[object]) -> Result:
        """..., address of a semaphore, address of the object for it -> [held, thread] or null, see `memory.taken`"""
        pid, start, semaphore, address = _expected(arguments, 4)
        place = self._traced(pid, start)
        if not memory.is_semaphore(place, _integer(semaphore, 1, _LONG)):
            return None, ()
        found = memory.taken(place, _integer(semaphore, 1, _LONG), _integer(address, 1, _LONG))
        return None if found is None else [found.held, found.tid], ()

    def successor(self, arguments: Sequence[object]) -> Result:
        """..., pid of a master -> whether gunicorn has marked it as this master's successor"""
        pid, start, master = _expected(arguments, 3)
        return succeeds(self._traced(pid, start), _integer(master, 1)), ()

    def keystrokes(self, arguments: Sequence[object]) -> Result:
        """..., field 7 of stat -> see `open_files.reads_keystrokes`"""
        pid, start, terminal = _expected(arguments, 3)
        return open_files.reads_keystrokes(self._traced(pid, start), _integer(terminal)), ()

    def sockets(self, arguments: Sequence[object]) -> Result:
        """Nothing -> device and inode of a network namespace, and a socket of sock_diag there as a descriptor. It only reads:
        without CAP_NET_ADMIN nobody can close a connection with it."""
        _expected(arguments, 0)
        found = os.stat(f"{self._proc}/self/ns/net")
        if self._diagnosis >= 0:
            try:
                found = os.stat(f"{self._proc}/1/ns/net")
            except PermissionError:
                pass  # a pid 1 with more rights than ours is that of a container: its network is ours
            return [found.st_dev, found.st_ino], (os.dup(self._diagnosis),)
        made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
        return [found.st_dev, found.st_ino], (made.detach(),)

    def rights(self, arguments: Sequence[object]) -> Result:
        """Nothing -> mask of our effective capabilities"""
        _expected(arguments, 0)
        lines = memory.text(f"{self._proc}/self/status", 1 << 16).splitlines()
        return next((int(line.split()[1], 16) for line in lines if line.startswith(b"CapEff:")), 0), ()

    # --- which process --------------------------------------------------------------------------------------------------------

    def _traced(self, pid: object, start: object) -> str:
        """As `_path`, for what could give away secrets."""
        if pid in (1, os.getpid()):
            raise RefusedError(_PTRACE_ONLY)
        return self._path(pid, start)

    def _path(self, pid: object, start: object) -> str:
        return f"/proc/self/fd/{self._held(pid, start)}"

    def _held(self, pid: object, start: object) -> int:
        """The open directory of a process. Raises ProcessLookupError if there is no such process any more."""
        process = ProcId(_integer(pid, 1), _integer(start, 0, _LONG))
        held = self._open.get(process)
        if held is not None:
            self._open.move_to_end(process)
            return held
        held = os.open(f"{self._proc}/{process.pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fields = memory.text("stat", SMALL, held).rpartition(b")")[2].split()
            if len(fields) < 20 or int(fields[19]) != process.start_ticks:
                raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        except BaseException:
            os.close(held)
            raise
        self._open[process] = held
        if len(self._open) > _room():
            os.close(self._open.popitem(last=False)[1])
        return held


def sizes(maps: bytes) -> list[tuple[bytes, int]]:
    """(name, bytes of its address ranges) in the text of /proc/PID/maps, the largest first."""
    found: dict[bytes, int] = {}
    for line in maps.splitlines():
        words = line.split(None, 5)
        try:
            start, end = (int(word, 16) for word in words[0].split(b"-"))
        except (ValueError, IndexError):
            continue  # the last line, where the read was cut off
        name = words[5] if len(words) > 5 else b""
        found[name] = found.get(name, 0) + end - start
    return sorted(found.items(), key=lambda item: -item[1])


def succeeds(process: str, master: int) -> bool:
    """Whether a gunicorn master executed this process as its successor (USR2): gunicorn marks it in the child's environment. Raises
    OSError."""
    return f"GUNICORN_PID={master}".encode() in memory.text(f"{process}/environ", ENVIRONMENT).split(b"\0")


def socket_inode(link: str) -> int | None:
    """The inode of a socket from a link in /proc/PID/fd, None for anything else."""
    number = link.removeprefix("socket:[").removesuffix("]")
    return int(number) if number.isdecimal() and link == f"socket:[{number}]" else None


def _link(name: str, held: int) -> str:
    """What a link in this open directory leads to."""
    return os.readlink(name, dir_fd=held)


def _sockets(held: int) -> list[int]:
    """How many descriptors the process with this open directory has, and the inodes of the sockets among the first
    `MOST_SOCKETS`."""
    folder = os.open("fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=held)
    try:
        names = os.listdir(folder)
        found = [len(names)]
        for name in names[:MOST_SOCKETS]:
            try:
                inode = socket_inode(_link(name, folder))
            except FileNotFoundError:  # closed meanwhile
                continue
            if inode is not None:
                found.append(inode)
        return found
    finally:
        os.close(folder)


def _counters(held: int, counted: int) -> list[int]:
    """The counters `IO` of the process with this open directory, and the number of its descriptors if wanted."""
    file = os.open("io", os.O_RDONLY | os.O_CLOEXEC, dir_fd=held)
    try:
        words = os.read(file, CALL).split()
    finally:
        os.close(file)
    if words[::2] != _LINES:
        raise ValueError("an unknown format")
    found = list(map(int, words[1:4:2] + words[9:12:2]))
    return [*found, len(os.listdir(f"/proc/self/fd/{held}/fd"))] if counted else found


def _namespace(path: str) -> list[int]:
    """Device and inode of the network namespace of the process with this directory."""
    found = os.stat(f"{path}/ns/net")
    return [found.st_dev, found.st_ino]


def _room() -> int:
    """How many directories may stay open."""
    limit = os.sysconf("SC_OPEN_MAX")
    return KEPT if limit < 0 else max(1, min(KEPT, limit - RESERVE))


def _or_errno(read: Callable[..., object], *arguments: object) -> object:
    """What was read, or the errno for which it was not."""
    try:
        return read(*arguments)
    except OSError as error:
        return error.errno or errno.EIO
    except (KeyError, ValueError):  # an unknown format
        return errno.EIO


def _expected(arguments: object, count: int) -> Sequence[object]:
    if not isinstance(arguments, list) or len(arguments) != count:
        raise RefusedError("not what this operation takes")
    return arguments


def _list(wanted: object, most: int) -> list[object]:
    if not isinstance(wanted, list) or len(wanted) > most:
        raise RefusedError("no list, or too long a one")
    return wanted


def _integer(value: object, least: int = 0, most: int = _INT) -> int:
    if type(value) is not int or not least <= value < most:
        raise RefusedError("no number, or not in its range")
    return value
