"""The whole screen: what the person chose to see, and the lines that come of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ...frame import Frame, Group
from .cells import Line, Piece, filled, fit, shown
from .detail import detail, titled
from .glyphs import Glyphs
from .head import When, footer, head, tabs
from .history import History
from .tables import (
    COLUMNS,
    FIRST_ORDER,
    GAP,
    Column,
    Context,
    Process,
    Row,
    Tab,
    as_tree,
    columns_that_fit,
    key_of,
    matches,
    ordered,
    row_line,
    rows_of,
)

DETAIL_FROM, DETAIL_LINES = 20, 5
"""Lines of a screen from which on the chosen row is described below the table, and how many lines that takes there (chosen)."""

HIGH, HIGH_DETAIL = 34, 9
"""The same on a high screen."""

MORE_LINES = {Tab.INCIDENTS: 4, Tab.POOLS: 4, Tab.DECISIONS: 12}
"""Tables that stand below the groups on a high screen where these leave room, and the most lines of each (chosen)."""

MORE_FROM = 44
"""Lines of a screen from which on half of the room is theirs, however many groups there are (chosen)."""

STEP = 4
"""Rows in which the room of the groups grows (chosen): the screen must not jump with each group that comes and goes."""


@dataclass(slots=True)
class Shown:
    """How a table is shown."""

    by: str
    falls: bool
    filter: str = ""
    cursor: str = ""  # key of the chosen row
    at: int = 0  # its place, for when it is gone
    top: int = 0  # the first row on the screen


@dataclass(slots=True)
class View:
    """What the person chose to see."""

    tab: Tab = Tab.GROUPS
    tables: dict[Tab, Shown] = field(default_factory=lambda: {tab: Shown(*FIRST_ORDER[tab]) for tab in Tab})
    tree: bool = False
    group: str = ""  # only processes of this group; "": all
    idle: bool = False  # groups that do nothing are shown too

    @property
    def table(self) -> Shown:
        """That of the tab."""
        return self.tables[self.tab]


@dataclass(frozen=True, slots=True)
class Place:
    """Cells of the screen that do something when they are clicked."""

    y: int
    begin: int
    end: int
    what: str  # tab, sort or row
    name: str


@dataclass(frozen=True, slots=True)
class Screen:
    """What is on the screen."""

    lines: list[Line]
    places: list[Place]
    page: int  # rows of the table on it
    chosen: int | None  # line of the chosen row

    def at(self, x: int, y: int) -> Place | None:
        """What is clicked there."""
        return next((place for place in self.places if place.y == y and place.begin <= x < place.end), None)


def rows_shown(frame: Frame, view: View, glyphs: Glyphs) -> list[Row]:
    """The rows of the table in their order."""
    table, rows = view.table, rows_of(view.tab, frame)
    if view.tab is Tab.GROUPS and not view.idle and not table.filter:
        rows = [row for row in rows if isinstance(row, Group) and (row.class_ != "exempt" or row.demand >= 0.005 or row.changes)]
    if view.tab is Tab.PROCESSES and view.group:
        rows = [row for row in rows if isinstance(row, Process) and row.group == view.group]
    if table.filter:
        rows = [row for row in rows if matches(row, table.filter)]
    rows = ordered(view.tab, rows, table.by, table.falls)
    return as_tree(rows, glyphs) if view.tree and view.tab is Tab.PROCESSES else rows


def chosen_row(rows: Sequence[Row], table: Shown) -> int | None:
    """Where the chosen row is now; if it is gone, the row at its place is chosen."""
    if not rows:
        return None
    at = next((at for at, row in enumerate(rows) if key_of(row) == table.cursor), None) if table.cursor else 0
    if at is None:
        at = min(table.at, len(rows) - 1)
        table.cursor = key_of(rows[at])
    table.at = at
    return at


def draw(
    frame: Frame,
    view: View,
    history: History,
    when: When,
    glyphs: Glyphs,
    width: int,
    height: int,
    message: tuple[str, str] | None = None,
) -> Screen:
    """The screen of a frame. `message`: text and style of what stands in place of the keys."""
    context = Context(frame, history, glyphs)
    lines = head(frame, history, when, glyphs, width, height)
    places = list[Place]()
    counts = {
        Tab.GROUPS: len(frame.groups),
        Tab.PROCESSES: len(frame.processes.pid) + frame.processes.left_out,
        Tab.POOLS: len(frame.pools),
        Tab.INCIDENTS: len(frame.incidents),
        Tab.DECISIONS: len(frame.decisions),
        Tab.NOTES: len(frame.notes),
    }
    line, cells = tabs(counts, view.tab, width)
    places += [Place(len(lines), begin, end, "tab", tab) for begin, end, tab in cells]
    lines.append(line)

    rows = rows_shown(frame, view, glyphs)
    at = chosen_row(rows, view.table)
    below = height - len(lines) - 2  # without titles and keys
    about = HIGH_DETAIL if height >= HIGH else DETAIL_LINES if height >= DETAIL_FROM else 0
    room = max(1, below - (about + 1 if about else 0))
    more: dict[Tab, int] = {}
    if view.tab is Tab.GROUPS and height >= HIGH:
        kept = room // 2 if height >= MORE_FROM else 0
        more = _lines_more(frame, max(room - STEP * -(-(len(rows) + 1) // STEP), kept))
    page = max(1, room - sum(lines + 2 for lines in more.values()))
    table = view.table
    table.top = _scrolled(table.top, at, page, len(rows))
    columns = columns_that_fit(COLUMNS[view.tab], width, rows[table.top : table.top + page])
    title, marks = _titles(columns, table, glyphs, width)
    places += [Place(len(lines), begin, end, "sort", key) for begin, end, key in marks]
    lines.append(title)
    chosen = None
    for number, row in enumerate(rows[table.top : table.top + page], table.top):
        if number == at:
            chosen = len(lines)
        places.append(Place(len(lines), 0, width, "row", key_of(row)))
        lines.append(filled(row_line(row, columns, context), width))
    empty = page - (len(rows) - table.top if rows else 0)
    if not rows:
        lines.append(filled([("  " + _nothing(frame, view), "dim")], width))
        empty -= 1
    lines += [filled((), width)] * max(0, empty)
    if about:
        lines.append(titled(_place_of(rows, at, view, frame), glyphs, width))
        lines += detail(None if at is None else rows[at], context, width, about)
    for tab, many in more.items():
        lines += _more(tab, frame, context, width, many)
    lines = lines[: height - 1]
    lines += [filled((), width)] * (height - 1 - len(lines))
    lines.append(filled([message], width) if message else footer(_keys(view, when), width))
    return Screen(lines, [place for place in places if place.y < height - 1], page, chosen)


def _scrolled(top: int, at: int | None, page: int, rows: int) -> int:
    """The first row on the screen so that the chosen one is on it."""
    top = max(0, min(top, rows - page))
    if at is None:
        return top
    return at if at < top else at - page + 1 if at >= top + page else top


def _titles(
    columns: Sequence[tuple[Column, int]], table: Shown, glyphs: Glyphs, width: int
) -> tuple[Line, list[tuple[int, int, str]]]:
    """The line of the titles, and the cells of those that can be clicked."""
    pieces, marks, x = list[Piece](), list[tuple[int, int, str]](), 0
    for number, (column, cells) in enumerate(columns):
        if number:
            pieces.append((" " * GAP, "heading"))
            x += GAP
        on = column.key == table.by
        text = column.title
        if on:
            arrow = glyphs.down if table.falls else glyphs.up
            text += arrow if len(text) < cells else ""
        pieces.append((fit(text, cells, column.right), "heading on" if on else "heading"))
        if column.order is not None:
            marks.append((x, x + cells, column.key))
        x += cells
    pieces.append((" " * max(0, width - x), "heading"))
    return filled(pieces, width), marks


def _place_of(rows: Sequence[Row], at: int | None, view: View, frame: Frame) -> str:
    if at is None:
        return "nothing chosen"
    text = f"{at + 1} of {len(rows)}"
    if view.table.filter:
        text += f' with "{view.table.filter}"'
    if view.tab is Tab.PROCESSES and view.group:
        text += f" of group {view.group}"
    if view.tab is Tab.PROCESSES and frame.processes.left_out:
        text += f"; {frame.processes.left_out} idle ones are not in the frame"
    hidden = len(frame.groups) - len(rows)
    if view.tab is Tab.GROUPS and hidden and not view.table.filter:
        text += f"; {hidden} idle hidden, i shows them"
    return text


def _nothing(frame: Frame, view: View) -> str:
    if view.table.filter:
        return f'none matches "{shown(view.table.filter)}"; Esc shows all'
    if not frame.measured:
        return "rates are known from the second tick on"
    return {
        Tab.GROUPS: "no group wants a CPU; i shows the idle ones",
        Tab.PROCESSES: "the processes of this moment are not known",
        Tab.POOLS: "no pools; `nicety pools find` looks for some and says what to configure",
        Tab.INCIDENTS: "no worker misbehaves",
        Tab.DECISIONS: "nothing was decided yet",
        Tab.NOTES: "nothing that must be known",
    }[view.tab]


def _lines_more(frame: Frame, room: int) -> dict[Tab, int]:
    """Tables that there is room for below that of the groups, and the lines of each."""
    found = {}
    rows = {Tab.INCIDENTS: len(frame.incidents), Tab.POOLS: len(frame.pools), Tab.DECISIONS: len(frame.decisions)}
    for tab, most in MORE_LINES.items():
        lines = min(rows[tab], most, room - 2)
        if lines >= min(rows[tab], 3) and lines > 0:
            found[tab] = lines
            room -= lines + 2
    return found


def _more(tab: Tab, frame: Frame, context: Context, width: int, lines: int) -> list[Line]:
    """Another table below that of the groups, in exactly so many lines and two of titles."""
    rows = ordered(tab, rows_of(tab, frame), *FIRST_ORDER[tab])
    columns = columns_that_fit(COLUMNS[tab], width, rows[:lines])
    heading = tuple(
        piece
        for at, (column, cells) in enumerate(columns)
        for piece in (*(((" " * GAP, "heading"),) if at else ()), (fit(column.title, cells, column.right), "heading"))
    )
    hidden = f", {len(rows) - lines} more on their own tab" if len(rows) > lines else ""
    found = [titled(f"{tab.value} {len(rows)}{hidden}", context.glyphs, width), filled(heading, width)]
    found += [filled(row_line(row, columns, context), width) for row in rows[:lines]]
    if not rows:
        found.append(filled([("  " + _nothing(frame, View(tab)), "dim")], width))
    return found + [filled((), width)] * (lines + 2 - len(found))


def _keys(view: View, when: When) -> list[tuple[str, str]]:
    back = [("←→", "step"), ("PgUp PgDn", "10 min"), ("End", "live"), ("b", "bookmark")]
    common = [("?", "help"), ("q", "quit"), ("w", "why"), ("/", "search"), ("s", "sort")]
    if view.tab is Tab.PROCESSES:
        common.append(("t", "tree"))
    if view.tab is Tab.GROUPS:
        common.append(("Space", "its processes"))
    if when.past:
        return [*common[:2], *back, *common[2:], ("g", "go to a time")]
    changes = [] if when.alone else [("u", "undo"), ("p", "pause")]
    return [*common, *changes, ("←", "the past"), ("g", "go to a time"), ("1-6", "tables"), ("i", "idle ones")]
