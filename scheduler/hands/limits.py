"""The limits of the hands: what they never change, whatever a policy decided.

An order is only ever for less: lower priority, less weight, fewer CPUs, another slice. Nothing gets more than it had before our
first change. Knows the kernel and the clock as ports. Must not know the ledger or decisions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from ...models.identity import ProcId
from ...models.lean import NamedTuple
from .faults import Status, Trouble, status_of
from .fences import Limits
from .kernel import Clock, Kernel
from .looks import Order
from .places import Cgroup, Control, PoolPlace, Value

LEAST_MEMORY = 16 << 20
"""Least bytes that a fence leaves to a process (chosen): with less it would only page."""

LEAST_CPU = 10
"""Least thousandths of a core that a fence leaves to a process (chosen)."""

OFTEN = 30
"""Times a minute that the same thing may be changed (chosen): a decision is followed by a cooldown of seconds."""

MOST_OPEN = 50_000
"""Most changes that may be open at once (chosen: four controls of 10,000 threads). It bounds memory and disk."""

OWN = "nicety-*"
"""What hands and sentries call themselves (`urgent.be_called`). They are never touched, if they have the rights of these hands."""

MINUTE_NS = 60_000_000_000

_SCHED_OTHER, _SCHED_BATCH, _SCHED_IDLE = 0, 3, 5  # each lowers a thread more than the one before: sched(7)
_VALUES = {
    Control.NICE: range(20),
    Control.AUTOGROUP: range(20),
    Control.POLICY: (_SCHED_OTHER, _SCHED_BATCH, _SCHED_IDLE),
    Control.CPU_SHARES: range(2, (1 << 18) + 1),
    Control.CPU_WEIGHT: range(1, 10_001),
    Control.CPU_IDLE: (0, 1),
    Control.SLICE: range(100_000_001),  # ns; the kernel's own limits are in `knobs/slices.py`
}
"""The values that may be set. None is real-time, and none is set that `favours` its process."""

_WEIGHTS = (Control.CPU_SHARES, Control.CPU_WEIGHT)


PROTECT = ("systemd*", "sshd*", "dbus-*", "login", "agetty", "Xorg", "gnome-shell")
"""Patterns of programs that are never touched unless the configuration has others."""


class Bounds(NamedTuple):
    """What the configuration adds to the fixed limits: `[guard]`."""

    protect: tuple[str, ...] = PROTECT  # patterns of programs that are never touched
    users: tuple[int, ...] = ()  # whose processes may be changed; (): everybody's
    values_per_minute: int = 20_000


NO_BOUNDS = Bounds()
"""Only the fixed limits."""


class _Family(NamedTuple):
    """Who is where."""

    sessions: dict[int, list[ProcId]]
    children: dict[int, list[ProcId]]  # by the pid of their parent


class Limiter:
    """Refuses orders. Never touches pid 1, threads of the kernel, this process and its ancestors, nor what `spare` names."""

    def __init__(self, kernel: Kernel, clock: Clock, bounds: Bounds) -> None:
        self._kernel = kernel
        self._clock = clock
        self._bounds = bounds
        self._given = {1}
        self._never: frozenset[int] | None = None  # pids: of these, of this process and of its ancestors
        self._rights: int | None = None  # effective user of this process
        self._family: _Family | None = None  # as seen for the present batch
        self._began = clock.monotonic()
        self._values = 0  # changed in this minute
        self._times: dict[tuple[Control, ProcId | Cgroup | PoolPlace], int] = {}  # in this minute

    def spare(self, pids: Iterable[int]) -> None:
        """Never touch these processes from now on."""
        self._given.update(pids)
        self._never = None

    def begin(self) -> None:
        """A new batch of orders: what was seen for the last one is old."""
        self._family = None

    def objection(self, order: Order) -> Trouble | None:
        """Why this must not be done; None if it may be."""
        wrong = _out_of_range(order)
        if wrong:
            return Trouble(Status.REFUSED, f"beyond the limits of the hands: {wrong}")
        if isinstance(order.on, Cgroup):
            if not order.on.path.strip("/"):
                return Trouble(Status.REFUSED, "beyond the limits of the hands: the root cgroup is never changed")
            if not _is_plain(order.on.path):  # the same cgroup by another name has no entries, so its original would be ours
                return Trouble(Status.REFUSED, f"beyond the limits of the hands: {order.on.path!r} is not how a cgroup is named")
            return self._touches(order.control, order.on)
        found = self._process(order.on) or self.became(order)
        if found is None and order.control in (Control.AUTOGROUP, Control.FENCE):
            found = self._touches(order.control, order.on)
        return found

    def became(self, order: Order) -> Trouble | None:
        """Why the process is not the one that was decided about any more; None if it is."""
        if not isinstance(order.on, ProcId) or order.control is Control.AUTOGROUP:
            return None
        who = self._kernel.who(order.on)
        if isinstance(who, Trouble):
            return who
        if who.rights != who.user:
            return _never(order.on, "it is a set-uid program")
        if order.program is not None and who.program != order.program:
            text = f"pid {order.on.pid} has become {who.program!r} since this was decided about {order.program!r}"
            return Trouble(Status.LATER, text)
        return None

    def used(self, values: int, held: int) -> Trouble | None:
        """Count values about to be changed; why they must wait, None if they need not. `held`: what the ledger holds already."""
        self._turn()
        if held + values > MOST_OPEN:
            return Trouble(Status.LATER, f"more than {MOST_OPEN} values are not changed at once")
        if self._values + values > self._bounds.values_per_minute:
            return Trouble(Status.LATER, f"more than {self._bounds.values_per_minute} values a minute are not changed")
        self._values += values
        return None

    def too_often(self, control: Control, on: ProcId | Cgroup | PoolPlace) -> Trouble | None:
        """Count a change of this thing; why it must wait, None if it need not. It must exist: what a brain makes up is not to be
        remembered."""
        self._turn()
        times = self._times[control, on] = self._times.get((control, on), 0) + 1
        return Trouble(Status.LATER, f"this was asked for {OFTEN} times in a minute") if times > OFTEN else None

    def _turn(self) -> None:
        """Begin another minute when the last one is over."""
        now = self._clock.monotonic()
        if now - self._began >= MINUTE_NS:
            self._began, self._values, self._times = now, 0, {}

    def _process(self, process: ProcId) -> Trouble | None:
        """Why this process is never touched."""
        own = self._own()
        if isinstance(own, Trouble):
            return own
        if process.pid in own:
            return _never(process, "it is the machine's or nicety's own")
        who = self._kernel.who(process)
        if isinstance(who, Trouble):
            return who
        if who.kernel:
            return _never(process, "it is a thread of the kernel")
        if fnmatchcase(who.program, OWN) and who.rights == self._own_rights():
            return _never(process, "it is the machine's or nicety's own")
        if who.rights != who.user:
            return _never(process, "it is a set-uid program")
        if any(fnmatchcase(who.program, pattern) for pattern in self._bounds.protect):
            return _never(process, f"guard.protect names {who.program!r}")
        if self._bounds.users and who.user not in self._bounds.users:
            return _never(process, f"guard.users does not name user {who.user}")
        return None

    def _touches(self, control: Control, on: ProcId | Cgroup) -> Trouble | None:
        """Why a session, a cgroup, or a process with all its descendants (a fence) is never touched: a process in it is not."""
        inside: Sequence[ProcId] | Trouble
        if isinstance(on, Cgroup):
            inside = self._kernel.inside(on)
        else:
            inside = self._in_session_of(on) if control is Control.AUTOGROUP else self._descendants(on)
        if isinstance(inside, Trouble):
            return inside
        for process in inside:
            found = self._process(process)
            if found is not None and found.status is not Status.VANISHED:
                return Trouble(found.status, f"{control} would take along a process: {found.text}")
        return None

    def _in_session_of(self, process: ProcId) -> Sequence[ProcId] | Trouble:
        """The processes of its session."""
        kin, family = self._kernel.kin_of(process), self._seen()
        if isinstance(kin, Trouble):
            return kin
        return family if isinstance(family, Trouble) else family.sessions.get(kin.session, ())

    def _descendants(self, process: ProcId) -> Sequence[ProcId] | Trouble:
        """The processes below it."""
        family = self._seen()
        if isinstance(family, Trouble):
            return family
        found = {process: None}
        waiting = [process]
        while waiting:
            more = [child for child in family.children.get(waiting.pop().pid, ()) if child not in found]
            found.update(dict.fromkeys(more))
            waiting += more
        return tuple(found)[1:]

    def _seen(self) -> _Family | Trouble:
        """All processes, read once in a batch."""
        if self._family is None:
            scan = self._kernel.kin()
            if scan.unread is not None:
                return scan.unread
            self._family = _Family({}, {})
            for each in scan.kin:
                self._family.sessions.setdefault(each.session, []).append(each.id)
                self._family.children.setdefault(each.parent, []).append(each.id)
        return self._family

    def _own_rights(self) -> int | None:
        """The effective user of this process."""
        if self._rights is None:
            who = self._kernel.who(self._kernel.itself())
            self._rights = None if isinstance(who, Trouble) else who.rights
        return self._rights

    def _own(self) -> frozenset[int] | Trouble:
        """Pids that are never touched."""
        if self._never is None:
            try:
                own = self._kernel.itself().pid
            except OSError as error:
                return Trouble(status_of(error), f"the hands cannot see themselves: {error.strerror}")
            scan = self._kernel.kin()
            if scan.unread is not None:
                return scan.unread
            parents = {kin.id.pid: kin.parent for kin in scan.kin}
            found = set[int]()
            while own and own not in found:
                found.add(own)
                own = parents.get(own, 0)
            self._never = frozenset(found | self._given)
        return self._never


def _is_plain(path: str) -> bool:
    """Whether this is how /proc/PID/cgroup names a cgroup that is not the root."""
    return path.startswith("/") and all(part not in ("", ".", "..") and "\0" not in part for part in path[1:].split("/"))


def _never(process: ProcId, why: str) -> Trouble:
    return Trouble(Status.REFUSED, f"pid {process.pid} is never touched: {why}")


def _out_of_range(order: Order) -> str:
    """What is wrong with the value; "" if it may be set."""
    value = order.value
    if order.control is Control.AFFINITY:
        good = isinstance(value, tuple) and bool(value) and all(0 <= cpu < 1 << 16 for cpu in value)
        ordered = isinstance(value, tuple) and list(value) == sorted(set(value))  # as the kernel gives it back
        return "" if good and ordered else "this is no list of CPUs"
    if order.control is Control.FENCE:
        return _fence(value)
    allowed = _VALUES.get(order.control)
    if allowed is None or not isinstance(value, int) or value not in allowed:
        return f"{order.control} is never set to {f'{value!r}'[:40]}"
    return ""


def _fence(value: Value | None) -> str:
    if not isinstance(value, tuple) or len(value) not in (3, 4) or min(value) < 0 or max(value) >> 62 or not any(value):
        return "these are not the limits of a fence"
    cpu, memory, _, weight = Limits(*value)
    if 0 < cpu < LEAST_CPU or 0 < memory < LEAST_MEMORY or weight > 100:
        return f"a fence leaves at least {LEAST_CPU / 1000:g} cores and {LEAST_MEMORY >> 20} MiB, and its weight is 100 at most"
    return ""


def favours(control: Control, first: Value, new: Value) -> bool:
    """Whether a value gives a process more than it had before our first change. A slice only says when, not how much."""
    if isinstance(first, tuple) and isinstance(new, tuple):
        return not set(new) <= set(first)
    if not isinstance(first, int) or not isinstance(new, int) or control in (Control.SLICE, Control.FENCE):
        return False
    return new > first if control in _WEIGHTS else new < first
