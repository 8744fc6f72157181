"""Turns snapshots into ticks: what was read becomes what decisions may see. Pure.

`Measurer` is the one place where counters turn into the values of groups, pools and workers, for the runtime and for training.
`Observer` adds windows, forecasts and scores and builds the `Tick`. Both keep state, so they need the snapshots in order.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import msgspec
import numpy as np

from ...models.anomaly.detectors import FEW, LEAST
from ...models.anomaly.evidence import CHANNELS, NEAR
from ...models.anomaly.loners import Loners
from ...models.anomaly.model import AnomalyModel, RobustZ, judge_pools, merged, score
from ...models.behaviour import BehaviourModel, Behaviours
from ...models.features import Rates, Windows, WorkerWindows
from ...models.forecast.demand import METRICS, Forecaster, Network
from ...models.forecast.rhythm import AHEAD, Rhythm
from ...models.records import (
    Behaviour,
    Deadlock,
    Forecast,
    Identity,
    Latency,
    PoolSample,
    ProcId,
    Score,
    Snapshot,
)
from ...models.scaling import Scaling
from ..cgroup_paths import ancestors
from ..config.sections import Config, GroupRule, PoolConfig
from ..decision import (
    START_MARGIN,
    START_UNKNOWN,
    Abilities,
    Group,
    Lesson,
    Machine,
    Member,
    Outcome,
    Pool,
    Predicted,
    Scaled,
    Tick,
    Worker,
)
from .crowding import Crowding
from .loads import OfferedLoad, offered_load
from .measure import Measured, Measurer, cpus_of
from .rivals import running

OWN = frozenset(
    {
        *("_config", "_abilities", "_own", "_seq", "_measurer", "_named"),
        *("_demand", "_forecaster", "_followed", "_spoken", "_scorer", "_behaviours"),
    }
)
"""Attributes of an observer that depend on its session, configuration or models: `follow` does not copy them as they are."""

BUSY_GROUPS = 32
"""Most groups without a class that a tick reports and forecasts, the largest by demand: the rest is idle or noise."""

BUSY_CORES = 0.02
"""Least mean demand, in cores over the window, at which a group without a class is reported."""

PROGRAMS = 4096
"""Most program names that are remembered."""

STABLE_SECONDS, PANIC_SECONDS = 60.0, 6.0
"""Windows of the reactive rule: Knative's defaults (stable-window 60 s, panic window 10 % of it)."""


UNSEEN_TICKS = 5
"""Ticks over which CPU use that no visible process accounts for is smoothed (chosen): the kernel counts busy time in steps of
10 ms, and counts children that come and go only when they are collected."""

UNSEEN_LEAST = 0.1
"""Share of the CPUs that unseen work must use before it is reported. On 2 CPUs, busy with builds, disk writes or loopback traffic,
unaccounted use stayed below 0.02 of them. It reached 0.1 for two ticks when a storm of processes was ended from outside: the kernel
does not report the last CPU use of a child whose parent ignores SIGCHLD."""


