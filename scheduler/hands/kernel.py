"""What the hands need from the world, as protocols. Pure: only types.

`knobs/control.py` is the real kernel, `scheduler/testing/` has a fake one; the contract suite in `tests/contracts` runs on both.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager

from ...models.identity import ProcId
from ...models.lean import NamedTuple, Protocol
from .faults import Trouble
from .fences import Limits
from .pids import Pids
from .places import Cgroup, Control, Knob, ThreadId, Value


class Clock(Protocol):
    """Time as an object: `daemon.py` gets the real one, tests a fake that jumps."""

    def monotonic(self) -> int:
        """ns since an arbitrary start; never steps back."""

    def wall(self) -> int:
        """ns since 1970"""

    def sleep_until(self, at: int) -> None:
        """Return when `monotonic()` has reached `at`, or earlier on a signal."""


class Kin(NamedTuple):
    """Where a process stands among the others."""

    id: ProcId
    parent: int  # pid
    session: int
    group: int  # process group


class Who(NamedTuple):
    """What a process is now, whatever it was when something was decided about it."""

    program: str  # `comm`
    user: int  # real user id
    rights: int  # effective user id
    kernel: bool  # a thread of the kernel


class Reach:
    """The processes to which some may have passed values on, rather too many than too few: a scan need not keep the others. One is
    within if it started no earlier than `since` (clock ticks since boot), and is in one of the sessions or process groups, or has
    the number of one, or its parent is one of `pids`, or is within, or has not been seen."""

    def __init__(self, since: int, pids: Iterable[int], sessions: Iterable[int | None], groups: Iterable[int | None]) -> None:
        self.since = since
        self._sessions, self._groups = frozenset(sessions), frozenset(groups)
        self._pids, self._named = set(pids), self._sessions | self._groups

    def has(self, pid: int, parent: int, session: int, group: int, seen: Pids) -> bool:
        """Whether this process, which started since then, is within. `seen`: those that this was asked of, and those too old."""
        found = parent in self._pids or session in self._sessions or group in self._groups
        if found or pid in self._named or parent not in seen:
            self._pids.add(pid)
            return True
        return False


class Scan(NamedTuple):
    """All processes at one time."""

    kin: tuple[Kin, ...]  # sorted by pid
    unread: Trouble | None  # why a present process could not be read: then one that is not in `kin` need not be gone


class Kernel(Protocol):
    """The knobs of the kernel. Never raises for a target: what is wrong with it is a `Trouble`."""

    def boot_id(self) -> str:
        """The id of this boot: nothing that was set in another boot still exists."""

    def uptime_ticks(self) -> int:
        """The present time in clock ticks since boot, like `start_ticks`."""

    def itself(self) -> ProcId:
        """The calling process. Raises OSError."""

    def forbidden(self, control: Control) -> str:
        """Why a change of this control could not be restored with our rights; "" if it could."""

    def kin(self, known: Pids | None = None, reach: Reach | None = None) -> Scan:
        """All processes that we may see, except those with these pids, to which it adds those that it has seen. `reach`: only
        processes within it, and their parents, known or not."""

    def kin_of(self, process: ProcId) -> Kin | Trouble:
        """Where this process stands among the others."""

    def who(self, process: ProcId) -> Who | Trouble:
        """What this process is."""

    def inside(self, cgroup: Cgroup) -> tuple[ProcId, ...] | Trouble:
        """The processes in a cgroup and in those below it."""

    def threads(self, process: ProcId) -> tuple[ThreadId, ...] | Trouble:
        """Living threads, sorted; at least one."""

    def user_time(self, process: ProcId, thread: ThreadId) -> int | Trouble | None:
        """CPU time in user mode so far, ns, of a thread that runs, wants to run or cannot be interrupted: it may be inside fork(2).
        None: it sleeps or is gone; Trouble: unknown."""

    def autogroup(self, process: ProcId) -> str | Trouble:
        """The key of the autogroup that the process is in."""

    def fence(self, process: ProcId, limits: Limits) -> str | Trouble:
        """The key of a fence that could be made for this process now, see `fences.Part`. Changes nothing. The
        trouble is UNCHANGED if the limits are only a weight and the process is in a fence already."""

    def read(self, knob: Knob) -> Value | Trouble:
        """The present value."""

    def write(self, knob: Knob, expected: Value, value: Value) -> Trouble | None:
        """Set `value` if the thread is still the same and still has the value `expected`, as `read` returned it. None: it was set;
        only `read` shows whether it stayed."""

    def visible(self, knob: Knob, value: Value) -> Value | Trouble:
        """What `read` gives after `value` was set: a cpuset hides CPUs of an affinity, and may have changed since. Never
        VANISHED."""

    def lasting(self, knob: Knob, value: Value) -> Value | Trouble:
        """What to write later to restore `value` for good. An affinity to all CPUs that the cpuset has now becomes all possible
        CPUs: else the thread would not follow when its cpuset grows again. Never VANISHED."""

    def reserve(self) -> AbstractContextManager[None]:
        """Frees the descriptors reserved for undo inside the `with` block: restores then work even if all others are in use."""
