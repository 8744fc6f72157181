"""The configuration in force, and how it is read again. Must not know what depends on it."""

from __future__ import annotations

import os

from msgspec.structs import replace

from ..config.paths import Loaded, read_config
from ..config.sections import Config, ConfigError
from ..decision import Scope
from ..read.reader import on_linux, serving
from ..scope import OBSERVE, act_on, resolve

FIXED = ("state_dir", "socket", "frame", "control_group", "reader")
"""Keys of `[daemon]` that cannot change until the next start."""


class Settings:
    """The configuration in force. All parts of the daemon share this object, so a reload replaces the configuration in one
    place."""

    def __init__(self, loaded: Loaded, *, told_to_act: bool) -> None:
        """`told_to_act`: the caller said whether to act, so `daemon.act` does not count."""
        self.path = loaded.path
        self.config = as_read(loaded.config)
        self._told_to_act = told_to_act

    def read_again(self) -> Config:
        """The configuration that the file has now; it is not in force yet. Raises ConfigError and PathError if it cannot be
        used."""
        config = read_config(self.path, os.geteuid()) if self.path is not None else Config()
        changed = [key for key in FIXED if getattr(config.daemon, key) != getattr(self.config.daemon, key)]
        if changed:
            raise ConfigError([f"daemon.{key}: cannot change while running; restart nicety" for key in changed])
        return as_read(config)

    def rescoped(self, config: Config) -> Scope | None:
        """The scope of another configuration; None if the present scope stays."""
        if self._told_to_act or configured(config) == configured(self.config):
            return None
        return configured(config)


def as_read(config: Config) -> Config:
    """The configuration without what takes figures that the reader lacks (`reader.UNREAD`), and without what only works on Linux
    (`elsewhere.ONLY_LINUX`)."""
    if serving(config.daemon.reader) == "psutil":
        action = config.quarantine.action
        config = replace(
            config,
            priority=replace(config.priority, enabled=False),
            placement=replace(config.placement, enabled=False),
            quarantine=replace(config.quarantine, action=action if action == "recycle" else "flag"),
            models=replace(config.models, behaviour=False),
        )
    if not on_linux():
        config = replace(
            config, daemon=replace(config.daemon, act=False), pools={}, models=replace(config.models, retrain_hours=0.0)
        )
    return config


def configured(config: Config) -> Scope:
    """The scope of a configuration."""
    if not config.daemon.act:
        return OBSERVE
    return act_on(OBSERVE, resolve(config.daemon.act_on, config.pools, config.groups, ()), None)
