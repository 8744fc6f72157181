"""Reads what others may not read of a process: by our own right, or through the hands where we have none.

Each function tries itself first. Where that was denied once, it goes to the hands first from then on, if there are any. Without
hands, and where they refuse, the caller gets the PermissionError. An ended connection to them raises GoneError. All functions raise
OSError, and name a process by its directory in procfs: without hands they cost what the system calls cost. Who knows the start
time too, and says so (`known`), saves the hands' request a look at it. Must not know why something is read.
"""

# ruff: noqa: PTH115, PTH116, PTH208 -- Path objects cost more than the system calls

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from ...models.identity import ProcId
from ..hands import memory, open_files, reads
from ..hands.wire import Asking, RefusedError, close

T = TypeVar("T")
_INODE = re.compile(rb"^ino:\t(\d+)$", re.MULTILINE)  # proc_pid_fdinfo(5)
_NETLINK_SOCK_DIAG = 4  # linux/netlink.h
_FORESEEN = {"exe": "exe", "fd/0": "stdin"}  # links -> fields of `About`
_SHORT = 8  # so few descriptors usually have no gap in their numbers (chosen): not listing them saves a third of the time

_hands: Asking | None = None
_closed: set[str] = set()  # what was denied to us
_foreseen: dict[ProcId, About] = {}


class Links(NamedTuple):
    """Descriptors of a process."""

    total: int
    cut: bool  # some are left out
    links: list[tuple[int, str, int]]  # (descriptor, what it leads to, mode of the link or 0)


class File(NamedTuple):
    """A file that a process has open."""

    mode: int
    device: int
    inode: int
    changed: int  # ns


class Sockets(NamedTuple):
    """Sockets among the descriptors of a process."""

    descriptors: int  # how many it has
    inodes: tuple[int, ...]  # of the sockets among the first


class Io(NamedTuple):
    """Counters of /proc/PID/io."""

    counters: tuple[int, ...]  # characters read and written, bytes read and written
    descriptors: int | None  # if they were to be counted


class About(NamedTuple):
    """What the hands said of a process before it was needed. An OSError is raised when it is needed; None: not asked."""

    exe: str | OSError | None
    sockets: Sockets | OSError | None
    stdin: str | OSError | None  # what descriptor 0 leads to
    namespace: tuple[int, int] | OSError | None
    counters: Io | OSError | None


# --- the hands ----------------------------------------------------------------------------------------------------------------


def through(asking: Asking | None) -> None:
    """Ask these hands from now on; None: there are none."""
    global _hands
    _hands = asking
    _closed.clear()
    _foreseen.clear()


def closed(kind: str) -> bool:
    """Whether the hands are asked for this first."""
    return kind in _closed


def denied(kind: str) -> bool:
    """This was denied to us. Returns whether there are hands, which are asked first from now on."""
    if _hands is not None:
        _closed.add(kind)
    return _hands is not None


def lent() -> int | None:
    """Mask of the capabilities that the hands have; None without hands."""
    return None if _hands is None else int(_asked("read.rights"))


def _asked(operation: str, *arguments: object) -> Any:
    """The result of an operation that returns no descriptor."""
    result, descriptors = _ask(operation, *arguments)
    close(descriptors)
    return result


def _ask(operation: str, *arguments: object) -> tuple[Any, list[int]]:
    if _hands is None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    try:
        return _hands.ask(operation, *arguments)
    except RefusedError as refusal:
        raise PermissionError(errno.EPERM, str(refusal)) from None


def _of(process: str, operation: str, *arguments: object, known: ProcId | None = None) -> Any:
    """The result of an operation on the process with this directory."""
    return _asked(operation, *(known or _named(process)), *arguments)


def _named(process: str) -> ProcId:
    raw = memory.text(f"{process}/stat", reads.SMALL)
    return ProcId(int(process[process.rindex("/") + 1 :]), int(raw[raw.rindex(b")") + 2 :].split()[19]))


def _tried(kind: str, direct: Callable[[], T], asked: Callable[[], T]) -> T:
    if kind not in _closed:
        try:
            return direct()
        except PermissionError:
            if not denied(kind):
                raise
    return asked()


# --- many processes at once, only by the hands --------------------------------------------------------------------------------


