"""The nouns of deciding and acting: Tick, Decision, Refusal, Outcome, Effect. Pure data; all of it is logged.

A Tick holds everything that the policies may look at, so `engine.step` can be run again from the log alone.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from ..models.identity import ProcId
from ..models.records import Behaviour, Class, Deadlock, Forecast, Score
from .hands.faults import Status
from .hands.places import Control, PoolPlace, check_place
from .places import CgroupPlace, DecisionPlace, ProcessPlace, SessionPlace


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename=lambda field: field.rstrip("_")):
    """Base of everything that is logged. `class` is a word of Python: its field is `class_`."""


# --- what was seen ------------------------------------------------------------------------------------------------------------


class Member(Record, frozen=True, array_like=True):
    """A process of a classed group: what a policy must know to choose a mechanism."""

    id: ProcId
    session: int
    cgroup: str  # path in the cpu hierarchy
    nice: int
    parent: int = 0  # pid; 0: not known
    cpus: tuple[int, ...] = ()  # CPUs that it may use; (): all, or not known
    owner: int | None = None  # real user id; None: not known, as that of a user whom a user namespace does not map


class Shared(Record, frozen=True, array_like=True):
    """A session or cgroup with processes of several users, or a process with descendants of others: a change of it takes all
    along."""

    on: DecisionPlace
    owners: tuple[int | None, ...]  # of those that `[tenants]` does not let be demoted for anybody, in rising order


class Group(Record, frozen=True):
    """A group that has a class, is a pool, or uses much CPU or memory: rates over the last tick, and its members if it has a
    class."""

    name: str
    class_: Class  # as configured, else as it behaves
    processes: int
    cpu: float  # cores used
    wait: float  # cores waited for in the run queue
    demand: float  # cores that it would have used alone on this machine: from cpu to cpu + wait, at most the CPUs
    rss: int  # bytes
    members: tuple[Member, ...]
    behaviour: Behaviour | None = None  # None: the class is configured, or nothing is known yet
    brief: float = 0.0  # part of `cpu`: cores used by children that started and ended between two ticks
    throttled: float = 0.0  # share of the tick, over its CPUs, for which the quota of its own cgroup stopped it, 0..1
    yields: bool = False  # `[tenants]` lets each of its processes be demoted for anybody
    favoured: bool = False  # `[tenants]` lets each of its processes be helped at anybody's expense


class Worker(Record, frozen=True):
    """A pool's worker: its rates over the last tick."""

    id: ProcId
    ready: bool  # it takes work; else it is still starting
    busy: float | None  # share of the tick in which it had work, 0..1; None: unknown
    cpu: float  # cores used
    wait: float  # cores waited for in the run queue
    rss: int  # bytes


START_MARGIN = 1.2
"""Pools are sized this many worker start times ahead (chosen): the start time is a measured median, so half of all starts take
longer."""

START_UNKNOWN = 5.0
"""Seconds that a worker is assumed to take to start until a start was measured (chosen)."""


class Predicted(Record, frozen=True):
    """The load of a pool as its seasonal pattern predicts it from earlier periods: see `models/forecast/seasonality.py`. Loads in
    Erlangs."""

    period: float  # seconds
    seen: int  # periods in which it was seen
    right: float  # skill of the prediction in the newest period; 1: no error, 0: as by chance
    trusted: bool  # the newest periods came as predicted, and so has the load since
    abrupt: float  # sum of the sharpest rise and the sharpest fall that a mean of a minute cannot follow, in logarithms of 1 + load
    horizon: float  # seconds from now that `median` and `high` cover: START_MARGIN start times
    median: float  # largest median until then
    high: float  # largest upper quantile until then
    later: float  # largest median until `pool_size.down_after` from now, at least until `horizon`
    least: float  # least median until `pool_size.cooldown_down` from now
    now: float  # upper quantile for now


