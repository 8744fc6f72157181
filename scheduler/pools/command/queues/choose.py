"""The counter for a `[pools.NAME.queue]` section."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from ....config.sections import Queue
from ....hands.kernel import Clock
from ...sensing.acts import Child
from .files import FileCounter
from .frameworks import IN_REDIS
from .programs import CommandCounter, SqlCounter
from .rabbitmq import RabbitCounter
from .redis import RedisCounter, place
from .waiting import Counter


def counter(queue: Queue, start: Callable[[], Child], clock: Clock, environ: Mapping[str, str]) -> Counter:
    """`start` runs its program. Raises ValueError with the key and the cause for a URL that cannot be used."""
    if queue.files:
        return FileCounter(queue.files)
    if queue.command:
        return CommandCounter(queue.command, start)
    (setting,) = queue.urls()
    url = getattr(queue, setting)
    try:
        if url.startswith("$"):
            if not environ.get(url[1:]):
                raise ValueError(f"nicety has no environment variable {url[1:]}: set it")
            url = environ[url[1:]]
        if setting == "sql":
            return SqlCounter(url, start)
        if setting == "rabbitmq":
            return RabbitCounter(url)
        kept = IN_REDIS[setting]
        where = place(url, kept.options)
        return RedisCounter(url, setting, where, functools.partial(kept.conversation, where), clock.wall)
    except ValueError as error:
        raise ValueError(f"queue.{setting}: {error}") from None
