"""Bars, sparklines and graphs of characters. Pure.

Where a terminal has no block characters, or a person's reader cannot say them, ASCII stands for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .cells import Line, Piece

HEATS = 10
"""Steps of the colours from little to much: styles heat0 to heat9."""


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters that pictures are made of."""

    levels: str  # from nothing to a full cell
    full: str  # a cell of a bar
    rest: str  # a cell of a bar that is not reached
    rule: str
    beside: str  # between parts of a line
    arrow: str
    back: str  # a row that has more before it
    branch: str
    last: str
    trunk: str
    down: str  # sorted from much to little
    up: str
    dash: str


BLOCKS = Glyphs(" ▁▂▃▄▅▆▇█", "■", "·", "─", "│", "→", "«", "├─", "└─", "│ ", "▾", "▴", "–")
ASCII = Glyphs(" ._-=+*%#", "|", ".", "-", "|", ">", "<", "|-", "`-", "| ", "v", "^", "-")


def heat(share: float) -> str:
    """The style of a share of what there is.

    >>> heat(0.0), heat(0.55), heat(3.0)
    ('heat0', 'heat5', 'heat9')
    """
    return f"heat{min(HEATS - 1, max(0, int(share * HEATS)))}"


def bar(share: float, width: int, glyphs: Glyphs) -> Line:
    """A share of 1 as a bar of so many cells."""
    full = min(width, max(0, round(share * width)))
    if share > 0.005:
        full = max(full, 1)
    pieces: list[Piece] = [(glyphs.full, heat((at + 0.5) / max(width, 1))) for at in range(full)]
    return (*_joined(pieces), (glyphs.rest * (width - full), "faint"))


def sparkline(values: Sequence[float], most: float, width: int, glyphs: Glyphs) -> Line:
    """The newest of these values, a cell each, the last one at the right end."""
    values = values[-width:]
    pieces: list[Piece] = [(" " * (width - len(values)), "")]
    for value in values:
        share = value / most if most > 0 else 0.0
        pieces.append((_level(share, glyphs), heat(share)))
    return _joined(pieces)


def graph(values: Sequence[float], most: float, width: int, height: int, glyphs: Glyphs, style: str = "") -> list[Line]:
    """The newest of these values as columns of a picture, the highest row first. `style`: "" for colours by the share."""
    values = [0.0] * (width - len(values)) + list(values[-width:])
    rows = []
    for row in range(height - 1, -1, -1):
        pieces: list[Piece] = []
        for value in values:
            share = value / most if most > 0 else 0.0
            part = share * height - row
            pieces.append((_level(part, glyphs, some=row == 0), style or heat((row + 0.5) / height)))
        rows.append(_joined(pieces))
    return rows


def _level(share: float, glyphs: Glyphs, some: bool = True) -> str:
    """A character as high as the share. `some`: anything above nothing shows."""
    top = len(glyphs.levels) - 1
    level = min(top, max(0, round(share * top)))
    if some and share > 0.002:
        level = max(level, 1)
    return glyphs.levels[level]


def _joined(pieces: Sequence[Piece]) -> Line:
    """Pieces beside each other with the same style as one."""
    found: list[Piece] = []
    for text, style in pieces:
        if found and (found[-1][1] == style or not text.strip()):
            found[-1] = (found[-1][0] + text, found[-1][1])
        elif text:
            found.append((text, style))
    return tuple(found)
