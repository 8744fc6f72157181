"""Flat trees: where a row goes, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nicety.models.forecast.demand import DEMAND_FEATURES
from nicety.models.forecast.experts import Singles
from nicety.models.forecast.trees import EVERY, LEAF, FlatTrees

Arrays = dict[str, NDArray[Any]]


def two_trees() -> Arrays:
    """A tree of three leaves for the 90 % quantile, and a single leaf for all."""
    return {
        "feature": np.array([0, 1, LEAF, LEAF, LEAF, LEAF], dtype=np.int32),
        "threshold": np.array([1.0, 2.0, 0, 0, 0, 0], dtype=np.float32),
        "left": np.array([1, 2, 0, 0, 0, 0], dtype=np.int32),
        "right": np.array([4, 3, 0, 0, 0, 0], dtype=np.int32),
        "missing_left": np.array([True, False, False, False, False, False]),
        "value": np.array([0.0, 0.0, 10.0, 20.0, 30.0, 0.5]),
        "root": np.array([0, 5], dtype=np.int32),
        "output": np.array([1, EVERY], dtype=np.int32),
        "begin": np.array([0.0, 0.0, 0.0, 100.0]),
    }


def rows(*pairs: tuple[float, float]) -> Singles:
    made = np.zeros((len(pairs), len(DEMAND_FEATURES)), dtype=np.float32)
    made[:, :2] = np.array(pairs, dtype=np.float32).reshape(-1, 2)
    return made


def deep(depth: int) -> Arrays:
    """A tree that is a chain: each node goes right to the next."""
    feature = np.array([0, LEAF] * depth + [LEAF], dtype=np.int32)
    nodes = np.arange(len(feature), dtype=np.int32)
    inner = feature != LEAF
    return {
        "feature": feature,
        "threshold": np.where(inner, nodes / 2, 0).astype(np.float32),
        "left": np.where(inner, nodes + 1, 0).astype(np.int32),
        "right": np.where(inner, nodes + 2, 0).astype(np.int32),
        "missing_left": np.zeros(len(feature), dtype=np.bool_),
        "value": np.where(inner, 0.0, nodes.astype(np.float64)),
        "root": np.zeros(1, dtype=np.int32),
        "output": np.array([EVERY], dtype=np.int32),
        "begin": np.zeros(4),
    }


def test_a_row_goes_left_at_or_below_the_threshold() -> None:
    said = FlatTrees(two_trees()).more(rows((1.0, 2.0), (1.0, 2.0000002), (1.0000001, 0.0)))
    assert said[:, 1].tolist() == [10.5, 20.5, 30.5]
    assert said[:, (0, 2)].tolist() == [[0.5, 0.5]] * 3
    assert said[:, 3].tolist() == [100.5] * 3


def test_an_unknown_value_goes_where_the_node_says() -> None:
    said = FlatTrees(two_trees()).more(rows((np.nan, 0.0), (0.0, np.nan), (np.nan, np.nan)))
    assert said[:, 1].tolist() == [10.5, 20.5, 20.5]


@pytest.mark.parametrize("depth", [15, 40])
def test_large_trees_and_small_ones_say_the_same_of_the_same_rows(depth: int) -> None:
    asked = rows(*((float(value), 0.0) for value in range(depth + 2)))
    said = FlatTrees(deep(depth)).more(asked)
    assert said[:, 0].tolist() == [*(2.0 * place + 1 for place in range(depth)), 2.0 * depth, 2.0 * depth]


def test_no_row_is_no_trouble() -> None:
    assert FlatTrees(two_trees()).more(rows()).shape == (0, 4)


WRONG: dict[str, tuple[str, Any, str]] = {
    "a circle": ("left", [1, 0, 0, 0, 0, 0], "child before it"),
    "a child in another tree": ("right", [5, 3, 0, 0, 0, 0], "another tree"),
    "a child past the end": ("right", [4, 6, 0, 0, 0, 0], "another tree"),
    "a child below 0": ("right", [4, -3, 0, 0, 0, 0], "child before it"),
    "a node with two parents": ("right", [3, 3, 0, 0, 0, 0], "no parent, or two"),
    "a feature that there is not": ("feature", [len(DEMAND_FEATURES), 1, LEAF, LEAF, LEAF, LEAF], "feature"),
    "a feature below a leaf's": ("feature", [-2, 1, LEAF, LEAF, LEAF, LEAF], "feature"),
    "a quantile that there is not": ("output", [4, EVERY], "quantile"),
    "a threshold that is no number": ("threshold", [np.nan, 2, 0, 0, 0, 0], "finite"),
    "an infinite value": ("value", [0, 0, np.inf, 20, 30, 0.5], "finite"),
    "an absurd value": ("value", [0, 0, 1e7, 20, 30, 0.5], "absurdly"),
    "a root in the middle": ("root", [1, 5], "roots"),
    "roots that fall": ("root", [0, 0], "roots"),
    "a root past the end": ("root", [0, 6], "roots"),
    "too few of them": ("value", [0, 0, 10.0], "must be"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_tree_is_refused(name: str) -> None:
    which, values, message = WRONG[name]
    arrays = two_trees()
    with pytest.raises(ValueError, match=message):
        FlatTrees({**arrays, which: np.array(values, dtype=arrays[which].dtype)})


def test_trees_that_are_too_deep_or_incomplete_are_refused() -> None:
    with pytest.raises(ValueError, match="65 deep"):
        FlatTrees(deep(65))
    with pytest.raises(ValueError, match="instead of"):
        FlatTrees({name: array for name, array in two_trees().items() if name != "root"})
    with pytest.raises(ValueError, match="threshold of trees must be float32"):
        FlatTrees({**two_trees(), "threshold": np.zeros(6)})
