"""Ticks to verdicts: policies propose, the guard admits or refuses, effects are measured. Pure and deterministic.

Must not know clocks, modes, logs or the kernel. Its whole state is in `memory()`: an engine that is resumed from it gives, for the
same ticks, the same verdicts bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from ...models.records import Latency
from ..config.sections import Config
from ..decision import (
    Action,
    Control,
    Decision,
    Effect,
    Group,
    Outcome,
    Recycle,
    ResizePool,
    Restore,
    Set,
    Status,
    Tick,
    Topology,
    Verdict,
)
from .guard import Guard, GuardMemory
from .policies.pairs import Pause, pairs_of
from .policies.placement import Placement, PlacementMemory
from .policies.policy import Gone, Memory, Policy, Result, Standing
from .policies.pool_size import PoolSize, PoolSizeMemory
from .policies.priority import STRIKES, Ineffective, Priority, PriorityMemory, wait_share
from .policies.quarantine import Quarantine, QuarantineMemory

CHANGE = 0.25
"""A figure counts as better or worse if it moved by this share of the value before: means over a short time scatter by a tenth."""

LEAST_CHANGE = {"wait": 0.01, "queued": 0.5}
"""And by at least this much: cores of wait per core of demand; pieces of work."""

MORE_BATCH = 1.5
"""A longer wait says nothing about the decision if batch groups now want this many times as much: they only came afterwards."""

UNANSWERED_SECONDS = 600.0
"""A decision is forgotten if its outcome has not come by then: pools that drain slowly are given that time."""


class Issued(Memory):
    """An admitted decision whose outcome may still come."""

    policy: str
    target: str
    action: Action
    at: int


class Watch(Memory):
    """A decision whose effect is being measured."""

    decision: str  # of several that are measured as one, the first
    policy: str
    group: str  # the group that was changed: a contender, a protected group with short slices, a pool
    control: Control
    back: bool  # it was a restore
    whole: bool  # nothing of the group was demoted in this way before: the measurement covers the whole demotion
    kind: str  # "wait" of a group or "queued" work of a pool
    of: str  # that group or pool
    before: float
    since: int  # ns from which the figure after the change is averaged
    due: int
    ticks: int = 0  # since the decision
    total: float = 0.0
    count: int = 0
    applied: bool = False  # the outcome says that something was changed
    again: int = 0  # measurements still to make if this one finds no effect
    batch: float = 0.0  # cores that batch groups wanted when it was decided
    batch_total: float = 0.0  # and since then, summed like `total`
    others: list[str] = msgspec.field(default_factory=list)  # the other decisions of the same tick that are measured with it


class EngineMemory(Memory):
    """Everything that the engine remembers between two ticks."""

    pool_size: PoolSizeMemory = msgspec.field(default_factory=PoolSizeMemory)
    priority: PriorityMemory = msgspec.field(default_factory=PriorityMemory)
    placement: PlacementMemory = msgspec.field(default_factory=PlacementMemory)
    quarantine: QuarantineMemory = msgspec.field(default_factory=QuarantineMemory)
    guard: GuardMemory = msgspec.field(default_factory=GuardMemory)
    issued: dict[str, Issued] = msgspec.field(default_factory=dict)  # by decision id, oldest first
    watches: list[Watch] = msgspec.field(default_factory=list)


class Engine:
    """Decides, one tick after the other. Each session of the decision log has its own engine, see `resume`."""

    def __init__(
        self,
        config: Config,
        session: str,
        memory: EngineMemory | None = None,
        topology: Topology = Topology(),  # noqa: B008  # a constant: nothing is known, so nothing is placed
    ) -> None:
        memory = memory or EngineMemory()
        self._config = config
        self._session = session
        self._memory = memory
        self._priority = Priority(config, memory.priority)
        self._policies: tuple[Policy, ...] = (  # in the order in which they share the budget of changes
            Quarantine(config, memory.quarantine),
            PoolSize(config, memory.pool_size),
            self._priority,
            Placement(config, memory.placement, topology),
        )
        self._guard = Guard(config, session, memory.guard, topology.online)

    @classmethod
    def resume(
        cls,
        config: Config,
        session: str,
        memory: dict[str, Any],
        topology: Topology = Topology(),  # noqa: B008
    ) -> Engine:
        """An engine that continues from the `memory()` of another one, as after a reload or in the middle of a log.

        In a new session hands-off targets are free again. Raises ValueError if `memory` is not the memory of an engine.
        """
        try:
            return cls(config, session, msgspec.convert(memory, EngineMemory), topology)
        except msgspec.ValidationError as error:
            raise ValueError(f"this is no memory of an engine of this version: {error}; start with an empty one") from None

    def memory(self) -> dict[str, Any]:
        """The whole state before the next tick as plain data that JSON can hold."""
        result: dict[str, Any] = msgspec.to_builtins(self._memory)
        return result

    @property
    def pauses(self) -> Mapping[str, Pause]:
        """Which groups are not demoted for which victims for a while, to be kept for the next run. Read only."""
        return self._memory.priority.pairs.pauses

    def made_for(self) -> dict[tuple[str, Control], tuple[str, str]]:
        """For each change of the priority policy that is in force, by target and control: (its group, the group it protects)."""
        return {(held.target, held.control): (held.group, held.victim) for held in self._memory.priority.held.values()}

    def step(self, tick: Tick) -> Verdict:
        """What to do, what was refused, and what earlier changes led to. Ticks come in order of time."""
        self._hear(tick)
        if tick.gap:
            for policy in self._policies:
                policy.skip()
            self._memory.watches = []  # the figures they compare were not measured
            return Verdict((), (), ())
        effects = self._measure(tick)
        proposals: list[Decision] = []
        for policy in self._policies:
            for proposal in policy.propose(tick):
                id_ = f"{self._session}-{tick.seq}.{len(proposals)}"
                proposals.append(Decision(id_, proposal.policy, proposal.target, proposal.action, proposal.why))
        notes = sorted((note for policy in self._policies for note in policy.notes(tick)), key=lambda note: note.topic)
        admitted, refusals = self._guard.review(tick, proposals, self._priority.waiting)
        by_name = {policy.name: policy for policy in self._policies}
        for decision in admitted:
            by_name[decision.policy].admit(decision)
            self._issue(decision, tick.at)
        self._watch_all(tick, admitted)
        return Verdict(tuple(admitted), tuple(refusals), effects, tuple(notes))

    def standing(self) -> tuple[Standing, ...]:
        """What the policies take to be so because they decided it: in force, or only observed."""
        return tuple(standing for policy in self._policies for standing in policy.standing())

    def forget(self, gone: Gone) -> None:
        """These were only observed and are to be carried out from now on: what still applies is proposed again, in full and without
        the cool-down of a change that was never made."""
        pools = {thing for standing in self.standing() if gone(standing) for thing in standing.about}
        for policy in self._policies:
            policy.forget(gone)
        self._guard.forget(pools)

    def validate(self) -> None:
        """Raises AssertionError if the memory contradicts itself. For tests: run after each step."""
        memory, config = self._memory, self._config
        for name, pool in memory.pool_size.pools.items():
            values = [value for _, value in pool.peaks]
            assert values == sorted(values, reverse=True), f"{name}: peaks must fall"
            assert [at for at, _ in pool.peaks] == sorted(at for at, _ in pool.peaks), f"{name}: peaks must be in order of time"
            assert not (pool.since is None and pool.peaks), f"{name}: peaks without a watch"
        for key, held in memory.priority.held.items():
            assert (held.process is None) == (held.cgroup != ""), f"{key}: a process or a cgroup"
            assert not {key, held.target} & set(memory.guard.hands_off), f"{key}: held although hands off"
            pooled = held.control is Control.NICE and held.group in config.pools
            assert not pooled or held.strength <= 5, f"{key}: workers share locks"
        for target in memory.placement.confined:
            assert target not in memory.guard.hands_off, f"{target}: confined although hands off"
        for pool_name, times in memory.guard.recycles.items():
            assert times == sorted(times), f"{pool_name}: recycles in order of time"
        assert memory.guard.hands_off == sorted(set(memory.guard.hands_off)), "hands off: sorted, each once"
        for watch in memory.watches:
            assert watch.count <= watch.ticks, f"{watch.decision}: more values than ticks"
            assert watch.since <= watch.due, f"{watch.decision}: measured before it begins"
        sizes = [issued.target for issued in memory.issued.values() if isinstance(issued.action, ResizePool)]
        assert len(sizes) == len(set(sizes)), "of a pool only the newest size is waited for"

    def _hear(self, tick: Tick) -> None:
        """Reports to the guard and the policies what became of earlier decisions."""
        memory = self._memory
        for outcome in tick.outcomes:
            self._learn(outcome, tick.at)
        if tick.outcomes and memory.watches:
            changed = {outcome.decision: outcome.status in (Status.APPLIED, Status.PARTIAL) for outcome in tick.outcomes}
            memory.watches = [watch for watch in memory.watches if _hears(watch, changed)]
        late = [id_ for id_, issued in memory.issued.items() if tick.at - issued.at >= UNANSWERED_SECONDS * 1e9]
        for id_ in late:
            del memory.issued[id_]

    def _learn(self, outcome: Outcome, at: int) -> None:
        issued = self._memory.issued.get(outcome.decision)
        if issued is None and outcome.status not in (Status.FOREIGN, Status.RELIEVED):
            return  # superseded, or from an undo that somebody asked for: nothing relies on it
        if issued is not None and not isinstance(issued.action, ResizePool | Recycle):
            del self._memory.issued[outcome.decision]  # pools report more than once: taken, then the result
        target = outcome.target if issued is None else issued.target
        result = Result(None if issued is None else issued.action, target, outcome.status, at)
        self._guard.learn(result)
        for policy in self._policies:
            if issued is None or policy.name == issued.policy or outcome.status in (Status.FOREIGN, Status.RELIEVED):
                policy.learn(result)

    def _issue(self, decision: Decision, at: int) -> None:
        """Remembers the decision until its outcome comes; of a pool's sizes only the newest counts."""
        issued = self._memory.issued
        if isinstance(decision.action, ResizePool):
            for id_ in [id_ for id_, old in issued.items() if isinstance(old.action, ResizePool) and old.target == decision.target]:
                del issued[id_]
        issued[decision.id] = Issued(decision.policy, decision.target, decision.action, at)

    # --- effects --------------------------------------------------------------------------------------------------------------

    def _watch_all(self, tick: Tick, admitted: list[Decision]) -> None:
        """Watches the decisions. Several decisions of a tick that change one group for one victim are measured as one."""
        groups = {group.name: group for group in tick.groups}
        batch, made = _batch_demand(tick), dict[tuple[str, str, Control, bool, str], Watch]()
        for decision in admitted:
            watch = self._watch(tick, decision, groups)
            if watch is None:
                continue
            first = made.setdefault((watch.policy, watch.group, watch.control, watch.back, watch.of), watch)
            if first is not watch:
                first.others.append(decision.id)
                continue
            watch.batch = batch
            self._memory.watches.append(watch)

    def _watch(self, tick: Tick, decision: Decision, groups: Mapping[str, Group]) -> Watch | None:
        """Notes the figure that the decision is to improve. After a restore or a shrink "no effect" is the good news.

        The wait of the victim that the decision names counts from the next tick on, the first that covers the whole change;
        queued work counts from when the new workers can be up. The mean over `priority.effect_after` seconds is compared.
        """
        action = decision.action
        window = round(self._config.priority.effect_after * 1e9)
        since, again = tick.at + 1, 0
        if isinstance(action, ResizePool):
            pool = next((pool for pool in tick.pools if pool.name == action.pool), None)
            if pool is None or pool.queued is None:
                return None
            control, kind, of, before, about = Control.POOL_SIZE, "queued", pool.name, pool.queued, pool.name
            if action.size > pool.size:
                since += round((pool.start_seconds or 0.0) * 1e9)
        elif isinstance(action, Set | Restore) and decision.policy in (Priority.name, Placement.name):
            victim = _victim(tick, decision, groups)
            if victim is None:
                return None
            known = decision.why.figures
            about = str(known.get("contender", known.get("group", decision.target)))
            control, kind, of, before = action.control, "wait", victim.name, wait_share(victim)
            if isinstance(action, Set) and before >= self._config.priority.wait:
                again = STRIKES - 1
        else:
            return None
        back = isinstance(action, Restore)
        due = since - 1 + window
        whole = (about, control) not in self._priority.demoted_before
        return Watch(decision.id, decision.policy, about, control, back, whole, kind, of, before, since, due, again=again)

    def _measure(self, tick: Tick) -> tuple[Effect, ...]:
        if not self._memory.watches:
            return ()
        now: dict[tuple[str, str], float | None] = {("queued", pool.name): pool.queued for pool in tick.pools}
        now.update({("wait", group.name): wait_share(group) for group in tick.groups})
        batch = _batch_demand(tick)
        effects, going, vain = list[Effect](), list[Watch](), list[Ineffective]()
        for watch in self._memory.watches:
            watch.ticks += 1
            value = now.get((watch.kind, watch.of))
            if value is not None and tick.at >= watch.since:
                watch.total += value
                watch.batch_total += batch
                watch.count += 1
            if tick.at < watch.due:
                going.append(watch)
            elif watch.applied and watch.count:
                effects.append(self._effect(watch, tick, going, vain))
        self._memory.watches = going
        if vain:
            self._priority.ineffective(vain, tick)
        return tuple(effects)

    def _effect(self, watch: Watch, tick: Tick, going: list[Watch], vain: list[Ineffective]) -> Effect:
        """The effect of a decision. Adds to `going` what is measured again, and to `vain` what had no effect."""
        after = watch.total / watch.count
        verdict = _verdict(watch.kind, watch.before, after)
        contended = watch.kind == "wait" and min(watch.before, after) >= self._config.priority.wait
        if verdict == "hurt" and watch.kind == "wait" and watch.batch_total / watch.count > MORE_BATCH * watch.batch:
            verdict = "more contention"
        if watch.policy == Priority.name and contended and verdict != "helped" and not watch.back:
            final = watch.whole and not watch.again and verdict != "more contention"
            vain.append(Ineffective(watch.group, watch.of, watch.control, final))
            if watch.again:
                going.append(
                    msgspec.structs.replace(
                        watch,
                        since=tick.at + 1,
                        due=tick.at + round(self._config.priority.effect_after * 1e9),
                        total=0.0,
                        batch_total=0.0,
                        count=0,
                        again=watch.again - 1,
                    )
                )
        metric = (
            f"wait of group {watch.of}, cores per core of demand" if watch.kind == "wait" else f"queued work of pool {watch.of}"
        )
        return Effect(watch.decision, metric, watch.before, after, watch.ticks, verdict, tuple(watch.others))


