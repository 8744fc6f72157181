from __future__ import annotations

import math
import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nicety.models.anomaly.detectors import KINDS, worker_rows
from nicety.models.anomaly.evidence import CHANNELS
from nicety.models.anomaly.model import RobustZ, score
from nicety.models.features import told
from nicety.models.identity import ProcId
from nicety.models.records import WINDOW

odd = st.sampled_from([0.0, -1.0, 1e-300, 1e12, 1e300, math.inf, -math.inf, math.nan])


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[str], np.ndarray, np.ndarray, float]:
    workers = draw(st.integers(1, 7))
    pools = [draw(st.sampled_from(["a", "b", "c"])) for _ in range(workers)]
    lengths = np.array([draw(st.integers(0, WINDOW)) for _ in range(workers)])
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    windows = rng.gamma(draw(st.sampled_from([0.05, 1.0, 20.0])), 1.0, (workers, WINDOW, len(CHANNELS)))
    windows *= 10.0 ** np.array([draw(st.integers(-6, 9)) for _ in CHANNELS])
    if draw(st.booleans()):  # a steady climb
        windows[rng.integers(workers), :, 2] += np.arange(WINDOW) * 10.0 ** draw(st.integers(0, 9))
    for _ in range(draw(st.integers(0, 4))):
        windows[rng.integers(workers), rng.integers(WINDOW) :, rng.integers(len(CHANNELS))] = draw(odd)
    windows[np.arange(WINDOW) < WINDOW - lengths[:, None]] = np.nan
    singles = np.ascontiguousarray(told(windows).transpose(2, 1, 0))
    return pools, singles, lengths, draw(st.sampled_from([0.05, 0.2, 0.5, 1.0, 5.0, 60.0]))


@settings(max_examples=60, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_scores_are_lawful_whatever_the_windows(
    case: tuple[list[str], np.ndarray, np.ndarray, float], chance: random.Random
) -> None:
    pools, windows, lengths, interval = case
    ids = [ProcId(10 + i, 1) for i in range(len(pools))]
    found = score(RobustZ(), ids, pools, windows, lengths, interval)
    assert [s.id for s in found] == sorted({s.id for s in found})
    for s in found:
        assert 0 < s.p <= 1
        assert s.value >= 0
        assert math.isfinite(s.value)
        assert all(math.isfinite(figure) for _, figure in s.evidence)
        assert s.pool == pools[ids.index(s.id)]
    assert score(RobustZ(), ids, pools, windows, lengths, interval) == found
    order = list(range(len(pools)))
    chance.shuffle(order)
    moved = score(RobustZ(), [ids[i] for i in order], [pools[i] for i in order], windows[:, :, order], lengths[order], interval)
    assert moved == found


@settings(max_examples=30, deadline=None)
@given(cases())
def test_rows_leave_the_windows_alone_and_never_go_below_nought(case: tuple[list[str], np.ndarray, np.ndarray, float]) -> None:
    pools, windows, lengths, interval = case
    before = windows.copy()
    rows = worker_rows(pools, windows, lengths, interval)
    np.testing.assert_array_equal(windows, before)
    assert rows.scores.shape == rows.material.shape == (len(pools), len(KINDS))
    assert not (rows.scores < 0).any()
    assert not rows.material[np.isnan(rows.scores)].any()
