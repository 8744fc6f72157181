"""Texts as pages of a terminal: paragraphs, tables, labels. Knows columns, not what the texts say.

Rich measures, folds and aligns: it knows that some letters take two columns. It is loaded only when a page is made, so never in the
daemon.

A width is that of the terminal. No line is longer than the width, and words are folded, not cut: only a word longer than its column
is broken. In a pipe or a file a page to be read is `PAGE` wide; a list with a line for each item is not folded at all, which None
stands for, so that `grep` finds whole lines. All is plain text.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from ..read.text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

GAP = 2
"""Columns between those of a table."""

NARROW = 16
"""A column of a table is never folded to less than this width; a table that does not fit then is laid out as blocks (chosen)."""

PAGE = 100
"""Columns of a page where there is no terminal (chosen: a mail and a ticket show as many)."""

GLUE = "\ue000"
"""Stands for a blank at which no line ends. It is a private-use character, which `printable` removes from texts."""


def columns() -> int | None:
    """The width for a list: of the terminal that stdout is connected to; None: it is not a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def page_columns() -> int:
    """The width for a page: of the terminal, else $COLUMNS, else PAGE."""
    return shutil.get_terminal_size((PAGE, 1)).columns


def printed(lines: Iterable[str]) -> str:
    """Lines ready for the screen, without anything that a terminal would obey."""
    return "\n".join(printable(line) for line in lines)


def paragraph(text: str, width: int | None) -> list[str]:
    """A text in lines, made printable first because escaping lengthens it. At least one line."""
    text = printable(text)
    if width is None:
        return [text]
    return [_plain(line.plain) for line in _text(text).wrap(_console(max(width, 1)), max(width, 1))] or [""]


def part(title: str, lines: Iterable[str], width: int | None = None) -> list[str]:
    """A titled part of a page, below a blank line: each line indented, and folded to `width`."""
    return ["", title, *indented(lines, width)]


def indented(lines: Iterable[str], width: int | None) -> list[str]:
    """Each line indented by two columns, and its continuation lines by four."""
    body = list[str]()
    for line in lines:
        first, *more = paragraph(line, None if width is None else width - 4)
        body += [f"  {first}", *(f"    {rest}" for rest in more)]
    return body


def labelled(rows: Iterable[tuple[str, str]], width: int | None, label: int | None = None, indent: int = 0) -> list[str]:
    """Labels, and the text of each folded in a column of its own. `label`: columns of the labels; None: the longest one, which is
    folded too where it would take more than two thirds of the width."""
    from rich.cells import cell_len

    cells = [(printable(name), printable(text)) for name, text in rows]
    if not cells:
        return []
    if label is None:
        label = max(cell_len(name) for name, _ in cells)
        label = label if width is None else min(label, max((width - indent) * 2 // 3, 1))
    whole = max(cell_len(text) for _, text in cells)
    room = whole if width is None else min(whole, max(width - indent - label - GAP, 1))
    return [" " * indent + line for line in _grid(cells, [label, room])]


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int | None = None,
    right: Collection[int] = (),
    least: Sequence[int] = (),
    whole: Collection[int] = (),
) -> list[str]:
    """Aligned columns. Where the width is too small for them, each row becomes a block of labels.

    `headers`: () for none. `right`: columns aligned to the right. `least`: least widths of the first columns, so that tables made
    one after the other look alike. `whole`: columns that are not folded.
    """
    cells = [[printable(cell) for cell in row] for row in ((headers, *rows) if headers else rows)]
    widths = _widths(cells, width, least, whole) if cells else []
    if widths is not None:
        return _grid(cells, widths, right)
    blocks = [labelled(zip(headers, row, strict=True), width) for row in rows]
    return [line for at, block in enumerate(blocks) for line in (*([""] if at else ()), *block)]


def shortened(text: str, columns: int) -> str:
    """A text of at most so many columns: what is too long loses its middle, less of its end, where names differ most.

    >>> shortened("program python3 -m http.server", 20), shortened("redis", 20)
    ('program… http.server', 'redis')
    """
    from rich.cells import cell_len, set_cell_size

    text = printable(text)
    if cell_len(text) <= columns:
        return text
    end = (columns - 1) * 2 // 3
    tail = next(text[at:] for at in range(len(text) + 1) if cell_len(text[at:]) <= end)
    return f"{set_cell_size(text, columns - 1 - cell_len(tail)).rstrip()}…{tail}"


def _widths(cells: Sequence[Sequence[str]], width: int | None, least: Sequence[int], whole: Collection[int]) -> list[int] | None:
    """The width of each column: as wide as its cells where there is room. Otherwise those with the most to spare are narrower,
    first down to their longest word, then to NARROW; None if that is not enough."""
    from rich.cells import cell_len

    by_column = list(zip(*cells, strict=True))
    wanted = [max(1, *map(cell_len, column)) for column in by_column]
    for at, columns in enumerate(least):
        wanted[at] = max(wanted[at], columns)
    if width is None:
        return wanted
    words = [max((cell_len(word) for cell in column for word in cell.split()), default=1) for column in by_column]
    narrow = [have if at in whole else min(have, NARROW) for at, have in enumerate(wanted)]
    for bounds in (list(map(max, words, narrow)), narrow):
        widths = list(wanted)
        excess = sum(widths) + GAP * (len(widths) - 1) - width
        spare = [have - bound for have, bound in zip(widths, bounds, strict=True)]
        if excess > sum(spare):
            continue
        for _ in range(excess):
            at = spare.index(max(spare))
            widths[at] -= 1
            spare[at] -= 1
        return widths
    return None


def _grid(rows: Sequence[Sequence[str]], widths: Sequence[int], right: Collection[int] = ()) -> list[str]:
    """Rows in columns of these widths, cells folded."""
    from rich.table import Table

    grid = Table.grid(padding=(0, GAP, 0, 0))
    for at, width in enumerate(widths):
        grid.add_column(width=width, justify="right" if at in right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*map(_text, row))
    console = _console(sum(widths) + GAP * (len(widths) - 1))
    with console.capture() as captured:
        console.print(grid)
    return [_plain(line) for line in captured.get().removesuffix("\n").split("\n")] if rows else []


def _text(text: str) -> Text:
    """A text to be folded: a figure stays with its percent sign."""
    from rich.text import Text

    return Text(text.replace(" %", f"{GLUE}%"))


def _plain(line: str) -> str:
    return line.replace(GLUE, " ").rstrip()


def _console(width: int) -> Console:
    """A console of plain text, whatever the environment says about colours and sizes."""
    from rich.console import Console

    return Console(width=width, height=100, color_system=None, force_terminal=False)