class Observer:
    """Builds the tick: the measured values, their windows, forecasts and scores. The same snapshots give the same ticks."""

    def __init__(
        self,
        config: Config,
        abilities: Abilities,
        own: ProcId,
        demand: Network | None,
        anomaly: AnomalyModel | None,
        behaviour: BehaviourModel | None,
    ) -> None:
        self._config = config
        self._abilities = abilities
        self._own = own
        self._measurer = Measurer(config)
        self._demand = demand
        self._forecaster = Forecaster(demand, config.daemon.interval)
        self._followed = set[str]()  # groups that were reported once and still exist
        self._spoken = frozenset[str]() if demand is None else demand.speaks
        self._scorer = anomaly or RobustZ()
        self._behaviours = Behaviours(behaviour, config.models.certainty, config.daemon.interval)
        self._series = Windows(1)
        self._workers = WorkerWindows(len(CHANNELS))
        self._loners = Loners(config.daemon.interval)
        self._loads: dict[str, deque[tuple[int, float]]] = {}
        self._offered: dict[str, OfferedLoad] = {}
        self._scalings: dict[str, Scaling] = {}
        self._named: dict[str, bool] = {}  # whether `guard.protect` names a program
        self._cpu_per_worker: dict[str, float] = {}
        self._before: Snapshot | None = None
        self._crowding = Crowding(abilities.topology.online)
        self._rivals: tuple[Mapping[ProcId, Identity] | None, tuple[str, ...]] = (None, ())  # (identities, the rivals among them)
        self._seq = -1
        self._unseen = 0.0  # cores, smoothed; negative by as much as the measurement is off

    def tick(
        self,
        snapshot: Snapshot,
        outcomes: tuple[Outcome, ...],
        paused: bool,
        deadlocks: tuple[Deadlock, ...] = (),
        lessons: tuple[Lesson, ...] = (),
    ) -> Tick:
        """The tick of this snapshot. `deadlocks`: what `Deadlocks` saw on the live machine; a trace has none. `lessons`: what users
        reported as no incident."""
        self._seq += 1
        measured = self._measurer.measure(snapshot)
        before, self._before = self._before, snapshot
        if measured is None or before is None:
            for scaling in self._scalings.values():
                scaling.step(None, None)
            self._unseen = 0.0
            machine = self._machine(snapshot)
            return Tick(self._seq, snapshot.at, snapshot.wall, True, paused, machine, (), (), (), (), (), outcomes)
        keys = sorted(measured.series)
        self._series.push(keys, np.array([[measured.series[key]] for key in keys]).reshape(len(keys), 1))
        self._workers.push(measured.worker_keys, measured.workers)
        classes = self._classes(measured)
        reported = self._reported(measured, snapshot, classes)
        sheltered = self._sheltered(measured, snapshot)
        scores = self._scores(measured, snapshot.host.memory_available)
        self._crowding.push(snapshot, measured.rates.cpu, measured.members, measured.rows, measured.worker_keys, measured.seconds)
        return Tick(
            seq=self._seq,
            at=snapshot.at,
            wall=snapshot.wall,
            gap=False,
            paused=paused,
            machine=self._machine(snapshot, before, measured),
            protected=self._protected(measured, snapshot, sheltered),
            groups=self._groups(measured, snapshot, before, reported, classes),
            pools=tuple(self._pool(pool, measured, snapshot) for pool in sorted(snapshot.pools, key=lambda pool: pool.pool)),
            forecasts=self._forecasts(measured, reported, snapshot),
            scores=scores,
            outcomes=outcomes,
            home=self._home(measured, snapshot),
            deadlocks=deadlocks,
            crowds=self._crowding.of(scores, snapshot),
            lessons=lessons,
            sheltered=sheltered,
        )

    def recall(self, past: Sequence[tuple[int, tuple[PoolSample, ...]]]) -> None:
        """Replay the past loads of pools, (monotonic ns, pools), oldest first, before the first tick."""
        for at, pools in past:
            for pool in pools:
                if pool.pool in self._config.pools:
                    self._follow(pool, offered_load(pool), at)

    def follow(self, before: Observer) -> None:
        """Continue, before the first tick, from what an observer of the same machine and interval has learned. Do not use that one
        afterwards. Outputs of another model start anew, and so do groups and pools whose definition has changed.

        Raises ValueError if the interval differs: nothing learned fits then.
        """
        if before._config.daemon.interval != self._config.daemon.interval:
            raise ValueError("an observer of another interval has nothing that could be gone on from")
        pools = _redefined(before._config, self._config)
        names = pools | _regrouped(before._config, self._config)
        scored = before._config.quarantine.enabled and self._config.quarantine.enabled
        own = {*OWN, *(() if scored else ("_loners",))}
        vars(self).update((name, known) for name, known in vars(before).items() if name not in own)
        self._measurer.follow(before._measurer, anew=bool(names))
        self._series.forget(_keys_of(names))
        self._follow_models(before, names)
        for of_pools in (self._loads, self._offered, self._scalings, self._cpu_per_worker):
            for name in pools:
                of_pools.pop(name, None)

    def _follow_models(self, before: Observer, names: Collection[str]) -> None:
        """What each group did is kept with any model; what a model said about it only if the model is the same."""
        self._behaviours.follow(before._behaviours, sorted(names))
        ours, theirs = self._demand, before._demand
        if (ours is None) != (theirs is None):
            return
        self._followed = before._followed - set(names)
        self._forecaster = before._forecaster
        self._forecaster.forget(_keys_of(names))
        if ours is not None and theirs is not None and ours.digest != theirs.digest:
            self._forecaster.hear(ours)

    @property
    def trouble(self) -> str:
        """Why the demand model could not be used at the last tick, so that the baseline forecast; "" if it could."""
        return self._forecaster.trouble

    @property
    def changes(self) -> tuple[str, ...]:
        """For what the demand model was given up at the last tick, or used again: a sentence each."""
        return tuple(change.reason for change in self._forecaster.changes)

    def closing(self, at: int, wall: int, outcomes: tuple[Outcome, ...]) -> Tick | None:
        """A last tick without a snapshot, for the log to attach an undo; nothing is decided on it. None before the first tick."""
        if self._before is None:
            return None
        self._seq += 1
        return Tick(self._seq, at, wall, True, True, self._machine(self._before), (), (), (), (), (), outcomes)

    def _machine(self, snapshot: Snapshot, before: Snapshot | None = None, measured: Measured | None = None) -> Machine:
        host, cpus = snapshot.host, len(snapshot.host.cpu_busy_ns)
        busy, steal, pressure = 0.0, 0.0, None
        if before is not None and measured is not None:
            elapsed = snapshot.at - before.at
            use = machine_use(before, snapshot, measured.rates)
            busy, steal = use.busy, use.steal
            self._unseen += (busy - use.seen - self._unseen) / UNSEEN_TICKS
            if host.pressure_us is not None and before.host.pressure_us is not None:
                cpu, memory, io = (
                    min(max(now - was, 0) * 1000 / elapsed, 1.0)
                    for now, was in zip(host.pressure_us, before.host.pressure_us, strict=True)
                )
                pressure = (cpu, memory, io)
        return Machine(
            cpus=cpus,
            busy=busy,
            memory_total=host.memory_total,
            memory_available=host.memory_available,
            pressure=pressure,
            autogroup=self._abilities.autogroup,
            cpu_cgroup=self._abilities.cpu_cgroup,
            may_renice=self._abilities.may_renice,
            rivals=self._running_rivals(snapshot.identities),
            steal=steal,
            unseen=self._unseen if self._unseen >= UNSEEN_LEAST * cpus > 0 else 0.0,
        )

    def _running_rivals(self, identities: Mapping[ProcId, Identity]) -> tuple[str, ...]:
        """Programs that also tune processes. Searched only when a process started, ended or became another program."""
        if self._rivals[0] is not identities:
            own = identities.get(self._own)
            self._rivals = identities, running(identities.values(), 0 if own is None else own.uid)
        return self._rivals[1]

    def _classes(self, measured: Measured) -> dict[str, tuple[Latency, Behaviour | None]]:
        """(class, the behaviour that it was learned from) of each group: as configured, else as it behaves.

        The daemon's own group has no class unless it is pinned: with clients that ask for its status it may look like a service,
        and what nicety does against waiting must never favour nicety.
        """
        learned = self._behaviours.step(measured.groups, measured.behaviour)
        row = measured.rows.get(self._own)
        ours = None if row is None else measured.members[row]
        classes: dict[str, tuple[Latency, Behaviour | None]] = {}
        for name, behaviour in zip(measured.groups, learned, strict=True):
            pinned = self._measurer.pinned(name)
            if pinned is not None:
                classes[name] = pinned, None
            elif name == ours:
                classes[name] = Latency.NONE, None
            else:
                classes[name] = Latency.NONE if behaviour is None else behaviour.latency, behaviour
        return classes

    def _reported(
        self, measured: Measured, snapshot: Snapshot, classes: Mapping[str, tuple[Latency, Behaviour | None]]
    ) -> tuple[str, ...]:
        """Groups that the tick reports: those with a class, pools, and the busiest others."""
        pools = {pool.pool for pool in snapshot.pools}
        named = {name for name in measured.groups if name in pools or classes[name][0] is not Latency.NONE}
        others = [name for name in measured.groups if name not in named]
        if others:
            windows, _ = self._series.view([(name, "cpu") for name in others])
            means = np.nanmean(windows[:, :, 0], axis=1)
            ranked = sorted(((-float(mean), name) for mean, name in zip(means, others, strict=True) if mean >= BUSY_CORES))
            named.update(name for _, name in ranked[:BUSY_GROUPS])
        return tuple(sorted(named))

    def _groups(
        self,
        measured: Measured,
        snapshot: Snapshot,
        before: Snapshot,
        reported: Sequence[str],
        classes: Mapping[str, tuple[Latency, Behaviour | None]],
    ) -> tuple[Group, ...]:
        index = {name: i for i, name in enumerate(measured.groups)}
        members: dict[str, list[Member]] = {name: [] for name in reported if classes[name][0] is not Latency.NONE}
        table = snapshot.table
        if members:
            sessions, nices, parents = table["session"].tolist(), table["nice"].tolist(), table["ppid"].tolist()
            for id_, row in measured.rows.items():
                group = members.get(measured.members[row])
                if group is not None:
                    group.append(Member(id_, sessions[row], snapshot.identities[id_].cgroup, nices[row], parents[row]))
        throttled = _throttled(measured, snapshot, before)
        result = []
        for name in reported:
            i = index[name]
            cpu, wait = float(measured.cpu[i]), float(measured.wait[i])
            result.append(
                Group(
                    name=name,
                    latency=classes[name][0],
                    processes=int(measured.processes[i]),
                    cpu=cpu,
                    wait=wait,
                    demand=float(measured.demand[i]),
                    rss=int(measured.rss[i]),
                    members=tuple(sorted(members.get(name, ()), key=lambda member: member.id)),
                    behaviour=classes[name][1],
                    brief=float(measured.brief[i]),
                    throttled=throttled.get(name, 0.0),
                )
            )
        return tuple(result)

    def _home(self, measured: Measured, snapshot: Snapshot) -> Member | None:
        row = measured.rows.get(self._own)
        if row is None:
            return None
        return _member(self._own, snapshot.table[row], snapshot.identities[self._own])

    def _pool(self, pool: PoolSample, measured: Measured, snapshot: Snapshot) -> Pool:
        limits = self._config.pools[pool.pool]
        load = offered_load(pool)
        history = self._loads.setdefault(pool.pool, deque())
        if load is not None:
            history.append((snapshot.at, load))
        while history and history[0][0] < snapshot.at - STABLE_SECONDS * 1e9:
            history.popleft()
        workers, ran, waited, busy, largest = [], 0.0, 0.0, 0.0, 0
        at_work = done = 0.0  # of workers that report whether they are busy
        for worker in pool.workers:
            row = measured.rows.get(worker.id)
            if row is None:
                continue
            cpu, wait = float(measured.rates.cpu[row]), float(measured.rates.wait[row])
            rss = int(snapshot.table[row]["rss_bytes"])
            workers.append(Worker(worker.id, worker.ready, worker.busy, cpu, wait, rss))
            largest = max(largest, rss)
            if worker.ready:
                ran, waited, busy = ran + cpu, waited + wait, busy + (worker.busy or 0.0)
                if worker.busy is not None:
                    at_work, done = at_work + worker.busy, done + cpu
        return Pool(
            name=pool.pool,
            size=pool.size,
            requested=pool.requested,
            minimum=limits.minimum,
            maximum=limits.maximum,
            busy=busy if load is not None else None,
            queued=pool.queued,
            load=load,
            load_stable=_mean(history, snapshot.at - STABLE_SECONDS * 1e9),
            load_panic=_mean(history, snapshot.at - PANIC_SECONDS * 1e9),
            start_seconds=pool.start_seconds,
            cpu_per_worker=self._cores_per_busy_worker(pool.pool, ran, waited, busy, cpus_of(snapshot)),
            rss_per_worker=largest,
            workers=tuple(workers),
            trouble=pool.trouble,
            predicted=self._predicted(pool, load, snapshot.at),
            scaling=self._scaled(pool.pool, at_work, None if load is None else done),
        )

    def _scaled(self, pool: str, busy: float, done: float | None) -> Scaled | None:
        """The scaling of a pool; None if unknown. CPU used stands for work done, because few frameworks report work, while the
        kernel reports all CPU use."""
        scaling = self._scalings.setdefault(pool, Scaling())
        scaling.step(busy, done)
        curve = scaling.curve()
        if curve is None:
            return None
        return Scaled(
            single=curve.single,
            contention=curve.contention,
            coherency=curve.coherency,
            sizes=curve.sizes,
            largest=curve.largest,
            adds=curve.adds,
            worth=curve.worth,
            certain=curve.certain,
        )

    def _follow(self, pool: PoolSample, load: float | None, at: int) -> Rhythm:
        """Update the rhythm of a pool's load with its present value."""
        interval = self._config.daemon.interval
        offered = self._offered.setdefault(pool.pool, OfferedLoad(Rhythm(interval, stagger=len(self._offered))))
        offered.step(round(at / (interval * 1e9)), load, pool.queued or 0.0, self._config.pools[pool.pool].maximum)
        return offered.rhythm

    def _predicted(self, pool: PoolSample, load: float | None, at: int) -> Predicted | None:
        """What the rhythm of the load forecasts for the coming start time."""
        interval = self._config.daemon.interval
        rhythm = self._follow(pool, load, at)
        horizon = START_MARGIN * (START_UNKNOWN if pool.start_seconds is None else pool.start_seconds)
        ahead = rhythm.ahead(math.ceil(min(horizon / interval, AHEAD)) + 1)
        later = rhythm.ahead(math.ceil(min(max(horizon, self._config.pool_size.down_after) / interval, AHEAD)) + 1)
        soon = rhythm.ahead(math.ceil(min(self._config.pool_size.cooldown_down / interval, AHEAD)))
        if ahead is None or later is None or soon is None:
            return None
        return Predicted(
            period=ahead.period * interval,
            seen=ahead.seen,
            right=ahead.right,
            trusted=ahead.trusted,
            abrupt=ahead.abrupt,
            horizon=horizon,
            median=ahead.median,
            high=ahead.high,
            later=later.most,
            least=soon.least,
            now=ahead.now,
        )

    def _cores_per_busy_worker(self, pool: str, ran: float, waited: float, busy: float, cpus: float) -> float:
        """Cores that one busy worker would use without contention; smoothed over about 20 ticks, 1 until work was seen.

        While busy, a worker runs, waits for a CPU, or waits for something else. Without the second, it runs for
        ran / (busy - waited) of the time, as in `features.uncontended`. Threads can make that more than 1, but at most `cpus`.
        """
        own = busy - waited
        if own >= 0.25:
            now = min(ran / own, cpus)
            before = self._cpu_per_worker.get(pool)
            self._cpu_per_worker[pool] = now if before is None else before + 0.05 * (now - before)
        return self._cpu_per_worker.get(pool, 1.0)

    def _forecasts(self, measured: Measured, reported: Sequence[str], snapshot: Snapshot) -> tuple[Forecast, ...]:
        """Forecasts of the groups that the tick reports. A group is followed from its first report on, so that its history exists
        when it is reported again."""
        wanted = set(reported)
        self._followed = {name for name in self._followed | wanted if (name, "cpu") in measured.series}
        keys = sorted(key for key in measured.series if key[0] in self._followed or key[1] == "load")
        values = np.array([measured.series[key] for key in keys])
        ask = np.array([metric in self._spoken for _, metric in keys], dtype=np.bool_)
        limits = {"rss": float(snapshot.host.memory_total), "cpu": cpus_of(snapshot)}
        most = np.array([limits.get(metric, math.inf) for _, metric in keys])
        of = np.array([METRICS.index(metric) for _, metric in keys], dtype=np.int64)
        forecasts = self._forecaster.step(keys, values, snapshot.wall / 1e9, of, ask, most)
        return tuple(
            Forecast(target, metric, *forecasts[which])
            for which, (target, metric) in enumerate(keys)
            if target in wanted or metric == "load"
        )

    def _scores(self, measured: Measured, available: int) -> tuple[Score, ...]:
        """Scores of all workers, and of masters whose pools have trouble; none if nothing would act on them."""
        if not self._config.quarantine.enabled:
            return ()
        interval = self._config.daemon.interval
        windows, lengths = self._workers.view()
        keys, pools = measured.worker_keys, measured.worker_pools
        alone = self._loners.step(keys, pools, windows, lengths)
        least = LEAST if self._config.quarantine.false_alarms_per_day > FEW else NEAR
        workers = score(self._scorer, keys, pools, windows, lengths, interval, available, alone, least)
        return tuple(merged(judge_pools(self._scorer, measured.noticed, interval), workers))

    def _protected(self, measured: Measured, snapshot: Snapshot, sheltered: Sequence[Member]) -> tuple[ProcId, ...]:
        """Processes that are never touched: nicety and its ancestors, pid 1, masters, and what `guard.protect` names."""
        table, rows = snapshot.table, measured.rows
        by_pid = {id_.pid: id_ for id_ in rows}
        found = {self._own}
        parent = by_pid.get(self._own.pid)
        while parent is not None:
            found.add(parent)
            up = by_pid.get(int(table[rows[parent]]["ppid"]))
            parent = up if up not in found else None
        if 1 in by_pid:
            found.add(by_pid[1])
        found.update(pool.master for pool in snapshot.pools if pool.master is not None)
        found.update(member.id for member in sheltered)
        return tuple(sorted(found))

    def _sheltered(self, measured: Measured, snapshot: Snapshot) -> tuple[Member, ...]:
        """Processes that `guard.protect` names, in any group: the session or cgroup of such a process is not demoted."""
        table, found = snapshot.table, list[Member]()
        for id_, row in measured.rows.items():
            identity = snapshot.identities[id_]
            named = self._named.get(identity.program)
            if named is None:
                if len(self._named) >= PROGRAMS:
                    self._named.clear()
                named = self._named[identity.program] = any(
                    fnmatchcase(identity.program, pattern) for pattern in self._config.guard.protect
                )
            if named:
                found.append(_member(id_, table[row], identity))
        return tuple(sorted(found, key=lambda member: member.id))


