"""The contest of candidates for the demand model: fits boosting, linear models and the user's own regressors beside the network,
and finds what share of the model each of them has. Knows rows, not traces or people.

A candidate becomes a member: flat arrays that numpy evaluates. If its structure cannot be exported, or costs a tick too much, small
trees learn its answers, and this copy is what takes part. Shares are found by forward selection (Caruana et al. 2004, "Ensemble
selection from libraries of models") on time that was kept back.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.forecast.demand import METRICS
from ..models.forecast.experts import Floats, Singles
from ..models.forecast.layers import Layers
from ..models.forecast.mixture import MOST_MEMBERS, Member, member
from ..models.forecast.network import Arrays
from ..models.forecast.trees import LEAF, SMALL
from ..models.records import HORIZONS, QUANTILES
from ..scheduler.read.text import printable
from .crew import Crew
from .fit import FitRows, network_of, row_loss
from .flatten import flat
from .regressors import RegressorError, made, takes_quantile

NETWORK, BOOSTING, LINEAR, SHIPPED = "network", "boosting", "linear quantiles", "shipped"
"""The candidates that always take part. Boosting corrects the network; all others stand alone. The shipped model is one of them, so
that a metric of which this machine taught too little keeps it."""

BOOSTING_ROWS, LINEAR_ROWS, OWN_ROWS = 50_000, 1000, 20_000
"""Maximum rows that a candidate is fitted to, drawn by weight. Chosen: linear programs take time with the square of the rows."""

BOOSTED = {
    "max_iter": 12,
    "learning_rate": 0.15,
    "max_leaf_nodes": 8,
    "min_samples_leaf": 30,
    "max_bins": 128,
    "early_stopping": False,
}
"""The trees of boosting, for each quantile. Chosen: as many as a tick can pay for; a hundred of fifteen leaves gain less than 1 %
on the public traces."""

COPIED = {
    "max_iter": 8,
    "learning_rate": 0.3,
    "max_leaf_nodes": SMALL,
    "min_samples_leaf": 20,
    "max_bins": 128,
    "early_stopping": False,
}
"""The trees that copy a regressor, for each of its outputs (chosen: as many as a tick can pay for)."""

MOST_TREE_NODES, MOST_WEIGHTS = 500, 8000
"""Maximum nodes of a member of trees, each of at most SMALL leaves, and weights of one of layers. Chosen: at most twice what the
network costs. `python -m benchmarks.forecast.model --only trees` measures it."""

RESIDUALS = 0.25
"""Share of its rows on which the errors of a regressor that predicts one value are measured (chosen)."""

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Shares that are tried for a member."""

LONGEST_REMARK = 300
"""Maximum characters of what a regressor's error says (chosen)."""

WORTH = 0.003
"""A member takes part where it lowers the loss by this share. Chosen: less is not worth its CPU time."""

LEAST_RIVALRY = 100
"""With fewer rows of a metric in a part of the kept back time, its model is the network (chosen)."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A candidate after its fit."""

    name: str
    kind: str  # as in `mixture.KINDS`; "": it failed
    arrays: Arrays
    remark: str = ""  # that it was copied, or why it failed

    @property
    def alone(self) -> bool:
        """Whether it stands alone, instead of correcting the network."""
        return self.name != BOOSTING


def fit_all(names: Sequence[str], rows: FitRows, seed: int, network: Arrays, crew: Crew) -> list[Candidate]:
    """Fit every candidate but the network, side by side. `network`: what boosting corrects. The result does not depend on the
    crew."""
    return list(crew.each(_fitted, ((name, rows, seed, network) for name in names)))


def _fitted(name: str, rows: FitRows, seed: int, network: Arrays) -> Candidate:
    """One candidate. One that fails says why."""
    rng = np.random.default_rng(seed)
    try:
        if name == BOOSTING:
            some = _drawn(rows, BOOSTING_ROWS, rng)
            models = _boosting(some, seed, network_of(network).answers(some.made, some.start, some.metric))
            found, remark = flat(models), ""
        elif name == LINEAR:
            found, remark = flat(_linear(_drawn(rows, LINEAR_ROWS, rng))), ""
        else:
            found, remark = _own(name, _drawn(rows, OWN_ROWS, rng), seed)
        if found is None:
            raise ValueError("its structure is not known to this version")
        member(*found)  # raises ValueError for what a model may not have
    except RegressorError as error:
        return Candidate(name, "", {}, str(error))
    except Exception as error:  # the user's code, and whatever it makes scikit-learn do
        return Candidate(name, "", {}, printable(f"failed: {type(error).__name__}: {error}")[:LONGEST_REMARK])
    return Candidate(name, *found, remark)


