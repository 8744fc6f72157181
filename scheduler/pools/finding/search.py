"""The search: which pools run here, which of them the configuration has, and what the others would be called.

Must not know how a kind is recognized: each has a module that finds it, beside its adapter if it has one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import dropwhile
from pathlib import Path

from ...config.sections import Config, PoolConfig
from ...read.process import see_all
from ..celery import found as celery
from ..gunicorn import found as gunicorn
from ..uvicorn import found as uvicorn
from ..uwsgi import found as uwsgi
from . import executors, queues, servers, supervised
from .found import Found, Key, Process, Table, user_name
from .invocation import may_be
from .reading import arguments_of, directory_of

_SAYS_NOTHING = frozenset({"", "app", "asgi", "main", "server", "tasks", "wsgi", "worker", "www"})
"""Names of applications that many have."""


def machine(proc_root: Path = Path("/proc")) -> Table:
    """The processes that may be seen."""
    processes = [
        Process(seen.id, seen.parent, seen.identity.uid, seen.identity.unit, seen.identity.program) for seen in see_all(proc_root)
    ]
    return Table(processes, lambda pid: arguments_of(proc_root, pid))


def everything(table: Table, config: Config, environ: Mapping[str, str], proc_root: Path = Path("/proc")) -> list[Found]:
    """All pools of a machine, those of the configuration first, each with the name that it has or would have.

    Asks stats sockets and reads .ini files of uWSGI: for commands, not for the daemon.
    """
    found = list(_by_program(table, proc_root, ask=True))
    queued = list(queues.find(_likely(table)))
    kept = list(supervised.find(table, {pid for each in found for pid in (each.pid, *each.workers)}, proc_root))
    found += _joined(queued, kept)
    uids = {process.uid for process in table.processes} if os.geteuid() == 0 else {os.geteuid()}
    found += executors.find(uids, environ, proc_root)
    return named([_placed(each, proc_root) for each in found], table, config)


def quickly(table: Table, config: Config, proc_root: Path = Path("/proc")) -> list[Found]:
    """As `everything`, but asks nobody, and finds only what has a program of its own."""
    found = [*_by_program(table, proc_root, ask=False), *queues.find(_likely(table))]
    return named(found, table, config)


def _joined(queued: Iterable[Found], kept: Iterable[Found]) -> Iterator[Found]:
    """Workers of queues, and copies that a supervisor keeps. Workers that one keeps are that pool, with their queue."""
    kept = list(kept)
    for each in queued:
        at = next((at for at, pool in enumerate(kept) if {each.pid, *each.workers} & set(pool.workers)), None)
        if at is None:
            yield each
            continue
        queue = tuple(key for key in each.keys if key.name.startswith("queue."))
        if queue and not kept[at].unsized and queue[0] not in kept[at].keys:
            kept[at] = replace(kept[at], keys=(*kept[at].keys, *queue), missing=())
    yield from kept


def _likely(table: Table) -> Table:
    """The processes that may run a pool, and their children: only of these the arguments are read."""
    return Table((process for process in table.processes if _is_near(table, process)), table.arguments_of)


def _by_program(table: Table, proc_root: Path, *, ask: bool) -> Iterator[Found]:
    """The pools whose main process a program of its own leads."""
    likely = _likely(table)
    yield from gunicorn.find(likely, proc_root)
    yield from uvicorn.find(likely, proc_root)
    yield from uwsgi.find(likely, proc_root, ask=ask)
    yield from celery.find(likely)
    yield from servers.find(likely)


def _is_near(table: Table, process: Process) -> bool:
    above = table.parent(process)
    return may_be(process.program) or (above is not None and may_be(above.program))


def _placed(found: Found, proc_root: Path) -> Found:
    """With the directory and the user of a command pool's workers."""
    if not found.keys or found.keys[0].value != "command":
        return found
    directory = directory_of(proc_root, found.pid)
    keys = list(found.keys[:2])
    keys += [Key("directory", directory, "where they run now")] if directory else []
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
    ours, others = dict[str, Found](), list[Found]()
    for each in sorted(found, key=lambda each: each.pid):
        name = _configured_as(each, config, units.get(each.pid, ""))
        if name in ours:  # the workers of a command pool that have children of their own
            ours[name] = replace(ours[name], master=None, workers=(*ours[name].workers, *each.workers))
        elif name:
            ours[name] = replace(each, name=name, configured=True)
        else:
            others.append(each)
    taken = {*config.pools, *config.groups}
    result = []
    for each in others:
        name = _free(_suggested(each, units.get(each.pid, "")), taken)
        taken.add(name)
        result.append(replace(each, name=name))
    return [*(ours[name] for name in sorted(ours)), *result]


def _suggested(found: Found, unit: str) -> str:
    """The application's name; where that says nothing, the unit's, or the kind."""
    stem = re.sub(r"(@.*)?\.service$", "", unit) if unit.endswith(".service") and not unit.startswith("user@") else ""
    own = re.split(r"[.:]", found.name)[0]
    name = own if own.casefold() not in _SAYS_NOTHING else stem or found.kind
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:56] or found.kind


def _free(name: str, taken: Collection[str]) -> str:
    return next(free for number in range(1, len(taken) + 2) if (free := name if number == 1 else f"{name}-{number}") not in taken)


def _configured_as(found: Found, config: Config, unit: str) -> str:
    """The name of the configuration's pool that this one is, "" if it has none. `unit`: of its main process."""
    return next((name for name, pool in config.pools.items() if _is(found, pool, name, unit)), "")


def _is(found: Found, pool: PoolConfig, name: str, unit: str) -> bool:
    keys = {key.name: key.value for key in found.keys}
    if pool.kind == "systemd":
        return re.fullmatch(re.sub(r"%(0\d)?d", r"\\d+", re.escape(pool.unit)), unit.removesuffix(".service")) is not None
    if pool.kind == "supervisord":
        return pool.unit == keys.get("unit")
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
    """Whether a command of the configuration shows as these arguments: `env` is gone then, and a script has its interpreter before
    it."""
    wanted, there = _bare(configured), _bare(command)
    program = wanted[0].rpartition("/")[2] if wanted else ""
    at = len(there) - len(wanted) + 1
    return at >= 1 and there[at:] == wanted[1:] and program in (word.rpartition("/")[2] for word in there[:at])


def _bare(command: list[str]) -> list[str]:
    """A command without `env NAME=VALUE`."""
    if not command or command[0].rpartition("/")[2] != "env":
        return command
    return list(dropwhile(lambda word: "=" in word, command[1:]))


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