class Later(Record, frozen=True):
    """The load of a pool further ahead than its other forecasts, for workers that take long to start."""

    values: tuple[tuple[float, ...], ...]  # [horizon of `models.records.LATER`][level of QUANTILES] in Erlangs, rising in each row
    source: str  # what they mostly rest on, in words


class Scaled(Record, frozen=True):
    """The measured scaling curve of a pool, how much more it does with more busy workers: see `models/scaling.py`."""

    single: float  # cores that a single busy worker uses
    contention: float  # coefficient of the Universal Scalability Law
    coherency: float  # the other coefficient
    sizes: int  # numbers of busy workers that the curve rests on
    largest: float  # the largest of them
    adds: float | None  # cores that each further worker near the limit added; None: not seen
    worth: int | None  # number of workers beyond which another is not worth having; None: not within what was seen
    certain: bool  # the curve may limit the size


class Service(Record, frozen=True):
    """What the requests of a pool are like, over the last minutes."""

    arrivals: float  # per second
    mean: float  # seconds of service, without waiting for a worker
    p95: float  # seconds of service


class Rules(StrEnum):
    """Which rules size a pool."""

    ALL = "all"  # its seasonal pattern, else forecast and reactive rule
    FORECAST = "forecast"  # forecast and reactive rule
    REACTIVE = "reactive"
    CONSTANT = "constant"  # a constant size, as long as the load is as it was

    def words(self, size: int) -> str:
        """For people.

        >>> Rules.FORECAST.words(0), Rules.CONSTANT.words(8)
        ('forecast and reactive rule', 'a constant size of 8')
        """
        match self:
            case Rules.ALL:
                return "all rules"
            case Rules.FORECAST:
                return "forecast and reactive rule"
            case Rules.REACTIVE:
                return "the reactive rule"
        return f"a constant size of {size}"


class Chosen(Record, frozen=True):
    """The rules that were cheapest when the recorded load of a pool was replayed, and kept its objective."""

    pool: str
    rules: Rules
    size: int  # workers, if it is constant; else 0
    workers: float  # mean number in the replay
    hours: float  # that were replayed and counted
    least: float  # Erlangs, least and most mean of ten minutes in the replay: it says nothing of other loads
    most: float
    peak: float  # likewise the most mean of a minute, with what waited


class Pool(Record, frozen=True):
    """A pool at a tick."""

    name: str
    size: int  # workers that there are
    requested: int  # workers that were asked for
    minimum: int  # limits from the configuration
    maximum: int
    busy: float | None  # busy workers
    queued: float | None  # work waiting
    load: float | None  # offered load now, Erlangs of workers: busy and waiting work, over `capacity`; None: unknown
    load_stable: float | None  # mean load over the last 60 s (the reactive rule's stable window)
    load_panic: float | None  # mean load over the last 6 s (its panic window)
    start_seconds: float | None  # median time of a worker's start; None: not measured
    cpu_per_worker: float  # cores that a busy worker would use if nothing else wanted them
    rss_per_worker: int  # bytes, largest now
    workers: tuple[Worker, ...]
    trouble: str  # why the pool takes no requests now; "": it does
    predicted: Predicted | None = None  # None: no seasonal pattern of the load is known
    scaling: Scaled | None = None  # None: too few sizes were seen under load
    service: Service | None = None  # None: not known
    capacity: float = 1.0  # requests that one worker serves at once before each takes longer
    later: Later | None = None  # None: its workers start within the forecasts of all series


class Topology(Record, frozen=True):
    """CPUs by what they share. Each grouping has every online CPU once; groups and their members are in ascending order.

    All empty if the machine was not examined.
    """

    online: tuple[int, ...] = ()
    allowed: tuple[int, ...] = ()  # online CPUs that this process may use: what a cpuset or container leaves
    isolated: tuple[int, ...] = ()  # kept from the scheduler at boot (isolcpus): never used
    cores: tuple[tuple[int, ...], ...] = ()  # SMT siblings together
    caches: tuple[tuple[int, ...], ...] = ()  # sharing the last-level cache; the package if the kernel does not report it
    nodes: tuple[tuple[int, ...], ...] = ()  # NUMA nodes that have CPUs


