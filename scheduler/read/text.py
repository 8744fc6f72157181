"""Makes names that strangers chose (comm, cgroups, scripts) safe for logs and terminals. Must not know who reads them.

They are sanitised once, where the bytes come in: everything after the reader may print, log or compare these strings as they are.
"""

from __future__ import annotations

import io


def printable(raw: bytes | str) -> str:
    r"""`raw` with everything that a terminal or a log might obey written as text.

    Control characters (C0, DEL, C1), bidirectional and other format characters, line separators, spaces other than U+0020,
    lone surrogates and bytes that are not UTF-8 become `\xNN`, `\uNNNN` or `\UNNNNNNNN`.

    >>> printable(b"w\n\x1b]0;x\x07 R")
    'w\\x0a\\x1b]0;x\\x07 R'
    """
    text = raw.decode("utf-8", "backslashreplace") if isinstance(raw, bytes) else raw
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(ord(char)) for char in text)


def _escaped(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def escape_unencodable(*streams: object) -> None:
    """Escape from now on what a stream's encoding (Latin-1, ASCII) has no letter for: names may hold any."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
