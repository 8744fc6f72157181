"""What somebody should hear of: found by comparing the frames of a daemon. Pure; knows no clock and no command.

What was so before the first frame is no news. What may pass by itself must last for a minute: a pool that is reloaded, a daemon
that is restarted.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...frame import Frame
from ...printed import Printed

LASTING = 60.0
"""Seconds after which a trouble of a pool, or a missing daemon, is news (chosen: a restart and a reload take some seconds)."""

AGAIN = 300.0
"""Seconds in which the same thing about the same subject is news once (chosen)."""

MOST = 20
"""Events an hour (chosen: more is a fault that one person looks at anyway)."""

HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Event:
    """Something to hear of."""

    kind: str  # incident, pool, gone or harm
    subject: str  # the pool, the target of a decision, or the machine
    text: str  # a sentence
    id: str  # of the decision, for `nicety why`; "": none
    wall: float  # seconds since 1970
    machine: str  # its host name


class Told(Printed, frozen=True, kw_only=True):
    """What the command of `nicety notify` gets on its standard input."""

    event: str  # incident, pool, harm or gone
    subject: str  # the pool, the target of a decision, or the machine
    text: str  # a sentence
    id: str  # of the decision, for `nicety why`; "": none
    machine: str  # its host name
    wall: float  # seconds since 1970
    left_out: int  # events that were left out since the last run


class Watch:
    """Compares each look with what it knows. Times are seconds of a clock that never steps back."""

    def __init__(self) -> None:
        self._machine: str | None = None  # None: no frame was seen yet
        self._known: frozenset[tuple[str, str]] = frozenset()  # incidents and harm that were news
        self._troubles: dict[str, float] = {}  # by pool: since when; inf: it was news
        self._missing: float | None = None  # since when; inf: it was news

    def look(self, frame: Frame | None, late: bool, at: float, wall: float) -> list[Event]:
        """What is new. `late`: the frame is too old to say what is now."""
        if frame is None or late:
            return self._gone(at, wall)
        self._missing = None
        first, self._machine = self._machine is None, frame.machine.name
        found = [
            *(Event("incident", it.pool, f"{it.kind}: {it.text}", it.id, it.wall, self._machine) for it in frame.incidents),
            *(
                Event("harm", it.target, f"{it.what}: made worse what it was to improve; {it.text}", it.id, it.wall, self._machine)
                for it in reversed(frame.decisions)
                if it.effect == "hurt"
            ),
        ]
        new = [] if first else [event for event in found if (event.kind, event.id) not in self._known]
        self._known = frozenset((event.kind, event.id) for event in found)
        return new + self._pools(frame, first, at)

    def _pools(self, frame: Frame, first: bool, at: float) -> list[Event]:
        before, events = self._troubles, list[Event]()
        self._troubles = {pool.name: before.get(pool.name, NEVER if first else at) for pool in frame.pools if pool.trouble}
        for pool in frame.pools:
            if pool.trouble and at - self._troubles[pool.name] >= LASTING:
                self._troubles[pool.name] = NEVER
                events.append(Event("pool", pool.name, f"it cannot be resized: {pool.trouble}", "", frame.wall, frame.machine.name))
        return events

    def _gone(self, at: float, wall: float) -> list[Event]:
        if self._machine is None:
            return []
        if self._missing is None:
            self._missing = at
        if at - self._missing < LASTING:
            return []
        self._missing = NEVER
        text = "nicety has ended or is stuck; what it had changed is restored unless it is stuck"
        return [Event("gone", self._machine, text, "", wall, self._machine)]


NEVER = float("inf")


class Limits:
    """Lets through what is not too much."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], float] = {}  # by kind and subject, within `AGAIN`
        self._times: list[float] = []  # within the last hour
        self._left_out = 0

    def admit(self, event: Event, at: float) -> int | None:
        """How many events were left out since the last one that was admitted; None: this one is left out too."""
        self._last = {key: since for key, since in self._last.items() if at - since < AGAIN}
        self._times = [since for since in self._times if at - since < HOUR]
        key = event.kind, event.subject
        if key in self._last or len(self._times) >= MOST:
            self._left_out += 1
            return None
        self._last[key] = at
        self._times.append(at)
        left_out, self._left_out = self._left_out, 0
        return left_out