class Abilities(Record, frozen=True):
    """What this machine and our rights allow, determined once at start."""

    autogroup: bool  # kernel.sched_autogroup_enabled
    cpu_cgroup: str  # "v1", "v2" or "": the hierarchy with a cpu controller that we may write
    may_renice: bool  # CAP_SYS_NICE: without it nothing is reniced, because it could not be undone
    topology: Topology = Topology()


class Machine(Record, frozen=True):
    """The machine at a tick."""

    cpus: int
    busy: float  # cores in use
    memory_total: int  # bytes
    memory_available: int  # bytes
    pressure: tuple[float, float, float] | None  # share of the tick in which some task waited for cpu, memory, io
    autogroup: bool  # as in Abilities
    cpu_cgroup: str
    may_renice: bool
    rivals: tuple[str, ...] = ()  # running programs that also tune processes (`scheduler/observe/rivals.py`), sorted
    steal: float = 0.0  # cores that the hypervisor gave to other guests
    unseen: float = 0.0  # cores used by processes that nicety cannot see, in other containers or on the host; smoothed


class Antagonist(Record, frozen=True, array_like=True):
    """A group that runs on the CPUs on which a starved worker waits."""

    group: str
    cores: float  # that it used there, mean over `StarvedWorker.seconds`
    nice: int  # of that process of the group which ran most there
    session: int  # of the same process
    cgroup: str  # of the same process


class StarvedWorker(Record, frozen=True):
    """Where a starved worker waits for a CPU, and who runs there."""

    worker: Member
    cpus: tuple[int, ...]  # where it waited, sorted
    seconds: float  # length of the observation
    antagonists: tuple[Antagonist, ...]  # without the worker itself, the busiest first


FEEDBACK_MARGIN = 1.5
"""A similar incident must have this many times the highest score of the one called wrong to be reported (chosen): scores scatter
from one run of a job to the next, and within this margin the baseline's tails fall to a twentieth."""


class Feedback(Record, frozen=True):
    """A user called an incident wrong: a similar one must be stronger to be reported."""

    id: str  # of the flag
    pool: str
    kind: str  # models.records.Anomaly
    value: float  # highest score of the incident, in the scorer's unit; for a deadlock: seconds that it lasted
    wall: int  # ns, when it was called wrong


class Delay(Record, frozen=True, array_like=True):
    """Why a group waits in the run queue, in cores, each a mean over some ten seconds. `by`, `others`, `own`, `unseen` and `steal`
    add up to `wait`."""

    group: str
    wait: float  # cores that it waits for, without what its own quota makes it wait
    by: tuple[tuple[str, float], ...]  # other groups that run where it waits, the largest first, at most 4
    others: float  # by further groups
    own: float  # by other threads and processes of the group itself
    unseen: float  # by the kernel, and by processes that nicety cannot see
    steal: float  # by other guests of the hypervisor
    throttled: float  # not part of `wait`: for what the quota of its own cgroup stopped. `Group.wait` has both


class Outcome(Record, frozen=True):
    """What really happened to a decision."""

    decision: str  # Decision.id
    status: Status
    target: str
    detail: str  # a sentence for people
    changed: int  # threads, cgroups or requests written


