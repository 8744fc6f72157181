"""What alarms are worth against the truth of a campaign, and the peers of it: benchmarks/anomaly/truth.py, peers.py."""

from __future__ import annotations

import importlib
import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from nicety.models.identity import ProcId
from nicety.models.records import Anomaly, Score

SECOND = 1_000_000_000
VICTIM, SIBLING, MASTER, HOG, ZOMBIE = (11, 1), (12, 2), (10, 0), (99, 9), (55, 5)


@pytest.fixture(scope="module")
def truth() -> ModuleType:
    return importlib.import_module("benchmarks.anomaly.truth")


@pytest.fixture(scope="module")
def peers() -> ModuleType:
    return importlib.import_module("benchmarks.anomaly.peers")


def fault(truth: ModuleType, kind: str = "spin", onset: float = 100, end: float = 170, **more: Any) -> Any:
    settings: dict[str, Any] = {"id": 1, "variant": "", "strength": 1.0, "pool": "a", "workers": [VICTIM], "master": MASTER}
    return truth.Fault(kind=kind, onset=round(onset * SECOND), end=round(end * SECOND), **(settings | more))


def alarm(truth: ModuleType, at: float, worker: tuple[int, int] = VICTIM, kind: str = "spin", pool: str = "a", **more: Any) -> Any:
    return truth.Alarm(round(at * SECOND), pool, worker, kind, **more)


def test_the_first_alarm_of_the_faulty_worker_counts_and_its_kind_is_compared(truth: ModuleType) -> None:
    result = truth.judge([fault(truth)], [alarm(truth, 130), alarm(truth, 120, kind="stuck")])
    (hit,) = result.hits
    assert (hit.seconds, hit.in_time, hit.named, hit.corrected) == (20.0, True, False, True)
    assert result.false == result.siblings == result.after == []
    assert result.recall(["spin"]) == 1.0
    assert result.named(["spin"]) == 0.0
    assert result.named(["spin"], corrected=True) == 1.0
    assert math.isnan(result.recall(["stuck"]))


def test_an_alarm_before_the_fault_is_false_and_does_not_find_it(truth: ModuleType) -> None:
    result = truth.judge([fault(truth)], [alarm(truth, 99)])
    assert [a.at for a in result.false] == [99 * SECOND]
    assert result.hits[0].first is None
    assert result.recall(["spin"]) == 0.0


def test_after_a_minute_a_fault_is_found_too_late(truth: ModuleType) -> None:
    (hit,) = truth.judge([fault(truth)], [alarm(truth, 161)]).hits
    assert hit.first is not None
    assert not hit.in_time


@pytest.mark.parametrize(("at", "in_time"), [(299, True), (301, False)])
def test_a_leak_has_to_be_found_before_half_of_its_headroom_is_gone(truth: ModuleType, at: float, in_time: bool) -> None:
    leak = fault(truth, "leak", end=320, half=300 * SECOND, headroom=100.0)
    assert truth.judge([leak], [alarm(truth, at, kind="leak")]).hits[0].in_time is in_time


@pytest.mark.parametrize(("hole", "judged"), [((90, 99), 1), ((145, 165), 0), ((150, 155), 1), ((165, 300), 1)])
def test_a_fault_in_a_hole_of_the_recording_is_neither_found_nor_missed(
    truth: ModuleType, hole: tuple[int, int], judged: int
) -> None:
    found = truth.judge([fault(truth)], [], [(hole[0] * SECOND, hole[1] * SECOND)])
    assert len(found.hits) == judged


def test_alarms_of_siblings_and_those_after_a_fault_are_told_apart_from_false_ones(truth: ModuleType) -> None:
    alarms = [
        alarm(truth, 120, SIBLING),
        alarm(truth, 190),
        alarm(truth, 191, SIBLING),
        alarm(truth, 232),
        alarm(truth, 120, pool="b"),
    ]
    result = truth.judge([fault(truth)], alarms)
    assert [a.worker for a in result.siblings] == [SIBLING]
    assert [a.at for a in result.after] == [190 * SECOND, 191 * SECOND]
    assert [(a.pool, a.at) for a in result.false] == [("b", 120 * SECOND), ("a", 232 * SECOND)]


