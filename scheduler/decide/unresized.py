"""The queue that a resized pool would have now, had it kept its old size, on the arrivals that came. Pure.

A queue before and after a growth says little: under a rising load it is longer afterwards, and would have been longer still.

With fewer servers at least as many requests are there and wait, with more at most as many. So a growth helps or has no effect, and
a shrink hurts or has none.

- **Service times are known.** In a tick as many requests ended as were served at once, over the service time; what the pool holds
  beyond that has arrived. The same arrivals go through the old number of servers: a fluid that flows in and out at these rates. It
  lacks the queue that random arrivals build within a tick; where a queue settles that fast, its steady length is added
  (`models/queueing.py`).
- **They are not known.** The requests that are there bound the queue on one side.

If requests take another time than at the decision, the size may be the reason, so nothing can be said.
"""

from __future__ import annotations

import math

from ...models.queueing import Servers, Times
from ..decision import Pool
from .policies.policy import Memory

NEAR = 1.0
"""Requests below the number of servers from which a queue may have been there for parts of a tick (chosen)."""

OTHER = 1.25
"""Factor by which the mean service time must have changed to be another one (chosen): it scatters by less over some minutes."""

NEARLY_FULL = 0.98
"""Greatest load of a server for which the steady queue is taken (chosen): at 1 it has no bound."""


class Unresized(Memory):
    """A pool that kept its old size."""

    size: int  # workers asked for before
    ready: int  # of the workers then
    grown: bool  # the real pool grew
    at: int  # ns of the last tick
    real: float  # requests in the real pool then
    here: float  # requests in this one, as far as service times are known
    mean: float | None = None  # service time at the decision, seconds; None: not known
    least: float = 0.0  # waiting requests, summed over the ticks that count
    most: float | None = 0.0  # likewise; None: there is no bound
    lost: bool = False  # a tick was missed or the service time changed, so nothing is known from then on

    def step(self, at: int, pool: Pool | None, counts: bool) -> None:
        """Take the real pool of the next tick, None if it is not there. `counts`: add the queue to the sums."""
        if pool is None or pool.load is None or pool.queued is None or at <= self.at:
            self.lost = True
            return
        if pool.service is not None and self.mean and not self.mean / OTHER <= pool.service.mean <= self.mean * OTHER:
            self.lost = True
        before, now = self.real, pool.load * pool.capacity
        seconds = (at - self.at) / 1e9
        self.at, self.real = at, now
        ready = max(min(self.size, sum(worker.ready for worker in pool.workers)), min(self.size, self.ready))
        servers = ready * pool.capacity
        least, most = self._bounds(now, servers)
        if pool.service is not None and pool.service.mean > 0:
            held, mean = max(now - pool.queued, 0.0), pool.service.mean
            arrivals = held / mean + (now - before) / seconds
            flowed = flow(self.here, arrivals, servers, mean, seconds)
            self.here = max(flowed, now) if self.grown else min(flowed, now)
            least = max(self.here - servers, _settled(pool, arrivals * mean, servers, seconds), 0.0)
            least = most = max(least, pool.queued) if self.grown else min(least, pool.queued)
        if most is None or self.most is None:
            self.most = None
        elif counts:
            self.most += most
        if counts:
            self.least += least

    def bounds(self, ticks: int) -> tuple[float, float | None] | None:
        """(least, most) mean of waiting requests over the ticks that counted; None for most: no bound. None: nothing is known."""
        if self.lost:
            return None
        return self.least / ticks, None if self.most is None else self.most / ticks

    def _bounds(self, now: float, servers: float) -> tuple[float, float | None]:
        """(least, most) waiting requests, if service times are not known; None: no bound."""
        certain = max(now - servers, 0.0)
        if not self.grown:
            return 0.0, certain
        return certain, 0.0 if now <= servers - NEAR else None


def flow(here: float, arrivals: float, servers: float, mean: float, seconds: float) -> float:
    """Requests in a pool after some seconds in which `arrivals` come each second and each is served for `mean` seconds.

    >>> [round(flow(here, 10.0, 4.0, 0.5, 2.0), 2) for here in (0.0, 4.0, 9.0)]
    [6.39, 8.0, 13.0]
    """
    left, wanted = seconds, arrivals * mean
    if here > servers:
        rate = arrivals - servers / mean
        if rate >= 0 or here + rate * left >= servers:
            return here + rate * left
        left -= (here - servers) / -rate
        here = servers
    if wanted > servers:
        filled = mean * math.log((wanted - here) / (wanted - servers))
        if filled < left:
            return servers + (arrivals - servers / mean) * (left - filled)
    return max(wanted + (here - wanted) * math.exp(-left / mean), 0.0)


def _settled(pool: Pool, load: float, servers: float, seconds: float) -> float:
    """Waiting requests of the steady queue, as far as it is reached within a tick.

    A queue settles in about 1 / (c μ (1 - √ρ)²), as that of one server does (Abate and Whitt, "Transient behavior of the M/M/1
    queue", 1987).
    """
    count = math.floor(servers + 1e-9)
    if pool.service is None or load <= 0 or count < 1:
        return 0.0
    load = min(load, NEARLY_FULL * count)
    times = Times.fitted(pool.service.mean, pool.service.p95)
    queue = Servers(load, times).queue(count)
    if queue is None:
        return 0.0
    settles = times.mean * (1 + times.variation) / 2 / (count * (1 - math.sqrt(load / count)) ** 2)
    return queue.length * load / times.mean * -math.expm1(-seconds / settles)
