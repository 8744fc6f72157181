"""The records of measurement: how a process is named, what was read of it, what is predicted. Pure.

Must not know clocks, files or processes. Counters are raw and monotonic; only `features.py` makes rates of them. Unknown is `None`,
or in the sample table a cleared bit of `known`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntFlag, StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from .identity import ProcId

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    SAMPLE: np.dtype[np.void]
    SampleTable = NDArray[np.void]

QUANTILES: tuple[float, ...] = (0.5, 0.9, 0.95, 0.99)
"""Quantile levels of every forecast (chosen)."""

HORIZONS: tuple[int, ...] = (1, 3, 6, 12, 30)
"""Horizons of every forecast, in ticks ahead. 30 ticks at 1 Hz covers 1.2 x a 25 s worker start (chosen)."""

LATER: tuple[int, ...] = (60, 300, 900, 3600)
"""Horizons beyond these, in ticks, for what must be planned earlier: 1, 5, 15 and 60 minutes at 1 Hz (chosen)."""

WINDOW = 128
"""Ticks of history that features see (chosen)."""


class Class(StrEnum):
    """How a group is treated, by what its users care about."""

    INTERACTIVE = "interactive"  # latency-sensitive: it answers somebody who waits. Protected
    BATCH = "batch"  # only throughput counts. May be demoted
    EXEMPT = "exempt"  # neither, or not known. Left alone


class Known(IntFlag):
    """Bits of `SAMPLE['known']`: which optional counters of the row were actually read."""

    WAIT = 1  # exact cpu_ns, and wait_ns, slices: /proc/PID/task/*/schedstat was there; else cpu_ns is utime+stime, 10 ms coarse
    IO = 2  # read_chars, write_chars, read_bytes, write_bytes: /proc/PID/io was readable
    FDS = 4  # fds: /proc/PID/fd was readable
    SOCKETS = 8  # traits SERVES, SERVES_LOCALLY and HAS_WINDOW: the descriptors could be searched
    KEYS = 16  # trait READS_KEYSTROKES: it is in no terminal, or the terminal could be asked; else TERMINAL not set is not known


class Trait(IntFlag):
    """Bits of `SAMPLE['traits']`: what a process has, as far as it was searched."""

    SERVES = 1  # a listening TCP socket, or a UDP one that takes datagrams from anybody
    SERVES_LOCALLY = 2  # a listening unix socket
    TERMINAL = 4  # it is in the foreground of a terminal
    READS_KEYSTROKES = 8  # and that terminal gives it each key as it is typed, not lines
    HAS_WINDOW = 16  # connected to a display or sound server: somebody may be watching or listening
    PIPE_FED = 32  # its parent holds the other end of its standard input
    PIPE_SERVER = 64  # and it was seen waiting for that: it answers questions


_COLUMNS = [
    ("pid", "<u4"),
    ("start_ticks", "<u8"),
    ("ppid", "<u4"),
    ("session", "<u4"),
    ("cpu_ns", "<u8"),  # run time summed over all threads, exited ones too
    ("wait_ns", "<u8"),  # run-queue wait, likewise
    ("timeslices", "<u8"),  # times a thread was put on a CPU, likewise
    ("minor_faults", "<u8"),  # 0: page faults are not known, because every process has had some
    ("major_faults", "<u8"),
    ("child_faults", "<u8"),  # minor ones of children that it has waited for, and of their children
    ("child_cpu_ns", "<u8"),  # CPU time of children that it has waited for, and of their children; in steps of 10 ms
    ("rss_bytes", "<u8"),
    ("read_chars", "<u8"),
    ("write_chars", "<u8"),
    ("read_bytes", "<u8"),
    ("write_bytes", "<u8"),
    ("fds", "<u4"),
    ("threads", "<u4"),
    ("last_cpu", "<u2"),
    ("state", "u1"),  # ord of R S D Z T t I X
    ("nice", "i1"),
    ("policy", "u1"),  # SCHED_OTHER 0, FIFO 1, RR 2, BATCH 3, IDLE 5, DEADLINE 6
    ("known", "u1"),
    ("traits", "u1"),  # of Trait
]


def __getattr__(name: str) -> Any:
    """`SAMPLE`: dtype of the sample table. A row has raw counters of one process at one instant. `SampleTable`: an array of them,
    sorted by (pid, start_ticks), each process once.

    Both are made on first use: importing numpy takes 0.1 s, and commands that only read a log do not need it.
    """
    if name not in ("SAMPLE", "SampleTable"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import numpy as np
    from numpy.typing import NDArray

    globals().update(SAMPLE=np.dtype(_COLUMNS), SampleTable=NDArray[np.void])
    return globals()[name]


@dataclass(frozen=True, slots=True)
class Identity:
    """What a process is, apart from its counters. Strings are free of control characters."""

    comm: str
    program: str  # base name of the executable; for an interpreter "python3 worker.py" or "python3 -m module"
    cgroup: str  # path in the cpu hierarchy (v1 cpu controller, else v2), "/" for the root
    unit: str  # systemd unit or container of the cgroup path, "" if none
    uid: int  # effective: whose rights it has
    port: int = 0  # lowest TCP port on which it listens; 0: none, or not known
    cpus: tuple[int, ...] = ()  # CPUs that its first thread may use, in rising order; (): all that are online, or not known
    real_uid: int | None = None  # who started it, where that is not `uid`: a set-uid program's user; None: the same

    @property
    def owner(self) -> int:
        """The user whom it counts as, the real one. The rights of a set-uid program are no reason to prefer who started it."""
        return self.uid if self.real_uid is None else self.real_uid


@dataclass(frozen=True, slots=True)
class HostSample:
    """Raw counters of the whole machine."""

    cpu_busy_ns: tuple[int, ...]  # per online CPU: not idle and not iowait
    memory_total: int  # bytes
    memory_available: int
    pressure_us: tuple[int, int, int] | None  # "some" totals of cpu, memory, io; None where the kernel has no PSI
    forks: int = 0  # processes and threads started since boot
    steal_ns: int = 0  # time the hypervisor gave to others while a CPU had something to run, over all CPUs
    kernel_ns: int = 0  # busy time that no row of a table can have: interrupts, and kernel threads where they show


@dataclass(frozen=True, slots=True)
class WorkerSample:
    """One worker of a pool as its adapter sees it."""

    id: ProcId
    busy: float | None  # share of the probes since the last read in which it was busy, 0..1; None: unknown
    ready: bool  # has come up: was seen waiting for work, or working


@dataclass(frozen=True, slots=True)
class Flights:
    """Requests that the workers of a pool hold, as the kernel's socket table shows them."""

    held: float  # requests in flight, mean over the probes since the last read; those in the accept queue are not among them
    ended: int  # answers seen to end since the last read
    seconds: tuple[float, ...]  # how long they took, a sample of at most 64, rising