def _drawn(rows: FitRows, most: int, rng: np.random.Generator) -> FitRows:
    """At most so many rows, drawn by weight with repetition, so that a fit needs no weights."""
    count = min(most, len(rows.made))
    return rows.part(np.sort(rng.choice(len(rows.made), count, p=rows.weights / rows.weights.sum(dtype=np.float64))))


def _boosting(rows: FitRows, seed: int, said: Singles) -> list[Any]:
    """A regressor for each quantile that corrects what was said."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    return [
        HistGradientBoostingRegressor(loss="quantile", quantile=level, random_state=seed, **BOOSTED).fit(
            rows.made.astype(np.float64), (rows.answers - said[:, q]).astype(np.float64)
        )
        for q, level in enumerate(QUANTILES)
    ]


def _linear(rows: FitRows) -> list[Any]:
    """A linear regressor for each quantile (Koenker, Bassett 1978)."""
    from sklearn.linear_model import QuantileRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return [
        make_pipeline(StandardScaler(), QuantileRegressor(quantile=level, alpha=1e-3)).fit(
            rows.made.astype(np.float64), (rows.answers - rows.start[:, q]).astype(np.float64)
        )
        for q, level in enumerate(QUANTILES)
    ]


# --- the user's own ---------------------------------------------------------------------------------------------------------------


def _own(name: str, rows: FitRows, seed: int) -> tuple[tuple[str, Arrays] | None, str]:
    """((kind, arrays) of a regressor that the user named, a remark). Raises RegressorError, and whatever the regressor does."""
    seen, target = rows.made.astype(np.float64), rows.answers.astype(np.float64)
    if takes_quantile(name):
        models = [made(name, level).fit(seen, target - rows.start[:, q]) for q, level in enumerate(QUANTILES)]
        found = flat(models)
        return (found, "") if found is not None and _affordable(*found) else _copied(models, rows, seed)
    held = np.random.default_rng(seed).random(len(seen)) < RESIDUALS
    model = made(name, QUANTILES[0]).fit(seen[~held], target[~held] - rows.start[~held, 0])
    found, remark = flat([model]), ""
    if found is None or not _affordable(*found):
        found, remark = _copied([model], rows, seed)
    said = more_of(found, rows.made[held])
    rest = target[held][:, None] - rows.start[held] - said
    return _shifted(found, np.array([np.quantile(rest[:, q], level) for q, level in enumerate(QUANTILES)])), remark


def _affordable(kind: str, arrays: Arrays) -> bool:
    """Whether a tick can pay for a member."""
    if kind == "layers":
        return Layers(arrays).weights <= MOST_WEIGHTS
    leaf = np.asarray(arrays["feature"]) == LEAF
    leaves = np.add.reduceat(leaf.astype(np.int64), np.asarray(arrays["root"]).astype(np.int64))
    return int(leaves.max()) <= SMALL and int(np.count_nonzero(~leaf)) <= MOST_TREE_NODES


def _copied(models: Sequence[Any], rows: FitRows, seed: int) -> tuple[tuple[str, Arrays], str]:
    """Small trees that have learned what the models answer on these rows, and how well."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    seen = rows.made.astype(np.float64)
    said = [np.asarray(model.predict(seen), dtype=np.float64).reshape(len(seen)) for model in models]
    copies = [HistGradientBoostingRegressor(random_state=seed, **COPIED).fit(seen, each) for each in said]
    left = np.mean([np.mean((copy.predict(seen) - each) ** 2) for copy, each in zip(copies, said, strict=True)])
    share = 1 - left / max(float(np.mean([np.var(each) for each in said])), 1e-30)
    found = flat(copies)
    assert found is not None  # HistGradientBoostingRegressor is known
    return found, f"copied by {len(copies) * COPIED['max_iter']} small trees, which have {share:.0%} of the variance of its answers"


