"""The metrics of one daemon in the formats of Prometheus and OpenMetrics. Follows its frames.

One answer serves all that ask within the same tick.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from ...hands.kernel import Clock
from ..source import FrameSource
from .catalogue import Metric
from .figures import Figures, Sample, Seen
from .text import Text

OPEN = "application/openmetrics-text"


class Answer(NamedTuple):
    """What a reader gets."""

    body: bytes
    content_type: str


class Exporter:
    """Follows one daemon, and renders what is known of it."""

    def __init__(self, source: FrameSource, limit: int, clock: Clock, say: Callable[[str], None]) -> None:
        """`limit`: most series. `say`: takes what a person should know."""
        self._source, self._clock, self._say = source, clock, say
        self._figures = Figures(limit)
        self._texts = {open_: Text(open_) for open_ in (False, True)}
        self._lock = threading.Lock()
        self._made: dict[tuple[object, ...], Answer] = {}
        self._trouble = ""
        self._refused = False

    def answer(self, accept: str) -> Answer:
        """The metrics. `accept`: what the reader takes, as in HTTP; OpenMetrics is preferred, because it has exemplars."""
        with self._lock:
            seen = self._look()
            open_ = any(part.partition(";")[0].strip() == OPEN for part in accept.split(","))
            frame = seen.frame
            tick = None if frame is None else (frame.own.session, frame.seq, round(seen.age))
            key = (open_, tick, seen.late, seen.unreadable)
            if key not in self._made:
                self._made = {known: made for known, made in self._made.items() if known[1:] == key[1:]}
                text = self._texts[open_]
                self._made[key] = Answer(text.of(self._samples(seen)), text.content_type)
            return self._made[key]

    def samples(self) -> dict[Metric, list[Sample]]:
        """The samples of the newest frame."""
        with self._lock:
            return self._samples(self._look())

    def _look(self) -> Seen:
        source = self._source
        source.look()
        if source.trouble and source.trouble != self._trouble:
            self._say(source.trouble)
        self._trouble = source.trouble
        wall = self._clock.wall() / 1e9
        age = 0.0 if source.frame is None else max(0.0, wall - source.frame.wall)
        return Seen(source.frame, age, source.late(wall) > 0, source.trouble != "")

    def _samples(self, seen: Seen) -> dict[Metric, list[Sample]]:
        samples = self._figures.of(seen, self._clock.monotonic() / 1e9)
        figures = self._figures
        if figures.refused and not self._refused:
            self._refused = True
            self._say(f"{' and '.join(figures.refused)}, to stay within {figures.limit} series; raise --series to see them")
        return samples
