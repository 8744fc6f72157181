"""Finds workers of task queues that run as processes of their own: RQ, dramatiq, arq, huey. Pure: from the table.

None of them can be resized while they run. But copies of one worker can be a pool of the kind `command`: nicety starts them, and
those that run now are stopped first. Their arguments go into the block as they are.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from .found import Arguments, Found, Key, Process, Table
from .invocation import invoked, kind_of, option, positionals, whole_number
from .keys import AS_COMMAND, command_keys, stop_first

_KINDS = ("rq", "dramatiq", "arq", "huey")
_RQ_FLAGS = frozenset(
    {
        *("-b", "--burst", "-q", "--quiet", "-v", "--verbose", "-s", "--with-scheduler", "--disable-job-desc-logging"),
        *("--disable-default-exception-handler",),
    }
)
_DRAMATIQ_FLAGS = frozenset({"-v", "--verbose", "--use-spawn", "--skip-logging", "--watch-use-polling", "--version"})
_HUEY_FLAGS = frozenset({"-n", "--no-periodic", "-q", "--quiet", "-v", "--verbose", "-S", "--simple", "-f", "--flush-locks"})
_ARQ_FLAGS = frozenset({"--burst", "--no-burst", "--check", "-v", "--verbose", "--version"})


class _Worker(NamedTuple):
    """One worker of a queue as nicety would start it."""

    command: tuple[str, ...]
    name: str
    queue: str  # key of a Redis list that can be counted; "" if its arguments do not say it


def find(table: Table) -> Iterator[Found]:
    """Each pool: a main process with the workers that it has forked, or all workers that were started alike."""
    alike = defaultdict[tuple[str, int, _Worker], list[Process]](list)
    for process in table.processes:
        arguments = table.arguments(process)
        kind = kind_of(arguments)
        above = table.parent(process)
        if kind not in _KINDS or (above is not None and kind_of(table.arguments(above)) == kind):
            continue
        forked = [child.id.pid for child in table.children(process) if kind_of(table.arguments(child)) == kind]
        words = invoked(arguments).arguments
        worker = _worker(kind, arguments)
        if worker is None:
            continue
        if _forks(kind, words):
            # huey starts a process that schedules before its workers (Consumer.start)
            workers = forked[-(whole_number(words, "-w", "--workers") or 1) :] if kind == "huey" else forked
            yield _found(kind, process.id.pid, process, workers or [process.id.pid], worker)
        else:
            alike[kind, process.uid, worker].append(process)
    for (kind, _, worker), processes in sorted(alike.items()):
        yield _found(kind, None, processes[0], [process.id.pid for process in processes], worker)


def _forks(kind: str, words: Sequence[str]) -> bool:
    """Whether a process with these arguments forks its workers."""
    if kind == "rq":
        return "worker-pool" in words
    return kind == "dramatiq" or (kind == "huey" and option(words, "-k", "--worker-type") == "process")


def _worker(kind: str, arguments: Arguments) -> _Worker | None:
    """What one worker is; None if these arguments do not run workers, or are a title that does not say with what."""
    tool, words = invoked(arguments)
    before = arguments[: len(arguments) - len(words)]
    if len(arguments) == 1:
        return _Worker((), words[0] if words else "", "") if kind == "rq" and tool == "rq" else None
    if kind == "rq":
        return _rq(tool, before, words)
    if kind == "dramatiq":
        found = list(positionals(words, _DRAMATIQ_FLAGS))
        return _Worker((*before, *_one(words, "-p", "--processes")), _stem(found), "") if found else None
    if kind == "huey":
        found = list(positionals(words, _HUEY_FLAGS))
        return _Worker((*before, *_one(words, "-w", "--workers")), _stem(found), "") if found else None
    found = list(positionals(words, _ARQ_FLAGS))
    return None if not found or "--check" in words or "." not in found[0] else _Worker(arguments, _stem(found), "")


def _rq(tool: str, before: Arguments, words: Arguments) -> _Worker | None:
    found = list(positionals(words, _RQ_FLAGS))
    if tool != "rqworker":
        if not found or found[0] not in ("worker", "worker-pool"):
            return None
        before, words = (*before, "worker"), tuple(word for word in words if word != found[0])
        found = found[1:]
    plain = list(_without(words, ("-n", "--name", "--num-workers")))
    queues = found or ["default"]
    url = option(words, "-u", "--url") or "redis://127.0.0.1:6379/0"
    return _Worker((*before, *plain), f"rq-{queues[0]}", _redis_list(url, f"rq:queue:{queues[0]}"))


def _redis_list(url: str, key: str) -> str:
    """The list below a Redis URL, as `queue.redis_list` has it; "" for a URL that it does not take, such as one with TLS."""
    try:
        parts, name = urlsplit(url), quote(key, safe="")
    except ValueError:
        return ""
    database = parts.path.strip("/") or "0"
    takes = parts.scheme == "redis" and parts.netloc and not parts.query and re.fullmatch(r"\d{1,9}", database)
    return f"redis://{parts.netloc}/{database}/{name}" if takes else ""


def _one(words: Sequence[str], short: str, long: str) -> tuple[str, ...]:
    """The arguments with one worker process."""
    return (*_without(words, (short, long)), long, "1")


def _without(words: Sequence[str], names: tuple[str, ...]) -> Iterator[str]:
    """The arguments without some options and their values."""
    rest = iter(words)
    for word in rest:
        if word in names:
            next(rest, None)
        elif not any(word.startswith(f"{name}=") if name.startswith("--") else re.fullmatch(rf"{name}\d+", word) for name in names):
            yield word


def _stem(found: Sequence[str]) -> str:
    """The module of an application: 'shop.jobs:broker' is shop."""
    return re.split(r"[.:]", found[0])[0]


def _found(kind: str, main: int | None, first: Process, workers: Sequence[int], worker: _Worker) -> Found:
    pids = workers if main is None else [main]
    if not worker.command:
        hidden = "its title hides its arguments: write a command pool by hand, see docs/your-stack.md"
        return Found(kind, worker.name, None if main is None else first.id, tuple(workers), first.uid, AS_COMMAND, unsized=hidden)
    queue = (Key("queue.redis_list", worker.queue, "the first of its queues"),) if worker.queue else ()
    missing = () if worker.queue else ("say where its waiting work is counted, [pools.NAME.queue]: see docs/your-stack.md",)
    return Found(
        kind=kind,
        name=worker.name,
        master=None if main is None else first.id,
        workers=tuple(workers),
        uid=first.uid,
        reached=AS_COMMAND,
        missing=missing,
        keys=(*command_keys(worker.command, len(workers)), *queue),
        before=stop_first(pids),
    )
