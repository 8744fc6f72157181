"""What a demand model answers: quantiles of the experts' errors. Knows no model and no row's columns."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ..records import QUANTILES
from .experts import Ints, Singles


class DemandModel(Protocol):
    """What `Forecaster` needs of a model: `Network`, or a replacement."""

    @property
    def name(self) -> str:
        """Short, for people: goes into `Forecast.source`."""
        ...

    def answers(self, made: Singles, start: Singles, metric: Ints, /) -> Singles:
        """[n, Q] quantiles of errors in units of their spread, from rows [n, len(DEMAND_FEATURES)], the fallback's answers [n, Q]
        and the metric of each row's series [n], a place in `METRICS`. Each row is independent."""
        ...


class TrainedModel(DemandModel, Protocol):
    """A demand model that was trained: the network, or a mixture."""

    @property
    def digest(self) -> str:
        """Of its artefact."""
        ...

    @property
    def speaks(self) -> frozenset[str]:
        """The metrics at which it beat the baselines when it was promoted. It must not be used for others."""
        ...


def answer(model: DemandModel, made: Singles, start: Singles, metric: Ints) -> Singles:
    """[H, Q, S] a model's answers, rising, for rows [F, H, S], the fallback's answers [H, Q, S] and the metric of each series [S].
    Raises ValueError if the model's shape is wrong."""
    features, horizons, n = made.shape
    first = np.ascontiguousarray(start.transpose(0, 2, 1)).reshape(horizons * n, len(QUANTILES))
    said = model.answers(made.reshape(features, -1).T, first, np.tile(metric, horizons))
    if said.shape != (horizons * n, len(QUANTILES)):
        raise ValueError(f"answers of shape {said.shape} instead of {(horizons * n, len(QUANTILES))}")
    return np.asarray(np.sort(said.reshape(horizons, n, len(QUANTILES)).transpose(0, 2, 1), axis=1), dtype=np.float32)
