"""Turns what scikit-learn has fitted into the flat arrays of a demand model: trees, ensembles of them, linear models, perceptrons,
each also behind a StandardScaler. Knows scikit-learn's classes and the arrays, not what they are fitted to.

The trees of HistGradientBoostingRegressor are in private attributes, which scikit-learn may change. The tests hold the arrays to
scikit-learn's own predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.forecast.demand import DEMAND_FEATURES
from ..models.forecast.layers import ACTIVATIONS, MOST_LAYERS, MOST_UNITS
from ..models.forecast.network import Arrays
from ..models.forecast.trees import EVERY, LEAF
from ..models.records import QUANTILES

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scaler:
    """What a StandardScaler does to a row."""

    mean: Vector
    scale: Vector

    def __call__(self, rows: NDArray[Any], feature: NDArray[Any]) -> Vector:
        """The scaled values of these features."""
        return np.asarray((rows.astype(np.float64) - self.mean[feature]) / self.scale[feature])


PLAIN = Scaler(np.zeros(len(DEMAND_FEATURES)), np.ones(len(DEMAND_FEATURES)))


@dataclass(frozen=True, slots=True)
class Grown:
    """The trees of one fitted regressor: what they add up to is its prediction."""

    trees: list[dict[str, NDArray[Any]]]  # arrays as in `FlatTrees`, thresholds in double precision, children from 0
    begin: float
    single: bool  # it compares rows in single precision


def flat(models: Sequence[Any]) -> tuple[str, Arrays] | None:
    """(kind of member, its arrays) of fitted regressors, one for all quantiles or one for each; None: their structure is not
    known, or is larger than a model may be."""
    scalers, inner = zip(*(_unscaled(model) for model in models), strict=True)
    layers = [_layers(model) for model in inner]
    if all(found is not None for found in layers):
        return _joined_layers([found for found in layers if found is not None], scalers)
    grown = [_grown(model) for model in inner]
    if any(found is None for found in grown):
        return None
    return "trees", joined_trees([found for found in grown if found is not None], scalers)


def joined_trees(grown: Sequence[Grown], scalers: Sequence[Scaler]) -> Arrays:
    """The arrays of `FlatTrees`, from one regressor for all quantiles or one for each."""
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in ("feature", "threshold", "left", "right", "missing_left", "value")}
    root, output, at = [], [], 0
    for place, (found, scaler) in enumerate(zip(grown, scalers, strict=True)):
        for tree in found.trees:
            root.append(at)
            output.append(EVERY if len(grown) == 1 else place)
            leaf = tree["feature"] == LEAF
            parts["feature"].append(tree["feature"])
            parts["threshold"].append(_thresholds(tree["threshold"], tree["feature"], scaler, found.single))
            parts["left"].append(np.where(leaf, 0, tree["left"] + at))
            parts["right"].append(np.where(leaf, 0, tree["right"] + at))
            parts["missing_left"].append(tree["missing_left"])
            parts["value"].append(np.where(leaf, tree["value"], 0.0))
            at += len(leaf)
    dtypes = {"feature": np.int32, "threshold": np.float32, "left": np.int32, "right": np.int32, "missing_left": np.bool_}
    begins = [found.begin for found in grown] * (len(QUANTILES) if len(grown) == 1 else 1)
    return {
        **{name: np.concatenate(arrays).astype(dtypes.get(name, np.float64)) for name, arrays in parts.items()},
        "root": np.array(root, dtype=np.int32),
        "output": np.array(output, dtype=np.int32),
        "begin": np.array(begins, dtype=np.float64),
    }


def _unscaled(model: Any) -> tuple[Scaler, Any]:
    """(its scaling, its last step) for a pipeline of a StandardScaler and a regressor; (none, itself) for anything else."""
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    if isinstance(model, Pipeline) and len(model.steps) == 2 and isinstance(model.steps[0][1], StandardScaler):
        found = model.steps[0][1]
        mean = PLAIN.mean if found.mean_ is None or not found.with_mean else found.mean_
        return Scaler(mean, PLAIN.scale if found.scale_ is None else found.scale_), model.steps[1][1]
    return PLAIN, model


# --- linear models and perceptrons ------------------------------------------------------------------------------------------------


def _layers(model: Any) -> tuple[str, list[tuple[Vector, Vector]]] | None:
    """(activation, matrix and bias of each layer) of one output; None if it is neither linear nor a perceptron."""
    from sklearn.linear_model import QuantileRegressor
    from sklearn.linear_model._base import LinearModel
    from sklearn.neural_network import MLPRegressor

    if isinstance(model, MLPRegressor) and model.out_activation_ == "identity" and model.activation in ACTIVATIONS:
        return model.activation, [
            (weight.astype(np.float64), bias.astype(np.float64))
            for weight, bias in zip(model.coefs_, model.intercepts_, strict=True)
        ]
    if isinstance(model, LinearModel | QuantileRegressor) and np.ndim(model.coef_) == 1:
        return "identity", [
            (np.asarray(model.coef_, dtype=np.float64)[:, None], np.atleast_1d(float(np.squeeze(model.intercept_))))
        ]
    return None


def _joined_layers(
    found: Sequence[tuple[str, list[tuple[Vector, Vector]]]], scalers: Sequence[Scaler]
) -> tuple[str, Arrays] | None:
    """One model with an output for each quantile, from one for all or one for each. The scaling goes into the first layer."""
    activations, depths = {activation for activation, _ in found}, {len(layers) for _, layers in found}
    if len(activations) > 1 or len(depths) > 1 or max(depths) > MOST_LAYERS:
        return None
    made: list[tuple[Vector, Vector]] = []
    for layer in range(depths.pop()):
        mine = [layers[layer] for _, layers in found]
        if layer == 0:
            mine = [
                (weight / scaler.scale[:, None], bias - (scaler.mean / scaler.scale) @ weight)
                for (weight, bias), scaler in zip(mine, scalers, strict=True)
            ]
            made.append((np.concatenate([weight for weight, _ in mine], axis=1), np.concatenate([bias for _, bias in mine])))
        else:
            made.append((_blocks([weight for weight, _ in mine]), np.concatenate([bias for _, bias in mine])))
    if len(found) == 1:
        weight, bias = made[-1]
        made[-1] = np.repeat(weight, len(QUANTILES), axis=1), np.repeat(bias, len(QUANTILES))
    if any(len(bias) > MOST_UNITS for _, bias in made):
        return None
    arrays: dict[str, NDArray[Any]] = {"activation": np.array([ACTIVATIONS.index(activations.pop())], dtype=np.int32)}
    for layer, (weight, bias) in enumerate(made):
        arrays |= {f"weight{layer}": np.ascontiguousarray(weight), f"bias{layer}": bias}
    return "layers", arrays


def _blocks(weights: Sequence[Vector]) -> Vector:
    """Matrices side by side, none of which sees another's input."""
    made = np.zeros((sum(len(weight) for weight in weights), sum(weight.shape[1] for weight in weights)))
    row = column = 0
    for weight in weights:
        made[row : row + len(weight), column : column + weight.shape[1]] = weight
        row, column = row + len(weight), column + weight.shape[1]
    return made


