"""A kernel in memory behind `ports.Kernel`: processes that fork, spawn, exit and reuse pids, with the inheritance rules of Linux.

For tests and simulations. Must not touch the machine that it runs on. Tests change this world by the plain methods; the port's
methods are what the actuator may do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ...models.identity import ProcId
from ..hands.faults import Status, Trouble
from ..hands.fences import FENCED, Limits, Part, key_of, name_for
from ..hands.kernel import Kin, Reach, Scan, Who
from ..hands.pids import Pids
from ..hands.places import (
    AutogroupPlace,
    Cgroup,
    Control,
    FencePlace,
    Knob,
    PoolPlace,
    ThreadId,
    ThreadPlace,
    Value,
    number,
    process_of,
)

ANYBODY = Who("app", 1000, 1000, kernel=False)
"""A program of an ordinary user."""

WEIGHTS = {Control.CPU_SHARES: 1024, Control.CPU_WEIGHT: 100}  # values of a new cgroup, Linux' defaults
DEFAULT_SLICE = 3_000_000  # ns, chosen: real kernels scale theirs with the number of CPUs
FAIR = (0, 3, 5)  # SCHED_OTHER, SCHED_BATCH, SCHED_IDLE
_NO_KNOB = Trouble(Status.FAILED, "a pool is resized by its adapter, not by the kernel")
SLICED = (0, 3)  # policies whose threads have slices


@dataclass
class FakeThread:
    """A thread and its values. `affinity` is the requested mask; the process's cpuset hides a part of it.

    `slice` ns, 0 for the default. `reset_on_fork`: its children and threads begin with the default slice, and no nice below 0.
    """

    id: ThreadId
    nice: int
    policy: int
    affinity: tuple[int, ...]
    slice: int = 0
    reset_on_fork: bool = False


@dataclass
class FakeProcess:
    """A process. `threads` by tid; the first has the pid."""

    id: ProcId
    parent: int
    session: int
    group: int
    autogroup: str
    cpuset: tuple[int, ...]
    fence: str = ""  # key of its fence
    who: Who = ANYBODY
    threads: dict[int, FakeThread] = field(default_factory=dict)

    @property
    def leader(self) -> FakeThread:
        """The first thread."""
        return self.threads[self.id.pid]


class FakeKernel:
    """`ports.Kernel`. Starts with init, pid 1, which is also the acting process unless a test says otherwise.

    `privileged` False behaves like a user without CAP_SYS_NICE. `before_write` is called with each knob before it is written: there
    a test checks what is durable already, raises to crash, or changes the world within the race. `faults`: pids for which a look or
    a change fails with this trouble. `exhausted`: trouble of all looks and changes outside `reserve`, as without descriptors.
    """

    def __init__(self, cpus: int = 4, boot_id: str = "00000000-0000-4000-8000-000000000001") -> None:
        self.cpus = tuple(range(cpus))
        self.boot = boot_id
        self.ticks = 1000
        self.privileged = True
        self.before_write: Callable[[Knob], None] | None = None
        self.writes: list[tuple[Knob, Value]] = []
        self.faults: dict[int, Trouble] = {}
        self.exhausted: Trouble | None = None
        self._reserved = 0
        self.autogroups: dict[str, int] = {}
        self.cgroups: dict[tuple[Control, str], int] = {}  # a cgroup exists if it has a weight, and is idle if it has CPU_IDLE 1
        self.members: dict[str, tuple[ProcId, ...]] = {}  # processes in a cgroup and below it, by its path
        self.fences: dict[str, int] = {}  # by key: 0, FENCED or ALTERED
        self.unfenced = ""  # why no process can be fenced
        self.has_slices = True  # Linux 6.12 and newer
        self.processes: dict[int, FakeProcess] = {}
        self._numbers = 0
        self._next = 1
        self.own = self._born(0, 1, 1, self._new_autogroup(), self.cpus, None, None).id

    # --- what happens in the world ---------------------------------------------------------------------------------------------

    def start(self, parent: int = 1, *, session: bool = True, pid: int | None = None) -> ProcId:
        """Fork from `parent`, with setsid(2) unless told otherwise. `pid`: the number to take (a reused one)."""
        child = self.fork(parent, pid=pid)
        if session:
            self.setsid(child.pid)
        return child

    def admit(self, process: ProcId) -> None:
        """A process of this identity, in a session of its own: the master of a fake pool."""
        self.start(pid=process.pid)
        made = self.processes[process.pid]
        made.leader.id = ThreadId(*process)
        made.id = process

    def fork(self, parent: int, *, pid: int | None = None) -> ProcId:
        """A child with the values of its parent's first thread."""
        mother = self.processes[parent]
        child = self._born(parent, mother.session, mother.group, mother.autogroup, mother.cpuset, mother.leader, pid)
        child.fence = mother.fence
        return child.id

    def spawn(self, pid: int) -> ThreadId:
        """Another thread, with the values of the first."""
        process = self.processes[pid]
        thread = self._thread(self._number(None), process.leader)
        process.threads[thread.id.tid] = thread
        return thread.id

    def setsid(self, pid: int) -> None:
        """A session, a process group and an autogroup of its own."""
        process = self.processes[pid]
        process.session = process.group = pid
        process.autogroup = self._new_autogroup()

    def exit(self, pid: int) -> None:
        """A process ends and is reaped; init takes its children."""
        del self.processes[pid]
        for process in self.processes.values():
            if process.parent == pid:
                process.parent = 1

    def poke(self, knob: Knob, value: Value) -> None:
        """Somebody else sets a value."""
        self._store(knob, value)

    def confine(self, pid: int, cpus: tuple[int, ...]) -> None:
        """Shrink or grow the cpuset of a process."""
        self.processes[pid].cpuset = cpus

    def knob(self, control: Control, pid: int, tid: int | None = None) -> Knob:
        """The knob of a thread, by default the first, or of its autogroup."""
        process = self.processes[pid]
        if control is Control.AUTOGROUP:
            return Knob(control, AutogroupPlace(process.autogroup, process.id))
        return Knob(control, ThreadPlace(process.id, process.threads[pid if tid is None else tid].id))

    # --- ports.Kernel ----------------------------------------------------------------------------------------------------------

    def boot_id(self) -> str:
        """The boot's name."""
        return self.boot

    def uptime_ticks(self) -> int:
        """Later than all births so far, no later than the next: each birth has its own tick."""
        return self.ticks + 1

    def itself(self) -> ProcId:
        """The acting process."""
        return self.own

    def forbidden(self, control: Control) -> str:
        """The reasons of a process without CAP_SYS_NICE, unless `privileged`."""
        if self.privileged or control not in (Control.NICE, Control.POLICY, Control.AUTOGROUP):
            return ""
        return f"{control} is left alone: without CAP_SYS_NICE it could not be put back"

    def kin(self, known: Pids | None = None, reach: Reach | None = None) -> Scan:
        """All processes by pid, except those in `known` and those that a test made fail."""
        known = Pids() if known is None else known
        asked = [process for pid, process in sorted(self.processes.items()) if pid not in known]
        faults = [fault for process in asked if (fault := self._fault(process.id.pid)) is not None]
        found = set[int]()
        for process in asked:
            if self._fault(process.id.pid) is None:
                known.add(process.id.pid)
                me, place = process.id, (process.parent, process.session, process.group)
                if reach is None or (me.start_ticks >= reach.since and reach.has(me.pid, *place, known)):
                    found.add(process.id.pid)
        if reach is not None:
            found |= {self.processes[pid].parent for pid in found}.intersection(self.processes)
        return Scan(tuple(self._kin(self.processes[pid]) for pid in sorted(found)), faults[0] if faults else None)

    def kin_of(self, process: ProcId) -> Kin | Trouble:
        """Its parent, session and process group."""
        found = self._process(process)
        return found if isinstance(found, Trouble) else self._kin(found)

    def who(self, process: ProcId) -> Who | Trouble:
        """What a test says of it: by default a program of an ordinary user."""
        found = self._process(process)
        return found if isinstance(found, Trouble) else found.who

    def inside(self, cgroup: Cgroup) -> tuple[ProcId, ...] | Trouble:
        """The processes that a test has put there (`members`)."""
        return self.members.get(cgroup.path, ())

    def user_time(self, process: ProcId, thread: ThreadId) -> int | Trouble | None:  # noqa: ARG002 - the port's
        """None: all sleep, unless a test sets a fault."""
        return self._fault(process.pid)

    def threads(self, process: ProcId) -> tuple[ThreadId, ...] | Trouble:
        """Its threads."""
        found = self._process(process)
        return found if isinstance(found, Trouble) else tuple(sorted(thread.id for thread in found.threads.values()))

    def autogroup(self, process: ProcId) -> str | Trouble:
        """Its autogroup."""
        found = self._process(process)
        return found if isinstance(found, Trouble) else found.autogroup

    def fence(self, process: ProcId, limits: Limits) -> str | Trouble:
        """A fence in one hierarchy, below the root."""
        if self.unfenced:
            return Trouble(Status.REFUSED, self.unfenced)
        found = self._process(process)
        if isinstance(found, Trouble):
            return found
        if found.fence:
            return Trouble(Status.UNCHANGED if limits.weighs_only else Status.REFUSED, "it is in a fence already")
        name = f"/{name_for(process)}"
        files = {} if limits.weighs_only else {"limits": " ".join(map(str, limits[:3]))}
        files |= {"cpu.shares": str(2 * limits.weight)} if limits.weight else {}
        return key_of((Part("cpu", name, files),))

    def read(self, knob: Knob) -> Value | Trouble:
        """The value now."""
        process = process_of(knob.on)
        fault = self._fault(0 if process is None else process.pid)
        if fault is not None:
            return fault
        match knob.on:
            case ThreadPlace():
                found = self._find(knob.on)
                return found if isinstance(found, Trouble) else self._value(knob.control, *found)
            case AutogroupPlace(name=name):
                if not any(process.autogroup == name for process in self.processes.values()):
                    return Trouble(Status.VANISHED, f"{name} is gone")
                return self.autogroups[name]
            case Cgroup(path=path):
                return self._of_cgroup(knob.control, path)
            case FencePlace(key=key):
                return self.fences.get(key, 0)
            case PoolPlace():
                return _NO_KNOB

    def write(self, knob: Knob, expected: Value, value: Value) -> Trouble | None:
        """Compare and set."""
        if self.before_write is not None:
            self.before_write(knob)
        wrong = self._wrong(knob, value)
        if wrong is not None:
            return wrong
        now = self.read(knob)
        if isinstance(now, Trouble):
            return now
        if now != expected:
            return Trouble(Status.FOREIGN, f"somebody changed it from {expected} to {now}")
        if knob.control is Control.POLICY and now not in FAIR:
            return Trouble(Status.REFUSED, "a real-time thread: left alone")
        unfit = self._unfit(knob, value)
        if unfit is not None:
            return unfit
        if not self.privileged and knob.control is Control.NICE and isinstance(value, int) and isinstance(now, int) and value < now:
            return Trouble(Status.REFUSED, "not permitted: needs CAP_SYS_NICE")
        self._store(knob, value)
        self.writes.append((knob, value))
        return None

    def visible(self, knob: Knob, value: Value) -> Value | Trouble:
        """An affinity within the cpuset, or all of the cpuset; a slice of the default's length is the default."""
        if knob.control is Control.SLICE and value == DEFAULT_SLICE:
            return 0
        found = self._find(knob.on) if knob.control is Control.AFFINITY and isinstance(knob.on, ThreadPlace) else None
        if isinstance(found, Trouble) and found.status is not Status.VANISHED:
            return found
        if found is None or isinstance(found, Trouble) or isinstance(value, int):
            return value
        return _clipped(value, found[0].cpuset)

    def lasting(self, knob: Knob, value: Value) -> Value | Trouble:
        """All CPUs for a whole cpuset."""
        found = self._find(knob.on) if knob.control is Control.AFFINITY and isinstance(knob.on, ThreadPlace) else None
        if isinstance(found, Trouble) and found.status is not Status.VANISHED:
            return found
        if found is None or isinstance(found, Trouble) or value != found[0].cpuset:
            return value
        return self.cpus

    @contextmanager
    def reserve(self) -> Iterator[None]:
        """Within it `exhausted` has no effect."""
        self._reserved += 1
        try:
            yield
        finally:
            self._reserved -= 1

    # --- below -----------------------------------------------------------------------------------------------------------------

    def _born(
        self,
        parent: int,
        session: int,
        group: int,
        autogroup: str,
        cpuset: tuple[int, ...],
        like: FakeThread | None,
        pid: int | None,
    ) -> FakeProcess:
        thread = self._thread(self._number(pid), like)
        process = FakeProcess(ProcId(thread.id.tid, thread.id.start_ticks), parent, session, group, autogroup, cpuset)
        process.threads[thread.id.tid] = thread
        self.processes[thread.id.tid] = process
        return process

    def _thread(self, number: int, like: FakeThread | None) -> FakeThread:
        self.ticks += 1
        identity = ThreadId(number, self.ticks)
        if like is None:
            return FakeThread(identity, 0, 0, self.cpus)
        if like.reset_on_fork:
            return FakeThread(identity, max(like.nice, 0), like.policy, like.affinity)
        return FakeThread(identity, like.nice, like.policy, like.affinity, like.slice)

    def is_free(self, pid: int) -> bool:
        """Whether the kernel may hand out this number: not while it names a thread, or a session or group that has members."""
        return all(pid not in (*each.threads, each.session, each.group) for each in self.processes.values())

    def _number(self, wanted: int | None) -> int:
        if wanted is not None:
            assert self.is_free(wanted), f"pid {wanted} is in use"
            return wanted
        self._next += 1
        while not self.is_free(self._next - 1):
            self._next += 1
        return self._next - 1

    def _new_autogroup(self) -> str:
        self._numbers += 1
        key = f"autogroup-{self._numbers}"
        self.autogroups[key] = 0
        return key

    def _fault(self, pid: int) -> Trouble | None:
        return self.faults.get(pid) or (None if self._reserved else self.exhausted)

    def _process(self, process: ProcId) -> FakeProcess | Trouble:
        fault = self._fault(process.pid)
        if fault is not None:
            return fault
        found = self.processes.get(process.pid)
        return found if found is not None and found.id == process else Trouble(Status.VANISHED, f"pid {process.pid} is gone")

    def _find(self, on: ThreadPlace) -> tuple[FakeProcess, FakeThread] | Trouble:
        fault = self._fault(on.process.pid)
        if fault is not None:
            return fault
        process = self.processes.get(on.process.pid)
        thread = None if process is None else process.threads.get(on.thread.tid)
        if process is None or thread is None or thread.id != on.thread:
            return Trouble(Status.VANISHED, f"thread {on.thread.tid} of pid {on.process.pid} is gone")
        return process, thread

    def _value(self, control: Control, process: FakeProcess, thread: FakeThread) -> Value | Trouble:
        if control is Control.NICE:
            return thread.nice
        if control is Control.SLICE:
            if not self.has_slices:
                return Trouble(Status.REFUSED, "this kernel has no slices of threads")
            return thread.slice if thread.policy in FAIR else Trouble(Status.REFUSED, "a real-time thread has no slice")
        return thread.policy if control is Control.POLICY else _clipped(thread.affinity, process.cpuset)

    def _of_cgroup(self, control: Control, path: str) -> int | Trouble:
        """The value of a cgroup; a weight is hidden while the cgroup is idle."""
        there = any((weight, path) in self.cgroups for weight in WEIGHTS)
        idle = self.cgroups.get((Control.CPU_IDLE, path), 0)
        if control is Control.CPU_IDLE and there:
            return idle
        if (control, path) not in self.cgroups:
            return Trouble(Status.VANISHED, f"cgroup {path} is gone")
        return Trouble(Status.REFUSED, "an idle cgroup hides its weight") if idle else self.cgroups[control, path]

    def _unfit(self, knob: Knob, value: Value) -> Trouble | None:
        """What the real kernel refuses because of another value of the same thread or cgroup."""
        if knob.control is Control.SLICE and isinstance(knob.on, ThreadPlace):
            found = self._find(knob.on)
            if not isinstance(found, Trouble) and found[1].policy not in SLICED:
                return Trouble(Status.REFUSED, "only SCHED_OTHER and SCHED_BATCH have slices")
        if knob.control is Control.CPU_IDLE and isinstance(knob.on, Cgroup) and value:
            path = knob.on.path
            for weight, default in WEIGHTS.items():
                if self.cgroups.get((weight, path), default) != default:
                    return Trouble(Status.REFUSED, f"cgroup {path} has a {weight} that cpu.idle would lose for good")
        return None

    def _store(self, knob: Knob, value: Value) -> None:
        match knob.on:
            case FencePlace(key=key, process=first):
                self.fences[key] = number(value)
                for process in self._family(first) if value else list(self.processes.values()):
                    if process.fence in ("", key):
                        process.fence = key if value else ""
            case AutogroupPlace(name=name):
                self.autogroups[name] = number(value)
            case Cgroup(path=path):
                self.cgroups[knob.control, path] = number(value)
                if knob.control is Control.CPU_IDLE and not value:
                    self.cgroups |= {
                        (weight, path): default for weight, default in WEIGHTS.items() if (weight, path) in self.cgroups
                    }
            case ThreadPlace():
                found = self._find(knob.on)
                assert not isinstance(found, Trouble)
                self._store_in(found[1], knob.control, value)
            case PoolPlace():
                raise AssertionError("a pool is resized by its adapter")

    def _store_in(self, thread: FakeThread, control: Control, value: Value) -> None:
        if isinstance(value, tuple):
            thread.affinity = value
        elif control is Control.NICE:
            thread.nice = value
        elif control is Control.SLICE:
            thread.slice = 0 if value == DEFAULT_SLICE else value
        else:
            thread.policy = value

    def _wrong(self, knob: Knob, value: Value) -> Trouble | None:
        """What the real kernel refuses as a value."""
        if isinstance(knob.on, PoolPlace):
            return _NO_KNOB
        if knob.control is Control.AFFINITY and isinstance(knob.on, ThreadPlace):
            found = self._find(knob.on)
            if isinstance(found, Trouble):
                return found
            usable = isinstance(value, tuple) and bool(set(value) & set(found[0].cpuset))
            return None if usable else Trouble(Status.FAILED, "none of these CPUs is online and in the cpuset of the process")
        limits = {
            Control.NICE: (-20, 19),
            Control.AUTOGROUP: (-20, 19),
            Control.CPU_SHARES: (2, 262_144),
            Control.CPU_WEIGHT: (1, 10_000),
            Control.CPU_IDLE: (0, 1),
            Control.POLICY: (0, 5),
            Control.SLICE: (100_000, 100_000_000),
            Control.FENCE: (0, FENCED),
        }
        low, high = limits[knob.control]
        fits = isinstance(value, int) and low <= value <= high and (knob.control is not Control.POLICY or value in FAIR)
        fits = fits or (knob.control is Control.SLICE and value == 0)
        return None if fits else Trouble(Status.FAILED, f"{knob.control} {value} is not possible")

    def _family(self, first: ProcId) -> list[FakeProcess]:
        """A process and all its descendants."""
        found = [process for process in self.processes.values() if process.id == first]
        for process in found:
            found += [child for child in self.processes.values() if child.parent == process.id.pid and child not in found]
        return found

    def _kin(self, process: FakeProcess) -> Kin:
        return Kin(process.id, process.parent, process.session, process.group)


def _clipped(mask: tuple[int, ...], cpuset: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(set(mask) & set(cpuset))) or cpuset
