"""Finds uvicorn's supervisors among the processes of a machine, by the adapter's own proof. Must not know sizes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..finding.found import Found, Key, Table
from ..finding.invocation import application, invoked, kind_of, whole_number
from ..finding.keys import SERVES, limits, named_by, without_pidfile
from .master import is_worker, stranger


def find(table: Table, proc_root: Path) -> Iterator[Found]:
    """Each supervisor with its workers, and each uvicorn that serves in one process. One that reloads is none."""
    for main in table.processes:
        arguments = invoked(table.arguments(main)).arguments
        if kind_of(table.arguments(main)) != "uvicorn" or "--reload" in arguments or arguments[:1] == ("dev",):
            continue
        above = table.parent(main)
        if above is not None and table.arguments(above) == table.arguments(main):
            continue
        workers = tuple(child.id.pid for child in table.children(main) if is_worker(proc_root, child.id.pid))
        if not (workers or application(arguments)):
            continue
        yield Found(
            kind="uvicorn",
            name=application(arguments),
            master=main.id,
            workers=workers or (main.id.pid,),
            uid=main.uid,
            reached="signals to its supervisor",
            missing=tuple(without_pidfile(None, "have the shell that starts uvicorn write its pid into a file: see docs/pools.md")),
            unsized=_unsized(proc_root, main.id.pid, len(workers), whole_number(arguments, "--workers")),
            keys=(Key("kind", "uvicorn"), named_by(None, main, ""), *limits(len(workers), serves=True), SERVES),
        )


def _unsized(proc_root: Path, pid: int, workers: int, wanted: int | None) -> str:
    if not workers:
        return (
            "it has one worker and no supervisor: start uvicorn with --workers 2" if not wanted else "its workers have not come up"
        )
    if stranger(proc_root, pid):
        return "another program runs uvicorn here: start the application with uvicorn --workers"
    return ""
