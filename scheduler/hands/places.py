"""Controls, and the places where they are set. Each kind of place holds what is needed to find it, and nothing else. Pure.

A decision names a process, a session or a cgroup (`scheduler/places.py`). The kernel keeps the value in threads, in an autogroup,
in a cgroup or in a fence; a pool has its size. `KINDS` says which kinds of place each control has.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from ...models.identity import ProcId
from ...models.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Self


class Control(StrEnum):
    """What can be changed. Comments give the value's type."""

    NICE = "nice"  # int -20..19, every thread of a process
    AFFINITY = "affinity"  # list of CPU numbers, every thread of a process
    POLICY = "policy"  # int SCHED_OTHER 0, SCHED_BATCH 3, SCHED_IDLE 5, every thread
    AUTOGROUP = "autogroup"  # int nice -20..19 of the session's autogroup, written through any member
    CPU_SHARES = "cpu.shares"  # int 2..262144, cgroup v1
    CPU_WEIGHT = "cpu.weight"  # int 1..10000, cgroup v2
    CPU_IDLE = "cpu.idle"  # int 0 or 1, both versions of cgroups
    SLICE = "slice"  # int ns 100_000..100_000_000 that a thread runs before it is asked to yield; 0: the kernel's default
    FENCE = "fence"  # four ints, `fences.Limits`: a cgroup below the process's own, for the process and its children
    POOL_SIZE = "pool.size"  # int, a pool's size: only in the ledger; decided by ResizePool


Value = int | tuple[int, ...]
"""A control's value: for AFFINITY a sorted tuple of CPU numbers, else an int."""


class ThreadId(NamedTuple):
    """A thread: tid and start time in clock ticks since boot. The first thread of a process has the process's numbers."""

    tid: int
    start_ticks: int


class ThreadPlace(NamedTuple):
    """One thread."""

    process: ProcId
    thread: ThreadId


class Cgroup(NamedTuple):
    """A cgroup."""

    path: str  # in the cpu hierarchy


class AutogroupPlace(NamedTuple):
    """An autogroup, as the kernel names it. It is the same through any member.

    >>> AutogroupPlace("autogroup-7", ProcId(1, 1)) == AutogroupPlace("autogroup-7", ProcId(2, 2))
    True
    """

    name: str  # "autogroup-N", never reused within a boot
    through: ProcId  # a member to try first

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AutogroupPlace) and self.name == other.name

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.name)


class FencePlace(NamedTuple):
    """A fence, which may not exist yet."""

    key: str  # describes the whole fence: see `fences.parts_of`
    process: ProcId  # the process that it is made for


class PoolPlace(NamedTuple):
    """A pool. It is the same with any master."""

    name: str
    master: ProcId

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PoolPlace) and self.name == other.name

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.name)


SubjectPlace = ProcId | AutogroupPlace | Cgroup | FencePlace | PoolPlace
"""A place that is changed and restored as one: a process stands for all its threads."""

KnobPlace = ThreadPlace | AutogroupPlace | Cgroup | FencePlace | PoolPlace
"""A place that holds one value."""


class Kinds(NamedTuple):
    """The kinds of place that a control has."""

    subject: type[SubjectPlace]  # that is changed and restored as one
    knob: type[KnobPlace]  # that holds one value


_OF_THREADS = Kinds(ProcId, ThreadPlace)
_OF_CGROUPS = Kinds(Cgroup, Cgroup)

KINDS = {
    Control.NICE: _OF_THREADS,
    Control.AFFINITY: _OF_THREADS,
    Control.POLICY: _OF_THREADS,
    Control.SLICE: _OF_THREADS,
    Control.AUTOGROUP: Kinds(AutogroupPlace, AutogroupPlace),
    Control.CPU_SHARES: _OF_CGROUPS,
    Control.CPU_WEIGHT: _OF_CGROUPS,
    Control.CPU_IDLE: _OF_CGROUPS,
    Control.FENCE: Kinds(FencePlace, FencePlace),
    Control.POOL_SIZE: Kinds(PoolPlace, PoolPlace),
}
"""The kinds of place of each control; others are refused."""

INHERITED = frozenset(control for control, kinds in KINDS.items() if kinds.knob is ThreadPlace)
"""Per-thread controls, which fork(2) and clone(2) copy. An autogroup, a cgroup and a pool have one value for all their members."""


class _Knob(NamedTuple):
    control: Control
    on: KnobPlace


class Knob(_Knob):
    """One place in the kernel that holds one value of a control. Raises ValueError for a control of another kind of place, and for
    tid 0: to the kernel it means the calling thread."""

    __slots__ = ()

    def __new__(cls, control: Control, on: KnobPlace) -> Self:
        """See the class."""
        check_place(control, on, KINDS[control].knob)
        if isinstance(on, ThreadPlace) and on.thread.tid <= 0:
            raise ValueError(f"tid {on.thread.tid} does not name a thread")
        return super().__new__(cls, control, on)


class _Subject(NamedTuple):
    control: Control
    on: SubjectPlace


class Subject(_Subject):
    """What is changed and restored as one: a control of a process with all its threads, of an autogroup, of a cgroup, a fence or
    the size of a pool. Raises ValueError for a control of another kind of place."""

    __slots__ = ()

    def __new__(cls, control: Control, on: SubjectPlace) -> Self:
        """See the class."""
        check_place(control, on, KINDS[control].subject)
        return super().__new__(cls, control, on)


def check_place(control: Control, place: object, kind: type[object]) -> None:
    """Raise ValueError if the place is not of this kind."""
    if not isinstance(place, kind):
        raise ValueError(f"{control} needs a {kind.__name__}, not a {type(place).__name__}")


def number(value: Value) -> int:
    """The value of a control that has numbers. Raises TypeError for CPU numbers."""
    if isinstance(value, int):
        return value
    raise TypeError(f"{value} is a list of CPUs, not a number")


def process_of(place: SubjectPlace | KnobPlace) -> ProcId | None:
    """The process of a place, or the one through which it is found: the master of a pool, a member of a session. None: a cgroup."""
    match place:
        case ProcId():
            return place
        case ThreadPlace(process=process) | FencePlace(process=process):
            return process
        case AutogroupPlace(through=process) | PoolPlace(master=process):
            return process
        case Cgroup():
            return None


def leads(knob: Knob) -> ProcId | None:
    """The process, if this knob belongs to its first thread: what that thread forks and spawns inherits the value. Else None."""
    on = knob.on
    return on.process if isinstance(on, ThreadPlace) and tuple(on.thread) == tuple(on.process) else None


def cpu_list(cpus: Iterable[int]) -> str:
    """CPU numbers as the kernel writes them.

    >>> cpu_list((0, 1, 2, 5))
    '0-2,5'
    """
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and cpu == runs[-1][-1] + 1:
            runs[-1].append(cpu)
        else:
            runs.append([cpu])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """CPU numbers of a list in the kernel's form, ascending.

    >>> parse_cpu_list("0-3,8,10-11")
    (0, 1, 2, 3, 8, 10, 11)
    """
    cpus: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(cpus))
