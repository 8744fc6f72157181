"""Finds workers of task queues that run as processes of their own: RQ, dramatiq, arq, huey. Pure: from the table.

None of them can be resized while they run. But copies of one worker can be a pool of the kind `command`: nicety starts them, and
those that run now are stopped first. A worker of such a pool does one job at a time, see "Task queues" in docs/pools.md. All other
arguments go into the block as they are.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from ....models.identity import ProcId
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
_EXAMPLES = {
    "rq": '"redis://HOST:PORT/DB/QUEUE"',
    "dramatiq": '"redis://HOST:PORT/DB/QUEUE"',
    "arq": '"redis://HOST:PORT/DB/arq:queue"',
    "huey": '"redis://HOST:PORT/DB/NAME"',
}
"""Where each keeps its queues, as the configuration names it."""


class _Worker(NamedTuple):
    """One worker of a queue as nicety would start it."""

    command: tuple[str, ...]  # (): a title hides it
    name: str
    queue: tuple[Key, ...] = ()  # where its waiting work is counted; () if its arguments do not say it
    more: tuple[Key, ...] = ()  # other keys that its kind needs
    missing: tuple[str, ...] = ()


def find(table: Table) -> Iterator[Found]:
    """Each pool: a main process with the workers that it has forked, or all that were started alike."""
    alike = defaultdict[tuple[str, int, _Worker], list[Process]](list)
    for process in table.processes:
        arguments = table.arguments(process)
        kind = kind_of(arguments)
        above = table.parent(process)
        if kind not in _KINDS or (above is not None and kind_of(table.arguments(above)) == kind):
            continue
        worker = _worker(kind, arguments)
        if worker is not None:
            alike[kind, process.uid, worker].append(process)
    for (kind, _, worker), mains in sorted(alike.items()):
        arguments = table.arguments(mains[0])
        words = invoked(arguments).arguments
        forked = [child.id.pid for child in table.children(mains[0]) if kind_of(table.arguments(child)) == kind]
        if len(mains) > 1 or not (forked and _forks(kind, words)):
            yield _found(kind, None, mains[0], [process.id.pid for process in mains], worker, len(mains) * _jobs(kind, words))
            continue
        # huey starts a process that schedules before its workers (Consumer.start)
        workers = forked[-(whole_number(words, "-w", "--workers") or 1) :] if kind == "huey" else forked
        jobs = len(workers) * (_jobs(kind, words) if kind == "dramatiq" else 1)
        yield _found(kind, mains[0].id, mains[0], workers, worker, jobs)


def _forks(kind: str, words: Sequence[str]) -> bool:
    """Whether a process with these arguments forks its workers."""
    if kind == "rq":
        return "worker-pool" in words
    return kind == "dramatiq" or (kind == "huey" and option(words, "-k", "--worker-type") == "process")


def _jobs(kind: str, words: Sequence[str]) -> int:
    """Jobs that a process with these arguments does at once, where they say it. dramatiq has 8 threads by default (its cli.py)."""
    if kind == "dramatiq":
        return whole_number(words, "-t", "--threads") or 8
    return (whole_number(words, "-w", "--workers") or 1) if kind == "huey" else 1


def _worker(kind: str, arguments: Arguments) -> _Worker | None:
    """What one worker is; None if these arguments do not run workers, or are a title that does not say with what."""
    tool, words = invoked(arguments)
    before = arguments[: len(arguments) - len(words)]
    if len(arguments) == 1:
        return _Worker((), words[0] if words else "") if kind == "rq" and tool == "rq" else None
    if kind == "rq":
        return _rq(tool, before, words)
    flags = {"dramatiq": _DRAMATIQ_FLAGS, "huey": _HUEY_FLAGS, "arq": _ARQ_FLAGS}[kind]
    found = list(positionals(words, flags))
    if not found:
        return None
    name = re.split(r"[.:]", found[0])[0]
    where = f"say where its waiting work is counted: [pools.NAME.queue] {kind} = {_EXAMPLES[kind]}"
    if kind == "dramatiq":
        alone = (*_without(words, ("-p", "--processes", "-t", "--threads")), "--processes", "1", "--threads", "1")
        # a worker fetches two messages for each thread otherwise
        return _Worker(("env", "dramatiq_queue_prefetch=1", *before, *alone), name, missing=(where + " (or rabbitmq = URL)",))
    if kind == "huey":
        alone = (*_without(words, ("-w", "--workers", "-k", "--worker-type")), "-w", "1", "-k", "thread")
        graceful = "TERM" if option(words, "-g", "--graceful-signal") == "TERM" else "INT"
        return _Worker(
            (*before, *alone), name, more=(Key("drain_signal", f"SIG{graceful}", "it finishes its task"),), missing=(where,)
        )
    if "--check" in words or "." not in found[0]:
        return None
    waits = "set job_completion_wait in its settings: without it arq cancels the jobs of a worker that leaves"
    return _Worker(arguments, name, missing=(where, waits))


def _rq(tool: str, before: Arguments, words: Arguments) -> _Worker | None:
    found = list(positionals(words, _RQ_FLAGS))
    if tool != "rqworker":
        if not found or found[0] not in ("worker", "worker-pool"):
            return None
        at = words.index(found.pop(0))
        before, words = (*before, "worker"), (*words[:at], *words[at + 1 :])
    plain = tuple(_without(words, ("-n", "--name", "--num-workers")))
    queues = found or ["default"]
    url = option(words, "-u", "--url")
    queue = _queue_url(url or "redis://127.0.0.1:6379/0", queues)
    missing = () if url and queue else (f"if its Redis is another, correct [pools.NAME.queue] rq = {_EXAMPLES['rq']}",)
    why = "the Redis and the queues of its arguments" if url else "its Redis by default"
    return _Worker((*before, *plain), f"rq-{queues[0]}", (Key("queue.rq", queue, why),) if queue else (), missing=missing)


def _queue_url(url: str, queues: Sequence[str]) -> str:
    """Queues below a Redis URL, as `queue.rq` has them; "" for a URL that it does not take, such as one with TLS."""
    try:
        parts, names = urlsplit(url), [quote(name, safe="") for name in queues]
    except ValueError:
        return ""
    database = parts.path.strip("/") or "0"
    takes = parts.scheme == "redis" and parts.netloc and not parts.query and re.fullmatch(r"\d{1,9}", database)
    return f"redis://{parts.netloc}/{database}/{','.join(names)}" if takes else ""


def _without(words: Sequence[str], names: tuple[str, ...]) -> Iterator[str]:
    """The arguments without some options and their values."""
    rest = iter(words)
    for word in rest:
        if word in names:
            next(rest, None)
        elif not any(word.startswith(f"{name}=") if name.startswith("--") else re.fullmatch(rf"{name}\d+", word) for name in names):
            yield word


def _found(kind: str, main: ProcId | None, first: Process, workers: Sequence[int], worker: _Worker, jobs: int) -> Found:
    """`jobs`: how many they do at once now."""
    if not worker.command:
        hidden = "its title hides its arguments: write a command pool by hand, see docs/your-stack.md"
        return Found(kind, worker.name, main, tuple(workers), first.uid, AS_COMMAND, unsized=hidden)
    return Found(
        kind=kind,
        name=worker.name,
        master=main,
        workers=tuple(workers),
        uid=first.uid,
        reached=AS_COMMAND,
        missing=worker.missing,
        keys=(*command_keys(worker.command, len(workers), jobs), *worker.more, *worker.queue),
        before=stop_first(workers if main is None else [main.pid]),
    )
