"""What a process is: program, script, unit, container. Text of /proc in, names out; must not know counters or policies.

Only an interpreter's script or module is taken from a command line, never another argument: those hold secrets.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from typing import NamedTuple

from ..hands.fences import outside
from .text import printable

_COMM = 15  # TASK_COMM_LEN less its final zero
_LONGEST = 96  # characters of a name that are kept (chosen): longer script names only bloat logs


class _Options(NamedTuple):
    """How an interpreter's arguments are read up to the script. Short options may come in a cluster ("-ec")."""

    valued: tuple[str, ...] = ()  # take the next argument as their value, if none is attached
    inline: tuple[str, ...] = ()  # hold code: no script follows
    runs: tuple[str, ...] = ()  # name the module or archive to run
    attached: tuple[str, ...] = ()  # the rest of the word is their value
    words: bool = False  # options of one dash are words, not clusters
    modules: bool = False  # what runs is shown with its option, as people type it


# Sources: python -h, pypy -h, perlrun(1), ruby(1), node --help, bash(1), dash(1), zshmisc(1), java(1), php(1).
_SHELL = _Options(valued=("-o", "-O", "+o", "+O", "--rcfile", "--init-file"), inline=("-c",))
_OPTIONS = {
    "python": _Options(valued=("-W", "-X", "--check-hash-based-pycs"), inline=("-c",), runs=("-m",), modules=True),
    "pypy": _Options(valued=("-W", "-X", "--jit"), inline=("-c",), runs=("-m",), modules=True),
    "perl": _Options(valued=("-I",), inline=("-e", "-E"), attached=("-0", "-C", "-D", "-F", "-M", "-V", "-i", "-l", "-m", "-x")),
    "ruby": _Options(valued=("-C", "-E", "-I", "-r"), inline=("-e",), attached=("-0", "-F", "-K", "-T", "-W", "-i", "-x")),
    "node": _Options(
        valued=("-C", "-r", "--conditions", "--env-file", "--experimental-loader", "--import", "--loader", "--require"),
        inline=("-e", "-p", "--eval", "--print"),
    ),
    "php": _Options(valued=("-S", "-c", "-d", "-t", "-z"), inline=("-r",), runs=("-f",)),
    "java": _Options(
        valued=(
            *("-cp", "-classpath", "--class-path", "-p", "--module-path", "--add-opens", "--add-exports", "--add-modules"),
            *("--add-reads", "--limit-modules", "--upgrade-module-path", "--patch-module", "--source", "--enable-native-access"),
        ),
        runs=("-jar", "-m", "--module"),
        words=True,
    ),
    "bash": _SHELL,
    "dash": _SHELL,
    "ksh": _SHELL,
    "sh": _SHELL,
    "zsh": _SHELL,
}
_ALIASES = {"nodejs": "node"}  # name of an executable -> the interpreter that it is
_KEEPS_MAJOR = {"python", "pypy"}  # python2 and python3 are different languages, perl5.36 and perl5.38 are not

_UNIT = re.compile(r"(?P<name>[^/]+\.(?:service|scope))$")
_CONTAINER = re.compile(r"(?:^|[-:])(?P<id>[0-9a-f]{64})(?:\.scope|\.service)?$")  # docker, containerd, cri-o, podman, kubernetes
_LXC = re.compile(r"^lxc\.payload\.(?P<name>.+)$")
SHORT_ID = 12
"""Digits of a container id that are shown: as many as `docker ps` shows."""


def interpreter(name: str) -> str | None:
    """The interpreter behind a base name, as people type it; None for any other program.

    >>> interpreter("python3.11"), interpreter("perl5.36.0"), interpreter("postgres")
    ('python3', 'perl', None)
    """
    match = re.fullmatch(r"([a-z]+?)(\d*)([\d.]*)", name)
    base = _ALIASES.get(match[1], match[1]) if match else ""
    if match is None or base not in _OPTIONS:
        return None
    return base + match[2][:1] if base in _KEEPS_MAJOR else base


def base_name(exe: str | None, comm: str) -> str:
    """Base name of the executable at `exe`; `comm`, already printable, if it cannot be read (None) or has no name of its own."""
    if exe is None or exe.startswith("/memfd:"):
        return comm
    return printable(exe.removesuffix(" (deleted)").rpartition("/")[2])[:_LONGEST] or comm


def says_more(base: str, comm: str) -> bool:
    """Whether naming a program needs its command line: interpreters, and programs started by a link to their executable."""
    return interpreter(base) is not None or not base.startswith(comm)


