"""What each kind of queue keeps in Redis: which keys hold work that waits, and which hold work that is being done. No I/O.

Read from the sources of RQ 1.16 and 3.0, dramatiq 1.17 and 2.2, arq 0.26 and 0.28, and huey 2.5 and 3.5. Work for a later time
does not wait: RQ moves it to its list when it is due, and dramatiq's and huey's workers put it aside.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from .redis import Conversation, Place, Reply, number
from .waiting import Count, CountError

ARQ_LOOK = 1000
"""Jobs of arq, the earliest first, of which it is asked whether they are being done. Chosen: workers begin with the earliest."""


def redis_list(place: Place, _wall: int) -> Conversation:
    """The length of a list."""
    (length,) = yield [[b"LLEN", place.key_bytes()]]
    return Count(number(length, "LLEN"))


def redis_sorted_set(place: Place, wall: int) -> Conversation:
    """The members of a sorted set; with `due`, those whose score is a time that has come, in s or ms since 1970."""
    match place.options.get("due", ""):
        case "":
            (size,) = yield [[b"ZCARD", place.key_bytes()]]
        case "s" | "ms" as unit:
            now = wall // (1_000_000_000 if unit == "s" else 1_000_000)
            (size,) = yield [[b"ZCOUNT", place.key_bytes(), b"-inf", b"%d" % now]]
        case _:
            raise CountError("due is s or ms")
    return Count(number(size, "ZCARD or ZCOUNT"))


def redis_stream(place: Place, _wall: int) -> Conversation:
    """The entries of a stream; with `group`, those that this consumer group has not taken, and those taken and not acknowledged."""
    if "group" not in place.options:
        (length,) = yield [[b"XLEN", place.key_bytes()]]
        return Count(number(length, "XLEN"))
    wanted = place.options["group"].encode()
    (groups,) = yield [[b"XINFO", b"GROUPS", place.key_bytes()]]
    found = [group for group in map(_fields, groups if isinstance(groups, list) else []) if group.get(b"name") == wanted]
    if not found:
        raise CountError(f"the stream has no group {place.options['group']!r}")
    if found[0].get(b"lag") is None:
        raise CountError("it does not know how many entries the group has not read: Redis is older than 7, or entries were deleted")
    return Count(number(found[0][b"lag"], "XINFO"), number(found[0].get(b"pending"), "XINFO"))


def rq(place: Place, _wall: int) -> Conversation:
    """Jobs in RQ's lists. A worker does one at a time."""
    lengths = yield [[b"LLEN", b"rq:queue:" + name.encode()] for name in place.names()]
    return Count(sum(number(length, "LLEN") for length in lengths))


def dramatiq(place: Place, _wall: int) -> Conversation:
    """Messages in dramatiq's lists. A hash keeps each message until it is acknowledged: what is in no list any more is held."""
    space = place.options.get("namespace", "dramatiq")
    keys = [f"{space}:{name}".encode() for name in place.names()]
    replies = yield [command for key in keys for command in ([b"LLEN", key], [b"HLEN", key + b".msgs"])]
    waiting = sum(number(length, "LLEN") for length in replies[::2])
    return Count(waiting, max(0, sum(number(size, "HLEN") for size in replies[1::2]) - waiting))


def arq(place: Place, wall: int) -> Conversation:
    """Jobs in arq's sorted sets whose time (ms) has come. A job stays there until it is done, with a key of its own meanwhile."""
    now = b"%d" % (wall // 1_000_000)
    commands = []
    for name in place.names():
        commands += [
            [b"ZCOUNT", name.encode(), b"-inf", now],
            [b"ZRANGEBYSCORE", name.encode(), b"-inf", now, b"LIMIT", b"0", b"%d" % ARQ_LOOK],
        ]
    replies = yield commands
    due = sum(number(size, "ZCOUNT") for size in replies[::2])
    jobs = [job for found in replies[1::2] if isinstance(found, list) for job in found if isinstance(job, bytes)]
    if not jobs:
        return Count(due, 0)
    (held,) = yield [[b"EXISTS", *(b"arq:in-progress:" + job for job in jobs)]]
    return Count(max(0, due - number(held, "EXISTS")), number(held, "EXISTS"))


def huey(place: Place, _wall: int) -> Conversation:
    """Tasks in huey's lists, or its sorted sets if it has priorities. What a consumer has taken is nowhere in Redis."""
    keys = [b"huey.redis." + re.sub(r"[^A-Za-z0-9_]", "", name).encode() for name in place.names()]
    kinds = yield [[b"TYPE", key] for key in keys]
    sizes = yield [[b"ZCARD" if kind == b"zset" else b"LLEN", key] for key, kind in zip(keys, kinds, strict=True)]
    return Count(sum(number(size, "LLEN or ZCARD") for size in sizes))


class Kept(NamedTuple):
    """How a key of `[pools.NAME.queue]` with a Redis URL is counted."""

    conversation: Callable[[Place, int], Conversation]
    options: tuple[str, ...] = ()  # that its URL may have


IN_REDIS: Mapping[str, Kept] = MappingProxyType(
    {
        "redis_list": Kept(redis_list),
        "redis_sorted_set": Kept(redis_sorted_set, ("due",)),
        "redis_stream": Kept(redis_stream, ("group",)),
        "rq": Kept(rq),
        "dramatiq": Kept(dramatiq, ("namespace",)),
        "arq": Kept(arq),
        "huey": Kept(huey),
    }
)
"""By key of the configuration."""


def _fields(reply: Reply) -> dict[bytes, Reply]:
    """A map, which Redis sends as a list of names and values."""
    words = reply if isinstance(reply, list) else []
    return {name: value for name, value in zip(words[::2], words[1::2], strict=False) if isinstance(name, bytes)}
