"""Waits for a lock on a file, flock(2) or fcntl(2), and the locks that an open file holds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ....models.identity import ProcId
from .. import door
from ..holders import FileLock, file_locks, identify
from ..text import printable
from .records import Ask, Holds, Is, Need

_KINDS = {7: "POSIX", 38: "OFDLCK"}  # F_SETLKW, F_OFD_SETLKW of a 64-bit machine: include/uapi/asm-generic/fcntl.h
_WORDS = {"POSIX": "fcntl lock", "FLOCK": "flock", "OFDLCK": "open file lock"}  # kinds of /proc/locks, for people


class FileLocks:
    """Finds what a thread needs that waits for a file lock. Reads /proc/locks at most once a look: the kernel stops all locking
    meanwhile."""

    def __init__(self, proc: str) -> None:
        self._proc = proc
        self._pairs: list[tuple[FileLock, FileLock]] | None = None  # of this look: (lock that is held, request that waits for it)

    def begin(self) -> None:
        """A new look."""
        self._pairs = None

    def need(self, process: ProcId, name: str, args: Sequence[int]) -> Need | None:
        """What a thread of the process needs that is in this call. None: it does not wait for a lock, or the lock cannot be
        seen."""
        kind = "FLOCK" if name == "flock" else _KINDS.get(args[1])
        if kind is None:
            return None
        base = f"{self._proc}/{process.pid}"
        try:
            info = re.search(rb"^ino:\t(\d+)$", door.fdinfo(base, args[0]), re.MULTILINE)
            inode = int(info[1]) if info else door.file(base, args[0]).inode  # before 5.14
            link = door.link(base, f"fd/{args[0]}")
        except OSError:
            return None
        asks: list[Ask] = []
        for held, waits in self._read():
            if (waits.inode, waits.kind) != (inode, kind) or (kind != "OFDLCK" and waits.pid != process.pid):
                continue
            holder = identify(self._proc, held.pid) if held.kind == "POSIX" else None
            if held.kind == "POSIX" and holder is None:
                return None
            asks.append(Holds(held) if holder is None else Is((holder,)))
        return Need(f"{_WORDS[kind]} on {printable(link)} (inode {inode})", tuple(asks), lock=True) if asks else None

    def _read(self) -> list[tuple[FileLock, FileLock]]:
        if self._pairs is None:
            try:
                self._pairs = list(file_locks(self._proc))
            except OSError:
                self._pairs = []
        return self._pairs


def locks_in(info: bytes) -> Iterator[FileLock]:
    """Locks that an open file description holds, from the text of its file in /proc/PID/fdinfo: proc_pid_fdinfo(5)."""
    for line in info.decode("ascii", "replace").splitlines():
        if line.startswith("lock:"):
            kind, _, _, pid, where, *span = line.split()[2:]
            device, _, inode = where.rpartition(":")
            yield FileLock(kind, int(pid), device, int(inode), (span[0], span[1]), waits=False)
