"""Trees of a demand model as flat arrays: evaluates what scikit-learn has fitted, without scikit-learn. Pure.

A node has a feature, a threshold, two children and what happens to NaN; a leaf has a value. Children come after their parent, so no
tree has a circle. Each tree adds the value of the leaf that a row reaches to one quantile, or to all.

Rows are single precision, and so are thresholds: each is the largest such number that goes left. So a row goes where scikit-learn
sends it, which compares in double precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..records import QUANTILES
from .demand import DEMAND_FEATURES
from .experts import Bools, Floats, Ints, Singles

MOST_NODES = 200_000
"""Maximum nodes of a model (chosen): 5 MB."""

MOST_DEPTH = 64
"""Maximum depth of a tree (chosen)."""

SMALL = 16
"""Leaves up to which trees are evaluated by masks: one bit for each leaf. Four to eight times as fast as going down level by
level, as `python -m benchmarks.forecast.model --only trees` measures."""

EVERY = -1
"""The output of a tree that adds to all quantiles."""

ROWS_AT_A_TIME = 320
"""Rows that are evaluated together (chosen, so that the masks of a hundred trees stay in the cache)."""

LEAF = -1
"""The feature of a leaf."""

_LOWEST = np.array([(bits & -bits).bit_length() - 1 if bits else 0 for bits in range(1 << SMALL)], dtype=np.int8)
"""The place of the lowest bit that is set."""


class FlatTrees:
    """Many trees that add to the quantiles."""

    DTYPES: Mapping[str, type] = {
        "feature": np.int32,  # [nodes] LEAF for a leaf
        "threshold": np.float32,  # [nodes] goes left at or below
        "left": np.int32,  # [nodes] place of the child, after its parent's
        "right": np.int32,
        "missing_left": np.bool_,  # [nodes] where NaN goes
        "value": np.float64,  # [nodes] what a leaf adds
        "root": np.int32,  # [trees] rising
        "output": np.int32,  # [trees] index into QUANTILES, or EVERY
        "begin": np.float64,  # [QUANTILES] what the trees add to
    }

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """`arrays`: those of `DTYPES`. Raises ValueError for any that are not trees within the limits."""
        _check(arrays)
        self._arrays = arrays
        self._begin = np.asarray(arrays["begin"])
        self._output = np.asarray(arrays["output"])
        leaves = np.diff(np.append(np.searchsorted(np.flatnonzero(arrays["feature"] == LEAF), arrays["root"]), _leaves(arrays)))
        self._masks = _Masks(arrays) if len(leaves) and int(leaves.max()) <= SMALL else None

    def more(self, made: Singles) -> Floats:
        """[n, Q] what the trees say of rows [n, F]."""
        said = np.repeat(self._begin[None], len(made), axis=0)
        for first in range(0, len(made), ROWS_AT_A_TIME):
            part = np.ascontiguousarray(made[first : first + ROWS_AT_A_TIME].T)
            found = self._levels(part) if self._masks is None else self._masks.values(part)
            for output in sorted(set(self._output.tolist())):
                total = found[self._output == output].sum(axis=0)
                target = said[first : first + ROWS_AT_A_TIME]
                if output == EVERY:
                    target += total[:, None]
                else:
                    target[:, output] += total
        return said

    def _levels(self, columns: Singles) -> Floats:
        """[trees, n] the value of each tree for columns [F, n], one level of all trees after the other."""
        a = self._arrays
        count = columns.shape[1]
        at = np.repeat(a["root"].astype(np.int64)[:, None], count, axis=1)
        row = np.arange(count)
        for _ in range(MOST_DEPTH + 1):
            feature = a["feature"][at]
            if (feature == LEAF).all():
                break
            value = columns[feature, row]
            left = np.where(np.isnan(value), a["missing_left"][at], value <= a["threshold"][at])
            at = np.where(feature == LEAF, at, np.where(left, a["left"][at], a["right"][at]))
        return np.asarray(a["value"][at])


class _Masks:
    """Trees of at most SMALL leaves. Each node that a row does not leave to the left strikes out the leaves on its left: the first
    leaf that is left is the one the row reaches (Lucchese et al. 2015, "QuickScorer")."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        roots = arrays["root"].tolist()
        nodes: list[tuple[int, int, int]] = []  # (node, tree, leaves on its left as bits)
        self._values = np.zeros((len(roots), SMALL))
        for tree, root in enumerate(roots):
            found: list[float] = []
            _walk(arrays, root, tree, found, nodes)
            self._values[tree, : len(found)] = found
        wide = int(np.bincount([tree for _, tree, _ in nodes], minlength=1).max())  # for each tree; those added strike nothing
        place = np.zeros((len(roots), wide), dtype=np.int64)
        self._strikes = np.zeros((len(roots), wide, 1), dtype=np.uint16)
        filled = [0] * len(roots)
        for node, tree, mask in nodes:
            place[tree, filled[tree]], self._strikes[tree, filled[tree]] = node, mask
            filled[tree] += 1
        self._feature, self._threshold = np.maximum(arrays["feature"][place], 0), arrays["threshold"][place][:, :, None]
        self._missing_right = ~arrays["missing_left"][place][:, :, None]
        self._offset = np.arange(0, SMALL * len(roots), SMALL)[:, None]

    def values(self, columns: Singles) -> Floats:
        """See `FlatTrees._levels`."""
        seen = columns[self._feature]
        right = seen > self._threshold  # not so for NaN
        if np.isnan(columns).any():
            right |= np.isnan(seen) & self._missing_right
        struck = np.bitwise_or.reduce(right * self._strikes, axis=1)
        return np.asarray(self._values.ravel()[np.take(_LOWEST, ~struck) + self._offset])


