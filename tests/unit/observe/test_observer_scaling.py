"""A pool's scaling curve on its way from the counters of its workers through observer and log to the engine, in a closed loop."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import numpy as np

from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, HostSample, Identity, Known, PoolSample, Snapshot, WorkerSample
from nicety.scheduler.config.sections import parse
from nicety.scheduler.decide.engine import Engine
from nicety.scheduler.decision import Abilities, Decision, Outcome, ResizePool, Scaled, Tick, encode
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.observe.observer import Observer

SECOND = 10**9
CONFIG = parse(
    "[pools.web]\nkind = 'command'\ncommand = ['server']\nminimum = 1\nmaximum = 32\n"
    "[quarantine]\nenabled = false\n[priority]\nenabled = false\n[placement]\nenabled = false\n[models]\ndemand = false\n"
)
ABILITIES = Abilities(autogroup=False, cpu_cgroup="", may_renice=False)


@dataclass
class World:
    """A pool on a machine of 64 CPUs. Each worker at work needs `share` cores; together they get `quota` at most."""

    share: float
    quota: float
    size: int = 2
    backlog: float = 0.0  # core-seconds of work that wait
    cpu: dict[ProcId, int] = field(default_factory=dict)
    wait: dict[ProcId, int] = field(default_factory=dict)
    seen: list[tuple[Tick, int, list[Decision]]] = field(default_factory=list)
    outcomes: tuple[Outcome, ...] = ()
    observer: Observer = field(default_factory=lambda: Observer(CONFIG, ABILITIES, ProcId(5, 1), None, None, None))
    engine: Engine = field(default_factory=lambda: Engine(CONFIG, "s"))

    def run(self, erlangs: float, ticks: int) -> list[int]:
        """Sizes of so many seconds in which work for `erlangs` workers arrives."""
        return [self.step(erlangs) for _ in range(ticks)]

    def step(self, erlangs: float) -> int:
        self.backlog += erlangs * self.share
        able = min(self.size * self.share, self.quota)
        done = min(self.backlog, able)
        self.backlog -= done
        busy = float(self.size) if self.backlog > 0 else min(done / self.share, self.size)
        ids = [ProcId(10 + number, 100) for number in range(self.size)]
        for id_ in ids:
            self.cpu[id_] = self.cpu.get(id_, 0) + round(done / self.size * SECOND)
            self.wait[id_] = self.wait.get(id_, 0) + round(max(busy * self.share - done, 0.0) / self.size * SECOND)
        tick = len(self.seen) + 1
        table = np.zeros(self.size, dtype=SAMPLE)
        table["pid"], table["start_ticks"], table["known"] = [id_.pid for id_ in ids], 100, int(Known.WAIT)
        table["cpu_ns"], table["wait_ns"] = [self.cpu[id_] for id_ in ids], [self.wait[id_] for id_ in ids]
        workers = tuple(WorkerSample(id_, busy / self.size, ready=True) for id_ in ids)
        queued = self.backlog / self.share
        pool = PoolSample("web", self.size, self.size, queued, workers, None, 2.0, "")
        host = HostSample((tick * SECOND // 64,) * 64, 64 << 30, 60 << 30, None)
        identities = dict.fromkeys(ids, Identity("server", "server", "/", "", 0))
        seen = Snapshot(tick * SECOND, tick * SECOND, 10_000 + 100 * tick, table, identities, host, (pool,))
        made = self.observer.tick(seen, self.outcomes, paused=False)
        verdict = self.engine.step(made)
        self.outcomes = tuple(Outcome(each.id, Status.APPLIED, each.target, "", 1) for each in verdict.decisions)
        for each in verdict.decisions:
            if isinstance(each.action, ResizePool):
                self.size = each.action.size
        self.seen.append((made, self.size, list(verdict.decisions)))
        return self.size

    def burst(self, *erlangs: float) -> int:
        """Half a minute of each load; then whoever waits gives up, and it is quiet. Returns the largest size."""
        largest = max(max(self.run(load, 30)) for load in erlangs)
        self.backlog = 0.0
        self.run(erlangs[0], 100)
        return largest

    @property
    def scaling(self) -> Scaled | None:
        (pool,) = self.seen[-1][0].pools
        return pool.scaling


def test_a_pool_behind_a_cpu_quota_is_not_grown_past_it_again() -> None:
    """Two cores of 64: headroom cannot see that. Work for three that compute grows the pool to its maximum, for the queue only gets
    longer. The next time it is known what that was worth."""
    world = World(share=0.9, quota=1.8)
    peaks = [world.burst(0.8, 1.6, 3.0) for _ in range(3)]
    assert peaks[0] == 32
    assert peaks[1] <= 12
    assert peaks[2] <= 8
    assert min(size for _, size, _ in world.seen[-50:]) <= 2
    assert world.scaling is not None
    assert world.scaling.certain
    bound = [
        each for _, _, decisions in world.seen for each in decisions if each.why.figures["limit_that_bound"] == "scaling curve"
    ]
    assert bound
    assert bound[-1].why.figures["workers_by_cpu_headroom"] > 12  # type: ignore[operator]
    assert any("scaling curve" in text for text in bound[-1].why.rejected)
    assert any("would lift the limit" in text for text in bound[-1].why.flips)
    logged = [msgspec.json.decode(encode(tick), type=Tick) for tick, _, _ in world.seen]
    again = Engine(CONFIG, "s")
    assert [list(again.step(tick).decisions) for tick in logged] == [decisions for _, _, decisions in world.seen]


def test_workers_that_wait_are_grown_for_as_much_as_comes() -> None:
    """Each runs for an eighth of its time, or for less than a half; what it waits for serves all, or 40, or two and a half."""
    for share, quota in ((0.125, 99.0), (0.125, 5.0), (0.4, 1.0)):
        world = World(share=share, quota=quota)
        assert min(world.burst(0.8, 2.0, 14.0) for _ in range(2)) >= 20
        assert world.scaling is None or not world.scaling.certain


def test_a_pool_that_computes_and_has_the_cpus_is_grown_each_time() -> None:
    world = World(share=1.0, quota=64.0)
    for _ in range(2):
        assert max(max(world.run(load, 40)) for load in (0.8, 2.0, 4.0, 8.0, 16.0, 8.0, 4.0)) >= 20
    assert world.scaling is not None
    assert (world.scaling.worth, world.scaling.certain) == (None, False)
    assert world.scaling.contention < 0.05