def program(exe: str | None, comm: str, cmdline: bytes) -> str:
    r"""Name of what runs: the executable's base name, and an interpreter's script or module.

    One executable may be several programs, by the name that it is started with (redis-server is a link to redis-check-rdb in
    Debian, busybox is hundreds). The kernel uses that name as comm, and it is the first argument.

    `cmdline`: the text of /proc/PID/cmdline; only needed if `says_more`.

    >>> program("/usr/bin/python3.11", "python3", b"python3\0-u\0/srv/app/worker.py\0--token=x\0")
    'python3 worker.py'
    >>> program("/usr/bin/redis-check-rdb", "redis-server", b"/usr/bin/redis-server *:6379\0")
    'redis-server'
    """
    base = base_name(exe, comm)
    name = interpreter(base)
    if name is None:
        started = printable(os.fsdecode(re.split(rb"[\0 ]", cmdline, maxsplit=1)[0].rpartition(b"/")[2]))[:_LONGEST]
        return started if exe is not None and started != base and comm and started[:_COMM] == comm else base
    script = _script(_OPTIONS[name.rstrip("0123456789")], [os.fsdecode(arg) for arg in cmdline.split(b"\0")[1:]])
    if script is None:
        # a script run by its #! line gives its name to comm; a title is "name: what it does", and only the name is kept
        return name if interpreter(comm) else f"{name} {comm.partition(':')[0] or comm}"
    return f"{name} {printable(script)[:_LONGEST]}"


def _script(how: _Options, arguments: list[str]) -> str | None:
    """Script or module among an interpreter's arguments, None if it has none. Code given as an argument shows as its option."""
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            return _file_name(next(rest, ""))
        if argument == "-":
            return None  # reads its script from standard input
        if argument[:1] not in ("-", "+"):
            return _file_name(argument)
        option, value = _option(argument, how)
        if option in how.inline:
            return option
        if option in how.runs:
            value = value or next(rest, "")
            return f"{option} {value}" if value and how.modules else _file_name(value)
        if option in how.valued and not value:
            next(rest, None)
    return None


def _file_name(path: str) -> str | None:
    """Base name of a script; None for a descriptor (`bash <(...)`), whose number says nothing."""
    return None if path.startswith(("/dev/fd/", "/proc/")) else path.rstrip("/").rpartition("/")[2] or None


def _option(argument: str, how: _Options) -> tuple[str, str]:
    """(the option in `argument` that matters or "", the value attached to it or "")."""
    known = (*how.valued, *how.inline, *how.runs, *how.attached)
    if argument.startswith("--") or how.words:
        name, _, value = argument.partition("=")
        return (name, value) if name in known else ("", "")
    for at, letter in enumerate(argument[1:], 1):
        if argument[0] + letter in known:
            return argument[0] + letter, argument[at + 1 :]
    return "", ""


def real_uid(status: bytes) -> int:
    r"""The real user id in the text of /proc/PID/status (proc_pid_status(5)), as the reader's user namespace has it. Raises
    ValueError if there is none.

    >>> real_uid(b"Name:\tpasswd\nUid:\t1000\t0\t0\t0\nGid:\t0\n")
    1000
    """
    at = status.index(b"\nUid:\t") + 6
    return int(status[at : status.index(b"\t", at)])


@lru_cache(maxsize=1024)
def cgroup_and_unit(text: bytes) -> tuple[str, str]:
    r"""(path in the cpu hierarchy, systemd unit or container or "") from the text of /proc/PID/cgroup (cgroups(7)).

    The path is that of the v1 cpu controller, else that of v2. A process that nicety has fenced belongs where it was before. The
    unit is searched on all lines: in hybrid set-ups only some have it. The deepest component that names one counts.

    >>> cgroup_and_unit(b"4:cpu,cpuacct:/\n1:name=systemd:/system.slice/web.service\n0::/\n")
    ('/', 'web.service')
    """
    paths: dict[str, str] = {}
    for line in text.splitlines():
        _, _, rest = line.partition(b":")
        controllers, colon, path = rest.partition(b":")
        if colon:
            clean = printable(path).removesuffix(" (deleted)")
            paths |= {printable(controller): clean for controller in controllers.split(b",")}
    units = (
        _unit(paths[name]) for name in sorted(paths, key=lambda name: (name != "name=systemd", name != "", name != "cpu", name))
    )
    return outside(paths.get("cpu") or paths.get("") or "/"), next(filter(None, units), "")


def _unit(path: str) -> str:
    for part in reversed(path.split("/")):
        container = _CONTAINER.search(part) or _LXC.search(part)
        if container:
            return container["id"][:SHORT_ID] if "id" in container.groupdict() else container["name"]
        unit = _UNIT.search(part)
        if unit:
            return unit["name"]
    return ""
