"""nicety itself as a rule: the simulated pool goes through the real `Observer` and the real `Engine`, tick by tick.

Must not contain policy: `scheduler/decide/policies/pool_size/pool_size.py` decides everything. The pool is alone on a machine that
is large enough for all of its workers, so only the load and the configured limits count."""

from __future__ import annotations

import math

import msgspec
import numpy as np

from ...models.forecast.answers import TrainedModel
from ...models.identity import ProcId
from ...models.records import SAMPLE, Flights, HostSample, Identity, Known, PoolSample, SampleTable, Snapshot, WorkerSample
from ..config.sections import Config, Objective, Placement, PoolConfig, Priority, Quarantine
from ..decide.engine import Engine
from ..decision import Abilities, Chosen, Outcome, ResizePool, Rules, Tick, Verdict
from ..hands.faults import Status
from ..observe.observer import Observer
from .queueing import PoolSeen, WorkerSeen

POOL = "pool"
_SECOND = 1_000_000_000
_BEGIN = 1_767_225_600 * _SECOND
"""Wall clock, in ns, at the start of a simulation: a midnight UTC, chosen for the calendar of the forecasts. Nothing else reads
it."""

_UPTIME = 1_000_000
"""Clock ticks since boot at the start of a simulation. Chosen: any value above the start times of all processes."""

MOST_SECONDS = 64
"""Most service times of a tick, as of a real pool: see `Flights`."""

_FIRST_PID = 1000
_RSS = 50 << 20
_OWN = ProcId(2, 1)
_WORKER = Identity("worker", "worker", "/", "", 0)
_MEMORY = 1 << 50


def configured(config: Config, minimum: int, maximum: int, objective: Objective | None = None) -> Config:
    """`config` with one pool of these limits and only the pool size policy: the others do not set a pool's size."""
    pool = PoolConfig(kind="command", minimum=minimum, maximum=maximum, command=["worker"], objective=objective)
    return msgspec.structs.replace(
        config,
        pools={POOL: pool},
        groups={},
        priority=Priority(enabled=False),
        placement=Placement(enabled=False),
        quarantine=Quarantine(enabled=False),
    )


def name_of(rules: Rules, size: int) -> str:
    """What `nicety simulate --rule` calls these rules.

    >>> name_of(Rules.ALL, 0), name_of(Rules.REACTIVE, 0), name_of(Rules.CONSTANT, 8)
    ('nicety', 'nicety-reactive', 'nicety-8')
    """
    return "nicety" if rules is Rules.ALL else f"nicety-{size if rules is Rules.CONSTANT else rules}"