class Tick(Record, frozen=True):
    """One pass of the control loop: everything that its decisions rest on."""

    seq: int  # counts up from 0 in a session
    at: int  # monotonic ns
    wall: int  # wall clock ns, only for display
    gap: bool  # first tick, or after a gap of more than 3 intervals: rates are not to be trusted, nothing is decided
    paused: bool
    machine: Machine
    protected: tuple[ProcId, ...]  # never touched: nicety, its ancestors, pid 1, pool masters, configured programs; sorted
    groups: tuple[Group, ...]  # sorted by name
    pools: tuple[Pool, ...]  # sorted by name
    forecasts: tuple[Forecast, ...]  # sorted by (target, metric)
    scores: tuple[Score, ...]  # for each ready worker the least p-value, for masters all scores; sorted by id and kind
    outcomes: tuple[Outcome, ...]  # of the previous tick's decisions, and of pools and undo since then
    home: Member | None = None  # nicety itself: its session and its cgroup are never demoted
    deadlocks: tuple[Deadlock, ...] = ()  # among the workers of pools, sorted by the first waiter
    starved_workers: tuple[StarvedWorker, ...] = ()  # of workers that are scored as starved, sorted by id
    feedback: tuple[Feedback, ...] = ()  # in force, sorted by id
    sheltered: tuple[Member, ...] = ()  # configured programs (guard.protect), with session and cgroup, sorted by id
    shared: tuple[Shared, ...] = ()  # where batch groups stand beside processes of other users
    chosen: tuple[Chosen, ...] = ()  # by replay, where not all rules count, sorted by pool
    delays: tuple[Delay, ...] = ()  # of the groups that wait noticeably, sorted by group


# --- what was decided ---------------------------------------------------------------------------------------------------------


DECIDED: dict[Control, type[object]] = {
    **dict.fromkeys((Control.NICE, Control.AFFINITY, Control.POLICY, Control.SLICE, Control.FENCE), ProcessPlace),
    Control.AUTOGROUP: SessionPlace,
    **dict.fromkeys((Control.CPU_SHARES, Control.CPU_WEIGHT, Control.CPU_IDLE), CgroupPlace),
    Control.POOL_SIZE: PoolPlace,  # which no decision has: ResizePool decides it
}
"""The kind of place that a decision names, by control; records with other kinds are refused."""


class Set(Record, frozen=True, tag="set"):
    """Set a control to a value. Raises ValueError for a control of another kind of place."""

    control: Control
    on: DecisionPlace
    value: int | tuple[int, ...]
    expected: int | tuple[int, ...] | None = None  # its value before our changes: another one is somebody's choice; None: any

    def __post_init__(self) -> None:
        check_place(self.control, self.on, DECIDED[self.control])


class Restore(Record, frozen=True, tag="restore"):
    """Put a control back to its value before our first change, as the ledger has it. Raises ValueError as `Set` does."""

    control: Control
    on: DecisionPlace

    def __post_init__(self) -> None:
        check_place(self.control, self.on, DECIDED[self.control])


class ResizePool(Record, frozen=True, tag="resize"):
    """Ask a pool for a size."""

    pool: str
    size: int


class Recycle(Record, frozen=True, tag="recycle"):
    """Ask a pool to drain one worker and start another in its place."""

    pool: str
    worker: ProcId


class Flag(Record, frozen=True, tag="flag"):
    """Report that a worker misbehaves, that its incident is now of another kind, or that it is over. Changes nothing."""

    pool: str
    worker: ProcId  # in a circle the one with the lowest id; a pool's master or a worker's child if the kind is about those
    kind: str  # models.records.Anomaly
    others: tuple[ProcId, ...] = ()  # the other workers of a circle
    incident: str = ""  # id of the flag that began the incident; "": this one began it
    over: bool = False  # the incident has ended


class Digest(Record, frozen=True, tag="digest"):
    """Report the number of incidents that were not reported one by one, because the day's budget of alarms was used up. Changes
    nothing."""

    incidents: int


Action = Set | Restore | ResizePool | Recycle | Flag | Digest


class Why(Record, frozen=True):
    """The reason of a decision, with the figures that a person would ask for."""

    rule: str  # name of the rule that decided, e.g. "forecast floor"
    text: str  # one sentence
    figures: dict[str, float | int | str]  # named inputs, units in the name where not obvious
    rejected: tuple[str, ...]  # what else was considered, and why not
    flips: tuple[str, ...]  # what would have changed the decision


