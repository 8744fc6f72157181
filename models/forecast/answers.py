"""What a demand model answers: quantiles of the experts' errors. Knows no model and no row's columns."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ..records import QUANTILES
from .experts import Singles


class DemandModel(Protocol):
    """What `Forecaster` needs of a model: `Network`, or a replacement."""

    @property
    def name(self) -> str:
        """Short, for people: goes into `Forecast.source`."""
        ...

    def answers(self, made: Singles, start: Singles) -> Singles:
        """[n, Q] quantiles of errors in units of their spread, from rows [n, len(DEMAND_FEATURES)] and the fallback's answers
        [n, Q]. Each row is independent."""
        ...


def answer(model: DemandModel, made: Singles, start: Singles) -> Singles:
    """[H, Q, S] a model's answers, rising, for rows [F, H, S] and the fallback's answers [H, Q, S]. Raises ValueError if the
    model's shape is wrong."""
    features, horizons, n = made.shape
    first = np.ascontiguousarray(start.transpose(0, 2, 1)).reshape(horizons * n, len(QUANTILES))
    said = model.answers(made.reshape(features, -1).T, first)
    if said.shape != (horizons * n, len(QUANTILES)):
        raise ValueError(f"answers of shape {said.shape} instead of {(horizons * n, len(QUANTILES))}")
    return np.asarray(np.sort(said.reshape(horizons, n, len(QUANTILES)).transpose(0, 2, 1), axis=1), dtype=np.float32)