@dataclass(frozen=True, slots=True)
class PoolSample:
    """One pool as its adapter sees it at one instant."""

    pool: str
    size: int  # existing workers, starting ones too
    requested: int  # size last requested, by nicety or by the pool's own start
    queued: float | None  # mean work waiting over the probes since the last read; None: unknown
    workers: tuple[WorkerSample, ...]  # sorted by id
    master: ProcId | None
    start_seconds: float | None  # measured median from spawn to ready; None: none seen yet
    trouble: str  # why the pool cannot be resized now, else "": crash loop, master gone, resized by hand, no permission
    flights: Flights | None = None  # None: unknown, or a worker has one request at a time and reports busy


@dataclass(frozen=True, slots=True)
class Blocked:
    """A thread that waits for something another process has to do."""

    waiter: ProcId
    thread: int
    since: int  # monotonic ns at which it was first seen in this same wait
    what: str  # for people, without control characters: "flock on inode 7 of device 08:01", "reading pipe 4711"
    holder: ProcId | None  # the process that has to do it; None: the kernel cannot tell


@dataclass(frozen=True, slots=True)
class Deadlock:
    """Processes that wait for each other in a circle: each one's holder is the next one's waiter, the last one's is the first.

    Or, with no known holder, processes that all wait for one thing that no process frees. The lowest waiter comes first.
    """

    waits: tuple[Blocked, ...]


