"""What the last frames had, for sparklines and graphs. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ...frame import Frame

if TYPE_CHECKING:
    from ...store.decisions import TickFigures

KEPT = 240
"""Ticks of the machine (chosen): the width of a large screen."""

KEPT_OF_EACH = 90
"""Ticks of each group and pool (chosen): the width of its graph on a large screen."""

FORGOTTEN = 30
"""Ticks without demand after which a group has no history any more (chosen)."""

COST_TICKS = 10
"""Ticks over which the daemon's own cost is a mean (chosen)."""


class History:
    """Figures of the frames that were shown, without gaps: a frame that does not follow the one before begins anew."""

    def __init__(self) -> None:
        self.machine: deque[float] = deque(maxlen=KEPT)
        """Cores in use, the newest last."""
        self._demand: dict[str, deque[float]] = {}
        self._idle: dict[str, int] = {}
        self._load: dict[str, deque[float]] = {}
        self._own: deque[tuple[float, float]] = deque(maxlen=COST_TICKS + 1)
        self._last: tuple[str, int] | None = None

    def add(self, frame: Frame) -> None:
        """Take a frame. The same one again changes nothing."""
        own, last = frame.own.session, self._last
        self._last = own, frame.seq
        if self._last == last:
            return
        if last is None or last[0] != own or not 0 < frame.seq - last[1] <= 3:
            self.machine.clear()
            self._own.clear()
            for known in (self._demand, self._idle, self._load):
                known.clear()
        self._own.append((frame.wall, frame.own.cpu))
        if not frame.measured:
            return
        self._push(
            frame.machine.busy,
            ((group.name, group.demand) for group in frame.groups),
            ((pool.name, pool.load) for pool in frame.pools),
        )

    def add_figures(self, tick: TickFigures) -> None:
        """Take a recorded tick."""
        if not tick.gap:
            groups, pools = tick.groups, tick.pools
            self._push(tick.machine.busy, ((it.name, it.demand) for it in groups), ((it.name, it.load) for it in pools))

    def _push(self, busy: float, groups: Iterable[tuple[str, float]], pools: Iterable[tuple[str, float | None]]) -> None:
        self.machine.append(busy)
        present = set()
        for name, demand in groups:
            if demand >= 0.005:
                present.add(name)
                self._demand.setdefault(name, deque(maxlen=KEPT_OF_EACH)).append(demand)
                self._idle.pop(name, None)
        for name in [name for name in self._demand if name not in present]:
            self._demand[name].append(0.0)
            self._idle[name] = self._idle.get(name, 0) + 1
            if self._idle[name] > FORGOTTEN:
                del self._demand[name], self._idle[name]
        for name, load in pools:
            self._load.setdefault(name, deque(maxlen=KEPT_OF_EACH)).append(load or 0.0)

    def demand(self, group: str) -> list[float]:
        """Cores that a group wanted, the newest last."""
        return list(self._demand.get(group, ()))

    def load(self, pool: str) -> list[float]:
        """Load of a pool, the newest last."""
        return list(self._load.get(pool, ()))

    def own_cost(self) -> float | None:
        """Share of one CPU that the daemon uses; None: not known yet."""
        if len(self._own) < 2:
            return None
        (begin, before), (end, after) = self._own[0], self._own[-1]
        return max(0.0, after - before) / (end - begin) if end > begin else None
