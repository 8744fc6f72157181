"""Whether to use the demand model: compares its losses and coverage with the baseline's as forecasts come due. Pure.

A model that was better when it was promoted need not stay so. Where it has become worse than the baseline on the same forecasts,
the baseline is used. The model is still judged, and used again once it has been better for long enough. Knows losses and coverage,
not how forecasts are made.

The test of losses is Page's cumulative sum (Page 1954, "Continuous inspection schemes", Biometrika 41): the model's excess loss
over the baseline is summed up, less an allowance, and never falls below 0. Above a limit the model is worse. Losses are in units
of what the baseline usually loses on that series. So the hours in which nothing happens weigh little and bursts weigh much, as
they do for users of the forecasts. Losses are heavy-tailed: a difference is capped, and the limit is higher where the baseline's
own losses scatter more. Coverage and losses of single quantiles are exponentially weighted means. They count only where the
baseline's coverage is much nearer to its target, and its loss smaller: when a load changes its habits no model's quantiles hold,
and no quantile covers counts exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..records import QUANTILES

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

ALLOWANCE = 0.2
"""Share of the loss by which a model may be worse without adding to the evidence: chance does this much to a good one. Found by the
simulation of docs/models.md."""

LIMIT = 20.0
"""Evidence from which a model is not used any more, in usual losses. Found with ALLOWANCE and CAP by simulation (docs/models.md): a
model that loses twice as much is detected after 25 to 60 ticks of a single series; one that is equally good is not dropped in
1,000,000 ticks."""

SCATTER, MOST = 20.0, 60.0
"""The limit is at least SCATTER times the variance of the baseline's losses, and at most MOST. By chance, a sum of steps of
variance v and mean -ALLOWANCE passes a limit L with probability exp(-2 ALLOWANCE L / v) (Kingman 1962, "On queues in heavy
traffic"): exp(-8) with SCATTER."""

CAP = 6.0
"""Most that one series' difference counts in a tick. A model that is far off, or says NaN, is detected after LIMIT / (CAP -
ALLOWANCE) ticks: 4. Found by the simulation of docs/models.md."""

BACK_ALLOWANCE, BACK = 0.05, 4.0
"""To be used again the model must be better by at least BACK_ALLOWANCE, and needs BACK times the evidence that dropped it
(chosen)."""

AVERAGE = 0.005
"""Rate of the averages that follow mean and variance of the baseline's losses. Chosen: some 1,000 ticks."""

WILD = 10.0
"""Limit of one quantile's loss, in usual ones: one jump must not hide what follows (chosen)."""

LEAST = 1.0
"""Least divisor of a ratio of losses, in usual losses (chosen)."""

LARGEST = 1e100
"""Limit of losses, so that sums stay finite (chosen)."""

LEVELS: list[int] = [QUANTILES.index(0.9), QUANTILES.index(0.95)]
"""The quantiles whose coverage is watched: limits and pool sizes rest on them."""

COVERAGE_TICKS = 120
"""Ticks that coverage is averaged over, and that must have been seen before it counts (chosen)."""

MOST_MISSES, LEAST_MISSES = 3.0, 0.1
"""A quantile is too low if missed more than MOST_MISSES times as often as promised, too high if less than LEAST_MISSES times
(chosen)."""


_TARGETS = np.array([QUANTILES[level] for level in LEVELS])


@dataclass(frozen=True, slots=True)
class ModelSwitch:
    """A metric for which the model is dropped, or used again."""

    metric: str
    heard: bool
    reason: str  # a sentence with figures


class DriftWatch:
    """Says for each metric whether the model is used; at first it is. Keeps a few numbers per metric, and uses neither clock nor
    chance: the same steps give the same answers."""

    def __init__(self, metrics: Sequence[str]) -> None:
        n = len(metrics)
        self._metrics = tuple(metrics)
        self.heard: Bools = np.ones(n, dtype=np.bool_)
        """[metrics] whether the model is used. Not to be written to."""
        self._ticks = np.zeros(n, dtype=np.int64)  # ticks with a forecast that came due
        self._swing = np.zeros((2, n))  # mean of the baseline's loss a tick, capped, and of its square
        self._evidence = np.zeros(n)  # against the model while it is used, for it otherwise
        self._since = np.zeros(n, dtype=np.int64)  # ticks since there was no evidence
        self._lost = np.zeros((2, n))  # lost in that time, by model and baseline
        self._recent = np.zeros((2, n, len(QUANTILES)))  # recent loss of model and baseline
        self._covered = np.zeros((2, n, len(QUANTILES)))  # recent share of values below the quantiles of model and baseline

    def step(
        self,
        metric: Ints,
        model_loss: Floats,
        baseline_loss: Floats,
        model_covered: Floats,
        baseline_covered: Floats,
        counts: Floats,
    ) -> tuple[ModelSwitch, ...]:
        """Take in the forecasts that came due at a tick; call once per tick. Returns what changes by it.

        A row is a series. `metric` [n]: its index in the metrics. `counts` [n]: how many of its forecasts came due. The losses
        [n, len(QUANTILES)] are sums of pinball losses. `covered`, of the same shape, is how many values lay below each quantile;
        one equal to it counts as the level. The unit of losses is what the baseline usually loses on that series in a forecast,
        over all quantiles. Model and baseline made the same forecasts, whichever was used. NaN is the worst loss of a model; of
        the baseline it is no evidence.
        """
        count = len(self._metrics)
        known = np.isfinite(baseline_loss).all(axis=1) & (counts > 0)
        if not known.all():
            rows = np.flatnonzero(known)
            metric, model_loss, baseline_loss = metric[rows], model_loss[rows], baseline_loss[rows]
            model_covered, baseline_covered, counts = model_covered[rows], baseline_covered[rows], counts[rows]
        model = np.where(np.isnan(model_loss), LARGEST, np.minimum(model_loss, LARGEST))
        baseline = np.minimum(baseline_loss, LARGEST)
        most, cap, lost = WILD * counts[:, None], CAP * counts, baseline.sum(axis=1)
        q = len(QUANTILES)
        sums = np.empty((len(counts), 4 * q + 3))  # over the forecasts of each series
        sums[:, :q], sums[:, q : 2 * q] = np.minimum(model, most), np.minimum(baseline, most)
        sums[:, 2 * q : 3 * q], sums[:, 3 * q : 4 * q] = model_covered, baseline_covered
        sums[:, -3], sums[:, -2] = np.minimum(np.maximum(model.sum(axis=1) - lost, -cap), cap), np.minimum(lost, cap)
        sums[:, -1] = counts
        columns = sums.shape[1]
        places = (metric[:, None] * columns + np.arange(columns)).ravel()
        totals = np.bincount(places, sums.ravel(), count * columns).reshape(count, columns)
        here = totals[:, -1] > 0
        means = totals / np.where(here, totals[:, -1], 1.0)[:, None]  # [metrics, columns] per forecast
        losses, covered = (means[:, at : at + 2 * q].reshape(count, 2, q).transpose(1, 0, 2) for at in (0, 2 * q))
        excess, swing = means[:, -3], means[:, -2]
        self._ticks += here
        self._swing += self._rate(here, AVERAGE)[:, 0] * (np.stack([swing, swing**2]) - self._swing)
        lately = self._rate(here, 1 / COVERAGE_TICKS)
        self._recent += lately * (losses - self._recent)
        self._covered += lately * (covered - self._covered)
        step = np.where(self.heard, excess - ALLOWANCE, -excess - BACK_ALLOWANCE)
        self._evidence = np.where(here, np.maximum(self._evidence + step, 0.0), self._evidence)
        self._since += here
        self._lost += np.where(here, losses.sum(axis=2), 0.0)
        limit = np.minimum(np.maximum(LIMIT, SCATTER * (self._swing[1] - self._swing[0] ** 2)), MOST)
        enough, amiss = self._evidence > np.where(self.heard, limit, BACK * limit), self._amiss()
        due = np.flatnonzero(here & np.where(self.heard, enough | amiss.any(axis=1), enough & ~amiss.any(axis=1)))
        changes = [self._change(at, bool(enough[at]), amiss[at]) for at in due.tolist()]
        for change in changes:
            at = self._metrics.index(change.metric)
            self.heard[at] = change.heard
            self._evidence[at] = 0.0
        none = self._evidence == 0
        self._since[none] = 0
        self._lost[:, none] = 0.0
        return tuple(changes)

    def _rate(self, here: Bools, slowest: float) -> Floats:
        """[metrics, 1] rate of an average: that of the plain mean at first."""
        return np.where(here, np.maximum(slowest, 1.0 / np.maximum(self._ticks, 1)), 0.0)[:, None]

    def _amiss(self) -> Bools:
        """[metrics, LEVELS] whether the model's coverage of a quantile is wrong and the baseline's is not."""
        (model, baseline), (lost, less) = self._covered[:, :, LEVELS], self._recent[:, :, LEVELS]
        misses = (1 - model) / (1 - _TARGETS)
        wrong = ~((misses >= LEAST_MISSES) & (misses <= MOST_MISSES)) & (self._ticks >= COVERAGE_TICKS)[:, None]
        nearer = np.abs(baseline - _TARGETS) < np.abs(model - _TARGETS) / 2
        return np.asarray(wrong & (lost > less + ALLOWANCE * LEAST / len(QUANTILES)) & nearer)

    def _change(self, at: int, enough: bool, amiss: Bools) -> ModelSwitch:
        """The change of a metric, with its reason."""
        name, heard = self._metrics[at], bool(self.heard[at])
        ratio = self._lost[0, at] / max(self._lost[1, at], LEAST)
        reason = f"it lost {ratio:.2f} times what the baseline did over {self._since[at]} ticks"
        if not enough:
            level = LEVELS[int(amiss.argmax())]
            model, baseline = self._covered[:, at, level].tolist()
            reason = (
                f"its {QUANTILES[level]:.0%} quantile was above {model:.1%} of the values of the last {COVERAGE_TICKS} ticks, the "
                f"baseline's above {baseline:.1%}"
            )
        if heard:
            return ModelSwitch(name, False, f"the demand model is no longer used for {name}: {reason}")
        return ModelSwitch(name, True, f"the demand model is used for {name} again: {reason}")
