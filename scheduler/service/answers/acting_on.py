"""What the daemon acts on while it runs: the names that users may give, the grants and when they end, and the switch from one scope
to another. Must not know how a change is made or decided."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ...act.scoped import Scoped, as_record, unable, words
from ...decision import Outcome, Scope
from ...explain.logstream import NOTICE, WARNING
from ...hands.kernel import Clock
from ...hands.ledger import LedgerError
from ...observe.measure import group_names
from ...ports import Hands
from ...read.reader import UNREAD, on_linux, open_source, serving
from ...scope import OBSERVE, act_on, acts, left, resolve
from ..elsewhere import ONLY_LINUX
from ..latest import Latest
from ..notify import Notifier
from ..readings import Readings
from ..reports import Reports
from ..sessions import Sessions
from ..settings import Settings, configured


class Names:
    """The names that users may give: policies, pools and groups of the configuration, and groups that exist now."""

    def __init__(self, settings: Settings, pools: Readings, latest: Latest, clock: Clock) -> None:
        self._settings, self._pools, self._latest, self._clock = settings, pools, latest, clock

    def things(self, named: Sequence[str]) -> tuple[str, ...]:
        """The things that are named. Raises ScopeError for a name that is unknown here or means two things."""
        if not named:
            return ()
        config = self._settings.config
        return resolve(named, config.pools, config.groups, self.groups_now())

    def groups_now(self) -> set[str]:
        """Groups that have processes now, and those of the last tick."""
        source = open_source(self._settings.config.daemon.reader, slow_every=1)
        try:
            snapshot = source.read(self._clock.monotonic(), self._clock.wall(), tuple(self._pools.samples.values()))
        finally:
            source.close()
        return group_names(self._settings.config, snapshot, os.geteuid()) | {group.name for group in self._latest.groups}

    def first_scope(self, act: bool | None, named: Sequence[str], seconds: float | None) -> Scope:
        """The scope at the start. `act`: whether the caller said to act; None leaves it to the configuration. If true, the scope is
        what is `named`, or else `daemon.act_on`, for `seconds` (None: without end). Raises ScopeError as `things` does."""
        config = self._settings.config
        if act is None:
            return configured(config)
        if not act or not on_linux():
            return OBSERVE
        things = self.things(named) or resolve(config.daemon.act_on, config.pools, config.groups, ())
        return act_on(OBSERVE, things, after(seconds, self._clock))


class ActingOn:
    """The scope in force."""

    def __init__(
        self, actuator: Scoped, sessions: Sessions, hands: Hands, notifier: Notifier, clock: Clock, reports: Reports
    ) -> None:
        self._actuator, self._sessions, self._hands = actuator, sessions, hands
        self._notifier, self._clock, self._reports = notifier, clock, reports

    @property
    def scope(self) -> Scope:
        """What is acted on now."""
        return self._actuator.scope

    def prepare(self, scope: Scope) -> str:
        """Why this scope cannot be acted on, "" if it can."""
        if scope.grants and not on_linux():
            return f"cannot act: {ONLY_LINUX}"
        try:
            trouble = self._actuator.prepare(scope)
        except LedgerError as error:
            trouble = str(error)
        return f"cannot act: {trouble}" if trouble else ""

    def end_grants(self, now: int) -> None:
        """End the grants whose time is over."""
        scope = left(self.scope, now)
        if scope != self.scope:
            self._reports.event(NOTICE, "the time to act is over")
            self.switch(scope)

    def switch(self, scope: Scope) -> tuple[Outcome, ...]:
        """Switch to another scope, and begin a session for it. What leaves the scope is restored, what enters it is proposed again,
        and what stays in it stays in force. Returns the outcomes of restoring."""
        before, engine = self.scope, self._sessions.engine
        self._actuator.act_on(scope)
        stays = [each.undone_by for each in engine.standing() if acts(before, each.about) and acts(scope, each.about)]
        outcomes = self._actuator.keep(held for held in stays if held is not None)
        self._sessions.finish(outcomes)
        engine.forget(lambda each: acts(scope, each.about) and not acts(before, each.about))
        self._sessions.go_on(engine.memory())
        self.announce("now ")
        return outcomes

    def announce(self, start: str) -> None:
        """Report what is acted on from now on, and first which part of it cannot be done."""
        cannot, scope = self.cannot(), self.scope
        if cannot:
            self._reports.event(WARNING, cannot)
        named = {"things": [grant.thing for grant in scope.grants], "spared": list(scope.spared)} if scope.grants else {}
        self._reports.event(NOTICE, start + self.words(), mode=self._actuator.mode, **named)
        self._notifier.ready(self.words())

    def cannot(self) -> str:
        """Which changes cannot be made here, and why; "" if all can be made, or nothing is acted on. What the reader or this kind
        of machine rules out is said even then: it is not decided either."""
        if not on_linux():
            return ONLY_LINUX
        if serving(self._sessions.config.daemon.reader) == "psutil":
            return UNREAD
        return unable(self._hands) if self.scope.grants else ""

    def words(self) -> str:
        """The scope for people."""
        return words(self.scope, self._clock.monotonic())

    def record(self) -> dict[str, Any]:
        """The scope for programs."""
        now, wall = self._clock.monotonic(), self._clock.wall()
        return {"mode": self._actuator.mode, "scope": words(self.scope, now), **as_record(self.scope, now, wall)}


def after(seconds: float | None, clock: Clock) -> int | None:
    """The monotonic time in `seconds` from now, ns; None if there is no end."""
    return None if seconds is None else clock.monotonic() + round(seconds * 1e9)
