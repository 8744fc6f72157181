"""A small seeded machine for closed-loop tests of the engine: pools that queue, a service whose waits react to demotion, hogs.

It makes `Tick`s and carries out `Decision`s. Must not know the kernel or the engine's insides. The model is crude on purpose:
arrivals are Poisson, service times exponential, and a service waits in proportion to the weight that competes with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import numpy as np

from ...models.features import uncontended
from ...models.identity import ProcId
from ...models.records import HORIZONS, QUANTILES, Anomaly, Class, Forecast, Score
from ..decision import (
    Decision,
    Digest,
    Flag,
    Group,
    Machine,
    Member,
    Outcome,
    Pool,
    Recycle,
    ResizePool,
    Restore,
    Set,
    Tick,
    Verdict,
    Worker,
)
from ..hands.faults import Status
from ..hands.fences import Limits
from ..hands.places import Control
from ..places import CgroupPlace, ProcessPlace, SessionPlace
from .clock import FakeClock
from .ticks import GIB

STEPS = 20
"""Steps of the queue simulation in a tick. Chosen: 50 ms at 1 Hz, short beside a service time."""

POOL_SESSION = 300
"""Session of all pools."""

MAX_HOGS = 64
"""Most processes of `FakeHogs` that exist at once. Chosen."""

Z = (0.0, 1.2816, 1.6449, 2.3263)
"""Standard normal quantiles of QUANTILES."""


class Decides(Protocol):
    """What makes decisions."""

    def step(self, tick: Tick) -> Verdict:
        """The verdict on a tick."""
        ...


@dataclass(frozen=True, slots=True)
class FakeWorkers:
    """A pool of workers that take one piece of work at a time."""

    name: str
    rate: Callable[[float], float]  # arrivals a second, by the time in seconds since the start
    service_seconds: float = 0.2
    start_seconds: float = 2.0
    cores: float = 0.2  # that a busy worker uses
    size: int = 1
    minimum: int = 1
    maximum: int = 16
    class_: Class = Class.EXEMPT
    sick_from: float | None = None  # seconds from which its lowest worker leaks memory, until it is replaced


@dataclass(frozen=True, slots=True)
class FakeService:
    """One interactive process."""

    name: str = "service"
    demand: Callable[[float], float] = lambda _: 0.4  # cores of work, by time
    session: int = 100
    cgroup: str = "/"


@dataclass(frozen=True, slots=True)
class FakeHogs:
    """Batch processes that would use a core each while they are active."""

    name: str = "hogs"
    count: Callable[[float], int] = lambda _: 4
    session: int = 200
    cgroup: str = "/"
    brief: float = 0.0  # share of their CPU that their children use; if above 0, the first is the parent of all others


@dataclass(slots=True)
class _RunningWorker:
    id: ProcId
    ready_at: float
    left: float = 0.0  # seconds of work; 0: idle
    draining: bool = False


@dataclass(slots=True)
class _RunningPool:
    spec: FakeWorkers
    requested: int
    workers: list[_RunningWorker] = field(default_factory=list)
    queue: int = 0
    busy: float = 0.0  # mean of the last tick
    queued: float = 0.0
    loads: deque[float] = field(default_factory=lambda: deque(maxlen=60))
    served: int = 0
    sick: ProcId | None = None


class FakeMachine:
    """The machine. `seed` None is seeded by the system: two such machines differ.

    `act` False is a machine under an observing actuator: decisions change nothing and come back as OBSERVED. With `foresee` the
    forecasts of pools know the coming rate; otherwise all forecasts are quantiles of the last 30 ticks.
    """

    def __init__(
        self,
        *,
        seed: int | None,
        pools: Sequence[FakeWorkers] = (),
        service: FakeService | None = None,
        hogs: FakeHogs | None = None,
        cpus: int = 2,
        interval: float = 1.0,
        act: bool = True,
        foresee: bool = False,
        autogroup: bool = True,
        cpu_cgroup: str = "v1",
        may_renice: bool = True,
    ) -> None:
        self.clock = FakeClock()
        self.knobs: dict[tuple[Control, str], int | tuple[int, ...]] = {}
        """Every changed value: empty again when all is restored."""
        self.refusing: set[Control] = set()
        """Controls that the kernel refuses."""
        self._chance = np.random.default_rng(seed)
        self._pools = {spec.name: _RunningPool(spec, spec.size) for spec in sorted(pools, key=lambda spec: spec.name)}
        self._service, self._hogs = service, hogs
        self._cpus, self._interval, self._act, self._foresee = cpus, interval, act, foresee
        self._machine = (autogroup, cpu_cgroup, may_renice)
        self._seq = -1
        self._time = 0.0
        self._outcomes: list[Outcome] = []
        self._past: dict[tuple[str, str], deque[float]] = {}
        self._next_pid = 1000
        for pool in self._pools.values():
            pool.workers = [self._spawn(0.0) for _ in range(pool.requested)]

    def run(self, engine: Decides, ticks: int) -> list[tuple[Tick, Verdict]]:
        """Let `engine` control the machine for `ticks` ticks."""
        history = []
        for _ in range(ticks):
            tick = self.tick()
            verdict = engine.step(tick)
            self.apply(verdict.decisions)
            history.append((tick, verdict))
        return history

    def size(self, pool: str) -> int:
        """Workers that a pool has now."""
        return len(self._pools[pool].workers)

    def served(self, pool: str) -> int:
        """Pieces of work that a pool has finished."""
        return self._pools[pool].served

    def change_by_hand(self, target: str) -> None:
        """Somebody else changes what nicety had set: the actuator will report it."""
        self._outcomes.append(Outcome("", Status.FOREIGN, target, "changed by somebody else", 0))

    # --- acting ---------------------------------------------------------------------------------------------------------------

    def apply(self, decisions: Sequence[Decision]) -> None:
        """Carry out decisions; the next tick has the outcomes."""
        for decision in decisions:
            status, detail = self._apply(decision) if self._act else (Status.OBSERVED, "nothing was written")
            self._outcomes.append(Outcome(decision.id, status, decision.target, detail, int(status is Status.APPLIED)))

    def _apply(self, decision: Decision) -> tuple[Status, str]:
        action = decision.action
        if isinstance(action, Flag | Digest):
            return Status.APPLIED, "reported"
        if isinstance(action, ResizePool):
            self._pools[action.pool].requested = action.size
            return Status.APPLIED, f"asked for {action.size}"
        if isinstance(action, Recycle):
            for worker in self._pools[action.pool].workers:
                if worker.id == action.worker:
                    worker.draining = True
                    return Status.APPLIED, "draining"
            return Status.VANISHED, "the worker is gone"
        if action.control in self.refusing:
            return Status.REFUSED, "the kernel says no"
        key = action.control, self._object(action)
        if isinstance(action, Restore):
            return (Status.APPLIED, "restored") if self.knobs.pop(key, None) is not None else (Status.UNCHANGED, "was so already")
        self.knobs[key] = action.value
        return Status.APPLIED, f"is {action.value}"

    def _object(self, action: Set | Restore) -> str:
        match action.on:
            case CgroupPlace(path=path):
                return path
            case SessionPlace(session=session):
                return str(session)
            case ProcessPlace(id=process):
                return str(process.pid)

    # --- time -----------------------------------------------------------------------------------------------------------------

    def tick(self) -> Tick:
        """Let one interval pass and report it."""
        self._seq += 1
        self.clock.advance(round(self._interval * 1e9))
        for pool in self._pools.values():
            self._serve(pool)
        self._time += self._interval
        groups = sorted([*self._contenders(), *map(self._pool_group, self._pools.values())], key=lambda group: group.name)
        self._bury(groups)
        pools = tuple(self._pool(pool) for pool in self._pools.values())
        outcomes, self._outcomes = tuple(self._outcomes), []
        autogroup, cpu_cgroup, may_renice = self._machine
        return Tick(
            seq=self._seq,
            at=self.clock.monotonic(),
            wall=self.clock.wall(),
            gap=self._seq == 0,
            paused=False,
            machine=Machine(
                cpus=self._cpus,
                busy=min(float(self._cpus), sum(group.cpu for group in groups)),
                memory_total=8 * GIB,
                memory_available=6 * GIB,
                pressure=None,
                autogroup=autogroup,
                cpu_cgroup=cpu_cgroup,
                may_renice=may_renice,
            ),
            protected=(),
            groups=tuple(groups),
            pools=pools,
            forecasts=self._forecasts(groups, pools),
            scores=self._scores(),
            outcomes=outcomes,
        )

    def _bury(self, groups: Sequence[Group]) -> None:
        """What was set on a process or session ends with it; a cgroup stays, and so does a fence."""
        members = [member for group in groups for member in group.members]
        there = {str(member.id.pid) for member in members} | {str(w.id.pid) for pool in self._pools.values() for w in pool.workers}
        sessions = {str(member.session) for member in members}
        for control, target in sorted(self.knobs):
            alive = target in sessions if control is Control.AUTOGROUP else target in there or target.startswith("/")
            alive |= control is Control.FENCE  # its directory
            if not alive:
                del self.knobs[control, target]

    def _spawn(self, ready_at: float) -> _RunningWorker:
        self._next_pid += 1
        return _RunningWorker(ProcId(self._next_pid, self._next_pid), ready_at)

    def _serve(self, pool: _RunningPool) -> None:
        """One interval of a pool: starts and drains workers, then the queue, in small steps."""
        spec, step = pool.spec, self._interval / STEPS
        busy = queued = 0.0
        for number in range(STEPS):
            now = self._time + number * step
            pool.workers = [worker for worker in pool.workers if not worker.draining or worker.left > 0]
            staying = [worker for worker in pool.workers if not worker.draining]
            for worker in staying[pool.requested :]:
                worker.draining = True
            pool.workers += [self._spawn(now + spec.start_seconds) for _ in range(pool.requested - len(staying))]
            pool.queue += int(self._chance.poisson(max(spec.rate(now), 0.0) * step))
            for worker in pool.workers:
                if worker.left > 0:
                    worker.left -= step
                    pool.served += worker.left <= 0
                if worker.left <= 0 and pool.queue and not worker.draining and worker.ready_at <= now:
                    pool.queue -= 1
                    worker.left = float(self._chance.exponential(spec.service_seconds))
                busy += worker.left > 0
            queued += pool.queue
        pool.busy, pool.queued = busy / STEPS, queued / STEPS
        pool.loads.append(pool.busy + pool.queued)
        ids = [worker.id for worker in pool.workers]
        if spec.sick_from is not None and pool.sick is None and self._time >= spec.sick_from and ids:
            pool.sick = ids[0]

    def _pool(self, pool: _RunningPool) -> Pool:
        spec, loads = pool.spec, list(pool.loads)
        short = loads[-max(1, round(6 / self._interval)) :]
        return Pool(
            name=spec.name,
            size=len(pool.workers),
            requested=pool.requested,
            minimum=spec.minimum,
            maximum=spec.maximum,
            busy=pool.busy,
            queued=pool.queued,
            load=loads[-1],
            load_stable=sum(loads) / len(loads),
            load_panic=sum(short) / len(short),
            start_seconds=spec.start_seconds,
            cpu_per_worker=spec.cores,
            rss_per_worker=50 << 20,
            workers=tuple(
                Worker(worker.id, worker.ready_at <= self._time, float(worker.left > 0), spec.cores, 0.0, 50 << 20)
                for worker in pool.workers
            ),
            trouble="",
        )

    def _pool_group(self, pool: _RunningPool) -> Group:
        cpu = pool.busy * pool.spec.cores
        members = tuple(Member(worker.id, POOL_SESSION, "/", self._nice(worker.id), owner=0) for worker in pool.workers)
        shown = () if pool.spec.class_ is Class.EXEMPT else members
        return Group(pool.spec.name, pool.spec.class_, len(members), cpu, 0.0, cpu, len(members) * (50 << 20), shown)

    # --- contention -----------------------------------------------------------------------------------------------------------

    def _service_ids(self) -> tuple[ProcId, ...]:
        return (ProcId(500, 500),)

    def _hog_ids(self, count: int) -> tuple[ProcId, ...]:
        return tuple(ProcId(600 + i, 600 + i) for i in range(count))

    def _nice(self, process: ProcId) -> int:
        value = self.knobs.get((Control.NICE, str(process.pid)), 0)
        return value if isinstance(value, int) else 0

    def _pressure(self, service: FakeService, hogs: FakeHogs, ids: Sequence[ProcId]) -> float:
        """Weight that competes with the service, in tasks of nice 0. What separates the two decides which knob moves it."""
        autogroup, cpu_cgroup, _ = self._machine
        if cpu_cgroup and service.cgroup != hogs.cgroup:
            control, whole = (Control.CPU_WEIGHT, 100) if cpu_cgroup == "v2" else (Control.CPU_SHARES, 1024)
            value = self.knobs.get((control, hogs.cgroup), whole)
            return (value if isinstance(value, int) else whole) / whole
        if autogroup and service.session != hogs.session:
            value = self.knobs.get((Control.AUTOGROUP, str(hogs.session)), 0)
            return float(1.25 ** -(value if isinstance(value, int) else 0))
        fence = self.knobs.get((Control.FENCE, str(self._hog_ids(1)[0].pid)))
        if isinstance(fence, tuple):
            return Limits(*fence).weight / 100
        return float(sum(1.25 ** -self._nice(id_) for id_ in ids))

    def _contenders(self) -> list[Group]:
        service, hogs = self._service, self._hogs
        ids = self._hog_ids(min(hogs.count(self._time), MAX_HOGS)) if hogs else ()
        groups, used = list[Group](), 0.0
        if service:
            work = max(0.0, service.demand(self._time)) * float(self._chance.uniform(0.9, 1.1))
            used = min(work, float(self._cpus))
            wait = 0.002 * work
            if hogs and ids:
                wait += work * min(3.0, 0.6 * self._pressure(service, hogs, ids) * min(1.0, len(ids) / self._cpus))
            member = Member(self._service_ids()[0], service.session, service.cgroup, 0, owner=0)
            groups.append(self._group(service.name, Class.INTERACTIVE, used, wait, 50 << 20, (member,)))
        if hogs and ids:
            cpu = min(float(len(ids)), self._cpus - used)
            first = ids[0].pid if hogs.brief else 0
            members = tuple(
                Member(id_, hogs.session, hogs.cgroup, self._nice(id_), 1 if id_.pid == first else first, owner=0) for id_ in ids
            )
            group = self._group(hogs.name, Class.BATCH, cpu, len(ids) - cpu, 1 << 20, members)
            groups.append(msgspec.structs.replace(group, brief=hogs.brief * cpu))
        return groups

    def _group(self, name: str, class_: Class, cpu: float, wait: float, rss: int, members: tuple[Member, ...]) -> Group:
        """A group of processes with as many threads as they want; all run and wait for the same time."""
        each = np.full(len(members), 1 / len(members))
        demand = uncontended(cpu * each, wait * each, np.full(len(members), np.inf), self._cpus).sum()
        return Group(name, class_, len(members), cpu, wait, min(float(demand), float(self._cpus)), rss, members)

    # --- what models would say ------------------------------------------------------------------------------------------------

    def _forecasts(self, groups: Sequence[Group], pools: Sequence[Pool]) -> tuple[Forecast, ...]:
        now = {(group.name, "cpu"): group.demand for group in groups}
        now.update({(pool.name, "load"): pool.load or 0.0 for pool in pools})
        self._past = {key: self._past.get(key, deque(maxlen=30)) for key in now}
        result = []
        for key in sorted(now):
            past = self._past[key]
            past.append(now[key])
            ordered = sorted(past)
            flat = tuple(ordered[min(int(level * len(ordered)), len(ordered) - 1)] for level in QUANTILES)
            values, source = (flat,) * len(HORIZONS), "baseline window"
            if self._foresee and key[1] == "load":
                values, source = tuple(self._coming(self._pools[key[0]].spec, ticks) for ticks in HORIZONS), "oracle"
            result.append(Forecast(key[0], key[1], values, source))
        return tuple(result)

    def _coming(self, spec: FakeWorkers, ticks: int) -> tuple[float, ...]:
        mean = max(spec.rate(self._time + ticks * self._interval), 0.0) * spec.service_seconds
        return tuple(mean + z * mean**0.5 for z in Z)

    def _scores(self) -> tuple[Score, ...]:
        scores = []
        for pool in self._pools.values():
            for worker in pool.workers:
                healthy = float(self._chance.uniform(0.01, 1.0))
                if worker.ready_at > self._time:
                    continue
                sick = worker.id == pool.sick
                evidence = (("rss_bytes_per_second", 1e6 if sick else 0.0),)
                p = 1e-12 if sick else healthy
                scores.append(Score(worker.id, pool.spec.name, Anomaly.LEAK, -np.log(p).item(), p, evidence, "fake"))
        return tuple(sorted(scores, key=lambda score: score.id))
