"""What the desk of the live view uses, as a test plays it: frames, a past, a daemon, a clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..frame import Frame
from ..store.decisions import GroupFigures, MachineFigures, TickFigures
from ..views.top.head import When
from .frames import WALL, a_frame


class LiveFrames:
    """Frames that a test puts there."""

    def __init__(self, frame: Frame | None) -> None:
        self.frame, self.said = frame, When()
        self.new = False

    def look(self, _wall: float) -> bool:
        """Whether `new` was set since the last look."""
        new, self.new = self.new, False
        return new

    def when(self, _wall: float) -> When:
        """What the test says."""
        return self.said


@dataclass
class RecordedMoment:
    """See `explain.past.Moment`."""

    frame: Frame | None
    said: str = ""
    before: Sequence[TickFigures] = ()


class RecordedSeconds:
    """A past of a tick a second."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked: list[tuple[str, float]] = []

    def at(self, wall: float) -> RecordedMoment:
        """The second before."""
        self.asked.append(("at", wall))
        self.now = float(int(wall))
        return self._then()

    def step(self, ticks: int) -> RecordedMoment:
        """So many seconds on."""
        self.asked.append(("step", ticks))
        self.now += ticks
        return self._then()

    def first(self) -> RecordedMoment:
        """A day before."""
        self.asked.append(("first", 0))
        self.now = WALL - 86400
        return self._then()

    def _then(self) -> RecordedMoment:
        figures = TickFigures(0, False, MachineFigures(0.5), [GroupFigures("redis", 0.3)], [])
        return RecordedMoment(a_frame(wall=self.now), before=[figures] * 3)


@dataclass
class AnsweringDaemon:
    """Answers as a test says, and remembers what it was asked."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    def why(self, target: str) -> str:
        """A text with the target."""
        self.asked.append(("why", (target,)))
        return f"because of {target}\n  a line"

    def ask(self, verb: str, things: Sequence[str] = ()) -> dict[str, Any]:
        """What the test put into `answers`; an exception is raised."""
        self.asked.append((verb, tuple(things)))
        answer = self.answers.get(verb, {})
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)


class StandingClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = WALL

    def monotonic(self) -> int:
        """As the wall clock."""
        return round(self.seconds * 1e9)

    def wall(self) -> int:
        """What the test set, ns."""
        return round(self.seconds * 1e9)

    def sleep_until(self, _at: int) -> None:
        """Nobody who looks may sleep."""
        raise AssertionError("the desk never sleeps")