def _throttled(measured: Measured, snapshot: Snapshot, before: Snapshot) -> dict[str, float]:
    """Groups with a cgroup that a quota stopped -> share of the tick for which it was stopped, the largest of their cgroups.

    The kernel adds up CPUs, so a cgroup with threads on many may have been stopped for less: the share is at most 1.
    """
    then = dict(before.quotas)
    stopped = {
        quota.cgroup: min(more / 1e9 / measured.seconds, 1.0)
        for quota in snapshot.quotas
        if (more := quota.throttled_ns - then.get(quota.cgroup, quota.throttled_ns)) > 0
    }
    if not stopped:
        return {}
    found: dict[str, float] = {}
    homes = {(measured.members[row], snapshot.identities[id_].cgroup) for id_, row in measured.rows.items()}
    for name, cgroup in homes:
        share = max((stopped.get(path, 0.0) for path in ancestors(cgroup)), default=0.0)
        found[name] = max(share, found.get(name, 0.0))
    return found


@dataclass(frozen=True, slots=True)
class MachineUse:
    """Cores of a machine between two snapshots."""

    busy: float  # in use
    steal: float  # that the hypervisor gave to others
    seen: float  # in use by visible processes, their brief children and the kernel; clock differences may put it above `busy`


def machine_use(before: Snapshot, now: Snapshot, rate: Rates) -> MachineUse:
    """What the machine did between two snapshots; `rate` holds the rates between them.

    A process that was not visible before may have used all of its CPU time since then.
    """
    host, then, elapsed, cpus = now.host, before.host, now.at - before.at, float(len(now.host.cpu_busy_ns))
    busy = sum(max(here - was, 0) for here, was in zip(host.cpu_busy_ns, then.cpu_busy_ns, strict=False)) / elapsed
    kernel = max(host.kernel_ns - then.kernel_ns, 0) / elapsed
    new = ~rate.known
    most = np.minimum(now.table["cpu_ns"][new] / elapsed, now.table["threads"][new])
    return MachineUse(
        busy=min(busy, cpus),
        steal=min(max(host.steal_ns - then.steal_ns, 0) / elapsed, cpus),
        seen=kernel + float(rate.cpu.sum() + rate.brief.sum() + most.sum()),
    )


