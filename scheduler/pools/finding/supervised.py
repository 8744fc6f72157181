"""Finds copies of one program that a supervisor keeps: instances of a template unit of systemd, and processes of supervisord. Pure.

Copies with the same arguments can be a command pool. Programs that are a pool of their own kind are found elsewhere, and left out.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator

from .found import Arguments, Found, Process, Table
from .invocation import invoked
from .keys import AS_COMMAND, command_keys, stop_first

_INSTANCE = re.compile(r"(?P<template>.+)@(?P<number>\d{1,3})\.service")
_SESSIONS = frozenset({"user", "user-runtime-dir"})
"""Templates of systemd itself, whose number is a user."""


def find(table: Table, taken: Collection[int]) -> Iterator[Found]:
    """Each program of which two copies or more run. `taken`: pids that belong to a pool already."""
    copies = defaultdict[tuple[str, str, int, Arguments], list[Process]](list)
    for process in table.processes:
        if process.id.pid in taken:
            continue
        above = table.parent(process)
        match = _INSTANCE.fullmatch(process.unit)
        if match and match["template"] not in _SESSIONS and (above is None or above.unit != process.unit):
            copies["systemd", match["template"], process.uid, table.arguments(process)].append(process)
        elif above is not None and above.program.endswith(" supervisord"):
            arguments = table.arguments(process)
            copies["supervisord", invoked(arguments).tool.partition(".")[0], process.uid, arguments].append(process)
    for (kind, name, uid, arguments), processes in sorted(copies.items()):
        if len(processes) < 2 or not arguments:
            continue
        pids = tuple(process.id.pid for process in processes)
        titled = len(arguments) == 1 and " " in arguments[0]
        yield Found(
            kind=kind,
            name=name,
            master=None,
            workers=pids,
            uid=uid,
            reached=AS_COMMAND,
            missing=("say where its waiting work is counted, [pools.NAME.queue]: see docs/your-stack.md",),
            unsized="its title hides its arguments: write a command pool by hand, see docs/your-stack.md" if titled else "",
            keys=() if titled else command_keys(arguments, len(pids)),
            before=stop_first(pids),
        )
