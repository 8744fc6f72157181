"""Axes and marks of the report's pictures: where they stand, and what they do with figures that have no place."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import pytest

from nicety.training.svg import Panel, Picture, round_figures


def panel(xs: tuple[float, float] = (0, 10), ys: tuple[float, float] = (0, 100)) -> Panel:
    return Panel(Picture(1, 200, 100, "title", "summary"), 50, 10, 100, 80, xs, ys)


def test_a_figure_has_its_place_between_the_ends_of_the_axes() -> None:
    it = panel()
    assert (it.x(0), it.x(5), it.x(10)) == (50, 100, 150)
    assert (it.y(0), it.y(25), it.y(100)) == (90, 70, 10)


def test_ends_that_are_equal_are_moved_apart() -> None:
    it = panel(ys=(7, 7))
    assert it.y(7) == 90
    assert it.y(14) == 10


def test_a_line_has_a_gap_where_nothing_is_known() -> None:
    it = panel()
    it.line([(0, 0), (1, 10), (2, math.nan), (3, 30), (4, 40), (5, math.inf)], "own")
    assert re.findall(r'points="([^"]+)"', it.picture.text) == ["50.0,90.0 60.0,82.0", "80.0,66.0 90.0,58.0"]


def test_what_is_far_outside_stays_where_browsers_can_draw() -> None:
    it = panel()
    it.line([(0, 1e300), (10, -1e300)], "own")
    assert re.findall(r'points="([^"]+)"', it.picture.text) == ["50.0,-150.0 150.0,250.0"]


@pytest.mark.parametrize(
    ("low", "high", "most", "words"),
    [
        (0, 1, 5, ["0", "0.5", "1"]),
        (0, 180, 6, ["0", "50", "100", "150"]),
        (-4, 13, 8, ["0", "5", "10"]),
        (0.0, 3e-7, 4, ["0", "1e-07", "2e-07", "3e-07"]),
        (5e300, 9e300, 3, ["6e+300", "8e+300"]),
    ],
)
def test_axes_have_round_figures(low: float, high: float, most: int, words: list[str]) -> None:
    assert [text for _, text in round_figures(low, high, most)] == words


def test_words_are_text_and_nothing_else() -> None:
    picture = Picture(1, 10, 10, "<b>&", '"]]>')
    picture.say(0, 0, "<script>alert(1)</script>")
    with picture.clipped(0, 0, 1, 1):
        picture.say(0, 0, "&lt;")
    root = ET.fromstring(picture.text)
    assert [node.text for node in root.iter() if node.text] == ["<b>&", '"]]>', "<script>alert(1)</script>", "&lt;"]


def test_parts_that_are_cut_off_are_cut_off_by_themselves() -> None:
    it = panel()
    with it.inside():
        it.line([(0, 0), (1, 1)], "own")
    with it.inside():
        it.line([(0, 0), (1, 1)], "own")
    text = it.picture.text
    assert re.findall(r'<clipPath id="([^"]+)"', text) == ["p1-clip1", "p1-clip2"]
    assert re.findall(r'clip-path="url\(#([^)]+)\)"', text) == ["p1-clip1", "p1-clip2"]
