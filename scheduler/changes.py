"""The nouns of changing: what a change is, how far it has come, and what people call it. Pure.

The ledger keeps changes, the actuator makes and undoes them, `explain/` shows them. Must not know how they are kept or made.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

import msgspec

from ..models.records import ProcId
from .decision import Control, cpu_list
from .fences import parts_of
from .ports import Knob, ThreadId, Value

INHERITED = frozenset({Control.NICE, Control.AFFINITY, Control.POLICY, Control.SLICE})
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


class Subject(NamedTuple):
    """What a decision names: one control of a process with all its threads, of an autogroup, of a cgroup or of a pool."""

    control: Control
    process: ProcId | None
    key: str


class Entry(msgspec.Struct, frozen=True):
    """One change of one value."""

    id: int  # 0 until `intend` has given one
    boot_id: str
    decision: str  # Decision.id
    target: str  # Decision.target
    wall: int  # ns since 1970, for people only
    control: Control
    process: ProcId | None  # AUTOGROUP: the member it was set through; POOL_SIZE: the pool's master
    thread: ThreadId | None
    key: str  # cgroup path, autogroup or pool name; "" for a thread
    session: int | None  # of the process when its value was changed: used to find children that inherited
    group: int | None  # process group, likewise
    since: int  # uptime in clock ticks before the change: threads that inherited started later
    original: Value  # before our first change
    old: Value  # before this change
    new: Value
    status: EntryStatus

    @property
    def subject(self) -> Subject:
        """What this changes, as decisions name it."""
        return subject_of(self.knob)

    @property
    def knob(self) -> Knob:
        """The place in the kernel. Equal for equal places, whichever process an autogroup was set through."""
        return Knob(self.control, self.process, self.thread, self.key)


Chain = tuple[Entry, ...]
"""The open entries of one knob, oldest first: never empty."""


def subject_of(knob: Knob) -> Subject:
    """The subject that this knob belongs to."""
    return Subject(knob.control, None if knob.key else knob.process, knob.key)


def place(knob: Knob) -> Knob:
    """The knob without what does not identify it: an autogroup is the same through any member, a pool with any master."""
    return knob._replace(process=None) if knob.key else knob


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


def leads(knob: Knob) -> bool:
    """Whether this is an inherited control of the first thread of its process."""
    return knob.control in INHERITED and knob.process is not None and knob.thread == tuple(knob.process)


def ids_of(chain: Chain) -> list[int]:
    """The ids of its entries."""
    return [entry.id for entry in chain]


def as_int(value: Value) -> int:
    """The value of a control that has numbers."""
    assert isinstance(value, int)
    return value


def name_of_entry(entry: Entry) -> str:
    """What an entry changed, for people."""
    whose = entry.control in INHERITED or entry.control is Control.FENCE
    return name_of(entry.control, entry.process if whose else None, entry.key)


def name_of(control: Control, process: ProcId | None, key: str) -> str:
    """The name of a subject, for people. `key`: of a fence, "" until one is planned."""
    if control is Control.FENCE and key:
        made = "; ".join(f"{file} {value}" for part in parts_of(key) for file, value in part.files.items())
        return f"fence of pid {process.pid if process is not None else '?'} ({made})"
    return f"{control} of {f'pid {process.pid}' if process is not None else key}"


def shown(value: Value) -> str:
    """5, or CPUs 0-3,6."""
    return str(value) if isinstance(value, int) else f"CPUs {cpu_list(value)}"