class Quota(NamedTuple):
    """A cgroup that may use no more than some CPU time in each period (v1 cpu.cfs_quota_us, v2 cpu.max)."""

    cgroup: str  # path in the cpu hierarchy, as in `Identity`
    throttled_ns: int  # time for which the limit stopped it, since it was made, summed over CPUs


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that was read at one instant: the trace store keeps it, and the observer derives from it."""

    at: int  # monotonic ns
    wall: int  # wall clock ns since 1970, for people only
    uptime_ticks: int  # clock ticks since boot at `at`, the scale of start_ticks
    table: SampleTable
    identities: Mapping[ProcId, Identity]  # of each process in `table`
    host: HostSample
    pools: tuple[PoolSample, ...]
    quotas: tuple[Quota, ...] = ()  # of the cgroups that contain the processes of `table`, at any depth, sorted by cgroup


@dataclass(frozen=True, slots=True)
class Forecast:
    """Quantiles of a future value, and their source."""

    target: str  # group or pool name
    metric: str  # "cpu": cores of demand; "rss": bytes; "load": Erlangs of a pool
    values: tuple[tuple[float, ...], ...]  # [horizon of HORIZONS][level of QUANTILES], rising in each row
    source: str  # "demand 3f9a…" (artefact digest) or "baseline ewma"


LOADING_SECONDS = 10.0
"""Seconds of activity before a process alone in the foreground of a terminal, or fed by its parent, is called batch. A program that
is loading looks like batch work until it is used; nobody waits longer without turning to something else (Nielsen, Usability
Engineering, 1993, ch. 5)."""


class Spared(StrEnum):
    """Why a group that looks like batch work is not called batch."""

    READS_KEYSTROKES = "reads keystrokes"  # its terminal gives it each key as it is typed
    HAS_WINDOW = "has a window"  # it has a window, or plays sound
    SERVER = "server"  # it works for a process that listens
    PIPE_SERVER = "pipe server"  # its parent asks it through a pipe
    UNSEEN = "unseen"  # its sockets cannot be seen, so it may serve somebody
    YOUNG = "young"  # it is starting, as far as its page faults show
    LOADING = "loading"  # alone in the foreground of a terminal, or fed by its parent, and has only just begun to work
    LITTLE = "little"  # wants so little CPU that demoting it would win nothing


class Ruled(StrEnum):
    """The rule that gave a group a class its probabilities would not give it."""

    SWARM = "swarm"  # processes that live for less than a tick do its work
    SUCCEEDS = "succeeds"  # it has just taken the place of a group's processes that had that class


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The class of a group, inferred from its behaviour, and what that rests on."""

    inferred: Class  # EXEMPT: neither, or too uncertain
    p_interactive: float  # calibrated probability that it is interactive
    p_batch: float  # and that it is batch work
    evidence: tuple[
        tuple[str, float, float], ...
    ]  # (feature, its value, its push towards `interactive`, in logits), strongest first
    source: str  # "behaviour 3f9a…" (artefact digest)
    spared: Spared | None = None  # why it is not called batch, though its probabilities say so
    ruled: Ruled | None = None  # the rule behind its class, where its probabilities say otherwise


class Anomaly(StrEnum):
    """Kinds of misbehaviour a worker can be scored for."""

    LEAK = "leak"  # resident memory keeps growing
    FD_LEAK = "fd-leak"  # open descriptors keep growing
    THREAD_LEAK = "thread-leak"  # threads keep growing
    SPIN = "spin"  # CPU without progress
    STUCK = "stuck"  # no progress while siblings make some
    DEADLOCK = "deadlock"  # waits in a circle with others
    SLOW = "slow"  # much more CPU or time than siblings for the same work
    STARVED = "starved"  # waits for a CPU far longer than it runs: a victim
    FORK_STORM = "fork-storm"  # starts processes far faster than siblings and its own past
    SWITCH_STORM = "switch-storm"  # is put on a CPU far more often for the same work
    CRASH_LOOP = "crash-loop"  # workers of a pool end soon after they started, again and again: reported of its master
    ZOMBIE = "zombie"  # has ended, and its parent does not collect its exit status
    OUTLIER = "outlier"  # unlike its siblings, or its own past, in a way without a name


@dataclass(frozen=True, slots=True)
class Score:
    """How unusual a worker is in one way."""

    id: ProcId
    pool: str
    kind: Anomaly
    value: float  # the nonconformity score; its unit is the scorer's
    p: float  # calibrated: share of healthy worker-windows that score as high
    evidence: tuple[tuple[str, float], ...]  # named figures for people, units in the name
    source: str  # "anomaly 3f9a…" or "baseline robust z"
    size: float = 0.0  # share of the default reporting limit that it reaches, the smaller of size and rarity; not known below half
