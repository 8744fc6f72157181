from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from nicety.models import checks
from nicety.models.anomaly.detectors import KINDS, worker_rows
from nicety.models.anomaly.evidence import CHANNELS, MIB
from nicety.models.anomaly.model import LINE, RARE, AnomalyModel, RobustZ, Scorer, Tail, alpha, judge, prior, score
from nicety.models.anomaly.siblings import Siblings
from nicety.models.checks import CheckError, check_scorer
from nicety.models.features import Floats, Singles, WorkerWindows
from nicety.models.identity import ProcId
from nicety.models.records import WINDOW, Anomaly, Score
from nicety.training.anomaly_cases import CHARACTERS, WorkerTick, faulty, healthy_pool, together
from nicety.training.anomaly_fit import fit_tail

ONCE_A_DAY = alpha(1.0)
AT = {name: i for i, name in enumerate(CHANNELS)}
VICTIM = ProcId(100, 1)


def looks(
    ticks: Sequence[WorkerTick], interval: float, scorer: Scorer | None = None, every: float = 1.0, start: int = 0
) -> Iterator[tuple[int, list[Score]]]:
    windows = WorkerWindows(len(CHANNELS))
    for number, tick in enumerate(ticks):
        windows.push(tick.keys, tick.values)
        if number >= start and number % max(round(every / interval), 1) == 0:
            view, lengths = windows.view()
            yield number, score(scorer or RobustZ(), tick.keys, tick.pools, view, lengths, interval)


def flags(ticks: Sequence[WorkerTick], interval: float, every: float = 2.0, start: int = 0) -> list[tuple[int, Score]]:
    return [(number, s) for number, found in looks(ticks, interval, every=every, start=start) for s in found if s.p < ONCE_A_DAY]


def broken(ticks: Sequence[WorkerTick], onset: int, kind: Anomaly, interval: float, strength: float = 1.0) -> Sequence[WorkerTick]:
    """The first worker goes wrong; a stuck one leaves work waiting."""
    values = faulty(kind, np.array([tick.values[0] for tick in ticks[onset:]]), interval, strength)
    for tick, row in zip(ticks[onset:], values, strict=True):
        tick.values[0] = row
        if kind is Anomaly.STUCK:
            tick.values[:, AT["queued"]] = np.maximum(tick.values[:, AT["queued"]], 0.4)
    return ticks


def last(ticks: Sequence[WorkerTick], interval: float, scorer: Scorer | None = None) -> dict[ProcId, Score]:
    *_, (_, found) = looks(ticks, interval, scorer, start=len(ticks) - 1, every=interval)
    return {s.id: s for s in found}


@pytest.mark.parametrize(("interval", "ticks"), [(0.2, 500), (0.5, 300), (1.0, 200), (5.0, 160)])
def test_healthy_pools_of_every_character_give_no_alarm(interval: float, ticks: int) -> None:
    rng = np.random.default_rng(7)
    pools = [healthy_pool(name, 2 + i % 6, ticks, interval, rng, name, 1000 * i) for i, name in enumerate(CHARACTERS)]
    assert flags(together(pools), interval, every=max(2.0, 2 * interval)) == []


@pytest.mark.parametrize("character", ["steady", "bursty"])
@pytest.mark.parametrize(("kind", "seconds"), [(Anomaly.LEAK, 20), (Anomaly.STUCK, 15), (Anomaly.SPIN, 25), (Anomaly.STARVED, 26)])
def test_a_blatant_fault_is_found_in_time_and_named_right(kind: Anomaly, seconds: float, character: str) -> None:
    interval, onset = 0.5, 200
    ticks = broken(healthy_pool(character, 4, 320, interval, np.random.default_rng(3)), onset, kind, interval)
    found = flags(ticks, interval, start=onset)
    assert {(s.id, s.kind) for _, s in found} == {(VICTIM, kind)}
    assert (found[0][0] - onset) * interval <= seconds


