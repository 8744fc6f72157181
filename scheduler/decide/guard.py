"""The only place that refuses: limits, budget, cool-down, back-off, and what must never be touched. Pure: knows no policy.

Only a pause, hands off, an earlier change in the same tick and a back-off stop a restore. Flags change nothing: only a pause stops
them. A busy worker is not recycled before its deadline. The same refusal of the same proposal is reported once, not in every tick.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase

import msgspec

from ...models.identity import ProcId
from ...models.records import Class
from ..cgroup_paths import ROOT, ancestors
from ..config.sections import Config
from ..decision import Decision, Digest, Flag, Group, Member, Pool, Recycle, Refusal, ResizePool, Restore, Set, Tick, encode
from ..hands.faults import Status
from ..hands.fences import Limits
from ..hands.places import Control
from ..observe.grouping import OF_USER
from ..places import ProcessPlace, SessionPlace, cgroup_of, process_of
from .policies.policy import Memory, Result, knob
from .policies.priority.mechanisms import Descent

FIRST_BACKOFF, LONGEST_BACKOFF = 2.0, 300.0
"""Seconds until a failed change may be tried again: the first delay, which doubles with each failure up to the second (chosen)."""

RECYCLING_SECONDS = 60.0
"""Seconds after which a recycled worker that is still there no longer keeps others from being recycled (chosen)."""

KERNEL_PIDS = (1, 2)
"""Pids of init and kthreadd, which are never touched whatever the observer reports."""

POLICIES = (0, 3, 5)
"""Allowed scheduling policies: SCHED_OTHER, SCHED_BATCH, SCHED_IDLE (sched(7)). Real-time policies can take the whole machine."""

WEIGHTS = {Control.CPU_SHARES: (2, 262_144), Control.CPU_WEIGHT: (1, 10_000), Control.CPU_IDLE: (0, 1)}
"""Least and largest value of each weight: kernel/sched/sched.h for cpu.shares, Documentation/admin-guide/cgroup-v2.rst for the
others."""

LEAST_CPU = 100
"""Thousandths of a core that every fence must leave (chosen): with less, a lock would be held more than ten times as long."""

SLICES = (100_000, 100_000_000)
"""Least and largest slice in ns that the kernel accepts: 0.1 to 100 ms (`sched_attr.sched_runtime`, Linux 6.12)."""

RENICES = frozenset({Control.NICE, Control.POLICY, Control.AUTOGROUP})
"""Controls that cannot be restored without CAP_SYS_NICE."""

CHANGES = (Set, ResizePool, Recycle)
"""Actions that wait while nicety lacks a writable ledger, descriptors or memory. Restores and reports do not."""


class Veto(StrEnum):
    """Why something is refused."""

    PAUSED = "paused"  # nicety is paused
    HANDS_OFF = "hands off"  # somebody else changed it
    NEVER_TOUCH = "never touch"  # protected, or not ours
    LIMITS = "limits"  # an invalid value or target
    TROUBLE = "trouble"  # the pool takes no requests now
    LAST_CPU = "last cpu"  # no CPU would be left to other processes
    NO_UNDO = "no undo"  # it could not be restored
    ONE_CHANGE = "one change"  # a second change of the same knob in a tick
    BLOCKED = "blocked"  # nicety lacks a writable ledger, descriptors or memory
    COOL_DOWN = "cool-down"  # changed a moment ago, or failed
    BUDGET = "budget"  # too many changes
    BUSY = "busy"  # the worker has work


Reason = tuple[Veto, str]
"""The rule that refuses, and a sentence for people."""


class Backoff(Memory):
    """Failures in a row, and how long to wait for the next try."""

    failures: int
    until: int  # ns


class GuardMemory(Memory):
    """What the guard remembers. Keys are knobs, see `policies.policy.knob`."""

    session: str = ""
    changed: dict[str, int] = msgspec.field(default_factory=dict)  # ns of the last Set, while it is cooling down
    backoff: dict[str, Backoff] = msgspec.field(default_factory=dict)
    hands_off: list[str] = msgspec.field(default_factory=list)  # knobs or targets that others changed in this session, sorted
    standing: dict[str, str] = msgspec.field(default_factory=dict)  # refusals that need not be repeated
    recycles: dict[str, list[int]] = msgspec.field(default_factory=dict)  # pool -> ns of recycles in the last hour
    recycling: dict[str, tuple[ProcId, int]] = msgspec.field(default_factory=dict)  # pool -> worker on its way out, since ns
    blocked: Backoff | None = None  # nicety lacked something itself: no new change until then, whatever the target
    busy: dict[str, int] = msgspec.field(default_factory=dict)  # recycles that wait for a busy worker -> ns of the first proposal


class _Reach:
    """Processes that a change of a whole session or cgroup also affects: for each session and cgroup, the first one added."""

    def __init__(self) -> None:
        self._sessions: dict[int, ProcId] = {}
        self._cgroups: dict[str, ProcId] = {}

    def add(self, member: Member) -> None:
        """Adds a process that must not be affected."""
        self._sessions.setdefault(member.session, member.id)
        for path in ancestors(member.cgroup):
            self._cgroups.setdefault(path, member.id)

    def taken(self, session: int | None, cgroup: str) -> ProcId | None:
        """A process in this session, or, if that is None, in this cgroup or below it."""
        return self._cgroups.get(cgroup) if session is None else self._sessions.get(session)


@dataclass(slots=True)
class _Wide:
    """Processes that a change of a whole session or cgroup must not affect."""

    home: _Reach  # nicety itself
    leaders: frozenset[int]  # pids of protected processes that are in no pool
    protected: _Reach  # protected processes whose group has a class, except those of pools
    sheltered: _Reach  # programs of guard.protect


@dataclass(slots=True)
class _Context:
    """What one tick's proposals are judged against."""

    tick: Tick
    members: dict[ProcId, tuple[Group, Member]]
    workers: dict[ProcId, str]  # worker -> pool
    protected: frozenset[ProcId]
    changed: set[str] = field(default_factory=set)  # knobs that admitted decisions of this tick change
    changes: int = 0
    named: dict[str, bool] = field(default_factory=dict)  # group -> whether guard.protect names its program, as far as asked
    wide: _Wide | None = None  # made for the first decision that needs it
    descent: Descent | None = None  # likewise


