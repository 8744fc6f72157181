"""Finds copies of one program that a supervisor keeps: instances of a template unit of systemd, and processes of supervisord.

supervisord tells each of its processes what it calls it, in the environment, which only root and the process's user may read.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ...hands.pool_units import UNITS
from .found import Found, Key, Process, Table
from .invocation import invoked, option
from .keys import WORKS_OFF, limits
from .reading import directory_of

_INSTANCE = re.compile(r"(?P<template>.+)@(?P<number>\d{1,4})\.service")
_PLACE = re.compile(r"(?P<before>.*?)(?P<number>\d{1,4})(?P<after>\D*)")
_SESSIONS = frozenset({"user", "user-runtime-dir"})
"""Templates of systemd itself, whose number is a user."""

_ENVIRONMENT = 1 << 16  # most bytes of an environment that are read (chosen)
_NAMES = re.compile(rb"\0SUPERVISOR_(GROUP|PROCESS)_NAME=([^\0]*)")
_FIRST = {"systemd": 1, "supervisord": 0}
"""The number of the first place, where the configuration does not say it."""


class _Places(NamedTuple):
    """Places that one pattern names."""

    kind: str
    name: str
    before: str
    after: str
    uid: int


def find(table: Table, taken: Collection[int], proc_root: Path) -> Iterator[Found]:
    """Each program of which two copies or more run. `taken`: pids that belong to a pool already."""
    numbered = defaultdict[_Places, dict[str, Process]](dict)
    unnamed = defaultdict[tuple[int, int, tuple[str, ...]], list[Process]](list)  # by supervisord, user and arguments
    supervisors = dict[int, Process]()
    for process in table.processes:
        above = table.parent(process)
        match = _INSTANCE.fullmatch(process.unit)
        if process.id.pid in taken:
            continue
        if match and match["template"] not in _SESSIONS and (above is None or above.unit != process.unit):
            name = match["template"]
            numbered[_Places("systemd", name, f"{name}@", "", process.uid)][match["number"]] = process
        elif above is not None and above.program.endswith(" supervisord"):
            supervisors[process.id.pid] = above
            names = _names(proc_root, process.id.pid)
            place = _PLACE.fullmatch(names.get("PROCESS", ""))
            if place:
                group = names.get("GROUP", "")
                key = _Places("supervisord", group, f"{group}:{place['before']}", place["after"], process.uid)
                numbered[key][place["number"]] = process
            elif not names:
                unnamed[above.id.pid, process.uid, table.arguments(process)].append(process)
    for key, places in sorted(numbered.items()):
        if len(places) > 1:
            first = next(iter(places.values()))
            options = _supervisorctl(table, supervisors[first.id.pid], proc_root) if key.kind == "supervisord" else ()
            yield _found(key, places, options)
    for (_, uid, arguments), processes in sorted(unnamed.items()):
        if len(processes) > 1 and arguments:
            pids = tuple(process.id.pid for process in processes)
            hidden = "what supervisord calls its processes is seen only by root and their user: run this as root"
            name = invoked(arguments).tool.partition(".")[0]
            yield Found("supervisord", name, None, pids, uid, "supervisorctl", unsized=hidden)


def _found(key: _Places, places: Mapping[str, Process], options: Sequence[Key]) -> Found:
    width = max(len(number) for number in places)
    padded = any(number.startswith("0") for number in places) and width > 1
    unit = f"{key.before}%{f'0{width}' if padded else ''}d{key.after}"
    numbers = sorted(map(int, places))
    first = (Key("first", numbers[0], "number of the first"),) if numbers[0] != _FIRST[key.kind] else ()
    count = len(places)
    least, most = limits(count, serves=False)
    if key.kind == "supervisord":
        most = Key("maximum", count, "at most its numprocs: raise both for more")
    fits = re.fullmatch(UNITS[key.kind], unit)
    return Found(
        kind=key.kind,
        name=key.name,
        master=None,
        workers=tuple(sorted(process.id.pid for process in places.values())),
        uid=key.uid,
        reached="supervisorctl" if key.kind == "supervisord" else "systemctl",
        missing=("say where its waiting work is counted, [pools.NAME.queue]: see docs/your-stack.md",),
        unsized="" if fits else f"its names ({unit}) are none that nicety gives to a command",
        keys=(Key("kind", key.kind), Key("unit", unit, "the number counts up"), *first, *options, least, most, WORKS_OFF),
    )


def _names(proc_root: Path, pid: int) -> dict[str, str]:
    """What supervisord calls a process and its group, "PROCESS" and "GROUP"; {} if that is hidden."""
    try:
        with (proc_root / str(pid) / "environ").open("rb") as file:
            raw = b"\0" + file.read(_ENVIRONMENT)
    except OSError:
        return {}
    return {match[1].decode(): match[2].decode("utf-8", "replace") for match in _NAMES.finditer(raw)}


def _supervisorctl(table: Table, supervisor: Process, proc_root: Path) -> Sequence[Key]:
    """How supervisorctl reaches this supervisord, if it was started with a configuration of its own."""
    file = option(invoked(table.arguments(supervisor)).arguments, "-c", "--configuration")
    if not file:
        return ()
    path = file if file.startswith("/") else f"{directory_of(proc_root, supervisor.id.pid)}/{file}"
    return (Key("command", ["supervisorctl", "-c", path], "the configuration that it was started with"),)
