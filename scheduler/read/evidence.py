"""A snapshot of one process, taken before anything is done to it, to find out why it misbehaved. Must not know kinds or policies.

Reads only /proc: it stops, slows and changes nothing. So it has no stack of Python or other user code: that needs ptrace(2), which
stops the process, or code inside of it; `py-spy dump` takes one by hand. For the same reason the size of a mapping is its address
range, and resident memory is split by /proc/PID/status: smaps walks all page tables, and blocks the process's own memory calls
meanwhile.

Every list and read is bounded, so that a snapshot takes a few milliseconds and KiB whatever the process has
(`tests/real/read/test_evidence.py`). What cannot be read (not ours, not root, gone meanwhile) is left out. Names are made
printable."""

# ruff: noqa: PTH208 -- Path objects cost more than the system calls, a thousand times a look

from __future__ import annotations

import os
import platform
import socket
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from ...models.identity import ProcId
from ..decision import Record
from . import door
from .calls import NUMBERS
from .process import Seen, see
from .text import printable

THREADS, CHILDREN, DESCRIPTORS, TARGETS, MAPPINGS, FRAMES = 64, 16, 1024, 6, 5, 24
"""Most threads and children that are read, descriptors that are counted, and targets, mappings and frames of the kernel's stack
that are kept (chosen: a snapshot takes a few milliseconds and KiB)."""

NET_BYTES = 512 << 10
"""Most bytes read of net/tcp (chosen): 3,000 connections."""

WCHAN, KIND, NAME, CALL_TARGET = 64, 32, 100, 120
"""Most letters that are kept of a kernel function, of a kind of descriptor, of a name, and of the target of a system call
(chosen)."""

STATES = {
    "R": "running or waiting for a CPU",
    "S": "sleeping",
    "D": "waiting in the kernel, uninterruptible (disk, NFS)",
    "Z": "ended, but not yet collected by its parent",
    "T": "stopped",
    "t": "stopped by a debugger",
    "I": "idle",
    "X": "gone",
}
"""States of a process: proc_pid_stat(5)."""

ON_DESCRIPTOR = frozenset(
    {
        *("read", "write", "connect", "accept", "accept4", "sendto", "recvfrom", "sendmsg", "recvmsg"),
        *("fcntl", "flock", "fsync", "epoll_wait", "epoll_pwait"),
    }
)
"""System calls whose first argument is a descriptor."""


class Evidence(Record, frozen=True):
    """What a process was doing. Empty or None: it cannot be read."""

    id: ProcId
    program: str  # name of what runs, without arguments: those may hold secrets
    state: str  # letter of proc_pid_stat(5)
    wchan: str  # kernel function that it waits in
    syscall: str  # "recvfrom on 5, tcp to 10.0.0.3:5432"
    stack: tuple[str, ...]  # of the kernel, innermost first; root only
    cpu_seconds: float
    threads: int
    thread_states: tuple[tuple[str, int], ...]  # (state and where it waits, how many), most first
    children: tuple[tuple[int, str, str], ...]  # (pid, name, state), sorted
    descriptors: int | None
    descriptor_kinds: tuple[tuple[str, int], ...]  # (file, socket, pipe, ..., how many), most first
    descriptor_targets: tuple[tuple[str, int], ...]  # (path or other name, how many), most first
    descriptor_limit: int | None
    memory: tuple[tuple[str, int], ...]  # (anonymous, files, shared, swapped, heap), bytes
    mappings: tuple[tuple[str, int], ...]  # largest address ranges, bytes


