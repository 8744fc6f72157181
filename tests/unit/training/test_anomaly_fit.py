from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from nicety.models.anomaly.detectors import KINDS
from nicety.models.anomaly.evidence import CHANNELS
from nicety.models.anomaly.model import LINE, AnomalyModel, alpha, prior
from nicety.models.checks import check_scorer
from nicety.models.identity import ProcId
from nicety.models.records import Anomaly
from nicety.training import anomaly_fit as module
from nicety.training.anomaly_cases import CHARACTERS, FAULTS, WorkerTick, faulty, healthy_pool, together
from nicety.training.anomaly_fit import AnomalyFit, WorkerTraces, fit_anomaly, fit_tail

INTERVAL = 0.5
AT = {name: i for i, name in enumerate(CHANNELS)}


def fit(*sessions: Sequence[WorkerTick]) -> AnomalyFit:
    return fit_anomaly(WorkerTraces(sessions), INTERVAL)


def pools(ticks: int, seed: int = 1) -> list[WorkerTick]:
    rng = np.random.default_rng(seed)
    return together(
        [healthy_pool("steady", 3, ticks, INTERVAL, rng, "web", 100), healthy_pool("steady", 4, ticks, INTERVAL, rng, "spool", 500)]
    )


def line(result: AnomalyFit, kind: Anomaly) -> float:
    """The least score that alarms once a day."""
    model = AnomalyModel.from_arrays(result.arrays, "d", INTERVAL)
    scores = np.linspace(0, 10 * LINE[kind], 20_000)
    return float(scores[np.argmax(model.tails(INTERVAL)[1][kind].p(scores) < alpha(1.0))])


def test_less_than_two_minutes_of_a_small_pool_are_enough_to_find_what_is_blatant() -> None:
    result = fit(pools(210))
    assert result.beats, result.reason
    assert result.features == CHANNELS
    by_kind = {row.kind: row for row in result.rows}
    for kind in FAULTS:
        assert by_kind[kind].found == by_kind[kind].injected > 0
        assert by_kind[kind].false_alarms == 0
    delays = {kind: by_kind[kind].delay for kind in (Anomaly.LEAK, Anomaly.STUCK)}
    assert all(delay is not None and delay <= 30 for delay in delays.values()), delays


def test_a_trained_scorer_keeps_every_promise() -> None:
    check_scorer(AnomalyModel.from_arrays(fit(pools(180)).arrays, "d", INTERVAL))


def test_more_healthy_time_makes_the_scorer_surer() -> None:
    long, short = fit(pools(900)), fit(pools(180))
    assert line(long, Anomaly.LEAK) < line(short, Anomaly.LEAK) < 1.5 * LINE[Anomaly.LEAK]


def test_the_same_traces_give_the_same_model() -> None:
    one, two = fit(pools(150)), fit(pools(150))
    assert one.rows == two.rows
    assert all(np.array_equal(one.arrays[name], two.arrays[name]) for name in one.arrays)


def test_a_worker_that_leaks_while_we_train_is_not_taken_for_healthy() -> None:
    clean, ticks = pools(400), pools(400)
    values = faulty(Anomaly.LEAK, np.array([tick.values[5] for tick in ticks[100:]]), INTERVAL)
    for tick, row in zip(ticks[100:], values, strict=True):
        tick.values[5] = row
    assert line(fit(ticks), Anomaly.LEAK) == pytest.approx(line(fit(clean), Anomaly.LEAK), rel=0.1)


def test_long_pauses_that_are_how_a_pool_works_are_learned() -> None:
    ticks = pools(900)
    for number, tick in enumerate(ticks):  # each worker in turn waits 20 s for a slow partner
        for i in range(len(tick.keys)):
            if (number - 120 * i) % 800 < 40:
                tick.values[i, [AT[name] for name in ("cpu", "wait", "timeslices", "chars")]] = 0.0
                tick.values[i, AT["busy"]] = 1.0
    result = fit(ticks)
    row = next(row for row in result.rows if row.kind is Anomaly.STUCK)
    assert row.baseline_false_alarms > 0
    assert row.false_alarms == 0
    assert line(result, Anomaly.STUCK) > 40


def test_sessions_are_replayed_apart() -> None:
    early, late = pools(200, seed=1), pools(200, seed=2)
    for tick in late:
        tick.values[:, AT["rss"]] *= 20  # another machine
    result = fit(early, late)
    assert result.beats, result.reason
    assert all(row.false_alarms == 0 for row in result.rows)


def test_workers_that_come_and_go_are_tolerated() -> None:
    rng = np.random.default_rng(4)
    ticks = healthy_pool("deploy", 4, 240, INTERVAL, rng)
    ticks[50:60] = [WorkerTick([], [], np.zeros((0, len(CHANNELS)))) for _ in range(10)]
    result = fit(ticks)
    assert all(row.false_alarms == 0 for row in result.rows)


def test_a_pool_without_work_does_not_pass_the_check() -> None:
    result = fit(healthy_pool("idle", 3, 200, INTERVAL, np.random.default_rng(5)))
    assert not result.beats
    assert "record longer, under load" in result.reason


