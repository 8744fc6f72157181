"""The search: which pools run here, which of them the configuration has, and what the others would be called.

Must not know how a kind is recognized: each has a module that finds it, beside its adapter if it has one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from ...config.sections import Config, PoolConfig
from ...read import door
from ...read.process import see_all
from ..celery import found as celery
from ..gunicorn import found as gunicorn
from ..uwsgi import found as uwsgi
from . import executors, queues, servers, supervised
from .found import Found, Key, Process, Table, user_name
from .invocation import may_be

MOST_ARGUMENTS = 1 << 16
"""Most bytes of an argument list that are read (chosen): a longer one is not that of a server."""

_SAYS_NOTHING = frozenset({"", "app", "asgi", "main", "server", "tasks", "wsgi", "worker", "www"})
"""Names of applications that many have."""


def machine(proc_root: Path = Path("/proc")) -> Table:
    """The processes that may be seen."""
    processes = [
        Process(seen.id, seen.parent, seen.identity.uid, seen.identity.unit, seen.identity.program) for seen in see_all(proc_root)
    ]
    return Table(processes, lambda pid: arguments_of(proc_root, pid))


def arguments_of(proc_root: Path, pid: int) -> tuple[str, ...]:
    """The argument list of a process; () if it is gone or hides it."""
    try:
        with (proc_root / str(pid) / "cmdline").open("rb") as file:
            raw = file.read(MOST_ARGUMENTS)
    except OSError:
        return ()
    text = raw.rstrip(b"\0").decode("utf-8", "surrogateescape")
    return tuple(text.split("\0")) if text else ()


def everything(table: Table, config: Config, environ: Mapping[str, str], proc_root: Path = Path("/proc")) -> list[Found]:
    """All pools of a machine, those of the configuration first, each with the name that it has or would have.

    Asks stats sockets and reads .ini files of uWSGI: for commands, not for the daemon.
    """
    found = [*_by_program(table, proc_root, ask=True)]
    found += supervised.find(table, {pid for each in found for pid in (each.pid, *each.workers)})
    uids = {process.uid for process in table.processes} if os.geteuid() == 0 else {os.geteuid()}
    found += executors.find(uids, environ, proc_root)
    return named([_placed(each, proc_root) for each in found], table, config)


def quickly(table: Table, config: Config, proc_root: Path = Path("/proc")) -> list[Found]:
    """As `everything`, but asks nobody, and finds only what has a program of its own."""
    return named(list(_by_program(table, proc_root, ask=False)), table, config)


def _by_program(table: Table, proc_root: Path, *, ask: bool) -> Iterator[Found]:
    likely = Table((process for process in table.processes if _is_near(table, process)), table.arguments_of)
    yield from gunicorn.find(likely, proc_root)
    yield from uwsgi.find(likely, proc_root, ask=ask)
    yield from celery.find(likely)
    yield from servers.find(likely)
    yield from queues.find(likely)


def _is_near(table: Table, process: Process) -> bool:
    """Whether it, or its parent, may run a pool: only of these the arguments are read."""
    above = table.parent(process)
    return may_be(process.program) or (above is not None and may_be(above.program))


def _placed(found: Found, proc_root: Path) -> Found:
    """With the directory and the user of a command pool's workers."""
    if not found.keys or found.keys[0].value != "command":
        return found
    try:
        directory = door.link(f"{proc_root}/{found.pid}", "cwd")
    except OSError:
        directory = ""
    keys = list(found.keys[:2])
    keys += [Key("directory", directory, "where they run now")] if directory.startswith("/") else []
    keys += [Key("user", user_name(found.uid), "who runs them now")] if found.uid != os.geteuid() else []
    return replace(found, keys=(*keys, *found.keys[2:]))


def hidden(proc_root: Path = Path("/proc")) -> list[str]:
    """What this user cannot see, a sentence each."""
    if os.geteuid() == 0:
        return []
    lost = ["executors of other users, and the sockets and files of their servers, are seen only by root"]
    if not (proc_root / "1").exists():
        lost.append(f"{proc_root} hides the processes of other users: run this as root, or mount it without hidepid")
    return lost


# --- names --------------------------------------------------------------------------------------------------------------------


def named(found: Iterable[Found], table: Table, config: Config) -> list[Found]:
    """Each with its name in the configuration, or one that is free there; by that order, then by pid."""
    units = {process.id.pid: process.unit for process in table.processes}
    ours, others = list[Found](), list[Found]()
    for each in sorted(found, key=lambda each: each.pid):
        name = _configured_as(each, config)
        if name:
            ours.append(replace(each, name=name, configured=True))
        else:
            others.append(each)
    taken = {*config.pools, *config.groups}
    result = []
    for each in others:
        name = _free(_suggested(each, units.get(each.pid, "")), taken)
        taken.add(name)
        result.append(replace(each, name=name))
    return [*sorted(ours, key=lambda each: each.name), *result]


def _suggested(found: Found, unit: str) -> str:
    """The application's name; where that says nothing, the unit's, or the kind."""
    stem = re.sub(r"(@.*)?\.service$", "", unit) if unit.endswith(".service") and not unit.startswith("user@") else ""
    own = re.split(r"[.:]", found.name)[0]
    name = own if own.casefold() not in _SAYS_NOTHING else stem or found.kind
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:56] or found.kind


def _free(name: str, taken: Collection[str]) -> str:
    return next(free for number in range(1, len(taken) + 2) if (free := name if number == 1 else f"{name}-{number}") not in taken)


def _configured_as(found: Found, config: Config) -> str:
    """The name of the configuration's pool that this one is, "" if it has none."""
    return next((name for name, pool in config.pools.items() if _is(found, pool, name)), "")


def _is(found: Found, pool: PoolConfig, name: str) -> bool:
    keys = {key.name: key.value for key in found.keys}
    if pool.kind == "command":
        command = keys.get("command")
        return isinstance(command, list) and _runs(pool.command, command)
    if pool.kind != found.kind:
        return False
    if pool.kind == "executor":
        own = pool.user in ("", str(keys.get("user", "")))
        return (pool.executor or name) == keys.get("executor") and own
    if pool.pidfile:
        return pool.pidfile == keys.get("pidfile") or _read_pid(pool.pidfile) == found.pid
    return pool.pid == found.pid


def _runs(configured: list[str], command: list[str]) -> bool:
    """Whether a command of the configuration shows as these arguments: a script has its interpreter before it."""
    program = configured[0].rpartition("/")[2]
    at = len(command) - len(configured) + 1
    return at >= 1 and command[at:] == configured[1:] and program in (word.rpartition("/")[2] for word in command[:at])


def _read_pid(path: str) -> int | None:
    """The pid in a file; None if there is none to be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(descriptor, 64).strip()
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return int(text) if text.isdigit() else None
