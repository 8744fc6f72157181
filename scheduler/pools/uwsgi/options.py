"""The options that a running uWSGI was started with: its arguments, and the .ini files among them. Must not know sizes.

Configurations of other kinds (YAML, XML, an include) are not read.
"""

from __future__ import annotations

import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ...read import door

_MAX_CONFIGURATION = 1 << 16  # bytes read of an .ini file
_LINE = re.compile(r"\s*([\w-]+)\s*=\s*(.*?)\s*")

Options = Mapping[str, Sequence[str]]
"""The values of each option, without dashes; an option without a value has "true"."""


def options(proc_root: Path, pid: int, *, files: bool = True) -> Options:
    """The options of the uWSGI with this pid; none if they are hidden. `files`: those in .ini files too. Reading them asks a file
    system that a user may have made, and may wait for it."""
    process = proc_root / str(pid)
    found = defaultdict[str, list[str]](list)
    try:
        arguments = (process / "cmdline").read_bytes().decode("utf-8", "replace").rstrip("\0").split("\0")
    except OSError:
        return found
    for name, value in _given(arguments):
        found[name].append(value)
    for name in (word.rpartition("=")[2] for word in arguments if files):
        if name.endswith(".ini"):
            lines: list[str] = []
            try:
                lines = _configuration(process / "cwd" / name)
            except PermissionError:  # it, or only its directory, is not ours to open through procfs
                with suppress(OSError):
                    lines = _configuration(Path(door.link(str(process), "cwd")) / name)
            except OSError:
                continue
            for match in filter(None, map(_LINE.fullmatch, lines)):
                found[match[1]].append(match[2])
    return found


def other_algorithm(given: Options) -> str:
    """The cheaper-algo, if it is another than manual; "" if it is manual or not given. Where it stands in a configuration that is
    not read, another algorithm shows as a pool that resizes itself."""
    return next((name for key in ("cheaper-algo", "cheaper-algo2") for name in given.get(key, ()) if name != "manual"), "")


def has_file(arguments: Sequence[str]) -> bool:
    """Whether an argument list names a configuration file."""
    return any(word.endswith((".ini", ".yaml", ".yml", ".xml", ".json")) for word in arguments)


def is_on(given: Options, name: str) -> bool:
    """Whether an option is given, and not as false."""
    return any(value not in {"false", "no", "off", "0"} for value in given.get(name, ()))


def _given(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(name, value) of the long options in an argument list."""
    for at, word in enumerate(arguments):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            after = arguments[at + 1] if at + 1 < len(arguments) else "-"
            yield name, value if equals else "true" if after.startswith("-") else after


def _configuration(path: Path) -> list[str]:
    """The lines of a regular file: to open anything else, such as a FIFO, could wait for ever."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - a descriptor, no path
        return file.read(_MAX_CONFIGURATION).splitlines() if stat.S_ISREG(os.fstat(descriptor).st_mode) else []
