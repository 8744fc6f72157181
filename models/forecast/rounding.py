"""Rounds forecasts to what they are worth, so that a log of them is small. Pure.

A forecast of a group's CPU or memory is wrong by several percent at best, and its double has 53 bits. Written as differences, each
bit that is kept costs a bit in each value of each tick.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

COARSE_BITS, FINE_BITS = 7, 14
"""Significant bits of a group's forecasts, and of a pool's load. Chosen: errors of at most 0.8 % and 0.006 %. Seven bits apart, so
both fill whole byte planes in the log, which adds the sign."""

LEAST = 2.0**-10
"""Less is 0: a thousandth of a core. Chosen: nothing decides on so little."""

_MANTISSA = 52  # explicit bits of a double


def rounded(values: NDArray[np.float64], fine: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The values [n, ...], rounded to the nearest. `fine` [n]: which of them are loads of pools.

    >>> rounded(np.array([[0.1, 1000.0, 0.0001], [0.1, 1000.0, 0.0001]]), np.array([False, True])).tolist()
    [[0.099609375, 1000.0, 0.0], [0.09999847412109375, 1000.0, 0.0]]
    """
    dropped = np.where(fine, _MANTISSA + 1 - FINE_BITS, _MANTISSA + 1 - COARSE_BITS).astype(np.int64)
    dropped = dropped.reshape(-1, *(1,) * (values.ndim - 1))
    bits = np.where(np.abs(values) < LEAST, 0.0, values).view(np.int64)
    whole: NDArray[np.float64] = (((bits + (1 << (dropped - 1))) >> dropped) << dropped).view(np.float64)
    return np.where(np.isfinite(values), whole, values)
