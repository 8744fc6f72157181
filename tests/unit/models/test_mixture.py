"""A mixture is a weighted sum of its members, by metric."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nicety.models.artifact import shipped
from nicety.models.checks import Streamed, check_forecaster
from nicety.models.forecast.demand import DEMAND_FEATURES, METRICS
from nicety.models.forecast.layers import Layers
from nicety.models.forecast.mixture import MOST_MEMBERS, Mixture, mixed, trained
from nicety.models.forecast.network import Network
from nicety.models.forecast.trees import EVERY, LEAF

Arrays = dict[str, NDArray[Any]]


def network(by: float) -> Arrays:
    made: Arrays = {name: np.zeros(shape, dtype=np.float32) for name, shape in Network.SHAPES.items()}
    return {**made, "bias3": np.full(4, by, dtype=np.float32)}


def leaf(by: float) -> Arrays:
    return {
        "feature": np.array([LEAF], dtype=np.int32),
        "threshold": np.zeros(1, dtype=np.float32),
        "left": np.zeros(1, dtype=np.int32),
        "right": np.zeros(1, dtype=np.int32),
        "missing_left": np.zeros(1, dtype=np.bool_),
        "value": np.array([by]),
        "root": np.zeros(1, dtype=np.int32),
        "output": np.array([EVERY], dtype=np.int32),
        "begin": np.zeros(4),
    }


def linear(by: float) -> Arrays:
    weight = np.zeros((len(DEMAND_FEATURES), 4))
    return {"activation": np.zeros(1, dtype=np.int32), "weight0": weight, "bias0": np.full(4, by)}


def three(weights: list[list[float]]) -> Arrays:
    members = [("network", network(1.0)), ("trees", leaf(10.0)), ("layers", linear(0.25))]
    return dict(mixed(members, np.array(weights, dtype=np.float32), [True, False, True]))


def asked(count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.zeros((count, len(DEMAND_FEATURES)), dtype=np.float32), np.full((count, 4), 2.0, dtype=np.float32)


def test_each_metric_has_its_own_weights() -> None:
    model = trained(three([[1, 1, 0], [0, 0.5, 0], [0, 0, 1]]), "ab" * 32)
    assert model.answers(*asked(4), np.array([0, 1, 2, 1]))[:, 0].tolist() == [3.0, 8.0, 2.25, 8.0]
    assert model.speaks == {"cpu", "load"}
    assert model.name == "demand abababab"


def test_an_answer_is_limited() -> None:
    model = Mixture({**three([[0, 1, 1], [1, 1, 1], [1, 1, 1]]), "1-value": np.array([1000.0])}, "")
    assert model.answers(*asked(1), np.zeros(1, dtype=np.int64)).tolist() == [[30.0] * 4]


def test_members_without_weight_are_not_stored_and_a_network_alone_stays_one() -> None:
    arrays = three([[1, 1, 1], [0, 0, 0], [0, 0.5, 0]])
    assert arrays["kinds"].tolist() == [0, 2]
    assert not any("feature" in name for name in arrays)
    alone = mixed([("network", network(1.0)), ("trees", leaf(1.0))], np.array([[1, 1, 1], [0, 0, 0]], dtype=np.float32), [True] * 3)
    assert isinstance(trained(alone, ""), Network)


def test_a_mixture_keeps_the_promises_of_a_forecaster() -> None:
    found = shipped("demand")
    assert found is not None
    own = {name: array for name, array in found.arrays.items() if name != "speaks"}
    rng = np.random.default_rng(1)
    lines = {**linear(0.0), "weight0": rng.normal(0, 0.01, (len(DEMAND_FEATURES), 4))}
    members = [("network", own), ("layers", lines)]
    check_forecaster(Streamed(trained(mixed(members, np.full((2, len(METRICS)), 0.5, dtype=np.float32), [True] * 3), "ab" * 32)))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown kind": ({"kinds": np.array([0, 1, 3], dtype=np.int32)}, "unknown kind"),
    "no members": ({"kinds": np.zeros(0, dtype=np.int32)}, f"1 to {MOST_MEMBERS}"),
    "weights above 1": ({"weights": np.full((3, 3), 1.5, dtype=np.float32)}, "from 0 to 1"),
    "weights that are no numbers": ({"weights": np.full((3, 3), np.nan, dtype=np.float32)}, "from 0 to 1"),
    "weights of another shape": ({"weights": np.ones((2, 3), dtype=np.float32)}, "weights must be"),
    "speaks of another kind": ({"speaks": np.ones(3)}, "speaks must be"),
    "arrays of nobody": ({"7-value": np.zeros(1)}, "belong to no member"),
    "another member's arrays": ({"1-hidden1": np.zeros(1)}, "trees have arrays"),
    "a damaged network": ({"0-bias1": np.zeros(3, dtype=np.float32)}, "bias1 must be"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_mixture_is_refused(name: str) -> None:
    change, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        trained({**three([[1, 1, 0], [0, 0.5, 0], [0, 0, 1]]), **change}, "")


LAYERS: dict[str, tuple[dict[str, Any], str]] = {
    "no layer": ({"weight0": None, "bias0": None}, "there may be"),
    "an unknown activation": ({"activation": np.array([4], dtype=np.int32)}, "activation"),
    "another number of features": ({"weight0": np.zeros((3, 4))}, "layer 0 must be"),
    "another number of quantiles": ({"weight0": np.zeros((len(DEMAND_FEATURES), 3)), "bias0": np.zeros(3)}, "3 quantiles"),
    "single precision": ({"weight0": np.zeros((len(DEMAND_FEATURES), 4), dtype=np.float32)}, "must be float64"),
    "weights that are no numbers": ({"bias0": np.full(4, np.nan)}, "finite"),
    "a layer without a bias": ({"weight1": np.zeros((4, 4))}, "there may be"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_what_are_no_layers_is_refused(name: str) -> None:
    change, message = LAYERS[name]
    arrays = {which: array for which, array in {**linear(0.0), **change}.items() if array is not None}
    with pytest.raises(ValueError, match=message):
        Layers(arrays)
