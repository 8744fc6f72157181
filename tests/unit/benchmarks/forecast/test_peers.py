"""How forecasts are compared and the peers that they are compared with: benchmarks/forecast/protocol.py, peers.py."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

STEP = 300.0


@pytest.fixture(scope="module")
def protocol() -> ModuleType:
    return importlib.import_module("benchmarks.forecast.protocol")


@pytest.fixture(scope="module")
def peers() -> ModuleType:
    return importlib.import_module("benchmarks.forecast.peers")


def waves(count: int, length: int, period: int = 8, seed: int = 1) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Series of positive values that repeat, with some noise, each of another size."""
    rng = np.random.default_rng(seed)
    wave = 2 + np.sin(2 * np.pi * np.arange(length) / period)
    return np.asarray((wave + rng.gamma(2, 0.1, (count, length))) * 10.0 ** np.arange(count)[:, None])


def series(protocol: ModuleType, values: Any, dataset: str = "nezha_pods", metric: str = "cpu", step: float = STEP) -> list[Any]:
    return [protocol.Series(dataset, metric, f"{i}", f"{dataset}/{i}", 0.0, step, row) for i, row in enumerate(values)]


def panel(protocol: ModuleType, values: Any, step: float = STEP) -> Any:
    return protocol.Panel("nezha_pods", "cpu", np.zeros(len(values)), step, np.asarray(values, dtype=np.float64))


def test_series_are_read_in_the_order_of_their_time(protocol: ModuleType, tmp_path: Path) -> None:
    write_long(tmp_path, "b", {"vm1/cpu": [1.0, 2.0, 3.0, 4.0, 2.0, 7.0], "vm1/mem": [5.0, 6.0, 7.0, 8.0]})
    found = {one.name: one for one in protocol.load_demand(tmp_path)}
    assert set(found) == {"vm1/cpu", "vm1/mem"}
    cpu = found["vm1/cpu"]
    assert (cpu.dataset, cpu.metric, cpu.entity, cpu.step, cpu.start, cpu.group) == ("b", "cpu", "vm1", 60.0, 600.0, "b:cpu")
    assert cpu.values.tolist() == [1.0, 2.0, 3.0, 4.0, 2.0, 7.0]
    assert cpu.times().tolist() == [600.0, 660.0, 720.0, 780.0, 840.0, 900.0]


def test_events_are_counted_in_equal_intervals_and_counts_are_taken_as_they_are(protocol: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "arrivals").mkdir()
    interval = protocol.COUNTED["gentd26_requests"]
    events = np.array([0.1, 0.2, 1.5, 3.5]) * interval
    write(tmp_path / "arrivals" / "gentd26_requests.parquet", {"t_submit": events[[2, 0, 3, 1]]})
    write(tmp_path / "arrivals" / "minutes.parquet", {"t": [60, 120, 180], "count": [4, 5, 6]})
    write(tmp_path / "arrivals" / "seconds.parquet", {"count": [7, 8, 9]})
    write(tmp_path / "arrivals" / "limbo_wikipedia.parquet", {"t": [0, 1], "count": [1, 2]})
    found = {one.dataset: one for one in protocol.load_arrivals(tmp_path)}
    assert (found["gentd26_requests"].values.tolist(), found["gentd26_requests"].step) == ([2, 1, 0, 1], interval)
    assert (found["minutes"].values.tolist(), found["minutes"].step) == ([4, 5, 6], 60.0)
    assert (found["seconds"].values.tolist(), found["seconds"].step) == ([7, 8, 9], 1.0)
    assert found["limbo_wikipedia"].step == 3600.0, "its rows are hours"


