"""How long things take, learned from observations that only bound it: a distribution over bins. Pure.

Looks at a machine come at intervals. A request is in flight at one look and answered by the next, so often only bounds of its time
are known; and one that begins and ends between two looks may not be seen at all. `Durations` handles both by expectation and
maximization: an observation counts for each time between its bounds by how likely that time is otherwise, and stands for those of
its kind that were not seen (Dempster, Laird, Rubin, Maximum likelihood from incomplete data, 1977; Turnbull, The empirical
distribution function with arbitrarily grouped, censored and truncated data, 1976). Old observations fade.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RATIO = 1.05
"""Width of a bin: a quantile is exact to 5 %, and to less between bins (chosen)."""

EDGES: Floats = 0.002 * RATIO ** np.arange(270, dtype=np.float64)
"""Edges of the bins in seconds: from half a jiffy of Linux's usual 250 Hz to 17 minutes (chosen)."""

WINDOW = 1024
"""Newest observations that it rests on (chosen)."""

ROUNDS = 4
"""Rounds of expectation and maximization for each step: the next step goes on from where it ended (chosen)."""

DOUBT = 0.02
"""Observations of any length that are added, so that no length is ever impossible (chosen)."""

LEAST_SEEN = 0.02
"""An observation stands for at most 50 (chosen): more would be a guess."""

_LOW, _HIGH = EDGES[:-1], EDGES[1:]
_CENTRE = np.sqrt(_LOW * _HIGH)
_EVEN = (_HIGH - _LOW) / (EDGES[-1] - EDGES[0])  # every second as likely as any other


class Durations:
    """A distribution of durations. The same steps give the same answers."""

    def __init__(self) -> None:
        self._covered = np.zeros((0, len(_CENTRE)), dtype=np.float32)  # of each, the share of each bin within its bounds
        self._likely = _EVEN

    def step(self, least: Floats, most: Floats, *, gap: float = 0.0, followed: float = 1.0) -> Floats:
        """Take the durations that ended, each between `least` and `most` seconds. Returns what they and those that were not seen
        add to the distribution: a weight for each bin, for `quantiles`.

        `gap`: seconds between two looks. A duration shorter than that is seen if a look falls into it; or if a look falls into the
        rest that follows it, which is so for a share `followed`, whatever its length.
        """
        if not len(least):
            return np.zeros(len(_CENTRE))
        least = np.clip(least, EDGES[0], EDGES[-2])
        most = np.clip(most, least * RATIO**0.2, EDGES[-1])
        overlap = np.clip(np.minimum(most[:, None], _HIGH) - np.maximum(least[:, None], _LOW), 0.0, None)
        covered = (overlap / (_HIGH - _LOW)).astype(np.float32)
        self._covered = np.concatenate((self._covered, covered))[-WINDOW:]
        inside = np.minimum(_CENTRE / max(gap, EDGES[0]), 1.0)
        seen = np.maximum(inside + followed - inside * followed, LEAST_SEEN)
        for _ in range(ROUNDS):
            found = self._complete(self._covered, seen) + DOUBT * _EVEN
            self._likely = found / found.sum()
        return self._complete(covered, seen)

    def quantile(self, level: float) -> float | None:
        """The duration that a share `level` does not exceed; None if nothing is known."""
        return float(quantiles(self._likely, np.array([level]))[0]) if len(self._covered) else None

    def _complete(self, covered: NDArray[np.float32], seen: Floats) -> Floats:
        """The observations spread over the bins by what is likely, with those that were not seen. `seen`: the chance of a duration
        to be seen."""
        likely = self._likely
        spread: Floats = likely * ((1.0 / (covered @ likely.astype(np.float32))) @ covered)
        unseen: Floats = len(covered) / float(likely @ seen) * likely * (1.0 - seen)
        return spread + unseen


class Histogram:
    """Durations that are known, with weights. The same steps give the same answers."""

    def __init__(self) -> None:
        self._weights = np.zeros(len(_CENTRE))

    def fade(self, kept: float) -> None:
        """Let all weights fade to this share."""
        self._weights *= kept

    def add(self, seconds: Floats, weight: float) -> None:
        """Take durations, each with this weight."""
        at = np.clip(np.searchsorted(EDGES, seconds, side="right") - 1, 0, len(_CENTRE) - 1)
        np.add.at(self._weights, at, weight)

    @property
    def weight(self) -> float:
        """The sum of the weights."""
        return float(self._weights.sum())

    def mean(self) -> float | None:
        """Seconds; None if there are no durations."""
        total = self.weight
        return float(self._weights @ _CENTRE) / total if total > 0.0 else None

    def quantile(self, level: float) -> float | None:
        """The duration that a share `level` does not exceed; None if there are none."""
        return float(quantiles(self._weights, np.array([level]))[0]) if self.weight > 0.0 else None


def quantiles(weights: Floats, levels: Floats) -> Floats:
    """Quantiles in seconds of a distribution that has a weight for each bin, at least one of them positive."""
    below = np.concatenate(([0.0], np.cumsum(weights)))
    wanted = levels * below[-1]
    at = np.clip(np.searchsorted(below, wanted, side="left") - 1, 0, len(weights) - 1)
    at = np.where(weights[at] > 0.0, at, np.flatnonzero(weights)[0])
    part = np.clip((wanted - below[at]) / weights[at], 0.0, 1.0)
    found: Floats = EDGES[at] * np.exp(part * math.log(RATIO))
    return found
