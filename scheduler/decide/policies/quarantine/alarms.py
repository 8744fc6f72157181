"""The budget of alarms: how many incidents are reported one by one in a day, and the line that sums up the others. Pure."""

from __future__ import annotations

import msgspec

from ....decision import Why
from ..policy import Memory, figures

DAY = 86_400.0
"""Seconds for which a report counts against the budget, `quarantine.alarms_per_day`."""

DIGEST_SECONDS = 3600.0
"""Seconds between two lines that sum up the incidents beyond the budget of alarms (chosen)."""


class Alarms(Memory):
    """The reports of the last day."""

    reports: list[int] = msgspec.field(default_factory=list)  # ns of each
    beyond: dict[str, int] = msgspec.field(default_factory=dict)  # "kind in pool" -> incidents since the last digest
    digested: int | None = None  # ns of the last digest

    def left(self, at: int, budget: int) -> int:
        """How many incidents may still be reported."""
        self.reports = [report for report in self.reports if at - report < DAY * 1e9]
        return budget - len(self.reports)

    def mute(self, kind: str, pool: str) -> None:
        """One more incident that is only counted."""
        name = f"{kind} in {pool}"
        self.beyond[name] = self.beyond.get(name, 0) + 1

    def due(self, at: int) -> int:
        """The incidents to be summed up now; 0: none, or not yet."""
        if self.digested is not None and at - self.digested < DIGEST_SECONDS * 1e9:
            return 0
        return sum(self.beyond.values())

    def why(self, budget: int) -> Why:
        """The line that sums them up."""
        many = sum(self.beyond.values())
        kinds = ", ".join(f"{count} {name}" for name, count in sorted(self.beyond.items()))
        text = (
            f"{many} more incidents: {kinds}. {budget} were reported within 24 h (quarantine.alarms_per_day), so these are not "
            "reported one by one, and nothing is done about them."
        )
        return Why("budget of alarms", text, figures(incidents=many, alarms_per_day=budget), (), ())

    def digest(self, at: int) -> None:
        """The incidents beyond the budget were summed up at this time."""
        self.beyond.clear()
        self.digested = at