# --- trees ------------------------------------------------------------------------------------------------------------------------


def _grown(model: Any) -> Grown | None:
    """The trees of a fitted regressor; None if it has none, or others than these."""
    from sklearn import ensemble, tree

    if isinstance(model, ensemble.HistGradientBoostingRegressor):
        if getattr(model, "is_categorical_", None) is not None or model.loss not in ("squared_error", "absolute_error", "quantile"):
            return None
        private = vars(model)
        trees = [_of_nodes(predictor.nodes) for step in private["_predictors"] for predictor in step]
        return Grown(trees, float(np.squeeze(private["_baseline_prediction"])), False)
    if isinstance(model, ensemble.GradientBoostingRegressor):
        if getattr(model.init_, "constant_", None) is None and model.init != "zero":
            return None
        begin = 0.0 if model.init == "zero" else float(np.squeeze(model.init_.constant_))
        return Grown([_of_tree(each.tree_, model.learning_rate) for each in model.estimators_[:, 0]], begin, True)
    if isinstance(model, ensemble.RandomForestRegressor | ensemble.ExtraTreesRegressor) and model.n_outputs_ == 1:
        return Grown([_of_tree(each.tree_, 1 / len(model.estimators_)) for each in model.estimators_], 0.0, True)
    if isinstance(model, tree.DecisionTreeRegressor) and model.n_outputs_ == 1:
        return Grown([_of_tree(model.tree_, 1.0)], 0.0, True)
    return None


def _of_nodes(nodes: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """The arrays of a tree of HistGradientBoostingRegressor."""
    return {
        "feature": np.where(nodes["is_leaf"] > 0, LEAF, nodes["feature_idx"].astype(np.int64)),
        "threshold": nodes["num_threshold"],
        "left": nodes["left"].astype(np.int64),
        "right": nodes["right"].astype(np.int64),
        "missing_left": nodes["missing_go_to_left"] > 0,
        "value": nodes["value"],
    }


def _of_tree(tree: Any, factor: float) -> dict[str, NDArray[Any]]:
    """The arrays of a tree of any other class."""
    return {
        "feature": np.where(tree.children_left < 0, LEAF, tree.feature),
        "threshold": tree.threshold,
        "left": tree.children_left,
        "right": tree.children_right,
        "missing_left": np.asarray(tree.missing_go_to_left) > 0,
        "value": tree.value[:, 0, 0] * factor,
    }


def _thresholds(thresholds: Vector, features: NDArray[Any], scaler: Scaler, single: bool) -> NDArray[np.float32]:
    """The largest single-precision value of each node that goes left. `single`: scaled values are rounded before they are compared.

    Scaling and rounding never change the order of two values. So the search begins near the answer and moves by single steps.
    """
    most = np.finfo(np.float32).max
    safe = np.where(features == LEAF, 0, features)

    def goes_left(values: NDArray[np.float32]) -> NDArray[np.bool_]:
        seen = scaler(values, safe)
        with np.errstate(over="ignore"):
            return np.asarray((seen.astype(np.float32) if single else seen) <= thresholds)

    with np.errstate(over="ignore"):
        value = np.clip(thresholds * scaler.scale[safe] + scaler.mean[safe], -most, most).astype(np.float32)
    inner = features != LEAF
    for _ in range(64):
        wrong = inner & ~goes_left(value) & (value > -most)
        if not wrong.any():
            break
        value = np.where(wrong, np.nextafter(value, np.float32(-np.inf)), value)
    for _ in range(64):
        with np.errstate(over="ignore"):
            above = np.minimum(np.nextafter(value, np.float32(np.inf)), np.float32(most))
        more = inner & goes_left(above) & (above > value)
        if not more.any():
            break
        value = np.where(more, above, value)
    return np.where(inner, value, np.float32(0)).astype(np.float32)