def first_memory(pauses: Iterable[Pause] = ()) -> dict[str, Any]:
    """The memory of a new engine that knows only these pauses of an earlier run."""
    result: dict[str, Any] = msgspec.to_builtins(EngineMemory(priority=PriorityMemory(pairs=pairs_of(pauses))))
    return result


def _verdict(kind: str, before: float, after: float) -> str:
    """Whether a figure became better.

    A wait is better if its victim waits a quarter less *for each second of CPU that it gets*: that is what its requests feel. As a
    share of its demand, a wait of 97 % could hardly get better at all: beside a hundred hogs 90 % is a third of it.

    >>> _verdict("wait", 0.97, 0.9), _verdict("wait", 0.97, 0.965), _verdict("wait", 0.1, 0.07), _verdict("wait", 0.1, 0.14)
    ('helped', 'no effect', 'helped', 'hurt')
    """
    least = LEAST_CHANGE[kind]
    change = max(CHANGE * before, least)
    if kind == "wait" and before - after >= least and _per_cpu(after) <= (1 - CHANGE) * _per_cpu(before):
        return "helped"
    return "helped" if after <= before - change else "hurt" if after >= before + change else "no effect"


def _per_cpu(share: float) -> float:
    """Seconds of waiting for each second of CPU, of a share of the demand."""
    return share / max(1.0 - share, 1e-9)


def _batch_demand(tick: Tick) -> float:
    """Cores that batch groups want."""
    return sum((group.demand for group in tick.groups if group.latency is Latency.BATCH), 0.0)


def _victim(tick: Tick, decision: Decision, groups: Mapping[str, Group]) -> Group | None:
    """The group that the decision is to help: the one it names, else the latency group that waits most."""
    named = decision.why.figures.get("victim")
    if named is not None:
        return groups.get(str(named))
    protected = [group for group in tick.groups if group.latency is Latency.LATENCY]
    return max(protected, key=lambda group: (wait_share(group), group.name), default=None)


def _hears(watch: Watch, changed: Mapping[str, bool]) -> bool:
    """Notes which decisions changed something. Returns whether there is still something to measure."""
    told = [changed[id_] for id_ in (watch.decision, *watch.others) if id_ in changed]
    watch.applied |= any(told)
    return not told or any(told)
