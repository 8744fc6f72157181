"""What the person does: keys and clicks, and what they lead to. Knows no terminal library, so that each key can be tested.

What takes long is a job: the program that draws runs it beside the screen and gives its result back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from ...frame import Decided, Frame, Group, Incident, Pool
from ...hands.kernel import Clock
from ...words import moment
from . import figures
from .bookmarks import Bookmarks
from .cells import Line, both_ends, filled, folded, shown
from .glyphs import Glyphs
from .head import When
from .history import History
from .moments import moment_of
from .page import Screen, View, draw, rows_shown
from .tables import COLUMNS, Column, Note, Process, Row, Tab, columns_that_fit, key_of

if TYPE_CHECKING:
    from ...store.decisions import TickFigures

MESSAGE_SECONDS = 8.0
"""Seconds for which a message stands in place of the keys (chosen)."""

MINUTE, LONG = 60.0, 600.0
"""Seconds of the larger steps through the past (chosen)."""


class Source(Protocol):
    """See `following.Following`."""

    frame: Frame | None

    def look(self, wall: float) -> bool:
        """Look for a new frame."""
        ...

    def when(self, wall: float) -> When:
        """What is to be said of the frame."""
        ...


class Moment(Protocol):
    """See `explain.past.Moment`."""

    @property
    def frame(self) -> Frame | None:
        """What is known of it; None: nothing is."""
        ...

    @property
    def said(self) -> str:
        """What is missing, and why; "" if nothing is."""
        ...

    @property
    def before(self) -> Sequence[TickFigures]:
        """Figures of the ticks up to it, oldest first."""
        ...


class Past(Protocol):
    """See `explain.past.Past`. It is only used by jobs."""

    def at(self, wall: float) -> Moment:
        """The last tick at or before this time, seconds since 1970."""
        ...

    def step(self, ticks: int) -> Moment:
        """So many ticks from the last one that was read."""
        ...

    def first(self) -> Moment:
        """The oldest tick."""
        ...


class Daemon(Protocol):
    """See `asking.Asking`. Each raises an exception whose text is for people."""

    def why(self, target: str) -> str:
        """The text of `nicety why`."""
        ...

    def ask(self, verb: str, things: Sequence[str] = ()) -> dict[str, Any]:
        """The answer of the daemon."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """Work that must not hold the screen up."""

    name: str  # of two with the same name that wait only the newer is done
    work: Callable[[], Any]
    done: Callable[[Any], None]  # is given the result


@dataclass(slots=True)
class Pager:
    """A text over the screen."""

    title: str
    text: list[str]
    top: int = 0
    marks: list[float] | None = None  # a list to choose from: the moments of the lines
    cursor: int = 0


@dataclass(slots=True)
class Prompt:
    """A line to type, in place of the keys."""

    asks: str
    text: str
    done: Callable[[str], None]
    changes: Callable[[str], None] | None = None  # is given the text after each key


@dataclass(frozen=True, slots=True)
class Question:
    """A yes or no."""

    text: str
    yes: Callable[[], None]


class Desk:
    """The state of the view."""

    def __init__(
        self,
        source: Source,
        open_past: Callable[[], Past],
        daemon: Daemon,
        bookmarks: Bookmarks,
        clock: Clock,
        glyphs: Glyphs,
    ) -> None:
        """`open_past`: opens what was recorded; called by a job, once."""
        self._source, self._open_past, self._daemon = source, open_past, daemon
        self._bookmarks, self._clock, self._glyphs = bookmarks, clock, glyphs
        self._history, self._past_history = History(), History()
        self._past: Past | None = None
        self._moment: Moment | None = None  # None: live
        self._message: tuple[str, str, int] | None = None  # text, style, until when (monotonic ns)
        self._size = (80, 24)
        self._screen: Screen | None = None
        self.view = View()
        self.over: Pager | Prompt | Question | None = None
        """What has the keys now; None: the tables."""
        self.jobs: list[Job] = []
        """What is to be done beside the screen; what draws takes it from here."""
        self.ended = False
        """The person wants to leave."""
        if bookmarks.trouble:
            self._say(bookmarks.trouble, "warn")

    # --- looking --------------------------------------------------------------------------------------------------------------

    def look(self) -> bool:
        """Look for a new frame. Returns whether the screen changes."""
        before = self._source.frame
        changed = self._source.look(self._wall())
        frame = self._source.frame
        if frame is not None and frame is not before:
            self._history.add(frame)
        if self._message is not None and self._clock.monotonic() >= self._message[2]:
            self._message = None
            changed = True
        late = self._source.when(self._wall()).late > 0
        return (changed or late) and (self._moment is None or self._message is None)

    @property
    def frame(self) -> Frame | None:
        """What is shown."""
        return self._source.frame if self._moment is None else self._moment.frame

    @property
    def is_past(self) -> bool:
        """Whether a moment of the past is shown."""
        return self._moment is not None

    def screen(self, width: int, height: int) -> Screen:
        """What stands on a terminal of this size."""
        self._size = width, height
        if isinstance(self.over, Pager):
            self._screen = self._page_of(self.over, width, height)
            return self._screen
        frame = self.frame
        if frame is None:
            self._screen = self._waiting(width, height)
            return self._screen
        history = self._history if self._moment is None else self._past_history
        self._screen = draw(frame, self.view, history, self._when(frame), self._glyphs, width, height, self._bottom())
        return self._screen

    def _when(self, frame: Frame) -> When:
        if self._moment is None:
            return self._source.when(self._wall())
        name = self._bookmarks.at(frame.wall, max(frame.own.interval / 2, 0.5))
        return When(past=True, said=self._moment.said, bookmarked=name)

    def _bottom(self) -> tuple[str, str] | None:
        """What stands in place of the keys."""
        match self.over:
            case Prompt(asks, text):
                return f" {asks} {shown(text)}_ ", "asked"
            case Question(text):
                return f" {shown(text)} (y/n) ", "asked"
        return None if self._message is None else (f" {shown(self._message[0])} ", self._message[1])

    def _waiting(self, width: int, height: int) -> Screen:
        """Before the first frame, and where nothing is known of a moment."""
        lines: list[Line] = [filled([(" nicety ", "brand")], width)]
        if self._moment is not None:
            text = self._moment.said
        else:
            when = self._source.when(self._wall())
            text = "no daemon: looking at the machine by itself" if when.alone else "waiting for the daemon's first frame"
            text = f"{text}; {when.said}" if when.said else text
        lines += [filled((), width), *(filled([("  ", ""), (line, "")], width) for line in folded(text, max(width - 4, 8)))]
        lines = lines[: height - 1] + [filled((), width)] * (height - 1 - len(lines))
        bottom = self._bottom() or (" q quit   End live " if self._moment is not None else " q quit ", "dim")
        return Screen([*lines, filled([bottom], width)], [], height, None)

    def _page_of(self, pager: Pager, width: int, height: int) -> Screen:
        """A text over the screen."""
        body = max(1, height - 2)
        lines: list[str] = []
        for text in pager.text:
            bare = text.lstrip(" ")
            indent = min(len(text) - len(bare), width // 2)
            first, *more = folded(bare, max(width - indent - 2, 8))
            lines += [" " * indent + first, *(" " * (indent + 2) + line for line in more)]
        if pager.marks is not None:
            pager.top = min(max(pager.top, pager.cursor - body + 1), pager.cursor)
        pager.top = max(0, min(pager.top, len(lines) - body))
        shown_lines = lines[pager.top : pager.top + body]
        left = len(lines) - pager.top - len(shown_lines)
        keys = "Enter goes there, d forgets it, Esc back" if pager.marks else f"{left} more lines; Space " if left else ""
        title = both_ends(
            [(f" {shown(pager.title)} ", "brand")], [(f"{keys}  Esc back " if not pager.marks else f"{keys} ", "dim")], width
        )
        found: list[Line] = [title, filled((), width)]
        found += [
            filled([(" ", ""), (line, "title" if line and line[0] != " " and not at else "")], width)
            for at, line in enumerate(shown_lines)
        ]
        found += [filled((), width)] * (height - len(found))
        chosen = pager.cursor - pager.top + 2 if pager.marks else None
        return Screen(found[:height], [], body, chosen)

    # --- keys -----------------------------------------------------------------------------------------------------------------

    def key(self, key: str, text: str | None = None) -> None:
        """A key was pressed. `key`: its name as textual has it; `text`: the character that it types, if it types one."""
        match self.over:
            case Prompt():
                self._typed(self.over, key, text)
            case Question(yes=yes):
                self.over = None
                if text in ("y", "Y"):
                    yes()
                else:
                    self._say("nothing was changed")
            case Pager():
                self._turned(self.over, key, text)
            case None:
                self._pressed(key, text)

    def _typed(self, prompt: Prompt, key: str, text: str | None) -> None:
        if key == "escape":
            self.over = None
            if prompt.changes is not None:
                prompt.changes("")
            return
        if key == "enter":
            self.over = None
            prompt.done(prompt.text)
            return
        if key in ("backspace", "ctrl+h"):
            prompt.text = prompt.text[:-1]
        elif key == "ctrl+u":
            prompt.text = ""
        elif text and text.isprintable():
            prompt.text += text
        if prompt.changes is not None:
            prompt.changes(prompt.text)

    def pasted(self, text: str) -> None:
        """A text came at once."""
        if isinstance(self.over, Prompt):
            self._typed(self.over, "", "".join(char for char in text if char.isprintable()))

    def _turned(self, pager: Pager, key: str, text: str | None) -> None:
        page = max(1, self._size[1] - 3)
        step = {
            "up": -1,
            "k": -1,
            "down": 1,
            "j": 1,
            "pageup": -page,
            "pagedown": page,
            "space": page,
            "home": -(1 << 30),
            "end": 1 << 30,
        }.get(key)
        if key in ("escape", "q") or (key == "enter" and not pager.marks):
            self.over = None
        elif step is not None and pager.marks:
            pager.cursor = max(0, min(pager.cursor + step, len(pager.marks) - 1))
        elif step is not None:
            pager.top += step
        elif pager.marks and key == "enter":
            self.over = None
            self._go(pager.marks[pager.cursor])
        elif pager.marks and text == "d":
            self._bookmarks.remove(pager.marks[pager.cursor])
            self._list_bookmarks(pager.cursor)

    def _pressed(self, key: str, text: str | None) -> None:
        moves = {"up": -1, "k": -1, "down": 1, "j": 1, "ctrl+u": "-", "ctrl+b": "-", "ctrl+d": "+", "ctrl+f": "+"}
        step = moves.get(key)
        if step is not None:
            page = self._screen.page if self._screen else 10
            self._move(step if isinstance(step, int) else -page if step == "-" else page)
            return
        action = self._actions().get(key if len(key) > 1 and text is None else text or key) or self._actions().get(key)
        if action is not None:
            action()
        elif text and text.isdecimal() and 1 <= int(text) <= len(Tab):
            self.view.tab = list(Tab)[int(text) - 1]

    def _actions(self) -> dict[str, Callable[[], None]]:
        return {
            "q": self._quit,
            "ctrl+c": self._quit,
            "?": self._help,
            "question_mark": self._help,
            "f1": self._help,
            "tab": lambda: self._turn(1),
            "shift+tab": lambda: self._turn(-1),
            "s": lambda: self._sort(1),
            "S": lambda: self._sort(-1),
            "r": self._reverse,
            "/": self._search,
            "slash": self._search,
            "t": self._tree,
            "i": self._idle,
            "space": self._enter_group,
            "escape": self._back,
            "enter": self._why,
            "w": self._why,
            "u": self._undo,
            "p": self._pause,
            "left": lambda: self._step(-1),
            "right": lambda: self._step(1),
            "shift+left": lambda: self._jump(-MINUTE),
            "shift+right": lambda: self._jump(MINUTE),
            "pageup": lambda: self._jump(-LONG),
            "pagedown": lambda: self._jump(LONG),
            "home": self._oldest,
            "end": self._live,
            "g": self._ask_moment,
            "b": self._bookmark,
            "B": lambda: self._list_bookmarks(0),
        }

    def clicked(self, x: int, y: int) -> None:
        """The left button, at a cell of the screen."""
        place = None if self._screen is None or self.over is not None else self._screen.at(x, y)
        if place is None:
            return
        table = self.view.table
        match place.what:
            case "tab":
                self.view.tab = Tab(place.name)
            case "sort" if place.name == table.by:
                self._reverse()
            case "sort":
                column = next(it for it in COLUMNS[self.view.tab] if it.key == place.name)
                table.by, table.falls = column.key, not column.rises
            case "row":
                table.cursor = place.name

    def wheeled(self, rows: int) -> None:
        """The wheel of the mouse."""
        if isinstance(self.over, Pager):
            self._turned(self.over, "up" if rows < 0 else "down", None)
        elif self.over is None:
            self._move(rows)

    # --- tables ---------------------------------------------------------------------------------------------------------------

    def _rows(self) -> list[Row]:
        return [] if self.frame is None else rows_shown(self.frame, self.view, self._glyphs)

    def _chosen(self) -> Row | None:
        rows = self._rows()
        if not rows:
            return None
        table = self.view.table
        named = next((row for row in rows if key_of(row) == table.cursor), None)
        return named or rows[min(table.at, len(rows) - 1)]

    def _move(self, rows: int) -> None:
        found, row = self._rows(), self._chosen()
        if row is not None:
            at = max(0, min(found.index(row) + rows, len(found) - 1))
            self.view.table.cursor = key_of(found[at])

    def _turn(self, step: int) -> None:
        tabs = list(Tab)
        self.view.tab = tabs[(tabs.index(self.view.tab) + step) % len(tabs)]

    def _sortable(self) -> list[Column]:
        return [column for column, _ in columns_that_fit(COLUMNS[self.view.tab], self._size[0]) if column.order is not None]

    def _sort(self, step: int) -> None:
        columns, table = self._sortable(), self.view.table
        if not columns:
            return
        at = next((at for at, column in enumerate(columns) if column.key == table.by), -step)
        column = columns[(at + step) % len(columns)]
        table.by, table.falls = column.key, not column.rises
        self._say(f"sorted by {column.title}; r reverses")

    def _reverse(self) -> None:
        self.view.table.falls = not self.view.table.falls

    def _search(self) -> None:
        table = self.view.table

        def narrow(text: str) -> None:
            table.filter = text

        self.over = Prompt("search:", table.filter, narrow, narrow)

    def _tree(self) -> None:
        self.view.tab, self.view.tree = Tab.PROCESSES, self.view.tab is not Tab.PROCESSES or not self.view.tree

    def _idle(self) -> None:
        self.view.idle = not self.view.idle

    def _enter_group(self) -> None:
        row = self._chosen()
        if isinstance(row, Group):
            self.view.group = row.name
            self.view.tab = Tab.PROCESSES
            self.view.table.cursor, self.view.table.top = "", 0
        elif isinstance(row, Process):
            self.view.group = "" if self.view.group else row.group

    def _back(self) -> None:
        view = self.view
        if view.table.filter:
            view.table.filter = ""
        elif view.tab is Tab.PROCESSES and view.group:
            view.group, view.tab = "", Tab.GROUPS
        elif self._moment is not None:
            self._live()

    # --- why, undo, pause -----------------------------------------------------------------------------------------------------

    def _why(self) -> None:
        row, frame = self._chosen(), self.frame
        if row is None or frame is None:
            return
        target = why_target(row, frame)
        if not target:
            self._say(f"nothing was decided about {_name(row)} that could be explained", "warn")
            return
        self._say(f"asking why {target} ...")

        def opened(text: object) -> None:
            self._message = None
            self.over = Pager(f"why {target}", str(text).splitlines())

        self.jobs.append(Job("why", lambda: _or_error(lambda: self._daemon.why(target)), opened))

    def _undo(self) -> None:
        row, frame = self._chosen(), self._source.frame
        if self._moment is not None:
            self._say("this is the past; End goes to the present, where something can be undone", "warn")
            return
        if row is None or frame is None:
            return
        if self._source.when(self._wall()).alone:
            self._say("no daemon runs, so nothing can be undone from here; `nicety undo` puts back what one left", "warn")
            return
        thing = thing_of(row, frame)
        if thing is None:
            self._say(f"{_name(row)} cannot be undone by itself; choose a group or a pool", "warn")
            return
        kind, name = thing
        its: list[Group | Pool] = [*frame.groups, *frame.pools]
        changes = sum(len(it.changes) for it in its if it.name == name)
        if frame.own.mode != "act" and not changes:
            self._say("the daemon only observes: nothing of it is in force", "warn")
            return
        back = f"puts back {figures.many(changes, 'change')} in force there" if changes else "has nothing in force there"
        act = name if " " not in name else f'"{name}"'
        text = f"Stop acting on {kind} {name}? nicety {back}, and only observes it until `nicety act {act}`."

        def undo() -> None:
            self._say(f"putting back {name} ...")
            self.jobs.append(Job("undo", lambda: _or_error(lambda: self._daemon.ask("observe", [f"{kind} {name}"])), undone))

        def undone(answer: object) -> None:
            self._say(_undone(answer, f"{kind} {name}"), "bad" if isinstance(answer, str) else "good")

        self.over = Question(text, undo)

    def _pause(self) -> None:
        frame = self._source.frame
        if frame is None or self._source.when(self._wall()).alone:
            self._say("no daemon runs, so there is nothing to pause", "warn")
            return
        verb = "resume" if frame.own.paused else "pause"
        said = (
            "resumed: the daemon decides again"
            if frame.own.paused
            else "paused: nothing new is decided, what is in force stays; p resumes"
        )

        def done(answer: object) -> None:
            self._say(answer if isinstance(answer, str) else said, "bad" if isinstance(answer, str) else "good")

        self.jobs.append(Job("pause", lambda: _or_error(lambda: self._daemon.ask(verb)), done))

    # --- the past -------------------------------------------------------------------------------------------------------------

    def _read(self, work: Callable[[Past], Moment]) -> None:
        """Have a moment read beside the screen."""

        def run() -> object:
            if self._past is None:
                self._past = self._open_past()
            return work(self._past)

        def came(found: Any) -> None:
            if isinstance(found, str):
                self._say(found, "bad")
                return
            self._moment = found
            self._past_history = History()
            for figures_then in found.before:
                self._past_history.add_figures(figures_then)

        self.jobs.append(Job("past", lambda: _or_error(run), came))

    def _step(self, ticks: int) -> None:
        frame = self._source.frame
        if self._moment is not None:
            self._read(lambda past: past.step(ticks))
        elif ticks < 0:
            wall = self._wall() if frame is None else frame.wall - frame.own.interval / 2
            self._go(wall)
        else:
            self._say("this is the present; Left goes back")

    def _jump(self, seconds: float) -> None:
        frame = self.frame
        at = self._wall() if frame is None else frame.wall
        if self._moment is None and seconds > 0:
            self._say("this is the present; Left goes back")
        elif at + seconds >= self._wall():
            self._live()
        else:
            self._go(at + seconds)

    def _go(self, wall: float) -> None:
        self._read(lambda past: past.at(wall))

    def _oldest(self) -> None:
        self._read(lambda past: past.first())

    def _live(self) -> None:
        self._moment = None

    def _ask_moment(self) -> None:
        def go(text: str) -> None:
            if not text.strip():
                return
            now = datetime.fromtimestamp(self._wall(), UTC).astimezone()
            try:
                at = moment_of(text, now)
            except ValueError as error:
                self._say(str(error), "warn")
                return
            if at >= now:
                self._live()
            else:
                self._go(at.timestamp())

        self.over = Prompt("go to (03:00, yesterday 14:20, -2h):", "", go)

    def _bookmark(self) -> None:
        frame = self.frame
        if frame is None:
            return
        wall = frame.wall

        def keep(text: str) -> None:
            self._bookmarks.add(wall, text.strip() or moment(round(wall * 1e9)))
            trouble = self._bookmarks.trouble
            self._say(trouble or "kept; B lists the bookmarks", "bad" if trouble else "good")

        self.over = Prompt(f"bookmark {moment(round(wall * 1e9))} as:", "", keep)

    def _list_bookmarks(self, cursor: int) -> None:
        marks = self._bookmarks.all
        text = [f"{moment(round(it.wall * 1e9))}  {shown(it.text)[:200]}" for it in marks]
        walls = [it.wall for it in marks]
        self.over = Pager("bookmarks", text or ["no moment is kept yet; b keeps the one that is shown"], marks=walls or None)
        self.over.cursor = max(0, min(cursor, len(walls) - 1))

    # --- words ----------------------------------------------------------------------------------------------------------------

    def _help(self) -> None:
        self.over = Pager("nicety top", HELP.splitlines())

    def _quit(self) -> None:
        self.ended = True

    def _say(self, text: str, style: str = "value") -> None:
        self._message = text, style, self._clock.monotonic() + round(MESSAGE_SECONDS * 1e9)

    def _wall(self) -> float:
        return self._clock.wall() / 1e9


def why_target(row: Row, frame: Frame) -> str:
    """What `nicety why` is asked about a row; "": there is nothing to ask."""
    match row:
        case Incident() | Decided():
            return row.id
        case Process():
            return str(row.pid)
        case Pool():
            return next((it.id for it in frame.decisions if it.target == f"pool {row.name}"), "")
        case Group():
            if row.changes:
                return row.changes[0].decision
            decided = next((it.id for it in frame.decisions if it.target == f"group {row.name}"), "")
            it = frame.processes
            busiest = max((at for at, group in enumerate(it.group) if group == row.name), key=lambda at: it.cpu[at], default=None)
            return decided or ("" if busiest is None else str(it.pid[busiest]))
        case Note():
            return ""


def thing_of(row: Row, frame: Frame) -> tuple[str, str] | None:
    """What is undone at a row: "group" or "pool", and its name; None: nothing."""
    match row:
        case Group():
            return "group", row.name
        case Pool():
            return "pool", row.name
        case Process():
            return "group", row.group
        case Incident():
            return "pool", row.pool
        case Decided():
            kind, _, name = row.target.partition(" ")
            known = {"group": [it.name for it in frame.groups], "pool": [it.name for it in frame.pools]}.get(kind, [])
            return (kind, name) if name in known else None
        case Note():
            return None


def _name(row: Row) -> str:
    match row:
        case Group() | Pool() | Process():
            return row.name
        case Incident() | Decided():
            return row.id
        case Note():
            return "a note"


def _or_error(work: Callable[[], Any]) -> Any:
    """The result of a work, or the text of its error: a failure is a sentence on the screen, not its end."""
    try:
        return work()
    except Exception as error:
        return str(error) or type(error).__name__


def _undone(answer: object, thing: str) -> str:
    """What came of an undo."""
    if not isinstance(answer, dict):
        return str(answer)
    statuses = [str(outcome.get("status", "")) for outcome in answer.get("outcomes", [])]
    if not statuses:
        return f"{thing} is only observed now; nothing had to be put back"
    good = sum(status == "applied" for status in statuses)
    text = f"{thing} is only observed now; {good} of {len(statuses)} values are back"
    return text if good == len(statuses) else f"{text} ({', '.join(sorted({it for it in statuses if it != 'applied'}))})"


HELP = """\
What is on the screen

  A group is processes that belong together.
  class: interactive work is protected, batch work may be demoted, anything else is left alone. The percentage is how sure that is.
  "set" is your configuration, and a question mark stands for a class that is not sure enough to be used.
  wants: cores that it would use if it never waited. cores: what it uses.
  in 30 s: cores that are expected, and those that are exceeded in one of twenty cases.
  waits: for how much of what it wants it waits for a CPU.
  delayed by: who ran meanwhile, in cores.
  changed: what nicety has changed of it, the value before and now.

Keys

  1-6, Tab      tables: groups, processes, pools, incidents, decisions, notes
  Up, Down      choose a row; Ctrl-U and Ctrl-D by a page; the mouse works too
  s, S, r       sort by the next or previous column, reverse; or click a title
  /             search; Esc shows all again
  Space         the processes of a group; Esc goes back
  t             processes as a tree
  i             groups that do nothing, too
  Enter, w      why: what nicety decided there, on what it rests, what came of it
  u             undo one thing, after a question
  p             pause or resume the daemon
  q             leave

The past

  Left, Right            a tick back or on
  Shift-Left, -Right     a minute
  PgUp, PgDn             ten minutes
  Home, End              the oldest moment, the present
  g                      go to a time: 03:00, yesterday 14:20, -2h
  b, B                   bookmark this moment; list the bookmarks
"""
