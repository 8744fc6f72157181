"""A reload: checks the new configuration, then exchanges what depends on it. Must not know decisions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from ...act.scoped import Scoped
from ...config.paths import PathError
from ...config.sections import Config, ConfigError, PoolConfig
from ...explain.logstream import ERROR, NOTICE
from ...hands.kernel import Clock
from ...hands.wire import RefusedError
from ...pools.build import build
from ...pools.sensing.acts import Ask
from ...ports import PoolAdapter
from ..notify import Notifier
from ..own.budget import Budget
from ..readings import Readings
from ..replays import Replays
from ..reports import Reports
from ..retraining import Retraining
from ..sessions import Sessions
from ..settings import Settings
from .acting_on import ActingOn


class Reloading:
    """Exchanges the configuration of the running daemon."""

    def __init__(
        self,
        root: Path,
        settings: Settings,
        pools: Readings,
        actuator: Scoped,
        sessions: Sessions,
        acting_on: ActingOn,
        budget: Budget,
        retraining: Retraining,
        replays: Replays,
        notifier: Notifier,
        clock: Clock,
        reports: Reports,
        ask: Ask | None = None,
    ) -> None:
        """`root`: the state directory; `ask`: asks the hands, if they are a process of their own."""
        self._ask = ask
        self._root, self._settings, self._pools, self._actuator = root, settings, pools, actuator
        self._sessions, self._acting_on, self._budget, self._retraining = sessions, acting_on, budget, retraining
        self._notifier, self._clock, self._reports, self._replays = notifier, clock, reports, replays

    def reload(self) -> str:
        """Read configuration and models again. Returns why the old ones stay, "" if the new ones are in force.

        What was learned stays, except for what is defined differently now. What the engine remembers stays too, with every change
        in force. Pools whose section did not change keep their adapter and their workers. Pools that are no longer configured get
        their original size back.
        """
        self._notifier.reloading(self._clock.monotonic())
        try:
            config = self._settings.read_again()
            scope = self._settings.rescoped(config)
            trouble = self._acting_on.prepare(scope) if scope is not None else ""
            if trouble:
                raise ConfigError([f"daemon.act: {trouble}"])
            made = build(config, self._clock, state_dir=self._root, ask=self._ask)
        except (ConfigError, PathError) as error:
            self._reports.event(ERROR, f"reload: the old configuration stays in force: {error}")
            self._notifier.ready(self._acting_on.words())
            return str(error)
        self._exchange_pools(config, made)
        if config.store.decision_bytes != self._settings.config.store.decision_bytes:
            self._sessions.log.limit(config.store.decision_bytes)
        self._settings.config = config
        self._budget.limit = config.daemon.budget
        self._retraining.configure(config.models, self._clock.monotonic())
        self._replays.configure(config, self._clock.monotonic())
        if scope is not None:
            self._acting_on.switch(scope)
        else:
            self._sessions.go_on(self._sessions.engine.memory())
        self._reports.event(NOTICE, "reloaded")
        self._notifier.ready(self._acting_on.words())
        return ""

    def _exchange_pools(self, config: Config, made: Mapping[str, PoolAdapter]) -> None:
        """Release the pools whose section changed, and use the adapters `made` for them."""
        old = self._settings.config.pools
        kept = {name for name in config.pools if config.pools[name] == old.get(name)}
        leaving = sorted(self._pools.adapters.keys() - kept)
        outcomes = self._actuator.release([name for name in leaving if is_released(old[name], config.pools.get(name))])
        if outcomes:
            self._sessions.finish(outcomes)
        for name in leaving:
            self._pools.drop(name)
        if self._ask is not None:  # not before: until here the hands had to know what is released
            try:
                self._ask("pool.reload")
            except RefusedError as refusal:
                self._reports.event(ERROR, f"the hands keep to the pools that they had: {refusal}")
        self._pools.adapters.update((name, pool) for name, pool in made.items() if name not in kept)


def is_released(before: PoolConfig, now: PoolConfig | None) -> bool:
    """Whether to release a pool. Not if both sections mean the same running pool. A command pool's workers end with its adapter."""
    if now is None or before.kind == "command":
        return True
    return msgspec.structs.replace(now, minimum=before.minimum, maximum=before.maximum, class_=before.class_) != before