def foresee(processes: Mapping[ProcId, int]) -> None:
    """Have the hands read what is needed next of these processes, and of no others any more, as bits of `reads`: for EXE `link` of
    exe; for SOCKETS `sockets`, `link` of descriptor 0 and `namespace`; for NAMESPACE that alone; for COUNTERS `io`. One request
    for up to `reads.MOST_PROCESSES`. Without hands these functions read it themselves."""
    _foreseen.clear()
    rest = [process for process, bits in processes.items() if bits] if _hands is not None else []
    while rest:
        piece, rest = rest[: reads.MOST_PROCESSES], rest[reads.MOST_PROCESSES :]
        answers = _asked("read.about", [(*process, processes[process]) for process in piece])
        both = zip(piece, answers, strict=True)
        _foreseen.update({process: _about(*found) for process, found in both if isinstance(found, list)})


def _about(exe: Any, sockets: Any, stdin: Any, namespace: Any, counters: Any) -> About:
    return About(
        _error(exe) if isinstance(exe, int) else exe,
        Sockets(sockets[0], tuple(sockets[1:])) if isinstance(sockets, list) else _error(sockets) if sockets else None,
        _error(stdin) if isinstance(stdin, int) else stdin,
        _pair(namespace) if isinstance(namespace, list) else _error(namespace) if namespace else None,
        _io(counters) if isinstance(counters, list) else _error(counters) if counters else None,
    )


def _io(numbers: Sequence[int]) -> Io:
    return Io(tuple(numbers[:4]), numbers[4] if len(numbers) > 4 else None)


def _foresaid(known: ProcId | None, what: str) -> Any:
    """What the hands said of this process; None if they were not asked. Raises the OSError that they met."""
    about = None if known is None else _foreseen.get(known)
    found = None if about is None else getattr(about, what)
    if isinstance(found, OSError):
        raise found
    return found


def calls(threads: Sequence[tuple[ProcId, int]]) -> list[bytes | OSError]:
    """The lines of /proc/PID/task/TID/syscall of threads."""
    found: list[bytes | OSError] = []
    for at in range(0, len(threads), reads.MOST_PROCESSES):
        wanted = [(*process, tid) for process, tid in threads[at : at + reads.MOST_PROCESSES]]
        found += [_error(each) if isinstance(each, int) else each.encode() for each in _asked("read.calls", wanted)]
    return found


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


# --- one process --------------------------------------------------------------------------------------------------------------


def call(process: str, tid: int) -> bytes:
    """The line of /proc/PID/task/TID/syscall."""
    path = f"{process}/task/{tid}/syscall"
    return _tried("syscall", lambda: memory.text(path, reads.CALL), lambda: _call(process, tid))


def _call(process: str, tid: int) -> bytes:
    found = calls([(_named(process), tid)])[0]
    if isinstance(found, OSError):
        raise found
    return found


def io(process: str, known: ProcId, *, counted: bool) -> Io:
    """The io counters of a process, and the number of its descriptors if that is `counted` by the hands. Raises ValueError if they
    have another form."""
    foreseen = _foresaid(known, "counters")
    if isinstance(foreseen, Io):
        return foreseen
    return _tried("io", lambda: _own_io(process), lambda: _their_io(known, counted))


def _own_io(process: str) -> Io:
    values = dict(line.split(b": ") for line in memory.text(f"{process}/io", reads.CALL).splitlines())
    try:
        return Io(tuple(int(values[name.encode()]) for name in reads.IO), None)
    except KeyError:
        raise ValueError("an unknown format") from None


def _their_io(known: ProcId, counted: bool) -> Io:
    (found,) = _asked("read.about", [(*known, reads.COUNTERS | reads.COUNTED * counted)])
    counters = found[4] if isinstance(found, list) else found
    if isinstance(counters, list):
        return _io(counters)
    raise _error(counters)


def wchan(process: str, tid: int) -> bytes:
    """The kernel function that a thread waits in; b"0" if it runs, or if the name is not ours to know."""
    found = memory.text(f"{process}/task/{tid}/wchan", reads.SMALL)
    if found == b"0" and _hands is not None:
        with suppress(PermissionError):
            return str(_of(process, "read.text", tid, "wchan")).encode()
    return found


def thread_io(process: str, tid: int) -> bytes:
    """The text of /proc/PID/task/TID/io."""
    path = f"{process}/task/{tid}/io"
    return _tried("io", lambda: memory.text(path, reads.SMALL), lambda: str(_of(process, "read.text", tid, "io")).encode())


def link(process: str, name: str, known: ProcId | None = None) -> str:
    """What `exe`, `cwd` or `fd/N` leads to."""
    if known in _foreseen and name in _FORESEEN and (found := _foresaid(known, _FORESEEN[name])) is not None:
        return str(found)
    return _tried("link", lambda: os.readlink(f"{process}/{name}"), lambda: str(_link(process, name, known)[0]))


