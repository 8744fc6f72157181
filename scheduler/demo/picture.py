"""Figures as pictures of plain text: bars, and columns over time. Knows figures and columns, not what they mean.

Blocks of an eighth of a line show them, without colours. A terminal that cannot show blocks gets `#` and `.`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

BLOCKS = " ▁▂▃▄▅▆▇█"
"""A column of a line, from nothing to all of it, in eighths."""

PARTS = " ▏▎▍▌▋▊▉█"
"""The same from left to right."""

ASCII = " .......#"
"""The same for terminals without blocks: less than a whole one is a dot."""


def shows_blocks(encoding: str | None) -> bool:
    """Whether an output with this encoding can show blocks.

    >>> shows_blocks("utf-8"), shows_blocks("ascii"), shows_blocks(None), shows_blocks("nonsense")
    (True, False, False, False)
    """
    try:
        (BLOCKS + PARTS).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def bars(rows: Sequence[tuple[str, float, str]], width: int, blocks: bool = True) -> list[str]:
    """A line for each (label, figure, figure in words): a bar as long as its figure. No line is wider than `width`.

    >>> bars([("without", 4.0, "4 s"), ("with", 1.0, "1 s")], 24)
    ['without  ███████████ 4 s', 'with     ██▊ 1 s']
    """
    label, value = max(len(name) for name, _, _ in rows), max(len(words) for _, _, words in rows)
    room = max(width - label - value - 3, 1)
    top = max([figure for _, figure, _ in rows if math.isfinite(figure)], default=0.0)
    return [
        f"{name:<{label}}  {_bar(figure / top if top > 0 else 0.0, room, PARTS if blocks else ASCII)} {words}"
        for name, figure, words in rows
    ]


def _bar(share: float, room: int, parts: str) -> str:
    eighths = round(8 * room * min(max(share, 0.0), 1.0)) if math.isfinite(share) else 8 * room
    whole, rest = divmod(eighths, 8)
    return parts[8] * whole + (parts[rest] if rest else "")


def over_time(values: Sequence[float], height: int, top: float, blocks: bool = True) -> list[str]:
    """Columns from left to right, a column for each value, `height` lines high; `top` is the figure of a full column.

    A value that is not known (NaN) has no column; one above `top` is cut off.

    >>> over_time([0, 1, 2, 3, 4], 2, 4)
    ['   ▄█', ' ▄███']
    """
    shown = BLOCKS if blocks else ASCII
    eighths = [
        0 if math.isnan(value) else round(8 * height * min(max(value / top, 0.0), 1.0)) if top > 0 else 0 for value in values
    ]
    return ["".join(shown[min(max(many - 8 * line, 0), 8)] for many in eighths) for line in reversed(range(height))]


def each_second(samples: Sequence[tuple[float, float]], seconds: int, highest: bool) -> list[float]:
    """The mean, or the highest, of the samples (second, value) of each second; NaN for a second without one.

    >>> each_second([(0.1, 1.0), (0.9, 3.0), (2.5, 4.0)], 3, highest=False)
    [2.0, nan, 4.0]
    """
    found: list[list[float]] = [[] for _ in range(seconds)]
    for at, value in samples:
        if 0 <= at < seconds and math.isfinite(value):
            found[int(at)].append(value)
    return [math.nan if not each else max(each) if highest else sum(each) / len(each) for each in found]


def shortened(values: Sequence[float], most: int, highest: bool) -> list[float]:
    """At most so many values: the mean, or the highest, of neighbours.

    >>> shortened([1, 3, 5, 7, 9], 3, highest=True)
    [3, 7, 9]
    """
    every = -(-len(values) // max(most, 1)) or 1
    parts = [[value for value in values[at : at + every] if not math.isnan(value)] for at in range(0, len(values), every)]
    return [math.nan if not each else max(each) if highest else sum(each) / len(each) for each in parts]
