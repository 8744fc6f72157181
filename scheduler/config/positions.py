"""The lines of the keys in a TOML text, for messages. Pure. Must not know what the keys mean.

Neither tomllib nor tomlkit reports positions. So this module cuts the text into its statements (a table header, or a key with its
value): a statement ends with the first line after which no string and no bracket is open. tomllib itself finds which keys it sets.
So quoted and dotted keys and inline tables are read as TOML defines them. The time grows with the length of the text only.
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
    text = text.replace("\r\n", "\n") + "\n"
    begin, line, depth = 0, 1, 0
    for token in _TOKEN.finditer(text):
        if token[0] in "[{":
            depth += 1
        elif token[0] in "]}":
            depth -= 1
        elif token[0] == "\n" and depth == 0:
            held = text[begin : token.start()]
            data = tomllib.loads(held)
            if data:
                yield line, held.lstrip().startswith("["), data
            begin, line = token.end(), line + held.count("\n") + 1


_STRINGS = (r'"""(?:\\.|[^\\])*?"""(?!")', r"'''.*?'''(?!')", r'"(?:\\.|[^"\\])*"', r"'[^']*'")
_TOKEN = re.compile("|".join((*_STRINGS, r"#[^\n]*", r"[][{}\n]")), re.DOTALL)
"""Strings and comments, which may hold brackets and ends of lines; and brackets and ends of lines outside of them."""

DEEPEST = 8
"""Names of the longest path that is looked for. Chosen: a key of the configuration has at most four."""


def _paths(data: Mapping[str, Any], above: Path = ()) -> Iterator[Path]:
    """The path of each key, tables before what they hold, down to `DEEPEST`."""
    for key, value in data.items():
        path = (*above, key)
        yield path
        inside = value[0] if isinstance(value, list) and value else value
        if isinstance(inside, Mapping) and len(path) < DEEPEST:
            yield from _paths(inside, path)
