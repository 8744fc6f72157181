"""Layers of a demand model: a linear model, or a multi-layer perceptron as scikit-learn fits it. Evaluates weights. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..records import QUANTILES
from .demand import DEMAND_FEATURES
from .experts import Floats, Singles

MOST_LAYERS, MOST_UNITS = 4, 512
"""Maximum layers of weights, and units of a hidden one (chosen)."""

ACTIVATIONS = ("identity", "relu", "tanh", "logistic")
"""What follows each hidden layer, by scikit-learn's names."""

BLOCK = 320
"""Rows that are evaluated together (chosen, as for the network)."""


class Layers:
    """Matrices with an activation between them. With one matrix it is a linear model."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """`arrays`: `weight0`, `bias0`, ... float64, the first [F, units] and the last [units, Q]; `activation` int32 [1], a place
        in ACTIVATIONS. Raises ValueError for any others."""
        count = (len(arrays) - 1) // 2
        names = {"activation", *(f"{kind}{layer}" for kind in ("weight", "bias") for layer in range(count))}
        if set(arrays) != names or not 1 <= count <= MOST_LAYERS:
            raise ValueError(f"layers have arrays {', '.join(sorted(arrays))}; there may be 1 to {MOST_LAYERS} layers")
        activation = arrays["activation"]
        if activation.shape != (1,) or activation.dtype != np.int32 or not 0 <= int(activation[0]) < len(ACTIVATIONS):
            raise ValueError("layers have an unknown activation")
        units = len(DEMAND_FEATURES)
        for layer in range(count):
            weight, bias = arrays[f"weight{layer}"], arrays[f"bias{layer}"]
            wide = bias.shape[0] if bias.ndim == 1 else 0
            if (
                weight.shape != (units, wide)
                or weight.dtype != np.float64
                or bias.dtype != np.float64
                or not 1 <= wide <= MOST_UNITS
            ):
                raise ValueError(f"layer {layer} must be float64 ({units}, units), not {weight.dtype} {weight.shape}")
            if not ((np.abs(weight) <= 1e6).all() and (np.abs(bias) <= 1e6).all()):
                raise ValueError(f"layer {layer} is not finite, or absurdly large")
            units = wide
        if units != len(QUANTILES):
            raise ValueError(f"the last layer gives {units} quantiles instead of {len(QUANTILES)}")
        self._layers = [(arrays[f"weight{layer}"], arrays[f"bias{layer}"]) for layer in range(count)]
        self._activation = ACTIVATIONS[int(activation[0])]

    @property
    def weights(self) -> int:
        """Numbers in the matrices: what an evaluation costs."""
        return sum(weight.size for weight, _ in self._layers)

    def more(self, made: Singles) -> Floats:
        """[n, Q] what the layers say of rows [n, F]."""
        said = np.empty((len(made), len(QUANTILES)))
        for first in range(0, len(made), BLOCK):
            units = made[first : first + BLOCK].astype(np.float64)
            for weight, bias in self._layers[:-1]:
                units = _activated(units @ weight + bias, self._activation)
            weight, bias = self._layers[-1]
            said[first : first + BLOCK] = units @ weight + bias
        return said


def _activated(units: Floats, activation: str) -> Floats:
    if activation == "relu":
        return np.maximum(units, 0)
    if activation == "tanh":
        return np.tanh(units)
    if activation == "logistic":
        return np.asarray(1 / (1 + np.exp(-np.maximum(units, -700))))
    return units
