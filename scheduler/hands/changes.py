"""The nouns of changing: what a change is, how far it has got, and what people call it. Pure.

The ledger keeps changes, the actuator makes and undoes them, `explain/` shows them. Must not know how they are kept or made.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from ...models.identity import ProcId
from ...models.lean import NamedTuple
from .fences import parts_of
from .places import (
    AutogroupPlace,
    Cgroup,
    Control,
    FencePlace,
    Knob,
    KnobPlace,
    PoolPlace,
    Subject,
    SubjectPlace,
    ThreadPlace,
    Value,
    cpu_list,
    process_of,
)


class EntryStatus(StrEnum):
    """How far a change has got. The first two are open: undo examines them."""

    INTENT = "intent"  # it may have been made or not
    DONE = "done"  # made and read back
    UNDONE = "undone"  # restored
    FOREIGN = "foreign"  # somebody else changed the value after us: it is never touched again
    GONE = "gone"  # the target no longer exists, or the machine was rebooted
    FAILED = "failed"  # the kernel or the pool refused: nothing was changed


OPEN = frozenset({EntryStatus.INTENT, EntryStatus.DONE})
"""Statuses of a change that may be in force."""


class Entry(NamedTuple):
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
        """The process that was changed, or through which the change was made; None: a cgroup."""
        return process_of(self.knob.on)

    @property
    def subject(self) -> Subject:
        """The subject that this changes."""
        return subject_of(self.knob)


Chain = tuple[Entry, ...]
"""The open entries of one knob, oldest first: never empty."""


def subject_of(knob: Knob) -> Subject:
    """The subject that this knob belongs to."""
    on = knob.on
    return Subject(knob.control, on.process if isinstance(on, ThreadPlace) else on)


def original(chain: Chain) -> Value:
    """The value before our first change."""
    return chain[-1].original


def newest(chains: Mapping[Knob, Chain]) -> Entry:
    """The latest change of a subject; `chains` are all chains of it."""
    return max((chain[-1] for chain in chains.values()), key=lambda entry: entry.id)


def believed(chain: Chain) -> tuple[Value, ...]:
    """The values that the knob may have if only nicety changed it, the likeliest first.

    These are the value of the newest change that is known to be done, and of later ones that a crash left uncertain. If none is
    done, the value before the first change is added; it is not the original if the process inherited it from a changed one.
    """
    values: list[Value] = []
    for entry in reversed(chain):
        values.append(entry.new)
        if entry.status is EntryStatus.DONE:
            return tuple(values)
    return (*values, chain[0].old)


def ids_of(chain: Chain) -> list[int]:
    """The ids of its entries."""
    return [entry.id for entry in chain]


def name_of(control: Control, on: SubjectPlace | KnobPlace) -> str:
    """What is changed, for people."""
    match on:
        case ThreadPlace(process=process):
            return f"{control} of pid {process.pid}"
        case FencePlace(key=key, process=process):
            made = "; ".join(f"{file} {value}" for part in parts_of(key) for file, value in part.files.items())
            return f"{control} of pid {process.pid} ({made})"
        case Cgroup(path=name) | AutogroupPlace(name=name) | PoolPlace(name=name):
            return f"{control} of {name}"
        case ProcId(pid=pid):
            return f"{control} of pid {pid}"


def shown(value: Value) -> str:
    """A value for people: 5, or CPUs 0-3,6."""
    return str(value) if isinstance(value, int) else f"CPUs {cpu_list(value)}"
