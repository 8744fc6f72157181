"""The screen of a plain frame at three sizes, compared with files letter by letter; and names that would harm it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.cells import cell_len

from nicety.scheduler.frame import Decided, Delay, Frame, Part
from nicety.scheduler.testing.frames import MIB, WALL, a_band, a_frame, a_shown_group, an_own
from nicety.scheduler.views.top.cells import ENOUGH, Line, length, shown, width_of
from nicety.scheduler.views.top.glyphs import ASCII, BLOCKS, Glyphs
from nicety.scheduler.views.top.head import When
from nicety.scheduler.views.top.history import History
from nicety.scheduler.views.top.page import View, draw
from nicety.scheduler.views.top.palette import Colours, segments
from nicety.scheduler.views.top.plain import plain
from nicety.scheduler.views.top.tables import Tab, delay_words

SCREENS = Path(__file__).parent / "screens"
SIZES = [(80, 24), (120, 40), (200, 60)]


@pytest.fixture(autouse=True)
def _one_time_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def a_history(frame: Frame, ticks: int = 40) -> History:
    """Of the ticks up to a frame: the batch work comes and goes."""
    history = History()
    for back in range(ticks, -1, -1):
        part = 0.25 + 0.75 * ((ticks - back) % 14) / 13 if back else 1.0
        groups = [
            msgspec.structs.replace(group, demand=group.demand * (part if group.class_ == "batch" else 1.0))
            for group in frame.groups
        ]
        machine = msgspec.structs.replace(frame.machine, busy=frame.machine.busy * part)
        own = msgspec.structs.replace(frame.own, cpu=frame.own.cpu - back * 0.011)
        values: dict[str, Any] = {"seq": frame.seq - back, "wall": frame.wall - back, "groups": groups}
        history.add(msgspec.structs.replace(frame, machine=machine, own=own, **values))
    return history


def text_of(lines: list[Line]) -> str:
    return "".join("".join(text for text, _ in line).rstrip() + "\n" for line in lines)


def screen(view: View, when: When, size: tuple[int, int], frame: Frame | None = None, glyphs: Glyphs = BLOCKS) -> str:
    shown_frame = frame or a_frame()
    drawn = draw(shown_frame, view, a_history(shown_frame), when, glyphs, *size)
    assert [length(line) for line in drawn.lines] == [size[0]] * size[1]
    return text_of(drawn.lines)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("name", ["groups", "processes", "pools", "decisions", "past", "alone"])
def test_the_screen_is_as_it_was(name: str, size: tuple[int, int]) -> None:
    """`NICETY_SCREENS=new pytest ...` writes them anew, to be looked at."""
    view, when, glyphs = View(), When(), BLOCKS
    if name in list(Tab):
        view.tab, view.tree = Tab(name), True
    elif name == "past":
        when = When(past=True, bookmarked="the night", said="nothing was recorded before")
    else:
        when, glyphs = When(alone=True), ASCII
    text, path = screen(view, when, size, glyphs=glyphs), SCREENS / f"{name}-{size[0]}x{size[1]}.txt"
    if os.environ.get("NICETY_SCREENS") == "new":
        path.write_text(text)
    assert text == path.read_text()


def test_every_size_has_its_lines() -> None:
    frame = a_frame()
    for width in (1, 2, 7, 20, 39, 63, 80, 133, 300):
        for height in (2, 3, 6, 10, 24, 33, 44, 90):
            for tab in Tab:
                drawn = draw(frame, View(tab), History(), When(), BLOCKS, width, height)
                assert [length(line) for line in drawn.lines] == [width] * height


HOSTILE = [
    "\x1b[31mred\x1b[0m",
    "[red]markup[/red] [bold]",
    "\x1b]0;title\x07\x9b5m",
    "x" * 4096,
    "漢字" * 500,
    "a\u202eb\u2066c\u200fd",
    "z\u200bw\u200d\ufeffj\u00ad",
    "e\u0301\u0301\u0302" * 40,
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \U0001f44d\U0001f3fd",
    "tab\tnew\nline\rback\x00",
    "\ud800\udfff",
    "",
    "\u1100\u1161\u11a8\u1160",
    "{0} %s %n",
]


def poisoned(value: Any, text: str) -> Any:
    """A part of a frame in which every text is this one."""
    if isinstance(value, Part):
        fields = {name: poisoned(getattr(value, name), text) for name in value.__struct_fields__}
        return msgspec.structs.replace(value, **fields)
    if isinstance(value, list | tuple):
        return type(value)(poisoned(item, text) for item in value)
    return text if isinstance(value, str) else value


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_are_harmless(text: str) -> None:
    frame: Frame = poisoned(a_frame(notes=["a"]), text)
    history = a_history(frame, 3)
    for width, height in (*SIZES, (39, 12)):
        for tab in Tab:
            for colours in Colours:
                drawn = draw(frame, View(tab), history, When(said=text, bookmarked=text, past=True), BLOCKS, width, height)
                for line in drawn.lines:
                    strip = "".join(segment.text for segment in segments(line, colours, chosen=True))
                    assert cell_len(strip) == width
                    assert strip.isprintable()
                    assert not any(segment.control for segment in segments(line, colours))
    assert all(said.isprintable() for said in plain(frame, history, When(said=text, alone=True)))


def test_every_letter_takes_the_cells_that_a_terminal_gives_it() -> None:
    wrong = []
    alike = ((0x3400, 0xA000), (0xAC00, 0xD7A0), (0xE000, 0xF900), (0x20000, 0x110000))
    for code in range(0x110000):
        if code % 61 and any(low <= code < high for low, high in alike):
            continue  # thousands of letters beside each other that differ in nothing
        text = shown(chr(code))
        if not text.isprintable() or (width_of(text) != cell_len(text)):
            wrong.append((hex(code), text, width_of(text), cell_len(text)))
    assert wrong == []
    assert len(shown("\x1b" * 100_000)) <= 4 * ENOUGH


def test_what_is_chosen_stays_chosen_where_rows_move() -> None:
    frame, view = a_frame(), View()
    view.table.cursor = "redis"
    before = draw(frame, view, History(), When(), BLOCKS, 80, 24)
    assert before.chosen is not None
    assert "redis" in text_of([before.lines[before.chosen]])
    view.table.by, view.table.falls = "name", False
    after = draw(frame, view, History(), When(), BLOCKS, 80, 24)
    assert after.chosen is not None
    assert after.chosen != before.chosen
    assert "redis" in text_of([after.lines[after.chosen]])
    gone = msgspec.structs.replace(frame, groups=[group for group in frame.groups if group.name != "redis"])
    left = draw(gone, view, History(), When(), BLOCKS, 80, 24)
    assert left.chosen == after.chosen
    assert view.table.cursor == "web"


def test_a_long_table_scrolls_with_what_is_chosen() -> None:
    groups = [a_shown_group(f"job{number:03d}", "batch", 1.0) for number in range(200)]
    frame, view = a_frame(groups=groups), View()
    view.table.by, view.table.falls, view.table.cursor = "name", False, "job150"
    drawn = draw(frame, view, History(), When(), BLOCKS, 80, 24)
    assert drawn.chosen is not None
    assert "job150" in text_of([drawn.lines[drawn.chosen]])
    assert drawn.page < 20
    assert [place.name for place in drawn.places if place.what == "row"] == [
        f"job{150 - drawn.page + 1 + at:03d}" for at in range(drawn.page)
    ]


def test_the_head_says_what_is_wrong() -> None:
    assert "paused" in screen(View(), When(), (80, 24), a_frame(own=an_own(paused=True)))
    assert "no news for 1m05s" in screen(View(), When(late=65.0), (80, 24))
    assert "acts on web but not batch" in screen(View(), When(), (80, 24), a_frame(own=an_own(acting_on=["web"], spared=["batch"])))
    assert "observes and changes nothing" in screen(View(), When(), (80, 24), a_frame(own=an_own(mode="observe", acting_on=[])))
    assert "THE PAST" in screen(View(), When(past=True), (80, 24))
    assert "cannot renice" in screen(View(), When(), (120, 24), a_frame(own=an_own(cannot="cannot renice")))


def test_wide_screens_have_more_columns_and_narrow_ones_the_important_ones() -> None:
    narrow, wide = screen(View(), When(), (60, 24)).splitlines(), screen(View(), When(), (200, 24)).splitlines()
    assert "wants" in narrow[5]
    assert "waits" in narrow[5]
    assert "quota" not in narrow[5]
    assert all(word in wide[5] for word in ("cores", "wants", "in 30 s", "waits", "delayed by", "changed", "memory", "quota"))


def test_the_plain_mode_says_everything_in_sentences() -> None:
    frame = a_frame(notes=["a note"])
    lines = plain(frame, a_history(frame), When())
    assert lines[0].endswith("machine box")
    assert "nicety acts on everything" in lines
    assert any(line.startswith("group redis: interactive, 97 % sure") and "delayed by ffmpeg 0.08" in line for line in lines)
    assert any(line.startswith("pool web: 4 workers, 5 asked for, load 2.1, load in 30 seconds 2.2 to 3.4") for line in lines)
    assert "note: a note" in lines
    assert any(line.startswith("incident: leak in pool web") for line in lines)


@pytest.mark.parametrize(
    ("delay", "room", "expected"),
    [
        (None, 20, ""),
        (Delay(0.6, [("ffmpeg", 0.6)], 0.0, 0.0, 0.0, 0.0), 20, "ffmpeg 0.60"),
        (Delay(0.6, [("program make", 0.1)], 0.4, 0.0, 0.0, 0.0), 30, "make 0.10, others 0.40"),
        (Delay(0.6, [("make", 0.1)], 0.0, 0.5, 0.0, 0.0), 30, "its own 0.50, make 0.10"),
        (Delay(0.6, [("make", 0.1)], 0.0, 0.0, 0.0, 0.5), 11, "steal 0.50"),
        (Delay(0.6, [("a-very-long-name", 0.5)], 0.1, 0.0, 0.0, 0.0), 13, "a-…-name 0.50"),
        (Delay(0.0, [("make", 0.001)], 0.0, 0.0, 0.0, 0.0), 20, ""),
    ],
)
def test_who_delays_a_group_is_named_as_far_as_there_is_room(delay: Delay | None, room: int, expected: str) -> None:
    assert delay_words(delay, room) == expected


def test_history_begins_anew_after_a_gap_and_in_another_session() -> None:
    history, frame = History(), a_frame()
    history.add(frame)
    history.add(frame)
    assert list(history.machine) == [1.9]
    history.add(a_frame(seq=3600))
    assert list(history.machine) == [1.9, 1.9]
    assert history.demand("ffmpeg") == [2.0, 2.0]
    history.add(a_frame(seq=3700))
    assert list(history.machine) == [1.9]
    history.add(a_frame(seq=3701, own=an_own(session="other")))
    assert history.demand("ffmpeg") == [2.0]
    assert history.load("web") == [2.1]
    history.add(a_frame(seq=3702, own=an_own(session="other", cpu=36.02), wall=WALL + 1))
    assert history.own_cost() == pytest.approx(0.02)


def test_groups_that_are_gone_are_forgotten() -> None:
    history = History()
    history.add(a_frame(seq=0))
    for seq in range(1, 40):
        history.add(a_frame(seq=seq, groups=[]))
    assert history.demand("ffmpeg") == []


def test_decisions_show_what_came_of_them() -> None:
    text = screen(View(Tab.DECISIONS), When(), (120, 24))
    assert "applied" in text
    assert "helped" in text
    many = [Decided(f"1-{n}.0", WALL, "priority", "group a", "nice 19", "a text", 3, "failed", "hurt") for n in range(3)]
    assert screen(View(Tab.DECISIONS), When(), (120, 24), a_frame(decisions=many)).count("nice 19 x3") >= 3


def test_a_group_says_how_it_is_forecast_and_what_it_has() -> None:
    group = a_shown_group("make", "batch", 1.0, 0.5, brief=0.3, throttled=0.4, memory=900 * MIB, forecast=a_band(1.0, 1.9))
    text = screen(View(), When(), (200, 60), a_frame(groups=[group]))
    assert "0.30 by processes shorter than a tick" in text
    assert "its own quota stops" in text
    assert "900M of memory" in text
    assert "1.0–1.9" in text