def look(process: ProcId, proc: Path = Path("/proc")) -> Evidence | None:
    """The snapshot; None if the process is gone, its pid is reused, or it cannot be read now."""
    place = proc / str(process.pid)
    pid = process.pid
    seen = _seen(process.pid, proc)
    if seen is None or seen.id != process:
        return None
    fields = _stat(place)
    if len(fields) < 20:
        return None  # ended meanwhile
    targets = _targets(place)
    held = Counter((targets or {}).values())  # a process that leaks descriptors has many of one file
    states, children = _tasks(place)
    return Evidence(
        id=process,
        program=seen.identity.program,
        state=fields[0].decode("ascii"),
        wchan=_wchan(place, pid),
        syscall=_syscall(place, pid, targets),
        stack=_stack(place),
        cpu_seconds=(int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
        threads=int(fields[17]),
        thread_states=states,
        children=tuple(_child(proc, pid) for pid in children),
        descriptors=None if targets is None else len(targets),
        descriptor_kinds=_named(_kind, held),
        descriptor_targets=_named(_what, held)[:TARGETS],
        descriptor_limit=_limit(place),
        memory=_memory(place),
        mappings=_mappings(place),
    )


def _read(path: Path, most: int = 64 << 10) -> bytes:
    """At most `most` bytes of a file of /proc; nothing if it cannot be read."""
    try:
        with path.open("rb", buffering=0) as file:
            data = bytearray()
            while len(data) < most and (chunk := file.read(min(64 << 10, most - len(data)))):
                data += chunk
            return bytes(data)
    except OSError:
        return b""


def _wchan(place: Path, tid: int) -> str:
    try:
        name = printable(door.wchan(str(place), tid).strip())
    except OSError:
        return ""
    return "" if name == "0" else name[:WCHAN]


def _stack(place: Path) -> tuple[str, ...]:
    lines = _read(place / "stack").decode("ascii", "replace").splitlines()[:FRAMES]
    return tuple(printable(line.partition("] ")[2] or line)[:NAME] for line in lines)


def _syscall(place: Path, tid: int, targets: dict[int, str] | None) -> str:
    """The system call that the first thread is in, and its target."""
    try:
        words = door.call(str(place), tid).split()
    except OSError:
        return ""
    if not words or words[0] == b"running":
        return "" if not words else "none: running"
    number = int(words[0])
    if number < 0:
        return "none: waiting outside of a system call (a page fault)"
    name = NUMBERS.get(platform.machine(), {}).get(number, f"system call {number}")
    if name not in ON_DESCRIPTOR or len(words) < 2:
        return name
    descriptor = int(words[1], 16) & 0xFFFF_FFFF
    target = (targets or {}).get(descriptor, "")
    return f"{name} on descriptor {descriptor}" + (f", {_peer(place, target) or printable(target)[:CALL_TARGET]}" if target else "")


def _peer(place: Path, target: str) -> str:
    """The other end of a TCP connection, "" for anything else."""
    if not target.startswith("socket:["):
        return ""
    inode = target[8:-1].encode()
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in _read(place / "net" / name, NET_BYTES).splitlines()[1:]:
            words = line.split()
            if len(words) > 9 and words[9] == inode:
                address, _, port = words[2].decode("ascii").partition(":")
                packed = bytes.fromhex(address)  # words of 32 bits in the machine's order
                swapped = b"".join(struct.pack("!I", word) for word in struct.unpack(f"={len(packed) // 4}I", packed))
                peer = f"{socket.inet_ntop(family, swapped)} port {int(port, 16)}"
                return "a listening TCP socket" if words[3] == b"0A" else f"TCP to {peer}"
    return ""


def _targets(place: Path) -> dict[int, str] | None:
    """What each descriptor leads to; None if that may not be read."""
    try:
        return {descriptor: link for descriptor, link, _ in door.links(str(place), DESCRIPTORS).links}
    except OSError:
        return None


def _kind(target: str) -> str:
    if target.startswith("/"):
        return "deleted file" if target.endswith(" (deleted)") else "device" if target.startswith("/dev/") else "file"
    return printable(target.partition(":")[0])[:KIND]


def _what(target: str) -> str:
    """The name of a target in the snapshot: anonymous targets go by their kind, because each has its own number."""
    if target.startswith("anon_inode:"):
        return printable(target)[:NAME]
    return printable(target)[:NAME] if target.startswith("/") else f"{_kind(target)}s"


def _named(name: Callable[[str], str], held: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """How many there are by name, most first."""
    counts: Counter[str] = Counter()
    for target, many in held.items():
        counts[name(target)] += many
    return _sorted(counts)


def _sorted(counts: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """The counts, most first."""
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _tasks(place: Path) -> tuple[tuple[tuple[str, int], ...], list[int]]:
    """(threads by state and place, children)."""
    found, children = list[str](), list[int]()
    try:
        names = sorted(os.listdir(place / "task"), key=int)[:THREADS]
    except (OSError, ValueError):
        return (), []
    for name in names:
        task = place / "task" / name
        fields, where = _stat(task), _wchan(place, int(name))
        if not fields:
            continue  # ended meanwhile
        state = fields[0].decode("ascii")
        found.append(f"{state} in {where}" if where else state)
        if len(children) < CHILDREN:
            children += [int(pid) for pid in _read(task / "children").split()]
    return _sorted(Counter(found))[:TARGETS], sorted(children)[:CHILDREN]


def _child(proc: Path, pid: int) -> tuple[int, str, str]:
    seen, fields = _seen(pid, proc), _stat(proc / str(pid))
    return pid, "" if seen is None else seen.identity.program, fields[0].decode("ascii") if fields else "X"


def _seen(pid: int, proc: Path) -> Seen | None:
    try:
        return see(pid, proc)
    except OSError:  # not ours to see, or no descriptor is free: the snapshot leaves it out
        return None


def _stat(place: Path) -> list[bytes]:
    """Fields of stat from the state on; a name may hold blanks and parentheses. Empty if the task is gone."""
    return _read(place / "stat").rpartition(b")")[2].split()


def _limit(place: Path) -> int | None:
    for line in _read(place / "limits").splitlines():
        if line.startswith(b"Max open files"):
            soft = line.split()[3]
            return int(soft) if soft.isdigit() else None
    return None


def _memory(place: Path) -> tuple[tuple[str, int], ...]:
    names = {b"RssAnon": "anonymous", b"RssFile": "files", b"RssShmem": "shared", b"VmSwap": "swapped", b"VmData": "data segment"}
    found = []
    for line in _read(place / "status").splitlines():
        name, _, value = line.partition(b":")
        if name in names:
            found.append((names[name], int(value.split()[0]) << 10))
    return tuple(found)


def _mappings(place: Path) -> tuple[tuple[str, int], ...]:
    """The largest address ranges, added up by name."""
    try:
        found = door.sizes(str(place))
    except OSError:
        return ()
    return tuple((printable(name)[:NAME] or "anonymous", size) for name, size in found[:MAPPINGS])
