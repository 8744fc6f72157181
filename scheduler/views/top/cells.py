"""Texts in the cells of a terminal: made harmless, measured, cut and filled. Pure; knows neither colours nor terminals.

A line is pieces, each a text and the name of its style. `palette.py` says what a style looks like.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

from ...read.identity import interpreter
from ...read.text import printable

Piece = tuple[str, str]
"""A text and the name of its style."""

Line = tuple[Piece, ...]

ENOUGH = 4096
"""Characters of a text that are looked at (chosen): no screen shows more of one."""

_JOINING = ("Mn", "Me", "Mc")  # what is drawn over or beside the letter before it: no two terminals agree on its width
_ODD = (
    *((0x1160, 0x11FF), (0x3164, 0x3164), (0xD7B0, 0xD7FF), (0xFFA0, 0xFFA0)),  # parts of Hangul syllables, and fillers
    *((0x1F1E6, 0x1F1FF), (0x1F3FB, 0x1F3FF)),  # letters of flags, colours of skin: they join with those beside them
    *((0x2630, 0x2637), (0x268A, 0x268F), (0x4DC0, 0x4DFF), (0x1D300, 0x1D376)),  # signs that Unicode 16 made wide
)
"""Letters on whose width terminals do not agree."""

_CUT = "…"


@lru_cache(maxsize=8192)
def shown(text: str) -> str:
    r"""A text in which every character takes one cell or two, whatever the terminal is, and none is obeyed.

    >>> shown("a\x1b[31mb\u202e"), shown("e\u0301"), shown("x\u0301")
    ('a\\x1b[31mb\\u202e', 'é', 'x\\u0301')
    """
    text = text[:ENOUGH]
    if text.isascii():
        return printable(text)
    text = printable(unicodedata.normalize("NFC", text))
    return "".join(f"\\u{ord(char):04x}" if _joins(char) else char for char in text)


def _joins(char: str) -> bool:
    code = ord(char)
    return code > 0x2FF and (unicodedata.category(char) in _JOINING or any(low <= code <= high for low, high in _ODD))


def width_of(text: str) -> int:
    """Cells of a text that `shown` made.

    >>> width_of("ab"), width_of("漢字")
    (2, 4)
    """
    return len(text) if text.isascii() else len(text) + sum(unicodedata.east_asian_width(char) in "WF" for char in text)


@lru_cache(maxsize=8192)
def fit(text: str, width: int, right: bool = False) -> str:
    """A harmless text in exactly so many cells: cut with an ellipsis, or filled with blanks.

    >>> fit("redis", 8), fit("redis", 8, right=True), fit("redis-server", 8), fit("漢字漢字", 6)
    ('redis   ', '   redis', 'redis-s…', '漢字… ')
    """
    text = shown(text)
    wide = width_of(text)
    if wide > width:
        text, wide = cut(text, width)
    return " " * (width - wide) + text if right else text + " " * (width - wide)


@lru_cache(maxsize=8192)
def fit_name(text: str, width: int) -> str:
    """As `fit`, but cut where a command says least: the interpreter goes first, then the middle, because commands often differ
    only at their end.

    >>> fit_name("python3 -m api.server :8000", 20), fit_name("python3 -m api.server :8000", 12)
    ('api.server :8000    ', 'api…er :8000')
    """
    text = shown(text)
    if width_of(text) > width:
        text = _program_first(text)
    if width_of(text) <= width or width < 8 or not text.isascii():
        return fit(text, width)
    front = (width - 1) // 3
    return f"{text[:front]}{_CUT}{text[len(text) - (width - 1 - front) :]}"


def _program_first(text: str) -> str:
    """A command without the interpreter in front of what it runs."""
    first, _, rest = text.partition(" ")
    return rest.removeprefix("-m ") or text if interpreter(first) else text


def cut(text: str, width: int) -> tuple[str, int]:
    """What of a text that `shown` made fits into so many cells, with an ellipsis at its end, and how many it takes."""
    if width < 1:
        return "", 0
    taken, kept = 0, []
    for char in text:
        wide = width_of(char)
        if taken + wide > width - 1:
            break
        kept.append(char)
        taken += wide
    return "".join(kept) + _CUT, taken + 1


def length(line: Iterable[Piece]) -> int:
    """Cells of a line whose texts `shown` made."""
    return sum(width_of(text) for text, _ in line)


def filled(line: Sequence[Piece], width: int) -> Line:
    """A line in exactly so many cells."""
    taken, kept = 0, list[Piece]()
    for text, style in line:
        wide = width_of(text)
        if taken + wide > width:
            text, wide = cut(text, width - taken)
            kept.append((text, style))
            taken += wide
            break
        kept.append((text, style))
        taken += wide
    if taken < width:
        kept.append((" " * (width - taken), ""))
    return tuple(kept)


def both_ends(left: Sequence[Piece], right: Sequence[Piece], width: int) -> Line:
    """A line with something at its right end, which comes first where there is no room for both."""
    room = width - length(right)
    if room < 1:
        return filled(right, width)
    return (*filled(left, room), *right)


def folded(text: str, width: int) -> list[str]:
    """A text in lines of at most so many cells: broken at blanks, and within words that are longer than a line.

    >>> folded("who waits for whom", 10)
    ['who waits', 'for whom']
    """
    lines, line, wide = list[str](), "", 0
    for word in shown(text).split(" "):
        long = width_of(word)
        if line and wide + 1 + long > width:
            lines.append(line)
            line, wide = "", 0
        while long > width > 1:
            head, _ = cut(word, width + 1)
            head = head.removesuffix(_CUT)
            lines.append(head)
            word = word[len(head) :]
            long = width_of(word)
        line, wide = (f"{line} {word}", wide + 1 + long) if line else (word, long)
    return [*lines, line]
