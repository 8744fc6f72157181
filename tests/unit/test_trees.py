"""Flat trees predict what scikit-learn predicts, and refuse arrays that are no trees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor

from nicety.models import trees
from nicety.models.trees import MAX_DEPTH, Trees, validate
from nicety.training.fit import export

Arrays = dict[str, np.ndarray[Any, Any]]


def data(seed: int, n: int = 2000, columns: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = rng.normal(0, 1, (n, columns))
    rows[rng.random(rows.shape) < 0.1] = np.nan
    rows[:, 3] = rng.integers(0, 4, n)
    answers = np.nan_to_num(rows[:, 0]) * np.where(np.isnan(rows[:, 1]), 3, 1) + rng.normal(0, 0.1, n)
    return rows, answers


def fitted(seed: int, **settings: Any) -> list[HistGradientBoostingRegressor]:
    rows, answers = data(seed)
    return [
        HistGradientBoostingRegressor(loss="quantile", quantile=level, max_iter=12, random_state=0, **settings).fit(rows, answers)
        for level in (0.5, 0.9, 0.99)
    ]


@pytest.fixture(scope="module")
def models() -> list[HistGradientBoostingRegressor]:
    return fitted(1)


@pytest.fixture
def arrays(models: list[HistGradientBoostingRegressor]) -> Arrays:
    return dict(export(models))


def test_predictions_equal_scikit_learns_to_the_last_bit(models: list[HistGradientBoostingRegressor], arrays: Arrays) -> None:
    rows, _ = data(2)
    said = Trees(arrays, 8).predict(rows)
    for column, model in enumerate(models):
        assert np.array_equal(said[:, column], model.predict(rows))


def test_a_split_that_only_parts_missing_values_is_kept() -> None:
    rows = np.repeat([[1.0], [np.nan]], 100, axis=0)
    model = HistGradientBoostingRegressor(max_iter=3, random_state=0).fit(rows, np.repeat([5.0, -5.0], 100))
    arrays = export([model])
    probe = np.array([[1.0], [np.nan], [1e9], [-1e9]])
    assert np.array_equal(Trees(arrays, 1).predict(probe)[:, 0], model.predict(probe))


def test_stumps_and_single_leaves_predict() -> None:
    rows, answers = data(3, n=30)
    model = HistGradientBoostingRegressor(max_iter=4, min_samples_leaf=30, random_state=0).fit(rows, answers)
    assert np.array_equal(Trees(export([model]), 8).predict(rows)[:, 0], model.predict(rows))


def test_a_row_gets_the_same_alone_and_among_others(arrays: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = data(4, n=300)
    model = Trees(arrays, 8)
    together = model.predict(rows)
    assert np.array_equal(together, np.vstack([model.predict(row[None, :]) for row in rows]))
    monkeypatch.setattr(trees, "BLOCK", 100)
    assert np.array_equal(together, model.predict(rows))
    assert model.predict(rows[:0]).shape == (0, 3)


def test_rows_of_another_width_are_refused(arrays: Arrays) -> None:
    with pytest.raises(ValueError, match="rows must be"):
        Trees(arrays, 8).predict(np.zeros((2, 7)))


def changed(name: str, index: Any, value: Any) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        arrays[name] = arrays[name].copy()
        arrays[name][index] = value

    return change


def replaced(name: str, make: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        arrays[name] = make(arrays[name])

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda arrays: arrays.pop("value"), "value is missing"),
        (replaced("feature", lambda a: a.astype(np.int64)), "feature must be int32"),
        (replaced("value", lambda a: a[None, :]), "value must be float64"),
        (replaced("value", lambda a: a[:-1]), "value has"),
        (changed("feature", 0, 8), "there are 8 columns"),
        (changed("feature", 0, -1), "there are 8 columns"),
        (changed("left", 0, 1 << 30), "outside of the nodes"),
        (changed("left", 5, 2), "before its parent"),
        (changed("right", 5, 0), "before its parent"),
        (changed("right", 0, 0), "before its parent"),
        (changed("threshold", 0, np.nan), "threshold has entries"),
        (changed("value", 3, np.inf), "value has entries"),
        (changed("start", 0, -1e200), "start has entries"),
        (changed("roots", (0, 0), -1), "a root is outside"),
        (changed("roots", (0, 0), 1 << 30), "a root is outside"),
        (replaced("start", lambda a: a[:-1]), "do not fit"),
        (replaced("roots", lambda a: a[:, :0]), "do not fit"),
    ],
)
def test_arrays_that_are_no_trees_are_refused(arrays: Arrays, change: Callable[[Arrays], object], says: str) -> None:
    validate(arrays, 8)
    change(arrays)
    with pytest.raises(ValueError, match=says):
        validate(arrays, 8)


def test_a_tree_that_is_too_deep_or_too_large_is_refused() -> None:
    def chain(nodes: int) -> Arrays:
        index = np.arange(nodes, dtype=np.int32)
        child = np.minimum(index + 1, nodes - 1).astype(np.int32)
        zeros = np.zeros(nodes)
        return {
            "feature": np.zeros(nodes, np.int32),
            "threshold": zeros,
            "missing_left": zeros != 0,
            "left": child,
            "right": child,
            "value": zeros,
            "roots": np.zeros((1, 1), np.int32),
            "start": np.zeros(1),
        }

    assert validate(chain(MAX_DEPTH + 1), 1) == MAX_DEPTH
    with pytest.raises(ValueError, match="deeper"):
        validate(chain(MAX_DEPTH + 2), 1)
    with pytest.raises(ValueError, match="nodes"):
        validate(chain(trees.MAX_NODES + 1), 1)
