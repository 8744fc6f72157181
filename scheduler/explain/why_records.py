"""What `nicety why --json` prints of a decision and of an incident. `process_page.py` has that of a process."""

from __future__ import annotations

from typing import Literal

from ...models.records import Forecast
from ..printed import Printed
from ..store.records import DecisionRecord, DelayRecord
from .incident_page import IncidentRecord


class WhyDecision(DecisionRecord, frozen=True, kw_only=True):
    """A decision or refusal with what became of it, and what it rests on."""

    about: Literal["decision"] = "decision"
    forecasts: list[Forecast]  # that it rests on
    delays: list[DelayRecord]  # of all groups that waited at its tick


class WhyIncident(Printed, frozen=True, kw_only=True):
    """An incident with snapshots of the process."""

    about: Literal["incident"] = "incident"
    incident: IncidentRecord
