"""The seasonal pattern of a pool's load on its way through observer, log and engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from nicety.models.forecast.seasonality import HOLE, MEMORY, Seasonality
from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, HostSample, Identity, PoolSample, Snapshot, WorkerSample
from nicety.scheduler.config.sections import parse
from nicety.scheduler.decide.engine import Engine
from nicety.scheduler.decision import Abilities, Predicted, Tick, encode
from nicety.scheduler.observe.loads import Offered, OfferedLoad
from nicety.scheduler.observe.observer import Observer
from nicety.scheduler.service.warm_start import Past, start_warm, start_warm_again
from nicety.scheduler.store.traces import TraceWriter

SECOND = 10**9
CONFIG = parse("[pools.web]\nkind = 'command'\ncommand = ['server']\nmaximum = 12\n[quarantine]\nenabled = false\n")
ABILITIES = Abilities(autogroup=False, cpu_cgroup="", may_renice=False)
PERIOD = 180
WORKERS = tuple(ProcId(10 + number, 100) for number in range(8))
IDENTITIES = dict.fromkeys(WORKERS, Identity("server", "server", "/", "", 0))


def snapshot(tick: int, busy: float, queued: float) -> Snapshot:
    """Eight workers of which so many are busy; starting one takes 4 s."""
    table = np.zeros(len(WORKERS), dtype=SAMPLE)
    table["pid"], table["start_ticks"] = [id_.pid for id_ in WORKERS], 100
    workers = tuple(WorkerSample(id_, busy / len(WORKERS), ready=True) for id_ in WORKERS)
    pool = PoolSample("web", len(WORKERS), len(WORKERS), queued, workers, None, 4.0, "")
    host = HostSample((0,) * 32, 8 << 30, 7 << 30, None)
    return Snapshot(tick * SECOND, tick * SECOND, 10_000 + 100 * tick, table, IDENTITIES, host, (pool,))


def snapshots(ticks: int, queued: float = 0.0) -> list[Snapshot]:
    """1 worker busy, and 6 for a minute of three; meanwhile so much waits."""
    return [
        snapshot(tick, *((6.0, queued) if tick % PERIOD < 60 else (1.0, 0.0))) for tick in range(PERIOD // 3, PERIOD // 3 + ticks)
    ]


def ticks(seen: list[Snapshot]) -> list[Tick]:
    observer = Observer(CONFIG, ABILITIES, ProcId(5, 1), None, None, None)
    return [observer.tick(each, (), paused=False) for each in seen]


def predicted(tick: Tick) -> Predicted:
    (pool,) = tick.pools
    assert pool.predicted is not None
    return pool.predicted


def test_a_tick_says_what_the_load_of_a_pool_did_at_this_phase_and_for_how_long_ahead() -> None:
    seen = ticks(snapshots(2 * PERIOD + 118))  # 2 ticks before the load rises the third time
    said = predicted(seen[-1])
    assert (said.period, said.seen, said.trusted) == (PERIOD, 2, True)
    assert said.horizon == pytest.approx(4.8)
    assert said.median == pytest.approx(6.0, abs=0.3)
    assert predicted(seen[-20]).median == pytest.approx(1.0, abs=0.1)
    assert predicted(seen[-7]).median == pytest.approx(1.0, abs=0.1)
    assert predicted(seen[-7]).later == pytest.approx(6.0, abs=0.3)  # within the 10 s of `down_after`


def test_the_engine_grows_the_pool_before_the_rise_from_the_log_alone() -> None:
    seen = ticks(snapshots(2 * PERIOD + 118))
    logged = [msgspec.json.decode(encode(tick), type=Tick) for tick in seen]
    assert logged == seen
    engine, again = Engine(CONFIG, "s"), Engine(CONFIG, "s")
    verdicts = [engine.step(tick) for tick in seen]
    assert [encode(again.step(tick)) for tick in logged] == [encode(verdict) for verdict in verdicts]
    grown = [decision for verdict in verdicts[-8:] for decision in verdict.decisions if decision.why.rule == "seasonality"]
    assert grown
    assert grown[-1].why.figures["season_seconds"] == PERIOD


def test_a_backlog_is_not_taken_for_the_load() -> None:
    """Six are busy and forty wait. Worked off, as much was served as had come; then what came without a queue counts."""
    growing = predicted(ticks(snapshots(2 * PERIOD + 118, queued=40.0))[-1])
    assert growing.trusted
    assert growing.median == pytest.approx(6.0, abs=0.5)
    served = snapshots(3 * PERIOD + 118, queued=40.0)
    for number, each in enumerate(served):
        if number > 2 * PERIOD and each.pools[0].queued:
            served[number] = replace(each, pools=(replace(each.pools[0], queued=0.0),))
    known = predicted(ticks(served)[-1])
    assert known.trusted
    assert known.median == pytest.approx(6.0, abs=0.5)


def test_of_a_backlog_that_was_worked_off_the_load_is_what_had_been_busy_on_average() -> None:
    """Ten Erlang come to four workers, and after ten seconds there are sixteen: 60 wait, which take ten more."""
    offered = OfferedLoad(Seasonality())
    for tick in range(100, 200):
        offered.step(tick, Offered(3.0 - 0.0, 3.0), 32)
    for second in range(10):
        offered.step(200 + second, Offered(4.0 + 6 * (second + 1) - 6.0 * (second + 1), 4.0 + 6 * (second + 1)), 32)
    for second in range(10):
        offered.step(210 + second, Offered(16.0 + 6 * (9 - second) - 6.0 * (9 - second), 16.0 + 6 * (9 - second)), 32)
    for tick in range(220, 224):
        offered.step(tick, Offered(10.0 - 0.0, 10.0), 32)
    came = np.expm1(offered.seasonality.levels(24))
    assert came[:21] == pytest.approx(10.0, abs=0.3)


def test_a_backlog_of_many_minutes_is_left_uncertain() -> None:
    offered = OfferedLoad(Seasonality())
    for tick in range(400):
        offered.step(tick, Offered(4.0 + 10.0 - 10.0, 4.0 + 10.0), 32)
    for tick in range(400, 410):
        offered.step(tick, Offered(4.0 - 0.0, 4.0), 32)
    assert np.expm1(offered.seasonality.levels(410))[:400] == pytest.approx(14.0, abs=0.1)


# --- after a restart ----------------------------------------------------------------------------------------------------------


def stored(state: Path, seen: list[Snapshot], boot: str = "boot", session: str = "one") -> None:
    writer = TraceWriter(state, boot_id=boot, session=session, budget_bytes=64 << 20, interval=1.0)
    for each in seen:
        writer.append(each)
    writer.close()


def after(past: Past, seen: list[Snapshot]) -> list[Tick]:
    observer = Observer(CONFIG, ABILITIES, ProcId(5, 1), None, None, None)
    observer.start_warm(past)
    return [observer.tick(each, (), paused=False) for each in seen]


def test_after_a_restart_it_predicts_what_it_would_have_predicted_without(tmp_path: Path) -> None:
    seen = snapshots(2 * PERIOD + 118)
    before, rest = seen[:-20], seen[-20:]
    stored(tmp_path, before)
    past, warm_start = start_warm(tmp_path, "boot", rest[0].at, rest[0].wall, 1, lambda: True)
    assert warm_start.ticks == len(past) == len(before)
    assert [predicted(tick) for tick in after(past, rest)[1:]] == [predicted(tick) for tick in ticks(seen)[-19:]]
    assert all(pool.predicted is None for tick in after([], rest) for pool in tick.pools)


def test_after_a_reboot_the_wall_clock_says_how_long_ago_it_was(tmp_path: Path) -> None:
    seen = snapshots(2 * PERIOD + 118)
    before, rest = seen[:-20], seen[-20:]
    stored(tmp_path, before, boot="earlier")
    begin = rest[0].at - 3 * SECOND
    rest = [replace(each, at=each.at - begin) for each in rest]
    past, _ = start_warm(tmp_path, "boot", rest[0].at, rest[0].wall, 1, lambda: True)
    assert past[0][0] < 0
    assert [predicted(tick) for tick in after(past, rest)[1:]] == [predicted(tick) for tick in ticks(seen)[-19:]]


def test_what_was_longer_ago_than_a_rhythm_bridges_is_forgotten(tmp_path: Path) -> None:
    seen = snapshots(2 * PERIOD + 118)
    stored(tmp_path, seen)
    for hole, known in ((HOLE - 60, True), (HOLE + 60, False)):
        late = [snapshot(tick, 1.0, 0.0) for tick in range(seen[-1].at // SECOND + hole, seen[-1].at // SECOND + hole + 3)]
        past, _ = start_warm(tmp_path, "boot", late[0].at, late[0].wall, 1, lambda: True)
        assert (after(past, late)[-1].pools[0].predicted is not None) == known


def test_looking_back_is_bounded_by_time_and_by_the_number_of_pools(tmp_path: Path) -> None:
    seen = snapshots(1300)
    stored(tmp_path, seen)
    now = seen[-1].at + SECOND
    past, warm_start = start_warm(tmp_path, "boot", now, now, 1, lambda: False)
    assert warm_start.ticks == 100  # from the newest keyframe on: one in 600 ticks
    assert [at for at, _ in past] == [each.at for each in seen[-100:]]
    past, warm_start = start_warm(tmp_path, "boot", now, now, 2 * MEMORY // 70, lambda: True)
    assert warm_start.ticks == len(past) == 70
    assert past[-1] == (seen[-1].at, seen[-1].pools)
    assert start_warm(tmp_path, "boot", now, now, 10 * MEMORY, lambda: True)[0] == []


def test_a_replay_looks_back_on_the_same_ticks_or_says_that_it_cannot(tmp_path: Path) -> None:
    seen = snapshots(300)
    stored(tmp_path, seen[:200])
    past, warm_start = start_warm(tmp_path, "boot", seen[200].at, seen[200].wall, 1, lambda: True)
    stored(tmp_path, seen[200:], session="two")
    assert start_warm_again(tmp_path, "boot", "two", warm_start) == past
    assert start_warm_again(tmp_path, "boot", "nobody", warm_start) is None
    assert start_warm_again(tmp_path, "boot", "one", warm_start) is None
    assert start_warm_again(tmp_path / "nowhere", "boot", "two", warm_start) is None