def mode(process: str, descriptor: int) -> int:
    """The mode of the link of a descriptor: how it was opened (proc_pid_fd(5))."""
    path = f"{process}/fd/{descriptor}"
    return _tried("mode", lambda: os.lstat(path).st_mode, lambda: int(_link(process, f"fd/{descriptor}")[1]))


def _link(process: str, name: str, known: ProcId | None = None) -> Any:
    return _of(process, "read.link", int(name[3:]) if name.startswith("fd/") else name, known=known)


def links(process: str, most: int, *, modes: bool = False, whole: bool = False, known: ProcId | None = None) -> Links:
    """What its descriptors lead to, of the first `most`, or with `whole` of all or none. With `modes`, those of the pipes."""
    return _tried("links", lambda: _own_links(process, most, modes, whole), lambda: _links(process, most, modes, whole, known))


def _own_links(process: str, most: int, modes: bool, whole: bool) -> Links:
    names = os.listdir(f"{process}/fd")
    found = []
    for name in () if whole and len(names) > most else names[:most]:
        path = f"{process}/fd/{name}"
        try:
            leads = os.readlink(path)
            found.append((int(name), leads, os.lstat(path).st_mode if modes and leads.startswith("pipe:[") else 0))
        except FileNotFoundError:  # closed meanwhile
            continue
    return Links(len(names), len(names) > most, found)


def _links(process: str, most: int, modes: bool, whole: bool, known: ProcId | None) -> Links:
    count, cut, found = _of(process, "read.links", min(most, reads.MOST_DESCRIPTORS), modes, whole, known=known)
    return Links(count, cut, [(descriptor, leads, mode) for descriptor, leads, mode in found])


def sockets(process: str, count: int, known: ProcId | None) -> Sockets:
    """The sockets of a process with `count` descriptors, among the first `reads.MOST_SOCKETS`."""
    foreseen = _foresaid(known, "sockets")
    if isinstance(foreseen, Sockets):
        return foreseen
    if count <= _SHORT and "links" not in _closed:
        try:
            return Sockets(count, _inodes([os.readlink(f"{process}/fd/{fd}") for fd in range(count)]))
        except FileNotFoundError:  # a gap, or closed meanwhile
            pass
        except PermissionError:
            if not denied("links"):
                raise
    found = links(process, reads.MOST_SOCKETS, known=known).links  # the kernel lists them by number
    return Sockets(count, _inodes(link for _, link, _ in found))


def _inodes(links: Iterable[str]) -> tuple[int, ...]:
    return tuple(inode for inode in map(reads.socket_inode, links) if inode is not None)


def fdinfo(process: str, descriptor: int) -> bytes:
    """The text of /proc/PID/fdinfo/N; through the hands the lines of `reads.FDINFO`."""
    path = f"{process}/fdinfo/{descriptor}"
    return _tried("fdinfo", lambda: memory.text(path, 1 << 20), lambda: _fdinfo(process, [descriptor])[0])


def fdinfos(process: str, descriptors: Sequence[int]) -> list[bytes]:
    """As `fdinfo`, for many; of none that is closed."""
    return _tried("fdinfo", lambda: _own_fdinfos(process, descriptors), lambda: _fdinfo(process, descriptors, lost=True))


def _own_fdinfos(process: str, descriptors: Sequence[int]) -> list[bytes]:
    found = []
    for descriptor in descriptors:
        try:
            found.append(memory.text(f"{process}/fdinfo/{descriptor}", 1 << 20))
        except FileNotFoundError:
            continue
    return found


def _fdinfo(process: str, descriptors: Sequence[int], *, lost: bool = False) -> list[bytes]:
    found: list[bytes] = []
    for at in range(0, len(descriptors), reads.MOST_PROCESSES):
        for each in _of(process, "read.fdinfo", descriptors[at : at + reads.MOST_PROCESSES]):
            if not isinstance(each, int):
                found.append(each.encode())
            elif not lost:
                raise _error(each)
    return found


def has_open(process: str, inode: int, most: int) -> bool:
    """Whether one of its first `most` descriptors is a file with this inode."""
    return _tried("file", lambda: _own_has_open(process, inode, most), lambda: _has_open(process, inode, most))


def _own_has_open(process: str, inode: int, most: int) -> bool:
    for name in os.listdir(f"{process}/fd")[:most]:
        try:
            if os.stat(f"{process}/fd/{name}").st_ino == inode:
                return True
        except OSError as error:
            if isinstance(error, PermissionError) and _hands is not None:
                raise
    return False