def test_without_data_the_error_says_what_to_give(protocol: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(protocol.VARIABLE, raising=False)
    with pytest.raises(SystemExit, match=f"--data DIR or set {protocol.VARIABLE}"):
        protocol.directory(None)
    with pytest.raises(SystemExit, match=r"has no forecast/\*\.parquet"):
        protocol.directory(tmp_path)
    write_long(tmp_path, "b", {"vm1/cpu": [1.0, 2.0]})
    monkeypatch.setenv(protocol.VARIABLE, str(tmp_path))
    assert protocol.directory(None) == tmp_path


@pytest.mark.parametrize("length", [1, 12, 30, 31, 100, 5000])
def test_origins_lie_in_the_test_part_and_leave_room_for_the_last_horizon(protocol: ModuleType, length: int) -> None:
    one = series(protocol, np.ones((1, length)))[0]
    places = protocol.origins(one)
    room = length - 12 - (one.history - 1) if one.history else 0
    assert len(places) == min(30, max(0, room))
    if len(places):
        assert places[0] == one.history - 1
        assert len(places) == 1 or places[-1] == length - 13
        assert (np.diff(places) > 0).all()
    if len(places) > 1:
        assert np.ptp(np.diff(places)) <= 1, "evenly spaced"


def test_a_loss_is_what_the_definition_says(protocol: ModuleType) -> None:
    one = series(protocol, [np.arange(1.0, 51.0)])
    places = protocol.origins(one[0])
    came = protocol.targets(one[0], places)
    assert came[0].tolist() == [31.0, 36.0, 42.0]
    said = np.repeat((came - 2.0)[:, :, None], 3, axis=2)  # 2 too low: the pinball loss is 2 q
    found = protocol.losses(one, [said])
    assert found.wql() == pytest.approx([2 * np.mean([2 * 0.5, 2 * 0.9, 2 * 0.95]) / came.mean()])
    assert found.coverage().tolist() == [0.0, 0.0, 0.0]
    high = protocol.losses(one, [said + 3.0])  # 1 too high: 1 - q
    assert high.wql() == pytest.approx([2 * np.mean([0.5, 0.1, 0.05]) / came.mean()])
    assert high.coverage_by_set()["nezha_pods"].tolist() == [1.0, 1.0, 1.0]
    assert protocol.relative(high, found) == pytest.approx(np.mean([0.5, 0.1, 0.05]) / np.mean([1.0, 1.8, 1.9]))


def test_each_group_counts_the_same_whatever_its_unit_and_number_of_series(protocol: ModuleType, peers: ModuleType) -> None:
    many = series(protocol, waves(3, 60), "nezha_pods")
    one = series(protocol, waves(1, 80, seed=2) * 1e6, "smd_machines", "bytes")
    everything = [*many, *one]
    anchor = protocol.losses(everything, peers.forecasts(peers.LastValue(), everything))
    said = peers.forecasts(peers.WindowQuantile(12), everything)
    found = protocol.losses(everything, said)
    assert found.groups == ("nezha_pods:cpu", "smd_machines:bytes")
    first, second = (found.wql() / anchor.wql()).tolist()
    assert protocol.relative(found, anchor) == pytest.approx(np.sqrt(first * second))
    assert protocol.relative(found, anchor, ["smd_machines"]) == pytest.approx(second)
    assert protocol.relative(anchor, anchor) == 1.0


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_forecasts_that_are_not_finite_or_not_of_the_origins_are_refused(protocol: ModuleType, wrong: float) -> None:
    one = series(protocol, waves(1, 60))
    said = np.ones((len(protocol.origins(one[0])), 3, 3))
    protocol.losses(one, [said])
    with pytest.raises(ValueError, match="must be finite"):
        protocol.losses(one, [said[1:]])
    said[3, 1, 2] = wrong
    with pytest.raises(ValueError, match="must be finite"):
        protocol.losses(one, [said])


def test_panels_hold_every_series_once(protocol: ModuleType) -> None:
    everything = [*series(protocol, waves(5, 40)), *series(protocol, waves(2, 41)), *series(protocol, waves(1, 40), step=60.0)]
    found = list(protocol.panels(everything, cells=80))
    assert sorted(np.concatenate([places for places, _ in found]).tolist()) == list(range(8))
    assert max(len(places) for places, _ in found) == 2
    for places, one in found:
        for place, values in zip(places, one.values, strict=True):
            assert values.tolist() == everything[place].values.tolist()
            assert one.step == everything[place].step


# As limits


def test_slack_is_the_share_of_the_limits_that_is_not_used_and_breaches_are_steps_above(protocol: ModuleType) -> None:
    used = np.array([*np.full(60, 9.0), *np.tile([1.0, 3.0], 20)])
    one = series(protocol, [used])
    limit = np.tile([4.0, 2.0], 20)  # 3 left, then 1 too little
    row = protocol.as_limits(one, [limit]).row()
    assert row["slack"] == pytest.approx(3 / 6)
    assert row["breaches"] == 0.5
    assert row["fixed"] == 0.0  # 4 leaves half of itself on average, and is never exceeded
    assert row["fewer"] == 0.0


def test_a_limit_that_knows_what_comes_has_fewer_breaches_than_a_fixed_one_of_its_slack(protocol: ModuleType) -> None:
    values = waves(3, 400)
    everything = series(protocol, values)
    known = [one.values[protocol.limit_origins(one) + 1] * 1.02 for one in everything]
    row = protocol.as_limits(everything, known).row()
    assert row["slack"] == pytest.approx(1 - 1 / 1.02)
    assert row["breaches"] == 0.0
    assert row["fixed"] > 0.5
    assert row["fewer"] == np.inf


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.77, 0.999])
def test_the_fixed_limit_has_the_slack_it_was_made_for(protocol: ModuleType, share: float) -> None:
    used = np.random.default_rng(3).gamma(1.0, 5.0, 500)
    limit = protocol.fixed_limit(used, share)
    assert protocol.slack(used, limit) == pytest.approx(share, abs=1e-9)
    assert limit <= used.max() / (1 - share) + 1e-9


