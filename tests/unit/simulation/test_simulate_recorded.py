"""`nicety simulate` of a pool that nicety recorded: the real trace store, written by the fake pool that every port's tests use."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nicety.models.records import SAMPLE, HostSample, PoolSample, Snapshot
from nicety.scheduler.config.sections import Config
from nicety.scheduler.decision import Rules
from nicety.scheduler.simulation.arrivals import LoadError, Recorded, drawn_from
from nicety.scheduler.simulation.ours import Nicety
from nicety.scheduler.simulation.queueing import SimulatedQueue
from nicety.scheduler.simulation.recorded import HOLE, read
from nicety.scheduler.store.traces import TraceWriter, newest_pools, read_traces
from nicety.scheduler.testing.clock import FakeClock
from nicety.scheduler.testing.pool import FakePool

Invoke = Callable[..., Any]
SECOND = 10**9


def store(
    state: Path,
    loads: Sequence[float | None],
    *,
    names: tuple[str, ...] = ("web",),
    session: str = "one",
    boot: str = "boot",
    begin: int = 1000,
    grow_at: int | None = None,
) -> None:
    """A tick a second of pools of 4 workers with these loads; None: a second in which nothing was recorded. At `grow_at` they are
    asked for 6, which takes 2 s."""
    writer = TraceWriter(state, boot_id=boot, session=session, budget_bytes=64 << 20, interval=1.0)
    clock = FakeClock(begin * SECOND)
    pools = [FakePool(name, clock, size=4, first_pid=1000 * (1 + number)) for number, name in enumerate(names)]
    for place, load in enumerate(loads):
        clock.advance(SECOND)
        for pool in pools:
            pool.load = load or 0.0
            if place == grow_at:
                pool.resize(6)
            pool.probe()
        samples = tuple(pool.read() for pool in pools)
        if load is not None:
            writer.append(snapshot(clock.monotonic(), samples))
    writer.close()


def snapshot(at: int, pools: tuple[PoolSample, ...]) -> Snapshot:
    table = np.zeros(3, dtype=SAMPLE)
    table["pid"], table["cpu_ns"] = (1, 2, 3), at
    return Snapshot(at, 1_760_000_000 * SECOND + at, at // 10_000_000, table, {}, HostSample((at, at), 8, 7, None), pools)


def test_the_load_sizes_and_start_time_of_a_pool_come_back(tmp_path: Path) -> None:
    store(tmp_path, [1.0] * 20 + [3.0] * 20, grow_at=30)
    found = read(tmp_path, "web", 3600)
    assert (found.name, found.step, found.seconds, found.holes) == ("web", 1.0, 40.0, 0.0)
    assert found.busy.tolist() == pytest.approx([1.0] * 20 + [3.0] * 20)
    assert found.queued.tolist() == [0.0] * 40
    assert found.sizes.tolist() == [4.0] * 30 + [6.0] * 10
    assert len(found.born) == 2
    assert found.start_seconds == pytest.approx(2.0, rel=0.3)
    newest = read(tmp_path / "traces", None, 15)
    assert newest.busy.tolist() == pytest.approx([3.0] * 15)
    assert newest.born.tolist() == [6.0, 6.0]
    (file,) = (tmp_path / "traces").glob("*.db")
    assert read(file, "web", 3600).busy.tolist() == found.busy.tolist()


def test_what_arrived_is_what_was_served_and_what_the_queue_grew_by() -> None:
    """Six Erlangs for four workers: two a second are left over, and worked off when nothing comes. With requests of 0.5 s."""
    queued = np.array([0.0, 4, 8, 12, 16, 12, 8, 4, 0, 0])
    recorded = Recorded("web", 1.0, np.array([4.0] * 9 + [0]), queued, np.full(10, 4.0), np.zeros(0), None, 0.0)
    offered = recorded.offered(0.5)
    assert offered[1:4].tolist() == [6.0, 6.0, 6.0]
    assert offered[5:8].tolist() == [2.0, 2.0, 2.0]
    assert offered.sum() == pytest.approx(recorded.busy.sum(), rel=0.1)
    load = drawn_from(Recorded("web", 1.0, np.full(2000, 4.0), np.zeros(2000), np.ones(2000), np.zeros(0), None, 0.0), 0.5, 1)
    assert len(load.arrivals) == pytest.approx(2000 * 4.0 / 0.5, rel=0.03)
    assert float(load.services.mean()) == pytest.approx(0.5, rel=0.05)
    assert load.erlangs.tolist() == pytest.approx([4.0] * 2000)
    assert (
        load.arrivals.tolist()
        != drawn_from(
            Recorded("web", 1.0, np.full(2000, 4.0), np.zeros(2000), np.ones(2000), np.zeros(0), None, 0.0), 0.5, 2
        ).arrivals.tolist()
    )


def test_ticks_of_five_seconds_or_a_half_are_laid_out_by_the_second() -> None:
    for step, count in ((5.0, 20), (0.5, 200)):
        busy = np.repeat([1.0, 3.0], count // 2)
        load = drawn_from(Recorded("web", step, busy, busy * 0, busy, np.zeros(0), None, 0.0), 0.2, 1)
        assert load.seconds == 100
        assert load.erlangs.tolist() == pytest.approx([1.0] * 50 + [3.0] * 50)
        assert int((load.arrivals >= 50).sum()) > 2 * int((load.arrivals < 50).sum())


def test_short_holes_are_filled_and_long_ones_left_out(tmp_path: Path) -> None:
    store(tmp_path, [2.0] * 10 + [None] * 9 + [4.0] * 10)
    found = read(tmp_path, "web", 3600)
    assert (found.seconds, found.holes) == (29.0, 0.0)
    store(tmp_path, [1.0] * 5, session="two", begin=2000)
    found = read(tmp_path, "web", 3600)
    assert found.seconds == 34.0
    assert found.holes == pytest.approx(2001 - 1029 - 1)
    store(tmp_path, [3.0] * 5, session="three", boot="another", begin=2000 + 5 + round(HOLE) // 2)
    assert read(tmp_path, "web", 3600).seconds == 34.0 + HOLE // 2 + 5  # by the wall clock


def test_pieces_of_a_store_come_newest_first_and_only_those_before_a_session(tmp_path: Path) -> None:
    for number, session in enumerate(("a", "b", "c")):
        store(tmp_path, [float(number)] * 5, session=session, begin=1000 * number)
    pieces = list(newest_pools(tmp_path))
    assert [piece[0].recording.id for piece in pieces] == ["c", "b", "a"]
    assert [[tick.pools for tick in piece] for piece in reversed(pieces)] == [
        [snapshot.pools for recording, snapshot in read_traces(tmp_path) if recording.id == session] for session in ("a", "b", "c")
    ]
    assert [piece[0].recording.id for piece in newest_pools(tmp_path, before="c")] == ["b", "a"]
    assert list(newest_pools(tmp_path, before="a")) == []
    assert list(newest_pools(tmp_path, before="nobody")) == []


def test_a_damaged_row_costs_the_rest_of_its_piece(tmp_path: Path) -> None:
    for session in ("a", "b"):
        store(tmp_path, [1.0] * 10, session=session)
    (file,) = (tmp_path / "traces").glob("*.db")
    with sqlite3.connect(file) as db:
        db.execute("UPDATE ticks SET wall = wall + 1 WHERE id = (SELECT max(id) - 3 FROM ticks)")
    db.close()
    assert [len(piece) for piece in newest_pools(tmp_path)] == [6, 10]


# --- the command --------------------------------------------------------------------------------------------------------------


def test_a_recorded_pool_is_simulated_beside_what_it_had(nicety: Invoke, tmp_path: Path) -> None:
    store(tmp_path, [2.0, 2.0, 3.0] * 40, grow_at=60)
    asked = ("simulate", tmp_path, "--pool", "web", "--rule", "nicety", "--rule", "kpa", "--seeds", "1", "--json", "-")
    result = nicety(*asked)
    assert result.code == 0
    assert (
        "web: 120 s of it, arrivals at random times at the load that was seen; service times drawn, 0.2 s on average (--service)"
        in result.err
    )
    assert "(measured " in result.err
    assert "2 to 12 workers" in result.err
    said = json.loads(result.out)
    (ours, kpa), itself = said["means"], said["recorded"]
    assert [mean["rule"] for mean in (ours, kpa)] == ["nicety", "kpa"]
    assert itself["workers"] == pytest.approx((30 * 4 + 60 * 6) / 90)  # a quarter of 120 s does not count
    assert itself["spawns_per_hour"] == pytest.approx(2 * 3600 / 90)
    assert ours["start_seconds"] == pytest.approx(read(tmp_path, "web", 3600).start_seconds)
    assert ours["workers"] > 2
    table = nicety(*asked[:-2]).out.splitlines()
    assert table[-1].split() == ["web", "(recorded)", "5.3", "80"]
    other = json.loads(nicety(*asked, "--start", "20", "--maximum", "7", "--warmup", "60").out)["means"][0]
    assert other["start_seconds"] == 20


def test_our_own_recordings_are_played_and_the_limits_are_the_configured_ones(nicety: Invoke, tmp_path: Path) -> None:
    store(tmp_path / "state", [2.0] * 80)
    config = tmp_path / "n.toml"
    config.write_text("[pools.web]\nkind = 'command'\ncommand = ['x']\nminimum = 3\nmaximum = 9\n")
    result = nicety("simulate", "--pool", "web", "--config", config, "--rule", "fixed-9", "--seeds", "1")
    assert (result.code, result.out.splitlines()[1].split()[6]) == (0, "9.0")
    assert "start 4 s (no start was measured), 3 to 9 workers" in result.err
    usual = nicety("simulate", "--pool", "web", "--config", config, "--seeds", "1").out
    assert "fixed-9" in usual
    assert "fixed-32" not in usual


def test_a_recorded_pool_is_simulated_with_its_objective(nicety: Invoke, tmp_path: Path) -> None:
    store(tmp_path / "state", [2.0] * 80)
    config, workers = tmp_path / "n.toml", []
    for objective in ("", "objective = { utilization = 0.25 }\n"):
        config.write_text(f"[pools.web]\nkind = 'command'\ncommand = ['x']\nminimum = 1\nmaximum = 16\n{objective}")
        asked = ("--pool", "web", "--config", config, "--rule", "nicety-reactive", "--seeds", "1")
        workers.append(float(nicety("simulate", *asked).out.splitlines()[1].split()[6]))
    assert workers[1] > workers[0] + 2


@pytest.mark.parametrize(
    ("loads", "names", "asked", "said"),
    [
        ([1.0] * 5, ("web", "jobs"), ("--pool", "api"), 'no pool "api" was recorded; there are: jobs, web'),
        ([1.0] * 5, ("web", "jobs"), (), "more than one pool was recorded; choose one with --pool: jobs, web"),
        ([0.0] * 5, ("web",), (), "web: no worker was ever seen busy; record it while it has work to do"),
        ([1.0] * 5, (), (), "no pool was recorded; add your pools to the configuration"),
    ],
)
def test_what_is_wrong_with_a_recording_is_one_line(
    nicety: Invoke, tmp_path: Path, loads: list[float | None], names: tuple[str, ...], asked: tuple[str, ...], said: str
) -> None:
    store(tmp_path, loads, names=names)
    result = nicety("simulate", tmp_path, *asked)
    assert (result.code, result.out) == (1, "")
    assert said in result.err
    assert result.err.count("\n") == 1


def test_a_file_of_another_format_is_named(nicety: Invoke, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("t_submit\n1\n2\n")
    (tmp_path / "empty").mkdir()
    for place, said in (
        ("x.csv", "x.csv cannot be read: file is not a database; give a trace file, or the state directory"),
        ("empty", "no traces in"),
        ("nowhere", "nothing is recorded there; record with `nicety record` or `nicety run`"),
    ):
        result = nicety("simulate", tmp_path / place, "--pool", "web")
        assert (result.code, result.out) == (1, "")
        assert said in result.err
    result = nicety("simulate", "--pool", "web", "--load", "steps")
    assert (result.code, "not both" in result.err) == (2, True)


def test_only_the_rules_that_count_decide() -> None:
    busy = np.where(np.arange(480) % 180 < 60, 9.0, 1.5)
    load = drawn_from(Recorded("web", 1.0, busy, busy * 0, busy, np.zeros(0), None, 0.0), 0.2, 1)
    asked = {}
    for rules in Rules:
        rule = Nicety(Config(), 2, 32, None, rules=rules, size=11 if rules is Rules.CONSTANT else 0)
        queue = SimulatedQueue(load.arrivals, load.services, 4.0, 12)
        told = set[str]()
        for turn in range(1, round(480 / rule.period) + 1):
            queue.advance(turn * rule.period)
            queue.resize(rule.size(queue.look(rule.wants_workers)))
            for decision in rule.last[1].decisions if rule.last is not None else ():
                figures = dict(decision.why.figures)
                told |= {each for each in ("season", "forecast", "replay") if f"workers_by_{each}" in figures}
        asked[rules] = told, queue.look().size
    assert asked[Rules.ALL][0] == {"season", "forecast"}
    assert asked[Rules.FORECAST][0] == {"forecast"}
    assert asked[Rules.REACTIVE][0] == set()
    assert asked[Rules.CONSTANT] == ({"replay"}, 11)


def test_a_load_that_is_too_much_is_refused() -> None:
    busy = np.full(100, 1e9)
    with pytest.raises(LoadError, match="simulate a shorter part of it"):
        drawn_from(Recorded("web", 1.0, busy, busy * 0, busy, np.zeros(0), None, 0.0), 0.001, 1)
