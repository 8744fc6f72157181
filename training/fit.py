"""Fits the demand model: a small neural network that corrects the quantiles of the experts' own errors, by gradient descent on the
pinball loss. It starts from the shipped model and goes part of the way to the best fit to the samples. How far is found by held-out
time. Knows samples, not traces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.forecast.answers import DemandModel
from ..models.forecast.demand import DEMAND_FEATURES, METRICS
from ..models.forecast.experts import Floats, Ints, Singles
from ..models.forecast.network import FARTHEST, HIDDEN, Arrays, Network
from ..models.records import HORIZONS, QUANTILES
from .crew import Crew
from .dataset import DatasetError
from .quotas import factors
from .stream import Samples

ROWS = 250_000
"""Maximum rows (origin and horizon) in the fit, drawn from all. On the public traces twice as many gained nothing
(docs/decisions/0007-streaming-experts-and-a-network.md)."""

HEAVY = 0.8
"""Share of the rows drawn by weight. Chosen: in many series a few rows carry the loss, and each of them should be seen often."""

LEAST_ROWS = 500
"""With fewer rows nothing is fitted (chosen)."""

BATCH = 1024
"""Rows in a step (chosen)."""

DROPOUT = 0.1
"""Share of inputs that a step drops (Srivastava et al. 2014)."""

Progress = Callable[[int, int], bool]
"""Called with (steps done, steps in all); false ends the fit early, with what there is."""


@dataclass(frozen=True, slots=True)
class Descent:
    """A descent: number of steps, step size, and strength of the pull back to the first weights."""

    steps: int
    rate: float
    pull: float


FRESH = Descent(4000, 3e-3, 0.3)
"""The descent without a model to start from. The pull to 0 is decoupled weight decay (Loshchilov, Hutter 2017). On the public
traces a third of it lost 0.3 %, three times as much lost 2 %."""

ONWARD = Descent(600, 5e-4, 0.3)
"""The shortest descent from a model trained on other machines. Why a few small steps:
docs/decisions/0007-streaming-experts-and-a-network.md. The figures are chosen."""

PART = 0.15
"""How far to go from such a model to the result of the descent where no time can be held out, on a straight line between the
weights (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models"). Chosen: with little history a short way is safe."""


@dataclass(frozen=True, slots=True)
class Way:
    """How far to go from the model to start from: a descent, and the part of the way to its result."""

    course: Descent
    part: float

    def __str__(self) -> str:
        return f"{self.part:.0%} of the way of {self.course.steps} steps"


NEAR = Way(ONWARD, PART)
"""The way where no time can be held out to find one."""

COURSES: Mapping[Descent, int] = MappingProxyType({ONWARD: 0, Descent(2000, 1e-3, 0.3): 10_000, Descent(4000, 2e-3, 0.3): 20_000})
PARTS = (0.15, 0.3, 0.6, 1.0)
"""The ways that are tried, and the rows from which on a descent is. Chosen on the public traces: sets with histories of thousands
of values gain 3 to 4 % by the longest descent, those of a few hundred lose as much by it, and few rows are learned by heart."""

HELD_BACK, BLOCKS = 0.25, 5
"""Share of the samples, the newest, that are kept back to compare ways, and parts of that time. What is gained by going far shrinks
with the time since the training, so the worse of the last two parts decides: on the public traces Nezha's pods gain 29 % in the
first part by the longest descent and lose 5 % in the last one (chosen)."""

LEAST_TRIED = 100
"""With fewer rows in one of these parts no way is looked for (chosen)."""

TRIED_ROWS = ROWS // 2
"""Maximum rows that ways are tried on. Chosen: half are enough to compare."""


@dataclass(frozen=True, slots=True)
class FitRows:
    """What the network is fitted to: one row for each origin and horizon with an answer."""

    made: Singles  # [n, F]
    start: Singles  # [n, Q] the fallback's answers
    answers: Singles  # [n]
    weights: Singles  # [n]
    metric: Ints  # [n] as in `Samples`

    def part(self, chosen: Ints) -> FitRows:
        """Some of the rows; a row may be chosen more than once."""
        return FitRows(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


def fit_demand(
    train: Samples,
    sets: Sequence[str],
    seed: int,
    base: Arrays | None,
    progress: Progress = lambda _done, _total: True,
    owners: Sequence[str] = (),
    way: Way = NEAR,
) -> Arrays:
    """Arrays of a `Network` that speaks for every metric; the judge may silence it.

    `sets`: the set of each origin, such as its metric; all sets count the same. `base`: the model to start from, if any. `owners`:
    of each origin, none of whom has more than its quota of a set; (): all are the system's. `way`: how far to go from `base`. The
    same arguments give the same arrays. Raises DatasetError if too little moves in the samples.
    """
    rows = training_rows(train, sets, seed, owners)
    if len(rows.made) < LEAST_ROWS:
        raise DatasetError(
            f"only {len(rows.made)} rows in which the load of a group or pool changes, but {LEAST_ROWS} are needed; record longer, "
            "while the machine works"
        )
    weights = descend(rows, FRESH if base is None else way.course, seed, base, progress)
    if base is not None:
        weights = towards(base, weights, way.part)
    return {**weights, "speaks": np.ones(len(METRICS), dtype=np.bool_)}


def towards(base: Arrays, weights: Arrays, part: float) -> dict[str, NDArray[np.float32]]:
    """The weights of a network between two others: at 0 the first, at 1 the second."""
    return {name: ((1 - part) * base[name] + part * weights[name]).astype(np.float32) for name in Network.SHAPES}


@dataclass(frozen=True, slots=True)
class Trial:
    """What was learned about the way from samples whose newest part was kept back."""

    way: Way
    network: Arrays  # after that way, fitted to the earlier rows
    earlier: FitRows
    later: tuple[FitRows, ...]  # the parts of the time kept back that decide


def explore(
    train: Samples,
    sets: Sequence[str],
    when: Ints,
    seed: int,
    base: Arrays,
    progress: Progress = lambda _done, _total: True,
    owners: Sequence[str] = (),
    crew: Crew | None = None,
) -> Trial | None:
    """How far to go from `base` with these samples: what does best on the newest of them if it learned from the others.

    `when` [n]: tick of each origin. `crew`: who tries the ways; None: this process. Other arguments as for `fit_demand`. Returns
    None if there are too few samples for it, or if the time is used up; then `NEAR` is the way. The same arguments give the same,
    however large the crew is.
    """
    if not len(train):
        return None
    edges = np.quantile(when, 1 - HELD_BACK * np.array([1.0, 2 / BLOCKS, 1 / BLOCKS]))
    spans = [when + max(HORIZONS) <= edges[0], (when > edges[1]) & (when <= edges[2]), when > edges[2]]
    earlier, *later = (
        training_rows(
            train.part(part),
            [sets[place] for place in part.tolist()],
            seed,
            [owners[place] for place in part.tolist()] if owners else (),
            most,
        )
        for part, most in zip(map(np.flatnonzero, spans), (TRIED_ROWS, TRIED_ROWS // 4, TRIED_ROWS // 4), strict=True)
    )
    if len(earlier.made) < LEAST_ROWS or min(len(rows.made) for rows in later) < LEAST_TRIED:
        return None
    courses = [course for course, least in COURSES.items() if len(earlier.made) >= least]
    total = sum(course.steps for course in courses)
    done, lost, ends = 0, [], []
    tasks = ((earlier, later, course, seed, base) for course in courses)
    for course, (losses, weights) in zip(courses, (crew or Crew(1)).each(_tried, tasks), strict=True):
        lost.append(losses)
        ends.append(weights)
        done += course.steps
        if not progress(done, total):
            return None
    place, part = divmod(int(np.argmin(np.array(lost))), len(PARTS))
    network = towards(base, ends[place], PARTS[part])
    return Trial(Way(courses[place], PARTS[part]), network, earlier, tuple(later))


def _tried(earlier: FitRows, later: Sequence[FitRows], course: Descent, seed: int, base: Arrays) -> tuple[list[float], Arrays]:
    """(for each part of the way to the result of a descent on earlier rows: the loss relative to that of `base`, on the later rows
    where it is worse; that result)."""
    weights = descend(earlier, course, seed, base, lambda _done, _total: True)
    usual = [max(row_loss(network_of(base), rows), 1e-30) for rows in later]
    moved = [network_of(towards(base, weights, part)) for part in PARTS]
    return [max(row_loss(model, rows) / one for rows, one in zip(later, usual, strict=True)) for model in moved], weights


def network_of(weights: Arrays, digest: str = "") -> Network:
    """A network with these weights that speaks for every metric."""
    return Network({**{name: weights[name] for name in Network.SHAPES}, "speaks": np.ones(len(METRICS), dtype=np.bool_)}, digest)


def row_loss(model: DemandModel, rows: FitRows) -> float:
    """Mean pinball loss of a model on rows, by their weights."""
    levels = np.asarray(QUANTILES)
    error = rows.answers[:, None].astype(np.float64) - np.sort(model.answers(rows.made, rows.start, rows.metric), axis=1)
    return float(np.average(np.maximum(levels * error, (levels - 1) * error).mean(axis=1), weights=rows.weights))


def training_rows(samples: Samples, sets: Sequence[str], seed: int, owners: Sequence[str] = (), most: int = ROWS) -> FitRows:
    """At most `most` rows of samples that have an answer, drawn by weight; each set has the same share of the loss.

    A row's weight is its spread, the unit of its answer: the loss is then that of the values, relative to that of their set. The
    rows of an owner weigh no more than its quota.
    """
    rng = np.random.default_rng(seed)
    right = samples.answers()
    known = np.isfinite(right)
    names = np.asarray(sets)
    parts = []
    every = sorted(set(sets))
    for name in every:
        origin, horizon = np.nonzero(known & (names == name)[:, None])
        if len(origin):
            weights = samples.spread[origin, horizon]
            if len(set(owners)) > 1:
                weights = weights * factors([owners[place] for place in origin.tolist()], weights)
            parts.append((origin, horizon, weights / weights.mean()))
    total = sum(len(origin) for origin, _, _ in parts)
    chosen = []
    for origin, horizon, weights in parts:
        count = len(origin)
        if total > most:
            chance = HEAVY * weights / count + (1 - HEAVY) / count
            drawn = rng.choice(count, min(most // len(parts), 4 * count), p=chance / chance.sum())
            origin, horizon, weights = origin[drawn], horizon[drawn], weights[drawn] / (chance[drawn] * count)
        chosen.append((origin, horizon, weights / weights.sum()))
    if not chosen:
        chosen = [(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))]
    origin, horizon, weights = (np.concatenate(part) for part in zip(*chosen, strict=True))
    return FitRows(
        samples.rows[origin, horizon],
        samples.start[origin, horizon],
        np.clip(right[origin, horizon], -FARTHEST, FARTHEST).astype(np.float32),
        (weights / max(weights.mean(), 1e-30) if len(weights) else weights).astype(np.float32),
        samples.metric[origin],
    )


def descend(rows: FitRows, course: Descent, seed: int, base: Arrays | None, progress: Progress) -> dict[str, NDArray[np.float32]]:
    """The weights of a network after a descent: Adam (Kingma, Ba 2014) with a step that first grows and then falls to 0."""
    rng = np.random.default_rng(seed)
    mean, spread = rows.made.mean(axis=0), rows.made.std(axis=0)
    descent = _Descent(mean, np.where(spread > 1e-3, spread, np.float32(1)), rng, base, course.pull)
    order = np.empty(0, dtype=np.int64)
    batch = min(BATCH, len(rows.made))
    for step in range(course.steps):
        if len(order) < batch:
            order = rng.permutation(len(rows.made))
        mine, order = order[:batch], order[batch:]
        rate = course.rate * min(1.0, (step + 1) / 100) * 0.5 * (1 + np.cos(np.pi * step / course.steps))
        descent.step(rows.part(mine), rate)
        if step % 50 == 49 and not progress(step + 1, course.steps):
            break
    return descent.weights()


class _Descent:
    """A network during the fit, on standardised rows: less their mean, in units of their spread."""

    def __init__(self, mean: Singles, spread: Singles, rng: np.random.Generator, base: Arrays | None, pull: float) -> None:
        self._mean, self._spread, self._rng, self._pull = mean, spread, rng, pull
        self._p: dict[str, NDArray[np.float32]]
        if base is None:
            self._p = {name: np.zeros(shape, dtype=np.float32) for name, shape in Network.SHAPES.items()}
            for name, size in (("hidden1", len(DEMAND_FEATURES)), ("hidden2", HIDDEN), ("out", 100 * HIDDEN)):
                self._p[name] = rng.normal(0, size**-0.5, Network.SHAPES[name]).astype(np.float32)
            self._home = {name: np.zeros_like(value) for name, value in self._p.items()}
        else:
            self._p = {name: np.array(base[name]) for name in Network.SHAPES}
            for weights, bias in _FIRST:
                self._p[bias] = self._p[bias] + mean @ self._p[weights]
                self._p[weights] = self._p[weights] * spread[:, None]
            self._home = {name: value.copy() for name, value in self._p.items()}
        self._m = {name: np.zeros_like(value) for name, value in self._p.items()}
        self._v = {name: np.zeros_like(value) for name, value in self._p.items()}
        self._count = 0

    def step(self, rows: FitRows, rate: float) -> None:
        """One step down the pinball loss of a batch."""
        p = self._p
        x = ((rows.made - self._mean) / self._spread).astype(np.float32)
        x *= self._rng.random(x.shape, dtype=np.float32) >= DROPOUT
        a1 = x @ p["hidden1"] + p["bias1"]
        s1 = _logistic(a1)
        h1 = a1 * s1
        a2 = h1 @ p["hidden2"] + p["bias2"]
        s2 = _logistic(a2)
        h2 = a2 * s2
        error = rows.answers[:, None] - (rows.start + h2 @ p["out"] + x @ p["straight"] + p["bias3"])
        g = ((error < 0) - np.asarray(QUANTILES, dtype=np.float32)) * (rows.weights[:, None] / len(x))
        g2 = (g @ p["out"].T) * (s2 * (1 + a2 * (1 - s2)))
        g1 = (g2 @ p["hidden2"].T) * (s1 * (1 + a1 * (1 - s1)))
        gradients = {
            "hidden1": x.T @ g1,
            "bias1": g1.sum(axis=0),
            "hidden2": h1.T @ g2,
            "bias2": g2.sum(axis=0),
            "out": h2.T @ g,
            "straight": x.T @ g,
            "bias3": g.sum(axis=0),
        }
        self._count += 1
        for name, gradient in gradients.items():
            m, v = self._m[name], self._v[name]
            m += 0.1 * (gradient - m)
            v += 0.002 * (gradient * gradient - v)
            move = (m / (1 - 0.9**self._count)) / (np.sqrt(v / (1 - 0.998**self._count)) + 1e-8)
            if p[name].ndim == 2:
                move += self._pull * (p[name] - self._home[name])
            p[name] -= np.float32(rate) * move.astype(np.float32)

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """The weights for rows that are not standardised."""
        made = {name: value.copy() for name, value in self._p.items()}
        for weights, bias in _FIRST:
            made[weights] = (made[weights] / self._spread[:, None]).astype(np.float32)
            made[bias] = (made[bias] - self._mean @ made[weights]).astype(np.float32)
        return made


_FIRST = (("hidden1", "bias1"), ("straight", "bias3"))
"""Weights that are applied to rows directly, and the bias of each."""


def _logistic(x: NDArray[np.floating[Any]]) -> Singles:
    return np.asarray(1 / (1 + np.exp(-np.maximum(x, -60))), dtype=np.float32)


def predict(model: DemandModel, samples: Samples) -> Floats:
    """[n, H, Q] forecasts of a model at the origins of samples, without the online correction."""
    n, horizons, features = samples.rows.shape
    rows, start = samples.rows.reshape(n * horizons, features), samples.start.reshape(n * horizons, len(QUANTILES))
    said = model.answers(rows, start, np.repeat(samples.metric, horizons))
    return samples.values(said.reshape(n, horizons, len(QUANTILES)).astype(np.float64))
