"""The nouns of changing: what a change is, how far it has come, and what people call it. Pure.

The ledger keeps changes, the actuator makes and undoes them, `explain/` shows them. Must not know how they are kept or made.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

import msgspec

from ..models.records import ProcId
from .decision import PLACES, Control, check_place, cpu_list
from .fences import parts_of
from .places import (
    AutogroupPlace,
    CgroupPlace,
    FencePlace,
    Place,
    PoolPlace,
    ProcessPlace,
    SessionPlace,
    SubjectPlace,
    ThreadPlace,
    process_of,
)
from .ports import Knob, Value

INHERITED = frozenset(control for control, kinds in PLACES.items() if kinds.knob is ThreadPlace)
"""Per-thread controls, which fork(2) and clone(2) copy. An autogroup, a cgroup and a pool have one value for all their members."""


class EntryStatus(StrEnum):
    """How far a change has come. The first two are open: undo examines them."""

    INTENT = "intent"  # may or may not have happened
    DONE = "done"  # made and read back
    UNDONE = "undone"  # restored
    FOREIGN = "foreign"  # somebody else changed the value after us: never touched again
    GONE = "gone"  # the target no longer exists, or the machine was rebooted
    FAILED = "failed"  # the kernel or the pool refused: nothing was changed


OPEN = frozenset({EntryStatus.INTENT, EntryStatus.DONE})


class Subject(msgspec.Struct, frozen=True):
    """What is changed and restored as one: a control of a process with all its threads, of an autogroup, of a cgroup, a fence or
    the size of a pool. Raises ValueError for a control of another kind of place."""

    control: Control
    on: SubjectPlace

    def __post_init__(self) -> None:
        check_place(self.control, self.on, PLACES[self.control].subject)


class Demotion(NamedTuple):
    """A change in force that makes something slower."""

    subject: Subject
    processes: tuple[ProcId, ...]  # that it slows, as far as known


class Entry(msgspec.Struct, frozen=True):
    """One change of one value."""

    id: int  # 0 until `intend` has given one
    boot_id: str
    decision: str  # Decision.id
    target: str  # Decision.target
    wall: int  # ns since 1970, for people only
    knob: Knob
    session: int | None  # of the process when its value was changed: used to find children that inherited
    group: int | None  # process group, likewise
    since: int  # uptime in clock ticks before the change: threads that inherited started later
    original: Value  # before our first change
    old: Value  # before this change
    new: Value
    status: EntryStatus

    @property
    def control(self) -> Control:
        """What was changed."""
        return self.knob.control

    @property
    def process(self) -> ProcId | None:
        """The process that the change is of, or that it was made through; None: a cgroup."""
        return process_of(self.knob.on)

    @property
    def subject(self) -> Subject:
        """What this changes, as one."""
        return subject_of(self.knob)


Chain = tuple[Entry, ...]
"""The open entries of one knob, oldest first: never empty."""


def subject_of(knob: Knob) -> Subject:
    """The subject that this knob belongs to."""
    on = knob.on
    return Subject(knob.control, ProcessPlace(on.process) if isinstance(on, ThreadPlace) else on)


def original(chain: Chain) -> Value:
    """The value before our first change."""
    return chain[-1].original


def newest(chains: Mapping[Knob, Chain]) -> Entry:
    """The latest change of a subject; `chains` are all that it has."""
    return max((chain[-1] for chain in chains.values()), key=lambda entry: entry.id)


def believed(chain: Chain) -> tuple[Value, ...]:
    """The values that the knob may have if nobody but us changed it, likeliest first.

    The newest change that is known to be done, and later ones that a crash left uncertain; with none done, also the value as it was
    found, which is not the original if it was inherited from us.
    """
    values: list[Value] = []
    for entry in reversed(chain):
        values.append(entry.new)
        if entry.status is EntryStatus.DONE:
            return tuple(values)
    return (*values, chain[0].old)


def leads(knob: Knob) -> ProcId | None:
    """The process whose first thread this knob is of: what that one forks and spawns inherits the value. None: any other knob."""
    on = knob.on
    return on.process if isinstance(on, ThreadPlace) and on.thread == tuple(on.process) else None


def ids_of(chain: Chain) -> list[int]:
    """The ids of its entries."""
    return [entry.id for entry in chain]


def name_of(control: Control, on: Place) -> str:
    """What is changed, for people."""
    match on:
        case ProcessPlace(id=process) | ThreadPlace(process=process) | SessionPlace(through=process):
            return f"{control} of pid {process.pid}"
        case FencePlace(key=key, process=process):
            made = "; ".join(f"{file} {value}" for part in parts_of(key) for file, value in part.files.items())
            return f"{control} of pid {process.pid} ({made})"
        case CgroupPlace(path=name) | AutogroupPlace(name=name) | PoolPlace(name=name):
            return f"{control} of {name}"


def shown(value: Value) -> str:
    """5, or CPUs 0-3,6."""
    return str(value) if isinstance(value, int) else f"CPUs {cpu_list(value)}"
