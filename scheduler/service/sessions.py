"""The sessions of a daemon, one after another. A new one begins at the start, after a reload, an undo or a training, and when the
scope changes. Must not know how a decision is made, or what is acted on."""

from __future__ import annotations

import secrets
from typing import Any

from ... import __version__
from ...models.forecast.kept import Kept
from ..act.scoped import Scoped
from ..config.paths import Paths
from ..config.sections import Config, to_builtins
from ..decide.engine import Engine
from ..decision import Outcome, Session, WarmStart
from ..explain.logstream import NOTICE, WARNING
from ..hands.kernel import Clock, Kernel
from ..hands.safe_files import StoreError
from ..observe.unmatched import Watch
from ..read.facts import Facts
from ..store.decisions import DecisionLog
from ..store.traces import TraceWriter
from ..words import span
from .latest import Latest
from .live_models import models_in_use
from .pool_watch import PoolWatch
from .reports import Reports
from .settings import Settings
from .warm_start import Past, start_warm

WARM_START_SECONDS = 1.5
"""Seconds for which a start may read past pool activity. Chosen: 4.5 hours of 300 processes and 16 workers take 0.7 to 1.1 s."""


class Sessions:
    """The session in force: its record, observer, engine, decision log and traces."""

    def __init__(
        self,
        settings: Settings,
        paths: Paths,
        facts: Facts,
        kernel: Kernel,
        actuator: Scoped,
        latest: Latest,
        clock: Clock,
        reports: Reports,
        memory: dict[str, Any],
        kept: Kept | None = None,
    ) -> None:
        """Begins the first session. `memory`: the memory that its engine starts with. `kept`: what forecasts go on from."""
        self._settings, self._paths, self._facts, self._kernel = settings, paths, facts, kernel
        self._actuator, self._latest, self._clock, self._reports = actuator, latest, clock, reports
        self.log = DecisionLog(paths.stores, settings.config.store.decision_bytes)
        self.traces: TraceWriter | None = None
        self._begin(memory, *self._start_warm(), kept=kept)

    @property
    def config(self) -> Config:
        """The configuration of the session in force."""
        return self._settings.config

    def go_on(self, memory: dict[str, Any]) -> None:
        """Begin a new session and keep what was learned. If the interval changed, only the seasonal patterns of loads are kept, by
        reading them again. `memory`: the memory that the engine starts with."""
        before, learned = self.current, self.observer
        if before.config["daemon"]["interval"] != self._settings.config.daemon.interval:
            self._begin(memory, *self._start_warm())
            return
        self._begin(memory, [], None, before.id)
        self.observer.follow(learned)

    def finish(self, outcomes: tuple[Outcome, ...]) -> None:
        """Log the outcomes of an undo outside a tick, as the last tick of the session. Nothing is decided in it."""
        self._reports.stream.undone(self._clock.wall(), self.current.id, outcomes)
        tick = self.observer.closing(self._clock.monotonic(), self._clock.wall(), self._latest.outcomes)
        if tick is not None:
            self.log.append(tick, self.engine.step(tick), outcomes, None)
        self._latest.outcomes = ()

    def report_set_aside(self) -> None:
        """Report once that an unusable decision log was found and replaced."""
        if self.log.set_aside is not None:
            aside, self.log.set_aside = self.log.set_aside, None
            text = f"the old decision log cannot be read; it is kept as {aside}, and a new one was begun"
            self._reports.event(WARNING, text)

    def _begin(
        self, memory: dict[str, Any], past: Past, warm_start: WarmStart | None, follows: str = "", kept: Kept | None = None
    ) -> None:
        """Begin a new session. `past`: what earlier sessions recorded. The other arguments are as in `decision.Session`."""
        config = self._settings.config
        self._actuator.limit(config.priority.starve_seconds, config.priority.floor)
        models = models_in_use(config, self._paths.models, self._reports.event)
        self.current = session = Session(
            id=secrets.token_hex(4),
            boot_id=self._facts.boot_id,
            wall=self._clock.wall(),
            version=__version__,
            mode=self._actuator.mode,
            scope=self._actuator.scope,
            own=self._kernel.itself(),
            abilities=self._facts.abilities,
            config=to_builtins(config),
            artefacts=models.digests(),
            engine=memory,
            warm_start=warm_start,
            follows=follows,
            remembers=0 if kept is None else len(kept.keys),
        )
        self.observer = models.observer(config, session.abilities, session.own)
        self.observer.shown = True  # in the frame
        self.observer.start_warm(past)
        if kept is not None:
            self.observer.remember(kept)
        self.unmatched = Watch(config)
        self.pools_found = PoolWatch(config)
        self.engine = Engine.resume(config, session.id, memory, session.abilities.topology)
        self.log.begin(session)
        self._begin_traces()

    def _begin_traces(self) -> None:
        config = self._settings.config
        if self.traces is not None:
            self.traces.close()
        self.traces = None
        if config.store.traces:
            self.traces = TraceWriter(
                self._paths.stores,
                boot_id=self._facts.boot_id,
                session=self.current.id,
                budget_bytes=config.store.trace_bytes,
                interval=config.daemon.interval,
            )

    def _start_warm(self) -> tuple[Past, WarmStart | None]:
        """What the pools did in the newest hours, from the traces; nothing if there are none, or they cannot be read."""
        config, traces = self._settings.config, self._paths.traces
        if not config.pools or not config.store.traces or not any(traces.glob("*.db")):
            return [], None
        began = self._clock.monotonic()

        def in_time() -> bool:
            return self._clock.monotonic() - began < WARM_START_SECONDS * 1e9

        try:
            past, warm_start = start_warm(traces, self._facts.boot_id, began, self._clock.wall(), len(config.pools), in_time)
        except StoreError as error:
            self._reports.event(WARNING, f"seasonal patterns of loads have to be learned again: {error}")
            return [], None
        if past:
            seconds, back = (self._clock.monotonic() - began) / 1e9, span((began - past[0][0]) / 1e9)
            text = f"the loads of the last {back} are known from the traces, which were read in {seconds:.2g} s"
            self._reports.event(NOTICE, text, ticks=warm_start.ticks)
        return past, warm_start
