"""A rule with a perfect forecast: it knows the offered load of each coming second, but not single requests. Pure."""

from __future__ import annotations

import math

from .peers import EPSILON
from .queueing import Floats, PoolSeen


class Oracle:
    """Enough workers for the largest load until a worker started now is ready, each busy for the share `target`."""

    period = 1.0
    wants_workers = False

    def __init__(self, target: float, erlangs: Floats, start_seconds: float) -> None:
        """`erlangs`: offered load of each second, as `Load` has it."""
        self.name = f"oracle-{100 * target:.0f}"
        self._target = target
        self._erlangs = erlangs
        self._ahead = math.ceil(start_seconds) + 1

    def size(self, seen: PoolSeen) -> int:
        """See `SizeRule`."""
        now = int(seen.at)
        coming = self._erlangs[now : now + self._ahead + 1]
        return math.ceil(float(coming.max()) / self._target - EPSILON) if len(coming) else seen.size
