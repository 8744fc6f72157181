"""The tables: which columns each has, what stands in a cell, and which columns a screen has room for. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, NamedTuple

from ...frame import Decided, Delay, Frame, Group, Incident, Pool
from ...words import moment
from . import figures
from .cells import Line, filled, fit, fit_name, shown, width_of
from .glyphs import Glyphs, heat, sparkline
from .history import History

GAP = 1
"""Cells between columns."""


class Tab(StrEnum):
    """A table."""

    GROUPS = "groups"
    PROCESSES = "processes"
    POOLS = "pools"
    INCIDENTS = "incidents"
    DECISIONS = "decisions"
    NOTES = "notes"


class Process(NamedTuple):
    """A process of a frame."""

    pid: int
    parent: int
    group: str
    name: str
    user: int | None
    state: str
    nice: int
    threads: int
    age: float
    cpu: float
    wait: float
    memory: int
    tree: str = ""  # lines that lead to it from its parent


SHORT = {"interactive": "inter"}
"""Classes in narrow columns."""


class Note(NamedTuple):
    """A sentence, and its number."""

    number: int
    text: str


Row = Group | Process | Pool | Incident | Decided | Note


@dataclass(frozen=True, slots=True)
class Context:
    """What cells need besides their row."""

    frame: Frame
    history: History
    glyphs: Glyphs


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    key: str
    title: str
    width: int  # least cells
    rank: int  # those of a low rank are shown first
    cell: Callable[[Any, Context, int], Line]  # given the row and its width
    order: Callable[[Any], Any] | None = None  # by what it is sorted; None: not at all
    right: bool = False
    most: int = 0  # cells to which it may grow; 0: it does not
    need: Callable[[Any], int] | None = None  # cells that a row has use for; None: as many as there are
    rises: bool = False  # it is sorted from little to much at first


def columns_that_fit(columns: Sequence[Column], width: int, rows: Sequence[Row] = ()) -> list[tuple[Column, int]]:
    """The columns that there is room for, in their order, and how wide each is: names first, as long as those of these rows."""
    room, kept = width + GAP, set[str]()
    for column in sorted(columns, key=lambda column: column.rank):
        if column.width + GAP > room:
            break
        room -= column.width + GAP
        kept.add(column.key)
    chosen = [column for column in columns if column.key in kept]
    widths = {column.key: column.width for column in chosen}
    for column in chosen:
        if column.need is not None and room > 0:
            needed = max(map(column.need, rows), default=column.width)
            more = min(room, max(0, min(needed, column.most) - column.width))
            widths[column.key] += more
            room -= more
    while room > 0:
        growing = [column for column in chosen if column.need is None and widths[column.key] < column.most]
        if not growing:
            break
        for column in growing:
            if room > 0:
                widths[column.key] += 1
                room -= 1
    return [(column, widths[column.key]) for column in chosen]


def row_line(row: Row, columns: Sequence[tuple[Column, int]], context: Context) -> Line:
    """A row as a line."""
    pieces: list[tuple[str, str]] = []
    for at, (column, width) in enumerate(columns):
        if at:
            pieces.append((" " * GAP, ""))
        pieces += column.cell(row, context, width)
    return tuple(pieces)


def key_of(row: Row) -> str:
    """What names a row from one frame to the next."""
    match row:
        case Group() | Pool():
            return row.name
        case Process():
            return str(row.pid)
        case Incident() | Decided():
            return row.id
        case Note():
            return row.text


def text_of(row: Row) -> str:
    """What a search looks through."""
    match row:
        case Group():
            return " ".join((row.name, row.class_, *(change.control for change in row.changes)))
        case Process():
            return f"{row.name} {row.pid} {row.group}"
        case Pool():
            return f"{row.name} {row.kind} {row.trouble}"
        case Incident():
            return f"{row.pool} {row.kind} {row.text}"
        case Decided():
            return f"{row.target} {row.what} {row.policy} {row.status} {row.text}"
        case Note():
            return row.text


def matches(row: Row, words: str) -> bool:
    """Whether a row has all these words, in upper or lower case."""
    text = text_of(row).casefold()
    return all(word in text for word in words.casefold().split())


# --- cells --------------------------------------------------------------------------------------------------------------------


def _cell(text: str, style: str, width: int, right: bool = False) -> Line:
    return ((fit(text, width, right), style),)


def _needs(get: Callable[[Any], str]) -> Callable[[Any], int]:
    return lambda row: width_of(shown(get(row)))


def _group_name(row: Group, _: Context, width: int) -> Line:
    return ((fit_name(figures.name_of(row.name), width), row.class_ if row.class_ != "exempt" else "name"),)


def _class(row: Group, _: Context, width: int) -> Line:
    name = row.leans if row.class_ == "exempt" else row.class_
    if not name or (row.certainty is None and row.class_ == "exempt"):
        return _cell("", "faint", width)
    sure = " set" if row.given else "" if row.certainty is None else f" {min(row.certainty, 0.99):.0%}"
    sure += "?" if row.class_ == "exempt" else ""
    short = name if width >= len(name) + len(sure) else SHORT.get(name, name)
    return _cell(short + sure, "faint" if row.class_ == "exempt" else row.class_, width)


def _cores(value: float, context: Context, width: int) -> Line:
    share = value / max(context.frame.machine.cpus, 1)
    return _cell(figures.cores(value), heat(share) if value >= 0.005 else "", width, right=True)


def _wait(wait: float, demand: float, width: int) -> Line:
    share = figures.wait_share(wait, demand)
    return _cell(figures.share(share), "bad" if share >= 0.25 else "warn" if share >= 0.05 else "dim", width, right=True)


def _memory(value: int, context: Context, width: int) -> Line:
    much = value > context.frame.machine.memory * 0.25
    return _cell(figures.size(value), "warn" if much else "" if value > 100 << 20 else "dim", width, right=True)


def delay_words(delay: Delay | None, room: int) -> str:
    """Who delays a group, as far as there is room, in cores: the largest first, and many small ones together last."""
    if delay is None:
        return ""
    parts = [(figures.name_of(name), cores) for name, cores in delay.by]
    parts += [("its own", delay.own), ("unseen", delay.unseen), ("steal", delay.steal)]
    parts = [*sorted(parts, key=lambda part: -part[1]), ("others", delay.others)]
    parts = [(name, cores) for name, cores in parts if cores >= 0.005]
    if not parts:
        return ""
    name, cores = parts[0]
    text = f"{fit_name(name, min(width_of(shown(name)), max(room - 5, 4))).rstrip()} {cores:.2f}"
    for name, cores in parts[1:3]:
        more = f"{text}, {shown(name)} {cores:.2f}"
        if len(more) > room:
            break
        text = more
    return text


def value_words(control: str, value: str) -> str:
    """A value of a control for people.

    >>> value_words("slice", "100000"), value_words("slice", "0"), value_words("nice", "19")
    ('0.1ms', 'usual', '19')
    """
    if control != "slice" or not value.isdecimal():
        return value
    return f"{int(value) / 1e6:g}ms" if int(value) else "usual"


def change_words(row: Group | Pool, many: int = 1) -> str:
    """The changes in force of a group."""
    words = [
        f"{it.control} {value_words(it.control, it.now)}" if it.control == "slice" else f"{it.control} {it.original}>{it.now}"
        for it in row.changes[:many]
    ]
    rest = len(row.changes) - many
    return ", ".join(words) + (f" +{rest}" if rest > 0 else "")


def _spark(row: Group, context: Context, width: int) -> Line:
    values = context.history.demand(row.name)
    most = max([*values, context.frame.machine.cpus / 4])
    return filled(sparkline(values, most, width, context.glyphs), width)


def _number(value: float | None, digits: int = 1) -> str:
    if not value:
        return "?" if value is None else "0"
    return f"{value:.{digits}f}" if value < 99.95 else f"{value:.0f}"


def _pool_spark(row: Pool, context: Context, width: int) -> Line:
    values = context.history.load(row.name)
    return filled(sparkline(values, max([*values, float(row.size)]), width, context.glyphs), width)


def _pool_size(row: Pool, context: Context, width: int) -> Line:
    if row.size == row.wanted:
        return _cell(str(row.size), "name", width, right=True)
    return _cell(f"{row.size}{context.glyphs.arrow}{row.wanted}", "warn", width, right=True)


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value * 1000:.0f}ms" if value < 0.9995 else f"{value:.1f}s"


def _text(get: Callable[[Any], str], style: str | Callable[[Any], str], right: bool, row: Any, _: Context, width: int) -> Line:
    return _cell(get(row), style if isinstance(style, str) else style(row), width, right)


def _plain(get: Callable[[Any], str], style: str | Callable[[Any], str] = "", right: bool = False) -> Callable[..., Line]:
    return partial(_text, get, style, right)


def _state_style(row: Process) -> str:
    return {"R": "good", "D": "warn", "Z": "bad", "T": "warn"}.get(row.state, "dim")


def _process_name(row: Process, _: Context, width: int) -> Line:
    tree = row.tree[: width // 2]
    return ((tree, "faint"), *_cell(row.name, "name", width - width_of(tree)))


def _user(row: Process) -> str:
    return "" if row.user is None else str(row.user)


def _ahead(row: Group | Pool, context: Context, width: int) -> Line:
    return _cell(figures.band(row.forecast, context.glyphs.dash), "ahead", width, right=True)


GROUPS = (
    Column(
        "name",
        "group",
        14,
        0,
        _group_name,
        lambda row: row.name.casefold(),
        most=44,
        need=_needs(lambda row: figures.name_of(row.name)),
        rises=True,
    ),
    Column("class", "class", 10, 4, _class, lambda row: (row.class_, row.certainty or 0.0), most=16),
    Column("history", "history", 8, 7, _spark, most=40),
    Column("cpu", "cores", 6, 8, lambda row, context, width: _cores(row.cpu, context, width), lambda row: row.cpu, right=True),
    Column(
        "demand", "wants", 6, 1, lambda row, context, width: _cores(row.demand, context, width), lambda row: row.demand, right=True
    ),
    Column("ahead", "in 30 s", 8, 6, _ahead, lambda row: row.forecast.high[-1] if row.forecast else 0.0, right=True),
    Column(
        "wait",
        "waits",
        6,
        2,
        lambda row, _, width: _wait(row.wait, row.demand, width),
        lambda row: figures.wait_share(row.wait, row.demand),
        right=True,
    ),
    Column("delay", "delayed by", 16, 3, lambda row, _, width: _cell(delay_words(row.delay, width), "culprit", width), most=44),
    Column("change", "changed", 14, 5, _plain(change_words, "change"), lambda row: len(row.changes), most=34),
    Column(
        "memory",
        "memory",
        6,
        9,
        lambda row, context, width: _memory(row.memory, context, width),
        lambda row: row.memory,
        right=True,
    ),
    Column("processes", "procs", 5, 10, _plain(lambda row: str(row.processes), "dim", True), lambda row: row.processes, right=True),
    Column(
        "quota",
        "quota",
        5,
        11,
        _plain(lambda row: figures.share(row.throttled), "warn", True),
        lambda row: row.throttled,
        right=True,
    ),
)

PROCESSES = (
    Column("pid", "pid", 7, 1, _plain(lambda row: str(row.pid), "dim", True), lambda row: row.pid, right=True, rises=True),
    Column(
        "name",
        "process",
        16,
        0,
        _process_name,
        lambda row: row.name.casefold(),
        most=40,
        need=lambda row: width_of(row.tree) + width_of(shown(row.name)),
        rises=True,
    ),
    Column("cpu", "cores", 6, 2, lambda row, context, width: _cores(row.cpu, context, width), lambda row: row.cpu, right=True),
    Column(
        "wait", "waits", 6, 3, lambda row, _, width: _wait(row.wait, row.cpu + row.wait, width), lambda row: row.wait, right=True
    ),
    Column(
        "memory",
        "memory",
        6,
        4,
        lambda row, context, width: _memory(row.memory, context, width),
        lambda row: row.memory,
        right=True,
    ),
    Column(
        "nice",
        "nice",
        4,
        6,
        _plain(lambda row: str(row.nice), lambda row: "change" if row.nice else "dim", True),
        lambda row: row.nice,
        right=True,
    ),
    Column("state", "st", 2, 5, _plain(lambda row: row.state, _state_style), lambda row: row.state),
    Column("threads", "thr", 4, 8, _plain(lambda row: str(row.threads), "dim", True), lambda row: row.threads, right=True),
    Column("age", "age", 6, 9, _plain(lambda row: figures.age(row.age), "dim", True), lambda row: row.age, right=True),
    Column("user", "uid", 5, 10, _plain(_user, "dim", True), lambda row: -1 if row.user is None else row.user, right=True),
    Column(
        "group",
        "group",
        14,
        7,
        _plain(lambda row: figures.name_of(row.group)),
        lambda row: row.group.casefold(),
        most=60,
        rises=True,
    ),
)

POOLS = (
    Column("name", "pool", 12, 0, _plain(lambda row: row.name, "name"), lambda row: row.name.casefold(), most=24, rises=True),
    Column("kind", "kind", 8, 9, _plain(lambda row: row.kind, "dim"), lambda row: row.kind, most=10),
    Column("size", "size", 6, 1, _pool_size, lambda row: row.size, right=True),
    Column(
        "limits",
        "limits",
        7,
        8,
        lambda row, context, width: _cell(f"{row.minimum}{context.glyphs.dash}{row.maximum}", "dim", width, True),
        right=True,
    ),
    Column("busy", "busy", 5, 2, _plain(lambda row: _number(row.busy), "", True), lambda row: row.busy or 0.0, right=True),
    Column(
        "queued",
        "queue",
        5,
        3,
        _plain(lambda row: _number(row.queued, 0), lambda row: "bad" if (row.queued or 0) >= 0.5 else "dim", True),
        lambda row: row.queued or 0.0,
        right=True,
    ),
    Column("load", "load", 5, 4, _plain(lambda row: _number(row.load), "", True), lambda row: row.load or 0.0, right=True),
    Column("history", "history", 8, 7, _pool_spark, most=30),
    Column("ahead", "in 30 s", 8, 5, _ahead, lambda row: row.forecast.high[-1] if row.forecast else 0.0, right=True),
    Column("p95", "p95", 6, 10, _plain(lambda row: _seconds(row.p95), "", True), lambda row: row.p95 or 0.0, right=True),
    Column("objective", "keeps", 11, 11, _plain(lambda row: row.objective, "dim"), most=18),
    Column("rules", "rules", 10, 12, _plain(lambda row: row.rules, "dim"), most=28),
    Column("trouble", "trouble", 16, 6, _plain(lambda row: row.trouble, "bad"), lambda row: row.trouble, most=60),
)

INCIDENTS = (
    Column("since", "since", 8, 0, _plain(lambda row: moment(round(row.wall * 1e9), day=False), "dim"), lambda row: row.wall),
    Column("pool", "pool", 12, 1, _plain(lambda row: row.pool, "name"), lambda row: row.pool.casefold(), most=24, rises=True),
    Column("kind", "what", 9, 2, _plain(lambda row: row.kind, "bad"), lambda row: row.kind, most=14, rises=True),
    Column("pids", "workers", 10, 4, _plain(lambda row: " ".join(map(str, row.pids)), "dim"), most=20),
    Column("text", "in words", 24, 3, _plain(lambda row: row.text), most=400),
)

DECISIONS = (
    Column("time", "time", 8, 0, _plain(lambda row: moment(round(row.wall * 1e9), day=False), "dim"), lambda row: row.wall),
    Column(
        "target",
        "about",
        20,
        1,
        _plain(lambda row: figures.name_of(row.target.removeprefix("group ")), "name"),
        lambda row: row.target,
        most=36,
        rises=True,
    ),
    Column(
        "what",
        "what",
        14,
        2,
        _plain(lambda row: row.what + (f" x{row.times}" if row.times > 1 else ""), "change"),
        lambda row: row.what,
        most=26,
        rises=True,
    ),
    Column(
        "status",
        "outcome",
        9,
        3,
        _plain(lambda row: row.status, lambda row: figures.status_style(row.status)),
        lambda row: row.status,
        most=10,
    ),
    Column(
        "effect",
        "effect",
        9,
        4,
        _plain(lambda row: row.effect, lambda row: figures.status_style(row.effect)),
        lambda row: row.effect,
        most=15,
    ),
    Column("policy", "policy", 10, 6, _plain(lambda row: row.policy, "dim"), lambda row: row.policy, rises=True),
    Column("text", "why", 24, 5, _plain(lambda row: row.text, "dim"), most=400),
)

NOTES = (Column("text", "what holds now", 20, 0, _plain(lambda row: row.text), most=2000),)

COLUMNS: Mapping[Tab, tuple[Column, ...]] = {
    Tab.GROUPS: GROUPS,
    Tab.PROCESSES: PROCESSES,
    Tab.POOLS: POOLS,
    Tab.INCIDENTS: INCIDENTS,
    Tab.DECISIONS: DECISIONS,
    Tab.NOTES: NOTES,
}

FIRST_ORDER: Mapping[Tab, tuple[str, bool]] = {
    Tab.GROUPS: ("demand", True),
    Tab.PROCESSES: ("cpu", True),
    Tab.POOLS: ("name", False),
    Tab.INCIDENTS: ("since", False),
    Tab.DECISIONS: ("time", True),
    Tab.NOTES: ("text", False),
}
"""By what a table is sorted at first, and whether from much to little."""


def rows_of(tab: Tab, frame: Frame) -> list[Row]:
    """The rows of a table, as the frame has them."""
    match tab:
        case Tab.GROUPS:
            return list(frame.groups)
        case Tab.PROCESSES:
            it = frame.processes
            return list(
                map(
                    Process,
                    *(
                        it.pid,
                        it.parent,
                        it.group,
                        it.name,
                        it.user,
                        it.state,
                        it.nice,
                        it.threads,
                        it.age,
                        it.cpu,
                        it.wait,
                        it.memory,
                    ),
                )
            )
        case Tab.POOLS:
            return list(frame.pools)
        case Tab.INCIDENTS:
            return list(frame.incidents)
        case Tab.DECISIONS:
            return list(frame.decisions)
        case Tab.NOTES:
            return [Note(number, text) for number, text in enumerate(frame.notes)]


def ordered(tab: Tab, rows: Sequence[Row], by: str, falls: bool) -> list[Row]:
    """Rows sorted by a column. Equal ones stay in the order of their names."""
    order = next((column.order for column in COLUMNS[tab] if column.key == by), None)
    return list(rows) if order is None else sorted(rows, key=order, reverse=falls)


def as_tree(rows: Sequence[Row], glyphs: Glyphs) -> list[Row]:
    """Processes below their parents, siblings in the order in which they come."""
    processes = [row for row in rows if isinstance(row, Process)]
    present = {row.pid for row in processes}
    children: dict[int, list[Process]] = {}
    for row in processes:
        parent = row.parent if row.parent in present and row.parent != row.pid else 0
        children.setdefault(parent, []).append(row)
    found, seen = list[Row](), set[int]()
    waiting = [(row, "", "") for row in reversed(children.get(0, []))]
    while waiting:
        row, lead, own = waiting.pop()
        if row.pid in seen:
            continue
        seen.add(row.pid)
        found.append(row._replace(tree=lead + own))
        below = children.get(row.pid, [])
        trunk = lead + ("" if not own else glyphs.trunk if own == glyphs.branch else "  ")
        for at, child in reversed(list(enumerate(below))):
            waiting.append((child, trunk, glyphs.last if at == len(below) - 1 else glyphs.branch))
    return found + [row for row in processes if row.pid not in seen]  # a circle of parents: pids that were used again
