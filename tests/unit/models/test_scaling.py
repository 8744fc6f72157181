"""Scaling curves: found where a pool shows one, and never where it only waits, is noisy, or was seen at too few sizes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nicety.models.scaling import BETTER, COMPUTES, ENOUGH, FITS, FORGET, KEPT, PAIRS, WORTH, Curve, Scaling

Law = Callable[[float], float]


def usl(single: float, contention: float, coherency: float) -> Law:
    return lambda n: single * n / (1 + contention * (n - 1) + coherency * n * (n - 1))


def grown(
    law: Law, sizes: list[int], noise: float = 0.0, seed: int = 1, times: int = 30, scaling: Scaling | None = None
) -> Scaling:
    """A pool that has each of these sizes for half a minute, all at work but for a little."""
    chance = np.random.default_rng(seed)
    scaling = scaling or Scaling()
    for size in sizes:
        for _ in range(times):
            busy = size * float(chance.uniform(0.95, 1.0))
            scaling.step(busy, law(busy) * float(np.exp(noise * chance.normal())))
    return scaling


def known(scaling: Scaling) -> Curve:
    curve = scaling.curve()
    assert curve is not None
    return curve


UP = [1, 2, 3, 4, 6, 8, 12, 16]


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize(("contention", "coherency"), [(0.3, 0.0), (0.05, 0.01), (0.0, 0.02), (0.9, 0.0)])
def test_a_pool_that_scales_badly_is_known_after_it_was_seen_at_its_sizes(
    contention: float, coherency: float, noise: float
) -> None:
    law = usl(1.0, contention, coherency)
    curve = known(grown(law, UP, noise))
    true = next(n for n in range(1, 99) if law(n + 1) - law(n) < WORTH)
    assert curve.certain
    assert curve.worth is not None
    assert abs(curve.worth - true) <= (0 if not noise else 1 + 0.25 * true)
    assert curve.single == pytest.approx(1.0, rel=0.15)
    for n in UP:
        assert curve.done(n) == pytest.approx(law(n), rel=0.02 + 2 * noise)


def test_a_quota_of_two_cpus_is_found_though_no_law_has_such_a_bend() -> None:
    curve = known(grown(lambda n: min(n, 2.0), UP, 0.05))
    assert curve.certain
    assert curve.worth is not None
    assert 3 <= curve.worth <= 7


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("single", [1.0, 0.6, 3.0])
def test_a_pool_that_scales_has_no_limit(single: float, noise: float) -> None:
    for seed in range(10):
        curve = known(grown(usl(single, 0.0, 0.0), UP, noise, seed))
        assert curve.worth is None
        assert not curve.certain
        assert curve.contention < 0.3


@pytest.mark.parametrize(("high", "compared"), [(5, False), (4, True), (6, True)])
def test_times_are_compared_that_are_ten_ticks_apart(high: int, compared: bool) -> None:
    """A load that is the same every ten ticks has nothing to compare."""
    law, scaling, cycle = usl(1.0, 0.3, 0.0), Scaling(), [1.0, 2.0, 3.0, 4.0, 6.0] + high * [16.0]
    for busy in 40 * cycle:
        scaling.step(busy, law(busy))
    curve = known(scaling)
    assert curve.worth is not None
    assert (curve.adds is not None) is compared


def test_a_pool_that_scales_perfectly_does_exactly_its_share_for_each_worker() -> None:
    curve = known(grown(lambda n: 0.7 * n, UP))
    assert curve.single == pytest.approx(0.7, rel=1e-9)
    assert (curve.contention, curve.coherency) == (0.0, 0.0)


@pytest.mark.parametrize(("sizes", "seen"), [([5, 6, 7, 9], False), ([4, 5, 6, 7, 8], False), ([4, 5, 6, 7, 8, 9], True)])
def test_a_curve_needs_sizes_of_which_one_is_twice_another(sizes: list[int], seen: bool) -> None:
    scaling = Scaling()
    for size in sizes:
        for _ in range(ENOUGH):
            scaling.step(size - 0.01 * size / 4, size / 2)  # all at work but for a little: 8 are less than twice 4 of them
    for _ in range(20):
        scaling.step(8.0 - 0.1, 4.0)
    assert (scaling.curve() is not None) is seen


def test_comparisons_of_long_ago_count_no_more_than_sizes_of_long_ago() -> None:
    law = usl(1.0, 0.3, 0.0)
    changed = grown(lambda n: 0.9 * n, 3 * UP)
    for _ in range(FORGET):
        changed.step(0.0, 0.0)
    assert known(grown(law, UP, scaling=changed)).adds == known(grown(law, UP)).adds is not None


def test_what_lies_beyond_the_sizes_seen_is_not_guessed() -> None:
    law = usl(1.0, 0.1, 0.0)
    curve = known(grown(law, [1, 2, 4, 6]))
    assert curve.contention == pytest.approx(0.1, abs=0.02)
    assert (curve.worth, curve.certain) == (None, False)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
@pytest.mark.parametrize("slower", [0.0, 0.3])
def test_workers_that_wait_are_never_held_back(share: float, slower: float) -> None:
    """Also where what they wait for gets slower the more of them there are."""
    curve = known(grown(usl(share, slower, 0.0), UP))
    assert curve.single < COMPUTES
    assert not curve.certain


def test_work_of_another_kind_by_day_is_not_a_limit() -> None:
    """The more workers are at work in an hour, the more of it is waiting: the sizes alone look like a limit. What more workers did
    within seconds tells that there is none."""
    law, scaling = usl(1.0, 0.5, 0.0), Scaling()
    for hour in (1, 2, 4, 6, 8, 12):
        each = law(hour) / hour
        for tick in range(150):
            busy = hour * (1 + 0.2 * math.sin(tick / 4))
            scaling.step(busy, each * busy)
    curve = known(scaling)
    assert curve.single >= COMPUTES
    assert curve.error <= FITS
    assert curve.worth is not None
    assert curve.adds == pytest.approx(law(10) / 10, rel=0.3)
    assert not curve.certain


def test_what_no_law_explains_is_no_limit() -> None:
    law = usl(1.0, 0.9, 0.0)
    curve = known(grown(lambda n: law(n) * (1.5 if round(n) in (2, 4, 8, 16) else 0.7), UP))
    assert curve.error > FITS
    assert curve.worth is not None
    assert not curve.certain


def test_a_glimpse_of_what_more_workers_do_is_not_enough() -> None:
    """Sizes of different days, and of one growth three ticks only."""
    law = usl(1.0, 0.9, 0.0)
    scaling = Scaling()
    for size in (1, 2, 8):
        grown(law, [size], scaling=scaling)
        scaling.step(None, None)
    assert known(scaling).adds is None
    grown(law, [8], scaling=scaling, times=20)
    grown(law, [16], scaling=scaling, times=4)
    scaling.step(None, None)
    grown(law, [16], scaling=scaling)
    assert 0 < len(scaling._pairs) < PAIRS
    curve = known(scaling)
    assert curve.worth is not None
    assert (curve.adds, curve.certain) == (None, False)


@pytest.mark.parametrize(("sizes", "enough"), [((2, 3, 4), True), ((3, 4, 5), False)])
def test_twice_as_many_workers_must_have_been_seen(sizes: tuple[int, ...], enough: bool) -> None:
    scaling = Scaling()
    for size in sizes:
        for _ in range(30):
            scaling.step(size, usl(1.0, 0.5, 0.0)(size))
    assert (scaling.curve() is not None) is enough


def test_times_are_compared_that_begin_ten_ticks_apart() -> None:
    """Means of five ticks: fifteen ticks without a hole are the least."""
    scaling = Scaling()
    for tick in range(15):
        assert not scaling._pairs
        scaling.step(2.0 if tick < 8 else 4.0, 1.0 if tick < 8 else 1.5)
    assert list(scaling._pairs) == [(15, 3.0, 0.25)]


@pytest.mark.parametrize("single", [1.0, 0.6])
def test_the_output_of_one_worker_is_not_guessed_too_low_where_all_add_the_same(single: float) -> None:
    assert known(grown(usl(single, 0.0, 0.0), UP)).single == pytest.approx(single, rel=1e-9)


def test_too_little_is_no_evidence() -> None:
    law = usl(1.0, 0.9, 0.0)
    assert Scaling().curve() is None
    assert grown(law, [1, 8]).curve() is None
    assert grown(law, [5, 6, 7]).curve() is None
    assert grown(law, UP, times=ENOUGH // 2).curve() is None


def test_it_lets_go_when_more_is_done_than_the_curve_says() -> None:
    """The machine was somebody else's too when it was seen; then they left."""
    slow, free = usl(1.0, 0.5, 0.0), usl(1.0, 0.0, 0.0)
    scaling = grown(slow, UP)
    assert known(scaling).certain
    grown(free, [2], times=32, scaling=scaling)
    assert known(scaling).certain  # two tell nothing of it
    grown(free, [6], times=16, scaling=scaling)  # what it was is still most of what is known of six
    assert free(6) > BETTER * slow(6)
    curve = known(scaling)
    assert curve.error <= FITS
    assert curve.worth is not None
    assert not curve.certain


