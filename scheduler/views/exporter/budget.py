"""Which groups have series of their own: as many as a budget of series allows, and seldom others than before. Pure.

Each new series costs the database for as long as it keeps its data. So a group is weighed by the most that it used lately, a
new one must stay for a while, and one that has series is replaced only by one that weighs half as much again. The culprits of one
victim are chosen in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

HALF_LIFE = 600.0
"""Seconds after which a peak counts for half (chosen: a job that pauses for some minutes keeps its series)."""

SETTLED = 60.0
"""Seconds for which a group must be there before it has series of its own (chosen: four scrapes of 15 s)."""

LEAD = 1.5
"""How much more than a group with series another must weigh to replace it (chosen)."""

KEPT = 600.0
"""Seconds for which a group that is gone keeps its place (chosen: a service that restarts)."""


@dataclass(slots=True)
class _Known:
    """A group."""

    since: float  # when it was first seen
    seen: float  # when it was last seen
    weight: float  # its peak, as it counted when the group was last seen
    cost: int  # most series that it ever needed


class Budget:
    """Chooses anew at each look, and remembers whom it chose. Times are seconds of one clock."""

    def __init__(self, settled: float = SETTLED, half_life: float = HALF_LIFE, spare: float = 0.0) -> None:
        """`settled`: seconds for which a new group must be there before it is chosen. `half_life`: seconds after which a peak
        counts for half. `spare`: part of the budget that new groups leave free."""
        self._settled, self._half_life, self._spare = settled, half_life, spare
        self._began: float | None = None  # when the first groups were seen: those have settled
        self._known: dict[str, _Known] = {}
        self._chosen: frozenset[str] = frozenset()
        self.refused = 0
        """Groups for which the budget did not suffice at the last look."""

    def choose(self, at: float, most: int, costs: Mapping[str, int], weights: Mapping[str, float]) -> Set[str]:
        """The groups of `costs` that have series of their own. `costs`: how many series each needs now. `weights`: how much each
        matters. All that are chosen have `most` series at most."""
        self._see(at, costs, weights)
        known, before = self._known, self._chosen
        ranks = {name: self._weight(it, at) * (LEAD if name in before else 1.0) for name, it in known.items()}
        began, wait = self._began, self._settled
        settled = [name for name, it in known.items() if name in before or it.since == began or at - it.since >= wait]
        order = sorted(settled, key=lambda name: (-ranks[name], name))
        chosen, left = set[str](), most
        for name in order:
            if known[name].cost <= left - (0.0 if name in before else self._spare * most):
                chosen.add(name)
                left -= known[name].cost
        self._chosen = frozenset(chosen)
        self.refused = len(order) - len(chosen)
        return self._chosen & costs.keys()

    def _see(self, at: float, costs: Mapping[str, int], weights: Mapping[str, float]) -> None:
        if self._began is None and costs:
            self._began = at
        for name, cost in costs.items():
            known = self._known.get(name)
            if known is None:
                self._known[name] = _Known(at, at, weights[name], cost)
            else:
                known.weight = max(weights[name], self._weight(known, at))
                known.seen, known.cost = at, max(cost, known.cost)
        gone = [name for name, it in self._known.items() if name not in costs and (name not in self._chosen or at - it.seen > KEPT)]
        for name in gone:
            del self._known[name]

    def _weight(self, known: _Known, at: float) -> float:
        """Its peak, as far as it still counts."""
        return known.weight if known.seen == at else known.weight * 0.5 ** ((at - known.seen) / self._half_life)
