"""Who is looked at, and that what was seen reaches the tick."""

from __future__ import annotations

import numpy as np

from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, Deadlock, HostSample, Identity, PoolSample, Snapshot, WorkerSample
from nicety.scheduler.config.sections import parse
from nicety.scheduler.decision import Abilities, Tick
from nicety.scheduler.observe.deadlocks import Deadlocks
from nicety.scheduler.observe.observer import Observer
from nicety.scheduler.testing.waits import FakeWaits

SECOND = 1_000_000_000
OWN, MASTER, A, B, STRANGER = (ProcId(pid, 1) for pid in (5, 10, 20, 30, 40))
WAITED = "flock on /run/a (inode 7)"


def snapshot(
    at: int,
    timeslices: dict[ProcId, int] | None = None,
    states: dict[ProcId, str] | None = None,
    threads: int = 1,
    cpu_ms: dict[ProcId, int] | None = None,
) -> Snapshot:
    """Two workers of a pool, its master, nicety and a stranger; they sleep and do not run unless told otherwise."""
    everybody = (OWN, MASTER, A, B, STRANGER)
    table = np.zeros(len(everybody), dtype=SAMPLE)
    for row, process in zip(table, everybody, strict=True):
        row["pid"], row["start_ticks"] = process
        row["timeslices"] = (timeslices or {}).get(process, 3)
        row["threads"], row["cpu_ns"] = threads, (cpu_ms or {}).get(process, 0) * 1_000_000
        row["state"] = ord((states or {}).get(process, "S"))
    identity = Identity("w", "w", "/", "", 0)
    workers = tuple(WorkerSample(process, None, ready=True) for process in (A, B))
    pool = PoolSample("web", 2, 2, None, workers, MASTER, None, "")
    host = HostSample((0,), 1, 1, None)
    return Snapshot(at * SECOND, 0, 1000 + at, table, dict.fromkeys(everybody, identity), host, (pool,))


def run(waits: FakeWaits, *snapshots: Snapshot, aloof: tuple[str, ...] = ()) -> list[tuple[Deadlock, ...]]:
    deadlocks = Deadlocks(waits)
    return [deadlocks.step(each, aloof) for each in snapshots]


def stuck() -> FakeWaits:
    waits = FakeWaits()
    waits.wait(A, WAITED, B)
    waits.wait(B, "reading pipe 4", A)
    return waits


def test_workers_are_looked_at_when_they_have_not_run_for_three_seconds_and_nobody_else_is() -> None:
    waits = FakeWaits()
    run(waits, *(snapshot(at, {B: at}) for at in range(6)))
    assert waits.asked == [{A: 0}] * 3  # at 3, 4 and 5 s; B runs


def test_a_worker_of_several_threads_that_hardly_runs_is_looked_at_too() -> None:
    waits = FakeWaits()
    run(waits, *(snapshot(at, {A: at, B: at}, threads=2, cpu_ms={A: 10 * at, B: 50 * at}) for at in range(6)))
    assert (waits.asked, waits.restless) == ([{}] * 3, (A,))  # 0.01 and 0.05 cores
    waits = FakeWaits()
    run(waits, *(snapshot(at, {A: at, B: at}, cpu_ms={A: 10 * at, B: 50 * at}) for at in range(6)))
    assert waits.asked == [], "the one thread that there is runs"


def test_a_worker_that_wants_a_cpu_or_is_stopped_is_not_looked_at() -> None:
    waits = FakeWaits()
    run(waits, *(snapshot(at, states={A: "R", B: "T"}) for at in range(6)))
    assert waits.asked == []


def test_a_deadlock_is_told_within_ten_seconds_with_who_waits_for_what() -> None:
    found = run(stuck(), *map(snapshot, range(12)))
    first = next(at for at, deadlocks in enumerate(found) if deadlocks)
    assert first == 8
    ((deadlock,),) = {found[at] for at in range(first, 12)}
    assert [(wait.waiter, wait.what, wait.holder) for wait in deadlock.waits] == [(A, WAITED, B), (B, "reading pipe 4", A)]
    assert {wait.since for wait in deadlock.waits} == {3 * SECOND}


def test_a_worker_that_runs_again_ends_it() -> None:
    found = run(stuck(), *(snapshot(at, {A: at > 9, B: at > 9}) for at in range(12)))
    assert [bool(deadlocks) for deadlocks in found] == [False] * 8 + [True] * 2 + [False] * 2


def test_nothing_is_kept_once_all_run() -> None:
    waits = FakeWaits()
    run(waits, *(snapshot(at, {A: at > 4, B: at > 4}) for at in range(7)))
    assert (len(waits.asked), waits.rests) == (2, 1)


def test_masters_of_pools_that_only_look_after_their_workers_are_named_to_the_port() -> None:
    named = []
    for aloof in (("web",), ("other",)):
        waits = FakeWaits()
        run(waits, *map(snapshot, range(4)), aloof=aloof)
        named.append(waits.aloof)
    assert named == [(MASTER,), ()]


def test_a_tick_has_the_deadlocks_of_its_turn() -> None:
    config = parse('[pools.web]\nkind = "gunicorn"\npidfile = "/run/web.pid"\nmaximum = 4\n')
    observer = Observer(config, Abilities(autogroup=True, cpu_cgroup="v1", may_renice=True), OWN, None, None, None)
    deadlocks = Deadlocks(stuck())
    ticks: list[Tick] = []
    for at in range(10):
        each = snapshot(at)
        ticks.append(observer.tick(each, (), paused=False, deadlocks=deadlocks.step(each)))
    assert [len(tick.deadlocks) for tick in ticks] == [0] * 8 + [1] * 2
