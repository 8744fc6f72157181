"""What a terminal can show: colours, characters, and whether it can be drawn on."""

from __future__ import annotations

import io
import sys

import pytest

from nicety.scheduler.views.top.cells import cut, filled, fit, folded
from nicety.scheduler.views.top.glyphs import ASCII, BLOCKS, Glyphs, bar, graph, sparkline
from nicety.scheduler.views.top.main import draws, glyphs_of
from nicety.scheduler.views.top.palette import MANY, NONE, SIXTEEN, Colours, colours_of, segments, style_of


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TERM": "xterm-256color"}, Colours.MANY),
        ({"TERM": "screen", "COLORTERM": "truecolor"}, Colours.MANY),
        ({"TERM": "xterm"}, Colours.SIXTEEN),
        ({"TERM": "linux"}, Colours.SIXTEEN),
        ({"TERM": "vt100"}, Colours.NONE),
        ({"TERM": "no-such-terminal"}, Colours.SIXTEEN),
        ({"TERM": ""}, Colours.NONE),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, Colours.NONE),
        ({"TERM": "xterm-256color", "NO_COLOR": ""}, Colours.MANY),
    ],
)
def test_as_many_colours_as_the_terminal_has(environment: dict[str, str], expected: Colours) -> None:
    assert colours_of(environment, "") is expected
    assert colours_of(environment, "sixteen") is Colours.SIXTEEN


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TERM": "xterm", "LANG": "C.UTF-8"}, BLOCKS),
        ({"TERM": "xterm", "LC_ALL": "C", "LANG": "en_US.utf8"}, ASCII),
        ({"TERM": "xterm", "LC_CTYPE": "de_DE.utf8"}, BLOCKS),
        ({"TERM": "vt100", "LANG": "C.UTF-8"}, ASCII),
        ({"TERM": "linux", "LANG": "C.UTF-8"}, ASCII),
        ({"TERM": "xterm"}, ASCII),
    ],
)
def test_characters_that_the_terminal_has(environment: dict[str, str], expected: Glyphs) -> None:
    assert glyphs_of(environment) is expected


def test_nothing_is_drawn_where_the_cursor_cannot_move(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Tty())
    monkeypatch.setattr(sys, "stdout", Tty())
    assert draws({"TERM": "xterm"})
    assert not draws({"TERM": "dumb"})
    assert not draws({})
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert not draws({"TERM": "xterm"})


def test_every_palette_has_every_style() -> None:
    assert set(MANY) == set(SIXTEEN) == set(NONE)
    for name in MANY:
        sixteen, none = style_of(name, Colours.SIXTEEN, True), style_of(name, Colours.NONE, False)
        assert sixteen.color is None or (sixteen.color.number is not None and sixteen.color.number < 16)
        assert none.color is None
        assert none.bgcolor is None
        assert style_of(name, Colours.NONE, True).reverse
        assert style_of(name, Colours.MANY, False).bgcolor is not None
    assert style_of("of a later version", Colours.MANY, False) == style_of("", Colours.MANY, False)


def test_the_chosen_row_is_told_apart_without_colours() -> None:
    assert all(
        segment.style is not None and segment.style.reverse for segment in segments((("a", ""), ("b", "dim")), Colours.NONE, True)
    )


def test_bars_and_graphs_show_shares() -> None:
    assert "".join(text for text, _ in bar(0.5, 10, ASCII)) == "|||||....."
    assert "".join(text for text, _ in bar(0.01, 10, ASCII)) == "|........."
    assert "".join(text for text, _ in bar(7.0, 4, ASCII)) == "||||"
    assert "".join(text for text, _ in sparkline([0.0, 0.5, 1.0], 1.0, 5, BLOCKS)) == "   ▄█"
    assert "".join(text for text, _ in sparkline([0.001, 1.0], 0.0, 2, BLOCKS)) == "  "
    rows = ["".join(text for text, _ in row) for row in graph([0.25, 0.5, 1.0], 1.0, 4, 2, BLOCKS)]
    assert rows == ["   █", " ▄██"]


def test_texts_are_cut_and_folded_by_cells() -> None:
    assert fit("漢字漢字", 5) == "漢字…"
    assert fit("a", 3, right=True) == "  a"
    assert cut("abc", 0) == ("", 0)
    assert filled((("漢字", "x"), ("abc", "y")), 6) == (("漢字", "x"), ("a…", "y"))
    assert filled((), 2) == (("  ", ""),)
    assert folded("漢字漢字 ab", 5) == ["漢字", "漢字", "ab"]
    assert folded("x" * 25, 10) == ["x" * 10, "x" * 10, "x" * 5]
    assert folded("", 10) == [""]