def test_the_fixed_limit_never_has_more_slack_than_it_was_made_for(protocol: ModuleType) -> None:
    used = np.random.default_rng(3).gamma(1.0, 5.0, 500)
    used[:50] = 0.0  # any limit at all has a tenth of slack
    assert protocol.fixed_limit(used, 0.05) == 0.0
    assert protocol.slack(used, protocol.fixed_limit(used, 0.2)) == pytest.approx(0.2)


def test_the_fixed_limit_of_use_that_never_was_is_none(protocol: ModuleType) -> None:
    nothing = np.zeros(10)
    assert protocol.slack(nothing, 0.0) == 0.0
    assert protocol.slack(nothing, 5.0) == 1.0
    assert not (nothing > protocol.fixed_limit(nothing, 1.0)).any()
    assert not (nothing > protocol.fixed_limit(nothing, 0.0)).any()


def test_a_limit_holds_for_as_many_steps_as_it_is_said_to(protocol: ModuleType) -> None:
    one = series(protocol, [np.repeat([1.0, 1.0, 3.0, 5.0], [30, 7, 7, 6])])
    places = protocol.limit_origins(one[0], 7)
    assert places.tolist() == [29, 36, 43]
    row = protocol.as_limits(one, [np.array([2.0, 4.0, 4.0])], 7).row()
    assert row["breaches"] == pytest.approx(6 / 20)
    assert row["slack"] == pytest.approx((7 + 7) / (7 * 2 + 13 * 4))


# The peers


def every_peer(protocol: ModuleType, peers: ModuleType) -> list[Any]:
    sets = [*series(protocol, waves(2, 400)), *series(protocol, waves(2, 400, seed=5), "smd_machines")]
    return [*peers.PEERS, peers.fit_boosting(False, sets), peers.fit_boosting(True, sets)]


@pytest.fixture(scope="module")
def everybody(protocol: ModuleType, peers: ModuleType) -> list[Any]:
    return every_peer(protocol, peers)


def test_no_peer_sees_what_comes_after_an_origin(protocol: ModuleType, everybody: list[Any]) -> None:
    values = waves(2, 700, period=12)
    places = np.array([419, 420, 505, 650])
    for seen, place in enumerate(places, 1):
        changed = values.copy()
        changed[:, place + 1 :] = 1e3 * changed[:, place + 1 :][:, ::-1]
        for peer in everybody:
            said = peer.forecast(panel(protocol, values), places, protocol.HORIZONS)[:, :seen]
            assert np.array_equal(said, peer.forecast(panel(protocol, changed), places, protocol.HORIZONS)[:, :seen]), peer.name


def test_every_peer_says_rising_finite_quantiles_at_every_horizon(protocol: ModuleType, everybody: list[Any]) -> None:
    assert len({peer.name for peer in everybody}) == len(everybody)
    zeros = np.zeros((1, 300))
    for values in (waves(2, 300), waves(2, 45), zeros, np.random.default_rng(1).poisson(0.2, (2, 700)).astype(float)):
        one = panel(protocol, values)
        places = protocol.origins(one)
        for peer in everybody:
            said = peer.forecast(one, places, protocol.HORIZONS)
            assert said.shape == (len(values), len(places), 3, 3), peer.name
            assert np.isfinite(said).all(), peer.name
            assert (np.diff(said, axis=3) >= 0).all(), peer.name
            alone = peer.forecast(one, places, (6,))
            assert np.array_equal(alone[:, :, 0], said[:, :, 1]), peer.name