def _member(id_: ProcId, record: np.void, identity: Identity) -> Member:
    return Member(id_, int(record["session"]), identity.cgroup, int(record["nice"]), int(record["ppid"]), identity.cpus)


def _redefined(before: Config, now: Config) -> set[str]:
    """Pools that came, went or were redefined. Other limits or another class alone do not redefine a pool."""

    def same(a: PoolConfig | None, b: PoolConfig | None) -> bool:
        if a is None or b is None:
            return False
        return msgspec.structs.replace(b, minimum=a.minimum, maximum=a.maximum, latency=a.latency, initial=a.initial) == a

    return {name for name in before.pools.keys() | now.pools.keys() if not same(before.pools.get(name), now.pools.get(name))}


def _regrouped(before: Config, now: Config) -> set[str]:
    """Groups of the configuration that came, went or match otherwise now; all of them if the order of the rules has changed."""

    def rules(config: Config) -> dict[str, GroupRule]:
        return {name: msgspec.structs.replace(rule, latency=None) for name, rule in config.groups.items()}

    then, there = rules(before), rules(now)
    if [name for name in then if name in there] != [name for name in there if name in then]:
        return {*then, *there}
    return {name for name in then.keys() | there.keys() if then.get(name) != there.get(name)}


def _keys_of(names: Collection[str]) -> list[tuple[str, str]]:
    """The keys of the series of groups and pools with these names."""
    return [(name, metric) for name in sorted(names) for metric in METRICS]


def _mean(history: Sequence[tuple[int, float]], since: float) -> float | None:
    recent = [load for at, load in history if at > since]
    return sum(recent) / len(recent) if recent else None
