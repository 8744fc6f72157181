"""Values near a point that is known exactly, in two bytes instead of four. Pure.

The difference from the point is kept as the first half of a single (bfloat16), rounded. So a value read back is off by at most 1 in
256 of that difference, at any scale, and multiplying both by a power of 2 changes no bit. A value equal to the point, or 0, is read
back exactly: on series that stand still or idle it matters whether a value is above its forecast, equal or below. Made for what is
read once, such as forecasts of coming ticks. Do not use it for a sum that grows a little each tick: it would get stuck where the
increment is less than the rounding.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Singles = NDArray[np.float32]
Halves = NDArray[np.uint16]

_HALF = np.uint32(0x8000)  # half of the last bit that is kept


def packed(values: Singles, point: Singles) -> Halves:
    """`values`, at least 0 or NaN, around `point`, which must not be infinite."""
    off = np.where(values == 0, np.float32(-np.inf), values - point)
    return ((off.view(np.uint32) + _HALF) >> 16).astype(np.uint16)


def unpacked(halves: Halves, point: Singles) -> Singles:
    """The inverse of `packed` with the same point."""
    values = (halves.astype(np.uint32) << 16).view(np.float32)
    values += point
    return np.maximum(values, 0, out=values)