def test_what_was_seen_long_ago_is_forgotten() -> None:
    scaling = grown(usl(1.0, 0.5, 0.0), UP)
    assert known(scaling).certain
    for _ in range(FORGET + 300):
        scaling.step(2.0, 1.3)
    assert scaling.curve() is None


def test_only_comparisons_of_long_ago_are_forgotten() -> None:
    scaling = grown(usl(1.0, 0.5, 0.0), UP)
    early = len(scaling._pairs)
    for _ in range(FORGET):
        scaling.step(2.0, 1.3)
    grown(usl(1.0, 0.5, 0.0), [2, 4, 6], scaling=scaling)
    late = [pair for pair in scaling._pairs if pair[0] > FORGET]
    scaling.curve()
    assert early > 0
    assert late
    assert list(scaling._pairs) == late


def test_memory_and_time_are_bounded() -> None:
    chance = np.random.default_rng(1)
    scaling = Scaling()
    began = time.process_time()
    for tick in range(2000):
        busy = float(chance.uniform(0, 10 ** chance.uniform(0, 4)))
        scaling.step(busy, min(busy, 50.0))
        if tick % 16 == 0:
            scaling.curve()
    assert (time.process_time() - began) / 2000 < 1e-3  # 0.1 ms on a quiet machine
    assert sum(map(len, scaling._seen.values())) <= KEPT * 100


WILD = st.one_of(
    st.none(), st.floats(0, 40), st.sampled_from([math.nan, math.inf, -math.inf, 1e300, -1e300, -1.0, 0.0, 1e-300, 1e-9])
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(WILD, WILD), min_size=1, max_size=12), st.integers(1, 40))
def test_whatever_it_is_told_answers_are_finite_and_the_same_again(
    values: list[tuple[float | None, float | None]], times: int
) -> None:
    one, other = Scaling(), Scaling()
    for busy, done in values * times:
        for scaling in (one, other):
            scaling.step(busy, done)
    curve = one.curve()
    assert curve == other.curve()
    if curve is not None:
        figures = (curve.single, curve.contention, curve.coherency, curve.largest, curve.error, curve.adds or 0.0)
        assert all(math.isfinite(figure) for figure in figures)
        assert min(figures[:5]) >= 0
        assert curve.worth is None or 1 <= curve.worth <= curve.largest
