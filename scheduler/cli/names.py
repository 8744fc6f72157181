"""Names for the completion of a shell: policies, and pools and groups of the configuration. Never fails and prints nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable

import typer


def pools(context: typer.Context, incomplete: str) -> list[str]:
    """Pools of the configuration."""
    return starting(incomplete, _configured(context)[0])


def pools_and_groups(context: typer.Context, incomplete: str) -> list[str]:
    """Pools and groups of the configuration."""
    found, groups = _configured(context)
    return starting(incomplete, (*found, *groups))


def things(context: typer.Context, incomplete: str) -> list[str]:
    """What nicety can act on: policies, and pools and groups of the configuration."""
    from ..scope import POLICIES

    found, groups = _configured(context)
    return starting(incomplete, (*POLICIES, *found, *groups))


def starting(incomplete: str, names: Iterable[str]) -> list[str]:
    """Those of the names that begin like the word at the cursor, each once."""
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def _configured(context: typer.Context) -> tuple[list[str], list[str]]:
    """(pools, groups) of the configuration that the words so far name, or the usual one; none if it cannot be read."""
    from ..config.paths import PathError, load_config
    from ..config.sections import ConfigError

    named = [level.params.get("config") for level in (context, context.parent) if level is not None]
    try:
        config = load_config(next(filter(None, named), None), os.environ, os.geteuid()).config
    except (ConfigError, PathError, OSError):
        return [], []
    return sorted(config.pools), sorted(config.groups)
