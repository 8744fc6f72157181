"""Finds web servers that have workers and no adapter: hypercorn, granian, php-fpm, puma, unicorn. Each with the reason why
it is not sized, and what to do instead. Pure: from the table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from .found import Arguments, Found, Process, Table
from .invocation import application, invoked, kind_of

_SPAWNED = "--multiprocessing-fork"
"""The last argument of a process that multiprocessing has spawned (Lib/multiprocessing/spawn.py)."""

_UNSIZED: Mapping[str, str] = MappingProxyType(
    {
        "hypercorn": "its workers are counted once, at its start (--workers), and no signal or request changes their number: run "
        "the application under gunicorn or uvicorn",
        "granian": "its workers are counted once, at its start (--workers), and no signal or request changes their number: run the "
        "application under gunicorn or uvicorn",
        "php-fpm": "it sizes its pools itself (pm = dynamic or ondemand)",
        "puma": "nicety has no adapter for it: puma itself takes TTIN and TTOU",
        "unicorn": "nicety has no adapter for it: unicorn itself takes TTIN and TTOU",
    }
)
"""Why each kind is not resized."""

_ONE = "it has one worker only"
_FPM = re.compile(r"php-fpm: pool (\S+)")


def find(table: Table) -> Iterator[Found]:
    """Each server with its workers; of php-fpm each of its pools."""
    for master in table.processes:
        kind = kind_of(table.arguments(master))
        if kind == "hypercorn":
            yield from _spawning(table, master, kind)
        elif kind == "granian":
            yield from _titled(table, master, kind, re.escape(table.arguments(master)[0]) + r" worker-\d+")
        elif kind == "puma":
            yield from _titled(table, master, kind, r"puma: cluster worker \d+: .*")
        elif kind == "unicorn":
            yield from _titled(table, master, kind, r"unicorn(_rails)? worker\[\d+\].*")
        elif kind == "php-fpm":
            yield from _php(table, master)


def _spawning(table: Table, master: Process, kind: str) -> Iterator[Found]:
    """A server of Python that spawns its workers, or serves in one process."""
    arguments = invoked(table.arguments(master)).arguments
    workers = tuple(child.id.pid for child in table.children(master) if _SPAWNED in table.arguments(child)[-1:])
    if "--reload" in arguments or not (workers or application(arguments)):
        return
    yield _seen(kind, master, workers, application(arguments), arguments)


def _titled(table: Table, master: Process, kind: str, title: str) -> Iterator[Found]:
    """A server whose workers have titles."""
    wanted = re.compile(title)
    workers = tuple(child.id.pid for child in table.children(master) if wanted.fullmatch(" ".join(table.arguments(child))))
    if workers:
        arguments = invoked(table.arguments(master)).arguments
        yield _seen(kind, master, workers, application(arguments), arguments)


def _php(table: Table, master: Process) -> Iterator[Found]:
    pools: dict[str, list[int]] = {}
    for child in table.children(master):
        match = _FPM.fullmatch(" ".join(table.arguments(child)))
        if match:
            pools.setdefault(match[1], []).append(child.id.pid)
    for name, workers in sorted(pools.items()):
        yield _seen("php-fpm", master, tuple(workers), name, ())


def _seen(kind: str, master: Process, workers: tuple[int, ...], name: str, arguments: Arguments) -> Found:
    alone = not workers
    why = f"{_ONE}; {_UNSIZED[kind]}" if alone else _UNSIZED[kind]
    on = next((word for word in arguments if re.fullmatch(r"[\w.\[\]:]*:\d+", word)), "")
    return Found(
        kind=kind,
        name=name.split(":")[0],
        master=master.id,
        workers=workers or (master.id.pid,),
        uid=master.uid,
        reached=f"it serves {on}" if on else "it serves the web",
        unsized=why,
    )
