"""Finds gunicorn's masters among the processes of a machine, by the adapter's own proof. Must not know sizes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..finding.found import Arguments, Found, Key, Table
from ..finding.invocation import application, invoked, kind_of, option
from ..finding.keys import SERVES, limits, named_by, without_pidfile
from .master import is_worker, stranger


def find(table: Table, proc_root: Path) -> Iterator[Found]:
    """Each master with its workers."""
    for master in table.processes:
        if kind_of(table.arguments(master)) != "gunicorn" or stranger(proc_root, master.id.pid):
            continue
        workers = tuple(child.id.pid for child in table.children(master) if is_worker(proc_root, child.id.pid, master.id.pid))
        if not workers:
            continue
        arguments = invoked(table.arguments(master)).arguments
        pidfile = option(arguments, "-p", "--pid")
        yield Found(
            kind="gunicorn",
            name=_name(arguments),
            master=master.id,
            workers=workers,
            uid=master.uid,
            reached="signals to its master",
            missing=tuple(without_pidfile(pidfile, "start gunicorn with --pid FILE")),
            unsized=_unsized(arguments),
            keys=(
                Key("kind", "gunicorn"),
                named_by(pidfile, master, "gunicorn's --pid"),
                *limits(len(workers), serves=True),
                SERVES,
            ),
        )


def _name(arguments: Arguments) -> str:
    """The application's; of a title the name in brackets."""
    titled = re.fullmatch(r"\[(.+)\]", arguments[-1]) if arguments else None
    return titled[1] if titled else application(arguments)


def _unsized(arguments: Arguments) -> str:
    if "--reuse-port" in arguments:
        return "each worker has a queue of its own (--reuse-port), and a worker that leaves would lose what waits there"
    return ""
