"""What lies around a point that is known exactly, in two bytes instead of four. Pure.

Kept is how far off the point it is, as the first half of a single (bfloat16), rounded: what is read is off by at most 1 in 256 of
that distance, whatever the scale, and a power of 2 as factor of both changes no bit. What is equal to the point, or 0, is read as
just that: on series that stand still or idle it matters whether a value is above what was said of it, equal or below. It is for
what is read once, such as what was said of ticks to come. What a little is added to at each tick would be stuck where the little is
less than the rounding.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Singles = NDArray[np.float32]
Halves = NDArray[np.uint16]

_HALF = np.uint32(0x8000)  # of the last bit that is kept


def packed(values: Singles, point: Singles) -> Halves:
    """`values`, at least 0 or NaN, around `point`, which must not be infinite."""
    off = np.where(values == 0, np.float32(-np.inf), values - point)
    return ((off.view(np.uint32) + _HALF) >> 16).astype(np.uint16)


def unpacked(halves: Halves, point: Singles) -> Singles:
    """The inverse of `packed` with the same point."""
    values = (halves.astype(np.uint32) << 16).view(np.float32)
    values += point
    return np.maximum(values, 0, out=values)
