"""Windows against the plain way of keeping the last values of each series."""

from __future__ import annotations

from collections import deque

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nicety.models.features import Windows, WorkerWindows
from nicety.models.records import WINDOW

pushes = st.lists(st.dictionaries(st.sampled_from("abcdef"), st.floats(-1e6, 1e6), max_size=6), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(pushes, st.integers(1, 5))
def test_windows_hold_the_last_values_of_exactly_the_series_of_the_last_push(script: list[dict[str, float]], again: int) -> None:
    windows, plain = Windows(2), dict[str, deque[float]]()
    for values in script * again:
        plain = {key: plain.get(key, deque(maxlen=WINDOW)) for key in values}
        for key, value in values.items():
            plain[key].append(value)
        windows.push(list(values), np.array([[value, -value] for value in values.values()]).reshape(len(values), 2))
    assert len(windows) == len(plain)
    keys = sorted(plain)
    view, lengths = windows.view(keys)
    assert lengths.tolist() == [len(plain[key]) for key in keys]
    for row, key in zip(view, keys, strict=True):
        expected = [float("nan")] * (WINDOW - len(plain[key])) + list(plain[key])
        np.testing.assert_array_equal(row[:, 0], expected)
        np.testing.assert_array_equal(row[:, 1], [-value for value in expected])


@settings(max_examples=60, deadline=None)
@given(pushes, st.integers(1, 5))
def test_windows_of_workers_hold_the_same_in_the_order_of_the_last_push(script: list[dict[str, float]], again: int) -> None:
    windows, plain = WorkerWindows(2), dict[str, deque[float]]()
    for values in script * again:
        plain = {key: plain.get(key, deque(maxlen=WINDOW)) for key in values}
        for key, value in values.items():
            plain[key].append(value)
        windows.push(list(values), np.array([[value, 3.0] for value in values.values()]).reshape(len(values), 2))
    view, lengths = windows.view()
    assert view.shape == (2, WINDOW, len(plain))
    assert lengths.tolist() == [len(values) for values in plain.values()]
    for at, kept in enumerate(plain.values()):
        known = np.array(kept, dtype=np.float32)
        np.testing.assert_array_equal(view[0, WINDOW - len(kept) :, at], np.where(known >= 0, known, np.float32(np.nan)))
        assert (view[1, WINDOW - len(kept) :, at] == 3.0).all()
        assert np.isnan(view[:, : WINDOW - len(kept), at]).all()
