"""Fits the demand model with scikit-learn and turns it into the flat arrays that the runtime evaluates. Knows samples, not traces.

One ensemble a quantile, the horizon as a feature; then an offset for each horizon and quantile, so that on calibration time as many
values lie below as the level says (split conformal prediction: Romano, Patterson, Candès 2019, one-sided).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor

from ..models.demand import DEMAND_FEATURES, METRICS, TreeDemand, design
from ..models.features import Floats
from ..models.records import HORIZONS, QUANTILES
from ..models.trees import MAX_MAGNITUDE, Arrays, Trees
from .dataset import DatasetError, Samples, blocks

ROWS = 120_000
"""Rows (origin and horizon) to fit on. On the public traces 60,000 lost 0.6 % against 150,000 (arrivals 0.9 %)."""

TREES, LEAVES, DEPTH, RATE = 32, 16, 5, 0.25
"""Size of an ensemble: what 64 series in 1 ms allow. On the public traces 40 trees of depth 6 gain 0.3 % (arrivals 0.5 %) and take
about twice the time."""

FARTHEST = 20.0
"""Targets beyond so many scales count as that far: one absurd tick must not buy a group a large forecast."""

SHRINK = 50.0
"""Values of a horizon from which its offsets count half."""

LEAST_ROWS = 500
"""Rows below which nothing is fitted."""


def fit_demand(train: Samples, calibrate: Samples, seed: int, jobs: int) -> Arrays:
    """Arrays of a `TreeDemand` that speaks of every metric: who judges it may silence it.

    The same samples and seed give the same arrays. Raises DatasetError if too little moves in them.
    """
    rows, answers = _rows(train, seed)
    if len(rows) < LEAST_ROWS:
        raise DatasetError(
            f"only {len(rows)} rows in which a busy group or pool moves, {LEAST_ROWS} are needed; record longer, while it works"
        )
    # Threads: the fit releases the lock for most of its time, and processes take seconds to load scikit-learn
    fitted = Parallel(n_jobs=min(jobs, len(QUANTILES)), prefer="threads")(
        delayed(_fit)(rows, answers, level, seed) for level in QUANTILES
    )
    arrays = export(fitted)
    Trees(arrays, len(DEMAND_FEATURES))
    plain = {**arrays, "offsets": np.zeros((len(HORIZONS), len(QUANTILES))), "speaks": np.ones(len(METRICS), dtype=np.bool_)}
    return {**plain, "offsets": _offsets(TreeDemand(plain, ""), calibrate)}


def export(fitted: Sequence[HistGradientBoostingRegressor]) -> dict[str, NDArray[np.generic]]:
    """Ensembles of equally many trees as the arrays of `models.trees`.

    scikit-learn has no public view of the trees: `_predictors` and `_baseline_prediction` have been as they are since its 0.21, and
    a test compares predictions to the last bit.
    """
    nodes = [predictor.nodes for model in fitted for (predictor,) in model._predictors]  # noqa: SLF001
    ends = np.cumsum([len(tree) for tree in nodes])
    starts = np.concatenate([[0], ends[:-1]])
    every = np.concatenate(nodes)
    leaf = every["is_leaf"] != 0
    own = np.arange(len(every))
    offset = np.repeat(starts, ends - starts)
    return {
        "feature": np.where(leaf, 0, every["feature_idx"]).astype(np.int32),
        "threshold": np.where(
            leaf, 0.0, np.clip(every["num_threshold"], -MAX_MAGNITUDE, MAX_MAGNITUDE)
        ),  # inf: all but NaN go left
        "missing_left": every["missing_go_to_left"] != 0,
        "left": np.where(leaf, own, every["left"] + offset).astype(np.int32),
        "right": np.where(leaf, own, every["right"] + offset).astype(np.int32),
        "value": np.where(leaf, every["value"], 0.0),
        "roots": starts.reshape(len(fitted), -1).astype(np.int32),
        "start": np.array([float(np.ravel(model._baseline_prediction)[0]) for model in fitted]),  # noqa: SLF001
    }


def _rows(samples: Samples, seed: int) -> tuple[Floats, Floats]:
    """At most `ROWS` demand rows and the answers that would have been right."""
    rows, answers = [np.empty((0, len(DEMAND_FEATURES)))], [np.empty(0)]
    for part in blocks(len(samples.lengths)):
        made = design(samples.windows[part], samples.lengths[part])
        right = made.answers(samples.targets[part]).ravel()
        known = np.isfinite(right)
        rows.append(made.rows.reshape(len(right), -1)[known])
        answers.append(np.clip(right[known], -FARTHEST, FARTHEST))
    every, right = np.concatenate(rows), np.concatenate(answers)
    if len(every) > ROWS:
        chosen = np.sort(np.random.default_rng(seed).choice(len(every), ROWS, replace=False))
        every, right = every[chosen], right[chosen]
    return every, right


def _fit(rows: Floats, answers: Floats, level: float, seed: int) -> HistGradientBoostingRegressor:
    return HistGradientBoostingRegressor(
        loss="quantile",
        quantile=level,
        max_iter=TREES,
        learning_rate=RATE,
        max_leaf_nodes=LEAVES,
        max_depth=DEPTH,
        min_samples_leaf=int(np.clip(len(rows) // 200, 20, 100)),
        max_bins=128,
        early_stopping=False,
        random_state=seed,
    ).fit(rows, answers)


def _offsets(model: TreeDemand, calibrate: Samples) -> Floats:
    """[H, Q] what to add to the answers, in scales, so that they are met as often as their level says."""
    misses = [np.empty((0, len(HORIZONS), len(QUANTILES)))]
    for part in blocks(len(calibrate.lengths)):
        made = design(calibrate.windows[part], calibrate.lengths[part])
        misses.append(made.answers(calibrate.targets[part])[:, :, None] - model.answers(made))
    every = np.concatenate(misses)
    offsets = np.zeros((len(HORIZONS), len(QUANTILES)))
    for h in range(len(HORIZONS)):
        known = every[np.isfinite(every[:, h, 0]), h]
        if len(known):
            trust = len(known) / (len(known) + SHRINK)
            for q, level in enumerate(QUANTILES):
                offsets[h, q] = trust * np.clip(np.quantile(known[:, q], level), -FARTHEST, FARTHEST)
    return offsets