def test_each_series_of_a_panel_is_on_its_own(protocol: ModuleType, everybody: list[Any]) -> None:
    values = waves(3, 300, period=12)
    places = np.array([200, 230, 287])
    for peer in everybody:
        together = peer.forecast(panel(protocol, values), places, protocol.HORIZONS)
        alone = peer.forecast(panel(protocol, values[1:2]), places, protocol.HORIZONS)
        assert np.allclose(together[1], alone[0], rtol=1e-9), peer.name


def test_the_anchor_is_the_last_value_and_the_quantiles_of_its_own_errors(protocol: ModuleType, peers: ModuleType) -> None:
    values = np.random.default_rng(1).gamma(2, 3, (2, 500))
    said = peers.LastValue().forecast(panel(protocol, values), np.array([350, 480]), protocol.HORIZONS)
    for row in range(2):
        for column, place in enumerate((350, 480)):
            for h, horizon in enumerate((1, 6, 12)):
                errors = [values[row, t] - values[row, t - horizon] for t in range(place - 287, place + 1)]
                expected = values[row, place] + np.quantile(errors, (0.5, 0.9, 0.95))
                assert said[row, column, h] == pytest.approx(expected)


def test_quantiles_are_those_of_numpy_whatever_is_unknown(peers: ModuleType) -> None:
    values = np.random.default_rng(2).normal(size=(4, 3, 50))
    values[0, :, :49] = np.nan
    values[1, :, ::3] = np.nan
    assert np.allclose(peers.quantiles(values), np.moveaxis(np.nanquantile(values, (0.5, 0.9, 0.95), axis=2), 0, 2))


@pytest.mark.parametrize(("alpha", "beta", "damping"), [(0.3, 0.0, 0.0), (0.4, 0.1, 1.0), (0.2, 0.3, 0.9)])
def test_holt_as_a_filter_is_holt_step_by_step(peers: ModuleType, alpha: float, beta: float, damping: float) -> None:
    values = waves(2, 80)
    level, trend = peers.holt(values, alpha, beta, damping)
    for row in range(2):
        at, slope = values[row, 0], 0.0
        for t in range(80):
            error = values[row, t] - at - damping * slope
            at, slope = at + damping * slope + alpha * error, damping * slope + alpha * beta * error
            assert level[row, t] == pytest.approx(at)
            assert trend[row, t] == pytest.approx(slope, abs=1e-9)


def test_holt_follows_a_line_and_its_damped_form_stays_below(protocol: ModuleType, peers: ModuleType) -> None:
    line = panel(protocol, 5 + 0.5 * np.arange(300)[None, :])
    places = np.array([250])
    plain = peers.Holt().forecast(line, places, (12,))[0, 0, 0]
    damped = peers.Holt(damped=True).forecast(line, places, (12,))[0, 0, 0]
    assert plain[0] == pytest.approx(5 + 0.5 * 262, rel=1e-3)
    level, trend = peers.holt(line.values, 0.4, 0.1, 0.8)
    assert level[0, 250] + trend[0, 250] * sum(0.8**step for step in range(1, 13)) < plain[0] - 2
    assert damped[0] == pytest.approx(plain[0], rel=0.02)


def test_seasonal_naive_says_what_was_a_day_before_where_there_was_one(protocol: ModuleType, peers: ModuleType) -> None:
    day = np.random.default_rng(1).gamma(2, 3, 24)
    hourly = panel(protocol, np.tile(day, 6)[None, :], step=3600.0)
    places = protocol.origins(hourly)
    said = peers.SeasonalNaive().forecast(hourly, places, protocol.HORIZONS)
    came = hourly.values[0][places[:, None] + np.array(protocol.HORIZONS)]
    assert np.allclose(said[0], came[:, :, None])
    short = panel(protocol, np.tile(day, 6)[None, :], step=60.0)
    anchor = peers.LastValue().forecast(short, places, protocol.HORIZONS)
    assert np.array_equal(peers.SeasonalNaive().forecast(short, places, protocol.HORIZONS), anchor)


def test_a_decaying_histogram_has_every_value_up_to_its_place(peers: ModuleType) -> None:
    bins = np.random.default_rng(2).integers(0, 4, (2, 60))
    places = np.array([10, 11, 40])
    said = peers.decayed(bins, places, 5.0, 4)
    for row in range(2):
        for column, place in enumerate(places):
            weight = 0.5 ** ((60 - 19 - np.arange(place + 1)) / 5)  # from one after the last place, for all
            assert said[row, column] == pytest.approx(np.bincount(bins[row, : place + 1], weight, 4))


