"""Names places as decisions do, for tests that try every control. Must not read the machine."""

from __future__ import annotations

from ...models.identity import ProcId
from ..hands.places import Control
from ..places import ProcessPlace, SessionPlace


def place_of(control: Control, process: ProcId) -> ProcessPlace | SessionPlace:
    """What a decision names to change this control of a process; for AUTOGROUP the session that the process leads."""
    return SessionPlace(process.pid, process) if control is Control.AUTOGROUP else ProcessPlace(process)
