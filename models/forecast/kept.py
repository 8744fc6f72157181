"""What is kept of series while they are gone: over a pause of a group, and over a restart of the daemon. Pure.

Arrays only. What comes from a file is checked before it is used: types and lengths are this module's, not the file's.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..records import HORIZONS, QUANTILES
from . import experts, memory

MOST = 4096
"""Most series that are kept, the newest first. Chosen: 25 MiB."""

LARGEST = 1e13
"""Limit of a kept figure, in units of its series: more than `Experts` takes of a value (chosen)."""

OF_SERIES: dict[str, tuple[tuple[int, ...], type]] = {
    "own": ((len(HORIZONS), len(QUANTILES)), np.float32),
    "lately": ((2, len(QUANTILES)), np.float32),
    "usual": ((), np.float32),
    "whole": ((), np.bool_),
}
"""Parts of the state of the forecaster itself that are kept."""

EXPERTS, MEMORY, SERIES = "experts.", "memory.", "series."
"""How the names of parts begin, by who has them."""

SHAPES: dict[str, tuple[tuple[int, ...], type]] = {
    **{EXPERTS + name: shape for name, shape in experts.KEPT.items()},
    **{MEMORY + name: shape for name, shape in memory.KEPT.items()},
    **{SERIES + name: shape for name, shape in OF_SERIES.items()},
}
"""Shape and type of each part for one series."""

_SIGNED = {EXPERTS + name for name in ("shift", "slip", "weights", "covariance", "bias")} | {MEMORY + "shift", SERIES + "own"}
_PROFILE = EXPERTS + "profile"  # NaN: unknown


@dataclass(frozen=True, slots=True)
class Kept:
    """The state of some series. `parts` are as in `SHAPES`, with the series last."""

    keys: Sequence[Any]  # hashable
    at: NDArray[np.float64]  # [n] seconds since 1970 of the last value
    parts: Mapping[str, NDArray[Any]]

    def some(self, which: NDArray[np.int64]) -> Kept:
        """The state of some of them."""
        parts = {name: part[..., which] for name, part in self.parts.items()}
        return Kept([self.keys[one] for one in which.tolist()], self.at[which], parts)

    def of(self, owner: str) -> dict[str, NDArray[Any]]:
        """The parts of an owner, by their own names."""
        return {name.removeprefix(owner): part for name, part in self.parts.items() if name.startswith(owner)}

    def to_bytes(self) -> dict[str, bytes]:
        """The parts, for `from_bytes`."""
        return {name: np.ascontiguousarray(part).tobytes() for name, part in self.parts.items()}

    @classmethod
    def joined(cls, pieces: Iterable[Kept]) -> Kept:
        """Several as one: the newest `MOST` series of them."""
        there = [piece for piece in pieces if len(piece.keys)]
        if not there:
            return cls([], np.zeros(0), {name: np.zeros((*shape, 0), dtype) for name, (shape, dtype) in SHAPES.items()})
        keys = [key for piece in there for key in piece.keys]
        at = np.concatenate([piece.at for piece in there])
        parts = {name: np.concatenate([piece.parts[name] for piece in there], axis=-1) for name in SHAPES}
        return cls(keys, at, parts).newest(MOST)

    def newest(self, most: int) -> Kept:
        """At most so many of them."""
        return self if len(self.keys) <= most else self.some(np.sort(np.argsort(-self.at, kind="stable")[:most]))

    @classmethod
    def from_bytes(cls, keys: Sequence[Hashable], at: Sequence[float], parts: Mapping[str, bytes]) -> Kept:
        """Raises ValueError for anything that `to_bytes` of such a state cannot have given."""
        n = len(keys)
        if n > MOST or len(set(keys)) != n or len(at) != n or not np.isfinite(np.asarray(at, dtype=np.float64)).all():
            raise ValueError(f"{n} series: at most {MOST} different ones, each with a time, are kept")
        if parts.keys() != SHAPES.keys():
            raise ValueError("it has other parts than this version of nicety keeps")
        arrays: dict[str, NDArray[Any]] = {}
        for name, (shape, type_) in SHAPES.items():
            dtype = np.dtype(type_)
            if len(parts[name]) != math.prod(shape) * n * dtype.itemsize:
                raise ValueError(f"{name} has {len(parts[name])} bytes, which does not fit {n} series")
            array = np.frombuffer(parts[name], dtype if dtype != np.bool_ else np.dtype(np.uint8)).reshape(*shape, n)
            if dtype == np.bool_:
                array = array != 0
            elif not _sound(name, array):
                raise ValueError(f"{name} has values that no series gives")
            arrays[name] = array
        return cls(list(keys), np.asarray(at, dtype=np.float64), arrays)


def _sound(name: str, array: NDArray[Any]) -> bool:
    """Whether the figures are within their limits: nothing that is computed from them overflows, and no place lies outside."""
    if name == EXPERTS + "period":
        return bool(((array >= experts.SHORTEST) & (array < experts.PAST)).all())
    if name == EXPERTS + "age":
        return bool(((array >= 0) & (array < 1 << 40)).all())
    if name == EXPERTS + "unit":
        return bool(((array > 0) & (array < np.inf)).all())
    most = np.inf if name == EXPERTS + "last" else LARGEST
    least = -LARGEST if name in _SIGNED else 0.0
    unknown = np.isnan(array) if name == _PROFILE else np.zeros(1, dtype=np.bool_)
    if name.endswith(".tails") and not (array.sum(axis=1) > 0.5).all():
        return False
    return bool((unknown | ((array >= least) & (array <= most) & (array < np.inf))).all())
