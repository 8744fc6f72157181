"""Finds uWSGI's masters among the processes of a machine, by their options and, where they have one, their stats socket. Must not
know sizes."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

from ...hands.clock import SystemClock
from ...hands.pools import address
from ..finding.found import Found, Key, Process, Table
from ..finding.invocation import kind_of
from ..finding.keys import SERVES, limits, named_by, without_pidfile
from ..finding.reading import directory_of
from . import stats as facts
from .options import Options, has_file, is_on, options, other_algorithm

ANSWER_SECONDS = 0.5
"""Longest wait for a stats socket. Chosen: a master answers within milliseconds, unless it has just killed a worker."""


def find(table: Table, proc_root: Path, *, ask: bool) -> Iterator[Found]:
    """Each master with its workers. `ask`: read its .ini file, and count the workers by its stats socket, which may take
    `ANSWER_SECONDS`. Otherwise a master with a configuration file counts as one that can be resized."""
    for master in table.processes:
        if kind_of(table.arguments(master)) != "uwsgi":
            continue
        above = table.parent(master)
        if above is not None and _like(table, above, master):
            continue
        workers = tuple(child.id.pid for child in table.children(master) if _like(table, master, child))
        given = options(proc_root, master.id.pid, files=ask)
        leads = is_on(given, "master") or (not ask and has_file(table.arguments(master)))
        if not leads or is_on(given, "emperor") or not workers:
            continue
        paths = _Paths(given, directory_of(proc_root, master.id.pid))
        answer = _stats(paths.stats, master.id.pid) if ask and paths.stats else None
        if answer is not None:
            workers = tuple(place.pid for place in answer.workers if place.pid and place.wanted) or workers
        yield _found(master, workers, given, paths)


class _Paths:
    """Where its sockets and files are; "" for one that it has not, or whose name it makes up itself (%n)."""

    def __init__(self, given: Options, directory: str) -> None:
        def path(name: str) -> str:
            text = (given.get(name) or [""])[-1]
            if "%" in text or "$" in text:
                return ""
            return f"{directory}/{text}" if text and directory and not text.startswith(("/", "@")) else text

        self.pidfile = path("pidfile") or path("safe-pidfile")
        self.fifo = path("master-fifo")
        text = (given.get("stats") or given.get("stats-server") or [""])[-1]
        self.stats = text if ":" in text else path("stats") or path("stats-server")


def _found(master: Process, workers: tuple[int, ...], given: Options, paths: _Paths) -> Found:
    room = next(
        (int(text) for name in ("processes", "workers", "p") for text in given.get(name, ()) if re.fullmatch(r"\d{1,9}", text)),
        None,
    )
    algorithm = other_algorithm(given)
    lacks = [
        *([] if given.get("cheaper") else ["cheaper = 1"]),
        *([] if given.get("cheaper-algo") and not algorithm else ["cheaper-algo = manual"]),
        *([] if paths.stats and not is_on(given, "stats-http") else ["stats = /PATH, without stats-http"]),
        *([] if paths.fifo else ["master-fifo = /PATH"]),
    ]
    keys = (
        Key("kind", "uwsgi"),
        named_by(paths.pidfile, master, "uWSGI's pidfile"),
        Key("stats", paths.stats, "uWSGI's stats"),
        Key("fifo", paths.fifo, "uWSGI's master-fifo"),
        *limits(len(workers), serves=True, most=room),
        SERVES,
    )
    unsized = f"it sizes itself (cheaper-algo = {algorithm})" if algorithm else "its configuration lacks what resizes it"
    return Found(
        kind="uwsgi",
        name=next((text.rpartition("/")[2] for name in ("module", "wsgi-file") for text in given.get(name, ())), ""),
        master=master.id,
        workers=workers,
        uid=master.uid,
        reached="its stats socket and master FIFO",
        missing=(
            *([f"put into uWSGI's configuration, and restart it: {', '.join(lacks)}"] if lacks else []),
            *without_pidfile(paths.pidfile, "put pidfile = /PATH into uWSGI's configuration"),
        ),
        unsized=unsized if lacks else "",
        keys=keys,
    )


def _like(table: Table, master: Process, child: Process) -> bool:
    """Whether a child is a fork of this master."""
    arguments = table.arguments(master)
    return kind_of(arguments) == "uwsgi" and arguments == table.arguments(child)


def _stats(where: str, pid: int) -> facts.Stats | None:
    """What the stats socket says, if it is that of the master with this pid."""
    raw, clock = b"", SystemClock()
    until = clock.monotonic() + ANSWER_SECONDS * 1e9
    try:
        family, place = address(where)
        with socket.socket(family) as client:
            client.settimeout(ANSWER_SECONDS)
            client.connect(place)
            while len(raw) < facts.MAX_BYTES and clock.monotonic() < until and (part := client.recv(1 << 16)):
                raw += part
        answer = facts.parse(raw)
    except (OSError, ValueError, facts.StatsError):
        return None
    return answer if answer.pid == pid else None
