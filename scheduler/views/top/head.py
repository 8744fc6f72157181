"""The head of the screen: the machine, the daemon, what moment this is, and the tabs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...frame import Frame, Own
from ...words import moment, span
from . import figures
from .cells import Line, Piece, both_ends, filled, length, shown
from .glyphs import Glyphs, bar, graph, sparkline
from .history import History
from .tables import Tab

TALL = 34
"""Lines of a screen from which on the head has a graph (chosen)."""

GRAPH = 3
"""Lines of that graph."""


@dataclass(frozen=True, slots=True)
class When:
    """What moment is shown."""

    late: float = 0.0  # seconds by which the next frame is late
    alone: bool = False  # there is no daemon: this program reads the machine by itself
    past: bool = False
    bookmarked: str = ""  # the text of the bookmark at this moment
    said: str = ""  # why there is no daemon, or what is missing in the past


def head(frame: Frame, history: History, when: When, glyphs: Glyphs, width: int, height: int) -> list[Line]:
    """Four lines, or more on a high screen."""
    machine = frame.machine
    cpus = max(machine.cpus, 1)
    tall = height >= TALL
    bars = min(40, max(12, width // 4))
    busy = [
        ("cpu  ", "label"),
        *bar(machine.busy / cpus, bars, glyphs),
        (f" {machine.busy:.2f}", "value"),
        (f" of {machine.cpus} cores", "dim"),
    ]
    for name, value in (("steal", machine.steal), ("unseen", machine.unseen)):
        if value >= 0.005 or width >= 100:
            busy += [(f"  {name} ", "dim"), (figures.cores(value) or "0", "warn" if value >= 0.05 else "dim")]
    used = machine.memory - machine.available
    share = used / machine.memory if machine.memory else 0.0
    memory = [
        ("mem  ", "label"),
        *bar(share, bars, glyphs),
        (f" {figures.size(used)}", "value"),
        (f" of {figures.size(machine.memory)}", "dim"),
    ]
    room = width - length(busy) - 2
    if not tall and room >= 8:
        busy = [*busy, ("  ", ""), *sparkline(list(history.machine), cpus, min(room, 60), glyphs)]
    lines = [_title(frame, when, glyphs, width), filled(busy, width), both_ends(memory, _pressure(frame, width), width)]
    if tall:
        lines += graph(list(history.machine), cpus, width, GRAPH, glyphs)
    return [*lines, _daemon(frame, history, when, width)]


def _title(frame: Frame, when: When, glyphs: Glyphs, width: int) -> Line:
    at = moment(round(frame.wall * 1e9), day=when.past)
    own = frame.own
    if when.past:
        mark = f" bookmark: {shown(when.bookmarked)} " if when.bookmarked else ""
        right: list[Piece] = [(mark, "mark"), (f" THE PAST  {at} ", "past")]
    elif when.late:
        right = [(f" no news for {figures.age(when.late)} ", "alarm"), (f" {at} ", "value")]
    else:
        right = [("live ", "good"), (f"{at} ", "value")]
    left: list[Piece] = [(" nicety ", "brand"), (f" {shown(frame.machine.name)} ", "value"), (glyphs.beside, "faint")]
    if when.alone and not when.past:
        left.append((" no daemon: observing by itself", "warn"))
    elif own.paused:
        left.append((" paused: decides nothing new", "alarm"))
    elif own.mode == "act":
        left += [(" acts", "acts"), (f" on {_things(own)}", "value")]
    else:
        left += [(" observes", "observes"), (" and changes nothing", "dim")]
    return both_ends(left, right, width)


def _things(own: Own) -> str:
    text = ", ".join(map(figures.name_of, map(shown, own.acting_on))) or "what it is asked"
    return text + (f" but not {', '.join(map(figures.name_of, map(shown, own.spared)))}" if own.spared else "")


def _pressure(frame: Frame, width: int) -> list[Piece]:
    pressure = frame.machine.pressure
    if pressure is None:
        return [("pressure unknown ", "faint")]
    found: list[Piece] = [("  some task waits for " if width >= 90 else "  waits: ", "dim")]
    for name, value in zip(("cpu", "memory", "io"), pressure, strict=False):
        style = "bad" if value >= 0.4 else "warn" if value >= 0.1 else "dim"
        found += [(f"{name} ", "dim"), (f"{value:.0%} ", style)]
    return found


def _daemon(frame: Frame, history: History, when: When, width: int) -> Line:
    own, cost = frame.own, history.own_cost()
    if when.alone and not when.past:
        words = when.said or "start it with `nicety run`; it observes until you let it act"
        return filled([("self ", "label"), (shown(words), "dim")], width)
    in_force = sum(len(group.changes) for group in frame.groups) + sum(len(pool.changes) for pool in frame.pools)
    left: list[Piece] = [("self ", "label")]
    left += [(f"{figures.many(in_force, 'change')} in force", "change")] if in_force else [("nothing changed", "dim")]
    if cost is not None:
        left += [("  cost ", "dim"), (f"{cost:.1%}", "value"), (" of a CPU", "dim")]
    if own.memory:
        left += [(f", {figures.size(own.memory)}", "dim")]
    left.append((f"  up {span(own.running)}, tick {own.ticks}", "dim"))
    if own.missed:
        left.append((f", {own.missed} missed", "dim"))
    if own.reduced:
        left.append((f"  reduced: {shown(', '.join(own.reduced))}", "warn"))
    if when.said:
        left.append((f"  {shown(when.said)}", "warn"))
    elif own.cannot:
        left.append((f"  {shown(own.cannot)}", "warn"))
    return filled(left, width)


def tabs(counts: Mapping[Tab, int], now: Tab, width: int) -> tuple[Line, list[tuple[int, int, Tab]]]:
    """The line of the tabs, and the cells of each: first, end, tab."""
    pieces: list[Piece] = []
    places = []
    narrow = width < 90
    for number, tab in enumerate(Tab, 1):
        begin = length(pieces)
        style = "tab on" if tab is now else "tab"
        name = "procs" if narrow and tab is Tab.PROCESSES else tab.value
        pieces.append((f" {number} {name}", style))
        count = counts[tab]
        alarm = tab is Tab.INCIDENTS and count
        pieces.append((f" {count} ", "tab alarm" if alarm else f"{style} count"))
        places.append((begin, length(pieces), tab))
    rest = width - length(pieces)
    if rest > 0:
        pieces.append((" " * rest, "tab"))
    return filled(pieces, width), places


def footer(keys: Sequence[tuple[str, str]], width: int) -> Line:
    """Keys and what they do, as many as there is room for."""
    pieces: list[Piece] = []
    for key, what in keys:
        if length(pieces) + len(key) + len(what) + 3 > width:
            break
        pieces += [(f" {key} ", "key"), (f"{what} ", "dim")]
    return filled(pieces, width)
