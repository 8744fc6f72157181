"""How long requests wait and take with so many servers: Erlang's C formula and what is built on it. Pure.

The queue is M/G/c: requests come at random, any server takes the next one, first come first served.

- Who waits: Erlang's C formula. It is exact for exponential service times; others change it little.
- How long they wait: an exponential time, as under heavy load (Kingman 1962; Whitt, "Approximations for the GI/G/m queue", 1993,
  keeps it for all loads). Its mean is Allen and Cunneen's: that of exponential service, times (1 + squared variation) / 2 (A. O.
  Allen, Probability, Statistics, and Queueing Theory, 1990, section 5.4).
- How long they take: the wait and the service time, which do not depend on each other. Service times are log-normal with the
  measured mean and 95 % quantile.

Arrivals that come in bursts wait longer than this says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

Z95 = 1.6448536269514722
"""95 % quantile of the standard normal distribution."""

TAIL = 0.05
"""Share of the requests that may be later than a 95 % quantile."""

NODES = 40
"""Points at which the wait is integrated. Chosen: shares of late requests are then right to 1e-3."""

BEFORE = 8.0
"""Erlang's recursion begins this many square roots of the load below it (chosen). So far below, nearly all servers are busy, and
what the recursion begins with is forgotten before it matters: tens of steps instead of thousands for a large pool."""

NEVER = 1e-9
"""Share of waiting requests below which another server changes nothing (chosen)."""


@dataclass(frozen=True, slots=True)
class Times:
    """Log-normal service times."""

    mean: float  # seconds, above 0
    sigma: float  # of their logarithm

    @classmethod
    def fitted(cls, mean: float, p95: float) -> Times:
        """Those with this mean and 95 % quantile. A quantile above 3.87 means, or below the mean, has none: the nearest counts.

        >>> Times.fitted(0.2, 0.2), round(Times.fitted(0.2, 0.541).sigma, 2)
        (Times(mean=0.2, sigma=0.0), 0.8)
        """
        spread = math.log(max(p95 / mean, 1.0))
        return cls(mean, Z95 - math.sqrt(max(Z95**2 - 2 * spread, 0.0)))

    @property
    def variation(self) -> float:
        """Squared coefficient of variation."""
        return math.expm1(self.sigma**2)

    def longer(self, seconds: float) -> float:
        """Share of the requests that take longer than this, without waiting."""
        if seconds <= 0:
            return 1.0
        above = math.log(seconds / self.mean) + self.sigma**2 / 2
        if self.sigma == 0:
            return 0.0 if above >= 0 else 1.0
        return 0.5 * math.erfc(above / (self.sigma * math.sqrt(2)))


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue in its steady state: a mean load that is below the number of servers."""

    times: Times
    waiting: float  # share of the requests that wait
    mean_wait: float  # seconds, of those that wait

    @property
    def length(self) -> float:
        """Mean number of waiting requests, per request that arrives in a second."""
        return self.waiting * self.mean_wait

    def waits_longer(self, seconds: float) -> float:
        """Share of the requests that wait longer than this for a server."""
        return self.waiting * math.exp(-seconds / self.mean_wait)

    def takes_longer(self, seconds: float) -> float:
        """Share of the requests that are answered later than this, waiting included."""
        if self.waiting < NEVER:
            return self.times.longer(seconds)
        late = sum(self.times.longer(seconds + self.mean_wait * math.log((at + 0.5) / NODES)) for at in range(NODES)) / NODES
        return (1 - self.waiting) * self.times.longer(seconds) + self.waiting * late

    def p95(self, longer: Callable[[float], float]) -> float:
        """95 % quantile, in seconds, of what `longer` says: `waits_longer` or `takes_longer`."""
        low, high = 0.0, self.times.mean + self.mean_wait
        while longer(high) > TAIL:
            low, high = high, 2 * high
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if longer(middle) > TAIL else (low, middle)
        return high


class Servers:
    """Queues with the same load and ever more servers. Ask in rising order of servers: all together take as long as the last."""

    def __init__(self, load: float, times: Times) -> None:
        """`load`: Erlangs, so as many servers would be busy on average."""
        self._load, self._times = load, times
        self._servers = max(math.floor(load - BEFORE * math.sqrt(load)), 0)
        self._lost = 1.0 if self._servers == 0 else 1 - self._servers / load  # Erlang's B formula

    def queue(self, servers: int) -> Queue | None:
        """The queue with so many servers; None: they are too few, so that it grows without end."""
        if servers <= self._load:
            return None
        while self._servers < servers:
            self._servers += 1
            self._lost = self._load * self._lost / (self._servers + self._load * self._lost)
        waiting = self._lost / (1 - self._load / servers * (1 - self._lost))
        return Queue(self._times, waiting, self._times.mean * (1 + self._times.variation) / 2 / (servers - self._load))
