"""The lines of the keys in a TOML text, for messages. Pure. Must not know what the keys mean.

Neither tomllib nor tomlkit reports positions. So this module cuts the text into its statements (a table header, or a key with its
value). tomllib itself finds where each statement ends and which keys it sets: a statement ends with the first line with which it
parses. So quoted and dotted keys, inline tables and strings of many lines are read as TOML defines them, not by patterns.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

Path = tuple[str, ...]
"""The names of a key, from the outermost table to the key itself."""


def lines(text: str) -> dict[Path, int]:
    """The line, from 1, on which each key and table of a valid TOML text first stands. In an array of tables only the first table
    counts. A table without a line of its own, such as `a` in `a.b = 1`, has the line of its first key.

    >>> lines('x = 1\\n[a."b.c"]\\nd.e = { f = 2 }')
    {('x',): 1, ('a',): 2, ('a', 'b.c'): 2, ('a', 'b.c', 'd'): 3, ('a', 'b.c', 'd', 'e'): 3, ('a', 'b.c', 'd', 'e', 'f'): 3}
    """
    found: dict[Path, int] = {}
    own: dict[Path, int] = {}  # tables with their own header, which counts more than the header of a table inside them
    table: Path = ()
    for line, header, data in _statements(text):
        paths = list(_paths(data))
        if header:
            table = paths[-1]
            own.setdefault(table, line)
        for path in paths:
            found.setdefault(path if header else (*table, *path), line)
    return found | own


def nearest(known: Mapping[Path, int], path: Path) -> int:
    """The line of a key, or of its nearest table; 1 if the text has neither. `known`: from `lines`."""
    return next((known[path[:depth]] for depth in range(len(path), 0, -1) if path[:depth] in known), 1)


def fault(error: ValueError | RecursionError) -> tuple[str, str]:
    """What tomllib says about a text that it cannot read: ("LINE:COLUMN", cause). The place is "" if tomllib gives none.

    >>> fault(ValueError("Invalid value (at line 2, column 5)"))
    ('2:5', 'Invalid value')
    """
    said = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", str(error), re.DOTALL)
    return (f"{said[2]}:{said[3]}", said[1]) if said else ("", str(error))


def dotted(path: Path) -> str:
    """A path as it is written in TOML.

    >>> dotted(("pools", "a.b", "kind"))
    'pools."a.b".kind'
    """
    return ".".join(name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f'"{name}"' for name in path)


def _statements(text: str) -> Iterator[tuple[int, bool, dict[str, Any]]]:
    """(line, whether it is a table header, its data) of each statement that sets something."""
    begin, held = 1, ""
    for number, line in enumerate(text.split("\n"), 1):  # TOML has no other line ends, whatever str.splitlines takes for one
        held += line.removesuffix("\r") + "\n"
        try:
            data = tomllib.loads(held)
        except (ValueError, RecursionError):
            continue  # goes on in the next line
        if data:
            yield begin, held.lstrip().startswith("["), data
        begin, held = number + 1, ""


def _paths(data: Mapping[str, Any], above: Path = ()) -> Iterator[Path]:
    """The path of each key, tables before what they hold."""
    for key, value in data.items():
        path = (*above, key)
        yield path
        inside = value[0] if isinstance(value, list) and value else value
        if isinstance(inside, Mapping):
            yield from _paths(inside, path)
