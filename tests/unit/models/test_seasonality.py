"""What a series does again and again: found, trusted while it is right, and given up when something else comes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nicety.models.forecast.seasonality import AHEAD, BLOCK, HOLE, LARGEST, MEMORY, Ahead, Seasonality

Shape = Callable[[int], float]


def spikes(period: int, wide: int, high: float = 20.0, low: float = 3.0) -> Shape:
    """`high` in the first `wide` ticks of each `period`, else `low`."""
    return lambda tick: high if tick % period < wide else low


def noisy(shape: Shape, seed: int, service: float = 0.4) -> Shape:
    """What a pool with that offered load sees in a second: the variance is load x service time x 2."""
    chance = np.random.default_rng(seed)
    return lambda tick: max(0.0, float(chance.normal(shape(tick), math.sqrt(shape(tick) * service))))


def run(shape: Shape, first: int, last: int, seasonality: Seasonality | None = None) -> Seasonality:
    """Ticks `first` to `last`, both included."""
    seasonality = seasonality or Seasonality()
    for tick in range(first, last + 1):
        seasonality.step(tick, shape(tick))
    return seasonality


def known(seasonality: Seasonality, ticks: int = 10) -> Ahead:
    ahead = seasonality.ahead(ticks)
    assert ahead is not None
    return ahead


def trusted(seasonality: Seasonality) -> bool:
    ahead = seasonality.ahead(10)
    return ahead is not None and ahead.trusted


@pytest.mark.parametrize(("period", "wide"), [(180, 60), (300, 30), (300, 150), (600, 40)])
@pytest.mark.parametrize("seed", [1, 2])
def test_what_people_write_into_crontabs_is_foreseen_the_third_time(period: int, wide: int, seed: int) -> None:
    begin = period // 3  # of the series, in the period
    shape = noisy(spikes(period, wide), seed)
    seasonality = run(shape, begin, 3 * period - 20)
    calm = known(seasonality, 8)
    assert (calm.period, calm.seen, calm.trusted) == (period, 2, True)
    assert calm.high < 6
    spike = known(seasonality, 30)
    assert 16 < spike.median < 24
    assert 16 < spike.high < 27


def test_what_comes_each_hour_is_foreseen_after_two_hours() -> None:
    seasonality = run(noisy(spikes(3600, 60), 1), 1000, 3 * 3600 - 20)
    assert (known(seasonality).period, known(seasonality).trusted) == (3600, True)
    assert 16 < known(seasonality, 30).median < 24
    assert known(seasonality, 10).median < 5


def test_a_crontab_period_is_trusted_soon_after_the_second_spike_and_one_spike_is_none() -> None:
    shape = noisy(spikes(600, 60), 1)
    seasonality = run(shape, 500, 1200)
    assert not trusted(seasonality)
    run(shape, 1201, 1360, seasonality)
    assert trusted(seasonality)
    assert known(seasonality).period == 600
    for begin in range(0, 600, 40):
        once = Seasonality()
        for tick in range(1200):
            once.step(tick, shape(600 + tick - begin) if begin <= tick < begin + 60 else shape(300))
            assert not trusted(once)


@pytest.mark.parametrize("late", [(0,) * 7, (0, 4, 1, 4, 0, 3, 1)])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_rise_is_predicted_for_when_it_came_and_not_earlier_because_of_noise(late: tuple[int, ...], seed: int) -> None:
    seasonality = run(noisy(lambda tick: 20.0 if 0 <= tick % 300 - late[tick // 300] < 40 else 3.0, seed), 100, 1790)
    assert trusted(seasonality)
    assert (
        11 <= next(ticks for ticks in range(30) if known(seasonality, ticks).median > 12) <= 12
    )  # due in ten, averaged over three


def test_a_period_that_nobody_would_write_must_be_confirmed_once_more() -> None:
    shape = noisy(spikes(217, 40), 3)
    seasonality = run(shape, 0, round(2.6 * 217))
    assert not trusted(seasonality)
    run(shape, round(2.6 * 217) + 1, 4 * 217, seasonality)
    assert trusted(seasonality)
    assert known(seasonality).period == pytest.approx(217, abs=1)


def test_a_fall_is_foreseen_as_well_as_a_rise() -> None:
    seasonality = run(noisy(spikes(300, 120), 1), 100, 1300)
    assert known(seasonality, 5).median > 15  # 20 ticks before the fall
    fallen = run(noisy(spikes(300, 120), 2), 1301, 1328, seasonality)
    assert trusted(fallen)
    assert known(fallen, 60).median < 5
    assert known(fallen, 60).now < 6


@pytest.mark.parametrize("change", ["nothing comes", "it comes at another time", "it is much higher"])
def test_it_is_given_up_within_ticks_when_something_else_comes(change: str) -> None:
    seasonality = run(noisy(spikes(300, 40), 1), 100, 1499)
    assert trusted(seasonality)
    others: dict[str, Shape] = {
        "nothing comes": lambda _: 3.0,
        "it comes at another time": lambda tick: 20.0 if tick >= 1400 else 3.0,
        "it is much higher": lambda tick: 80.0 if tick >= 1500 else 3.0,
    }
    begin = 1400 if change == "it comes at another time" else 1500
    seasonality = run(noisy(spikes(300, 40), 1), 100, begin - 1)
    shape = noisy(others[change], 2)
    lost = next(tick for tick in range(begin, begin + 300) if not trusted(run(shape, tick, tick, seasonality)))
    assert lost - begin <= 12
    for tick in range(lost + 1, lost + 200):
        assert not trusted(run(shape, tick, tick, seasonality))


def test_it_is_trusted_again_after_a_period_without_surprise() -> None:
    seasonality = run(noisy(spikes(300, 40), 1), 100, 1399)
    surprise = noisy(lambda tick: 25.0 if tick < 1420 else 3.0, 2)
    run(surprise, 1400, 1439, seasonality)
    assert not trusted(seasonality)
    after = run(noisy(spikes(300, 40), 3), 1440, 2160, seasonality)
    assert trusted(after)


def test_jitter_of_a_few_ticks_is_allowed_for() -> None:
    chance = np.random.default_rng(5)
    late = chance.integers(0, 6, 30)
    shape = noisy(lambda tick: 20.0 if 0 <= tick % 300 - int(late[tick // 300]) < 40 else 3.0, 1)
    seasonality = run(shape, 100, 1784)
    assert trusted(seasonality)
    assert known(seasonality, 20).median > 15


def test_a_slow_wave_needs_no_predicting() -> None:
    seasonality = run(noisy(lambda tick: 9.5 - 6.5 * math.cos(2 * math.pi * tick / 1200), 1), 0, 6000)
    assert not trusted(seasonality)


def test_what_was_known_well_counts_before_what_was_a_backlog() -> None:
    """At its first two comings the pool was too small: work piled up. The third was served, and shows how much it really was."""
    seasonality = Seasonality()

    def feed(first: int, last: int) -> None:
        for tick in range(first, last + 1):
            spike = tick % 300 < 40
            small = spike and tick < 700
            seasonality.step(tick, 60.0 if small else 15.0 if spike else 3.0, 5.0 if small else None)

    feed(60, 899)
    assert trusted(seasonality)
    assert known(seasonality, 30).median > 12
    feed(900, 1190)
    assert trusted(seasonality)
    assert 12 < known(seasonality, 30).median < 18
    assert known(seasonality, 30).high < 18


@pytest.mark.parametrize("load", [0.5, 3.0, 30.0])
def test_no_rhythm_is_trusted_in_noise(load: float) -> None:
    seasonality, shape = Seasonality(), noisy(lambda _: load, 7)
    for tick in range(6000):
        seasonality.step(tick, shape(tick))
        assert not trusted(seasonality)


def test_spikes_at_random_are_trusted_for_a_small_part_of_the_time() -> None:
    chance = np.random.default_rng(3)
    begins = set(np.cumsum(chance.exponential(300, 60) + 30).astype(int).tolist())
    level = [20.0 if begins & set(range(tick - 29, tick + 1)) else 3.0 for tick in range(15000)]
    shape, seasonality = noisy(lambda tick: level[tick], 4), Seasonality()
    count = sum(trusted(run(shape, tick, tick, seasonality)) for tick in range(15000))
    assert count < 0.12 * 15000  # 1,340 here; two gaps of about the same length are all that it takes


def test_holes_are_bridged_and_long_ones_forget() -> None:
    shape = noisy(spikes(300, 40), 1)
    seasonality = run(shape, 100, 1300)
    bridged = run(shape, 1300 + 20, 1340, seasonality)
    assert trusted(bridged)
    assert bridged.ahead(5) is not None
    run(shape, 1341 + HOLE, 1342 + HOLE, seasonality)
    assert seasonality.ahead(5) is None


def test_a_tick_that_comes_twice_counts_once() -> None:
    once, twice = Seasonality(), Seasonality()
    shape = noisy(spikes(300, 40), 1)
    for tick in range(100, 1300):
        value = shape(tick)
        once.step(tick, value)
        twice.step(tick, value)
        twice.step(tick, 1e6)
        twice.step(tick - 50, 1e6)
    assert once.ahead(30) == twice.ahead(30) is not None


def test_other_intervals_than_a_second_have_their_own_calendar() -> None:
    seasonality = Seasonality(interval=2.0)
    shape = noisy(spikes(150, 20), 1)  # five minutes
    for tick in range(50, 430):
        seasonality.step(tick, shape(tick))
    assert (known(seasonality).period, known(seasonality).trusted) == (150, True)


@pytest.mark.parametrize("minutes", [1, 2, 3, 4, 5, 10, 15, 20, 30, 60, 90])
def test_a_period_that_people_write_is_taken_to_be_exactly_that(minutes: int) -> None:
    seasonality = Seasonality(interval=minutes * 60 / 150)
    run(spikes(150, 20), 50, 430, seasonality)
    ahead = known(seasonality)
    assert (ahead.period, ahead.right, ahead.trusted) == (150, 1.0, True)


def test_any_other_period_is_found_to_half_a_tick_from_three_spikes() -> None:
    """They come 151 and 150 ticks apart. The first one is too small for a search to succeed before the third."""
    heights = {301: 3.4, 452: 20.0, 602: 20.0}
    seasonality = Seasonality()
    for tick in range(200, 650):
        seasonality.step(tick, next((high for start, high in heights.items() if start <= tick < start + 20), 3.0))
    assert known(seasonality).period == 150.5


def test_answers_know_of_all_but_the_last_sixty_four_ticks() -> None:
    """From the tick on at which the period is found, all is a third more. Answers for many ticks are made together."""
    seasonality, tick = Seasonality(), 0
    while seasonality.ahead(AHEAD) is None:
        tick += 1
        seasonality.step(tick, spikes(50, 10)(tick))
    highest = []
    for later in range(tick + 1, tick + 65):
        seasonality.step(later, 1.3 * spikes(50, 10)(later))
        highest.append(known(seasonality, AHEAD).high)
    assert highest[:-1] == [pytest.approx(20.0)] * 63
    assert highest[-1] > 30.0


def test_it_costs_less_than_a_twentieth_of_a_millisecond_a_tick() -> None:
    """Twenty series in a millisecond, on a quiet machine; here four times that, for machines that are not."""
    seasonalities = [Seasonality(stagger=number) for number in range(4)]
    shapes = [noisy(lambda _: 3.0, 1), noisy(spikes(300, 30), 2), noisy(spikes(3600, 60), 3), noisy(spikes(100, 20), 4)]
    values = [[shape(tick) for tick in range(8000)] for shape in shapes]
    began = time.process_time()
    for tick in range(8000):
        for seasonality, own in zip(seasonalities, values, strict=True):
            seasonality.step(tick, own[tick])
            seasonality.ahead(6)
    assert (time.process_time() - began) / (4 * 8000) < 4 * 50e-6


def test_no_rounding_puts_an_answer_above_the_largest_value() -> None:
    seasonality = Seasonality()
    highest = []
    for tick in range(600):
        seasonality.step(tick, 0.0 if tick % 50 < 5 else 1e300)
        highest += [ahead.high for ticks in (37, 38, 43) if (ahead := seasonality.ahead(ticks)) is not None]
    assert max(highest) == LARGEST


WILD = st.one_of(st.none(), st.floats(0, 50), st.sampled_from([math.nan, math.inf, -math.inf, 1e300, -1.0, 0.0]))


@settings(max_examples=40, deadline=None)
@given(st.lists(WILD, min_size=20, max_size=60), st.lists(WILD, min_size=1, max_size=30), st.integers(0, 400), st.integers(-5, 500))
def test_answers_are_finite_never_negative_and_rest_on_what_was_seen(
    pattern: list[float | None], strange: list[float | None], begin: int, ticks: int
) -> None:
    """Whatever repeats, and whatever comes instead."""
    again, other = Seasonality(), Seasonality()
    for tick in range(begin + 500):
        values = strange if begin <= tick < begin + len(strange) else pattern
        value, least = values[tick % len(values)], values[(tick + 1) % len(values)]
        again.step(tick, value, least)
        other.step(tick, value, least)
        ahead = again.ahead(ticks)
        assert ahead == other.ahead(ticks)
        if ahead is not None:
            for answer in (ahead.now, ahead.median, ahead.high, ahead.most):
                assert 0 <= answer <= LARGEST
            assert ahead.right <= 1
            assert ahead.seen >= 0
            assert 19 <= ahead.period <= MEMORY  # SHORTEST, and a tick less where several periods say so


def test_memory_is_bounded() -> None:
    seasonality, shape = Seasonality(), noisy(spikes(300, 30), 1)
    run(shape, 0, 100, seasonality)
    size = seasonality.nbytes
    run(shape, 101, 3 * MEMORY, seasonality)
    assert seasonality.nbytes == size < 300_000
    assert trusted(seasonality)
    assert known(seasonality, AHEAD * 2) == known(seasonality, AHEAD)


@pytest.mark.parametrize("seconds", [60, 120, 180, 240, 300, 600, 900, 1200, 1800, 3600, 5400])
def test_each_period_of_crontabs_is_found_exactly(seconds: int) -> None:
    seasonality = run(spikes(150, 20), 50, 430, Seasonality(interval=seconds / 150))
    assert (known(seasonality).period, known(seasonality).trusted) == (150, True)


def test_what_repeats_without_a_difference_is_predicted_without_an_error() -> None:
    assert known(run(spikes(150, 20), 50, 430)).right == 1.0


@pytest.mark.parametrize(("share", "ticks"), [(0.4, 0), (0.6, 5)])
def test_a_value_is_at_another_time_when_it_is_off_by_more_than_half_of_the_swing(share: float, ticks: int) -> None:
    period = np.where(np.arange(80) < 20, 2.0, 1.0).astype(np.float32)
    newest = period.copy()
    newest[40:45] += share
    levels = np.tile(np.concatenate([period, newest]), (2, 1))
    assert Seasonality._skill(levels, 80, 0, 80)[1] == ticks


def test_answers_are_computed_anew_after_each_block() -> None:
    shape, seasonality = spikes(150, 20), run(spikes(150, 20), 50, 430)
    begun = []
    for tick in range(431, 431 + 3 * BLOCK):
        run(shape, tick, tick, seasonality)
        assert seasonality._block is not None
        begun.append(tick - seasonality._block.at)
    assert max(begun) == BLOCK - 1


def test_a_period_between_two_ticks_is_found_from_what_is_alike_two_periods_apart() -> None:
    alike = np.zeros(250)
    alike[110], alike[221] = 0.9, 0.9
    assert Seasonality()._refined(110, alike) == 110.5
