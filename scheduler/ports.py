"""The ports: what the daemon needs from the world, as protocols. Each has a real implementation and a fake in `testing/`.

Pure: only types. Contract suites in `tests/contracts` run on fake and real alike.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import msgspec

from ..models.anomaly.waitgraph import WaitSnapshot
from ..models.records import PoolSample, ProcId, Snapshot
from .decision import PLACES, Control, Decision, Group, Outcome, Status, check_place
from .fences import Limits
from .places import KnobPlace, ThreadId


class Source(Protocol):
    """Reads the machine."""

    def read(self, at: int, wall: int, pools: tuple[PoolSample, ...], between: Callable[[], None] | None = None) -> Snapshot:
        """Everything at this instant. Processes that vanish while being read are left out; never raises for one process.

        `between` is called repeatedly meanwhile, for work that must not wait until everything is read. Its exceptions pass
        through."""
        ...

    def close(self) -> None:
        """Close all descriptors."""
        ...


class Actuator(Protocol):
    """Carries decisions out. The observing actuator is another implementation, not a flag."""

    mode: str  # "observe" or "act"

    def apply(self, decisions: Sequence[Decision]) -> tuple[Outcome, ...]:
        """One outcome per decision, in order. Never raises for a target that is gone or refuses."""
        ...

    def settle(self) -> tuple[Outcome, ...]:
        """Outcomes of earlier decisions that were not complete (pool sizes), and of changes by others seen meanwhile."""
        ...

    def undo(self) -> tuple[Outcome, ...]:
        """Restore everything, the newest change first; leave what somebody else changed. Idempotent."""
        ...

    def release(self, pools: Collection[str]) -> tuple[Outcome, ...]:
        """Restore the sizes of these pools because nicety releases them; does nothing for those whose size it has not changed."""
        ...

    def limit(self, starve_seconds: float, floor: float) -> None:
        """Set what counts as starving from now on: `priority.starve_seconds` and `priority.floor` of the configuration."""
        ...

    def relieve(self, groups: Sequence[Group]) -> float | None:
        """Called between two ticks: restore a demotion at once if it starves a process or keeps one waiting for a lock. `groups`:
        those of the last tick. The outcomes come with the next `settle`. Returns seconds until the next call is due; None: nothing
        is demoted, so no call is needed. Never raises for a target."""
        ...


class PoolAdapter(Protocol):
    """A resizable set of workers. Requests return at once; their results are observed in later samples."""

    name: str

    def probe(self) -> None:
        """Sample busy workers and queue, cheaply. Called several times a tick; the means go into the next `read`. The adapter also
        does its upkeep here (start, reap, next paced signal). Never blocks, never raises."""
        ...

    def read(self) -> PoolSample:
        """The sample that the probes since the last read give."""
        ...

    def resize(self, size: int) -> tuple[Status, str]:
        """Request a size. Status APPLIED means the request was taken, not that the workers are there. Shrinking drains."""
        ...

    def recycle(self, worker: ProcId) -> tuple[Status, str]:
        """Drain this worker and start another in its place."""
        ...

    def close(self) -> None:
        """Release the pool: a pool that nicety started is drained and stopped, a foreign one is left as it is."""
        ...


class Clock(Protocol):
    """Time as an object: `daemon.py` gets the real one, tests a fake that jumps."""

    def monotonic(self) -> int:
        """ns since an arbitrary start; never steps back."""
        ...

    def wall(self) -> int:
        """ns since 1970"""
        ...

    def sleep_until(self, at: int) -> None:
        """Return when `monotonic()` has reached `at`, or earlier on a signal."""
        ...


Value = int | tuple[int, ...]
"""A control's value: for AFFINITY a sorted tuple of CPU numbers, else an int."""


def number(value: Value) -> int:
    """The value of a control that has numbers. Raises TypeError for CPU numbers."""
    if isinstance(value, int):
        return value
    raise TypeError(f"{value} is a list of CPUs, not a number")


class Knob(msgspec.Struct, frozen=True):
    """One place in the kernel that holds one value of a control. Raises ValueError for a control of another kind of place."""

    control: Control
    on: KnobPlace

    def __post_init__(self) -> None:
        check_place(self.control, self.on, PLACES[self.control].knob)


class Kin(NamedTuple):
    """Where a process stands among the others."""

    id: ProcId
    parent: int  # pid
    session: int
    group: int  # process group


class Trouble(NamedTuple):
    """Why the kernel did not do what was asked: VANISHED, REFUSED, FOREIGN (not the expected value), BLOCKED, LATER or FAILED.

    Only VANISHED says that the target is gone: `faults.py`.
    """

    status: Status
    text: str  # cause and, if there is one, the fix


class Scan(NamedTuple):
    """All processes at one time."""

    kin: tuple[Kin, ...]  # sorted by pid
    unread: Trouble | None  # why a present process could not be read: then one that is not in `kin` need not be gone


