"""The nouns of finding: a process as the search sees it, the table of them, and a pool that was found. Must not know what kinds of
pools there are."""

from __future__ import annotations

import pwd
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from ....models.identity import ProcId
from ...printed import Part, Printed

Arguments = tuple[str, ...]
"""The argument list of a process; (): it is hidden, or the process is gone. A process that gave itself a title has one argument."""


class FindError(Exception):
    """A pool cannot be adopted; the text says why and what to do."""


class Process(NamedTuple):
    """What the search must know of every process."""

    id: ProcId
    parent: int  # pid
    uid: int
    unit: str  # systemd unit or container, "" if none
    program: str  # as in `Identity.program`


class Table:
    """The processes of a machine at one moment. `read` gives the arguments of a pid; each is asked for once, and only if needed."""

    def __init__(self, processes: Iterable[Process], read: Callable[[int], Arguments]) -> None:
        self.processes = sorted(processes)
        self._read = read
        self._arguments: dict[int, Arguments] = {}
        self._by_pid = {process.id.pid: process for process in self.processes}
        self._children = defaultdict[int, list[Process]](list)
        for process in self.processes:
            self._children[process.parent].append(process)

    def arguments(self, process: Process) -> Arguments:
        """The arguments of a process."""
        return self.arguments_of(process.id.pid)

    def arguments_of(self, pid: int) -> Arguments:
        """The arguments of the process with this pid."""
        if pid not in self._arguments:
            self._arguments[pid] = self._read(pid)
        return self._arguments[pid]

    def parent(self, process: Process) -> Process | None:
        """The parent; None if it is not in the table."""
        return self._by_pid.get(process.parent)

    def children(self, process: Process) -> list[Process]:
        """The children, by pid."""
        return self._children.get(process.id.pid, [])


class Key(NamedTuple):
    """A line of the block `[pools.NAME]`; `queue.KEY` stands in `[pools.NAME.queue]`."""

    name: str
    value: str | int | list[str]
    why: str = ""  # why it is so, for the comment


@dataclass(frozen=True, slots=True)
class Found:
    """A pool that runs here."""

    kind: str  # what runs it: "gunicorn", "rq"
    name: str  # of its block: the configuration's if it has one, else a free one
    master: ProcId | None  # None: its workers were started one by one
    workers: tuple[int, ...]  # pids
    uid: int
    reached: str  # by what nicety knows and resizes it, or what it is, in words
    missing: tuple[str, ...] = ()  # what is missing to size it, a sentence each, with what to do
    unsized: str = ""  # why it cannot be resized; "" if it can
    configured: bool = False  # the configuration has it
    keys: tuple[Key, ...] = ()  # the block; () if it cannot be resized
    before: str = ""  # what to do before the daemon may size it, "" if nothing

    @property
    def pid(self) -> int:
        """The pid that stands for it: its master's, or that of the first of its workers."""
        return self.workers[0] if self.master is None else self.master.pid

    @property
    def title(self) -> str:
        """What it is, for a log line: 'a gunicorn of 4 workers (pid 4711)'."""
        article = "an" if self.kind[0] in "aeio" or self.kind == "rq" else "a"
        count = len(self.workers)
        return f"{article} {self.kind} of {count} worker{'' if count == 1 else 's'} (pid {self.pid})"

    @property
    def worth_a_line(self) -> bool:
        """Whether people are told of it unasked: not of one worker that is all that it can have."""
        return not self.unsized or len(self.workers) > 1

    def record(self) -> FoundPool:
        """For --json."""
        return FoundPool(
            name=self.name,
            kind=self.kind,
            master=None if self.master is None else self.master.pid,
            workers=list(self.workers),
            user=user_name(self.uid),
            reached=self.reached,
            missing=list(self.missing),
            configured=self.configured,
            resizable=not self.unsized,
            reason=self.unsized,
        )


class FoundPool(Part, frozen=True):
    """A pool that runs here."""

    name: str  # of its block: that of the configuration if it has one, else a free one
    kind: str  # what runs it: gunicorn, rq, ...
    master: int | None  # pid; None: its workers were started one by one
    workers: list[int]  # pids
    user: str  # whose processes they are
    reached: str  # how nicety knows and resizes it
    missing: list[str]  # what is missing to size it, a sentence each
    configured: bool  # the configuration has it
    resizable: bool
    reason: str  # why it cannot be resized; "" if it can


class FoundPools(Printed, frozen=True, kw_only=True):
    """The pools of workers that run here."""

    pools: list[FoundPool]


def user_name(uid: int) -> str:
    """The name of a user; the number if nothing knows one."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
