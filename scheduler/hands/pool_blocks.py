"""What the hands know of pools: the sections of a configuration that they read themselves. Must not know what is done with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...models.lean import NamedTuple
from .settings import SettingsError


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
    drain_signal: str = "SIGTERM"
    unit: str = ""
    first: int | None = None
    counter: Sequence[str] = ()  # `queue.command`
    sql: Mapping[str, object] = {}


OF_QUEUE = ("counter", "sql")
"""Fields of a block that come from the section of its queue."""


def blocks_of(table: dict[str, object]) -> dict[str, Block]:
    """The pools of a configuration, by name. Raises SettingsError if a section of them is none."""
    pools = table.get("pools", {})
    if not isinstance(pools, dict) or not all(isinstance(pool, dict) and "kind" in pool for pool in pools.values()):
        raise SettingsError("a section of pools is none")
    found = {}
    for name, pool in pools.items():
        keys = {key: value for key, value in pool.items() if key in Block._fields and key not in OF_QUEUE}
        queue = pool.get("queue", {})
        queue = queue if isinstance(queue, dict) else {}
        found[name] = Block(**keys, counter=queue.get("command", ()), sql=queue if queue.get("sql") else {})
    return found
