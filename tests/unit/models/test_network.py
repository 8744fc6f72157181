"""The network of the demand model: what it computes, and which weights it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nicety.models.forecast.demand import DEMAND_FEATURES, METRICS
from nicety.models.forecast.network import Network


def arrays() -> dict[str, NDArray[Any]]:
    """A network that adds nothing to what the fallback answers."""
    made: dict[str, NDArray[Any]] = {name: np.zeros(shape, dtype=np.float32) for name, shape in Network.SHAPES.items()}
    return {**made, "speaks": np.ones(len(METRICS), dtype=np.bool_)}


def test_a_network_is_two_layers_and_a_straight_way_past_them() -> None:
    rng = np.random.default_rng(2)
    made = {name: rng.normal(0, 0.2, shape).astype(np.float32) for name, shape in Network.SHAPES.items()}
    model = Network({**made, "speaks": np.ones(3, dtype=np.bool_)}, "")
    any_ = np.zeros(700, dtype=np.int64)
    x, start = rng.normal(0, 1, (700, len(DEMAND_FEATURES))).astype(np.float32), rng.normal(0, 1, (700, 4)).astype(np.float32)

    def silu(a: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(a / (1 + np.exp(-a)))

    deep = silu(silu(x.astype(float) @ made["hidden1"] + made["bias1"]) @ made["hidden2"] + made["bias2"])
    expected = start + deep @ made["out"] + x.astype(float) @ made["straight"] + made["bias3"]
    assert np.allclose(model.answers(x, start, any_), expected, rtol=1e-4, atol=1e-4)
    at = rng.permutation(700)
    assert np.array_equal(model.answers(x[at], start[at], any_), model.answers(x, start, any_)[at])
    assert np.array_equal(model.answers(x[650:651], start[650:651], any_[:1])[0], model.answers(x, start, any_)[650])


@pytest.mark.parametrize(
    "broken",
    [
        {"hidden1": np.zeros((3, 3), dtype=np.float32)},
        {"out": np.full((32, 4), np.nan, dtype=np.float32)},
        {"bias3": np.zeros(4)},
        {"bias1": np.full(32, 1e7, dtype=np.float32)},
        {"speaks": np.ones(2, dtype=np.bool_)},
        {"speaks": np.ones(3)},
        {"more": np.zeros(3, dtype=np.float32)},
    ],
)
def test_a_model_of_other_dimensions_is_refused(broken: dict[str, NDArray[Any]]) -> None:
    with pytest.raises(ValueError, match=next(iter(broken))):
        Network({**arrays(), **broken}, "")


def test_a_model_tells_of_which_metrics_it_is_to_be_asked() -> None:
    assert Network({**arrays(), "speaks": np.array([True, False, True])}, "").speaks == frozenset({"cpu", "load"})