def test_traces_without_workers_are_refused() -> None:
    with pytest.raises(ValueError, match="no workers of pools"):
        fit([WorkerTick([], [], np.zeros((0, len(CHANNELS))))])
    with pytest.raises(ValueError, match="no workers of pools"):
        fit()


def test_no_calibration_block_leaves_the_baseline() -> None:
    for kind in KINDS:
        assert fit_tail(np.zeros(0), kind) is not None
        assert fit_tail(np.zeros(0), kind).scale == prior(kind).scale


def test_heavy_tails_are_seen_as_such() -> None:
    rng = np.random.default_rng(6)
    light, heavy = fit_tail(rng.exponential(1, 4000), Anomaly.STUCK), fit_tail(rng.pareto(2.5, 4000), Anomaly.STUCK)
    assert light.shape < 0.2 < heavy.shape


@pytest.mark.parametrize("character", CHARACTERS)
def test_cases_are_seeded_and_shaped_as_the_runtime_sees_workers(character: str) -> None:
    one, two = (healthy_pool(character, 3, 40, INTERVAL, np.random.default_rng(9)) for _ in range(2))
    assert all(np.array_equal(a.values, b.values) and a.keys == b.keys for a, b in zip(one, two, strict=True))
    assert all(tick.values.shape == (len(tick.keys), len(CHANNELS)) and (tick.values >= 0).all() for tick in one)
    if character == "deploy":
        assert not set(one[0].keys) & set(one[-1].keys)


def test_faults_change_what_they_are_about() -> None:
    values = healthy_pool("steady", 1, 60, INTERVAL, np.random.default_rng(10))
    healthy = np.array([tick.values[0] for tick in values])
    healthy[:, AT["fds"]] = np.nan
    stuck = faulty(Anomaly.STUCK, healthy, INTERVAL)
    assert (stuck[:, [AT["cpu"], AT["timeslices"], AT["chars"]]] == 0).all()
    assert np.isnan(stuck[:, AT["fds"]]).all()
    leaking = faulty(Anomaly.LEAK, healthy, INTERVAL)
    assert leaking[-1, AT["rss"]] - healthy[-1, AT["rss"]] == pytest.approx(30 * 3 * 2**20)
    with pytest.raises(ValueError, match="cannot put"):
        faulty(Anomaly.OUTLIER, healthy, INTERVAL)
    with pytest.raises(ValueError, match="no character"):
        healthy_pool("odd", 1, 1, INTERVAL, np.random.default_rng(0))
    assert ProcId(100, 1) in values[0].keys


def of(owner: str, ticks: Sequence[WorkerTick]) -> list[WorkerTick]:
    return [WorkerTick(tick.keys, tick.pools, tick.values, [owner] * len(tick.keys)) for tick in ticks]


def shaped(ticks: int) -> list[WorkerTick]:
    """Workers that misbehave from time to time in every way, so that nothing would look odd any more."""
    made = healthy_pool("steady", 8, ticks, INTERVAL, np.random.default_rng(9), "shaped", 900)
    for start in range(0, ticks - 60, 20):
        for kind in FAULTS:
            values = faulty(kind, np.array([tick.values[3] for tick in made[start : start + 60]]), INTERVAL)
            for tick, row in zip(made[start : start + 60], values, strict=True):
                tick.values[3] = row
    return made


def test_one_users_traces_move_no_limit_of_another() -> None:
    alone = fit(of("1000", pools(90)))
    beside = fit(together([of("1000", pools(90)), of("1001", shaped(90))]))
    mine, theirs = (AnomalyModel.from_arrays(each.arrays, "d", INTERVAL) for each in (alone, beside))
    scores = np.linspace(0, 100, 1000)
    moved = 0
    for kind in KINDS:
        before, after = (model.tails(INTERVAL, "1000")[1][kind].p(scores) for model in (mine, theirs))
        assert np.array_equal(before, after), kind
        moved += not np.array_equal(after, theirs.tails(INTERVAL, "1001")[1][kind].p(scores))
    assert moved > 1, "the shaped traces are worth something"


def test_a_user_without_traces_has_the_baselines_limits() -> None:
    model = AnomalyModel.from_arrays(fit(of("1000", pools(150))).arrays, "d", INTERVAL)
    assert model.tails(INTERVAL, "1000")[0] == model.source
    source, tails = model.tails(INTERVAL, "1002")
    assert source == "baseline robust z"
    scores = np.linspace(0, 50, 100)
    assert np.array_equal(tails[Anomaly.LEAK].p(scores), prior(Anomaly.LEAK).p(scores))


def test_stretches_side_by_side_see_what_a_replay_in_one_piece_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_STRETCH", 10**9)
    whole = fit(pools(900))
    monkeypatch.setattr(module, "LEAST_STRETCH", 50)
    parts = fit(pools(900))
    assert parts.rows == whole.rows
    assert all(np.array_equal(parts.arrays[name], whole.arrays[name]) for name in whole.arrays)