@pytest.mark.parametrize("interval", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("kind", [Anomaly.LEAK, Anomaly.STUCK])
def test_faults_are_found_at_other_ticks_too(kind: Anomaly, interval: float) -> None:
    onset = 300
    ticks = broken(healthy_pool("steady", 3, onset + 110, interval, np.random.default_rng(4)), onset, kind, interval)
    found = flags(ticks, interval, start=onset)
    assert {(s.id, s.kind) for _, s in found} == {(VICTIM, kind)}
    assert (found[0][0] - onset) * interval <= max(30, 10 * interval)


@pytest.mark.parametrize("kind", [Anomaly.LEAK, Anomaly.STUCK])
def test_two_workers_are_enough(kind: Anomaly) -> None:
    ticks = broken(healthy_pool("steady", 2, 240, 0.5, np.random.default_rng(5)), 200, kind, 0.5)
    scores = last(ticks, 0.5)
    assert scores[VICTIM].kind is kind
    assert scores[VICTIM].p < ONCE_A_DAY < scores[ProcId(101, 1)].p


def test_a_lone_worker_is_held_against_its_own_past() -> None:
    interval, onset = 1.0, 200
    ticks = broken(healthy_pool("steady", 1, onset + 130, interval, np.random.default_rng(6)), onset, Anomaly.LEAK, interval)
    assert {s.kind for _, s in flags(ticks, interval, start=onset)} == {Anomaly.LEAK}
    windows = np.array([tick.values for tick in ticks[-WINDOW:]], dtype=np.float32).transpose(2, 0, 1)
    rows = worker_rows(["p"], windows, np.array([WINDOW]), interval)
    untold = {kind for kind, value in zip(KINDS, rows.scores[0], strict=True) if np.isnan(value)}
    assert untold == {Anomaly.SLOW, Anomaly.OUTLIER}  # how long work should take, and what is odd, only siblings tell


def test_a_minute_of_growth_is_enough_without_siblings() -> None:
    interval = 60.0 / WINDOW
    ticks = healthy_pool("steady", 1, WINDOW, interval, np.random.default_rng(6))
    for number, tick in enumerate(ticks):
        tick.values[0, AT["rss"]] += number * MIB
    found = last(ticks, interval)[VICTIM]
    assert found.kind is Anomaly.LEAK
    assert found.p < ONCE_A_DAY


def test_half_a_minute_of_growth_is_not_enough_without_siblings() -> None:
    ticks = healthy_pool("steady", 1, WINDOW, 1.0, np.random.default_rng(6))
    for number, tick in enumerate(ticks[-30:]):
        tick.values[0, AT["rss"]] += number * 10 * MIB
    assert last(ticks, 1.0)[VICTIM].p == 1.0


@pytest.mark.parametrize(("chars", "spins"), [(255.5, True), (256.0, False)])
def test_a_quarter_of_a_kib_a_second_is_progress_where_siblings_move_little(chars: float, spins: bool) -> None:
    ticks = broken(healthy_pool("steady", 4, 260, 0.5, np.random.default_rng(3)), 200, Anomaly.SPIN, 0.5)
    for tick in ticks:
        tick.values[:, AT["chars"]] = 5000.0
    for tick in ticks[200:]:
        tick.values[0, AT["chars"]] = chars
    assert (last(ticks, 0.5)[VICTIM].kind is Anomaly.SPIN) is spins


@pytest.mark.parametrize(("seconds", "odd"), [(20, False), (62, True)])
def test_what_is_odd_for_less_than_a_minute_is_no_outlier(seconds: int, odd: bool) -> None:
    interval = 0.5
    ticks = healthy_pool("steady", 4, 300, interval, np.random.default_rng(3))
    for tick in ticks[-round(seconds / interval) :]:
        tick.values[0, AT["chars"]] *= 40
    assert (last(ticks, interval)[VICTIM].kind is Anomaly.OUTLIER) is odd


@pytest.mark.parametrize(("unit", "odd"), [(MIB, False), (16 * MIB, True)])
def test_memory_is_odd_only_where_it_is_more_than_some_mib(unit: float, odd: bool) -> None:
    """Sixteen times what the siblings hold."""
    ticks = healthy_pool("steady", 4, 300, 0.5, np.random.default_rng(3))
    for tick in ticks:
        tick.values[:, AT["rss"]] = np.array([16, 1, 1, 1]) * unit
    assert (last(ticks, 0.5)[VICTIM].kind is Anomaly.OUTLIER) is odd


def test_siblings_that_all_grow_alike_do_not_leak() -> None:
    interval = 0.5
    ticks = healthy_pool("steady", 5, 400, interval, np.random.default_rng(8))
    for number, tick in enumerate(ticks):
        tick.values[:, AT["rss"]] += max(number - 200, 0) * interval * 3 * MIB * np.array([0.8, 0.9, 1.0, 1.1, 1.2])
    assert flags(ticks, interval) == []


def test_memory_that_siblings_hold_as_well_is_no_leak() -> None:
    interval = 0.5
    ticks = healthy_pool("steady", 4, 400, interval, np.random.default_rng(9))
    for number, tick in enumerate(ticks):  # the others have filled their caches long ago
        tick.values[1:, AT["rss"]] += 200 * MIB
        tick.values[0, AT["rss"]] += min(max(number - 200, 0) * interval * 2, 200) * MIB
    assert flags(ticks, interval) == []


def test_growth_too_small_to_matter_has_p_1() -> None:
    interval = 0.5
    ticks = healthy_pool("steady", 4, 300, interval, np.random.default_rng(10))
    for number, tick in enumerate(ticks[200:]):
        tick.values[0, AT["rss"]] += number * 0.06 * MIB  # 6 MiB, steadily
    scores = last(ticks, interval)
    assert scores[VICTIM].p == 1.0


def test_an_idle_worker_without_work_is_not_stuck() -> None:
    interval = 0.5
    ticks = healthy_pool("steady", 4, 300, interval, np.random.default_rng(11))
    for tick in ticks[150:]:
        tick.values[0, [AT[name] for name in ("cpu", "wait", "timeslices", "chars", "busy")]] = 0.0
        tick.values[:, AT["queued"]] = 0.0
    assert flags(ticks, interval) == []


def test_a_worker_that_hangs_in_a_task_is_stuck_though_nothing_is_queued() -> None:
    interval = 0.5
    ticks = broken(healthy_pool("steady", 4, 240, interval, np.random.default_rng(12)), 200, Anomaly.STUCK, interval)
    for tick in ticks:
        tick.values[:, AT["queued"]] = 0.0  # but it is busy
    assert last(ticks, interval)[VICTIM].kind is Anomaly.STUCK
    assert last(ticks, interval)[VICTIM].p < ONCE_A_DAY


def test_bytes_that_are_few_beside_those_of_siblings_are_no_progress() -> None:
    interval = 0.5
    ticks = broken(healthy_pool("steady", 4, 240, interval, np.random.default_rng(13)), 200, Anomaly.STUCK, interval)
    for tick in ticks:
        tick.values[:, AT["chars"]] = 1e6
    for tick in ticks[200:]:
        tick.values[0, AT["chars"]] = 1e3  # it answers health checks
    assert last(ticks, interval)[VICTIM].kind is Anomaly.STUCK
    assert last(ticks, interval)[VICTIM].p < ONCE_A_DAY


def test_a_heartbeat_is_no_progress() -> None:
    interval = 0.5
    ticks = broken(healthy_pool("steady", 4, 240, interval, np.random.default_rng(13)), 200, Anomaly.STUCK, interval)
    for number, tick in enumerate(ticks[200:]):  # wakes once a second to touch a file
        tick.values[0, [AT["timeslices"], AT["cpu"]]] = (2.0, 0.0004) if number % 2 else (0.0, 0.0)
    assert last(ticks, interval)[VICTIM].kind is Anomaly.STUCK
    assert last(ticks, interval)[VICTIM].p < ONCE_A_DAY


def test_a_pool_that_stands_still_as_a_whole_has_no_stuck_worker() -> None:
    interval = 0.5
    ticks = healthy_pool("steady", 4, 300, interval, np.random.default_rng(14))
    for tick in ticks[200:]:  # its database is down
        tick.values[:, [AT[name] for name in ("cpu", "wait", "timeslices", "chars")]] = 0.0
        tick.values[:, [AT["busy"], AT["queued"]]] = 1.0
    assert flags(ticks, interval) == []


def test_a_stuck_worker_shows_where_nobody_tells_of_work() -> None:
    interval = 0.5
    ticks = broken(healthy_pool("steady", 3, 240, interval, np.random.default_rng(15)), 200, Anomaly.STUCK, interval)
    for tick in ticks:
        tick.values[:, [AT[name] for name in ("busy", "queued", "chars", "fds")]] = np.nan
    scores = last(ticks, interval)
    assert scores[VICTIM].kind is Anomaly.STUCK
    assert scores[VICTIM].p < ONCE_A_DAY
    figures = dict(scores[VICTIM].evidence)
    assert figures["seconds_without_progress"] == pytest.approx(20, abs=1)
    assert "queued_per_worker" not in figures  # unknown is left out


def test_a_fresh_worker_is_no_evidence() -> None:
    interval = 0.5
    ticks = healthy_pool("steady", 3, 12, interval, np.random.default_rng(16))
    for number, tick in enumerate(ticks):
        tick.values[:, AT["rss"]] = number * 40 * MIB
    windows = WorkerWindows(len(CHANNELS))
    for tick in ticks:
        windows.push(tick.keys, tick.values)
    view, lengths = windows.view()
    assert score(RobustZ(), ticks[-1].keys, ticks[-1].pools, view, lengths, interval) == []


def test_an_outlier_needs_three_workers_and_has_no_other_name() -> None:
    interval = 0.5
    found = {}
    for workers in (2, 3):
        ticks = healthy_pool("steady", workers, 200, interval, np.random.default_rng(17))
        for tick in ticks:
            tick.values[0, AT["fds"]] += 2000
        found[workers] = last(ticks, interval)[VICTIM]
    assert found[2].p == 1.0
    assert found[3].kind is Anomaly.OUTLIER
    assert found[3].p < ONCE_A_DAY
    assert dict(found[3].evidence)["fds_times_siblings"] > 10


def test_a_leak_is_explained_by_its_figures() -> None:
    ticks = broken(healthy_pool("steady", 4, 260, 0.5, np.random.default_rng(18)), 200, Anomaly.LEAK, 0.5)
    found = last(ticks, 0.5)[VICTIM]
    figures = dict(found.evidence)
    assert found.source == "baseline robust z"
    assert figures["growth_mib_per_minute"] == pytest.approx(180, rel=0.15)
    assert figures["siblings_growth_mib"] < 1
    assert figures["now_mib"] > figures["siblings_mib"] + 50


def test_the_order_of_workers_changes_nothing() -> None:
    rng = np.random.default_rng(19)
    ticks = together([healthy_pool(name, 5, 150, 0.5, rng, name, 1000 * i) for i, name in enumerate(CHARACTERS)])
    windows = WorkerWindows(len(CHANNELS))
    for tick in ticks:
        windows.push(tick.keys, tick.values)
    keys, pools = list(ticks[-1].keys), list(ticks[-1].pools)
    shuffled = rng.permutation(len(keys))
    moved_keys, moved_pools = [keys[i] for i in shuffled], [pools[i] for i in shuffled]
    view, lengths = windows.view()
    assert score(RobustZ(), keys, pools, view, lengths, 0.5) == score(
        RobustZ(), moved_keys, moved_pools, view[:, :, shuffled], lengths[shuffled], 0.5
    )


def test_pools_do_not_influence_each_other() -> None:
    rng = np.random.default_rng(20)
    parts = [healthy_pool(name, 3, 150, 0.5, rng, name, 1000 * i) for i, name in enumerate(("steady", "large", "bursty"))]
    one, all_ = last(parts[1], 0.5), last(together(parts), 0.5)
    assert one
    assert {id_: all_[id_] for id_ in one} == one


def test_medians_leave_the_worker_itself_out() -> None:
    rng = np.random.default_rng(21)
    index = np.sort(rng.integers(0, 9, 60))
    values = np.where(rng.random((2, 60)) < 0.3, np.nan, np.round(rng.normal(0, 3, (2, 60)), 1))
    siblings = Siblings(index)
    for row, medians in zip(values, siblings.median(values), strict=True):
        for i, found in enumerate(medians):
            others = row[(index == index[i]) & (np.arange(60) != i) & np.isfinite(row)]
            assert np.isnan(found) if len(others) == 0 else found == pytest.approx(np.median(others), rel=1e-6)
    whole = siblings.pool_median(values[0])
    for i, found in enumerate(whole):
        mine = values[0][(index == index[i]) & np.isfinite(values[0])]
        assert np.isnan(found) if len(mine) == 0 else found == pytest.approx(np.median(mine), rel=1e-6)


def test_the_baseline_keeps_every_promise_of_a_scorer() -> None:
    check_scorer(RobustZ())


def test_a_broken_promise_is_named() -> None:
    class Mute(RobustZ):
        source = " "

    with pytest.raises(CheckError, match="where a score comes from"):
        check_scorer(Mute())


def test_the_workers_that_a_scorer_is_checked_with_misbehave_each_in_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    class SeenError(Exception):
        pass

    def seen(_scorer: object, _ids: object, _pools: object, windows: Singles, *_: object) -> None:
        raise SeenError(windows.copy())

    monkeypatch.setattr(checks, "score", seen)
    with pytest.raises(SeenError) as caught:
        check_scorer(RobustZ())
    last = dict(zip(CHANNELS, caught.value.args[0][:, -40:], strict=True))  # each [ticks, workers]
    assert (np.diff(last["rss"][:, 3]) > 0).all(), "grows"
    assert not any(last[name][:, 4].any() for name in ("cpu", "wait", "timeslices", "chars")), "stands still"
    assert (last["busy"][:, 4] > 0).any()
    assert (last["cpu"][:, 5] == 1.0).all(), "spins"
    assert not last["chars"][:, 5].any()
    assert (np.diff(last["threads"][:, 6]) == 1.0).all(), "starts threads"
    assert (last["forks"][:, 7] == 60.0).all(), "starts processes"


def test_the_line_turns_false_alarms_a_day_into_a_p_value() -> None:
    assert alpha(1.0, 5) == pytest.approx(1 / (24 * 60 * 100 * 5))
    assert alpha(10.0) == pytest.approx(10 * alpha(1.0))
    assert alpha(1e12) == 1.0
    with pytest.raises(ValueError, match="above 0"):
        alpha(0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_baseline_calls_its_line_rare_enough_for_an_alarm_a_day(kind: Anomaly) -> None:
    assert prior(kind).p(np.array([LINE[kind]]))[0] == pytest.approx(RARE)
    assert RARE < ONCE_A_DAY
    assert prior(kind).p(np.array([0.9 * LINE[kind]]))[0] > ONCE_A_DAY


def test_p_is_the_rank_within_and_falls_beyond() -> None:
    rng = np.random.default_rng(22)
    tail = fit_tail(rng.exponential(1.0, 999), Anomaly.STUCK)
    scores = np.linspace(0, 60, 400)
    p = tail.p(scores)
    assert (np.diff(p) <= 0).all()
    assert p[0] == 1.0
    assert tail.p(np.array([np.log(2)]))[0] == pytest.approx(0.5, abs=0.05)
    assert tail.p(np.array([np.nan])) == pytest.approx(np.nan, nan_ok=True)
    # conservative: an exponential tail is not called rarer than it is, but for the luck of the draw among those seen
    assert (p >= np.exp(-scores) * np.where(scores > tail.seen[-10], 1.0, 0.7)).all()


def test_healthy_blocks_are_called_as_rare_as_they_are() -> None:
    rng = np.random.default_rng(23)
    tail = fit_tail(rng.gumbel(3, 1, 3000).clip(0), Anomaly.STUCK)
    fresh = rng.gumbel(3, 1, 20_000).clip(0)
    for level in (0.3, 0.1, 0.01, 0.001):
        assert np.mean(tail.p(fresh) <= level) <= 1.5 * level


def arrays(tails: dict[Anomaly, Tail]) -> dict[str, Floats]:
    result = {}
    for kind, tail in tails.items():
        result[f"{kind}_seen"] = tail.seen
        result[f"{kind}_tail"] = np.array([tail.threshold, tail.rate, tail.shape, tail.scale])
    return result


def test_a_model_speaks_at_its_own_pace_and_the_baseline_at_others() -> None:
    model = AnomalyModel.from_arrays(arrays({kind: prior(kind) for kind in KINDS}), "3f9a0c11d2e4ffff", 0.5)
    ticks = healthy_pool("steady", 3, 100, 0.5, np.random.default_rng(24))
    assert {s.source for s in last(ticks, 0.5, model).values()} == {"anomaly 3f9a0c11d2e4"}
    windows = WorkerWindows(len(CHANNELS))
    for tick in ticks:
        windows.push(tick.keys, tick.values)
    view, lengths = windows.view()
    slow = judge(model, ticks[-1].keys, ticks[-1].pools, worker_rows(ticks[-1].pools, view, lengths, 5.0), 5.0)
    assert {s.source for s in slow} == {"baseline robust z"}


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("leak_seen", np.array([2.0, 1.0]), "no sensible distribution"),
        ("leak_seen", np.array([np.nan]), "finite"),
        ("stuck_tail", np.array([0.0, 0.2, 0.1]), "4 figures"),
        ("stuck_tail", np.array([0.0, 0.2, 0.1, 0.0]), "no sensible distribution"),
        ("spin_tail", np.array([0.0, 2.0, 0.1, 1.0]), "no sensible distribution"),
    ],
)
def test_arrays_that_no_calibration_makes_are_refused(name: str, array: Floats, message: str) -> None:
    good = arrays({kind: prior(kind) for kind in KINDS})
    AnomalyModel.from_arrays(good, "x", 1.0)
    with pytest.raises(ValueError, match=message):
        AnomalyModel.from_arrays({**good, name: array}, "x", 1.0)
    with pytest.raises(ValueError, match=f"lacks {name}"):
        AnomalyModel.from_arrays({key: value for key, value in good.items() if key != name}, "x", 1.0)


def test_windows_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="need windows"):
        worker_rows(["p"], np.zeros((3, WINDOW, 1), dtype=np.float32), np.array([5]), 1.0)
    with pytest.raises(ValueError, match="interval"):
        worker_rows(["p"], np.zeros((len(CHANNELS), WINDOW, 1), dtype=np.float32), np.array([5]), 0.0)
    with pytest.raises(ValueError, match="no workers"):
        worker_rows([], np.zeros((len(CHANNELS), WINDOW, 0), dtype=np.float32), np.zeros(0, dtype=np.int64), 1.0)
    assert score(RobustZ(), [], [], *WorkerWindows(len(CHANNELS)).view(), 1.0) == []
