"""The network of the demand model: evaluates trained weights. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..records import QUANTILES
from .demand import DEMAND_FEATURES, METRICS
from .experts import Floats, Ints, Singles

Arrays = Mapping[str, NDArray[Any]]

HIDDEN = 32
"""Units in each of the two hidden layers: as many as 1,000 groups in 20 ms allow. `python -m benchmarks.forecast.model --only cost`
measures that."""

FARTHEST = 30.0
"""Limit of an answer, in spreads (chosen)."""

BLOCK = 320
"""Rows that are evaluated together: enough that BLAS does the work, few enough that its working memory stays in the cache
(chosen)."""


def silu(x: Singles) -> Singles:
    """x times its logistic function (Elfwing, Uchibe, Doya 2017)."""
    made = np.maximum(x, np.float32(-60))
    np.negative(made, out=made)
    np.exp(made, out=made)
    made += 1
    return np.asarray(np.divide(x, made, out=made))


class Network:
    """The trained model: two hidden layers and a linear path past them, added to the fallback's answers.

    `speaks`: the metrics at which it beat the baselines when it was promoted. It must not be used for others.
    """

    SHAPES: Mapping[str, tuple[int, ...]] = {
        "hidden1": (len(DEMAND_FEATURES), HIDDEN),
        "bias1": (HIDDEN,),
        "hidden2": (HIDDEN, HIDDEN),
        "bias2": (HIDDEN,),
        "out": (HIDDEN, len(QUANTILES)),
        "straight": (len(DEMAND_FEATURES), len(QUANTILES)),
        "bias3": (len(QUANTILES),),
    }

    def __init__(self, arrays: Arrays, digest: str) -> None:
        """`arrays`: float32 of `SHAPES`, and `speaks` bool [len(METRICS)]. Raises ValueError for anything else."""
        wanted: dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
        wanted = {name: (shape, np.dtype(np.float32)) for name, shape in self.SHAPES.items()}
        wanted["speaks"] = (len(METRICS),), np.dtype(np.bool_)
        if set(arrays) != set(wanted):
            raise ValueError(f"it has arrays {', '.join(sorted(arrays))} instead of {', '.join(sorted(wanted))}")
        for name, (shape, dtype) in wanted.items():
            array = arrays[name]
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(f"{name} must be {dtype} {shape}, not {array.dtype} {array.shape}")
            if not (np.abs(array) <= 1e6).all():
                raise ValueError(f"{name} is not finite, or absurdly large")
        self._arrays = {name: arrays[name] for name in self.SHAPES}
        self._weights = {name: array.astype(np.float64) for name, array in self._arrays.items() if array.ndim == 2}
        self.speaks = frozenset(metric for metric, good in zip(METRICS, arrays["speaks"].tolist(), strict=True) if good)
        self.digest = digest

    @property
    def name(self) -> str:
        """As in `Forecast.source`."""
        return f"demand {self.digest[:8]}"

    def answers(self, made: Singles, start: Singles, _metric: Ints) -> Singles:
        """See `DemandModel`."""
        return np.asarray(np.clip(self.more(made) + start, -FARTHEST, FARTHEST))

    def more(self, made: Singles) -> Singles:
        """[n, Q] by how much the answers for rows [n, F] differ from the fallback's."""
        said = np.empty((len(made), len(QUANTILES)), dtype=np.float32)
        for first in range(0, len(made), BLOCK):
            part = made[first : first + BLOCK].astype(np.float64)
            hidden = silu(self._times(part, "hidden1") + self._arrays["bias1"])
            deep = silu(self._times(hidden.astype(np.float64), "hidden2") + self._arrays["bias2"])
            straight = self._times(part, "straight") + self._arrays["bias3"]
            said[first : first + BLOCK] = self._times(deep.astype(np.float64), "out") + straight
        return said

    def _times(self, rows: Floats, name: str) -> Singles:
        """A product in double precision, rounded to single. BLAS sums in an order that depends on its kernel and on a row's
        position; in single precision that would show in the last bits."""
        return (rows @ self._weights[name]).astype(np.float32)