def test_other_words_on_a_reported_incident_are_no_new_alarm(truth: ModuleType) -> None:
    again = alarm(truth, 130, kind="spin", again=True)
    result = truth.judge([fault(truth)], [alarm(truth, 120, kind="outlier"), again, alarm(truth, 400, pool="b", again=True)])
    assert result.hits[0].corrected
    assert not result.hits[0].named
    assert result.false == []


def test_the_supervisor_may_be_blamed_for_a_crash_loop_but_not_for_a_spin(truth: ModuleType) -> None:
    crashes = truth.judge([fault(truth, "crash-loop")], [alarm(truth, 120, MASTER, "crash-loop")])
    assert crashes.hits[0].named
    spins = truth.judge([fault(truth)], [alarm(truth, 120, MASTER)])
    assert spins.hits[0].first is None
    assert len(spins.siblings) == 1


def test_who_was_told_of_a_crash_loop_is_not_told_again_until_it_is_over(truth: ModuleType) -> None:
    first, second = fault(truth, "crash-loop"), fault(truth, "crash-loop", onset=220, end=290, id=2)
    told = alarm(truth, 120, MASTER, "crash-loop")
    assert [hit.fault.id for hit in truth.judge([first, second], [told]).hits] == [1]
    over = alarm(truth, 210, MASTER, "crash-loop", over=True)
    result = truth.judge([first, second], [told, over])
    assert [hit.in_time for hit in result.hits] == [True, False]
    assert result.after == result.false == []


def test_a_zombie_itself_may_be_named(truth: ModuleType) -> None:
    assert truth.judge([fault(truth, "zombie", others=[ZOMBIE])], [alarm(truth, 120, ZOMBIE, "zombie")]).hits[0].named


def test_an_antagonist_is_named_by_its_pid_or_its_program(truth: ModuleType) -> None:
    starved = fault(truth, "starved", antagonists=[HOG])

    def named(text: str) -> bool:
        return bool(truth.judge([starved], [alarm(truth, 120, kind="starved", text=text)]).hits[0].antagonist)

    assert named("starved by pid 99 on CPU 1")
    assert named("starved by python campaign_hog.py, 0.98 cores")
    assert not named("starved by pid 199, 0.99 cores")


def test_who_is_called_starved_elsewhere_while_an_antagonist_runs_may_be_a_victim_too(truth: ModuleType) -> None:
    starved = fault(truth, "starved", antagonists=[HOG])
    others = [
        alarm(truth, 120, SIBLING, "starved", "b"),
        alarm(truth, 120, SIBLING, "spin", "b"),
        alarm(truth, 300, SIBLING, "starved", "b"),
    ]
    result = truth.judge([starved], others)
    assert [a.at for a in result.victims] == [120 * SECOND]
    assert [(a.kind, a.at) for a in result.false] == [("spin", 120 * SECOND), ("starved", 300 * SECOND)]


def test_healthy_time_leaves_out_faults_and_a_minute_after_each(truth: ModuleType) -> None:
    faults = [fault(truth, onset=1000, end=1600), fault(truth, onset=1500, end=1530), fault(truth, onset=9000, end=9990)]
    good = truth.healthy({"a": 4, "b": 2}, faults, 0, 10_000 * SECOND)
    assert good.pool_hours == pytest.approx((10_000 - 660 - 1000 + 10_000) / 3600)
    assert good.worker_hours == pytest.approx((4 * (10_000 - 660 - 1000) + 2 * 10_000) / 3600)
    assert truth.healthy({"a": 4}, faults, 0, 10_000 * SECOND, [(2000 * SECOND, 2360 * SECOND)]).pool_hours == pytest.approx(
        (10_000 - 660 - 1000 - 360) / 3600
    )
    assert good.expected(24.0) == pytest.approx(good.worker_hours / 100)
    assert good.per_day_per_100(good.expected(7.0)) == pytest.approx(7.0)


def test_two_recordings_count_together(truth: ModuleType) -> None:
    """Faults of both have the same number, and are two."""
    first = truth.judge([fault(truth)], [alarm(truth, 120), alarm(truth, 99, SIBLING)])
    second = truth.judge([fault(truth)], [alarm(truth, 110, SIBLING)])
    both = truth.together([first, second])
    assert both.recall(["spin"]) == 0.5
    assert [each.worker for each in (*both.false, *both.siblings)] == [SIBLING, SIBLING]
    assert len(first.hits) == 1
    watched = truth.Healthy(1.0, 4.0) + truth.Healthy(2.0, 20.0)
    assert (watched.pool_hours, watched.worker_hours, watched.expected(100.0)) == (3.0, 24.0, 1.0)


