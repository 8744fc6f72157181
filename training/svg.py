"""Axes, lines, areas and bars as the text of an inline SVG. Knows figures and places, not what they mean.

Colours are classes: the page gives each its colour, in light and in dark. Text is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from html import escape

CHARACTER = 7.2
"""Mean width of a character in units of the picture, whose letters are 12 high. Chosen: DejaVu Sans, a wide font, has 7.1."""

Range = tuple[float, float]
Point = tuple[float, float]


class Picture:
    """One picture. Give it panels, then take its `text`."""

    def __init__(self, number: int, width: float, height: float, title: str, summary: str) -> None:
        """`number`: of the picture on its page, which keeps ids apart. `title` and `summary` are for those who cannot see it."""
        self._number, self._title, self._summary = number, title, summary
        self._size = (width, height)
        self._parts: list[str] = []
        self._clips = 0

    @property
    def text(self) -> str:
        """The picture as SVG."""
        width, height = self._size
        ids = f"p{self._number}-title p{self._number}-summary"
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" aria-labelledby="{ids}">'
        head += f'<title id="p{self._number}-title">{escape(self._title)}</title>'
        head += f'<desc id="p{self._number}-summary">{escape(self._summary)}</desc>'
        return "".join([head, *self._parts, "</svg>"])

    def add(self, part: str) -> None:
        """An element, as text."""
        self._parts.append(part)

    def say(self, x: float, y: float, words: str, anchor: str = "start", kind: str = "said", turned: bool = False) -> None:
        """Words at a place. `anchor`: start, middle or end. `turned`: from the bottom to the top."""
        turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
        self.add(f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turn}>{escape(words)}</text>')

    @contextmanager
    def clipped(self, left: float, top: float, width: float, height: float) -> Iterator[None]:
        """Whatever is added within the block is cut off at the edges of this rectangle."""
        self._clips += 1
        name = f"p{self._number}-clip{self._clips}"
        rectangle = f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
        self.add(f'<clipPath id="{name}">{rectangle}</clipPath><g clip-path="url(#{name})">')
        yield
        self.add("</g>")


class Panel:
    """A pair of axes in a picture: figures to places, and marks at them."""

    def __init__(self, picture: Picture, left: float, top: float, width: float, height: float, xs: Range, ys: Range) -> None:
        """`xs`, `ys`: figures at the ends of the axes."""
        self.picture, self.left, self.top, self.width, self.height = picture, left, top, width, height
        self._xs, self._ys = _apart(xs), _apart(ys)

    def x(self, figure: float) -> float:
        """The place of a figure, from the left edge of the picture."""
        low, high = self._xs
        return self.left + self.width * _within((figure - low) / (high - low))

    def y(self, figure: float) -> float:
        """The place of a figure, from the upper edge of the picture."""
        low, high = self._ys
        return self.top + self.height * (1 - _within((figure - low) / (high - low)))

    def axes(self, across: Sequence[tuple[float, str]], up: Sequence[tuple[float, str]], along: str, beside: str = "") -> None:
        """Grid lines with their figures, `across` and `up`; words `along` the x axis and `beside` the y axis."""
        bottom, right = self.top + self.height, self.left + self.width
        for figure, words in up:
            y = self.y(figure)
            self.picture.add(f'<line class="grid" x1="{self.left:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
            self.picture.say(self.left - 6, y + 4, words, "end")
        for figure, words in across:
            x = self.x(figure)
            self.picture.add(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{self.top:.1f}" y2="{bottom:.1f}"/>')
            self.picture.say(x, bottom + 17, words, "middle")
        self.picture.add(f'<line class="axis" x1="{self.left:.1f}" x2="{right:.1f}" y1="{bottom:.1f}" y2="{bottom:.1f}"/>')
        self.picture.say(self.left + self.width / 2, bottom + 34, along, "middle")
        if beside:
            self.picture.say(self.left - 46, self.top + self.height / 2, beside, "middle", turned=True)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Marks added within the block are cut off at the axes."""
        with self.picture.clipped(self.left, self.top - 1, self.width, self.height + 2):
            yield

    def line(self, points: Iterable[Point], kind: str) -> None:
        """A line through points. It has a gap where a figure is not finite."""
        for stretch in _stretches(points):
            places = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in stretch)
            self.picture.add(f'<polyline class="line {kind}" points="{places}"/>')

    def dots(self, points: Iterable[Point], radius: float, kind: str) -> None:
        """A dot at each point with finite figures."""
        for stretch in _stretches(points):
            for x, y in stretch:
                self.picture.add(f'<circle class="fill {kind}" cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="{radius:g}"/>')

    def strokes(self, points: Iterable[Point], half: float, kind: str) -> None:
        """A short level line at each point with finite figures, `half` units to both sides."""
        for stretch in _stretches(points):
            for x, y in stretch:
                at, height = self.x(x), self.y(y)
                places = f'x1="{at - half:.1f}" x2="{at + half:.1f}" y1="{height:.1f}" y2="{height:.1f}"'
                self.picture.add(f'<line class="line {kind}" {places}/>')

    def band(self, lower: Sequence[Point], upper: Sequence[Point], kind: str) -> None:
        """The area between two lines."""
        places = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in (*lower, *reversed(upper)))
        self.picture.add(f'<polygon class="fill {kind}" points="{places}"/>')

    def box(self, xs: Range, ys: Range, kind: str) -> None:
        """A filled rectangle."""
        left, right = sorted(map(self.x, xs))
        top, bottom = sorted(map(self.y, ys))
        size = f'width="{right - left:.1f}" height="{bottom - top:.1f}"'
        self.picture.add(f'<rect class="fill {kind}" x="{left:.1f}" y="{top:.1f}" {size}/>')


def round_figures(low: float, high: float, most: int) -> list[tuple[float, str]]:
    """At most `most` round figures within a range, and how they are written.

    >>> [words for _, words in round_figures(0, 2.3, 5)], [words for _, words in round_figures(94.7, 100.6, 4)]
    (['0', '0.5', '1', '1.5', '2'], ['96', '98', '100'])
    """
    low, high = _apart((low, high))
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (power * factor for factor in (1, 2, 5, 10, 20, 50)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            return [(number * step, f"{number * step:.6g}") for number in range(first, last + 1)]
    raise AssertionError("fifty times the power of ten below a step is more than a step")


def _apart(ends: Range) -> Range:
    """The ends of an axis, moved apart where they are too close to divide by their distance."""
    low, high = ends
    least = 1e-9 * max(abs(low), abs(high), 1e-3)
    return (low, high) if high - low > least else (low, low + max(abs(low), 1.0))


def _within(share: float) -> float:
    """A place on an axis, a little beyond its ends at most: browsers do not draw places that are far away."""
    return min(max(share, -2.0), 3.0)


def _stretches(points: Iterable[Point]) -> Iterator[list[Point]]:
    """Runs of points with finite figures."""
    stretch: list[Point] = []
    for x, y in points:
        if math.isfinite(x) and math.isfinite(y):
            stretch.append((float(x), float(y)))
        elif stretch:
            yield stretch
            stretch = []
    if stretch:
        yield stretch
