"""The records of this folder: what a look is about, what a thread needs, what a process can be asked. Nothing is read here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from ....models.identity import ProcId
from ..holders import FileLock, Place


class Query(NamedTuple):
    """What a look is about, as `ports.Waits` is asked."""

    number: int  # of the look, from 1
    still: Mapping[ProcId, int]  # workers that have not run since some instant, monotonic ns
    near: Sequence[ProcId]  # masters and workers that are asked first whether they can help
    workers: Collection[ProcId]
    aloof: Collection[ProcId]  # masters that never post a semaphore of their workers

    def version(self, process: ProcId) -> int:
        """A number that stays the same while what was read of a process stays true: while it stands still, or for this look."""
        return self.still.get(process, -self.number)


START = Query(0, {}, (), frozenset(), frozenset())
"""Before the first look."""


# Questions to a process: can it help? They are equal only if their kind is: no two kinds have values of the same shape.


class Is(NamedTuple):
    """Is it one of these processes?"""

    processes: tuple[ProcId, ...]


class Opens(NamedTuple):
    """Does it have this open?"""

    link: str  # of a descriptor in /proc/PID/fd
    mode: int  # bits of stat(2) that the descriptor must have; 0: any


class Holds(NamedTuple):
    """Does a file that it has open hold this lock?"""

    lock: FileLock


class Maps(NamedTuple):
    """Does it share this memory?"""

    place: Place


Ask = Is | Opens | Holds | Maps


class Need(NamedTuple):
    """What a thread is blocked on."""

    what: str  # as in `Halt`
    asks: tuple[Ask, ...]  # a process that answers one of them can help
    owner: int | None = None  # as in `Halt`; given only if the single question is an `Is`
    named: bool = True  # as in `Halt`
    lock: bool = False  # as in `Halt`


class Seen:
    """A process as it was read in some look. `needs`: by tid; None for a thread that proceeds by itself."""

    __slots__ = ("look", "needs", "ticking")

    def __init__(self, look: int, needs: dict[int, Need | None], ticking: frozenset[int] = frozenset()) -> None:
        self.look = look
        self.needs = needs
        self.ticking = ticking  # threads that only the clock wakes

    @property
    def lively(self) -> bool:
        """Whether one of its threads proceeds by itself, or nothing is known of the process."""
        return not self.needs or None in self.needs.values()

    @property
    def ticks(self) -> bool:
        """Whether the clock alone wakes all its threads that proceed, and at least one other thread does not proceed."""
        return bool(self.ticking) and {tid for tid, need in self.needs.items() if need is None} == self.ticking < self.needs.keys()

    @property
    def locked(self) -> bool:
        """Whether one of its threads waits for a lock."""
        return any(need is not None and need.lock for need in self.needs.values())
