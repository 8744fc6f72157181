"""A wrong model is given up soon, a good one is not, by chance or by one jump; and it comes back later than it went."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nicety.models.forecast.drift import BACK, COVERAGE_TICKS, LIMIT, DriftWatch, ModelSwitch
from nicety.models.records import HORIZONS, QUANTILES

Floats = NDArray[np.float64]
Generator = np.random.Generator
Model = Callable[[Floats, Floats, Generator], Floats]

LEVELS = np.asarray(QUANTILES)
SERIES = 200
"""Series in the simulations: each is a metric of its own, so a watch of so many is so many watches of one series."""

NOISES: dict[str, Callable[[Generator, tuple[int, int]], Floats]] = {
    "gauss": lambda rng, shape: rng.normal(size=shape),
    "laplace": lambda rng, shape: rng.laplace(size=shape),
    "heavy": lambda rng, shape: rng.standard_t(2, size=shape),
    "lognormal": lambda rng, shape: np.exp(rng.normal(size=shape) * 1.2) - np.exp(0.72),
    "steps": lambda rng, shape: rng.normal(size=shape) * np.where(rng.random(shape) < 0.01, 10, 0.3),
}
"""What a value changes by in a tick: errors far ahead are sums of it, so they overlap, as they do in truth."""

GOOD: dict[str, Model] = {
    "the same": lambda said, _, __: said,
    "a little wider": lambda said, _, __: said * 1.1,
    "blurred": lambda said, _, rng: said + 0.2 * rng.normal(size=(*said.shape[:2], 1)),
    "a tenth better": lambda said, truth, _: said + 0.1 * (truth[:, :, None] - said),
    "better and blurred": lambda said, truth, rng: (
        said + 0.15 * (truth[:, :, None] - said) + 0.2 * rng.normal(size=(*said.shape[:2], 1))
    ),
}
WRONG: dict[str, Model] = {
    "constant": lambda said, _, __: np.full_like(said, 8.0),
    "too low": lambda said, _, __: np.full_like(said, -4.0),
    "ten times": lambda said, _, __: 10 * (said + 1),  # of a series whose level is as large as its errors
    "nan": lambda said, _, __: np.full_like(said, np.nan),
    "infinite": lambda said, _, __: np.full_like(said, np.inf),
}


class Trial:
    """Series with a baseline that knows the quantiles of its errors, and models beside it."""

    def __init__(self, noise: str, ticks: int, seed: int = 1) -> None:
        self.rng = np.random.default_rng(seed)
        value = np.cumsum(NOISES[noise](self.rng, (ticks + max(HORIZONS), SERIES)), axis=0)
        errors = np.stack([value[max(HORIZONS) :] - value[max(HORIZONS) - h : -h] for h in HORIZONS], axis=2)
        spread = np.abs(errors).mean(axis=(0, 1))
        self.errors = errors / spread  # [ticks, SERIES, H] of the last value, in their mean size
        self.baseline = np.quantile(self.errors, LEVELS, axis=(0, 1)).T  # [H, Q]

    def changes(self, model: Model, watch: DriftWatch | None = None, together: bool = False) -> list[tuple[int, ModelSwitch]]:
        """(tick, change) as the model is watched from the first tick on; `together`: all series are of the first metric."""
        watch = watch or DriftWatch([str(series) for series in range(SERIES)])
        metric = np.zeros(SERIES, dtype=np.int64) if together else np.arange(SERIES)
        found = []
        for tick, truth in enumerate(self.errors):
            said = np.broadcast_to(self.baseline, (SERIES, *self.baseline.shape))
            with np.errstate(invalid="ignore"):
                answers = np.sort(model(said, truth, self.rng), axis=2)
                rows = [sums(truth, each) for each in (answers, said)]
            counts = np.full(SERIES, float(len(HORIZONS)))
            found += [(tick + 1, change) for change in watch.step(metric, rows[0][0], rows[1][0], rows[0][1], rows[1][1], counts)]
        return found


def sums(truth: Floats, said: Floats) -> tuple[Floats, Floats]:
    """(pinball loss, values below) of forecasts [n, H, Q], summed over horizons."""
    error = truth[:, :, None] - said
    loss = np.maximum(LEVELS * error, (LEVELS - 1) * error)
    below = np.where(error == 0, LEVELS, error < 0)
    return loss.sum(axis=1), below.sum(axis=1)


def losses(*values: float) -> Floats:
    """[n, Q] that add up to these."""
    return np.repeat(np.array(values)[:, None] / len(QUANTILES), len(QUANTILES), axis=1)


def covered(n: int) -> Floats:
    return np.tile(LEVELS, (n, 1))


def one(watch: DriftWatch, model: float, baseline: float, metric: int = 0) -> tuple[ModelSwitch, ...]:
    """A step of one series with these losses, and right coverage."""
    return watch.step(np.array([metric]), losses(model), losses(baseline), covered(1), covered(1), np.ones(1))


# --- wrong models -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("wrong", WRONG)
def test_a_model_that_is_wrong_on_purpose_is_given_up_within_60_ticks_of_one_series(noise: str, wrong: str) -> None:
    found = Trial(noise, 60).changes(WRONG[wrong])
    assert {change.metric for _, change in found if not change.heard} == {str(series) for series in range(SERIES)}
    assert all(not change.heard for _, change in found)


@pytest.mark.parametrize("wrong", WRONG)
def test_with_many_series_it_takes_a_few_ticks(wrong: str) -> None:
    ((tick, change),) = Trial("laplace", 60).changes(WRONG[wrong], together=True)
    assert tick <= 10
    assert not change.heard


def test_one_that_loses_twice_as_much_is_given_up_within_60_ticks_of_most_single_series() -> None:
    found = Trial("laplace", 60).changes(lambda said, _, __: said * 0.0)
    assert len(found) >= 0.8 * SERIES


def test_one_quantile_counts_at_most_ten_times_what_is_usual() -> None:
    watch, changes = DriftWatch(["cpu"]), list[ModelSwitch]()
    wild = losses(1.0)
    wild[0, -1] = 1e6
    for _ in range(4):
        changes += watch.step(np.array([0]), wild, losses(1.0), covered(1), covered(1), np.ones(1))
    (change,) = changes
    assert f"it lost {10 + 1 - 1 / len(QUANTILES):.2f} times what the baseline did over 4 ticks" in change.reason


@pytest.mark.parametrize(("more", "used"), [(0.03, True), (0.07, False)])
def test_a_quantile_that_is_too_low_is_no_reason_while_it_costs_next_to_nothing(more: float, used: bool) -> None:
    watch = DriftWatch(["cpu"])
    level = QUANTILES.index(0.95)
    dear, low = losses(1.0), covered(1)
    dear[0, level] += more
    low[0, level] = 0.5
    for _ in range(3 * COVERAGE_TICKS):
        watch.step(np.array([0]), dear, losses(1.0), low, covered(1), np.ones(1))
        if not watch.heard[0]:
            break
    assert bool(watch.heard[0]) is used


def test_the_reason_has_the_figures() -> None:
    ((_, change),) = Trial("gauss", 30).changes(WRONG["constant"], together=True)
    assert change.metric == "0"
    before, ratio = change.reason.split("it lost ")
    assert before == "the demand model is no longer used for 0: "
    assert float(ratio.split()[0]) > 3
    assert "times what the baseline did over 5 ticks" in ratio


def test_in_the_reason_no_loss_counts_more_than_ten_usual_ones() -> None:
    watch, many = DriftWatch(["cpu"]), float(len(QUANTILES))
    changes = [change for _ in range(60) for change in one(watch, 1e6, many)]
    assert "it lost 10.00 times what the baseline did" in changes[0].reason


# --- good models --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("good", GOOD)
def test_a_good_model_of_one_series_is_not_given_up_once_in_100_000_ticks(noise: str, good: str) -> None:
    assert Trial(noise, 100_000 // SERIES).changes(GOOD[good]) == []


def test_one_jump_does_not_decide() -> None:
    watch = DriftWatch(["cpu"])
    for _ in range(50):
        assert one(watch, 0.9, 1.0) == ()
    for _ in range(3):
        assert one(watch, 1e9, 1.0) == ()
    for _ in range(50):
        assert one(watch, 0.9, 1.0) == ()


def test_a_jump_that_both_miss_is_no_evidence() -> None:
    watch = DriftWatch(["cpu"])
    for _ in range(50):
        one(watch, 1.0, 1.0)
    for _ in range(3):
        assert one(watch, 103.0, 100.0) == ()


def test_a_series_that_stands_still_does_not_decide() -> None:
    watch = DriftWatch(["cpu"])
    for _ in range(2000):
        assert one(watch, 0.15, 0.001) == ()


def test_a_jump_of_the_baseline_does_not_hide_what_follows() -> None:
    watch = DriftWatch(["cpu"])
    for _ in range(50):
        one(watch, 1.0, 1.0)
    one(watch, 1e6, 1e6)
    assert [tick for tick in range(60) if one(watch, 3.0, 1.0)]


# --- coverage -----------------------------------------------------------------------------------------------------------------


def test_a_quantile_that_is_too_low_at_next_to_no_cost_is_no_reason() -> None:
    watch = DriftWatch(["cpu"])
    for _ in range(5 * COVERAGE_TICKS):
        none = np.zeros((1, len(QUANTILES)))
        assert watch.step(np.zeros(1, dtype=np.int64), losses(1.04), losses(1.0), none, covered(1), np.ones(1)) == ()


def test_a_quantile_that_is_too_low_is_named_though_all_losses_together_are_no_worse() -> None:
    def low(said: Floats, truth: Floats, _: Generator) -> Floats:
        better = said + 0.1 * (truth[:, :, None] - said)
        better[:, :, 1:] = said[:, :, 1:] * 0.45
        return better

    ((tick, change),) = Trial("laplace", 3 * COVERAGE_TICKS).changes(low, together=True)
    assert tick >= COVERAGE_TICKS
    assert not change.heard
    assert "its 95% quantile was above 7" in change.reason
    assert "of the values of the last 120 ticks, the baseline's above 9" in change.reason


def test_a_quantile_that_is_too_high_is_named() -> None:
    def high(said: Floats, truth: Floats, _: Generator) -> Floats:
        better = said + 0.2 * (truth[:, :, None] - said)
        better[:, :, 1:] = said[:, :, 1:] * [1.0, 2.2, 1.5]
        return better

    ((_, change),) = Trial("laplace", 3 * COVERAGE_TICKS).changes(high, together=True)
    assert not change.heard
    assert "its 95% quantile was above 99." in change.reason


def test_coverage_that_is_lost_by_both_is_nobodys_fault() -> None:
    watch = DriftWatch(["cpu"])
    wrong, model = covered(1) - 0.25, losses(1.0)
    model[0] += [-0.2, 0.1, 0.1, 0.0]
    for _ in range(10 * COVERAGE_TICKS):
        assert watch.step(np.zeros(1, dtype=np.int64), model, losses(1.0), wrong, wrong, np.ones(1)) == ()
    assert watch.step(np.zeros(1, dtype=np.int64), model, losses(1.0), wrong, covered(1), np.ones(1)) == ()
    assert [
        1
        for _ in range(COVERAGE_TICKS)
        if watch.step(np.zeros(1, dtype=np.int64), model, losses(1.0), wrong, covered(1), np.ones(1))
    ]


def test_counts_that_no_quantile_can_cover_exactly_are_no_fault_where_the_loss_is_no_worse() -> None:
    watch = DriftWatch(["cpu"])
    for _ in range(10 * COVERAGE_TICKS):
        assert watch.step(np.zeros(1, dtype=np.int64), losses(0.9), losses(1.0), np.ones((1, 4)), covered(1), np.ones(1)) == ()


# --- coming back --------------------------------------------------------------------------------------------------------------


def test_it_comes_back_after_it_was_better_for_longer_than_it_took_to_go() -> None:
    watch = DriftWatch(["cpu", "rss"])
    gone = next(tick for tick in range(1, 100) if one(watch, 2.0, 1.0))
    assert watch.heard.tolist() == [False, True]
    back = 0
    changes: tuple[ModelSwitch, ...] = ()
    while not changes:
        back += 1
        assert back < 1000
        changes = one(watch, 0.8, 1.0)
    assert gone < 30 < back
    assert back > BACK * LIMIT / 0.2
    assert watch.heard.all()
    said = f"the demand model is used for cpu again: it lost 0.80 times what the baseline did over {back} ticks"
    assert changes == (ModelSwitch("cpu", True, said),)


def test_one_that_is_as_good_as_the_baseline_does_not_come_back() -> None:
    watch = DriftWatch(["cpu"])
    while not one(watch, 2.0, 1.0):
        pass
    rng = np.random.default_rng(3)
    for _ in range(20_000):
        assert one(watch, float(rng.exponential()), float(rng.exponential())) == ()


def test_one_that_is_worse_again_begins_anew() -> None:
    watch = DriftWatch(["cpu"])
    while not one(watch, 3.0, 1.0):
        pass
    for _ in range(20):
        for _ in range(50):
            assert one(watch, 0.5, 1.0) == ()
        for _ in range(50):
            assert one(watch, 2.0, 1.0) == ()


def test_with_wrong_coverage_it_does_not_come_back() -> None:
    watch = DriftWatch(["cpu"])
    while not one(watch, 3.0, 1.0):
        pass
    model, baseline = losses(0.5), losses(1.0)
    model[0, QUANTILES.index(0.95)] = 0.4  # that quantile alone loses more
    for _ in range(2000):
        assert watch.step(np.zeros(1, dtype=np.int64), model, baseline, covered(1) - 0.3, covered(1), np.ones(1)) == ()


# --- what is no evidence --------------------------------------------------------------------------------------------------------


def test_a_metric_is_judged_by_its_own_forecasts() -> None:
    watch = DriftWatch(["cpu", "rss", "load"])
    for _ in range(10):
        watch.step(np.array([0, 1]), losses(9.0, 0.9), losses(1.0, 1.0), covered(2), covered(2), np.ones(2))
    assert watch.heard.tolist() == [False, True, True]


def test_nothing_that_came_true_changes_nothing() -> None:
    watch = DriftWatch(["cpu", "rss"])
    none = np.zeros((0, 4))
    for _ in range(500):
        one(watch, 1.05, 1.0)
        before = state(watch)
        assert watch.step(np.zeros(0, dtype=np.int64), none, none, none, none, np.zeros(0)) == ()
        unknown = losses(np.nan, 1.0)
        both = np.zeros(2, dtype=np.int64)
        assert watch.step(both, losses(9.0, 9.0), unknown, covered(2), covered(2), np.array([1.0, 0.0])) == ()
        assert state(watch) == before


def test_the_largest_numbers_are_only_the_worst() -> None:
    watch = DriftWatch(["cpu"])
    for model, baseline in ((1e308, 1e308), (np.inf, 1.0), (1e308, 0.0), (0.0, 1e308), (np.nan, 0.0)) * 20:
        one(watch, model, baseline)
    figures = state(watch)
    assert all(np.isfinite(figures[name]).all() for name in figures)


def test_the_same_steps_give_the_same_answers_and_keep_the_same_space() -> None:
    trial = Trial("heavy", 300)
    watches = [DriftWatch([str(series) for series in range(SERIES)]) for _ in range(2)]
    sizes = {name: np.shape(figures) for name, figures in state(watches[0]).items()}
    found = []
    for watch in watches:
        trial.rng = np.random.default_rng(5)
        found.append(trial.changes(lambda said, _, rng: said + rng.normal(size=(*said.shape[:2], 1)), watch))
    assert found[0] == found[1] != []
    assert state(watches[0]) == state(watches[1])
    assert {name: np.shape(figures) for name, figures in state(watches[0]).items()} == sizes


def state(watch: DriftWatch) -> dict[str, Any]:
    """All that a watch knows."""
    return {name: value.tolist() for name, value in vars(watch).items() if isinstance(value, np.ndarray)}


def test_coming_back_needs_more_evidence_than_going() -> None:
    assert BACK > 2
