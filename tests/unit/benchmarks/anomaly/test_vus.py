"""Volume under the precision-recall surface: benchmarks/anomaly/vus.py."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

vus = importlib.import_module("benchmarks.anomaly.vus")
area, extend, vus_pr = vus.area, vus.extend, vus.vus_pr


def labels(n: int = 2000) -> np.ndarray:
    marked = np.zeros(n, dtype=bool)
    for start, length in ((200, 20), (700, 5), (1500, 60)):
        marked[start : start + length] = True
    return marked


def test_a_perfect_score_has_1_and_the_reverse_hardly_anything() -> None:
    marked = labels()
    assert vus_pr(marked, marked.astype(float), 40) == pytest.approx(1.0)
    assert vus_pr(marked, -marked.astype(float), 0) < 0.1


def test_a_random_score_has_about_the_rate_of_anomalies() -> None:
    marked = labels()
    rng = np.random.default_rng(1)
    rate = marked.mean()
    assert np.mean([vus_pr(marked, rng.random(len(marked)), 0) for _ in range(20)]) == pytest.approx(rate, rel=0.25)


def test_increasing_transforms_change_nothing() -> None:
    marked = labels()
    scores = np.random.default_rng(2).random(len(marked)) + 0.5 * marked
    expected = vus_pr(marked, scores, 20)
    assert 0.1 < expected < 1.0
    assert vus_pr(marked, np.exp(5 * scores), 20) == expected
    assert vus_pr(marked, scores * 1e-9 - 7, 20) == pytest.approx(expected, abs=1e-12)


def test_buffers_forgive_a_border_that_is_off_by_a_few_ticks() -> None:
    marked = labels()
    late = np.roll(marked, 4).astype(float)
    plain, lenient = area(marked, late, 0), area(marked, late, 20)
    assert plain < lenient < 1.0
    assert area(marked, np.roll(marked, 300).astype(float), 20) < plain


def test_an_anomaly_that_is_never_found_counts_by_its_share_not_by_its_length() -> None:
    marked = labels()
    without_short = marked.astype(float)
    without_short[700:705] = 0
    assert area(marked, without_short, 0) == pytest.approx(80 / 85 * 2 / 3, abs=0.05)


def test_labels_are_extended_as_defined() -> None:
    marked = np.array([False] * 5 + [True] + [False] * 5)
    assert extend(marked, 0).tolist() == marked.astype(float).tolist()
    assert extend(marked, 4)[3:8] == pytest.approx([np.sqrt(0.5), np.sqrt(0.75), 1.0, np.sqrt(0.75), np.sqrt(0.5)])
    assert extend(marked, 4)[[2, 8]].tolist() == [0.0, 0.0]
    close = np.array([True, False, True])
    assert extend(close, 4).tolist() == [1.0, 1.0, 1.0]


def test_by_hand_on_four_ticks() -> None:
    marked = np.array([False, True, True, False])
    # thresholds from the top: a false alarm (precision 0), then both anomalies, precision 1/2 at recall 1/2 and 2/3 at recall 1
    assert area(marked, np.array([4.0, 3.0, 2.0, 1.0]), 0) == pytest.approx(0.5 * 1 / 2 + 0.5 * 2 / 3)
    # equal scores are one threshold
    assert area(marked, np.ones(4), 0) == pytest.approx(0.5)


def test_what_cannot_be_judged_is_nan_and_what_makes_no_sense_is_refused() -> None:
    assert np.isnan(vus_pr(np.zeros(5, dtype=bool), np.arange(5.0), 2))
    assert np.isnan(vus_pr(np.ones(5, dtype=bool), np.arange(5.0), 2))
    with pytest.raises(ValueError, match="one value a tick"):
        vus_pr(np.ones(5, dtype=bool), np.arange(4.0), 2)
    with pytest.raises(ValueError, match="0 or more"):
        vus_pr(labels(), labels().astype(float), -1)


def test_nan_is_below_every_other_score() -> None:
    marked = labels()
    assert vus_pr(marked, np.where(marked, 1.0, np.nan), 10) == pytest.approx(1.0)
