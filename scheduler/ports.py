"""The ports: what the daemon needs from the world, as protocols. Each has a real implementation and a fake in `testing/`.

Pure: only types. Contract suites in `tests/contracts` run on fake and real alike.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from ..models.anomaly.waitgraph import WaitSnapshot
from ..models.identity import ProcId
from ..models.records import PoolSample, Snapshot
from .decision import Decision, Group, Outcome
from .hands.book import Book
from .hands.changes import EntryStatus
from .hands.faults import Status, Trouble
from .hands.looks import Order
from .hands.places import Control, PoolPlace, Subject
from .hands.tally import Done, Note


class Source(Protocol):
    """Reads the machine."""

    slow_every: int  # ticks between reads of what is expensive, of processes in no pool; may be changed

    def read(self, at: int, wall: int, pools: tuple[PoolSample, ...], between: Callable[[], None] | None = None) -> Snapshot:
        """Everything at this instant. Processes that vanish while being read are left out; never raises for one process.

        `between` is called repeatedly meanwhile, for work that must not wait until everything is read. Its exceptions pass
        through."""
        ...

    def close(self) -> None:
        """Close all descriptors."""
        ...


class Hands(Protocol):
    """What changes values in the kernel, and puts them back. In this process (`hands.own`), or in another (`act.hands_apart`).

    All but `recover`, `open` and `forbidden` need an open ledger. GoneError is raised if they are another process that has ended.
    """

    book: Book  # what is in force, to be read
    gone: str  # why they cannot be asked any more, "" while they can be

    def recover(self) -> tuple[tuple[Note, ...], tuple[Done, ...]]:
        """Put back what a dead daemon left changed, pools excepted: (what is to be said of the ledger, what was put back). Raises
        LedgerError."""
        ...

    def open(self) -> tuple[Note, ...]:
        """Open the ledger if it is not: (what is to be said of it). Raises LedgerError if it cannot be used."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether the ledger is open."""
        ...

    @property
    def trouble(self) -> str:
        """Why the last write of the ledger failed, "" if it succeeded or is not needed."""
        ...

    def forbidden(self, control: Control) -> str:
        """See `hands.kernel.Kernel`."""
        ...

    def change(self, orders: Sequence[Order]) -> tuple[Done, ...]:
        """Carry these out, within the limits of the hands; one result for each, in order. Never raises for a target."""
        ...

    def put_back(self, subjects: Sequence[Subject]) -> dict[Subject, Done]:
        """Restore these at once; what of them is in force has a result."""
        ...

    def sweep(self) -> tuple[Done, ...]:
        """Look for values that somebody else has changed; call it once a tick."""
        ...

    def undo(self, kept: Collection[Subject]) -> tuple[Done, ...]:
        """Restore all kernel values that are in force except `kept`, newest first. What could not be restored stays in force."""
        ...

    def resize(self, decision: str, target: str, pool: PoolPlace, first: int, old: int, new: int) -> int:
        """Record that a pool is about to be resized; returns the number of the entry. `first`: its size before our first change.
        Raises LedgerError if it cannot be recorded: then it must not be resized."""
        ...

    def settle(self, statuses: Mapping[int, EntryStatus]) -> None:
        """Record what became of entries of pools, by number. Never raises for the ledger."""
        ...

    def close(self) -> None:
        """Close the ledger."""
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
