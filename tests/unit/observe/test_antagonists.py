"""The neighbour of a starved worker: who ran where it waited, and nobody who ran elsewhere."""

from __future__ import annotations

import numpy as np

from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, Anomaly, HostSample, Identity, Score, Snapshot
from nicety.scheduler.observe.antagonists import Antagonists
from nicety.scheduler.observe.occupancy import occupancy
from nicety.scheduler.testing.observed import a_rate

WORKER = ProcId(10, 10)
# (pid, group, cores, last CPU, threads)
Rows = list[tuple[int, str, float, int, int]]


def a_snapshot(seq: int, rows: Rows) -> Snapshot:
    table = np.zeros(len(rows), dtype=SAMPLE)
    for row, (pid, _, _, cpu, threads) in zip(table, rows, strict=True):
        row["pid"] = row["start_ticks"] = pid
        row["session"], row["last_cpu"], row["threads"], row["nice"] = pid + 1000, cpu, threads, pid % 7
    identities = {ProcId(pid, pid): Identity("x", "x", f"/{pid}", "", 0) for pid, *_ in rows}
    return Snapshot(seq * 10**9, 0, 0, table, identities, HostSample((0, 0), 1, 1, None), ())


def starved_of(*ticks: Rows, online: tuple[int, ...] = ()) -> Antagonists:
    antagonists = Antagonists()
    for seq, rows in enumerate(ticks):
        ids = {ProcId(pid, pid): row for row, (pid, *_) in enumerate(rows)}
        snapshot = a_snapshot(seq, rows)
        ran = occupancy(snapshot, a_rate([cores for _, _, cores, _, _ in rows]), list(ids), np.zeros(2), online=online)
        antagonists.push(snapshot, ran, [group for _, group, *_ in rows], ids, [WORKER], 1.0)
    return antagonists


STARVED = Score(WORKER, "web", Anomaly.STARVED, 3.0, 1e-6, (), "x")
PINNED: Rows = [
    (10, "web", 0.05, 0, 1),
    (11, "web", 0.4, 1, 1),
    (20, "hog", 0.9, 0, 1),
    (30, "busy", 1.0, 1, 1),
    (40, "idle", 0.0, 0, 1),
]


def test_the_group_that_runs_where_it_waits_comes_first_and_others_not_at_all() -> None:
    (starved,) = starved_of(*[PINNED] * 5).of((STARVED,), a_snapshot(5, PINNED))
    assert [(it.group, round(it.cores, 3)) for it in starved.antagonists] == [("hog", 0.9)]
    assert (starved.cpus, starved.worker.id, starved.worker.nice) == ((0,), WORKER, 3)
    assert (starved.antagonists[0].nice, starved.antagonists[0].session, starved.antagonists[0].cgroup) == (6, 1020, "/20")


def test_a_worker_that_moves_is_asked_tick_by_tick() -> None:
    moved: Rows = [(10, "web", 0.05, 1, 1), *PINNED[1:]]
    (starved,) = starved_of(PINNED, moved, moved, moved).of((STARVED,), a_snapshot(4, moved))
    assert [it.group for it in starved.antagonists] == ["busy", "web", "hog"]
    assert starved.cpus == (0, 1)
    assert starved.antagonists[2].cores == 0.9 / 4


def test_threads_that_may_be_anywhere_count_for_every_cpu() -> None:
    rows: Rows = [(10, "web", 0.05, 0, 1), (20, "hog", 0.5, 0, 1), (50, "threads", 1.6, 1, 9)]
    (starved,) = starved_of(rows).of((STARVED,), a_snapshot(1, rows))
    assert [(it.group, it.cores) for it in starved.antagonists] == [("threads", 0.8), ("hog", 0.5)]


def test_cpu_numbers_may_have_holes() -> None:
    rows: Rows = [(10, "web", 0.05, 2, 1), (50, "threads", 1.6, 0, 9)]
    (starved,) = starved_of(rows, online=(0, 2)).of((STARVED,), a_snapshot(1, rows))
    assert [(it.group, it.cores) for it in starved.antagonists] == [("threads", 0.8)]


def test_only_starved_workers_are_looked_after_and_old_ticks_are_forgotten() -> None:
    antagonists = starved_of(*[PINNED] * 3)
    stuck = Score(WORKER, "web", Anomaly.STUCK, 3.0, 1e-6, (), "x")
    healthy = Score(WORKER, "web", Anomaly.STARVED, 0.0, 0.4, (), "x")
    assert antagonists.of((stuck, healthy), a_snapshot(3, PINNED)) == ()
    now: Rows = [(10, "web", 0.05, 0, 1), (60, "late", 0.5, 0, 1)]
    antagonists = starved_of(*[PINNED] * 10, *[now] * 40)
    (starved,) = antagonists.of((STARVED,), a_snapshot(50, now))
    assert [it.group for it in starved.antagonists] == ["late"]