def test_vpa_has_the_weighted_percentile_up_to_a_bin(protocol: ModuleType, peers: ModuleType) -> None:
    values = np.random.default_rng(4).gamma(2, 3, (1, 900))
    places = np.array([600, 899])
    said = peers.Vpa().forecast(panel(protocol, values), places, (1,))[0, :, 0]
    for row, place in enumerate(places):
        seen = values[0, : place + 1]
        weight = 0.5 ** ((place - np.arange(place + 1)) * STEP / 86400)
        order = np.argsort(seen)
        share = np.cumsum(weight[order]) / weight.sum()
        for q, level in enumerate(protocol.LEVELS):
            exact = seen[order][np.searchsorted(share, level)]
            assert exact <= said[row, q] <= exact * 1.05 + values.max() / 1000
    target = peers.VpaTarget().forecast(panel(protocol, values), places, (1,))[0, :, 0]
    assert np.allclose(target, 1.15 * said[:, 1:2])


def test_autopilots_window_weighs_a_bin_by_its_load(protocol: ModuleType, peers: ModuleType) -> None:
    values = np.tile([1.0, 9.0], 150)[None, :]  # nine tenths of the load is at 9, half of the samples
    said = peers.AutopilotWindow().forecast(panel(protocol, values), np.array([299]), (1,))[0, 0, 0]
    assert said[0] == pytest.approx(5.0, abs=0.05)
    assert said[1:] == pytest.approx([9.0, 9.0], abs=0.1)
    rare = np.ones((1, 300))
    rare[0, ::50] = 9.0  # one in fifty samples, one in seven of the load
    assert peers.AutopilotWindow().forecast(panel(protocol, rare), np.array([299]), (1,))[0, 0, 0, 1] == pytest.approx(9.0, abs=0.1)
    assert peers.Vpa().forecast(panel(protocol, rare), np.array([299]), (1,))[0, 0, 0, 1] == pytest.approx(1.0, abs=0.1)


def test_autopilots_limit_keeps_the_highest_of_the_last_hour_and_a_margin(protocol: ModuleType, peers: ModuleType) -> None:
    values = np.concatenate([np.full(400, 1.0), np.full(200, 5.0), np.full(200, 1.0)])[None, :]
    one = panel(protocol, values)
    places = np.arange(390, 800)
    upper = peers.AutopilotWindow().forecast(one, places, (1,))[0, :, 0, -1]
    limit = peers.AutopilotLimit().forecast(one, places, (1,))[0, :, 0, -1]
    for i in range(12, len(places)):
        assert limit[i] == pytest.approx(1.15 * upper[i - 11 : i + 1].max())


def test_autopilots_models_find_the_quantile_of_noise_and_follow_a_new_level(protocol: ModuleType, peers: ModuleType) -> None:
    rng = np.random.default_rng(6)
    values = np.concatenate([rng.uniform(10, 20, 1200), rng.uniform(22, 24, 100)])[None, :]
    said = peers.AutopilotModels().forecast(panel(protocol, values), np.array([1150, 1299]), (1,))[0, :, 0]
    assert said[0] == pytest.approx([15.0, 19.0, 19.5], abs=1.0)
    assert said[1] == pytest.approx([23.0, 23.8, 23.9], abs=0.6)


def test_places_far_apart_are_looked_at_on_their_own(peers: ModuleType) -> None:
    values = np.arange(20_000.0)[None, :]
    places = np.array([100, 600, 9_000, 19_000, 19_400])
    parts = list(peers.stretches(values, places, 1000))
    assert [part[:, inside].ravel().tolist() for _, part, inside in parts] == [[100, 600], [9000], [19_000, 19_400]]
    assert [part.shape[1] for _, part, _ in parts] == [601, 1001, 1401]
    assert np.array_equal(np.concatenate([places[which] for which, _, _ in parts]), places)


def test_crane_repeats_a_period_with_a_margin_and_only_where_there_is_one(protocol: ModuleType, peers: ModuleType) -> None:
    rng = np.random.default_rng(3)
    hours = np.arange(24 * 10)
    wave = 50 + 30 * np.sin(2 * np.pi * hours / 24)
    noise = rng.normal(50, 10, len(hours))
    assert peers.periodic(wave[:144] + rng.normal(0, 1, 144), 24, 3600.0, rng)
    assert not peers.periodic(noise[:144], 24, 3600.0, rng)
    one = panel(protocol, [wave, noise], step=3600.0)
    places = protocol.origins(one)
    said = peers.Crane().forecast(one, places, protocol.HORIZONS)
    came = wave[places[:, None] + np.array(protocol.HORIZONS)]
    assert said[0, :, :, 0] == pytest.approx(came * 1.01, rel=1e-6)
    assert np.array_equal(said[1], peers.Vpa().forecast(one, places, protocol.HORIZONS)[1])


