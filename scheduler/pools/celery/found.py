"""Finds Celery's worker nodes among the processes of a machine, by their arguments or titles. Must not know sizes.

A node proves itself to the adapter: it must answer with the pid of the main process before it is resized.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..finding.found import Arguments, Found, Key, Process, Table
from ..finding.invocation import invoked, kind_of, option
from ..finding.keys import WORKS_OFF, limits, named_by, without_pidfile

_TITLE = re.compile(r"\[celeryd: (?P<node>\S+?):MainProcess\][^(]*(\((?P<arguments>.*)\))?")
_NO_PROCESSES = frozenset({"threads", "gevent", "eventlet", "solo"})


def find(table: Table) -> Iterator[Found]:
    """Each main process with its pool processes."""
    for main in table.processes:
        arguments = _arguments(table, main)
        above = table.parent(main)
        if arguments is None or (above is not None and _like(table, above, main)):
            continue
        workers = tuple(child.id.pid for child in table.children(main) if _like(table, main, child))
        pidfile, node = option(arguments, "--pidfile"), option(arguments, "-n", "--hostname")
        queues = option(arguments, "-Q", "--queues")
        broker = option(arguments, "-b", "--broker")
        keys = [Key("kind", "celery"), named_by(pidfile, main, "the worker's --pidfile")]
        keys += [Key("node", node, "as it was started")] if node else []
        keys.append(
            Key("broker", broker, "as it was started; $NAME takes it from the environment")
            if broker
            else Key("broker", "$CELERY_BROKER_URL", "of the node's environment; or give the URL")
        )
        keys += [Key("queues", queues.split(","), "as it was started")] if queues else []
        missing = () if broker else ("if the application's own code names its broker, give broker = URL",)
        yield Found(
            kind="celery",
            name=_name(arguments, node),
            master=main.id,
            workers=workers or (main.id.pid,),
            uid=main.uid,
            reached="its remote control",
            missing=(*without_pidfile(pidfile, "start the worker with --pidfile FILE"), *missing),
            unsized=_unsized(arguments),
            keys=(*keys, *limits(max(len(workers), 1), serves=False), WORKS_OFF),
        )


def _arguments(table: Table, process: Process) -> Arguments | None:
    """The arguments of a worker node after `worker`, with the options before it; None for any other process."""
    raw = table.arguments(process)
    if kind_of(raw) != "celery":
        return None
    titled = _TITLE.match(raw[0])
    words = (titled["arguments"] or "").split() if titled else list(invoked(raw).arguments)
    if titled:
        return (*words, "-n", titled["node"])
    return tuple(words) if "worker" in words and not raw[0].startswith("[") else None


def _like(table: Table, main: Process, child: Process) -> bool:
    """Whether a child is a pool process of this main process: a fork of it, with its arguments or with a title of its own."""
    own, arguments = table.arguments(main), table.arguments(child)
    if kind_of(own) != "celery" or not arguments:
        return False
    return own == arguments or (_TITLE.match(own[0]) is not None and "ForkPoolWorker" in arguments[0])


def _name(arguments: Arguments, node: str | None) -> str:
    """The node's, where it has one of its own; else the application's."""
    own = (node or "").partition("@")[0]
    return own if own and own != "celery" else (option(arguments, "-A", "--app") or "").split(".")[0].partition(":")[0]


def _unsized(arguments: Arguments) -> str:
    if option(arguments, "--autoscale") is not None:
        return "it sizes itself (--autoscale): start it without"
    kind = option(arguments, "-P", "--pool") or "prefork"
    return f"the pool {kind} has no processes to size: start it with --pool prefork" if kind in _NO_PROCESSES else ""
