"""What users may request from the running daemon, verb by verb. Knows the words of the protocol, not the socket."""

from __future__ import annotations

from typing import Any

import msgspec

from ...act.scoped import Scoped
from ...decide.engine import first_memory
from ...explain.logstream import NOTICE
from ...hands.kernel import Clock
from ...scope import ScopeError, act_on, observe
from ..reports import Reports
from ..sessions import Sessions
from .acting_on import ActingOn, Names, after
from .control_socket import ControlError, Handler
from .pause import Pause
from .reloading import Reloading

READS_ONLY = frozenset({"status"})
"""Verbs that the socket answers during a tick. The others wait for its end, because they change what the tick uses."""


class Requests:
    """Answers the verbs that change something. Each method takes a request without its verb, and raises ControlError to refuse."""

    def __init__(
        self,
        pause: Pause,
        reloading: Reloading,
        actuator: Scoped,
        sessions: Sessions,
        acting_on: ActingOn,
        names: Names,
        clock: Clock,
        reports: Reports,
    ) -> None:
        self._pause, self._reloading, self._actuator, self._sessions = pause, reloading, actuator, sessions
        self._acting_on, self._names, self._clock, self._reports = acting_on, names, clock, reports

    def handlers(self) -> dict[str, Handler]:
        """The methods by verb."""
        return {
            "pause": self.pause,
            "resume": self.resume,
            "reload": self.reload,
            "undo": self.undo,
            "act": self.act,
            "observe": self.observe,
        }

    def pause(self, request: dict[str, Any]) -> dict[str, Any]:
        """Decide nothing new, for the seconds that the request gives or until `resume`."""
        seconds = _seconds_of(request)
        self._pause.begin(seconds)
        self._reports.event(NOTICE, "paused" if seconds is None else f"paused for {seconds:g} s")
        return {}

    def resume(self, _request: dict[str, Any]) -> dict[str, Any]:
        """End a pause."""
        self._pause.end()
        self._reports.event(NOTICE, "resumed")
        return {}

    def reload(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Read configuration and models again."""
        trouble = self._reloading.reload()
        if trouble:
            raise ControlError(f"the old configuration stays in force: {trouble}")
        return {}

    def undo(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Restore everything and pause. The engine forgets everything except the pauses of pairs."""
        self._pause.begin(None)
        outcomes = self._actuator.undo()
        self._sessions.finish(outcomes)
        self._sessions.go_on(first_memory(self._sessions.engine.pauses.values()))
        return {"outcomes": msgspec.to_builtins(outcomes)}

    def act(self, request: dict[str, Any]) -> dict[str, Any]:
        """Act on the named things in addition to the present scope; on everything if nothing is named."""
        seconds, named = _seconds_of(request), self._named(request)
        scope = act_on(self._acting_on.scope, named, after(seconds, self._clock))
        trouble = self._acting_on.prepare(scope)
        if trouble:
            raise ControlError(trouble)
        self._acting_on.switch(scope)
        return self._acting_on.record()

    def observe(self, request: dict[str, Any]) -> dict[str, Any]:
        """Observe the named things; everything if nothing is named. Changes in force there are restored."""
        outcomes = self._acting_on.switch(observe(self._acting_on.scope, self._named(request)))
        return self._acting_on.record() | {"outcomes": msgspec.to_builtins(outcomes)}

    def _named(self, request: dict[str, Any]) -> tuple[str, ...]:
        """The things that a request names."""
        given = request.get("things", [])
        if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
            raise ControlError("things must be a list of names of policies, pools and groups")
        try:
            return self._names.things(given)
        except ScopeError as error:
            raise ControlError(str(error)) from None


def _seconds_of(request: dict[str, Any]) -> float | None:
    """The duration that a request gives, None if it gives none."""
    seconds = request.get("seconds")
    if seconds is None or (isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < 1e9):
        return seconds
    raise ControlError(f"{seconds!r} is not a length of time in seconds")
