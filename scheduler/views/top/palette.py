"""What the styles look like, in as many colours as the terminal has. The only module of the view that knows rich."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from functools import lru_cache

from rich.segment import Segment
from rich.style import Style

from .cells import Line


class Colours(Enum):
    """How many colours a terminal has."""

    MANY = "many"
    SIXTEEN = "sixteen"
    NONE = "none"


GREY, SURFACE, RAISED = "#8b93a7", "#11141c", "#1c2130"
HEAT = ("#4fbf8b", "#63c584", "#82ca78", "#a5cc6b", "#c7c95e", "#e0bd57", "#eba653", "#ef8b55", "#ee6d5c", "#e94f64")
"""From little to much (chosen)."""

MANY = {
    "": "#d5dae6",
    "name": "#f0f3fa bold",
    "value": "#f0f3fa",
    "dim": GREY,
    "faint": "#4b5367",
    "label": "#7aa2f7 bold",
    "title": "#b9c2d8",
    "brand": f"bold {SURFACE} on #7aa2f7",
    "good": "#63c584",
    "warn": "#e0bd57",
    "bad": "#f0707a",
    "alarm": f"bold {SURFACE} on #f0707a",
    "past": f"bold {SURFACE} on #e0bd57",
    "mark": "bold #e0bd57",
    "acts": "bold #63c584",
    "observes": "bold #7aa2f7",
    "interactive": "#79d4e8",
    "batch": "#c8a1ee",
    "exempt": GREY,
    "culprit": "#f2a272",
    "change": "#8fd18f",
    "ahead": "#7aa2f7",
    "band": "#34466f",
    "over": "#7aa2f7 on #34466f",
    "heading": f"{GREY} on {RAISED}",
    "heading on": f"bold #f0f3fa on {RAISED}",
    "tab": f"{GREY} on #181c28",
    "tab on": "bold #f0f3fa on #2d3a5c",
    "tab count": "#5f6880 on #181c28",
    "tab on count": "#a9b8de on #2d3a5c",
    "tab alarm": "bold #f0707a on #181c28",
    "key": "bold #7aa2f7",
    "asked": f"bold #f0f3fa on {RAISED}",
    **{f"heat{at}": colour for at, colour in enumerate(HEAT)},
}
_BACKGROUND = Style.parse(f"on {SURFACE}")
_CHOSEN = Style.parse("on #26304a")

SIXTEEN = {
    "": "",
    "name": "bold",
    "value": "bold",
    "dim": "",
    "faint": "bright_black",
    "label": "bright_blue",
    "title": "bold",
    "brand": "reverse bold",
    "good": "green",
    "warn": "yellow",
    "bad": "bright_red",
    "alarm": "bold reverse red",
    "past": "bold reverse yellow",
    "mark": "yellow",
    "acts": "bold green",
    "observes": "bold blue",
    "interactive": "cyan",
    "batch": "magenta",
    "exempt": "",
    "culprit": "yellow",
    "change": "green",
    "ahead": "bright_blue",
    "band": "blue",
    "over": "bright_blue",
    "heading": "underline",
    "heading on": "bold underline",
    "tab": "",
    "tab on": "bold reverse",
    "tab count": "bright_black",
    "tab on count": "bold reverse",
    "tab alarm": "bold reverse red",
    "key": "bold",
    "asked": "bold reverse",
    **{f"heat{at}": "green" if at < 4 else "yellow" if at < 7 else "red" for at in range(10)},
}

NONE = {
    **dict.fromkeys(SIXTEEN, ""),
    **dict.fromkeys(("name", "value", "title", "acts", "observes", "bad", "key", "mark"), "bold"),
    **dict.fromkeys(("brand", "alarm", "past", "tab on", "tab on count", "tab alarm", "asked"), "reverse"),
    "heading": "underline",
    "heading on": "bold underline",
}

MONOCHROME = ("vt", "dumb", "unknown", "wy", "sun")
"""Terminals without colours, by the beginning of their names in terminfo(5)."""

_PALETTES: Mapping[Colours, Mapping[str, str]] = {Colours.MANY: MANY, Colours.SIXTEEN: SIXTEEN, Colours.NONE: NONE}


@lru_cache(maxsize=512)
def style_of(name: str, colours: Colours, chosen: bool) -> Style:
    """What a style looks like. `chosen`: in the chosen row."""
    looks = _PALETTES[colours]
    style = Style.parse(looks.get(name, looks[""]))  # a later daemon may have classes that this view does not know
    if colours is Colours.MANY:
        return (_CHOSEN if chosen else _BACKGROUND) + style if not chosen or not style.bgcolor else style
    return style + Style(reverse=True) if chosen else style


def segments(line: Line, colours: Colours, chosen: bool = False) -> list[Segment]:
    """A line for the terminal."""
    return [Segment(text, style_of(style, colours, chosen)) for text, style in line if text]


def colours_of(environment: Mapping[str, str], named: str) -> Colours:
    """The colours of the terminal of this environment. `named`: the person's choice; "" for none."""
    if named:
        return Colours(named)
    if environment.get("NO_COLOR"):
        return Colours.NONE
    term = environment.get("TERM", "")
    if environment.get("COLORTERM", "").lower() in ("truecolor", "24bit") or term.endswith(("-256color", "-direct", "kitty")):
        return Colours.MANY
    return Colours.NONE if not term or term.startswith(MONOCHROME) or term.endswith(("-m", "-mono")) else Colours.SIXTEEN
