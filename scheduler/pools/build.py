"""Builds the adapters for a configuration's pools. Must not know what is done with them."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from pathlib import Path

from ..config.sections import Config, ConfigError
from ..hands.kernel import Clock
from ..hands.pool_places import KINDS
from ..ports import PoolAdapter
from .celery.adapter import CeleryPool
from .command.adapter import CommandPool
from .executor import ExecutorPool
from .gunicorn.adapter import GunicornPool
from .sensing.acts import Acts, Ask, in_process
from .supervised.adapter import SupervisedPool
from .uwsgi.adapter import UwsgiPool


def build(
    config: Config,
    clock: Clock,
    proc_root: Path = Path("/proc"),
    *,
    state_dir: Path,
    environ: Mapping[str, str] | None = None,
    ask: Ask | None = None,
) -> dict[str, PoolAdapter]:
    """An adapter for each `[pools.NAME]`, by name. Nothing is started or signalled before the first probe.

    `state_dir` takes the output of command pools' workers (`pools/NAME.log`). Workers inherit `environ`, by default the process's
    own. A daemon that sets variables for itself passes the environment that it was started with. `ask` has the hands do what needs
    their rights, see `sensing.acts`; None: this process does it with its own.
    Raises ConfigError for a queue that cannot be read and for an invalid stats address.
    """
    pools: dict[str, PoolAdapter] = {}
    problems = []
    environ = os.environ if environ is None else environ
    logs = state_dir / "pools"
    if ask is None:
        ask = in_process(config.pools, clock, proc_root, environ=environ, logs=logs)
    for name, pool in sorted(config.pools.items()):
        acts = Acts(name, ask, logs)
        if pool.kind == "gunicorn":
            pools[name] = GunicornPool(name, pool, clock, acts, proc_root)
            continue
        if pool.kind == "celery":
            pools[name] = CeleryPool(name, pool, clock, acts, proc_root)
            continue
        if pool.kind == "executor":
            pools[name] = ExecutorPool(name, pool, clock, proc_root, environ=environ)
            continue
        if pool.kind == "uwsgi":
            try:
                pools[name] = UwsgiPool(name, pool, clock, acts, proc_root)
            except ValueError as error:
                problems.append(f"configuration: pools.{name}.stats: {error}")
            continue
        if pool.kind in KINDS:
            try:
                pools[name] = SupervisedPool(name, pool, clock, acts, proc_root, environ=environ)
            except ValueError as error:
                problems.append(f"configuration: pools.{name}.{error}")
            continue
        try:
            pools[name] = CommandPool(name, pool, clock, acts, proc_root, seed=zlib.crc32(name.encode()), environ=environ)
        except ValueError as error:
            problems.append(f"configuration: pools.{name}.{error}")
    if problems:
        raise ConfigError(problems)
    return pools
