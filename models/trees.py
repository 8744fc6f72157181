"""Evaluates regression tree ensembles that are stored as flat arrays. Pure: knows neither who trained them nor what they predict.

Several ensembles of equally many trees share one set of nodes. The arrays of N nodes, E ensembles and T trees each:

| array | type, shape | meaning |
|---|---|---|
| feature | int32 [N] | column that an inner node looks at |
| threshold | float64 [N] | values up to this go left |
| missing_left | bool [N] | where NaN goes |
| left, right | int32 [N] | children, always later in the arrays than their parent; a leaf is its own child |
| value | float64 [N] | what a leaf adds |
| roots | int32 [E, T] | first nodes |
| start | float64 [E] | what the sum starts from |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Arrays = Mapping[str, NDArray[Any]]

MAX_NODES = 1_000_000
MAX_DEPTH = 64
MAX_MAGNITUDE = 1e150
"""Thresholds of a whole column may be this large; sums of values stay finite."""

BLOCK = 100_000
"""Row-tree pairs evaluated at a time: bounds the memory of a call to about 5 MB. Larger blocks are no faster."""

TYPES: dict[str, tuple[type, int]] = {
    "feature": (np.int32, 1),
    "threshold": (np.float64, 1),
    "missing_left": (np.bool_, 1),
    "left": (np.int32, 1),
    "right": (np.int32, 1),
    "value": (np.float64, 1),
    "roots": (np.int32, 2),
    "start": (np.float64, 1),
}
"""Type and dimensions of each array."""


def validate(arrays: Arrays, n_features: int) -> int:
    """The depth of the deepest tree, if the arrays are trees over `n_features` columns that end and stay finite.

    Raises ValueError with the first fault. Nothing in the arrays is trusted.
    """
    for name, (kind, dimensions) in TYPES.items():
        if name not in arrays:
            raise ValueError(f"array {name} is missing")
        array = arrays[name]
        if array.dtype != kind or array.ndim != dimensions:
            raise ValueError(f"{name} must be {np.dtype(kind)} with {dimensions} dimensions, not {array.dtype} with {array.ndim}")
    feature, left, right, roots = (arrays[name] for name in ("feature", "left", "right", "roots"))
    nodes = len(feature)
    if not 1 <= nodes <= MAX_NODES:
        raise ValueError(f"{nodes} nodes; from 1 to {MAX_NODES} are allowed")
    for name in ("threshold", "missing_left", "left", "right", "value"):
        if len(arrays[name]) != nodes:
            raise ValueError(f"{name} has {len(arrays[name])} entries for {nodes} nodes")
    if not 1 <= roots.size <= nodes or len(arrays["start"]) != len(roots):
        raise ValueError(f"roots {roots.shape} and start {arrays['start'].shape} do not fit {nodes} nodes")
    if roots.min() < 0 or roots.max() >= nodes:
        raise ValueError("a root is outside of the nodes")
    if feature.min() < 0 or feature.max() >= n_features:
        raise ValueError(f"feature {feature.min()} to {feature.max()}, but there are {n_features} columns")
    for name in ("threshold", "value", "start"):
        if not (np.abs(arrays[name]) <= MAX_MAGNITUDE).all():
            raise ValueError(f"{name} has entries that are not finite, or absurdly large")
    index = np.arange(nodes)
    leaf = left == index
    if (leaf != (right == index)).any() or (left < index).any() or (right < index).any():
        raise ValueError("a child comes before its parent: not a tree")
    if left.max() >= nodes or right.max() >= nodes:
        raise ValueError("a child is outside of the nodes")
    frontier = np.unique(roots)
    for depth in range(MAX_DEPTH + 1):
        frontier = frontier[~leaf[frontier]]
        if not frontier.size:
            return depth
        frontier = np.unique(np.concatenate([left[frontier], right[frontier]]))
    raise ValueError(f"a tree is deeper than {MAX_DEPTH}")


class Trees:
    """Ensembles ready to predict. Their predictions equal those of scikit-learn's HistGradientBoostingRegressor."""

    def __init__(self, arrays: Arrays, n_features: int) -> None:
        """Raises ValueError for arrays that `validate` refuses."""
        self._depth = validate(arrays, n_features)
        self._n_features = n_features
        self._feature = arrays["feature"].astype(np.intp)
        self._threshold = np.ascontiguousarray(arrays["threshold"])
        self._missing_left = np.ascontiguousarray(arrays["missing_left"])
        self._child = np.stack([arrays["right"], arrays["left"]], axis=1).astype(np.intp).ravel()
        self._value = np.ascontiguousarray(arrays["value"])
        self._roots = arrays["roots"].astype(np.intp)
        self._start = np.ascontiguousarray(arrays["start"])

    def predict(self, rows: Floats) -> Floats:
        """[n, E] predictions for `rows` [n, n_features]. A row's result does not depend on the rows around it, to the last bit."""
        if rows.ndim != 2 or rows.shape[1] != self._n_features:
            raise ValueError(f"rows must be [n, {self._n_features}], not {rows.shape}")
        size = max(BLOCK // self._roots.size, 1)
        blocks = [self._block(np.ascontiguousarray(rows[at : at + size])) for at in range(0, len(rows), size)]
        return np.concatenate(blocks) if blocks else np.empty((0, len(self._roots)))

    def _block(self, rows: Floats) -> Floats:
        n = len(rows)
        flat = rows.ravel()
        offset = np.arange(n) * self._n_features
        missing = bool(np.isnan(flat).any())
        node = np.repeat(self._roots.reshape(-1, 1), n, axis=1)  # [E * T, n]
        for _ in range(self._depth):
            x = flat.take(self._feature.take(node) + offset)
            left = x <= self._threshold.take(node)
            if missing:
                left |= np.isnan(x) & self._missing_left.take(node)
            node = self._child.take(2 * node + left)
        values = self._value.take(node).reshape(*self._roots.shape, n)
        total = np.repeat(self._start[:, None], n, axis=1)
        for tree in range(values.shape[1]):  # in this order for the same rounding as scikit-learn, and for any n
            total += values[:, tree]
        return np.ascontiguousarray(total.T)