def _has_open(process: str, inode: int, most: int) -> bool:
    infos = (each.encode() for each in _of(process, "read.fdinfo", most) if not isinstance(each, int))
    return any(int(match[1]) == inode for match in map(_INODE.search, infos) if match)


def file(process: str, descriptor: int) -> File:
    """The attributes of a file that it has open. May wait for the file's disk."""
    return _tried("file", lambda: _own_file(f"{process}/fd/{descriptor}"), lambda: File(*_of(process, "read.file", descriptor)))


def _own_file(path: str) -> File:
    found = os.stat(path)
    return File(found.st_mode, found.st_dev, found.st_ino, found.st_mtime_ns)


def shared(process: str) -> bytes:
    """The text of /proc/PID/maps; through the hands at least the lines of what can be shared and written to."""
    path = f"{process}/maps"
    return _tried("maps", lambda: memory.text(path, memory.MAPS), lambda: os.fsencode(_of(process, "read.maps", "shared")))


def sizes(process: str) -> list[tuple[bytes, int]]:
    """(name, bytes of address ranges) of its mappings, the largest first."""
    return _tried(
        "maps",
        lambda: reads.sizes(memory.text(f"{process}/maps", reads.MAPS)),
        lambda: [(os.fsencode(name), size) for size, name in _of(process, "read.maps", "sizes")],
    )


def words(process: str, tid: int, argument: int, address: int, size: int) -> bytes:
    """`size` bytes of its memory at the address that is this argument of the call that a thread waits in; b"" if not all of them
    can be read. The hands read only what `memory.POINTERS` has."""
    return _tried(
        "mem",
        lambda: memory.words(process, address, size),
        lambda: bytes.fromhex(_of(process, "read.pointed", tid, argument, address, size)),
    )


def lock(process: str, tid: int, semaphore: int, stack: int) -> int:
    """Address of Python's object for a semaphore that a thread with this stack waits for, see `memory.lock_on_stack`."""
    return _tried(
        "mem", lambda: memory.lock_on_stack(process, semaphore, stack), lambda: int(_of(process, "read.lock", tid, semaphore))
    )


def taken(process: str, semaphore: int, address: int) -> memory.Taken | None:
    """What a process knows of a semaphore by the object at this address, see `memory.taken`."""
    return _tried("mem", lambda: memory.taken(process, semaphore, address), lambda: _taken(process, semaphore, address))


def _taken(process: str, semaphore: int, address: int) -> memory.Taken | None:
    found = _of(process, "read.taken", semaphore, address)
    return None if found is None else memory.Taken(*found)


def succeeds(process: str, master: int) -> bool:
    """Whether gunicorn's master has started this process as its successor."""
    return _tried("environ", lambda: reads.succeeds(process, master), lambda: bool(_of(process, "read.successor", master)))


def reads_keystrokes(process: str, terminal: int) -> bool | None:
    """See `open_files.reads_keystrokes`; None also if the terminal may not be opened."""
    try:
        return _tried(
            "terminal",
            lambda: open_files.reads_keystrokes(process, terminal),
            lambda: _keystrokes(_of(process, "read.keystrokes", terminal)),
        )
    except PermissionError:
        return None


def _keystrokes(found: object) -> bool | None:
    return found if isinstance(found, bool) else None


# --- sockets ------------------------------------------------------------------------------------------------------------------


def namespace(process: str, known: ProcId | None = None) -> tuple[int, int]:
    """Device and inode of the network namespace of a process."""
    if (found := _foresaid(known, "namespace")) is not None:
        return _pair(found)
    return _tried("namespace", lambda: _own_namespace(process), lambda: _pair(_of(process, "read.namespace")))


def home(proc_root: str) -> tuple[int, int]:
    """The network namespace that `diagnosis` is about: that of the hands, or without them our own."""
    if _hands is None:
        return _own_namespace(f"{proc_root}/self")
    return _pair(_asked("read.sockets"))


def diagnosis() -> socket.socket:
    """A socket of sock_diag."""
    if _hands is None:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
    _, descriptors = _ask("read.sockets")
    return socket.socket(fileno=descriptors[0])


def _own_namespace(process: str) -> tuple[int, int]:
    found = os.stat(f"{process}/ns/net")
    return found.st_dev, found.st_ino


def _pair(found: Sequence[int]) -> tuple[int, int]:
    return found[0], found[1]
