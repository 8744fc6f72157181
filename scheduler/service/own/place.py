"""Where the daemon stands beside the services: its priority, its CPU and its time slice. Must not know decisions.

The daemon keeps the share of a CPU that its ticks need. Beside a service that has work it takes no more than that.
"""

from __future__ import annotations

from collections.abc import Sequence

from ....models.identity import ProcId
from ....models.records import Class
from ...decide.policies.priority.contention import INTERACTIVE_DEMAND
from ...decision import Group
from ...hands.knobs.slices import LONGEST, SHORTEST, ask_for
from ..settings import Settings
from .cpu import stand_aside
from .ladder import Rest
from .priority import OwnPriority, SetsOwnNice

SLOW, SLOW_STANDING_BACK = 0.1, 0.25
"""Share of the interval for which the daemon may wait for a CPU in a tick, usually and while it stands back. Chosen: its decisions
and answers are late by this much."""


class OwnPlace:
    """Makes way for services, and climbs when ticks are late."""

    def __init__(self, settings: Settings, hands: SetsOwnNice | None = None) -> None:
        self._settings = settings
        self.priority = OwnPriority(hands=hands)

    def make_way(self, services: Sequence[ProcId]) -> None:
        """Call before a tick that could delay these services. Leaves their CPU and lets them run first."""
        stand_aside(services)
        if self.priority.nice > 0:
            ask_for(LONGEST)  # its deadline is then behind all others: see `priority.py`

    def keep_up(self, now: int, *, demoted: bool, services: Sequence[ProcId]) -> None:
        """Call often. `demoted`: something is demoted; `services`: processes of services that have work."""
        rest = Rest.BACK if demoted else Rest.ASIDE if services else Rest.USUAL
        self.priority.follow(now, rest, self._most_wait())

    def ticked(self, now: int, took: int) -> None:
        """Call after each tick with the ns from when it was due to its end."""
        self.priority.ticked(now, took, self._most_wait())

    def _most_wait(self) -> int:
        """How long the daemon may wait for a CPU in a tick, ns."""
        return round((SLOW_STANDING_BACK if self.priority.nice > 0 else SLOW) * self._settings.config.daemon.interval * 1e9)


def ask_for_the_shortest() -> None:
    """Ask for the shortest time slice: a task that wakes beside the daemon then waits 0.1 ms instead of several."""
    ask_for(SHORTEST)


def services_at_work(groups: Sequence[Group]) -> tuple[ProcId, ...]:
    """Processes of interactive groups that have work, the group with the most demand first. The daemon makes way for them."""
    working = [group for group in groups if group.class_ is Class.INTERACTIVE and group.demand >= INTERACTIVE_DEMAND]
    return tuple(member.id for group in sorted(working, key=lambda group: -group.demand) for member in group.members)
