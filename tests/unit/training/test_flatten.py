"""Flat arrays say what scikit-learn says, to 1e-12, for 100,000 rows with ties and unknown values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)
from sklearn.linear_model import Lasso, LinearRegression, QuantileRegressor, Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor, ExtraTreeRegressor

from nicety.models.forecast.demand import DEMAND_FEATURES
from nicety.models.forecast.experts import Floats, Singles
from nicety.models.forecast.mixture import member
from nicety.training.flatten import flat

FEATURES = len(DEMAND_FEATURES)


def rows(count: int, seed: int, missing: bool) -> Singles:
    """Rows whose values tie with one another, and with the thresholds in the middle between them."""
    rng = np.random.default_rng(seed)
    made = rng.normal(0, 2, (count, FEATURES))
    made[:, ::2] = np.round(made[:, ::2] * 4) / 8  # ties, and thresholds that are values
    if missing:
        made[rng.random(made.shape) < 0.05] = np.nan
    return made.astype(np.float32)


def target(seen: Singles) -> Floats:
    known = np.nan_to_num(seen.astype(np.float64))
    return np.asarray(np.sin(known[:, 0]) + known[:, 1] * known[:, 2] + np.isnan(seen[:, 0]) + 0.1 * known[:, 5])


def evaluated(kind: str, arrays: Any, seen: Singles) -> Floats:
    return np.asarray(member(kind, arrays).more(seen), dtype=np.float64)


TREES: dict[str, Callable[[], Any]] = {
    "boosting": lambda: HistGradientBoostingRegressor(loss="quantile", quantile=0.9, max_iter=12, max_leaf_nodes=8),
    "large boosting": lambda: HistGradientBoostingRegressor(max_iter=10, max_leaf_nodes=31, min_samples_leaf=5),
    "a forest": lambda: RandomForestRegressor(6, max_leaf_nodes=40, random_state=1),
    "a forest of small trees": lambda: RandomForestRegressor(8, max_leaf_nodes=16, random_state=1),
    "extra trees": lambda: ExtraTreesRegressor(6, max_depth=9, random_state=1),
    "a tree": lambda: DecisionTreeRegressor(random_state=1),
    "an extra tree": lambda: ExtraTreeRegressor(max_depth=5, random_state=1),
    "a single leaf": lambda: DecisionTreeRegressor(max_depth=1, min_impurity_decrease=1e9),
}


@pytest.mark.parametrize("scaled", [False, True], ids=["", "scaled"])
@pytest.mark.parametrize("name", TREES)
def test_flat_trees_say_what_scikit_learn_says(name: str, scaled: bool) -> None:
    seen = rows(1500, 1, missing=True)
    model = make_pipeline(StandardScaler(), TREES[name]()) if scaled else TREES[name]()
    model.fit(seen.astype(np.float64), target(seen))
    found = flat([model])
    assert found is not None
    assert found[0] == "trees"
    asked = np.concatenate([rows(99_000, 2, missing=True), seen[:1000]])
    expected = model.predict(asked.astype(np.float64))
    said = evaluated(*found, asked)
    assert said.shape == (100_000, 4)
    assert np.abs(said - expected[:, None]).max() <= 1e-12


OTHERS: dict[str, Callable[[], Any]] = {
    "gradient boosting": lambda: GradientBoostingRegressor(n_estimators=8, loss="quantile", alpha=0.9, random_state=1),
    "gradient boosting from zero": lambda: GradientBoostingRegressor(n_estimators=8, init="zero", random_state=1),
    "linear": LinearRegression,
    "ridge": Ridge,
    "lasso": lambda: Lasso(alpha=0.01),
    "quantile": lambda: QuantileRegressor(quantile=0.9, alpha=0.01),
    "perceptron": lambda: MLPRegressor(hidden_layer_sizes=(20, 10), max_iter=20, random_state=1),
    "perceptron with tanh": lambda: MLPRegressor(hidden_layer_sizes=(12,), activation="tanh", max_iter=20, random_state=1),
    "perceptron with logistic": lambda: MLPRegressor(hidden_layer_sizes=(12,), activation="logistic", max_iter=20, random_state=1),
    "scaled ridge": lambda: make_pipeline(StandardScaler(), Ridge()),
    "scaled perceptron": lambda: make_pipeline(
        StandardScaler(), MLPRegressor(hidden_layer_sizes=(12,), max_iter=20, random_state=1)
    ),
    "scaled, mean kept": lambda: make_pipeline(StandardScaler(with_mean=False), Ridge()),
    "not scaled at all": lambda: make_pipeline(StandardScaler(with_mean=False, with_std=False), Ridge()),
}


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("name", OTHERS)
def test_regressors_without_unknown_values_too(name: str) -> None:
    seen = rows(600, 3, missing=False)
    model = OTHERS[name]().fit(seen.astype(np.float64), target(seen))
    found = flat([model])
    assert found is not None
    asked = rows(100_000, 4, missing=False)
    said = evaluated(*found, asked)
    assert np.abs(said - model.predict(asked.astype(np.float64))[:, None]).max() <= 1e-12


@pytest.mark.parametrize(
    "make", [lambda q: HistGradientBoostingRegressor(max_iter=4, loss="quantile", quantile=q), lambda q: Ridge(q)]
)
def test_a_regressor_for_each_quantile_is_one_model(make: Callable[[float], Any]) -> None:
    seen = rows(600, 5, missing=False)
    models = [make(q).fit(seen, target(seen)) for q in (0.5, 0.9, 0.95, 0.99)]
    found = flat(models)
    assert found is not None
    expected = np.stack([model.predict(seen.astype(np.float64)) for model in models], axis=1)
    assert np.abs(evaluated(*found, seen) - expected).max() <= 1e-12


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_perceptrons_for_each_quantile_do_not_see_one_another() -> None:
    seen = rows(300, 6, missing=False)
    models = [
        MLPRegressor(hidden_layer_sizes=(5, 4), max_iter=20, random_state=place).fit(seen, target(seen)) for place in range(4)
    ]
    found = flat(models)
    assert found is not None
    expected = np.stack([model.predict(seen.astype(np.float64)) for model in models], axis=1)
    assert np.abs(evaluated(*found, seen) - expected).max() <= 1e-12


def test_what_has_no_known_structure_is_not_flattened() -> None:
    seen = rows(100, 7, missing=False)
    assert flat([KNeighborsRegressor(3).fit(seen, target(seen))]) is None
    categories = HistGradientBoostingRegressor(max_iter=2, categorical_features=[0]).fit(np.abs(np.round(seen)), target(seen))
    assert flat([categories]) is None
