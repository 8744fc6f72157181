"""Writes the frame of each tick: collects what the parts of the daemon know about it. Changes nothing."""

from __future__ import annotations

import os
import socket
from typing import Any

from ... import __version__
from ..act.scoped import Scoped
from ..decision import Outcome, Tick, Verdict
from ..explain.frames import Recent, frame_of
from ..explain.in_force import sum_up
from ..frame import Own, pack
from ..hands.kernel import Clock
from .answers.acting_on import ActingOn
from .answers.pause import Pause
from .frame_file import FrameFile
from .latest import Latest
from .own.budget import Budget
from .own.cost import Helpers, own_cpu_ns, resident_bytes
from .reports import Reports
from .sessions import Sessions

SLOW_TICKS = 10
"""Ticks between two looks at what moves slowly or is dear: the daemon's memory, and the sums of what is in force while nothing was
done (chosen)."""


class Framing:
    """Makes and writes the frames of a daemon."""

    def __init__(
        self,
        file: FrameFile,
        sessions: Sessions,
        acting_on: ActingOn,
        actuator: Scoped,
        latest: Latest,
        pause: Pause,
        budget: Budget,
        helpers: Helpers,
        reports: Reports,
        clock: Clock,
        started: int,
    ) -> None:
        """`started`: when the daemon started, monotonic ns."""
        self._file, self._sessions, self._acting_on, self._actuator = file, sessions, acting_on, actuator
        self._latest, self._pause, self._budget, self._helpers, self._clock = latest, pause, budget, helpers, clock
        self._reports = reports
        self._started = started
        self._recent = Recent()
        self._name = socket.gethostname()
        self._written = 0
        self._memory = 0
        self._changes: list[dict[str, Any]] = []

    @property
    def trouble(self) -> str:
        """Why the last frame was not written; "": it was."""
        return self._file.trouble

    def write(self, tick: Tick, verdict: Verdict, outcomes: tuple[Outcome, ...]) -> None:
        """Write the frame of a tick that was decided and logged."""
        wall = tick.wall / 1e9
        self._recent.add(wall, verdict, outcomes)
        if self._file.path is None:
            return
        if self._written % SLOW_TICKS == 0:
            self._memory = resident_bytes() + self._helpers.resident_bytes()
        if self._written % SLOW_TICKS == 0 or outcomes or tick.outcomes:
            self._changes = sum_up(self._actuator.outstanding(), self._sessions.engine.made_for())
        self._written += 1
        notes = [note.text for note in self._latest.notes]
        sessions = self._sessions
        frame = frame_of(
            tick, self._own(), self._name, sessions.config, self._recent, self._changes, notes, sessions.observer.made_of()
        )
        self._file.write(pack(frame))

    def close(self) -> None:
        """Remove the frame."""
        self._file.remove()

    def _own(self) -> Own:
        now, sessions, latest, budget = self._clock.monotonic(), self._sessions, self._latest, self._budget
        record = self._acting_on.record()
        return Own(
            pid=os.getpid(),
            version=__version__,
            mode=record["mode"],
            scope=record["scope"],
            acting_on=[grant["thing"] for grant in record["acting_on"]],
            spared=[spared["thing"] for spared in record["spared"]],
            cannot=self._acting_on.cannot(),
            paused=self._pause.holds(now),
            session=sessions.current.id,
            interval=sessions.config.daemon.interval,
            running=round((now - self._started) / 1e9, 3),
            ticks=latest.ticks,
            missed=latest.missed,
            cpu=round((own_cpu_ns() + self._helpers.cpu_ns()) / 1e9, 4),
            memory=self._memory,
            budget=budget.limit,
            reduced=list(budget.reduced),
            troubles=self._reports.now(),
            lost=sessions.log.dropped + (0 if sessions.traces is None else sessions.traces.dropped),
        )
