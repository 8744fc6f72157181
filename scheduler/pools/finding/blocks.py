"""The text of the block `[pools.NAME]` for a pool that was found, with a comment on each choice. Pure: TOML out."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from .found import FindError, Found, Key

_COLUMN = 40
"""Column of the comments; after a longer value the comment follows it. Chosen: keys and short paths fit before it."""


def block(found: Found) -> str:
    """The block of a pool. Raises FindError if it has none: it cannot be resized, or a value cannot be written as TOML."""
    if found.unsized or not found.keys:
        raise FindError(f"{found.name} is {found.title}, which cannot be resized: {found.unsized}")
    name = found.name if re.fullmatch(r"[\w-]+", found.name, re.ASCII) else _quoted(found.name)
    own = [key for key in found.keys if not key.name.startswith("queue.")]
    queue = [key._replace(name=key.name.partition(".")[2]) for key in found.keys if key.name.startswith("queue.")]
    lines = [f"# {_plain(found.title)}, as `nicety pools` found it", f"[pools.{name}]", *map(_line, own)]
    lines += ["", f"[pools.{name}.queue]", *map(_line, queue)] if queue else []
    return "\n".join(lines) + "\n"


def _line(key: Key) -> str:
    text = f"{key.name} = {_value(key.value)}"
    return f"{text:<{_COLUMN - 2}}  # {_plain(key.why)}" if key.why else text


def _value(value: str | int | Sequence[str]) -> str:
    if isinstance(value, int):
        return str(value)
    return _quoted(value) if isinstance(value, str) else f"[{', '.join(map(_quoted, value))}]"


def _quoted(text: str) -> str:
    r"""A basic string of TOML.

    >>> print(_quoted('a"b\n'), _quoted("\x7f"))
    "a\"b\n" "\u007f"
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise FindError(f"an argument of its workers is not UTF-8 ({text!a}): a configuration cannot hold it") from None
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _plain(text: str) -> str:
    """A comment's text: what ends a line, or a terminal obeys, is escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
