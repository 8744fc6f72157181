"""How many workers a load needs, by the pool's objective: the only place where load becomes workers. Pure.

Every rule asks here, with the busy share that it aims at: `predicted_target` where the load is predicted, less where it is not.

- Without an objective: the load over that share.
- `utilization`: the load over it, whatever the rule.
- `p95`, `wait`: the fewest workers whose predicted 95 % quantile keeps it (`models/queueing.py`). A rule with less than
  `predicted_target` knows less of the load to come: it asks for as much more load as its share is smaller.

If a time cannot be kept by any number of workers, or service times are not known, the pool is sized as without an objective.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from .....models.queueing import NEVER, TAIL, Queue, Servers, Times
from ....config.sections import Config, seconds_of
from ....config.sections import Objective as Section
from ....decision import Pool
from .reaction import EPSILON, up

STEPS = 40
"""Halvings in the search for a load: enough for all digits that are shown."""


class Goal(StrEnum):
    """What an objective is about."""

    P95 = "p95"
    WAIT = "wait"
    UTILIZATION = "utilization"


@dataclass(frozen=True, slots=True)
class Objective:
    """What a pool is to keep with the fewest workers."""

    goal: Goal
    value: float  # seconds, or the busy share

    @classmethod
    def of(cls, section: Section) -> Objective:
        """As configured."""
        if section.p95:
            return cls(Goal.P95, seconds_of(section.p95))
        if section.wait:
            return cls(Goal.WAIT, seconds_of(section.wait))
        return cls(Goal.UTILIZATION, section.utilization)

    def __str__(self) -> str:
        """For people.

        >>> print(Objective(Goal.P95, 0.3), "|", Objective(Goal.WAIT, 0.05), "|", Objective(Goal.UTILIZATION, 0.7))
        a p95 of 0.3 s | a p95 of the wait of 0.05 s | a utilization of 0.7
        """
        if self.goal is Goal.UTILIZATION:
            return f"a utilization of {self.value:g}"
        return f"a p95 {'of the wait ' if self.goal is Goal.WAIT else ''}of {self.value:g} s"

    def late(self, queue: Queue) -> float:
        """Share of the requests that take, or wait, longer than the objective."""
        return queue.takes_longer(self.value) if self.goal is Goal.P95 else queue.waits_longer(self.value)

    def expected(self, queue: Queue) -> float:
        """Predicted 95 % quantile of what the objective is about, in seconds."""
        return queue.p95(queue.takes_longer if self.goal is Goal.P95 else queue.waits_longer)


class Sizing:
    """Loads to workers, and back."""

    def __init__(self, config: Config) -> None:
        self._predicted_target = config.pool_size.predicted_target
        self._objectives = {name: Objective.of(pool.objective) for name, pool in config.pools.items() if pool.objective is not None}

    def objective(self, pool: Pool) -> Objective | None:
        """The pool's objective; None: it has none."""
        return self._objectives.get(pool.name)

    def times(self, pool: Pool) -> Times | None:
        """Service times of a pool that is sized for a time; None: it has no such objective, or the times are not known."""
        objective = self.objective(pool)
        if objective is None or objective.goal is Goal.UTILIZATION or pool.service is None or pool.service.mean <= 0:
            return None
        return Times.fitted(pool.service.mean, pool.service.p95)

    def beyond(self, pool: Pool) -> bool:
        """Whether requests take longer than the objective without waiting, so that no number of workers keeps it."""
        objective, times = self.objective(pool), self.times(pool)
        return objective is not None and times is not None and objective.goal is Goal.P95 and times.longer(objective.value) > TAIL

    def wanted(self, load: float, pool: Pool, share: float) -> int:
        """Workers for a load at the busy share of a rule; more than the maximum if it takes more.

        `load`: Erlangs of workers. Without an objective each worker is busy for that share.
        """
        objective, times = self.objective(pool), self.times(pool)
        if objective is not None and objective.goal is Goal.UTILIZATION:
            return up(load / objective.value)
        if objective is None or times is None or self.beyond(pool):
            return up(load / share)
        return _fewest(self._assumed(load, share), pool.capacity, objective, times)

    def workers_for(self, load: float, pool: Pool, share: float) -> int:
        """Workers for an expected load, at most the maximum."""
        return min(self.wanted(min(load, pool.maximum), pool, share), pool.maximum)

    def load_for(self, workers: int, pool: Pool, share: float) -> float:
        """The largest load for which so many workers are enough."""
        objective = self.objective(pool)
        if objective is not None and objective.goal is Goal.UTILIZATION:
            return workers * objective.value
        if self.times(pool) is None or self.beyond(pool):
            return workers * share
        low, high = 0.0, workers * share / self._predicted_target
        for _ in range(STEPS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.wanted(middle, pool, share) <= workers else (low, middle)
        return low

    def expected(self, workers: int, load: float, pool: Pool, share: float) -> float | None:
        """Predicted 95 % quantile, in seconds, of what the objective is about, with so many workers and the load that `wanted`
        assumes; infinite: the queue grows without end. None: it cannot be predicted, or the objective is no time."""
        objective, times = self.objective(pool), self.times(pool)
        if objective is None or times is None:
            return None
        queue = Servers(self._assumed(load, share) * pool.capacity, times).queue(_servers(workers, pool.capacity))
        return math.inf if queue is None else objective.expected(queue)

    def _assumed(self, load: float, share: float) -> float:
        """The load to prepare for: as much more as the rule aims lower than where the load is predicted."""
        return load * self._predicted_target / share


def _fewest(load: float, capacity: float, objective: Objective, times: Times) -> int:
    """Fewest workers that keep an objective that can be kept."""
    if load <= 0:
        return 0
    servers, workers = Servers(load * capacity, times), max(up(load), 1)
    while True:
        queue = servers.queue(_servers(workers, capacity))
        if queue is not None and (objective.late(queue) <= TAIL or queue.waiting < NEVER):
            return workers
        workers += 1


def _servers(workers: int, capacity: float) -> int:
    """Requests that so many workers serve at once."""
    return max(math.floor(workers * capacity + EPSILON), 1)
