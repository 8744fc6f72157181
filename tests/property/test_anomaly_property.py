from __future__ import annotations

import math
import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nicety.models.anomaly.detectors import KINDS, worker_rows
from nicety.models.anomaly.evidence import CHANNELS, Found
from nicety.models.anomaly.model import RobustZ, TickOfWorkers, score, scores_of_ticks
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


@settings(max_examples=40, deadline=None)
@given(st.lists(cases(), min_size=1, max_size=5), st.lists(st.sampled_from([None, 1e6, 1e12]), min_size=5, max_size=5))
def test_ticks_that_are_judged_together_have_the_scores_of_each_by_itself(
    many: list[tuple[list[str], np.ndarray, np.ndarray, float]], left: list[float | None]
) -> None:
    interval, ticks = many[0][3], []
    for (pools, windows, lengths, _), available in zip(many, left, strict=False):
        ids = [ProcId(10 + i, 1) for i in range(len(pools))]
        lone = np.where(np.arange(len(ids)) % 2, np.nan, 5.0)
        at = np.flatnonzero(~np.isnan(lone))
        past = Found(lone, np.ones(len(ids)), at, {"seconds": at.astype(np.float64)})
        ticks.append(
            TickOfWorkers(ids, pools, windows, lengths, available, past, ["", "1000"] * (len(ids) // 2) + [""] * (len(ids) % 2))
        )
    ticks.insert(1, TickOfWorkers([], [], ticks[0].windows[:, :, :0], ticks[0].lengths[:0], None, None, []))
    each = [
        score(RobustZ(), it.ids, it.pools, it.windows, it.lengths, interval, it.available, it.alone, owners=it.owners)
        for it in ticks
    ]
    assert scores_of_ticks(RobustZ(), ticks, interval) == each
    assert any(each)