class Kernel(Protocol):
    """The knobs of the kernel. Never raises for a target: what is wrong with it is a `Trouble`."""

    def boot_id(self) -> str:
        """The id of this boot: nothing that was set in another boot still exists."""
        ...

    def uptime_ticks(self) -> int:
        """The present time in clock ticks since boot, like `start_ticks`."""
        ...

    def itself(self) -> ProcId:
        """The calling process."""
        ...

    def forbidden(self, control: Control) -> str:
        """Why a change of this control could not be restored with our rights; "" if it could."""
        ...

    def kin(self, known: Container[int] = ()) -> Scan:
        """All processes that we may see, except those with these pids."""
        ...

    def kin_of(self, process: ProcId) -> Kin | Trouble:
        """Where this process stands among the others."""
        ...

    def threads(self, process: ProcId) -> tuple[ThreadId, ...] | Trouble:
        """Living threads, sorted; at least one."""
        ...

    def user_time(self, process: ProcId, thread: ThreadId) -> int | Trouble | None:
        """CPU time in user mode so far, ns, of a thread that runs, wants to run or cannot be interrupted: it may be inside fork(2).
        None: it sleeps or is gone; Trouble: unknown."""
        ...

    def autogroup(self, process: ProcId) -> str | Trouble:
        """The key of the autogroup that the process is in."""
        ...

    def fence(self, process: ProcId, limits: Limits) -> str | Trouble:
        """The key of a fence that could be made for this process now, see `fences.Part`. Changes nothing. The
        trouble is UNCHANGED if the limits are only a weight and the process is in a fence already."""
        ...

    def read(self, knob: Knob) -> Value | Trouble:
        """The present value."""
        ...

    def write(self, knob: Knob, expected: Value, value: Value) -> Trouble | None:
        """Set `value` if the thread is still the same and still has the value `expected`, as `read` returned it. None: it was set;
        only `read` shows whether it stayed."""
        ...

    def visible(self, knob: Knob, value: Value) -> Value | Trouble:
        """What `read` gives after `value` was set: a cpuset hides CPUs of an affinity, and may have changed since. Never
        VANISHED."""
        ...

    def lasting(self, knob: Knob, value: Value) -> Value | Trouble:
        """What to write later to restore `value` for good. An affinity to all CPUs that the cpuset has now becomes all possible
        CPUs: else the thread would not follow when its cpuset grows again. Never VANISHED."""
        ...

    def reserve(self) -> AbstractContextManager[None]:
        """Frees the descriptors reserved for undo inside the `with` block: restores then work even if all others are in use."""
        ...


class Wait(NamedTuple):
    """A thread that waits for a lock."""

    waiter: ProcId
    thread: int  # tid; 0: unknown which of its threads
    turn: int  # how often the thread got a CPU: unchanged during one wait
    lock: str  # a name for people, unchanged while it is the same lock
    holder: ProcId | None  # the process that holds it, if the kernel or the lock says so
    holder_thread: int  # tid of the thread that holds it; 0: unknown
    possible: tuple[ProcId, ...]  # processes that may hold it, if the holder is unknown


class Run(NamedTuple):
    """What a process does with the CPU."""

    runnable: bool  # a thread of it runs or waits for a CPU
    cpu: int  # ns so far, all threads


class Locks(Protocol):
    """Which process waits for which. Never raises for a process: what cannot be seen is left out."""

    def waits(self, demoted: Collection[ProcId], others: Sequence[ProcId]) -> tuple[Wait, ...]:
        """Waits seen now, of any process for a lock on a file, and of these processes for a lock in shared memory. One call need
        not see everything: a wait that lasts is seen by one of the next."""
        ...

    def rest(self) -> None:
        """Close what was kept open for the next call, because nothing is demoted any more."""
        ...

    def run(self, process: ProcId, thread: int = 0) -> Run | Trouble | None:
        """The present state of a process, or of one thread of it; None: it is gone."""
        ...

    def cgroups(self, process: ProcId) -> tuple[str, ...] | Trouble:
        """The cgroup paths of a process in all hierarchies, each once; empty: it is gone."""
        ...


class Waits(Protocol):
    """What blocked workers wait for, and which processes could end the wait. Never raises for a process: one that cannot be
    seen counts as making progress."""

    @property
    def trouble(self) -> str:
        """Why the last `look` saw nothing of some workers; "" if it saw all."""
        ...

    def look(
        self,
        still: Mapping[ProcId, int],
        workers: Sequence[ProcId],
        masters: Sequence[ProcId],
        aloof: Collection[ProcId],
        restless: Sequence[ProcId] = (),
    ) -> WaitSnapshot:
        """Which processes wait and for what: workers that have not run since some instant (`still`, monotonic ns), and the
        processes they wait for. `workers` and `masters` of all pools are checked first for whether they could end a wait. `aloof`:
        masters that share memory with their workers, but never post a semaphore of theirs. `restless`: workers with several threads
        that rarely run: one of their threads may also stand still. One call need not see everything: what lasts is seen by a later
        one."""
        ...

    def rest(self) -> None:
        """Release what was kept for the next `look`, because no worker stands still."""
        ...

    def close(self) -> None:
        """Close all descriptors."""
        ...