def test_boosting_learns_what_repeats(protocol: ModuleType, peers: ModuleType) -> None:
    sets = [*series(protocol, waves(3, 600)), *series(protocol, waves(3, 600, seed=5), "smd_machines", "load")]
    anchor = protocol.losses(sets, peers.forecasts(peers.LastValue(), sets))
    for others in (False, True):
        found = protocol.losses(sets, peers.forecasts(peers.fit_boosting(others, sets), sets))
        assert protocol.relative(found, anchor) < 0.3, others
        assert 0.75 < found.coverage()[1] < 0.97


def test_what_is_fitted_on_the_other_sets_never_saw_the_set_itself(protocol: ModuleType, peers: ModuleType) -> None:
    own, other = series(protocol, waves(2, 400)), series(protocol, waves(2, 400, seed=5), "smd_machines", "load")
    changed = [replace(one, values=one.values[::-1] ** 2 + 1) for one in own]
    for others in (True, False):
        first = peers.forecasts(peers.fit_boosting(others, [*own, *other]), own)
        second = peers.forecasts(peers.fit_boosting(others, [*changed, *other]), own)
        assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True)) == others


def test_boosting_learns_of_the_history_only(protocol: ModuleType, peers: ModuleType) -> None:
    sets = [*series(protocol, waves(2, 400)), *series(protocol, waves(2, 400, seed=5), "smd_machines", "load")]
    changed = [replace(one, values=np.where(np.arange(400) < one.history, one.values, 777.0)) for one in sets]
    first = peers.forecasts(peers.fit_boosting(False, sets), sets)
    second = peers.forecasts(peers.fit_boosting(False, changed), sets)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_table_has_every_peer_and_the_file_what_it_rests_on(
    protocol: ModuleType, peers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seed in (("nezha_pods", 1), ("smd_machines", 2)):
        write_long(tmp_path, name, {f"{i}/cpu": row.tolist() for i, row in enumerate(waves(2, 120, seed=seed))})
    (tmp_path / "arrivals").mkdir()
    for name, seed in (("one", 3), ("two", 4)):
        counts = np.random.default_rng(seed).poisson(5, 200)
        write(tmp_path / "arrivals" / f"{name}.parquet", {"t": np.arange(200) * 60, "count": counts})
    file = tmp_path / "table.json"
    monkeypatch.setattr(sys, "argv", ["peers.py", "--data", str(tmp_path), "--json", str(file)])
    assert peers.main() == 0
    report = json.loads(file.read_text())
    assert list(report) == [*(peer.name for peer in peers.PEERS), "boosting, own set", "boosting, other sets"]
    printed = capsys.readouterr().out
    assert all(name in printed for name in report)
    anchor = report["last value"]
    assert anchor["demand"]["relative_wql"] == anchor["arrivals"]["relative_wql"] == 1.0
    assert set(anchor["demand"]["by_group"]) == {"nezha_pods:cpu", "smd_machines:cpu"}
    assert set(anchor["limits"]) == {"slack", "breaches", "fixed", "fewer"}


def write(path: Path, columns: dict[str, Any]) -> None:
    pq.write_table(pa.table(columns), path)


def write_long(data: Path, name: str, rows: dict[str, list[float]]) -> None:
    """A file as the data has them, its rows shuffled."""
    (data / "forecast").mkdir(exist_ok=True)
    ids = [key for key, values in rows.items() for _ in values]
    at = [600 + 60 * i for values in rows.values() for i in range(len(values))]
    order = np.random.default_rng(1).permutation(len(ids))[::-1]
    table = pa.table(
        {
            "series_id": pa.array(ids).dictionary_encode(),
            "entity": pa.array([key.split("/")[0] for key in ids]).dictionary_encode(),
            "metric": pa.array([key.split("/")[1] for key in ids]).dictionary_encode(),
            "t": pa.array(at, pa.int64()),
            "y": pa.array([value for values in rows.values() for value in values], pa.float32()),
        }
    )
    pq.write_table(table.take(pa.array(order)), data / "forecast" / f"{name}.parquet")
