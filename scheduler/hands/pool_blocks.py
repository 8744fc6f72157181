"""What the hands know of pools: the sections of a configuration that they read themselves. Must not know what is done with them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ...models.lean import NamedTuple
from .safe_files import check_descriptor

LARGEST_CONFIGURATION = 1 << 20
"""Most bytes of a configuration (chosen)."""


class Block(NamedTuple):
    """What the hands need of `[pools.NAME]`; the names and defaults are those of the configuration."""

    kind: str
    minimum: int = 1
    maximum: int = 8
    pidfile: str = ""
    pid: int | None = None
    stats: str = ""
    fifo: str = ""
    broker: str = "$CELERY_BROKER_URL"
    node: str = ""
    queues: Sequence[str] = ("celery",)
    python: str = ""
    command: Sequence[str] = ()
    directory: str = ""
    user: str = ""
    drain_timeout: float = 30.0
    counter: Sequence[str] = ()  # `queue.command`


def read_blocks(path: str) -> dict[str, Block]:
    """The pools of the configuration at `path`, by name.

    It must be root's, or ours, and nobody else may write to it. Raises OSError, StoreError; ValueError if it is no configuration.
    """
    import tomllib

    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        check_descriptor(path, descriptor)
        text = file.read(LARGEST_CONFIGURATION + 1)
    if len(text) > LARGEST_CONFIGURATION:
        raise ValueError(f"{path}: longer than {LARGEST_CONFIGURATION} bytes")
    raw = tomllib.loads(text.decode())
    pools = raw.get("pools", {})
    if not isinstance(pools, dict) or not all(isinstance(pool, dict) and "kind" in pool for pool in pools.values()):
        raise ValueError(f"{path}: a section of pools is none")
    found = {}
    for name, pool in pools.items():
        keys = {key: value for key, value in pool.items() if key in Block._fields and key != "counter"}
        queue = pool.get("queue", {})
        found[name] = Block(**keys, counter=queue.get("command", ()) if isinstance(queue, dict) else ())
    return found
