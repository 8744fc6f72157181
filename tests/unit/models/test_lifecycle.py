"""Crash loops, zombies and starts of processes, on a made-up machine that goes on second by second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from nicety.models.anomaly.lifecycle import CRASHES, Lifecycle, Noticed
from nicety.models.anomaly.model import RobustZ, alpha, judge_pools, merged
from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, Anomaly, HostSample, Identity, PoolSample, Score, Snapshot, WorkerSample
from nicety.scheduler.config.sections import parse
from nicety.scheduler.decision import Abilities
from nicety.scheduler.observe.measure import Measurer
from nicety.scheduler.observe.observer import Observer

MASTER = ProcId(50, 100)
SECOND = 10**9


@dataclass
class World:
    """A pool and its processes. Workers are old at first."""

    size: int = 4
    master: ProcId | None = MASTER
    now: float = 10_000.0  # seconds since boot
    requested: int = 4
    ready: bool = True  # whether young workers are
    parents: dict[ProcId, int] = field(default_factory=dict)
    zombies: set[ProcId] = field(default_factory=set)
    workers: list[ProcId] = field(default_factory=list)
    lifecycle: Lifecycle = field(default_factory=Lifecycle)

    def __post_init__(self) -> None:
        self.parents[MASTER] = 1
        for i in range(self.size):
            self.start(self.now - 5_000 + i)

    def start(self, at: float | None = None) -> ProcId:
        worker = self.fork(50, at)
        self.workers.append(worker)
        return worker

    def fork(self, parent: int, at: float | None = None) -> ProcId:
        id_ = ProcId(60 + len(self.parents) + self.gone, round((self.now if at is None else at) * 100))
        self.parents[id_] = parent
        return id_

    gone: int = 0

    def end(self, id_: ProcId) -> None:
        del self.parents[id_]
        self.gone += 1
        if id_ in self.workers:
            self.workers.remove(id_)

    def snapshot(self) -> Snapshot:
        ids = sorted(self.parents)
        table = np.zeros(len(ids), dtype=SAMPLE)
        for row, id_ in zip(table, ids, strict=True):
            row["pid"], row["start_ticks"], row["ppid"], row["threads"] = id_.pid, id_.start_ticks, self.parents[id_], 1
            row["state"] = ord("Z" if id_ in self.zombies else "S")
        old = self.now - 60
        workers = tuple(WorkerSample(id_, None, self.ready or id_.start_ticks / 100 < old) for id_ in sorted(self.workers))
        pool = PoolSample("web", len(workers), self.requested, 0.0, workers, self.master, None, "")
        host = HostSample((0,), 8 << 30, 6 << 30, None)
        names = {id_: Identity("app", "app", "/", "", 0) for id_ in ids}
        return Snapshot(round(self.now * SECOND), round(self.now * SECOND), round(self.now * 100), table, names, host, (pool,))

    def step(self) -> tuple[list[Noticed], dict[ProcId, int]]:
        seen = self.snapshot()
        rows = {ProcId(int(row["pid"]), int(row["start_ticks"])): at for at, row in enumerate(seen.table)}
        return self.lifecycle.step(seen, rows)

    def run(self, seconds: int, each: Callable[[int], None] = lambda _: None) -> list[tuple[int, Noticed]]:
        """(second, what was noticed) of the coming seconds; `each` is done before each of them."""
        found = []
        for second in range(seconds):
            self.now += 1
            each(second)
            found += [(second, noticed) for noticed in self.step()[0]]
        return found

    def replace(self, worker: ProcId) -> None:
        self.end(worker)
        self.start()


def crashing(world: World, period: int) -> Callable[[int], None]:
    """The youngest worker ends each `period` seconds, and another comes."""
    return lambda second: world.replace(max(world.workers, key=lambda id_: id_.start_ticks)) if second % period == 0 else None


@pytest.mark.parametrize("period", [1, 5, 14])
@pytest.mark.parametrize("ready", [True, False])
def test_workers_that_end_soon_again_and_again_are_a_crash_loop_of_the_master(period: int, ready: bool) -> None:
    world = World(ready=ready)
    world.run(30)
    found = world.run(60, crashing(world, period))
    assert {(noticed.id, noticed.kind) for _, noticed in found} == {(MASTER, Anomaly.CRASH_LOOP)}
    assert found[0][0] <= 4 * period
    [score] = judge_pools(RobustZ(), [found[0][1]], 1.0)
    assert score.p < alpha(1.0)
    figures = dict(score.evidence)
    assert figures["one_after_the_other"] == CRASHES
    assert figures["median_life_seconds"] == pytest.approx(period, abs=1)
    assert figures["usual_life_seconds"] > 4000


def test_a_loop_lasts_as_long_as_it_goes_on_and_no_longer_than_it_is_remembered() -> None:
    world = World()
    found = world.run(400, crashing(world, 5))
    assert {second for second, _ in found} >= set(range(20, 400))
    assert max(second for second, _ in world.run(200)) <= 90


def test_without_a_master_the_newest_worker_is_named() -> None:
    world = World(master=None)
    found = world.run(20, crashing(world, 3))
    assert found[-1][1].id == max(world.workers, key=lambda id_: id_.start_ticks)


def test_a_pool_whose_workers_never_come_up_is_in_a_loop_from_the_start() -> None:
    world = World(size=0, ready=False)
    world.start()
    assert world.run(30, crashing(world, 4))


def deploy(world: World, apart: int = 1) -> Callable[[int], None]:
    """Each worker that is there is replaced once."""
    old = list(world.workers)
    return lambda second: world.replace(old[second // apart]) if second % apart == 0 and second // apart < len(old) else None


def test_deploys_are_no_crash_loop() -> None:
    world = World()
    assert world.run(40, deploy(world)) == []
    assert world.run(10, deploy(world)) == []  # on its heels, and rolled back
    assert world.run(200, deploy(world)) == []


def test_a_pool_that_grows_and_shrinks_is_no_crash_loop() -> None:
    world = World()

    def breathe(second: int) -> None:
        if second % 10 == 0:
            world.requested += 3
            for _ in range(3):
                world.start()
        if second % 10 == 5:
            world.requested -= 3
        if second % 10 == 6:
            for worker in sorted(world.workers, key=lambda id_: id_.start_ticks)[-3:]:
                world.end(worker)

    assert world.run(200, breathe) == []


def test_workers_for_one_task_each_are_no_crash_loop() -> None:
    world = World(size=0)
    for i in range(4):
        world.start(world.now - i)
    found = world.run(300, lambda second: world.replace(min(world.workers, key=lambda id_: id_.start_ticks)))
    assert found == []


def test_a_child_that_nobody_reaps_is_the_worker_s_zombie() -> None:
    world = World()
    child = world.fork(world.workers[2].pid)
    world.zombies.add(child)
    found = world.run(60)
    assert {(noticed.id, noticed.kind) for _, noticed in found} == {(world.workers[2], Anomaly.ZOMBIE)}
    assert 29 <= found[0][0] <= 31
    assert dict(found[-1][1].figures) == {"zombies": 1.0, "seconds": pytest.approx(59, abs=1), "siblings": 3.0}
    assert judge_pools(RobustZ(), [found[0][1]], 1.0)[0].p < alpha(1.0)
    world.end(child)
    assert world.run(5) == []


def test_a_worker_that_nobody_reaps_is_the_master_s_zombie() -> None:
    world = World()
    dead = world.workers.pop()  # the adapter does not list it any more
    world.zombies.add(dead)
    assert {noticed.id for _, noticed in world.run(60)} == {MASTER}


def test_children_that_are_reaped_late_are_no_zombies() -> None:
    world = World()

    def each(second: int) -> None:
        if second % 20 == 0:
            for zombie in sorted(world.zombies):
                world.zombies.remove(zombie)
                world.end(zombie)
            world.zombies.add(world.fork(world.workers[0].pid))

    assert world.run(200, each) == []


def test_what_most_siblings_do_is_how_their_program_deals_with_children() -> None:
    world = World()
    for worker in world.workers[:3]:
        world.zombies.add(world.fork(worker.pid))
    assert world.run(60) == []
    stranger = world.fork(1)
    world.zombies.add(stranger)
    assert world.run(60) == []


def test_processes_are_counted_for_the_worker_they_descend_from() -> None:
    world = World()
    first, second = world.workers[:2]
    world.step()
    world.now += 1
    children = [world.fork(first.pid) for _ in range(3)]
    grandchild = world.fork(children[0].pid)
    world.fork(second.pid)
    world.fork(1)
    world.start()  # the master's child, not a worker's
    assert world.step()[1] == {first: 4, second: 1}
    assert world.step()[1] == {}  # each is counted once
    world.now += 1
    world.end(children[0])
    world.parents[grandchild] = 1  # left to init, and still the worker's
    world.fork(grandchild.pid)
    assert world.step()[1] == {first: 1}


def test_those_who_were_there_before_the_first_look_are_not_counted_as_new() -> None:
    world = World()
    for _ in range(5):
        world.fork(world.workers[0].pid, world.now - 100)
    world.step()
    world.now += 1
    assert world.step()[1] == {}


def test_the_observer_measures_what_workers_start_and_tells_of_the_master() -> None:
    config = parse("[pools.web]\nkind = 'command'\ncommand = ['app']")
    world, measurer = World(), Measurer(config)
    observer = Observer(config, Abilities(autogroup=True, cpu_cgroup="v1", may_renice=True), ProcId(1, 1), None, None, None)
    rates, ticks = [], []
    for second in range(40):
        world.now += 1
        crashing(world, 4)(second)
        world.fork(world.workers[0].pid)
        measured = measurer.measure(world.snapshot())
        ticks.append(observer.tick(world.snapshot(), (), paused=False))
        if measured is not None:
            rates.append(measured.workers[:, -1].tolist())
    assert rates[-1] == [1.0, 0.0, 0.0, 0.0]
    named = {score.id: score for score in ticks[-1].scores}
    assert named[MASTER].kind is Anomaly.CRASH_LOOP
    assert set(named) > {MASTER}
    assert [score.id for score in ticks[-1].scores] == sorted(named)


def test_the_rarest_that_is_said_of_a_process_is_kept() -> None:
    def said(kind: Anomaly, p: float) -> Score:
        return Score(MASTER, "web", kind, 1.0, p, (), "test")

    assert merged([said(Anomaly.ZOMBIE, 1e-7)], [said(Anomaly.LEAK, 1e-3)]) == [said(Anomaly.ZOMBIE, 1e-7)]
    assert merged([said(Anomaly.ZOMBIE, 1e-3)], [said(Anomaly.LEAK, 1e-7)]) == [said(Anomaly.LEAK, 1e-7)]


def test_all_that_is_said_of_a_master_is_kept() -> None:
    zombie, crash = (Score(MASTER, "web", kind, 1.0, 1e-7, (), "test") for kind in (Anomaly.ZOMBIE, Anomaly.CRASH_LOOP))
    worker = Score(ProcId(1, 1), "web", Anomaly.LEAK, 1.0, 0.5, (), "test")
    assert merged([zombie, crash], [worker]) == sorted([worker, crash, zombie], key=lambda score: (score.id, score.kind))