class Guard:
    """Judges proposals, tick by tick."""

    def __init__(self, config: Config, session: str, memory: GuardMemory, online: Collection[int] = ()) -> None:
        """`online`: numbers of the CPUs, which may have gaps (SMT switched off); (): they count up from 0."""
        self._config = config
        self._online = frozenset(online)
        self.memory = memory
        if memory.session != session:  # hands off holds until the session ends
            memory.session, memory.hands_off = session, []

    def review(
        self, tick: Tick, proposals: Iterable[Decision], waiting: Collection[str] = ()
    ) -> tuple[list[Decision], list[Refusal]]:
        """(admitted decisions, refusals that are new), both in the order of the proposals.

        `waiting`: "POLICY KNOB" of each proposal that is left for a later tick: its last refusal stands until then.
        """
        admitted, refused = list[Decision](), list[Refusal]()
        standing = {name: said for name, said in self.memory.standing.items() if name in waiting}
        context: _Context | None = None
        self._expire(tick)
        for decision in proposals:
            context = context or _context(tick)
            no = self._judge(context, decision)
            if no is None:
                self._admit(context, decision)
                admitted.append(decision)
                continue
            rule, text = no
            name, said = f"{decision.policy} {_key(decision)}", f"{rule} {encode(decision.action).decode()}"
            if self.memory.standing.get(name) != said:
                refused.append(Refusal(decision, rule.value, text))
            standing[name] = said
        self.memory.standing = standing
        return admitted, refused

    def forget(self, pools: Collection[str]) -> None:
        """Drops the cool-downs, and the recycles of these pools: changes that were only observed are to be carried out now."""
        memory = self.memory
        memory.changed, memory.standing = {}, {}
        for pool in pools:
            memory.recycles.pop(pool, None)
            memory.recycling.pop(pool, None)

    def learn(self, result: Result) -> None:
        """Learns from an outcome: backs off from what failed, and from every change while nicety lacks something itself; leaves
        alone what somebody else changed; forgets what is gone.

        Hands off does not apply to a pool's size: its adapter says in `trouble` for how long it respects a size that somebody else
        chose, and when the pool takes requests again."""
        memory = self.memory
        key = result.target if result.action is None else knob(result.action, result.target)
        size = isinstance(result.action, ResizePool) or (result.action is None and result.target.startswith("pool "))
        if result.status is Status.FOREIGN and key not in memory.hands_off and not size:
            memory.hands_off = sorted([*memory.hands_off, key])
        if result.status is Status.BLOCKED:
            if memory.blocked is None or result.at >= memory.blocked.until:  # those of one tick count as one
                memory.blocked = _longer(memory.blocked, result.at)
            return
        if result.done and isinstance(result.action, CHANGES):
            memory.blocked = None
        if result.failed:
            memory.backoff[key] = _longer(memory.backoff.get(key), result.at)
            return
        memory.backoff.pop(key, None)
        if result.status is Status.VANISHED:
            memory.changed.pop(key, None)

    def validate(self) -> None:
        """Raises AssertionError if the memory contradicts itself. For tests."""
        for pool, times in self.memory.recycles.items():
            assert times == sorted(times), f"{pool}: recycles in order of time"
        assert self.memory.hands_off == sorted(set(self.memory.hands_off)), "hands off: sorted, each once"

    def _expire(self, tick: Tick) -> None:
        memory, cooldown = self.memory, self._config.guard.cooldown * 1e9
        memory.changed = {key: at for key, at in memory.changed.items() if tick.at - at < cooldown}
        forgotten = LONGEST_BACKOFF * 1e9
        memory.backoff = {key: entry for key, entry in memory.backoff.items() if tick.at - entry.until < forgotten}
        if memory.blocked is not None and tick.at - memory.blocked.until >= forgotten:
            memory.blocked = None
        hour = {pool: [at for at in times if tick.at - at < 3600e9] for pool, times in memory.recycles.items()}
        memory.recycles = {pool: times for pool, times in hour.items() if times}
        if memory.recycling or memory.busy:
            there = {worker.id for pool in tick.pools for worker in pool.workers}
            names = {f"recycle {id_.pid}.{id_.start_ticks}" for id_ in there}
            memory.busy = {key: at for key, at in memory.busy.items() if key in names}
            memory.recycling = {
                pool: (worker, at)
                for pool, (worker, at) in memory.recycling.items()
                if worker in there and tick.at - at < RECYCLING_SECONDS * 1e9
            }

    def _admit(self, context: _Context, decision: Decision) -> None:
        action = decision.action
        context.changed.add(_key(decision))
        if isinstance(action, Set | ResizePool | Recycle):
            context.changes += 1
        if isinstance(action, Set):
            self.memory.changed[_key(decision)] = context.tick.at
        if isinstance(action, Recycle):
            self.memory.recycles.setdefault(action.pool, []).append(context.tick.at)
            self.memory.recycling[action.pool] = (action.worker, context.tick.at)

    def _judge(self, context: _Context, decision: Decision) -> Reason | None:
        """(rule, sentence) of a refusal; None: admitted. The order is from what never changes to what may be over in a moment."""
        tick, action, key = context.tick, decision.action, _key(decision)
        if tick.paused:
            return Veto.PAUSED, "nicety is paused: nothing is changed until it is resumed."
        if isinstance(action, Flag | Digest):
            return None
        if decision.target in self.memory.hands_off or key in self.memory.hands_off:
            return Veto.HANDS_OFF, f"Somebody else changed {decision.target}: it is left alone until the next start or reload."
        if not isinstance(action, Restore):
            no = self._never(context, decision) or self._limits(context, decision)
            if no is not None:
                return no
        if key in context.changed:
            return (
                Veto.ONE_CHANGE,
                f"Another decision of this tick changes {decision.target}: only one change in a tick.",
            )
        backoff = self.memory.backoff.get(key)
        if backoff is not None and tick.at < backoff.until:
            wait = (backoff.until - tick.at) / 1e9
            return Veto.COOL_DOWN, f"It failed {backoff.failures} times: next try in {wait:.0f} s."
        if isinstance(action, Restore):
            return None
        blocked = self.memory.blocked
        if blocked is not None and tick.at < blocked.until:
            wait = (blocked.until - tick.at) / 1e9
            return (
                Veto.BLOCKED,
                f"nicety lacks what it needs for a change: a writable ledger, descriptors or memory. Next try in {wait:.0f} s.",
            )
        if isinstance(action, Set) and key in self.memory.changed:
            return Veto.COOL_DOWN, f"{decision.target} was changed less than {self._config.guard.cooldown:g} s ago."
        if context.changes >= self._config.guard.changes_per_tick:
            return (
                Veto.BUDGET,
                f"{context.changes} changes were admitted in this tick already; guard.changes_per_tick allows no more.",
            )
        return None

    def _never(self, context: _Context, decision: Decision) -> Reason | None:
        """Refuses processes that are never touched, by themselves or with the session or cgroup they are in."""
        action = decision.action
        process = action.worker if isinstance(action, Recycle) else process_of(action.on) if isinstance(action, Set) else None
        wide = isinstance(action, Set) and isinstance(action.on, SessionPlace)
        if process is not None:
            if process not in context.members and process not in context.workers:
                return Veto.NEVER_TOUCH, f"Process {process.pid} is in no group with a class and in no pool: it is left alone."
            if not wide and self._is_protected(context, process):
                return (
                    Veto.NEVER_TOUCH,
                    f"Process {process.pid} is protected (guard.protect, pool master, init or nicety itself).",
                )
        if not isinstance(action, Set) or isinstance(action.on, ProcessPlace):
            return None
        session = context.members[process][1].session if process is not None and process in context.members else None
        if wide and session is None:
            return (
                Veto.NEVER_TOUCH,
                "The session of the process is unknown, and with it the other processes that the change would affect.",
            )
        path = cgroup_of(action.on) or ROOT
        reach = context.wide = context.wide or self._wide(context)
        if reach.home.taken(session, path) is not None:
            return Veto.NEVER_TOUCH, "The change would also affect nicety itself."
        if session in reach.leaders:
            return Veto.NEVER_TOUCH, f"The leader of session {session} is protected: its shell, or the process that started nicety."
        taken = reach.protected.taken(session, path)
        if taken is not None:
            return Veto.NEVER_TOUCH, f"The change would also affect protected process {taken.pid}."
        taken = reach.sheltered.taken(session, path)
        if taken is not None:
            return Veto.NEVER_TOUCH, f"The change would also affect process {taken.pid}, which guard.protect names."
        return None

    def _wide(self, context: _Context) -> _Wide:
        """What a change of a whole session or cgroup must not affect. A master may be demoted with its whole pool: then no worker
        of it overtakes its master."""
        tick = context.tick
        home, protected, sheltered = _Reach(), _Reach(), _Reach()
        if tick.home is not None:
            home.add(tick.home)
        pools = {pool.name for pool in tick.pools}
        pooled = set[ProcId]()
        for id_, (group, member) in context.members.items():
            if group.name in pools:
                pooled.add(id_)
            elif self._is_protected(context, id_):
                protected.add(member)
        for member in tick.sheltered:
            sheltered.add(member)
        return _Wide(home, frozenset(id_.pid for id_ in context.protected - pooled), protected, sheltered)

    def _is_protected(self, context: _Context, process: ProcId) -> bool:
        if process in context.protected or process.pid in KERNEL_PIDS:
            return True
        entry = context.members.get(process)
        if entry is None:
            return False
        name = entry[0].name
        if name not in context.named:
            program = name.removeprefix("program ").partition(OF_USER)[0] if name.startswith("program ") else ""
            patterns = self._config.guard.protect
            context.named[name] = bool(program) and any(fnmatchcase(program, pattern) for pattern in patterns)
        return context.named[name]

    def _limits(self, context: _Context, decision: Decision) -> Reason | None:
        action = decision.action
        if isinstance(action, ResizePool):
            return self._pool_limits(context, action)
        if isinstance(action, Recycle):
            return self._recycle_limits(context, action)
        if isinstance(action, Set):
            return self._value_limits(context, action)
        return None

    def _pool_limits(self, context: _Context, action: ResizePool) -> Reason | None:
        pool = next((pool for pool in context.tick.pools if pool.name == action.pool), None)
        if pool is None:
            return Veto.LIMITS, f"There is no pool {action.pool}."
        if not pool.minimum <= action.size <= pool.maximum:
            return (
                Veto.LIMITS,
                f"{action.size} workers is not between the minimum of {pool.minimum} and the maximum of {pool.maximum}.",
            )
        if pool.trouble:
            return Veto.TROUBLE, f"The pool cannot be resized now: {pool.trouble}."
        return None

    def _recycle_limits(self, context: _Context, action: Recycle) -> Reason | None:
        pool = next((pool for pool in context.tick.pools if pool.name == action.pool), None)
        if pool is None or context.workers.get(action.worker) != action.pool:
            return Veto.LIMITS, f"Process {action.worker.pid} is not a worker of pool {action.pool}."
        if pool.trouble:
            return Veto.TROUBLE, f"The pool cannot replace a worker now: {pool.trouble}."
        if action.pool in self.memory.recycling:
            return (
                Veto.BUDGET,
                f"Worker {self.memory.recycling[action.pool][0].pid} of {action.pool} is still being recycled: only one at a time.",
            )
        most = self._config.quarantine.recycles_per_hour
        if len(self.memory.recycles.get(action.pool, ())) >= most:
            return (
                Veto.BUDGET,
                f"{most} workers of {action.pool} were recycled in the last hour; quarantine.recycles_per_hour allows no more.",
            )
        if self._must_wait(context, pool, action):
            deadline = self._config.quarantine.busy_deadline
            return (
                Veto.BUSY,
                f"Worker {action.worker.pid} is busy: it is recycled once it is idle, or after {deadline:g} s at the latest.",
            )
        return None

    def _must_wait(self, context: _Context, pool: Pool, action: Recycle) -> bool:
        """Whether the worker may be busy and its deadline is still ahead. One that does not report whether it is busy may be
        busy."""
        worker = next(worker for worker in pool.workers if worker.id == action.worker)
        first = self.memory.busy.setdefault(knob(action, ""), context.tick.at)
        return worker.busy != 0 and context.tick.at - first < self._config.quarantine.busy_deadline * 1e9

    def _value_limits(self, context: _Context, action: Set) -> Reason | None:
        control, value, machine = action.control, action.value, context.tick.machine
        if control in RENICES and not machine.may_renice:
            return (
                Veto.NO_UNDO,
                "Without CAP_SYS_NICE the change could not be undone: run nicety as root, or grant it CAP_SYS_NICE.",
            )
        if control is Control.FENCE and isinstance(action.on, ProcessPlace):
            return self._fence_limits(context, action.on.id, value)
        if control is Control.AFFINITY:
            online = self._online or frozenset(range(machine.cpus))
            if not isinstance(value, tuple) or not value or not online.issuperset(value):
                return Veto.LIMITS, f"CPUs {value} are not all among the online CPUs {sorted(online)}."
            if len(set(value)) >= len(online):
                return Veto.LAST_CPU, "The change would leave no CPU to the rest of the system."
            return None
        if not isinstance(value, int):
            return Veto.LIMITS, f"{control} takes one number."
        if control in WEIGHTS:
            low, high = WEIGHTS[control]
            path = cgroup_of(action.on) or ROOT
            if not path.startswith("/") or path == ROOT:
                return Veto.LIMITS, "The root cgroup has no weight."
            return None if low <= value <= high else (Veto.LIMITS, f"{control} {value} is not between {low} and {high}.")
        if control is Control.SLICE:
            low, high = SLICES
            return None if low <= value <= high else (Veto.LIMITS, f"A slice of {value} ns is not between {low} and {high} ns.")
        if control is Control.POLICY:
            return None if value in POLICIES else (Veto.LIMITS, f"Scheduling policy {value} is not one of {POLICIES}.")
        floor, pool_nice = self._config.guard.nice_floor, self._config.priority.pool_nice
        if not floor <= value <= 19:
            return Veto.LIMITS, f"nice {value} is not between guard.nice_floor = {floor} and 19."
        if process_of(action.on) in context.workers and value > pool_nice:
            return Veto.LIMITS, f"nice {value} is more than priority.pool_nice = {pool_nice}: workers share locks."
        return None

    def _fence_limits(self, context: _Context, process: ProcId, value: int | tuple[int, ...]) -> Reason | None:
        if not isinstance(value, tuple) or len(value) != len(Limits._fields) or min(value) < 0 or not any(value):
            return Veto.LIMITS, f"{value} are not valid limits of a fence."
        limits = Limits(*value)
        if limits.weighs_only:
            return self._weight_limits(context, process, limits.weight)
        if process not in context.workers:
            return Veto.LIMITS, "Only a worker of a pool may be fenced in with limits."
        if 0 < limits.cpu < LEAST_CPU:
            return (
                Veto.LIMITS,
                f"{limits.cpu / 1000:g} cores are too few: workers share locks, and this one must be able to release its own.",
            )
        low, high = WEIGHTS[Control.CPU_WEIGHT]
        if limits.weight and not low <= limits.weight <= high:
            return Veto.LIMITS, f"weight {limits.weight} is not between {low} and {high}."
        return None

    def _weight_limits(self, context: _Context, process: ProcId, weight: int) -> Reason | None:
        """Judges a fence that takes only weight: any process may be in it except workers, interactive processes and protected
        ones."""
        low, high = WEIGHTS[Control.CPU_WEIGHT]
        if not low <= weight <= high:
            return Veto.LIMITS, f"weight {weight} is not between {low} and {high}."
        if process in context.workers:
            return Veto.LIMITS, "Workers share locks, so no worker gets less weight than its siblings."
        tick = context.tick
        apart = {each.id: each for each in (*tick.sheltered, *((tick.home,) if tick.home is not None else ()))}
        if context.descent is None:
            known = apart | {id_: member for id_, (_, member) in context.members.items()}
            context.descent = Descent(known.values())
        for member in context.descent.below(process):
            entry = context.members.get(member.id)
            class_ = entry is not None and entry[0].class_ is Class.INTERACTIVE
            if class_ or member.id in apart or member.id in context.workers or self._is_protected(context, member.id):
                what = "interactive" if class_ else "protected"
                return Veto.NEVER_TOUCH, f"The fence would also hold {what} process {member.id.pid}, which descends from it."
        return None


def _longer(before: Backoff | None, at: int) -> Backoff:
    """The next back-off, which starts at `at` and is twice as long as the one before."""
    failures = 1 if before is None else before.failures + 1
    seconds = min(FIRST_BACKOFF * 2.0 ** min(failures - 1, 20), LONGEST_BACKOFF)
    return Backoff(failures, at + round(seconds * 1e9))


def _context(tick: Tick) -> _Context:
    return _Context(
        tick=tick,
        members={member.id: (group, member) for group in tick.groups for member in group.members},
        workers={worker.id: pool.name for pool in tick.pools for worker in pool.workers},
        protected=frozenset(tick.protected),
    )


def _key(decision: Decision) -> str:
    return knob(decision.action, decision.target)
