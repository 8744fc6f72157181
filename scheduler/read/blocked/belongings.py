"""Reads what a process has that others may wait for (open pipes and sockets, file locks, shared memory), and says whether it can
help.

Must not know who asks, or whether the process proceeds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ....models.identity import ProcId
from .. import door
from ..holders import Area, FileLock, shared_areas
from .file_locks import locks_in
from .records import START, Ask, Is, Maps, Opens, Query

DESCRIPTORS = 4096
"""Descriptors above which a process may have anything open. Chosen: reading that many takes 16 ms."""


class Belongings:
    """Keeps what processes have. A process that may have run is read again."""

    def __init__(self, proc: str, own: Collection[int] = ()) -> None:
        """`own`: pids of nicety itself, which has nothing that others wait for, but more open than is read."""
        self._proc = proc
        self._own = own
        self._query = START
        self._links: dict[ProcId, tuple[int, dict[str, list[int]] | None]] = {}  # by version; None: too many
        self._maps: dict[ProcId, tuple[int, tuple[Area, ...]]] = {}  # by version
        self._locks: dict[ProcId, frozenset[FileLock]] = {}  # of this look
        self._parents: set[int] = set()  # of this look: pids of the parents of the examined processes

    def begin(self, query: Query) -> None:
        """A new look."""
        self._query = query
        self._locks.clear()
        self._parents.clear()
        for known in (self._links, self._maps):
            for process in [process for process in known if process not in query.still]:
                del known[process]

    def has_child(self, pid: int) -> None:
        """A child of this process was examined."""
        if pid != 1:  # init passes on nothing that its children share
            self._parents.add(pid)

    def answers(self, process: ProcId, ask: Ask) -> bool:
        """Whether a process can help in this way. A process that may not be read counts only if it is a parent: it may have what
        its children have."""
        if isinstance(ask, Is):
            return process in ask.processes
        if isinstance(ask, Maps):
            return process not in self._query.aloof and any(area.place == ask.place for area in self.areas(process))
        if process.pid in self._own:
            return False
        links = self._descriptors(process)
        if links is None:
            return True
        base = f"{self._proc}/{process.pid}"
        if isinstance(ask, Opens):
            return any(_mode(base, fd) & ask.mode == ask.mode for fd in links.get(ask.link, ()))
        return ask.lock in self._held(process, links)

    def areas(self, process: ProcId) -> tuple[Area, ...]:
        """Its shared memory; () if it is gone or not ours to see."""
        version = self._query.version(process)
        known = self._maps.get(process)
        if known is not None and known[0] == version:
            return known[1]
        try:
            areas = shared_areas(f"{self._proc}/{process.pid}")
        except OSError:
            areas = ()
        self._maps[process] = version, areas
        return areas

    def forget(self, process: ProcId) -> None:
        """Read it again at the next question, unless it stands still."""
        if process not in self._query.still:
            self._links.pop(process, None)
            self._maps.pop(process, None)

    def rest(self) -> None:
        """Release what was kept for the next look."""
        self._links.clear()
        self._maps.clear()

    def _descriptors(self, process: ProcId) -> dict[str, list[int]] | None:
        """Descriptors by the text of their links; None: it may have anything open."""
        version = self._query.version(process)
        known = self._links.get(process)
        if known is not None and known[0] == version:
            return known[1]
        links: dict[str, list[int]] | None
        try:
            found = door.links(f"{self._proc}/{process.pid}", DESCRIPTORS, whole=True, known=process)
            held: dict[str, list[int]] = {}
            for fd, link, _ in found.links:
                held.setdefault(link, []).append(fd)
            links = None if found.cut else held
        except PermissionError:
            links = None if process.pid in self._parents else {}
        except OSError:
            links = {}
        self._links[process] = version, links
        return links

    def _held(self, process: ProcId, links: Mapping[str, Sequence[int]]) -> frozenset[FileLock]:
        """Locks on the files that it has open."""
        held = self._locks.get(process)
        if held is None:
            files = [fd for link, fds in links.items() if link.startswith("/") and not link.startswith("/dev/") for fd in fds]
            try:
                infos = door.fdinfos(f"{self._proc}/{process.pid}", files) if files else []
            except OSError:
                infos = []
            held = self._locks[process] = frozenset(lock for info in infos for lock in locks_in(info))
        return held


def _mode(process: str, descriptor: int) -> int:
    """How a descriptor was opened: the owner's bits of its link, proc_pid_fd(5). 0 (unreadable) matches only a socket's mode."""
    try:
        return door.mode(process, descriptor)
    except OSError:
        return 0
