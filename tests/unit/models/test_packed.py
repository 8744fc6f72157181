"""Two bytes for a number: how near what is read is to what was written, and what must not change at all."""

from __future__ import annotations

import numpy as np

from nicety.models.forecast.packed import Singles, packed, unpacked


def through(values: Singles, point: Singles) -> Singles:
    return unpacked(packed(values, point), point)


def test_what_is_read_is_off_by_little_of_its_distance_from_the_point() -> None:
    rng = np.random.default_rng(1)
    point = (10 ** rng.uniform(-9, 9, 100_000)).astype(np.float32)
    written = (point * 10 ** rng.uniform(-3, 3, 100_000)).astype(np.float32)
    near = np.abs(written - point) > 1e-4 * point  # nearer ones differ by a few bits only
    off = ((through(written, point).astype(float) - written) / np.abs(written.astype(float) - point))[near]
    assert 1 / 300 < np.abs(off).max() <= 1 / 250
    assert abs(off.mean()) < 1e-4  # to the nearest, not always down


def test_what_is_the_point_or_nothing_or_no_number_is_just_that() -> None:
    point = np.array([0.1, 3.3, 0.7, 1e12, 0.3, 1e-30], dtype=np.float32)
    written = np.array([0.1, 0, np.nan, np.inf, -np.nan, 0], dtype=np.float32)
    assert np.array_equal(through(written, point), written, equal_nan=True)
    assert np.array_equal(through(written[:, None], point[:, None]), written[:, None], equal_nan=True)


def test_a_power_of_two_as_factor_changes_no_digit() -> None:
    rng, factor = np.random.default_rng(2), np.float32(2.0**40)
    written, point = (rng.gamma(1, 1, 1000).astype(np.float32) for _ in range(2))
    assert np.array_equal(through(written * factor, point * factor), through(written, point) * factor)