def test_poisson_intervals_are_those_of_the_chi_square_distribution(truth: ModuleType) -> None:
    from scipy.stats import chi2

    for count in (0, 1, 3, 30):
        low, high = truth.poisson_interval(count)
        assert low == pytest.approx(chi2.ppf(0.025, 2 * count) / 2 if count else 0.0, rel=1e-6)
        assert high == pytest.approx(chi2.ppf(0.975, 2 * count + 2) / 2, rel=1e-6)


# --- peers --------------------------------------------------------------------------------------------------------------------

HEALTHY, TICKS = 300, 480


def lives(peers: ModuleType, break_it: dict[str, Any]) -> list[Any]:
    """Three workers of a pool; the first one's figures go wrong in the last two minutes."""
    rng = np.random.default_rng(1)
    found = []
    for number in range(3):
        figures = np.abs(
            rng.normal((0.05, 0.01, 20e6, 50, 4000, 10, 3), (0.01, 0.005, 1e5, 5, 500, 1, 0.01), (TICKS, len(peers.FIGURES)))
        )
        if number == 0:
            for name, values in break_it.items():
                figures[360:, peers.FIGURES.index(name)] = values
        found.append(peers.Life((number, 1), "a", np.arange(TICKS) * SECOND, figures))
    return found


@pytest.mark.parametrize("name", ["monit", "IsolationForest", "ECOD", "Netdata"])
def test_peers_find_what_is_blatant_and_only_there(peers: ModuleType, name: str) -> None:
    broken = {"cpu": 1.0, "rss": 20e6 + 4e6 * np.arange(120), "timeslices": 2000.0, "chars": np.arange(120) ** 3.0}
    alarms = peers.PEERS[name](lives(peers, broken), HEALTHY * SECOND)
    found = [alarm.at // SECOND for alarm in alarms if alarm.worker == (0, 1)]
    assert found
    assert 360 <= found[0] <= 420
    assert not [alarm for alarm in alarms if alarm.worker != (0, 1) and alarm.at <= HEALTHY * SECOND]


def test_monit_asks_for_five_cycles_and_names_the_limit(peers: ModuleType) -> None:
    alarms = peers.monit(lives(peers, {"fds": 40.0}), HEALTHY * SECOND)
    assert [(alarm.kind, alarm.worker) for alarm in alarms] == [("fd-leak", (0, 1))]
    assert 360 + 20 <= alarms[0].at // SECOND <= 360 + 30


def test_features_see_no_future(peers: ModuleType) -> None:
    (life, *_) = lives(peers, {"cpu": 1.0})
    cut = peers.Life(life.worker, life.pool, life.at[:370], life.figures[:370])
    np.testing.assert_allclose(peers.features(cut), peers.features(life)[:370])


def test_stepping_up_allows_each_rejection_one_more() -> None:
    replay = importlib.import_module("benchmarks.anomaly.replay")
    said = [Score(ProcId(pid, 1), "a", Anomaly.LEAK, 1.0, p, (), "test") for pid, p in ((1, 0.5), (2, 9e-7), (3, 1e-8), (4, 2e-6))]
    assert [score.id.pid for score in replay.step_up(said, 5e-7)] == [2]
    assert replay.step_up(said[:2], 5e-7) == []


def test_every_kind_of_pool_has_slow_workers_that_matter_or_light_ones() -> None:
    faults, pools = importlib.import_module("benchmarks.anomaly.faults"), importlib.import_module("benchmarks.anomaly.pools")
    ways = {name: faults.slow_variants(character, light=False) for name, character in pools.CHARACTERS.items()}
    assert ways["compute"] == ["cpu"]
    assert ways["web"] == ["backend"]
    assert ways["threads"] == []  # whether it is busy is not told, and it hardly computes
    for name, character in pools.CHARACTERS.items():
        assert faults.slow_variants(character, light=True) == ([] if ways[name] else ["light"])