class Nicety:
    """The policy under simulation. Workers and queue are probed every `daemon.probe_interval`, as an adapter does; every
    `daemon.interval` is a tick."""

    wants_workers = True

    def __init__(
        self,
        config: Config,
        minimum: int,
        maximum: int,
        demand: TrainedModel | None,
        *,
        rules: Rules = Rules.ALL,
        size: int = 0,
        peak: float = math.inf,
        objective: Objective | None = None,
    ) -> None:
        """`demand`: the model that the daemon would use; None: the experts forecast. `rules`: those that count; `size`: workers, if
        it is constant, for loads up to `peak` Erlangs. `objective`: of the pool."""
        self.name = name_of(rules, size)
        self._config = configured(config, minimum, maximum, objective)
        self._probes_a_tick = max(1, round(config.daemon.interval / config.daemon.probe_interval))
        self.period = config.daemon.interval / self._probes_a_tick
        self._chosen = () if rules is Rules.ALL else (Chosen(POOL, rules, size, 0.0, 0.0, 0.0, 0.0, peak),)
        abilities = Abilities(autogroup=False, cpu_cgroup="", may_renice=False)
        self._observer = Observer(self._config, abilities, _OWN, demand, None, None)
        self._engine = Engine(self._config, "simulate")
        self._cpus = 4 * maximum + 4
        self._wanted: int | None = None
        self._outcomes: tuple[Outcome, ...] = ()
        self._probes = 0
        self._busy: dict[int, int] = {}  # by worker: probes of this tick at which it was busy
        self._queued = 0
        self._ended: list[float] = []  # service times of the requests that ended in this tick
        self._ran: dict[int, int] = {}  # by worker: ns of CPU, according to the probes
        self._total = 0  # ns of CPU of all workers ever
        self._identities: dict[ProcId, Identity] = {}
        self.last: tuple[Tick, Verdict] | None = None
        """The last tick that the engine saw, and its verdict."""

    def size(self, seen: PoolSeen) -> int:
        """See `SizeRule`."""
        if self._wanted is None:
            self._wanted = seen.size
        self._probes += 1
        self._queued += seen.queued
        self._ended += seen.ended
        for worker in seen.workers:
            if worker.busy:
                self._busy[worker.id] = self._busy.get(worker.id, 0) + 1
        if self._probes == self._probes_a_tick:
            self._tick(seen)
            self._probes = self._queued = 0
            self._busy, self._ended = {}, []
        return self._wanted

    def _tick(self, seen: PoolSeen) -> None:
        assert self._wanted is not None
        snapshot = self._snapshot(seen, self._wanted)
        tick = self._observer.tick(snapshot, self._outcomes, paused=False, chosen=self._chosen)
        verdict = self._engine.step(tick)
        outcomes = []
        for decision in verdict.decisions:
            if isinstance(decision.action, ResizePool):
                self._wanted = decision.action.size
                outcomes.append(Outcome(decision.id, Status.APPLIED, decision.target, f"asked for {self._wanted} workers", 1))
        self._outcomes = tuple(outcomes)
        self.last = tick, verdict

    def _snapshot(self, seen: PoolSeen, wanted: int) -> Snapshot:
        at = round(seen.at * _SECOND)
        ids = [_name(worker) for worker in seen.workers]
        pool = PoolSample(
            pool=POOL,
            size=len(ids),
            requested=wanted,
            queued=self._queued / self._probes,
            workers=tuple(
                WorkerSample(id_, self._busy.get(worker.id, 0) / self._probes, worker.ready)
                for id_, worker in zip(ids, seen.workers, strict=True)
            ),
            master=None,
            start_seconds=seen.start_seconds,
            trouble="",
            flights=Flights(sum(self._busy.values()) / self._probes, len(self._ended), _sample(self._ended)),
        )
        if ids != list(self._identities):  # the same mapping while no worker comes or goes: the observer then looks no further
            self._identities = dict.fromkeys(ids, _WORKER)
        return Snapshot(
            at=at,
            wall=_BEGIN + at,
            uptime_ticks=_UPTIME + at // 10_000_000,
            table=self._table(ids, seen.workers),
            identities=self._identities,
            host=HostSample((self._total // self._cpus,) * self._cpus, _MEMORY, _MEMORY, None),
            pools=(pool,),
        )

    def _table(self, ids: list[ProcId], workers: tuple[WorkerSeen, ...]) -> SampleTable:
        """The counters of the workers. A busy worker runs: its work is CPU-bound, and the machine has a CPU for each."""
        step = round(self.period * _SECOND)
        ran = {worker.id: self._ran.get(worker.id, 0) + step * self._busy.get(worker.id, 0) for worker in workers}
        self._total += step * sum(self._busy.values())
        self._ran = ran
        table = np.zeros(len(ids), dtype=SAMPLE)
        table["pid"] = [id_.pid for id_ in ids]
        table["start_ticks"] = [id_.start_ticks for id_ in ids]
        table["ppid"] = table["session"] = _OWN.pid
        table["cpu_ns"] = list(ran.values())
        table["timeslices"] = [value // 1_000_000 for value in ran.values()]
        table["rss_bytes"] = _RSS
        table["threads"] = 1
        table["state"] = ord("S")
        table["known"] = int(Known.WAIT)
        return table


def _sample(seconds: list[float]) -> tuple[float, ...]:
    """At most `MOST_SECONDS` of these times, evenly from the shortest to the longest."""
    times = sorted(seconds)
    count = min(len(times), MOST_SECONDS)
    return tuple(times[int((at + 0.5) * len(times) / count)] for at in range(count))


def _name(worker: WorkerSeen) -> ProcId:
    return ProcId(_FIRST_PID + worker.id, _UPTIME + round(worker.born * 100))
