"""Which workers share a pool, and what is usual among them. Pure: knows numbers, not what they mean."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..features import Floats

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Siblings:
    """Statistics over the pool of each worker. Workers are ordered by pool; values are [..., workers]."""

    def __init__(self, index: Ints) -> None:
        starts = np.concatenate([[0], np.flatnonzero(np.diff(index)) + 1])
        counts = np.diff(np.concatenate([starts, [len(index)]]))
        self.starts: Ints = starts.astype(np.int64)  # [pools] first worker
        self.index: Ints = np.repeat(np.arange(len(starts)), counts)  # [n] pool of each worker, rising from 0
        self.first: Ints = self.starts[self.index]  # [n] first worker of the worker's pool
        self.size: Ints = counts[self.index].astype(np.int64)  # [n] workers in the worker's pool
        self._end = self.first + self.size - 1
        self._base = self.index << 32
        self._unknown = self._base + _LAST

    def median(self, values: Floats) -> Floats:
        """Medians over the siblings of each worker, itself left out; NaN where none has a value."""
        keys, ordered, valid = self._ordered(values)
        known = keys != self._unknown
        others = valid - known
        low, high = self.first + np.maximum(others - 1, 0) // 2, self.first + others // 2
        # the worker's own value takes a place at or before that of the median, so all after it move up by one
        low = low + (known & (keys <= _at(ordered, low)))
        high = high + (known & (keys <= _at(ordered, np.minimum(high, self._end))))
        return self._middle(ordered, low, high, others > 0, values.shape)

    def pool_median(self, values: Floats) -> Floats:
        """Medians over the pool of each worker, itself included; NaN where none has a value."""
        _, ordered, valid = self._ordered(values)
        low, high = self.first + np.maximum(valid - 1, 0) // 2, self.first + valid // 2
        return self._middle(ordered, low, high, valid > 0, values.shape)

    def total(self, counts: NDArray[np.integer] | Flags) -> Ints:
        """Sums over the pool of each worker."""
        return np.asarray(np.add.reduceat(counts, self.starts, axis=-1, dtype=np.int32)[..., self.index])

    def sums(self, values: Ints) -> Ints:
        """Sums over the siblings of each worker, itself left out. Whole numbers: the same in any order."""
        return np.asarray(np.add.reduceat(values, self.starts, axis=-1)[..., self.index] - values)

    def highest(self, values: Floats) -> Floats:
        """Highest value in the pool of each worker, itself included."""
        return np.asarray(np.maximum.reduceat(values, self.starts, axis=-1)[..., self.index])

    def anywhere(self, flags: Flags) -> Flags:
        """Whether it holds for any worker of each worker's pool."""
        return np.asarray(np.logical_or.reduceat(flags, self.starts, axis=-1)[..., self.index])

    def _ordered(self, values: Floats) -> tuple[Ints, Ints, Ints]:
        """(a key for each value that sorts by pool, then by value; the sorted keys; known values of the pool). All [rows, n].

        Keys are integers, pool above and the value in single precision below: an order of magnitude faster than sorting by two
        keys."""
        rows = values.reshape(-1, values.shape[-1])
        with np.errstate(over="ignore"):
            single = rows.astype(np.float32) + np.float32(0.0)  # no minus zero
        known = np.isfinite(single)
        if known.all():
            keys = self._base + _flip(single.view(np.int32))
            valid: Ints = self.size[None, :]
        else:
            keys = self._base + np.where(known, _flip(single.view(np.int32)), _LAST)
            valid = self.total(known)
        return keys, np.sort(keys, axis=-1), valid

    def _middle(self, ordered: Ints, low: Ints, high: Ints, there: Flags, shape: tuple[int, ...]) -> Floats:
        """Mean of the values at two places, NaN unless `there`."""
        keys = (_at(ordered, np.minimum(place, self._end)) - self._base for place in (low, high))
        lower, upper = (_flip(key.astype(np.int32)).view(np.float32).astype(np.float64) for key in keys)
        return np.where(there, (lower + upper) / 2, np.nan).reshape(shape)


def _at(rows: Ints, places: Ints) -> Ints:
    """`rows` [rows, n] at `places` [rows or 1, n] of the same row."""
    return np.asarray(rows.ravel().take(places + (np.arange(len(rows)) * rows.shape[1])[:, None]))


_LAST = (1 << 31) - 1
"""Sorts after the key of every finite value."""


def _flip(bits: NDArray[np.int32]) -> NDArray[np.int32]:
    """Bits of single precision to integers in the same order, and back."""
    return np.asarray(bits ^ ((bits >> 31) & np.int32(_LAST)))