def _walk(arrays: Mapping[str, NDArray[Any]], node: int, tree: int, found: list[float], nodes: list[tuple[int, int, int]]) -> None:
    """Append the values of the leaves below a node to `found`, from left to right, and its nodes to `nodes`."""
    if arrays["feature"][node] == LEAF:
        found.append(float(arrays["value"][node]))
        return
    before = len(found)
    _walk(arrays, int(arrays["left"][node]), tree, found, nodes)
    nodes.append((node, tree, (1 << len(found)) - (1 << before)))
    _walk(arrays, int(arrays["right"][node]), tree, found, nodes)


def _leaves(arrays: Mapping[str, NDArray[Any]]) -> int:
    return int(np.count_nonzero(arrays["feature"] == LEAF))


def _check(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raise ValueError unless the arrays are trees: each node but a root is the child of one other, of the same tree."""
    if set(arrays) != set(FlatTrees.DTYPES):
        raise ValueError(f"trees have arrays {', '.join(sorted(arrays))} instead of {', '.join(sorted(FlatTrees.DTYPES))}")
    nodes, trees = len(arrays["feature"]), len(arrays["root"])
    for name, dtype in FlatTrees.DTYPES.items():
        length = {"root": trees, "output": trees, "begin": len(QUANTILES)}.get(name, nodes)
        if arrays[name].shape != (length,) or arrays[name].dtype != dtype:
            raise ValueError(
                f"{name} of trees must be {np.dtype(dtype)} ({length},), not {arrays[name].dtype} {arrays[name].shape}"
            )
    if not 1 <= trees <= nodes <= MOST_NODES:
        raise ValueError(f"{trees} trees with {nodes} nodes; at most {MOST_NODES} nodes are allowed, and each tree needs one")
    feature, root = arrays["feature"], arrays["root"].astype(np.int64)
    inner = feature != LEAF
    if not ((feature >= LEAF) & (feature < len(DEMAND_FEATURES))).all():
        raise ValueError("a tree asks for a feature that there is not")
    if not ((arrays["output"] >= EVERY) & (arrays["output"] < len(QUANTILES))).all():
        raise ValueError("a tree adds to a quantile that there is not")
    for name in ("threshold", "value", "begin"):
        chosen = arrays[name][inner] if name == "threshold" else arrays[name]
        if not (np.abs(chosen) <= (np.finfo(np.float32).max if name == "threshold" else 1e6)).all():
            raise ValueError(f"{name} of trees is not finite, or absurdly large")
    if root[0] != 0 or not (np.diff(root) > 0).all() or root[-1] >= nodes:
        raise ValueError("the roots of trees do not rise from 0")
    _check_children(arrays, inner, root, nodes)


def _check_children(arrays: Mapping[str, NDArray[Any]], inner: Bools, root: Ints, nodes: int) -> None:
    """Raise ValueError unless each child comes after its parent, in its tree, and has no other parent."""
    places = np.flatnonzero(inner)
    children = np.stack([arrays["left"][inner], arrays["right"][inner]]).astype(np.int64)
    ends = np.append(root[1:], nodes)[np.searchsorted(root, places, side="right") - 1]
    if not ((children > places) & (children < ends)).all():
        raise ValueError("a node of a tree has a child before it, or in another tree")
    parents = np.bincount(children.ravel(), minlength=nodes)
    expected = np.ones(nodes, dtype=np.int64)
    expected[root] = 0
    if not np.array_equal(parents, expected):
        raise ValueError("a node of a tree has no parent, or two")
    depth = np.zeros(nodes, dtype=np.int64)
    for place, left, right in zip(places.tolist(), *children.tolist(), strict=True):  # parents come first
        depth[left] = depth[right] = depth[place] + 1
    if int(depth.max()) > MOST_DEPTH:
        raise ValueError(f"a tree is {int(depth.max())} deep; at most {MOST_DEPTH} are allowed")