def _shifted(found: tuple[str, Arrays], by: Floats) -> tuple[str, Arrays]:
    """A member whose quantiles are moved by these amounts."""
    kind, arrays = found
    name = "begin" if kind == "trees" else f"bias{max(int(each[4:]) for each in arrays if each.startswith('bias'))}"
    return kind, {**arrays, name: arrays[name] + by}


def more_of(found: tuple[str, Arrays], made_: Singles) -> Floats:
    """[n, Q] what a member adds for rows."""
    return np.asarray(member(*found).more(made_), dtype=np.float64)


# --- shares -----------------------------------------------------------------------------------------------------------------------


def shares(candidates: Sequence[Candidate], network: Arrays, later: Sequence[FitRows]) -> NDArray[np.float32]:
    """[1 + candidates, METRICS] the weights of the network and of each candidate, found on the parts of the kept back time.

    Where a metric has too few rows there, or would need more than `MOST_MEMBERS`, the network speaks alone."""
    weights = np.zeros((1 + len(candidates), len(METRICS)), dtype=np.float32)
    weights[0] = 1
    usable = [(1 + place, each) for place, each in enumerate(candidates) if each.kind]
    for metric in range(len(METRICS)):
        parts = [rows.part(np.flatnonzero(rows.metric == metric)) for rows in later]
        if min(len(rows.made) for rows in parts) >= LEAST_RIVALRY and usable:
            weights[:, metric] = _selected(usable, network, parts, len(weights))
    for _, place in sorted((float(weights[place].max()), place) for place in range(1, len(weights)))[: -(MOST_MEMBERS - 1)]:
        lost = weights[place] > 0
        weights[:, lost], weights[0, lost] = 0, 1
    return weights


def _selected(
    usable: Sequence[tuple[int, Candidate]], network: Arrays, parts: Sequence[FitRows], count: int
) -> NDArray[np.float32]:
    """The weights [count] of one metric: a member is added, at the best of SHARES, as long as that is worth it."""
    best = np.zeros(count, dtype=np.float32)
    best[0] = 1
    adds = [[np.asarray(network_of(network).more(rows.made), dtype=np.float64) for rows in parts]]
    adds += [[more_of((each.kind, each.arrays), rows.made) for rows in parts] for _, each in usable]
    places = [0, *(place for place, _ in usable)]

    def loss(weights: NDArray[np.float32]) -> Floats:
        sums = [sum(weights[place] * add[part] for place, add in zip(places, adds, strict=True)) for part in range(len(parts))]
        return np.array([_loss(rows, rows.start + total) for rows, total in zip(parts, sums, strict=True)])

    first = np.maximum(loss(best), 1e-30)
    now = 1.0
    for _ in usable:
        tries = [_with(best, place, share, each.alone) for place, each in usable if best[place] == 0 for share in SHARES]
        if not tries:
            break
        ratios = [float((loss(weights) / first).max()) for weights in tries]
        least = int(np.argmin(ratios))
        if ratios[least] > now * (1 - WORTH):
            break
        now, best = ratios[least], tries[least]
    return best


def _with(weights: NDArray[np.float32], place: int, share: float, alone: bool) -> NDArray[np.float32]:
    """The weights with a member more. One that stands alone takes its share from all others."""
    changed = (weights * np.float32(1 - share) if alone else weights).astype(np.float32)
    changed[place] = share
    return changed


def _loss(rows: FitRows, said: Floats) -> float:
    return row_loss(_Said(said), rows)


@dataclass(frozen=True, slots=True)
class _Said:
    """What a mixture answered, as a model."""

    values: Floats
    name: str = "tried"

    def answers(self, _made: Singles, _start: Singles, _metric: NDArray[np.int64], /) -> Singles:
        return self.values.astype(np.float32)


def milliseconds(models: Sequence[Member], made_: Singles) -> float:
    """CPU milliseconds of members for a tick of 1,000 series, measured on these rows."""
    rows = made_[np.arange(1000 * len(HORIZONS)) % len(made_)]
    spent = []
    for _ in range(3):
        begin = time.thread_time()
        for model in models:
            model.more(rows)
        spent.append(1e3 * (time.thread_time() - begin))
    return min(spent)
