"""Places: where a control is set. Each kind holds what is needed to find the place, and nothing else. Pure.

A decision names a process, a session or a cgroup. The kernel keeps the value in threads, in an autogroup, in a cgroup or in a
fence; a pool has its size. `decision.PLACES` says which kinds of place each control has."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from ..models.records import ProcId


class ThreadId(NamedTuple):
    """A thread: tid and start time in clock ticks since boot. The first thread of a process has the process's numbers."""

    tid: int
    start_ticks: int


class ProcessPlace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="process"):
    """A process with all its threads; for a fence, with all its children too."""

    id: ProcId


class SessionPlace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="session"):
    """The autogroup of a session, as a decision names it."""

    session: int
    through: ProcId  # a member of the session, through which the control is written


class CgroupPlace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="cgroup"):
    """A cgroup."""

    path: str  # in the cpu hierarchy


class ThreadPlace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="thread"):
    """One thread. Raises ValueError for tid 0: to the kernel it means the calling thread."""

    process: ProcId
    thread: ThreadId

    def __post_init__(self) -> None:
        if self.thread.tid <= 0:
            raise ValueError(f"tid {self.thread.tid} does not name a thread")


class AutogroupPlace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="autogroup"):
    """An autogroup, as the kernel names it. It is the same through any member.

    >>> AutogroupPlace("autogroup-7", ProcId(1, 1)) == AutogroupPlace("autogroup-7", ProcId(2, 2))
    True
    """

    name: str  # "autogroup-N", never reused within a boot
    through: ProcId  # a member to try first

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AutogroupPlace) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


class FencePlace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="fence"):
    """A fence, which may not exist yet."""

    key: str  # describes the whole fence: see `fences.parts_of`
    process: ProcId  # the process that it is made for


class PoolPlace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="pool"):
    """A pool. It is the same with any master."""

    name: str
    master: ProcId

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PoolPlace) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


DecisionPlace = ProcessPlace | SessionPlace | CgroupPlace
"""A place that a decision names."""

SubjectPlace = ProcessPlace | AutogroupPlace | CgroupPlace | FencePlace | PoolPlace
"""A place that is changed and restored as one."""

KnobPlace = ThreadPlace | AutogroupPlace | CgroupPlace | FencePlace | PoolPlace
"""A place that holds one value."""

Place = DecisionPlace | SubjectPlace | KnobPlace


def cgroup_of(place: Place) -> str | None:
    """The path of a cgroup; None: the place is not a cgroup."""
    return place.path if isinstance(place, CgroupPlace) else None


def process_of(place: Place) -> ProcId | None:
    """The process of a place, or the one through which it is found: the master of a pool, a member of a session. None: a cgroup."""
    match place:
        case ProcessPlace(id=process) | ThreadPlace(process=process) | FencePlace(process=process) | PoolPlace(master=process):
            return process
        case SessionPlace(through=process) | AutogroupPlace(through=process):
            return process
        case CgroupPlace():
            return None
