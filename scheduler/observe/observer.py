"""Turns snapshots into ticks: what was read becomes what decisions may see. Pure.

`Measurer` is the one place where counters turn into the values of groups, pools and workers, for the runtime and for training.
`Observer` adds windows, forecasts and scores and builds the `Tick`. Both keep state, so they need the snapshots in order.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace

from ...models.anomaly.detectors import FEW, LEAST
from ...models.anomaly.evidence import CHANNELS, NEAR
from ...models.anomaly.lifecycle import Noticed
from ...models.anomaly.model import AnomalyModel, RobustZ, TickOfWorkers, judge_pools, merged, scores_of_ticks
from ...models.anomaly.self_history import SelfHistory
from ...models.behaviour import BehaviourModel, Behaviours
from ...models.features import Windows, WorkerWindows
from ...models.forecast.answers import TrainedModel
from ...models.forecast.kept import Kept
from ...models.identity import ProcId
from ...models.records import HORIZONS, WINDOW, Behaviour, Class, Deadlock, PoolSample, Snapshot
from ..config.sections import Config
from ..decision import START_MARGIN, Abilities, Chosen, Feedback, Member, Outcome, Tick
from .antagonists import Antagonists
from .delays import Delays
from .forecasts import Forecasts, keys_of
from .group_figures import Classes, Members, groups_of, member_of
from .machine import MachineFigures
from .measure import Measured, Measurer
from .occupancy import Occupancy, busy_between, occupancy
from .pool_figures import PoolFigures
from .protection import Protection
from .redefined import redefined_pools, regrouped
from .tenancy import Tenancy, owner_name

BUSY_GROUPS = 32
"""Most groups without a class that a tick reports and forecasts, the largest by demand (chosen): the rest is idle or noise."""

BUSY_CORES = 0.02
"""Least mean demand, in cores over the window, at which a group without a class is reported (chosen)."""


TOGETHER = 256
"""Workers that are judged together where snapshots are known in advance: enough that numpy does the work, few enough that their
windows are small (chosen: 1.3 MB)."""

PROCESSES = 16_000
"""Rows of the tables of such ticks: it bounds what is kept of them (chosen: 10 MB)."""


@dataclass(frozen=True, slots=True)
class TickInputs:
    """What a tick says besides what is made of the snapshot: see `Observer.tick`."""

    outcomes: tuple[Outcome, ...]
    paused: bool
    deadlocks: tuple[Deadlock, ...] = ()
    feedback: tuple[Feedback, ...] = ()
    chosen: tuple[Chosen, ...] = ()


@dataclass(frozen=True, slots=True)
class _Begun:
    """A tick whose workers are not judged yet."""

    tick: Tick
    workers: TickOfWorkers
    noticed: tuple[Noticed, ...]
    ran: tuple[Snapshot, Occupancy, Sequence[str], Mapping[ProcId, int], Sequence[ProcId], float] | None  # for `Antagonists.push`


_Stages = Generator[int | None, None, _Begun]

_NO_WORKERS = TickOfWorkers(
    (), (), np.zeros((len(CHANNELS), WINDOW, 0), dtype=np.float32), np.zeros(0, dtype=np.int64), None, None, ()
)


class Observer:
    """Builds the tick: the measured values, their windows, forecasts and scores. The same snapshots give the same ticks."""

    def __init__(
        self,
        config: Config,
        abilities: Abilities,
        own: ProcId,
        demand: TrainedModel | None,
        anomaly: AnomalyModel | None,
        behaviour: BehaviourModel | None,
    ) -> None:
        self._config = config
        self._own = own
        self._measurer = Measurer(config, own=own)
        self._scorer = anomaly or RobustZ()
        self._behaviours = Behaviours(behaviour, config.models.certainty, config.daemon.interval)
        self._series = Windows(1)
        self._workers = WorkerWindows(len(CHANNELS))
        self._self_history = SelfHistory(config.daemon.interval)
        self._online = abilities.topology.online
        self._antagonists = Antagonists()
        self._delays = Delays(abilities.autogroup)
        self._machine = MachineFigures(abilities, own)
        self._pools = PoolFigures(config)
        self._forecasts = Forecasts(demand, config.daemon.interval)
        self._protection = Protection(config, own)
        self._tenancy = Tenancy(config.tenants)
        self._members = Members()
        self._before: Snapshot | None = None
        self._seq = -1
        self.shown = False
        """Whether `made_of` is asked after each tick. What nobody asks for is not kept: it is some hundred bytes a process."""
        self._made_of: tuple[Snapshot, Measured] | None = None

    def tick(
        self,
        snapshot: Snapshot,
        outcomes: tuple[Outcome, ...],
        paused: bool,
        deadlocks: tuple[Deadlock, ...] = (),
        feedback: tuple[Feedback, ...] = (),
        chosen: tuple[Chosen, ...] = (),
    ) -> Tick:
        """The tick of this snapshot. `deadlocks`: what `Deadlocks` saw on the live machine; a trace has none. `feedback`: what
        users reported as no incident. `chosen`: rules of pools that a replay chose."""
        stages = self._stages(snapshot, TickInputs(outcomes, paused, deadlocks, feedback, chosen), alone=True)
        next(stages)
        return self._finish([stages])[0]

    def ticks(self, snapshots: Iterable[tuple[Snapshot, TickInputs]]) -> list[Tick]:
        """What `tick` gives for each of these snapshots, to the bit, for less. Several ticks go through a stage one after another,
        so what it needs is still in the cache. And their workers are judged together."""
        ticks, begun, workers, processes = list[Tick](), list[_Stages](), 0, 0
        for snapshot, inputs in snapshots:
            stages = self._stages(snapshot, inputs, alone=False)
            more = next(stages)
            if more is None or workers >= TOGETHER or processes >= PROCESSES:
                ticks += self._finish(begun)
                begun, workers, processes = [], 0, 0
            begun.append(stages)
            if more is None:
                ticks += self._finish(begun)
                begun = []
            workers, processes = workers + (more or 0), processes + len(snapshot.table)
        return ticks + self._finish(begun)

    def _stages(self, snapshot: Snapshot, inputs: TickInputs, *, alone: bool) -> _Stages:
        """Everything of a tick but what rests on the scores of workers, in stages. What a stage remembers, no other one uses. So
        later ticks may go through a stage before this one goes through the next. First it says how many workers there are; None:
        it comes after a gap, so finish the ticks before it. `alone`: the tick is finished before the next begins."""
        self._seq += 1
        seq = self._seq
        measured = self._measurer.measure(snapshot)
        before, self._before = self._before, snapshot
        self._made_of = (snapshot, measured) if self.shown and measured is not None else None
        if measured is None or before is None:
            yield None
            self._pools.step_gap()
            self._delays.gap()
            machine = self._machine.gap(snapshot)
            tick = Tick(seq, snapshot.at, snapshot.wall, True, inputs.paused, machine, (), (), (), (), (), inputs.outcomes)
            return _Begun(tick, _NO_WORKERS, (), None)
        yield len(measured.worker_keys)
        classes = self._step_classes(measured)
        yield None
        keys = sorted(measured.series)
        self._series.push(keys, np.array([[measured.series[key]] for key in keys]).reshape(len(keys), 1))
        self._workers.push(measured.worker_keys, measured.workers)
        workers = self._step_workers(measured, snapshot, alone)
        reported = self._reported(measured, snapshot, classes)
        yield None
        forecasts = self._forecasts.step(measured, reported, snapshot)
        later = self._forecasts.later([pool.pool for pool in snapshot.pools if self._slow(pool)])
        yield None
        sheltered = self._protection.sheltered(measured, snapshot)
        groups = groups_of(measured, snapshot, before, reported, classes, self._tenancy, self._members)
        batch = [member for group in groups if group.class_ is Class.BATCH for member in group.members]
        shared = self._tenancy.shared(snapshot, batch)
        protected = self._protection.protected(measured, snapshot, sheltered)
        yield None
        pools = self._pools.step(snapshot, measured, later)
        yield None
        machine = self._machine.step(before, snapshot, measured.rates)
        ran = occupancy(
            snapshot,
            measured.rates,
            list(measured.rows),
            busy_between(before, snapshot),
            self._machine.outside,
            self._online,
        )
        yield None
        delays = self._delays.step(before, snapshot, measured, ran, machine.steal)
        ran_where = (snapshot, ran, measured.members, measured.rows, measured.worker_keys, measured.seconds)
        tick = Tick(
            seq=seq,
            at=snapshot.at,
            wall=snapshot.wall,
            gap=False,
            paused=inputs.paused,
            machine=machine,
            protected=protected,
            groups=groups,
            pools=pools,
            forecasts=forecasts,
            scores=(),
            outcomes=inputs.outcomes,
            home=self._home(measured, snapshot),
            deadlocks=inputs.deadlocks,
            feedback=inputs.feedback,
            chosen=inputs.chosen,
            sheltered=sheltered,
            shared=shared,
            delays=delays,
        )
        return _Begun(tick, workers, measured.noticed, ran_where)

    def _finish(self, stages: Sequence[_Stages]) -> list[Tick]:
        """The ticks, with scores of workers, and of masters whose pools have trouble; none if nothing would act on them."""
        begun = list[_Begun]()
        while len(begun) < len(stages):
            for each in stages:
                try:
                    next(each)
                except StopIteration as end:
                    begun.append(end.value)
        interval, ticks = self._config.daemon.interval, list[Tick]()
        least = LEAST if self._config.quarantine.false_alarms_per_day > FEW else NEAR
        found = scores_of_ticks(self._scorer, [each.workers for each in begun], interval, least)
        for one, workers in zip(begun, found, strict=True):
            if one.ran is None:
                ticks.append(one.tick)
                continue
            self._antagonists.push(*one.ran)
            noticed = one.noticed if self._config.quarantine.enabled else ()
            scores = tuple(merged(judge_pools(self._scorer, noticed, interval), workers))
            starved = self._antagonists.of(scores, one.ran[0])
            ticks.append(replace(one.tick, scores=scores, starved_workers=starved))
        return ticks

    def made_of(self) -> tuple[Snapshot, Measured] | None:
        """What the last tick was made of, handed over and kept no longer. None: rates were not known, or `shown` is off."""
        made_of, self._made_of = self._made_of, None
        return made_of

    def start_warm(self, past: Sequence[tuple[int, tuple[PoolSample, ...]]]) -> None:
        """Replay the past loads of pools, (monotonic ns, pools), oldest first, before the first tick."""
        self._pools.start_warm(past, self._measurer.requests)

    def remember(self, kept: Kept) -> None:
        """Have forecasts go on from what an earlier session had kept. Call it before the first tick."""
        self._forecasts.remember(kept)

    def kept(self) -> Kept:
        """What forecasts have learned, for `remember`."""
        return self._forecasts.kept()

    def follow(self, before: Observer) -> None:
        """Take over what an observer of the same machine and interval has learned. Call it before the first tick, and do not use
        the other observer afterwards. Forecasts of another model start from nothing, and so do groups and pools whose definition
        has changed.

        Raises ValueError if the interval differs: nothing learned fits then.
        """
        if before._config.daemon.interval != self._config.daemon.interval:
            raise ValueError("what was learned with another interval cannot be taken over")
        pools = redefined_pools(before._config, self._config)
        names = pools | regrouped(before._config, self._config)
        self._measurer.follow(before._measurer, pools, regroup=bool(names) or before._config.tenants != self._config.tenants)
        self._behaviours.follow(before._behaviours, sorted(names))
        self._series, self._workers = before._series, before._workers
        self._series.forget(keys_of(names))
        if before._config.quarantine.enabled and self._config.quarantine.enabled:
            self._self_history = before._self_history
        self._antagonists, self._delays, self._before = before._antagonists, before._delays, before._before
        self._machine.follow(before._machine)
        self._pools.follow(before._pools, pools)
        self._forecasts.follow(before._forecasts, names)

    @property
    def trouble(self) -> str:
        """Why the demand model could not be used at the last tick, so that the baseline forecast; "" if it could."""
        return self._forecasts.trouble

    @property
    def changes(self) -> tuple[str, ...]:
        """What the demand model is no longer used for since the last tick, or used for again: one sentence each."""
        return self._forecasts.changes

    def closing(self, at: int, wall: int, outcomes: tuple[Outcome, ...]) -> Tick | None:
        """A last tick without a snapshot, to which the log attaches the outcomes of undo. Nothing is decided on it. None before the
        first tick."""
        if self._before is None:
            return None
        self._seq += 1
        return Tick(self._seq, at, wall, True, True, self._machine.at_rest(self._before), (), (), (), (), (), outcomes)

    def _step_classes(self, measured: Measured) -> Classes:
        """Take what the groups did. Returns the class of each: as configured, else as it behaves.

        The daemon's own group has no class unless it is pinned. Clients that ask for its status make it look like a service, but
        nicety must never favour itself.
        """
        learned = self._behaviours.step(measured.groups, measured.behaviour)
        row = measured.rows.get(self._own)
        ours = None if row is None else measured.members[row]
        classes: dict[str, tuple[Class, Behaviour | None]] = {}
        for name, behaviour in zip(measured.groups, learned, strict=True):
            pinned = self._measurer.pinned(name)
            if pinned is not None:
                classes[name] = pinned, None
            elif name == ours:
                classes[name] = Class.EXEMPT, None
            else:
                classes[name] = Class.EXEMPT if behaviour is None else behaviour.inferred, behaviour
        return classes

    def _reported(self, measured: Measured, snapshot: Snapshot, classes: Classes) -> tuple[str, ...]:
        """Groups that the tick reports: those with a class, pools, and the busiest others."""
        pools = {pool.pool for pool in snapshot.pools}
        named = {name for name in measured.groups if name in pools or classes[name][0] is not Class.EXEMPT}
        others = [name for name in measured.groups if name not in named]
        if others:
            windows, _ = self._series.view([(name, "cpu") for name in others])
            means = np.nanmean(windows[:, :, 0], axis=1)
            ranked = sorted(((-float(mean), name) for mean, name in zip(means, others, strict=True) if mean >= BUSY_CORES))
            named.update(name for _, name in ranked[:BUSY_GROUPS])
        return tuple(sorted(named))

    def _slow(self, pool: PoolSample) -> bool:
        """Whether its workers take longer to start than the forecasts of all series reach."""
        return START_MARGIN * (pool.start_seconds or 0.0) > max(HORIZONS) * self._config.daemon.interval

    def _home(self, measured: Measured, snapshot: Snapshot) -> Member | None:
        row = measured.rows.get(self._own)
        if row is None:
            return None
        return member_of(self._own, snapshot.table[row], snapshot.identities[self._own])

    def _step_workers(self, measured: Measured, snapshot: Snapshot, alone: bool) -> TickOfWorkers:
        """Take what the workers did. Returns what their scores rest on; no workers if nothing would act on scores."""
        if not self._config.quarantine.enabled:
            return _NO_WORKERS
        windows, lengths = self._workers.view()
        keys, pools = measured.worker_keys, measured.worker_pools
        past = self._self_history.step(keys, pools, windows, lengths)
        owners = [owner_name(snapshot.identities[key], self._config.tenants) for key in keys]
        kept = windows if alone else windows.copy()
        return TickOfWorkers(keys, pools, kept, lengths, snapshot.host.memory_available, past, owners)
