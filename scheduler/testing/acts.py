"""What is done to one pool, by this process with its own rights: for tests and benchmarks of a single adapter."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ..config.sections import PoolConfig
from ..hands.kernel import Clock
from ..pools.sensing.acts import Acts, in_process


def own_acts(
    name: str,
    config: PoolConfig,
    clock: Clock,
    *,
    logs: Path = Path("/nowhere"),
    environ: Mapping[str, str] | None = None,
    agent: str | None = None,
) -> Acts:
    """The acts of this pool. `logs`: for command pools; `environ`: None is this process's; `agent`: None is the shipped one."""
    environ = os.environ if environ is None else environ
    return Acts(name, in_process({name: config}, clock, environ=environ, logs=logs, agent=agent), logs)
