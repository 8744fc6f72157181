"""Which scores are reported if they last: those that matter, and smaller ones if the user accepts more false alarms. Pure.

`alpha` shares the false alarms of a day among the blocks, workers and kinds tried (Bonferroni). What does not matter has no
p-value: how often its size occurs is learned on this machine, see `threshold.py`.
"""

from __future__ import annotations

import math

from .....models.anomaly.detectors import FEW
from .....models.anomaly.model import BLOCK_SECONDS, alpha
from .....models.identity import ProcId
from .....models.records import Score
from ....config.sections import Quarantine as Section
from ....decision import Tick
from .threshold import CONSENSUS, Watched, chance, forget, reported_from, watch


class Significance:
    """Judges the scores of a tick, once it has learned from it."""

    def __init__(self, config: Section, watched: Watched) -> None:
        """`watched`: what was learned; used only if more false alarms are accepted than what matters gives."""
        self._accepted = config.false_alarms_per_day
        self._patience = config.patience
        self._watched = watched
        self._alpha = alpha(self._accepted)
        self._from = math.inf  # size from which what does not matter is reported

    def learn(self, tick: Tick, present: set[ProcId]) -> None:
        """Learns how often small things come up, if the user accepts more false alarms than what matters gives."""
        if self._accepted <= FEW:
            return
        sizes = {
            f"{score.pool} {score.id.pid}": (score.size, score.p <= self._alpha)
            for score in tick.scores
            if score.size > 0 and score.id in present
        }
        watch(self._watched, tick.at, len(present), sizes, self._patience, CONSENSUS)
        forget(self._watched, self._accepted)
        self._from = reported_from(self._watched, self._accepted)

    def is_odd(self, score: Score) -> bool:
        """Whether the score is to be reported if it lasts."""
        return score.p <= self._alpha or self.is_lesser(score)

    def is_lesser(self, score: Score) -> bool:
        """Whether the score is reported although it does not matter."""
        return score.p > self._alpha and score.size >= self._from

    def p(self, score: Score) -> float:
        """How rare the score is; for what does not matter, as learned on this machine."""
        return chance(self._watched, score.size) if self.is_lesser(score) else score.p

    def line(self, score: Score) -> float:
        """The largest `p` with which a score like this one is reported."""
        return self._accepted / (86_400.0 / BLOCK_SECONDS * 100.0) if self.is_lesser(score) else self._alpha