class Decision(Record, frozen=True):
    """A proposed change with its reason."""

    id: str  # "S-T.N": session digest, tick, number in the tick; deterministic
    policy: str  # pool_size, priority, placement, quarantine
    target: str  # for people: "pool web", "group hogs pid 4711", "cgroup /batch"
    action: Action
    why: Why


class Refusal(Record, frozen=True):
    """The guard's refusal."""

    decision: Decision
    rule: str  # paused, hands off, never touch, limits, trouble, last cpu, no undo, one change, blocked, cool-down, budget
    text: str  # a sentence for people


class Effect(Record, frozen=True):
    """Whether a decision helped: a figure at the time of the decision and some ticks later."""

    decision: str
    metric: str  # e.g. "wait of group web, cores"
    before: float
    after: float
    ticks: int
    verdict: str  # helped, no effect, hurt, cannot tell; more contention: worse, but batch work wants far more than at the decision
    others: tuple[str, ...] = ()  # decisions of the same tick about the same group, measured together with `decision`
    unchanged: tuple[float, float | None] | None = (
        None  # of a pool: the figure at its old size, at least and at most; None: unknown
    )

    @property
    def decisions(self) -> int:
        """How many decisions the effect covers."""
        return 1 + len(self.others)


class Note(Record, frozen=True):
    """Something that lasts longer than a decision and that people should know; repeated in each tick while it lasts."""

    topic: str  # identifies the note while it lasts: "unseen", "quota web"
    text: str  # a sentence for people, without figures that change every tick
    figures: dict[str, float | int | str]  # as of this tick, units in the name where not obvious


class Verdict(Record, frozen=True):
    """Everything that `engine.step` returns for a tick."""

    decisions: tuple[Decision, ...]  # admitted, in the order to apply
    refusals: tuple[Refusal, ...]
    effects: tuple[Effect, ...]
    notes: tuple[Note, ...] = ()  # what holds now, sorted by topic


class WarmStart(Record, frozen=True):
    """What a session took over from earlier ones at its start: recorded ticks, for the seasonal patterns of its pools."""

    ticks: int  # number of recorded ticks
    at: int  # monotonic ns of the start
    wall: int  # wall clock ns of the start


class Grant(Record, frozen=True):
    """Something that nicety acts on."""

    thing: str  # "*": everything; "policy NAME"; else a pool or group by its name
    until: int | None = None  # monotonic ns at which it ends, as Tick.at; None: no end


class Scope(Record, frozen=True):
    """What nicety acts on; everything else is observed. See `scheduler/scope.py`."""

    grants: tuple[Grant, ...] = ()  # sorted by thing, each once; empty: everything is observed
    spared: tuple[str, ...] = ()  # things that are observed although something wider is acted on; sorted


class Session(Record, frozen=True):
    """Header of a run of ticks in the decision log: all that is needed to replay them. A new one is written at start, at reloads,
    and whenever what is acted on changes."""

    id: str  # 8 hex digits
    boot_id: str
    wall: int
    version: str  # of nicety
    mode: str  # observe, or act if anything is acted on: `scope` says what
    own: ProcId  # the daemon
    abilities: Abilities
    config: dict[str, Any]  # the whole configuration in force, as `config.to_builtins` gives it
    artefacts: dict[str, str]  # "demand", "anomaly", "behaviour" -> digest, "" where none is loaded
    engine: dict[str, Any]  # `Engine.memory()` before the first tick
    warm_start: WarmStart | None = None  # None: no earlier ticks were looked for
    follows: str = ""  # the session before, if what it had learned was kept; "": nothing was
    scope: Scope = Scope()
    remembers: int = 0  # series whose forecasts go on from what earlier sessions had kept


def encode(record: object) -> bytes:
    """Canonical JSON of a record: equal records give equal bytes, doubles keep every bit.

    NaN and infinity must not be in a record (JSON cannot hold them): code that makes one puts None or leaves it out.
    """
    return msgspec.json.encode(record, order="deterministic")
